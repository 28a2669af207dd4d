//! What clients may ask of participants. Pure: no host calls, so plain `cargo test` runs it.

use chat::conversation::Role;
use chat::membership::rules::State;
use sdk::Problem;
use sdk::json::{self, Object};

/// Participants of one page.
pub const PAGE: u64 = 1000;

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

/// What is to become of a participant. What is not there stays.
#[derive(Debug, PartialEq)]
pub struct Wish {
    pub role: Option<Role>,
    /// Of what one is notified: `all`, `mentions` or `none`.
    pub notifications: Option<&'static str>,
}

impl Wish {
    pub fn parse(mut body: Object) -> Result<Self, Problem> {
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

    /// Everyone mutes for themself; roles are checked where they are given.
    pub fn check(&self, room: &State) -> Result<(), Problem> {
        room.asker()?;
        room.subject()?;
        if self.notifications.is_some() && !room.oneself {
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
    fn a_wish_holds_a_role_or_a_mute() {
        let parse = |body| Wish::parse(object(body));
        assert_eq!(parse(json!({})), Ok(Wish { role: None, notifications: None }));
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
        let mute = Wish { role: None, notifications: Some("none") };
        let room = |oneself, asker| State {
            kind: Kind::Group,
            public: false,
            archived: true,
            capacity: None,
            present: 2,
            asker,
            subject: Some(Role::Member),
            oneself,
        };
        assert!(mute.check(&room(true, Some(Role::Member))).is_ok());
        assert_eq!(mute.check(&room(false, Some(Role::Owner))).unwrap_err().code, "forbidden");
        assert_eq!(mute.check(&room(false, None)).unwrap_err().code, "not_found");
    }
}
