//! A listener that replays: it has overheard what passive sides of the nodes said, stands where one of them is expected, and
//! says it once more to whoever connects. What it is told it says once more too, to the nodes and to a stranger.
//! Nobody may tell it by any answer whether he belongs to them.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use gattway::endpoint::{Inbound, Message, MessageEndpointConnection, ReplicatorConnection};
use gattway::lab::link::AttMtu;
use gattway::lab::secure::{GroupOnly, Psk};
use gattway::lab::transport::packet::Connector;
use gattway::lab::transport::secure::{Carrier, SecureAcceptor, SecureConnection, SecureConnectionConfig};
use gattway::lab::transport::session::{LinkConnection, SessionConfig};
use gattway::lab::transport::sim::{HostConfig, SimDevice, SimLink};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::plan::{Edge, FaultKind, Security};
use super::radio::links_to;
use super::run::Run;
use super::secure;
use super::world::World;

/// Bytes of a passive side that are overheard of one connection: its part of the handshake and the first records.
const HEARD_BYTES: usize = 300;

/// A first message whole: OFFER with its head.
const OFFER_BYTES: usize = 231;

/// Heads of handshake messages: the active side proves itself.
const PROVE: [u8; 2] = [0x47, 3];

/// Until whoever connects has had enough.
const PATIENCE: Duration = Duration::from_secs(30);
const INBOUND_BYTES: usize = 16 * 1024;

/// Number of an identity that nobody knows.
const STRANGER: usize = 1_000;

/// What was overheard of one passive half.
#[derive(Clone, Default)]
pub struct Script {
    /// All packets.
    packets: Vec<Vec<u8>>,
    /// Their part of the stream.
    bytes: Vec<u8>,
}

/// The stream of one passive half, as it is overheard packet by packet.
#[derive(Default)]
pub struct Overhearing {
    next: Option<u16>,
    script: Script,
    is_done: bool,
}

impl Overhearing {
    /// Hears a packet; the beginning of the stream once there is enough of it.
    pub fn hear(&mut self, packet: &[u8]) -> Option<Script> {
        let [first, second, ..] = packet else { return None };
        if self.is_done {
            return None;
        }
        self.script.packets.push(packet.to_vec());
        // By `firmware-notes/link.md`: full and short data packets, with 11 bits of number.
        let header = match first >> 6 {
            0b00 => 3,
            0b10 | 0b11 => 4,
            _ => return None,
        };
        let number = u16::from(first & 0x3f) << 5 | u16::from(second >> 3);
        if self.next.is_some_and(|next| next != number) {
            return None;
        }
        self.next = Some((number + 1) & 0x7ff);
        self.script.bytes.extend(packet.get(header..).unwrap_or_default());
        self.is_done = self.script.bytes.len() >= HEARD_BYTES;
        self.is_done.then(|| std::mem::take(&mut self.script))
    }
}

/// What whoever connected to the listener let it see.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// Length of the first message.
    first: usize,
    /// All that came after the replay.
    after: Vec<u8>,
}

/// All that comes until there are `enough` bytes or the end.
async fn gather(inbound: &mut Inbound, enough: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let all = async {
        while bytes.len() < enough {
            let Some(message) = inbound.next().await else { return };
            bytes.extend_from_slice(&message);
        }
    };
    let _ = timeout(PATIENCE, all).await;
    bytes
}

/// Stands where `device` is: plays `script` to each who connects, and tells what it saw and their first messages.
fn stand(
    world: &Arc<World>,
    device: &SimDevice,
    script: Vec<u8>,
    seed: u64,
) -> mpsc::UnboundedReceiver<(Seen, Vec<u8>)> {
    let (tell, told) = mpsc::unbounded_channel();
    let acceptor = links_to(device, world, seed);
    let world = Arc::clone(world);
    tokio::spawn(async move {
        while let Some(link) = acceptor.next().await {
            let (script, tell, world) = (script.clone(), tell.clone(), Arc::clone(&world));
            tokio::spawn(async move {
                let (handle, mut inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
                if link.open(handle).await.is_err() {
                    return;
                }
                let first = gather(&mut inbound, OFFER_BYTES).await;
                if link.send(Message::from_bytes(script)).await.is_err() {
                    return;
                }
                let after = gather(&mut inbound, usize::MAX).await;
                if after.starts_with(&PROVE) {
                    world.violation("a node proves itself to a listener that replays");
                }
                let _ = link.close(None).await;
                let _ = tell.send((Seen { first: first.len(), after }, first));
            });
        }
    });
    told
}

/// Stands where `device` is and plays whole packets, one for each that comes.
fn stand_with_packets(device: &SimDevice, packets: Vec<Vec<u8>>) {
    let mut incoming = device.listen();
    tokio::spawn(async move {
        while let Some(mut channel) = incoming.accept().await {
            let packets = packets.clone();
            tokio::spawn(async move {
                let mut heard = [0; 600];
                for packet in packets {
                    match timeout(PATIENCE, channel.recv(&mut heard)).await {
                        Ok(Ok(1..)) if channel.send(&packet).await.is_ok() => {}
                        _ => return,
                    }
                }
            });
        }
    });
}

/// What a passive side answers to an overheard first message.
async fn answer(world: &World, connector: Arc<dyn Connector>, offer: Vec<u8>, seed: u64) -> Vec<u8> {
    let session = SessionConfig { seed: Some(seed), ..SessionConfig::on(world.clock) };
    let link = LinkConnection::central(connector, session);
    let (handle, mut inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    if link.open(handle).await.is_err() || link.send(Message::from_bytes(offer)).await.is_err() {
        return Vec::new();
    }
    let answer = gather(&mut inbound, usize::MAX).await;
    let _ = link.close(None).await;
    answer
}

/// A central visits the listener; whether it opened a session.
async fn visit(world: &World, connector: Arc<dyn Connector>, config: SecureConnectionConfig) -> bool {
    let session = SessionConfig { seed: config.seed, ..SessionConfig::on(world.clock) };
    let link = LinkConnection::central(connector, session);
    let connection = Arc::new(SecureConnection::active(Carrier::Link(link), config));
    let (handle, _inbound) = ReplicatorConnection::detached(INBOUND_BYTES);
    connection.open(handle).await.is_ok()
}

/// A member, a stranger, and devices of theirs and of the attacker.
struct Attack {
    world: Arc<World>,
    rng: Rng,
    script: Vec<u8>,
    member: SecureConnectionConfig,
    stranger: SecureConnectionConfig,
    victim: SimDevice,
}

impl Attack {
    fn device(&self, name: &str) -> SimDevice {
        self.world.radio.add_device(name, HostConfig::default())
    }

    async fn run(mut self) {
        let link = || SimLink::new(AttMtu::new(247));
        let (mirror, central) = (self.device("replaying listener"), self.device("central"));
        let mut told = stand(&self.world, &mirror, std::mem::take(&mut self.script), self.rng.u64(..));
        let mut seen = Vec::new();
        for config in [&self.member, &self.stranger] {
            if visit(&self.world, central.connector(&mirror, link()), config.clone()).await {
                self.world.violation("a session opens to a listener that replays");
            }
            match timeout(PATIENCE * 3, told.recv()).await {
                Ok(Some(one)) => seen.push(one),
                _ => return self.world.trace.note("nobody came to the listener that replays"),
            }
        }
        let [(member, offer), (stranger, _)] = &seen[..] else { return };
        if member != stranger {
            self.world.violation(format!("a replay tells {member:?} from {stranger:?}"));
        }
        // What the member offered, to one who knows it and to one who does not.
        let other = self.device("bystander");
        let acceptor = links_to(&other, &self.world, self.rng.u64(..));
        let secure = SecureAcceptor::new(self.stranger.clone());
        let bystander = tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    link = acceptor.next() => match link {
                        Some(link) => secure.incoming(Carrier::Link(link), "radio"),
                        None => return,
                    },
                    _ = secure.next() => {}
                }
            }
        });
        let mut answers = Vec::new();
        for device in [&self.victim, &other] {
            let connector = central.connector(device, link());
            answers.push(answer(&self.world, connector, offer.clone(), self.rng.u64(..)).await);
        }
        bystander.abort();
        self.world.trace.note(format!("replayed: {member:?}, answered {answers:?}"));
        // One that is down, or far away, says nothing.
        if !answers[0].is_empty() && !answers[1].is_empty() && answers[0] != answers[1] {
            self.world
                .violation(format!("an overheard first message tells nodes from strangers: {answers:?}"));
        }
    }
}

impl Run {
    /// Somebody replays what he has overheard of the passive side of `edge`.
    pub fn replay(&mut self, edge: Edge) -> bool {
        let plan = &self.world.plan;
        let scripts = self.world.overheard_of(edge.passive);
        if plan.security == Security::Plain || scripts.is_empty() {
            return false;
        }
        let script = scripts[self.rng.usize(0..scripts.len())].clone();
        let clock = self.world.clock;
        let member = secure::config(plan, edge.active, self.rng.u64(..), clock, Some(edge.passive), None);
        let nobody = Arc::new(secure::identity(plan.seed, STRANGER));
        let mut stranger = SecureConnectionConfig::new(nobody, Arc::new(GroupOnly(Psk([0xee; 32]))));
        (stranger.seed, stranger.clock) = (Some(self.rng.u64(..)), clock);
        let Some(member) = member else { return false };
        self.world.trace.note(format!("a listener replays what {} said", edge.passive));
        // Whoever looks for the node finds the listener, for a while.
        let imposter = self.world.radio.add_device("imposter", HostConfig::default());
        match self.rng.bool() {
            true => stand_with_packets(&imposter, script.packets),
            false => drop(stand(&self.world, &imposter, script.bytes.clone(), self.rng.u64(..))),
        }
        let time = Duration::from_millis(self.rng.u64(1_000..12_000));
        self.world.impose((edge.active, edge.passive), imposter, time);
        self.world.radio.cut(&self.devices[edge.active], &self.devices[edge.passive]);
        let attack = Attack {
            world: Arc::clone(&self.world),
            rng: self.rng.fork(),
            script: script.bytes,
            member,
            stranger,
            victim: self.devices[edge.passive].clone(),
        };
        self.world.fault(FaultKind::Replay);
        tokio::spawn(attack.run());
        false
    }
}
