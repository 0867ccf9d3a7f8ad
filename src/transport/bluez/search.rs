//! A search for one peer among the neighbours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bluer::Address;
use tokio::time::{Instant, timeout_at};

use super::adapter::Adapter;
use super::error::BluetoothError;
use super::profile::{AdvertCodec, PlainAdvert};
use super::scan::{Neighbour, Scan};

/// Age of an advert up to which its sender is connected to without another scan; BlueZ forgets it after 30 s.
pub const FRESH: Duration = Duration::from_secs(3);
/// Whom to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The first neighbour that may be one of ours.
    Any,
    /// This address.
    Address(Address),
    /// This name, advertised or in the trust list.
    Name(String),
    /// The device of this address, or whoever tells of itself that it is the device with this tag: an address may change
    /// (Privacy), and a device must not be taken for another one when a session is resumed.
    Device(Address, Option<u32>),
}

impl Wanted {
    /// An address where `text` is one, `any`, or a name.
    pub fn parse(text: &str) -> Wanted {
        match text.parse() {
            Ok(address) => Wanted::Address(address),
            Err(_) if text.eq_ignore_ascii_case("any") => Wanted::Any,
            Err(_) => Wanted::Name(text.to_owned()),
        }
    }

    /// Whether `neighbour` is the one, as `codec` reads its advert.
    pub fn fits(&self, neighbour: &Neighbour, codec: &dyn AdvertCodec) -> bool {
        match self {
            Wanted::Device(address, tag) => {
                let said = codec.read(&neighbour.state).map(|sighting| sighting.device);
                neighbour.address == *address || (said.is_some() && said == *tag)
            }
            Wanted::Any => codec.may_be_ours(&neighbour.state),
            Wanted::Address(address) => neighbour.address == *address,
            Wanted::Name(name) => {
                neighbour.name.as_deref() == Some(name)
                    || codec.name(&neighbour.state).as_deref() == Some(name)
            }
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Any => f.write_str("any gattway device"),
            Wanted::Address(address) | Wanted::Device(address, _) => address.fmt(f),
            Wanted::Name(name) => f.write_str(name),
        }
    }
}

/// A search for one peer. Once it was found, only the same device counts: a session that is resumed must not go to another.
pub struct Search {
    wanted: Wanted,
    codec: Arc<dyn AdvertCodec>,
    found: Mutex<Option<Neighbour>>,
    /// Heard before the search began.
    heard: Mutex<Option<Heard>>,
}

/// A neighbour, and when its advert came.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Who.
    pub neighbour: Neighbour,
    /// When.
    pub at: Instant,
}

impl Search {
    /// A search for `wanted`, whose advert `codec` reads.
    pub fn new(wanted: Wanted, codec: Arc<dyn AdvertCodec>) -> Arc<Search> {
        Arc::new(Search { wanted, codec, found: Mutex::default(), heard: Mutex::default() })
    }

    /// A search for a neighbour whose advert has just come: no other scan is made if it begins within [`FRESH`].
    pub fn heard(heard: Heard, codec: Arc<dyn AdvertCodec>) -> Arc<Search> {
        let search = Search::new(Wanted::Address(heard.neighbour.address), codec);
        *search.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
        search
    }

    /// A search for any device that tells its state openly.
    pub fn open(wanted: Wanted) -> Arc<Search> {
        Search::new(wanted, Arc::new(PlainAdvert { group: 0, device: 0 }))
    }

    /// Who was found, as its last advert told.
    pub fn found(&self) -> Option<Neighbour> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who was heard so recently that no scan is needed; said once, as an attempt that failed may mean that it has gone.
    fn take_fresh(&self) -> Option<Neighbour> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).take();
        heard.filter(|heard| heard.at.elapsed() <= FRESH).map(|heard| heard.neighbour)
    }

    /// Whom to look for now.
    fn target(&self) -> Wanted {
        match self.found() {
            Some(found) => {
                let tag = self.codec.read(&found.state).map(|sighting| sighting.device);
                Wanted::Device(found.address, tag)
            }
            None => self.wanted.clone(),
        }
    }

    /// Whether `neighbour` is the one that is looked for now.
    pub(super) fn fits(&self, neighbour: &Neighbour) -> bool {
        self.target().fits(neighbour, &*self.codec)
    }

    pub(super) fn remember(&self, neighbour: &Neighbour) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(neighbour.clone());
    }

    /// Nobody who fits was seen.
    pub(super) fn not_seen(&self, within: Duration) -> BluetoothError {
        BluetoothError::NotSeen { peer: self.target().to_string(), within }
    }
}

/// Scans until the one that `search` is for is seen, unless it was heard just now.
///
/// # Errors
/// [`BluetoothError::NotSeen`] after `within`, or [`BluetoothError`] of the adapter; the scan has stopped then.
pub async fn find(adapter: &Adapter, search: &Search, within: Duration) -> Result<Neighbour, BluetoothError> {
    if let Some(neighbour) = search.take_fresh() {
        search.remember(&neighbour);
        return Ok(neighbour);
    }
    let deadline = Instant::now() + within;
    let mut scan = Scan::start(adapter).await?;
    let found = loop {
        match timeout_at(deadline, scan.next()).await {
            Ok(Ok(neighbour)) if search.fits(&neighbour) => break Ok(neighbour),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => break Err(search.not_seen(within)),
        }
    };
    scan.stop().await;
    if let Ok(neighbour) = &found {
        search.remember(neighbour);
    }
    found
}
