//! The model against known figures, and its own promises: order, once, determinism, supervision, buffers.

#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::time::Instant;

fn setup(phy: Phy, data_length: u16, interval: Duration) -> ConnectionSetup {
    let parameters = ConnectionParameters { interval, ..ConnectionParameters::default() };
    ConnectionSetup { parameters, phy, data_length, ..ConnectionSetup::default() }
}

fn mbit_per_s(phy: Phy, data_length: u16, encrypted: bool) -> f64 {
    let setup = ConnectionSetup { encrypted, ..setup(phy, data_length, Duration::from_millis(400)) };
    let octets = usize::from(data_length);
    packets_per_second(&setup, Path::default(), Side::Central, octets).unwrap() * octets as f64 * 8.0 / 1e6
}

#[test]
fn link_layer_ceilings_are_the_published_ones() {
    // Source: Memfault's BLE throughput primer.
    let cases = [
        (Phy::Le1M, 27, false, 0.305, 0.381),
        (Phy::Le1M, 251, true, 0.801, 0.804),
        (Phy::Le2M, 251, true, 1.42, 1.436),
    ];
    for (phy, data_length, encrypted, low, high) in cases {
        let rate = mbit_per_s(phy, data_length, encrypted);
        assert!((low..=high).contains(&rate), "{phy:?} with {data_length} octets: {rate} Mbit/s");
    }
}

#[test]
fn gatt_ceiling_at_2m() {
    // Source: throughput sample of the nRF Connect SDK, GATT writes, 2M, ATT MTU 498, 400 ms: 1.416 Mbit/s.
    let setup = setup(Phy::Le2M, 251, Duration::from_millis(400));
    let rate = ceiling(&setup, Path::default(), Side::Central, 495).unwrap() * 8.0 / 1e6;
    assert!((1.38..=1.43).contains(&rate), "{rate} Mbit/s");
}

struct Pair {
    radio: Radio,
    nodes: [NodeId; 2],
    connection: ConnectionId,
}

fn pair(seed: u64, setup: &ConnectionSetup, path: Path) -> Pair {
    let mut radio = Radio::new(seed);
    let nodes = [radio.add_node(NodeConfig::default()), radio.add_node(NodeConfig::default())];
    radio.set_path(nodes[0], nodes[1], path);
    let connection = radio.connect(Instant::ZERO, nodes[0], nodes[1], setup).unwrap();
    Pair { radio, nodes, connection }
}

/// Sends `count` numbered fragments each way, returns what arrived at each side and when all was over.
fn exchange(pair: &mut Pair, count: u32, length: usize) -> ([Vec<u8>; 2], Instant) {
    let mut arrived = [Vec::new(), Vec::new()];
    let mut sent = [0u32; 2];
    let mut completed = [0u32; 2];
    let mut now = Instant::ZERO;
    while completed != [count; 2] {
        for (index, side) in [Side::Central, Side::Peripheral].into_iter().enumerate() {
            while sent[index] < count && pair.radio.free_buffers(pair.nodes[index]) > 0 {
                let fragment: Vec<u8> = (0..length).map(|i| (sent[index] as usize * 31 + i) as u8).collect();
                pair.radio.send(pair.connection, side, true, fragment.into()).unwrap();
                sent[index] += 1;
            }
        }
        now = pair.radio.poll_at().expect("the connection lives");
        pair.radio.handle_timeout(now);
        while let Some(event) = pair.radio.poll_event() {
            match event {
                RadioEvent::Data { side, payload, .. } => arrived[side as usize].extend_from_slice(&payload),
                RadioEvent::Completed { side, fragments, .. } => {
                    completed[side as usize] += u32::from(fragments)
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    (arrived, now)
}

#[test]
fn lossy_radio_delivers_once_and_in_order() {
    for seed in 0..20 {
        let path = Path { loss: 0.3, ..Path::default() };
        let mut pair = pair(seed, &setup(Phy::Le1M, 60, Duration::from_micros(7_500)), path);
        let (arrived, _) = exchange(&mut pair, 100, 200);
        let expected: Vec<u8> =
            (0..100usize).flat_map(|n| (0..200usize).map(move |i| (n * 31 + i) as u8)).collect();
        assert_eq!(arrived, [expected.clone(), expected], "seed {seed}");
        let counters = pair.radio.counters(pair.connection).unwrap();
        assert!(counters.total().retransmissions > 100, "seed {seed}");
        assert_eq!(counters.central.payload_octets, 100 * 200);
    }
}

#[test]
fn same_seed_same_course() {
    let run = |seed| {
        let path = Path { loss: 0.1, ..Path::default() };
        let mut pair = pair(seed, &setup(Phy::Le2M, 251, Duration::from_millis(30)), path);
        let (_, end) = exchange(&mut pair, 200, 251);
        (end, pair.radio.counters(pair.connection).unwrap())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn silence_ends_in_supervision_timeout_at_both_ends() {
    let mut pair = pair(1, &setup(Phy::Le2M, 251, Duration::from_millis(30)), Path::default());
    pair.radio.handle_timeout(Instant::from_micros(500_000));
    pair.radio.set_path(pair.nodes[0], pair.nodes[1], Path { reachable: false, ..Path::default() });
    pair.radio.handle_timeout(Instant::from_micros(2_400_000));
    assert_eq!(pair.radio.poll_event(), None);
    pair.radio.handle_timeout(Instant::from_micros(2_600_000));
    for side in [Side::Central, Side::Peripheral] {
        let cause = LossCause::SupervisionTimeout;
        assert_eq!(
            pair.radio.poll_event(),
            Some(RadioEvent::Lost { connection: pair.connection, side, cause })
        );
    }
    assert_eq!(pair.radio.poll_at(), None);
}

#[test]
fn unreachable_from_the_start_is_not_established() {
    let path = Path { reachable: false, ..Path::default() };
    let mut pair = pair(1, &setup(Phy::Le2M, 251, Duration::from_millis(30)), path);
    pair.radio.handle_timeout(Instant::from_micros(300_000));
    let cause = LossCause::NotEstablished;
    let expected = RadioEvent::Lost { connection: pair.connection, side: Side::Central, cause };
    assert_eq!(pair.radio.poll_event(), Some(expected));
}

#[test]
fn silent_end_is_noticed_by_the_other_alone() {
    let mut pair = pair(1, &setup(Phy::Le2M, 251, Duration::from_millis(30)), Path::default());
    pair.radio.handle_timeout(Instant::from_micros(500_000));
    pair.radio.silence(pair.connection, Side::Peripheral).unwrap();
    pair.radio.handle_timeout(Instant::from_micros(5_000_000));
    let cause = LossCause::SupervisionTimeout;
    let expected = RadioEvent::Lost { connection: pair.connection, side: Side::Central, cause };
    assert_eq!(pair.radio.poll_event(), Some(expected));
    assert_eq!(pair.radio.poll_event(), None);
}

#[test]
fn buffers_are_bounded_and_shared_by_the_connections_of_a_node() {
    let mut radio = Radio::new(1);
    let nodes = [(); 3].map(|()| radio.add_node(NodeConfig { acl_buffers: 4, acl_octets: 100 }));
    let setup = ConnectionSetup::default();
    let first = radio.connect(Instant::ZERO, nodes[0], nodes[1], &setup).unwrap();
    let second = radio.connect(Instant::ZERO, nodes[0], nodes[2], &setup).unwrap();
    let fragment = Bytes::from_static(&[0; 100]);
    for connection in [first, second, first, second] {
        radio.send(connection, Side::Central, true, fragment.clone()).unwrap();
    }
    assert_eq!(
        radio.send(first, Side::Central, true, fragment.clone()),
        Err(RadioError::BuffersFull { buffers: 4 })
    );
    let long = Bytes::from_static(&[0; 101]);
    let refused = Err(RadioError::FragmentLength { max: 100, actual: 101 });
    assert_eq!(radio.send(first, Side::Peripheral, true, long), refused);
    radio.handle_timeout(Instant::from_micros(100_000));
    assert_eq!(radio.free_buffers(nodes[0]), 4);
}

#[test]
fn connections_of_one_node_share_the_time() {
    let mut radio = Radio::new(1);
    let nodes: Vec<NodeId> =
        (0..4).map(|_| radio.add_node(NodeConfig { acl_buffers: 32, acl_octets: 251 })).collect();
    let setup = setup(Phy::Le2M, 251, Duration::from_millis(30));
    let connections = [1, 2, 3].map(|n| radio.connect(Instant::ZERO, nodes[n], nodes[0], &setup).unwrap());
    let mut octets = [0usize; 3];
    let fragment = Bytes::from_static(&[0; 251]);
    let mut now = Instant::ZERO;
    while now < Instant::from_micros(10_000_000) {
        for (n, connection) in connections.iter().enumerate() {
            while radio.free_buffers(nodes[n + 1]) > 0 {
                radio.send(*connection, Side::Central, true, fragment.clone()).unwrap();
            }
        }
        now = radio.poll_at().unwrap();
        radio.handle_timeout(now);
        while let Some(event) = radio.poll_event() {
            if let RadioEvent::Data { connection, payload, .. } = event {
                octets[connection.index()] += payload.len();
            }
        }
    }
    let total: usize = octets.iter().sum();
    assert!(octets.iter().all(|o| *o > total / 5), "{octets:?}");
    let alone = packets_per_second(&setup, Path::default(), Side::Central, 251).unwrap() * 251.0 * 10.0;
    assert!(total as f64 > alone * 0.85 && (total as f64) < alone * 1.01, "{total} of {alone}");
}

#[test]
fn changes_come_at_their_instant() {
    let mut pair = pair(1, &setup(Phy::Le1M, 27, Duration::from_millis(30)), Path::default());
    let change = Change::Phy { central: Phy::Le2M, peripheral: Phy::Le2M };
    pair.radio.schedule(pair.connection, 6, change).unwrap();
    pair.radio.handle_timeout(Instant::from_micros(140_000));
    assert_eq!(pair.radio.poll_event(), None);
    pair.radio.handle_timeout(Instant::from_micros(155_000));
    assert_eq!(pair.radio.poll_event(), Some(RadioEvent::Changed { connection: pair.connection, change }));
    assert_eq!(pair.radio.event_counter(pair.connection), Some(6));
}

#[test]
fn an_idle_peripheral_sleeps_through_its_latency_and_wakes_to_speak() {
    let mut setup = setup(Phy::Le2M, 251, Duration::from_millis(30));
    setup.parameters.peripheral_latency = 4;
    let mut pair = pair(1, &setup, Path::default());
    pair.radio.handle_timeout(Instant::from_micros(15_000_000));
    let counters = pair.radio.counters(pair.connection).unwrap();
    assert_eq!(counters.events, 500);
    assert!((95..=105).contains(&counters.peripheral.pdus), "{counters:?}");
    let now = Instant::from_micros(15_000_000);
    pair.radio.send(pair.connection, Side::Peripheral, true, Bytes::from_static(b"now")).unwrap();
    pair.radio.handle_timeout(now + Duration::from_millis(35));
    assert!(matches!(pair.radio.poll_event(), Some(RadioEvent::Data { side: Side::Central, .. })));
}

#[test]
fn events_end_by_their_own_limits() {
    let octets = 251;
    let unlimited = setup(Phy::Le2M, octets, Duration::from_millis(30));
    let rate =
        |setup: &ConnectionSetup| packets_per_second(setup, Path::default(), Side::Central, 251).unwrap();
    let counted = ConnectionSetup { exchanges_per_event_max: Some(6), ..unlimited };
    assert!((rate(&counted) - 6.0 / 0.03).abs() < 1.0, "{}", rate(&counted));
    let timed = ConnectionSetup { event_length_max: Some(Duration::from_millis(10)), ..unlimited };
    // 7 exchanges of 1,392 us fit.
    assert!((rate(&timed) - 7.0 / 0.03).abs() < 1.0, "{}", rate(&timed));
    assert!(rate(&unlimited) > 20.0 / 0.03);
}
