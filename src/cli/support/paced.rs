//! What peers bring a command to tell: one message of theirs, even of a member, can be one line and one event, so each peer
//! has a rate.
//!
//! What *happened* (a document was refused, there was a conflict, a peer came) is told one by one for the first of each
//! peer, then as often as the rate says, with the number of those between; the number is never left out. What *is* (the
//! state of a connection, what is left out) gives way to a newer one while it waits, and the newest is always told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::support::flood::{BURST, EVERY, Limiter};
use crate::cli::support::output::counted;

/// After the first of them, how often the state of one peer, or the end of a connection, is told. A peer that goes to and fro
/// fills no card.
const STATE_EVERY: Duration = Duration::from_secs(1);

/// States that wait at one time. Only peers that have just been told of a lot have one.
const WAITING_MAX: usize = 1_000;

/// Which of several databases something is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct About {
    pub(crate) database: Arc<str>,
    /// Whether lines for people say so too.
    pub(crate) is_said: bool,
}

/// A peer of one of several databases, or of the only one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Who {
    pub(crate) about: Option<About>,
    /// Empty where only one is meant.
    pub(crate) peer: String,
}

/// What happened to or with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// It has proven who it is.
    Peer,
    /// It was refused.
    Refused,
    /// It has a connection.
    Connected,
    /// A connection has ended.
    End,
    /// Nothing moves with it any more.
    Rest,
    /// Something of a sync that a daemon keeps going.
    Sync,
    /// Something of a radio connection has changed.
    Radio,
    /// It has another secret of the group, or gave one.
    Group,
    /// A collection is not synced with it.
    Collection,
    /// A document was not synced.
    Document,
    /// Both sides had changed a document.
    Conflict,
}

impl Topic {
    /// The name of the event that is counted, for scripts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Topic::Peer => "peer",
            Topic::Refused => "refused",
            Topic::Connected | Topic::End | Topic::Rest | Topic::Sync => "status",
            Topic::Radio => "radio",
            Topic::Group => "group_taken",
            Topic::Collection => "unsynced",
            Topic::Document => "document",
            Topic::Conflict => "conflict",
        }
    }
}

/// What is the case with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    /// How far its connection is.
    Connection,
    /// What the syncs with it leave out.
    Unsynced,
}

/// So many that happened were not told one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suppressed {
    /// What; `None`: of several kinds.
    pub(crate) topic: Option<Topic>,
    /// With which peer; nobody: with several.
    pub(crate) who: Who,
    pub(crate) events: u64,
}

impl Suppressed {
    fn new((kind, events): (Option<(Topic, Who)>, u64)) -> Suppressed {
        let (topic, who) = kind.map_or((None, Who::default()), |(topic, who)| (Some(topic), who));
        Suppressed { topic, who, events }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let peer = &self.who.peer;
        let who = if peer.is_empty() { String::new() } else { format!("{peer}: ") };
        match self.topic {
            Some(Topic::Document) => format!(
                "{who}and {} more that were not synced; `gattway db unsynced` lists them",
                counted(self.events, "document")
            ),
            Some(Topic::Conflict) => {
                format!("{who}and {} more, not shown one by one", counted(self.events, "conflict"))
            }
            _ => format!("{who}{} more like that, not shown one by one", counted(self.events, "event")),
        }
    }
}

/// Decides what is told now, what waits, and what is counted.
pub(crate) struct Paced {
    happened: Limiter<(Topic, Who)>,
    ends: Limiter<(Topic, Who)>,
    states: Limiter<(State, Who)>,
    /// The newest event of each state that could not be told at once.
    waiting: BTreeMap<(State, Who), Vec<u8>>,
    /// States that found no place to wait in, and are not told of yet.
    lost: u64,
}

impl Default for Paced {
    fn default() -> Paced {
        Paced {
            happened: Limiter::new(BURST, EVERY),
            ends: Limiter::new(BURST, STATE_EVERY),
            states: Limiter::new(BURST, STATE_EVERY),
            waiting: BTreeMap::new(),
            lost: 0,
        }
    }
}

impl Paced {
    /// Asks about one more thing that happened. `Some`: it is to be told, after what was left out before it.
    pub(crate) fn ask(&mut self, topic: Topic, who: Who, now: Instant) -> Option<Option<Suppressed>> {
        let kind = (topic, who);
        let limiter = if topic == Topic::End { &mut self.ends } else { &mut self.happened };
        let left_out = limiter.ask(&kind, now)?;
        Some((left_out > 0).then(|| Suppressed::new((Some(kind), left_out))))
    }

    /// Takes the event of a state. Gives it back if it is to be told at once; else the newest waits for
    /// [`due`](Self::due).
    pub(crate) fn offer(&mut self, state: State, who: Who, event: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        let kind = (state, who);
        if self.states.ask(&kind, now).is_some() {
            self.waiting.remove(&kind);
            return Some(event);
        }
        if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&kind) {
            // Whoever comes under ever new names does not make the others wait for nothing.
            self.lost += u64::from(self.waiting.pop_first().is_some());
        }
        self.waiting.insert(kind, event);
        None
    }

    /// A state is over: nothing of it waits any more.
    pub(crate) fn forget(&mut self, state: State, who: Who) {
        self.waiting.remove(&(state, who));
    }

    /// What may be told now though nothing more came: states that have waited, and counts.
    pub(crate) fn due(&mut self, now: Instant) -> (Vec<Vec<u8>>, Vec<Suppressed>) {
        let kinds: Vec<_> = self.waiting.keys().cloned().collect();
        let mut events = Vec::new();
        for kind in kinds {
            if self.states.ask(&kind, now).is_some() {
                events.extend(self.waiting.remove(&kind));
            }
        }
        // Their number is nobody's business: a newer one took their place.
        let _ = self.states.due(now);
        let counts = self.happened.due(now).into_iter().chain(self.ends.due(now));
        let counts = counts.map(Suppressed::new).collect();
        (events, self.with_lost(counts))
    }

    /// Everything that waits, at the end.
    pub(crate) fn rest(&mut self) -> (Vec<Vec<u8>>, Vec<Suppressed>) {
        let events = std::mem::take(&mut self.waiting).into_values().collect();
        let counts = self.happened.rest().into_iter().chain(self.ends.rest());
        let counts = counts.map(Suppressed::new).collect();
        (events, self.with_lost(counts))
    }

    fn with_lost(&mut self, mut counts: Vec<Suppressed>) -> Vec<Suppressed> {
        let lost = std::mem::take(&mut self.lost);
        counts.extend((lost > 0).then(|| Suppressed::new((None, lost))));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(peer: impl ToString) -> Who {
        Who { about: None, peer: peer.to_string() }
    }

    /// A peer causes `causes` of everything within `took`, with a look at what is due ten times a second. Gives how many
    /// events were written of what happened (with the counts), and of states; asserts that nothing is lost.
    fn run(causes: u32, took: Duration) -> (u64, u64) {
        let (mut paced, began) = (Paced::default(), Instant::now());
        let (mut told, mut counted, mut states) = (0, 0, Vec::new());
        let mut looked = began;
        let count = |suppressed: Vec<Suppressed>, told: &mut u64, counted: &mut u64| {
            *told += suppressed.len() as u64;
            *counted += suppressed.iter().map(|suppressed| suppressed.events).sum::<u64>();
        };
        for n in 0..causes {
            let now = began + took.mul_f64(f64::from(n) / f64::from(causes));
            if now.duration_since(looked) >= Duration::from_millis(100) {
                looked = now;
                let (events, suppressed) = paced.due(now);
                states.extend(events);
                count(suppressed, &mut told, &mut counted);
            }
            if let Some(before) = paced.ask(Topic::Document, who("peer"), now) {
                (told, counted) = (told + 1, counted + 1);
                count(before.into_iter().collect(), &mut told, &mut counted);
            }
            states.extend(paced.offer(State::Connection, who("peer"), n.to_be_bytes().to_vec(), now));
        }
        let (events, suppressed) = paced.rest();
        states.extend(events);
        count(suppressed, &mut told, &mut counted);
        assert_eq!(counted, u64::from(causes), "each was told or counted");
        assert!(states.is_sorted(), "an older state never comes after a newer one");
        assert_eq!(states.last(), Some(&(causes - 1).to_be_bytes().to_vec()), "the newest was told");
        assert!(paced.waiting.is_empty());
        (told, states.len() as u64)
    }

    #[test]
    fn what_a_peer_causes_is_a_trickle_counted_whole_and_the_newest_state_is_told() {
        let (told, states) = run(200_000, Duration::from_secs(60));
        assert!(told <= u64::from(BURST) + 2 * 10 + 1, "{told}");
        assert!(states <= u64::from(BURST) + 60 + 1, "{states}");
        // Who causes little is told whole.
        assert_eq!(run(15, Duration::from_secs(1)), (15, 15));
        assert_eq!(run(600, Duration::from_secs(3_600)), (600, 600));
    }

    #[test]
    fn peers_and_topics_are_counted_apart_and_names_without_end_hold_little() {
        let (mut paced, now) = (Paced::default(), Instant::now());
        for _ in 0..50 {
            let _ = paced.ask(Topic::Document, who("hostile"), now);
        }
        assert_eq!(paced.ask(Topic::Document, who("honest"), now), Some(None));
        assert_eq!(paced.ask(Topic::Conflict, who("hostile"), now), Some(None));
        let (_, left_out) = paced.rest();
        let [all] = &left_out[..] else { panic!("{left_out:?}") };
        assert_eq!((all.topic, all.who.peer.as_str(), all.events), (Some(Topic::Document), "hostile", 30));
        assert!(all.text().starts_with("hostile: and 30 documents more that were not"), "{}", all.text());
        let mut told = 0;
        for n in 0..100 * WAITING_MAX {
            told += usize::from(paced.offer(State::Unsynced, who(n), vec![0], now).is_some());
        }
        assert!(paced.waiting.len() <= WAITING_MAX);
        let (events, left_out) = paced.rest();
        let lost = left_out.iter().map(|left_out| left_out.events as usize).sum::<usize>();
        assert_eq!(told + events.len() + lost, 100 * WAITING_MAX, "each was told or counted");
    }
}
