//! Writes its secrets, and a setting that is not public, wherever a handler can write: log lines, panics,
//! problems, errors of services, reasons of rejected events. It writes each as it is and in the encodings
//! that libraries make. `answer` gives them to the caller, which is a handler's own affair.

use sdk::event::{self, Event, Verdict};
use sdk::postgres::{self, Value};
use sdk::schedule::{self, Tick};
use sdk::{Problem, config, http, log, redis, secrets};
use serde_json::json;

struct Guest;
http::export!(Guest);
schedule::export!(Guest);
event::export!(Guest);

const NAMES: [&str; 3] = ["ODD_BYTES", "PEM", "TOKEN"];

impl http::Handler for Guest {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let values = values();
        let texts: Vec<String> = values.iter().flat_map(|value| encoded(value)).collect();
        let all = texts.join(" | ");
        if config::text("panics").is_some_and(|value| value == "true") {
            redis_and_postgres(&texts);
            panic!("{all}");
        }
        match request.param("how") {
            "answer" => {
                let (says, of_role) = (config::text("says"), postgres::query("select 1", &[]));
                let hex: Vec<String> = values.iter().map(|value| hex(value)).collect();
                let body = json!({ "says": says, "values": hex, "texts": texts, "role": of_role.is_ok() });
                let mut answer = http::Response::json(200, &body);
                answer.headers.push(("x-key".to_owned(), base64(&values[2], false)));
                return Ok(answer);
            }
            "log" => {
                for text in &texts {
                    log::info(text, &[("value", text), (text, "as a name")]);
                }
                // A line that is cut in the middle of a value.
                log::warn(&(".".repeat(4080) + &texts[0]), &[]);
            }
            "panic" => panic!("{all}"),
            "problem" => return Err(Problem { detail: all, ..Problem::internal() }),
            "code" => return Err(Problem { code: texts[0].clone(), ..Problem::internal() }),
            "header" => {
                let mut answer = http::Response::text(200, "{}".to_owned());
                answer.headers.push((texts[0].clone(), texts[1].clone()));
                return Ok(answer);
            }
            "services" => redis_and_postgres(&texts),
            _ => return http::unknown_endpoint(&request),
        }
        Ok(http::Response::text(200, "{}".to_owned()))
    }
}

impl schedule::Handler for Guest {
    fn run(_: Tick) -> Result<(), String> {
        Err(values().iter().flat_map(|value| encoded(value)).collect::<Vec<_>>().join(" | "))
    }
}

impl event::Handler for Guest {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        let texts: Vec<String> = values().iter().flat_map(|value| encoded(value)).collect();
        // The reason is cut at 4 KiB, which is in the middle of the first value.
        let reason = ".".repeat(4070) + &texts.join(" | ");
        event::all(&events, Verdict::Reject(reason))
    }
}

/// The secrets that are set, and the setting.
fn values() -> Vec<Vec<u8>> {
    let secrets = NAMES.iter().filter_map(|name| secrets::get(name).ok());
    let key = config::text("key").unwrap_or_default().into_bytes();
    secrets.chain([key]).collect()
}

/// Services name a value in their errors.
fn redis_and_postgres(texts: &[String]) {
    for text in texts {
        let statement = format!("select '{}'::int", text.replace('\'', "''"));
        let failed = [
            format!("{:?}", postgres::query(&statement, &[])),
            format!("{:?}", postgres::query("select $1::int", &[Value::Text(text.clone())])),
            format!("{:?}", postgres::query("select $1", &[Value::Bytes(text.clone().into_bytes())])),
            format!("{:?}", redis::command(&["GET", &format!("rate:{text}")])),
            format!("{:?}", redis::command(&[text])),
        ];
        log::debug(&failed.join("; "), &[]);
    }
}

/// The texts that libraries make of a value.
fn encoded(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value).into_owned();
    let with_user = |user: &str| [user.as_bytes(), b":", value].concat();
    vec![
        text.clone(),
        text.trim().to_owned(),
        format!("{text:?}"),
        json!({ "value": text }).to_string(),
        format!("{value:?}"),
        json!(value).to_string(),
        hex(value),
        hex(value).to_uppercase(),
        value.iter().map(|byte| format!("%{byte:02X}")).collect(),
        percent(value),
        percent(value).replace("%20", "+"),
        base64(value, false),
        base64(value, true),
        base64(&with_user("an"), false),
        base64(&with_user("ana"), false),
        base64(&with_user("anna"), true),
        hex(&with_user("ana")),
    ]
}

fn hex(value: &[u8]) -> String {
    value.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `encodeURIComponent`, but for five marks.
fn percent(value: &[u8]) -> String {
    let one = |&byte: &u8| match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    value.iter().map(one).collect()
}

fn base64(value: &[u8], for_urls: bool) -> String {
    let last = if for_urls { b"-_" } else { b"+/" };
    let mut text = String::new();
    for group in value.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            let index = (bits >> (18 - 6 * place) & 63) as u8;
            text.push(char::from(match index {
                0..26 => b'A' + index,
                26..52 => b'a' + index - 26,
                52..62 => b'0' + index - 52,
                index => last[usize::from(index - 62)],
            }));
        }
        text.push_str(&"=="[..3 - group.len()]);
    }
    text
}
