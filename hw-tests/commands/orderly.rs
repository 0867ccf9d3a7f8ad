//! An orderly end says nothing that alarms: no command logs a warning or an error when all went as it should.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::command::{Process, free_port, ok, run, run_with_input};
use super::{PENGUINS, database, documents};

/// Commands that need an adapter, measure for minutes, or draw on a terminal (`hw-tests/gateway/top.rs`).
const NOT_RUN: [&str; 3] = ["scan", "bench", "top"];

/// Names of the commands that `gattway PATH --help` lists.
fn subcommands(path: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_gattway")).args(path).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let list = help.split_once("Commands:\n").map_or("", |(_, rest)| rest);
    let name = |line: &str| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned);
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter_map(name)
        .filter(|name| !name.is_empty() && name != "help")
        .collect()
}

/// Every command there is, as it is typed.
fn all_commands() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for name in subcommands(&[]) {
        let below = subcommands(&[&name]);
        all.extend(below.iter().map(|below| format!("{name} {below}")));
        if below.is_empty() {
            all.insert(name);
        }
    }
    all
}

#[track_caller]
fn assert_quiet(what: &str, stderr: &str) {
    let alarm = stderr
        .lines()
        .find(|line| line.contains("WARN") || line.contains("ERROR") || line.contains("panicked"));
    assert_eq!(alarm, None, "{what}: {stderr}");
}

/// Runs commands and remembers which.
struct Runner {
    run: BTreeSet<String>,
}

impl Runner {
    fn note(&mut self, args: &[&str]) {
        let names = if ["db", "index", "peers", "group", "config"].contains(&args[0]) { 2 } else { 1 };
        self.run.insert(args[..names].join(" "));
    }

    fn quiet(&mut self, db: &Path, args: &[&str]) -> String {
        self.quiet_with_input(db, args, b"")
    }

    fn quiet_with_input(&mut self, db: &Path, args: &[&str], input: &[u8]) -> String {
        self.note(args);
        let ended = run_with_input(db, args, input);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        assert_quiet(&args.join(" "), &ended.stderr);
        ended.stdout
    }

    /// Starts a command that runs until it is told, with its standard error in a file.
    fn start(&mut self, db: &Path, args: &[&str], stderr: &Path) -> Process {
        self.note(args);
        Process::start_with_stderr(db, args, Stdio::from(File::create(stderr).unwrap()))
    }
}

#[test]
fn no_command_warns_when_all_went_well() {
    let (directory, db) = database();
    let mut runner = Runner { run: BTreeSet::new() };
    let place = |name: &str| directory.path().join(name);
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let trees = place("trees");
    assert!(runner.quiet(&trees, &["db", "create", "--versioning", "rev-trees"]).contains("rev-trees"));
    assert!(runner.quiet(&trees, &["db", "info"]).contains("revisions   rev-trees"));
    runner.quiet(&db, &["db", "put", "valve", r#"{"open":true}"#]);
    runner.quiet(&db, &["db", "import", PENGUINS, "--id-prefix", "p", "--short-ids"]);
    for args in [
        &["db", "get", "valve"][..],
        &["db", "ls"],
        &["query", "--limit", "0"],
        &["index", "create", "_default", "--on", "species", "--name", "by-species"],
        &["index", "list"],
        &["index", "drop", "_default", "by-species"],
        &["db", "attach", "valve", "table", PENGUINS],
        &["db", "blob", "get", "valve", "table", "-o", &text(place("table"))],
        &["db", "blob", "list"],
        &["db", "detach", "valve", "table"],
        &["db", "expire", "valve", "--in", "1h"],
        &["db", "export"],
        &["db", "changes"],
        &["db", "collections", "--create", "plant.readings"],
        &["db", "info"],
        &["db", "rm", "valve"],
        &["db", "compact"],
        &["db", "unsynced"],
        &["db", "verify"],
        &["db", "backup", &text(place("backup"))],
        &["db", "restore", &text(place("backup")), "--to", &text(place("restored"))],
        &["db", "repair", "--to", &text(place("repaired"))],
        &["db", "renew", "--identity"],
        &["id"],
        &["peers", "ls"],
        &["group", "create", "farm"],
        &["group", "show", "--public"],
        &["group", "authority"],
        &["group", "rotate"],
        &["group", "leave"],
        &["completions", "bash"],
        &["manual", &text(place("manual"))],
    ] {
        runner.quiet(&db, args);
    }
    assert!(place("manual").join("gattway-db-expire.1").is_file());
    let code = runner.quiet(&place("other"), &["group", "create", "--json"]);
    assert!(code.contains("fingerprint"));
    let shown: serde_json::Value =
        serde_json::from_str(&runner.quiet(&place("other"), &["group", "show", "--json"])).unwrap();
    runner.quiet_with_input(
        &db,
        &["group", "join", "--file", "-"],
        shown["code"].as_str().unwrap().as_bytes(),
    );
    let id = runner.quiet(&place("other"), &["id"]).lines().nth(1).unwrap().to_owned();
    runner.quiet(&db, &["peers", "add", &id, "--name", "north"]);
    for args in [
        &["peers", "rename", "north", "south"][..],
        &["peers", "deny", "south"],
        &["peers", "allow", "south"],
        &["peers", "forget", "south"],
        &["peers", "reset", "--role", "both", "--force"],
    ] {
        runner.quiet(&db, args);
    }
    pairing(&mut runner, &place("listens"), &place("connects"));
    runner.quiet(&db, &["demo", "--speed", "50", "--json"]);
    // Whether Bluetooth works here is not the question.
    runner.note(&["doctor"]);
    assert_quiet("doctor", &run(&db, &["doctor"]).stderr);
    replication(&mut runner);
    gateway(&mut runner, directory.path());
    let mut all = all_commands();
    assert!(all.len() > 20, "{all:?}");
    all.retain(|name| !NOT_RUN.contains(&name.as_str()));
    assert_eq!(
        all.difference(&runner.run).collect::<Vec<_>>(),
        [&""; 0],
        "commands that this test does not run"
    );
}

fn pairing(runner: &mut Runner, listens: &Path, connects: &Path) {
    let (code, stderr) = (listens.with_extension("code"), listens.with_extension("stderr"));
    std::fs::write(&code, "123456\n").unwrap();
    let code = code.to_str().unwrap();
    let address = format!("tcp:127.0.0.1:{}", free_port());
    let mut listener =
        runner.start(listens, &["pair", "--listen", &address, "--code-file", code, "--json"], &stderr);
    listener.wait_for(|event| event["event"] == "listening");
    runner.quiet(connects, &["pair", &address, "--code-file", code, "--json"]);
    assert_eq!(listener.wait_for(|event| event["event"] == "paired")["event"], "paired");
    assert_eq!(listener.end_of_itself(), Some(0));
    assert_quiet("pair --listen", &std::fs::read_to_string(stderr).unwrap());
}

/// Both sides of syncs that move documents, ended in every way.
fn replication(runner: &mut Runner) {
    let (directory, gateway) = database();
    let stderr = directory.path().join("stderr");
    for (round, signal) in ["TERM", "INT", "TERM"].into_iter().enumerate() {
        let (_field_directory, field) = database();
        ok(&field, &["db", "import", PENGUINS, "--id-prefix", &format!("r{round}-")]);
        let mut server = runner.start(&gateway, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"], &stderr);
        let address = server.address();
        for args in [&["sync", &address][..], &["sync", &address, "--push"], &["sync", &address, "--pull"]] {
            ok(&field, &["db", "put", "again", &format!("{{\"round\":{round}}}")]);
            runner.quiet(&field, args);
        }
        let stays = directory.path().join("stays");
        let mut sync =
            runner.start(&field, &["sync", &address, "--continuous", "--json", "--documents"], &stays);
        sync.wait_for(|event| event["activity"] == "idle");
        assert_eq!(sync.end(signal), Some(0));
        assert_quiet(
            &format!("sync --continuous ended by SIG{signal}"),
            &std::fs::read_to_string(&stays).unwrap(),
        );
        assert_eq!(server.end(signal), Some(0));
        assert_quiet(&format!("serve ended by SIG{signal}"), &std::fs::read_to_string(&stderr).unwrap());
    }
    assert!(documents(&gateway).len() > 3 * 300);
}

/// A gateway from its configuration to its end, beside the peer that it syncs with.
fn gateway(runner: &mut Runner, directory: &Path) {
    let (served, served_stderr) = (directory.join("served"), directory.join("served.stderr"));
    let mut server =
        runner.start(&served, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"], &served_stderr);
    let (configuration, stderr) = (directory.join("gattway.toml"), directory.join("gateway.stderr"));
    let (database, config) = (directory.join("gateway"), configuration.to_str().unwrap());
    runner.quiet(&database, &["config", "init", "--config", config]);
    let text = format!(
        "[gateway]\nsocket = {:?}\n[databases.main]\npath = {database:?}\ntrust-all = true\n[upstreams.peer]\naddress = {:?}\n",
        directory.join("socket"),
        server.address()
    );
    std::fs::write(&configuration, text).unwrap();
    runner.quiet(&database, &["config", "check", "--config", config]);
    runner.quiet(&database, &["config", "show", "--config", config]);
    let mut gateway = runner.start(&database, &["run", "--config", config, "--json"], &stderr);
    server.wait_for(|event| event["activity"] == "idle");
    runner.quiet(&database, &["status", "--config", config]);
    for order in ["now", "pause", "resume"] {
        runner.quiet(&database, &[order, "peer", "--config", config]);
    }
    gateway.signal("TERM");
    gateway.wait_for(|event| event["event"] == "finished");
    assert_eq!(gateway.end_of_itself(), Some(0));
    assert_quiet("run", &std::fs::read_to_string(stderr).unwrap());
    assert_eq!(server.end("TERM"), Some(0));
}
