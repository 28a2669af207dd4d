//! A recording as text: one block per host call, one line per member. So a diff of two recordings is small,
//! and a recording reads in the order of the calls.
//!
//! ```text
//! trace 1 of switchboard:host@1.0.0
//!   handler: "send-message"
//!   …
//!
//! scenario
//!   about: "what this test protects"
//!
//! input
//!   …
//!
//! postgres.query
//!   params: ["…"]
//!   statement: |
//!     select id
//!     from messages
//!   => {"Ok": …}
//!   ~ 312
//!
//! returned
//!   => …
//! ```
//!
//! A member's value is JSON, with raw text between backquotes (`raw`). It is on the line of its name, or on
//! the indented lines that follow if it is long. Text of several lines follows `|`. `=>` is the answer, `~`
//! the duration in microseconds. A host call that begins with `+ ` may come before or after the previous one.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{CONTRACT, Exchange, Outcome, Recording, Scenario, raw};
use switchboard_core::ids::Digest;
use switchboard_core::{Blame, Blamed};

const FIRST_LINE: &str = "trace 1 of ";

/// The text is not a recording, or one of another version.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{}{reason}", line_prefix(*line))]
pub struct Error {
    /// Counted from 1. 0 when the recording ends too early.
    pub line: usize,
    pub reason: String,
}

/// The text comes from a file that the operator named.
impl Blamed for Error {
    fn blame(&self) -> Blame {
        Blame::Operator
    }
}

fn line_prefix(line: usize) -> String {
    if line == 0 { String::new() } else { format!("line {line}: ") }
}

pub(super) fn write(recording: &Recording) -> String {
    let mut out = format!("{FIRST_LINE}{CONTRACT}\n");
    member(&mut out, "handler", &json!(recording.handler));
    if let Some(release) = recording.release {
        member(&mut out, "release", &json!(release));
    }
    member(&mut out, "call", &json!(recording.call));
    member(&mut out, "trigger", &json!(recording.trigger));
    if recording.left_out > 0 {
        member(&mut out, "left_out", &json!(recording.left_out));
    }
    if let Some(scenario) = &recording.scenario {
        out.push_str("\nscenario\n");
        members(&mut out, &json!(scenario));
    }
    out.push_str("\ninput\n");
    members(&mut out, &recording.input);
    for exchange in &recording.exchanges {
        let _ = writeln!(out, "\n{}{}", if exchange.unordered { "+ " } else { "" }, exchange.function);
        members(&mut out, &exchange.args);
        if let Some(answer) = &exchange.answer {
            member(&mut out, "=>", answer);
        }
        if exchange.micros > 0 {
            let _ = writeln!(out, "  ~ {}", exchange.micros);
        }
    }
    match &recording.outcome {
        Outcome::Returned(value) => {
            out.push_str("\nreturned\n");
            member(&mut out, "=>", value);
        }
        Outcome::Failed { kind, detail } => {
            out.push_str("\nfailed\n");
            member(&mut out, "kind", &json!(kind));
            member(&mut out, "detail", &json!(detail));
        }
        Outcome::Unknown => {}
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
    if let Some(lines) = block_of(value) {
        let _ = writeln!(out, "  {mark} |");
        indented(out, lines);
        return;
    }
    let text = raw::write(value);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = writeln!(out, "  {mark} {first}");
    if !rest.is_empty() {
        indented(out, rest);
    }
}

/// Returns a text of complete lines, as SQL is. A text without a newline at its end is written as a raw
/// literal.
fn block_of(value: &Value) -> Option<&str> {
    let lines = value.as_str()?.strip_suffix('\n')?;
    let plain = lines.chars().all(|c| c == '\n' || !c.is_control());
    // An empty line at the end would be read as the space between blocks.
    (plain && !lines.is_empty() && !lines.ends_with('\n')).then_some(lines)
}

fn indented(out: &mut String, lines: &str) {
    for line in lines.split('\n') {
        let _ = if line.is_empty() { writeln!(out) } else { writeln!(out, "    {line}") };
    }
}

pub(super) fn parse(text: &str) -> Result<Recording, Error> {
    let mut lines = Lines { lines: text.lines().collect(), next: 0 };
    let (line, first) = lines.title().ok_or_else(|| at(0, "the recording is empty"))?;
    let contract = first
        .strip_prefix(FIRST_LINE)
        .ok_or_else(|| at(line, "the first line is not that of a recording"))?;
    if contract != CONTRACT {
        return Err(at(line, format!("the recording is of `{contract}`, but this host uses {CONTRACT}")));
    }
    let mut head = lines.block()?.members;
    let mut text_of = |name: &str| match head.remove(name) {
        Some(Value::String(text)) => Ok(text),
        None => Err(at(line, format!("`{name}` is missing"))),
        Some(_) => Err(at(line, format!("`{name}` is not a text"))),
    };
    let (handler, trigger) = (text_of("handler")?, text_of("trigger")?);
    let call = text_of("call").unwrap_or_default();
    let release = match text_of("release") {
        Ok(hex) => Some(Digest::parse(&hex).ok_or_else(|| at(line, "`release` is not a digest"))?),
        Err(_) => None,
    };
    let left_out = head.remove("left_out").and_then(|count| count.as_u64()).unwrap_or(0);
    let left_out = u32::try_from(left_out).map_err(|_| at(line, "`left_out` is too large"))?;
    if let Some(unknown) = head.keys().next() {
        return Err(at(line, format!("the head has no `{unknown}`")));
    }

    let (mut scenario, mut input) = (None, None);
    let mut exchanges = Vec::new();
    let mut outcome = Outcome::Unknown;
    while let Some((line, title)) = lines.title() {
        if outcome != Outcome::Unknown {
            return Err(at(line, "there is text after the outcome"));
        }
        let block = lines.block()?;
        match title {
            "scenario" => {
                let read = serde_json::from_value::<Scenario>(Value::Object(block.members));
                scenario = Some(read.map_err(|error| at(line, format!("scenario: {error}")))?);
            }
            "input" => input = Some(Value::Object(block.members)),
            "returned" | "failed" => {
                outcome = ended(title, block).ok_or_else(|| at(line, "the outcome is incomplete"))?;
            }
            function => exchanges.push(exchange(function, block)),
        }
    }
    // A truncated file ends like one that waits for its recording, except that it has host calls.
    if outcome == Outcome::Unknown && (scenario.is_none() || !exchanges.is_empty()) {
        return Err(at(0, "the recording ends without an outcome"));
    }
    let input = input.ok_or_else(|| at(line, "there is no `input`"))?;
    Ok(Recording { handler, release, call, trigger, scenario, input, exchanges, left_out, outcome })
}

fn exchange(title: &str, block: Block) -> Exchange {
    let (unordered, function) = match title.strip_prefix("+ ") {
        Some(function) => (true, function),
        None => (false, title),
    };
    Exchange {
        function: function.to_owned(),
        unordered,
        args: Value::Object(block.members),
        answer: block.answer,
        micros: block.micros,
    }
}

fn ended(title: &str, mut block: Block) -> Option<Outcome> {
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
    lines: Vec<&'a str>,
    next: usize,
}

impl<'a> Lines<'a> {
    /// Returns the next line that is not blank, with its number.
    fn title(&mut self) -> Option<(usize, &'a str)> {
        while let Some(line) = self.lines.get(self.next) {
            self.next += 1;
            if !line.trim().is_empty() {
                return Some((self.next, line));
            }
        }
        None
    }

    /// Reads the indented lines that follow.
    fn block(&mut self) -> Result<Block, Error> {
        let mut block = Block::default();
        while let Some(line) = self.lines.get(self.next).and_then(|line| line.strip_prefix("  ")) {
            self.next += 1;
            let number = self.next;
            if line.trim().is_empty() {
                continue;
            }
            if let Some(micros) = line.strip_prefix("~ ") {
                block.micros = micros.parse().map_err(|_| at(number, "`~` is not a number"))?;
            } else if let Some(value) = line.strip_prefix("=> ") {
                if block.answer.replace(self.value(number, value)?).is_some() {
                    return Err(at(number, "the host call has a second answer"));
                }
            } else if let Some((name, value)) = line.split_once(": ") {
                let value = self.value(number, value)?;
                if block.members.insert(name.to_owned(), value).is_some() {
                    return Err(at(number, format!("`{name}` occurs twice")));
                }
            } else {
                return Err(at(number, "the line is neither a member nor an answer"));
            }
        }
        Ok(block)
    }

    /// Reads a value that begins on this line and continues on lines indented by four.
    fn value(&mut self, number: usize, first: &str) -> Result<Value, Error> {
        if first == "|" {
            let mut text = String::new();
            while let Some(line) = self.further() {
                text.push_str(line);
                text.push('\n');
            }
            return Ok(Value::String(text));
        }
        let mut text = first.to_owned();
        while let Some(line) = self.further() {
            text.push('\n');
            text.push_str(line);
        }
        raw::parse(&text).map_err(|reason| at(number, reason))
    }

    /// Returns the next line of a value. Blank lines belong to it when it continues after them.
    fn further(&mut self) -> Option<&'a str> {
        let line = *self.lines.get(self.next)?;
        let goes_on = match line {
            "" => self.lines[self.next..].iter().find(|line| !line.is_empty())?.starts_with("    "),
            line => line.starts_with("    "),
        };
        goes_on.then(|| {
            self.next += 1;
            line.get(4..).unwrap_or_default()
        })
    }
}

fn at(line: usize, reason: impl Into<String>) -> Error {
    Error { line, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::{Injection, keep_all};

    fn send() -> Recording {
        Recording {
            handler: "send-message".into(),
            release: Some(Digest::of(b"release")),
            call: "0198".into(),
            trigger: "frame".into(),
            scenario: None,
            input: json!({ "frame_type": "message.send", "payload": "{\"content\":\"hi\"}" }),
            exchanges: vec![
                Exchange {
                    function: "clock.now-ms".into(),
                    unordered: false,
                    args: json!({}),
                    answer: Some(json!(1_763_618_000_000_u64)),
                    micros: 1,
                },
                Exchange {
                    function: "postgres.query".into(),
                    unordered: true,
                    args: json!({ "params": ["c1"], "statement": "select id\n\nfrom messages\n" }),
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
        insta::assert_snapshot!(send().write(keep_all), @r#"
        trace 1 of switchboard:host@1.0.0
          handler: "send-message"
          release: "a4d451ec23463726f72c43d64c710968f6b602cd653b4de8adee1b556240a829"
          call: "0198"
          trigger: "frame"

        input
          frame_type: "message.send"
          payload: `{"content":"hi"}`

        clock.now-ms
          => 1763618000000
          ~ 1

        + postgres.query
          params: ["c1"]
          statement: |
            select id

            from messages

        failed
          kind: "deadline"
          detail: "after 1000 ms"
        "#);
    }

    #[test]
    fn a_scenario_waits_for_its_recording() {
        let text = "trace 1 of switchboard:host@1.0.0\n  handler: \"x\"\n  trigger: \"frame\"\n\nscenario\n  \
                    about: \"why\"\n  inject: [{\"call\": \"postgres.query\"}]\n\ninput\n  frame_type: \"x\"\n";
        let recording = Recording::parse(text).unwrap();
        assert_eq!((&recording.outcome, recording.release), (&Outcome::Unknown, None));
        let injection = &recording.scenario.as_ref().unwrap().inject[0];
        assert_eq!((injection.nth, &injection.answer, injection.done), (1, &None, false));
        assert_eq!(Recording::parse(&recording.write(keep_all)).unwrap(), recording);
        let wrong = Recording::parse(&text.replace("about", "abut")).unwrap_err();
        assert!(wrong.reason.contains("abut"), "{wrong}");
    }

    #[test]
    fn invalid_recordings_are_refused_with_the_line() {
        let good = send().write(keep_all);
        for (text, line, reason) in [
            (String::new(), 0, "empty"),
            ("trace 2 of x".to_owned(), 1, "the first line"),
            (good.replace("@1.0.0", "@2.0.0"), 1, "this host uses"),
            (good.replace("=> 17", "=> ?17"), 12, "not JSON"),
            (good.replace("~ 1", "~ soon"), 13, "not a number"),
            (good[..good.find("\nfailed").unwrap()].to_owned(), 0, "without an outcome"),
            (good.replace("input\n", "inputs\n"), 1, "no `input`"),
            (format!("{good}\nclock.now-ms\n"), 26, "after the outcome"),
            (good.replace("  call: ", "  kall: "), 1, "no `kall`"),
            (good.replace("\"}`", "\"}"), 9, "does not end"),
        ] {
            let unreadable = Recording::parse(&text).unwrap_err();
            assert!(unreadable.reason.contains(reason), "{unreadable}");
            assert_eq!(unreadable.line, line, "{unreadable}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Floats of the contract are text in a recording, because not every reader keeps others exact.
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
            "[ \\n:|=>~a`\"\\\\]{0,20}",
            vec(any::<char>(), 0..20).prop_map(String::from_iter)
        ]
    }

    fn any_members() -> impl Strategy<Value = Value> {
        btree_map("[a-z_]{1,8}", any_value(), 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    fn scenario(about: &str) -> Scenario {
        let answer = Some(json!({ "Err": about }));
        Scenario {
            about: about.to_owned(),
            settings: [(about.to_owned(), about.to_owned())].into(),
            inject: vec![Injection { call: "redis.command".into(), nth: 2, answer, done: true }],
            ..Scenario::default()
        }
    }

    fn any_recording() -> impl Strategy<Value = Recording> {
        let exchange = ("[a-z]{1,8}\\.[a-z-]{1,8}", any_members(), option::of((any_value(), any::<u64>())))
            .prop_map(|(function, args, answer)| {
                let (answer, micros) = answer.unzip();
                let unordered = args.as_object().is_some_and(|args| args.len() == 1);
                Exchange { function, unordered, args, answer, micros: micros.unwrap_or(0) }
            });
        let outcome = prop_oneof![
            any_value().prop_map(Outcome::Returned),
            (any_text(), any_text()).prop_map(|(kind, detail)| Outcome::Failed { kind, detail }),
        ];
        (any_text(), any_text(), any_members(), vec(exchange, 0..5), any::<u32>(), outcome).prop_map(
            |(handler, call, input, exchanges, left_out, outcome)| Recording {
                release: Some(Digest::of(handler.as_bytes())),
                trigger: "frame".into(),
                scenario: (!call.is_empty()).then(|| scenario(&call)),
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
        fn what_was_written_is_read_back(recording in any_recording()) {
            let text = recording.write(keep_all);
            prop_assert_eq!(Recording::parse(&text), Ok(recording), "{}", text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any_text(), at in any::<prop::sample::Index>()) {
            let mut whole = send().write(keep_all);
            let mut at = at.index(whole.len());
            while !whole.is_char_boundary(at) {
                at -= 1;
            }
            whole.insert_str(at, &text);
            let _ = Recording::parse(&whole);
            let _ = Recording::parse(&text);
        }
    }
}
