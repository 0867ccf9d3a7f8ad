//! `gattway id`: who this database is to its peers.

use clap::Args;
use serde::Serialize;

use super::args::GlobalArgs;
use super::output::Output;
use super::{CliError, security, store};

/// Print by which ID peers know this database.
///
/// The ID is the public half of a key that is made on first use and kept in the database's directory, in the file
/// `identity`, readable by its owner alone. Whoever has that file can pretend to be this database.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db sensor.db id
  gattway --db sensor.db id --json | jq -r .id")]
pub(super) struct IdArgs {
    /// Print one JSON object: `id` in full, `short` as it is shown
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    id: String,
    short: String,
}

pub(super) fn run(global: &GlobalArgs, args: &IdArgs) -> Result<(), CliError> {
    security::keep_secrets_in_memory();
    let path = global.db_path()?;
    // Made whole, so that it is a database from now on.
    let id = security::identity(&store::private_directory(path)?)?.id();
    let shown = Shown { id: id.to_text(), short: id.short() };
    let mut out = Output::new();
    if args.json {
        out.json(&shown)?;
    } else {
        out.line(format!("{}\n{}", shown.short, shown.id))?;
    }
    out.flush()
}
