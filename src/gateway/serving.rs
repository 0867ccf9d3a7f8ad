//! What runs while a database is open: its node, the places where peers come in, and the syncs that are kept going.
//!
//! One file, because what is begun, changed and ended with a database is one list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::board::Board;
use super::config::{DatabaseConfig, NodeConfig};
use super::place::{Kind, Place};
use super::retention::Retaining;
use super::tombstones::{TombstoneKeeping, TombstoneRules};
use super::upstream::{Order, Supervised, Upstream, Worker};
use super::{GatewayEvent, Tell};
use crate::database::Database;
use crate::node::{Admission, Node, NodeOptions, PlaceId};
use crate::task;

/// What stands before the name of an adapter where listeners and syncs of all kinds are named.
const RADIO: &str = "bluetooth.";

fn radio_name(name: &str) -> String {
    format!("{RADIO}{name}")
}

/// Of which database something is, and who is told.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) name: Arc<str>,
    pub(super) board: Board,
    pub(super) tell: Tell,
}

/// What runs.
pub(super) struct Serving {
    context: Context,
    db: Database,
    node: Node,
    places: BTreeMap<String, PlaceId>,
    syncs: BTreeMap<String, Supervised>,
    retention: BTreeMap<String, Retaining>,
    tombstones: Option<TombstoneKeeping>,
    #[cfg(feature = "mqtt")]
    brokers: BTreeMap<String, super::mqtt::Publishing>,
    /// Syncs that begin paused.
    paused: BTreeSet<String>,
    /// The collections that there were at the start, where all are offered to peers.
    offered: Option<Vec<String>>,
}

impl Serving {
    /// Begins with everything.
    ///
    /// # Errors
    /// The node cannot be started; nothing runs then.
    pub(super) async fn start(
        context: Context,
        db: &Database,
        config: &DatabaseConfig,
        paused: BTreeSet<String>,
    ) -> Result<Serving, String> {
        // Before the node looks: one that is made meanwhile is offered twice rather than not at all.
        let offered = config.node.collections.is_empty().then(|| db.collections());
        let node = start_node(&context, db, config).await?;
        let (places, syncs, retention, tombstones) = Default::default();
        let mut serving = Serving {
            context,
            db: db.clone(),
            node,
            places,
            syncs,
            retention,
            tombstones,
            #[cfg(feature = "mqtt")]
            brokers: BTreeMap::new(),
            paused,
            offered,
        };
        serving.use_node(config);
        serving.apply_retention(config);
        #[cfg(feature = "mqtt")]
        serving.apply_mqtt(config).await;
        serving.context.board.works();
        Ok(serving)
    }

    /// Why the database has failed, if it has.
    pub(super) fn failure(&self) -> Option<String> {
        let (path, reason) = (self.db.path().display(), self.db.failure()?);
        Some(format!("database {path}: {reason}; nothing that was acknowledged is lost"))
    }

    /// Lets peers in and begins the syncs.
    fn use_node(&mut self, config: &DatabaseConfig) {
        self.context.board.node(Arc::downgrade(self.node.listener()), self.node.traffic());
        #[cfg(feature = "bluetooth")]
        self.context.board.radio(self.node.radio());
        #[cfg(feature = "bluetooth")]
        self.context.board.adverts(self.node.adverts());
        #[cfg(feature = "bluetooth")]
        self.context.board.adapters(super::radio::adapters(config));
        for (name, (kind, plain)) in kinds(&self.context, config) {
            self.listen(&name, kind, plain);
        }
        for (name, upstream) in upstreams(config) {
            self.sync(&name, upstream);
        }
    }

    /// Whether collections have come or gone that peers are to be offered: connections have to be made again for it.
    pub(super) fn is_outdated(&self) -> bool {
        self.offered.as_ref().is_some_and(|offered| *offered != self.db.collections())
    }

    /// Makes all connections again, with another node. Brokers and rules go on.
    ///
    /// # Errors
    /// The node cannot be started; the one before goes on.
    pub(super) async fn renew_node(&mut self, config: &DatabaseConfig) -> Result<(), String> {
        let offered = self.offered.is_some().then(|| self.db.collections());
        let node = start_node(&self.context, &self.db, config).await?;
        let before = std::mem::replace(&mut self.node, node);
        self.offered = offered;
        // What waits to be synced with others would hold up the end.
        self.db.gather(false);
        end_node(before, std::mem::take(&mut self.syncs)).await;
        self.db.gather(true);
        self.places.clear();
        self.use_node(config);
        Ok(())
    }

    /// Is woken when something has changed, or failed.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.db.watch()
    }

    fn listen(&mut self, name: &str, kind: Kind, plain: bool) {
        let (tell, database) = (Arc::clone(&self.context.tell), Arc::clone(&self.context.name));
        let listener: Arc<str> = name.into();
        let place = Place {
            name: name.to_owned(),
            kind,
            directory: self.db.path().to_owned(),
            board: self.context.board.clone(),
            own_certificate: Box::new(move |pem| {
                let (database, listener, pem) =
                    (Arc::clone(&database), Arc::clone(&listener), pem.to_owned());
                tell(&GatewayEvent::OwnCertificate { database, listener, pem });
            }),
        };
        self.context.board.listener(name, &crate::node::Listen::address(&place));
        self.places.insert(name.to_owned(), self.node.listen(place, plain));
    }

    /// Lets nobody in by the adapters, or again; who came in that way goes on.
    pub(super) fn lend_radio(&mut self, lent: bool, config: &DatabaseConfig) {
        for (name, (kind, plain)) in kinds(&self.context, config) {
            if !name.starts_with(RADIO) {
                continue;
            }
            match self.places.remove(&name) {
                Some(place) if lent => {
                    self.node.stop_listening(place);
                    self.context.board.not_listening(&name);
                }
                Some(place) => drop(self.places.insert(name, place)),
                None if lent => {}
                None => self.listen(&name, kind, plain),
            }
        }
    }

    fn sync(&mut self, name: &str, upstream: Upstream) {
        let worker = Worker {
            database: Arc::clone(&self.context.name),
            name: name.into(),
            syncs: self.node.syncs(),
            board: self.context.board.clone(),
            tell: Arc::clone(&self.context.tell),
        };
        let paused = self.paused.contains(name);
        self.syncs.insert(name.to_owned(), Supervised::start(upstream, worker, paused));
    }

    /// Tells syncs something: all, or the one of this name.
    pub(super) fn order(&mut self, order: Order, name: Option<&str>) {
        for (known, sync) in self.syncs.iter().filter(|(known, _)| name.is_none_or(|name| name == **known)) {
            match order {
                Order::Now => sync.sync_now(),
                Order::Pause => {
                    self.paused.insert(known.clone());
                    sync.pause(true);
                }
                Order::Resume => {
                    self.paused.remove(known);
                    sync.pause(false);
                }
            }
        }
    }

    /// Changes listeners and syncs while all others go on; gives what was done.
    pub(super) async fn apply(&mut self, config: &DatabaseConfig, before: &DatabaseConfig) -> Vec<String> {
        #[cfg(feature = "bluetooth")]
        self.context.board.adapters(super::radio::adapters(config));
        let mut done = self.apply_listeners(config, before);
        done.extend(self.apply_retention(config));
        #[cfg(feature = "mqtt")]
        done.extend(self.apply_mqtt(config).await);
        let upstreams = upstreams(config);
        for name in self.syncs.keys().cloned().collect::<Vec<_>>() {
            if self.syncs.get(&name).map(|sync| &sync.upstream) != upstreams.get(&name)
                && let Some(sync) = self.syncs.remove(&name)
            {
                sync.stop().await;
                if !upstreams.contains_key(&name) {
                    self.context.board.forget_upstream(&name);
                    done.push(format!("upstream {name}: ended"));
                }
            }
        }
        for (name, upstream) in upstreams {
            if !self.syncs.contains_key(&name) {
                self.sync(&name, upstream);
                done.push(format!("upstream {name}: started as the new configuration says"));
            }
        }
        done
    }

    fn apply_listeners(&mut self, config: &DatabaseConfig, before: &DatabaseConfig) -> Vec<String> {
        let mut done = Vec::new();
        let kinds = kinds(&self.context, config);
        let is_same = |name: &str| match name.strip_prefix(RADIO) {
            Some(radio) => before.bluetooth.get(radio) == config.bluetooth.get(radio),
            None => before.listeners.get(name) == config.listeners.get(name),
        };
        for name in self.places.keys().cloned().collect::<Vec<_>>() {
            if kinds.contains_key(&name) && is_same(&name) {
                continue;
            }
            if let Some(place) = self.places.remove(&name) {
                self.node.stop_listening(place);
            }
            if !kinds.contains_key(&name) {
                self.context.board.forget_listener(&name);
                done.push(format!("listener {name}: ended"));
            }
        }
        for (name, (kind, plain)) in kinds {
            if !self.places.contains_key(&name) {
                self.listen(&name, kind, plain);
                done.push(format!("listener {name}: opened as the new configuration says"));
            }
        }
        done
    }

    /// Changes what is published where; gives what was done.
    #[cfg(feature = "mqtt")]
    async fn apply_mqtt(&mut self, config: &DatabaseConfig) -> Vec<String> {
        let mut done = Vec::new();
        for name in self.brokers.keys().cloned().collect::<Vec<_>>() {
            if self.brokers.get(&name).map(|broker| &broker.config) == config.mqtt.get(&name) {
                continue;
            }
            if let Some(broker) = self.brokers.remove(&name) {
                broker.stop().await;
            }
            self.context.board.forget_mqtt(&name);
            if !config.mqtt.contains_key(&name) {
                done.push(format!("mqtt {name}: ended"));
            }
        }
        for (name, config) in &config.mqtt {
            if !self.brokers.contains_key(name) {
                let broker = super::mqtt::Publishing::start(
                    name,
                    &self.context.name,
                    &self.db,
                    config.clone(),
                    (self.context.board.clone(), Arc::clone(&self.context.tell)),
                );
                self.brokers.insert(name.clone(), broker);
                done.push(format!("mqtt {name}: started as the new configuration says"));
            }
        }
        done
    }

    /// Changes the rules of collections; gives what was done.
    fn apply_retention(&mut self, config: &DatabaseConfig) -> Vec<String> {
        let (board, mut done) = (self.context.board.clone(), Vec::new());
        let rules = TombstoneRules::of(config);
        if self.tombstones.as_ref().is_none_or(|tombstones| tombstones.rules != rules) {
            if self.tombstones.is_some() {
                done.push("tombstones: kept as the new configuration says".into());
            }
            self.tombstones = Some(TombstoneKeeping::start(&self.db, rules, board.clone()));
        }
        self.retention.retain(|name, retaining| {
            let stays = config.retention.get(name) == Some(&retaining.config);
            if !stays {
                board.forget_retention(name);
                if !config.retention.contains_key(name) {
                    done.push(format!("retention {name}: ended"));
                }
            }
            stays
        });
        for (name, config) in &config.retention {
            if !self.retention.contains_key(name) {
                board.retention(name);
                let retaining = Retaining::start(name, &self.db, config.clone(), board.clone());
                self.retention.insert(name.clone(), retaining);
                done.push(format!("retention {name}: started as the new configuration says"));
            }
        }
        done
    }

    #[cfg(feature = "mqtt")]
    async fn end_mqtt(&mut self) {
        let brokers = std::mem::take(&mut self.brokers);
        let names: Vec<String> = brokers.keys().cloned().collect();
        let ending: Vec<_> = brokers.into_values().map(|broker| task::spawn(broker.stop())).collect();
        for ended in ending {
            let _ = ended.await;
        }
        names.iter().for_each(|name| self.context.board.forget_mqtt(name));
    }

    /// Ends what runs, in order.
    pub(super) async fn end(#[cfg_attr(not(feature = "mqtt"), allow(unused_mut))] mut self) {
        #[cfg(feature = "mqtt")]
        self.end_mqtt().await;
        let Serving { context, node, syncs, places, retention, tombstones, .. } = self;
        retention.keys().for_each(|name| context.board.forget_retention(name));
        drop((retention, tombstones));
        let names: Vec<String> = syncs.keys().cloned().collect();
        end_node(node, syncs).await;
        names.iter().for_each(|name| context.board.forget_upstream(name));
        places.keys().for_each(|name| context.board.forget_listener(name));
    }
}

async fn end_node(node: Node, syncs: BTreeMap<String, Supervised>) {
    let ending: Vec<_> = syncs.into_values().map(|sync| task::spawn(sync.stop())).collect();
    // Each sync has the same limit.
    let _ = node.shutdown().await;
    for ended in ending {
        let _ = ended.await;
    }
}

async fn start_node(context: &Context, db: &Database, database: &DatabaseConfig) -> Result<Node, String> {
    let config = &database.node;
    let admission = if config.trust_all { Admission::Anybody } else { Admission::Known };
    let mut builder = Node::builder(db.clone()).admission(admission).options(NodeOptions {
        accept_push: !config.read_only,
        connections_max: config.connections,
        peer_quota: config.quota,
        ..NodeOptions::default()
    });
    if let Some(collections) = choose_collections(db, config)? {
        builder = builder.collections(collections);
    }
    let observer = context.clone();
    let builder = builder.observe(move |event| {
        observer.board.observe_node(event);
        let database = Arc::clone(&observer.name);
        (observer.tell)(&GatewayEvent::Node { database, event: Box::new(event.clone()) });
    });
    let node = builder.start().await.map_err(|error| error.to_string())?;
    // A connection without our sessions asks for no group.
    let is_secure = !database.bluetooth.is_empty()
        || database.listeners.values().any(|listener| !listener.plain)
        || database.upstreams.values().any(|upstream| !upstream.plain);
    if is_secure && node.knows_nobody() {
        (context.tell)(&GatewayEvent::KnowsNobody { database: Arc::clone(&context.name) });
    }
    Ok(node)
}

/// Everything that is listened on, by name, and whether it is plain.
#[cfg_attr(not(feature = "bluetooth"), allow(unused_mut, unused_variables))]
fn kinds(context: &Context, config: &DatabaseConfig) -> BTreeMap<String, (Kind, bool)> {
    let mut kinds = BTreeMap::new();
    for (name, config) in &config.listeners {
        kinds.insert(name.clone(), (Kind::Configured(Box::new(config.clone())), config.plain));
    }
    #[cfg(feature = "bluetooth")]
    for (name, config) in config.bluetooth.iter().filter(|(_, config)| config.is_peripheral) {
        let place = super::radio::place(&context.name, config, &context.tell);
        kinds.insert(radio_name(name), (Kind::Bluetooth(Box::new(place)), false));
    }
    kinds
}

/// The names of everything that is synced with.
pub(super) fn sync_names(config: &DatabaseConfig) -> Vec<String> {
    upstreams(config).into_keys().collect()
}

/// Everything that is synced with, by name.
fn upstreams(config: &DatabaseConfig) -> BTreeMap<String, Upstream> {
    let peers = config.upstreams.iter();
    let mut all: BTreeMap<String, Upstream> =
        peers.map(|(name, config)| (name.clone(), Upstream::Peer(Box::new(config.clone())))).collect();
    // All adapters together visit the neighbours by one plan.
    let (names, adapters): (Vec<&str>, Vec<_>) = config
        .bluetooth
        .iter()
        .filter(|(_, config)| config.is_central)
        .map(|(name, config)| (name.as_str(), config.clone()))
        .unzip();
    if !adapters.is_empty() {
        all.insert(radio_name(&names.join("+")), Upstream::Neighbours(adapters));
    }
    all
}

/// The collections that are named, made if that is wanted; `None`: all.
fn choose_collections(db: &Database, config: &NodeConfig) -> Result<Option<Vec<String>>, String> {
    if config.collections.is_empty() {
        return Ok(None);
    }
    for name in config.collections.iter().filter(|name| db.collection(name).is_none()) {
        if !config.create_collections {
            return Err(format!("there is no collection {name}, and create-collections is false"));
        }
        db.create_collection(name).map_err(|error| format!("collection {name} cannot be made: {error}"))?;
    }
    Ok(Some(config.collections.clone()))
}
