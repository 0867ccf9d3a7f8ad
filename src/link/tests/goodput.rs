//! How much of a radio connection becomes goodput, on the project's radio model; the limits are the project's own.

use core::time::Duration;

use super::pair::{Faults, Pair};
use crate::link::AttMtu;
use crate::transport::sim::HostConfig;
use crate::transport::sim::bench::{LinkBench, LinkGoodput, link_goodput};
use crate::transport::sim::radio::{ConnectionParameters, ConnectionSetup, Side};

const INTERVALS_MICROS: [u64; 3] = [7_500, 30_000, 50_000];

fn run(interval_micros: u64, att_mtu: u16, from: Side, host: HostConfig, seed: u64) -> LinkGoodput {
    let parameters = ConnectionParameters {
        interval: Duration::from_micros(interval_micros),
        ..ConnectionParameters::default()
    };
    let bench = LinkBench {
        setup: ConnectionSetup { parameters, ..ConnectionSetup::default() },
        att_mtu: AttMtu::new(att_mtu),
        host,
        from,
        seed,
        ..LinkBench::default()
    };
    let result = link_goodput(&bench).expect("the link lives through it");
    let sender = result.sender;
    println!(
        "{:>5.1} ms, MTU {att_mtu}, {from:?}, drop {:.2}, reorder {:.2}: {:.3} of the ceiling, {} sent, {} again ({} needless), \
         {} acks, srtt {:?}, threshold {}, most in flight {}",
        interval_micros as f64 / 1000.0,
        host.drop,
        host.reorder,
        result.ratio,
        sender.packets_sent,
        sender.retransmissions,
        sender.retransmissions_needless,
        result.receiver.acks_sent,
        sender.srtt,
        sender.reorder_threshold,
        sender.in_flight_max,
    );
    result
}

fn for_each(check: impl Fn(u64, Side)) {
    for interval in INTERVALS_MICROS {
        for from in [Side::Central, Side::Peripheral] {
            check(interval, from);
        }
    }
}

#[test]
fn without_loss_the_link_takes_less_than_a_twentieth() {
    for_each(|interval, from| {
        let result = run(interval, 247, from, HostConfig::default(), 1);
        assert!(result.ratio >= 0.95, "{result:?}");
        assert_eq!(result.sender.retransmissions, 0, "{result:?}");
    });
}

#[test]
fn with_two_percent_dropped_by_hosts_it_takes_less_than_a_seventh() {
    for_each(|interval, from| {
        for seed in 1..=3 {
            let result = run(interval, 247, from, HostConfig { drop: 0.02, ..HostConfig::default() }, seed);
            assert!(result.ratio >= 0.85, "{result:?}");
        }
    });
}

#[test]
fn reordering_costs_next_to_nothing() {
    for_each(|interval, from| {
        let result = run(interval, 247, from, HostConfig { reorder: 0.1, ..HostConfig::default() }, 1);
        assert!(result.ratio >= 0.95, "{result:?}");
        assert!(result.sender.retransmissions < result.sender.packets_sent / 100, "{result:?}");
    });
}

/// BlueZ's sockets hold more than a window: while both sides send flat out a packet takes a second to arrive, and so does each
/// acknowledgement. Nothing is lost in them, so nothing is to be sent again.
#[test]
fn deep_buffers_are_not_taken_for_loss() {
    for (latency_ms, buffered) in [(5, 167), (15, 167), (15, 400), (60, 30), (400, 167)] {
        let faults = Faults {
            latency: Duration::from_millis(latency_ms),
            packet_time: Duration::from_millis(6),
            buffered,
            ..Faults::NONE
        };
        let mut pair = Pair::<65536, 65536>::new(1, faults, 495);
        pair.establish();
        for end in &mut pair.ends {
            end.to_write = 400_000;
        }
        pair.run_until(Duration::from_secs(60), "both ways", Pair::all_across);
        for end in &pair.ends {
            let stats = end.link.stats();
            println!(
                "latency {latency_ms} ms, {buffered} packets of buffer: {} sent, {} again ({} needless), srtt {:?}",
                stats.packets_sent, stats.retransmissions, stats.retransmissions_needless, stats.srtt
            );
            assert!(stats.retransmissions < stats.packets_sent / 50, "{stats:?}");
        }
    }
}
