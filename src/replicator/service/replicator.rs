//! The active side as an application sees it: start, stop, status, listeners, and a new connection after each failure.
//!
//! One task for each running replicator asks the delegate for a connection, gives it to the driver, and waits before
//! the next attempt. All callbacks come from that task, in order, with no lock held.
//!
//! One file, because start, stop and the wait between two attempts change the same state, and each rule is about the others.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};
use tracing::{Instrument, info_span};

use super::config::ReplicatorConfiguration;
use super::correlation::correlation_id;
use super::quota::Quotas;
use super::retry::RetryPolicy;
use super::status::{
    ListenerToken, Listeners, ReplicatorActivity, ReplicatorProgress, ReplicatorStatus, StatusStream, lock,
};
use crate::endpoint::framing::FramingRole;
use crate::replica::store::ConflictOutcome;
use crate::replicator::config::ActiveConfig;
use crate::replicator::driver::error::ReplicatorError;
use crate::replicator::driver::{self, Allowance, DriverEvent, Setup, StopSignal};
use crate::replicator::error::SessionError;
use crate::replicator::event::DocumentReplication;
use crate::replicator::event::{Activity, SessionEvent};
use crate::replicator::session::Session;
use crate::task;

/// A conflict that was met, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConflictReport {
    /// Full name of the document's collection.
    pub collection: String,
    /// The document's ID.
    pub id: String,
    /// What became of it, as seen from this side.
    pub outcome: ConflictOutcome,
}

/// The active side of a replication. Dropping it equals [`stop`](Self::stop).
/// ```
/// use std::sync::Arc;
///
/// use gattway::{Database, DatabaseConfig, MessageEndpoint, ProtocolType, Replicator, ReplicatorConfiguration};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use gattway::endpoint::{MessageEndpointConnection, MessagingError, ReplicatorConnection};
/// # use gattway::Message;
/// # struct Cable;
/// # #[async_trait::async_trait]
/// # impl MessageEndpointConnection for Cable {
/// #     async fn open(&self, _: ReplicatorConnection) -> Result<(), MessagingError> {
/// #         Err(MessagingError::recoverable("not plugged in"))
/// #     }
/// #     async fn send(&self, _: Message) -> Result<(), MessagingError> { Ok(()) }
/// #     async fn close(&self, _: Option<MessagingError>) -> Result<(), MessagingError> { Ok(()) }
/// # }
/// # let cable = |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> { Arc::new(Cable) };
/// # let directory = tempfile::tempdir()?;
/// // `cable` makes the connections of a transport, see `MessageEndpoint`.
/// let gateway = MessageEndpoint::new("gateway", Arc::new(()), ProtocolType::ByteStream, Arc::new(cable));
/// let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
/// let mut config = ReplicatorConfiguration::new(gateway, Arc::new(db));
/// config.max_attempts = Some(1);
/// let replicator = Replicator::new(config);
/// let mut states = replicator.statuses();
/// replicator.start();
/// let status = replicator.wait_until_stopped().await;
/// assert!(status.error.is_some_and(|error| error.is_recoverable()), "the cable is not plugged in");
/// assert!(states.next().await.is_some());
/// # Ok(()) }
/// ```
pub struct Replicator {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: ReplicatorConfiguration,
    quotas: Option<Arc<Quotas>>,
    status: watch::Sender<ReplicatorStatus>,
    changes: Listeners<ReplicatorStatus>,
    documents: Listeners<DocumentReplication>,
    conflicts: Listeners<ConflictReport>,
    control: Mutex<Control>,
    /// Follows `Control::run`.
    wanted: watch::Sender<u64>,
    retry_now: Notify,
    suspended: watch::Sender<bool>,
    /// Who the peer has proven to be, once it was connected to.
    pub(super) peer: Mutex<Option<String>>,
}

/// What the application wants.
struct Control {
    /// Odd: it is to run. Each start and each stop adds one.
    run: u64,
    /// Whether the task lives.
    alive: bool,
    /// Whether the checkpoints are to be forgotten.
    reset: bool,
}

impl Replicator {
    /// A replicator that is stopped.
    pub fn new(config: ReplicatorConfiguration) -> Replicator {
        let control = Control { run: 0, alive: false, reset: false };
        let inner = Inner {
            quotas: config.quotas(),
            config,
            status: watch::Sender::new(ReplicatorStatus::new(ReplicatorActivity::Stopped)),
            changes: Listeners::new(),
            documents: Listeners::new(),
            conflicts: Listeners::new(),
            control: Mutex::new(control),
            wanted: watch::Sender::new(0),
            retry_now: Notify::new(),
            suspended: watch::Sender::new(false),
            peer: Mutex::new(None),
        };
        Replicator { inner: Arc::new(inner) }
    }

    /// Starts, or starts again. Does nothing if it runs already; if it is just stopping, it starts as soon as it has.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start(&self) {
        self.start_with(false);
    }

    /// As [`start`](Self::start), but forgets how far it was: both sides compare everything again.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start_with_reset(&self) {
        self.start_with(true);
    }

    fn start_with(&self, reset: bool) {
        let inner = &self.inner;
        let mut control = lock(&inner.control);
        if control.wants_run() {
            return;
        }
        control.run += 1;
        control.reset |= reset;
        inner.wanted.send_replace(control.run);
        if inner.status.borrow().activity == ReplicatorActivity::Stopped {
            // Before anybody can wait for it to stop.
            inner.status.send_replace(ReplicatorStatus::new(ReplicatorActivity::Connecting));
        }
        if !control.alive {
            control.alive = true;
            task::spawn(Arc::clone(inner).live());
        }
    }

    /// Asks it to stop, which it always does: what is in flight may finish, within the limits of the configuration.
    /// Returns at once; see [`wait_until_stopped`](Self::wait_until_stopped).
    pub fn stop(&self) {
        let mut control = lock(&self.inner.control);
        if control.wants_run() {
            control.run += 1;
            self.inner.wanted.send_replace(control.run);
        }
    }

    /// If it is offline, tries again now: a transport knows when the peer is near again.
    pub fn retry_now(&self) {
        self.inner.retry_now.notify_waiters();
    }

    /// Suspends it, as long as the radio is wanted for something else or power is short: a connection is ended in order, and there is
    /// none until [`resume`](Self::resume). It counts as offline meanwhile, and may be stopped.
    pub fn suspend(&self) {
        self.inner.suspended.send_replace(true);
    }

    /// Goes on after [`suspend`](Self::suspend): connects at once.
    pub fn resume(&self) {
        self.inner.suspended.send_replace(false);
    }

    /// What it is made of.
    pub fn configuration(&self) -> &ReplicatorConfiguration {
        &self.inner.config
    }

    /// Its state now.
    pub fn status(&self) -> ReplicatorStatus {
        self.inner.status.borrow().clone()
    }

    /// Its state now, and then the newest one each time that it has changed. A state that is replaced before it was read is left
    /// out; the stream ends with the replicator.
    pub fn statuses(&self) -> StatusStream {
        StatusStream::new(self.inner.status.subscribe())
    }

    /// Calls back with each change of the status, from the replicator's task; the callback must not block.
    pub fn add_change_listener(
        &self,
        callback: impl Fn(&ReplicatorStatus) + Send + Sync + 'static,
    ) -> ListenerToken {
        self.inner.changes.add(callback)
    }

    /// Calls back with each document that was replicated or failed. To hear of all, add it before `start`.
    pub fn add_document_listener(
        &self,
        callback: impl Fn(&DocumentReplication) + Send + Sync + 'static,
    ) -> ListenerToken {
        self.inner.documents.add(callback)
    }

    /// Calls back with each conflict that was resolved, from the replicator's task; the callback must not block. To hear of
    /// all, add it before `start`.
    pub fn add_conflict_listener(
        &self,
        callback: impl Fn(&ConflictReport) + Send + Sync + 'static,
    ) -> ListenerToken {
        self.inner.conflicts.add(callback)
    }

    /// Waits until the status is as wanted, and gives it. Returns at once if it is so already. A state that passes
    /// quickly may be missed.
    pub async fn wait_until(&self, wanted: impl FnMut(&ReplicatorStatus) -> bool) -> ReplicatorStatus {
        let mut status = self.inner.status.subscribe();
        match status.wait_for(wanted).await {
            Ok(status) => status.clone(),
            // Cannot be: the sender lives as long as `self`.
            Err(_) => self.status(),
        }
    }

    /// Waits until it has stopped, by itself or because it was told to.
    pub async fn wait_until_stopped(&self) -> ReplicatorStatus {
        self.wait_until(|status| status.activity == ReplicatorActivity::Stopped).await
    }
}

impl Drop for Replicator {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Replicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicator")
            .field("config", &self.inner.config)
            .field("status", &self.status())
            .finish()
    }
}

impl Control {
    fn wants_run(&self) -> bool {
        self.run % 2 == 1
    }
}

/// Says that the task has ended if it does not reach its end: the runtime is shut down, or we have a bug.
struct TaskGuard(Option<Arc<Inner>>);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let Some(inner) = self.0.take() else { return };
        let mut control = lock(&inner.control);
        control.alive = false;
        control.run += control.run % 2;
        inner.wanted.send_replace(control.run);
        inner.status.send_modify(|status| {
            status.activity = ReplicatorActivity::Stopped;
            status.error.get_or_insert(ReplicatorError::Panicked { what: "the replicator's task" });
        });
    }
}

impl Inner {
    /// The life of the task: runs until nobody wants it any more.
    async fn live(self: Arc<Inner>) {
        let mut life = TaskGuard(Some(Arc::clone(&self)));
        loop {
            let (run, reset, is_wanted) = {
                let mut control = lock(&self.control);
                (control.run, std::mem::take(&mut control.reset), control.wants_run())
            };
            let stop = StopSignal::new(self.wanted.subscribe(), run);
            let span = info_span!("replicator", peer = self.config.endpoint.uid());
            // It may have been told to stop before it came to begin; no later word would end such a run.
            let result = if is_wanted { self.attempts(stop, reset).instrument(span).await } else { Ok(()) };
            if self.end_run(run, result.err()) {
                break;
            }
        }
        life.0 = None;
    }

    /// Ends a run. `false` if another has been asked for meanwhile.
    fn end_run(&self, run: u64, error: Option<ReplicatorError>) -> bool {
        let status = {
            let mut control = lock(&self.control);
            if control.run == run && control.wants_run() {
                control.run += 1;
                self.wanted.send_replace(control.run);
            }
            if control.wants_run() {
                return false;
            }
            // Under the lock, so that it cannot hide the state that a new start sets.
            self.status.send_modify(|status| {
                status.activity = ReplicatorActivity::Stopped;
                status.error = error;
            });
            self.status.borrow().clone()
        };
        self.changes.notify(&status);
        let mut control = lock(&self.control);
        // From here on a start makes a new task.
        control.alive = control.wants_run();
        !control.alive
    }

    /// Connects until replication is done, is told to stop, or cannot be done.
    async fn attempts(&self, mut stop: StopSignal, mut reset: bool) -> Result<(), ReplicatorError> {
        let mut retry = RetryPolicy::new(self.config.attempts_max(), self.config.max_attempt_wait);
        let mut attempt = 0u64;
        // Collections that the peer has just said it lacks.
        let mut absent = Vec::new();
        loop {
            if !self.wait_for_resume(&mut stop).await {
                return Ok(());
            }
            attempt += 1;
            self.set_status(|status| {
                status.activity = ReplicatorActivity::Connecting;
                status.progress = ReplicatorProgress::default();
            });
            let correlation = correlation_id();
            let span = info_span!("connection", attempt, correlation);
            let ends = stop.clone().or_suspended(self.suspended.subscribe());
            let (worked, result) = self.attempt(ends, reset, &absent, &correlation).instrument(span).await;
            if *self.suspended.borrow() && !stop.is_stopped() {
                reset &= !worked;
                continue;
            }
            let Err(error) = result else { return Ok(()) };
            if stop.is_stopped() {
                tracing::debug!(%error, "ended by an error while stopping");
                return Ok(());
            }
            if let ReplicatorError::Session(SessionError::SomeCollectionsMissing { names }) = &error
                && absent.is_empty()
            {
                // At once, without them.
                absent.clone_from(names);
                continue;
            }
            // It may have them by the next time.
            absent.clear();
            if worked {
                retry.succeeded();
                reset = false;
            }
            let protocol_type = self.config.endpoint.protocol_type();
            let wait = if error.is_worth_retry(self.config.continuous, protocol_type) {
                retry.failed(fastrand::u32(..))
            } else {
                None
            };
            let Some(wait) = wait else {
                tracing::warn!(%error, attempt, "stopped");
                return Err(error);
            };
            tracing::info!(%error, attempt, ?wait, "offline");
            self.set_status(|status| {
                status.activity = ReplicatorActivity::Offline;
                status.error = Some(error);
            });
            tokio::select! {
                biased;
                () = stop.stopped() => return Ok(()),
                () = self.retry_now.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Waits while it is suspended; `false` if it is to stop.
    async fn wait_for_resume(&self, stop: &mut StopSignal) -> bool {
        let mut suspended = self.suspended.subscribe();
        if *suspended.borrow() {
            tracing::info!("suspended");
            self.set_status(|status| status.activity = ReplicatorActivity::Offline);
        }
        tokio::select! {
            biased;
            // The sender lives as long as `self`.
            _ = suspended.wait_for(|suspended| !suspended) => true,
            () = stop.stopped() => false,
        }
    }

    /// One connection from beginning to end. Also says whether it has done any work.
    async fn attempt(
        &self,
        stop: StopSignal,
        reset: bool,
        absent: &[String],
        correlation: &str,
    ) -> (bool, Result<(), ReplicatorError>) {
        let config = &self.config;
        let create = || config.endpoint.delegate().create_connection(&config.endpoint);
        let Ok(connection) = catch_unwind(AssertUnwindSafe(create)) else {
            return (false, Err(ReplicatorError::Panicked { what: "the endpoint's delegate" }));
        };
        let setup = Setup {
            connection,
            session: Session::active(ActiveConfig {
                absent: absent.to_vec(),
                ..config.session(reset, !self.documents.is_empty(), correlation)
            }),
            store: Arc::clone(&config.store),
            role: FramingRole::Active,
            protocol_type: config.endpoint.protocol_type(),
            limits: config.limits.clone(),
            stop,
            allowance: self.quotas.clone().map(|quotas| quotas as Arc<dyn Allowance>),
            traffic: config.traffic.clone(),
        };
        let mut worked = false;
        let connection = Arc::clone(&setup.connection);
        let observe = &mut |event| {
            if matches!(event, DriverEvent::Opened)
                && let Some(peer) = connection.peer_uid()
            {
                *lock(&self.peer) = Some(peer);
            }
            worked |= self.observe(event);
        };
        let result = driver::run(setup, observe).await;
        (worked, result)
    }

    /// Takes in what the driver tells; `true` if it shows that the connection works.
    fn observe(&self, event: DriverEvent) -> bool {
        match event {
            DriverEvent::Opened => {
                tracing::debug!("connected");
                self.set_status(|status| {
                    status.activity = ReplicatorActivity::Busy;
                    status.error = None;
                });
                false
            }
            DriverEvent::Session(SessionEvent::Activity(activity)) => {
                let activity = ReplicatorActivity::of(activity);
                if self.status.borrow().activity != activity {
                    self.set_status(|status| status.activity = activity);
                }
                activity == ReplicatorActivity::Idle
            }
            DriverEvent::Session(SessionEvent::Progress(progress)) => {
                self.set_status(|status| status.progress = ReplicatorProgress::of(progress));
                progress.completed > 0
            }
            DriverEvent::Session(SessionEvent::DocumentReplicated(document)) => {
                self.documents.notify(&document);
                false
            }
            DriverEvent::Session(SessionEvent::Conflict { collection, id, outcome }) => {
                self.conflicts.notify(&ConflictReport { collection, id, outcome });
                false
            }
            DriverEvent::Session(SessionEvent::Unsynced(unsynced)) => {
                self.set_status(|status| status.unsynced = Arc::from(unsynced));
                false
            }
            DriverEvent::Session(_) => false,
        }
    }

    fn set_status(&self, change: impl FnOnce(&mut ReplicatorStatus)) {
        self.status.send_modify(change);
        if !self.changes.is_empty() {
            let status = self.status.borrow().clone();
            self.changes.notify(&status);
        }
    }
}

impl ReplicatorActivity {
    pub(super) fn of(activity: Activity) -> ReplicatorActivity {
        match activity {
            Activity::Busy => ReplicatorActivity::Busy,
            Activity::Idle => ReplicatorActivity::Idle,
        }
    }
}

impl ReplicatorProgress {
    pub(super) fn of(progress: crate::replicator::event::Progress) -> ReplicatorProgress {
        let crate::replicator::event::Progress {
            completed,
            total,
            documents,
            under_way,
            bytes_sent,
            bytes_received,
        } = progress;
        ReplicatorProgress { completed, total, documents, under_way, bytes_sent, bytes_received }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::scripted::{Delegate, Script};
    use super::*;
    use crate::endpoint::ProtocolType;
    use crate::replicator::event::Progress;

    /// Attempts are counted from the last connection that worked: one that came to rest, or on which something was done.
    #[test]
    fn a_connection_works_that_came_to_rest_or_got_something_done() {
        let replicator = Delegate::new(Script::default()).replicator(ProtocolType::ByteStream, |_| {});
        let progress = |completed| SessionEvent::Progress(Progress { completed, ..Progress::default() });
        for (event, works) in [
            (DriverEvent::Opened, false),
            (DriverEvent::Session(SessionEvent::Activity(Activity::Busy)), false),
            (DriverEvent::Session(SessionEvent::Activity(Activity::Idle)), true),
            (DriverEvent::Session(progress(0)), false),
            (DriverEvent::Session(progress(1)), true),
            (DriverEvent::Session(SessionEvent::Finished(Ok(()))), false),
        ] {
            assert_eq!(replicator.inner.observe(event), works);
        }
    }
}
