//! `gattway config`: what it writes, refuses and shows.

use serde_json::Value;

use crate::command::Process;
use crate::{Machine, wait_until};

#[test]
fn a_configuration_is_written_once_and_is_right_as_it_is() {
    let machine = Machine::new("");
    std::fs::remove_file(machine.path("etc/gattway.toml")).unwrap();
    let missing = machine.run(&["config", "check"]);
    assert_eq!(missing.code, Some(4), "{missing:?}");
    assert!(
        missing.stderr.contains("there is no configuration") && missing.stderr.contains("config init"),
        "{missing:?}"
    );
    let run = machine.run(&["run"]);
    assert_eq!(run.code, Some(4), "{run:?}");

    assert_eq!(machine.run(&["config", "init"]).code, Some(0));
    let written = std::fs::read_to_string(machine.path("etc/gattway.toml")).unwrap();
    assert_eq!(machine.run(&["config", "init", "--print"]).stdout, written);
    // Bluetooth is a feature.
    if cfg!(feature = "bluetooth") {
        let checked = machine.run(&["config", "check"]);
        assert_eq!(
            (checked.code, checked.stdout.contains("1 database, 1 adapter")),
            (Some(0), true),
            "{checked:?}"
        );
    }
    machine.write("etc/gattway.toml", "# mine\n");
    let again = machine.run(&["config", "init"]);
    assert_eq!(again.code, Some(4), "{again:?}");
    assert!(again.stderr.contains("--force"), "{again:?}");
    assert_eq!(std::fs::read_to_string(machine.path("etc/gattway.toml")).unwrap(), "# mine\n");
    assert_eq!(machine.run(&["config", "init", "--force"]).code, Some(0));
    assert_eq!(std::fs::read_to_string(machine.path("etc/gattway.toml")).unwrap(), written);
}

#[test]
fn all_errors_of_all_files_are_told_by_check_and_by_run() {
    let machine = Machine::new("[databases.plant]\nread-only = 1\n[listeners.lan]\naddress = \"4985\"\n");
    machine.write("etc/conf.d/10-central.toml", "[upstreams.central]\npassword = \"hush\"\n");
    machine.write("etc/conf.d/ignored.txt", "no TOML");
    for args in [&["config", "check"][..], &["run"], &["config", "show"]] {
        let ended = machine.run(args);
        assert_eq!(ended.code, Some(4), "{ended:?}");
        for told in [
            "etc/gattway.toml:2:13: databases.plant.read-only: it is a number, not true or false",
            "-> true or false, without quotes",
            "etc/gattway.toml:4:11: listeners.lan.address: ",
            "etc/conf.d/10-central.toml:2:1: upstreams.central.password: there is no such key",
            "-> a secret has no place in this file",
            "upstreams.central: address is missing",
            "4 errors in the configuration",
        ] {
            assert!(ended.stderr.contains(told), "{args:?}: {told} in {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("hush") && !ended.stdout.contains("hush"), "{ended:?}");
    }
    let json = machine.run(&["config", "check", "--json"]);
    let told: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &told["ok"]), (Some(4), &Value::Bool(false)));
    assert_eq!(told["problems"][0]["line"], 2);
    assert_eq!(told["problems"][0]["key"], "databases.plant.read-only");
}

#[test]
fn what_is_in_force_is_shown_with_where_it_comes_from() {
    let machine = Machine::new("[databases.plant]\nkeep-free = \"5M\"\n");
    machine.write("etc/conf.d/20.toml", "[databases.plant]\nkeep-free = \"7M\"\n");
    machine.write("etc/conf.d/10.toml", "[databases.plant]\nkeep-free = \"6M\"\nread-only = true\n");
    let shown = machine.run(&["config", "show"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for (line, from) in [
        ("keep-free = \"7M\"", "20.toml:2"),
        ("read-only = true", "10.toml:3"),
        ("trust-all = false", "default"),
    ] {
        let found = shown.stdout.lines().any(|shown| shown.starts_with(line) && shown.ends_with(from));
        assert!(found, "{line} from {from} in {}", shown.stdout);
    }
}

/// Who comes to a plain listener needs no group, so nothing is said of one that is missing.
#[test]
fn a_group_is_missed_only_where_one_is_asked_for() {
    for (listener, is_missed) in [("", true), ("plain = true\n", false)] {
        let machine = Machine::new(&format!(
            "[databases.plant]\n[listeners.lan]\naddress = \"tcp:127.0.0.1:0\"\n{listener}"
        ));
        let log = machine.path("log");
        let mut command = machine.command(&["run"]);
        command.stderr(std::fs::File::create(&log).unwrap());
        let gateway = Process::of(command);
        let said = || std::fs::read_to_string(&log).unwrap();
        wait_until("it listens", || said().contains("listening on"));
        assert_eq!(gateway.terminate(), Some(0));
        assert_eq!(said().contains("nobody may connect yet"), is_missed, "{}", said());
    }
}
