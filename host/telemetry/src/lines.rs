//! Log lines on standard error. Each event is one line, whatever text it contains: this module, the only
//! output, escapes characters that end a line, move the cursor or reorder the shown text. So no text of a
//! client, a handler or an operator can look like another line.
//!
//! In JSON lines, the fields that a handler gave to its log line become members like those of the host.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

/// Drops a line that cannot be written: the subscriber would report the failed write on standard error, which
/// has just failed, and panic.
pub(super) struct Lines {
    /// The node, which becomes the first member of every JSON line: the subscriber has no constant fields,
    /// and writes each line in one piece.
    field: Option<String>,
    /// Whether the subscriber colours the lines. It escapes the escape sequences of texts itself.
    ansi: bool,
}

impl Lines {
    /// The lines are JSON objects, which begin with this member.
    pub(crate) fn json(field: String) -> Self {
        Self { field: Some(field), ansi: false }
    }

    pub(crate) fn text(ansi: bool) -> Self {
        Self { field: None, ansi }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a, io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { lines: self, to: io::stderr() }
    }
}

pub(super) struct Line<'a, W> {
    lines: &'a Lines,
    to: W,
}

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let _ = match (&self.lines.field, text.strip_prefix('{')) {
            (Some(field), Some(rest)) => {
                let rest = with_handler_fields(rest);
                let rest = escaped(&rest, |_| false, as_json);
                self.to.write_all([field.as_str(), &rest, "\n"].concat().as_bytes())
            }
            _ => {
                let colour = |c| c == '\u{1b}' && self.lines.ansi;
                self.to.write_all([&*escaped(text, colour, as_text), "\n"].concat().as_bytes())
            }
        };
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.to.flush();
        Ok(())
    }
}

/// The member of a handler's line that holds its fields, as the text of a JSON object. These bytes cannot be
/// inside of a text, because there each quotation mark has a backslash before it.
const HANDLER_FIELDS: &str = ",\"handler.fields\":";

/// Replaces the member with a handler's fields by the fields themselves. Their names have a prefix
/// (`runtime::interfaces::log_line`), so none equals a member of the host.
fn with_handler_fields(line: &str) -> Cow<'_, str> {
    let Some((before, rest)) = line.split_once(HANDLER_FIELDS) else { return Cow::Borrowed(line) };
    let mut texts = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let Some(Ok(object)) = texts.next() else { return Cow::Borrowed(line) };
    let Some(members) = object.strip_prefix('{').and_then(|object| object.strip_suffix('}')) else {
        return Cow::Borrowed(line);
    };
    Cow::Owned([before, ",", members, &rest[texts.byte_offset()..]].concat())
}

/// Escapes a foreign text for a line or a cell on a terminal.
pub fn in_one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, as_text)
}

fn escaped(text: &str, keep: impl Fn(char) -> bool, write: fn(&mut String, char)) -> Cow<'_, str> {
    let escapes = |c: char| deceives(c) && !keep(c);
    let Some(first) = text.find(escapes) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if escapes(c) { write(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Whether a character ends a line, moves the cursor, is invisible, or changes the shown order of its
/// neighbours.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn as_text(out: &mut String, c: char) {
    out.extend(c.escape_default());
}

/// In a JSON text these characters occur only inside of strings.
fn as_json(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(lines: &Lines, text: &str) -> String {
        let mut taken = Vec::new();
        Line { lines, to: &mut taken }.write_all(text.as_bytes()).unwrap();
        String::from_utf8(taken).unwrap()
    }

    const FORGED: &str = "hi\n2026-11-20 ERROR x\r\0\u{1b}[2K\u{202e}\u{2028}\u{85}\u{e0041}é";

    #[test]
    fn a_text_stays_in_its_line() {
        let line = written(&Lines::text(false), &format!("INFO {FORGED}\n"));
        assert_eq!(
            line,
            "INFO hi\\n2026-11-20 ERROR x\\r\\u{0}\\u{1b}[2K\\u{202e}\\u{2028}\\u{85}\\u{e0041}é\n"
        );
        assert_eq!(
            written(&Lines::text(true), "\u{1b}[32mINFO\u{1b}[0m a\tb\n"),
            "\u{1b}[32mINFO\u{1b}[0m a\\tb\n"
        );
    }

    #[test]
    fn a_json_line_goes_out_with_its_node_and_means_the_same() {
        let lines = Lines::json("{\"node\":\"n\",".to_owned());
        let event = serde_json::json!({ "level": "INFO", "message": FORGED });
        let line = written(&lines, &format!("{event}\n"));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read, serde_json::json!({ "node": "n", "level": "INFO", "message": FORGED }));
        assert!(!line.trim_end_matches('\n').contains(deceives), "{line:?}");
    }

    #[test]
    fn the_fields_of_a_handler_are_members_of_its_line() {
        let fields = serde_json::json!({ "field.why": FORGED, "field.room": ",\"handler.fields\":\"{}\"" });
        let line = |message: &str| {
            let (message, text) = (serde_json::json!(message), serde_json::json!(fields.to_string()));
            let lines = Lines::json("{\"node\":\"n\",".to_owned());
            let begin = "{\"level\":\"WARN\",\"message\":";
            let line = format!("{begin}{message}{HANDLER_FIELDS}{text},\"target\":\"handler\"}}\n");
            serde_json::from_str::<serde_json::Value>(&written(&lines, &line)).unwrap()
        };
        for message in ["plain", ",\"handler.fields\":\"{\\\"node\\\":1}\""] {
            let line = line(message);
            assert_eq!(line["message"], message);
            assert_eq!(line["target"], "handler");
            assert_eq!(line["node"], "n");
            assert_eq!(line["field.why"], fields["field.why"]);
            assert_eq!(line["field.room"], fields["field.room"]);
            assert_eq!(line.as_object().unwrap().len(), 6);
        }
    }

    #[test]
    fn a_line_that_nobody_reads_is_dropped() {
        let (reader, to) = io::pipe().unwrap();
        drop(reader);
        let mut line = Line { lines: &Lines::text(false), to };
        line.write_all(b"nobody reads this\n").unwrap();
        line.flush().unwrap();
    }
}
