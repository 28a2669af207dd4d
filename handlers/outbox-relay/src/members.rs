//! Announces the joins and leaves of large conversations. The handlers that change participants count the
//! changes in Postgres, and write an event for the first one after an announcement. The relay announces what
//! was counted until then, at most once in an interval; an event that comes earlier is postponed.

use std::collections::BTreeMap;

use chat::outbox;
use sdk::event::Event;
use sdk::{Id, config, params, postgres};
use serde::Deserialize;
use serde_json::Value;

const ANNOUNCE: &str = include_str!("sql/announce.sql");
/// The interval without the setting `members_every_ms`.
const EVERY_MS: u64 = 1000;

#[derive(Deserialize)]
struct MembersChanged {
    conversation_id: String,
}

sdk::rows! {
    struct Row { event_id: String, announcement: Option<String>, wait_ms: Option<u64> }
}

/// The consequence of an event that asks for an announcement.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Announcement {
    /// The payload of the push to the participants.
    Publish(String),
    /// The last announcement was not long ago: the event is to come back after this many milliseconds.
    Wait(u32),
    /// Another event announces the changes, or has announced them.
    #[default]
    Nothing,
}

/// The announcements that the events of a batch ask for, by the id of the event; an error has the reason.
/// Asking marks the changes as announced, but the same event gets the same announcement again.
pub(crate) fn announcements(events: &[Event]) -> Result<BTreeMap<String, Announcement>, String> {
    let asking = events.iter().filter(|event| event.event_type == outbox::MEMBERS_CHANGED);
    let asking: Vec<(Id, String)> =
        asking.filter_map(|event| Some((conversation_of(event)?, event.id.clone()))).collect();
    if asking.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (conversations, ids): (Vec<Id>, Vec<String>) = asking.into_iter().unzip();
    let every_ms = config::number("members_every_ms", EVERY_MS).min(u64::from(u16::MAX));
    let rows = postgres::query(ANNOUNCE, &params![conversations.as_slice(), ids, every_ms])
        .map_err(|error| format!("which members changed: {error:?}"))?;
    let rows: Vec<Row> = rows.all().map_err(|mismatch| format!("which members changed: {mismatch}"))?;
    let announcement = |row: Row| {
        let announcement = match (row.announcement, row.wait_ms) {
            (Some(payload), _) => Announcement::Publish(compact(&payload)),
            (None, Some(ms)) => Announcement::Wait(u32::try_from(ms).unwrap_or(u32::MAX)),
            (None, None) => Announcement::Nothing,
        };
        (row.event_id, announcement)
    };
    Ok(rows.into_iter().map(announcement).collect())
}

/// JSON without the spaces that Postgres writes.
fn compact(json: &str) -> String {
    serde_json::from_str::<Value>(json).map_or_else(|_| json.to_owned(), |value| value.to_string())
}

/// The conversation of an event of this type; `None` if its payload has none.
pub(crate) fn conversation_of(event: &Event) -> Option<Id> {
    let changed: MembersChanged = serde_json::from_str(&event.payload).ok()?;
    Id::parse(&changed.conversation_id)
}
