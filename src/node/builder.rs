//! How a node is configured and started.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::access::{self, Admission, Security, TrustRefresher};
use super::error::NodeError;
use super::event::NodeEvent;
use super::handle::Node;
use super::hub::{Hub, Observer};
use super::intake::PeerIntake;
use super::listen::{Addresses, Listen, Local, Opened, Places};
use super::places::PlaceSet;
use super::shared::NodeShared;
use crate::database::Database;
use crate::endpoint::ProtocolType;
use crate::replica::store::ReplicaStore;
use crate::replicator::{CONNECTIONS_MAX, MessageEndpointListenerConfiguration, PeerQuota, Quotas, Traffic};
use crate::task;

/// Settings of a [`Node`]. All collections, for push and pull, to peers that it knows, unless changed.
#[must_use = "a node does nothing before `start`"]
pub struct NodeBuilder {
    db: Database,
    collections: Option<Vec<String>>,
    admission: Admission,
    access: Option<(Security, TrustRefresher)>,
    places: Vec<Box<dyn Listen>>,
    observers: Vec<Observer<NodeEvent>>,
    options: NodeOptions,
}

/// Settings of a node that not many need: make the default and change what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeOptions {
    /// Whether peers that connect may change documents here. They may, unless changed.
    pub accept_push: bool,
    /// Connections of peers at one time; 64, unless changed.
    pub connections_max: usize,
    /// What is taken of each peer in a time, if it proves who it is; `None`: anything. What it pushes here and what syncs get
    /// from it count together; a sync that is done once takes all there is, unless
    /// [`SyncOptions::within_quota`](super::SyncOptions::within_quota) says otherwise.
    pub peer_quota: Option<PeerQuota>,
    /// Whether each document of peers that connect gives an event, and not those alone that failed. It costs something for
    /// each.
    pub report_documents: bool,
}

impl Default for NodeOptions {
    fn default() -> NodeOptions {
        NodeOptions {
            accept_push: true,
            connections_max: CONNECTIONS_MAX,
            peer_quota: Some(PeerQuota::default()),
            report_documents: false,
        }
    }
}

impl Node {
    /// A node for a database, to be started.
    pub fn builder(db: Database) -> NodeBuilder {
        NodeBuilder::new(db)
    }
}

impl NodeBuilder {
    fn new(db: Database) -> NodeBuilder {
        NodeBuilder {
            db,
            collections: None,
            admission: Admission::default(),
            access: None,
            places: Vec::new(),
            observers: Vec::new(),
            options: NodeOptions::default(),
        }
    }

    /// The collections that are synced, by full names (`scope.name`, or `_default`); all that there are at the start, unless
    /// chosen.
    pub fn collections<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> NodeBuilder {
        self.collections = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Which peers are met, when they come and when they are synced with.
    pub fn admission(mut self, admission: Admission) -> NodeBuilder {
        self.admission = admission;
        self
    }

    /// The same, opened already: the command tells of it before it starts.
    #[cfg(feature = "cli")]
    pub(crate) fn access(mut self, security: Security, trust_refresher: TrustRefresher) -> NodeBuilder {
        self.access = Some((security, trust_refresher));
        self
    }

    /// Listens there as well.
    pub fn listen(mut self, place: impl Listen) -> NodeBuilder {
        self.places.push(Box::new(place));
        self
    }

    /// Everything else that can be chosen.
    pub fn options(mut self, options: NodeOptions) -> NodeBuilder {
        self.options = options;
        self
    }

    /// Calls back with each event, from the task where it happens; the callback must not block. Unlike a stream it misses none,
    /// and hears where the node listens.
    pub fn observe(mut self, observer: impl Fn(&NodeEvent) + Send + Sync + 'static) -> NodeBuilder {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Starts. Where it cannot listen it tries again, while it can elsewhere.
    ///
    /// # Errors
    /// The identity or the list of peers cannot be used; it can listen nowhere. Nothing runs then.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn start(
        #[cfg_attr(not(feature = "bluetooth"), expect(unused_mut))] mut self,
    ) -> Result<Node, NodeError> {
        let (security, mut trust_refresher) = match self.access {
            Some(access) => access,
            None => access::open(self.db.path(), self.admission)?,
        };
        let all_collections = self.collections.is_none();
        let collections = self.collections.unwrap_or_else(|| self.db.collections());
        #[cfg(feature = "bluetooth")]
        let told = count_statuses(&mut self.observers);
        let events = Arc::new(Hub::new(self.observers));
        let teller = Arc::downgrade(&events);
        trust_refresher.start(Arc::new(move |news| {
            if let Some(events) = teller.upgrade() {
                events.emit(NodeEvent::Group(*news));
            }
        }));
        #[cfg(feature = "bluetooth")]
        let bluez = crate::transport::bluez::Bluez::default();
        #[cfg(feature = "bluetooth")]
        let local = Local {
            versioning: self.db.versioning(),
            is_secure: security.is_secure(),
            advert: Some(Arc::new(super::advert::Advert::new(
                &self.db,
                &collections,
                &security,
                &trust_refresher,
            ))),
            connections: told,
            adverts: super::advertised::Adverts::default(),
            reporter: Some(Arc::new(super::radio::Reporter::new(&events, bluez.clone()))),
            bluez,
        };
        #[cfg(not(feature = "bluetooth"))]
        let local = Local { versioning: self.db.versioning() };
        let store: Arc<dyn ReplicaStore> = Arc::new(self.db.clone());
        let names = collections.iter().map(String::as_str);
        let quotas = self.options.peer_quota.map(|quota| Quotas::new(quota, &store, names));
        let mut config = MessageEndpointListenerConfiguration::new(store, ProtocolType::ByteStream)
            .with_collections(collections.clone());
        config.accept_push = self.options.accept_push;
        config.connections_max = self.options.connections_max;
        config.peer_quota = self.options.peer_quota;
        config.quotas.clone_from(&quotas);
        let traffic = Traffic::default();
        config.traffic = traffic.clone();
        config.report_documents = self.options.report_documents;
        let intake = PeerIntake::new(&security, config, Arc::clone(&events));
        let mut opened = Opened::new(self.places.len());
        let (mut listening, listens) = (JoinSet::new(), !self.places.is_empty());
        let places = Places {
            local: local.clone(),
            intake: intake.clone(),
            events: Arc::clone(&events),
            addresses: Addresses::default(),
        };
        let places_at_start = self.places.len();
        for (number, place) in self.places.into_iter().enumerate() {
            listening.spawn(places.listening(number, place, false).keep_open(opened.report()));
        }
        let shared = NodeShared {
            db: self.db,
            collections,
            all_collections,
            security,
            trust_refresher: trust_refresher.into(),
            local,
            events,
            quotas,
            traffic,
            syncs: std::sync::Mutex::default(),
        };
        let listener = Arc::clone(intake.listener());
        // What fails or is given up from here on is ended by the drop.
        let intake = task::spawn(intake.run());
        let places = PlaceSet { places, next: places_at_start, added: HashMap::new() };
        let node = Node { shared: Arc::new(shared), listener, listening, listens, places, intake };
        if let Err(mut failed) = opened.any().await {
            let first = failed.remove(0);
            return Err(NodeError::Listen { first, others: failed });
        }
        Ok(node)
    }
}

/// Counts what connections tell of their state.
#[cfg(feature = "bluetooth")]
fn count_statuses(observers: &mut Vec<Observer<NodeEvent>>) -> tokio::sync::watch::Sender<u64> {
    let told = tokio::sync::watch::Sender::new(0);
    let count = told.clone();
    observers.push(Arc::new(move |event| {
        if matches!(event, NodeEvent::Status { .. }) {
            count.send_modify(|count| *count += 1);
        }
    }));
    told
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("database", &self.db.path())
            .field("collections", &self.collections)
            .field("admission", &self.admission)
            .finish_non_exhaustive()
    }
}
