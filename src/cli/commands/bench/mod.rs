//! `gattway bench`: figures of each layer beside their targets. The layers measure, the processes and the output are
//! here.

mod air;
mod blobs;
mod days;
mod energy;
mod figure;
mod http;
mod large;
mod link;
mod penguins;
mod process;
mod query;
mod readings;
mod recorded;
mod replication;
mod secure;
mod stock;
mod store;

use clap::{Args, ValueEnum};

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{self, Output};
use figure::Figure;

/// Messages of each workload of `bench blip`.
const BLIP_MESSAGES: usize = 20_000;

/// Readings of `bench air` unless said.
const AIR_READINGS: usize = 20_000;

/// Documents of `bench query` unless said.
const QUERY_DOCUMENTS: usize = 100_000;

/// Measure, as ratios against targets where there are any.
///
/// `link`: goodput of the link protocol by what raw packets carry, on a modelled radio in virtual time. `replication`:
/// two processes over loopback TCP, then bytes on air for the first push and for a sync with nothing to do. `air`: link bytes and
/// processor's time of a document in a first push, for records, readings, mixed documents and text, beside the form of earlier releases, xz and zstd. `energy`: what the modelled radio takes for a sync,
/// and for a day of readings, synced by several policies and read as a log over a UART service: events, bytes, time, energy by data sheets. `stock`: bytes and time with the messages of a stock
/// Couchbase Lite: first pushes at three levels of deflate, nothing to do, one changed field with and without deltas. `store`: bytes
/// on stable storage, memory and time of the database; with the feature bench-sqlite, SQLite holds the same documents beside
/// it. `store --documents N`: so many readings of 50 sensors in turn: what reading by ID, changes here and there, opening and
/// the first sync cost. `query`: time of queries over such readings, beside SQLite likewise. `blobs`: saving a large
/// attachment beside a copy of its file, memory and speed of two processes that sync it, and what cuts cost. `http`: documents
/// a second over the HTTP API, and followers of changes. `blip`: message codec beside plain
/// deflate. `secure`: what encryption costs on the modelled radio, beside the same
/// transfer without it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway bench all
  gattway bench link --json | jq '.figures[] | select(.met == false)'
  gattway bench store --check          # exit code 1 if a target is missed
  gattway bench query --documents 1000000
  gattway bench air --documents 1000000
  gattway bench store --documents 1000000
  cargo run --release --features bench-sqlite -- bench store")]
pub(crate) struct BenchArgs {
    /// What to measure
    #[arg(value_enum)]
    what: Vec<What>,

    /// Documents of `query` [default: 100000], readings of `air` [default: 20000], or of `store` instead of what it measures else
    #[arg(long, value_name = "N")]
    documents: Option<usize>,

    /// Exit with code 1 if a target is missed
    #[arg(long)]
    check: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Measures one layer.
type Measure<'a> = dyn Fn() -> Result<Vec<Figure>, CliError> + 'a;

/// One benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Link,
    Replication,
    Air,
    Energy,
    Stock,
    Store,
    Query,
    Blobs,
    Http,
    Blip,
    Secure,
    All,
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), CliError> {
    let all = args.what.is_empty() || args.what.contains(&What::All);
    let wanted = |what| all || args.what.contains(&what);
    if cfg!(debug_assertions) {
        output::note("gattway: this is a debug build: times are of no use (cargo run --release -- bench)");
    }
    let mut figures = Vec::new();
    let measures: [(What, &Measure<'_>); 11] = [
        (What::Link, &link::measure),
        (What::Blip, &blip),
        (What::Secure, &secure::measure),
        (What::Store, &|| args.documents.map_or_else(store::measure, |count| large::measure(count.max(1)))),
        (What::Replication, &replication::measure),
        (What::Air, &|| air::measure(args.documents.unwrap_or(AIR_READINGS).max(1))),
        (What::Energy, &energy),
        (What::Stock, &stock::measure),
        (What::Blobs, &blobs::measure),
        (What::Http, &http::measure),
        (What::Query, &|| query::measure(args.documents.unwrap_or(QUERY_DOCUMENTS).max(1))),
    ];
    for (what, measure) in measures {
        if wanted(what) {
            figures.extend(measure()?);
        }
    }
    let mut out = Output::new();
    if args.json {
        out.json(&figure::object(&figures))?;
    } else {
        out.line(figure::table(&figures))?;
    }
    out.flush()?;
    let missed = figures.iter().filter(|figure| figure.met() == Some(false)).count();
    if args.check && missed > 0 {
        return Err(CliError::new(
            Exit::Failure,
            format!("{} missed", output::counted(missed as u64, "target")),
        ));
    }
    Ok(())
}

fn energy() -> Result<Vec<Figure>, CliError> {
    let mut figures = energy::measure()?;
    figures.extend(days::measure()?);
    Ok(figures)
}

fn blip() -> Result<Vec<Figure>, CliError> {
    let began = std::time::Instant::now();
    let now = || crate::time::Instant::from_micros(began.elapsed().as_micros() as u64);
    let rows = crate::blip::bench::run(BLIP_MESSAGES, &now);
    Ok(rows
        .iter()
        .flat_map(|row| {
            let name =
                |what: &str| format!("{} messages, deflate {}: {what}", row.workload, row.compression_level);
            [
                Figure::new("blip", name("messages"), row.messages_per_second, "1/s"),
                Figure::new("blip", name("plain deflate / ours"), row.ratio_to_plain, "ratio"),
            ]
        })
        .collect())
}
