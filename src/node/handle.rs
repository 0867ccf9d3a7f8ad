//! A node that runs.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

use super::access::Security;
use super::error::NodeError;
use super::event::NodeEvent;
use super::hub::EventStream;
use super::listen::{Listen, Report};
use super::places::{PlaceId, PlaceSet};
use super::shared::NodeShared;
use crate::replicator::{MessageEndpointListener, Traffic};
use crate::secure::PeerId;

/// How long connections and syncs may take to come to an orderly end; what is still open then is cut off.
pub(crate) const CLOSING_LIMIT: Duration = Duration::from_millis(2500);

/// A database that peers can reach, and that syncs with peers. Dropping it ends it without waiting for anybody; see
/// [`shutdown`](Self::shutdown).
/// ```
/// use gattway::{Database, DatabaseConfig, Node, Tcp};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
/// let node = Node::builder(db).collections(["_default"]).listen(Tcp::bind("127.0.0.1:0")).start().await?;
/// assert_eq!(node.addresses().len(), 1);
/// node.shutdown().await?;
/// # Ok(()) }
/// ```
pub struct Node {
    pub(super) shared: Arc<NodeShared>,
    pub(super) listener: Arc<MessageEndpointListener>,
    /// One task for each place.
    pub(super) listening: JoinSet<()>,
    pub(super) listens: bool,
    pub(super) places: PlaceSet,
    pub(super) intake: JoinHandle<()>,
}

impl Node {
    /// What happens from now on; ends with the node. What happened before it was started, as where it listens, is told by
    /// [`NodeBuilder::observe`](super::NodeBuilder::observe).
    pub fn events(&self) -> EventStream<NodeEvent> {
        self.shared.events.stream()
    }

    /// The ID that this node proves to peers; `None` where nobody proves anything.
    pub fn id(&self) -> Option<PeerId> {
        match &self.shared.security {
            Security::Plain => None,
            Security::Secure(config) => Some(config.identity.id()),
        }
    }

    /// Whether no peer could know this node: its database is in no group and has no paired peer, and others are not met.
    pub(crate) fn knows_nobody(&self) -> bool {
        self.shared.security.knows_nobody()
    }

    /// Where it listens now, in the order of [`NodeBuilder::listen`](super::NodeBuilder::listen); for TCP with the real port.
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.places.places.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.values().cloned().collect()
    }

    /// Listens there as well from now on; where it cannot, it tries again. `plain`: nobody proves anything there, whatever
    /// holds for the node.
    pub(crate) fn listen(&mut self, place: impl Listen, plain: bool) -> PlaceId {
        let number = self.places.next;
        self.places.next += 1;
        let listening = self.places.places.listening(number, Box::new(place), plain);
        let task = self.listening.spawn(listening.keep_open(Report::to_nobody()));
        self.places.added.insert(number, task);
        PlaceId(number)
    }

    /// Lets nobody in there any more; who came in that way goes on.
    pub(crate) fn stop_listening(&mut self, place: PlaceId) {
        if let Some(task) = self.places.added.remove(&place.0) {
            task.abort();
            self.places.places.forget(place.0);
        }
    }

    /// The radio connections, as they were looked at last; `None`: it was started without Bluetooth.
    #[cfg(feature = "bluetooth")]
    pub(crate) fn radio(&self) -> Option<tokio::sync::watch::Receiver<Vec<super::RadioStatus>>> {
        self.shared.local.reporter.as_ref().map(|reporter| reporter.watch())
    }

    /// What its adapters advertise.
    #[cfg(all(feature = "bluetooth", feature = "cli"))]
    pub(crate) fn adverts(&self) -> super::advertised::Adverts {
        Arc::clone(&self.shared.local.adverts)
    }

    /// The passive side of replication: open connections, and counters of what was refused.
    pub(crate) fn listener(&self) -> &Arc<MessageEndpointListener> {
        &self.listener
    }

    /// What peers and syncs have carried.
    pub(crate) fn traffic(&self) -> Traffic {
        self.shared.traffic.clone()
    }

    /// Waits until nobody can come in any more, as after the one peer of stdio has left; never ends for a node without a
    /// listener. May be dropped and called again.
    ///
    /// # Errors
    /// A listener has panicked.
    pub(crate) async fn until_deserted(&mut self) -> Result<(), NodeError> {
        while self.listens {
            match self.listening.join_next().await {
                Some(Ok(())) => {}
                Some(Err(_)) => return Err(NodeError::Panicked),
                None => return Ok(()),
            }
        }
        std::future::pending().await
    }

    /// Lets nobody in any more, and ends all connections and syncs in order, within 2.5 s and what Bluetooth takes
    /// to disconnect.
    ///
    /// # Errors
    /// Some did not end in time and were cut off.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        self.shutdown_within(CLOSING_LIMIT).await
    }

    /// As [`shutdown`](Self::shutdown), within another limit.
    ///
    /// # Errors
    /// Some connections did not end in time and were cut off.
    pub(crate) async fn shutdown_within(mut self, limit: Duration) -> Result<(), NodeError> {
        self.listening.abort_all();
        self.intake.abort();
        self.listener.close_all();
        let syncs = self.shared.syncs();
        syncs.iter().for_each(|sync| sync.stop());
        let all_ended = async {
            self.listener.wait_until_closed().await;
            for sync in &syncs {
                let _ = sync.ended().await;
            }
        };
        let result = match tokio::time::timeout(limit, all_ended).await {
            Ok(()) => Ok(()),
            Err(_) => Err(NodeError::CutOff { connections: self.listener.connections().len() }),
        };
        #[cfg(feature = "bluetooth")]
        super::ble::wait_for_disconnects(&self.shared.local).await;
        self.end();
        result
    }

    /// Tells and notes what was not yet, and ends the streams of events.
    fn end(&self) {
        self.shared.trust_refresher.lock().unwrap_or_else(PoisonError::into_inner).stop();
        if let Some(quotas) = &self.shared.quotas {
            quotas.save();
        }
        self.shared.events.close();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.intake.abort();
        self.listener.close_all();
        self.shared.syncs().iter().for_each(|sync| sync.stop());
        self.end();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("database", &self.shared.db.path())
            .field("collections", &self.shared.collections)
            .field("connections", &self.listener.connections().len())
            .finish_non_exhaustive()
    }
}
