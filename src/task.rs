//! Where the layers start their tasks: on tokio, and in a simulation as tasks of a process that can be killed.

use std::future::Future;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// As [`tokio::spawn`].
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    #[cfg(feature = "simulation")]
    if let Some(process) = crate::simulation::Process::current() {
        return process.spawn(future);
    }
    tokio::spawn(future)
}

/// Waits until then; for ever if there is no such time.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Runs work that may block and waits for it; `None` if it was given up.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let mut set = JoinSet::new();
    spawn_blocking(&mut set, work);
    set.join_next().await.and_then(Result::ok)
}

/// Runs work that may block as a task of `set`, as [`JoinSet::spawn_blocking`].
pub(crate) fn spawn_blocking<T: Send + 'static>(
    set: &mut JoinSet<T>,
    work: impl FnOnce() -> T + Send + 'static,
) {
    #[cfg(feature = "simulation")]
    if let Some(process) = crate::simulation::Process::current() {
        return process.spawn_work(set, work);
    }
    set.spawn_blocking(work);
}
