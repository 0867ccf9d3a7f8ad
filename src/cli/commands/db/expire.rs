//! `gattway db expire`: when documents go by themselves.

use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::CollectionArg;
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::Output;
use crate::cli::support::store;
use crate::database::{Collection, Database, DatabaseError};

/// Let documents go at a time, or say when they do.
///
/// At that time they are purged here: peers do not hear of it and keep theirs, which do not come back as they were.
/// Changing or deleting a document leaves its time. Without --at, --in or --never it is printed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db expire reading-1 reading-2 --in 30d
  gattway --db my.db db expire valve-7 --at 2030-01-01T00:00:00Z
  gattway --db my.db db expire valve-7           # when?
  gattway --db my.db db expire valve-7 --never")]
pub(crate) struct ExpireArgs {
    /// IDs of the documents
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,

    /// After this time, as `90s`, `12h` or `30d`
    #[arg(long = "in", value_name = "TIME", value_parser = humantime::parse_duration, group = "when")]
    after: Option<Duration>,

    /// At this moment, as `2030-01-31T12:00:00Z`
    #[arg(long, value_name = "MOMENT", value_parser = humantime::parse_rfc3339_weak, group = "when")]
    at: Option<SystemTime>,

    /// Keep them
    #[arg(long, group = "when")]
    never: bool,

    #[command(flatten)]
    collection: CollectionArg,

    /// Print one JSON object a line for each: `_id` and `expires`, which is null for never
    #[arg(long)]
    json: bool,
}

impl ExpireArgs {
    /// Whether a time is set, and not printed alone.
    pub(super) fn sets(&self) -> bool {
        self.after.is_some() || self.at.is_some() || self.never
    }
}

/// Sets when the documents go.
pub(super) fn set(db: &Database, args: &ExpireArgs, out: &mut Output) -> Result<(), CliError> {
    let collection = store::collection(db, &args.collection.collection)?;
    let too_far = || CliError::new(Exit::Usage, "that time is too far away");
    let time = match args.after {
        Some(after) => Some(SystemTime::now().checked_add(after).ok_or_else(too_far)?),
        None => args.at,
    };
    let result = each(args, out, |out, id| match collection.set_expiration(id, time) {
        Err(DatabaseError::NotFound { .. }) => Err(store::no_document(&collection, id)),
        result => {
            result.map_err(store::failed)?;
            // As it is stored; one that is over already is gone.
            tell(args, out, id, collection.expiration(id).map_err(store::failed)?.or(time))
        }
    });
    out.flush()?;
    result
}

/// Prints when the documents go.
pub(super) fn print(db: &Database, args: &ExpireArgs, out: &mut Output) -> Result<(), CliError> {
    let collection = store::collection(db, &args.collection.collection)?;
    let result = each(args, out, |out, id| {
        check_known(&collection, id)?;
        tell(args, out, id, collection.expiration(id).map_err(store::failed)?)
    });
    out.flush()?;
    result
}

fn check_known(collection: &Collection, id: &str) -> Result<(), CliError> {
    let is_known = collection.knows(id).map_err(store::failed)?;
    if is_known { Ok(()) } else { Err(store::no_document(collection, id)) }
}

/// Does it for each document; one that is not there keeps none of the others.
fn each(
    args: &ExpireArgs,
    out: &mut Output,
    mut call: impl FnMut(&mut Output, &str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut missing = Vec::new();
    for id in &args.ids {
        match call(out, id) {
            Err(error) if error.exit() == Exit::NotFound => missing.push(error),
            result => result?,
        }
    }
    let Some(last) = missing.pop() else { return Ok(()) };
    missing.iter().for_each(|error| out.note(&error.to_string()));
    Err(last)
}

fn tell(args: &ExpireArgs, out: &mut Output, id: &str, time: Option<SystemTime>) -> Result<(), CliError> {
    let time = time.map(|time| humantime::format_rfc3339_seconds(time).to_string());
    if args.json {
        return out.json(&json!({"_id": id, "expires": time}));
    }
    out.line(format!("{id}  {}", time.as_deref().unwrap_or("never")))
}
