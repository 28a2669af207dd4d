//! What the words of a message may be, whether sent or edited. Pure.

use serde_json::json;

use sdk::json::Object;
use sdk::{Problem, text};

pub const CONTENT_CHARS_MAX: usize = 2000;
pub const MENTIONS_MAX: usize = 100;

/// 1 to 2000 Unicode scalar values after NFC.
pub fn content(raw: String) -> Result<String, Problem> {
    // Composing never makes a text longer than three times: what is far too long is refused before the work.
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

/// User ids, sorted, each once: as JSON, or none.
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
    fn mentions_are_sorted_and_each_once() {
        let of = |json: &str| mentions(&mut Object::parse(json.as_bytes()).unwrap());
        assert_eq!(of(r#"{"mentions":["bo","ana","bo"]}"#).unwrap().unwrap(), r#"["ana","bo"]"#);
        assert_eq!(of(r#"{"mentions":[]}"#).unwrap(), None);
        assert_eq!(of(r#"{"mentions":["ana",""]}"#).unwrap_err().field.as_deref(), Some("mentions[1]"));
    }
}
