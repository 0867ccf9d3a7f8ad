//! Runs the `gattway` command for tests: short commands to their end, long ones as processes that can be killed.

#![allow(dead_code, clippy::unwrap_used)] // each test uses what it needs, and fails by panicking

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a process may take to say what a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a command that has ended left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The command on the database `db`, arguments to follow.
pub fn gattway(db: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gattway"));
    command.arg("--db").arg(db).env_remove("RUST_LOG").env_remove("GATTWAY_DB");
    command
}

/// Arguments as a test gives them: `serve` and `sync` let strangers in unless it says how they are to meet.
fn meeting<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let meets = args.first().is_some_and(|command| ["serve", "sync"].contains(command));
    let said = args.iter().any(|arg| ["--plain", "--trust-all", "--trusted-only"].contains(arg));
    let args = args.iter().copied().filter(|arg| *arg != "--trusted-only");
    args.chain((meets && !said).then_some("--trust-all")).collect()
}

/// Runs a command with `input` on its standard input.
pub fn run_with_input(db: &Path, args: &[&str], input: &[u8]) -> Ended {
    let mut child = gattway(db)
        .args(meeting(args))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that does not read its input is no failure of the test.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command without input.
pub fn run(db: &Path, args: &[&str]) -> Ended {
    run_with_input(db, args, b"")
}

/// Runs a command that must succeed, and gives its standard output.
#[track_caller]
pub fn ok(db: &Path, args: &[&str]) -> String {
    let ended = run(db, args);
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    ended.stdout
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A long-running command. Killed when dropped.
pub struct Process {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub events: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `gattway --db DB ARGS`, whose arguments should include `--json`.
    pub fn start(db: &Path, args: &[&str]) -> Process {
        Process::start_with_stderr(db, args, Stdio::inherit())
    }

    /// As [`Process::start`], with its standard error where it is wanted.
    pub fn start_with_stderr(db: &Path, args: &[&str], stderr: Stdio) -> Process {
        let mut command = gattway(db);
        command.args(meeting(args)).stderr(stderr);
        Process::of(command)
    }

    /// Starts a command that prints events.
    pub fn of(mut command: Command) -> Process {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let events = child.stdout.take().map(BufReader::new);
        Process { child, stdin, events }
    }

    /// The next event; `None` when the process has ended.
    pub fn event(&mut self) -> Option<Value> {
        let mut line = String::new();
        let len = self.events.as_mut().unwrap().read_line(&mut line).unwrap();
        (len > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}")))
    }

    /// The next event for which `wanted` holds.
    #[track_caller]
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let event = self.event().expect("the process ended before the event");
            if wanted(&event) {
                return event;
            }
        }
        panic!("the event did not come within {PATIENCE:?}");
    }

    /// Waits until `serve` listens, and gives the address.
    #[track_caller]
    pub fn address(&mut self) -> String {
        let event = self.wait_for(|event| event["event"] == "listening");
        event["address"].as_str().unwrap().to_owned()
    }

    /// Asks it to end in order, and waits.
    pub fn terminate(self) -> Option<i32> {
        self.end("TERM")
    }

    /// Sends it a signal, and waits for its end.
    pub fn end(mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.end_of_itself()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: &str) {
        drop(self.stdin.take());
        let kill =
            Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
    }

    /// Waits for its end.
    pub fn end_of_itself(mut self) -> Option<i32> {
        // Its output must not fill up meanwhile.
        if let Some(mut events) = self.events.take() {
            std::thread::spawn(move || std::io::copy(&mut events, &mut std::io::sink()));
        }
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not end within {PATIENCE:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
