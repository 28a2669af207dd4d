//! Reads a search for channels. Pure: no host calls, so plain `cargo test` runs it.

use sdk::{Problem, text};

/// The length of the longest name.
pub(crate) const QUERY_CHARS_MAX: usize = 100;
/// The index has trigrams. A query with fewer characters therefore only matches the beginning of names.
const TRIGRAM_CHARS: usize = 3;

/// A search, which ignores case and accents.
#[derive(Debug, PartialEq)]
pub(crate) enum Search {
    All,
    /// Names that begin with the query.
    Prefix(String),
    /// Names that contain the query.
    Contains(String),
}

impl Search {
    pub(crate) fn parse(raw: Option<&str>) -> Result<Self, Problem> {
        let raw = raw.unwrap_or_default();
        let query = text::nfc(raw.trim().to_owned());
        // The raw text is checked, because trimming would remove a tab at the end.
        if text::length(&query) > QUERY_CHARS_MAX || text::has_control(raw) {
            let rule = format!("has more than {QUERY_CHARS_MAX} characters, or control characters");
            return Err(Problem::invalid("q", rule));
        }
        Ok(match text::length(&query) {
            0 => Self::All,
            length if length < TRIGRAM_CHARS => Self::Prefix(query),
            _ => Self::Contains(query),
        })
    }

    /// The SQL condition; `$2` is the pattern.
    pub(crate) fn condition(&self) -> &'static str {
        match self {
            Self::All => "$2::text is null",
            Self::Prefix(_) | Self::Contains(_) => "channel.plain_name like app.plain($2::text)",
        }
    }

    pub(crate) fn pattern(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Prefix(query) => Some(format!("{}%", literal(query))),
            Self::Contains(query) => Some(format!("%{}%", literal(query))),
        }
    }
}

/// The SQL condition for the next page; `$3` is the last channel of the previous page. A cursor that names a
/// private channel gives an empty page, so that nobody learns where its name sorts.
pub(crate) fn after(is_next: bool) -> &'static str {
    if is_next {
        "(channel.plain_name, channel.id) > (
          select before.plain_name, before.id from app.conversations as before
          where before.id = $3::uuid and before.kind = 'channel' and before.visibility = 'public')"
    } else {
        "$3::uuid is null"
    }
}

/// Escapes the special characters of a pattern.
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
    fn a_short_query_matches_the_beginning_of_names_and_a_longer_one_matches_anywhere() {
        let pattern = |query| Search::parse(Some(query)).unwrap().pattern();
        assert_eq!((pattern(""), pattern("  ")), (None, None));
        assert_eq!(pattern("đ").as_deref(), Some("đ%"));
        assert_eq!(pattern("toán").as_deref(), Some("%toán%"));
        assert_eq!(pattern("to\u{301}a").as_deref(), Some("%tóa%"));
    }

    #[test]
    fn special_characters_of_patterns_are_escaped() {
        assert_eq!(Search::parse(Some(r"50%_\")).unwrap().pattern().as_deref(), Some(r"%50\%\_\\%"));
    }

    #[test]
    fn a_query_longer_than_a_name_is_refused() {
        assert!(Search::parse(Some(&"x".repeat(100))).is_ok());
        for bad in ["x".repeat(101), "a\0b".to_owned(), "a\t".to_owned()] {
            assert_eq!(Search::parse(Some(&bad)).unwrap_err().field.as_deref(), Some("q"));
        }
    }
}
