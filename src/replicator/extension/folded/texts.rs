//! Texts of which nothing else is known, byte by byte, by those before.

use super::coder::Coder;
use super::expected::Others;
use super::mixer::{Mixer, context};
use super::numbers;

const CONTEXTS: usize = 4;
const SLOT_BITS: u32 = 13;
const SETS: usize = 8;

/// Texts behind each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::replicator::extension) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    pub(in crate::replicator::extension) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(in crate::replicator::extension) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(in crate::replicator::extension) fn get(&self, at: usize) -> Option<&[u8]> {
        let from = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(from..*self.ends.get(at)?)
    }

    pub(in crate::replicator::extension) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
    }

    pub(in crate::replicator::extension) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map_while(|at| self.get(at))
    }
}

/// What has been read of all texts of a message.
#[derive(Debug)]
pub(super) struct TextModel {
    mixer: Mixer<CONTEXTS>,
    /// Bytes that may still be read or written: they cost more time than what has a column of its own.
    left: usize,
}

impl TextModel {
    /// For so many bytes.
    pub(super) fn new(bytes_max: usize) -> TextModel {
        TextModel { mixer: Mixer::new(SLOT_BITS, SETS), left: bytes_max }
    }

    /// Writes texts, and says whether they are not too long for it.
    pub(super) fn write<C: Coder>(&mut self, coder: &mut C, texts: &Texts) -> Option<()> {
        self.left = self.left.checked_sub(texts.bytes())?;
        let lengths: Vec<i64> = texts.iter().map(|text| text.len() as i64).collect();
        code_lengths(coder, Some(&lengths), lengths.len());
        let mut before: &[u8] = &[];
        for text in texts.iter() {
            self.code(coder, before, text.len(), |at| text[at]);
            before = text;
        }
        Some(())
    }

    /// Reads so many texts.
    pub(super) fn read<C: Coder>(&mut self, coder: &mut C, count: usize) -> Option<Texts> {
        let lengths = code_lengths(coder, None, count);
        let all = lengths.iter().try_fold(0usize, |all, len| all.checked_add(usize::try_from(*len).ok()?))?;
        self.left = self.left.checked_sub(all)?;
        let mut texts = Texts::default();
        let mut before: Vec<u8> = Vec::new();
        for len in lengths {
            if coder.has_failed() {
                return None;
            }
            let text = self.code(coder, &before, len as usize, |_| 0);
            texts.push(&text);
            before = text;
        }
        Some(texts)
    }

    fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        before: &[u8],
        len: usize,
        is: impl Fn(usize) -> u8,
    ) -> Vec<u8> {
        let mut text: Vec<u8> = Vec::with_capacity(len);
        // Whether it is as the text before up to here.
        let mut is_alike = true;
        for at in 0..len {
            let last = |n: usize| at.checked_sub(n).map_or(0, |at| u32::from(text[at]));
            let above = before.get(at).copied().unwrap_or(0);
            let contexts = [
                context(&[1, last(1)]),
                context(&[2, last(1), last(2)]),
                context(&[3, last(1), last(2), last(3)]),
                context(&[4, above.into(), is_alike.into(), (at as u32).min(40)]),
            ];
            let byte = is(at);
            let mut node = 1u32;
            for bit in (0..8).rev() {
                let read = self.mixer.bit(coder, &contexts, node, bit, byte >> bit & 1 != 0);
                node = node << 1 | u32::from(read);
            }
            let byte = node as u8;
            is_alike &= byte == above;
            text.push(byte);
        }
        text
    }
}

/// Lengths as a column.
fn code_lengths<C: Coder>(coder: &mut C, lengths: Option<&[i64]>, count: usize) -> Vec<i64> {
    let rows: Vec<u32> = (0..count as u32).collect();
    let others = &mut Others::default();
    match lengths {
        Some([one]) => {
            coder.number(*one as u64);
            Vec::new()
        }
        Some(lengths) => {
            numbers::write(coder, lengths, &rows, others);
            Vec::new()
        }
        None if count == 1 => vec![coder.number(0) as i64],
        None => numbers::read(coder, &rows, others),
    }
}

/// Writes or reads one text.
pub(super) fn write_one<C: Coder>(coder: &mut C, model: &mut TextModel, text: &[u8]) -> Option<()> {
    let mut texts = Texts::default();
    texts.push(text);
    model.write(coder, &texts)
}

pub(super) fn read_one<C: Coder>(coder: &mut C, model: &mut TextModel) -> Option<Vec<u8>> {
    model.read(coder, 1)?.get(0).map(<[u8]>::to_vec)
}
