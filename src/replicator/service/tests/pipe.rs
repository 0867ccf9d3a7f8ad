//! A transport in memory between a replicator and a listener, which can be cut or fall silent after some bytes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::endpoint::{
    AccessRule, Message, MessageEndpoint, MessageEndpointConnection, MessageEndpointDelegate, MessagingError,
    ProtocolType, ReplicatorConnection,
};
use crate::replicator::MessageEndpointListener;
use crate::replicator::service::status::lock;

/// What happens to a connection after so many bytes, both directions together.
#[derive(Clone, Copy, Debug)]
pub enum RequestError {
    None,
    /// Both ends lose it.
    Cut(u64),
    /// Nothing arrives any more and nobody is told.
    Silence(u64),
    /// `close` tells the end by itself, and what the passive side says after the CLOSE frame of the active side gets lost.
    CloseIsLast,
}

struct Pipe {
    ends: [watch::Sender<Option<ReplicatorConnection>>; 2],
    protocol: ProtocolType,
    fault: RequestError,
    bytes: AtomicU64,
    is_closing: AtomicBool,
}

/// How a CLOSE frame begins.
const CLOSE_FRAME: u8 = 0x88;

/// One end of a pipe.
pub struct End {
    pipe: Arc<Pipe>,
    side: usize,
}

fn pipe(protocol: ProtocolType, fault: RequestError) -> [Arc<End>; 2] {
    let ends = [watch::Sender::new(None), watch::Sender::new(None)];
    let pipe = Arc::new(Pipe {
        ends,
        protocol,
        fault,
        bytes: AtomicU64::new(0),
        is_closing: AtomicBool::new(false),
    });
    [0, 1].map(|side| Arc::new(End { pipe: Arc::clone(&pipe), side }))
}

impl End {
    fn peer(&self) -> Option<ReplicatorConnection> {
        self.pipe.ends[1 - self.side].borrow().clone()
    }
}

#[async_trait]
impl MessageEndpointConnection for End {
    async fn open(&self, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        self.pipe.ends[self.side].send_replace(Some(connection));
        let mut peer = self.pipe.ends[1 - self.side].subscribe();
        let opened = peer.wait_for(Option::is_some).await;
        opened.map(|_| ()).map_err(|_| MessagingError::recoverable("the other end is gone"))
    }

    async fn send(&self, message: Message) -> Result<(), MessagingError> {
        let pipe = &self.pipe;
        let peer = self.peer().ok_or_else(|| MessagingError::recoverable("the other end is closed"))?;
        let bytes = pipe.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        match pipe.fault {
            RequestError::Cut(after) if bytes >= after => {
                let lost = MessagingError::recoverable("cut");
                pipe.ends
                    .iter()
                    .filter_map(|end| end.borrow().clone())
                    .for_each(|end| end.close(Some(lost.clone())));
                return Err(lost);
            }
            RequestError::Silence(after) if bytes >= after => return Ok(()),
            RequestError::CloseIsLast if self.side == 0 && message[0] == CLOSE_FRAME => {
                pipe.is_closing.store(true, Ordering::Relaxed);
            }
            RequestError::CloseIsLast if self.side == 1 && pipe.is_closing.load(Ordering::Relaxed) => {
                return Ok(());
            }
            _ => {}
        }
        if pipe.protocol == ProtocolType::MessageStream {
            peer.receive(message).await;
            return Ok(());
        }
        // Any split is allowed.
        let mut rest = message.to_bytes();
        while !rest.is_empty() {
            let part = rest.split_to(fastrand::usize(1..=rest.len().min(3000)));
            peer.receive(part.into()).await;
        }
        Ok(())
    }

    async fn close(&self, _: Option<MessagingError>) -> Result<(), MessagingError> {
        self.pipe.ends[self.side].send_replace(None);
        if let Some(peer) = self.peer()
            && !matches!(self.pipe.fault, RequestError::Silence(_))
            && !(self.close_is_answered() && self.side == 1)
        {
            peer.close(None);
        }
        Ok(())
    }

    fn close_is_answered(&self) -> bool {
        matches!(self.pipe.fault, RequestError::CloseIsLast)
    }
}

/// Connects straight to a listener; the n-th connection has the n-th fault, later ones have none.
pub struct ToListener {
    pub listener: Arc<MessageEndpointListener>,
    faults: Mutex<Vec<RequestError>>,
    access: Option<AccessRule>,
}

impl ToListener {
    pub fn new(
        listener: &Arc<MessageEndpointListener>,
        faults: &[RequestError],
        access: Option<AccessRule>,
    ) -> Arc<ToListener> {
        let faults = Mutex::new(faults.iter().rev().copied().collect());
        Arc::new(ToListener { listener: Arc::clone(listener), faults, access })
    }
}

impl MessageEndpointDelegate for ToListener {
    fn create_connection(&self, endpoint: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection> {
        let fault = lock(&self.faults).pop().unwrap_or(RequestError::None);
        let [active, passive] = pipe(endpoint.protocol_type(), fault);
        self.listener.accept_limited(passive, self.access.clone()).expect("room for another");
        active
    }
}
