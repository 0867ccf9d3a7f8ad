//! What a secure session costs on a modelled connection, in virtual time and without tokio: the same transfer with and
//! without, on the same radio, the same figures on every machine.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::link::{Link, LinkEvent, LinkRole, PACKET_BYTES_MAX, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES};
use crate::secure::{
    GroupOnly, Identity, Keyring, Psk, SecureConfig, SecureError, SecureEvent, SecureSession,
};
use crate::time::Instant;
use crate::transport::sim::bench::{LinkBench, LinkBenchError};
use crate::transport::sim::radio::{ConnectionId, NodeConfig, Side};
use crate::transport::sim::world::World;

/// Bytes that the replicator gives at once when it has much to say.
const MESSAGE_BYTES: usize = 32 * 1024;
/// Bytes read from the link at once.
const CHUNK_BYTES: usize = 4096;
/// Step of a run when nothing says when it goes on.
const IDLE_STEP: Duration = Duration::from_millis(1);
/// A run that takes longer has stopped.
const RUN_MAX: Duration = Duration::from_secs(600);

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct SecureRun {
    /// Until the passive side had the first byte, from the connection on.
    pub first_byte: Duration,
    /// Bytes per second of the transfer.
    pub goodput_bytes_per_s: f64,
    /// Bytes of the stream below, from the active side.
    pub stream_bytes: u64,
    /// Packets of both directions.
    pub packets: u64,
    /// Bytes of those packets, link headers included.
    pub packet_bytes: u64,
}

/// Why there is no figure.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecureBenchError {
    /// The link or the radio below.
    #[error(transparent)]
    Link(#[from] LinkBenchError),
    /// The session.
    #[error(transparent)]
    Secure(#[from] SecureError),
    /// It does not come to its end.
    #[error("the transfer has not come to its end within {RUN_MAX:?} of virtual time")]
    Stuck,
}

struct End {
    side: Side,
    link: Box<Link<SEND_BUFFER_BYTES, RECEIVE_BUFFER_BYTES>>,
    secure: Option<SecureSession>,
    established: bool,
    pending: BytesMut,
    /// Bytes of the application that wait to be sent.
    to_send: u64,
    received: u64,
}

impl End {
    fn new(side: Side, bench: &LinkBench, secure: bool) -> Result<End, SecureError> {
        let role = if side == Side::Central { LinkRole::Central } else { LinkRole::Peripheral };
        let session = match (secure, side) {
            (false, _) => None,
            (true, Side::Central) => {
                let (config, keyring) = member(1);
                Some(SecureSession::active(config, &keyring, [1; 32], Instant::ZERO)?)
            }
            (true, Side::Peripheral) => {
                let (config, keyring) = member(2);
                Some(SecureSession::passive(config, keyring, [2; 32], Instant::ZERO))
            }
        };
        Ok(End {
            side,
            link: Box::new(Link::new(role, bench.link, bench.seed ^ side as u64)),
            established: !secure,
            secure: session,
            pending: BytesMut::new(),
            to_send: 0,
            received: 0,
        })
    }

    /// Does all that can be done at `now`.
    fn turn(
        &mut self,
        now: Instant,
        world: &mut World,
        connection: ConnectionId,
    ) -> Result<(), SecureBenchError> {
        while let Some(packet) = world.receive(now, connection, self.side) {
            self.link.handle_packet(now, &packet).map_err(LinkBenchError::from)?;
        }
        self.link.handle_timeout(now);
        self.read()?;
        self.write()?;
        while world.can_send(connection, self.side) {
            let mut packet = [0; PACKET_BYTES_MAX as usize];
            let Some(length) = self.link.poll_packet(now, &mut packet) else { break };
            world.send(now, connection, self.side, &packet[..length]);
        }
        while let Some(event) = self.link.poll_event() {
            if let LinkEvent::Failed(error) = event {
                return Err(LinkBenchError::from(error).into());
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), SecureBenchError> {
        let mut chunk = [0; CHUNK_BYTES];
        while self.link.readable() > 0 {
            let length = self.link.read(&mut chunk);
            let Some(secure) = &mut self.secure else {
                self.received += length as u64;
                continue;
            };
            secure.handle_bytes(&chunk[..length])?;
            while let Some(event) = secure.poll_event() {
                match event {
                    SecureEvent::Established(_) => self.established = true,
                    SecureEvent::Data(data) => self.received += data.len() as u64,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), SecureBenchError> {
        loop {
            if let Some(secure) = &mut self.secure {
                self.pending.extend_from_slice(&secure.take_output());
            }
            if self.pending.is_empty() {
                if self.to_send == 0 || !self.established {
                    return Ok(());
                }
                let length = self.to_send.min(MESSAGE_BYTES as u64) as usize;
                self.to_send -= length as u64;
                let message = vec![0x5a; length];
                match &mut self.secure {
                    Some(secure) => secure.seal(&message)?,
                    None => self.pending.extend_from_slice(&message),
                }
                continue;
            }
            let written = self.link.write(&self.pending);
            if written == 0 {
                return Ok(());
            }
            let _ = self.pending.split_to(written);
        }
    }
}

fn member(device: u8) -> (SecureConfig, Keyring) {
    let config =
        SecureConfig::new(Arc::new(Identity::from_private([device; 32])), Arc::new(GroupOnly(Psk([7; 32]))));
    // As over every link.
    let config = SecureConfig { fresh: Some([7; 32]), ..config };
    let keyring = Keyring::new(&config.identity, &*config.policy);
    (config, keyring)
}

/// Sends a byte, then `bytes` from the central to the peripheral.
///
/// # Errors
/// An impossible connection; a link or a session that does not live through the run.
pub fn transfer(bench: &LinkBench, bytes: u64, secure: bool) -> Result<SecureRun, SecureBenchError> {
    let mut world = World::new(bench.seed);
    let devices = [(); 2].map(|()| world.add_device(bench.host, NodeConfig::default()));
    world.set_path(devices[0], devices[1], bench.path);
    let connection =
        world.connect(Instant::ZERO, devices[0], devices[1], &bench.setup).map_err(LinkBenchError::from)?;
    let mut central = End::new(Side::Central, bench, secure)?;
    let mut peripheral = End::new(Side::Peripheral, bench, secure)?;
    let size = bench.att_mtu.packet_size();
    central.link.connected(Instant::ZERO, size);
    peripheral.link.connected(Instant::ZERO, size);
    central.to_send = 1;
    let mut now = Instant::ZERO;
    // When the first byte had arrived, and the counters then.
    let mut began = None;
    while now < Instant::ZERO + RUN_MAX {
        world.handle_timeout(now);
        central.turn(now, &mut world, connection)?;
        peripheral.turn(now, &mut world, connection)?;
        if peripheral.received == 1 && began.is_none() {
            began = Some((now, central.link.stats()));
            central.to_send = bytes;
            central.turn(now, &mut world, connection)?;
        }
        if let Some((began, before)) = began
            && peripheral.received > bytes
        {
            let (sender, receiver) = (central.link.stats(), peripheral.link.stats());
            return Ok(SecureRun {
                first_byte: began.since(Instant::ZERO),
                goodput_bytes_per_s: bytes as f64 / now.since(began).as_secs_f64(),
                stream_bytes: sender.bytes_sent - before.bytes_sent,
                packets: sender.packets_sent + receiver.packets_sent,
                packet_bytes: sender.packet_bytes_sent + receiver.packet_bytes_sent,
            });
        }
        world.handle_timeout(now);
        let timers = [&central, &peripheral].into_iter().filter_map(|end| end.link.poll_at());
        now = timers.chain(world.poll_at()).filter(|at| *at > now).min().unwrap_or(now + IDLE_STEP);
    }
    Err(SecureBenchError::Stuck)
}

/// Encrypts and decrypts `bytes` in memory, in the pieces that the replicator gives; for measuring the CPU.
///
/// # Errors
/// The session fails.
pub fn seal_and_open(bytes: u64) -> Result<u64, SecureError> {
    let (config, keyring) = member(1);
    let mut active = SecureSession::active(config, &keyring, [1; 32], Instant::ZERO)?;
    let (config, keyring) = member(2);
    let mut passive = SecureSession::passive(config, keyring, [2; 32], Instant::ZERO);
    for _ in 0..2 {
        passive.handle_bytes(&active.take_output())?;
        active.handle_bytes(&passive.take_output())?;
    }
    let message = vec![0x5a; MESSAGE_BYTES];
    let mut opened = 0;
    while opened < bytes {
        active.seal(&message)?;
        passive.handle_bytes(&active.take_output())?;
        active.handle_bytes(&passive.take_output())?;
        while let Some(event) = passive.poll_event() {
            if let SecureEvent::Data(data) = event {
                opened += data.len() as u64;
            }
        }
        while active.poll_event().is_some() {}
    }
    Ok(opened)
}

/// One whole handshake of both sides in memory; for measuring the CPU.
///
/// # Errors
/// The session fails.
pub fn handshake() -> Result<(), SecureError> {
    seal_and_open(0).map(|_| ())
}

/// Messages that go over before the active side may send its first byte: two are a round trip.
///
/// # Errors
/// The session fails.
pub fn flights() -> Result<u32, SecureError> {
    let (config, keyring) = member(1);
    let mut active = SecureSession::active(config, &keyring, [1; 32], Instant::ZERO)?;
    let (config, keyring) = member(2);
    let mut passive = SecureSession::passive(config, keyring, [2; 32], Instant::ZERO);
    let mut flights = 0;
    while active.seal(b"first").is_err() {
        let (from, to) =
            if flights % 2 == 0 { (&mut active, &mut passive) } else { (&mut passive, &mut active) };
        to.handle_bytes(&from.take_output())?;
        flights += 1;
    }
    Ok(flights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_on_air_is_small_and_the_handshake_soon_over() {
        for interval_us in [7_500, 30_000, 50_000] {
            let mut bench = LinkBench::default();
            bench.setup.parameters.interval = Duration::from_micros(interval_us);
            let plain = transfer(&bench, 500_000, false).expect("plain");
            let secure = transfer(&bench, 500_000, true).expect("secure");
            let ratio = secure.goodput_bytes_per_s / plain.goodput_bytes_per_s;
            let extra = secure.first_byte.saturating_sub(plain.first_byte);
            let intervals = extra.as_micros() as f64 / interval_us as f64;
            println!("{interval_us} us: goodput {ratio:.4}, {intervals:.2} intervals, {plain:?} {secure:?}");
            assert!(ratio >= 0.95, "{ratio}");
            assert!(intervals <= 3.0, "{intervals}");
        }
    }
}
