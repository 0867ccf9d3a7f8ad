//! The plan by itself, and in a world of field devices around a gateway in virtual time.

use std::collections::BTreeMap;

use super::*;

mod world;

fn at(seconds: f64) -> Instant {
    Instant::ZERO + Duration::from_secs_f64(seconds)
}

fn plan(links: usize, kept: usize) -> Scheduler<u32> {
    Scheduler::new(Settings { links, kept, all: false, seed: 1 }, 1)
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
    let mut plan = Scheduler::new(Settings { links: 1, kept: 0, all: false, seed: 1 }, 2);
    plan.heard(at(0.0), 0, 1, News::Pending(1));
    plan.set_present(at(0.5), 0, false);
    assert!(!plan.listens(at(0.5), 0));
    assert_eq!(plan.next(at(1.0)), Some(Action::Visit { key: 1, radio: 1, stays: false }));
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
        let settings = Settings { links, kept, all: random.bool(), seed };
        let mut plan = Scheduler::new(settings, 2);
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
