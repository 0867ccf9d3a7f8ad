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
pub struct PacketChannel {
    /// Towards the peer.
    pub sink: Box<dyn PacketSink>,
    /// From the peer.
    pub source: Box<dyn PacketSource>,
    /// The longest packet that both directions carry whole.
    pub size: PacketSize,
    /// Names the peer and the way to it in logs.
    pub label: String,
}

impl PacketChannel {
    /// Sends one packet; waits while the transport's queue is full.
    ///
    /// # Errors
    /// The channel is lost.
    pub async fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        poll_fn(|cx| self.sink.poll_send(cx, packet)).await
    }

    /// Receives one packet; 0 says that the connection is lost.
    ///
    /// # Errors
    /// The channel is lost.
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
