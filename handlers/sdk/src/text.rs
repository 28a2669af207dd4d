//! Text from people: NFC, its length in Unicode scalar values, and what it may not contain.

use unicode_normalization::char::{
    canonical_combining_class, compose, decompose_canonical, is_combining_mark,
};

/// Normalisation form C, so that the same text typed on two keyboards is the same text.
///
/// The crate's own iterator would bring the tables of the compatibility forms into every handler: 80 KB for nothing.
pub fn nfc(text: String) -> String {
    // Nothing below U+0300 (the first combining mark) ever changes.
    if text.chars().all(|c| c < '\u{300}') {
        return text;
    }
    let mut chars = Vec::with_capacity(text.len());
    for c in text.chars() {
        decompose_canonical(c, |part| chars.push((canonical_combining_class(part), part)));
    }
    // Marks between two starters are in the order of their class, those of one class in the order they came.
    for marks in chars.chunk_by_mut(|(_, _), (class, _)| *class != 0) {
        marks.sort_by_key(|(class, _)| *class);
    }
    recompose(chars)
}

/// Each mark joins the starter before it, unless another that blocks it stands between.
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

/// Unicode scalar values.
pub fn length(text: &str) -> usize {
    text.chars().count()
}

pub fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// User ids that stand for something else in a path: `/users/me` is the caller, and clients take `.` and `..` out of a path
/// before they send it. The host refuses tokens of such a user (`ids.rs`).
const RESERVED_USER_IDS: [&str; 3] = ["me", ".", ".."];

/// A user id is a token's `sub`, verbatim: 1 to 64 characters, none of them a control character.
pub fn is_user_id(text: &str) -> bool {
    (1..=64).contains(&length(text)) && !has_control(text) && !RESERVED_USER_IDS.contains(&text)
}

/// A name that people see, of a person, a conversation or a class: in NFC, 1 to `chars_max` characters, without control
/// characters. Characters that only deceive are removed first (`deceives`), spaces at both ends too. None for a name in
/// which nothing can be seen.
pub fn name(raw: String, chars_max: usize) -> Option<String> {
    if has_control(&raw) {
        return None;
    }
    let kept: String = raw.chars().filter(|c| !deceives(*c)).collect();
    let name = nfc(kept.trim().to_owned());
    (name.chars().any(is_visible) && length(&name) <= chars_max).then_some(name)
}

pub const DISPLAY_NAME_CHARS_MAX: usize = 100;

/// What a token calls its user, cut at the length of a display name; None where nothing of it can be seen.
pub fn name_in_token(name: Option<&str>) -> Option<String> {
    self::name(cut(name?, DISPLAY_NAME_CHARS_MAX).to_owned(), DISPLAY_NAME_CHARS_MAX)
}

/// Characters that show nothing and change how others are shown or compared: they turn the direction of the text, or make
/// two names that look the same differ. The joiners U+200C and U+200D stay, because Persian, Hindi and emoji need them.
fn deceives(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}')
}

/// Whether a character alone puts something on the screen: no space, no joiner, no mark without its letter, no filler.
fn is_visible(c: char) -> bool {
    let blank = matches!(c,
        '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{200c}' | '\u{200d}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}');
    !(blank || c.is_whitespace() || c.is_control() || is_combining_mark(c))
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
    fn our_nfc_is_the_crates() {
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
        // Every order of a few marks on a few letters.
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
    fn user_ids_are_kept_as_they_are_within_bounds() {
        assert!(is_user_id("Ană ✓") && is_user_id(&"ü".repeat(64)));
        assert!(!is_user_id("") && !is_user_id("a\0") && !is_user_id(&"ü".repeat(65)));
    }

    #[test]
    fn a_name_shows_something_and_does_not_deceive() {
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
    fn cuts_between_characters() {
        assert_eq!((cut("đường", 2), cut("ab", 2), cut("", 1)), ("đư", "ab", ""));
    }
}
