//! The rules for publications. Pure: no host calls, so plain `cargo test` runs it.

use chat::address;
use chat::membership::ConversationName;
use chat::notification::{LEVELS, PUBLISHED_TYPES, TITLE_CHARS_MAX};
use sdk::hash::fnv1a;
use sdk::json::{self, Object};
use sdk::{Id, Problem, channels, text};
use serde_json::{Value, json};

/// The size of a payload. With its type and target, the frame and the request's body stay below 64 KiB.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 60 * 1024;
pub(crate) const DATA_BYTES_MAX: usize = 8 * 1024;
pub(crate) const BODY_CHARS_MAX: usize = 2000;
pub(crate) const KEY_CHARS_MAX: usize = 128;
const TYPE_CHARS_MAX: usize = 64;
const ENTITY_TYPE_CHARS_MAX: usize = 64;
const ENTITY_ID_CHARS_MAX: usize = 255;

/// Frame types of the product. Internal systems cannot publish them, so that clients can trust them.
const OWN_TYPES: [&str; 17] = [
    "auth",
    "ping",
    "pong",
    "heartbeat",
    "error",
    "subscribe",
    "subscribed",
    "unsubscribe",
    "unsubscribed",
    "history",
    "read",
    "delivered",
    "focus",
    "resync",
    "draining",
    "join_room",
    "leave_room",
];
/// Reserved first words: the word alone, and every type that begins with it and `.` or `:`.
const OWN_FAMILIES: [&str; 10] = [
    "auth",
    "chat",
    "conversation",
    "member",
    "message",
    "notification",
    "presence",
    "read",
    "receipt",
    "typing",
];

/// The kind of an address.
#[derive(Debug, PartialEq)]
pub(crate) enum Target {
    Topic,
    User,
    Conversation(Id),
    /// A conversation that is named by its slug; its id is not known yet.
    Slug(ConversationName),
}

/// A valid publication.
#[derive(Debug)]
pub(crate) struct Publication {
    pub kind: Target,
    /// The address. It is also the key of the event, so that publications to one address stay in order.
    pub target: String,
    frame_type: String,
    /// Compact JSON.
    payload: String,
    notify: Option<Value>,
    pub key: Option<String>,
}

impl Publication {
    pub(crate) fn parse(mut body: Object, idempotency_key: Option<&str>) -> Result<Self, Problem> {
        let (kind, target) = target(json::required("target", body.text("target")?)?)?;
        let frame_type = frame_type(json::required("type", body.text("type")?)?)?;
        let payload = json::required("payload", body.free("payload", PAYLOAD_BYTES_MAX)?)?;
        let notify = match body.map("notify", usize::MAX)? {
            Some(_) if kind == Target::Topic => {
                return Err(Problem::invalid(
                    "notify",
                    "goes to a user or a conversation: nobody is known to follow a topic",
                ));
            }
            Some(fields) => Some(notice(Object::of(Value::Object(fields), "notify")?)?),
            None => None,
        };
        Ok(Self { kind, target, frame_type, payload, notify, key: key(idempotency_key)? })
    }

    /// The publication with the id of the conversation in place of its slug.
    pub(crate) fn to(self, conversation: Id) -> Self {
        Self { kind: Target::Conversation(conversation), target: address::conversation(conversation), ..self }
    }

    /// The payload of the event `published`.
    pub(crate) fn event(&self) -> String {
        let notify = self.notify.as_ref().map_or(String::new(), |notify| format!(r#","notify":{notify}"#));
        let (target, frame_type) = (json!(self.target), json!(self.frame_type));
        format!(r#"{{"target":{target},"type":{frame_type},"payload":{}{notify}}}"#, self.payload)
    }

    /// A hash of the publication. A key that is used again with another fingerprint is a conflict.
    pub(crate) fn fingerprint(&self) -> i64 {
        // A publisher could only make its own publications collide.
        fnv1a(self.event().bytes()) as i64
    }
}

fn target(raw: String) -> Result<(Target, String), Problem> {
    let rule =
        "is not `topic:` and a name, `user:` and a user's id, or `conv:` and a conversation's id or slug";
    let refuse = || Problem::invalid("target", rule);
    match raw.split_once(':') {
        Some(("topic", name)) => Ok((Target::Topic, address::topic(name).ok_or_else(refuse)?)),
        Some(("user", id)) if text::is_user_id(id) => Ok((Target::User, channels::user(id))),
        Some(("conv", name)) => match ConversationName::parse(name).ok_or_else(refuse)? {
            // The id is normalised, because subscriptions use the normal form.
            ConversationName::Id(id) => Ok((Target::Conversation(id), address::conversation(id))),
            slug @ ConversationName::Slug(_) => Ok((Target::Slug(slug), raw)),
        },
        _ => Err(refuse()),
    }
}

fn frame_type(raw: String) -> Result<String, Problem> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if !(1..=TYPE_CHARS_MAX).contains(&raw.len()) || !raw.bytes().all(is_word) {
        let rule = format!("is not 1 to {TYPE_CHARS_MAX} letters, digits, `.`, `_`, `-` and `:`");
        return Err(Problem::invalid("type", rule));
    }
    let lower = raw.to_ascii_lowercase();
    let family = lower.split(['.', ':']).next().unwrap_or_default();
    if OWN_TYPES.contains(&lower.as_str()) || OWN_FAMILIES.contains(&family) {
        return Err(Problem::invalid("type", "is one of the product's own frames"));
    }
    Ok(raw)
}

fn notice(mut notify: Object) -> Result<Value, Problem> {
    let mut word = |field: &str, default: &str, words: &[&str]| -> Result<String, Problem> {
        match notify.text(field)? {
            None => Ok(default.to_owned()),
            Some(word) if words.contains(&word.as_str()) => Ok(word),
            Some(_) => {
                Err(Problem::invalid(notify.name(field), format!("is not one of {}", words.join(", "))))
            }
        }
    };
    let (kind, level) = (word("type", "system", &PUBLISHED_TYPES)?, word("level", "info", &LEVELS)?);
    let mut short = |field: &str, most: usize| -> Result<Option<String>, Problem> {
        match notify.text(field)? {
            Some(value) if value.is_empty() || text::length(&value) > most || text::has_control(&value) => {
                let rule = format!("is not 1 to {most} characters without control characters");
                Err(Problem::invalid(notify.name(field), rule))
            }
            other => Ok(other),
        }
    };
    let title = short("title", TITLE_CHARS_MAX)?;
    let (entity_type, entity_id) =
        (short("entity_type", ENTITY_TYPE_CHARS_MAX)?, short("entity_id", ENTITY_ID_CHARS_MAX)?);
    let title = json::required(&notify.name("title"), title)?;
    let body = notify.text("body")?;
    if body.as_deref().is_some_and(|body| text::length(body) > BODY_CHARS_MAX) {
        return Err(Problem::invalid(
            notify.name("body"),
            format!("has more than {BODY_CHARS_MAX} characters"),
        ));
    }
    let data = notify.free("data", DATA_BYTES_MAX)?;
    let data: Option<Value> = data.and_then(|data| serde_json::from_str(&data).ok());
    Ok(json!({
        "type": kind,
        "level": level,
        "title": title,
        "body": body,
        "entity_type": entity_type,
        "entity_id": entity_id,
        "data": data,
    }))
}

fn key(header: Option<&str>) -> Result<Option<String>, Problem> {
    let Some(key) = header else { return Ok(None) };
    if (1..=KEY_CHARS_MAX).contains(&text::length(key)) && !text::has_control(key) {
        return Ok(Some(key.to_owned()));
    }
    let rule = format!("is not 1 to {KEY_CHARS_MAX} characters without control characters");
    Err(Problem::invalid("Idempotency-Key", rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn parse(body: &Value) -> Result<Publication, Problem> {
        Publication::parse(Object::parse(body.to_string().as_bytes()).unwrap(), None)
    }

    fn of(field: &str, value: Value) -> Result<Publication, Problem> {
        let mut body =
            json!({ "target": "user:bo", "type": "progress.updated", "payload": { "lessonId": 7 } });
        body[field] = value;
        parse(&body)
    }

    fn refused(field: &str, value: Value) -> String {
        let shown = value.to_string();
        let problem = of(field, value).expect_err(&shown);
        assert_eq!((problem.status, &*problem.code), (422, "invalid"));
        problem.field.unwrap_or_default()
    }

    #[test]
    fn an_address_is_a_topic_a_user_or_a_conversation() {
        for (good, expected) in [
            ("topic:match:31", "topic:match:31"),
            ("user:Ană ✓", "user:Ană ✓"),
            (&*format!("conv:{}", CONVERSATION.to_uppercase()), &*format!("conv:{CONVERSATION}")),
        ] {
            assert_eq!(of("target", json!(good)).unwrap().target, expected);
        }
        let long = [format!("topic:{}", "x".repeat(129)), format!("user:{}", "x".repeat(65))];
        for bad in [
            "",
            "bo",
            "user:",
            "topic:",
            "topic:a b",
            "conv:No Slug",
            "room:7",
            "USER:bo",
            "user:a\u{7}",
            &long[0],
            &long[1],
        ] {
            assert_eq!(refused("target", json!(bad)), "target", "{bad:?}");
        }
        for bad in [json!(null), json!(7), json!({}), json!("user:a\0")] {
            assert_eq!(refused("target", bad), "target");
        }
    }

    #[test]
    fn frame_types_of_the_product_are_reserved() {
        for good in [
            "progress.updated",
            "tournament.start",
            "match.update",
            "x",
            "readiness",
            "Members.Only",
            "typing-test",
        ] {
            assert!(of("type", json!(good)).is_ok(), "{good}");
        }
        for own in [
            "message.new",
            "message.sent",
            "Message.New",
            "presence.update",
            "presence.snapshot",
            "member.joined",
            "member.left",
            "member.changes",
            "receipt.read",
            "receipt.delivered",
            "conversation.updated",
            "notification.new",
            "notification.read",
            "notification.updated",
            "typing.start",
            "typing",
            "auth.success",
            "auth.expiring",
            "error",
            "pong",
            "resync",
            "draining",
            "subscribed",
            "unsubscribed",
            "history",
            "read.ok",
            "chat:join",
            "join_room",
        ] {
            assert_eq!(refused("type", json!(own)), "type", "{own}");
        }
        for bad in
            [json!(""), json!("a b"), json!("a\"b"), json!("đ"), json!("x".repeat(65)), json!(null), json!(3)]
        {
            assert_eq!(refused("type", bad), "type");
        }
    }

    #[test]
    fn a_payload_is_an_object_of_bounded_size() {
        let fill = |bytes: usize| json!({ "x": "y".repeat(bytes - r#"{"x":""}"#.len()) });
        assert!(of("payload", fill(PAYLOAD_BYTES_MAX)).is_ok());
        for bad in [json!(null), json!([]), json!("x"), json!({ "x": "\0" }), fill(PAYLOAD_BYTES_MAX + 1)] {
            assert_eq!(refused("payload", bad), "payload");
        }
    }

    #[test]
    fn a_notice_has_a_title_a_known_type_and_a_known_level() {
        let full = json!({ "type": "match", "level": "alert", "title": "Now", "body": "a\nb", "data": { "a": [1] },
            "entity_type": "match", "entity_id": "31" });
        let event: Value = serde_json::from_str(&of("notify", full.clone()).unwrap().event()).unwrap();
        assert_eq!(event["notify"], full);
        let least: Value =
            serde_json::from_str(&of("notify", json!({ "title": "x" })).unwrap().event()).unwrap();
        assert_eq!((&least["notify"]["type"], &least["notify"]["level"]), (&json!("system"), &json!("info")));
        assert_eq!(refused("notify", json!("x")), "notify");
        for (field, value) in [
            ("type", json!("mention")),
            ("level", json!("loud")),
            ("title", json!("")),
            ("title", json!(null)),
            ("title", json!("x".repeat(256))),
            ("title", json!("a\nb")),
            ("body", json!("x".repeat(2001))),
            ("entity_type", json!("")),
            ("entity_id", json!(7)),
            ("data", json!([1])),
            ("data", json!({ "x": "y".repeat(DATA_BYTES_MAX) })),
        ] {
            let mut notice = json!({ "title": "x" });
            notice[field] = value;
            assert_eq!(refused("notify", notice), format!("notify.{field}"));
        }
    }

    #[test]
    fn a_topic_cannot_have_a_notification() {
        let body = json!({ "target": "topic:x", "type": "x", "payload": {}, "notify": { "title": "x" } });
        assert_eq!(parse(&body).unwrap_err().field.as_deref(), Some("notify"));
    }

    #[test]
    fn the_event_has_the_form_that_the_relay_reads() {
        let publication = of("payload", json!({ "b": 1, "a": "\"" })).unwrap();
        assert_eq!(
            publication.event(),
            r#"{"target":"user:bo","type":"progress.updated","payload":{"a":"\"","b":1}}"#
        );
        assert_eq!(
            publication.fingerprint(),
            of("payload", json!({ "a": "\"", "b": 1 })).unwrap().fingerprint()
        );
        assert_ne!(publication.fingerprint(), of("payload", json!({ "a": 1 })).unwrap().fingerprint());
    }

    #[test]
    fn a_key_is_a_short_text() {
        for (bad, good) in [("", "k"), ("a\tb", "a b")] {
            assert_eq!(key(Some(bad)).unwrap_err().field.as_deref(), Some("Idempotency-Key"));
            assert_eq!(key(Some(good)).unwrap().as_deref(), Some(good));
        }
        assert!(key(Some(&"x".repeat(129))).is_err() && key(None).unwrap().is_none());
    }
}
