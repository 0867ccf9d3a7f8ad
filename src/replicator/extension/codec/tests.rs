//! What went in comes out; what is damaged is refused.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::replica::revision::tree::GENERATION_MAX;
use crate::replica::revision::{SourceId, TreeId, VERSIONS_MAX, Version, VersionVector};
use crate::replica::store::Change;
use crate::replicator::extension::codec::format::{SOURCES_MAX, head};
use crate::replicator::extension::{REVS_ENTRIES_MAX, RevsFormat};

fn version() -> impl Strategy<Value = Version> {
    let time = prop_oneof![1u64.., (1u64..50).prop_map(|n| 0x18ea_7b9b_f01b_0000 + (n << 16)), 1u64..20];
    (time, 0u8..4).prop_map(|(time, source)| Version { time, source: SourceId([source; 16]) })
}

fn entry() -> impl Strategy<Value = RevEntry> {
    let versions = || prop::collection::vec(version(), 0..3);
    let tree = (1..=GENERATION_MAX, prop::collection::vec(any::<u8>(), 1..=20))
        .prop_map(|(generation, digest)| TreeId::new(generation, &digest).expect("within the limits"));
    let vector = (version(), versions(), versions(), prop::collection::vec(tree, 0..3))
        .prop_map(|(current, merged, history, trees)| VersionVector { current, merged, history, trees });
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|body| Content::Body(body.into())),
        Just(Content::Offer),
        Just(Content::Gone),
    ];
    (any::<u64>(), "[a-cé]{1,6}", vector, any::<bool>(), content).prop_map(
        |(sequence, id, vector, deleted, content)| {
            let refused = vector.check_authors().err();
            RevEntry { sequence, id, vector, deleted, content, refused }
        },
    )
}

fn change(entry: &RevEntry) -> Change {
    let alive = Change::known_as(entry.sequence, &*entry.id, entry.vector.clone());
    Change { deleted: entry.deleted, ..alive }
}

proptest! {
    #[test]
    fn what_went_in_comes_out(
        revisions in prop::collection::vec(entry(), 0..20),
        from: u32,
        span: u32,
        asked: bool,
        last: bool,
    ) {
        let (from, through) = (u64::from(from), u64::from(from) + u64::from(span));
        let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, asked, from);
        revisions.iter().for_each(|entry| encoder.push(&change(entry), &entry.content));
        let folded = encoder.fold(through, last).map(Bytes::from);
        let message = RevsMessage { asked, last, from, through, revisions };
        for body in [Some(Bytes::from(encoder.finish(through, last))), folded].into_iter().flatten() {
            let decoded = decode(&body);
            prop_assert_eq!(decoded.as_ref(), Ok(&message));
            // Cut anywhere, it is refused.
            let is_folded = body[0] & head::FOLDED != 0;
            for end in (0..body.len()).step_by(if is_folded { body.len() / 6 + 1 } else { 1 }) {
                prop_assert!(decode(&body.slice(..end)).is_err());
            }
        }
    }

    #[test]
    fn garbage_is_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&Bytes::from(bytes));
    }
}

#[test]
fn a_record_of_a_sensor_takes_few_bytes_beside_its_body() {
    let mut encoder = RevsEncoder::new(RevsFormat::Versions, false, 100);
    for n in 0..300u64 {
        let time = 0x18ea_7b9b_f01b_0000 + (n << 16);
        let entry = RevEntry {
            sequence: 101 + n,
            id: format!("2010-01-{:02}T{:02}:00:00", 1 + n / 24, n % 24),
            vector: VersionVector::new(Version { time, source: SourceId([7; 16]) }),
            deleted: false,
            content: Content::Body(Bytes::from_static(b"{}")),
            refused: None,
        };
        encoder.push(&change(&entry), &entry.content);
    }
    let beside = encoder.finish(400, false).len() - 2 * 300;
    assert!(beside < 300 * 15, "{beside} bytes for 300 revisions");
}

/// A peer that does not read it gets no folded message, and one that does gets those that columns make smaller.
#[test]
fn records_are_folded_for_those_who_read_it() {
    let folded = |format| {
        let mut encoder = RevsEncoder::new(format, false, 0);
        for n in 0..300u32 {
            let vector =
                VersionVector::new(Version { time: u64::from(n + 1) << 16, source: SourceId([7; 16]) });
            let body = Content::Body(format!("{{\"n\":{n}}}").into());
            encoder.push(&Change::known_as(u64::from(n) + 1, format!("d{n}"), vector), &body);
        }
        encoder.fold(300, true).map(|folded| folded.len())
    };
    assert_eq!(folded(RevsFormat::Versions), None);
    assert_eq!(folded(RevsFormat::TreeIds), None);
    assert!(folded(RevsFormat::Folded).is_some_and(|len| len < 150), "{:?}", folded(RevsFormat::Folded));
}

/// The example of `firmware-notes/replication.md`.
#[test]
fn the_example_of_the_notes() {
    let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, false, 0);
    for n in 0..8u64 {
        let vector = VersionVector::new(Version { time: (n + 1) << 16, source: SourceId([7; 16]) });
        let (sequence, id) = (n + 1, format!("n-{}", n + 1));
        let change =
            Change { sequence, id, vector, deleted: false, body_size: 0, remote_ancestor: None, body: None };
        encoder.push(&change, &Content::Body(format!("{{\"n\":{n}}}").into()));
    }
    let folded = encoder.fold(8, true).expect("hardly any text");
    let hex: String = folded.iter().map(|byte| format!("{byte:02x}")).collect();
    let notes = include_str!("../../../../firmware-notes/replication.md");
    assert!(notes.contains(&hex), "{hex} of {} bytes, plain {}", folded.len(), encoder.finish(8, true).len());
}

/// A message ends before it has more revisions, authors or versions than may be read.
#[test]
fn a_message_is_full_before_it_cannot_be_read() {
    let change = |n: u32, authors: u32| {
        let of = |k: u32| {
            let mut source = [9; 16];
            source[..4].copy_from_slice(&(n * authors + k).to_le_bytes());
            Version { time: 7, source: SourceId(source) }
        };
        let history = (1..authors).map(of).collect();
        let vector = VersionVector { history, ..VersionVector::new(of(0)) };
        let (sequence, id) = (u64::from(n) + 1, n.to_string());
        Change { sequence, id, vector, deleted: false, body_size: 0, remote_ancestor: None, body: None }
    };
    // One author each, one author for all (`authors` 0), and as many as a revision may have.
    for authors in [1, VERSIONS_MAX as u32, 0] {
        let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, false, 0);
        let mut count = 0;
        while !encoder.is_full() {
            encoder.push(&change(count, authors), &Content::Offer);
            count += 1;
            assert_eq!(encoder.count(), count as usize);
        }
        let decoded = decode(&Bytes::from(encoder.finish(u64::from(count), false)));
        assert_eq!(decoded.expect("it can be read").revisions.len(), count as usize);
        let most = if authors == 0 { REVS_ENTRIES_MAX } else { SOURCES_MAX / authors as usize };
        assert!(count as usize > most / 4, "{count} with {authors} authors each");
    }
    // The same authors in all, at times so near that a version takes two bytes.
    let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, false, 0);
    let history = (1..=100).map(|k| Version { time: 7, source: SourceId([k; 16]) }).collect();
    let vector =
        VersionVector { history, ..VersionVector::new(Version { time: 7, source: SourceId([0; 16]) }) };
    while !encoder.is_full() {
        let n = encoder.count() as u64 + 1;
        encoder.push(
            &Change { sequence: n, id: n.to_string(), vector: vector.clone(), ..change(0, 0) },
            &Content::Offer,
        );
    }
    assert!((500..REVS_ENTRIES_MAX).contains(&encoder.count()), "{} revisions", encoder.count());
    assert!(decode(&Bytes::from(encoder.finish(9_000, false))).is_ok());
}
