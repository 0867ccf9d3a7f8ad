//! The HTTP API of a process that serves, over its Unix socket: single documents, many at once, reads, followers of changes. Beside
//! it SQLite in this process, without any server.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use hyper::Method;
use serde_json::{Value, json};

use super::figure::Figure;
use super::process::Process;
use super::readings::{Ids, reading};
use super::store::memory_bytes;
use super::{CliError, Exit};
use crate::cli::support::client::Client;
use crate::cli::support::place::TemporaryDirectory;
use crate::database::bench::BenchDocument;

const MIB: f64 = 1024.0 * 1024.0;

/// Documents that are saved one by one, by one program and by many at a time.
const SINGLE: usize = 500;
const PROGRAMS: usize = 16;
const BY_EACH: usize = 125;

/// Documents that are saved many at once, and how many at once.
const BULK: usize = 20_000;
const AT_ONCE: usize = 1_000;

const READS: usize = 5_000;

/// Who follows changes, and how many.
const FOLLOWERS: usize = 100;
const CHANGES: usize = 1_000;

/// The largest answer that is read as one, bytes.
const ANSWER_MAX: usize = 1 << 20;

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-http")?;
    let path = place.path().join("plant");
    let (served, _) = Process::serve(&path, &[])?;
    let client = connect(&path)?;
    let single = rate(SINGLE, || (0..SINGLE).try_for_each(|n| put(&client, &document(n))))?;
    let many = rate(PROGRAMS * BY_EACH, || at_a_time(&path))?;
    let bulk = rate(BULK, || bulk(&client, 100_000, BULK))?;
    let reads = rate(READS, || {
        (0..READS).try_for_each(|n| get(&client, &format!("/plant/{}", document(n % SINGLE).id)).map(drop))
    })?;
    let followed = follow(&path, &client)?;
    let resident = memory_bytes(served.id(), "VmHWM:") as f64 / MIB;
    served.finish()?;
    let mut figures = vec![
        of("PUT, one after the other, durable each", single, "1/s"),
        of(&format!("PUT, {PROGRAMS} programs at a time"), many, "1/s"),
        of(&format!("_bulk_docs, {AT_ONCE} at once"), bulk, "documents/s"),
        of("GET, one after the other", reads, "1/s"),
        of(&format!("_changes to {FOLLOWERS} followers"), followed, "changes/s"),
        of("resident memory of the process at its highest", resident, "MiB").at_most(64.0),
    ];
    figures.extend(beside(&place, [single, bulk, reads])?);
    Ok(figures)
}

fn of(name: &str, value: f64, unit: &'static str) -> Figure {
    Figure::new("http", name, value, unit)
}

fn document(n: usize) -> BenchDocument {
    reading(n, BULK, Ids::Coming)
}

fn connect(path: &Path) -> Result<Client, CliError> {
    let failed = |error| CliError::new(Exit::Failure, format!("nobody answers for the benchmark: {error}"));
    Client::connect(path, "http").map_err(failed)
}

/// How often in a second, where the work is done so often.
fn rate(times: usize, work: impl FnOnce() -> Result<(), CliError>) -> Result<f64, CliError> {
    let began = Instant::now();
    work()?;
    Ok(times as f64 / began.elapsed().as_secs_f64())
}

fn ask(client: &Client, method: Method, path: &str, body: Vec<u8>) -> Result<Vec<u8>, CliError> {
    let mut answer = client.ask(method, path, body, None).map_err(|failed| failed.told())?;
    Ok(answer.all(ANSWER_MAX)?)
}

fn put(client: &Client, document: &BenchDocument) -> Result<(), CliError> {
    ask(client, Method::PUT, &format!("/plant/{}", document.id), document.json.clone()).map(drop)
}

fn get(client: &Client, path: &str) -> Result<Value, CliError> {
    let answer = ask(client, Method::GET, path, Vec::new())?;
    serde_json::from_slice(&answer)
        .map_err(|error| CliError::new(Exit::Failure, format!("an answer: {error}")))
}

/// Several programs save documents, each one after the other.
fn at_a_time(path: &Path) -> Result<(), CliError> {
    std::thread::scope(|scope| {
        let one = |number: usize| {
            move || {
                let client = connect(path)?;
                let first = 10_000 + number * BY_EACH;
                (first..first + BY_EACH).try_for_each(|n| put(&client, &document(n)))
            }
        };
        let all: Vec<_> = (0..PROGRAMS).map(|number| scope.spawn(one(number))).collect();
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err(gone())))
    })
}

fn gone() -> CliError {
    CliError::new(Exit::Failure, "a program of the benchmark has panicked")
}

/// Saves documents from this number on, many at once.
fn bulk(client: &Client, first: usize, count: usize) -> Result<(), CliError> {
    for from in (first..first + count).step_by(AT_ONCE) {
        let docs: Vec<Value> = (from..(from + AT_ONCE).min(first + count))
            .map(|n| {
                let BenchDocument { json, .. } = document(n);
                let mut body: Value = serde_json::from_slice(&json).unwrap_or_default();
                body["_id"] = format!("b-{n}").into();
                body
            })
            .collect();
        ask(client, Method::POST, "/plant/_bulk_docs", json!({ "docs": docs }).to_string().into_bytes())?;
    }
    Ok(())
}

/// Lets many programs follow changes while more are made; changes in a second, all programs together.
fn follow(path: &Path, client: &Client) -> Result<f64, CliError> {
    let since = get(client, "/plant")?["collections"]["_default"]["update_seq"].clone();
    let place = format!("/plant/_changes?feed=continuous&include_docs=true&since={since}");
    let begun = Barrier::new(FOLLOWERS + 1);
    std::thread::scope(|scope| {
        let one = || {
            let client = connect(path);
            begun.wait();
            let answer =
                client?.ask(Method::GET, &place, Vec::new(), None).map_err(|failed| failed.told())?;
            let mut lines = BufReader::new(answer).lines();
            let mut left = CHANGES;
            while left > 0 {
                let Some(line) = lines.next().transpose()? else { break };
                left -= usize::from(line.contains("\"seq\""));
            }
            match left {
                0 => Ok(()),
                _ => Err(CliError::new(Exit::Failure, format!("a follower missed {left} changes"))),
            }
        };
        let all: Vec<_> = (0..FOLLOWERS).map(|_| scope.spawn(one)).collect();
        begun.wait();
        rate(FOLLOWERS * CHANGES, || {
            bulk(client, 500_000, CHANGES)?;
            all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err(gone())))
        })
    })
}

/// What SQLite does of the same in this process, without a server, and which part of it came over HTTP.
#[cfg(feature = "bench-sqlite")]
fn beside(place: &TemporaryDirectory, [single, bulk, reads]: [f64; 3]) -> Result<Vec<Figure>, CliError> {
    let rates = sqlite(&place.path().join("sqlite"))
        .map_err(|error| CliError::new(Exit::Failure, format!("SQLite: {error}")))?;
    let name = |what: &str| format!("  {what}, by SQLite in this process without a server");
    Ok(vec![
        of(&name("PUT, one after the other"), single / rates[0], "ratio"),
        of(&name("_bulk_docs"), bulk / rates[1], "ratio"),
        of(&name("GET"), reads / rates[2], "ratio"),
    ])
}

#[cfg(feature = "bench-sqlite")]
fn sqlite(path: &Path) -> rusqlite::Result<[f64; 3]> {
    use rusqlite::params;
    let mut connection = crate::database::bench::open_sqlite(path)?;
    connection.execute_batch("create table documents (id text primary key, body text) without rowid")?;
    const INSERT: &str = "insert into documents values (?1, ?2)";
    let rate = |times: usize, began: Instant| times as f64 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    for n in 0..SINGLE {
        let BenchDocument { id, json } = document(n);
        connection.prepare_cached(INSERT)?.execute(params![id, String::from_utf8_lossy(&json)])?;
    }
    let single = rate(SINGLE, began);
    let began = Instant::now();
    for first in (0..BULK).step_by(AT_ONCE) {
        let transaction = connection.transaction()?;
        for n in first..first + AT_ONCE {
            let json = document(n).json;
            let id = format!("b-{n}");
            transaction.prepare_cached(INSERT)?.execute(params![id, String::from_utf8_lossy(&json)])?;
        }
        transaction.commit()?;
    }
    let bulk = rate(BULK, began);
    let began = Instant::now();
    for n in 0..READS {
        let mut select = connection.prepare_cached("select body from documents where id = ?1")?;
        let _: String = select.query_row([document(n % SINGLE).id], |row| row.get(0))?;
    }
    Ok([single, bulk, rate(READS, began)])
}

#[cfg(not(feature = "bench-sqlite"))]
fn beside(_: &TemporaryDirectory, _: [f64; 3]) -> Result<Vec<Figure>, CliError> {
    super::store::sqlite_is_left_out();
    Ok(Vec::new())
}
