use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const OTHER: FramingRole = FramingRole::Passive;

fn pair(role: FramingRole) -> (Framing, Framing) {
    let other = if role == FramingRole::Active { FramingRole::Passive } else { FramingRole::Active };
    (Framing::new(role, ProtocolType::ByteStream), Framing::new(other, ProtocolType::ByteStream))
}

fn events(framing: &mut Framing) -> Vec<FramingEvent> {
    std::iter::from_fn(|| framing.poll_event()).collect()
}

#[derive(Clone, Debug)]
enum Item {
    Frame(Vec<u8>),
    Fragments(Vec<Vec<u8>>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        vec(any::<u8>(), 0..300).prop_map(Item::Frame),
        (65_000usize..70_000, any::<u8>()).prop_map(|(len, byte)| Item::Frame(vec![byte; len])),
        vec(vec(any::<u8>(), 0..100), 2..5).prop_map(Item::Fragments),
        vec(any::<u8>(), 0..=CONTROL_SIZE_MAX).prop_map(Item::Ping),
        vec(any::<u8>(), 0..=CONTROL_SIZE_MAX).prop_map(Item::Pong),
    ]
}

/// What a stack that fragments would send, with a PING between the fragments.
fn encode_fragments(framing: &Framing, parts: &[Vec<u8>], mask: [u8; 4], wire: &mut Vec<u8>) {
    for (i, part) in parts.iter().enumerate() {
        let start = wire.len();
        let data = if i == 0 { Data::Binary } else { Data::Continue };
        framing.encode(OpCode::Data(data), part, mask, wire);
        if i + 1 < parts.len() {
            wire[start] &= 0x7f;
            wire.extend(framing.encode_ping(b"between", mask).expect("byte stream"));
        }
    }
}

proptest! {
    #[test]
    fn any_split_or_merge_gives_the_same(
        role in prop_oneof![Just(FramingRole::Active), Just(FramingRole::Passive)],
        items in vec(item(), 0..8),
        mask: [u8; 4],
        splits in vec(1usize..200, 1..20),
        reason in "\\PC{0,100}",
    ) {
        let (sender, mut receiver) = pair(role);
        let (mut wire, mut expected) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::Frame(frame) => {
                    sender.encode_frame_into(&frame, mask, &mut wire);
                    expected.push(FramingEvent::Frame(frame.into()));
                }
                Item::Fragments(parts) => {
                    encode_fragments(&sender, &parts, mask, &mut wire);
                    let pings = parts.len() - 1;
                    expected.extend(std::iter::repeat_n(FramingEvent::Ping("between".into()), pings));
                    expected.push(FramingEvent::Frame(parts.concat().into()));
                }
                Item::Ping(payload) => {
                    wire.extend(sender.encode_ping(&payload, mask).expect("byte stream"));
                    expected.push(FramingEvent::Ping(payload.into()));
                }
                Item::Pong(payload) => {
                    wire.extend(sender.encode_pong(&payload, mask).expect("byte stream"));
                    expected.push(FramingEvent::Pong(payload.into()));
                }
            }
        }
        wire.extend(sender.encode_close(4001, &reason, mask).expect("byte stream"));
        wire.extend(b"what follows a close is ignored");

        let (mut rest, mut lengths) = (&wire[..], splits.iter().cycle());
        while !rest.is_empty() {
            // Big payloads in big pieces, or the test takes long.
            let len = (*lengths.next().expect("cycle") * (1 + rest.len() / 10_000)).min(rest.len());
            let (piece, tail) = rest.split_at(len);
            receiver.handle_bytes(piece).expect("valid input");
            rest = tail;
        }
        let mut seen = events(&mut receiver);
        let Some(FramingEvent::Close { code: 4001, reason: told }) = seen.pop() else { panic!("no close") };
        prop_assert!(reason.starts_with(&told) && (told == reason || told.len() > CONTROL_SIZE_MAX - 6));
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(chunks in vec(vec(any::<u8>(), 0..64), 0..16), passive: bool) {
        let role = if passive { FramingRole::Passive } else { FramingRole::Active };
        let mut framing = Framing::new(role, ProtocolType::ByteStream);
        let mut failed = None;
        for chunk in &chunks {
            match (framing.handle_bytes(chunk), &failed) {
                (Err(error), None) => failed = Some(error),
                (result, Some(error)) => prop_assert_eq!(result, Err(error.clone()), "an error must stay"),
                (Ok(()), None) => {}
            }
        }
        prop_assert!(framing.message.capacity() <= 2 * RESERVE_MAX);
    }

    #[test]
    fn masking_is_xor_with_the_key_in_turn(bytes: Vec<u8>, mask: [u8; 4], offset in 0usize..100) {
        let mut masked = bytes.clone();
        apply_mask(&mut masked, mask, offset);
        let expected: Vec<u8> = bytes.iter().enumerate().map(|(i, b)| b ^ mask[(i + offset) % 4]).collect();
        prop_assert_eq!(masked, expected);
    }
}

#[test]
fn violations_are_named() {
    let passive_error = |wire: &[u8]| Framing::new(OTHER, ProtocolType::ByteStream).handle_bytes(wire);
    let masked = |first: u8, len: u8| [first, 0x80 | len, 0, 0, 0, 0].to_vec();
    assert_eq!(passive_error(&masked(0x82, 0)), Ok(()));
    assert_eq!(passive_error(&[0x82, 0]), Err(FramingError::WrongMask { role: FramingRole::Passive }));
    assert_eq!(passive_error(b"GET / HTTP/1.1\r\n"), Err(FramingError::UnexpectedOpcode { opcode: 7 }));
    assert_eq!(passive_error(&masked(0x81, 0)), Err(FramingError::UnexpectedOpcode { opcode: 1 }));
    assert_eq!(passive_error(&masked(0xc2, 0)), Err(FramingError::ReservedBits));
    assert_eq!(passive_error(&masked(0x80, 0)), Err(FramingError::BadFragment));
    assert_eq!(passive_error(&[masked(0x02, 0), masked(0x82, 0)].concat()), Err(FramingError::BadFragment));
    assert_eq!(passive_error(&masked(0x09, 0)), Err(FramingError::BadControl { max: 125, actual: 0 }));
    assert_eq!(passive_error(&[masked(0x88, 1), vec![3]].concat()), Err(FramingError::MalformedClose));
    let long_ping = [0x89, 0xfe, 0, 126, 0, 0, 0, 0];
    assert_eq!(passive_error(&long_ping), Err(FramingError::BadControl { max: 125, actual: 126 }));

    let active = Framing::new(FramingRole::Active, ProtocolType::ByteStream);
    let text = active_error_text(&masked(0x82, 0));
    assert_eq!(text, "the peer of the Active side must not mask its frames");
    assert_eq!(
        active.encode_close(1000, "", [0; 4]).as_deref(),
        Some(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8][..])
    );
}

fn active_error_text(wire: &[u8]) -> String {
    let mut framing = Framing::new(FramingRole::Active, ProtocolType::ByteStream);
    framing.handle_bytes(wire).expect_err("masked by the passive side").to_string()
}

#[test]
fn a_message_above_the_limit_is_refused_at_its_head() {
    for announced in [MESSAGE_SIZE_MAX as u64 + 1, u64::MAX] {
        let mut framing = Framing::new(FramingRole::Active, ProtocolType::ByteStream);
        let head = [&[0x82, 127][..], &announced.to_be_bytes()].concat();
        let refused = FramingError::MessageTooLarge { max: MESSAGE_SIZE_MAX, actual: announced };
        assert_eq!(framing.handle_bytes(&head), Err(refused));
    }
    // The sum of fragments counts, and the limit itself is allowed.
    let mut framing = Framing::new(FramingRole::Active, ProtocolType::ByteStream);
    let mut wire = [&[0x02, 127][..], &(MESSAGE_SIZE_MAX as u64).to_be_bytes()].concat();
    wire.resize(wire.len() + MESSAGE_SIZE_MAX, 0);
    assert_eq!(framing.handle_bytes(&wire), Ok(()));
    assert_eq!(framing.handle_bytes(&[0x00, 0x00]), Ok(()));
    let refused =
        FramingError::MessageTooLarge { max: MESSAGE_SIZE_MAX, actual: MESSAGE_SIZE_MAX as u64 + 1 };
    assert_eq!(framing.handle_bytes(&[0x80, 0x01, 0xff]), Err(refused));

    let mut messages = Framing::new(FramingRole::Active, ProtocolType::MessageStream);
    assert!(messages.handle_bytes(&vec![0; MESSAGE_SIZE_MAX + 1]).is_err());
}

#[test]
fn a_message_stream_carries_frames_as_they_are() {
    let mut framing = Framing::new(FramingRole::Active, ProtocolType::MessageStream);
    assert_eq!(framing.encode_frame(b"frame", [1; 4]), b"frame");
    assert_eq!(framing.encode_ping(b"", [1; 4]), None);
    assert_eq!(framing.encode_close(1000, "", [1; 4]), None);
    framing.handle_bytes(b"one").expect("a message");
    framing.handle_bytes(b"two").expect("a message");
    assert_eq!(events(&mut framing), [FramingEvent::Frame("one".into()), FramingEvent::Frame("two".into())]);
}
