//! The rules for a new conversation. Pure: no host calls, so plain `cargo test` runs it.

use chat::conversation::{self, Kind};
use chat::membership::rules::PARTICIPANTS_MAX;
use chat::membership::{self, Founding};
use chat::problem;
use sdk::Problem;
use sdk::json::{self, Object};

pub(crate) const NAME_CHARS_MAX: usize = 100;
pub(crate) const SETTINGS_BYTES_MAX: usize = 4 * 1024;
/// The members that a request to create a conversation may name. More can be added later.
pub(crate) const MEMBERS_MAX: usize = 500;
pub(crate) const CAPACITY_MAX: u64 = PARTICIPANTS_MAX;

/// Reads a request to create a conversation, and checks the rules.
pub(crate) fn plan(mut body: Object, owner: &str) -> Result<Founding, Problem> {
    let kind = kind(&json::required("type", body.text("type")?)?)?;
    let mut members = body.user_ids("members", MEMBERS_MAX)?.unwrap_or_default();
    members.retain(|member| member != owner);
    members.sort_unstable();
    members.dedup();
    if kind == Kind::Direct {
        if members.len() != 1 {
            return Err(Problem::invalid("members", "of a direct conversation is exactly one other person"));
        }
        return Ok(Founding {
            kind,
            name: None,
            slug: None,
            description: None,
            settings: "{}".to_owned(),
            public: false,
            capacity: None,
            members,
        });
    }
    let plan = Founding {
        kind,
        name: Some(name(json::required("name", body.text("name")?)?)?),
        slug: slug(body.text("slug")?)?,
        description: conversation::description(body.text("description")?)?,
        settings: settings(&mut body)?,
        public: public(kind, visibility(body.text("visibility")?)?)?,
        capacity: capacity(body.number("capacity")?)?,
        members,
    };
    match plan.capacity {
        Some(capacity) if capacity < plan.members.len() as u64 + 1 => Err(problem::conversation_full()),
        _ => Ok(plan),
    }
}

fn kind(word: &str) -> Result<Kind, Problem> {
    match Kind::parse(word) {
        Some(Kind::Class) => Err(Problem::invalid("type", "class conversations come with their class")),
        Some(kind) => Ok(kind),
        None => Err(Problem::invalid("type", "is not direct, group or channel")),
    }
}

pub(crate) fn name(raw: String) -> Result<String, Problem> {
    conversation::name(raw, NAME_CHARS_MAX)
}

pub(crate) fn slug(raw: Option<String>) -> Result<Option<String>, Problem> {
    match raw {
        Some(slug) if !membership::is_slug(&slug) => {
            Err(Problem::invalid("slug", "is not 1 to 100 lower-case letters, digits and dashes"))
        }
        slug => Ok(slug),
    }
}

/// The field `settings`, as JSON text of an object.
pub(crate) fn settings(body: &mut Object) -> Result<String, Problem> {
    Ok(body.free("settings", SETTINGS_BYTES_MAX)?.unwrap_or_else(|| "{}".to_owned()))
}

/// Reads a visibility: whether the conversation is public; `None` if the field is absent.
pub(crate) fn visibility(word: Option<String>) -> Result<Option<bool>, Problem> {
    match word.as_deref() {
        None => Ok(None),
        Some("public") => Ok(Some(true)),
        Some("private") => Ok(Some(false)),
        Some(_) => Err(Problem::invalid("visibility", "is not public or private")),
    }
}

pub(crate) fn only_channels_are_public() -> Problem {
    Problem::invalid("visibility", "only channels are public")
}

fn public(kind: Kind, visibility: Option<bool>) -> Result<bool, Problem> {
    match (kind, visibility) {
        (Kind::Channel, visibility) => Ok(visibility.unwrap_or(true)),
        (_, Some(true)) => Err(only_channels_are_public()),
        _ => Ok(false),
    }
}

pub(crate) fn capacity(number: Option<u64>) -> Result<Option<u64>, Problem> {
    match number {
        Some(number) if !(1..=CAPACITY_MAX).contains(&number) => {
            Err(Problem::invalid("capacity", format!("is not between 1 and {CAPACITY_MAX}")))
        }
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(body: Value) -> Result<Founding, Problem> {
        super::plan(Object::parse(body.to_string().as_bytes()).unwrap(), "ana")
    }

    fn refusal(body: Value) -> (String, Option<String>) {
        let problem = plan(body).unwrap_err();
        (problem.code, problem.field)
    }

    #[test]
    fn a_direct_conversation_has_exactly_two_participants() {
        for members in [json!(["bo"]), json!(["bo", "ana", "bo"])] {
            let direct = plan(json!({ "type": "direct", "members": members, "name": "ignored" })).unwrap();
            assert_eq!((direct.pair("ana"), &direct.name), (Some(("ana", "bo")), &None));
        }
        for members in [json!([]), json!(["ana"]), json!(["bo", "cy"])] {
            assert_eq!(
                refusal(json!({ "type": "direct", "members": members })),
                ("invalid".into(), Some("members".into()))
            );
        }
    }

    #[test]
    fn groups_and_channels_follow_their_rules() {
        let channel =
            plan(json!({ "type": "channel", "name": "Chung", "slug": "chung-1", "capacity": 9 })).unwrap();
        assert!(channel.public && channel.members.is_empty());
        assert!(!plan(json!({ "type": "group", "name": "x" })).unwrap().public);
        assert!(!plan(json!({ "type": "channel", "name": "x", "visibility": "private" })).unwrap().public);

        for (field, value) in [
            ("type", json!("room")),
            ("type", json!("class")),
            ("name", json!("")),
            ("name", json!("  ")),
            ("name", json!("x".repeat(101))),
            ("name", json!("a\nb")),
            ("slug", json!("Chung")),
            ("visibility", json!("secret")),
            ("visibility", json!("public")),
            ("capacity", json!(0)),
            ("capacity", json!(100_001)),
            ("capacity", json!("9")),
            ("settings", json!([])),
            ("description", json!("x".repeat(2001))),
            ("members", json!("bo")),
        ] {
            let mut body = json!({ "type": "group", "name": "x" });
            body[field] = value;
            assert_eq!(refusal(body), ("invalid".into(), Some(field.into())));
        }
    }

    #[test]
    fn more_members_than_the_capacity_are_refused() {
        let body = json!({ "type": "group", "name": "x", "capacity": 2, "members": ["bo", "cy"] });
        assert_eq!(refusal(body).0, "conversation_full");
        assert!(
            plan(json!({ "type": "group", "name": "x", "capacity": 2, "members": ["bo", "ana"] })).is_ok()
        );
    }
}
