//! Replication: speed between two processes over loopback TCP, bytes on air over the modelled radio, and what a sync with
//! nothing to do costs.

use std::path::Path;
use std::sync::PoisonError;

use serde_json::Value;

use super::figure::Figure;
use super::process::Process;
use super::recorded::{OFFERED, Record, STOCK, bytes, round_trips, sync_recorded};
use super::{CliError, Exit};
use crate::cli::commands::demo::{save, weather};
use crate::cli::support::air::{Air, AirArgs, Protection};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::{runtime, store};
use crate::database::Database;
use crate::transport::clock::Clock;

/// Runs whose median counts, each into an empty database.
const RUNS: usize = 5;

/// As much as comes is taken of a peer.
const QUOTA: &str = "0";

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-replication")?;
    let mut figures = two_processes(&place)?;
    figures.extend(on_air(&place)?);
    figures.extend(nothing_to_do(&place)?);
    figures.extend(plain_messages(&place)?);
    Ok(figures)
}

/// The sample as the database of the active side.
fn fill(place: &TemporaryDirectory, name: &str) -> Result<(Database, u64), CliError> {
    let db = store::open(&place.path().join(name))?;
    let collection = db.default_collection().map_err(store::failed)?;
    let samples = weather()?;
    save(&db, &collection, &samples)?;
    Ok((db, samples.len() as u64))
}

/// Pushes a database to another process that serves one; the last events of both.
pub(super) fn push(sender: &Path, receiver: &Path, peer: &str) -> Result<(Value, Value), CliError> {
    let (serve, address) = Process::serve(receiver, &["--peer-documents", QUOTA, "--peer-bytes", QUOTA])?;
    let sync = Process::start(sender, &["sync", &address, "--push", "--peer", peer, "--trust-all"])?.end()?;
    Ok((sync, serve.finish()?))
}

fn two_processes(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let (db, documents) = fill(place, "sender")?;
    drop(db);
    let sender = place.path().join("sender");
    let mut runs = Vec::new();
    for run in 0..RUNS {
        let receiver = place.path().join(format!("receiver-{run}"));
        let (sync, serve) = push(&sender, &receiver, &format!("run {run}"))?;
        if sync["documents"] != documents {
            return Err(CliError::new(Exit::Failure, format!("the benchmark's sync ended with {sync}")));
        }
        let number = |event: &Value, key: &str| event[key].as_f64().unwrap_or(f64::NAN);
        runs.push([number(&sync, "seconds"), number(&sync, "cpu_seconds"), number(&serve, "cpu_seconds")]);
    }
    runs.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let [seconds, active_cpu, passive_cpu] = runs[RUNS / 2];
    let name = "two processes, loopback TCP, commits on stable storage";
    Ok(vec![
        Figure::new("replication", name, documents as f64 / seconds, "documents/s")
            .at_least(25_000.0)
            .aim(50_000.0),
        Figure::new("replication", "  CPU of the active process, start to end", active_cpu, "s"),
        Figure::new("replication", "  CPU of the passive process, start to end", passive_cpu, "s"),
    ])
}

fn on_air(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let (field, documents) = fill(place, "field")?;
    let gateway = store::open(&place.path().join("gateway"))?;
    let args = AirArgs::default();
    let (first, second) = runtime::block_on(async {
        let air = Air::start(&args, &gateway, Clock::new(), Protection::Secure).await?;
        let (_, first) = air.sync(&field, &mut |_| ()).await?;
        let (_, second) = air.sync(&field, &mut |_| ()).await?;
        Ok((first, second))
    })?;
    let bytes = first.bytes as f64 / documents as f64;
    Ok(vec![
        Figure::new("replication", "bytes on air per document, first push, both ways", bytes, "bytes")
            .at_most(54.0)
            .aim(35.0),
        Figure::new(
            "replication",
            "  goodput / raw packets",
            first.goodput_bytes_per_s() / args.ceiling_bytes_per_s()?,
            "ratio",
        ),
        Figure::new("replication", "nothing to do: bytes on air, both ways", second.bytes as f64, "bytes"),
        Figure::new("replication", "nothing to do: packets, both ways", second.packets as f64, "packets"),
    ])
}

/// Counts bytes and round trips of a second sync, on a recorded pipe.
fn nothing_to_do(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let field = store::open(&place.path().join("field"))?;
    let gateway = store::open(&place.path().join("gateway"))?;
    let record = Record::default();
    runtime::block_on(async {
        // Over this endpoint nothing was synced yet: the first run makes the checkpoint.
        sync_recorded(&field, &gateway, &Record::default(), OFFERED).await?;
        sync_recorded(&field, &gateway, &record, OFFERED).await
    })?;
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    let round_trips = round_trips(&record);
    Ok(vec![
        Figure::new(
            "replication",
            "nothing to do: round trips, the closing one not counted",
            round_trips,
            "",
        )
        .at_most(2.0)
        .aim(1.0),
        Figure::new("replication", "nothing to do: bytes of the stream there", bytes(&record, true), "bytes"),
        Figure::new("replication", "nothing to do: bytes of the stream back", bytes(&record, false), "bytes"),
    ])
}

/// The first sync with the messages that a stock peer knows, without our extension.
fn plain_messages(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let field = store::open(&place.path().join("field"))?;
    let gateway = store::open(&place.path().join("plain"))?;
    let record = Record::default();
    runtime::block_on(sync_recorded(&field, &gateway, &record, STOCK))?;
    let pushed_by_pulled = stock_speeds(&field, place)?;
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    let documents = gateway.default_collection().map_err(store::failed)?.count() as f64;
    let both = (bytes(&record, true) + bytes(&record, false)) / documents;
    let name = "with a stock peer's messages: bytes of the stream per document, both ways";
    let speed = "with a stock peer's messages: speed of a pull / of a push, medians";
    Ok(vec![
        Figure::new("replication", name, both, "bytes").at_most(54.0),
        Figure::new("replication", speed, pushed_by_pulled, "ratio").aim(1.0),
    ])
}

/// How fast a stock peer pulls from us beside how fast it pushes to us: the same documents, each time into an empty
/// database. What differs is which side sends them.
fn stock_speeds(field: &Database, place: &TemporaryDirectory) -> Result<f64, CliError> {
    let time = |active: &Database, passive: &Database| {
        let began = std::time::Instant::now();
        runtime::block_on(sync_recorded(active, passive, &Record::default(), STOCK))?;
        Ok::<f64, CliError>(began.elapsed().as_secs_f64())
    };
    let (mut pushes, mut pulls) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let empty = |what: &str| store::open(&place.path().join(format!("{what}-{run}")));
        // Another database has other checkpoints, so each run begins from nothing.
        let (pushed, pulled) = (empty("pushed")?, empty("pulled")?);
        pulls.push(time(&pulled, field)?);
        pushes.push(time(field, &pushed)?);
    }
    pushes.sort_by(f64::total_cmp);
    pulls.sort_by(f64::total_cmp);
    Ok(pushes[RUNS / 2] / pulls[RUNS / 2])
}
