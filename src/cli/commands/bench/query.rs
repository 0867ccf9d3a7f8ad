//! Queries over readings of many sensors, without an index and with one, and SQLite with the same documents, queries and indexes
//! beside it.

use std::time::Instant;

use super::figure::Figure;
use super::readings::{Ids, reading};
use super::{CliError, Exit};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::store as db_store;
use crate::database::bench::{BATCH_LEN, BenchDocument};
use crate::database::{Aggregate, Collection, Query, Test};

/// The sensor that is asked for.
const SENSOR: &str = "s07";

/// The queries: name, and what it is here.
fn queries() -> [(&'static str, Query); 3] {
    let of_one = || Query::new().filter(("sensor", Test::Equal(SENSOR.into())));
    [
        ("last 20 of one sensor", of_one().sort("time", true).limit(20)),
        (
            "one day of one sensor",
            of_one()
                .filter(("time", Test::AtLeast("2026-11-10".into())))
                .filter(("time", Test::Below("2026-11-11".into()))),
        ),
        (
            "hourly means of a month, one sensor",
            of_one().group_by_time("time", "1h").aggregate("mean", Aggregate::Avg("celsius".into())),
        ),
    ]
}

pub(super) fn measure(count: usize) -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-query")?;
    let db = db_store::open(&place.path().join("ours"))?;
    let collection = db.default_collection().map_err(db_store::failed)?;
    for from in (0..count).step_by(BATCH_LEN) {
        let saved = db.batch(|batch| {
            (from..count.min(from + BATCH_LEN)).try_for_each(|n| {
                let BenchDocument { id, json } = reading(n, count, Ids::Coming);
                batch.put_json(&collection, &id, &json)
            })
        });
        saved.map_err(db_store::failed)?;
    }
    let mut ours = vec![run_all(&collection)?];
    let began = Instant::now();
    collection
        .create_index("by-time", ["sensor", "time"])
        .and_then(|()| collection.build_indexes())
        .map_err(db_store::failed)?;
    let built_ms = began.elapsed().as_secs_f64() * 1e3;
    ours.push(run_all(&collection)?);
    let beside = sqlite(&place, count)?;
    let mut figures = Vec::new();
    let of = format!("{} readings", super::output::thousands(count as u64));
    figures.push(Figure::new("query", format!("building an index, {of}"), built_ms, "ms"));
    for (at, (name, _)) in queries().iter().enumerate() {
        let name = format!("{name}, {of}");
        let rows = ours[0][at].0;
        for (who, runs) in [("query", &ours), ("sqlite", &beside)] {
            for (what, of_queries) in ["no index", "an index"].iter().zip(runs) {
                let (others, ms) = of_queries[at];
                if others != rows {
                    let message = format!("{name}: {rows} rows, {others} of {who} with {what}");
                    return Err(CliError::new(Exit::Failure, message));
                }
                figures.push(Figure::new(who, format!("{name}, {what}"), ms, "ms"));
            }
        }
    }
    Ok(figures)
}

fn run_all(collection: &Collection) -> Result<Vec<(usize, f64)>, CliError> {
    queries().iter().map(|(_, query)| run(collection, query)).collect()
}

/// How many rows there are, and the milliseconds that it took.
fn run(collection: &Collection, query: &Query) -> Result<(usize, f64), CliError> {
    let began = Instant::now();
    let mut rows = collection.query(query).map_err(db_store::failed)?;
    let count = rows.try_fold(0, |count, row| row.map(|_| count + 1)).map_err(db_store::failed)?;
    Ok((count, began.elapsed().as_secs_f64() * 1e3))
}

/// Rows and milliseconds of each query, without an index and with one.
type Beside = Vec<Vec<(usize, f64)>>;

#[cfg(feature = "bench-sqlite")]
fn sqlite(place: &TemporaryDirectory, count: usize) -> Result<Beside, CliError> {
    sqlite_runs(&place.path().join("readings.sqlite"), count)
        .map_err(|error| CliError::new(Exit::Failure, format!("SQLite: {error}")))
}

#[cfg(feature = "bench-sqlite")]
fn sqlite_runs(path: &std::path::Path, count: usize) -> rusqlite::Result<Beside> {
    const SENSOR_OF: &str = "json_extract(body, '$.sensor')";
    const TIME_OF: &str = "json_extract(body, '$.time')";
    let mut connection = crate::database::bench::open_sqlite(path)?;
    connection
        .execute_batch("CREATE TABLE readings (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;")?;
    for from in (0..count).step_by(BATCH_LEN) {
        let transaction = connection.transaction()?;
        let mut insert = transaction.prepare_cached("INSERT INTO readings VALUES (?1, ?2)")?;
        for n in from..count.min(from + BATCH_LEN) {
            let BenchDocument { id, json } = reading(n, count, Ids::Coming);
            insert.execute(rusqlite::params![id, String::from_utf8_lossy(&json)])?;
        }
        drop(insert);
        transaction.commit()?;
    }
    let of_one = format!("FROM readings WHERE {SENSOR_OF} = '{SENSOR}'");
    let texts = [
        format!("SELECT id, body {of_one} ORDER BY {TIME_OF} DESC LIMIT 20"),
        format!("SELECT id, body {of_one} AND {TIME_OF} >= '2026-11-10' AND {TIME_OF} < '2026-11-11'"),
        format!(
            "SELECT substr({TIME_OF}, 1, 13) AS hour, avg(json_extract(body, '$.celsius')) {of_one} GROUP BY hour"
        ),
    ];
    let mut beside = Vec::new();
    for is_indexed in [false, true] {
        if is_indexed {
            connection
                .execute_batch(&format!("CREATE INDEX by_time ON readings ({SENSOR_OF}, {TIME_OF});"))?;
        }
        let mut of_queries = Vec::new();
        for text in &texts {
            let began = Instant::now();
            let mut statement = connection.prepare(text)?;
            let mut rows = statement.query([])?;
            let mut count = 0;
            while let Some(row) = rows.next()? {
                // As we do, to the last value of each row.
                std::hint::black_box(row.get_ref(1)?);
                count += 1;
            }
            of_queries.push((count, began.elapsed().as_secs_f64() * 1e3));
        }
        beside.push(of_queries);
    }
    Ok(beside)
}

#[cfg(not(feature = "bench-sqlite"))]
fn sqlite(_: &TemporaryDirectory, _: usize) -> Result<Beside, CliError> {
    super::store::sqlite_is_left_out();
    Ok(Vec::new())
}
