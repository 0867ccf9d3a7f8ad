use super::*;

fn parameters() -> Parameters {
    Parameters {
        packet_size: u16::MAX,
        buffer_bytes: u32::MAX,
        window_bytes: u32::MAX,
        send_bytes: u32::MAX,
        window_packets: 128,
        ack_delay_ms: u16::MAX,
    }
}

fn longest() -> [Message; 3] {
    let session = SessionId([0xff; 8]);
    let grant = Grant::Resumed { offset: u64::MAX >> 1, proof: [0xff; 16] };
    let (nonce, parameters) = (
        [0xff; 8],
        Parameters { buffer_bytes: 1 << 24, window_bytes: 1 << 24, send_bytes: 1 << 24, ..parameters() },
    );
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        session: Some(session),
        nonce,
        parameters,
        offset: u64::MAX >> 1,
        prover: 1 << 24,
    };
    let welcome = Welcome { version: 1, session, nonce, parameters, grant };
    [Message::Hello(hello), Message::Welcome(welcome), Message::Confirm(Confirm { proof: Some([1; 16]) })]
}

#[test]
fn the_longest_messages_fit_and_come_back_whole_or_in_pieces_of_any_order() {
    for message in longest() {
        let bytes = message.encode();
        assert!(!bytes.is_empty() && bytes.len() <= MESSAGE_BYTES_MAX, "{message:?}: {}", bytes.len());
        for size in [20usize, 21, 68, 244, 495] {
            let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
            outbox.put(message.kind(), message.encode());
            let mut packets = std::vec::Vec::new();
            let mut out = [0; 495];
            while let Some(length) = outbox.poll(&mut out, size) {
                packets.push(out[..length].to_vec());
            }
            packets.reverse();
            let mut result = None;
            for packet in &packets {
                assert!(result.is_none(), "whole before its last piece");
                let Ok(Packet::Control { kind, piece, length, chunk }) = Packet::parse(packet, size) else {
                    panic!("{packet:02x?}")
                };
                result = inbox.take(kind, piece, length, chunk).expect("bounded");
            }
            let (kind, bytes) = result.expect("whole");
            assert_eq!(Message::decode(kind, &bytes), Ok(message));
        }
    }
}

#[test]
fn the_first_packet_tells_the_session_at_any_size() {
    for size in [20, 244] {
        for session in [None, Some(SessionId::new(7))] {
            let [Message::Hello(hello), ..] = longest() else { unreachable!() };
            let mut outbox = Outbox::default();
            outbox.put(Kind::Hello, Message::Hello(Hello { session, ..hello }).encode());
            let mut out = [0; 244];
            let length = outbox.poll(&mut out, size).expect("a packet");
            assert_eq!(peek_session(&out[..length]), Some(session));
        }
    }
    assert_eq!(peek_session(b"GW"), None);
    assert_eq!(peek_session(b"not ours at all"), None);
}

#[test]
fn another_version_is_told_from_garbage() {
    let version = LinkError::Version { ours_min: 1, ours_max: 2, theirs_min: 9, theirs_max: 12 };
    assert_eq!(Message::decode(1, &[9, 12, 0xff, 0xff]), Err(version));
    assert_eq!(Message::decode(1, &[1, 1, 7]), Err(LinkError::MalformedControl { kind: 1, length: 3 }));
    assert_eq!(Message::decode(9, &[]), Err(LinkError::MalformedControl { kind: 9, length: 0 }));
}
