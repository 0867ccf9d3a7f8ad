//! This command as other processes: started, listened to, ended in order.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{CliError, Exit};

/// A `gattway` that runs on a database and tells events. Killed when dropped.
pub(super) struct Process {
    child: Child,
    events: BufReader<ChildStdout>,
}

impl Process {
    /// Starts the command with `--db DB ARGS --json`.
    pub(super) fn start(db: &Path, args: &[&str]) -> Result<Process, CliError> {
        let failed = |error| CliError::new(Exit::Failure, format!("cannot start another gattway: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg("--db")
            .arg(db)
            .args(args)
            .arg("--json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        match child.stdout.take() {
            Some(stdout) => Ok(Process { child, events: BufReader::new(stdout) }),
            None => Err(CliError::new(Exit::Failure, "another gattway has no output")),
        }
    }

    /// The next event of this kind.
    pub(super) fn event(&mut self, kind: &str) -> Result<Value, CliError> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.events.read_line(&mut line)? == 0 {
                return Err(CliError::new(
                    Exit::Failure,
                    format!("another gattway ended before its event {kind:?}"),
                ));
            }
            match serde_json::from_str::<Value>(&line) {
                Ok(event) if event["event"] == kind => return Ok(event),
                _ => {}
            }
        }
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

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
