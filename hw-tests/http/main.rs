//! HTTP as programs meet it: real processes, real sockets.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../command/mod.rs"]
mod command;

mod attachments;
mod beside;
mod client;
mod documents;
mod hostile;
mod network;
mod people;
mod programs;
mod python;
mod query;

use std::path::{Path, PathBuf};

use command::Process;

/// A database with a process that serves it.
struct Served {
    _directory: tempfile::TempDir,
    db: PathBuf,
    process: Process,
}

impl Served {
    fn start() -> Served {
        let directory = tempfile::tempdir().unwrap();
        Served::start_in(directory, "plant.db")
    }

    fn start_in(directory: tempfile::TempDir, name: &str) -> Served {
        let db = directory.path().join(name);
        let mut process = Process::start(&db, &["serve", "--listen", "tcp:127.0.0.1:0", "--json"]);
        process.address();
        Served { _directory: directory, db, process }
    }

    fn client(&self) -> client::Client {
        client::Client::unix(&self.db.join("http"))
    }
}

/// Ends a process in order.
#[track_caller]
fn end(served: Served) {
    let Served { process, _directory, db } = served;
    assert_eq!(process.terminate(), Some(0));
    assert!(!Path::new(&db).join("http").exists(), "the socket is removed");
}
