//! Ends in order, ends by force, silence.

use core::time::Duration;

use super::pair::{CENTRAL, Faults, PERIPHERAL, Pair};
use crate::link::{CloseReason, LinkConfig, LinkError, LinkEvent, LinkState, SuspendCause};

const LIMIT: Duration = Duration::from_secs(100);
const REASON: CloseReason = CloseReason::Permanent(77);

fn last(pair: &Pair, end: usize) -> LinkEvent {
    *pair.ends[end].events.last().expect("an event")
}

#[test]
fn closing_flushes_first_and_tells_the_reason() {
    for (closer, other) in [(CENTRAL, PERIPHERAL), (PERIPHERAL, CENTRAL)] {
        let lossy =
            Faults { loss: 100, reorder_window: 200, jitter: Duration::from_millis(50), ..Faults::NONE };
        let mut pair = Pair::<65536, 65536>::new(1, lossy, 244);
        pair.establish();
        pair.ends[closer].to_write = 30_000;
        pair.step();
        assert_eq!(pair.ends[closer].written, 30_000);
        pair.close(closer, REASON);
        assert_eq!(pair.ends[closer].link.state(), LinkState::Closing);
        assert_eq!(pair.ends[closer].link.write(b"too reorder_window"), 0);
        pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
        assert_eq!(pair.ends[other].read, 30_000);
        assert_eq!(last(&pair, closer), LinkEvent::Closed { reason: REASON, by_peer: false });
        assert_eq!(last(&pair, other), LinkEvent::Closed { reason: REASON, by_peer: true });
    }
}

/// How long a close takes after the last bytes were written, until the closing side knows that all has arrived.
fn time_to_close(versions: [u8; 2], closer: usize) -> Duration {
    let mut pair = Pair::<65536, 65536>::with_versions(14, Faults::NONE, 244, versions);
    pair.establish();
    pair.run_for(Duration::from_secs(1));
    let asked = pair.now;
    pair.ends[closer].to_write = 500;
    pair.ends[closer].use_stream(closer, asked);
    pair.close(closer, REASON);
    pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
    let stats = pair.ends[closer].link.stats();
    assert_eq!((pair.ends[1 - closer].read, stats.bytes_acknowledged, stats.retransmissions), (500, 500, 0));
    pair.last.since(asked)
}

#[test]
fn a_close_goes_out_with_the_last_data_to_a_peer_that_knows_it() {
    let round_trip = 2 * Faults::NONE.latency + 8 * Faults::NONE.packet_time;
    for closer in [CENTRAL, PERIPHERAL] {
        assert!(time_to_close([2, 2], closer) < round_trip);
        for versions in [[1, 1], [1, 2], [2, 1]] {
            assert!(time_to_close(versions, closer) > round_trip, "{versions:?}: acknowledgements first");
        }
    }
}

/// Packets get lost and overtake each other, also CLOSE; a peer of the first version would take that for a violation.
#[test]
fn a_close_loses_nothing_between_any_two_versions() {
    for versions in [[1, 1], [1, 2], [2, 1], [2, 2]] {
        for seed in 20..40 {
            let lossy =
                Faults { loss: 100, reorder_window: 200, jitter: Duration::from_millis(50), ..Faults::NONE };
            let mut pair = Pair::<65536, 65536>::with_versions(seed, lossy, 64, versions);
            pair.establish();
            let closer = seed as usize % 2;
            pair.ends[closer].to_write = 700;
            pair.step();
            pair.close(closer, REASON);
            pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
            assert_eq!(pair.ends[1 - closer].read, 700, "{versions:?}, {seed}");
            assert_eq!(last(&pair, closer), LinkEvent::Closed { reason: REASON, by_peer: false });
            assert_eq!(last(&pair, 1 - closer), LinkEvent::Closed { reason: REASON, by_peer: true });
        }
    }
}

#[test]
fn a_close_that_comes_before_the_data_waits_for_it() {
    let mut pair = Pair::<65536, 65536>::new(15, Faults::NONE, 244);
    pair.establish();
    pair.tap = |end, packet| end == PERIPHERAL || packet[0] >> 6 == 1;
    pair.ends[CENTRAL].to_write = 500;
    pair.step();
    pair.close(CENTRAL, REASON);
    pair.run_for(Duration::from_millis(60));
    let peripheral = &pair.ends[PERIPHERAL].link;
    assert!(peripheral.peer_close.is_some() && peripheral.state() == LinkState::Established, "{pair:#?}");
    pair.tap = |_, _| true;
    pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
    assert_eq!(pair.ends[PERIPHERAL].read, 500);
}

#[test]
fn a_close_that_was_lost_with_its_data_is_said_again_after_the_resume() {
    let mut pair = Pair::<65536, 65536>::new(16, Faults::NONE, 244);
    pair.establish();
    pair.tap = |end, _| end == PERIPHERAL;
    pair.ends[CENTRAL].to_write = 500;
    pair.step();
    pair.close(CENTRAL, REASON);
    pair.run_for(Duration::from_millis(60));
    assert!(pair.ends[CENTRAL].link.closing.is_some_and(|closing| closing.said), "{pair:#?}");
    pair.cut();
    pair.tap = |_, _| true;
    pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
    assert_eq!(pair.ends[PERIPHERAL].read, 500);
    assert_eq!(last(&pair, PERIPHERAL), LinkEvent::Closed { reason: REASON, by_peer: true });
}

#[test]
fn what_arrived_before_the_close_can_still_be_read() {
    let mut pair = Pair::<65536, 65536>::new(2, Faults::NONE, 244);
    pair.establish();
    pair.ends[CENTRAL].to_write = 10_000;
    pair.ends[PERIPHERAL].stalled_until = pair.now + Duration::from_secs(5);
    pair.step();
    pair.close(CENTRAL, CloseReason::Finished);
    pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
    assert_eq!((pair.ends[PERIPHERAL].read, pair.ends[PERIPHERAL].link.readable()), (0, 10_000));
    pair.run_until(LIMIT, "read", |pair| pair.ends[PERIPHERAL].read == 10_000);
}

#[test]
fn both_may_close_at_once() {
    for (loss, seed) in [(0, 3), (200, 4), (200, 5)] {
        let mut pair = Pair::<65536, 65536>::new(seed, Faults { loss, ..Faults::NONE }, 244);
        pair.establish();
        pair.close(CENTRAL, CloseReason::Finished);
        pair.close(PERIPHERAL, REASON);
        pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
    }
}

#[test]
fn a_close_ends_in_time_without_a_connection_and_without_an_answer() {
    // Nothing to flush, no connection.
    let mut pair = Pair::<65536, 65536>::new(6, Faults::NONE, 244);
    pair.establish();
    pair.reconnect_after = None;
    pair.cut();
    pair.close(CENTRAL, CloseReason::Finished);
    let asked = pair.now;
    pair.run_until(LIMIT, "closed", |pair| pair.ends[CENTRAL].link.state() == LinkState::Closed);
    assert!(pair.last.since(asked) <= Duration::from_secs(10));
    // Bytes that nobody acknowledges.
    let mut pair = Pair::<65536, 65536>::new(7, Faults::NONE, 244);
    pair.establish();
    pair.tap = |_, _| false;
    pair.ends[CENTRAL].to_write = 5000;
    pair.step();
    pair.close(CENTRAL, CloseReason::Finished);
    pair.run_until(LIMIT, "failed", |pair| pair.ends[CENTRAL].link.state() == LinkState::Failed);
    let error = LinkError::CloseTimeout { limit_ms: 10_000, unacknowledged: 5000 };
    assert_eq!(last(&pair, CENTRAL), LinkEvent::Failed(error));
    // No session yet: at once.
    let mut pair = Pair::<65536, 65536>::new(8, Faults::NONE, 244);
    pair.close(CENTRAL, REASON);
    assert_eq!(pair.ends[CENTRAL].link.state(), LinkState::Closed);
}

#[test]
fn a_close_during_a_loss_is_said_after_the_resume() {
    let mut pair = Pair::<65536, 65536>::new(9, Faults::NONE, 244);
    pair.establish();
    pair.ends[PERIPHERAL].to_write = 20_000;
    pair.step();
    pair.cut();
    pair.close(PERIPHERAL, REASON);
    pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
    assert_eq!(pair.ends[CENTRAL].read, 20_000);
    assert_eq!(last(&pair, CENTRAL), LinkEvent::Closed { reason: REASON, by_peer: true });
}

#[test]
fn a_silent_peer_is_noticed_with_and_without_data_in_flight() {
    for to_write in [0, 5000] {
        let mut pair = Pair::<65536, 65536>::new(10, Faults::NONE, 244);
        pair.establish();
        // Until the central knows that it is so.
        pair.run_for(Duration::from_millis(200));
        pair.ends[CENTRAL].to_write = to_write;
        pair.reconnect_after = None;
        pair.tap = |_, _| false;
        let muted = pair.now;
        pair.run_until(LIMIT, "noticed", |pair| pair.both(LinkState::Suspended));
        assert!(pair.last.since(muted) < Duration::from_millis(15_200), "{pair:#?}");
        let silent = LinkEvent::Suspended(SuspendCause::PeerSilent(Duration::from_secs(15)));
        assert!(pair.ends.iter().any(|end| end.events.contains(&silent)), "{pair:#?}");
        pair.run_until(Duration::from_secs(200), "given up", Pair::both_final);
    }
}

#[test]
fn without_keep_alive_unacknowledged_packets_tell_that_the_peer_is_gone() {
    let config = LinkConfig { keep_alive: None, ..LinkConfig::default() };
    let mut pair = Pair::<65536, 65536>::with_config(11, Faults::NONE, 244, config);
    pair.establish();
    pair.ends[CENTRAL].to_write = 1;
    pair.tap = |_, packet| packet[0] >> 6 == 1;
    pair.run_until(Duration::from_secs(400), "given up", |pair| pair.ends[CENTRAL].link.state().is_final());
    let attempts = LinkEvent::Failed(LinkError::NoProgress { attempts: 4 });
    assert!(pair.ends[CENTRAL].events.contains(&attempts), "{pair:#?}");
    assert!(pair.most_in_channel <= 128);
}

#[test]
fn an_idle_link_stays_up_for_little() {
    let mut pair = Pair::<65536, 65536>::new(12, Faults::NONE, 244);
    pair.establish();
    let packets = |pair: &Pair| pair.ends.iter().map(|end| end.link.stats().packets_sent).sum::<u64>();
    let before = packets(&pair);
    pair.run_for(Duration::from_secs(600));
    assert!(pair.both(LinkState::Established));
    let sent = packets(&pair) - before;
    assert!((200..=250).contains(&sent), "{sent} packets in ten minutes: two each five seconds are due");
}

#[test]
fn a_stalled_reader_loses_nothing_and_is_not_pestered() {
    let mut pair = Pair::<65536, 65536>::new(13, Faults::NONE, 244);
    pair.establish();
    pair.ends[CENTRAL].to_write = 400_000;
    let stall = Duration::from_secs(30);
    pair.ends[PERIPHERAL].stalled_until = pair.now + stall;
    pair.run_for(stall - Duration::from_secs(1));
    let stats = pair.ends[CENTRAL].link.stats();
    assert!(pair.both(LinkState::Established));
    assert!(pair.ends[PERIPHERAL].link.readable() > 65536 - 244);
    assert!(stats.packets_sent < 300 + 40, "{stats:?}");
    assert_eq!(stats.retransmissions, 0);
    pair.run_until(LIMIT, "across", Pair::all_across);
}

/// Who answers a CLOSE waits for the other to disconnect. Where both have said CLOSE both answer, and would wait for each other.
#[test]
fn where_both_close_at_once_each_knows_that_the_other_has_ended() {
    let mut pair = Pair::<65536, 65536>::new(9, Faults::NONE, 244);
    pair.establish();
    pair.run_for(Duration::from_secs(1));
    pair.close(CENTRAL, REASON);
    pair.close(PERIPHERAL, REASON);
    pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
    for end in [CENTRAL, PERIPHERAL] {
        assert_eq!(last(&pair, end), LinkEvent::Closed { reason: REASON, by_peer: true });
    }
    pair.run_for(Duration::from_secs(1));
    assert!(pair.ends.iter().all(|end| end.link.peer_has_ended()));
    // Of one that only answers nobody can say so.
    let mut pair = Pair::<65536, 65536>::new(9, Faults::NONE, 244);
    pair.establish();
    pair.close(CENTRAL, REASON);
    pair.run_until(LIMIT, "closed", |pair| pair.both(LinkState::Closed));
    pair.run_for(Duration::from_secs(1));
    assert!(!pair.ends.iter().any(|end| end.link.peer_has_ended()));
}
