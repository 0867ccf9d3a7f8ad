//! A second connection that asks for a session while the present one still stands: most often the central has lost the
//! connection and came back before this side noticed, but anybody who has overheard the session's name can ask.
//!
//! So the present connection stays until the other one has given its proof. Meanwhile nothing of the link changes; WELCOME
//! says where the stream is at that moment. A central that proves itself has nothing more to say on the connection before,
//! so the stream is still there when the proof comes; if it is not, the takeover is dropped and the central asks again.

use core::fmt;

use super::control::{Inbox, Kind, Message, Outbox};
use super::error::LinkError;
use super::handshake::same;
use super::machine::{Link, Welcoming};
use super::mtu::PacketSize;
use super::packet::Packet;
use crate::time::Instant;

/// How a takeover stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeoverState {
    /// More has to come.
    Undecided,
    /// The proof is good: [`Link::take_over`] gives the session to this connection.
    Won,
    /// It is not the central of this session, or not one of ours: drop the connection.
    Lost,
}

/// A connection that has not proven to belong to the session that it asks for.
pub struct Takeover {
    own: PacketSize,
    size: usize,
    inbox: Inbox,
    outbox: Outbox,
    offer: Option<Offer>,
}

/// What WELCOME has said.
struct Offer {
    welcoming: Welcoming,
    /// Bytes of the central's stream that had arrived then.
    arrived: u64,
}

impl Takeover {
    /// Writes the next packet to be sent into `out`, as [`Link::poll_packet`] does.
    pub fn poll_packet(&mut self, out: &mut [u8]) -> Option<usize> {
        if out.len() < self.own.bytes() { None } else { self.outbox.poll(out, self.size) }
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeover").field("welcomed", &self.offer.is_some()).finish_non_exhaustive()
    }
}

impl<const TX: usize, const RX: usize> Link<TX, RX> {
    /// Peripheral: another connection, which carries packets of up to `size` bytes, asks for this session.
    pub fn takeover(&self, size: PacketSize) -> Takeover {
        let own = self.own_size(size);
        Takeover { own, size: own.bytes(), inbox: Inbox::default(), outbox: Outbox::default(), offer: None }
    }

    /// A packet has arrived on the connection of a takeover. After it, drain [`Takeover::poll_packet`].
    pub fn receive_takeover(&mut self, takeover: &mut Takeover, packet: &[u8]) -> TakeoverState {
        // Data may overtake CONFIRM; the central sends it again.
        let Ok(Packet::Control { kind, piece, length, chunk }) = Packet::parse(packet, takeover.size) else {
            return if takeover.offer.is_some() { TakeoverState::Undecided } else { TakeoverState::Lost };
        };
        let message = match takeover.inbox.take(kind, piece, length, chunk) {
            Ok(None) => return TakeoverState::Undecided,
            Ok(Some((kind, bytes))) => Message::decode(kind, &bytes).map(|message| (message, bytes)),
            Err(error) => Err(error),
        };
        match message {
            Ok((Message::Hello(hello), bytes)) => {
                if takeover.offer.as_ref().is_some_and(|offer| offer.welcoming.nonce == hello.nonce) {
                    takeover.outbox.again();
                    return TakeoverState::Undecided;
                }
                match self.offer(takeover, hello, &bytes) {
                    Ok(()) => TakeoverState::Undecided,
                    Err(_) => TakeoverState::Lost,
                }
            }
            Ok((Message::Confirm(confirm), _)) => {
                let expected = takeover.offer.as_ref().and_then(|offer| offer.welcoming.resume);
                let proven =
                    expected.is_some_and(|(_, expected)| same(&confirm.proof.unwrap_or_default(), &expected));
                if proven { TakeoverState::Won } else { TakeoverState::Lost }
            }
            _ => TakeoverState::Lost,
        }
    }

    fn offer(
        &mut self,
        takeover: &mut Takeover,
        hello: super::control::Hello,
        bytes: &[u8],
    ) -> Result<(), LinkError> {
        let session = self.session_id().filter(|session| hello.session == Some(*session));
        let session = session.ok_or(LinkError::ResumeProof)?;
        let size = hello.parameters.agree(takeover.own)?;
        let (welcome, welcoming) = self.resumed_welcome(&hello, bytes, takeover.own, size, session)?;
        takeover.outbox.put(Kind::Welcome, welcome);
        takeover.size = size.bytes();
        takeover.offer = Some(Offer { welcoming, arrived: self.receive.arrived() });
        Ok(())
    }

    /// The session goes on over the connection of a takeover that has [won](TakeoverState::Won); the one before is over. False
    /// if the stream has gone on since: then that one is over as well, and the central has to ask again.
    pub fn take_over(&mut self, now: Instant, takeover: Takeover) -> bool {
        let Some(Offer { welcoming, arrived }) = takeover.offer else { return false };
        if self.state().is_final() {
            return false;
        }
        if arrived != self.receive.arrived() {
            self.disconnected(now);
            return false;
        }
        self.connected(now, takeover.own);
        self.transport.size = welcoming.size.bytes();
        self.phase = super::machine::Phase::Welcoming(welcoming);
        match self.enter(now) {
            Ok(()) => {
                self.receive.make_due();
                true
            }
            Err(error) => {
                self.break_off(now, error);
                false
            }
        }
    }
}
