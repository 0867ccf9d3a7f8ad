//! The loop of one open connection: bytes in, frames to the session, revisions to the store, frames out.
//!
//! One task. Sending never holds up receiving: the transport's `send` is one branch of a single select. Commits run on
//! threads that may block, so that reading goes on while an fsync runs; the session says when it has enough.
//!
//! One file, because the loop is one state machine: what a turn does decides what the next one waits for.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use super::setup::{Clock, DriverEvent, Setup, closed_error, guard, panicked_send};
use crate::endpoint::framing::{Framing, FramingError, FramingEvent, FramingRole};
use crate::endpoint::{Inbound, Message, MessagingError, ProtocolType};
use crate::replica::COMMITS_IN_FLIGHT_MAX;
use crate::replica::store::{ConflictPolicy, ReplicaStoreError};
use crate::replicator::driver::error::ReplicatorError;
use crate::replicator::error::SessionError;
use crate::replicator::event::{CommitId, CommitResult, Progress, SessionEvent};
use crate::task;
use crate::time::Instant;

/// Rounds of the loop after which other tasks of this thread get their turn.
const ROUNDS_BEFORE_YIELD: usize = 16;

/// Frames after which they do, also in the middle of what has arrived at once: a peer that sends without end must not make the others
/// wait for all that fits into its buffers.
const FRAMES_BEFORE_YIELD: usize = 16;

/// Bytes from the transport after which they do.
const BYTES_BEFORE_YIELD: usize = 64 * 1024;

/// Progress is reported no more often than this, unless something else changes too.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// A call of the transport's `send`.
pub(super) type Sending = Pin<Box<dyn Future<Output = Option<Result<(), MessagingError>>> + Send>>;
type Observer<'a> = &'a mut (dyn FnMut(DriverEvent) + Send);

/// What the loop waits for.
enum Wake {
    Stop,
    Sent(Result<(), MessagingError>),
    Received(Option<Message>),
    /// What had been received has not been handled to its end.
    Unhandled,
    Committed(CommitId, CommitResult),
    Changed,
    Timer,
}

/// What was done since other tasks had their turn.
#[derive(Default)]
pub(super) struct Turn {
    rounds: usize,
    frames: usize,
    bytes: usize,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.rounds >= ROUNDS_BEFORE_YIELD
            || self.frames >= FRAMES_BEFORE_YIELD
            || self.bytes >= BYTES_BEFORE_YIELD
    }

    /// Frames until it is over.
    fn frames_left(&self) -> usize {
        FRAMES_BEFORE_YIELD.saturating_sub(self.frames)
    }
}

/// A `send` that has begun.
pub(super) struct InFlight {
    pub(super) future: Sending,
    pub(super) began: Instant,
}

/// A connection that is open.
pub(super) struct Exchange {
    pub(super) setup: Setup,
    pub(super) framing: Framing,
    /// What is wrong with the bytes behind the last event of `framing`.
    pub(super) malformed: Option<FramingError>,
    pub(super) turn: Turn,
    pub(super) inbound: Inbound,
    pub(super) changes: Option<watch::Receiver<u64>>,
    pub(super) clock: Clock,
    pub(super) now: Instant,
    pub(super) sending: Option<InFlight>,
    /// Frames that wait for the transport.
    pub(super) out: Vec<u8>,
    pub(super) commits: JoinSet<(CommitId, CommitResult)>,
    pub(super) timer: Pin<Box<Sleep>>,
    /// When `timer` goes off, which may be earlier than needed; `None` once it has.
    pub(super) timer_at: Option<Instant>,
    pub(super) opened: Instant,
    pub(super) last_received: Instant,
    /// Whether the peer has sent a frame that the session took.
    pub(super) handshaken: bool,
    /// When the PING that waits for an answer was sent.
    pub(super) pinged: Option<Instant>,
    /// When the end was asked for.
    pub(super) stopping: Option<Instant>,
    /// The session's result, and when it came.
    pub(super) finished: Option<(Result<(), ReplicatorError>, Instant)>,
    /// The peer's closing frame.
    pub(super) peer_close: Option<(u16, String)>,
    /// Why the transport can carry nothing more.
    pub(super) broken: Option<ReplicatorError>,
    pub(super) progress: Option<Progress>,
    pub(super) progress_told: Instant,
}

impl Exchange {
    pub(super) fn new(setup: Setup, inbound: Inbound) -> Exchange {
        let clock = Clock::start();
        let now = clock.now();
        Exchange {
            framing: Framing::new(setup.role, setup.protocol_type),
            malformed: None,
            turn: Turn::default(),
            changes: Some(setup.store.watch()),
            inbound,
            clock,
            now,
            sending: None,
            out: Vec::new(),
            commits: JoinSet::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            opened: now,
            last_received: now,
            handshaken: false,
            pinged: None,
            stopping: None,
            finished: None,
            peer_close: None,
            broken: None,
            progress: None,
            progress_told: now,
            setup,
        }
    }

    /// Runs until replication is done, fails, or is told to stop; then ends the byte stream in order.
    pub(super) async fn run(mut self, observer: Observer<'_>) -> Result<(), ReplicatorError> {
        self.setup.session.start(self.now, &*self.setup.store);
        let result = self.replicate(observer).await;
        // The peer's closing frame may be in it.
        let _ = self.handle_events(usize::MAX);
        self.drain_session(observer);
        self.tell_progress(observer);
        self.end_stream(&result).await;
        self.settle_commits().await;
        self.setup.session.close(&*self.setup.store);
        self.drain_session(observer);
        result
    }

    async fn replicate(&mut self, observer: Observer<'_>) -> Result<(), ReplicatorError> {
        loop {
            self.drain_session(observer);
            if let Some(result) = self.ended_by_peer() {
                return result;
            }
            self.start_commits();
            self.pack();
            // A session that has nothing left to do ends when it is asked for frames, and nothing would wake this loop.
            if self.setup.session.is_finished() {
                self.drain_session(observer);
            }
            if let Some((result, _)) = &self.finished
                && self.out.is_empty()
                && self.sending.is_none()
            {
                return result.clone();
            }
            if self.check_limits()? {
                return Ok(());
            }
            self.turn.rounds += 1;
            if self.turn.is_over() {
                self.turn = Turn::default();
                tokio::task::yield_now().await;
            }
            let wake = self.wait().await;
            self.now = self.clock.now();
            self.wake(wake)?;
            self.keep_time();
        }
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self) -> Wake {
        // After the session's end the rest is read too: it may hold the peer's closing frame.
        let reading = self.finished.is_some() || self.setup.session.accepts_input();
        if !reading {
            // The peer may well be talking.
            self.last_received = self.now;
            self.pinged = None;
        }
        let unhandled = self.framing.has_events();
        self.arm_timer();
        tokio::select! {
            biased;
            () = self.setup.stop.stopped(), if self.stopping.is_none() => Wake::Stop,
            sent = sent(&mut self.sending), if self.sending.is_some() => Wake::Sent(sent),
            Some(Ok((id, result))) = self.commits.join_next(), if !self.commits.is_empty() => Wake::Committed(id, result),
            () = std::future::ready(()), if reading && unhandled => Wake::Unhandled,
            message = self.inbound.next(), if reading && !unhandled => Wake::Received(message),
            () = changed(&mut self.changes), if self.changes.is_some() => Wake::Changed,
            () = self.timer.as_mut(), if self.timer_at.is_some() => Wake::Timer,
        }
    }

    fn wake(&mut self, wake: Wake) -> Result<(), ReplicatorError> {
        let store = &*self.setup.store;
        match wake {
            Wake::Stop => {
                self.stopping = Some(self.now);
                match self.setup.role {
                    FramingRole::Active => self.setup.session.stop(self.now),
                    FramingRole::Passive => self.finish(Ok(())),
                }
            }
            Wake::Sent(Ok(())) => self.sending = None,
            Wake::Sent(Err(error)) => {
                self.sending = None;
                self.transport_failed(error.into());
            }
            Wake::Unhandled => self.handle_events(FRAMES_BEFORE_YIELD)?,
            Wake::Received(Some(message)) => self.receive(message)?,
            Wake::Received(None) => self.transport_failed(closed_error(&self.inbound)),
            Wake::Committed(id, result) => self.setup.session.handle_commit(self.now, id, result, store),
            Wake::Changed => self.setup.session.handle_store_changed(self.now, store),
            Wake::Timer => self.timer_at = None,
        }
        Ok(())
    }

    /// What is due by the clock or the store, although input never pauses.
    fn keep_time(&mut self) {
        let store = &*self.setup.store;
        if self.setup.session.poll_at().is_some_and(|at| at <= self.now) {
            self.setup.session.handle_timeout(self.now, store);
        }
        if let Some(changes) = &mut self.changes
            && changes.has_changed().unwrap_or(false)
        {
            changes.mark_unchanged();
            self.setup.session.handle_store_changed(self.now, store);
        }
    }

    /// Handles a message and what else has arrived, until the turn is over or the session has enough.
    fn receive(&mut self, first: Message) -> Result<(), ReplicatorError> {
        self.last_received = self.now;
        self.pinged = None;
        let mut next = Some(first);
        while let Some(message) = next {
            self.turn.bytes += message.len();
            self.setup.traffic.received(message.len());
            self.parse(&message);
            self.handle_events(self.turn.frames_left())?;
            let more = !self.turn.is_over() && self.setup.session.accepts_input();
            next = if more { self.inbound.try_next() } else { None };
        }
        Ok(())
    }

    /// Handles a message to its end.
    pub(super) fn handle_bytes(&mut self, message: &Message) -> Result<(), ReplicatorError> {
        self.parse(message);
        self.handle_events(usize::MAX)
    }

    fn parse(&mut self, message: &Message) {
        if let Err(error) = self.framing.handle_bytes(message) {
            self.malformed.get_or_insert(error);
        }
    }

    /// Handles so many of the frames that were received, at least one; a violation behind them once they are.
    fn handle_events(&mut self, frames: usize) -> Result<(), ReplicatorError> {
        let (mut left, mut ping) = (frames, None);
        while left > 0
            && let Some(event) = self.framing.poll_event()
        {
            (left, self.turn.frames) = (left - 1, self.turn.frames + 1);
            match event {
                FramingEvent::Frame(frame) => self.handle_frame(&frame),
                FramingEvent::Ping(payload) => ping = Some(payload),
                FramingEvent::Pong(_) => {}
                FramingEvent::Close { code, reason } => {
                    self.peer_close = Some((code, reason));
                    return Ok(());
                }
            }
        }
        // Of several the last is enough (RFC 6455 section 5.5.3).
        if let Some(payload) = ping {
            self.pong(&payload);
        }
        match self.malformed.take() {
            Some(error) if !self.framing.has_events() => Err(error.into()),
            malformed => {
                self.malformed = malformed;
                Ok(())
            }
        }
    }

    /// The transport carries nothing more. What it had received before may hold the peer's reason, or the last answer.
    fn transport_failed(&mut self, error: ReplicatorError) {
        let _ = self.handle_events(usize::MAX);
        while self.peer_close.is_none()
            && let Some(message) = self.inbound.try_next()
        {
            if self.handle_bytes(&message).is_err() {
                break;
            }
        }
        self.broken = Some(error);
    }

    fn handle_frame(&mut self, frame: &Bytes) {
        if self.finished.is_some() {
            return;
        }
        match self.setup.session.handle_frame(self.now, frame, &*self.setup.store) {
            Ok(()) => self.handshaken = true,
            Err(error) => self.finish(Err(error)),
        }
    }

    /// Answers a PING, unless so many answers wait already that the peer cannot be reading them.
    fn pong(&mut self, payload: &[u8]) {
        if self.out.len() < self.setup.limits.send_bytes {
            self.out.extend(self.framing.encode_pong(payload, new_mask()).unwrap_or_default());
        }
    }

    fn finish(&mut self, result: Result<(), SessionError>) {
        if self.finished.is_none() {
            self.finished = Some((result.map_err(ReplicatorError::from), self.now));
        }
    }

    /// Gives the session's news to the owner.
    fn drain_session(&mut self, observer: Observer<'_>) {
        while let Some(event) = self.setup.session.poll_event() {
            match event {
                SessionEvent::Progress(progress) => self.progress = Some(progress),
                SessionEvent::Finished(result) => self.finish(result),
                SessionEvent::Activity(_) => {
                    self.tell_progress(observer);
                    observer(DriverEvent::Session(event));
                }
                other => observer(DriverEvent::Session(other)),
            }
        }
        if self.progress.is_some() && self.now.since(self.progress_told) >= PROGRESS_INTERVAL {
            self.tell_progress(observer);
        }
    }

    /// When progress that waits is to be told.
    pub(super) fn progress_at(&self) -> Option<Instant> {
        self.progress.as_ref().map(|_| self.progress_told + PROGRESS_INTERVAL)
    }

    /// Sets the timer to the next deadline. A timer that is set too early is left as it is: it costs one wakeup.
    fn arm_timer(&mut self) {
        if let Some(at) = self.next_deadline()
            && self.timer_at.is_none_or(|set| at < set)
        {
            self.timer_at = Some(at);
            self.timer.as_mut().reset(self.clock.to_tokio(at));
        }
    }

    pub(super) fn tell_progress(&mut self, observer: Observer<'_>) {
        if let Some(progress) = self.progress.take() {
            self.progress_told = self.now;
            observer(DriverEvent::Session(SessionEvent::Progress(progress)));
        }
    }

    /// Gives waiting revisions to threads that may block.
    fn start_commits(&mut self) {
        while self.commits.len() < COMMITS_IN_FLIGHT_MAX {
            let Some(request) = self.setup.session.poll_commit() else { return };
            let store = Arc::clone(&self.setup.store);
            let resolver = self.setup.session.resolver();
            let allowance = self.setup.allowance.clone().zip(self.setup.connection.peer_uid());
            task::spawn_blocking(&mut self.commits, move || {
                if let Some(Err(error)) = allowance.as_ref().map(|(allowance, peer)| allowance.check(peer)) {
                    return (request.id, Err(error));
                }
                let policy = match &resolver {
                    Some(resolver) => ConflictPolicy::Resolve(&**resolver),
                    None => ConflictPolicy::Refuse,
                };
                let result = catch_unwind(AssertUnwindSafe(|| request.run(&*store, policy)));
                let panicked =
                    |_| ReplicaStoreError { message: "commit panicked".into(), recoverable: false };
                let result = result.map_err(panicked).and_then(|result| result);
                if let (Some((allowance, peer)), Ok(outcomes)) = (allowance, &result) {
                    allowance.used(&peer, &request.revisions, outcomes);
                    allowance.used_for_blobs(&peer, &request.blobs);
                }
                (request.id, result)
            });
        }
    }

    /// Gives the transport the next message, if it can take one.
    fn pack(&mut self) {
        if self.sending.is_some() {
            return;
        }
        let limit = match self.setup.protocol_type {
            ProtocolType::ByteStream => self.setup.limits.send_bytes,
            // One frame a message.
            ProtocolType::MessageStream => 1,
        };
        // A listener that closes a connection does not first tell all it knows.
        let cut_short = self.stopping.is_some() && self.setup.role == FramingRole::Passive;
        while self.out.len() < limit && !cut_short {
            match self.setup.session.poll_frame(self.now, &*self.setup.store) {
                Some(frame) => self.framing.encode_frame_into(&frame, new_mask(), &mut self.out),
                None => break,
            }
        }
        self.send_out();
    }

    /// Starts to send what is in `out`.
    pub(super) fn send_out(&mut self) {
        if self.out.is_empty() || self.sending.is_some() {
            return;
        }
        self.setup.traffic.sent(self.out.len());
        let message = Message::from_bytes(std::mem::take(&mut self.out));
        let connection = Arc::clone(&self.setup.connection);
        let future = Box::pin(guard(async move { connection.send(message).await }));
        self.sending = Some(InFlight { future, began: self.now });
    }
}

async fn sent(sending: &mut Option<InFlight>) -> Result<(), MessagingError> {
    match sending {
        Some(sending) => sending.future.as_mut().await.unwrap_or_else(|| Err(panicked_send())),
        None => std::future::pending().await,
    }
}

/// Completes when the store has changed; forgets a store that tells no more.
async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = changes
        && receiver.changed().await.is_ok()
    {
        return;
    }
    *changes = None;
}

/// A masking key. It only has to be unlike the last one; nothing secret depends on it.
pub(super) fn new_mask() -> [u8; 4] {
    fastrand::u32(..).to_ne_bytes()
}

#[cfg(test)]
mod tests;
