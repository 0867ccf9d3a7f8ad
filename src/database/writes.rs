//! What a database writes to the medium: how much, and whether commits wait for each other.

use super::Database;
use super::store::EngineCounts;

impl Database {
    /// What it has done since it was opened.
    pub(crate) fn counts(&self) -> EngineCounts {
        self.store.counts()
    }

    /// Whether commits wait for others as the configuration says, or are synced at once from now on: before an end that is not to
    /// take so long.
    pub(crate) fn gather(&self, wanted: bool) {
        self.store.gather(wanted);
    }
}
