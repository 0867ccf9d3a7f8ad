//! A damaged database gives what was saved, or a typed error and a report: never anything else, never a panic or a hang.

use std::ops::RangeInclusive;

use serde_json::Value;

mod harm;

use self::harm::*;
use super::Fixture;
use crate::database::{Database, DatabaseConfig, DatabaseError};

/// Of a database that was closed in order, every damage is seen: what is read is what was saved last, or an error.
#[test]
fn nothing_damaged_is_served() {
    look_at_closed(1..=24);
}

#[test]
fn nothing_damaged_is_served_to_144() {
    look_at_closed(25..=144);
}

#[test]
fn nothing_damaged_is_served_to_288() {
    look_at_closed(145..=288);
}

#[test]
fn nothing_damaged_is_served_to_360() {
    look_at_closed(289..=360);
}

fn look_at_closed(part: RangeInclusive<u64>) {
    let (mut cases, mut failed, mut harmless) = (0, 0, 0);
    harm_and_look(seeds(part), true, |_, what, seen| {
        cases += 1;
        assert!(seen.wrong.is_empty(), "{what}: {:?}", &seen.wrong[..seen.wrong.len().min(5)]);
        assert!(
            seen.reported || !seen.failed,
            "{what}: reading fails, and verify says nothing: {:?}",
            seen.errors.first()
        );
        failed += usize::from(seen.failed);
        harmless += usize::from(!seen.reported);
    });
    println!("{cases} cases: {failed} refused or read in part, {harmless} in places without content");
    assert!(cases < 100 || failed * 3 > cases, "only {failed} of {cases} did any harm");
}

/// Of each damaged database that is refused or reported, what is whole is saved: each document is what was saved last or
/// is named as lost or doubtful, and the new database is sound.
#[test]
fn what_is_whole_is_saved() {
    save_what_is_whole(1..=6);
}

#[test]
fn what_is_whole_is_saved_to_40() {
    save_what_is_whole(7..=40);
}

fn save_what_is_whole(part: RangeInclusive<u64>) {
    let (mut cases, mut documents, mut lost) = (0, 0, 0);
    // Documents, and those lost, where only bits were flipped.
    let mut small = (0, 0);
    let place = directory();
    let (whole, harmed, saved) =
        (place.path().join("whole"), place.path().join("harmed"), place.path().join("saved"));
    for seed in seeds(part) {
        let mut random = fastrand::Rng::with_seed(seed);
        for directory in [&whole, &harmed, &saved] {
            let _ = std::fs::remove_dir_all(directory);
        }
        let told = build(&whole, &mut random);
        copy(&whole, &harmed);
        let all = files(&harmed);
        let log = all.iter().find(|file| file.ends_with("db")).expect("a log");
        let done =
            harm(if random.u8(..) < 220 { log } else { &all[random.usize(0..all.len())] }, &mut random);
        let before: Vec<Vec<u8>> =
            files(&harmed).iter().map(|file| std::fs::read(file).expect("read")).collect();
        let what = format!("seed {seed}: {done}");
        let report = match Database::repair(&harmed, &saved, |_| ()) {
            Ok(report) => report,
            // Nothing at all is left of it.
            Err(DatabaseError::Damaged { .. })
                if std::fs::metadata(log).map_or(0, |m| m.len()) < 4 * SEGMENT as u64 =>
            {
                continue;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        cases += 1;
        let lost_before = lost;
        let after: Vec<Vec<u8>> =
            files(&harmed).iter().map(|file| std::fs::read(file).expect("read")).collect();
        assert!(before == after, "{what}: the damaged database was changed");
        let sound = Database::check(&saved).expect("check");
        assert!(sound.is_sound(), "{what}: {sound:?}");
        let database = Database::open(&saved, DatabaseConfig::default()).expect("open");
        let named = |names: &[crate::database::DocumentName], collection: &str, id: &str| {
            names.iter().any(|name| name.collection == collection && name.id == id)
        };
        for ((collection, id), bodies) in &told.history {
            let newest = bodies.last().and_then(Option::as_ref);
            let found = database.collection(collection).and_then(|c| c.get(id).expect("readable"));
            let found = found.map(|document| Value::Object(document.into_body()));
            documents += u64::from(found.is_some());
            if found.as_ref() == newest {
                continue;
            }
            lost += 1;
            let is_old = found.is_none() || bodies.contains(&found);
            assert!(is_old, "{what}: {collection} {id} is made up");
            let is_told = if found.is_none() {
                named(&report.lost, collection, id) || !report.ranges.is_empty()
            } else {
                named(&report.unconfirmed, collection, id)
            };
            // A log whose end is gone ends earlier, and nothing tells of what came after but the seal.
            let is_cut = report.damage.iter().any(|damage| {
                damage.what.contains("when it was closed")
                    || damage.what.contains("cut off")
                    || damage.file.ends_with("seal")
            });
            assert!(is_told || is_cut, "{what}: {collection} {id} is missing from {report:?}");
        }
        let mut exported = 0;
        let count = |_| {
            exported += 1;
            Ok(())
        };
        if Database::salvage(&harmed, "_default", count).is_ok() {
            let saved = database.collection("_default").map_or(0, |c| c.count());
            // A document that is there twice unconfirmed is shown once.
            assert_eq!(exported, saved, "{what}");
        }
        if done.contains("flipped") {
            small.0 += told.history.len();
            small.1 += lost - lost_before;
        }
    }
    println!(
        "{cases} cases: {documents} documents saved, {lost} lost or older; by flipped bits {} of {}",
        small.1, small.0
    );
    // A bit costs the record that it is in: nothing in most databases, and up to half of one that was just compacted. Were all that comes after it lost, it
    // would be half on average.
    assert!(small.1 * 4 < small.0 || cases < 30, "flipped bits cost {} of {} documents", small.1, small.0);
}

/// After a crash the end of the log may be torn; whatever else is damaged, what is read was saved once.
#[test]
fn nothing_made_up_is_served_after_a_crash() {
    look_at_crashed(1..=16);
}

#[test]
fn nothing_made_up_is_served_after_a_crash_to_48() {
    look_at_crashed(17..=48);
}

#[test]
fn nothing_made_up_is_served_after_a_crash_to_96() {
    look_at_crashed(49..=96);
}

#[test]
fn nothing_made_up_is_served_after_a_crash_to_144() {
    look_at_crashed(97..=144);
}

fn look_at_crashed(part: RangeInclusive<u64>) {
    let mut cases = 0;
    harm_and_look(seeds(part), false, |_, what, seen| {
        cases += 1;
        assert!(seen.wrong.is_empty(), "{what}: {:?}", &seen.wrong[..seen.wrong.len().min(5)]);
    });
    println!("{cases} cases");
}

#[test]
fn a_newer_format_and_foreign_files_are_told_apart() {
    let fixture = Fixture::new();
    let directory = fixture.directory.path().join("db");
    std::fs::create_dir(&directory).expect("create");
    std::fs::write(directory.join("holiday.jpg"), "").expect("write");
    assert!(matches!(fixture.try_open(DatabaseConfig::default()), Err(DatabaseError::NotADatabase { .. })));
    std::fs::remove_file(directory.join("holiday.jpg")).expect("remove");
    let nothing = fixture.directory.path().join("nothing");
    assert!(matches!(Database::check(&nothing), Err(DatabaseError::NotADatabase { .. })));
    assert!(!nothing.exists(), "a check makes nothing");
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
        let _ = std::fs::remove_file(directory.join("log-000001/seal"));
    };
    std::thread::sleep(std::time::Duration::from_millis(100));
    set_format(3);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let error = fixture.try_open(DatabaseConfig::default()).map(drop);
    assert!(matches!(error, Err(DatabaseError::NewerFormat { found: 3, supported: 2, .. })), "{error:?}");
}
