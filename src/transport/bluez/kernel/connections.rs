//! Which connections a controller has.

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use super::socket::{last_error, unbound};

/// Connections that are looked at; adapters manage fewer.
const CONNECTIONS_MAX: usize = 64;
/// `HCIGETCONNLIST`: `_IOR('H', 212, int)`.
const GET_CONNECTIONS: u32 = 2 << 30 | (size_of::<i32>() as u32) << 16 | (b'H' as u32) << 8 | 212;

/// `struct hci_conn_list_req` with room for [`CONNECTIONS_MAX`] times `struct hci_conn_info`.
#[repr(C)]
struct ConnectionList {
    controller: u16,
    count: u16,
    connections: [[u32; 4]; CONNECTIONS_MAX],
}

/// `BT_CONNECTED` of the kernel's states; all others are of connections that begin or end.
const CONNECTED: u16 = 1;

/// A connection as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport::bluez) struct Connection {
    /// With whom.
    pub(in crate::transport::bluez) peer: bluer::Address,
    /// Whether it stands; else it is being made or ended.
    pub(in crate::transport::bluez) is_up: bool,
}

impl Connection {
    /// Reads `struct hci_conn_info`: handle (2 bytes), address (6), type, direction, state (2), mode (4).
    pub(super) fn read(info: [u32; 4]) -> Connection {
        let [[_, _, a, b], [c, d, e, f], [_, _, low, high], _] = info.map(u32::to_ne_bytes);
        let is_up = u16::from_ne_bytes([low, high]) == CONNECTED;
        Connection { peer: bluer::Address([f, e, d, c, b, a]), is_up }
    }
}

/// The connections of a controller, of both roles and all programs; needs no privilege and costs one system call.
#[allow(unsafe_code)] // system calls with pointers to what lives on this stack
pub(in crate::transport::bluez) fn connections(controller: u16) -> io::Result<Vec<Connection>> {
    let socket = unbound(0)?;
    let count = CONNECTIONS_MAX as u16;
    let mut list = ConnectionList { controller, count, connections: [[0; 4]; CONNECTIONS_MAX] };
    let pointer: *mut ConnectionList = &raw mut list;
    // SAFETY: the kernel writes at most as many connections as `count` says, for which there is room.
    last_error(unsafe { libc::ioctl(socket.as_raw_fd(), GET_CONNECTIONS as _, pointer) })?;
    let listed = list.connections.into_iter().take(list.count.into());
    Ok(listed.map(Connection::read).collect())
}
