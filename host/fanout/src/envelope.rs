//! The messages between nodes, as bytes. They are versioned, and the decoder checks every bound, because the
//! bytes come from outside the process. Frames are encoded for the socket and lie side by side, so that a
//! node delivers a run of them without a copy.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::watches::WatchFilter;
use switchboard_contract::channels::{Publication, Target};
use switchboard_contract::types::{Position, Push};
use switchboard_core::hash::fnv1a;
use switchboard_core::ids::{Address, ConnectionId, UserId};
use switchboard_core::limits;
use switchboard_protocol::wire::websocket::EncodedHeader;
use switchboard_telemetry::spans::Context;

const VERSION: u8 = 1;

#[derive(Debug, PartialEq)]
pub(crate) enum Envelope {
    /// On the channel of an address.
    Publications(Batch),
    /// On the channel of an address: this user is no longer subscribed to it.
    Revoke(UserId),
    /// On the control channel.
    Disconnect { target: Target, code: u16, reason: String },
    /// On the control channel: a frame for one connection, wherever it is.
    Send { connection: ConnectionId, frame: Bytes },
    /// On the control channel: shards of the outbox to which a call of that node has added events.
    Wake { node: Uuid, shards: u64 },
    /// On the control channel, before the wake or publication itself: a traced call on that node wakes these
    /// shards, or publishes to these addresses.
    Traced { node: Uuid, by: Context, shards: u64, addresses: Vec<Address> },
    /// On the control channel: what a node has published last may have reached nobody.
    PublicationsLost,
    /// On the control channel: an operator on that node watches, still.
    Watch { node: Uuid, watch: Uuid, filter: WatchFilter },
    /// On the channel of the operator's node: events that another node collected for a watch.
    Watched { watch: Uuid, dropped: u64, events: Vec<Bytes> },
    /// On a node's own channel: its loopback heartbeat.
    Loopback(u64),
}

/// A publication of a handler, with its address parsed.
#[derive(Debug)]
pub struct Addressed<'a> {
    pub address: Address,
    /// Its own `address` is the text of the parsed one.
    pub publication: &'a Publication,
}

/// Pushes of one address, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Batch {
    /// All frames, encoded, one after the other.
    frames: Bytes,
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    /// The offset at which the frame ends. It begins where the frame before ends.
    end: usize,
    pub position: Option<Position>,
    /// If not zero, the push may be dropped, or replaced by a newer one with the same key.
    pub merge_key: u64,
    pub except: Option<UserId>,
}

/// Why bytes are not an envelope. The text contains nothing of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(&'static str);

impl Batch {
    /// Encodes a page of `connection.missed`.
    pub(crate) fn of_page(pushes: &[Push]) -> Self {
        let mut frames = BytesMut::new();
        let mut items = Vec::with_capacity(pushes.len());
        for Push { frame, position } in pushes {
            put_frame(&mut frames, frame);
            items.push(Item { end: frames.len(), position: *position, merge_key: 0, except: None });
        }
        Self { frames: frames.freeze(), items }
    }

    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Returns the frames of these items as one piece, without a copy.
    pub(crate) fn frames(&self, items: std::ops::Range<usize>) -> Bytes {
        let edge = |item: usize| item.checked_sub(1).map_or(0, |before| self.items[before].end);
        self.frames.slice(edge(items.start)..edge(items.end))
    }

    /// Joins the batches of envelopes that arrived together, so that each subscriber is visited once.
    pub(crate) fn append(&mut self, other: Self) {
        if self.items.is_empty() {
            *self = other;
            return;
        }
        let offset = self.frames.len();
        let mut frames = BytesMut::with_capacity(offset + other.frames.len());
        frames.put_slice(&self.frames);
        frames.put_slice(&other.frames);
        self.frames = frames.freeze();
        self.items.extend(other.items.into_iter().map(|item| Item { end: item.end + offset, ..item }));
    }

    pub(crate) fn bytes(&self) -> usize {
        self.frames.len()
    }
}

/// Publications to one address that become one envelope.
struct Run<'a> {
    address: &'a Address,
    items: Vec<Item>,
    /// The frames of the items, as the handler wrote them.
    frames: Vec<&'a str>,
}

impl<'a> Run<'a> {
    fn new(address: &'a Address) -> Self {
        Self { address, items: Vec::new(), frames: Vec::new() }
    }

    /// The size of the encoded frames.
    fn bytes(&self) -> usize {
        self.items.last().map_or(0, |item| item.end)
    }

    /// Returns true when another publication fits into the envelope.
    fn takes(&self, address: &Address, frame: &str) -> bool {
        self.address == address
            && self.items.len() < limits::ENVELOPE_PUSHES_MAX
            && self.bytes() + frame.len() <= limits::ENVELOPE_BYTES_MAX
    }

    fn add(&mut self, frame: &'a str, position: Option<Position>, merge_key: u64, except: Option<UserId>) {
        let end = self.bytes() + EncodedHeader::text(frame.len()).as_bytes().len() + frame.len();
        self.items.push(Item { end, position, merge_key, except });
        self.frames.push(frame);
    }

    /// Encodes the envelope. This is the only copy of the frames on this node.
    fn encode(&self) -> (Address, Bytes) {
        let mut out = BytesMut::with_capacity(64 + self.bytes() + 32 * self.items.len());
        put_head(&mut out, kind::PUBLICATIONS);
        put_items(&mut out, &self.items);
        self.frames.iter().for_each(|frame| put_frame(&mut out, frame));
        (self.address.clone(), out.freeze())
    }
}

/// Encodes publications of a handler: one envelope for each run of publications to the same address, within
/// the bounds.
///
/// # Errors
/// The rule that one of the publications breaks. Then none of them is published.
pub(crate) fn pack(publications: &[Addressed<'_>]) -> Result<Vec<(Address, Bytes)>, String> {
    let mut packed = Vec::new();
    let mut run: Option<Run<'_>> = None;
    for Addressed { address, publication } in publications {
        let except = match &publication.except_user {
            None => None,
            Some(user) => Some(UserId::parse(user).ok_or("`except-user` is not a user id")?),
        };
        if publication.frame.len() > limits::FRAME_BYTES_MAX {
            return Err(format!("a frame of {} bytes is over 64 KiB", publication.frame.len()));
        }
        if publication.merge_key.is_some() && publication.position.is_some() {
            return Err("a publication has a position or a merge key, not both".to_owned());
        }
        let merge_key = publication.merge_key.as_deref().map_or(0, |key| merge_key(address, key));
        packed.extend(run.take_if(|run| !run.takes(address, &publication.frame)).map(|run| run.encode()));
        let run = run.get_or_insert_with(|| Run::new(address));
        run.add(&publication.frame, publication.position, merge_key, except);
    }
    packed.extend(run.map(|run| run.encode()));
    Ok(packed)
}

/// Hashes a merge key with FNV-1a, which is the same on every node. If two keys collide, their pushes replace
/// each other; pushes with a merge key may be dropped anyway.
fn merge_key(address: &Address, key: &str) -> u64 {
    fnv1a(address.as_str().bytes().chain([0]).chain(key.bytes())).max(1)
}

mod kind {
    pub(super) const PUBLICATIONS: u8 = 0;
    pub(super) const REVOKE: u8 = 1;
    pub(super) const DISCONNECT: u8 = 2;
    pub(super) const SEND: u8 = 3;
    pub(super) const WAKE: u8 = 4;
    pub(super) const LOOPBACK: u8 = 5;
    pub(super) const TRACED: u8 = 6;
    pub(super) const PUBLICATIONS_LOST: u8 = 7;
    pub(super) const WATCH: u8 = 8;
    pub(super) const WATCHED: u8 = 9;
}

mod flag {
    pub(super) const POSITION: u8 = 1;
    pub(super) const MERGE_KEY: u8 = 2;
    pub(super) const EXCEPT: u8 = 4;
    pub(super) const ALL: u8 = 7;
}

impl Envelope {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        match self {
            Self::Publications(batch) => {
                put_head(&mut out, kind::PUBLICATIONS);
                put_items(&mut out, &batch.items);
                out.put_slice(&batch.frames);
            }
            Self::Revoke(user) => {
                put_head(&mut out, kind::REVOKE);
                out.put_slice(user.as_str().as_bytes());
            }
            Self::Disconnect { target, code, reason } => {
                put_head(&mut out, kind::DISCONNECT);
                let (of, name) = match target {
                    Target::Connection(name) => (0, name),
                    Target::Session(name) => (1, name),
                    Target::User(name) => (2, name),
                    Target::Address(name) => (3, name),
                };
                out.put_u8(of);
                out.put_u16(*code);
                put_text(&mut out, name);
                put_text(&mut out, reason);
            }
            Self::Send { connection, frame } => {
                put_head(&mut out, kind::SEND);
                put_text(&mut out, &connection.to_string());
                out.put_slice(frame);
            }
            Self::Wake { node, shards } => {
                put_head(&mut out, kind::WAKE);
                out.put_u128(node.as_u128());
                out.put_u64(*shards);
            }
            Self::Traced { node, by, shards, addresses } => {
                put_head(&mut out, kind::TRACED);
                out.put_u128(node.as_u128());
                out.put_u128(by.trace);
                out.put_u64(by.span);
                out.put_u64(*shards);
                addresses.iter().for_each(|address| put_text(&mut out, address.as_str()));
            }
            Self::PublicationsLost => put_head(&mut out, kind::PUBLICATIONS_LOST),
            Self::Watch { node, watch, filter } => {
                put_head(&mut out, kind::WATCH);
                out.put_u128(node.as_u128());
                out.put_u128(watch.as_u128());
                let WatchFilter { handler, user, trigger, failed } = filter;
                out.put_u8(u8::from(*failed));
                // No handler, user or trigger has an empty name.
                for name in [handler, user, trigger] {
                    put_text(&mut out, name.as_deref().unwrap_or_default());
                }
            }
            Self::Watched { watch, dropped, events } => {
                put_head(&mut out, kind::WATCHED);
                out.put_u128(watch.as_u128());
                out.put_u64(*dropped);
                for event in events {
                    out.put_u32(event.len() as u32);
                    out.put_slice(event);
                }
            }
            Self::Loopback(number) => {
                put_head(&mut out, kind::LOOPBACK);
                out.put_u64(*number);
            }
        }
        out.freeze()
    }

    /// Decodes bytes from outside and checks everything. The frames are slices of `bytes`.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, Malformed> {
        if bytes.try_get_u8() != Ok(VERSION) {
            return Err(Malformed("another version"));
        }
        match bytes.try_get_u8().map_err(short)? {
            kind::PUBLICATIONS => decode_publications(bytes).map(Self::Publications),
            kind::REVOKE => {
                let user = std::str::from_utf8(&bytes).ok().and_then(UserId::parse);
                user.map(Self::Revoke).ok_or(Malformed("not a user id"))
            }
            kind::DISCONNECT => {
                let of = bytes.try_get_u8().map_err(short)?;
                let code = bytes.try_get_u16().map_err(short)?;
                let name = get_text(&mut bytes)?;
                let reason = get_text(&mut bytes)?;
                let target = match of {
                    0 => Target::Connection(name),
                    1 => Target::Session(name),
                    2 => Target::User(name),
                    3 => Target::Address(name),
                    _ => return Err(Malformed("no such target")),
                };
                Ok(Self::Disconnect { target, code, reason })
            }
            kind::SEND => {
                let connection = ConnectionId::parse(&get_text(&mut bytes)?);
                let connection = connection.ok_or(Malformed("not a connection id"))?;
                check_frame(&bytes)?;
                Ok(Self::Send { connection, frame: bytes })
            }
            kind::WAKE => {
                let node = Uuid::from_u128(bytes.try_get_u128().map_err(short)?);
                Ok(Self::Wake { node, shards: bytes.try_get_u64().map_err(short)? })
            }
            kind::TRACED => {
                let node = Uuid::from_u128(bytes.try_get_u128().map_err(short)?);
                let trace = bytes.try_get_u128().map_err(short)?;
                let by = Context { trace, span: bytes.try_get_u64().map_err(short)? };
                let shards = bytes.try_get_u64().map_err(short)?;
                let mut addresses = Vec::new();
                while !bytes.is_empty() {
                    if addresses.len() == limits::TRACES_PENDING_MAX {
                        return Err(Malformed("too many addresses"));
                    }
                    let address = Address::parse(&get_text(&mut bytes)?);
                    addresses.push(address.ok_or(Malformed("not an address"))?);
                }
                Ok(Self::Traced { node, by, shards, addresses })
            }
            kind::PUBLICATIONS_LOST => Ok(Self::PublicationsLost),
            kind::WATCH => {
                let node = Uuid::from_u128(bytes.try_get_u128().map_err(short)?);
                let watch = Uuid::from_u128(bytes.try_get_u128().map_err(short)?);
                let failed = bytes.try_get_u8().map_err(short)? != 0;
                let mut name = || get_text(&mut bytes).map(|name| Some(name).filter(|name| !name.is_empty()));
                let (handler, user, trigger) = (name()?, name()?, name()?);
                Ok(Self::Watch { node, watch, filter: WatchFilter { handler, user, trigger, failed } })
            }
            kind::WATCHED => {
                let watch = Uuid::from_u128(bytes.try_get_u128().map_err(short)?);
                let dropped = bytes.try_get_u64().map_err(short)?.min(u32::MAX.into());
                let mut events = Vec::new();
                while !bytes.is_empty() {
                    let len = bytes.try_get_u32().map_err(short)? as usize;
                    if len > bytes.len() {
                        return Err(Malformed("too short"));
                    }
                    if len > limits::WATCHED_EVENT_BYTES_MAX
                        || events.len() == limits::WATCHED_EVENTS_WAITING_MAX
                    {
                        return Err(Malformed("too many or too large events"));
                    }
                    events.push(bytes.split_to(len));
                }
                Ok(Self::Watched { watch, dropped, events })
            }
            kind::LOOPBACK => bytes.try_get_u64().map(Self::Loopback).map_err(short),
            _ => Err(Malformed("no such kind")),
        }
    }
}

fn put_head(out: &mut BytesMut, kind: u8) {
    out.put_u8(VERSION);
    out.put_u8(kind);
}

/// Writes the number of items and the items, without their frames.
fn put_items(out: &mut BytesMut, items: &[Item]) {
    out.put_u16(items.len() as u16);
    let mut start = 0;
    for item in items {
        put_item(out, item, item.end - start);
        start = item.end;
    }
}

/// Writes a frame as the socket of a client gets it.
fn put_frame(out: &mut BytesMut, frame: &str) {
    out.put_slice(EncodedHeader::text(frame.len()).as_bytes());
    out.put_slice(frame.as_bytes());
}

fn put_item(out: &mut BytesMut, item: &Item, frame_bytes: usize) {
    let flags = u8::from(item.position.is_some()) * flag::POSITION
        + u8::from(item.merge_key != 0) * flag::MERGE_KEY
        + u8::from(item.except.is_some()) * flag::EXCEPT;
    out.put_u8(flags);
    if let Some(position) = &item.position {
        out.put_u8(position.track);
        out.put_u64(position.number);
    }
    if item.merge_key != 0 {
        out.put_u64(item.merge_key);
    }
    if let Some(user) = &item.except {
        put_text(out, user.as_str());
    }
    out.put_u32(frame_bytes as u32);
}

fn decode_publications(mut bytes: Bytes) -> Result<Batch, Malformed> {
    let count = usize::from(bytes.try_get_u16().map_err(short)?);
    if count > limits::ENVELOPE_PUSHES_MAX {
        return Err(Malformed("too many publications"));
    }
    let mut items = Vec::with_capacity(count);
    let mut end = 0;
    for _ in 0..count {
        let flags = bytes.try_get_u8().map_err(short)?;
        if flags & !flag::ALL != 0 || flags & flag::POSITION != 0 && flags & flag::MERGE_KEY != 0 {
            return Err(Malformed("no such flags"));
        }
        let position = match flags & flag::POSITION {
            0 => None,
            _ => {
                let track = bytes.try_get_u8().map_err(short)?;
                Some(Position { track, number: bytes.try_get_u64().map_err(short)? })
            }
        };
        let merge_key = match flags & flag::MERGE_KEY {
            0 => 0,
            _ => bytes.try_get_u64().map_err(short)?.max(1),
        };
        let except = match flags & flag::EXCEPT {
            0 => None,
            _ => Some(UserId::parse(&get_text(&mut bytes)?).ok_or(Malformed("not a user id"))?),
        };
        end += bytes.try_get_u32().map_err(short)? as usize;
        items.push(Item { end, position, merge_key, except });
    }
    if end != bytes.len() {
        return Err(Malformed("frames of another length"));
    }
    let batch = Batch { frames: bytes, items };
    for item in 0..batch.items.len() {
        check_frame(&batch.frames(item..item + 1))?;
    }
    Ok(batch)
}

/// Checks that the bytes are exactly one unmasked text frame. A client would fail its connection over
/// anything else.
fn check_frame(frame: &[u8]) -> Result<(), Malformed> {
    let payload_at = match frame.get(1) {
        Some(0..126) => 2,
        Some(126) => 4,
        Some(127) => 10,
        _ => return Err(Malformed("not a text frame")),
    };
    let payload = frame.get(payload_at..).ok_or(Malformed("not a text frame"))?;
    if EncodedHeader::text(payload.len()).as_bytes() != &frame[..payload_at] {
        return Err(Malformed("not a text frame"));
    }
    if payload.len() > limits::FRAME_BYTES_MAX {
        return Err(Malformed("a frame over 64 KiB"));
    }
    std::str::from_utf8(payload).map(drop).map_err(|_| Malformed("a frame that is not UTF-8"))
}

/// Writes a length and a text of at most 65,535 bytes. A longer text is cut. Valid names are never that long.
fn put_text(out: &mut BytesMut, text: &str) {
    let end = text.floor_char_boundary(u16::MAX.into());
    out.put_u16(end as u16);
    out.put_slice(&text.as_bytes()[..end]);
}

fn get_text(bytes: &mut Bytes) -> Result<String, Malformed> {
    let len = usize::from(bytes.try_get_u16().map_err(short)?);
    if len > bytes.len() {
        return Err(Malformed("too short"));
    }
    let text =
        std::str::from_utf8(&bytes[..len]).map_err(|_| Malformed("text that is not UTF-8"))?.to_owned();
    bytes.advance(len);
    Ok(text)
}

fn short(_: bytes::TryGetError) -> Malformed {
    Malformed("too short")
}

/// Parses the addresses of publications, as the runtime does before it publishes.
#[cfg(test)]
pub(crate) fn addressed(publications: &[Publication]) -> Vec<Addressed<'_>> {
    let parsed = |publication: &Publication| Address::parse(&publication.address).unwrap();
    publications.iter().map(|publication| Addressed { address: parsed(publication), publication }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use switchboard_protocol::wire::websocket::encode_text;

    fn publication(address: &str, frame: &str) -> Publication {
        Publication {
            address: address.to_owned(),
            frame: frame.to_owned(),
            position: None,
            merge_key: None,
            except_user: None,
        }
    }

    fn unpack(bytes: &Bytes) -> Batch {
        match Envelope::decode(bytes.clone()) {
            Ok(Envelope::Publications(batch)) => batch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_of_one_address_travels_as_one_and_arrives_as_it_was() {
        let position = Some(Position { track: 1, number: u64::MAX });
        let publications = [
            Publication { position, ..publication("conv:1", "{\"a\":1}") },
            Publication { except_user: Some("ană".to_owned()), ..publication("conv:1", "") },
            Publication { merge_key: Some("typing:bo".to_owned()), ..publication("conv:2", "{}") },
            publication("conv:1", &"x".repeat(limits::FRAME_BYTES_MAX)),
        ];
        let packed = pack(&addressed(&publications)).unwrap();
        let addresses: Vec<_> = packed.iter().map(|(address, _)| address.as_str()).collect();
        assert_eq!(addresses, ["conv:1", "conv:2", "conv:1"]);

        let first = unpack(&packed[0].1);
        assert_eq!(first.items()[0].position, position);
        assert_eq!(first.items()[1].except, UserId::parse("ană"));
        assert_eq!(first.frames(0..1), encode_text("{\"a\":1}"));
        assert_eq!(first.frames(0..2), [encode_text("{\"a\":1}"), encode_text("")].concat());
        assert_ne!(unpack(&packed[1].1).items()[0].merge_key, 0);
        assert_eq!(unpack(&packed[2].1).bytes(), limits::FRAME_BYTES_MAX + 10);
    }

    #[test]
    fn a_long_run_is_cut_at_the_bounds() {
        let many = vec![publication("conv:1", "{}"); limits::ENVELOPE_PUSHES_MAX + 1];
        assert_eq!(pack(&addressed(&many)).unwrap().len(), 2);
        let large = vec![publication("conv:1", &"x".repeat(limits::ENVELOPE_BYTES_MAX / 2)); 3];
        assert_eq!(pack(&addressed(&large)).unwrap().len(), 3);
    }

    #[test]
    fn refuses_what_breaks_a_rule_and_names_it() {
        let both = Publication {
            position: Some(Position { track: 0, number: 1 }),
            merge_key: Some("k".to_owned()),
            ..publication("conv:1", "{}")
        };
        let nobody = Publication { except_user: Some(String::new()), ..publication("conv:1", "{}") };
        let large = publication("conv:1", &"x".repeat(limits::FRAME_BYTES_MAX + 1));
        for (wrong, complaint) in [(both, "not both"), (nobody, "except-user"), (large, "over 64 KiB")] {
            let refusal = pack(&addressed(&[publication("conv:1", "{}"), wrong])).unwrap_err();
            assert!(refusal.contains(complaint), "{refusal}");
        }
    }

    #[test]
    fn batches_that_came_at_once_become_one() {
        let mut batch = unpack(
            &pack(&addressed(&[publication("conv:1", "a"), publication("conv:1", "bc")])).unwrap()[0].1,
        );
        batch.append(unpack(&pack(&addressed(&[publication("conv:1", "d")])).unwrap()[0].1));
        assert_eq!(batch.frames(1..3), [encode_text("bc"), encode_text("d")].concat());
    }

    #[test]
    fn control_messages_survive_the_way() {
        for envelope in [
            Envelope::Revoke(UserId::parse("ană").unwrap()),
            Envelope::Disconnect { target: Target::User("bo".into()), code: 4003, reason: "rules".into() },
            Envelope::Disconnect {
                target: Target::Address("conv:1".into()),
                code: 1000,
                reason: String::new(),
            },
            Envelope::Send { connection: ConnectionId::random(), frame: encode_text("{}") },
            Envelope::Wake { node: Uuid::now_v7(), shards: 1 << 63 },
            Envelope::Traced {
                node: Uuid::now_v7(),
                by: Context { trace: 1 << 127, span: u64::MAX },
                shards: 5,
                addresses: vec![Address::parse("conv:1").unwrap(), Address::parse("user:ană").unwrap()],
            },
            Envelope::PublicationsLost,
            Envelope::Watch {
                node: Uuid::now_v7(),
                watch: Uuid::now_v7(),
                filter: WatchFilter { user: Some("ană".to_owned()), failed: true, ..WatchFilter::default() },
            },
            Envelope::Watched {
                watch: Uuid::now_v7(),
                dropped: 3,
                events: vec![Bytes::from("{}"), Bytes::from("{\"a\":1}")],
            },
            Envelope::Loopback(7),
        ] {
            assert_eq!(Envelope::decode(envelope.encode()), Ok(envelope));
        }
    }

    #[test]
    fn a_trace_names_no_more_addresses_than_are_remembered() {
        let traced = |count| Envelope::Traced {
            node: Uuid::nil(),
            by: Context { trace: 1, span: 1 },
            shards: 0,
            addresses: vec![Address::parse("conv:1").unwrap(); count],
        };
        assert!(Envelope::decode(traced(limits::TRACES_PENDING_MAX).encode()).is_ok());
        let many = Envelope::decode(traced(limits::TRACES_PENDING_MAX + 1).encode());
        assert_eq!(many, Err(Malformed("too many addresses")));
    }

    #[test]
    fn events_of_a_watch_are_bounded() {
        let watched = |count, bytes| Envelope::Watched {
            watch: Uuid::nil(),
            dropped: 0,
            events: vec![Bytes::from(vec![b'x'; bytes]); count],
        };
        let most = (limits::WATCHED_EVENTS_WAITING_MAX, limits::WATCHED_EVENT_BYTES_MAX);
        assert!(Envelope::decode(watched(most.0, 1).encode()).is_ok());
        assert!(Envelope::decode(watched(most.0 + 1, 1).encode()).is_err());
        assert!(Envelope::decode(watched(1, most.1).encode()).is_ok());
        assert!(Envelope::decode(watched(1, most.1 + 1).encode()).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::decode(bytes.into());
        }

        #[test]
        fn a_changed_byte_is_refused_or_still_a_valid_envelope(at in any::<prop::sample::Index>(), to: u8) {
            let publications = [
                Publication { position: Some(Position { track: 0, number: 9 }), ..publication("conv:1", "{\"é\":1}") },
                Publication { except_user: Some("ana".to_owned()), ..publication("conv:1", "{}") },
            ];
            let mut bytes = pack(&addressed(&publications)).unwrap()[0].1.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            if let Ok(Envelope::Publications(batch)) = Envelope::decode(bytes.into()) {
                for item in 0..batch.items().len() {
                    prop_assert!(check_frame(&batch.frames(item..item + 1)).is_ok());
                }
            }
        }
    }
}
