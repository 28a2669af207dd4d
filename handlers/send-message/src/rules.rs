//! The rules for a new message. Pure: no host calls, so plain `cargo test` runs it.

use chat::message;
use sdk::hash::fnv1a;
use sdk::json::{self, Object};
use sdk::{Id, Problem, text, time};
use serde_json::{Value, json};

pub(crate) const ATTACHMENTS_MAX: usize = 10;
pub(crate) const ATTACHMENTS_BYTES_MAX: usize = 8 * 1024;
pub(crate) const METADATA_BYTES_MAX: usize = 4 * 1024;
pub(crate) const KEY_CHARS_MAX: usize = 128;
const URL_CHARS_MAX: usize = 2048;
const NAME_CHARS_MAX: usize = 255;

/// A valid message. The optional parts are JSON text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub conversation_id: Id,
    /// NFC.
    pub content: String,
    pub reply_to_id: Option<Id>,
    pub attachments: Option<String>,
    pub metadata: Option<String>,
    pub mentions: Option<String>,
    /// The client's idempotency key. A retry with the same key gets the first result.
    pub key: Option<String>,
}

impl Draft {
    /// Reads a body or payload. The key may also come from a header.
    pub(crate) fn parse(
        mut body: Object,
        conversation_id: Id,
        idempotency_key: Option<&str>,
    ) -> Result<Self, Problem> {
        Ok(Self {
            conversation_id,
            content: message::content(json::required("content", body.text("content")?)?)?,
            reply_to_id: body.id("reply_to_id")?,
            attachments: attachments(&mut body)?,
            metadata: body.free("metadata", METADATA_BYTES_MAX)?,
            mentions: message::mentions(&mut body)?,
            key: key(body.text("client_msg_id")?, idempotency_key)?,
        })
    }

    /// A hash of the message. A key that is used again with another fingerprint is a conflict.
    pub(crate) fn fingerprint(&self) -> i64 {
        let id = self.conversation_id.to_string();
        let reply = self.reply_to_id.map(|id| id.to_string());
        let optional = [&reply, &self.attachments, &self.metadata, &self.mentions];
        let parts =
            [&id, &self.content].into_iter().map(Some).chain(optional.into_iter().map(Option::as_ref));
        // A sender could only make their own messages collide.
        let bytes = parts.flat_map(|part| {
            let end: u8 = if part.is_some() { 0xfe } else { 0xff };
            part.map_or(&[][..], String::as_bytes).iter().copied().chain([end])
        });
        fnv1a(bytes) as i64
    }

    /// The fields of the message's JSON that are known before it is stored. The statement puts the others
    /// (`id`, `conversation_id`, `seq`, `sender`) before them. The result equals that of `app.message_text`
    /// for the stored row.
    pub(crate) fn body(&self, sender: &str, now_ms: u64) -> String {
        let raw = |json: &Option<String>, none: &str| json.as_deref().unwrap_or(none).to_owned();
        [
            r#""sender_id":"#,
            &json!(sender).to_string(),
            r#","type":"text","content":"#,
            &json!(self.content).to_string(),
            r#","reply_to_id":"#,
            &json!(self.reply_to_id).to_string(),
            r#","attachments":"#,
            &raw(&self.attachments, "[]"),
            r#","metadata":"#,
            &raw(&self.metadata, "null"),
            r#","mentions":"#,
            &raw(&self.mentions, "[]"),
            r#","client_msg_id":"#,
            &json!(self.key).to_string(),
            r#","created_at":""#,
            &time::rfc3339(now_ms),
            r#"","edited_at":null,"deleted":false,"change":null"#,
        ]
        .concat()
    }
}

fn attachments(body: &mut Object) -> Result<Option<String>, Problem> {
    let Some(items) = body.array("attachments", ATTACHMENTS_MAX)? else { return Ok(None) };
    if items.is_empty() {
        return Ok(None);
    }
    let mut kept = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        kept.push(attachment(Object::of(item, &format!("attachments[{index}]"))?)?);
    }
    let compact = Value::Array(kept).to_string();
    if compact.len() > ATTACHMENTS_BYTES_MAX {
        return Err(Problem::invalid(
            "attachments",
            format!("are over {ATTACHMENTS_BYTES_MAX} bytes together"),
        ));
    }
    Ok(Some(compact))
}

fn attachment(mut item: Object) -> Result<Value, Problem> {
    let mut short = |field: &str, most: usize| -> Result<Option<String>, Problem> {
        match item.text(field)? {
            Some(value) if value.is_empty() || text::length(&value) > most || text::has_control(&value) => {
                let rule = format!("is not 1 to {most} characters without control characters");
                Err(Problem::invalid(item.name(field), rule))
            }
            other => Ok(other),
        }
    };
    let (url, name, mime) =
        (short("url", URL_CHARS_MAX)?, short("name", NAME_CHARS_MAX)?, short("mime", NAME_CHARS_MAX)?);
    let url = json::required(&item.name("url"), url)?;
    if !is_link(&url) {
        return Err(Problem::invalid(
            item.name("url"),
            "is no web address: no spaces, http or https if it has a scheme",
        ));
    }
    Ok(json!({ "url": url, "name": name, "mime": mime, "size": item.number("size")? }))
}

/// Whether a URL is a web link. Other users will open it, so schemes such as `javascript:`, `file:` and
/// `data:` are refused. A client may use relative URLs.
fn is_link(url: &str) -> bool {
    let scheme =
        url.split_once(':').map(|(before, _)| before).filter(|before| !before.contains(['/', '?', '#']));
    !url.contains(char::is_whitespace)
        && scheme.is_none_or(|scheme| ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)))
}

fn key(client_msg_id: Option<String>, idempotency_key: Option<&str>) -> Result<Option<String>, Problem> {
    let key = match (client_msg_id, idempotency_key) {
        (Some(body), Some(header)) if body != header => {
            return Err(Problem::invalid("client_msg_id", "differs from the header Idempotency-Key"));
        }
        (Some(body), _) => body,
        (None, Some(header)) => header.to_owned(),
        (None, None) => return Ok(None),
    };
    if (1..=KEY_CHARS_MAX).contains(&text::length(&key)) && !text::has_control(&key) {
        return Ok(Some(key));
    }
    let rule = format!("is not 1 to {KEY_CHARS_MAX} characters without control characters");
    Err(Problem::invalid("client_msg_id", rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &str = "019aa007-76bb-7fff-bfff-ffffffffffff";

    fn draft(body: Value) -> Result<Draft, Problem> {
        let conversation = Id::parse(CONVERSATION).unwrap();
        Draft::parse(Object::parse(body.to_string().as_bytes()).unwrap(), conversation, None)
    }

    fn refusal(body: Value) -> (u16, Option<String>) {
        let problem = draft(body).unwrap_err();
        (problem.status, problem.field)
    }

    #[test]
    fn content_is_1_to_2000_characters_after_nfc() {
        for good in ["x".to_owned(), "👩".repeat(2000), "o\u{302}".repeat(2000), "line\nbreak".to_owned()] {
            assert!(draft(json!({ "content": good })).is_ok());
        }
        assert_eq!(draft(json!({ "content": "o\u{302}" })).unwrap().content, "ô");
        let bad = [
            json!({}),
            json!({ "content": null }),
            json!({ "content": "" }),
            json!({ "content": 7 }),
            json!({ "content": ["x"] }),
            json!({ "content": "a\0b" }),
            json!({ "content": "x".repeat(2001) }),
            json!({ "content": "x".repeat(60_000) }),
        ];
        for body in bad {
            assert_eq!(refusal(body), (422, Some("content".into())));
        }
    }

    #[test]
    fn an_error_names_its_field() {
        let file = json!({ "url": "https://x/y", "name": "y", "mime": "image/png", "size": 3, "other": 1 });
        let full = draft(json!({
            "content": "x", "reply_to_id": CONVERSATION, "attachments": [file], "metadata": { "k": [1] },
            "mentions": ["bo", "ana", "bo"], "client_msg_id": "k1",
        }))
        .unwrap();
        assert_eq!(full.mentions.as_deref(), Some(r#"["ana","bo"]"#));
        assert_eq!(full.metadata.as_deref(), Some(r#"{"k":[1]}"#));
        assert!(!full.attachments.unwrap().contains("other"));

        for (field, value) in [
            ("reply_to_id", json!("x")),
            ("attachments", json!({})),
            ("attachments", json!(vec![file.clone(); 11])),
            ("attachments", json!(vec![json!({ "url": "u".repeat(2000) }); 5])),
            ("attachments[0]", json!(["x"])),
            ("attachments[0].url", json!([{ "name": "y" }])),
            ("attachments[0].url", json!([{ "url": "" }])),
            ("attachments[0].url", json!([{ "url": "javascript:alert(1)" }])),
            ("attachments[0].url", json!([{ "url": "JavaScript:alert(1)" }])),
            ("attachments[0].url", json!([{ "url": "data:text/html,x" }])),
            ("attachments[0].url", json!([{ "url": " https://x" }])),
            ("attachments[0].url", json!([{ "url": "https://x/\u{0}" }])),
            ("attachments[0].url", json!([{ "url": 7 }])),
            ("attachments[0].name", json!([{ "url": "u", "name": "a\nb" }])),
            ("attachments[0].name", json!([{ "url": "u", "name": "x".repeat(256) }])),
            ("attachments[0].mime", json!([{ "url": "u", "mime": [] }])),
            ("attachments[0].size", json!([{ "url": "u", "size": -1 }])),
            ("attachments[0].size", json!([{ "url": "u", "size": "3" }])),
            ("attachments[1].url", json!([{ "url": "/relative?at=10:30" }, {}])),
            ("metadata", json!("x")),
            ("metadata", json!({ "k": "x".repeat(4096) })),
            ("mentions", json!("ana")),
            ("mentions", json!(vec!["ana"; 101])),
            ("mentions[1]", json!(["ana", ""])),
            ("client_msg_id", json!("")),
            ("client_msg_id", json!("x".repeat(129))),
            ("client_msg_id", json!(4)),
        ] {
            let mut body = json!({ "content": "x" });
            body[field.split('[').next().unwrap()] = value;
            assert_eq!(refusal(body), (422, Some(field.into())));
        }
    }

    #[test]
    fn the_body_is_valid_json_for_any_text() {
        let full =
            draft(json!({ "content": "a \"b\" \\ \n ô", "metadata": { "k": [1] }, "client_msg_id": "k\"1" }))
                .unwrap();
        let body: Value =
            serde_json::from_str(&format!("{{{}}}", full.body("an\"a", 1_763_618_400_123))).unwrap();
        let expected = json!({
            "sender_id": "an\"a", "type": "text", "content": "a \"b\" \\ \n ô", "reply_to_id": null, "attachments": [],
            "metadata": { "k": [1] }, "mentions": [], "client_msg_id": "k\"1", "created_at": "2025-11-20T06:00:00.123Z",
            "edited_at": null, "deleted": false, "change": null,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn the_key_comes_from_the_body_or_the_header() {
        let parse = |body: Value, header: Option<&str>| {
            Draft::parse(
                Object::parse(body.to_string().as_bytes()).unwrap(),
                Id::parse(CONVERSATION).unwrap(),
                header,
            )
        };
        let of_header = parse(json!({ "content": "x" }), Some("k")).unwrap();
        assert_eq!(of_header.key.as_deref(), Some("k"));
        let different = parse(json!({ "content": "x", "client_msg_id": "a" }), Some("b"));
        assert_eq!(different.unwrap_err().field.as_deref(), Some("client_msg_id"));
    }

    #[test]
    fn different_messages_have_different_fingerprints() {
        let of = |body: Value| draft(body).unwrap().fingerprint();
        let plain = of(json!({ "content": "côn" }));
        assert_eq!(plain, of(json!({ "content": "co\u{302}n", "client_msg_id": "k", "other": 1 })));
        assert_eq!(plain, of(json!({ "content": "côn", "attachments": [], "mentions": [] })));
        for other in [
            json!({ "content": "con" }),
            json!({ "content": "côn", "reply_to_id": CONVERSATION }),
            json!({ "content": "côn", "metadata": {} }),
            json!({ "content": "côn", "mentions": ["ana"] }),
        ] {
            assert_ne!(plain, of(other));
        }
    }
}
