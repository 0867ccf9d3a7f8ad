//! A damaged database gives what was saved, or a typed error and a report: never anything else, never a panic or a hang.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Fixture;
use crate::database::{Database, DatabaseConfig, DatabaseError};
use crate::replicator::store::ReplicaStore;

/// What a database was told, so that what it says later can be judged.
#[derive(Clone, Default)]
struct Told {
    /// By collection and ID all bodies it ever had, the newest last; `None` is a deletion.
    history: BTreeMap<(String, String), Vec<Option<Value>>>,
}

impl Told {
    fn newest(&self, collection: &str) -> impl Iterator<Item = (&String, &Value)> {
        let newest = self.history.iter().filter(move |((name, _), _)| name == collection);
        newest.filter_map(|((_, id), bodies)| bodies.last()?.as_ref().map(|body| (id, body)))
    }
}

const COLLECTIONS: [&str; 3] = ["_default", "plant.readings", "field"];

/// A database with some sessions behind it: documents saved again and again, tombstones, checkpoints, maybe a compaction.
fn build(directory: &Path, random: &mut fastrand::Rng) -> Told {
    let mut told = Told::default();
    for session in 0..random.usize(1..4) {
        let database = Database::open(directory, DatabaseConfig::default()).expect("open");
        for _ in 0..random.usize(5..60) {
            let name = COLLECTIONS[random.usize(0..COLLECTIONS.len())];
            let collection = database.create_collection(name).expect("create");
            let count = if random.u8(..) < 200 { random.usize(1..40) } else { 200 };
            let len = if random.u8(..) < 5 { random.usize(0..60_000) } else { random.usize(0..400) };
            let text: String = (0..len).map(|_| random.alphanumeric()).collect();
            let edits = (0..count).map(|n| {
                let id = format!("document-{}", random.u32(0..400));
                let body = (random.u8(..) >= 30).then(|| json!({"session": session, "n": n, "text": text}));
                (id, body)
            });
            let edits: Vec<(String, Option<Value>)> = edits.collect();
            let stage = |batch: &mut crate::database::Batch| {
                edits.iter().try_for_each(|(id, body)| match body {
                    Some(body) => batch.put(&collection, id, body),
                    None => batch.delete(&collection, id),
                })
            };
            database.batch(stage).expect("batch");
            for (id, body) in edits {
                told.history.entry((name.to_owned(), id)).or_default().push(body);
            }
            if random.u8(..) < 60 {
                let key = ReplicaStore::collection(&database, name).expect("there");
                let client = format!("client-{}", random.u8(0..3));
                let old = database.checkpoint(key, &client).expect("read").map(|c| c.revision);
                let body = Bytes::from(vec![b'x'; random.usize(0..300)]);
                database.set_checkpoint(key, &client, old.as_deref(), body).expect("store").expect("no race");
            }
        }
        if random.u8(..) < 60 {
            database.compact().expect("compact");
        }
    }
    told
}

/// Files of a database that hold something.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if std::fs::metadata(&path).expect("there").len() > 0 {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copy");
        }
    }
}

const PAGE: usize = 4096;
const SEGMENT: usize = 128 * 1024;

/// Does what a failing medium does to a file; says what.
fn harm(path: &Path, random: &mut fastrand::Rng) -> String {
    let mut bytes = std::fs::read(path).expect("read");
    let len = bytes.len();
    let pick = |random: &mut fastrand::Rng, unit: usize| random.usize(0..len.div_ceil(unit)) * unit;
    let done = match random.u8(0..8) {
        0 | 1 => {
            let count = random.usize(1..4);
            let places: Vec<usize> = (0..count).map(|_| random.usize(0..len)).collect();
            places.iter().for_each(|&at| bytes[at] ^= 1 << random.u8(0..8));
            format!("flipped bits at {places:?}")
        }
        2 => {
            bytes.truncate(random.usize(0..len));
            format!("cut to {}", bytes.len())
        }
        3 => {
            let at = pick(random, PAGE);
            bytes[at..(at + PAGE).min(len)].fill(if random.bool() { 0 } else { 0xff });
            format!("emptied the page at {at}")
        }
        4 => {
            let (from, to) = (pick(random, PAGE), pick(random, PAGE));
            let page = bytes[from..(from + PAGE).min(len)].to_vec();
            let end = (to + page.len()).min(len);
            bytes[to..end].copy_from_slice(&page[..end - to]);
            format!("page {from} over page {to}")
        }
        5 => {
            let (from, to) = (pick(random, SEGMENT), pick(random, SEGMENT));
            let len = SEGMENT.min(len - from).min(len - to);
            let (one, other) = (bytes[from..from + len].to_vec(), bytes[to..to + len].to_vec());
            bytes[from..from + len].copy_from_slice(&other);
            if random.bool() {
                bytes[to..to + len].copy_from_slice(&one);
            }
            format!("segment {from} and segment {to}")
        }
        6 => {
            let at = pick(random, SEGMENT);
            bytes[at..(at + SEGMENT).min(len)].fill(0);
            format!("emptied the segment at {at}")
        }
        _ => {
            let at = random.usize(0..len);
            let end = (at + random.usize(1..5000)).min(len);
            bytes[at..end].iter_mut().for_each(|byte| *byte = random.u8(..));
            format!("noise from {at} to {end}")
        }
    };
    std::fs::write(path, bytes).expect("write");
    format!("{}: {done}", path.file_name().expect("a name").to_string_lossy())
}

/// What became of one damaged database.
#[derive(Debug, Default)]
struct Seen {
    /// It could not be opened, or some reading failed.
    failed: bool,
    /// How.
    errors: Vec<String>,
    /// Readings that gave something else than what was told.
    wrong: Vec<String>,
    reported: bool,
    /// All that is wrong is one the database mends itself.
    mended: bool,
}

/// Opens a damaged database and reads everything in every way.
fn look(directory: &Path, told: &Told, accepts_older: bool) -> Seen {
    let mut seen = Seen::default();
    match Database::check(directory) {
        Ok(report) => {
            seen.reported = !report.is_sound();
            seen.mended =
                report.listed.is_empty() && report.damage.iter().all(|damage| damage.file.ends_with("conf"));
        }
        Err(_) => seen.reported = true,
    }
    let config = DatabaseConfig { create: false, ..DatabaseConfig::default() };
    let database = match Database::open(directory, config) {
        Ok(database) => database,
        Err(error) => {
            seen.failed = true;
            seen.errors.push(error.to_string());
            return seen;
        }
    };
    for name in COLLECTIONS {
        let Some(collection) = database.collection(name) else {
            if told.newest(name).next().is_some() && !accepts_older {
                seen.wrong.push(format!("no collection {name}"));
            }
            continue;
        };
        let is_right = |id: &str, body: Option<&Value>| {
            let Some(bodies) = told.history.get(&(name.to_owned(), id.to_owned())) else {
                return body.is_none();
            };
            let newest = bodies.last().and_then(Option::as_ref);
            newest == body
                || accepts_older && (body.is_none() || bodies.iter().any(|old| old.as_ref() == body))
        };
        let mut read = |how: &str, id: &str, result: Result<Option<Value>, DatabaseError>| match result {
            Ok(body) if !is_right(id, body.as_ref()) => seen.wrong.push(format!("{how} of {name} {id}")),
            Ok(_) => {}
            Err(error) => {
                seen.failed = true;
                seen.errors.push(error.to_string());
            }
        };
        for (of, id) in told.history.keys() {
            if of == name {
                let document = collection.get(id).map(|d| d.map(|d| Value::Object(d.into_body())));
                read("get", id, document);
            }
        }
        let (mut all, mut whole) = (0, true);
        for document in collection.iter() {
            match document {
                Ok(document) => {
                    all += 1;
                    let id = document.id().to_owned();
                    read("iter", &id, Ok(Some(Value::Object(document.into_body()))));
                }
                Err(error) => {
                    whole = false;
                    read("iter", "", Err(error));
                }
            }
        }
        let expected = told.newest(name).count();
        if whole && all != expected && !accepts_older {
            seen.wrong.push(format!("iter of {name}: {all} of {expected}"));
        }
        let key = ReplicaStore::collection(&database, name).expect("there");
        let (mut after, mut changes) = (0, 0);
        loop {
            match database.changes(key, after, 200, true) {
                Ok(found) if found.is_empty() => break,
                Ok(found) => {
                    for change in found {
                        after = change.sequence;
                        changes += usize::from(!change.deleted);
                        let body = change.body.and_then(|body| serde_json::from_slice(&body).ok());
                        let body = if change.deleted { None } else { body };
                        let mut read = |id: &str, body: Option<&Value>| {
                            if !is_right(id, body) {
                                seen.wrong.push(format!("feed of {name} {id}"));
                            }
                        };
                        read(&change.id, body.as_ref());
                    }
                }
                Err(error) => {
                    seen.failed = true;
                    seen.errors.push(error.message);
                    changes = expected;
                    break;
                }
            }
        }
        if changes != expected && !accepts_older {
            seen.wrong.push(format!("feed of {name}: {changes} of {expected}"));
        }
    }
    seen
}

/// Runs in a thread of its own, so that a loop that never ends is a failure with a name.
fn within_limits<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    const TIME_MAX: Duration = Duration::from_secs(60);
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(run()));
    match receiver.recv_timeout(TIME_MAX) {
        Ok(result) => result,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("hangs: {what}"),
        Err(_) => panic!("{what}: {:?}", thread.join().map(drop)),
    }
}

/// Where many small databases can be made without wearing out a disk.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

/// Cases of each property; `GATTWAY_TEST_DAMAGE_CASES` asks for others, `GATTWAY_TEST_DAMAGE_SEED` for one.
fn seeds(default: u64) -> std::ops::RangeInclusive<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("GATTWAY_TEST_DAMAGE_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("GATTWAY_TEST_DAMAGE_CASES").unwrap_or(default),
    }
}

/// Each database is damaged so many times, always from its whole state.
const CASES_A_DATABASE: u64 = 24;

/// Harms copies of a database and looks at what they say.
fn harm_and_look(
    seeds: std::ops::RangeInclusive<u64>,
    was_closed: bool,
    mut judge: impl FnMut(u64, &str, &Seen),
) {
    let place = directory();
    let (whole, harmed) = (place.path().join("whole"), place.path().join("harmed"));
    let mut built = None;
    for seed in seeds {
        let base = (seed - 1) / CASES_A_DATABASE;
        if built.as_ref().is_none_or(|(other, _)| *other != base) {
            let _ = std::fs::remove_dir_all(&whole);
            let told = build(&whole, &mut fastrand::Rng::with_seed(base ^ 0xda3a));
            if !was_closed {
                for file in files(&whole).into_iter().filter(|file| file.ends_with("seal")) {
                    std::fs::remove_file(file).expect("remove");
                }
            }
            built = Some((base, told));
        }
        let Some((_, told)) = &built else { continue };
        let mut random = fastrand::Rng::with_seed(seed);
        let _ = std::fs::remove_dir_all(&harmed);
        copy(&whole, &harmed);
        let mut done = Vec::new();
        let all = files(&harmed);
        let log = all.iter().find(|file| file.ends_with("db")).expect("a log").clone();
        if random.u8(..) < 16 {
            let file = &all[random.usize(0..all.len())];
            // That the seal is gone is what a crash leaves, and can be told from nothing else.
            std::fs::remove_file(file).expect("remove");
            done.push(format!("removed {}", file.display()));
        } else {
            for _ in 0..if random.u8(..) < 200 { 1 } else { random.usize(2..4) } {
                let file = if random.u8(..) < 180 { &log } else { &all[random.usize(0..all.len())] };
                if std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > 0) {
                    done.push(harm(file, &mut random));
                }
            }
        }
        let what = format!("seed {seed}: {}", done.join("; "));
        let (directory, told) = (harmed.clone(), told.clone());
        let seen = within_limits(&what, move || look(&directory, &told, !was_closed));
        judge(seed, &what, &seen);
    }
}

/// Of a database that was closed in order, every damage is seen: what is read is what was saved last, or an error.
#[test]
fn nothing_damaged_is_served() {
    let (mut cases, mut failed, mut harmless) = (0, 0, 0);
    harm_and_look(seeds(600), true, |_, what, seen| {
        cases += 1;
        assert!(seen.wrong.is_empty(), "{what}: {:?}", &seen.wrong[..seen.wrong.len().min(5)]);
        assert!(
            seen.reported || !seen.failed,
            "{what}: reading fails, and verify says nothing: {:?}",
            seen.errors.first()
        );
        failed += usize::from(seen.failed);
        harmless += usize::from(!seen.reported);
        assert!(seen.failed || !seen.reported || seen.mended || cases > 0, "{what}");
    });
    println!("{cases} cases: {failed} refused or read in part, {harmless} in places without content");
    assert!(cases < 100 || failed * 3 > cases, "only {failed} of {cases} did any harm");
}

/// Of each damaged database that is refused or reported, what is whole is saved: each document is what was saved last or
/// is named as lost or doubtful, and the new database is sound.
#[test]
fn what_is_whole_is_saved() {
    let (mut cases, mut documents, mut lost) = (0, 0, 0);
    // Documents, and those lost, where only bits were flipped.
    let mut small = (0, 0);
    let place = directory();
    let (whole, harmed, saved) =
        (place.path().join("whole"), place.path().join("harmed"), place.path().join("saved"));
    for seed in seeds(40) {
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
    assert!(small.1 * 10 < small.0 || cases < 30, "flipped bits cost {} of {} documents", small.1, small.0);
}

/// After a crash the end of the log may be torn; whatever else is damaged, what is read was saved once.
#[test]
fn nothing_made_up_is_served_after_a_crash() {
    let mut cases = 0;
    harm_and_look(seeds(200), false, |_, what, seen| {
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
    set_format(2);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let error = fixture.try_open(DatabaseConfig::default()).map(drop);
    assert!(matches!(error, Err(DatabaseError::NewerFormat { found: 2, supported: 1, .. })), "{error:?}");
}
