//! What the tasks of one secure connection share: the session under a lock, and the way out in the order of sealing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::debug;

use super::carrier::Carrier;
use super::config::{LAST_WORD_TIMEOUT, SecureConnectionConfig};
use crate::endpoint::{Inbound, Message, MessagingError};
use crate::link::ResumeProver;
use crate::secure::{Established, Psk, SecureError, SecureEvent, SecureSession};

pub(super) struct Shared {
    pub(super) config: SecureConnectionConfig,
    pub(super) carrier: Carrier,
    session: Mutex<SecureSession>,
    /// Held by who sends; true if a send was given up halfway, after which the stream is worth nothing.
    writer: tokio::sync::Mutex<bool>,
    /// The session has something to say that nobody waits for.
    pub(super) owes: Notify,
    rests_on: Mutex<RestsOn>,
    /// What the session rests on has changed: whether it may go on is to be asked again.
    pub(super) recheck: Notify,
}

/// The group's key that a session with a member was made with, or has been handed over in it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum RestsOn {
    Group(Option<Psk>),
    /// A new one is just being stored.
    Changing,
}

/// What events meant.
#[derive(Default)]
pub(super) struct News {
    pub(super) established: Option<Box<Established>>,
    pub(super) data: Vec<Bytes>,
    /// Of the epochs of the group.
    pub(super) group: Vec<Bytes>,
    pub(super) ended: bool,
}

impl News {
    /// More of it, later.
    pub(super) fn add(&mut self, more: News) {
        self.data.extend(more.data);
        self.group.extend(more.group);
        self.ended |= more.ended;
        self.established = self.established.take().or(more.established);
    }
}

impl Shared {
    pub(super) fn new(
        config: SecureConnectionConfig,
        carrier: Carrier,
        session: SecureSession,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            config,
            carrier,
            session: Mutex::new(session),
            writer: tokio::sync::Mutex::new(false),
            owes: Notify::new(),
            rests_on: Mutex::new(RestsOn::Group(None)),
            recheck: Notify::new(),
        })
    }

    /// What the session rests on; what it rested on before.
    pub(super) fn set_rests_on(&self, now: RestsOn) -> RestsOn {
        std::mem::replace(&mut *self.rests_on.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    /// What the session rests on.
    pub(super) fn rests_on(&self) -> RestsOn {
        self.rests_on.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The session never panics on what a peer sends, and nothing else under this lock can leave it half changed.
    pub(super) fn session(&self) -> MutexGuard<'_, SecureSession> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the session and takes in what came of it; the result stands beside the news, not in their place.
    pub(super) fn act<T>(&self, action: impl FnOnce(&mut SecureSession) -> T) -> (T, News) {
        let mut session = self.session();
        let result = action(&mut session);
        let mut news = News::default();
        while let Some(event) = session.poll_event() {
            match event {
                SecureEvent::Established(established) => news.established = Some(established),
                SecureEvent::Data(data) => news.data.push(data),
                SecureEvent::Group(content) => news.group.push(content),
                SecureEvent::Ended => news.ended = true,
                SecureEvent::ResumeKey => self.set_prover(&session),
                SecureEvent::ResumeConfirmed => {
                    if let Carrier::Link(link) = &self.carrier {
                        link.confirm_resume_prover();
                    }
                }
            }
        }
        (result, news)
    }

    fn set_prover(&self, session: &SecureSession) {
        if let (Carrier::Link(link), Some(key)) = (&self.carrier, session.resume_key()) {
            link.set_resume_prover(ResumeProver::new(key, SecureSession::resume_tag));
        }
    }

    /// Sends what was sealed, in order. Whoever comes first sends for all.
    pub(super) async fn flush(&self) -> Result<(), MessagingError> {
        let mut given_up = self.writer.lock().await;
        loop {
            if *given_up {
                return Err(MessagingError::recoverable("an earlier send was given up halfway"));
            }
            let bytes = self.session().take_output();
            if bytes.is_empty() {
                return Ok(());
            }
            *given_up = true;
            self.carrier.connection().send(Message::from(bytes)).await?;
            *given_up = false;
        }
    }

    /// Sends the last word of a session that has failed, for a limited time.
    pub(super) async fn flush_last_word(&self) {
        let limit = self.config.clock.sleep(LAST_WORD_TIMEOUT);
        tokio::select! {
        biased;
                   result = self.flush() => if let Err(error) = result {
                       debug!(%error, "the last word did not leave");
                   },
                   () = limit => {}
               }
    }

    /// Shakes hands until the peer is known and may come in. `stage` is told when the peer has come further than a
    /// stranger can.
    pub(super) async fn shake_hands(
        &self,
        inbound: &mut Inbound,
        first: Option<Message>,
    ) -> Result<(Established, News), Failure> {
        let mut arrived = first;
        loop {
            let result = match arrived.take() {
                Some(message) => self.act(|session| session.handle_bytes(&message)),
                None => (Ok(()), News::default()),
            };
            let (result, news) = result;
            if let Err(error) = result {
                self.flush_last_word().await;
                return Err(Failure::Secure(error));
            }
            self.flush().await.map_err(Failure::Carrier)?;
            let mut news = news;
            if let Some(established) = news.established.take() {
                return Ok((*established, news));
            }
            let deadline = self.session().poll_at();
            tokio::select! {
            biased;
                           message = inbound.next() => match message {
                               Some(message) => arrived = Some(message),
                               None => return Err(ended_early(inbound)),
                           },
                           () = self.config.clock.sleep_until_some(deadline) => {
                               let now = self.config.clock.now();
                               if let (Err(error), _) = self.act(|session| session.handle_timeout(now)) {
                                   self.flush_last_word().await;
                                   return Err(Failure::Secure(error));
                               }
                           }
                       }
        }
    }
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum Failure {
    Secure(SecureError),
    Carrier(MessagingError),
}

impl Failure {
    pub(super) fn to_messaging(&self, config: &SecureConnectionConfig) -> MessagingError {
        match self {
            Failure::Secure(error) => config.messaging(error),
            Failure::Carrier(error) => error.clone(),
        }
    }
}

pub(super) fn ended_early(inbound: &Inbound) -> Failure {
    match inbound.closed() {
        Some(Some(error)) => Failure::Carrier(error),
        _ => {
            Failure::Carrier(MessagingError::recoverable("the connection ended during the secure handshake"))
        }
    }
}
