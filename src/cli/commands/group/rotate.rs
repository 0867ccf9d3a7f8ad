//! `gattway group rotate` and `group authority`: a new secret for all members that are not denied, and who may begin it.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::line::{now_s, summary};
use crate::cli::commands::peers::{ago, name_of};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{Output, counted, note};
use crate::cli::support::trust::{group_failed, list_failed, no_group};
use crate::cli::support::{secret, security};
use crate::secure::PeerId;
use crate::secure::epoch::{AuthorityId, AuthorityKey};
use crate::trust::group::Group;
use crate::trust::list::TrustList;

/// Give the group a new secret: a new epoch begins. Only on the device that the group was made on.
///
/// Every peer of the list that is not denied (`peers ls`) gets it when it next meets this device, or another one that has
/// it, in an encrypted session and without anybody's doing. Denied peers, and whoever comes under a new identity with the
/// old secret, get nothing; the denials go along and hold on every device. A device that is not in this list yet gets it
/// too if `peers add` has entered it before; later it has to be joined anew by the code, or wait for the next epoch.
///
/// Look at `--dry-run` first: somebody who knows the old secret may already be in the list under other names.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db gateway.db peers deny pump-house          # it was stolen, and knows the group's secret
  gattway --db gateway.db group rotate --dry-run
  gattway --db gateway.db group rotate
  gattway --db gateway.db peers ls                       # who has it by now")]
pub(crate) struct RotateArgs {
    /// Only tell who would get it and who would not
    #[arg(long)]
    dry_run: bool,

    /// One JSON object, without the secret
    #[arg(long)]
    json: bool,
}

/// Show who may change the group's secret, or say so by hand.
///
/// That is the device that the group was made on; the members need not be told. By hand it is said for groups that were
/// made before there were epochs, and when that device is lost: `--make` on the device that is to do it, `--accept` with
/// what that prints on each other device, once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway --db gateway.db group authority --json | jq -r .authority
  gattway --db spare.db group authority --make
  gattway --db sensor.db group authority --accept nz5bzxjjwc3y7uj26tcvtd7p6txsvfywny6kn4xe7p6m3acqlpyq")]
pub(crate) struct AuthorityArgs {
    /// Make this device the one that may change the secret
    #[arg(long, conflicts_with = "accept")]
    make: bool,

    /// From now on take new secrets of this authority, and of no other
    #[arg(long, value_name = "KEY")]
    accept: Option<AuthorityId>,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// A new epoch as scripts read it.
#[derive(Serialize)]
struct Rotated<'a> {
    name: &'a str,
    fingerprint: String,
    epoch: u32,
    dry_run: bool,
    members: Vec<String>,
    denied: Vec<String>,
}

/// Who may change the secret, as scripts read it.
#[derive(Serialize)]
struct Authority<'a> {
    name: &'a str,
    epoch: Option<u32>,
    /// Null: not known before the first change of the secret.
    authority: Option<String>,
    /// Whether it is this device.
    here: bool,
}

pub(super) fn rotate(directory: &Path, args: &RotateArgs) -> Result<(), CliError> {
    let me = security::identity(directory)?.id();
    let list = TrustList::load(directory).map_err(list_failed)?;
    let roster = list.roster(me);
    let salt = secret::random()?;
    let now = now_s();
    let change = |group: &Group| group.rotated(*salt, &roster, now);
    let group = if args.dry_run {
        let group = Group::load(directory).map_err(group_failed)?.ok_or_else(no_group)?;
        change(&group).map_err(|error| group_failed(error.into()))?
    } else {
        Group::update(directory, change).map_err(group_failed)?
    };
    let members: Vec<PeerId> = roster.members.iter().copied().filter(|id| *id != me).collect();
    let epoch = group.epoch().unwrap_or(0);
    let mut out = Output::new();
    if args.json {
        let texts = |ids: &[PeerId]| ids.iter().map(PeerId::to_text).collect();
        // What is drawn for a dry run is nobody's.
        let fingerprint = if args.dry_run { String::new() } else { group.fingerprint() };
        let (members, denied) = (texts(&members), texts(&roster.denied));
        out.json(&Rotated {
            name: group.name(),
            fingerprint,
            epoch,
            dry_run: args.dry_run,
            members,
            denied,
        })?;
        return out.flush();
    }
    if args.dry_run {
        for id in &members {
            let seen = list.get(id).map_or(0, |peer| peer.last_seen_s);
            let seen = if seen == 0 {
                "never seen".into()
            } else {
                format!("seen {}", ago(now.saturating_sub(seen)))
            };
            out.line(format!("gets it      {} ({}), {seen}", name_of(&list, id), id.short()))?;
        }
        for id in &roster.denied {
            out.line(format!("is kept out  {} ({})", name_of(&list, id), id.short()))?;
        }
    } else {
        out.line(summary(&group))?;
    }
    out.flush()?;
    let (members, denied) = (counted(members.len() as u64, "peer"), roster.denied.len());
    let is = if args.dry_run { "would be" } else { "is" };
    note(&format!("the new secret {is} for {members}, each when it comes by; {denied} kept out"));
    if !args.dry_run {
        note(
            "`gattway peers ls` tells who has it; `gattway group show` prints the new code for further devices",
        );
    }
    Ok(())
}

pub(super) fn authority(directory: &Path, args: &AuthorityArgs) -> Result<(), CliError> {
    let group = if args.make {
        let key = AuthorityKey::from_bytes(*secret::random()?);
        let loaded = Group::load(directory).map_err(group_failed)?.ok_or_else(no_group)?;
        if loaded.is_authority() {
            return Err(CliError::new(Exit::Input, "this device may change the group's secret already")
                .help("`gattway group authority` prints its key for the other devices"));
        }
        Group::update(directory, |group| Ok(group.with_key(key))).map_err(group_failed)?
    } else if let Some(accepted) = args.accept {
        Group::update(directory, |group| Ok(group.naming(accepted))).map_err(group_failed)?
    } else {
        Group::load(directory).map_err(group_failed)?.ok_or_else(no_group)?
    };
    let (authority, here) = (group.authority(), group.is_authority());
    let mut out = Output::new();
    if args.json {
        let authority = authority.map(|authority| authority.to_text());
        out.json(&Authority { name: group.name(), epoch: group.epoch(), authority, here })?;
        return out.flush();
    }
    match authority {
        Some(authority) => out.line(authority.to_text())?,
        None => note(
            "not known here before the first change of the secret: the device that the group was made on",
        ),
    }
    out.flush()?;
    match (here, args.make) {
        (true, true) => {
            note(
                "this device may change the group's secret once the others accept it: `gattway group authority --accept KEY`",
            );
        }
        (true, false) => note("this device may change the group's secret: `gattway group rotate`"),
        (false, _) if authority.is_some() => {
            note("another device may change the group's secret, this one follows")
        }
        (false, _) => {}
    }
    Ok(())
}
