//! The WebSocket codec of the server (RFC 6455), without IO. It decodes a client's bytes to messages, and
//! encodes a message once for many connections. It does no handshake and supports no extension.
//!
//! In this file a *frame* is a frame of the RFC, and a *message* consists of one or more frames. Everywhere
//! else in the host, a frame is a text message with its JSON, which `wire/frames.rs` parses. So
//! [`FRAME_BYTES_MAX`] bounds a message here.
//!
//! The reasons for a codec of our own: `docs/decisions/websocket-codec.md`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::close::Close;
use switchboard_core::limits::FRAME_BYTES_MAX;

/// The maximum payload of a control frame (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// A whole message, or a control frame. It borrows from the decoder or its input.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    /// A binary message, without its content: the session refuses it.
    Binary,
    /// The payload, at most 125 bytes. The server answers with the same payload in a pong.
    Ping(&'a [u8]),
    /// A pong, without its payload: the session only needs to know that the client is alive.
    Pong,
    /// The client's close code, if it sent one.
    Close(Option<u16>),
}

/// A violation of the protocol by the client. The server closes the connection with the code of
/// [`Violation::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The client broke this rule of the RFC.
    Protocol(&'static str),
    /// A text message, or the reason of a close, is not UTF-8.
    NotUtf8,
    /// A message larger than [`FRAME_BYTES_MAX`]. The header of a frame shows this before its payload
    /// arrives.
    TooLarge,
}

impl Violation {
    /// The close code and reason for the client.
    pub fn close(self) -> Close {
        match self {
            Self::Protocol(rule) => Close::protocol_error(rule),
            Self::NotUtf8 => Close::NOT_UTF8,
            Self::TooLarge => Close::TOO_LARGE,
        }
    }
}

/// Decodes the bytes of one client. After a whole message is released, it holds no memory. At most it holds
/// the fragments of one message, and one frame that has partly arrived.
#[derive(Default)]
pub struct Decoder {
    /// A frame that arrives in several pieces, header included, as far as it has arrived. Masked until it is
    /// whole.
    stash: Vec<u8>,
    /// The payloads of the frames of a fragmented message so far, unmasked.
    message: Vec<u8>,
    /// Number of bytes of a fragmented text message that are known to be UTF-8. The rest is the beginning of
    /// a character.
    utf8_bytes: usize,
    /// The kind of the fragmented message of which the last frame has not arrived yet.
    assembling: Option<DataKind>,
    /// The buffer that the last returned message borrows. The next call frees it.
    lent: Lent,
}

/// The kind of a message that is not a control frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DataKind {
    Text,
    Binary,
}

/// The buffer of the decoder that a returned message borrows.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Lent {
    #[default]
    Nothing,
    Stash,
    Message,
}

impl Decoder {
    /// Decodes the next message of `input` and removes its bytes from `input`. `None`: the decoder has taken
    /// all of `input`, and the message needs more bytes.
    ///
    /// The input is unmasked in place, and a frame that is whole in it is not copied.
    ///
    /// # Errors
    /// The client broke the protocol. The decoder must not be used afterwards.
    pub fn decode<'d, 'i: 'd>(
        &'d mut self,
        input: &mut &'i mut [u8],
    ) -> Result<Option<Message<'d>>, Violation> {
        self.release();
        loop {
            let Some((header, place)) = self.next_frame(input)? else { return Ok(None) };
            let kind = match (header.opcode, self.assembling) {
                (Opcode::Text | Opcode::Binary, Some(_)) => {
                    return Err(Violation::Protocol("a new message began within a fragmented one"));
                }
                (Opcode::Continuation, None) => {
                    return Err(Violation::Protocol("a continuation of nothing"));
                }
                (Opcode::Text, None) => DataKind::Text,
                (Opcode::Binary, None) => DataKind::Binary,
                (Opcode::Continuation, Some(kind)) => kind,
                (Opcode::Ping | Opcode::Pong | Opcode::Close, _) => {
                    let payload: &'d [u8] = match place {
                        Place::Input(payload) => payload,
                        Place::Stash => {
                            self.lent = Lent::Stash;
                            &self.stash[header.header_bytes..]
                        }
                    };
                    return control_message(header.opcode, payload).map(Some);
                }
            };
            if header.is_last && self.assembling.is_none() {
                let payload: &'d [u8] = match place {
                    Place::Input(payload) => payload,
                    Place::Stash => {
                        self.lent = Lent::Stash;
                        &self.stash[header.header_bytes..]
                    }
                };
                return data_message(kind, payload).map(Some);
            }
            match place {
                Place::Input(payload) => self.message.extend_from_slice(payload),
                Place::Stash => {
                    self.message.extend_from_slice(&self.stash[header.header_bytes..]);
                    self.stash = Vec::new();
                }
            }
            if kind == DataKind::Text {
                self.utf8_bytes = utf8_prefix(&self.message, self.utf8_bytes)?;
            }
            self.assembling = (!header.is_last).then_some(kind);
            if header.is_last {
                self.lent = Lent::Message;
                self.utf8_bytes = 0;
                return data_message(kind, &self.message).map(Some);
            }
        }
    }

    /// Frees the memory of the last message. The next `decode` does this too, but it may come much later.
    pub fn release(&mut self) {
        match std::mem::take(&mut self.lent) {
            Lent::Nothing => {}
            Lent::Stash => self.stash = Vec::new(),
            Lent::Message => self.message = Vec::new(),
        }
    }

    /// Reads one whole frame and unmasks it: in the input or, if it arrived in pieces, in the stash. `None`:
    /// the frame is not whole, and the stash has taken all of the input.
    fn next_frame<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<(Header, Place<'i>)>, Violation> {
        let payload_bytes_max = FRAME_BYTES_MAX - self.message.len();
        if self.stash.is_empty() {
            let header = Header::parse(input, payload_bytes_max)?;
            return Ok(match header {
                Some(header) if input.len() >= header.frame_bytes() => {
                    let (frame, rest) = std::mem::take(input).split_at_mut(header.frame_bytes());
                    *input = rest;
                    let payload = &mut frame[header.header_bytes..];
                    unmask(payload, header.mask);
                    Some((header, Place::Input(payload)))
                }
                _ => {
                    let beginning = std::mem::take(input);
                    self.stash.extend_from_slice(beginning);
                    None
                }
            });
        }
        loop {
            let header = Header::parse(&self.stash, payload_bytes_max)?;
            // While the header is not whole, the length of the frame is unknown. Bytes are taken one by one,
            // because no byte of the next frame may get into the stash.
            let missing = header.map_or(1, |header| header.frame_bytes() - self.stash.len());
            let taken = missing.min(input.len());
            let (front, rest) = std::mem::take(input).split_at_mut(taken);
            *input = rest;
            self.stash.extend_from_slice(front);
            if taken < missing {
                return Ok(None);
            }
            if let Some(header) = header {
                unmask(&mut self.stash[header.header_bytes..], header.mask);
                return Ok(Some((header, Place::Stash)));
            }
        }
    }
}

/// Where the payload of a whole frame is.
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

/// The header of a client's frame, parsed.
#[derive(Clone, Copy)]
struct Header {
    /// The bit FIN: this is the last, or only, frame of its message.
    is_last: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Length of this header.
    header_bytes: usize,
    payload_bytes: usize,
}

impl Header {
    /// Parses the header of a client's frame. `None`: more bytes are needed. `payload_bytes_max` is for data
    /// frames; control frames have a maximum of their own.
    fn parse(bytes: &[u8], payload_bytes_max: usize) -> Result<Option<Self>, Violation> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & 0b0111_0000 != 0 {
            return Err(Violation::Protocol("a reserved bit is set"));
        }
        let is_last = first & 0b1000_0000 != 0;
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
        if control && !is_last {
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
        if !control && payload_bytes > payload_bytes_max {
            return Err(Violation::TooLarge);
        }
        let Some(&mask) = rest[length_bytes..].first_chunk() else { return Ok(None) };
        Ok(Some(Self { is_last, opcode, mask, header_bytes: 2 + length_bytes + mask.len(), payload_bytes }))
    }

    fn frame_bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }
}

fn data_message(kind: DataKind, payload: &[u8]) -> Result<Message<'_>, Violation> {
    match kind {
        DataKind::Text => std::str::from_utf8(payload).map(Message::Text).map_err(|_| Violation::NotUtf8),
        DataKind::Binary => Ok(Message::Binary),
    }
}

/// Returns the number of bytes at the beginning of `message` that are UTF-8. The caller has checked the first
/// `known` of them. Returns a violation if no further fragment can make the message UTF-8, so that the
/// connection fails at the first wrong fragment and not at the last one.
fn utf8_prefix(message: &[u8], known: usize) -> Result<usize, Violation> {
    match std::str::from_utf8(&message[known..]) {
        Ok(_) => Ok(message.len()),
        Err(error) if error.error_len().is_none() => Ok(known + error.valid_up_to()),
        Err(_) => Err(Violation::NotUtf8),
    }
}

fn control_message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Violation> {
    match opcode {
        Opcode::Ping => Ok(Message::Ping(payload)),
        Opcode::Close => close_code(payload).map(Message::Close),
        _ => Ok(Message::Pong),
    }
}

/// Checks the payload of a close frame. Returns its code, if it has one. The reason is checked and dropped.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
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

/// The encoded header of a server's frame, which is neither masked nor fragmented.
#[derive(Clone, Copy)]
pub struct EncodedHeader {
    bytes: [u8; 10],
    len: u8,
}

impl EncodedHeader {
    /// The header of a text frame.
    pub fn text(payload_bytes: usize) -> Self {
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

/// Encodes a text frame, once for any number of connections. It does not check the length of the text.
pub fn encode_text(text: &str) -> Bytes {
    encode(EncodedHeader::text(text.len()), text.as_bytes())
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
        let header = EncodedHeader::text(bytes.len() - Self::HEADER_BYTES_MAX);
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

/// Encodes a pong with the payload of a ping, which has at most 125 bytes. More bytes are cut.
pub fn encode_pong(payload: &[u8]) -> Bytes {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX as usize)];
    encode(EncodedHeader::with_opcode(0xA, payload.len()), payload)
}

/// Encodes a close frame with its code and reason.
pub fn encode_close(close: &Close) -> Bytes {
    let payload = [&close.code().to_be_bytes(), close.reason().as_bytes()].concat();
    encode(EncodedHeader::with_opcode(0x8, payload.len()), &payload)
}

fn encode(header: EncodedHeader, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(header.as_bytes().len() + payload.len());
    frame.put_slice(header.as_bytes());
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests;
