//! Roles as people give and read them.

use clap::{Args, ValueEnum};

use crate::database::canonical_collection_name;
use crate::gateway::peer_row::{EVERYBODY, Role};
use crate::secure::{Access, PeerId, Permissions};
use crate::trust::list::{PEER_COLLECTIONS_MAX, TrustError, TrustList};

/// Roles given to a command.
#[derive(Clone, Debug, Args)]
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
    pub(super) fn applied(&self, mut permissions: Permissions) -> Result<Permissions, TrustError> {
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
