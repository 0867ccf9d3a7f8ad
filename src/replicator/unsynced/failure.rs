//! A document that was not synced, and whether it would be the same the next time.

#![deny(clippy::disallowed_methods)]

use crate::blip::ErrorReply;
use crate::replica::revision::RevId;
use crate::replicator::direction::Direction;
use crate::replicator::error::{is_conflict, is_transient};
use crate::replicator::sequences::RemoteSequence;

/// A document that was not synced, as it comes to the list.
#[derive(Clone, Debug)]
pub(in crate::replicator) struct Failure {
    pub direction: Direction,
    pub id: String,
    /// Text of what names it, if that could be read.
    pub revision: String,
    pub deleted: bool,
    /// Its place in the feed of the side that has it.
    pub sequence: RemoteSequence,
    /// Whether the next run tries it again by itself.
    pub is_open: bool,
    pub error: ErrorReply,
}

impl Failure {
    /// A revision of ours that the peer did not take.
    pub fn sent(id: &str, revision: RevId, sequence: u64, deleted: bool, error: ErrorReply) -> Failure {
        Failure {
            direction: Direction::Sent,
            id: id.to_owned(),
            revision: revision.to_string(),
            deleted,
            sequence: RemoteSequence::Number(sequence),
            // Somebody else may settle a conflict at the peer.
            is_open: !is_final(&error) || is_conflict(&error),
            error,
        }
    }

    /// A revision of the peer that was not taken here; the position in its feed passes it.
    pub fn received(
        id: &str,
        revision: String,
        sequence: RemoteSequence,
        deleted: bool,
        error: ErrorReply,
    ) -> Failure {
        let direction = Direction::Received;
        Failure { direction, id: id.to_owned(), revision, deleted, sequence, is_open: false, error }
    }
}

/// Whether a peer that answers so would answer the same again: it is about what the document is.
pub(in crate::replicator) fn is_final(error: &ErrorReply) -> bool {
    match error.domain.as_str() {
        // A clock ahead of the peer's: its time comes.
        "LiteCore" if error.code == 4 && error.message.contains("timestamp") => false,
        // Bad revision ID, corrupt revision, no such blob, conflict, bad digest, corrupt blob, bad document ID.
        "LiteCore" => matches!(error.code, 4 | 5 | 7 | 8 | 9 | 15 | 29),
        "HTTP" => (400..500).contains(&error.code) && !is_transient(error),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_answers_is_final_or_may_pass() {
        for (domain, code, message, is_final_) in [
            ("LiteCore", 5, "corrupt", true),
            ("LiteCore", 7, "No such blob", true),
            ("LiteCore", 4, "Invalid timestamp in version vector", false),
            ("LiteCore", 4, "Duplicate ID in version vector", true),
            ("LiteCore", 16, "busy", false),
            ("HTTP", 403, "", true),
            ("HTTP", 413, "", true),
            ("HTTP", 408, "", false),
            ("HTTP", 429, "", false),
            ("HTTP", 503, "", false),
            ("SQLite", 13, "full", false),
        ] {
            assert_eq!(
                is_final(&ErrorReply::new(domain, code, message)),
                is_final_,
                "{domain} {code} {message}"
            );
        }
    }
}
