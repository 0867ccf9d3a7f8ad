//! The gateway as its users meet it: a configuration, the daemon, its status, and the service manager around it.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../command/mod.rs"]
mod command;

mod configuration;
mod manager;
mod medium;
mod mqtt;
mod readme;
mod reload;
mod retention;
mod syncs;
mod top;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use command::{Ended, PATIENCE, Process, ok};
use serde_json::Value;

/// A machine's directories, with the configuration of one gateway.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new(configuration: &str) -> Machine {
        let machine = Machine { directory: tempfile::tempdir().unwrap() };
        for part in ["etc", "etc/conf.d", "state", "run", "credentials"] {
            std::fs::create_dir(machine.path(part)).unwrap();
        }
        machine.write("etc/gattway.toml", configuration);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file that is its owner's alone.
    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A command as the service manager would run it.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gattway"));
        command
            .args(args)
            .env_remove("RUST_LOG")
            .env_remove("GATTWAY_DB")
            .env_remove("NOTIFY_SOCKET")
            .env("GATTWAY_CONFIG", self.path("etc/gattway.toml"))
            .env("STATE_DIRECTORY", self.path("state"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .env("CREDENTIALS_DIRECTORY", self.path("credentials"));
        command
    }

    /// Runs a short command to its end.
    fn run(&self, args: &[&str]) -> Ended {
        let output = self.command(args).output().unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts the gateway.
    fn start(&self) -> Process {
        Process::of(self.command(&["run", "--json"]))
    }

    fn status(&self) -> Value {
        let ended = self.run(&["status", "--json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// Documents of a database that the gateway has open.
    fn documents(&self, database: &str) -> Vec<String> {
        let listed = command::run(&self.path("state").join(database), &["db", "ls"]);
        // Between two states of the database nobody answers.
        listed.stdout.lines().map(str::to_owned).collect()
    }
}

/// A gateway that listens, started, and the machine of another that hands data on to it.
fn central_and_field() -> (Machine, Process, Machine) {
    let central = Machine::new(
        "[databases.central]\ntrust-all = true\n[listeners.lan]\naddress = \"tcp:127.0.0.1:0\"\n",
    );
    let mut at_central = central.start();
    let address = at_central.address();
    let field = Machine::new(&format!(
        "[databases.field]\ntrust-all = true\n[upstreams.central]\naddress = \"{address}\"\n"
    ));
    (central, at_central, field)
}

/// Puts a document into a database that nobody has open.
fn put(db: &Path, id: &str) {
    ok(db, &["db", "put", id, "{}"]);
}

/// The next event of this kind.
#[track_caller]
fn event(process: &mut Process, kind: &str) -> Value {
    process.wait_for(|event| event["event"] == kind)
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
