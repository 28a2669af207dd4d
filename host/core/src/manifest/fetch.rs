//! `grants.fetch`: the URLs that a handler may fetch. A manifest has [`FetchGrant`]s, whose texts may contain
//! settings (`{key}`). When the terms of a release are made, [`FetchRules::expand`] puts in the effective
//! settings, and parses. Pure: nothing is resolved here.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use url::{Host, Url};

use super::Manifest;
use crate::error::Error;
use crate::fetch_url::FetchUrl;
use crate::limits;

/// The methods that a grant may name.
pub const FETCH_METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// One grant, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchGrant {
    pub methods: Vec<String>,
    /// `https://profiles.example/v1/*`. The host is a name, an address, `*` (any host) or `*.name` (any host
    /// below). Without a port, it is the scheme's own; `:*` is any port. The path is exact, or a prefix with
    /// a final `*`. The query is free. `{key}` stands for the value of a setting; if that is empty, the grant
    /// permits nothing.
    pub url: String,
    /// Networks (`10.1.0.0/16`) that are allowed in addition to public addresses; one text may name several,
    /// with commas. An address in `url` names itself.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// The grants with the settings of the operator, ready to be asked. A clone is cheap.
#[derive(Clone, Debug, Default)]
pub struct FetchRules(Arc<[FetchRule]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FetchRule {
    methods: Vec<String>,
    scheme: String,
    host: HostPattern,
    /// `None`: any port.
    port: Option<u16>,
    path: PathPattern,
    addresses: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Any,
    /// Every name below this one, but not the name itself.
    Below(String),
    Exactly(Host<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PathPattern {
    Exactly(String),
    Below(String),
}

impl FetchGrant {
    /// Checks all that does not depend on the values of settings.
    pub(super) fn check(&self, has_setting: impl Fn(&str) -> bool) -> Result<(), String> {
        let rule = |holds: bool, what: String| if holds { Ok(()) } else { Err(self.wrong(&what)) };
        rule(!self.methods.is_empty(), "`methods` is empty".to_owned())?;
        for method in &self.methods {
            rule(
                FETCH_METHODS.contains(&method.as_str()),
                format!("method `{method}` is not one of {}", FETCH_METHODS.join(", ")),
            )?;
        }
        let mut is_complete = true;
        for text in std::iter::once(&self.url).chain(&self.addresses) {
            for part in parts(text).map_err(|what| self.wrong(&what))? {
                let Part::Setting(key) = part else { continue };
                is_complete = false;
                rule(
                    has_setting(key),
                    format!("`{{{key}}}` names a setting that the manifest does not have"),
                )?;
            }
        }
        if is_complete {
            self.rule(&BTreeMap::new())?;
        }
        Ok(())
    }

    /// The rule with these settings; none if the value of a setting in `url` is empty.
    fn rule(&self, settings: &BTreeMap<String, String>) -> Result<Option<FetchRule>, String> {
        // A value is not part of an error: it may be a secret.
        let keys: Vec<_> =
            [&self.url].into_iter().chain(&self.addresses).flat_map(|text| keys(text)).collect();
        let wrong = |what: &str| match keys.is_empty() {
            true => self.wrong(what),
            false => self.wrong(&format!("with the present values of {}: {what}", keys.join(", "))),
        };
        let Some(url) = filled(&self.url, settings) else { return Ok(None) };
        let (scheme, host, port, path) = target(&url, keys.is_empty()).map_err(|what| wrong(&what))?;
        let mut addresses = Vec::new();
        if let HostPattern::Exactly(Host::Ipv4(address)) = host {
            addresses.push(IpNet::from(std::net::IpAddr::V4(address)));
        }
        if let HostPattern::Exactly(Host::Ipv6(address)) = host {
            addresses.push(IpNet::from(std::net::IpAddr::V6(address).to_canonical()));
        }
        for text in &self.addresses {
            let Some(text) = filled(text, settings) else { continue };
            for network in text.split([',', ' ']).filter(|network| !network.is_empty()) {
                addresses.push(network_of(network).ok_or_else(|| {
                    wrong("`addresses` is a list of networks such as 10.1.0.0/16 or fd00:1::/64")
                })?);
            }
        }
        if addresses.len() > limits::FETCH_ADDRESSES_MAX {
            return Err(wrong(&format!(
                "`addresses` names at most {} networks",
                limits::FETCH_ADDRESSES_MAX
            )));
        }
        Ok(Some(FetchRule { methods: self.methods.clone(), scheme, host, port, path, addresses }))
    }

    fn wrong(&self, what: &str) -> String {
        format!("`grants.fetch` with the URL `{}`: {what}", self.url)
    }
}

/// As `inspect` shows it.
impl std::fmt::Display for FetchGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.methods.join(", "), self.url)?;
        match self.addresses.is_empty() {
            true => Ok(()),
            false => write!(f, "  (also at {})", self.addresses.join(", ")),
        }
    }
}

impl Manifest {
    /// Checks that the grants to fetch are valid with these live settings and the defaults. Otherwise no node
    /// could use them.
    pub fn check_fetches(&self, live: &BTreeMap<String, String>) -> Result<(), String> {
        let defaults = self.config.iter().map(|(key, value)| (key.clone(), Self::setting(value)));
        let mut settings: BTreeMap<String, String> = defaults.collect();
        let known = live.iter().filter(|(key, _)| self.has_setting(key));
        settings.extend(known.map(|(key, value)| (key.clone(), value.clone())));
        self.grants.fetch.iter().try_for_each(|grant| grant.rule(&settings).map(drop))
    }
}

impl FetchRules {
    /// Puts the effective settings of the handler into its grants. It is called whenever these settings may
    /// have changed.
    ///
    /// # Errors
    /// A value makes a grant invalid. The error names the grant and the settings, and not their values.
    pub fn expand(grants: &[FetchGrant], settings: &BTreeMap<String, String>) -> Result<Self, Error> {
        let rules = grants.iter().filter_map(|grant| grant.rule(settings).transpose());
        rules.collect::<Result<Arc<[_]>, _>>().map(Self).map_err(Error::Manifest)
    }

    /// Whether a grant permits this method at this URL. If so, returns the networks that it may be at, in
    /// addition to public addresses: those of all grants that permit it.
    pub fn permits(&self, method: &str, url: &FetchUrl) -> Option<Vec<IpNet>> {
        let mut permitting = self.0.iter().filter(|rule| rule.permits(method, url)).peekable();
        permitting.peek()?;
        Some(permitting.flat_map(|rule| rule.addresses.iter().copied()).collect())
    }
}

impl FetchRule {
    fn permits(&self, method: &str, url: &FetchUrl) -> bool {
        self.methods.iter().any(|granted| granted == method)
            && self.scheme == url.scheme()
            && self.port.is_none_or(|port| port == url.port())
            && match (&self.host, url.host()) {
                (HostPattern::Any, _) => true,
                (HostPattern::Below(name), Host::Domain(host)) => {
                    host.strip_suffix(name.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
                }
                (HostPattern::Below(_), Host::Ipv4(_) | Host::Ipv6(_)) => false,
                (HostPattern::Exactly(granted), host) => host == *granted,
            }
            && match &self.path {
                PathPattern::Exactly(path) => path == url.path(),
                PathPattern::Below(prefix) => url.path().starts_with(prefix.as_str()),
            }
    }
}

/// The parts of a grant's text.
enum Part<'a> {
    Text(&'a str),
    Setting(&'a str),
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        let (key, after) = after.split_once('}').ok_or("`{` has no `}`")?;
        if key.is_empty() || key.contains('{') {
            return Err("`{}` has no name of a setting".to_owned());
        }
        parts.extend([Part::Text(before), Part::Setting(key)]);
        rest = after;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

fn keys(text: &str) -> Vec<&str> {
    let parts = parts(text).unwrap_or_default();
    parts
        .into_iter()
        .filter_map(|part| if let Part::Setting(key) = part { Some(key) } else { None })
        .collect()
}

/// The text with the values of settings; `None` if one of them is empty or not set. A `/` at the end of a
/// value is left out before another one, so that `https://x.example/` and `https://x.example` mean the same.
fn filled(text: &str, settings: &BTreeMap<String, String>) -> Option<String> {
    let mut filled = String::new();
    for part in parts(text).ok()? {
        match part {
            Part::Text(text) => {
                if text.starts_with('/') && filled.ends_with('/') {
                    filled.pop();
                }
                filled.push_str(text);
            }
            Part::Setting(key) => filled.push_str(settings.get(key).filter(|value| !value.is_empty())?),
        }
    }
    Some(filled)
}

/// Parses the pattern of a URL. An error has a part of the pattern only if `may_show` it.
fn target(pattern: &str, may_show: bool) -> Result<(String, HostPattern, Option<u16>, PathPattern), String> {
    let rule = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let form = "a URL is written as https://host/path or https://host:port/path, with a `*` only for the whole host, its \
                first label, the port, or at the end of the path";
    let (scheme, rest) = pattern.split_once("://").ok_or(form)?;
    rule(matches!(scheme, "https" | "http"), "the scheme of a URL is https or http")?;
    let at = rest.find('/').ok_or("the URL has no path: end it with /*, or with the exact path")?;
    let (authority, path) = rest.split_at(at);
    rule(!authority.contains('@'), "a URL must not contain a user or a password")?;
    rule(!path.contains(['?', '#']), "a URL has no query and no fragment here: every query is permitted")?;

    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        None => Some(if scheme == "https" { 443 } else { 80 }),
        Some("*") => None,
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or(form)?),
    };
    let parsed = |host: &str| -> Result<Host<String>, String> {
        rule(!host.contains('*') && !host.ends_with('.'), form)?;
        let url = Url::parse(&format!("{scheme}://{host}/")).map_err(|error| format!("the host: {error}"))?;
        url.host().map(|host| host.to_owned()).ok_or_else(|| form.to_owned())
    };
    let host = match (host, host.strip_prefix("*.")) {
        ("*", _) => HostPattern::Any,
        (_, Some(name)) => match parsed(name)? {
            Host::Domain(name) => HostPattern::Below(name),
            Host::Ipv4(_) | Host::Ipv6(_) => return Err(form.to_owned()),
        },
        (host, None) => HostPattern::Exactly(parsed(host)?),
    };

    let (path, is_prefix) = path.strip_suffix('*').map_or((path, false), |prefix| (prefix, true));
    rule(!path.contains('*'), form)?;
    // A path that is not in its normal form would permit nothing, or something else than it seems to.
    let normal = FetchUrl::parse(&format!("https://x.example{path}"))?;
    let as_normal = match may_show {
        true => format!("write its path as `{}`", normal.path()),
        false => "its path is not in its normal form, without dot segments and percent-encoded".to_owned(),
    };
    rule(normal.path() == path, &as_normal)?;
    let path = path.to_owned();
    Ok((
        scheme.to_owned(),
        host,
        port,
        if is_prefix { PathPattern::Below(path) } else { PathPattern::Exactly(path) },
    ))
}

/// A network, or one address. An IPv4 address inside an IPv6 one is the IPv4 address.
fn network_of(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network),
        Err(_) => text.parse::<std::net::IpAddr>().ok().map(|address| IpNet::from(address.to_canonical())),
    }
}

/// One text, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text or a list of texts")]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(text) => vec![text],
        Written::Many(texts) => texts,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(url: &str) -> FetchGrant {
        FetchGrant { methods: vec!["GET".to_owned()], url: url.to_owned(), addresses: Vec::new() }
    }

    fn rules(url: &str) -> FetchRules {
        FetchRules::expand(&[grant(url)], &BTreeMap::new()).unwrap_or_else(|why| panic!("{url}: {why}"))
    }

    fn permits(rules: &FetchRules, url: &str) -> bool {
        FetchUrl::parse(url).is_ok_and(|url| rules.permits("GET", &url).is_some())
    }

    #[test]
    fn a_pattern_permits_only_its_urls() {
        for (pattern, permitted, refused) in [
            (
                "https://profiles.example/v1/*",
                &[
                    "https://profiles.example/v1/",
                    "https://PROFILES.example:443/v1/a/b?c=d",
                    "https://profiles.example/v2/../v1/x",
                ][..],
                &[
                    "http://profiles.example/v1/a",
                    "https://profiles.example/v1",
                    "https://profiles.example/v10/",
                    "https://profiles.example:444/v1/a",
                    "https://x.profiles.example/v1/a",
                    "https://profiles.example.evil.example/v1/a",
                    "https://profiles.example@evil.example/v1/a",
                ][..],
            ),
            (
                "https://x.example/hook",
                &["https://x.example/hook", "https://x.example/hook?a=b"],
                &["https://x.example/hook/", "https://x.example/hook2", "https://x.example/HOOK"],
            ),
            (
                "https://*/*",
                &["https://x.example/", "https://93.184.216.34/a"],
                &["https://x.example:8443/", "http://x.example/"],
            ),
            (
                "http://*:*/*",
                &["http://x.example:8080/", "http://[2606:4700::1]:1/"],
                &["https://x.example/"],
            ),
            (
                "https://*.x.example:8443/*",
                &["https://a.x.example:8443/", "https://a.b.x.example:8443/"],
                &[
                    "https://x.example:8443/",
                    "https://ax.example:8443/",
                    "https://a.x.example/",
                    "https://a.x.example.evil.example:8443/",
                ],
            ),
            ("http://127.0.0.1:8080/*", &["http://2130706433:8080/"], &["http://127.0.0.2:8080/"]),
            (
                "https://münchen.example/*",
                &["https://xn--mnchen-3ya.example/"],
                &["https://munchen.example/"],
            ),
        ] {
            let rules = rules(pattern);
            for url in permitted {
                assert!(permits(&rules, url), "{pattern} must permit {url}");
            }
            for url in refused {
                assert!(!permits(&rules, url), "{pattern} must not permit {url}");
            }
            let post = FetchUrl::parse(permitted[0]).unwrap();
            assert!(rules.permits("POST", &post).is_none(), "{pattern}: the method is not granted");
        }
    }

    #[test]
    fn dot_segments_do_not_leave_a_grant() {
        let rules = rules("https://x.example/v1/*");
        for url in [
            "https://x.example/v1/../admin",
            "https://x.example/v1/%2e%2e/admin",
            "https://x.example/v1/.%2E/admin",
            "https://x.example/v1/a/../../admin",
            "https://x.example/v1/..%2fadmin",
            "https://x.example/v1/%2E%2e%5Cadmin",
            "https://x.example/v1/..;/admin",
        ] {
            assert!(!permits(&rules, url), "{url}");
        }
    }

    #[test]
    fn a_wrong_pattern_is_refused_with_the_rule() {
        for (pattern, rule) in [
            ("x.example/*", "is written as https://host/path"),
            ("ftp://x.example/*", "is https or http"),
            ("https://x.example", "has no path"),
            ("https://u:p@x.example/*", "a user or a password"),
            ("https://x.example/*?a=b", "no query"),
            ("https://x.*.example/*", "is written as"),
            ("https://x*.example/*", "is written as"),
            ("https://*.127.0.0.1/*", "is written as"),
            ("https://x.example:0/*", "is written as"),
            ("https://x.example:99999/*", "is written as"),
            ("https://x.example/a*b", "is written as"),
            ("https://x.example/v1/../*", "write its path as `/`"),
            ("https://x.example/ü", "write its path as `/%C3%BC`"),
            ("https://{}/*", "has no name of a setting"),
            ("https://{host/*", "has no `}`"),
            ("https://{host}/*", "names a setting that the manifest does not have"),
            ("https:///*", "the host"),
        ] {
            let why = grant(pattern).check(|_| false).expect_err(pattern);
            assert!(why.contains(rule), "{pattern}: {why}");
        }
        let put = FetchGrant { methods: vec!["get".to_owned()], ..grant("https://x.example/*") };
        assert!(put.check(|_| false).unwrap_err().contains("method `get` is not one of GET"));
        let none = FetchGrant { methods: Vec::new(), ..grant("https://x.example/*") };
        assert!(none.check(|_| false).unwrap_err().contains("`methods` is empty"));
        let not = FetchGrant { addresses: vec!["10.0.0.0/33".to_owned()], ..grant("https://x.example/*") };
        assert!(not.check(|_| false).unwrap_err().contains("a list of networks"));
    }

    #[test]
    fn settings_are_put_in_and_an_empty_one_permits_nothing() {
        let grant = FetchGrant {
            addresses: vec!["{networks}".to_owned(), "192.168.7.1".to_owned()],
            ..grant("{base}/people/*")
        };
        let with = |base: &str, networks: &str| {
            let settings =
                [("base", base), ("networks", networks)].map(|(k, v)| (k.to_owned(), v.to_owned()));
            FetchRules::expand(std::slice::from_ref(&grant), &settings.into())
        };
        let url = FetchUrl::parse("https://x.example:8443/people/7").unwrap();
        for base in ["https://x.example:8443", "https://x.example:8443/"] {
            let networks = with(base, "10.1.0.0/16, fd00::/8").unwrap().permits("GET", &url).unwrap();
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            assert_eq!(networks, ["10.1.0.0/16", "fd00::/8", "192.168.7.1/32"], "{base}");
        }
        assert_eq!(with("https://x.example:8443", "").unwrap().permits("GET", &url).unwrap().len(), 1);
        assert_eq!(with("", "").unwrap().permits("GET", &url), None);
        let why = with("s3cret-host", "").unwrap_err().to_string();
        assert!(why.contains("{base}/people/*") && why.contains("base, networks"), "{why}");
        assert!(!why.contains("s3cret"), "a value may be a secret: {why}");
        let why = with("https://x.example/s3cret/..", "").unwrap_err().to_string();
        assert!(why.contains("normal form") && !why.contains("s3cret"), "{why}");
    }

    #[test]
    fn an_address_in_a_url_names_itself_and_grants_are_joined() {
        let url = FetchUrl::parse("http://127.0.0.1:8080/a").unwrap();
        let networks = rules("http://127.0.0.1:8080/*").permits("GET", &url).unwrap();
        assert_eq!(networks, ["127.0.0.1/32".parse::<IpNet>().unwrap()]);
        let (any, one) = (grant("http://*:*/*"), grant("http://127.0.0.1:8080/*"));
        let both = FetchRules::expand(&[any.clone(), one], &BTreeMap::new()).unwrap();
        assert_eq!(both.permits("GET", &url).unwrap().len(), 1);
        let any = FetchRules::expand(&[any], &BTreeMap::new()).unwrap();
        assert_eq!(any.permits("GET", &url), Some(Vec::new()), "permitted, but only at public addresses");
    }

    #[test]
    fn a_manifest_keeps_its_grants_and_names_the_wrong_one() {
        let text = "name = \"x\"\non.http = [{ method = \"GET\", path = \"/x\" }]\n[config]\nbase = \"\"\n[grants]\n\
                    fetch = [{ methods = [\"GET\"], url = \"{base}/*\", addresses = \"10.0.0.0/8\" }]";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.grants.fetch[0].addresses, ["10.0.0.0/8"]);
        let again = Manifest::parse(&toml::to_string(&manifest).unwrap()).unwrap();
        assert_eq!(again.grants, manifest.grants);
        let why = Manifest::parse(&text.replace("{base}", "{other}")).unwrap_err().to_string();
        assert!(why.contains("`grants.fetch` with the URL `{other}/*`"), "{why}");
    }

    proptest! {
        /// However a URL is spelled: if a rule for `/v1/*` permits it, the server gets a path below `/v1/`,
        /// even if it decodes the path once more before it looks for dot segments.
        #[test]
        fn no_spelling_of_a_path_leaves_a_grant(
            segments in prop::collection::vec(
                prop::sample::select(vec![
                    "v1", "..", ".", "%2e", "%2E%2e", ".%2e", "%2f", "%5c", "a", ";", "..;", "%2e%2e%2f", "", "%252e",
                ]),
                0..8,
            ),
        ) {
            let url = format!("https://x.example/v1/{}", segments.join("/"));
            let Ok(url) = FetchUrl::parse(&url) else { return Ok(()) };
            if rules("https://x.example/v1/*").permits("GET", &url).is_none() {
                return Ok(());
            }
            let decoded = url.path().to_lowercase();
            let decoded = decoded.replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
            let mut stack = Vec::new();
            for segment in decoded.split('/').skip(1) {
                match segment.split(';').next().unwrap_or_default() {
                    ".." => { stack.pop(); }
                    "." => {}
                    _ => stack.push(segment),
                }
                prop_assert!(stack.first().is_none_or(|first| *first == "v1"), "{url}: {decoded}");
            }
            prop_assert_eq!(stack.first(), Some(&"v1"), "{}", decoded);
        }

        /// No text makes the parser of patterns panic, and a pattern that it accepts can be asked.
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,60}", url in "https?://[a-z0-9.:*\\[\\]@%/?#-]{0,40}") {
            for pattern in [&text, &url] {
                let grants = [grant(pattern)];
                if let (Ok(rules), Ok(url)) = (FetchRules::expand(&grants, &BTreeMap::new()), FetchUrl::parse(&url)) {
                    rules.permits("GET", &url);
                }
            }
        }
    }
}
