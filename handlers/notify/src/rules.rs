//! Decides which notifications follow from an event. Pure: no host calls, so plain `cargo test` runs it.

use chat::notification::TITLE_CHARS_MAX;
use chat::{notification, outbox};
use sdk::event::Event;
use sdk::{Id, text};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::names::names;

/// The characters of a message that its notification repeats.
pub(crate) const BODY_CHARS_MAX: usize = 200;

/// The effect of one event.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    Nothing,
    /// A message, of which some participants are notified. The statement that stores the notifications
    /// selects them.
    Message(Message),
    /// A notification for one user, with a text that the event has.
    Complete(CompleteNotification),
    /// The same notification for everyone in a conversation.
    Everyone(Id, CompleteNotification),
    /// A message was edited or deleted, so its notifications are updated.
    Rewritten(Rewritten),
    /// A user has read a conversation up to a seq. Their notifications of its messages up to there are marked
    /// as read.
    Read(ReadMark),
    /// A user has left a conversation, so their notifications of it are retracted.
    Left(Departure),
    /// A notification of this user was read, deleted or updated, so the user's cache is invalidated. The
    /// handler that made the change does that too, but it may have failed.
    Changed(String),
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Message {
    /// The ids of the notifications are derived from it.
    event_id: String,
    position: u64,
    pub conversation_id: Id,
    message_id: Id,
    seq: u64,
    sender_id: String,
    title: String,
    content: String,
    /// The user ids that the sender mentioned.
    mentions: Vec<String>,
    /// Usernames in the text, without their `@`.
    names: Vec<String>,
    at_ms: u64,
    /// The sender was the only participant.
    #[serde(skip)]
    pub is_alone: bool,
}

/// An edited or deleted message.
#[derive(Debug, PartialEq)]
pub(crate) struct Rewritten {
    pub message_id: Id,
    /// The message after the edit, which may mention other users than before. `None` if it was deleted.
    pub edit: Option<Message>,
}

/// An edit, and the mentions of the message before it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Edit<'a> {
    #[serde(flatten)]
    message: &'a Message,
    mentions_before: Vec<String>,
    names_before: Vec<String>,
}

/// The seq up to which a user has read a conversation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct ReadMark {
    pub conversation_id: Id,
    pub user_id: String,
    pub up_to_seq: u64,
}

/// A user who left a conversation or was removed from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Departure {
    pub conversation_id: Id,
    pub user_id: String,
}

/// A notification that the event describes completely, so that only the ids and the user are added. The user
/// id is empty until [`Self::to`] if the notification is for several users.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CompleteNotification {
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
pub(crate) type Unreadable = String;

pub(crate) fn effect_of(event: &Event) -> Result<Effect, Unreadable> {
    match event.event_type.as_str() {
        outbox::MESSAGE_CREATED => created(event),
        outbox::MESSAGE_EDITED => edited(event),
        outbox::MESSAGE_DELETED => deleted(event),
        outbox::RECEIPT_READ => read_mark(event),
        outbox::PARTICIPANT_LEFT => departure(event),
        outbox::CLASS_MEMBER_ADDED => invitation(event),
        outbox::PUBLISHED => published(event),
        _ => Ok(Effect::Nothing),
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

/// Only messages of type `text` notify.
fn created(event: &Event) -> Result<Effect, Unreadable> {
    let created: outbox::MessageCreated<'_> = read(&event.payload, "payload")?;
    let message = message(event, created.conversation_id, created.seq, created.message)?;
    Ok(message
        .map_or(Effect::Nothing, |message| Effect::Message(Message { is_alone: created.alone, ..message })))
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
        is_alone: false,
    }))
}

#[derive(Deserialize)]
struct Edited<'a> {
    conversation_id: &'a str,
    seq: u64,
    #[serde(borrow)]
    message: &'a RawValue,
}

fn edited(event: &Event) -> Result<Effect, Unreadable> {
    let edited: Edited<'_> = read(&event.payload, "payload")?;
    let message = message(event, edited.conversation_id, edited.seq, edited.message)?;
    Ok(message.map_or(Effect::Nothing, |message| {
        Effect::Rewritten(Rewritten { message_id: message.message_id, edit: Some(message) })
    }))
}

#[derive(Deserialize)]
struct Deleted<'a> {
    message_id: &'a str,
}

fn deleted(event: &Event) -> Result<Effect, Unreadable> {
    let deleted: Deleted<'_> = read(&event.payload, "payload")?;
    Ok(Effect::Rewritten(Rewritten { message_id: id(deleted.message_id, "message_id")?, edit: None }))
}

#[derive(Deserialize)]
struct Receipt<'a> {
    conversation_id: &'a str,
    user_id: String,
    up_to_seq: u64,
}

fn read_mark(event: &Event) -> Result<Effect, Unreadable> {
    let receipt: Receipt<'_> = read(&event.payload, "payload")?;
    Ok(Effect::Read(ReadMark {
        conversation_id: id(receipt.conversation_id, "conversation_id")?,
        user_id: receipt.user_id,
        up_to_seq: receipt.up_to_seq,
    }))
}

#[derive(Deserialize)]
struct Moved<'a> {
    conversation_id: &'a str,
    user_id: String,
    /// Whether the user only hid a direct conversation, and is still a participant.
    #[serde(default)]
    quiet: bool,
}

fn departure(event: &Event) -> Result<Effect, Unreadable> {
    let moved: Moved<'_> = read(&event.payload, "payload")?;
    if moved.quiet {
        return Ok(Effect::Nothing);
    }
    Ok(Effect::Left(Departure {
        conversation_id: id(moved.conversation_id, "conversation_id")?,
        user_id: moved.user_id,
    }))
}

fn id(raw: &str, what: &str) -> Result<Id, Unreadable> {
    Id::parse(raw).ok_or_else(|| format!("{what} is no id"))
}

impl Message {
    pub(crate) fn event_id(&self) -> &str {
        &self.event_id
    }

    pub(crate) fn sender_id(&self) -> &str {
        &self.sender_id
    }

    /// The sender has read the conversation up to their own message.
    pub(crate) fn mark_of_sender(&self) -> ReadMark {
        ReadMark {
            conversation_id: self.conversation_id,
            user_id: self.sender_id.clone(),
            up_to_seq: self.seq,
        }
    }

    /// Whether the message may mention somebody.
    pub(crate) fn mentions_somebody(&self) -> bool {
        !self.mentions.is_empty() || !self.names.is_empty()
    }

    /// The edit of a message that had this `content` and these `mentions` (a JSON array of user ids) before.
    pub(crate) fn after<'a>(&'a self, content: &str, mentions: Option<&str>) -> Result<Edit<'a>, Unreadable> {
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

/// The highest seq that each user has read in each conversation, sorted.
pub(crate) fn furthest(marks: impl IntoIterator<Item = ReadMark>) -> Vec<ReadMark> {
    let mut all: Vec<ReadMark> = marks.into_iter().collect();
    // In descending order, the highest seq is the first of its group, and `dedup` keeps the first.
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

/// A user who joined by the class's code is not notified.
fn invitation(event: &Event) -> Result<Effect, Unreadable> {
    let added: Added = read(&event.payload, "payload")?;
    if added.user_id == added.by {
        return Ok(Effect::Nothing);
    }
    let data = json!({
        "class_id": added.class.id,
        "conversation_id": added.class.conversation_id,
        "role": added.role,
        "by": added.by,
    });
    Ok(Effect::Complete(CompleteNotification {
        user_id: added.user_id,
        kind: "class_invite".to_owned(),
        level: "info".to_owned(),
        title: text::cut(&added.class.name, TITLE_CHARS_MAX).to_owned(),
        body: None,
        entity_type: Some("class".to_owned()),
        entity_id: Some(added.class.id),
        data: Some(data),
        ..CompleteNotification::of(event)
    }))
}

fn published(event: &Event) -> Result<Effect, Unreadable> {
    let published: outbox::Published<'_> = read(&event.payload, "payload")?;
    let Some(notice) = published.notify else {
        let is_change =
            published.frame_type == notification::READ || published.frame_type == notification::UPDATED;
        let own = published.target.strip_prefix("user:").filter(|_| is_change);
        return Ok(own.map_or(Effect::Nothing, |user| Effect::Changed(user.to_owned())));
    };
    let data = notice.data.map(RawValue::get).map(|data| read(data, "data")).transpose()?;
    let notification = CompleteNotification {
        kind: notice.kind,
        level: notice.level,
        title: notice.title,
        body: notice.body,
        entity_type: notice.entity_type,
        entity_id: notice.entity_id,
        data,
        ..CompleteNotification::of(event)
    };
    if let Some(user) = published.target.strip_prefix("user:") {
        return Ok(Effect::Complete(notification.to(user)));
    }
    match published.target.strip_prefix("conv:").and_then(Id::parse) {
        Some(conversation) => Ok(Effect::Everyone(conversation, notification)),
        None => Err(format!("target `{}` has nobody to be notified", published.target)),
    }
}

impl CompleteNotification {
    pub(crate) fn to(&self, user: &str) -> Self {
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

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";
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

    fn of_message(kind: &str, content: &str, sender: Value) -> Result<Effect, Unreadable> {
        let message = json!({ "id": MESSAGE, "sender_id": "ana", "sender": sender, "type": kind, "content": content, "mentions": ["bo"] });
        effect_of(&event(
            "message.created",
            &json!({ "conversation_id": CONVERSATION, "seq": 3, "message": message }),
        ))
    }

    fn effect_message(content: &str, sender: Value) -> Message {
        match of_message("text", content, sender) {
            Ok(Effect::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_notification_has_the_sender_and_the_beginning_of_the_text() {
        let message = effect_message(&"ü".repeat(300), json!({ "name": "Ana" }));
        assert_eq!((message.title.as_str(), text::length(&message.content)), ("Ana", 200));
        assert_eq!((message.seq, message.mentions), (3, vec!["bo".to_owned()]));
        assert_eq!(effect_message("hi", Value::Null).title, "ana");
    }

    #[test]
    fn a_sender_is_alone_only_if_the_event_says_so() {
        let message = json!({
            "id": MESSAGE, "sender_id": "ana", "sender": null, "type": "text", "content": "hi", "mentions": [],
        });
        for (payload, expected) in [
            (json!({ "conversation_id": CONVERSATION, "seq": 3, "alone": true, "message": message }), true),
            // An event of a release that did not say it.
            (json!({ "conversation_id": CONVERSATION, "seq": 3, "message": message }), false),
        ] {
            let Ok(Effect::Message(message)) = effect_of(&event("message.created", &payload)) else {
                panic!("{payload}")
            };
            assert_eq!(message.is_alone, expected);
            assert!(
                !serde_json::to_string(&message).unwrap().contains("alone"),
                "the statement does not need it"
            );
        }
    }

    #[test]
    fn joins_and_leaves_notify_nobody() {
        for kind in ["join", "leave", "system"] {
            assert_eq!(of_message(kind, "x", Value::Null), Ok(Effect::Nothing));
        }
    }

    #[test]
    fn a_user_who_is_added_to_a_class_is_notified_unless_they_joined() {
        let added = |by: &str| {
            let class = json!({ "id": CONVERSATION, "name": "CS101", "conversation_id": CONVERSATION });
            let payload = json!({ "class": class, "user_id": "bo", "role": "student", "by": by });
            effect_of(&event("class.member.added", &payload)).unwrap()
        };
        let Effect::Complete(notification) = added("tess") else { panic!("for one person") };
        assert_eq!(
            (notification.user_id.as_str(), notification.kind.as_str(), notification.title.as_str()),
            ("bo", "class_invite", "CS101")
        );
        assert_eq!(added("bo"), Effect::Nothing);
    }

    #[test]
    fn internal_systems_notify_a_user_or_a_conversation() {
        let publish = |target: &str, notify: Value| {
            let payload =
                json!({ "target": target, "type": "match.update", "payload": {}, "notify": notify });
            effect_of(&event("published", &payload))
        };
        let notice = json!({ "type": "match", "level": "alert", "title": "Now", "data": { "matchId": 31 } });
        let Effect::Complete(notification) = publish("user:bo", notice.clone()).unwrap() else {
            panic!("for one person")
        };
        assert_eq!(
            (notification.user_id.as_str(), notification.data),
            ("bo", Some(json!({ "matchId": 31 })))
        );
        let everyone = publish(&format!("conv:{CONVERSATION}"), notice.clone()).unwrap();
        assert!(
            matches!(everyone, Effect::Everyone(conversation, _) if conversation.to_string() == CONVERSATION)
        );
        assert_eq!(publish("user:bo", Value::Null), Ok(Effect::Nothing));
        assert!(publish("topic:match:31", notice).unwrap_err().contains("nobody"));
    }

    #[test]
    fn a_change_of_a_notification_invalidates_the_cache() {
        for kind in ["notification.read", "notification.updated"] {
            let payload = json!({ "target": "user:bo", "type": kind, "payload": { "id": CONVERSATION } });
            assert_eq!(effect_of(&event("published", &payload)), Ok(Effect::Changed("bo".to_owned())));
        }
    }

    #[test]
    fn an_edit_has_the_former_mentions_of_the_message() {
        let message = json!({ "id": MESSAGE, "sender_id": "ana", "sender": null, "type": "text", "content": "@carla",
            "mentions": ["bo", "cy"] });
        let payload = json!({ "conversation_id": CONVERSATION, "seq": 3, "change": 1, "message": message });
        let Ok(Effect::Rewritten(Rewritten { edit: Some(edit), .. })) =
            effect_of(&event("message.edited", &payload))
        else {
            panic!("an edit")
        };
        assert!(edit.mentions_somebody());
        let after = serde_json::to_value(edit.after("@anna", Some(r#"["bo"]"#)).unwrap()).unwrap();
        assert_eq!((&after["mentions_before"], &after["names_before"]), (&json!(["bo"]), &json!(["anna"])));
        assert_eq!((&after["mentions"], &after["names"]), (&json!(["bo", "cy"]), &json!(["carla"])));

        let payload =
            json!({ "conversation_id": CONVERSATION, "message_id": MESSAGE, "seq": 3, "change": 2 });
        let deleted = effect_of(&event("message.deleted", &payload)).unwrap();
        assert!(matches!(deleted, Effect::Rewritten(Rewritten { edit: None, .. })));
    }

    #[test]
    fn hiding_a_direct_conversation_is_not_leaving_it() {
        let left = |quiet: bool| {
            let payload = json!({ "conversation_id": CONVERSATION, "user_id": "bo", "role": "member", "by": "bo", "quiet": quiet });
            effect_of(&event("conversation.participant.left", &payload)).unwrap()
        };
        assert!(matches!(left(false), Effect::Left(Departure { user_id, .. }) if user_id == "bo"));
        assert_eq!(left(true), Effect::Nothing);
    }

    #[test]
    fn the_highest_of_several_marks_counts() {
        let mark = |user: &str, up_to_seq| ReadMark {
            conversation_id: Id::parse(CONVERSATION).unwrap(),
            user_id: user.to_owned(),
            up_to_seq,
        };
        let all = furthest([mark("bo", 3), mark("ana", 7), mark("bo", 5), mark("bo", 4)]);
        assert_eq!(all, [mark("ana", 7), mark("bo", 5)]);
    }

    #[test]
    fn an_unreadable_event_has_a_reason() {
        let unreadable = |event_type: &str, payload| effect_of(&event(event_type, &payload)).unwrap_err();
        let message = json!({ "conversation_id": CONVERSATION, "seq": 3, "message": {} });
        assert!(unreadable("message.created", message).starts_with("message: "));
        assert!(unreadable("class.member.added", json!({})).starts_with("payload: "));
    }
}
