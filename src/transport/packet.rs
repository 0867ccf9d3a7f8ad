//! What a radio gives: whole packets both ways, each an ATT value, unreliable where a host's buffers are overrun.
//!
//! A packet arrives whole or not at all; packets may be lost, and a few may arrive out of order. Making a reliable
//! stream of them is the work of `crate::link`.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use async_trait::async_trait;

use crate::link::PacketSize;

/// Sends packets.
pub trait PacketSink: Send {
    /// Takes one packet, of at most the channel's packet size. Pending while the transport's own queue is full: the
    /// packet was not taken then, and the task is woken when it is worth another try.
    ///
    /// # Errors
    /// The channel is lost; nothing more can be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>>;
}

/// Receives packets.
pub trait PacketSource: Send {
    /// Writes the next packet into `packet` and gives its length; 0 says that the connection is lost, and stays so.
    /// What is longer than `packet` is cut. Must be polled promptly: what is not taken in time may be dropped.
    ///
    /// # Errors
    /// The channel is lost; nothing more arrives.
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>>;
}

/// A connected radio link that carries packets. Dropping it disconnects.
#[non_exhaustive]
pub struct PacketChannel {
    /// Towards the peer.
    #[doc(hidden)]
    pub sink: Box<dyn PacketSink>,
    /// From the peer.
    #[doc(hidden)]
    pub source: Box<dyn PacketSource>,
    #[doc(hidden)]
    /// The longest packet that both directions carry whole.
    pub size: PacketSize,
    /// Names the peer and the way to it in logs.
    #[doc(hidden)]
    pub label: String,
}

impl PacketChannel {
    /// A channel of packets of up to `packet_bytes`, which both directions carry whole; `label` names the peer and the way to it
    /// in logs.
    ///
    /// # Errors
    /// `packet_bytes` is below 20 or above 495.
    pub fn new(
        sink: Box<dyn PacketSink>,
        source: Box<dyn PacketSource>,
        packet_bytes: u16,
        label: impl Into<String>,
    ) -> io::Result<PacketChannel> {
        let size = PacketSize::try_new(packet_bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(PacketChannel::of_size(sink, source, size, label.into()))
    }

    /// The same of a size that is known to be one.
    #[doc(hidden)]
    pub fn of_size(
        sink: Box<dyn PacketSink>,
        source: Box<dyn PacketSource>,
        size: PacketSize,
        label: String,
    ) -> PacketChannel {
        PacketChannel { sink, source, size, label }
    }

    /// Sends one packet; waits while the transport's queue is full.
    ///
    /// # Errors
    /// The channel is lost.
    #[doc(hidden)]
    pub async fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        poll_fn(|cx| self.sink.poll_send(cx, packet)).await
    }

    /// Receives one packet; 0 says that the connection is lost.
    ///
    /// # Errors
    /// The channel is lost.
    #[doc(hidden)]
    pub async fn recv(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.source.poll_recv(cx, packet)).await
    }
}

/// Connects to one peer, as a central.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Connects, subscribes to the peer's packets and gives the channel. Called again after each loss; the future is
    /// dropped when it takes too long.
    ///
    /// # Errors
    /// The peer was not reached. Permission, unsupported and invalid-input errors mean that trying again is no use.
    async fn connect(&self) -> io::Result<PacketChannel>;
}

impl fmt::Debug for PacketChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketChannel")
            .field("size", &self.size)
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}
