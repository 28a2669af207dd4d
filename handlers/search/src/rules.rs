//! What is asked, and how what was found is remembered. Pure: no host calls, so plain `cargo test` runs it.

use sdk::{Id, Problem, text};

pub const LIMIT_DEFAULT: u64 = 20;
pub const LIMIT_MAX: u64 = 100;
pub const WORDS_CHARS_MAX: usize = 200;
/// Every message found must hold all of the words, so each word costs the index another list to read: 28 common words of
/// a million messages took 70 ms of Postgres. A letter of a script that puts no space between words counts as a word.
pub const WORDS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scope {
    /// Every conversation I am in.
    Mine,
    One(Id),
}

#[derive(Debug, PartialEq)]
pub struct Question {
    pub scope: Scope,
    pub words: String,
}

/// In NFC, as messages are stored: the same words from two keyboards are the same words. All else that is to be ignored
/// (case, marks, signs) Postgres ignores; words that are none of it find nothing.
pub fn words(raw: Option<&str>) -> Result<String, Problem> {
    let raw = raw.ok_or_else(|| Problem::invalid("q", "is required"))?;
    if raw.contains('\0') {
        return Err(Problem::invalid("q", "contains NUL"));
    }
    // Composing never makes a text longer than three times.
    if raw.len() > WORDS_CHARS_MAX * 4 * 3 {
        return Err(too_long());
    }
    let words = text::nfc(raw.to_owned());
    match text::length(&words) {
        _ if words.chars().all(|c| c.is_whitespace() || c.is_control()) => {
            Err(Problem::invalid("q", "is empty"))
        }
        length if length > WORDS_CHARS_MAX => Err(too_long()),
        _ if count(&words) > WORDS_MAX => {
            Err(Problem::invalid("q", format!("has more than {WORDS_MAX} words")))
        }
        _ => Ok(words),
    }
}

/// How many terms `app.search_terms` may make of it: one for each word, one for each letter of a script without spaces.
fn count(words: &str) -> usize {
    let unspaced = |c: char| {
        matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17df}' | '\u{3041}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
    };
    let mut count = 0;
    let mut within = false;
    for c in words.chars() {
        let letter = c.is_alphanumeric();
        count += usize::from(letter && (!within || unspaced(c)));
        within = letter && !unspaced(c);
    }
    count
}

fn too_long() -> Problem {
    Problem::invalid("q", format!("has more than {WORDS_CHARS_MAX} characters"))
}

impl Question {
    pub fn conversation(&self) -> Option<Id> {
        match self.scope {
            Scope::Mine => None,
            Scope::One(id) => Some(id),
        }
    }

    /// For the key of what is remembered: it tells nothing of the words. Two questions of one person with the same digest
    /// would share their ids for a minute, and be shown only those that hold the words of each.
    pub fn digest(&self) -> String {
        let scope = self.conversation().map(|id| id.to_string()).unwrap_or_default();
        let bytes = scope.bytes().chain([0xff]).chain(self.words.bytes());
        // FNV-1a of 128 bits.
        let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
        format!("{hash:032x}")
    }
}

pub fn write_ids(ids: &[Id]) -> String {
    ids.iter().map(Id::to_string).collect::<Vec<_>>().join(" ")
}

/// None of what is not a list of ids: it is searched again.
pub fn read_ids(text: &str) -> Option<Vec<Id>> {
    text.split(' ').filter(|word| !word.is_empty()).map(Id::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    #[test]
    fn words_are_1_to_200_characters_in_nfc() {
        assert_eq!(words(Some("co\u{302}n đươ\u{300}ng")).unwrap(), "côn đường");
        let (words_16, letters_16) = ("ab ".repeat(16), "字".repeat(16));
        for good in [
            "x",
            " x ",
            "!!!",
            "do an to no",
            "a & b | !c:*",
            &"đ".repeat(200),
            &"o\u{302}".repeat(200),
            &words_16,
            &letters_16,
        ] {
            assert!(words(Some(good)).is_ok(), "{good:?}");
        }
        for bad in [
            None,
            Some(""),
            Some("  \u{a0}\n\u{1}"),
            Some("a\0b"),
            Some(&*"đ".repeat(201)),
            Some(&*"a ".repeat(17)),
            Some("a-b/c.d,e;f g h i j k l m n o p q"),
            Some(&*"字".repeat(17)),
            Some(&*"x".repeat(60_000)),
        ] {
            assert_eq!(words(bad).unwrap_err().field.as_deref(), Some("q"), "{bad:?}");
        }
    }

    #[test]
    fn a_digest_tells_questions_apart() {
        let room = Id::parse(ROOM).unwrap();
        let digest = |scope, words: &str| Question { scope, words: words.to_owned() }.digest();
        assert_eq!(digest(Scope::Mine, "a b"), digest(Scope::Mine, "a b"));
        assert_ne!(digest(Scope::Mine, "a b"), digest(Scope::Mine, "a c"));
        assert_ne!(digest(Scope::Mine, "a b"), digest(Scope::One(room), "a b"));
        assert_eq!(digest(Scope::Mine, "a").len(), 32);
    }

    #[test]
    fn nothing_found_is_remembered_too() {
        let ids = [Id::parse(ROOM).unwrap(), Id::at(1, &[7; 10])];
        assert_eq!(read_ids(&write_ids(&ids)), Some(ids.to_vec()));
        assert_eq!(read_ids(&write_ids(&[])), Some(vec![]));
        assert_eq!(read_ids("x"), None);
    }
}
