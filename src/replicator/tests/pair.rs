//! Two sessions, two stores, a pipe with a seed: delays, reordering of work, cuts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::replica::store::ReplicaStore;
use crate::replicator::config::{ActiveConfig, PassiveConfig};
use crate::replicator::error::SessionError;
use crate::replicator::event::{Activity, CommitRequest, CommitResult, SessionEvent};
use crate::replicator::session::Session;
use crate::time::Instant;

/// Steps without an end after which a run counts as hung.
const STEPS_MAX: usize = 2_000_000;

/// A commit under way: what it stores is there for a while before the session hears of it.
struct Commit {
    request: CommitRequest,
    steps: u32,
    result: Option<CommitResult>,
}

pub struct Side {
    pub session: Session,
    pub store: Arc<dyn ReplicaStore>,
    commits: Vec<Commit>,
    pub events: Vec<SessionEvent>,
    pub idle: bool,
    pub finished: Option<Result<(), SessionError>>,
    pub frames_out: u64,
    pub bytes_out: u64,
    seen_last: u64,
    keep_events: bool,
}

impl Side {
    fn new(session: Session, store: Arc<dyn ReplicaStore>) -> Side {
        Side {
            session,
            store,
            commits: Vec::new(),
            events: Vec::new(),
            idle: false,
            finished: None,
            frames_out: 0,
            bytes_out: 0,
            seen_last: 0,
            keep_events: true,
        }
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match &event {
                SessionEvent::Activity(activity) => self.idle = *activity == Activity::Idle,
                SessionEvent::Finished(result) => {
                    assert!(self.finished.is_none(), "finished twice");
                    self.finished = Some(result.clone());
                }
                _ => {}
            }
            if self.keep_events {
                self.events.push(event);
            }
        }
    }
}

pub struct Pair {
    pub a: Side,
    pub p: Side,
    pub now: Instant,
    to_p: VecDeque<Vec<u8>>,
    to_a: VecDeque<Vec<u8>>,
    rng: fastrand::Rng,
    /// Most steps a commit takes.
    pub commit_steps: u32,
    /// Most frames under way in each direction.
    pub pipe_frames: usize,
    pub frames: u64,
}

impl Pair {
    pub fn new(
        seed: u64,
        active: ActiveConfig,
        passive: PassiveConfig,
        a: &Arc<impl ReplicaStore + 'static>,
        p: &Arc<impl ReplicaStore + 'static>,
    ) -> Pair {
        Pair::of(seed, Session::active(active), Session::passive(passive), a, p)
    }

    pub fn of(
        seed: u64,
        active: Session,
        passive: Session,
        a: &Arc<impl ReplicaStore + 'static>,
        p: &Arc<impl ReplicaStore + 'static>,
    ) -> Pair {
        let mut pair = Pair {
            a: Side::new(active, a.clone()),
            p: Side::new(passive, p.clone()),
            now: Instant::from_micros(1_000_000),
            to_p: VecDeque::new(),
            to_a: VecDeque::new(),
            rng: fastrand::Rng::with_seed(seed),
            commit_steps: 5,
            pipe_frames: 17,
            frames: 0,
        };
        pair.p.session.start(pair.now, &**p);
        pair.a.session.start(pair.now, &**a);
        pair
    }

    pub fn without_events(mut self) -> Pair {
        self.a.keep_events = false;
        self.p.keep_events = false;
        self
    }

    /// One step; `false` if nothing moved.
    pub fn step(&mut self) -> bool {
        let mut moved = false;
        for active in [true, false] {
            let (side, inbound, outbound) = match active {
                true => (&mut self.a, &mut self.to_a, &mut self.to_p),
                false => (&mut self.p, &mut self.to_p, &mut self.to_a),
            };
            for _ in 0..self.rng.usize(0..4) {
                if !side.session.accepts_input() {
                    break;
                }
                let Some(frame) = inbound.pop_front() else { break };
                let result = side.session.handle_frame(self.now, &frame, &*side.store);
                side.drain_events();
                assert_eq!(result.is_err(), matches!(side.finished, Some(Err(_))) && result.is_err());
                moved = true;
            }
            // Commits end in any order.
            for mut commit in std::mem::take(&mut side.commits) {
                moved = true;
                if commit.result.is_none() && (commit.steps == 0 || self.rng.u8(0..4) == 0) {
                    let policy = side.session.conflict_policy();
                    commit.result = Some(commit.request.run(&*side.store, policy));
                }
                if commit.steps > 0 {
                    commit.steps -= 1;
                    side.commits.push(commit);
                } else if let Some(result) = commit.result {
                    side.session.handle_commit(self.now, commit.request.id, result, &*side.store);
                }
            }
            while let Some(request) = side.session.poll_commit() {
                moved = true;
                side.commits.push(Commit {
                    request,
                    steps: self.rng.u32(0..=self.commit_steps),
                    result: None,
                });
            }
            let last = side.store.last_sequence(crate::replica::store::CollectionId(0));
            if last != side.seen_last {
                side.seen_last = last;
                side.session.handle_store_changed(self.now, &*side.store);
            }
            for _ in 0..self.rng.usize(0..4) {
                if outbound.len() >= self.pipe_frames {
                    break;
                }
                let Some(frame) = side.session.poll_frame(self.now, &*side.store) else { break };
                side.frames_out += 1;
                side.bytes_out += frame.len() as u64;
                self.frames += 1;
                outbound.push_back(frame);
                moved = true;
            }
            side.drain_events();
        }
        moved
    }

    /// Lets time pass to the next thing that is due; `false` if nothing is.
    fn pass_time(&mut self, until: Instant) -> bool {
        let due = [self.a.session.poll_at(), self.p.session.poll_at()].into_iter().flatten().min();
        let Some(due) = due.filter(|due| *due <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(due) + Duration::from_micros(1);
        self.handle_due();
        true
    }

    /// Tells both what is due by now.
    pub fn handle_due(&mut self) {
        for side in [&mut self.a, &mut self.p] {
            if side.session.poll_at().is_some_and(|at| at <= self.now) {
                side.session.handle_timeout(self.now, &*side.store);
            }
            side.drain_events();
        }
    }

    /// Runs until both are quiet for so long, or the active side is over.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        let mut still = 0;
        for _ in 0..STEPS_MAX {
            if self.step() {
                still = 0;
            } else {
                still += 1;
            }
            if self.a.finished.is_some() && self.to_p.is_empty() && self.to_a.is_empty() && still > 20 {
                return;
            }
            if still > 40 {
                still = 0;
                if self.now >= until {
                    return;
                }
                if !self.pass_time(until) && self.now >= until {
                    return;
                }
            }
        }
        panic!("no end in sight");
    }

    /// Runs a one-shot session to its end.
    pub fn run(&mut self) -> Result<(), SessionError> {
        self.run_for(Duration::from_secs(100));
        self.close();
        self.a.finished.clone().expect("the active side ends")
    }

    /// The connection is over.
    pub fn close(&mut self) {
        for side in [&mut self.a, &mut self.p] {
            side.session.close(&*side.store);
            side.drain_events();
        }
    }

    /// Runs until so many frames have gone.
    pub fn run_until(&mut self, frames: u64) {
        while self.frames < frames && self.a.finished.is_none() {
            let mut still = 0;
            while !self.step() {
                still += 1;
                if still > 40 {
                    return;
                }
            }
        }
    }

    /// Runs until so many frames have gone, then cuts the connection; what the stores are doing then may still happen.
    pub fn run_and_cut(&mut self, frames: u64) {
        self.run_until(frames);
        for side in [&mut self.a, &mut self.p] {
            for commit in std::mem::take(&mut side.commits) {
                if commit.result.is_none() && self.rng.bool() {
                    let _ = side.store.commit(&commit.request.revisions, side.session.conflict_policy());
                }
            }
        }
    }
}
