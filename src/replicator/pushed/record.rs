//! The form of a note, in memory and in the store.

#![deny(clippy::disallowed_methods)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::replica::store::ReplicaStoreError;

/// Before the hash of the peer and its checkpoint's ID, in the name of the record. No peer may store one of this name.
pub(in crate::replicator) const PREFIX: &str = "own/pushed/";

/// Form of the record.
const FORMAT: u8 = 1;

/// Revisions that were pushed one after the other: both sides' sequences go on by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The peer's sequence of the first.
    pub remote: u64,
    /// Ours of the first.
    pub local: u64,
    /// At least one.
    pub count: u64,
}

impl Run {
    /// Whether both ends are numbers.
    pub fn is_valid(&self) -> bool {
        let fits = |first: u64| first > 0 && first.checked_add(self.count).is_some();
        self.count > 0 && fits(self.remote) && fits(self.local)
    }

    /// Whether another run goes on where this one ends.
    pub fn continues(&self, next: &Run) -> bool {
        next.remote == self.remote + self.count && next.local == self.local + self.count
    }

    /// Divides it: what the peer's checkpoint covers, and the rest.
    pub fn split(self, covered: u64) -> (Option<Run>, Option<Run>) {
        let Run { remote, local, count } = self;
        let done = covered.saturating_add(1).saturating_sub(remote).min(count);
        let run = |skip: u64, count: u64| {
            (count > 0).then_some(Run { remote: remote + skip, local: local + skip, count })
        };
        (run(0, done), run(done, count - done))
    }
}

/// The note as stored, in postcard.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    format: u8,
    pub covered: u64,
    pub list_from: Option<u64>,
    pub runs: Vec<Run>,
}

/// One for each checkpoint of each peer: nobody reaches that of another by naming its checkpoint.
pub(super) fn record_name(peer: &str, client: &str) -> String {
    let mut hash = Sha1::new();
    for field in [peer, client] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    format!("{PREFIX}{}", STANDARD.encode(hash.finalize()))
}

/// A note from the store; `None` if the bytes are none.
pub(super) fn read(body: &[u8]) -> Option<Record> {
    let record: Record = postcard::from_bytes(body).ok()?;
    (record.format == FORMAT && record.runs.iter().all(Run::is_valid)).then_some(record)
}

/// A note for the store.
pub(super) fn write(
    covered: u64,
    list_from: Option<u64>,
    runs: &[Run],
) -> Result<Vec<u8>, ReplicaStoreError> {
    postcard::to_stdvec(&Record { format: FORMAT, covered, list_from, runs: runs.to_vec() })
        .map_err(|error| ReplicaStoreError { message: error.to_string(), recoverable: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_only_where_both_sides_do() {
        let run = |remote, local| Run { remote, local, count: 2 };
        for (next, goes_on) in [((12, 22), true), ((12, 23), false), ((13, 22), false), ((10, 20), false)] {
            assert_eq!(run(10, 20).continues(&run(next.0, next.1)), goes_on, "{next:?}");
        }
    }

    #[test]
    fn only_whole_notes_of_this_form_are_read() {
        let is_read = |format, count| {
            let runs = vec![Run { remote: 1, local: 1, count }];
            let record = Record { format, covered: 1, list_from: None, runs };
            read(&postcard::to_stdvec(&record).expect("written")).is_some()
        };
        assert!(is_read(FORMAT, 2));
        assert!(!is_read(FORMAT + 1, 2) && !is_read(FORMAT, 0) && !is_read(FORMAT, u64::MAX));
    }
}
