//! The plan alone, and in simulated time with many neighbours that have something each hour.

use super::*;

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

const OWN: u32 = 7;
const DONE: Visited = Visited::Done { own: OWN };

#[test]
fn who_has_nothing_is_left_alone_unless_nobody_else_is_there() {
    let mut plan = Schedule::new(1, false);
    plan.heard("a", (), News::Nothing, at(0.0));
    assert_eq!(plan.next(at(1.0), false), None, "others may be yet unheard");
    assert_eq!(plan.next(at(2.0), true), Some("a"));
    plan.begin(&"a");
    assert_eq!(plan.next(at(2.0), true), None, "the one slot is taken");
    plan.heard("b", (), News::Nothing, at(3.0));
    assert!(!plan.is_anybody_waiting(at(3.0)), "it has nothing: the connection is kept");
    plan.heard("b", (), News::Pending(1), at(4.0));
    assert!(plan.is_anybody_waiting(at(4.0)));
    plan.ended(&"a", DONE, at(5.0));
    assert_eq!(plan.next(at(5.0), true), Some("b"));
    plan.begin(&"b");
    plan.ended(&"b", DONE, at(6.0));
    assert_eq!(plan.next(at(7.0), true), None, "two that are quiet cost nothing");
    // This database has changed.
    plan.reconsider(at(8.0), |()| News::Pending(1));
    assert!(plan.next(at(8.0), true).is_some());
}

#[test]
fn who_has_waited_longest_comes_first_and_much_counts_for_some_seconds() {
    let mut plan = Schedule::new(1, false);
    plan.heard("early", (), News::Pending(1), at(0.0));
    plan.heard("much", (), News::Pending(1_024), at(5.0));
    plan.heard("late", (), News::Pending(1), at(6.0));
    assert_eq!(plan.next(at(8.0), true), Some("much"), "worth ten seconds");
    let mut plan = Schedule::new(1, false);
    plan.heard("early", (), News::Pending(1), at(0.0));
    plan.heard("much", (), News::Pending(u32::MAX), at(12.0));
    assert_eq!(plan.next(at(12.0), true), Some("early"), "and no more");
    // Hearing it again does not send it to the end.
    plan.heard("early", (), News::Pending(2), at(12.0));
    assert_eq!(plan.next(at(12.0), true), Some("early"));
}

#[test]
fn who_fails_waits_longer_each_time_and_takes_no_turn_of_others() {
    let mut plan = Schedule::new(1, false);
    let mut now = at(0.0);
    let mut waits = Vec::new();
    for _ in 0..8 {
        plan.heard("flaky", (), News::Pending(1), now);
        assert_eq!(plan.next(now, true), Some("flaky"));
        plan.begin(&"flaky");
        plan.ended(&"flaky", Visited::Failed { random: 0 }, now);
        let failed = now;
        while plan.next(now, true).is_none() {
            now = now + Duration::from_secs(1);
            plan.heard("flaky", (), News::Pending(1), now);
        }
        waits.push(now.since(failed).as_secs());
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
    plan.heard("honest", (), News::Pending(1), at(0.0));
    plan.heard("honest", (), News::Pending(1), now);
    assert_eq!(plan.next(now, true), Some("honest"), "it has waited since before the failure was over");
}

#[test]
fn who_cannot_be_read_is_visited_now_and_then_and_when_something_is_new_here() {
    let mut plan = Schedule::new(1, false);
    let unreadable = |own| News::Unreadable { own };
    for other in ["a", "b"] {
        plan.heard(other, (), unreadable(OWN), at(0.0));
    }
    for seconds in [0.0, 1.0] {
        let next = plan.next(at(seconds), true).expect("not visited yet");
        plan.begin(&next);
        plan.ended(&next, DONE, at(seconds));
    }
    let heard = |plan: &mut Schedule<&'static str, ()>, own, seconds| {
        ["a", "b"].into_iter().for_each(|key| plan.heard(key, (), unreadable(own), at(seconds)));
        plan.next(at(seconds), true)
    };
    assert_eq!(heard(&mut plan, OWN, 30.0), None);
    assert!(heard(&mut plan, OWN + 1, 31.0).is_some());
    assert_eq!(heard(&mut plan, OWN, 32.0), None);
    assert_eq!(heard(&mut plan, OWN, 60.5), Some("a"));
}

#[test]
fn no_number_of_neighbours_fills_the_memory_or_takes_a_connection_away() {
    let mut plan = Schedule::new(1, false);
    plan.heard(0, (), News::Pending(1), at(0.0));
    plan.begin(&0);
    for key in 1..3 * KNOWN_MAX {
        plan.heard(key, (), News::Nothing, at(1.0));
    }
    assert_eq!(plan.len(), KNOWN_MAX);
    assert!(plan.about(&0).is_some());
    plan.heard(1, (), News::Nothing, at(100.0));
    assert_eq!(plan.next(at(100.0), true), None);
    assert_eq!(plan.len(), 2, "who was not heard for a minute is gone, the connected one is not");
}

/// How often an advert of each neighbour is heard, unless a visit takes longer.
const ADVERT_EVERY: Duration = Duration::from_secs(12);

/// How far time goes on while nobody is to be visited.
const IDLE_STEP: Duration = Duration::from_secs(4);

/// How visits went in a simulated time.
struct Outcome {
    /// The longest time from something new to the end of the visit that moved it, of honest neighbours.
    longest: Duration,
    /// Visits that succeeded, of each honest neighbour.
    visits: Vec<u32>,
}

/// Simulates `count` neighbours, each with something new once in `period`, on one radio that does one visit at a time and needs
/// `visit` for each; the first `flaky` of them fail, which takes as long.
fn simulate(count: usize, flaky: usize, period: Duration, visit: Duration, periods: u32) -> Outcome {
    let mut plan: Schedule<usize, ()> = Schedule::new(1, false);
    // Spread over the period, in an order that is none of the keys.
    let begins = |key: usize| period.mul_f64((key * 7_919 % count) as f64 / count as f64);
    let mut due: Vec<Instant> = (0..count).map(|key| Instant::ZERO + begins(key)).collect();
    let mut since: Vec<Option<Instant>> = vec![None; count];
    let (mut longest, mut visits) = (Duration::ZERO, vec![0; count]);
    let (mut now, end) = (Instant::ZERO, Instant::ZERO + period * periods);
    let (mut random, mut heard): (u32, Vec<Option<Instant>>) = (1, vec![None; count]);
    while now < end {
        for key in 0..count {
            let mut is_due = heard[key].is_none_or(|heard| now.since(heard) >= ADVERT_EVERY);
            while due[key] <= now {
                since[key].get_or_insert(due[key]);
                due[key] = due[key] + period;
                is_due = true;
            }
            if is_due {
                let news = if since[key].is_some() { News::Pending(1) } else { News::Nothing };
                plan.heard(key, (), news, now);
                heard[key] = Some(now);
            }
        }
        let Some(key) = plan.next(now, false) else {
            now = now + IDLE_STEP;
            continue;
        };
        plan.begin(&key);
        now = now + visit;
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if key < flaky {
            plan.ended(&key, Visited::Failed { random }, now);
            continue;
        }
        plan.ended(&key, DONE, now);
        visits[key] += 1;
        if let Some(begun) = since[key].take() {
            longest = longest.max(now.since(begun));
        }
    }
    Outcome { longest, visits: visits.split_off(flaky) }
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Serial work on one radio is bounded by `count * visit <= period`.
#[test]
fn below_the_radios_bound_nobody_waits_longer_than_twice_its_period() {
    for count in [10, 100, 1_000] {
        let visit = HOUR.mul_f64(0.7 / count as f64);
        let outcome = simulate(count, 0, HOUR, visit, 4);
        assert!(outcome.longest <= 2 * HOUR, "{count}: {:?}", outcome.longest);
        assert!(
            outcome.visits.iter().all(|visits| *visits >= 3),
            "{count}: {:?}",
            outcome.visits.iter().min()
        );
        // One of twenty never works, and each of its failures takes as long as a visit.
        let outcome = simulate(count, count / 20, HOUR, HOUR.mul_f64(0.5 / count as f64), 4);
        assert!(outcome.longest <= 2 * HOUR, "{count}, flaky: {:?}", outcome.longest);
    }
}

#[test]
fn above_the_radios_bound_all_suffer_alike() {
    for count in [10, 100, 1_000] {
        let outcome = simulate(count, 0, HOUR, HOUR.mul_f64(1.5 / count as f64), 6);
        let (least, most) = (outcome.visits.iter().min(), outcome.visits.iter().max());
        let (least, most) = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
        assert!(least >= 3 && most - least <= 1, "{count}: {least} to {most}");
    }
}
