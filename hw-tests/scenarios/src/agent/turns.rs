//! One channel for raw packets and for a session, in turns: what is compared goes over one connection, seconds apart.
//!
//! The first byte of a packet tells whose it is: the raw ones begin with bytes that the link does not use.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use gattway::lab::transport::packet::{Connector, PacketChannel, PacketSink, PacketSource};

use super::raw;

/// Packets kept for the user whose turn it is not; more are dropped, as a radio may.
const KEPT_MAX: usize = 256;

/// Who may use the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Packets without any protocol.
    Raw,
    /// The session.
    Session,
}

/// A channel with two users.
#[derive(Clone)]
pub struct Turns {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    channel: PacketChannel,
    turn: User,
    /// A packet for the other user is his turn too.
    follows: bool,
    lost: bool,
    raw: Waiting,
    session: Waiting,
}

/// What a user has missed, and its tasks.
#[derive(Default)]
struct Waiting {
    packets: VecDeque<Vec<u8>>,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

impl Waiting {
    fn wake(&mut self) {
        self.receiver.take().into_iter().chain(self.sender.take()).for_each(Waker::wake);
    }
}

impl Shared {
    fn waiting(&mut self, user: User) -> &mut Waiting {
        match user {
            User::Raw => &mut self.raw,
            User::Session => &mut self.session,
        }
    }
}

impl Turns {
    /// Splits a channel: the raw user's, whose turn it is, and the session's. If it `follows`, the peer decides whose turn it is,
    /// by what it sends.
    pub fn split(channel: PacketChannel, follows: bool) -> (Turns, PacketChannel, PacketChannel) {
        let (size, label) = (channel.size, channel.label.clone());
        let (raw, session) = (Waiting::default(), Waiting::default());
        let shared = Shared { channel, turn: User::Raw, follows, lost: false, raw, session };
        let turns = Turns { shared: Arc::new(Mutex::new(shared)) };
        let half = |user| {
            let end = |ends| Box::new(Half { turns: turns.clone(), user, ends });
            PacketChannel::of_size(end(false), end(true), size, label.clone())
        };
        let halves = (half(User::Raw), half(User::Session));
        (turns, halves.0, halves.1)
    }

    /// Gives the channel to one of the two.
    pub fn give(&self, user: User) {
        let mut shared = self.lock();
        shared.turn = user;
        shared.waiting(user).wake();
    }

    /// No change under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One user's end.
struct Half {
    turns: Turns,
    user: User,
    /// Dropping it gives the channel to the other user, so that he learns of its end.
    ends: bool,
}

impl Drop for Half {
    fn drop(&mut self) {
        if self.ends {
            self.turns.give(if self.user == User::Raw { User::Session } else { User::Raw });
        }
    }
}

impl PacketSink for Half {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        let mut shared = self.turns.lock();
        let may = shared.turn == self.user || shared.lost;
        let sent = if may { shared.channel.sink.poll_send(cx, packet) } else { Poll::Pending };
        if sent.is_pending() {
            keep(&mut shared.waiting(self.user).sender, cx);
        }
        sent
    }
}

impl PacketSource for Half {
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut shared = self.turns.lock();
        if let Some(kept) = shared.waiting(self.user).packets.pop_front() {
            let length = kept.len().min(packet.len());
            packet[..length].copy_from_slice(&kept[..length]);
            return Poll::Ready(Ok(length));
        }
        loop {
            if shared.lost {
                return Poll::Ready(Ok(0));
            }
            let received = if shared.turn == self.user {
                shared.channel.source.poll_recv(cx, packet)
            } else {
                Poll::Pending
            };
            let length = match received {
                Poll::Pending => {
                    keep(&mut shared.waiting(self.user).receiver, cx);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(length)) if length > 0 => length,
                Poll::Ready(lost) => {
                    shared.lost = true;
                    shared.raw.wake();
                    shared.session.wake();
                    return Poll::Ready(lost);
                }
            };
            let owner = if raw::is_raw(&packet[..length]) { User::Raw } else { User::Session };
            if owner == self.user {
                return Poll::Ready(Ok(length));
            }
            let other = shared.waiting(owner);
            if other.packets.len() < KEPT_MAX {
                other.packets.push_back(packet[..length].to_vec());
            }
            if shared.follows {
                shared.turn = owner;
                shared.waiting(owner).wake();
            }
        }
    }
}

/// The channel knows the task that asked last: each user is woken when his turn comes.
fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// Gives a channel that is there, once.
pub struct Once(Mutex<Option<PacketChannel>>);

impl Once {
    /// Of this channel.
    pub fn new(channel: PacketChannel) -> Arc<Once> {
        Arc::new(Once(Mutex::new(Some(channel))))
    }
}

#[async_trait]
impl Connector for Once {
    async fn connect(&self) -> io::Result<PacketChannel> {
        let channel = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        channel.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the channel was used up"))
    }
}
