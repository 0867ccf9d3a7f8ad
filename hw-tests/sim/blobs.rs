//! Documents with blobs: nodes save content and let documents name it, the same in several of them, kept, replaced and given
//! up; some is saved and never named. Now and then a node is off for a day, and what nothing refers to goes.
//!
//! What is known of a blob is its content as it was saved: whatever a node has under its digest is compared with that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::sync::Mutex;
use std::time::Duration;

use fastrand::Rng;
use gattway::database::{Database, DatabaseError};
use gattway::lab::replica::blobs::{BlobDigest, blobs_in};
use serde_json::{Map, Value};

use super::checks::{self, Content};
use super::model::NodeIndex;
use super::plan::Edge;
use super::run::Run;
use super::world::{World, lock};

/// One action in so many is about blobs alone, where there are any.
const BLOB_SHARE: f64 = 0.08;

/// Bytes of most blobs, and of the largest where the radio is fast enough: more than two chunks of a file.
const USUAL_BYTES_MAX: usize = 3_000;
const LARGE_BYTES_MAX: usize = 140_000;

/// Bytes of a chunk of a file (`firmware-notes/store.md`), at which contents begin to have several.
const CHUNK_BYTES: usize = 64 << 10;

/// The least ATT MTU of all connections, and the most connections, with which blobs are large.
const LARGE_MTU_MIN: u16 = 185;
const LARGE_EDGES_MAX: usize = 3;

/// After this a blob to which nothing refers may go, and after this a part too.
const DAY: Duration = Duration::from_secs(25 * 60 * 60);
const WEEK: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// Fields of a body that have blobs.
const ONE: &str = "blob";
const MORE: &str = "blobs";

/// The blobs of a run.
#[derive(Clone, Copy, Debug)]
pub struct BlobPlan {
    /// How many different contents there are.
    contents: u64,
    /// Longest content.
    bytes_max: usize,
}

impl BlobPlan {
    pub fn drawn(edges: &[Edge], rng: &mut Rng) -> BlobPlan {
        let is_fast =
            edges.len() <= LARGE_EDGES_MAX && edges.iter().all(|edge| edge.att_mtu >= LARGE_MTU_MIN);
        let is_large = rng.bool() && is_fast;
        let bytes_max = if is_large { LARGE_BYTES_MAX } else { USUAL_BYTES_MAX };
        BlobPlan { contents: rng.u64(2..12), bytes_max }
    }

    /// The content of this number.
    fn content(self, seed: u64, number: u64) -> Vec<u8> {
        let mut rng = Rng::with_seed(seed.rotate_left(7) ^ number);
        let length = match number {
            0 => 0,
            1 if self.bytes_max > CHUNK_BYTES => rng.usize(CHUNK_BYTES - 1..=CHUNK_BYTES + 1),
            2 if self.bytes_max > CHUNK_BYTES => rng.usize(CHUNK_BYTES..=self.bytes_max),
            _ if rng.bool() => rng.usize(1..400),
            _ => rng.usize(1..=USUAL_BYTES_MAX),
        };
        // Some of it can be compressed.
        let letters = if rng.bool() { 4 } else { u8::MAX };
        (0..length).map(|_| rng.u8(0..letters)).collect()
    }
}

/// What a run knows of blobs.
#[derive(Default)]
pub struct Known {
    contents: Mutex<BTreeMap<BlobDigest, Vec<u8>>>,
    /// Of which somebody was found to have a part, and how long it was.
    parts: Mutex<BTreeSet<(NodeIndex, BlobDigest, u64)>>,
    /// Nodes for which a day passes before they start again.
    off: Mutex<BTreeSet<NodeIndex>>,
}

impl Known {
    /// A node has so many bytes of a blob, and is about to get the rest.
    pub fn found_part(&self, node: NodeIndex, digest: BlobDigest, length: u64) {
        if length > 0 {
            lock(&self.parts).insert((node, digest, length));
        }
    }

    /// How many parts were found.
    pub fn parts(&self) -> u64 {
        lock(&self.parts).len() as u64
    }
}

impl Run {
    /// Does something about blobs alone; whether it did.
    pub fn act_on_blobs(&mut self) -> bool {
        if self.world.plan.blobs.is_none() || self.rng.f64() >= BLOB_SHARE {
            return false;
        }
        let at = self.rng.usize(0..self.nodes.len());
        let Some(db) = self.nodes[at].running.as_ref().map(|running| running.db.clone()) else { return true };
        if self.rng.f64() < 0.4 {
            let saved = self.save_blob(at, &db);
            saved.err().into_iter().for_each(|error| self.refused(at, error));
        } else {
            // While it is off: a session that has seen a blob would find it gone a moment later.
            self.world.trace.note(format!("node {at} is switched off for a day"));
            lock(&self.world.blobs.off).insert(at);
            self.reboot(at);
        }
        true
    }

    fn save_blob(&mut self, at: NodeIndex, db: &Database) -> Result<Value, DatabaseError> {
        let plan = &self.world.plan;
        let blobs = plan.blobs.expect("a plan with blobs");
        let content = blobs.content(plan.seed, self.rng.u64(0..blobs.contents));
        let kind = if self.rng.bool() { "image/jpeg" } else { "text/plain" };
        let blob = db.save_blob(content.as_slice(), kind);
        let shown = blob.as_ref().map(|blob| blob.digest().to_owned()).map_err(ToString::to_string);
        self.world.trace.note(format!("node {at} saves a blob of {} bytes: {shown:?}", content.len()));
        let blob = blob?;
        lock(&self.world.blobs.contents).insert(blob.digest().parse().expect("a digest"), content);
        self.counts.blobs_saved += 1;
        Ok(serde_json::to_value(blob).expect("JSON"))
    }

    /// Lets a body name blobs: those of the body before it, others, or none.
    ///
    /// # Errors
    /// One cannot be saved.
    pub fn add_blobs(
        &mut self,
        at: NodeIndex,
        db: &Database,
        body: &mut Map<String, Value>,
        before: &Map<String, Value>,
    ) -> Result<(), DatabaseError> {
        if self.world.plan.blobs.is_none() {
            return Ok(());
        }
        for (field, share) in [(ONE, 0.5), (MORE, 0.2)] {
            if let Some(kept) = before.get(field).filter(|_| self.rng.bool()) {
                body.insert(field.into(), kept.clone());
            } else if self.rng.f64() < share {
                let mut value = self.save_blob(at, db)?;
                if field == MORE {
                    value = serde_json::json!([1, { "deep": value }, self.save_blob(at, db)?]);
                }
                body.insert(field.into(), value);
            }
        }
        Ok(())
    }

    /// Of a node that was off for a day the blobs go to which nothing refers.
    pub fn sweep_after_a_day(&mut self, at: NodeIndex) {
        let Some(db) = self.nodes[at].running.as_ref().map(|running| running.db.clone()) else { return };
        if !lock(&self.world.blobs.off).remove(&at) {
            return;
        }
        let disk = &self.nodes[at].disk;
        let before = disk.files().len();
        disk.let_files_be_old(DAY);
        // The first look of a process is at all.
        let swept = db.sweep_suspected_blobs();
        let gone = before.saturating_sub(disk.files().len());
        self.counts.blobs_removed += gone as u64;
        self.world.trace.note(format!("a day passes for the blobs of {at}, {gone} go: {swept:?}"));
        checks::check_node(&self.world, at, &db);
    }

    /// Once all is at rest, what nothing refers to goes, and nothing else.
    pub fn sweep_all(&mut self) {
        if self.world.plan.blobs.is_none() {
            return;
        }
        for at in 0..self.nodes.len() {
            let Some(db) = self.nodes[at].running.as_ref().map(|running| running.db.clone()) else {
                continue;
            };
            let disk = &self.nodes[at].disk;
            let before = disk.files().len();
            disk.let_files_be_old(WEEK);
            let swept = db.sweep_blobs();
            let left: BTreeSet<String> = disk.files().into_iter().collect();
            self.counts.blobs_removed += before.saturating_sub(left.len()) as u64;
            self.world.trace.note(format!("the blobs of {at} are swept: {swept:?}, {} are left", left.len()));
            checks::check_node(&self.world, at, &db);
            let Ok(content) = checks::content(&db) else { continue };
            let bodies = content.values().filter_map(|found| found.body.as_ref());
            let named = bodies.flat_map(digests).map(|digest| file_name(&digest)).collect();
            match swept {
                // By a clock that cannot be right nothing goes.
                Ok(false) => {}
                Ok(true) if left == named => {}
                swept => self.world.violation(format!(
                    "blob: node {at} was swept ({swept:?}), and has {left:?} where its documents name {named:?}"
                )),
            }
        }
    }
}

/// The blobs that a body names.
fn digests(body: &Map<String, Value>) -> Vec<BlobDigest> {
    let text = serde_json::to_vec(body).expect("JSON");
    blobs_in(&text).into_iter().map(|blob| blob.digest).collect()
}

fn file_name(digest: &BlobDigest) -> String {
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each blob that a document names is there, whole, and is what was saved. `when`: for people.
pub fn check(world: &World, node: NodeIndex, db: &Database, content: &Content, when: &str) {
    if world.plan.blobs.is_none() {
        return;
    }
    for (id, found) in content {
        for digest in found.body.iter().flat_map(digests) {
            if let Some(problem) = problem(world, db, &digest) {
                world.violation(format!("blob: node {node} has {id}, {when}, whose blob {digest} {problem}"));
            }
        }
    }
}

/// What is wrong with a blob.
fn problem(world: &World, db: &Database, digest: &BlobDigest) -> Option<String> {
    let mut reader = match db.blob(&digest.to_string()) {
        Ok(Some(reader)) => reader,
        Ok(None) => return Some("is not there".into()),
        Err(error @ DatabaseError::Damaged { .. }) => return Some(format!("is damaged: {error}")),
        // The power may fail while it is read.
        Err(_) => return None,
    };
    let mut content = Vec::new();
    match reader.read_to_end(&mut content) {
        Err(error) if error.kind() == ErrorKind::InvalidData => Some(format!("is damaged: {error}")),
        Err(_) => None,
        Ok(_) => match lock(&world.blobs.contents).get(digest) {
            Some(known) if *known == content => None,
            Some(_) => Some("is not what was saved".into()),
            None => Some("nobody has saved".into()),
        },
    }
}
