use std::io;

use super::connections::*;
use super::management::*;
use super::monitor::*;
use proptest::prelude::*;

/// Whether the filter lets a message through, by its rules.
fn passes(message: &[u8]) -> bool {
    let program = monitor_filter();
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let step = program[at];
        at += 1;
        match step.code {
            0x30 => match message.get(step.k as usize) {
                Some(byte) => accumulator = u32::from(*byte),
                None => return false,
            },
            0x15 => at += usize::from(if accumulator == step.k { step.jt } else { step.jf }),
            _ => return step.k > 0,
        }
    }
}

fn message(event: &[u8]) -> Vec<u8> {
    let mut message = vec![3, 0, 1, 0, event.len() as u8, 0];
    message.extend(event);
    message
}

#[test]
fn events_of_connections_are_read_and_pass_the_filter() {
    let peer = bluer::Address([0xcc, 0xbb, 0xaa, 3, 2, 1]);
    let connected =
        |interval, latency, timeout| ConnectionEvent::Connected { peer, interval, latency, timeout };
    let legacy = [0x3e, 19, 0x01, 0, 0x40, 0, 0, 0, 1, 2, 3, 0xaa, 0xbb, 0xcc, 12, 0, 1, 0, 200, 0, 0];
    let mut enhanced = legacy.to_vec();
    enhanced[2] = 0x0a;
    enhanced.splice(14..14, [0; 12]);
    let cases: [(&[u8], ConnectionEvent); 6] = [
        (&legacy, connected(12, 1, 200)),
        (&enhanced, connected(12, 1, 200)),
        (
            &[0x3e, 10, 0x03, 0, 0x40, 0, 24, 0, 0, 0, 42, 0],
            ConnectionEvent::Updated { interval: 24, latency: 0, timeout: 42 },
        ),
        (
            &[0x3e, 11, 0x07, 0x40, 0, 251, 0, 0x48, 8, 27, 0, 0x48, 1],
            ConnectionEvent::DataLength { sent: 251, received: 27 },
        ),
        (&[0x3e, 6, 0x0c, 0, 0x40, 0, 2, 1], ConnectionEvent::Phy { sent: 2, received: 1 }),
        (&[0x05, 4, 0, 0x40, 0, 0x13], ConnectionEvent::Disconnected),
    ];
    for (event, expected) in cases {
        let message = message(event);
        assert!(passes(&message), "{expected:?}");
        assert_eq!(parse(&message), Some((1, 0x40, expected)));
    }
    let advert = message(&[0x3e, 3, 0x0d, 0, 0]);
    let completed = message(&[0x13, 5, 1, 0x40, 0, 1, 0]);
    let mut data = message(&[0x05, 4, 0, 0x40, 0, 0x13]);
    data[0] = 4;
    assert!(![advert, completed, data].iter().any(|message| passes(message)));
}

#[test]
fn connections_of_the_kernels_list_are_read() {
    let info = |handle: u16, state: u16| {
        let mut bytes = handle.to_ne_bytes().to_vec();
        bytes.extend([6, 5, 4, 3, 2, 1, 0x80, 1]);
        bytes.extend(state.to_ne_bytes());
        bytes.extend([0; 4]);
        let mut words =
            bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        std::array::from_fn(|_| words.next().unwrap_or_default())
    };
    let peer = bluer::Address([1, 2, 3, 4, 5, 6]);
    assert_eq!(Connection::read(info(1, 1)), Connection { peer, is_up: true });
    assert_eq!(Connection::read(info(0xffff, 5)), Connection { peer, is_up: false });
}

#[test]
fn answers_are_told_from_other_events() {
    let answer = |status: u8| [1, 0, 0, 0, 5, 0, 0x44, 0, status, 7, 8];
    assert_eq!(answer_to(0x44, 0, &answer(0)).map(|a| a.ok()), Some(Some(vec![7, 8])));
    let denied = answer_to(0x44, 0, &answer(PERMISSION_DENIED)).map(|a| a.map_err(|e| e.kind()));
    assert_eq!(denied, Some(Err(io::ErrorKind::PermissionDenied)));
    assert!(answer_to(0x45, 0, &answer(0)).is_none() && answer_to(0x44, 1, &answer(0)).is_none());
}

proptest! {
    #[test]
    fn any_message_is_read_without_panic(message: Vec<u8>) {
        let _ = parse(&message);
        let _ = answer_to(4, 0, &message);
    }
}
