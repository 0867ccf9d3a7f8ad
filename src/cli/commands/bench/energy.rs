//! What the modelled radio takes for a sync: connection events, bytes, time and energy, by data sheets.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::CliError;
use super::figure::Figure;
use crate::cli::commands::demo::{Sample, save, weather};
use crate::cli::support::air::{Air, AirArgs, Moment, Protection, Traffic};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::{runtime, store};
use crate::database::{Collection, Database};
use crate::transport::clock::Clock;
use crate::transport::sim::energy::{NRF54L15, NRF52840, RadioPower};
use crate::transport::sim::radio::{Phy, Side};

/// Bytes of the reading that is new.
const READING_BYTES: usize = 100;

/// Readings of a day.
const READINGS: u32 = 24;

/// Octets of data of our advertisement: the most that a legacy one has.
const ADVERTISEMENT_OCTETS: usize = 31;

/// Loss of radio PDUs in the second half of the table, percent.
const LOSS_PERCENT: f64 = 5.0;

/// How long the devices are apart after a cut.
const APART: Duration = Duration::from_secs(5);

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-energy")?;
    let mut figures = syncs(&place)?;
    figures.extend(days(&place)?);
    Ok(figures)
}

fn radio(loss: f64) -> AirArgs {
    AirArgs { loss, ..AirArgs::default() }
}

/// A reading of about so many bytes of JSON, and no two alike.
fn reading(n: u32) -> Sample {
    let value = |name: &str, value: f64| (name.to_owned(), Value::from((value * 100.0).round() / 100.0));
    let mut body: Map<String, Value> = [
        value("celsius", 20.0 + f64::from(n % 17) / 3.0),
        value("humidity", 55.0 + f64::from(n % 13) * 1.7),
        value("pressure", 1_013.0 + f64::from(n % 11) * 0.31),
    ]
    .into_iter()
    .collect();
    body.insert("sensor".to_owned(), json!("boiler"));
    body.insert("time".to_owned(), json!(format!("2026-01-{:02}T{:02}:00:00Z", n / 24 % 28 + 1, n % 24)));
    let missing = READING_BYTES.saturating_sub(json_len(&body) + r#","note":"""#.len());
    body.insert("note".to_owned(), "x".repeat(missing).into());
    Sample { id: format!("boiler-{n:05}"), body }
}

fn json_len(body: &Map<String, Value>) -> usize {
    serde_json::to_string(body).map_or(0, |text| text.len())
}

/// Databases of a field device and a gateway.
fn open(place: &TemporaryDirectory, name: &str) -> Result<(Database, Collection, Database), CliError> {
    let open = |side: &str| store::open(&place.path().join(format!("{name}-{side}")));
    let (field, gateway) = (open("field")?, open("gateway")?);
    let collection = field.default_collection().map_err(store::failed)?;
    Ok((field, collection, gateway))
}

async fn start(args: &AirArgs, gateway: &Database) -> Result<Air, CliError> {
    Air::start(args, gateway, Clock::new(), Protection::Secure).await
}

fn rows(what: &str, traffic: &Traffic, documents: Option<u64>) -> Vec<Figure> {
    let name = |part: String| format!("{what}: {part}");
    let figure = |part: &str, value: f64, unit| Figure::new("energy", name(part.to_owned()), value, unit);
    let mut figures = vec![
        figure("connection events", traffic.radio.events as f64, ""),
        figure("bytes on air, both ways", traffic.bytes as f64, "bytes"),
        figure("time, connecting included", traffic.seconds * 1e3, "ms"),
    ];
    for (end, side) in [("field device", Side::Central), ("gateway", Side::Peripheral)] {
        for power in [NRF52840, NRF54L15] {
            let energy = power.connection_uj(&traffic.radio, side, Phy::Le2M);
            figures.push(figure(&format!("radio of the {end}, {}", power.name), energy, "uJ"));
        }
    }
    if let Some(documents) = documents {
        let each = traffic.field_uj * 1e3 / documents as f64;
        figures.push(figure("radio of the field device a document, nRF52840", each, "nJ"));
    }
    figures
}

fn syncs(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let samples = weather()?;
    let (field, collection, gateway) = open(place, "syncs")?;
    save(&field, &collection, &samples)?;
    runtime::block_on(async {
        let air = start(&radio(0.0), &gateway).await?;
        let (_, first) = air.sync(&field, &mut |_| ()).await?;
        let mut figures = rows("8,759 weather records, first push", &first, Some(samples.len() as u64));
        let (_, nothing) = air.sync(&field, &mut |_| ()).await?;
        figures.extend(rows("nothing to do", &nothing, None));
        save(&field, &collection, &[reading(0)])?;
        let (_, one) = air.sync(&field, &mut |_| ()).await?;
        figures.extend(rows("one new reading of 100 bytes, connected to durable", &one, None));
        Ok(figures)
    })
}

/// How often a day's readings are synced, and how often the device advertises.
struct Policy {
    name: &'static str,
    readings_each: u32,
    advertised_each_s: f64,
}

const POLICIES: [Policy; 4] = [
    Policy { name: "synced each hour, advertised each second", readings_each: 1, advertised_each_s: 1.0 },
    Policy { name: "synced each hour, advertised each 10 s", readings_each: 1, advertised_each_s: 10.0 },
    Policy {
        name: "synced each day, advertised each second",
        readings_each: READINGS,
        advertised_each_s: 1.0,
    },
    Policy {
        name: "synced each day, advertised each 10 s",
        readings_each: READINGS,
        advertised_each_s: 10.0,
    },
];

/// Energy of a day of hourly readings.
fn days(place: &TemporaryDirectory) -> Result<Vec<Figure>, CliError> {
    let mut figures = Vec::new();
    for readings_each in [1, READINGS] {
        for (case, loss, cut) in
            [("no loss", 0.0, false), ("5 % loss", LOSS_PERCENT, false), ("one cut", 0.0, true)]
        {
            let traffic = day(place, readings_each, case, loss, cut)?;
            for policy in POLICIES.iter().filter(|policy| policy.readings_each == readings_each) {
                for power in [NRF52840, NRF54L15] {
                    let name =
                        format!("a day of 24 readings, {}, {case}: {} in all", policy.name, power.name);
                    let energy = day_mj(&power, &traffic, policy);
                    figures.push(Figure::new("energy", name, energy, "mJ"));
                }
            }
            let name = format!("a day of 24 readings, {readings_each} a sync, {case}: syncs alone, nRF52840");
            figures.push(Figure::new("energy", name, traffic.field_uj / 1e3, "mJ"));
        }
    }
    Ok(figures)
}

fn day_mj(power: &RadioPower, traffic: &Traffic, policy: &Policy) -> f64 {
    let advertisements = 86_400.0 / policy.advertised_each_s;
    let syncs = power.connection_uj(&traffic.radio, Side::Central, Phy::Le2M);
    (syncs + advertisements * power.advertisement_uj(ADVERTISEMENT_OCTETS)) / 1e3
}

/// The syncs of a day; the database has been synced before.
fn day(
    place: &TemporaryDirectory,
    readings_each: u32,
    case: &str,
    loss: f64,
    cut: bool,
) -> Result<Traffic, CliError> {
    let (field, collection, gateway) = open(place, &format!("day-{readings_each}-{case}"))?;
    runtime::block_on(async {
        let air = start(&radio(loss), &gateway).await?;
        air.sync(&field, &mut |_| ()).await?;
        let mut sum = Traffic::default();
        let mut is_cut = !cut;
        for n in 0..READINGS {
            save(&field, &collection, &[reading(n)])?;
            if (n + 1) % readings_each != 0 {
                continue;
            }
            let mut watch = |moment: &Moment<'_>| {
                if !std::mem::replace(&mut is_cut, true) {
                    moment.air.cut(APART);
                }
            };
            let (_, traffic) = air.sync(&field, &mut watch).await?;
            sum = sum.plus(traffic);
        }
        Ok(sum)
    })
}
