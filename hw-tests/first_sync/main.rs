//! First syncs of random databases over real sockets: each ends with both sides equal, or with a word for each document
//! that is not, and why.
//!
//! A seed makes a plan (`plan`): two databases with a past that is partly the same (`past`), of all kinds of documents
//! (`values`), and how they meet. A real listener and a real replicator carry it out (`exchange`); what has to be true
//! then is judged apart from the code (`oracle`).
//!
//! | variable | |
//! |---|---|
//! | `GATTWAY_SEED` | run this seed alone and show its plan |
//! | `GATTWAY_FIRST_SYNCS` | how many seeds to run, from 1 on; some that have every kind unless given |
//! | `GATTWAY_FIRST_SEED` | the first of them, for a run in parts |
//!
//! At the end it tells what came up how often (`coverage`), and fails if a kind never did.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../command/mod.rs"]
mod command;
mod commands;
mod content;
mod coverage;
mod exchange;
mod expect;
mod history;
mod oracle;
mod past;
mod plan;
mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use content::{Both, content};
use coverage::Coverage;
use exchange::{LeftOut, Outcome, Report};
use oracle::Judge;
use past::Pair;
use plan::{ACTIVE, PASSIVE, Plan};

/// Seeds that are run each time: together, and with one that has a document of the largest size, they have every kind.
const SEEDS: [u64; 29] = [
    1, 15, 26, 30, 40, 62, 79, 93, 94, 97, 104, 105, 109, 110, 111, 113, 121, 123, 133, 135, 140, 143, 145,
    179, 189, 210, 214, 223, 228,
];

/// So many seeds in a row have every kind.
const SEEDS_WITH_ALL: u64 = 1_000;

/// Violations of one seed that are shown.
const VIOLATIONS_SHOWN: usize = 4;

/// Bytes that a run without news may cost: beginning and end, and for each collection.
const IDLE_BYTES: u64 = 1_500;
const IDLE_BYTES_COLLECTION: u64 = 700;
const IDLE_BYTES_LISTED: u64 = 0;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

fn both(pair: &Pair) -> Both {
    [content(&pair.databases[0]), content(&pair.databases[1])]
}

/// One sync of the two.
fn run(plan: &Plan, pair: &mut Pair) -> Outcome {
    if plan.commands {
        return pair.lend(plan, |directory| commands::run(plan, directory));
    }
    exchange::run(plan, &pair.databases[ACTIVE], &pair.databases[PASSIVE], pair.directory.path())
}

/// Runs one seed; gives what was wrong.
fn try_seed(plan: &Plan, coverage: &mut Coverage) -> Vec<String> {
    let mut pair = Pair::new(plan);
    let before = both(&pair);
    let first = run(plan, &mut pair);
    coverage.sync(plan, pair.refused, &before, &first);
    let mut after = both(&pair);
    let mut violations = Judge::new(plan, &before, &after, &first).run();
    violations.iter_mut().for_each(|what| what.insert_str(0, "first run: "));
    if !violations.is_empty() {
        return violations;
    }
    let mut reports = first.reports.clone();
    let mut last = first;
    let mut again = run(plan, &mut pair);
    let mut after_again = both(&pair);
    // What was resolved in one run is pushed in the next, or refused; revisions that cross may be resolved in the next.
    let later =
        usize::from(plan.pushes_resolutions_later()) + usize::from(content::mutually_contains(&before));
    for _ in 0..later {
        violations.extend(Judge::new(plan, &after, &after_again, &again).after_reports(&reports).run());
        reports.extend(again.reports.clone());
        (after, last, again) = (after_again, again, run(plan, &mut pair));
        after_again = both(&pair);
    }
    violations.extend(idle(plan, &last, &again, after == after_again));
    violations.extend(Judge::new(plan, &after, &after_again, &again).after_reports(&reports).run());
    if violations.is_empty() && plan.third && !plan.commands {
        reports.extend(again.reports);
        violations.extend(with_a_third(plan, &mut pair, &after_again, &reports));
    }
    violations
}

/// What is wrong when another database syncs with the passive side, and the active side once more.
fn with_a_third(plan: &Plan, pair: &mut Pair, before: &Both, reports: &[Report]) -> Vec<String> {
    let Some(third) = &pair.third else { return Vec::new() };
    let directory = pair.directory.path();
    let third_plan = plan.of_the_third();
    let third_before = [content(third), before[PASSIVE].clone()];
    let first = exchange::run(&third_plan, third, &pair.databases[PASSIVE], directory);
    let third_after = [content(third), content(&pair.databases[PASSIVE])];
    let judge = Judge::new(&third_plan, &third_before, &third_after, &first).with_a_shared_list();
    let mut violations: Vec<String> = judge.run().iter().map(|what| format!("third: {what}")).collect();
    let before = [before[ACTIVE].clone(), third_after[PASSIVE].clone()];
    let again = run(plan, pair);
    let after = both(pair);
    let judge = Judge::new(plan, &before, &after, &again).after_reports(reports).with_a_shared_list();
    violations.extend(judge.run().iter().map(|what| format!("after the third: {what}")));
    violations
}

/// What is wrong with a run that had nothing to do, after one that left the same to do.
fn idle(plan: &Plan, last: &Outcome, again: &Outcome, unchanged: bool) -> Vec<String> {
    let mut violations = Vec::new();
    if !unchanged {
        violations.push("the run without news has changed something".to_owned());
    }
    if again.error != last.error {
        violations.push(format!("the run without news ended with {:?}, not {:?}", again.error, last.error));
    }
    if !leaves_out_no_more(&again.left_out, &last.left_out) {
        violations
            .push(format!("the run without news leaves out {:?}, not {:?}", again.left_out, last.left_out));
    }
    // What may do better another time is tried again; everything else is only told.
    let tried_again = again.reports.iter().filter(|report| report.error.is_some()).count();
    if again.documents > 0 && tried_again == 0 {
        let moved: Vec<_> = again.reports.iter().take(VIOLATIONS_SHOWN).collect();
        violations.push(format!("the run without news has moved {} documents: {moved:?}", again.documents));
    }
    // A peer that takes nothing says so only when it is sent something.
    let asks_again = plan.direction.pushes() && plan.collections.iter().any(|c| !c.access.push);
    let max = most_bytes(plan, if tried_again > 0 || asks_again { last.bytes } else { Some(0) });
    if let (Some(bytes), Some(max)) = (again.bytes, max)
        && bytes > max
    {
        violations.push(format!("the run without news took {bytes} bytes, at most {max} are due"));
    }
    violations
}

/// Whether a run leaves out what the one before did. A direction that the peer refuses is told when something was tried
/// there; what the pull of the same run has settled is not tried again.
fn leaves_out_no_more(again: &LeftOut, last: &LeftOut) -> bool {
    let mut settled = last.collections.difference(&again.collections);
    (again.documents, &again.listed) == (last.documents, &last.listed)
        && again.collections.is_subset(&last.collections)
        && settled.all(|(_, why)| why.starts_with("nothing was sent"))
}

/// Bytes of a run without news, with so many for what is tried again.
fn most_bytes(plan: &Plan, tried_again: Option<u64>) -> Option<u64> {
    // The passive side lists again what it was given, unless both speak the extension.
    let listed = if plan.is_extended() { 0 } else { IDLE_BYTES_LISTED * plan.documents() as u64 };
    let ids: usize =
        plan.collections.iter().filter_map(|c| c.document_ids()).flatten().map(|id| 6 * id.len()).sum();
    let fixed = IDLE_BYTES + IDLE_BYTES_COLLECTION * plan.collections.len() as u64 + ids as u64;
    // A stock peer that lacks a collection is connected to once more.
    Some(2 * fixed + listed + tried_again?)
}

/// Runs seeds, as many at a time as there are cores, and panics with all that was wrong.
fn run_seeds(seeds: &[u64]) -> Coverage {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failed, coverage) =
        (Mutex::new(seeds.iter()), Mutex::new(Vec::new()), Mutex::new(Coverage::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().unwrap().next() else { return };
                    let mut of_seed = Coverage::default();
                    if !run_seed(*seed, &mut of_seed) {
                        failed.lock().unwrap().push(*seed);
                    }
                    coverage.lock().unwrap().merge(&of_seed);
                }
            });
        }
    });
    let (failed, coverage) = (failed.into_inner().unwrap(), coverage.into_inner().unwrap());
    println!("{coverage}");
    assert!(
        failed.is_empty(),
        "{} of {} first syncs went wrong, seeds {failed:?}",
        failed.len(),
        seeds.len()
    );
    coverage
}

/// Runs one seed and says what was wrong; whether nothing was.
fn run_seed(seed: u64, coverage: &mut Coverage) -> bool {
    let plan = Plan::new(seed);
    let began = std::time::Instant::now();
    let violations = catch_unwind(AssertUnwindSafe(|| try_seed(&plan, coverage)))
        .unwrap_or_else(|_| vec!["it panicked, see above".to_owned()]);
    if variable("GATTWAY_SHOW_KINDS").is_some() {
        println!("kinds {seed} {} {:?}", began.elapsed().as_millis(), coverage.kinds());
    }
    if violations.is_empty() {
        return true;
    }
    let shown = violations.iter().take(VIOLATIONS_SHOWN).map(|violation| format!("  {violation}\n"));
    eprintln!(
        "seed {seed} ({}):\n{}  {} in all; replay: GATTWAY_SEED={seed} cargo test --all-features --test first_sync",
        plan.summary(),
        shown.collect::<String>(),
        violations.len(),
    );
    false
}

#[test]
fn random_first_syncs() {
    if let Some(seed) = variable("GATTWAY_SEED") {
        println!("{:#?}", Plan::new(seed));
        run_seeds(&[seed]);
        return;
    }
    let first = variable("GATTWAY_FIRST_SEED").unwrap_or(1);
    let in_a_row = variable("GATTWAY_FIRST_SYNCS").map(|count| (first..first + count).collect::<Vec<_>>());
    let has_all = in_a_row.as_ref().is_none_or(|seeds| seeds.len() as u64 >= SEEDS_WITH_ALL);
    let coverage = run_seeds(&in_a_row.unwrap_or_else(|| {
        let largest = (1..).find(|seed| Plan::new(*seed).has_a_largest_document());
        largest.into_iter().chain(SEEDS).collect()
    }));
    if has_all {
        assert_eq!(coverage.missing(), [""; 0], "these kinds never came up");
    }
}

/// An oracle that finds nothing wrong shows nothing.
#[test]
fn the_oracle_finds_what_is_put_in() {
    let plan = (1..).map(Plan::new).find(Plan::is_plain).unwrap();
    let mut pair = Pair::new(&plan);
    let before = both(&pair);
    let outcome = run(&plan, &mut pair);
    let after = both(&pair);
    let judge = |after: &Both, outcome: &Outcome| Judge::new(&plan, &before, after, outcome).run();
    assert_eq!(judge(&after, &outcome), [""; 0]);
    let mut all = after[1].iter().flat_map(|(name, documents)| documents.keys().map(move |id| (name, id)));
    let is_equal = |(name, id): &(&String, &String)| {
        let at = |side: usize| after[side].get(*name).and_then(|documents| documents.get(*id));
        at(0).zip(at(1)).is_some_and(|(a, b)| a.body.is_some() && a.body == b.body)
    };
    let (name, id) = all.find(is_equal).unwrap();
    let finds = |what: &str, expected: &str, change: &dyn Fn(&mut Both, &mut Outcome)| {
        let (mut after, mut outcome) = (after.clone(), outcome.clone());
        change(&mut after, &mut outcome);
        let violations = judge(&after, &outcome);
        assert!(violations.iter().any(|violation| violation.contains(expected)), "{what}: {violations:?}");
    };
    finds("a document is missing", "side should have", &|after, _| {
        after[1].get_mut(name).unwrap().remove(id);
    });
    finds("a body is another", "side should have", &|after, _| {
        after[0].get_mut(name).unwrap().get_mut(id).unwrap().body = Some("{}".into());
    });
    finds("both have what neither had", "should have", &|after, _| {
        for content in after {
            content.get_mut(name).unwrap().get_mut(id).unwrap().body = Some("{}".into());
        }
    });
    let report = |error: Option<&str>, id: &str| Report {
        collection: name.clone(),
        id: id.to_owned(),
        sent: true,
        error: error.map(str::to_owned),
    };
    finds("an error without cause", "both sides are equal", &|_, outcome| {
        outcome.reports.push(report(Some("no"), id));
    });
    finds("a success without a document", "is not there", &|_, outcome| {
        outcome.reports.push(report(None, "no such document"));
    });
    finds("an early end", "ended early", &|_, outcome| outcome.error = Some("no".into()));
    finds("a count of nothing", "said to be left out", &|_, outcome| outcome.left_out.documents += 3);
    finds("a collection that lacks nothing", "without a reason", &|_, outcome| {
        outcome.left_out.collections.insert((name.clone(), "nothing was sent: no".into()));
    });
    finds("a list of the passive side", "the passive side lists", &|_, outcome| {
        outcome.passive_left_out.listed.insert(report(None, id));
    });
    finds("an exit code that does not fit", "exit code 7", &|_, outcome| outcome.exit = Some((7, true)));
}
