//! A station that syncs with a gateway, whatever carries the bytes.
//!
//!     cargo run --example station               # two databases in one process: over TCP, then over a modelled radio
//!     cargo run --example station -- hci0       # Bluetooth: listens on the adapter, and syncs with whoever is near
//!
//! Over Bluetooth the two devices have to know each other: `gattway group create` on one, `gattway group join` on the other.

use std::error::Error;

use gattway::database::{Database, DatabaseConfig};
use gattway::node::{Admission, Listen, ModelledRadio, Node, SyncTarget, Tcp};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(adapter) = std::env::args().nth(1) {
        return bluetooth(&adapter).await;
    }
    meet(Tcp::bind("127.0.0.1:0"), |gateway| Tcp::connect(&gateway.addresses()[0]["tcp:".len()..]).into())
        .await?;
    let radio = ModelledRadio::new(1);
    let [station, gateway] = ["station", "gateway"].map(|name| radio.add_device(name));
    meet(gateway.listen(), |_| station.connect(&gateway).into()).await
}

/// A gateway that listens, and a station that brings it a reading.
async fn meet(place: impl Listen, way: impl FnOnce(&Node) -> SyncTarget) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let open = |name| Database::open(directory.path().join(name), DatabaseConfig::default());
    let (station_db, gateway_db) = (open("station.db")?, open("gateway.db")?);
    station_db.default_collection()?.put("2010-01-01T00:00", &serde_json::json!({ "celsius": 4.5 }))?;
    // Two that know nothing of each other meet here; without this line they need a group, or to be paired.
    let [station, gateway] =
        [station_db, gateway_db.clone()].map(|db| Node::builder(db).admission(Admission::Anybody));
    let (station, gateway) = (station.start().await?, gateway.listen(place).start().await?);
    let mut sync = station.sync(way(&gateway)).start();
    while let Some(event) = sync.events().next().await {
        println!("{event}");
    }
    sync.finished().await?;
    station.shutdown().await?;
    gateway.shutdown().await?;
    gateway_db.default_collection()?.get("2010-01-01T00:00")?.ok_or("the reading did not arrive")?;
    Ok(())
}

#[cfg(feature = "bluetooth")]
async fn bluetooth(adapter: &str) -> Result<(), Box<dyn Error>> {
    use gattway::node::Ble;
    let db = Database::open("station.db", DatabaseConfig::default())?;
    let node = Node::builder(db).listen(Ble::adapter(adapter)).start().await?;
    let mut sync = node.sync(Ble::any()).continuous(true).start();
    while let Some(event) = sync.events().next().await {
        println!("{event}");
    }
    Ok(node.shutdown().await?)
}

#[cfg(not(feature = "bluetooth"))]
async fn bluetooth(_: &str) -> Result<(), Box<dyn Error>> {
    Err("built without Bluetooth: add `--features bluetooth`".into())
}
