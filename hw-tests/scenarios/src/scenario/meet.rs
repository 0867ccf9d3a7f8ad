//! Finding, connecting, packet sizes, refusing, parting.

use gattway::lab::link::PACKET_BYTES_MAX;

use super::{Context, Outcome, failed, skip, transfer};
use crate::agent::protocol::{Command, Heard, Raw, Service, Way};

/// Time for a peripheral to be heard, seconds.
const HEARD_SECONDS: f64 = 20.0;
/// An ATT MTU up to this is a small one.
const SMALL_MTU_MAX: u32 = 64;
/// Raw packets that must arrive whole.
const WHOLE_PACKETS: u32 = 50;

/// The name of a central's connect.
const UP: [Way; 1] = [Way::Gatt];

pub async fn discover(c: &mut Context<'_>) -> Outcome {
    if !c.rig.has_bluetoothd() {
        return skip("the model has no adverts: devices are found by name");
    }
    c.node(0).listen(Service::Bytes, true).await?;
    for name in ["first heard after", "heard again after"] {
        let command = Command::Scan { peer: c.node(0).place.address.clone(), seconds: HEARD_SECONDS };
        let heard: Heard = c.node(1).ask_for(command, HEARD_SECONDS).await?;
        c.metric(name, heard.seconds, "s");
        if let Some(rssi) = heard.rssi_dbm {
            c.metric("RSSI", rssi.into(), "dBm");
            c.require((-110..=20).contains(&rssi), format!("an RSSI of {rssi} dBm cannot be"))?;
        }
    }
    Ok(())
}

pub async fn connect(c: &mut Context<'_>) -> Outcome {
    c.node(0).listen(Service::Bytes, true).await?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = std::time::Instant::now();
        let (peripheral, central) = c.session(1, 0, &UP).await?;
        times.push(began.elapsed().as_secs_f64());
        transfer(&central, &peripheral, 100, 1).await?;
        central.close().await?;
        peripheral.wait_closed(20.0).await?;
        peripheral.close().await?;
    }
    times.sort_by(f64::total_cmp);
    c.metric("connect, median of 5", times[2], "s");
    c.metric("connect, slowest", times[4], "s");
    Ok(())
}

pub async fn mtu(c: &mut Context<'_>) -> Outcome {
    let raw = raw_packets(c, Way::Gatt).await?;
    c.metric("bytes of a packet", raw.packet_bytes as f64, "B");
    // ATT MTU 517 on BlueZ and on the model; a smaller one only if a machine is set up so.
    let smallest = c.rig.machines.iter().map(|machine| machine.exchange_mtu).min().unwrap_or(517);
    let expected = u64::from(smallest.saturating_sub(3)).min(PACKET_BYTES_MAX.into());
    c.require(
        raw.packet_bytes == expected
            || expected < u64::from(PACKET_BYTES_MAX) && raw.packet_bytes <= expected,
        format!("packets of {} bytes, expected {expected}", raw.packet_bytes),
    )
}

/// Packets of full size that must all arrive.
async fn raw_packets(c: &mut Context<'_>, way: Way) -> Outcome<Raw> {
    c.node(0).listen(Service::Raw, true).await?;
    let peer = c.node(0).place.address.clone();
    let raw: Raw = c.node(1).ask_for(Command::RawRun { peer, way, packets: WHOLE_PACKETS }, 60.0).await?;
    c.metric("raw packets, up", raw.up.packets.into(), "");
    c.metric("raw packets, down", raw.down.packets.into(), "");
    if (raw.up.packets, raw.down.packets) != (WHOLE_PACKETS, WHOLE_PACKETS) {
        return failed(format!(
            "of {WHOLE_PACKETS} packets of {} bytes each way {} and {} arrived",
            raw.packet_bytes, raw.up.packets, raw.down.packets
        ));
    }
    Ok(raw)
}

pub async fn small_mtu(c: &mut Context<'_>) -> Outcome {
    let att_mtu = c.rig.machines.iter().map(|machine| machine.exchange_mtu).min().unwrap_or(517);
    if att_mtu > SMALL_MTU_MAX {
        return skip("no machine has ExchangeMTU = 48 in its main.conf");
    }
    let payload_max = f64::from(att_mtu.saturating_sub(3));
    let (peripheral, central) = c.pair(&UP).await?;
    let bytes = if c.full { 64 << 10 } else { 4 << 10 };
    let (up, down) =
        tokio::join!(transfer(&central, &peripheral, bytes, 1), transfer(&peripheral, &central, bytes, 2));
    c.metric("goodput, up", super::rate(&up?) / 1024.0, "KiB/s");
    c.metric("goodput, down", super::rate(&down?) / 1024.0, "KiB/s");
    let stats = central.stats().await?;
    let size = bytes as f64 / stats.packets_sent.max(1) as f64;
    c.limit("bytes of the stream in a packet", size, "B", payload_max)?;
    central.close().await?;
    Ok(())
}

pub async fn wrong_version(c: &mut Context<'_>) -> Outcome {
    if !c.rig.has_bluetoothd() {
        return skip("the model has no GATT service; the link's own versions are tested in src/link/tests");
    }
    c.node(0).listen(Service::WrongVersion, false).await?;
    let peer = c.node(0).place.address.clone();
    let began = std::time::Instant::now();
    let refused = match c.node(1).dial(&peer, &UP).await {
        Ok(_) => return failed("a service of another version was used"),
        Err(error) => error.to_string(),
    };
    c.metric("refused after", began.elapsed().as_secs_f64(), "s");
    c.note(&refused);
    c.require(refused.contains("version"), format!("the error does not name the version: {refused}"))
}

pub async fn close_central(c: &mut Context<'_>) -> Outcome {
    close(c, true).await
}

pub async fn close_peripheral(c: &mut Context<'_>) -> Outcome {
    close(c, false).await
}

/// One side ends in order in the middle of nothing; the other hears of it; then another session.
async fn close(c: &mut Context<'_>, by_central: bool) -> Outcome {
    let (peripheral, central) = c.pair(&UP).await?;
    transfer(&central, &peripheral, 10_000, 1).await?;
    let (closer, other) = if by_central { (&central, &peripheral) } else { (&peripheral, &central) };
    // What was sent before the end must arrive.
    let (sent, received) = tokio::join!(closer.send(20_000, 2, 4096), other.receive(20_000, 2));
    sent?;
    received?;
    let began = std::time::Instant::now();
    let (closed, heard) = tokio::join!(closer.close(), other.wait_closed(30.0));
    closed?;
    let error = heard?;
    c.metric("both sides know after", began.elapsed().as_secs_f64(), "s");
    c.require(error.is_none(), format!("the other side ended with an error: {}", error.unwrap_or_default()))?;
    other.close().await?;
    c.mark("next session");
    let began = std::time::Instant::now();
    let (peripheral, central) = c.session(1, 0, &UP).await?;
    transfer(&peripheral, &central, 10_000, 3).await?;
    c.metric("next session after", began.elapsed().as_secs_f64(), "s");
    central.close().await?;
    Ok(())
}
