//! Backups: a database as one stream of bytes, taken while it is in use; and a database made of one.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `gattway backup 1` |
//! | per frame: 4 | length of the content, little-endian |
//! | 4 | CRC-32 of the content |
//! | ... | [`Frame`] in postcard |
//!
//! The first frame is the header, the last [`Frame::End`] or [`Frame::Failed`]; without the former it is no backup.
//!
//! The records are read as the change feed has them, so a document that changes meanwhile comes again, later. The last of
//! them are read while writers wait, so that all collections are shown as of one moment, and batches whole.
//!
//! One file, because what is written and what is read back are the same frames.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::super::block::{BlockBuilder, Codec, StoredRevision, read_block};
use super::super::engine::io_error;
use super::super::ground::damaged;
use super::super::keys::{self, CollectionKey};
use super::super::state::BLOCK_BYTES_TARGET;
use super::super::tables::Sources;
use super::super::{Store, layout};
use super::kept::{self, Kept};
use super::rebuild::Rebuild;
use crate::database::DatabaseError;
use crate::replica::blobs::BlobDigest;
use crate::replica::revision::{SourceId, Versioning};

const MAGIC: &[u8; 16] = b"gattway backup 1";

/// Longest frame: a document of the largest size, and its neighbours.
const FRAME_BYTES_MAX: usize = 48 * 1024 * 1024;

/// Longest file that is taken along from beside the store.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Records read at a time.
const RECORDS_AT_ONCE: usize = 256;

/// Changes left to read when writers are made to wait for the rest.
const REST_MAX: u64 = 512;

/// Times the feed is followed before writers wait for whatever is left.
const PASSES_MAX: usize = 6;

#[derive(Serialize, Deserialize)]
enum Frame<'a> {
    Header {
        source: SourceId,
        former: Vec<SourceId>,
        created_ns: u64,
        documents: u64,
    },
    File {
        name: &'a str,
        content: &'a [u8],
    },
    /// Sources with the next numbers.
    Sources(Vec<SourceId>),
    /// Field names with the next numbers.
    #[serde(borrow)]
    Names(Vec<&'a str>),
    Collection {
        key: u16,
        name: &'a str,
    },
    Block {
        key: u16,
        value: &'a [u8],
    },
    /// A document that was purged after it had been sent.
    Purged {
        key: u16,
        id: &'a str,
    },
    /// The collections there are at the end: number, newest sequence, newest that a peer has.
    End {
        collections: Vec<(u16, u64, u64)>,
    },
    Failed {
        message: &'a str,
    },
    /// What lets a document go, or stay away; after its collection, whose records have been sent. Earlier releases know none.
    Kept(Kept),
    /// Content of a blob, which goes on where the last such frame of it ended; empty after the last. Earlier releases know none.
    Blob {
        digest: [u8; 20],
        content: &'a [u8],
    },
    /// The database has revision trees; right after the header. Earlier releases refuse such a backup.
    RevisionTrees,
}

/// What a backup holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupInfo {
    /// The source ID of the database it was taken of.
    pub source: SourceId,
    /// When it was begun, in nanoseconds since 1970 by that device's clock.
    pub created_ns: u64,
    /// Revisions in it, tombstones included; a document that changed meanwhile counts again.
    pub records: u64,
    /// Blobs in it.
    pub blobs: u64,
    /// Bytes of it.
    pub bytes: u64,
}

/// A database made of a backup.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// What the backup holds.
    pub backup: BackupInfo,
    /// Documents restored.
    pub documents: u64,
    /// Tombstones restored.
    pub tombstones: u64,
    /// The new database's source ID.
    pub source: SourceId,
    /// Files that were restored beside the documents (group, trust list, and the identity if it was asked for).
    pub files: Vec<String>,
}

/// Writes frames.
struct Output<'o> {
    out: &'o mut dyn Write,
    bytes: u64,
}

impl Output<'_> {
    fn put(&mut self, frame: &Frame<'_>) -> Result<(), DatabaseError> {
        let content = postcard::to_stdvec(frame).map_err(|_| malformed("a frame that cannot be written"))?;
        let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let head = [len.to_le_bytes(), crc32fast::hash(&content).to_le_bytes()].concat();
        self.bytes += (head.len() + content.len()) as u64;
        self.out
            .write_all(&head)
            .and_then(|()| self.out.write_all(&content))
            .map_err(|e| io_error("back up", e))
    }
}

fn malformed(what: &str) -> DatabaseError {
    DatabaseError::BadBackup { reason: what.to_owned() }
}

impl Store {
    /// Writes a backup; see [`Database::backup`](crate::database::Database::backup).
    pub(crate) fn backup(
        &self,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<BackupInfo, DatabaseError> {
        let _one = self.backup.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(MAGIC).map_err(|e| io_error("back up", e))?;
        let mut out = Output { out, bytes: MAGIC.len() as u64 };
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).note_purges(true);
        let result = Backup::new(self, &mut out).run(progress);
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).note_purges(false);
        if let Err(error) = &result {
            // Whoever reads it shall not wait for more; if even this cannot be written, the end is missing.
            let _ = out.put(&Frame::Failed { message: &error.to_string() });
        }
        result
    }
}

/// One backup being written.
struct Backup<'s, 'b, 'o> {
    store: &'s Store,
    out: &'b mut Output<'o>,
    /// Collections sent, with the newest sequence sent of each.
    sent: Vec<(CollectionKey, u64)>,
    names: usize,
    sources: usize,
    records: u64,
    codec: Codec,
}

impl<'s, 'b, 'o> Backup<'s, 'b, 'o> {
    fn new(store: &'s Store, out: &'b mut Output<'o>) -> Backup<'s, 'b, 'o> {
        Backup { store, out, sent: Vec::new(), names: 0, sources: 0, records: 0, codec: Codec::default() }
    }

    fn run(mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<BackupInfo, DatabaseError> {
        let documents = self.store.collections().iter().map(|(_, state)| state.documents()).sum();
        let (source, created_ns) = (self.store.source(), self.store.wall());
        self.out.put(&Frame::Header {
            source,
            former: self.store.former().to_vec(),
            created_ns,
            documents,
        })?;
        if self.store.versioning == Versioning::RevisionTrees {
            self.out.put(&Frame::RevisionTrees)?;
        }
        if !self.store.path().as_os_str().is_empty() {
            self.files()?;
        }
        for _ in 0..PASSES_MAX {
            self.pass(progress, documents)?;
            if self.rest() <= REST_MAX {
                break;
            }
        }
        let mut writer = self.store.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.pass(progress, documents)?;
        for (key, id) in writer.take_purges() {
            self.out.put(&Frame::Purged { key: key.0, id: &id })?;
        }
        self.kept()?;
        let blobs = self.named_blobs()?;
        let collections = writer.ends();
        drop(writer);
        // A power cut could take back what is only in memory, and its times would be given out again for something else.
        self.store.sync(self.store.newest())?;
        // None of them goes as long as a backup is written.
        let mut sent = 0;
        for digest in blobs {
            sent += u64::from(self.blob(&digest)?);
        }
        self.out.put(&Frame::End { collections })?;
        self.out.out.flush().map_err(|e| io_error("back up", e))?;
        Ok(BackupInfo { source, created_ns, records: self.records, blobs: sent, bytes: self.out.bytes })
    }

    /// Sends what lets documents go, and stay away.
    fn kept(&mut self) -> Result<(), DatabaseError> {
        let (engine, store, out) = (self.store.engine(), self.store, &mut *self.out);
        for kind in kept::KINDS {
            let (from, to) = keys::kind_range(kind);
            engine.scan(&from, &to, |key, value| {
                let kept = store.with_sources(|sources, codec| Kept::of(key, value, sources, codec));
                let kept = kept.ok_or_else(|| damaged("what was removed, or is to expire"))?;
                out.put(&Frame::Kept(kept))?;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }

    /// Sends which documents name blobs; gives these.
    fn named_blobs(&mut self) -> Result<Vec<BlobDigest>, DatabaseError> {
        let (out, mut named) = (&mut *self.out, Vec::new());
        self.store.scan_blob_names(|_, name| {
            let (digest, collection, id) = name.ok_or_else(|| damaged("the name of a blob"))?;
            let id = id.to_owned();
            out.put(&Frame::Kept(Kept::Blob { key: collection.0, digest: digest.0, id }))?;
            if named.last() != Some(&digest) {
                named.push(digest);
            }
            Ok(())
        })?;
        Ok(named)
    }

    /// Sends the content of a blob. One that is damaged or not here is left out: without it the rest is better than nothing.
    fn blob(&mut self, digest: &BlobDigest) -> Result<bool, DatabaseError> {
        let mut at = 0;
        let is_whole = loop {
            match self.store.read_blob(digest, at, usize::MAX)? {
                None => break false,
                Some(content) => {
                    self.out.put(&Frame::Blob { digest: digest.0, content: &content })?;
                    if content.is_empty() {
                        break true;
                    }
                    at += content.len() as u64;
                }
            }
        };
        if !is_whole {
            tracing::warn!(%digest, "a blob that documents name is not here: the backup is without it");
        }
        Ok(is_whole)
    }

    fn files(&mut self) -> Result<(), DatabaseError> {
        for path in layout::other_files(self.store.path())? {
            if std::fs::metadata(&path)?.len() > FILE_BYTES_MAX {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.out.put(&Frame::File { name: &name, content: &std::fs::read(&path)? })?;
        }
        Ok(())
    }

    /// Changes that were not sent yet.
    fn rest(&self) -> u64 {
        let sent =
            |key| self.sent.iter().find(|(other, _)| *other == key).map_or(0, |(_, sequence)| *sequence);
        self.store.collections().iter().map(|(key, state)| state.applied().saturating_sub(sent(*key))).sum()
    }

    /// Sends what is new in the feeds.
    fn pass(&mut self, progress: &mut dyn FnMut(u64, u64), documents: u64) -> Result<(), DatabaseError> {
        for (key, state) in self.store.collections() {
            let at = match self.sent.iter().position(|(other, _)| *other == key) {
                Some(at) => at,
                None => {
                    self.out.put(&Frame::Collection { key: key.0, name: &state.name })?;
                    self.sent.push((key, 0));
                    self.sent.len() - 1
                }
            };
            let until = state.applied();
            loop {
                // What has expired and is still there goes with its time, and leaves a mark there too.
                let after = self.sent[at].1;
                let found = match self.store.stored_within(key, after, until, RECORDS_AT_ONCE, usize::MAX) {
                    // It was deleted meanwhile; the end says so.
                    Err(DatabaseError::UnknownCollection { .. }) => break,
                    found => found?,
                };
                let Some(last) = found.last().map(|record| record.sequence) else { break };
                self.tables()?;
                self.blocks(key, &found)?;
                self.sent[at].1 = last;
                self.records += found.len() as u64;
                progress(self.records, documents.max(self.records));
            }
            self.sent[at].1 = self.sent[at].1.max(until);
        }
        Ok(())
    }

    /// Sends field names and sources that have become known, before the records that use them.
    fn tables(&mut self) -> Result<(), DatabaseError> {
        let names = self.store.names.read().unwrap_or_else(PoisonError::into_inner);
        if names.len() > self.names {
            let new = (self.names + 1..=names.len()).filter_map(|number| names.name(number as u32)).collect();
            self.out.put(&Frame::Names(new))?;
            self.names = names.len();
        }
        drop(names);
        let sources = self.store.sources.read().unwrap_or_else(PoisonError::into_inner);
        if sources.len() > self.sources {
            self.out.put(&Frame::Sources(sources.all()[self.sources..].to_vec()))?;
            self.sources = sources.len();
        }
        Ok(())
    }

    fn blocks(&mut self, key: CollectionKey, records: &[StoredRevision]) -> Result<(), DatabaseError> {
        let mut builder = BlockBuilder::default();
        for (at, record) in records.iter().enumerate() {
            // Sources that became known since are written out as they are.
            let sources = self.store.sources.read().unwrap_or_else(PoisonError::into_inner);
            builder.push(record, &sources.first(self.sources));
            drop(sources);
            let next_is_large = records.get(at + 1).is_none_or(|next| next.body.len() > BLOCK_BYTES_TARGET);
            if builder.len() >= BLOCK_BYTES_TARGET || next_is_large {
                let value = builder.finish_rows(&mut self.codec);
                self.out.put(&Frame::Block { key: key.0, value: &value })?;
            }
        }
        Ok(())
    }
}

/// Reads frames; `None` after the last byte.
struct Input<'i> {
    input: &'i mut dyn Read,
    buffer: Vec<u8>,
    bytes: u64,
}

impl<'i> Input<'i> {
    fn new(input: &'i mut dyn Read) -> Result<Input<'i>, DatabaseError> {
        let mut magic = [0; MAGIC.len()];
        let mut this = Input { input, buffer: Vec::new(), bytes: magic.len() as u64 };
        this.exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(malformed("it does not begin as a backup does"));
        }
        Ok(this)
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), DatabaseError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => malformed("it ends too early"),
            _ => io_error("read the backup", error),
        })
    }

    fn next(&mut self) -> Result<Frame<'_>, DatabaseError> {
        let mut head = [0; 8];
        self.exact(&mut head)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if len > FRAME_BYTES_MAX {
            return Err(malformed("a frame is too long"));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        // Not by `resize`: a damaged length must not allocate.
        let read = self.input.take(len as u64).read_to_end(&mut buffer);
        self.buffer = buffer;
        if read.map_err(|e| io_error("read the backup", e))? < len {
            return Err(malformed("it ends too early"));
        }
        self.bytes += (head.len() + len) as u64;
        if crc32fast::hash(&self.buffer) != crc {
            return Err(malformed(&format!("damaged before byte {}", self.bytes)));
        }
        match postcard::from_bytes(&self.buffer).map_err(|_| malformed("a frame of an unknown kind"))? {
            Frame::Failed { message } => Err(malformed(&format!("it was not completed: {message}"))),
            frame => Ok(frame),
        }
    }
}

/// Reads a whole backup and checks it.
pub(crate) fn check_backup(input: &mut dyn Read) -> Result<BackupInfo, DatabaseError> {
    let mut input = Input::new(input)?;
    let mut info = match input.next()? {
        Frame::Header { source, created_ns, .. } => {
            BackupInfo { source, created_ns, records: 0, blobs: 0, bytes: 0 }
        }
        _ => return Err(malformed("it has no header")),
    };
    let (mut sources, mut codec) = (Sources::default(), Codec::default());
    loop {
        match input.next()? {
            Frame::Sources(new) => new.into_iter().for_each(|source| sources.intern(source)),
            Frame::Block { value, .. } => {
                let records = read_block(value, &sources, &mut codec);
                info.records += records.ok_or_else(|| malformed("a block of records"))?.len() as u64;
            }
            Frame::Blob { content, .. } => info.blobs += u64::from(content.is_empty()),
            Frame::End { .. } => break,
            _ => {}
        }
    }
    info.bytes = input.bytes;
    Ok(info)
}

/// Makes a database of a backup; see [`Database::restore`](crate::database::Database::restore).
pub(crate) fn restore(
    input: &mut dyn Read,
    to: &Path,
    keep_file: &dyn Fn(&str) -> bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RestoreReport, DatabaseError> {
    let mut input = Input::new(input)?;
    let Frame::Header { source, mut former, created_ns, documents } = input.next()? else {
        return Err(malformed("it has no header"));
    };
    former.push(source);
    let mut rebuild = Rebuild::create(to, &former)?;
    let mut backup = BackupInfo { source, created_ns, records: 0, blobs: 0, bytes: 0 };
    let (mut sources, mut codec, mut names) = (Sources::default(), Codec::default(), 0u16);
    let mut files = Vec::new();
    let mut known = Vec::new();
    let ends = loop {
        match input.next()? {
            Frame::Header { .. } | Frame::Failed { .. } => return Err(malformed("two headers")),
            Frame::RevisionTrees => rebuild.set_versioning(Versioning::RevisionTrees),
            Frame::File { name, content } => {
                if layout::is_other_file(name) && keep_file(name) {
                    layout::write_private(&rebuild.directory().join(name), content)?;
                    files.push(name.to_owned());
                }
            }
            Frame::Sources(new) => new.into_iter().for_each(|source| sources.intern(source)),
            Frame::Names(new) => {
                for name in new {
                    names = names.checked_add(1).ok_or_else(|| malformed("too many field names"))?;
                    rebuild.name(names, name);
                }
            }
            Frame::Collection { key, name } => {
                rebuild.collection(CollectionKey(key), name);
                known.push(CollectionKey(key));
            }
            Frame::Block { key, value } => {
                let records = read_block(value, &sources, &mut codec);
                for record in records.ok_or_else(|| malformed("a block of records"))? {
                    if !rebuild.push(CollectionKey(key), record)? {
                        return Err(malformed("records out of order"));
                    }
                    backup.records += 1;
                }
                progress(backup.records, documents.max(backup.records));
            }
            Frame::Purged { key, id } => rebuild.forget(CollectionKey(key), id)?,
            Frame::Kept(kept) => {
                if !rebuild.keep(&kept)? {
                    return Err(malformed("a mark of a removed document"));
                }
            }
            Frame::Blob { digest, content } => {
                let digest = BlobDigest(digest);
                let blobs = rebuild.blobs()?;
                if !content.is_empty() {
                    let at = blobs.part_length(&digest)?;
                    blobs.append(&digest, at, content, |_| Ok(()))?;
                } else if blobs.finish(&digest)? {
                    backup.blobs += 1;
                }
            }
            Frame::End { collections } => break collections,
        }
    };
    backup.bytes = input.bytes;
    for key in known {
        match ends.iter().find(|(number, ..)| *number == key.0) {
            Some(&(_, last_sequence, pushed)) => rebuild.counters(key, last_sequence, pushed),
            None => rebuild.forget_collection(key)?,
        }
    }
    let source = rebuild.source;
    let (documents, tombstones) = rebuild.finish()?;
    Ok(RestoreReport { backup, documents, tombstones, source, files })
}
