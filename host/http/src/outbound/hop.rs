//! The request of a fetch: what it may contain, and what the host adds. Pure.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Uri};
use ipnet::IpNet;

use super::redirect;
use switchboard_contract::fetch::{Error, Request};
use switchboard_core::fetch_url::FetchUrl;
use switchboard_core::limits;
use switchboard_core::manifest::{FETCH_METHODS, FetchRules};

/// Headers that the host sets, or that would change how the connection works.
pub(super) const OF_THE_TRANSPORT: [&str; 14] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// One request of a fetch: the first, or one after a redirect. It is valid, but not yet granted.
pub(super) struct Hop {
    pub method: Method,
    pub url: FetchUrl,
    /// The URL as the request line has it.
    target: Uri,
    /// Without `host`.
    headers: HeaderMap,
    host: HeaderValue,
    pub body: Bytes,
}

impl Hop {
    pub(super) fn of(request: Request, bytes_max: u64) -> Result<Self, Error> {
        let Request { method, url, headers, body, timeout_ms: _, redirects } = request;
        let rule =
            |holds: bool, what: &str| if holds { Ok(()) } else { Err(Error::Refused(what.to_owned())) };
        let is_known = FETCH_METHODS.contains(&method.as_str());
        rule(is_known, &format!("the method is not one of {}", FETCH_METHODS.join(", ")))?;
        rule(
            redirects <= limits::FETCH_REDIRECTS_MAX,
            &format!("`redirects` is 0 to {}", limits::FETCH_REDIRECTS_MAX),
        )?;
        // Such a body has no meaning in HTTP. A server that does not read it takes it for the next request.
        let has_none = body.is_empty() || !matches!(method.as_str(), "GET" | "HEAD");
        rule(has_none, "a GET or HEAD has no body")?;
        let url = FetchUrl::parse(&url).map_err(Error::Refused)?;
        let headers = headers_of(&headers)?;
        if body.len() as u64 > bytes_max {
            return Err(Error::TooLarge(bytes_max));
        }
        let method = method.parse().map_err(|_| Error::Refused("the method is not valid".to_owned()))?;
        let (target, host) = line_of(&url)?;
        Ok(Self { method, url, target, headers, host, body: body.into() })
    }

    /// Asks the grants. Returns the networks that they name.
    pub(super) fn granted(&self, rules: &FetchRules) -> Result<Vec<IpNet>, Error> {
        rules.permits(self.method.as_str(), &self.url).ok_or_else(|| {
            Error::Refused(format!("{} {} is not granted (grants.fetch)", self.method, self.url))
        })
    }

    /// The request to the target of a redirect.
    pub(super) fn to(self, url: FetchUrl) -> Result<Self, Error> {
        let mut headers = self.headers;
        if !self.url.is_same_origin(&url) {
            let credentials: Vec<_> =
                headers.keys().filter(|name| redirect::is_credential(name)).cloned().collect();
            for name in credentials {
                headers.remove(name);
            }
        }
        let (target, host) = line_of(&url)?;
        Ok(Self { url, target, headers, host, ..self })
    }

    /// Returns true if sending it twice is like sending it once.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    pub(super) fn request(&self) -> hyper::Request<Full<Bytes>> {
        let mut request = hyper::Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        const AGENT: &str = concat!("switchboard/", env!("CARGO_PKG_VERSION"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        request
    }
}

/// The URL as a request has it: the target of the request line, and the `host` header.
fn line_of(url: &FetchUrl) -> Result<(Uri, HeaderValue), Error> {
    let refused =
        || Error::Refused("the URL has characters that a request cannot carry: escape them".to_owned());
    let target = url.target().parse().map_err(|_| refused())?;
    let host = HeaderValue::from_str(url.authority()).map_err(|_| refused())?;
    Ok((target, host))
}

pub(super) fn headers_of(given: &[(String, String)]) -> Result<HeaderMap, Error> {
    let rule = |holds: bool, what: String| if holds { Ok(()) } else { Err(Error::Refused(what)) };
    rule(
        given.len() <= limits::FETCH_HEADERS_MAX,
        format!("a fetch has at most {} headers", limits::FETCH_HEADERS_MAX),
    )?;
    let bytes: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    rule(
        bytes <= limits::FETCH_HEADERS_BYTES_MAX,
        format!("the headers of a fetch have at most {} bytes", limits::FETCH_HEADERS_BYTES_MAX),
    )?;
    let mut headers = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        let shown = || name.chars().take(64).collect::<String>().escape_debug().to_string();
        // Many servers read `content_length` as `content-length`.
        let hyphened = name.replace('_', "-");
        rule(
            !OF_THE_TRANSPORT.contains(&hyphened.as_str()),
            format!("the host sets the header {hyphened} itself"),
        )?;
        let is_lower = !name.contains(|c: char| c.is_ascii_uppercase());
        rule(is_lower, format!("the name of a header is lower case, not `{}`", shown()))?;
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed =
            parsed.map_err(|_| Error::Refused(format!("`{}` is not the name of a header", shown())))?;
        // The value is not part of the error: it may be a secret.
        let value = HeaderValue::from_str(value).map_err(|_| {
            Error::Refused(format!("the value of the header {name} is not one that HTTP can carry"))
        })?;
        headers.append(parsed, value);
    }
    Ok(headers)
}
