//! The kernel's own Bluetooth sockets, for what bluetoothd does not tell: management commands, and the monitor, which shows the
//! events of controllers. The only place with system calls that Rust has no safe form of.
//!
//! Source: BlueZ `doc/mgmt-api.txt` and the Linux headers `net/bluetooth/hci_sock.h`, `hci_mon.h`, as facts.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// `BTPROTO_HCI`.
const HCI: i32 = 1;
/// `HCI_DEV_NONE`: a socket for all controllers.
const NO_CONTROLLER: u16 = 0xffff;
/// `HCI_CHANNEL_MONITOR`: what goes over all controllers' interfaces. Needs CAP_NET_RAW.
const CHANNEL_MONITOR: u16 = 2;
/// `HCI_CHANNEL_CONTROL`: management commands. Some need CAP_NET_ADMIN.
const CHANNEL_CONTROL: u16 = 3;
/// Longest message of either channel that is read.
const MESSAGE_MAX: usize = 1024;
/// Limit of a management command; all that are used here are answered from the kernel's memory or with one HCI command.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Bytes before each message of both channels: a kind, a controller's number and the length of the rest, 2 bytes each.
const HEADER: usize = 6;

/// `struct sockaddr_hci`.
#[repr(C)]
struct HciAddress {
    family: u16,
    controller: u16,
    channel: u16,
}

fn last_error(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

// --------------------------------------------------------------------------------------------------------------- connections

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
pub(super) struct Connection {
    /// With whom.
    pub(super) peer: bluer::Address,
    /// Whether it stands; else it is being made or ended.
    pub(super) is_up: bool,
}

impl Connection {
    /// Reads `struct hci_conn_info`: handle (2 bytes), address (6), type, direction, state (2), mode (4).
    fn read(info: [u32; 4]) -> Connection {
        let [[_, _, a, b], [c, d, e, f], [_, _, low, high], _] = info.map(u32::to_ne_bytes);
        let is_up = u16::from_ne_bytes([low, high]) == CONNECTED;
        Connection { peer: bluer::Address([f, e, d, c, b, a]), is_up }
    }
}

/// The connections of a controller, of both roles and all programs; needs no privilege and costs one system call.
#[allow(unsafe_code)] // system calls with pointers to what lives on this stack
pub(super) fn connections(controller: u16) -> io::Result<Vec<Connection>> {
    let socket = unbound(0)?;
    let count = CONNECTIONS_MAX as u16;
    let mut list = ConnectionList { controller, count, connections: [[0; 4]; CONNECTIONS_MAX] };
    let pointer: *mut ConnectionList = &raw mut list;
    // SAFETY: the kernel writes at most as many connections as `count` says, for which there is room.
    last_error(unsafe { libc::ioctl(socket.as_raw_fd(), GET_CONNECTIONS as _, pointer) })?;
    let listed = list.connections.into_iter().take(list.count.into());
    Ok(listed.map(Connection::read).collect())
}

// -------------------------------------------------------------------------------------------------------------------- sockets

/// A raw socket of no channel yet. `flags`: besides that it is closed in programs that are started.
#[allow(unsafe_code)] // a system call
fn unbound(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw = last_error(unsafe {
        libc::socket(libc::AF_BLUETOOTH, libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags, HCI)
    })?;
    // SAFETY: the kernel has just given this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A socket of a channel. `filter`: a program that chooses the messages that are received.
#[allow(unsafe_code)] // system calls with pointers to what lives on this stack
fn open(channel: u16, filter: &[libc::sock_filter]) -> io::Result<AsyncFd<File>> {
    let socket = unbound(libc::SOCK_NONBLOCK)?;
    if !filter.is_empty() {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
        let program: *const libc::sock_fprog = &raw const program;
        // SAFETY: program and filter live until the call returns; the kernel copies them and writes to neither.
        last_error(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                program.cast(),
                length,
            )
        })?;
    }
    let address = HciAddress { family: libc::AF_BLUETOOTH as u16, controller: NO_CONTROLLER, channel };
    let length = size_of::<HciAddress>() as libc::socklen_t;
    let pointer: *const HciAddress = &raw const address;
    // SAFETY: the address has the layout of the kernel's `struct sockaddr_hci` and lives until the call returns.
    last_error(unsafe { libc::bind(socket.as_raw_fd(), pointer.cast(), length) })?;
    // SAFETY: the file owns the descriptor, which is the same until it is dropped, with the registration before it.
    Ok(unsafe { AsyncFd::register_with_interest(File::from(socket), Interest::READABLE) }?)
}

async fn receive(socket: &AsyncFd<File>, message: &mut [u8]) -> io::Result<usize> {
    socket.async_io(Interest::READABLE, |file| (&*file).read(message)).await
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

// ---------------------------------------------------------------------------------------------------------------- management

/// What the kernel says of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControllerInfo {
    /// Version of the specification, as the Link Layer numbers it.
    pub(super) version: u8,
    /// Company that made it.
    pub(super) manufacturer: u16,
    /// What it can do, a set of [`settings`].
    pub(super) supported: u32,
    /// What is on.
    pub(super) current: u32,
}

/// Bits of [`ControllerInfo::supported`].
pub(super) mod settings {
    /// Low Energy.
    pub(crate) const LE: u32 = 1 << 9;
    /// Pairing with elliptic curves.
    pub(crate) const SECURE_CONNECTIONS: u32 = 1 << 11;
    /// Addresses that change.
    pub(crate) const PRIVACY: u32 = 1 << 13;
}

/// Bits of a set of PHYs.
pub(super) mod phys {
    /// 2M, to send and to receive.
    pub(crate) const LE_2M: u32 = 1 << 11 | 1 << 12;
    /// Coded, to send and to receive.
    pub(crate) const LE_CODED: u32 = 1 << 13 | 1 << 14;
}

const READ_INFO: u16 = 0x0004;
const GET_CONNECTION_INFO: u16 = 0x0031;
const GET_PHY_CONFIGURATION: u16 = 0x0044;
const COMMAND_COMPLETE: u16 = 1;
const COMMAND_STATUS: u16 = 2;
/// Status that says that the caller may not.
const PERMISSION_DENIED: u8 = 0x14;
/// A signal strength or power that is not known.
const NOT_KNOWN: i8 = 127;

/// Number of the controller with this name: 0 for `hci0`.
pub(super) fn controller_number(adapter: &str) -> Option<u16> {
    adapter.strip_prefix("hci")?.parse().ok()
}

/// Reads what a controller is; needs no privilege.
pub(super) async fn controller_info(controller: u16) -> io::Result<ControllerInfo> {
    let answer = manage(READ_INFO, controller, &[]).await?;
    let info = || {
        Some(ControllerInfo {
            version: *answer.get(6)?,
            manufacturer: u16_at(&answer, 7)?,
            supported: u32_at(&answer, 9)?,
            current: u32_at(&answer, 13)?,
        })
    };
    info().ok_or_else(too_short)
}

/// The PHYs that a controller has, and those that it uses, as sets of [`phys`]; needs CAP_NET_ADMIN.
pub(super) async fn phy_configuration(controller: u16) -> io::Result<(u32, u32)> {
    let answer = manage(GET_PHY_CONFIGURATION, controller, &[]).await?;
    u32_at(&answer, 0).zip(u32_at(&answer, 8)).ok_or_else(too_short)
}

/// Signal strength of a connected LE device in dBm, not older than about 3 s; needs CAP_NET_ADMIN.
pub(super) async fn connection_rssi(
    controller: u16,
    peer: bluer::Address,
    random: bool,
) -> io::Result<Option<i8>> {
    let mut parameters: Vec<u8> = peer.0.iter().rev().copied().collect();
    parameters.push(if random { 2 } else { 1 });
    let answer = manage(GET_CONNECTION_INFO, controller, &parameters).await?;
    let rssi = *answer.get(7).ok_or_else(too_short)? as i8;
    Ok((rssi != NOT_KNOWN).then_some(rssi))
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a short answer of the kernel's Bluetooth management")
}

/// One management command and the parameters of its answer.
async fn manage(command: u16, controller: u16, parameters: &[u8]) -> io::Result<Vec<u8>> {
    let socket = open(CHANNEL_CONTROL, &[])?;
    let mut message = Vec::with_capacity(HEADER + parameters.len());
    for word in [command, controller, parameters.len() as u16] {
        message.extend(word.to_le_bytes());
    }
    message.extend(parameters);
    // Taken whole or not at all.
    socket.get_ref().write_all(&message)?;
    let answer = async {
        let mut event = [0; MESSAGE_MAX];
        loop {
            let length = receive(&socket, &mut event).await?;
            if let Some(answer) = answer_to(command, controller, &event[..length]) {
                return answer;
            }
        }
    };
    let late =
        || io::Error::new(io::ErrorKind::TimedOut, "the kernel's Bluetooth management does not answer");
    timeout(ANSWER_LIMIT, answer).await.map_err(|_| late())?
}

/// The answer in an event; `None`: it is about something else.
fn answer_to(command: u16, controller: u16, event: &[u8]) -> Option<io::Result<Vec<u8>>> {
    let (kind, number) = (u16_at(event, 0)?, u16_at(event, 2)?);
    if !matches!(kind, COMMAND_COMPLETE | COMMAND_STATUS)
        || number != controller
        || u16_at(event, 6)? != command
    {
        return None;
    }
    Some(match event.get(8)? {
        0 => Ok(event.get(9..).unwrap_or_default().to_vec()),
        &PERMISSION_DENIED => Err(io::ErrorKind::PermissionDenied.into()),
        status => Err(io::Error::other(format!("the kernel's Bluetooth management says {status:#04x}"))),
    })
}

// ------------------------------------------------------------------------------------------------------------------- monitor

/// Monitor message: an event of a controller.
const MONITOR_EVENT: u8 = 3;
const DISCONNECTION: u8 = 0x05;
const LE_META: u8 = 0x3e;
/// LE subevents: connection, update of its parameters, data length, enhanced connection, PHY.
const SUBEVENTS: [u8; 5] = [0x01, 0x03, 0x07, 0x0a, 0x0c];

/// What a controller told about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionEvent {
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
pub(super) struct Monitor(AsyncFd<File>);

impl Monitor {
    /// Listens from now on.
    ///
    /// # Errors
    /// No permission: it needs CAP_NET_RAW, as root has.
    pub(super) fn open() -> io::Result<Monitor> {
        open(CHANNEL_MONITOR, &monitor_filter()).map(Monitor)
    }

    /// The next event: controller, connection handle, what happened.
    pub(super) async fn next(&self) -> io::Result<(u16, u16, ConnectionEvent)> {
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
fn monitor_filter() -> Vec<libc::sock_filter> {
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

fn parse(message: &[u8]) -> Option<(u16, u16, ConnectionEvent)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether the filter lets a message through, by its rules.
    fn passes(message: &[u8]) -> bool {
        let program = monitor_filter();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                0x30 => match message.get(step.k as usize) {
                    Some(byte) => accumulator = u32::from(*byte),
                    None => return false,
                },
                0x15 => at += usize::from(if accumulator == step.k { step.jt } else { step.jf }),
                _ => return step.k > 0,
            }
        }
    }

    fn message(event: &[u8]) -> Vec<u8> {
        let mut message = vec![3, 0, 1, 0, event.len() as u8, 0];
        message.extend(event);
        message
    }

    #[test]
    fn events_of_connections_are_read_and_pass_the_filter() {
        let peer = bluer::Address([0xcc, 0xbb, 0xaa, 3, 2, 1]);
        let connected =
            |interval, latency, timeout| ConnectionEvent::Connected { peer, interval, latency, timeout };
        let legacy = [0x3e, 19, 0x01, 0, 0x40, 0, 0, 0, 1, 2, 3, 0xaa, 0xbb, 0xcc, 12, 0, 1, 0, 200, 0, 0];
        let mut enhanced = legacy.to_vec();
        enhanced[2] = 0x0a;
        enhanced.splice(14..14, [0; 12]);
        let cases: [(&[u8], ConnectionEvent); 6] = [
            (&legacy, connected(12, 1, 200)),
            (&enhanced, connected(12, 1, 200)),
            (
                &[0x3e, 10, 0x03, 0, 0x40, 0, 24, 0, 0, 0, 42, 0],
                ConnectionEvent::Updated { interval: 24, latency: 0, timeout: 42 },
            ),
            (
                &[0x3e, 11, 0x07, 0x40, 0, 251, 0, 0x48, 8, 27, 0, 0x48, 1],
                ConnectionEvent::DataLength { sent: 251, received: 27 },
            ),
            (&[0x3e, 6, 0x0c, 0, 0x40, 0, 2, 1], ConnectionEvent::Phy { sent: 2, received: 1 }),
            (&[0x05, 4, 0, 0x40, 0, 0x13], ConnectionEvent::Disconnected),
        ];
        for (event, expected) in cases {
            let message = message(event);
            assert!(passes(&message), "{expected:?}");
            assert_eq!(parse(&message), Some((1, 0x40, expected)));
        }
        let advert = message(&[0x3e, 3, 0x0d, 0, 0]);
        let completed = message(&[0x13, 5, 1, 0x40, 0, 1, 0]);
        let mut data = message(&[0x05, 4, 0, 0x40, 0, 0x13]);
        data[0] = 4;
        assert!(![advert, completed, data].iter().any(|message| passes(message)));
    }

    #[test]
    fn connections_of_the_kernels_list_are_read() {
        let info = |handle: u16, state: u16| {
            let mut bytes = handle.to_ne_bytes().to_vec();
            bytes.extend([6, 5, 4, 3, 2, 1, 0x80, 1]);
            bytes.extend(state.to_ne_bytes());
            bytes.extend([0; 4]);
            let mut words =
                bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            std::array::from_fn(|_| words.next().unwrap_or_default())
        };
        let peer = bluer::Address([1, 2, 3, 4, 5, 6]);
        assert_eq!(Connection::read(info(1, 1)), Connection { peer, is_up: true });
        assert_eq!(Connection::read(info(0xffff, 5)), Connection { peer, is_up: false });
    }

    #[test]
    fn answers_are_told_from_other_events() {
        let answer = |status: u8| [1, 0, 0, 0, 5, 0, 0x44, 0, status, 7, 8];
        assert_eq!(answer_to(0x44, 0, &answer(0)).map(|a| a.ok()), Some(Some(vec![7, 8])));
        let denied = answer_to(0x44, 0, &answer(PERMISSION_DENIED)).map(|a| a.map_err(|e| e.kind()));
        assert_eq!(denied, Some(Err(io::ErrorKind::PermissionDenied)));
        assert!(answer_to(0x45, 0, &answer(0)).is_none() && answer_to(0x44, 1, &answer(0)).is_none());
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_panic(message: Vec<u8>) {
            let _ = parse(&message);
            let _ = answer_to(4, 0, &message);
        }
    }
}
