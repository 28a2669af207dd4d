//! Which events notify, and of what. Pure: no host calls, so plain `cargo test` runs it.

use sdk::event::Event;
use sdk::notification::TITLE_CHARS_MAX;
use sdk::{Id, outbox, text};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Characters of a message that a notification repeats.
pub const BODY_CHARS_MAX: usize = 200;
/// Names after an `@` that are looked up; a message that holds more is no call but noise.
pub const NAMES_MAX: usize = 50;
const NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=50;

/// What follows from one event.
#[derive(Debug, PartialEq)]
pub enum News {
    Nothing,
    /// For who of a conversation should know of a message: that is found out where it is stored.
    Message(Message),
    /// For one person.
    Given(Given),
    /// For everyone in a conversation, each the same.
    Everyone(Id, Given),
    /// None is made, but one of this person's was read or deleted: what is cached of them must go, also if who changed it
    /// could not see to it.
    Changed(String),
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Message {
    /// A person's notification is named after the event, however often it comes.
    event_id: String,
    position: u64,
    pub conversation_id: Id,
    message_id: String,
    seq: u64,
    sender_id: String,
    title: String,
    body: String,
    /// User ids that the sender named.
    mentions: Vec<String>,
    /// Usernames in the text, without their `@`.
    names: Vec<String>,
    at_ms: u64,
}

/// A notification that lacks nothing but, where it is for many, whose it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Given {
    event_id: String,
    position: u64,
    user_id: String,
    #[serde(rename = "type")]
    kind: String,
    level: String,
    title: String,
    body: Option<String>,
    entity_type: Option<String>,
    entity_id: Option<String>,
    data: Option<Value>,
    at_ms: u64,
}

/// The payload of an event is not what its type promises: a fault of the handler that wrote it.
pub type Unreadable = String;

pub fn news(event: &Event) -> Result<News, Unreadable> {
    match event.event_type.as_str() {
        outbox::MESSAGE_CREATED => message(event),
        outbox::CLASS_MEMBER_ADDED => invitation(event),
        outbox::PUBLISHED => published(event),
        _ => Ok(News::Nothing),
    }
}

#[derive(Deserialize)]
struct Written {
    id: String,
    sender_id: String,
    sender: Option<Sender>,
    #[serde(rename = "type")]
    kind: String,
    content: String,
    mentions: Vec<String>,
}

#[derive(Deserialize)]
struct Sender {
    name: Option<String>,
}

/// Nothing for what notifies nobody: only people's own words do.
fn message(event: &Event) -> Result<News, Unreadable> {
    let created: outbox::MessageCreated<'_> = read(&event.payload, "payload")?;
    let written: Written = read(created.message.get(), "message")?;
    if written.kind != "text" {
        return Ok(News::Nothing);
    }
    let conversation_id =
        Id::parse(created.conversation_id).ok_or_else(|| "conversation_id is no id".to_owned())?;
    let name = written.sender.and_then(|sender| sender.name).unwrap_or_else(|| written.sender_id.clone());
    Ok(News::Message(Message {
        event_id: event.id.clone(),
        position: event.position,
        conversation_id,
        message_id: written.id,
        seq: created.seq,
        title: text::cut(&name, TITLE_CHARS_MAX).to_owned(),
        body: text::cut(&written.content, BODY_CHARS_MAX).to_owned(),
        sender_id: written.sender_id,
        mentions: written.mentions,
        names: names(&written.content),
        at_ms: event.at_ms,
    }))
}

/// What could be usernames: 3 to 50 letters, digits, `_` and `-` after an `@` that stands at the beginning of a word, so
/// that an address of mail is none. A dash or underscore at the end may also be punctuation: both readings are looked up.
fn names(content: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut names: Vec<String> = Vec::new();
    for (place, _) in content.match_indices('@') {
        if content[..place].chars().next_back().is_some_and(|before| is_word(before) || before == '@') {
            continue;
        }
        let rest = &content[place + 1..];
        let whole = &rest[..rest.find(|c: char| !is_word(c)).unwrap_or(rest.len())];
        for name in [whole, whole.trim_end_matches(['-', '_'])] {
            let fits = NAME_CHARS.contains(&text::length(name));
            if fits && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        if names.len() >= NAMES_MAX {
            names.truncate(NAMES_MAX);
            break;
        }
    }
    names
}

#[derive(Deserialize)]
struct Added {
    class: Class,
    user_id: String,
    role: String,
    by: String,
}

#[derive(Deserialize)]
struct Class {
    id: String,
    name: String,
    conversation_id: Option<String>,
}

/// Whoever came by themselves, by the class's code, knows it.
fn invitation(event: &Event) -> Result<News, Unreadable> {
    let added: Added = read(&event.payload, "payload")?;
    if added.user_id == added.by {
        return Ok(News::Nothing);
    }
    let data = json!({
        "class_id": added.class.id,
        "conversation_id": added.class.conversation_id,
        "role": added.role,
        "by": added.by,
    });
    Ok(News::Given(Given {
        user_id: added.user_id,
        kind: "class_invite".to_owned(),
        level: "info".to_owned(),
        title: text::cut(&added.class.name, TITLE_CHARS_MAX).to_owned(),
        body: None,
        entity_type: Some("class".to_owned()),
        entity_id: Some(added.class.id),
        data: Some(data),
        ..Given::of(event)
    }))
}

fn published(event: &Event) -> Result<News, Unreadable> {
    let published: outbox::Published<'_> = read(&event.payload, "payload")?;
    let Some(notice) = published.notify else {
        let own =
            published.target.strip_prefix("user:").filter(|_| published.frame_type == "notification.read");
        return Ok(own.map_or(News::Nothing, |user| News::Changed(user.to_owned())));
    };
    let data = notice.data.map(RawValue::get).map(|data| read(data, "data")).transpose()?;
    let given = Given {
        kind: notice.kind,
        level: notice.level,
        title: notice.title,
        body: notice.body,
        entity_type: notice.entity_type,
        entity_id: notice.entity_id,
        data,
        ..Given::of(event)
    };
    if let Some(user) = published.target.strip_prefix("user:") {
        return Ok(News::Given(given.to(user)));
    }
    match published.target.strip_prefix("conv:").and_then(Id::parse) {
        Some(conversation) => Ok(News::Everyone(conversation, given)),
        None => Err(format!("target `{}` has nobody to be notified", published.target)),
    }
}

impl Given {
    pub fn to(&self, user: &str) -> Self {
        Self { user_id: user.to_owned(), ..self.clone() }
    }

    fn of(event: &Event) -> Self {
        Self {
            event_id: event.id.clone(),
            position: event.position,
            user_id: String::new(),
            kind: String::new(),
            level: String::new(),
            title: String::new(),
            body: None,
            entity_type: None,
            entity_id: None,
            data: None,
            at_ms: event.at_ms,
        }
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a str, what: &str) -> Result<T, Unreadable> {
    serde_json::from_str(json).map_err(|error| format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn event(event_type: &str, payload: &Value) -> Event {
        Event {
            id: "e".into(),
            position: 1,
            shard: 0,
            event_type: event_type.into(),
            key: "k".into(),
            payload: payload.to_string(),
            at_ms: 7,
            attempt: 1,
        }
    }

    fn of_message(kind: &str, content: &str, sender: Value) -> Result<News, Unreadable> {
        let message = json!({ "id": "m", "sender_id": "ana", "sender": sender, "type": kind, "content": content, "mentions": ["bo"] });
        news(&event("message.created", &json!({ "conversation_id": ROOM, "seq": 3, "message": message })))
    }

    fn told(content: &str, sender: Value) -> Message {
        match of_message("text", content, sender) {
            Ok(News::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_text_tells_who_wrote_and_how_it_begins() {
        let message = told(&"ü".repeat(300), json!({ "name": "Ana" }));
        assert_eq!((message.title.as_str(), text::length(&message.body)), ("Ana", 200));
        assert_eq!((message.seq, message.mentions), (3, vec!["bo".to_owned()]));
        assert_eq!(told("hi", Value::Null).title, "ana");
    }

    #[test]
    fn joins_and_leaves_notify_nobody() {
        for kind in ["join", "leave", "system"] {
            assert_eq!(of_message(kind, "x", Value::Null), Ok(News::Nothing));
        }
    }

    #[test]
    fn names_are_words_after_an_at() {
        for (text, expected) in [
            ("@anna, and (@Đường) @b0_b-c!", &["anna", "Đường", "b0_b-c"][..]),
            ("mail me: ana@example.com, @@anna", &[]),
            ("@ab is too short, so is @", &[]),
            ("@anna @anna", &["anna"]),
            ("thanks @anna-", &["anna-", "anna"]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
        assert_eq!(names(&format!("@{}", "x".repeat(51))), Vec::<String>::new());
        let many: String = (0..200).map(|n| format!("@user{n} ")).collect();
        assert_eq!(names(&many).len(), NAMES_MAX);
    }

    #[test]
    fn who_is_added_to_a_class_is_told_unless_by_themselves() {
        let added = |by: &str| {
            let class = json!({ "id": ROOM, "name": "CS101", "conversation_id": ROOM });
            let payload = json!({ "class": class, "user_id": "bo", "role": "student", "by": by });
            news(&event("class.member.added", &payload)).unwrap()
        };
        let News::Given(given) = added("tess") else { panic!("for one person") };
        assert_eq!(
            (given.user_id.as_str(), given.kind.as_str(), given.title.as_str()),
            ("bo", "class_invite", "CS101")
        );
        assert_eq!(added("bo"), News::Nothing);
    }

    #[test]
    fn internal_systems_notify_a_person_or_a_conversation() {
        let publish = |target: &str, notify: Value| {
            let payload =
                json!({ "target": target, "type": "match.update", "payload": {}, "notify": notify });
            news(&event("published", &payload))
        };
        let notice = json!({ "type": "match", "level": "alert", "title": "Now", "data": { "matchId": 31 } });
        let News::Given(given) = publish("user:bo", notice.clone()).unwrap() else {
            panic!("for one person")
        };
        assert_eq!((given.user_id.as_str(), given.data), ("bo", Some(json!({ "matchId": 31 }))));
        let everyone = publish(&format!("conv:{ROOM}"), notice.clone()).unwrap();
        assert!(matches!(everyone, News::Everyone(room, _) if room.to_string() == ROOM));
        assert_eq!(publish("user:bo", Value::Null), Ok(News::Nothing));
        assert!(publish("topic:match:31", notice).unwrap_err().contains("nobody"));
    }

    #[test]
    fn what_was_read_is_no_longer_cached() {
        let payload = json!({ "target": "user:bo", "type": "notification.read", "payload": { "id": ROOM } });
        assert_eq!(news(&event("published", &payload)), Ok(News::Changed("bo".to_owned())));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let unreadable = |event_type: &str, payload| news(&event(event_type, &payload)).unwrap_err();
        let message = json!({ "conversation_id": ROOM, "seq": 3, "message": {} });
        assert!(unreadable("message.created", message).starts_with("message: "));
        assert!(unreadable("class.member.added", json!({})).starts_with("payload: "));
    }
}
