//! Reads records for an import: NDJSON, one JSON array, or CSV with a header line. One record at a time, each with
//! the line it came from; what a record becomes in a database is decided in [`super::documents`].

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::rc::Rc;

use clap::ValueEnum;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{CliError, Exit};
use crate::database::validate::parse_json;

/// Longest line of NDJSON that is read, in bytes. A line without an end would otherwise fill the memory.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// How the records of an input are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON object a line.
    Ndjson,
    /// One JSON array of objects.
    Json,
    /// Comma-separated values; the first line names the fields.
    Csv,
}

impl Format {
    /// The format that the extension of a file name stands for.
    pub(super) fn of_path(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            "json" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            _ => None,
        }
    }
}

/// One record of an input.
#[derive(Debug)]
pub(super) struct Record {
    /// The line it stands on, from 1; of a record over several lines, the line on which it ends (CSV: begins).
    pub(super) line: u64,
    /// Its fields.
    pub(super) fields: Map<String, Value>,
}

/// What is done with each record.
pub(super) type Take<'a> = dyn FnMut(Record) -> Result<(), CliError> + 'a;

/// Reads every record of `input` in order and gives it to `take`, whose first error ends the reading.
///
/// # Errors
/// What cannot be read, with its line; records before it were taken.
pub(super) fn read(input: impl BufRead, format: Format, take: &mut Take<'_>) -> Result<(), CliError> {
    match format {
        Format::Ndjson => read_ndjson(input, take),
        Format::Json => read_array(input, take),
        Format::Csv => read_csv(input, take),
    }
}

/// The object on one line of NDJSON.
///
/// # Errors
/// Not a JSON object.
pub(super) fn parse_line(text: &[u8], line: u64) -> Result<Record, CliError> {
    match parse_json(text) {
        Ok(Value::Object(fields)) => Ok(Record { line, fields }),
        Ok(other) => Err(not_an_object(line, &other)),
        Err(error) => Err(malformed(line, &reason(&error))),
    }
}

/// Reads the line numbered `line` into `text`, its end included; `false` at the end of the input.
///
/// # Errors
/// It cannot be read, or is longer than [`LINE_BYTES_MAX`].
pub(super) fn next_line(input: &mut impl BufRead, text: &mut Vec<u8>, line: u64) -> Result<bool, CliError> {
    text.clear();
    let len = input.take(LINE_BYTES_MAX).read_until(b'\n', text).map_err(|error| unreadable(line, &error))?;
    if len as u64 == LINE_BYTES_MAX {
        return Err(malformed(line, &format!("the line is longer than {LINE_BYTES_MAX} bytes")));
    }
    Ok(len > 0)
}

fn read_ndjson(mut input: impl BufRead, take: &mut Take<'_>) -> Result<(), CliError> {
    let mut text = Vec::new();
    let mut line = 1;
    while next_line(&mut input, &mut text, line)? {
        if !text.trim_ascii().is_empty() {
            take(parse_line(&text, line)?)?;
        }
        line += 1;
    }
    Ok(())
}

fn read_array(input: impl BufRead, take: &mut Take<'_>) -> Result<(), CliError> {
    let line = Rc::new(Cell::new(1));
    let counted = CountLines { input, line: Rc::clone(&line) };
    let mut json = serde_json::Deserializer::from_reader(counted);
    let mut refused = None;
    let elements = Elements { line, take, refused: &mut refused };
    let read = elements.deserialize(&mut json).and_then(|()| json.end());
    match (refused, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(malformed(error.line() as u64, &reason(&error))),
        (None, Ok(())) => Ok(()),
    }
}

fn read_csv(input: impl BufRead, take: &mut Take<'_>) -> Result<(), CliError> {
    let mut reader = csv::Reader::from_reader(input);
    let names = reader.headers().map_err(|e| csv_error(&e))?.clone();
    for (column, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(malformed(1, &format!("column {} has no name in the header", column + 1)));
        }
        if names.iter().take(column).any(|earlier| earlier == name) {
            return Err(malformed(1, &format!("two columns are named {name:?} in the header")));
        }
    }
    for record in reader.records() {
        let record = record.map_err(|e| csv_error(&e))?;
        let line = record.position().map_or(0, csv::Position::line);
        let fields = names.iter().zip(&record).map(|(name, cell)| (name.to_owned(), cell_value(cell)));
        take(Record { line, fields: fields.collect() })?;
    }
    Ok(())
}

/// A cell as JSON: null if empty, a number if that prints back the same, else text.
fn cell_value(cell: &str) -> Value {
    if cell.is_empty() {
        return Value::Null;
    }
    let number = if let Ok(integer) = cell.parse::<i64>() {
        Some(Number::from(integer))
    } else if let Ok(integer) = cell.parse::<u64>() {
        Some(Number::from(integer))
    } else {
        cell.parse::<f64>().ok().and_then(Number::from_f64)
    };
    match number {
        Some(number) if number.to_string() == cell => Value::Number(number),
        _ => Value::String(cell.to_owned()),
    }
}

/// Gives the elements of a JSON array one by one, so that the array is never in memory as a whole.
struct Elements<'a, 'b> {
    line: Rc<Cell<u64>>,
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
        while let Some(element) = elements.next_element()? {
            let line = self.line.get();
            let taken = match element {
                Value::Object(fields) => (self.take)(Record { line, fields }),
                other => Err(not_an_object(line, &other)),
            };
            if let Err(error) = taken {
                *self.refused = Some(error);
                return Err(serde::de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// Counts the lines of what is read. The JSON reader takes single bytes, so the count is that of the last one.
struct CountLines<R> {
    input: R,
    line: Rc<Cell<u64>>,
}

impl<R: Read> Read for CountLines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        let ends = buffer[..len].iter().filter(|&&byte| byte == b'\n').count();
        self.line.set(self.line.get() + ends as u64);
        Ok(len)
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

fn malformed(line: u64, reason: &str) -> CliError {
    CliError::new(Exit::Input, format!("line {line}: {reason}"))
}

fn unreadable(line: u64, error: &io::Error) -> CliError {
    CliError::new(Exit::Input, format!("line {line}: cannot be read: {error}"))
}

/// What serde_json says, without its own line number (for NDJSON always 1).
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) if error.line() > 0 => format!("{} (column {})", &text[..at], error.column()),
        _ => text,
    }
}

fn csv_error(error: &csv::Error) -> CliError {
    let line = error.position().map_or(1, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            malformed(line, &format!("{len} fields, the header has {expected_len}"))
        }
        csv::ErrorKind::Utf8 { err, .. } => malformed(line, &format!("not UTF-8: {err}")),
        csv::ErrorKind::Io(error) => unreadable(line, error),
        _ => malformed(line, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The records with their lines, or the lines of those before an error.
    type ReadAll = Result<Vec<(u64, Value)>, (Vec<u64>, String)>;

    fn read_all(text: &str, format: Format) -> ReadAll {
        let mut records = Vec::new();
        let result = read(text.as_bytes(), format, &mut |record| {
            records.push((record.line, Value::Object(record.fields)));
            Ok(())
        });
        match result {
            Ok(()) => Ok(records),
            Err(error) => Err((records.iter().map(|r| r.0).collect(), error.to_string())),
        }
    }

    #[test]
    fn cells_become_numbers_only_if_they_print_back_the_same() {
        let numbers = ["0", "-7", "4.0", "1016.6", "18446744073709551615", "0.1", "-3.25"];
        for cell in numbers {
            assert!(cell_value(cell).is_number(), "{cell}");
            assert_eq!(cell_value(cell).to_string(), cell);
        }
        let texts = [
            "007",
            "1e5",
            "4.",
            ".5",
            "+1",
            "-0",
            "1016.60",
            "NaN",
            "inf",
            "18446744073709551616",
            " 1",
            "1,5",
        ];
        for cell in texts {
            assert_eq!(cell_value(cell), json!(cell));
        }
        assert_eq!(cell_value(""), Value::Null);
    }

    #[test]
    fn the_same_records_in_three_formats() {
        let ndjson = "{\"a\":1,\"b\":\"x\"}\n\n{\"a\":2.5,\"b\":\"y,\\\"z\\\"\"}\n";
        let array = "[\n{\"a\":1,\"b\":\"x\"},\n\n{\"a\":2.5,\n\"b\":\"y,\\\"z\\\"\"}]\n";
        let csv = "a,b\n1,x\n2.5,\"y,\"\"z\"\"\"\n";
        let expected = [json!({"a": 1, "b": "x"}), json!({"a": 2.5, "b": "y,\"z\""})];
        for (text, format, lines) in
            [(ndjson, Format::Ndjson, [1, 3]), (array, Format::Json, [2, 5]), (csv, Format::Csv, [2, 3])]
        {
            let records = read_all(text, format).expect("well-formed");
            assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), lines, "{format:?}");
            assert_eq!(records.into_iter().map(|r| r.1).collect::<Vec<_>>(), expected, "{format:?}");
        }
    }

    #[test]
    fn malformed_input_names_its_line() {
        for (text, format, before, message) in [
            ("{\"a\":1}\n{\"a\":}\n", Format::Ndjson, 1, "line 2: expected value (column 6)"),
            ("{\"a\":1}\n[1]\n", Format::Ndjson, 1, "line 2: an array where a JSON object is expected"),
            ("{\"a\":1}\n{\"a\":1", Format::Ndjson, 1, "line 2: EOF while parsing an object (column 6)"),
            ("[{\"a\":1},\n{\"a\":tru}]", Format::Json, 1, "line 2: expected ident (column 9)"),
            ("[{\"a\":1},\n7]", Format::Json, 1, "line 2: a number where a JSON object is expected"),
            ("[{\"a\":1}\n", Format::Json, 1, "line 2: EOF while parsing a list (column 0)"),
            ("[{\"a\":1}]\n{}", Format::Json, 1, "line 2: trailing characters (column 1)"),
            (
                "{\"a\":1}",
                Format::Json,
                0,
                "line 1: invalid type: map, expected an array of objects (column 1)",
            ),
            ("a,b\n1,2\n3\n", Format::Csv, 1, "line 3: 1 fields, the header has 2"),
            ("a,a\n1,2\n", Format::Csv, 0, "line 1: two columns are named \"a\" in the header"),
            ("a,\n1,2\n", Format::Csv, 0, "line 1: column 2 has no name in the header"),
        ] {
            let (lines, error) = read_all(text, format).expect_err(text);
            assert_eq!((lines.len(), error.as_str()), (before, message), "{text:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        for (text, format) in [
            (&b"{\"a\":\"\xff\"}\n"[..], Format::Ndjson),
            (&b"[{\"a\":\"\xff\"}]"[..], Format::Json),
            (&b"a\n\xff\n"[..], Format::Csv),
        ] {
            assert!(read(text, format, &mut |_| Ok(())).is_err(), "{format:?}");
        }
    }
}
