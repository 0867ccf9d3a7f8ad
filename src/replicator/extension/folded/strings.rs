//! Columns of texts: IDs, and what stands between quotes.
//!
//! | kind | what |
//! |---|---|
//! | copy | as the ID of the document |
//! | times | numbers, and how all are written |
//! | pattern | what all have, and columns of the numbers between |
//! | few | the different ones, and which stands where |
//! | placed | all of one length: for each place which letters are there |
//! | plain | byte by byte |

use std::collections::HashMap;

use super::coder::Coder;
use super::expected::{OTHERS_MAX, Others};
use super::numbers;
use super::placed::Place;
use super::symbols;
use super::texts::{TextModel, Texts, read_one, write_one};
use super::times::TimeForm;

/// Numbers in a pattern, and digits of each.
const FIELDS_MAX: usize = 8;
const DIGITS_MAX: usize = 18;

/// Where a number stands in a pattern.
const MARK: u8 = 0;

/// Bytes of texts of one length.
const PLACES_MAX: usize = 64;

/// What columns of a message know of each other.
pub(super) struct State {
    pub(super) others: Others,
    pub(super) model: TextModel,
    pub(super) ids: Texts,
}

/// A column that was read.
#[derive(Debug)]
pub(super) enum Strings {
    Copy(Vec<u32>),
    Times(TimeForm, Vec<i64>),
    Pattern { literals: Vec<u8>, fields: Vec<(usize, Vec<i64>)> },
    Few(Texts, Vec<u32>),
    Plain(Texts),
}

const COPY: u64 = 0;
const TIMES: u64 = 1;
const PATTERN: u64 = 2;
const FEW: u64 = 3;
const PLACED: u64 = 4;
const PLAIN: u64 = 5;
const KIND_BITS: u32 = 3;

/// Writes a column, unless it takes too much time to do it. `texts` may not be empty.
pub(super) fn write<C: Coder>(coder: &mut C, texts: &[&[u8]], rows: &[u32], state: &mut State) -> Option<()> {
    if rows.iter().zip(texts).all(|(row, text)| state.ids.get(*row as usize) == Some(*text)) {
        coder.plain(COPY, KIND_BITS);
        return Some(());
    }
    if let Some((form, numbers)) = times(texts) {
        coder.plain(TIMES, KIND_BITS);
        form.write(coder);
        numbers::write(coder, &numbers, rows, &mut state.others);
        return Some(());
    }
    let few = few(texts);
    let is_few = few.as_ref().is_some_and(|(different, _)| different.len() * 4 <= texts.len() + 3);
    if !is_few && let Some((literals, fields)) = pattern(texts) {
        coder.plain(PATTERN, KIND_BITS);
        write_one(coder, &mut state.model, &literals)?;
        for (width, numbers) in &fields {
            coder.plain(*width as u64, 5);
            numbers::write(coder, numbers, rows, &mut state.others);
            note_groups(numbers, rows, &mut state.others);
        }
        return Some(());
    }
    if let Some((different, which)) = few {
        coder.plain(FEW, KIND_BITS);
        coder.number(different.len() as u64);
        write_plain(coder, &different, &mut state.model)?;
        symbols::write(coder, &which, different.len(), rows, &state.others);
        note_symbols(&which, different.len(), rows, &mut state.others);
        return Some(());
    }
    let mut all = Texts::default();
    texts.iter().for_each(|text| all.push(text));
    write_plain(coder, &all, &mut state.model)
}

/// Reads a column.
pub(super) fn read<C: Coder>(coder: &mut C, rows: &[u32], state: &mut State) -> Option<Strings> {
    Some(match coder.plain(0, KIND_BITS) {
        COPY => Strings::Copy(rows.to_vec()),
        TIMES => {
            let form = TimeForm::read(coder)?;
            Strings::Times(form, numbers::read(coder, rows, &mut state.others))
        }
        PATTERN => {
            let literals = read_one(coder, &mut state.model)?;
            let count = literals.iter().filter(|byte| **byte == MARK).count();
            let mut fields = Vec::new();
            for _ in 0..Some(count).filter(|count| *count <= FIELDS_MAX)? {
                let width = coder.plain(0, 5) as usize;
                let numbers = numbers::read(coder, rows, &mut state.others);
                note_groups(&numbers, rows, &mut state.others);
                fields.push((width, numbers));
            }
            Strings::Pattern { literals, fields }
        }
        FEW => {
            let count =
                usize::try_from(coder.number(0)).ok().filter(|count| (1..=rows.len()).contains(count))?;
            let different = read_plain(coder, count, &mut state.model)?;
            let which = symbols::read(coder, count, rows, &state.others);
            note_symbols(&which, count, rows, &mut state.others);
            Strings::Few(different, which)
        }
        kind @ (PLACED | PLAIN) => Strings::Plain(read_kind(coder, kind, rows.len(), &mut state.model)?),
        _ => return None,
    })
}

impl Strings {
    /// Appends text `at`; `None` where the column is damaged.
    pub(super) fn push(&self, at: usize, ids: &Texts, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Strings::Copy(rows) => out.extend_from_slice(ids.get(*rows.get(at)? as usize)?),
            Strings::Times(form, numbers) => form.push(*numbers.get(at)?, out)?,
            Strings::Pattern { literals, fields } => {
                let mut fields = fields.iter();
                for byte in literals {
                    match *byte {
                        MARK => {
                            let (width, numbers) = fields.next()?;
                            push_number(u64::try_from(*numbers.get(at)?).ok()?, *width, out);
                        }
                        byte => out.push(byte),
                    }
                }
            }
            Strings::Few(texts, which) => out.extend_from_slice(texts.get(*which.get(at)? as usize)?),
            Strings::Plain(texts) => out.extend_from_slice(texts.get(at)?),
        }
        Some(())
    }
}

/// Appends a number, with zeros before it up to a width.
fn push_number(mut number: u64, width: usize, out: &mut Vec<u8>) {
    let from = out.len();
    while number > 0 || out.len() - from < width.max(1) {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
    }
    out[from..].reverse();
}

/// Others can be compared with rows of the same text.
fn note_symbols(which: &[u32], kinds: usize, rows: &[u32], others: &mut Others) {
    if others.symbols.len() < OTHERS_MAX && kinds > 1 && kinds * 2 <= which.len() {
        let mut symbols = vec![u32::MAX; others.surprise.len()];
        for (symbol, row) in which.iter().zip(rows) {
            if let Some(of_row) = symbols.get_mut(*row as usize) {
                *of_row = *symbol;
            }
        }
        others.symbols.push(symbols);
    }
}

/// A number in an ID may say of which of many things the row is.
fn note_groups(numbers: &[i64], rows: &[u32], others: &mut Others) {
    let most = numbers.len() as i64 / 2;
    if numbers.iter().all(|number| (0..most).contains(number)) {
        let kinds = numbers.iter().max().map_or(0, |most| *most as usize + 1);
        let symbols: Vec<u32> = numbers.iter().map(|number| *number as u32).collect();
        note_symbols(&symbols, kinds, rows, others);
    }
}

fn times(texts: &[&[u8]]) -> Option<(TimeForm, Vec<i64>)> {
    let form = TimeForm::of(texts.first()?)?;
    let mut again = Vec::with_capacity(64);
    let numbers = texts.iter().map(|text| form.number(text, &mut again)).collect::<Option<_>>()?;
    Some((form, numbers))
}

/// The different ones and which stands where, unless there are too many.
fn few(texts: &[&[u8]]) -> Option<(Texts, Vec<u32>)> {
    let mut different = Texts::default();
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    let mut which = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        let next = different.len() as u32;
        let symbol = *known.entry(text).or_insert(next);
        if symbol == next {
            different.push(text);
            // Hardly any comes again.
            if different.len() > 64 && different.len() * 5 > at * 4 {
                return None;
            }
        }
        which.push(symbol);
    }
    (different.len() == 1 || different.len() * 3 <= texts.len() * 2).then_some((different, which))
}

/// Numbers and what stands between them.
type Pattern = (Vec<u8>, Vec<(usize, Vec<i64>)>);

/// Splits a text into what is no digit, with marks, and its numbers.
fn split<'t>(text: &'t [u8], literals: &mut Vec<u8>, fields: &mut Vec<&'t [u8]>) -> Option<()> {
    literals.clear();
    fields.clear();
    let mut at = 0;
    while at < text.len() {
        let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            if text[at] == MARK {
                return None;
            }
            literals.push(text[at]);
            at += 1;
            continue;
        }
        if digits > DIGITS_MAX || fields.len() == FIELDS_MAX {
            return None;
        }
        literals.push(MARK);
        fields.push(&text[at..at + digits]);
        at += digits;
    }
    Some(())
}

fn pattern(texts: &[&[u8]]) -> Option<Pattern> {
    let (mut literals, mut fields, mut its) = (Vec::new(), Vec::new(), Vec::new());
    split(texts.first()?, &mut literals, &mut fields)?;
    let mut columns: Vec<Vec<&[u8]>> = fields.iter().map(|_| Vec::with_capacity(texts.len())).collect();
    for text in texts {
        split(text, &mut its, &mut fields)?;
        if its != literals {
            return None;
        }
        columns.iter_mut().zip(&fields).for_each(|(column, field)| column.push(field));
    }
    if columns.is_empty() {
        return None;
    }
    let mut fields = Vec::with_capacity(columns.len());
    for column in columns {
        let len = column[0].len();
        let is_padded = column.iter().any(|field| field.len() > 1 && field[0] == b'0');
        let width = if is_padded { len } else { 0 };
        if is_padded && column.iter().any(|field| field.len() != len) {
            return None;
        }
        let number = |field: &&[u8]| field.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
        fields.push((width, column.iter().map(number).collect()));
    }
    Some((literals, fields))
}

/// Writes texts that have no kind of their own: by their places, if all have one length and are many.
fn write_plain<C: Coder>(coder: &mut C, texts: &Texts, model: &mut TextModel) -> Option<()> {
    let len = texts.get(0)?.len();
    let is_placed =
        texts.len() >= 16 && (1..=PLACES_MAX).contains(&len) && texts.iter().all(|t| t.len() == len);
    coder.plain(if is_placed { PLACED } else { PLAIN }, KIND_BITS);
    if !is_placed {
        return model.write(coder, texts);
    }
    coder.plain(len as u64, 7);
    let mut before: &[u8] = &[];
    let mut places = Vec::with_capacity(len);
    for at in 0..len {
        let mut frequent = [0; 256];
        texts.iter().for_each(|text| frequent[usize::from(text[at])] += 1);
        places.push(Place::write(coder, &frequent));
    }
    for text in texts.iter() {
        let mut is_alike = true;
        for (at, place) in places.iter_mut().enumerate() {
            let above = before.get(at).copied();
            let byte = place.code(coder, text[at], above.filter(|_| is_alike));
            is_alike &= above == Some(byte);
        }
        before = text;
    }
    Some(())
}

fn read_plain<C: Coder>(coder: &mut C, count: usize, model: &mut TextModel) -> Option<Texts> {
    let kind = coder.plain(0, KIND_BITS);
    read_kind(coder, kind, count, model)
}

fn read_kind<C: Coder>(coder: &mut C, kind: u64, count: usize, model: &mut TextModel) -> Option<Texts> {
    match kind {
        PLAIN => return model.read(coder, count),
        PLACED => {}
        _ => return None,
    }
    let len = Some(coder.plain(0, 7) as usize).filter(|len| (1..=PLACES_MAX).contains(len))?;
    let mut places = (0..len).map(|_| Place::read(coder)).collect::<Option<Vec<_>>>()?;
    let mut texts = Texts::default();
    let (mut before, mut text) = (Vec::new(), Vec::with_capacity(len));
    for _ in 0..count {
        if coder.has_failed() {
            return None;
        }
        text.clear();
        let mut is_alike = true;
        for (at, place) in places.iter_mut().enumerate() {
            let above: Option<u8> = before.get(at).copied();
            let byte = place.code(coder, 0, above.filter(|_| is_alike));
            is_alike &= above == Some(byte);
            text.push(byte);
        }
        texts.push(&text);
        std::mem::swap(&mut before, &mut text);
    }
    Some(texts)
}
