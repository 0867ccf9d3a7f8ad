//! The reliable, resumable byte stream over ATT packets: `no_std`, no alloc, sans-IO, one core for both roles.
//!
//! A [`Link`] is given packets, bytes and the time, and gives packets, bytes, events and its next deadline back. It
//! survives the loss of its connection: when the driver brings another one, with another packet size or of another kind,
//! the stream goes on at the byte where it was. What it puts on the air is described in `firmware-notes/link.md`.
//!
//! Responsible for: order, completeness, flow control, life and death of the connection. Leaves to others: the radio
//! (`transport`), secrecy and identity (a [`ResumeProver`] is the only thing it takes from there), message boundaries.
//!
//! # Order of calls
//! 1. [`Link::new`], then [`Link::connected`] when a transport carries packets (as central: after subscribing).
//! 2. Whenever something happened (a packet, a timer, a write, a read), call its method, then drain: [`Link::poll_packet`]
//!    while the transport takes packets, [`Link::poll_event`] until `None`, and sleep until [`Link::poll_at`].
//! 3. [`Link::disconnected`] when the transport is gone; `connected` again with the next one.
//! 4. At a final state, drain `poll_packet` once more: the last word to the peer is there.
//!
//! No method blocks, allocates or does more work than one window of packets asks for.

mod config;
mod control;
mod ending;
mod error;
mod event;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handshake;
mod machine;
mod mtu;
mod packet;
mod prover;
mod reason;
mod receive;
mod ring;
mod round_trip;
mod send;
mod sequence;
mod takeover;
mod timers;
mod traffic;

#[cfg(test)]
mod tests;

pub use config::{
    LinkConfig, PACKETS_IN_FLIGHT_MAX, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES, VERSION_MAX, VERSION_MIN,
    WINDOW_BYTES_MAX,
};
pub use control::peek_session;
pub use error::LinkError;
pub use event::{LinkEvent, LinkRole, LinkState, LinkStats, PeerLimits, SuspendCause};
pub use machine::{Link, busy_refusal};
pub use mtu::{
    ATT_HEADER_BYTES, ATT_MTU_MAX, ATT_MTU_MIN, AttMtu, PACKET_BYTES_MAX, PACKET_BYTES_MIN,
    PACKET_BYTES_ONE_PDU, PacketSize,
};
pub use prover::{
    LinkSeed, PROOF_BYTES, PROVER_KEY_BYTES, ResumeProver, SESSION_ORIGIN_BYTES, SessionOrigin,
};
pub use reason::{CloseReason, RefuseReason, SessionId};
pub use takeover::{Takeover, TakeoverState};
