//! Channels that ask for a session while another one carries it: each proves over its own that it belongs to the session,
//! and only the one that has done so replaces the present one.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::timeout_at;
use tracing::debug;

use super::arrival::{Arrival, PACKET_ROOM};
use super::shared::Shared;
use crate::link::{Takeover, TakeoverState};
use crate::transport::packet::PacketChannel;

/// Channels that may try to take over a session at one time; for one more, the oldest gives way.
const TAKEOVERS_MAX: usize = 4;

/// A channel that has proven to belong to the session.
pub(super) struct TakenOver {
    pub(super) channel: PacketChannel,
    pub(super) takeover: Box<Takeover>,
}

/// Channels that try to take over the session.
#[derive(Default)]
pub(super) struct Takeovers {
    running: VecDeque<Pin<Box<dyn Future<Output = Option<TakenOver>> + Send>>>,
}

impl Takeovers {
    pub(super) fn begin(&mut self, shared: &Arc<Shared>, arrival: Arrival) {
        if self.running.len() >= TAKEOVERS_MAX {
            self.running.pop_front();
        }
        self.running.push_back(Box::pin(try_takeover(Arc::clone(shared), arrival)));
    }

    /// Ready when one has won; pending without any.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TakenOver> {
        let mut at = 0;
        while let Some(attempt) = self.running.get_mut(at) {
            match attempt.as_mut().poll(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(result) => {
                    drop(self.running.remove(at));
                    if let Some(taken_over) = result {
                        return Poll::Ready(taken_over);
                    }
                }
            }
        }
        Poll::Pending
    }
}

/// Lets a channel prove that it belongs to the session, within the time of a handshake, while another is in use.
async fn try_takeover(shared: Arc<Shared>, arrival: Arrival) -> Option<TakenOver> {
    let Arrival { mut channel, first_packet } = arrival;
    let clock = shared.config.clock;
    let limit = clock.to_tokio(clock.now() + shared.config.link.handshake_timeout);
    let mut takeover = shared.lock().link.takeover(channel.size);
    let (mut incoming, mut outgoing) = (vec![0; PACKET_ROOM], vec![0; PACKET_ROOM]);
    let mut packet = first_packet;
    let attempt = async {
        loop {
            if let Some(packet) = packet.take() {
                match shared.lock().link.receive_takeover(&mut takeover, &packet) {
                    TakeoverState::Undecided => {}
                    state => return state,
                }
            }
            while let Some(length) = takeover.poll_packet(&mut outgoing) {
                if channel.send(&outgoing[..length]).await.is_err() {
                    return TakeoverState::Lost;
                }
            }
            match channel.recv(&mut incoming).await {
                Ok(length) if length > 0 => packet = Some(incoming[..length].to_vec()),
                _ => return TakeoverState::Lost,
            }
        }
    };
    let result = timeout_at(limit, attempt).await;
    debug!(via = channel.label, ?result, "a channel tried to take over a session in use");
    (result == Ok(TakeoverState::Won)).then_some(TakenOver { channel, takeover: Box::new(takeover) })
}
