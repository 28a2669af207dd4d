//! The only check of a handler's answer, before any other code uses it. If the answer breaks a rule, the call
//! has failed: the caller gets 500 `internal`, and the failure counts against the release.
//!
//! Arguments of host calls (`channels.publish`) are checked in the host call, which refuses them to the
//! handler.

use hyper::header::{HeaderName, HeaderValue};
use serde::de::IgnoredAny;

use super::export::Answered;
use switchboard_contract::before::Decision;
use switchboard_contract::connection_batch::Opening;
use switchboard_contract::frame::Reply;
use switchboard_contract::http::Response;
use switchboard_contract::types::{Problem, Push};
use switchboard_core::limits;
use switchboard_protocol::wire::frames::is_deeper_than;

/// Cuts the texts of a problem that are too long, because their length may depend on a client, and checks the
/// answer.
///
/// # Errors
/// The rule that the answer breaks, for the log.
pub(super) fn settle_or_problem<T>(
    answer: &mut Result<T, Problem>,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<(), String> {
    match answer {
        Ok(answer) => check(answer),
        Err(problem) => settle_problem(problem),
    }
}

fn settle_problem(problem: &mut Problem) -> Result<(), String> {
    cut(&mut problem.detail);
    problem.field.iter_mut().for_each(cut);
    self::problem(problem)
}

pub(super) fn cut(sentence: &mut String) {
    sentence.truncate(sentence.floor_char_boundary(limits::REASON_BYTES_MAX));
}

/// Checks the pushes of `connection.open`.
pub(super) fn opened(pushes: &[Push]) -> Result<(), String> {
    bounded("pushes", pushes.len(), limits::PAGE_PUSHES_MAX)?;
    let bytes = pushes.iter().map(|push| push.frame.len()).sum();
    bounded("bytes of pushes", bytes, limits::OPENED_BYTES_MAX)?;
    pushes.iter().try_for_each(push)
}

/// Checks the results of `connection-batch.open`, as [`settle_or_problem`] and [`opened`] do. The bound of
/// the bytes is for all connections together.
pub(super) fn openings(openings: &mut [Opening]) -> Result<(), String> {
    let mut bytes = 0;
    for opening in openings {
        match opening {
            Opening::Pushes(pushes) => {
                opened(pushes)?;
                bytes += pushes.iter().map(|push| push.frame.len()).sum::<usize>();
            }
            Opening::Failed(problem) => settle_problem(problem)?,
            Opening::Alone => {}
        }
    }
    bounded("bytes of pushes", bytes, limits::OPENED_BYTES_MAX)
}

/// Checks the decision of a hook, as [`settle_or_problem`] does.
pub(super) fn decision(decision: &mut Decision) -> Result<(), String> {
    match decision {
        Decision::Allow => Ok(()),
        Decision::Change(payload) => changed(payload),
        Decision::Refuse(problem) => settle_problem(problem),
    }
}

/// Checks a payload that a hook has changed, by the rules for the payload of a client. It may be larger.
fn changed(payload: &str) -> Result<(), String> {
    bounded("bytes of a changed payload", payload.len(), limits::HOOK_CHANGED_BYTES_MAX)?;
    let levels = limits::JSON_DEPTH_MAX;
    rule(!is_deeper_than(payload, levels), || format!("a changed payload is deeper than {levels} levels"))?;
    rule(is_json_object(payload), || "a changed payload is not a JSON object".to_owned())
}

/// Checks the answer to a call of another handler.
pub(super) fn answered(answered: &Answered) -> Result<(), String> {
    bounded("bytes of an answer to a call", answered.body.len(), limits::CALL_BODY_BYTES_MAX)
}

pub(super) fn response(response: &Response) -> Result<(), String> {
    rule(matches!(response.status, 200..=599), || format!("status {} is not 200 to 599", response.status))?;
    bounded("bytes of a body", response.body.len(), limits::ANSWER_BODY_BYTES_MAX)?;
    bounded("headers", response.headers.len(), limits::ANSWER_HEADERS_MAX)?;
    let bytes = response.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    bounded("bytes of headers", bytes, limits::ANSWER_HEADERS_BYTES_MAX)?;
    response.headers.iter().try_for_each(|(name, value)| {
        let valid = HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok();
        rule(valid, || format!("`{}` is not a header that HTTP can carry", shown(name)))
    })
}

fn problem(problem: &Problem) -> Result<(), String> {
    let Problem { status, code, .. } = problem;
    rule(matches!(status, 400..=599), || format!("status {status} of a problem is not 400 to 599"))?;
    let is_word = (1..=limits::PROBLEM_CODE_BYTES_MAX).contains(&code.len())
        && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    rule(is_word, || {
        format!("code `{}` of a problem is not lower-case letters, digits and underscores", shown(code))
    })
}

pub(super) fn reply(reply: &Reply) -> Result<(), String> {
    let fits = (1..=limits::FRAME_TYPE_BYTES_MAX).contains(&reply.frame_type.len());
    rule(fits, || format!("the type of a reply has {} bytes", reply.frame_type.len()))?;
    bounded("bytes of a reply", reply.payload.len(), limits::REPLY_BYTES_MAX)?;
    bounded("subscriptions", reply.subscriptions.len(), limits::SUBSCRIPTIONS_MAX)?;
    rule(is_json_object(&reply.payload), || "the payload of a reply is not a JSON object".to_owned())
}

pub(super) fn push(push: &Push) -> Result<(), String> {
    frame(&push.frame)
}

/// Checks a whole frame, which clients get unchanged: a push, a publication or a frame to one connection.
pub(crate) fn frame(text: &str) -> Result<(), String> {
    bounded("bytes of a frame", text.len(), limits::FRAME_BYTES_MAX)?;
    rule(is_json_object(text), || "a frame is not a JSON object".to_owned())
}

fn is_json_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn bounded(what: &str, count: usize, most: usize) -> Result<(), String> {
    rule(count <= most, || format!("{count} {what}; the host sends at most {most}"))
}

fn rule(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// Returns a handler's text, escaped for a log line. A long text is not shown: a part of it could be a part
/// of a secret, which the host would not find.
fn shown(text: &str) -> String {
    match text.len() {
        bytes if bytes > limits::REASON_BYTES_MAX => format!("({bytes} bytes)"),
        _ => text.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{Before, Called, Calls, Event, Frame, Http, Opened, OpenedBatch, Schedule};
    use switchboard_contract::event::Verdict;

    fn answer(status: u16, headers: Vec<(String, String)>, body: usize) -> Result<(), String> {
        Http::settle(&mut Ok(Response { status, headers, body: vec![b'x'; body] }))
    }

    fn refusal(status: u16, code: &str) -> Result<(), String> {
        let (code, detail) = (code.to_owned(), "no".to_owned());
        Frame::settle(&mut Err(Problem { status, code, detail, field: None, retry_after_ms: None }))
    }

    fn replies(frame_type: &str, payload: String) -> Result<(), String> {
        let frame_type = frame_type.to_owned();
        Frame::settle(&mut Ok(Some(Reply { frame_type, payload, subscriptions: Vec::new() })))
    }

    fn opened(frames: &[&str]) -> Result<(), String> {
        let push = |frame: &&str| Push { frame: (*frame).to_owned(), position: None };
        Opened::settle(&mut Ok(frames.iter().map(push).collect()))
    }

    fn changes(payload: String) -> Result<(), String> {
        Before::settle(&mut Decision::Change(payload))
    }

    fn refuses(status: u16, code: &str) -> Result<(), String> {
        let (code, detail) = (code.to_owned(), "no".to_owned());
        Before::settle(&mut Decision::Refuse(Problem {
            status,
            code,
            detail,
            field: None,
            retry_after_ms: None,
        }))
    }

    fn header(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn an_answer_that_keeps_the_rules_passes() {
        let padded = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::REPLY_BYTES_MAX - 8));
        for settled in [
            answer(200, header("content-type", "text/plain"), limits::ANSWER_BODY_BYTES_MAX),
            answer(599, vec![("x-a".to_owned(), "1".to_owned()); limits::ANSWER_HEADERS_MAX], 0),
            refusal(400, "not_found"),
            replies("pong", padded),
            Frame::settle(&mut Ok(None)),
            opened(&[r#"{"type":"x","payload":{}}"#]),
            Event::settle(&mut vec![Verdict::Ack, Verdict::Reject("no".to_owned())]),
            Before::settle(&mut Decision::Allow),
            changes(format!("{{\"a\":{}1{}}}", "[".repeat(63), "]".repeat(63))),
            changes(format!("{{\"a\":\"{}\"}}", "x".repeat(limits::HOOK_CHANGED_BYTES_MAX - 8))),
            refuses(403, "bad_word"),
            Called::settle(&mut Ok(Answered { body: vec![0; limits::CALL_BODY_BYTES_MAX] })),
        ] {
            assert_eq!(settled, Ok(()));
        }
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        let long = "é".repeat(limits::REASON_BYTES_MAX);
        let (code, detail, field) = ("not_found".to_owned(), long.clone(), Some(long.clone()));
        let mut http = Err(Problem { status: 404, code, detail, field, retry_after_ms: None });
        let (mut schedule, mut event) = (Err(long.clone()), vec![Verdict::Reject(long)]);
        assert_eq!(
            (Http::settle(&mut http), Schedule::settle(&mut schedule), Event::settle(&mut event)),
            (Ok(()), Ok(()), Ok(()))
        );
        let texts =
            [serde_json::to_string(&http), serde_json::to_string(&schedule), serde_json::to_string(&event)];
        for text in texts {
            let bytes = text.unwrap().len();
            assert!((limits::REASON_BYTES_MAX..3 * limits::REASON_BYTES_MAX).contains(&bytes), "{bytes}");
        }
    }

    #[test]
    fn each_result_of_a_batch_is_checked_and_all_of_them_are_bounded() {
        let frame = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::FRAME_BYTES_MAX - 8));
        let pushes = |count| Opening::Pushes(vec![Push { frame: frame.clone(), position: None }; count]);
        let failed = |code: &str| {
            let (code, detail) = (code.to_owned(), "é".repeat(limits::REASON_BYTES_MAX));
            Opening::Failed(Problem { status: 503, code, detail, field: None, retry_after_ms: None })
        };
        let each = limits::OPENED_BYTES_MAX / limits::FRAME_BYTES_MAX / 2;
        let mut fits = vec![pushes(each), Opening::Alone, failed("unavailable"), pushes(each)];
        assert_eq!(OpenedBatch::settle(&mut fits), Ok(()));
        let Opening::Failed(Problem { detail, .. }) = &fits[2] else { panic!() };
        assert_eq!(detail.len(), limits::REASON_BYTES_MAX);
        assert!(OpenedBatch::is_error(&fits) && !OpenedBatch::is_error(&vec![Opening::Alone]));
        for (mut openings, rule) in [
            (vec![pushes(each), pushes(each + 1)], "bytes of pushes"),
            (vec![Opening::Alone, failed("Not Found")], "code `Not Found`"),
            (
                vec![Opening::Pushes(vec![Push { frame: "[]".to_owned(), position: None }])],
                "not a JSON object",
            ),
        ] {
            let broken = OpenedBatch::settle(&mut openings).unwrap_err();
            assert!(broken.contains(rule), "{broken}");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        let many = vec![("x-a".to_owned(), "1".to_owned()); 32_768];
        for (output, rule) in [
            (answer(101, Vec::new(), 0), "status 101 "),
            (answer(600, Vec::new(), 0), "status 600 "),
            (answer(200, many, 0), "32768 headers"),
            (
                answer(200, header("x-a", &"1".repeat(limits::ANSWER_HEADERS_BYTES_MAX)), 0),
                "bytes of headers",
            ),
            (answer(200, header("x a", "1"), 0), "`x a` is not a header"),
            (answer(200, header("x-a", "1\r\nset-cookie: b"), 0), "`x-a` is not a header"),
            (answer(200, Vec::new(), limits::ANSWER_BODY_BYTES_MAX + 1), "bytes of a body"),
            (refusal(101, "gone"), "status 101 of a problem"),
            (refusal(200, "gone"), "status 200 of a problem"),
            (refusal(404, "Not found"), "code `Not found`"),
            (refusal(404, ""), "code ``"),
            (replies("", "{}".to_owned()), "type of a reply"),
            (replies("x", "{},".to_owned()), "not a JSON object"),
            (replies("x", "[]".to_owned()), "not a JSON object"),
            (replies("x", "x".repeat(limits::REPLY_BYTES_MAX + 1)), "bytes of a reply"),
            (opened(&["{}", "hello"]), "not a JSON object"),
            (changes("[]".to_owned()), "not a JSON object"),
            (changes("{} {}".to_owned()), "not a JSON object"),
            (changes(format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64))), "deeper than 64 levels"),
            (
                changes(format!("{{\"a\":\"{}\"}}", "x".repeat(limits::HOOK_CHANGED_BYTES_MAX - 7))),
                "bytes of a changed payload",
            ),
            (refuses(200, "bad_word"), "status 200 of a problem"),
            (refuses(403, "Bad word"), "code `Bad word`"),
            (
                Called::settle(&mut Ok(Answered { body: vec![0; limits::CALL_BODY_BYTES_MAX + 1] })),
                "bytes of an answer to a call",
            ),
            (opened(&vec!["{}"; limits::PAGE_PUSHES_MAX + 1]), "1001 pushes"),
        ] {
            let broken = output.unwrap_err();
            assert!(broken.contains(rule), "{broken}");
        }
    }
}
