//! Adds the presence of the peers in direct conversations. It reads Redis, with one round trip per page.

use chat::keys;
use sdk::redis::{Pipeline, Reply};
use sdk::time;

use crate::entry::{Entry, Presence};

/// Adds the presence of each peer. If Redis fails, every presence stays `None`.
pub(crate) fn add(entries: &mut [Entry]) {
    let mut pipeline = Pipeline::new();
    for peer in entries.iter().filter_map(|entry| entry.peer.as_ref()).filter(|peer| peer.is_visible) {
        pipeline.push(&["HMGET", &keys::presence(&peer.user_id), "status", "seen", "last_seen"]);
    }
    let Ok(replies) = pipeline.run() else { return };
    let mut replies = replies.iter();
    for peer in entries.iter_mut().filter_map(|entry| entry.peer.as_mut()) {
        // A peer whose presence the user may not see has the same presence as one who was never online.
        let reply = if peer.is_visible { replies.next() } else { None };
        peer.presence = Some(shown(reply.map_or(&[], Reply::items)));
    }
}

/// The presence in these fields. A user whom Redis does not know is offline.
fn shown(fields: &[Reply]) -> Presence {
    let status = fields.first().and_then(Reply::text).unwrap_or("offline");
    let seen_ms = fields.iter().skip(1).find_map(Reply::integer).and_then(|ms| u64::try_from(ms).ok());
    Presence { status: status.to_owned(), last_seen: seen_ms.map(time::rfc3339) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_offline() {
        assert_eq!(
            shown(&[Reply::Nil, Reply::Nil, Reply::Nil]),
            Presence { status: "offline".into(), last_seen: None }
        );
        let fields = [Reply::Text("online".into()), Reply::Nil, Reply::Text("1763618400123".into())];
        let last_seen = Some("2025-11-20T06:00:00.123Z".to_owned());
        assert_eq!(shown(&fields), Presence { status: "online".into(), last_seen });
    }
}
