//! What tables and the index of a damaged log say.

use super::super::super::block::{BlockBuilder, Codec, StoredRevision};
use super::super::super::engine::Writes;
use super::super::super::index::{IndexEntry, IndexWriter};
use super::super::super::keys::{self, CollectionKey};
use super::super::super::meta::{FORMAT, Meta};
use super::super::super::pieces::write_pieces;
use super::super::super::sled::files::tests::salvage::{Leaf, a_log};
use super::super::super::state::Counters;
use super::super::super::tables::Sources;
use super::super::salvaged::{Salvaged, Standing};
use crate::replica::revision::{SourceId, Version, VersionVector};

pub(in super::super) const KEY: CollectionKey = CollectionKey(1);

/// A body without members.
pub(in super::super) const NOTHING: [u8; 2] = [14, 0];

pub(in super::super) fn record(id: &str, sequence: u64) -> StoredRevision {
    StoredRevision {
        sequence,
        id: id.into(),
        vector: VersionVector::new(Version { time: 1, source: SourceId([1; 16]) }),
        deleted: false,
        remote_ancestor: None,
        body: vec![],
    }
}

pub(in super::super) fn page(id: &str, sequence: u64) -> Vec<u8> {
    let (mut writer, mut writes) = (IndexWriter::new(KEY), Writes::default());
    writer.push(id, IndexEntry { sequence, deleted: false }, &mut writes);
    writer.finish(&mut writes);
    writes.entries.pop().and_then(|(_, value)| value).expect("a page")
}

/// Blocks, each with the records that one commit saved.
pub(in super::super) fn blocks(commits: &[&[(&str, u64, &[u8])]]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut writes, mut codec, mut sources) = (Writes::default(), Codec::default(), Sources::default());
    sources.intern(SourceId([1; 16]));
    for commit in commits {
        let mut builder = BlockBuilder::default();
        for (id, sequence, body) in *commit {
            builder.push(&StoredRevision { body: body.to_vec(), ..record(id, *sequence) }, &sources);
        }
        let key = keys::block(KEY, builder.last_sequence());
        write_pieces(&mut writes, &key, &builder.finish(&mut codec));
    }
    writes.entries.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// What says to whom records belong, and who has written them.
pub(in super::super) fn tables() -> [(Vec<u8>, Vec<u8>); 2] {
    [
        (keys::numbered(keys::COLLECTION, KEY.0).to_vec(), b"a.b".to_vec()),
        (keys::numbered(keys::SOURCE, 1).to_vec(), vec![1; 16]),
    ]
}

pub(in super::super) fn index(id: &str) -> Vec<u8> {
    keys::index(KEY, id)
}

pub(in super::super) fn salvaged(old: &[Leaf], leaves: &[Leaf], is_torn: bool) -> Salvaged {
    let (_directory, mut survey) = a_log(old, leaves);
    survey.is_torn = is_torn;
    Salvaged::read(survey).expect("readable")
}

/// Of a record nothing is claimed that a page of the index said which is lost, or that may be older than the record.
#[test]
fn a_record_stands_as_far_as_the_index_can_be_read() {
    use Standing::{Newest, Replaced, Unconfirmed};
    let [first, last] = [(index("m"), page("d", 5)), (keys::index_last(KEY), page("t", 9))];
    let both = vec![first.clone(), last.clone()];
    let whole = vec![(vec![], vec![], both.clone())];
    let without_c_to_f = vec![(vec![], index("c"), vec![]), (index("f"), vec![], both)];
    let without_the_last = vec![(vec![], vec![], vec![first.clone()])];
    let nothing_after_n = vec![(vec![], index("n"), vec![first])];
    for (leaves, is_torn, id, sequence, expected) in [
        (&whole, false, "d", 5, Newest),
        (&whole, false, "d", 4, Replaced),
        (&whole, false, "d", 6, Unconfirmed),
        (&whole, false, "e", 3, Replaced),
        (&whole, true, "d", 5, Newest),
        (&whole, true, "d", 4, Replaced),
        (&whole, true, "d", 6, Unconfirmed),
        (&whole, true, "e", 3, Unconfirmed),
        (&without_c_to_f, false, "d", 5, Newest),
        (&without_c_to_f, false, "d", 4, Unconfirmed),
        (&without_c_to_f, false, "e", 3, Unconfirmed),
        (&without_c_to_f, false, "t", 9, Newest),
        (&without_c_to_f, false, "t", 8, Replaced),
        (&without_the_last, false, "t", 9, Replaced),
        (&without_the_last, true, "t", 9, Unconfirmed),
        (&nothing_after_n, false, "t", 9, Unconfirmed),
    ] {
        let found = salvaged(&[], leaves, is_torn).standing(KEY, &record(id, sequence)).expect("readable");
        assert_eq!(found, expected, "{id} {sequence}, torn {is_torn}, of {leaves:?}");
    }
    let mut found = vec![];
    let visit = |id: Box<str>, entry: IndexEntry| {
        found.push((id.into_string(), entry.sequence));
        Ok(())
    };
    salvaged(&[], &whole, false).index(KEY, visit).expect("readable");
    assert_eq!(found, [("d".to_owned(), 5), ("t".to_owned(), 9)]);
}

/// Names and IDs are numbered without a gap, and each table is read for what it is.
#[test]
fn tables_are_read_for_what_they_are() {
    let source = SourceId([7; 16]);
    let meta = postcard::to_stdvec(&Meta { format: FORMAT, generation: 4, source }).expect("written");
    let counters = Counters { last_sequence: 7, ..Counters::default() };
    let entry = |kind: u8, number: u16, value: &[u8]| (keys::numbered(kind, number).to_vec(), value.to_vec());
    let mut entries = vec![
        entry(keys::COLLECTION, 1, b"a.b"),
        entry(keys::COLLECTION, 2, b"c.d"),
        (keys::FORMER.to_vec(), vec![5; 32]),
        (keys::META.to_vec(), meta),
        (b"m\x01".to_vec(), vec![9; 16]),
        entry(keys::NAME, 1, b"one"),
        entry(keys::NAME, 3, b"three"),
        entry(keys::SOURCE, 1, &[1; 16]),
        entry(keys::SOURCE, 3, &[3; 16]),
        entry(keys::COUNTERS, 1, &postcard::to_stdvec(&counters).expect("written")),
    ];
    entries.sort();
    let salvaged = salvaged(&[], &[(vec![], vec![], entries)], false);
    assert!(salvaged.lost_in_words().is_empty());
    assert_eq!((salvaged.names.len(), salvaged.names.name(1)), (1, Some("one")));
    assert_eq!(salvaged.sources.len(), 1);
    let collections = salvaged.collections.iter();
    let collections: Vec<_> = collections.map(|(key, c)| (key.0, c.name.as_str(), c.counters)).collect();
    assert_eq!(collections, [(1, "a.b", Some(counters)), (2, "c.d", None)]);
    assert_eq!((salvaged.source, salvaged.former.clone()), (Some(source), vec![SourceId([5; 16]); 2]));
    for (deleted, body, is_readable) in [
        (true, vec![], true),
        (false, vec![], false),
        (true, vec![0xff; 3], false),
        (false, vec![0xff; 3], false),
    ] {
        let record = StoredRevision { deleted, body, ..record("d", 1) };
        assert_eq!(salvaged.is_readable(&record), is_readable, "{deleted} {:?}", record.body);
    }
}

/// Of a table of which a part is lost an old copy counts, if the table only grows, and only for what is not there.
#[test]
fn of_a_table_that_grows_an_old_copy_is_as_good() {
    let entry = |kind: u8, number: u16, value: &[u8]| (keys::numbered(kind, number).to_vec(), value.to_vec());
    let counters = postcard::to_stdvec(&Counters::default()).expect("written");
    let old = (
        vec![],
        vec![],
        vec![
            entry(keys::COLLECTION, 1, b"a.b"),
            entry(keys::NAME, 1, b"other"),
            entry(keys::NAME, 2, b"two"),
            entry(keys::COUNTERS, 1, &counters),
        ],
    );
    let from = |key: &[u8]| key.to_vec();
    let leaves = [
        (
            vec![],
            keys::numbered(keys::NAME, 2).to_vec(),
            vec![entry(keys::COLLECTION, 1, b"a.b"), entry(keys::NAME, 1, b"one")],
        ),
        (from(&[keys::NAME + 1]), vec![], vec![]),
    ];
    let salvaged = salvaged(&[old], &leaves, false);
    assert_eq!(salvaged.lost_in_words(), ["field names"]);
    let names = [1, 2].map(|number| salvaged.names.name(number).map(str::to_owned));
    assert_eq!(names, [Some("one".to_owned()), Some("two".to_owned())]);
    assert_eq!(salvaged.collections[&KEY].counters, None, "counters do not only grow");
}
