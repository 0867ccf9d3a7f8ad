//! Memory that several connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that the unfinished messages of all connections with the same budget may hold, beyond the 256 KiB that each has
/// for itself. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    max: usize,
    held: Arc<AtomicUsize>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(max: usize) -> Budget {
        Budget { max, held: Arc::default() }
    }

    /// Bytes in use now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.max);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Two budgets are equal if they are the same.
impl PartialEq for Budget {
    fn eq(&self, other: &Budget) -> bool {
        Arc::ptr_eq(&self.held, &other.held)
    }
}

impl Eq for Budget {}

/// What one connection has of a budget; given back when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Share {
    budget: Option<Budget>,
    held: usize,
}

impl Share {
    pub(super) fn of(budget: Option<Budget>) -> Share {
        Share { budget, held: 0 }
    }

    /// Holds so many bytes from now on, fewer or more than before.
    ///
    /// # Errors
    /// The budget's limit, if it does not have them; what was held is held still.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), usize> {
        let Some(budget) = &self.budget else { return Ok(()) };
        match bytes.checked_sub(self.held) {
            Some(more) if !budget.take(more) => return Err(budget.max),
            Some(_) => {}
            None => budget.give(self.held - bytes),
        }
        self.held = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.give(self.held);
        }
    }
}
