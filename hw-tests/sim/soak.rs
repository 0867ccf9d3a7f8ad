//! Runs fresh seeds for hours on several threads, and sums up.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::plan::Plan;
use super::report::Sums;
use super::run::simulate;
use super::world::lock;
use super::{report, variable};

/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);

/// Failed runs that are shown whole; further ones are only listed.
const FAILURES_SHOWN: usize = 3;

/// Runs until the time is over; fails at the end if any run did.
pub fn run() {
    let hours: f64 = variable("GATTWAY_SOAK_HOURS").unwrap_or(1.0);
    let jobs: usize = variable("GATTWAY_SOAK_JOBS").unwrap_or(1);
    let first: u64 = variable("GATTWAY_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(hours * 3600.0);
    println!("seeds from {first} on, {jobs} at a time, for {hours} h");
    let (next, sums, told) = (AtomicU64::new(first), Mutex::new(Sums::default()), Mutex::new(began));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while Instant::now() < end {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let plan = if seed.is_multiple_of(2) { Plan::new(seed) } else { Plan::adverse(seed) };
                    let outcome = simulate(plan, false);
                    let mut sums = lock(&sums);
                    sums.add(&outcome);
                    if !outcome.violations.is_empty() && sums.failed.len() <= FAILURES_SHOWN {
                        report(&outcome);
                    }
                    let mut told = lock(&told);
                    if told.elapsed() >= PROGRESS_INTERVAL {
                        *told = Instant::now();
                        println!("{:>6.0} s: {}", began.elapsed().as_secs_f64(), sums.line());
                    }
                }
            });
        }
    });
    let sums = sums.into_inner().unwrap();
    println!("\n{}", sums.table());
    let mut json = sums.json();
    json["first_seed"] = first.into();
    json["jobs"] = jobs.into();
    json["seconds"] = began.elapsed().as_secs_f64().into();
    match variable::<String>("GATTWAY_SOAK_JSON") {
        Some(path) => fs::write(&path, format!("{json}\n")).unwrap(),
        None => println!("{json}"),
    }
    assert!(sums.failed.is_empty(), "{} runs failed", sums.failed.len());
}
