//! One record, and what is said where it cannot be read.

use std::io;

use serde_json::{Map, Value};

use crate::cli::support::error::{CliError, Exit};

/// Longest record that is read, in bytes: a line of NDJSON, an element of an array, a row of a table. One without an end
/// would otherwise fill the memory.
pub(crate) const RECORD_BYTES_MAX: u64 = 64 << 20;

/// One record of an input.
#[derive(Debug)]
pub(crate) struct Record {
    /// The line it stands on, from 1; of a record over several lines, the line on which it ends (tables: begins).
    pub(crate) line: u64,
    /// Its fields.
    pub(crate) fields: Map<String, Value>,
}

/// What is done with each record.
pub(crate) type Take<'a> = dyn FnMut(Record) -> Result<(), CliError> + 'a;

pub(super) fn malformed(line: u64, reason: &str) -> CliError {
    CliError::new(Exit::Input, format!("line {line}: {reason}"))
}

pub(crate) fn unreadable(line: u64, error: &io::Error) -> CliError {
    let reason = match error.kind() {
        // Raised by the readers here, in words of their own.
        io::ErrorKind::InvalidData => error.to_string(),
        io::ErrorKind::UnexpectedEof => "the compressed data ends too early".to_owned(),
        io::ErrorKind::InvalidInput => format!("the compressed data is damaged ({error})"),
        _ => format!("cannot be read: {error}"),
    };
    malformed(line, &reason)
}
