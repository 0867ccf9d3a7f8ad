//! How large the files of a database may be: a sans-IO core that is given their size and the room on the disk, and says when
//! documents go and when the database is compacted.
//!
//! Removing documents makes the files no smaller: a log is compacted as a whole, which costs as many bytes as it then has. So
//! what is over a limit is brought down to three quarters of it at once. Earlier compactions say how many bytes of files go with
//! a byte of documents and how many with none (tombstones, other collections), so the documents are limited to what fits, and one
//! compaction is enough for a quarter of the limit.

#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// To what part of the limit the files are brought down.
const TARGET: (u64, u64) = (3, 4);

/// The least part of the documents that is removed at a time.
const LEAST: u64 = 32;

/// Beside a second copy of the database, what must be free for a compaction.
const SPARE_BYTES: u64 = 1 << 20;

/// What a database may take beside one and a half times its documents, before the first compaction has shown it.
const UNKNOWN_BYTES: u64 = 16 << 20;

/// The shortest time between the last compaction and the next time that files are brought down.
const COMPACT_WAIT: Duration = Duration::from_secs(60);

/// The smallest limit: below it the files of an empty database may already be.
pub(crate) const FILES_MIN: u64 = 8 << 20;

/// What is kept of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilesRule {
    /// No more bytes of all files of the database.
    pub(crate) files: Option<u64>,
    /// So much of the disk stays free.
    pub(crate) reserve: Option<u64>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Medium {
    /// Bytes of all files of the database.
    pub(crate) files: u64,
    /// Bytes that are free on the disk, if the file system says.
    pub(crate) free: Option<u64>,
    /// Bytes of the documents that may be removed, before compression.
    pub(crate) documents: u64,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilesStep {
    /// Nothing.
    Fine,
    /// Keep no more bytes of documents; say when they are gone.
    Limit(u64),
    /// Compact the database; say how large it is then.
    Compact,
    /// It is over, and nothing helps.
    Stuck(Stuck),
}

/// Why files stay over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stuck {
    /// Other collections, tombstones and checkpoints.
    #[error(
        "what the rule does not cover takes more than that: give a higher limit, or rules for more collections"
    )]
    Others,
    /// A compaction needs a second copy.
    #[error(
        "there is no room to compact the database: make some, or give a reserve above the size of its files"
    )]
    NoRoom,
}

/// Looks after the files of one database.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FilesKeeper {
    rule: FilesRule,
    /// Files and documents as of the last compaction.
    compacted: Option<(u64, u64)>,
    /// Bytes of files that go with no document, as far as two compactions have shown it.
    others: u64,
    /// When that was.
    compacted_at: Option<u64>,
    /// Whether nothing was removed since.
    is_fresh: bool,
    /// Whether files are being brought down.
    is_over: bool,
    /// Whether documents were removed for that to make room for a copy: it is done once.
    made_room: bool,
}

impl FilesKeeper {
    pub(crate) fn new(rule: FilesRule) -> FilesKeeper {
        FilesKeeper { rule, ..FilesKeeper::default() }
    }

    /// How many bytes the files may have.
    pub(crate) fn allowed(&self, medium: Medium) -> u64 {
        let room = |reserve: u64| medium.free.map(|free| (medium.files + free).saturating_sub(reserve));
        let by_reserve = self.rule.reserve.and_then(room).unwrap_or(u64::MAX);
        self.rule.files.unwrap_or(u64::MAX).min(by_reserve)
    }

    /// What to do now; `now` is nanoseconds since 1970.
    pub(crate) fn next(&mut self, now: u64, medium: Medium) -> FilesStep {
        let allowed = self.allowed(medium);
        if !self.is_over {
            let is_soon = |at: u64| Duration::from_nanos(now.abs_diff(at)) < COMPACT_WAIT;
            if medium.files <= allowed || self.compacted_at.is_some_and(is_soon) {
                return FilesStep::Fine;
            }
            // What came since has left its traces in the log.
            (self.is_over, self.is_fresh, self.made_room) = (true, false, false);
        }
        let expected = self.expected(medium.documents);
        if let Some(expected) = expected {
            if self.others >= allowed {
                return FilesStep::Stuck(Stuck::Others);
            }
            if expected > self.target(allowed) && medium.documents > 0 {
                return limit(medium, self.fits(allowed));
            }
            if self.is_fresh {
                self.is_over = medium.files > allowed;
                return if self.is_over { FilesStep::Stuck(Stuck::Others) } else { FilesStep::Fine };
            }
        }
        let unknown = || medium.documents / 2 * 3 + UNKNOWN_BYTES;
        let needed = expected.unwrap_or_else(unknown).min(medium.files);
        if medium.free.is_some_and(|free| free < needed + SPARE_BYTES) {
            return self.without_room(medium, needed);
        }
        FilesStep::Compact
    }

    /// To what the files are brought down.
    fn target(&self, allowed: u64) -> u64 {
        let (numerator, denominator) = TARGET;
        self.others + scaled(allowed.saturating_sub(self.others), numerator, denominator)
    }

    /// How large the files will be with so many bytes of documents, after a compaction; `None`: nobody knows.
    fn expected(&self, documents: u64) -> Option<u64> {
        let (files, were) = self.compacted?;
        Some(self.others + if were == 0 { documents } else { scaled(files - self.others, documents, were) })
    }

    /// How many bytes of documents go with the target.
    fn fits(&self, allowed: u64) -> u64 {
        let (files, were) = self.compacted.unwrap_or_default();
        scaled(were, self.target(allowed) - self.others, files.saturating_sub(self.others))
    }

    /// What fits into the room that there is for a second copy.
    fn without_room(&mut self, medium: Medium, needed: u64) -> FilesStep {
        let free = medium.free.unwrap_or(0).saturating_sub(SPARE_BYTES);
        // Half of the documents may go for it; more would be a high price for what may not help.
        if self.made_room || medium.documents == 0 || free < needed / 2 {
            return FilesStep::Stuck(Stuck::NoRoom);
        }
        self.made_room = true;
        // With something to spare, for it is done once.
        limit(medium, scaled(medium.documents, free, needed) / 8 * 7)
    }

    /// Documents were removed.
    pub(crate) fn removed(&mut self) {
        self.is_fresh = false;
    }

    /// The database was compacted; gives how many bytes of documents fit from now on.
    pub(crate) fn compacted(&mut self, now: u64, medium: Medium) -> u64 {
        let Medium { files, documents, .. } = medium;
        if let Some((were, documents_were)) = self.compacted {
            let (more, documents_more) = (were.abs_diff(files), documents_were.abs_diff(documents));
            let is_along = (were > files) == (documents_were > documents);
            // Little says little.
            if is_along && documents_more > documents_were / LEAST {
                self.others = files.saturating_sub(scaled(documents, more, documents_more));
            }
        }
        if documents == 0 {
            self.others = files;
        }
        self.others = self.others.min(files);
        (self.compacted, self.compacted_at) = (Some((files, documents)), Some(now));
        (self.is_fresh, self.made_room) = (true, false);
        if files > self.others { self.fits(self.allowed(medium)) } else { u64::MAX }
    }
}

/// Documents are limited to what fits, and by a part at least.
fn limit(medium: Medium, fits: u64) -> FilesStep {
    FilesStep::Limit(fits.min(medium.documents - medium.documents.div_ceil(LEAST)))
}

/// `of` times `to` over `from`; nothing is scaled from nothing.
fn scaled(of: u64, to: u64, from: u64) -> u64 {
    if from == 0 {
        return of;
    }
    u64::try_from(u128::from(of) * u128::from(to) / u128::from(from)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A database whose files have a part that is no document, a log that grows, and a compression.
    struct Model {
        documents: u64,
        garbage: u64,
        others: u64,
        percent: u64,
        disk: u64,
        written: u64,
        compactions: u64,
    }

    impl Model {
        fn medium(&self) -> Medium {
            let files = self.others + self.documents * self.percent / 100 + self.garbage;
            Medium { files, free: Some(self.disk.saturating_sub(files)), documents: self.documents }
        }

        /// Does what is to be done; gives why nothing helps, if so.
        fn settle(&mut self, keeper: &mut FilesKeeper, now: &mut u64, limit: &mut u64) -> Option<Stuck> {
            for _ in 0..300 {
                *now += 61_000_000_000;
                match keeper.next(*now, self.medium()) {
                    FilesStep::Fine => return None,
                    FilesStep::Stuck(stuck) => return Some(stuck),
                    FilesStep::Limit(bytes) => {
                        assert!(bytes < self.documents);
                        *limit = bytes;
                        self.garbage += (self.documents - bytes) * self.percent / 100;
                        self.documents = bytes;
                        keeper.removed();
                    }
                    FilesStep::Compact => {
                        let before = self.medium();
                        self.garbage = 0;
                        let after = self.medium();
                        assert!(before.free >= Some(after.files), "there is no room for the copy");
                        self.written += after.files;
                        self.compactions += 1;
                        *limit = keeper.compacted(*now, after);
                    }
                }
            }
            panic!("it works without end");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        /// Under a stream of documents the files are within the limit after each look, or it is said that nothing helps, which is
        /// true; and compactions write a bounded number of bytes for each that came.
        #[test]
        fn files_stay_within_their_limit(
            quota in prop::option::of(8u64..200),
            reserve in prop::option::of(1u64..300),
            others in 0u64..12,
            percent in 10u64..130,
            stream in prop::collection::vec(1u64..3_000, 20..200),
        ) {
            let megabytes = |n: u64| n << 20;
            let rule = FilesRule { files: quota.map(megabytes), reserve: reserve.map(megabytes) };
            let mut keeper = FilesKeeper::new(rule);
            let disk = megabytes(700);
            let mut model = Model { documents: 0, garbage: 0, others: megabytes(others), percent, disk, written: 0, compactions: 0 };
            let (mut now, mut limit, mut came) = (0, u64::MAX, 0);
            for kilobytes in stream {
                let bytes = kilobytes << 10;
                came += bytes;
                // What comes is written twice; what the limit lets go leaves its place in the log.
                model.documents += bytes;
                model.garbage += bytes * percent / 100;
                if model.documents > limit {
                    model.garbage += (model.documents - limit) * percent / 100;
                    model.documents = limit;
                    keeper.removed();
                }
                let stuck = model.settle(&mut keeper, &mut now, &mut limit);
                let medium = model.medium();
                let allowed = keeper.allowed(medium);
                match stuck {
                    None => prop_assert!(medium.files <= allowed, "{medium:?}, {allowed} allowed"),
                    Some(Stuck::Others) => prop_assert!(model.others + 1_024 > allowed, "{medium:?}, {allowed} allowed"),
                    Some(Stuck::NoRoom) => {
                        let copy = model.others + model.documents * percent / 100;
                        let least = (model.documents * 2 + copy + UNKNOWN_BYTES) / 2;
                        prop_assert!(reserve.is_some() && medium.free < Some(least + SPARE_BYTES), "{medium:?}");
                        return Ok(());
                    }
                }
            }
            let is_easy = megabytes(others) * 2 < quota.map_or(u64::MAX, megabytes);
            if is_easy && model.compactions > 8 {
                let log = 2 * came * percent / 100;
                prop_assert!(model.written <= 12 * log, "{} written for {log}", model.written);
            }
        }
    }

    #[test]
    fn without_room_for_a_copy_documents_go_first_or_it_is_told() {
        let mut keeper = FilesKeeper::new(FilesRule { files: Some(10 << 20), reserve: None });
        let medium = Medium { files: 200 << 20, free: Some(93 << 20), documents: 80 << 20 };
        assert_eq!(keeper.next(0, medium), FilesStep::Limit((80 << 20) * 92 / 136 / 8 * 7));
        assert_eq!(keeper.next(0, medium), FilesStep::Stuck(Stuck::NoRoom), "once is enough");
        let none = Medium { free: Some(1 << 19), ..medium };
        assert_eq!(keeper.next(0, none), FilesStep::Stuck(Stuck::NoRoom));
        let fine = Medium { files: 9 << 20, ..medium };
        assert_eq!(
            FilesKeeper::new(FilesRule { files: Some(10 << 20), reserve: None }).next(0, fine),
            FilesStep::Fine
        );
    }
}
