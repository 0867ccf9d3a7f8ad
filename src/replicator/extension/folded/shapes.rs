//! Bodies by their shape: what all documents of a shape have between their values, and a column for each value.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::coder::Coder;
use super::strings::State;
use super::symbols;
use super::texts::{Texts, read_one, write_one};
use super::values::{self, Values};

/// Shapes of a message, beside that of bodies of one value, which others are. And values of a body.
const SHAPES_MAX: usize = 24;
const VALUES_MAX: usize = 128;

/// Values of all bodies of a message: each is of a byte or more, and takes some time.
const ALL_VALUES_MAX: usize = 256 * 1024;

/// Bodies that are looked at before, and bytes of a text that is long.
const SAMPLES: usize = 8;
const LONG_TEXT: usize = 48;

/// Where a value stands.
const MARK: u8 = 0;

struct Shape<'b> {
    rows: Vec<u32>,
    columns: Vec<Vec<&'b [u8]>>,
}

/// Divides a body into what a shape has and its values; `None` if it is no JSON of few values.
fn divide(body: &[u8], shape: &mut Vec<u8>, values: &mut Vec<Range<usize>>) -> Option<()> {
    shape.clear();
    values.clear();
    let mut at = 0;
    while let Some(byte) = body.get(at) {
        let from = at;
        let is_key = match *byte {
            MARK => return None,
            b'"' => {
                at = string_end(body, at)?;
                body.get(at) == Some(&b':')
            }
            b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                let is_inside =
                    |byte: &&u8| !matches!(**byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t' | MARK);
                at += body[at..].iter().take_while(is_inside).count();
                false
            }
            _ => {
                at += 1;
                true
            }
        };
        if is_key {
            if body[from..at].contains(&MARK) {
                return None;
            }
            shape.extend_from_slice(&body[from..at]);
        } else {
            shape.push(MARK);
            values.push(from..at);
        }
    }
    (values.len() <= VALUES_MAX).then_some(())
}

/// Behind the quote that ends a text.
fn string_end(body: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        match body.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Whether most of these bodies is text of which no two are alike, by a few of them.
pub(super) fn are_texts(bodies: &[&[u8]]) -> bool {
    let (mut shape, mut values) = (Vec::new(), Vec::new());
    let (mut texts, mut bytes, mut sampled) = (HashSet::new(), 0, 0);
    for body in bodies.iter().step_by(bodies.len() / SAMPLES + 1) {
        sampled += 1;
        if divide(body, &mut shape, &mut values).is_some() {
            let long =
                values.iter().map(|value| &body[value.clone()]).filter(|value| value.len() > LONG_TEXT);
            long.filter(|value| value[0] == b'"' && texts.insert(*value))
                .for_each(|value| bytes += value.len());
        }
    }
    bytes > sampled * LONG_TEXT * 2
}

/// Writes bodies, one for each of these rows, unless it takes too much time.
pub(super) fn write<C: Coder>(
    coder: &mut C,
    bodies: &[&[u8]],
    rows: &[u32],
    state: &mut State,
) -> Option<()> {
    let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
    let (mut templates, mut shapes): (Vec<Vec<u8>>, Vec<Shape<'_>>) = Default::default();
    let (mut template, mut values) = (Vec::new(), Vec::new());
    let mut which = Vec::with_capacity(bodies.len());
    let (mut last, mut left) = (0, ALL_VALUES_MAX);
    for (body, row) in bodies.iter().zip(rows) {
        let is_divided = divide(body, &mut template, &mut values).is_some();
        if templates.get(last) != Some(&template) || !is_divided {
            let is_new = is_divided && !numbers.contains_key(&template);
            if !is_divided || is_new && numbers.len() >= SHAPES_MAX {
                // It is one value, and that is its shape.
                template.clear();
                template.push(MARK);
                values.clear();
                values.push(0..body.len());
            }
            last = *numbers.entry(template.clone()).or_insert_with(|| {
                templates.push(template.clone());
                shapes.push(Shape { rows: Vec::new(), columns: vec![Vec::new(); values.len()] });
                templates.len() - 1
            });
        }
        left = left.checked_sub(values.len())?;
        which.push(last as u32);
        let shape = &mut shapes[last];
        shape.rows.push(*row);
        shape.columns.iter_mut().zip(&values).for_each(|(column, value)| column.push(&body[value.clone()]));
    }
    coder.number(templates.len() as u64);
    for template in &templates {
        write_one(coder, &mut state.model, template)?;
    }
    symbols::write(coder, &which, templates.len(), rows, &state.others);
    for shape in &shapes {
        shape.columns.iter().try_for_each(|column| values::write(coder, column, &shape.rows, state))?;
    }
    Some(())
}

/// Reads bodies for these rows, together of at most so many bytes.
pub(super) fn read<C: Coder>(
    coder: &mut C,
    rows: &[u32],
    bytes_max: usize,
    state: &mut State,
) -> Option<Texts> {
    let count = usize::try_from(coder.number(0)).ok().filter(|count| (1..=SHAPES_MAX + 1).contains(count))?;
    let templates = (0..count).map(|_| read_one(coder, &mut state.model)).collect::<Option<Vec<_>>>()?;
    let which = symbols::read(coder, count, rows, &state.others);
    let mut left = ALL_VALUES_MAX;
    let mut shapes = Vec::with_capacity(count);
    for (shape, template) in templates.iter().enumerate() {
        let rows: Vec<u32> = which
            .iter()
            .zip(rows)
            .filter(|(which, _)| **which as usize == shape)
            .map(|(_, row)| *row)
            .collect();
        let columns = template.iter().filter(|byte| **byte == MARK).count();
        left = left.checked_sub(columns.checked_mul(rows.len())?).filter(|_| columns <= VALUES_MAX)?;
        let columns = if rows.is_empty() { 0 } else { columns };
        let column = |_| if coder.has_failed() { None } else { Values::read(coder, &rows, state) };
        shapes.push((0..columns).map(column).collect::<Option<Vec<_>>>()?);
    }
    let mut bodies = Texts::default();
    let mut body = Vec::new();
    for which in which {
        body.clear();
        let (template, columns) = (templates.get(which as usize)?, shapes.get_mut(which as usize)?);
        let mut columns = columns.iter_mut();
        for piece in template.split_inclusive(|byte| *byte == MARK) {
            match piece.strip_suffix(&[MARK]) {
                Some(piece) => {
                    body.extend_from_slice(piece);
                    columns.next()?.push_next(&state.ids, &mut body)?;
                }
                None => body.extend_from_slice(piece),
            }
            if bodies.bytes() + body.len() > bytes_max {
                return None;
            }
        }
        bodies.push(&body);
    }
    Some(bodies)
}
