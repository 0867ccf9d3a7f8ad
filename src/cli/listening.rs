//! The addresses of `serve`: each is opened, and again when it could not be or is lost, while the others go on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::address::PlaceAddress;
use super::events::{Event, Events};
use super::serve::PeerIntake;
use super::{CliError, Exit};
#[cfg(feature = "bluetooth")]
use super::{
    ble,
    security::{Security, TrustRefresher},
};
#[cfg(feature = "bluetooth")]
use crate::database::Database;
#[cfg(feature = "bluetooth")]
use crate::transport::bluez::listener::BluetoothListener;
use crate::transport::secure::Carrier;
use crate::transport::stream::{Address, StreamConnection, StreamListener};

/// Pause before an address that could not be opened is tried again; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Listens on a stream's address.
pub(super) async fn bind(address: &Address) -> Result<StreamListener, CliError> {
    StreamListener::bind(address.clone()).await.map_err(|error| {
        let help = "choose another address, or end the process that uses it";
        CliError::new(Exit::Peer, format!("cannot listen on {address}: {error}")).help(help)
    })
}

/// How the first attempts with all addresses went.
pub(super) struct Opened {
    sender: mpsc::UnboundedSender<Result<(), CliError>>,
    reports: mpsc::UnboundedReceiver<Result<(), CliError>>,
    addresses: usize,
    /// Whether one works, so that the others are to be tried again.
    goes_on: watch::Sender<bool>,
}

/// Tells [`Opened`] how the first attempt with one address went.
pub(super) struct Report {
    sender: Option<mpsc::UnboundedSender<Result<(), CliError>>>,
    goes_on: watch::Receiver<bool>,
}

impl Opened {
    pub(super) fn new(addresses: usize) -> Opened {
        let (sender, reports) = mpsc::unbounded_channel();
        Opened { sender, reports, addresses, goes_on: watch::Sender::new(false) }
    }

    pub(super) fn report(&self) -> Report {
        Report { sender: Some(self.sender.clone()), goes_on: self.goes_on.subscribe() }
    }

    /// Waits until one address works.
    ///
    /// # Errors
    /// None does; the first that failed is told, the others are said.
    pub(super) async fn any(&mut self, events: &Events) -> Result<(), CliError> {
        let mut failed: Vec<CliError> = Vec::new();
        while failed.len() < self.addresses {
            match self.reports.recv().await {
                Some(Err(error)) => failed.push(error),
                _ => {
                    self.goes_on.send_replace(true);
                    return Ok(());
                }
            }
        }
        failed.iter().skip(1).for_each(|error| events.say(&error.to_string()));
        failed.into_iter().next().map_or(Ok(()), Err)
    }
}

impl Report {
    fn opened(&mut self) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Ok(()));
        }
    }

    /// Returns when there is a reason to try again.
    async fn failed(&mut self, error: &CliError) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Err(error.context("", "")));
        }
        // Without an answer the command is about to end, and this with it.
        if self.goes_on.wait_for(|goes_on| *goes_on).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One address, and where its connections go.
pub(super) struct Place {
    pub(super) address: PlaceAddress,
    pub(super) intake: PeerIntake,
    pub(super) events: Events,
    #[cfg(feature = "bluetooth")]
    pub(super) radio: Radio,
}

/// What Bluetooth needs beside an address.
#[cfg(feature = "bluetooth")]
pub(super) struct Radio {
    pub(super) advert: Advert,
    pub(super) link: ble::LinkArgs,
    pub(super) is_secure: bool,
}

enum Listener {
    Stream(StreamListener),
    #[cfg(feature = "bluetooth")]
    Bluetooth(BluetoothListener),
}

impl Place {
    /// Listens until nobody can come any more (the one peer of stdio has left).
    pub(super) async fn keep_open(self, mut report: Report) {
        let (mut pause, mut told) = (RETRY_PAUSE_MIN, String::new());
        loop {
            let error = match self.open().await {
                Ok((listener, address)) => {
                    self.events.emit(&Event::Listening { address: address.clone() });
                    self.events.say(&format!("listening on {address}"));
                    report.opened();
                    (pause, told) = (RETRY_PAUSE_MIN, String::new());
                    match self.accept(&listener).await {
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
                self.events.say(&format!("{told}; will try again"));
                self.events.emit(&Event::ListenFailed { address: self.address.to_string(), error: &told });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn open(&self) -> Result<(Listener, String), CliError> {
        match &self.address {
            PlaceAddress::Stream(address) => {
                let stream = bind(address).await?;
                let address = stream.local_address().to_string();
                Ok((Listener::Stream(stream), address))
            }
            #[cfg(feature = "bluetooth")]
            PlaceAddress::Ble(adapter) => {
                let Radio { advert, link, is_secure } = &self.radio;
                let opened = ble::listen(adapter, advert.state(), *link, *is_secure, &self.events).await;
                let bluetooth = opened
                    .map_err(|error| error.context(&format!("cannot listen on {}: ", self.address), ""))?;
                let address = format!("ble:{}", bluetooth.adapter());
                Ok((Listener::Bluetooth(bluetooth), address))
            }
            #[cfg(not(feature = "bluetooth"))]
            PlaceAddress::Ble(_) => unreachable!("such an address is refused when it is read"),
        }
    }

    /// Gives each connection to the door.
    async fn accept(&self, listener: &Listener) -> Result<(), CliError> {
        match listener {
            Listener::Stream(stream) => loop {
                let accepted = stream.accept().await.map_err(|error| {
                    let address = stream.local_address();
                    CliError::new(Exit::Peer, format!("cannot accept on {address}: {error}"))
                })?;
                let Some(connection) = accepted else { return Ok(()) };
                let name = connection.peer().to_owned();
                let connection: Arc<StreamConnection> = Arc::new(connection);
                self.intake.accept_transport(Carrier::Stream(connection), &name);
            },
            #[cfg(feature = "bluetooth")]
            Listener::Bluetooth(bluetooth) => {
                self.accept_bluetooth(bluetooth).await;
                Ok(())
            }
        }
    }

    /// Gives each central's session to the door, and advertises each change of the database.
    #[cfg(feature = "bluetooth")]
    async fn accept_bluetooth(&self, bluetooth: &BluetoothListener) {
        let advert = &self.radio.advert;
        let mut changes = advert.db.watch();
        let (mut sealed, mut lifetime) = (std::time::Instant::now(), ble::advert_lifetime());
        loop {
            tokio::select! {
                connection = bluetooth.accept() => {
                    let Some(connection) = connection else { return };
                    self.intake.accept_transport(Carrier::Link(connection), "Bluetooth central");
                }
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(ble::advert_turn()) => {
                    if sealed.elapsed() < lifetime && !advert.codec.takes_turns() {
                        continue;
                    }
                }
            }
            // Where it is sealed it is another one each time, so that nobody can follow it.
            bluetooth.set_state(advert.state());
            (sealed, lifetime) = (std::time::Instant::now(), ble::advert_lifetime());
        }
    }
}

/// What is advertised of the database.
#[cfg(feature = "bluetooth")]
pub(super) struct Advert {
    db: Database,
    collections: Vec<String>,
    codec: Arc<dyn crate::transport::bluez::profile::AdvertCodec>,
}

#[cfg(feature = "bluetooth")]
impl Advert {
    pub(super) fn new(
        db: &Database,
        collections: &[String],
        security: &Security,
        trust_refresher: &TrustRefresher,
    ) -> Advert {
        let codec = super::ble::advert_codec(db, security, trust_refresher);
        Advert { db: db.clone(), collections: collections.to_vec(), codec }
    }

    /// The state to advertise now.
    fn state(&self) -> crate::transport::bluez::profile::AdvertBytes {
        self.codec.write(super::ble::change_counter(&self.db, &self.collections))
    }
}
