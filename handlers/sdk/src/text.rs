//! Text from people: NFC, its length in Unicode scalar values, and what it may not contain.

use unicode_normalization::UnicodeNormalization;

/// Normalisation form C, so that the same text typed on two keyboards is the same text.
pub fn nfc(text: String) -> String {
    // Nothing below U+0300 (the first combining mark) ever changes.
    if text.chars().all(|c| c < '\u{300}') {
        return text;
    }
    text.nfc().collect()
}

/// Unicode scalar values.
pub fn length(text: &str) -> usize {
    text.chars().count()
}

pub fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// A user id is a token's `sub`, verbatim: 1 to 64 characters, none of them a control character.
pub fn is_user_id(text: &str) -> bool {
    (1..=64).contains(&length(text)) && !has_control(text)
}

/// The first so many characters.
pub fn cut(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writings_of_one_text_become_one() {
        assert_eq!(nfc("co\u{0302}n đươ\u{0300}ng".into()), "côn đường");
        assert_eq!(nfc("plain".into()), "plain");
        // Hangul is composed by rule, not by table.
        assert_eq!(nfc("\u{1112}\u{1161}\u{11ab}".into()), "한");
        assert_eq!(length("👩‍👩‍👧"), 5);
    }

    #[test]
    fn user_ids_are_kept_as_they_are_within_bounds() {
        assert!(is_user_id("Ană ✓") && is_user_id(&"ü".repeat(64)));
        assert!(!is_user_id("") && !is_user_id("a\0") && !is_user_id(&"ü".repeat(65)));
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!((cut("đường", 2), cut("ab", 2), cut("", 1)), ("đư", "ab", ""));
    }
}
