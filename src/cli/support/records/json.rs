//! Records as JSON: one object a line, or one array.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::record::{RECORD_BYTES_MAX, Record, Take, malformed, unreadable};
use crate::cli::support::error::CliError;
use crate::replica::validate::parse_json;

/// What reading a line gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineRead {
    /// A line, its end included.
    Line,
    /// A line longer than [`RECORD_BYTES_MAX`], which was passed over.
    TooLong,
    /// The input has ended.
    End,
}

/// Reads a line into `text`. A line that is too long is passed over, and costs no memory.
///
/// # Errors
/// The input cannot be read: where the next line begins is not known.
pub(crate) fn next_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<LineRead> {
    text.clear();
    let len = input.take(RECORD_BYTES_MAX).read_until(b'\n', text)? as u64;
    if len == 0 {
        return Ok(LineRead::End);
    }
    if len < RECORD_BYTES_MAX || text.ends_with(b"\n") {
        return Ok(LineRead::Line);
    }
    text.clear();
    text.shrink_to_fit();
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let (len, is_over) = (end.map_or(buffer.len(), |end| end + 1), end.is_some() || buffer.is_empty());
        input.consume(len);
        if is_over {
            return Ok(LineRead::TooLong);
        }
    }
}

/// What is said about a line that is too long.
pub(crate) fn too_long(line: u64) -> CliError {
    malformed(line, &format!("longer than {} MiB", RECORD_BYTES_MAX >> 20))
}

/// The object on one line of NDJSON.
///
/// # Errors
/// Not a JSON object, or one that can be no document.
pub(crate) fn parse_line(text: &[u8], line: u64) -> Result<Record, CliError> {
    match parse_json(text) {
        Ok(Value::Object(fields)) => Ok(Record { line, fields }),
        Ok(other) => Err(not_an_object(line, &other)),
        Err(error) => Err(malformed(line, &reason(&error))),
    }
}

pub(super) fn read_lines(mut input: impl BufRead, take: &mut Take<'_>) -> Result<(), CliError> {
    let mut text = Vec::new();
    for line in 1.. {
        match next_line(&mut input, &mut text).map_err(|error| unreadable(line, &error))? {
            LineRead::End => break,
            LineRead::TooLong => return Err(too_long(line)),
            LineRead::Line if text.trim_ascii().is_empty() => {}
            LineRead::Line => take(parse_line(&text, line)?)?,
        }
    }
    Ok(())
}

pub(super) fn read_array(input: impl BufRead, take: &mut Take<'_>) -> Result<(), CliError> {
    let place = Rc::new(Place { line: Cell::new(1), bytes: Cell::new(0) });
    let counted = Watched { input, place: Rc::clone(&place) };
    let mut json = serde_json::Deserializer::from_reader(counted);
    let mut refused = None;
    let elements = Elements { place: Rc::clone(&place), take, refused: &mut refused };
    let read = elements.deserialize(&mut json).and_then(|()| json.end());
    match (refused, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) if error.is_io() => Err(unreadable(place.line.get(), &error.into())),
        (None, Err(error)) => Err(malformed(error.line() as u64, &reason(&error))),
        (None, Ok(())) => Ok(()),
    }
}

/// How far an array was read.
struct Place {
    line: Cell<u64>,
    /// Since the last element.
    bytes: Cell<u64>,
}

/// Counts lines and bytes of what is read. The JSON reader takes single bytes, so the line is that of the last one.
struct Watched<R> {
    input: R,
    place: Rc<Place>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        let ends = buffer[..len].iter().filter(|&&byte| byte == b'\n').count();
        self.place.line.set(self.place.line.get() + ends as u64);
        self.place.bytes.set(self.place.bytes.get() + len as u64);
        if self.place.bytes.get() > RECORD_BYTES_MAX {
            let message = format!("a record longer than {} MiB", RECORD_BYTES_MAX >> 20);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(len)
    }
}

/// Gives the elements of a JSON array one by one, so that the array is never in memory as a whole.
struct Elements<'a, 'b> {
    place: Rc<Place>,
    take: &'a mut Take<'b>,
    /// The error of `take`: serde has no place for it.
    refused: &'a mut Option<CliError>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        // As text first: what a number or a key twice was, a parsed value does not tell.
        while let Some(element) = elements.next_element::<Box<RawValue>>()? {
            self.place.bytes.set(0);
            if let Err(error) = parse_element(element.get(), self.place.line.get()).and_then(&mut *self.take)
            {
                *self.refused = Some(error);
                return Err(serde::de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// The object that an element is, which ends on `line`.
fn parse_element(text: &str, line: u64) -> Result<Record, CliError> {
    match parse_json(text.as_bytes()) {
        Ok(Value::Object(fields)) => Ok(Record { line, fields }),
        Ok(other) => Err(not_an_object(line, &other)),
        Err(error) => {
            let lines_in_it = text.bytes().filter(|&byte| byte == b'\n').count() as u64;
            let at = (line - lines_in_it) + (error.line() as u64).saturating_sub(1);
            Err(malformed(at, &without_place(&error)))
        }
    }
}

fn not_an_object(line: u64, value: &Value) -> CliError {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    malformed(line, &format!("{kind} where a JSON object is expected"))
}

/// What serde_json says, without its own line number (for NDJSON always 1).
fn reason(error: &serde_json::Error) -> String {
    match error.line() {
        0 => error.to_string(),
        _ => format!("{} (column {})", without_place(error), error.column()),
    }
}

fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) if error.line() > 0 => text[..at].to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let long = io::repeat(b'x').take(RECORD_BYTES_MAX + 5);
        let mut input = io::BufReader::new(b"a\n".chain(long).chain(&b"\nb"[..]));
        let mut text = Vec::new();
        let mut read = || {
            let read = next_line(&mut input, &mut text).expect("memory");
            (read, text.clone())
        };
        assert_eq!(read(), (LineRead::Line, b"a\n".to_vec()));
        assert_eq!(read(), (LineRead::TooLong, Vec::new()));
        assert_eq!(read(), (LineRead::Line, b"b".to_vec()));
        assert_eq!(read(), (LineRead::End, Vec::new()));
        let element = io::repeat(b'x').take(RECORD_BYTES_MAX + 5);
        let array = io::BufReader::new(b"[{\"a\":1},\n{\"b\":\"".chain(element));
        let mut records = 0;
        let refused = read_array(array, &mut |_| {
            records += 1;
            Ok(())
        });
        let said = "line 2: a record longer than 64 MiB";
        assert_eq!((records, refused.expect_err("too long").to_string()), (1, said.to_owned()));
    }
}
