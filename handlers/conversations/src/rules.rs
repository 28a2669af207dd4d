//! What a conversation may be when it is made. Pure: no host calls, so plain `cargo test` runs it.

use sdk::conversation::{Kind, Role};
use sdk::json::{self, Object};
use sdk::{Problem, membership, text};

pub const NAME_CHARS_MAX: usize = 100;
pub const DESCRIPTION_CHARS_MAX: usize = 2000;
pub const SETTINGS_BYTES_MAX: usize = 4 * 1024;
/// Named at once when a conversation is made; more are added later.
pub const MEMBERS_MAX: usize = 500;
pub const CAPACITY_MAX: u64 = 1_000_000;

/// A conversation that keeps the rules.
#[derive(Debug, PartialEq)]
pub struct Plan {
    pub kind: Kind,
    pub name: Option<String>,
    pub slug: Option<String>,
    pub description: Option<String>,
    /// JSON text of an object.
    pub settings: String,
    pub public: bool,
    pub capacity: Option<u64>,
    /// The others: sorted, each once, without who asks.
    pub members: Vec<String>,
}

impl Plan {
    pub fn parse(mut body: Object, owner: &str) -> Result<Self, Problem> {
        let kind = kind(&json::required("type", body.text("type")?)?)?;
        let mut members = body.user_ids("members", MEMBERS_MAX)?.unwrap_or_default();
        members.retain(|member| member != owner);
        members.sort_unstable();
        members.dedup();
        if kind == Kind::Direct {
            if members.len() != 1 {
                return Err(Problem::invalid(
                    "members",
                    "of a direct conversation is exactly one other person",
                ));
            }
            return Ok(Self {
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
        let plan = Self {
            kind,
            name: Some(name(json::required("name", body.text("name")?)?)?),
            slug: slug(body.text("slug")?)?,
            description: description(body.text("description")?)?,
            settings: body.free("settings", SETTINGS_BYTES_MAX)?.unwrap_or_else(|| "{}".to_owned()),
            public: public(kind, body.text("visibility")?)?,
            capacity: capacity(body.number("capacity")?)?,
            members,
        };
        match plan.capacity {
            Some(capacity) if capacity < plan.members.len() as u64 + 1 => Err(Problem::conversation_full()),
            _ => Ok(plan),
        }
    }

    /// The two people of a direct conversation, in order.
    pub fn pair<'a>(&'a self, owner: &'a str) -> Option<(&'a str, &'a str)> {
        let other = self.members.first().filter(|_| self.kind == Kind::Direct)?.as_str();
        Some(if owner < other { (owner, other) } else { (other, owner) })
    }

    /// What the first message says.
    pub fn announcement(&self) -> &'static str {
        match self.kind {
            Kind::Direct => "Conversation started",
            Kind::Group => "Group created",
            Kind::Channel => "Channel created",
            Kind::Class => "Class created",
        }
    }
}

/// Somebody to be added.
#[derive(Debug, PartialEq)]
pub struct Invitation {
    pub user_id: String,
    pub role: Role,
}

impl Invitation {
    pub fn parse(mut body: Object) -> Result<Self, Problem> {
        let user_id = json::required("user_id", body.user_id("user_id")?)?;
        let role = match body.text("role")? {
            None => Role::Member,
            Some(word) => match Role::parse(&word) {
                Some(Role::Owner) | None => {
                    return Err(Problem::invalid("role", "is not admin, member or observer"));
                }
                Some(role) => role,
            },
        };
        Ok(Self { user_id, role })
    }
}

fn kind(word: &str) -> Result<Kind, Problem> {
    match Kind::parse(word) {
        Some(Kind::Class) => Err(Problem::invalid("type", "class conversations come with their class")),
        Some(kind) => Ok(kind),
        None => Err(Problem::invalid("type", "is not direct, group or channel")),
    }
}

fn name(raw: String) -> Result<String, Problem> {
    let name = text::nfc(raw);
    if !(1..=NAME_CHARS_MAX).contains(&text::length(&name)) || text::has_control(&name) {
        let rule = format!("is not 1 to {NAME_CHARS_MAX} characters without control characters");
        return Err(Problem::invalid("name", rule));
    }
    if name.trim().is_empty() {
        return Err(Problem::invalid("name", "is blank"));
    }
    Ok(name)
}

fn slug(raw: Option<String>) -> Result<Option<String>, Problem> {
    match raw {
        Some(slug) if !membership::is_slug(&slug) => {
            Err(Problem::invalid("slug", "is not 1 to 100 lower-case letters, digits and dashes"))
        }
        slug => Ok(slug),
    }
}

fn description(raw: Option<String>) -> Result<Option<String>, Problem> {
    let description = raw.map(text::nfc);
    if description.as_deref().is_some_and(|text| text::length(text) > DESCRIPTION_CHARS_MAX) {
        let rule = format!("has more than {DESCRIPTION_CHARS_MAX} characters");
        return Err(Problem::invalid("description", rule));
    }
    Ok(description)
}

fn public(kind: Kind, word: Option<String>) -> Result<bool, Problem> {
    match (kind, word.as_deref()) {
        (Kind::Channel, None | Some("public")) => Ok(true),
        (_, None | Some("private")) => Ok(false),
        (_, Some("public")) => Err(Problem::invalid("visibility", "only channels are public")),
        _ => Err(Problem::invalid("visibility", "is not public or private")),
    }
}

fn capacity(number: Option<u64>) -> Result<Option<u64>, Problem> {
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

    fn plan(body: Value) -> Result<Plan, Problem> {
        Plan::parse(Object::parse(body.to_string().as_bytes()).unwrap(), "ana")
    }

    fn refusal(body: Value) -> (String, Option<String>) {
        let problem = plan(body).unwrap_err();
        (problem.code, problem.field)
    }

    #[test]
    fn a_direct_conversation_is_a_pair_in_order() {
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
    fn groups_and_channels_have_a_name_and_their_rules() {
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
    fn more_people_than_places_is_refused() {
        let body = json!({ "type": "group", "name": "x", "capacity": 2, "members": ["bo", "cy"] });
        assert_eq!(refusal(body).0, "conversation_full");
        assert!(
            plan(json!({ "type": "group", "name": "x", "capacity": 2, "members": ["bo", "ana"] })).is_ok()
        );
    }

    #[test]
    fn nobody_is_added_as_owner() {
        let parse = |body: Value| Invitation::parse(Object::parse(body.to_string().as_bytes()).unwrap());
        assert_eq!(parse(json!({ "user_id": "bo" })).unwrap().role, Role::Member);
        assert_eq!(parse(json!({ "user_id": "bo", "role": "observer" })).unwrap().role, Role::Observer);
        assert_eq!(
            parse(json!({ "user_id": "bo", "role": "owner" })).unwrap_err().field.as_deref(),
            Some("role")
        );
        assert_eq!(parse(json!({ "role": "member" })).unwrap_err().field.as_deref(), Some("user_id"));
    }
}
