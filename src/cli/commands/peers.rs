//! `gattway peers`: the trust list.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::global::GlobalArgs;
use crate::cli::support::output::{Output, counted, note};
use crate::cli::support::store;
use crate::cli::support::trust::{group_failed, list_failed};
use crate::cli::support::visible::visible;
use crate::database::canonical_collection_name;
use crate::secure::epoch::SignedEpoch;
use crate::secure::{Access, PeerId, Permissions};
use crate::trust::group::Group;
use crate::trust::list::{Origin, PEER_COLLECTIONS_MAX, TrustError, TrustList, TrustedPeer};

/// What stands for all peers that nothing else is said about.
const EVERYBODY: &str = "default";

/// The same in words.
const OTHERS: &str = "all others that may come in";

/// The role of a peer that is kept out.
const DENIED: &str = "DENIED";

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

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Get documents from here
    Read,
    /// Give documents to here
    Write,
    /// Get and give
    Both,
    /// Neither
    None,
}

impl From<Role> for Access {
    fn from(role: Role) -> Access {
        match role {
            Role::Read => Access::Read,
            Role::Write => Access::Write,
            Role::Both => Access::ReadWrite,
            Role::None => Access::None,
        }
    }
}

fn role_name(access: Access) -> &'static str {
    match access {
        Access::None => "none",
        Access::Read => "read",
        Access::Write => "write",
        Access::ReadWrite => "both",
    }
}

/// Roles given to a command.
#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    /// What it may do with all collections that --collection does not name
    #[arg(long, value_enum, value_name = "ROLE")]
    role: Option<Role>,

    /// A role for one collection, again for more; `NAME=default` takes it back
    #[arg(long = "collection", short, value_name = "NAME=ROLE", value_parser = parse_collection_role)]
    collections: Vec<(String, Option<Access>)>,
}

fn parse_collection_role(text: &str) -> Result<(String, Option<Access>), String> {
    let (name, role) = text.rsplit_once('=').ok_or("NAME=ROLE is expected, as in plant.readings=read")?;
    let name = canonical_collection_name(name).map_err(|error| error.to_string())?;
    let access = match role {
        EVERYBODY => None,
        role => Some(Access::from(
            <Role as ValueEnum>::from_str(role, true)
                .map_err(|_| format!("{role:?} is no role: read, write, both, none or default"))?,
        )),
    };
    Ok((name, access))
}

impl RoleArgs {
    fn is_empty(&self) -> bool {
        self.role.is_none() && self.collections.is_empty()
    }

    /// What is to stand in the list for a peer: its permissions with these roles changed; `None` if none was given.
    pub(crate) fn for_peer(&self, list: &TrustList, id: &PeerId) -> Result<Option<Permissions>, TrustError> {
        if self.is_empty() { Ok(None) } else { self.applied(list.permissions(id).clone()).map(Some) }
    }

    /// The permissions with these roles changed.
    fn applied(&self, mut permissions: Permissions) -> Result<Permissions, TrustError> {
        if let Some(role) = self.role {
            permissions.others = role.into();
        }
        for (name, access) in &self.collections {
            match access {
                Some(access) => drop(permissions.collections.insert(name.clone(), *access)),
                None => drop(permissions.collections.remove(name)),
            }
        }
        if permissions.collections.len() > PEER_COLLECTIONS_MAX {
            return Err(TrustError::TooManyCollections);
        }
        Ok(permissions)
    }
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
        PeersCommand::Ls(args) => ls(&directory, args),
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

/// A peer as scripts read it.
#[derive(Serialize)]
struct Row<'a> {
    /// The whole ID; `default` for all that nothing else is said about.
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_itself: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    allowed: bool,
    role: &'static str,
    collections: std::collections::BTreeMap<&'a str, &'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_s: Option<u64>,
    /// The epoch of the group's secret that it was last seen to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    /// Whether it is to get this device's, and was not seen to have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<bool>,
}

impl<'a> Row<'a> {
    /// One peer.
    fn of(list: &'a TrustList, id: &PeerId) -> Row<'a> {
        let row = Row::new(id.to_text(), list.get(id), list.permissions(id));
        Row { calls_itself: list.told_name(id), epoch: list.epoch(id), ..row }
    }

    /// Its name here, or what it calls itself, in quotes: that is its own word.
    fn name_text(&self) -> String {
        match (self.name, self.calls_itself) {
            (Some(name), _) => visible(name).into_owned(),
            (None, Some(told)) => format!("{told:?}"),
            (None, None) => "-".into(),
        }
    }

    fn new(id: String, peer: Option<&'a TrustedPeer>, permissions: &'a Permissions) -> Row<'a> {
        let seen = |seconds: u64| (seconds > 0).then_some(seconds);
        Row {
            id,
            name: peer.and_then(|peer| peer.name.as_deref()),
            calls_itself: None,
            origin: peer.map(|peer| match peer.origin {
                Origin::Paired => "paired",
                Origin::Group => "group",
                Origin::Manual => "manual",
            }),
            allowed: peer.is_none_or(|peer| !peer.denied),
            role: role_name(permissions.others),
            collections: permissions
                .collections
                .iter()
                .map(|(name, access)| (name.as_str(), role_name(*access)))
                .collect(),
            first_seen_s: peer.and_then(|peer| seen(peer.first_seen_s)),
            last_seen_s: peer.and_then(|peer| seen(peer.last_seen_s)),
            epoch: None,
            behind: None,
        }
    }
}

fn ls(directory: &Path, args: &LsArgs) -> Result<(), CliError> {
    let list = TrustList::load(directory).map_err(list_failed)?;
    // Who is in the list does not depend on it: what is wrong with its file is told elsewhere.
    let group = Group::load(directory).ok().flatten();
    // Nothing is to be told where the secret was never changed.
    let signed = group.as_ref().and_then(Group::signed).filter(|signed| signed.number() > 0);
    let behind = behind(&list, signed);
    let mut out = Output::new();
    if args.json {
        out.json(&Row::new(EVERYBODY.into(), None, &list.default))?;
        for (id, _) in list.peers() {
            out.json(&Row { behind: signed.map(|_| behind.contains(id)), ..Row::of(&list, id) })?;
        }
        return out.flush();
    }
    let mut table = comfy_table::Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_header(["NAME", "ID", "CAME BY", "ROLE", "SEEN"].into_iter().chain(signed.map(|_| "EPOCH")));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for (id, peer) in list.peers() {
        let row = Row::of(&list, id);
        let role = if peer.denied { DENIED.to_owned() } else { roles_text(&row) };
        let seen = row.last_seen_s.map_or("never".to_owned(), |at| ago(now.saturating_sub(at)));
        let epoch = row.epoch.map_or_else(|| "-".into(), |epoch| epoch.to_string());
        let epoch = if behind.contains(id) { format!("{epoch}, behind") } else { epoch };
        let cells = [row.name_text(), id.short(), row.origin.unwrap_or("-").into(), role, seen];
        table.add_row(cells.into_iter().chain(signed.map(|_| epoch)));
    }
    if list.peers().next().is_none() {
        note(match group {
            Some(_) => "no peer is in the list yet: a member of the group comes into it when it is first met",
            None => "the list is empty: `gattway pair`, or `gattway group create`, lets peers in",
        });
    } else {
        out.line(table.trim_fmt())?;
    }
    out.line(format!("{OTHERS}: {}", roles_text(&Row::new(String::new(), None, &list.default))))?;
    out.flush()?;
    if let Some(signed) = signed {
        note(&epoch_text(signed.number(), behind.len() as u64));
    }
    Ok(())
}

/// Who of the list is to get the newest secret of the group and was not seen to have it.
pub(crate) fn behind(list: &TrustList, signed: Option<&SignedEpoch>) -> BTreeSet<PeerId> {
    let peers = list.peers().filter(|(_, peer)| !peer.denied).map(|(id, _)| *id);
    let is_behind = |id: &PeerId| {
        signed.is_some_and(|signed| signed.is_for(id) && list.epoch(id) != Some(signed.number()))
    };
    peers.filter(is_behind).collect()
}

/// How far the newest secret has come, as this device has seen it.
pub(crate) fn epoch_text(epoch: u32, behind: u64) -> String {
    match behind {
        0 => format!("epoch {epoch} of the group: all of them have it"),
        _ => format!("epoch {epoch} of the group: {} not seen with it yet", counted(behind, "peer")),
    }
}

/// What a peer of the list is called, by its owner or by itself.
pub(crate) fn name_of(list: &TrustList, id: &PeerId) -> String {
    Row::of(list, id).name_text()
}

fn roles_text(row: &Row<'_>) -> String {
    let collections = row.collections.iter().map(|(name, role)| format!(", {name}={role}"));
    std::iter::once(row.role.to_owned()).chain(collections).collect()
}

/// A time span, to the precision that the list keeps.
pub(crate) fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => "just now".into(),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_collections_are_read_and_applied() {
        assert_eq!(parse_collection_role("a.b=read"), Ok(("a.b".into(), Some(Access::Read))));
        assert_eq!(parse_collection_role("logs=NONE"), Ok(("_default.logs".into(), Some(Access::None))));
        assert_eq!(parse_collection_role("a.b=default"), Ok(("a.b".into(), None)));
        for bad in ["a.b", "a.b=admin", "=read", "a b=read"] {
            assert!(parse_collection_role(bad).is_err(), "{bad}");
        }
        let args = RoleArgs {
            role: Some(Role::Read),
            collections: vec![("a.b".into(), None), ("a.c".into(), Some(Access::ReadWrite))],
        };
        let before =
            Permissions { others: Access::ReadWrite, collections: [("a.b".to_owned(), Access::None)].into() };
        let after = args.applied(before).expect("room");
        assert_eq!(
            (after.of("a.b"), after.of("a.c"), after.others),
            (Access::Read, Access::ReadWrite, Access::Read)
        );
    }
}
