//! The guest's part of one life: open, compare with what was acknowledged, then write and sync until the power goes.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gattway::database::{Collection, Database, DatabaseConfig, DatabaseError, Document, Durability};
use gattway::endpoint::{MessageEndpoint, MessageEndpointConnection, ProtocolType};
use gattway::lab::replica::revision;
use gattway::lab::replica::store::ReplicaStore;
use gattway::lab::transport::stream::{Address, StreamConnection, StreamListener};
use gattway::replicator::{Direction, Replicator, ReplicatorConfiguration};
use gattway::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};
use serde_json::{Map, Value};

use super::model::{self, Operation};
use super::task::{Line, Mode, SIDES, Task, Writer};

/// One in so many operations of the first writer of a side is followed by a compaction.
const COMPACT_EVERY: u64 = 211;

/// Largest pause between two operations of a writer, so that there is something to sync, but not always the same.
const PAUSE_MAX: Duration = Duration::from_millis(4);

/// Changes read at a time.
const CHANGES_AT_ONCE: usize = 1000;

/// How long the two sides may take to become equal.
const EQUAL_WITHIN: Duration = Duration::from_secs(120);

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Says something to the host, at once and whole.
fn say(line: &Line) {
    println!("{line}");
}

fn problem(what: impl std::fmt::Display) {
    say(&Line::Problem(what.to_string()));
}

pub fn run(directory: &Path, disks: &Path) -> ExitCode {
    match live(directory, disks) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            problem(error);
            ExitCode::FAILURE
        }
    }
}

fn live(directory: &Path, disks: &Path) -> Result<()> {
    let began = Instant::now();
    let task: Task = serde_json::from_slice(&std::fs::read(directory.join("task.json"))?)?;
    if task.mode == Mode::NoSync {
        gattway::lab::database::faults::leave_out_fdatasync();
    }
    let durability = if task.mode == Mode::Relaxed { Durability::Relaxed } else { Durability::Synced };
    let mut config = DatabaseConfig::default();
    config.durability = durability;
    let mut sides = Vec::new();
    for name in SIDES {
        let path = disks.join(name).join("db");
        let db = Database::open(path, config.clone()).map_err(|error| format!("side {name}: {error}"))?;
        sides.push(db);
    }
    let open_ms = ms(began);
    let sides: [Database; 2] = sides.try_into().map_err(|_| "two sides")?;
    let positions = check(&task, &sides, open_ms, began)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if task.finish {
        return runtime.block_on(finish(&sides));
    }
    say(&Line::Writing);
    runtime.block_on(async {
        let address = listen(&sides[1]).await?;
        let replicator = replicator(&sides[0], address, true);
        replicator.start();
        let threads: Vec<_> = Writer::all()
            .map(|writer| {
                let (db, task) = (sides[writer.side].clone(), task.clone());
                let from = positions[writer.index()];
                std::thread::spawn(move || write(&db, &task, writer, from, began))
            })
            .collect();
        // A writer ends only if something is wrong.
        tokio::task::spawn_blocking(move || {
            for thread in threads {
                if let Ok(Err(error)) = thread.join() {
                    problem(format_args!("a write failed: {error}"));
                }
            }
        })
        .await?;
        Ok(())
    })
}

fn ms(began: Instant) -> u64 {
    began.elapsed().as_millis() as u64
}

// ---- After the cut: what is there ---------------------------------------------------------------------------------

/// Operations of a writer that a host may not have heard of at the cut: it is busy at times, and the console has a buffer.
const UNREAD_MAX: u64 = 64;

/// Everything of one side, tombstones included: newest revisions, and the operation that saved each document.
struct Contents {
    revisions: BTreeMap<String, revision::VersionVector>,
    operations: BTreeMap<String, u64>,
}

/// Compares both sides with what was acknowledged, and tells the host; gives each writer's position.
fn check(task: &Task, sides: &[Database; 2], open_ms: u64, began: Instant) -> Result<Vec<u64>> {
    let mut positions = Vec::new();
    let mut documents = 0;
    for (side, db) in sides.iter().enumerate() {
        let report = db.verify()?;
        if !report.is_sound() {
            problem(format_args!("side {}: {:?}", SIDES[side], report.listed));
        }
        let contents = contents(task.seed, &db.default_collection()?)?;
        documents += contents.revisions.len() as u64;
        for id in &task.replicated[side] {
            if !contents.revisions.contains_key(id) {
                say(&Line::Missing { side, id: id.clone() });
            }
        }
        for writer in Writer::all().filter(|writer| writer.side == side) {
            positions.push(check_writer(task, writer, db, &contents));
        }
    }
    say(&Line::Checked { documents, open_ms, check_ms: ms(began) - open_ms });
    Ok(positions)
}

fn check_writer(task: &Task, writer: Writer, db: &Database, contents: &Contents) -> u64 {
    let acknowledged = task.acknowledged[writer.index()];
    let prefix = model::prefix(writer);
    let own = contents.operations.iter().filter(|(id, _)| id.starts_with(&prefix));
    let own = own.map(|(id, operation)| (id.clone(), *operation)).collect();
    // More may have reached stable storage without the acknowledgements having reached the host.
    let operation = model::matching(task.seed, writer, acknowledged + UNREAD_MAX, &own);
    say(&Line::Found { writer, operation });
    let position = operation.unwrap_or(acknowledged);
    for (id, acknowledged) in &task.revisions[writer.index()] {
        if acknowledged.operation > position {
            continue; // lost with its operation, which was told already
        }
        let time = contents.revisions.get(id).and_then(|vector| vector.time_of(ReplicaStore::source(db)));
        if time.is_none_or(|time| time < acknowledged.time) {
            say(&Line::Stale { writer, id: id.clone() });
        }
    }
    position
}

fn contents(seed: u64, collection: &Collection) -> Result<Contents> {
    let (mut revisions, mut operations) = (BTreeMap::new(), BTreeMap::new());
    let mut since = 0;
    loop {
        let changes = collection.changes_since(since, CHANGES_AT_ONCE)?;
        let Some(last) = changes.last() else { break };
        since = last.sequence;
        for change in changes {
            if change.deleted {
                operations.insert(change.id.clone(), model::TOMBSTONE);
            }
            revisions.insert(change.id, change.revision);
        }
    }
    for document in collection.iter() {
        let document = document?;
        let operation = document.body().get("n").and_then(Value::as_u64).unwrap_or_default();
        if *document.body() != model::body(seed, document.id(), operation) {
            problem(format_args!("{} holds what nobody saved: {:?}", document.id(), document.body()));
        }
        if operations.insert(document.id().to_owned(), operation).is_some() {
            problem(format_args!("{} is there twice, or is there and deleted", document.id()));
        }
    }
    if operations.len() != revisions.len() {
        let (documents, all) = (operations.len(), revisions.len());
        problem(format_args!("{documents} documents and tombstones, but {all} in the feed"));
    }
    Ok(Contents { revisions, operations })
}

// ---- Until the cut ------------------------------------------------------------------------------------------------

/// Makes one commit after the other; each is acknowledged to the host before the next begins.
fn write(db: &Database, task: &Task, writer: Writer, from: u64, began: Instant) -> Result<()> {
    let collection = db.default_collection()?;
    let mut rng = fastrand::Rng::new();
    for number in from + 1.. {
        let operation = model::operation(task.seed, writer, number);
        let revisions = perform(db, &collection, task.seed, number, &operation)?;
        say(&Line::Acknowledged { writer, operation: number, ms: ms(began), revisions });
        if writer.thread == 0 && number % COMPACT_EVERY == 0 {
            db.compact()?;
        }
        std::thread::sleep(PAUSE_MAX.mul_f64(rng.f64()));
    }
    Ok(())
}

/// Gives the times of the versions that were made and must stay, as far as they are known exactly.
fn perform(
    db: &Database,
    collection: &Collection,
    seed: u64,
    number: u64,
    operation: &Operation,
) -> Result<Vec<(String, u64)>, DatabaseError> {
    let time = |document: &Document| document.revision().map(|vector| vector.current.time);
    match operation {
        Operation::Put(id) => {
            let time = time(&save(collection, id, model::body(seed, id, number))?);
            Ok(time.map(|time| (id.clone(), time)).into_iter().collect())
        }
        // A resolver may prefer the other side's, so nothing is known of this one afterwards.
        Operation::PutShared(id) => save(collection, id, model::body(seed, id, number)).map(|_| Vec::new()),
        Operation::Delete(id) => collection.delete(id).map(|_| Vec::new()),
        Operation::Batch(ids) => {
            db.batch(|batch| {
                ids.iter().try_for_each(|id| batch.put(collection, id, &model::body(seed, id, number)))
            })?;
            // Nobody else changes these, so what is read is what was saved.
            let last = ids.last().map(|id| collection.get(id)).transpose()?.flatten();
            let time = last.as_ref().and_then(time);
            Ok(time.zip(ids.last()).map(|(time, id)| (id.clone(), time)).into_iter().collect())
        }
    }
}

/// Saves against the revision that was read, so that the new revision is known; again if a peer was faster.
fn save(collection: &Collection, id: &str, body: Map<String, Value>) -> Result<Document, DatabaseError> {
    loop {
        let mut document = match collection.get(id)? {
            Some(mut document) => {
                *document.body_mut() = body.clone();
                document
            }
            None => Document::new(id, body.clone()),
        };
        match collection.save(&mut document) {
            Err(DatabaseError::Conflict { .. }) => {}
            saved => return saved.map(|()| document),
        }
    }
}

// ---- Replication --------------------------------------------------------------------------------------------------

/// The passive side, on a Unix socket in the guest's memory.
async fn listen(db: &Database) -> Result<Address> {
    let address = Address::Unix(PathBuf::from("/run/power.sock"));
    let socket = StreamListener::bind(address.clone()).await?;
    let config = MessageEndpointListenerConfiguration::new(Arc::new(db.clone()), ProtocolType::ByteStream);
    let listener = MessageEndpointListener::new(config);
    tokio::spawn(async move {
        while let Ok(Some(connection)) = socket.accept().await {
            if let Err(error) = listener.accept(Arc::new(connection)) {
                problem(format_args!("a connection was refused: {error}"));
            }
        }
    });
    Ok(address)
}

/// The active side. It tells the host which write-once documents are on the other's medium, by its own knowledge.
fn replicator(db: &Database, address: Address, continuous: bool) -> Replicator {
    let target = Arc::new(address.clone());
    let dial = move |_: &MessageEndpoint| -> Arc<dyn MessageEndpointConnection> {
        Arc::new(StreamConnection::connect(address.clone()))
    };
    let endpoint = MessageEndpoint::new("b", target, ProtocolType::ByteStream, Arc::new(dial));
    let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(db.clone()));
    config.continuous = continuous;
    config.max_attempt_wait = Duration::from_millis(100);
    let replicator = Replicator::new(config);
    replicator.add_document_listener(|document| {
        if let Some(error) = &document.error {
            return problem(format_args!("{} failed to replicate: {error:?}", document.id));
        }
        if model::is_once(&document.id) {
            let side = usize::from(document.direction == Direction::Sent);
            say(&Line::Replicated { side, id: document.id.clone() });
        }
    });
    replicator
}

/// Syncs until both sides are equal.
async fn finish(sides: &[Database; 2]) -> Result<()> {
    let address = listen(&sides[1]).await?;
    let until = Instant::now() + EQUAL_WITHIN;
    let mut differences = BTreeSet::new();
    while Instant::now() < until {
        let once = replicator(&sides[0], address.clone(), false);
        once.start();
        if let Some(error) = once.wait_until_stopped().await.error {
            problem(format_args!("the last sync failed: {error}"));
        }
        let [a, b] = [heads(&sides[0])?, heads(&sides[1])?];
        differences = a.symmetric_difference(&b).cloned().collect();
        if differences.is_empty() {
            say(&Line::Equal(a.len() as u64));
            return Ok(());
        }
    }
    let some: Vec<_> = differences.iter().take(5).collect();
    Err(format!("{} revisions are on one side only: {some:?}", differences.len()).into())
}

/// Each document's newest revision.
fn heads(db: &Database) -> Result<BTreeSet<(String, String, bool)>> {
    let changes = db.default_collection()?.changes_since(0, usize::MAX)?;
    let head = |c: gattway::database::Change| (c.id, c.revision.current.to_string(), c.deleted);
    Ok(changes.into_iter().map(head).collect())
}
