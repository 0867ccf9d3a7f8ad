//! Two processes that sync while both are edited, each killed with SIGKILL again and again at random moments: over TCP, and
//! over a real BlueZ (`hw-tests/rig/kill`, which runs this program in a guest with two adapters).
//!
//! In the end both databases are equal, and nothing is missing that was acknowledged: neither an edit acknowledged to
//! the program that made it, nor a document acknowledged to a peer. Between kills, the database of a killed process is
//! read by itself, so that a loss cannot be hidden by the next sync.
//!
//! A process is killed a random moment after a milestone that it has reached, such as its connection or its third document, not after
//! some seconds: a slow machine takes longer, and is tested as well.
//!
//! `GATTWAY_KILLS` sets the number of kills of each process, `GATTWAY_SEED` the seed.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../command/mod.rs"]
mod command;
mod fleet;
mod side;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use command::{Process, free_port, ok, run};
use side::{ACTIVE, Known, NAMES, STAGES, Side, Stage, Watch, check_saved, export, restart_bluetooth};

/// Kills of each process.
const KILLS: usize = 30;
const BLUETOOTH_KILLS: usize = 30;

/// The exit code of a sync that did not reach its peer, and how often such a one is tried.
const NOT_REACHED: i32 = 6;
const TRIES_MAX: usize = 10;

/// Documents of a life, and edits of it, that are waited for.
const DOCUMENTS_MIN: u64 = 3;
const DOCUMENTS_MAX: u64 = 40;

/// Kills one side or both, again and again, until each has been killed `kills` times.
fn kill_again_and_again(sides: &mut [Side<'_>; 2], watch: &Watch, kills: usize, rng: &mut fastrand::Rng) {
    // The moment of a kill is random within half the time that the last kill after this stage took.
    let mut typical: HashMap<Stage, Duration> = HashMap::new();
    sides.iter_mut().for_each(Side::start);
    loop {
        let victims: &[usize] = match rng.u8(0..10) {
            0 => &[0, 1],
            1..=5 => &[0],
            _ => &[1],
        };
        let victims: Vec<usize> = victims.iter().copied().filter(|side| sides[*side].kills < kills).collect();
        if victims.is_empty() {
            if sides.iter().all(|side| side.kills >= kills) {
                return;
            }
            continue;
        }
        let began = Instant::now();
        // Every second kill of a side comes when edits were acknowledged and documents have gone over, so that there is something
        // to lose.
        let loaded = victims.iter().any(|side| sides[*side].kills.is_multiple_of(2));
        let stage = if loaded { Stage::Connected } else { STAGES[rng.usize(0..STAGES.len())] };
        let before = watch.side(ACTIVE).promises.replicated;
        let documents = if loaded { rng.u64(DOCUMENTS_MIN..=DOCUMENTS_MAX) } else { 0 };
        watch.wait_until(&(stage, documents), || {
            sides.iter_mut().for_each(Side::revive);
            let reached = |known: MutexGuard<'_, Known>| {
                known.stage >= stage && (!loaded || known.answered >= DOCUMENTS_MIN)
            };
            victims.iter().all(|side| reached(watch.side(*side)))
                && watch.side(ACTIVE).promises.replicated >= before + documents
        });
        let next = typical.entry(stage).or_default();
        thread::sleep(next.mul_f64(rng.f64()));
        *next = began.elapsed() / 2;
        for side in &victims {
            sides[*side].kill();
        }
        for side in &victims {
            sides[*side].start();
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
    kills: usize,
}

#[test]
fn nothing_acknowledged_is_lost_by_sigkill() {
    let address = format!("tcp:127.0.0.1:{}", free_port());
    kill_both(&Way { listen: address.clone(), reach: vec![address], kills: KILLS });
}

#[test]
#[ignore = "needs two adapters: hw-tests/rig/kill runs it in a guest"]
fn nothing_acknowledged_is_lost_by_sigkill_over_bluetooth() {
    let reach = ["ble:any --adapter hci1", "ble:any --adapter hci1 --central gatt"];
    kill_both(&Way {
        listen: "ble:hci0".to_owned(),
        reach: reach.map(str::to_owned).to_vec(),
        kills: BLUETOOTH_KILLS,
    });
}

fn kill_both(way: &Way) {
    let kills = setting("GATTWAY_KILLS", way.kills as u64) as usize;
    let seed = setting("GATTWAY_SEED", fastrand::u64(..));
    println!("GATTWAY_SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let dbs = NAMES.map(|name| directory.path().join(name));
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let serve = vec![words(&format!("serve --listen {} --import - --replace --json", way.listen))];
    let sync = |reach: &String| {
        words(&format!(
            "sync {reach} --continuous --retry-wait 0.1 --peer passive --import - --replace --json --documents"
        ))
    };
    let mut args = [serve, way.reach.iter().map(sync).collect()].into_iter();
    let mut rng = fastrand::Rng::with_seed(seed);
    let watch = Arc::new(Watch::default());
    let mut sides = [0, 1].map(|number| Side {
        number,
        db: &dbs[number],
        args: args.next().unwrap(),
        watch: Arc::clone(&watch),
        counter: 0,
        kills: 0,
        rng: rng.fork(),
        life: None,
    });
    kill_again_and_again(&mut sides, &watch, kills, &mut rng);
    sides.iter_mut().for_each(Side::kill);

    // Both live on, undisturbed, and come to rest.
    let [passive_db, active_db] = &dbs;
    let listener = listen(passive_db, &way.listen);
    for _ in 0..3 {
        sync_once(active_db, &way.reach[0]);
    }
    assert_eq!(listener.terminate(), Some(0));
    check_all(&dbs, &watch, &sides);
}

/// Both databases are equal and hold all that was promised, and enough has happened for that to mean something.
fn check_all(dbs: &[std::path::PathBuf; 2], watch: &Watch, sides: &[Side<'_>; 2]) {
    let contents = [export(&dbs[0]), export(&dbs[1])];
    for side in sides {
        let (name, known) = (side.name(), watch.side(side.number));
        let promises = &known.promises;
        contents.iter().for_each(|documents| check_saved(name, promises, documents));
        let (kills, acknowledged, replicated) = (side.kills, promises.acknowledged, promises.replicated);
        println!(
            "{name}: {kills} kills, {acknowledged} edits acknowledged, {replicated} documents replicated"
        );
        assert!(acknowledged as usize > kills, "{name} was killed before it did anything");
    }
    let active = watch.side(ACTIVE);
    for id in &active.promises.sent {
        assert!(
            contents[0].contains_key(id),
            "{id} was acknowledged to the active side and is missing on the passive one"
        );
    }
    assert!(active.promises.replicated as usize > sides[ACTIVE].kills, "hardly anything was synced");
    check_equal(&dbs[0], &dbs[1]);
    println!("{} documents, equal on both sides", contents[0].len());
}

/// One sync that comes to its end. Where bluetoothd has crashed once more (firmware-notes/bluez.md), the listener is on the air again some
/// seconds after it, and a sync may have heard nobody until then: that is told and tried again.
fn sync_once(db: &Path, reach: &str) {
    let line = format!("sync {reach} --peer passive --json -v");
    for _ in 0..TRIES_MAX {
        let ended = run(db, &line.split(' ').collect::<Vec<_>>());
        match ended.code {
            Some(0) => return,
            Some(NOT_REACHED) if reach.starts_with("ble:") => {
                println!("the peer was not reached: tried again\n{}", ended.stderr);
            }
            _ => panic!("{line}: {ended:#?}"),
        }
    }
    side::tell_bluetooth();
    panic!("{line}: the peer was not reached in {TRIES_MAX} tries");
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
