//! Page cursors: they say where the previous page ended. The client returns a cursor unchanged. A text that
//! cannot be a cursor is refused with `invalid`.

use crate::{Id, Problem, text};

/// The first character of a user cursor, before the user id in hexadecimal. It keeps other texts from being
/// read as one.
const USER_PREFIX: char = 'p';

/// The cursor of a page that ended with this user.
pub fn of_user(user: &str) -> String {
    user.bytes().fold(USER_PREFIX.to_string(), |cursor, byte| format!("{cursor}{byte:02x}"))
}

/// The user after whom the page begins; `None` for the first page.
pub fn user(raw: Option<&str>) -> Result<Option<String>, Problem> {
    raw.map(|raw| parse(raw).ok_or_else(invalid)).transpose()
}

/// The id after which the page begins; `None` for the first page. The cursor is the id itself.
pub fn id(raw: Option<&str>) -> Result<Option<Id>, Problem> {
    raw.map(|raw| Id::parse(raw).ok_or_else(invalid)).transpose()
}

/// The problem for a text that is not a cursor.
pub fn invalid() -> Problem {
    Problem::invalid("cursor", "is not one of ours")
}

fn parse(raw: &str) -> Option<String> {
    let digits = raw.strip_prefix(USER_PREFIX)?.as_bytes();
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let byte = |pair: &[u8]| match *pair {
        [high, low] => Some(value(high)? << 4 | value(low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    String::from_utf8(bytes?).ok().filter(|user| text::is_user_id(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_cursor_is_read_back_as_the_user() {
        for name in ["bo", "Ană ✓", &"ü".repeat(64)] {
            assert_eq!(user(Some(&of_user(name))), Ok(Some(name.to_owned())));
        }
        assert_eq!(of_user("bo"), "p626f");
        assert_eq!(user(None), Ok(None));
    }

    #[test]
    fn a_text_that_is_no_cursor_is_refused() {
        let too_long = of_user(&"x".repeat(65));
        for bad in [
            "", "p", "bo", "garbage", "[]", "626f", "p626", "p626F", "p+1", "pff", "p00", "đ", "pđ",
            &too_long,
        ] {
            assert_eq!(user(Some(bad)), Err(invalid()), "{bad}");
            assert_eq!(id(Some(bad)), Err(invalid()), "{bad}");
        }
    }
}
