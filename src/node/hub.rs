//! Events for callbacks at once, and for streams that keep a bounded number of them.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

/// Events that a stream keeps for a reader that is slow; of more the oldest are left out and counted.
const STREAM_EVENTS_MAX: usize = 1024;

/// Is told of each event, from the task where it happens: it must not block.
pub(super) type Observer<T> = Arc<dyn Fn(&T) + Send + Sync>;

/// Where events are told. When it is dropped, its streams end.
pub(super) struct Hub<T> {
    observers: Vec<Observer<T>>,
    streams: Mutex<Vec<Arc<Queue<T>>>>,
}

impl<T: Clone> Hub<T> {
    pub(super) fn new(observers: Vec<Observer<T>>) -> Hub<T> {
        Hub { observers, streams: Mutex::default() }
    }

    /// Tells everybody.
    pub(super) fn emit(&self, event: T) {
        self.observers.iter().for_each(|observer| observer(&event));
        let mut streams = lock(&self.streams);
        // The stream itself has the other reference.
        streams.retain(|queue| Arc::strong_count(queue) > 1);
        streams.iter().for_each(|queue| queue.push(event.clone()));
    }

    /// A stream of the events from now on.
    pub(super) fn stream(&self) -> EventStream<T> {
        let queue = Arc::new(Queue { state: Mutex::new(QueueState::default()) });
        lock(&self.streams).push(Arc::clone(&queue));
        EventStream { queue }
    }
}

impl<T> Hub<T> {
    /// Ends the streams, once they are read.
    pub(super) fn close(&self) {
        lock(&self.streams).iter().for_each(|queue| queue.close());
    }
}

impl<T> Drop for Hub<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Events that wait for the reader of one stream.
struct Queue<T> {
    state: Mutex<QueueState<T>>,
}

struct QueueState<T> {
    events: VecDeque<T>,
    missed: u64,
    is_closed: bool,
    reader: Option<Waker>,
}

impl<T> Default for QueueState<T> {
    fn default() -> Self {
        QueueState { events: VecDeque::new(), missed: 0, is_closed: false, reader: None }
    }
}

impl<T> Queue<T> {
    fn push(&self, event: T) {
        let mut state = lock(&self.state);
        if state.events.len() >= STREAM_EVENTS_MAX {
            state.events.pop_front();
            state.missed += 1;
        }
        state.events.push_back(event);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.state);
        match state.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if state.is_closed => Poll::Ready(None),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The events from the moment it was asked for, oldest first; ends with what tells them. It keeps 1,024 that were
/// not read, and holds nothing up.
pub struct EventStream<T> {
    queue: Arc<Queue<T>>,
}

impl<T> EventStream<T> {
    /// The next event; `None` when there will be no more. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| self.queue.poll(cx)).await
    }

    /// How many events were left out so far, because they were not read in time.
    pub fn missed(&self) -> u64 {
        lock(&self.queue.state).missed
    }
}

impl<T> Stream for EventStream<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.queue.poll(cx)
    }
}

impl<T> fmt::Debug for EventStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("missed", &self.missed()).finish_non_exhaustive()
    }
}

/// No code of a user runs under these locks, so a poisoned one is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_gets_the_newest_and_learns_how_many_it_has_missed() {
        let hub = Hub::new(Vec::new());
        let mut events = hub.stream();
        (0..STREAM_EVENTS_MAX + 3).for_each(|event| hub.emit(event));
        assert_eq!(events.missed(), 3);
        assert_eq!(events.next().await, Some(3));
        drop(hub);
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert_eq!(last, Some(STREAM_EVENTS_MAX + 2), "what was told before the end is not lost");
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_an_event_and_by_the_end() {
        let hub = Hub::new(Vec::new());
        let (mut first, mut second) = (hub.stream(), hub.stream());
        let reader = tokio::spawn(async move { (first.next().await, first.next().await) });
        tokio::task::yield_now().await;
        hub.emit(7);
        assert_eq!(second.next().await, Some(7));
        tokio::task::yield_now().await;
        drop(hub);
        assert_eq!(reader.await.expect("no panic"), (Some(7), None));
    }
}
