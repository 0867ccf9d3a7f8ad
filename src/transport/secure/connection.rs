//! One secure connection as the message endpoint sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tracing::{debug, info};

use super::carrier::Carrier;
use super::config::{INBOUND_BYTES, SecureConnectionConfig};
use super::handover;
use super::shared::{News, RestsOn, Shared};
use crate::endpoint::{AccessRule, CollectionAccess};
use crate::endpoint::{Inbound, Message, MessageEndpointConnection, MessagingError, ReplicatorConnection};
use crate::secure::handover::Hearing;
use crate::secure::{
    Authentication, DirectionStats, Established, PeerPolicy, RefuseReason, SecureError, SecureSession,
};

/// What a peer may do here, as replication asks it.
pub fn access_rule(established: &Established) -> AccessRule {
    let permissions = established.grant.permissions.clone();
    Arc::new(move |collection: &str| {
        let access = permissions.of(collection);
        CollectionAccess { push: access.may_write(), pull: access.may_read() }
    })
}

/// A connection on which nothing is sent that the other side cannot prove to be entitled to read. Dropping it closes it.
pub struct SecureConnection {
    config: SecureConnectionConfig,
    carrier: Carrier,
    stage: Mutex<Stage>,
    established: Mutex<Option<Arc<Established>>>,
}

enum Stage {
    /// The active side, not opened.
    New,
    /// The passive side after its handshake, not opened.
    Accepted(Box<Ready>),
    Opening,
    Open(Open),
    Closed,
}

/// A session that has just been established.
pub(super) struct Ready {
    pub(super) shared: Arc<Shared>,
    pub(super) inbound: Inbound,
    /// What came with the end of the handshake.
    pub(super) news: News,
}

struct Open {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Open {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl SecureConnection {
    /// The active side over a connection that was not opened.
    pub fn active(carrier: Carrier, config: SecureConnectionConfig) -> SecureConnection {
        SecureConnection { config, carrier, stage: Mutex::new(Stage::New), established: Mutex::new(None) }
    }

    pub(super) fn accepted(ready: Ready, established: Established) -> SecureConnection {
        SecureConnection {
            config: ready.shared.config.clone(),
            carrier: ready.shared.carrier.clone(),
            stage: Mutex::new(Stage::Accepted(Box::new(ready))),
            established: Mutex::new(Some(Arc::new(established))),
        }
    }

    /// Who the peer is and what it may do, once that is known.
    pub fn peer(&self) -> Option<Arc<Established>> {
        self.established.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is under the session.
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// Counters of what was sent and received under encryption.
    pub fn stats(&self) -> Option<(DirectionStats, DirectionStats)> {
        match &*self.stage() {
            Stage::Open(open) => open.shared.session().stats(),
            _ => None,
        }
    }

    /// No change under this lock can be left half done.
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Ready, MessagingError> {
        let config = &self.config;
        let keyring = config.keyring();
        let group = config.policy.group_psk();
        // What its owner mends is no reason to give up.
        if let Some(failure) = config.policy.failure() {
            return Err(MessagingError::recoverable(format!("nobody can be let in: {failure}")));
        }
        // A side with nothing to offer need not connect.
        if keyring.is_empty() {
            return Err(config.messaging(&SecureError::NothingToOffer));
        }
        let (handle, mut inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
        self.carrier.connection().open(handle).await?;
        let session = config.session(&self.carrier)?;
        let session = SecureSession::active(session, &keyring, config.entropy()?, config.clock.now())
            .map_err(|error| config.messaging(&error))?;
        let shared = Shared::new(config.clone(), self.carrier.clone(), session);
        let shaken = shared.shake_hands(&mut inbound, None).await;
        let (established, mut news) = shaken.map_err(|failure| failure.to_messaging(config))?;
        let agreed = handover::agree_on_secret(&shared, established, group, &mut inbound, &mut news).await;
        let established = agreed.map_err(|failure| failure.to_messaging(config))?;
        info!(peer = %established.peer, name = ?established.grant.name, via = ?established.via, "secure session established");
        if let Some(check) = &config.check
            && let Err(lack) = check(&established)
        {
            shared.session().refuse(RefuseReason::Role);
            shared.flush_last_word().await;
            return Err(MessagingError::permanent(lack));
        }
        *self.established.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(established));
        Ok(Ready { shared, inbound, news })
    }

    fn start(&self, ready: Ready, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        let mut stage = self.stage();
        if !matches!(*stage, Stage::Opening) {
            return Err(MessagingError::recoverable("closed while connecting"));
        }
        let Ready { shared, inbound, news } = ready;
        let established = self.peer();
        let guard = Guard::new(Arc::clone(&shared), established.clone());
        let control = crate::task::spawn(control(Arc::clone(&shared), guard, connection.clone()));
        let deliver =
            crate::task::spawn(deliver(Arc::clone(&shared), inbound, established, news, connection));
        *stage = Stage::Open(Open { shared, tasks: [control, deliver] });
        Ok(())
    }
}

#[async_trait]
impl MessageEndpointConnection for SecureConnection {
    async fn open(&self, connection: ReplicatorConnection) -> Result<(), MessagingError> {
        let stage = std::mem::replace(&mut *self.stage(), Stage::Opening);
        let ready = match stage {
            Stage::New => self.connect().await?,
            Stage::Accepted(ready) => *ready,
            other => {
                *self.stage() = other;
                return Err(MessagingError::permanent("a connection can be opened only once"));
            }
        };
        self.start(ready, connection)
    }

    async fn send(&self, message: Message) -> Result<(), MessagingError> {
        let shared = match &*self.stage() {
            Stage::Open(open) => Arc::clone(&open.shared),
            _ => return Err(MessagingError::recoverable("the connection is not open")),
        };
        let (sealed, _) = shared.act(|session| session.seal(&message));
        sealed.map_err(|_| MessagingError::recoverable("the secure session is over"))?;
        shared.flush().await
    }

    async fn close(&self, error: Option<MessagingError>) -> Result<(), MessagingError> {
        let stage = std::mem::replace(&mut *self.stage(), Stage::Closed);
        match stage {
            Stage::Closed => return Ok(()),
            Stage::Open(open) if error.is_none() => {
                open.shared.session().end();
                open.shared.flush_last_word().await;
            }
            _ => {}
        }
        self.carrier.connection().close(error).await
    }

    fn close_is_answered(&self) -> bool {
        self.carrier.connection().close_is_answered()
    }

    fn peer_uid(&self) -> Option<String> {
        self.peer().filter(|_| self.config.names_peer).map(|established| established.peer.to_text())
    }

    fn access(&self) -> Option<AccessRule> {
        self.peer().map(|established| access_rule(&established))
    }
}

/// Gives the library what arrives, decrypted, until the end or an error.
async fn deliver(
    shared: Arc<Shared>,
    mut inbound: Inbound,
    established: Option<Arc<Established>>,
    mut news: News,
    connection: ReplicatorConnection,
) {
    let mut hearing = Hearing::default();
    let mut result = Ok(());
    loop {
        let heard =
            handover::listen(&shared, established.as_deref(), &mut hearing, std::mem::take(&mut news.group))
                .await;
        if shared.session().has_output() {
            shared.owes.notify_one();
        }
        for data in std::mem::take(&mut news.data) {
            connection.receive(Message::from(data)).await;
        }
        if let Err(error) = &heard {
            shared.session().fail(error);
            shared.flush_last_word().await;
        }
        if let Err(error) = result.and(heard) {
            debug!(%error, "secure session failed");
            return connection.close(Some(shared.config.messaging(&error)));
        }
        if news.ended {
            return connection.close(None);
        }
        let deadline = shared.session().poll_at();
        let more;
        (result, more) = tokio::select! {
        biased;
                   message = inbound.next() => match message {
                       Some(message) => shared.act(|session| session.handle_bytes(&message)),
                       None => return connection.close(Some(end_of(&shared, &inbound))),
                   },
                   () = shared.config.clock.sleep_until_some(deadline) => {
                       let now = shared.config.clock.now();
                       shared.act(|session| session.handle_timeout(now))
                   }
               };
        news.add(more);
    }
}

/// The bytes have ended without the peer's word: whatever the layer below says, a new connection may do better, since what
/// it says is not proven.
fn end_of(shared: &Shared, inbound: &Inbound) -> MessagingError {
    let _ = shared.session().handle_end();
    let message = match inbound.closed() {
        Some(Some(error)) => error.message().to_owned(),
        _ => SecureError::Truncated.to_string(),
    };
    MessagingError::recoverable(message)
}

/// What an open connection rests on.
struct Guard {
    shared: Arc<Shared>,
    established: Option<Arc<Established>>,
}

impl Guard {
    fn new(shared: Arc<Shared>, established: Option<Arc<Established>>) -> Guard {
        let policy = &shared.config.policy;
        if let Some(established) = &established {
            policy.came(&established.peer, established.via);
            if let (Authentication::Group, RestsOn::Group(Some(psk))) = (established.via, shared.rests_on()) {
                policy.has_key(&established.peer, &psk);
            }
        }
        Guard { shared, established }
    }

    fn policy(&self) -> &dyn PeerPolicy {
        &*self.shared.config.policy
    }

    fn holds(&self) -> bool {
        let Some(established) = &self.established else { return false };
        let answer = self.policy().admit(&established.peer, established.via);
        let group = established.via != Authentication::Group
            || match self.shared.rests_on() {
                RestsOn::Group(psk) => self.policy().group_psk() == psk,
                RestsOn::Changing => true,
            };
        group && answer.is_ok_and(|grant| grant.permissions == established.grant.permissions)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(established) = &self.established {
            self.policy().left(&established.peer, established.via);
        }
    }
}

/// Sends what the session says by itself, and ends it when the policy has changed its mind.
async fn control(shared: Arc<Shared>, guard: Guard, connection: ReplicatorConnection) {
    let mut changes = shared.config.policy.watch();
    let mut watched = true;
    if !guard.holds() {
        return retire(&shared, &connection).await;
    }
    loop {
        tokio::select! {
        biased;
                   () = shared.owes.notified() => {
                       if let Err(error) = shared.flush().await {
                           debug!(%error, "an answer could not be sent");
                       }
                   }
                   changed = changes.changed(), if watched => {
                       // An error: nobody is left who could change anything.
                       watched = changed.is_ok();
                       if !guard.holds() {
                           return retire(&shared, &connection).await;
                       }
                   }
                   () = shared.recheck.notified() => {
                       if !guard.holds() {
                           return retire(&shared, &connection).await;
                       }
                   }
               }
    }
}

async fn retire(shared: &Shared, connection: &ReplicatorConnection) {
    info!("what the peer may do has changed: its connection ends");
    shared.session().refuse(RefuseReason::PermissionChanged);
    shared.flush_last_word().await;
    connection.close(Some(MessagingError::recoverable(SecureError::PermissionChanged.to_string())));
}
