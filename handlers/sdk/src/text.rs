//! Text that people wrote: its normal form, its length in Unicode scalar values, and the characters that it
//! may not contain.

use unicode_normalization::char::{
    canonical_combining_class, compose, decompose_canonical, is_combining_mark,
};

/// Converts a text to normalisation form C, so that the same text typed on two keyboards compares equal.
///
/// The iterator of the crate `unicode_normalization` would add the tables of the compatibility forms to every
/// handler: 80 KB that no handler needs.
pub fn nfc(text: String) -> String {
    // Normalisation never changes characters below U+0300, the first combining mark.
    if text.chars().all(|c| c < '\u{300}') {
        return text;
    }
    let mut chars = Vec::with_capacity(text.len());
    for c in text.chars() {
        decompose_canonical(c, |part| chars.push((canonical_combining_class(part), part)));
    }
    // Sort the marks between two starters by their class. The sort is stable, so marks of one class keep
    // their order.
    for marks in chars.chunk_by_mut(|(_, _), (class, _)| *class != 0) {
        marks.sort_by_key(|(class, _)| *class);
    }
    recompose(chars)
}

/// Composes each mark with the starter before it, unless a mark between the two blocks it.
fn recompose(chars: Vec<(u8, char)>) -> String {
    let mut kept: Vec<(u8, char)> = Vec::with_capacity(chars.len());
    let mut starter: Option<usize> = None;
    for (class, c) in chars {
        if let Some(at) = starter {
            let between = kept.last().filter(|_| kept.len() - 1 > at);
            let blocked = between.is_some_and(|(last, _)| *last == 0 || *last >= class);
            if !blocked && let Some(composed) = compose(kept[at].1, c) {
                kept[at].1 = composed;
                continue;
            }
        }
        if class == 0 {
            starter = Some(kept.len());
        }
        kept.push((class, c));
    }
    kept.into_iter().map(|(_, c)| c).collect()
}

/// The length in Unicode scalar values.
pub fn length(text: &str) -> usize {
    text.chars().count()
}

pub fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// User ids that mean something else in a path: `/users/me` is the caller, and HTTP clients remove `.` and
/// `..` from a path before they send it. The host refuses tokens with such a user id (`ids.rs`).
const RESERVED_USER_IDS: [&str; 3] = ["me", ".", ".."];

/// Whether a text is a user id, which is the `sub` of a token, unchanged: 1 to 64 characters without control
/// characters.
pub fn is_user_id(text: &str) -> bool {
    (1..=64).contains(&length(text)) && !has_control(text) && !RESERVED_USER_IDS.contains(&text)
}

/// Checks the visible name of a person, a conversation or a class. It returns the name in NFC, without
/// characters that only deceive (`deceives`) and without spaces at both ends. `None` if the name contains
/// control characters, is longer than `chars_max` characters, or has no visible character.
pub fn name(raw: String, chars_max: usize) -> Option<String> {
    if has_control(&raw) {
        return None;
    }
    let kept: String = raw.chars().filter(|c| !deceives(*c)).collect();
    let name = nfc(kept.trim().to_owned());
    (name.chars().any(is_visible) && length(&name) <= chars_max).then_some(name)
}

pub const DISPLAY_NAME_CHARS_MAX: usize = 100;

/// The user's name from a token, cut at the length of a display name. `None` if it has no visible character.
pub fn name_in_token(name: Option<&str>) -> Option<String> {
    self::name(cut(name?, DISPLAY_NAME_CHARS_MAX).to_owned(), DISPLAY_NAME_CHARS_MAX)
}

/// Whether a character is invisible and changes how other characters are shown or compared: it turns the
/// direction of the text, or it makes two names differ that look the same. The joiners U+200C and U+200D are
/// kept, because Persian, Hindi and emoji need them.
fn deceives(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}')
}

/// Whether a character alone is visible. Spaces, joiners, combining marks and fillers are not.
fn is_visible(c: char) -> bool {
    let blank = matches!(c,
        '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{200c}' | '\u{200d}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}');
    !(blank || c.is_whitespace() || c.is_control() || is_combining_mark(c))
}

/// The first `chars` characters of a text.
pub fn cut(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_texts_have_the_same_normal_form() {
        assert_eq!(nfc("co\u{0302}n đươ\u{0300}ng".into()), "côn đường");
        assert_eq!(nfc("plain".into()), "plain");
        // Hangul is composed by a rule, not by a table.
        assert_eq!(nfc("\u{1112}\u{1161}\u{11ab}".into()), "한");
        assert_eq!(length("👩‍👩‍👧"), 5);
    }

    #[test]
    fn nfc_gives_the_same_result_as_the_crates_iterator() {
        use unicode_normalization::UnicodeNormalization;

        let check = |text: String| {
            let expected: String = text.nfc().collect();
            assert_eq!(nfc(text.clone()), expected, "{:?}", text.chars().collect::<Vec<_>>());
        };
        let marks = [
            '\u{300}', '\u{301}', '\u{323}', '\u{302}', '\u{31b}', '\u{345}', '\u{5b0}', '\u{1161}',
            '\u{11a8}', 'x',
        ];
        for c in ('\u{80}'..=char::MAX).filter(|c| compose(*c, '\u{301}').is_some() || *c < '\u{3000}') {
            check(c.to_string());
            check(c.nfd().collect());
            for first in marks {
                check([c, first].iter().collect());
                check(['a', first, c].iter().collect());
            }
        }
        // Random sequences of a few marks and letters.
        let mut seed = 1u32;
        for _ in 0..50_000 {
            let text = (0..8).map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let letters = ['a', 'o', 'đ', 'ê', '가', '\u{1112}'];
                let index = (seed >> 16) as usize;
                if index.is_multiple_of(3) {
                    letters[index / 3 % letters.len()]
                } else {
                    marks[index / 3 % marks.len()]
                }
            });
            check(text.collect());
        }
        for c in ('\u{ac00}'..='\u{d7a3}')
            .step_by(97)
            .chain('\u{f900}'..='\u{faff}')
            .chain('\u{1d15e}'..='\u{1d1c8}')
        {
            check(c.to_string());
            check(c.nfd().collect());
        }
    }

    #[test]
    fn a_user_id_has_1_to_64_characters_without_control_characters() {
        assert!(is_user_id("Ană ✓") && is_user_id(&"ü".repeat(64)));
        assert!(!is_user_id("") && !is_user_id("a\0") && !is_user_id(&"ü".repeat(65)));
    }

    #[test]
    fn a_name_has_a_visible_character_and_loses_deceptive_ones() {
        let named = |raw: &str| name(raw.to_owned(), 10);
        for blank in [
            "",
            " ",
            "\u{a0}\u{3000}",
            "\u{200b}",
            "\u{3164}",
            "\u{2800}",
            "\u{202e}",
            "\u{301}\u{302}",
            "\u{feff}",
            "\u{ad}",
            "\u{115f}\u{1160}",
            "\u{ffa0}",
            "\u{200d}\u{200c}",
            "\u{fe0f}",
            "\u{20dd}",
            "\u{180e}",
            "\u{e0041}",
            "\u{2066}\u{2069}",
            "a\u{0}",
            "a\n",
            "\u{85}a",
        ] {
            assert_eq!(named(blank), None, "{:?}", blank.escape_unicode().to_string());
        }
        assert_eq!(named(" An\u{202e}a\u{200b} "), Some("Ana".to_owned()));
        assert_eq!(named("a\u{0301}"), Some("á".to_owned()));
        for kept in ["Ana", "می\u{200c}خواهم", "👩\u{200d}🎓", "ก็", "한", "❤\u{fe0f}", "-", "a b"]
        {
            assert_eq!(named(kept).as_deref(), Some(kept));
        }
        assert_eq!((named("đđđđđđđđđđ").is_some(), named("đđđđđđđđđđđ")), (true, None));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!((cut("đường", 2), cut("ab", 2), cut("", 1)), ("đư", "ab", ""));
    }
}
