//! Link-layer security of a peripheral: what its characteristics and channels require, and whom it admits.
//!
//! It comes on top of the secure session, never in its place: Linux trusts a peripheral that reconnects without checking the
//! encryption (BLESA), and an LE key can be cut to 7 bytes (KNOB).

use bluer::Address;
use tracing::{debug, warn};

/// What a connection must be before a byte of ours is read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SecurityLevel {
    /// Anything.
    #[default]
    None,
    /// Encrypted: the devices are paired, with or without a code.
    Encrypt,
    /// Encrypted with a key that a person has vouched for by a code.
    Authenticate,
}

/// Link-layer security of a peripheral.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkSecurity {
    /// What characteristics and channels require.
    pub level: SecurityLevel,
    /// Only devices that are bonded already; nobody new may pair. Means nothing without at least encryption, as an address
    /// alone can be anybody's.
    pub bonded_only: bool,
}

impl LinkSecurity {
    /// Whether the device may have a channel.
    pub(super) async fn admits(self, adapter: &bluer::Adapter, peer: Address) -> bool {
        if !self.bonded_only {
            return true;
        }
        let bonded = match adapter.device(peer) {
            Ok(device) => device.is_paired().await.unwrap_or(false),
            Err(error) => {
                debug!(%peer, %error, "unknown device");
                false
            }
        };
        if !bonded {
            warn!(%peer, "not bonded with this device: refused");
        }
        bonded
    }
}
