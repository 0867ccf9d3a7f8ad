//! Commits that are larger than the log may grow between two syncs: atomic all the same.
//!
//! The writes are first stored as a list, in as many synced steps as it takes; then one small batch declares the list
//! complete, which is the moment of the commit; then the writes are made, again in synced steps, and the list goes. A
//! crash before that moment leaves a list without a declaration, which is removed at open; after it, the writes are
//! made at open once more.

use std::ops::ControlFlow;

use super::engine::{BATCH_BYTES_MAX, Engine, Entry, VALUE_BYTES_MAX, Writes, log_bytes};
use super::ground::damaged;
use super::keys;
use crate::database::DatabaseError;

/// What a complete list says of itself.
#[derive(serde::Serialize, serde::Deserialize)]
struct Complete {
    bytes: u64,
    crc32: u32,
}

/// Makes a large commit.
pub(super) fn apply(engine: &Engine, writes: Writes) -> Result<(), DatabaseError> {
    let list = postcard::to_stdvec(&writes.entries).map_err(|_| damaged("a list of writes"))?;
    let complete = Complete { bytes: list.len() as u64, crc32: crc32fast::hash(&list) };
    let pieces = list.chunks(VALUE_BYTES_MAX).zip(0u32..);
    apply_in_steps(
        engine,
        pieces.map(|(piece, number)| (keys::redo(number).to_vec(), Some(piece.to_vec()))),
    )?;
    drop(list);
    engine.sync_in_passing()?;
    let mut declare = Writes::default();
    declare.insert(
        keys::REDO_COMPLETE,
        postcard::to_stdvec(&complete).map_err(|_| damaged("a list of writes"))?,
    );
    engine.apply_part(declare)?;
    engine.sync_in_passing()?;
    finish(engine, writes.entries)
}

/// Completes or removes what a crash left.
pub(super) fn recover(engine: &Engine) -> Result<(), DatabaseError> {
    match declared(engine)? {
        Some(entries) => finish(engine, entries),
        None => remove(engine),
    }
}

/// The writes of a complete list that a crash left.
pub(super) fn declared(engine: &Engine) -> Result<Option<Vec<Entry>>, DatabaseError> {
    let Some(declared) = engine.get(keys::REDO_COMPLETE)? else { return Ok(None) };
    let mut list = Vec::new();
    let (from, to) = keys::kind_range(keys::REDO);
    engine.scan(&from, &to, |_, piece| {
        list.extend_from_slice(piece);
        Ok(ControlFlow::Continue(()))
    })?;
    let complete: Option<Complete> = postcard::from_bytes(&declared).ok();
    let is_whole =
        complete.is_some_and(|c| c.bytes == list.len() as u64 && c.crc32 == crc32fast::hash(&list));
    let entries: Option<Vec<Entry>> = postcard::from_bytes(&list).ok().filter(|_| is_whole);
    entries.map(Some).ok_or_else(|| damaged("a list of writes"))
}

/// Makes the writes of a complete list, then removes it.
fn finish(engine: &Engine, entries: Vec<Entry>) -> Result<(), DatabaseError> {
    engine.make_in_steps(entries, |entries| apply_in_steps(engine, entries.into_iter()))?;
    engine.sync_medium()?;
    let mut done = Writes::default();
    done.remove(keys::REDO_COMPLETE);
    engine.apply_part(done)?;
    engine.sync_medium()?;
    remove(engine)
}

fn remove(engine: &Engine) -> Result<(), DatabaseError> {
    let mut pieces = Vec::new();
    let (from, to) = keys::kind_range(keys::REDO);
    engine.scan(&from, &to, |key, _| {
        pieces.push((key.to_vec(), None));
        Ok(ControlFlow::Continue(()))
    })?;
    apply_in_steps(engine, pieces.into_iter())
}

/// Applies entries as batches that each are half of the largest.
pub(super) fn apply_in_steps(
    engine: &Engine,
    entries: impl Iterator<Item = Entry>,
) -> Result<(), DatabaseError> {
    const STEP_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;
    let (mut step, mut bytes) = (Writes::default(), 0);
    for entry in entries {
        bytes += log_bytes(&entry);
        step.entries.push(entry);
        if bytes >= STEP_BYTES_MAX {
            engine.apply_part(std::mem::take(&mut step))?;
            bytes = 0;
        }
    }
    engine.apply_part(step)
}

#[cfg(test)]
mod tests {
    use super::super::engine::Ticket;
    use super::*;

    /// What a log holds that was opened with this list and this declaration: of the commit, and of the list.
    fn opened_with(list: &[u8], declared: Option<&[u8]>) -> Result<(bool, bool), DatabaseError> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let engine = Engine::open(directory.path(), 1 << 20, Ticket::default()).expect("open");
        let mut writes = Writes::default();
        for (piece, number) in list.chunks(VALUE_BYTES_MAX).zip(0..) {
            writes.insert(keys::redo(number), piece);
        }
        if let Some(declared) = declared {
            writes.insert(keys::REDO_COMPLETE, declared);
        }
        engine.apply_part(writes).expect("applied");
        recover(&engine)?;
        let is_there = |key: &[u8]| engine.get(key).expect("readable").is_some();
        Ok((is_there(b"new"), is_there(&keys::redo(0)) || is_there(keys::REDO_COMPLETE)))
    }

    /// A list counts if it is declared and is what was declared; damage is neither made nor thrown away.
    #[test]
    fn only_a_list_that_is_what_was_declared_is_made() {
        let entries: Vec<Entry> =
            vec![(b"new".to_vec(), Some(vec![7; 2 * VALUE_BYTES_MAX])), (b"gone".to_vec(), None)];
        let list = postcard::to_stdvec(&entries).expect("written");
        let other: Vec<u8> = list.iter().map(|byte| byte ^ u8::from(*byte == 7)).collect();
        let shorter = &list[..list.len() - 1];
        let declare = |list: &[u8]| {
            let complete = Complete { bytes: list.len() as u64, crc32: crc32fast::hash(list) };
            postcard::to_stdvec(&complete).expect("written")
        };
        let declared = declare(&list);
        let length_of_another = Complete { bytes: list.len() as u64 + 1, crc32: crc32fast::hash(&list) };
        let length_of_another = postcard::to_stdvec(&length_of_another).expect("written");
        assert!(matches!(opened_with(&list, Some(&declared)), Ok((true, false))));
        assert!(matches!(opened_with(&list, None), Ok((false, false))));
        let cut = declare(shorter);
        let cases: [(&[u8], &[u8]); 6] = [
            (&other, &declared),
            (shorter, &declared),
            (&[], &declared),
            (&list, &length_of_another),
            (&list, b"nonsense"),
            (shorter, &cut),
        ];
        for (list, declared) in cases {
            let opened = opened_with(list, Some(declared));
            assert!(matches!(opened, Err(DatabaseError::Damaged { .. })), "{opened:?}");
        }
    }
}
