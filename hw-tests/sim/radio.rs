//! Channels of the modelled radio with a tap in them: each packet goes into the trace, and some go wrong.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use fastrand::Rng;
use gattway::lab::transport::packet::{Connector, PacketChannel, PacketSink, PacketSource};
use gattway::lab::transport::session::{LinkAcceptor, SessionConfig};
use gattway::lab::transport::sim::SimDevice;

use super::model::NodeIndex;
use super::plan::FaultKind;
use super::replay::Overhearing;
use super::world::{World, lock};

/// First bytes of a packet of the link's handshake.
const HANDSHAKE: &[u8] = b"GW";

/// Numbers channels of one run.
#[derive(Default)]
pub struct Channels(AtomicU32);

/// Makes a connector to a device.
pub type Reach = Arc<dyn Fn(&SimDevice) -> Arc<dyn Connector> + Send + Sync>;

/// A connector whose channels have a tap.
pub struct TappedConnector {
    pub inner: Arc<dyn Connector>,
    pub world: Arc<World>,
    pub channels: Arc<Channels>,
    /// Who connects to whom.
    pub edge: (NodeIndex, NodeIndex),
    /// How its device reaches another one.
    pub reach: Reach,
}

#[async_trait]
impl Connector for TappedConnector {
    async fn connect(&self) -> io::Result<PacketChannel> {
        let channel = match self.world.imposter(self.edge) {
            None => self.inner.connect().await?,
            Some(imposter) => (self.reach)(&imposter).connect().await?,
        };
        Ok(tap(channel, &self.world, &self.channels, None))
    }
}

/// Links to whoever connects to the device, with nothing in between.
pub fn links_to(device: &SimDevice, world: &World, seed: u64) -> LinkAcceptor {
    let acceptor = LinkAcceptor::new(SessionConfig { seed: Some(seed), ..SessionConfig::on(world.clock) });
    let (mut incoming, channels) = (device.listen(), acceptor.clone());
    tokio::spawn(async move {
        while let Some(channel) = incoming.accept().await {
            channels.incoming(channel);
        }
    });
    acceptor
}

/// Puts a tap into the sending half of a channel, which is that of the passive side of a node.
pub fn tap(
    channel: PacketChannel,
    world: &Arc<World>,
    channels: &Channels,
    passive: Option<NodeIndex>,
) -> PacketChannel {
    let number = channels.0.fetch_add(1, Ordering::Relaxed);
    world.trace.note(format!("channel {number} to {}", channel.label));
    let rng = Rng::with_seed(world.plan.seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let overheard = passive.filter(|_| world.plan.faults.contains(&FaultKind::Replay));
    let overheard = overheard.map(|node| (node, Overhearing::default()));
    let sink =
        TappedSink { inner: channel.sink, world: Arc::clone(world), number, rng, again: None, overheard };
    let source = TappedSource { inner: channel.source, world: Arc::clone(world), number };
    PacketChannel::of_size(Box::new(sink), Box::new(source), channel.size, channel.label)
}

struct TappedSink {
    inner: Box<dyn PacketSink>,
    world: Arc<World>,
    number: u32,
    rng: Rng,
    /// A packet that is sent a second time.
    again: Option<Vec<u8>>,
    /// What a listener near it hears, of which node.
    overheard: Option<(NodeIndex, Overhearing)>,
}

impl PacketSink for TappedSink {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        if let Some(again) = self.again.take() {
            match self.inner.poll_send(cx, &again) {
                Poll::Pending => {
                    self.again = Some(again);
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => self.world.fault(FaultKind::Duplicate),
            }
        }
        let sent = self.inner.poll_send(cx, packet);
        if matches!(sent, Poll::Ready(Ok(()))) {
            self.world.trace.packet(self.number * 2, packet);
            if let Some((node, overheard)) = &mut self.overheard
                && let Some(script) = overheard.hear(packet)
            {
                self.world.overhear_passive(*node, script);
            }
            if packet.starts_with(HANDSHAKE) {
                self.world.overhear(packet);
            }
            if self.rng.f64() < lock(&self.world.packet_faults).duplicate {
                self.again = Some(packet.to_vec());
            }
        }
        sent
    }
}

struct TappedSource {
    inner: Box<dyn PacketSource>,
    world: Arc<World>,
    number: u32,
}

impl PacketSource for TappedSource {
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(cx, packet);
        if let Poll::Ready(Ok(length)) = &received {
            self.world.trace.packet(self.number * 2 + 1, &packet[..*length]);
        }
        received
    }
}
