//! A peer of the trust list as scripts and programs read it, and roles as they are written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::secure::{Access, PeerId, Permissions};
use crate::trust::list::{Origin, TrustList, TrustedPeer};

/// What stands for all peers that nothing else is said about.
pub(crate) const EVERYBODY: &str = "default";

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Get documents from here.
    Read,
    /// Give documents to here.
    Write,
    /// Get and give.
    Both,
    /// Neither.
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

impl From<Access> for Role {
    fn from(access: Access) -> Role {
        match access {
            Access::Read => Role::Read,
            Access::Write => Role::Write,
            Access::ReadWrite => Role::Both,
            Access::None => Role::None,
        }
    }
}

/// A peer. The field names are a promise.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PeerRow<'a> {
    /// The whole ID; `default` for all that nothing else is said about.
    pub(crate) id: String,
    /// Its name here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) calls_itself: Option<&'a str>,
    /// How it came into the list: `paired`, `group` or `manual`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<&'static str>,
    /// Whether it may come in.
    pub(crate) allowed: bool,
    /// What it may do with collections that are not named.
    pub(crate) role: Role,
    /// What it may do with these.
    pub(crate) collections: BTreeMap<&'a str, Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_seen_s: Option<u64>,
    /// To the hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen_s: Option<u64>,
    /// The epoch of the group's secret that it was last seen to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<u32>,
    /// Whether it is to get this device's, and was not seen to have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) behind: Option<bool>,
}

impl<'a> PeerRow<'a> {
    /// One peer.
    pub(crate) fn of(list: &'a TrustList, id: &PeerId) -> PeerRow<'a> {
        let row = PeerRow::new(id.to_text(), list.get(id), list.permissions(id));
        PeerRow { calls_itself: list.told_name(id), epoch: list.epoch(id), ..row }
    }

    pub(crate) fn new(
        id: String,
        peer: Option<&'a TrustedPeer>,
        permissions: &'a Permissions,
    ) -> PeerRow<'a> {
        let seen = |seconds: u64| (seconds > 0).then_some(seconds);
        PeerRow {
            id,
            name: peer.and_then(|peer| peer.name.as_deref()),
            calls_itself: None,
            origin: peer.map(|peer| match peer.origin {
                Origin::Paired => "paired",
                Origin::Group => "group",
                Origin::Manual => "manual",
            }),
            allowed: peer.is_none_or(|peer| !peer.denied),
            role: permissions.others.into(),
            collections: permissions
                .collections
                .iter()
                .map(|(name, access)| (name.as_str(), (*access).into()))
                .collect(),
            first_seen_s: peer.and_then(|peer| seen(peer.first_seen_s)),
            last_seen_s: peer.and_then(|peer| seen(peer.last_seen_s)),
            epoch: None,
            behind: None,
        }
    }
}

/// A role as it is written.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::None => "none",
        Role::Read => "read",
        Role::Write => "write",
        Role::Both => "both",
    }
}
