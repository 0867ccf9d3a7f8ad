//! Memory that a flood took goes back to the system: a gateway runs for months beside others.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gattway::replicator::REASSEMBLY_BYTES_MAX;

use super::attacker::Attacker;
use super::process::{listening, resident};
use super::{ALONE, MIB};

/// What may stay of it: pools that are kept on purpose, and pages that hold a little of what lives.
const KEPT_MAX: usize = 16 * MIB;
const PATIENCE: Duration = Duration::from_secs(120);

/// A `serve` for all; killed when dropped.
struct Gateway {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    fn start() -> Gateway {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gattway"));
        command.arg("--db").arg(directory.path().join("test.db"));
        command.args(["serve", "--plain", "--json", "--listen", "tcp:127.0.0.1:0"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let address = listening(&mut child);
        Gateway { child, address, _directory: directory }
    }

    /// What of its memory is in use, in bytes.
    fn resident(&self) -> usize {
        resident(self.child.id())
    }

    /// Peers at once that each leave much unfinished; gives the most that was in use.
    fn flood(&self) -> usize {
        let address = self.address;
        let peers = (0..8).map(|_| {
            std::thread::spawn(move || {
                let mut peer = Attacker::connect_to(address);
                peer.flood(200, REASSEMBLY_BYTES_MAX - MIB);
                std::thread::sleep(Duration::from_millis(200));
            })
        });
        let peers: Vec<_> = peers.collect();
        let mut most = 0;
        while peers.iter().any(|peer| !peer.is_finished()) {
            most = most.max(self.resident());
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut bomb = Attacker::connect_to(address);
        bomb.bomb(64 * MIB);
        let _ = bomb.end();
        most.max(self.resident())
    }
}

#[test]
fn memory_is_given_back_after_floods() {
    let _alone = ALONE.blocking_lock();
    let gateway = Gateway::start();
    // What the first connection makes stays.
    drop(Attacker::connect_to(gateway.address));
    let before = gateway.resident();
    let most = (0..3).map(|_| gateway.flood()).max().unwrap_or(0);
    assert!(most > before + 2 * KEPT_MAX, "{most} of {before}: the flood takes nothing, so nothing is shown");
    let until = Instant::now() + PATIENCE;
    let mut after = gateway.resident();
    while after > before + KEPT_MAX {
        assert!(
            Instant::now() < until,
            "{} KiB before, {} at most, {} after",
            before / 1024,
            most / 1024,
            after / 1024
        );
        std::thread::sleep(Duration::from_millis(100));
        after = gateway.resident();
    }
    println!("resident: {} KiB before, {} at most, {} after", before / 1024, most / 1024, after / 1024);
}
