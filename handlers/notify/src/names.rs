//! Finds the usernames that a text mentions. Pure: no host calls, so plain `cargo test` runs it.

use sdk::text;

/// The names of one message that are looked up. The rest is ignored.
pub(crate) const NAMES_MAX: usize = 50;
const NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=50;

/// The possible usernames in a text: 3 to 50 letters, digits, `_` and `-` after an `@` at the beginning of a
/// word. An e-mail address is therefore none. A dash or underscore at the end may be punctuation, so the name
/// is returned with and without it.
pub(crate) fn names(content: &str) -> Vec<String> {
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
    fn a_name_is_a_word_after_an_at_sign() {
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
