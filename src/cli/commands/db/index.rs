//! `gattway index`: indexes of a collection on paths.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, thousands};
use crate::cli::support::store;
use crate::database::{Collection, Database, IndexInfo};

/// Let queries find documents without reading all: indexes on what is at some paths.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Examples:
  gattway --db my.db index create readings --on sensor,time
  gattway --db my.db index list
  gattway --db my.db query -c readings --where sensor=boiler --sort time:desc --limit 20 --explain
  gattway --db my.db index drop readings sensor,time
What an index is good for: firmware-notes/query.md")]
pub(in crate::cli) enum IndexCommand {
    Create(CreateArgs),
    List(ListArgs),
    Drop(DropArgs),
}

/// Declare an index. The same one may be there already.
///
/// It is built here and now; by a process that has the database open, in the background. From then on each change of a document
/// changes it, too.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db index create readings --on sensor,time
  gattway --db my.db index create plant.readings --on position.height --name by-height")]
pub(in crate::cli) struct CreateArgs {
    /// The collection: `name`, or `scope.name`
    #[arg(value_name = "COLLECTION")]
    collection: String,

    /// The paths: those that are asked to be equal to something first, then what is sorted by or has a range
    #[arg(long, value_name = "PATH", value_delimiter = ',', required = true)]
    on: Vec<String>,

    /// What it goes by; the paths with commas between them unless given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Print it as one JSON object
    #[arg(long)]
    json: bool,
}

/// List the indexes, how far they are built and how large they are.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db index list
  gattway --db my.db index list readings --json")]
pub(in crate::cli) struct ListArgs {
    /// The collection; all of them unless given
    #[arg(value_name = "COLLECTION")]
    collection: Option<String>,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Drop an index. Documents stay as they are.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db index drop readings sensor,time")]
pub(in crate::cli) struct DropArgs {
    /// The collection: `name`, or `scope.name`
    #[arg(value_name = "COLLECTION")]
    collection: String,

    /// What the index goes by
    #[arg(value_name = "NAME")]
    name: String,

    /// Print what was dropped as one JSON object
    #[arg(long)]
    json: bool,
}

impl IndexCommand {
    /// Whether all it does is to print.
    pub(super) fn only_reads(&self) -> bool {
        matches!(self, IndexCommand::List(_))
    }
}

/// `is_here`: this process alone has the database, so what is declared is built before it ends.
pub(super) fn run(
    db: &Database,
    command: &IndexCommand,
    is_here: bool,
    out: &mut Output,
) -> Result<(), CliError> {
    match command {
        IndexCommand::Create(args) => {
            let collection = store::collection(db, &args.collection)?;
            let name = args.name.clone().unwrap_or_else(|| args.on.join(","));
            collection.create_index(&name, args.on.iter().cloned()).map_err(store::failed)?;
            if is_here {
                collection.build_indexes().map_err(store::failed)?;
            }
            for index in
                collection.indexes().map_err(store::failed)?.iter().filter(|index| index.name == name)
            {
                tell(&collection, index, args.json, out)?;
            }
        }
        IndexCommand::List(args) => {
            let names = args.collection.clone().map_or_else(|| db.collections(), |name| vec![name]);
            for name in names {
                let collection = store::collection(db, &name)?;
                for index in collection.indexes().map_err(store::failed)? {
                    tell(&collection, &index, args.json, out)?;
                }
            }
        }
        IndexCommand::Drop(args) => {
            let collection = store::collection(db, &args.collection)?;
            if !collection.drop_index(&args.name).map_err(store::failed)? {
                let message = format!("no index {:?} in collection {}", args.name, collection.name());
                return Err(
                    CliError::new(Exit::NotFound, message).help("`gattway index list` lists what is there")
                );
            }
            if is_here {
                collection.build_indexes().map_err(store::failed)?;
            }
            if args.json {
                out.json(&json!({"collection": collection.name(), "dropped": args.name}))?;
            } else {
                out.line(format!("dropped {}", args.name))?;
            }
        }
    }
    out.flush()
}

fn tell(collection: &Collection, index: &IndexInfo, json: bool, out: &mut Output) -> Result<(), CliError> {
    if json {
        return out.json(&json!({
            "collection": collection.name(),
            "name": index.name,
            "on": index.paths,
            "state": if index.is_ready { "ready" } else { "building" },
            "entries": index.entries,
            "documents": index.documents,
            "bytes": index.bytes,
        }));
    }
    let state = if index.is_ready {
        format!("ready, {} entries", thousands(index.entries))
    } else {
        format!("building {} of {}", thousands(index.entries), thousands(index.documents))
    };
    out.line(format!(
        "{}  {} on {}  {state}, {} bytes",
        collection.name(),
        index.name,
        index.paths.join(", "),
        thousands(index.bytes)
    ))
}
