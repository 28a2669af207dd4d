use fastwebsockets::{FragmentCollector, Frame, OpCode, Role, WebSocket};
use proptest::prelude::*;

use super::*;

/// A message with its own memory, for comparisons.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decoded {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Message<'_>> for Decoded {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary => Self::Binary,
            Message::Ping(payload) => Self::Ping(payload.to_vec()),
            Message::Pong => Self::Pong,
            Message::Close(code) => Self::Close(code),
        }
    }
}

/// Everything that a decoder returns if the bytes arrive in these pieces.
fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<Vec<Decoded>, (Vec<Decoded>, Violation)> {
    let mut decoder = Decoder::default();
    let mut all = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = piece.as_mut_slice();
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(message)) => all.push(message.into()),
                Ok(None) => break,
                Err(violation) => return Err((all, violation)),
            }
        }
        assert!(input.is_empty());
    }
    Ok(all)
}

fn masked(last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x00, 0xff, 0x13];
    let mut frame = vec![u8::from(last) << 7 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn violation(bytes: &[u8]) -> u16 {
    decode([bytes]).unwrap_err().1.close().code()
}

#[test]
fn fragments_make_one_message_and_control_frames_may_come_between() {
    let bytes = [
        masked(false, 0x1, "grü".as_bytes().split_last().unwrap().1),
        masked(true, 0x9, b"still there?"),
        masked(false, 0x0, &["ü".as_bytes()[1]]),
        masked(true, 0xA, b""),
        masked(true, 0x0, b"n"),
        masked(true, 0x8, &[0x0f, 0xa1, b'o', b'k']),
    ]
    .concat();
    assert_eq!(
        decode([bytes.as_slice()]).unwrap(),
        [
            Decoded::Ping(b"still there?".to_vec()),
            Decoded::Pong,
            Decoded::Text("grün".to_owned()),
            Decoded::Close(Some(4001))
        ]
    );
}

#[test]
fn a_message_may_have_64_kib_and_not_one_byte_more() {
    let largest = masked(true, 0x1, &vec![b'x'; FRAME_BYTES_MAX]);
    assert_eq!(decode([largest.as_slice()]).unwrap().len(), 1);
    // The header is enough: the message need not be read.
    let header = &masked(true, 0x1, &vec![b'x'; FRAME_BYTES_MAX + 1])[..10];
    assert_eq!(violation(header), 1009);
    let fragments =
        [masked(false, 0x1, &vec![b'x'; FRAME_BYTES_MAX]), masked(true, 0x0, b"x")[..2].to_vec()].concat();
    assert_eq!(violation(&fragments), 1009);
    assert_eq!(violation(&[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), 1009);
}

#[test]
fn what_rfc_6455_forbids_ends_the_connection() {
    for (bytes, code) in [
        (vec![0xc1, 0x80], 1002),
        (vec![0x83, 0x80], 1002),
        (vec![0x8b, 0x80], 1002),
        (vec![0x81, 0x05], 1002),
        (masked(false, 0x9, b""), 1002),
        (masked(true, 0x9, &[0; 126]), 1002),
        (masked(true, 0x0, b"of nothing"), 1002),
        ([masked(false, 0x1, b"a"), masked(true, 0x1, b"b")].concat(), 1002),
        (vec![0x81, 0xfe, 0x00, 0x05], 1002),
        (vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 1002),
        (masked(true, 0x8, &[0x03]), 1002),
        (masked(true, 0x8, &1005u16.to_be_bytes()), 1002),
        (masked(true, 0x8, &[0x03, 0xe8, 0xff]), 1007),
    ] {
        assert_eq!(violation(&bytes), code, "{bytes:x?}");
    }
}

/// The sequences of the Autobahn cases 6.x.
#[test]
fn text_that_is_no_utf8_ends_the_connection_at_the_first_wrong_fragment() {
    let begin = "κόσμε".as_bytes();
    for wrong in [
        &[0xff][..],
        &[0x80],
        &[0xc0, 0xaf],
        &[0xc3, 0x28],
        &[0xe0, 0x80, 0xaf],
        &[0xed, 0xa0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
        &[0xf8, 0x88, 0x80, 0x80, 0x80],
        &[0xfe, 0xff],
    ] {
        let text = [begin, wrong, b"edited"].concat();
        assert_eq!(violation(&masked(true, 0x1, &text)), 1007, "{wrong:x?}");
        // In one fragment, and with each byte in a fragment of its own; the last fragment never comes.
        let whole = [masked(false, 0x1, begin), masked(false, 0x0, wrong), masked(false, 0x0, b"e")].concat();
        assert_eq!(violation(&whole), 1007, "{wrong:x?}");
        let bytes: Vec<u8> = text
            .iter()
            .enumerate()
            .flat_map(|(at, byte)| masked(false, u8::from(at == 0), &[*byte]))
            .collect();
        assert_eq!(violation(&bytes), 1007, "{wrong:x?}");
    }
    // A character that the message cuts off.
    assert_eq!(violation(&masked(true, 0x1, &[0xce])), 1007);
    let cut = [masked(false, 0x1, &[0xce]), masked(true, 0x0, b"")].concat();
    assert_eq!(violation(&cut), 1007);
    // A binary message may have any content.
    let binary =
        [masked(false, 0x2, &[0xff]), masked(true, 0x0, &[0xff]), masked(true, 0x1, b"good")].concat();
    assert_eq!(decode([binary.as_slice()]).unwrap(), [Decoded::Binary, Decoded::Text("good".to_owned())]);
}

#[test]
fn a_decoder_between_messages_holds_no_memory() {
    let bytes = [masked(false, 0x1, &[b'x'; 9000]), masked(true, 0x0, &[b'y'; 9000])].concat();
    let mut decoder = Decoder::default();
    let mut messages = 0;
    for piece in bytes.chunks(1000) {
        let mut piece = piece.to_vec();
        let mut input = piece.as_mut_slice();
        while decoder.decode(&mut input).unwrap().is_some() {
            messages += 1;
        }
    }
    assert_eq!(messages, 1);
    assert_eq!((decoder.stash.capacity(), decoder.message.capacity()), (0, 0));
}

/// One message of a valid client: its frames, and the expected messages.
fn message() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<Decoded>)> {
    let control = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..=125)
            .prop_map(|payload| (masked(true, 0x9, &payload), Decoded::Ping(payload))),
        Just((masked(true, 0xA, b"pong"), Decoded::Pong)),
    ];
    ("\\PC{0,300}", prop::collection::vec(any::<prop::sample::Index>(), 0..4), prop::option::of(control))
        .prop_map(|(text, cuts, control)| {
            let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            ends.sort_unstable();
            ends.push(text.len());
            let mut frames = Vec::new();
            let mut begin = 0;
            for (number, end) in ends.iter().enumerate() {
                let opcode = if number == 0 { 0x1 } else { 0x0 };
                frames.push(masked(number + 1 == ends.len(), opcode, &text.as_bytes()[begin..*end]));
                begin = *end;
            }
            let mut decode = vec![Decoded::Text(text)];
            if let Some((frame, control)) = control {
                frames.insert(frames.len() - 1, frame);
                decode.insert(0, control);
            }
            (frames, decode)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn messages_are_decoded_however_the_network_cuts_them(
        messages in prop::collection::vec(message(), 1..5),
        pieces in prop::collection::vec(1usize..200, 1..20),
    ) {
        let (frames, expected): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let bytes = frames.concat().concat();
        let mut cut = Vec::new();
        let mut rest = bytes.as_slice();
        for length in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            cut.push(piece);
            rest = after;
        }
        prop_assert_eq!(decode(cut).unwrap(), expected.concat());
    }

    #[test]
    fn hostile_bytes_end_the_same_way_however_they_are_cut(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        begin in prop::sample::select(vec![0x81u8, 0x01, 0x00, 0x80, 0x88, 0x89]),
        piece in 1usize..50,
    ) {
        bytes.insert(0, begin);
        if let Some(length) = bytes.get_mut(1) {
            *length |= 0x80;
        }
        let whole = decode([bytes.as_slice()]);
        let pieces = decode(bytes.chunks(piece));
        prop_assert_eq!(whole, pieces);
    }
}

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

/// fastwebsockets as the client, over a pipe.
#[tokio::test]
async fn a_client_of_another_make_is_understood_and_understands() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut client = FragmentCollector::new(WebSocket::after_handshake(theirs, Role::Client));
    let long = "ű".repeat(20_000);

    client.write_frame(Frame::text(b"short".as_slice().into())).await.unwrap();
    client.write_frame(Frame::new(false, OpCode::Text, None, b"in ".as_slice().into())).await.unwrap();
    client.write_frame(Frame::new(true, OpCode::Ping, None, b"?".as_slice().into())).await.unwrap();
    client.write_frame(Frame::new(true, OpCode::Continuation, None, b"two".as_slice().into())).await.unwrap();
    client.write_frame(Frame::text(long.as_bytes().into())).await.unwrap();

    let (mut reader, mut writer) = tokio::io::split(ours);
    let mut sent = vec![0; long.len() + 1000];
    let mut length = 0;
    let expected = [
        Decoded::Text("short".to_owned()),
        Decoded::Ping(b"?".to_vec()),
        Decoded::Text("in two".to_owned()),
        Decoded::Text(long.clone()),
    ];
    loop {
        length += tokio::io::AsyncReadExt::read(&mut reader, &mut sent[length..]).await.unwrap();
        match decode([&sent[..length]]) {
            Ok(messages) if messages.len() < expected.len() => {}
            messages => break assert_eq!(messages.unwrap(), expected),
        }
    }

    let medium = "m".repeat(300);
    for text in ["", "short", &medium, &long] {
        tokio::io::AsyncWriteExt::write_all(&mut writer, &encode_text(text)).await.unwrap();
        let frame = client.read_frame().await.unwrap();
        assert_eq!((frame.opcode, &*frame.payload), (OpCode::Text, text.as_bytes()));
    }
    tokio::io::AsyncWriteExt::write_all(&mut writer, &encode_pong(b"!")).await.unwrap();
    assert_eq!(client.read_frame().await.unwrap().opcode, OpCode::Pong);
    tokio::io::AsyncWriteExt::write_all(&mut writer, &encode_close(&Close::DRAINING)).await.unwrap();
    let close = client.read_frame().await.unwrap();
    assert_eq!((close.opcode, &close.payload[..2]), (OpCode::Close, [0x03, 0xf4].as_slice()));
}
