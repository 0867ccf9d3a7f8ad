//! One attempt of a device at the code, from its connection to the entry in the trust list.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::attempts::Turn;
use super::error::PairError;
use super::event::{PairEvent, Paired};
use crate::endpoint::{Inbound, Message, MessageEndpointConnection, ReplicatorConnection};
use crate::secure::pairing::{DeviceInfo, Pairing, PairingCode, PairingError, PairingStep};
use crate::secure::{Established, Identity, PeerId, Permissions};
use crate::transport::secure::{Accepted, SecureConnection};
use crate::trust::files::PrivateFileError;
use crate::trust::list::{Origin, TrustError, TrustList};

/// Time for the messages of one attempt: five flights at the slowest interval of Bluetooth.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the peer that may wait: some messages.
pub(super) const INBOUND_BYTES: usize = 4096;

/// What a device that was paired may do, by what the list says of it; `None`: nothing else is said about it.
pub(crate) type Roles =
    Arc<dyn Fn(&TrustList, &PeerId) -> Result<Option<Permissions>, TrustError> + Send + Sync>;

/// Is told of each event, from the task where it happens: it must not block.
pub(super) type PairObserver = Arc<dyn Fn(&PairEvent<'_>) + Send + Sync>;

/// This device, as it is paired.
pub(super) struct Device {
    pub(super) directory: PathBuf,
    pub(super) identity: Arc<Identity>,
    pub(super) info: DeviceInfo,
    pub(super) roles: Option<Roles>,
    pub(super) observers: Vec<PairObserver>,
}

/// How an attempt ended.
pub(super) enum Ended {
    Paired(Paired),
    Failed(PairingError),
    Lost(Arc<str>),
    NotEntered(TrustError),
    NotCounted(PrivateFileError),
}

impl Ended {
    pub(super) fn result(self) -> Result<Paired, PairError> {
        match self {
            Ended::Paired(paired) => Ok(paired),
            Ended::Failed(error) => Err(PairError::Refused(error)),
            Ended::Lost(reason) => Err(PairError::Lost { reason }),
            Ended::NotEntered(error) => Err(PairError::List(error)),
            Ended::NotCounted(error) => Err(PairError::Guesses(error)),
        }
    }
}

impl Device {
    pub(super) fn tell(&self, event: &PairEvent<'_>) {
        self.observers.iter().for_each(|observer| observer(event));
    }

    /// One newcomer's attempt at the code that is shown here, from its arrival on.
    pub(super) async fn answer(
        &self,
        accepted: Accepted,
        code: &PairingCode,
        turn: Turn<'_>,
    ) -> (PeerId, Ended) {
        let Accepted { connection, established, .. } = accepted;
        let (handle, inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
        let (peer, me) = (established.peer, self.identity.id());
        let pairing = Pairing::passive(code.clone(), established.hash, me, peer, self.info.clone());
        let ended = match connection.open(handle).await {
            Ok(()) => self.converse(&connection, inbound, pairing, &established, &turn).await,
            Err(error) => Ended::Lost(error.to_string().into()),
        };
        (peer, ended)
    }

    /// Runs one attempt to its end and closes the connection.
    pub(super) async fn converse(
        &self,
        connection: &SecureConnection,
        inbound: Inbound,
        pairing: Pairing,
        established: &Established,
        turn: &Turn<'_>,
    ) -> Ended {
        let talk = self.talk(connection, inbound, pairing, established, turn);
        let ended = timeout(ATTEMPT_TIMEOUT, talk).await.unwrap_or_else(|_| {
            Ended::Lost(format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs()).into())
        });
        // In order, so that a last word arrives.
        let _ = connection.close(None).await;
        ended
    }

    async fn talk(
        &self,
        connection: &SecureConnection,
        mut inbound: Inbound,
        mut pairing: Pairing,
        established: &Established,
        turn: &Turn<'_>,
    ) -> Ended {
        let mut bytes = Vec::new();
        let mut entered = None;
        loop {
            let mut step = pairing.handle_bytes(&bytes);
            if step == Ok(PairingStep::Guess) {
                match turn.count() {
                    Ok(true) => step = turn.judged(pairing.judge()),
                    Ok(false) => return Ended::Lost("the code was tried too often meanwhile".into()),
                    Err(error) => return Ended::NotCounted(error),
                }
            }
            if let Ok(PairingStep::Enter(info)) = &step {
                match self.enter(established.peer, info) {
                    Ok(name) => entered = Some(Paired { id: established.peer, name, confirmed: false }),
                    Err(error) => return Ended::NotEntered(error),
                }
                step = pairing.entered();
            }
            let output = pairing.take_output();
            let sent =
                if output.is_empty() { Ok(()) } else { connection.send(Message::from_bytes(output)).await };
            match (step, entered.take()) {
                (Err(error), _) => return Ended::Failed(error),
                (Ok(PairingStep::Done), Some(peer)) => {
                    return Ended::Paired(Paired { confirmed: true, ..peer });
                }
                (_, peer) => entered = peer,
            }
            let message = match sent {
                Ok(()) => inbound.next().await,
                Err(_) => None,
            };
            match (message, entered.take()) {
                (Some(message), peer) => {
                    bytes = message.to_vec();
                    entered = peer;
                }
                (None, Some(peer)) => return Ended::Paired(peer),
                (None, None) => return Ended::Lost("the connection ended before the code was proven".into()),
            }
        }
    }

    /// Enters the other device into the list; gives the name it has there.
    fn enter(&self, id: PeerId, info: &DeviceInfo) -> Result<Option<String>, TrustError> {
        TrustList::update(&self.directory, |list| {
            let permissions = match &self.roles {
                Some(roles) => roles(list, &id)?,
                None => None,
            };
            let peer = list.enter(id, Origin::Paired)?;
            if peer.denied {
                self.tell(&PairEvent::Readmitted { peer: id });
            }
            (peer.origin, peer.denied) = (Origin::Paired, false);
            peer.permissions = permissions.or(peer.permissions.take());
            peer.advert_key = Some(info.advert_key.clone());
            if peer.name.is_none() {
                list.suggest_name(&id, &info.name);
            }
            Ok(list.get(&id).and_then(|peer| peer.name.clone()))
        })
    }
}
