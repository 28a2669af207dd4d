//! The rules for changes of a conversation. Pure: no host calls, so plain `cargo test` runs it.

use chat::conversation::{self, Kind};
use chat::membership::rules::State;
use chat::problem;
use sdk::Problem;
use sdk::json::Object;

use crate::rules;

/// A change of a conversation. `None` leaves a property unchanged.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub name: Option<String>,
    /// `Some(None)`, for `null`, removes the slug. The next two fields work likewise.
    pub slug: Option<Option<String>>,
    pub description: Option<Option<String>>,
    pub capacity: Option<Option<u64>>,
    /// JSON text of an object. It replaces the old one; `null` means the empty object.
    pub settings: Option<String>,
    pub public: Option<bool>,
}

impl Changes {
    pub(crate) fn parse(mut body: Object) -> Result<Self, Problem> {
        if body.is_null("name") {
            return Err(Problem::invalid("name", "cannot be null"));
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

    /// Checks that the caller may make this change in the present state.
    pub(crate) fn check(&self, conversation: &State) -> Result<(), Problem> {
        conversation.configure()?;
        if self.name.is_some() && conversation.kind == Kind::Class {
            // The conversation of a class has the name of the class.
            return Err(problem::managed_by_class().with_field("name"));
        }
        if self.public == Some(true) && conversation.kind != Kind::Channel {
            return Err(rules::only_channels_are_public());
        }
        match self.capacity.flatten() {
            Some(capacity) if capacity < conversation.participants => {
                Err(problem::conversation_full().with_field("capacity"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
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

    fn conversation(kind: Kind, role: Role) -> State {
        State {
            kind,
            public: false,
            archived: false,
            capacity: None,
            participants: 3,
            caller: Some(role),
            subject: None,
            is_self: false,
        }
    }

    #[test]
    fn an_absent_field_stays_unchanged_and_null_removes_it() {
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
    fn an_error_names_its_field() {
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
    fn each_kind_has_its_own_rules() {
        let named = changes(json!({ "name": "x" })).unwrap();
        assert!(named.check(&conversation(Kind::Group, Role::Admin)).is_ok());
        assert_eq!(
            named.check(&conversation(Kind::Class, Role::Owner)).unwrap_err().code,
            "managed_by_class"
        );
        assert_eq!(named.check(&conversation(Kind::Direct, Role::Member)).unwrap_err().code, "forbidden");
        let opened = changes(json!({ "visibility": "public" })).unwrap();
        assert!(opened.check(&conversation(Kind::Channel, Role::Owner)).is_ok());
        assert_eq!(opened.check(&conversation(Kind::Group, Role::Owner)).unwrap_err().code, "invalid");
    }

    #[test]
    fn a_capacity_below_the_participants_is_refused() {
        let full = changes(json!({ "capacity": 2 })).unwrap();
        assert_eq!(
            full.check(&conversation(Kind::Group, Role::Owner)).unwrap_err().code,
            "conversation_full"
        );
        assert!(
            changes(json!({ "capacity": 3 })).unwrap().check(&conversation(Kind::Group, Role::Owner)).is_ok()
        );
    }
}
