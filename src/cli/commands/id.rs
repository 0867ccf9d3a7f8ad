//! `gattway id`: who this database is to its peers.

use clap::Args;
use serde::Serialize;

use crate::cli::commands::group::summary;
use crate::cli::support::error::CliError;
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::{Output, note};
use crate::cli::support::{security, store};
use crate::trust::group::Group;

/// Print by which ID peers know this database.
///
/// The ID is the public half of a key that is made on first use and kept in the database's directory, in the file
/// `identity`, readable by its owner alone. Whoever has that file can pretend to be this database.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db sensor.db id
  gattway --db sensor.db id --json | jq -r .id")]
pub(crate) struct IdArgs {
    /// Print one JSON object: `id` in full, `short` as it is shown, and the group
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    id: String,
    short: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<ShownGroup>,
}

#[derive(Serialize)]
struct ShownGroup {
    name: String,
    fingerprint: String,
    /// How often its secret was changed; null: not known here.
    epoch: Option<u32>,
}

pub(crate) fn run(global: &GlobalArgs, args: &IdArgs) -> Result<(), CliError> {
    security::keep_secrets_in_memory();
    let path = global.db_path()?;
    // Made whole, so that it is a database from now on.
    let directory = store::private_directory(path)?;
    let id = security::identity(&directory)?.id();
    // Who it is does not depend on its group: what is wrong with that is told elsewhere.
    let group = Group::load(&directory).ok().flatten();
    let shown_group = group.as_ref().map(|group| ShownGroup {
        name: group.name().to_owned(),
        fingerprint: group.fingerprint(),
        epoch: group.epoch(),
    });
    let shown = Shown { id: id.to_text(), short: id.short(), group: shown_group };
    let mut out = Output::new();
    if args.json {
        out.json(&shown)?;
    } else {
        out.line(format!("{}\n{}", shown.short, shown.id))?;
    }
    out.flush()?;
    if let Some(group) = group.filter(|_| !args.json) {
        note(&summary(&group));
    }
    Ok(())
}
