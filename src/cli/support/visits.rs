//! What is shown of a sync with neighbours.

use crate::cli::support::display::Display;
use crate::cli::support::error::CliError;
use crate::cli::support::events::Events;
use crate::node::{SyncEvent, SyncHandle};
use crate::replicator::ReplicatorStatus;

/// Shows the visits.
pub(crate) struct Visits<'a> {
    pub(crate) secure: bool,
    pub(crate) continuous: bool,
    pub(crate) events: &'a Events,
    /// Of the neighbours that are visited now.
    pub(crate) displays: Vec<(String, Display<'a>)>,
    /// Documents of visits that have ended.
    pub(crate) documents: u64,
}

impl Visits<'_> {
    pub(crate) fn take(&mut self, event: &SyncEvent) -> Result<(), CliError> {
        match event {
            SyncEvent::Visiting { peer, stays, .. } => {
                self.displays
                    .push((peer.clone(), Display::new(peer.clone(), self.secure, *stays, self.events)));
            }
            SyncEvent::OthersNear => self.say(&event.to_string()),
            SyncEvent::Visited { peer, status, .. } => self.visited(peer, status)?,
            SyncEvent::NothingNew { peers, .. } => {
                self.say(&format!("nothing new at {}: not connected", peers.join(", ")));
            }
            SyncEvent::Offline { error, .. } => self.say(&format!("offline: {error}; will try again")),
            _ => {}
        }
        Ok(())
    }

    /// Shows how far each visit is.
    pub(crate) fn show(&mut self, sync: &SyncHandle) {
        for (peer, status) in sync.peers() {
            if let Some((_, display)) = self.displays.iter_mut().find(|(name, _)| **name == *peer) {
                display.show(&status);
            }
        }
    }

    /// Tells how a visit has ended.
    fn visited(&mut self, peer: &str, status: &ReplicatorStatus) -> Result<(), CliError> {
        let Some(at) = self.displays.iter().position(|(name, _)| name == peer) else { return Ok(()) };
        let (_, mut display) = self.displays.swap_remove(at);
        display.show(status);
        match display.finish(status, false) {
            Ok(moved) => self.documents += moved,
            Err(error) if self.continuous => self.events.say(&format!("{error}; will try again")),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(crate) fn say(&self, line: &str) {
        match self.displays.first() {
            Some((_, display)) => display.say(line),
            None => self.events.say(line),
        }
    }
}
