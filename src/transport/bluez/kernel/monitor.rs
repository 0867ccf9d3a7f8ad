//! The monitor: events of all controllers.

use std::fs::File;
use std::io;

use tokio::io::unix::AsyncFd;

use super::socket::{CHANNEL_MONITOR, HEADER, MESSAGE_MAX, open, receive, u16_at};

/// Monitor message: an event of a controller.
const MONITOR_EVENT: u8 = 3;
const DISCONNECTION: u8 = 0x05;
const LE_META: u8 = 0x3e;
/// LE subevents: connection, update of its parameters, data length, enhanced connection, PHY.
const SUBEVENTS: [u8; 5] = [0x01, 0x03, 0x07, 0x0a, 0x0c];

/// What a controller told about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport::bluez) enum ConnectionEvent {
    /// A new one, with its connection interval in units of 1.25 ms and supervision timeout in units of 10 ms.
    Connected { peer: bluer::Address, interval: u16, latency: u16, timeout: u16 },
    /// Its parameters have changed.
    Updated { interval: u16, latency: u16, timeout: u16 },
    /// Octets of a data PDU, sent and received.
    DataLength { sent: u16, received: u16 },
    /// PHYs, sent and received: 1, 2, or 3 for coded.
    Phy { sent: u8, received: u8 },
    /// It is over.
    Disconnected,
}

/// Events of all controllers that are about connections; no data passes.
pub(in crate::transport::bluez) struct Monitor(AsyncFd<File>);

impl Monitor {
    /// Listens from now on.
    ///
    /// # Errors
    /// No permission: it needs CAP_NET_RAW, as root has.
    pub(in crate::transport::bluez) fn open() -> io::Result<Monitor> {
        open(CHANNEL_MONITOR, &monitor_filter()).map(Monitor)
    }

    /// The next event: controller, connection handle, what happened.
    pub(in crate::transport::bluez) async fn next(&self) -> io::Result<(u16, u16, ConnectionEvent)> {
        let mut message = [0; MESSAGE_MAX];
        loop {
            let length = receive(&self.0, &mut message).await?;
            if let Some(event) = parse(&message[..length]) {
                return Ok(event);
            }
        }
    }
}

/// Lets through what [`parse`] knows, so that the data of busy connections wakes nobody here.
pub(super) fn monitor_filter() -> Vec<libc::sock_filter> {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let load = |at: u32| libc::sock_filter { code: LOAD_BYTE, jt: 0, jf: 0, k: at };
    let equal = |value: u8, jt: u8, jf: u8| libc::sock_filter { code: JUMP_EQUAL, jt, jf, k: value.into() };
    let give = |k: u32| libc::sock_filter { code: RETURN, jt: 0, jf: 0, k };
    let subevents = SUBEVENTS.len() as u8;
    let mut program = vec![
        load(0),
        equal(MONITOR_EVENT, 0, subevents + 4),
        load(HEADER as u32),
        equal(DISCONNECTION, subevents + 3, 0),
        equal(LE_META, 0, subevents + 1),
        load(HEADER as u32 + 2),
    ];
    program.extend((0..subevents).map(|i| equal(SUBEVENTS[usize::from(i)], subevents - i, 0)));
    program.extend([give(0), give(MESSAGE_MAX as u32)]);
    program
}

pub(super) fn parse(message: &[u8]) -> Option<(u16, u16, ConnectionEvent)> {
    let controller = u16_at(message, 2)?;
    let event = message.get(HEADER..)?;
    let parameters = event.get(2..)?;
    if message[0] != MONITOR_EVENT {
        return None;
    }
    if event[0] == DISCONNECTION {
        return Some((controller, u16_at(parameters, 1)?, ConnectionEvent::Disconnected));
    }
    if event[0] != LE_META {
        return None;
    }
    let subevent = *parameters.first()?;
    let succeeded = *parameters.get(1)? == 0;
    let timing =
        |at| Some((u16_at(parameters, at)?, u16_at(parameters, at + 2)?, u16_at(parameters, at + 4)?));
    let (handle, what) = match subevent {
        0x01 | 0x0a if succeeded => {
            let mut address: [u8; 6] = parameters.get(6..12)?.try_into().ok()?;
            address.reverse();
            let (interval, latency, timeout) = timing(if subevent == 0x01 { 12 } else { 24 })?;
            let connected =
                ConnectionEvent::Connected { peer: bluer::Address(address), interval, latency, timeout };
            (u16_at(parameters, 2)?, connected)
        }
        0x03 if succeeded => {
            let (interval, latency, timeout) = timing(4)?;
            (u16_at(parameters, 2)?, ConnectionEvent::Updated { interval, latency, timeout })
        }
        // has no status
        0x07 => {
            let (sent, received) = (u16_at(parameters, 3)?, u16_at(parameters, 7)?);
            (u16_at(parameters, 1)?, ConnectionEvent::DataLength { sent, received })
        }
        0x0c if succeeded => {
            let phy = ConnectionEvent::Phy { sent: *parameters.get(4)?, received: *parameters.get(5)? };
            (u16_at(parameters, 2)?, phy)
        }
        _ => return None,
    };
    Some((controller, handle, what))
}
