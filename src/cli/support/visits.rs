//! What is shown of a sync with one neighbour after the other.

use crate::cli::support::display::Display;
use crate::cli::support::error::CliError;
use crate::cli::support::events::Events;
use crate::node::SyncEvent;
use crate::replicator::ReplicatorStatus;

/// Shows one visit after the other.
pub(crate) struct Visits<'a> {
    pub(crate) secure: bool,
    pub(crate) continuous: bool,
    pub(crate) events: &'a Events,
    /// Of the present visit.
    pub(crate) display: Option<Display<'a>>,
    /// Documents of visits that have ended.
    pub(crate) documents: u64,
}

impl Visits<'_> {
    pub(crate) fn take(&mut self, event: &SyncEvent) -> Result<(), CliError> {
        match event {
            SyncEvent::Visiting { peer, stays, .. } => {
                self.display = Some(Display::new(peer.clone(), self.secure, *stays, self.events));
            }
            SyncEvent::OthersNear => self.say(&event.to_string()),
            SyncEvent::Visited { status, .. } => self.visited(status)?,
            SyncEvent::NothingNew { peers, .. } => {
                self.say(&format!("nothing new at {}: not connected", peers.join(", ")));
            }
            SyncEvent::Offline { error, .. } => self.say(&format!("offline: {error}; will try again")),
            _ => {}
        }
        Ok(())
    }

    /// Tells how the present visit has ended, if there is one.
    pub(crate) fn visited(&mut self, status: &ReplicatorStatus) -> Result<(), CliError> {
        let Some(mut display) = self.display.take() else { return Ok(()) };
        display.show(status);
        match display.finish(status, false) {
            Ok(moved) => self.documents += moved,
            Err(error) if self.continuous => self.events.say(&format!("{error}; will try again")),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(crate) fn say(&self, line: &str) {
        match &self.display {
            Some(display) => display.say(line),
            None => self.events.say(line),
        }
    }
}
