//! Folded messages of the extension: those of our encoder, whole and damaged, and columns of a peer that says anything.

use bytes::Bytes;

use gattway::lab::replica::revision::{SourceId, Version, VersionVector};
use gattway::lab::replica::store::Change;
use gattway::lab::replicator::extension::RevsFormat;
use gattway::lab::replicator::extension::codec::{Content, RevsEncoder, decode};

use super::super::choices::Choices;
use super::super::memory;

/// Flag of a message that is folded.
pub const FOLDED: u8 = 4;

/// Bytes that a folded message may take while it is unfolded, whatever it says: documents, IDs, numbers of all columns, the model.
pub const MEMORY_MAX: usize = 24 << 20;

/// Rows of a message that is made here.
const ROWS_MAX: usize = 64;

/// Reads what may be anything.
fn bounded(body: &Bytes) {
    let (decoded, held) = memory::peak(|| decode(body));
    assert!(held <= MEMORY_MAX + 400 * body.len(), "{held} bytes held for {}", body.len());
    drop(decoded);
}

/// A body as devices send it, or any bytes.
pub fn body(choices: &mut Choices<'_>, n: usize) -> Vec<u8> {
    match choices.below(6) {
        0 => choices.blob().to_vec(),
        1 => format!("{{\"t\":{},\"v\":{}.{}}}", n, choices.byte() as i8, choices.below(10)).into_bytes(),
        2 => format!("{{\"s\":\"s{}\",\"n\":[{},null]}}", choices.below(5), choices.u64()).into_bytes(),
        3 => format!("{{\"at\":\"2026-11-{:02}T{:02}:00:00Z\"}}", choices.below(32), n % 25).into_bytes(),
        4 => format!("{{\"x\":\"{}\",\"y\":{}}}", choices.text(), choices.text()).into_bytes(),
        _ => format!("{{\"x\":\"{:016x}\"}}", choices.u64()).into_bytes(),
    }
}

fn made(choices: &mut Choices<'_>) -> (Bytes, Option<Vec<u8>>) {
    let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, choices.bool(), 40);
    let (rows, step) = (1 + choices.below(ROWS_MAX), u64::from(choices.byte()));
    for n in 0..rows {
        let version = |author| Version {
            time: 0x18ea_7b9b_f01b_0000 + n as u64 * (step << 13),
            source: SourceId([author; 16]),
        };
        let mut vector = VersionVector::new(version(1 + choices.below(3) as u8));
        if choices.below(16) == 15 {
            vector.history.push(version(9));
        }
        let id = match step & 1 {
            0 => format!("r-{n:03}"),
            _ => format!("{}.{n}", choices.text().chars().take(20).collect::<String>()),
        };
        let sequence = 41 + n as u64 * (1 + step % 3);
        let change = Change {
            sequence,
            id,
            vector,
            deleted: step == 7,
            body_size: 0,
            remote_ancestor: None,
            body: None,
        };
        let content = match choices.below(12) {
            10 => Content::Offer,
            11 => Content::Gone,
            _ => Content::Body(body(choices, n).into()),
        };
        encoder.push(&change, &content);
    }
    let folded = encoder.fold(9_000, choices.bool());
    (encoder.finish(9_000, folded.as_ref().is_some_and(|folded| folded[0] & 2 != 0)).into(), folded)
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    if choices.below(3) == 0 {
        let count = choices.u16() % 4_097;
        let mut body = vec![FOLDED, 0, 9];
        gattway::lab::blip::varint::put(count.into(), &mut body);
        body.push(1);
        body.extend_from_slice(&[7; 16]);
        body.extend_from_slice(choices.rest());
        return bounded(&body.into());
    }
    let (plain, folded) = made(&mut choices);
    let Some(mut folded) = folded else { return };
    assert_eq!(decode(&Bytes::copy_from_slice(&folded)), decode(&plain), "unfolds to what it stands for");
    for _ in 0..choices.below(4) {
        choices.flip(&mut folded);
    }
    choices.rearrange(&mut folded);
    bounded(&folded.into());
}
