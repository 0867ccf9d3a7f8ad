//! Who may come in: the identity of a database, the policy for its peers, and the watch over what other commands change.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::hub::Observer;
use crate::endpoint::MessageEndpointConnection;
use crate::secure::epoch::EpochError;
use crate::secure::{Access, Authentication, Grant, Identity, Keyring, PeerId, PeerPolicy, Psk, Refusal};
use crate::task;
use crate::transport::secure::{Carrier, SecureConnection, SecureConnectionConfig};
use crate::trust::list::check_name;
use crate::trust::{GroupNews, IdentityError, Trust, TrustOpenError};

/// Which peers a node meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// Members of the database's group, and peers in its trust list, each with what the list lets it do; encrypted. Without a
    /// group and without a paired peer nobody can come in.
    #[default]
    Known,
    /// Others as well, with full access; encrypted, and shown by the ID that they prove. Who was denied stays out.
    Anybody,
    /// Nothing is encrypted and nobody proves anything: for stock Couchbase peers, and for wires that are safe by
    /// themselves. Both sides have to say so.
    Plain,
}

/// Why the identity or the list of peers of a database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// No new identity can be made.
    #[error("the system has no randomness: {reason}")]
    #[non_exhaustive]
    Randomness {
        /// What the system says.
        reason: String,
    },
    /// The identity cannot be read or made.
    #[error("the identity of this database: {0}")]
    Identity(
        #[doc(hidden)]
        #[from]
        IdentityError,
    ),
    /// The group or the trust list cannot be read.
    #[error(transparent)]
    Trust(
        #[doc(hidden)]
        #[from]
        TrustOpenError,
    ),
}

/// How peers are met.
#[derive(Clone)]
pub(crate) enum Security {
    /// Without encryption, and without a proof.
    Plain,
    /// In secure sessions.
    Secure(SecureConnectionConfig),
}

/// Reads the identity of the database in `dir`, made at the first use, and who may come in.
pub(crate) fn open(dir: &Path, admission: Admission) -> Result<(Security, TrustRefresher), AccessError> {
    if admission == Admission::Plain {
        return Ok((Security::Plain, TrustRefresher::default()));
    }
    let identity = Arc::new(identity(dir)?);
    let trust = Arc::new(Trust::open(dir)?);
    trust.call_self(&own_name());
    let known = Arc::clone(&trust);
    let policy: Arc<dyn PeerPolicy> =
        if admission == Admission::Anybody { Arc::new(TrustAll(known)) } else { known };
    let security = Security::Secure(SecureConnectionConfig::new(identity, policy));
    Ok((security, TrustRefresher { trust: Some(trust), task: None, tell: None }))
}

/// The identity of the database in `dir`; made if it has none.
pub(crate) fn identity(dir: &Path) -> Result<Identity, AccessError> {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(|error| AccessError::Randomness { reason: error.to_string() })?;
    Ok(Identity::load_or_create(dir, entropy)?)
}

/// The name of this machine; empty where it has none.
pub(crate) fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// What this device calls itself to others: the name of the machine, or what stands for it.
pub(crate) fn own_name() -> String {
    let name = machine_name();
    if check_name(&name).is_ok() { name } else { "gattway".to_owned() }
}

/// Keeps the answers about peers up to date while a node runs, and notes at its end who was seen.
#[derive(Default)]
pub(crate) struct TrustRefresher {
    trust: Option<Arc<Trust>>,
    task: Option<JoinHandle<()>>,
    tell: Option<Observer<GroupNews>>,
}

impl TrustRefresher {
    /// Begins to look for changes that other processes make, and to tell what becomes of the group's secret. Needs a tokio
    /// runtime.
    pub(super) fn start(&mut self, tell: Observer<GroupNews>) {
        self.tell = Some(Arc::clone(&tell));
        self.task = self.trust.clone().map(|trust| task::spawn(follow(trust, tell)));
    }

    /// The peer that a person named, by its name in the list or its address.
    pub(super) fn prefer(&self, name: &str) {
        if let Some(trust) = &self.trust {
            trust.prefer(name);
        }
    }

    /// The answers, unless nobody proves anything.
    #[cfg(feature = "bluetooth")]
    pub(crate) fn trust(&self) -> Option<&Arc<Trust>> {
        self.trust.as_ref()
    }

    /// Ends it: tells what was not told yet, and notes who was seen.
    pub(super) fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        let Some(trust) = self.trust.take() else { return };
        if let Some(tell) = &self.tell {
            tell_news(&trust, tell);
        }
        trust.look();
    }
}

async fn follow(trust: Arc<Trust>, tell: Observer<GroupNews>) {
    let mut looking = std::pin::pin!(Arc::clone(&trust).follow());
    loop {
        tokio::select! {
            () = &mut looking => return,
            () = trust.news_came() => tell_news(&trust, &tell),
        }
    }
}

fn tell_news(trust: &Trust, tell: &Observer<GroupNews>) {
    trust.take_news().iter().for_each(|news| tell(news));
}

impl Drop for TrustRefresher {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Security {
    /// Whether the bytes are encrypted and the peer proves who it is.
    pub(crate) fn is_secure(&self) -> bool {
        matches!(self, Security::Secure(_))
    }

    /// Whether no peer could know this database: it is in no group and has no paired peer, and strangers are not met.
    pub(crate) fn knows_nobody(&self) -> bool {
        match self {
            Security::Plain => false,
            Security::Secure(config) => Keyring::new(&config.identity, &*config.policy).is_empty(),
        }
    }

    /// A connection of the active side over `carrier`, not opened, as these settings want it.
    pub(crate) fn over(&self, carrier: Carrier) -> Arc<dyn MessageEndpointConnection> {
        match self {
            Security::Secure(config) => Arc::new(SecureConnection::active(carrier, config.clone())),
            Security::Plain => carrier.into_connection(),
        }
    }
}

/// A peer as people read it: its name if it has one, and the beginning of its ID.
pub(crate) fn peer_name(peer: &PeerId, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{name} ({peer})"),
        None => peer.to_string(),
    }
}

/// Whether a peer may do what a sync of these collections asks of it; else what it lacks. `some`: it suffices if it may do
/// some of it.
pub(super) fn check_grant(
    peer: &PeerId,
    grant: &Grant,
    collections: &[String],
    (push, pull): (bool, bool),
    some: bool,
) -> Result<(), String> {
    let may_do = |collection: &String| {
        let access = grant.permissions.of(collection);
        push && access.may_read() || pull && access.may_write()
    };
    if some && collections.iter().any(may_do) {
        return Ok(());
    }
    for collection in collections {
        let access: Access = grant.permissions.of(collection);
        let lack = if push && !access.may_read() {
            "may not read"
        } else if pull && !access.may_write() {
            "may not write"
        } else {
            continue;
        };
        let peer = peer_name(peer, grant.name.as_deref());
        return Err(format!(
            "{peer} {lack} the collection {collection} of this database: sync in one direction only (--push, --pull), \
             leave the collection out, or allow it (`gattway peers allow`)"
        ));
    }
    Ok(())
}

/// Known peers as they are known, and everybody else as well; who was denied stays out.
struct TrustAll(Arc<Trust>);

impl PeerPolicy for TrustAll {
    fn group_psk(&self) -> Option<Psk> {
        self.0.group_psk()
    }

    fn former_psks(&self) -> Vec<Psk> {
        self.0.former_psks()
    }

    fn epoch(&self, peer: &PeerId) -> Option<(Psk, Zeroizing<Vec<u8>>)> {
        self.0.epoch(peer)
    }

    fn take_epoch(&self, from: &PeerId, signed: &[u8]) -> Result<(), EpochError> {
        self.0.take_epoch(from, signed)
    }

    fn has_key(&self, peer: &PeerId, psk: &Psk) {
        self.0.has_key(peer, psk);
    }

    fn paired(&self) -> Vec<PeerId> {
        self.0.paired()
    }

    fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    fn admits_strangers(&self) -> bool {
        self.0.failure().is_none()
    }

    fn admit(&self, peer: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        match self.0.admit(peer, via) {
            // While the list cannot be read, and who was denied cannot be told from others, the refusal is another one.
            Err(Refusal::Stranger | Refusal::FormerMember) => Ok(Grant::full(None)),
            answer => answer,
        }
    }

    fn own_name(&self) -> Option<String> {
        self.0.own_name()
    }

    fn told_name(&self, peer: &PeerId, name: &str) {
        self.0.told_name(peer, name);
    }

    fn came(&self, peer: &PeerId, via: Authentication) {
        self.0.came(peer, via);
    }

    fn left(&self, peer: &PeerId, via: Authentication) {
        self.0.left(peer, via);
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.0.watch()
    }
}
