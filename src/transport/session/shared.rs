//! What the tasks of one connection share: the link under a lock, and who waits for what.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};
use tracing::{debug, info};

use super::config::{DeviceLink, SessionConfig, SessionStats};
use crate::endpoint::MessagingError;
use crate::link::{CloseReason, LinkError, LinkEvent, LinkRole, RefuseReason, ResumeProver};
use crate::time::Instant;

/// Bytes given to the library in one message at most.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Where a connection is, for those who wait for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    /// No byte can flow yet.
    Connecting,
    /// There is a session, connected or lost.
    Established,
    /// The link has reached its end; received bytes may wait, the last packets may be on their way.
    Ended,
    /// The driver is gone, and the channel with it.
    Gone,
}

pub(super) struct Shared {
    core: Mutex<Core>,
    pub(super) config: SessionConfig,
    /// The driver, woken when the link has something new to say.
    pub(super) readable: Notify,
    pub(super) writable: Notify,
    proven: Notify,
    pub(super) progress: watch::Sender<Progress>,
}

pub(super) struct Core {
    pub(super) link: Box<DeviceLink>,
    /// The driver's task, while it waits.
    pub(super) driver: Option<Waker>,
    /// Nobody wants an orderly end any more.
    pub(super) abandoned: bool,
    /// How it ended: `Ok` if in order.
    pub(super) end: Option<Result<(), MessagingError>>,
    /// There was a session: it can be resumed, and it has to be closed.
    pub(super) established: bool,
    /// Since when the session has no connection.
    pub(super) lost_since: Option<Instant>,
    /// When it came.
    pub(super) began: Instant,
    /// Its peer has proven who it is: a layer above has said so by a prover of its own.
    pub(super) proven: bool,
    pub(super) channels: u32,
    pub(super) label: String,
}

/// What the link's events mean for the channel in use.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) established: bool,
    pub(super) suspended: bool,
}

impl Shared {
    pub(super) fn new(role: LinkRole, config: SessionConfig) -> Shared {
        // Without a seed it is over before a packet of it is sent.
        let (seed, end) = match config.link_seed() {
            Ok(seed) => (seed, None),
            Err(error) => (0.into(), Some(Err(error))),
        };
        let progress = if end.is_none() { Progress::Connecting } else { Progress::Ended };
        let core = Core {
            link: Box::new(DeviceLink::new(role, config.link, seed)),
            driver: None,
            abandoned: end.is_some(),
            end,
            established: false,
            lost_since: None,
            began: config.clock.now(),
            proven: false,
            channels: 0,
            label: String::new(),
        };
        Shared {
            core: Mutex::new(core),
            config,
            readable: Notify::new(),
            writable: Notify::new(),
            proven: Notify::new(),
            progress: watch::Sender::new(progress),
        }
    }

    /// The link never panics on what a peer sends, and nothing else under this lock can leave it half changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Instant {
        self.config.clock.now()
    }

    /// Does something to the link and lets the driver act on it.
    pub(super) fn act<T>(&self, action: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let result = action(&mut core);
        let driver = core.driver.take();
        drop(core);
        driver.into_iter().for_each(Waker::wake);
        result
    }

    /// The layer above knows who the peer is, and proves resumes itself from now on.
    pub(super) fn set_prover(&self, prover: ResumeProver) {
        let mut core = self.lock();
        core.link.set_resume_prover(prover);
        core.proven = true;
        drop(core);
        self.proven.notify_one();
    }

    /// Waits for the first proof; one task does.
    pub(super) async fn when_proven(&self) {
        while !self.lock().proven {
            self.proven.notified().await;
        }
    }

    /// Gives bytes to the link, and says how many it took and whether it takes no more, ever. The driver is woken if it can
    /// do anything with them.
    pub(super) fn write(&self, bytes: &[u8]) -> (usize, bool) {
        let mut core = self.lock();
        let written = core.link.write(bytes);
        let over = core.is_over() || !core.established;
        let driver = core.take_wanted_driver();
        drop(core);
        driver.into_iter().for_each(Waker::wake);
        (written, over)
    }

    /// Moves the wait on, never back.
    pub(super) fn reach(&self, progress: Progress) {
        self.progress.send_if_modified(|current| {
            let later = progress > *current;
            if later {
                *current = progress;
            }
            later
        });
    }

    /// Ends the connection for a cause outside of the link. The first cause counts.
    pub(super) fn end(&self, result: Result<(), MessagingError>) {
        self.lock().end.get_or_insert(result);
        self.announce_end();
    }

    /// Ends a connection at once, without a word to the peer.
    pub(super) fn evict(&self, error: MessagingError) {
        self.end(Err(error));
        self.act(|core| core.abandoned = true);
    }

    fn announce_end(&self) {
        self.reach(Progress::Ended);
        self.readable.notify_one();
        self.writable.notify_waiters();
    }

    /// Takes in the link's events and wakes those who wait for them.
    pub(super) fn take_events(&self, core: &mut Core) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(event) = core.link.poll_event() {
            match event {
                LinkEvent::Readable => self.readable.notify_one(),
                LinkEvent::Writable => self.writable.notify_waiters(),
                LinkEvent::Established { session, resumed, peer } => {
                    let packet_bytes = peer.packet_size.bytes();
                    info!(%session, resumed, packet_bytes, window = peer.window_packets, via = core.label, "link established");
                    core.established = true;
                    outcome.established = true;
                    self.reach(Progress::Established);
                }
                LinkEvent::Suspended(cause) => {
                    debug!(?cause, via = core.label, "link suspended");
                    outcome.suspended = true;
                }
                LinkEvent::Closed { reason, by_peer } => {
                    debug!(%reason, by_peer, via = core.label, "link closed");
                    core.end.get_or_insert(closed(reason, by_peer));
                    self.announce_end();
                }
                LinkEvent::Failed(error) => {
                    debug!(%error, via = core.label, "link failed");
                    core.end.get_or_insert(Err(failed(error)));
                    self.announce_end();
                }
            }
        }
        outcome
    }

    /// The next received bytes, and how the connection ended if there are no more.
    pub(super) fn read(&self) -> Result<Bytes, Option<Result<(), MessagingError>>> {
        let mut core = self.lock();
        let readable = core.link.readable().min(MESSAGE_BYTES_MAX);
        if readable == 0 {
            return Err(core.end.clone());
        }
        let mut bytes = BytesMut::zeroed(readable);
        let read = core.link.read(&mut bytes);
        bytes.truncate(read);
        // There may be credit to give.
        let driver = core.take_wanted_driver();
        drop(core);
        driver.into_iter().for_each(Waker::wake);
        Ok(bytes.freeze())
    }

    pub(super) fn stats(&self) -> SessionStats {
        let core = self.lock();
        SessionStats {
            state: core.link.state(),
            session: core.link.session_id(),
            link: core.link.stats(),
            channels: core.channels,
            label: core.label.clone(),
        }
    }
}

impl Core {
    /// Whom to wake after bytes went into the link or out of it: nobody, while packets in flight or in hand bring the driver
    /// back anyway.
    fn take_wanted_driver(&mut self) -> Option<Waker> {
        if self.link.wants_poll() { self.driver.take() } else { None }
    }

    /// Keeps the driver's waker for whoever acts on the link.
    pub(super) fn driven_by(&mut self, waker: &Waker) {
        if !self.driver.as_ref().is_some_and(|driver| driver.will_wake(waker)) {
            self.driver = Some(waker.clone());
        }
    }

    /// Nothing more happens on the link.
    pub(super) fn is_over(&self) -> bool {
        self.abandoned || self.end.is_some() || self.link.state().is_final()
    }
}

fn closed(reason: CloseReason, by_peer: bool) -> Result<(), MessagingError> {
    match reason {
        _ if !by_peer => Ok(()),
        CloseReason::Finished => Ok(()),
        reason if reason.is_recoverable() => {
            Err(MessagingError::recoverable(format!("the peer closed: {reason}")))
        }
        reason => Err(MessagingError::permanent(format!("the peer closed: {reason}"))),
    }
}

fn failed(error: LinkError) -> MessagingError {
    let hopeless = matches!(
        error,
        LinkError::NotOurs { .. }
            | LinkError::Version { .. }
            | LinkError::Refused(RefuseReason::Version { .. } | RefuseReason::Parameters)
    );
    let message = format!("the link failed: {error}");
    let described =
        if hopeless { MessagingError::permanent(message) } else { MessagingError::recoverable(message) };
    described.with_source(error)
}
