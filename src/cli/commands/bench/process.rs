//! This command as other processes: started, listened to, ended in order.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{CliError, Exit};

/// A `gattway` that runs on a database and tells events. Killed when dropped.
pub(super) struct Process {
    child: Child,
    /// Lines of its output, read as they come: one that nobody reads would hold it up.
    lines: Receiver<String>,
}

impl Process {
    /// Starts the command with `--db DB ARGS --json`.
    pub(super) fn start(db: &Path, args: &[&str]) -> Result<Process, CliError> {
        Process::start_with(db, args, Stdio::inherit())
    }

    /// The same without what it has to say to people: it will be cut off.
    pub(super) fn start_unheard(db: &Path, args: &[&str]) -> Result<Process, CliError> {
        Process::start_with(db, args, Stdio::null())
    }

    /// Starts `serve` on a free port of this machine, for whoever comes and with these options; gives where it listens.
    pub(super) fn serve(db: &Path, options: &[&str]) -> Result<(Process, String), CliError> {
        let args = [&["serve", "--listen", "tcp:127.0.0.1:0", "--trust-all"], options].concat();
        let mut process = Process::start(db, &args)?;
        let listening = process.event("listening")?;
        let address = listening["address"].as_str().unwrap_or_default().to_owned();
        Ok((process, address))
    }

    fn start_with(db: &Path, args: &[&str], messages: Stdio) -> Result<Process, CliError> {
        let failed = |error| CliError::new(Exit::Failure, format!("cannot start another gattway: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg("--db")
            .arg(db)
            .args(args)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(messages)
            .spawn()
            .map_err(failed)?;
        match child.stdout.take() {
            Some(stdout) => Ok(Process { child, lines: read_lines(stdout) }),
            None => Err(CliError::new(Exit::Failure, "another gattway has no output")),
        }
    }

    /// Runs the command to its end, without its output.
    pub(super) fn run(db: &Path, args: &[&str]) -> Result<(), CliError> {
        let mut process = Process::start(db, args)?;
        process.lines.iter().for_each(drop);
        let status = process.child.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(CliError::new(Exit::Failure, format!("gattway {}: {status}", args.join(" "))))
    }

    /// The next event of this kind.
    pub(super) fn event(&mut self, kind: &str) -> Result<Value, CliError> {
        let is_it =
            |line: String| serde_json::from_str::<Value>(&line).ok().filter(|event| event["event"] == kind);
        self.lines.iter().find_map(is_it).ok_or_else(|| {
            CliError::new(Exit::Failure, format!("another gattway ended before its event {kind:?}"))
        })
    }

    /// Its process ID.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; gives its last event.
    pub(super) fn end(mut self) -> Result<Value, CliError> {
        let event = self.event("finished")?;
        self.child.wait()?;
        Ok(event)
    }

    /// Asks it to end; gives its last event.
    pub(super) fn finish(self) -> Result<Value, CliError> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Fails only if it has ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        self.end()
    }
}

fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (lines, received) = channel();
    std::thread::spawn(move || {
        // It ends with the output, or when nobody wants it any more.
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    received
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
