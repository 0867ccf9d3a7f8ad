//! Records as the rows of a table: CSV or TSV with a header line. Cells may stand in quotes (`"`, doubled within). Where the
//! CSV reader would guess (a quote that is never closed, text behind a closing quote, NUL bytes) the row is refused.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use super::columns::{self, Columns, Count, TypeArg};
use super::record::{RECORD_BYTES_MAX, Record, Take, malformed, unreadable};
use crate::cli::support::error::CliError;
use crate::cli::support::output::counted;

/// What a first look at a table tells.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Its columns with their types.
    pub(crate) columns: Columns,
    /// What the user should know about them.
    pub(crate) warnings: Vec<String>,
}

/// Reads a table and decides the types of its columns; `tell` hears the number of each row. Of a table that is `cut` only
/// what can be read counts.
///
/// # Errors
/// What cannot be read, with its line; a header that names no fields.
pub(crate) fn survey(
    input: impl BufRead,
    delimiter: u8,
    types: &[TypeArg],
    cut: bool,
    tell: &mut dyn FnMut(u64),
) -> Result<Survey, CliError> {
    let mut rows = Rows::new(input, delimiter);
    let names = rows.header()?;
    let mut counts: Vec<Count> = names.iter().map(Count::new).collect();
    let mut row = csv::StringRecord::new();
    for number in 1.. {
        tell(number);
        match rows.next(&mut row, counts.len()) {
            Ok(Some(line)) => {
                counts.iter_mut().zip(&row).for_each(|(count, cell)| count.add(cell, line));
            }
            Ok(None) => break,
            Err(_) if cut => break,
            Err(error) => return Err(error),
        }
    }
    let (columns, warnings) = columns::decide(&counts, types, delimiter)?;
    Ok(Survey { columns, warnings })
}

/// Reads the rows of a table whose columns are known.
pub(super) fn read(input: impl BufRead, columns: &Columns, take: &mut Take<'_>) -> Result<(), CliError> {
    let mut rows = Rows::new(input, columns.delimiter);
    rows.header()?;
    let mut row = csv::StringRecord::new();
    while let Some(line) = rows.next(&mut row, columns.len())? {
        let members = row.iter().enumerate().map(|(column, cell)| columns.member(column, cell, line));
        take(Record { line, fields: members.collect::<Result<_, _>>()? })?;
    }
    Ok(())
}

/// The rows of a table with their lines.
struct Rows<R> {
    reader: csv::Reader<Strict<R>>,
    line: Rc<Cell<u64>>,
}

impl<R: BufRead> Rows<R> {
    fn new(input: R, delimiter: u8) -> Rows<R> {
        let line = Rc::new(Cell::new(1));
        let strict = Strict::new(input, delimiter, Rc::clone(&line));
        let reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .has_headers(false)
            .from_reader(strict);
        Rows { reader, line }
    }

    /// The names of the columns.
    fn header(&mut self) -> Result<csv::StringRecord, CliError> {
        let mut names = csv::StringRecord::new();
        if !self.read(&mut names)? {
            return Err(malformed(1, "there is no header"));
        }
        let line = self.line.get();
        for (column, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(malformed(line, &format!("column {} has no name in the header", column + 1)));
            }
            if names.iter().take(column).any(|earlier| earlier == name) {
                return Err(malformed(line, &format!("two columns are named {name:?} in the header")));
            }
        }
        if let (1, Some(name)) = (names.len(), names.get(0))
            && name.contains([',', ';', '\t', '|'])
        {
            let reason = format!("the header is one column, {:?}", crate::replica::clip(name));
            return Err(malformed(line, &reason).help("say what separates the cells with --delimiter"));
        }
        Ok(names)
    }

    /// The next row of so many cells; gives its line, `None` at the end.
    fn next(&mut self, row: &mut csv::StringRecord, cells: usize) -> Result<Option<u64>, CliError> {
        if !self.read(row)? {
            return Ok(None);
        }
        let line = self.line.get();
        match row.len() {
            len if len == cells => Ok(Some(line)),
            len => Err(malformed(line, &format!("{}, the header has {cells}", counted(len as u64, "cell")))),
        }
    }

    fn read(&mut self, row: &mut csv::StringRecord) -> Result<bool, CliError> {
        self.reader.read_record(row).map_err(|error| {
            let line = self.line.get();
            match error.into_kind() {
                csv::ErrorKind::Utf8 { err, .. } => malformed(line, &format!("not UTF-8: {err}")),
                csv::ErrorKind::Io(error) => unreadable(line, &error),
                other => malformed(line, &format!("{other:?}")),
            }
        })
    }
}

/// Where in a table a byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where a cell begins.
    Start,
    /// In a cell without quotes.
    Plain,
    /// In quotes that opened on this line.
    Quoted { since: u64 },
    /// Behind a quote within quotes: the closing one, or the first of two.
    Quote { since: u64 },
}

/// Hands a table on row by row, and ends it where it is not what it seems. The CSV reader gets no byte of the next row before
/// it has taken the one before, so that `row_line` is that of the row it gives.
struct Strict<R> {
    input: R,
    delimiter: u8,
    place: Place,
    /// Line of the next byte.
    line: u64,
    /// Whether the row has begun.
    in_row: bool,
    /// Line on which the row begins.
    row_line: Rc<Cell<u64>>,
    row_bytes: u64,
    /// What was found wrong; told when all before it was handed on.
    wrong: Option<(u64, String)>,
}

impl<R: BufRead> Strict<R> {
    fn new(input: R, delimiter: u8, row_line: Rc<Cell<u64>>) -> Strict<R> {
        Strict {
            input,
            delimiter,
            place: Place::Start,
            line: 1,
            in_row: false,
            row_line,
            row_bytes: 0,
            wrong: None,
        }
    }

    /// Looks at one byte; `true` if a row ends with it.
    fn look(&mut self, byte: u8) -> Result<bool, (u64, String)> {
        let line = self.line;
        if byte == 0 {
            return Err((line, "a NUL byte".to_owned()));
        }
        self.row_bytes += 1;
        if self.row_bytes > RECORD_BYTES_MAX {
            let size = RECORD_BYTES_MAX >> 20;
            return Err(match self.place {
                Place::Quoted { since } => {
                    (since, format!("the quote that opens a cell here is not closed within {size} MiB"))
                }
                _ => (self.row_line.get(), format!("a row longer than {size} MiB")),
            });
        }
        if !self.in_row && !matches!(byte, b'\r' | b'\n') {
            self.in_row = true;
            self.row_line.set(line);
        }
        self.place = match (self.place, byte) {
            (Place::Quoted { since }, b'"') => Place::Quote { since },
            (quoted @ Place::Quoted { .. }, _) => quoted,
            (Place::Quote { since }, b'"') => Place::Quoted { since },
            (Place::Start, b'"') => Place::Quoted { since: line },
            (_, b'\r' | b'\n') => Place::Start,
            (_, byte) if byte == self.delimiter => Place::Start,
            (Place::Quote { .. }, _) => {
                return Err((line, "text after the closing quote of a cell".to_owned()));
            }
            (Place::Start | Place::Plain, _) => Place::Plain,
        };
        if byte != b'\n' {
            return Ok(false);
        }
        self.line += 1;
        let is_end = !matches!(self.place, Place::Quoted { .. });
        if is_end {
            self.in_row = false;
            self.row_bytes = 0;
        }
        Ok(is_end)
    }

    fn fail(&mut self, (line, reason): (u64, String)) -> io::Error {
        self.row_line.set(line);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}

impl<R: BufRead> Read for Strict<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(wrong) = self.wrong.take() {
            return Err(self.fail(wrong));
        }
        let available = match self.input.fill_buf() {
            Ok(bytes) => bytes.len().min(buffer.len()),
            Err(error) => {
                self.row_line.set(self.line);
                return Err(error);
            }
        };
        if available == 0 {
            return match self.place {
                Place::Quoted { since } => {
                    let reason = "the quote that opens a cell here is never closed".to_owned();
                    Err(self.fail((since, reason)))
                }
                _ => Ok(0),
            };
        }
        let mut taken = 0;
        buffer[..available].copy_from_slice(&self.input.fill_buf()?[..available]);
        while taken < available {
            match self.look(buffer[taken]) {
                Ok(is_end) => {
                    taken += 1;
                    if is_end {
                        break;
                    }
                }
                Err(wrong) if taken == 0 => return Err(self.fail(wrong)),
                Err(wrong) => {
                    self.wrong = Some(wrong);
                    break;
                }
            }
        }
        self.input.consume(taken);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    type Table = Vec<Vec<String>>;

    /// A table as CSV, with the lines on which its rows begin.
    fn written(table: &Table) -> (String, Vec<u64>) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut lines = Vec::new();
        for row in table {
            lines.push(1 + writer.get_ref().iter().filter(|&&byte| byte == b'\n').count() as u64);
            writer.write_record(row).expect("memory");
            writer.flush().expect("memory");
        }
        (String::from_utf8(writer.into_inner().expect("memory")).expect("UTF-8"), lines)
    }

    proptest! {
        /// What the strict reader lets pass, the CSV reader reads as it was written; each row with its line.
        #[test]
        fn tables_are_read_as_they_were_written(
            rows in prop::collection::vec(prop::collection::vec("[a-z\",é\n]{0,6}", 3), 0..8),
            small in 1usize..20,
        ) {
            let mut table: Table = vec![vec!["a".into(), "b".into(), "c".into()]];
            table.extend(rows);
            let (text, lines) = written(&table);
            let input = io::BufReader::with_capacity(small, text.as_bytes());
            let types: Vec<TypeArg> = ["a", "b", "c"].map(|c| format!("{c}=text").parse().expect("a type")).to_vec();
            let columns = survey(text.as_bytes(), b',', &types, false, &mut |_| ()).expect("a table").columns;
            let mut read_rows = Vec::new();
            read(input, &columns, &mut |record| {
                read_rows.push((record.line, record.fields));
                Ok(())
            }).expect("well-formed");
            prop_assert_eq!(read_rows.len(), table.len() - 1);
            for ((row, line), (read_line, fields)) in table.iter().zip(lines).skip(1).zip(read_rows) {
                prop_assert_eq!(line, read_line);
                for (name, cell) in ["a", "b", "c"].iter().zip(row) {
                    let expected = if cell.is_empty() { Value::Null } else { cell.as_str().into() };
                    prop_assert_eq!(&fields[*name], &expected);
                }
            }
        }

        #[test]
        fn garbage_is_refused_or_read(bytes in prop::collection::vec(prop_oneof![
            Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()
        ], 0..60)) {
            if let Ok(survey) = survey(&bytes[..], b',', &[], false, &mut |_| ()) {
                let mut rows = 0;
                let result = read(&bytes[..], &survey.columns, &mut |_| { rows += 1; Ok(()) });
                prop_assert!(result.is_ok(), "what was surveyed is read: {result:?}");
            }
        }
    }

    #[test]
    fn a_cut_table_tells_the_types_of_what_is_there() {
        let text = "a,b\n1,x\n2,\"y";
        let survey = survey(text.as_bytes(), b',', &[], true, &mut |_| ()).expect("cut");
        assert_eq!(survey.columns.member(0, "3", 9).expect("an integer").1, Value::from(3));
        let refused = survey.columns.member(0, "3.5", 9).expect_err("no integer");
        assert_eq!(refused.to_string(), "line 9: `a` is \"3.5\", which is no whole number of 64 bits");
    }

    #[test]
    fn a_quote_that_swallows_the_rest_costs_no_memory() {
        let rest = io::repeat(b'x').take(RECORD_BYTES_MAX + 5);
        let input = io::BufReader::new(b"a,b\n1,2\n3,\"".chain(rest));
        let refused = survey(input, b',', &[], false, &mut |_| ()).expect_err("too long");
        assert_eq!(
            refused.to_string(),
            "line 3: the quote that opens a cell here is not closed within 64 MiB"
        );
    }
}
