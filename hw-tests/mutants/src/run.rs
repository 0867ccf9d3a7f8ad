//! Runs the tests: once to see which changes each comes by, then for each change those that come by it, until one fails.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::weave::Change;

/// Memory that a changed program may ask for, in KiB.
const MEMORY_KIB: u64 = 6 << 20;
/// A program that goes round for ever is ended after this, and twenty times what the test takes; what it waits for a processor that others
/// have counts for nothing.
const PATIENCE: Duration = Duration::from_secs(6);

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The test passed.
    Passed,
    /// It failed, or the process was ended by a signal.
    Failed,
    /// It was ended because it took too long.
    Hung,
}

/// What became of a change.
pub enum Verdict {
    /// Noticed by this test.
    Caught(String),
    /// Noticed because this test did not end.
    Hang(String),
    /// Every one of so many tests passed.
    Missed(usize),
}

/// A test, and what it comes by.
pub struct Test {
    /// As the test program calls it.
    pub name: String,
    took: Duration,
    reaches: HashSet<u32>,
}

/// The test program.
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Where it is run.
    pub directory: PathBuf,
    /// How many at a time.
    pub jobs: usize,
}

/// How long the thread of a process that has waited most was ready to run and did not, as Linux counts it; nothing where it does not.
fn waited_for_processor(process: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let waited = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse().ok()
    });
    Duration::from_nanos(waited.max().unwrap_or(0))
}

impl Program {
    fn run(&self, test: &str, (name, value): (&str, &str), patience: Duration) -> io::Result<Ended> {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -v {MEMORY_KIB}; ulimit -c 0; exec \"$0\" --exact \"$1\" --test-threads 1"))
            .arg(&self.path)
            .arg(test)
            .env("CARGO_MANIFEST_DIR", &self.directory)
            .env("NEXTEST", "1")
            .env("RUST_BACKTRACE", "0")
            .env(name, value)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(if status.success() { Ended::Passed } else { Ended::Failed });
            }
            if begin.elapsed() > patience && begin.elapsed() > patience + waited_for_processor(child.id()) {
                child.kill()?;
                child.wait()?;
                return Ok(Ended::Hung);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Does `work` for each of `items` on as many threads as there are jobs; the results have no order.
    fn each<I: Send, T: Send>(
        &self,
        items: Vec<I>,
        work: impl Fn(I) -> io::Result<T> + Sync,
    ) -> io::Result<Vec<T>> {
        let queue = Mutex::new(items.into_iter());
        let next =
            || queue.lock().map_err(|_| io::Error::other("a thread panicked")).map(|mut items| items.next());
        let thread = || {
            let mut results = Vec::new();
            while let Some(item) = next()? {
                results.push(work(item)?);
            }
            io::Result::Ok(results)
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.jobs).map(|_| scope.spawn(thread)).collect();
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().map_err(|_| io::Error::other("a thread panicked"))??);
            }
            Ok(all)
        })
    }

    /// Runs each test without a change, and notes what it comes by.
    ///
    /// # Errors
    /// If a test fails, or of input and output.
    pub fn record(&self, names: Vec<String>, directory: &Path) -> io::Result<Vec<Test>> {
        fs::create_dir_all(directory)?;
        self.each(names, |name| {
            let file = directory.join(name.replace("::", "."));
            let _ = fs::remove_file(&file);
            let begin = Instant::now();
            let ended =
                self.run(&name, ("MUTANTS_REACHED", &file.to_string_lossy()), Duration::from_secs(300))?;
            if ended != Ended::Passed {
                return Err(io::Error::other(format!("{name} fails without any change")));
            }
            let reaches = match fs::read_to_string(&file) {
                Ok(text) => text.lines().filter_map(|line| line.parse().ok()).collect(),
                Err(_) => HashSet::new(),
            };
            Ok(Test { name, took: begin.elapsed(), reaches })
        })
    }

    /// Tries the changes, each with those of `tests` that come by it: first what is quick and what noticed changes nearby.
    ///
    /// # Errors
    /// Of input and output.
    pub fn judge<'a>(
        &self,
        changes: Vec<&'a Change>,
        tests: &[Test],
        say: impl Fn(&Change, &Verdict) -> io::Result<()> + Sync,
    ) -> io::Result<()> {
        let noticed: Mutex<HashMap<(&str, usize), u32>> = Mutex::default();
        self.each(changes, |change| {
            let mut reaching: Vec<(f64, usize)> = {
                let noticed = noticed.lock().map_err(|_| io::Error::other("a thread panicked"))?;
                let count =
                    |place: &'a str, test| f64::from(noticed.get(&(place, test)).copied().unwrap_or(0));
                let weight =
                    |test: usize| 1.0 + 9.0 * count(&change.function, test) + 3.0 * count(&change.file, test);
                let cost = |(at, test): (usize, &Test)| {
                    (test.took.as_secs_f64() * (50.0 + test.reaches.len() as f64) / weight(at), at)
                };
                tests
                    .iter()
                    .enumerate()
                    .filter(|(_, test)| test.reaches.contains(&change.number))
                    .map(cost)
                    .collect()
            };
            reaching.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut verdict = Verdict::Missed(reaching.len());
            for (_, at) in reaching {
                let test = &tests[at];
                verdict = match self.run(
                    &test.name,
                    ("MUTANT", &change.number.to_string()),
                    PATIENCE + test.took * 20,
                )? {
                    Ended::Passed => continue,
                    Ended::Failed => Verdict::Caught(test.name.clone()),
                    Ended::Hung => Verdict::Hang(test.name.clone()),
                };
                if let Ok(mut noticed) = noticed.lock() {
                    *noticed.entry((&change.function, at)).or_default() += 1;
                    *noticed.entry((&change.file, at)).or_default() += 1;
                }
                break;
            }
            say(change, &verdict)
        })?;
        Ok(())
    }
}
