//! Bodies of replication messages as a peer writes them: JSON lists, checkpoints, revisions. Whatever they say, they do
//! not unfold in memory.

use gattway::lab::replica::revision::{Causality, VERSIONS_MAX, VersionVector};
use gattway::lab::replicator::checkpoint::{Checkpoint, RunNote};
use gattway::lab::replicator::config::{COLLECTIONS_MAX, LIST_ENTRIES_MAX};
use gattway::lab::replicator::messages::{
    parse_changes, parse_changes_reply, parse_document_ids, parse_get_collections, parse_proposals,
    parse_proposals_reply, write_answers, write_get_collections,
};
use gattway::lab::replicator::sequences::SequenceSet;

use super::super::choices::Choices;
use super::super::memory;

/// Memory for each byte of a body (an entry of `[[]]` has a row and a result), and beside it.
const PER_BYTE: usize = 110;
const OVERHEAD: usize = 16 * 1024;
const IDS_MAX: usize = 500;

fn bounded<T>(body: &[u8], work: impl FnOnce() -> T) -> T {
    let (result, held) = memory::peak(work);
    assert!(held <= PER_BYTE * body.len() + OVERHEAD, "{held} bytes held for {}", body.len());
    result
}

fn lists(kind: u8, entries: usize, body: &[u8]) {
    match kind {
        0 => {
            if let Ok(changes) = bounded(body, || parse_changes(body)) {
                assert!(changes.len() <= LIST_ENTRIES_MAX);
                assert!(changes.iter().all(|entry| !entry.id.is_empty()));
            }
        }
        1 => {
            if let Ok(proposals) = bounded(body, || parse_proposals(body)) {
                assert!(proposals.len() <= LIST_ENTRIES_MAX);
            }
        }
        2 => {
            if let Some(answers) = parse_changes_reply(body, entries) {
                assert_eq!(answers.len(), entries);
            }
        }
        3 => {
            if let Some(answers) = parse_proposals_reply(body, entries) {
                assert_eq!(answers.len(), entries);
            }
        }
        4 => {
            if let Ok(pairs) = bounded(body, || parse_get_collections(body)) {
                assert!((1..=COLLECTIONS_MAX).contains(&pairs.len()));
                let (ids, names): (Vec<_>, Vec<_>) = pairs.iter().cloned().unzip();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let again = write_get_collections(&ids, &names);
                assert_eq!(parse_get_collections(again.as_bytes()), Ok(pairs));
            }
        }
        _ => {
            if let Ok(Some(ids)) = bounded(body, || parse_document_ids(body, IDS_MAX)) {
                assert!(ids.len() <= IDS_MAX);
            }
        }
    }
}

fn checkpoints(body: &[u8], other: &[u8]) {
    let (a, b) = (Checkpoint::from_json(body), Checkpoint::from_json(other));
    let text = a.to_json();
    let again = Checkpoint::from_json(text.as_bytes());
    assert_eq!((again.local_sequence(), &again.remote), (a.local_sequence(), &a.remote));
    for agreed in [a.agreed(&b), b.agreed(&a)] {
        assert!(agreed.local_sequence() <= a.local_sequence().min(b.local_sequence()));
        if let (Some(agreed), Some(a), Some(b)) =
            (agreed.remote.number(), a.remote.number(), b.remote.number())
        {
            assert!(agreed <= a.min(b));
        }
    }
    let note = RunNote::from_json(body);
    assert_eq!(RunNote::from_json(note.to_json().as_bytes()), note);
}

fn vectors(choices: &mut Choices<'_>) {
    let (rev, history) = (choices.text(), choices.text());
    let Ok(vector) = VersionVector::from_rev_and_history(&rev, &history) else { return };
    assert!(vector.versions().count() <= VERSIONS_MAX);
    let again: VersionVector = vector.to_string().parse().expect("what is printed is read");
    assert_eq!(again, vector);
    let joined = VersionVector::from_rev_and_history(&vector.id().to_string(), &vector.history_text());
    assert_eq!(joined.map(|joined| joined.current), Ok(vector.current));
    assert_eq!(vector.compare(&vector), Causality::Same);
    let Ok(other) = choices.text().parse::<VersionVector>() else { return };
    let opposite = match vector.compare(&other) {
        Causality::Newer => Causality::Older,
        Causality::Older => Causality::Newer,
        same => same,
    };
    assert_eq!(other.compare(&vector), opposite);
}

fn sequences(choices: &mut Choices<'_>) {
    let mut set = SequenceSet::new();
    for _ in 0..200 {
        if choices.is_empty() {
            break;
        }
        let kind = choices.byte();
        let (mut first, span) = (u64::from(choices.u16()), u64::from(choices.byte()));
        if kind & 0x80 != 0 {
            first = u64::MAX - first;
        }
        match kind & 3 {
            0 => set.remove(first),
            1 => set.keep_newest(usize::from(kind >> 2)),
            _ => {
                let last = first.saturating_add(span);
                set.insert_range(first..=last);
                assert!(set.contains(first) && set.contains(last));
            }
        }
        let ranges: Vec<_> = set.ranges().collect();
        assert!(ranges.windows(2).all(|pair| pair[0].end().saturating_add(1) < *pair[1].start()));
    }
    assert_eq!(set.intersection(&set), set);
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.byte() {
        kind @ 0..=5 => {
            let entries = choices.u16().into();
            lists(kind, entries, choices.rest());
        }
        6 => checkpoints(choices.blob(), choices.rest()),
        7 => vectors(&mut choices),
        8 => sequences(&mut choices),
        _ => {
            let answers: Vec<String> = (0..choices.below(20)).map(|_| choices.text().into_owned()).collect();
            assert!(write_answers(&answers, "0").starts_with('['));
        }
    }
}
