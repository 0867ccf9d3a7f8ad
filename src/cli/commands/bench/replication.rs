//! Replication: speed between two processes over loopback TCP, bytes on air over the modelled radio, and what a sync with
//! nothing to do costs.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};

use super::figure::Figure;
use super::process::Process;
use super::{CliError, Exit};
use crate::cli::commands::demo::{save, weather};
use crate::cli::support::air::{Air, AirArgs, Protection};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::{runtime, store};
use crate::database::Database;
use crate::endpoint::{MessageEndpoint, MessageEndpointConnection, MessageEndpointDelegate, ProtocolType};
use crate::replicator::extension::RevsFormat;
use crate::replicator::{MessageEndpointListener, MessageEndpointListenerConfiguration};
use crate::replicator::{Replicator, ReplicatorConfiguration};
use crate::transport::clock::Clock;
use crate::transport::stream::StreamConnection;

/// Runs whose median counts, each into an empty database.
const RUNS: usize = 5;

/// As much as comes is taken of a peer.
const QUOTA: &str = "0";

/// Bytes in flight inside the recorder.
const PIPE_BYTES: usize = 64 * 1024;

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

/// The defaults of the demo's radio.
#[derive(Parser)]
struct DefaultAir {
    #[command(flatten)]
    air: AirArgs,
}

fn on_air(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let (field, documents) = fill(place, "field")?;
    let gateway = store::open(&place.path().join("gateway"))?;
    let args = DefaultAir::parse_from(["air"]).air;
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

/// Bytes that went over, in order: from the active side (`true`) or to it.
pub(super) type Record = Arc<Mutex<Vec<(bool, usize)>>>;

/// Counts bytes and round trips of a second sync, on a recorded pipe.
fn nothing_to_do(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let field = store::open(&place.path().join("field"))?;
    let gateway = store::open(&place.path().join("gateway"))?;
    let record = Record::default();
    runtime::block_on(async {
        // Over this endpoint nothing was synced yet: the first run makes the checkpoint.
        sync_recorded(&field, &gateway, &Record::default(), Extension::Offered).await?;
        sync_recorded(&field, &gateway, &record, Extension::Offered).await
    })?;
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    let turns = record.iter().zip(record.iter().skip(1)).filter(|(a, b)| a.0 && !b.0).count();
    // The last of them is the closing handshake of the byte stream.
    let round_trips = turns.saturating_sub(1) as f64;
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
    runtime::block_on(sync_recorded(&field, &gateway, &record, Extension::Withheld))?;
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
        runtime::block_on(sync_recorded(active, passive, &Record::default(), Extension::Withheld))?;
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

/// Whether the messages between our own peers are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    Offered,
    /// As earlier releases offer them.
    Earlier,
    Withheld,
}

fn bytes(record: &[(bool, usize)], from_active: bool) -> f64 {
    record.iter().filter(|sent| sent.0 == from_active).map(|sent| sent.1).sum::<usize>() as f64
}

async fn sync_recorded(
    field: &Database,
    gateway: &Database,
    record: &Record,
    extension: Extension,
) -> Result<(), CliError> {
    // A peer of another name starts from nothing.
    let uid = if extension == Extension::Offered { "recorded" } else { "plain" };
    sync_recorded_as(uid, field, gateway, record, extension).await
}

/// Syncs with a peer of this name, and notes what goes over.
pub(super) async fn sync_recorded_as(
    uid: &str,
    field: &Database,
    gateway: &Database,
    record: &Record,
    extension: Extension,
) -> Result<(), CliError> {
    let config =
        MessageEndpointListenerConfiguration::new(Arc::new(gateway.clone()), ProtocolType::ByteStream);
    let listener = MessageEndpointListener::new(config);
    let delegate = Arc::new(Pipe { record: Arc::clone(record), far: Mutex::default() });
    let endpoint =
        MessageEndpoint::new(uid, Arc::new(()), ProtocolType::ByteStream, Arc::clone(&delegate) as _);
    let mut config = ReplicatorConfiguration::new(endpoint, Arc::new(field.clone()));
    config.extension = extension != Extension::Withheld;
    if extension == Extension::Earlier {
        config.revs_format = RevsFormat::TreeIds;
    }
    let replicator = Replicator::new(config);
    let (near, far) = recorded_pipe(record);
    *delegate.far.lock().unwrap_or_else(PoisonError::into_inner) = Some(near);
    let (reader, writer) = split(far);
    let accepted: Arc<dyn MessageEndpointConnection> =
        Arc::new(StreamConnection::accepted(reader, writer, "pipe"));
    listener.accept(accepted).map_err(|error| CliError::new(Exit::Peer, error.to_string()))?;
    replicator.start();
    let status = replicator.wait_until_stopped().await;
    listener.wait_until_closed().await;
    status.error.map_or(Ok(()), |error| Err(CliError::new(Exit::Peer, error.to_string())))
}

/// Gives the replicator its end of the pipe, once.
struct Pipe {
    record: Record,
    far: Mutex<Option<DuplexStream>>,
}

impl MessageEndpointDelegate for Pipe {
    fn create_connection(&self, _: &MessageEndpoint) -> Arc<dyn MessageEndpointConnection> {
        let stream = self.far.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A second attempt finds a pipe whose other end is gone, and fails.
        let stream = stream.unwrap_or_else(|| recorded_pipe(&self.record).0);
        let (reader, writer) = split(stream);
        Arc::new(StreamConnection::accepted(reader, writer, "pipe"))
    }
}

/// Two ends of a pipe that records what goes through it.
fn recorded_pipe(record: &Record) -> (DuplexStream, DuplexStream) {
    let (near, near_inside) = duplex(PIPE_BYTES);
    let (far, far_inside) = duplex(PIPE_BYTES);
    let (from_near, to_near) = split(near_inside);
    let (from_far, to_far) = split(far_inside);
    tokio::spawn(copy(from_near, to_far, true, Arc::clone(record)));
    tokio::spawn(copy(from_far, to_near, false, Arc::clone(record)));
    (near, far)
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    from_active: bool,
    record: Record,
) {
    let mut buffer = vec![0; PIPE_BYTES];
    loop {
        match from.read(&mut buffer).await {
            Ok(len) if len > 0 => {
                record.lock().unwrap_or_else(PoisonError::into_inner).push((from_active, len));
                if to.write_all(&buffer[..len]).await.is_err() {
                    return;
                }
            }
            _ => {
                // The other side may have gone already.
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}
