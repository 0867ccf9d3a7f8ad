//! The victim: `gattway serve` in a process of its own, a member of a group.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gattway::database::{Database, DatabaseConfig};
use gattway::lab::secure::Psk;
use gattway::lab::secure::group::GroupSecret;

use super::process::{listening, resident};

/// Documents that the gateway has, for who pulls.
const DOCUMENTS: usize = 20_000;
/// How often its memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The secret of the group; it protects nothing.
fn secret() -> GroupSecret {
    GroupSecret::from_bytes([9; 16])
}

/// The key of the group that gateway and member are in.
pub fn group_key() -> Psk {
    secret().key().psk()
}

pub struct Gateway {
    child: Child,
    pub address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(db: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("--db").arg(db).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn fill(path: &Path) {
    let db = Database::open(path, DatabaseConfig::default()).expect("a database");
    let collection = db.default_collection().expect("it is always there");
    let text = "x".repeat(150);
    let saved = db.batch(|batch| {
        (0..DOCUMENTS).try_for_each(|n| {
            let body = format!("{{\"n\":{n},\"text\":\"{text}\"}}");
            batch.put_json(&collection, &format!("doc-{n:06}"), body.as_bytes())
        })
    });
    saved.expect("saved");
}

impl Gateway {
    pub fn start() -> Gateway {
        let directory = tempfile::tempdir().expect("temporary directory");
        let db = directory.path().join("gateway.db");
        fill(&db);
        let mut join = command(&db, &["group", "join"]).stdin(Stdio::piped()).spawn().expect("it starts");
        let mut input = join.stdin.take().expect("piped");
        input.write_all(secret().code().as_bytes()).expect("it reads the code");
        drop(input);
        assert!(join.wait().expect("it ends").success(), "the gateway is not in the group");
        let mut child = command(&db, &["serve", "--json", "--listen", "tcp:127.0.0.1:0"])
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        let address = listening(&mut child);
        Gateway { child, address, _directory: directory }
    }

    /// What of its memory is in use, in bytes.
    pub fn resident(&self) -> usize {
        resident(self.child.id())
    }

    /// Looks at its memory until it is asked for the most.
    pub fn watch(&self) -> Watch {
        let (most, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (id, seen, ended) = (self.child.id(), Arc::clone(&most), Arc::clone(&stop));
        let looking = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                seen.fetch_max(resident(id), Ordering::Relaxed);
                std::thread::sleep(LOOK);
            }
        });
        Watch { most, stop, looking }
    }
}

pub struct Watch {
    most: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<()>,
}

impl Watch {
    pub fn most(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.join().expect("the gateway lives");
        self.most.load(Ordering::Relaxed)
    }
}
