//! The SQL statements of this handler.

use chat::address;
use sdk::channels::EpochNumber;
use sdk::{Id, Problem, Push, clock, params, postgres, time};

use crate::rules::Heads;

const MEMBERSHIPS: &str = include_str!("sql/memberships.sql");
const CONVERSATION: &str =
    "select app.conversation_text(conversation) from app.conversations as conversation where id = $1::uuid";
const HEADS: &str = include_str!("sql/heads.sql");
const GONE: &str = include_str!("sql/gone.sql");
/// The number of messages below the head in which leaves are searched that a former release of the handlers
/// wrote. A node never misses that many before it notices.
const LEAVES_MAX: u64 = 20_000;
/// The number of users whose subscriptions one page ends, the last ones to leave. Revocations of others were
/// published before, and a node that is cut off from the bus misses fewer.
const LEAVERS_MAX: u64 = 1000;
const MISSED: &str = include_str!("sql/missed.sql");
/// The rows of one page. The page is also limited in bytes.
const ROWS_MAX: u64 = 256;

sdk::rows! {
    /// A conversation, and the user's relation to it: `seated` if the user is a participant, `open` if it is
    /// a public channel.
    pub struct Membership {
        id: Id, seated: bool, open: bool, seq: Option<u64>, change: u64, epoch: u32, epoch_name: String,
        common_seq: Option<u64>, common_change: Option<u64>,
    }
    struct Head {
        seq: u64, change: u64, epoch: u32, epoch_name: String, common_seq: Option<u64>, common_change: Option<u64>,
        some_left: bool,
    }
    struct Frame { track: u32, number: u64, frame: String }
}

impl Membership {
    pub(crate) fn heads(&self) -> Heads {
        Heads { seq: self.seq.unwrap_or(0), change: self.change }
    }

    /// The heads up to which the client's epoch and this history are the same. `None` if the client's epoch
    /// is the present one, or the client named none.
    pub(crate) fn common(&self) -> Option<Heads> {
        Some(Heads { seq: self.common_seq?, change: self.common_change? })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch { ordinal: self.epoch, name: self.epoch_name.clone() }
    }

    /// The error code for a user who is not a participant; `None` for a participant.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        match (self.seated, self.open) {
            (true, _) => None,
            (false, true) => Some("forbidden"),
            (false, false) => Some("not_found"),
        }
    }
}

/// A position epoch, which identifies the history of a position (`docs/decisions/position-epochs.md`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Epoch {
    /// The number in positions between nodes.
    pub ordinal: u32,
    /// The name that clients receive.
    pub name: String,
}

/// The user's relation to each conversation. `epoch_of` is the epoch of the client's position in a
/// conversation.
pub(crate) fn memberships<'a>(
    user: &str,
    ids: &[Id],
    epoch_of: impl Fn(&Id) -> Option<&'a str>,
) -> Result<Vec<Membership>, Problem> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let epochs: Vec<String> = ids.iter().map(|id| epoch_of(id).unwrap_or_default().to_owned()).collect();
    Ok(postgres::query(MEMBERSHIPS, &params![user, ids, this_month(), epochs])?.all()?)
}

/// A conversation as JSON.
pub(crate) fn conversation(id: Id) -> Result<String, Problem> {
    let found: Option<String> = postgres::query(CONVERSATION, &params![id])?.cell()?;
    found.ok_or_else(|| Problem::not_found("conversation"))
}

/// The heads of a conversation, compared with the positions of a subscriber.
pub(crate) struct Standing {
    pub heads: Heads,
    pub epoch: Epoch,
    /// The heads up to which the subscriber's history and this one are the same; in the present epoch, the
    /// heads.
    pub common: Heads,
    /// Whether a position of the subscriber is from another epoch.
    pub is_another_epoch: bool,
    /// Whether a user left after the subscriber's position. A leave from a large conversation is no message,
    /// so it is possible even if no message is missing.
    pub some_left: bool,
}

pub(crate) fn standing(conversation: Id, seq: EpochNumber, change: EpochNumber) -> Result<Standing, Problem> {
    let asked = params![conversation, this_month(), seq.epoch, change.epoch, seq.number];
    let head: Option<Head> = postgres::query(HEADS, &asked)?.one()?;
    let head = head.ok_or_else(Problem::internal)?;
    let heads = Heads { seq: head.seq, change: head.change };
    Ok(Standing {
        heads,
        common: heads.and(Heads {
            seq: head.common_seq.unwrap_or(u64::MAX),
            change: head.common_change.unwrap_or(u64::MAX),
        }),
        is_another_epoch: head.common_seq.is_some() || head.common_change.is_some(),
        epoch: Epoch { ordinal: head.epoch, name: head.epoch_name },
        some_left: head.some_left,
    })
}

/// The users who left after a position and have not joined again.
pub(crate) fn gone(conversation: Id, after: Heads, heads: Heads) -> Result<Vec<String>, Problem> {
    let searched_after = after.seq.max(heads.seq.saturating_sub(LEAVES_MAX));
    let rows = postgres::query(GONE, &params![conversation, after.seq, searched_after, LEAVERS_MAX])?;
    Ok(rows.iter().map(|row| row.get("user_id")).collect::<Result<_, _>>()?)
}

/// The frame of a message or a change, and its position.
pub(crate) struct Missed {
    pub track: u8,
    pub number: u64,
    frame: String,
}

impl Missed {
    pub(crate) fn into_push(self, epoch: &Epoch) -> Push {
        let position = EpochNumber::new(epoch.ordinal, self.number).on(self.track);
        Push { frame: self.frame, position: Some(position) }
    }
}

/// A page of the frames after a position, in order.
pub(crate) fn missed(conversation: Id, after: Heads, bytes_max: u32) -> Result<Vec<Missed>, Problem> {
    let asked = params![conversation, after.seq, after.change, u64::from(bytes_max), ROWS_MAX];
    let frames: Vec<Frame> = postgres::query(MISSED, &asked)?.all()?;
    let missed = |row: Frame| Missed {
        track: if row.track == 0 { address::SEQ } else { address::CHANGE },
        number: row.number,
        frame: row.frame,
    };
    Ok(frames.into_iter().map(missed).collect())
}

fn this_month() -> Id {
    Id::floor(time::month_start(clock::now_ms()))
}
