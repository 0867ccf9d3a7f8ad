//! Which index a query reads, in which ranges, and what is left to be done with what it leads to.

use super::super::access::Access;
use super::super::plan::Plan;
use super::indexes::settle;
use super::*;
use crate::database::store::{CollectionKey, Ranges};
use crate::database::value::{behind, encoded};

const ABSENT: [u8; 1] = [1];

/// A database with these indexes.
fn with(directory: &tempfile::TempDir, indexes: &[(&str, &[&str])]) -> (Database, Collection) {
    let db = database(directory);
    let collection = db.default_collection().unwrap();
    indexes.iter().for_each(|(name, paths)| collection.create_index(name, paths.iter().copied()).unwrap());
    settle(&db);
    (db, collection)
}

/// The ranges in which the best index is read.
fn ranges(db: &Database, query: &Query) -> Ranges {
    let plan = Plan::of(query).unwrap();
    Access::choose(&plan, db.store.usable_indexes(CollectionKey(0)).unwrap()).unwrap().ranges
}

fn query(text: &str) -> Query {
    Query::from_json(&serde_json::from_str(text).unwrap()).unwrap()
}

/// The index that narrows most is read; of those that narrow alike the one that gives the order; at last the one with the fewest
/// paths. None is read where it would save nothing, or IDs say more. What the ranges say is not left to the filter.
#[test]
fn the_index_that_saves_most_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let indexes: [(&str, &[&str]); 4] =
        [("s", &["s"]), ("st", &["s", "t"]), ("t", &["t"]), ("uvw", &["u", "v", "w"])];
    let (_db, collection) = with(&directory, &indexes);
    for (asked, expected) in [
        (r#"{}"#, r#"null all documents as read"#),
        (r#"{"selector": {"x": 1}}"#, r#"null all documents as read"#),
        (r#"{"selector": {"s": "a"}}"#, r#"s {"s":[{"$eq":"a"}]} [] as read"#),
        (r#"{"selector": {"s": "a"}, "sort": ["t"]}"#, r#"st {"s":[{"$eq":"a"}]} [] as read"#),
        (r#"{"selector": {"s": "a", "x": 1}}"#, r#"s {"s":[{"$eq":"a"}]} [{"x":{"$eq":1}}] as read"#),
        (
            r#"{"selector": {"s": "a", "t": {"$gt": 1}}}"#,
            r#"st {"s":[{"$eq":"a"}],"t":[{"$gt":1}]} [] IDs sorted in memory"#,
        ),
        (r#"{"selector": {"t": {"$gt": 1}}}"#, r#"t {"t":[{"$gt":1}]} [] IDs sorted in memory"#),
        (
            r#"{"selector": {"t": {"$gt": 1, "$lt": 9}, "s": {"$ne": "a"}}, "sort": ["t"]}"#,
            r#"t {"t":[{"$gt":1},{"$lt":9}]} [{"s":{"$ne":"a"}}] as read"#,
        ),
        (
            r#"{"selector": {"s": {"$in": ["a", "b"]}}, "sort": [{"t": "desc"}]}"#,
            r#"s {"s":[{"$in":["a","b"]}]} [] sorted in memory"#,
        ),
        (r#"{"selector": {"s": {"$exists": false}}}"#, r#"s {"s":[{"$exists":false}]} [] as read"#),
        (r#"{"selector": {"s": {"$exists": true}}}"#, r#"null all documents as read"#),
        (
            r#"{"selector": {"u": 1, "w": 2}}"#,
            r#"uvw {"u":[{"$eq":1}]} [{"w":{"$eq":2}}] IDs sorted in memory"#,
        ),
        (
            r#"{"selector": {"u": 1, "v": {"$gt": 2}, "w": {"$gt": 3}}}"#,
            r#"uvw {"u":[{"$eq":1}],"v":[{"$gt":2}]} [{"w":{"$gt":3}}] IDs sorted in memory"#,
        ),
        (r#"{"sort": ["t"]}"#, r#"t all of the index [] as read"#),
        (
            r#"{"sort": ["s", {"t": "desc"}]}"#,
            r#"s all of the index [] as read; of those that are equal in the first of them, sorted in memory"#,
        ),
        (r#"{"selector": {"s": "a"}, "sort": ["s", "t"]}"#, r#"st {"s":[{"$eq":"a"}]} [] as read"#),
        (r#"{"sort": ["t", "t"]}"#, r#"t all of the index [] as read"#),
        (r#"{"sort": ["x", "t"]}"#, r#"null all documents sorted in memory"#),
        (
            r#"{"selector": {"_id": {"$gte": "m"}}, "sort": ["t"]}"#,
            r#"null {"ids_from":"m"} sorted in memory"#,
        ),
        (r#"{"selector": {"_id": {"$lt": "m"}}, "sort": ["t"]}"#, r#"null {"ids_from":""} sorted in memory"#),
        (r#"{"selector": {"_id": {"$lt": "m"}, "t": {"$gt": 1}}}"#, r#"null {"ids_from":""} as read"#),
        (
            r#"{"selector": {"_id": {"$lt": "m"}, "t": 1}}"#,
            r#"t {"t":[{"$eq":1}]} [{"_id":{"$lt":"m"}}] as read"#,
        ),
        (r#"{"selector": {"_id": "m", "t": 1}}"#, r#"null {"ids":1} as read"#),
        (r#"{"group": ["t"], "aggregate": {"n": "count"}}"#, r#"null all documents groups in memory"#),
        (
            r#"{"selector": {"t": {"$gt": 1}}, "group": ["t"], "aggregate": {"n": "count"}}"#,
            r#"t {"t":[{"$gt":1}]} [] groups in memory"#,
        ),
        (r#"{"sort": [{"t": "desc"}]}"#, r#"t backwards all of the index [] as read"#),
    ] {
        let told = collection.explain(&query(asked)).unwrap();
        let text = |name: &str| match &told[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let index = told["index"].as_str().unwrap_or("null");
        let backwards = if told["backwards"] == true { "backwards" } else { "" };
        let found = [index, backwards, &text("reads"), &text("filter"), &text("order")];
        let found: Vec<&str> = found.into_iter().filter(|part| !part.is_empty()).collect();
        assert_eq!(found.join(" "), expected, "{asked}");
    }
}

/// Each value has a range of its own; of values that the index has only the beginnings of, which are the same, there is one.
#[test]
fn ranges_do_not_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let (db, _) = with(&directory, &[("a", &["a"])]);
    let long = |n: u32| format!("{}{n}", "x".repeat(250));
    let whole = |value: Value| (encoded(&value), behind(encoded(&value)));
    let mut cut = encoded(&long(0).into());
    cut.truncate(200);
    let cut = (cut.clone(), behind(cut));
    for (values, expected) in [
        (vec![json!(1), json!(2)], vec![whole(json!(1)), whole(json!(2))]),
        (vec![json!(long(1)), json!(long(2))], vec![cut.clone()]),
        (
            vec![json!("a"), json!(long(1)), json!(long(2)), json!("y")],
            vec![whole(json!("a")), cut, whole(json!("y"))],
        ),
    ] {
        assert_eq!(ranges(&db, &Query::new().filter(("a", Test::In(values)))), expected);
    }
}

/// A page of rows begins where the last one has ended, and reads nothing in front of that.
#[test]
fn reading_goes_on_where_a_page_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let (db, collection) = with(&directory, &[("abc", &["a", "b", "c"])]);
    for n in 0..6 {
        collection.put(&format!("d{n}"), &json!({"b": 1 + n / 3, "c": n, "z": 9})).unwrap();
    }
    let key = |b: u32, c: u32| [&ABSENT[..], &encoded(&b.into()), &encoded(&c.into())].concat();
    let of = |b: u32| [&ABSENT[..], &encoded(&b.into())].concat();
    let asked = Query::new()
        .filter(("z", Test::Equal(9.into())))
        .filter(("y", Test::Exists(false)))
        .filter(("a", Test::Exists(false)));
    let one = asked.clone().filter(("b", Test::Equal(1.into())));
    let two = asked.filter(("b", Test::In(vec![1.into(), 2.into()])));
    for (query, rows, expected) in [
        (one.clone().sort("c", false), 2, vec![(key(1, 1), behind(of(1)))]),
        (one.sort("c", true), 2, vec![(of(1), behind(key(1, 1)))]),
        (
            two.clone().sort("b", false).sort("c", false),
            2,
            vec![(key(1, 1), behind(of(1))), (of(2), behind(of(2)))],
        ),
        (two.clone().sort("b", false).sort("c", false), 4, vec![(key(2, 3), behind(of(2)))]),
        (two.sort("b", true).sort("c", true), 4, vec![(of(1), behind(key(1, 2)))]),
    ] {
        let mut page = collection.query(&query.clone().limit(rows)).unwrap();
        assert_eq!(page.by_ref().count() as u64, rows);
        let bookmark = page.bookmark().unwrap().unwrap();
        assert_eq!(ranges(&db, &query.clone().bookmark(bookmark)), expected, "{query:?}");
    }
}
