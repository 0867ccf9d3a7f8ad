//! A year of a gateway that keeps to its rules, at a reduced scale: a steady stream of readings, an upstream that is away for weeks,
//! field devices that stay away for less and for longer than each limit, deletions, one device that is put back. The rules are
//! looked after by what a gateway does it with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use super::exchange::{active, passive};
use super::pair::Pair;
use super::retention::{Device, START};
use crate::gateway::board::Board;
use crate::gateway::config::RetentionConfig;
use crate::gateway::retention::{Known, Worker};
use crate::gateway::tombstones::{TombstoneRules, Worker as TombstoneWorker};
use crate::node::retention::Rule;
use crate::node::retention::files::FilesRule;
use crate::replicator::config::{ActiveConfig, ReplicatorType};

const DAY: u64 = 24 * 3_600;
const DAYS: u64 = 365;
/// Days from one meeting of all to the next.
const STEP: u64 = 5;
/// Readings that each device makes from one meeting to the next.
const READINGS: u64 = 12;
/// Documents of the gateway at most: those of some 80 days.
const DOCUMENTS: u64 = 570;
/// How long documents, and tombstones, are kept.
const AGE_DAYS: u64 = 120;
const TOMBSTONE_DAYS: u64 = 60;
/// From when on the files are limited, and readings are longer.
const LIMITED_FROM: u64 = 200;
const UPSTREAM: &str = "upstream";

/// When which device is away: for less than tombstones are kept, for longer, and for longer than documents are.
const AWAY: [(usize, std::ops::Range<u64>); 3] = [(1, 20..65), (1, 100..190), (2, 150..290)];
/// When the second is back in time.
const BACK: u64 = 65;
/// When the upstream is away: for so long that nothing it has is left to be removed, the second time.
const UPSTREAM_AWAY: [std::ops::Range<u64>; 2] = [90..110, 190..290];
/// When the first device is put back to what it was ten days ago.
const PUT_BACK: u64 = 240;

struct Year {
    now: Arc<AtomicU64>,
    day: u64,
    gateway: Device,
    fields: [Device; 3],
    upstream: Device,
    worker: Worker,
    known: Known,
    tombstones: TombstoneWorker,
    quota: Option<u64>,
    syncs: u64,
    made: u64,
    /// Documents that were made and not deleted, by ID.
    living: BTreeSet<String>,
    /// Deletions of which the gateway has heard.
    deleted: BTreeSet<String>,
    /// Deletions of which it has not.
    unheard: Vec<String>,
    /// What was at the gateway, and is not any more.
    gone: BTreeSet<String>,
    there: BTreeSet<String>,
    most_bytes: u64,
    held_steps: u64,
}

impl Year {
    fn new() -> Year {
        let now = Arc::new(AtomicU64::new(START));
        let gateway = Device::new(1, &now);
        let rule = Rule {
            age: Some(Duration::from_secs(AGE_DAYS * DAY)),
            documents: Some(DOCUMENTS),
            ..Rule::default()
        };
        let tombstones = Duration::from_secs(TOMBSTONE_DAYS * DAY);
        let config = RetentionConfig {
            collections: Vec::new(),
            rule,
            files: FilesRule::default(),
            only_confirmed: Some(UPSTREAM.into()),
            tombstones: None,
        };
        let db = gateway.database.as_ref().clone();
        let (known, board) = (Known::new(&config), Board::default());
        let rules = TombstoneRules { default: tombstones, sections: Vec::new() };
        Year {
            day: 0,
            fields: [2, 3, 4].map(|name| Device::new(name, &now)),
            upstream: Device::new(9, &now),
            worker: Worker { name: "year".into(), db: db.clone(), config, board: board.clone() },
            tombstones: TombstoneWorker { db, rules, board },
            known,
            now,
            gateway,
            quota: None,
            syncs: 0,
            made: 0,
            living: BTreeSet::new(),
            deleted: BTreeSet::new(),
            unheard: Vec::new(),
            gone: BTreeSet::new(),
            there: BTreeSet::new(),
            most_bytes: 0,
            held_steps: 0,
        }
    }

    fn is_away(&self, field: usize) -> bool {
        AWAY.iter().any(|(of, away)| *of == field && away.contains(&self.day))
    }

    /// What the devices do: readings, and the first one deletes one of those of the last time.
    fn live(&mut self) {
        let length = if self.day < LIMITED_FROM { 10 } else { 150 };
        for field in 0..self.fields.len() {
            let collection = self.fields[field].collection();
            for n in 0..READINGS {
                let id = format!("{field}-{:03}-{n:02}", self.day);
                // Text that does not deflate away.
                let text = format!("{:040}", fastrand::Rng::with_seed(self.made).u128(..)).repeat(4);
                collection.put(&id, &json!({ "n": n, "text": &text[..length] })).expect("put");
                self.living.insert(id);
                self.made += 1;
            }
            let id = format!("{field}-{:03}-03", self.day.saturating_sub(STEP));
            if field == 0 && self.day > 0 && collection.delete(&id).expect("delete") {
                self.living.remove(&id);
                self.unheard.push(id);
            }
        }
    }

    /// A device hands on what it has, and gets what the others have.
    fn sync(&mut self, field: usize, reset: bool) {
        self.syncs += 1;
        let extension = self.syncs.is_multiple_of(2);
        let config =
            ActiveConfig { reset, mark_seed: self.syncs, ..active(ReplicatorType::PushAndPull, extension) };
        let device = &self.fields[field];
        let mut pair =
            Pair::new(self.syncs, config, passive(extension), &device.database, &self.gateway.database)
                .without_events();
        pair.run().expect("a clean end");
        if field == 0 {
            self.deleted.extend(self.unheard.drain(..));
        }
    }

    fn sync_upstream(&mut self) {
        self.syncs += 1;
        let config = ActiveConfig {
            confirmed_as: Some(UPSTREAM.into()),
            peer_uid: UPSTREAM.into(),
            mark_seed: self.syncs,
            ..active(ReplicatorType::Push, true)
        };
        let (gateway, upstream) = (&self.gateway.database, &self.upstream.database);
        let mut pair = Pair::new(self.syncs, config, passive(true), gateway, upstream).without_events();
        pair.run().expect("a clean end");
    }

    /// The rules, and the tombstones.
    async fn keep(&mut self) {
        if self.day == LIMITED_FROM {
            self.quota = Some(self.gateway.database.disk_bytes().expect("measured") * 5 / 4);
            self.worker.config.files = FilesRule { files: self.quota, reserve: None };
            self.known = Known::new(&self.worker.config);
        }
        self.worker.round(&mut self.known).await.expect("kept");
        self.tombstones.round().await.expect("kept");
        self.held_steps += u64::from(!self.known.held.is_empty());
    }

    /// Against what was made and deleted: nothing that is wanted is missing, nothing removed is back, no limit is passed.
    fn check(&mut self) {
        let all = self.gateway.all();
        let there: BTreeSet<String> =
            all.iter().filter(|(_, (_, deleted))| !deleted).map(|(id, _)| id.clone()).collect();
        self.gone.extend(self.there.difference(&there).cloned());
        let back: Vec<&String> =
            there.iter().filter(|id| self.gone.contains(*id) || self.deleted.contains(*id)).collect();
        assert!(back.is_empty(), "day {}: {back:?} came back", self.day);
        self.there = there;
        if self.known.held.is_empty() {
            assert!(self.there.len() as u64 <= DOCUMENTS, "day {}: {} documents", self.day, self.there.len());
            let bytes = self.gateway.database.disk_bytes().expect("measured");
            assert!(
                self.quota.is_none_or(|quota| bytes <= quota),
                "day {}: {bytes} of {:?}",
                self.day,
                self.quota
            );
            self.most_bytes = self.most_bytes.max(bytes);
        }
    }

    /// Nothing that was handed on and is wanted is missing: it is at the gateway, or at the upstream.
    fn check_wanted(&self) {
        let there = &self.there;
        let upstream: BTreeMap<String, bool> =
            self.upstream.all().into_iter().map(|(id, (_, deleted))| (id, deleted)).collect();
        for id in self.gone.iter().filter(|id| self.living.contains(*id)) {
            assert_eq!(upstream.get(id), Some(&false), "day {}: {id} is nowhere", self.day);
        }
        // Each device that is there has handed on all of its own.
        for field in (0..self.fields.len()).filter(|field| !self.is_away(*field)) {
            let own = format!("{field}-");
            let lacks =
                |id: &&String| id.starts_with(&own) && !there.contains(*id) && !self.gone.contains(*id);
            // What came late may have gone before anybody looked.
            let lost = |id: &&String| lacks(id) && !upstream.contains_key(*id);
            let lost: Vec<&String> = self.living.iter().filter(lost).collect();
            assert!(lost.is_empty(), "day {}: {lost:?} did not come", self.day);
        }
    }

    /// Who is back before tombstones go has heard of all deletions.
    fn check_heard(&self, field: usize) {
        let all = self.fields[field].all();
        let living: Vec<&String> =
            self.deleted.iter().filter(|id| all.get(*id).is_some_and(|(_, deleted)| !deleted)).collect();
        assert!(living.is_empty(), "{living:?} live on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_year_stays_within_its_limits_and_brings_nothing_back() {
    let mut year = Year::new();
    let mut image = None;
    for day in (0..DAYS).step_by(STEP as usize) {
        year.day = day;
        year.now.fetch_add(STEP * DAY, Ordering::Relaxed);
        if let Some(image) = image.take_if(|_| day == PUT_BACK) {
            year.fields[0].disk.put_back(&image);
            year.fields[0].database = Device::open(&year.fields[0].disk);
        }
        year.live();
        if day + 10 == PUT_BACK {
            image = Some(year.fields[0].disk.synced_image());
        }
        for field in 0..year.fields.len() {
            if !year.is_away(field) {
                year.sync(field, false);
            }
        }
        if day == BACK {
            year.check_heard(1);
        }
        if !UPSTREAM_AWAY.iter().any(|away| away.contains(&day)) {
            year.sync_upstream();
        }
        year.keep().await;
        year.check();
        if day % (5 * STEP) == 0 {
            year.check_wanted();
        }
    }
    // Whoever compares everything brings nothing back.
    for field in 0..year.fields.len() {
        year.sync(field, true);
    }
    year.keep().await;
    year.check();
    year.sync_upstream();
    year.check_wanted();
    let upstream = year.upstream.all();
    let missing: Vec<&String> = year.living.iter().filter(|id| !upstream.contains_key(*id)).collect();
    assert!(missing.is_empty(), "the upstream lacks {missing:?}");
    let status = year.worker.board.status();
    let tombstones = year.gateway.all().values().filter(|(_, deleted)| *deleted).count();
    let written = year.gateway.disk.written_bytes();
    println!(
        "{} documents came, {} went by rules, {} are left with {tombstones} tombstones, {} of which went; at most {} bytes of {:?}; \
         {written} bytes written, {} a document, {} compactions; not met {} times",
        year.made,
        year.gone.len(),
        year.there.len(),
        status.tombstones_removed,
        year.most_bytes,
        year.quota,
        written / year.made,
        year.gateway.disk.counts().compactions,
        year.held_steps,
    );
    assert!(year.gone.len() > 1_400 && status.tombstones_removed > 40, "that shows nothing");
    assert!(tombstones as u64 <= TOMBSTONE_DAYS / STEP + 8, "{tombstones} tombstones");
    assert!((1..40).contains(&year.gateway.disk.counts().compactions), "{:?}", year.gateway.disk.counts());
    assert!((5..40).contains(&year.held_steps), "{} times", year.held_steps);
}
