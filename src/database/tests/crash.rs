//! What was acknowledged is there after SIGKILL, after a power cut, after a full disk.
//!
//! A test starts itself again as the process that writes; the environment tells it so.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::Fixture;
use crate::database::{Collection, Database, DatabaseConfig, DatabaseError, Durability};

/// Tells the child where its database is.
const DIRECTORY_VARIABLE: &str = "GATTWAY_TEST_CRASH_DIRECTORY";

/// Tells the child with which random numbers to write.
const SEED_VARIABLE: &str = "GATTWAY_TEST_CRASH_SEED";

const KILLS: u64 = 20;

fn child(test: &str, directory: &Path, seed: u64, shell_prefix: &str) -> Child {
    let program = std::env::current_exe().expect("the test program");
    let command = format!("{shell_prefix} exec \"$0\" --exact {test} --nocapture --test-threads 1");
    Command::new("sh")
        .args(["-c", &command])
        .arg(program)
        .env(DIRECTORY_VARIABLE, directory)
        .env(SEED_VARIABLE, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the child")
}

/// What the child said: per document the newest number that was acknowledged, and the newest version time.
#[derive(Default)]
struct Acknowledged {
    numbers: HashMap<String, u64>,
    time: u64,
}

impl Acknowledged {
    fn read(&mut self, line: &str) {
        // The test harness writes to standard output as well.
        let Some(("ack", rest)) = line.rsplit_once("ack ").map(|(_, rest)| ("ack", rest)) else { return };
        let words: Vec<&str> = rest.split(' ').collect();
        let [id, number, time, "."] = words[..] else { return };
        self.numbers.insert(id.to_owned(), number.parse().expect("a number"));
        self.time = self.time.max(time.parse().expect("a time"));
    }

    fn check(&self, collection: &Collection) {
        for (id, number) in &self.numbers {
            let document = collection.get(id).expect("readable").unwrap_or_else(|| panic!("{id} is lost"));
            let found = document.body()["number"].as_u64().expect("a number");
            assert!(found >= *number, "{id}: acknowledged {number}, found {found}");
        }
    }
}

fn environment() -> Option<(String, u64)> {
    let directory = std::env::var(DIRECTORY_VARIABLE).ok()?;
    Some((directory, std::env::var(SEED_VARIABLE).ok()?.parse().ok()?))
}

/// Saves single documents and batches until it is killed or a write fails; says what was acknowledged.
fn write_forever(directory: &str, seed: u64, documents: u32) -> DatabaseError {
    // Nothing is kept free, so that the end of the room is met by sled.
    let config = DatabaseConfig { keep_free_bytes: 0, ..DatabaseConfig::default() };
    let database = match Database::open(directory, config) {
        Ok(database) => database,
        Err(error) => return error,
    };
    let collection = database.default_collection().expect("default");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut number = seed << 32;
    loop {
        let count = if random.bool() { 1 } else { random.usize(1..80) };
        number += 1;
        let ids: Vec<String> = (0..count).map(|_| format!("document-{}", random.u32(0..documents))).collect();
        let body = json!({"number": number, "text": "x".repeat(random.usize(0..200))});
        if let Err(error) = database.batch(|b| ids.iter().try_for_each(|id| b.put(&collection, id, &body))) {
            return error;
        }
        let last = collection.get(&ids[0]).expect("read").expect("just saved");
        let time = last.revision().expect("saved").current.time;
        for id in ids {
            println!("ack {id} {number} {time} .");
        }
    }
}

#[test]
fn kill_child() {
    if let Some((directory, seed)) = environment() {
        write_forever(&directory, seed, 2000);
    }
}

#[test]
fn survives_kills() {
    if environment().is_some() {
        return;
    }
    let fixture = Fixture::new();
    let directory = fixture.directory.path().join("db");
    let mut acknowledged = Acknowledged::default();
    for seed in 1..=KILLS {
        let mut child = child("database::tests::crash::kill_child", &directory, seed, "");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(60 + fastrand::Rng::with_seed(seed).u64(0..150)));
            child.kill().expect("kill");
            child.wait().expect("wait");
        });
        let before = acknowledged.time;
        let mut times = Vec::new();
        for line in output.lines().map_while(Result::ok) {
            let mut one = Acknowledged::default();
            one.read(&line);
            times.extend((one.time > 0).then_some(one.time));
            acknowledged.read(&line);
        }
        killer.join().expect("the killer");
        assert!(times.iter().all(|&time| time > before), "seed {seed}: the clock went back");
        let database = fixture.open();
        acknowledged.check(&database.default_collection().expect("default"));
        let report = database.verify().expect("verify");
        assert!(report.is_sound(), "seed {seed}: {report:?}");
    }
    assert!(acknowledged.numbers.len() > 100, "only {} documents were written", acknowledged.numbers.len());
}

#[test]
fn full_child() {
    if let Some((directory, seed)) = environment() {
        let error = write_forever(&directory, seed, u32::MAX);
        println!("failed with {error:?}");
    }
}

/// A file-size limit stands for the full disk: the write fails in the middle of sled.
#[test]
fn a_full_disk_loses_nothing() {
    if environment().is_some() {
        return;
    }
    let fixture = Fixture::new();
    let directory = fixture.directory.path().join("db");
    let mut acknowledged = Acknowledged::default();
    // The limit is in units of 512 or 1024 bytes, as the shell pleases.
    for (seed, limit) in [(1, 1200), (2, 2400)] {
        let limit = format!("trap '' XFSZ; ulimit -f {limit};");
        let mut child = child("database::tests::crash::full_child", &directory, seed, &limit);
        let mut output = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut output).expect("text");
        child.wait().expect("wait");
        output.lines().for_each(|line| acknowledged.read(line));
        assert!(
            output.contains("failed with Full") || output.contains("failed with Failed"),
            "{output:.400}"
        );
        let database = fixture.open();
        acknowledged.check(&database.default_collection().expect("default"));
        assert!(database.verify().expect("verify").is_sound());
        database.default_collection().expect("default").put("more", &json!({})).expect("there is room again");
    }
    assert!(acknowledged.numbers.len() > 100);
}

/// A file system of its own that can be filled; gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn mount(size: &str) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let option = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
            .arg(directory.path())
            .output();
        mount.is_ok_and(|output| output.status.success()).then(|| SmallDisk(directory))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let ballast = std::fs::File::create(self.0.path().join("ballast")).expect("create");
        let mut ballast = std::io::BufWriter::with_capacity(4096, ballast);
        while std::io::Write::write_all(&mut ballast, &[0; 4096]).is_ok() {}
        // What is still in the buffer finds no room either.
        let _ = ballast.into_parts();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).expect("remove");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A commit that could take the last of the room is refused before it is begun, and the handle goes on when there is room.
#[test]
fn refuses_to_fill_the_medium_and_goes_on() {
    let fixture = Fixture::new();
    let all = DatabaseConfig { keep_free_bytes: u64::MAX, ..DatabaseConfig::default() };
    fixture.open().default_collection().expect("default").put("old", &json!({"n": 1})).expect("room");
    let database = fixture.try_open(all).expect("opens whatever is free");
    let collection = database.default_collection().expect("default");
    for _ in 0..3 {
        let refused = collection.put("new", &json!({}));
        assert!(matches!(refused, Err(DatabaseError::Full { .. })), "{refused:?}");
        assert!(refused.is_err_and(|error| error.is_recoverable()));
        assert!(matches!(collection.delete("old"), Err(DatabaseError::Full { .. })));
        let expires = collection.set_expiration("old", Some(std::time::SystemTime::UNIX_EPOCH));
        assert!(matches!(expires, Err(DatabaseError::Full { .. })), "{expires:?}");
        database.batch(|_| Ok(())).expect("nothing takes no room");
    }
    assert!(database.failure().is_none() && database.room().is_short);
    assert_eq!(collection.get("old").expect("read").map(|d| d.body()["n"].clone()), Some(json!(1)));
    assert_eq!(collection.get("new").expect("read"), None);
    drop((database, collection));

    let Some(disk) = SmallDisk::mount("24m") else {
        println!("the part on a file system of its own needs a mount, which is not allowed here");
        return;
    };
    let database = Database::open(disk.0.path().join("db"), DatabaseConfig::default()).expect("open");
    let collection = database.default_collection().expect("default");
    let put = |n: u32| collection.put(&format!("d{n}"), &json!({"n": n, "text": "x".repeat(300)}));
    let (mut next, mut refusals) = (0, 0);
    for _ in 0..3 {
        (0..100).for_each(|_| {
            put(next).expect("room");
            next += 1;
        });
        disk.fill();
        refusals += u32::from(matches!(put(next), Err(DatabaseError::Full { .. })));
        assert!(database.room().is_short && database.failure().is_none());
        disk.make_room();
        put(next).expect("the same handle takes it");
        assert!(!database.room().is_short);
        next += 1;
    }
    assert_eq!((refusals, collection.count()), (3, u64::from(next)));
    assert!(database.verify().expect("verify").is_sound());
}

/// Nothing is kept free: sled itself meets the end of the room.
fn to_the_brim() -> DatabaseConfig {
    DatabaseConfig { keep_free_bytes: 0, ..DatabaseConfig::default() }
}

/// A real full disk under commits, compaction, backup and restore: each says so, nothing acknowledged is lost, and with room
/// again everything goes on.
#[test]
fn a_really_full_disk_stops_everything_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount("6m") else {
        println!("skipped: mounting a tmpfs is not allowed here (needs root)");
        return;
    };
    let is_full = |error: &DatabaseError| matches!(error, DatabaseError::Full { .. });
    let directory = disk.0.path().join("db");
    let mut acknowledged = 0;
    for round in 0..3 {
        let database = Database::open(&directory, to_the_brim()).expect("open");
        let collection = database.default_collection().expect("default");
        let number = |n: u64| collection.get(&format!("d{n}")).expect("read").map(|d| d.body()["n"].as_u64());
        assert!((0..acknowledged).all(|n| number(n) == Some(Some(n))), "round {round}: something is lost");
        let put = |n: u64| collection.put(&format!("d{n}"), &json!({"n": n, "text": "x".repeat(300)}));
        for _ in 0..400 {
            put(acknowledged).expect("there is room");
            acknowledged += 1;
        }
        disk.fill();
        // What needs room says so and changes nothing.
        let backup = std::fs::File::create(disk.0.path().join("backup")).expect("create");
        let error = database.backup(&mut std::io::BufWriter::new(backup), |_, _| ()).map(drop);
        assert!(error.is_err_and(|error| is_full(&error)), "backup");
        let mut bytes = Vec::new();
        database.backup(&mut bytes, |_, _| ()).expect("into memory");
        let error =
            Database::restore(&mut &bytes[..], disk.0.path().join("copy"), |_| true, |_, _| ()).map(drop);
        assert!(error.is_err_and(|error| is_full(&error)), "restore");
        assert!(!disk.0.path().join("copy").exists());
        let error = database.compact().map(drop);
        assert!(error.is_err_and(|error| is_full(&error)), "compact");
        assert!((0..acknowledged).all(|n| number(n) == Some(Some(n))), "round {round}: after the compaction");
        let error = loop {
            match put(acknowledged) {
                Ok(_) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        assert!(is_full(&error), "{error:?}");
        assert!(database.failure().is_some());
        assert!(matches!(put(acknowledged), Err(DatabaseError::Failed { .. })));
        drop((collection, database));
        // Without room it cannot be opened for writing, and says so, or it is opened; in no case is anything lost.
        match Database::open(&directory, to_the_brim()) {
            Ok(database) => drop(database),
            Err(error) => assert!(is_full(&error), "{error:?}"),
        }
        disk.make_room();
        let report = Database::check(&directory).expect("check");
        assert!(report.is_sound(), "round {round}: {report:?}");
    }
}

/// A power cut: of what was written since the last sync, any page of the file may be old or new. For a long run set
/// `GATTWAY_TEST_POWER_CUTS` to the number of cuts.
#[test]
fn survives_power_cuts() {
    let cuts =
        std::env::var("GATTWAY_TEST_POWER_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(8u64);
    for seed in 1..=cuts {
        let fixture = Fixture::new();
        let config = DatabaseConfig { durability: Durability::Relaxed, ..DatabaseConfig::default() };
        let log = fixture.directory.path().join("db/log-000001");
        let (expected, torn) = cut_power(&fixture, config.clone(), &log.join("db"), seed);
        std::fs::write(log.join("db"), torn).expect("write the torn log");
        remove_what_is_newer(&log);
        let database = fixture.try_open(config).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let collection = database.default_collection().expect("default");
        for (id, body) in expected {
            let found =
                collection.get(&id).expect("readable").unwrap_or_else(|| panic!("seed {seed}: {id} is lost"));
            assert!(found.body()["number"].as_u64() >= body["number"].as_u64(), "seed {seed}: {id} is old");
        }
        // Large batches are atomic: of each there is all or nothing.
        let numbers = super::contents(&collection).into_iter().filter(|(id, _)| id.starts_with("atomic"));
        let numbers: Vec<_> = numbers.map(|(_, body)| body["number"].clone()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: half a batch");
        let report = database.verify().expect("verify");
        assert!(report.is_sound(), "seed {seed}: {report:?}");
    }
}

/// sled writes its settings in two steps before the log: killed in between, it would never open again.
#[test]
fn a_creation_that_was_interrupted_is_begun_anew() {
    let whole = Fixture::new();
    drop(whole.open());
    let settings = std::fs::read(whole.directory.path().join("db/log-000001/conf")).expect("the settings");
    for content in [&settings[..0], &settings[..9], &settings[..settings.len() - 4], &vec![0; settings.len()]]
    {
        let fixture = Fixture::new();
        let log = fixture.directory.path().join("db/log-000001");
        std::fs::create_dir_all(log.join("blobs")).expect("the folder");
        std::fs::write(log.join("conf"), content).expect("the settings");
        let database = fixture.try_open(DatabaseConfig::default());
        let database = database.unwrap_or_else(|error| panic!("{} bytes: {error}", content.len()));
        database.default_collection().expect("default").put("a", &json!({})).expect("put");
        drop(database);
        assert_eq!(fixture.open().default_collection().expect("default").count(), 1);
    }
}

/// Writes until a random moment; gives what was acknowledged and what stable storage would hold.
fn cut_power(
    fixture: &Fixture,
    config: DatabaseConfig,
    log: &Path,
    seed: u64,
) -> (Vec<(String, serde_json::Value)>, Vec<u8>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let database = fixture.try_open(config).expect("open");
    let collection = database.default_collection().expect("default");
    let synced = Arc::new(Mutex::new(std::fs::read(log).expect("the log")));
    let (image, path) = (Arc::clone(&synced), log.to_owned());
    database
        .store
        .observe_syncs(move || *image.lock().expect("lock") = std::fs::read(&path).expect("the log"));
    let mut expected = Vec::new();
    for number in 0..random.u64(100..400) {
        let text: String = (0..random.usize(0..300)).map(|_| random.alphanumeric()).collect();
        let body = json!({"number": number, "text": text});
        let ids: Vec<String> = if random.u8(..) < 8 {
            (0..400).map(|n| format!("atomic-{n}")).collect()
        } else {
            (0..random.usize(1..60)).map(|_| format!("document-{}", random.u32(0..3000))).collect()
        };
        database.batch(|b| ids.iter().try_for_each(|id| b.put(&collection, id, &body))).expect("batch");
        if random.u8(..) < 20 {
            database.sync().expect("sync");
            expected = super::contents(&collection);
        }
    }
    let (later, held) = (std::fs::read(log).expect("the log"), synced.lock().expect("lock").clone());
    (expected, torn(held, &later, &mut random))
}

/// What stable storage may have after a power cut: what it held, and any page of what was written later.
pub(super) fn torn(mut torn: Vec<u8>, later: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    const PAGE: usize = 4096;
    torn.resize(random.usize(torn.len()..=later.len().max(torn.len())), 0);
    for at in (0..torn.len().min(later.len())).step_by(PAGE) {
        let end = (at + PAGE).min(torn.len()).min(later.len());
        if random.bool() {
            torn[at..end].copy_from_slice(&later[at..end]);
        }
    }
    torn
}

/// sled's snapshot and the seal are newer than the torn log, since the handle was closed in between.
pub(super) fn remove_what_is_newer(log: &Path) {
    for entry in std::fs::read_dir(log).expect("the folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("snap.") || name == "seal" {
            std::fs::remove_file(entry.path()).expect("remove");
        }
    }
}
