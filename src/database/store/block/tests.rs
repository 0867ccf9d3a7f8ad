use proptest::prelude::*;

use super::*;
use crate::replica::revision::{SourceId, TreeId, VersionVector};

/// Some sources have a number, the others stand in full.
struct Numbers;

impl SourceNumbers for Numbers {
    fn number(&self, source: SourceId) -> u32 {
        u32::from(source.0[0] % 4)
    }

    fn source(&self, number: u32) -> Option<SourceId> {
        (1..4).contains(&number).then_some(SourceId([number as u8; 16]))
    }
}

fn version() -> impl Strategy<Value = Version> {
    (any::<u64>(), 0u8..8).prop_map(|(time, n)| {
        // What has a number is known by it.
        let source = SourceId([if n % 4 == 0 { n } else { n % 4 }; 16]);
        Version { time, source }
    })
}

fn tree() -> impl Strategy<Value = TreeId> {
    let digest = prop::collection::vec(any::<u8>(), 1..=20);
    (1u32..1000, digest).prop_map(|(generation, digest)| TreeId::new(generation, &digest).expect("an ID"))
}

fn revision() -> impl Strategy<Value = (Box<str>, VersionVector, bool, Option<RevId>, Vec<u8>)> {
    let versions = || prop::collection::vec(version(), 0..4);
    let trees = prop::collection::vec(tree(), 0..4);
    let vector = (version(), versions(), versions(), trees)
        .prop_map(|(current, merged, history, trees)| VersionVector { current, merged, history, trees });
    let ancestor =
        prop::option::of(prop_oneof![version().prop_map(RevId::Version), tree().prop_map(RevId::Tree)]);
    let body = prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => Just(vec![7; 300]),
        // An object with one number.
        4 => any::<u8>().prop_map(|n| vec![14, 1, 1, 3, n & 0x7f]),
    ];
    ("[a-c\u{e4}]{0,6}".prop_map(String::into_boxed_str), vector, any::<bool>(), ancestor, body)
}

proptest! {
    /// Whatever is in a record comes back, whatever stands before it, deflated or not.
    #[test]
    fn what_went_in_comes_out(revisions in prop::collection::vec((revision(), 1u64..1000), 1..20)) {
        let (mut codec, mut builder, mut sequence) = (Codec::default(), BlockBuilder::default(), 0);
        let mut stored = Vec::new();
        for ((id, vector, deleted, remote_ancestor, body), step) in revisions {
            sequence += step;
            stored.push(StoredRevision { sequence, id, vector, deleted, remote_ancestor, body });
        }
        stored.iter().for_each(|revision| builder.push(revision, &Numbers));
        prop_assert_eq!((builder.count(), builder.last_sequence()), (stored.len(), sequence));
        let len = builder.len();
        let value = builder.finish(&mut codec);
        prop_assert_eq!(records_len(&value), Some(len));
        prop_assert_eq!(read_block(&value, &Numbers, &mut codec), Some(stored));
        // A part of it is none.
        prop_assert_eq!(read_block(&value[..value.len() - 1], &Numbers, &mut codec), None);
    }

    /// Records that go in columns come back as from any block: all of them, some, their sequences and IDs. Nothing that is damaged is
    /// followed, or takes more room than it may.
    #[test]
    fn columns_are_read_as_rows_are(
        revisions in prop::collection::vec(revision(), 4..40),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let numbered = |version: &mut Version| version.source.0 = [version.source.0[0] % 3 + 1; 16];
        let (mut codec, mut builder, mut stored) = (Codec::default(), BlockBuilder::default(), Vec::new());
        for (at, (id, mut vector, deleted, mut remote_ancestor, body)) in revisions.into_iter().enumerate() {
            numbered(&mut vector.current);
            if let Some(RevId::Version(ancestor)) = &mut remote_ancestor {
                numbered(ancestor);
            }
            if at % 2 == 0 {
                vector = VersionVector::new(vector.current);
            }
            let body = if body.starts_with(&[14, 1, 1, 3]) && body.len() == 5 { body } else { Vec::new() };
            stored.push(StoredRevision { sequence: 7 + 3 * at as u64, id, vector, deleted, remote_ancestor, body });
        }
        stored.iter().for_each(|revision| builder.push(revision, &Numbers));
        let len = builder.len();
        let mut value = builder.in_columns().expect("columns");
        prop_assert_eq!(records_len(&value), Some(len));
        prop_assert_eq!(read_block(&value, &Numbers, &mut codec), Some(stored.clone()));
        let finished = builder.finish(&mut codec);
        prop_assert_eq!(read_block(&finished, &Numbers, &mut codec), Some(stored.clone()));
        let opened = Opened::read(&value, &mut codec).expect("a block");
        prop_assert_eq!((opened.first_sequence(), opened.count(&Numbers)), (Some(7), Some(stored.len())));
        let mut visited = Vec::new();
        opened.visit(&Numbers, |sequence, id| visited.push((sequence, id.to_owned()))).expect("sound");
        let expected: Vec<_> = stored.iter().map(|r| (r.sequence, r.id.to_string())).collect();
        prop_assert_eq!(visited, expected);
        let is_wanted = |sequence: u64| sequence % 2 == 1 || sequence % 9 == 1;
        let wanted: Vec<u64> = (0..130).filter(|sequence| is_wanted(*sequence)).collect();
        let some: Vec<_> = stored.iter().filter(|r| is_wanted(r.sequence)).cloned().collect();
        prop_assert_eq!(opened.some(&Numbers, &wanted), Some(some));
        prop_assert_eq!(read_block(&value[..value.len() - 1], &Numbers, &mut codec), None);
        let at = at.index(value.len());
        value[at] ^= 1 << bit;
        for record in read_block(&value, &Numbers, &mut codec).unwrap_or_default() {
            prop_assert!(record.body.len() <= columns::BYTES_MAX);
        }
    }
}

/// A length that says less than the records take, or more than any block in columns has, is damage.
#[test]
fn records_in_columns_take_no_more_than_they_say() {
    let (mut codec, mut builder) = (Codec::default(), BlockBuilder::default());
    for sequence in 1..=8 {
        let vector = VersionVector::new(Version { time: sequence, source: SourceId([1; 16]) });
        let body = [&[14, 1, 1, 11, 100][..], &[b'x'; 100]].concat();
        let id = format!("d{sequence}").into();
        builder.push(
            &StoredRevision { sequence, id, vector, deleted: false, remote_ancestor: None, body },
            &Numbers,
        );
    }
    let columns = builder.columns().expect("columns");
    for (len, is_read) in [
        (builder.len(), true),
        (8 * 105, true),
        (8 * 105 - 1, false),
        (columns::BYTES_MAX, true),
        (columns::BYTES_MAX + 1, false),
        (usize::MAX, false),
    ] {
        let read = read_block(&with_head(COLUMNS, len, &columns), &Numbers, &mut codec);
        assert_eq!(read.is_some(), is_read, "{len}");
    }
}

/// Blocks as releases before columns have written them, byte for byte.
#[test]
fn blocks_of_earlier_releases_are_read() {
    let (mut codec, mut builder) = (Codec::default(), BlockBuilder::default());
    let mut stored = Vec::new();
    for sequence in 1..=12 {
        let vector = VersionVector::new(Version { time: 1 << 40 | sequence, source: SourceId([1; 16]) });
        let body = vec![14, 1, 1, 3, sequence as u8];
        let id = format!("reading-{sequence}").into();
        stored.push(StoredRevision { sequence, id, vector, deleted: false, remote_ancestor: None, body });
    }
    for (count, expected) in [(1, OLD_PLAIN), (12, OLD_DEFLATED)] {
        stored[..count].iter().for_each(|revision| builder.push(revision, &Numbers));
        let value = hex(&builder.finish_rows(&mut codec));
        assert_eq!(
            read_block(&unhex(expected), &Numbers, &mut codec).as_deref(),
            Some(&stored[..count]),
            "{value}"
        );
    }
}

const OLD_PLAIN: &str = "001a0001000972656164696e672d3182808080804001050e01010301";
const OLD_DEFLATED: &str = "01aa0135ce310e82401404d03fbba0bb42bc09092ba8d07915138da1a1e0043f9e9c4c1ccbd73d83e5edfd7c2deba72b5f77f707ea33106148b8841f0231089118858ab80a3571130ec45d381293908859c886144a2f9d0c194568887fa1dd01";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
