//! Queries beside a naive evaluation while there are indexes, and indexes beside the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bytes::Bytes;

use super::*;
use crate::database::store::Work;
use crate::database::wall_now;
use crate::replica::revision::{SourceId, Version, VersionVector};
use crate::replica::store::{
    CollectionId, Conflict, ConflictPolicy, IncomingRevision, ReplicaStore, Resolution,
};

type Model = BTreeMap<String, Map<String, Value>>;

/// Works until there is nothing to do.
pub(super) fn settle(db: &Database) {
    while db.store.work_on_indexes().unwrap() == Work::More {}
}

/// Changes documents in every way that there is, several of them in one commit.
fn change_oddly(db: &Database, collection: &Collection, model: &mut Model, random: &mut Rng) {
    match random.u8(0..6) {
        0 => {
            // One document several times, too.
            let changes: Vec<_> = (0..random.usize(1..30))
                .map(|_| (random::id(random), (random.u8(0..5) > 0).then(|| random::body(random))))
                .collect();
            let saved = db.batch(|batch| {
                changes.iter().try_for_each(|(id, body)| match body {
                    Some(body) => batch.put(collection, id, body),
                    None => batch.delete(collection, id).map(drop),
                })
            });
            saved.unwrap();
            for (id, body) in changes {
                match body {
                    Some(body) => drop(model.insert(id, body)),
                    None => drop(model.remove(&id)),
                }
            }
        }
        1 => {
            // A peer's revision, on top of what is here or beside it.
            let (id, body) = (random::id(random), random::body(random));
            let id_of = CollectionId(0);
            let known = db.revision(id_of, &id).unwrap().map(|change| change.vector);
            let version = Version { time: wall_now(), source: SourceId([9; 16]) };
            let vector = match known.filter(|_| random.bool()) {
                Some(known) => known.edited(version),
                None => VersionVector::new(version),
            };
            let deleted = random.u8(0..4) == 0;
            let body = if deleted { Map::new() } else { body };
            let bytes = Bytes::from(serde_json::to_vec(&body).unwrap());
            let revision =
                IncomingRevision { collection: id_of, id: id.clone(), vector, deleted, body: bytes };
            let is_local = random.bool();
            let resolver = move |_: &Conflict<'_>| {
                Ok::<_, String>(if is_local { Resolution::Local } else { Resolution::Remote })
            };
            let policy =
                if random.bool() { ConflictPolicy::Refuse } else { ConflictPolicy::Resolve(&resolver) };
            db.commit(&[revision], policy).unwrap();
            match collection.get(&id).unwrap() {
                Some(document) => drop(model.insert(id, document.body().clone())),
                None => drop(model.remove(&id)),
            }
        }
        2 => {
            let id = random::id(random);
            if collection.set_expiration(&id, Some(SystemTime::now())).is_ok() {
                model.remove(&id);
                if random.bool() {
                    db.store.remove_due(usize::MAX).unwrap();
                }
            }
        }
        3 => {
            let removed = collection.ages_since(random.u64(0..400), 3).unwrap().0;
            let places = removed.iter().map(|aged| (&*aged.id, aged.sequence));
            collection.remove_aged(places, true).unwrap();
            removed.iter().for_each(|aged| drop(model.remove(&*aged.id)));
        }
        _ => change(collection, model, random, 10),
    }
}

/// Declares or drops an index, builds some, writes the database anew or opens it again.
fn change_indexes(db: Database, directory: &tempfile::TempDir, random: &mut Rng) -> Database {
    let collection = db.default_collection().unwrap();
    let name = format!("i{}", random.u8(0..4));
    match random.u8(0..8) {
        0..3 => {
            let mut paths = BTreeSet::new();
            for _ in 0..random.usize(1..4) {
                paths.insert(random.u8(0..9));
            }
            let mut paths: Vec<_> = paths.into_iter().map(|at| random::PATHS[usize::from(at)]).collect();
            random.shuffle(&mut paths);
            let created = collection.create_index(&name, paths);
            assert!(matches!(created, Ok(()) | Err(crate::database::DatabaseError::IndexExists { .. })));
        }
        3 => drop(collection.drop_index(&name).unwrap()),
        4 => db.compact().map(drop).unwrap(),
        5 => {
            db.close().unwrap();
            drop((collection, db));
            return database(directory);
        }
        _ => {
            db.store.work_on_indexes().unwrap();
        }
    }
    db
}

#[test]
fn with_indexes_a_query_tells_what_a_naive_evaluation_tells() {
    let (mut used, mut orders) = (0, BTreeSet::new());
    for seed in seeds() {
        let mut random = Rng::with_seed(seed);
        let directory = tempfile::tempdir().unwrap();
        let mut db = database(&directory);
        let mut model = Model::new();
        change(&db.default_collection().unwrap(), &mut model, &mut random, 200);
        for round in 0..5 {
            for _ in 0..random.usize(1..12) {
                db = change_indexes(db, &directory, &mut random);
                change_oddly(&db, &db.default_collection().unwrap(), &mut model, &mut random);
            }
            if random.bool() {
                settle(&db);
            }
            let report = db.verify().unwrap();
            assert!(report.is_sound(), "GATTWAY_TEST_QUERY_SEED={seed}, round {round}: {report:?}");
            let collection = db.default_collection().unwrap();
            let documents: Vec<_> = model.clone().into_iter().collect();
            for number in 0..30 {
                let query = random::query(&mut random);
                let told = collection.explain(&query).unwrap();
                used += u64::from(!told["index"].is_null());
                orders.insert(told["order"].as_str().unwrap().to_owned());
                let expected = naive::rows(&query, &documents);
                let told = || {
                    let indexes: Vec<_> =
                        collection.indexes().unwrap().into_iter().map(|i| i.paths).collect();
                    format!(
                        "GATTWAY_TEST_QUERY_SEED={seed}, {round}.{number}: {query:?} with {indexes:?}, {told}"
                    )
                };
                let rows: Vec<_> =
                    collection.query(&query).unwrap().map(|row| without_revision(row.unwrap())).collect();
                assert_eq!(rows, expected, "{}", told());
                let limit = random.u64(1..60);
                assert_eq!(paged(&collection, &query, limit), expected, "in pages of {limit}: {}", told());
            }
        }
    }
    assert!(used > 100 && orders.len() == 5, "{used} queries with an index, {orders:?}");
}
