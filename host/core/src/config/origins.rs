//! The setting `origins`: converts each entry to the form of a browser's `Origin` header, or states why no
//! browser sends it.

/// Scheme and host in lower case, without the scheme's own port and without a slash at the end.
pub(super) fn normal(origin: &str) -> Result<String, String> {
    let no_browser = |reason: &str| Err(format!("`{origin}` matches no page: {reason}"));
    // The `null` origin of a page in a sandbox.
    if origin == "null" {
        return Ok(origin.to_owned());
    }
    if !origin.is_ascii() {
        return no_browser("browsers send international names in their ASCII form, `xn--…`");
    }
    if origin.contains('*') {
        return no_browser("there are no wildcards; leave `origins` empty to admit every page");
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        return no_browser("an origin begins with its scheme, for instance `https://`");
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return no_browser("its scheme is none");
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return no_browser("an origin has no path");
    }
    if authority.contains('@') {
        return no_browser("an origin has no user");
    }
    // The colons of an IPv6 address are inside brackets.
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match authority[after_address..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(after_address + colon);
            (host, Some(&port[1..]))
        }
        None => (authority, None),
    };
    let is_address = host.starts_with('[');
    let is_host = match is_address {
        true => {
            let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            address.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok())
        }
        false => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if !is_host {
        return no_browser("its host is neither a name nor an address");
    }
    let scheme = scheme.to_ascii_lowercase();
    let port = match port {
        None => None,
        Some(text) => match text.parse::<u16>() {
            Ok(number) if number > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Some(number),
            _ => return no_browser("its port is not a number from 1 to 65535"),
        },
    };
    // Browsers omit the default port of a scheme.
    let port =
        port.filter(|port| !matches!((scheme.as_str(), port), ("https" | "wss", 443) | ("http" | "ws", 80)));
    let host = host.to_ascii_lowercase();
    Ok(match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for (given, normal_form) in [
            ("https://chat.example", "https://chat.example"),
            ("https://Chat.Example/", "https://chat.example"),
            ("HTTPS://chat.example:443", "https://chat.example"),
            ("http://chat.example:80/", "http://chat.example"),
            ("http://chat.example:443", "http://chat.example:443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("https://127.0.0.1:8443", "https://127.0.0.1:8443"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("null", "null"),
        ] {
            assert_eq!(normal(given).as_deref(), Ok(normal_form));
        }
    }

    #[test]
    fn what_matches_no_page_is_refused_with_the_reason() {
        for (given, reason) in [
            ("*", "wildcards"),
            ("https://*.example", "wildcards"),
            ("chat.example", "scheme"),
            ("chat.example:443", "scheme"),
            ("", "scheme"),
            ("//chat.example", "scheme"),
            ("ht tp://chat.example", "scheme"),
            ("https://chat.example/app", "path"),
            ("https://chat.example//", "path"),
            ("https://chat.example?x", "path"),
            ("https://chat.example#x", "path"),
            ("https://ana@chat.example", "user"),
            ("https://", "host"),
            ("https://:443", "host"),
            ("https://chat example", "host"),
            ("https://[::1", "host"),
            ("https://chat.example:", "port"),
            ("https://chat.example:0", "port"),
            ("https://chat.example:65536", "port"),
            ("https://chat.example:+443", "port"),
            ("https://bücher.example", "xn--"),
        ] {
            let refusal = normal(given).unwrap_err();
            assert!(refusal.contains(reason) && refusal.contains(&format!("`{given}`")), "{refusal}");
        }
    }
}
