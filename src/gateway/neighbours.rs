//! The neighbours of one database: who came, who is visited, and what became of it.
//!
//! A neighbour has one row. It is found by the ID that it has proven; before it has proven it, by what its advert says, if that is
//! what it said when it proved the ID last.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counted::Counted;
use super::status::{NeighbourStatus, now_s};
use crate::replicator::{ReplicatorActivity, ReplicatorStatus};

/// Neighbours that are kept in mind; beyond them the one that was heard longest ago is forgotten.
const NEIGHBOURS_MAX: usize = 1_000;

/// A sync with neighbours, and the address by which it visits one of them.
pub(super) type VisitKey = (String, Arc<str>);

/// All neighbours of one database.
#[derive(Default)]
pub(super) struct Neighbours {
    /// By the proven ID, else by what they say they are.
    rows: BTreeMap<String, Row>,
    /// The row of each connection that came.
    connections: BTreeMap<u64, String>,
    /// Whom each sync visits now.
    visits: BTreeMap<VisitKey, Visited>,
}

#[derive(Default)]
struct Row {
    status: NeighbourStatus,
    counted: Counted,
    /// What its advert said when it proved its ID last.
    advertised: Option<Arc<str>>,
}

/// A neighbour that is visited.
struct Visited {
    /// Its row.
    key: String,
    /// What people call it, by its advert.
    name: String,
    advertised: Arc<str>,
}

impl Row {
    fn take(&mut self, status: &ReplicatorStatus) {
        self.status.take(status, &mut self.counted);
    }
}

impl Neighbours {
    /// All, as they are shown.
    pub(super) fn all(&self) -> Vec<NeighbourStatus> {
        self.rows.values().map(|row| row.status.clone()).collect()
    }

    /// Nobody is connected any more.
    pub(super) fn leave(&mut self) {
        self.connections.clear();
        self.visits.clear();
        self.rows.values_mut().for_each(|row| row.status.connected = false);
    }

    /// A peer is there now; `None`: there is no room for it.
    fn meet(&mut self, key: String, name: &str, id: Option<String>) -> Option<&mut Row> {
        if !self.rows.contains_key(&key) && self.rows.len() >= NEIGHBOURS_MAX {
            let gone = self.rows.iter().filter(|(_, row)| !row.status.connected);
            // Whoever proves nothing can come under any number of names; those who do are not to be forgotten for it.
            let first = |row: &Row| (row.status.id.is_some(), row.status.last_heard_s);
            let oldest = gone.min_by_key(|(_, row)| first(row)).map(|(key, _)| key.clone())?;
            self.rows.remove(&oldest);
        }
        let row = self.rows.entry(key).or_default();
        name.clone_into(&mut row.status.name);
        row.status.id = id.or(row.status.id.take());
        row.status.last_heard_s = now_s();
        row.counted = Counted::default();
        Some(row)
    }

    /// A peer has connected; `uid` is what it has proven.
    pub(super) fn connected(&mut self, connection: u64, peer: &str, uid: Option<String>) {
        let key = uid.clone().unwrap_or_else(|| peer.to_owned());
        self.connections.insert(connection, key.clone());
        if let Some(row) = self.meet(key, peer, uid) {
            row.status.connected = true;
        }
    }

    /// How it stands with a connection that came; gives how many documents went over since the last time.
    pub(super) fn status(&mut self, connection: u64, status: &ReplicatorStatus) -> u64 {
        let Some(key) = self.connections.get(&connection).cloned() else { return 0 };
        if status.activity == ReplicatorActivity::Stopped {
            self.connections.remove(&connection);
        }
        let others = self.connections.values().any(|other| *other == key);
        let Some(row) = self.rows.get_mut(&key) else { return 0 };
        let before = row.status.documents;
        row.take(status);
        row.status.connected |= others;
        row.status.documents.saturating_sub(before)
    }

    /// A peer that has connected was not let in.
    pub(super) fn declined(&mut self, connection: u64, error: &str) {
        let Some(key) = self.connections.remove(&connection) else { return };
        if let Some(Row { status, .. }) = self.rows.get_mut(&key) {
            status.failures += 1;
            status.error = Some(error.to_owned());
            status.connected = false;
        }
    }

    /// A neighbour is connected to.
    pub(super) fn visit(&mut self, visit: VisitKey, name: &str, advertised: &Arc<str>) {
        let proven = self.rows.iter().find(|(_, row)| row.advertised.as_ref() == Some(advertised));
        let (key, id, shown) = match proven {
            Some((id, row)) => (id.clone(), Some(id.clone()), row.status.name.clone()),
            None => (advertised.to_string(), None, name.to_owned()),
        };
        self.meet(key.clone(), &shown, id);
        self.visits.insert(visit, Visited { key, name: name.to_owned(), advertised: Arc::clone(advertised) });
    }

    /// A neighbour that is visited has proven its ID.
    pub(super) fn prove(&mut self, visit: &VisitKey, id: String, name: Option<&str>) {
        let Some(visited) = self.visits.get_mut(visit) else { return };
        let before = std::mem::replace(&mut visited.key, id.clone());
        let name = name.unwrap_or(&visited.name).to_owned();
        let advertised = Arc::clone(&visited.advertised);
        if before != id
            && let Some(row) = self.rows.get_mut(&before)
        {
            // It was taken for another one, or had a row only until now.
            row.advertised = None;
            row.status.connected = self.connections.values().any(|other| *other == before);
            if row.status.id.is_none() {
                self.rows.remove(&before);
            }
        }
        if let Some(row) = self.meet(id.clone(), &name, Some(id)) {
            (row.status.connected, row.advertised) = (true, Some(advertised));
        }
    }

    /// How it stands with a visit.
    pub(super) fn visit_status(&mut self, visit: &VisitKey, status: &ReplicatorStatus) {
        let key = self.visits.get(visit).map(|visited| &visited.key);
        if let Some(row) = key.and_then(|key| self.rows.get_mut(key)) {
            row.take(status);
        }
    }

    /// What people call who is visited.
    pub(super) fn visited_name(&self, visit: &VisitKey) -> Option<String> {
        self.visits.get(visit).map(|visited| visited.name.clone())
    }

    /// Adds the signal strength of those that are visited to what is shown of them.
    #[cfg(feature = "bluetooth")]
    pub(super) fn hear(&self, radio: &[crate::node::RadioStatus], shown: &mut [NeighbourStatus]) {
        for ((_, address), visited) in &self.visits {
            let connection = radio.iter().find(|connection| address.ends_with(connection.peer.as_str()));
            let at = self.rows.keys().position(|key| *key == visited.key);
            if let (Some(connection), Some(row)) = (connection, at.and_then(|at| shown.get_mut(at))) {
                row.rssi_dbm = connection.rssi_dbm;
            }
        }
    }

    /// How a visit has ended.
    pub(super) fn visit_ended(&mut self, visit: &VisitKey, status: &ReplicatorStatus) {
        self.visit_status(visit, status);
        self.visits.remove(visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of each: whether it has proven an ID, and whether it is connected.
    fn shown(neighbours: &Neighbours) -> Vec<(bool, bool)> {
        neighbours.all().iter().map(|neighbour| (neighbour.id.is_some(), neighbour.connected)).collect()
    }

    fn is(activity: ReplicatorActivity) -> ReplicatorStatus {
        ReplicatorStatus::new(activity)
    }

    #[test]
    fn a_neighbour_that_is_connected_to_again_is_shown_once() {
        let mut neighbours = Neighbours::default();
        let visit: VisitKey = ("bluetooth.here".into(), "ble:any".into());
        let begin = |neighbours: &mut Neighbours| {
            neighbours.visit(visit.clone(), "pump (00:11)", &"ble:device:1".into());
            neighbours.visit_status(&visit, &is(ReplicatorActivity::Connecting));
            shown(neighbours)
        };
        assert_eq!(begin(&mut neighbours), [(false, false)]);
        neighbours.prove(&visit, "id-1".into(), None);
        assert_eq!(shown(&neighbours), [(true, true)]);
        neighbours.visit_ended(&visit, &is(ReplicatorActivity::Stopped));
        assert_eq!(shown(&neighbours), [(true, false)]);
        // Before it proves it again.
        assert_eq!(begin(&mut neighbours), [(true, false)]);
        neighbours.visit_status(&visit, &is(ReplicatorActivity::Busy));
        assert_eq!(shown(&neighbours), [(true, true)]);
        neighbours.visit_ended(&visit, &is(ReplicatorActivity::Stopped));
        // Another one has its advert now.
        begin(&mut neighbours);
        neighbours.prove(&visit, "id-2".into(), Some("valve"));
        assert_eq!(shown(&neighbours), [(true, false), (true, true)]);
        neighbours.visit_ended(&visit, &is(ReplicatorActivity::Stopped));
        begin(&mut neighbours);
        neighbours.visit_status(&visit, &is(ReplicatorActivity::Busy));
        assert_eq!(shown(&neighbours), [(true, false), (true, true)]);
        let names: Vec<String> = neighbours.all().into_iter().map(|neighbour| neighbour.name).collect();
        assert_eq!(names, ["pump (00:11)", "valve"]);
    }

    #[cfg(feature = "bluetooth")]
    #[test]
    fn who_is_visited_has_the_signal_of_its_connection() {
        use crate::gateway::radio::tests::connection;

        let mut neighbours = Neighbours::default();
        let addresses = ["AA:BB:CC:DD:EE:01", "AA:BB:CC:DD:EE:02", "AA:BB:CC:DD:EE:03"];
        for (n, address) in addresses.iter().enumerate() {
            let visit: VisitKey = ("bluetooth.here".into(), format!("ble:{address}").into());
            neighbours.visit(visit.clone(), &format!("pump {n}"), &format!("ble:device:{n}").into());
            neighbours.prove(&visit, format!("id-{n}"), None);
            if n == 2 {
                neighbours.visit_ended(&visit, &is(ReplicatorActivity::Stopped));
            }
        }
        let radio = [connection("hci0", addresses[1], -71), connection("hci0", addresses[2], -50)];
        let mut shown = neighbours.all();
        neighbours.hear(&radio, &mut shown);
        let signals: Vec<Option<i8>> = shown.iter().map(|neighbour| neighbour.rssi_dbm).collect();
        assert_eq!(signals, [None, Some(-71), None], "of a visit that has ended nothing is known");
    }

    #[test]
    fn strangers_without_end_do_not_push_out_those_who_prove_who_they_are() {
        let mut neighbours = Neighbours::default();
        neighbours.connected(0, "pump", Some("id".into()));
        for n in 1..2 * NEIGHBOURS_MAX as u64 {
            neighbours.connected(n, &format!("tcp:10.0.0.1:{n}"), None);
            neighbours.leave();
        }
        assert_eq!(neighbours.rows.len(), NEIGHBOURS_MAX);
        assert!(neighbours.rows.contains_key("id"));
    }
}
