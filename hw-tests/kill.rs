//! Two processes that sync while both are edited, each killed with SIGKILL again and again at random moments: over TCP, and
//! over a real BlueZ (`hw-tests/rig/kill`, which runs this program in a guest with two adapters).
//!
//! In the end both databases are equal, and nothing is missing that was acknowledged: neither an edit acknowledged to
//! the program that made it, nor a document acknowledged to a peer. Between kills, the database of a killed process is
//! read by itself, so that a loss cannot be hidden by the next sync.
//!
//! `GATTWAY_KILLS` sets the number of kills of each process, `GATTWAY_SEED` the seed.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod command;

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use command::{Process, free_port, ok};
use serde_json::{Value, json};

/// Kills of each process.
const KILLS: usize = 50;
const BLUETOOTH_KILLS: usize = 30;

/// Documents that each side edits again and again.
const OWN_DOCUMENTS: u64 = 40;

/// Documents that both sides edit, so that they conflict.
const SHARED_DOCUMENTS: u64 = 5;

/// How long a process lives, at random: long enough to connect most of the time.
const LIFE_MS: Range<u64> = 40..700;
const BLUETOOTH_LIFE_MS: Range<u64> = 100..8000;

/// One in so many kills is followed by a look into the database.
const INSPECT_EVERY: usize = 7;

/// What one side was promised, over all its lives.
#[derive(Default)]
struct Promises {
    /// Newest acknowledged counter of each document that only this side edits.
    saved: Mutex<HashMap<String, u64>>,
    /// Edits acknowledged.
    acknowledged: AtomicUsize,
    /// Documents of `document` events.
    replicated: AtomicUsize,
    /// IDs of write-once documents that this side was told the peer has.
    sent: Mutex<Vec<String>>,
}

/// One side: its process is started, fed, killed.
struct SideOfTest<'a> {
    name: &'static str,
    db: &'a Path,
    /// The ways to start it, one of which is taken for each life.
    args: Vec<Vec<String>>,
    life_ms: Range<u64>,
    promises: Arc<Promises>,
    counter: u64,
    rng: fastrand::Rng,
}

impl SideOfTest<'_> {
    fn start(&mut self) -> Process {
        let args = &self.args[self.rng.usize(0..self.args.len())];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Process::start(self.db, &args)
    }

    /// One life: edits are written and acknowledged until the process is killed.
    fn live_and_die(&mut self) {
        let mut process = self.start();
        let stdin = process.stdin.take().unwrap();
        let events = process.events.take().unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = {
            let (written, promises) = (Arc::clone(&written), Arc::clone(&self.promises));
            thread::spawn(move || note_promises(events, &written, &promises))
        };
        let writer = {
            let (written, stop, name) = (Arc::clone(&written), Arc::clone(&stop), self.name);
            let (counter, rng) = (self.counter, self.rng.fork());
            thread::spawn(move || write_edits(stdin, name, counter, rng, &written, &stop))
        };
        thread::sleep(Duration::from_millis(self.rng.u64(self.life_ms.clone())));
        if process.child.try_wait().unwrap().is_some_and(|status| !status.success()) {
            restart_bluetooth();
        }
        drop(process); // SIGKILL
        stop.store(true, Ordering::Relaxed);
        self.counter = writer.join().unwrap();
        reader.join().unwrap();
    }

    /// Reads the database while its process is dead: what was acknowledged must be there.
    fn inspect(&self) {
        let documents = export(self.db);
        check_saved(self.name, &self.promises, &documents);
    }
}

/// Writes edits until the process is gone; gives the counter.
fn write_edits(
    mut stdin: ChildStdin,
    name: &str,
    mut counter: u64,
    mut rng: fastrand::Rng,
    written: &Mutex<Vec<(String, u64)>>,
    stop: &AtomicBool,
) -> u64 {
    while !stop.load(Ordering::Relaxed) {
        counter += 1;
        let id = match rng.u8(0..10) {
            0 => format!("shared-{}", rng.u64(0..SHARED_DOCUMENTS)),
            1..=4 => format!("{name}-once-{counter}"),
            _ => format!("{name}-{}", rng.u64(0..OWN_DOCUMENTS)),
        };
        let record = json!({"_id": id, "n": counter, "by": name, "text": "x".repeat(rng.usize(0..200))});
        // Noted before it can be acknowledged.
        written.lock().unwrap().push((id, counter));
        if writeln!(stdin, "{record}").is_err() {
            break;
        }
        thread::sleep(Duration::from_micros(rng.u64(0..6000)));
    }
    counter
}

/// Keeps what the process has acknowledged. A last line cut by the kill was not said.
fn note_promises(events: BufReader<ChildStdout>, written: &Mutex<Vec<(String, u64)>>, promises: &Promises) {
    for line in events.lines().map_while(Result::ok) {
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        match event["event"].as_str() {
            Some("saved") => {
                let number = event["line"].as_u64().unwrap() as usize;
                let (id, counter) = written.lock().unwrap()[number - 1].clone();
                assert_eq!(event["_id"], id.as_str());
                promises.acknowledged.fetch_add(1, Ordering::Relaxed);
                let mut saved = promises.saved.lock().unwrap();
                let newest = saved.entry(id).or_default();
                *newest = counter.max(*newest);
            }
            Some("document") => {
                assert!(event.get("error").is_none() || event["error"].is_string(), "{event}");
                promises.replicated.fetch_add(1, Ordering::Relaxed);
                let id = event["_id"].as_str().unwrap();
                if event["direction"] == "sent" && event.get("error").is_none() && id.contains("once") {
                    promises.sent.lock().unwrap().push(id.to_owned());
                }
            }
            Some("rejected") => panic!("{event}"),
            _ => {}
        }
    }
}

fn export(db: &Path) -> HashMap<String, Value> {
    let text = ok(db, &["db", "export"]);
    let documents = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    documents.map(|document| (document["_id"].as_str().unwrap().to_owned(), document)).collect()
}

/// Every edit that was acknowledged to the program that made it is there, or a later one of the same program.
#[track_caller]
fn check_saved(name: &str, promises: &Promises, documents: &HashMap<String, Value>) {
    for (id, counter) in promises.saved.lock().unwrap().iter() {
        let document =
            documents.get(id).unwrap_or_else(|| panic!("{name}: acknowledged document {id} is missing"));
        if !id.starts_with("shared") {
            let found = document["n"].as_u64().unwrap();
            assert!(found >= *counter, "{name}: {id} has edit {found}, {counter} was acknowledged");
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// How the two reach each other.
struct Way {
    /// Arguments of `serve`.
    listen: String,
    /// Arguments of `sync`, of which one is taken for each life.
    reach: Vec<String>,
    life_ms: Range<u64>,
    kills: usize,
}

#[test]
fn nothing_acknowledged_is_lost_by_sigkill() {
    let address = format!("tcp:127.0.0.1:{}", free_port());
    kill_both(&Way { listen: address.clone(), reach: vec![address], life_ms: LIFE_MS, kills: KILLS });
}

#[test]
#[ignore = "needs two adapters: hw-tests/rig/kill runs it in a guest"]
fn nothing_acknowledged_is_lost_by_sigkill_over_bluetooth() {
    let reach = ["ble:any --adapter hci1", "ble:any --adapter hci1 --central gatt"];
    kill_both(&Way {
        listen: "ble:hci0".to_owned(),
        reach: reach.map(str::to_owned).to_vec(),
        life_ms: BLUETOOTH_LIFE_MS,
        kills: BLUETOOTH_KILLS,
    });
}

fn kill_both(way: &Way) {
    let kills = setting("GATTWAY_KILLS", way.kills as u64) as usize;
    let seed = setting("GATTWAY_SEED", fastrand::u64(..));
    println!("GATTWAY_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let (passive_db, active_db) = (directory.path().join("passive"), directory.path().join("active"));
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let serve = vec![words(&format!("serve --listen {} --import - --json", way.listen))];
    let sync = |reach: &String| {
        words(&format!(
            "sync {reach} --continuous --retry-wait 0.1 --peer passive --import - --json --documents"
        ))
    };
    let sync = way.reach.iter().map(sync).collect();
    let mut rng = fastrand::Rng::with_seed(seed);
    let promises = [Arc::<Promises>::default(), Arc::<Promises>::default()];
    let sides = [("passive", &passive_db, serve), ("active", &active_db, sync)];

    // A process that exists twice for one database would be a failure of the test: each side has one thread.
    let inspecting = Mutex::new(());
    thread::scope(|scope| {
        for ((name, db, args), promises) in sides.into_iter().zip(&promises) {
            let (rng, promises) = (rng.fork(), Arc::clone(promises));
            let (inspecting, life_ms) = (&inspecting, way.life_ms.clone());
            scope.spawn(move || {
                let mut side = SideOfTest { name, db, args, life_ms, promises, counter: 0, rng };
                for kill in 1..=kills {
                    side.live_and_die();
                    if kill % INSPECT_EVERY == 0 {
                        let _one = inspecting.lock().unwrap();
                        side.inspect();
                    }
                }
            });
        }
    });

    // Both live on, undisturbed, and come to rest.
    let listener = listen(&passive_db, &way.listen);
    for _ in 0..3 {
        let last = format!("sync {} --peer passive --json", way.reach[0]);
        ok(&active_db, &last.split(' ').collect::<Vec<_>>());
    }
    assert_eq!(listener.terminate(), Some(0));

    let (passive, active) = (export(&passive_db), export(&active_db));
    for (name, promises) in ["passive", "active"].into_iter().zip(&promises) {
        check_saved(name, promises, &passive);
        check_saved(name, promises, &active);
        let acknowledged = promises.acknowledged.load(Ordering::Relaxed);
        let replicated = promises.replicated.load(Ordering::Relaxed);
        println!(
            "{name}: {kills} kills, {acknowledged} edits acknowledged, {replicated} documents replicated"
        );
        assert!(acknowledged > kills, "{name} was killed before it did anything");
    }
    for id in promises[1].sent.lock().unwrap().iter() {
        assert!(
            passive.contains_key(id),
            "{id} was acknowledged to the active side and is missing on the passive one"
        );
    }
    assert!(
        promises[1].replicated.load(Ordering::Relaxed) > kills,
        "hardly anything was synced between the kills"
    );
    check_equal(&passive_db, &active_db);
    println!("{} documents, equal on both sides", passive.len());
}

/// A process that listens. bluetoothd may have to be started anew first.
fn listen(db: &Path, address: &str) -> Process {
    for _ in 0..3 {
        let mut listener = Process::start(db, &["serve", "--listen", address, "--json"]);
        while let Some(event) = listener.event() {
            if event["event"] == "listening" {
                return listener;
            }
        }
        restart_bluetooth();
    }
    panic!("`serve` does not come to listen on {address}");
}

/// bluetoothd 5.66 keeps the advertisements of some killed processes until it has no more to give (firmware-notes/bluez.md).
fn restart_bluetooth() {
    if let Ok(command) = std::env::var("GATTWAY_RESTART_BLUETOOTH") {
        println!("bluetoothd is started anew");
        assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }
}

/// The same documents at the same revisions.
#[track_caller]
fn check_equal(passive: &Path, active: &Path) {
    let lines = |db: &Path| {
        ok(db, &["db", "export", "--revisions"]).lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (passive, active) = (lines(passive), lines(active));
    let differences: Vec<&String> = passive.symmetric_difference(&active).collect();
    assert!(differences.is_empty(), "these are on one side only: {differences:#?}");
}
