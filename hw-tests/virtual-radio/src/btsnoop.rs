//! A btsnoop log of what crosses the interface between hosts and controllers, in the "Linux monitor" format: one file for all
//! controllers. Wireshark opens it.
//!
//! Source: BlueZ `doc/btsnoop.txt`.

use std::io::{self, Write};

use crate::hci::{Address, H4_ACL, H4_COMMAND, H4_EVENT};

const MAGIC: &[u8; 8] = b"btsnoop\0";
const VERSION: u32 = 1;
const DATALINK_MONITOR: u32 = 2001;
/// Microseconds from the year 0 to 1970: the format counts from the year 0.
const EPOCH_OFFSET_US: u64 = 0x00dc_ddb3_0f2f_8000;

const OP_NEW_INDEX: u16 = 0;
const OP_COMMAND: u16 = 2;
const OP_EVENT: u16 = 3;
const OP_ACL_FROM_HOST: u16 = 4;
const OP_ACL_TO_HOST: u16 = 5;

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The host: commands, data.
    Host,
    /// The controller: events, data.
    Controller,
}

/// A log being written.
pub struct Log<W: Write> {
    out: W,
}

impl<W: Write> Log<W> {
    /// Begins a log that knows these controllers, at a Unix time in microseconds.
    ///
    /// # Errors
    /// Whatever writing gives.
    pub fn new(mut out: W, controllers: &[Address], unix_us: u64) -> io::Result<Log<W>> {
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_be_bytes())?;
        out.write_all(&DATALINK_MONITOR.to_be_bytes())?;
        let mut log = Log { out };
        for (index, address) in controllers.iter().enumerate() {
            let mut new_index = vec![0, 0]; // primary controller, on a virtual bus
            new_index.extend_from_slice(&address.0);
            let mut name = [0u8; 8];
            let text = format!("hci{index}");
            name[..text.len().min(8)].copy_from_slice(&text.as_bytes()[..text.len().min(8)]);
            new_index.extend_from_slice(&name);
            log.record(index, OP_NEW_INDEX, &new_index, unix_us)?;
        }
        Ok(log)
    }

    /// Adds a packet with its H4 type; other types than commands, events and ACL data are left out.
    ///
    /// # Errors
    /// Whatever writing gives.
    pub fn packet(&mut self, controller: usize, from: From, packet: &[u8], unix_us: u64) -> io::Result<()> {
        let [kind, body @ ..] = packet else { return Ok(()) };
        let op = match (*kind, from) {
            (H4_COMMAND, From::Host) => OP_COMMAND,
            (H4_EVENT, From::Controller) => OP_EVENT,
            (H4_ACL, From::Host) => OP_ACL_FROM_HOST,
            (H4_ACL, From::Controller) => OP_ACL_TO_HOST,
            _ => return Ok(()),
        };
        self.record(controller, op, body, unix_us)
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// Whatever writing gives.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn record(&mut self, controller: usize, op: u16, body: &[u8], unix_us: u64) -> io::Result<()> {
        let length = (body.len() as u32).to_be_bytes();
        let flags = (controller as u32) << 16 | u32::from(op);
        self.out.write_all(&length)?; // as it was
        self.out.write_all(&length)?; // as it is here: nothing is cut off
        self.out.write_all(&flags.to_be_bytes())?;
        self.out.write_all(&0u32.to_be_bytes())?; // packets dropped
        self.out.write_all(&(unix_us + EPOCH_OFFSET_US).to_be_bytes())?;
        self.out.write_all(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_the_format_says() {
        let mut bytes = Vec::new();
        let mut log = Log::new(&mut bytes, &[Address([1, 0, 0, 1, 0xaa, 0])], 0).expect("memory");
        log.packet(1, From::Controller, &[4, 0x0e, 4, 1, 3, 12, 0], 1_000_000).expect("memory");
        assert_eq!(&bytes[..16], b"btsnoop\0\0\0\0\x01\0\0\x07\xd1");
        let record = &bytes[16 + 24 + 16..];
        assert_eq!(&record[..12], [0, 0, 0, 6, 0, 0, 0, 6, 0, 1, 0, 3]);
        assert_eq!(&record[16..24], &(0x00dc_ddb3_0f2f_8000u64 + 1_000_000).to_be_bytes());
        assert_eq!(&record[24..], [0x0e, 4, 1, 3, 12, 0]);
    }
}
