//! Whatever the sizes and the limits, both sides come to be equal: no limit on what goes out stops what must come in.

use std::sync::Arc;
use std::time::Duration;

use super::exchange::{active, passive};
use super::for_seeds;
use super::memory_store::MemoryStore;
use super::pair::Pair;
use crate::replicator::config::{ActiveConfig, CollectionConfig, PassiveConfig, ReplicatorType};
use crate::replicator::limits::SessionLimits;
use crate::replicator::session::Session;

/// Seeds of one test run; a failing one is printed.
const SEEDS: u64 = 60;

/// Steps after which a run with its own clock counts as hung.
const STEPS_MAX: u32 = 100_000;

/// A document of about so many bytes that hardly compresses.
fn document(rng: &mut fastrand::Rng, bytes: usize) -> String {
    let text: String = (0..bytes / 11 + 1).map(|_| format!("{:011x}", rng.u64(..1 << 44))).collect();
    format!("{{\"b\":\"{}\"}}", &text[..bytes])
}

/// Mostly small, some beyond what may be unacknowledged, some as large as a message may be.
fn size(rng: &mut fastrand::Rng) -> usize {
    match rng.u8(0..12) {
        0..=5 => rng.usize(0..400),
        6..=8 => rng.usize(0..20_000),
        9 | 10 => rng.usize(0..140_000),
        _ => rng.usize(0..400_000),
    }
}

/// Limits of any size, in a relation that both sides know: what a side lets the peer cause is more than what a peer with
/// such limits asks for.
fn limits(rng: &mut fastrand::Rng) -> SessionLimits {
    let any = |rng: &mut fastrand::Rng, max: usize| {
        let max = rng.usize(1..=max);
        rng.usize(1..=max)
    };
    let (lists, list_bytes) = ((any(rng, 5), any(rng, 64)), any(rng, 64 << 10));
    let reply_bytes_high = any(rng, 20_000);
    SessionLimits {
        send_queue_low: any(rng, 200_000),
        lists_in_flight: lists,
        list_bytes,
        revs_in_flight: (any(rng, 200), any(rng, 1_000)),
        rev_bytes_in_flight: any(rng, 300_000),
        batches_in_flight: (any(rng, 8), any(rng, 64)),
        batch_bytes_in_flight: any(rng, 300_000),
        reply_bytes_high,
        reply_bytes_max: reply_bytes_high + (64 << 10),
        replies_max: 1_200,
        requests_at_once: rng.u32(1..100),
        request_interval: Duration::from_micros(rng.u64(1..5_000)),
        held_requests_bytes_max: 64 * (66 << 10),
        commit_queue_bytes_max: any(rng, 300_000),
        commit_queue_revisions_max: any(rng, 1_000),
    }
}

fn one_seed(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let names: Vec<String> = (0..rng.usize(1..5)).map(|n| format!("c.n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let a = Arc::new(MemoryStore::with_collections(1, &names));
    let p = Arc::new(MemoryStore::with_collections(2, &names));
    for (store, who) in [(&a, "a"), (&p, "p")] {
        let mut left = 1_200_000usize;
        for n in 0..rng.usize(0..300) {
            let bytes = size(&mut rng).min(left);
            left -= bytes;
            store.put_in(rng.usize(0..names.len()), &format!("{who}{n}"), &document(&mut rng, bytes));
        }
    }
    let extension = rng.bool();
    let mut config = active(ReplicatorType::PushAndPull, extension);
    let mut answering = passive(extension);
    config.collections = names.iter().map(|name| CollectionConfig::new(*name)).collect();
    answering.collections = names.iter().map(|name| (*name).to_owned()).collect();
    for blip in [&mut config.blip, &mut answering.blip] {
        blip.compression_level = if rng.u8(0..5) == 0 { 6 } else { 0 };
        // Room for one document of the largest size, and little more.
        blip.message_size_max = 500_000;
        blip.open_bytes_max = rng.usize(1_000_000..4_000_000);
    }
    let asking = Session::active(config).with_limits(limits(&mut rng));
    let answering = Session::passive(answering).with_limits(limits(&mut rng));
    let mut pair = Pair::of(seed, asking, answering, &a, &p).without_events();
    pair.pipe_frames = rng.usize(1..40);
    pair.commit_steps = rng.u32(0..30);
    pair.run_for(Duration::from_secs(100));
    assert_eq!(pair.a.finished, Some(Ok(())), "both make progress to the end");
    for n in 0..names.len() {
        assert!(a.dump(n) == p.dump(n), "collection {n} is equal");
    }
}

#[test]
fn any_sizes_and_any_limits_end_equal() {
    for_seeds(SEEDS, one_seed);
}

/// The usual limits, documents as large as a message may carry, both ways at once and in two collections.
#[test]
fn documents_of_many_megabytes_go_both_ways_at_once() {
    for extension in [false, true] {
        let names = ["c.a", "c.b"];
        let a = Arc::new(MemoryStore::with_collections(1, &names));
        let p = Arc::new(MemoryStore::with_collections(2, &names));
        for (store, who) in [(&a, "a"), (&p, "p")] {
            for (n, mebibytes) in [5, 10, 19].into_iter().enumerate() {
                let body = format!("{{\"b\":\"{}\"}}", who.repeat(mebibytes << 20));
                store.put_in(n % 2, &format!("{who}{n}"), &body);
                store.put_in(1, &format!("{who}-small-{n}"), "{}");
            }
        }
        let mut config = active(ReplicatorType::PushAndPull, extension);
        let mut answering = passive(extension);
        config.collections = names.iter().map(|name| CollectionConfig::new(*name)).collect();
        answering.collections = names.iter().map(|name| (*name).to_owned()).collect();
        config.blip.compression_level = 0;
        answering.blip.compression_level = 0;
        let mut pair = Pair::new(1, config, answering, &a, &p).without_events();
        pair.run().expect("a clean end");
        assert!((0..2).all(|n| a.dump(n) == p.dump(n)), "extension {extension}");
    }
}

/// One document at 2 s a frame takes longer than a request may wait for its reply: what counts is the last frame.
#[test]
fn a_document_that_takes_long_on_its_way_is_not_given_up() {
    for (extension, direction) in [(false, ReplicatorType::Push), (true, ReplicatorType::Pull)] {
        let (a, p) = (Arc::new(MemoryStore::new(1)), Arc::new(MemoryStore::new(2)));
        let from = if direction.pushes() { &a } else { &p };
        from.put("large", &document(&mut fastrand::Rng::with_seed(1), 6_000_000));
        let config = ActiveConfig { direction, extension, ..ActiveConfig::default() };
        let answering = PassiveConfig { extension, ..PassiveConfig::default() };
        let waits = config.reply_timeout * crate::replicator::config::REPLY_TIMEOUT_FACTOR;
        let mut pair = Pair::new(1, config, answering, &a, &p).without_events();
        let (began, mut frames, mut steps) = (pair.now, 0, 0);
        while pair.a.finished.is_none() {
            pair.step();
            pair.now = pair.now + Duration::from_secs(2) * (pair.frames - frames) as u32;
            frames = pair.frames;
            pair.handle_due();
            steps += 1;
            assert!(steps < STEPS_MAX, "no end in sight");
        }
        assert_eq!(pair.a.finished, Some(Ok(())));
        assert!(pair.now.since(began) > waits, "it took {:?}", pair.now.since(began));
        assert_eq!(a.dump(0), p.dump(0));
    }
}
