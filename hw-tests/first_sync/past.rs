//! Makes the databases of a plan, with the past that it tells: edits here, there and elsewhere, and what came from where.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use gattway::database::{Collection, Database, DatabaseConfig, DatabaseError, Durability, SimulatedDisk};
use gattway::lab::replica::revision::{SourceId, TreeId, VERSIONS_MAX, Version, VersionVector};
use gattway::lab::replica::store::{
    CommitOutcome, ConflictPolicy, IncomingRevision, Rejection, ReplicaStore,
};
use gattway::replicator::DefaultResolver;

use super::history::Step;
use super::plan::{ACTIVE, CollectionPlan, DocumentPlan, PASSIVE, Plan};
use super::values;

/// The two databases, open, in directories of their own.
pub struct Pair {
    pub directory: tempfile::TempDir,
    pub databases: Vec<Database>,
    /// Another that has written into both, if there is one; in memory.
    pub third: Option<Database>,
    /// Writes that were refused where they entered, and revisions of others that were.
    pub refused: u64,
}

/// Where one of the two lies.
pub fn path(directory: &Path, side: usize) -> PathBuf {
    directory.join(["active", "passive"][side])
}

/// The settings of one of the two.
pub fn config(durability: Durability) -> DatabaseConfig {
    let mut config = DatabaseConfig::default();
    config.durability = durability;
    config
}

impl Pair {
    /// Makes them, up to the moment before the sync.
    pub fn new(plan: &Plan) -> Pair {
        let directory = tempfile::Builder::new().prefix("first-sync-").tempdir().unwrap();
        let open = |side: usize, durability| {
            Database::open(path(directory.path(), side), config(durability)).unwrap()
        };
        // Nobody waits for stable storage meanwhile, unless the sync follows at once.
        let durability =
            |side: usize| if plan.reopened { Durability::Relaxed } else { plan.durability[side] };
        let mut databases: Vec<Database> =
            [ACTIVE, PASSIVE].into_iter().map(|side| open(side, durability(side))).collect();
        databases.extend((2..plan.databases()).map(|n| author(plan, n)));
        let mut refused = 0;
        for collection in &plan.collections {
            refused += fill(&databases, collection);
        }
        let third = databases.drain(2..).next();
        // The documents stay, and are not whole.
        (0..2).for_each(|side| drop(std::fs::remove_dir_all(path(directory.path(), side).join("blobs"))));
        if plan.reopened {
            databases.drain(..).for_each(|database| database.close().unwrap());
            databases = (0..2).map(|side| open(side, plan.durability[side])).collect();
        }
        Pair { directory, databases, third, refused: refused as u64 }
    }

    /// Closes both while `others` have them, and opens them again.
    pub fn lend<T>(&mut self, plan: &Plan, others: impl FnOnce(&Path) -> T) -> T {
        self.databases.drain(..).for_each(|database| database.close().unwrap());
        let result = others(self.directory.path());
        let open =
            |side| Database::open(path(self.directory.path(), side), config(plan.durability[side])).unwrap();
        self.databases = vec![open(ACTIVE), open(PASSIVE)];
        result
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
        if has(collection, n) {
            database.create_collection(&collection.name).unwrap();
        }
    }
    let mut refused = 0;
    for n in 0..collection.documents.iter().map(|document| document.steps.len()).max().unwrap_or(0) {
        // What arrives at one database in this step, as one commit.
        let mut arrivals: Vec<Vec<IncomingRevision>> = vec![Vec::new(); databases.len()];
        for document in &collection.documents {
            let Some(step) = document.steps.get(n) else { continue };
            refused += usize::from(!take(databases, collection, document, *step, &mut arrivals));
        }
        for (database, revisions) in databases.iter().zip(arrivals) {
            if !revisions.is_empty() {
                refused += arrive(database, &revisions);
            }
        }
    }
    refused
}

/// Whether a database has a collection in the plan. The default one is there in any case.
fn has(collection: &CollectionPlan, place: usize) -> bool {
    place >= 2 || collection.at[place]
}

/// Takes one step, or adds to what arrives; `false` if it was refused.
fn take(
    databases: &[Database],
    collection: &CollectionPlan,
    document: &DocumentPlan,
    step: Step,
    arrivals: &mut [Vec<IncomingRevision>],
) -> bool {
    let id = document.id.as_str();
    let at =
        |place: usize| has(collection, place).then(|| databases[place].collection(&collection.name).unwrap());
    let incoming = |to: usize, vector, deleted, body| {
        let collection = ReplicaStore::collection(&databases[to], &collection.name).unwrap();
        IncomingRevision { collection, id: id.to_owned(), vector, deleted, body }
    };
    match step {
        Step::Put { at: place, size, seed } => {
            let Some(collection) = at(place) else { return true };
            let mut rng = Rng::with_seed(seed);
            let body = values::body(&mut rng, size);
            let saved = put(&databases[place], &collection, id, &body);
            if saved.is_ok() {
                is_as_written(&collection.get(id).unwrap().unwrap(), &body);
            }
            return is_accepted(saved);
        }
        Step::Delete { at: place } => {
            let Some(collection) = at(place) else { return true };
            return is_accepted(collection.delete(id));
        }
        Step::Purge { at: place } => {
            let Some(collection) = at(place) else { return true };
            return is_accepted(collection.purge(id));
        }
        Step::Copy { from, to } if has(collection, from) && has(collection, to) => {
            let source = ReplicaStore::collection(&databases[from], &collection.name).unwrap();
            if let Some(change) = databases[from].document(source, id).unwrap() {
                arrivals[to].push(incoming(to, change.vector, change.deleted, change.body.unwrap()));
            }
        }
        Step::Crowd { to, authors, seed } if has(collection, to) => {
            let mut rng = Rng::with_seed(seed);
            let vector = crowd(&mut rng, authors);
            arrivals[to].push(incoming(to, vector, false, values::body(&mut rng, 0).into()));
        }
        Step::Tree { to, generation, common, seed, branch } if has(collection, to) => {
            let mut rng = Rng::with_seed(seed ^ if generation > common { branch + 1 } else { 0 });
            rng = Rng::with_seed(rng.u64(..) ^ u64::from(generation));
            let (deleted, body) = (rng.u8(..5) == 0, values::body(&mut rng, 0));
            let body = if deleted { "{}".to_owned() } else { body };
            let vector = tree(generation, common, seed, branch);
            arrivals[to].push(incoming(to, vector, deleted, body.into()));
        }
        Step::Copy { .. } | Step::Crowd { .. } | Step::Tree { .. } => {}
    }
    true
}

/// The revision of a document that so many have edited one after the other.
fn crowd(rng: &mut Rng, authors: usize) -> VersionVector {
    let mut time = wall() - 1_000_000_000_000;
    let mut next = |rng: &mut Rng| {
        time += rng.u64(1..1_000_000_000);
        Version { time, source: source(rng) }
    };
    let mut versions: Vec<Version> = (0..authors).map(|_| next(rng)).collect();
    versions.reverse();
    versions.truncate(VERSIONS_MAX);
    let mut vector = VersionVector::new(versions.remove(0));
    vector.history = versions;
    vector
}

/// The revision that an upgraded database has in this generation, with its ancestors.
fn tree(generation: u32, common: u32, seed: u64, branch: u64) -> VersionVector {
    let id = |generation: u32| {
        let mut digest = [0; 20];
        let seed = if generation > common { seed.wrapping_add(branch + 1) } else { seed };
        Rng::with_seed(seed.wrapping_mul(31).wrapping_add(generation.into())).fill(&mut digest);
        TreeId::new(generation, &digest).unwrap()
    };
    let mut vector = VersionVector::at_tree(id(generation));
    vector.trees.extend((1..generation).rev().map(id));
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
            DatabaseError::InvalidId { .. }
            | DatabaseError::BadBody { .. }
            | DatabaseError::TooLarge { .. }
            | DatabaseError::MissingBlob { .. },
        ) => false,
        Err(error) => panic!("a write failed: {error}"),
    }
}

/// Saves a document, and before it the blobs that it names, where there are any.
fn put(database: &Database, collection: &Collection, id: &str, body: &str) -> Result<u64, DatabaseError> {
    loop {
        let saved = collection.put_json(id, body.as_bytes());
        let Err(DatabaseError::MissingBlob { digest }) = &saved else { return saved };
        if database.save_blob(&values::content_of(digest)[..], "text/plain").is_err() {
            return saved;
        }
    }
}

/// Revisions of others come in; gives how many were refused.
fn arrive(database: &Database, revisions: &[IncomingRevision]) -> usize {
    let outcomes = database.commit(revisions, ConflictPolicy::Resolve(&DefaultResolver)).unwrap();
    let is_refused = |outcome: &&CommitOutcome| match outcome {
        CommitOutcome::Rejected(
            Rejection::BadBody(_)
            | Rejection::BadId { .. }
            | Rejection::TooLarge { .. }
            | Rejection::MissingBlob { .. },
        ) => true,
        CommitOutcome::Rejected(other) => panic!("a revision was refused: {other}"),
        _ => false,
    };
    outcomes.iter().filter(is_refused).count()
}
