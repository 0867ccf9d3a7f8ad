//! Channels that ask for a session while another one carries it: each proves over its own that it belongs to the session,
//! and only the one that has done so replaces the present one.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::timeout_at;
use tracing::debug;

use super::driver::{Arrival, PACKET_ROOM};
use super::shared::Shared;
use crate::link::{Contender, Contest};
use crate::transport::packet::PacketChannel;

/// Channels that may contend for a session at one time; for one more, the oldest gives way.
const CONTENDERS_MAX: usize = 4;

/// A channel that has proven to belong to the session.
pub(super) struct Winner {
    pub(super) channel: PacketChannel,
    pub(super) contender: Box<Contender>,
}

/// Channels that contend for the session.
#[derive(Default)]
pub(super) struct Contests {
    running: VecDeque<Pin<Box<dyn Future<Output = Option<Winner>> + Send>>>,
}

impl Contests {
    pub(super) fn begin(&mut self, shared: &Arc<Shared>, arrival: Arrival) {
        if self.running.len() >= CONTENDERS_MAX {
            self.running.pop_front();
        }
        self.running.push_back(Box::pin(contend(Arc::clone(shared), arrival)));
    }

    /// Ready when one has won; pending without any.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Winner> {
        let mut at = 0;
        while let Some(contest) = self.running.get_mut(at) {
            match contest.as_mut().poll(cx) {
                Poll::Pending => at += 1,
                Poll::Ready(result) => {
                    drop(self.running.remove(at));
                    if let Some(winner) = result {
                        return Poll::Ready(winner);
                    }
                }
            }
        }
        Poll::Pending
    }
}

/// Lets a channel prove that it belongs to the session, within the time of a handshake, while another is in use.
async fn contend(shared: Arc<Shared>, arrival: Arrival) -> Option<Winner> {
    let Arrival { mut channel, first_packet } = arrival;
    let clock = shared.config.clock;
    let limit = clock.to_tokio(clock.now() + shared.config.link.handshake_timeout);
    let mut contender = shared.lock().link.contender(channel.size);
    let (mut incoming, mut outgoing) = (vec![0; PACKET_ROOM], vec![0; PACKET_ROOM]);
    let mut packet = first_packet;
    let contest = async {
        loop {
            if let Some(packet) = packet.take() {
                match shared.lock().link.hear_contender(&mut contender, &packet) {
                    Contest::Undecided => {}
                    contest => return contest,
                }
            }
            while let Some(length) = contender.poll_packet(&mut outgoing) {
                if channel.send(&outgoing[..length]).await.is_err() {
                    return Contest::Lost;
                }
            }
            match channel.recv(&mut incoming).await {
                Ok(length) if length > 0 => packet = Some(incoming[..length].to_vec()),
                _ => return Contest::Lost,
            }
        }
    };
    let result = timeout_at(limit, contest).await;
    debug!(via = channel.label, ?result, "a channel contended for a session in use");
    (result == Ok(Contest::Won)).then_some(Winner { channel, contender: Box::new(contender) })
}
