//! Statements of this handler and what their answers mean.

use sdk::{Id, Problem, clock, params, postgres, time};

use crate::entry::{Entry, Peer};

sdk::rows! {
    /// Where a conversation stands in a list.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Place { id: Id, activity: Id }

    /// What Redis keeps of a conversation.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Meta { id: Id, head: u64, change: u64, activity: Id, last: String }

    /// What only Postgres is asked about a conversation and me.
    pub struct Seat {
        id: Id,
        text: String,
        role: String,
        notifications: String,
        mark: u64,
        hidden_seq: Option<u64>,
        peer: Option<String>,
        profile: Option<String>,
        is_seen: bool,
    }

    /// What I have not read of a conversation, from this mark on.
    pub struct Counted { id: Id, mark: u64, last_read_seq: u64, unread: u64 }

    struct Row {
        activity: Id,
        text: String,
        role: String,
        notifications: String,
        last_read_seq: u64,
        unread: u64,
        last: String,
        peer: Option<String>,
        profile: Option<String>,
        is_seen: bool,
    }
}

/// The partitions from here on are looked at first.
fn month() -> Id {
    Id::floor(time::month_start(clock::now_ms()))
}

/// My conversations by activity, at most so many.
pub fn mine(user: &str, most: usize) -> Result<Vec<Place>, Problem> {
    let rows = postgres::query(include_str!("sql/mine.sql"), &params![user, most as u64, month()])?;
    Ok(rows.all()?)
}

/// Those that are not among `kept`, from `after` on.
pub fn older(user: &str, kept: &[Id], after: Id, limit: usize) -> Result<Vec<Place>, Problem> {
    let rows =
        postgres::query(include_str!("sql/older.sql"), &params![user, kept, after, limit as u64, month()])?;
    Ok(rows.all()?)
}

/// None for what is deleted.
pub fn metas(ids: &[Id]) -> Result<Vec<Meta>, Problem> {
    Ok(postgres::query(include_str!("sql/metas.sql"), &params![ids, month()])?.all()?)
}

/// None of those I am not in.
pub fn seats(user: &str, ids: &[Id]) -> Result<Vec<Seat>, Problem> {
    Ok(postgres::query(include_str!("sql/seats.sql"), &params![user, ids])?.all()?)
}

/// Likewise.
pub fn counts(user: &str, ids: &[Id]) -> Result<Vec<Counted>, Problem> {
    Ok(postgres::query(include_str!("sql/counts.sql"), &params![user, ids])?.all()?)
}

/// A page without Redis.
pub fn page(user: &str, after: Id, limit: usize) -> Result<Vec<Entry>, Problem> {
    let rows = postgres::query(include_str!("sql/page.sql"), &params![user, after, limit as u64, month()])?;
    let rows: Vec<Row> = rows.all()?;
    Ok(rows.into_iter().map(Row::entry).collect())
}

impl Row {
    fn entry(self) -> Entry {
        Entry {
            activity: self.activity,
            text: self.text,
            role: self.role,
            notifications: self.notifications,
            last_read_seq: self.last_read_seq,
            unread: self.unread,
            last: self.last,
            peer: peer(self.peer, self.profile, self.is_seen),
        }
    }
}

pub fn peer(user_id: Option<String>, profile: Option<String>, is_seen: bool) -> Option<Peer> {
    user_id.map(|user_id| Peer { user_id, profile, is_seen, presence: None })
}

/// How many conversations and people a whole rebuild visits.
pub fn size() -> Result<u64, Problem> {
    let size: Option<u64> = postgres::query(include_str!("sql/size.sql"), &[])?.cell()?;
    Ok(size.unwrap_or(0))
}

/// The next conversations by id, the deleted ones too.
pub fn conversations(after: Id, limit: usize) -> Result<Vec<Id>, Problem> {
    texts(include_str!("sql/conversations.sql"), &params![after, limit as u64])
        .map(|ids| ids.iter().filter_map(|id| Id::parse(id)).collect())
}

/// The next people who are in any conversation, by id.
pub fn people(after: &str, limit: usize) -> Result<Vec<String>, Problem> {
    texts(include_str!("sql/people.sql"), &params![after, limit as u64])
}

fn texts(statement: &str, params: &[postgres::Value]) -> Result<Vec<String>, Problem> {
    let found: Option<Option<Vec<String>>> = postgres::query(statement, params)?.cell()?;
    Ok(found.flatten().unwrap_or_default())
}
