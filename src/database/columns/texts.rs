//! A column of texts.
//!
//! | first byte | then |
//! |---|---|
//! | 0 the same | length, text |
//! | 1 pattern | count of parts; each part 0 and a length and a text that all have, or its digits and more + 1 and a column of numbers |
//! | 2 times | form, length and text of what stands behind, a column of numbers ([`super::times`]) |
//! | 3 hexadecimal | length, text with `ff` where digits differ; then the digits of each text, four bits each, in whole bytes |
//! | 4 few | how many, these texts as under 5; a column of their numbers |
//! | 5 any | a column of where each ends; length, all of them |
//!
//! Digits of a pattern: so many with zeros in front, or 0 where none stand in front.

use std::collections::HashMap;

use super::super::packed::{Reader, put_varint};
use super::bytes::{Any, Few, take, write_any, write_few};
use super::numbers::{self, Numbers, push_decimal};
use super::times::{Form, Time};

const SAME: u8 = 0;
const PATTERN: u8 = 1;
const TIMES: u8 = 2;
const HEX: u8 = 3;
const FEW: u8 = 4;
const ANY: u8 = 5;

/// Stands where a digit differs; no text has this byte.
const DIGIT: u8 = 0xff;

/// Parts of a pattern at most, and digits of a number.
const PARTS_MAX: usize = 16;
const DIGITS_MAX: usize = 18;

/// A column that is read.
#[derive(Debug)]
pub(super) enum Texts<'a> {
    Same(&'a [u8]),
    Pattern(Vec<Part<'a>>),
    Times(Form, &'a [u8], Numbers<'a>),
    Hex { template: &'a [u8], digits: &'a [u8] },
    Few(Few<'a>),
    Any(Any<'a>),
}

#[derive(Debug)]
pub(super) enum Part<'a> {
    Text(&'a [u8]),
    Number(usize, Numbers<'a>),
}

impl<'a> Texts<'a> {
    /// Reads a column of `count` texts.
    pub(super) fn read(reader: &mut Reader<'a>, count: usize) -> Option<Texts<'a>> {
        Some(match reader.byte()? {
            SAME => Texts::Same(take(reader)?),
            PATTERN => {
                let parts = reader.length().filter(|parts| *parts <= PARTS_MAX)?;
                let part = |_| match reader.byte()? {
                    0 => take(reader).map(Part::Text),
                    digits if usize::from(digits) <= DIGITS_MAX + 1 => {
                        Some(Part::Number(usize::from(digits) - 1, Numbers::read(reader, count)?))
                    }
                    _ => None,
                };
                Texts::Pattern((0..parts).map(part).collect::<Option<_>>()?)
            }
            TIMES => {
                let form = Form::read(reader.byte()?)?;
                Texts::Times(form, take(reader)?, Numbers::read(reader, count)?)
            }
            HEX => {
                let template = take(reader)?;
                let len = hex_len(template).checked_mul(count)?;
                Texts::Hex { template, digits: reader.take(len)? }
            }
            FEW => Texts::Few(Few::read(reader, count)?),
            ANY => Texts::Any(Any::read(reader, count)?),
            _ => return None,
        })
    }

    /// Appends text `at`. It may be none where the column is damaged.
    pub(super) fn push(&self, at: usize, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Texts::Same(text) => out.extend_from_slice(text),
            Texts::Pattern(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => out.extend_from_slice(text),
                        Part::Number(digits, numbers) => push_decimal(numbers.get(at)?, *digits, out),
                    }
                }
            }
            Texts::Times(form, behind, numbers) => {
                Time::of(*form, numbers.get(at)? as i64)?.push(*form, out);
                out.extend_from_slice(behind);
            }
            Texts::Hex { template, digits } => {
                let of_it = digits.get(at * hex_len(template)..)?;
                let mut next = 0;
                for byte in *template {
                    if *byte != DIGIT {
                        out.push(*byte);
                        continue;
                    }
                    let digit = of_it.get(next / 2)? >> (next % 2 * 4) & 15;
                    out.push(b"0123456789abcdef"[usize::from(digit)]);
                    next += 1;
                }
            }
            Texts::Few(few) => out.extend_from_slice(few.get(at)?),
            Texts::Any(any) => out.extend_from_slice(any.get(at)?),
        }
        Some(())
    }
}

/// Bytes of the digits of one text.
fn hex_len(template: &[u8]) -> usize {
    template.iter().filter(|byte| **byte == DIGIT).count().div_ceil(2)
}

/// Appends a column, in about the fewest bytes.
pub(super) fn write(texts: &[&[u8]], out: &mut Vec<u8>) {
    let first = texts.first().copied().unwrap_or_default();
    if texts.iter().all(|text| *text == first) {
        out.push(SAME);
        put_varint(out, first.len() as u64);
        return out.extend_from_slice(first);
    }
    if let Some(column) = times(texts).or_else(|| pattern(texts)) {
        return out.extend(column);
    }
    match [hex(texts), few(texts)].into_iter().flatten().min_by_key(Vec::len) {
        Some(column) => out.extend(column),
        None => {
            out.push(ANY);
            write_any(texts.iter().copied(), out);
        }
    }
}

fn times(texts: &[&[u8]]) -> Option<Vec<u8>> {
    let (form, _, behind) = Time::parse(texts.first()?)?;
    let number = |text: &&[u8]| {
        let (of_it, time, rest) = Time::parse(text)?;
        (of_it == form && rest == behind).then(|| time.number(form))?.map(|number| number as u64)
    };
    let values = texts.iter().map(number).collect::<Option<Vec<u64>>>()?;
    let mut column = vec![TIMES, form.byte()];
    put_varint(&mut column, behind.len() as u64);
    column.extend_from_slice(behind);
    numbers::write(&values, &mut column);
    Some(column)
}

/// Where a text goes on behind its digits, or behind what is none.
fn part_len(text: &[u8]) -> usize {
    let is_digit = text.first().is_some_and(u8::is_ascii_digit);
    text.iter().take_while(|byte| byte.is_ascii_digit() == is_digit).count()
}

fn pattern(texts: &[&[u8]]) -> Option<Vec<u8>> {
    let mut column = vec![PATTERN, 0];
    let mut rests = texts.to_vec();
    while !rests[0].is_empty() {
        if usize::from(column[1]) == PARTS_MAX {
            return None;
        }
        column[1] += 1;
        let first = &rests[0][..part_len(rests[0])];
        if !first[0].is_ascii_digit() {
            for rest in &mut rests {
                *rest =
                    rest.strip_prefix(first).filter(|rest| rest.first().is_none_or(u8::is_ascii_digit))?;
            }
            column.push(0);
            put_varint(&mut column, first.len() as u64);
            column.extend_from_slice(first);
            continue;
        }
        let (mut values, mut is_padded, mut is_plain) = (Vec::with_capacity(rests.len()), true, true);
        for rest in &mut rests {
            let (digits, behind) = rest.split_at(part_len(rest));
            if !digits.first()?.is_ascii_digit() || digits.len() > DIGITS_MAX {
                return None;
            }
            is_padded &= digits.len() == first.len();
            is_plain &= digits[0] != b'0' || digits.len() == 1;
            values.push(digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')));
            *rest = behind;
        }
        let digits = match (is_padded, is_plain) {
            (true, _) => first.len(),
            (false, true) => 0,
            (false, false) => return None,
        };
        column.push(digits as u8 + 1);
        numbers::write(&values, &mut column);
    }
    rests.iter().all(|rest| rest.is_empty()).then_some(column)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn hex(texts: &[&[u8]]) -> Option<Vec<u8>> {
    let mut template = texts.first()?.to_vec();
    for text in texts {
        if text.len() != template.len() {
            return None;
        }
        for (byte, of_all) in text.iter().zip(&mut template) {
            if byte != of_all {
                if *of_all != DIGIT {
                    hex_digit(*of_all)?;
                    *of_all = DIGIT;
                }
                hex_digit(*byte)?;
            }
        }
    }
    let mut column = vec![HEX];
    put_varint(&mut column, template.len() as u64);
    column.extend_from_slice(&template);
    for text in texts {
        let mut held = None;
        for (byte, _) in text.iter().zip(&template).filter(|(_, of_all)| **of_all == DIGIT) {
            let digit = hex_digit(*byte)?;
            held = match held {
                None => Some(digit),
                Some(low) => {
                    column.push(low | digit << 4);
                    None
                }
            };
        }
        column.extend(held);
    }
    Some(column)
}

fn few(texts: &[&[u8]]) -> Option<Vec<u8>> {
    let (mut known, mut order) = (HashMap::new(), Vec::new());
    let mut places = Vec::with_capacity(texts.len());
    for text in texts {
        let place = *known.entry(*text).or_insert_with(|| {
            order.push(*text);
            order.len() as u64 - 1
        });
        if order.len() * 2 > texts.len() {
            return None;
        }
        places.push(place);
    }
    let mut column = vec![FEW];
    write_few(&order, &places, &mut column);
    Some(column)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(column: &[u8], count: usize) -> Option<Vec<Vec<u8>>> {
        let mut reader = Reader::new(column);
        let texts = Texts::read(&mut reader, count)?;
        if reader.remaining() > 0 {
            return None;
        }
        (0..count)
            .map(|at| {
                let mut out = Vec::new();
                texts.push(at, &mut out)?;
                Some(out)
            })
            .collect()
    }

    fn kind(texts: &[&str]) -> u8 {
        let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        let mut column = Vec::new();
        write(&texts, &mut column);
        let expected: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
        assert_eq!(back(&column, texts.len()), Some(expected));
        column[0]
    }

    #[test]
    fn each_kind_of_text_has_its_column() {
        for (texts, expected) in [
            (&["a", "a", "a"][..], SAME),
            (&["", ""], SAME),
            (&["r-0000009", "r-0000010", "r-0000011"], PATTERN),
            (&["9", "10", "0"], PATTERN),
            (&["s07-000012 x", "s08-000012 x"], PATTERN),
            (&["7a", "8b", "9c", "7a"], HEX),
            (&["7x", "8y", "7x", "7x"], FEW),
            (&["7", "a.", "7", "7"], FEW),
            (&["9", "010"], ANY),
            (&["1234567890123456789", "1"], ANY),
            (&["2026-11-27T18:00:00Z", "2026-11-27T18:00:05Z"], TIMES),
            (&["2026-11-27T18:00", "2026-11-27T18:01"], TIMES),
            (&["2026-11-27T18:00:00.25+01:00", "2026-11-27T18:00:05.75+01:00"], TIMES),
            (&["2026-11-27T18:00:00Z", "2026-11-27T18:00:60Z"], PATTERN),
            (&["2026-11-27T18:00:00Z", "2026-11-27T18:00:01.5Z"], ANY),
            (&["67e55044-10b1-426f-9247-bb680e5fe0c8", "b2e55044-1fb1-426f-9247-bb680e5fe0c9"], HEX),
            (&["on", "off", "on", "on"], FEW),
            (&["on", "off", "stopped"], ANY),
            (&["\u{e4}1", "\u{e4}2"], PATTERN),
            (&["", "a"], ANY),
        ] {
            assert_eq!(kind(texts), expected, "{texts:?}");
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(texts in prop_oneof![
            prop::collection::vec("[ab0-2]{0,5}", 1..40),
            prop::collection::vec("(x|y)[0-9]{1,3}-[0-9]{2}", 1..40),
            prop::collection::vec("202[0-9]-[01][0-9]-[0-3][0-9]T1[0-9]:[0-6][0-9](:0[0-9])?Z", 1..6),
            prop::collection::vec("[0-9a-f]{7}", 1..20),
            prop::collection::vec(".{0,8}", 1..20),
        ]) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            kind(&texts);
        }

        #[test]
        fn hostile_bytes_are_refused_not_followed(
            kind in 0u8..7, bytes in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..60), count in 0usize..1000,
        ) {
            look_at(&[&[kind][..], &bytes].concat(), count);
        }
    }

    fn look_at(bytes: &[u8], count: usize) {
        if let Some(texts) = Texts::read(&mut Reader::new(bytes), count) {
            (0..count).for_each(|at| {
                let _ = texts.push(at, &mut Vec::new());
            });
        }
    }

    /// What a reader once failed at.
    #[test]
    fn hostile_bytes_that_were_found_are_refused() {
        look_at(&[4, 0, 2, 0, 0, 0, 1, 0, 0, 55, 0, 0], 1);
    }
}
