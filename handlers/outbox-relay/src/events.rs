//! Decides what follows from an event: the frames to publish and the changes of the read model. Pure: it
//! turns an event into a `Delivery` without host calls.

use chat::{address, outbox};
use sdk::channels::{self, Publication};
use sdk::event::Event;
use sdk::{Id, frame};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::members::{self, Announcement};

/// Everything that follows from one event.
#[derive(Default)]
pub(crate) struct Delivery<'a> {
    /// The user whose subscriptions end before this event or a later one is published.
    pub revoked: Option<Departure>,
    pub publications: Vec<Publication>,
    pub facts: Vec<Fact<'a>>,
}

/// A user who left a conversation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Departure {
    pub conversation: Id,
    pub user: String,
    /// Whether the conversation was deleted, so that nobody can join it again.
    pub conversation_ended: bool,
}

/// A change of the read model.
#[derive(Debug, PartialEq)]
pub(crate) enum Fact<'a> {
    /// A new message with this seq and this JSON.
    Message { conversation: Id, seq: u64, json: &'a str },
    /// An edit or a deletion with this number.
    MessageChanged { conversation: Id, change: u64 },
    /// A user joined or left a conversation, so their list changed.
    ListChanged { user: String },
    /// The participants or the properties of a conversation changed.
    ConversationChanged { conversation: Id },
}

/// The payload of an event is not what its type promises: a fault of the handler that wrote it.
#[derive(Debug, PartialEq)]
pub(crate) struct Unreadable(pub String);

#[derive(Deserialize)]
struct Edited<'a> {
    conversation_id: &'a str,
    change: u64,
    /// The ordinal of the position epoch; absent in the first one.
    #[serde(default)]
    epoch: u32,
    #[serde(borrow)]
    message: &'a RawValue,
}

#[derive(Deserialize)]
struct Deleted<'a> {
    conversation_id: &'a str,
    message_id: &'a str,
    seq: u64,
    change: u64,
    #[serde(default)]
    epoch: u32,
}

#[derive(Deserialize)]
struct Created {
    conversation: Named,
    by: String,
    participants: Vec<Person>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
struct Person {
    user_id: String,
    role: String,
}

#[derive(Deserialize)]
struct Updated<'a> {
    #[serde(borrow)]
    conversation: &'a RawValue,
    by: String,
    /// The participants whose role changed.
    #[serde(borrow)]
    participants: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Moved {
    conversation_id: String,
    user_id: String,
    role: String,
    by: String,
    /// The user hid or showed a direct conversation. Only their own connections get the frame, and
    /// subscriptions stay.
    #[serde(default)]
    quiet: bool,
    /// The conversation was deleted. Each participant gets only the frame about themself.
    #[serde(default)]
    ended: bool,
    /// The conversation is large. Only the user's own connections get the frame; the others get all changes
    /// of an interval together.
    #[serde(default)]
    counted: bool,
}

#[derive(Deserialize)]
struct Receipt<'a> {
    conversation_id: &'a str,
    user_id: String,
    up_to_seq: u64,
    at: &'a str,
}

/// `announcement` is what follows if the event asks for one.
pub(crate) fn deliver<'a>(event: &'a Event, announcement: &Announcement) -> Result<Delivery<'a>, Unreadable> {
    match event.event_type.as_str() {
        outbox::MESSAGE_CREATED => message_created(event),
        outbox::MESSAGE_EDITED => message_edited(event),
        outbox::MESSAGE_DELETED => message_deleted(event),
        outbox::CONVERSATION_CREATED => conversation_created(event),
        outbox::CONVERSATION_UPDATED => conversation_updated(event),
        outbox::PARTICIPANT_JOINED => participant_joined(event),
        outbox::PARTICIPANT_LEFT => participant_left(event),
        outbox::MEMBERS_CHANGED => members_changed(event, announcement),
        outbox::RECEIPT_READ | outbox::RECEIPT_DELIVERED => receipt(event),
        outbox::PUBLISHED => published(event),
        // Other events concern no subscriber. They are only added to the stream of events.
        _ => Ok(Delivery::default()),
    }
}

fn message_created(event: &Event) -> Result<Delivery<'_>, Unreadable> {
    let created: outbox::MessageCreated<'_> = read(event)?;
    let conversation = id(created.conversation_id)?;
    let message = created.message.get();
    // The payload of the frame is that of the event, without the seq beside the message.
    let payload =
        [r#"{"conversation_id":""#, created.conversation_id, r#"","message":"#, message, "}"].concat();
    Ok(Delivery {
        publications: vec![Publication::at(
            address::conversation(conversation),
            frame::push("message.new", &payload),
            address::seq(created.epoch, created.seq),
        )],
        facts: vec![Fact::Message { conversation, seq: created.seq, json: message }],
        ..Delivery::default()
    })
}

fn message_edited(event: &Event) -> Result<Delivery<'_>, Unreadable> {
    let edited: Edited<'_> = read(event)?;
    let conversation = id(edited.conversation_id)?;
    let message = edited.message.get();
    let payload =
        format!(r#"{{"conversation_id":"{conversation}","message":{message},"change":{}}}"#, edited.change);
    Ok(Delivery {
        publications: vec![Publication::at(
            address::conversation(conversation),
            frame::push("message.edited", &payload),
            address::change(edited.epoch, edited.change),
        )],
        facts: vec![Fact::MessageChanged { conversation, change: edited.change }],
        ..Delivery::default()
    })
}

fn message_deleted(event: &Event) -> Result<Delivery<'_>, Unreadable> {
    let deleted: Deleted<'_> = read(event)?;
    let conversation = id(deleted.conversation_id)?;
    let payload = json!({
        "conversation_id": conversation,
        "message_id": deleted.message_id,
        "seq": deleted.seq,
        "change": deleted.change,
    });
    Ok(Delivery {
        publications: vec![Publication::at(
            address::conversation(conversation),
            frame::push("message.deleted", &payload.to_string()),
            address::change(deleted.epoch, deleted.change),
        )],
        facts: vec![Fact::MessageChanged { conversation, change: deleted.change }],
        ..Delivery::default()
    })
}

fn conversation_created(event: &Event) -> Result<Delivery<'_>, Unreadable> {
    let created: Created = read(event)?;
    let conversation = id(&created.conversation.id)?;
    let mut delivery = Delivery::default();
    for person in created.participants {
        // No connection can be subscribed yet, so each participant gets the frame on their own connections.
        let joined = member("member.joined", conversation, &person.user_id, &person.role, &created.by);
        delivery.publications.push(Publication::new(channels::user(&person.user_id), joined));
        delivery.facts.push(Fact::ListChanged { user: person.user_id });
    }
    Ok(delivery)
}

fn conversation_updated(event: &Event) -> Result<Delivery<'_>, Unreadable> {
    let updated: Updated<'_> = read(event)?;
    let named: Named = serde_json::from_str(updated.conversation.get()).map_err(unreadable)?;
    let conversation = id(&named.id)?;
    let participants =
        updated.participants.map_or_else(String::new, |people| format!(r#","participants":{people}"#));
    let payload = format!(
        r#"{{"conversation_id":"{conversation}","conversation":{},"by":{}{participants}}}"#,
        updated.conversation,
        json!(updated.by),
    );
    let frame = frame::push("conversation.updated", &payload);
    Ok(Delivery {
        publications: vec![Publication::new(address::conversation(conversation), frame)],
        facts: vec![Fact::ConversationChanged { conversation }],
        ..Delivery::default()
    })
}

fn participant_joined(event: &Event) -> Result<Delivery<'_>, Unreadable> {
    let moved: Moved = read(event)?;
    let conversation = id(&moved.conversation_id)?;
    let frame = member("member.joined", conversation, &moved.user_id, &moved.role, &moved.by);
    Ok(Delivery {
        publications: to_whom(conversation, &moved, frame),
        facts: vec![Fact::ConversationChanged { conversation }, Fact::ListChanged { user: moved.user_id }],
        ..Delivery::default()
    })
}

fn participant_left(event: &Event) -> Result<Delivery<'_>, Unreadable> {
    let moved: Moved = read(event)?;
    let conversation = id(&moved.conversation_id)?;
    let frame = member("member.left", conversation, &moved.user_id, &moved.role, &moved.by);
    Ok(Delivery {
        revoked: (!moved.quiet).then(|| Departure {
            conversation,
            user: moved.user_id.clone(),
            conversation_ended: moved.ended,
        }),
        publications: to_whom(conversation, &moved, frame),
        facts: vec![Fact::ConversationChanged { conversation }, Fact::ListChanged { user: moved.user_id }],
    })
}

/// A slow reader may miss some: each states how many participants there are.
fn members_changed<'a>(event: &'a Event, announcement: &Announcement) -> Result<Delivery<'a>, Unreadable> {
    let conversation = members::conversation_of(event)
        .ok_or_else(|| Unreadable("payload: it names no conversation".to_owned()))?;
    let mut delivery = Delivery::default();
    if let Announcement::Publish(payload) = announcement {
        let frame = frame::push("member.changes", payload);
        let mut publication = Publication::new(address::conversation(conversation), frame);
        publication.merge_key = Some(format!("member.changes:{conversation}"));
        delivery.publications.push(publication);
    }
    Ok(delivery)
}

/// A later mark includes the earlier ones, so a slow reader may miss those (`merge_key`).
fn receipt(event: &Event) -> Result<Delivery<'_>, Unreadable> {
    let receipt: Receipt<'_> = read(event)?;
    let conversation = id(receipt.conversation_id)?;
    let payload = json!({
        "conversation_id": conversation,
        "user_id": receipt.user_id,
        "up_to_seq": receipt.up_to_seq,
        "at": receipt.at,
    });
    let frame = frame::push(&event.event_type, &payload.to_string());
    // The subscribers of the conversation get the frame, and the user's own connections, subscribed or not.
    let own = Publication::new(channels::user(&receipt.user_id), frame.clone());
    let mut all = Publication::new(address::conversation(conversation), frame);
    all.except_user = Some(receipt.user_id.clone());
    let mut publications = vec![all, own];
    for publication in &mut publications {
        publication.merge_key = Some(format!("{}:{conversation}:{}", event.event_type, receipt.user_id));
    }
    Ok(Delivery { publications, ..Delivery::default() })
}

fn published(event: &Event) -> Result<Delivery<'_>, Unreadable> {
    let published: outbox::Published<'_> = read(event)?;
    let known = ["topic:", "user:", "conv:"].iter().any(|kind| published.target.starts_with(kind));
    if !known {
        return Err(Unreadable(format!("target `{}` is no address", published.target)));
    }
    let frame = frame::push(&published.frame_type, published.payload.get());
    Ok(Delivery { publications: vec![Publication::new(published.target, frame)], ..Delivery::default() })
}

fn member(frame_type: &str, conversation: Id, user: &str, role: &str, by: &str) -> String {
    let payload = json!({ "conversation_id": conversation, "user_id": user, "role": role, "by": by });
    frame::push(frame_type, &payload.to_string())
}

/// Publishes to the subscribers of the conversation, and to the user's own connections, subscribed or not.
fn to_whom(conversation: Id, moved: &Moved, frame: String) -> Vec<Publication> {
    let own = Publication::new(channels::user(&moved.user_id), frame.clone());
    if moved.quiet || moved.ended || moved.counted {
        return vec![own];
    }
    let mut all = Publication::new(address::conversation(conversation), frame);
    all.except_user = Some(moved.user_id.clone());
    vec![all, own]
}

fn read<'a, T: Deserialize<'a>>(event: &'a Event) -> Result<T, Unreadable> {
    serde_json::from_str(&event.payload).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Unreadable {
    Unreadable(format!("payload: {error}"))
}

fn id(raw: &str) -> Result<Id, Unreadable> {
    Id::parse(raw).ok_or_else(|| Unreadable(format!("`{raw}` is no id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    /// Delivers an event that asks for no announcement.
    fn deliver(event: &Event) -> Result<Delivery<'_>, Unreadable> {
        super::deliver(event, &Announcement::Nothing)
    }

    fn event_of(event_type: &str, payload: &str) -> Event {
        Event {
            id: CONVERSATION.into(),
            position: 1,
            shard: 0,
            event_type: event_type.into(),
            key: format!("conv:{CONVERSATION}"),
            payload: payload.into(),
            at_ms: 7,
            attempt: 1,
        }
    }

    #[test]
    fn a_message_is_published_unchanged_at_its_seq() {
        let payload = format!(
            r#"{{"conversation_id":"{CONVERSATION}","seq":4,"message":{{"id":"m","content":"có \"gì\""}}}}"#
        );
        let event = event_of("message.created", &payload);
        let delivery = deliver(&event).unwrap();
        let [publication] = &delivery.publications[..] else { panic!("one publication") };
        assert_eq!(publication.address, format!("conv:{CONVERSATION}"));
        assert_eq!(publication.position, Some(address::seq(0, 4)));
        assert_eq!(
            publication.frame,
            format!(
                r#"{{"type":"message.new","payload":{{"conversation_id":"{CONVERSATION}","message":{{"id":"m","content":"có \"gì\""}}}}}}"#
            )
        );
        assert!(matches!(&delivery.facts[..], [Fact::Message { seq: 4, .. }]));
    }

    #[test]
    fn changes_are_published_on_their_own_track() {
        let edited =
            format!(r#"{{"conversation_id":"{CONVERSATION}","seq":4,"change":2,"message":{{"id":"m"}}}}"#);
        let event = event_of("message.edited", &edited);
        let delivery = deliver(&event).unwrap();
        assert_eq!(delivery.publications[0].position, Some(address::change(0, 2)));
        let deleted = format!(
            r#"{{"conversation_id":"{CONVERSATION}","seq":4,"change":3,"epoch":7,"message_id":"m"}}"#
        );
        let event = event_of("message.deleted", &deleted);
        let delivery = deliver(&event).unwrap();
        assert_eq!(delivery.publications[0].position, Some(address::change(7, 3)));
        let conversation = Id::parse(CONVERSATION).unwrap();
        assert_eq!(delivery.facts, [Fact::MessageChanged { conversation, change: 3 }]);
    }

    #[test]
    fn a_new_conversation_is_announced_on_each_participants_own_connections() {
        let payload = format!(
            r#"{{"conversation":{{"id":"{CONVERSATION}"}},"by":"ana","participants":[{{"user_id":"ana","role":"owner"}},{{"user_id":"bo","role":"member"}}]}}"#
        );
        let event = event_of("conversation.created", &payload);
        let delivery = deliver(&event).unwrap();
        let addresses: Vec<_> = delivery.publications.iter().map(|p| p.address.as_str()).collect();
        assert_eq!(addresses, ["user:ana", "user:bo"]);
        assert!(delivery.publications[1].frame.contains(r#""type":"member.joined""#));
    }

    #[test]
    fn a_user_who_leaves_is_unsubscribed_first() {
        let payload =
            format!(r#"{{"conversation_id":"{CONVERSATION}","user_id":"bo","role":"member","by":"ana"}}"#);
        let event = event_of("conversation.participant.left", &payload);
        let delivery = deliver(&event).unwrap();
        let gone = Departure {
            conversation: Id::parse(CONVERSATION).unwrap(),
            user: "bo".to_owned(),
            conversation_ended: false,
        };
        assert_eq!(delivery.revoked, Some(gone));
        assert_eq!(delivery.publications.len(), 2);
    }

    #[test]
    fn a_hidden_conversation_is_announced_only_to_its_user() {
        let payload = format!(
            r#"{{"conversation_id":"{CONVERSATION}","user_id":"bo","role":"member","by":"bo","quiet":true}}"#
        );
        let event = event_of("conversation.participant.left", &payload);
        let delivery = deliver(&event).unwrap();
        assert_eq!(delivery.revoked, None);
        let addresses = |delivery: &Delivery<'_>| -> Vec<String> {
            delivery.publications.iter().map(|publication| publication.address.clone()).collect()
        };
        assert_eq!(addresses(&delivery), ["user:bo"]);
        // The deletion of a conversation is announced likewise, but the subscriptions end.
        let ended = event_of("conversation.participant.left", &payload.replace("quiet", "ended"));
        let over = deliver(&ended).unwrap();
        assert!(over.revoked.as_ref().is_some_and(|gone| gone.conversation_ended));
        assert_eq!(addresses(&over), ["user:bo"]);
        assert!(delivery.facts.iter().any(|fact| matches!(fact, Fact::ListChanged { .. })));
    }

    #[test]
    fn a_conversation_update_names_its_author_and_the_changed_roles() {
        let payload = format!(
            r#"{{"conversation":{{"id":"{CONVERSATION}"}},"by":"ana","participants":[{{"user_id":"bo","role":"owner"}}]}}"#
        );
        let event = event_of("conversation.updated", &payload);
        let frame = &deliver(&event).unwrap().publications[0].frame;
        assert!(frame.contains(r#""by":"ana""#) && frame.contains(r#""role":"owner""#), "{frame}");
    }

    #[test]
    fn a_change_of_a_large_conversation_reaches_only_the_user_until_it_is_announced() {
        let moved = format!(
            r#"{{"conversation_id":"{CONVERSATION}","user_id":"bo","role":"member","by":"bo","counted":true}}"#
        );
        for event_type in ["conversation.participant.joined", "conversation.participant.left"] {
            let event = event_of(event_type, &moved);
            let delivery = deliver(&event).unwrap();
            let [own] = &delivery.publications[..] else { panic!("one publication") };
            assert_eq!(own.address, "user:bo");
            assert_eq!(delivery.revoked.is_some(), event_type.ends_with("left"));
        }
        let event =
            event_of("conversation.members.changed", &format!(r#"{{"conversation_id":"{CONVERSATION}"}}"#));
        let announcement = Announcement::Publish(r#"{"participants":130}"#.to_owned());
        let delivery = super::deliver(&event, &announcement).unwrap();
        let [all] = &delivery.publications[..] else { panic!("one publication") };
        assert_eq!(all.address, format!("conv:{CONVERSATION}"));
        assert_eq!(all.frame, r#"{"type":"member.changes","payload":{"participants":130}}"#);
        assert!(all.merge_key.is_some() && all.position.is_none() && all.except_user.is_none());
        for other in [Announcement::Wait(700), Announcement::Nothing] {
            assert!(super::deliver(&event, &other).unwrap().publications.is_empty());
        }
    }

    #[test]
    fn a_mark_is_published_once_to_everyone() {
        let payload = format!(
            r#"{{"conversation_id":"{CONVERSATION}","user_id":"bo","up_to_seq":4,"at":"2025-11-20T06:00:00.123Z"}}"#
        );
        let event = event_of("receipt.read", &payload);
        let delivery = deliver(&event).unwrap();
        let [all, own] = &delivery.publications[..] else { panic!("the conversation and the reader") };
        assert_eq!(
            (all.address.as_str(), all.except_user.as_deref()),
            (&*format!("conv:{CONVERSATION}"), Some("bo"))
        );
        assert_eq!((own.address.as_str(), own.except_user.as_deref()), ("user:bo", None));
        assert!(all.frame.starts_with(r#"{"type":"receipt.read","payload":{"#) && all.frame == own.frame);
        assert!(all.merge_key.is_some() && all.position.is_none());
        assert!(delivery.facts.is_empty());
    }

    #[test]
    fn an_internal_frame_is_published_to_its_target() {
        let payload = r#"{"target":"topic:match:31","type":"match.update","payload":{"scores":[1,2]}}"#;
        let event = event_of("published", payload);
        let delivery = deliver(&event).unwrap();
        assert_eq!(delivery.publications[0].frame, r#"{"type":"match.update","payload":{"scores":[1,2]}}"#);
        assert!(deliver(&event_of("published", r#"{"target":"x","type":"y","payload":{}}"#)).is_err());
    }

    #[test]
    fn an_unknown_event_is_acknowledged_and_an_unreadable_one_has_a_reason() {
        assert!(deliver(&event_of("user.online", "{}")).unwrap().publications.is_empty());
        let broken = deliver(&event_of("message.created", "{}")).err().unwrap();
        assert!(broken.0.contains("conversation_id"), "{}", broken.0);
    }
}
