//! The client's half of RFC 6455: enough to speak and to misbehave. Written independently of the host's
//! codec, so that both cannot have the same mistake; checked against fastwebsockets as the server
//! (`tests/load/native.rs`).

use bytes::{Buf, Bytes, BytesMut};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Any key is allowed; a fixed one makes a failing run repeatable.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Bytes,
}

/// Encodes a whole, masked frame.
pub fn encode(opcode: u8, payload: &[u8]) -> Vec<u8> {
    encode_as(FIN | opcode, payload)
}

/// Encodes one fragment of a message; `last` ends the message.
pub fn encode_fragment(opcode: u8, payload: &[u8], last: bool) -> Vec<u8> {
    encode_as(if last { FIN | opcode } else { opcode }, payload)
}

/// Encodes a frame with any first byte, so that tests can send reserved bits and unknown opcodes.
pub fn encode_as(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(first);
    push_length(&mut frame, payload.len(), MASKED);
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Encodes a frame without a mask, which only a server may send.
pub fn encode_unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(FIN | opcode);
    push_length(&mut frame, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// Only the header of a frame of `length` bytes.
pub fn encode_header(opcode: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![FIN | opcode];
    push_length(&mut frame, length, MASKED);
    frame.extend_from_slice(&MASK);
    frame
}

fn push_length(frame: &mut Vec<u8>, length: usize, mask_bit: u8) {
    match length {
        0..126 => frame.push(mask_bit | length as u8),
        126..65536 => {
            frame.push(mask_bit | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(mask_bit | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Removes the next whole frame from the read bytes. `Err` names a violation by the server.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, String> {
    let Some((header, length)) = header(buffer)? else { return Ok(None) };
    if buffer.len() < header + length {
        return Ok(None);
    }
    let opcode = buffer[0] & 0x0f;
    buffer.advance(header);
    Ok(Some(Frame { opcode, payload: buffer.split_to(length).freeze() }))
}

/// Number of bytes of the header, and of the payload after it.
fn header(buffer: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let &[first, second, ref rest @ ..] = buffer else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(format!("the server set reserved bits: {first:#x}"));
    }
    if first & FIN == 0 {
        return Err("the server sent a fragment".into());
    }
    if second & MASKED != 0 {
        return Err("the server masked a frame".into());
    }
    Ok(match (second, rest) {
        (126, &[a, b, ..]) => Some((4, u16::from_be_bytes([a, b]).into())),
        (127, rest) if rest.len() >= 8 => {
            let length = u64::from_be_bytes(rest[..8].try_into().unwrap_or_default());
            Some((10, usize::try_from(length).map_err(|_| "a frame too long for this machine")?))
        }
        (126 | 127, _) => None,
        (length, _) => Some((2, length.into())),
    })
}

/// The code and the reason of a close frame; 1005 if it has no code.
pub fn close_of(payload: &[u8]) -> (u16, String) {
    match payload {
        [a, b, reason @ ..] => (u16::from_be_bytes([*a, *b]), String::from_utf8_lossy(reason).into_owned()),
        _ => (1005, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decoder_waits_for_complete_frames() {
        for length in [0, 1, 125, 126, 65535, 65536] {
            let whole = encode_unmasked(TEXT, &vec![b'x'; length]);
            for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
                assert_eq!(take(&mut BytesMut::from(&whole[..cut])).unwrap(), None, "{length} cut at {cut}");
            }
            let mut buffer = BytesMut::from(&whole[..]);
            buffer.extend_from_slice(b"\x8a\x00");
            assert_eq!(take(&mut buffer).unwrap().unwrap().payload.len(), length);
            assert_eq!(take(&mut buffer).unwrap().unwrap().opcode, PONG);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_frame_that_a_server_must_not_send_is_an_error() {
        for frame in [encode(TEXT, b"x"), encode_fragment(TEXT, b"x", false), vec![0xc1, 0]] {
            assert!(take(&mut BytesMut::from(&frame[..])).is_err());
        }
    }
}
