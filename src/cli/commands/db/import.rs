//! `gattway db import`: checks the whole input before it writes the first document, so that a malformed line imports
//! nothing. Standard input beyond [`source::CHECKED_STDIN_BYTES`] cannot be read twice and is written as it comes; if that
//! ends early, the error says how many documents were saved.

mod args;
mod check;
mod source;

use std::path::Path;

use serde::Serialize;

use crate::cli::commands::control::save::RemoteSaver;
use crate::cli::support::documents::{Entry, entry_of};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, counted, thousands};
use crate::cli::support::progress::Progress;
use crate::cli::support::reach::{self, Reached};
use crate::cli::support::records;
use crate::cli::support::runtime::Signals;
use crate::cli::support::saving::{Done, Refused, SavedKind, Saver};
use crate::cli::support::store;
pub(crate) use args::ImportArgs;
use check::{Checked, check};

/// Documents that are written and synced together. Large enough that the sync does not count.
const BATCH_DOCUMENTS: usize = 1000;

/// Bytes of input after which a batch is written, whatever the number of documents.
const BATCH_LINES_BYTES_HINT: usize = 4 << 20;

/// Documents that were kept against a record of other content, which are named; further ones are counted.
const KEPT_NAMED_MAX: u64 = 10;

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
    let (reached, (Checked { inputs, total, lines }, signals)) = reach::or_make_for(path, ready)?;
    let mut import = Import {
        saver: Saving::start(reached, args)?,
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

/// Who saves: this process, or the one that has the database open.
enum Saving {
    Here(Saver),
    There(RemoteSaver),
}

impl Saving {
    fn start(reached: Reached, args: &ImportArgs) -> Result<Saving, CliError> {
        let (name, create) = (&args.collection.collection, args.create_collection);
        let db = match reached {
            Reached::Own(db) => db,
            Reached::Held(client) => {
                return RemoteSaver::new(client, name, create, &args.entries).map(Saving::There);
            }
        };
        let collection =
            if create { store::create_collection(&db, name)? } else { store::collection(&db, name)? };
        Saver::new(&db, collection, &args.entries).map(Saving::Here)
    }

    /// Makes records durable, those that can be saved together or none.
    fn save(&mut self, entries: Vec<Entry>) -> Result<Vec<Done>, CliError> {
        match self {
            Saving::Here(saver) => saver.save(&entries),
            Saving::There(saver) => saver.save(entries),
        }
    }
}

/// An import that is writing.
struct Import {
    saver: Saving,
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
        let count = batch.len() as u64;
        self.batch_bytes = 0;
        for done in self.saver.save(batch)? {
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
        self.summary.records += count;
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
