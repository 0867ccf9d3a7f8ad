//! The configuration that the README prints is right, and runs as it stands there.

use crate::{Machine, event, put, wait_until};

/// The README's block of TOML.
fn printed() -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let block = readme.split("```toml\n").nth(1).expect("a block of TOML");
    block.split("```").next().unwrap().to_owned()
}

#[cfg(all(feature = "bluetooth", feature = "websocket"))]
#[test]
fn the_readmes_ten_lines_run_as_printed() {
    let lines = printed().lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 10, "{lines} lines");
    let machine = Machine::new(&printed());
    let checked = machine.run(&["config", "check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    // A port that is free, and a server that is here; all else is as printed.
    let central = Machine::new(
        "[databases.plant]\n[listeners.web]\naddress = \"ws://127.0.0.1:0/plant\"\nplain = true\nusers-file = \"users\"\n",
    );
    central.write("etc/users", "gateway-7:correct horse\n");
    let mut at_central = central.start();
    let address = at_central.address();
    machine.write(
        "etc/conf.d/here.toml",
        &format!(
            "[databases.plant]\ntrust-all = true\n[listeners.lan]\naddress = \"tcp:127.0.0.1:0\"\n\
             [upstreams.central]\naddress = \"{address}\"\n"
        ),
    );
    machine.write("credentials/central", "correct horse\n");
    let mut process = machine.start();
    let listening = process.wait_for(|event| {
        event["event"] == "listening"
            && event["address"].as_str().is_some_and(|address| address.starts_with("tcp:"))
    });
    let device = tempfile::tempdir().unwrap();
    let device = device.path().join("device.db");
    put(&device, "reading");
    crate::ok(&device, &["sync", listening["address"].as_str().unwrap()]);
    wait_until("it is handed on", || central.documents("plant.db") == ["reading"]);
    process.signal("TERM");
    assert_eq!(event(&mut process, "finished")["ok"], true);
    assert_eq!(process.end_of_itself(), Some(0));
    assert_eq!(at_central.terminate(), Some(0));
}
