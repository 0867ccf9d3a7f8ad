//! What one seed means: two databases with a past, what lies between them, and who may do what.

use fastrand::Rng;
use gattway::database::Durability;
use gattway::replicator::ReplicatorType;
use gattway::replicator::config::CollectionAccess;

use super::values;

/// Databases in a plan: the active side, the passive side, and others that have written into both.
pub const ACTIVE: usize = 0;
pub const PASSIVE: usize = 1;

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
    /// Whether each side speaks the extension between peers of our kind; both have to.
    pub extension: [bool; 2],
    pub durability: [Durability; 2],
    /// How far the databases' clocks are from the right time, in seconds.
    pub skew_s: Vec<i64>,
    /// The databases are closed and opened between the writes and the sync.
    pub reopened: bool,
}

/// One collection.
#[derive(Clone, Debug)]
pub struct CollectionPlan {
    pub name: String,
    /// Which sides have it.
    pub at: [bool; 2],
    /// What the passive side lets the active one do.
    pub access: CollectionAccess,
    pub documents: Vec<DocumentPlan>,
}

/// The past of one document.
#[derive(Clone, Debug)]
pub struct DocumentPlan {
    pub id: String,
    pub steps: Vec<Step>,
}

/// Something that happened to a document; places are indices of databases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    Put {
        at: usize,
        size: usize,
        seed: u64,
    },
    Delete {
        at: usize,
    },
    Purge {
        at: usize,
    },
    /// The revision of one database comes to another, as replication brings it.
    Copy {
        from: usize,
        to: usize,
    },
    /// So many others have edited it, one after the other, and the last revision comes to `to`.
    Crowd {
        to: usize,
        authors: usize,
        seed: u64,
    },
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
        };
        // What is written with relaxed durability is given time to reach the medium.
        plan.reopened |= plan.durability.contains(&Durability::Relaxed);
        plan.add_collections(rng);
        plan.add_documents(rng, databases);
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
            let full = CollectionAccess { push: true, pull: true };
            self.collections.push(CollectionPlan {
                name,
                at: [true; 2],
                access: full,
                documents: Vec::new(),
            });
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
            let steps = past(rng, databases);
            self.add(collection, DocumentPlan { id, steps });
        }
        if rng.u8(..20) == 0 {
            let collection = rng.usize(..self.collections.len());
            let put = Step::Put { at: rng.usize(..2), size: values::big_size(rng), seed: rng.u64(..) };
            self.add(collection, DocumentPlan { id: "big".into(), steps: vec![put] });
        }
        if rng.u8(..12) == 0 {
            let authors = if rng.bool() { rng.usize(2..40) } else { rng.usize(200..250) };
            let to = rng.usize(..2);
            let mut steps = vec![Step::Crowd { to, authors, seed: rng.u64(..) }];
            if rng.bool() {
                steps.push(Step::Put { at: to, size: 0, seed: rng.u64(..) });
            }
            let collection = rng.usize(..self.collections.len());
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

    /// How many databases there are.
    pub fn databases(&self) -> usize {
        self.skew_s.len()
    }

    /// Whether both sides speak the extension.
    pub fn is_extended(&self) -> bool {
        self.extension == [true; 2]
    }
}

/// What may have happened to a document before.
fn past(rng: &mut Rng, databases: usize) -> Vec<Step> {
    let put = |at: usize, rng: &mut Rng| Step::Put { at, size: values::size(rng), seed: rng.u64(..) };
    let side = rng.usize(..2);
    let other = 1 - side;
    let author = rng.usize(..databases);
    match rng.u8(..16) {
        0..4 => vec![put(side, rng)],
        4 => vec![put(side, rng), Step::Delete { at: side }],
        5 => vec![put(side, rng), put(other, rng)],
        6 => vec![put(side, rng), Step::Copy { from: side, to: other }],
        7 => vec![put(side, rng), Step::Copy { from: side, to: other }, put(other, rng)],
        8 => vec![put(side, rng), Step::Copy { from: side, to: other }, put(side, rng), put(other, rng)],
        9 => vec![
            put(side, rng),
            Step::Copy { from: side, to: other },
            Step::Delete { at: side },
            put(other, rng),
        ],
        10 => vec![
            put(author, rng),
            Step::Copy { from: author, to: ACTIVE },
            Step::Copy { from: author, to: PASSIVE },
            put(side, rng),
            Step::Delete { at: other },
        ],
        11 => vec![put(side, rng), Step::Copy { from: side, to: other }, Step::Purge { at: side }],
        _ => (0..rng.usize(1..14)).map(|_| any_step(rng, databases)).collect(),
    }
}

fn any_step(rng: &mut Rng, databases: usize) -> Step {
    let at = rng.usize(..databases);
    let to = (at + rng.usize(1..databases)) % databases;
    match rng.u8(..10) {
        0..4 => Step::Put { at, size: values::size(rng), seed: rng.u64(..) },
        4 => Step::Delete { at },
        _ => Step::Copy { from: at, to },
    }
}

impl Plan {
    /// The plan in one line.
    pub fn summary(&self) -> String {
        let documents: usize = self.collections.iter().map(|collection| collection.documents.len()).sum();
        format!(
            "{} collections, {documents} documents, {:?}, {}, {}, {}, {}, {:?}",
            self.collections.len(),
            self.direction,
            if self.continuous { "continuous" } else { "once" },
            if self.tcp { "tcp" } else { "unix" },
            if self.secure { "secure" } else { "plain" },
            if self.is_extended() { "extension" } else { "stock" },
            self.durability,
        )
    }
}
