//! Connections lost in the middle, by everything that takes them away; and what it costs to go on.

use std::time::Duration;

use gattway::lab::link::PACKET_BYTES_MAX;

use super::sync::{best_way, prepare, require_equal};
use super::{Context, Outcome, Session, failed, pause, skip};
use crate::agent::now_us;
use crate::agent::protocol::{Air, Command, Digest, Moved, Sample, Service, Way};

/// Bytes that a window holds at most: packets in flight times their size, or the send buffer.
const WINDOW_BYTES: u64 = if 128 * 495 > gattway::lab::link::SEND_BUFFER_BYTES {
    gattway::lab::link::SEND_BUFFER_BYTES as u64
} else {
    128 * 495
};
/// How long the radio is away, seconds: more than a supervision timeout of 2 s needs.
const AWAY_SECONDS: f64 = 4.0;
/// Header of a link packet with data.
const LINK_HEADER_BYTES: u64 = 3;
/// All records.
const DOCUMENTS: u64 = 344 + 8_759;

/// What takes the connection away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Range,
    Adapter(usize),
    Bluetoothd,
}

pub async fn radio(c: &mut Context<'_>) -> Outcome {
    c.rig.can_cut().or_else(skip)?;
    cut_and_resume(c, Cut::Range).await
}

pub async fn central_adapter(c: &mut Context<'_>) -> Outcome {
    cut_and_resume(c, Cut::Adapter(1)).await
}

pub async fn peripheral_adapter(c: &mut Context<'_>) -> Outcome {
    cut_and_resume(c, Cut::Adapter(0)).await
}

pub async fn bluetoothd(c: &mut Context<'_>) -> Outcome {
    if !c.rig.has_bluetoothd() {
        return skip("the model has no bluetoothd");
    }
    cut_and_resume(c, Cut::Bluetoothd).await
}

/// Takes the connection away, and brings back what it needs. Gives the time of the cut.
async fn disturb(c: &mut Context<'_>, cut: Cut) -> Outcome<u64> {
    let at = match cut {
        Cut::Range => {
            let at = c.mark("out of range");
            c.rig.set_reachable(0, 1, false).await?;
            pause(AWAY_SECONDS).await;
            c.mark("in range again");
            c.rig.set_reachable(0, 1, true).await?;
            at
        }
        Cut::Adapter(node) => {
            let at = c.mark("adapter off");
            c.node(node).ask::<()>(Command::Power { on: false }).await?;
            pause(AWAY_SECONDS).await;
            c.mark("adapter on");
            // The product may have switched it on itself.
            c.node(node).ask::<()>(Command::Power { on: true }).await?;
            at
        }
        Cut::Bluetoothd => {
            let at = c.mark("bluetoothd killed");
            c.rig.kill_bluetoothd(0).await?;
            pause(1.0).await;
            c.mark("bluetoothd started");
            c.rig.start_bluetoothd(0).await?;
            at
        }
    };
    Ok(at)
}

/// Both ways at once; after a third the connection goes.
async fn cut_and_resume(c: &mut Context<'_>, cut: Cut) -> Outcome {
    let (peripheral, central) = c.pair(&[Way::Gatt]).await?;
    let bytes: u64 = if c.full { 512 << 10 } else { 256 << 10 };
    let (up, down, at) = tokio::join!(
        super::transfer(&central, &peripheral, bytes, 1),
        super::transfer(&peripheral, &central, bytes, 2),
        async {
            in_the_middle(&central, bytes / 3).await?;
            disturb(c, cut).await
        }
    );
    let (up, down, at) = (up?, down?, at?);
    measure(c, &up, &down, at)?;
    after(c, &central, &peripheral).await?;
    central.close().await?;
    Ok(())
}

/// Waits until a third has arrived.
async fn in_the_middle(session: &Session, bytes: u64) -> Outcome {
    for _ in 0..3000 {
        if session.stats().await?.received >= bytes {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    failed("the transfer did not come to its middle")
}

/// Time from the cut to the first new byte, the later of both directions.
fn measure(c: &mut Context<'_>, up: &Moved, down: &Moved, at: u64) -> Outcome {
    let mut latest = 0.0f64;
    for (name, moved) in [("up", up), ("down", down)] {
        let Some(first) = first_after_gap(moved, at) else {
            return failed(format!("the cut came after everything had arrived ({name})"));
        };
        let seconds = first.saturating_sub(at) as f64 / 1e6;
        c.metric(&format!("from the cut to the first new byte, {name}"), seconds, "s");
        latest = latest.max(seconds);
    }
    c.record.reconnects.push(latest);
    Ok(())
}

/// The arrival that ends the longest silence after `at`.
fn first_after_gap(moved: &Moved, at: u64) -> Option<u64> {
    let later = |pair: &&[(u64, u64)]| pair[1].0 > at;
    moved
        .arrivals
        .windows(2)
        .filter(later)
        .max_by_key(|pair| pair[1].0 - pair[0].0.max(at))
        .map(|pair| pair[1].0)
}

/// The session must have gone on, at little cost.
async fn after(c: &mut Context<'_>, central: &Session, peripheral: &Session) -> Outcome {
    // The last acknowledgements are under way.
    pause(1.0).await;
    let air: Vec<Air> = central.node.ask(Command::Air).await?;
    let packet_bytes = air.first().map_or(u64::from(PACKET_BYTES_MAX), |air| air.packet_bytes);
    let payload = packet_bytes - LINK_HEADER_BYTES;
    for (name, session) in [("up", central), ("down", peripheral)] {
        let stats = session.stats().await?;
        c.require(stats.resumes > 0, "the session was not resumed: the connection was never lost")?;
        let mut told = session.told(c.rig);
        told.push(stats);
        let last = &told[told.len() - 1];
        c.metric(&format!("packets sent again, {name}"), last.retransmissions as f64, "");
        c.metric(&format!("of these without need, {name}"), last.needless as f64, "");
        c.metric(&format!("arrived out of order, {name}"), last.out_of_order as f64, "");
        let Some((twice, resumes)) = sent_twice(&told, payload) else {
            return failed("what was under way at the cut was never acknowledged");
        };
        c.limit(&format!("bytes sent twice, {name}"), twice as f64, "B", (WINDOW_BYTES * resumes) as f64)?;
    }
    Ok(())
}

/// What the first resume cost: bytes sent again until all that had been given to the radio before was acknowledged; and how many
/// resumes that took, for a slow machine may lose the connection once more. Packets that were then sent once more, because they
/// were overtaken or lost, are counted apart.
fn sent_twice(told: &[Sample], payload: u64) -> Option<(u64, u64)> {
    let before = told.iter().rfind(|sample| sample.resumes == 0)?;
    let after = told.iter().find(|sample| sample.resumes > 0 && sample.sent >= before.given)?;
    let lost = (after.retransmissions - before.retransmissions) * payload;
    let twice = (after.bytes_retransmitted - before.bytes_retransmitted).saturating_sub(lost);
    Some((twice, u64::from(after.resumes - before.resumes)))
}

pub async fn change_channel(c: &mut Context<'_>) -> Outcome {
    c.rig.can_cut().or_else(skip)?;
    let other = best_way(c);
    let other = if other == Way::Gatt { Way::GattSmall } else { other };
    let (peripheral, central) = c.pair(&[Way::Gatt, other]).await?;
    let mut labels = vec![central.stats().await?.label];
    let bytes: u64 = 96 << 10;
    for round in 0..3u64 {
        if round > 0 {
            c.mark("out of range");
            c.rig.set_reachable(0, 1, false).await?;
            pause(AWAY_SECONDS).await;
            c.rig.set_reachable(0, 1, true).await?;
        }
        let began = now_us();
        let (up, down) = tokio::join!(
            super::transfer(&central, &peripheral, bytes, 10 + round),
            super::transfer(&peripheral, &central, bytes, 20 + round)
        );
        let seconds = up?.to_us.max(down?.to_us).saturating_sub(began) as f64 / 1e6;
        let stats = central.stats().await?;
        c.metric(
            &format!("96 KiB both ways over {}", stats.label.split_whitespace().next().unwrap_or_default()),
            seconds,
            "s",
        );
        labels.push(stats.label);
        c.require(
            u64::from(stats.resumes) >= round,
            format!("{} resumes after {round} cuts", stats.resumes),
        )?;
    }
    c.note(&labels[1..].join(" -> "));
    if other == Way::L2cap {
        let kinds: Vec<bool> = labels[1..].iter().map(|label| label.starts_with("l2cap")).collect();
        c.require(kinds == [false, true, false], format!("the session went over {labels:?}"))?;
    }
    central.close().await?;
    Ok(())
}

pub async fn kill_central(c: &mut Context<'_>) -> Outcome {
    let (peripheral, central) = prepare(c).await?;
    let way = best_way(c);
    central.sync(&peripheral, way, false).await?;
    documents(&central, 1_500).await?;
    let at = c.mark("central killed");
    c.rig.kill(1).await?;
    c.rig.spawn(1, false).await?;
    let central = c.node(1);
    let had = peripheral.digest().await?;
    c.metric("documents before", had.documents as f64, "");
    central.sync(&peripheral, way, false).await?;
    let first = first_document(&central).await?;
    c.metric("from the kill to the first new document", first.saturating_sub(at) as f64 / 1e6, "s");
    let synced = central.wait_synced(150.0).await?;
    again(c, synced.documents, &had)?;
    require_equal(c, &peripheral, &central, DOCUMENTS).await
}

pub async fn kill_peripheral(c: &mut Context<'_>) -> Outcome {
    let (peripheral, central) = prepare(c).await?;
    let way = best_way(c);
    // Continuous: it tries again by itself.
    central.sync(&peripheral, way, true).await?;
    documents(&central, 1_500).await?;
    let at = c.mark("peripheral killed");
    c.rig.kill(0).await?;
    c.rig.spawn(0, false).await?;
    let peripheral = c.node(0);
    let had = peripheral.digest().await?;
    c.metric("documents before", had.documents as f64, "");
    peripheral.listen(Service::Sync, true).await?;
    c.mark("peripheral is back");
    for _ in 0..900 {
        if peripheral.digest().await?.documents > had.documents {
            break;
        }
        pause(0.1).await;
    }
    c.metric("from the kill to the first new document", now_us().saturating_sub(at) as f64 / 1e6, "s");
    for _ in 0..900 {
        if peripheral.digest().await?.documents == DOCUMENTS {
            break;
        }
        pause(0.2).await;
    }
    central.ask::<serde_json::Value>(Command::StopSync).await?;
    require_equal(c, &peripheral, &central, DOCUMENTS).await
}

async fn documents(central: &super::Node, documents: u64) -> Outcome {
    let command = Command::WaitDocuments { documents, seconds: 90.0 };
    Ok(central.ask_for::<serde_json::Value>(command, 90.0).await.map(drop)?)
}

async fn first_document(central: &super::Node) -> Outcome<u64> {
    documents(central, 1).await?;
    Ok(now_us())
}

/// Documents that went over again though the other side had them.
fn again(c: &mut Context<'_>, sent: u64, had: &Digest) -> Outcome {
    // The penguins were there before.
    let missing = DOCUMENTS.saturating_sub(had.documents);
    c.metric("documents sent or received after", sent as f64, "");
    c.metric("documents that were missing at the peripheral", missing as f64, "");
    c.require(sent <= missing + 344, format!("{sent} documents went over, {missing} were missing"))
}
