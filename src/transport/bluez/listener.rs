//! The passive end, kept alive: whatever happens to the adapter or to bluetoothd, it comes back and sessions resume.
//!
//! A restart of bluetoothd drops the GATT application, the advertisement and all sockets without telling anybody
//! (SignalK #3057); an adapter may be switched off, blocked or unplugged. A watch looks every [`WATCH_INTERVAL`] and
//! registers everything anew when something is gone.

use std::sync::Arc;
use std::time::Duration;

use bluer::{AdapterEvent, AdapterProperty, SessionEvent};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::adapter::Adapter;
use super::advertise::{AdvertOrder, PaceControl, Turns};
use super::agent::{Pairing, PairingAgent};
use super::error::BluetoothError;
use super::handle::Bluez;
use super::l2cap::{L2capListener, PSM};
use super::peripheral::Peripheral;
use super::profile::{Information, PROFILE_VERSION};
use super::security::LinkSecurity;
use crate::link::PACKET_BYTES_MAX;
use crate::task;
use crate::transport::packet::PacketChannel;
use crate::transport::session::{LinkAcceptor, LinkConnection, SessionConfig};

/// How often adapter and registration are looked at.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// How often the connections are counted while there are some: an advertisement has to be registered again when one has ended. It is one
/// system call.
const COUNT_INTERVAL: Duration = Duration::from_millis(250);
/// Shortest time between two new registrations of the advertisement; each costs some D-Bus calls and HCI commands.
const ADVERTISE_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before a failed start is tried again; doubles up to [`RESTART_PAUSE_MAX`].
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause between two tries.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Limit of registering everything; bluer's own for one call is 120 s.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Settings of a [`BluetoothListener`].
#[derive(Clone)]
pub struct ListenerConfig {
    /// What the adapter is opened with.
    pub bluez: Bluez,
    /// Adapter by name (`hci0`) or address; `None`: the first.
    pub adapter: Option<String>,
    /// Name in the scan response; `None`: no name.
    pub name: Option<String>,
    /// Offer L2CAP channels beside GATT.
    pub l2cap: bool,
    /// What is advertised at first, and how often.
    pub advert: AdvertOrder,
    /// Link-layer security, beneath that of the sessions.
    pub security: LinkSecurity,
    /// How devices may pair; `None`: as the system has it.
    pub pairing: Option<Pairing>,
    /// Settings of the sessions.
    pub session: SessionConfig,
}

/// Accepts centrals over GATT and L2CAP; gives resumable connections.
pub struct BluetoothListener {
    acceptor: Arc<LinkAcceptor>,
    advert: watch::Sender<AdvertOrder>,
    control: watch::Receiver<PaceControl>,
    task: JoinHandle<()>,
    adapter: String,
}

impl BluetoothListener {
    /// Registers everything and keeps it registered.
    ///
    /// # Errors
    /// [`BluetoothError`] if the first start fails; nothing runs then. Later failures are repaired and logged.
    pub async fn start(config: ListenerConfig) -> Result<BluetoothListener, BluetoothError> {
        let acceptor = Arc::new(LinkAcceptor::new(config.session));
        let (advert, orders) = watch::channel(config.advert);
        let running = Running::start_in_time(&config, config.advert).await?;
        let adapter = running.adapter.name().to_owned();
        let (controls, control) = watch::channel(running.control);
        let task = tokio::spawn(supervise(config, running, Arc::clone(&acceptor), orders, controls));
        Ok(BluetoothListener { acceptor, advert, control, task, adapter })
    }

    /// The next new session; a resumed one goes on where it was and is not reported again.
    pub async fn accept(&self) -> Option<Arc<LinkConnection>> {
        self.acceptor.next().await
    }

    /// Advertises something else, or at another pace, soon.
    pub fn set_advert(&self, advert: AdvertOrder) {
        self.advert.send_if_modified(|old| std::mem::replace(old, advert) != advert);
    }

    /// What the pace of adverts depends on with the bluetoothd that runs.
    pub fn pace_control(&self) -> PaceControl {
        *self.control.borrow()
    }

    /// Name of the adapter in use.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }
}

impl Drop for BluetoothListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Everything that is registered at one time.
struct Running {
    adapter: Adapter,
    peripheral: Peripheral,
    control: PaceControl,
    l2cap: mpsc::Receiver<PacketChannel>,
    _agent: Option<PairingAgent>,
    adapters: std::pin::Pin<Box<dyn futures_util::Stream<Item = SessionEvent> + Send>>,
    events: std::pin::Pin<Box<dyn futures_util::Stream<Item = AdapterEvent> + Send>>,
}

impl Running {
    async fn start_in_time(config: &ListenerConfig, advert: AdvertOrder) -> Result<Running, BluetoothError> {
        timeout(START_LIMIT, Running::start(config, advert)).await.map_err(|_| BluetoothError::TimedOut {
            what: "registering with bluetoothd",
            limit: START_LIMIT,
        })?
    }

    async fn start(config: &ListenerConfig, advert: AdvertOrder) -> Result<Running, BluetoothError> {
        let adapter = Adapter::open(&config.bluez, config.adapter.as_deref()).await?;
        let failed = || BluetoothError::bluez("watch adapters");
        let adapters = adapter.session().events().await.map_err(failed())?;
        let events = adapter.bluer().events().await.map_err(failed())?;
        let agent = match &config.pairing {
            Some(pairing) => Some(PairingAgent::register(&adapter, pairing.clone()).await?),
            None => None,
        };
        let (sender, l2cap) = mpsc::channel(4);
        let offered = if config.l2cap { listen_l2cap(&adapter, config.security, sender).await } else { None };
        let information = Information {
            profile: PROFILE_VERSION,
            packet_size_max: PACKET_BYTES_MAX,
            l2cap_psm: offered,
            lane: None,
        };
        let peripheral =
            Peripheral::start(&adapter, information, config.name.clone(), advert, config.security).await?;
        let control = adapter.pace_control().await;
        info!(adapter = adapter.name(), l2cap = offered.is_some(), "advertises {control}");
        Ok(Running {
            adapter,
            peripheral,
            control,
            l2cap,
            _agent: agent,
            adapters: Box::pin(adapters),
            events: Box::pin(events),
        })
    }
}

/// Listens for L2CAP channels until nobody wants them; GATT alone is offered where it cannot.
async fn listen_l2cap(
    adapter: &Adapter,
    security: LinkSecurity,
    sender: mpsc::Sender<PacketChannel>,
) -> Option<u16> {
    let listener = match L2capListener::bind(adapter, security).await {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "no L2CAP, GATT only");
            return None;
        }
    };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(Some(channel)) => if sender.send(channel).await.is_err() { return },
                    Ok(None) => {}
                    Err(error) => {
                        warn!(%error, "L2CAP channel");
                        sleep(RESTART_PAUSE_MIN).await;
                    }
                },
                () = sender.closed() => return,
            }
        }
    });
    Some(PSM)
}

async fn supervise(
    config: ListenerConfig,
    mut running: Running,
    acceptor: Arc<LinkAcceptor>,
    mut orders: watch::Receiver<AdvertOrder>,
    control: watch::Sender<PaceControl>,
) {
    let mut pause = RESTART_PAUSE_MIN;
    loop {
        serve(&mut running, &acceptor, &mut orders).await;
        drop(running);
        warn!("Bluetooth was lost, registering again");
        let mut said = String::new();
        running = loop {
            sleep(pause).await;
            let advert = *orders.borrow_and_update();
            match Running::start_in_time(&config, advert).await {
                Ok(running) => break running,
                Err(error) => {
                    // Once for each cause: it may last for days.
                    let message = error.to_string();
                    if said != message {
                        warn!("Bluetooth is not back yet: {message}");
                        said = message;
                    }
                    pause = (pause * 2).min(RESTART_PAUSE_MAX);
                }
            }
        };
        control.send_replace(running.control);
        pause = RESTART_PAUSE_MIN;
    }
}

/// Serves until something is gone.
async fn serve(running: &mut Running, acceptor: &LinkAcceptor, orders: &mut watch::Receiver<AdvertOrder>) {
    let mut watch = interval(WATCH_INTERVAL);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut advertise = interval(ADVERTISE_INTERVAL);
    advertise.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = interval(COUNT_INTERVAL);
    count.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A controller stops a connectable advertisement when a central connects, also one that then does nothing.
    let mut stale = false;
    let mut connections = running.adapter.connection_count();
    let mut turns = Turns::new(running.control, *orders.borrow(), Instant::now());
    let mut turn = turns.next(Instant::now());
    loop {
        tokio::select! {
            channel = running.peripheral.accept() => match channel {
                Some(channel) => {
                    acceptor.incoming(channel);
                    stale = true;
                }
                None => return,
            },
            Some(channel) = running.l2cap.recv() => {
                acceptor.incoming(channel);
                stale = true;
            }
            _ = advertise.tick(), if stale || orders.has_changed().unwrap_or(false) => {
                stale = false;
                let now = Instant::now();
                turns.set(*orders.borrow_and_update(), now);
                turn = turns.next(now);
                if let Err(error) = running.peripheral.advertise(turns.due(now)).await {
                    warn!(%error, "cannot advertise");
                    return;
                }
            }
            () = task::sleep_until(turn) => (stale, turn) = (true, None),
            event = running.events.next() => match event {
                Some(AdapterEvent::PropertyChanged(AdapterProperty::Powered(false))) | None => return,
                Some(_) => {}
            },
            event = running.adapters.next() => match event {
                // bluetoothd is new, or the adapter is.
                Some(SessionEvent::AdapterAdded(name)) if name == running.adapter.name() => return,
                Some(SessionEvent::AdapterRemoved(name)) if name == running.adapter.name() => return,
                Some(_) => {}
                None => return,
            },
            _ = count.tick(), if connections.is_some_and(|connections| connections > 0) => {
                let before = std::mem::replace(&mut connections, running.adapter.connection_count());
                stale |= connections != before;
            }
            _ = watch.tick() => match running.adapter.advertisements().await {
                Some(registered) => {
                    let before = std::mem::replace(&mut connections, running.adapter.connection_count());
                    let is_missing = registered == 0 && turns.due(Instant::now()).interval.is_some();
                    stale |= is_missing || connections != before;
                }
                None => return,
            },
        }
    }
}
