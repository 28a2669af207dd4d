//! The SQL statements of this handler.

use sdk::{Id, Problem, clock, params, postgres, time};

use crate::entry::{Entry, Peer};

// The fields have the names of the statements' columns. `is_seen`: whether the user may see the presence of
// the peer. `text`: the begin of the entry as JSON text (`Entry::begin`). `last`: the preview of the last
// message as JSON text.
sdk::rows! {
    /// The position of a conversation in a list.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct ListPosition { id: Id, activity: Id }

    /// The state of a conversation that Redis stores.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Meta { id: Id, head: u64, change: u64, activity: Id, last: String }

    /// The user's membership in a conversation, which is always read from Postgres.
    pub struct Membership {
        id: Id,
        text: String,
        mark: u64,
        hidden_seq: Option<u64>,
        peer: Option<String>,
        profile: Option<String>,
        is_seen: bool,
    }

    /// The user's unread count in a conversation, from this mark on.
    pub struct Unread { id: Id, mark: u64, last_read_seq: u64, unread: u64 }

    struct Row {
        activity: Id,
        text: String,
        last_read_seq: u64,
        unread: u64,
        last: String,
        peer: Option<String>,
        profile: Option<String>,
        is_seen: bool,
    }
}

/// The smallest id of this month. The statements search the partitions from there on first.
fn month() -> Id {
    Id::floor(time::month_start(clock::now_ms()))
}

/// The user's `most` newest conversations, by activity.
pub(crate) fn mine(user: &str, most: usize) -> Result<Vec<ListPosition>, Problem> {
    let rows = postgres::query(include_str!("sql/mine.sql"), &params![user, most as u64, month()])?;
    Ok(rows.all()?)
}

/// The conversations below the cursor `after` that are not in `kept`.
pub(crate) fn older(user: &str, kept: &[Id], after: Id, limit: usize) -> Result<Vec<ListPosition>, Problem> {
    let rows =
        postgres::query(include_str!("sql/older.sql"), &params![user, kept, after, limit as u64, month()])?;
    Ok(rows.all()?)
}

/// The states of conversations. A deleted conversation has none.
pub(crate) fn metas(ids: &[Id]) -> Result<Vec<Meta>, Problem> {
    Ok(postgres::query(include_str!("sql/metas.sql"), &params![ids, month()])?.all()?)
}

/// The user's memberships in conversations. A conversation that the user has left has none.
pub(crate) fn memberships(user: &str, ids: &[Id]) -> Result<Vec<Membership>, Problem> {
    Ok(postgres::query(include_str!("sql/memberships.sql"), &params![user, ids])?.all()?)
}

/// The user's unread counts. A conversation that the user has left has none.
pub(crate) fn counts(user: &str, ids: &[Id]) -> Result<Vec<Unread>, Problem> {
    Ok(postgres::query(include_str!("sql/counts.sql"), &params![user, ids])?.all()?)
}

/// A page that is read from Postgres alone.
pub(crate) fn page(user: &str, after: Id, limit: usize) -> Result<Vec<Entry>, Problem> {
    let rows = postgres::query(include_str!("sql/page.sql"), &params![user, after, limit as u64, month()])?;
    let rows: Vec<Row> = rows.all()?;
    Ok(rows.into_iter().map(Row::entry).collect())
}

impl Row {
    fn entry(self) -> Entry {
        Entry {
            activity: self.activity,
            begin: self.text,
            last_read_seq: self.last_read_seq,
            unread: self.unread,
            last_message: self.last,
            peer: peer(self.peer, self.profile, self.is_seen),
        }
    }
}

/// The peer of an entry whose presence is not read yet. Only a direct conversation has a `user_id`.
pub(crate) fn peer(user_id: Option<String>, profile: Option<String>, is_visible: bool) -> Option<Peer> {
    user_id.map(|user_id| Peer { user_id, profile, is_visible, presence: None })
}

/// The number of conversations and users that a rebuild visits.
pub(crate) fn size() -> Result<u64, Problem> {
    let size: Option<u64> = postgres::query(include_str!("sql/size.sql"), &[])?.cell()?;
    Ok(size.unwrap_or(0))
}

/// The next conversations by id, including deleted ones.
pub(crate) fn conversations(after: Id, limit: usize) -> Result<Vec<Id>, Problem> {
    texts(include_str!("sql/conversations.sql"), &params![after, limit as u64])
        .map(|ids| ids.iter().filter_map(|id| Id::parse(id)).collect())
}

/// The next users who are in any conversation, by id.
pub(crate) fn people(after: &str, limit: usize) -> Result<Vec<String>, Problem> {
    texts(include_str!("sql/people.sql"), &params![after, limit as u64])
}

fn texts(statement: &str, params: &[postgres::Value]) -> Result<Vec<String>, Problem> {
    let found: Option<Option<Vec<String>>> = postgres::query(statement, params)?.cell()?;
    Ok(found.flatten().unwrap_or_default())
}
