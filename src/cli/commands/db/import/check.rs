//! The look at all input before anything is written: types of columns, form of each record, IDs that occur twice.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::args::ImportArgs;
use super::source::Source;
use crate::cli::support::documents::{Entry, entry_of};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{counted, note};
use crate::cli::support::progress::Progress;
use crate::cli::support::records::{self, Columns, Format, Reading, Record};

/// IDs that are remembered to find one that occurs twice, 32 MiB of memory. With more records an ID that occurs twice is
/// found when it is saved: the second record meets the first one's document.
const SEEN_IDS_MAX: usize = 1 << 20;

/// Records after which the progress is told again.
const TOLD_RECORDS: u64 = 1_024;

/// Input whose form is known.
pub(super) struct Input {
    pub(super) source: Source,
    format: Format,
    columns: Option<Columns>,
}

impl Input {
    /// How its records are read.
    pub(super) fn reading(&self) -> Reading<'_> {
        match (&self.columns, self.format) {
            (Some(columns), _) => Reading::Table(columns),
            (None, Format::Json) => Reading::Array,
            (None, _) => Reading::Lines,
        }
    }
}

/// What the look at all input gave.
pub(super) struct Checked {
    pub(super) inputs: Vec<Input>,
    /// Records, as far as they are known.
    pub(super) total: u64,
    pub(super) lines: LastLines,
}

/// On which line of which input an ID occurs last.
pub(super) struct LastLines {
    /// By a hash of the ID; empty if it does not matter.
    seen: HashMap<u64, (u32, u64)>,
    last_wins: bool,
}

impl LastLines {
    /// Whether a record is the one to be saved.
    pub(super) fn is_last(&self, input: usize, entry: &Entry) -> bool {
        let Some(id) = entry.id.as_deref().filter(|_| self.last_wins) else { return true };
        self.seen.get(&hash_of(id)).is_none_or(|last| *last == (number_of(input), entry.line))
    }

    /// Notes where an ID occurs.
    fn note(&mut self, input: usize, names: &[String], entry: &Entry) -> Result<(), CliError> {
        let Some(id) = &entry.id else { return Ok(()) };
        let (hash, place) = (hash_of(id), (number_of(input), entry.line));
        if self.seen.len() >= SEEN_IDS_MAX && !self.seen.contains_key(&hash) {
            return match self.last_wins {
                false => Ok(()),
                true => Err(too_many_for_last_wins()),
            };
        }
        match self.seen.insert(hash, place) {
            Some(earlier) if !self.last_wins => Err(occurs_twice(entry, id, input, earlier, names)),
            _ => Ok(()),
        }
    }
}

fn too_many_for_last_wins() -> CliError {
    CliError::new(
        Exit::Usage,
        format!("--last-wins needs all IDs in memory, at most {SEEN_IDS_MAX} of a file"),
    )
    .help("leave it away and take --replace: each record then overwrites the one before")
}

fn occurs_twice(entry: &Entry, id: &str, input: usize, earlier: (u32, u64), names: &[String]) -> CliError {
    let (file, line) = earlier;
    let of_file = match names.get(file as usize) {
        Some(name) if file != number_of(input) => format!(" of {name}"),
        _ => String::new(),
    };
    let message = format!("line {}: the ID {id:?} was used on line {line}{of_file} already", entry.line);
    CliError::new(Exit::Input, message).help(
        "choose fields whose values are unique together (--id-from sensor,time), number the records with --id-prefix, or \
         keep the last with --last-wins",
    )
}

fn number_of(input: usize) -> u32 {
    u32::try_from(input).unwrap_or(u32::MAX)
}

fn hash_of(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// Reads everything that can be read twice.
pub(super) fn check(args: &ImportArgs) -> Result<Checked, CliError> {
    let mut inputs = Vec::new();
    for path in &args.files {
        let format = format_of(path, args)?;
        if format.delimiter().is_none() && (!args.types.is_empty() || args.delimiter.is_some()) {
            let message = format!("{}: --types and --delimiter are for tables (CSV, TSV)", path.display());
            return Err(CliError::new(Exit::Usage, message));
        }
        inputs.push(Input { source: Source::open(path)?, format, columns: None });
    }
    let bytes = inputs.iter().map(|input| input.source.bytes() * passes_over(input)).sum::<u64>();
    let mut looker = Looker {
        args,
        names: inputs.iter().map(|input| input.source.name()).collect(),
        lines: LastLines { seen: HashMap::new(), last_wins: args.last_wins },
        total: 0,
        read: Arc::default(),
        bytes,
        progress: Progress::start("checking, KiB", bytes >> 10, args.json),
    };
    for (number, input) in inputs.iter_mut().enumerate() {
        let checked = looker.look_at(number, input);
        checked.map_err(|error| {
            error.context(&format!("{}: ", looker.names[number]), "; nothing was imported")
        })?;
    }
    Ok(Checked { inputs, total: looker.total, lines: looker.lines })
}

/// How often an input is read before anything is written.
fn passes_over(input: &Input) -> u64 {
    let table = u64::from(input.format.delimiter().is_some());
    table + u64::from(!input.source.is_stream())
}

fn format_of(path: &Path, args: &ImportArgs) -> Result<Format, CliError> {
    args.format.or_else(|| Format::of_path(path)).ok_or_else(|| {
        if path.is_dir() {
            return CliError::new(Exit::Input, format!("{} is a directory", path.display()))
                .help("name the files in it, each by itself");
        }
        CliError::new(Exit::Usage, format!("{}: the format is not known from the name", path.display()))
            .help("say it with --format ndjson, json, csv or tsv")
    })
}

/// Looks at one input after the other.
struct Looker<'a> {
    args: &'a ImportArgs,
    names: Vec<String>,
    lines: LastLines,
    /// Records so far.
    total: u64,
    /// Bytes read so far, and to be read.
    read: Arc<AtomicU64>,
    bytes: u64,
    progress: Progress,
}

impl Looker<'_> {
    fn look_at(&mut self, number: usize, input: &mut Input) -> Result<(), CliError> {
        if let Some(delimiter) = input.format.delimiter() {
            let text = input.source.known_text(&self.read)?;
            let delimiter = self.args.delimiter.unwrap_or(delimiter);
            let (types, is_cut) = (&self.args.types, input.source.is_stream());
            let survey = records::survey(text, delimiter, types, is_cut, &mut |row| {
                if row.is_multiple_of(TOLD_RECORDS) {
                    self.tell();
                }
            })?;
            for warning in survey.warnings {
                note(&format!("{}: {warning}", self.names[number]));
            }
            input.columns = Some(survey.columns);
        }
        if input.source.is_stream() {
            return match self.args.last_wins {
                false => Ok(()),
                true => Err(too_many_for_last_wins()),
            };
        }
        let text = input.source.known_text(&self.read)?;
        records::read(text, input.reading(), &mut |record| self.look_at_record(number, record))
    }

    fn look_at_record(&mut self, number: usize, record: Record) -> Result<(), CliError> {
        let entry = entry_of(record, &self.args.entries)?;
        entry.check()?;
        self.lines.note(number, &self.names, &entry)?;
        self.total += 1;
        if self.total.is_multiple_of(TOLD_RECORDS) {
            self.tell();
        }
        Ok(())
    }

    fn tell(&mut self) {
        let note = counted(self.total, "record");
        self.progress.update(self.read.load(Ordering::Relaxed) >> 10, self.bytes >> 10, &note);
    }
}
