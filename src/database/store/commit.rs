//! Commits above the engine: one batch where the log may grow by so much between two syncs, a redo list where not, and what
//! a crash left of one, when the log is opened.

use std::path::Path;

use super::engine::{BATCH_BYTES_MAX, Engine, Ticket, Watermarks, Writes};
#[cfg(feature = "simulation")]
use super::ground::io_error;
use super::redo;
#[cfg(feature = "simulation")]
use super::simulated::SimulatedDisk;
use super::sled::log::Log;
use crate::database::DatabaseError;

impl Engine {
    /// Opens or creates the log in `directory` (which exists). The caller holds the database's lock. All that `start`
    /// and earlier tickets name is in it.
    pub(super) fn open(directory: &Path, cache_bytes: u64, start: Ticket) -> Result<Engine, DatabaseError> {
        Engine::start(Log::open(directory, cache_bytes)?, directory, start)
    }

    /// Opens or creates the log on a simulated disk.
    #[cfg(feature = "simulation")]
    pub(super) fn open_simulated(disk: &SimulatedDisk) -> Result<Engine, DatabaseError> {
        let log = disk.open().map_err(|source| match source.kind() {
            std::io::ErrorKind::InvalidData => DatabaseError::Damaged { detail: source.to_string() },
            _ => io_error("open", source),
        })?;
        let directory = log.name().to_owned();
        Engine::start(Log::Simulated(log), &directory, Ticket::default())
    }

    /// Opens a log that was begun on a simulated disk.
    #[cfg(feature = "simulation")]
    pub(super) fn open_simulated_log(
        disk: &SimulatedDisk,
        name: &Path,
        start: Ticket,
    ) -> Result<Engine, DatabaseError> {
        Engine::start(Log::Simulated(disk.open_log(name)), name, start)
    }

    /// Opens the log in `directory` to be read alone; `None` if there is nothing yet. Nothing is written: what a crash left of
    /// a large commit is made in memory.
    pub(super) fn open_to_read(directory: &Path) -> Result<Option<Engine>, DatabaseError> {
        let Some(log) = Log::open_to_read(directory)? else { return Ok(None) };
        let engine = Engine::new(log, directory, Ticket::default());
        if let Some(writes) = redo::declared(&engine)? {
            engine.lay(&writes);
        }
        Ok(Some(engine))
    }

    fn start(log: Log, directory: &Path, start: Ticket) -> Result<Engine, DatabaseError> {
        let engine = Engine::begun(log, directory, start);
        redo::recover(&engine)?;
        Ok(engine)
    }

    /// Applies a commit; it becomes visible at once and durable with [`Engine::sync`]. One caller at a time.
    pub(super) fn apply(&self, writes: Writes, sequences: Watermarks) -> Result<Ticket, DatabaseError> {
        if writes.log_bytes() <= BATCH_BYTES_MAX {
            self.apply_part(writes)?;
        } else {
            redo::apply(self, writes)?;
        }
        Ok(self.committed(sequences))
    }
}
