//! Statements of this handler and what their answers mean.

use chat::address;
use sdk::channels::EpochNumber;
use sdk::{Id, Problem, Push, clock, params, postgres, time};

use crate::rules::Heads;

const SEATS: &str = include_str!("sql/seats.sql");
const CONVERSATION: &str =
    "select app.conversation_text(conversation) from app.conversations as conversation where id = $1::uuid";
const HEADS: &str = include_str!("sql/heads.sql");
const GONE: &str = include_str!("sql/gone.sql");
/// Messages back from the head in which it is looked for leaves: far more than a node misses before it is noticed.
const LEAVES_MAX: u64 = 20_000;
const MISSED: &str = include_str!("sql/missed.sql");
/// Of one page, beside its bound in bytes.
const ROWS_MAX: u64 = 256;

sdk::rows! {
    /// A conversation as a user stands to it.
    pub struct Seat {
        id: Id, seated: bool, open: bool, seq: Option<u64>, change: u64, epoch: u32, epoch_name: String,
        common_seq: Option<u64>, common_change: Option<u64>,
    }
    struct Head {
        seq: u64, change: u64, epoch: u32, epoch_name: String, common_seq: Option<u64>, common_change: Option<u64>,
    }
    struct Frame { track: u32, number: u64, frame: String }
}

impl Seat {
    pub fn heads(&self) -> Heads {
        Heads { seq: self.seq.unwrap_or(0), change: self.change }
    }

    /// What the epoch of the client's position has in common with this history; none where that is the present epoch, or the
    /// client names none.
    pub fn common(&self) -> Option<Heads> {
        Some(Heads { seq: self.common_seq?, change: self.common_change? })
    }

    pub fn epoch(&self) -> Epoch {
        Epoch { ordinal: self.epoch, name: self.epoch_name.clone() }
    }

    /// Why not, for who may not see it.
    pub fn refusal(&self) -> Option<&'static str> {
        match (self.seated, self.open) {
            (true, _) => None,
            (false, true) => Some("forbidden"),
            (false, false) => Some("not_found"),
        }
    }
}

/// A position epoch: which history a position belongs to (`docs/decisions/position-epochs.md`).
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// In positions between nodes.
    pub ordinal: u32,
    /// What clients are told.
    pub name: String,
}

/// `epoch_of` names the epoch of the client's position in a conversation.
pub fn seats<'a>(
    user: &str,
    ids: &[Id],
    epoch_of: impl Fn(&Id) -> Option<&'a str>,
) -> Result<Vec<Seat>, Problem> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let epochs: Vec<String> = ids.iter().map(|id| epoch_of(id).unwrap_or_default().to_owned()).collect();
    Ok(postgres::query(SEATS, &params![user, ids, this_month(), epochs])?.all()?)
}

/// As answers show it.
pub fn conversation(id: Id) -> Result<String, Problem> {
    let found: Option<String> = postgres::query(CONVERSATION, &params![id])?.cell()?;
    found.ok_or_else(|| Problem::not_found("conversation"))
}

/// Where a conversation stands, for a reader who stands at these places.
pub struct Standing {
    pub heads: Heads,
    pub epoch: Epoch,
    /// What the reader has in common with this history; all of it, where its places are of the present epoch.
    pub common: Heads,
    /// A place of the reader is of another epoch.
    pub is_another_epoch: bool,
}

pub fn standing(conversation: Id, seq: EpochNumber, change: EpochNumber) -> Result<Standing, Problem> {
    let asked = params![conversation, this_month(), seq.epoch, change.epoch];
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
    })
}

/// Who left between two positions and has not come back.
pub fn gone(conversation: Id, after: Heads, heads: Heads) -> Result<Vec<String>, Problem> {
    if after.seq >= heads.seq {
        return Ok(Vec::new());
    }
    let rows =
        postgres::query(GONE, &params![conversation, after.seq.max(heads.seq.saturating_sub(LEAVES_MAX))])?;
    Ok(rows.iter().map(|row| row.get("user_id")).collect::<Result<_, _>>()?)
}

/// A message or a change, as its frame, and its number on its track.
pub struct Missed {
    pub track: u8,
    pub number: u64,
    frame: String,
}

impl Missed {
    pub fn into_push(self, epoch: &Epoch) -> Push {
        let position = EpochNumber::new(epoch.ordinal, self.number).on(self.track);
        Push { frame: self.frame, position: Some(position) }
    }
}

/// A page of what follows, in order.
pub fn missed(conversation: Id, after: Heads, bytes_max: u32) -> Result<Vec<Missed>, Problem> {
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
