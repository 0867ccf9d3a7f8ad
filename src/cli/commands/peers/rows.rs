//! Peers as lines of a table, or as scripts read them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::roles::{EVERYBODY, role_name};
use crate::cli::support::error::CliError;
use crate::cli::support::output::{Output, counted, note};
use crate::cli::support::trust::list_failed;
use crate::cli::support::visible::visible;
use crate::secure::epoch::SignedEpoch;
use crate::secure::{PeerId, Permissions};
use crate::trust::group::Group;
use crate::trust::list::{Origin, TrustList, TrustedPeer};

/// All peers that nothing else is said about, in words.
pub(super) const OTHERS: &str = "all others that may come in";

/// The role of a peer that is kept out.
pub(super) const DENIED: &str = "DENIED";

/// A peer as scripts read it.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    /// The whole ID; `default` for all that nothing else is said about.
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_itself: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    pub(super) allowed: bool,
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
    pub(super) fn of(list: &'a TrustList, id: &PeerId) -> Row<'a> {
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

    pub(super) fn new(id: String, peer: Option<&'a TrustedPeer>, permissions: &'a Permissions) -> Row<'a> {
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

/// Lists the peers.
pub(super) fn ls(directory: &Path, json: bool) -> Result<(), CliError> {
    let list = TrustList::load(directory).map_err(list_failed)?;
    // Who is in the list does not depend on it: what is wrong with its file is told elsewhere.
    let group = Group::load(directory).ok().flatten();
    // Nothing is to be told where the secret was never changed.
    let signed = group.as_ref().and_then(Group::signed).filter(|signed| signed.number() > 0);
    let behind = behind(&list, signed);
    let mut out = Output::new();
    if json {
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

pub(super) fn roles_text(row: &Row<'_>) -> String {
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
