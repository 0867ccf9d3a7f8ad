//! The binary messages of our own extension: `revs` and the answers to it.

use bytes::Bytes;

use gattway::lab::replica::revision::VERSIONS_MAX;
use gattway::lab::replica::store::Change;
use gattway::lab::replicator::extension::codec::{Content, RevsEncoder, decode};
use gattway::lab::replicator::extension::{
    REVS_ENTRIES_MAX, REVS_ID_BYTES_MAX, RevsFormat, answer, parse_acceptance,
};

use super::super::choices::Choices;
use super::super::memory;
use super::folded::{FOLDED, MEMORY_MAX};

/// Memory for each byte of a message (an ID may repeat most of the one before for two bytes), and beside it.
const PER_BYTE: usize = 400;
const OVERHEAD: usize = 16 * 1024;

fn revs(body: Bytes) {
    let (decoded, held) = memory::peak(|| decode(&body));
    let is_folded = body.first().is_some_and(|head| head & FOLDED != 0);
    let beside = if is_folded { MEMORY_MAX } else { OVERHEAD };
    assert!(held <= PER_BYTE * body.len() + beside, "{held} bytes held for {}", body.len());
    let Ok(message) = decoded else { return };
    assert!(message.revisions.len() <= REVS_ENTRIES_MAX && message.from <= message.through);
    let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, message.asked, message.from);
    for entry in &message.revisions {
        assert!((1..=REVS_ID_BYTES_MAX).contains(&entry.id.len()));
        assert!(entry.vector.versions().count() <= VERSIONS_MAX);
        if encoder.is_full() {
            // A sender would begin another message here.
            return;
        }
        let change = Change {
            sequence: entry.sequence,
            id: entry.id.clone(),
            vector: entry.vector.clone(),
            deleted: entry.deleted,
            body_size: 0,
            remote_ancestor: None,
            body: None,
        };
        encoder.push(&change, &entry.content);
    }
    let again = Bytes::from(encoder.finish(message.through, message.last));
    assert_eq!(decode(&again).as_ref(), Ok(&message), "written back");
    let bodies = message.revisions.iter().map(|entry| match &entry.content {
        Content::Body(body) => body.len(),
        Content::Offer | Content::Gone => 0,
    });
    assert!(is_folded || bodies.sum::<usize>() <= body.len());
}

fn answers(count: usize, body: &[u8]) {
    let (decoded, held) = memory::peak(|| answer::decode(body, count));
    assert!(held <= 200 * count + 64 * body.len() + OVERHEAD, "{held} bytes held");
    let Ok(answers) = decoded else { return };
    assert_eq!(answers.len(), count);
    assert_eq!(
        answer::decode(&answer::encode(&answers, RevsFormat::NEWEST), count),
        Ok(answers),
        "written back"
    );
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.below(4) {
        0 => {
            let count = choices.u16() as usize % (REVS_ENTRIES_MAX + 1);
            answers(count, choices.rest());
        }
        1 => {
            let count = choices.below(20);
            let last = parse_acceptance(&choices.text(), count);
            assert!(last.is_none_or(|last| last.len() == count));
        }
        _ => revs(Bytes::copy_from_slice(choices.rest())),
    }
}
