//! Peers that are not ours, speaking BLIP to a listener.

use std::time::Duration;

use super::pair::Pair;
use super::scripted::{Script, Scripted};
use crate::blip::{BlipConfig, Connection, Event, OutgoingMessage};
use crate::endpoint::ProtocolType::MessageStream;
use crate::replicator::ReplicatorError;
use crate::replicator::service::status::lock;

/// What a listener answers to one request of a peer that is not ours, and how the connection ends.
async fn ask_listener(pair: &Pair, requests: Vec<OutgoingMessage>) -> (Vec<Event>, Option<ReplicatorError>) {
    let scripted = Scripted::new(Script::default());
    pair.listener.accept(scripted.clone()).expect("accepted");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut blip = Connection::new(BlipConfig::default());
    for request in requests {
        blip.send_request(request).expect("sent");
    }
    while let Some(frame) = blip.poll_frame() {
        scripted.handle().receive(frame.into()).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let open = !pair.listener.connections().is_empty();
    if open {
        scripted.handle().close(None);
    }
    let error = pair.last_error().await;
    for message in &lock(&scripted.calls).sent {
        blip.handle_frame(message).expect("a correct frame");
    }
    (std::iter::from_fn(|| blip.poll_event()).collect(), error)
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_another_generation_is_refused() {
    let pair = Pair::new(MessageStream, |_| {});
    let collections = OutgoingMessage::request("getCollections")
        .with_body(r#"{"checkpoint_ids":["x"],"collections":["_default"]}"#);
    let subscribe =
        OutgoingMessage::request("subChanges").with("collection", "0").with("versioning", "rev-trees");
    let (events, error) = ask_listener(&pair, vec![collections, subscribe]).await;
    let refusal = events.iter().find_map(|event| match event {
        Event::Reply { result: Err(error), .. } => Some((error.domain.clone(), error.code)),
        _ => None,
    });
    assert_eq!(refusal, Some(("LiteCore".into(), 501)), "{events:?}");
    // It hears why and may still do what does not depend on it; hanging up is up to the peer.
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_of_ours_ends_the_connection_or_is_refused() {
    let unknown = OutgoingMessage::request("makeCoffee");
    let wrong_collection = OutgoingMessage::request("changes").with("collection", "7").with_body("[]");
    let pair = Pair::new(MessageStream, |_| {});
    let (events, _) = ask_listener(&pair, vec![unknown, wrong_collection]).await;
    let refusals: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Reply { result: Err(error), .. } => Some((error.domain.as_str(), error.code)),
            _ => None,
        })
        .collect();
    assert_eq!(refusals, [("BLIP", 404), ("HTTP", 400)], "{events:?}");
}
