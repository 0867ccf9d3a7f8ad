//! What a first push of real sensor records costs.

use std::sync::Arc;

use super::memory_store::MemoryStore;
use super::pair::Pair;
use crate::replicator::config::{ActiveConfig, PassiveConfig, ReplicatorType};
use crate::replicator::extension::RevsFormat;

/// Hourly records of a weather station; see `hw-tests/data/README.md`.
const RECORDS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/hw-tests/data/seattle-weather-hourly-normals.csv");

/// Most bytes a record may cost, both directions, at the level of BLIP frames: folded, as earlier releases send it, and with the
/// messages of Couchbase Lite.
const FOLDED_MAX: f64 = 0.7;
const PLAIN_MAX: f64 = 7.6;
const STOCK_MAX: f64 = 50.0;

fn weather(store: &MemoryStore) -> usize {
    let text = std::fs::read_to_string(RECORDS).expect("the sample data is in the repository");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let mut count = 0;
    for line in lines {
        let values: Vec<&str> = line.split(',').collect();
        let body = format!(
            r#"{{"{}":"{}","{}":{},"{}":{},"{}":{}}}"#,
            names[0], values[0], names[1], values[1], names[2], values[2], names[3], values[3]
        );
        store.put(values[0], &body);
        count += 1;
    }
    count
}

/// Frames and bytes of a first sync, from the active side and to it, and records.
fn first_sync(direction: ReplicatorType, formats: Option<[RevsFormat; 2]>) -> (u64, [u64; 2], usize) {
    let (a, p) = (Arc::new(MemoryStore::new(1)), Arc::new(MemoryStore::new(2)));
    let count = weather(if direction.pushes() { &a } else { &p });
    let [of_active, of_passive] = formats.unwrap_or_default();
    let config = ActiveConfig {
        extension: formats.is_some(),
        revs_format: of_active,
        direction,
        report_documents: false,
        peer_uid: "p".into(),
        ..ActiveConfig::default()
    };
    let passive = PassiveConfig {
        extension: formats.is_some(),
        revs_format: of_passive,
        report_documents: false,
        ..PassiveConfig::default()
    };
    let mut pair = Pair::new(1, config, passive, &a, &p).without_events();
    pair.run().expect("a clean end");
    assert_eq!(a.dump(0), p.dump(0));
    (pair.frames, [pair.a.bytes_out, pair.p.bytes_out], count)
}

#[test]
fn a_first_push_of_weather_records() {
    for (formats, most) in [
        (Some([RevsFormat::Folded; 2]), FOLDED_MAX),
        (Some([RevsFormat::TreeIds; 2]), PLAIN_MAX),
        (None, STOCK_MAX),
    ] {
        for direction in [ReplicatorType::PushAndPull, ReplicatorType::Pull] {
            let (frames, bytes, count) = first_sync(direction, formats);
            let each = (bytes[0] + bytes[1]) as f64 / count as f64;
            println!("{direction:?} {formats:?}: {bytes:?} bytes, {each:.2} a record, {frames} frames");
            assert!(each <= most, "{each:.2} bytes a record");
        }
    }
}

/// A gattway of an earlier release is sent what it always was, whichever side it is on and whoever sends.
#[test]
fn an_older_peer_gets_what_it_always_got() {
    for old in [RevsFormat::Versions, RevsFormat::TreeIds] {
        for direction in [ReplicatorType::PushAndPull, ReplicatorType::Pull] {
            let among_themselves = first_sync(direction, Some([old; 2]));
            for formats in [[old, RevsFormat::Folded], [RevsFormat::Folded, old]] {
                assert_eq!(
                    first_sync(direction, Some(formats)),
                    among_themselves,
                    "{direction:?} {formats:?}"
                );
            }
        }
    }
}
