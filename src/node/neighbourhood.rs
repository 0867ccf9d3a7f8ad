//! The neighbours of a node: who they are, whether there is something to do with one, and a sync with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bluer::Address;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::ble::BlePeer;
use super::connect::Connect;
use super::error::SyncError;
use super::marks::{Before, SyncMarks};
use super::scheduler::News;
use super::sync_event::SyncEvent;
use super::sync_shared::SyncShared;
use super::visit::{ONE_SHOT_ATTEMPTS, SyncSettings, Visit};
use crate::replicator::{Replicator, ReplicatorError, ReplicatorStatus};
use crate::secure::advert::Urgency;
use crate::transport::bluez::BluetoothError;
use crate::transport::bluez::adapter::Adapter;
use crate::transport::bluez::central::SCAN_LIMIT;
use crate::transport::bluez::profile::Sighting;
use crate::transport::bluez::scan::{Neighbour, Scan};
use crate::transport::bluez::search::Heard;

/// How long a single sync listens on after it has heard only neighbours without anything new.
const QUIET_LIMIT: Duration = Duration::from_secs(3);

/// What all visits of one sync share.
pub(super) struct Neighbourhood {
    /// By which adapters; at least one.
    pub(super) ways: Vec<BlePeer>,
    pub(super) marks: SyncMarks,
    pub(super) settings: SyncSettings,
    pub(super) shared: Arc<SyncShared>,
    /// Visit also those who have nothing new.
    pub(super) all: bool,
}

/// A neighbour by the tag of the device, since the address may change, or by the address where no tag can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Device(u32),
    Address(Address),
}

impl Key {
    pub(super) fn of(neighbour: &Neighbour, sighting: Option<Sighting>) -> Key {
        sighting.map_or(Key::Address(neighbour.address), |sighting| Key::Device(sighting.device))
    }
}

/// A sync with one neighbour that has begun.
pub(super) struct Begun {
    /// What people call it.
    name: String,
    address: Arc<str>,
    pub(super) replicator: Arc<Replicator>,
    /// What to note when it has succeeded.
    before: Option<Before>,
}

impl Begun {
    /// Notes and tells how it has ended. `complete`: it was not told to stop.
    pub(super) fn end(
        self,
        of: &Neighbourhood,
        status: ReplicatorStatus,
        complete: bool,
    ) -> Option<ReplicatorError> {
        if complete && status.error.is_none() {
            self.before.into_iter().for_each(|before| of.marks.note(before));
        }
        let error = status.error.clone();
        of.shared.hub.emit(SyncEvent::Visited { address: self.address, peer: self.name, status });
        error
    }
}

impl Neighbourhood {
    /// One sync with the first neighbour that has something new, by the first adapter. No connection is made if all that are heard have nothing.
    pub(super) async fn once(&self) -> Result<(), SyncError> {
        let way = &self.ways[0];
        let adapter = Adapter::open(&self.settings.node.local.bluez, way.adapter_name())
            .await
            .map_err(search_failed)?;
        let mut scan = Scan::start(&adapter).await.map_err(search_failed)?;
        let began = Instant::now();
        let (mut deadline, mut quiet) = (began + SCAN_LIMIT, HashMap::new());
        let found = loop {
            let heard = tokio::select! {
                heard = timeout_at(deadline, scan.next()) => heard,
                () = self.shared.stopped() => return Ok(()),
            };
            match heard {
                Ok(heard) => {
                    let neighbour = heard.map_err(search_failed)?;
                    let Some(sighting) = self.marks.read(&neighbour) else { continue };
                    if self.all || self.news(sighting) != News::None {
                        break Some((Heard { neighbour, at: Instant::now() }, sighting));
                    }
                    quiet.insert(neighbour.address, neighbour);
                    deadline = deadline.min(Instant::now() + QUIET_LIMIT);
                }
                Err(_) => break None,
            }
        };
        scan.stop().await;
        let Some((heard, sighting)) = found else {
            if quiet.is_empty() {
                let peer = "any gattway device".to_owned();
                return Err(search_failed(BluetoothError::NotSeen { peer, within: SCAN_LIMIT }));
            }
            self.shared.hub.emit(SyncEvent::NothingNew { peers: quiet.values().map(name_of).collect() });
            return Ok(());
        };
        let begun = self.begin(way, &heard, sighting, false, false);
        let address = begun.name.as_str().into();
        let (status, complete) = tokio::select! {
            status = begun.replicator.wait_until_stopped() => (status, true),
            () = self.shared.stopped() => {
                begun.replicator.stop();
                (begun.replicator.wait_until_stopped().await, false)
            }
        };
        match begun.end(self, status, complete).filter(|_| complete) {
            None => Ok(()),
            Some(source) => Err(SyncError::Replication { address, source }),
        }
    }

    /// Begins to sync `way` with a neighbour that was heard. `stays`: until it is told to stop; `retried`: whoever is not reached gets
    /// its turn again.
    pub(super) fn begin(
        &self,
        way: &BlePeer,
        heard: &Heard,
        sighting: Option<Sighting>,
        stays: bool,
        retried: bool,
    ) -> Begun {
        let neighbour = &heard.neighbour;
        let before = sighting.map(|sighting| self.marks.before(sighting));
        let name = name_of(neighbour);
        debug!(peer = name, stays, "visiting");
        let uid = match Key::of(neighbour, sighting) {
            Key::Device(device) => format!("ble:device:{device:08x}"),
            Key::Address(address) => format!("ble:{address}"),
        };
        let way = Arc::new(way.heard(heard.clone()));
        let address: Arc<str> = way.address().into();
        self.shared.hub.emit(SyncEvent::Visiting {
            address: Arc::clone(&address),
            peer: name.clone(),
            stays,
            advertised: uid.as_str().into(),
        });
        let attempts = if stays { ONE_SHOT_ATTEMPTS } else { 1 };
        let visit = Visit {
            continuous: stays,
            attempts: retried.then_some(attempts),
            uid: Some(uid),
            name: Some(name.clone()),
        };
        let replicator = self.settings.start(way, visit, &self.shared);
        Begun { name, address, replicator, before }
    }

    /// What there is to do with a neighbour of which that was read.
    pub(super) fn news(&self, sighting: Option<Sighting>) -> News {
        match sighting {
            None => News::Unknown,
            Some(sighting) => match self.marks.pending(sighting) {
                0 => News::None,
                changes if sighting.urgency == Urgency::Urgent => News::Urgent(changes),
                changes => News::Pending(changes),
            },
        }
    }
}

fn name_of(neighbour: &Neighbour) -> String {
    match &neighbour.name {
        Some(name) => format!("{name} ({})", neighbour.address),
        None => neighbour.address.to_string(),
    }
}

fn search_failed(error: BluetoothError) -> SyncError {
    SyncError::Search(Arc::new(error.into()))
}
