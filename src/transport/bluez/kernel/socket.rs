//! Raw sockets of the kernel's Bluetooth.

use std::fs::File;
use std::io::{self, Read};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `BTPROTO_HCI`.
const HCI: i32 = 1;
/// `HCI_DEV_NONE`: a socket for all controllers.
const NO_CONTROLLER: u16 = 0xffff;
/// `HCI_CHANNEL_MONITOR`: what goes over all controllers' interfaces. Needs CAP_NET_RAW.
pub(super) const CHANNEL_MONITOR: u16 = 2;
/// `HCI_CHANNEL_CONTROL`: management commands. Some need CAP_NET_ADMIN.
pub(super) const CHANNEL_CONTROL: u16 = 3;
/// Longest message of either channel that is read.
pub(super) const MESSAGE_MAX: usize = 1024;
/// Bytes before each message of both channels: a kind, a controller's number and the length of the rest, 2 bytes each.
pub(super) const HEADER: usize = 6;

/// `struct sockaddr_hci`.
#[repr(C)]
struct HciAddress {
    family: u16,
    controller: u16,
    channel: u16,
}

pub(super) fn last_error(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A raw socket of no channel yet. `flags`: besides that it is closed in programs that are started.
#[allow(unsafe_code)] // a system call
pub(super) fn unbound(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw = last_error(unsafe {
        libc::socket(libc::AF_BLUETOOTH, libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags, HCI)
    })?;
    // SAFETY: the kernel has just given this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A socket of a channel. `filter`: a program that chooses the messages that are received.
#[allow(unsafe_code)] // system calls with pointers to what lives on this stack
pub(super) fn open(channel: u16, filter: &[libc::sock_filter]) -> io::Result<AsyncFd<File>> {
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

pub(super) async fn receive(socket: &AsyncFd<File>, message: &mut [u8]) -> io::Result<usize> {
    socket.async_io(Interest::READABLE, |file| (&*file).read(message)).await
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
