//! Management commands: what a controller is, and what it knows of its connections.

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::timeout;

use super::socket::{CHANNEL_CONTROL, HEADER, MESSAGE_MAX, open, receive, u16_at, u32_at};

/// Limit of a management command; all that are used here are answered from the kernel's memory or with one HCI command.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What the kernel says of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport::bluez) struct ControllerInfo {
    /// Version of the specification, as the Link Layer numbers it.
    pub(in crate::transport::bluez) version: u8,
    /// Company that made it.
    pub(in crate::transport::bluez) manufacturer: u16,
    /// What it can do, a set of [`settings`].
    pub(in crate::transport::bluez) supported: u32,
    /// What is on.
    pub(in crate::transport::bluez) current: u32,
}

/// Bits of [`ControllerInfo::supported`].
pub(in crate::transport::bluez) mod settings {
    /// Low Energy.
    pub(crate) const LE: u32 = 1 << 9;
    /// Pairing with elliptic curves.
    pub(crate) const SECURE_CONNECTIONS: u32 = 1 << 11;
    /// Addresses that change.
    pub(crate) const PRIVACY: u32 = 1 << 13;
}

/// Bits of a set of PHYs.
pub(in crate::transport::bluez) mod phys {
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
pub(super) const PERMISSION_DENIED: u8 = 0x14;
/// A signal strength or power that is not known.
const NOT_KNOWN: i8 = 127;

/// Number of the controller with this name: 0 for `hci0`.
pub(in crate::transport::bluez) fn controller_number(adapter: &str) -> Option<u16> {
    adapter.strip_prefix("hci")?.parse().ok()
}

/// Reads what a controller is; needs no privilege.
pub(in crate::transport::bluez) async fn controller_info(controller: u16) -> io::Result<ControllerInfo> {
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
pub(in crate::transport::bluez) async fn phy_configuration(controller: u16) -> io::Result<(u32, u32)> {
    let answer = manage(GET_PHY_CONFIGURATION, controller, &[]).await?;
    u32_at(&answer, 0).zip(u32_at(&answer, 8)).ok_or_else(too_short)
}

/// Signal strength of a connected LE device in dBm, not older than about 3 s; needs CAP_NET_ADMIN.
pub(in crate::transport::bluez) async fn connection_rssi(
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
pub(super) fn answer_to(command: u16, controller: u16, event: &[u8]) -> Option<io::Result<Vec<u8>>> {
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
