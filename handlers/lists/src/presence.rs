//! Whether the other person of a direct conversation is there, from the leases in Redis: one round trip for a page.

use chat::keys;
use sdk::redis::{Pipeline, Reply};
use sdk::time;

use crate::entry::{Entry, Presence};

/// Left out where Redis is away: then nobody knows.
pub fn add(entries: &mut [Entry]) {
    let mut pipeline = Pipeline::new();
    for peer in entries.iter().filter_map(|entry| entry.peer.as_ref()).filter(|peer| peer.is_seen) {
        pipeline.push(&["HMGET", &keys::presence(&peer.user_id), "status", "seen", "last_seen"]);
    }
    let Ok(replies) = pipeline.run() else { return };
    let mut replies = replies.iter();
    for peer in entries.iter_mut().filter_map(|entry| entry.peer.as_mut()) {
        // Whoever may not be seen looks like somebody who never was here.
        let reply = if peer.is_seen { replies.next() } else { None };
        peer.presence = Some(shown(reply.map_or(&[], Reply::items)));
    }
}

/// Of whom Redis knows nothing is not there.
fn shown(fields: &[Reply]) -> Presence {
    let status = fields.first().and_then(Reply::text).unwrap_or("offline");
    let seen_ms = fields.iter().skip(1).find_map(Reply::integer).and_then(|ms| u64::try_from(ms).ok());
    Presence { status: status.to_owned(), last_seen: seen_ms.map(time::rfc3339) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_known_is_offline() {
        assert_eq!(
            shown(&[Reply::Nil, Reply::Nil, Reply::Nil]),
            Presence { status: "offline".into(), last_seen: None }
        );
        let fields = [Reply::Text("online".into()), Reply::Nil, Reply::Text("1763618400123".into())];
        let last_seen = Some("2025-11-20T06:00:00.123Z".to_owned());
        assert_eq!(shown(&fields), Presence { status: "online".into(), last_seen });
    }
}
