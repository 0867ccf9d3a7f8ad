//! The state machine by itself: what each rule does, and what holds whatever happens.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn news(change: u32, pending: u64) -> Summary {
    Summary { change, pending, is_urgent: false }
}

fn urgent(change: u32) -> Summary {
    Summary { change, pending: 1, is_urgent: true }
}

/// Fast for 30 s, then at rest for 300; silent for 600 s after 60 s.
fn silent() -> AdvertPolicy {
    AdvertPolicy { silent_after: Some(60 * SECOND), ..AdvertPolicy::default() }
}

/// The pace from each time on, until `end`, with what is true from some times on.
fn course(policy: AdvertPolicy, summaries: &[(u64, Summary)], end: u64) -> Vec<(u64, Pace)> {
    let mut advertiser = Advertiser::new(policy, Instant::ZERO, Summary::default());
    let mut paces = vec![(0, advertiser.advert().pace)];
    for second in 0..=end {
        let now = at(second);
        for (_, summary) in summaries.iter().filter(|(at, _)| *at == second) {
            advertiser.handle_summary(now, *summary);
        }
        if let Some(advert) = advertiser.poll(now)
            && paces.last().is_none_or(|(_, pace)| *pace != advert.pace)
        {
            paces.push((second, advert.pace));
        }
    }
    paces
}

use Pace::{Fast, Silent, Slow};

#[test]
fn unless_told_otherwise_it_is_never_silent() {
    assert_eq!(course(AdvertPolicy::default(), &[], 100_000), [(0, Slow)]);
}

#[test]
fn what_is_new_is_told_fast_for_a_moment_and_slowly_until_it_is_fetched() {
    let seen = course(silent(), &[(10, news(1, 1)), (500, news(1, 0))], 600);
    assert_eq!(seen, [(0, Slow), (10, Fast), (40, Slow), (560, Silent)]);
}

#[test]
fn it_is_fast_no_longer_than_until_a_peer_has_fetched_all() {
    let seen = course(silent(), &[(10, news(1, 1)), (13, news(1, 0))], 100);
    assert_eq!(seen, [(0, Slow), (10, Fast), (13, Slow), (73, Silent)]);
}

#[test]
fn what_is_new_too_soon_waits_for_the_rest_to_end() {
    let seen = course(silent(), &[(10, news(1, 1)), (50, news(2, 2)), (60, news(3, 3))], 500);
    assert_eq!(seen, [(0, Slow), (10, Fast), (40, Slow), (340, Fast), (370, Slow)]);
}

#[test]
fn what_becomes_urgent_waits_for_nothing_and_is_repeated() {
    let seen = course(silent(), &[(10, news(1, 1)), (50, urgent(2))], 450);
    assert_eq!(seen, [(0, Slow), (10, Fast), (40, Slow), (50, Fast), (80, Slow), (380, Fast), (410, Slow)]);
}

#[test]
fn silence_ends_with_something_new_and_at_times_by_itself() {
    let seen = course(silent(), &[(100, news(1, 1)), (105, news(1, 0))], 900);
    assert_eq!(
        seen,
        [(0, Slow), (60, Silent), (100, Fast), (105, Slow), (165, Silent), (765, Slow), (825, Silent)]
    );
}

#[test]
fn whoever_has_a_session_finds_it_again() {
    let mut advertiser = Advertiser::new(silent(), at(0), Summary::default());
    advertiser.handle_sessions(at(10), true);
    assert_eq!((advertiser.poll(at(500)), advertiser.poll_at(at(500))), (None, None));
    advertiser.handle_sessions(at(500), false);
    assert_eq!(advertiser.poll_at(at(500)), Some(at(560)));
    assert_eq!(advertiser.poll(at(560)).map(|advert| advert.pace), Some(Silent));
    advertiser.handle_sessions(at(570), true);
    assert_eq!(advertiser.poll(at(570)).map(|advert| advert.pace), Some(Slow));
}

#[test]
fn what_is_pending_at_the_start_is_told_fast_at_once() {
    let advertiser = Advertiser::new(silent(), at(7), news(5, 3));
    assert_eq!(advertiser.advert(), Advert { pace: Fast, summary: news(5, 3) });
    assert_eq!(advertiser.interval(Fast), Some(Duration::from_millis(100)));
    assert_eq!(advertiser.interval(Silent), None);
}

#[test]
fn urgent_is_a_number_of_changes_or_a_collection() {
    let policy = AdvertPolicy { urgent_changes: Some(10), ..AdvertPolicy::default() };
    assert!(!policy.is_urgent(9, 0) && policy.is_urgent(10, 0) && policy.is_urgent(1, 1));
    assert!(!AdvertPolicy::default().is_urgent(u64::MAX, 0));
    assert!(!AdvertPolicy { urgent_changes: Some(0), ..policy }.is_urgent(0, 0), "nothing is not urgent");
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let default = AdvertPolicy::default;
    let millis = Duration::from_millis;
    let interval = |actual| AdvertPolicyError::Interval { actual };
    let short = |actual| AdvertPolicyError::PhaseTooShort { actual, gap: SECOND };
    for (policy, error) in [
        (AdvertPolicy { fast_interval: millis(19), ..default() }, interval(millis(19))),
        (AdvertPolicy { slow_interval: 11 * SECOND, ..default() }, interval(11 * SECOND)),
        (
            AdvertPolicy { fast_interval: 2 * SECOND, ..default() },
            AdvertPolicyError::FastIsSlower { fast: 2 * SECOND, slow: SECOND },
        ),
        (AdvertPolicy { fast_for: millis(999), ..default() }, short(millis(999))),
        (AdvertPolicy { silent_after: Some(millis(1)), ..default() }, short(millis(1))),
        (AdvertPolicy { silent_for: Duration::ZERO, ..default() }, short(Duration::ZERO)),
        (
            AdvertPolicy { fast_rest: Duration::MAX, ..default() },
            AdvertPolicyError::Time { actual: Duration::MAX },
        ),
    ] {
        assert_eq!(policy.check(), Err(error), "{policy:?}");
    }
    assert_eq!(AdvertPolicy { change_gap: Duration::ZERO, ..default() }.check().map_err(|_| ()), Err(()));
    assert_eq!((default().check(), silent().check()), (Ok(()), Ok(())));
}

/// One that advertises, in virtual time, with all that it has advertised.
struct Run {
    advertiser: Advertiser,
    now: Instant,
    adverts: Vec<(Instant, Advert)>,
    /// What was true, from when on.
    truths: Vec<(Instant, Summary)>,
}

impl Run {
    fn new(policy: AdvertPolicy, first: Summary) -> Run {
        let advertiser = Advertiser::new(policy, Instant::ZERO, first);
        let adverts = vec![(Instant::ZERO, advertiser.advert())];
        Run { advertiser, now: Instant::ZERO, adverts, truths: vec![(Instant::ZERO, first)] }
    }

    fn poll(&mut self) {
        self.adverts.extend(self.advertiser.poll(self.now).map(|advert| (self.now, advert)));
        let next = self.advertiser.poll_at(self.now);
        assert!(next.is_none_or(|next| next > self.now), "it asks to be asked at once, for ever");
    }

    /// Asks when it wants to be asked, until `end`.
    fn pass(&mut self, end: Instant) {
        while let Some(next) = self.advertiser.poll_at(self.now).filter(|next| *next <= end) {
            self.now = next;
            self.poll();
        }
        self.now = end;
    }

    fn happens(&mut self, summary: Summary) {
        self.advertiser.handle_summary(self.now, summary);
        self.truths.push((self.now, summary));
        self.poll();
    }

    /// Whether this was true then; several things may happen at one time.
    fn was_true(&self, time: Instant, summary: Summary) -> bool {
        let since = self.truths.partition_point(|(since, _)| *since < time).saturating_sub(1);
        self.truths[since..]
            .iter()
            .take_while(|(since, _)| *since <= time)
            .any(|(_, truth)| *truth == summary)
    }

    /// What was true at the end of the time up to `time`.
    fn truth(&self, time: Instant) -> Summary {
        let at = self.truths.partition_point(|(since, _)| *since <= time);
        self.truths[at - 1].1
    }
}

fn policies() -> impl Strategy<Value = AdvertPolicy> {
    let silence = proptest::option::of((1u32..200, 1u32..200));
    (1u32..60, 0u32..300, silence, 1u64..5_000).prop_map(|(fast, rest, silence, gap_ms)| {
        let change_gap = Duration::from_millis(gap_ms);
        AdvertPolicy {
            fast_for: change_gap.max(fast * SECOND),
            fast_rest: rest * SECOND,
            silent_after: silence.map(|(after, _)| change_gap.max(after * SECOND)),
            silent_for: change_gap.max(silence.map_or(600, |(_, seconds)| seconds) * SECOND),
            change_gap,
            ..AdvertPolicy::default()
        }
    })
}

/// What happens after so many milliseconds: changes come, or peers fetch all.
fn happenings() -> impl Strategy<Value = Vec<(u64, Summary)>> {
    let wait = prop_oneof![0u64..20, 0u64..3_000, 0u64..400_000];
    let one = (wait, 0u32..3, any::<bool>(), any::<bool>());
    proptest::collection::vec(one, 0..60).prop_map(|steps| {
        let (mut change, mut pending) = (0, 0);
        let step = |(wait, more, fetched, is_urgent): (u64, u32, bool, bool)| {
            change += more;
            pending = if fetched { 0 } else { pending + u64::from(more) };
            (wait, Summary { change, pending, is_urgent: is_urgent && pending > 0 })
        };
        steps.into_iter().map(step).collect()
    })
}

proptest! {
    #[test]
    fn rules_hold_whatever_happens(policy in policies(), first in 0u64..3, happenings in happenings()) {
        prop_assert_eq!(policy.check(), Ok(()));
        let mut run = Run::new(policy.clone(), news(0, first));
        for (wait, summary) in happenings {
            run.pass(run.now + Duration::from_millis(wait));
            run.happens(summary);
        }
        run.pass(run.now + 1_000 * SECOND);
        let gap = policy.change_gap;
        for pair in run.adverts.windows(2) {
            let ((since, advert), (until, next)) = (pair[0], pair[1]);
            prop_assert!(until.since(since) >= gap, "two changes within the shortest time between them");
            prop_assert!(advert != next, "a change that changes nothing");
        }
        // Fast no longer than allowed, and slow for a moment in between.
        let mut fast_since = None;
        for (since, advert) in &run.adverts {
            let began = *fast_since.get_or_insert(*since);
            if advert.pace != Pace::Fast {
                prop_assert!(since.since(began) <= policy.fast_for, "fast for {:?}", since.since(began));
                fast_since = None;
            }
        }
        prop_assert!(fast_since.is_none_or(|began| run.now.since(began) <= policy.fast_for), "fast for ever");
        for (since, advert) in &run.adverts {
            prop_assert!(run.was_true(*since, advert.summary), "{:?} was not true when it began", advert);
            if advert.pace == Pace::Silent {
                let after = policy.silent_after;
                let so_far = run.truths.iter().filter(|(at, _)| at < since).rev();
                let quiet = so_far.take_while(|(_, truth)| truth.pending == 0).last();
                let quiet = quiet.map(|(at, _)| since.since(*at));
                prop_assert!(after.is_some() && quiet >= after, "silent too soon");
            }
        }
        // What is true is advertised as soon as it may be.
        for (at, truth) in &run.truths {
            let soon = *at + gap;
            if run.truth(soon) == *truth && !run.truths.iter().any(|(other, _)| other > at && *other <= soon) {
                let shown = run.adverts.partition_point(|(since, _)| *since <= soon);
                prop_assert_eq!(run.adverts[shown - 1].1.summary, *truth);
            }
        }
    }

    #[test]
    fn where_nothing_is_pending_the_policy_decides_alone(policy in policies()) {
        let mut run = Run::new(policy.clone(), Summary::default());
        run.pass(at(1_000));
        let paces: Vec<Pace> = run.adverts.iter().map(|(_, advert)| advert.pace).collect();
        match policy.silent_after {
            None => prop_assert_eq!(paces, [Pace::Slow]),
            Some(after) => {
                prop_assert!(paces.iter().zip([Pace::Slow, Pace::Silent].iter().cycle()).all(|(a, b)| a == b));
                prop_assert_eq!(run.adverts[1].0, Instant::ZERO + after);
            }
        }
    }
}
