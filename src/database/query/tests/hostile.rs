//! What no query is allowed to be, or to take.

use serde_json::{Value, json};

use super::super::{Aggregate, Filter, Query, Test};
use super::database;
use crate::database::{Collection, DatabaseError};

fn refused(collection: &Collection, query: &Query) {
    let shown = format!("{query:.300?}");
    match collection.query(query) {
        Err(DatabaseError::BadQuery { reason }) => assert!(reason.len() < 400, "{reason}"),
        other => panic!("{shown}: {other:?}"),
    }
    assert!(collection.explain(query).is_err(), "{shown}");
}

#[test]
fn what_is_no_query_is_refused() {
    let deep = (0..60).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
    let deep_operator = (0..60).fold(json!({"$eq": 1}), |inner, _| json!({"$not": inner}));
    for query in [
        json!(null),
        json!([]),
        json!({"select": []}),
        json!({"selector": []}),
        json!({"selector": {"$xor": []}}),
        json!({"selector": {"$and": {}}}),
        json!({"selector": {"$or": [1]}}),
        json!({"selector": {"a": {"b": 1}}}),
        json!({"selector": {"a": {}}}),
        json!({"selector": {"a": {"$gt": 1, "b": 1}}}),
        json!({"selector": {"a": {"$regex": "x"}}}),
        json!({"selector": {"a": {"$in": 1}}}),
        json!({"selector": {"a": {"$exists": 1}}}),
        json!({"selector": {"a": {"$beginsWith": 1}}}),
        json!({"selector": deep}),
        json!({"selector": {"a": deep_operator}}),
        json!({"sort": "a"}),
        json!({"sort": [1]}),
        json!({"sort": [{"a": "up"}]}),
        json!({"sort": [{"a": "asc", "b": "asc"}]}),
        json!({"limit": -1}),
        json!({"limit": 1.5}),
        json!({"limit": "1"}),
        json!({"bookmark": 1}),
        json!({"fields": [1]}),
        json!({"group": [{"time": 1}]}),
        json!({"aggregate": []}),
        json!({"aggregate": {"a": "sum"}}),
        json!({"aggregate": {"a": {"median": "b"}}}),
        json!({"aggregate": {"a": {"last": "b"}}}),
        json!({"aggregate": {"a": {"last": "b", "first": "c"}}}),
        json!({"aggregate": {"a": {"sum": "b", "by": "c"}}}),
    ] {
        let read = Query::from_json(&query);
        assert!(matches!(read, Err(DatabaseError::BadQuery { .. })), "{query}: {read:?}");
    }
}

#[test]
fn what_a_query_may_not_have_is_refused_before_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    let collection = db.default_collection().unwrap();
    let at = |path: &str| Filter::At(path.into(), Test::Exists(true));
    let deep = |levels| (0..levels).fold(at("a"), |inner, _| Filter::Not(Box::new(inner)));
    let many = |n| Filter::Any(vec![at("a"); n]);
    let numbers = |n: u64| Test::In((0..n).map(Value::from).collect());
    let long = "x".repeat(2 << 20);
    for query in [
        Query::new().filter(deep(33)),
        Query::new().filter(many(1_001)),
        Query::new().filter(("a", numbers(10_001))),
        Query::new().filter(("a", Test::Equal(long.clone().into()))),
        Query::new().filter(("a", Test::BeginsWith(long.clone()))),
        Query::new().filter((long.clone(), Test::Exists(true))),
        Query::new().sort("a.".repeat(200) + "a", false),
        Query::new().filter(("_secret", Test::Exists(true))),
        Query::new().field(""),
        Query::new().bookmark("x"),
        Query::new().bookmark(long.clone()),
        Query::new().group_by_time("time", "1 hour"),
        Query::new().group_by("a").group_by_time("a", "1h"),
        Query::new().group_by("a").aggregate("a", Aggregate::Count),
        Query::new().aggregate("", Aggregate::Count),
        Query::new().aggregate(long, Aggregate::Count),
        Query::new().aggregate("a", Aggregate::Sum("[".into())),
        Query::new().group_by("a").sort("a", false),
        Query::new().aggregate("a", Aggregate::Count).field("a"),
        (0..9).fold(Query::new(), |query, n| query.sort(format!("a{n}"), false)),
        (0..101).fold(Query::new(), |query, n| query.field(format!("a{n}"))),
        (0..9).fold(Query::new(), |query, n| query.group_by(format!("a{n}"))),
        (0..33).fold(Query::new(), |query, n| query.aggregate(format!("a{n}"), Aggregate::Count)),
    ] {
        refused(&collection, &query);
    }
    for query in [
        Query::new().filter(deep(30)),
        Query::new().filter(many(900)),
        Query::new().filter(("a", numbers(10_000))),
    ] {
        assert_eq!(collection.query(&query).unwrap().count(), 0);
    }
}

/// What is gathered has a bound, and who gives a limit is below it.
#[test]
fn memory_has_a_bound_whatever_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    let collection = db.default_collection().unwrap();
    let long = "x".repeat(300_000);
    for n in 0..70 {
        collection.put(&format!("r{n:02}"), &json!({"n": n, "long": format!("{n} {long}")})).unwrap();
    }
    let too_large = |query: &Query| {
        let mut rows = collection.query(query).unwrap();
        let first = rows.next();
        assert!(
            matches!(first, Some(Err(DatabaseError::QueryTooLarge { .. }))),
            "{query:?}: {:.100?}",
            first
        );
        assert!(rows.next().is_none() && rows.bookmark().unwrap().is_none());
    };
    too_large(&Query::new().sort("n", true));
    too_large(&Query::new().group_by("long"));
    too_large(&Query::new().group_by("n").aggregate("a", Aggregate::Max("long".into())));
    let newest = collection.query(&Query::new().sort("n", true).limit(10)).unwrap();
    assert_eq!(newest.map(|row| row.unwrap()["n"].clone()).next(), Some(json!(69)));
    assert_eq!(collection.query(&Query::new().group_by("long").limit(10)).unwrap().count(), 10);
    // Rows that come as they are read take no memory.
    assert_eq!(collection.query(&Query::new()).unwrap().count(), 70);
    let mut page = collection.query(&Query::new().sort("long", false).limit(1)).unwrap();
    assert!(page.next().unwrap().is_ok());
    assert!(matches!(page.bookmark(), Err(DatabaseError::QueryTooLarge { .. })));
}
