//! RFC 6455 from the server's side, without IO: it decodes bytes to messages, and encodes a message once for
//! many readers. It does no handshake, supports no extension, and does not know the content of texts
//! (`frames` does).
//!
//! The reasons for a codec of our own: `docs/decisions/websocket-codec.md`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::close::Close;
use switchboard_core::limits::FRAME_BYTES_MAX;

/// A whole message, or a control frame. It is valid until the next call of the decoder.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    /// A binary message. The product uses text only, so its content does not matter.
    Binary,
    Ping(&'a [u8]),
    Pong,
    /// The peer's code, if it sent one.
    Close(Option<u16>),
}

/// A violation of the protocol by the peer. The connection ends with `close()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    Protocol(&'static str),
    /// A text message, or the reason of a close, is not UTF-8.
    NotUtf8,
    /// A message larger than [`FRAME_BYTES_MAX`], by its header, before it is read.
    TooLarge,
}

impl Violation {
    pub fn close(self) -> Close {
        match self {
            Self::Protocol(rule) => Close::protocol_error(rule),
            Self::NotUtf8 => Close::NOT_UTF8,
            Self::TooLarge => Close::TOO_LARGE,
        }
    }
}

/// Decodes the bytes of a client. It holds no memory between messages, and at most one message and one
/// control frame inside of one.
#[derive(Default)]
pub struct Decoder {
    /// The beginning of a frame whose rest has not arrived yet.
    stash: Vec<u8>,
    /// The fragments so far, unmasked.
    message: Vec<u8>,
    /// Number of bytes of a fragmented text message that are known to be UTF-8. The rest is the beginning of
    /// a character.
    utf8_bytes: usize,
    /// Set while a fragmented message is open.
    assembling: Option<Kind>,
    /// The last returned message, whose memory can be freed now.
    lent: Lent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Lent {
    #[default]
    Nothing,
    Stash,
    Message,
}

impl Decoder {
    /// Decodes the next message of `input` and consumes its bytes. `None`: all of `input` was consumed and
    /// more is needed.
    ///
    /// The input is unmasked in place, and a frame that is whole in it is not copied.
    pub fn decode<'d, 'i: 'd>(
        &'d mut self,
        input: &mut &'i mut [u8],
    ) -> Result<Option<Message<'d>>, Violation> {
        self.release();
        loop {
            let Some((head, place)) = self.next_frame(input)? else { return Ok(None) };
            let kind = match (head.opcode, self.assembling) {
                (Opcode::Text | Opcode::Binary, Some(_)) => {
                    return Err(Violation::Protocol("a new message began within a fragmented one"));
                }
                (Opcode::Continuation, None) => {
                    return Err(Violation::Protocol("a continuation of nothing"));
                }
                (Opcode::Text, None) => Kind::Text,
                (Opcode::Binary, None) => Kind::Binary,
                (Opcode::Continuation, Some(kind)) => kind,
                (Opcode::Ping | Opcode::Pong | Opcode::Close, _) => {
                    let payload: &'d [u8] = match place {
                        Place::Input(payload) => payload,
                        Place::Stash => {
                            self.lent = Lent::Stash;
                            &self.stash[head.bytes..]
                        }
                    };
                    return control(head.opcode, payload).map(Some);
                }
            };
            if head.last && self.assembling.is_none() {
                let payload: &'d [u8] = match place {
                    Place::Input(payload) => payload,
                    Place::Stash => {
                        self.lent = Lent::Stash;
                        &self.stash[head.bytes..]
                    }
                };
                return data(kind, payload).map(Some);
            }
            match place {
                Place::Input(payload) => self.message.extend_from_slice(payload),
                Place::Stash => {
                    self.message.extend_from_slice(&self.stash[head.bytes..]);
                    self.stash = Vec::new();
                }
            }
            if kind == Kind::Text {
                self.utf8_bytes = utf8_prefix(&self.message, self.utf8_bytes)?;
            }
            self.assembling = (!head.last).then_some(kind);
            if head.last {
                self.lent = Lent::Message;
                self.utf8_bytes = 0;
                return data(kind, &self.message).map(Some);
            }
        }
    }

    /// Frees the memory of the last message, if the next call may come much later.
    pub fn release(&mut self) {
        match std::mem::take(&mut self.lent) {
            Lent::Nothing => {}
            Lent::Stash => self.stash = Vec::new(),
            Lent::Message => self.message = Vec::new(),
        }
    }

    /// Finds one whole frame, unmasked, in the input or, if it came in pieces, in the stash.
    fn next_frame<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<(Head, Place<'i>)>, Violation> {
        let room = FRAME_BYTES_MAX - self.message.len();
        if self.stash.is_empty() {
            let head = Head::parse(input, room)?;
            return Ok(match head {
                Some(head) if input.len() >= head.frame_bytes() => {
                    let (frame, rest) = std::mem::take(input).split_at_mut(head.frame_bytes());
                    *input = rest;
                    let payload = &mut frame[head.bytes..];
                    unmask(payload, head.mask);
                    Some((head, Place::Input(payload)))
                }
                _ => {
                    let beginning = std::mem::take(input);
                    self.stash.extend_from_slice(beginning);
                    None
                }
            });
        }
        loop {
            let head = Head::parse(&self.stash, room)?;
            // Without a head, read byte by byte: no byte of the next frame may get into the stash.
            let missing = head.map_or(1, |head| head.frame_bytes() - self.stash.len());
            let taken = missing.min(input.len());
            let (front, rest) = std::mem::take(input).split_at_mut(taken);
            *input = rest;
            self.stash.extend_from_slice(front);
            if taken < missing {
                return Ok(None);
            }
            if let Some(head) = head {
                unmask(&mut self.stash[head.bytes..], head.mask);
                return Ok(Some((head, Place::Stash)));
            }
        }
    }
}

/// The place of a whole frame's payload.
enum Place<'i> {
    Input(&'i [u8]),
    Stash,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

#[derive(Clone, Copy)]
struct Head {
    /// Fin: the last, or only, frame of its message.
    last: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Length of this head.
    bytes: usize,
    payload_bytes: usize,
}

impl Head {
    /// Parses a head. `None`: more bytes are needed. `room` is the remaining size of the message.
    fn parse(bytes: &[u8], room: usize) -> Result<Option<Self>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & 0b0111_0000 != 0 {
            return Err(Violation::Protocol("a reserved bit is set"));
        }
        let last = first & 0b1000_0000 != 0;
        let opcode = match first & 0b1111 {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            _ => return Err(Violation::Protocol("a reserved opcode")),
        };
        if second & 0b1000_0000 == 0 {
            return Err(Violation::Protocol("a client's frame is not masked"));
        }
        let control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        if control && !last {
            return Err(Violation::Protocol("a control frame is fragmented"));
        }
        let (payload_bytes, length_bytes) = match second & 0b0111_1111 {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            short => (u64::from(short), 0),
        };
        if control && payload_bytes > CONTROL_BYTES_MAX {
            return Err(Violation::Protocol("a control frame is longer than 125 bytes"));
        }
        let shortest = match payload_bytes {
            0..126 => 0,
            126..0x1_0000 => 2,
            _ => 8,
        };
        if length_bytes != shortest {
            return Err(Violation::Protocol("a length takes more bytes than it needs"));
        }
        let payload_bytes = usize::try_from(payload_bytes).map_err(|_| Violation::TooLarge)?;
        if !control && payload_bytes > room {
            return Err(Violation::TooLarge);
        }
        let Some(&mask) = rest[length_bytes..].first_chunk() else { return Ok(None) };
        Ok(Some(Self { last, opcode, mask, bytes: 2 + length_bytes + mask.len(), payload_bytes }))
    }

    fn frame_bytes(&self) -> usize {
        self.bytes + self.payload_bytes
    }
}

/// Checks a control frame, RFC 6455 5.5.
const CONTROL_BYTES_MAX: u64 = 125;

fn data(kind: Kind, payload: &[u8]) -> Result<Message<'_>, Violation> {
    match kind {
        Kind::Text => std::str::from_utf8(payload).map(Message::Text).map_err(|_| Violation::NotUtf8),
        Kind::Binary => Ok(Message::Binary),
    }
}

/// The number of bytes of a message that are UTF-8; `known` of them were checked before. A violation if no
/// further fragment can make it UTF-8: the connection fails at the first wrong fragment, not at the last one.
fn utf8_prefix(message: &[u8], known: usize) -> Result<usize, Violation> {
    match std::str::from_utf8(&message[known..]) {
        Ok(_) => Ok(message.len()),
        Err(error) if error.error_len().is_none() => Ok(known + error.valid_up_to()),
        Err(_) => Err(Violation::NotUtf8),
    }
}

fn control(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Violation> {
    match opcode {
        Opcode::Ping => Ok(Message::Ping(payload)),
        Opcode::Close => close(payload).map(Message::Close),
        _ => Ok(Message::Pong),
    }
}

fn close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Protocol("a close code is cut in half")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !Close::may_be_sent(code) {
                return Err(Violation::Protocol("a close code that nobody may send"));
            }
            std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            Ok(Some(code))
        }
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Encodes the first bytes of an unmasked, unfragmented frame: a server's frames are not masked.
#[derive(Clone, Copy)]
pub struct TextHeader {
    bytes: [u8; 10],
    len: u8,
}

impl TextHeader {
    pub fn of(payload_bytes: usize) -> Self {
        Self::with_opcode(0x1, payload_bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn with_opcode(opcode: u8, payload_bytes: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = 0b1000_0000 | opcode;
        let len = if payload_bytes < 126 {
            bytes[1] = payload_bytes as u8;
            2
        } else if let Ok(short) = u16::try_from(payload_bytes) {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&short.to_be_bytes());
            4
        } else {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        };
        Self { bytes, len }
    }
}

/// Encodes a whole text frame, for any number of sockets.
pub fn encode_text(text: &str) -> Bytes {
    encode(TextHeader::of(text.len()), text.as_bytes())
}

/// A text frame whose text is written in pieces, without a copy at the end. The header depends on the length
/// of the text, so space for the longest header is kept free before the text.
pub struct TextWriter(Vec<u8>);

impl TextWriter {
    /// The length of the longest header.
    const HEADER_BYTES_MAX: usize = 10;

    pub fn with_capacity(text_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(Self::HEADER_BYTES_MAX + text_bytes);
        bytes.resize(Self::HEADER_BYTES_MAX, 0);
        Self(bytes)
    }

    pub fn finish(self) -> Bytes {
        let Self(mut bytes) = self;
        let header = TextHeader::of(bytes.len() - Self::HEADER_BYTES_MAX);
        let begin = Self::HEADER_BYTES_MAX - header.as_bytes().len();
        bytes[begin..Self::HEADER_BYTES_MAX].copy_from_slice(header.as_bytes());
        Bytes::from(bytes).slice(begin..)
    }
}

impl std::fmt::Write for TextWriter {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Encodes a pong. `payload` is that of a ping, so at most 125 bytes; the rest is cut.
pub fn encode_pong(payload: &[u8]) -> Bytes {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX as usize)];
    encode(TextHeader::with_opcode(0xA, payload.len()), payload)
}

pub fn encode_close(close: &Close) -> Bytes {
    let payload = [&close.code().to_be_bytes(), close.reason().as_bytes()].concat();
    encode(TextHeader::with_opcode(0x8, payload.len()), &payload)
}

fn encode(header: TextHeader, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(header.as_bytes().len() + payload.len());
    frame.put_slice(header.as_bytes());
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests;
