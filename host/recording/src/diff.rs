//! Where two recordings of one call differ: which host call, which argument, the expected and the actual
//! value. Values that differ in every run (ids of calls, durations, digests of releases) are ignored.

use std::fmt;

use serde_json::Value;

use super::{Exchange, Outcome, Recording};
use switchboard_core::limits;

/// Longer texts are cut around the position where they begin to differ.
const SHOWN_CHARS: usize = 160;
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub location: DiffPath,
    /// The position inside: `params[2]`, `=> Ok.cells[0]`. Empty for the whole.
    pub path: String,
    /// None: no value was expected.
    pub expected: Option<String>,
    /// None: there is no value.
    pub got: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum DiffPath {
    /// Counted from 1: in the expected recording, or in the actual one when the call was not expected.
    Call(usize, String),
    Outcome,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            DiffPath::Call(number, function) => write!(f, "call {number}, {function}")?,
            DiffPath::Outcome => f.write_str("outcome")?,
        }
        if !self.path.is_empty() {
            write!(f, ", {}", self.path)?;
        }
        match (&self.expected, &self.got) {
            (None, None) => Ok(()),
            (Some(expected), Some(got)) => {
                write!(f, "\n{}\n{}", marked('-', expected), marked('+', got))
            }
            (Some(expected), None) => write!(f, ": expected, but missing\n{}", marked('-', expected)),
            (None, Some(got)) => write!(f, ": not expected\n{}", marked('+', got)),
        }
    }
}

fn marked(mark: char, text: &str) -> String {
    text.lines().map(|line| format!("  {mark} {line}")).collect::<Vec<_>>().join("\n")
}

/// Compares two recordings. The result is empty when they are the same call with the same outcome.
pub fn differences(expected: &Recording, got: &Recording) -> Vec<Difference> {
    let mut found = Vec::new();
    let came = in_the_order_of(&expected.exchanges, &got.exchanges);
    for pair in align(&expected.exchanges, &came) {
        match pair {
            (Some(at), Some(other)) => exchange(at, &expected.exchanges[at], came[other], &mut found),
            (Some(at), None) => {
                let missing = &expected.exchanges[at];
                found.push(Difference {
                    location: DiffPath::Call(at + 1, missing.function.clone()),
                    path: String::new(),
                    expected: Some(shown(&missing.args, "")),
                    got: None,
                });
            }
            (None, Some(other)) => found.push(Difference {
                location: DiffPath::Call(other + 1, came[other].function.clone()),
                path: String::new(),
                expected: None,
                got: Some(shown(&came[other].args, "")),
            }),
            (None, None) => {}
        }
    }
    outcome(&expected.outcome, &got.outcome, &mut found);
    found
}

fn exchange(at: usize, expected: &Exchange, got: &Exchange, found: &mut Vec<Difference>) {
    let location = DiffPath::Call(at + 1, expected.function.clone());
    value(&location, "", &expected.args, &got.args, found);
    match (&expected.answer, &got.answer) {
        (Some(expected), Some(got)) => value(&location, "=> ", expected, got, found),
        (None, None) => {}
        (expected, got) => found.push(Difference {
            location,
            path: "=> ".to_owned(),
            expected: expected.as_ref().map(|answer| shown(answer, "")),
            got: got.as_ref().map(|answer| shown(answer, "")),
        }),
    }
}

fn outcome(expected: &Outcome, got: &Outcome, found: &mut Vec<Difference>) {
    match (expected, got) {
        (Outcome::Returned(expected), Outcome::Returned(got)) => {
            value(&DiffPath::Outcome, "", expected, got, found);
        }
        (Outcome::Failed { .. }, Outcome::Failed { .. }) if failure(expected) == failure(got) => {}
        (Outcome::Unknown, _) => {}
        _ => found.push(Difference {
            location: DiffPath::Outcome,
            path: String::new(),
            expected: Some(shown_outcome(expected)),
            got: Some(shown_outcome(got)),
        }),
    }
}

/// Describes an outcome without names of functions, which each build may change.
fn failure(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Returned(value) => format!("returned {}", shown(value, "")),
        Outcome::Failed { kind, detail } => {
            format!("failed: {kind}, {}", detail.split(", in ").next().unwrap_or(detail))
        }
        Outcome::Unknown => "unknown".to_owned(),
    }
}

/// Describes an outcome for a reader. A panic has its place in the source too, and its functions.
fn shown_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed { kind, detail } if detail.starts_with("panic: ") => {
            format!("failed: {kind}, {detail}")
        }
        _ => failure(outcome),
    }
}

/// Returns the actual calls, with each group that may come in any order put into the expected order.
fn in_the_order_of<'a>(expected: &[Exchange], got: &'a [Exchange]) -> Vec<&'a Exchange> {
    let mut came: Vec<&Exchange> = got.iter().collect();
    let mut at = 0;
    while at < expected.len() {
        let group = 1 + expected[at + 1..].iter().take_while(|exchange| exchange.unordered).count();
        for location in at..(at + group).min(came.len()) {
            let wanted = &expected[location];
            let is_it = |other: &&Exchange| other.function == wanted.function && other.args == wanted.args;
            let end = (at + group).min(came.len());
            if let Some(found) = came[location..end].iter().position(is_it) {
                came[location..=location + found].rotate_right(1);
            }
        }
        at += group;
    }
    came
}

/// Pairs of indexes. A None is a call that the other side lacks.
fn align(expected: &[Exchange], got: &[&Exchange]) -> Vec<(Option<usize>, Option<usize>)> {
    const CHANGED: usize = 3;
    const ALONE: usize = 2;
    let (rows, columns) = (expected.len(), got.len());
    if rows * columns > limits::DIFF_PAIRS_MAX {
        return (0..rows.max(columns))
            .map(|at| ((at < rows).then_some(at), (at < columns).then_some(at)))
            .collect();
    }
    let price = |row: usize, column: usize| {
        let (a, b) = (&expected[row], got[column]);
        match (a.function == b.function, a.args == b.args) {
            (true, true) => Some(0),
            (true, false) => Some(CHANGED),
            (false, _) => None,
        }
    };
    // The cost of the remaining calls from here on.
    let mut left = vec![vec![0; columns + 1]; rows + 1];
    for row in (0..=rows).rev() {
        for column in (0..=columns).rev() {
            let mut best = usize::MAX;
            if row == rows && column == columns {
                best = 0;
            }
            if row < rows {
                best = best.min(ALONE + left[row + 1][column]);
            }
            if column < columns {
                best = best.min(ALONE + left[row][column + 1]);
            }
            if row < rows
                && column < columns
                && let Some(price) = price(row, column)
            {
                best = best.min(price + left[row + 1][column + 1]);
            }
            left[row][column] = best;
        }
    }
    let (mut row, mut column, mut pairs) = (0, 0, Vec::new());
    while row < rows || column < columns {
        let now = left[row][column];
        let together = row < rows
            && column < columns
            && price(row, column).is_some_and(|price| now == price + left[row + 1][column + 1]);
        if together {
            pairs.push((Some(row), Some(column)));
            (row, column) = (row + 1, column + 1);
        } else if row < rows && now == ALONE + left[row + 1][column] {
            pairs.push((Some(row), None));
            row += 1;
        } else {
            pairs.push((None, Some(column)));
            column += 1;
        }
    }
    pairs
}

/// Compares a part that one of the two may lack.
fn part(
    location: &DiffPath,
    path: String,
    expected: Option<&Value>,
    got: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    match (expected, got) {
        (Some(expected), Some(got)) => value(location, &path, expected, got, found),
        (expected, got) => found.push(Difference {
            location: location.clone(),
            path,
            expected: expected.map(|part| shown(part, "")),
            got: got.map(|part| shown(part, "")),
        }),
    }
}

fn value(location: &DiffPath, path: &str, expected: &Value, got: &Value, found: &mut Vec<Difference>) {
    if expected == got {
        return;
    }
    let mut push = |path: String, expected: Option<String>, got: Option<String>| {
        found.push(Difference { location: location.clone(), path, expected, got });
    };
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            for name in names {
                let inner = if path.is_empty() || path.ends_with(' ') {
                    format!("{path}{name}")
                } else {
                    format!("{path}.{name}")
                };
                part(location, inner, a.get(name), b.get(name), found);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for at in 0..a.len().max(b.len()) {
                let inner = format!("{path}[{at}]");
                part(location, inner, a.get(at), b.get(at), found);
            }
        }
        (Value::String(a), Value::String(b)) => match (json_inside(a), json_inside(b)) {
            (Some(a), Some(b)) if a != b => value(location, path, &a, &b, found),
            _ if a.contains('\n') && b.contains('\n') => {
                let (line, a, b) = lines(a, b);
                push(format!("{path} line {line}").trim_start().to_owned(), Some(a), Some(b));
            }
            _ => push(path.to_owned(), Some(shown(expected, b)), Some(shown(got, a))),
        },
        _ => push(path.to_owned(), Some(shown(expected, "")), Some(shown(got, ""))),
    }
}

/// Parses a text that is JSON, such as a body or a payload, so that its members are compared.
fn json_inside(text: &str) -> Option<Value> {
    text.starts_with(['{', '[']).then(|| serde_json::from_str(text).ok()).flatten()
}

/// Returns the lines that differ, without equal lines before and after them.
fn lines(a: &str, b: &str) -> (usize, String, String) {
    let (a, b): (Vec<_>, Vec<_>) = (a.split('\n').collect(), b.split('\n').collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    (same + 1, a[..a.len() - end].join("\n"), b[..b.len() - end].join("\n"))
}

/// Writes a value in the form of a recording; a long text around the position where it differs from the
/// other.
fn shown(value: &Value, other: &str) -> String {
    let whole = super::raw::write(value);
    if whole.chars().count() <= SHOWN_CHARS || whole.contains('\n') {
        return whole;
    }
    let same =
        value.as_str().map_or(0, |text| text.chars().zip(other.chars()).take_while(|(a, b)| a == b).count());
    let begin = same.saturating_sub(SHOWN_CHARS / 4);
    let part: String = whole.chars().skip(begin).take(SHOWN_CHARS).collect();
    let (before, after) = (if begin > 0 { "… " } else { "" }, " …");
    format!("{before}{part}{after}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use switchboard_core::ids::Digest;

    fn call(function: &str, args: Value) -> Exchange {
        Exchange { function: function.into(), unordered: false, args, answer: Some(json!(null)), micros: 7 }
    }

    fn recording(exchanges: Vec<Exchange>, returned: Value) -> Recording {
        Recording {
            handler: "x".into(),
            release: Some(Digest::of(b"x")),
            call: "1".into(),
            trigger: "frame".into(),
            scenario: None,
            input: json!({}),
            exchanges,
            left_out: 0,
            outcome: Outcome::Returned(returned),
        }
    }

    fn text_of(a: &Recording, b: &Recording) -> String {
        differences(a, b).iter().map(Difference::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_each_run_makes_anew_is_no_difference() {
        let a = recording(vec![call("clock.now-ms", json!({}))], json!("done"));
        let mut b = a.clone();
        b.release = None;
        b.call = "2".into();
        b.exchanges[0].micros = 100;
        assert!(differences(&a, &b).is_empty());
    }

    #[test]
    fn names_the_call_and_the_argument() {
        let query = |content: &str| {
            call(
                "postgres.query",
                json!({ "params": [1, content], "statement": "select 1\nfrom a\nwhere b" }),
            )
        };
        let a = recording(
            vec![call("clock.now-ms", json!({})), query("hello")],
            json!({ "body": "{\"a\":1,\"b\":2}" }),
        );
        let mut b = recording(
            vec![call("clock.now-ms", json!({})), query("HELLO")],
            json!({ "body": "{\"a\":1,\"b\":3}" }),
        );
        b.exchanges[1].args["statement"] = json!("select 1\nfrom c\nwhere b");
        insta::assert_snapshot!(text_of(&a, &b), @r#"
        call 2, postgres.query, params[1]
          - "hello"
          + "HELLO"
        call 2, postgres.query, statement line 2
          - from a
          + from c
        outcome, body.b
          - 2
          + 3
        "#);
    }

    #[test]
    fn a_call_more_or_less_does_not_shift_the_others() {
        let log = || call("log.log", json!({ "message": "hm" }));
        let a = recording(
            vec![call("a", json!({})), call("b", json!({})), call("c", json!({ "x": 1 }))],
            json!(0),
        );
        let b = recording(vec![call("a", json!({})), log(), call("c", json!({ "x": 1 }))], json!(0));
        insta::assert_snapshot!(text_of(&a, &b), @r#"
        call 2, b: expected, but missing
          - {}
        call 2, log.log: not expected
          + {"message": "hm"}
        "#);
    }

    #[test]
    fn a_group_may_come_in_any_order() {
        let loose = |exchange: Exchange| Exchange { unordered: true, ..exchange };
        let (one, two, three) =
            (call("a", json!({})), call("b", json!({ "x": 1 })), call("b", json!({ "x": 2 })));
        let a = recording(
            vec![one.clone(), loose(two.clone()), loose(three.clone()), call("c", json!({}))],
            json!(0),
        );
        let b = recording(vec![three.clone(), one.clone(), two.clone(), call("c", json!({}))], json!(0));
        assert_eq!(text_of(&a, &b), "");
        let strict = recording(vec![one, two, three, call("c", json!({}))], json!(0));
        assert_ne!(text_of(&strict, &b), "");
    }

    #[test]
    fn another_failure_is_shown_without_its_backtrace() {
        let failed = |detail: &str| {
            let mut recording = recording(vec![], json!(0));
            recording.outcome = Outcome::Failed { kind: "trap".into(), detail: detail.into() };
            recording
        };
        assert!(differences(&failed("unreachable, in f < g"), &failed("unreachable, in h")).is_empty());
        insta::assert_snapshot!(text_of(&recording(vec![], json!("ok")), &failed("unreachable, in h")), @r#"
        outcome
          - returned "ok"
          + failed: trap, unreachable
        "#);
    }

    #[test]
    fn a_panic_is_shown_with_its_place_and_compared_without_it() {
        let failed = |detail: &str| {
            let mut recording = recording(vec![], json!(0));
            recording.outcome = Outcome::Failed { kind: "trap".into(), detail: detail.into() };
            recording
        };
        let panic = failed("panic: no room, in src/lib.rs:10:9; wasm trap: unreachable, in f");
        assert!(differences(&failed("panic: no room, in src/lib.rs:12:9; wasm trap"), &panic).is_empty());
        insta::assert_snapshot!(text_of(&recording(vec![], json!("ok")), &panic), @r#"
        outcome
          - returned "ok"
          + failed: trap, panic: no room, in src/lib.rs:10:9; wasm trap: unreachable, in f
        "#);
    }
}
