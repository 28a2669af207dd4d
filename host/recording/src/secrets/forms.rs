//! The texts in which a value may appear: as it is, and in the simple encodings that a handler or a library
//! applies before it writes the value. Each form has a label, which the placeholder names, so that a replay
//! can insert the same form.

use std::collections::HashSet;
use std::fmt::Write as _;

use switchboard_core::limits::SECRET_BYTES_MIN;

/// One form of a value.
#[derive(Debug, PartialEq)]
pub(super) struct Form {
    /// Empty for the value as it is.
    pub label: String,
    pub text: String,
}

/// Returns the forms of a value, each text once: the first label counts. A value with less than
/// [`SECRET_BYTES_MIN`] bytes has no forms, because `5` or `true` would match everywhere.
///
/// A value that begins or ends with white space is often trimmed before it is used, so the trimmed value has
/// forms too. A value of several lines may be written line by line, so each of its lines is a form. A value
/// may be escaped and then encoded again (JSON in base64), so its long parts that no encoder of text changes
/// have forms too.
pub(super) fn forms(value: &[u8]) -> Vec<Form> {
    let mut forms = Forms::default();
    let text = String::from_utf8_lossy(value);
    // A handler that reads the value as text encodes the text, and not the bytes that are no UTF-8.
    let ways = [
        ("", value),
        ("trimmed", value.trim_ascii()),
        ("text", text.as_bytes()),
        ("text trimmed", text.trim().as_bytes()),
    ];
    for (at, (label, way)) in ways.iter().enumerate() {
        if ways[..at].iter().all(|(_, known)| known != way) {
            forms.add_all(label, way);
        }
    }
    let mut parts = 0;
    for (at, line) in text.lines().enumerate() {
        // The first and the last line of a PEM file are the same in every file.
        if line.starts_with("-----") {
            continue;
        }
        forms.add(format!("line {}", at + 1), line.to_owned());
        for part in line.split(|c: char| !is_plain(c)).filter(|part| is_telling(part)) {
            parts += 1;
            forms.add_all(&format!("part {parts}"), part.as_bytes());
        }
    }
    forms.all
}

/// Whether every encoder of text leaves the character as it is.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~".contains(c)
}

/// Whether a part of a value looks like a part of a key, and not like a word: `postgres` in a URL would match
/// everywhere.
fn is_telling(part: &str) -> bool {
    const CHARS_MIN: usize = 12;
    let has = |is: fn(&u8) -> bool| part.as_bytes().iter().any(is);
    part.len() >= CHARS_MIN && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

#[derive(Default)]
struct Forms {
    all: Vec<Form>,
    texts: HashSet<String>,
}

impl Forms {
    fn add_all(&mut self, prefix: &str, value: &[u8]) {
        if value.len() < SECRET_BYTES_MIN {
            return;
        }
        let label = |name: &str| [prefix, name].join(" ").trim().to_owned();
        let text = String::from_utf8_lossy(value);
        self.add(label(""), text.clone().into_owned());
        // Hosts in URLs and names of headers are in lower case.
        self.add(label("lower"), text.to_ascii_lowercase());
        // One character for each byte: the binary strings of JavaScript, the `latin-1` of Python.
        self.add(label("latin1"), value.iter().map(|&byte| char::from(byte)).collect());
        self.add(label("escaped"), json(&text));
        self.add(label("escaped ascii"), json_ascii(&text));
        let debug = format!("{text:?}");
        self.add(label("debug"), debug[1..debug.len() - 1].to_owned());
        self.add(label("debug quotes"), text.escape_debug().to_string());
        self.add(label("debug bytes"), value.escape_ascii().to_string());
        for (set, keeps, space) in PERCENT_SETS {
            for is_upper in [true, false] {
                let case = if is_upper { "" } else { " lower" };
                self.add(label(&format!("{set}{case}")), percent(value, keeps, space, is_upper));
            }
        }
        self.add(label("hex"), value.iter().map(|byte| format!("{byte:02x}")).collect());
        self.add(label("hex upper"), value.iter().map(|byte| format!("{byte:02X}")).collect());
        for (name, alphabet) in [("base64", BASE64), ("base64url", BASE64_URL)] {
            for alignment in 0..3 {
                self.add(label(&format!("{name} {alignment}")), base64(value, alphabet, alignment));
            }
        }
        let numbers: Vec<String> = value.iter().map(u8::to_string).collect();
        self.add(label("bytes"), numbers.join(", "));
        self.add(label("bytes compact"), numbers.join(","));
    }

    fn add(&mut self, label: String, text: String) {
        if text.len() >= SECRET_BYTES_MIN && self.texts.insert(text.clone()) {
            self.all.push(Form { label, text });
        }
    }
}

/// The characters that percent-encoders keep: RFC 3986, `encodeURIComponent`, HTML forms, which write a space
/// as `+`, encoders that keep none, and the parser of URLs, which a fetch uses (WHATWG: query, and path).
const PERCENT_SETS: [(&str, Keeps, Option<char>); 6] = [
    ("percent", |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte), None),
    ("percent component", |byte| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte), None),
    ("percent form", |byte| byte.is_ascii_alphanumeric() || b"*-._".contains(&byte), Some('+')),
    ("percent all", |_| false, None),
    ("url query", |byte| byte.is_ascii_graphic() && !b"\"#<>'".contains(&byte), None),
    ("url path", |byte| byte.is_ascii_graphic() && !b"\"#<>`?{}".contains(&byte), None),
];

type Keeps = fn(u8) -> bool;

fn percent(value: &[u8], keeps: Keeps, space: Option<char>, is_upper: bool) -> String {
    let mut text = String::new();
    for &byte in value {
        match space {
            Some(space) if byte == b' ' => text.push(space),
            _ if keeps(byte) => text.push(char::from(byte)),
            _ => {
                let written =
                    if is_upper { write!(text, "%{byte:02X}") } else { write!(text, "%{byte:02x}") };
                written.expect("a String takes everything");
            }
        }
    }
    text
}

/// The text inside a JSON text, as `serde_json` and JavaScript write it.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The same with ASCII only, as Python writes it.
fn json_ascii(text: &str) -> String {
    let mut ascii = String::new();
    for c in json(text).chars() {
        if c.is_ascii() && c != '\x7f' {
            ascii.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(ascii, "\\u{unit:04x}").expect("a String takes everything");
        }
    }
    ascii
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The characters of base64 that the value alone decides, when `alignment` bytes precede it in a group of
/// three. This finds the password in `Basic` authorization, which encodes `user:password`. The characters at
/// both ends depend on the neighbours too, and hold at most four bits of the value each.
fn base64(value: &[u8], alphabet: &[u8; 64], alignment: usize) -> String {
    const BITS: usize = 6;
    let (begin, end) = (alignment * 8, (alignment + value.len()) * 8);
    let bit = |at: usize| value[(at - begin) / 8] >> (7 - at % 8) & 1;
    (begin.div_ceil(BITS)..end / BITS)
        .map(|sextet| {
            let index = (sextet * BITS..(sextet + 1) * BITS).fold(0, |index, at| index << 1 | bit(at));
            char::from(alphabet[usize::from(index)])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(value: &[u8], label: &str) -> Option<String> {
        forms(value).into_iter().find(|form| form.label == label).map(|form| form.text)
    }

    #[test]
    fn a_plain_value_has_each_text_once() {
        let forms = forms(b"s3cret-key");
        let texts: std::collections::BTreeSet<_> = forms.iter().map(|form| &form.text).collect();
        assert_eq!(texts.len(), forms.len());
        let labels: Vec<_> = forms.iter().map(|form| form.label.as_str()).collect();
        assert_eq!(
            labels,
            [
                "",
                "percent all",
                "percent all lower",
                "hex",
                "hex upper",
                "base64 0",
                "base64 1",
                "base64 2",
                "bytes",
                "bytes compact",
            ]
        );
        assert!(super::forms(b"4711").is_empty());
    }

    #[test]
    fn the_encodings_are_those_of_others() {
        let value = "pä\"ss /wörd+\n".as_bytes();
        for (label, text) in [
            ("escaped", r#"pä\"ss /wörd+\n"#),
            ("escaped ascii", r#"p\u00e4\"ss /w\u00f6rd+\n"#),
            ("percent", "p%C3%A4%22ss%20%2Fw%C3%B6rd%2B%0A"),
            ("percent lower", "p%c3%a4%22ss%20%2fw%c3%b6rd%2b%0a"),
            ("percent form", "p%C3%A4%22ss+%2Fw%C3%B6rd%2B%0A"),
            ("percent all", "%70%C3%A4%22%73%73%20%2F%77%C3%B6%72%64%2B%0A"),
            ("hex", "70c3a4227373202f77c3b672642b0a"),
            ("trimmed", "pä\"ss /wörd+"),
        ] {
            assert_eq!(form(value, label).as_deref(), Some(text), "{label}");
        }
        assert_eq!(form(b"S3cret-Key", "lower").as_deref(), Some("s3cret-key"));
        assert_eq!(form(b"s3cret-key", "lower"), None);
        assert_eq!(form(b"\x00\xff quoted'", "debug bytes").as_deref(), Some(r"\x00\xff quoted\'"));
        assert_eq!(form(b"0123456789", "base64 0").as_deref(), Some("MDEyMzQ1Njc4O"));
        assert_eq!(form(b"\xfb\xff\xfe\xfb\xff\xfe\xfb\xff", "base64url 0").as_deref(), Some("-__--__--_"));
    }

    /// A fetch normalises its URL, so its answer, its errors and its span have another text than the handler
    /// wrote.
    #[test]
    fn a_value_in_a_url_is_found_as_the_parser_of_urls_writes_it() {
        use switchboard_core::fetch_url::FetchUrl;
        let value = "Ab'c<d>+e/f&g=\"h{i}`ü";
        let written = |url: &str| FetchUrl::parse(url).unwrap().as_str().to_owned();
        let query = written(&format!("https://x.example/?t={value}"));
        let text = form(value.as_bytes(), "url query").unwrap();
        assert!(query.ends_with(&format!("?t={text}")), "{query}: {text}");
        let path = written(&format!("https://x.example/t/{value}"));
        let text = form(value.as_bytes(), "url path").unwrap();
        assert!(path.ends_with(&format!("/t/{text}")), "{path}: {text}");
        let host = written("https://S3cretKey.x.example/");
        assert!(host.contains(&form(b"S3cretKey", "lower").unwrap()), "{host}");
    }

    #[test]
    fn the_password_of_basic_authorization_is_found_at_each_length_of_the_user() {
        // `printf '%s:s3cret-key' ana | base64`, and with `an` and `anna`.
        for (header, alignment) in
            [("YW5hOnMzY3JldC1rZXk=", 1), ("YW46czNjcmV0LWtleQ==", 0), ("YW5uYTpzM2NyZXQta2V5", 2)]
        {
            let core = form(b"s3cret-key", &format!("base64 {alignment}")).unwrap();
            assert!(header.contains(&core), "{header}: {core}");
            assert!(core.len() >= 12, "{core}");
        }
    }

    #[test]
    fn a_value_that_is_trimmed_or_written_line_by_line_is_found() {
        let pem = b"-----BEGIN KEY-----\nMIIBVgIBADANBg\nAE=\n-----END KEY-----\n";
        assert_eq!(form(pem, "line 2").as_deref(), Some("MIIBVgIBADANBg"));
        let url = b"postgres://app:a1b2c3d4e5f6@db.internal/app?x=\"";
        assert_eq!(form(url, "part 1").as_deref(), Some("a1b2c3d4e5f6"));
        assert_eq!(form(url, "part 2"), None);
        assert_eq!(form(pem, "line 1"), None, "it is in every PEM file");
        assert_eq!(form(pem, "line 3"), None, "it is too short");
        assert_eq!(form(b"0123456789\n", "trimmed base64 0").as_deref(), Some("MDEyMzQ1Njc4O"));
        assert_eq!(form(b"01234567\xff", "text hex").as_deref(), Some("3031323334353637efbfbd"));
    }
}
