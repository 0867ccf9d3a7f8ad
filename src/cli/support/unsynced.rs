//! What syncs leave out, as people and scripts are told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Serialize;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::counted;
use crate::database::Database;
use crate::replica::store::ReplicaStoreError;
use crate::replicator::{self, Direction, Unsynced, UnsyncedCollection, UnsyncedDocument};

/// Documents that are named to people; `gattway db unsynced` has all.
const LINES_MAX: usize = 10;

/// Peers whose documents are counted one by one, so that no number of visitors adds up in memory.
const PEERS_MAX: usize = 1_000;

/// A document that was not synced, for scripts. The field names are a promise.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DocumentRow<'a> {
    pub(crate) collection: &'a str,
    /// `sent` or `received`.
    pub(crate) direction: &'static str,
    #[serde(rename = "_id")]
    pub(crate) id: &'a str,
    #[serde(rename = "_rev")]
    pub(crate) revision: &'a str,
    pub(crate) deleted: bool,
    pub(crate) error: String,
    /// Whether the next sync tries it again by itself.
    pub(crate) retried: bool,
}

impl<'a> DocumentRow<'a> {
    pub(crate) fn new(document: &'a UnsyncedDocument) -> DocumentRow<'a> {
        DocumentRow {
            collection: &document.collection,
            direction: direction_name(document.direction),
            id: &document.id,
            revision: &document.revision,
            deleted: document.deleted,
            error: document.error.to_string(),
            retried: document.is_open,
        }
    }
}

/// A collection that was not synced, for scripts.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CollectionRow {
    name: String,
    error: String,
}

impl CollectionRow {
    fn new(collection: &UnsyncedCollection) -> CollectionRow {
        CollectionRow { name: collection.name.clone(), error: collection.lack.to_string() }
    }
}

/// What the sync with one peer leaves out, for scripts.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LeftOut<'a> {
    /// How many documents.
    documents: u64,
    /// The first of them.
    listed: Vec<DocumentRow<'a>>,
    collections: Vec<CollectionRow>,
    /// Collections that only the peer has.
    only_at_peer: &'a [String],
}

impl<'a> LeftOut<'a> {
    pub(crate) fn new(unsynced: &'a Unsynced) -> LeftOut<'a> {
        LeftOut {
            documents: unsynced.documents,
            listed: unsynced.listed.iter().map(DocumentRow::new).collect(),
            collections: unsynced.collections.iter().map(CollectionRow::new).collect(),
            only_at_peer: &unsynced.only_at_peer,
        }
    }
}

/// What all syncs of the command leave out, for its last event.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Totals {
    documents: u64,
    collections: u64,
}

/// What the command's peers leave out, peer by peer.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    by_peer: Mutex<BTreeMap<String, Arc<Unsynced>>>,
    /// Documents as the database has counted them, which goes before the sum of all peers.
    documents: OnceLock<u64>,
}

impl Tally {
    /// Notes what is left out with a peer. Whether that is other than before.
    pub(crate) fn note(&self, peer: &str, unsynced: &Arc<Unsynced>) -> bool {
        let mut by_peer = self.lock();
        let before = by_peer.get(peer);
        let is_news = match before {
            Some(before) => !Arc::ptr_eq(before, unsynced) && before != unsynced,
            None => **unsynced != Unsynced::default(),
        };
        let has_room = before.is_some() || by_peer.len() < PEERS_MAX;
        if is_news && has_room {
            by_peer.insert(peer.to_owned(), Arc::clone(unsynced));
        }
        is_news
    }

    /// How many documents there are, as the database knows it.
    pub(crate) fn count(&self, documents: u64) {
        // Once, at the end.
        let _ = self.documents.set(documents);
    }

    pub(crate) fn totals(&self) -> Totals {
        let by_peer = self.lock();
        let sum = || by_peer.values().map(|unsynced| unsynced.documents).sum();
        let documents = self.documents.get().copied().unwrap_or_else(sum);
        let collections = by_peer.values().map(|unsynced| unsynced.collections.len() as u64).sum();
        Totals { documents, collections }
    }

    /// An error unless everything was synced.
    pub(crate) fn all_synced(&self) -> Result<(), CliError> {
        let Totals { documents, collections } = self.totals();
        if documents == 0 && collections == 0 {
            return Ok(());
        }
        let error = CliError::new(
            Exit::Incomplete,
            format!("{} not synced, all else is", counts(documents, collections)),
        );
        Err(match documents {
            0 => error.help(
                "name the collections to sync with --collection, or one direction with --push or --pull, if this is meant",
            ),
            _ => error.help(
                "`gattway db unsynced` lists the documents; a change of one is tried by the next sync, all of them by --retry",
            ),
        })
    }

    /// Nothing under this lock can be left half done.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Unsynced>>> {
        self.by_peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What earlier syncs with any peer have left out.
pub(crate) fn remembered(db: &Database) -> Result<Unsynced, ReplicaStoreError> {
    let mut all = Unsynced::default();
    for list in replicator::unsynced::stored(db)? {
        all.documents += list.documents.len() as u64 + list.more;
        all.listed.extend(list.documents);
    }
    Ok(all)
}

/// `2 documents and 1 collection`.
pub(crate) fn count_text(unsynced: &Unsynced) -> String {
    counts(unsynced.documents, unsynced.collections.len() as u64)
}

fn counts(documents: u64, collections: u64) -> String {
    let texts = [(documents, "document"), (collections, "collection")];
    let texts: Vec<String> =
        texts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| counted(*n, noun)).collect();
    texts.join(" and ")
}

/// What was left out, line by line. What comes from a peer is printed so that a terminal takes it for text.
pub(crate) fn lines(unsynced: &Unsynced) -> Vec<String> {
    let mut lines: Vec<String> = unsynced.listed.iter().take(LINES_MAX).map(document_line).collect();
    let more = unsynced.documents.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("  and {} more: `gattway db unsynced` lists them", counted(more, "document")));
    }
    lines.extend(unsynced.collections.iter().map(|collection| {
        format!("  collection {}: {}", collection.name, collection.lack.to_string().escape_debug())
    }));
    if !unsynced.only_at_peer.is_empty() {
        lines.push(format!(
            "the peer also has {}; `--create-collections --collection NAME` gets them",
            unsynced.only_at_peer.join(", ")
        ));
    }
    lines
}

/// One document in a line.
pub(crate) fn document_line(document: &UnsyncedDocument) -> String {
    let (direction, error) = (direction_name(document.direction), document.error.to_string());
    let collection = match document.collection.as_str() {
        "_default" => String::new(),
        name => format!(" of {name}"),
    };
    format!("  document {:?}{collection} was not {direction}: {}", document.id, error.escape_debug())
}

/// A direction in events.
pub(crate) fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Sent => "sent",
        Direction::Received => "received",
    }
}
