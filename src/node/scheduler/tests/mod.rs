//! The plan by itself, and in a world of field devices around a gateway in virtual time.

use std::collections::BTreeMap;

use super::*;

mod world;

const REST: Duration = Duration::from_secs(15);

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

fn radio(links: usize) -> RadioPlan {
    RadioPlan { links, rest: REST }
}

fn plan(links: usize, kept: usize) -> Scheduler<u32> {
    Scheduler::new(Settings { kept, all: false, seed: 1 }, &[radio(links)])
}

/// It has heard all who are near.
fn listened(plan: &mut Scheduler<u32>) {
    assert!(plan.listens(at(0.0), 0) && plan.listens(at(2.0), 0));
}

fn visit(key: u32) -> Option<Action<u32>> {
    Some(Action::Visit { key, radio: 0, stays: false })
}

#[test]
fn a_quiet_neighbour_costs_no_connection_unless_it_is_the_only_one() {
    let mut plan = plan(2, 1);
    assert!(plan.listens(at(0.0), 0));
    plan.heard(at(0.1), 0, 1, News::None);
    assert_eq!(plan.next(at(1.9)), None, "others may be yet unheard");
    let only = Some(Action::Visit { key: 1, radio: 0, stays: true });
    assert_eq!(plan.next(at(2.1)), only);
    plan.connected(1);
    plan.idle(1, true);
    plan.heard(at(3.0), 0, 2, News::None);
    assert_eq!(plan.next(at(3.0)), Some(Action::Leave(1)), "it may be wanted by others");
    plan.ended(at(4.0), 1, Ending::Left);
    assert_eq!(plan.next(at(9.0)), None, "both are quiet");
    plan.heard(at(10.0), 0, 2, News::Pending(1));
    assert_eq!(plan.next(at(10.0)), visit(2));
}

#[test]
fn an_idle_connection_is_left_when_its_slot_is_wanted() {
    let mut plan = plan(1, 2);
    listened(&mut plan);
    plan.heard(at(2.0), 0, 1, News::Pending(1));
    assert_eq!(plan.next(at(2.0)), Some(Action::Visit { key: 1, radio: 0, stays: true }));
    plan.connected(1);
    plan.heard(at(3.0), 0, 2, News::Pending(1));
    assert_eq!(plan.next(at(3.0)), None, "documents move");
    plan.idle(1, true);
    assert_eq!(plan.next(at(3.0)), Some(Action::Leave(1)));
    assert_eq!(plan.next(at(3.0)), None, "told once");
    plan.ended(at(4.0), 1, Ending::Left);
    assert_eq!(plan.next(at(4.0)), Some(Action::Visit { key: 2, radio: 0, stays: true }));
}

#[test]
fn who_is_connected_to_at_once_is_no_reason_not_to_hear_the_others() {
    let mut plan = plan(2, 1);
    assert!(plan.listens(at(0.0), 0));
    plan.heard(at(0.1), 0, 1, News::Pending(1));
    assert!(plan.next(at(0.1)).is_some());
    plan.connected(1);
    assert!(plan.listens(at(1.0), 0), "it has listened for a moment only");
    assert!(!plan.listens(at(4.0), 0));
    assert!(!plan.listens(at(13.0), 0), "listening takes air");
    assert!(plan.listens(at(14.0), 0));
}

#[test]
fn one_connects_at_a_time_and_no_more_than_there_are_slots() {
    let mut plan = plan(2, 0);
    listened(&mut plan);
    for key in 1..=3 {
        plan.heard(at(2.0 + f64::from(key) / 10.0), 0, key, News::Pending(1));
    }
    assert_eq!(plan.next(at(3.0)), visit(1));
    assert_eq!(plan.next(at(3.0)), None);
    assert!(!plan.listens(at(3.0), 0), "a radio does not listen while it connects");
    plan.connected(1);
    assert_eq!(plan.next(at(4.0)), visit(2));
    plan.connected(2);
    assert_eq!(plan.next(at(5.0)), None);
    plan.ended(at(6.0), 1, Ending::Done);
    assert_eq!(plan.next(at(6.0)), visit(3));
}

#[test]
fn a_full_adapter_is_learned_and_tried_again() {
    let mut plan = plan(3, 0);
    let hear = |plan: &mut Scheduler<u32>, now: f64| {
        (1..=3).for_each(|key| assert!(plan.heard(at(now), 0, key, News::Pending(1))));
    };
    hear(&mut plan, 0.0);
    assert_eq!(plan.next(at(0.0)), visit(1));
    plan.connected(1);
    assert_eq!(plan.next(at(0.0)), visit(2));
    plan.ended(at(1.0), 2, Ending::Full);
    hear(&mut plan, 10.0);
    assert_eq!(plan.next(at(10.0)), None, "one connection is all that it has room for");
    plan.ended(at(11.0), 1, Ending::Done);
    hear(&mut plan, 12.0);
    let Some(Action::Visit { key, .. }) = plan.next(at(12.0)) else { panic!("somebody waits") };
    plan.connected(key);
    assert_eq!(plan.next(at(12.0)), None);
    hear(&mut plan, 62.0);
    assert_eq!(plan.next(at(62.0)), None, "it looks who is near first");
    assert!(matches!(plan.next(at(66.0)), Some(Action::Visit { .. })), "perhaps it has more room by now");
}

#[test]
fn a_radio_that_is_gone_is_neither_heard_nor_used_and_the_other_takes_over() {
    let mut plan = Scheduler::new(Settings { kept: 0, all: false, seed: 1 }, &[radio(1), radio(1)]);
    plan.heard(at(0.0), 0, 1, News::Pending(1));
    plan.set_present(at(0.5), 0, false);
    assert!(!plan.listens(at(0.5), 0));
    assert_eq!(plan.next(at(1.0)), None, "the other has not heard it yet");
    plan.heard(at(1.0), 1, 1, News::Pending(1));
    assert_eq!(plan.next(at(1.0)), Some(Action::Visit { key: 1, radio: 1, stays: false }));
    // Back again, it takes its share.
    plan.set_present(at(2.0), 0, true);
    plan.heard(at(3.0), 1, 2, News::Pending(1));
    assert_eq!(plan.next(at(3.0)), None, "the other is busy, and it has not heard this one");
    plan.heard(at(4.0), 0, 2, News::Pending(1));
    assert_eq!(plan.next(at(4.0)), Some(Action::Visit { key: 2, radio: 0, stays: false }));
}

#[test]
fn a_radio_without_news_leaves_the_air_alone_and_meets_who_comes_by() {
    for (radios, seed) in [(1, 1), (1, 2), (2, 3)] {
        let mut random = fastrand::Rng::with_seed(seed);
        let plans = vec![radio(5); radios];
        let mut plan: Scheduler<u32> = Scheduler::new(Settings { kept: 0, all: false, seed }, &plans);
        let (mut listened, mut quiet, mut now, mut next) = (0, 0, 0.0, 100);
        while next < 140 {
            // Two who have nothing new stay; now and then one comes by for a minute.
            let comes = now + 300.0 + random.f64() * 60.0;
            let mut met = None;
            while now < comes + 60.0 && met.is_none() {
                now += 0.25;
                let mut heard = [false; 2];
                for (radio, heard) in heard.iter_mut().enumerate().take(radios) {
                    *heard = plan.listens(at(now), radio);
                    if *heard && random.f64() < 0.25 {
                        plan.heard(at(now), radio, random.u32(0..2), News::None);
                        if now >= comes {
                            plan.heard(at(now), radio, next, News::Pending(1));
                        }
                    }
                }
                if now >= comes - 200.0 && now < comes {
                    quiet += 1;
                    listened += heard.iter().filter(|heard| **heard).count();
                }
                if let Some(action) = plan.next(at(now)) {
                    let Action::Visit { key, .. } = action else { panic!("nothing is kept") };
                    assert_eq!(key, next, "the others have nothing new");
                    met = Some(now - comes);
                    plan.connected(key);
                    plan.ended(at(now), key, Ending::Done);
                }
            }
            let after = met.unwrap_or_else(|| panic!("{next} came by and was not met"));
            assert!(after < REST.as_secs_f64() + 15.0, "{next} was met after {after} s");
            next += 1;
        }
        let share = f64::from(listened as u32) / f64::from(quiet) / radios as f64;
        println!("{radios} radios: each listened {share:.2} of the time while nothing was new");
        assert!((0.2..0.3).contains(&share), "{share}");
    }
}

#[test]
fn a_change_of_this_database_has_it_listen_at_once() {
    let mut plan = plan(1, 0);
    assert!(plan.listens(at(0.0), 0));
    let sleeps = (60..120).map(f64::from).find(|now| !plan.listens(at(*now), 0)).expect("it rests");
    plan.changed(at(sleeps), |_| News::None);
    assert!((0..59).all(|second| plan.listens(at(sleeps + f64::from(second)), 0)));
}

#[test]
fn a_radio_that_hears_nobody_any_more_listens_on_for_longer_than_a_stall_takes_to_show() {
    let mut plan = plan(1, 0);
    let mut last = 0.0;
    for now in (0..200).map(f64::from) {
        if plan.listens(at(now), 0) {
            plan.heard(at(now), 0, 1, News::None);
            last = now;
        }
    }
    let longest = |plan: &mut Scheduler<u32>, last: f64, until: u32| {
        let listens = (1..until).map(|second| plan.listens(at(last + f64::from(second)), 0));
        listens
            .fold(
                (0, 0),
                |(longest, run), listens| {
                    if listens { (longest.max(run + 1), run + 1) } else { (longest, 0) }
                },
            )
            .0
    };
    assert!(longest(&mut plan, last, 61) >= 38, "{}", longest(&mut plan, last, 61));
    // Where nobody ever was, too.
    let mut plan = self::plan(1, 0);
    assert!(longest(&mut plan, 60.0, 540) <= 6);
    assert!(longest(&mut plan, 60.0, 600) >= 38);
}

#[test]
fn radios_do_not_all_rest_at_the_same_time() {
    let mut plan: Scheduler<u32> = Scheduler::new(Settings { kept: 0, all: false, seed: 1 }, &[radio(1); 4]);
    let all_rest = (200..1_000).map(f64::from).filter(|now| (0..4).all(|r| !plan.listens(at(*now), r)));
    assert_eq!(all_rest.count(), 0);
}

/// A table of loads, printed with `--nocapture`: N devices of which each makes M bytes an hour.
#[test]
fn a_gateway_reaches_the_bound_of_its_radio_and_is_fair_beyond_it() {
    println!("devices  M/hour  radios  load   of bound  longest wait  visits: fewest, most");
    for (devices, bytes, radios) in LOADS {
        let world = world::Config { devices, bytes, radios, ..world::Config::default() };
        let seen = world::run(&world);
        let (load, [fewest, most]) = (world.load(), seen.visits);
        println!(
            "{devices:>7} {bytes:>7} {radios:>7} {load:>6.2} {:>9.2} {:>11.0} s {fewest:>8}, {most}",
            seen.moved / world.bound(),
            seen.longest_wait,
        );
        if load <= 0.7 {
            assert!(seen.longest_wait <= world::PERIOD / 2.0, "{world:?}: {seen:?}");
            assert!(seen.moved >= 0.95 * world.made(), "{world:?}: {seen:?}");
        } else {
            assert!(seen.moved >= 0.7 * world.bound().min(world.made()), "{world:?}: {seen:?}");
        }
        assert!(most - fewest <= 2.max(most / 4), "{world:?}: {seen:?}");
    }
}

const LOADS: [(u32, u32, usize); 12] = [
    (10, 1_000, 1),
    (10, 100_000, 1),
    (10, 1_000_000, 1),
    (100, 1_000, 1),
    (100, 100_000, 1),
    (100, 1_000_000, 1),
    (1_000, 1_000, 1),
    (1_000, 100_000, 1),
    (1_000, 1_000_000, 1),
    (100, 1_000_000, 2),
    (1_000, 100_000, 2),
    (1_000, 1_000_000, 2),
];

#[test]
fn flaky_neighbours_cost_the_others_little_and_are_reached_themselves() {
    for (devices, bytes) in [(100, 100_000), (1_000, 1_000), (100, 1_000_000)] {
        let world = world::Config { devices, bytes, flaky: 0.05, ..world::Config::default() };
        let seen = world::run(&world);
        println!("{world:?}: {seen:?}");
        assert!(seen.longest_wait <= world::PERIOD / 2.0, "{seen:?}");
        assert!(devices == 1_000 || seen.longest_wait_flaky <= world::PERIOD, "{seen:?}");
        assert!(seen.moved >= 0.7 * world.bound().min(world.made()), "{seen:?}");
    }
}

#[test]
fn who_passes_by_for_a_minute_is_met_although_others_wait() {
    for (devices, bytes) in [(10, 100_000), (100, 100_000), (100, 1_000_000), (1_000, 100_000)] {
        let world = world::Config { devices, bytes, passing: 60, ..world::Config::default() };
        let seen = world::run(&world);
        println!("{world:?}: {seen:?}");
        assert!(seen.met_passing >= 0.95, "{world:?}: {seen:?}");
        assert!(seen.moved >= 0.7 * world.bound().min(world.made()), "{world:?}: {seen:?}");
    }
}

#[test]
fn any_events_in_any_order_keep_the_limits() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (links, kept) = (random.usize(1..5), random.usize(0..3));
        let settings = Settings { kept, all: random.bool(), seed };
        let mut plan = Scheduler::new(settings, &[radio(links), radio(links)]);
        // Key to radio and whether it connects.
        let mut visits: BTreeMap<u32, (usize, bool)> = BTreeMap::new();
        let mut now = 0.0;
        for _ in 0..400 {
            now += random.f64();
            let key = random.u32(0..12);
            match random.u8(0..8) {
                0..=2 => assert!(plan.heard(at(now), random.usize(0..2), key, News::Pending(1))),
                3 => assert!(plan.heard(at(now), random.usize(0..2), key, News::None)),
                4 => {
                    plan.connected(key);
                    if let Some((_, connects)) = visits.get_mut(&key) {
                        *connects = false;
                    }
                }
                5 => plan.idle(key, random.bool()),
                6 => plan.set_present(at(now), random.usize(0..2), random.bool()),
                _ => {
                    let endings = [Ending::Done, Ending::Failed, Ending::Full, Ending::Left];
                    plan.ended(at(now), key, endings[random.usize(0..4)]);
                    visits.remove(&key);
                }
            }
            while let Some(action) = plan.next(at(now)) {
                match action {
                    Action::Visit { key, radio, .. } => {
                        assert!(
                            visits.insert(key, (radio, true)).is_none(),
                            "seed {seed}: visited twice at once"
                        );
                    }
                    Action::Leave(key) => {
                        assert!(visits.contains_key(&key), "seed {seed}: left without a visit")
                    }
                }
            }
            for radio in 0..2 {
                let of =
                    |connects: bool| visits.values().filter(|v| v.0 == radio && (v.1 || !connects)).count();
                assert!(of(false) <= links, "seed {seed}: more than {links} links");
                assert!(of(true) <= 1, "seed {seed}: two connect at once");
                assert!(
                    of(true) == 0 || !plan.listens(at(now), radio),
                    "seed {seed}: listens while it connects"
                );
            }
        }
    }
}
