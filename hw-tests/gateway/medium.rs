//! What the gateway writes to the medium: gathered, counted, and told.

use crate::command::ok;
use crate::{Machine, put, wait_until};

#[test]
fn what_is_written_is_counted_over_restarts_and_peers_are_served_with_commits_that_wait() {
    let machine = Machine::new(
        "[gateway]\nmedium-cycles = 3000\n[databases.plant]\ntrust-all = true\ncommit-delay = \"150ms\"\n\
         [listeners.lan]\naddress = \"tcp:127.0.0.1:0\"\n",
    );
    let device = tempfile::tempdir().unwrap();
    let device = device.path().join("device.db");
    put(&device, "reading");
    let mut gateway = machine.start();
    let address = gateway.address();
    ok(&device, &["sync", &address]);
    assert_eq!(machine.documents("plant.db"), ["reading"]);
    let database = || machine.status()["databases"][0].clone();
    let count = |key: &str| database()[key].as_u64().unwrap();
    wait_until("what it did is told", || {
        count("commits") > 0 && count("syncs") > 0 && count("log_bytes") > 0
    });
    let first = machine.status()["medium"].clone();
    assert_eq!(first["cycles"], 3000, "{first}");
    let shown = machine.run(&["status"]).stdout;
    assert!(shown.contains("medium: ") && shown.contains(" written in "), "{shown}");
    assert_eq!(gateway.terminate(), Some(0));

    let mut gateway = machine.start();
    gateway.address();
    let second = machine.status()["medium"].clone();
    let written = |medium: &serde_json::Value| medium["written_bytes"].as_u64().unwrap();
    assert!(written(&second) >= written(&first), "{first} and {second}");
    assert!(second["measured_s"].as_u64() >= first["measured_s"].as_u64(), "{first} and {second}");
    assert_eq!(gateway.terminate(), Some(0));
}

#[test]
fn a_delay_that_peers_would_not_wait_for_is_refused() {
    for (delay, why) in [("2 minutes", "a time up to 1m"), ("soon", "is no such time")] {
        let machine = Machine::new(&format!("[databases.plant]\ncommit-delay = \"{delay}\"\n"));
        let checked = machine.run(&["config", "check"]);
        assert_eq!(checked.code, Some(4), "{checked:?}");
        assert!(format!("{checked:?}").contains(why), "{checked:?}");
    }
}
