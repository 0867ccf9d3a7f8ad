//! What the modelled radio takes for a sync: connection events, bytes, time and energy, by data sheets.

use serde_json::{Map, Value, json};

use super::CliError;
use super::figure::Figure;
use crate::cli::commands::demo::{Sample, save, weather};
use crate::cli::support::air::{Air, AirArgs, Protection, Traffic};
use crate::cli::support::place::TemporaryDirectory;
use crate::cli::support::{runtime, store};
use crate::database::{Collection, Database};
use crate::transport::clock::Clock;
use crate::transport::sim::energy::{NRF54L15, NRF52840};
use crate::transport::sim::radio::{Phy, Side};

/// Bytes of the reading that is new.
pub(super) const READING_BYTES: usize = 100;

/// Loss of radio PDUs where there is some, percent.
pub(super) const LOSS_PERCENT: f64 = 5.0;

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let place = TemporaryDirectory::new("bench-energy")?;
    syncs(&place)
}

pub(super) fn radio(loss: f64) -> AirArgs {
    AirArgs { loss, ..AirArgs::default() }
}

/// A reading of about so many bytes of JSON, and no two alike.
pub(super) fn reading(n: u32) -> Sample {
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
pub(super) fn open(
    place: &TemporaryDirectory,
    name: &str,
) -> Result<(Database, Collection, Database), CliError> {
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
