//! Where a peripheral's channels come in: each is given to the session that its first packet asks for.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout_at;
use tracing::{debug, warn};

use super::arrival::Arrival;
use super::config::SessionConfig;
use super::connection::LinkConnection;
use super::driver::{Driver, Observer, Supply};
use super::shared::Shared;
use crate::endpoint::MessagingError;
use crate::link::{LinkRole, PACKET_BYTES_MAX, SessionId, busy_refusal, peek_session};
use crate::task;
use crate::transport::packet::PacketChannel;

/// Channels that wait to replace the present one of a session: the newest is what counts.
const INBOX_CHANNELS: usize = 2;
/// Channels that are being told that there is no room; more are dropped without a word.
const REFUSALS_MAX: usize = 8;
/// Time for a refusal to leave and for the central to hang up.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Packets of a channel that may come before the central's first one: BlueZ may spoil that (`firmware-notes/bluez.md`), and pieces of
/// it may come out of order. The central says it again.
const STRAYS_MAX: usize = 8;
/// Time for a session that gives way to end.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Sessions beyond the limit, for newcomers that have proven nothing while all room is with lost sessions of peers that have.
const SPARE_SESSIONS: usize = 4;
/// How long a session is connected without a proof before it may give way, where others have given proofs.
const UNPROVEN_TIME: Duration = Duration::from_secs(3);

/// Makes connections of incoming channels, and gives channels of resumed sessions to those that exist.
/// Clones are the same acceptor.
#[derive(Clone)]
pub struct LinkAcceptor {
    inner: Arc<Inner>,
}

struct Inner {
    config: SessionConfig,
    sessions: Mutex<BTreeMap<SessionId, Known>>,
    accepted: AtomicU64,
    refused: Counters,
    /// One permit for each session there may be.
    room: Arc<Semaphore>,
    /// Room that a newcomer has until it has proven who it is.
    spare: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    ready: mpsc::Sender<Arc<LinkConnection>>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Arc<LinkConnection>>>,
}

/// Channels that a [`LinkAcceptor`] has dropped since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct AcceptorRefusals {
    /// Beyond the limit of connections in a handshake.
    pub handshakes: u64,
    /// Without a packet in time.
    pub silent: u64,
    /// With a first packet that is not of the link protocol.
    pub strangers: u64,
    /// For want of room for another session.
    pub sessions: u64,
}

/// The counters while they grow.
#[derive(Default)]
struct Counters {
    handshakes: AtomicU64,
    silent: AtomicU64,
    strangers: AtomicU64,
    sessions: AtomicU64,
}

/// Room for one session, until it is dropped.
struct Room {
    _permit: OwnedSemaphorePermit,
    is_spare: bool,
}

/// A session that can be asked for.
#[derive(Clone)]
struct Known {
    inbox: mpsc::Sender<Arrival>,
    shared: Weak<Shared>,
}

impl LinkAcceptor {
    /// An acceptor without sessions.
    pub fn new(config: SessionConfig) -> LinkAcceptor {
        let (ready, waiting) = mpsc::channel(config.sessions_max + SPARE_SESSIONS);
        let inner = Inner {
            config,
            sessions: Mutex::default(),
            accepted: AtomicU64::new(0),
            refused: Counters::default(),
            room: Arc::new(Semaphore::new(config.sessions_max)),
            spare: Arc::new(Semaphore::new(SPARE_SESSIONS)),
            handshakes: Arc::new(Semaphore::new(config.handshakes_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            ready,
            waiting: tokio::sync::Mutex::new(waiting),
        };
        LinkAcceptor { inner: Arc::new(inner) }
    }

    /// Takes a channel that a central has just made. Returns at once; a channel that leads to nothing within the
    /// handshake's time limit is dropped.
    pub fn incoming(&self, channel: PacketChannel) {
        let Ok(permit) = Arc::clone(&self.inner.handshakes).try_acquire_owned() else {
            let max = self.inner.config.handshakes_max;
            warn!(via = channel.label, max, "too many connections in a handshake: one more is refused");
            self.inner.refused.handshakes.fetch_add(1, Ordering::Relaxed);
            return self.inner.refuse(channel);
        };
        let inner = Arc::clone(&self.inner);
        task::spawn(async move {
            if let Some((arrival, wanted)) = inner.first_packet(channel).await {
                inner.dispatch(arrival, wanted, permit).await;
            }
        });
    }

    /// The next new connection, with an established session; resumed ones do not come here again. May be dropped and
    /// called again without loss.
    pub async fn next(&self) -> Option<Arc<LinkConnection>> {
        self.inner.waiting.lock().await.recv().await
    }

    /// What was dropped so far.
    pub fn refusals(&self) -> AcceptorRefusals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { handshakes, silent, strangers, sessions } = &self.inner.refused;
        AcceptorRefusals {
            handshakes: read(handshakes),
            silent: read(silent),
            strangers: read(strangers),
            sessions: read(sessions),
        }
    }

    /// Sessions that are known, connected or lost.
    pub fn sessions(&self) -> usize {
        self.inner.lock().values().filter(|known| !known.inbox.is_closed()).count()
    }
}

impl Inner {
    /// No change under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Known>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more session. If there is none, one that has proven nothing gives way: first one whose handshake was
    /// never finished, then the one that has been without a connection for longest, then, where others have given proofs,
    /// the oldest one. Lost sessions of peers that have proven who they are stay: beside them there is spare room, until the
    /// newcomer has done so too.
    async fn make_room(&self) -> Option<Room> {
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            return Some(Room { _permit: permit, is_spare: false });
        }
        let known = self.known();
        let proofs = known.iter().any(|shared| shared.lock().proven);
        let now = self.config.clock.now();
        let unproven = known.iter().filter_map(|shared| {
            let core = shared.lock();
            let since = core.lost_since.or_else(|| {
                (proofs && core.established && now >= core.began + UNPROVEN_TIME).then_some(core.began)
            })?;
            let order = (core.established, core.lost_since.is_none(), since);
            (!core.proven).then_some((order, shared))
        });
        if let Some((_, oldest)) = unproven.min_by_key(|(order, _)| *order) {
            let (freed, is_spare) = self.evict(oldest).await?;
            return Some(Room { _permit: freed, is_spare });
        }
        let kept = known.iter().any(|shared| shared.lock().lost_since.is_some());
        let permit = Arc::clone(&self.spare).try_acquire_owned().ok().filter(|_| kept)?;
        Some(Room { _permit: permit, is_spare: true })
    }

    fn known(&self) -> Vec<Arc<Shared>> {
        self.lock().values().filter_map(|known| known.shared.upgrade()).collect()
    }

    /// Ends a session, and takes the room that becomes free; also whether it is spare.
    async fn evict(&self, shared: &Shared) -> Option<(OwnedSemaphorePermit, bool)> {
        shared.evict(MessagingError::recoverable("the connection gave way to that of another peer"));
        let (room, spare) = (Arc::clone(&self.room), Arc::clone(&self.spare));
        let limit = self.config.clock.to_tokio(self.config.clock.now() + EVICTION_TIMEOUT);
        let freed = async {
            tokio::select! {
                biased;
                permit = room.acquire_owned() => (permit.ok(), false),
                permit = spare.acquire_owned() => (permit.ok(), true),
            }
        };
        let (permit, is_spare) = timeout_at(limit, freed).await.ok()?;
        Some((permit?, is_spare))
    }

    /// A session in spare room has proven who its peer is: it gets the room of the lost session that has been without a
    /// connection for longest; that peer may well have begun anew. Keeps its spare room while there is no such session.
    async fn settle(&self, session: &Arc<Shared>, room: Room) -> Room {
        session.when_proven().await;
        let known = self.known();
        let others = known.iter().filter(|shared| !Arc::ptr_eq(shared, session));
        let lost = others.filter_map(|shared| Some((shared.lock().lost_since?, shared)));
        let Some((_, oldest)) = lost.min_by_key(|(since, _)| *since) else { return room };
        oldest.evict(MessagingError::recoverable("the lost connection gave way to that of another peer"));
        let limit = self.config.clock.to_tokio(self.config.clock.now() + EVICTION_TIMEOUT);
        match timeout_at(limit, Arc::clone(&self.room).acquire_owned()).await {
            Ok(Ok(permit)) => Room { _permit: permit, is_spare: false },
            _ => room,
        }
    }

    /// Tells a central that there is no room, so that it need not guess, and drops its channel.
    fn refuse(&self, mut channel: PacketChannel) {
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let clock = self.config.clock;
        task::spawn(async move {
            let _permit = permit;
            let limit = clock.to_tokio(clock.now() + REFUSAL_TIMEOUT);
            let mut packet = vec![0; usize::from(PACKET_BYTES_MAX)];
            let Some(length) = busy_refusal(&mut packet) else { return };
            let said = async {
                channel.send(&packet[..length]).await?;
                // Dropping the channel could overtake the packet: the central hangs up when it has heard it.
                while channel.recv(&mut packet).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = timeout_at(limit, said).await;
        });
    }

    /// A session has ended. Its name may be another's by now.
    fn forget(&self, session: SessionId, inbox: &mpsc::Sender<Arrival>) {
        let mut sessions = self.lock();
        if sessions.get(&session).is_some_and(|known| known.inbox.same_channel(inbox)) {
            sessions.remove(&session);
        }
    }

    /// The settings of the next session: with a seed of its own, or repeatable sessions would share a name.
    fn next_config(&self) -> SessionConfig {
        let count = self.accepted.fetch_add(1, Ordering::Relaxed);
        SessionConfig { seed: self.config.seed.map(|seed| seed.wrapping_add(count)), ..self.config }
    }

    /// Reads what a channel is for.
    async fn first_packet(&self, mut channel: PacketChannel) -> Option<(Arrival, Option<SessionId>)> {
        let clock = self.config.clock;
        let limit = clock.to_tokio(clock.now() + self.config.link.handshake_timeout);
        let mut packet = vec![0; usize::from(PACKET_BYTES_MAX)];
        for stray in 0..STRAYS_MAX {
            packet.resize(usize::from(PACKET_BYTES_MAX), 0);
            match timeout_at(limit, channel.recv(&mut packet)).await {
                Ok(Ok(length)) if length > 0 => packet.truncate(length),
                _ => {
                    debug!(via = channel.label, stray, "a channel ended without a first packet");
                    let counter = if stray == 0 { &self.refused.silent } else { &self.refused.strangers };
                    counter.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
            }
            if let Some(wanted) = peek_session(&packet) {
                return Some((Arrival { channel, first_packet: Some(packet) }, wanted));
            }
            let (length, start) = (packet.len(), &packet[..packet.len().min(8)]);
            debug!(via = channel.label, length, ?start, "a packet before the first one of a peer of ours");
        }
        warn!(via = channel.label, first = packet[0], "this is not a peer of ours");
        self.refused.strangers.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Gives a channel to the session that it asks for; to a new one if it asks for none, or for one that is not known,
    /// which the new one refuses.
    async fn dispatch(
        self: Arc<Self>,
        arrival: Arrival,
        wanted: Option<SessionId>,
        permit: OwnedSemaphorePermit,
    ) {
        let known = wanted.and_then(|session| self.lock().get(&session).map(|known| known.inbox.clone()));
        let Some(arrival) = offer(known, arrival) else { return };
        let Some(room) = self.make_room().await else {
            let max = self.config.sessions_max;
            warn!(via = arrival.channel.label, max, "no room for another session");
            self.refused.sessions.fetch_add(1, Ordering::Relaxed);
            return self.refuse(arrival.channel);
        };
        let shared = Arc::new(Shared::new(LinkRole::Peripheral, self.next_config()));
        let (inbox, receiver) = mpsc::channel(INBOX_CHANNELS);
        // The inbox is new and has room.
        let _ = inbox.try_send(arrival);
        let connection = LinkConnection::accepted(Arc::clone(&shared));
        let known = Known { inbox: inbox.clone(), shared: Arc::downgrade(&shared) };
        let acceptor = Arc::clone(&self);
        let newcomer = Newcomer { acceptor, known, waiting: Some(connection), permit: Some(permit) };
        let supply = Supply::Inbox(receiver);
        let mut running = pin!(Driver::new(Arc::clone(&shared), supply, Box::new(newcomer)).run());
        let room = if room.is_spare {
            tokio::select! {
                biased;
                () = &mut running => None,
                room = self.settle(&shared, room) => Some(room),
            }
        } else {
            Some(room)
        };
        if room.is_some() {
            running.await;
        }
        if let Some(session) = shared.stats().session {
            self.forget(session, &inbox);
        }
        drop(room);
    }
}

/// A session that is not known to the acceptor's user yet.
struct Newcomer {
    acceptor: Arc<Inner>,
    known: Known,
    waiting: Option<Arc<LinkConnection>>,
    /// Of its handshake. Given back when the channel is over: a central may believe in a session whose last word was
    /// lost, so it is kept, but whoever leaves a hundred of them behind holds up nobody.
    permit: Option<OwnedSemaphorePermit>,
}

impl Observer for Newcomer {
    fn session(&mut self, session: SessionId) {
        self.acceptor.lock().insert(session, self.known.clone());
    }

    fn established(&mut self) {
        self.permit = None;
        if let Some(connection) = self.waiting.take() {
            // Never full: it holds as many as there may be sessions. Dropped (closed) if nobody accepts any more.
            let _ = self.acceptor.ready.try_send(connection);
        }
    }

    fn disconnected(&mut self) {
        self.permit = None;
    }
}

/// Hands a channel to a session's inbox; gives it back if the session is none or has ended.
fn offer(inbox: Option<mpsc::Sender<Arrival>>, arrival: Arrival) -> Option<Arrival> {
    let Some(inbox) = inbox else { return Some(arrival) };
    match inbox.try_send(arrival) {
        Ok(()) => None,
        Err(mpsc::error::TrySendError::Closed(arrival)) => Some(arrival),
        Err(mpsc::error::TrySendError::Full(arrival)) => {
            debug!(via = arrival.channel.label, "a session is given channels faster than it can take them");
            None
        }
    }
}
