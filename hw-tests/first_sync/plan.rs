//! What one seed means: two databases with a past, what lies between them, and who may do what.

use std::hash::{DefaultHasher, Hash, Hasher};

use fastrand::Rng;
use gattway::database::{DOCUMENT_BODY_MAX, Durability};
use gattway::endpoint::CollectionAccess;
use gattway::replicator::ReplicatorType;

use super::history::{self, Step};
use super::values;

/// Databases in a plan: the active side, the passive side, and others that have written into both.
pub const ACTIVE: usize = 0;
pub const PASSIVE: usize = 1;
pub const THIRD: usize = 2;

/// May do everything.
const FULL: CollectionAccess = CollectionAccess { push: true, pull: true };

/// One first sync.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub collections: Vec<CollectionPlan>,
    pub direction: ReplicatorType,
    pub continuous: bool,
    /// Over TCP rather than a Unix socket.
    pub tcp: bool,
    /// Encrypted, with a proof of who is who.
    pub secure: bool,
    /// Whether each side speaks the extension between gattway peers; both have to.
    pub extension: [bool; 2],
    pub durability: [Durability; 2],
    /// How far the databases' clocks are from the right time, in seconds.
    pub skew_s: Vec<i64>,
    /// The databases are closed and opened between the writes and the sync.
    pub reopened: bool,
    /// By the commands `serve` and `sync`, in processes of their own.
    pub commands: bool,
    /// The run goes on without what the peer lacks or refuses.
    pub optional: bool,
    pub resolver: Resolving,
    /// Filters of the passive side: what it takes, what it offers.
    pub incoming: Option<Filter>,
    pub outgoing: Option<Filter>,
    /// A third database syncs with the passive side afterwards, and the active one once more.
    pub third: bool,
}

/// One collection.
#[derive(Clone, Debug)]
pub struct CollectionPlan {
    pub name: String,
    /// Which sides have it.
    pub at: [bool; 2],
    /// What the passive side lets the active one do.
    pub access: CollectionAccess,
    /// Filters of the active side.
    pub push_filter: Option<Filter>,
    pub pull_filter: Option<Filter>,
    /// Only documents that pass are asked for and sent, by their IDs.
    pub only: Option<Filter>,
    pub documents: Vec<DocumentPlan>,
}

/// The past of one document.
#[derive(Clone, Debug)]
pub struct DocumentPlan {
    pub id: String,
    pub steps: Vec<Step>,
}

/// Some documents pass, by their IDs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filter {
    pub salt: u64,
    /// Of ten.
    pub passing: u64,
}

impl Filter {
    fn random(rng: &mut Rng) -> Filter {
        Filter { salt: rng.u64(..), passing: rng.u64(0..10) }
    }

    pub fn passes(self, id: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (self.salt, id).hash(&mut hasher);
        hasher.finish() % 10 < self.passing
    }
}

/// How the active side decides conflicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Resolving {
    Default,
    /// By default, and some it cannot.
    Failing(Filter),
    /// Into a body that neither side has.
    Merging,
    Deleting,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed ^ 0x0f12_5753_11c0_0000);
        let rng = &mut rng;
        let databases = 2 + rng.usize(..4);
        let direction = match rng.u8(..10) {
            0..6 => ReplicatorType::PushAndPull,
            6..8 => ReplicatorType::Push,
            _ => ReplicatorType::Pull,
        };
        let durability =
            |rng: &mut Rng| if rng.u8(..4) == 0 { Durability::Relaxed } else { Durability::Synced };
        let mut plan = Plan {
            seed,
            collections: Vec::new(),
            direction,
            continuous: rng.u8(..3) == 0,
            tcp: rng.bool(),
            secure: rng.bool(),
            extension: [rng.u8(..5) > 1, rng.u8(..5) > 0],
            durability: [durability(rng), durability(rng)],
            skew_s: (0..databases).map(|_| if rng.bool() { 0 } else { rng.i64(-100_000..50) }).collect(),
            reopened: rng.u8(..4) > 0,
            commands: rng.u8(..20) == 0,
            optional: rng.u8(..6) > 0,
            resolver: Resolving::Default,
            incoming: None,
            outgoing: None,
            third: rng.u8(..6) == 0,
        };
        plan.add_collections(rng);
        plan.add_documents(rng, databases);
        plan.restrict(rng);
        if plan.commands {
            plan.restrict_to_commands(rng);
        }
        plan
    }

    fn add_collections(&mut self, rng: &mut Rng) {
        let count = match rng.u8(..10) {
            0..5 => 1,
            5..8 => rng.usize(2..6),
            _ => rng.usize(6..21),
        };
        for n in 0..count {
            let name = match rng.u8(..4) {
                _ if n == 0 && rng.u8(..3) > 0 => "_default".to_owned(),
                0 => format!("logs-{n}"),
                1 => format!("_default.Logs%{n}"),
                2 => format!("plant.readings_{n}"),
                _ => format!("scope-{}.{}", rng.u8(..3), "x".repeat(1 + n * 12)),
            };
            self.collections.push(CollectionPlan::new(name));
        }
    }

    fn add_documents(&mut self, rng: &mut Rng, databases: usize) {
        let total = match rng.u8(..20) {
            0 => 0,
            1..11 => rng.usize(1..20),
            11..17 => rng.usize(20..120),
            17..19 => rng.usize(120..400),
            _ => rng.usize(400..1_000),
        };
        for n in 0..total {
            let collection = rng.usize(..self.collections.len());
            let id = values::id(rng, n);
            let steps = history::any(rng, databases);
            self.add(collection, DocumentPlan { id, steps });
        }
        if rng.u8(..30) == 0 {
            let collection = rng.usize(..self.collections.len());
            let put = Step::Put { at: rng.usize(..2), size: values::big_size(rng), seed: rng.u64(..) };
            self.add(collection, DocumentPlan { id: "big".into(), steps: vec![put] });
        }
        if rng.u8(..12) == 0 {
            let collection = rng.usize(..self.collections.len());
            let steps = history::of_a_crowd(rng);
            self.add(collection, DocumentPlan { id: "everybody's".into(), steps });
        }
    }

    /// An ID stands once in a collection.
    fn add(&mut self, collection: usize, document: DocumentPlan) {
        let documents = &mut self.collections[collection].documents;
        if documents.iter().all(|other| other.id != document.id) {
            documents.push(document);
        }
    }

    /// Most syncs are of everything; the others leave something out, in one of the ways that there are.
    fn restrict(&mut self, rng: &mut Rng) {
        let some = |rng: &mut Rng| (rng.u8(..3) == 0).then(|| Filter::random(rng));
        match rng.u8(..20) {
            0..2 => {
                for collection in &mut self.collections {
                    collection.access = match rng.u8(..6) {
                        0..2 => CollectionAccess { push: false, pull: true },
                        2..4 => CollectionAccess { push: true, pull: false },
                        4 => CollectionAccess { push: false, pull: false },
                        _ => FULL,
                    };
                }
            }
            2..4 => {
                for collection in &mut self.collections {
                    collection.at = match rng.u8(..5) {
                        0 => [true, false],
                        1 => [false, true],
                        _ => [true; 2],
                    };
                }
            }
            4..6 => {
                for collection in &mut self.collections {
                    (collection.push_filter, collection.pull_filter) = (some(rng), some(rng));
                }
                (self.incoming, self.outgoing) = (some(rng), some(rng));
            }
            6 => {
                for collection in &mut self.collections {
                    collection.only = some(rng);
                }
            }
            7..9 => {
                self.resolver = match rng.u8(..4) {
                    0..2 => Resolving::Failing(Filter::random(rng)),
                    2 => Resolving::Merging,
                    _ => Resolving::Deleting,
                };
            }
            _ => {}
        }
        if self.collections.iter().all(|collection| !collection.at[ACTIVE]) {
            self.collections[0].at[ACTIVE] = true;
        }
    }

    /// What the commands have words for.
    fn restrict_to_commands(&mut self, rng: &mut Rng) {
        (self.tcp, self.extension, self.continuous, self.optional) = (true, [true; 2], false, true);
        (self.resolver, self.incoming, self.outgoing, self.third) = (Resolving::Default, None, None, false);
        let push = rng.u8(..4) > u8::from(self.direction == ReplicatorType::Push);
        // Every database has the default collection, and all that a database has is synced.
        if self.collections.iter().all(|collection| collection.name != "_default") {
            self.collections.push(CollectionPlan::new("_default".into()));
        }
        for collection in &mut self.collections {
            (collection.push_filter, collection.pull_filter, collection.only) = (None, None, None);
            collection.access = CollectionAccess { push, pull: true };
            if collection.name == "_default" {
                collection.at = [true; 2];
            }
        }
    }

    /// How many databases there are.
    pub fn databases(&self) -> usize {
        self.skew_s.len()
    }

    /// Whether both sides speak the extension.
    pub fn is_extended(&self) -> bool {
        self.extension == [true; 2]
    }

    /// Whether conflicts are resolved in one run and pushed in the next.
    pub fn pushes_resolutions_later(&self) -> bool {
        !self.is_extended() && !self.continuous
    }

    /// The same with the third database as the active one, which has all collections.
    pub fn of_the_third(&self) -> Plan {
        let mut plan = self.clone();
        plan.collections.iter_mut().for_each(|collection| collection.at[ACTIVE] = true);
        let documents = plan.collections.iter_mut().flat_map(|collection| &mut collection.documents);
        // What the first of the two has purged, the third has not.
        for step in documents.flat_map(|document| &mut document.steps) {
            if let Step::Purge { at } = step
                && *at == ACTIVE
            {
                *at = THIRD;
            }
        }
        plan
    }

    /// Whether it is one push and pull of some documents, of which nothing is left out.
    pub fn is_plain(&self) -> bool {
        let once = self.direction == ReplicatorType::PushAndPull && !self.continuous && !self.commands;
        let is_whole = |collection: &CollectionPlan| {
            let CollectionPlan { at, access, push_filter, pull_filter, only, .. } = collection;
            *at == [true; 2]
                && *access == FULL
                && [push_filter, pull_filter, only].iter().all(|f| f.is_none())
        };
        let is_unfiltered = self.incoming.is_none() && self.outgoing.is_none();
        let some = (20..100).contains(&self.documents()) && self.resolver == Resolving::Default;
        once && is_unfiltered && some && self.is_extended() && self.collections.iter().all(is_whole)
    }

    /// Whether there is a document of about the largest size, and little beside it.
    pub fn has_a_largest_document(&self) -> bool {
        let sizes = (DOCUMENT_BODY_MAX - 4_000)..DOCUMENT_BODY_MAX;
        let is_largest = |step: &Step| matches!(step, Step::Put { size, .. } if sizes.contains(size));
        let mut documents = self.collections.iter().flat_map(|collection| &collection.documents);
        self.documents() < 60 && documents.any(|document| document.steps.iter().any(is_largest))
    }

    pub fn documents(&self) -> usize {
        self.collections.iter().map(|collection| collection.documents.len()).sum()
    }

    /// The plan in one line.
    pub fn summary(&self) -> String {
        format!(
            "{} collections, {} documents, {:?}, {}, {}, {}, {}{}, {:?}, {:?}",
            self.collections.len(),
            self.documents(),
            self.direction,
            if self.continuous { "continuous" } else { "once" },
            if self.tcp { "tcp" } else { "unix" },
            if self.secure { "secure" } else { "plain" },
            if self.is_extended() { "extension" } else { "stock" },
            if self.commands { ", commands" } else { "" },
            self.durability,
            self.resolver,
        )
    }
}

impl CollectionPlan {
    fn new(name: String) -> CollectionPlan {
        CollectionPlan {
            name,
            at: [true; 2],
            access: FULL,
            push_filter: None,
            pull_filter: None,
            only: None,
            documents: Vec::new(),
        }
    }

    /// Documents that are asked for and sent; `None`: all.
    pub fn document_ids(&self) -> Option<Vec<String>> {
        let only = self.only?;
        let ids = self.documents.iter().map(|document| &document.id);
        Some(ids.filter(|id| only.passes(id)).cloned().collect())
    }
}
