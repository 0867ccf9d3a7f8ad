//! Queries beside a naive evaluation, and what is refused.
//!
//! `GATTWAY_TEST_QUERY_SEED=N` runs the random ones with that seed alone.

#![allow(clippy::unwrap_used)]

mod access;
mod hostile;
mod indexes;
mod naive;
mod random;

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::{Aggregate, Filter, Query, Test};
use crate::database::{Collection, Database, DatabaseConfig, Durability};

/// Seeds of one run of the tests.
const SEEDS: u64 = 8;

fn seeds() -> Vec<u64> {
    match std::env::var("GATTWAY_TEST_QUERY_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    }
}

fn database(directory: &tempfile::TempDir) -> Database {
    let config = DatabaseConfig { durability: Durability::Relaxed, ..DatabaseConfig::default() };
    Database::open(directory.path().join("db"), config).unwrap()
}

/// Saves, changes and removes documents, as the model has them then.
fn change(
    collection: &Collection,
    model: &mut BTreeMap<String, Map<String, Value>>,
    random: &mut Rng,
    times: usize,
) {
    for _ in 0..times {
        let id = random::id(random);
        match random.u8(0..10) {
            0 => {
                collection.delete(&id).unwrap();
                model.remove(&id);
            }
            1 => {
                collection.purge(&id).unwrap();
                model.remove(&id);
            }
            _ => {
                let body = random::body(random);
                collection.put(&id, &body).unwrap();
                model.insert(id, body);
            }
        }
    }
}

/// Rows without the revision, which the naive evaluation does not know.
fn without_revision(mut row: Map<String, Value>) -> Map<String, Value> {
    row.remove("_rev");
    row
}

/// All rows, read page by page.
fn paged(collection: &Collection, query: &Query, limit: u64) -> Vec<Map<String, Value>> {
    let (mut rows, mut bookmark) = (Vec::new(), None::<String>);
    loop {
        let mut page = query.clone().limit(limit);
        if let Some(bookmark) = bookmark.take() {
            page = page.bookmark(bookmark);
        }
        let mut found = collection.query(&page).unwrap();
        let before = rows.len();
        rows.extend(found.by_ref().map(|row| without_revision(row.unwrap())));
        assert!(rows.len() - before <= limit as usize);
        bookmark = found.bookmark().unwrap();
        if bookmark.is_none() {
            return rows;
        }
    }
}

#[test]
fn a_query_tells_what_a_naive_evaluation_tells() {
    for seed in seeds() {
        let mut random = Rng::with_seed(seed);
        let directory = tempfile::tempdir().unwrap();
        let db = database(&directory);
        let collection = db.default_collection().unwrap();
        let mut model = BTreeMap::new();
        change(&collection, &mut model, &mut random, 300);
        let documents: Vec<_> = model.into_iter().collect();
        for number in 0..60 {
            let query = random::query(&mut random);
            let expected = naive::rows(&query, &documents);
            let told = || format!("GATTWAY_TEST_QUERY_SEED={seed}, query {number}: {query:?}");
            let rows: Vec<_> =
                collection.query(&query).unwrap().map(|row| without_revision(row.unwrap())).collect();
            assert_eq!(rows, expected, "{}", told());
            let limit = random.u64(1..60);
            assert_eq!(paged(&collection, &query, limit), expected, "in pages of {limit}: {}", told());
        }
    }
}

fn readings(collection: &Collection) {
    for (id, body) in [
        ("1", json!({"sensor": "boiler", "time": "2026-11-27T07:00:00Z", "celsius": 71.5})),
        ("2", json!({"sensor": "roof", "time": "2026-11-27T07:00:30Z", "celsius": 4})),
        ("3", json!({"sensor": "boiler", "time": "2026-11-27T07:59:59Z", "celsius": 72.5})),
        ("4", json!({"sensor": "boiler", "time": "2026-11-27T08:00:00Z", "celsius": null})),
        ("5", json!({"sensor": "roof", "time": 1_795_766_400, "celsius": 3.5})),
    ] {
        collection.put(id, &body).unwrap();
    }
}

fn run(collection: &Collection, query: Value) -> Vec<Value> {
    let query = Query::from_json(&query).unwrap();
    collection.query(&query).unwrap().map(|row| Value::Object(without_revision(row.unwrap()))).collect()
}

#[test]
fn json_and_builder_are_the_same_query() {
    let built = Query::new()
        .filter(Filter::All(vec![
            Filter::Any(vec![
                Filter::At("a.b".into(), Test::Exists(true)),
                Filter::At("_id".into(), Test::In(vec![json!("x")])),
            ]),
            Filter::Not(Box::new(Filter::At("s".into(), Test::BeginsWith("t".into())))),
            Filter::All(vec![
                Filter::At("time".into(), Test::AtLeast(json!(1))),
                Filter::At("time".into(), Test::Below(json!(2))),
            ]),
        ]))
        .sort("time", true)
        .sort("_id", false)
        .limit(20)
        .field("a[0]");
    let read = json!({
        "selector": {
            "$or": [{"a.b": {"$exists": true}}, {"_id": {"$in": ["x"]}}],
            "s": {"$not": {"$beginsWith": "t"}},
            "time": {"$gte": 1, "$lt": 2},
        },
        "sort": [{"time": "desc"}, "_id"],
        "limit": 20,
        "fields": ["a[0]"],
    });
    assert_eq!(Query::from_json(&read).unwrap(), built);
    let read = Query::from_json(&json!({"bookmark": "AZ"})).unwrap();
    assert_eq!(read, Query::new().bookmark("AZ"));
    let grouped = json!({"group": ["sensor", {"time": "1h"}],
        "aggregate": {"a": "count", "b": {"count": "c"}, "c": {"last": "celsius", "by": "time"}}});
    let built = Query::new().group_by("sensor").group_by_time("time", "1h").aggregate("a", Aggregate::Count);
    let built = built.aggregate("b", Aggregate::CountOf("c".into()));
    let last = Aggregate::Last { of: "celsius".into(), by: "time".into() };
    assert_eq!(Query::from_json(&grouped).unwrap(), built.aggregate("c", last));
}

#[test]
fn the_last_reading_of_each_sensor_and_means_of_hours() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    let collection = db.default_collection().unwrap();
    readings(&collection);
    let last = json!({"group": ["sensor"], "selector": {"time": {"$beginsWith": "2026"}},
        "aggregate": {"at": {"last": "time", "by": "time"}, "celsius": {"last": "celsius", "by": "time"}, "n": "count"}});
    assert_eq!(
        run(&collection, last),
        [
            json!({"sensor": "boiler", "at": "2026-11-27T08:00:00Z", "celsius": 72.5, "n": 3}),
            json!({"sensor": "roof", "at": "2026-11-27T07:00:30Z", "celsius": 4, "n": 1}),
        ]
    );
    let means = json!({"group": [{"time": "1h"}], "aggregate": {"mean": {"avg": "celsius"}, "n": {"count": "celsius"}}});
    assert_eq!(
        run(&collection, means),
        [
            json!({"time": "2026-11-27T07:00:00Z", "mean": 148.0 / 3.0, "n": 3}),
            json!({"time": "2026-11-27T08:00:00Z", "mean": 3.5, "n": 1}),
        ]
    );
    let none = json!({"selector": {"sensor": "cellar"}, "aggregate": {"n": "count", "sum": {"sum": "celsius"}, "m": {"max": "celsius"}}});
    assert_eq!(run(&collection, none), [json!({"n": 0, "sum": 0, "m": null})]);
}

/// A page that begins where another ended has each row once, whatever happened in between to others.
#[test]
fn pages_go_on_after_the_last_row_whatever_was_saved_in_between() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    let collection = db.default_collection().unwrap();
    for n in 0..20 {
        collection.put(&format!("r{n:02}"), &json!({"n": n})).unwrap();
    }
    for sort in [Query::new(), Query::new().sort("n", false)] {
        let mut first = collection.query(&sort.clone().limit(10)).unwrap();
        assert_eq!(first.by_ref().count(), 10);
        let bookmark = first.bookmark().unwrap().unwrap();
        collection.put("r09x", &json!({"n": 9.5})).unwrap();
        collection.delete("r09").unwrap();
        let rest = collection.query(&sort.field("n").bookmark(bookmark)).unwrap();
        let rest: Vec<Value> = rest.map(|row| row.unwrap()["n"].clone()).collect();
        assert_eq!(rest[..2], [json!(9.5), json!(10)]);
        assert_eq!(rest.len(), 11);
        collection.delete("r09x").unwrap();
        collection.put("r09", &json!({"n": 9})).unwrap();
    }
}
