//! Reads the requests for classes, and maps roles in a class to roles in its conversation. Pure: no host
//! calls, so plain `cargo test` runs it.

use chat::conversation;
use sdk::json::{self, Object};
use sdk::{Problem, text};

pub(crate) const NAME_CHARS_MAX: usize = 255;
pub(crate) const CODE_CHARS_MAX: usize = 50;
/// The members of one page.
pub(crate) const MEMBERS_PAGE: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Manages the class.
    Teacher,
    Ta,
    Student,
    /// Can only read.
    Observer,
}

impl Role {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "teacher" => Self::Teacher,
            "ta" => Self::Ta,
            "student" => Self::Student,
            "observer" => Self::Observer,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Teacher => "teacher",
            Self::Ta => "ta",
            Self::Student => "student",
            Self::Observer => "observer",
        }
    }

    /// The role in the conversation of the class. One of the teachers is the owner there instead.
    pub(crate) fn in_conversation(self) -> conversation::Role {
        match self {
            Self::Teacher | Self::Ta => conversation::Role::Admin,
            Self::Student => conversation::Role::Member,
            Self::Observer => conversation::Role::Observer,
        }
    }
}

/// The code by which people join a class.
#[derive(Debug, PartialEq)]
pub(crate) struct Code(pub String);

impl Code {
    fn parse(raw: String) -> Option<Self> {
        text::name(raw, CODE_CHARS_MAX).map(Self)
    }

    fn of(raw: String) -> Result<Self, Problem> {
        let rule = format!(
            "is not 1 to {CODE_CHARS_MAX} characters, of which one can be seen and none is a control character"
        );
        Self::parse(raw).ok_or_else(|| Problem::invalid("code", rule))
    }

    pub(crate) fn of_body(mut body: Object) -> Result<Self, Problem> {
        Self::of(json::required("code", body.text("code")?)?)
    }

    /// Reads a code from a path. A text that is not a code is answered with `not_found`.
    pub(crate) fn of_path(raw: &str) -> Result<Self, Problem> {
        Self::parse(raw.to_owned()).ok_or_else(|| Problem::not_found("class"))
    }
}

/// A class that is to be created.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    pub name: String,
    pub code: Code,
    pub description: Option<String>,
    pub archived: bool,
}

impl Plan {
    pub(crate) fn parse(mut body: Object) -> Result<Self, Problem> {
        Ok(Self {
            name: conversation::name(json::required("name", body.text("name")?)?, NAME_CHARS_MAX)?,
            code: Code::of(json::required("code", body.text("code")?)?)?,
            description: conversation::description(body.text("description")?)?,
            archived: body.boolean("archived")?.unwrap_or(false),
        })
    }
}

/// A change of a class. `None` leaves a property unchanged.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub name: Option<String>,
    pub code: Option<Code>,
    /// `Some(None)`, for `null`, removes the description.
    pub description: Option<Option<String>>,
    pub archived: Option<bool>,
}

impl Changes {
    pub(crate) fn parse(mut body: Object) -> Result<Self, Problem> {
        for field in ["name", "code"] {
            if body.is_null(field) {
                return Err(Problem::invalid(field, "cannot be null"));
            }
        }
        let described = body.has("description");
        Ok(Self {
            name: body.text("name")?.map(|name| conversation::name(name, NAME_CHARS_MAX)).transpose()?,
            code: body.text("code")?.map(Code::of).transpose()?,
            description: described.then_some(conversation::description(body.text("description")?)?),
            archived: body.boolean("archived")?,
        })
    }
}

/// A user who is to be added.
#[derive(Debug, PartialEq)]
pub(crate) struct Enrolment {
    pub user_id: String,
    pub role: Role,
}

impl Enrolment {
    pub(crate) fn parse(mut body: Object) -> Result<Self, Problem> {
        let user_id = json::required("user_id", body.user_id("user_id")?)?;
        Ok(Self { user_id, role: role(body)? })
    }
}

pub(crate) fn role(mut body: Object) -> Result<Role, Problem> {
    let word = json::required("role", body.text("role")?)?;
    Role::parse(&word).ok_or_else(|| Problem::invalid("role", "is not teacher, ta, student or observer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(body: Value) -> Object {
        Object::parse(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_class_has_a_name_and_a_code() {
        let plan = Plan::parse(object(json!({ "name": "x".repeat(255), "code": "CS101-2025" }))).unwrap();
        assert_eq!((plan.code, plan.description), (Code("CS101-2025".into()), None));
        for (field, value) in [
            ("name", json!(null)),
            ("name", json!("")),
            ("name", json!(" ")),
            ("name", json!("x".repeat(256))),
            ("name", json!("a\u{7}")),
            ("name", json!(7)),
            ("code", json!(null)),
            ("code", json!("")),
            ("code", json!(" ")),
            ("code", json!("c".repeat(51))),
            ("code", json!("a\nb")),
            ("code", json!([])),
            ("description", json!("d".repeat(2001))),
            ("description", json!(7)),
        ] {
            let mut body = json!({ "name": "x", "code": "c" });
            body[field] = value.clone();
            assert_eq!(
                Plan::parse(object(body)).unwrap_err().field.as_deref(),
                Some(field),
                "{field} {value}"
            );
        }
    }

    #[test]
    fn equivalent_codes_have_the_same_normal_form() {
        assert_eq!(
            Code::of_path("Toa\u{301}n").unwrap(),
            Code::of_body(object(json!({ "code": "Toán" }))).unwrap()
        );
        for bad in ["", "\0", &"c".repeat(51)] {
            assert_eq!(Code::of_path(bad).unwrap_err().code, "not_found");
        }
    }

    #[test]
    fn an_absent_field_stays_unchanged_and_null_removes_it() {
        assert_eq!(Changes::parse(object(json!({ "other": 1 }))).unwrap(), Changes::default());
        let changes = Changes::parse(object(json!({ "description": null, "archived": true }))).unwrap();
        assert_eq!((changes.description, changes.archived), (Some(None), Some(true)));
        for (body, field) in [
            (json!({ "name": null }), "name"),
            (json!({ "code": null }), "code"),
            (json!({ "code": "" }), "code"),
            (json!({ "archived": "yes" }), "archived"),
        ] {
            assert_eq!(Changes::parse(object(body)).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_member_has_a_role() {
        let parse = |body| Enrolment::parse(object(body));
        assert_eq!(parse(json!({ "user_id": "bo", "role": "ta" })).unwrap().role, Role::Ta);
        for (body, field) in [
            (json!({ "user_id": "bo" }), "role"),
            (json!({ "user_id": "bo", "role": "owner" }), "role"),
            (json!({ "role": "ta" }), "user_id"),
            (json!({ "user_id": "u".repeat(65), "role": "ta" }), "user_id"),
        ] {
            assert_eq!(parse(body).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn each_role_in_a_class_has_a_role_in_its_conversation() {
        use conversation::Role as ConversationRole;
        for (role, conversation_role) in [
            (Role::Teacher, ConversationRole::Admin),
            (Role::Ta, ConversationRole::Admin),
            (Role::Student, ConversationRole::Member),
            (Role::Observer, ConversationRole::Observer),
        ] {
            assert_eq!((role.in_conversation(), Role::parse(role.as_str())), (conversation_role, Some(role)));
        }
    }
}
