//! The URL of a fetch. A [`FetchUrl`] is absolute, `http` or `https`, and in the normal form of the WHATWG
//! standard: so `http://0177.1/` is `http://127.0.0.1/` everywhere after this module. Grants, name resolution
//! and the request use the same parsed value, so no two parts can read a URL differently.

use std::fmt;

use url::{Host, Url};

use crate::limits;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchUrl(Url);

impl FetchUrl {
    /// Parses the URL of a request.
    ///
    /// # Errors
    /// The broken rule, as a sentence for the author of the handler. It contains no part of the URL but the
    /// scheme.
    pub fn parse(text: &str) -> Result<Self, String> {
        is_plain(text)?;
        match Url::parse(text) {
            Ok(url) => Self::of(url),
            Err(error) => Err(format!("the URL is not absolute and valid: {error}")),
        }
    }

    /// Resolves the target of a redirect, which may be relative. Its fragment is not part of a request.
    ///
    /// # Errors
    /// As for [`Self::parse`].
    pub fn join(&self, location: &str) -> Result<Self, String> {
        is_plain(location)?;
        let mut url = self.0.join(location).map_err(|error| format!("the URL is not valid: {error}"))?;
        url.set_fragment(None);
        Self::of(url)
    }

    fn of(url: Url) -> Result<Self, String> {
        let rule = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        if !matches!(url.scheme(), "http" | "https") {
            let scheme: String = url.scheme().chars().take(16).collect();
            return Err(format!("scheme {scheme} is not supported: use https or http"));
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        rule(!has_user, "a URL must not contain a user or a password")?;
        rule(url.fragment().is_none(), "a URL must not contain a fragment")?;
        rule(url.port() != Some(0), "port 0 is not a port of a server")?;
        let host = url.host_str().unwrap_or_default();
        rule(!host.is_empty(), "the URL has no host")?;
        rule(!host.ends_with('.'), "the host of a URL must not end with a dot")?;
        rule(
            !has_encoded_dots(url.path()),
            "the path of a URL must not contain encoded dot segments (`.` or `..` between slashes)",
        )?;
        // The normal form can be longer than the text, because it escapes.
        rule(url.as_str().len() <= limits::FETCH_URL_BYTES_MAX, &too_long())?;
        Ok(Self(url))
    }

    pub fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    pub fn host(&self) -> Host<&str> {
        self.0.host().expect("it was checked that the URL has a host")
    }

    /// The host as a name or an address, without the brackets of an IPv6 address.
    pub fn host_text(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().expect("http and https have a default port")
    }

    /// The normalised path, which begins with `/`.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// The `host` header: the port only where it is not the scheme's own.
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// Path and query, as a request line has them.
    pub fn target(&self) -> &str {
        &self.0[url::Position::BeforePath..url::Position::AfterQuery]
    }

    /// The URL without its query, for messages: a query may contain a token.
    pub fn shown(&self) -> &str {
        &self.0[..url::Position::AfterPath]
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether both URLs have the same scheme, host and port.
    pub fn is_same_origin(&self, other: &Self) -> bool {
        self.scheme() == other.scheme() && self.host() == other.host() && self.port() == other.port()
    }
}

impl fmt::Display for FetchUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

fn too_long() -> String {
    format!("a URL has at most {} bytes", limits::FETCH_URL_BYTES_MAX)
}

/// Checks the text before it is parsed. The standard removes tabs and line breaks, and reads `\` as `/`;
/// a person who reads the URL may see another one.
fn is_plain(text: &str) -> Result<(), String> {
    if text.len() > limits::FETCH_URL_BYTES_MAX {
        return Err(too_long());
    }
    if text.contains(|c: char| c.is_ascii_control() || c == ' ' || c == '\\') {
        return Err("a URL must not contain control characters, spaces or backslashes".to_owned());
    }
    Ok(())
}

/// Whether a server that decodes `%2F` or `%5C` before it splits the path would see a dot segment. The
/// standard has already resolved plain dot segments and `%2e`. Parameters after `;` are not part of a segment
/// for some servers.
fn has_encoded_dots(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let decoded = lower.replace("%2f", "/").replace("%5c", "/").replace("%3b", ";").replace("%2e", ".");
    decoded.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn every_spelling_of_an_address_is_that_address() {
        for text in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://0177.0.0.01/",
            "http://127.0.0.1:80/",
            "HTTP://127.0.0.1",
            // Full-width digits, and the full stop of Chinese.
            "http://１２７.０.０.１/",
            "http://127。0。0。1/",
            "http://%31%32%37.0.0.1/",
        ] {
            let url = FetchUrl::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(url.host(), Host::<&str>::Ipv4(Ipv4Addr::LOCALHOST), "{text}");
            assert_eq!((url.authority(), url.port(), url.target()), ("127.0.0.1", 80, "/"), "{text}");
        }
        let mapped = FetchUrl::parse("https://[::FFFF:127.0.0.1]:8443/a?b=c").unwrap();
        assert_eq!((mapped.host_text(), mapped.port()), ("::ffff:7f00:1", 8443));
        assert_eq!((mapped.authority(), mapped.target()), ("[::ffff:7f00:1]:8443", "/a?b=c"));
    }

    #[test]
    fn a_url_that_is_no_target_is_refused_with_the_rule() {
        for (text, rule) in [
            ("ftp://x.example/", "scheme ftp is not supported: use https or http"),
            ("file:///etc/passwd", "scheme file"),
            ("gopher://x.example/", "scheme gopher"),
            ("data:text/plain,x", "scheme data"),
            ("unix:/run/x.sock", "scheme unix"),
            ("https://u@x.example/", "a user or a password"),
            ("https://u:p@x.example/", "a user or a password"),
            ("https://:p@x.example/", "a user or a password"),
            ("https://good.example\\@evil.example/", "backslashes"),
            ("https://x.example/a b", "spaces"),
            ("https://x.exa\tmple/", "control characters"),
            ("https://x.example/\r\nhost: y", "control characters"),
            ("https://x.example/#a", "a fragment"),
            ("https://x.example./", "end with a dot"),
            ("https://x.example:0/", "port 0"),
            ("https://x.example:65536/", "not absolute and valid"),
            ("https:///", "not absolute and valid"),
            ("//x.example/", "not absolute and valid"),
            ("/a", "not absolute and valid"),
            ("", "not absolute and valid"),
            ("https://x.example/v1/..%2fadmin", "encoded dot segments"),
            ("https://x.example/v1/%2e%2e%2Fadmin", "encoded dot segments"),
            ("https://x.example/v1/..%5Cadmin", "encoded dot segments"),
            ("https://x.example/v1/..;/admin", "encoded dot segments"),
            ("https://x.example/v1/..;a=b/admin", "encoded dot segments"),
        ] {
            let why = FetchUrl::parse(text).expect_err(text);
            assert!(why.contains(rule), "{text}: {why}");
        }
        let long = format!("https://x.example/{}", "a".repeat(limits::FETCH_URL_BYTES_MAX));
        assert!(FetchUrl::parse(&long).unwrap_err().contains("at most 8192 bytes"));
        // Escapes make it longer than the text was.
        let grows = format!("https://x.example/{}", "ü".repeat(limits::FETCH_URL_BYTES_MAX / 3));
        assert!(FetchUrl::parse(&grows).unwrap_err().contains("at most 8192 bytes"));
    }

    #[test]
    fn what_is_shown_has_no_query() {
        let url = FetchUrl::parse("https://x.example:8443/a/./b/../c?token=secret").unwrap();
        assert_eq!(url.to_string(), "https://x.example:8443/a/c");
        assert!(url.as_str().ends_with("?token=secret"));
    }

    #[test]
    fn a_redirect_is_resolved_and_checked_in_the_same_way() {
        let base = FetchUrl::parse("https://x.example/a/b?c").unwrap();
        let to = |location: &str| base.join(location).map(|url| url.as_str().to_owned());
        assert_eq!(to("../d#part").unwrap(), "https://x.example/d");
        assert_eq!(to("//y.example/e").unwrap(), "https://y.example/e");
        assert_eq!(to("?f").unwrap(), "https://x.example/a/b?f");
        assert!(to("file:///etc/passwd").unwrap_err().contains("scheme file"));
        assert!(to("https://u:p@x.example/").unwrap_err().contains("password"));
        assert!(base.is_same_origin(&FetchUrl::parse("https://x.example:443/z").unwrap()));
        for other in ["http://x.example/", "https://x.example:444/", "https://y.example/"] {
            assert!(!base.is_same_origin(&FetchUrl::parse(other).unwrap()), "{other}");
        }
    }
}
