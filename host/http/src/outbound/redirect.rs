//! The rules of redirects. Pure. The caller asks the grants about each target, as about a first URL.

use hyper::header::{HeaderMap, HeaderName, LOCATION};
use hyper::{Method, StatusCode};

use switchboard_core::fetch_url::FetchUrl;

/// Returns the target of an answer that is a redirect to follow: of a GET or HEAD, and with a `location`. Any
/// other answer is the answer of the fetch.
///
/// # Errors
/// The target is not a URL that can be fetched; the text is for the handler.
pub(super) fn target(
    method: &Method,
    url: &FetchUrl,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<FetchUrl>, String> {
    let redirects = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if !redirects || !matches!(*method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let location = std::str::from_utf8(location.as_bytes());
    let location = location.map_err(|_| "the target of a redirect is not UTF-8".to_owned())?;
    url.join(location).map(Some).map_err(|why| format!("the target of a redirect cannot be fetched: {why}"))
}

/// Parts of the names of headers that tell who the caller is. Services invent their own: `private-token`,
/// `x-vault-token`, `x-amz-security-token`, `apikey`, `x-hub-signature-256`.
const OF_CREDENTIALS: [&str; 10] = [
    "access-key",
    "api-key",
    "apikey",
    "auth",
    "cookie",
    "credential",
    "password",
    "secret",
    "signature",
    "token",
];

/// Returns true for a header that tells who the caller is. It does not go to another origin.
pub(super) fn is_credential(name: &HeaderName) -> bool {
    OF_CREDENTIALS.iter().any(|part| name.as_str().contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, status: u16, location: &str) -> Result<Option<String>, String> {
        let url = FetchUrl::parse("https://x.example/a/b").unwrap();
        let headers = [(LOCATION, location.parse().unwrap())].into_iter().collect();
        let target = target(&method, &url, StatusCode::from_u16(status).unwrap(), &headers)?;
        Ok(target.map(|target| target.as_str().to_owned()))
    }

    #[test]
    fn only_a_redirect_of_a_get_or_head_has_a_target() {
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(of(Method::GET, status, "/c").unwrap().unwrap(), "https://x.example/c");
            assert_eq!(of(Method::HEAD, status, "c").unwrap().unwrap(), "https://x.example/a/c");
            assert_eq!(of(Method::POST, status, "/c"), Ok(None));
        }
        for status in [200, 201, 300, 304, 305, 306, 404] {
            assert_eq!(of(Method::GET, status, "/c"), Ok(None), "{status}");
        }
        let url = FetchUrl::parse("https://x.example/").unwrap();
        assert_eq!(target(&Method::GET, &url, StatusCode::FOUND, &HeaderMap::new()), Ok(None));
    }

    #[test]
    fn a_target_that_is_no_http_url_is_refused() {
        for (location, rule) in [
            ("file:///etc/passwd", "scheme file"),
            ("javascript:alert(1)", "scheme javascript"),
            ("https://u:p@x.example/", "a user or a password"),
            ("https://x.example/%2e%2e%2fa", "encoded dot segments"),
        ] {
            let why = of(Method::GET, 302, location).unwrap_err();
            assert!(why.contains("the target of a redirect") && why.contains(rule), "{location}: {why}");
        }
    }

    #[test]
    fn credentials_are_known_by_name() {
        for (name, is) in [
            ("authorization", true),
            ("cookie", true),
            ("x-api-key", true),
            ("private-token", true),
            ("x-amz-security-token", true),
            ("apikey", true),
            ("x-hub-signature-256", true),
            ("accept", false),
            ("idempotency-key", false),
            ("user-agent", false),
            ("if-none-match", false),
        ] {
            assert_eq!(is_credential(&HeaderName::from_static(name)), is, "{name}");
        }
    }
}
