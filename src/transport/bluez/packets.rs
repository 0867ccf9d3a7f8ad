//! BlueZ's sockets as packet channels: AcquireWrite / AcquireNotify sockets and L2CAP SEQPACKET sockets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bluer::gatt::{CharacteristicReader, CharacteristicWriter};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::link::{ATT_HEADER_BYTES, AttMtu, PacketSize};
use crate::transport::packet::{PacketSink, PacketSource};

/// Room for any ATT value, so that bluer never splits one over two reads.
pub(super) const ATT_VALUE_MAX: usize = 520;

/// Something that lives as long as a connection and ends it when dropped: a slot, a device to disconnect.
pub(super) type Guard = Box<dyn Send + Sync>;

/// The packet size for a socket that takes values of up to `value_max` bytes (bluer's writers say 5 less than the ATT
/// MTU, its readers the raw MTU: `firmware-notes/bluez.md`, MTU).
pub(super) fn packet_size(value_max: usize) -> PacketSize {
    let octets = u16::try_from(value_max).unwrap_or(u16::MAX).saturating_add(ATT_HEADER_BYTES);
    AttMtu::new(octets).packet_size()
}

/// The ATT MTU of a connection whose writer takes values of up to `value_max` bytes: bluer's writers say 5 less.
pub(super) fn att_mtu(value_max: usize) -> u16 {
    u16::try_from(value_max).unwrap_or(u16::MAX).saturating_add(5)
}

/// Packets out through a characteristic's socket.
pub(super) struct CharacteristicSink {
    pub(super) writer: CharacteristicWriter,
    pub(super) _guard: Option<Guard>,
}

impl PacketSink for CharacteristicSink {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        let sent = ready!(Pin::new(&mut self.writer).poll_write(cx, packet))?;
        Poll::Ready(whole(sent, packet.len()))
    }
}

/// Packets in through a characteristic's socket.
pub(super) struct CharacteristicSource(pub(super) CharacteristicReader);

impl PacketSource for CharacteristicSource {
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
        if packet.len() >= self.0.mtu() {
            let mut value = ReadBuf::new(packet);
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut value))?;
            return Poll::Ready(Ok(value.filled().len()));
        }
        let mut room = [0; ATT_VALUE_MAX];
        let mut value = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut value))?;
        Poll::Ready(copy(value.filled(), packet))
    }
}

/// Packets out through a characteristic's socket that is watched elsewhere for its end.
pub(super) struct SharedSink {
    writer: Arc<CharacteristicWriter>,
    wait: Option<BoxFuture<'static, io::Result<()>>>,
}

impl SharedSink {
    pub(super) fn new(writer: Arc<CharacteristicWriter>) -> SharedSink {
        SharedSink { writer, wait: None }
    }
}

impl PacketSink for SharedSink {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        loop {
            if let Some(wait) = &mut self.wait {
                let writable = ready!(wait.as_mut().poll(cx));
                self.wait = None;
                writable?;
            }
            match self.writer.try_send(packet) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writer = Arc::clone(&self.writer);
                    self.wait = Some(Box::pin(async move { writer.sendable().await }));
                }
                result => return Poll::Ready(result),
            }
        }
    }
}

/// Packets in and out through one L2CAP socket, shared by both halves.
pub(super) struct L2capHalf {
    pub(super) socket: std::sync::Arc<bluer::l2cap::SeqPacket>,
    pub(super) _guard: Option<Guard>,
}

impl PacketSink for L2capHalf {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        let sent = ready!(self.socket.poll_send(cx, packet))?;
        Poll::Ready(whole(sent, packet.len()))
    }
}

impl PacketSource for L2capHalf {
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut value = ReadBuf::new(packet);
        ready!(self.socket.poll_recv(cx, &mut value))?;
        Poll::Ready(Ok(value.filled().len()))
    }
}

fn whole(sent: usize, len: usize) -> io::Result<()> {
    if sent == len {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::WriteZero, format!("{sent} of a packet of {len} bytes were taken")))
}

pub(super) fn copy(value: &[u8], packet: &mut [u8]) -> io::Result<usize> {
    let len = value.len();
    let room = packet.len();
    match packet.get_mut(..len) {
        Some(room) => {
            room.copy_from_slice(value);
            Ok(len)
        }
        None => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("packet of {len} bytes, room for {room}")))
        }
    }
}
