//! Makes the two databases of a plan, with the past that it tells: edits here, there and elsewhere, and what came from
//! where.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use gattway::database::revision::{SourceId, Version, VersionVector};
use gattway::database::{Database, DatabaseConfig, DatabaseError, Durability, SimulatedDisk};
use gattway::replicator::DefaultResolver;
use gattway::replicator::store::{CommitOutcome, ConflictPolicy, IncomingRevision, Rejection, ReplicaStore};

use super::plan::{ACTIVE, CollectionPlan, DocumentPlan, PASSIVE, Plan, Step};
use super::values;

/// The two databases, open, in directories of their own.
pub struct Pair {
    pub directory: tempfile::TempDir,
    pub databases: [Database; 2],
    /// Writes that were refused where they entered, and revisions of others that were.
    pub refused: u64,
}

/// Where one of the two lies.
pub fn path(directory: &Path, side: usize) -> PathBuf {
    directory.join(["active", "passive"][side])
}

/// The settings of one of the two.
pub fn config(durability: Durability) -> DatabaseConfig {
    DatabaseConfig { durability, ..DatabaseConfig::default() }
}

impl Pair {
    /// Makes them, up to the moment before the sync.
    pub fn new(plan: &Plan) -> Pair {
        let directory = tempfile::Builder::new().prefix("first-sync-").tempdir().unwrap();
        let open = |side: usize, durability| {
            Database::open(path(directory.path(), side), config(durability)).unwrap()
        };
        // Nobody waits for the medium meanwhile, unless the sync follows at once.
        let durability =
            |side: usize| if plan.reopened { Durability::Relaxed } else { plan.durability[side] };
        let mut databases: Vec<Database> =
            [ACTIVE, PASSIVE].into_iter().map(|side| open(side, durability(side))).collect();
        databases.extend((2..plan.databases()).map(|n| author(plan, n)));
        let mut refused = 0;
        for collection in &plan.collections {
            refused += fill(&databases, collection);
        }
        databases.truncate(2);
        if plan.reopened {
            databases.drain(..).for_each(|database| database.close());
            databases = (0..2).map(|side| open(side, plan.durability[side])).collect();
        }
        let [active, passive] = databases.try_into().unwrap_or_else(|_| unreachable!("there are two"));
        Pair { directory, databases: [active, passive], refused: refused as u64 }
    }
}

/// Another database that has written into the two; in memory.
fn author(plan: &Plan, n: usize) -> Database {
    let skew_ns = plan.skew_s[n] * 1_000_000_000;
    let mut rng = Rng::with_seed(plan.seed ^ (n as u64) << 48);
    let disk =
        SimulatedDisk::new(rng.u64(..), source(&mut rng), move || wall().saturating_add_signed(skew_ns));
    Database::open_simulated(&disk, DatabaseConfig::default()).unwrap()
}

fn source(rng: &mut Rng) -> SourceId {
    let mut source = [0; 16];
    rng.fill(&mut source);
    SourceId(source)
}

/// Nanoseconds since 1970.
fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Lets the past of one collection happen, step by step in all of its documents; gives the number of refusals.
fn fill(databases: &[Database], collection: &CollectionPlan) -> usize {
    for (n, database) in databases.iter().enumerate() {
        if n >= 2 || collection.at[n] {
            database.create_collection(&collection.name).unwrap();
        }
    }
    let mut refused = 0;
    for n in 0..collection.documents.iter().map(|document| document.steps.len()).max().unwrap_or(0) {
        // What arrives at one database in this step, as one commit.
        let mut arrivals: Vec<Vec<IncomingRevision>> = vec![Vec::new(); databases.len()];
        for document in &collection.documents {
            let Some(step) = document.steps.get(n) else { continue };
            refused += usize::from(!take(databases, &collection.name, document, *step, &mut arrivals));
        }
        for (database, revisions) in databases.iter().zip(arrivals) {
            if !revisions.is_empty() {
                refused += arrive(database, &revisions);
            }
        }
    }
    refused
}

/// Takes one step, or adds to what arrives; `false` if it was refused.
fn take(
    databases: &[Database],
    collection: &str,
    document: &DocumentPlan,
    step: Step,
    arrivals: &mut [Vec<IncomingRevision>],
) -> bool {
    let id = document.id.as_str();
    match step {
        Step::Put { at, size, seed } => {
            let Some(collection) = databases[at].collection(collection) else { return true };
            let mut rng = Rng::with_seed(seed);
            let body = values::body(&mut rng, size);
            let saved = collection.put_json(id, body.as_bytes());
            if saved.is_ok() {
                is_as_written(&collection.get(id).unwrap().unwrap(), &body);
            }
            is_accepted(saved)
        }
        Step::Delete { at } => {
            let Some(collection) = databases[at].collection(collection) else { return true };
            is_accepted(collection.delete(id))
        }
        Step::Purge { at } => {
            let Some(collection) = databases[at].collection(collection) else { return true };
            is_accepted(collection.purge(id))
        }
        Step::Copy { from, to } => {
            let source = ReplicaStore::collection(&databases[from], collection);
            let target = ReplicaStore::collection(&databases[to], collection);
            let (Some(source), Some(target)) = (source, target) else { return true };
            let Some(change) = databases[from].document(source, id).unwrap() else { return true };
            arrivals[to].push(IncomingRevision {
                collection: target,
                id: change.id,
                vector: change.vector,
                deleted: change.deleted,
                body: change.body.unwrap(),
            });
            true
        }
        Step::Crowd { to, authors, seed } => {
            let Some(target) = ReplicaStore::collection(&databases[to], collection) else { return true };
            let mut rng = Rng::with_seed(seed);
            arrivals[to].push(IncomingRevision {
                collection: target,
                id: id.to_owned(),
                vector: crowd(&mut rng, authors),
                deleted: false,
                body: values::body(&mut rng, 0).into(),
            });
            true
        }
    }
}

/// The revision of a document that so many have edited one after the other.
fn crowd(rng: &mut Rng, authors: usize) -> VersionVector {
    let mut time = wall() - 1_000_000_000_000;
    let mut next = |rng: &mut Rng| {
        time += rng.u64(1..1_000_000_000);
        Version { time, source: source(rng) }
    };
    let mut vector = VersionVector::new(next(rng));
    for _ in 1..authors {
        vector = vector.edited(next(rng));
    }
    vector
}

/// What is stored is what was written: text by text, so that 1 and 1.0, 0.0 and -0.0 are not the same.
fn is_as_written(document: &gattway::database::Document, text: &str) {
    let written: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
    let (written, stored) =
        (serde_json::to_string(&written).unwrap(), serde_json::to_string(document.body()).unwrap());
    assert!(written == stored, "{:?} was stored as {}, not {}", document.id(), clip(&stored), clip(&written));
}

/// As much of a text as an error shows.
pub fn clip(text: &str) -> String {
    text.chars().take(400).collect()
}

/// Whether a write was done; if not, it must have been refused for what it is.
fn is_accepted<T>(result: Result<T, DatabaseError>) -> bool {
    match result {
        Ok(_) => true,
        Err(
            DatabaseError::InvalidId { .. } | DatabaseError::BadBody { .. } | DatabaseError::TooLarge { .. },
        ) => false,
        Err(error) => panic!("a write failed: {error}"),
    }
}

/// Revisions of others come in; gives how many were refused.
fn arrive(database: &Database, revisions: &[IncomingRevision]) -> usize {
    let outcomes = database.commit(revisions, ConflictPolicy::Resolve(&DefaultResolver)).unwrap();
    let is_refused = |outcome: &&CommitOutcome| match outcome {
        CommitOutcome::Rejected(
            Rejection::BadBody(_) | Rejection::BadId { .. } | Rejection::TooLarge { .. },
        ) => true,
        CommitOutcome::Rejected(other) => panic!("a revision was refused: {other}"),
        _ => false,
    };
    outcomes.iter().filter(is_refused).count()
}
