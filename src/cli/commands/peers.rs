//! `gattway peers`: the trust list.

mod roles;
mod rows;

use std::path::Path;

use clap::{Args, Subcommand};

pub(crate) use self::roles::RoleArgs;
pub(crate) use self::rows::{ago, behind, epoch_text, name_of};

use self::rows::{DENIED, OTHERS, roles_text};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::{Output, note};
use crate::cli::support::store;
use crate::cli::support::trust::{group_failed, list_failed};
use crate::gateway::peer_row::{EVERYBODY, PeerRow as Row, Role};
use crate::secure::PeerId;
use crate::trust::group::Group;
use crate::trust::list::{Origin, TrustError, TrustList};

/// The trust list of this database: who may sync with it, and what each may do.
///
/// Peers come into it by `gattway pair`, by proving to be in the same group, or by `peers add`. A change takes effect within
/// seconds, also on open connections of a `serve` or `sync` that runs.
///
/// Roles are the peer's: `read` gets documents from this database, `write` gives documents to it, `both` does both,
/// `none` neither.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  gattway --db gateway.db peers ls
  gattway --db gateway.db peers rename 7k3f-q2xa pump-house
  gattway --db gateway.db peers allow pump-house --role write --collection plant.settings=read
  gattway --db gateway.db peers allow default --role read    # members of the group that nothing else is said about
  gattway --db gateway.db peers deny pump-house
  gattway --db gateway.db peers add \"$(ssh sensor gattway --db sensor.db id --json | jq -r .id)\" --name sensor")]
pub(crate) enum PeersCommand {
    Ls(LsArgs),
    Rename(RenameArgs),
    Allow(AllowArgs),
    Deny(DenyArgs),
    Forget(ForgetArgs),
    Add(AddArgs),
    Reset(ResetArgs),
}

/// List the peers: a name in quotes is what the peer calls itself, which `peers rename` replaces.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// One JSON object a line; the first is that of all peers that nothing else is said about
    #[arg(long)]
    json: bool,
}

/// Give a peer a name on this device.
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Its name, its ID or the beginning of its ID
    #[arg(value_name = "PEER")]
    peer: String,
    /// The new name
    #[arg(value_name = "NAME")]
    name: String,

    /// Print the result as one JSON object, as `peers ls --json` has it
    #[arg(long)]
    json: bool,
}

/// Let a peer in again, and say what it may do.
#[derive(Debug, Args)]
pub(crate) struct AllowArgs {
    /// Its name, its ID or the beginning of its ID; `default`: all peers that nothing else is said about
    #[arg(value_name = "PEER")]
    peer: String,

    #[command(flatten)]
    roles: RoleArgs,

    /// Print the result as one JSON object, as `peers ls --json` has it
    #[arg(long)]
    json: bool,
}

/// Keep a peer out, whatever it proves. Its open connections end within seconds.
///
/// Who has the secret of the group can come back under another identity: change the group's secret too (`group rotate`) if
/// that peer knew it. The other members get the new one when they come by.
#[derive(Debug, Args)]
pub(crate) struct DenyArgs {
    /// Its name, its ID or the beginning of its ID; a whole ID need not be in the list
    #[arg(value_name = "PEER")]
    peer: String,

    /// Print the result as one JSON object, as `peers ls --json` has it
    #[arg(long)]
    json: bool,
}

/// Take a peer off the list, with its name and roles. A member of the group is entered again when it comes.
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// Its name, its ID or the beginning of its ID
    #[arg(value_name = "PEER")]
    peer: String,

    /// Print the result as one JSON object, as `peers ls --json` has it
    #[arg(long)]
    json: bool,
}

/// Enter a peer by its ID, as `gattway id` prints it there. The peer must have this database in its list as well. One that is
/// denied stays so: `peers allow` lets it in again.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Its whole ID
    #[arg(value_name = "ID")]
    id: PeerId,

    /// Its name on this device
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    roles: RoleArgs,

    /// Print the result as one JSON object, as `peers ls --json` has it
    #[arg(long)]
    json: bool,
}

/// Begin a new list in the place of one that is lost or damaged: nobody is known, paired, denied or named any more.
///
/// Members of the group that come then have the role that is given here; without one they are not let in until
/// `peers allow default` says what they may do.
#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// What those may do that nothing is said about
    #[arg(long, value_enum, value_name = "ROLE", default_value = "none")]
    role: Role,

    /// Give up a list that is whole
    #[arg(long)]
    force: bool,

    /// Print the result as one JSON object, as `peers ls --json` has it
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(global: &GlobalArgs, command: &PeersCommand) -> Result<(), CliError> {
    let path = global.db_path()?;
    let directory = match command {
        PeersCommand::Add(_) | PeersCommand::Allow(_) => store::private_directory(path)?,
        _ => store::existing_directory(path)?,
    };
    match command {
        PeersCommand::Ls(args) => rows::ls(&directory, args.json),
        PeersCommand::Rename(args) => change(&directory, args.json, |list| {
            let id = list.find(&args.peer)?;
            list.rename(&id, &args.name)?;
            Ok(Some(id))
        }),
        PeersCommand::Allow(args) => change(&directory, args.json, |list| allow(list, args)),
        PeersCommand::Deny(args) => deny(&directory, args),
        PeersCommand::Forget(args) => forget(&directory, args),
        PeersCommand::Add(args) => change(&directory, args.json, |list| add(list, args)),
        PeersCommand::Reset(args) => reset(&directory, args),
    }
}

fn reset(directory: &Path, args: &ResetArgs) -> Result<(), CliError> {
    if !args.force && TrustList::load(directory).is_ok_and(|list| list != TrustList::default()) {
        let message = "the trust list is whole, and would be given up with everything that it says";
        return Err(
            CliError::new(Exit::Input, message).help("`gattway peers ls` shows it; --force gives it up")
        );
    }
    TrustList::reset(directory, args.role.into()).map_err(list_failed)?;
    change(directory, args.json, |_| Ok(None))
}

/// Changes what is said about a peer (`None`: about all others), and tells what is said now.
fn change(
    directory: &Path,
    json: bool,
    change: impl FnOnce(&mut TrustList) -> Result<Option<PeerId>, TrustError>,
) -> Result<(), CliError> {
    let changed = TrustList::update(directory, |list| {
        let id = change(list)?;
        Ok((id, list.clone()))
    });
    let (id, list) = changed.map_err(list_failed)?;
    let row = match &id {
        Some(id) => Row::of(&list, id),
        None => Row::new(EVERYBODY.into(), None, &list.default),
    };
    let who = match &id {
        Some(id) => row.name.map_or_else(|| id.short(), |name| format!("{name} ({})", id.short())),
        None => OTHERS.to_owned(),
    };
    let mut out = Output::new();
    if json {
        out.json(&row)?;
    } else if row.allowed {
        out.line(format!("{who}: {}", roles_text(&row)))?;
    } else {
        out.line(format!("{who}: {DENIED}"))?;
    }
    out.flush()
}

fn allow(list: &mut TrustList, args: &AllowArgs) -> Result<Option<PeerId>, TrustError> {
    if args.peer == EVERYBODY {
        list.default = args.roles.applied(list.default.clone())?;
        return Ok(None);
    }
    let id = list.find(&args.peer)?;
    let permissions = args.roles.for_peer(list, &id)?;
    if let Some(peer) = list.get_mut(&id) {
        peer.denied = false;
        peer.permissions = permissions.or(peer.permissions.take());
    }
    Ok(Some(id))
}

fn deny(directory: &Path, args: &DenyArgs) -> Result<(), CliError> {
    let mut origin = Origin::Manual;
    change(directory, args.json, |list| {
        // A stranger can be kept out before it is met.
        let id = match (list.find(&args.peer), args.peer.parse::<PeerId>()) {
            (Err(TrustError::Unknown { .. }), Ok(id)) => id,
            (found, _) => found?,
        };
        let peer = list.enter(id, Origin::Group)?;
        peer.denied = true;
        origin = peer.origin;
        Ok(Some(id))
    })?;
    if origin == Origin::Group && Group::load(directory).map_err(group_failed)?.is_some() {
        note(
            "it may know the group's secret, and could come back as somebody else: `gattway group rotate` changes it for all \
             others",
        );
    }
    Ok(())
}

fn forget(directory: &Path, args: &ForgetArgs) -> Result<(), CliError> {
    let forgotten = TrustList::update(directory, |list| {
        let id = list.find(&args.peer)?;
        list.forget(&id);
        Ok(id)
    });
    let id = forgotten.map_err(list_failed)?;
    let mut out = Output::new();
    match args.json {
        true => out.json(&serde_json::json!({"id": id.to_text(), "forgotten": true}))?,
        false => out.line(format!("{}: forgotten", id.short()))?,
    }
    out.flush()
}

fn add(list: &mut TrustList, args: &AddArgs) -> Result<Option<PeerId>, TrustError> {
    let permissions = args.roles.for_peer(list, &args.id)?;
    let peer = list.enter(args.id, Origin::Manual)?;
    if peer.denied {
        let text = peer.name.clone().unwrap_or_else(|| args.id.short());
        return Err(TrustError::Denied { text });
    }
    if peer.origin == Origin::Group {
        peer.origin = Origin::Manual;
    }
    peer.permissions = permissions.or(peer.permissions.take());
    if let Some(name) = &args.name {
        list.rename(&args.id, name)?;
    }
    Ok(Some(args.id))
}
