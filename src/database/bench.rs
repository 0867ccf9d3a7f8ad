//! Measurements of the store for `gattway bench store`, with SQLite holding the same documents beside it.
//!
//! Functions that return numbers; printing is the command's business. Every run imports documents in synced batches,
//! then updates each of them in rounds.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Database, DatabaseConfig, DatabaseError};

/// Documents in one commit while importing.
pub const BATCH_LEN: usize = 500;

/// A document to measure with.
#[derive(Clone, Debug)]
pub struct BenchDocument {
    /// Its ID.
    pub id: String,
    /// Its body as JSON text.
    pub json: Vec<u8>,
}

impl BenchDocument {
    /// Length of its line in an NDJSON export, which carries `_id`.
    pub fn ndjson_bytes(&self) -> u64 {
        const ID_MEMBER: usize = r#""_id":"","#.len();
        const NEWLINE: usize = 1;
        (self.json.len() + self.id.len() + ID_MEMBER + NEWLINE) as u64
    }
}

/// What one store did.
#[derive(Clone, Copy, Debug)]
pub struct StoreFigures {
    /// Documents.
    pub documents: u64,
    /// Bytes of their NDJSON export.
    pub json_bytes: u64,
    /// Wall time of the import, commits synced.
    pub import_time: Duration,
    /// CPU time of the process during the import, user and system.
    pub import_cpu: Duration,
    /// Bytes of all files after the import.
    pub import_disk_bytes: u64,
    /// Bytes handed to stable storage by the import.
    pub import_medium_bytes: u64,
    /// Rounds of updating each document.
    pub update_rounds: u32,
    /// Wall time of all updates.
    pub update_time: Duration,
    /// Bytes of all files after the updates.
    pub update_disk_bytes: u64,
    /// Bytes handed to stable storage by import and updates.
    pub update_medium_bytes: u64,
}

/// Measures our store in `directory`, which must not exist.
///
/// # Errors
/// Of the database.
pub fn measure(
    directory: &Path,
    documents: &[BenchDocument],
    update_rounds: u32,
) -> Result<StoreFigures, DatabaseError> {
    let database = Database::open(directory, DatabaseConfig::default())?;
    let collection = database.default_collection()?;
    let put_all = |round: u32| -> Result<(), DatabaseError> {
        for part in documents.chunks(BATCH_LEN) {
            database.batch(|batch| {
                part.iter().try_for_each(|d| batch.put_json(&collection, &d.id, &updated(&d.json, round)))
            })?;
        }
        Ok(())
    };
    run(documents, update_rounds, put_all, || disk_bytes(directory))
}

/// The body of a document after a round of updates: a member changes each time.
pub fn updated(json: &[u8], round: u32) -> Vec<u8> {
    if round == 0 {
        return json.to_vec();
    }
    let mut body = format!("{{\"round\":{round},").into_bytes();
    body.extend_from_slice(json.get(1..).unwrap_or_default());
    body
}

fn run<E>(
    documents: &[BenchDocument],
    update_rounds: u32,
    mut put_all: impl FnMut(u32) -> Result<(), E>,
    disk_bytes: impl Fn() -> u64,
) -> Result<StoreFigures, E> {
    let (started, cpu, medium) = (Instant::now(), process_cpu(), medium_bytes());
    put_all(0)?;
    let (import_time, import_cpu) = (started.elapsed(), process_cpu().saturating_sub(cpu));
    let (import_disk_bytes, import_medium_bytes) = (disk_bytes(), medium_bytes().saturating_sub(medium));
    let started = Instant::now();
    for round in 1..=update_rounds {
        put_all(round)?;
    }
    Ok(StoreFigures {
        documents: documents.len() as u64,
        json_bytes: documents.iter().map(BenchDocument::ndjson_bytes).sum(),
        import_time,
        import_cpu,
        import_disk_bytes,
        import_medium_bytes,
        update_rounds,
        update_time: started.elapsed(),
        update_disk_bytes: disk_bytes(),
        update_medium_bytes: medium_bytes().saturating_sub(medium),
    })
}

/// Time to open the database in `directory` and read one document.
///
/// # Errors
/// Of the database.
pub fn measure_open(directory: &Path, id: &str) -> Result<Duration, DatabaseError> {
    let started = Instant::now();
    let database = Database::open(directory, DatabaseConfig { create: false, ..DatabaseConfig::default() })?;
    let document = database.default_collection()?.get(id)?;
    let elapsed = started.elapsed();
    document.map(|_| elapsed).ok_or_else(|| DatabaseError::NotFound { id: id.to_owned() })
}

/// A new SQLite database that keeps what it has acknowledged, as ours does: WAL, `synchronous=FULL`.
///
/// # Errors
/// Of SQLite.
#[cfg(feature = "bench-sqlite")]
pub fn open_sqlite(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let connection = rusqlite::Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Table of documents in SQLite that has what ours has: found by ID and by sequence.
#[cfg(feature = "bench-sqlite")]
pub const SQLITE_DOCUMENTS: &str =
    "CREATE TABLE documents (id TEXT PRIMARY KEY, body TEXT NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID;
     CREATE UNIQUE INDEX by_seq ON documents (seq);";

/// Saves a document in it.
#[cfg(feature = "bench-sqlite")]
pub const SQLITE_INSERT: &str = "INSERT OR REPLACE INTO documents (id, body, seq) VALUES (?1, ?2, ?3)";

/// SQLite with the same documents, in one table of ID, body text and sequence.
///
/// # Errors
/// Of SQLite.
#[cfg(feature = "bench-sqlite")]
pub fn measure_sqlite(
    directory: &Path,
    documents: &[BenchDocument],
    update_rounds: u32,
) -> rusqlite::Result<StoreFigures> {
    let io = |e: std::io::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(e));
    std::fs::create_dir_all(directory).map_err(io)?;
    let mut connection = open_sqlite(&directory.join("documents.sqlite"))?;
    connection.execute_batch(SQLITE_DOCUMENTS)?;
    let mut sequence = 0;
    let put_all = |round: u32| -> rusqlite::Result<()> {
        for part in documents.chunks(BATCH_LEN) {
            let transaction = connection.transaction()?;
            let mut insert = transaction.prepare_cached(SQLITE_INSERT)?;
            for document in part {
                sequence += 1;
                let body = updated(&document.json, round);
                let body = std::str::from_utf8(&body)
                    .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                insert.execute(rusqlite::params![document.id, body, sequence])?;
            }
            drop(insert);
            transaction.commit()?;
        }
        Ok(())
    };
    run(documents, update_rounds, put_all, || disk_bytes(directory))
}

/// Bytes of all files in a directory.
pub fn disk_bytes(directory: &Path) -> u64 {
    super::store::directory_bytes(directory).unwrap_or(0)
}

/// Bytes this process handed to stable storage so far, by the kernel's count; 0 where there is none.
pub fn medium_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// CPU time of this process so far, user and system; 0 where the kernel does not tell.
pub fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}
