//! What a database takes on stable storage while the same documents are saved again and again.

use serde_json::json;

use super::Fixture;

const DOCUMENTS: u64 = 200;
const ROUNDS: u64 = 150;

/// Words of 16 characters in each document.
const TEXT_WORDS: usize = 25;

/// Bytes of all files for each byte of JSON, once the log is reused, at most; and what every database takes.
const GROWTH_MAX: u64 = 3;
const BASE_BYTES: u64 = 1 << 20;

/// One writer, one commit a round: old segments of the log are used again, so the files stay within a bound that has
/// nothing to do with the number of rounds; a compaction brings them near what is needed.
#[test]
fn updates_do_not_make_it_grow() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    // Random, so that nothing of it is deflated away but the half that hexadecimal digits waste.
    let text = |round: u64, n: u64| {
        let mut random = fastrand::Rng::with_seed(round * DOCUMENTS + n);
        (0..TEXT_WORDS).map(|_| format!("{:016x}", random.u64(..))).collect::<String>()
    };
    let json_bytes = DOCUMENTS * (text(0, 0).len() as u64 + 40);
    let mut sizes = Vec::new();
    for round in 0..ROUNDS {
        let save = |batch: &mut crate::database::Batch| {
            (0..DOCUMENTS).try_for_each(|n| {
                let body = json!({"round": round, "text": text(round, n)});
                batch.put(&collection, &format!("d{n:03}"), body.as_object().expect("an object"))
            })
        };
        database.batch(save).expect("room");
        sizes.push(database.info().expect("info").disk_bytes);
    }
    let (middle, most) = (sizes[ROUNDS as usize / 3], sizes.iter().copied().max().unwrap_or(0));
    println!(
        "{json_bytes} bytes of JSON, {} after one round, {middle} after a third, {most} at most",
        sizes[0]
    );
    assert!(most <= BASE_BYTES + GROWTH_MAX * json_bytes, "{most} bytes for {json_bytes} of JSON");
    let (_, compacted) = database.compact().expect("room");
    println!("{compacted} after a compaction");
    assert!(compacted <= BASE_BYTES / 8 + json_bytes, "{compacted} bytes for {json_bytes} of JSON");
    assert!(database.verify().expect("verify").is_sound());
    assert_eq!(database.default_collection().expect("default").count(), DOCUMENTS);
}

/// A block is written anew when half of it is dead, and not before; also after a restart, when nobody knows how much was.
#[test]
fn half_of_a_block_may_be_dead() {
    for (changed, dead) in [(1, 1), (19, 19), (20, 0), (30, 0), (40, 0)] {
        let fixture = Fixture::new();
        let put = |count: u32, n: u32| {
            let database = fixture.open();
            let collection = database.default_collection().expect("default");
            let save = |batch: &mut crate::database::Batch| {
                (0..count).try_for_each(|id| batch.put(&collection, &format!("d{id}"), &json!({ "n": n })))
            };
            database.batch(save).expect("room");
            database.verify().expect("verify")
        };
        assert_eq!(put(40, 1).blocks, 1);
        let report = put(changed, 2);
        assert_eq!((report.documents, report.dead_records), (40, dead), "{changed} of 40: {report:?}");
    }
}
