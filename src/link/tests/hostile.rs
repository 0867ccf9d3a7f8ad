//! Peers that are broken, foreign or malicious: nothing panics, each violation has its error, everything ends in time.

use core::time::Duration;

use proptest::prelude::*;

use super::pair::{CENTRAL, Faults, PERIPHERAL, Pair, Random};
use crate::link::control::{Close, Kind, MESSAGE_BYTES_MAX, Message, Outbox};
use crate::link::packet::{Ack, Answer, Packet, WHOLE};
use crate::link::sequence::Sequence;
use crate::link::{
    CloseReason, Link, LinkConfig, LinkError, LinkEvent, LinkRole, LinkState, PacketSize, RefuseReason,
    peek_session,
};
use crate::time::Instant;

const SIZE: u16 = 64;
type SmallLink = Link<2048, 2048>;
type SmallPair = Pair<2048, 2048>;

fn small_pair(seed: u64) -> SmallPair {
    Pair::new(seed, Faults::NONE, SIZE)
}

/// A link of either role that has come to a state of its life, with data on the way.
fn link_in_some_state(random: &mut Random) -> (SmallPair, usize) {
    let mut pair = small_pair(random.next());
    let end = random.below(2) as usize;
    pair.ends[CENTRAL].to_write = 3000;
    pair.ends[PERIPHERAL].to_write = 3000;
    for _ in 0..random.below(120) {
        pair.step();
    }
    match random.below(6) {
        0 => pair.close(end, CloseReason::Finished),
        1 => pair.cut(),
        2 => {
            pair.cut();
            pair.connect();
        }
        _ => {}
    }
    (pair, end)
}

/// Bytes that look like something: noise, noise behind a good beginning, or a packet of `honest` with a few changes.
fn hostile_packet(random: &mut Random, honest: &[Vec<u8>]) -> Vec<u8> {
    let noise =
        |random: &mut Random, length: u64| (0..length).map(|_| random.next() as u8).collect::<Vec<u8>>();
    let control = |random: &mut Random| {
        let length = random.below(MESSAGE_BYTES_MAX as u64 + 20);
        let mut packet = vec![b'G', b'W', (random.below(9) as u8) << 4 | WHOLE, length as u8];
        packet.extend(noise(random, length));
        packet
    };
    match random.below(7) {
        0 => {
            let length = random.below(80);
            noise(random, length)
        }
        1 => control(random),
        2 => {
            let mut packet = control(random);
            packet[2] = packet[2] & 0xf0 | random.below(16) as u8;
            packet.truncate(4 + random.below(17) as usize);
            packet
        }
        3 => {
            let mut packet = vec![0x40 | random.below(2) as u8];
            packet.extend(noise(random, 6));
            let bitmap = random.below(34);
            packet.push(bitmap as u8);
            packet.extend(noise(random, bitmap));
            packet
        }
        4 => {
            let mut packet = noise(random, SIZE.into());
            packet[0] &= 0x3f;
            packet
        }
        _ => {
            let mut packet =
                honest.get(random.below(honest.len() as u64) as usize).cloned().unwrap_or_default();
            for _ in 0..random.below(4) {
                let place = random.below(packet.len() as u64) as usize;
                if let Some(byte) = packet.get_mut(place) {
                    *byte = random.next() as u8;
                }
            }
            packet
        }
    }
}

/// Feeds a link with hostile packets; whatever it makes of them, it must come to a final state in time.
fn torment(seed: u64) {
    let random = &mut Random(seed);
    let (mut pair, end) = link_in_some_state(random);
    let mut now = pair.now;
    let mut honest = vec![];
    let mut out = [0; SIZE as usize];
    for end in &mut pair.ends {
        while let Some(length) = end.link.poll_packet(now, &mut out) {
            honest.push(out[..length].to_vec());
        }
    }
    let link = &mut pair.ends[end].link;
    let mut buffer = [0; 256];
    for _ in 0..200 {
        now = now + Duration::from_micros(random.below(200_000));
        let packet = hostile_packet(random, &honest);
        let before = link.state();
        if let Err(error) = link.handle_packet(now, &packet) {
            assert!(
                matches!(link.state(), LinkState::Failed | LinkState::Suspended | LinkState::Closed),
                "{error}"
            );
            assert!(!error.to_string().is_empty() && before != LinkState::Idle);
        }
        let _ = peek_session(&packet);
        link.handle_timeout(now);
        link.read(&mut buffer);
        link.write(&buffer[..random.below(200) as usize]);
        let (wanted, due, before) = (link.wants_poll(), link.poll_at(), honest.len());
        while let Some(length) = link.poll_packet(now, &mut out) {
            honest.push(out[..length].to_vec());
        }
        let nothing = honest.len() == before && link.poll_at() == due;
        assert!(wanted || nothing, "a driver that is not woken now would leave something undone");
        while link.poll_event().is_some() {}
        assert!(link.readable() <= 2048 && link.stats().in_flight <= 128);
        if link.state() == LinkState::Suspended {
            link.connected(now, PacketSize::try_new(20 + random.below(45) as u16).expect("a packet size"));
        }
    }
    link.close(now, CloseReason::Finished);
    let end = now + Duration::from_secs(11);
    while let Some(at) = link.poll_at() {
        assert!(at < end, "a close has its time");
        now = at.max(now);
        link.handle_timeout(now);
    }
    assert!(link.state().is_final());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_packets_in_any_state_are_survived(seed: u64) {
        torment(seed);
    }
}

fn established() -> SmallPair {
    let mut pair = small_pair(1);
    pair.establish();
    pair.ends[PERIPHERAL].to_write = 500;
    pair.run_for(Duration::from_millis(300));
    pair
}

/// What the peripheral of an established pair says to a packet, and what the central then gets to know.
fn answer(packet: &Packet<'_>) -> (LinkError, Option<LinkEvent>) {
    let mut pair = established();
    let mut bytes = [0; 600];
    let length = packet.emit(&mut bytes, SIZE.into());
    let now = pair.now;
    let error = pair.ends[PERIPHERAL].link.handle_packet(now, &bytes[..length]).expect_err("a violation");
    assert_eq!(pair.ends[PERIPHERAL].link.state(), LinkState::Failed);
    pair.expect_errors = true;
    pair.run_for(Duration::from_millis(200));
    (error, pair.ends[CENTRAL].events.last().copied())
}

#[test]
fn each_violation_has_its_error_and_the_peer_is_told() {
    let ack = |next: u16, credit: u32, bitmap: &'static [u8]| {
        Packet::Ack(Ack { answer: Answer::None, next: Sequence::new(next), credit, bitmap })
    };
    let data = |sequence: u16, ack: u16, payload: &'static [u8]| Packet::Data {
        sequence: Sequence::new(sequence),
        ack: Sequence::new(ack),
        payload,
    };
    // Beyond the credit; one within it may have come before its data.
    static CLOSE: [u8; 3] = [0, 0x81, 0x10];
    let control = |kind: u8, chunk: &'static [u8]| Packet::Control {
        kind,
        piece: WHOLE,
        length: chunk.len() as u8,
        chunk,
    };
    // The peripheral has sent 500 bytes in 9 packets, all acknowledged, and has received nothing.
    let cases = [
        (ack(10, 2548, &[]), LinkError::AckOfUnsent { acknowledged: 10, next: 9 }),
        (ack(9, 2548, &[1]), LinkError::AckOfUnsent { acknowledged: 10, next: 9 }),
        (ack(9, 2549, &[]), LinkError::CreditTooLarge { credit: 2049, max: 2048 }),
        (data(0, 11, &[1]), LinkError::AckOfUnsent { acknowledged: 11, next: 9 }),
        (data(256, 9, &[1]), LinkError::SequenceBeyondWindow { sequence: 256, expected: 0 }),
        (data(34, 9, &[1; 61]), LinkError::CreditExceeded { end: 35 * 61, limit: 2048 }),
        (data(0, 9, &[]), LinkError::EmptyData { sequence: 0 }),
        (control(9, &[]), LinkError::MalformedControl { kind: 9, length: 0 }),
        (control(1, &[1]), LinkError::MalformedControl { kind: 1, length: 1 }),
        (control(5, &CLOSE), LinkError::CloseOffset { said: 2049, arrived: 0 }),
        (control(6, &[]), LinkError::UnexpectedControl { kind: 6 }),
    ];
    for (packet, expected) in cases {
        let (error, told) = answer(&packet);
        assert_eq!(error, expected, "{packet:?}");
        let broken_off = LinkEvent::Failed(LinkError::Refused(RefuseReason::Violation));
        assert_eq!(told, Some(broken_off), "{packet:?}");
    }
    let mut pair = established();
    let now = pair.now;
    let unknown = pair.ends[PERIPHERAL].link.handle_packet(now, &[0x7f, 1, 2]);
    assert_eq!(unknown, Err(LinkError::UnknownPacket { first: 0x7f }));
}

/// The number that the next new packet will have is no number of a packet, also while others are on their way.
#[test]
fn an_early_packet_can_only_be_one_that_was_sent() {
    for (bitmap, expected) in
        [([1], Ok(())), ([2], Err(LinkError::AckOfUnsent { acknowledged: 11, next: 11 }))]
    {
        let mut pair = established();
        let now = pair.now;
        let link = &mut pair.ends[PERIPHERAL].link;
        let mut bytes = [0; 600];
        assert_eq!(link.write(&[7; 100]), 100);
        // Numbers 9 and 10.
        while link.poll_packet(now, &mut bytes).is_some() {}
        let ack = Ack { answer: Answer::None, next: Sequence::new(9), credit: 2548, bitmap: &bitmap };
        let length = Packet::Ack(ack).emit(&mut bytes, SIZE.into());
        assert_eq!(link.handle_packet(now, &bytes[..length]), expected);
    }
}

#[test]
fn a_transport_that_cuts_packets_is_named() {
    let mut pair = established();
    let now = pair.now;
    let link = &mut pair.ends[PERIPHERAL].link;
    for _ in 0..31 {
        assert_eq!(link.handle_packet(now, &[0; 40]), Ok(()));
    }
    let error = LinkError::Damaged { count: 32, expected: SIZE.into(), actual: 40 };
    assert_eq!(link.handle_packet(now, &[0; 40]), Err(error));
}

fn new_link(role: LinkRole) -> SmallLink {
    let mut link = SmallLink::new(role, LinkConfig::default(), 5);
    link.connected(Instant::ZERO, PacketSize::MAX);
    link
}

fn packet_of(message: &[u8], kind: Kind) -> Vec<u8> {
    let mut outbox = Outbox::default();
    outbox.put(kind, message.try_into().expect("a message"));
    let mut out = [0; 495];
    let length = outbox.poll(&mut out, 495).expect("a packet");
    out[..length].to_vec()
}

#[test]
fn who_is_not_ours_is_told_from_another_version() {
    let mut peripheral = new_link(LinkRole::Peripheral);
    let error = peripheral.handle_packet(Instant::ZERO, b"\x16\x03\x01 some other protocol");
    assert_eq!(error, Err(LinkError::NotOurs { first: 0x16 }));
    assert_eq!(peripheral.state(), LinkState::Failed);
    assert_eq!(peripheral.poll_packet(Instant::ZERO, &mut [0; 495]), None, "nothing is said to strangers");

    // A central takes a few packets for the rest of an earlier connection, but says in the end what it was.
    let mut central = new_link(LinkRole::Central);
    let mut now = Instant::ZERO;
    assert_eq!(central.handle_packet(now, b"hello, is it me you are looking for?"), Ok(()));
    let mut first = None;
    while let (None, Some(at)) = (first, central.poll_at()) {
        now = at;
        central.handle_timeout(now);
        while let Some(event) = central.poll_event() {
            first = first.or(Some(event));
        }
    }
    let suspended = format!("{first:?}");
    assert!(suspended.contains("NotOurs { first: 104 }"), "{suspended}");

    let version = LinkError::Version { ours_min: 1, ours_max: 2, theirs_min: 7, theirs_max: 9 };
    let mut peripheral = new_link(LinkRole::Peripheral);
    let hello = packet_of(&[7, 9, 0, 0xaa, 0xbb], Kind::Hello);
    assert_eq!(peek_session(&hello), Some(None));
    assert_eq!(peripheral.handle_packet(Instant::ZERO, &hello), Err(version));
    let mut out = [0; 495];
    let length = peripheral.poll_packet(Instant::ZERO, &mut out).expect("a refusal");
    let mut central = new_link(LinkRole::Central);
    let told = central.handle_packet(Instant::ZERO, &out[..length]);
    let version = LinkError::Version { ours_min: 1, ours_max: 2, theirs_min: 1, theirs_max: 2 };
    assert_eq!(told, Err(version), "the peripheral's versions");
}

#[test]
fn impossible_numbers_in_a_handshake_are_refused() {
    let mut central = new_link(LinkRole::Central);
    let mut out = [0; 495];
    let length = central.poll_packet(Instant::ZERO, &mut out).expect("a HELLO");
    let Ok(Packet::Control { chunk, .. }) = Packet::parse(&out[..length], 495) else { panic!("a HELLO") };
    let Ok(Message::Hello(good)) = Message::decode(1, chunk) else { panic!("a HELLO") };
    let refused = |change: fn(&mut crate::link::control::Parameters)| {
        let mut hello = good;
        change(&mut hello.parameters);
        let message = Message::Hello(hello).encode();
        new_link(LinkRole::Peripheral).handle_packet(Instant::ZERO, &packet_of(&message, Kind::Hello))
    };
    assert_eq!(refused(|_| ()), Ok(()));
    let size = |actual| Err(LinkError::PacketSize { actual, min: 20, max: 495 });
    assert_eq!(refused(|numbers| numbers.packet_size = 19), size(19));
    assert_eq!(refused(|numbers| numbers.packet_size = 9999), size(9999));
    let window = |actual, min, max| Err(LinkError::Window { actual, min, max });
    assert_eq!(refused(|numbers| numbers.window_packets = 0), window(0, 1, 128));
    assert_eq!(refused(|numbers| numbers.window_packets = 129), window(129, 1, 128));
    assert_eq!(refused(|numbers| numbers.window_bytes += 1), window(2049, 0, 2048));
    assert_eq!(refused(|numbers| numbers.buffer_bytes = 1 << 25), window(1 << 25, 492, 1 << 24));
    assert_eq!(refused(|numbers| numbers.buffer_bytes = 3), window(3, 492, 1 << 24));
}

#[test]
fn a_resume_at_an_impossible_offset_is_refused_and_the_session_lives_on() {
    let mut pair = established();
    let id = pair.ends[CENTRAL].link.session_id();
    pair.ends.iter_mut().for_each(|end| end.link.disconnected(Instant::ZERO));
    let (now, size) = (pair.now, pair.size);
    pair.ends[CENTRAL].link.connected(now, size);
    let mut out = [0; SIZE as usize];
    let length = pair.ends[CENTRAL].link.poll_packet(now, &mut out).expect("a HELLO");
    assert_eq!(peek_session(&out[..length]), Some(id));
    let Ok(Packet::Control { chunk, .. }) = Packet::parse(&out[..length], SIZE.into()) else {
        panic!("a HELLO")
    };
    let Ok(Message::Hello(good)) = Message::decode(1, chunk) else { panic!("a HELLO") };
    assert_eq!(good.offset, 500);
    for offset in [499, 501, u64::MAX] {
        let message = Message::Hello(crate::link::control::Hello { offset, ..good }).encode();
        let peripheral = &mut pair.ends[PERIPHERAL].link;
        peripheral.connected(now, size);
        let error = LinkError::ResumeOffset { claimed: offset, acknowledged: 500, sent: 500 };
        assert_eq!(peripheral.handle_packet(now, &packet_of(&message, Kind::Hello)), Err(error));
        assert_eq!(peripheral.state(), LinkState::Suspended);
    }
    pair.connect();
    pair.ends[CENTRAL].to_write = 700;
    pair.run_until(Duration::from_secs(20), "across", Pair::all_across);
}

#[test]
fn a_close_is_what_the_notes_say() {
    let close = Message::Close(Close { reason: CloseReason::Permanent(300), offset: 5 });
    assert_eq!(close.encode()[..], [2, 0xac, 0x02, 5]);
}

#[test]
fn a_closed_link_stays_closed_whatever_comes() {
    // A CLOSE that speaks of another offset, after the end.
    static CLOSE: [u8; 3] = [0, 99, 0];
    let forged = Packet::Control { kind: 5, piece: WHOLE, length: 3, chunk: &CLOSE };
    let mut bytes = [0; 600];
    let length = forged.emit(&mut bytes, SIZE.into());
    for end in [CENTRAL, PERIPHERAL] {
        let mut pair = established();
        pair.close(CENTRAL, CloseReason::Finished);
        for _ in 0..1_000 {
            if pair.ends[end].link.state() == LinkState::Closed {
                break;
            }
            pair.step();
        }
        let (now, link) = (pair.now, &mut pair.ends[end].link);
        let error = link.handle_packet(now, &bytes[..length]).expect_err("it is still connected");
        assert!(matches!(error, LinkError::CloseOffset { said: 99, .. }), "{error}");
        assert_eq!((link.state(), link.poll_at()), (LinkState::Closed, None));
    }
}
