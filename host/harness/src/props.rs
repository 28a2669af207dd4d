//! Clock and randomness of a test: every run gets the same times and bytes, in whatever order it asks. And
//! the injected failures.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Error;
use switchboard_core::ids::Digest;
use switchboard_recording::{Injection, Scenario};
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
            rest,
        })
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
