//! `gattway db changes`: prints the change feed of a collection, and with `--follow` what comes later.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::CollectionArg;
use crate::cli::commands::control::changes::{Request, Row, Rows};
use crate::cli::support::client::Client;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::Output;
use crate::cli::support::reach::{self, Reached};
use crate::cli::support::store;
use crate::database::Collection;

/// How often `--follow` looks at the database's files.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Times that somebody else is asked who is gone then.
const ATTEMPTS: usize = 5;

/// Changes that are read at once.
const PAGE: usize = 1000;

/// Print what changed, in order: each document once, at its newest change.
///
/// Only one process can have a database open: while a `serve` or `sync` has it, that one is asked. With --follow it goes on; it
/// opens the database for a moment whenever its files have changed, so that other short commands go on working beside it, and
/// is told at once of what a `serve` or `sync` takes and sends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db changes
  gattway --db my.db db changes --since 8759 --json
  gattway --db my.db db changes --follow")]
pub(crate) struct ChangesArgs {
    /// Only changes after this sequence
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    since: u64,

    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Go on and print changes as they come, until Ctrl-C
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    collection: CollectionArg,

    /// One JSON object a line, with `sequence`, `_id`, `_rev` and `deleted`
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &GlobalArgs, args: &ChangesArgs) -> Result<(), CliError> {
    let path = global.db_path()?;
    let mut feed =
        Feed { args, since: args.since, left: args.limit.unwrap_or(usize::MAX), out: Output::new() };
    let mut seen = newest_file(path);
    feed.print_once(path)?;
    while args.follow && feed.left > 0 {
        thread::sleep(FOLLOW_INTERVAL);
        let now = newest_file(path);
        if now != seen && feed.try_print(path)? {
            // What opening and closing did to the files is not news.
            seen = newest_file(path);
        }
    }
    Ok(())
}

/// The time of the newest change to any file of the database.
fn newest_file(path: &Path) -> Option<SystemTime> {
    let times =
        std::fs::read_dir(path).ok()?.flatten().filter_map(|file| file.metadata().ok()?.modified().ok());
    times.max()
}

/// Who has read the changes that were printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Printed {
    Here,
    ByHolder,
}

struct Feed<'a> {
    args: &'a ChangesArgs,
    since: u64,
    left: usize,
    out: Output,
}

impl Feed<'_> {
    /// Prints what there is, also of a database that another process has open for longer.
    fn print_once(&mut self, path: &Path) -> Result<(), CliError> {
        for _ in 0..ATTEMPTS {
            let reached = reach::for_reading(path)?;
            if self.print_of(reached)?.is_some() {
                return Ok(());
            }
        }
        let message = format!("whoever has the database {} open gives no answer", path.display());
        Err(CliError::new(Exit::Database, message).help("try again"))
    }

    /// Prints what is new, and with a `serve` or `sync` what comes while it runs; true if the database was opened for it.
    fn try_print(&mut self, path: &Path) -> Result<bool, CliError> {
        match reach::for_reading_now(path)? {
            Some(reached) => Ok(self.print_of(reached)? == Some(Printed::Here)),
            None => Ok(false),
        }
    }

    /// `None`: whoever had it is gone.
    fn print_of(&mut self, reached: Reached) -> Result<Option<Printed>, CliError> {
        match reached {
            Reached::Own(db) => {
                self.print(&store::collection(&db, &self.args.collection.collection)?)?;
                Ok(Some(Printed::Here))
            }
            // What was written while that process ended is looked for next.
            Reached::Held(client) => Ok(self.ask(&client)?.then_some(Printed::ByHolder)),
        }
    }

    /// Lets the process that has the database tell; false if it is gone.
    fn ask(&mut self, client: &Client) -> Result<bool, CliError> {
        let request = Request {
            collection: self.args.collection.collection.clone(),
            since: self.since,
            follow: self.args.follow,
        };
        let Some(mut rows) = Rows::ask(client, &request)? else { return Ok(false) };
        while self.left > 0 {
            if !rows.has_more() {
                self.out.flush()?;
            }
            let Some(row) = rows.next() else { break };
            self.line(&row)?;
        }
        self.out.flush()?;
        Ok(true)
    }

    fn print(&mut self, collection: &Collection) -> Result<(), CliError> {
        while self.left > 0 {
            let page = collection.changes_since(self.since, self.left.min(PAGE)).map_err(store::failed)?;
            if page.is_empty() {
                break;
            }
            for change in page {
                self.line(&change.into())?;
            }
        }
        self.out.flush()
    }

    fn line(&mut self, row: &Row) -> Result<(), CliError> {
        self.since = row.sequence;
        self.left -= 1;
        if self.args.json {
            self.out.json(row)
        } else {
            let deleted = if row.deleted { "  deleted" } else { "" };
            self.out.text(&format!("{:>8}  {}{deleted}", row.sequence, row.id))
        }
    }
}
