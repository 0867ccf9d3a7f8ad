//! Compaction: the living records written anew into a second log, which then takes the place of the first.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::super::block::{BlockBuilder, Codec, StoredRevision};
use super::super::engine::{Engine, Ticket, Writes};
use super::super::index::{self, IndexWriter};
use super::super::indexes;
use super::super::keys::{self, CollectionKey};
use super::super::meta::{FORMAT, Meta};
use super::super::pieces::write_pieces;
use super::super::state::BLOCK_BYTES_TARGET;
use super::super::{Store, layout, redo};
use crate::database::DatabaseError;

/// Records read from the old log at a time.
const RECORDS_AT_ONCE: usize = 512;

/// Entries gathered before they are written into the new log.
const ENTRIES_AT_ONCE: usize = 64;

/// The first bytes of keys that are copied as they are: all but indexes and blocks.
const COPIED_KINDS: &[u8] = b"ABDGHTXacdefghkmnpqstwx";

impl Store {
    /// Writes the store anew and swaps it in; see [`Database::compact`](crate::database::Database::compact).
    pub(crate) fn compact(&self) -> Result<(), DatabaseError> {
        self.check_writable()?;
        self.complete_ahead_table()?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.engine();
        let newest = old.newest();
        self.sync(newest)?;
        let directory = self.begin_log(&old)?;
        let fill = || -> Result<Engine, DatabaseError> {
            let new = self.open_log(&directory, newest)?;
            let mut copy = Copy { store: self, old: &old, new: &new, writes: Writes::default() };
            copy.run()?;
            copy.flush()?;
            new.sync_medium()?;
            Ok(new)
        };
        let new = match fill() {
            Ok(new) => Arc::new(new),
            Err(error) => {
                // The next open would remove it as well.
                let _ = self.remove_log(&directory);
                return Err(error);
            }
        };
        if let Err(error) = self.set_current(&directory) {
            // Which log is current after a crash is unknown, so both stay and nothing more may be written.
            return Err(old.fail(error));
        }
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        old.close();
        self.gathering.replaced(old.counts());
        self.format.store(FORMAT, Ordering::Relaxed);
        writer.relocate(&new)?;
        let leftover = old.directory().to_owned();
        drop(old);
        if let Err(error) = self.remove_log(&leftover) {
            tracing::warn!(path = %leftover.display(), %error, "the log before compaction stays until the next open");
        }
        Ok(())
    }
}

/// Where logs lie: in the database's directory, or on a simulated disk.
impl Store {
    fn begin_log(&self, current: &Engine) -> Result<PathBuf, DatabaseError> {
        #[cfg(feature = "simulation")]
        if let Some(disk) = &self.simulated {
            return Ok(disk.begin_log());
        }
        layout::next_log(&self.path, current.directory())
    }

    fn open_log(&self, directory: &Path, start: Ticket) -> Result<Engine, DatabaseError> {
        #[cfg(feature = "simulation")]
        if let Some(disk) = &self.simulated {
            return Engine::open_simulated_log(disk, directory, start);
        }
        Engine::open(directory, self.cache_bytes, start)
    }

    fn set_current(&self, directory: &Path) -> Result<(), DatabaseError> {
        #[cfg(feature = "simulation")]
        if let Some(disk) = &self.simulated {
            return disk
                .set_current(directory)
                .map_err(|e| super::super::engine::io_error("switch to the compacted log", e));
        }
        layout::set_current(&self.path, directory)
    }

    fn remove_log(&self, directory: &Path) -> std::io::Result<()> {
        #[cfg(feature = "simulation")]
        if let Some(disk) = &self.simulated {
            disk.remove_log(directory);
            return Ok(());
        }
        std::fs::remove_dir_all(directory)
    }
}

/// One copy from log to log.
struct Copy<'s> {
    store: &'s Store,
    old: &'s Engine,
    new: &'s Engine,
    writes: Writes,
}

impl Copy<'_> {
    fn run(&mut self) -> Result<(), DatabaseError> {
        let mut copied = Vec::new();
        for &kind in COPIED_KINDS {
            let (from, to) = keys::kind_range(kind);
            self.old.scan(&from, &to, |key, value| {
                copied.push((key.to_vec(), value.to_vec()));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        for (key, value) in copied {
            self.writes.insert(key, value);
            self.wrote()?;
        }
        Meta::newest(self.store.source, self.store.versioning).write(&mut self.writes);
        for (key, state) in self.store.collections() {
            self.blocks(key, state.applied())?;
            self.index(key)?;
            for index in state.indexes.all().iter().filter(|index| index.is_kept()) {
                self.entries(index)?;
            }
        }
        Ok(())
    }

    /// Copies an index on paths; of one that is damaged nothing, and it is built anew.
    fn entries(&mut self, index: &indexes::Secondary) -> Result<(), DatabaseError> {
        let old = self.old;
        let copied = indexes::copy(old, index.key, |key, value| {
            self.writes.insert(key, value);
            self.wrote()
        });
        match copied {
            Err(error @ DatabaseError::Damaged { .. }) => {
                tracing::warn!(index = index.name(), %error, "an index is damaged: it is built anew");
                index.set_life(indexes::Life::Failed);
                self.store.note_index_work();
                self.writes.remove(keys::numbered(keys::STAMP, index.key.collection.0));
                self.wrote()
            }
            copied => copied,
        }
    }

    /// Applies the entries added when they are many. Nothing has to be atomic: nobody knows of the new log yet.
    fn wrote(&mut self) -> Result<(), DatabaseError> {
        if self.writes.entries.len() >= ENTRIES_AT_ONCE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DatabaseError> {
        redo::apply_in_steps(self.new, std::mem::take(&mut self.writes.entries).into_iter())
    }

    fn blocks(&mut self, key: CollectionKey, until: u64) -> Result<(), DatabaseError> {
        let (mut builder, mut codec, mut after) = (BlockBuilder::default(), Codec::default(), 0);
        loop {
            let records = self.store.stored_within(key, after, until, RECORDS_AT_ONCE, usize::MAX)?;
            let Some(last) = records.last() else { break };
            after = last.sequence;
            for record in records {
                if record.body.len() > BLOCK_BYTES_TARGET || builder.is_full(&codec) {
                    self.block(key, &mut builder, &mut codec)?;
                }
                self.push(&mut builder, &record);
            }
        }
        self.block(key, &mut builder, &mut codec)
    }

    fn push(&self, builder: &mut BlockBuilder, record: &StoredRevision) {
        builder.push(record, &*self.store.sources.read().unwrap_or_else(PoisonError::into_inner));
    }

    fn block(
        &mut self,
        key: CollectionKey,
        builder: &mut BlockBuilder,
        codec: &mut Codec,
    ) -> Result<(), DatabaseError> {
        if builder.count() == 0 {
            return Ok(());
        }
        let block_key = keys::block(key, builder.last_sequence());
        write_pieces(&mut self.writes, &block_key, &builder.finish(codec));
        self.wrote()
    }

    fn index(&mut self, key: CollectionKey) -> Result<(), DatabaseError> {
        let mut writer = IndexWriter::new(key);
        let mut page = index::page_from(self.old, key, "")?;
        while let Some((fence, entries)) = page {
            for (id, entry) in entries {
                writer.push(&id, entry, &mut self.writes);
            }
            self.wrote()?;
            page = index::page_after(self.old, key, &fence)?;
        }
        writer.finish(&mut self.writes);
        Ok(())
    }
}
