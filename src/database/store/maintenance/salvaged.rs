//! A database read from the pages of its log that are whole, without sled: what it holds, what is lost.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use super::super::block::{Codec, StoredRevision, read_block};
use super::super::engine::io_error;
use super::super::index::{IndexEntry, read_page};
use super::super::keys::{self, CollectionKey};
use super::super::meta::{Meta, former_sources};
use super::super::pieces::join_pieces;
use super::super::sled::files::{Lost, Salvage, Survey};
use super::super::state::Counters;
use super::super::tables::Sources;
use crate::database::DatabaseError;
use crate::database::packed::{Names, Unpacker};
use crate::replica::revision::{SourceId, Versioning};

impl From<io::Error> for DatabaseError {
    fn from(error: io::Error) -> DatabaseError {
        io_error("read", error)
    }
}

/// A collection of a damaged database.
pub(in super::super) struct SalvagedCollection {
    pub(in super::super) name: String,
    pub(in super::super) counters: Option<Counters>,
}

/// What can be read of a damaged database.
pub(in super::super) struct Salvaged {
    pub(in super::super) salvage: Salvage,
    pub(in super::super) names: Names,
    pub(in super::super) sources: Sources,
    pub(in super::super) collections: BTreeMap<CollectionKey, SalvagedCollection>,
    /// Who it was; `None` if its header is lost.
    pub(in super::super) source: Option<SourceId>,
    /// How it identifies revisions, if that is known.
    pub(in super::super) versioning: Option<Versioning>,
    /// Who it was before that.
    pub(in super::super) former: Vec<SourceId>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Standing {
    /// The index names it as the newest of its document.
    Newest,
    /// The index names a newer one, or none.
    Replaced,
    /// What the index said of the document is lost.
    Unconfirmed,
}

impl Salvaged {
    /// Reads the tables of a log.
    pub(in super::super) fn read(survey: Survey) -> Result<Salvaged, DatabaseError> {
        let mut salvaged = Salvaged {
            salvage: Salvage::read(survey)?,
            names: Names::default(),
            sources: Sources::default(),
            collections: BTreeMap::new(),
            source: None,
            versioning: None,
            former: Vec::new(),
        };
        salvaged.read_tables()?;
        Ok(salvaged)
    }

    fn read_tables(&mut self) -> Result<(), DatabaseError> {
        let mut tables: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for kind in
            [keys::NAME, keys::SOURCE, keys::COLLECTION, keys::COUNTERS, keys::META[0], keys::FORMER[0]]
        {
            let (from, to) = keys::kind_range(kind);
            self.salvage.scan::<DatabaseError>(&from, &to, |key, value| {
                tables.insert(key.to_vec(), value.to_vec());
                Ok(ControlFlow::Continue(()))
            })?;
            if self.salvage.lost().iter().any(|lost| lost.touches(&from, &to)) {
                // These never change, so what an old copy of a page says of them holds. Counters do, and are counted anew.
                let grows = [keys::NAME, keys::SOURCE, keys::COLLECTION, keys::META[0]].contains(&kind);
                if grows {
                    self.salvage.scan_old(|key, value| {
                        if key.first() == Some(&kind) && !tables.contains_key(key) {
                            tables.insert(key.to_vec(), value.to_vec());
                        }
                    })?;
                }
            }
        }
        let mut counters = BTreeMap::new();
        for (key, value) in &tables {
            let number = key.get(1..3).map(|k| u16::from_be_bytes([k[0], k[1]]));
            match (key[0], number) {
                (keys::NAME, Some(number)) => {
                    let text = std::str::from_utf8(value).unwrap_or_default();
                    // A gap would give the names after it wrong numbers.
                    if usize::from(number) == self.names.len() + 1 {
                        self.names.intern(text);
                    }
                }
                (keys::SOURCE, Some(number)) => match value.as_slice().try_into() {
                    Ok(source) if usize::from(number) == self.sources.len() + 1 => {
                        self.sources.intern(SourceId(source));
                    }
                    _ => {}
                },
                (keys::COLLECTION, Some(number)) => {
                    let name = String::from_utf8_lossy(value).into_owned();
                    self.collections
                        .insert(CollectionKey(number), SalvagedCollection { name, counters: None });
                }
                (keys::COUNTERS, Some(number)) => {
                    counters.insert(CollectionKey(number), postcard::from_bytes::<Counters>(value).ok());
                }
                _ if key.as_slice() == keys::META => {
                    let meta = postcard::from_bytes::<Meta>(value).ok();
                    self.versioning = meta.as_ref().and_then(Meta::versioning);
                    self.source = meta.map(|meta| meta.source);
                }
                _ if key.as_slice() == keys::FORMER => self.former = former_sources(value),
                _ => {}
            }
        }
        for (key, counters) in counters {
            if let Some(collection) = self.collections.get_mut(&key) {
                collection.counters = counters;
            }
        }
        Ok(())
    }

    /// Visits the index of a collection in order of IDs.
    pub(in super::super) fn index(
        &self,
        key: CollectionKey,
        mut visit: impl FnMut(Box<str>, IndexEntry) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        self.salvage.scan(&keys::index(key, ""), &keys::index_end(key), |_, value| {
            for (id, entry) in read_page(value).unwrap_or_default() {
                visit(id, entry)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// What the index says of a record.
    pub(in super::super) fn standing(
        &self,
        key: CollectionKey,
        record: &StoredRevision,
    ) -> Result<Standing, DatabaseError> {
        let from = keys::index(key, &record.id);
        let mut standing = None;
        let mut end = keys::index_end(key);
        self.salvage.scan::<DatabaseError>(&from, &keys::index_end(key), |fence, value| {
            end = fence.to_vec();
            let Ok(entries) = read_page(value) else { return Ok(ControlFlow::Break(())) };
            let entry = entries.iter().find(|(id, _)| *id == record.id).map(|(_, entry)| entry.sequence);
            standing = Some(match entry {
                Some(sequence) if sequence == record.sequence => Standing::Newest,
                // A page that is older than the record.
                Some(sequence) if sequence < record.sequence => Standing::Unconfirmed,
                Some(_) => Standing::Replaced,
                // Purged, unless the page is an older one.
                None if self.salvage.is_torn() => Standing::Unconfirmed,
                None => Standing::Replaced,
            });
            Ok(ControlFlow::Break(()))
        })?;
        // The page that was found is the right one only if none between is lost.
        let is_lost = self.salvage.lost().iter().any(|lost| lost.touches(&from, &end));
        Ok(match standing {
            Some(Standing::Newest) => Standing::Newest,
            Some(found) if !is_lost => found,
            None if !is_lost && !self.salvage.is_torn() => Standing::Replaced,
            _ => Standing::Unconfirmed,
        })
    }

    /// Visits the records of a collection that can be read, in order of sequence; `damaged` hears of blocks that cannot,
    /// by their last sequence.
    pub(in super::super) fn records(
        &self,
        key: CollectionKey,
        mut visit: impl FnMut(StoredRevision) -> Result<(), DatabaseError>,
        mut damaged: impl FnMut(u64),
    ) -> Result<(), DatabaseError> {
        let mut codec = Codec::default();
        // A block whose pieces are being gathered: its sequence, the value so far, the length it must get, pieces.
        let mut open: Option<(u64, Vec<u8>, usize, u16)> = None;
        let mut close = |open: &mut Option<(u64, Vec<u8>, usize, u16)>| -> Result<(), DatabaseError> {
            let Some((sequence, value, total, _)) = open.take() else { return Ok(()) };
            let records =
                (value.len() == total).then(|| read_block(&value, &self.sources, &mut codec)).flatten();
            match records {
                Some(records) => records.into_iter().try_for_each(&mut visit),
                None => {
                    damaged(sequence);
                    Ok(())
                }
            }
        };
        self.salvage.scan::<DatabaseError>(
            &keys::block(key, 0)[..3],
            &keys::block_end(key),
            |entry, value| {
                if let Some(sequence) = keys::block_sequence(entry) {
                    close(&mut open)?;
                    let (start, total) = join_pieces(value).unwrap_or((&[], usize::MAX));
                    open = Some((sequence, start.to_vec(), total, 1));
                } else if let Some((sequence, gathered, total, pieces)) = &mut open
                    && *entry == *keys::piece(&keys::block(key, *sequence), *pieces)
                    && gathered.len() < *total
                {
                    gathered.extend_from_slice(value);
                    *pieces += 1;
                }
                Ok(ControlFlow::Continue(()))
            },
        )?;
        close(&mut open)
    }

    /// Whether the body of a record can be read.
    pub(in super::super) fn is_readable(&self, record: &StoredRevision) -> bool {
        record.deleted && record.body.is_empty()
            || Unpacker::new(&self.names, &record.id).map(&record.body).is_some()
    }

    /// The lost ranges in words: of what, of which collection, from and to.
    pub(in super::super) fn lost_in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for lost in self.salvage.lost() {
            self.describe(lost, &mut words);
        }
        words
    }

    fn describe(&self, lost: &Lost, words: &mut Vec<String>) {
        for (&key, collection) in &self.collections {
            let (from, to) = (keys::index(key, ""), keys::index_end(key));
            if lost.touches(&from, &to) {
                let first = lost.from.get(3..).filter(|_| *lost.from > *from);
                let last = lost.to.get(3..).filter(|_| !lost.to.is_empty() && *lost.to < *to);
                let id = |id: Option<&[u8]>, else_: &str| {
                    id.map_or(else_.to_owned(), |id| format!("{:?}", String::from_utf8_lossy(id)))
                };
                words.push(format!(
                    "{}: the index of IDs from {} to {}",
                    collection.name,
                    id(first, "the first"),
                    id(last, "the last")
                ));
            }
            let (from, to) = (keys::block(key, 0)[..3].to_vec(), keys::block_end(key));
            if lost.touches(&from, &to) {
                words.push(format!("{}: records", collection.name));
            }
            if lost.touches(&keys::checkpoint(key, ""), &keys::checkpoint_end(key)) {
                words.push(format!("{}: checkpoints of peers", collection.name));
            }
        }
        let tables = [
            (keys::NAME, "field names"),
            (keys::SOURCE, "source IDs"),
            (keys::COLLECTION, "names of collections"),
            (keys::COUNTERS, "counters"),
            (keys::META[0], "the header"),
            (keys::CLOCK[0], "the clock"),
            (keys::FORMER[0], "former source IDs"),
            (keys::EXPIRATION, "when documents expire"),
            (keys::MARK, "what was removed"),
            (keys::HORIZON, "up to when documents were removed"),
            (keys::AUTHOR_HORIZON, "up to when documents were deleted"),
        ];
        for (kind, name) in tables {
            let (from, to) = keys::kind_range(kind);
            if lost.touches(&from, &to) {
                words.push(name.to_owned());
            }
        }
    }
}
