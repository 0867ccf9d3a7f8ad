//! What long-running commands tell while they run: lines for people on standard error, or (`--json`) one JSON object a
//! line on standard output, each with the name of its kind in `event`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::flood::{BURST, EVERY, Limiter};
use crate::cli::support::sink::Sink;
use crate::cli::support::unsynced::{LeftOut, Tally, Totals};
use crate::cli::support::visible::visible_json;
use crate::cli::support::{output, words};
use crate::database::bench::process_cpu;
use crate::replicator::{ConflictOutcome, ConflictReport, Unsynced};

/// Lines about conflicts, all peers together: there may be any number of such.
const CONFLICT_LINES_MAX: u64 = 100;

/// How long the end of the process waits for a script that reads nothing.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Something that happened. The field names are a promise to scripts.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// There was no database, so an empty one was made.
    Created { path: String },
    /// Peers can connect now; for TCP with the real port.
    Listening { address: String },
    /// It does not listen there now, and tries again.
    ListenFailed { address: String, error: &'a str },
    /// A peer has proven who it is and came in. Not with --plain.
    Peer {
        /// What `status` calls it.
        peer: &'a str,
        /// Its ID in full.
        id: String,
        /// Its name here, if it has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        /// `group`, `paired` or `open`.
        via: &'a str,
    },
    /// A peer was refused.
    Refused {
        /// Where it came from.
        peer: &'a str,
        /// Its ID, if it came so far as to prove it.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        error: String,
    },
    /// A connection or a replicator changed its state.
    Status {
        peer: &'a str,
        /// Whether it is encrypted, with a peer that has proven who it is.
        secure: bool,
        activity: &'a str,
        completed: u64,
        total: u64,
        documents: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A radio connection was made, or something of it has changed; what is not known is null.
    #[cfg(feature = "bluetooth")]
    Radio(&'a crate::transport::bluez::radio::RadioStatus),
    /// A device wants to pair: this code must be typed there.
    #[cfg(feature = "bluetooth")]
    Passkey { peer: &'a str, code: String },
    /// Nothing is stored for want of room (`full`), or it is again.
    Storage {
        full: bool,
        /// What has come to its end: `disk`, `quota`, or `file_size` (`ulimit -f`).
        #[serde(skip_serializing_if = "Option::is_none")]
        lack: Option<&'static str>,
        free_bytes: Option<u64>,
        keep_free_bytes: u64,
    },
    /// So many versions have come since the start from more than a day ahead of this device's clock, and so many seconds is
    /// this database's clock ahead of the system's.
    Clock { versions_ahead: u64, ahead_seconds: u64 },
    /// Another device goes on with a copy of this database: it made this version of this document.
    Copy {
        collection: &'a str,
        #[serde(rename = "_id")]
        id: &'a str,
        #[serde(rename = "_rev")]
        revision: String,
    },
    /// One document went over, or failed to.
    Document {
        /// Of `serve`: with which peer.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<&'a str>,
        direction: &'a str,
        collection: &'a str,
        #[serde(rename = "_id")]
        id: &'a str,
        deleted: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Both sides had changed a document.
    Conflict {
        peer: &'a str,
        collection: &'a str,
        #[serde(rename = "_id")]
        id: &'a str,
        /// What was kept: `local`, `remote`, `merged`, `deleted`, or `open` if that is the peer's to decide.
        outcome: &'a str,
    },
    /// A record of `--import` is on stable storage.
    Saved {
        line: u64,
        collection: &'a str,
        #[serde(rename = "_id")]
        id: &'a str,
        #[serde(rename = "_rev")]
        revision: String,
    },
    /// A record of `--import` was not taken.
    Rejected { line: u64, error: String },
    /// All records of `--import` were read.
    ImportEnded { saved: u64, rejected: u64 },
    /// What peers were refused, if they were: once, before the last event.
    Refusals {
        #[serde(flatten)]
        refusals: crate::replicator::Refusals,
    },
    /// So many events are missing here: nobody read them in time, and what can wait for a reader is bounded.
    Dropped { events: u64 },
    /// So many events of peers like those before were left out, with their lines: they came too fast.
    Suppressed { events: u64 },
    /// This database has another secret of its group.
    GroupChanged {
        /// The number of its epoch; null: it is not known.
        epoch: Option<u32>,
        /// The ID of the peer that gave it; null: it was changed by a command here.
        from: Option<String>,
    },
    /// A peer is seen to have this database's secret of the group, which was changed before.
    GroupTaken {
        /// Its ID.
        id: String,
        epoch: u32,
    },
    /// What the syncs with a peer leave out, all together; whenever that has changed.
    Unsynced {
        peer: &'a str,
        #[serde(flatten)]
        left_out: LeftOut<'a>,
    },
    /// The last event.
    Finished {
        ok: bool,
        documents: u64,
        /// Conflicts that were resolved.
        conflicts: u64,
        /// What the syncs with all peers leave out.
        unsynced: Totals,
        seconds: f64,
        /// CPU time of the whole process, user and system.
        cpu_seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// Where events go. Clones share it.
#[derive(Clone)]
pub(crate) struct Events {
    shared: Arc<Shared>,
    /// Of which of several databases they are.
    about: Option<About>,
}

/// Which database events are of.
#[derive(Clone)]
struct About {
    database: Arc<str>,
    /// Whether lines for people say so too.
    is_said: bool,
}

struct Shared {
    /// Where a script reads them.
    script: Option<Sink>,
    /// Lines of an import that were not taken.
    rejected: AtomicU64,
    /// Documents that went over, once that is known.
    documents: AtomicU64,
    /// Conflicts that were resolved.
    conflicts: AtomicU64,
    /// Lines about conflicts so far.
    conflict_lines: AtomicU64,
    /// What the peers leave out.
    unsynced: Tally,
    /// Whether a copy of the database was told of.
    copy_told: AtomicBool,
    /// What peers cause.
    of_peers: Mutex<Limiter<String>>,
}

impl Events {
    /// Events for a script if `json`, else none.
    pub(crate) fn new(json: bool) -> Events {
        let tell = |events| line_of(&Event::Dropped { events });
        let script = json.then(|| Sink::start("gattway-events", io::stdout(), tell, tell_reader_gone));
        let shared = Shared {
            script,
            rejected: AtomicU64::new(0),
            documents: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            conflict_lines: AtomicU64::new(0),
            unsynced: Tally::default(),
            copy_told: AtomicBool::new(false),
            of_peers: Mutex::new(Limiter::new(BURST, EVERY)),
        };
        Events { shared: Arc::new(shared), about: None }
    }

    /// The same for one of several databases: each event names it, and lines for people if `is_said`.
    pub(crate) fn about(&self, database: &str, is_said: bool) -> Events {
        let about = About { database: database.into(), is_said };
        Events { shared: Arc::clone(&self.shared), about: Some(about) }
    }

    /// Whether nobody has told of a copy of the database yet.
    pub(crate) fn is_first_copy(&self) -> bool {
        !self.shared.copy_told.swap(true, Ordering::Relaxed)
    }

    /// Whether a script reads events, so that people's lines are not wanted.
    pub(crate) fn json(&self) -> bool {
        self.shared.script.is_some()
    }

    /// Whether one more thing that a peer has caused is to be told: anybody may cause any number of them. `kind` tells apart
    /// who or what they are of; what is left out is counted and told.
    pub(crate) fn may_tell(&self, kind: &str) -> bool {
        let told = self.of_peers().ask(&kind.to_owned(), Instant::now());
        if let Some(events @ 1..) = told {
            self.tell_suppressed(events);
        }
        told.is_some()
    }

    /// Tells how many were left out where nothing more came since; to be called now and then.
    pub(crate) fn tell_left_out(&self) {
        let due = self.of_peers().due(Instant::now());
        due.into_iter().for_each(|(_, events)| self.tell_suppressed(events));
        crate::cli::support::logging::tell_left_out();
    }

    /// The same at the end.
    pub(crate) fn tell_rest(&self) {
        let events = self.of_peers().rest();
        if events > 0 {
            self.tell_suppressed(events);
        }
        crate::cli::support::logging::tell_rest();
    }

    fn tell_suppressed(&self, events: u64) {
        self.say(&format!("{} more like that, not shown one by one", output::counted(events, "event")));
        self.emit(&Event::Suppressed { events });
    }

    /// Nothing under this lock can be left half done.
    fn of_peers(&self) -> std::sync::MutexGuard<'_, Limiter<String>> {
        self.shared.of_peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands one event to the script, whole and at once; nobody waits for it.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.emit_own(event);
    }

    /// The same for a command that has events of its own.
    pub(crate) fn emit_own(&self, event: &impl Serialize) {
        if let Some(script) = &self.shared.script {
            script.push(match &self.about {
                Some(About { database, .. }) => line_of(&Of { event, database }),
                None => line_of(event),
            });
        }
    }

    /// The last event, which is never dropped.
    pub(crate) fn emit_last(&self, event: &impl Serialize) {
        if let Some(script) = &self.shared.script {
            script.push_last(line_of(event));
        }
    }

    /// Gives the script time to read what waits for it: the command ends now.
    pub(crate) fn end(&self) {
        if let Some(script) = &self.shared.script {
            script.flush(END_PATIENCE);
        }
    }

    /// Tells that a line of an import was not taken.
    pub(crate) fn reject(&self, line: u64, error: &CliError) {
        self.shared.rejected.fetch_add(1, Ordering::Relaxed);
        self.emit(&Event::Rejected { line, error: error.to_string() });
        self.say(&format!("import: {error}; the line was skipped"));
    }

    /// Tells of a conflict with `peer`.
    pub(crate) fn conflict(&self, peer: &str, conflict: &ConflictReport) {
        let ConflictReport { collection, id, outcome } = conflict;
        let (outcome, kept) = match outcome {
            ConflictOutcome::Open => ("open", "the peer decides"),
            ConflictOutcome::Local => ("local", "this side's change was kept"),
            ConflictOutcome::Remote => ("remote", "the peer's change was kept"),
            ConflictOutcome::Deleted => ("deleted", "it was deleted"),
            _ => ("merged", "the changes were merged"),
        };
        if outcome != "open" {
            self.shared.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        self.emit(&Event::Conflict { peer, collection, id, outcome });
        let lines = self.shared.conflict_lines.fetch_add(1, Ordering::Relaxed);
        if lines < CONFLICT_LINES_MAX {
            self.say(&format!("{peer}: conflict: both sides have changed {id:?} of {collection}: {kept}"));
        } else if lines == CONFLICT_LINES_MAX {
            self.say("further conflicts are only counted; --json has an event for each");
        }
    }

    /// How many were resolved.
    pub(crate) fn conflicts(&self) -> u64 {
        self.shared.conflicts.load(Ordering::Relaxed)
    }

    /// Gives `documents`, unless lines of an import were not taken: then the process must not end as if all were well.
    pub(crate) fn all_taken(&self, documents: u64) -> Result<u64, CliError> {
        self.shared.documents.store(documents, Ordering::Relaxed);
        match self.shared.rejected.load(Ordering::Relaxed) {
            0 => Ok(documents),
            n => Err(CliError::new(
                Exit::Input,
                format!("{} of the import not taken", output::counted(n, "line")),
            )),
        }
    }

    /// Gives `documents`, unless something could not be synced: then the process must not end as if all were.
    pub(crate) fn all_synced(&self, documents: u64) -> Result<u64, CliError> {
        self.shared.unsynced.all_synced().map(|()| documents)
    }

    /// Notes what the sync with a peer leaves out, and tells the script if it is news. Whether it is.
    pub(crate) fn left_out(&self, peer: &str, unsynced: &Arc<Unsynced>) -> bool {
        let is_news = self.shared.unsynced.note(peer, unsynced);
        if is_news {
            self.emit(&Event::Unsynced { peer, left_out: LeftOut::new(unsynced) });
        }
        is_news
    }

    /// Counts for the last event what the database remembers of all peers: one that has proven no name may come under a
    /// new address each time.
    pub(crate) fn count_left_out(&self, db: &crate::database::Database) {
        match crate::cli::support::unsynced::remembered(db) {
            Ok(unsynced) => self.shared.unsynced.count(unsynced.documents),
            Err(error) => tracing::debug!(%error, "cannot read what was left out"),
        }
    }

    /// Notes what earlier syncs have left out.
    #[cfg(feature = "bluetooth")]
    pub(crate) fn left_out_before(&self, db: &crate::database::Database) {
        if self.shared.unsynced.all_synced().is_err() {
            return;
        }
        match crate::cli::support::unsynced::remembered(db) {
            Ok(unsynced) if !unsynced.is_empty() => {
                crate::cli::support::unsynced::lines(&unsynced).iter().for_each(|line| self.say(line));
                self.left_out("", &Arc::new(unsynced));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot read what earlier syncs have left out"),
        }
    }

    /// Tells how it ended, as the last event, and gives the script time to read what waits for it.
    pub(crate) fn finish(&self, began: Instant, result: &Result<u64, CliError>) {
        self.emit_last(&Event::Finished {
            ok: result.is_ok(),
            documents: self.shared.documents.load(Ordering::Relaxed),
            conflicts: self.conflicts(),
            unsynced: self.shared.unsynced.totals(),
            seconds: began.elapsed().as_secs_f64(),
            cpu_seconds: process_cpu().as_secs_f64(),
            error: result.as_ref().err().map(ToString::to_string),
        });
        self.end();
    }

    /// A line for people; nothing if a script reads events.
    pub(crate) fn say(&self, line: &str) {
        if self.json() {
            return;
        }
        match &self.about {
            Some(About { database, is_said: true }) => output::note(&format!("{database}: {line}")),
            _ => output::note(line),
        }
    }
}

/// An event of one of several databases.
#[derive(Serialize)]
struct Of<'a, T> {
    #[serde(flatten)]
    event: &'a T,
    database: &'a str,
}

/// An event as it is read, with its end of line.
fn line_of(event: &impl Serialize) -> Vec<u8> {
    // No event has a key that is not text or a number that JSON does not know.
    let text = serde_json::to_string(event).unwrap_or_default();
    let mut line = visible_json(&text).into_owned().into_bytes();
    line.push(b'\n');
    line
}

fn tell_reader_gone() {
    let text = "gattway: nobody reads the events any more (standard output is closed): going on without them";
    words::say(words::Level::Warn, text, None);
}
