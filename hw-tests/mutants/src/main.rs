//! Tries the changes of cargo-mutants with one build: each stands behind a switch that an environment variable turns on, and is tried with the
//! tests that come by it alone. For `scripts/mutants --fast`, which says what it needs:
//!
//! `mutants WORK AREA...`, where `WORK/fast/source` is a copy of the project and `WORK/fast/tree` another, which gets the switches,
//! `WORK/fast/AREA.json` lists the changes as `cargo mutants --list --json` does, and `WORK/fast/AREA.tests` is the expression of nextest for the
//! tests. Results go where cargo-mutants puts them: `WORK/out/AREA/mutants.out/{caught,missed,timeout,unviable}.txt`. Beside them `skipped.txt` has
//! what has no form with a switch, `unreached.txt` what of the missed no test comes by, `noticed.txt` which test noticed what.
//!
//! Each result is written as soon as it is known, and what has one is not tried again: started a second time, the program goes on where it was
//! stopped.

mod results;
mod run;
mod weave;

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use results::Results;
use run::{Program, Verdict};
use serde_json::Value;
use weave::{Change, Piece};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// What a build has to be told.
const BUILD: [&str; 5] = ["--locked", "--lib", "--no-default-features", "--features", "std,simulation"];
/// From so many changes on it is worth optimizing a little what is built once and run thousands of times.
const OPTIMIZED_FROM: usize = 400;
const OPTIMIZED: [&str; 2] = ["--config", "profile.dev.package.gattway.opt-level=1"];

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let Some(work) = args.next().map(PathBuf::from) else {
        eprintln!("mutants: started by scripts/mutants --fast");
        return ExitCode::from(2);
    };
    match Areas::read(&work, args.collect()).and_then(|areas| areas.try_all()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::from(2)
        }
    }
}

/// Number, and which bytes of a woven file stand there for it.
type Regions = BTreeMap<String, Vec<(u32, Piece)>>;

struct Areas {
    work: PathBuf,
    /// As it is, and with the switches.
    source: PathBuf,
    tree: PathBuf,
    /// With the numbers of its changes.
    names: Vec<(String, Range<u32>)>,
    changes: Vec<Change>,
    sources: BTreeMap<String, String>,
}

impl Areas {
    fn read(work: &Path, names: Vec<String>) -> Fallible<Areas> {
        let mut areas = Areas {
            work: work.to_owned(),
            source: work.join("fast/source"),
            tree: work.join("fast/tree"),
            names: vec![],
            changes: vec![],
            sources: BTreeMap::new(),
        };
        let mut seen = HashSet::new();
        for name in names {
            let text = fs::read_to_string(work.join(format!("fast/{name}.json")))?;
            // Of an area without a change, cargo-mutants writes no list at all.
            let list: Vec<Value> = if text.trim().is_empty() { vec![] } else { serde_json::from_str(&text)? };
            let first = areas.changes.len() as u32 + 1;
            for value in &list {
                let number = areas.changes.len() as u32 + 1;
                let change = Change::read(number, value)
                    .ok_or("cargo-mutants lists changes in another form than 27.1 does")?;
                // A file that two `mod` lines name is listed twice: `link` is one module with the standard library and another without.
                if !seen.insert(change.name.clone()) {
                    continue;
                }
                if !areas.sources.contains_key(&change.file) {
                    let text = fs::read_to_string(areas.source.join(&change.file))?;
                    areas.sources.insert(change.file.clone(), text);
                }
                areas.changes.push(change);
            }
            areas.names.push((name, first..areas.changes.len() as u32 + 1));
        }
        Ok(areas)
    }

    fn try_all(&self) -> Fallible<()> {
        let root = fs::read_to_string(self.source.join("src/lib.rs"))?;
        let text = ["#![allow(warnings)]\n", &root, include_str!("switch.rs.in")].concat();
        write_if_new(&self.tree.join("src/lib.rs"), &text)?;
        let mut all = Vec::new();
        for (area, numbers) in &self.names {
            let out = self.work.join("out").join(area).join("mutants.out");
            all.push((area, numbers.clone(), Results::open(out)?));
        }
        let mut unviable = HashSet::new();
        for (_, numbers, results) in &all {
            let refused = results.names("unviable.txt")?;
            unviable.extend(numbers.clone().filter(|n| refused.contains(&self.change(*n).name)));
        }
        let (skipped, unviable) = self.weave_what_compiles(unviable)?;
        eprintln!(
            "{} changes, {} without a switch, {} that do not compile",
            self.changes.len(),
            skipped.len(),
            unviable.len()
        );
        for (_, numbers, results) in &all {
            let of = |set: &HashSet<u32>| self.lines(numbers.clone().filter(|n| set.contains(n)));
            results.write("skipped.txt", &of(&skipped))?;
            results.write("unviable.txt", &of(&unviable))?;
        }
        for (area, numbers, results) in &all {
            let rest = numbers.clone().filter(|n| !skipped.contains(n) && !unviable.contains(n));
            self.try_area(area, rest.map(|n| self.change(n)).collect(), results)?;
        }
        Ok(())
    }

    fn change(&self, number: u32) -> &Change {
        &self.changes[number as usize - 1]
    }

    fn lines(&self, numbers: impl Iterator<Item = u32>) -> String {
        numbers.map(|n| format!("{}\n", self.change(n).name)).collect()
    }

    /// Weaves all that the compiler takes: what it refuses is left out, until it refuses nothing more.
    fn weave_what_compiles(&self, mut unviable: HashSet<u32>) -> Fallible<(HashSet<u32>, HashSet<u32>)> {
        loop {
            let (skipped, regions) = self.weave(&unviable)?;
            let refused = self.refused(&regions)?;
            if refused.is_empty() {
                return Ok((skipped, unviable));
            }
            eprintln!("the compiler refuses {} changes", refused.len());
            unviable.extend(refused);
        }
    }

    fn weave(&self, without: &HashSet<u32>) -> Fallible<(HashSet<u32>, Regions)> {
        let (mut skipped, mut regions) = (HashSet::new(), Regions::new());
        for (file, source) in &self.sources {
            let changes: Vec<&Change> =
                self.changes.iter().filter(|c| c.file == *file && !without.contains(&c.number)).collect();
            let woven = weave::weave(source, &changes).map_err(|error| format!("{file}: {error}"))?;
            write_if_new(&self.tree.join(file), &woven.text)?;
            skipped.extend(woven.skipped);
            regions.insert(file.clone(), woven.regions);
        }
        Ok((skipped, regions))
    }

    /// The changes that the compiler complains of: the innermost where the complaint is.
    fn refused(&self, regions: &Regions) -> Fallible<HashSet<u32>> {
        let output = self.cargo(&["check", "--profile", "test", "--message-format", "json"]).output()?;
        let (mut refused, mut elsewhere) = (HashSet::new(), Vec::new());
        for line in output.stdout.split(|b| *b == b'\n') {
            let Ok(value) = serde_json::from_slice::<Value>(line) else { continue };
            let message = &value["message"];
            if message["level"] != "error" {
                continue;
            }
            let spans = message["spans"].as_array().into_iter().flatten();
            let mut found = false;
            for mut span in spans.filter(|span| span["is_primary"] == true) {
                // What a macro made is elsewhere: wanted is where the macro was called.
                while !regions.contains_key(span["file_name"].as_str().unwrap_or_default())
                    && span["expansion"].is_object()
                {
                    span = &span["expansion"]["span"];
                }
                let file = span["file_name"].as_str().unwrap_or_default();
                let at = |name: &str| span[name].as_u64().unwrap_or(0) as usize;
                let (start, end) = (at("byte_start"), at("byte_end"));
                let around =
                    regions.get(file).into_iter().flatten().filter(|(_, r)| r.start <= start && end <= r.end);
                if let Some((number, _)) = around.min_by_key(|(_, region)| region.len()) {
                    refused.insert(*number);
                    found = true;
                }
            }
            if !found {
                elsewhere.push(message["rendered"].as_str().unwrap_or_default().to_owned());
            }
        }
        if refused.is_empty() && !output.status.success() {
            return Err(format!(
                "does not compile, for no change that could be left out:\n{}",
                elsewhere.concat()
            )
            .into());
        }
        Ok(refused)
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.args(args).args(BUILD).current_dir(&self.tree).stderr(Stdio::null());
        if self.changes.len() >= OPTIMIZED_FROM {
            cargo.args(OPTIMIZED);
        }
        cargo
    }

    /// The test program, and its tests that an expression names.
    fn tests(&self, area: &str) -> Fallible<(PathBuf, Vec<String>)> {
        let expression = fs::read_to_string(self.work.join(format!("fast/{area}.tests")))?;
        let args =
            ["nextest", "list", "--profile", "mutants", "--message-format", "json", "-E", expression.trim()];
        let list: Value =
            serde_json::from_slice(&self.cargo(&args).stderr(Stdio::inherit()).output()?.stdout)?;
        let suites = list["rust-suites"].as_object().ok_or("nextest lists tests in another form")?;
        let suite = suites.values().next().ok_or("no tests")?;
        let path = suite["binary-path"].as_str().ok_or("nextest names no program")?;
        let cases = suite["testcases"].as_object().into_iter().flatten();
        let chosen = cases.filter(|(_, case)| case["filter-match"]["status"] == "matches");
        Ok((path.into(), chosen.map(|(name, _)| name.clone()).collect()))
    }

    fn try_area(&self, area: &str, mut changes: Vec<&Change>, results: &Results) -> Fallible<()> {
        let all = changes.len();
        let done = results.done()?;
        changes.retain(|change| !done.contains(&change.name));
        // In an order that is the same each time and goes all over the files: a run that is stopped has tried a fair sample.
        changes.sort_by_key(|change| change.number.wrapping_mul(0x9e37_79b1));
        if changes.is_empty() {
            return Ok(());
        }
        let (path, names) = self.tests(area)?;
        let jobs = env::var("MUTANTS_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(2);
        let program = Program { path, directory: self.tree.clone(), jobs };
        eprintln!(
            "{area}: {all} changes, {} of them tried before, {} tests",
            all - changes.len(),
            names.len()
        );
        let tests = program.record(names, &self.work.join("fast/reached"))?;
        Ok(program.judge(changes, &tests, |change, verdict| {
            match verdict {
                Verdict::Missed(tests) => eprintln!("survived {tests} tests: {}", change.name),
                Verdict::Caught(_) => {}
                Verdict::Hang(test) => eprintln!("hang in {test}: {}", change.name),
            }
            results.add(change, verdict)
        })?)
    }
}

/// Leaves a file that is so already: nothing that has been compiled is compiled again.
fn write_if_new(path: &Path, text: &str) -> Fallible<()> {
    if !fs::read_to_string(path).is_ok_and(|old| old == text) {
        fs::write(path, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
