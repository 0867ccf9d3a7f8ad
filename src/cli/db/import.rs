//! `gattway db import`: checks the whole input before it writes the first document, so that a malformed line imports
//! nothing. Standard input beyond [`CHECKED_STDIN_BYTES`] cannot be read twice and is written as it comes; if that
//! ends early, the error says how many documents were saved.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::CollectionArg;
use crate::cli::documents::{Edit, IdArgs, edit_of};
use crate::cli::output::{Output, counted, thousands};
use crate::cli::progress::Progress;
use crate::cli::records::{self, Format};
use crate::cli::store::{self, SavedKind};
use crate::cli::{CliError, Exit};
use crate::database::{Collection, Database};

/// Bytes of standard input that are kept in memory to be checked as a whole before anything is written.
const CHECKED_STDIN_BYTES: u64 = 32 << 20;

/// Documents that are written and synced together. Large enough that the sync does not count.
const BATCH_DOCUMENTS: usize = 1000;

/// Bytes of input after which a batch is written, whatever the number of documents.
const BATCH_LINES_BYTES_HINT: usize = 4 << 20;

/// Save the records of a file: NDJSON, a JSON array, or CSV with a header.
///
/// All input is checked before the first document is written: a malformed line, an ID that occurs twice or a document
/// over the limit imports nothing. (More than 32 MiB on standard input is written while it is read; the error then says
/// how many documents were saved.) A document that is there with the same content is left alone, so an import can be
/// repeated. `"_deleted": true` in a record deletes the document.
///
/// In CSV a number becomes a JSON number if it prints back the same (`4.0`, not `007`), an empty cell becomes null.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db sensor.db db import readings.csv --id-from date
  gattway --db field.db db import penguins.json --id-prefix penguin-
  other-tool | gattway --db sensor.db db import - --format ndjson --collection plant.readings --create-collection")]
pub(in crate::cli) struct ImportArgs {
    /// Files to read; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    collection: CollectionArg,

    /// Create the collection if it does not exist
    #[arg(long)]
    create_collection: bool,

    /// How the input is written; otherwise the file's extension says it (.ndjson, .jsonl, .json, .csv)
    #[arg(long, value_enum)]
    format: Option<Format>,

    #[command(flatten)]
    ids: IdArgs,

    /// Of records with the same ID, keep the last instead of refusing the input
    #[arg(long)]
    last_wins: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// What an import did, for scripts.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Records read.
    records: u64,
    /// Documents written.
    saved: u64,
    /// Documents deleted.
    deleted: u64,
    /// Documents that were there with the same content.
    unchanged: u64,
}

/// Where records come from.
enum Source<'a> {
    File(&'a Path, File),
    Memory(Vec<u8>),
    /// The start of standard input; the rest is still to come.
    Stream(Vec<u8>),
}

pub(super) fn run(db: &Database, args: &ImportArgs) -> Result<(), CliError> {
    let mut inputs = Vec::new();
    for path in &args.files {
        inputs.push((open(path)?, format_of(path, args)?));
    }
    let total = check(&mut inputs, args)?;
    let collection = if args.create_collection {
        store::create_collection(db, &args.collection.collection)?
    } else {
        store::collection(db, &args.collection.collection)?
    };
    let mut import = Import {
        db,
        collection,
        batch: Vec::new(),
        summary: Summary::default(),
        progress: Progress::start("importing", total, args.json),
        total,
    };
    for (source, format) in inputs {
        let name = source.name();
        import
            .read(source.into_reader()?, format, &args.ids)
            .map_err(|error| import.interrupted(&name, &error))?;
    }
    import.finish(args.json)
}

/// Reads everything that can be read twice and gives the number of its records.
fn check(inputs: &mut [(Source<'_>, Format)], args: &ImportArgs) -> Result<u64, CliError> {
    let mut total = 0;
    let mut seen = HashMap::new();
    for (source, format) in inputs {
        let name = source.name();
        let mut number = 0;
        let mut check = |record| {
            number += 1;
            let edit = edit_of(record, number, &args.ids)?;
            store::check(&edit)?;
            match seen.insert(hash_of(&edit.id), edit.line) {
                Some(earlier) if !args.last_wins => Err(occurs_twice(&edit, earlier)),
                _ => Ok(()),
            }
        };
        let checked = match source {
            Source::File(_, file) => records::read(BufReader::new(&*file), *format, &mut check),
            Source::Memory(bytes) => records::read(bytes.as_slice(), *format, &mut check),
            Source::Stream(_) => Ok(()),
        };
        checked.map_err(|error| error.context(&format!("{name}: "), "; nothing was imported"))?;
        total += number;
    }
    Ok(total)
}

fn occurs_twice(edit: &Edit, earlier: u64) -> CliError {
    CliError::new(Exit::Input, format!("line {}: the ID {:?} was used on line {earlier} already", edit.line, edit.id))
        .help("choose a field whose values are unique, number the records with --id-prefix, or keep the last with --last-wins")
}

fn hash_of(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

fn format_of(path: &Path, args: &ImportArgs) -> Result<Format, CliError> {
    args.format.or_else(|| Format::of_path(path)).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("{}: the format is not known from the name", path.display()))
            .help("say it with --format ndjson, json or csv")
    })
}

fn open(path: &Path) -> Result<Source<'_>, CliError> {
    if path != Path::new("-") {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let seekable = file.metadata().is_ok_and(|data| data.is_file());
        if seekable {
            return Ok(Source::File(path, file));
        }
        return Err(CliError::new(Exit::Input, format!("{} is not a regular file", path.display()))
            .help("give its content on standard input, as file `-`"));
    }
    let mut start = Vec::new();
    let limit = CHECKED_STDIN_BYTES + 1;
    io::stdin().lock().take(limit).read_to_end(&mut start).map_err(|error| unreadable(path, &error))?;
    Ok(if start.len() as u64 == limit { Source::Stream(start) } else { Source::Memory(start) })
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Exit::Input, format!("{} cannot be read: {error}", path.display()))
}

impl Source<'_> {
    fn name(&self) -> String {
        match self {
            Source::File(path, _) => path.display().to_string(),
            Source::Memory(_) | Source::Stream(_) => "standard input".to_owned(),
        }
    }

    /// The input from its beginning.
    fn into_reader(self) -> Result<Box<dyn BufRead>, CliError> {
        Ok(match self {
            Source::File(path, mut file) => {
                io::Seek::rewind(&mut file).map_err(|error| unreadable(path, &error))?;
                Box::new(BufReader::new(file))
            }
            Source::Memory(bytes) => Box::new(Cursor::new(bytes)),
            Source::Stream(start) => Box::new(BufReader::new(Cursor::new(start).chain(io::stdin()))),
        })
    }
}

/// An import that is writing.
struct Import<'a> {
    db: &'a Database,
    collection: Collection,
    batch: Vec<Edit>,
    summary: Summary,
    progress: Progress,
    total: u64,
}

impl Import<'_> {
    fn read(&mut self, input: Box<dyn BufRead>, format: Format, ids: &IdArgs) -> Result<(), CliError> {
        let mut number = 0;
        let mut size = 0;
        records::read(input, format, &mut |record| {
            number += 1;
            let edit = edit_of(record, number, ids)?;
            size += store::check(&edit)?;
            self.batch.push(edit);
            if self.batch.len() >= BATCH_DOCUMENTS || size >= BATCH_LINES_BYTES_HINT {
                size = 0;
                self.write()?;
            }
            Ok(())
        })?;
        self.write()
    }

    /// Makes the batch durable.
    fn write(&mut self) -> Result<(), CliError> {
        let batch = std::mem::take(&mut self.batch);
        for kind in store::save(self.db, &self.collection, &batch)? {
            match kind {
                SavedKind::Saved => self.summary.saved += 1,
                SavedKind::Deleted => self.summary.deleted += 1,
                SavedKind::Unchanged => self.summary.unchanged += 1,
            }
        }
        self.summary.records += batch.len() as u64;
        self.progress.update(self.summary.records, self.total.max(self.summary.records), "");
        Ok(())
    }

    /// The error of an import that had begun to write.
    fn interrupted(&self, name: &str, error: &CliError) -> CliError {
        let after = match self.summary.records {
            0 => "; nothing was imported".to_owned(),
            n => format!("; {} before it were imported", counted(n, "record")),
        };
        error.context(&format!("{name}: "), &after)
    }

    fn finish(self, json: bool) -> Result<(), CliError> {
        let Summary { saved, deleted, unchanged, .. } = self.summary;
        if json {
            let mut out = Output::new();
            out.json(&self.summary)?;
            return out.flush();
        }
        let mut summary = format!("imported {}", counted(saved, "document"));
        if deleted > 0 {
            summary.push_str(&format!(", deleted {}", counted(deleted, "document")));
        }
        if unchanged > 0 {
            summary.push_str(&format!(", {} unchanged", thousands(unchanged)));
        }
        self.progress.finish(&summary);
        Ok(())
    }
}
