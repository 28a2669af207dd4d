//! Fetch URLs over HTTP. `wit/fetch.wit`. The manifest grants methods and URLs (`grants.fetch`). The time of
//! a fetch counts towards the deadline of the call, so a handler that must answer sets a shorter time-out.
//!
//! ```ignore
//! let profile = fetch::Request::get(format!("{base}/people/{id}"))
//!     .header("accept", "application/json")
//!     .timeout_ms(400)
//!     .send();
//! match profile {
//!     Ok(response) if response.is_success() => …,
//!     Ok(_) | Err(_) => …,
//! }
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::platform::switchboard::host::fetch;
pub use fetch::{Error, Request, Response};

impl Request {
    /// A request without headers and body, which follows no redirects.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: None,
            redirects: 0,
        }
    }

    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header. Names are lower case in the contract, so the name is changed to lower case here.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body and its `content-type`.
    pub fn json(self, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("plain data becomes JSON");
        self.header("content-type", "application/json").body(body)
    }

    /// Sets the longest wait for the whole answer. The call's deadline also ends it.
    pub fn timeout_ms(mut self, timeout_ms: u32) -> Self {
        self.timeout_ms = Some(timeout_ms);
        self
    }

    /// Follows at most so many redirects of a GET or HEAD; the host allows 5.
    pub fn redirects(mut self, redirects: u8) -> Self {
        self.redirects = redirects;
        self
    }

    pub fn send(&self) -> Result<Response, Error> {
        fetch::send(self)
    }
}

/// Sends several requests together. Returns one result for each request, in order.
pub fn send_all(requests: &[Request]) -> Vec<Result<Response, Error>> {
    fetch::send_all(requests)
}

impl Response {
    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first value of a header. Header names are lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON. The error says what is wrong with it, for a log line.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body)
            .map_err(|error| format!("the body is not the expected JSON: {error}"))
    }
}

impl Error {
    /// Whether nothing was sent, so that the same request can be sent again without a second effect.
    pub fn nothing_was_sent(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Busy | Self::Unavailable(_))
    }
}

/// A text for the log.
pub fn describe(error: &Error) -> String {
    match error {
        Error::Refused(why) => format!("refused: {why}"),
        Error::Busy => "busy: too many fetches in flight".to_owned(),
        Error::Unavailable(why) => format!("unavailable: {why}"),
        Error::UnknownOutcome(why) => format!("outcome unknown: {why}"),
        Error::TooLarge(bytes) => format!("over {bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_built_as_the_contract_wants_it() {
        let request = Request::post("https://x.example/a")
            .header("Accept", "text/plain")
            .json(&serde_json::json!({ "a": 1 }))
            .timeout_ms(300);
        assert_eq!(request.headers[0], ("accept".to_owned(), "text/plain".to_owned()));
        assert_eq!(request.headers[1].0, "content-type");
        assert_eq!((request.body.as_slice(), request.timeout_ms), (&b"{\"a\":1}"[..], Some(300)));
        assert_eq!((request.method.as_str(), request.redirects), ("POST", 0));
    }

    #[test]
    fn a_response_is_read() {
        let response = Response {
            status: 204,
            headers: vec![("etag".to_owned(), "x".to_owned())],
            body: b"[1]".to_vec(),
            url: "https://x.example/a".to_owned(),
        };
        assert!(response.is_success() && response.header("etag") == Some("x"));
        assert_eq!(response.json::<Vec<u8>>(), Ok(vec![1]));
        assert!(response.json::<String>().is_err());
        assert!(Error::Busy.nothing_was_sent() && !Error::UnknownOutcome(String::new()).nothing_was_sent());
    }
}
