//! Reads requests for presence, and events of presence. Pure: no host calls, so plain `cargo test` runs it.

use std::collections::BTreeMap;

use chat::membership::ConversationName;
use sdk::event::Event;
use sdk::json::{Object, required};
use sdk::{Problem, text};
use serde::Deserialize;

/// The users of one request by REST.
pub(crate) const ASKED_MAX: usize = 100;
/// The users that one connection can watch.
pub(crate) const WATCHED_MAX: usize = 500;

/// Reads `user_ids=a,b`, which may also be repeated. The ids are without duplicates, in the requested order.
pub(crate) fn asked<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Problem> {
    let mut users: Vec<String> = Vec::new();
    for user in values.flat_map(|value| value.split(',')).filter(|user| !user.is_empty()) {
        if !text::is_user_id(user) {
            return Err(Problem::invalid("user_ids", "holds what is no user id"));
        }
        if !users.iter().any(|known| known == user) {
            users.push(user.to_owned());
        }
        if users.len() > ASKED_MAX {
            return Err(Problem::invalid("user_ids", format!("has more than {ASKED_MAX} entries")));
        }
    }
    if users.is_empty() {
        return Err(Problem::invalid("user_ids", "is required"));
    }
    Ok(users)
}

/// Reads the users to watch. An empty list ends all watches.
pub(crate) fn watched(mut payload: Object) -> Result<Vec<String>, Problem> {
    let mut users = required("user_ids", payload.user_ids("user_ids", WATCHED_MAX)?)?;
    let mut seen = std::collections::BTreeSet::new();
    users.retain(|user| seen.insert(user.clone()));
    Ok(users)
}

/// Reads the status that a user chooses. A user cannot choose `offline`.
pub(crate) fn chosen(mut payload: Object) -> Result<String, Problem> {
    let status = required("status", payload.text("status")?)?;
    match status.as_str() {
        "online" | "away" | "busy" => Ok(status),
        _ => Err(Problem::invalid("status", "is none of online, away, busy")),
    }
}

/// Reads the conversation that the connection looks at; `None`, for `null`, if it looks at none.
pub(crate) fn focus(mut payload: Object) -> Result<Option<ConversationName>, Problem> {
    if !payload.has("conversation_id") {
        return Err(Problem::invalid("conversation_id", "is required; null looks at nothing"));
    }
    ConversationName::of_optional(&mut payload)
}

/// The latest change of each user, as the payload of a frame, and the user of each event.
pub(crate) fn latest(events: &[Event]) -> (BTreeMap<String, &str>, Vec<Result<String, String>>) {
    let mut latest = BTreeMap::new();
    let read = events.iter().map(|event| {
        let user = user_of(&event.payload)?;
        latest.insert(user.clone(), event.payload.as_str());
        Ok(user)
    });
    let read = read.collect();
    (latest, read)
}

fn user_of(payload: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Payload {
        user_id: String,
    }
    serde_json::from_str::<Payload>(payload)
        .map(|payload| payload.user_id)
        .map_err(|error| format!("payload: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(value: Value) -> Object {
        Object::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn requested_users_have_no_duplicates_and_keep_their_order() {
        assert_eq!(asked(["bo,ana", "bo,,cy"].into_iter()).unwrap(), ["bo", "ana", "cy"]);
        let many = |n: usize| (0..n).map(|i| format!("u{i}")).collect::<Vec<_>>().join(",");
        assert_eq!(asked([many(100).as_str()].into_iter()).unwrap().len(), 100);
        for bad in [many(101).as_str(), "", ",", "a\0b", &"x".repeat(65)] {
            assert_eq!(asked([bad].into_iter()).unwrap_err().field.as_deref(), Some("user_ids"), "{bad:?}");
        }
    }

    #[test]
    fn watched_users_and_the_chosen_status_are_checked() {
        assert_eq!(watched(object(json!({ "user_ids": ["bo", "ana", "bo"] }))).unwrap(), ["bo", "ana"]);
        assert!(watched(object(json!({ "user_ids": [] }))).unwrap().is_empty());
        assert_eq!(watched(object(json!({ "user_ids": vec!["x"; 501] }))).unwrap_err().status, 422);
        assert_eq!(watched(object(json!({}))).unwrap_err().field.as_deref(), Some("user_ids"));
        assert_eq!(chosen(object(json!({ "status": "busy" }))).unwrap(), "busy");
        for bad in [json!({}), json!({ "status": "offline" }), json!({ "status": 7 })] {
            assert_eq!(chosen(object(bad)).unwrap_err().field.as_deref(), Some("status"));
        }
    }

    #[test]
    fn a_focus_is_a_conversation_or_null() {
        assert_eq!(focus(object(json!({ "conversation_id": null }))).unwrap(), None);
        for bad in [json!({}), json!({ "conversation_id": "No Slug" }), json!({ "conversation_id": 7 })] {
            assert_eq!(focus(object(bad)).unwrap_err().field.as_deref(), Some("conversation_id"));
        }
    }

    #[test]
    fn only_the_latest_change_of_each_user_is_pushed() {
        let event = |payload: &str| Event {
            id: "e".into(),
            position: 1,
            shard: 0,
            event_type: "user.online".into(),
            key: "k".into(),
            payload: payload.into(),
            at_ms: 7,
            attempt: 1,
        };
        let (first, last) = (r#"{"user_id":"bo","status":"online"}"#, r#"{"user_id":"bo","status":"away"}"#);
        let events = [event(first), event("{}"), event(last)];
        let (latest, read) = latest(&events);
        assert_eq!(latest["bo"], last);
        assert!(read[1].is_err());
        assert_eq!((read[0].as_deref(), read[2].as_deref()), (Ok("bo"), Ok("bo")));
    }
}
