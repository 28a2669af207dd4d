//! Values in a readable form: JSON with one more kind of literal. Text that JSON would fill with backslashes
//! is written between backquotes unchanged, with its line breaks. A value that fits on its line stays on it.

use std::fmt::Write as _;

use serde_json::Value;

/// A longer value is written on several lines.
const LINE_CHARS: usize = 110;

/// The text begins at the end of a line. Its other lines have no indentation: the writer of blocks adds it.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    spread(value, 0, &mut out);
    out
}

/// `None` if the value contains line breaks.
fn on_one_line(value: &Value) -> Option<String> {
    fn go(value: &Value, out: &mut String) -> Option<()> {
        match value {
            Value::String(text) => {
                if is_raw(text) && text.contains('\n') {
                    return None;
                }
                out.push_str(&literal(text));
            }
            Value::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    go(element, out)?;
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (at, (name, member)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    let _ = write!(out, "{}: ", quoted(name));
                    go(member, out)?;
                }
                out.push('}');
            }
            other => {
                let _ = write!(out, "{other}");
            }
        }
        Some(())
    }
    let mut out = String::new();
    go(value, &mut out).map(|()| out)
}

fn spread(value: &Value, depth: usize, out: &mut String) {
    let room = LINE_CHARS.saturating_sub(depth * 2);
    if let Some(line) = on_one_line(value)
        && (line.chars().count() <= room || !(value.is_array() || value.is_object()))
    {
        out.push_str(&line);
        return;
    }
    let margin = "  ".repeat(depth + 1);
    let last = |at: usize, of: usize| if at + 1 < of { "," } else { "" };
    match value {
        Value::Array(elements) => {
            out.push_str("[\n");
            for (at, element) in elements.iter().enumerate() {
                out.push_str(&margin);
                spread(element, depth + 1, out);
                let _ = writeln!(out, "{}", last(at, elements.len()));
            }
            let _ = write!(out, "{}]", "  ".repeat(depth));
        }
        Value::Object(members) => {
            out.push_str("{\n");
            for (at, (name, member)) in members.iter().enumerate() {
                let _ = write!(out, "{margin}{}: ", quoted(name));
                spread(member, depth + 1, out);
                let _ = writeln!(out, "{}", last(at, members.len()));
            }
            let _ = write!(out, "{}}}", "  ".repeat(depth));
        }
        Value::String(text) => out.push_str(&literal(text)),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn literal(text: &str) -> String {
    if is_raw(text) { format!("`{text}`") } else { quoted(text) }
}

/// True for text that would be full of backslashes and that can be written unchanged.
fn is_raw(text: &str) -> bool {
    text.contains(['"', '\\', '\n']) && text.chars().all(|c| c == '\n' || (c != '`' && !c.is_control()))
}

pub(super) fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(&json(text)?).map_err(|error| format!("the value is not JSON: {error}"))
}

/// The text with every raw literal replaced by a JSON literal.
fn json(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', '`']) {
        out.push_str(&rest[..at]);
        let quote = &rest[at..=at];
        let inside = &rest[at + 1..];
        let end = if quote == "`" { inside.find('`') } else { end_of_string(inside) };
        let end = end.ok_or_else(|| format!("a text that begins with {quote} does not end"))?;
        if quote == "`" {
            out.push_str(&quoted(&inside[..end]));
        } else {
            let _ = write!(out, "\"{}\"", &inside[..end]);
        }
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_with_quotes_and_lines_stands_as_it_is() {
        let value =
            json!({ "plain": "a", "json": "{\"a\":\"\\n\"}", "sql": ["select 1\nfrom x", "tick ` \"q\""] });
        let text = write(&value);
        assert_eq!(
            text,
            "{\n  \"json\": `{\"a\":\"\\n\"}`,\n  \"plain\": \"a\",\n  \"sql\": [\n    `select 1\nfrom x`,\n    \
             \"tick ` \\\"q\\\"\"\n  ]\n}"
        );
        assert_eq!(parse(&text).unwrap(), value);
    }

    #[test]
    fn an_unterminated_value_is_an_error() {
        for open in ["`", "[\"a", "{\"a\\\"}", "\"\\"] {
            assert!(parse(open).unwrap_err().contains("does not end"), "{open}");
        }
        assert!(parse("[1,]").unwrap_err().contains("not JSON"));
        assert!(parse("`a` `b`").is_err());
    }
}
