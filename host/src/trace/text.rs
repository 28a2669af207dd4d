//! A trace as text: one block a host call, one line a member, so that two traces diff well and one reads like a
//! conversation.
//!
//! ```text
//! trace 1 of switchboard:host@1.0.0
//!   handler: "send-message"
//!   …
//!
//! postgres.query
//!   params: ["…"]
//!   statement: |
//!     select id
//!     from messages
//!   => {"Ok": …}
//!   ~ 312
//! ```
//!
//! A member's value is JSON: on the line of its name, or, when that gets long, on the indented lines that follow. Text of
//! several lines follows `|`. `=>` is the answer, `~` the microseconds it took.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value, json};

use super::{CONTRACT, Exchange, Outcome, Trace};
use crate::ids::Digest;

const FIRST_LINE: &str = "trace 1 of ";
/// A longer value is spread over lines.
const LINE_CHARS: usize = 100;

/// Not a trace, or one of another version.
#[derive(Debug, PartialEq)]
pub struct Unreadable {
    /// Counted from 1; 0 when the trace ends too early.
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace, line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Unreadable {}

pub(super) fn write(trace: &Trace) -> String {
    let mut out = format!("{FIRST_LINE}{CONTRACT}\n");
    member(&mut out, "handler", &json!(trace.handler));
    member(&mut out, "release", &json!(trace.release));
    member(&mut out, "call", &json!(trace.call));
    member(&mut out, "trigger", &json!(trace.trigger));
    if trace.left_out > 0 {
        member(&mut out, "left_out", &json!(trace.left_out));
    }
    out.push_str("\ninput\n");
    members(&mut out, &trace.input);
    for exchange in &trace.exchanges {
        let _ = writeln!(out, "\n{}", exchange.function);
        members(&mut out, &exchange.args);
        if let Some(answer) = &exchange.answer {
            member(&mut out, "=>", answer);
            let _ = writeln!(out, "  ~ {}", exchange.micros);
        }
    }
    match &trace.outcome {
        Outcome::Returned(value) => {
            out.push_str("\nreturned\n");
            member(&mut out, "=>", value);
        }
        Outcome::Failed { kind, detail } => {
            out.push_str("\nfailed\n");
            member(&mut out, "kind", &json!(kind));
            member(&mut out, "detail", &json!(detail));
        }
    }
    out
}

fn members(out: &mut String, object: &Value) {
    match object {
        Value::Object(object) => object.iter().for_each(|(name, value)| member(out, name, value)),
        other => member(out, "value", other),
    }
}

fn member(out: &mut String, name: &str, value: &Value) {
    let mark = if name == "=>" { "=>".to_owned() } else { format!("{name}:") };
    if let Value::String(text) = value
        && text.contains('\n')
        && text.chars().all(|c| c == '\n' || !c.is_control())
    {
        let _ = writeln!(out, "  {mark} |");
        for line in text.split('\n') {
            let _ = writeln!(out, "    {line}");
        }
        return;
    }
    let short = value.to_string();
    if short.chars().count() <= LINE_CHARS || !(value.is_object() || value.is_array()) {
        let _ = writeln!(out, "  {mark} {short}");
    } else {
        let spread = serde_json::to_string_pretty(value).expect("JSON prints");
        let _ = writeln!(out, "  {mark} {}", spread.replace('\n', "\n    "));
    }
}

pub(super) fn parse(text: &str) -> Result<Trace, Unreadable> {
    let mut lines = Lines { lines: text.lines().enumerate().peekable() };
    let first = lines.next().ok_or_else(|| at(0, "it is empty"))?;
    let contract = first.1.strip_prefix(FIRST_LINE).ok_or_else(|| at(1, "it does not begin like a trace"))?;
    if contract != CONTRACT {
        return Err(at(1, format!("it is of `{contract}`, this host speaks {CONTRACT}")));
    }
    let mut head = lines.block()?.members;
    let mut text_of = |name: &str| match head.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(at(1, format!("`{name}` is missing"))),
    };
    let (handler, release) = (text_of("handler")?, text_of("release")?);
    let (call, trigger) = (text_of("call")?, text_of("trigger")?);
    let release = Digest::parse(&release).ok_or_else(|| at(1, "`release` is not a digest"))?;
    let left_out = head.remove("left_out").and_then(|count| count.as_u64()).unwrap_or(0);
    let left_out = u32::try_from(left_out).map_err(|_| at(1, "`left_out` is too large"))?;

    let mut input = None;
    let mut exchanges = Vec::new();
    while let Some((line, title)) = lines.next() {
        let block = lines.block()?;
        match title {
            "input" => input = Some(Value::Object(block.members)),
            "returned" | "failed" => {
                let outcome = outcome(title, block).ok_or_else(|| at(line, "the outcome is not whole"))?;
                let input = input.ok_or_else(|| at(line, "there is no `input`"))?;
                return Ok(Trace { handler, release, call, trigger, input, exchanges, left_out, outcome });
            }
            function => exchanges.push(Exchange {
                function: function.to_owned(),
                args: Value::Object(block.members),
                answer: block.answer,
                micros: block.micros,
            }),
        }
    }
    Err(at(0, "it ends without an outcome"))
}

fn outcome(title: &str, mut block: Block) -> Option<Outcome> {
    if title == "returned" {
        return block.answer.map(Outcome::Returned);
    }
    let mut text_of = |name: &str| match block.members.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    Some(Outcome::Failed { kind: text_of("kind")?, detail: text_of("detail")? })
}

#[derive(Default)]
struct Block {
    members: Map<String, Value>,
    answer: Option<Value>,
    micros: u64,
}

struct Lines<'a> {
    lines: std::iter::Peekable<std::iter::Enumerate<std::str::Lines<'a>>>,
}

impl<'a> Lines<'a> {
    /// The next line that is not blank, with its number.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        self.lines.by_ref().map(|(at, line)| (at + 1, line)).find(|(_, line)| !line.is_empty())
    }

    /// The indented lines that follow.
    fn block(&mut self) -> Result<Block, Unreadable> {
        let mut block = Block::default();
        while let Some((index, line)) = self.lines.next_if(|(_, line)| line.starts_with("  ")) {
            let number = index + 1;
            let line = &line[2..];
            if let Some(micros) = line.strip_prefix("~ ") {
                block.micros = micros.parse().map_err(|_| at(number, "`~` is not a number"))?;
            } else if let Some(value) = line.strip_prefix("=> ") {
                block.answer = Some(self.value(number, value)?);
            } else if let Some((name, value)) = line.split_once(": ") {
                let value = self.value(number, value)?;
                if block.members.insert(name.to_owned(), value).is_some() {
                    return Err(at(number, format!("`{name}` is there twice")));
                }
            } else {
                return Err(at(number, "neither a member nor an answer"));
            }
        }
        Ok(block)
    }

    /// A value that begins on this line and goes on over those indented by four.
    fn value(&mut self, number: usize, first: &str) -> Result<Value, Unreadable> {
        let rest = std::iter::from_fn(|| self.lines.next_if(|(_, line)| line.starts_with("    ")))
            .map(|(_, line)| &line[4..]);
        if first == "|" {
            return Ok(Value::String(rest.collect::<Vec<_>>().join("\n")));
        }
        let mut value = first.to_owned();
        for line in rest {
            value.push('\n');
            value.push_str(line);
        }
        serde_json::from_str(&value).map_err(|error| at(number, format!("the value is not JSON: {error}")))
    }
}

fn at(line: usize, reason: impl Into<String>) -> Unreadable {
    Unreadable { line, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::trace::redact_secrets;

    fn send() -> Trace {
        Trace {
            handler: "send-message".into(),
            release: Digest::of(b"release"),
            call: "0198".into(),
            trigger: "frame".into(),
            input: json!({ "frame_type": "message.send", "payload": "{}" }),
            exchanges: vec![
                Exchange {
                    function: "clock.now-ms".into(),
                    args: json!({}),
                    answer: Some(json!(1_763_618_000_000_u64)),
                    micros: 1,
                },
                Exchange {
                    function: "postgres.query".into(),
                    args: json!({ "params": [{ "Text": "c1" }], "statement": "select id\nfrom messages" }),
                    answer: None,
                    micros: 0,
                },
            ],
            left_out: 0,
            outcome: Outcome::Failed { kind: "deadline".into(), detail: "after 1000 ms".into() },
        }
    }

    #[test]
    fn reads_like_a_conversation() {
        insta::assert_snapshot!(send().write(redact_secrets), @r#"
        trace 1 of switchboard:host@1.0.0
          handler: "send-message"
          release: "a4d451ec23463726f72c43d64c710968f6b602cd653b4de8adee1b556240a829"
          call: "0198"
          trigger: "frame"

        input
          frame_type: "message.send"
          payload: "{}"

        clock.now-ms
          => 1763618000000
          ~ 1

        postgres.query
          params: [{"Text":"c1"}]
          statement: |
            select id
            from messages

        failed
          kind: "deadline"
          detail: "after 1000 ms"
        "#);
    }

    #[test]
    fn secrets_are_blanked_at_any_depth() {
        let mut trace = send();
        trace.input = json!({ "caller": { "Token": "abc.def" }, "list": [{ "password": 1 }] });
        let text = trace.write(redact_secrets);
        assert!(!text.contains("abc.def"), "{text}");
        assert_eq!(text.matches("[redacted]").count(), 2);
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        let good = send().write(redact_secrets);
        for (text, line, reason) in [
            (String::new(), 0, "empty"),
            ("trace 2 of x".to_owned(), 1, "does not begin"),
            (good.replace("@1.0.0", "@2.0.0"), 1, "this host speaks"),
            (good.replace("=> 17", "=> ?17"), 12, "not JSON"),
            (good.replace("~ 1", "~ soon"), 13, "not a number"),
            (good[..good.find("\nfailed").unwrap()].to_owned(), 0, "without an outcome"),
            (good.replace("input\n", "inputs\n"), 21, "no `input`"),
        ] {
            let unreadable = Trace::parse(&text).unwrap_err();
            assert!(unreadable.reason.contains(reason), "{unreadable}");
            assert_eq!(unreadable.line, line, "{unreadable}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Floats of the contract are text in a trace; others are not exact with every reader.
            any::<i16>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            any_text().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Value::from),
                btree_map(any_text(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{0,12}",
            "\\PC{0,40}",
            "[ \\n:|=>~a]{0,20}",
            vec(any::<char>(), 0..20).prop_map(String::from_iter)
        ]
    }

    fn any_members() -> impl Strategy<Value = Value> {
        btree_map("[a-z_]{1,8}", any_value(), 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    fn any_trace() -> impl Strategy<Value = Trace> {
        let exchange = ("[a-z]{1,8}\\.[a-z-]{1,8}", any_members(), option::of((any_value(), any::<u64>())))
            .prop_map(|(function, args, answer)| {
                let (answer, micros) = answer.unzip();
                Exchange { function, args, answer, micros: micros.unwrap_or(0) }
            });
        let outcome = prop_oneof![
            any_value().prop_map(Outcome::Returned),
            (any_text(), any_text()).prop_map(|(kind, detail)| Outcome::Failed { kind, detail }),
        ];
        (any_text(), any_text(), any_members(), vec(exchange, 0..5), any::<u32>(), outcome).prop_map(
            |(handler, call, input, exchanges, left_out, outcome)| Trace {
                release: Digest::of(handler.as_bytes()),
                trigger: "frame".into(),
                handler,
                call,
                input,
                exchanges,
                left_out,
                outcome,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(trace in any_trace()) {
            let text = trace.write(|_, _| ());
            prop_assert_eq!(Trace::parse(&text), Ok(trace), "{}", text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any_text(), at in any::<prop::sample::Index>()) {
            let mut whole = send().write(|_, _| ());
            let mut at = at.index(whole.len());
            while !whole.is_char_boundary(at) {
                at -= 1;
            }
            whole.insert_str(at, &text);
            let _ = Trace::parse(&whole);
            let _ = Trace::parse(&text);
        }
    }
}
