//! What a first push costs on the link and of the processor, for documents of several kinds: folded, as earlier releases send it, and
//! beside what archivers make of the same documents.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::figure::Figure;
use super::penguins::penguins;
use super::recorded::{EARLIER, How, OFFERED, Record, sync_recorded};
use super::{CliError, Exit};
use crate::cli::commands::demo;
use crate::cli::support::output;
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::{runtime, store};
use crate::database::Database;
use crate::database::bench::{BATCH_LEN, BenchDocument, process_cpu};

/// Runs whose median counts; one if there are more documents than that.
const RUNS: usize = 5;
const MANY: usize = 50_000;

/// Documents of a mixed database, and of text.
const MIXED: usize = 6_000;
const TEXTS: usize = 2_000;

/// Sensors that take turns, and readings of each in a day.
const SENSORS: usize = 50;
const DAY: usize = 144;

/// Documents of one kind.
struct Sample {
    name: &'static str,
    documents: Vec<BenchDocument>,
    /// Whether they are of few shapes, so that no archiver should do better.
    are_columns: bool,
    /// What a document has to cost, and should.
    bytes: Option<(f64, f64)>,
}

pub(super) fn measure(readings: usize) -> Result<Vec<Figure>, CliError> {
    let mut figures = Vec::new();
    let weather = records("weather", demo::weather()?, Some((1.5, 1.0)));
    let penguins = records("penguins", penguins()?, None);
    for sample in [weather, penguins, interleaved(readings), mixed(), texts()] {
        figures.extend(measure_sample(&sample)?);
    }
    Ok(figures)
}

fn measure_sample(sample: &Sample) -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-air")?;
    let count = sample.documents.len() as f64;
    let field = store::open(&place.path().join("field"))?;
    fill(&field, &sample.documents)?;
    let [plain, folded] = [EARLIER, OFFERED].map(|how| push(&field, &place, how, sample.documents.len()));
    let ((plain, plain_cpu), (folded, folded_cpu)) = (plain?, folded?);
    let name = format!("{}, {} documents", sample.name, sample.documents.len());
    let unit = "bytes/doc";
    let bytes = |what: &str, bytes: f64| Figure::new("air", format!("{name}: {what}"), bytes / count, unit);
    let mut most = plain * 1.01 / count;
    let mut archived = Vec::new();
    for (program, level) in [("xz", "-9e"), ("zstd", "-19")] {
        match archive(&place, &sample.documents, program, level)? {
            Some(size) => {
                if sample.are_columns && program == "xz" {
                    most = most.min(size / count);
                }
                archived.push(bytes(&format!("{program} {level} of the bodies"), size));
            }
            None => output::note(&format!("gattway: {program} is not here to be compared with")),
        }
    }
    let ours = bytes("first push, all link bytes both ways", folded);
    let ours = match sample.bytes {
        Some((limit, aim)) => ours.at_most(most.min(limit)).aim(aim),
        None => ours.at_most(most),
    };
    let cpu =
        |what: &str, seconds: f64| Figure::new("air", format!("  {what}"), seconds / count * 1e6, "us/doc");
    let mut figures = vec![ours, bytes("as earlier releases send it", plain)];
    figures.extend(archived);
    figures.push(cpu("CPU of both sides", folded_cpu).at_most(plain_cpu / count * 1e6));
    figures.push(cpu("CPU of both sides as earlier releases send it", plain_cpu));
    Ok(figures)
}

fn fill(field: &Database, documents: &[BenchDocument]) -> Result<(), CliError> {
    let collection = field.default_collection().map_err(store::failed)?;
    for part in documents.chunks(BATCH_LEN) {
        let save_all = field.batch(|batch| {
            part.iter().try_for_each(|BenchDocument { id, json }| batch.put_json(&collection, id, json))
        });
        save_all.map_err(store::failed)?;
    }
    Ok(())
}

/// Bytes and seconds of the processor of first pushes into empty databases, medians.
fn push(
    field: &Database,
    place: &TemporaryDirectory,
    how: How<'_>,
    documents: usize,
) -> Result<(f64, f64), CliError> {
    let mut runs = Vec::new();
    for run in 0..if documents > MANY { 1 } else { RUNS } {
        let name = format!("{}-{run}", how.uid);
        let gateway = store::open(&place.path().join(&name))?;
        let record = Record::default();
        let before = process_cpu();
        runtime::block_on(sync_recorded(field, &gateway, &record, How { uid: &name, ..how }))?;
        let cpu = process_cpu().saturating_sub(before).as_secs_f64();
        let arrived = gateway.default_collection().map_err(store::failed)?.count();
        if arrived != documents as u64 {
            return Err(CliError::new(Exit::Failure, format!("{arrived} of {documents} documents arrived")));
        }
        let record = record.lock().unwrap_or_else(PoisonError::into_inner);
        runs.push((record.iter().map(|sent| sent.1).sum::<usize>() as f64, cpu));
    }
    let middle = runs.len() / 2;
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let bytes = runs[middle].0;
    runs.sort_by(|a, b| a.1.total_cmp(&b.1));
    Ok((bytes, runs[middle].1))
}

/// Bytes that a program makes of the bodies, a line each; `None` if it is not here.
fn archive(
    place: &TemporaryDirectory,
    documents: &[BenchDocument],
    program: &str,
    level: &str,
) -> Result<Option<f64>, CliError> {
    let failed = |error: std::io::Error| CliError::new(Exit::Failure, format!("{program}: {error}"));
    let path = place.path().join("bodies.ndjson");
    let lines: Vec<u8> = documents.iter().flat_map(|document| [&document.json[..], b"\n"].concat()).collect();
    std::fs::write(&path, lines).map_err(failed)?;
    size_of(program, level, &path).map_err(failed)
}

fn size_of(program: &str, level: &str, path: &Path) -> std::io::Result<Option<f64>> {
    let output = Command::new(program)
        .args([level, "-q", "-c"])
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(Some(output.stdout.len() as f64)),
        Ok(output) => Err(std::io::Error::other(format!("{}", output.status))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn document(id: String, body: &Value) -> BenchDocument {
    BenchDocument { id, json: body.to_string().into_bytes() }
}

/// Records of devices.
fn records(name: &'static str, samples: Vec<demo::Sample>, bytes: Option<(f64, f64)>) -> Sample {
    let document = |sample: demo::Sample| document(sample.id, &Value::Object(sample.body));
    Sample { name, documents: samples.into_iter().map(document).collect(), are_columns: true, bytes }
}

/// About a normal distribution.
fn noise(random: &mut fastrand::Rng) -> f64 {
    (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
}

/// Readings of sensors in turn: each has a level, a day and noise.
fn interleaved(count: usize) -> Sample {
    let mut random = fastrand::Rng::with_seed(50);
    let rounded = |value: f64, places: f64| (value * places).round() / places;
    let mut reading = |n: usize| {
        let (sensor, turn) = (n % SENSORS, n / SENSORS);
        let day = (turn as f64 / DAY as f64 * std::f64::consts::TAU).sin();
        let celsius = 15.0 + 0.3 * sensor as f64 + 6.0 * day + 0.3 * noise(&mut random);
        let humidity = 50.0 + 0.5 * sensor as f64 - 8.0 * day + noise(&mut random);
        let second = turn * (86_400 / DAY) + sensor * 12;
        let time = format!(
            "2026-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            1 + second / 86_400 / 28 % 12,
            1 + second / 86_400 % 28,
            second / 3_600 % 24,
            second / 60 % 60,
            second % 60
        );
        let body = json!({
            "sensor": format!("s{sensor:02}"), "time": time, "celsius": rounded(celsius, 100.0),
            "humidity": rounded(humidity, 10.0), "ok": true,
        });
        document(format!("s{sensor:02}-{turn:06}"), &body)
    };
    let documents = (0..count).map(&mut reading).collect();
    Sample { name: "readings of 50 sensors in turn", documents, are_columns: true, bytes: None }
}

fn words(random: &mut fastrand::Rng) -> Vec<String> {
    let word = |random: &mut fastrand::Rng| (0..random.usize(3..10)).map(|_| random.lowercase()).collect();
    (0..3_000).map(|_| word(random)).collect()
}

/// Documents of several shapes, some with a list of any length, under random IDs.
fn mixed() -> Sample {
    let mut random = fastrand::Rng::with_seed(3);
    let words = words(&mut random);
    let mut one = |n: usize| {
        let body = match random.usize(..4) {
            0 => {
                json!({"type": "event", "at": 1_790_000_000_000_u64 + n as u64 * 977, "level": random.u8(..4), "text": words[random.usize(..words.len())]})
            }
            1 => {
                json!({"type": "reading", "v": random.i32(-400..400) as f64 / 10.0, "on": random.bool(), "unit": null})
            }
            2 => {
                json!({"type": "list", "items": (0..random.usize(..6)).map(|_| random.u16(..500)).collect::<Vec<_>>()})
            }
            _ => {
                json!({"type": "place", "at": {"lat": random.f64() * 180.0 - 90.0, "lon": random.f64() * 360.0 - 180.0}})
            }
        };
        document(format!("{:032x}", random.u128(..)), &body)
    };
    let documents = (0..MIXED).map(&mut one).collect();
    Sample { name: "mixed documents", documents, are_columns: false, bytes: None }
}

/// Sentences of words, of which some are frequent.
fn texts() -> Sample {
    let mut random = fastrand::Rng::with_seed(4);
    let words = words(&mut random);
    let mut one = |n: usize| {
        let mut word = || words[(random.f64() * random.f64() * words.len() as f64) as usize].as_str();
        let text: Vec<&str> = (0..10 + n % 40).map(|_| word()).collect();
        document(format!("note-{n}"), &json!({"text": text.join(" ")}))
    };
    let documents = (0..TEXTS).map(&mut one).collect();
    Sample { name: "documents of random text", documents, are_columns: false, bytes: None }
}
