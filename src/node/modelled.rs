//! A radio of two nodes in one process: to try things, and for the tests of an application, without an adapter.

use std::fmt;

use super::connect::Connect;
use super::listen::Listen;
use super::packets::Packets;
use crate::link::AttMtu;
use crate::transport::clock::Clock;
use crate::transport::sim::{HostConfig, SimDevice, SimLink, SimRadio};

/// The ATT MTU that two Linux machines of today agree on.
const ATT_MTU: u16 = 247;

/// A radio that is only modelled: connection events, air time and loss as on Bluetooth LE (2M), in real time. Clones are the
/// same radio.
///
/// ```
/// use gattway::node::{Admission, ModelledRadio, Node};
/// use gattway::database::{Database, DatabaseConfig};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let open = |name| Database::open(directory.path().join(name), DatabaseConfig::default());
/// let radio = ModelledRadio::new(1);
/// let (station, gateway) = (radio.add_device("station"), radio.add_device("gateway"));
/// let served = Node::builder(open("gateway.db")?).admission(Admission::Anybody).listen(gateway.listen()).start().await?;
/// let node = Node::builder(open("station.db")?).admission(Admission::Anybody).start().await?;
/// node.sync(station.connect(&gateway)).start().finished().await?;
/// # node.shutdown().await?; served.shutdown().await?; Ok(()) }
/// ```
#[derive(Clone)]
pub struct ModelledRadio(SimRadio);

impl ModelledRadio {
    /// Starts a radio; `seed` decides every loss. Needs a tokio runtime.
    pub fn new(seed: u64) -> ModelledRadio {
        ModelledRadio(SimRadio::new(seed, Clock::default()))
    }

    /// Adds a device in reach of all others; the name is for people.
    pub fn add_device(&self, name: impl Into<String>) -> ModelledDevice {
        ModelledDevice(self.0.add_device(name, HostConfig::default()))
    }

    /// Breaks all connections between two devices; sessions resume.
    pub fn cut(&self, a: &ModelledDevice, b: &ModelledDevice) {
        self.0.cut(&a.0, &b.0);
    }
}

impl fmt::Debug for ModelledRadio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelledRadio").finish_non_exhaustive()
    }
}

/// A device on a [`ModelledRadio`]. Clones are the same device.
#[derive(Clone)]
pub struct ModelledDevice(SimDevice);

impl ModelledDevice {
    /// The place where a node listens as this device.
    pub fn listen(&self) -> impl Listen + use<> {
        Packets::listen_modelled(&self.0)
    }

    /// The way from this device to another.
    pub fn connect(&self, peer: &ModelledDevice) -> impl Connect + use<> {
        Packets::connect_modelled(self.0.connector(&peer.0, SimLink::new(AttMtu::new(ATT_MTU))))
    }
}

impl fmt::Debug for ModelledDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelledDevice").finish_non_exhaustive()
    }
}
