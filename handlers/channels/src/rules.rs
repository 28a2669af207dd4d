//! What a search for channels means. Pure: no host calls, so plain `cargo test` runs it.

use sdk::{Problem, text};

/// As long as a name may be.
pub const QUERY_CHARS_MAX: usize = 100;
/// The index knows pieces of three characters; a shorter word is looked for where names begin.
const PIECE_CHARS: usize = 3;

/// Case and accents do not count.
#[derive(Debug, PartialEq)]
pub enum Search {
    All,
    /// Names that begin so.
    Begins(String),
    /// Names that hold this anywhere.
    Holds(String),
}

impl Search {
    pub fn parse(raw: Option<&str>) -> Result<Self, Problem> {
        let raw = raw.unwrap_or_default();
        let query = text::nfc(raw.trim().to_owned());
        // A tab at the end is one too, although it would be trimmed.
        if text::length(&query) > QUERY_CHARS_MAX || text::has_control(raw) {
            let rule = format!("has more than {QUERY_CHARS_MAX} characters, or control characters");
            return Err(Problem::invalid("q", rule));
        }
        Ok(match text::length(&query) {
            0 => Self::All,
            length if length < PIECE_CHARS => Self::Begins(query),
            _ => Self::Holds(query),
        })
    }

    /// SQL with `$2`, the pattern.
    pub fn condition(&self) -> &'static str {
        match self {
            Self::All => "$2::text is null",
            Self::Begins(_) | Self::Holds(_) => "channel.plain_name like app.plain($2::text)",
        }
    }

    pub fn pattern(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Begins(query) => Some(format!("{}%", literal(query))),
            Self::Holds(query) => Some(format!("%{}%", literal(query))),
        }
    }
}

/// SQL with `$3`, the last one of the page before. What is not public is no place to go on from: where a private name stands
/// among the public ones is nobody's business.
pub fn after(is_next: bool) -> &'static str {
    if is_next {
        "(channel.plain_name, channel.id) > (
          select before.plain_name, before.id from app.conversations as before
          where before.id = $3::uuid and before.kind = 'channel' and before.visibility = 'public')"
    } else {
        "$3::uuid is null"
    }
}

/// Without the characters that mean something in a pattern.
fn literal(query: &str) -> String {
    let mut literal = String::with_capacity(query.len());
    for c in query.chars() {
        if matches!(c, '%' | '_' | '\\') {
            literal.push('\\');
        }
        literal.push(c);
    }
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_word_begins_a_name_and_a_longer_one_is_anywhere_in_it() {
        let pattern = |query| Search::parse(Some(query)).unwrap().pattern();
        assert_eq!((pattern(""), pattern("  ")), (None, None));
        assert_eq!(pattern("đ").as_deref(), Some("đ%"));
        assert_eq!(pattern("toán").as_deref(), Some("%toán%"));
        assert_eq!(pattern("to\u{301}a").as_deref(), Some("%tóa%"));
    }

    #[test]
    fn nothing_in_a_query_is_a_pattern() {
        assert_eq!(Search::parse(Some(r"50%_\")).unwrap().pattern().as_deref(), Some(r"%50\%\_\\%"));
    }

    #[test]
    fn a_query_is_no_longer_than_a_name() {
        assert!(Search::parse(Some(&"x".repeat(100))).is_ok());
        for bad in ["x".repeat(101), "a\0b".to_owned(), "a\t".to_owned()] {
            assert_eq!(Search::parse(Some(&bad)).unwrap_err().field.as_deref(), Some("q"));
        }
    }
}
