//! A peripheral that sends every byte of a session back: the other side of a peer written from `firmware-notes/` alone.
//!
//!     ble_echo ADAPTER       serves one session on the adapter (hci0), prints what it came to as JSON, ends
//!
//! It ends with 0 if the peer closed the session in order and every byte was sent back. RUST_LOG=debug shows what the link does.

use std::process::ExitCode;
use std::sync::Arc;

use gattway::endpoint::{INBOUND_BYTES_MAX, MessageEndpointConnection, MessagingError, ReplicatorConnection};
use gattway::lab::secure::advert::Urgency;
use gattway::lab::transport::bluez::Bluez;
use gattway::lab::transport::bluez::advertise::AdvertOrder;
use gattway::lab::transport::bluez::listener::{BluetoothListener, ListenerConfig};
use gattway::lab::transport::bluez::profile::AdvertState;
use gattway::lab::transport::bluez::security::LinkSecurity;
use gattway::lab::transport::session::{LinkConnection, SessionConfig};
use serde_json::json;

/// What is advertised; the peer must read the same.
const STATE: AdvertState =
    AdvertState { group: 0x34, urgency: Urgency::Urgent, device: 0xdead_beef, change: 0x0a_0b_0c };

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(adapter) = std::env::args().nth(1) else {
        eprintln!("usage: ble_echo ADAPTER");
        return ExitCode::from(2);
    };
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match serve(adapter).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ble_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(adapter: String) -> Result<bool> {
    let config = ListenerConfig {
        bluez: Bluez::default(),
        adapter: Some(adapter),
        name: Some("echo".to_owned()),
        l2cap: false,
        advert: AdvertOrder::steady(STATE.encode()),
        security: LinkSecurity::default(),
        pairing: None,
        session: SessionConfig::default(),
    };
    let listener = BluetoothListener::start(config).await?;
    println!("{}", json!({ "event": "listening", "adapter": listener.adapter() }));
    let connection = listener.accept().await.ok_or("the listener ended")?;
    let (echoed, end) = echo(&connection).await?;
    let stats = connection.stats();
    println!(
        "{}",
        json!({
            "event": "ended",
            "error": end.as_ref().map(ToString::to_string),
            "session": stats.session.map(|session| format!("{session:?}")),
            "echoed": echoed,
            "bytes_received": stats.link.bytes_received,
            "bytes_acknowledged": stats.link.bytes_acknowledged,
            "bytes_retransmitted": stats.link.bytes_retransmitted,
            "retransmissions": stats.link.retransmissions,
            "duplicates": stats.link.duplicates,
            "out_of_order": stats.link.out_of_order,
            "in_flight_max": stats.link.in_flight_max,
            "resumes": stats.link.resumes,
            "channels": stats.channels,
        })
    );
    Ok(end.is_none() && stats.link.bytes_received == echoed)
}

/// Sends back what comes until the session ends; gives the number of bytes and the error it ended with.
async fn echo(connection: &Arc<LinkConnection>) -> Result<(u64, Option<MessagingError>)> {
    let (handle, mut inbound) = ReplicatorConnection::detached(INBOUND_BYTES_MAX);
    connection.open(handle).await?;
    println!("{}", json!({ "event": "session" }));
    let mut echoed = 0;
    while let Some(message) = inbound.next().await {
        let length = message.len() as u64;
        connection.send(message).await?;
        echoed += length;
    }
    let end = inbound.closed().flatten();
    connection.close(None).await?;
    Ok((echoed, end))
}
