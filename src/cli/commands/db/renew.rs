//! `gattway db renew`: a database goes on under a new source ID.

use std::fs;
use std::path::Path;

use clap::Args;
use serde_json::json;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, counted};
use crate::cli::support::progress::Progress;
use crate::cli::support::trust::file_failed;
use crate::cli::support::{condition, security, store};
use crate::database::Database;
use crate::trust::IDENTITY_FILE;
use crate::trust::presence::{self, SecurityFile};

/// Go on under a new source ID: for one of two copies, or after the clock was wrong by years.
///
/// Peers know the author of each edit by the source ID of the database. A copy of its directory on a second device (a card
/// image) writes under the same one, and edits of one device silently replace the other's: on one of the two, run this with
/// --identity. Edits that no peer is known to have become those of the new author, and meet the other device's as conflicts.
///
/// Documents whose version lies in the far future, because a clock was wrong, win conflicts for years, and stock peers refuse
/// them: they are saved once more, as they are, with a version of today. Set the system's clock first.
///
/// The next sync with each peer compares everything. If there is nothing to mend and no --identity, nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db my.db db info                  # is anything ahead? is there a copy?
  gattway --db my.db db renew
  gattway --db copy.db db renew --identity    # then pair it again where it was paired")]
pub(crate) struct RenewArgs {
    /// A new identity key as well: peers take this device for another one from now on
    #[arg(long)]
    identity: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(path: &Path, args: &RenewArgs) -> Result<(), CliError> {
    let (ahead, is_due) = {
        let db = store::open_existing(path)?;
        let is_clock_ahead = Database::is_clock_plausible() && db.clock_ahead() > condition::CLOCK_TOLD;
        (db.count_ahead().map_err(store::failed)?, is_clock_ahead || db.twin().is_some())
    };
    let mut out = Output::new();
    if ahead == 0 && !is_due && !args.identity {
        if args.json {
            out.json(&json!({"changed": false}))?;
        } else {
            out.line("nothing is ahead and no copy was noticed: nothing was changed")?;
        }
        return out.flush();
    }
    if ahead > 0 && !Database::is_clock_plausible() {
        let message = "the system's clock was never set, so it cannot be said which versions are ahead of it";
        return Err(CliError::new(Exit::Database, message).help("set it, and try again"));
    }
    let mut progress = Progress::start("renew", 0, args.json);
    let done = store::when_free(path, || {
        Database::renew(path, args.identity, |done| progress.update(done, 0, "documents"))
    })?;
    drop(progress);
    let id = if args.identity { Some(renew_identity(path)?) } else { None };
    if args.json {
        out.json(&json!({
            "changed": true,
            "source": done.source.to_string(),
            "former_source": done.former.to_string(),
            "brought_back": done.brought_back,
            "taken_over": done.taken_over,
            "id": id.map(|id| id.to_text()),
        }))?;
    } else {
        out.line(format!("source      {} (it was {})", done.source, done.former))?;
        out.line(format!("ahead       {} brought back to today", counted(done.brought_back, "document")))?;
        out.line(format!("taken over  {} that no peer is known to have", counted(done.taken_over, "edit")))?;
        if let Some(id) = id {
            out.line(format!("identity    {} (new: pair it again where it was paired)", id.short()))?;
        }
    }
    out.flush()
}

/// Puts a new identity key in the place of the one that the other device has too.
fn renew_identity(path: &Path) -> Result<crate::secure::PeerId, CliError> {
    presence::take_out(path, SecurityFile::Identity).map_err(|error| file_failed(&error))?;
    match fs::remove_file(path.join(IDENTITY_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("the identity of this database cannot be removed: {error}");
            Err(CliError::new(Exit::Database, message))
        }
        _ => security::identity(path).map(|identity| identity.id()),
    }
}
