//! What each writer does, as a function of seed and number, and what its documents are after so many operations. Knows
//! nothing of the store, so that it can judge it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::task::Writer;

/// Documents that a writer changes again and again.
const DOCUMENTS: u64 = 20;

/// Documents that both sides change, so that they conflict.
const SHARED_DOCUMENTS: u64 = 4;

/// Documents of a writer's batches: small ones, and rarely one that is larger than the store's log may grow between two
/// syncs, so that it takes the way of the redo list.
const BATCH_DOCUMENTS: std::ops::Range<u64> = 2..40;
const LARGE_BATCH_DOCUMENTS: u64 = 400;

/// Characters of a document's text. They are random, so that compression does not hide them.
const TEXT_CHARACTERS: std::ops::Range<usize> = 0..300;

/// Stands for the number of the operation that saved a document, if it was deleted.
pub const TOMBSTONE: u64 = 0;

/// One commit of a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Saves a document of the writer's own.
    Put(String),
    /// Deletes one, which may not be there.
    Delete(String),
    /// Saves many, all or none.
    Batch(Vec<String>),
    /// Saves a document that the other side changes too. What becomes of it is not this model's matter.
    PutShared(String),
}

/// The prefix of a writer's documents.
pub fn prefix(writer: Writer) -> String {
    format!("{writer}-")
}

/// Whether a document is written once and never changed except by a deletion.
pub fn is_once(id: &str) -> bool {
    id.contains("-once-")
}

/// Operation `number` (from 1) of a writer.
pub fn operation(seed: u64, writer: Writer, number: u64) -> Operation {
    let mut rng = rng(seed, &format!("{writer} {number}"));
    match rng.u8(0..100) {
        0..=49 => Operation::Put(format!("{writer}-once-{number}")),
        50..=77 => Operation::Put(format!("{writer}-{}", rng.u64(0..DOCUMENTS))),
        78..=82 => Operation::Delete(format!("{writer}-{}", rng.u64(0..DOCUMENTS))),
        83..=86 => Operation::Delete(format!("{writer}-once-{}", number.saturating_sub(rng.u64(1..10)))),
        87..=94 => {
            let count = rng.u64(BATCH_DOCUMENTS);
            Operation::Batch((0..count).map(|n| format!("{writer}-batch-{n}")).collect())
        }
        95 => Operation::Batch((0..LARGE_BATCH_DOCUMENTS).map(|n| format!("{writer}-large-{n}")).collect()),
        _ => Operation::PutShared(format!("shared-{}", rng.u64(0..SHARED_DOCUMENTS))),
    }
}

/// The body that an operation gives a document.
pub fn body(seed: u64, id: &str, operation: u64) -> Map<String, Value> {
    let mut rng = rng(seed, &format!("{id} {operation}"));
    let text: String = (0..rng.usize(TEXT_CHARACTERS)).map(|_| rng.alphanumeric()).collect();
    match json!({ "n": operation, "text": text }) {
        Value::Object(body) => body,
        _ => unreachable!("it is an object"),
    }
}

/// FNV-1a, which is the same on every machine.
fn rng(seed: u64, text: &str) -> fastrand::Rng {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    fastrand::Rng::with_seed(hash)
}

/// The newest number up to `last` after which a writer's documents are those `found` (each with the operation that
/// saved it, or [`TOMBSTONE`]); `None` if there is no such number: then a commit was torn, or a later one is there and an earlier is not.
pub fn matching(seed: u64, writer: Writer, last: u64, found: &BTreeMap<String, u64>) -> Option<u64> {
    let mut documents: BTreeMap<String, u64> = BTreeMap::new();
    let mut differing = found.len();
    let mut matching = (differing == 0).then_some(0);
    let mut set = |id: String, value: u64, differing: &mut usize| {
        let wanted = found.get(&id).copied();
        if value == TOMBSTONE && documents.get(&id).is_none_or(|before| *before == TOMBSTONE) {
            return; // nothing to delete
        }
        let before = documents.insert(id, value);
        *differing = *differing + usize::from(Some(value) != wanted) - usize::from(before != wanted);
    };
    for number in 1..=last {
        match operation(seed, writer, number) {
            Operation::Put(id) => set(id, number, &mut differing),
            Operation::Delete(id) => set(id, TOMBSTONE, &mut differing),
            Operation::Batch(ids) => ids.into_iter().for_each(|id| set(id, number, &mut differing)),
            Operation::PutShared(_) => {}
        }
        if differing == 0 {
            matching = Some(number);
        }
    }
    matching
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: Writer = Writer { side: 0, thread: 0 };

    fn after(seed: u64, number: u64) -> BTreeMap<String, u64> {
        let mut documents = BTreeMap::new();
        for number in 1..=number {
            match operation(seed, WRITER, number) {
                Operation::Put(id) => drop(documents.insert(id, number)),
                Operation::Delete(id) => {
                    documents.entry(id).and_modify(|number| *number = TOMBSTONE);
                }
                Operation::Batch(ids) => documents.extend(ids.into_iter().map(|id| (id, number))),
                Operation::PutShared(_) => {}
            }
        }
        documents
    }

    #[test]
    fn a_prefix_is_recognised_and_nothing_else() {
        for seed in 0..20 {
            let found = after(seed, 150);
            let matched = matching(seed, WRITER, 200, &found).expect("a prefix");
            assert_eq!(after(seed, matched), found);
            assert!(matched >= 150);
            // The last commit that saved one document is missing, all others are there.
            let single = (100..150).rev().find_map(|number| match operation(seed, WRITER, number) {
                Operation::Put(id) if found.get(&id) == Some(&number) => Some(id),
                _ => None,
            });
            let mut torn = found;
            torn.remove(&single.expect("there is one in fifty"));
            assert_ne!(matching(seed, WRITER, 200, &torn), Some(matched));
        }
    }
}
