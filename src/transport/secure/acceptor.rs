//! Where newcomers shake hands: beside each other, a bounded number of them, for a bounded time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::carrier::Carrier;
use super::config::{HALF_OPEN_INBOUND_BYTES, KEYED_PLACE_TIME, SecureConnectionConfig};
use super::connection::{Ready, SecureConnection};
use super::handover;
use super::shared::{Failure, Shared};
use crate::endpoint::framing::{Framing, FramingRole};
use crate::endpoint::{Message, MessagingError, ProtocolType, ReplicatorConnection};
use crate::secure::{Established, Keyring, PeerId, Psk, SecureError, SecureSession};
use crate::time::Instant;

/// WebSocket's code for "not under these conditions" (RFC 6455 section 7.4.1).
const CLOSE_POLICY: u16 = 1008;
/// What a plain peer is told.
const PLAIN_REFUSED: &str = "this side speaks encrypted only; --plain on both sides switches that off";
/// Results that wait to be taken: more only says who was refused later.
const RESULTS_MAX: usize = 64;

/// A peer that may come in, with a connection that the listener can open.
pub struct Accepted {
    /// Not opened yet.
    pub connection: Arc<SecureConnection>,
    /// Who it is, and what it may do.
    pub established: Established,
    /// Where it came from, for logs.
    pub label: String,
}

/// What became of a newcomer.
pub enum Incoming {
    /// It may come in.
    Accepted(Box<Accepted>),
    /// It was refused, or failed, and is gone.
    Refused {
        /// Where it came from, for logs.
        label: String,
        /// Who it is, if it came that far.
        peer: Option<PeerId>,
        /// Why.
        error: MessagingError,
    },
}

/// Shakes hands with newcomers. Clones are the same acceptor.
#[derive(Clone)]
pub struct SecureAcceptor {
    inner: Arc<Inner>,
}

struct Inner {
    config: SecureConnectionConfig,
    keys: Mutex<Option<Keys>>,
    half_open: Mutex<HalfOpen>,
    counts: Counts,
    results: mpsc::Sender<Incoming>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
}

/// The keyring, and the state of the policy that it was made of.
#[derive(Clone)]
struct Keys {
    version: u64,
    ring: Keyring,
    group: Option<Psk>,
}

#[derive(Default)]
struct HalfOpen {
    last: u64,
    /// Oldest first.
    under_way: VecDeque<UnderWay>,
}

struct UnderWay {
    id: u64,
    since: Instant,
    shared: Option<Arc<Shared>>,
    task: AbortHandle,
}

/// Who gives way first when places are scarce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GivesWay {
    /// It was refused, and is only being told so.
    Refused,
    /// It has shown no key of ours.
    Stranger,
    /// It has, and then took its time.
    Slow,
}

impl UnderWay {
    /// `None`: it stays.
    fn gives_way(&self, now: Instant) -> Option<GivesWay> {
        let Some(shared) = &self.shared else { return Some(GivesWay::Stranger) };
        let session = shared.session();
        if session.is_over() {
            Some(GivesWay::Refused)
        } else if !session.knows_a_key() {
            Some(GivesWay::Stranger)
        } else {
            (now >= self.since + KEYED_PLACE_TIME).then_some(GivesWay::Slow)
        }
    }
}

impl HalfOpen {
    /// A number for one more handshake, if there is room or room can be made: the oldest of those who give way first.
    fn enter(&mut self, max: usize, now: Instant, counts: &Counts) -> Option<u64> {
        if self.under_way.len() >= max {
            let places = self.under_way.iter().enumerate();
            let ranked = places.filter_map(|(at, under_way)| Some((under_way.gives_way(now)?, at)));
            let (rank, at) = ranked.min()?;
            let gone = self.under_way.remove(at)?;
            debug!(?rank, "a handshake gives way to that of another");
            if rank != GivesWay::Refused {
                counts.gave_way.fetch_add(1, Ordering::Relaxed);
            }
            gone.task.abort();
        }
        self.last += 1;
        Some(self.last)
    }
}

/// What became of all newcomers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptorStats {
    /// May come in.
    pub accepted: u64,
    /// Were refused, or failed.
    pub refused: u64,
    /// Gave way to another: they had shown no key of ours, or were slow after it.
    pub gave_way: u64,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    gave_way: AtomicU64,
}

impl SecureAcceptor {
    /// An acceptor without newcomers.
    pub fn new(config: SecureConnectionConfig) -> SecureAcceptor {
        let (results, waiting) = mpsc::channel(RESULTS_MAX);
        let inner = Inner {
            config,
            keys: Mutex::new(None),
            half_open: Mutex::default(),
            counts: Counts::default(),
            results,
            waiting: tokio::sync::Mutex::new(waiting),
        };
        SecureAcceptor { inner: Arc::new(inner) }
    }

    /// Takes a connection that a peer has made; `label` names it in logs. Returns at once.
    ///
    /// When as many handshakes as allowed are under way, the oldest one gives way whose peer has not shown any key of
    /// ours, or has and is not done after [`KEYED_PLACE_TIME`]; else the newcomer is dropped.
    pub fn incoming(&self, carrier: Carrier, label: impl Into<String>) {
        let label = label.into();
        // Under the lock, so that whoever gives way to another can be ended.
        let mut half_open = self.inner.half_open();
        let (max, now) = (self.inner.config.half_open_max.max(1), self.inner.config.clock.now());
        let Some(id) = half_open.enter(max, now, &self.inner.counts) else {
            drop(half_open);
            warn!(label, max, "too many secure handshakes under way: one more is dropped");
            let error = MessagingError::recoverable("too many handshakes at once");
            return self.inner.refused(label, None, error);
        };
        let inner = Arc::clone(&self.inner);
        let task = crate::task::spawn(async move {
            let place = Place { inner: Arc::clone(&inner), id };
            let result = inner.shake_hands(id, carrier.clone(), &label).await;
            match result {
                Ok(accepted) => {
                    drop(place);
                    inner.counts.accepted.fetch_add(1, Ordering::Relaxed);
                    // Nobody accepts any more: dropped, and with it closed.
                    let _ = inner.results.send(Incoming::Accepted(Box::new(accepted))).await;
                }
                Err((peer, error)) => {
                    info!(label, %error, "a newcomer was refused");
                    inner.refused(label, peer, error);
                    // In order, so that the peer gets the last word; its place is the first to give way.
                    let _ = carrier.connection().close(None).await;
                    drop(place);
                }
            }
        });
        half_open.under_way.push_back(UnderWay { id, since: now, shared: None, task: task.abort_handle() });
    }

    /// What became of the next newcomer. May be dropped and called again without loss.
    pub async fn next(&self) -> Option<Incoming> {
        self.inner.waiting.lock().await.recv().await
    }

    /// Counters.
    pub fn stats(&self) -> AcceptorStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.inner.counts;
        AcceptorStats {
            accepted: count(&counts.accepted),
            refused: count(&counts.refused),
            gave_way: count(&counts.gave_way),
        }
    }

    /// Handshakes under way.
    pub fn half_open(&self) -> usize {
        self.inner.half_open().under_way.len()
    }
}

/// Frees a handshake's place however its task ends.
struct Place {
    inner: Arc<Inner>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.half_open().under_way.retain(|under_way| under_way.id != self.id);
    }
}

impl Inner {
    /// No change under this lock can be left half done.
    fn half_open(&self) -> MutexGuard<'_, HalfOpen> {
        self.half_open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, label: String, peer: Option<PeerId>, error: MessagingError) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        // More than can wait only say less of who was refused.
        let _ = self.results.try_send(Incoming::Refused { label, peer, error });
    }

    /// The keys as the policy has them now.
    fn keys(&self) -> Keys {
        let version = *self.config.policy.watch().borrow();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        match &*keys {
            Some(known) if known.version == version => known.clone(),
            _ => {
                let ring = self.config.keyring();
                let fresh = Keys { version, ring, group: self.config.policy.group_psk() };
                keys.insert(fresh).clone()
            }
        }
    }

    async fn shake_hands(
        &self,
        id: u64,
        carrier: Carrier,
        label: &str,
    ) -> Result<Accepted, (Option<PeerId>, MessagingError)> {
        let config = &self.config;
        let nobody = |error| (None, error);
        let (handle, mut inbound) = ReplicatorConnection::detached(HALF_OPEN_INBOUND_BYTES);
        let Keys { ring, group, .. } = self.keys();
        let entropy = config.entropy().map_err(nobody)?;
        let session = config.session(&carrier).map_err(nobody)?;
        let session = SecureSession::passive(session, ring, entropy, config.clock.now());
        let shared = Shared::new(config.clone(), carrier.clone(), session);
        if let Some(under_way) = self.half_open().under_way.iter_mut().find(|under_way| under_way.id == id) {
            under_way.shared = Some(Arc::clone(&shared));
        }
        let result = async {
            // The connection is there already; a transport that takes its time all the same has the same limit.
            let deadline = shared.session().poll_at();
            tokio::select! {
            biased;
                           opened = carrier.connection().open(handle) => opened.map_err(Failure::Carrier)?,
                           () = config.clock.sleep_until_some(deadline) => {
                               return Err(Failure::Secure(SecureError::Timeout { limit: config.timeout }));
                           }
                       }
            let (established, mut news) = shared.shake_hands(&mut inbound, None).await?;
            let established =
                handover::agree_on_secret(&shared, established, group, &mut inbound, &mut news).await?;
            Ok((established, news))
        }
        .await;
        match result {
            Ok((established, news)) => {
                info!(label, peer = %established.peer, name = ?established.grant.name, via = ?established.via, "secure session established");
                let ready = Ready { shared, inbound, news };
                let connection = Arc::new(SecureConnection::accepted(ready, established.clone()));
                Ok(Accepted { connection, established, label: label.to_owned() })
            }
            Err(failure) => {
                if let Failure::Secure(SecureError::Plain) = failure {
                    refuse_plain(&carrier).await;
                }
                let peer = match &failure {
                    Failure::Secure(SecureError::NotAdmitted { peer, .. }) => Some(*peer),
                    _ => None,
                };
                Err((peer, failure.to_messaging(config)))
            }
        }
    }
}

/// Tells a plain peer why, in its own words.
async fn refuse_plain(carrier: &Carrier) {
    let framing = Framing::new(FramingRole::Passive, ProtocolType::ByteStream);
    if let Some(close) = framing.encode_close(CLOSE_POLICY, PLAIN_REFUSED, [0; 4]) {
        let _ = carrier.connection().send(Message::from_bytes(close)).await;
    }
}
