//! Reads search requests, and formats the cached ids. Pure: no host calls, so plain `cargo test` runs it.

use sdk::hash::fnv1a_128;
use sdk::{Id, Problem, text};

pub(crate) const LIMIT_DEFAULT: u64 = 20;
pub(crate) const LIMIT_MAX: u64 = 100;
pub(crate) const WORDS_CHARS_MAX: usize = 200;
/// The words of a search. A message must contain all of them, so each word makes Postgres read another list
/// of the index: 28 common words in a million messages took 70 ms.
pub(crate) const WORDS_MAX: usize = 16;
/// In a script without spaces between words, so many letters count as one word. Postgres looks for their
/// pairs, and far fewer messages have a pair of letters than a common word.
const LETTERS_PER_WORD: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scope {
    /// All conversations of the caller.
    Mine,
    One(Id),
}

/// A search request.
#[derive(Debug, PartialEq)]
pub(crate) struct Query {
    pub scope: Scope,
    pub words: String,
}

/// Reads the words of a search, in NFC like stored messages. Postgres ignores case, accents and punctuation;
/// a search with punctuation only finds nothing.
pub(crate) fn words(raw: Option<&str>) -> Result<String, Problem> {
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

/// The number of words, as `app.search_split` finds them. A run of letters without spaces between words
/// counts as one word for each [`LETTERS_PER_WORD`], rounded up.
fn count(words: &str) -> usize {
    let (mut count, mut in_word, mut run) = (0, false, 0);
    for c in words.chars() {
        run = if is_unspaced(c) { run + 1 } else { 0 };
        let in_next = run == 0 && !is_gap(c);
        count += usize::from(in_next && !in_word) + usize::from(run % LETTERS_PER_WORD == 1);
        in_word = in_next;
    }
    count
}

/// Whether a character stands between words, as `app.search_gaps` has it. Marks on letters do not.
fn is_gap(c: char) -> bool {
    matches!(c,
        '\0'..='\u{2f}' | '\u{3a}'..='\u{40}' | '\u{5b}'..='\u{60}' | '\u{7b}'..='\u{a9}' | '\u{ab}' | '\u{ac}'
        | '\u{ae}'..='\u{b1}' | '\u{b4}' | '\u{b6}'..='\u{b8}' | '\u{bb}' | '\u{bf}' | '\u{d7}' | '\u{f7}'
        | '\u{2000}'..='\u{200b}' | '\u{2010}'..='\u{2029}' | '\u{202f}'..='\u{205f}' | '\u{20a0}'..='\u{20cf}'
        | '\u{2190}'..='\u{2bff}' | '\u{3000}'..='\u{3004}' | '\u{3008}'..='\u{3020}' | '\u{3030}' | '\u{303d}'
        | '\u{30fb}' | '\u{fe10}'..='\u{fe1f}' | '\u{fe30}'..='\u{fe6f}' | '\u{1f000}'..='\u{1faff}')
}

/// Whether a letter belongs to a script that has no space between words, as `app.search_unspaced` has it.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{e4f}' | '\u{e80}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17df}'
        | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{309f}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

fn too_long() -> Problem {
    Problem::invalid("q", format!("has more than {WORDS_CHARS_MAX} characters"))
}

impl Query {
    pub(crate) fn conversation(&self) -> Option<Id> {
        match self.scope {
            Scope::Mine => None,
            Scope::One(id) => Some(id),
        }
    }

    /// A hash of the request for the cache key, which does not reveal the words. Two requests of one user
    /// with the same hash would share cached ids for a minute, but a response only has messages that contain
    /// the requested words.
    pub(crate) fn digest(&self) -> String {
        let scope = self.conversation().map(|id| id.to_string()).unwrap_or_default();
        let bytes = scope.bytes().chain([0xff]).chain(self.words.bytes());
        format!("{:032x}", fnv1a_128(bytes))
    }
}

/// Reads cached ids; `None` if the text is not a list of ids.
pub(crate) fn read_ids(text: &str) -> Option<Vec<Id>> {
    text.split(' ').filter(|word| !word.is_empty()).map(Id::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    #[test]
    fn words_are_1_to_200_characters_in_nfc() {
        assert_eq!(words(Some("co\u{302}n đươ\u{300}ng")).unwrap(), "côn đường");
        let (words_16, letters_64) = ("ab ".repeat(16), "字".repeat(64));
        for good in [
            "x",
            " x ",
            "!!!",
            "do an to no",
            "a & b | !c:*",
            &"đ".repeat(200),
            &"o\u{302}".repeat(200),
            &words_16,
            &letters_64,
            "สวัสดีครับคุณครูที่โรงเรียน",
            "안녕하세요 반갑습니다 오늘 회의는 몇 시에 시작하나요",
            // The mark between two consonants is part of the word.
            &"नमस्ते ".repeat(16),
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
            Some(&*"字".repeat(65)),
            // A run of letters is at least one word, and so are the words around it.
            Some(&*"a字 ".repeat(9)),
            Some(&*"x".repeat(60_000)),
        ] {
            assert_eq!(words(bad).unwrap_err().field.as_deref(), Some("q"), "{bad:?}");
        }
    }

    #[test]
    fn different_queries_have_different_digests() {
        let conversation = Id::parse(CONVERSATION).unwrap();
        let digest = |scope, words: &str| Query { scope, words: words.to_owned() }.digest();
        assert_eq!(digest(Scope::Mine, "a b"), digest(Scope::Mine, "a b"));
        assert_ne!(digest(Scope::Mine, "a b"), digest(Scope::Mine, "a c"));
        assert_ne!(digest(Scope::Mine, "a b"), digest(Scope::One(conversation), "a b"));
        assert_eq!(digest(Scope::Mine, "a").len(), 32);
    }

    #[test]
    fn an_empty_result_is_cached_too() {
        let ids = [Id::parse(CONVERSATION).unwrap(), Id::at(1, &[7; 10])];
        assert_eq!(read_ids(&format!("{} {}", ids[0], ids[1])), Some(ids.to_vec()));
        assert_eq!(read_ids(""), Some(vec![]));
        assert_eq!(read_ids("x"), None);
    }
}
