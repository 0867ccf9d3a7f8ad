//! What counts where the cases of an ordinary connection end: bytes that are no packets, calls in a final state, windows at
//! their edge.

use std::vec::Vec;

use super::credit::{SmallLink, run, says};
use crate::link::prover::{PROOF_BYTES, PROVER_KEY_BYTES, Provers, ResumeProver};
use crate::link::receive::{Arrival, ReceiveWindow};
use crate::link::round_trip::RoundTrip;
use crate::link::send::SendWindow;
use crate::link::sequence::{SPAN_MAX, Sequence};
use crate::link::{CloseReason, LinkConfig, LinkError, LinkEvent, LinkRole, LinkState, PacketSize};
use crate::time::Instant;

const START: Instant = Instant::from_micros(1_000_000);
const REASON: CloseReason = CloseReason::Permanent(77);

fn connected() -> [SmallLink; 2] {
    let config = LinkConfig { keep_alive: None, ..LinkConfig::default() };
    [(LinkRole::Central, 1), (LinkRole::Peripheral, 2)].map(|(role, seed)| {
        let mut link = SmallLink::new(role, config, seed);
        link.connected(START, PacketSize::MAX);
        link
    })
}

fn established() -> ([SmallLink; 2], Instant) {
    let (mut links, mut now) = (connected(), START);
    run(&mut links, &mut now, |links| links.iter().all(|link| link.state() == LinkState::Established));
    links.iter_mut().for_each(|link| while link.poll_event().is_some() {});
    (links, now)
}

/// A link that never met a peer, in either role.
fn alone(role: LinkRole) -> SmallLink {
    let [central, peripheral] = connected();
    if role == LinkRole::Central { central } else { peripheral }
}

fn open() -> SmallLink {
    let ([link, _], _) = established();
    link
}

fn closed() -> SmallLink {
    let mut link = alone(LinkRole::Central);
    link.close(START, REASON);
    link
}

fn suspended() -> SmallLink {
    let ([mut link, _], now) = established();
    link.disconnected(now);
    link
}

/// What `bytes` do: the error, and by how much they count as ignored and as damaged.
fn takes(mut link: SmallLink, bytes: &[u8]) -> (Option<LinkError>, u64, u64) {
    let before = link.stats();
    let error = link.handle_packet(START, bytes).err();
    let after = link.stats();
    (error, after.ignored - before.ignored, after.damaged - before.damaged)
}

/// A cut packet is an accident everywhere; what no packet of ours begins with is a stranger's, or the rest of an earlier connection.
#[test]
fn unreadable_bytes_count_by_what_the_link_waits_for() {
    const IGNORED: (Option<LinkError>, u64, u64) = (None, 1, 0);
    const DAMAGED: (Option<LinkError>, u64, u64) = (None, 0, 1);
    for bytes in [&b""[..], b"G", b"GW"] {
        for link in [alone(LinkRole::Central), alone(LinkRole::Peripheral), open()] {
            let state = link.state();
            assert_eq!(takes(link, bytes), DAMAGED, "{bytes:?} in {state:?}");
        }
    }
    for bytes in [&b"X"[..], b"GX", &[0x58; 20]] {
        let first = bytes[0];
        assert_eq!(takes(alone(LinkRole::Central), bytes), IGNORED, "{bytes:?}");
        let foreign = (Some(LinkError::NotOurs { first }), 0, 0);
        assert_eq!(takes(alone(LinkRole::Peripheral), bytes), foreign, "{bytes:?}");
        assert_eq!(takes(open(), bytes), (Some(LinkError::UnknownPacket { first }), 0, 0), "{bytes:?}");
    }
    for bytes in [&b""[..], b"X", b"G", &[0; 20]] {
        for link in [closed(), suspended(), SmallLink::new(LinkRole::Central, LinkConfig::default(), 1)] {
            let state = link.state();
            assert_eq!(takes(link, bytes), IGNORED, "{bytes:?} in {state:?}");
        }
    }
}

#[test]
fn packets_without_a_transport_are_not_received() {
    let (mut links, mut now) = established();
    links[0].close(now, REASON);
    run(&mut links, &mut now, |links| links.iter().all(|link| link.state() == LinkState::Closed));
    let link = &mut links[0];
    link.disconnected(now);
    let before = link.stats();
    assert_eq!(link.handle_packet(now, b"GW"), Ok(()));
    let after = link.stats();
    assert_eq!((after.ignored - before.ignored, after.packets_received), (1, before.packets_received));
}

#[test]
fn what_ended_or_never_began_is_not_suspended_and_the_first_reason_stands() {
    let mut fresh = SmallLink::new(LinkRole::Central, LinkConfig::default(), 1);
    fresh.disconnected(START);
    assert_eq!((fresh.state(), fresh.poll_event(), fresh.poll_at()), (LinkState::Idle, None, None));
    fresh.close(START, REASON);
    fresh.close(START, CloseReason::Finished);
    fresh.disconnected(START);
    let events: Vec<_> = core::iter::from_fn(|| fresh.poll_event()).collect();
    assert_eq!(events, [LinkEvent::Closed { reason: REASON, by_peer: false }]);
    assert_eq!(fresh.state(), LinkState::Closed);

    let (mut links, mut now) = established();
    links[0].close(now, REASON);
    links[0].close(now, CloseReason::Finished);
    run(&mut links, &mut now, |links| links.iter().all(|link| link.state() == LinkState::Closed));
    for (link, by_peer) in links.iter_mut().zip([false, true]) {
        assert_eq!(link.poll_event(), Some(LinkEvent::Closed { reason: REASON, by_peer }));
        link.close(now, CloseReason::Finished);
        assert_eq!(link.poll_event(), None);
    }
    let (mut links, now) = established();
    links[0].disconnected(now);
    links[0].disconnected(now);
    assert!(matches!(links[0].poll_event(), Some(LinkEvent::Suspended(_))));
    assert_eq!((links[0].poll_event(), links[0].state()), (None, LinkState::Suspended), "once");
}

/// Whoever was told that there is no room is told when there is, once; who was not is told nothing.
#[test]
fn room_is_told_to_who_waits_for_it() {
    let writable = |link: &mut SmallLink| {
        core::iter::from_fn(|| link.poll_event()).filter(|event| *event == LinkEvent::Writable).count()
    };
    let (mut links, mut now) = established();
    assert_eq!(links[0].write(&[1; 2000]), 2000);
    run(&mut links, &mut now, |links| links[0].is_flushed());
    assert_eq!(writable(&mut links[0]), 0);
    let mut read = [0; 2048];
    links[1].read(&mut read);
    assert_eq!(links[0].write(&[1; 3000]), 2048);
    assert_eq!(writable(&mut links[0]), 0, "nothing has arrived");
    run(&mut links, &mut now, |links| links[0].is_flushed());
    assert_eq!(writable(&mut links[0]), 1);
    links[1].read(&mut read);
    assert_eq!(links[0].write(&[1; 10]), 10);
    run(&mut links, &mut now, |links| links[0].is_flushed());
    assert_eq!(writable(&mut links[0]), 0);
}

#[test]
fn credit_is_waited_for_where_it_alone_is_missing() {
    let mut window = SendWindow::<4096>::new();
    window.begin(100, 0, 250, 4096, 8).expect("it begins");
    assert!(!window.waits_for_credit() && !window.is_ready(), "there is nothing to send");
    window.write(&[1; 400]);
    for _ in 0..2 {
        assert!(!window.waits_for_credit() && window.poll(START).is_some());
    }
    assert!(window.poll(START).is_none() && !window.waits_for_credit(), "two are in flight");
    let mut round_trip = RoundTrip::default();
    let second = Sequence::ZERO.plus(2);
    assert_eq!(window.take_ack(START, second, &[], &mut round_trip).expect("sent").packets, 2);
    assert!(window.waits_for_credit() && !window.is_ready());
    assert_eq!([250, 200, 251].map(|low| window.take_credit(low)), [Ok(false), Ok(false), Ok(true)]);
    assert!(window.waits_for_credit(), "not enough for a packet");
    let too_large = window.take_credit(200 + 4097);
    assert_eq!(too_large, Err(LinkError::CreditTooLarge { credit: 4097, max: 4096 }));
    assert_eq!(window.take_credit(300), Ok(true));
    assert!(!window.waits_for_credit() && window.poll(START).is_some());
    assert!(window.probe() && !window.waits_for_credit() && window.is_ready(), "one is to be sent again");
    assert!(window.poll(START).is_some_and(|outgoing| outgoing.repeated));
    // The packet that was not sent yet cannot have arrived, in the bitmap as in the number.
    for (expected, bitmap) in [(4, &[][..]), (2, &[1]), (3, &[1])] {
        let ack = window.take_ack(START, Sequence::ZERO.plus(expected), bitmap, &mut round_trip);
        assert!(
            matches!(ack, Err(LinkError::AckOfUnsent { .. })),
            "{expected} {bitmap:?}: {:?}",
            ack.is_ok()
        );
    }
    let third = Sequence::ZERO.plus(3);
    assert_eq!(window.take_ack(START, third, &[], &mut round_trip).expect("sent").packets, 1);
}

/// A packet whose place in the window is taken by another is no duplicate.
#[test]
fn a_packet_is_known_by_its_number_and_not_by_its_place() {
    let mut window = ReceiveWindow::<65536>::new();
    window.begin(100, 65536, 1);
    let take =
        |window: &mut ReceiveWindow<65536>, number: u16| window.take(Sequence::ZERO.plus(number), &[1; 100]);
    assert!(matches!(take(&mut window, 3), Ok(Arrival::Early)));
    assert!(matches!(take(&mut window, 3), Ok(Arrival::Duplicate)));
    let beyond = take(&mut window, 3 + SPAN_MAX);
    assert!(matches!(beyond, Err(LinkError::SequenceBeyondWindow { .. })), "{:?}", beyond.is_ok());
    assert!(matches!(take(&mut window, 0), Ok(Arrival::InOrder(100))));
    assert!(matches!(take(&mut window, 0), Ok(Arrival::Duplicate)));
    assert!(matches!(take(&mut window, 1), Ok(Arrival::InOrder(100))));
    assert!(matches!(take(&mut window, 2), Ok(Arrival::InOrder(200))), "and the early one");
}

/// The token comes with the session's first answer, the keys from the layer above, in whatever order.
#[test]
fn a_token_that_comes_after_the_first_key_is_the_one_before_it() {
    let tag = |key: &[u8; PROVER_KEY_BYTES], _: &[u8]| [key[0]; PROOF_BYTES];
    let key = ResumeProver::new([9; PROVER_KEY_BYTES], tag);
    let mut late = Provers::default();
    late.push(key);
    late.set_token([1; PROOF_BYTES]);
    let mut early = Provers::default();
    early.set_token([1; PROOF_BYTES]);
    early.push(key);
    for provers in [&late, &early] {
        let proof = |oldest| provers.common(oldest).map(|prover| prover.prove(b"transcript"));
        assert_eq!(provers.oldest(), 0);
        assert_eq!(proof(0), Some(ResumeProver::from_token([1; PROOF_BYTES]).prove(b"transcript")));
        assert_eq!((proof(1), proof(2)), (Some([9; PROOF_BYTES]), None));
    }
    // Until there is a key, a new token takes the place of the old one.
    let mut renewed = Provers::default();
    renewed.set_token([1; PROOF_BYTES]);
    renewed.set_token([2; PROOF_BYTES]);
    renewed.confirm();
    let token = ResumeProver::from_token([2; PROOF_BYTES]).prove(b"transcript");
    assert_eq!(renewed.common(0).map(|prover| prover.prove(b"transcript")), Some(token));
}

/// Silence ends a connection by the time since the last packet, and not by that since the clock began.
#[test]
fn a_connection_that_waits_for_credit_is_not_silent_at_once() {
    let (mut links, mut now) = established();
    assert_eq!(links[0].write(&[1; 2048]), 2048);
    run(&mut links, &mut now, |links| links[0].is_flushed());
    assert!(!links[0].wants_poll(), "there is nothing to do");
    links[0].write(&[2; 500]);
    assert!(links[0].wants_poll(), "a wait is to begin, and nothing else wakes the driver for it");
    assert!(says(&mut links[0], now).is_empty(), "the peer has no room");
    assert!(!links[0].wants_poll(), "the wait has begun");
    let asks = links[0].poll_at().expect("it asks");
    links[0].handle_timeout(asks);
    assert_eq!(links[0].state(), LinkState::Established);
    assert!(!says(&mut links[0], asks).is_empty());
}

/// What wants an answer is said again: the CONFIRM of a new session, and CLOSE.
#[test]
fn a_last_word_that_is_lost_is_repeated() {
    let (mut links, mut now) = (connected(), START);
    // HELLO, WELCOME, and the CONFIRM that is lost.
    for from in [0, 1] {
        let packets = says(&mut links[from], now);
        packets.iter().for_each(|p| links[1 - from].handle_packet(now, p).expect("as it should be"));
    }
    let confirm = says(&mut links[0], now);
    assert!(!confirm.is_empty() && links[1].state() != LinkState::Established);
    let due = links[0].poll_at().expect("it repeats");
    links[0].handle_timeout(due);
    assert_eq!(says(&mut links[0], due), confirm);
    confirm.iter().for_each(|p| links[1].handle_packet(due, p).expect("as it should be"));
    now = due;
    run(&mut links, &mut now, |links| links.iter().all(|link| link.state() == LinkState::Established));

    // The central knows that it was heard by a packet of the other.
    links[1].write(&[1]);
    run(&mut links, &mut now, |links| links[1].is_flushed());
    links[0].close(now, REASON);
    assert!(!says(&mut links[0], now).is_empty(), "CLOSE, which is lost");
    run(&mut links, &mut now, |links| links.iter().all(|link| link.state() == LinkState::Closed));
}

#[test]
fn bytes_that_wait_are_told_once_more_after_a_resume() {
    let (mut links, mut now) = established();
    for size in [100, 0] {
        assert_eq!(links[0].write(&[1; 100][..size]), size);
        run(&mut links, &mut now, |links| links[0].is_flushed());
        while links[1].poll_event().is_some() {}
        links.iter_mut().for_each(|link| link.connected(now, PacketSize::MAX));
        run(&mut links, &mut now, |links| links.iter().all(|link| link.state() == LinkState::Established));
        let events: Vec<_> = core::iter::from_fn(|| links[1].poll_event()).collect();
        assert!(
            events.iter().any(|event| matches!(event, LinkEvent::Established { resumed: true, .. })),
            "{events:?}"
        );
        assert_eq!(events.contains(&LinkEvent::Readable), size > 0, "{events:?}");
        links[1].read(&mut [0; 200]);
    }
}
