//! `gattway db import`: checks the whole input before it writes the first document, so that a malformed line imports
//! nothing. Standard input beyond [`CHECKED_STDIN_BYTES`] cannot be read twice and is written as it comes; if that
//! ends early, the error says how many documents were saved.

mod check;
mod source;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::CollectionArg;
use crate::cli::support::documents::{Entry, EntryArgs, entry_of};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, counted, thousands};
use crate::cli::support::progress::Progress;
use crate::cli::support::records::{self, Format, TypeArg};
use crate::cli::support::runtime::Signals;
use crate::cli::support::saving::{Refused, SavedKind, Saver};
use crate::cli::support::store;
use check::{Checked, check};

/// Bytes of standard input that are kept in memory to be checked as a whole before anything is written.
const CHECKED_STDIN_BYTES: u64 = 32 << 20;

/// Documents that are written and synced together. Large enough that the sync does not count.
const BATCH_DOCUMENTS: usize = 1000;

/// Bytes of input after which a batch is written, whatever the number of documents.
const BATCH_LINES_BYTES_HINT: usize = 4 << 20;

/// Documents that were kept against a record of other content, which are named; further ones are counted.
const KEPT_NAMED_MAX: u64 = 10;

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
    files: Vec<PathBuf>,

    #[command(flatten)]
    collection: CollectionArg,

    /// Create the collection if it does not exist
    #[arg(long)]
    create_collection: bool,

    /// How the input is written; otherwise the file's extension says it (.ndjson, .jsonl, .json, .csv, .tsv, each also with .gz)
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// What separates the cells of a table, one character; otherwise a comma (CSV) or a tab (TSV)
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,

    /// Types of columns, as `value=number,sensor=text`: text, integer, number, bool
    #[arg(long, value_name = "COLUMN=TYPE", value_delimiter = ',')]
    types: Vec<TypeArg>,

    #[command(flatten)]
    entries: EntryArgs,

    /// Of records with the same ID, keep the last instead of refusing the input
    #[arg(long)]
    last_wins: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
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

/// What an import did, for scripts.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Records read.
    records: u64,
    /// Documents written that were not there.
    saved: u64,
    /// Documents whose content was replaced.
    replaced: u64,
    /// Documents deleted.
    deleted: u64,
    /// Documents that were there with the same content.
    unchanged: u64,
    /// Documents that were there with other content and were kept.
    kept: u64,
}

pub(super) fn run(path: &Path, args: &ImportArgs) -> Result<(), CliError> {
    args.entries.check()?;
    // Until then nothing was changed, and a signal may end it as it is.
    let ready = || check(args).and_then(|checked| Ok((checked, Signals::listen()?)));
    let (db, (Checked { inputs, total, lines }, signals)) = store::open_or_make_for(path, ready)?;
    let db = &db;
    let collection = if args.create_collection {
        store::create_collection(db, &args.collection.collection)?
    } else {
        store::collection(db, &args.collection.collection)?
    };
    let mut import = Import {
        saver: Saver::new(db, collection, &args.entries)?,
        batch: Vec::new(),
        batch_bytes: 0,
        summary: Summary::default(),
        progress: Progress::start("importing", total, args.json),
        total,
        name: String::new(),
        signals,
        goes_on: args.entries.id_prefix.is_none(),
    };
    for (number, input) in inputs.iter().enumerate() {
        import.name = input.source.name();
        let taken = input.source.text().and_then(|text| {
            records::read(text, input.reading(), &mut |record| {
                let entry = entry_of(record, &args.entries)?;
                match lines.is_last(number, &entry) {
                    true => import.add(entry),
                    false => Ok(()),
                }
            })
        });
        taken.and_then(|()| import.write()).map_err(|error| import.interrupted(&error))?;
    }
    import.finish(args.json)
}

/// An import that is writing.
struct Import {
    saver: Saver,
    batch: Vec<Entry>,
    batch_bytes: usize,
    summary: Summary,
    progress: Progress,
    total: u64,
    /// The input that is being read.
    name: String,
    signals: Signals,
    /// Whether the same command again leaves what it has imported before as it is.
    goes_on: bool,
}

impl Import {
    fn add(&mut self, entry: Entry) -> Result<(), CliError> {
        self.batch_bytes += entry.check()?;
        self.batch.push(entry);
        if self.batch.len() >= BATCH_DOCUMENTS || self.batch_bytes >= BATCH_LINES_BYTES_HINT {
            self.write()?;
            if self.signals.is_told() {
                return Err(CliError::new(Exit::Interrupted, "interrupted"));
            }
        }
        Ok(())
    }

    /// Makes the batch durable.
    fn write(&mut self) -> Result<(), CliError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        for done in self.saver.save(&batch)? {
            match done.result {
                Ok(SavedKind::Saved) => self.summary.saved += 1,
                Ok(SavedKind::Replaced) => self.summary.replaced += 1,
                Ok(SavedKind::Deleted) => self.summary.deleted += 1,
                Ok(SavedKind::Unchanged) => self.summary.unchanged += 1,
                Err(Refused::Kept(error)) => {
                    self.summary.kept += 1;
                    if self.summary.kept <= KEPT_NAMED_MAX {
                        self.progress.say(&format!("{}: {error}", self.name));
                    }
                }
                Err(Refused::Invalid(error)) => return Err(error),
            }
        }
        self.summary.records += batch.len() as u64;
        self.progress.update(self.summary.records, self.total.max(self.summary.records), "");
        Ok(())
    }

    /// The error of an import that had begun to write.
    fn interrupted(&self, error: &CliError) -> CliError {
        let after = match self.summary.records {
            0 => "; nothing was imported".to_owned(),
            n => format!("; {} before it were imported", counted(n, "record")),
        };
        let error = error.context(&format!("{}: ", self.name), &after);
        match self.summary.records {
            1.. if self.goes_on && self.signals.is_told() => {
                error.help("the same command again imports the rest: what is there already stays as it is")
            }
            _ => error,
        }
    }

    fn finish(self, json: bool) -> Result<(), CliError> {
        let Summary { saved, replaced, deleted, unchanged, kept, .. } = self.summary;
        if json {
            let mut out = Output::new();
            out.json(&self.summary)?;
            out.flush()?;
        } else {
            let mut summary = format!("imported {}", counted(saved, "document"));
            for (count, what) in [(replaced, "replaced"), (deleted, "deleted")] {
                if count > 0 {
                    summary.push_str(&format!(", {what} {}", counted(count, "document")));
                }
            }
            for (count, what) in [(unchanged, "unchanged"), (kept, "kept with other content")] {
                if count > 0 {
                    summary.push_str(&format!(", {} {what}", thousands(count)));
                }
            }
            self.progress.finish(&summary);
        }
        if kept == 0 {
            return Ok(());
        }
        let message =
            format!("{} not imported: their documents are there with other content", counted(kept, "record"));
        Err(CliError::new(Exit::Input, message).help(
            "--replace overwrites them; if they are other documents, give them other IDs (--id-from sensor,time, or --id-prefix)",
        ))
    }
}
