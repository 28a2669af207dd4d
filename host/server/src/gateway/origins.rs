//! The web pages that a browser lets use this node. Tokens are not cookies, so another site's page gains
//! nothing. Therefore any origin may connect, unless the setting `origins` lists some.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, HeaderValue, ORIGIN, VARY,
};

use switchboard_core::limits::PREFLIGHT_VALID_FOR;
use switchboard_http::answers::Answer;

/// The allowed origins. Empty: any origin.
pub(super) struct Origins(Vec<String>);

impl Origins {
    pub(super) fn new(listed: &[String]) -> Self {
        Self(listed.iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect())
    }

    /// Scheme and host are compared without case.
    pub(super) fn admit(&self, origin: &HeaderValue) -> bool {
        let is = |ours: &String| origin.as_bytes().eq_ignore_ascii_case(ours.as_bytes());
        self.0.is_empty() || self.0.iter().any(is)
    }

    /// Adds the headers that tell a browser whether its page may read this answer, and, in a preflight, what
    /// it may send.
    pub(super) fn add_headers(&self, origin: Option<&HeaderValue>, is_preflight: bool, answer: &mut Answer) {
        let headers = answer.headers_mut();
        if !self.0.is_empty() {
            // Also without an origin: a cache must not give this answer to another page.
            headers.append(VARY, HeaderValue::from(ORIGIN));
        }
        let Some(origin) = origin.filter(|origin| self.admit(origin)) else { return };
        let allowed = if self.0.is_empty() { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if is_preflight && let Some(methods) = headers.get(ALLOW).cloned() {
            const HEADERS: &str =
                "authorization, content-type, idempotency-key, x-request-id, x-switchboard-tester";
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
            headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_VALID_FOR.as_secs().into());
        } else {
            let readable = HeaderValue::from_static("x-request-id, retry-after");
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, readable);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_whole() {
        let origins = Origins::new(&["https://chat.example/".to_owned(), "http://localhost:3000".to_owned()]);
        for (origin, is_admitted) in [
            ("https://chat.example", true),
            ("https://CHAT.example", true),
            ("http://localhost:3000", true),
            ("http://localhost:30001", false),
            ("https://chat.example.evil.test", false),
            ("http://chat.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(origins.admit(&HeaderValue::from_static(origin)), is_admitted, "{origin}");
            assert!(Origins::new(&[]).admit(&HeaderValue::from_static(origin)));
        }
    }
}
