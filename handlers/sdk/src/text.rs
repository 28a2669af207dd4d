//! Text from people: NFC, its length in Unicode scalar values, and what it may not contain.

use unicode_normalization::char::{canonical_combining_class, compose, decompose_canonical};

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
    fn cuts_between_characters() {
        assert_eq!((cut("đường", 2), cut("ab", 2), cut("", 1)), ("đư", "ab", ""));
    }
}
