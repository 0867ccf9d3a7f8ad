//! A packet radio that the user brings, or the modelled one: whole packets, unreliable. The link protocol makes of them a
//! stream that survives the loss of a connection.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::connect::Connect;
use super::listen::{Accept, Arrival, Listen, Local, Sealed};
use crate::task;
use crate::transport::packet::{Connector, PacketChannel};
use crate::transport::secure::Carrier;
use crate::transport::session::{LinkAcceptor, LinkConnection, SessionConfig};
use crate::transport::sim::{SimConnector, SimDevice, SimListener};

/// The passive end of a packet radio.
#[async_trait]
pub trait PacketListener: Send + Sync {
    /// The next connection that a peer has made. `None`: there will be no other.
    ///
    /// # Errors
    /// The radio cannot be used now; it is asked again after a pause.
    async fn accept(&self) -> io::Result<Option<PacketChannel>>;
}

/// Makes places and ways of a packet radio.
#[derive(Debug)]
pub struct Packets;

impl Packets {
    /// Listens on a radio; `address` names it for people.
    pub fn listen(address: impl Into<String>, radio: Arc<dyn PacketListener>) -> impl Listen {
        PacketPlace::new(address.into(), radio, SessionConfig::default())
    }

    /// Reaches one peer; `address` names it for people.
    pub fn connect(address: impl Into<String>, radio: Arc<dyn Connector>) -> impl Connect {
        PacketWay { address: address.into(), radio, session: SessionConfig::default() }
    }

    /// Listens on a device of the modelled radio.
    pub(crate) fn listen_modelled(device: &SimDevice) -> PacketPlace {
        let radio = Arc::new(Modelled(Mutex::new(device.listen())));
        PacketPlace::new("sim:".to_owned(), radio, SessionConfig::on(device.clock()))
    }

    /// Reaches a device of the modelled radio.
    pub(crate) fn connect_modelled(connector: Arc<SimConnector>) -> PacketWay {
        let session = SessionConfig::on(connector.clock());
        PacketWay { address: format!("sim:{}", connector.peer_name()), radio: connector, session }
    }
}

/// A packet radio on which a node listens.
pub(crate) struct PacketPlace {
    address: String,
    /// It outlives each opening, and with it the sessions that are to be resumed.
    acceptor: LinkAcceptor,
    radio: Arc<dyn PacketListener>,
}

impl PacketPlace {
    fn new(address: String, radio: Arc<dyn PacketListener>, session: SessionConfig) -> PacketPlace {
        PacketPlace { address, acceptor: LinkAcceptor::new(session), radio }
    }

    /// Other settings of the resumable sessions.
    #[must_use]
    pub(crate) fn with_session(mut self, session: SessionConfig) -> PacketPlace {
        self.acceptor = LinkAcceptor::new(session);
        self
    }
}

impl Sealed for PacketPlace {}

#[async_trait]
impl Listen for PacketPlace {
    fn address(&self) -> String {
        self.address.clone()
    }

    async fn open(&self, _: &Local) -> io::Result<Box<dyn Accept>> {
        let (acceptor, radio) = (self.acceptor.clone(), Arc::clone(&self.radio));
        let pump = task::spawn(async move {
            while let Some(channel) = radio.accept().await? {
                acceptor.incoming(channel);
            }
            Ok(())
        });
        Ok(Box::new(Open {
            address: self.address.clone(),
            acceptor: self.acceptor.clone(),
            pump: Some(pump),
        }))
    }
}

struct Open {
    address: String,
    acceptor: LinkAcceptor,
    /// Takes channels; `None` when there will be no other.
    pump: Option<JoinHandle<io::Result<()>>>,
}

#[async_trait]
impl Accept for Open {
    fn address(&self) -> String {
        self.address.clone()
    }

    async fn accept(&mut self) -> io::Result<Option<Arrival>> {
        let ended = async {
            match &mut self.pump {
                Some(pump) => pump.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            connection = self.acceptor.next() => Ok(connection.map(|connection| {
                let label = connection.stats().label;
                Arrival { carrier: Carrier::Link(connection), label }
            })),
            ended = ended => {
                self.pump = None;
                ended.unwrap_or_else(|_| Err(io::Error::other("the packet radio's listener panicked"))).map(|()| None)
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(pump) = &self.pump {
            pump.abort();
        }
    }
}

/// A peer that is reached over a packet radio.
pub(crate) struct PacketWay {
    address: String,
    radio: Arc<dyn Connector>,
    session: SessionConfig,
}

impl Sealed for PacketWay {}

impl Connect for PacketWay {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn connect(&self, _: &Local) -> Carrier {
        Carrier::Link(LinkConnection::central(Arc::clone(&self.radio), self.session))
    }
}

/// A listener of the modelled radio.
struct Modelled(Mutex<SimListener>);

#[async_trait]
impl PacketListener for Modelled {
    async fn accept(&self) -> io::Result<Option<PacketChannel>> {
        Ok(self.0.lock().await.accept().await)
    }
}
