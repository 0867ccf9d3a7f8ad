//! `gattway db put`: saves one document.

use std::io::{self, IsTerminal, Read};

use clap::Args;
use serde_json::{Map, Value, json};

use super::CollectionArg;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, note};
use crate::cli::support::store;
use crate::database::{Database, check_document_id};
use crate::gateway::record::Meta;
use crate::replica::validate::parse_json;

/// Save a document.
///
/// Prints the new revision. Without --if-revision it replaces whatever is there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db put valve-7 '{\"open\": true}'
  sensors | gattway --db my.db db put latest -
  gattway --db my.db db put valve-7 '{\"open\": false}' --if-revision 18c9…@sA0…   # fails if somebody was faster
  gattway --db my.db db put valve-8 '{}' --if-revision none                      # fails if it exists")]
pub(crate) struct PutArgs {
    /// The document's ID
    id: String,

    /// A JSON object; `-` reads it from standard input
    #[arg(value_name = "JSON", default_value = "-")]
    body: String,

    /// Save only if this is the stored revision (`none`: only if there is no document)
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<String>,

    #[command(flatten)]
    collection: CollectionArg,

    /// Create the collection if it does not exist
    #[arg(long)]
    create_collection: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

impl PutArgs {
    /// What is read on standard input, if it is wanted. A document that could not be saved is refused here already.
    pub(super) fn read_input(&self) -> Result<Option<Vec<u8>>, CliError> {
        check_document_id(&self.id).map_err(store::failed)?;
        let input = if self.body == "-" { Some(read_standard_input()?) } else { None };
        self.document(input.as_deref())?;
        Ok(input)
    }

    fn document(&self, input: Option<&[u8]>) -> Result<Map<String, Value>, CliError> {
        parse_body(&self.id, input.unwrap_or(self.body.as_bytes()))
    }
}

pub(super) fn run(
    db: &Database,
    args: &PutArgs,
    input: Option<Vec<u8>>,
    out: &mut Output,
) -> Result<(), CliError> {
    let body = args.document(input.as_deref())?;
    let collection = if args.create_collection {
        store::create_collection(db, &args.collection.collection)?
    } else {
        store::collection(db, &args.collection.collection)?
    };
    let (revision, sequence) = store::put(&collection, &args.id, body, args.if_revision.as_deref())?;
    if args.json {
        out.json(&json!({"_id": args.id, "_rev": revision, "sequence": sequence}))?;
    } else {
        out.line(revision)?;
    }
    out.flush()
}

fn read_standard_input() -> Result<Vec<u8>, CliError> {
    if io::stdin().is_terminal() {
        note("the document is read here: type its JSON, and end it with Ctrl-D");
    }
    let mut input = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut input)
        .map_err(|error| CliError::new(Exit::Input, format!("standard input cannot be read: {error}")))?;
    Ok(input)
}

fn parse_body(id: &str, bytes: &[u8]) -> Result<Map<String, Value>, CliError> {
    let not_saved = |reason: &dyn std::fmt::Display| {
        CliError::new(Exit::Input, format!("document {id:?} was not saved: {reason}"))
    };
    let help = "a document is a JSON object, such as '{\"open\": true}'";
    let fields = match parse_json(bytes).map_err(|error| not_saved(&error).help(help))? {
        Value::Object(fields) => fields,
        _ => return Err(not_saved(&"not a JSON object").help(help)),
    };
    let mut meta = Meta::take(fields).map_err(|reason| not_saved(&reason))?;
    meta.check_id(id).map_err(|reason| not_saved(&reason))?;
    match meta.deleted {
        false => Ok(std::mem::take(&mut meta.body)),
        true => Err(not_saved(&"`_deleted` is true").help(format!("delete it with `gattway db rm {id}`"))),
    }
}
