//! Lets every host call of every test fail once, in every way that the contract allows. A handler may refuse,
//! wait or continue without the answer. It may not trap, and it may not report success for work that was not
//! done.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::case::{Case, Subject};
use super::player::Player;
use super::props::{Live, Props};
use super::values::Values;
use super::world::Services;
use super::{Error, Handler, Harness};
use switchboard_recording::{Exchange, Outcome, Recording, Scenario};
use switchboard_runtime::{Responder, Response};

/// The number of attempts, and the findings.
#[derive(Debug, Default)]
pub struct Faults {
    pub tried: usize,
    pub found: Vec<Finding>,
}

#[derive(Debug)]
pub struct Finding {
    /// `send-message/sends`.
    pub test: String,
    /// Number of the host call, from 1.
    pub call: usize,
    pub function: String,
    pub fault: String,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { test, call, function, fault, what } = self;
        write!(f, "{test}: call {call}, {function}, answered {fault}: {what}")
    }
}

/// The failures that a host call may answer, in the form of a recording.
fn wrong_answers(exchange: &Exchange) -> Vec<Value> {
    let err = |error: Value| json!({ "Err": error });
    match exchange.function.as_str() {
        name if name.starts_with("postgres.")
            || (name.starts_with("transaction.") && !name.ends_with("drop")) =>
        {
            vec![
                err(json!("Busy")),
                err(json!({ "Retryable": "injected" })),
                err(json!("Deadline")),
                err(json!("UnknownOutcome")),
                err(json!({ "Sql": { "code": "57014", "message": "injected", "constraint": null } })),
                err(json!({ "Refused": "injected" })),
                err(json!({ "TooLarge": 1 })),
            ]
        }
        name if name.starts_with("redis.") => vec![
            err(json!("Unavailable")),
            err(json!("Deadline")),
            err(json!({ "Failed": "injected" })),
            err(json!({ "Refused": "injected" })),
            err(json!({ "TooLarge": 1 })),
        ],
        name if name.starts_with("channels.") => {
            vec![
                err(json!("Unavailable")),
                err(json!("Gone")),
                err(json!("Full")),
                err(json!({ "Refused": "injected" })),
            ]
        }
        "fetch.send" => failed_fetches().into_iter().map(err).collect(),
        // All of them fail in the same way.
        "fetch.send-all" => {
            let count = exchange.args["requests"].as_array().map_or(0, Vec::len);
            failed_fetches().into_iter().map(|error| Value::Array(vec![err(error); count])).collect()
        }
        "calls.call" => vec![
            err(json!("Busy")),
            err(json!({ "Unavailable": "injected" })),
            err(json!({ "UnknownOutcome": "injected" })),
            err(json!({ "Refused": "injected" })),
            err(json!({ "Problem": problem() })),
        ],
        // A setting that is not set.
        "config.get" => vec![Value::Null],
        "secrets.get" => vec![err(json!("Missing"))],
        name if name.starts_with("timers.") => {
            vec![err(json!("Unavailable")), err(json!("Full")), err(json!({ "Refused": "injected" }))]
        }
        _ => Vec::new(),
    }
}

/// The answer of a called handler whose own services are not available.
fn problem() -> Value {
    json!({
        "status": 503,
        "code": "unavailable",
        "detail": "injected",
        "field": null,
        "retry_after_ms": 1000,
    })
}

fn failed_fetches() -> Vec<Value> {
    vec![
        json!("Busy"),
        json!({ "Unavailable": "injected" }),
        json!({ "UnknownOutcome": "injected" }),
        json!({ "Refused": "injected" }),
        json!({ "TooLarge": 1 }),
    ]
}

/// Runs without services: after the fault, host calls with an answer in the recording get it, and all others
/// are unavailable.
pub async fn scripted(harness: &Harness, subjects: &[Subject]) -> Result<Faults, Error> {
    let mut faults = Faults::default();
    for subject in subjects {
        let handler = harness.load_bytes(subject.file.bytes.clone()).await?;
        for case in subject.cases.iter().filter(|case| is_undisturbed(case)) {
            for (at, exchange) in case.recording.exchanges.iter().enumerate() {
                for wrong in wrong_answers(exchange) {
                    let responder = Broken::new(&handler, &case.recording, at, wrong.clone());
                    let ran =
                        handler.play(&case.recording.trigger, case.recording.input.clone(), responder).await;
                    faults.tried += 1;
                    let what = match ran {
                        Ok(ran) => wrong_end(&case.recording, &ran, &exchange.function, at),
                        Err(error) => Some(error.to_string()),
                    };
                    faults.note(case, at, &wrong, what);
                }
            }
        }
    }
    Ok(faults)
}

/// Runs with real services: the answer is lost before or after the service did the work, or the call is cut
/// off there. Afterwards the database has all of the changes or none, and all if the handler reported
/// success.
pub async fn real(
    services: &Services,
    subjects: &[Subject],
    each: impl Fn(&Finding),
) -> Result<Faults, Error> {
    let mut faults = Faults::default();
    for subject in subjects {
        for case in subject.cases.iter().filter(|case| is_undisturbed(case)) {
            let Some(scenario) = &case.recording.scenario else { continue };
            let calls = &case.recording.exchanges;
            if !calls.iter().any(|exchange| exchange.function.starts_with("postgres.")) {
                continue;
            }
            let (before, after, _) = state_after(services, subject, case, scenario, None).await?;
            if before == after {
                continue;
            }
            for (at, exchange) in calls.iter().enumerate() {
                for (name, response) in real_faults(&exchange.function) {
                    let (_, state, ran) =
                        state_after(services, subject, case, scenario, Some((at, response))).await?;
                    faults.tried += 1;
                    let promises = !is_repaired_later(&ran.trigger);
                    let what = match (state == before, state == after, acknowledged(&ran)) {
                        (true, _, true) => Some("acknowledged, but nothing is stored".to_owned()),
                        (false, false, _) if promises => Some("half of it is stored".to_owned()),
                        _ => None,
                    };
                    let known = faults.found.len();
                    faults.note(case, at, &json!(name), what);
                    faults.found[known..].iter().for_each(&each);
                }
            }
        }
    }
    Ok(faults)
}

type State = Vec<(String, String)>;

async fn state_after(
    services: &Services,
    subject: &Subject,
    case: &Case,
    scenario: &Scenario,
    fault: Option<(usize, Response)>,
) -> Result<(State, State, Recording), Error> {
    let directory = case.path.parent().unwrap_or(Path::new("."));
    let world = Arc::new(services.world(scenario, directory).await?);
    let ran = async {
        let before = world.state().await?;
        let handler = world.load(&subject.file, scenario).await?;
        let responder = Props::of(scenario, Live)?
            .granting(handler.release.fetch_rules())
            .calling(&handler.release.manifest.grants.calls);
        let (recording, _) = handler.live(&case.recording, At { fault, rest: responder }).await?;
        Ok((before, world.state().await?, recording))
    };
    let ran = ran.await;
    world.end().await?;
    ran
}

fn real_faults(function: &str) -> Vec<(&'static str, Response)> {
    let mut faults = vec![("nothing: the call was cut off", Response::Trap("cut off".to_owned()))];
    if function.starts_with("postgres.") {
        faults.push(("busy", Response::Answer(json!({ "Err": "Busy" }))));
        faults.push((
            "unknown-outcome, and it was done",
            Response::DoneBut(json!({ "Err": "UnknownOutcome" })),
        ));
    } else if function.starts_with("transaction.") && !function.ends_with("drop") {
        faults.push(("retryable", Response::Answer(json!({ "Err": { "Retryable": "injected" } }))));
        faults.push((
            "unknown-outcome, and it was done",
            Response::DoneBut(json!({ "Err": "UnknownOutcome" })),
        ));
    } else if function.starts_with("redis.") || function.starts_with("channels.") {
        faults.push(("unavailable", Response::Answer(json!({ "Err": "Unavailable" }))));
    } else if function == "fetch.send" {
        faults.push(("busy", Response::Answer(json!({ "Err": "Busy" }))));
        faults.push((
            "unknown-outcome, and it was done",
            Response::DoneBut(json!({ "Err": { "UnknownOutcome": "injected" } })),
        ));
    }
    faults
}

/// Injects the fault at one call; another responder answers the rest.
struct At<S> {
    fault: Option<(usize, Response)>,
    rest: S,
}

impl<S: Responder> Responder for At<S> {
    fn respond(&mut self, at: usize, function: &'static str, args: &Value) -> Response {
        // Always call it, because it counts the calls.
        let response = self.rest.respond(at, function, args);
        match &self.fault {
            Some((faulty, fault)) if *faulty == at => fault.clone(),
            _ => response,
        }
    }
}

/// Gives the recording's answers up to the fault; afterwards those that still match.
struct Broken {
    player: Player,
    left: VecDeque<(String, Value)>,
    at: usize,
    wrong: Option<Value>,
    /// A statement of the open transaction failed: Postgres accepts no further one.
    aborted: bool,
}

impl Broken {
    fn new(handler: &Handler, recording: &Recording, at: usize, wrong: Value) -> Self {
        Self {
            player: Player::of(recording, Values::of(handler, recording.scenario.as_ref())),
            left: recording.exchanges.iter().map(|call| (call.function.clone(), call.args.clone())).collect(),
            at,
            wrong: Some(wrong),
            aborted: false,
        }
    }
}

impl Responder for Broken {
    fn respond(&mut self, at: usize, function: &'static str, args: &Value) -> Response {
        if at == self.at
            && let Some(wrong) = self.wrong.take()
        {
            self.left.pop_front();
            self.player.respond(at, function, args);
            self.aborted = function.starts_with("transaction.");
            return Response::Answer(wrong);
        }
        if self.aborted && function.starts_with("transaction.") && function != "transaction.drop" {
            return Response::Answer(
                json!({ "Err": { "Sql": { "code": "25P02", "message": "aborted", "constraint": null } } }),
            );
        }
        let fits = self.left.iter().position(|(name, known)| name == function && known == args);
        match fits {
            Some(position) => {
                self.left.drain(..=position);
                self.player.respond(at, function, args)
            }
            None => Response::Live,
        }
    }
}

fn is_undisturbed(case: &Case) -> bool {
    let injected = case.recording.scenario.as_ref().is_some_and(|scenario| !scenario.inject.is_empty());
    !injected && case.recording.is_whole() && matches!(case.recording.outcome, Outcome::Returned(_))
}

/// Judges the end of a disturbed call: the broken rule, if any.
fn wrong_end(undisturbed: &Recording, ran: &Recording, function: &str, at: usize) -> Option<String> {
    let returned = match &ran.outcome {
        Outcome::Failed { kind, detail } => return Some(format!("it fell over ({kind}: {detail})")),
        Outcome::Returned(returned) => returned,
        Outcome::Unknown => return None,
    };
    let of_postgres = function.starts_with("postgres.") || function.starts_with("transaction.");
    // The handler tried again, and the second answer counts.
    let again = ran.exchanges.get(at).is_some_and(|failed| {
        ran.exchanges[at + 1..].iter().any(|later| {
            later.function == failed.function
                && later.args == failed.args
                && later.answer.as_ref().is_some_and(|answer| answer.get("Ok").is_some())
        })
    });
    if of_postgres && !again && acknowledged(undisturbed) && acknowledged(ran) {
        return Some("it says that it is done, although Postgres did not".to_owned());
    }
    if of_postgres && acknowledged(undisturbed) {
        let code = returned.pointer("/Err/status").and_then(Value::as_u64);
        if let Some(status @ (400..=404 | 409..=428)) = code {
            return Some(format!("it blames the caller ({status}) for what Postgres could not do"));
        }
    }
    let publishes = function == "channels.publish" && ran.trigger == "event";
    if publishes && !again && acknowledged(ran) {
        return Some("it acknowledges events that were not published".to_owned());
    }
    None
}

/// Whether calls of the trigger make no promise: later calls repair what the begin and the end of a
/// connection could not do.
fn is_repaired_later(trigger: &str) -> bool {
    matches!(trigger, "opened" | "opened-batch" | "closed" | "closed-batch" | "touched")
}

/// Whether the outcome reports success to a caller.
fn acknowledged(recording: &Recording) -> bool {
    let Outcome::Returned(returned) = &recording.outcome else { return false };
    match recording.trigger.as_str() {
        "event" => returned.as_array().is_some_and(|all| all.iter().any(|verdict| verdict == "Ack")),
        "timer" => returned == "Ack",
        trigger if is_repaired_later(trigger) => false,
        "http" => {
            let status = returned.pointer("/Ok/status").and_then(Value::as_u64);
            status.is_some_and(|status| status < 400) && !is_failed_graphql(returned)
        }
        _ => returned.get("Ok").is_some(),
    }
}

/// GraphQL reports a failure in a 200: no data, and errors.
fn is_failed_graphql(returned: &Value) -> bool {
    let body = returned.pointer("/Ok/body/text").and_then(Value::as_str);
    let document = body.and_then(|text| serde_json::from_str::<Value>(text).ok());
    document.is_some_and(|document| {
        document.get("data") == Some(&Value::Null) && document.get("errors").is_some_and(Value::is_array)
    })
}

impl Faults {
    fn note(&mut self, case: &Case, at: usize, fault: &Value, what: Option<String>) {
        let Some(what) = what else { return };
        self.found.push(Finding {
            test: case.title(),
            call: at + 1,
            function: case.recording.exchanges[at].function.clone(),
            fault: fault.as_str().map_or_else(|| fault.to_string(), str::to_owned),
            what,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that stores and answers; `disturbed` is its result when Postgres is busy.
    fn pair(trigger: &str, function: &str, ok: Value, disturbed: Value) -> (Recording, Recording) {
        let exchange = |answer: Value| Exchange {
            function: function.into(),
            unordered: false,
            args: json!({}),
            answer: Some(answer),
            micros: 0,
        };
        let recording = |answer, returned| Recording {
            handler: "x".into(),
            release: None,
            call: "1".into(),
            trigger: trigger.into(),
            scenario: None,
            input: json!({}),
            exchanges: vec![exchange(answer)],
            left_out: 0,
            outcome: Outcome::Returned(returned),
        };
        (recording(json!({ "Ok": 1 }), ok), recording(json!({ "Err": "Busy" }), disturbed))
    }

    fn verdict(trigger: &str, function: &str, ok: Value, disturbed: Value) -> Option<String> {
        let (undisturbed, ran) = pair(trigger, function, ok, disturbed);
        wrong_end(&undisturbed, &ran, function, 0)
    }

    #[test]
    fn who_lies_is_found() {
        let ok = json!({ "Ok": { "status": 201 } });
        let problem = |status: u16| json!({ "Err": { "status": status } });
        let found = |disturbed| verdict("http", "postgres.collect", ok.clone(), disturbed);
        assert!(found(ok.clone()).unwrap().contains("says that it is done"));
        assert!(found(problem(404)).unwrap().contains("blames the caller"));
        assert_eq!(found(problem(503)), None);
        assert_eq!(found(problem(500)), None);
        let graphql = |body: &str| json!({ "Ok": { "status": 200, "body": { "text": body } } });
        let done = graphql(r#"{"data":{"delete":true}}"#);
        let failed = graphql(r#"{"data":null,"errors":[{"message":"busy"}]}"#);
        assert_eq!(verdict("http", "postgres.begin", done.clone(), failed), None);
        assert!(
            verdict("http", "postgres.begin", done.clone(), done).unwrap().contains("says that it is done")
        );
        // An unavailable cache is no reason to refuse.
        assert_eq!(verdict("http", "redis.command", ok.clone(), ok.clone()), None);
        let ack = json!(["Ack"]);
        assert!(
            verdict("event", "channels.publish", ack.clone(), ack.clone()).unwrap().contains("not published")
        );
        assert_eq!(verdict("event", "channels.publish", ack, json!([{ "Hold": 500 }])), None);
    }

    #[test]
    fn a_fetch_fails_in_every_way_of_the_contract() {
        use switchboard_contract::fetch::{Error, Response};
        let exchange = |function: &str, args: Value| Exchange {
            function: function.into(),
            unordered: false,
            args,
            answer: None,
            micros: 0,
        };
        let one = wrong_answers(&exchange("fetch.send", json!({ "request": {} })));
        let read = |value: &Value| {
            switchboard_recording::value_from::<Result<Response, Error>>(value.clone()).unwrap().unwrap_err()
        };
        let kinds: Vec<Error> = one.iter().map(read).collect();
        assert_eq!(kinds.len(), 5);
        assert!(kinds.contains(&Error::Busy) && kinds.contains(&Error::TooLarge(1)));
        let all = wrong_answers(&exchange("fetch.send-all", json!({ "requests": [{}, {}] })));
        assert!(all.iter().zip(&one).all(|(all, one)| *all == json!([one, one])), "{all:?}");
    }

    #[test]
    fn a_call_of_another_handler_fails_in_every_way_of_the_contract() {
        use switchboard_contract::calls::Error;
        let exchange = Exchange {
            function: "calls.call".into(),
            unordered: false,
            args: json!({ "handler": "directory", "method": "profile", "body": { "text": "{}" } }),
            answer: None,
            micros: 0,
        };
        let kinds: Vec<Error> = wrong_answers(&exchange)
            .into_iter()
            .map(|mut wrong| switchboard_recording::value_from(wrong["Err"].take()).unwrap())
            .collect();
        assert_eq!(kinds.len(), 5);
        assert!(kinds.iter().any(|kind| matches!(kind, Error::Problem(problem) if problem.status == 503)));
    }

    #[test]
    fn who_falls_over_is_found_and_who_asks_again_is_not() {
        let ok = json!({ "Ok": { "status": 201 } });
        let (undisturbed, mut ran) = pair("http", "postgres.query", ok.clone(), ok);
        let again = Exchange { answer: Some(json!({ "Ok": 1 })), ..ran.exchanges[0].clone() };
        ran.exchanges.push(again);
        assert_eq!(wrong_end(&undisturbed, &ran, "postgres.query", 0), None);
        ran.outcome = Outcome::Failed { kind: "trap".into(), detail: "unreachable".into() };
        assert!(wrong_end(&undisturbed, &ran, "postgres.query", 0).unwrap().contains("fell over"));
    }
}
