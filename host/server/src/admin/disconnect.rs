//! `POST /disconnect`: which connections are closed with 4003, on every node.

use serde_json::{Map, Value};

use super::fields::text;
use switchboard_contract::channels::Target;
use switchboard_contract::types::Problem;
use switchboard_core::ids::{Address, UserId};
use switchboard_core::limits;
use switchboard_protocol::wire::problem::Code;

/// Parses exactly one of `user_id`, `session_id`, `address` and `conversation_id`. The last one is an alias
/// of `address` for the chat application: `{id}` means the address `conv:{id}`.
pub(super) fn target(fields: &Map<String, Value>) -> Result<Target, Problem> {
    let given = [
        ("user_id", text(fields, "user_id")?),
        ("session_id", text(fields, "session_id")?),
        ("address", text(fields, "address")?),
        ("conversation_id", text(fields, "conversation_id")?),
    ];
    let mut given = given.into_iter().filter_map(|(field, value)| Some((field, value?)));
    match (given.next(), given.next()) {
        (Some((field, value)), None) => parse(field, value),
        _ => Err(Code::Invalid
            .problem("give exactly one of `user_id`, `session_id`, `address` and `conversation_id`")
            .field("user_id")),
    }
}

fn parse(field: &str, value: String) -> Result<Target, Problem> {
    let address = |text: &str, rule| match Address::parse(text) {
        Some(address) => Ok(Target::Address(address.as_str().to_owned())),
        None => Err(invalid(field, rule)),
    };
    match field {
        "user_id" => match UserId::parse(&value) {
            Some(user) => Ok(Target::User(user.as_str().to_owned())),
            None => Err(invalid(field, "must be a user's id of 1 to 64 characters")),
        },
        "session_id" => {
            let fits = (1..=limits::SESSION_ID_CHARS_MAX).contains(&value.chars().count());
            fits.then_some(Target::Session(value))
                .ok_or_else(|| invalid(field, "must be the `jti` of a token"))
        }
        "address" => address(&value, "must be an address, for instance `conv:{id}`"),
        _ => address(&format!("conv:{value}"), "must be a conversation's id"),
    }
}

/// Describes the target for the audit log.
pub(super) fn describe(target: &Target) -> String {
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
        assert_eq!(read(json!({"address": "conv:0192"})), Ok(Target::Address("conv:0192".into())));
        for (bad, field) in [
            (json!({}), "user_id"),
            (json!({"user_id": "ana", "session_id": "s"}), "user_id"),
            (json!({"user_id": 7}), "user_id"),
            (json!({"user_id": ""}), "user_id"),
            (json!({"session_id": "x".repeat(limits::SESSION_ID_CHARS_MAX + 1)}), "session_id"),
            (json!({"conversation_id": "a\nb"}), "conversation_id"),
            (json!({"address": "conv:"}), "address"),
            (json!({"address": "conv:1", "conversation_id": "1"}), "user_id"),
        ] {
            let problem = read(bad).unwrap_err();
            assert_eq!((problem.status, problem.field.as_deref()), (422, Some(field)));
        }
    }
}
