//! What can go wrong with a secure session. No variant carries a secret.

use std::time::Duration;

use super::epoch::EpochError;
use super::{PeerId, Refusal};

/// Why a secure session did not come about, or ended.
///
/// Whatever the variant, the session is over and gives no further byte to the layer above.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecureError {
    /// The peer speaks replication without a secure session.
    #[error("the peer speaks without encryption: give --plain on both sides if that is what you want")]
    Plain,
    /// The peer speaks something that is not this protocol.
    #[error("the peer does not speak this protocol (first byte {first:#04x})")]
    NotOurs {
        /// The first byte of its message.
        first: u8,
    },
    /// No version in common.
    #[error("{}", version_text(*min, *max, *ours))]
    Version {
        /// The peer's lowest.
        min: u8,
        /// The peer's highest.
        max: u8,
        /// Ours.
        ours: u8,
    },
    /// A message or record above its limit.
    #[error("a message of {actual} bytes came, at most {max} are accepted")]
    TooLong {
        /// The limit in bytes.
        max: usize,
        /// What was announced, in bytes.
        actual: usize,
    },
    /// A message whose fields do not fit together.
    #[error("a malformed message came")]
    Malformed,
    /// A message that has no place here. Two sides that both connected see it.
    #[error("a message of kind {kind} came where another was expected; do both sides play the same role?")]
    Unexpected {
        /// The kind.
        kind: u8,
    },
    /// The peer could not prove that it is who it says, or the bytes were changed on their way.
    #[error("the handshake does not hold: the bytes were changed on their way, or the peer is an impostor")]
    Handshake,
    /// What this side offered and what the peer answered to differ: somebody in between wants a weaker session.
    #[error("the peer answered to another offer than this side made: somebody is in between")]
    Downgrade,
    /// A record that is not what the peer sent: changed, repeated, left out, or sent back.
    #[error("a record is not what the peer sent")]
    Record,
    /// The bytes ended, and the peer had not said so.
    #[error("the connection ended without the peer's word")]
    Truncated,
    /// The handshake took too long.
    #[error("the handshake did not come to its end within {limit:?}")]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// The peer has the same key as this database.
    #[error(
        "the peer has the identity of this database: one is a copy of the other; on one of the two, `gattway db renew --identity` \
         makes another one of it"
    )]
    SameIdentity,
    /// Nothing that the peer offered is known here.
    #[error("a stranger: in no group of this database, and not paired with it")]
    Stranger,
    /// This side has no key that it could offer and takes no strangers.
    #[error("this database is in no group and has no paired peer")]
    NothingToOffer,
    /// This side's policy keeps the peer out.
    #[error("{peer} may not connect here: {refusal}")]
    NotAdmitted {
        /// Who.
        peer: PeerId,
        /// Why.
        refusal: Refusal,
    },
    /// The peer's policy keeps this side out.
    #[error("the peer refused: {reason}")]
    Refused {
        /// What it says.
        reason: RefuseReason,
        /// Whether it is certain that the peer itself said so. What comes before the handshake can come from anybody.
        proven: bool,
    },
    /// What the peer said of the group's secret was not taken.
    #[error("the group's new secret was not taken: {0}")]
    Epoch(EpochError),
    /// What the peer may do changed while it was connected.
    #[error("permissions of the peer changed")]
    PermissionChanged,
    /// The system gave no randomness, or a key cannot be used.
    #[error("the key cannot be used")]
    Key,
}

fn version_text(min: u8, max: u8, ours: u8) -> String {
    let theirs = if min == max { format!("version {min}") } else { format!("versions {min} to {max}") };
    let older = if max < ours { "the other device" } else { "this device" };
    format!(
        "the peer speaks {theirs} of the secure session, this side version {ours}: update gattway on {older}"
    )
}

impl SecureError {
    /// What the peer is told, if it can make use of it.
    pub(super) fn reason(&self) -> Option<RefuseReason> {
        Some(match self {
            SecureError::Version { .. } => RefuseReason::Version,
            SecureError::SameIdentity => RefuseReason::SameIdentity,
            SecureError::Stranger => RefuseReason::Stranger,
            SecureError::NotAdmitted { refusal, .. } => (*refusal).into(),
            SecureError::PermissionChanged => RefuseReason::PermissionChanged,
            SecureError::Refused { .. } | SecureError::Plain | SecureError::NothingToOffer => return None,
            _ => RefuseReason::Violation,
        })
    }

    /// Whether a new connection may do better.
    ///
    /// What a stranger could have caused is always recoverable, or one forged packet would end a replication for good.
    pub fn is_recoverable(&self) -> bool {
        match self {
            SecureError::Refused { reason, proven } => !proven || reason.is_recoverable(),
            SecureError::NotAdmitted { refusal, .. } => *refusal == Refusal::NotNow,
            SecureError::SameIdentity | SecureError::NothingToOffer | SecureError::Key => false,
            _ => true,
        }
    }
}

/// Why a peer refused, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefuseReason {
    /// No common version of the secure session.
    Version,
    /// Nothing that was offered is known there.
    Stranger,
    /// This identity is denied.
    Denied,
    /// It speaks without encryption only.
    PlainOnly,
    /// Too many handshakes at once.
    Busy,
    /// What this side may do there has just changed: connect again.
    PermissionChanged,
    /// This side broke the protocol.
    Violation,
    /// Both have the same identity.
    SameIdentity,
    /// What this side may do there does not suffice for what it asks.
    Role,
    /// This side has a former secret of the group, and does not get the new one.
    FormerMember,
    /// A reason of a later version.
    Other(u8),
}

impl RefuseReason {
    /// Its number on the wire.
    pub(super) fn code(self) -> u8 {
        match self {
            RefuseReason::Version => 1,
            RefuseReason::Stranger => 2,
            RefuseReason::Denied => 3,
            RefuseReason::PlainOnly => 4,
            RefuseReason::Busy => 5,
            RefuseReason::PermissionChanged => 6,
            RefuseReason::Violation => 7,
            RefuseReason::SameIdentity => 8,
            RefuseReason::Role => 9,
            RefuseReason::FormerMember => 10,
            RefuseReason::Other(code) => code,
        }
    }

    pub(super) fn from_code(code: u8) -> RefuseReason {
        match code {
            1 => RefuseReason::Version,
            2 => RefuseReason::Stranger,
            3 => RefuseReason::Denied,
            4 => RefuseReason::PlainOnly,
            5 => RefuseReason::Busy,
            6 => RefuseReason::PermissionChanged,
            7 => RefuseReason::Violation,
            8 => RefuseReason::SameIdentity,
            9 => RefuseReason::Role,
            10 => RefuseReason::FormerMember,
            other => RefuseReason::Other(other),
        }
    }

    fn is_recoverable(self) -> bool {
        matches!(self, RefuseReason::Busy | RefuseReason::PermissionChanged)
    }
}

impl From<Refusal> for RefuseReason {
    fn from(refusal: Refusal) -> RefuseReason {
        match refusal {
            Refusal::Denied => RefuseReason::Denied,
            Refusal::Stranger => RefuseReason::Stranger,
            Refusal::NoRole => RefuseReason::Role,
            Refusal::FormerMember => RefuseReason::FormerMember,
            Refusal::NotNow => RefuseReason::PermissionChanged,
        }
    }
}

impl std::fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RefuseReason::Version => "it speaks another version of the secure session",
            RefuseReason::Stranger => {
                "this database is a stranger there: join the same group, or pair the two"
            }
            RefuseReason::Denied => "this database is denied there",
            RefuseReason::PlainOnly => {
                "it speaks without encryption only: give --plain on both sides, or on none"
            }
            RefuseReason::Busy => "it has too many handshakes under way, try again",
            RefuseReason::PermissionChanged => "what this database may do there has changed",
            RefuseReason::Violation => "it says that this side broke the protocol",
            RefuseReason::SameIdentity => {
                "both sides have the same identity: one database is a copy of the other; on one of them, `gattway db renew \
                 --identity` makes another one of it"
            }
            RefuseReason::Role => "this database may not do there what it asked for",
            RefuseReason::FormerMember => {
                "the group has a new secret, which is not for this database: join again with the new code \
                 (`gattway group leave`, `gattway group join`), or have the secret changed once more"
            }
            RefuseReason::Other(code) => return write!(f, "reason {code}, which only later versions know"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the peer is told, and whether trying again can help: a forged packet must not end a replication for good, and what only the
    /// owner can mend must not be tried for ever.
    #[test]
    fn each_error_has_its_reason_and_its_end() {
        let not_admitted = |refusal| SecureError::NotAdmitted { peer: PeerId([1; 32]), refusal };
        let cases = [
            (SecureError::Stranger, Some(RefuseReason::Stranger), true),
            (SecureError::Malformed, Some(RefuseReason::Violation), true),
            (SecureError::Version { min: 9, max: 9, ours: 2 }, Some(RefuseReason::Version), true),
            (SecureError::Plain, None, true),
            (SecureError::PermissionChanged, Some(RefuseReason::PermissionChanged), true),
            (SecureError::SameIdentity, Some(RefuseReason::SameIdentity), false),
            (SecureError::NothingToOffer, None, false),
            (not_admitted(Refusal::Denied), Some(RefuseReason::Denied), false),
            (not_admitted(Refusal::NotNow), Some(RefuseReason::PermissionChanged), true),
            (SecureError::Key, Some(RefuseReason::Violation), false),
            (SecureError::Refused { reason: RefuseReason::Denied, proven: false }, None, true),
            (SecureError::Refused { reason: RefuseReason::Denied, proven: true }, None, false),
            (SecureError::Refused { reason: RefuseReason::Busy, proven: true }, None, true),
        ];
        for (error, reason, recoverable) in cases {
            assert_eq!((error.reason(), error.is_recoverable()), (reason, recoverable), "{error:?}");
        }
    }

    #[test]
    fn a_version_error_names_the_device_to_update() {
        assert!(version_text(1, 1, 2).contains("version 1 "), "{}", version_text(1, 1, 2));
        assert!(version_text(1, 1, 2).ends_with("the other device"));
        assert!(version_text(3, 4, 2).contains("versions 3 to 4"));
        assert!(version_text(3, 4, 2).ends_with("this device"));
    }

    #[test]
    fn reasons_read_back() {
        for code in 0..=255 {
            assert_eq!(RefuseReason::from_code(code).code(), code);
        }
    }
}
