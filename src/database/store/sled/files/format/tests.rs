//! The bytes of sled's files, written by hand: what is taken, and what is refused.

use super::*;

pub(in super::super) fn number(value: u64) -> Vec<u8> {
    match value {
        0..=240 => vec![value as u8],
        241..=2287 => vec![241 + ((value - 240) / 256) as u8, ((value - 240) % 256) as u8],
        2288..=67823 => vec![249, ((value - 2288) / 256) as u8, ((value - 2288) % 256) as u8],
        _ => {
            let len = (8 - value.leading_zeros() as usize / 8).max(3);
            [&[247 + len as u8][..], &value.to_le_bytes()[..len]].concat()
        }
    }
}

pub(in super::super) fn text(text: &[u8]) -> Vec<u8> {
    [number(text.len() as u64), text.to_vec()].concat()
}

pub(in super::super) fn a_message(kind: u8, segment: u64, page: u64, body: &[u8]) -> Vec<u8> {
    let header = [vec![kind], number(body.len() as u64), number(segment), number(page)].concat();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(&header);
    [&(hasher.finalize() ^ u32::MAX).to_le_bytes()[..], &header, body].concat()
}

pub(in super::super) fn header(lsn: u64, stable: i64) -> Vec<u8> {
    let numbers = [lsn ^ HEADER_MASK, stable as u64 ^ HEADER_MASK].map(u64::to_le_bytes).concat();
    [&(crc32fast::hash(&numbers) ^ u32::MAX).to_le_bytes()[..], &numbers].concat()
}

/// A table of pages as sled writes it, of which everything before `stable` is in `pages`.
pub(in super::super) fn a_snapshot(stable: u64, pages: &[Page]) -> Vec<u8> {
    let place =
        |place: &Place| [(place.lsn as i64).to_le_bytes().to_vec(), vec![0], number(place.offset)].concat();
    let mut bytes = [(stable as i64 + 1).to_le_bytes().to_vec(), number(9)].concat();
    for page in pages {
        match page {
            Page::Unknown => panic!("sled knows each page"),
            Page::Free(free) => bytes.extend([vec![0], place(free)].concat()),
            Page::Present(places) => {
                bytes.push(places.len() as u8);
                places.iter().for_each(|at| bytes.extend([place(at), number(50)].concat()));
            }
        }
    }
    let end = [(bytes.len() as i64).to_le_bytes().to_vec(), crc32fast::hash(&bytes).to_le_bytes().to_vec()];
    [bytes, end.concat()].concat()
}

#[test]
fn numbers_are_read_as_they_are_written() {
    for value in
        [0, 1, 240, 241, 495, 496, 2287, 2288, 2543, 2544, 67823, 67824, 1 << 24, (1 << 40) + 7, u64::MAX]
    {
        let bytes = number(value);
        let mut reader = Bytes(&bytes);
        assert_eq!((reader.number(), reader.0.len()), (Some(value), 0), "{bytes:?}");
        assert_eq!(Bytes(&bytes[..bytes.len() - 1]).number(), None, "{value}");
    }
}

#[test]
fn a_message_is_taken_whole_or_not_at_all() {
    let bytes = a_message(10, 300, 70_000, b"a link");
    let found = message(&bytes, 0).expect("whole");
    assert_eq!((found.kind, found.is_blob), (Kind::Link, false));
    assert_eq!(
        (found.segment, found.page, found.body, found.len),
        (300, 70_000, &b"a link"[..], bytes.len())
    );
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(message(&damaged, 0).is_none(), "byte {at}");
        assert!(message(&bytes[..at], 0).is_none(), "{at} bytes");
    }
    let kinds: Vec<_> =
        (0..=12).map(|kind| message(&a_message(kind, 1, 1, b""), 0).map(|m| (m.kind, m.is_blob))).collect();
    let plain = |kind| Some((kind, false));
    let blob = |kind| Some((kind, true));
    let first = [
        None,
        plain(Kind::Canceled),
        plain(Kind::Cap),
        plain(Kind::Batch),
        plain(Kind::Free),
        plain(Kind::Counter),
    ];
    assert_eq!(kinds[..6], first);
    let then = [
        plain(Kind::Meta),
        blob(Kind::Meta),
        plain(Kind::Node),
        blob(Kind::Node),
        plain(Kind::Link),
        blob(Kind::Link),
        None,
    ];
    assert_eq!(kinds[6..], then);
    assert!(may_be_cut(&[]) && may_be_cut(&bytes[..4]) && may_be_cut(&bytes));
    assert!(!may_be_cut(&[0; 5]) && !may_be_cut(&[1, 1, 1, 1, 12]));
}

/// What stands after damage is found, wherever it begins.
#[test]
fn the_next_message_is_found_behind_zeros_and_nonsense() {
    let (one, other) = (a_message(8, 1, 5, b"a page"), a_message(10, 1, 6, b"a change"));
    for gap in [0, 1, 3, 4, 5, 255, 256, 257, 1_000] {
        for filling in [0, 1, 3, 11, 200] {
            let start = [vec![filling; gap], one.clone()].concat();
            let segment = [start.clone(), vec![filling; gap], other.clone(), vec![0; 40]].concat();
            let (at, found) = next_message(&segment, 0).expect("the first");
            assert_eq!((at, found.page), (gap, 5), "{gap} times {filling}");
            let (at, found) = next_message(&segment, at + 1).expect("the second");
            assert_eq!((at, found.page), (start.len() + gap, 6), "{gap} times {filling}");
            assert!(next_message(&segment, at + 1).is_none());
            assert!(next_message(&start[..start.len() - 1], 0).is_none(), "the end is missing");
        }
    }
    assert!(next_message(&[], 0).is_none() && next_message(&one, usize::MAX).is_none());
}

#[test]
fn a_file_of_its_own_is_taken_for_what_it_is() {
    let file = |kind: u8, body: &[u8]| {
        let content = [&[kind], body].concat();
        [&crc32fast::hash(&content).to_le_bytes()[..], &content].concat()
    };
    let whole = file(9, b"a page");
    assert_eq!(blob(&whole, Kind::Node), Some(&b"a page"[..]));
    assert_eq!(blob(&file(11, b""), Kind::Link), Some(&b""[..]));
    assert_eq!(blob(&whole, Kind::Link), None);
    assert_eq!(blob(&file(8, b"a page"), Kind::Node), None, "that stands in the log");
    assert_eq!(blob(&file(12, b"a page"), Kind::Node), None);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        assert_eq!(blob(&damaged, Kind::Node), None, "byte {at}");
        assert_eq!(blob(&whole[..at], Kind::Node), None, "{at} bytes");
    }
}

fn a_leaf(entries: &[(&[u8], &[u8])], prefix: &[u8]) -> Vec<u8> {
    let keys = entries.iter().flat_map(|(key, _)| text(key));
    let values = entries.iter().flat_map(|(_, value)| text(value));
    let head =
        [number(7), number(0), vec![0, prefix.len() as u8], text(prefix), text(b"z"), vec![0]].concat();
    head.into_iter().chain(number(entries.len() as u64)).chain(keys).chain(values).collect()
}

fn entries(node: Node) -> Vec<(String, String)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    node.into_entries().into_iter().map(|(key, value)| (text(key), text(value))).collect()
}

#[test]
fn changes_to_a_page_are_made_in_turn() {
    let page = a_leaf(&[(b"b", b"1"), (b"d", b"2")], b"x.");
    let mut leaf = node(&page).expect("a page");
    assert_eq!(
        (leaf.next, leaf.lo.as_slice(), leaf.hi.as_slice(), leaf.children()),
        (Some(7), &b"x."[..], &b"z"[..], &[][..])
    );
    let set = |key: &[u8], value: &[u8]| [vec![0], text(key), text(value)].concat();
    let remove = |key: &[u8]| [vec![1], text(key)].concat();
    for link in [set(b"a", b"3"), set(b"d", b"4"), set(b"e", b"5"), remove(b"b"), remove(b"nothing"), vec![4]]
    {
        leaf.apply(&link).expect("it fits");
    }
    let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    assert_eq!(entries(leaf), [("x.a", "3"), ("x.d", "4"), ("x.e", "5")].map(pair));
    let leaf = || node(&page).expect("a page");
    for link in [vec![], vec![5], vec![3], vec![2], set(b"a", b"")[..2].to_vec(), vec![0]] {
        assert!(leaf().apply(&link).is_none(), "{link:?}");
    }
    assert!(leaf().apply(&[2, 9]).is_some(), "a child is going to be merged");
    for len in 0..page.len() {
        assert!(node(&page[..len]).is_none(), "{len} bytes");
    }
    let prefix_too_long = [number(0), number(0), vec![0, 3], text(b"x."), text(b""), vec![0, 0]].concat();
    assert!(node(&prefix_too_long).is_none());
}

#[test]
fn a_child_leaves_an_index_in_two_steps() {
    let page = [number(0), number(0), vec![1, 0], text(b""), text(b""), vec![1], number(3)];
    let keys = [text(b""), text(b"k"), text(b"r")].concat();
    let page = [page.concat(), keys, [4, 300, 5].map(number).concat()].concat();
    let mut index = node(&page).expect("a page");
    assert_eq!((index.next, index.children()), (None, &[4, 300, 5][..]));
    assert!(index.apply(&[3]).is_none(), "of which child is not said");
    index.apply(&[vec![2], number(300)].concat()).expect("it fits");
    assert_eq!(index.children(), [4, 300, 5]);
    index.apply(&[3]).expect("it fits");
    assert_eq!(index.children(), [4, 5]);
    index.apply(&[2, 9]).expect("it fits");
    assert!(index.apply(&[3]).is_none(), "none of its children");
    assert!(index.apply(&[vec![0], text(b"k"), text(b"v")].concat()).is_none(), "it is no leaf");
    assert!(index.apply(&[vec![1], text(b"k")].concat()).is_none(), "it is no leaf");
    assert!(index.into_entries().is_empty());
}

#[test]
fn a_table_of_pages_is_taken_whole_or_not_at_all() {
    let place = |lsn: i64, is_blob: u8, offset: u64| {
        let pointer = if is_blob == 1 { 5i64.to_le_bytes().to_vec() } else { vec![] };
        [lsn.to_le_bytes().to_vec(), vec![is_blob], number(offset), pointer].concat()
    };
    let with_end = |bytes: Vec<u8>, len: i64| {
        let crc = crc32fast::hash(&bytes).to_le_bytes();
        [bytes, len.to_le_bytes().to_vec(), crc.to_vec()].concat()
    };
    let file = |stable: i64, pages: &[u8]| {
        let bytes = [&stable.to_le_bytes()[..], &number(9), pages].concat();
        let len = bytes.len() as i64;
        with_end(bytes, len)
    };
    let pages =
        [vec![0], place(1, 0, 2), vec![2], place(3, 0, 4), number(50), place(5, 1, 6), number(60)].concat();
    let whole = file(101, &pages);
    let found = snapshot(&whole).expect("whole");
    let [free, one, other] = [(1, 2), (3, 4), (5, 6)].map(|(lsn, offset)| Place { lsn, offset });
    assert_eq!(
        (found.stable, found.pages),
        (Some(100), vec![Page::Free(free), Page::Present(vec![one, other])])
    );
    let empty = snapshot(&file(0, &[])).expect("whole");
    assert_eq!((empty.stable, empty.pages), (None, vec![]));
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        assert!(snapshot(&damaged).is_none(), "byte {at}");
        assert!(snapshot(&whole[..at]).is_none(), "{at} bytes");
    }
    let bytes = whole[..whole.len() - 12].to_vec();
    let longer = bytes.len() as i64 + 1;
    assert!(snapshot(&with_end(bytes, longer)).is_none(), "the length of another");
    assert!(snapshot(&file(101, &[vec![0], place(1, 2, 2)].concat())).is_none(), "a place of no kind");
    assert!(snapshot(&file(101, &[vec![0], place(-1, 0, 2)].concat())).is_none(), "a place before the log");
    assert!(snapshot(&file(-1, &[])).is_none(), "an end before the log");
}

#[test]
fn a_segment_is_known_by_its_header() {
    let bytes = header(3 * SEGMENT, 2 * SEGMENT as i64 + 5);
    let found = segment_header(&[bytes.clone(), vec![1; 9]].concat()).expect("a header");
    assert_eq!((found.lsn, found.stable), (3 * SEGMENT, 2 * SEGMENT as i64 + 5));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(segment_header(&damaged).is_none(), "byte {at}");
    }
    assert!(segment_header(&bytes[..SEGMENT_HEADER_BYTES - 1]).is_none());
    assert!(segment_header(&header(3 * SEGMENT + 1, 0)).is_none(), "no segment begins there");
    assert!(segment_header(&header(1 << 62, 0)).is_none(), "no log is as long");
}
