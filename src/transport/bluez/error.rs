//! What can go wrong with Bluetooth, said so that a person knows what to do.

use std::io;
use std::time::Duration;

/// A failure of the Bluetooth transport. Nothing that was acknowledged is affected by any of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BluetoothError {
    /// bluetoothd or D-Bus cannot be reached.
    #[error(
        "bluetoothd cannot be reached: {message}. Is it installed and running (systemctl start bluetooth)?"
    )]
    NoDaemon {
        /// What D-Bus said.
        message: String,
    },
    /// No adapter, or not the one asked for.
    #[error("no Bluetooth adapter {wanted}; there are: {present}. Plug one in, or name another")]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// The adapter is off and could not be switched on.
    #[error(
        "Bluetooth adapter {adapter} is off and cannot be switched on: {message}. Is it blocked (rfkill list)?"
    )]
    PoweredOff {
        /// Its name.
        adapter: String,
        /// What BlueZ said.
        message: String,
    },
    /// The adapter is blocked by a switch, in software or hardware.
    #[error(
        "Bluetooth adapter {adapter} is blocked (rfkill). Unblock it: rfkill unblock bluetooth, or turn its switch on"
    )]
    Blocked {
        /// Its name.
        adapter: String,
    },
    /// The adapter or bluetoothd went away, or was switched off, in the middle.
    #[error("Bluetooth adapter {adapter} was lost: switched off, unplugged, or bluetoothd was restarted")]
    AdapterLost {
        /// Its name.
        adapter: String,
    },
    /// D-Bus policy forbids it.
    #[error("no permission to use Bluetooth: {message}. Run as root or join the group `bluetooth`")]
    NotPermitted {
        /// What BlueZ said.
        message: String,
    },
    /// The peer was not seen.
    #[error(
        "no gattway device ({peer}) was heard within {} s: out of range, off, not serving, all its connections taken, or under another address than before",
        within.as_secs()
    )]
    NotSeen {
        /// Address, name or `any`.
        peer: String,
        /// How long was scanned.
        within: Duration,
    },
    /// The peer is blocked on this machine: the kernel ends each connection to it at once, and BlueZ waits for ever.
    #[error(
        "peer {peer} is blocked in this machine's BlueZ, by a person or another program. To let it in: bluetoothctl unblock {peer}"
    )]
    PeerBlocked {
        /// Its address.
        peer: String,
    },
    /// The kernel keeps a connect that was given up, and makes no other.
    #[error(
        "the kernel is stuck connecting on adapter {adapter}, and other devices are connected on it. Once they may be lost: bluetoothctl power off, then power on"
    )]
    ConnectStuck {
        /// Its name.
        adapter: String,
    },
    /// The peer was connected and is not any more.
    #[error("peer {peer} was lost while connecting: at the edge of range, or restarted")]
    Disconnected {
        /// Its address.
        peer: String,
    },
    /// Connected, and our service is not there: another device, or one whose bluetoothd has just been restarted.
    #[error("peer {peer} does not offer the gattway service now: {message}. Does `gattway serve` run there?")]
    NoService {
        /// Its address.
        peer: String,
        /// What is missing.
        message: String,
    },
    /// Connected, but it speaks another version of our service.
    #[error("peer {peer} is not a gattway peripheral of this version: {message}")]
    NotOurs {
        /// Its address.
        peer: String,
        /// What is missing or different.
        message: String,
    },
    /// The peer did not let its information be read: it wants the devices to be paired, or these two were not.
    #[error(
        "peer {peer} may want to be paired with ({message}): sync --link-pair. If the two were paired and one has forgotten it: bluetoothctl remove {peer}"
    )]
    PairingNeeded {
        /// Its address.
        peer: String,
        /// What BlueZ said.
        message: String,
    },
    /// The peer serves as many centrals as it can.
    #[error("peer {peer} serves as many centrals as it can; try again later")]
    Busy {
        /// Its address.
        peer: String,
    },
    /// All connection slots of the adapter are taken.
    #[error(
        "adapter {adapter} has all its {slots} connection slots in use; disconnect a device, add an adapter, or raise --slots if it can do more"
    )]
    SlotsFull {
        /// Its name.
        adapter: String,
        /// How many it is trusted with.
        slots: usize,
    },
    /// BlueZ has no room for our advertisement.
    #[error(
        "BlueZ has no room for another advertisement: other programs have them all, or bluetoothd has kept those of killed ones (5.66 does). Restarting bluetoothd frees them"
    )]
    AdvertisementsFull,
    /// Something took too long.
    #[error("{what} took longer than {} s", limit.as_secs())]
    TimedOut {
        /// What was under way.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// BlueZ said no.
    #[error("{what}: {source}")]
    BlueZ {
        /// What was under way.
        what: &'static str,
        /// What BlueZ said.
        source: bluer::Error,
    },
    /// btleplug said no.
    #[error("{what}: {source}")]
    Btleplug {
        /// What was under way.
        what: &'static str,
        /// What btleplug said.
        source: btleplug::Error,
    },
    /// A socket failed.
    #[error("{what}: {source}")]
    Socket {
        /// What was under way.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl BluetoothError {
    /// Wraps BlueZ's error, recognising what a person can mend.
    pub fn bluez(what: &'static str) -> impl FnOnce(bluer::Error) -> BluetoothError {
        move |source| match source.kind {
            // 5.66 says "not permitted" of that too.
            bluer::ErrorKind::NotPermitted if source.message.contains("Maximum advertisements") => {
                BluetoothError::AdvertisementsFull
            }
            bluer::ErrorKind::NotPermitted | bluer::ErrorKind::NotAuthorized => {
                BluetoothError::NotPermitted { message: source.to_string() }
            }
            _ if is_denied(&source) => BluetoothError::NotPermitted { message: source.to_string() },
            _ => BluetoothError::BlueZ { what, source },
        }
    }

    /// Wraps a socket's error.
    pub fn socket(what: &'static str) -> impl FnOnce(io::Error) -> BluetoothError {
        move |source| BluetoothError::Socket { what, source }
    }

    /// Whether trying again can help without a person.
    pub fn is_transient(&self) -> bool {
        !matches!(self, BluetoothError::NotPermitted { .. } | BluetoothError::NotOurs { .. })
    }
}

/// Whether D-Bus policy forbade it.
pub(super) fn is_denied(error: &bluer::Error) -> bool {
    error.to_string().contains("org.freedesktop.DBus.Error.AccessDenied")
}

impl From<BluetoothError> for io::Error {
    fn from(error: BluetoothError) -> io::Error {
        let kind = match &error {
            BluetoothError::NotPermitted { .. } => io::ErrorKind::PermissionDenied,
            BluetoothError::NotOurs { .. } => io::ErrorKind::InvalidData,
            BluetoothError::NotSeen { .. }
            | BluetoothError::NoService { .. }
            | BluetoothError::NoAdapter { .. } => io::ErrorKind::NotFound,
            BluetoothError::Disconnected { .. } | BluetoothError::AdapterLost { .. } => {
                io::ErrorKind::ConnectionReset
            }
            BluetoothError::TimedOut { .. } => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
