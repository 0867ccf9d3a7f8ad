//! What long-running commands tell while they run: lines for people on standard error, or (`--json`) one JSON object a
//! line on standard output, each with the name of its kind in `event`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::support::error::{CliError, Exit};
pub(crate) use crate::cli::support::event::Event;
use crate::cli::support::paced::{About, Paced, State, Suppressed, Topic, Who};
use crate::cli::support::sink::Sink;
use crate::cli::support::unsynced::{LeftOut, Tally};
use crate::cli::support::visible::visible_json;
use crate::cli::support::{output, words};
use crate::database::bench::process_cpu;
use crate::replicator::{ConflictOutcome, ConflictReport, Unsynced};

/// How long the end of the process waits for a script that reads nothing.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Where events go. Clones share it.
#[derive(Clone)]
pub(crate) struct Events {
    shared: Arc<Shared>,
    /// Of which of several databases they are.
    about: Option<About>,
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
    /// What the peers leave out.
    unsynced: Tally,
    /// Whether a copy of the database was told of.
    copy_told: AtomicBool,
    /// What peers cause.
    of_peers: Mutex<Paced>,
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
            unsynced: Tally::default(),
            copy_told: AtomicBool::new(false),
            of_peers: Mutex::default(),
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

    /// Whether one more thing that a peer has caused is to be told: it may cause any number of them. What is left out is
    /// counted and told.
    pub(crate) fn may_tell(&self, topic: Topic, peer: &str) -> bool {
        let told = self.of_peers().ask(topic, self.who(peer), Instant::now());
        let is_told = told.is_some();
        told.flatten().iter().for_each(|suppressed| self.tell_suppressed(suppressed));
        is_told
    }

    /// Tells the script what is the case with a peer: at once, or when it was told little for a while, and then the newest.
    pub(crate) fn tell_state(&self, state: State, peer: &str, event: &Event<'_>) {
        let Some(script) = &self.shared.script else { return };
        // Pushed under the lock, so that no older one overtakes it.
        let mut of_peers = self.of_peers();
        if let Some(line) = of_peers.offer(state, self.who(peer), self.own_line(event), Instant::now()) {
            script.push(line);
        }
    }

    /// Tells how a connection has ended, if that is to be told; what was to be told of its state is old.
    pub(crate) fn tell_end(&self, peer: &str, event: &Event<'_>) -> bool {
        self.of_peers().forget(State::Connection, self.who(peer));
        let is_told = self.may_tell(Topic::End, peer);
        if is_told {
            self.emit(event);
        }
        is_told
    }

    /// Tells what was left out or waits, where nothing more came since; to be called now and then.
    pub(crate) fn tell_left_out(&self) {
        self.tell_waiting(|of_peers| of_peers.due(Instant::now()));
        crate::cli::support::logging::tell_left_out();
    }

    /// The same at the end.
    pub(crate) fn tell_rest(&self) {
        self.tell_waiting(Paced::rest);
        crate::cli::support::logging::tell_rest();
    }

    fn tell_waiting(&self, take: impl FnOnce(&mut Paced) -> (Vec<Vec<u8>>, Vec<Suppressed>)) {
        let suppressed = {
            let mut of_peers = self.of_peers();
            let (events, suppressed) = take(&mut of_peers);
            if let Some(script) = &self.shared.script {
                events.into_iter().for_each(|line| script.push(line));
            }
            suppressed
        };
        suppressed.iter().for_each(|suppressed| self.tell_suppressed(suppressed));
    }

    /// Whoever asks, it is told of the database that it is of.
    fn tell_suppressed(&self, suppressed: &Suppressed) {
        let Suppressed { topic, who, events } = suppressed;
        let of_its_database = Events { shared: Arc::clone(&self.shared), about: who.about.clone() };
        of_its_database.say(&suppressed.text());
        let of = topic.map(Topic::name);
        of_its_database.emit(&Event::Suppressed { events: *events, of, peer: &who.peer });
    }

    fn who(&self, peer: &str) -> Who {
        Who { about: self.about.clone(), peer: peer.to_owned() }
    }

    /// Nothing under this lock can be left half done.
    fn of_peers(&self) -> std::sync::MutexGuard<'_, Paced> {
        self.shared.of_peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a radio connection: who connects can make its radio say something new without end.
    #[cfg(feature = "bluetooth")]
    pub(crate) fn radio(&self, status: &crate::transport::bluez::radio::RadioStatus) {
        if self.may_tell(Topic::Radio, "") {
            self.emit(&Event::Radio(status));
        }
    }

    /// Hands one event to the script, whole and at once; nobody waits for it.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.emit_own(event);
    }

    /// The same for a command that has events of its own.
    pub(crate) fn emit_own(&self, event: &impl Serialize) {
        if let Some(script) = &self.shared.script {
            script.push(self.own_line(event));
        }
    }

    fn own_line(&self, event: &impl Serialize) -> Vec<u8> {
        match &self.about {
            Some(About { database, .. }) => line_of(&Of { event, database }),
            None => line_of(event),
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

    /// Tells of a conflict with `peer`; with `all` a script hears of each, however many there are.
    pub(crate) fn conflict(&self, peer: &str, conflict: &ConflictReport, all: bool) {
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
        if all || self.may_tell(Topic::Conflict, peer) {
            self.emit(&Event::Conflict { peer, collection, id, outcome });
            self.say(&format!("{peer}: conflict: both sides have changed {id:?} of {collection}: {kept}"));
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
            let event = Event::Unsynced { peer, left_out: LeftOut::new(unsynced) };
            self.tell_state(State::Unsynced, peer, &event);
        }
        is_news
    }

    /// Tells people which collections are not synced with a peer, where that is news.
    pub(crate) fn lacking_collections(&self, peer: &str, before: &Unsynced, now: &Unsynced) {
        for collection in now.collections.iter().filter(|collection| !before.collections.contains(collection))
        {
            if self.may_tell(Topic::Collection, peer) {
                self.say(&format!("{peer}: collection {:?}: {}", collection.name, collection.lack));
            }
        }
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
        self.tell_rest();
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
