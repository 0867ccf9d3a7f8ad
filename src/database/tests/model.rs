//! Random operations against a `BTreeMap`, with the database opened again now and then.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Fixture, contents};
use crate::database::Document;

#[derive(Clone, Debug)]
enum Operation {
    Put(u8, u16),
    Save(u8, u16),
    Delete(u8),
    Purge(u8),
    Batch(Vec<(u8, Option<u16>)>),
    Fill { from: u16, count: u16 },
    Reopen,
    Compact,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        8 => (any::<u8>(), any::<u16>()).prop_map(|(id, n)| Operation::Put(id, n)),
        4 => (any::<u8>(), any::<u16>()).prop_map(|(id, n)| Operation::Save(id, n)),
        3 => any::<u8>().prop_map(Operation::Delete),
        2 => any::<u8>().prop_map(Operation::Purge),
        3 => prop::collection::vec((any::<u8>(), any::<Option<u16>>()), 0..60).prop_map(Operation::Batch),
        1 => (any::<u16>(), 0u16..600).prop_map(|(from, count)| Operation::Fill { from, count }),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Compact),
    ];
    prop::collection::vec(operation, 1..60)
}

fn id(n: u8) -> String {
    // Some share prefixes, some are long.
    if n.is_multiple_of(16) { format!("{}-{n}", "long".repeat(40)) } else { format!("doc-{}", n % 64) }
}

fn body(n: u16) -> Value {
    match n % 8 {
        0 => json!({"n": n, "text": "x".repeat(usize::from(n % 2048) * 3)}),
        1 => json!({"n": n, "reading": f64::from(n) / 10.0, "name": "station"}),
        _ => json!({"n": n}),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map(operations in operations()) {
        let fixture = Fixture::new();
        let mut model: BTreeMap<String, Value> = BTreeMap::new();
        let mut database = fixture.open();
        let mut collection = database.create_collection("model").expect("create");
        let mut last_time = 0;
        for operation in operations {
            match operation {
                Operation::Put(i, n) => {
                    collection.put(&id(i), &body(n)).expect("put");
                    model.insert(id(i), body(n));
                }
                Operation::Save(i, n) => {
                    let read = collection.get(&id(i)).expect("read");
                    prop_assert_eq!(read.as_ref().map(|d| Value::Object(d.body().clone())), model.get(&id(i)).cloned());
                    let mut document = read.unwrap_or_else(|| Document::new(id(i), Default::default()));
                    *document.body_mut() = super::object(body(n));
                    collection.save(&mut document).expect("save");
                    let time = document.revision().expect("saved").current.time;
                    prop_assert!(time > last_time, "the clock went back");
                    last_time = time;
                    model.insert(id(i), body(n));
                }
                Operation::Delete(i) => {
                    let deleted = collection.delete(&id(i)).expect("delete");
                    prop_assert_eq!(deleted, model.remove(&id(i)).is_some());
                }
                Operation::Purge(i) => {
                    collection.purge(&id(i)).expect("purge");
                    model.remove(&id(i));
                }
                Operation::Batch(changes) => {
                    database.batch(|b| changes.iter().try_for_each(|(i, n)| match n {
                        Some(n) => b.put(&collection, &id(*i), &body(*n)),
                        None => b.delete(&collection, &id(*i)),
                    })).expect("batch");
                    for (i, n) in changes {
                        match n {
                            Some(n) => drop(model.insert(id(i), body(n))),
                            None => drop(model.remove(&id(i))),
                        }
                    }
                }
                Operation::Fill { from, count } => {
                    let ids = (from..from.saturating_add(count)).map(|n| (format!("fill-{n:05}"), body(n | 3)));
                    let ids: Vec<_> = ids.collect();
                    database.batch(|b| ids.iter().try_for_each(|(id, body)| b.put(&collection, id, body))).expect("fill");
                    model.extend(ids);
                }
                Operation::Compact => drop(database.compact().expect("compact")),
                Operation::Reopen => {
                    drop((collection, database));
                    database = fixture.open();
                    collection = database.collection("model").expect("still there");
                }
            }
        }
        let expected: Vec<(String, Value)> = model.clone().into_iter().collect();
        prop_assert_eq!(contents(&collection), expected);
        prop_assert_eq!(collection.count(), model.len() as u64);
        check_feed(&collection, &model)?;
        let report = database.verify().expect("verify");
        prop_assert!(report.is_sound(), "{:?}", report);
        prop_assert_eq!(report.documents, model.len() as u64);
    }
}

/// Each living document stands in the feed once, at its revision, in order.
fn check_feed(
    collection: &crate::database::Collection,
    model: &BTreeMap<String, Value>,
) -> Result<(), TestCaseError> {
    let mut since = 0;
    let mut seen = BTreeMap::new();
    loop {
        let page = collection.changes_since(since, 7).expect("changes");
        let Some(last) = page.last() else { break };
        let before = since;
        since = last.sequence;
        for change in page {
            prop_assert!(change.sequence > before);
            let sequence = change.sequence;
            prop_assert!(seen.insert(change.id.clone(), sequence).is_none(), "{} twice", change.id);
            let stored = collection.get(&change.id).expect("read");
            prop_assert_eq!(stored.is_none(), change.deleted);
            prop_assert_eq!(change.deleted, !model.contains_key(&change.id));
            if let Some(document) = stored {
                prop_assert_eq!(document.sequence(), sequence);
                prop_assert_eq!(document.revision(), Some(&change.revision));
            }
        }
    }
    for id in model.keys() {
        prop_assert!(seen.contains_key(id), "{} is missing from the feed", id);
    }
    Ok(())
}
