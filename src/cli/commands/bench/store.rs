//! The database: bytes on stable storage, time, memory of an idle `serve`, time to open.

use super::figure::Figure;
use super::process::Process;
use super::{CliError, Exit};
use crate::cli::commands::demo::{Sample, save, weather};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::store as db_store;
use crate::database::bench::{self, BenchDocument, StoreFigures};

/// Rounds in which every document is updated.
const UPDATE_ROUNDS: u32 = 10;

/// Documents of an idle `serve`.
const IDLE_DOCUMENTS: usize = 10_000;

/// Documents of the database that is opened.
const OPEN_DOCUMENTS: usize = 100_000;

/// Documents saved at once.
const BATCH_DOCUMENTS: usize = 2_000;

const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-store")?;
    let documents = documents(1)?;
    let ours =
        bench::measure(&place.path().join("ours"), &documents, UPDATE_ROUNDS).map_err(db_store::failed)?;
    let mut figures = figures("store", &ours);
    let targets: [fn(Figure) -> Figure; 2] = [|f| f.at_most(2.0).aim(1.5), |f| f.at_most(3.0)];
    for (at, target) in targets.into_iter().enumerate() {
        figures[at] = target(figures[at].clone());
    }
    figures.extend(sqlite(&place, &documents)?);
    figures.extend(idle_memory(&place)?);
    figures.push(time_to_open(&place)?);
    Ok(figures)
}

fn figures(bench: &'static str, of: &StoreFigures) -> Vec<Figure> {
    let json = of.json_bytes as f64;
    let rate = of.documents as f64 / of.import_time.as_secs_f64();
    let updates = (of.documents * u64::from(of.update_rounds)) as f64;
    vec![
        Figure::new(bench, "on disk / JSON after import", of.import_disk_bytes as f64 / json, "ratio"),
        Figure::new(
            bench,
            "on disk / JSON after ten updates of each",
            of.update_disk_bytes as f64 / json,
            "ratio",
        ),
        Figure::new(
            bench,
            "written to stable storage / JSON, import",
            of.import_medium_bytes as f64 / json,
            "ratio",
        ),
        Figure::new(
            bench,
            "written to stable storage / JSON saved, all",
            of.update_medium_bytes as f64 / (json * f64::from(of.update_rounds + 1)),
            "ratio",
        ),
        Figure::new(bench, "import, synced batches of 500", rate, "documents/s"),
        Figure::new(
            bench,
            "updates, synced batches of 500",
            updates / of.update_time.as_secs_f64(),
            "documents/s",
        ),
        Figure::new(bench, "CPU of the import", of.import_cpu.as_secs_f64(), "s"),
    ]
}

#[cfg(feature = "bench-sqlite")]
fn sqlite(place: &TemporaryDirectory, documents: &[BenchDocument]) -> Result<Vec<Figure>, CliError> {
    let measured = bench::measure_sqlite(&place.path().join("sqlite"), documents, UPDATE_ROUNDS)
        .map_err(|error| CliError::new(Exit::Failure, format!("SQLite: {error}")))?;
    Ok(figures("sqlite", &measured))
}

#[cfg(not(feature = "bench-sqlite"))]
fn sqlite(_: &TemporaryDirectory, _: &[BenchDocument]) -> Result<Vec<Figure>, CliError> {
    sqlite_is_left_out();
    Ok(Vec::new())
}

#[cfg(not(feature = "bench-sqlite"))]
pub(super) fn sqlite_is_left_out() {
    super::output::note(
        "gattway: SQLite is not measured beside it: cargo run --release --features bench-sqlite",
    );
}

/// The weather records, `years` times.
fn documents(years: usize) -> Result<Vec<BenchDocument>, CliError> {
    let mut documents = Vec::new();
    for year in 0..years {
        for sample in weather()? {
            let json = serde_json::to_vec(&sample.body)
                .map_err(|error| CliError::new(Exit::Failure, format!("a sample is no JSON: {error}")))?;
            let id = if year == 0 { sample.id } else { format!("{} {year}", sample.id) };
            documents.push(BenchDocument { id, json });
        }
    }
    Ok(documents)
}

/// A database with so many weather records, over several years if need be.
fn fill(path: &std::path::Path, count: usize) -> Result<(), CliError> {
    let db = db_store::open(path)?;
    let collection = db.default_collection().map_err(db_store::failed)?;
    let weather = weather()?;
    let years = (0..).flat_map(|year| {
        weather.iter().map(move |sample| Sample { id: format!("{} {year}", sample.id), ..sample.clone() })
    });
    let samples: Vec<Sample> = years.take(count).collect();
    samples.chunks(BATCH_DOCUMENTS).try_for_each(|batch| save(&db, &collection, batch))
}

/// What an idle `serve` has in memory, and what of it is its own: the rest is the program's code, which the system reads again from
/// the file when it needs the room.
fn idle_memory(place: &TemporaryDirectory) -> Result<[Figure; 2], CliError> {
    let path = place.path().join("idle");
    fill(&path, IDLE_DOCUMENTS)?;
    let mut serve = Process::start(&path, &["serve", "--listen", "tcp:127.0.0.1:0"])?;
    serve.event("listening")?;
    let [resident, own] = ["VmRSS:", "RssAnon:"].map(|field| memory_bytes(serve.id(), field) as f64 / MIB);
    serve.finish()?;
    let name = format!(
        "resident memory of an idle serve, {} documents",
        super::output::thousands(IDLE_DOCUMENTS as u64)
    );
    Ok([
        Figure::new("store", name, resident, "MiB").at_most(20.0),
        Figure::new("store", "  of it its own, without the program's code", own, "MiB"),
    ])
}

/// A field of a process's memory, in bytes; 0 if it is gone.
pub(super) fn memory_bytes(process: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn time_to_open(place: &TemporaryDirectory) -> Result<Figure, CliError> {
    let path = place.path().join("large");
    fill(&path, OPEN_DOCUMENTS)?;
    let id = format!("{} 0", weather()?[0].id);
    let elapsed = bench::measure_open(&path, &id).map_err(db_store::failed)?;
    let name =
        format!("time to open {} documents and read one", super::output::thousands(OPEN_DOCUMENTS as u64));
    Ok(Figure::new("store", name, elapsed.as_secs_f64() * 1000.0, "ms"))
}
