//! The report of a test run: for a person, for a program, for CI.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::case::{Case, Subject};
use switchboard_recording::Difference;

#[derive(Debug)]
pub struct Report {
    pub tested: Vec<Tested>,
    /// Handlers without a test, which count as a failure.
    pub untested: Vec<String>,
    pub handlers: usize,
    pub took: Duration,
}

#[derive(Debug)]
pub struct Tested {
    pub handler: String,
    pub name: String,
    pub path: String,
    pub verdict: Verdict,
    pub took: Duration,
}

#[derive(Debug)]
pub enum Verdict {
    Passed,
    Differs(Vec<Difference>),
    /// The recording was updated.
    Updated,
    Recorded,
    Skipped(String),
    Failed(String),
}

impl Tested {
    pub fn new(case: &Case, verdict: Verdict, took: Duration) -> Self {
        let path = case.path.display().to_string();
        Self { handler: case.handler.clone(), name: case.name.clone(), path, verdict, took }
    }

    pub fn is_ok(&self) -> bool {
        !matches!(self.verdict, Verdict::Differs(_) | Verdict::Failed(_))
    }

    /// The lines for a person; none if the test passed.
    pub fn message(&self) -> Option<String> {
        let title = format!("{}/{}", self.handler, self.name);
        match &self.verdict {
            Verdict::Passed => None,
            Verdict::Updated => Some(format!("{title}: updated")),
            Verdict::Recorded => Some(format!("{title}: recorded")),
            Verdict::Skipped(why) => Some(format!("{title}: skipped, {why}")),
            Verdict::Failed(why) => Some(format!("{title} failed: {why}")),
            Verdict::Differs(found) => {
                let mut message = format!("{title} differs (- recorded, + now)  {}", self.path);
                for difference in found {
                    for line in difference.to_string().lines() {
                        let _ = write!(message, "\n  {line}");
                    }
                }
                Some(message)
            }
        }
    }

    fn word(&self) -> &'static str {
        match self.verdict {
            Verdict::Passed => "passed",
            Verdict::Differs(_) => "differs",
            Verdict::Updated => "updated",
            Verdict::Recorded => "recorded",
            Verdict::Skipped(_) => "skipped",
            Verdict::Failed(_) => "failed",
        }
    }
}

impl Report {
    pub fn of(subjects: &[Subject], tested: Vec<Tested>, took: Duration) -> Self {
        let untested = subjects.iter().filter(|subject| subject.cases.is_empty());
        Self {
            tested,
            untested: untested.map(|subject| subject.name.clone()).collect(),
            handlers: subjects.len(),
            took,
        }
    }

    /// Statements that Postgres refuses, whatever the recordings contain.
    pub fn refused_statements(&mut self, refused: Vec<String>) {
        self.tested.extend(refused.into_iter().map(|why| {
            let (name, why) = why.split_once(": ").unwrap_or(("statement", &why));
            let (handler, name) = name.split_once('/').unwrap_or(("", name));
            Tested {
                handler: handler.to_owned(),
                name: name.to_owned(),
                path: String::new(),
                verdict: Verdict::Failed(format!("Postgres refuses a statement: {why}")),
                took: Duration::ZERO,
            }
        }));
    }

    pub fn is_ok(&self) -> bool {
        self.untested.is_empty() && self.tested.iter().all(Tested::is_ok)
    }

    /// One summary line, after the lines of the failures.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for message in self.tested.iter().filter_map(Tested::message) {
            let _ = writeln!(text, "{message}");
        }
        text + &self.summary()
    }

    /// The same, if each test was reported when it finished.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for handler in &self.untested {
            let _ = writeln!(text, "{handler} has no test: write {handler}/tests/….trace, or copy one");
        }
        let bad = self.tested.iter().filter(|tested| !tested.is_ok()).count();
        let _ = write!(
            text,
            "{} tests of {} handlers: {} passed, {bad} failed{} ({} ms)",
            self.tested.len(),
            self.handlers,
            self.tested.len() - bad,
            match self.untested.len() {
                0 => String::new(),
                several => format!(", {several} handlers without a test"),
            },
            self.took.as_millis(),
        );
        text
    }

    pub fn json(&self) -> Value {
        let tests = self.tested.iter().map(|tested| {
            json!({
                "handler": tested.handler,
                "name": tested.name,
                "path": tested.path,
                "result": tested.word(),
                "micros": u64::try_from(tested.took.as_micros()).unwrap_or(u64::MAX),
                "detail": if tested.is_ok() { None } else { tested.message() },
            })
        });
        let tests = tests.collect::<Vec<_>>();
        let took = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        json!({ "tests": tests, "untested": self.untested, "took_ms": took, "ok": self.is_ok() })
    }

    /// The JUnit XML for CI systems.
    pub fn junit(&self) -> String {
        let failures = self.tested.iter().filter(|tested| !tested.is_ok()).count() + self.untested.len();
        let count = self.tested.len() + self.untested.len();
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"switchboard\" tests=\"{count}\" \
             failures=\"{failures}\" time=\"{:.3}\">\n",
            self.took.as_secs_f64()
        );
        for tested in &self.tested {
            let _ = write!(
                xml,
                "  <testcase classname=\"{}\" name=\"{}\" file=\"{}\" time=\"{:.6}\">",
                escaped(&tested.handler),
                escaped(&tested.name),
                escaped(&tested.path),
                tested.took.as_secs_f64()
            );
            if let (false, Some(message)) = (tested.is_ok(), tested.message()) {
                let _ = write!(xml, "<failure message=\"{}\">{}</failure>", tested.word(), escaped(&message));
            }
            if let Verdict::Skipped(why) = &tested.verdict {
                let _ = write!(xml, "<skipped message=\"{}\"/>", escaped(why));
            }
            xml.push_str("</testcase>\n");
        }
        for handler in &self.untested {
            let handler = escaped(handler);
            let _ = writeln!(
                xml,
                "  <testcase classname=\"{handler}\" name=\"has a test\"><failure message=\"none\"/></testcase>"
            );
        }
        xml.push_str("</testsuite>\n");
        xml
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            // XML 1.0 cannot represent the other characters.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tested(name: &str, verdict: Verdict) -> Tested {
        let (handler, path) = ("x".to_owned(), format!("x/tests/{name}.trace"));
        Tested { handler, name: name.to_owned(), path, verdict, took: Duration::from_micros(12) }
    }

    fn report() -> Report {
        Report {
            tested: vec![
                tested("good", Verdict::Passed),
                tested("bad", Verdict::Failed("a < b & \"c\"".to_owned())),
                tested("old", Verdict::Skipped("it has no scenario".to_owned())),
            ],
            untested: vec!["y".to_owned()],
            handlers: 2,
            took: Duration::from_millis(5),
        }
    }

    #[test]
    fn a_person_reads_what_is_not_well_and_one_line_for_all() {
        insta::assert_snapshot!(report().text(), @r#"
        x/bad failed: a < b & "c"
        x/old: skipped, it has no scenario
        y has no test: write y/tests/….trace, or copy one
        3 tests of 2 handlers: 2 passed, 1 failed, 1 handlers without a test (5 ms)
        "#);
        assert!(!report().is_ok());
    }

    #[test]
    fn ci_reads_xml() {
        insta::assert_snapshot!(report().junit(), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuite name="switchboard" tests="4" failures="2" time="0.005">
          <testcase classname="x" name="good" file="x/tests/good.trace" time="0.000012"></testcase>
          <testcase classname="x" name="bad" file="x/tests/bad.trace" time="0.000012"><failure message="failed">x/bad failed: a &lt; b &amp; &quot;c&quot;</failure></testcase>
          <testcase classname="x" name="old" file="x/tests/old.trace" time="0.000012"><skipped message="it has no scenario"/></testcase>
          <testcase classname="y" name="has a test"><failure message="none"/></testcase>
        </testsuite>
        "#);
    }
}
