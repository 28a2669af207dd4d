//! `POST /disconnect`: who is closed with 4003, on every node.

use serde_json::{Map, Value};

use super::api::text;
use crate::contract::channels::Target;
use crate::contract::types::Problem;
use crate::ids::{Address, UserId};
use crate::limits;
use crate::wire::problem::Code;

/// Exactly one of `user_id`, `session_id`, `conversation_id`. The last is the one place where the host reads the app's
/// addresses: operators say conversation, not address.
pub fn target(fields: &Map<String, Value>) -> Result<Target, Problem> {
    let (user, session) = (text(fields, "user_id")?, text(fields, "session_id")?);
    match (user, session, text(fields, "conversation_id")?) {
        (Some(user), None, None) => match UserId::parse(&user) {
            Some(user) => Ok(Target::User(user.as_str().to_owned())),
            None => Err(invalid("user_id", "is a user's id: 1 to 64 characters")),
        },
        (None, Some(session), None) => {
            let fits = (1..=limits::SESSION_ID_CHARS_MAX).contains(&session.chars().count());
            fits.then_some(Target::Session(session))
                .ok_or_else(|| invalid("session_id", "is the `jti` of a token"))
        }
        (None, None, Some(conversation)) => match Address::parse(&format!("conv:{conversation}")) {
            Some(address) => Ok(Target::Address(address.as_str().to_owned())),
            None => Err(invalid("conversation_id", "is a conversation's id")),
        },
        _ => Err(Code::Invalid
            .problem("give one of `user_id`, `session_id`, `conversation_id`")
            .field("user_id")),
    }
}

/// For the audit.
pub fn said(target: &Target) -> String {
    match target {
        Target::User(user) => format!("user {user}"),
        Target::Session(session) => format!("session {session}"),
        Target::Connection(connection) => format!("connection {connection}"),
        Target::Address(address) => address.clone(),
    }
}

fn invalid(field: &str, rule: &str) -> Problem {
    Code::Invalid.problem(format!("`{field}` {rule}")).field(field)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn exactly_one_target_is_named() {
        let read = |fields: Value| target(fields.as_object().unwrap());
        assert_eq!(read(json!({"user_id": "ana"})), Ok(Target::User("ana".into())));
        assert_eq!(read(json!({"session_id": "s", "user_id": null})), Ok(Target::Session("s".into())));
        assert_eq!(read(json!({"conversation_id": "0192"})), Ok(Target::Address("conv:0192".into())));
        for (bad, field) in [
            (json!({}), "user_id"),
            (json!({"user_id": "ana", "session_id": "s"}), "user_id"),
            (json!({"user_id": 7}), "user_id"),
            (json!({"user_id": ""}), "user_id"),
            (json!({"session_id": "x".repeat(limits::SESSION_ID_CHARS_MAX + 1)}), "session_id"),
            (json!({"conversation_id": "a\nb"}), "conversation_id"),
        ] {
            let problem = read(bad).unwrap_err();
            assert_eq!((problem.status, problem.field.as_deref()), (422, Some(field)));
        }
    }
}
