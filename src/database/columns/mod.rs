//! Records side by side: what they are made of stands in columns, so that one of them is read without the others.
//!
//! It knows what a record is made of and nothing of where it is stored: bytes come in, bytes go out, and each body comes back as it was.
//! Columns are lines and what is off them, stretches, small tables ([`numbers`], [`texts`], [`values`]), nothing that has to be
//! unfolded from the beginning. Every byte may be damaged: `None` says so, and nothing takes more room than its reader allows.
//!
//! | what | how |
//! |---|---|
//! | records | count |
//! | what there is | 1 byte: 1 ancestors, 2 further versions |
//! | sequence, flags, time / 65536, time % 65536, source number | a column of numbers each |
//! | ID | a column of texts |
//! | ancestor | if there is one in any: columns of how far its time is behind, and of its source number |
//! | further versions | if there are any: a column of any bytes |
//! | shapes | count; if there are several, a column of which shape a record's body has |
//! | bodies | of each shape ([`bodies`]) |

mod bodies;
mod bytes;
mod numbers;
mod texts;
mod times;
mod values;

use self::bodies::Bodies;
use self::bytes::Any;
use self::numbers::Numbers;
use self::texts::Texts;
use super::packed::{Reader, put_varint};

/// Records of a block at least, and at most.
pub(crate) const COUNT_MIN: usize = 4;
pub(crate) const COUNT_MAX: usize = 512;

/// Bytes that columns take at most.
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// Bytes of an ID at most; those that documents may have are shorter.
const ID_BYTES_MAX: usize = 255;

/// Shapes at most.
const SHAPES_MAX: usize = 8;

const ANCESTORS: u8 = 1;
const FURTHER: u8 = 2;

/// Times have a counter in their lower half.
const COUNTER_BITS: u32 = 16;
const COUNTER: u64 = (1 << COUNTER_BITS) - 1;

/// A record without its body. Whose versions they are is said by a number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) flags: u8,
    pub(crate) time: u64,
    pub(crate) source: u32,
    /// Time and source; it stands for nothing where the flags say that there is none.
    pub(crate) ancestor: Option<(u64, u32)>,
}

/// A record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'r> {
    pub(crate) head: Head,
    pub(crate) id: &'r str,
    /// Further versions, as whoever writes them likes.
    pub(crate) further: &'r [u8],
    /// Packed.
    pub(crate) body: &'r [u8],
}

/// The columns of records; `None` if they are few or many, if a source has no number or a body is not packed as bodies are.
pub(crate) fn write(rows: &[Row<'_>]) -> Option<Vec<u8>> {
    let has_numbers =
        |row: &Row<'_>| row.head.source != 0 && row.head.ancestor.is_none_or(|(_, source)| source != 0);
    let fits = |row: &Row<'_>| has_numbers(row) && row.id.len() <= ID_BYTES_MAX;
    if !(COUNT_MIN..=COUNT_MAX).contains(&rows.len()) || !rows.iter().all(fits) {
        return None;
    }
    let mut shapes = Shapes::default();
    rows.iter().try_for_each(|row| shapes.add(row.body))?;
    let has_ancestors = rows.iter().any(|row| row.head.ancestor.is_some());
    let has_further = rows.iter().any(|row| !row.further.is_empty());
    let mut out = Vec::with_capacity(1_024);
    put_varint(&mut out, rows.len() as u64);
    out.push(if has_ancestors { ANCESTORS } else { 0 } | if has_further { FURTHER } else { 0 });
    let mut column = Vec::with_capacity(rows.len());
    let mut numbers = |of: fn(&Head) -> u64, out: &mut Vec<u8>| {
        column.clear();
        column.extend(rows.iter().map(|row| of(&row.head)));
        numbers::write(&column, out);
    };
    numbers(|head| head.sequence, &mut out);
    numbers(|head| head.flags.into(), &mut out);
    numbers(|head| head.time >> COUNTER_BITS, &mut out);
    numbers(|head| head.time & COUNTER, &mut out);
    numbers(|head| head.source.into(), &mut out);
    let ids: Vec<&[u8]> = rows.iter().map(|row| row.id.as_bytes()).collect();
    texts::write(&ids, &mut out);
    if has_ancestors {
        let ancestor = |head: &Head| head.ancestor.unwrap_or((head.time, head.source));
        let [mut behind, mut sources] = [const { Vec::new() }; 2];
        for row in rows {
            let (time, source) = ancestor(&row.head);
            behind.push(row.head.time.wrapping_sub(time));
            sources.push(u64::from(source));
        }
        numbers::write(&behind, &mut out);
        numbers::write(&sources, &mut out);
    }
    if has_further {
        bytes::write_any(rows.iter().map(|row| row.further), &mut out);
    }
    shapes.write(&mut out)?;
    (out.len() <= BYTES_MAX).then_some(out)
}

/// Bodies by their shape.
#[derive(Default)]
struct Shapes<'r> {
    shapes: Vec<(Vec<u8>, Vec<&'r [u8]>)>,
    of: Vec<u64>,
    keys: Vec<u8>,
}

impl<'r> Shapes<'r> {
    fn add(&mut self, body: &'r [u8]) -> Option<()> {
        bodies::keys_of(body, &mut self.keys)?;
        let shape = self.shapes.iter().position(|(keys, _)| *keys == self.keys);
        let shape = shape.unwrap_or_else(|| {
            self.shapes.push((self.keys.clone(), Vec::new()));
            self.shapes.len() - 1
        });
        self.shapes[shape].1.push(body);
        self.of.push(shape as u64);
        (self.shapes.len() <= SHAPES_MAX).then_some(())
    }

    fn write(self, out: &mut Vec<u8>) -> Option<()> {
        put_varint(out, self.shapes.len() as u64);
        if self.shapes.len() > 1 {
            numbers::write(&self.of, out);
        }
        self.shapes.iter().try_for_each(|(_, bodies)| bodies::write(bodies, out))
    }
}

/// Columns that are read.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    count: usize,
    sequences: Numbers<'a>,
    flags: Numbers<'a>,
    times: Numbers<'a>,
    counters: Numbers<'a>,
    sources: Numbers<'a>,
    ids: Texts<'a>,
    ancestors: Option<(Numbers<'a>, Numbers<'a>)>,
    further: Option<Any<'a>>,
    shape_of: Numbers<'a>,
    shapes: Vec<Bodies<'a>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Columns<'a>> {
        let reader = &mut Reader::new(bytes);
        let count = reader.length().filter(|count| (COUNT_MIN..=COUNT_MAX).contains(count))?;
        let there = reader.byte().filter(|there| *there <= ANCESTORS | FURTHER)?;
        if bytes.len() > BYTES_MAX {
            return None;
        }
        let sequences = Numbers::read(reader, count)?;
        let flags = Numbers::read(reader, count)?;
        let times = Numbers::read(reader, count)?;
        let counters = Numbers::read(reader, count)?;
        let sources = Numbers::read(reader, count)?;
        let ids = Texts::read(reader, count)?;
        let ancestors = match there & ANCESTORS {
            0 => None,
            _ => Some((Numbers::read(reader, count)?, Numbers::read(reader, count)?)),
        };
        let further = if there & FURTHER == 0 { None } else { Some(Any::read(reader, count)?) };
        let shapes_len = reader.length().filter(|len| (1..=SHAPES_MAX).contains(len))?;
        let mut counts = [0; SHAPES_MAX];
        let shape_of = if shapes_len == 1 { Numbers::Same(0) } else { Numbers::read(reader, count)? };
        match shape_of {
            Numbers::Same(_) => counts[0] = count,
            _ => {
                for at in 0..count {
                    *counts.get_mut(shape_of.index(at)?)? += 1;
                }
            }
        }
        let shapes = counts[..shapes_len].iter().map(|count| Bodies::read(reader, *count));
        let shapes = shapes.collect::<Option<Vec<_>>>()?;
        let columns = Columns {
            count,
            sequences,
            flags,
            times,
            counters,
            sources,
            ids,
            ancestors,
            further,
            shape_of,
            shapes,
        };
        (reader.remaining() == 0).then_some(columns)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn sequence(&self, at: usize) -> Option<u64> {
        self.sequences.get(at)
    }

    /// Where the record of a sequence stands, if there is one; sequences grow.
    pub(crate) fn find(&self, sequence: u64) -> Option<usize> {
        let (mut from, mut to) = (0, self.count);
        // Most follow each other without a gap.
        let first = self.sequence(0)?;
        let guess = usize::try_from(sequence.checked_sub(first)?).unwrap_or(to).min(to);
        if guess < to && self.sequence(guess)? == sequence {
            return Some(guess);
        }
        while from < to {
            let middle = (from + to) / 2;
            match self.sequence(middle)?.cmp(&sequence) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        None
    }

    pub(crate) fn head(&self, at: usize) -> Option<Head> {
        let time = (self.times.get(at)? << COUNTER_BITS) | (self.counters.get(at)? & COUNTER);
        let ancestor = match &self.ancestors {
            None => None,
            Some((behind, sources)) => Some((time.wrapping_sub(behind.get(at)?), number(sources, at)?)),
        };
        let flags = u8::try_from(self.flags.get(at)?).ok()?;
        Some(Head { sequence: self.sequence(at)?, flags, time, source: number(&self.sources, at)?, ancestor })
    }

    /// Writes the ID of a record.
    pub(crate) fn id<'b>(&self, at: usize, out: &'b mut Vec<u8>) -> Option<&'b str> {
        out.clear();
        self.ids.push(at, out)?;
        std::str::from_utf8(out).ok().filter(|id| id.len() <= ID_BYTES_MAX)
    }

    /// The further versions of a record.
    pub(crate) fn further(&self, at: usize) -> Option<&'a [u8]> {
        self.further.as_ref().map_or(Some(&[]), |further| further.get(at))
    }

    /// The body of a record, which has at most so many bytes.
    pub(crate) fn body(&self, at: usize, bytes_max: usize) -> Option<Vec<u8>> {
        let shape = self.shape_of.index(at)?;
        let mut place = at;
        if self.shapes.len() > 1 {
            place = 0;
            for before in 0..at {
                place += usize::from(self.shape_of.index(before)? == shape);
            }
        }
        let mut body = Vec::with_capacity(96);
        self.shapes.get(shape)?.push(place, bytes_max, &mut body)?;
        Some(body)
    }
}

fn number(numbers: &Numbers<'_>, at: usize) -> Option<u32> {
    numbers.get(at)?.try_into().ok()
}

#[cfg(test)]
mod tests;
