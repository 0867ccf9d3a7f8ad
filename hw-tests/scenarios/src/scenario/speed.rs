//! Goodput as a ratio in one run: our session by packets without any protocol, in turns over the same connection.

use super::calls::Calls;
use super::{Context, Node, Outcome, Session, failed, pause, transfer};
use crate::agent;
use crate::agent::protocol::{Command, Cost, RawWay, Service, Way};
use crate::scenario::Stop;

/// The least that our protocol may leave of a raw channel.
const RATIO_MIN: f64 = 0.95;
/// Rounds of raw packets and session in each direction that are judged at the least.
const ROUNDS_MIN: usize = 5;
/// Rounds at most: while the median is below the target more are made, and it fails when it is below beyond doubt.
const ROUNDS_MAX: usize = 25;
/// Payload of a full packet: what a leg is cut into.
const PACKET_BYTES: u64 = 492;
/// How often it is looked whether everything is acknowledged, seconds.
const ACK_PAUSE: f64 = 0.02;
/// Longest leg, seconds.
const LEG_SECONDS: f64 = 300.0;

/// One leg: packets or a session's bytes in one direction.
#[derive(Clone, Copy)]
struct Leg {
    /// Payload bytes a second between the first and the last arrival.
    rate: f64,
    /// For both ends: of a processor, microseconds, and times that a thread stood still, each by a packet.
    cpu_us: [f64; 2],
    switches: [f64; 2],
}

/// One direction of one way.
#[derive(Clone, Copy)]
struct Direction {
    up: bool,
    name: &'static str,
}

const DIRECTIONS: [Direction; 2] =
    [Direction { up: true, name: "up" }, Direction { up: false, name: "down" }];

/// Rounds of one direction.
#[derive(Default)]
struct Rounds {
    raw: Vec<Leg>,
    session: Vec<Leg>,
}

impl Rounds {
    fn ratios(&self) -> impl Iterator<Item = f64> {
        self.raw.iter().zip(&self.session).map(|(raw, session)| session.rate / raw.rate.max(1.0))
    }

    fn ratio(&self) -> f64 {
        median(self.ratios())
    }

    /// The most that the median can be, in 39 of 40 cases, were there rounds without end: on a busy machine neighbours differ by a
    /// factor of two.
    fn ratio_at_most(&self) -> f64 {
        let mut ratios: Vec<f64> = self.ratios().collect();
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len() as f64;
        // The number of rounds below the median is binomial.
        let rank = (count / 2.0 + 0.98 * count.sqrt()).ceil() as usize;
        ratios.get(rank.clamp(1, ratios.len().max(1)) - 1).copied().unwrap_or(0.0)
    }

    fn median(legs: &[Leg], of: impl Fn(&Leg) -> f64) -> f64 {
        median(legs.iter().map(of))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

pub async fn speed(c: &mut Context<'_>) -> Outcome {
    let mut missed = Vec::new();
    let mut bluer = [0.0; 2];
    for way in [Way::Gatt, Way::L2cap, Way::Btleplug] {
        let name = way.name();
        if !c.rig.ways().contains(&way) {
            c.note(&format!("{name}: not on this rig"));
            continue;
        }
        c.mark(name);
        let bench = Bench::open(c, way).await?;
        let rounds = bench.run(c).await?;
        for (index, (direction, rounds)) in DIRECTIONS.iter().zip(&rounds).enumerate() {
            report(c, name, direction.name, rounds);
            let rate = Rounds::median(&rounds.session, |leg| leg.rate);
            match way {
                Way::Gatt => bluer[index] = rate,
                Way::Btleplug => {
                    c.metric(
                        &format!("btleplug by bluer, {}", direction.name),
                        rate / bluer[index].max(1.0),
                        "",
                    );
                }
                Way::GattSmall | Way::L2cap => {}
            }
            let what = format!("{name}: session by raw, {}", direction.name);
            c.metric(&what, rounds.ratio(), "");
            let what = format!("{what}, at most");
            if way == Way::Btleplug {
                continue;
            }
            if let Err(Stop::Fail(error)) = c.target(&what, rounds.ratio_at_most(), "", RATIO_MIN) {
                missed.push(error);
            }
        }
        if c.rig.has_bluetoothd() {
            bench.count_calls(c, name).await?;
        }
        bench.close().await?;
    }
    if missed.is_empty() { Ok(()) } else { failed(missed.join("; ")) }
}

/// The figures of one direction, and a note of each round.
fn report(c: &mut Context<'_>, name: &str, direction: &str, rounds: &Rounds) {
    for (raw, session) in rounds.raw.iter().zip(&rounds.session) {
        let (raw, session) = (raw.rate / 1024.0, session.rate / 1024.0);
        c.note(&format!("{name}, {direction}: raw {raw:.0} KiB/s, session {session:.0} KiB/s"));
    }
    for (who, legs) in [("raw", &rounds.raw), ("session", &rounds.session)] {
        c.metric(
            &format!("{name}: {who}, {direction}"),
            Rounds::median(legs, |leg| leg.rate) / 1024.0,
            "KiB/s",
        );
        if !c.rig.has_bluetoothd() {
            continue; // both ends and the radio are one process
        }
        for (end, at) in [("peripheral", 0), ("central", 1)] {
            // Means: a kernel may count processors' time in steps of 10 ms.
            let mean = |of: fn(&Leg) -> [f64; 2]| {
                legs.iter().map(|leg| of(leg)[at]).sum::<f64>() / legs.len() as f64
            };
            let (cpu, switches) = (mean(|leg| leg.cpu_us), mean(|leg| leg.switches));
            c.metric(&format!("{name}: {who}, {direction}: CPU a packet, {end}"), cpu, "us");
            c.metric(&format!("{name}: {who}, {direction}: context switches a packet, {end}"), switches, "");
        }
    }
}

/// A connection with raw packets and a session on it.
struct Bench {
    peripheral: Node,
    central: Node,
    ends: (Session, Session),
    packets: u32,
}

impl Bench {
    async fn open(c: &mut Context<'_>, way: Way) -> Outcome<Bench> {
        let (peripheral, central) = (c.node(0), c.node(1));
        peripheral.listen(Service::Turns, true).await?;
        let peer = peripheral.place.address.clone();
        let (accepted, dialed) = tokio::join!(peripheral.accept(), central.dial_turns(&peer, way));
        let (dialed, opened) = dialed?;
        c.require(
            way != Way::L2cap || opened.label.starts_with("l2cap"),
            format!("not over L2CAP but {}", opened.label),
        )?;
        let packets = match (way, c.full) {
            (Way::Btleplug, false) => 100,
            (Way::Btleplug, true) | (_, false) => 300,
            (_, true) => 1500,
        };
        Ok(Bench { peripheral, central, ends: (accepted?, dialed), packets })
    }

    /// Raw packets and session by turns, each first in every second round, until enough is known.
    async fn run(&self, c: &mut Context<'_>) -> Outcome<[Rounds; 2]> {
        let mut rounds = [Rounds::default(), Rounds::default()];
        for round in 0..ROUNDS_MAX {
            for (direction, rounds) in DIRECTIONS.iter().zip(&mut rounds) {
                for raw in if round % 2 == 0 { [true, false] } else { [false, true] } {
                    let leg = self.leg(*direction, raw).await?;
                    if raw { rounds.raw.push(leg) } else { rounds.session.push(leg) }
                }
            }
            let reached = rounds.iter().all(|rounds| rounds.ratio() >= RATIO_MIN);
            if round + 1 >= ROUNDS_MIN && reached {
                break;
            }
        }
        c.note(&format!("{} rounds of {} packets each", rounds[0].raw.len(), self.packets));
        Ok(rounds)
    }

    async fn leg(&self, direction: Direction, raw: bool) -> Outcome<Leg> {
        self.turn(raw).await?;
        let before = self.costs().await?;
        let rate = if raw { self.raw(direction).await? } else { self.session(direction).await? };
        let after = self.costs().await?;
        let packets = f64::from(self.packets);
        let by_packet =
            |of: fn(&Cost) -> u64| [0, 1].map(|at| (of(&after[at]) - of(&before[at])) as f64 / packets);
        Ok(Leg { rate, cpu_us: by_packet(|cost| cost.cpu_us), switches: by_packet(|cost| cost.switches) })
    }

    async fn turn(&self, raw: bool) -> Outcome {
        let (peripheral, central) = tokio::join!(self.peripheral.turn(raw), self.central.turn(raw));
        peripheral?;
        Ok(central?)
    }

    async fn costs(&self) -> agent::Result<[Cost; 2]> {
        Ok([self.peripheral.ask(Command::Cost).await?, self.central.ask(Command::Cost).await?])
    }

    /// As much payload as a session's packets of the same number have.
    async fn raw(&self, direction: Direction) -> Outcome<f64> {
        let command = Command::RawTurn { up: direction.up, packets: self.packets };
        let seen: RawWay = self.central.ask_for(command, LEG_SECONDS).await?;
        if f64::from(seen.packets) < 0.5 * f64::from(self.packets) {
            let (name, packets) = (direction.name, self.packets);
            return failed(format!("raw packets {name}: {} of {packets}", seen.packets));
        }
        Ok(seen.bytes_per_s)
    }

    async fn session(&self, direction: Direction) -> Outcome<f64> {
        let (from, to) = match &self.ends {
            (peripheral, central) if direction.up => (central, peripheral),
            (peripheral, central) => (peripheral, central),
        };
        let moved = transfer(from, to, u64::from(self.packets) * PACKET_BYTES, 1).await?;
        // The last acknowledgement belongs to this leg: its sender must not ask for it in vain during the next one.
        loop {
            let stats = from.stats().await?;
            if stats.sent == stats.given {
                return Ok(super::rate(&moved));
            }
            pause(ACK_PAUSE).await;
        }
    }

    /// Legs of their own under strace, which slows them: what the process asks of the kernel for a packet.
    async fn count_calls(&self, c: &mut Context<'_>, name: &str) -> Outcome {
        for direction in DIRECTIONS {
            for (raw, who) in [(true, "raw"), (false, "session")] {
                self.turn(raw).await?;
                let [peripheral, central] = self.costs().await?;
                let peripheral = Calls::of(&self.peripheral, peripheral.pid).await?;
                let central = Calls::of(&self.central, central.pid).await?;
                let leg = if raw { self.raw(direction).await } else { self.session(direction).await };
                let what = format!("{name}: {who}, {}", direction.name);
                for (end, calls) in [("peripheral", peripheral), ("central", central)] {
                    let Some(calls) = calls else {
                        c.note("no strace: system calls were not counted");
                        return Ok(());
                    };
                    self.report_calls(
                        c,
                        &format!("{what}: system calls a packet, {end}"),
                        &calls.end().await?,
                    );
                }
                leg?;
            }
        }
        Ok(())
    }

    fn report_calls(&self, c: &mut Context<'_>, what: &str, calls: &[(String, u64)]) {
        let by_packet = |count: u64| count as f64 / f64::from(self.packets);
        c.metric(what, by_packet(calls.iter().map(|(_, count)| count).sum()), "");
        let named = calls.iter().filter(|(_, count)| by_packet(*count) >= 0.05);
        let named: Vec<String> =
            named.map(|(name, count)| format!("{name} {:.2}", by_packet(*count))).collect();
        c.note(&format!("{what}: {}", named.join(", ")));
    }

    async fn close(self) -> Outcome {
        self.turn(false).await?;
        // Orderly ends are tested by `close-central`.
        let (closed, _) = tokio::join!(self.ends.1.close(), self.ends.0.close());
        closed?;
        self.central.ask::<serde_json::Value>(Command::EndTurns).await?;
        self.peripheral.ask::<serde_json::Value>(Command::EndTurns).await?;
        Ok(())
    }
}
