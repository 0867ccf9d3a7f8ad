//! A new database made of the records of another: for repair and restore.
//!
//! It has a source ID of its own. A copy that went on under the old one would give out versions that the original, or the
//! device it replaces, gave out for something else, and peers would take one for the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::super::blobs::{Blobs, Directory};
use super::super::block::{BlockBuilder, Codec, StoredRevision};
use super::super::engine::{Engine, Ticket, Writes, io_error, sync_directory};
use super::super::index::{IndexEdit, IndexEntry};
use super::super::keys::{self, CollectionKey};
use super::super::meta::Meta;
use super::super::pieces::write_pieces;
use super::super::state::{BLOCK_BYTES_TARGET, Counters};
use super::super::tables::Sources;
use super::super::{layout, meta, redo};
use super::kept::Kept;
use crate::database::DatabaseError;
use crate::database::config::{CACHE_BYTES_DEFAULT, DatabaseConfig};
use crate::replica::blobs::BlobDigest;
use crate::replica::revision::{SourceId, Versioning};

/// Records gathered before their IDs go into the index.
const PENDING_MAX: usize = 512;

/// Bytes of records gathered before they are written.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// About the bytes of what lets a document go, or stay away.
const KEPT_BYTES: usize = 128;

/// What a directory that is being made is called until it is whole.
const PARTIAL_SUFFIX: &str = ".partial";

#[derive(Default)]
struct Part {
    counters: Counters,
    builder: BlockBuilder,
    pending: Vec<(Box<str>, IndexEntry)>,
}

/// A database being made, beside the place it is meant for. Dropping it removes it.
pub(in super::super) struct Rebuild {
    /// `None` once it is in its place.
    partial: Option<PathBuf>,
    path: PathBuf,
    engine: Option<Engine>,
    pub(in super::super) source: SourceId,
    sources: Sources,
    parts: BTreeMap<CollectionKey, Part>,
    codec: Codec,
    writes: Writes,
    bytes: usize,
    /// Marks of removed documents.
    marks: u64,
    /// `None` until there is one.
    blobs: Option<Blobs>,
    _lock: File,
}

impl Rebuild {
    /// Begins a database that is to stand in `path`, where nothing may be yet, or an empty directory.
    pub(in super::super) fn create(path: &Path, former: &[SourceId]) -> Result<Rebuild, DatabaseError> {
        let refuse =
            |reason: &str| DatabaseError::NotADatabase { path: path.to_owned(), reason: reason.into() };
        if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) || path.is_file() {
            return Err(DatabaseError::Occupied { path: path.to_owned() });
        }
        let name = path.file_name().ok_or_else(|| refuse("no name for a directory"))?.to_string_lossy();
        let partial = path.with_file_name(format!(".{name}{PARTIAL_SUFFIX}"));
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", error));
            }
            _ => {}
        }
        let lock = layout::lock(&partial, true)?;
        let log = layout::logs(&partial)?.current;
        layout::create_log(&partial, &log)?;
        let engine = Engine::open(&log, CACHE_BYTES_DEFAULT, Ticket::default())?;
        let source = meta::new_source()?;
        meta::open(&engine, &partial, &DatabaseConfig::default(), || Ok(source))?;
        let sources = Sources::load(&engine)?;
        let mut writes = Writes::default();
        if !former.is_empty() {
            writes.insert(keys::FORMER, former.iter().flat_map(|source| source.0).collect::<Vec<u8>>());
        }
        Ok(Rebuild {
            partial: Some(partial),
            path: path.to_owned(),
            engine: Some(engine),
            source,
            sources,
            parts: BTreeMap::new(),
            codec: Codec::default(),
            writes,
            bytes: 0,
            marks: 0,
            blobs: None,
            _lock: lock,
        })
    }

    fn engine(&self) -> Result<&Engine, DatabaseError> {
        self.engine
            .as_ref()
            .ok_or_else(|| DatabaseError::Failed { reason: "the new database is closed".into() })
    }

    /// It identifies revisions in this way.
    pub(in super::super) fn set_versioning(&mut self, versioning: Versioning) {
        Meta::newest(self.source, versioning).write(&mut self.writes);
    }

    /// Directory it is made in, for files beside the store.
    pub(in super::super) fn directory(&self) -> &Path {
        self.partial.as_deref().unwrap_or(&self.path)
    }

    /// Blobs of it.
    pub(in super::super) fn blobs(&mut self) -> Result<&Blobs, DatabaseError> {
        let opened = match self.blobs.take() {
            None => Blobs::open(Directory::of(self.directory()), false, false)?,
            Some(opened) => opened,
        };
        Ok(self.blobs.insert(opened))
    }

    /// Notes that a document names a blob.
    pub(in super::super) fn name_blob(&mut self, digest: &BlobDigest, key: CollectionKey, id: &str) {
        self.writes.insert(keys::blob_name(digest, key, id), []);
        self.bytes += KEPT_BYTES;
    }

    /// Takes over a field name with its number.
    pub(in super::super) fn name(&mut self, number: u16, name: &str) {
        self.writes.insert(keys::numbered(keys::NAME, number), name.as_bytes());
    }

    /// Takes over a collection.
    pub(in super::super) fn collection(&mut self, key: CollectionKey, name: &str) {
        self.writes.insert(keys::numbered(keys::COLLECTION, key.0), name.as_bytes());
        self.parts.entry(key).or_default();
    }

    /// Takes over a record; those of a collection come in order of sequence, and of one document the last holds. `false`
    /// if it is out of order or of no collection.
    pub(in super::super) fn push(
        &mut self,
        key: CollectionKey,
        record: StoredRevision,
    ) -> Result<bool, DatabaseError> {
        let Some(part) = self.parts.get_mut(&key) else { return Ok(false) };
        if record.sequence <= part.counters.last_sequence {
            return Ok(false);
        }
        part.counters.last_sequence = record.sequence;
        let ancestor = record.remote_ancestor.map(|ancestor| ancestor.version());
        record.vector.versions().chain(ancestor).for_each(|v| self.sources.intern(v.source));
        // A large document gets a block of its own, as in a commit.
        if record.body.len() > BLOCK_BYTES_TARGET || part.builder.is_full(&self.codec) {
            cut_block(key, part, &mut self.codec, &mut self.writes);
        }
        part.builder.push(&record, &self.sources);
        self.bytes += record.body.len() + record.id.len();
        part.pending.push((record.id, IndexEntry { sequence: record.sequence, deleted: record.deleted }));
        if part.pending.len() >= PENDING_MAX || self.bytes >= PENDING_BYTES_MAX {
            self.flush()?;
        }
        Ok(true)
    }

    /// Takes over what lets a document go, or stay away; that of no collection is left. `false` if it is damaged.
    pub(in super::super) fn keep(&mut self, kept: &Kept) -> Result<bool, DatabaseError> {
        if !self.parts.contains_key(&kept.collection()) {
            return Ok(true);
        }
        let Some(marks) = kept.write(&mut self.sources, &mut self.codec, &mut self.writes) else {
            return Ok(false);
        };
        self.marks += marks;
        self.bytes += KEPT_BYTES;
        if self.bytes >= PENDING_BYTES_MAX {
            self.flush()?;
        }
        Ok(true)
    }

    /// Takes a document out again.
    pub(in super::super) fn forget(&mut self, key: CollectionKey, id: &str) -> Result<(), DatabaseError> {
        self.flush()?;
        let Some(mut part) = self.parts.remove(&key) else { return Ok(()) };
        let mut edit = IndexEdit::default();
        let engine = self.engine()?;
        if let Some(old) = edit.find(engine, key, id)? {
            part.discount(old);
            edit.set(engine, key, id, None)?;
            edit.write(key, &mut self.writes);
        }
        self.parts.insert(key, part);
        self.flush()
    }

    /// Takes a collection out again, with all it holds. Its records stay until the next compaction.
    pub(in super::super) fn forget_collection(&mut self, key: CollectionKey) -> Result<(), DatabaseError> {
        self.flush()?;
        self.parts.remove(&key);
        let mut gone = Vec::new();
        let mut note = |entry: &[u8], _: &[u8]| {
            gone.push((entry.to_vec(), None));
            Ok(std::ops::ControlFlow::Continue(()))
        };
        let engine = self.engine()?;
        engine.scan(&keys::index(key, ""), &keys::index_end(key), &mut note)?;
        engine.scan(&keys::block(key, 0)[..3], &keys::block_end(key), &mut note)?;
        let (from, to) = keys::definitions(key);
        engine.scan(&from, &to, &mut note)?;
        gone.push((keys::numbered(keys::COLLECTION, key.0).to_vec(), None));
        redo::apply_in_steps(engine, gone.into_iter())
    }

    fn counts(&self) -> (u64, u64) {
        let sum = |of: fn(&Counters) -> u64| self.parts.values().map(|part| of(&part.counters)).sum();
        (sum(|c| c.documents), sum(|c| c.tombstones))
    }

    /// Writes what was gathered.
    fn flush(&mut self) -> Result<(), DatabaseError> {
        let engine = self.engine.as_ref();
        let engine =
            engine.ok_or_else(|| DatabaseError::Failed { reason: "the new database is closed".into() })?;
        for (&key, part) in &mut self.parts {
            cut_block(key, part, &mut self.codec, &mut self.writes);
            if part.pending.is_empty() {
                continue;
            }
            let mut pending = std::mem::take(&mut part.pending);
            // Stable: of one document the last stays the last.
            pending.sort_by(|(a, _), (b, _)| a.cmp(b));
            let mut edit = IndexEdit::default();
            for (id, entry) in pending {
                if let Some(old) = edit.find(engine, key, &id)? {
                    part.discount(old);
                }
                *part.count(entry) += 1;
                edit.set(engine, key, &id, Some(entry))?;
            }
            edit.write(key, &mut self.writes);
        }
        self.sources.write_new(&mut self.writes);
        self.bytes = 0;
        redo::apply_in_steps(engine, std::mem::take(&mut self.writes).entries.into_iter())
    }

    /// Says what a collection's newest sequence was, and up to where a peer is known to have it.
    pub(in super::super) fn counters(&mut self, key: CollectionKey, last_sequence: u64, pushed: u64) {
        if let Some(part) = self.parts.get_mut(&key) {
            part.counters.last_sequence = part.counters.last_sequence.max(last_sequence);
            part.counters.pushed = pushed.min(part.counters.last_sequence);
        }
    }

    /// Makes everything durable and puts it into its place, in one step.
    /// Gives the documents and tombstones in it.
    pub(in super::super) fn finish(mut self) -> Result<(u64, u64), DatabaseError> {
        self.flush()?;
        let counts = self.counts();
        for (key, part) in &self.parts {
            let counters = postcard::to_stdvec(&part.counters).unwrap_or_default();
            self.writes.insert(keys::numbered(keys::COUNTERS, key.0), counters);
        }
        if self.marks > 0 {
            self.writes.insert(keys::MARKS, self.marks.to_be_bytes());
        }
        self.flush()?;
        let Some(engine) = self.engine.take() else { return Ok(counts) };
        engine.seal()?;
        engine.close();
        drop(engine);
        // A part of one that the backup did not have whole is of no use.
        self.blobs.take().map_or(Ok(()), |blobs| blobs.remove_parts())?;
        let partial = self.directory().to_owned();
        sync_directory(&partial)?;
        fs::rename(&partial, &self.path).map_err(|e| io_error("put the new database into its place", e))?;
        self.partial = None;
        let parent = self.path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
        parent.map_or(Ok(()), |parent| sync_directory(&parent))?;
        Ok(counts)
    }
}

impl Drop for Rebuild {
    fn drop(&mut self) {
        drop(self.engine.take());
        if let Some(partial) = self.partial.take() {
            // The next attempt would remove it as well.
            let _ = fs::remove_dir_all(partial);
        }
    }
}

impl Part {
    fn count(&mut self, entry: IndexEntry) -> &mut u64 {
        if entry.deleted { &mut self.counters.tombstones } else { &mut self.counters.documents }
    }

    fn discount(&mut self, entry: IndexEntry) {
        let count = self.count(entry);
        *count = count.saturating_sub(1);
    }
}

fn cut_block(key: CollectionKey, part: &mut Part, codec: &mut Codec, writes: &mut Writes) {
    if part.builder.count() > 0 {
        let sequence = part.builder.last_sequence();
        write_pieces(writes, &keys::block(key, sequence), &part.builder.finish(codec));
    }
}
