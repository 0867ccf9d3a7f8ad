//! The extension between gattway peers: many revisions in a message, one durable answer for many, no echo of
//! what was just pushed, and a run with nothing to do that ends after one round trip.
//!
//! The active side offers it with the property [`PROPERTY`] in `getCollections`, the passive side accepts it with the
//! same property in the reply. A peer that knows nothing of it ignores the property, and nothing else changes.
//! Source: `firmware-notes/replication.md`, extension.

#![deny(clippy::disallowed_methods)]

pub mod answer;
pub mod codec;
mod folded;

/// Name of the property that offers and accepts the extension.
pub const PROPERTY: &str = "gattway";

/// Name of the property of an acceptance that says which documents the passive side takes
/// ([`TAKES`](super::unsynced::TAKES)): when it changes, what it refused is offered again.
pub const TAKES_PROPERTY: &str = "gattwayTakes";

/// Name of the property of an acceptance that names collections which were not asked for, with commas between.
pub const ALSO_PROPERTY: &str = "gattwayAlso";

/// The version that is offered; also the whole value of the offer.
pub const VERSION: &str = "1";

/// Name of the property that says which columns of a `revs` message one side reads: the newest [`RevsFormat`]. Both use the
/// older of the two; a peer without the property reads the first.
pub const FORMAT_PROPERTY: &str = "gattway-revs";

/// Which columns a `revs` message and its answer may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RevsFormat {
    /// Versions only: those that stand for tree IDs go in their place.
    #[default]
    Versions,
    /// Tree IDs too.
    TreeIds,
    /// Messages may be folded too: columns behind an entropy coder.
    Folded,
}

impl RevsFormat {
    /// The newest this side reads.
    pub const NEWEST: RevsFormat = RevsFormat::Folded;

    /// The value of the property.
    pub fn text(self) -> &'static str {
        match self {
            RevsFormat::Versions => "1",
            RevsFormat::TreeIds => "2",
            RevsFormat::Folded => "3",
        }
    }

    /// What this side, which reads so much, uses with a peer that says this of itself. Newer peers read older columns too.
    pub fn agreed(self, peer: Option<&str>) -> RevsFormat {
        let newest: u32 = peer.and_then(|peer| peer.parse().ok()).unwrap_or(1);
        let theirs = match newest {
            ..=1 => RevsFormat::Versions,
            2 => RevsFormat::TreeIds,
            3.. => RevsFormat::Folded,
        };
        theirs.min(self)
    }
}

/// Longest document ID that a message can carry, in bytes: earlier releases stored IDs of so many, which are refused one by
/// one and not with all that came with them.
pub const REVS_ID_BYTES_MAX: usize = 250;

/// Most revisions in one message.
pub const REVS_ENTRIES_MAX: usize = 4_096;

/// Revisions a sender puts into one message.
pub const REVS_ENTRIES: usize = 400;

/// Bytes of one message, before compression, above which a sender begins another.
pub const REVS_BYTES: usize = 48 << 10;

/// The same of a folded message.
pub const FOLDED_BYTES: usize = 256 << 10;

/// Messages that may await their answer at one time, in each collection.
pub const REVS_IN_FLIGHT_MAX: usize = 8;

/// Messages that may await their answer at one time, in all collections of a session.
pub const REVS_IN_FLIGHT_SESSION_MAX: usize = 64;

/// Bytes of messages that may await their answer at one time, in all collections of a session, unless one alone has more.
pub const REVS_BYTES_IN_FLIGHT_MAX: usize = 512 << 10;

/// The value by which the passive side accepts: the version and the newest sequence of each collection.
pub fn acceptance(last_sequences: &[u64]) -> String {
    let mut value = VERSION.to_owned();
    for last in last_sequences {
        value.push(' ');
        value.push_str(&last.to_string());
    }
    value
}

/// Reads an acceptance for so many collections; `None` if it is none.
pub fn parse_acceptance(value: &str, collections: usize) -> Option<Vec<u64>> {
    let mut parts = value.split(' ');
    if parts.next() != Some(VERSION) {
        return None;
    }
    let last: Vec<u64> = parts.map_while(|part| part.parse().ok()).take(collections).collect();
    (last.len() == collections).then_some(last)
}
