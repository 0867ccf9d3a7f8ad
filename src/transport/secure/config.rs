//! Settings of secure connections.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::carrier::Carrier;
use crate::endpoint::MessagingError;
use crate::secure::{
    Established, Identity, Keyring, PeerPolicy, RekeyLimits, SecureConfig, SecureError, fresh_of_carrier,
};
use crate::transport::clock::Clock;

/// Handshakes that an acceptor has under way at one time, unless configured otherwise. Each takes about 6 KiB, and what
/// its connection takes; see the tests.
pub const HALF_OPEN_MAX: usize = 64;
/// How long a peer that has shown a key of ours keeps its place while others wait for one, beginning when it came.
pub const KEYED_PLACE_TIME: Duration = Duration::from_secs(3);

/// Bytes of the peer that wait for decryption: some of the largest records.
pub(super) const INBOUND_BYTES: usize = 32 * 1024;
/// The same while a peer is not known.
pub(super) const HALF_OPEN_INBOUND_BYTES: usize = 4 * 1024;
/// Time for a last word to leave.
pub(super) const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(2);

/// Says whether what a peer may do suffices for what this side wants of it; else why not.
pub type GrantCheck = Arc<dyn Fn(&Established) -> Result<(), String> + Send + Sync>;

/// Settings of secure connections. Clones share the counter behind `seed`.
#[derive(Clone)]
pub struct SecureConnectionConfig {
    /// Who this side is.
    pub identity: Arc<Identity>,
    /// Who may come in.
    pub policy: Arc<dyn PeerPolicy>,
    /// Time for the handshake.
    pub timeout: Duration,
    /// When keys are changed.
    pub rekey: RekeyLimits,
    /// The clock that all runs on.
    pub clock: Clock,
    /// Active side: take a refusal for final although anybody could have forged it. For one attempt with somebody waiting
    /// for its result; what goes on by itself should rather try again.
    pub trust_refusals: bool,
    /// Active side: whether the peer may do what is wanted of it.
    pub check: Option<GrantCheck>,
    /// Active side: remember what was synced under the ID that the peer proves, rather than under the endpoint's name.
    pub names_peer: bool,
    /// Meet only somebody who pairs too; nothing is replicated over such a connection.
    pub pairing: bool,
    /// Handshakes of an acceptor at one time.
    pub half_open_max: usize,
    /// Makes keys repeatable, for simulations; `None`: from the operating system.
    pub seed: Option<u64>,
    pub(super) count: Arc<AtomicU64>,
}

impl SecureConnectionConfig {
    /// The defaults.
    pub fn new(identity: Arc<Identity>, policy: Arc<dyn PeerPolicy>) -> SecureConnectionConfig {
        SecureConnectionConfig {
            identity,
            policy,
            timeout: crate::secure::HANDSHAKE_TIMEOUT,
            rekey: RekeyLimits::default(),
            clock: Clock::default(),
            trust_refusals: false,
            check: None,
            names_peer: true,
            pairing: false,
            half_open_max: HALF_OPEN_MAX,
            seed: None,
            count: Arc::default(),
        }
    }

    /// Over a carrier: a link has something that is fresh of its passive side.
    pub(super) fn session(&self, carrier: &Carrier) -> Result<SecureConfig, MessagingError> {
        let fresh = match carrier {
            Carrier::Stream(_) => None,
            Carrier::Link(link) => {
                let origin = link.session_origin();
                let none = || MessagingError::recoverable("the link has no session");
                Some(fresh_of_carrier(origin.ok_or_else(none)?.as_bytes()))
            }
        };
        Ok(SecureConfig {
            identity: Arc::clone(&self.identity),
            policy: Arc::clone(&self.policy),
            timeout: self.timeout,
            rekey: self.rekey,
            fresh,
        })
    }

    pub(super) fn keyring(&self) -> Keyring {
        if self.pairing { Keyring::pairing() } else { Keyring::new(&self.identity, &*self.policy) }
    }

    pub(super) fn entropy(&self) -> Result<[u8; 32], MessagingError> {
        let mut entropy = [0; 32];
        match self.seed {
            Some(seed) => {
                entropy[..8].copy_from_slice(&seed.to_le_bytes());
                entropy[8..16].copy_from_slice(&self.count.fetch_add(1, Ordering::Relaxed).to_le_bytes());
                entropy[16..24].copy_from_slice(&self.identity.id().as_bytes()[..8]);
            }
            None => getrandom::fill(&mut entropy).map_err(|error| {
                MessagingError::permanent(format!("the system has no randomness: {error}"))
            })?,
        }
        Ok(entropy)
    }

    /// As the layer above is told.
    pub(super) fn messaging(&self, error: &SecureError) -> MessagingError {
        let forgeable = matches!(
            error,
            SecureError::Refused { proven: false, .. } | SecureError::Plain | SecureError::Version { .. }
        );
        let message = format!("secure session: {error}");
        let described = if error.is_recoverable() && !(forgeable && self.trust_refusals) {
            MessagingError::recoverable(message)
        } else {
            MessagingError::permanent(message)
        };
        described.with_source(error.clone())
    }
}

impl fmt::Debug for SecureConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureConnectionConfig").field("identity", &self.identity).finish_non_exhaustive()
    }
}
