//! Our active and our passive side each hold the other half of conversations that two instances of a real Couchbase
//! Lite core had: every recorded one with version vectors that needs no blobs and no deltas.

#[macro_use]
#[path = "../support/delegate.rs"]
mod delegate;

mod half;
mod normal;
mod probes;
#[path = "../support/recording.rs"]
#[allow(dead_code)] // other tests use the rest of it
mod recording;
mod replica;
mod scenario;

use gattway::replicator::error::SessionError;
use half::Half;
use recording::Side;
use scenario::Scenario;

/// Recordings that one of our sides cannot take part in, and why.
const NOT_PLAYED: [(&str, Side, &str); 2] = [
    ("channels-vv", Side::Active, "our active side knows no channels of a server"),
    ("wrong-versioning-vv", Side::Passive, "the recorded passive side keeps rev-trees"),
];

/// Plays a side of every conversation; gives how many there were and how many messages of ours were compared.
fn play_all(us: Side) -> (usize, usize) {
    let (mut conversations, mut compared) = (0, 0);
    let mut differences = Vec::new();
    for name in recording::conversation_names() {
        let stem = name.strip_suffix("-vv");
        let is_ours = stem.is_some_and(|stem| !stem.starts_with("blob") && stem != "delta");
        if !is_ours || NOT_PLAYED.iter().any(|(other, side, _)| (*other, *side) == (&name, us)) {
            continue;
        }
        let scenario = Scenario::read(&name);
        let outcome = Half::new(&scenario, us).play();
        conversations += 1;
        compared += outcome.compared;
        differences.extend(outcome.differences.into_iter().map(|difference| format!("{name}: {difference}")));
        if let Some(unexpected) = check_end(&scenario, us, &outcome.finished) {
            differences.push(format!("{name}: {unexpected}"));
        }
    }
    assert!(differences.is_empty(), "{us:?} side:\n{}", differences.join("\n"));
    (conversations, compared)
}

/// Our active side ends as the recorded one did; our passive side has no end of its own.
fn check_end(scenario: &Scenario, us: Side, finished: &Option<Result<(), SessionError>>) -> Option<String> {
    let expected = match (us, scenario.succeeds(), finished) {
        (Side::Active, true, Some(Ok(()))) | (Side::Active, false, Some(Err(_))) => true,
        // It was refused one direction and goes on with the other, of which nothing is recorded.
        (Side::Active, false, None) => scenario.name == "passive-nopush-vv",
        (Side::Passive, _, None) => true,
        _ => false,
    };
    (!expected).then(|| format!("ends with {finished:?}"))
}

#[test]
fn our_active_side_speaks_with_the_recorded_passive_side() {
    let (conversations, compared) = play_all(Side::Active);
    assert!(conversations >= 49, "only {conversations} conversations");
    assert!(compared > 690, "only {compared} messages compared");
}

#[test]
fn our_passive_side_speaks_with_the_recorded_active_side() {
    let (conversations, compared) = play_all(Side::Passive);
    assert!(conversations >= 49, "only {conversations} conversations");
    assert!(compared > 820, "only {compared} messages compared");
}
