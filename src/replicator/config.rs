//! What a session is told before it starts, and the limits it keeps.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::extension::RevsFormat;
use super::names::{DEFAULT_COLLECTION, canonical_name};
use super::resolver::DefaultResolver;
use crate::blip::BlipConfig;
use crate::endpoint::{AccessRule, CollectionAccess};
use crate::replica::store::ConflictResolver;

/// Changes in one list, as Couchbase Lite has it.
pub const CHANGES_BATCH: usize = 200;

/// Most changes a list to a peer may hold, whatever the peer asks for.
pub const CHANGES_BATCH_MAX: usize = 1_000;

/// Change lists that may await their reply at one time, in each collection.
pub const LISTS_IN_FLIGHT_MAX: usize = 5;

/// Change lists that may await their reply at one time, in all collections of a session.
pub const LISTS_IN_FLIGHT_SESSION_MAX: usize = 64;

/// Bytes of a change list above which it ends, unless its first entry alone has more. 200 entries have about 14 KiB; an
/// entry that names a long version vector has up to 80 KiB.
pub const LIST_BYTES: usize = 64 << 10;

/// Bytes of version vectors in the reply to one list of proposals; beyond them only current versions are named.
pub const CONFLICT_VECTOR_BYTES_MAX: usize = 64 << 10;

/// Single revisions that may await their reply at one time, in each collection. Couchbase Lite has 10; a receiver that
/// syncs its medium before each answer then syncs for every 10 documents, which costs ten times the throughput.
pub const REVS_IN_FLIGHT_MAX: usize = 200;

/// Single revisions that may await their reply at one time, in all collections of a session.
pub const REVS_IN_FLIGHT_SESSION_MAX: usize = 1_000;

/// Body bytes of single revisions that may await their reply at one time, in all collections of a session; one more
/// revision of any size may go below it. With the largest message this fits into what a receiver holds of one peer.
pub const REV_BYTES_IN_FLIGHT_MAX: usize = 2 << 20;

/// Revisions the peer wants that may wait to be sent before no further list is made, in each collection.
pub const WANTED_REVS_MAX: usize = 1_000;

/// How long a changed checkpoint waits before it is saved.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// How long the resolution of a conflict waits before it is pushed to a stock peer: a second conflicting edit made at
/// the same time then goes with it.
pub const RESOLUTION_PUSH_DELAY: Duration = Duration::from_millis(200);

/// How long nothing may move in either direction while the peer owes an answer. Above the 120 s for which a transport keeps a
/// lost link to resume it, and some for going on.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(150);

/// How long one request may await its reply although the peer keeps sending other things, in reply time-outs.
pub const REPLY_TIMEOUT_FACTOR: u32 = 4;

/// How long a stopped session may still finish what is in flight.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Outgoing bytes queued in BLIP below which a session adds more. Enough to keep a fast transport busy between polls.
pub const SEND_QUEUE_LOW: usize = 128 << 10;

/// Bytes of replies in BLIP that are not sent whole, above which further requests with long answers wait for them.
pub const REPLY_BYTES_HIGH: usize = 1 << 20;

/// Bytes of replies in BLIP, without those that wait for an acknowledgement, above which input is no longer accepted: the
/// peer asks faster than it reads. What this side asks for does not count: it waits for input.
pub const REPLY_BYTES_MAX: usize = 4 << 20;

/// Replies queued in BLIP above which input is no longer accepted. An empty one is one byte on its way and some hundreds
/// in memory.
pub const REPLIES_MAX: usize = 8_192;

/// Requests that are answered at once, without a revision for the store, that may come together. Beyond it input waits.
pub const REQUESTS_AT_ONCE_MAX: u32 = 4_096;

/// Time after which one of them counts no more.
pub const REQUEST_INTERVAL: Duration = Duration::from_micros(500);

/// Bytes of the peer's requests that wait for their answer, above which input is no longer accepted. A peer that keeps
/// [`LISTS_IN_FLIGHT_SESSION_MAX`] does not come there.
pub const HELD_REQUESTS_BYTES_MAX: usize = 8 << 20;

/// Bytes of revisions that may wait for their commit before input is no longer accepted.
pub const COMMIT_QUEUE_BYTES_MAX: usize = 4 << 20;

/// Revisions that may wait for their commit before input is no longer accepted.
pub const COMMIT_QUEUE_REVISIONS_MAX: usize = 16_384;

/// Most revisions in one commit, so that a commit stays short and the peer soon has its answers.
pub const COMMIT_REVISIONS_MAX: usize = 4_096;

/// Most bytes of revisions in one commit, unless the first alone has more.
pub const COMMIT_BYTES_MAX: usize = 2 << 20;

/// Events that may wait for the driver before input is no longer accepted.
pub const EVENTS_MAX: usize = 65_536;

/// Collections in one replication.
pub const COLLECTIONS_MAX: usize = 256;

/// Entries of one list from a peer.
pub const LIST_ENTRIES_MAX: usize = 10_000;

/// Document IDs that the subscriptions of one connection may name, all together.
pub const DOCUMENT_IDS_MAX: usize = 100_000;

/// Revisions asked of the peer and not yet arrived, above which the answer to further lists waits.
pub const EXPECTED_REVS_HIGH: usize = 2_000;

/// Entries of lists that are not settled, above which the answer to further lists waits. One revision that does not come
/// keeps all that are listed after it.
pub const LISTED_ENTRIES_HIGH: usize = 50_000;

/// Lists whose answer may wait.
pub const HELD_LISTS_MAX: usize = 64;

/// Bytes of lists whose answer may wait, unless one alone has more.
pub const HELD_LIST_BYTES_MAX: usize = 1 << 20;

/// Ranges in which a peer's feed may have arrived; in order it is one, and each writer beside us adds a few.
pub const FEED_RANGES_MAX: usize = 65_536;

/// In which direction documents go, seen from the active side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplicatorType {
    /// Both.
    #[default]
    PushAndPull,
    /// Only from here to the peer.
    Push,
    /// Only from the peer to here.
    Pull,
}

impl ReplicatorType {
    /// Whether documents go from here to the peer.
    #[doc(hidden)]
    pub fn pushes(self) -> bool {
        self != ReplicatorType::Pull
    }

    /// Whether documents come from the peer.
    #[doc(hidden)]
    pub fn pulls(self) -> bool {
        self != ReplicatorType::Push
    }
}

/// A revision as a filter sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FilterInput<'a> {
    /// Full name of the collection.
    pub collection: &'a str,
    /// The document's ID.
    pub id: &'a str,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// The body as JSON text; unchecked if it came from the peer.
    pub body: &'a [u8],
}

/// Says whether a revision may pass.
pub type ReplicationFilter = Arc<dyn Fn(&FilterInput<'_>) -> bool + Send + Sync>;

/// One collection of an active replication.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct CollectionConfig {
    /// Full name: `scope.name`, or `_default`.
    pub name: String,
    /// Only these documents, in both directions; `None` for all.
    pub document_ids: Option<Vec<String>>,
    /// Revisions it refuses are not pushed.
    pub push_filter: Option<ReplicationFilter>,
    /// Revisions it refuses are not stored.
    pub pull_filter: Option<ReplicationFilter>,
    /// A filter that the peer is asked to apply. gattway peers refuse any; a server may know some.
    pub remote_filter: Option<String>,
    /// Only documents of these channels of a Sync Gateway are pulled; empty: all that it gives. Any other peer refuses it.
    pub channels: Vec<String>,
    /// Decides conflicts of this collection, in place of the replicator's.
    pub resolver: Option<Arc<dyn ConflictResolver>>,
    /// Ask for no tombstones on the first pull.
    pub skip_deleted: bool,
    /// Whether the run goes on without it, or in one direction, if the peer does not have it or the one may not do with it
    /// what the other asks; that is told. Otherwise the run ends with an error, as with Couchbase Lite.
    pub optional: bool,
}

impl CollectionConfig {
    /// All documents of the collection of this name.
    pub fn new(name: impl Into<String>) -> CollectionConfig {
        CollectionConfig { name: name.into(), ..CollectionConfig::default() }
    }
}

impl fmt::Debug for CollectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectionConfig")
            .field("name", &self.name)
            .field("document_ids", &self.document_ids.as_ref().map(Vec::len))
            .field("push_filter", &self.push_filter.is_some())
            .field("pull_filter", &self.pull_filter.is_some())
            .finish_non_exhaustive()
    }
}

/// Settings of the active side of one connection.
#[derive(Clone)]
pub struct ActiveConfig {
    /// What is replicated; at least one.
    pub collections: Vec<CollectionConfig>,
    /// In which direction.
    pub direction: ReplicatorType,
    /// Whether to go on after everything has been exchanged.
    pub continuous: bool,
    /// Forget the checkpoints and compare everything again.
    pub reset: bool,
    /// Try again what stands on the lists of what could not be synced.
    pub retry_unsynced: bool,
    /// Identifies the peer; part of the checkpoint's identity.
    pub peer_uid: String,
    /// The name under which is noted how far the peer has confirmed our feed, if anybody wants to know.
    pub confirmed_as: Option<String>,
    /// What the peer may do with collections here; `None`: everything.
    pub access: Option<AccessRule>,
    /// Full names of collections that the peer is known to lack: they are told, and not asked for.
    pub absent: Vec<String>,
    /// Limits and compression below.
    pub blip: BlipConfig,
    /// Whether to offer the extension between gattway peers.
    pub extension: bool,
    /// Whether a changed document may travel as what has changed of it, to and from peers that know deltas.
    pub deltas: bool,
    /// The newest form of its messages that is offered: an older one is what an older release says.
    pub revs_format: RevsFormat,
    /// Decides conflicts.
    pub resolver: Arc<dyn ConflictResolver>,
    /// Whether documents that a server says are no longer for us go.
    pub auto_purge: bool,
    /// Names the connection in the logs of both sides; empty: nothing is said.
    pub correlation: String,
    /// Whether each replicated document gives an event. Failed ones always do.
    pub report_documents: bool,
    /// How long nothing may move while the peer owes an answer.
    pub reply_timeout: Duration,
    /// How long a changed checkpoint waits before it is saved.
    pub checkpoint_interval: Duration,
    /// A random number, another for each session: from it come the marks by which checkpoints are told apart.
    pub mark_seed: u64,
}

impl Default for ActiveConfig {
    fn default() -> ActiveConfig {
        ActiveConfig {
            collections: vec![CollectionConfig::new(DEFAULT_COLLECTION)],
            direction: ReplicatorType::PushAndPull,
            continuous: false,
            reset: false,
            retry_unsynced: false,
            peer_uid: String::new(),
            confirmed_as: None,
            access: None,
            absent: Vec::new(),
            blip: BlipConfig::default(),
            extension: true,
            deltas: true,
            revs_format: RevsFormat::NEWEST,
            resolver: Arc::new(DefaultResolver),
            auto_purge: true,
            correlation: String::new(),
            report_documents: true,
            reply_timeout: REPLY_TIMEOUT,
            checkpoint_interval: CHECKPOINT_INTERVAL,
            mark_seed: 0,
        }
    }
}

impl fmt::Debug for ActiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveConfig")
            .field("collections", &self.collections)
            .field("direction", &self.direction)
            .field("continuous", &self.continuous)
            .field("peer_uid", &self.peer_uid)
            .field("extension", &self.extension)
            .finish_non_exhaustive()
    }
}

/// Settings of the passive side of one connection.
#[derive(Clone)]
pub struct PassiveConfig {
    /// Full names of what is offered.
    pub collections: Vec<String>,
    /// Whether the peer may push to us.
    pub accept_push: bool,
    /// Whether the peer may pull from us.
    pub accept_pull: bool,
    /// Who the peer has proven to be; empty if it has not.
    pub peer_uid: String,
    /// What this peer may do, collection by collection, within the two above; `None`: everything.
    pub access: Option<AccessRule>,
    /// Revisions it refuses are not stored.
    pub incoming_filter: Option<ReplicationFilter>,
    /// Revisions it refuses are not offered.
    pub outgoing_filter: Option<ReplicationFilter>,
    /// Limits and compression below.
    pub blip: BlipConfig,
    /// Whether to accept the extension between gattway peers.
    pub extension: bool,
    /// Whether a changed document may travel as what has changed of it, to and from peers that know deltas.
    pub deltas: bool,
    /// The newest form of its messages that is accepted.
    pub revs_format: RevsFormat,
    /// Whether a peer that never sends `getCollections` gets the default collection, as older ones expect.
    pub default_without_collections: bool,
    /// Whether each replicated document gives an event. Failed ones always do.
    pub report_documents: bool,
    /// How long nothing may move while the peer owes an answer.
    pub reply_timeout: Duration,
}

impl Default for PassiveConfig {
    fn default() -> PassiveConfig {
        PassiveConfig {
            collections: vec![DEFAULT_COLLECTION.to_owned()],
            accept_push: true,
            accept_pull: true,
            peer_uid: String::new(),
            access: None,
            incoming_filter: None,
            outgoing_filter: None,
            blip: BlipConfig::default(),
            extension: true,
            deltas: true,
            revs_format: RevsFormat::NEWEST,
            default_without_collections: true,
            report_documents: true,
            reply_timeout: REPLY_TIMEOUT,
        }
    }
}

impl PassiveConfig {
    /// What the peer may do with a collection, all rules taken together.
    pub(super) fn access_to(&self, collection: &str) -> CollectionAccess {
        let granted = match &self.access {
            Some(rule) => rule(collection),
            None => CollectionAccess { push: true, pull: true },
        };
        CollectionAccess { push: granted.push && self.accept_push, pull: granted.pull && self.accept_pull }
    }

    /// Of what comes in, and of what goes out.
    pub(super) fn filters(&self) -> (Option<ReplicationFilter>, Option<ReplicationFilter>) {
        (self.incoming_filter.clone(), self.outgoing_filter.clone())
    }

    /// Whether the peer may know that a collection exists.
    pub(super) fn offers(&self, collection: &str) -> bool {
        let listed = |offered: &String| canonical_name(offered) == collection;
        let granted = || self.access.as_ref().is_none_or(|rule| rule(collection) != NO_ACCESS);
        self.collections.iter().any(listed) && granted()
    }
}

const NO_ACCESS: CollectionAccess = CollectionAccess { push: false, pull: false };

impl fmt::Debug for PassiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassiveConfig")
            .field("collections", &self.collections)
            .field("accept_push", &self.accept_push)
            .field("accept_pull", &self.accept_pull)
            .field("extension", &self.extension)
            .finish_non_exhaustive()
    }
}
