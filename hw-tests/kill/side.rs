//! One side: a process that is started, fed with edits, watched by what it says, and killed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::{Process, ok};

/// Documents that each side edits again and again.
const OWN_DOCUMENTS: u64 = 40;

/// Documents that both sides edit, so that they conflict.
const SHARED_DOCUMENTS: u64 = 5;

/// Edits that a writer has written and that are not acknowledged yet.
const IN_FLIGHT_MAX: u64 = 64;

/// One in so many kills is followed by a look into the database.
const INSPECT_EVERY: usize = 7;

/// Against a hang alone: no milestone takes that long on any machine.
const HANG: Duration = Duration::from_secs(600);

/// The two sides, as messages and edits name them.
pub const NAMES: [&str; 2] = ["passive", "active"];
pub const ACTIVE: usize = 1;

/// What one side was promised, over all its lives.
#[derive(Default)]
pub struct Promises {
    /// Newest acknowledged counter of each document that only this side edits.
    pub saved: HashMap<String, u64>,
    /// Edits acknowledged.
    pub acknowledged: u64,
    /// Documents of `document` events.
    pub replicated: u64,
    /// IDs of write-once documents that this side was told the peer has.
    pub sent: Vec<String>,
}

/// How far a life has come. Each includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Stage {
    /// The process was started.
    #[default]
    Started,
    /// An edit was acknowledged.
    Saved,
    /// It listens, or has somebody to connect to.
    Ready,
    /// The two replicate.
    Connected,
}

pub const STAGES: [Stage; 4] = [Stage::Started, Stage::Saved, Stage::Ready, Stage::Connected];

/// What is known of one side, by what its process has said.
#[derive(Default)]
pub struct Known {
    pub promises: Promises,
    pub stage: Stage,
    /// The present process says no more.
    pub ended: bool,
    /// What was written to it, by line.
    pub written: Vec<(String, u64)>,
    /// How many of these lines were answered.
    pub answered: u64,
}

/// Told of every event of both sides.
#[derive(Default)]
pub struct Watch {
    pub sides: [Mutex<Known>; 2],
    /// Counts the events.
    pub news: Mutex<u64>,
    pub changed: Condvar,
}

impl Watch {
    pub fn side(&self, side: usize) -> MutexGuard<'_, Known> {
        self.sides[side].lock().unwrap()
    }

    pub fn tell(&self) {
        *self.news.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    /// Waits until `so`, which is looked at after each event.
    #[track_caller]
    pub fn wait_until(&self, what: &dyn std::fmt::Debug, mut so: impl FnMut() -> bool) {
        let began = Instant::now();
        loop {
            let before = *self.news.lock().unwrap();
            if so() {
                return;
            }
            assert!(began.elapsed() < HANG, "{what:?} did not happen");
            let news = self.news.lock().unwrap();
            let wait = self.changed.wait_timeout_while(news, Duration::from_secs(1), |news| *news == before);
            drop(wait.unwrap());
        }
    }
}

/// One side: its process is started, fed, killed.
pub struct Side<'a> {
    pub number: usize,
    pub db: &'a Path,
    /// The ways to start it, one of which is taken for each life.
    pub args: Vec<Vec<String>>,
    pub watch: Arc<Watch>,
    pub counter: u64,
    pub kills: usize,
    pub rng: fastrand::Rng,
    pub life: Option<Life>,
}

/// A process at work.
pub struct Life {
    process: Process,
    writer: JoinHandle<u64>,
    reader: JoinHandle<()>,
}

impl Side<'_> {
    pub fn name(&self) -> &'static str {
        NAMES[self.number]
    }

    /// Starts a life: edits are written and acknowledged until the process is killed.
    pub fn start(&mut self) {
        let args = &self.args[self.rng.usize(0..self.args.len())];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        {
            let mut known = self.watch.side(self.number);
            known.stage = Stage::Started;
            known.ended = false;
            known.written.clear();
            known.answered = 0;
        }
        let mut process = Process::start(self.db, &args);
        let stdin = process.stdin.take().unwrap();
        let events = process.events.take().unwrap();
        let (watch, number) = (Arc::clone(&self.watch), self.number);
        let reader = thread::spawn(move || note_promises(events, number, &watch));
        let (watch, counter, rng) = (Arc::clone(&self.watch), self.counter, self.rng.fork());
        let writer = thread::spawn(move || write_edits(stdin, number, counter, rng, &watch));
        self.life = Some(Life { process, writer, reader });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let Some(Life { process, writer, reader }) = self.life.take() else { return };
        drop(process);
        reader.join().unwrap();
        self.counter = writer.join().unwrap();
        self.kills += 1;
        if self.kills.is_multiple_of(INSPECT_EVERY) {
            // Reads the database while its process is dead: what was acknowledged must be there.
            check_saved(self.name(), &self.watch.side(self.number).promises, &export(self.db));
        }
    }

    /// bluetoothd may have no advertisement left, and then the process has ended by itself; that is no kill.
    pub fn revive(&mut self) {
        if !self.watch.side(self.number).ended {
            return;
        }
        let Some(mut life) = self.life.take() else { return };
        let status = life.process.child.wait().unwrap();
        life.reader.join().unwrap();
        self.counter = life.writer.join().unwrap();
        assert!(!status.success() && restart_bluetooth(), "{} has ended by itself: {status}", self.name());
        self.start();
    }
}

/// Writes edits until the process is gone; gives the counter.
fn write_edits(
    mut stdin: ChildStdin,
    side: usize,
    mut counter: u64,
    mut rng: fastrand::Rng,
    watch: &Watch,
) -> u64 {
    let name = NAMES[side];
    loop {
        watch.wait_until(&"an acknowledged edit", || {
            let known = watch.side(side);
            known.ended || known.written.len() as u64 - known.answered < IN_FLIGHT_MAX
        });
        counter += 1;
        let id = match rng.u8(0..10) {
            0 => format!("shared-{}", rng.u64(0..SHARED_DOCUMENTS)),
            1..=4 => format!("{name}-once-{counter}"),
            _ => format!("{name}-{}", rng.u64(0..OWN_DOCUMENTS)),
        };
        let record = json!({"_id": id, "n": counter, "by": name, "text": "x".repeat(rng.usize(0..200))});
        // Noted before it can be acknowledged.
        watch.side(side).written.push((id, counter));
        if writeln!(stdin, "{record}").is_err() {
            return counter;
        }
        thread::sleep(Duration::from_micros(rng.u64(0..6000)));
    }
}

/// Keeps what the process has acknowledged, until it says no more. A last line cut by the kill was not said.
fn note_promises(events: BufReader<ChildStdout>, side: usize, watch: &Watch) {
    for line in events.lines().map_while(Result::ok) {
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        note_promise(&event, &mut watch.side(side));
        watch.tell();
    }
    watch.side(side).ended = true;
    watch.tell();
}

fn note_promise(event: &Value, known: &mut Known) {
    let mut stage = Stage::Started;
    let promises = &mut known.promises;
    match event["event"].as_str() {
        Some("saved") => {
            let number = event["line"].as_u64().unwrap() as usize;
            let (id, counter) = known.written[number - 1].clone();
            assert_eq!(event["_id"], id.as_str());
            known.answered += 1;
            promises.acknowledged += 1;
            let newest = promises.saved.entry(id).or_default();
            *newest = counter.max(*newest);
            stage = Stage::Saved;
        }
        Some("document") => {
            assert!(event.get("error").is_none() || event["error"].is_string(), "{event}");
            promises.replicated += 1;
            let id = event["_id"].as_str().unwrap();
            if event["direction"] == "sent" && event.get("error").is_none() && id.contains("once") {
                promises.sent.push(id.to_owned());
            }
            stage = Stage::Connected;
        }
        Some("rejected") => panic!("{event}"),
        Some("listening") => stage = Stage::Ready,
        Some("status") => match event["activity"].as_str() {
            Some("connecting") => stage = Stage::Ready,
            Some("busy" | "idle") => stage = Stage::Connected,
            _ => {}
        },
        _ => {}
    }
    known.stage = known.stage.max(stage);
}

pub fn export(db: &Path) -> HashMap<String, Value> {
    let text = ok(db, &["db", "export"]);
    let documents = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    documents.map(|document| (document["_id"].as_str().unwrap().to_owned(), document)).collect()
}

/// Every edit that was acknowledged to the program that made it is there, or a later one of the same program.
#[track_caller]
pub fn check_saved(name: &str, promises: &Promises, documents: &HashMap<String, Value>) {
    for (id, counter) in &promises.saved {
        let document =
            documents.get(id).unwrap_or_else(|| panic!("{name}: acknowledged document {id} is missing"));
        if !id.starts_with("shared") {
            let found = document["n"].as_u64().unwrap();
            assert!(found >= *counter, "{name}: {id} has edit {found}, {counter} was acknowledged");
        }
    }
}

/// bluetoothd 5.66 keeps the advertisements of some killed processes until it has no more to give (firmware-notes/bluez.md).
/// False where there is none.
pub fn restart_bluetooth() -> bool {
    let Ok(command) = std::env::var("GATTWAY_RESTART_BLUETOOTH") else { return false };
    println!("bluetoothd is started anew");
    assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success());
    true
}

/// Prints what bluetoothd knows, where there is one.
pub fn tell_bluetooth() {
    if std::env::var_os("GATTWAY_RESTART_BLUETOOTH").is_some() {
        let objects = "org.freedesktop.DBus.ObjectManager.GetManagedObjects";
        let asked = std::process::Command::new("dbus-send")
            .args(["--system", "--print-reply", "--dest=org.bluez", "/", objects])
            .output();
        println!(
            "bluetoothd knows: {}",
            asked.map_or_else(|e| e.to_string(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
        );
    }
}
