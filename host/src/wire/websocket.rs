//! RFC 6455, the server's side. A server does not mask, so a text frame is encoded once for all its readers.

use bytes::{BufMut, Bytes, BytesMut};

/// The first bytes of an unmasked, unfragmented text frame.
#[derive(Clone, Copy)]
pub struct TextHeader {
    bytes: [u8; 10],
    len: u8,
}

impl TextHeader {
    pub fn of(payload_bytes: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = 0x81;
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

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A whole text frame, ready for any number of sockets.
pub fn encode_text(text: &str) -> Bytes {
    let header = TextHeader::of(text.len());
    let mut frame = BytesMut::with_capacity(header.as_bytes().len() + text.len());
    frame.put_slice(header.as_bytes());
    frame.put_slice(text.as_bytes());
    frame.freeze()
}

#[cfg(test)]
mod text_frames {
    use super::*;

    #[test]
    fn a_text_frame_carries_its_length_in_the_shortest_form() {
        for (len, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = encode_text(&"x".repeat(len));
            assert_eq!(frame[..header.len()], header);
            assert_eq!(frame.len(), header.len() + len);
        }
    }
}
