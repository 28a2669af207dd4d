//! The form of answers for people: aligned columns, ages and sizes in words.

use std::borrow::Cow;
use std::fmt::Write;

/// Columns as wide as their widest cell; no space at the ends of lines.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    // Notes, names and reasons are foreign texts: none may look like another row.
    let rows: Vec<Vec<Cow<'_, str>>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| switchboard_telemetry::in_one_line(cell)).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        many => format!("{} {noun}s", thousands(many)),
    }
}

/// `12,345`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `850 ms`, `4.2 s`, `3 min`, `2 h 5 min`, `4 d 3 h`.
pub(crate) fn duration(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match () {
        () if ms < 1000 => format!("{ms} ms"),
        () if seconds < 60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        () if minutes < 60 => format!("{minutes} min"),
        () if hours < 24 => format!("{hours} h {} min", minutes % 60),
        () => format!("{} d {} h", hours / 24, hours % 24),
    }
}

pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// An RFC 3339 time for people: to the second.
pub(crate) fn time(rfc3339: &str) -> String {
    rfc3339.get(..19).map_or_else(|| rfc3339.to_owned(), |time| time.replace('T', " "))
}

/// Escapes a text for a path or a query.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_end_clean() {
        let rows =
            [vec!["a".into(), "bé".into(), String::new()], vec!["long".into(), "b".into(), "c".into()]];
        assert_eq!(table(&rows), "a     bé\nlong  b   c");
        assert_eq!(table(&[]), "");
        assert_eq!(table(&[vec!["a\nb\u{202e}".into(), "c".into()]]), "a\\nb\\u{202e}  c");
    }

    #[test]
    fn numbers_read_as_people_say_them() {
        assert_eq!((count(1, "node"), count(12_345, "socket")), ("1 node".into(), "12,345 sockets".into()));
        for (ms, text) in [
            (850, "850 ms"),
            (4_250, "4.2 s"),
            (180_000, "3 min"),
            (7_500_000, "2 h 5 min"),
            (356_400_000, "4 d 3 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!((bytes(1023), bytes(83_149)), ("1023 B".into(), "81.2 KiB".into()));
        assert_eq!(time("2026-11-20T06:12:01.123Z"), "2026-11-20 06:12:01");
        assert_eq!(escape("a b/ü"), "a%20b%2F%C3%BC");
    }
}
