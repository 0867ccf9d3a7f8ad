//! Concurrent writers: they share syncs, and none sees half of another's batch.

use serde_json::json;

use super::Fixture;

#[test]
fn writers_share_syncs() {
    const WRITERS: usize = 16;
    const SAVES: usize = 60;
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let before = database.info().expect("info");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let collection = &collection;
            scope.spawn(move || {
                for n in 0..SAVES {
                    collection.put(&format!("{writer}-{n}"), &json!({"n": n})).expect("put");
                }
            });
        }
    });
    let after = database.info().expect("info");
    let (commits, syncs) = (after.commits - before.commits, after.syncs - before.syncs);
    assert_eq!(commits, (WRITERS * SAVES) as u64);
    assert_eq!(collection.count(), (WRITERS * SAVES) as u64);
    // How many share one is the scheduler's matter.
    assert!(syncs < commits, "{syncs} syncs for {commits} commits");
}

#[test]
fn a_batch_is_seen_whole_and_readers_never_miss() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let collection = database.default_collection().expect("default");
    let ids: Vec<String> = (0..50).map(|n| format!("d{n}")).collect();
    let put_all = |round: u64| {
        database
            .batch(|b| ids.iter().try_for_each(|id| b.put(&collection, id, &json!({"round": round}))))
            .expect("batch");
    };
    put_all(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut last, mut reads) = (0, 0u64);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for id in &ids {
                    let document = collection.get(id).expect("read").expect("always there");
                    let round = document.body()["round"].as_u64().expect("a number");
                    assert!(round >= last, "{id} went back from round {last} to {round}");
                    last = round;
                    reads += 1;
                }
                assert_eq!(collection.iter().filter(|d| d.is_ok()).count(), ids.len());
            }
            reads
        });
        for round in 1..200 {
            put_all(round);
            if round % 50 == 0 {
                database.compact().expect("compact");
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().expect("reader") > 0);
    });
    assert!(database.verify().expect("verify").is_sound());
}
