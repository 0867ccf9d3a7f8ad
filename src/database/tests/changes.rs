//! The change feed as a stream.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use serde_json::json;

use super::Fixture;
use crate::database::{Changes, DatabaseError};

/// The IDs that are there to be read now.
fn ready(changes: &mut Changes) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        match pin!(changes.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(change)) => ids.push(change.expect("readable").id),
            Poll::Ready(None) => panic!("the stream has ended"),
            Poll::Pending => return ids,
        }
    }
}

#[test]
fn a_stream_of_changes_gives_what_is_there_and_then_what_comes() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let readings = database.create_collection("plant.readings").expect("create");
    for n in 0..250 {
        readings.put(&format!("{n:03}"), &json!({ "n": n })).expect("put");
    }
    let (mut all, mut newer) = (readings.changes(0), readings.changes(248));
    assert_eq!(ready(&mut newer), ["248", "249"]);
    let ids = ready(&mut all);
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (250, 250));
    assert!(ids.is_sorted(), "in the order in which they were made");

    // Also by the trait.
    let mut stream = readings.changes(249);
    let polled = Stream::poll_next(std::pin::Pin::new(&mut stream), &mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Some(Ok(change))) if change.id == "249"));

    // Another collection wakes it for nothing.
    database.create_collection("plant.notes").expect("create").put("x", &json!({})).expect("put");
    assert_eq!(ready(&mut all), Vec::<String>::new());

    readings.put("new", &json!({})).expect("put");
    readings.delete("007").expect("delete");
    assert_eq!(ready(&mut all), ["new", "007"]);
    assert_eq!(ready(&mut newer), ["new", "007"]);
}

#[tokio::test]
async fn who_waits_for_a_change_is_woken_and_an_error_ends_the_stream() {
    let fixture = Fixture::new();
    let database = fixture.open();
    let readings = database.create_collection("plant.readings").expect("create");
    let mut changes = readings.changes(0);
    let waiting = tokio::spawn(async move {
        let change = changes.next().await.expect("a change").expect("readable");
        (change, changes)
    });
    tokio::task::yield_now().await;
    readings.put("boiler", &json!({ "celsius": 71.5 })).expect("put");
    let (change, mut changes) = waiting.await.expect("it does not panic");
    assert_eq!((change.id.as_str(), change.deleted), ("boiler", false));

    database.delete_collection("plant.readings").expect("delete");
    let error = changes.next().await.expect("an error").expect_err("the collection is gone");
    assert!(matches!(error, DatabaseError::UnknownCollection { .. }), "{error:?}");
    assert!(changes.next().await.is_none());
}
