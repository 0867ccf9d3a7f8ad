//! The connections of the passive side, and who gives way when there are too many.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::listener_config::PEER_CONNECTIONS_MAX;
use super::listener_event::ListenerError;
use super::status::ReplicatorStatus;
use crate::endpoint::MessageEndpointConnection;

/// Those that are open, or just ending.
#[derive(Default)]
pub(super) struct Connections {
    pub(super) last: u64,
    pub(super) open: BTreeMap<u64, Entry>,
}

/// One of them.
pub(super) struct Entry {
    pub(super) connection: Arc<dyn MessageEndpointConnection>,
    pub(super) status: ReplicatorStatus,
    /// 0: run; anything else: end.
    pub(super) wanted: watch::Sender<u64>,
    /// Who the peer has proven to be.
    pub(super) peer: Option<String>,
}

impl Entry {
    pub(super) fn is_staying(&self) -> bool {
        *self.wanted.borrow() == 0
    }

    pub(super) fn end(&self) {
        self.wanted.send_replace(1);
    }
}

impl Connections {
    pub(super) fn staying(&self) -> impl Iterator<Item = &Entry> {
        self.open.values().filter(|entry| entry.is_staying())
    }

    /// Makes room for one more connection of `peer`, if there is a way: its own oldest one gives way to the newest beyond
    /// [`PEER_CONNECTIONS_MAX`], and where all places are taken somebody's who has several to a peer that has none.
    pub(super) fn make_room(&mut self, peer: Option<&str>, max: usize) -> Result<(), ListenerError> {
        let full = Err(ListenerError::TooManyConnections { max });
        // Those that are ending are few, and soon gone; a transport that does not let go must not make them many.
        if self.open.len() >= max.saturating_mul(2) {
            return full;
        }
        let mut of_peer = 0;
        if let Some(peer) = peer {
            let is_its = |entry: &&Entry| entry.peer.as_deref() == Some(peer);
            of_peer = self.staying().filter(is_its).count();
            if self.open.values().filter(is_its).count() - of_peer >= PEER_CONNECTIONS_MAX {
                return Err(ListenerError::TooManyOfPeer);
            }
            if of_peer >= PEER_CONNECTIONS_MAX {
                self.end_oldest_of(peer);
            }
        }
        if self.staying().count() < max {
            return Ok(());
        }
        match self.most_present() {
            Some(crowd) if peer.is_some() && of_peer == 0 => {
                self.end_oldest_of(&crowd);
                Ok(())
            }
            _ => full,
        }
    }

    /// The peer with the most connections, of those with several.
    fn most_present(&self) -> Option<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for peer in self.staying().filter_map(|entry| entry.peer.as_deref()) {
            *counts.entry(peer).or_default() += 1;
        }
        let (peer, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        (count > 1).then(|| peer.to_owned())
    }

    fn end_oldest_of(&self, peer: &str) {
        if let Some(entry) = self.staying().find(|entry| entry.peer.as_deref() == Some(peer)) {
            tracing::info!(peer, "its oldest connection ends to make room for another");
            entry.end();
        }
    }
}
