//! Which events notify, and of what. Pure: no host calls, so plain `cargo test` runs it.

use chat::notification::TITLE_CHARS_MAX;
use chat::{notification, outbox};
use sdk::event::Event;
use sdk::{Id, text};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::names::names;

/// Characters of a message that a notification repeats.
pub const BODY_CHARS_MAX: usize = 200;

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
    /// A message was edited or deleted: its notifications follow.
    Rewritten(Rewritten),
    /// A person has read a conversation up to a seq, and so its notifications.
    Read(Seen),
    /// A person is no longer in a conversation: its notifications are retracted.
    Left(Departure),
    /// None is made, but one of this person's was read, deleted or given another text: what is cached of them must go, also
    /// if the handler that changed it could not see to it.
    Changed(String),
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Message {
    /// A person's notification is named after the event, however often it comes.
    event_id: String,
    position: u64,
    pub conversation_id: Id,
    message_id: Id,
    seq: u64,
    sender_id: String,
    title: String,
    content: String,
    /// User ids that the sender named.
    mentions: Vec<String>,
    /// Usernames in the text, without their `@`.
    names: Vec<String>,
    at_ms: u64,
}

/// A message that is not what it was.
#[derive(Debug, PartialEq)]
pub struct Rewritten {
    pub message_id: Id,
    /// What it says now, where it was edited: it may mention people whom it did not mention before. `None`: it was deleted.
    pub edit: Option<Message>,
}

/// An edit and whom the message mentioned before it.
#[derive(Debug, PartialEq, Serialize)]
pub struct Edit<'a> {
    #[serde(flatten)]
    message: &'a Message,
    mentions_before: Vec<String>,
    names_before: Vec<String>,
}

/// How far a person has read a conversation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Seen {
    pub conversation_id: Id,
    pub user_id: String,
    pub up_to_seq: u64,
}

/// Who left which conversation, by themself or removed by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Departure {
    pub conversation_id: Id,
    pub user_id: String,
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
        outbox::MESSAGE_CREATED => created(event),
        outbox::MESSAGE_EDITED => edited(event),
        outbox::MESSAGE_DELETED => deleted(event),
        outbox::RECEIPT_READ => seen(event),
        outbox::PARTICIPANT_LEFT => departure(event),
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
fn created(event: &Event) -> Result<News, Unreadable> {
    let created: outbox::MessageCreated<'_> = read(&event.payload, "payload")?;
    let message = message(event, created.conversation_id, created.seq, created.message)?;
    Ok(message.map_or(News::Nothing, News::Message))
}

fn message(
    event: &Event,
    conversation: &str,
    seq: u64,
    message: &RawValue,
) -> Result<Option<Message>, Unreadable> {
    let written: Written = read(message.get(), "message")?;
    if written.kind != "text" {
        return Ok(None);
    }
    let name = written.sender.and_then(|sender| sender.name).unwrap_or_else(|| written.sender_id.clone());
    Ok(Some(Message {
        event_id: event.id.clone(),
        position: event.position,
        conversation_id: id(conversation, "conversation_id")?,
        message_id: id(&written.id, "message.id")?,
        seq,
        title: text::cut(&name, TITLE_CHARS_MAX).to_owned(),
        content: text::cut(&written.content, BODY_CHARS_MAX).to_owned(),
        sender_id: written.sender_id,
        mentions: written.mentions,
        names: names(&written.content),
        at_ms: event.at_ms,
    }))
}

#[derive(Deserialize)]
struct Edited<'a> {
    conversation_id: &'a str,
    seq: u64,
    #[serde(borrow)]
    message: &'a RawValue,
}

fn edited(event: &Event) -> Result<News, Unreadable> {
    let edited: Edited<'_> = read(&event.payload, "payload")?;
    let message = message(event, edited.conversation_id, edited.seq, edited.message)?;
    Ok(message.map_or(News::Nothing, |message| {
        News::Rewritten(Rewritten { message_id: message.message_id, edit: Some(message) })
    }))
}

#[derive(Deserialize)]
struct Deleted<'a> {
    message_id: &'a str,
}

fn deleted(event: &Event) -> Result<News, Unreadable> {
    let deleted: Deleted<'_> = read(&event.payload, "payload")?;
    Ok(News::Rewritten(Rewritten { message_id: id(deleted.message_id, "message_id")?, edit: None }))
}

#[derive(Deserialize)]
struct Receipt<'a> {
    conversation_id: &'a str,
    user_id: String,
    up_to_seq: u64,
}

fn seen(event: &Event) -> Result<News, Unreadable> {
    let receipt: Receipt<'_> = read(&event.payload, "payload")?;
    Ok(News::Read(Seen {
        conversation_id: id(receipt.conversation_id, "conversation_id")?,
        user_id: receipt.user_id,
        up_to_seq: receipt.up_to_seq,
    }))
}

#[derive(Deserialize)]
struct Moved<'a> {
    conversation_id: &'a str,
    user_id: String,
    /// A direct conversation that its person hid: they are still in it.
    #[serde(default)]
    quiet: bool,
}

fn departure(event: &Event) -> Result<News, Unreadable> {
    let moved: Moved<'_> = read(&event.payload, "payload")?;
    if moved.quiet {
        return Ok(News::Nothing);
    }
    Ok(News::Left(Departure {
        conversation_id: id(moved.conversation_id, "conversation_id")?,
        user_id: moved.user_id,
    }))
}

fn id(raw: &str, what: &str) -> Result<Id, Unreadable> {
    Id::parse(raw).ok_or_else(|| format!("{what} is no id"))
}

impl Message {
    pub fn event_id(&self) -> &str {
        &self.event_id
    }

    /// The sender has read what they wrote, and everything before it.
    pub fn seen_by_sender(&self) -> Seen {
        Seen { conversation_id: self.conversation_id, user_id: self.sender_id.clone(), up_to_seq: self.seq }
    }

    /// Whether it could mention anybody at all.
    pub fn mentions_somebody(&self) -> bool {
        !self.mentions.is_empty() || !self.names.is_empty()
    }

    /// This edit, after `content` and `mentions` (JSON, an array of user ids) stood there.
    pub fn after<'a>(&'a self, content: &str, mentions: Option<&str>) -> Result<Edit<'a>, Unreadable> {
        Ok(Edit {
            message: self,
            mentions_before: mentions
                .map(|mentions| read(mentions, "original_mentions"))
                .transpose()?
                .unwrap_or_default(),
            names_before: names(content),
        })
    }
}

/// The furthest that each person has read each conversation, in order.
pub fn furthest(seen: impl IntoIterator<Item = Seen>) -> Vec<Seen> {
    let mut all: Vec<Seen> = seen.into_iter().collect();
    // The furthest of each last, which is the one that stays.
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.dedup_by(|next, kept| next.conversation_id == kept.conversation_id && next.user_id == kept.user_id);
    all.reverse();
    all
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
        let is_change =
            published.frame_type == notification::READ || published.frame_type == notification::UPDATED;
        let own = published.target.strip_prefix("user:").filter(|_| is_change);
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
    const MESSAGE: &str = "019a9fd9-277b-7fff-bfff-fffffffffffe";

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
        let message = json!({ "id": MESSAGE, "sender_id": "ana", "sender": sender, "type": kind, "content": content, "mentions": ["bo"] });
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
        assert_eq!((message.title.as_str(), text::length(&message.content)), ("Ana", 200));
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
        for kind in ["notification.read", "notification.updated"] {
            let payload = json!({ "target": "user:bo", "type": kind, "payload": { "id": ROOM } });
            assert_eq!(news(&event("published", &payload)), Ok(News::Changed("bo".to_owned())));
        }
    }

    #[test]
    fn an_edit_knows_whom_the_message_mentioned_before() {
        let message = json!({ "id": MESSAGE, "sender_id": "ana", "sender": null, "type": "text", "content": "@carla",
            "mentions": ["bo", "cy"] });
        let payload = json!({ "conversation_id": ROOM, "seq": 3, "change": 1, "message": message });
        let Ok(News::Rewritten(Rewritten { edit: Some(edit), .. })) =
            news(&event("message.edited", &payload))
        else {
            panic!("an edit")
        };
        assert!(edit.mentions_somebody());
        let after = serde_json::to_value(edit.after("@anna", Some(r#"["bo"]"#)).unwrap()).unwrap();
        assert_eq!((&after["mentions_before"], &after["names_before"]), (&json!(["bo"]), &json!(["anna"])));
        assert_eq!((&after["mentions"], &after["names"]), (&json!(["bo", "cy"]), &json!(["carla"])));

        let payload = json!({ "conversation_id": ROOM, "message_id": MESSAGE, "seq": 3, "change": 2 });
        let deleted = news(&event("message.deleted", &payload)).unwrap();
        assert!(matches!(deleted, News::Rewritten(Rewritten { edit: None, .. })));
    }

    #[test]
    fn who_hides_a_direct_conversation_has_not_left_it() {
        let left = |quiet: bool| {
            let payload = json!({ "conversation_id": ROOM, "user_id": "bo", "role": "member", "by": "bo", "quiet": quiet });
            news(&event("conversation.participant.left", &payload)).unwrap()
        };
        assert!(matches!(left(false), News::Left(Departure { user_id, .. }) if user_id == "bo"));
        assert_eq!(left(true), News::Nothing);
    }

    #[test]
    fn of_several_marks_the_furthest_counts() {
        let seen = |user: &str, up_to_seq| Seen {
            conversation_id: Id::parse(ROOM).unwrap(),
            user_id: user.to_owned(),
            up_to_seq,
        };
        let all = furthest([seen("bo", 3), seen("ana", 7), seen("bo", 5), seen("bo", 4)]);
        assert_eq!(all, [seen("ana", 7), seen("bo", 5)]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let unreadable = |event_type: &str, payload| news(&event(event_type, &payload)).unwrap_err();
        let message = json!({ "conversation_id": ROOM, "seq": 3, "message": {} });
        assert!(unreadable("message.created", message).starts_with("message: "));
        assert!(unreadable("class.member.added", json!({})).starts_with("payload: "));
    }
}
