//! Events as packets, ready for the host.

use super::wire::Writer;
use super::{H4_ACL, H4_EVENT, PeerAddress};

/// Meta event codes.
pub mod meta {
    /// LE Connection Complete.
    pub const CONNECTION_COMPLETE: u8 = 0x01;
    /// LE Advertising Report.
    pub const ADVERTISING_REPORT: u8 = 0x02;
    /// LE Connection Update Complete.
    pub const CONNECTION_UPDATE_COMPLETE: u8 = 0x03;
    /// LE Read Remote Features Complete.
    pub const REMOTE_FEATURES_COMPLETE: u8 = 0x04;
    /// LE Long Term Key Request.
    pub const LTK_REQUEST: u8 = 0x05;
    /// LE Data Length Change.
    pub const DATA_LENGTH_CHANGE: u8 = 0x07;
    /// LE Enhanced Connection Complete.
    pub const ENHANCED_CONNECTION_COMPLETE: u8 = 0x0a;
    /// LE PHY Update Complete.
    pub const PHY_UPDATE_COMPLETE: u8 = 0x0c;
    /// LE Extended Advertising Report.
    pub const EXTENDED_ADVERTISING_REPORT: u8 = 0x0d;
    /// LE Advertising Set Terminated.
    pub const ADVERTISING_SET_TERMINATED: u8 = 0x12;
}

const DISCONNECTION_COMPLETE: u8 = 0x05;
const ENCRYPTION_CHANGE: u8 = 0x08;
const REMOTE_VERSION_COMPLETE: u8 = 0x0c;
const COMMAND_COMPLETE: u8 = 0x0e;
const COMMAND_STATUS: u8 = 0x0f;
const NUMBER_OF_COMPLETED_PACKETS: u8 = 0x13;
const DATA_BUFFER_OVERFLOW: u8 = 0x1a;
const ENCRYPTION_KEY_REFRESH_COMPLETE: u8 = 0x30;
const LE_META: u8 = 0x3e;

/// Commands a host may send before it gets an answer.
const COMMANDS_ALLOWED: u8 = 1;
/// Core 5.2, for local and remote version information.
pub const VERSION_5_2: u8 = 0x0b;
/// Company "not assigned to anybody": internal use.
pub const COMPANY_INTERNAL: u16 = 0xffff;

fn event(code: u8, parameters: &[u8]) -> Vec<u8> {
    debug_assert!(parameters.len() <= 255, "an event carries at most 255 octets");
    Writer::new().u8(H4_EVENT).u8(code).u8(parameters.len() as u8).bytes(parameters).0
}

/// An LE meta event.
pub fn le_meta(subevent: u8, parameters: &[u8]) -> Vec<u8> {
    event(LE_META, &Writer::new().u8(subevent).bytes(parameters).0)
}

/// Answer of a command that is done.
pub fn command_complete(opcode: u16, returned: &[u8]) -> Vec<u8> {
    event(COMMAND_COMPLETE, &Writer::new().u8(COMMANDS_ALLOWED).u16(opcode).bytes(returned).0)
}

/// Answer of a command whose result comes later, or that was refused.
pub fn command_status(opcode: u16, status: u8) -> Vec<u8> {
    event(COMMAND_STATUS, &Writer::new().u8(status).u8(COMMANDS_ALLOWED).u16(opcode).0)
}

/// The connection has ended.
pub fn disconnection_complete(handle: u16, reason: u8) -> Vec<u8> {
    event(DISCONNECTION_COMPLETE, &Writer::new().u8(0).u16(handle).u8(reason).0)
}

/// Encryption is on, or could not be started (`status`).
pub fn encryption_change(status: u8, handle: u16) -> Vec<u8> {
    event(ENCRYPTION_CHANGE, &Writer::new().u8(status).u16(handle).u8(u8::from(status == 0)).0)
}

/// Encryption was on and is on with a new key.
pub fn encryption_key_refresh(handle: u16) -> Vec<u8> {
    event(ENCRYPTION_KEY_REFRESH_COMPLETE, &Writer::new().u8(0).u16(handle).0)
}

/// What the peer's controller is.
pub fn remote_version(handle: u16) -> Vec<u8> {
    event(
        REMOTE_VERSION_COMPLETE,
        &Writer::new().u8(0).u16(handle).u8(VERSION_5_2).u16(COMPANY_INTERNAL).u16(0).0,
    )
}

/// Buffers that are free again.
pub fn completed_packets(handle: u16, count: u16) -> Vec<u8> {
    event(NUMBER_OF_COMPLETED_PACKETS, &Writer::new().u8(1).u16(handle).u16(count).0)
}

/// The host has sent more than there were buffers for.
pub fn data_buffer_overflow() -> Vec<u8> {
    const LINK_TYPE_ACL: u8 = 1;
    event(DATA_BUFFER_OVERFLOW, &[LINK_TYPE_ACL])
}

/// What a Connection Complete tells.
#[derive(Clone, Copy, Debug)]
pub struct Connected {
    /// 0, or why there is no connection.
    pub status: u8,
    /// The new handle.
    pub handle: u16,
    /// 0 central, 1 peripheral.
    pub role: u8,
    /// The other side.
    pub peer: PeerAddress,
    /// Units of 1.25 ms.
    pub interval: u16,
    /// Events.
    pub latency: u16,
    /// Units of 10 ms.
    pub timeout: u16,
}

impl Connected {
    /// As the enhanced event (with resolvable addresses, none here) or the plain one.
    pub fn packet(&self, enhanced: bool) -> Vec<u8> {
        let head = Writer::new().u8(self.status).u16(self.handle).u8(self.role).peer(self.peer);
        let head = if enhanced { head.bytes(&[0; 12]) } else { head };
        let all = head.u16(self.interval).u16(self.latency).u16(self.timeout).u8(0).0;
        le_meta(if enhanced { meta::ENHANCED_CONNECTION_COMPLETE } else { meta::CONNECTION_COMPLETE }, &all)
    }
}

/// ACL data for the host.
pub fn acl(handle: u16, start: bool, payload: &[u8]) -> Vec<u8> {
    const FIRST_FLUSHABLE: u16 = 0x2000;
    const CONTINUING: u16 = 0x1000;
    let handle = handle | if start { FIRST_FLUSHABLE } else { CONTINUING };
    Writer::new().u8(H4_ACL).u16(handle).u16(payload.len() as u16).bytes(payload).0
}
