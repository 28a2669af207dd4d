//! Plays the answers of a recording to a handler that may have changed since. It goes on after a difference
//! as long as it can find an answer, so that a reader sees all changes and not only the first.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::values::Values;
use switchboard_recording::{Exchange, Outcome, Recording, is_concealed};
use switchboard_runtime::{Responder, Response};

pub(crate) struct Player {
    left: VecDeque<Exchange>,
    /// The outcome of the recorded call, if a host call got no answer.
    end: Response,
    values: Values,
    now: Value,
}

impl Player {
    /// The recording has placeholders for those of the values that are concealed.
    pub(crate) fn of(recording: &Recording, values: Values) -> Self {
        let end = match &recording.outcome {
            Outcome::Failed { kind, detail } if kind == "trap" => {
                Response::Trap(detail.trim_start_matches("injected fault: ").to_owned())
            }
            _ => Response::Never,
        };
        let mut left: VecDeque<_> = recording.exchanges.clone().into();
        for exchange in &mut left {
            let text = |name| exchange.args.get(name).and_then(Value::as_str);
            let (key, name) = (text("key"), text("name"));
            if let Some(answer) = &mut exchange.answer {
                match (key, name) {
                    (Some(key), _) if exchange.function == "config.get" && is_concealed(answer) => {
                        *answer = json!(values.settings.get(key));
                    }
                    (_, Some(name)) if exchange.function == "secrets.get" && answer.get("Ok").is_some() => {
                        *answer = secret(&values, name);
                    }
                    _ => values.concealed.reveal(answer),
                }
            }
        }
        Self { left, end, values, now: json!(super::props::NOW_MS) }
    }

    fn take(&mut self, place: usize) -> Response {
        match self.left.remove(place).and_then(|exchange| exchange.answer) {
            Some(answer) => Response::Answer(answer),
            None => self.end.clone(),
        }
    }

    /// The nearest recorded call that equals this one. The comparison reports the skipped ones before it.
    fn same(&self, function: &str, args: &Value) -> Option<usize> {
        self.left.iter().position(|exchange| exchange.function == function && exchange.args == *args)
    }

    /// The next recorded call, if it is of the same function; log lines before it may have been added or
    /// removed.
    fn alike(&self, function: &str) -> Option<usize> {
        let next = self.left.iter().position(|exchange| exchange.function != "log.log")?;
        (self.left[next].function == function).then_some(next)
    }
}

/// The answer of `secrets.get`. In a test, every granted secret is set.
fn secret(values: &Values, name: &str) -> Value {
    match values.secrets.get(name) {
        Some(value) => json!({ "Ok": value }),
        None => json!({ "Err": "Refused" }),
    }
}

impl Responder for Player {
    fn respond(&mut self, _: usize, function: &'static str, args: &Value) -> Response {
        let mut args = args.clone();
        self.values.concealed.conceal(&mut args);
        let args = &args;
        // A group that may come in any order keeps the skipped calls.
        let group = 1 + self.left.iter().skip(1).take_while(|exchange| exchange.unordered).count();
        if let Some(place) = self.same(function, args) {
            if place >= group {
                self.left.drain(..place);
                return self.take(0);
            }
            let response = self.take(place);
            if function == "clock.now-ms"
                && let Response::Answer(now) = &response
            {
                self.now = now.clone();
            }
            return response;
        }
        match function {
            "log.log" => return Response::Answer(Value::Null),
            "config.get" => {
                let key = args.get("key").and_then(Value::as_str).unwrap_or_default();
                return Response::Answer(json!(self.values.settings.get(key)));
            }
            "secrets.get" => {
                let name = args.get("name").and_then(Value::as_str).unwrap_or_default();
                return Response::Answer(secret(&self.values, name));
            }
            _ => {}
        }
        if let Some(place) = self.alike(function) {
            self.left.drain(..place);
            return self.take(0);
        }
        match function {
            "clock.now-ms" => Response::Answer(self.now.clone()),
            _ => Response::Diverged(match self.left.front() {
                Some(expected) => format!("{function} instead of {}", expected.function),
                None => format!("the recording ends before {function}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_recording::Secrets;

    fn exchange(function: &str, args: Value, answer: Value) -> Exchange {
        Exchange { function: function.into(), unordered: false, args, answer: Some(answer), micros: 0 }
    }

    fn player(exchanges: Vec<Exchange>) -> Player {
        let settings = [("most".to_owned(), "5".to_owned())].into();
        let secrets = [("TOKEN".to_owned(), b"t0ken".to_vec())].into();
        let values = Values { settings, secrets, concealed: Secrets::default() };
        Player { left: exchanges.into(), end: Response::Never, values, now: json!(7) }
    }

    #[test]
    fn goes_on_after_what_it_can_answer() {
        let query = |n: u32| json!({ "statement": n });
        let mut player = player(vec![
            exchange("log.log", json!({ "message": "gone" }), json!(null)),
            exchange("postgres.query", query(1), json!("one")),
            exchange("postgres.query", query(2), json!("two")),
        ]);
        assert_eq!(player.respond(0, "log.log", &json!({ "message": "new" })), Response::Answer(json!(null)));
        assert_eq!(player.respond(1, "config.get", &json!({ "key": "most" })), Response::Answer(json!("5")));
        assert_eq!(player.respond(2, "clock.now-ms", &json!({})), Response::Answer(json!(7)));
        let secret = |name| ("secrets.get", json!({ "name": name }));
        for ((function, args), answer) in [
            (secret("TOKEN"), json!({ "Ok": [116, 48, 107, 101, 110] })),
            (secret("OTHER"), json!({ "Err": "Refused" })),
        ] {
            assert_eq!(player.respond(2, function, &args), Response::Answer(answer));
        }
        assert_eq!(player.respond(3, "postgres.query", &query(9)), Response::Answer(json!("one")));
        assert_eq!(player.respond(4, "postgres.query", &query(2)), Response::Answer(json!("two")));
        let Response::Diverged(why) = player.respond(5, "postgres.query", &query(3)) else { panic!() };
        assert_eq!(why, "the recording ends before postgres.query");
    }

    #[test]
    fn another_function_has_no_answer() {
        let mut player = player(vec![exchange("postgres.query", json!({}), json!("one"))]);
        let Response::Diverged(why) = player.respond(0, "redis.command", &json!({})) else { panic!() };
        assert_eq!(why, "redis.command instead of postgres.query");
    }
}
