//! What the gateway has told, and how that changed.

use std::collections::VecDeque;

use crate::gateway::status::{DatabaseStatus, GatewayStatus};

/// How many differences are remembered: more than a wide terminal has columns.
const DIFFERENCES_MAX: usize = 400;

/// The newest state, and what went before.
pub(super) struct History {
    pub(super) status: GatewayStatus,
    /// Why the gateway did not answer last, until it does.
    pub(super) missing: Option<String>,
    /// Documents that went over between one answer and the next, a second; the newest last.
    rates: VecDeque<u64>,
}

/// Something that fails, and why.
#[derive(Debug, PartialEq)]
pub(super) struct Failure<'a> {
    pub(super) what: String,
    pub(super) failures: u64,
    pub(super) reason: &'a str,
}

impl History {
    pub(super) fn new(status: GatewayStatus) -> History {
        History { status, missing: None, rates: VecDeque::new() }
    }

    /// Takes a new answer.
    pub(super) fn take(&mut self, status: GatewayStatus) {
        self.missing = None;
        // Of another process the counts begin again.
        if status.process == self.status.process {
            let seconds = status.now_s.saturating_sub(self.status.now_s).max(1);
            let moved = moved(&status).saturating_sub(moved(&self.status));
            self.note(moved.div_ceil(seconds));
        }
        self.status = status;
    }

    /// The gateway did not answer.
    pub(super) fn miss(&mut self, error: String) {
        self.missing = Some(error);
        self.note(0);
    }

    fn note(&mut self, rate: u64) {
        if self.rates.len() >= DIFFERENCES_MAX {
            self.rates.pop_front();
        }
        self.rates.push_back(rate);
    }

    /// The newest so many rates, the newest last.
    pub(super) fn rates(&self, len: usize) -> Vec<u64> {
        self.rates.iter().skip(self.rates.len().saturating_sub(len)).copied().collect()
    }

    /// What fails now, as the gateway tells it.
    pub(super) fn failures(&self) -> Vec<Failure<'_>> {
        let http = self.status.http.iter().filter(|http| !http.listening);
        let mut found: Vec<Failure<'_>> =
            http.filter_map(|http| failure("http".into(), http.failures, http.error.as_deref())).collect();
        for database in &self.status.databases {
            found.extend(of_database(database));
        }
        found
    }
}

fn failure(what: String, failures: u64, reason: Option<&str>) -> Option<Failure<'_>> {
    reason.map(|reason| Failure { what, failures, reason })
}

fn of_database(database: &DatabaseStatus) -> impl Iterator<Item = Failure<'_>> {
    let named = |kind: &str, name: &str| format!("{kind} {name}");
    let itself = failure(named("database", &database.name), database.failures, database.error.as_deref());
    let full = database.full.then(|| Failure {
        what: named("database", &database.name),
        failures: database.failures,
        reason: "no room: nothing is stored until there is some",
    });
    let listeners = database
        .listeners
        .iter()
        .filter(|listener| !listener.listening)
        .filter_map(move |l| failure(named("listener", &l.name), l.failures, l.error.as_deref()));
    let upstreams = database
        .upstreams
        .iter()
        .filter_map(move |u| failure(named("upstream", &u.name), u.failures, u.error.as_deref()));
    let brokers = database
        .mqtt
        .iter()
        .filter_map(move |m| failure(named("mqtt", &m.name), m.failures, m.error.as_deref()));
    let rules = database.retention.iter().filter_map(move |r| {
        failure(named("retention", &r.name), 1, r.error.as_deref().or(r.held.as_deref()))
    });
    let neighbours = database
        .neighbours
        .iter()
        .filter_map(move |n| failure(named("neighbour", &n.name), n.failures, n.error.as_deref()));
    itself
        .into_iter()
        .chain(full)
        .chain(listeners)
        .chain(upstreams)
        .chain(brokers)
        .chain(rules)
        .chain(neighbours)
}

/// Documents that have gone over in all syncs since the start, and messages.
fn moved(status: &GatewayStatus) -> u64 {
    let of_database = |database: &DatabaseStatus| -> u64 {
        let upstreams = database.upstreams.iter().map(|upstream| upstream.documents);
        let neighbours = database.neighbours.iter().map(|neighbour| neighbour.documents);
        let brokers = database.mqtt.iter().map(|mqtt| mqtt.published.saturating_add(mqtt.received));
        upstreams.chain(neighbours).chain(brokers).sum()
    };
    status.databases.iter().map(of_database).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::status::{NeighbourStatus, RetentionStatus, UpstreamStatus};

    fn status(process: u32, now_s: u64, documents: u64) -> GatewayStatus {
        let upstream = UpstreamStatus { name: "cloud".into(), documents, ..UpstreamStatus::default() };
        let database = DatabaseStatus { upstreams: vec![upstream], ..DatabaseStatus::default() };
        GatewayStatus {
            version: "1".into(),
            process,
            since_s: 0,
            now_s,
            config: "c".into(),
            databases: vec![database],
            http: None,
            medium: None,
        }
    }

    #[test]
    fn documents_are_told_by_the_second_and_a_restart_is_no_rate() {
        let mut history = History::new(status(1, 10, 100));
        history.take(status(1, 12, 140));
        history.miss("gone".into());
        assert_eq!((history.rates(9), history.missing.as_deref()), (vec![20, 0], Some("gone")));
        // Of the new process they count from 0; a gateway that was asked twice within a second divides by one.
        history.take(status(2, 20, 5));
        history.take(status(2, 20, 8));
        assert_eq!((history.rates(9), history.missing.as_deref()), (vec![20, 0, 3], None));
        assert_eq!(history.rates(2), [0, 3], "the newest");
        (0..2 * DIFFERENCES_MAX).for_each(|_| history.miss(String::new()));
        assert_eq!(history.rates(usize::MAX).len(), DIFFERENCES_MAX);
    }

    #[test]
    fn all_that_fails_is_found_with_its_reason() {
        let mut of = status(1, 10, 0);
        let database = &mut of.databases[0];
        (database.name, database.full) = ("plant".into(), true);
        database.upstreams[0].error = Some("refused".into());
        database.retention = vec![RetentionStatus {
            name: "old".into(),
            held: Some("not confirmed".into()),
            ..Default::default()
        }];
        let heard = |name: &str, error: Option<&str>| NeighbourStatus {
            name: name.into(),
            error: error.map(Into::into),
            failures: 3,
            ..NeighbourStatus::default()
        };
        database.neighbours = vec![heard("good", None), heard("bad", Some("denied"))];
        let history = History::new(of);
        let found: Vec<String> =
            history.failures().iter().map(|f| format!("{} ({}): {}", f.what, f.failures, f.reason)).collect();
        let expected = [
            "database plant (0): no room: nothing is stored until there is some",
            "upstream cloud (0): refused",
            "retention old (1): not confirmed",
            "neighbour bad (3): denied",
        ];
        assert_eq!(found, expected);
    }
}
