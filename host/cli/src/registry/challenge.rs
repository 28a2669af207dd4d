//! The login at a registry (`www-authenticate`): by user name and password, or by a token from the address
//! that the registry names.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Uri;
use serde::Deserialize;

use crate::page;
use switchboard_http::fetch;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// If there are several challenges, it fails: registries send one.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut rest) = (None, None, parameters);
        while let Some((name, value)) = rest.split_once("=\"") {
            let (value, after) = value.split_once('"')?;
            match name.trim_matches([' ', ',']) {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
            rest = after;
        }
        Some(Self::Bearer { realm: realm?, service })
    }
}

/// The URL for the token. An error states why the address cannot be used.
pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &str) -> Result<Uri, String> {
    let separator = if realm.contains('?') { '&' } else { '?' };
    let service = service.map(|service| format!("&service={}", page::escape(service))).unwrap_or_default();
    let url = format!("{realm}{separator}scope={}{service}", page::escape(scope));
    let url: Uri = url.parse().map_err(|_| "it is not a URL".to_owned())?;
    fetch::check(&url).map_err(|error| error.to_string())?;
    Ok(url)
}

pub(super) fn token_of(document: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
    }
    let Token { token, access_token } = serde_json::from_slice(document).ok()?;
    token.or(access_token).filter(|token| !token.is_empty())
}

pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_asks_in_one_of_two_ways() {
        // The challenges of Docker Hub, GitHub and Debian's docker-registry.
        let bearer = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a:pull""#;
        let (realm, service) = ("https://auth.example/token".to_owned(), Some("registry.example".to_owned()));
        assert_eq!(Challenge::parse(bearer), Some(Challenge::Bearer { realm, service }));
        let alone = Challenge::Bearer { realm: "https://a.example/t".into(), service: None };
        assert_eq!(Challenge::parse(r#"bearer realm="https://a.example/t""#), Some(alone));
        assert_eq!(Challenge::parse(r#"Basic realm="test""#), Some(Challenge::Basic));
        for nothing in ["", "Bearer", r#"Bearer service="x""#, r#"Bearer realm="x"#, "Negotiate"] {
            assert_eq!(Challenge::parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_token_is_asked_for_by_tls_or_here() {
        let url =
            |realm: &str| token_url(realm, Some("a b"), "repository:a/b:pull").map(|url| url.to_string());
        let expected = "https://auth.example/token?scope=repository%3Aa%2Fb%3Apull&service=a%20b";
        assert_eq!(url("https://auth.example/token").as_deref(), Ok(expected));
        assert!(url("http://127.0.0.1:5001/token?x=1").unwrap().contains("?x=1&scope="));
        assert!(url("http://auth.example/token").unwrap_err().contains("this machine only"));
        assert!(url("nowhere").is_err());
    }

    #[test]
    fn a_password_is_shown_as_the_rfc_has_it() {
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(token_of(br#"{"access_token":"t","expires_in":300}"#).as_deref(), Some("t"));
        assert_eq!(token_of(br#"{"token":""}"#), None);
        assert_eq!(token_of(b"<html>"), None);
    }
}
