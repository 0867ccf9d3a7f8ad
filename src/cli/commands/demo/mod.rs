//! `gattway demo`: a field device and a gateway sync over a modelled radio. Every layer is the real one.
//!
//! What happens when is here, the devices are in [`crate::cli::support::air`], the proof in `compare`, the table in `report`.

mod compare;
mod report;
mod scenes;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::support::air::{Air, AirArgs, Protection};
use crate::cli::support::documents::{EntryArgs, entry_of};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{self, Output, counted};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::records::{self, Reading};
use crate::cli::support::{runtime, store};
use crate::database::{Collection, Database};
use crate::transport::clock::Clock;
use report::Report;

/// A year of hourly weather, as a sensor would have logged it.
/// Source: `hw-tests/data/README.md`.
const WEATHER: &[u8] = include_bytes!("../../../../hw-tests/data/seattle-weather-hourly-normals.csv");

/// Documents imported at once.
const BATCH_DOCUMENTS: usize = 500;

/// Show two devices that sync over a modelled radio: a cut, a conflict, a deletion, and proof that both agree.
///
/// A field device has 8,759 hourly weather records, a gateway has none. They sync over a model of a Bluetooth LE
/// connection: air time, connection events, buffers and loss are modelled, everything above is what runs on real radios.
/// In the middle of the first sync the connection is lost for a second. Then both sides edit, once the same document, and
/// the gateway deletes one; they sync again, and again with nothing to do. At the end both databases are compared,
/// revision by revision; if they differ, the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gattway demo
  gattway demo --phy 1m --mtu 23 --speed 10      # an old device, at ten times its speed
  gattway demo --loss 10 --drop 2 --seed 7       # a bad place for a radio
  gattway demo --dir /tmp/demo && gattway --db /tmp/demo/gateway db ls --limit 5
  gattway demo --json | jq .air_bytes_per_document")]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    air: AirArgs,

    /// Run so many times as fast as the radio would
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,

    /// Keep the databases in this directory, as `field` and `gateway`; it must have neither
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (0.1..=100.0).contains(&speed) => Ok(speed),
        _ => Err("a speed is 0.1 to 100".to_owned()),
    }
}

pub(crate) fn run(args: &DemoArgs) -> Result<(), CliError> {
    let began = Instant::now();
    let mut signals = runtime::Signals::listen()?;
    let place = Place::new(args.dir.as_deref())?;
    let field = store::open(&place.path().join("field"))?;
    let gateway = store::open(&place.path().join("gateway"))?;
    let say = |line: &str| {
        if !args.json {
            output::note(line);
        }
    };
    let json_bytes = import_weather(&field, &signals)?;
    let air = &args.air;
    say(&format!(
        "field device  {} of hourly weather, {} of JSON",
        counted(field.default_collection().map_err(store::failed)?.count(), "document"),
        output::bytes_text(json_bytes),
    ));
    say(&format!(
        "radio         modelled: {} PHY, ATT MTU {}, interval {} ms, at {} x its speed",
        air.phy, air.mtu, air.interval_ms, args.speed,
    ));
    let ceiling = air.ceiling_bytes_per_s()?;
    let scenes = runtime::block_on(async {
        let air = Air::start(&args.air, &gateway, Clock::scaled(args.speed), Protection::Secure).await?;
        tokio::select! {
            scenes = scenes::play(&air, &field, &gateway, args.json) => scenes,
            () = signals.next() => Err(CliError::new(Exit::Interrupted, "interrupted")),
        }
    })?;
    let comparison = compare::compare(&field, &gateway)?;
    let report = Report::new(&scenes, &comparison, json_bytes, ceiling, began.elapsed());
    let mut out = Output::new();
    if args.json {
        out.json(&report)?;
    } else {
        out.line(report.table(&scenes))?;
        if let Some(explanation) = report.explanation() {
            out.line(explanation)?;
        }
        out.line(report.verdict(&comparison))?;
    }
    out.flush()?;
    if let Some(difference) = comparison.difference {
        return Err(CliError::new(Exit::Failure, format!("the databases differ: {difference}")));
    }
    Ok(())
}

/// Where the databases are.
enum Place {
    Temporary(TemporaryDirectory),
    Kept(PathBuf),
}

impl Place {
    fn new(wanted: Option<&Path>) -> Result<Place, CliError> {
        let Some(path) = wanted else { return Ok(Place::Temporary(TemporaryDirectory::new("demo")?)) };
        if ["field", "gateway"].iter().any(|name| path.join(name).exists()) {
            let message = format!("{} holds the databases of an earlier demo", path.display());
            return Err(CliError::new(Exit::Usage, message).help("choose another directory, or remove them"));
        }
        std::fs::create_dir_all(path).map_err(|error| {
            CliError::new(Exit::Database, format!("{} cannot be made: {error}", path.display()))
        })?;
        Ok(Place::Kept(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Place::Temporary(directory) => directory.path(),
            Place::Kept(path) => path,
        }
    }
}

/// Saves the weather records; gives their size as JSON lines with `_id`, as an export has them.
fn import_weather(db: &Database, signals: &runtime::Signals) -> Result<u64, CliError> {
    let collection = db.default_collection().map_err(store::failed)?;
    let samples = weather()?;
    let mut json_bytes = 0;
    for batch in samples.chunks(BATCH_DOCUMENTS) {
        if signals.is_told() {
            return Err(CliError::new(Exit::Interrupted, "interrupted"));
        }
        save(db, &collection, batch)?;
        for sample in batch {
            let text = serde_json::to_string(&sample.body).map_or(0, |text| text.len());
            // `"_id":"...",` and the end of the line.
            json_bytes += text + sample.id.len() + r#""_id":"","#.len() + 1;
        }
    }
    Ok(json_bytes as u64)
}

/// A document of the sample.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Its date.
    pub(crate) id: String,
    /// All of the record.
    pub(crate) body: Map<String, Value>,
}

/// The weather records as documents, with their date as ID.
pub(crate) fn weather() -> Result<Vec<Sample>, CliError> {
    let args = EntryArgs { id_from: vec!["date".to_owned()], ..EntryArgs::default() };
    let columns = records::survey(WEATHER, b',', &[], false, &mut |_| ())?.columns;
    let mut samples = Vec::new();
    records::read(WEATHER, Reading::Table(&columns), &mut |record| {
        let entry = entry_of(record, &args)?;
        samples.extend(entry.id.zip(entry.body).map(|(id, body)| Sample { id, body }));
        Ok(())
    })?;
    Ok(samples)
}

/// Saves documents of the sample, all or none.
pub(crate) fn save(db: &Database, collection: &Collection, samples: &[Sample]) -> Result<(), CliError> {
    db.batch(|batch| samples.iter().try_for_each(|sample| batch.put(collection, &sample.id, &sample.body)))
        .map_err(store::failed)
}
