//! Embed the database: documents as JSON and as Rust types, in one process, without any peer.
//!
//!     cargo run --example embed_database

use std::error::Error;

use gattway::database::{Database, DatabaseConfig, DatabaseError};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    celsius: f64,
    #[serde(default)]
    checked: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("station");

    {
        let db = Database::open(&path, DatabaseConfig::default())?;
        let readings = db.create_collection("station.readings")?;

        // Any type of serde's, or JSON. When `put` returns, the document is on the medium.
        readings.put("2010-01-01T00:00", &Reading { celsius: 4.5, checked: false })?;
        readings.put("2010-01-01T01:00", &json!({ "celsius": 4.0 }))?;

        // Read, change, save: refused if somebody else has changed it in between.
        let mut mine = readings.get("2010-01-01T01:00")?.ok_or("it was put")?;
        let mut theirs = readings.get("2010-01-01T01:00")?.ok_or("it was put")?;
        theirs.body_mut().insert("celsius".into(), json!(4.25));
        readings.save(&mut theirs)?;
        mine.body_mut().insert("checked".into(), json!(true));
        match readings.save(&mut mine) {
            Err(DatabaseError::Conflict { .. }) => println!("a change to an old revision was refused"),
            other => return Err(format!("expected a conflict, got {other:?}").into()),
        }

        // Several documents at once, or none.
        db.batch(|batch| {
            for hour in 2..24 {
                batch.put(
                    &readings,
                    &format!("2010-01-01T{hour:02}:00"),
                    &Reading { celsius: 3.0, checked: true },
                )?;
            }
            Ok(())
        })?;
        readings.delete("2010-01-01T00:00")?;

        // Everything that has changed, in order: what a replicator or an index follows.
        let changes = readings.changes_since(0, 1000)?;
        println!("{} changes, newest sequence {}", changes.len(), readings.last_sequence());
    }

    // It is all there when it is opened again.
    let db = Database::open(&path, DatabaseConfig::default())?;
    let readings = db.collection("station.readings").ok_or("it was created")?;
    let reading: Reading = readings.get_as("2010-01-01T01:00")?.ok_or("it was put")?;
    if reading != (Reading { celsius: 4.25, checked: false }) || readings.count() != 23 {
        return Err(format!("not what was saved: {} documents, {reading:?}", readings.count()).into());
    }
    println!("Opened again, the database holds its {} documents: {reading:?}", readings.count());
    Ok(())
}
