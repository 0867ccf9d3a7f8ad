//! What a damaged database still holds, saved into a new one or shown. The damaged one is not changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use super::super::blobs::{Blobs, Directory, blobs_of};
use super::super::block::{Codec, StoredRevision};
use super::super::keys::{self, CollectionKey};
use super::super::layout;
use super::super::sled::seal;
use super::check::Damage;
use super::kept::{self, Kept};
use super::rebuild::Rebuild;
use super::salvaged::{Salvaged, Standing};
use crate::database::packed::Unpacker;
use crate::database::{DatabaseError, Document};
use crate::replica::blobs::BlobDigest;
use crate::replica::revision::SourceId;

/// Documents listed in a report; further ones are only counted.
const LISTED_MAX: usize = 10_000;

/// Said of a log of which messages are lost.
const TORN: &str = "changes that the log told of; a document may be older than it was";

/// A document of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DocumentName {
    /// Full name of its collection.
    pub collection: String,
    /// Its ID.
    pub id: String,
}

/// What could be saved of a damaged database, and what not.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Documents saved.
    pub documents: u64,
    /// Tombstones saved.
    pub tombstones: u64,
    /// Damaged places of its files.
    pub damage: Vec<Damage>,
    /// Damaged places, also those not listed.
    pub problems: u64,
    /// In words what is lost, where no single document can be named: ranges of IDs, tables.
    pub ranges: Vec<String>,
    /// Documents whose newest revision is lost, as far as they are listed.
    pub lost: Vec<DocumentName>,
    /// How many those are.
    pub lost_count: u64,
    /// Documents saved of which it is not known whether there was a newer revision, a deletion, or a purge: what the
    /// index said of them is lost.
    pub unconfirmed: Vec<DocumentName>,
    /// How many those are.
    pub unconfirmed_count: u64,
    /// The source ID it had, if that is known.
    pub former_source: Option<SourceId>,
    /// The source ID of the new database; `None` if none was made.
    pub source: Option<SourceId>,
}

impl SalvageReport {
    /// Whether everything was saved.
    pub fn is_complete(&self) -> bool {
        self.lost_count == 0 && self.unconfirmed_count == 0 && self.ranges.is_empty()
    }

    fn list(into: &mut Vec<DocumentName>, count: &mut u64, collection: &str, id: &str) {
        *count += 1;
        if into.len() < LISTED_MAX {
            into.push(DocumentName { collection: collection.to_owned(), id: id.to_owned() });
        }
    }
}

/// A damaged database under its lock.
struct Damaged {
    salvaged: Salvaged,
    report: SalvageReport,
    _lock: Option<fs::File>,
}

impl Damaged {
    fn open(path: &Path) -> Result<Damaged, DatabaseError> {
        let lock = layout::lock_to_read(path)?;
        let log = match layout::logs(path) {
            Ok(logs) => logs.current,
            // Whatever `current` was: of two logs that a compaction left, the older is whole.
            Err(DatabaseError::Damaged { .. }) => layout::oldest_log(path)?,
            Err(error) => return Err(error),
        };
        let nothing = || DatabaseError::Damaged { detail: format!("{} holds nothing", log.display()) };
        let mut survey = seal::examine(&log)?.ok_or_else(nothing)?;
        if survey.findings().1 > 0 {
            seal::gather(&log, &mut survey)?;
        }
        let salvaged = Salvaged::read(survey)?;
        let mut report = SalvageReport::default();
        let (findings, problems) = salvaged.salvage.survey().findings();
        report.problems = problems;
        report.damage = findings.iter().map(|finding| Damage::new(&log, finding)).collect();
        report.ranges = salvaged.lost_in_words();
        if salvaged.salvage.is_torn() {
            report.ranges.push(TORN.to_owned());
        }
        report.former_source = salvaged.source;
        Ok(Damaged { salvaged, report, _lock: lock })
    }

    /// Visits what is whole of a collection, in order of sequence, and notes what is not.
    fn rescue(
        &mut self,
        key: CollectionKey,
        mut visit: impl FnMut(&Salvaged, StoredRevision) -> Result<(), DatabaseError>,
    ) -> Result<(), DatabaseError> {
        let salvaged = &self.salvaged;
        let Some(collection) = salvaged.collections.get(&key) else { return Ok(()) };
        // Of documents that the index says nothing of, the newest record that is left, if it is newer than what the index names.
        let mut unconfirmed: HashMap<Box<str>, u64> = HashMap::new();
        let note = |record: StoredRevision| {
            if !salvaged.is_readable(&record) {
                return Ok(());
            }
            match salvaged.standing(key, &record)? {
                Standing::Unconfirmed => drop(unconfirmed.insert(record.id, record.sequence)),
                Standing::Newest => drop(unconfirmed.remove(&record.id)),
                Standing::Replaced => {}
            }
            Ok(())
        };
        salvaged.records(key, note, |_| ())?;
        let report = &mut self.report;
        let mut found = HashSet::new();
        let mut last = 0;
        let visit_one = |record: StoredRevision| {
            if record.sequence <= last || !salvaged.is_readable(&record) {
                return Ok(());
            }
            let is_wanted = match salvaged.standing(key, &record)? {
                Standing::Newest => !unconfirmed.contains_key(&record.id),
                Standing::Replaced => false,
                Standing::Unconfirmed => unconfirmed.get(&record.id) == Some(&record.sequence),
            };
            if !is_wanted {
                return Ok(());
            }
            last = record.sequence;
            found.insert(record.sequence);
            *if record.deleted { &mut report.tombstones } else { &mut report.documents } += 1;
            visit(salvaged, record)
        };
        salvaged.records(key, visit_one, |_| ())?;
        salvaged.index(key, |id, entry| {
            if !found.contains(&entry.sequence) && !unconfirmed.contains_key(&id) {
                SalvageReport::list(&mut report.lost, &mut report.lost_count, &collection.name, &id);
            }
            Ok(())
        })?;
        let mut ids: Vec<Box<str>> = unconfirmed.into_keys().collect();
        ids.sort_unstable();
        for id in ids {
            SalvageReport::list(
                &mut report.unconfirmed,
                &mut report.unconfirmed_count,
                &collection.name,
                &id,
            );
        }
        Ok(())
    }
}

/// Saves what is whole of the database in `path` into a new one in `to`; see
/// [`Database::repair`](crate::database::Database::repair).
pub(crate) fn repair(
    path: &Path,
    to: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<SalvageReport, DatabaseError> {
    let mut damaged = Damaged::open(path)?;
    let mut former = damaged.salvaged.former.clone();
    former.extend(damaged.salvaged.source);
    let mut rebuild = Rebuild::create(to, &former)?;
    if let Some(versioning) = damaged.salvaged.versioning {
        rebuild.set_versioning(versioning);
    }
    for number in 1..=damaged.salvaged.names.len() as u32 {
        if let Some(name) = damaged.salvaged.names.name(number) {
            rebuild.name(number as u16, name);
        }
    }
    let keys: Vec<CollectionKey> = damaged.salvaged.collections.keys().copied().collect();
    let (mut done, mut named) = (0, BTreeMap::<BlobDigest, u64>::new());
    for key in keys {
        let Some(collection) = damaged.salvaged.collections.get(&key) else { continue };
        rebuild.collection(key, &collection.name);
        let counters = collection.counters.unwrap_or_default();
        damaged.rescue(key, |salvaged, record| {
            let is_live = !record.deleted;
            for digest in blobs_of(&salvaged.names, &record.id, &record.body).into_iter().filter(|_| is_live)
            {
                rebuild.name_blob(&digest, key, &record.id);
                *named.entry(digest).or_default() += 1;
            }
            rebuild.push(key, record)?;
            done += 1;
            progress(done);
            Ok(())
        })?;
        rebuild.counters(key, counters.last_sequence, counters.pushed);
    }
    keep(&damaged.salvaged, &mut rebuild)?;
    copy_other_files(path, rebuild.directory())?;
    copy_blobs(path, &mut rebuild, &named, &mut damaged.report)?;
    damaged.report.source = Some(rebuild.source);
    (damaged.report.documents, damaged.report.tombstones) = rebuild.finish()?;
    Ok(damaged.report)
}

/// Takes over what lets documents go, and stay away, as far as it can be read.
fn keep(salvaged: &Salvaged, rebuild: &mut Rebuild) -> Result<(), DatabaseError> {
    let mut codec = Codec::default();
    for kind in kept::KINDS {
        let (from, to) = keys::kind_range(kind);
        salvaged.salvage.scan::<DatabaseError>(&from, &to, |key, value| {
            if let Some(kept) = Kept::of(key, value, &salvaged.sources, &mut codec) {
                rebuild.keep(&kept)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

/// Shows the documents of a collection that are whole; see [`Database::salvage`](crate::database::Database::salvage).
pub(crate) fn salvage(
    path: &Path,
    collection: &str,
    visit: &mut dyn FnMut(Document) -> Result<(), DatabaseError>,
) -> Result<SalvageReport, DatabaseError> {
    let mut damaged = Damaged::open(path)?;
    let key =
        damaged.salvaged.collections.iter().find(|(_, found)| found.name == collection).map(|(&key, _)| key);
    let unknown = || DatabaseError::UnknownCollection { name: collection.to_owned() };
    damaged.rescue(key.ok_or_else(unknown)?, |salvaged, record| {
        if record.deleted {
            return Ok(());
        }
        let unpacked = Unpacker::new(&salvaged.names, &record.id).map(&record.body);
        let body = unpacked
            .ok_or_else(|| DatabaseError::Damaged { detail: format!("the body of {:?}", record.id) })?;
        visit(Document {
            id: record.id.into_string(),
            body,
            revision: Some(record.vector),
            sequence: record.sequence,
        })
    })?;
    Ok(damaged.report)
}

/// Takes over the blobs that documents name, as far as they are whole.
fn copy_blobs(
    from: &Path,
    rebuild: &mut Rebuild,
    named: &BTreeMap<BlobDigest, u64>,
    report: &mut SalvageReport,
) -> Result<(), DatabaseError> {
    let old = Blobs::open(Directory::of(from), true, false)?;
    for (digest, documents) in named {
        let lost = match old.check(digest) {
            Ok(true) => {
                old.copy(digest, rebuild.blobs()?)?;
                continue;
            }
            Ok(false) => format!("blob {digest}: it is missing"),
            Err(DatabaseError::Damaged { detail }) => detail,
            Err(error) => return Err(error),
        };
        report.ranges.push(format!("{lost} ({documents} documents name it)"));
    }
    Ok(())
}

/// Copies what stands beside the store and belongs to others: identity, group, trust list.
fn copy_other_files(from: &Path, to: &Path) -> Result<(), DatabaseError> {
    for file in layout::other_files(from)? {
        let target = to.join(file.file_name().unwrap_or_default());
        // With its mode.
        fs::copy(&file, &target)?;
        fs::File::open(&target)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::salvaged::{KEY, NOTHING, blocks, index, page, salvaged, tables};
    use super::*;

    const UNREADABLE: [u8; 1] = [0xff];

    /// Each document is shown once, in the newest of its revisions that can be read; what of it is certain, and what is lost, is
    /// named.
    #[test]
    fn of_each_document_the_newest_that_is_left_is_shown() {
        let pages = [
            (index("c"), page("c", 9)),
            (index("m"), page("d", 5)),
            (index("o"), page("o", 4)),
            (keys::index_last(KEY), page("t", 8)),
        ];
        let records = blocks(&[
            &[("d", 2, &NOTHING)],
            &[("e", 3, &NOTHING), ("o", 4, &UNREADABLE)],
            &[("d", 5, &NOTHING), ("t", 6, &NOTHING)],
            &[("t", 7, &NOTHING), ("t", 8, &NOTHING)],
            &[("t", 10, &NOTHING), ("t", 11, &UNREADABLE)],
        ]);
        let mut all = [&tables()[..], &pages, &records].concat();
        all.sort();
        // What the index said of IDs from `cc` to `f` is lost: `d` may have been there, too.
        let (low, high): (Vec<_>, Vec<_>) = all.into_iter().partition(|(key, _)| *key < index("cc"));
        let leaves = [(vec![], index("cc"), low), (index("f"), vec![], high)];
        let salvaged = salvaged(&[], &leaves, false);
        let mut damaged = Damaged { salvaged, report: SalvageReport::default(), _lock: None };
        let mut shown = vec![];
        damaged
            .rescue(KEY, |_, record| {
                shown.push((record.id.into_string(), record.sequence));
                Ok(())
            })
            .expect("readable");
        let expected = [("e", 3), ("d", 5), ("t", 10)].map(|(id, sequence)| (id.to_owned(), sequence));
        assert_eq!(shown, expected);
        let report = damaged.report;
        let names = |named: &[DocumentName]| named.iter().map(|name| name.id.clone()).collect::<Vec<_>>();
        assert_eq!((names(&report.lost), report.lost_count), (vec!["c".to_owned(), "o".to_owned()], 2));
        assert_eq!(names(&report.unconfirmed), ["e", "t"]);
        assert_eq!((report.documents, report.tombstones, report.unconfirmed_count), (3, 0, 2));
    }
}
