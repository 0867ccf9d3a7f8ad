//! The host's part: boots guests, keeps what they acknowledge, cuts their power, judges what they found afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use gattway::lab::database::config::RELAXED_SYNC_MS;
use serde::Serialize;

use super::machine::{Cut, Machine, RigError};
use super::task::{Line, Mode, Revision, SIDES, Task, Writer};

/// Cuts until the images are made anew, so that they do not grow without end. Before that both sides must become equal.
const CUTS_OF_IMAGES: u64 = 25;

/// One in so many cuts falls at any time after the start, most often while the databases are opened.
const EARLY_EVERY: u8 = 6;

/// When such a cut falls, milliseconds after the start.
const EARLY_MS: std::ops::Range<u64> = 150..1000;

/// When any other cut falls, milliseconds after writing began.
const LATE_MS: std::ops::Range<u64> = 20..1500;

/// Problems that are kept word by word.
const PROBLEMS_LISTED_MAX: usize = 50;

/// How to mount ext4, by turns: its default, and the two other ways of its journal.
const MOUNT_OPTIONS: [&str; 3] = ["data=ordered", "data=writeback", "data=journal"];

/// The rig itself failed: nothing was shown.
const EXIT_RIG: u8 = 125;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Cuts in all
    #[arg(long, default_value_t = 200)]
    cuts: u64,

    /// What is put to the test
    #[arg(long, value_enum, default_value_t = Mode::Safe)]
    mode: Mode,

    /// Replays the histories and the moments of the cuts, though not the guest's own timing [default: random]
    #[arg(long)]
    seed: Option<u64>,

    /// Write a summary as one JSON object
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The guest's kernel
    #[arg(long)]
    kernel: PathBuf,
}

/// What came of it. The field names are a promise to scripts.
#[derive(Debug, Default, Serialize)]
struct Summary {
    mode: String,
    seed: u64,
    /// Whether what happened is what the mode promises.
    ok: bool,
    cuts: u64,
    /// Of them before the databases were open and checked.
    cuts_while_opening: u64,
    /// Pairs of images.
    images: u64,
    /// Commits that were acknowledged to a writer.
    commits_acknowledged: u64,
    /// Revisions of which a side was told that the other has them.
    revisions_acknowledged_to_peers: u64,
    /// Documents and tombstones that were read and compared after cuts.
    documents_checked: u64,
    /// Acknowledged commits that were gone.
    commits_lost: u64,
    /// Cuts after which something acknowledged was gone.
    cuts_with_loss: u64,
    /// Documents that were acknowledged to a peer and gone.
    documents_lost_to_peers: u64,
    /// Documents at an older revision than the acknowledged one.
    documents_stale: u64,
    /// Age of the oldest acknowledged commit that was lost, milliseconds before the last sign of life.
    oldest_lost_ms: u64,
    /// What `relaxed` may lose, milliseconds.
    window_ms: u64,
    /// Everything else that must not be: damage, torn commits, sides that stay different.
    problems: u64,
    listed: Vec<String>,
    /// Largest time to open both databases, and to read and compare everything.
    open_ms_max: u64,
    check_ms_max: u64,
    seconds: f64,
}

impl Summary {
    fn problem(&mut self, text: String) {
        eprintln!("\nproblem: {text}");
        self.problems += 1;
        if self.listed.len() < PROBLEMS_LISTED_MAX {
            self.listed.push(text);
        }
    }

    fn keeps_promise(&self, mode: Mode) -> bool {
        let peers_ok = self.documents_lost_to_peers == 0 && self.documents_stale == 0 && self.problems == 0;
        match mode {
            Mode::Safe => peers_ok && self.commits_lost == 0,
            Mode::Relaxed => peers_ok && self.oldest_lost_ms <= RELAXED_SYNC_MS,
            Mode::NoSync => self.commits_lost + self.documents_lost_to_peers + self.problems > 0,
        }
    }
}

/// What the guests were told and have told, as long as one pair of images lives.
struct Round {
    task: Task,
    /// The acknowledgements of the life before: operation and time, by writer.
    last_life: Vec<Vec<(u64, u64)>>,
    /// The last sign of life, by the guest's clock.
    last_ms: u64,
}

impl Round {
    fn new(mode: Mode, seed: u64) -> Round {
        let writers = Writer::all().count();
        let task = Task {
            mode,
            seed,
            acknowledged: vec![0; writers],
            revisions: vec![BTreeMap::new(); writers],
            replicated: [BTreeSet::new(), BTreeSet::new()],
            finish: false,
        };
        Round { task, last_life: vec![Vec::new(); writers], last_ms: 0 }
    }

    /// Takes the lines of one life. `true` if something acknowledged was gone.
    fn take(&mut self, lines: &[Line], summary: &mut Summary) -> bool {
        let (mut lost, mut checked) = (false, false);
        let mut positions = vec![None; self.task.acknowledged.len()];
        for line in lines {
            match line {
                Line::Found { writer, operation: None } => {
                    lost = true;
                    summary.problem(format!("{writer}: its documents are as after none of its commits"));
                }
                Line::Found { writer, operation: Some(operation) } => {
                    lost |= self.judge(*writer, *operation, summary);
                    positions[writer.index()] = Some(*operation);
                }
                Line::Missing { side, id } => {
                    lost = true;
                    summary.documents_lost_to_peers += 1;
                    self.task.replicated[*side].remove(id); // told once
                    let name = SIDES[*side];
                    self.say_lost(format_args!(
                        "side {name} was to have {id}, as it told its peer, and has not"
                    ));
                }
                Line::Stale { writer, id } => {
                    lost = true;
                    summary.documents_stale += 1;
                    self.say_lost(format_args!("{writer}'s {id} is older than the acknowledged revision"));
                }
                Line::Problem(text) => summary.problem(text.clone()),
                Line::Checked { documents, open_ms, check_ms } => {
                    checked = true;
                    summary.documents_checked += documents;
                    summary.open_ms_max = summary.open_ms_max.max(*open_ms);
                    summary.check_ms_max = summary.check_ms_max.max(*check_ms);
                }
                Line::Acknowledged { .. } | Line::Replicated { .. } | Line::Writing | Line::Equal(_) => {}
            }
        }
        if checked {
            self.begin_life(&positions);
            self.note(lines, summary);
        }
        lost
    }

    /// Compares what was found of a writer with what was acknowledged.
    fn judge(&self, writer: Writer, found: u64, summary: &mut Summary) -> bool {
        let acknowledged = self.task.acknowledged[writer.index()];
        if found >= acknowledged {
            return false;
        }
        summary.commits_lost += acknowledged - found;
        let oldest = self.last_life[writer.index()].iter().find(|(operation, _)| *operation > found);
        // Lost although it was there after an earlier cut: older than any window.
        let age = oldest.filter(|(operation, _)| *operation == found + 1);
        let age = age.map_or(u64::MAX, |(_, ms)| self.last_ms.saturating_sub(*ms));
        summary.oldest_lost_ms = summary.oldest_lost_ms.max(age);
        if self.task.mode != Mode::Relaxed {
            self.say_lost(format_args!(
                "{writer} was acknowledged {acknowledged} commits, {found} are there"
            ));
        }
        true
    }

    /// Without fdatasync losses are wanted, and many.
    fn say_lost(&self, what: std::fmt::Arguments<'_>) {
        if self.task.mode != Mode::NoSync {
            eprintln!("\nlost: {what}");
        }
    }

    /// What was found is where the writers go on.
    fn begin_life(&mut self, positions: &[Option<u64>]) {
        for (index, position) in positions.iter().enumerate() {
            let Some(position) = *position else { continue };
            self.task.acknowledged[index] = position;
            self.task.revisions[index].retain(|_, revision| revision.operation <= position);
        }
        self.last_life.iter_mut().for_each(Vec::clear);
        self.last_ms = 0;
    }

    /// Keeps what was acknowledged in this life.
    fn note(&mut self, lines: &[Line], summary: &mut Summary) {
        for line in lines {
            match line {
                Line::Acknowledged { writer, operation, ms, revisions } => {
                    let index = writer.index();
                    summary.commits_acknowledged += 1;
                    self.task.acknowledged[index] = *operation;
                    self.last_life[index].push((*operation, *ms));
                    self.last_ms = self.last_ms.max(*ms);
                    for (id, time) in revisions {
                        let revision = Revision { operation: *operation, time: *time };
                        self.task.revisions[index].insert(id.clone(), revision);
                    }
                }
                Line::Replicated { side, id } => {
                    summary.revisions_acknowledged_to_peers += 1;
                    self.task.replicated[*side].insert(id.clone());
                }
                _ => {}
            }
        }
    }
}

pub fn run(args: &RunArgs) -> ExitCode {
    let mut summary = Summary {
        mode: args.mode.to_string(),
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
        window_ms: RELAXED_SYNC_MS,
        ..Summary::default()
    };
    let began = Instant::now();
    println!("power-cuts: {} cuts, mode {}, seed {}", args.cuts, args.mode, summary.seed);
    let result = cut_again_and_again(args, &mut summary, began);
    summary.seconds = began.elapsed().as_secs_f64();
    summary.ok = result.is_ok() && summary.keeps_promise(args.mode);
    if let Err(error) = result {
        eprintln!("\npower-cuts: the rig failed: {error}");
        return ExitCode::from(EXIT_RIG);
    }
    report(&summary, args.mode);
    if let Some(path) = &args.json {
        let text = serde_json::to_string(&summary).expect("plain data");
        if let Err(error) = std::fs::write(path, text + "\n") {
            eprintln!("power-cuts: {} cannot be written: {error}", path.display());
            return ExitCode::from(EXIT_RIG);
        }
    }
    if summary.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cut_again_and_again(args: &RunArgs, summary: &mut Summary, began: Instant) -> Result<(), RigError> {
    let mut rng = fastrand::Rng::with_seed(summary.seed);
    let machine = Machine::new(&args.kernel)?;
    while summary.cuts < args.cuts {
        machine.make_disks(MOUNT_OPTIONS[summary.images as usize % MOUNT_OPTIONS.len()])?;
        summary.images += 1;
        let mut round = Round::new(args.mode, rng.u64(..));
        let mut whole = true;
        for _ in 0..CUTS_OF_IMAGES.min(args.cuts - summary.cuts) {
            let cut = if rng.u8(0..EARLY_EVERY) == 0 {
                Cut::AfterStart(rng.u64(EARLY_MS))
            } else {
                Cut::AfterWriting(rng.u64(LATE_MS))
            };
            let lines = machine.live(&round.task, cut)?;
            summary.cuts += 1;
            summary.cuts_while_opening += u64::from(!lines.contains(&Line::Writing));
            let problems = summary.problems;
            let lost = round.take(&lines, summary);
            summary.cuts_with_loss += u64::from(lost);
            progress(summary, args.cuts, began);
            // What a broken promise leaves behind says nothing more. A relaxed database goes on with what it has.
            if summary.problems > problems || lost && args.mode != Mode::Relaxed {
                whole = false;
                break;
            }
        }
        if whole {
            round.task.finish = true;
            let lines = machine.live(&round.task, Cut::Never)?;
            let lost = round.take(&lines, summary);
            summary.cuts_with_loss += u64::from(lost);
            if !lines.iter().any(|line| matches!(line, Line::Equal(_))) && args.mode != Mode::NoSync {
                summary.problem("after the last cut the two sides did not become equal".to_owned());
            }
        }
    }
    Ok(())
}

fn progress(summary: &Summary, cuts: u64, began: Instant) {
    let done = summary.cuts;
    let text = format!(
        "cut {done} of {cuts}, {:.1} s each: {} commits and {} replicated documents acknowledged, {} commits lost",
        began.elapsed().as_secs_f64() / done as f64,
        summary.commits_acknowledged,
        summary.revisions_acknowledged_to_peers,
        summary.commits_lost,
    );
    if std::io::stderr().is_terminal() {
        eprint!("\r{text}");
        let _ = std::io::stderr().flush();
    } else if done.is_multiple_of(10) || done == cuts {
        eprintln!("{text}");
    }
}

fn report(summary: &Summary, mode: Mode) {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    println!(
        "power-cuts: {} cuts ({} while opening) on {} pairs of images in {:.0} s; {} commits acknowledged, {} documents acknowledged to peers, {} documents compared",
        summary.cuts,
        summary.cuts_while_opening,
        summary.images,
        summary.seconds,
        summary.commits_acknowledged,
        summary.revisions_acknowledged_to_peers,
        summary.documents_checked,
    );
    println!(
        "power-cuts: lost: {} commits in {} cuts, {} documents a peer was told of, {} stale; {} other problems",
        summary.commits_lost,
        summary.cuts_with_loss,
        summary.documents_lost_to_peers,
        summary.documents_stale,
        summary.problems,
    );
    if mode == Mode::Relaxed {
        println!(
            "power-cuts: the oldest lost commit was acknowledged {} ms before the last sign of life, {RELAXED_SYNC_MS} are allowed",
            summary.oldest_lost_ms
        );
    }
    let verdict = match (mode, summary.ok) {
        (Mode::NoSync, true) => "ok: without fdatasync the test finds losses",
        (Mode::NoSync, false) => "FAILED: without fdatasync the test found no loss, so it shows nothing",
        (_, true) => "ok",
        (_, false) => "FAILED",
    };
    println!("power-cuts: {verdict} (seed {})", summary.seed);
}
