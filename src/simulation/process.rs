//! A process: the tasks that one simulated device runs, which end together when it is killed.

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle, JoinSet};

tokio::task_local! {
    static CURRENT: Process;
}

/// Ended tasks that are remembered before they are forgotten all at once.
const ENDED_TASKS_KEPT: usize = 64;

/// The tasks of one simulated process. What a task of it starts through the library belongs to it too. Clones are the
/// same process.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    killed: AtomicBool,
}

struct State {
    tasks: Vec<AbortHandle>,
    rng: fastrand::Rng,
    work_time: Range<Duration>,
}

impl Process {
    /// A process without tasks. `seed` decides how long blocking work takes.
    pub fn new(seed: u64) -> Process {
        let rng = fastrand::Rng::with_seed(seed);
        let state = State { tasks: Vec::new(), rng, work_time: Duration::ZERO..Duration::from_millis(10) };
        Process { inner: Arc::new(Inner { state: Mutex::new(state), killed: AtomicBool::new(false) }) }
    }

    /// The process of the running task.
    pub(crate) fn current() -> Option<Process> {
        CURRENT.try_with(Process::clone).ok()
    }

    /// Runs `action` as part of this process: what it starts belongs to it.
    pub fn enter<T>(&self, action: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), action)
    }

    /// Starts a task of this process. A process that was killed starts nothing: the task ends before it begins.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let handle = tokio::spawn(CURRENT.scope(self.clone(), future));
        self.adopt(handle.abort_handle());
        handle
    }

    /// Work that blocks: it takes some time before its effect, and some after it.
    pub(crate) fn spawn_work<T: Send + 'static>(
        &self,
        set: &mut JoinSet<T>,
        work: impl FnOnce() -> T + Send + 'static,
    ) {
        let (before, after) = {
            let mut state = self.lock();
            (state.work_duration(), state.work_duration())
        };
        let work = async move {
            tokio::time::sleep(before).await;
            let result = work();
            tokio::time::sleep(after).await;
            result
        };
        let handle = set.spawn(CURRENT.scope(self.clone(), work));
        self.adopt(handle);
    }

    /// Sets how long blocking work takes before its effect, and as long again after it.
    pub fn set_work_time(&self, time: Range<Duration>) {
        self.lock().work_time = time;
    }

    /// Ends all tasks where they are, as SIGKILL or a lost supply does: none of them runs any further.
    pub fn kill(&self) {
        self.inner.killed.store(true, Ordering::Relaxed);
        let tasks = std::mem::take(&mut self.lock().tasks);
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// How many tasks have not ended.
    pub fn tasks(&self) -> usize {
        self.lock().tasks.iter().filter(|task| !task.is_finished()).count()
    }

    fn adopt(&self, task: AbortHandle) {
        if self.inner.killed.load(Ordering::Relaxed) {
            return task.abort();
        }
        let mut state = self.lock();
        if state.tasks.len().is_multiple_of(ENDED_TASKS_KEPT) {
            state.tasks.retain(|task| !task.is_finished());
        }
        state.tasks.push(task);
    }

    /// No change under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn work_duration(&mut self) -> Duration {
        let Range { start, end } = self.work_time.clone();
        let (start, end) = (start.as_micros() as u64, end.as_micros() as u64);
        Duration::from_micros(if start < end { self.rng.u64(start..end) } else { start })
    }
}
