//! Hides times in texts, because a service writes a new one at each call.

use serde_json::Value;

use super::{Outcome, Recording};

/// Replaces every RFC 3339 time in UTC with `T`.
pub fn without_times(recording: &Recording) -> Recording {
    let mut recording = recording.clone();
    blank(&mut recording.input);
    for exchange in &mut recording.exchanges {
        blank(&mut exchange.args);
        exchange.answer.iter_mut().for_each(blank);
    }
    if let Outcome::Returned(value) = &mut recording.outcome {
        blank(value);
    }
    recording
}

fn blank(value: &mut Value) {
    match value {
        Value::String(text) => *text = blanked(text),
        Value::Array(elements) => elements.iter_mut().for_each(blank),
        Value::Object(members) => members.values_mut().for_each(blank),
        _ => {}
    }
}

fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = time(rest).unwrap_or(0);
        if length > 0 {
            out.push('T');
        }
        // If no time begins at these digits, none begins within them.
        let skipped = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if length == 0 {
            out.push_str(&rest[..skipped]);
        }
        rest = &rest[if length > 0 { length } else { skipped }..];
    }
    out.push_str(rest);
    out
}

/// The length of the time that the text begins with: `2026-11-20T12:00:00.000Z`.
fn time(text: &str) -> Option<usize> {
    const PATTERN: &[u8] = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let fits = bytes.len() > PATTERN.len()
        && bytes.iter().zip(PATTERN).all(|(byte, pattern)| match pattern {
            b'0' => byte.is_ascii_digit(),
            pattern => byte == pattern,
        });
    if !fits {
        return None;
    }
    let mut end = PATTERN.len();
    if bytes[end] == b'.' {
        end += 1 + bytes[end + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    }
    (bytes.get(end) == Some(&b'Z')).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_nothing_else() {
        for (text, expected) in [
            (r#"{"at":"2026-11-20T12:00:00.000Z","n":12}"#, r#"{"at":"T","n":12}"#),
            ("2026-11-20T12:00:00Z 2026-11-20", "T 2026-11-20"),
            ("019aa007-76bb-7fff", "019aa007-76bb-7fff"),
            ("2026-11-20T12:00:00+01:00", "2026-11-20T12:00:00+01:00"),
            ("ünö 7", "ünö 7"),
        ] {
            assert_eq!(blanked(text), expected);
        }
    }
}
