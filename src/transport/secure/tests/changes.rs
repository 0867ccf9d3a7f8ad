//! Another role ends an open connection; another word about the same does not.

use std::sync::Mutex;

use tokio::io::{duplex, split};

use super::*;
use crate::secure::{Access, Permissions};
use crate::transport::stream::StreamConnection;

/// A group whose key and whose members' role can change.
struct Changing {
    now: Mutex<(u8, Access)>,
    version: watch::Sender<u64>,
}

impl Changing {
    fn new(key: u8, role: Access) -> Arc<Changing> {
        Arc::new(Changing { now: Mutex::new((key, role)), version: watch::Sender::new(0) })
    }

    fn now(&self) -> (u8, Access) {
        *self.now.lock().expect("not poisoned")
    }

    fn become_(&self, key: u8, role: Access) {
        *self.now.lock().expect("not poisoned") = (key, role);
        self.version.send_modify(|version| *version += 1);
    }
}

impl PeerPolicy for Changing {
    fn group_psk(&self) -> Option<Psk> {
        Some(Psk([self.now().0; 32]))
    }

    fn paired(&self) -> Vec<PeerId> {
        Vec::new()
    }

    fn admit(&self, _: &PeerId, _: Authentication) -> Result<Grant, Refusal> {
        Ok(Grant { name: None, permissions: Permissions::all(self.now().1) })
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

fn config_of(device: u8, policy: Arc<Changing>) -> SecureConnectionConfig {
    let mut config = SecureConnectionConfig::new(Arc::new(Identity::from_private([device; 32])), policy);
    config.seed = Some(u64::from(device));
    config
}

/// The active and the passive side of a new connection.
async fn connected(active: &Arc<Changing>, passive: &Arc<Changing>) -> (End, End) {
    let acceptor = SecureAcceptor::new(config_of(2, passive.clone()));
    let (near, far) = duplex(8 * 1024);
    let carriers = [near, far].map(|stream| {
        let (reader, writer) = split(stream);
        Carrier::Stream(Arc::new(StreamConnection::accepted(reader, writer, "pipe")))
    });
    let [near, far] = carriers;
    acceptor.incoming(far, "pipe");
    let near = Arc::new(SecureConnection::active(near, config_of(1, active.clone())));
    let (near, far) = tokio::join!(End::open(near), async { accepted(&acceptor).await });
    (near.expect("open"), End::open(far.connection).await.expect("open"))
}

/// Both sides end, and may connect again.
async fn assert_both_end(ends: (End, End), why: &str) {
    let (mut near, mut far) = ends;
    let both = async { tokio::join!(near.end(), far.end()) };
    let (near, far) =
        timeout(Duration::from_secs(60), both).await.unwrap_or_else(|_| panic!("{why}: goes on"));
    for error in [near, far] {
        let error = error.unwrap_or_else(|| panic!("{why}: an orderly end"));
        assert!(error.is_recoverable() && error.message().contains("changed"), "{why}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_role_ends_what_was_opened_with_the_old_one() {
    for (before, after) in [(Access::ReadWrite, Access::Read), (Access::Read, Access::ReadWrite)] {
        for changes_at_passive in [true, false] {
            let (active, passive) = (Changing::new(9, before), Changing::new(9, before));
            let mut ends = connected(&active, &passive).await;
            let changing = if changes_at_passive { &passive } else { &active };
            changing.become_(9, before);
            exchange(&mut ends.0, &mut ends.1, 1_000, 1).await;
            changing.become_(9, after);
            assert_both_end(
                ends,
                &format!("{before:?} to {after:?}, at the passive side: {changes_at_passive}"),
            )
            .await;
        }
    }
}
