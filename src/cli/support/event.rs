//! The events of long-running commands, as a script reads them: one JSON object a line, each with the name of its kind in
//! `event`. [`Events`](crate::cli::support::events::Events) decides which are told.

use serde::Serialize;

use crate::cli::support::unsynced::{LeftOut, Totals};

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
    /// So many events that peers caused were left out, with their lines: they came too fast.
    Suppressed {
        events: u64,
        /// The name of those events; `peer` for those of who comes. Null: several kinds.
        of: Option<&'static str>,
        /// With which peer; empty: several, or only one is meant.
        peer: &'a str,
    },
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
