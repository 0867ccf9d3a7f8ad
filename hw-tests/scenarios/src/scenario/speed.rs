//! Goodput as a ratio in one run: our session by packets without any protocol, over the same characteristics and channels.

use super::{Context, Outcome, failed, transfer};
use crate::agent::protocol::{Command, Raw, Service, Way};

/// The least that our protocol may leave of a raw channel.
const RATIO_MIN: f64 = 0.9;
/// Times that raw packets and session take turns; the best of each counts, since whatever else a machine does only takes away.
const ROUNDS: usize = 3;

/// Bytes a second, both directions.
#[derive(Clone, Copy, Default)]
struct Rates {
    up: f64,
    down: f64,
}

pub async fn speed(c: &mut Context<'_>) -> Outcome {
    let mut missed = Vec::new();
    let mut bluer = Rates::default();
    for way in [Way::Gatt, Way::L2cap, Way::Btleplug] {
        if !c.rig.ways().contains(&way) {
            c.note(&format!("{}: not on this rig", way.name()));
            continue;
        }
        c.mark(way.name());
        let bytes: u64 = match (way, c.full) {
            (Way::Btleplug, false) => 96 << 10,
            (Way::Btleplug, true) | (_, false) => 192 << 10,
            (_, true) => 768 << 10,
        };
        let (raw, ours, ratios) = turns(c, way, bytes).await?;
        let name = way.name();
        c.metric(&format!("{name}: raw, up"), raw.up / 1024.0, "KiB/s");
        c.metric(&format!("{name}: raw, down"), raw.down / 1024.0, "KiB/s");
        c.metric(&format!("{name}: session, up"), ours.up / 1024.0, "KiB/s");
        c.metric(&format!("{name}: session, down"), ours.down / 1024.0, "KiB/s");
        if way == Way::Gatt {
            bluer = ours;
        }
        if way == Way::Btleplug {
            c.metric("btleplug by bluer, up", ours.up / bluer.up.max(1.0), "");
            c.metric("btleplug by bluer, down", ours.down / bluer.down.max(1.0), "");
            continue;
        }
        for (direction, ratio) in [("up", ratios.up), ("down", ratios.down)] {
            if let Err(super::Stop::Fail(error)) =
                c.target(&format!("{name}: session by raw, {direction}"), ratio, "", RATIO_MIN)
            {
                missed.push(error);
            }
        }
    }
    if missed.is_empty() { Ok(()) } else { failed(missed.join("; ")) }
}

/// Raw and session in turns: the best rates, and their ratios.
async fn turns(c: &mut Context<'_>, way: Way, bytes: u64) -> Outcome<(Rates, Rates, Rates)> {
    let rounds = if way == Way::Btleplug { 1 } else { ROUNDS };
    let (mut raws, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        raws.push(raw(c, way, bytes).await?);
        ours.push(session(c, way, bytes).await?);
    }
    let kib = |rates: &Rates| format!("{:.0} / {:.0}", rates.up / 1024.0, rates.down / 1024.0);
    for (raw, ours) in raws.iter().zip(&ours) {
        c.note(&format!("{}: raw {} KiB/s, session {} KiB/s, up / down", way.name(), kib(raw), kib(ours)));
    }
    let best = |list: &[Rates]| Rates {
        up: list.iter().map(|rates| rates.up).fold(0.0, f64::max),
        down: list.iter().map(|rates| rates.down).fold(0.0, f64::max),
    };
    let (raw, ours) = (best(&raws), best(&ours));
    let ratios = Rates { up: ours.up / raw.up.max(1.0), down: ours.down / raw.down.max(1.0) };
    Ok((raw, ours, ratios))
}

async fn raw(c: &mut Context<'_>, way: Way, bytes: u64) -> Outcome<Rates> {
    c.node(0).listen(Service::Raw, true).await?;
    let peer = c.node(0).place.address.clone();
    // One SDU or value is one packet of 495 bytes.
    let packets = u32::try_from(bytes / 495)?;
    let raw: Raw = c.node(1).ask_for(Command::RawRun { peer, way, packets }, 120.0).await?;
    for (direction, seen) in [("up", &raw.up), ("down", &raw.down)] {
        if f64::from(seen.packets) < 0.5 * f64::from(packets) {
            return failed(format!(
                "raw packets {direction} over {}: {} of {packets}",
                way.name(),
                seen.packets
            ));
        }
    }
    Ok(Rates { up: raw.up.bytes_per_s, down: raw.down.bytes_per_s })
}

async fn session(c: &mut Context<'_>, way: Way, bytes: u64) -> Outcome<Rates> {
    let (peripheral, central) = c.pair(&[way]).await?;
    let up = super::rate(&transfer(&central, &peripheral, bytes, 1).await?);
    let down = super::rate(&transfer(&peripheral, &central, bytes, 2).await?);
    let label = central.stats().await?.label;
    c.require(way != Way::L2cap || label.starts_with("l2cap"), format!("not over L2CAP but {label}"))?;
    // Orderly ends are tested by `close-central`.
    let (closed, _) = tokio::join!(central.close(), peripheral.close());
    closed?;
    Ok(Rates { up, down })
}
