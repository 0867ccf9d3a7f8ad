//! `--import` of `serve` and `sync`: documents that another program writes, one JSON object a line, are saved while
//! replication runs. A line is acknowledged when it is on the medium; lines that arrive together share one sync.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;

use super::documents::{Edit, IdArgs, edit_of};
use super::events::{Event, Events};
use super::store::SavedKind;
use super::{CliError, Exit, records, store};
use crate::database::{Collection, Database};

/// Lines that may wait for the medium. The writer waits beyond it.
const WAITING_LINES_MAX: usize = 256;

/// Pause between two attempts to save while the medium has no room.
const ROOM_PAUSE: Duration = Duration::from_millis(500);

/// Options of the import that runs beside replication.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Import")]
pub(super) struct FeedArgs {
    /// Save documents that another program writes, one JSON object a line; `-` is standard input.
    ///
    /// A line that cannot be taken is reported and skipped. With --json each saved line is acknowledged by a `saved`
    /// event once it is on the medium. `"_deleted": true` deletes.
    #[arg(long, value_name = "FILE")]
    pub(super) import: Option<PathBuf>,

    /// The collection that --import saves into
    #[arg(long, value_name = "NAME", default_value = "_default", requires = "import")]
    pub(super) import_collection: String,

    #[command(flatten)]
    pub(super) ids: IdArgs,
}

/// What an import came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fed {
    /// Records saved.
    pub(super) saved: u64,
    /// Lines refused.
    pub(super) rejected: u64,
}

/// A running import.
pub(super) struct Feed {
    writer: thread::JoinHandle<Result<Fed, CliError>>,
}

/// One line, parsed or refused.
type Line = Result<Edit, (u64, CliError)>;

impl Feed {
    /// Starts the import that the options ask for, if any.
    ///
    /// # Errors
    /// No such file or collection.
    pub(super) fn start(db: &Database, args: &FeedArgs, events: &Events) -> Result<Option<Feed>, CliError> {
        let Some(path) = &args.import else { return Ok(None) };
        let input = open(path)?;
        let collection = store::collection(db, &args.import_collection)?;
        let (sender, receiver) = sync_channel(WAITING_LINES_MAX);
        let ids = args.ids.clone();
        thread::spawn(move || read_lines(input, &ids, &sender));
        let writer = Writer {
            db: db.clone(),
            collection,
            name: args.import_collection.clone(),
            events: events.clone(),
        };
        let writer = thread::spawn(move || writer.run(&receiver));
        Ok(Some(Feed { writer }))
    }

    /// Waits until the input has ended and everything is on the medium.
    ///
    /// # Errors
    /// The database failed.
    pub(super) fn wait(self) -> Result<Fed, CliError> {
        self.writer.join().unwrap_or_else(|_| Err(CliError::new(Exit::Failure, "the import panicked")))
    }

    /// Whether it has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.writer.is_finished()
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path)
        .map_err(|error| CliError::new(Exit::Input, format!("{} cannot be read: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

/// Reads until the input ends or nobody takes lines any more.
fn read_lines(mut input: Box<dyn BufRead + Send>, ids: &IdArgs, lines: &SyncSender<Line>) {
    let mut text = Vec::new();
    let mut number = 0;
    for line in 1.. {
        let parsed = match records::next_line(&mut input, &mut text, line) {
            Ok(false) => return,
            Ok(true) if text.trim_ascii().is_empty() => continue,
            Ok(true) => {
                number += 1;
                records::parse_line(&text, line).and_then(|record| edit_of(record, number, ids))
            }
            Err(error) => {
                // Where the next line begins is not known.
                let _ = lines.send(Err((line, error)));
                return;
            }
        };
        let checked = parsed.and_then(|edit| store::check(&edit).map(|_| edit));
        if lines.send(checked.map_err(|error| (line, error))).is_err() {
            return;
        }
    }
}

/// Whether a save was refused for want of room, and may be taken later.
fn is_waiting(db: &Database, error: &CliError) -> bool {
    error.exit() == Exit::Database && db.failure().is_none() && db.room().is_short
}

/// Makes lines durable and acknowledges them.
struct Writer {
    db: Database,
    collection: Collection,
    name: String,
    events: Events,
}

impl Writer {
    fn run(self, lines: &Receiver<Line>) -> Result<Fed, CliError> {
        let mut fed = Fed::default();
        while let Ok(first) = lines.recv() {
            let mut edits = Vec::new();
            for line in std::iter::once(first).chain(lines.try_iter().take(WAITING_LINES_MAX)) {
                match line {
                    Ok(edit) => edits.push(edit),
                    Err((line, error)) => {
                        fed.rejected += 1;
                        self.events.reject(line, &error);
                    }
                }
            }
            let saved = self.save(&edits).map_err(|error| {
                error.context("import: ", &format!("; {} records were saved before", fed.saved))
            })?;
            fed.saved += saved.len() as u64;
            self.acknowledge(&edits)?;
        }
        self.events.emit(&Event::ImportEnded { saved: fed.saved, rejected: fed.rejected });
        Ok(fed)
    }

    /// Saves; while there is no room on the medium, the input waits.
    fn save(&self, edits: &[Edit]) -> Result<Vec<SavedKind>, CliError> {
        loop {
            match store::save(&self.db, &self.collection, edits) {
                Err(error) if is_waiting(&self.db, &error) => thread::sleep(ROOM_PAUSE),
                done => return done,
            }
        }
    }

    /// Tells which edits are on the medium. The revision is the document's newest, should a peer have been faster.
    fn acknowledge(&self, edits: &[Edit]) -> Result<(), CliError> {
        if !self.events.json() {
            return Ok(());
        }
        for edit in edits {
            let revision = store::revision(&self.collection, &edit.id)?;
            self.events.emit(&Event::Saved {
                line: edit.line,
                collection: &self.name,
                id: &edit.id,
                revision,
            });
        }
        Ok(())
    }
}
