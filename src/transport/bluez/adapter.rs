//! One adapter: found by name or address, switched on, and asked to do one delicate thing at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::advertise::PaceControl;
use super::daemon::{Daemon, answer};
use super::error::BluetoothError;
use super::handle::Bluez;
use super::kernel::{Connection, connections, controller_number};
use super::radio::Radio;
use super::shared::{SharedAdapter, Slot};

/// Connections one adapter is trusted with; small USB adapters manage about 5, Broadcom's about 7
/// (`firmware-notes/bluez.md`, connection slots).
pub const SLOTS_DEFAULT: usize = 5;
/// Limit of switching an adapter: a controller that is being loaded with firmware takes seconds.
const POWER_LIMIT: Duration = Duration::from_secs(10);
/// Pause between off and on of a power cycle.
const POWER_CYCLE_PAUSE: Duration = Duration::from_millis(500);
/// Looks at the kernel before a connect that was given up counts as stuck, and the pause between two.
const STUCK_LOOKS: u32 = 5;
const STUCK_PAUSE: Duration = Duration::from_millis(200);
/// Pauses in which an adapter is asked again whether it has come up.
const POWER_ON_PAUSE: Duration = Duration::from_millis(200);
/// Attempts to switch an adapter on while BlueZ is busy with it.
const POWER_ON_ATTEMPTS: u32 = 10;

/// An open adapter that is powered, with its limits.
#[derive(Clone)]
pub struct Adapter {
    bluez: Bluez,
    daemon: Daemon,
    adapter: bluer::Adapter,
    shared: Arc<SharedAdapter>,
    slots: usize,
}

impl Adapter {
    /// Opens the adapter named `wanted` (`hci0` or its address), or the first one, and switches it on. It is trusted with
    /// [`SLOTS_DEFAULT`] connections.
    ///
    /// # Errors
    /// [`BluetoothError::NoDaemon`], [`BluetoothError::NoAdapter`], [`BluetoothError::NotPermitted`],
    /// [`BluetoothError::Blocked`], [`BluetoothError::PoweredOff`], [`BluetoothError::TimedOut`].
    pub async fn open(bluez: &Bluez, wanted: Option<&str>) -> Result<Adapter, BluetoothError> {
        let daemon = bluez.daemon().await?;
        let adapter = answer("listing the adapters", choose(&daemon, wanted)).await?;
        let shared = bluez.adapter(adapter.name());
        let opened = Adapter { bluez: bluez.clone(), daemon, adapter, shared, slots: SLOTS_DEFAULT };
        opened.power_on().await?;
        Ok(opened)
    }

    /// Trusts it with `slots` connections, both roles and other programs included.
    #[must_use]
    pub fn with_slots(mut self, slots: usize) -> Adapter {
        self.slots = slots.max(1);
        self
    }

    /// Switches the adapter on unless it is.
    ///
    /// # Errors
    /// [`BluetoothError::Blocked`], [`BluetoothError::PoweredOff`], [`BluetoothError::TimedOut`].
    pub async fn power_on(&self) -> Result<(), BluetoothError> {
        let mut attempt = 1;
        loop {
            if answer("reading the adapter's power", self.is_powered()).await? {
                return Ok(());
            }
            let error = match timeout(POWER_LIMIT, self.adapter.set_powered(true)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(_) => {
                    return Err(BluetoothError::TimedOut {
                        what: "switching the adapter on",
                        limit: POWER_LIMIT,
                    });
                }
            };
            let text = error.to_string();
            // BlueZ 5.66 says only that it failed.
            if text.contains("rfkill") || is_blocked(self.name()) {
                return Err(BluetoothError::Blocked { adapter: self.name().to_owned() });
            }
            // BlueZ is just switching it itself, as after it was plugged in (AutoEnable).
            let busy = matches!(error.kind, bluer::ErrorKind::InProgress) || text.contains("Busy");
            if !busy || attempt == POWER_ON_ATTEMPTS {
                return Err(BluetoothError::PoweredOff { adapter: self.name().to_owned(), message: text });
            }
            attempt += 1;
            sleep(POWER_ON_PAUSE).await;
        }
    }

    async fn is_powered(&self) -> Result<bool, BluetoothError> {
        self.adapter.is_powered().await.map_err(|error| {
            match BluetoothError::bluez("read adapter power")(error) {
                BluetoothError::BlueZ { .. } => {
                    BluetoothError::AdapterLost { adapter: self.name().to_owned() }
                }
                other => other,
            }
        })
    }

    /// Whether bluetoothd is the same, and the adapter there and on.
    pub(super) async fn check(&self) -> Result<(), BluetoothError> {
        let lost = || BluetoothError::AdapterLost { adapter: self.name().to_owned() };
        if !self.daemon.is_present().await {
            return Err(lost());
        }
        match answer("reading the adapter's power", self.is_powered()).await {
            Ok(true) => Ok(()),
            _ => Err(lost()),
        }
    }

    /// How many advertisements are registered; `None` if the adapter is off or gone, or bluetoothd another one.
    pub(super) async fn advertisements(&self) -> Option<u8> {
        self.check().await.ok()?;
        let what = "counting advertisements";
        let count =
            async { self.adapter.active_advertising_instances().await.map_err(BluetoothError::bluez(what)) };
        answer(what, count).await.ok()
    }

    /// What the pace of adverts depends on: BlueZ shows what its advertising can do just where it takes an advert's interval, which is
    /// with `--experimental`, and in newer releases always (`firmware-notes/bluez.md`, pace of adverts).
    pub(super) async fn pace_control(&self) -> PaceControl {
        let what = "reading what advertising can do";
        let read = async {
            self.adapter.supported_advertising_capabilities().await.map_err(BluetoothError::bluez(what))
        };
        match answer(what, read).await {
            Ok(Some(_)) => PaceControl::Interval,
            _ => PaceControl::Registration,
        }
    }

    /// How many connections the controller has, of both roles and all programs; `None` if the kernel does not tell.
    pub(super) fn connection_count(&self) -> Option<usize> {
        self.kernel_connections().map(|connections| connections.len())
    }

    fn kernel_connections(&self) -> Option<Vec<Connection>> {
        connections(controller_number(self.name())?).ok()
    }

    /// Devices that are connected on this adapter, whoever connected them.
    ///
    /// # Errors
    /// [`BluetoothError`] of BlueZ.
    pub async fn connected(&self) -> Result<Vec<bluer::Address>, BluetoothError> {
        let what = "listing the connected devices";
        answer(what, async {
            let mut connected = Vec::new();
            for address in self.adapter.device_addresses().await.map_err(BluetoothError::bluez(what))? {
                let device = self.adapter.device(address).map_err(BluetoothError::bluez(what))?;
                // One that is removed meanwhile is not connected.
                if device.is_connected().await.unwrap_or(false) {
                    connected.push(address);
                }
            }
            Ok(connected)
        })
        .await
    }

    /// Switches the adapter off and on because of `why`, unless somebody is connected on it. Whether it did.
    pub(super) async fn power_cycle(&self, why: &str) -> bool {
        match self.connected().await {
            Ok(connected) if connected.is_empty() => {}
            Ok(connected) => {
                debug!(
                    adapter = self.name(),
                    connected = connected.len(),
                    why,
                    "not power-cycled: it is in use"
                );
                return false;
            }
            Err(_) => return false,
        }
        warn!(adapter = self.name(), "{why}: switching the adapter off and on");
        if let Err(error) = timeout(POWER_LIMIT, self.adapter.set_powered(false)).await.unwrap_or(Ok(())) {
            debug!(adapter = self.name(), %error, "switching off");
        }
        sleep(POWER_CYCLE_PAUSE).await;
        if let Err(error) = self.power_on().await {
            warn!(adapter = self.name(), %error, "the adapter did not come back");
        }
        true
    }

    /// Frees the kernel of a connect that BlueZ has given up and the kernel has not: it does not connect to anybody until the
    /// adapter has been off (`firmware-notes/bluez.md`, connecting).
    ///
    /// # Errors
    /// [`BluetoothError::ConnectStuck`]: somebody else is connected, so the adapter stays on.
    pub(super) async fn end_stuck_connect(&self, peer: bluer::Address) -> Result<(), BluetoothError> {
        let stuck = || {
            let connections = self.kernel_connections().unwrap_or_default();
            connections.iter().any(|connection| connection.peer == peer && !connection.is_up)
        };
        for _ in 0..STUCK_LOOKS {
            if !stuck() {
                return Ok(());
            }
            sleep(STUCK_PAUSE).await;
        }
        let this = self.clone();
        let cycle = async move { this.power_cycle("the kernel does not end a connect").await };
        // In a task of its own: an adapter must not stay off because a connect was given up in the middle.
        match tokio::spawn(cycle).await {
            Ok(true) => Ok(()),
            _ => Err(BluetoothError::ConnectStuck { adapter: self.name().to_owned() }),
        }
    }

    /// bluer's handle.
    pub fn bluer(&self) -> &bluer::Adapter {
        &self.adapter
    }

    /// bluer's session, for agents and bus events.
    pub fn session(&self) -> &bluer::Session {
        &self.daemon.session
    }

    pub(super) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Its name, `hci0`.
    pub fn name(&self) -> &str {
        self.adapter.name()
    }

    /// What all of this process that uses the adapter has in common.
    pub(super) fn shared(&self) -> &Arc<SharedAdapter> {
        &self.shared
    }

    /// The radio connections made with the handle that this was opened with.
    pub(super) fn radio(&self) -> &Arc<Radio> {
        self.bluez.radio()
    }

    /// Ends a radio connection in the background, and drops `then` when it has.
    pub(super) fn disconnect(&self, device: bluer::Device, then: impl Send + 'static) {
        self.shared.begin_disconnect(device.address(), async move {
            if let Err(error) = device.disconnect().await {
                debug!(peer = %device.address(), %error, "disconnect");
            }
            drop(then);
        });
    }

    /// Takes a connection slot for `peer`, held as long as the connection. When all are in use the target just vanishes from
    /// the bus (bleak-retry-connector #67), so they are counted: the connections that BlueZ knows, of both roles and all
    /// programs, and at least those of this process.
    ///
    /// # Errors
    /// [`BluetoothError::SlotsFull`] at once; the caller may try again later.
    pub(super) async fn slot(&self, peer: bluer::Address) -> Result<Slot, BluetoothError> {
        let slots = self.slots;
        let connected = self.connected().await?;
        let others = connected.iter().filter(|address| **address != peer).count();
        let full = || BluetoothError::SlotsFull { adapter: self.name().to_owned(), slots };
        self.shared.slot(slots, others).ok_or_else(full)
    }
}

/// Whether a switch, in software or hardware, blocks the adapter.
fn is_blocked(adapter: &str) -> bool {
    let read =
        |switch: &std::path::Path, name: &str| std::fs::read_to_string(switch.join(name)).unwrap_or_default();
    let switches = std::fs::read_dir("/sys/class/rfkill").into_iter().flatten().flatten();
    switches.map(|switch| switch.path()).any(|switch| {
        read(&switch, "name").trim() == adapter
            && ["soft", "hard"].iter().any(|kind| read(&switch, kind).trim() == "1")
    })
}

/// The adapter of a name or an address; `hci0` before others if any will do.
async fn choose(daemon: &Daemon, wanted: Option<&str>) -> Result<bluer::Adapter, BluetoothError> {
    let session = &daemon.session;
    let mut names =
        session.adapter_names().await.map_err(|e| match BluetoothError::bluez("list adapters")(e) {
            BluetoothError::BlueZ { source, .. } => BluetoothError::NoDaemon { message: source.to_string() },
            other => other,
        })?;
    names.sort();
    let open = |name: &str| session.adapter(name).map_err(BluetoothError::bluez("open adapter"));
    if let Some(name) = names.iter().find(|name| wanted.is_none_or(|wanted| wanted == *name)) {
        return open(name);
    }
    let mut present = Vec::new();
    for name in names {
        let adapter = open(&name)?;
        let address = adapter.address().await.map(|a| a.to_string()).unwrap_or_default();
        if wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(&address)) {
            return Ok(adapter);
        }
        present.push(format!("{name} ({address})"));
    }
    Err(BluetoothError::NoAdapter {
        wanted: wanted.unwrap_or("at all").to_owned(),
        present: if present.is_empty() { "none".to_owned() } else { present.join(", ") },
    })
}
