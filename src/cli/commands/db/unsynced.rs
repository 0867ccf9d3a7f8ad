//! `gattway db unsynced`: lists documents that could not be synced.

use clap::Args;
use serde::Serialize;

use crate::cli::support::error::CliError;
use crate::cli::support::output::{Output, counted};
use crate::cli::support::store;
use crate::cli::support::unsynced::{DocumentRow, document_line};
use crate::database::{Database, canonical_collection_name};
use crate::replicator;

/// List the documents that could not be synced, with which peer, and why.
///
/// A document is refused for what it is: by the peer (sent), or here (received). It is listed until it was synced after
/// all: when it was changed, when a newer release takes it, or by `gattway sync --retry`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db unsynced
  gattway --db my.db db unsynced --json | jq -r .error
  gattway --db my.db sync tcp:gateway.local:4985 --retry")]
pub(crate) struct UnsyncedArgs {
    /// Only of this collection
    #[arg(short, long, value_name = "NAME")]
    collection: Option<String>,

    /// One JSON object a line: `peer`, `collection`, `direction`, `_id`, `_rev`, `deleted`, `error`, `retried`; or `more`, how
    /// often others were refused that found no room on the peer's list
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    peer: &'a str,
    #[serde(flatten)]
    document: DocumentRow<'a>,
}

#[derive(Serialize)]
struct More<'a> {
    peer: &'a str,
    collection: &'a str,
    more: u64,
}

pub(super) fn run(db: &Database, args: &UnsyncedArgs, out: &mut Output) -> Result<(), CliError> {
    let wanted =
        args.collection.as_deref().map(canonical_collection_name).transpose().map_err(store::failed)?;
    if let Some(name) = &wanted {
        store::collection(db, name)?;
    }
    let mut count = 0;
    for list in replicator::unsynced::stored(db).map_err(store::unreadable)? {
        if wanted.as_ref().is_some_and(|wanted| *wanted != list.collection) {
            continue;
        }
        count += list.documents.len() as u64 + list.more;
        let peer = list.peer.as_str();
        if args.json {
            for document in &list.documents {
                out.json(&Row { peer, document: DocumentRow::new(document) })?;
            }
            if list.more > 0 {
                out.json(&More { peer, collection: &list.collection, more: list.more })?;
            }
            continue;
        }
        out.line(match peer {
            "" => "with peers that have not proven who they are:".to_owned(),
            peer => format!("with {}:", peer.escape_debug()),
        })?;
        for document in &list.documents {
            out.line(document_line(document))?;
        }
        if list.more > 0 {
            out.line(format!("  and {} of others, which are not listed", counted(list.more, "refusal")))?;
        }
    }
    if !args.json && count == 0 {
        out.line("no document was refused in a sync")?;
    }
    out.flush()
}
