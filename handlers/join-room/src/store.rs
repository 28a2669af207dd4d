//! Statements of this handler and what their answers mean.

use sdk::connection::Gap;
use sdk::{Id, Problem, Push, channels, clock, params, postgres, time};

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
    pub struct Seat { id: Id, seated: bool, open: bool, seq: Option<u64>, change: u64 }
    struct Head { seq: u64, change: u64 }
    struct Frame { track: u32, number: u64, frame: String }
}

impl Seat {
    pub fn heads(&self) -> Heads {
        Heads { seq: self.seq.unwrap_or(0), change: self.change }
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

pub fn seats(user: &str, ids: &[Id]) -> Result<Vec<Seat>, Problem> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(postgres::query(SEATS, &params![user, ids, this_month()])?.all()?)
}

/// As answers show it.
pub fn conversation(id: Id) -> Result<String, Problem> {
    let found: Option<String> = postgres::query(CONVERSATION, &params![id])?.cell()?;
    found.ok_or_else(|| Problem::not_found("conversation"))
}

pub fn heads(conversation: Id) -> Result<Heads, Problem> {
    let head: Option<Head> = postgres::query(HEADS, &params![conversation, this_month()])?.one()?;
    Ok(head.map_or(Heads { seq: 0, change: 0 }, |head| Heads { seq: head.seq, change: head.change }))
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

/// A page of what follows the gap's position, in order.
pub fn missed(conversation: Id, gap: &Gap) -> Result<Vec<Push>, Problem> {
    let rows = postgres::query(
        MISSED,
        &params![
            conversation,
            gap.after(channels::SEQ),
            gap.after(channels::CHANGE),
            u64::from(gap.bytes_max),
            ROWS_MAX
        ],
    )?;
    let frames: Vec<Frame> = rows.all()?;
    let push = |row: Frame| {
        let position = if row.track == 0 { channels::seq(row.number) } else { channels::change(row.number) };
        Push { frame: row.frame, position: Some(position) }
    };
    Ok(frames.into_iter().map(push).collect())
}

fn this_month() -> Id {
    Id::floor(time::month_start(clock::now_ms()))
}
