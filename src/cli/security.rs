//! How `serve` and `sync` keep strangers out: the options, the identity, and what is said about a peer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::events::{Event, Events};
use super::{CliError, Exit};
use crate::endpoint::MessageEndpointConnection;
use crate::secure::epoch::EpochError;
use crate::secure::{
    Access, Authentication, Established, Grant, Identity, Keyring, PeerId, PeerPolicy, Psk, Refusal,
};
use crate::transport::secure::{Carrier, SecureConnection, SecureConnectionConfig};
use crate::transport::session::LinkConnection;
use crate::trust::{GroupNews, IdentityError, Trust, TrustOpenError};

/// What to do when nobody could come in.
const HOW_TO_MEET: &str = "put both into a group (`gattway group create` here, `gattway group join` there), or pair the two \
(`gattway pair`); for a test, --trust-all on both sides lets anybody in, encrypted";

/// Of the options in `--help`. Each has it by itself: a heading of a whole group would go on over what follows.
const HEADING: &str = "Who may come in";

/// How often what has become of the group's secret is told.
const NEWS_INTERVAL: Duration = Duration::from_millis(100);

/// Options of commands that talk to peers.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct SecurityArgs {
    /// Let strangers in as well: encrypted, and shown by the ID that they prove, but whoever comes may do everything
    #[arg(help_heading = HEADING, long, conflicts_with = "plain")]
    trust_all: bool,

    /// No encryption, and nobody proves anything; only if both sides say so. For stock Couchbase peers and wires that
    /// are safe by themselves
    #[arg(help_heading = HEADING, long)]
    plain: bool,
}

/// How peers are met.
#[derive(Clone)]
pub(super) enum Security {
    Plain,
    Secure(SecureConnectionConfig),
}

impl SecurityArgs {
    /// Whether nothing is to be encrypted.
    pub(super) fn is_plain(self) -> bool {
        self.plain
    }

    /// Reads the identity of the database in `dir`, made at the first use, and who may come in.
    pub(super) fn open(self, dir: &Path) -> Result<(Security, TrustRefresher), CliError> {
        if self.plain {
            return Ok((Security::Plain, TrustRefresher { trust: None, task: None }));
        }
        let identity = Arc::new(identity(dir)?);
        let trust = Arc::new(Trust::open(dir).map_err(open_failed)?);
        trust.call_self(&super::pair::host_name());
        let known = Arc::clone(&trust);
        let policy: Arc<dyn PeerPolicy> = if self.trust_all { Arc::new(TrustAll(known)) } else { known };
        let security = Security::Secure(SecureConnectionConfig::new(identity, policy));
        Ok((security, TrustRefresher { trust: Some(trust), task: None }))
    }
}

fn open_failed(error: TrustOpenError) -> CliError {
    match error {
        TrustOpenError::List(error) => super::peers::failed(error),
        TrustOpenError::Group(error) => super::group::failed(error),
    }
}

/// Keeps the answers about peers up to date while a command runs, and notes at its end who was seen.
pub(super) struct TrustRefresher {
    trust: Option<Arc<Trust>>,
    task: Option<JoinHandle<()>>,
}

impl TrustRefresher {
    /// Begins to look for changes that other commands make, and to tell what becomes of the group's secret. Needs a tokio
    /// runtime.
    pub(super) fn start(&mut self, events: &Events) {
        let (trust, events) = (self.trust.clone(), events.clone());
        self.task = trust.map(|trust| tokio::spawn(follow(trust, events)));
    }

    /// Tells what has become of the group's secret and was not told yet.
    pub(super) fn tell(&self, events: &Events) {
        if let Some(trust) = &self.trust {
            tell_news(trust, events);
        }
    }

    /// The peer that a person named, by its name in the list or its address.
    pub(super) fn prefer(&self, name: Option<&str>) {
        if let (Some(trust), Some(name)) = (&self.trust, name) {
            trust.prefer(name);
        }
    }

    /// The answers, unless nobody proves anything.
    #[cfg(feature = "bluetooth")]
    pub(super) fn trust(&self) -> Option<&Arc<Trust>> {
        self.trust.as_ref()
    }
}

async fn follow(trust: Arc<Trust>, events: Events) {
    let mut tick = tokio::time::interval(NEWS_INTERVAL);
    let mut looking = std::pin::pin!(Arc::clone(&trust).follow());
    loop {
        tokio::select! {
            () = &mut looking => return,
            _ = tick.tick() => tell_news(&trust, &events),
        }
    }
}

fn tell_news(trust: &Trust, events: &Events) {
    for sync_marks in trust.take_news() {
        match sync_marks {
            GroupNews::Changed { epoch, from } => {
                let number = epoch.map_or_else(String::new, |epoch| format!(": epoch {epoch}"));
                let by = from.map_or_else(|| "by a command".to_owned(), |from| format!("by {from}"));
                events.say(&format!("the group has a new secret{number}, given {by}"));
                events.emit(&Event::GroupChanged { epoch, from: from.map(|from| from.to_text()) });
            }
            GroupNews::PeerHas { peer, epoch } => {
                events.say(&format!("{peer} has the group's secret of epoch {epoch}"));
                events.emit(&Event::GroupTaken { id: peer.to_text(), epoch });
            }
        }
    }
}

impl Drop for TrustRefresher {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        if let Some(trust) = &self.trust {
            trust.look();
        }
    }
}

impl Security {
    /// Whether the bytes are encrypted and the peer proves who it is.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self, Security::Secure(_))
    }

    /// What there is to say before the first peer comes.
    pub(super) fn notes(&self) -> Vec<String> {
        match self {
            Security::Plain => {
                vec!["NOT encrypted: anybody in reach may read along and take part (--plain)".into()]
            }
            Security::Secure(config) if Keyring::new(&config.identity, &*config.policy).is_empty() => {
                vec![
                    "nobody may connect yet: this database is in no group and has no paired peer".into(),
                    format!("  -> {HOW_TO_MEET}"),
                ]
            }
            Security::Secure(config) if config.policy.admits_strangers() => {
                vec![format!("this database is {}; strangers are let in (--trust-all)", config.identity.id())]
            }
            Security::Secure(config) => vec![format!("this database is {}", config.identity.id())],
        }
    }

    /// An active side needs something that a peer may know.
    pub(super) fn check_offer(&self) -> Result<(), CliError> {
        match self {
            Security::Secure(config) if Keyring::new(&config.identity, &*config.policy).is_empty() => {
                let message = "no peer could know this database: it is in no group and has no paired peer";
                Err(CliError::new(Exit::Usage, message).help(HOW_TO_MEET))
            }
            _ => Ok(()),
        }
    }

    /// A connection that was not opened, as these settings want it.
    pub(super) fn over_stream(
        &self,
        connection: Arc<dyn MessageEndpointConnection>,
    ) -> Arc<dyn MessageEndpointConnection> {
        match self {
            Security::Plain => connection,
            Security::Secure(config) => {
                Arc::new(SecureConnection::active(Carrier::Stream(connection), config.clone()))
            }
        }
    }

    /// The same over a link.
    pub(super) fn over_link(&self, connection: Arc<LinkConnection>) -> Arc<dyn MessageEndpointConnection> {
        match self {
            Security::Plain => connection,
            Security::Secure(config) => {
                Arc::new(SecureConnection::active(Carrier::Link(connection), config.clone()))
            }
        }
    }
}

/// The identity of the database in `dir`; made if it has none.
pub(super) fn identity(dir: &Path) -> Result<Identity, CliError> {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy)
        .map_err(|error| CliError::new(Exit::Failure, format!("the system has no randomness: {error}")))?;
    Identity::load_or_create(dir, entropy).map_err(|error| {
        let exit = CliError::new(Exit::Database, format!("the identity of this database: {error}"));
        match &error {
            IdentityError::File(file) => exit.help(file.advice()),
            IdentityError::Mode { .. } => exit.help(
                "whoever could read it can pretend to be this database: if in doubt, remove it and pair anew",
            ),
            _ => exit,
        }
    })
}

/// No core file may hold keys, nor may another process of this user look into this one.
pub(super) fn keep_secrets_in_memory() {
    // Where this is not permitted the secrets are as safe as the system keeps them.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// A peer as people read it: its name if it has one, and the beginning of its ID.
pub(super) fn peer_name(peer: &PeerId, grant: &Grant) -> String {
    match &grant.name {
        Some(name) => format!("{name} ({peer})"),
        None => peer.to_string(),
    }
}

/// Tells who came in.
pub(super) fn announce(events: &Events, label: &str, peer: &Established) {
    let (name, via) = (peer_name(&peer.peer, &peer.grant), via_name(peer.via));
    events.say(&format!("{label}: {name}, {via}, encrypted"));
    let via = match peer.via {
        Authentication::Group => "group",
        Authentication::FormerGroup => "former_group",
        Authentication::Paired => "paired",
        Authentication::Open => "open",
    };
    let (id, name) = (peer.peer.to_text(), peer.grant.name.as_deref());
    events.emit(&Event::Peer { peer: label, id, name, via });
}

/// How a peer came in, as people read it.
pub(super) fn via_name(via: Authentication) -> &'static str {
    match via {
        Authentication::Group => "member of the group",
        Authentication::FormerGroup => "member of the group with an earlier secret",
        Authentication::Paired => "paired",
        Authentication::Open => "stranger, let in",
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
        let peer = peer_name(peer, grant);
        return Err(format!(
            "{peer} {lack} the collection {collection} of this database: sync in one direction only (--push, --pull), \
             leave the collection out, or allow it (`gattway peers allow`)"
        ));
    }
    Ok(())
}

/// A group alone, without a trust list: who has its key may do everything.
pub(super) struct Members(pub(super) Psk);

impl PeerPolicy for Members {
    fn group_psk(&self) -> Option<Psk> {
        Some(self.0.clone())
    }

    fn paired(&self) -> Vec<PeerId> {
        Vec::new()
    }

    fn admit(&self, _: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        match via {
            Authentication::Group => Ok(Grant::full(None)),
            Authentication::FormerGroup | Authentication::Paired | Authentication::Open => {
                Err(Refusal::Stranger)
            }
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }
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

    fn admits_strangers(&self) -> bool {
        self.0.failure().is_none()
    }

    fn admit(&self, peer: &PeerId, via: Authentication) -> Result<Grant, Refusal> {
        match self.0.admit(peer, via) {
            // Who was denied cannot be told from others while the list cannot be read.
            Err(Refusal::Stranger | Refusal::FormerMember) if self.0.failure().is_none() => {
                Ok(Grant::full(None))
            }
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
