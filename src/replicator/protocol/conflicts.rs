//! Revisions of ours that the peer has refused as conflicts. Each stays unconfirmed until the pull has brought what it
//! conflicted with: by then the peer may have something else that the pull takes for known, and only ours is news.

use std::collections::HashMap;

use crate::replica::revision::RevId;
use crate::replicator::sequences::SequenceSet;

/// Most conflicts remembered; what goes beyond stays unconfirmed until the next run.
const CONFLICTS_MAX: usize = 10_000;

/// A revision of ours.
#[derive(Clone, Copy, Debug)]
pub(in crate::replicator) struct Refused {
    pub sequence: u64,
    /// Its name, where revisions are sent by it.
    pub revision: Option<RevId>,
    /// Whether the peer's revision names ours too: then it puts its own into its feed once more.
    pub mutually_contains: bool,
    /// Whether it was told as not synced.
    pub told: bool,
}

impl Refused {
    pub fn new(sequence: u64, revision: Option<RevId>) -> Refused {
        Refused { sequence, revision, mutually_contains: false, told: false }
    }
}

/// The newest revision of ours that the peer has refused, for each document.
#[derive(Debug, Default)]
pub(in crate::replicator) struct Conflicts {
    by_document: HashMap<String, Refused>,
}

impl Conflicts {
    /// The peer has refused this one.
    pub fn note(&mut self, id: &str, refused: Refused, done: &mut SequenceSet) {
        if self.by_document.len() >= CONFLICTS_MAX && !self.by_document.contains_key(id) {
            return;
        }
        // Answers overtake each other: the one about an older revision may come last.
        match self.by_document.get_mut(id) {
            None => drop(self.by_document.insert(id.to_owned(), refused)),
            Some(known) if known.sequence < refused.sequence => {
                done.insert(known.sequence);
                *known = refused;
            }
            Some(known) if known.sequence > refused.sequence => done.insert(refused.sequence),
            Some(_) => {}
        }
    }

    /// The document has got another revision here, or the peer has this one: there is nothing to push any more under the
    /// sequence of the refused one.
    pub fn settle(&mut self, id: &str, done: &mut SequenceSet) {
        if let Some(refused) = self.take(id) {
            done.insert(refused.sequence);
        }
    }

    /// The refused revision of this document, which is forgotten.
    pub fn take(&mut self, id: &str) -> Option<Refused> {
        if self.by_document.is_empty() { None } else { self.by_document.remove(id) }
    }

    /// Refused revisions that nobody was told of, with their documents; from now on they are. `all`: those too of which the
    /// peer's feed still brings something.
    pub fn tell(&mut self, all: bool) -> Vec<(String, u64)> {
        let untold =
            |(_, refused): &(&String, &mut Refused)| !refused.told && (all || !refused.mutually_contains);
        let untold = self.by_document.iter_mut().filter(untold);
        let tell = |(id, refused): (&String, &mut Refused)| {
            refused.told = true;
            (id.clone(), refused.sequence)
        };
        untold.map(tell).collect()
    }

    /// Whether a revision of this document was refused.
    pub fn contains(&self, id: &str) -> bool {
        !self.by_document.is_empty() && self.by_document.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table that is full takes no other document; of those in it the newest revision counts, whatever comes last.
    #[test]
    fn so_many_documents_are_noted_and_the_newest_of_each() {
        let (mut conflicts, mut done) = (Conflicts::default(), SequenceSet::new());
        for n in 0..CONFLICTS_MAX as u64 {
            conflicts.note(&format!("d{n}"), Refused::new(10 + n, None), &mut done);
        }
        conflicts.note("one more", Refused::new(1_000_000, None), &mut done);
        conflicts.note("d3", Refused::new(2_000_000, None), &mut done);
        conflicts.note("d4", Refused::new(5, None), &mut done);
        conflicts.note("d5", Refused::new(15, None), &mut done);
        assert_eq!(done.ranges().collect::<Vec<_>>(), [5..=5, 13..=13]);
        let mut sequence = |id: &str| conflicts.take(id).map(|refused| refused.sequence);
        assert_eq!(
            ["one more", "d3", "d4", "d5"].map(&mut sequence),
            [None, Some(2_000_000), Some(14), Some(15)]
        );
        conflicts.note("one more", Refused::new(1_000_000, None), &mut done);
        assert!(conflicts.take("one more").is_some(), "there is room again");
    }
}
