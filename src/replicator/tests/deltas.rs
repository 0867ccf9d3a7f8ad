//! Changed documents that travel as deltas.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::exchange::{active, errors, passive, stores};
use super::for_seeds;
use super::memory_store::MemoryStore;
use super::pair::Pair;
use super::scripted::{NEW, OTHER, pulling_to, request};
use crate::blip::{Event, OutgoingMessage};
use crate::replicator::config::*;

fn document(random: &mut fastrand::Rng, n: u64) -> Value {
    // Noise, or what went over before would be all that deflate needs.
    let text = |random: &mut fastrand::Rng| {
        (0..random.usize(..900)).map(|_| random.alphanumeric()).collect::<String>()
    };
    json!({"n": n, "a": text(random), "b": [text(random), n], "c": {"d": text(random), "e": n}})
}

fn edit(random: &mut fastrand::Rng, body: &str, n: u64) -> String {
    let mut body: Value = serde_json::from_str(body).expect("JSON");
    match random.u8(..6) {
        0 => body = document(random, n),
        1 => body["b"].as_array_mut().expect("a list").push(n.into()),
        2 => body["a"] = format!("{}{n}", body["a"].as_str().unwrap_or_default()).into(),
        3 => drop(body.as_object_mut().expect("an object").remove("a")),
        4 => body["c"] = json!({"d": {"e": n}, "e": -0.0}),
        _ => body["n"] = n.into(),
    }
    body.to_string()
}

fn run(seed: u64, a: &Arc<MemoryStore>, p: &Arc<MemoryStore>, deltas: (bool, bool)) -> (u64, Pair) {
    let config = ActiveConfig { deltas: deltas.0, ..active(ReplicatorType::PushAndPull, false) };
    let other = PassiveConfig { deltas: deltas.1, ..passive(false) };
    let mut pair = Pair::new(seed, config, other, a, p);
    pair.run().expect("a clean end");
    (pair.a.bytes_out + pair.p.bytes_out, pair)
}

/// The same edits on both sides with deltas, without, and with one side alone that knows them: always the same documents, and
/// never more bytes with them.
#[test]
fn both_sides_become_equal_with_fewer_bytes() {
    for_seeds(25, |seed| {
        let mut bytes = Vec::new();
        for deltas in [(true, true), (false, false), (true, false), (false, true)] {
            let (a, p) = stores();
            let mut random = fastrand::Rng::with_seed(seed);
            (0..6).for_each(|n| a.put(&format!("a{n}"), &document(&mut random, n).to_string()));
            (0..6).for_each(|n| p.put(&format!("p{n}"), &document(&mut random, n).to_string()));
            let mut sum = 0;
            for round in 0..5 {
                for (n, store) in [&a, &p, &a, &a, &p].into_iter().enumerate() {
                    let id = format!("{}{}", random.choice(["a", "p"]).expect("one"), random.u8(..6));
                    if let Some(body) = store.body(&id) {
                        let body = edit(&mut random, &body, round * 10 + n as u64);
                        store.put(&id, &body);
                    }
                }
                // A conflict is pushed by the next run.
                for part in 0..2 {
                    let (bytes, pair) = run(seed * 100 + round * 2 + part, &a, &p, deltas);
                    assert_eq!(errors(&pair), [""; 0]);
                    sum += bytes;
                }
                assert_eq!(a.dump(0), p.dump(0), "round {round}, {deltas:?}");
            }
            bytes.push(sum);
        }
        let [with, without, ..] = bytes[..] else { unreachable!() };
        assert!(with < without, "{bytes:?}");
    });
}

/// One field of a document of 10 KB: the figures of both ways.
#[test]
fn a_changed_field_costs_no_document() {
    for direction in [ReplicatorType::Push, ReplicatorType::Pull] {
        let mut costs = Vec::new();
        for deltas in [true, false] {
            let (a, p) = stores();
            let (from, to) = if direction == ReplicatorType::Push { (&a, &p) } else { (&p, &a) };
            let mut random = fastrand::Rng::with_seed(7);
            let noise: String = (0..10_000).map(|_| random.alphanumeric()).collect();
            to.put("d", &json!({"n": 1, "noise": noise}).to_string());
            // Both have it from the other side, so that both know what the other has.
            run(1, &a, &p, (deltas, deltas));
            from.put("d", &json!({"n": 2, "noise": noise}).to_string());
            let config = ActiveConfig { deltas, ..active(direction, false) };
            let mut pair = Pair::new(2, config, PassiveConfig { deltas, ..passive(false) }, &a, &p);
            pair.run().expect("a clean end");
            assert_eq!(a.dump(0), p.dump(0));
            costs.push(pair.a.bytes_out + pair.p.bytes_out);
        }
        assert!(costs[0] < 1_500 && costs[1] > 7_000, "{direction:?}: {costs:?}");
    }
}

/// A receiver that does not know the base any more gets the whole document, and nobody calls it a failure.
#[test]
fn a_base_that_is_not_there_is_made_up_for_by_the_whole_document() {
    for direction in [ReplicatorType::Push, ReplicatorType::Pull] {
        let (a, p) = stores();
        let (from, to) = if direction == ReplicatorType::Push { (&a, &p) } else { (&p, &a) };
        let body = |n: u64| document(&mut fastrand::Rng::with_seed(3), n).to_string();
        (0..5).for_each(|n| to.put(&format!("d{n}"), &body(n)));
        run(1, &a, &p, (true, true));
        (0..5).for_each(|n| from.put(&format!("d{n}"), &body(n + 10)));
        to.loses_bases.store(true, Ordering::Relaxed);
        let config = ActiveConfig { report_documents: true, ..active(direction, false) };
        let mut pair = Pair::new(2, config, passive(false), &a, &p);
        pair.run().expect("a clean end");
        assert_eq!(a.dump(0), p.dump(0));
        assert_eq!(errors(&pair), [""; 0], "{direction:?}");
        // And it is done with: nothing is listed again.
        let (bytes, pair) = run(3, &a, &p, (true, true));
        assert!(bytes < 1_200 && errors(&pair).is_empty(), "{direction:?}: {bytes} bytes");
    }
}

/// A peer that sends a delta on what is not here, and then the whole document, message by message.
#[test]
fn a_delta_on_what_is_not_here_is_answered_422_and_its_place_is_kept() {
    let store = Arc::new(MemoryStore::new(1));
    let config = ActiveConfig { extension: false, ..ActiveConfig::default() };
    let mut scripted = pulling_to(store.clone(), config);
    let list = request("changes").with_body(format!("[[5,\"x\",\"{NEW}\"]]"));
    let reply = scripted.ask(list).0.expect("answered").expect("taken");
    assert!(reply.properties.get_bool("deltas"), "{reply:?}");
    let rev = || request("rev").with("id", "x").with("rev", NEW).with("sequence", "5");
    assert_eq!(scripted.code(rev().with("deltaSrc", OTHER).with_body(r#"{"n":2}"#)), "HTTP/422");
    assert_eq!(store.count(), 0);
    assert_eq!(scripted.code(rev().with_body(r#"{"n":2}"#)), "");
    assert_eq!(store.body("x").as_deref(), Some(r#"{"n":2}"#));
    // The feed ends: the position is where the document is.
    scripted
        .peer
        .send_request(OutgoingMessage { no_reply: true, ..request("changes").with_body("[]") })
        .expect("small");
    let mut checkpoint = None;
    for event in scripted.settle() {
        if let Event::Request(request) = event
            && request.profile() == "setCheckpoint"
        {
            checkpoint = Some(serde_json::from_slice::<Value>(&request.body).expect("JSON"));
        }
    }
    assert_eq!(checkpoint.map(|body| body["remote"].clone()), Some(json!(5)));
}
