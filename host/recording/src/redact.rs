//! Removal of secrets: a function looks at every member of input, arguments, answers and outcome, before
//! anything is written.

use serde_json::Value;

use super::{Outcome, Recording};

/// Replaces values that must not be kept, in place. It is called with every member of an object, at any
/// depth, and with every pair of a list of pairs (headers, a query).
pub type Redact = fn(member: &str, value: &mut Value);

/// Keeps everything. For tests, whose data is made up.
pub fn keep_all(_: &str, _: &mut Value) {}

/// Removes tokens and passwords, which it finds by the name of the member, or of a parameter in the query of
/// a URL.
pub fn redact_secrets(member: &str, value: &mut Value) {
    if is_secret(member) {
        *value = Value::String(REDACTED.into());
    }
    if let Value::String(url) = value
        && is_url(member)
    {
        redact_url(url);
    }
}

/// Removes a user with a password, and the secrets of the query. A fetch of a URL with a user is refused, but
/// its recording would keep it.
fn redact_url(url: &mut String) {
    if let Some((scheme, rest)) = url.split_once("://") {
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if let Some((_, host)) = authority.rsplit_once('@') {
            *url = format!("{scheme}://{REDACTED}@{host}{path}");
        }
    }
    if let Some((before, query)) = url.split_once('?') {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={REDACTED}"),
            _ => pair.to_owned(),
        });
        *url = format!("{before}?{}", pairs.collect::<Vec<_>>().join("&"));
    }
}

const REDACTED: &str = "[redacted]";

/// Whether a member of a fetch, or a header, holds a URL.
fn is_url(member: &str) -> bool {
    ["url", "location", "content-location", "referer"].contains(&member.to_ascii_lowercase().as_str())
}

fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 24] = [
        "token",
        "access_token",
        "refresh_token",
        "id_token",
        "ticket",
        "secret",
        "client_secret",
        "password",
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "api_key",
        "apikey",
        "api-key",
        "x-api-key",
        "x-access-token",
        "x-auth-token",
        "x-csrf-token",
        "x-vault-token",
        "private-token",
        "x-amz-security-token",
        "x-amz-signature",
        "x-goog-signature",
    ];
    SECRET.contains(&name.to_ascii_lowercase().as_str())
}

/// Removes secrets, and also everything that users wrote or that the services store. What stays is who called
/// which function, when, how long it took and how it ended, and the sizes of the removed values. Such a
/// recording can be read but not replayed.
pub fn redact_bodies(member: &str, value: &mut Value) {
    const BODY: [&str; 19] = [
        // The payload that a hook has changed.
        "Change",
        "args",
        "body",
        "cells",
        "commands",
        "fields",
        "frame",
        "keys",
        "message",
        "params",
        "payload",
        "publications",
        "pushes",
        "query",
        "random",
        "row",
        "Many",
        "detail",
        "Text",
    ];
    redact_secrets(member, value);
    if BODY.contains(&member) {
        blank(value);
    }
    // The query of a URL is what a user searched for, or a signature.
    if is_url(member)
        && let Value::String(url) = value
        && let Some((before, query)) = url.split_once('?')
    {
        *url = format!("{before}?[{} bytes]", query.len());
    }
}

fn blank(value: &mut Value) {
    match value {
        Value::String(text) => *text = format!("[{} bytes]", text.len()),
        Value::Array(elements) => elements.iter_mut().for_each(blank),
        Value::Object(members) => members.values_mut().for_each(blank),
        Value::Number(_) => *value = Value::String("[number]".to_owned()),
        Value::Null | Value::Bool(_) => {}
    }
}

pub(super) fn apply(recording: &mut Recording, redact: Redact) {
    if let Outcome::Returned(value) = &mut recording.outcome {
        walk(value, redact);
    }
    walk(&mut recording.input, redact);
    for exchange in &mut recording.exchanges {
        walk(&mut exchange.args, redact);
        exchange.answer.iter_mut().for_each(|answer| walk(answer, redact));
    }
}

fn walk(value: &mut Value, redact: Redact) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                redact(name, member);
                walk(member, redact);
            }
        }
        Value::Array(elements) => {
            if let [Value::String(name), member] = &mut elements[..] {
                redact(name, member);
            }
            elements.iter_mut().for_each(|element| walk(element, redact));
        }
        Value::String(text) if text.starts_with(['{', '[']) => redact_json_text(text, redact),
        _ => {}
    }
}

/// Redacts text that is JSON: a payload, a body. The text changes only if a value was removed.
fn redact_json_text(text: &mut String, redact: Redact) {
    let Ok(before) = serde_json::from_str::<Value>(text) else { return };
    let mut after = before.clone();
    walk(&mut after, redact);
    if after != before {
        *text = after.to_string();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redacted(mut value: Value, redact: Redact) -> String {
        walk(&mut value, redact);
        value.to_string()
    }

    #[test]
    fn secrets_are_blanked_at_any_depth_in_pairs_and_in_text() {
        let value = json!({
            "caller": { "Token": "abc" },
            "list": [{ "password": 1 }],
            "headers": [["Cookie", "abc"], ["accept", "kept"]],
            "payload": "{\"ticket\":\"abc\",\"content\":\"kept\"}",
            "other": "{kept",
        });
        let text = redacted(value, redact_secrets);
        assert!(!text.contains("abc"), "{text}");
        assert_eq!(text.matches("[redacted]").count(), 4, "{text}");
        assert_eq!(text.matches("kept").count(), 3, "{text}");
    }

    #[test]
    fn a_fetch_keeps_its_place_and_loses_its_secrets() {
        let fetch = || {
            json!({ "request": {
                "url": "https://x.example/a?q=words&Access_Token=abc&z", "body": { "text": "hello" },
                "headers": [["authorization", "abc"], ["x-api-key", "abc"], ["accept", "text/plain"]],
            }, "Ok": { "status": 200, "headers": [["set-cookie", "abc"]] } })
        };
        let text = redacted(fetch(), redact_secrets);
        assert!(!text.contains("abc") && text.contains("text/plain"), "{text}");
        assert!(text.contains("https://x.example/a?q=words&Access_Token=[redacted]&z"), "{text}");
        let text = redacted(fetch(), redact_bodies);
        assert!(text.contains("\"https://x.example/a?[") && !text.contains("words"), "{text}");
        assert!(!text.contains("hello") && !text.contains("abc") && text.contains("200"), "{text}");
    }

    #[test]
    fn a_url_loses_its_user_and_a_header_with_a_url_its_query() {
        let fetch = json!({
            "request": {
                "url": "https://ana:abc@x.example/a@b",
                "headers": [["x-auth-token", "abc"], ["referer", "https://x.example/?api_key=abc"]],
            },
            "Ok": {
                "url": "https://x.example?X-Amz-Signature=abc",
                "headers": [["location", "https://abc@y.example/?token=abc&kept=1"]],
            },
        });
        let text = redacted(fetch, redact_secrets);
        assert!(!text.contains("abc") && !text.contains("ana"), "{text}");
        assert!(text.contains("https://[redacted]@x.example/a@b\""), "{text}");
        assert!(text.contains("https://[redacted]@y.example/?token=[redacted]&kept=1"), "{text}");
    }

    #[test]
    fn without_bodies_who_and_what_stay() {
        let value = json!({
            "statement": "select 1", "params": ["hello", 7, null], "caller": { "user_id": "ana" },
            "body": { "text": "hello" }, "Ok": [{ "Text": "hello" }], "Change": "hello",
        });
        let text = redacted(value, redact_bodies);
        assert!(!text.contains("hello") && !text.contains('7'), "{text}");
        assert!(text.contains("select 1") && text.contains("ana") && text.contains("[5 bytes]"), "{text}");
    }
}
