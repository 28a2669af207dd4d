//! Clock and randomness of a test: every run gets the same times and bytes, in whatever order it asks. And
//! the answers of web services and other handlers, and the injected failures.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Error;
use switchboard_core::fetch_url::FetchUrl;
use switchboard_core::ids::Digest;
use switchboard_core::manifest::FetchRules;
use switchboard_recording::{CallAnswer, FetchAnswer, Injection, Scenario};
use switchboard_runtime::{Responder, Response};

/// 2026-11-20T12:00:00Z.
pub(crate) const NOW_MS: u64 = 1_795_176_000_000;

/// A responder for these functions; another responder answers the rest.
pub struct Props<S> {
    began_ms: u64,
    now_ms: u64,
    drawn: u64,
    asked: HashMap<&'static str, u32>,
    inject: Vec<Injection>,
    fetch: Vec<FetchAnswer>,
    /// The fetches that got an answer of `fetch`, for each method and URL.
    fetched: HashMap<(String, String), usize>,
    rules: FetchRules,
    calls: Vec<CallAnswer>,
    /// The calls that got an answer of `calls`, for each handler and method.
    called: HashMap<(String, String), usize>,
    /// The handlers that the release may call.
    callees: Vec<String>,
    rest: S,
}

/// The real services.
pub(crate) struct Live;

impl Responder for Live {
    fn respond(&mut self, _: usize, _: &'static str, _: &Value) -> Response {
        Response::Live
    }
}

impl<S> Props<S> {
    pub fn of(scenario: &Scenario, rest: S) -> Result<Self, Error> {
        let now_ms = now_ms_of(scenario)?;
        Ok(Self {
            began_ms: now_ms,
            now_ms,
            drawn: 0,
            asked: HashMap::new(),
            inject: scenario.inject.clone(),
            fetch: scenario.fetch.clone(),
            fetched: HashMap::new(),
            rules: FetchRules::default(),
            calls: scenario.calls.clone(),
            called: HashMap::new(),
            callees: Vec::new(),
            rest,
        })
    }

    /// Sets the grants of the release. Without them no fetch gets an answer of the scenario.
    pub fn granting(mut self, rules: FetchRules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the handlers that the release may call. Without them no call gets an answer of the scenario.
    pub fn calling(mut self, handlers: &[String]) -> Self {
        self.callees = handlers.to_vec();
        self
    }

    /// The scenario's answer to a call of another handler; `None` as for a fetch.
    fn called(&mut self, args: &Value) -> Option<Value> {
        let text = |member: &str| args.get(member).and_then(Value::as_str);
        let (handler, method) = (text("handler")?, text("method")?);
        self.callees.iter().find(|granted| *granted == handler)?;
        let mut answers =
            self.calls.iter().filter(|answer| answer.handler == handler && answer.method == method);
        let count = self.called.entry((handler.to_owned(), method.to_owned())).or_default();
        let answer = answers.clone().nth(*count).or_else(|| answers.next_back())?;
        *count += 1;
        Some(answer.result())
    }

    /// The scenario's answer to a fetch; `None` if it has none, or if the fetch is not granted. Then the
    /// sandbox answers, which refuses a fetch that is not granted.
    fn fetched(&mut self, request: &Value) -> Option<Value> {
        let text = |member: &str| request.get(member).and_then(Value::as_str);
        let (method, url) = (text("method")?, text("url")?);
        self.rules.permits(method, &FetchUrl::parse(url).ok()?)?;
        let mut answers = self.fetch.iter().filter(|answer| answer.method == method && answer.url == url);
        let count = self.fetched.entry((method.to_owned(), url.to_owned())).or_default();
        let answer = answers.clone().nth(*count).or_else(|| answers.next_back())?;
        *count += 1;
        Some(json!({ "Ok": answer.response() }))
    }

    /// The same for several fetches of one host call: for all or for none.
    fn all_fetched(&mut self, requests: &Value) -> Option<Value> {
        let before = self.fetched.clone();
        let answers: Option<Vec<Value>> =
            requests.as_array()?.iter().map(|request| self.fetched(request)).collect();
        if answers.is_none() {
            self.fetched = before;
        }
        answers.map(Value::Array)
    }

    fn now(&mut self) -> u64 {
        self.now_ms += 1;
        self.now_ms - 1
    }

    fn draw(&mut self, len: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            self.drawn += 1;
            bytes.extend_from_slice(Digest::of(&self.drawn.to_le_bytes()).bytes());
        }
        bytes.truncate(len as usize);
        bytes
    }

    fn injected(&mut self, function: &'static str) -> Option<Response> {
        let nth = self.asked.entry(function).or_default();
        *nth += 1;
        let injection = self.inject.iter().find(|wrong| wrong.call == function && wrong.nth == *nth)?;
        Some(match (&injection.answer, injection.done) {
            (Some(answer), true) => Response::DoneBut(answer.clone()),
            (Some(answer), false) => Response::Answer(answer.clone()),
            (None, _) => Response::Never,
        })
    }
}

impl<S: Responder> Responder for Props<S> {
    fn respond(&mut self, at: usize, function: &'static str, args: &Value) -> Response {
        if let Some(response) = self.injected(function) {
            return response;
        }
        let len = args.get("len").and_then(Value::as_u64).unwrap_or(0);
        match function {
            "clock.now-ms" => Response::Answer(json!(self.now())),
            "wasi.wall-clock" => {
                let now = self.now();
                Response::Answer(json!([now / 1000, now % 1000 * 1_000_000]))
            }
            "wasi.monotonic-clock" => {
                let since = self.now() - self.began_ms;
                Response::Answer(json!(since * 1_000_000))
            }
            "random.bytes" | "wasi.random" => Response::Answer(json!({ "random": self.draw(len) })),
            "fetch.send" => match self.fetched(&args["request"]) {
                Some(answer) => Response::Answer(answer),
                None => self.rest.respond(at, function, args),
            },
            "fetch.send-all" => match self.all_fetched(&args["requests"]) {
                Some(answers) => Response::Answer(answers),
                None => self.rest.respond(at, function, args),
            },
            "calls.call" => match self.called(args) {
                Some(answer) => Response::Answer(answer),
                None => self.rest.respond(at, function, args),
            },
            _ => self.rest.respond(at, function, args),
        }
    }
}

/// The time of a scenario, for the guest's clock and for that of its database.
pub(crate) fn now_ms_of(scenario: &Scenario) -> Result<u64, Error> {
    match &scenario.now {
        None => Ok(NOW_MS),
        Some(text) => unix_ms(text).ok_or_else(|| {
            Error::Setup(format!(
                "the scenario's `now` is `{text}`: write an RFC 3339 time such as 2026-11-20T12:00:00Z"
            ))
        }),
    }
}

fn unix_ms(text: &str) -> Option<u64> {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_core::manifest::FetchGrant;

    fn props(inject: Vec<Injection>) -> Props<Live> {
        Props::of(&Scenario { inject, ..Scenario::default() }, Live).unwrap()
    }

    #[test]
    fn every_run_sees_the_same() {
        let run = || {
            let mut props = props(Vec::new());
            let draw = json!({ "len": 40 });
            [
                ("clock.now-ms", json!({})),
                ("random.bytes", draw.clone()),
                ("clock.now-ms", json!({})),
                ("random.bytes", draw),
            ]
            .map(|(function, args)| props.respond(0, function, &args))
        };
        let first = run();
        assert_eq!(first, run());
        assert_eq!(first[0], Response::Answer(json!(NOW_MS)));
        assert_eq!(first[2], Response::Answer(json!(NOW_MS + 1)));
        assert_ne!(first[1], first[3]);
    }

    #[test]
    fn the_nth_call_of_a_function_goes_wrong() {
        let mut props = props(vec![Injection {
            call: "redis.command".into(),
            nth: 2,
            answer: Some(json!({ "Err": "Unavailable" })),
            done: false,
        }]);
        let responses: Vec<_> = ["redis.command", "redis.script", "redis.command", "redis.command"]
            .map(|function| props.respond(0, function, &json!({})))
            .to_vec();
        assert_eq!(
            responses,
            [
                Response::Live,
                Response::Live,
                Response::Answer(json!({ "Err": "Unavailable" })),
                Response::Live
            ]
        );
    }

    #[test]
    fn web_services_of_the_scenario_answer_what_is_granted() {
        let answer = |status: u16, url: &str| FetchAnswer {
            method: "GET".into(),
            url: url.into(),
            status,
            headers: Default::default(),
            body: json!("x"),
        };
        let (a, b) = ("https://x.example/a", "https://other.example/b");
        let scenario =
            Scenario { fetch: vec![answer(503, a), answer(200, a), answer(200, b)], ..Scenario::default() };
        let grants = [FetchGrant {
            methods: vec!["GET".into()],
            url: "https://x.example/*".into(),
            addresses: Vec::new(),
        }];
        let rules = FetchRules::expand(&grants, &Default::default()).unwrap();
        let mut props = Props::of(&scenario, Live).unwrap().granting(rules);
        let mut status = |method: &str, url: &str| {
            let args = json!({ "request": { "method": method, "url": url } });
            match props.respond(0, "fetch.send", &args) {
                Response::Answer(answer) => answer["Ok"]["status"].as_u64(),
                Response::Live => None,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([status("GET", a), status("GET", a), status("GET", a)], [Some(503), Some(200), Some(200)]);
        assert_eq!((status("POST", a), status("GET", b)), (None, None), "not granted: the sandbox refuses");
        assert_eq!(status("GET", "https://x.example/c"), None, "no answer");
        let both = |last: &str| json!({ "requests": [{ "method": "GET", "url": a }, { "method": "GET", "url": last }] });
        let Response::Answer(answers) = props.respond(0, "fetch.send-all", &both(a)) else { panic!() };
        assert_eq!(answers.as_array().map(Vec::len), Some(2));
        assert_eq!(props.respond(0, "fetch.send-all", &both(b)), Response::Live);
    }

    #[test]
    fn other_handlers_of_the_scenario_answer_granted_calls() {
        let answer = |handler: &str, body: Value| CallAnswer {
            handler: handler.into(),
            method: "profile".into(),
            body,
            problem: None,
        };
        let calls = vec![answer("directory", json!("first")), answer("directory", json!({ "n": 2 }))];
        let calls = [calls, vec![answer("other", json!("x"))]].concat();
        let scenario = Scenario { calls, ..Scenario::default() };
        let mut props = Props::of(&scenario, Live).unwrap().calling(&["directory".to_owned()]);
        let mut body = |handler: &str, method: &str| match props.respond(
            0,
            "calls.call",
            &json!({ "handler": handler, "method": method }),
        ) {
            Response::Answer(answer) => answer["Ok"]["body"]["text"].as_str().map(str::to_owned),
            Response::Live => None,
            other => panic!("{other:?}"),
        };
        let bodies = [(); 3].map(|()| body("directory", "profile"));
        let second = r#"{"n":2}"#;
        assert_eq!(bodies, ["first", second, second].map(|body| Some(body.to_owned())));
        assert_eq!(body("directory", "list"), None, "the sandbox answers, which has no other handlers");
        assert_eq!(body("other", "profile"), None, "not granted: the sandbox refuses");
    }

    #[test]
    fn the_clock_can_be_set() {
        let scenario = Scenario { now: Some("2027-01-01T00:00:00.005Z".into()), ..Scenario::default() };
        let mut props = Props::of(&scenario, Live).unwrap();
        assert_eq!(
            props.respond(0, "clock.now-ms", &json!({})),
            Response::Answer(json!(1_798_761_600_005_u64))
        );
        assert!(Props::of(&Scenario { now: Some("noon".into()), ..Scenario::default() }, Live).is_err());
    }
}
