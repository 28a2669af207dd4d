//! Makes the fetches that its caller lists, one after the other or together, and returns the result of each.
//!
//! `{"requests": [{"url": "https://…", "method": "POST", "body": "…", "headers": {…}}], "together": true}`

use sdk::{Problem, clock, fetch, http};
use serde_json::{Map, Value, json};

struct Guest;
http::export!(Guest);

/// The part of a body that the result shows.
const SHOWN_BYTES: usize = 1000;

impl http::Handler for Guest {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let mut body = request.json()?;
        let requests = body.array("requests", 128)?.unwrap_or_default();
        let requests: Vec<fetch::Request> = requests.iter().map(request_of).collect();
        let begun = clock::now_ms();
        let results: Vec<_> = match body.boolean("together")? {
            Some(true) => fetch::send_all(&requests),
            _ => requests.iter().map(fetch::Request::send).collect(),
        };
        let took_ms = clock::now_ms().saturating_sub(begun);
        let results: Vec<Value> = results.into_iter().map(shown).collect();
        Ok(http::Response::json(200, &json!({ "results": results, "took_ms": took_ms })))
    }
}

fn request_of(asked: &Value) -> fetch::Request {
    let text = |member: &str| asked[member].as_str().unwrap_or_default().to_owned();
    let number = |member: &str| asked[member].as_u64();
    let method = asked["method"].as_str().unwrap_or("GET");
    let bytes = number("bytes").map_or_else(|| text("body").into_bytes(), |bytes| vec![b'x'; bytes as usize]);
    let mut request = fetch::Request::new(method, text("url")).body(bytes);
    for (name, value) in asked["headers"].as_object().into_iter().flatten() {
        // The contract decides about names that are not lower case.
        request.headers.push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
    }
    request.timeout_ms = number("timeout_ms").map(|ms| ms as u32);
    request.redirects(number("redirects").unwrap_or(0) as u8)
}

fn shown(result: Result<fetch::Response, fetch::Error>) -> Value {
    match result {
        Ok(response) => {
            let headers: Map<String, Value> =
                response.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            let body = &response.body[..response.body.len().min(SHOWN_BYTES)];
            json!({
                "status": response.status,
                "headers": headers,
                "body": String::from_utf8_lossy(body),
                "bytes": response.body.len(),
                "url": response.url,
            })
        }
        Err(error) => {
            let kind = match &error {
                fetch::Error::Refused(_) => "refused",
                fetch::Error::Busy => "busy",
                fetch::Error::Unavailable(_) => "unavailable",
                fetch::Error::UnknownOutcome(_) => "unknown-outcome",
                fetch::Error::TooLarge(_) => "too-large",
            };
            json!({ "error": kind, "why": fetch::describe(&error) })
        }
    }
}
