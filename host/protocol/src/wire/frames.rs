//! The JSON of a WebSocket text message: `{"type", "id"?, "payload"}`. Parses the envelope only: the handlers
//! parse the payload.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::wire::problem::{self, Code};
use crate::wire::websocket::TextWriter;
use switchboard_contract::types::Problem;
use switchboard_core::limits::{FRAME_ID_CHARS_MAX, FRAME_TYPE_BYTES_MAX, JSON_DEPTH_MAX};

/// A client's frame. The payload is a JSON object with at most [`JSON_DEPTH_MAX`] levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub frame_type: String,
    pub id: Option<FrameId>,
    /// JSON text; `{}` if the client sent none.
    pub payload: String,
}

/// The JSON text of a client's `id`, returned as it came: a string of at most [`FRAME_ID_CHARS_MAX`]
/// characters, or an integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameId(Box<str>);

/// The reason why a text is not a valid frame.
#[derive(Clone, Debug, PartialEq)]
pub enum NotAFrame {
    /// The text is not a JSON object with a `type`. Too many of these in a minute end the connection.
    Malformed { id: Option<FrameId>, problem: Problem },
    /// The text is a frame with another mistake.
    Invalid { id: Option<FrameId>, problem: Problem },
}

impl Frame {
    pub fn parse(text: &str) -> Result<Self, NotAFrame> {
        let malformed =
            |detail: String| NotAFrame::Malformed { id: None, problem: Code::Malformed.problem(detail) };
        if is_deeper_than(text, JSON_DEPTH_MAX) {
            return Err(malformed(format!("the frame is nested deeper than {JSON_DEPTH_MAX} levels")));
        }
        // serde would also accept an array of the three.
        if !text.trim_start().starts_with('{') {
            return Err(malformed("a frame is a JSON object with a `type`".to_owned()));
        }
        let envelope: Envelope<'_> = serde_json::from_str(text)
            .map_err(|error| malformed(format!("a frame is a JSON object with a `type`: {error}")))?;
        let invalid = |id: Option<FrameId>, code: Code, field: &str, rule: String| {
            Err(NotAFrame::Invalid { id, problem: code.problem(rule).field(field) })
        };
        let id = envelope.id.map(|raw| FrameId::parse(raw.get()));
        let Some(frame_type) =
            envelope.frame_type.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
        else {
            let problem = Code::Malformed.problem("`type` is a text").field("type");
            return Err(NotAFrame::Malformed { id: id.flatten(), problem });
        };
        let id = match id {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => {
                let rule =
                    format!("`id` is a string of at most {FRAME_ID_CHARS_MAX} characters, or an integer");
                return invalid(None, Code::Invalid, "id", rule);
            }
        };
        if frame_type.len() > FRAME_TYPE_BYTES_MAX || frame_type.contains(char::is_control) {
            return invalid(id, Code::Invalid, "type", "no frame has such a `type`".to_owned());
        }
        let payload = match envelope.payload.map(RawValue::get) {
            None | Some("null") => "{}",
            Some(object) if object.starts_with('{') => object,
            Some(_) => {
                return invalid(id, Code::Invalid, "payload", "`payload` is a JSON object".to_owned());
            }
        };
        Ok(Self { frame_type, id, payload: payload.to_owned() })
    }
}

impl FrameId {
    fn parse(json: &str) -> Option<Self> {
        let well_formed = if json.starts_with('"') {
            serde_json::from_str::<Cow<'_, str>>(json)
                .is_ok_and(|id| id.chars().count() <= FRAME_ID_CHARS_MAX)
        } else {
            let digits = json.strip_prefix('-').unwrap_or(json);
            json.len() <= FRAME_ID_CHARS_MAX && digits.bytes().all(|digit| digit.is_ascii_digit())
        };
        well_formed.then(|| Self(json.into()))
    }

    /// The id without the quotes of its JSON, for log lines. Escapes stay.
    pub fn text(&self) -> &str {
        self.0.trim_matches('"')
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow, default)]
    frame_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// A handler's reply to a frame, encoded for the socket. `payload` is JSON: the runtime has checked it at the
/// end of the call.
pub fn reply(frame_type: &str, id: Option<&FrameId>, payload: &str) -> Bytes {
    debug_assert!(serde_json::from_str::<&RawValue>(payload).is_ok(), "a reply is checked JSON");
    let mut frame = TextWriter::with_capacity(bytes_of(frame_type, payload));
    write(&mut frame, frame_type, id, payload);
    frame.finish()
}

/// A push.
pub fn push(frame_type: &str, payload: &impl Serialize) -> String {
    own(frame_type, None, payload)
}

/// An answer of the host itself.
pub fn own(frame_type: &str, id: Option<&FrameId>, payload: &impl Serialize) -> String {
    let payload = serde_json::to_string(payload).expect("payloads of the host are plain data");
    text(frame_type, id, &payload)
}

pub fn error(id: Option<&FrameId>, problem: &Problem) -> String {
    text("error", id, &problem::payload(problem).to_string())
}

fn text(frame_type: &str, id: Option<&FrameId>, payload: &str) -> String {
    let mut frame = String::with_capacity(bytes_of(frame_type, payload));
    write(&mut frame, frame_type, id, payload);
    frame
}

/// The size of a frame with an `id` of up to 64 bytes.
fn bytes_of(frame_type: &str, payload: &str) -> usize {
    frame_type.len() + payload.len() + 112
}

fn write(frame: &mut impl Write, frame_type: &str, id: Option<&FrameId>, payload: &str) {
    // Writing into memory cannot fail.
    let _ = write!(frame, r#"{{"type":{}"#, serde_json::Value::from(frame_type));
    if let Some(FrameId(id)) = id {
        let _ = write!(frame, r#","id":{id}"#);
    }
    let _ = write!(frame, r#","payload":{payload}}}"#);
}

/// Whether `json` is nested deeper than `levels`. serde_json skips unused members without counting, so
/// otherwise only the handlers would notice.
pub fn is_deeper_than(json: &str, levels: usize) -> bool {
    let (mut depth, mut within_string, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        if within_string {
            (within_string, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        match byte {
            b'"' => within_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::websocket::encode_text;

    fn parsed(text: &str) -> (String, Option<String>, String) {
        let frame = Frame::parse(text).unwrap();
        (frame.frame_type, frame.id.map(|FrameId(id)| id.into()), frame.payload)
    }

    fn problem(text: &str) -> (bool, Problem) {
        match Frame::parse(text).unwrap_err() {
            NotAFrame::Malformed { problem, .. } => (true, problem),
            NotAFrame::Invalid { problem, .. } => (false, problem),
        }
    }

    #[test]
    fn an_envelope_is_taken_apart_and_its_payload_left_alone() {
        let text =
            r#" {"payload": {"a": [1, {"type": "x"}], "a": 2} ,"extra":[], "type":"p\u0069ng", "id":"7"} "#;
        let payload = r#"{"a": [1, {"type": "x"}], "a": 2}"#;
        assert_eq!(parsed(text), ("ping".into(), Some("\"7\"".into()), payload.into()));
        assert_eq!(parsed(r#"{"type":"ping"}"#), ("ping".into(), None, "{}".into()));
        assert_eq!(parsed(r#"{"type":"ping","id":null,"payload":null}"#), ("ping".into(), None, "{}".into()));
    }

    #[test]
    fn an_id_comes_back_as_it_was_written() {
        let longest = format!("\"{}\"", "ü".repeat(FRAME_ID_CHARS_MAX));
        for id in [r#""a\"\u00e9""#, "0", "-12", "123456789012345678901234567890", &longest] {
            let frame = Frame::parse(&format!(r#"{{"type":"ping","id":{id}}}"#)).unwrap();
            let pong = reply("pong", frame.id.as_ref(), "{}");
            assert_eq!(pong, encode_text(&format!(r#"{{"type":"pong","id":{id},"payload":{{}}}}"#)));
        }
        let too_long = format!("\"{}\"", "ü".repeat(FRAME_ID_CHARS_MAX + 1));
        for id in ["1.5", "1e3", "true", "{}", "[1]", &too_long, &"9".repeat(FRAME_ID_CHARS_MAX + 1)] {
            let (counts, problem) = problem(&format!(r#"{{"type":"ping","id":{id}}}"#));
            assert_eq!((counts, problem.field.as_deref()), (false, Some("id")), "{id}");
        }
    }

    #[test]
    fn what_is_no_object_with_a_type_counts_as_malformed() {
        for text in [
            "",
            "hello",
            "null",
            "[]",
            "3",
            "\"ping\"",
            "{}",
            r#"{"type":3}"#,
            r#"{"type":null}"#,
            r#"{"type":"#,
            r#"{"type":"ping"} x"#,
            "{\"type\":\"pi\0ng\"}",
            r#"{"type":"\ud800"}"#,
            r#"["type","ping"]"#,
            r#"{"type":"a","type":"b"}"#,
        ] {
            let (counts, problem) = problem(text);
            assert_eq!((counts, problem.code.as_str()), (true, "malformed"), "{text}");
        }
    }

    #[test]
    fn without_a_type_it_is_still_answered_under_its_id() {
        for text in
            [r#"{"id":5}"#, r#"{"id":5,"type":null}"#, r#"{"id":5,"type":7}"#, r#"{"id":5,"type":"\ud800"}"#]
        {
            let Err(NotAFrame::Malformed { id, problem }) = Frame::parse(text) else { panic!("{text}") };
            assert_eq!((id, problem.field.as_deref()), (FrameId::parse("5"), Some("type")), "{text}");
        }
    }

    #[test]
    fn a_frame_with_a_bad_part_names_it_and_keeps_its_id() {
        for (text, field) in [
            (r#"{"type":"read","id":5,"payload":[]}"#.to_owned(), "payload"),
            (r#"{"type":"read","id":5,"payload":"{}"}"#.to_owned(), "payload"),
            (format!(r#"{{"type":"{}","id":5}}"#, "x".repeat(FRAME_TYPE_BYTES_MAX + 1)), "type"),
            (r#"{"type":"re\u0000ad","id":5}"#.to_owned(), "type"),
        ] {
            let Err(NotAFrame::Invalid { id, problem }) = Frame::parse(&text) else { panic!("{text}") };
            assert_eq!((id, problem.field.as_deref()), (FrameId::parse("5"), Some(field)));
        }
    }

    #[test]
    fn nesting_is_bounded_whatever_the_strings_say() {
        let nested = |levels: usize, fill: &str| {
            format!(r#"{{"type":"x","payload":{{"a":{}{fill}{}}}}}"#, "[".repeat(levels), "]".repeat(levels))
        };
        let brackets = format!("\"{}\\\"{}\"", "[".repeat(500), "{".repeat(500));
        assert!(Frame::parse(&nested(JSON_DEPTH_MAX - 2, &brackets)).is_ok());
        assert!(problem(&nested(JSON_DEPTH_MAX - 1, "1")).0);
        assert!(problem(&"[".repeat(60_000)).0);
    }

    #[test]
    fn a_reply_is_one_frame_of_any_size() {
        assert_eq!(reply("a\"b", None, "{}"), encode_text(r#"{"type":"a\"b","payload":{}}"#));
        for bytes in [0, 100, 125, 126, 65_500, 65_536, 70_000] {
            let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(bytes));
            let text = format!(r#"{{"type":"t","payload":{payload}}}"#);
            assert_eq!(reply("t", None, &payload), encode_text(&text), "{bytes}");
        }
    }

    #[test]
    fn an_error_says_whether_to_try_again() {
        let problem = Code::RateLimited.problem("slow down").retry_after(Duration::from_millis(250));
        let frame: serde_json::Value =
            serde_json::from_str(&error(FrameId::parse("1").as_ref(), &problem)).unwrap();
        assert_eq!(frame["type"], "error");
        assert_eq!(frame["id"], 1);
        assert_eq!(frame["payload"]["code"], "rate_limited");
        assert_eq!(frame["payload"]["retryable"], true);
        assert_eq!(frame["payload"]["retry_after_ms"], 250);
    }
}
