//! Where peers come in: each place is opened, and again when it could not be or is lost, while the others go on.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use super::error::ListenError;
use super::event::NodeEvent;
use super::hub::Hub;
use super::intake::PeerIntake;
use crate::replica::revision::Versioning;
use crate::transport::secure::Carrier;
use crate::transport::stream::{Address, StreamListener};

/// Pause before a place that could not be opened is tried again; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Only this crate adds places and ways: what carries bytes of somebody else's is a packet radio
/// ([`PacketListener`](super::PacketListener)) or a [`MessageEndpoint`](crate::endpoint::MessageEndpoint).
pub trait Sealed {}

/// A place where peers can come in. [`Tcp`](super::Tcp), [`Unix`](super::Unix), [`Packets`](super::Packets) and `Ble` make
/// such places.
#[async_trait]
pub trait Listen: Sealed + Send + Sync + 'static {
    /// Where it is, for people.
    #[doc(hidden)]
    fn address(&self) -> String;

    /// Begins to listen. Called again, after a pause, when this or [`Accept::accept`] has failed.
    ///
    /// # Errors
    /// It does not listen.
    #[doc(hidden)]
    async fn open(&self, local: &Local) -> io::Result<Box<dyn Accept>>;
}

/// A place that is open. Dropping it ends listening.
#[async_trait]
pub trait Accept: Send + Sync {
    /// Where it listens now; for TCP with the real port.
    fn address(&self) -> String;

    /// The next peer that has connected. `None`: nobody can come any more. Must lose nobody when it is dropped.
    ///
    /// # Errors
    /// It does not listen any more.
    async fn accept(&mut self) -> io::Result<Option<Arrival>>;
}

/// A peer that has connected.
pub struct Arrival {
    /// Its connection, not opened yet.
    pub carrier: Carrier,
    /// Where it came from, for people.
    pub label: String,
}

/// What a place or a way may want to know of its node.
#[derive(Clone, Default)]
pub struct Local {
    /// How its database identifies revisions.
    #[cfg_attr(not(feature = "websocket"), allow(dead_code))] // others do not ask before the sync
    pub(super) versioning: Versioning,
    /// What adapters are opened with.
    #[cfg(feature = "bluetooth")]
    pub(super) bluez: crate::transport::bluez::Bluez,
    /// Whether peers prove who they are.
    #[cfg(feature = "bluetooth")]
    pub(super) is_secure: bool,
    /// What is told to those who do not connect; `None`: that it waits to be paired.
    #[cfg(feature = "bluetooth")]
    pub(super) advert: Option<Arc<super::advert::Advert>>,
    /// Counts what connections have told: peers may have fetched something.
    #[cfg(feature = "bluetooth")]
    pub(super) connections: tokio::sync::watch::Sender<u64>,
    /// What adapters advertise.
    #[cfg(feature = "bluetooth")]
    pub(super) adverts: super::advertised::Adverts,
    /// Who tells of radio connections.
    #[cfg(feature = "bluetooth")]
    pub(super) reporter: Option<Arc<super::radio::Reporter>>,
}

#[cfg(feature = "bluetooth")]
impl Local {
    /// From now on the node tells of its radio connections.
    pub(super) fn report_radio(&self) {
        if let Some(reporter) = &self.reporter {
            reporter.start();
        }
    }
}

/// Begins to listen.
pub(crate) async fn open(place: &dyn Listen, local: &Local) -> Result<Box<dyn Accept>, ListenError> {
    place.open(local).await.map_err(|error| ListenError::new(place.address(), false, error))
}

/// The next peer that comes in; `None`: nobody can come any more.
pub(crate) async fn accept(place: &mut dyn Accept) -> Result<Option<Arrival>, ListenError> {
    match place.accept().await {
        Ok(arrival) => Ok(arrival),
        Err(error) => Err(ListenError::new(place.address(), true, error)),
    }
}

/// How the first attempts with all places went.
pub(super) struct Opened {
    sender: mpsc::UnboundedSender<Result<(), ListenError>>,
    reports: mpsc::UnboundedReceiver<Result<(), ListenError>>,
    places: usize,
    /// Whether one works, so that the others are to be tried again.
    goes_on: watch::Sender<bool>,
}

/// Tells [`Opened`] how the first attempt with one place went.
pub(super) struct Report {
    sender: Option<mpsc::UnboundedSender<Result<(), ListenError>>>,
    goes_on: watch::Receiver<bool>,
}

impl Opened {
    pub(super) fn new(places: usize) -> Opened {
        let (sender, reports) = mpsc::unbounded_channel();
        Opened { sender, reports, places, goes_on: watch::Sender::new(false) }
    }

    pub(super) fn report(&self) -> Report {
        Report { sender: Some(self.sender.clone()), goes_on: self.goes_on.subscribe() }
    }

    /// Waits until one place works, if there are any; else gives what failed, in the order in which it did.
    pub(super) async fn any(&mut self) -> Result<(), Vec<ListenError>> {
        let mut failed: Vec<ListenError> = Vec::new();
        while failed.len() < self.places {
            match self.reports.recv().await {
                Some(Err(error)) => failed.push(error),
                _ => {
                    self.goes_on.send_replace(true);
                    return Ok(());
                }
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }
}

impl Report {
    /// Of a place that nobody waits for: it is tried again in any case.
    pub(super) fn to_nobody() -> Report {
        Report { sender: None, goes_on: watch::channel(true).1 }
    }

    fn opened(&mut self) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Ok(()));
        }
    }

    /// Returns when there is a reason to try again.
    async fn failed(&mut self, error: &ListenError) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Err(error.clone()));
        }
        // Without an answer the node is about to end, and this with it.
        if self.goes_on.wait_for(|goes_on| *goes_on).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One place, and where its connections go.
pub(super) struct Listening {
    pub(super) number: usize,
    pub(super) place: Box<dyn Listen>,
    /// Whether nobody proves anything there, whatever holds for the node.
    pub(super) plain: bool,
    pub(super) local: Local,
    pub(super) intake: PeerIntake,
    pub(super) events: Arc<Hub<NodeEvent>>,
    /// Where the node listens now.
    pub(super) addresses: Addresses,
}

/// Where a node listens now, by the number of the place.
pub(super) type Addresses = Arc<Mutex<BTreeMap<usize, String>>>;

impl Listening {
    /// Listens until nobody can come any more (the one peer of stdio has left).
    pub(super) async fn keep_open(self, mut report: Report) {
        let (mut pause, mut told) = (RETRY_PAUSE_MIN, String::new());
        loop {
            let error = match open(&*self.place, &self.local).await {
                Ok(mut opened) => {
                    self.addresses().insert(self.number, opened.address());
                    self.events.emit(NodeEvent::Listening { address: opened.address() });
                    report.opened();
                    (pause, told) = (RETRY_PAUSE_MIN, String::new());
                    let ended = self.accept(&mut *opened).await;
                    self.addresses().remove(&self.number);
                    match ended {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            report.failed(&error).await;
            // Once for each cause: it may last for days.
            if told != error.to_string() {
                told = error.to_string();
                self.events.emit(NodeEvent::ListenFailed { address: self.place.address(), error });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Nothing under this lock can be left half done.
    fn addresses(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(&self, opened: &mut dyn Accept) -> Result<(), ListenError> {
        while let Some(Arrival { carrier, label }) = accept(opened).await? {
            self.intake.accept_transport(carrier, &label, self.plain);
        }
        Ok(())
    }
}

/// What all places of a node share.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) local: Local,
    pub(super) intake: PeerIntake,
    pub(super) events: Arc<Hub<NodeEvent>>,
    pub(super) addresses: Addresses,
}

impl Places {
    /// One more place, to be kept open.
    pub(super) fn listening(&self, number: usize, place: Box<dyn Listen>, plain: bool) -> Listening {
        let Places { local, intake, events, addresses } = self.clone();
        Listening { number, place, plain, local, intake, events, addresses }
    }

    /// A place was given up.
    pub(super) fn forget(&self, number: usize) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

#[async_trait]
impl Listen for Address {
    fn address(&self) -> String {
        self.to_string()
    }

    async fn open(&self, _: &Local) -> io::Result<Box<dyn Accept>> {
        Ok(Box::new(StreamListener::bind(self.clone()).await?))
    }
}

#[async_trait]
impl Accept for StreamListener {
    fn address(&self) -> String {
        self.local_address().to_string()
    }

    async fn accept(&mut self) -> io::Result<Option<Arrival>> {
        let Some(connection) = StreamListener::accept(self).await? else { return Ok(None) };
        let label = connection.peer().to_owned();
        Ok(Some(Arrival { carrier: Carrier::Stream(Arc::new(connection)), label }))
    }
}
