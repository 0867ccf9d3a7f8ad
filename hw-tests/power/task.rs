//! What host and guest tell each other: a task for each boot as a JSON file, and lines on the guest's console.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Threads that write to one database, each a history of its own.
pub const THREADS: usize = 3;

/// The two databases, each on a disk of its own. The first is the active side of the replication.
pub const SIDES: [&str; 2] = ["a", "b"];

/// What is put to the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Mode {
    /// Writes return when stable storage has them: nothing acknowledged may be lost
    Safe,
    /// Writes return at once: at most what was acknowledged within the declared window may be lost
    Relaxed,
    /// As safe, with the store's fdatasync left out: the test must find losses, or it is worth nothing
    NoSync,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Safe => "safe",
            Mode::Relaxed => "relaxed",
            Mode::NoSync => "no-sync",
        })
    }
}

/// One thread of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Writer {
    pub side: usize,
    pub thread: usize,
}

impl Writer {
    pub fn all() -> impl Iterator<Item = Writer> {
        (0..SIDES.len()).flat_map(|side| (0..THREADS).map(move |thread| Writer { side, thread }))
    }

    /// Its place in lists of all writers.
    pub fn index(self) -> usize {
        self.side * THREADS + self.thread
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", SIDES[self.side], self.thread)
    }
}

impl FromStr for Writer {
    type Err = ();

    fn from_str(text: &str) -> Result<Writer, ()> {
        Writer::all().find(|writer| writer.to_string() == text).ok_or(())
    }
}

/// A revision that was acknowledged to a writer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Revision {
    /// Which operation made it.
    pub operation: u64,
    /// Time of the version, whose author is the writer's database.
    pub time: u64,
}

/// What the guest is to do in one life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    pub mode: Mode,
    /// Of the histories.
    pub seed: u64,
    /// Newest acknowledged operation of each writer.
    pub acknowledged: Vec<u64>,
    /// The newest acknowledged revision of each document, by writer and ID.
    pub revisions: Vec<BTreeMap<String, Revision>>,
    /// IDs of which a side was told that it has them on its medium, having got them from the other.
    pub replicated: [BTreeSet<String>; 2],
    /// Instead of writing, sync until nothing is left to sync, and compare the two sides.
    pub finish: bool,
}

/// A line on the guest's console. Times are milliseconds since the guest's program started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// After the cut before: the writer's documents are as after this operation; `None`: as after none that can be.
    Found { writer: Writer, operation: Option<u64> },
    /// A document that a side was told to have is not there.
    Missing { side: usize, id: String },
    /// The document is there, at an older revision than the acknowledged one.
    Stale { writer: Writer, id: String },
    /// Anything else that must not be.
    Problem(String),
    /// Documents and tombstones that were read and compared, and how long opening and checking took.
    Checked { documents: u64, open_ms: u64, check_ms: u64 },
    /// Writers start now.
    Writing,
    /// An operation returned to its writer, with the revisions it made.
    Acknowledged { writer: Writer, operation: u64, ms: u64, revisions: Vec<(String, u64)> },
    /// A side has a document of the other's on its medium, and the other was told so.
    Replicated { side: usize, id: String },
    /// Both sides hold the same, so many documents and tombstones.
    Equal(u64),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Found { writer, operation: Some(operation) } => write!(f, "found {writer} {operation}"),
            Line::Found { writer, operation: None } => write!(f, "found {writer} none"),
            Line::Missing { side, id } => write!(f, "missing {side} {id}"),
            Line::Stale { writer, id } => write!(f, "stale {writer} {id}"),
            Line::Problem(text) => write!(f, "problem {}", text.replace('\n', " ")),
            Line::Checked { documents, open_ms, check_ms } => {
                write!(f, "checked {documents} {open_ms} {check_ms}")
            }
            Line::Writing => f.write_str("writing"),
            Line::Acknowledged { writer, operation, ms, revisions } => {
                write!(f, "ack {writer} {operation} {ms}")?;
                revisions.iter().try_for_each(|(id, time)| write!(f, " {id}={time}"))
            }
            Line::Replicated { side, id } => write!(f, "replicated {side} {id}"),
            Line::Equal(documents) => write!(f, "equal {documents}"),
        }?;
        // A line that the cut has shortened must not be taken for a whole one.
        f.write_str(" .")
    }
}

impl FromStr for Line {
    type Err = ();

    fn from_str(text: &str) -> Result<Line, ()> {
        let text = text.trim_end().strip_suffix(" .").ok_or(())?;
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().map_err(drop);
        let side = |text: &str| text.parse::<usize>().ok().filter(|side| *side < SIDES.len()).ok_or(());
        Ok(match (kind, &words[..]) {
            ("found", [writer, "none"]) => Line::Found { writer: writer.parse()?, operation: None },
            ("found", [writer, n]) => Line::Found { writer: writer.parse()?, operation: Some(number(n)?) },
            ("missing", [at, id]) => Line::Missing { side: side(at)?, id: (*id).to_owned() },
            ("stale", [writer, id]) => Line::Stale { writer: writer.parse()?, id: (*id).to_owned() },
            ("problem", _) => Line::Problem(rest.to_owned()),
            ("checked", [n, open, check]) => {
                Line::Checked { documents: number(n)?, open_ms: number(open)?, check_ms: number(check)? }
            }
            ("writing", _) => Line::Writing,
            ("ack", [writer, operation, ms, revisions @ ..]) => {
                let revision = |text: &&str| {
                    let (id, time) = text.split_once('=').ok_or(())?;
                    Ok((id.to_owned(), number(time)?))
                };
                let revisions = revisions.iter().map(revision).collect::<Result<_, ()>>()?;
                let (operation, ms) = (number(operation)?, number(ms)?);
                Line::Acknowledged { writer: writer.parse()?, operation, ms, revisions }
            }
            ("replicated", [at, id]) => Line::Replicated { side: side(at)?, id: (*id).to_owned() },
            ("equal", [n]) => Line::Equal(number(n)?),
            _ => return Err(()),
        })
    }
}
