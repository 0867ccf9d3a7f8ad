//! A thread that works for a store in the background: when it looks again, and how it ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Who looks from now on.
pub(super) enum Started {
    /// A thread, which is waited for in the end.
    Thread(JoinHandle<()>),
    /// A task of a simulation.
    #[cfg(feature = "simulation")]
    Task,
    /// Nobody.
    Nobody,
}

/// Shared by the thread and the store.
pub(super) struct Timer {
    /// The time, milliseconds since 1970, for which the thread looks next: 0 while it works, the highest while it waits for
    /// none, or is not there.
    planned: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    thread: Option<JoinHandle<()>>,
    /// Somebody works, or waits to: the thread, or in a simulation a task.
    is_running: bool,
    is_poked: bool,
    has_ended: bool,
}

impl Default for Timer {
    fn default() -> Timer {
        let planned = AtomicU64::new(u64::MAX);
        Timer { planned, state: Mutex::default(), changed: Condvar::new() }
    }
}

impl Timer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that somebody looks at this time; `start` is called if nobody does at all.
    pub(super) fn look_at(&self, time_ms: u64, start: impl FnOnce() -> Started) {
        if self.planned.load(Ordering::SeqCst) <= time_ms {
            return;
        }
        let mut state = self.lock();
        if state.has_ended {
            return;
        }
        if state.is_running {
            state.is_poked = true;
            self.changed.notify_all();
            return;
        }
        let started = start();
        state.is_running = !matches!(started, Started::Nobody);
        if let Started::Thread(thread) = started {
            state.thread = Some(thread);
        }
    }

    /// Notes for when the next look is planned.
    pub(super) fn plan(&self, time_ms: u64) {
        self.planned.store(time_ms, Ordering::SeqCst);
    }

    /// Nobody looks any more, until somebody is started again.
    #[cfg(feature = "simulation")]
    pub(super) fn rest(&self) {
        let mut state = self.lock();
        state.is_running = false;
        self.plan(u64::MAX);
    }

    /// Waits that long, for ever if `None`, or until somebody wants a look before; `false` if it is to end.
    pub(super) fn wait(&self, how_long: Option<Duration>) -> bool {
        let mut state = self.lock();
        while !state.is_poked && !state.has_ended {
            state = match how_long {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(how_long) => {
                    let waited = self.changed.wait_timeout(state, how_long);
                    let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() {
                        return !state.has_ended;
                    }
                    state
                }
            };
        }
        state.is_poked = false;
        !state.has_ended
    }

    /// Lets the thread end, and waits for it unless it is this one.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        self.changed.notify_all();
        let thread = state.thread.take();
        drop(state);
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::channel;

    use super::*;

    /// One thread at most, which is woken for what comes sooner than it would look; where none could be started the next who
    /// wants a look tries it again.
    #[test]
    fn somebody_looks_and_nobody_twice() {
        let timer = Arc::new(Timer::default());
        let nobody = || Started::Nobody;
        timer.look_at(5, nobody);
        let (looked, looks) = channel();
        let of_thread = Arc::clone(&timer);
        timer.look_at(5, move || {
            Started::Thread(std::thread::spawn(move || {
                while of_thread.wait(None) {
                    let _ = looked.send(());
                }
            }))
        });
        for _ in 0..3 {
            timer.look_at(4, || unreachable!("there is a thread"));
            looks.recv().expect("it was woken");
        }
        timer.plan(3);
        timer.look_at(3, || unreachable!("it looks then"));
        timer.end();
        timer.look_at(1, || unreachable!("it has ended"));
        assert!(looks.recv().is_err(), "its thread is gone");
    }

    /// Who ends it finds nobody at work afterwards; the thread itself may do so, where it drops the last handle of a store.
    #[test]
    fn an_end_waits_for_the_thread_and_the_thread_not_for_itself() {
        for _ in 0..100 {
            let timer = Arc::new(Timer::default());
            let (of_thread, is_gone) = (Arc::clone(&timer), Arc::new(AtomicBool::new(false)));
            let gone = Arc::clone(&is_gone);
            timer.look_at(1, move || {
                Started::Thread(std::thread::spawn(move || {
                    while of_thread.wait(None) {}
                    std::thread::yield_now();
                    gone.store(true, Ordering::SeqCst);
                }))
            });
            timer.end();
            assert!(is_gone.load(Ordering::SeqCst));
        }
        let timer = Arc::new(Timer::default());
        let (ended, ends) = channel();
        let of_thread = Arc::clone(&timer);
        timer.look_at(1, move || {
            Started::Thread(std::thread::spawn(move || {
                while of_thread.wait(None) {}
                of_thread.end();
                let _ = ended.send(());
            }))
        });
        // The thread is noted by now. It is poked to end itself, and nobody takes it from it.
        timer.lock().has_ended = true;
        timer.changed.notify_all();
        ends.recv().expect("it came to its end");
    }
}
