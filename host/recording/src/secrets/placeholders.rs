//! Placeholders in a text, and how a text that only looks like one is escaped. Anybody can type
//! `[secret TOKEN]`. A replay of the call would insert the secret there, and a shadow would work with it. So
//! a recording has `[literal secret TOKEN]` instead, and a replay makes the text as it was. A text that looks
//! escaped is escaped once more, so that no text is lost.

use switchboard_core::manifest::{PLACEHOLDER_PREFIX, SECRET_PLACEHOLDER_PREFIX};

/// It stands behind the bracket of an escaped text.
pub(super) const ESCAPE: &str = "literal ";

const PREFIXES: [&str; 2] = [PLACEHOLDER_PREFIX, SECRET_PLACEHOLDER_PREFIX];

/// The length of the placeholder with which the text begins. None: it begins otherwise, or the placeholder
/// does not end within `bytes_max` bytes.
pub(super) fn length(text: &str, bytes_max: usize) -> Option<usize> {
    if !PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
        return None;
    }
    let bytes = text.as_bytes();
    let end = bytes[..bytes.len().min(bytes_max)].iter().position(|&byte| byte == b']')?;
    Some(end + 1)
}

/// Whether something in the text looks like a placeholder, or like an escaped one.
pub(super) fn needs_escape(text: &str) -> bool {
    text.match_indices('[').any(|(begin, _)| looks_like_one(&text[begin + 1..]))
}

/// Appends the text, and escapes everything in it that looks like a placeholder, or like an escaped one.
pub(super) fn push_escaped(to: &mut String, text: &str) {
    let mut copied = 0;
    for (begin, _) in text.match_indices('[') {
        let behind = begin + 1;
        if looks_like_one(&text[behind..]) {
            to.push_str(&text[copied..behind]);
            to.push_str(ESCAPE);
            copied = behind;
        }
    }
    to.push_str(&text[copied..]);
}

/// Whether `push_escaped` has escaped a text. `behind` is what stands behind its bracket.
pub(super) fn is_escaped(behind: &str) -> bool {
    behind.starts_with(ESCAPE) && looks_like_one(behind)
}

fn looks_like_one(mut behind: &str) -> bool {
    while let Some(rest) = behind.strip_prefix(ESCAPE) {
        behind = rest;
    }
    PREFIXES.iter().any(|prefix| behind.starts_with(&prefix[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut to = String::new();
        push_escaped(&mut to, text);
        assert_eq!(needs_escape(text), to != text, "{text}");
        to
    }

    #[test]
    fn what_looks_like_a_placeholder_is_escaped() {
        for (text, expected) in [
            ("[secret TOKEN]", "[literal secret TOKEN]"),
            ("a [setting x", "a [literal setting x"),
            ("[[secret A] [setting b]]", "[[literal secret A] [literal setting b]]"),
            ("[literal secret A]", "[literal literal secret A]"),
            ("[secret", "[secret"),
            ("[literal A] [Secret A] secret A]", "[literal A] [Secret A] secret A]"),
            ("ü[secret ü", "ü[literal secret ü"),
        ] {
            assert_eq!(escaped(text), expected);
        }
        assert!(is_escaped("literal setting x") && is_escaped("literal literal secret x"));
        assert!(!is_escaped("literal x") && !is_escaped("secret x"));
    }

    #[test]
    fn a_placeholder_ends_at_its_bracket_within_the_bound() {
        assert_eq!(length("[secret A] more]", 64), Some(10));
        assert_eq!(length("[secret A]", 10), Some(10));
        assert_eq!(length("[secret A]", 9), None);
        assert_eq!((length("[secret A", 64), length("secret A]", 64), length("", 64)), (None, None, None));
    }
}
