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
//! | `GATTWAY_FIRST_SYNCS` | how many seeds to run |

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod exchange;
mod oracle;
mod past;
mod plan;
mod values;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use exchange::{Outcome, Report};
use oracle::{Both, Judge, content};
use past::Pair;
use plan::Plan;

/// Seeds that are run each time.
const SEEDS: u64 = 30;

/// A seed whose plan is a one-shot push and pull of some documents.
const PLAIN_SEED: u64 = 10;

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

/// Runs one seed; gives what was wrong.
fn try_seed(plan: &Plan, refused: &AtomicU64) -> Vec<String> {
    let pair = Pair::new(plan);
    refused.fetch_add(pair.refused, Ordering::Relaxed);
    let run = || exchange::run(plan, &pair.databases, pair.directory.path());
    let before = both(&pair);
    let first = run();
    let mut after = both(&pair);
    let mut violations = Judge::new(plan, &before, &after, &first).first();
    if !violations.is_empty() {
        return violations;
    }
    let mut again = run();
    let mut after_again = both(&pair);
    if !plan.is_extended() && !plan.continuous && after_again != after {
        // What was resolved in the first run is pushed in the second.
        violations.extend(Judge::new(plan, &after, &after_again, &again).first());
        (after, again) = (after_again, run());
        after_again = both(&pair);
    }
    violations.extend(idle(plan, &first, &again, after == after_again));
    violations
}

/// What is wrong with a run that had nothing to do.
fn idle(plan: &Plan, first: &Outcome, again: &Outcome, unchanged: bool) -> Vec<String> {
    let mut violations = Vec::new();
    if !unchanged {
        violations.push("the run without news has changed something".to_owned());
    }
    if again.error != first.error {
        violations.push(format!("the run without news ended with {:?}, not {:?}", again.error, first.error));
    }
    if again.documents > 0 {
        let moved: Vec<_> = again.reports.iter().take(VIOLATIONS_SHOWN).collect();
        violations.push(format!("the run without news has moved {} documents: {moved:?}", again.documents));
    }
    let documents: usize = plan.collections.iter().map(|collection| collection.documents.len()).sum();
    // The passive side lists again what it was given, unless both speak the extension.
    let listed = if plan.is_extended() { 0 } else { IDLE_BYTES_LISTED * documents as u64 };
    let max = IDLE_BYTES + IDLE_BYTES_COLLECTION * plan.collections.len() as u64 + listed;
    if again.bytes > max {
        violations.push(format!("the run without news took {} bytes, at most {max} are due", again.bytes));
    }
    violations
}

/// Runs seeds, as many at a time as there are cores, and panics with all that was wrong.
fn run_seeds(seeds: Range<u64>) {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failed, refused) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if !run_seed(seed, &refused) {
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let (failed, count) = (failed.into_inner().unwrap(), seeds.end - seeds.start);
    println!("{count} first syncs; {} writes were refused where they entered", refused.into_inner());
    assert!(failed.is_empty(), "{} of {count} first syncs went wrong, seeds {failed:?}", failed.len());
}

/// Runs one seed and says what was wrong; whether nothing was.
fn run_seed(seed: u64, refused: &AtomicU64) -> bool {
    let plan = Plan::new(seed);
    let violations = catch_unwind(AssertUnwindSafe(|| try_seed(&plan, refused)))
        .unwrap_or_else(|_| vec!["it panicked, see above".to_owned()]);
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
        return run_seeds(seed..seed + 1);
    }
    run_seeds(1..1 + variable("GATTWAY_FIRST_SYNCS").unwrap_or(SEEDS));
}

/// An oracle that finds nothing wrong shows nothing.
#[test]
fn the_oracle_finds_what_is_put_in() {
    let plan = Plan::new(PLAIN_SEED);
    let pair = Pair::new(&plan);
    let before = both(&pair);
    let outcome = exchange::run(&plan, &pair.databases, pair.directory.path());
    let after = both(&pair);
    let judge = |after: &Both, outcome: &Outcome| Judge::new(&plan, &before, after, outcome).first();
    assert_eq!(judge(&after, &outcome), [""; 0]);
    let (name, documents) = after[1].iter().max_by_key(|(_, documents)| documents.len()).unwrap();
    let id = documents.keys().next().unwrap();
    let finds = |what: &str, expected: &str, change: &dyn Fn(&mut Both, &mut Outcome)| {
        let (mut after, mut outcome) = (after.clone(), outcome.clone());
        change(&mut after, &mut outcome);
        let violations = judge(&after, &outcome);
        assert!(violations.iter().any(|violation| violation.contains(expected)), "{what}: {violations:?}");
    };
    finds("a document is missing", "the sides differ", &|after, _| {
        after[1].get_mut(name).unwrap().remove(id);
    });
    finds("a body is another", "the sides differ", &|after, _| {
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
}
