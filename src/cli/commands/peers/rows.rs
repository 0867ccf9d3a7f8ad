//! Peers as lines of a table, or as scripts read them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::support::error::CliError;
use crate::cli::support::output::{Output, counted, note};
use crate::cli::support::trust::list_failed;
use crate::cli::support::visible::visible;
use crate::gateway::peer_row::{EVERYBODY, PeerRow as Row, role_name};
use crate::secure::PeerId;
use crate::secure::epoch::SignedEpoch;
use crate::trust::group::Group;
use crate::trust::list::TrustList;

/// All peers that nothing else is said about, in words.
pub(super) const OTHERS: &str = "all others that may come in";

/// The role of a peer that is kept out.
pub(super) const DENIED: &str = "DENIED";

/// Its name here, or what it calls itself, in quotes: that is its own word.
fn name_text(row: &Row<'_>) -> String {
    match (row.name, row.calls_itself) {
        (Some(name), _) => visible(name).into_owned(),
        (None, Some(told)) => format!("{told:?}"),
        (None, None) => "-".into(),
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
        let cells = [name_text(&row), id.short(), row.origin.unwrap_or("-").into(), role, seen];
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
    name_text(&Row::of(list, id))
}

pub(super) fn roles_text(row: &Row<'_>) -> String {
    let collections = row.collections.iter().map(|(name, role)| format!(", {name}={}", role_name(*role)));
    std::iter::once(role_name(row.role).to_owned()).chain(collections).collect()
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
