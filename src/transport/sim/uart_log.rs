//! A log read over a UART service, as field devices are often read: the reader asks, all records come as notifications, one behind the
//! other, and after a cut it asks again and gets them from the start. On the same radio as everything else, in virtual time, so that
//! what it takes can be put beside a sync.
//!
//! `firmware-notes/radio-model.md` says what is assumed.

use std::time::Duration;

use super::host::HostConfig;
use super::radio::{ConnectionCounters, ConnectionSetup, NodeConfig, Path, RadioError, Side};
use super::world::World;
use crate::link::AttMtu;
use crate::time::Instant;

/// Bytes of the request: one, as a terminal would send it.
const REQUEST: [u8; 1] = *b"r";

/// Bytes before the records that say how many bytes follow, so that the reader knows when it has all.
const LENGTH_BYTES: usize = 4;

/// Time of a read that does not come to its end.
const LIMIT: Duration = Duration::from_secs(600);

/// Time to find the device, connect, exchange the MTU and subscribe, as for every other modelled connection.
const CONNECT_TIME: Duration = super::connection::CONNECT_TIME;

/// What is read, and over what.
#[derive(Clone, Copy, Debug)]
pub struct UartLog {
    /// The connection.
    pub setup: ConnectionSetup,
    /// ATT MTU; a notification has 3 octets less.
    pub att_mtu: AttMtu,
    /// Signal and interference.
    pub path: Path,
    /// Bytes of a record, and how many there are.
    pub record_bytes: usize,
    /// How many there are.
    pub records: usize,
    /// How long the devices are apart after a cut in the middle of the records; `None`: there is none.
    pub cut: Option<Duration>,
    /// Decides every loss.
    pub seed: u64,
}

/// What a read took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UartRead {
    /// What both ends of the radio connections did.
    pub radio: ConnectionCounters,
    /// Bytes of ATT values, both directions.
    pub bytes: u64,
    /// Until all records were there, connecting included, seconds.
    pub seconds: f64,
}

/// A read that did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UartLogError {
    /// The connection is impossible.
    #[error("the modelled connection is impossible: {0}")]
    Radio(#[from] RadioError),
    /// Not all came.
    #[error("the log was not read to its end within {} s: {received} of {expected} bytes came", LIMIT.as_secs())]
    Incomplete {
        /// Bytes that came.
        received: usize,
        /// Bytes of the log.
        expected: usize,
    },
}

impl UartLog {
    /// Reads the log once, to its end.
    ///
    /// # Errors
    /// [`UartLogError`].
    pub fn read(&self) -> Result<UartRead, UartLogError> {
        let mut world = World::new(self.seed);
        let [reader, device] =
            [(); 2].map(|()| world.add_device(HostConfig::default(), NodeConfig::default()));
        world.set_path(reader, device, self.path);
        let expected = LENGTH_BYTES + self.record_bytes * self.records;
        let mut now = Instant::ZERO + CONNECT_TIME;
        if let Some(apart) = self.cut {
            // The request has come, and half of the records have; the last of them never have.
            let half = (expected / 2).min(expected.saturating_sub(self.notification_bytes()));
            let connection = world.connect(now, reader, device, &self.setup)?;
            now = self.transfer(&mut world, connection, now, half)?;
            world.break_connections(reader, device);
            now = now + apart + CONNECT_TIME;
            world.handle_timeout(now);
        }
        let connection = world.connect(now, reader, device, &self.setup)?;
        now = self.transfer(&mut world, connection, now, expected)?;
        world.disconnect(connection, Side::Central);
        let counters = world.counters();
        let seconds = now.since(Instant::ZERO).as_secs_f64();
        Ok(UartRead { radio: counters.radio, bytes: counters.packets().bytes, seconds })
    }

    /// Asks for the log and takes it until so many bytes are there; gives when that is.
    fn transfer(
        &self,
        world: &mut World,
        connection: super::radio::ConnectionId,
        start: Instant,
        wanted: usize,
    ) -> Result<Instant, UartLogError> {
        let expected = LENGTH_BYTES + self.record_bytes * self.records;
        let (mut now, mut asked, mut sends) = (start, false, false);
        let (mut sent, mut received) = (0, 0);
        loop {
            if !asked && world.can_send(connection, Side::Central) {
                asked = world.send(now, connection, Side::Central, &REQUEST) == Some(true);
            }
            sends |= world.receive(now, connection, Side::Peripheral).is_some();
            while sends && sent < expected && world.can_send(connection, Side::Peripheral) {
                let length = self.notification_bytes().min(expected - sent);
                world.send(now, connection, Side::Peripheral, &vec![0; length]);
                sent += length;
            }
            while let Some(packet) = world.receive(now, connection, Side::Central) {
                received += packet.len();
            }
            if sends && received >= wanted {
                return Ok(now);
            }
            let next = world.poll_at().filter(|next| next.since(start) < LIMIT);
            now = next.ok_or(UartLogError::Incomplete { received, expected })?.max(now);
            world.handle_timeout(now);
        }
    }

    /// Bytes of the stream in one notification.
    fn notification_bytes(&self) -> usize {
        self.att_mtu.packet_size().bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(records: usize) -> UartLog {
        UartLog {
            setup: ConnectionSetup::default(),
            att_mtu: AttMtu::new(247),
            path: Path::default(),
            record_bytes: 100,
            records,
            cut: None,
            seed: 1,
        }
    }

    /// One request, and 104 or 2,404 bytes in notifications of up to 244.
    #[test]
    fn a_log_takes_its_bytes_and_the_request() {
        for (records, bytes, packets) in [(1, 104, 1), (24, 2_404, 10)] {
            let read = log(records).read().expect("read");
            assert_eq!(read.bytes, bytes + 1, "{records}");
            // 7 octets of headers on each, beside empty PDUs.
            assert!(read.radio.peripheral.pdus >= packets && read.radio.central.pdus >= 1, "{read:?}");
            assert!((0.15..0.5).contains(&read.seconds), "{read:?}");
        }
    }

    #[test]
    fn after_a_cut_it_is_read_from_the_start() {
        let [whole, cut] =
            [None, Some(Duration::from_secs(5))].map(|cut| UartLog { cut, ..log(24) }.read().expect("read"));
        // Two requests, and half of the records once more at least; what had been sent and had not come yet as well.
        assert!(cut.bytes >= whole.bytes + 1 + 2_404 / 2, "{} {}", cut.bytes, whole.bytes);
        assert!(cut.seconds >= whole.seconds + 5.0 && cut.radio.events > whole.radio.events);
    }

    #[test]
    fn loss_costs_transmissions_and_no_records() {
        let path = Path { loss: 0.05, ..Path::default() };
        let [clean, lossy] =
            [Path::default(), path].map(|path| UartLog { path, ..log(240) }.read().expect("read"));
        assert_eq!(clean.bytes, lossy.bytes);
        assert!(lossy.radio.total().retransmissions > clean.radio.total().retransmissions);
    }

    #[test]
    fn a_device_out_of_reach_is_an_error() {
        let path = Path { reachable: false, ..Path::default() };
        assert!(UartLog { path, ..log(1) }.read().is_err());
    }
}
