//! Work that a thread does for a store in the background, at its times; for a simulated store a task.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::handle::Store;
use super::timer::{Started, Timer};

/// When the next look is due.
pub(super) enum Look {
    Again(Duration),
    /// There is nothing to wait for.
    Idle,
    /// The store is closed, or has failed.
    Never,
}

/// Who works in the background.
pub(super) struct Worker<'t> {
    /// Of the thread.
    pub(super) name: &'static str,
    pub(super) timer: &'t Arc<Timer>,
    /// Does a piece of the work.
    pub(super) look: fn(&Weak<Store>, &Timer) -> Look,
}

impl Worker<'_> {
    /// Starts the thread; for a simulated store a task, where there are any. Where there are none, whoever simulates calls for
    /// the work.
    pub(super) fn start(self, store: &Arc<Store>) -> Started {
        let Worker { name, timer, look } = self;
        let (timer, weak) = (Arc::clone(timer), Arc::downgrade(store));
        #[cfg(feature = "simulation")]
        if store.simulated.is_some() {
            if tokio::runtime::Handle::try_current().is_err() {
                return Started::Nobody;
            }
            crate::task::spawn(async move {
                while let Look::Again(wait) = look(&weak, &timer) {
                    tokio::time::sleep(wait).await;
                }
                timer.rest();
            });
            return Started::Task;
        }
        let run = move || {
            loop {
                let wait = match look(&weak, &timer) {
                    Look::Again(wait) => Some(wait),
                    Look::Idle => None,
                    Look::Never => return,
                };
                if !timer.wait(wait) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run);
        thread.map_or(Started::Nobody, Started::Thread)
    }
}
