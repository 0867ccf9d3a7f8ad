use super::*;
use proptest::prelude::*;

const NS_PER_S: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * NS_PER_S;

fn sweep_all(keeper: &mut Keeper, now: u64, sweep: Sweep, all: &[AgedDocument]) -> Vec<Aged> {
    let mut sweep = sweep;
    all.iter().cloned().for_each(|seen| sweep.see(seen));
    keeper.swept(now, sweep)
}

/// Does what the keeper wants until it waits; gives how long, and how many sweeps there were.
fn settle(
    keeper: &mut Keeper,
    now: u64,
    confirmed: u64,
    all: &mut Vec<AgedDocument>,
    removed: &mut Vec<AgedDocument>,
) -> (Duration, u32) {
    for sweeps in 0..1_000 {
        let mut step;
        loop {
            let last_sequence = all.last().map_or(0, |seen| seen.sequence);
            let extent = Extent { documents: all.len() as u64, last_sequence, confirmed };
            step = keeper.next(now, extent);
            let Step::Look { after } = step else { break };
            all.iter().filter(|seen| seen.sequence > after).for_each(|seen| keeper.look(seen));
            keeper.looked(last_sequence);
        }
        match step {
            Step::Sweep(sweep) => {
                for gone in sweep_all(keeper, now, sweep, all) {
                    let at = all.iter().position(|seen| seen.sequence == gone.sequence).expect("there");
                    removed.push(all.remove(at));
                }
            }
            Step::Wait(wait) => return (wait, sweeps),
            Step::Look { .. } => unreachable!(),
        }
    }
    panic!("it sweeps without end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Against every document kept in a list: what is wanted stays, no limit is passed, and nothing that may not go does.
    #[test]
    fn what_is_wanted_stays_and_no_limit_is_passed(
        age in prop::option::of(1u64..200),
        documents in prop::option::of(1u64..120),
        bytes in prop::option::of(200u64..20_000),
        steps in prop::collection::vec((0u64..20, prop::collection::vec((0u64..300, 1u64..400, any::<bool>()), 0..30), any::<bool>()), 1..40),
    ) {
        let rule = Rule { age: age.map(|hours| Duration::from_nanos(hours * HOUR)), documents, bytes };
        let mut keeper = Keeper::new(rule);
        let (mut all, mut removed, mut sequence, mut now) = (Vec::new(), Vec::new(), 0u64, 1_000 * HOUR);
        let mut confirmed = 0;
        for (hours, new, confirms) in steps {
            now += hours * HOUR;
            for (late, bytes, has_time) in new {
                sequence += 1;
                let time = (has_time || late > 3).then(|| now - late * HOUR + sequence);
                all.push(AgedDocument { id: sequence.to_string().into(), sequence, time, bytes });
            }
            if confirms {
                confirmed = sequence;
            }
            // A minute later at the latest, what was held is looked at again.
            now += 61 * NS_PER_S;
            let before = removed.len();
            let (wait, sweeps) = settle(&mut keeper, now, confirmed, &mut all, &mut removed);
            prop_assert!(wait >= LOOK_MIN && sweeps <= 6, "{sweeps} sweeps");
            prop_assert!(removed[before..].iter().all(|seen| seen.sequence <= confirmed));
            let may_go = |seen: &&AgedDocument| seen.sequence <= confirmed;
            let sum = |all: &[AgedDocument]| all.iter().map(|seen| seen.bytes).sum::<u64>();
            prop_assert_eq!(keeper.bytes(), Some(sum(&all)));
            let can_go = all.iter().filter(may_go).count();
            prop_assert!(can_go == 0 || documents.is_none_or(|limit| all.len() as u64 <= limit));
            prop_assert!(can_go == 0 || bytes.is_none_or(|limit| sum(&all) <= limit));
            let too_old = |time: u64, share: u64| age.is_some_and(|hours| time + hours * HOUR + share * hours * HOUR / SHARE <= now);
            prop_assert!(!all.iter().filter(may_go).any(|seen| seen.time.is_some_and(|time| too_old(time, 1))));
            // What went was too old, or older than all that stays and could go, and no more than a share was made free.
            for gone in &removed[before..] {
                let is_old = gone.time.is_some_and(|time| too_old(time, 0));
                let is_beyond = || {
                    let room = |limit: u64, left: u64, of_it: u64| left + of_it > limit - limit / SHARE;
                    documents.is_some_and(|limit| room(limit, all.len() as u64, 1))
                        || bytes.is_some_and(|limit| room(limit, sum(&all), gone.bytes))
                };
                prop_assert!(is_old || documents.is_some() || bytes.is_some());
                prop_assert!(is_old || removed[before..].len() > 1 || is_beyond(), "{gone:?} need not have gone");
                if let Some(time) = gone.time.filter(|_| !is_old) {
                    let older_stays = all.iter().filter(may_go).any(|seen| seen.time.is_some_and(|other| other < time));
                    prop_assert!(!older_stays, "{gone:?} went before what is older");
                }
            }
        }
    }
}

#[test]
fn a_steady_stream_makes_a_sweep_for_a_share_of_the_limit() {
    let mut keeper = Keeper::new(Rule { documents: Some(3_200), ..Rule::default() });
    let (mut all, mut removed, mut sweeps) = (Vec::new(), Vec::new(), 0);
    for n in 1..=20_000u64 {
        all.push(AgedDocument { id: n.to_string().into(), sequence: n, time: Some(n * NS_PER_S), bytes: 50 });
        sweeps += settle(&mut keeper, n * NS_PER_S, u64::MAX, &mut all, &mut removed).1;
        assert!(all.len() <= 3_200);
        assert!(all.len() as u64 >= 3_100.min(n));
    }
    assert!(sweeps < 200, "{sweeps} sweeps");
    assert!(removed.windows(2).all(|pair| pair[0].sequence + 1 == pair[1].sequence), "the oldest first");
}

#[test]
fn an_age_is_looked_at_when_the_oldest_is_due() {
    let mut keeper = Keeper::new(Rule { age: Some(Duration::from_secs(32 * 3_600)), ..Rule::default() });
    let begin = 1_000 * HOUR;
    let mut all = vec![AgedDocument { id: "a".into(), sequence: 1, time: Some(begin), bytes: 9 }];
    let mut removed = Vec::new();
    let (wait, _) = settle(&mut keeper, begin, u64::MAX, &mut all, &mut removed);
    assert_eq!(wait, LOOK_MAX);
    let (wait, sweeps) =
        settle(&mut keeper, begin + 33 * HOUR - 60 * NS_PER_S, u64::MAX, &mut all, &mut removed);
    assert_eq!((wait, sweeps, all.len()), (Duration::from_secs(60), 0, 1));
    let (_, sweeps) = settle(&mut keeper, begin + 33 * HOUR, u64::MAX, &mut all, &mut removed);
    assert_eq!((sweeps, all.len()), (1, 0));
}

#[test]
fn what_was_confirmed_since_goes_as_soon_as_another_sweep_is_no_burden() {
    for (sweep_s, pause_s) in [(0, 1), (1, 8), (60, 15)] {
        let mut keeper = Keeper::new(Rule { documents: Some(1), ..Rule::default() });
        let document =
            |n: u64| AgedDocument { id: n.to_string().into(), sequence: n, time: Some(n), bytes: 50 };
        let all: Vec<AgedDocument> = (1..=3).map(document).collect();
        let extent = |confirmed| Extent { documents: 3, last_sequence: 3, confirmed };
        let begin = 1_000 * HOUR;
        let Step::Sweep(sweep) = keeper.next(begin, extent(0)) else { panic!("nothing is known yet") };
        let end = begin + sweep_s * NS_PER_S;
        assert!(sweep_all(&mut keeper, end, sweep, &all).is_empty(), "nothing is confirmed");
        let Step::Wait(wait) = keeper.next(end, extent(2)) else { panic!("it has just swept") };
        assert_eq!(wait, Duration::from_secs(pause_s));
        let then = end + pause_s * NS_PER_S;
        let Step::Sweep(sweep) = keeper.next(then, extent(2)) else { panic!("it does not sweep") };
        assert_eq!(sweep_all(&mut keeper, then, sweep, &all).len(), 2);
    }
}
