//! The names that a text calls. Pure: no host calls, so plain `cargo test` runs it.

use sdk::text;

/// Names after an `@` that are looked up; a message that holds more is no call but noise.
pub const NAMES_MAX: usize = 50;
const NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=50;

/// What could be usernames: 3 to 50 letters, digits, `_` and `-` after an `@` that stands at the beginning of a word, so
/// that an address of mail is none. A dash or underscore at the end may also be punctuation: both readings are looked up.
pub fn names(content: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut names: Vec<String> = Vec::new();
    for (place, _) in content.match_indices('@') {
        if content[..place].chars().next_back().is_some_and(|before| is_word(before) || before == '@') {
            continue;
        }
        let rest = &content[place + 1..];
        let whole = &rest[..rest.find(|c: char| !is_word(c)).unwrap_or(rest.len())];
        for name in [whole, whole.trim_end_matches(['-', '_'])] {
            let fits = NAME_CHARS.contains(&text::length(name));
            if fits && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        if names.len() >= NAMES_MAX {
            names.truncate(NAMES_MAX);
            break;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_after_an_at() {
        for (text, expected) in [
            ("@anna, and (@Đường) @b0_b-c!", &["anna", "Đường", "b0_b-c"][..]),
            ("mail me: ana@example.com, @@anna", &[]),
            ("@ab is too short, so is @", &[]),
            ("@anna @anna", &["anna"]),
            ("thanks @anna-", &["anna-", "anna"]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
        assert_eq!(names(&format!("@{}", "x".repeat(51))), Vec::<String>::new());
        let many: String = (0..200).map(|n| format!("@user{n} ")).collect();
        assert_eq!(names(&many).len(), NAMES_MAX);
    }
}
