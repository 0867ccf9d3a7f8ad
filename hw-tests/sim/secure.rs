//! Secure sessions of the nodes: each has an identity, all that belong together a group or a pairing.

use std::sync::Arc;

use gattway::endpoint::MessageEndpointConnection;
use gattway::lab::secure::{Authentication, Grant, Identity, PeerId, PeerPolicy, Psk, Refusal};
use gattway::lab::transport::clock::Clock;
use gattway::lab::transport::secure::{Carrier, SecureConnection, SecureConnectionConfig};
use gattway::lab::transport::session::LinkConnection;
use tokio::sync::watch;

use super::plan::{Plan, Security};

/// Who a node lets in.
struct Policy {
    group: Option<Psk>,
    paired: Vec<PeerId>,
    /// Never changes: the answers do not.
    version: watch::Sender<u64>,
}

impl PeerPolicy for Policy {
    fn group_psk(&self) -> Option<Psk> {
        self.group.clone()
    }

    fn paired(&self) -> Vec<PeerId> {
        self.paired.clone()
    }

    fn admit(&self, peer: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        match via {
            Authentication::Group => Ok(Grant::full(None)),
            Authentication::Paired if self.paired.contains(peer) => Ok(Grant::full(None)),
            _ => Err(Refusal::Stranger),
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

/// The identity of a node.
pub fn identity(seed: u64, node: usize) -> Identity {
    let mut private = [0; 32];
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x1de_4717 ^ (node as u64) << 32);
    rng.fill(&mut private);
    Identity::from_private(private)
}

/// The settings of a process of a node; `None` if all speak plain. `seed` is new for each process;
/// only a few keys are offered in a handshake, that for `wanted` first; `files` says who may come in where files do.
pub fn config(
    plan: &Plan,
    node: usize,
    seed: u64,
    clock: Clock,
    wanted: Option<usize>,
    files: Option<Arc<dyn PeerPolicy>>,
) -> Option<SecureConnectionConfig> {
    let mut policy = Policy { group: None, paired: Vec::new(), version: watch::Sender::new(0) };
    match plan.security {
        Security::Plain => return None,
        Security::Files => policy.group = Some(super::files::secret(plan.seed).key().psk()),
        Security::Group => policy.group = Some(Psk([plan.seed as u8; 32])),
        Security::Paired => {
            let order = wanted.into_iter().chain((0..plan.nodes).filter(|node| Some(*node) != wanted));
            policy.paired = order.map(|node| identity(plan.seed, node).id()).collect();
        }
    }
    let policy = files.unwrap_or_else(|| Arc::new(policy));
    let mut config = SecureConnectionConfig::new(Arc::new(identity(plan.seed, node)), policy);
    config.seed = Some(seed);
    config.clock = clock;
    Some(config)
}

/// The active side of a connection, secure if so configured.
pub fn active(
    connection: Arc<LinkConnection>,
    config: Option<&SecureConnectionConfig>,
) -> Arc<dyn MessageEndpointConnection> {
    match config {
        None => connection,
        Some(config) => Arc::new(SecureConnection::active(Carrier::Link(connection), config.clone())),
    }
}

/// Under which name a node remembers what it has synced with `peer`.
pub fn name(security: Security, run_seed: u64, peer: usize) -> String {
    match security {
        Security::Plain => format!("node-{peer}"),
        Security::Group | Security::Paired | Security::Files => identity(run_seed, peer).id().to_text(),
    }
}
