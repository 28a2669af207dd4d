//! The HTTP part of GraphQL: media types, the form of a request, the status of a response. Pure: no host
//! calls, so plain `cargo test` runs it.
// In native builds only the tests use this module, because the schema is compiled only for wasm32.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

use serde_json::{Map, Value};

/// Nested braces, brackets and parentheses. The parser recurses that deep on a stack of 64 KiB.
pub(crate) const NESTING_MAX: usize = 24;

/// The media type of a response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Media {
    Json,
    /// `application/graphql-response+json`: the HTTP status reports whether the request was executed.
    Response,
}

impl Media {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Response => "application/graphql-response+json; charset=utf-8",
        }
    }

    /// The media type that the client prefers; the first one of equal preference. `None` if the client
    /// accepts neither.
    pub(crate) fn accepted(header: Option<&str>) -> Option<Self> {
        let Some(header) = header.filter(|header| !header.trim().is_empty()) else { return Some(Self::Json) };
        let mut best: Option<(f32, Self)> = None;
        for range in header.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/graphql-response+json" => Self::Response,
                "application/json" | "application/*" | "*/*" => Self::Json,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
            let weight: f32 = weight.unwrap_or(0.0);
            if weight > 0.0 && best.is_none_or(|(most, _)| weight > most) {
                best = Some((weight, media));
            }
        }
        best.map(|(_, media)| media)
    }
}

/// The reason why a request is refused before its document is looked at.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub why: String,
}

fn refused<T>(status: u16, code: &'static str, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, code, why: why.into() })
}

fn malformed<T>(why: impl Into<String>) -> Result<T, Refusal> {
    refused(400, "malformed", why)
}

/// A well-formed request.
#[derive(Debug, PartialEq)]
pub(crate) struct GraphqlRequest {
    pub query: String,
    pub operation: Option<String>,
    pub variables: Map<String, Value>,
}

impl GraphqlRequest {
    pub(crate) fn of_body(content_type: Option<&str>, body: &[u8]) -> Result<Self, Refusal> {
        let mut parts = content_type.unwrap_or_default().split(';').map(str::trim);
        let is_json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
        let charset = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("charset")
                .then(|| value.trim().trim_matches('"').to_ascii_lowercase())
        });
        if !is_json || charset.is_some_and(|charset| charset != "utf-8" && charset != "utf8") {
            return refused(415, "unsupported_media_type", "send application/json in UTF-8");
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Self::of(fields),
            Ok(_) => malformed("the body is not a JSON object"),
            Err(error) => malformed(format!("the body is not JSON: {error}")),
        }
    }

    /// Reads a request from a query string, in which `variables` and `extensions` are JSON.
    pub(crate) fn of_query(query: &[(String, String)]) -> Result<Self, Refusal> {
        let mut fields = Map::new();
        for (name, text) in query {
            let value = match name.as_str() {
                "query" | "operationName" => Value::String(text.clone()),
                "variables" | "extensions" => match serde_json::from_str(text) {
                    Ok(value) => value,
                    Err(error) => return malformed(format!("{name}: is not JSON: {error}")),
                },
                _ => continue,
            };
            fields.insert(name.clone(), value);
        }
        Self::of(fields)
    }

    fn of(mut fields: Map<String, Value>) -> Result<Self, Refusal> {
        let mut take = |name: &str| fields.remove(name).unwrap_or_default();
        let query = match take("query") {
            Value::String(query) => query,
            Value::Null => return malformed("query: is required"),
            _ => return malformed("query: is not a text"),
        };
        let operation = match take("operationName") {
            Value::Null => None,
            Value::String(name) if name.is_empty() => None,
            Value::String(name) => Some(name),
            _ => return malformed("operationName: is not a text"),
        };
        let variables = match take("variables") {
            Value::Null => Map::new(),
            Value::Object(variables) => variables,
            _ => return malformed("variables: is not an object"),
        };
        if !matches!(take("extensions"), Value::Null | Value::Object(_)) {
            return malformed("extensions: is not an object");
        }
        if extent(&query).nesting > NESTING_MAX {
            return malformed(format!("query: is nested deeper than {NESTING_MAX}"));
        }
        Ok(Self { query, operation, variables })
    }
}

/// The size of a document, measured without parsing it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Extent {
    /// The depth of nested braces, brackets and parentheses, without those in strings and comments.
    pub nesting: usize,
    /// Names, numbers, strings and punctuation marks. Commas, spaces and comments are not tokens, as GraphQL
    /// defines.
    pub tokens: usize,
}

pub(crate) fn extent(query: &str) -> Extent {
    let mut extent = Extent::default();
    let mut depth = 0_usize;
    let mut in_word = false;
    let mut rest = query;
    while let Some(c) = rest.chars().next() {
        let is_of_word = c.is_alphanumeric() || matches!(c, '_' | '-' | '+');
        let is_ignored = c.is_whitespace() || matches!(c, ',' | '#' | '\u{feff}');
        // A word, and the three dots of a spread, are one token.
        let goes_on =
            (is_of_word && in_word) || (c == '.' && query[..query.len() - rest.len()].ends_with('.'));
        if !is_ignored && !goes_on {
            extent.tokens += 1;
        }
        in_word = is_of_word;
        let skip = match c {
            '{' | '[' | '(' => {
                depth += 1;
                extent.nesting = extent.nesting.max(depth);
                1
            }
            '}' | ']' | ')' => {
                depth = depth.saturating_sub(1);
                1
            }
            '#' => rest.find(['\n', '\r']).unwrap_or(rest.len()),
            '"' if rest.starts_with("\"\"\"") => block_end(rest),
            '"' => string_end(rest),
            other => other.len_utf8(),
        };
        rest = &rest[skip..];
    }
    extent
}

/// The end of the string that begins here. The parser refuses a string that is not closed.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (place, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return place + 1,
            // A string ends with its line, so the next line may nest again.
            '\n' | '\r' => return place,
            _ => {}
        }
    }
    text.len()
}

fn block_end(text: &str) -> usize {
    let mut from = 3;
    while let Some(place) = text[from..].find("\"\"\"").map(|place| from + place) {
        if !text[..place].ends_with('\\') {
            return place + 3;
        }
        from = place + 3;
    }
    text.len()
}

/// The result of a well-formed request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The document was executed, possibly with errors.
    Executed,
    /// The document is malformed, does not match the schema, or exceeds a bound. Nothing was executed.
    Rejected,
}

impl Outcome {
    pub(crate) fn status(self, media: Media) -> u16 {
        match (self, media) {
            (Self::Rejected, Media::Response) => 400,
            // A client that accepts plain JSON finds the errors in the body.
            _ => 200,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_media_type_is_what_the_client_prefers() {
        for (header, expected) in [
            (None, Some(Media::Json)),
            (Some(""), Some(Media::Json)),
            (Some("*/*"), Some(Media::Json)),
            (Some("application/json"), Some(Media::Json)),
            (Some("application/graphql-response+json; charset=utf-8"), Some(Media::Response)),
            (Some("application/graphql-response+json, application/json;q=0.9"), Some(Media::Response)),
            (Some("application/graphql-response+json;q=0.5, application/json"), Some(Media::Json)),
            (Some("text/html, application/graphql-response+json;q=0.1"), Some(Media::Response)),
            (Some("text/html"), None),
            (Some("application/json;q=0"), None),
        ] {
            assert_eq!(Media::accepted(header), expected, "{header:?}");
        }
    }

    fn asked(body: Value) -> Result<GraphqlRequest, Refusal> {
        GraphqlRequest::of_body(Some("application/json"), body.to_string().as_bytes())
    }

    #[test]
    fn only_the_query_of_a_request_is_required() {
        let full = json!({"query": "{ a }", "operationName": "A", "variables": {"x": 1}, "extensions": {}, "other": 1});
        let full = asked(full).unwrap();
        assert_eq!(
            (full.query.as_str(), full.operation.as_deref(), full.variables.len()),
            ("{ a }", Some("A"), 1)
        );
        let bare =
            asked(json!({"query": "{ a }", "operationName": null, "variables": null, "extensions": null}));
        assert_eq!(bare.unwrap().operation, None);
        for (field, value) in [
            ("query", json!(null)),
            ("query", json!({"a": 1})),
            ("query", json!(0)),
            ("operationName", json!(["a"])),
            ("variables", json!("x")),
            ("variables", json!([1])),
            ("extensions", json!(false)),
        ] {
            let mut body = json!({"query": "{ a }"});
            body[field] = value;
            let refusal = asked(body).unwrap_err();
            assert!(refusal.status == 400 && refusal.why.starts_with(field), "{refusal:?}");
        }
    }

    #[test]
    fn only_json_in_utf_8_is_read() {
        let body = br#"{"query":"{a}"}"#;
        for good in
            ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""]
        {
            assert!(GraphqlRequest::of_body(Some(good), body).is_ok(), "{good}");
        }
        for bad in [None, Some(""), Some("text/plain"), Some("application/json; charset=latin1")] {
            assert_eq!(GraphqlRequest::of_body(bad, body).unwrap_err().status, 415, "{bad:?}");
        }
        for bad in [&b""[..], b"{", b"[]", b"\xff"] {
            assert_eq!(GraphqlRequest::of_body(Some("application/json"), bad).unwrap_err().status, 400);
        }
    }

    #[test]
    fn two_fields_of_a_query_string_are_json() {
        let query = |pairs: &[(&str, &str)]| {
            let owned: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            GraphqlRequest::of_query(&owned)
        };
        let asked = query(&[("query", "{ a }"), ("variables", r#"{"x":[1]}"#), ("token", "t")]).unwrap();
        assert_eq!(asked.variables["x"], json!([1]));
        assert_eq!(query(&[("query", "{ a }"), ("variables", "{")]).unwrap_err().code, "malformed");
        assert_eq!(query(&[]).unwrap_err().why, "query: is required");
    }

    #[test]
    fn tokens_are_counted_before_the_parser_sees_them() {
        for (query, tokens) in [
            ("", 0),
            ("{ a }", 3),
            ("{ab(c:\"d e\",f:-15e3){...g}}", 15),
            ("{ a # and a comment\n, , b }", 4),
            ("query($x:[Int!]=[1]){a(b:$x)}", 23),
        ] {
            assert_eq!(extent(query).tokens, tokens, "{query}");
        }
    }

    #[test]
    fn depth_is_counted_before_the_parser_sees_it() {
        let nesting = |query: &str| extent(query).nesting;
        assert_eq!(nesting("query A($x: [Int]) { a(b: {c: [1]}) { d } }"), 4);
        assert_eq!(
            nesting(
                r#"{ a(b: "{{{{\"{{{", c: """ {{{ \""" {{{ """) # {{{{
          }"#
            ),
            2
        );
        assert_eq!(nesting("{ a(b: \"unclosed {{{\n {{{"), 5);
        let deep = "{a".repeat(30_000);
        assert_eq!(asked(json!({"query": deep})).unwrap_err().code, "malformed");
        assert_eq!(nesting(&"đ\"".repeat(3)), 0);
    }

    #[test]
    fn only_the_graphql_media_type_reports_a_rejection_by_its_status() {
        assert_eq!(Outcome::Rejected.status(Media::Response), 400);
        assert_eq!(Outcome::Rejected.status(Media::Json), 200);
        assert_eq!(Outcome::Executed.status(Media::Response), 200);
    }
}
