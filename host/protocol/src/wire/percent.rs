//! Percent-decoding (RFC 3986, and forms for queries). The gateway decodes once; no later code decodes again.

/// Decodes one path segment or parameter. `None`: an escape is cut or wrong, or the result is not UTF-8.
pub fn decode(raw: &str) -> Option<String> {
    unescape(raw, false)
}

/// The pairs of a query string, in order. A `+` is a space, as in the forms of browsers.
pub fn decode_query(raw: &str) -> Option<Vec<(String, String)>> {
    raw.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(key, true)?, unescape(value, true)?))
        })
        .collect()
}

fn unescape(raw: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' if plus_is_space => b' ',
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_text_once() {
        assert_eq!(decode("a%2Fb%20%C3%BC+%2541").as_deref(), Some("a/b ü+%41"));
        for bad in ["%", "%4", "%zz", "%+1", "%ff", "%c3%28"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_query_keeps_its_order_and_its_repetitions() {
        let pairs = decode_query("q=con+duong&&q=%C4%91&flag&e=a=b").unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("q", "con duong"), ("q", "đ"), ("flag", ""), ("e", "a=b")]);
        assert_eq!(decode_query("q=%ff"), None);
    }
}
