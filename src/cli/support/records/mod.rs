//! Reads records for an import: NDJSON, one JSON array, or a table (CSV, TSV) with a header line. One record at a time, each
//! with the line it came from; what a record becomes in a database is decided in [`crate::cli::support::documents`].

mod columns;
mod input;
mod json;
pub(super) mod record;
mod table;

use std::io::BufRead;
use std::path::Path;

use clap::ValueEnum;

pub(crate) use columns::{Columns, TypeArg};
pub(crate) use input::{Counted, open_text};
pub(crate) use json::{LineRead, next_line, parse_line, too_long};
pub(crate) use record::{Record, Take, unreadable};
pub(crate) use table::survey;

use crate::cli::support::error::CliError;

/// How the records of an input are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line.
    Ndjson,
    /// One JSON array of objects.
    Json,
    /// Comma-separated values; the first line names the fields.
    Csv,
    /// Tab-separated values; the first line names the fields.
    Tsv,
}

impl Format {
    /// The format that the extension of a file name stands for, `.gz` left aside.
    pub(crate) fn of_path(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            "json" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            "tsv" | "tab" => Some(Format::Tsv),
            _ => None,
        }
    }

    /// What separates the cells of a table; `None` for JSON.
    pub(crate) fn delimiter(self) -> Option<u8> {
        match self {
            Format::Csv => Some(b','),
            Format::Tsv => Some(b'\t'),
            Format::Ndjson | Format::Json => None,
        }
    }
}

/// How an input is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reading<'a> {
    /// One JSON object a line.
    Lines,
    /// One JSON array.
    Array,
    /// A table with these columns.
    Table(&'a Columns),
}

/// Reads every record of `input` in order and gives it to `take`, whose first error ends the reading.
///
/// # Errors
/// What cannot be read, with its line; records before it were taken.
pub(crate) fn read(input: impl BufRead, how: Reading<'_>, take: &mut Take<'_>) -> Result<(), CliError> {
    match how {
        Reading::Lines => json::read_lines(input, take),
        Reading::Array => json::read_array(input, take),
        Reading::Table(columns) => table::read(input, columns, take),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use serde_json::json;

    /// The records with their lines, or the lines of those before an error.
    type ReadAll = Result<Vec<(u64, Value)>, (Vec<u64>, String)>;

    fn read_all(text: &[u8], format: Format) -> ReadAll {
        let mut records = Vec::new();
        let mut take = |record: Record| {
            records.push((record.line, Value::Object(record.fields)));
            Ok(())
        };
        let result = match format.delimiter() {
            None if format == Format::Json => read(text, Reading::Array, &mut take),
            None => read(text, Reading::Lines, &mut take),
            Some(delimiter) => survey(text, delimiter, &[], false, &mut |_| ())
                .and_then(|survey| read(text, Reading::Table(&survey.columns), &mut take)),
        };
        match result {
            Ok(()) => Ok(records),
            Err(error) => Err((records.iter().map(|r| r.0).collect(), error.to_string())),
        }
    }

    #[test]
    fn the_same_records_in_four_formats() {
        let ndjson = "{\"a\":1.0,\"b\":\"x\"}\n\n{\"a\":2.5,\"b\":\"y,\\\"z\\\"\"}\n";
        let array = "[\n{\"a\":1.0,\"b\":\"x\"},\n\n{\"a\":2.5,\n\"b\":\"y,\\\"z\\\"\"}]\n";
        let csv = "a,b\n1,x\n\n2.5,\"y,\"\"z\"\"\"\n";
        let expected = [json!({"a": 1.0, "b": "x"}), json!({"a": 2.5, "b": "y,\"z\""})];
        for (text, format, lines) in [
            (ndjson, Format::Ndjson, [1, 3]),
            (array, Format::Json, [2, 5]),
            (csv, Format::Csv, [2, 4]),
            (&csv.replace('\n', "\r\n"), Format::Csv, [2, 4]),
            ("a\tb\n1\tx\n2.5\t\"y,\"\"z\"\"\"\n", Format::Tsv, [2, 3]),
        ] {
            let records = read_all(text.as_bytes(), format).expect("well-formed");
            assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), lines, "{format:?}");
            assert_eq!(records.into_iter().map(|r| r.1).collect::<Vec<_>>(), expected, "{format:?}");
        }
    }

    #[test]
    fn malformed_input_names_its_line() {
        let deep = format!("{{\"a\":1}}\n{}1{}\n", "{\"a\":".repeat(101), "}".repeat(101));
        for (text, format, before, message) in [
            ("{\"a\":1}\n{\"a\":}\n", Format::Ndjson, 1, "line 2: expected value (column 6)"),
            ("{\"a\":1}\n[1]\n", Format::Ndjson, 1, "line 2: an array where a JSON object is expected"),
            ("{\"a\":1}\n{\"a\":1", Format::Ndjson, 1, "line 2: EOF while parsing an object (column 6)"),
            (
                "{\"a\":1}\n{\"a\":1,\"a\":2}",
                Format::Ndjson,
                1,
                "line 2: duplicate key \"a\"; only one of the two could stay (column 10)",
            ),
            (
                "{\"a\":1}\n{\"n\":123456789012345678901}",
                Format::Ndjson,
                1,
                "line 2: the number 123456789012345678901 would change: it has more than 64 bits; put it in quotes to keep it as text",
            ),
            (&deep, Format::Ndjson, 1, "line 2: nested deeper than 100 levels; flatten it (column 501)"),
            ("[{\"a\":1},\n{\"a\":tru}]", Format::Json, 1, "line 2: expected ident (column 9)"),
            ("[{\"a\":1},\n7]", Format::Json, 1, "line 2: a number where a JSON object is expected"),
            (
                "[{\"a\":1},\n{\"b\":\n{\"a\":1,\"a\":2}}\n]",
                Format::Json,
                1,
                "line 3: duplicate key \"a\"; only one of the two could stay",
            ),
            ("[{\"a\":1}\n", Format::Json, 1, "line 2: EOF while parsing a list (column 0)"),
            ("[{\"a\":1}]\n{}", Format::Json, 1, "line 2: trailing characters (column 1)"),
            (
                "{\"a\":1}",
                Format::Json,
                0,
                "line 1: invalid type: map, expected an array of objects (column 1)",
            ),
            ("a,b\n1,2\n3\n", Format::Csv, 0, "line 3: 1 cell, the header has 2"),
            ("a,b\n1,2\n\n\"3\n4\",5,6\n", Format::Csv, 0, "line 4: 3 cells, the header has 2"),
            ("a,a\n1,2\n", Format::Csv, 0, "line 1: two columns are named \"a\" in the header"),
            ("a,\n1,2\n", Format::Csv, 0, "line 1: column 2 has no name in the header"),
            ("", Format::Csv, 0, "line 1: there is no header"),
            ("a;b\n1;2\n", Format::Csv, 0, "line 1: the header is one column, \"a;b\""),
            (
                "a,b\n1,2\n3,\"4\n5,6\n7,8\n",
                Format::Csv,
                0,
                "line 3: the quote that opens a cell here is never closed",
            ),
            (
                "a,b\n1,2\n3,\"4\"x\n5,\"6\"\n",
                Format::Csv,
                0,
                "line 3: text after the closing quote of a cell",
            ),
            ("a,b\n1,2\n3,4\u{0}5\n", Format::Csv, 0, "line 3: a NUL byte"),
        ] {
            let (lines, error) = read_all(text.as_bytes(), format).expect_err(text);
            assert_eq!((lines.len(), error.as_str()), (before, message), "{text:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        for (text, format, line) in [
            (&b"{}\n{\"a\":\"\xff\"}\n"[..], Format::Ndjson, 2),
            (&b"[{\"a\":\"\xff\"}]"[..], Format::Json, 1),
            (&b"a\n1\n\xff\n"[..], Format::Csv, 3),
        ] {
            let (_, error) = read_all(text, format).expect_err("no UTF-8");
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
        }
    }

    #[test]
    fn file_names_say_the_format() {
        for (name, format) in [
            ("a.ndjson", Some(Format::Ndjson)),
            ("a.JSONL.gz", Some(Format::Ndjson)),
            ("x.y/a.csv.gz", Some(Format::Csv)),
            ("a.tsv", Some(Format::Tsv)),
            ("a.gz", None),
            ("csv", None),
        ] {
            assert_eq!(Format::of_path(Path::new(name)), format, "{name}");
        }
    }
}
