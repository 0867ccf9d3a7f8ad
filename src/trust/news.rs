//! What a running node tells of its group.

use std::fmt;

use crate::secure::PeerId;

/// What has become of the group's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupNews {
    /// This device has another one.
    Changed {
        /// The number of its epoch, if it is known.
        epoch: Option<u32>,
        /// Who gave it; `None`: it was changed here.
        from: Option<PeerId>,
    },
    /// A peer is seen to have this device's for the first time.
    PeerHas {
        /// Who.
        peer: PeerId,
        /// The number of the epoch.
        epoch: u32,
    },
}

/// One line for people.
impl fmt::Display for GroupNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupNews::Changed { epoch, from } => {
                f.write_str("the group has a new secret")?;
                if let Some(epoch) = epoch {
                    write!(f, ": epoch {epoch}")?;
                }
                match from {
                    Some(from) => write!(f, ", given by {from}"),
                    None => f.write_str(", given by a command"),
                }
            }
            GroupNews::PeerHas { peer, epoch } => write!(f, "{peer} has the group's secret of epoch {epoch}"),
        }
    }
}
