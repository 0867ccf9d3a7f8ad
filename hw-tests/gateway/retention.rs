//! What a gateway keeps of its collections, and why it keeps more.

use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::command::{Process, free_port, ok, run_with_input};
use crate::{Machine, central_and_field, put, wait_until};

#[test]
fn what_is_beyond_the_rules_goes_here_and_stays_away() {
    let (central, at_central, field) = central_and_field();
    put_readings(&field.path("state/field.db"), 0..40);
    let mut at_field = field.start();
    wait_until("all arrive", || central.documents("central.db").len() == 40);
    field.write("etc/conf.d/retention.toml", "[retention.readings]\ndocuments = 32\n");
    at_field.signal("HUP");
    let retention = || field.status()["databases"][0]["retention"][0].clone();
    wait_until("the oldest are removed", || retention()["removed"] == 9);
    let left: Vec<String> = (9..40).map(|n| format!("reading-{n:02}")).collect();
    assert_eq!(field.documents("field.db"), left);
    assert!(retention()["name"] == "readings" && retention()["error"].is_null(), "{}", retention());
    // What is new goes on; what was removed is not sent back.
    assert_eq!(at_field.terminate(), Some(0));
    put(&field.path("state/field.db"), "new");
    let at_field = field.start();
    wait_until("the new one arrives", || central.documents("central.db").len() == 41);
    wait_until("it is in sync", || field.status()["databases"][0]["upstreams"][0]["last_synced_s"].is_u64());
    assert_eq!(field.documents("field.db").len(), 32);
    for process in [at_field, at_central] {
        assert_eq!(process.terminate(), Some(0));
    }
}

/// Puts readings into a database that nobody has open, one after the other.
fn put_readings(db: &Path, numbers: Range<u32>) {
    let lines: String = numbers.map(|n| format!("{{\"_id\":\"reading-{n:02}\"}}\n")).collect();
    let ended = run_with_input(db, &["db", "import", "-", "--format", "ndjson"], lines.as_bytes());
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Starts a gateway, and waits until it answers.
fn start_and_wait(machine: &Machine) -> Process {
    let process = machine.start();
    wait_until("it answers", || machine.run(&["status"]).code == Some(0));
    process
}

/// What the upstream does not have stays, however much it is.
#[test]
fn what_the_upstream_has_not_confirmed_stays_and_status_says_so() {
    let port = free_port();
    let central = Machine::new(&format!(
        "[databases.central]\ntrust-all = true\n[listeners.lan]\naddress = \"tcp:127.0.0.1:{port}\"\n"
    ));
    let field = Machine::new(&format!(
        "[databases.field]\ntrust-all = true\n\
         [upstreams.central]\naddress = \"tcp:127.0.0.1:{port}\"\nretry-wait = \"2s\"\n\
         [retention.readings]\ndocuments = 8\nonly-confirmed = \"central\"\n"
    ));
    let db = field.path("state/field.db");
    let retention = || field.status()["databases"][0]["retention"][0].clone();
    let told = || retention()["held"].as_str().unwrap_or_default().to_owned();
    // Nobody is there.
    put_readings(&db, 0..12);
    let at_field = start_and_wait(&field);
    wait_until("it is told", || told().contains("stay until central has confirmed them; it is 12 of 12"));
    let shown = field.run(&["status"]).stdout;
    assert!(shown.contains("NOT MET: _default: documents beyond the rule stay"), "{shown}");
    let doctor = field.run(&["doctor"]).stdout;
    assert!(doctor.contains("retention readings of database field: _default: documents"), "{doctor}");
    assert_eq!((retention()["removed"].as_u64(), field.documents("field.db").len()), (Some(0), 12));
    // It has all: the oldest go.
    let at_central = central.start();
    wait_until("all arrive", || central.documents("central.db").len() == 12);
    wait_until("the oldest are removed", || retention()["removed"] == 4);
    wait_until("the rule is met", || told().is_empty());
    assert_eq!(field.documents("field.db"), (4..12).map(|n| format!("reading-{n:02}")).collect::<Vec<_>>());
    // It is away again: of what it has, it goes on; the rest stays.
    assert_eq!(at_central.terminate(), Some(0));
    assert_eq!(at_field.terminate(), Some(0));
    put_readings(&db, 12..30);
    let at_field = start_and_wait(&field);
    wait_until("what it has is removed", || retention()["removed"] == 8);
    wait_until("it is told", || told().contains("it is 18 of 30 changes behind"));
    assert_eq!(field.documents("field.db"), (12..30).map(|n| format!("reading-{n:02}")).collect::<Vec<_>>());
    let at_central = central.start();
    wait_until("all arrive", || central.documents("central.db").len() == 30);
    wait_until("the rule is met", || field.documents("field.db").len() == 8);
    for process in [at_field, at_central] {
        assert_eq!(process.terminate(), Some(0));
    }
}

/// A peer that stayed away longer than deletions are remembered brings nothing deleted back, and what it made meanwhile.
#[test]
fn who_stayed_away_longer_than_tombstones_are_kept_brings_nothing_back() {
    let central = Machine::new(
        "[databases.central]\ntrust-all = true\ntombstones = \"1s\"\n\
         [listeners.lan]\naddress = \"tcp:127.0.0.1:0\"\n",
    );
    let mut at_central = central.start();
    let address = at_central.address();
    let devices = tempfile::tempdir().unwrap();
    let [device, absent] = ["device.db", "absent.db"].map(|name| devices.path().join(name));
    for id in ["deleted", "stays"] {
        put(&device, id);
    }
    ok(&device, &["sync", &address]);
    ok(&absent, &["sync", &address]);
    ok(&device, &["db", "rm", "deleted"]);
    ok(&device, &["sync", &address]);
    wait_until("the tombstone is removed", || central.status()["databases"][0]["tombstones_removed"] == 1);
    assert!(central.run(&["status"]).stdout.contains("1 tombstone removed"));
    put(&absent, "new");
    for args in [&["sync", &*address][..], &["sync", &address, "--reset"]] {
        ok(&absent, args);
        assert_eq!(central.documents("central.db"), ["new", "stays"]);
    }
    // It is changed there: that is news.
    ok(&absent, &["db", "put", "deleted", "{\"again\": true}"]);
    ok(&absent, &["sync", &address]);
    assert_eq!(central.documents("central.db"), ["deleted", "new", "stays"]);
    assert_eq!(at_central.terminate(), Some(0));
}

/// Files above their limit: the oldest documents go, and the files are smaller for it.
#[test]
fn files_above_their_limit_are_brought_down() {
    let machine = Machine::new("[databases.plant]\n[retention.all]\nfiles = \"8M\"\n");
    let db = machine.path("state/plant.db");
    let mut rng = fastrand::Rng::with_seed(7);
    let mut line = |n: u32| {
        let text: String = (0..40_000).map(|_| rng.alphanumeric()).collect();
        format!("{{\"_id\":\"d{n:04}\",\"text\":\"{text}\"}}\n")
    };
    let lines: String = (0..400).map(&mut line).collect();
    let file = machine.path("documents.ndjson");
    fs::write(&file, lines).unwrap();
    ok(&db, &["db", "import", file.to_str().unwrap()]);
    let process = start_and_wait(&machine);
    let retention = || machine.status()["databases"][0]["retention"][0].clone();
    let is_met = || {
        let now = retention();
        let (files, allowed) = (now["files_bytes"].as_u64(), now["files_allowed"].as_u64());
        allowed == Some(8 << 20) && files <= allowed && now["compactions"].as_u64() > Some(0)
    };
    wait_until("the files are small enough", is_met);
    let now = retention();
    assert!(now["held"].is_null() && now["error"].is_null(), "{now}");
    let left = machine.documents("plant.db");
    assert!(left.len() > 20 && left.len() < 400, "{} are left", left.len());
    // The oldest have gone.
    let newest: Vec<String> = (400 - left.len()..400).map(|n| format!("d{n:04}")).collect();
    assert_eq!(left, newest);
    assert!(machine.run(&["status"]).stdout.contains(" of 8"), "{}", machine.run(&["status"]).stdout);
    assert_eq!(process.terminate(), Some(0));
}
