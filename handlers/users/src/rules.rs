//! The rules for directory entries. Pure: no host calls, so plain `cargo test` runs it.

use sdk::json::Object;
use sdk::{Problem, text};
use serde_json::json;

pub(crate) const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=50;
pub(crate) const AVATAR_URL_BYTES_MAX: usize = 2048;
/// The longest e-mail address, after RFC 5321.
pub(crate) const EMAIL_BYTES_MAX: usize = 254;

/// A change of an entry. `None` leaves a field unchanged; `Some(None)`, for `null`, removes it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub display_name: Option<Option<String>>,
    pub username: Option<Option<String>>,
    pub avatar_url: Option<Option<String>>,
    pub email: Option<Option<String>>,
}

impl Changes {
    pub(crate) fn parse(mut body: Object) -> Result<Self, Problem> {
        let mut read = |field: &'static str, check: fn(String) -> Result<String, &'static str>| {
            if !body.has(field) {
                return Ok(None);
            }
            let text = body.text(field)?;
            text.map(check).transpose().map(Some).map_err(|rule| Problem::invalid(field, rule))
        };
        Ok(Self {
            display_name: read("display_name", display_name)?,
            username: read("username", username)?,
            avatar_url: read("avatar_url", avatar_url)?,
            email: read("email", email)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The entry of a user who is only known by a token, in JSON.
pub(crate) fn entry_of_token(user: &str, name: Option<&str>) -> String {
    json!({ "id": user, "display_name": text::name_in_token(name), "username": null, "avatar_url": null, "email": null })
        .to_string()
}

fn display_name(raw: String) -> Result<String, &'static str> {
    text::name(raw, text::DISPLAY_NAME_CHARS_MAX)
        .ok_or("is not 1 to 100 characters, of which one can be seen and none is a control character")
}

fn username(raw: String) -> Result<String, &'static str> {
    // Only ASCII letters are allowed, so that two usernames that look the same are the same.
    let plain = raw.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if plain && USERNAME_CHARS.contains(&raw.len()) {
        Ok(raw)
    } else {
        Err("is not 3 to 50 letters, digits, `_` and `-`")
    }
}

/// Checks the URL of an avatar. Only http and https are allowed, because browsers will load it.
fn avatar_url(raw: String) -> Result<String, &'static str> {
    let rest = raw.strip_prefix("https://").or_else(|| raw.strip_prefix("http://"));
    let has_host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
    let plain =
        !raw.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '"' | '<' | '>' | '\\'));
    if has_host && plain && raw.len() <= AVATAR_URL_BYTES_MAX {
        Ok(raw)
    } else {
        Err("is not an http or https URL of at most 2048 bytes")
    }
}

fn email(raw: String) -> Result<String, &'static str> {
    let email = text::nfc(raw);
    let parts = email.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && name.len() <= 64 && !host.is_empty() && !host.contains('@')
    });
    let plain = !email.chars().any(|c| c.is_control() || c.is_whitespace());
    if parts && plain && email.len() <= EMAIL_BYTES_MAX {
        Ok(email)
    } else {
        Err("is not an address with one `@`, of at most 254 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn changes(body: Value) -> Result<Changes, Problem> {
        Changes::parse(Object::parse(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn an_absent_field_stays_unchanged_and_null_removes_it() {
        assert!(changes(json!({ "unknown": 1 })).unwrap().is_empty());
        let read = changes(json!({ "username": "Ana_1-x", "email": null })).unwrap();
        assert_eq!(
            (read.username, read.email, read.avatar_url),
            (Some(Some("Ana_1-x".into())), Some(None), None)
        );
    }

    #[test]
    fn an_error_names_its_field() {
        for (field, good, bad) in [
            (
                "display_name",
                vec!["A", "Ană ✓", &"x".repeat(100)],
                vec!["", " ", "a\nb", "\0", &"x".repeat(101)],
            ),
            (
                "username",
                vec!["abc", &"x".repeat(50)],
                vec!["", "ab", "a b", "añb", "a.b", "@ana", &"x".repeat(51)],
            ),
            (
                "avatar_url",
                vec!["https://x.test/a.png", "http://localhost:1/a?b#c"],
                vec![
                    "",
                    "x.png",
                    "https://",
                    "https:///a",
                    "javascript:alert(1)",
                    "data:x",
                    "https://a b",
                    "https://a\"b",
                ],
            ),
            (
                "email",
                vec!["a@b", "ană@x.test"],
                vec!["", "a", "@b", "a@", "a@b@c", "a b@c", &format!("a@{}", "b".repeat(253))],
            ),
        ] {
            for value in good {
                assert!(changes(json!({ field: value })).is_ok(), "{field} {value}");
            }
            for value in bad {
                let problem = changes(json!({ field: value })).unwrap_err();
                assert_eq!(problem.field.as_deref(), Some(field), "{value}");
            }
            assert_eq!(changes(json!({ field: 7 })).unwrap_err().field.as_deref(), Some(field));
        }
    }
}
