//! Blobs: what saving one costs beside a copy of the file, what one costs two processes that sync it, and what a cut costs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;

use super::figure::Figure;
use super::process::Process;
use super::store::memory_bytes;
use super::{CliError, Exit};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::store;

const MIB: f64 = 1024.0 * 1024.0;

/// Bytes of the large blob, and of the one that is cut.
const LARGE: usize = 100_000_000;
const CUT: usize = 1_000_000;

/// Times that it is cut.
const CUTS: u64 = 10;

/// How many small blobs there are, at first and then.
const MANY: [usize; 2] = [500, 4_000];

const ID: &str = "blob";

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-blobs")?;
    let mut figures = large(&place)?;
    figures.extend(cut(&place)?);
    figures.extend(many(&place)?);
    Ok(figures)
}

/// A file of so many bytes that do not compress.
fn noise(path: &Path, bytes: usize) -> Result<(), CliError> {
    let (mut random, mut file) = (fastrand::Rng::with_seed(7), File::create(path)?);
    let mut left = bytes;
    let mut chunk = vec![0; 1 << 20];
    while left > 0 {
        let now = left.min(chunk.len());
        random.fill(&mut chunk[..now]);
        file.write_all(&chunk[..now])?;
        left -= now;
    }
    Ok(file.sync_all()?)
}

/// Makes a database with one document that has the file as its blob; gives the seconds that saving took.
fn save(path: &Path, content: &Path) -> Result<f64, CliError> {
    let db = store::open(path)?;
    let began = Instant::now();
    let blob = db.save_blob(File::open(content)?, "application/octet-stream").map_err(store::failed)?;
    let took = began.elapsed().as_secs_f64();
    let collection = db.default_collection().map_err(store::failed)?;
    collection.put(ID, &json!({ "content": blob })).map_err(store::failed)?;
    db.close().map_err(store::failed)?;
    Ok(took)
}

/// Whether a database has the document with all of its blob.
fn has(path: &Path, bytes: usize) -> Result<(), CliError> {
    let db = store::open(path)?;
    let document =
        db.default_collection().and_then(|collection| collection.get(ID)).map_err(store::failed)?;
    let body = document.map(|document| document.body()["content"]["digest"].clone());
    let digest = body.as_ref().and_then(|digest| digest.as_str()).unwrap_or_default();
    let content = db.blob(digest).map_err(store::failed)?;
    let read = content.map_or(Ok(0), |mut content| io::copy(&mut content, &mut io::sink()))?;
    match read == bytes as u64 {
        true => Ok(()),
        false => Err(CliError::new(Exit::Failure, format!("the blob came with {read} bytes of {bytes}"))),
    }
}

/// As many bytes as come are taken of a peer.
const ANY_BYTES: [&str; 2] = ["--peer-bytes", "0"];

fn large(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let at = |name: &str| place.path().join(name);
    let (content, sender, receiver) = (at("content"), at("sender"), at("receiver"));
    noise(&content, LARGE)?;
    let began = Instant::now();
    std::fs::copy(&content, at("copy"))?;
    File::open(at("copy"))?.sync_all()?;
    let copied = began.elapsed().as_secs_f64();
    let saved = save(&sender, &content)?;
    for used in [content, at("copy")] {
        std::fs::remove_file(used)?;
    }
    let (served, address) = Process::serve(&receiver, &ANY_BYTES)?;
    let began = Instant::now();
    let mut sync =
        Process::start(&sender, &["sync", &address, "--push", "--continuous", "--trust-all", "--documents"])?;
    sync.event("document")?;
    let seconds = began.elapsed().as_secs_f64();
    let highest = |process: &Process| memory_bytes(process.id(), "VmHWM:") as f64 / MIB;
    let memory = [highest(&sync), highest(&served)];
    sync.finish()?;
    served.finish()?;
    has(&receiver, LARGE)?;
    let of = |name: &str, value, unit| Figure::new("blobs", name, value, unit);
    Ok(vec![
        of("saving 100 MB, durable, by copying the file and syncing it", saved / copied, "ratio"),
        of(
            "100 MB between two processes, loopback TCP, secured, durable",
            LARGE as f64 / seconds / MIB,
            "MiB/s",
        ),
        of("  resident memory of the sender at its highest", memory[0], "MiB").at_most(64.0),
        of("  resident memory of the receiver at its highest", memory[1], "MiB").at_most(64.0),
    ])
}

fn cut(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let at = |name: &str| place.path().join(name);
    let content = at("short");
    noise(&content, CUT)?;
    let sender: PathBuf = at("short-sender");
    save(&sender, &content)?;
    let whole = through_cuts(&sender, &at("uncut"), 0)?;
    let cut = through_cuts(&sender, &at("cut"), CUTS)?;
    let again = cut.saturating_sub(whole) as f64;
    let name =
        format!("1 MB, cut {CUTS} times, both processes begun anew: bytes sent beyond those without a cut");
    Ok(vec![
        Figure::new("blobs", name, again, "bytes"),
        Figure::new("blobs", "  by the blob", again / CUT as f64, "ratio"),
    ])
}

/// What each of many small blobs takes, and whether it takes more where there are more of them.
fn many(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let mut each = Vec::new();
    for count in MANY {
        let at = |name: &str| place.path().join(format!("{name}-{count}"));
        let db = store::open(&at("many"))?;
        let collection = db.default_collection().map_err(store::failed)?;
        for n in 0..count {
            let blob =
                db.save_blob(format!("content {n}").as_bytes(), "text/plain").map_err(store::failed)?;
            collection.put(&format!("{ID}-{n}"), &json!({ "content": blob })).map_err(store::failed)?;
        }
        db.close().map_err(store::failed)?;
        drop((collection, db));
        let (sync, _) = super::replication::push(&at("many"), &at("of-many"), "many")?;
        if sync["documents"] != count {
            return Err(CliError::new(Exit::Failure, format!("of {count} documents with a blob: {sync}")));
        }
        each.push(sync["seconds"].as_f64().unwrap_or(f64::NAN) / count as f64);
    }
    let name = format!("a small blob with its document, between two processes, of {}", MANY[1]);
    Ok(vec![
        Figure::new("blobs", name, each[1] * 1e6, "us"),
        Figure::new("blobs", format!("  by the same of {}", MANY[0]), each[1] / each[0], "ratio")
            .at_most(2.0),
    ])
}

/// Pushes the sender's database through a connection that is cut so often, at even steps of the blob; both processes are begun anew
/// each time. Gives the bytes that the sender has sent in all.
fn through_cuts(sender: &Path, receiver: &Path, cuts: u64) -> Result<u64, CliError> {
    let sent = Arc::new(AtomicU64::new(0));
    for run in 0..=cuts {
        let (served, address) = Process::serve(receiver, &ANY_BYTES)?;
        let target = address.trim_start_matches("tcp:").to_owned();
        let proxy = TcpListener::bind("127.0.0.1:0")?;
        let place = format!("tcp:{}", proxy.local_addr()?);
        let limit = (run < cuts).then_some(CUT as u64 / (cuts + 1));
        let count = Arc::clone(&sent);
        let passing = std::thread::spawn(move || pass(&proxy, &target, limit, &count));
        let args = ["sync", &place, "--push", "--attempts", "1", "--peer", "cut", "--trust-all"];
        let start = if run < cuts { Process::start_unheard } else { Process::start };
        let ended = start(sender, &args)?.end();
        let _ = passing.join();
        if run < cuts {
            // Dropped is killed.
            drop(served);
        } else {
            ended?;
            served.finish()?;
        }
    }
    has(receiver, CUT)?;
    Ok(sent.load(Ordering::Relaxed))
}

/// Passes one connection on, up to so many bytes from who has connected.
fn pass(listener: &TcpListener, target: &str, limit: Option<u64>, count: &AtomicU64) -> io::Result<()> {
    let (mut from, _) = listener.accept()?;
    let mut to = TcpStream::connect(target)?;
    let (mut back_from, mut back_to) = (to.try_clone()?, from.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Both);
    });
    let (mut buffer, mut passed) = ([0; 4096], 0);
    loop {
        let read = from.read(&mut buffer)?;
        count.fetch_add(read as u64, Ordering::Relaxed);
        passed += read as u64;
        if read == 0 || to.write_all(&buffer[..read]).is_err() || limit.is_some_and(|limit| passed > limit) {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    let _ = back.join();
    Ok(())
}
