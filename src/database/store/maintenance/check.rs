//! Verification: reads everything and checks that it holds together.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::super::blobs::blobs_of;
use super::super::block::StoredRevision;
use super::super::engine::{Engine, io_error};
use super::super::index;
use super::super::indexes::{self, Secondary};
use super::super::keys::{self, CollectionKey};
use super::super::layout;
use super::super::pieces::find_block;
use super::super::sled::files::{Finding, Salvage, Survey};
use super::super::sled::seal;
use super::super::{CollectionState, Store};
use super::kept;
use super::salvaged::Salvaged;
use crate::database::DatabaseError;
use crate::database::config::DatabaseConfig;
use crate::database::packed::{Names, Unpacker};

/// Problems listed in a report; further ones are only counted.
const PROBLEMS_LISTED_MAX: usize = 100;

/// What a verification found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Documents found, tombstones not counted.
    pub documents: u64,
    /// Tombstones found.
    pub tombstones: u64,
    /// Blocks of records read.
    pub blocks: u64,
    /// Records in them that newer ones replaced; compaction removes them.
    pub dead_records: u64,
    /// How many problems there are. The database is sound if there is none.
    pub problems: u64,
    /// The first of them, for people.
    pub listed: Vec<String>,
    /// Damaged places of files. If there are any, the database was not opened, so that they stay as they are, and what
    /// follows from them is in `listed`.
    pub damage: Vec<Damage>,
}

/// A damaged place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file, relative to the database's directory.
    pub file: String,
    /// Byte in the file, if it is a place and not the whole.
    pub offset: Option<u64>,
    /// What was there, or is wrong.
    pub what: String,
}

impl VerifyReport {
    /// Whether everything holds together.
    pub fn is_sound(&self) -> bool {
        self.problems == 0
    }

    /// Takes over what is damaged in the files of a log.
    fn findings(&mut self, log: &Path, salvage: &Salvage) {
        let (findings, count) = salvage.survey().findings();
        for finding in findings {
            self.problems += 1;
            self.damage.push(Damage::new(log, finding));
        }
        self.problems += count - findings.len() as u64;
    }

    fn damage(&mut self, file: &str, offset: Option<u64>, what: String) {
        self.problems += 1;
        self.damage.push(Damage { file: file.to_owned(), offset, what });
    }

    fn problem(&mut self, text: String) {
        self.problems += 1;
        self.list(text);
    }

    fn list(&mut self, text: String) {
        if self.listed.len() < PROBLEMS_LISTED_MAX {
            self.listed.push(text);
        }
    }
}

impl Damage {
    /// A finding in the files of a log.
    pub(in super::super) fn new(log: &Path, finding: &Finding) -> Damage {
        let file = format!("{}/{}", file_name(log), finding.file);
        Damage { file, offset: finding.offset, what: finding.what.clone() }
    }
}

/// Checks the database in a directory, which nobody has open: first its files as they are, then, if they are whole, what
/// they say. Changes nothing of a damaged one.
pub(crate) fn check(path: &Path, config: &DatabaseConfig) -> Result<VerifyReport, DatabaseError> {
    let lock = layout::lock_to_read(path)?;
    let logs = match layout::logs(path) {
        Err(DatabaseError::Damaged { detail }) => {
            let mut report = VerifyReport::default();
            report.damage(layout::CURRENT_FILE, None, detail);
            return Ok(report);
        }
        logs => logs?,
    };
    let report = check_log(&logs.current)?;
    if !report.is_sound() {
        return Ok(report);
    }
    drop(lock);
    match Store::open(path, config) {
        Err(DatabaseError::Damaged { detail }) => {
            let mut report = VerifyReport::default();
            report.damage(&file_name(&logs.current), None, detail);
            Ok(report)
        }
        store => store?.verify(),
    }
}

/// Checks the files of a log.
pub(super) fn check_log(log: &Path) -> Result<VerifyReport, DatabaseError> {
    let mut report = VerifyReport::default();
    let survey = match seal::examine(log) {
        Err(DatabaseError::Damaged { detail }) => {
            report.damage(&file_name(log), None, detail);
            return Ok(report);
        }
        survey => survey?,
    };
    let Some(mut survey) = survey else { return Ok(report) };
    if survey.findings().1 > 0 {
        seal::gather(log, &mut survey)?;
    }
    let salvaged = Salvaged::read(survey)?;
    report.findings(log, &salvaged.salvage);
    if report.is_sound() {
        return Ok(report);
    }
    for words in salvaged.lost_in_words() {
        report.list(format!("lost: {words}"));
    }
    for (&key, collection) in &salvaged.collections {
        let mut places = BTreeMap::new();
        salvaged.index(key, |id, entry| {
            places.insert(entry.sequence, id);
            Ok(())
        })?;
        let mut read = (0, 0);
        let visit = |record: StoredRevision| {
            let is_newest = places.get(&record.sequence).is_some_and(|id| *id == record.id);
            if is_newest && salvaged.is_readable(&record) {
                places.remove(&record.sequence);
                *if record.deleted { &mut read.1 } else { &mut read.0 } += 1;
            }
            Ok(())
        };
        salvaged.records(key, visit, |_| ())?;
        report.documents += read.0;
        report.tombstones += read.1;
        for id in places.into_values() {
            report.list(format!("lost: {}: the record of {id:?}", collection.name));
        }
    }
    Ok(report)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Store {
    /// Reads everything and checks that it holds together, with writers held off.
    pub(crate) fn verify(&self) -> Result<VerifyReport, DatabaseError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = self.engine();
        self.sync(engine.newest())?;
        let mut report = VerifyReport::default();
        if engine.is_on_files() {
            let survey = Survey::read(engine.directory()).map_err(|e| io_error("read", e))?;
            let salvage = Salvage::read(survey).map_err(|e| io_error("read", e))?;
            report.findings(engine.directory(), &salvage);
        }
        // What sled says of the same pages.
        if let Err(error) = engine.scan(&[], &[0xff], |_, _| Ok(ControlFlow::Continue(()))) {
            report.problem(error.to_string());
            return Ok(report);
        }
        let kept = self.with_sources(|sources, codec| kept::problems(&engine, sources, codec));
        kept?.into_iter().for_each(|problem| report.problem(problem));
        self.check_blobs(&mut |problem| report.problem(problem))?;
        for (key, state) in self.collections() {
            let before = (report.documents, report.tombstones);
            let mut places = index_places(&engine, key, &mut report);
            let mut entries = Entries::of(&state);
            self.check_blocks(&engine, key, &state, &mut places, &mut entries, &mut report);
            entries.check_counts(&engine, &state, &mut report);
            for id in places.into_values() {
                report.problem(format!("{}: {id:?} is in the index, its record is missing", state.name));
            }
            let found = (report.documents - before.0, report.tombstones - before.1);
            let counted = writer.counted(key);
            if found != counted {
                let text =
                    format!("{}: counts {counted:?} documents and tombstones, has {found:?}", state.name);
                report.problem(text);
            }
        }
        Ok(report)
    }

    /// Takes each record found out of `places`.
    fn check_blocks(
        &self,
        engine: &Engine,
        key: CollectionKey,
        state: &CollectionState,
        places: &mut BTreeMap<u64, Box<str>>,
        entries: &mut Entries,
        report: &mut VerifyReport,
    ) {
        let mut after = 0;
        loop {
            let block = match find_block(engine, key, after + 1) {
                Ok(Ok(Some(block))) => block,
                Ok(Ok(None)) => return,
                Ok(Err(_)) => {
                    return report.problem(format!("{}: a block after {after} is torn", state.name));
                }
                Err(error) => return report.problem(format!("{}: {error}", state.name)),
            };
            report.blocks += 1;
            let records = self.decode(&block.value);
            let records = records.unwrap_or_else(|error| {
                report.problem(format!("{}: block {}: {error}", state.name, block.sequence));
                Vec::new()
            });
            for record in &records {
                if record.sequence <= after || record.sequence > block.sequence {
                    report.problem(format!("{}: record {} is out of order", state.name, record.sequence));
                }
                self.check_record((engine, key, state), record, places, entries, report);
            }
            after = block.sequence;
        }
    }

    fn check_record(
        &self,
        (engine, key, state): (&Engine, CollectionKey, &CollectionState),
        record: &StoredRevision,
        places: &mut BTreeMap<u64, Box<str>>,
        entries: &mut Entries,
        report: &mut VerifyReport,
    ) {
        if places.get(&record.sequence).is_none_or(|id| *id != record.id) {
            report.dead_records += 1;
            return;
        }
        places.remove(&record.sequence);
        *if record.deleted { &mut report.tombstones } else { &mut report.documents } += 1;
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        if !record.deleted {
            entries.check_record(engine, &names, state, record, report);
            if self.blobs.is_recorded.load(Ordering::Acquire) {
                for digest in blobs_of(&names, &record.id, &record.body) {
                    let name = keys::blob_name(&digest, key, &record.id);
                    if !matches!(engine.get(&name), Ok(Some(_))) {
                        let id = &record.id;
                        report
                            .problem(format!("{}: that {id:?} names blob {digest} is not noted", state.name));
                    }
                }
            }
        }
        let is_readable = Unpacker::new(&names, &record.id).map(&record.body).is_some();
        if !(is_readable || record.deleted && record.body.is_empty()) {
            report.problem(format!("{}: the body of {:?} is damaged", state.name, record.id));
        }
        if record.sequence > state.applied() {
            report.problem(format!("{}: {:?} has a sequence from the future", state.name, record.id));
        }
    }
}

/// Indexes on paths while documents are read, and how many of those were to be in each.
struct Entries(Vec<(Arc<Secondary>, u64)>);

impl Entries {
    fn of(state: &CollectionState) -> Entries {
        let all = state.indexes.all();
        Entries(all.iter().filter(|index| index.is_kept()).map(|index| (Arc::clone(index), 0)).collect())
    }

    /// Looks for the entries of a document.
    fn check_record(
        &mut self,
        engine: &Engine,
        names: &Names,
        state: &CollectionState,
        record: &StoredRevision,
        report: &mut VerifyReport,
    ) {
        for (index, expected) in self.0.iter_mut().filter(|(index, _)| record.sequence <= index.built()) {
            *expected += 1;
            let entry = index.entry(names, &record.id, &record.body, record.sequence);
            // A page that cannot be read is told once, when all are counted.
            let Ok(found) = indexes::find(engine, index.key, entry.values(), &record.id) else { continue };
            if found != Some(record.sequence) {
                let name = index.name();
                report.problem(format!("{}: {:?} is not in index {name:?} as it is", state.name, record.id));
            }
        }
    }

    /// Whether the indexes have what documents there are, and nothing else.
    fn check_counts(self, engine: &Engine, state: &CollectionState, report: &mut VerifyReport) {
        for (index, expected) in self.0 {
            let name = index.name();
            match indexes::count(engine, index.key) {
                Ok((found, _)) if found == expected => {}
                Ok((found, _)) => {
                    let text = format!("{}: index {name:?} has {found} entries of {expected}", state.name);
                    report.problem(text);
                }
                Err(error) => report.problem(format!("{}: index {name:?}: {error}", state.name)),
            }
        }
    }
}

/// Sequences and IDs of the index, in order of sequence.
fn index_places(engine: &Engine, key: CollectionKey, report: &mut VerifyReport) -> BTreeMap<u64, Box<str>> {
    let mut places = BTreeMap::new();
    let mut last: Option<Box<str>> = None;
    let mut page = index::page_from(engine, key, "");
    loop {
        match page {
            Ok(None) => return places,
            Err(error) => {
                report.problem(error.to_string());
                return places;
            }
            Ok(Some((fence, entries))) => {
                for (id, entry) in entries {
                    if last.as_ref().is_some_and(|last| *last >= id) || *keys::index(key, &id) > *fence {
                        report.problem(format!("{id:?} is out of order in the index"));
                    }
                    if places.insert(entry.sequence, id.clone()).is_some() {
                        report.problem(format!("{id:?} shares its sequence with another document"));
                    }
                    last = Some(id);
                }
                page = index::page_after(engine, key, &fence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_so_many_problems_and_counts_all() {
        let mut report = VerifyReport::default();
        (0..PROBLEMS_LISTED_MAX + 3).for_each(|n| report.problem(n.to_string()));
        assert_eq!((report.problems, report.is_sound()), (PROBLEMS_LISTED_MAX as u64 + 3, false));
        let named: Vec<String> = (0..PROBLEMS_LISTED_MAX).map(|n| n.to_string()).collect();
        assert_eq!(report.listed, named);
    }
}
