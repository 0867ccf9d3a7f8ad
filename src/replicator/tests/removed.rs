//! What one side has removed, purged or expired, is neither sent by it nor taken back from a peer that still has it, in either
//! protocol and role, whatever became of the checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::exchange::{COMBINATIONS, active, passive};
use super::pair::Pair;
use crate::database::{Collection, Database, DatabaseConfig, SimulatedDisk};
use crate::replica::revision::SourceId;
use crate::replicator::config::{ActiveConfig, ReplicatorType};
use crate::replicator::error::is_conflict;
use crate::replicator::event::SessionEvent;
use crate::replicator::unsynced;

/// When the devices begin, seconds since 1970.
const START: u64 = 1_795_000_000;

/// A device with a wall clock that the test moves.
struct Device {
    disk: SimulatedDisk,
    database: Arc<Database>,
}

impl Device {
    fn new(name: u8, now: &Arc<AtomicU64>) -> Device {
        let clock = Arc::clone(now);
        let wall = move || clock.load(Ordering::Relaxed) * 1_000_000_000;
        let disk = SimulatedDisk::new(u64::from(name), SourceId([name; 16]), wall);
        let database = Device::open(&disk);
        Device { disk, database }
    }

    fn open(disk: &SimulatedDisk) -> Arc<Database> {
        Arc::new(Database::open_simulated(disk, DatabaseConfig::default()).expect("open"))
    }

    fn collection(&self) -> Collection {
        self.database.default_collection().expect("default")
    }

    fn put(&self, id: &str, n: u64) {
        self.collection().put(id, &json!({ "n": n })).expect("put");
    }

    fn n(&self, id: &str) -> Option<u64> {
        self.collection().get(id).expect("read").and_then(|document| document.body()["n"].as_u64())
    }
}

/// How the two meet.
struct Meeting {
    extensions: (bool, bool),
    /// Whether the first of two connects.
    first_connects: bool,
    runs: u64,
}

impl Meeting {
    /// Syncs two devices.
    fn sync(&mut self, first: &Device, second: &Device, reset: bool) {
        let (ours, theirs) = self.extensions;
        let config = ActiveConfig { reset, ..active(ReplicatorType::PushAndPull, ours) };
        let (a, p) = if self.first_connects { (first, second) } else { (second, first) };
        self.runs += 1;
        let mut pair = Pair::new(self.runs, config, passive(theirs), &a.database, &p.database);
        pair.run().expect("a clean end");
        // A conflict is settled by the active side.
        let failed = |event: &SessionEvent| match event {
            SessionEvent::DocumentReplicated(it) if it.error.as_ref().is_some_and(|e| !is_conflict(e)) => {
                Some(format!("{it:?}"))
            }
            _ => None,
        };
        let failed: Vec<String> = pair.a.events.iter().chain(&pair.p.events).filter_map(failed).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}

fn each(test: impl Fn(&mut Meeting)) {
    for extensions in COMBINATIONS {
        for first_connects in [true, false] {
            test(&mut Meeting { extensions, first_connects, runs: 0 });
        }
    }
}

#[test]
fn what_was_removed_stays_away_until_it_is_changed() {
    each(|meeting| {
        let now = Arc::new(AtomicU64::new(START));
        let (here, peer, other) = (Device::new(1, &now), Device::new(2, &now), Device::new(3, &now));
        // By either of them, and some by a third.
        (0..20).for_each(|n| here.put(&format!("here{n}"), n));
        (0..20).for_each(|n| peer.put(&format!("peer{n}"), n));
        (0..20).for_each(|n| other.put(&format!("other{n}"), n));
        meeting.sync(&here, &other, false);
        meeting.sync(&here, &peer, false);
        let copy = peer.disk.synced_image();
        assert_eq!(here.collection().count(), 60);
        assert_eq!(peer.collection().count(), 60);
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(START + 60);
        for n in 0..20 {
            for of in ["here", "peer", "other"] {
                let id = format!("{of}{n}");
                match n % 4 {
                    0 => assert!(here.collection().purge(&id).expect("purge")),
                    1 => here.collection().set_expiration(&id, Some(end)).expect("set"),
                    // Changed before it goes, and the peer hears of it or not.
                    2 => here.put(&id, 100 + n),
                    _ => {}
                }
            }
        }
        now.store(START + 60, Ordering::Relaxed);
        let is_gone = |n: u64| n % 4 < 2;
        let check = |what: &str| {
            for n in 0..20 {
                for of in ["here", "peer", "other"] {
                    let (at, there) = (here.n(&format!("{of}{n}")), peer.n(&format!("{of}{n}")));
                    let expected = if n % 4 == 2 { 100 + n } else { n };
                    assert_eq!(at, (!is_gone(n)).then_some(expected), "{what}: {of}{n}");
                    assert_eq!(there, Some(expected), "{what}: {of}{n} of the peer");
                }
            }
        };
        meeting.sync(&here, &peer, false);
        check("the next run");
        meeting.sync(&here, &peer, true);
        check("after a reset");
        // Removed at last from the medium too.
        while here.database.remove_due(7).expect("remove").is_some() {}
        meeting.sync(&here, &peer, true);
        check("after a reset, removed");
        // The peer is put back to before.
        peer.disk.put_back(&copy);
        let peer = Device { database: Device::open(&peer.disk), disk: peer.disk };
        meeting.sync(&here, &peer, false);
        meeting.sync(&here, &peer, true);
        for n in (0..20).filter(|n| is_gone(*n)) {
            assert_eq!(here.n(&format!("peer{n}")), None, "put back: {n}");
        }
        assert_eq!(here.collection().count(), 30);
        // What is changed there comes, and so does what is made anew.
        for of in ["here", "peer", "other"] {
            peer.put(&format!("{of}0"), 500);
            assert!(peer.collection().delete(&format!("{of}4")).expect("delete"));
            here.put(&format!("{of}1"), 700);
        }
        meeting.sync(&here, &peer, false);
        // What is made anew knows nothing of the peer's copy, which is listed after a reset alone; then once more, for what was resolved.
        (0..2).for_each(|_| meeting.sync(&here, &peer, true));
        for of in ["here", "peer", "other"] {
            assert_eq!((here.n(&format!("{of}0")), peer.n(&format!("{of}0"))), (Some(500), Some(500)));
            assert_eq!((here.n(&format!("{of}1")), peer.n(&format!("{of}1"))), (Some(700), Some(700)));
            assert_eq!((here.n(&format!("{of}4")), peer.n(&format!("{of}4"))), (None, None));
        }
        // A device that has never met this one does not bring them either, and gets none of them.
        let stranger = Device::new(4, &now);
        meeting.sync(&other, &stranger, false);
        meeting.sync(&here, &stranger, false);
        assert_eq!(here.n("other5"), None);
        assert_eq!(stranger.n("peer5"), None);
    });
}

/// The peer listed its copy before this one was removed here, and another one made: whoever connects asks for it again by itself.
#[test]
fn a_conflict_with_what_was_listed_long_ago_is_settled_without_a_reset() {
    each(|meeting| {
        let now = Arc::new(AtomicU64::new(START));
        let (here, peer) = (Device::new(1, &now), Device::new(2, &now));
        (0..20).for_each(|n| peer.put(&format!("d{n}"), n));
        meeting.sync(&here, &peer, false);
        for n in 0..3 {
            assert!(here.collection().purge(&format!("d{n}")).expect("purge"));
            here.put(&format!("d{n}"), 100 + n);
        }
        // Each is told twice: the next run may bring what it conflicts with anyway.
        (0..3).for_each(|_| meeting.sync(&here, &peer, false));
        let all = |of: &Device| (0..20).map(|n| of.n(&format!("d{n}"))).collect::<Vec<_>>();
        assert_eq!(all(&here), all(&peer));
        let told = [&here, &peer].map(|of| unsynced::stored(&*of.database).expect("read"));
        assert!(told.iter().all(Vec::is_empty), "{told:?}");
    });
}

/// A document expires after it was offered and before it was sent.
#[test]
fn what_expires_on_the_way_is_not_sent() {
    each(|meeting| {
        let now = Arc::new(AtomicU64::new(START));
        let (here, peer) = (Device::new(1, &now), Device::new(2, &now));
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(START + 1);
        let other = Device::new(3, &now);
        for n in 0..40 {
            // Of another author, so that it is offered first by the extension too.
            other.put(&format!("d{n}"), n);
        }
        meeting.sync(&here, &other, false);
        (0..40).for_each(|n| here.collection().set_expiration(&format!("d{n}"), Some(end)).expect("set"));
        let (ours, theirs) = meeting.extensions;
        let config = active(ReplicatorType::PushAndPull, ours);
        let (a, p) = if meeting.first_connects { (&here, &peer) } else { (&peer, &here) };
        let mut pair = Pair::new(7, config, passive(theirs), &a.database, &p.database);
        // They are offered, and not yet asked for.
        pair.run_until(4);
        assert_eq!(peer.collection().count(), 0);
        now.store(START + 2, Ordering::Relaxed);
        pair.run().expect("a clean end");
        assert_eq!((peer.collection().count(), here.collection().count()), (0, 0));
    });
}
