//! Bytes over sessions: long, short, stalled, several at once.

use super::{Context, Outcome, Session, failed, pause, rate, skip, transfer};
use crate::agent::protocol::{Air, Command, Service, Way};

/// Against a hang alone: bluetoothd that waits for a reader who has stopped would wait until he reads again, seconds.
const PROBE_SECONDS: f64 = 120.0;
/// Questions to bluetoothd during a transfer.
const BUSY_QUESTIONS: u32 = 3;
/// How often it is looked whether a sender has come to a stand, seconds.
const STAND_STEP: f64 = 0.5;
/// Looks in a row that have to find the same before a sender counts as standing.
const STANDING_LOOKS: u32 = 3;
/// Messages of [`small_messages`]: as long as a sensor's reading.
const SMALL_BYTES: u64 = 30;

/// Bytes of a long transfer.
fn long(c: &Context<'_>) -> u64 {
    if c.full { 1 << 20 } else { 256 << 10 }
}

pub async fn bulk_up(c: &mut Context<'_>) -> Outcome {
    let (peripheral, central) = c.pair(&[Way::Gatt]).await?;
    one_way(c, &central, &peripheral).await
}

pub async fn bulk_down(c: &mut Context<'_>) -> Outcome {
    let (peripheral, central) = c.pair(&[Way::Gatt]).await?;
    one_way(c, &peripheral, &central).await
}

async fn one_way(c: &mut Context<'_>, from: &Session, to: &Session) -> Outcome {
    let moved = transfer(from, to, long(c), 1).await?;
    c.metric("goodput", rate(&moved) / 1024.0, "KiB/s");
    let air: Vec<Air> = c.node(1).ask(Command::Air).await?;
    for air in &air {
        c.note(&air.text);
        for (name, value, unit) in [
            ("interval", air.interval_ms, "ms"),
            ("ATT MTU", air.att_mtu.map(f64::from), "B"),
            ("RSSI", air.rssi_dbm.map(f64::from), "dBm"),
        ] {
            if let Some(value) = value {
                c.metric(name, value, unit);
            }
        }
    }
    counters(c, from, "sender").await?;
    from.close().await?;
    Ok(())
}

pub async fn bulk_both(c: &mut Context<'_>) -> Outcome {
    both_ways(c, Way::Gatt).await
}

pub async fn eatt_bulk(c: &mut Context<'_>) -> Outcome {
    if c.rig.has_bluetoothd() && c.rig.machines.iter().all(|machine| machine.channels < 2) {
        return skip("every machine has Channels = 1 in its main.conf");
    }
    both_ways(c, Way::Gatt).await
}

pub async fn l2cap(c: &mut Context<'_>) -> Outcome {
    c.needs_way(Way::L2cap)?;
    both_ways(c, Way::L2cap).await
}

pub async fn btleplug(c: &mut Context<'_>) -> Outcome {
    c.needs_way(Way::Btleplug)?;
    both_ways(c, Way::Btleplug).await
}

async fn both_ways(c: &mut Context<'_>, way: Way) -> Outcome {
    let (peripheral, central) = c.pair(&[way]).await?;
    let bytes = long(c);
    let (up, down) =
        tokio::join!(transfer(&central, &peripheral, bytes, 1), transfer(&peripheral, &central, bytes, 2));
    c.metric("goodput, up", rate(&up?) / 1024.0, "KiB/s");
    c.metric("goodput, down", rate(&down?) / 1024.0, "KiB/s");
    let label = central.stats().await?.label;
    let wanted = match way {
        Way::L2cap => "l2cap",
        Way::Btleplug => "btleplug",
        Way::Gatt | Way::GattSmall => "",
    };
    c.require(label.contains(wanted), format!("the session went over {label:?}, not {}", way.name()))?;
    counters(c, &central, "central").await?;
    counters(c, &peripheral, "peripheral").await?;
    central.close().await?;
    Ok(())
}

/// The counters of one end as metrics.
async fn counters(c: &mut Context<'_>, session: &Session, whose: &str) -> Outcome {
    let stats = session.stats().await?;
    c.metric(&format!("packets sent, {whose}"), stats.packets_sent as f64, "");
    c.metric(&format!("sent again, {whose}"), stats.retransmissions as f64, "");
    c.metric(&format!("of these without need, {whose}"), stats.needless as f64, "");
    c.metric(&format!("arrived out of order, {whose}"), stats.out_of_order as f64, "");
    Ok(())
}

pub async fn small_messages(c: &mut Context<'_>) -> Outcome {
    let (peripheral, central) = c.pair(&[Way::Gatt]).await?;
    let count = if c.full { 200 } else { 40 };
    c.mark("one at a time");
    let (trips, echoed) = tokio::join!(central.ping(count, SMALL_BYTES), peripheral.echo(count, SMALL_BYTES));
    echoed?;
    let mut ms = trips?.ms;
    ms.sort_by(f64::total_cmp);
    c.metric("there and back, median", ms[ms.len() / 2], "ms");
    c.metric("there and back, 95 of 100 within", ms[ms.len() * 95 / 100], "ms");
    c.mark("many at once");
    let messages: u64 = if c.full { 5_000 } else { 1_500 };
    let bytes = messages * SMALL_BYTES;
    let (sent, received) = tokio::join!(central.send(bytes, 7, SMALL_BYTES), peripheral.receive(bytes, 7));
    sent?;
    c.metric("messages a second", rate(&received?) / SMALL_BYTES as f64, "1/s");
    central.close().await?;
    Ok(())
}

/// How often a stall is tried: a machine that has no time for the guests loses connections too, but not each time.
const STALLS: u32 = 3;

/// A reader stops. Questions to bluetoothd are answered while he stands, and only then does he go on: whatever waits for him
/// would wait for ever.
pub async fn stalled_reader(c: &mut Context<'_>) -> Outcome {
    for (first, name) in [(true, "peripheral"), (false, "central")] {
        let mut stalls = 0;
        while !stall(c, first, name).await? {
            stalls += 1;
            c.mark(&format!("the connection was lost while the {name} stood"));
            c.require(stalls < STALLS, "the connection was lost meanwhile, each time")?;
        }
    }
    Ok(())
}

/// A transfer whose reader stops for a while; gives whether the connection was there all the time.
async fn stall(c: &mut Context<'_>, first: bool, name: &str) -> Outcome<bool> {
    let questions = if c.full { 20 } else { 5 };
    let (bytes, read) = (512 << 10, 32 << 10);
    let (peripheral, central) =
        if first { c.pair(&[Way::Gatt]).await? } else { c.session(1, 0, &[Way::Gatt]).await? };
    let (from, to) = if first { (&central, &peripheral) } else { (&peripheral, &central) };
    let has_bluetoothd = c.rig.has_bluetoothd();
    let reader = async {
        to.receive_from(0, read, 5).await?;
        let given = stands(from).await?;
        let questions = if has_bluetoothd { questions } else { 0 };
        let slowest = ask_bluetoothd(to, questions).await?;
        let moved_meanwhile = from.stats().await?.given - given;
        // For comparison: how long the same question takes while packets come as fast as they can.
        let (rest, busy) = tokio::join!(
            to.receive_from(read, bytes - read, 5),
            ask_bluetoothd(to, questions.min(BUSY_QUESTIONS))
        );
        rest?;
        crate::agent::Result::Ok((given, moved_meanwhile, slowest, busy?))
    };
    c.mark(&format!("the {name} stops reading"));
    let (sent, reader) = tokio::join!(from.send(bytes, 5, 4096), reader);
    sent?;
    let (given, moved_meanwhile, slowest, busy) = reader?;
    if has_bluetoothd {
        c.metric(&format!("bluetoothd's slowest answer, {name} stalled"), slowest, "s");
        c.metric(&format!("the same while the {name} receives"), busy, "s");
    }
    c.metric(&format!("sent before it stood, {name} stalled"), given as f64 / 1024.0, "KiB");
    c.require(given < bytes, "the sender did not notice that nobody reads")?;
    c.require(moved_meanwhile == 0, format!("{moved_meanwhile} bytes were sent to a reader who stands"))?;
    let stats = from.stats().await?;
    c.metric(&format!("bytes sent twice, {name} stalled"), stats.bytes_retransmitted as f64, "B");
    from.close().await?;
    to.close().await?;
    Ok(stats.resumes == 0)
}

/// Asks bluetoothd something from the process of `session`; gives the slowest answer, seconds.
async fn ask_bluetoothd(session: &Session, questions: u32) -> crate::agent::Result<f64> {
    let mut slowest = 0.0f64;
    for _ in 0..questions {
        pause(STAND_STEP).await;
        slowest = slowest.max(session.node.ask_for::<f64>(Command::Probe, PROBE_SECONDS).await?);
    }
    Ok(slowest)
}

/// Waits until a sender has come to a stand; gives the bytes that it has sent.
async fn stands(sender: &Session) -> crate::agent::Result<u64> {
    let (mut before, mut looks) = (0, 0);
    while looks < STANDING_LOOKS {
        pause(STAND_STEP).await;
        let given = sender.stats().await?.given;
        looks = if given == before { looks + 1 } else { 0 };
        before = given;
    }
    Ok(before)
}

pub async fn two_centrals(c: &mut Context<'_>) -> Outcome {
    c.node(0).listen(Service::Bytes, true).await?;
    let first = c.session(1, 0, &[Way::Gatt]).await?;
    let second = c.session(2, 0, &[Way::Gatt]).await?;
    let bytes = long(c) / 2;
    let (up_1, down_1, up_2, down_2) = tokio::join!(
        transfer(&first.1, &first.0, bytes, 1),
        transfer(&first.0, &first.1, bytes, 2),
        transfer(&second.1, &second.0, bytes, 3),
        transfer(&second.0, &second.1, bytes, 4),
    );
    for (name, moved) in [("1 up", up_1), ("1 down", down_1), ("2 up", up_2), ("2 down", down_2)] {
        c.metric(&format!("goodput, central {name}"), rate(&moved?) / 1024.0, "KiB/s");
    }
    first.1.close().await?;
    // The end of one must not touch the other.
    transfer(&second.1, &second.0, 20_000, 5).await?;
    second.1.close().await?;
    Ok(())
}

pub async fn both_roles(c: &mut Context<'_>) -> Outcome {
    // 2 -> 1 -> 0: node 1 is a peripheral to 2 and a central to 0.
    c.node(0).listen(Service::Bytes, true).await?;
    c.node(1).listen(Service::Bytes, true).await?;
    let lower = c.session(1, 0, &[Way::Gatt]).await?;
    let upper = c.session(2, 1, &[Way::Gatt]).await?;
    let bytes = long(c) / 2;
    let (up, down, up_2, down_2) = tokio::join!(
        transfer(&lower.1, &lower.0, bytes, 1),
        transfer(&lower.0, &lower.1, bytes, 2),
        transfer(&upper.1, &upper.0, bytes, 3),
        transfer(&upper.0, &upper.1, bytes, 4),
    );
    for (name, moved) in [
        ("as central, up", up),
        ("as central, down", down),
        ("as peripheral, up", up_2),
        ("as peripheral, down", down_2),
    ] {
        c.metric(&format!("goodput {name}"), rate(&moved?) / 1024.0, "KiB/s");
    }
    upper.1.close().await?;
    lower.1.close().await?;
    Ok(())
}

pub async fn weak_signal(c: &mut Context<'_>) -> Outcome {
    c.rig.can_set_quality().or_else(skip)?;
    let (peripheral, central) = c.pair(&[Way::Gatt]).await?;
    let bytes = long(c) / 2;
    let before = transfer(&central, &peripheral, bytes, 1).await?;
    c.mark("10 % lost");
    c.rig.set_quality(0.1, -85)?;
    let weak = transfer(&central, &peripheral, bytes, 2).await;
    c.rig.set_quality(0.0, -50)?;
    let weak = weak?;
    c.metric("goodput before", rate(&before) / 1024.0, "KiB/s");
    c.metric("goodput with loss", rate(&weak) / 1024.0, "KiB/s");
    if central.stats().await?.resumes > 0 {
        return failed("the connection was lost, though the peer was in range");
    }
    central.close().await?;
    Ok(())
}
