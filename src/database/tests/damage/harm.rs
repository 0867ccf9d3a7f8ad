//! Makes databases, harms copies of them, and compares what they say with what they were told.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::database::{Database, DatabaseConfig, DatabaseError};
use crate::replica::store::ReplicaStore;

/// What a database was told, so that what it says later can be judged.
#[derive(Clone, Default)]
pub(super) struct Told {
    /// By collection and ID all bodies it ever had, the newest last; `None` is a deletion.
    pub(super) history: BTreeMap<(String, String), Vec<Option<Value>>>,
}

impl Told {
    pub(super) fn newest(&self, collection: &str) -> impl Iterator<Item = (&String, &Value)> {
        let newest = self.history.iter().filter(move |((name, _), _)| name == collection);
        newest.filter_map(|((_, id), bodies)| bodies.last()?.as_ref().map(|body| (id, body)))
    }
}

pub(super) const COLLECTIONS: [&str; 3] = ["_default", "plant.readings", "field"];

/// A database with some sessions behind it: documents saved again and again, tombstones, checkpoints, maybe a compaction.
pub(super) fn build(directory: &Path, random: &mut fastrand::Rng) -> Told {
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
pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
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

pub(super) fn copy(from: &Path, to: &Path) {
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

pub(super) const PAGE: usize = 4096;
pub(super) const SEGMENT: usize = 128 * 1024;

/// Does what a failing medium does to a file; says what.
pub(super) fn harm(path: &Path, random: &mut fastrand::Rng) -> String {
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
pub(super) struct Seen {
    /// It could not be opened, or some reading failed.
    pub(super) failed: bool,
    /// How.
    pub(super) errors: Vec<String>,
    /// Readings that gave something else than what was told.
    pub(super) wrong: Vec<String>,
    pub(super) reported: bool,
}

/// Opens a damaged database and reads everything in every way.
pub(super) fn look(directory: &Path, told: &Told, accepts_older: bool) -> Seen {
    let mut seen = Seen::default();
    match Database::check(directory) {
        Ok(report) => seen.reported = !report.is_sound(),
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

/// Runs in a thread of its own, so that a loop that never ends is a failure with a name;
/// what hangs is kept.
pub(super) fn within_limits<T: Send + 'static>(
    what: &str,
    directory: &Path,
    run: impl FnOnce() -> T + Send + 'static,
) -> T {
    const TIME_MAX: Duration = Duration::from_secs(60);
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(run()));
    match receiver.recv_timeout(TIME_MAX) {
        Ok(result) => result,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
            let kept = std::env::temp_dir().join(format!("gattway-hangs-{}", std::process::id()));
            copy(directory, &kept);
            panic!("hangs: {what}; the database as it is now is kept in {}", kept.display())
        }
        Err(_) => panic!("{what}: {:?}", thread.join().map(drop)),
    }
}

/// Where many small databases can be made without wearing out a disk.
pub(super) fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

/// Cases of a part of a property; `GATTWAY_TEST_DAMAGE_CASES` asks the first part for others, `GATTWAY_TEST_DAMAGE_SEED` for one.
///
/// A part is a test, so that parts run side by side.
pub(super) fn seeds(part: RangeInclusive<u64>) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, last) = part.into_inner();
    match (number("GATTWAY_TEST_DAMAGE_SEED"), number("GATTWAY_TEST_DAMAGE_CASES")) {
        (Some(seed), _) if first == 1 => seed..seed + 1,
        (None, Some(cases)) if first == 1 => 1..cases + 1,
        (None, None) => first..last + 1,
        _ => first..first,
    }
}

/// Each database is damaged so many times, always from its whole state.
pub(super) const CASES_A_DATABASE: u64 = 24;

/// Harms copies of a database and looks at what they say.
pub(super) fn harm_and_look(seeds: Range<u64>, was_closed: bool, mut judge: impl FnMut(u64, &str, &Seen)) {
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
        let seen = within_limits(&what, &harmed, move || look(&directory, &told, !was_closed));
        judge(seed, &what, &seen);
    }
}
