//! What `sync` shows while it runs, and the names that scripts read.

use std::error::Error as _;
use std::time::Instant;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::output::{counted, thousands};
use crate::cli::support::paced::{State, Topic};
use crate::cli::support::progress::Progress;
use crate::cli::support::unsynced::{self, direction_name};
pub(crate) use crate::gateway::status::activity_word as activity_name;
use crate::replicator::error::SessionError;
use crate::replicator::{DocumentReplication, ReplicatorActivity, ReplicatorError, ReplicatorStatus};
use crate::secure::SecureError;

/// The code with which a peer closes that takes encrypted connections only.
const CLOSE_POLICY: u16 = 1008;

/// The state of a replicator as people and scripts see it.
pub(crate) struct Display<'a> {
    peer: String,
    secure: bool,
    continuous: bool,
    events: &'a Events,
    progress: Progress,
    began: Instant,
    last: Option<(ReplicatorActivity, u64, u64)>,
    /// Documents of earlier connections of this run.
    earlier_documents: u64,
    documents: u64,
}

impl Display<'_> {
    /// A display of the replicator that syncs with `peer`.
    /// `continuous`: the sync waits for changes.
    pub(crate) fn new<'a>(peer: String, secure: bool, continuous: bool, events: &'a Events) -> Display<'a> {
        let progress = Progress::start("syncing", 0, events.json());
        Display {
            peer,
            secure,
            continuous,
            events,
            progress,
            began: Instant::now(),
            last: None,
            earlier_documents: 0,
            documents: 0,
        }
    }

    /// Tells what has changed since the last look.
    pub(crate) fn show(&mut self, status: &ReplicatorStatus) {
        let progress = status.progress;
        let now = (status.activity, progress.completed, progress.total);
        if self.last == Some(now) {
            self.draw(status);
            return;
        }
        if progress.documents < self.documents {
            // Numbers start again with each connection.
            self.earlier_documents += self.documents;
        }
        self.documents = progress.documents;
        if self.last.map(|last| last.0) != Some(status.activity) {
            self.say_activity(status);
        }
        if !status.unsynced.is_empty() || status.activity == ReplicatorActivity::Idle {
            self.events.left_out(&self.peer, &status.unsynced);
        }
        self.last = Some(now);
        let event = Event::Status {
            peer: &self.peer,
            secure: self.secure,
            activity: activity_name(status.activity),
            completed: progress.completed,
            total: progress.total,
            documents: self.total_documents(),
            error: status.error.as_ref().map(ToString::to_string),
        };
        self.events.tell_state(State::Connection, &self.peer, &event);
        self.draw(status);
    }

    /// Moves the bar: with what is under way too, for documents are confirmed many at a time.
    fn draw(&mut self, status: &ReplicatorStatus) {
        if !matches!(status.activity, ReplicatorActivity::Busy | ReplicatorActivity::Idle) {
            return;
        }
        let progress = status.progress;
        let rate = self.total_documents() as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        self.progress.update(
            (progress.completed + progress.under_way).min(progress.total.max(progress.completed)),
            progress.total,
            &format!("{} documents/s", thousands(rate as u64)),
        );
    }

    fn total_documents(&self) -> u64 {
        self.earlier_documents + self.documents
    }

    fn say_activity(&self, status: &ReplicatorStatus) {
        match (status.activity, &status.error) {
            (ReplicatorActivity::Connecting, _) => self.say(&format!("connecting to {}", self.peer)),
            (ReplicatorActivity::Offline, Some(error)) => {
                self.say(&format!("offline: {error}; will try again"))
            }
            // A sync that is done once has nothing to wait for: its last line tells how it ended.
            (ReplicatorActivity::Idle, _) if !self.continuous => {}
            (ReplicatorActivity::Idle, _) if status.unsynced.is_empty() => {
                self.say("in sync; waiting for changes");
            }
            (ReplicatorActivity::Idle, _) => {
                let left_out = unsynced::count_text(&status.unsynced);
                self.say(&format!("in sync except for {left_out}; waiting for changes"));
            }
            _ => {}
        }
    }

    /// A line for people.
    pub(crate) fn say(&self, line: &str) {
        self.progress.say(line);
    }

    /// Tells how it ended; gives the number of documents that went over. `interrupted`: it was to end before it was done.
    pub(crate) fn finish(self, status: &ReplicatorStatus, interrupted: bool) -> Result<u64, CliError> {
        self.events.tell_rest();
        let documents = self.total_documents();
        // A peer that was not reached has said nothing.
        if status.error.is_none() || !status.unsynced.is_empty() {
            self.events.left_out(&self.peer, &status.unsynced);
        }
        if let Some(error) = &status.error {
            return Err(CliError::new(Exit::Peer, format!("sync with {} stopped: {error}", self.peer))
                .help(advice(error, &self.peer)));
        }
        if interrupted {
            return Err(CliError::new(Exit::Interrupted, "interrupted; the next sync continues from here"));
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let except = match status.unsynced.is_empty() {
            true => String::new(),
            false => format!(" except for {}", unsynced::count_text(&status.unsynced)),
        };
        let summary = match documents {
            0 if except.is_empty() => format!("in sync with {}: nothing to do ({seconds:.1} s)", self.peer),
            0 => format!("in sync with {}{except}: nothing else to do ({seconds:.1} s)", self.peer),
            n => format!("in sync with {}{except}: {} in {seconds:.1} s", self.peer, counted(n, "document")),
        };
        let summary = match self.events.conflicts() {
            0 => summary,
            n => format!("{summary}, {} resolved", counted(n, "conflict")),
        };
        self.progress.finish(&summary);
        unsynced::lines(&status.unsynced).iter().for_each(|line| self.events.say(line));
        Ok(documents)
    }
}

/// What to do about an error that ended a sync.
fn advice(error: &ReplicatorError, peer: &str) -> &'static str {
    match error {
        ReplicatorError::Messaging(error)
            if error.source().is_some_and(|source| source.is::<SecureError>()) =>
        {
            let source = error.source().and_then(|source| source.downcast_ref());
            if let Some(SecureError::Version { .. }) = source {
                return "`gattway --version` on both devices tells which one is older";
            }
            "`gattway id` and `gattway peers ls` on both sides tell who knows whom"
        }
        ReplicatorError::Messaging(_) if peer.starts_with("ble:") => {
            "`gattway doctor` checks this machine's Bluetooth, `gattway scan` shows who is there"
        }
        ReplicatorError::Messaging(_) => "check the address, and that `gattway serve` runs there",
        ReplicatorError::ClosedByPeer { code: CLOSE_POLICY, .. } => {
            "both sides have to say the same: leave --plain out here, or give it to `gattway serve` there too"
        }
        ReplicatorError::Session(SessionError::RemoteCollectionMissing { .. }) => {
            "create it there (`gattway db collections --create`), or name the collections to sync with --collection"
        }
        ReplicatorError::Session(SessionError::Versioning) => {
            "`gattway db info` shows `revisions` on both sides; a database keeps its kind, so sync with one that \
             `gattway db create --versioning` made of the other kind, and `db export` and `db import` fill"
        }
        _ => "what was confirmed stays; the next sync continues from there",
    }
}

/// Tells of a document that came or went, or failed to: with `all` a script hears of each, else of those that failed as far as
/// their rate lets them. `peer`: with which of several.
pub(crate) fn tell_document(events: &Events, peer: Option<&str>, document: &DocumentReplication, all: bool) {
    let error = document.error.as_ref().map(ToString::to_string);
    let is_told = all || (error.is_some() && events.may_tell(Topic::Document, peer.unwrap_or_default()));
    if !is_told {
        return;
    }
    let direction = direction_name(document.direction);
    if let Some(error) = &error {
        let who = peer.map_or_else(String::new, |peer| format!("{peer}: "));
        let error = error.escape_debug();
        events.say(&format!("{who}document {:?} was not {direction}: {error}", document.id));
    }
    events.emit(&Event::Document {
        peer,
        direction,
        collection: &document.collection,
        id: &document.id,
        deleted: document.deleted,
        error,
    });
}
