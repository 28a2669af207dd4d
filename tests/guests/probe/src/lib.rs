//! Makes the host calls that its frame lists, one after the other, and answers with the result of each: the
//! edges of the contract, as recordings. The same recordings are replayed and compared with real services.
//!
//! `{"calls": [["query", "select $1::int", ["7"]], ["begin"], ["commit"]]}`

use sdk::postgres::{self, Collected, Transaction, Value};
use sdk::{Problem, calls, channels, config, fetch, frame, random, redis, secrets, wake};
use serde_json::json;

struct Probe;
frame::export!(Probe);

impl frame::Handler for Probe {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let calls = request.payload()?.array("calls", 64)?.unwrap_or_default();
        let mut transaction = None;
        let said: Vec<String> = calls.iter().map(|call| one(call, &mut transaction)).collect();
        Ok(Some(frame::Reply::new("probed", &json!({ "said": said }))))
    }
}

fn one(call: &serde_json::Value, transaction: &mut Option<Transaction>) -> String {
    let text = |at: usize| call[at].as_str().unwrap_or_default().to_owned();
    let params = |at: usize| -> Vec<Value> { call[at].as_array().into_iter().flatten().map(param).collect() };
    let texts = |at: usize| -> Vec<String> {
        call[at]
            .as_array()
            .into_iter()
            .flatten()
            .map(|text| text.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    match text(0).as_str() {
        "query" => match transaction {
            Some(open) => format!("{:?}", open.query(&text(1), &params(2))),
            None => format!("{:?}", postgres::query(&text(1), &params(2))),
        },
        "execute" => match transaction {
            Some(open) => format!("{:?}", open.execute(&text(1), &params(2))),
            None => format!("{:?}", postgres::execute(&text(1), &params(2))),
        },
        // A query outside of the open transaction.
        "query beside" => format!("{:?}", postgres::query(&text(1), &params(2))),
        "collect" => {
            let lane = call[3].as_u64().unwrap_or(0) as u32;
            format!("{:?}", postgres::collect(&Collected { statements: texts(1), row: params(2), lane }))
        }
        "begin" => match postgres::begin() {
            Ok(begun) => {
                *transaction = Some(begun);
                "begun".to_owned()
            }
            Err(error) => format!("{error:?}"),
        },
        "commit" => transaction.as_ref().map_or("none".to_owned(), |open| format!("{:?}", open.commit())),
        "drop" => {
            *transaction = None;
            "dropped".to_owned()
        }
        "redis" => {
            let words = texts(1);
            format!("{:?}", redis::command(&words.iter().map(String::as_str).collect::<Vec<_>>()))
        }
        "script" => {
            let (keys, args) = (texts(2), texts(3));
            let words = |words: &'_ [String]| words.to_vec();
            let (keys, args) = (words(&keys), words(&args));
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            format!("{:?}", redis::script(&text(1), &keys, &args))
        }
        "scripts" => {
            let run = |run: &serde_json::Value| {
                let words = |place: usize| {
                    let words = run[place].as_array().into_iter().flatten();
                    words.map(|word| word.as_str().unwrap_or_default().to_owned()).collect()
                };
                redis::ScriptRun { keys: words(0), args: words(1) }
            };
            let runs: Vec<_> = call[2].as_array().into_iter().flatten().map(run).collect();
            format!("{:?}", redis::scripts(&text(1), &runs))
        }
        "publish" => {
            let publication = channels::Publication::new(text(1), text(2));
            format!("{:?}", channels::publish(&[publication]))
        }
        "subscribe" => format!("{:?}", channels::subscribe(&texts(1))),
        "unsubscribe" => format!("{:?}", channels::unsubscribe(&texts(1))),
        "revoke" => format!("{:?}", channels::revoke(&text(1), &text(2))),
        "send" => format!("{:?}", channels::send(&text(1), &text(2))),
        "disconnect" => {
            let code = call[2].as_u64().unwrap_or(0) as u16;
            format!("{:?}", channels::disconnect(&channels::Target::User(text(1)), code, "probe"))
        }
        "wake" => {
            wake::outbox(&[0]);
            "woken".to_owned()
        }
        "random" => format!("{} bytes", random::bytes::<16>().len()),
        "config" => format!("{:?}", config::text(&text(1))),
        "fetch" => format!("{:?}", fetch::Request::new(&text(1), text(2)).body(text(3)).redirects(1).send()),
        "fetch all" => {
            let requests: Vec<_> =
                texts(1).iter().map(|url| fetch::Request::get(url).timeout_ms(500)).collect();
            format!("{:?}", fetch::send_all(&requests))
        }
        "secret" => format!("{:?}", secrets::get(&text(1))),
        "call" => match calls::call(&text(1), &text(2), text(3).as_bytes()) {
            Ok(answer) => String::from_utf8_lossy(&answer).into_owned(),
            Err(error) => calls::describe(&error),
        },
        other => format!("no call `{other}`"),
    }
}

fn param(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Boolean(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Float(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Array(texts) => {
            Value::Texts(texts.iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect())
        }
        serde_json::Value::Object(_) => Value::Bytes(vec![0xff, 0x00]),
    }
}
