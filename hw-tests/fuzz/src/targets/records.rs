//! What the database stores, when stable storage has changed it: bodies, blocks, index pages, keys. And bodies of a peer on
//! their way in.

use gattway::lab::fuzzing::store::{
    Unpacked, pack_and_unpack, read_and_write_block, read_keys, read_page, unpack,
};
use serde_json::{Map, Value};

use super::super::choices::Choices;
use super::super::memory;

/// A field or text that stands for itself by number takes two bytes and unfolds to this many at most; a value in a tree
/// takes as much.
const PER_BYTE: usize = 120;
/// Inflating and deflating take tables.
const OVERHEAD: usize = 512 * 1024;
/// Deflate's largest ratio.
const INFLATE_RATIO: usize = 1_032;

fn body(packed: &[u8]) {
    let (Unpacked { map, json, json_len }, held) = memory::peak(|| unpack(packed));
    assert!(held <= PER_BYTE * packed.len() + OVERHEAD, "{held} bytes held for {}", packed.len());
    assert_eq!(json.as_ref().map(|json| json.len() as u64), json_len, "the length is that of the text");
    let Some(json) = json else {
        return;
    };
    assert!(json.len() <= PER_BYTE * packed.len());
    // Damage may repeat a key, which a map cannot show.
    let read: Map<String, Value> = serde_json::from_slice(&json).expect("JSON text");
    assert_eq!(map, Some(read), "both forms say the same");
}

fn block(value: &[u8]) {
    let (read, held) = memory::peak(|| read_and_write_block(value));
    assert!(held <= 8 * INFLATE_RATIO * value.len() + OVERHEAD, "{held} bytes held for {}", value.len());
    let Some((records, bytes, again)) = read else { return };
    let (records_again, bytes_again, third) = read_and_write_block(&again).expect("what is written is read");
    assert_eq!((records_again, bytes_again), (records, bytes));
    assert_eq!(third, again, "written the same");
}

fn page(value: &[u8]) {
    let (read, held) = memory::peak(|| read_page(value));
    // Each entry may repeat the ID before it for three bytes.
    assert!(held <= value.len() * value.len() + OVERHEAD, "{held} bytes held for {}", value.len());
    assert!(read.is_none_or(|(entries, _)| entries <= value.len() / 3));
}

fn incoming(text: &[u8]) {
    let (packed, held) = memory::peak(|| pack_and_unpack(text));
    assert!(held <= PER_BYTE * text.len() + OVERHEAD, "{held} bytes held for {}", text.len());
    let Ok((_, json)) = packed else { return };
    let json = json.expect("what is packed is unpacked");
    let sent: Map<String, Value> = serde_json::from_slice(text).expect("what is packed is JSON");
    let kept: Map<String, Value> = serde_json::from_slice(&json).expect("JSON text");
    assert_eq!(kept, sent, "what came is what is kept");
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.below(5) {
        0 => body(choices.rest()),
        1 => block(choices.rest()),
        2 => page(choices.rest()),
        3 => drop(read_keys(choices.rest())),
        _ => incoming(choices.rest()),
    }
}
