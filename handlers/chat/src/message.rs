//! The rules for the content and mentions of a message, for both sending and editing. Pure: no host calls.

use serde_json::json;

use sdk::json::Object;
use sdk::{Problem, text};

pub const CONTENT_CHARS_MAX: usize = 2000;
pub const MENTIONS_MAX: usize = 100;

/// Checks and normalises the content: 1 to 2000 Unicode scalar values after NFC.
pub fn content(raw: String) -> Result<String, Problem> {
    // NFC makes a text at most three times longer or shorter, so a text far above the limit is refused
    // without that work.
    if raw.len() > CONTENT_CHARS_MAX * 4 * 3 {
        return Err(Problem::invalid("content", format!("has more than {CONTENT_CHARS_MAX} characters")));
    }
    let content = text::nfc(raw);
    match text::length(&content) {
        0 => Err(Problem::invalid("content", "is empty")),
        length if length > CONTENT_CHARS_MAX => {
            Err(Problem::invalid("content", format!("has more than {CONTENT_CHARS_MAX} characters")))
        }
        _ => Ok(content),
    }
}

/// The mentioned user ids as JSON, sorted and without duplicates; `None` if there are none.
pub fn mentions(body: &mut Object) -> Result<Option<String>, Problem> {
    let Some(mut users) = body.user_ids("mentions", MENTIONS_MAX)? else { return Ok(None) };
    users.sort_unstable();
    users.dedup();
    Ok((!users.is_empty()).then(|| json!(users).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_1_to_2000_characters_after_nfc() {
        for good in ["x".to_owned(), "👩".repeat(2000), "o\u{302}".repeat(2000), "line\nbreak".to_owned()] {
            assert!(content(good).is_ok());
        }
        assert_eq!(content("o\u{302}".into()).unwrap(), "ô");
        for bad in [String::new(), "x".repeat(2001), "x".repeat(60_000), "o\u{302}".repeat(2001)] {
            assert_eq!(content(bad).unwrap_err().field.as_deref(), Some("content"));
        }
    }

    #[test]
    fn mentions_are_sorted_and_have_no_duplicates() {
        let of = |json: &str| mentions(&mut Object::parse(json.as_bytes()).unwrap());
        assert_eq!(of(r#"{"mentions":["bo","ana","bo"]}"#).unwrap().unwrap(), r#"["ana","bo"]"#);
        assert_eq!(of(r#"{"mentions":[]}"#).unwrap(), None);
        assert_eq!(of(r#"{"mentions":["ana",""]}"#).unwrap_err().field.as_deref(), Some("mentions[1]"));
    }
}
