//! What a stock peer costs: the messages of Couchbase Lite between two databases of ours, over a pipe.

use std::path::Path;
use std::sync::PoisonError;
use std::time::Instant;

use serde_json::{Value, json};

use super::figure::Figure;
use super::penguins::penguins;
use super::recorded::{How, Record, STOCK, bytes, round_trips, sync_recorded};
use super::{CliError, Exit};
use crate::cli::commands::demo::{Sample, save, weather};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::{runtime, store};
use crate::database::Database;
use crate::replicator::ReplicatorType;

/// Bytes both ways that Couchbase Lite's core took for a first push of the weather records at these levels of deflate: recorded once,
/// over the same framing (`firmware-notes/replication.md`, figures).
const CORE_BYTES: [(u32, f64); 3] = [(0, 2_680_442.0), (6, 475_142.0), (9, 455_294.0)];

/// The changed document: characters of noise, which makes 10 KB of JSON.
const DOCUMENT_NOISE: usize = 9_950;

const PUSH: How<'_> = How { direction: ReplicatorType::Push, ..STOCK };

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-stock")?;
    let mut figures = first_pushes(&place)?;
    figures.extend(nothing_to_do(&place)?);
    figures.extend(one_change(&place)?);
    Ok(figures)
}

fn fill(path: &Path, samples: &[Sample]) -> Result<Database, CliError> {
    let db = store::open(path)?;
    let collection = db.default_collection().map_err(store::failed)?;
    save(&db, &collection, samples)?;
    Ok(db)
}

/// One sync: bytes there and back, round trips and seconds.
fn sync(active: &Database, passive: &Database, how: How<'_>) -> Result<(f64, f64, f64, f64), CliError> {
    let (record, began) = (Record::default(), Instant::now());
    runtime::block_on(sync_recorded(active, passive, &record, how))?;
    let seconds = began.elapsed().as_secs_f64();
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((bytes(&record, true), bytes(&record, false), round_trips(&record), seconds))
}

fn equal(one: &Database, other: &Database) -> Result<(), CliError> {
    let read = |db: &Database| -> Result<Vec<(String, Value)>, CliError> {
        let all = db.default_collection().map_err(store::failed)?.iter();
        all.map(|document| {
            let document = document.map_err(store::failed)?;
            Ok((document.id().to_owned(), Value::Object(document.into_body())))
        })
        .collect()
    };
    if read(one)? == read(other)? {
        return Ok(());
    }
    Err(CliError::new(Exit::Failure, "the benchmark's databases are not equal after their sync"))
}

fn first_pushes(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let mut figures = Vec::new();
    for (what, samples) in [("weather", weather()?), ("penguins", penguins()?)] {
        let field = fill(&place.path().join(what), &samples)?;
        for (level, core) in CORE_BYTES {
            let empty = store::open(&place.path().join(format!("{what}-{level}")))?;
            let (there, back, _, seconds) = sync(&field, &empty, How { level, ..PUSH })?;
            equal(&field, &empty)?;
            let name = |part: &str| format!("{} {what}, first push, deflate {level}: {part}", samples.len());
            let each = (there + back) / samples.len() as f64;
            figures.push(Figure::new("stock", name("bytes a document, both ways"), each, "bytes"));
            figures.push(Figure::new("stock", name("  bytes there"), there, "bytes"));
            figures.push(Figure::new("stock", name("  bytes back"), back, "bytes"));
            figures.push(Figure::new(
                "stock",
                name("  documents a second"),
                samples.len() as f64 / seconds,
                "1/s",
            ));
            if what == "weather" {
                let by = name("  bytes by those of Couchbase Lite's core");
                figures.push(Figure::new("stock", by, (there + back) / core, "ratio").at_most(1.0));
            }
        }
    }
    Ok(figures)
}

fn nothing_to_do(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let field = store::open(&place.path().join("weather"))?;
    let gateway = store::open(&place.path().join("nothing"))?;
    let mut figures = Vec::new();
    for (what, how) in [("push", PUSH), ("push and pull", STOCK)] {
        sync(&field, &gateway, how)?;
        let (there, back, round_trips, _) = sync(&field, &gateway, how)?;
        let name = |part: &str| format!("nothing to do, {what}: {part}");
        figures.push(Figure::new("stock", name("bytes there"), there, "bytes"));
        figures.push(Figure::new("stock", name("bytes back"), back, "bytes"));
        figures.push(Figure::new("stock", name("round trips"), round_trips, "").at_most(2.0));
    }
    Ok(figures)
}

/// One field of a document of 10 KB.
fn one_change(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric).take(DOCUMENT_NOISE).collect();
    let body = |n: u32| json!({ "celsius": n, "noise": noise });
    let mut costs = Vec::new();
    for deltas in [true, false] {
        let open = |side: &str| store::open(&place.path().join(format!("change-{side}-{deltas}")));
        let (field, gateway) = (open("field")?, open("gateway")?);
        let collection = field.default_collection().map_err(store::failed)?;
        let how = How { deltas, ..PUSH };
        collection.put("document", &body(1)).map_err(store::failed)?;
        sync(&field, &gateway, how)?;
        collection.put("document", &body(2)).map_err(store::failed)?;
        let (there, back, round_trips, _) = sync(&field, &gateway, how)?;
        equal(&field, &gateway)?;
        costs.push((there + back, round_trips));
    }
    let name = |part: &str| format!("one changed field of a document of 10 KB: {part}");
    Ok(vec![
        Figure::new("stock", name("bytes both ways with deltas"), costs[0].0, "bytes").at_most(1_000.0),
        Figure::new("stock", name("bytes both ways without"), costs[1].0, "bytes"),
        Figure::new("stock", name("round trips"), costs[0].1, ""),
    ])
}
