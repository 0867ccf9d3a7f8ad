//! What fails stops nothing else, and what is configured anew holds without a restart.

use std::net::TcpListener;

use crate::command::Process;
use crate::{Machine, event, put, wait_until};

#[test]
fn a_bad_listener_a_bad_database_and_a_bad_upstream_stop_no_other() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let machine = Machine::new(&format!(
        "[databases.good]\ntrust-all = true\n[databases.bad]\npath = \"/proc/none/bad.db\"\n\
         [listeners.free]\naddress = \"tcp:127.0.0.1:0\"\ndatabase = \"good\"\n\
         [listeners.taken]\naddress = \"tcp:127.0.0.1:{port}\"\ndatabase = \"good\"\n\
         [listeners.nowhere]\naddress = \"tcp:127.0.0.1:0\"\ndatabase = \"bad\"\n\
         [upstreams.nobody]\naddress = \"unix:/proc/none/socket\"\ndatabase = \"good\"\n"
    ));
    let mut process = machine.start();
    let (mut failed, mut listens, mut bad) = (false, None, false);
    while !(failed && listens.is_some() && bad) {
        let event = process.event().expect("it goes on");
        match (event["event"].as_str().unwrap(), event["database"].as_str()) {
            ("listen_failed", Some("good")) => failed |= event["address"] == format!("tcp:127.0.0.1:{port}"),
            ("listening", Some("good")) => listens = event["address"].as_str().map(str::to_owned),
            ("database_failed", Some("bad")) => {
                assert!(event["error"].as_str().unwrap().contains("/proc/none/bad.db"), "{event}");
                bad = true;
            }
            _ => {}
        }
    }
    let device = tempfile::tempdir().unwrap();
    let device = device.path().join("device.db");
    put(&device, "one");
    crate::ok(&device, &["sync", &listens.unwrap()]);
    assert_eq!(machine.documents("good.db"), ["one"]);
    let status = machine.status();
    let (bad, good) = (&status["databases"][0], &status["databases"][1]);
    assert_eq!((&bad["open"], bad["failures"].as_u64() > Some(0)), (&false.into(), true), "{status}");
    assert!(bad["error"].as_str().unwrap().contains("cannot be opened"), "{status}");
    assert_eq!(good["open"], true);
    let shown = machine.run(&["status"]).stdout;
    assert!(
        shown.contains("listener taken: does not listen on") && shown.contains("database bad: not open"),
        "{shown}"
    );
    // What was in the way is gone: nobody has to do anything.
    drop(taken);
    process.wait_for(|event| {
        event["event"] == "listening" && event["address"] == format!("tcp:127.0.0.1:{port}")
    });
    // The other database gets a place of its own.
    machine.write("etc/conf.d/bad.toml", "[databases.bad]\npath = \"bad.db\"\n");
    process.signal("HUP");
    process.wait_for(|event| event["event"] == "listening" && event["database"] == "bad");
    wait_until("both are open", || machine.status()["databases"][0]["open"] == true);
    assert_eq!(process.terminate(), Some(0));
}

/// What was done, and where it listens from then on; the two are told in any order.
#[track_caller]
fn reloaded_and_listening(process: &mut Process) -> (String, String) {
    let (mut done, mut address) = (None, None);
    while done.is_none() || address.is_none() {
        let event = process.wait_for(|event| event["event"] == "reloaded" || event["event"] == "listening");
        match event["address"].as_str() {
            Some(listening) => address = Some(listening.to_owned()),
            None => done = Some(event["done"].to_string()),
        }
    }
    (done.unwrap(), address.unwrap())
}

#[test]
fn a_new_configuration_changes_what_has_changed_and_a_wrong_one_nothing() {
    let machine =
        Machine::new("[databases.plant]\ntrust-all = true\n[listeners.a]\naddress = \"tcp:127.0.0.1:0\"\n");
    let mut process = machine.start();
    let first = process.address();
    process.signal("HUP");
    assert_eq!(event(&mut process, "reloaded")["done"], serde_json::json!([]));

    machine.write("etc/conf.d/b.toml", "[listeners.b]\naddress = \"tcp:127.0.0.1:0\"\n");
    process.signal("HUP");
    let (_, second) = reloaded_and_listening(&mut process);
    let device = tempfile::tempdir().unwrap();
    let device = device.path().join("device.db");
    put(&device, "one");
    for address in [&first, &second] {
        crate::ok(&device, &["sync", address]);
    }

    machine.write("etc/conf.d/c.toml", "[listeners.c]\nadress = \"tcp:127.0.0.1:0\"\n");
    process.signal("HUP");
    let failed = event(&mut process, "reload_failed");
    assert!(failed["errors"][0].as_str().unwrap().contains("c.toml"), "{failed}");
    crate::ok(&device, &["sync", &second]);

    // A listener goes, another setting of the database is served anew, and the socket stays until a restart.
    std::fs::remove_file(machine.path("etc/conf.d/b.toml")).unwrap();
    let other = machine.path("run/other");
    machine.write("etc/conf.d/c.toml", &format!("[gateway]\nsocket = {:?}\n", other.to_str().unwrap()));
    process.signal("HUP");
    let done = event(&mut process, "reloaded")["done"].to_string();
    assert!(done.contains("listener b: ended") && done.contains("run/control until a restart"), "{done}");
    assert_eq!(crate::command::run(&device, &["sync", &second, "--attempts", "1"]).code, Some(6));
    machine.write("etc/conf.d/c.toml", "[databases.plant]\nread-only = true\n");
    process.signal("HUP");
    let (done, third) = reloaded_and_listening(&mut process);
    assert!(done.contains("served anew"), "{done}");
    put(&device, "two");
    let refused = crate::command::run(&device, &["sync", &third]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert_eq!(machine.documents("plant.db"), ["one"]);
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn a_second_gateway_leaves_the_first_alone() {
    let machine =
        Machine::new("[databases.plant]\ntrust-all = true\n[listeners.a]\naddress = \"tcp:127.0.0.1:0\"\n");
    let mut process = machine.start();
    process.address();
    let second = machine.run(&["run"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another gateway runs"), "{second:?}");
    assert_eq!(machine.status()["databases"][0]["open"], true);
    assert_eq!(process.end("INT"), Some(0));
    let asked = machine.run(&["status"]);
    assert_eq!(asked.code, Some(6), "{asked:?}");
    assert!(asked.stderr.contains("gattway run"), "{asked:?}");
}
