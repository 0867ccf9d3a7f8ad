//! Columns of the values that documents of one shape have in one place.
//!
//! | what | how |
//! |---|---|
//! | classes | 6 bits, which there are; if several, a column of which is in each row |
//! | numbers | decimal places at most and at least, 5 bits each, and a column: what is below the least places is left out where it is zero |
//! | texts | a column of strings |
//! | others | texts as they stand |

use super::coder::Coder;
use super::numbers;
use super::strings::{self, State, Strings};
use super::symbols;
use super::texts::Texts;

/// What a value may be.
const NUMBER: u8 = 0;
const TEXT: u8 = 1;
const NULL: u8 = 2;
const TRUE: u8 = 3;
const FALSE: u8 = 4;
const OTHER: u8 = 5;
const CLASSES: u8 = 6;

/// Digits of a number at most, and places that sensors have; a few of more places are told as they stand.
const DIGITS_MAX: usize = 19;
const USUAL_PLACES_MAX: usize = 6;

/// Numbers of a column.
#[derive(Debug)]
struct Decimals {
    places: usize,
    least: usize,
    numbers: Vec<i64>,
}

/// A column that was read; values are taken from it one after the other.
#[derive(Debug)]
pub(super) struct Values {
    /// Of each row, unless all are of one.
    classes: Vec<u32>,
    kinds: Vec<u8>,
    next: [usize; CLASSES as usize],
    row: usize,
    decimals: Decimals,
    strings: Option<Strings>,
    others: Texts,
}

/// Writes a column, unless it takes too much time.
pub(super) fn write<C: Coder>(
    coder: &mut C,
    values: &[&[u8]],
    rows: &[u32],
    state: &mut State,
) -> Option<()> {
    let form = decimal_form(values);
    let (mut numbers, mut again) = (Vec::with_capacity(values.len()), Vec::with_capacity(64));
    let classes: Vec<u8> = values.iter().map(|value| class(value, form, &mut numbers, &mut again)).collect();
    let kinds: Vec<u8> = (0..CLASSES).filter(|class| classes.contains(class)).collect();
    coder.plain(kinds.iter().fold(0, |mask, class| mask | 1 << class), CLASSES.into());
    if kinds.len() > 1 {
        let which: Vec<u32> = classes
            .iter()
            .map(|class| kinds.iter().position(|kind| kind == class).unwrap_or(0) as u32)
            .collect();
        symbols::write(coder, &which, kinds.len(), rows, &state.others);
    }
    let rows_of = |of: u8| -> Vec<u32> {
        classes.iter().zip(rows).filter(|(class, _)| **class == of).map(|(_, row)| *row).collect()
    };
    let values_of =
        |of: u8| classes.iter().zip(values).filter(move |(class, _)| **class == of).map(|(_, value)| *value);
    if !numbers.is_empty() {
        let (places, least) = form;
        coder.plain(places as u64, 5);
        coder.plain(least as u64, 5);
        numbers::write(coder, &numbers, &rows_of(NUMBER), &mut state.others);
    }
    let texts: Vec<&[u8]> = values_of(TEXT).map(|value| &value[1..value.len() - 1]).collect();
    if !texts.is_empty() {
        strings::write(coder, &texts, &rows_of(TEXT), state)?;
    }
    if kinds.contains(&OTHER) {
        let mut others = Texts::default();
        values_of(OTHER).for_each(|value| others.push(value));
        state.model.write(coder, &others)?;
    }
    Some(())
}

impl Values {
    /// Reads a column.
    pub(super) fn read<C: Coder>(coder: &mut C, rows: &[u32], state: &mut State) -> Option<Values> {
        let mask = coder.plain(0, CLASSES.into());
        let kinds: Vec<u8> = (0..CLASSES).filter(|class| mask >> class & 1 != 0).collect();
        let classes = match kinds.len() {
            0 => return None,
            1 => Vec::new(),
            len => symbols::read(coder, len, rows, &state.others),
        };
        let rows_of = |of: u8| -> Vec<u32> {
            match kinds.iter().position(|kind| *kind == of) {
                None => Vec::new(),
                Some(_) if classes.is_empty() => rows.to_vec(),
                Some(kind) => classes
                    .iter()
                    .zip(rows)
                    .filter(|(class, _)| **class as usize == kind)
                    .map(|(_, row)| *row)
                    .collect(),
            }
        };
        let mut decimals = Decimals { places: 0, least: 0, numbers: Vec::new() };
        let of_numbers = rows_of(NUMBER);
        if !of_numbers.is_empty() {
            decimals.places = Some(coder.plain(0, 5) as usize).filter(|places| *places <= DIGITS_MAX)?;
            decimals.least = coder.plain(0, 5) as usize;
            decimals.numbers = numbers::read(coder, &of_numbers, &mut state.others);
        }
        let of_texts = rows_of(TEXT);
        let strings = if of_texts.is_empty() { None } else { Some(strings::read(coder, &of_texts, state)?) };
        let of_others = rows_of(OTHER);
        let others = match of_others.len() {
            0 => Texts::default(),
            count => state.model.read(coder, count)?,
        };
        Some(Values { classes, kinds, next: [0; CLASSES as usize], row: 0, decimals, strings, others })
    }

    /// Appends the next value; `None` where the column is damaged.
    pub(super) fn push_next(&mut self, ids: &Texts, out: &mut Vec<u8>) -> Option<()> {
        let kind = if self.classes.is_empty() { 0 } else { *self.classes.get(self.row)? as usize };
        self.row += 1;
        let class = *self.kinds.get(kind)?;
        let at = self.next[usize::from(class)];
        self.next[usize::from(class)] += 1;
        match class {
            NUMBER => {
                let Decimals { places, least, numbers } = &self.decimals;
                push_decimal(*numbers.get(at)?, *places, *least, out);
            }
            TEXT => {
                out.push(b'"');
                self.strings.as_ref()?.push(at, ids, out)?;
                out.push(b'"');
            }
            NULL => out.extend_from_slice(b"null"),
            TRUE => out.extend_from_slice(b"true"),
            FALSE => out.extend_from_slice(b"false"),
            _ => out.extend_from_slice(self.others.get(at)?),
        }
        Some(())
    }
}

fn class(value: &[u8], form: (usize, usize), numbers: &mut Vec<i64>, again: &mut Vec<u8>) -> u8 {
    match value {
        b"null" => NULL,
        b"true" => TRUE,
        b"false" => FALSE,
        [b'"', .., b'"'] => TEXT,
        _ => match number(value, form, again) {
            Some(number) => {
                numbers.push(number);
                NUMBER
            }
            None => OTHER,
        },
    }
}

/// Digits behind the point, if it may be a decimal.
fn places_of(value: &[u8]) -> Option<usize> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    let whole = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let places = digits.len().saturating_sub(whole + 1);
    let is_decimal = digits.get(whole).is_none_or(|byte| *byte == b'.')
        && digits[(whole + 1).min(digits.len())..].iter().all(u8::is_ascii_digit);
    (is_decimal && whole + places <= DIGITS_MAX).then_some(places)
}

/// The most and the fewest places of a column.
fn decimal_form(values: &[&[u8]]) -> (usize, usize) {
    let mut seen = [0usize; DIGITS_MAX + 1];
    values.iter().filter_map(|value| places_of(value)).for_each(|places| seen[places] += 1);
    let all: usize = seen.iter().sum();
    let unusual: usize = seen[USUAL_PLACES_MAX + 1..].iter().sum();
    let most = |seen: &[usize]| seen.iter().rposition(|count| *count > 0).unwrap_or(0);
    let places = if unusual * 4 <= all { most(&seen[..=USUAL_PLACES_MAX]) } else { most(&seen) };
    // With places that only the smallest have, the largest would be too long.
    let whole = values.iter().filter_map(|value| Some(value.len() - places_of(value)?)).max().unwrap_or(0);
    let places =
        if places > USUAL_PLACES_MAX { places.min((DIGITS_MAX + 1).saturating_sub(whole)) } else { places };
    (places, seen.iter().position(|count| *count > 0).unwrap_or(0).min(places))
}

/// A value as so many parts of one, if it is written as that would be.
fn number(value: &[u8], (places, least): (usize, usize), again: &mut Vec<u8>) -> Option<i64> {
    let missing = places.checked_sub(places_of(value)?)?;
    let is_negative = value[0] == b'-';
    let digits = value.iter().filter(|byte| byte.is_ascii_digit());
    let add = |n: i64, digit: &u8| n.checked_mul(10)?.checked_add(i64::from(digit - b'0'));
    let size = digits.copied().try_fold(0, |n, digit| add(n, &digit))?;
    let size = size.checked_mul(10_i64.pow(missing as u32))?;
    let number = if is_negative { -size } else { size };
    again.clear();
    push_decimal(number, places, least, again);
    (again == value).then_some(number)
}

/// Appends so many parts of one. Zeros at the end are left out, but for the least places.
fn push_decimal(number: i64, mut places: usize, least: usize, out: &mut Vec<u8>) {
    let mut size = number.unsigned_abs();
    while places > least && size.is_multiple_of(10) {
        size /= 10;
        places -= 1;
    }
    if number < 0 {
        out.push(b'-');
    }
    let from = out.len();
    let mut digits = 0;
    while size > 0 || digits <= places {
        if digits == places && places > 0 {
            out.push(b'.');
        }
        out.push(b'0' + (size % 10) as u8);
        size /= 10;
        digits += 1;
    }
    out[from..].reverse();
}
