//! Reads and checks the requests for participants. Pure: no host calls, so plain `cargo test` runs it.

use chat::conversation::Role;
use chat::membership::rules::State;
use sdk::Problem;
use sdk::json::{self, Object};

/// The participants of one page.
pub(crate) const PAGE: u64 = 1000;

/// A user who is to be added.
#[derive(Debug, PartialEq)]
pub(crate) struct Invitation {
    pub user_id: String,
    pub role: Role,
}

impl Invitation {
    pub(crate) fn parse(mut body: Object) -> Result<Self, Problem> {
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

/// A change of a participant. `None` leaves a property unchanged.
#[derive(Debug, PartialEq)]
pub(crate) struct Changes {
    pub role: Option<Role>,
    /// The messages of which the user is notified: `all`, `mentions` or `none`.
    pub notifications: Option<&'static str>,
}

impl Changes {
    pub(crate) fn parse(mut body: Object) -> Result<Self, Problem> {
        let role = match body.text("role")? {
            None => None,
            Some(word) => Some(
                Role::parse(&word)
                    .ok_or_else(|| Problem::invalid("role", "is not owner, admin, member or observer"))?,
            ),
        };
        let notifications = match body.text("notifications")?.as_deref() {
            None => None,
            Some("all") => Some("all"),
            Some("mentions") => Some("mentions"),
            Some("none") => Some("none"),
            Some(_) => return Err(Problem::invalid("notifications", "is not all, mentions or none")),
        };
        Ok(Self { role, notifications })
    }

    /// Checks that the caller mutes only for themself. `State::change_role` checks roles.
    pub(crate) fn check(&self, conversation: &State) -> Result<(), Problem> {
        conversation.caller_role()?;
        conversation.subject()?;
        if self.notifications.is_some() && !conversation.is_self {
            return Err(Problem::forbidden("everyone mutes for themself").with_field("notifications"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chat::conversation::Kind;
    use serde_json::{Value, json};

    fn object(body: Value) -> Object {
        Object::parse(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn nobody_is_added_as_owner() {
        let parse = |body| Invitation::parse(object(body));
        assert_eq!(parse(json!({ "user_id": "bo" })).unwrap().role, Role::Member);
        assert_eq!(parse(json!({ "user_id": "bo", "role": "observer" })).unwrap().role, Role::Observer);
        for (body, field) in [
            (json!({ "user_id": "bo", "role": "owner" }), "role"),
            (json!({ "user_id": "bo", "role": "king" }), "role"),
            (json!({ "user_id": "bo", "role": 7 }), "role"),
            (json!({ "role": "member" }), "user_id"),
            (json!({ "user_id": "" }), "user_id"),
            (json!({ "user_id": "u".repeat(65) }), "user_id"),
        ] {
            assert_eq!(parse(body).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_change_has_a_role_or_a_mute() {
        let parse = |body| Changes::parse(object(body));
        assert_eq!(parse(json!({})), Ok(Changes { role: None, notifications: None }));
        assert_eq!(parse(json!({ "notifications": "none" })).unwrap().notifications, Some("none"));
        assert_eq!(parse(json!({ "role": "owner" })).unwrap().role, Some(Role::Owner));
        assert_eq!(
            parse(json!({ "notifications": "some" })).unwrap_err().field.as_deref(),
            Some("notifications")
        );
        assert_eq!(parse(json!({ "role": "king" })).unwrap_err().field.as_deref(), Some("role"));
    }

    #[test]
    fn nobody_mutes_for_somebody_else() {
        let mute = Changes { role: None, notifications: Some("none") };
        let conversation = |is_self, caller| State {
            kind: Kind::Group,
            public: false,
            archived: true,
            capacity: None,
            participants: 2,
            caller,
            subject: Some(Role::Member),
            is_self,
        };
        assert!(mute.check(&conversation(true, Some(Role::Member))).is_ok());
        assert_eq!(mute.check(&conversation(false, Some(Role::Owner))).unwrap_err().code, "forbidden");
        assert_eq!(mute.check(&conversation(false, None)).unwrap_err().code, "not_found");
    }
}
