//! The director: chooses scenarios, starts the rig for each configuration, runs one after the other, writes the report.

use std::time::{Duration, Instant};

use crate::agent::{Result, fail, now_us};
use crate::report::html::html;
use crate::report::junit::junit;
use crate::report::terminal::Table;
use crate::report::{Record, Report, Status};
use crate::rig::file::RigFile;
use crate::rig::virtual_rig::Virtual;
use crate::rig::{Config, Rig, RigKind};
use crate::scenario::table::all;
use crate::scenario::{Context, Scenario, Stop};
use crate::{RunArgs, root};

/// How often the moving line moves.
const REFRESH: Duration = Duration::from_millis(250);

/// Runs what the arguments want; gives the exit code.
pub async fn run(args: &RunArgs) -> Result<u8> {
    let kind = rig_kind(args)?;
    let chosen = choose(args)?;
    if args.list {
        list(&kind, &chosen);
        return Ok(0);
    }
    std::fs::create_dir_all(&args.out).map_err(|error| format!("{}: {error}", args.out.display()))?;
    let table = Table::new(args.json);
    table.begin(&kind.name(), chosen.len(), args.repeat as usize);
    let began = Instant::now();
    let mut report = Report {
        rig: kind.name(),
        radio: kind.radio(),
        began: now_text().await,
        seconds: 0.0,
        full: args.full,
        machines: Vec::new(),
        records: Vec::new(),
    };
    let mut interrupted = Box::pin(tokio::signal::ctrl_c());
    let mut director = Director { kind, args, table: &table, rig: None };
    let outcome = tokio::select! {
        outcome = director.run_all(&chosen, &mut report) => outcome,
        _ = &mut interrupted => fail("interrupted"),
    };
    director.end_rig().await;
    report.seconds = began.elapsed().as_secs_f64();
    sort(&mut report, &chosen);
    let files = write(&report, args)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    }
    table.end(&report, &files);
    outcome?;
    Ok(match (report.count(Status::Failed), report.count(Status::Passed)) {
        (0, 0) => 2,
        (0, _) => 0,
        _ => 1,
    })
}

fn rig_kind(args: &RunArgs) -> Result<RigKind> {
    Ok(match args.rig.as_str() {
        "model" => RigKind::Model,
        "virtual" => {
            std::fs::create_dir_all(&args.out)?;
            RigKind::Virtual(Virtual {
                root: root(),
                radio: args.radio.clone(),
                interval: args.interval,
                out: std::fs::canonicalize(&args.out)?,
            })
        }
        file => RigKind::File(RigFile::read(file.as_ref())?),
    })
}

fn choose(args: &RunArgs) -> Result<Vec<Scenario>> {
    let fits = |scenario: &Scenario, wanted: &String| match wanted.strip_suffix('*') {
        Some(beginning) => scenario.name.starts_with(beginning),
        None => scenario.name == wanted,
    };
    let scenarios = all();
    for wanted in args.scenario.iter().chain(&args.skip) {
        if !scenarios.iter().any(|scenario| fits(scenario, wanted)) {
            return fail(format!("no scenario {wanted:?}; --list shows all"));
        }
    }
    let wanted = |s: &Scenario| args.scenario.is_empty() || args.scenario.iter().any(|w| fits(s, w));
    let unwanted = |s: &Scenario| args.skip.iter().any(|w| fits(s, w));
    Ok(scenarios.into_iter().filter(|s| wanted(s) && !unwanted(s)).collect())
}

fn list(kind: &RigKind, chosen: &[Scenario]) {
    for scenario in chosen {
        let note = kind
            .offers(scenario.config)
            .err()
            .map_or(String::new(), |reason| format!(" (skipped: {reason})"));
        println!("{:<26} {}{note}", scenario.name, scenario.about);
    }
}

/// Records in the order of the table, run after run.
fn sort(report: &mut Report, chosen: &[Scenario]) {
    let place = |name: &str| chosen.iter().position(|scenario| scenario.name == name);
    report.records.sort_by_key(|record| (place(record.name), record.run));
}

fn write(report: &Report, args: &RunArgs) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for (name, text) in [
        ("junit.xml", junit(report)),
        ("report.html", html(report)),
        ("report.json", serde_json::to_string_pretty(report)?),
    ] {
        let path = args.out.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        files.push(path.display().to_string());
    }
    Ok(files)
}

async fn now_text() -> String {
    let output = tokio::process::Command::new("date").arg("+%Y-%m-%dT%H:%M:%S%:z").output().await;
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

struct Director<'a> {
    kind: RigKind,
    args: &'a RunArgs,
    table: &'a Table,
    rig: Option<Rig>,
}

impl Director<'_> {
    /// Configuration by configuration, as starting one costs seconds.
    async fn run_all(&mut self, chosen: &[Scenario], report: &mut Report) -> Result<()> {
        for run in 1..=self.args.repeat as usize {
            for config in [Config::Default, Config::Eatt, Config::SmallMtu, Config::TwoMachines] {
                for scenario in chosen.iter().filter(|scenario| scenario.config == config) {
                    let record = self.run_one(scenario, run, report).await;
                    self.table.ended(&record);
                    report.records.push(record);
                    // Whoever ends this run early has what it found so far.
                    write(report, self.args)?;
                }
            }
        }
        Ok(())
    }

    async fn run_one(&mut self, scenario: &Scenario, run: usize, report: &mut Report) -> Record {
        let mut record = Record::new(scenario.name, scenario.about, scenario.config, run);
        let began = Instant::now();
        let outcome = match self.kind.offers(scenario.config) {
            Ok(()) => self.play(scenario, &mut record, report).await,
            Err(reason) => Err(Stop::Skip(reason)),
        };
        record.seconds = began.elapsed().as_secs_f64();
        (record.status, record.reason) = match outcome {
            Ok(()) => (Status::Passed, None),
            Err(Stop::Skip(reason)) => (Status::Skipped, Some(reason)),
            Err(Stop::Fail(reason)) => (Status::Failed, Some(reason)),
        };
        if record.status == Status::Failed {
            // Whatever it left behind must not touch the next one.
            self.end_rig().await;
        }
        record
    }

    async fn play(
        &mut self,
        scenario: &Scenario,
        record: &mut Record,
        report: &mut Report,
    ) -> std::result::Result<(), Stop> {
        let config = self.kind.effective(scenario.config);
        if self.rig.as_ref().is_none_or(|rig| rig.config() != config) {
            self.end_rig().await;
            self.table.say(&format!("{}: the machines start ...", scenario.name));
            let rig = Rig::start(&self.kind, config).await?;
            if !report.machines.iter().any(|(known, _)| *known == config) {
                report.machines.push((config, rig.machines.clone()));
            }
            self.rig = Some(rig);
        }
        let Some(rig) = &mut self.rig else { return Err(Stop::Fail("no rig".to_owned())) };
        if rig.places.len() < scenario.nodes {
            let reason = format!("needs {} adapters, the rig has {}", scenario.nodes, rig.places.len());
            return Err(Stop::Skip(reason));
        }
        for place in 0..scenario.nodes {
            rig.spawn(place, true).await?;
        }
        rig.set_clocks().await?;
        let samples = std::sync::Arc::clone(&rig.samples);
        samples.lock().map_err(|_| "counters")?.clear();
        record.began_us = now_us();
        let places: Vec<(usize, u32)> = rig.places.iter().map(|place| (place.machine, place.node)).collect();
        let limit = Duration::from_secs(scenario.limit_s * if self.args.full { 2 } else { 1 });
        let mut context = Context::new(rig, self.args.full, record);
        let began = Instant::now();
        let outcome = {
            let mut running = (scenario.run)(&mut context);
            let timed = tokio::time::timeout(limit, async {
                loop {
                    tokio::select! {
                        outcome = &mut running => return outcome,
                        () = tokio::time::sleep(REFRESH) => self.table.running(scenario.name, began, &samples),
                    }
                }
            });
            timed.await.unwrap_or_else(|_| Err(Stop::Fail(format!("took longer than {} s", limit.as_secs()))))
        };
        let rows = std::mem::take(&mut *samples.lock().map_err(|_| "counters")?);
        let place = |row: (usize, u32, _)| Some((places.iter().position(|p| *p == (row.0, row.1))?, row.2));
        record.samples = rows.into_iter().filter_map(place).collect();
        outcome
    }

    async fn end_rig(&mut self) {
        if let Some(mut rig) = self.rig.take() {
            self.table.say("the machines end ...");
            rig.end().await;
        }
    }
}
