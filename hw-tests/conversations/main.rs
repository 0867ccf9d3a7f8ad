//! Our active and our passive side each hold the other half of conversations that two instances of a real Couchbase
//! Lite core had: every recorded one, with version vectors and with revision trees.

#[macro_use]
#[path = "../support/delegate.rs"]
mod delegate;

mod different;
mod half;
mod normal;
mod probes;
#[path = "../support/recording.rs"]
#[allow(dead_code)] // other tests use the rest of it
mod recording;
mod replica;
mod scenario;
mod stream_probes;

use different::DIFFERENT;
use gattway::lab::replicator::error::SessionError;
use half::Half;
use recording::Side;
use scenario::Scenario;

/// Plays a side of every conversation; gives how many there were and how many messages of ours were compared.
fn play_all(us: Side) -> (usize, usize) {
    let (mut conversations, mut compared) = (0, 0);
    let mut differences = Differences::of(us);
    for name in recording::conversation_names() {
        let scenario = Scenario::read(&name);
        let outcome = Half::new(&scenario, us).play();
        conversations += 1;
        compared += outcome.compared;
        let unexpected_end = check_end(&scenario, us, &outcome.finished);
        outcome.differences.into_iter().chain(unexpected_end).for_each(|text| differences.add(&name, text));
    }
    differences.check();
    (conversations, compared)
}

/// Differences found, apart from those that are listed.
struct Differences {
    us: Side,
    unlisted: Vec<String>,
    /// For each entry of the list whether it was met.
    met: Vec<bool>,
}

impl Differences {
    fn of(us: Side) -> Differences {
        Differences { us, unlisted: Vec::new(), met: vec![false; DIFFERENT.len()] }
    }

    fn add(&mut self, name: &str, text: String) {
        let listed = DIFFERENT.iter().position(|(recording, side, start, _)| {
            (*recording, *side) == (name, self.us) && text.starts_with(start)
        });
        match listed {
            Some(at) => self.met[at] = true,
            None => self.unlisted.push(format!("{name}: {text}")),
        }
    }

    fn check(&self) {
        assert!(self.unlisted.is_empty(), "{:?} side:\n{}", self.us, self.unlisted.join("\n"));
        for ((name, side, start, _), met) in DIFFERENT.iter().zip(&self.met) {
            assert!(*met || *side != self.us, "{name}: listed as different, but is not: {start}");
        }
    }
}

/// Our active side ends as the recorded one did; our passive side has no end of its own.
fn check_end(scenario: &Scenario, us: Side, finished: &Option<Result<(), SessionError>>) -> Option<String> {
    let expected = match (us, scenario.succeeds(), finished) {
        (Side::Active, true, Some(Ok(()))) | (Side::Active, false, Some(Err(_))) => true,
        // It was refused one direction and goes on with the other, of which nothing is recorded.
        (Side::Active, false, None) => scenario.name.starts_with("passive-nopush-"),
        (Side::Passive, _, None) => true,
        _ => false,
    };
    (!expected).then(|| format!("ends with {finished:?}"))
}

#[test]
fn our_active_side_speaks_with_the_recorded_passive_side() {
    let (conversations, compared) = play_all(Side::Active);
    assert!(conversations >= 143, "only {conversations} conversations");
    assert!(compared > 1_580, "only {compared} messages compared");
}

#[test]
fn our_passive_side_speaks_with_the_recorded_active_side() {
    let (conversations, compared) = play_all(Side::Passive);
    assert!(conversations >= 143, "only {conversations} conversations");
    assert!(compared > 1_940, "only {compared} messages compared");
}
