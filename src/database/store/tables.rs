//! Small tables that are read whole at open and kept in memory: field names and sources.

use std::collections::{BTreeMap, HashMap};

use super::block::SourceNumbers;
use super::engine::{Engine, Writes};
use super::ground::damaged;
use super::keys::{self, CollectionKey};
use crate::database::DatabaseError;
use crate::database::packed::Names;
use crate::replica::revision::SourceId;
use std::ops::ControlFlow;

/// Most sources that get a number; versions of further ones carry their 16 bytes, so that no peer can grow the table
/// without bound.
pub(super) const SOURCES_MAX: usize = 4096;

/// Authors of versions and their numbers, from 1. Number 1 is this database.
#[derive(Debug, Default)]
pub(super) struct Sources {
    numbers: HashMap<SourceId, u32>,
    sources: Vec<SourceId>,
    /// How many stable storage has, or will have with the batch being applied.
    stored: usize,
}

impl SourceNumbers for Sources {
    fn number(&self, source: SourceId) -> u32 {
        self.numbers.get(&source).copied().unwrap_or(0)
    }

    fn source(&self, number: u32) -> Option<SourceId> {
        self.sources.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
    }
}

/// The first of the sources only; later ones have no number.
pub(super) struct FirstSources<'s>(&'s Sources, usize);

impl SourceNumbers for FirstSources<'_> {
    fn number(&self, source: SourceId) -> u32 {
        Some(self.0.number(source)).filter(|&number| number as usize <= self.1).unwrap_or(0)
    }

    fn source(&self, number: u32) -> Option<SourceId> {
        self.0.source(number).filter(|_| number as usize <= self.1)
    }
}

impl Sources {
    pub(super) fn first(&self, len: usize) -> FirstSources<'_> {
        FirstSources(self, len)
    }

    /// All of them, by their numbers.
    pub(super) fn all(&self) -> &[SourceId] {
        &self.sources
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    pub(super) fn intern(&mut self, source: SourceId) {
        if self.numbers.contains_key(&source) || self.sources.len() >= SOURCES_MAX {
            return;
        }
        self.sources.push(source);
        self.numbers.insert(source, self.sources.len() as u32);
    }

    /// Adds what stable storage lacks to a commit.
    pub(super) fn write_new(&mut self, writes: &mut Writes) {
        for (index, source) in self.sources.iter().enumerate().skip(self.stored) {
            writes.insert(keys::numbered(keys::SOURCE, index as u16 + 1), source.0);
        }
        self.stored = self.sources.len();
    }

    pub(super) fn load(engine: &Engine) -> Result<Sources, DatabaseError> {
        let mut sources = Sources::default();
        load_numbered(engine, keys::SOURCE, |value| {
            let source = SourceId(value.try_into().ok()?);
            sources.intern(source);
            Some(sources.sources.len())
        })?;
        sources.stored = sources.sources.len();
        Ok(sources)
    }
}

/// Adds the names that stable storage lacks to a commit; `stored` is how many it has.
pub(super) fn write_new_names(names: &Names, stored: &mut usize, writes: &mut Writes) {
    for number in *stored + 1..=names.len() {
        if let Some(name) = names.name(number as u32) {
            writes.insert(keys::numbered(keys::NAME, number as u16), name.as_bytes());
        }
    }
    *stored = names.len();
}

pub(super) fn load_names(engine: &Engine) -> Result<Names, DatabaseError> {
    let mut names = Names::default();
    load_numbered(engine, keys::NAME, |value| Some(names.intern(std::str::from_utf8(value).ok()?) as usize))?;
    Ok(names)
}

/// Feeds a numbered table in order to `add`, which returns the number it gave: it has to be the stored one.
fn load_numbered(
    engine: &Engine,
    kind: u8,
    mut add: impl FnMut(&[u8]) -> Option<usize>,
) -> Result<(), DatabaseError> {
    let (from, to) = keys::kind_range(kind);
    let mut expected = 0;
    engine.scan(&from, &to, |key, value| {
        expected += 1;
        let number = key.get(1..3).map(|k| usize::from(u16::from_be_bytes([k[0], k[1]])));
        if number != Some(expected) || add(value) != Some(expected) {
            let table = char::from(kind);
            return Err(DatabaseError::Damaged { detail: format!("table {table:?}: entry {expected}") });
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// The lowest time in the table of versions far ahead ([`super::ahead`]); the highest there is if it is empty.
pub(super) fn lowest_ahead(engine: &Engine) -> Result<u64, DatabaseError> {
    let (from, to) = keys::kind_range(keys::AHEAD);
    let first = engine.first(&from, &to)?;
    Ok(first.and_then(|(key, _)| keys::ahead_parts(&key)).map_or(u64::MAX, |(time, ..)| time))
}

/// Whether it is remembered of any purged document that it had a time far ahead; see [`super::purged`].
pub(super) fn has_purged(engine: &Engine) -> Result<bool, DatabaseError> {
    let (from, to) = keys::kind_range(keys::PURGED);
    Ok(engine.first(&from, &to)?.is_some())
}

/// The earliest expiration of a document ([`super::expiry`]); the highest number if there is none.
pub(super) fn next_expiration(engine: &Engine) -> Result<u64, DatabaseError> {
    let (from, to) = keys::kind_range(keys::DUE);
    let Some((key, _)) = engine.first(&from, &to)? else { return Ok(u64::MAX) };
    let parts = keys::due_parts(&key).ok_or_else(|| damaged("an expiration"))?;
    Ok(parts.0)
}

/// How many removed documents are remembered one by one ([`super::removed`]).
pub(super) fn marks(engine: &Engine) -> Result<u64, DatabaseError> {
    number(engine, keys::MARKS)
}

/// The horizons of authors in a collection ([`super::removed`]).
pub(super) fn author_horizons(
    engine: &Engine,
    key: CollectionKey,
) -> Result<BTreeMap<SourceId, u64>, DatabaseError> {
    let mut horizons = BTreeMap::new();
    let (from, end) = (keys::author_horizon(key, None), keys::kind_range(keys::AUTHOR_HORIZON).1);
    engine.scan(&from, &end, |entry, value| {
        let time = value.try_into().ok().map(u64::from_be_bytes);
        let ((of, author), time) = keys::author_horizon_parts(entry)
            .zip(time)
            .ok_or_else(|| damaged("up to when an author's documents were deleted"))?;
        if of != key {
            return Ok(ControlFlow::Break(()));
        }
        horizons.insert(author, time);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(horizons)
}

/// A number of 8 bytes; 0 if there is none.
pub(super) fn number(engine: &Engine, key: &[u8]) -> Result<u64, DatabaseError> {
    let Some(value) = engine.get(key)? else { return Ok(0) };
    value.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| damaged("a number of 8 bytes"))
}
