//! Databases of a node, and the records that fill them.

use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::time::Duration;

use gattway::database::{Collection, Database, DatabaseConfig};
use serde_json::{Map, Number, Value};
use sha1::{Digest as _, Sha1};

use super::protocol::{Digest, Records};
use super::{Result, fail, now_us};

const PENGUINS: &str = include_str!("../../../data/penguins.json");
const WEATHER: &str = include_str!("../../../data/seattle-weather-hourly-normals.csv");
/// Of a document of letters.
const LETTERS: usize = 5_000;
/// Changes that are read, and documents that are saved, at once.
const PAGE: usize = 1000;

/// Opens or creates.
pub fn open(path: &Path) -> Result<Database> {
    Ok(Database::open(path, DatabaseConfig::default())?)
}

/// Saves the records; gives their number.
pub fn import(database: &Database, records: Records) -> Result<u64> {
    let documents = match records {
        Records::Penguins => penguins()?,
        Records::Weather => weather()?,
        Records::Letters(count) => (0..count).map(letters).collect(),
    };
    let collection = database.default_collection()?;
    for page in documents.chunks(PAGE) {
        database.batch(|batch| {
            for (id, body) in page {
                batch.put(&collection, id, body)?;
            }
            Ok(())
        })?;
    }
    Ok(documents.len() as u64)
}

fn penguins() -> Result<Vec<(String, Map<String, Value>)>> {
    let rows: Vec<Map<String, Value>> = serde_json::from_str(PENGUINS)?;
    Ok(rows.into_iter().enumerate().map(|(n, row)| (format!("penguin-{n:03}"), row)).collect())
}

/// The date is the ID; the rest are numbers, and a serial number that nothing foretells: as columns alone all records would have
/// gone over before anything could be cut or killed.
fn weather() -> Result<Vec<(String, Map<String, Value>)>> {
    let mut reader = csv::Reader::from_reader(WEATHER.as_bytes());
    let names = reader.headers()?.clone();
    let mut documents = Vec::new();
    for (n, row) in reader.records().enumerate() {
        let row = row?;
        let mut serial = DefaultHasher::new();
        serial.write_usize(n);
        let mut body = Map::new();
        body.insert("serial".to_owned(), format!("{:016x}", serial.finish()).into());
        for (name, cell) in names.iter().zip(&row).skip(1) {
            let number =
                cell.parse().ok().and_then(Number::from_f64).ok_or("not a number in the weather records")?;
            body.insert(name.to_owned(), number.into());
        }
        documents.push((row[0].to_owned(), body));
    }
    Ok(documents)
}

/// Letters that no compression makes smaller than three quarters.
fn letters(number: u32) -> (String, Map<String, Value>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = DefaultHasher::new();
    state.write_u32(number);
    let letters = (0..LETTERS).map(|n| {
        state.write_usize(n);
        char::from(ALPHABET[state.finish() as usize % ALPHABET.len()])
    });
    (
        format!("letters-{number:05}"),
        Map::from_iter([("text".to_owned(), letters.collect::<String>().into())]),
    )
}

/// Names everything that is stored: equal digests, equal databases.
pub fn digest(database: &Database) -> Result<Digest> {
    let collection = database.default_collection()?;
    let mut rows = Vec::new();
    let mut since = 0;
    loop {
        let page = collection.changes_since(since, PAGE)?;
        let Some(last) = page.last() else { break };
        since = last.sequence;
        rows.extend(page);
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    let mut hash = Sha1::new();
    for row in &rows {
        let body = body(&collection, &row.id)?;
        hash.update(format!("{} {} {} {body}\n", row.id, row.revision.current, row.deleted));
    }
    let sha1 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Digest { documents: collection.count(), sha1 })
}

fn body(collection: &Collection, id: &str) -> Result<String> {
    Ok(match collection.get(id)? {
        Some(document) => serde_json::to_string(document.body())?,
        None => String::new(),
    })
}

/// Waits until a document is there; gives the time at which it was seen.
pub async fn wait_for(database: &Database, id: &str, limit: Duration) -> Result<u64> {
    let mut changes = database.watch();
    let seen = async {
        loop {
            changes.mark_unchanged();
            if database.default_collection()?.get(id)?.is_some() {
                return Ok(now_us());
            }
            changes.changed().await?;
        }
    };
    match tokio::time::timeout(limit, seen).await {
        Ok(at) => at,
        Err(_) => fail(format!("document {id:?} has not arrived within {} s", limit.as_secs_f64())),
    }
}
