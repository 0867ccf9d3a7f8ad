//! What happens in a run: edits of the applications, and faults.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gattway::Document;
use gattway::database::{Collection, Database, DatabaseError};
use gattway::lab::transport::sim::radio::Path;
use gattway::replicator::ReplicatorActivity;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::checks::COLLECTION;
use super::model::{EVENT_FIELD, EventId};
use super::plan::{FaultKind, PlanKind};
use super::run::Run;
use super::selection;
use super::stranger;
use super::world::lock;

/// Lengths of a text that stays, bytes.
const KEPT_TEXT_MIN: usize = 200;
const KEPT_TEXT_MAX: usize = 4_000;

/// Longest text of a body, bytes; the longest make commits of more than the log may grow between two syncs.
const TEXT_BYTES_MAX: usize = 12_000;

/// One action in so many is a fault, if there are any.
const FAULT_SHARE: f64 = 0.2;

/// Jumps of the wall clock, seconds.
const CLOCK_JUMPS_S: [i64; 8] = [1, -1, 60, -60, 3_600, -3_600, 200_000, -40_000_000];

/// What is to be put right again, and when.
pub enum Undo {
    Path(usize, usize),
    Host(usize),
    Capacity(usize),
    WorkTime(usize),
    Trust(usize),
}

impl Run {
    /// Does one thing.
    pub fn act(&mut self) {
        if self.act_adversely() || self.act_removing() || self.act_on_blobs() {
            return;
        }
        let faults = self.world.plan.faults.clone();
        if !faults.is_empty() && self.rng.f64() < FAULT_SHARE {
            let kind = faults[self.rng.usize(0..faults.len())];
            self.inject(kind);
        } else {
            self.edit_somewhere();
        }
    }

    fn any_node(&mut self) -> usize {
        self.rng.usize(0..self.nodes.len())
    }

    fn some_time(&mut self, seconds_max: u64) -> Duration {
        Duration::from_millis(self.rng.u64(10..seconds_max * 1_000))
    }

    pub fn later(&mut self, after: Duration, undo: Undo) {
        self.undo.push((Instant::now() + after, undo));
    }

    fn inject(&mut self, kind: FaultKind) {
        let at = self.any_node();
        if self.nodes[at].vanished {
            return;
        }
        let edge = self.world.plan.edges[self.rng.usize(0..self.world.plan.edges.len())];
        let time = self.some_time(15);
        let happened = match kind {
            FaultKind::Cut => {
                let (a, b) = (edge.active, edge.passive);
                self.world.trace.note(format!("cut between {a} and {b}"));
                if self.rng.bool() {
                    self.world.radio.cut(&self.devices[a], &self.devices[b]);
                } else {
                    self.set_path(a, b, Path { reachable: false, rssi_dbm: -127, loss: 1.0 });
                    self.later(time, Undo::Path(a, b));
                }
                true
            }
            FaultKind::Loss => {
                let loss = self.rng.f64() * 0.7;
                self.set_path(edge.active, edge.passive, Path { loss, ..Path::default() });
                self.later(time, Undo::Path(edge.active, edge.passive));
                false
            }
            // Counted by the radio model, packet by packet.
            FaultKind::Drop => self.change_host(at, time, |host, share| host.drop = share * 0.15),
            FaultKind::Reorder => self.change_host(at, time, |host, share| host.reorder = share * 0.4),
            FaultKind::Duplicate => {
                let share = self.rng.f64() * 0.2;
                lock(&self.world.packet_faults).duplicate = share;
                false
            }
            FaultKind::Delay => {
                self.change_host(at, time, |host, share| {
                    host.latency = Duration::from_secs(3).mul_f64(share)
                });
                true
            }
            FaultKind::Reboot => self.reboot(at),
            FaultKind::PowerCut => self.cut_power(at),
            FaultKind::PowerCutInWrite => {
                self.nodes[at].arm_power_failure(&self.world);
                // Counted when it happens.
                false
            }
            FaultKind::FullDisk => {
                let room = self.rng.u64(0..4_000);
                let disk = &self.nodes[at].disk;
                disk.set_capacity(Some(disk.used_bytes() + room));
                self.world.trace.note(format!("the disk of {at} has {room} bytes left"));
                self.later(time, Undo::Capacity(at));
                // Counted by the disk, when it has refused something.
                false
            }
            FaultKind::ClockJump => {
                let jump = CLOCK_JUMPS_S[self.rng.usize(0..CLOCK_JUMPS_S.len())];
                self.world.trace.note(format!("the clock of {at} jumps by {jump} s"));
                self.nodes[at].wall_offset.fetch_add(jump * 1_000_000_000, Ordering::Relaxed);
                true
            }
            FaultKind::SlowPeer => match &self.nodes[at].running {
                None => false,
                Some(running) => {
                    let slowest = Duration::from_millis(self.rng.u64(50..4_000));
                    running.process.set_work_time(Duration::ZERO..slowest);
                    self.later(time, Undo::WorkTime(at));
                    true
                }
            },
            FaultKind::Vanish => {
                let gone = self.nodes.iter().any(|node| node.vanished);
                !gone && self.rng.f64() < 0.2 && self.vanish(at)
            }
            FaultKind::Stranger => {
                let rng = self.rng.fork();
                stranger::attack(&self.world, &self.stranger, &self.devices[at], rng);
                false
            }
            adverse => self.inject_adverse(adverse, at),
        };
        if happened {
            self.world.fault(kind);
        }
    }

    fn change_host(
        &mut self,
        at: usize,
        time: Duration,
        change: impl FnOnce(&mut gattway::lab::transport::sim::HostConfig, f64),
    ) -> bool {
        let share = self.rng.f64();
        self.nodes[at].set_host(|host| change(host, share));
        self.later(time, Undo::Host(at));
        false
    }

    fn vanish(&mut self, at: usize) -> bool {
        self.world.trace.note(format!("node {at} vanishes"));
        self.nodes[at].vanished = true;
        self.nodes[at].die();
        self.set_power(at, false);
        true
    }

    fn edit_somewhere(&mut self) {
        let at = self.any_node();
        match self.rng.u32(0..100) {
            0..60 => self.put(at, 1),
            60..72 => self.delete(at),
            72..80 => {
                let count = self.rng.usize(2..=20);
                self.put(at, count);
            }
            80..84 => {
                let count = self.rng.usize(10..=50);
                (0..count).for_each(|_| self.put(at, 1));
            }
            84..94 => self.conflict(),
            94..97 => self.start_one_shots(),
            _ => self.check_somewhere(at),
        }
    }

    fn check_somewhere(&mut self, at: usize) {
        if let Some(running) = &self.nodes[at].running {
            super::checks::check_node(&self.world, at, &running.db);
        }
        if self.rng.f64() < 0.3 {
            super::checks::check_claims(&self.world, &self.nodes);
        }
    }

    pub fn document(&mut self) -> String {
        selection::name(self.rng.usize(0..self.world.plan.documents))
    }

    /// The same document edited on several nodes at once.
    fn conflict(&mut self) {
        let id = self.document();
        for at in 0..self.nodes.len() {
            if self.rng.bool() {
                if self.rng.f64() < 0.15 { self.delete_document(at, &id) } else { self.put_ids(at, &[&id]) }
            }
        }
    }

    fn put(&mut self, at: usize, count: usize) {
        let mut ids: Vec<String> = (0..count).map(|_| self.document()).collect();
        ids.sort_unstable();
        ids.dedup();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        self.put_ids(at, &ids);
    }

    /// A new body; one that was long mostly stays as it was but for a few characters, so that deltas are sent.
    fn body(&mut self, at: usize, before: Option<Map<String, Value>>) -> Map<String, Value> {
        let text = match self.rng.u32(0..100) {
            0..70 => self.rng.usize(0..60),
            70..95 => self.rng.usize(0..1_000),
            _ => self.rng.usize(0..TEXT_BYTES_MAX),
        };
        let text: String = (0..text).map(|_| self.rng.alphanumeric()).collect();
        let kept = before.and_then(|before| Some(before.get("text")?.as_str()?.to_owned()));
        let text = match kept.filter(|kept| (KEPT_TEXT_MIN..KEPT_TEXT_MAX).contains(&kept.len())) {
            // Alphanumeric, so that any place is one between characters.
            Some(kept) => format!(
                "{}{}{}",
                &kept[..kept.len() / 2],
                text.get(..3).unwrap_or(""),
                &kept[kept.len() / 2..]
            ),
            None => text,
        };
        let mut body = Map::new();
        body.insert(EVENT_FIELD.into(), self.world.model().next_name(at).into());
        body.insert("number".into(), self.rng.f64().into());
        body.insert("text".into(), text.into());
        if self.rng.bool() {
            body.insert(format!("field-{}", self.rng.u32(0..40)), self.rng.i64(..).into());
        }
        body
    }

    /// What the node has of a document now.
    fn present(&self, at: usize, db: &Database, id: &str) -> Result<Option<EventId>, DatabaseError> {
        let Some(collection) = db.collection(COLLECTION) else { return Ok(None) };
        let found = gattway::lab::replica::store::ReplicaStore::revision(
            db,
            gattway::lab::replica::store::ReplicaStore::collection(db, COLLECTION).expect("there"),
            id,
        );
        let Some(found) = found.map_err(|e| DatabaseError::Failed { reason: e.message })? else {
            return Ok(None);
        };
        let document = collection.get(id)?;
        let body = document.as_ref().map(|document| document.body());
        match self.world.model().identify(id, found.vector.current, body) {
            Ok(event) => Ok(Some(event)),
            Err(problem) => {
                self.world.violation(format!("node {at} has {problem}"));
                Ok(None)
            }
        }
    }

    /// Saves new bodies of these documents, as one batch if they are several.
    fn put_ids(&mut self, at: usize, ids: &[&str]) {
        let Some(db) = self.nodes[at].running.as_ref().map(|running| running.db.clone()) else { return };
        let mut made = Vec::new();
        for id in ids {
            let Ok(before) = self.present(at, &db, id) else { return };
            let stored = db.collection(COLLECTION).and_then(|collection| collection.get(id).ok()?);
            let stored = stored.map(Document::into_body);
            let mut body = self.body(at, stored.clone());
            if let Err(error) = self.add_blobs(at, &db, &mut body, &stored.unwrap_or_default()) {
                return self.refused(at, error);
            }
            let event = self.world.model().edit(at, id, body.clone(), before.into_iter().collect());
            made.push((*id, body, event));
        }
        let Some(collection) = db.collection(COLLECTION) else { return };
        let result = match &made[..] {
            [(id, body, _)] => put_one(&collection, id, body, self.rng.bool()),
            _ => db.batch(|batch| made.iter().try_for_each(|(id, body, _)| batch.put(&collection, id, body))),
        };
        let names: Vec<String> =
            made.iter().map(|(id, _, e)| format!("{id} {}", self.world.model().name(*e))).collect();
        self.world.trace.note(format!("node {at} puts {}: {}", names.join(", "), shown(&result)));
        match result {
            Ok(()) => {
                made.iter().for_each(|(_, _, event)| self.saved(at, *event));
                self.counts.edits += made.len() as u64;
            }
            Err(error) => {
                self.refused(at, error);
                self.in_doubt[at] = made.into_iter().map(|(id, _, event)| (id.to_owned(), event)).collect();
            }
        }
    }

    pub fn delete(&mut self, at: usize) {
        let id = self.document();
        self.delete_document(at, &id);
    }

    fn delete_document(&mut self, at: usize, id: &str) {
        if self.world.plan.kind == PlanKind::Trees {
            return;
        }
        let Some(db) = self.nodes[at].running.as_ref().map(|running| running.db.clone()) else { return };
        let Some(collection) = db.collection(COLLECTION) else { return };
        let Ok(Some(before)) = self.present(at, &db, id) else { return };
        // A deletion of what is deleted does nothing.
        let Ok(Some(_)) = collection.get(id) else { return };
        let event = self.world.model().deletion(at, id, vec![before]);
        let result = collection.delete(id);
        self.world.trace.note(format!("node {at} deletes {id}: {}", shown(&result)));
        match result {
            Ok(true) => match self.present(at, &db, id) {
                Ok(Some(now)) if now == event => {
                    self.saved(at, event);
                    self.counts.deletions += 1;
                }
                Ok(now) => self.world.violation(format!("node {at} has {now:?} of {id}, which it deleted")),
                // The power failed while it was read.
                Err(_) => self.saved(at, event),
            },
            Ok(false) => self.world.violation(format!("node {at} says that there is no {id} to delete")),
            Err(error) => self.refused(at, error),
        }
    }

    /// A write that failed for a reason that is not one of the faults.
    pub fn refused(&self, at: usize, error: DatabaseError) {
        if !matches!(
            error,
            DatabaseError::Io { .. } | DatabaseError::Failed { .. } | DatabaseError::Full { .. }
        ) {
            self.world.violation(format!("node {at} refuses a write: {error}"));
        }
    }

    /// Starts one-shot replicators that have ended.
    pub fn start_one_shots(&mut self) {
        for at in 0..self.nodes.len() {
            self.start_one_shots_of(at);
            self.note_beginnings(at);
        }
    }

    fn start_one_shots_of(&mut self, at: usize) {
        let Some(running) = &mut self.nodes[at].running else { return };
        for active in &mut running.replicators {
            let ended = active.replicator.status().activity == ReplicatorActivity::Stopped;
            // Not all at the same moment: two devices that merge differently and in lock step merge each other's merges
            // without end.
            let is_gone = active.edge.passive == self.world.plan.liar() && self.world.liar.is_gone();
            if !active.edge.continuous && ended && !is_gone && self.rng.bool() {
                running.process.enter(|| active.replicator.start());
                active.started = Instant::now();
                (active.has_just_begun, active.began) = (true, None);
                self.counts.one_shot_runs += 1;
            }
        }
    }

    /// Puts right what is due.
    pub fn undo_due(&mut self, now: Instant) {
        for (at, undo) in std::mem::take(&mut self.undo) {
            if at > now {
                self.undo.push((at, undo));
                continue;
            }
            match undo {
                Undo::Path(a, b) => self.set_path(a, b, Path::default()),
                Undo::Host(at) => self.nodes[at].set_host(|host| *host = Default::default()),
                Undo::Trust(at) => self.restore_trust(at),
                Undo::Capacity(at) => self.nodes[at].disk.set_capacity(None),
                Undo::WorkTime(at) => {
                    if let Some(running) = &self.nodes[at].running {
                        running.process.set_work_time(super::node::WORK_TIME);
                    }
                }
            }
        }
    }
}

/// Saves one document in either of two ways.
fn put_one(
    collection: &Collection,
    id: &str,
    body: &Map<String, Value>,
    reading: bool,
) -> Result<(), DatabaseError> {
    match if reading { collection.get(id)? } else { None } {
        Some(mut document) => {
            *document.body_mut() = body.clone();
            collection.save(&mut document)
        }
        None => collection.put(id, body).map(drop),
    }
}

fn shown<T>(result: &Result<T, DatabaseError>) -> String {
    match result {
        Ok(_) => "done".into(),
        Err(error) => error.to_string(),
    }
}
