//! Trees whose pages are written by hand, as a crash, a merge and damage leave them.

use std::io;
use std::ops::ControlFlow;

use super::super::format::SEGMENT_HEADER_BYTES;
use super::super::format::tests::{a_message, header, number, text};
use super::super::salvage::{Lost, Salvage};
use super::super::survey::Survey;

const FREE: u8 = 4;
const META: u8 = 6;
const NODE: u8 = 8;
const NODE_FILE: u8 = 9;
const LINK: u8 = 10;

/// The page with the name of the tree; its root is page 1.
fn meta() -> (u8, u64, Vec<u8>) {
    (META, 0, [text(b"__sled__default"), number(1)].concat())
}

fn head(lo: &str, hi: &str, is_index: bool, len: usize) -> Vec<u8> {
    let is_index = vec![u8::from(is_index)];
    [vec![0; 4], text(lo.as_bytes()), text(hi.as_bytes()), is_index, number(len as u64)].concat()
}

fn leaf(page: u64, lo: &str, hi: &str, entries: &[(&str, &str)]) -> (u8, u64, Vec<u8>) {
    let keys = entries.iter().flat_map(|(key, _)| text(key.as_bytes()));
    let values = entries.iter().flat_map(|(_, value)| text(value.as_bytes()));
    (NODE, page, head(lo, hi, false, entries.len()).into_iter().chain(keys).chain(values).collect())
}

fn root(children: &[u64]) -> (u8, u64, Vec<u8>) {
    // What an index says its children begin with is of no matter here.
    let keys = children.iter().flat_map(|_| text(b"k"));
    let pages = children.iter().flat_map(|page| number(*page));
    (NODE, 1, head("", "", true, children.len()).into_iter().chain(keys).chain(pages).collect())
}

fn survey(messages: &[(u8, u64, Vec<u8>)]) -> (tempfile::TempDir, Survey) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let messages = messages.iter().flat_map(|(kind, page, body)| a_message(*kind, 0, *page, body));
    let bytes: Vec<u8> = header(0, 0).into_iter().chain(messages).collect();
    assert!(bytes.len() > SEGMENT_HEADER_BYTES);
    std::fs::write(directory.path().join("db"), bytes).expect("written");
    let survey = Survey::read(directory.path()).expect("readable");
    (directory, survey)
}

/// A page with entries: from which key on, up to which one, and what is in it.
pub(in crate::database::store) type Leaf = (Vec<u8>, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

fn page_of((number, (lo, hi, entries)): (u64, &Leaf)) -> (u8, u64, Vec<u8>) {
    let keys = entries.iter().flat_map(|(key, _)| text(key));
    let values = entries.iter().flat_map(|(_, value)| text(value));
    let head = [vec![0; 4], text(lo), text(hi), vec![0], number_of(entries.len())].concat();
    (NODE, number, head.into_iter().chain(keys).chain(values).collect())
}

/// A log whose seal is broken, with this page of entries behind a place that cannot be read, and an empty copy in front of it.
pub(in crate::database::store) fn a_torn_log(leaf: &Leaf) -> tempfile::TempDir {
    let bytes_of = |messages: &[(u8, u64, Vec<u8>)]| -> Vec<u8> {
        messages.iter().flat_map(|(kind, page, body)| a_message(*kind, 0, *page, body)).collect()
    };
    let before = bytes_of(&[meta(), root(&[2]), page_of((2, &(vec![], vec![], vec![])))]);
    let bytes = [header(0, 0).to_vec(), before, vec![0xff; 40], bytes_of(&[page_of((2, leaf))])].concat();
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("db"), bytes).expect("written");
    std::fs::write(directory.path().join("seal"), "broken").expect("written");
    directory
}

/// A log with these pages of entries, and `old` copies of them in front; the directory that it is read from comes with it.
pub(in crate::database::store) fn a_log(old: &[Leaf], leaves: &[Leaf]) -> (tempfile::TempDir, Survey) {
    let numbers: Vec<u64> = (2..2 + leaves.len() as u64).collect();
    let mut messages = vec![meta(), root(&numbers)];
    messages.extend((2..).zip(old).map(page_of));
    messages.extend((2..).zip(leaves).map(page_of));
    survey(&messages)
}

/// A whole log, and in it pages that are named by nothing and cannot be read.
pub(in crate::database::store) fn a_log_with_garbage(pages: u64) -> (tempfile::TempDir, Survey) {
    let garbage = (0..pages).map(|n| (NODE, 3 + n, vec![0xff; 9]));
    survey(
        &[meta(), root(&[2]), leaf(2, "", "", &[("a", "1")])].into_iter().chain(garbage).collect::<Vec<_>>(),
    )
}

fn number_of(len: usize) -> Vec<u8> {
    number(len as u64)
}

fn pair(key: &[u8], value: &[u8]) -> String {
    format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
}

fn scan(salvage: &Salvage, from: &str, to: &str) -> Vec<String> {
    let mut found = vec![];
    let scanned = salvage.scan::<io::Error>(from.as_bytes(), to.as_bytes(), |key, value| {
        found.push(pair(key, value));
        Ok(ControlFlow::Continue(()))
    });
    scanned.expect("readable");
    found
}

fn lost(ranges: &[(&str, &str)]) -> Vec<Lost> {
    ranges.iter().map(|(from, to)| Lost { from: (*from).into(), to: (*to).into() }).collect()
}

/// The first of two pages that sled was merging has all; what stands in the second may be older, or removed.
#[test]
fn of_pages_that_are_being_merged_the_first_counts() {
    let (_directory, survey) = survey(&[
        meta(),
        root(&[2, 3, 4]),
        leaf(2, "", "t", &[("a", "1"), ("n", "new")]),
        leaf(3, "m", "t", &[("n", "old"), ("p", "removed")]),
        leaf(4, "t", "", &[("t", "2"), ("x", "3")]),
    ]);
    let salvage = Salvage::read(survey).expect("readable");
    assert_eq!((salvage.lost(), salvage.is_torn()), (&[][..], false));
    assert_eq!(scan(&salvage, "", "z"), ["a=1", "n=new", "t=2", "x=3"]);
    assert_eq!(scan(&salvage, "b", "x"), ["n=new", "t=2"]);
    assert_eq!(scan(&salvage, "o", "z"), ["t=2", "x=3"]);
    assert_eq!(scan(&salvage, "t", "t\0"), ["t=2"]);
}

/// What no page has is lost. A page that nothing names any more is taken where something is lost, and only there: elsewhere it is an old
/// one.
#[test]
fn loose_pages_fill_what_is_lost() {
    let named = [
        meta(),
        root(&[2, 4]),
        leaf(2, "", "f", &[("a", "1"), ("e", "2")]),
        leaf(4, "m", "t", &[("o", "3")]),
    ];
    let (_directory, whole) = survey(&named);
    let salvage = Salvage::read(whole).expect("readable");
    assert_eq!(salvage.lost(), lost(&[("f", "m"), ("t", "")]));
    assert_eq!(scan(&salvage, "", "z"), ["a=1", "e=2", "o=3"]);
    let loose = [
        leaf(3, "g", "k", &[("h", "4")]),
        leaf(5, "b", "d", &[("c", "old")]),
        leaf(6, "n", "s", &[("p", "old")]),
        leaf(7, "t", "v", &[("u", "5")]),
    ];
    let (_directory, survey) = survey(&[&named[..], &loose].concat());
    let mut survey = survey;
    survey.replay_all().expect("readable");
    let salvage = Salvage::read(survey).expect("readable");
    assert!(salvage.is_torn(), "of everything that could be read");
    assert_eq!(salvage.lost(), lost(&[("f", "g"), ("k", "m"), ("v", "")]));
    assert_eq!(scan(&salvage, "", "z"), ["a=1", "e=2", "h=4", "o=3", "u=5"]);
    let touching = |from: &str, to: &str| {
        salvage.lost().iter().filter(|lost| lost.touches(from.as_bytes(), to.as_bytes())).count()
    };
    assert_eq!([touching("", "f"), touching("", "g"), touching("g", "k"), touching("l", "z")], [0, 1, 0, 2]);
}

/// Of old copies only whole pages are read that stand in the log itself.
#[test]
fn old_copies_are_whole_pages() {
    let (_, _, like_a_page) = leaf(2, "", "", &[("x", "no page")]);
    let (_directory, survey) = survey(&[
        meta(),
        root(&[2]),
        leaf(2, "", "", &[("a", "1")]),
        (LINK, 3, like_a_page.clone()),
        (NODE_FILE, 3, like_a_page),
        leaf(2, "", "", &[("b", "2")]),
    ]);
    let salvage = Salvage::read(survey).expect("readable");
    let mut found = vec![];
    salvage.scan_old(|key, value| found.push(pair(key, value))).expect("readable");
    assert_eq!(found, ["a=1", "b=2"]);
    assert_eq!(scan(&salvage, "", "z"), ["b=2"]);
}

/// A page that was too long for the log is read from its file, and lost with it.
#[test]
fn a_page_may_stand_in_a_file_of_its_own() {
    let (_, _, page) = leaf(2, "", "", &[("a", "1")]);
    let content = [&[NODE_FILE][..], &page].concat();
    let file = [&crc32fast::hash(&content).to_le_bytes()[..], &content].concat();
    for is_there in [true, false] {
        let (directory, survey) = survey(&[meta(), root(&[2]), (NODE_FILE, 2, 77i64.to_le_bytes().to_vec())]);
        if is_there {
            std::fs::create_dir(directory.path().join("blobs")).expect("made");
            std::fs::write(directory.path().join("blobs/77"), &file).expect("written");
        }
        let salvage = Salvage::read(survey).expect("readable");
        let (found, gaps) = if is_there { (vec!["a=1"], vec![]) } else { (vec![], lost(&[("", "")])) };
        assert_eq!(
            (scan(&salvage, "", "z"), salvage.lost()),
            (found.iter().map(|&f| f.to_owned()).collect(), &gaps[..])
        );
    }
}

/// sled takes for granted that the tree hangs together.
#[test]
fn a_tree_is_checked_from_its_root_down() {
    let page = |page| leaf(page, "", "", &[]);
    let change = [vec![0], text(b"k"), text(b"v")].concat();
    for (messages, expected) in [
        (vec![meta(), root(&[2, 3]), page(2), page(3)], vec![]),
        (vec![(META, 0, text(b"another")), root(&[2]), page(2)], vec!["the root of the tree"]),
        (vec![meta(), (LINK, 0, change), root(&[2]), page(2)], vec!["the root of the tree"]),
        (vec![meta(), (NODE, 1, vec![])], vec!["page 1 of the tree"]),
        (vec![meta(), root(&[2, 3]), page(2)], vec!["no trace of page 3, which the tree names"]),
        (
            vec![meta(), root(&[2, 3]), page(2), (FREE, 3, vec![])],
            vec!["no trace of page 3, which the tree names"],
        ),
        (vec![meta(), root(&[1])], vec!["the tree does not end"]),
    ] {
        let (_directory, mut survey) = survey(&messages);
        survey.check_tree().expect("readable");
        let found: Vec<&str> = survey.findings().0.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(found, expected);
    }
}
