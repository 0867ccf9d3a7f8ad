//! `--import` of `serve` and `sync`: documents that another program writes, one JSON object a line, are saved while
//! replication runs. A line is acknowledged when it is on stable storage; lines that arrive together share one sync. A line that
//! cannot be taken is reported and passed over, whatever is wrong with it: only a failing medium ends the import.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::cli::support::documents::{Entry, EntryArgs, entry_of};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::output::counted;
use crate::cli::support::records::{self, Format, LineRead};
use crate::cli::support::saving::{Done, Saver};
use crate::cli::support::store;
use crate::database::{Collection, Database};

/// Lines that may wait for stable storage. The writer waits beyond it.
const WAITING_LINES_MAX: usize = 256;

/// Bytes of lines that may wait for stable storage, unless one alone has more.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// Pause between two attempts to save while storage has no room.
const ROOM_PAUSE: Duration = Duration::from_millis(500);

/// Options of the import that runs beside replication.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Import")]
pub(crate) struct FeedArgs {
    /// Save documents that another program writes, one JSON object a line; `-` is standard input.
    ///
    /// A line that cannot be taken is reported and skipped. With --json each saved line is acknowledged by a `saved`
    /// event once it is on stable storage. `"_deleted": true` deletes.
    #[arg(long, value_name = "FILE")]
    pub(crate) import: Option<PathBuf>,

    /// The collection that --import saves into
    #[arg(long, value_name = "NAME", default_value = "_default", requires = "import")]
    pub(crate) import_collection: String,

    #[command(flatten)]
    pub(crate) entries: EntryArgs,
}

/// What an import came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fed {
    /// Records saved.
    pub(crate) saved: u64,
    /// Lines refused.
    pub(crate) rejected: u64,
}

/// A running import.
pub(crate) struct Feed {
    writer: thread::JoinHandle<Result<Fed, CliError>>,
}

/// One line, parsed or refused, and the room it takes.
struct Line {
    entry: Result<Entry, (u64, CliError)>,
    room: Room,
}

impl Feed {
    /// Starts the import that the options ask for, if any.
    ///
    /// # Errors
    /// No such file or collection; a format that cannot be read line by line.
    pub(crate) fn start(db: &Database, args: &FeedArgs, events: &Events) -> Result<Option<Feed>, CliError> {
        let Some(path) = &args.import else { return Ok(None) };
        let input = open(path)?;
        let collection = store::collection(db, &args.import_collection)?;
        args.entries.check()?;
        let reporter = Reporter { name: args.import_collection.clone(), events: events.clone() };
        let (db, entries) = (db.clone(), args.entries.clone());
        let writer = thread::spawn(move || feed(db, collection, input, entries, reporter));
        Ok(Some(Feed { writer }))
    }

    /// Waits until the input has ended and everything is on stable storage.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn wait(self) -> Result<Fed, CliError> {
        self.writer.join().unwrap_or_else(|_| Err(CliError::new(Exit::Failure, "the import panicked")))
    }

    /// Whether it has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.writer.is_finished()
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    if let Some(format @ (Format::Json | Format::Csv | Format::Tsv)) = Format::of_path(path) {
        let message = format!("--import reads one JSON object a line, and {} is {format:?}", path.display());
        return Err(CliError::new(Exit::Usage, message)
            .help(format!("import it first: gattway db import {}", path.display())));
    }
    let file = File::open(path)
        .map_err(|error| CliError::new(Exit::Input, format!("{} cannot be read: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

/// What is told of each line.
trait Report {
    /// It is on stable storage.
    fn saved(&self, done: &Done, saver: &Saver) -> Result<(), CliError>;
    /// It was passed over.
    fn rejected(&self, line: u64, error: &CliError);
    /// All lines were read.
    fn ended(&self, fed: Fed);
}

/// Reads all lines and saves what can be saved.
fn feed(
    db: Database,
    collection: Collection,
    input: impl BufRead + Send + 'static,
    entries: EntryArgs,
    report: impl Report,
) -> Result<Fed, CliError> {
    let saver = Saver::new(&db, collection, &entries)?;
    let (sender, receiver) = sync_channel(WAITING_LINES_MAX);
    thread::spawn(move || read_lines(input, &entries, &sender));
    Writer { db, saver, report, fed: Fed::default() }.run(&receiver)
}

/// Reads until the input ends or nobody takes lines any more.
fn read_lines(input: impl BufRead + Send + 'static, args: &EntryArgs, lines: &SyncSender<Line>) {
    let waiting = Arc::new(Waiting::default());
    let send = |entry: Result<Entry, (u64, CliError)>, bytes: usize| {
        lines.send(Line { entry, room: Waiting::room(&waiting, bytes) }).is_ok()
    };
    let mut input = match records::open_text(input) {
        Ok(input) => input,
        Err(error) => {
            send(Err((1, error)), 0);
            return;
        }
    };
    let mut text = Vec::new();
    for line in 1.. {
        let entry = match records::next_line(&mut input, &mut text) {
            Ok(LineRead::End) => return,
            Ok(LineRead::Line) if text.trim_ascii().is_empty() => continue,
            Ok(LineRead::Line) => entry_on(&text, line, args),
            Ok(LineRead::TooLong) => Err(records::too_long(line)),
            Err(error) => {
                // Where the next line begins is not known.
                send(Err((line, records::unreadable(line, &error))), 0);
                return;
            }
        };
        if !send(entry.map_err(|error| (line, error)), text.len()) {
            return;
        }
    }
}

fn entry_on(text: &[u8], line: u64, args: &EntryArgs) -> Result<Entry, CliError> {
    let entry = entry_of(records::parse_line(text, line)?, args)?;
    entry.check()?;
    Ok(entry)
}

/// Bytes of lines that wait for stable storage.
#[derive(Default)]
struct Waiting {
    bytes: Mutex<usize>,
    freed: Condvar,
}

impl Waiting {
    /// Takes room for a line, when there is some.
    fn room(waiting: &Arc<Waiting>, bytes: usize) -> Room {
        let mut held = waiting.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        while *held > 0 && *held + bytes > WAITING_BYTES_MAX {
            held = waiting.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        *held += bytes;
        Room { waiting: Arc::clone(waiting), bytes }
    }
}

/// The room of one line; freed when the line is dealt with.
struct Room {
    waiting: Arc<Waiting>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.waiting.bytes.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.waiting.freed.notify_one();
    }
}

/// Makes lines durable and acknowledges them.
struct Writer<R> {
    db: Database,
    saver: Saver,
    report: R,
    fed: Fed,
}

impl<R: Report> Writer<R> {
    fn run(mut self, lines: &Receiver<Line>) -> Result<Fed, CliError> {
        while let Ok(first) = lines.recv() {
            let (mut entries, mut rooms) = (Vec::new(), Vec::new());
            for line in std::iter::once(first).chain(lines.try_iter().take(WAITING_LINES_MAX)) {
                match line.entry {
                    Ok(entry) => entries.push(entry),
                    Err((line, error)) => self.reject(line, &error),
                }
                rooms.push(line.room);
            }
            let done = self.save(&entries).map_err(|error| {
                error.context("import: ", &format!("; {} records were saved before", self.fed.saved))
            })?;
            for done in &done {
                match &done.result {
                    Ok(_) => {
                        self.fed.saved += 1;
                        self.report.saved(done, &self.saver)?;
                    }
                    Err(refused) => self.reject(done.line, refused.error()),
                }
            }
        }
        self.report.ended(self.fed);
        Ok(self.fed)
    }

    fn reject(&mut self, line: u64, error: &CliError) {
        self.fed.rejected += 1;
        self.report.rejected(line, error);
    }

    /// Saves; while there is no free space, the input waits.
    fn save(&mut self, entries: &[Entry]) -> Result<Vec<Done>, CliError> {
        loop {
            match self.saver.save(entries) {
                Err(error) if is_waiting(&self.db, &error) => thread::sleep(ROOM_PAUSE),
                done => return done,
            }
        }
    }
}

/// Whether a save was refused for want of room, and may be taken later.
fn is_waiting(db: &Database, error: &CliError) -> bool {
    error.exit() == Exit::Database && db.failure().is_none() && db.room().is_short
}

/// Tells scripts and people.
struct Reporter {
    /// Of the collection.
    name: String,
    events: Events,
}

impl Report for Reporter {
    /// The revision is the document's newest, should a peer have been faster.
    fn saved(&self, done: &Done, saver: &Saver) -> Result<(), CliError> {
        if !self.events.json() {
            return Ok(());
        }
        let revision = store::revision(saver.collection(), &done.id)?;
        self.events.emit(&Event::Saved { line: done.line, collection: &self.name, id: &done.id, revision });
        Ok(())
    }

    fn rejected(&self, line: u64, error: &CliError) {
        self.events.reject(line, error);
    }

    fn ended(&self, fed: Fed) {
        self.events.emit(&Event::ImportEnded { saved: fed.saved, rejected: fed.rejected });
    }
}

/// Waits for the end of an import, and tells of it.
pub(crate) async fn finish_feed(feed: Feed, events: &Events) -> Result<(), CliError> {
    let fed = tokio::task::spawn_blocking(move || feed.wait())
        .await
        .unwrap_or_else(|_| Err(CliError::new(Exit::Failure, "the import panicked")))?;
    let mut line = format!("imported {}", counted(fed.saved, "record"));
    if fed.rejected > 0 {
        line.push_str(&format!(", skipped {}", counted(fed.rejected, "line")));
    }
    events.say(&line);
    Ok(())
}

/// With `stdio`, the peer has standard input and output for itself.
pub(crate) fn check_stdio(json: bool, import: Option<&Path>) -> Result<(), CliError> {
    let taken = if json {
        "--json writes to standard output"
    } else if import == Some(Path::new("-")) {
        "--import - reads standard input"
    } else {
        return Ok(());
    };
    Err(CliError::new(Exit::Usage, format!("{taken}, which carries the peer's bytes with the address stdio"))
        .help("use tcp: or unix:, or import from a file or a named pipe"))
}

#[cfg(test)]
mod tests;
