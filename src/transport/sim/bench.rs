//! How much of a modelled connection the link turns into goodput, in virtual time and without tokio: one run takes a
//! fraction of a second and gives the same figures on every machine.

use std::time::Duration;

use super::host::{HostConfig, PacketCounters};
use super::radio::{ConnectionId, ConnectionSetup, NodeConfig, Path, RadioError, Side, ceiling};
use super::world::World;
use crate::link::{
    AttMtu, Link, LinkConfig, LinkError, LinkEvent, LinkRole, LinkStats, PACKET_BYTES_MAX,
    RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES,
};
use crate::time::Instant;

/// Time for the handshake and for the window to open, not counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// Step of a run when nothing says when it goes on.
const IDLE_STEP: Duration = Duration::from_millis(1);
/// Bytes written or read at once.
const CHUNK_BYTES: usize = 4096;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct LinkBench {
    /// The connection below.
    pub setup: ConnectionSetup,
    /// ATT MTU; a packet has 3 octets less.
    pub att_mtu: AttMtu,
    /// Signal and interference.
    pub path: Path,
    /// Hosts at both ends, with the share of packets they drop.
    pub host: HostConfig,
    /// Who sends.
    pub from: Side,
    /// Counted time of the connection.
    pub measured: Duration,
    /// Settings of both links.
    pub link: LinkConfig,
    /// Decides every loss.
    pub seed: u64,
}

impl Default for LinkBench {
    /// 2M, MTU 247, 30 ms, no loss, central to peripheral, 20 s.
    fn default() -> LinkBench {
        LinkBench {
            setup: ConnectionSetup::default(),
            att_mtu: AttMtu::new(247),
            path: Path::default(),
            host: HostConfig::default(),
            from: Side::Central,
            measured: Duration::from_secs(20),
            link: LinkConfig::default(),
            seed: 1,
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct LinkGoodput {
    /// Bytes of the stream that the receiver got per second.
    pub goodput_bytes_per_s: f64,
    /// Bytes that raw packets of the same size, without protocol and without dropping hosts, carry per second.
    pub ceiling_bytes_per_s: f64,
    /// Goodput by ceiling.
    pub ratio: f64,
    /// Counters of the sending link.
    pub sender: LinkStats,
    /// Counters of the receiving link.
    pub receiver: LinkStats,
    /// Packets of both directions.
    pub packets: PacketCounters,
}

/// A run that did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkBenchError {
    /// The connection is impossible.
    #[error("the modelled connection is impossible: {0}")]
    Radio(#[from] RadioError),
    /// The link broke.
    #[error("the link failed: {0}")]
    Link(#[from] LinkError),
    /// The radio lost the connection.
    #[error("the modelled connection was lost after {after_ms} ms")]
    Lost {
        /// Since the start, milliseconds.
        after_ms: u64,
    },
}

/// One end: a link, and the bytes that came out of it.
struct End {
    side: Side,
    link: Box<Link<SEND_BUFFER_BYTES, RECEIVE_BUFFER_BYTES>>,
    received: u64,
}

impl End {
    fn new(side: Side, bench: &LinkBench) -> End {
        let role = if side == Side::Central { LinkRole::Central } else { LinkRole::Peripheral };
        End { side, link: Box::new(Link::new(role, bench.link, bench.seed ^ side as u64)), received: 0 }
    }

    /// Does all that can be done at `now`.
    fn turn(
        &mut self,
        now: Instant,
        world: &mut World,
        connection: ConnectionId,
        sends: bool,
    ) -> Result<(), LinkBenchError> {
        while let Some(packet) = world.receive(now, connection, self.side) {
            self.link.handle_packet(now, &packet)?;
        }
        self.link.handle_timeout(now);
        let mut chunk = [0; CHUNK_BYTES];
        while self.link.readable() > 0 {
            self.received += self.link.read(&mut chunk) as u64;
        }
        while sends && self.link.write(&chunk) > 0 {}
        while world.can_send(connection, self.side) {
            let mut packet = [0; PACKET_BYTES_MAX as usize];
            let Some(length) = self.link.poll_packet(now, &mut packet) else { break };
            world.send(now, connection, self.side, &packet[..length]);
        }
        while let Some(event) = self.link.poll_event() {
            if let LinkEvent::Failed(error) = event {
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// Saturates one direction of a link on a modelled connection.
///
/// # Errors
/// An impossible connection; a link or a connection that does not live through the run.
pub fn link_goodput(bench: &LinkBench) -> Result<LinkGoodput, LinkBenchError> {
    let mut world = World::new(bench.seed);
    let devices = [(); 2].map(|()| world.add_device(bench.host, NodeConfig::default()));
    world.set_path(devices[0], devices[1], bench.path);
    let connection = world.connect(Instant::ZERO, devices[0], devices[1], &bench.setup)?;
    let mut ends = [Side::Central, Side::Peripheral].map(|side| End::new(side, bench));
    let size = bench.att_mtu.packet_size();
    ends.iter_mut().for_each(|end| end.link.connected(Instant::ZERO, size));
    let start = Instant::ZERO + WARM_UP;
    let stop = start + bench.measured;
    let (mut now, mut before) = (Instant::ZERO, 0);
    let receiver = bench.from.other() as usize;
    while now < stop {
        world.handle_timeout(now);
        for end in &mut ends {
            let sends = end.side == bench.from;
            end.turn(now, &mut world, connection, sends)?;
        }
        if !world.is_connected(connection, bench.from) {
            return Err(LinkBenchError::Lost { after_ms: now.as_micros() / 1_000 });
        }
        if now < start {
            before = ends[receiver].received;
        }
        // What was queued now may be due earlier than what the world knew of.
        world.handle_timeout(now);
        let timers = ends.iter().filter_map(|end| end.link.poll_at());
        now = timers.chain(world.poll_at()).filter(|at| *at > now).min().unwrap_or(now + IDLE_STEP);
    }
    let goodput = (ends[receiver].received - before) as f64 / bench.measured.as_secs_f64();
    let raw = ceiling(&bench.setup, bench.path, bench.from, size.bytes())?;
    Ok(LinkGoodput {
        goodput_bytes_per_s: goodput,
        ceiling_bytes_per_s: raw,
        ratio: goodput / raw,
        sender: ends[bench.from as usize].link.stats(),
        receiver: ends[receiver].link.stats(),
        packets: world.counters().packets(),
    })
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::sim::radio::{ConnectionParameters, Phy};

    const INTERVALS_US: [u64; 3] = [7_500, 30_000, 50_000];

    fn bench(interval_us: u64, drop: f64, from: Side) -> LinkBench {
        let parameters = ConnectionParameters {
            interval: Duration::from_micros(interval_us),
            ..ConnectionParameters::default()
        };
        LinkBench {
            setup: ConnectionSetup { parameters, phy: Phy::Le2M, ..ConnectionSetup::default() },
            host: HostConfig { drop, ..HostConfig::default() },
            from,
            ..LinkBench::default()
        }
    }

    fn holds(drop: f64, ratio_min: f64) {
        for interval_us in INTERVALS_US {
            for from in [Side::Central, Side::Peripheral] {
                let result = link_goodput(&bench(interval_us, drop, from)).expect("a run");
                let ratio = result.ratio;
                println!("interval {interval_us} us, drop {drop}, from {from:?}: {ratio:.4}");
                assert!(
                    ratio >= ratio_min,
                    "interval {interval_us} us, drop {drop}, from {from:?}: {result:?}"
                );
            }
        }
    }

    #[test]
    fn goodput_without_loss_is_near_the_ceiling() {
        holds(0.0, 0.95);
    }

    #[test]
    fn goodput_with_dropping_hosts() {
        holds(0.02, 0.85);
    }
}
