//! The options of `gattway db import`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::commands::db::CollectionArg;
use crate::cli::support::documents::EntryArgs;
use crate::cli::support::records::{Format, TypeArg};

/// Save the records of a file: NDJSON, a JSON array, or CSV and TSV with a header.
///
/// All input is checked before the first document is written: a malformed line, an ID that occurs twice or a document
/// that could not be synced imports nothing. (More than 32 MiB on standard input is written while it is read; the error then
/// says how many records were imported.)
///
/// A document that is there with the same content is left alone, so an import can be repeated. One with other content is kept:
/// it is named and counted, the rest is imported, and the exit code is 4; --replace overwrites it. `"_deleted": true` in a
/// record deletes the document. With --id-prefix each record gets a number of its own, so that a repeated import adds all once
/// more.
///
/// In a table each column has one type: whole numbers, numbers, or text if any cell is something else (`007`, `n/a`), which is
/// said. --types tells it instead. An empty cell becomes null.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db sensor.db db import readings.csv --id-from date
  gattway --db sensor.db db import readings.tsv.gz --id-from sensor,time --types sensor=text,value=number
  gattway --db field.db db import penguins.json --id-prefix penguin-
  other-tool | gattway --db sensor.db db import - --format ndjson --collection plant.readings --create-collection")]
pub(crate) struct ImportArgs {
    /// Files to read, also compressed with gzip; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) collection: CollectionArg,

    /// Create the collection if it does not exist
    #[arg(long)]
    pub(super) create_collection: bool,

    /// How the input is written; otherwise the file's extension says it (.ndjson, .jsonl, .json, .csv, .tsv, each also with .gz)
    #[arg(long, value_enum)]
    pub(super) format: Option<Format>,

    /// What separates the cells of a table, one character; otherwise a comma (CSV) or a tab (TSV)
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub(super) delimiter: Option<u8>,

    /// Types of columns, as `value=number,sensor=text`: text, integer, number, bool
    #[arg(long, value_name = "COLUMN=TYPE", value_delimiter = ',')]
    pub(super) types: Vec<TypeArg>,

    #[command(flatten)]
    pub(super) entries: EntryArgs,

    /// Of records with the same ID, keep the last instead of refusing the input
    #[arg(long)]
    pub(super) last_wins: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text {
        "\\t" | "tab" => Ok(b'\t'),
        _ => match text.as_bytes() {
            [byte] if !matches!(byte, b'"' | b'\r' | b'\n' | 0) => Ok(*byte),
            _ => Err("it has to be one character of ASCII, or `tab`, and no quote".to_owned()),
        },
    }
}
