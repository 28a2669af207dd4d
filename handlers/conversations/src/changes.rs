//! What may be changed of a conversation that is there. Pure: no host calls, so plain `cargo test` runs it.

use chat::conversation::{self, Kind};
use chat::membership::rules::State;
use chat::problem;
use sdk::Problem;
use sdk::json::Object;

use crate::rules;

/// What is not there is left as it is.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    pub name: Option<String>,
    /// Some of nothing takes it away: `null`.
    pub slug: Option<Option<String>>,
    pub description: Option<Option<String>>,
    pub capacity: Option<Option<u64>>,
    /// JSON text of an object, replaced as a whole; `null` empties it.
    pub settings: Option<String>,
    pub public: Option<bool>,
}

impl Changes {
    pub fn parse(mut body: Object) -> Result<Self, Problem> {
        if body.is_null("name") {
            return Err(Problem::invalid("name", "cannot be taken away"));
        }
        let (slug, description) = (body.has("slug"), body.has("description"));
        let (capacity, settings) = (body.has("capacity"), body.has("settings"));
        Ok(Self {
            name: body.text("name")?.map(rules::name).transpose()?,
            slug: slug.then_some(rules::slug(body.text("slug")?)?),
            description: description.then_some(conversation::description(body.text("description")?)?),
            capacity: capacity.then_some(rules::capacity(body.number("capacity")?)?),
            settings: settings.then_some(rules::settings(&mut body)?),
            public: rules::visibility(body.text("visibility")?)?,
        })
    }

    /// Whether who asks may, where things stand so.
    pub fn check(&self, room: &State) -> Result<(), Problem> {
        room.configure()?;
        if self.name.is_some() && room.kind == Kind::Class {
            // It is called like its class.
            return Err(problem::managed_by_class().with_field("name"));
        }
        if self.public == Some(true) && room.kind != Kind::Channel {
            return Err(rules::only_channels_are_public());
        }
        match self.capacity.flatten() {
            Some(capacity) if capacity < room.present => {
                Err(problem::conversation_full().with_field("capacity"))
            }
            _ => Ok(()),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat::conversation::Role;
    use serde_json::{Value, json};

    fn changes(body: Value) -> Result<Changes, Problem> {
        Changes::parse(Object::parse(body.to_string().as_bytes()).unwrap())
    }

    fn room(kind: Kind, role: Role) -> State {
        State {
            kind,
            public: false,
            archived: false,
            capacity: None,
            present: 3,
            asker: Some(role),
            subject: None,
            oneself: false,
        }
    }

    #[test]
    fn absent_is_unchanged_and_null_takes_away() {
        assert!(changes(json!({ "other": 1 })).unwrap().is_empty());
        let cleared = json!({ "slug": null, "description": null, "capacity": null, "settings": null });
        assert_eq!(
            changes(cleared).unwrap(),
            Changes {
                slug: Some(None),
                description: Some(None),
                capacity: Some(None),
                settings: Some("{}".into()),
                ..Changes::default()
            }
        );
        assert_eq!(changes(json!({ "slug": "a-1" })).unwrap().slug, Some(Some("a-1".into())));
    }

    #[test]
    fn a_broken_rule_names_its_field() {
        for (field, value) in [
            ("name", json!(null)),
            ("name", json!("")),
            ("name", json!("x".repeat(101))),
            ("name", json!(7)),
            ("slug", json!("A")),
            ("description", json!("x".repeat(2001))),
            ("capacity", json!(0)),
            ("capacity", json!(100_001)),
            ("settings", json!("{}")),
            ("visibility", json!("secret")),
        ] {
            let mut body = json!({});
            body[field] = value.clone();
            assert_eq!(changes(body).unwrap_err().field.as_deref(), Some(field), "{field} {value}");
        }
    }

    #[test]
    fn a_kind_has_its_own_rules() {
        let named = changes(json!({ "name": "x" })).unwrap();
        assert!(named.check(&room(Kind::Group, Role::Admin)).is_ok());
        assert_eq!(named.check(&room(Kind::Class, Role::Owner)).unwrap_err().code, "managed_by_class");
        assert_eq!(named.check(&room(Kind::Direct, Role::Member)).unwrap_err().code, "forbidden");
        let opened = changes(json!({ "visibility": "public" })).unwrap();
        assert!(opened.check(&room(Kind::Channel, Role::Owner)).is_ok());
        assert_eq!(opened.check(&room(Kind::Group, Role::Owner)).unwrap_err().code, "invalid");
    }

    #[test]
    fn nobody_is_pushed_out_by_a_smaller_capacity() {
        let full = changes(json!({ "capacity": 2 })).unwrap();
        assert_eq!(full.check(&room(Kind::Group, Role::Owner)).unwrap_err().code, "conversation_full");
        assert!(changes(json!({ "capacity": 3 })).unwrap().check(&room(Kind::Group, Role::Owner)).is_ok());
    }
}
