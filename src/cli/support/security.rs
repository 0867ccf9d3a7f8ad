//! How `serve` and `sync` keep strangers out: the options, the identity, and what is said about a peer.

use std::path::Path;

use clap::Args;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::sync::watch;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::paced::Topic;
use crate::cli::support::trust::{group_failed, list_failed};
use crate::node::access::{self, peer_name};
pub(crate) use crate::node::access::{Security, TrustRefresher};
use crate::node::{AccessError, Admission};
use crate::secure::{Authentication, Grant, Identity, PeerId, PeerPolicy, Psk, Refusal};
use crate::trust::{GroupNews, IdentityError, TrustOpenError};

/// What to do when nobody could come in.
const HOW_TO_MEET: &str = "put both into a group (`gattway group create` here, `gattway group join` there), or pair the two \
(`gattway pair`); for a test, --trust-all on both sides lets anybody in, encrypted";

/// Of the options in `--help`. Each has it by itself: a heading of a whole group would go on over what follows.
const HEADING: &str = "Who may come in";

/// Options of commands that talk to peers.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct SecurityArgs {
    /// Let strangers in as well: encrypted, and shown by the ID that they prove, but whoever comes may do everything
    #[arg(help_heading = HEADING, long, conflicts_with = "plain")]
    trust_all: bool,

    /// No encryption, and nobody proves anything; only if both sides say so. For stock Couchbase peers and wires that
    /// are safe by themselves
    #[arg(help_heading = HEADING, long)]
    plain: bool,
}

impl SecurityArgs {
    /// Whether nothing is to be encrypted.
    pub(crate) fn is_plain(self) -> bool {
        self.plain
    }

    /// Reads the identity of the database in `dir`, made at the first use, and who may come in.
    pub(crate) fn open(self, dir: &Path) -> Result<(Security, TrustRefresher), CliError> {
        let admission = match self {
            SecurityArgs { plain: true, .. } => Admission::Plain,
            SecurityArgs { trust_all: true, .. } => Admission::Anybody,
            _ => Admission::Known,
        };
        access::open(dir, admission).map_err(failed)
    }
}

/// Why the identity, the group or the trust list cannot be used.
pub(crate) fn failed(error: AccessError) -> CliError {
    match error {
        AccessError::Trust(TrustOpenError::List(error)) => list_failed(error),
        AccessError::Trust(TrustOpenError::Group(error)) => group_failed(error),
        AccessError::Identity(IdentityError::File(file)) => {
            let advice = file.advice();
            CliError::new(Exit::Database, AccessError::Identity(IdentityError::File(file)).to_string())
                .help(advice)
        }
        AccessError::Identity(IdentityError::Mode { .. }) => CliError::new(Exit::Database, error.to_string())
            .help(
                "whoever could read it can pretend to be this database: if in doubt, remove it and pair anew",
            ),
        AccessError::Identity(_) => CliError::new(Exit::Database, error.to_string()),
        _ => CliError::new(Exit::Failure, error.to_string()),
    }
}

/// Tells what has become of the group's secret.
pub(crate) fn tell_group_news(events: &Events, news: &GroupNews) {
    // A change by the authority is rare and must be seen; that a peer has a secret, it can make known again and again.
    if matches!(news, GroupNews::PeerHas { peer, .. } if !events.may_tell(Topic::Group, &peer.to_text())) {
        return;
    }
    events.say(&news.to_string());
    events.emit(&match *news {
        GroupNews::Changed { epoch, from } => {
            Event::GroupChanged { epoch, from: from.map(|from| from.to_text()) }
        }
        GroupNews::PeerHas { peer, epoch } => Event::GroupTaken { id: peer.to_text(), epoch },
    });
}

/// What there is to say before the first peer comes.
pub(crate) fn notes(security: &Security) -> Vec<String> {
    match security {
        Security::Plain => {
            vec!["NOT encrypted: anybody in reach may read along and take part (--plain)".into()]
        }
        Security::Secure(_) if security.knows_nobody() => {
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
pub(crate) fn check_offer(security: &Security) -> Result<(), CliError> {
    if security.knows_nobody() {
        let message = "no peer could know this database: it is in no group and has no paired peer";
        return Err(CliError::new(Exit::Usage, message).help(HOW_TO_MEET));
    }
    Ok(())
}

/// The identity of the database in `dir`; made if it has none.
pub(crate) fn identity(dir: &Path) -> Result<Identity, CliError> {
    access::identity(dir).map_err(failed)
}

/// No core file may hold keys, nor may another process of this user look into this one.
pub(crate) fn keep_secrets_in_memory() {
    // Where this is not permitted the secrets are as safe as the system keeps them.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Tells who came in.
pub(crate) fn announce(events: &Events, label: &str, peer: &PeerId, name: Option<&str>, via: Authentication) {
    let id = peer.to_text();
    if !events.may_tell(Topic::Peer, &id) {
        return;
    }
    events.say(&format!("{label}: {}, {}, encrypted", peer_name(peer, name), via_name(via)));
    let via = match via {
        Authentication::Group => "group",
        Authentication::FormerGroup => "former_group",
        Authentication::Paired => "paired",
        Authentication::Open => "open",
    };
    events.emit(&Event::Peer { peer: label, id, name, via });
}

/// How a peer came in, as people read it.
pub(crate) fn via_name(via: Authentication) -> &'static str {
    match via {
        Authentication::Group => "member of the group",
        Authentication::FormerGroup => "member of the group with an earlier secret",
        Authentication::Paired => "paired",
        Authentication::Open => "stranger, let in",
    }
}

/// A group alone, without a trust list: who has its key may do everything.
pub(crate) struct Members(pub(crate) Psk);

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
