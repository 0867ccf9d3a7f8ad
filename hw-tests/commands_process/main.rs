//! The command as a process among others: signals, readers that stall or leave, limits of the system.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../command/mod.rs"]
mod command;

mod failing_disk;
mod floods;
mod limits;
mod people;
mod unread;
#[cfg(feature = "websocket")]
mod web;

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use command::PATIENCE;
use serde_json::Value;

const WEATHER: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/hw-tests/data/seattle-weather-hourly-normals.csv");

/// A database path in a directory that lives as long as the first value.
fn database() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.db");
    (directory, path)
}

/// Killed when dropped.
struct Guard(Child);

impl Guard {
    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Waits until it has ended.
    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not end within {PATIENCE:?}");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process says on standard error, as it comes.
fn said_by(child: &mut Child) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let (mut stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&said));
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = stderr.read(&mut bytes) {
            kept.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..len]));
        }
    });
    said
}

/// Reads events until the one that tells where peers can connect; gives the address.
#[track_caller]
fn listening(events: &mut impl BufRead) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(events.read_line(&mut line).unwrap() > 0, "it ended before it listened");
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "listening" {
            return event["address"].as_str().unwrap().to_owned();
        }
    }
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
