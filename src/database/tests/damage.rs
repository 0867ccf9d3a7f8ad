//! A damaged database gives a typed error or a report, never a panic.

use serde_json::json;

use super::Fixture;
use crate::database::{DatabaseConfig, DatabaseError};

#[test]
fn damage_is_an_error() {
    let mut noticed = 0;
    for seed in 1..=30u64 {
        let fixture = Fixture::new();
        let mut random = fastrand::Rng::with_seed(seed);
        {
            let database = fixture.open();
            let collection = database.default_collection().expect("default");
            for part in 0..30 {
                let text: String = (0..100).map(|_| random.alphanumeric()).collect();
                let ids: Vec<String> = (0..50).map(|n| format!("document-{part}-{n}")).collect();
                let put = |id: &String, b: &mut crate::database::Batch| {
                    b.put(&collection, id, &json!({"text": text}))
                };
                database.batch(|b| ids.iter().try_for_each(|id| put(id, b))).expect("batch");
            }
        }
        let log = fixture.directory.path().join("db/log-000001/db");
        let mut bytes = std::fs::read(&log).expect("the log");
        for _ in 0..random.usize(1..20) {
            let at = random.usize(0..bytes.len());
            let len = random.usize(1..5000).min(bytes.len() - at);
            bytes[at..at + len].iter_mut().for_each(|b| *b = random.u8(..));
        }
        if random.bool() {
            bytes.truncate(random.usize(0..bytes.len()));
        }
        std::fs::write(&log, bytes).expect("write");
        // Whatever happens, it is told in a typed way.
        match fixture.try_open(DatabaseConfig::default()) {
            Err(_) => noticed += 1,
            Ok(database) => {
                let sound = database.verify().is_ok_and(|report| report.is_sound());
                let collection = database.default_collection();
                let all = collection.is_ok_and(|c| c.iter().filter(|d| d.is_ok()).count() == 1500);
                noticed += usize::from(!sound || !all);
            }
        }
    }
    assert!(noticed > 20, "only {noticed} of 30 damaged databases were noticed");
}

#[test]
fn a_newer_format_and_foreign_files_are_told_apart() {
    let fixture = Fixture::new();
    let directory = fixture.directory.path().join("db");
    std::fs::create_dir(&directory).expect("create");
    std::fs::write(directory.join("holiday.jpg"), "").expect("write");
    assert!(matches!(fixture.try_open(DatabaseConfig::default()), Err(DatabaseError::NotADatabase { .. })));
    std::fs::remove_file(directory.join("holiday.jpg")).expect("remove");
    let missing = DatabaseConfig { create: false, ..DatabaseConfig::default() };
    assert!(matches!(fixture.try_open(missing), Err(DatabaseError::NotADatabase { .. })));
    drop(fixture.open());
    let set_format = |format: u32| {
        let log = sled::Config::new()
            .path(directory.join("log-000001"))
            .segment_size(128 * 1024)
            .open()
            .expect("sled");
        let mut meta = log.get(b"m").expect("read").expect("there").to_vec();
        meta[0] = u8::try_from(format).expect("a small number");
        log.insert(b"m", meta).expect("write");
        log.flush().expect("flush");
    };
    std::thread::sleep(std::time::Duration::from_millis(100));
    set_format(2);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let error = fixture.try_open(DatabaseConfig::default()).map(drop);
    assert!(matches!(error, Err(DatabaseError::NewerFormat { found: 2, supported: 1, .. })), "{error:?}");
}
