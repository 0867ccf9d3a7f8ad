//! What a first sync leaves of the channel: bytes of the link's stream a second, by raw packets before and after it.

use serde_json::Value;

use super::{Context, Node, Outcome, failed, skip};
use crate::agent::protocol::{Command, Cost, Digest, Raw, Records, Sample, Service, Synced, Way};
use crate::scenario::Stop;

/// The least that a first sync may leave of a raw channel, in the long form.
const RATIO_MIN: f64 = 0.95;
/// Documents of letters: 5 MB of JSON in the long form.
const DOCUMENTS: (u32, u32) = (200, 1_000);
/// Raw packets each way, before and after.
const PACKETS: (u32, u32) = (300, 1_000);
/// Longest sync, or run of raw packets, seconds.
const LEG_SECONDS: f64 = 600.0;

/// One sync.
struct Leg {
    name: String,
    way: Way,
    up: bool,
}

pub async fn first_sync(c: &mut Context<'_>) -> Outcome {
    if !c.rig.has_bluetoothd() {
        return skip("one process is both ends and the radio: `gattway bench link` measures the model");
    }
    let mut missed = Vec::new();
    for way in [Way::Gatt, Way::L2cap] {
        if !c.rig.ways().contains(&way) {
            c.note(&format!("{}: not on this rig", way.name()));
            continue;
        }
        for up in [true, false] {
            let name = format!("{}, {}", way.name(), if up { "up" } else { "down" });
            match (Leg { name, way, up }).run(c).await {
                Err(Stop::Fail(error)) => missed.push(error),
                ended => ended?,
            }
        }
    }
    if missed.is_empty() { Ok(()) } else { failed(missed.join("; ")) }
}

impl Leg {
    async fn run(&self, c: &mut Context<'_>) -> Outcome {
        let (peripheral, central) = (c.node(0), c.node(1));
        let documents = if c.full { DOCUMENTS.1 } else { DOCUMENTS.0 };
        let (from, to) = if self.up { (&central, &peripheral) } else { (&peripheral, &central) };
        let records = Records::Letters(documents);
        from.ask_for::<u64>(Command::Import { database: self.name.clone(), records }, LEG_SECONDS).await?;

        c.mark(&self.name);
        let before = self.raw(c, &peripheral, &central).await?;
        let costs = [cost(&peripheral).await?, cost(&central).await?];
        let (goodput, packets) = self.sync(c, &peripheral, &central).await?;
        let costs = [(costs[0], cost(&peripheral).await?), (costs[1], cost(&central).await?)];
        let after = self.raw(c, &peripheral, &central).await?;

        let digest = |node: Node| async move { node.ask::<Digest>(self.digest()).await };
        let (sent, received) = (digest(from.clone()).await?, digest(to.clone()).await?);
        c.require(
            sent == received && sent.documents == u64::from(documents),
            format!("{}: {sent:?} was sent, {received:?} is there", self.name),
        )?;
        let name = &self.name;
        c.metric(&format!("{name}: raw packets before"), before / 1024.0, "KiB/s");
        c.metric(&format!("{name}: raw packets after"), after / 1024.0, "KiB/s");
        c.metric(&format!("{name}: first sync"), goodput / 1024.0, "KiB/s");
        for (end, (before, after)) in ["peripheral", "central"].iter().zip(costs) {
            let cpu = after.cpu_us.saturating_sub(before.cpu_us) as f64 / packets;
            c.metric(&format!("{name}: CPU a packet with the store, {end}"), cpu, "us");
            let switches = after.switches.saturating_sub(before.switches) as f64 / packets;
            c.metric(&format!("{name}: context switches a packet, {end}"), switches, "");
        }
        let (name, ratio) = (format!("{name}: first sync by raw"), 2.0 * goodput / (before + after));
        if c.full {
            return c.target(&name, ratio, "", RATIO_MIN);
        }
        // Counters come five times a second, and the short form is over within a few of them.
        c.metric(&name, ratio, "");
        Ok(())
    }

    fn digest(&self) -> Command {
        Command::Digest { database: self.name.clone() }
    }

    async fn listen(&self, peripheral: &Node, service: Service) -> Outcome {
        let command = Command::Listen { service, l2cap: self.way == Way::L2cap, database: self.name.clone() };
        Ok(peripheral.ask::<Value>(command).await.map(drop)?)
    }

    /// Bytes a second of packets without any protocol.
    async fn raw(&self, c: &Context<'_>, peripheral: &Node, central: &Node) -> Outcome<f64> {
        self.listen(peripheral, Service::Raw).await?;
        let packets = if c.full { PACKETS.1 } else { PACKETS.0 };
        let command = Command::RawRun { peer: peripheral.place.address.clone(), way: self.way, packets };
        let raw: Raw = central.ask_for(command, LEG_SECONDS).await?;
        peripheral.ask::<Value>(Command::StopListening).await?;
        Ok(if self.up { raw.up } else { raw.down }.bytes_per_s)
    }

    /// Bytes of the stream a second, from the first to the last, as the central's session counts them, and packets both ways.
    async fn sync(&self, c: &Context<'_>, peripheral: &Node, central: &Node) -> Outcome<(f64, f64)> {
        self.listen(peripheral, Service::Sync).await?;
        let before = central.told(c.rig).len();
        let (database, peer) = (self.name.clone(), peripheral.place.address.clone());
        central.ask::<Value>(Command::Sync { database, peer, way: self.way, continuous: false }).await?;
        let synced: Synced =
            central.ask_for(Command::WaitSynced { seconds: LEG_SECONDS }, LEG_SECONDS).await?;
        if let Some(error) = synced.error {
            return failed(format!("{}: {error}", self.name));
        }
        peripheral.ask::<Value>(Command::StopListening).await?;
        let samples = central.told(c.rig).split_off(before);
        let moved = |sample: &Sample| if self.up { sample.sent } else { sample.received };
        let total = samples.iter().map(moved).max().unwrap_or(0);
        let first = samples.iter().rev().find(|sample| moved(sample) == 0).or(samples.first());
        let last = samples.iter().find(|sample| moved(sample) == total);
        let (Some(first), Some(last), Some(end)) = (first, last, samples.last()) else {
            return failed(format!("{}: no counters of the session", self.name));
        };
        let seconds = last.at_us.saturating_sub(first.at_us) as f64 / 1e6;
        c.require(seconds > 0.0, format!("{}: over before it was looked at", self.name))?;
        Ok((total as f64 / seconds, (end.packets_sent + end.packets_received).max(1) as f64))
    }
}

async fn cost(node: &Node) -> Outcome<Cost> {
    Ok(node.ask(Command::Cost).await?)
}
