//! Sets and cancels timers as its frame says, and does what the payload of a due timer says.
//!
//! Frame: `{"do": "set", "timers": [["key", 1000, {"then": "push"}], …]}` (each due after milliseconds),
//! `{"do": "fill", "from": 0, "count": 200, "at_ms": …}`, or `{"do": "cancel", "key": "key"}`.
//!
//! Payload: `{"then": "push"}`, `"count"`, `"again"` (three times), `"retry"`, `"reject"`, or `"panic"`
//! unless the setting `repaired` is true.

use sdk::channels::{self, Publication};
use sdk::schedule::{self, Tick};
use sdk::timer::{self, Firing, Verdict};
use sdk::timers::{self, Timer};
use sdk::{Problem, config, frame, redis};
use serde_json::{Value, json};

struct Guest;
frame::export!(Guest);
timer::export!(Guest);
schedule::export!(Guest);

impl frame::Handler for Guest {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let payload: Value = serde_json::from_str(&request.payload)
            .map_err(|_| Problem::invalid("payload", "must be JSON"))?;
        let number = |member: &str| payload[member].as_u64().unwrap_or_default();
        let said = match payload["do"].as_str() {
            Some("set") => {
                let timers: Vec<Timer> =
                    payload["timers"].as_array().into_iter().flatten().map(timer).collect();
                match &timers[..] {
                    [one] => format!("{:?}", timers::set(one)),
                    all => format!("{:?}", timers::set_all(all)),
                }
            }
            Some("fill") => {
                let numbers = number("from")..number("from") + number("count");
                let counted = json!({ "then": "count" }).to_string();
                let timers: Vec<Timer> = numbers
                    .map(|n| Timer::at_ms(format!("many-{n}"), number("at_ms"), counted.clone()))
                    .collect();
                format!("{:?}", timers::set_all(&timers))
            }
            Some("cancel") => format!("{:?}", timers::cancel(payload["key"].as_str().unwrap_or_default())),
            _ => "nothing".to_owned(),
        };
        Ok(Some(frame::Reply::new("timers.done", &json!({ "said": said }))))
    }
}

fn timer(wanted: &Value) -> Timer {
    let key = wanted[0].as_str().unwrap_or_default();
    Timer::after_ms(key, wanted[1].as_u64().unwrap_or_default(), wanted[2].to_string())
}

impl timer::Handler for Guest {
    fn fire(firing: Firing) -> Verdict {
        let payload: Value = serde_json::from_str(&firing.payload).expect("a test writes JSON");
        let is_repaired = config::text("repaired").is_some_and(|value| value == "true");
        match payload["then"].as_str() {
            Some("count") => match redis::command(&["SADD", "timers:fired", &firing.key]) {
                Ok(_) => Verdict::Ack,
                Err(_) => Verdict::Retry(100),
            },
            Some("again") => {
                push(&firing);
                let times = payload["times"].as_u64().unwrap_or_default() + 1;
                if times < 3 {
                    let next = json!({ "then": "again", "times": times }).to_string();
                    timers::set(&Timer::after_ms(firing.key, 0, next)).expect("Postgres is there");
                }
                Verdict::Ack
            }
            Some("retry") if firing.attempt == 1 => Verdict::Retry(0),
            Some("reject") => Verdict::Reject("never".to_owned()),
            Some("panic") if !is_repaired => panic!("on purpose"),
            _ => {
                push(&firing);
                Verdict::Ack
            }
        }
    }
}

/// Tells ana about a timer.
fn push(firing: &Firing) {
    let told = json!({ "key": firing.key, "attempt": firing.attempt, "due_ms": firing.due_ms });
    publish("fired", &told);
}

fn publish(frame_type: &str, payload: &Value) {
    let pushed = frame::push(frame_type, &payload.to_string());
    channels::publish(&[Publication::new("user:ana".to_owned(), pushed)]).expect("the bus is there");
}

impl schedule::Handler for Guest {
    fn run(tick: Tick) -> Result<(), String> {
        publish("ticked", &json!({ "name": tick.name, "due_ms": tick.due_ms, "node": tick.node }));
        Ok(())
    }
}
