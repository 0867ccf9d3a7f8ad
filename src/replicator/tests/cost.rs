//! What a first push of real sensor records costs.

use std::sync::Arc;

use super::memory_store::MemoryStore;
use super::pair::Pair;
use crate::replicator::config::{ActiveConfig, PassiveConfig, ReplicatorType};

/// Hourly records of a weather station; see `hw-tests/data/README.md`.
const RECORDS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/hw-tests/data/seattle-weather-hourly-normals.csv");

/// Most bytes a record may cost, both directions, at the level of BLIP frames.
const BYTES_PER_RECORD_MAX: f64 = 14.0;

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

#[test]
fn a_first_push_of_weather_records() {
    for (extension, most) in [(true, BYTES_PER_RECORD_MAX), (false, 80.0)] {
        for direction in [ReplicatorType::PushAndPull, ReplicatorType::Pull] {
            let (a, p) = (Arc::new(MemoryStore::new(1)), Arc::new(MemoryStore::new(2)));
            let count = weather(if direction.pushes() { &a } else { &p });
            let config = ActiveConfig {
                extension,
                direction,
                report_documents: false,
                peer_uid: "p".into(),
                ..ActiveConfig::default()
            };
            let passive = PassiveConfig { extension, report_documents: false, ..PassiveConfig::default() };
            let mut pair = Pair::new(1, config, passive, &a, &p).without_events();
            pair.run().expect("a clean end");
            assert_eq!(a.dump(0), p.dump(0));
            let bytes = (pair.a.bytes_out, pair.p.bytes_out);
            let each = (bytes.0 + bytes.1) as f64 / count as f64;
            println!(
                "{direction:?} extension {extension}: {bytes:?} bytes, {each:.2} a record, {} frames",
                pair.frames
            );
            assert!(each <= most, "{each:.2} bytes a record");
        }
    }
}
