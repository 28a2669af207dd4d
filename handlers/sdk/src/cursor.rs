//! Where a page ended, for a client to hand back as it came. What was never handed out is refused.

use crate::{Id, Problem, text};

/// Before the hexadecimal bytes of a user id: hardly any other text reads as one.
const PERSON: char = 'p';

pub fn of_person(user: &str) -> String {
    user.bytes().fold(PERSON.to_string(), |cursor, byte| format!("{cursor}{byte:02x}"))
}

/// The user after whom the page begins.
pub fn person(raw: Option<&str>) -> Result<Option<String>, Problem> {
    raw.map(|raw| parse(raw).ok_or_else(refused)).transpose()
}

/// The thing after which the page begins.
pub fn id(raw: Option<&str>) -> Result<Option<Id>, Problem> {
    raw.map(|raw| Id::parse(raw).ok_or_else(refused)).transpose()
}

pub fn refused() -> Problem {
    Problem::invalid("cursor", "is not one of ours")
}

fn parse(raw: &str) -> Option<String> {
    let digits = raw.strip_prefix(PERSON)?.as_bytes();
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
    fn a_cursor_leads_back_to_its_person() {
        for user in ["bo", "Ană ✓", &"ü".repeat(64)] {
            assert_eq!(person(Some(&of_person(user))), Ok(Some(user.to_owned())));
        }
        assert_eq!(of_person("bo"), "p626f");
        assert_eq!(person(None), Ok(None));
    }

    #[test]
    fn what_was_never_handed_out_is_refused() {
        let too_long = of_person(&"x".repeat(65));
        for bad in [
            "", "p", "bo", "garbage", "[]", "626f", "p626", "p626F", "p+1", "pff", "p00", "đ", "pđ",
            &too_long,
        ] {
            assert_eq!(person(Some(bad)), Err(refused()), "{bad}");
            assert_eq!(id(Some(bad)), Err(refused()), "{bad}");
        }
    }
}
