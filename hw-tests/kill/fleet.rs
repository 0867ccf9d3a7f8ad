//! A fleet of devices against one gateway, all writing all the while, each killed with SIGKILL at random, the gateway too.
//!
//! Nothing that was acknowledged is lost: neither an edit to the program that made it, nor a document to the device that sent it. In the
//! end all have the same documents at the same revisions.
//!
//! The plan of kills comes from the seed alone: who is killed, and after how many more acknowledgements. What the processes do meanwhile
//! is theirs. `GATTWAY_FLEET` sets the number of devices (20 is the full size), `GATTWAY_KILLS` that of kills, `GATTWAY_SEED` the seed.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::{Process, free_port, ok, run};
use crate::setting;
use crate::side::export;

/// Devices in a run of all tests.
const DEVICES: u64 = 6;

/// Kills for each device; of all kills one in so many is the gateway's.
const KILLS: u64 = 3;
const GATEWAY_SHARE: u32 = 5;

/// Acknowledgements between two kills.
const AFTER_MIN: u64 = 5;
const AFTER_MAX: u64 = 40;

/// Documents that a device edits again and again, and that all edit, so that they conflict.
const OWN_DOCUMENTS: u64 = 10;
const SHARED_DOCUMENTS: u64 = 4;

/// Edits that were written to a process and are not acknowledged yet.
const IN_FLIGHT_MAX: u64 = 8;

/// Edits that a device may make at once in a new life, so that there is something to kill.
const FIRST_EDITS: u64 = 3;

/// Syncs at one time, and rounds of them until nothing is left to go over.
const SYNCS_AT_ONCE: usize = 4;
const ROUNDS_MAX: usize = 12;

/// The exit code of a sync that left something out.
const UNSYNCED: i32 = 7;

/// Against a hang alone.
const HANG: Duration = Duration::from_secs(600);

/// What one device was promised over all its lives, and the state of the present one.
#[derive(Default)]
struct Known {
    /// Newest acknowledged edit of each document.
    saved: HashMap<String, u64>,
    /// Documents, each written once, that the gateway has.
    sent: BTreeSet<String>,
    /// Edits of the present life, and how many of them were answered.
    written: Vec<(String, u64)>,
    answered: u64,
    /// Edits that it may still make: every one goes to all others in the end, so none writes as fast as it can.
    granted: u64,
    /// Its process says no more.
    ended: bool,
}

impl Known {
    fn in_flight(&self) -> u64 {
        self.written.len() as u64 - self.answered
    }
}

/// What all have said. `acknowledged` and `sent` count over all devices.
#[derive(Default)]
struct Said {
    devices: Vec<Known>,
    acknowledged: u64,
    sent: u64,
}

impl Said {
    /// Lets every device make so many edits more.
    fn grant(&mut self, edits: u64) {
        self.devices.iter_mut().for_each(|known| known.granted += edits);
    }

    /// Whether all that may be written was, and was answered.
    fn is_used_up(&self) -> bool {
        self.devices.iter().all(|known| known.granted == 0 && known.in_flight() == 0)
    }
}

#[derive(Default)]
struct Watch {
    said: Mutex<Said>,
    changed: Condvar,
}

impl Watch {
    fn change<T>(&self, change: impl FnOnce(&mut Said) -> T) -> T {
        let changed = change(&mut self.said.lock().unwrap());
        self.changed.notify_all();
        changed
    }

    #[track_caller]
    fn wait_until<T>(&self, what: &str, mut so: impl FnMut(&mut Said) -> Option<T>) -> T {
        let began = Instant::now();
        let mut said = self.said.lock().unwrap();
        loop {
            if let Some(so) = so(&mut said) {
                return so;
            }
            assert!(began.elapsed() < HANG, "{what}: nothing of it happens");
            said = self.changed.wait_timeout(said, Duration::from_secs(1)).unwrap().0;
        }
    }
}

/// A device: its process is started, fed, killed.
struct Device {
    number: usize,
    db: PathBuf,
    counter: u64,
    life: Option<(Process, JoinHandle<u64>, JoinHandle<()>)>,
}

impl Device {
    fn start(&mut self, address: &str, watch: &Arc<Watch>, mut rng: fastrand::Rng) {
        let args = [
            "sync",
            address,
            "--continuous",
            "--retry-wait",
            "0.1",
            "--peer",
            "gateway",
            "--import",
            "-",
            "--replace",
            "--json",
            "--documents",
        ];
        watch.change(|said| {
            let known = &mut said.devices[self.number];
            known.written.clear();
            (known.answered, known.ended) = (0, false);
            known.granted = known.granted.max(FIRST_EDITS);
        });
        let mut process = Process::start(&self.db, &args);
        let mut stdin = process.stdin.take().unwrap();
        let events = process.events.take().unwrap();
        let (number, heard) = (self.number, Arc::clone(watch));
        let reader = thread::spawn(move || {
            // A last line that the kill has cut was not said.
            for line in events.lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    heard.change(|said| note(said, number, &event));
                }
            }
            heard.change(|said| said.devices[number].ended = true);
        });
        let (mut counter, watch) = (self.counter, Arc::clone(watch));
        let writer = thread::spawn(move || {
            loop {
                watch.wait_until("an acknowledged edit", |said| {
                    let known = &mut said.devices[number];
                    let is_free = known.granted > 0 && known.in_flight() < IN_FLIGHT_MAX;
                    known.granted -= u64::from(is_free);
                    (known.ended || is_free).then_some(())
                });
                counter += 1;
                let id = match rng.u8(0..10) {
                    0 => format!("shared-{}", rng.u64(0..SHARED_DOCUMENTS)),
                    1..=4 => format!("once-{number}-{counter}"),
                    _ => format!("own-{number}-{}", rng.u64(0..OWN_DOCUMENTS)),
                };
                let record = json!({"_id": id, "n": counter, "text": "x".repeat(rng.usize(0..200))});
                // Noted before it can be acknowledged.
                watch.change(|said| said.devices[number].written.push((id, counter)));
                if writeln!(stdin, "{record}").is_err() {
                    return counter;
                }
            }
        });
        self.life = Some((process, writer, reader));
    }

    fn kill(&mut self) {
        let Some((process, writer, reader)) = self.life.take() else { return };
        drop(process);
        reader.join().unwrap();
        self.counter = writer.join().unwrap();
    }

    /// Every edit that was acknowledged is there, or a later one.
    fn check(&self, watch: &Watch) {
        let documents = export(&self.db);
        for (id, counter) in &watch.said.lock().unwrap().devices[self.number].saved {
            let document =
                documents.get(id).unwrap_or_else(|| panic!("device {}: {id} is lost", self.number));
            let found = document["n"].as_u64().unwrap();
            // What others edit too may have been theirs since then.
            assert!(found >= *counter || id.starts_with("shared"), "{id} has edit {found}, not {counter}");
        }
    }
}

fn note(said: &mut Said, number: usize, event: &Value) {
    let known = &mut said.devices[number];
    match event["event"].as_str() {
        Some("saved") => {
            let (id, counter) = known.written[event["line"].as_u64().unwrap() as usize - 1].clone();
            assert_eq!(event["_id"], id.as_str());
            let newest = known.saved.entry(id).or_default();
            *newest = counter.max(*newest);
            known.answered += 1;
            said.acknowledged += 1;
        }
        Some("document") if event["direction"] == "sent" && event.get("error").is_none() => {
            let id = event["_id"].as_str().unwrap();
            if id.starts_with("once") {
                known.sent.insert(id.to_owned());
            }
            said.sent += 1;
        }
        Some("rejected") => panic!("{event}"),
        _ => {}
    }
}

/// `gattway run` on one database.
struct Gateway {
    directory: PathBuf,
    process: Option<(Process, JoinHandle<()>)>,
}

impl Gateway {
    fn new(directory: &Path, address: &str) -> Gateway {
        let text = format!(
            "[gateway]\nsocket = \"control\"\nstate = \".\"\n[databases.plant]\ntrust-all = true\ncommit-delay = \"20ms\"\n\
             [listeners.lan]\naddress = \"{address}\"\n"
        );
        std::fs::write(directory.join("gattway.toml"), text).unwrap();
        Gateway { directory: directory.to_owned(), process: None }
    }

    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gattway"));
        command.args(["run", "--json", "--config"]).arg(self.directory.join("gattway.toml"));
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").env_remove("STATE_DIRECTORY");
        let mut process = Process::of(command);
        process.address();
        let mut events = process.events.take().unwrap();
        let drain = thread::spawn(move || drop(std::io::copy(&mut events, &mut std::io::sink())));
        self.process = Some((process, drain));
    }

    fn kill(&mut self) {
        let Some((process, drain)) = self.process.take() else { return };
        drop(process);
        drain.join().unwrap();
    }

    fn db(&self) -> PathBuf {
        self.directory.join("plant.db")
    }

    /// What a device was told that the gateway has is there.
    fn check(&self, watch: &Watch) {
        // First what was said, then what is there.
        let sent: Vec<String> = {
            let said = watch.said.lock().unwrap();
            said.devices.iter().flat_map(|known| known.sent.iter().cloned()).collect()
        };
        let documents = export(&self.db());
        for id in sent {
            assert!(documents.contains_key(&id), "{id} was acknowledged by the gateway, and is lost");
        }
    }
}

/// One kill: of a device, or the gateway, after so many more acknowledgements.
#[derive(Clone, Copy, Debug)]
struct Kill {
    device: Option<usize>,
    after: u64,
}

fn plan(devices: usize, kills: usize, rng: &mut fastrand::Rng) -> Vec<Kill> {
    let kill = |_| {
        let device = (rng.u32(0..GATEWAY_SHARE) > 0).then(|| rng.usize(0..devices));
        Kill { device, after: rng.u64(AFTER_MIN..=AFTER_MAX) }
    };
    (0..kills).map(kill).collect()
}

#[test]
fn a_fleet_killed_at_random_and_its_gateway_end_with_the_same_documents() {
    let seed = setting("GATTWAY_SEED", fastrand::u64(..));
    let count = setting("GATTWAY_FLEET", DEVICES) as usize;
    let kills = setting("GATTWAY_KILLS", count as u64 * KILLS) as usize;
    println!("GATTWAY_SEED={seed} GATTWAY_FLEET={count} GATTWAY_KILLS={kills}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let plan = plan(count, kills, &mut rng);
    let directory = tempfile::tempdir().unwrap();
    let address = format!("tcp:127.0.0.1:{}", free_port());
    let mut gateway = Gateway::new(directory.path(), &address);
    gateway.start();
    let watch = Arc::new(Watch::default());
    watch.change(|said| said.devices.resize_with(count, Known::default));
    let device = |number| Device {
        number,
        db: directory.path().join(format!("device-{number}.db")),
        counter: 0,
        life: None,
    };
    let mut devices: Vec<Device> = (0..count).map(device).collect();
    devices.iter_mut().for_each(|device| device.start(&address, &watch, rng.fork()));

    for kill in &plan {
        let each = kill.after.div_ceil(count as u64);
        let before = watch.change(|said| {
            said.grant(each);
            (said.acknowledged, said.sent)
        });
        let all_live =
            |said: &Said| assert!(said.devices.iter().all(|known| !known.ended), "one ended by itself");
        watch.wait_until(&format!("{kill:?}"), |said| {
            all_live(said);
            let is_due = match kill.device {
                Some(device) => {
                    said.acknowledged >= before.0 + kill.after && said.devices[device].answered > 0
                }
                None => said.sent >= before.1 + kill.after,
            };
            // Edits of one document are sent as one.
            if !is_due && said.is_used_up() {
                said.grant(each);
                watch.changed.notify_all();
            }
            is_due.then_some(())
        });
        match kill.device {
            Some(device) => {
                // In the middle of its work.
                let answered = watch.change(|said| {
                    said.devices[device].granted += IN_FLIGHT_MAX;
                    said.devices[device].answered
                });
                watch.wait_until("an edit of who is killed", |said| {
                    all_live(said);
                    (said.devices[device].answered > answered).then_some(())
                });
                devices[device].kill();
                devices[device].check(&watch);
                devices[device].start(&address, &watch, rng.fork());
            }
            None => {
                gateway.kill();
                gateway.check(&watch);
                gateway.start();
            }
        }
    }
    devices.iter_mut().for_each(Device::kill);
    gateway.kill();
    devices.iter().for_each(|device| device.check(&watch));
    gateway.check(&watch);
    gateway.start();
    sync_until_nothing_goes_over(&devices, &address);
    gateway.kill();

    let said = watch.said.lock().unwrap();
    println!("{kills} kills, {} edits acknowledged, {} documents sent", said.acknowledged, said.sent);
    assert!(said.acknowledged > kills as u64 && said.sent > 0, "hardly anything happened");
    drop(said);
    gateway.check(&watch);
    devices.iter().for_each(|device| device.check(&watch));
    let lines = |db: &Path| {
        let text = ok(db, &["db", "export", "--revisions"]);
        text.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let at_gateway = lines(&gateway.db());
    for device in &devices {
        let here = lines(&device.db);
        let differences: Vec<&String> = here.symmetric_difference(&at_gateway).collect();
        assert!(differences.is_empty(), "device {} and the gateway differ: {differences:#?}", device.number);
    }
    println!("{} documents, the same on {} devices and the gateway", at_gateway.len(), devices.len());
}

/// Nobody writes any more: what is left goes over in rounds, of which the last has nothing to do.
fn sync_until_nothing_goes_over(devices: &[Device], address: &str) {
    for _ in 0..ROUNDS_MAX {
        let mut moved = 0;
        for some in devices.chunks(SYNCS_AT_ONCE) {
            let syncing: Vec<_> = some
                .iter()
                .map(|device| {
                    let (db, address) = (device.db.clone(), address.to_owned());
                    thread::spawn(move || {
                        let ended = run(&db, &["sync", &address, "--peer", "gateway", "--json"]);
                        let last: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
                        assert_eq!(last["event"], "finished", "{ended:?}");
                        // Two that resolve the same conflict at the same time: one is refused, and takes part in the next round.
                        assert!(ended.code == Some(0) || ended.code == Some(UNSYNCED), "{ended:?}");
                        last["documents"].as_u64().unwrap() + u64::from(ended.code == Some(UNSYNCED))
                    })
                })
                .collect();
            moved += syncing.into_iter().map(|sync| sync.join().unwrap()).sum::<u64>();
        }
        if moved == 0 {
            return;
        }
    }
    panic!("after {ROUNDS_MAX} rounds something goes over still");
}
