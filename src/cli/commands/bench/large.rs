//! The database as it grows: readings of many sensors that come in turn, under IDs that sort by sensor, so that neighbours in
//! order of IDs came far apart. SQLite with the same documents beside it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::figure::Figure;
use super::process::Process;
use super::readings::{Ids, SENSORS, reading, sensor};
use super::{CliError, Exit};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::store as db_store;
use crate::database::bench::{BATCH_LEN, BenchDocument, medium_bytes, process_cpu};
use crate::database::{Collection, Database};

/// Documents that are changed here and there, and the step from one to the next: a prime, so that all are reached.
const UPDATES: usize = 20_000;
const STEP: usize = 7_368_787;

/// Documents of the database that `info` is compared with.
const SMALL: usize = 100;

/// Runs of `info`, of which the fastest counts: what it needs, not what others took.
const INFO_RUNS: usize = 5;

const MIB: f64 = 1024.0 * 1024.0;

/// A database to measure: ours, or the one beside it.
trait Subject {
    /// Saves documents as one commit, durable when it returns.
    fn save(&mut self, documents: &[BenchDocument]) -> Result<(), CliError>;

    /// Reads the documents of one sensor in order of their IDs, or of all, to the last value; how many there are.
    fn read(&mut self, sensor: Option<&str>) -> Result<usize, CliError>;
}

struct Ours {
    db: Database,
    collection: Collection,
}

impl Ours {
    fn open(path: &Path) -> Result<Ours, CliError> {
        let db = db_store::open(path)?;
        let collection = db.default_collection().map_err(db_store::failed)?;
        Ok(Ours { db, collection })
    }
}

impl Subject for Ours {
    fn save(&mut self, documents: &[BenchDocument]) -> Result<(), CliError> {
        let save_all = self.db.batch(|batch| {
            documents
                .iter()
                .try_for_each(|BenchDocument { id, json }| batch.put_json(&self.collection, id, json))
        });
        save_all.map_err(db_store::failed)
    }

    fn read(&mut self, sensor: Option<&str>) -> Result<usize, CliError> {
        let mut count = 0;
        for document in self.collection.iter_after(sensor.unwrap_or_default()) {
            let document = document.map_err(db_store::failed)?;
            if sensor.is_some_and(|sensor| !document.id().starts_with(sensor)) {
                break;
            }
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(feature = "bench-sqlite")]
struct Sqlite {
    connection: rusqlite::Connection,
    sequence: u64,
}

#[cfg(feature = "bench-sqlite")]
impl Sqlite {
    fn open(path: &Path) -> rusqlite::Result<Sqlite> {
        let connection = crate::database::bench::open_sqlite(path)?;
        connection.execute_batch(crate::database::bench::SQLITE_DOCUMENTS)?;
        Ok(Sqlite { connection, sequence: 0 })
    }

    fn insert(&mut self, documents: &[BenchDocument]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut insert = transaction.prepare_cached(crate::database::bench::SQLITE_INSERT)?;
        for BenchDocument { id, json } in documents {
            self.sequence += 1;
            insert.execute(rusqlite::params![id, String::from_utf8_lossy(json), self.sequence])?;
        }
        drop(insert);
        transaction.commit()
    }

    fn count(&self, sensor: Option<&str>) -> rusqlite::Result<usize> {
        let mut select = self
            .connection
            .prepare("SELECT id, body FROM documents WHERE id >= ?1 AND id < ?2 || '~' ORDER BY id")?;
        let (from, to) = (sensor.unwrap_or_default(), sensor.unwrap_or("~"));
        let mut rows = select.query([from, to])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            std::hint::black_box(row.get_ref(1)?);
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(feature = "bench-sqlite")]
impl Subject for Sqlite {
    fn save(&mut self, documents: &[BenchDocument]) -> Result<(), CliError> {
        self.insert(documents).map_err(of_sqlite)
    }

    fn read(&mut self, sensor: Option<&str>) -> Result<usize, CliError> {
        self.count(sensor).map_err(of_sqlite)
    }
}

#[cfg(feature = "bench-sqlite")]
fn of_sqlite(error: rusqlite::Error) -> CliError {
    CliError::new(Exit::Failure, format!("SQLite: {error}"))
}

/// CPU time and bytes handed to stable storage by a call.
fn spent(call: impl FnOnce() -> Result<(), CliError>) -> Result<(Duration, u64), CliError> {
    let (cpu, medium) = (process_cpu(), medium_bytes());
    call()?;
    Ok((process_cpu().saturating_sub(cpu), medium_bytes().saturating_sub(medium)))
}

/// What a store did: named as its bench, in microseconds of CPU a document where nothing else is said.
struct Growth {
    import_us: f64,
    import_per_s: f64,
    written: f64,
    on_disk: f64,
    all_us: f64,
    range_us: f64,
    update_us: f64,
    update_written: f64,
}

fn grow(subject: &mut impl Subject, directory: &Path, count: usize) -> Result<Growth, CliError> {
    let micros = |cpu: Duration, documents: usize| cpu.as_secs_f64() * 1e6 / documents as f64;
    let (mut json, began) = (0, Instant::now());
    let (import, medium) = spent(|| {
        (0..count).step_by(BATCH_LEN).try_for_each(|from| {
            let documents: Vec<BenchDocument> =
                (from..count.min(from + BATCH_LEN)).map(|n| reading(n, count, Ids::BySensor)).collect();
            json += documents.iter().map(BenchDocument::ndjson_bytes).sum::<u64>();
            subject.save(&documents)
        })
    })?;
    let import_per_s = count as f64 / began.elapsed().as_secs_f64();
    let disk = crate::database::bench::disk_bytes(directory);
    let (all, _) = spent(|| expect(subject.read(None)?, count))?;
    let of_one = (0..count).filter(|n| n % SENSORS == 0).count();
    let (range, _) = spent(|| expect(subject.read(Some(&sensor(0)))?, of_one))?;
    let updates = UPDATES.min(count);
    let mut changed_json = 0;
    let (update, update_medium) = spent(|| {
        (0..updates).step_by(BATCH_LEN).try_for_each(|from| {
            let documents: Vec<BenchDocument> = (from..updates.min(from + BATCH_LEN))
                .map(|n| {
                    let old = reading(n.wrapping_mul(STEP) % count, count, Ids::BySensor);
                    BenchDocument { json: crate::database::bench::updated(&old.json, 1), ..old }
                })
                .collect();
            changed_json += documents.iter().map(BenchDocument::ndjson_bytes).sum::<u64>();
            subject.save(&documents)
        })
    })?;
    Ok(Growth {
        import_us: micros(import, count),
        import_per_s,
        written: medium as f64 / json as f64,
        on_disk: disk as f64 / json as f64,
        all_us: micros(all, count),
        range_us: micros(range, of_one),
        update_us: micros(update, updates),
        update_written: update_medium as f64 / changed_json as f64,
    })
}

fn expect(found: usize, expected: usize) -> Result<(), CliError> {
    if found == expected {
        return Ok(());
    }
    Err(CliError::new(Exit::Failure, format!("{found} documents read where {expected} were saved")))
}

fn figures(bench: &'static str, of: &Growth, is_ours: bool) -> Vec<Figure> {
    let target = |figure: Figure, limit: f64| if is_ours { figure.at_most(limit) } else { figure };
    let each = "us of CPU";
    vec![
        Figure::new(bench, "import, synced batches of 500", of.import_per_s, "documents/s"),
        Figure::new(bench, "  a document", of.import_us, each),
        target(Figure::new(bench, "written to stable storage / JSON, import", of.written, "ratio"), 2.5),
        Figure::new(bench, "on disk / JSON after import", of.on_disk, "ratio"),
        target(Figure::new(bench, "all in order of IDs, a document", of.all_us, each), 5.0),
        target(Figure::new(bench, "one sensor in order of IDs, a document", of.range_us, each), 5.0),
        target(Figure::new(bench, "changes here and there, a document", of.update_us, each), 60.0),
        Figure::new(bench, "written to stable storage / JSON, changes", of.update_written, "ratio"),
    ]
}

pub(super) fn measure(count: usize) -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-large")?;
    let path = place.path().join("ours");
    let ours = grow(&mut Ours::open(&path)?, &path, count)?;
    let resident = memory_high_bytes() as f64 / MIB;
    let of = format!("{} readings of {SENSORS} sensors", super::output::thousands(count as u64));
    let mut all = vec![Figure::new("store", of, count as f64, "")];
    all.extend(figures("store", &ours, true));
    all.push(Figure::new("store", "resident memory at its highest", resident, "MiB").at_most(64.0));
    let small = place.path().join("small");
    grow(&mut Ours::open(&small)?, &small, SMALL)?;
    let (large_s, small_s) = (info_seconds(&path)?, info_seconds(&small)?);
    all.push(Figure::new("store", "time of info", large_s * 1e3, "ms"));
    all.push(
        Figure::new("store", format!("  by that with {SMALL} documents"), large_s / small_s, "ratio")
            .at_most(2.0),
    );
    all.push(first_sync(&place, &path, count)?);
    all.extend(beside(&place, count)?);
    Ok(all)
}

#[cfg(feature = "bench-sqlite")]
fn beside(place: &TemporaryDirectory, count: usize) -> Result<Vec<Figure>, CliError> {
    let directory = place.path().join("sqlite");
    std::fs::create_dir_all(&directory)?;
    let mut sqlite = Sqlite::open(&directory.join("documents.sqlite")).map_err(of_sqlite)?;
    Ok(figures("sqlite", &grow(&mut sqlite, &directory, count)?, false))
}

#[cfg(not(feature = "bench-sqlite"))]
fn beside(_: &TemporaryDirectory, _: usize) -> Result<Vec<Figure>, CliError> {
    super::store::sqlite_is_left_out();
    Ok(Vec::new())
}

/// The most that this process has had in memory, in bytes.
fn memory_high_bytes() -> u64 {
    super::store::memory_bytes(std::process::id(), "VmHWM:")
}

/// How long the command takes to tell of a database, process and all.
fn info_seconds(path: &Path) -> Result<f64, CliError> {
    let mut fastest = f64::INFINITY;
    for _ in 0..INFO_RUNS {
        let began = Instant::now();
        Process::run(path, &["db", "info"])?;
        fastest = fastest.min(began.elapsed().as_secs_f64());
    }
    Ok(fastest)
}

/// The first sync of all to another process.
fn first_sync(place: &TemporaryDirectory, path: &Path, count: usize) -> Result<Figure, CliError> {
    let receiver = place.path().join("receiver");
    let (sync, _) = super::replication::push(path, &receiver, "first")?;
    if sync["documents"] != count {
        return Err(CliError::new(Exit::Failure, format!("the benchmark's sync ended with {sync}")));
    }
    let seconds = sync["seconds"].as_f64().unwrap_or(f64::NAN);
    Ok(Figure::new("store", "first sync to another process", count as f64 / seconds, "documents/s")
        .at_least(40_000.0))
}
