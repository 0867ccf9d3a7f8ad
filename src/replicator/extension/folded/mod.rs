//! Rows of a message as columns behind an entropy coder: what documents have in common stands once, what differs is told by how far it is
//! from what was to be expected.
//!
//! It knows rows, JSON text and nothing of messages: bytes come in, bytes go out, and each comes back as it was. A reader needs what it
//! has read, and one model of chances at a time; what it may read and how long that takes is bounded before.
//! Source: `firmware-notes/replication.md`, extension, byte tables.

mod coder;
mod expected;
mod mixer;
mod numbers;
mod placed;
mod shapes;
mod strings;
mod symbols;
#[cfg(test)]
mod tests;
mod texts;
mod times;
mod values;

use self::coder::{Coder, Reader, Writer};
use self::expected::Others;
use self::strings::State;
use self::texts::TextModel;
pub(in crate::replicator::extension) use self::texts::Texts;

/// Bytes of all IDs, and of all bodies of a message at most.
const IDS_BYTES_MAX: usize = 1 << 20;
pub(super) const BODIES_BYTES_MAX: usize = 1 << 20;

/// Bytes that are told one by one, which costs the most time: in all, and for each row beside a few.
const TEXT_BYTES_MAX: usize = 64 * 1024;
const TEXT_BYTES_EACH: usize = 12;
const TEXT_BYTES_BESIDE: usize = 2_048;

/// Fewer may be text, within what is allowed beside.
const TEXT_ROWS_MIN: usize = 64;

/// Rows to write.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    /// Columns of numbers, one for each row.
    pub(super) numbers: Vec<Vec<i64>>,
    pub(super) ids: Texts,
    /// For those rows that have it.
    pub(super) further: Vec<&'a [u8]>,
    pub(super) bodies: Vec<&'a [u8]>,
}

/// Rows that were read.
#[derive(Debug)]
pub(super) struct ReadRows {
    pub(super) numbers: Vec<Vec<i64>>,
    pub(super) ids: Texts,
    pub(super) further: Texts,
    pub(super) bodies: Texts,
}

/// What a row has, by the number in the first column.
#[derive(Clone, Copy)]
pub(super) struct Has {
    pub(super) further: fn(i64) -> bool,
    pub(super) body: fn(i64) -> bool,
}

impl Has {
    fn rows(of: fn(i64) -> bool, first: &[i64]) -> Vec<u32> {
        first.iter().enumerate().filter(|(_, number)| of(**number)).map(|(row, _)| row as u32).collect()
    }
}

fn state(count: usize, text_bytes: usize) -> State {
    let others = Others { symbols: Vec::new(), surprise: vec![0; count] };
    State { others, model: TextModel::new(text_bytes), ids: Texts::default() }
}

/// Appends rows; `None` if it takes too much time, because most of them is text.
pub(super) fn write(rows: Rows<'_>, has: Has, out: Vec<u8>) -> Option<Vec<u8>> {
    let count = rows.ids.len();
    let text_bytes = (count * TEXT_BYTES_EACH + TEXT_BYTES_BESIDE).min(TEXT_BYTES_MAX);
    let bodies: usize = rows.bodies.iter().map(|body| body.len()).sum();
    let is_too_much = bodies > BODIES_BYTES_MAX || rows.ids.bytes() > IDS_BYTES_MAX;
    if count == 0 || is_too_much || count >= TEXT_ROWS_MIN && shapes::are_texts(&rows.bodies) {
        return None;
    }
    let all: Vec<u32> = (0..count as u32).collect();
    let mut state = state(count, text_bytes);
    let mut coder = Writer::new(out);
    let first = rows.numbers.first()?;
    rows.numbers.iter().for_each(|column| numbers::write(&mut coder, column, &all, &mut state.others));
    let ids: Vec<&[u8]> = rows.ids.iter().collect();
    strings::write(&mut coder, &ids, &all, &mut state)?;
    state.ids = rows.ids;
    if !rows.further.is_empty() {
        let mut further = Texts::default();
        rows.further.iter().for_each(|text| further.push(text));
        state.model.write(&mut coder, &further)?;
    }
    if !rows.bodies.is_empty() {
        shapes::write(&mut coder, &rows.bodies, &Has::rows(has.body, first), &mut state)?;
    }
    Some(coder.finish())
}

/// Reads so many rows with so many columns of numbers; `None` if they are damaged or more than may be.
pub(super) fn read(bytes: &[u8], count: usize, columns: usize, has: Has) -> Option<ReadRows> {
    if count == 0 {
        return None;
    }
    let all: Vec<u32> = (0..count as u32).collect();
    let mut state = state(count, TEXT_BYTES_MAX);
    let mut coder = Reader::new(bytes);
    let numbers: Vec<Vec<i64>> =
        (0..columns).map(|_| numbers::read(&mut coder, &all, &mut state.others)).collect();
    let first = numbers.first()?;
    let strings = strings::read(&mut coder, &all, &mut state)?;
    let mut ids = Texts::default();
    let mut id = Vec::new();
    for at in 0..count {
        id.clear();
        strings.push(at, &Texts::default(), &mut id)?;
        ids.push(&id);
        if ids.bytes() > IDS_BYTES_MAX || coder.has_failed() {
            return None;
        }
    }
    state.ids = ids;
    let further = match first.iter().filter(|number| (has.further)(**number)).count() {
        0 => Texts::default(),
        count => state.model.read(&mut coder, count)?,
    };
    let rows = Has::rows(has.body, first);
    let bodies = match rows.len() {
        0 => Texts::default(),
        _ => shapes::read(&mut coder, &rows, BODIES_BYTES_MAX, &mut state)?,
    };
    coder.is_at_end().then_some(ReadRows { numbers, ids: state.ids, further, bodies })
}
