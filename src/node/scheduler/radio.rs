//! A radio, as the plan knows it: its slots, and when it listens.

use std::time::Duration;

use crate::time::Instant;

/// How long is listened before somebody counts as the only neighbour, and is connected to although there is nothing new. Who has
/// something new is visited at once.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
/// After how long a radio that was full is trusted with one connection more.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// How long a radio listens on all the time after something was new.
const STIR: Duration = Duration::from_secs(60);
/// How often it listens for so long although nothing is new: a radio that has become deaf shows only then.
const LISTEN_ANYHOW_EVERY: Duration = Duration::from_secs(600);
/// How long it listens at a time otherwise: everybody who is near is heard.
const LISTEN: Duration = Duration::from_secs(5);

/// How a radio may be used.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct RadioPlan {
    /// Visits at the same time, at most.
    pub(in crate::node) links: usize,
    /// How long it leaves the air alone at a time, where it has no connection and nothing has been new for a while.
    pub(in crate::node) rest: Duration,
}

/// One radio, as the plan knows it.
pub(super) struct Radio {
    plan: RadioPlan,
    /// Connections that it is believed to have room for.
    pub(super) slots: usize,
    /// One more is tried then.
    probe_at: Option<Instant>,
    /// It has been listening since then, without a connection.
    pub(super) alone_since: Option<Instant>,
    /// Listening beside connections ends then.
    pub(super) look_until: Option<Instant>,
    /// When it had last listened for so long that it has heard all who are near.
    pub(super) heard_all: Option<Instant>,
    /// When it heard anybody.
    pub(super) heard: Option<Instant>,
    pub(super) present: bool,
}

impl Radio {
    /// One that is there.
    pub(super) fn new(plan: RadioPlan) -> Radio {
        Radio {
            plan,
            slots: plan.links.max(1),
            probe_at: None,
            alone_since: None,
            look_until: None,
            heard_all: None,
            heard: None,
            present: true,
        }
    }

    /// It had no room for another connection beside so many.
    pub(super) fn is_full(&mut self, now: Instant, used: usize) {
        self.slots = used.max(1);
        self.probe_at = Some(now + PROBE_AFTER);
    }

    /// The connections that it is trusted with now.
    pub(super) fn slots(&mut self, now: Instant) -> usize {
        if self.slots < self.plan.links && self.probe_at.is_some_and(|at| now >= at) {
            self.slots += 1;
            self.probe_at = Some(now + PROBE_AFTER);
        }
        self.slots
    }

    /// Whether it listens while it has no connection: all the time, or, once nothing has been new for a while, by turns, since Wi-Fi may have
    /// the same antenna. `number`, of `count` radios: they do not all rest at the same time.
    pub(super) fn listens_alone(&mut self, now: Instant, stirred: Instant, number: u32, count: u32) -> bool {
        if now.since(*self.alone_since.get_or_insert(now)) >= SETTLE {
            self.heard_all = Some(now);
        }
        self.look_until = None;
        let rest = self.plan.rest;
        let quiet = now.since(stirred + (rest + LISTEN) / count.max(1) * number);
        // Who was near and is not heard any more has gone, or this radio has become deaf: that shows only while it listens.
        let is_odd = self.heard.is_some_and(|at| (rest + LISTEN..STIR).contains(&now.since(at)));
        is_odd || rest.is_zero() || {
            let of =
                |period: Duration| Duration::from_micros((quiet.as_micros() % period.as_micros()) as u64);
            of(LISTEN_ANYHOW_EVERY) < STIR || of(rest + LISTEN) >= rest
        }
    }
}
