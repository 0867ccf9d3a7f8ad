//! A column of packed values that differ.
//!
//! | first byte | then |
//! |---|---|
//! | 0 numbers | their tag, a column of numbers |
//! | 1 decimals | places, the tag of those without a fraction, a column of numbers: each x 10^places |
//! | 2 texts | a column of texts |
//! | 3 marks | a column of tags that nothing follows: null, false, true, the document's ID |
//! | 4 doubles | a column of numbers: their bits |
//! | 5 any | a column of any bytes: the values |
//! | 6 few | how many, these values as under 5; a column of their numbers |
//! | 7 floats | places, two columns of numbers: each x 10^places, and how many doubles it is behind what that is a double of |
//! | 8 some are null | a column of numbers, 0 where there is no value; a column of values, in which those stand for nothing |

use super::super::packed::{Reader, put_float, put_varint, put_zigzag, read_float, tag};
use super::bytes::{Any, Few, write_any, write_few};
use super::numbers::{self, Numbers};
use super::texts::{self, Texts};

const NUMBERS: u8 = 0;
const DECIMALS: u8 = 1;
const TEXTS: u8 = 2;
const MARKS: u8 = 3;
const DOUBLES: u8 = 4;
const ANY: u8 = 5;
const FEW: u8 = 6;
const FLOATS: u8 = 7;
const NULLABLE: u8 = 8;

/// Places of decimals at most.
const PLACES_MAX: u8 = 9;

/// Places of what sensors say: of more it is a calculation that says it.
const USUAL_PLACES_MAX: u8 = 6;

/// Decimals of fewer digits are doubles that no shorter decimal is.
const SHORT_DECIMAL_MAX: u64 = 1 << 49;

/// A number times how many doubles another is from it: below that the other is less than half of 10^-9 away.
const NEAR_MAX: f64 = 1e6;

/// Of so many different values it is worth asking whether they are few.
const FEW_MAX: usize = 16;

/// A column that is read.
#[derive(Debug)]
pub(super) enum Values<'a> {
    Numbers(u8, Numbers<'a>),
    Decimals { places: u8, whole: u8, numbers: Numbers<'a> },
    Floats { places: u8, numbers: Numbers<'a>, behind: Numbers<'a> },
    Texts(Texts<'a>),
    Marks(Numbers<'a>),
    Doubles(Numbers<'a>),
    Any(Any<'a>),
    Few(Few<'a>),
    Nullable(Numbers<'a>, Box<Values<'a>>),
}

impl<'a> Values<'a> {
    /// Reads a column of `count` values.
    pub(super) fn read(reader: &mut Reader<'a>, count: usize) -> Option<Values<'a>> {
        let kind = reader.byte()?;
        if kind == NULLABLE {
            let there = Numbers::read(reader, count)?;
            return Some(Values::Nullable(
                there,
                Box::new(Values::read_some(reader.byte()?, reader, count)?),
            ));
        }
        Values::read_some(kind, reader, count)
    }

    fn read_some(kind: u8, reader: &mut Reader<'a>, count: usize) -> Option<Values<'a>> {
        Some(match kind {
            NUMBERS => {
                let tag = reader.byte().filter(|tag| (tag::INTEGER..=tag::THOUSANDTHS).contains(tag))?;
                Values::Numbers(tag, Numbers::read(reader, count)?)
            }
            DECIMALS => {
                let places = reader.byte().filter(|places| (1..=PLACES_MAX).contains(places))?;
                let whole = reader.byte().filter(|tag| matches!(*tag, tag::INTEGER | tag::WHOLE))?;
                Values::Decimals { places, whole, numbers: Numbers::read(reader, count)? }
            }
            FLOATS => {
                let places = reader.byte().filter(|places| *places <= PLACES_MAX)?;
                let numbers = Numbers::read(reader, count)?;
                Values::Floats { places, numbers, behind: Numbers::read(reader, count)? }
            }
            TEXTS => Values::Texts(Texts::read(reader, count)?),
            MARKS => Values::Marks(Numbers::read(reader, count)?),
            DOUBLES => Values::Doubles(Numbers::read(reader, count)?),
            ANY => Values::Any(Any::read(reader, count)?),
            FEW => Values::Few(Few::read(reader, count)?),
            _ => return None,
        })
    }

    /// Appends value `at`, packed. It may be none where the column is damaged.
    pub(super) fn push(&self, at: usize, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Values::Numbers(tag, numbers) => push_number(*tag, numbers.get(at)?, out),
            Values::Decimals { places, whole, numbers } => {
                push_decimal(*places, *whole, numbers.get(at)? as i64, out);
            }
            Values::Floats { places, numbers, behind } => {
                push_float(*places, numbers.get(at)? as i64, behind.get(at)?, out)?;
            }
            Values::Texts(texts) => {
                out.push(tag::TEXT);
                // Hardly any text has more bytes than a short length says.
                let from = out.len();
                out.push(0);
                texts.push(at, out)?;
                let len = out.len() - from - 1;
                if len < 0x80 {
                    out[from] = len as u8;
                } else {
                    let mut varint = Vec::with_capacity(4);
                    put_varint(&mut varint, len as u64);
                    out.splice(from..=from, varint);
                }
            }
            Values::Marks(numbers) => {
                let mark = numbers.get(at)?;
                out.push(u8::try_from(mark).ok().filter(|mark| is_mark(*mark))?);
            }
            Values::Doubles(numbers) => {
                out.push(tag::DOUBLE);
                out.extend_from_slice(&numbers.get(at)?.to_le_bytes());
            }
            Values::Any(any) => out.extend_from_slice(any.get(at)?),
            Values::Few(few) => out.extend_from_slice(few.get(at)?),
            Values::Nullable(there, values) => {
                if there.get(at)? == 0 {
                    out.push(tag::NULL);
                } else {
                    values.push(at, out)?;
                }
            }
        }
        Some(())
    }
}

fn is_mark(tag: u8) -> bool {
    matches!(tag, tag::NULL | tag::FALSE | tag::TRUE | tag::DOCUMENT_ID)
}

fn push_number(tag: u8, value: u64, out: &mut Vec<u8>) {
    out.push(tag);
    if tag == tag::UNSIGNED { put_varint(out, value) } else { put_zigzag(out, value as i64) }
}

/// With as few places as it has, as it was packed.
fn push_decimal(mut places: u8, whole: u8, mut value: i64, out: &mut Vec<u8>) {
    while places > 0 && value % 10 == 0 {
        value /= 10;
        places -= 1;
    }
    match places {
        0 => out.push(whole),
        1 => out.push(tag::TENTHS),
        2 => out.push(tag::HUNDREDTHS),
        3 => out.push(tag::THOUSANDTHS),
        _ => out.extend([tag::DECIMAL, places]),
    }
    put_zigzag(out, value);
}

/// Appends a column; none of the values is empty.
pub(super) fn write(values: &[&[u8]], out: &mut Vec<u8>) {
    let is_null = |value: &&[u8]| **value == [tag::NULL];
    let Some(first) = values.iter().copied().find(|value| !is_null(value)) else {
        return write_some(values, out);
    };
    let has_marks_alone = || values.iter().all(|value| value.len() == 1 && is_mark(value[0]));
    if !values.iter().any(is_null) || has_marks_alone() {
        return write_some(values, out);
    }
    out.push(NULLABLE);
    let there: Vec<u64> = values.iter().map(|value| u64::from(!is_null(value))).collect();
    numbers::write(&there, out);
    // What stands where nothing is costs least if it is as before.
    let mut last = first;
    let filled: Vec<&[u8]> = values
        .iter()
        .map(|value| {
            if !is_null(value) {
                last = value;
            }
            last
        })
        .collect();
    write_some(&filled, out);
}

fn write_some(values: &[&[u8]], out: &mut Vec<u8>) {
    let column = match values.first().map(|value| value[0]) {
        Some(tag::INTEGER..=tag::DOUBLE) => {
            number_column(values).or_else(|| decimals(values)).or_else(|| doubles(values))
        }
        Some(tag::TEXT) => text_column(values),
        Some(_) => marks(values),
        None => None,
    };
    let column = column.or_else(|| few(values)).unwrap_or_else(|| {
        let mut column = vec![ANY];
        write_any(values.iter().copied(), &mut column);
        column
    });
    out.extend(column);
}

/// The tag of a number that a column of numbers may have, and the number.
fn number(value: &[u8]) -> Option<(u8, u64)> {
    let mut reader = Reader::new(value);
    let tag = reader.byte().filter(|tag| (tag::INTEGER..=tag::THOUSANDTHS).contains(tag))?;
    let number = if tag == tag::UNSIGNED { reader.varint()? } else { reader.zigzag()? as u64 };
    is_packed(value, |out| push_number(tag, number, out)).then_some((tag, number))
}

/// Whether a value is packed as it will be.
fn is_packed(value: &[u8], push: impl FnOnce(&mut Vec<u8>)) -> bool {
    let mut again = Vec::with_capacity(12);
    push(&mut again);
    again == value
}

fn number_column(values: &[&[u8]]) -> Option<Vec<u8>> {
    let of_all = values[0][0];
    let value = |value: &&[u8]| number(value).filter(|(tag, _)| *tag == of_all).map(|(_, number)| number);
    let numbers = values.iter().map(value).collect::<Option<Vec<u64>>>()?;
    let mut column = vec![NUMBERS, of_all];
    numbers::write(&numbers, &mut column);
    Some(column)
}

/// The places and digits of a decimal.
fn decimal(value: &[u8]) -> Option<(u8, i64)> {
    let mut reader = Reader::new(value);
    let places = match reader.byte()? {
        tag::INTEGER | tag::WHOLE => 0,
        tag::TENTHS => 1,
        tag::HUNDREDTHS => 2,
        tag::THOUSANDTHS => 3,
        tag::DECIMAL => reader.byte().filter(|places| *places <= PLACES_MAX)?,
        _ => return None,
    };
    Some((places, reader.zigzag()?))
}

fn decimals(values: &[&[u8]]) -> Option<Vec<u8>> {
    let decimals = values.iter().map(|value| decimal(value)).collect::<Option<Vec<_>>>()?;
    let places = decimals.iter().map(|(places, _)| *places).max().filter(|places| *places > 0)?;
    let whole = values.iter().map(|value| value[0]).find(|tag| matches!(*tag, tag::INTEGER | tag::WHOLE));
    let whole = whole.unwrap_or(tag::WHOLE);
    let mut numbers = Vec::with_capacity(values.len());
    for ((of_it, digits), value) in decimals.into_iter().zip(values) {
        let number = digits.checked_mul(10_i64.pow((places - of_it).into()))?;
        if !is_packed(value, |out| push_decimal(places, whole, number, out)) {
            return None;
        }
        numbers.push(number as u64);
    }
    let mut column = vec![DECIMALS, places, whole];
    numbers::write(&numbers, &mut column);
    Some(column)
}

fn text_column(values: &[&[u8]]) -> Option<Vec<u8>> {
    let text_start = |value: &&[u8]| {
        let mut reader = Reader::new(value);
        let len = (reader.byte()? == tag::TEXT).then(|| reader.length())??;
        let start = value.len() - reader.remaining();
        (reader.remaining() == len && start == 1 + varint_len(len)).then_some(start)
    };
    let starts = values.iter().map(text_start).collect::<Option<Vec<usize>>>()?;
    let texts: Vec<&[u8]> = values.iter().zip(starts).map(|(value, start)| &value[start..]).collect();
    let mut column = vec![TEXTS];
    texts::write(&texts, &mut column);
    Some(column)
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - value.leading_zeros()).max(1).div_ceil(7) as usize
}

/// The double that is so many behind that of a decimal, as it was packed. What sensors and calculations say does not have to be tried for
/// each number of places: a short decimal is packed as one; and a double so near to one of at most six places is none of at most nine.
fn push_float(places: u8, number: i64, behind: u64, out: &mut Vec<u8>) -> Option<()> {
    let near = double_of(places, number);
    if behind == 0 && number.unsigned_abs() < SHORT_DECIMAL_MAX {
        push_decimal(places, tag::WHOLE, number, out);
        return Some(());
    }
    let double = f64::from_bits(near.to_bits().wrapping_add(behind));
    let far = (behind as i64).unsigned_abs() as f64 * near.abs();
    if behind != 0 && places <= USUAL_PLACES_MAX && far < NEAR_MAX && number != 0 {
        out.push(tag::DOUBLE);
        out.extend_from_slice(&double.to_le_bytes());
        return Some(());
    }
    put_float(out, Some(double).filter(|double| double.is_finite())?);
    Some(())
}

/// The double that is nearest to so many parts.
fn double_of(places: u8, number: i64) -> f64 {
    number as f64 / 10_i64.pow(places.into()) as f64
}

/// Floats of which not each is a decimal: many are one but for what a calculation has lost.
fn doubles(values: &[&[u8]]) -> Option<Vec<u8>> {
    let double = |value: &&[u8]| {
        let mut reader = Reader::new(value);
        let tag = reader.byte().filter(|tag| (tag::WHOLE..=tag::DOUBLE).contains(tag))?;
        let double = read_float(tag, &mut reader)?;
        is_packed(value, |out| put_float(out, double)).then_some(double)
    };
    let all = values.iter().map(double).collect::<Option<Vec<f64>>>()?;
    let places = values.iter().filter_map(|value| decimal(value)).map(|(places, _)| places);
    let places = places.filter(|places| *places <= USUAL_PLACES_MAX).max().unwrap_or(0);
    let number = |double: &f64| (double * 10_i64.pow(places.into()) as f64).round() as i64;
    let numbers: Vec<u64> = all.iter().map(|double| number(double) as u64).collect();
    let behind = |(double, number): (&f64, &u64)| {
        double.to_bits().wrapping_sub(double_of(places, *number as i64).to_bits())
    };
    let behind: Vec<u64> = all.iter().zip(&numbers).map(behind).collect();
    let mut column = vec![FLOATS, places];
    numbers::write(&numbers, &mut column);
    numbers::write(&behind, &mut column);
    // Where all are of eight bytes it may be that these say it better.
    let bits: Vec<u64> = all.iter().map(|double| double.to_bits()).collect();
    if values.iter().all(|value| value[0] == tag::DOUBLE) {
        let mut whole = vec![DOUBLES];
        numbers::write(&bits, &mut whole);
        if whole.len() < column.len() {
            return Some(whole);
        }
    }
    Some(column)
}

fn marks(values: &[&[u8]]) -> Option<Vec<u8>> {
    let mark = |value: &&[u8]| (value.len() == 1 && is_mark(value[0])).then(|| u64::from(value[0]));
    let numbers = values.iter().map(mark).collect::<Option<Vec<u64>>>()?;
    let mut column = vec![MARKS];
    numbers::write(&numbers, &mut column);
    Some(column)
}

fn few(values: &[&[u8]]) -> Option<Vec<u8>> {
    let (mut order, mut places): (Vec<&[u8]>, Vec<u64>) = (Vec::new(), Vec::with_capacity(values.len()));
    for value in values {
        let place = order.iter().position(|known| known == value).unwrap_or_else(|| {
            order.push(value);
            order.len() - 1
        });
        if order.len() > FEW_MAX || order.len() * 2 > values.len() {
            return None;
        }
        places.push(place as u64);
    }
    let mut column = vec![FEW];
    write_few(&order, &places, &mut column);
    Some(column)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is not tried for each number of places is what the trial gives.
        #[test]
        fn floats_are_packed_as_ever(
            places in 0u8..=9,
            number in prop_oneof![-100_000i64..100_000, any::<i64>(), (0u32..60).prop_map(|bits| (1 << bits) - 1)],
            behind in prop_oneof![2 => Just(0), 5 => -3i64..=3, 5 => -100_000i64..100_000, 1 => any::<i64>()],
        ) {
            let double = f64::from_bits(double_of(places, number).to_bits().wrapping_add(behind as u64));
            let mut pushed = Vec::new();
            let there = push_float(places, number, behind as u64, &mut pushed);
            prop_assert!(there.is_some() || !double.is_finite());
            if there.is_some() && double.is_finite() {
                let mut expected = Vec::new();
                put_float(&mut expected, double);
                prop_assert_eq!(pushed, expected, "{}", double);
            }
        }
    }
}
