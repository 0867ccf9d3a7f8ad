//! Sessions that lose their connection: at every point, with other sizes, with provers, and with impostors.

use core::time::Duration;

use super::pair::{CENTRAL, Faults, PERIPHERAL, Pair};
use crate::link::{
    CloseReason, Link, LinkConfig, LinkError, LinkEvent, LinkRole, LinkState, PacketSize, RefuseReason,
    ResumeProver, SuspendCause,
};

const LIMIT: Duration = Duration::from_secs(300);

/// Both streams on their way.
fn busy(seed: u64) -> Pair {
    let mut pair = Pair::new(seed, Faults::NONE, 64);
    pair.ends[CENTRAL].to_write = 5_000;
    pair.ends[PERIPHERAL].to_write = 4_000;
    pair
}

fn is_confirm(packet: &[u8]) -> bool {
    packet.starts_with(b"GW") && packet[2] >> 4 == 3
}

/// Steps until the streams are over; what was sent twice is not more than a window for each resume.
fn finish(pair: &mut Pair) {
    pair.run_until(LIMIT, "across", Pair::all_across);
    for end in &pair.ends {
        let stats = end.link.stats();
        let window = 128 * 492 * u64::from(stats.resumes.max(1));
        assert!(stats.bytes_retransmitted <= window, "{stats:?}");
        assert_eq!(stats.bytes_acknowledged, end.written, "also what a resume told: {stats:?}");
        let established = |event: &&LinkEvent| matches!(event, LinkEvent::Established { resumed: false, .. });
        assert_eq!(end.events.iter().filter(established).count(), 1, "restarted: {:?}", end.events);
    }
    assert_eq!(pair.ends[CENTRAL].link.session_id(), pair.ends[PERIPHERAL].link.session_id());
}

#[test]
fn a_session_survives_a_cut_at_any_step() {
    let mut uncut = busy(1);
    let mut steps = 0;
    while !uncut.all_across() {
        uncut.step();
        steps += 1;
    }
    for (cut, size) in (0..steps).zip([20, 64, 244, 495].into_iter().cycle()) {
        let mut pair = busy(1);
        (0..cut).for_each(|_| assert!(pair.step()));
        pair.cut();
        pair.size = PacketSize::try_new(size).expect("a packet size");
        finish(&mut pair);
    }
}

#[test]
fn a_session_survives_when_only_the_central_notices() {
    let mut resumes = 0;
    for cut in 0..250 {
        let mut pair = busy(2);
        (0..cut).for_each(|_| assert!(pair.step()));
        if !pair.both(LinkState::Established) || pair.all_across() {
            continue;
        }
        pair.reconnect_central_alone();
        finish(&mut pair);
        resumes += pair.ends[PERIPHERAL].link.stats().resumes;
    }
    assert!(resumes > 150, "{resumes} resumes");
}

#[test]
fn a_session_survives_cut_upon_cut_in_the_handshake() {
    let mut pair = busy(3);
    pair.establish();
    for steps in (1..20).chain(1..20) {
        pair.cut();
        pair.connect();
        (0..steps).for_each(|_| assert!(pair.step()));
    }
    finish(&mut pair);
}

#[test]
fn nobody_waits_for_a_session_for_ever() {
    let mut pair = busy(4);
    pair.establish();
    pair.reconnect_after = None;
    pair.cut();
    let lost = pair.now;
    pair.run_until(LIMIT, "given up", Pair::both_final);
    for end in &pair.ends {
        let error = LinkError::SessionTimeout { limit_ms: 120_000 };
        assert_eq!(end.events.last(), Some(&LinkEvent::Failed(error)));
    }
    assert!(pair.last.since(lost) < Duration::from_secs(121));
}

#[test]
fn an_unknown_session_is_refused_so_that_the_central_begins_anew() {
    let mut pair = busy(5);
    pair.run_for(Duration::from_millis(120));
    pair.cut();
    *pair.ends[PERIPHERAL].link = Link::new(LinkRole::Peripheral, LinkConfig::default(), 99);
    pair.run_until(LIMIT, "refused", |pair| pair.ends[CENTRAL].link.state().is_final());
    let reason = CloseReason::SessionUnknown;
    assert!(reason.is_recoverable());
    assert_eq!(pair.ends[CENTRAL].events.last(), Some(&LinkEvent::Closed { reason, by_peer: true }));
    // A new link of the central on the same connection finds the peripheral ready.
    pair.now = pair.last;
    *pair.ends[CENTRAL].link = Link::new(LinkRole::Central, LinkConfig::default(), 98);
    let (now, size) = (pair.now, pair.size);
    pair.ends[CENTRAL].link.connected(now, size);
    pair.establish();
}

/// A pair that is the same, names and token too, but for what its central has sent.
fn twin(sent: u64) -> Pair {
    let mut pair = Pair::new(9, Faults::NONE, 64);
    pair.establish();
    pair.ends[CENTRAL].to_write = sent;
    pair.run_for(Duration::from_millis(500));
    pair.cut();
    pair
}

#[test]
fn a_peripheral_with_the_right_proof_and_an_impossible_offset_is_refused() {
    for (central, peripheral) in [(0, 500), (500, 0)] {
        let (mut pair, other) = (twin(central), twin(peripheral));
        let [_, other] = other.ends;
        pair.ends[PERIPHERAL].link = other.link;
        pair.expect_errors = true;
        pair.run_until(LIMIT, "refused", |pair| !pair.errors.is_empty());
        let error = LinkError::ResumeOffset { claimed: peripheral, acknowledged: central, sent: central };
        assert_eq!(pair.errors[0], (CENTRAL, error));
        assert_eq!(pair.ends[CENTRAL].link.stats().resumes, 0);
    }
}

/// A tag that depends on key and transcript; good enough to be told from another.
fn toy_tag(key: &[u8; 32], transcript: &[u8]) -> [u8; 16] {
    let mut tag = [key[0]; 16];
    transcript.iter().enumerate().for_each(|(i, byte)| tag[i % 16] = tag[i % 16].rotate_left(1) ^ byte);
    tag
}

fn prover(key: u8) -> ResumeProver {
    ResumeProver::new([key; 32], toy_tag)
}

#[test]
fn a_wrong_proof_is_refused_and_the_session_lives_on() {
    let mut pair = busy(6);
    pair.establish();
    pair.expect_errors = true;
    pair.tap = |_, packet| {
        if is_confirm(packet) {
            let last = packet.len() - 1;
            packet[last] ^= 1;
        }
        true
    };
    pair.cut();
    pair.run_until(LIMIT, "refused twice", |pair| pair.errors.len() >= 4);
    for pairs in pair.errors.chunks(2).take(2) {
        let refused = LinkError::Refused(RefuseReason::ResumeProof);
        assert_eq!(pairs, [(PERIPHERAL, LinkError::ResumeProof), (CENTRAL, refused)]);
    }
    let cause = LinkEvent::Suspended(SuspendCause::Handshake(LinkError::ResumeProof));
    assert!(pair.ends[PERIPHERAL].events.contains(&cause));
    pair.tap = |_, _| true;
    finish(&mut pair);
}

#[test]
fn an_impostor_peripheral_is_refused_and_the_session_lives_on() {
    let mut pair = busy(7);
    pair.establish();
    for (end, key) in [(CENTRAL, 1), (PERIPHERAL, 2)] {
        pair.ends[end].link.set_resume_prover(prover(key));
        pair.ends[end].link.confirm_resume_prover();
    }
    pair.expect_errors = true;
    pair.cut();
    pair.run_until(LIMIT, "refused", |pair| !pair.errors.is_empty());
    assert_eq!(pair.errors[0], (CENTRAL, LinkError::ResumeProof));
    assert_eq!(pair.ends[CENTRAL].link.stats().resumes, 0);
    let central = &mut pair.ends[CENTRAL].link;
    central.set_resume_prover(prover(2));
    central.set_resume_prover(prover(2));
    pair.ends[PERIPHERAL].link.set_resume_prover(prover(2));
    pair.ends[PERIPHERAL].link.set_resume_prover(prover(2));
    finish(&mut pair);
}

#[test]
fn the_two_sides_may_learn_of_a_new_prover_at_different_times() {
    // Steps of each side: 0 token only, 1 new prover beside it, 2 new prover alone. One side is at most one step ahead in
    // what it knows of the other.
    for (central, peripheral, resumes) in [
        (0, 0, true),
        (1, 0, true),
        (0, 1, true),
        (1, 1, true),
        (2, 1, true),
        (1, 2, true),
        (2, 2, true),
        (2, 0, false),
    ] {
        let mut pair = busy(8);
        pair.establish();
        for (end, steps) in [(CENTRAL, central), (PERIPHERAL, peripheral)] {
            if steps > 0 {
                pair.ends[end].link.set_resume_prover(prover(9));
            }
            if steps > 1 {
                pair.ends[end].link.confirm_resume_prover();
            }
        }
        pair.expect_errors = true;
        pair.cut();
        pair.run_for(Duration::from_secs(2));
        let is_resumed = pair.ends.iter().all(|end| end.link.stats().resumes == 1);
        assert_eq!(is_resumed, resumes, "central {central}, peripheral {peripheral}: {pair:#?}");
    }
}

/// A layer above binds its first message to it, so that a recorded one is worth nothing on another session.
#[test]
fn both_ends_of_a_session_have_its_origin_and_no_other_session_has_it() {
    let origin = |pair: &Pair| {
        let of = |end: usize| *pair.ends[end].link.session_origin().expect("a session").as_bytes();
        assert_eq!(of(CENTRAL), of(PERIPHERAL));
        of(CENTRAL)
    };
    let session = |seed: u64| {
        let mut pair = busy(seed);
        pair.establish();
        let begun = origin(&pair);
        pair.cut();
        pair.connect();
        finish(&mut pair);
        assert_eq!(origin(&pair), begun, "the same over all its connections");
        begun
    };
    let (one, other) = (session(1), session(2));
    assert_ne!(one[..8], other[..8], "the name");
    assert_ne!(one[8..], other[8..], "the token");
}
