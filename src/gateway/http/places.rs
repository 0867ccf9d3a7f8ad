//! How many may be connected: when all places are taken, whoever has been silent for longest gives way to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Places for connections.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Taken>>);

struct Taken {
    max: usize,
    next: u64,
    taken: HashMap<u64, Entry>,
}

struct Entry {
    /// Since when no request is answered; `None`: one is.
    silent_since: Option<Instant>,
    give_way: Arc<Notify>,
}

/// The place of one connection, until it is dropped.
pub(super) struct Place {
    places: Places,
    number: u64,
    give_way: Arc<Notify>,
}

impl Places {
    pub(super) fn new(max: usize) -> Places {
        Places(Arc::new(Mutex::new(Taken { max, next: 0, taken: HashMap::new() })))
    }

    /// Nothing under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; `None`: all are taken, and in each a request is answered.
    pub(super) fn take(&self) -> Option<Place> {
        let mut taken = self.lock();
        if taken.taken.len() >= taken.max {
            let silent =
                taken.taken.iter().filter_map(|(number, entry)| Some((entry.silent_since?, *number)));
            let (_, number) = silent.min()?;
            let entry = taken.taken.remove(&number)?;
            entry.give_way.notify_one();
        }
        let number = taken.next;
        taken.next += 1;
        let give_way = Arc::new(Notify::new());
        let entry = Entry { silent_since: Some(Instant::now()), give_way: Arc::clone(&give_way) };
        taken.taken.insert(number, entry);
        drop(taken);
        Some(Place { places: self.clone(), number, give_way })
    }

    fn set(&self, number: u64, silent_since: Option<Instant>) {
        if let Some(entry) = self.lock().taken.get_mut(&number) {
            entry.silent_since = silent_since;
        }
    }
}

impl Place {
    /// Waits until it has to give way.
    pub(super) async fn give_way(&self) {
        self.give_way.notified().await;
    }

    /// A request is answered until this is dropped.
    pub(super) fn answering(&self) -> Answering {
        self.places.set(self.number, None);
        Answering { places: self.places.clone(), number: self.number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().taken.remove(&self.number);
    }
}

/// A request that is answered.
pub(super) struct Answering {
    places: Places,
    number: u64,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.places.set(self.number, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_silent_gives_way_and_none_that_is_answered() {
        let places = Places::new(2);
        let first = places.take().expect("a place");
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let second = places.take().expect("a place");
        let answering = first.answering();
        let third = places.take().expect("the second gives way");
        second.give_way().await;
        drop(second);
        let busy = third.answering();
        assert!(places.take().is_none(), "both are answered");
        drop(answering);
        let fourth = places.take().expect("the first gives way");
        first.give_way().await;
        drop((busy, third, fourth, first));
        assert!(places.lock().taken.is_empty());
    }
}
