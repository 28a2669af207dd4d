//! Reads search requests, and formats the cached ids. Pure: no host calls, so plain `cargo test` runs it.

use sdk::{Id, Problem, text};

pub const LIMIT_DEFAULT: u64 = 20;
pub const LIMIT_MAX: u64 = 100;
pub const WORDS_CHARS_MAX: usize = 200;
/// The words of a search. A message must contain all of them, so each word makes Postgres read another list
/// of the index: 28 common words in a million messages took 70 ms. In a script without spaces between words,
/// each letter counts as a word.
pub const WORDS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scope {
    /// All conversations of the caller.
    Mine,
    One(Id),
}

/// A search request.
#[derive(Debug, PartialEq)]
pub struct Query {
    pub scope: Scope,
    pub words: String,
}

/// Reads the words of a search, in NFC like stored messages. Postgres ignores case, accents and punctuation;
/// a search with punctuation only finds nothing.
pub fn words(raw: Option<&str>) -> Result<String, Problem> {
    let raw = raw.ok_or_else(|| Problem::invalid("q", "is required"))?;
    if raw.contains('\0') {
        return Err(Problem::invalid("q", "contains NUL"));
    }
    // NFC makes a text at most three times longer or shorter.
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

/// The number of terms that `app.search_terms` may make: one per word, and one per letter of a script without
/// spaces.
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

impl Query {
    pub fn conversation(&self) -> Option<Id> {
        match self.scope {
            Scope::Mine => None,
            Scope::One(id) => Some(id),
        }
    }

    /// A hash of the request for the cache key, which does not reveal the words. Two requests of one user
    /// with the same hash would share cached ids for a minute, but a response only has messages that contain
    /// the requested words.
    pub fn digest(&self) -> String {
        let scope = self.conversation().map(|id| id.to_string()).unwrap_or_default();
        let bytes = scope.bytes().chain([0xff]).chain(self.words.bytes());
        // FNV-1a with 128 bits.
        let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
        format!("{hash:032x}")
    }
}

pub fn write_ids(ids: &[Id]) -> String {
    ids.iter().map(Id::to_string).collect::<Vec<_>>().join(" ")
}

/// Reads cached ids; `None` if the text is not a list of ids.
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
    fn different_queries_have_different_digests() {
        let room = Id::parse(ROOM).unwrap();
        let digest = |scope, words: &str| Query { scope, words: words.to_owned() }.digest();
        assert_eq!(digest(Scope::Mine, "a b"), digest(Scope::Mine, "a b"));
        assert_ne!(digest(Scope::Mine, "a b"), digest(Scope::Mine, "a c"));
        assert_ne!(digest(Scope::Mine, "a b"), digest(Scope::One(room), "a b"));
        assert_eq!(digest(Scope::Mine, "a").len(), 32);
    }

    #[test]
    fn an_empty_result_is_cached_too() {
        let ids = [Id::parse(ROOM).unwrap(), Id::at(1, &[7; 10])];
        assert_eq!(read_ids(&write_ids(&ids)), Some(ids.to_vec()));
        assert_eq!(read_ids(&write_ids(&[])), Some(vec![]));
        assert_eq!(read_ids("x"), None);
    }
}
