//! The task that moves packets: channel to link, link to channel, and from one channel to the next.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tracing::debug;

use super::arrival::{Arrival, PACKET_ROOM};
use super::shared::{Core, Progress, Shared};
use super::takeover::{TakenOver, Takeovers};
use super::timer::Timer;
use crate::endpoint::MessagingError;
use crate::link::{LinkState, SessionId};
use crate::time::Instant;
use crate::transport::packet::{Connector, PacketChannel};

/// Packets taken from a channel before others get their turn.
const RECEIVE_BURST: usize = 64;
/// Time for the last packets to leave and for the peer to disconnect, once the link has reached its end.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A channel that is the session's next.
enum Next {
    /// It has yet to prove that it belongs to the session.
    Arrival(Arrival),
    /// It has done so while another was in use.
    TakenOver(TakenOver),
}

/// Where channels come from.
pub(super) enum Supply {
    /// A central asks for them.
    Connector(Arc<dyn Connector>),
    /// A peripheral is given them.
    Inbox(mpsc::Receiver<Arrival>),
}

/// What the owner of a driver wants to know.
pub(super) trait Observer: Send {
    /// The link has this session, which a peer may ask for from now on. Called again when it is so still.
    fn session(&mut self, session: SessionId);
    /// The session is established, or resumed.
    fn established(&mut self);
    /// The channel is over, and no other has taken its place yet.
    fn disconnected(&mut self) {}
}

/// For a driver whose owner wants to know nothing.
pub(super) struct Unobserved;

impl Observer for Unobserved {
    fn session(&mut self, _: SessionId) {}
    fn established(&mut self) {}
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) supply: Supply,
    pub(super) observer: Box<dyn Observer>,
    takeovers: Takeovers,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Also when the task is dropped with its runtime: nobody may wait for ever.
        self.shared.end(Err(MessagingError::recoverable("the connection has ended")));
        self.shared.reach(Progress::Gone);
    }
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, supply: Supply, observer: Box<dyn Observer>) -> Driver {
        Driver { shared, supply, observer, takeovers: Takeovers::default() }
    }

    /// Runs until the link has reached its end and the last channel is gone.
    pub(super) async fn run(mut self) {
        let mut next = self.next_channel().await;
        while let Some(channel) = next.take() {
            next = self.run_channel(channel).await.map(Next::TakenOver);
            if self.shared.lock().is_over() {
                return;
            }
            if !self.may_go_on() {
                let message = "the connection was lost before the two sides had agreed on a session";
                return self.shared.end(Err(MessagingError::recoverable(message)));
            }
            if next.is_none() {
                next = self.next_channel().await;
            }
        }
    }

    /// Whether another channel is of use: there is a session, or a central may believe so.
    fn may_go_on(&self) -> bool {
        let core = self.shared.lock();
        core.established
            || (matches!(self.supply, Supply::Inbox(_)) && core.link.state() == LinkState::Suspended)
    }

    /// Runs the link on a channel until that is lost, of no use any more, or replaced by the one returned, which has
    /// proven to belong to the session: who only asks for it changes nothing.
    async fn run_channel(&mut self, next: Next) -> Option<TakenOver> {
        let mut run = ChannelRun::start(Arc::clone(&self.shared), next)?;
        let label = run.channel.label.clone();
        let observer = &mut *self.observer;
        let shared = &self.shared;
        let takeovers = &mut self.takeovers;
        let replaced = {
            let mut lost = pin!(poll_fn(|cx| run.poll(cx, observer)));
            match &mut self.supply {
                Supply::Connector(_) => {
                    lost.await;
                    None
                }
                Supply::Inbox(inbox) => loop {
                    tokio::select! {
                        biased;
                        () = &mut lost => break None,
                        taken_over = poll_fn(|cx| takeovers.poll(cx)) => break Some(taken_over),
                        Some(arrival) = inbox.recv() => takeovers.begin(shared, arrival),
                    }
                },
            }
        };
        debug!(via = label, replaced = replaced.is_some(), "channel is over");
        drop(run);
        if replaced.is_none() {
            let now = self.shared.now();
            let mut core = self.shared.lock();
            core.link.disconnected(now);
            core.lost_since = Some(now);
            self.shared.take_events(&mut core);
            drop(core);
            self.observer.disconnected();
        }
        replaced
    }

    /// The next channel; `None` when the link has reached its end before there was one.
    async fn next_channel(&mut self) -> Option<Next> {
        let shared = Arc::clone(&self.shared);
        let takeovers = &mut self.takeovers;
        let next = async {
            match &mut self.supply {
                Supply::Connector(connector) => connect(&shared, connector).await.map(Next::Arrival),
                Supply::Inbox(inbox) => tokio::select! {
                    biased;
                    taken_over = poll_fn(|cx| takeovers.poll(cx)) => Some(Next::TakenOver(taken_over)),
                    arrival = inbox.recv() => arrival.map(Next::Arrival),
                },
            }
        };
        let shared = &self.shared;
        tokio::select! {
            biased;
            arrival = next => arrival,
            () = run_idle(shared) => None,
        }
    }
}

/// Asks for a channel: once if there is no session yet, else until the session's time-out ends it.
async fn connect(shared: &Shared, connector: &Arc<dyn Connector>) -> Option<Arrival> {
    let config = &shared.config;
    let resuming = shared.lock().established;
    let mut pause = config.backoff_min;
    loop {
        if resuming {
            config.clock.sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            pause = (pause * 2).min(config.backoff_max);
        }
        let limit = config.clock.to_tokio(config.clock.now() + config.connect_timeout);
        let error = match timeout_at(limit, connector.connect()).await {
            Ok(Ok(channel)) => return Some(Arrival::bare(channel)),
            Ok(Err(error)) => MessagingError::from(error),
            Err(_) => MessagingError::recoverable(format!(
                "no connection within {} s: is the peer in range, and running?",
                config.connect_timeout.as_secs()
            )),
        };
        debug!(%error, resuming, "connecting failed");
        if !resuming || !error.is_recoverable() {
            shared.end(Err(error));
            return None;
        }
    }
}

/// Runs the link's timers while it has no channel, until it has reached its end.
async fn run_idle(shared: &Shared) {
    let mut timer = Timer::default();
    poll_fn(|cx| {
        loop {
            let now = shared.now();
            let mut core = shared.lock();
            core.driven_by(cx.waker());
            core.link.handle_timeout(now);
            shared.take_events(&mut core);
            if core.is_over() {
                return Poll::Ready(());
            }
            let due = core.link.poll_at();
            drop(core);
            if timer.poll(cx, &shared.config.clock, now, due).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// The link on one channel.
struct ChannelRun {
    shared: Arc<Shared>,
    channel: PacketChannel,
    timer: Timer,
    incoming: Box<[u8; PACKET_ROOM]>,
    outgoing: Box<[u8; PACKET_ROOM]>,
    /// Bytes of `outgoing` that the channel has not taken yet.
    waiting: usize,
    /// The session that the observer knows.
    session: Option<SessionId>,
    /// The link had something to say after its end.
    last_words: bool,
    /// When the last words must have been said; set once the link has reached its end.
    begin_disconnect: Option<Instant>,
}

/// What became of a channel in one turn.
enum Turn {
    /// All that can be done now is done.
    Idle,
    /// There may be more to do.
    Busy,
    /// The channel is of no use any more.
    Over,
}

impl ChannelRun {
    /// Gives the link its next channel; `None` if that is of no use to it.
    fn start(shared: Arc<Shared>, next: Next) -> Option<ChannelRun> {
        let now = shared.now();
        let mut core = shared.lock();
        let channel = match next {
            Next::Arrival(Arrival { channel, first_packet }) => {
                core.link.connected(now, channel.size);
                if let Some(packet) = first_packet {
                    handle_packet(&mut core, now, &packet);
                }
                channel
            }
            Next::TakenOver(TakenOver { channel, takeover }) => {
                if !core.link.take_over(now, *takeover) {
                    core.lost_since = Some(now);
                    shared.take_events(&mut core);
                    return None;
                }
                channel
            }
        };
        core.label = channel.label.clone();
        core.channels += 1;
        core.lost_since = None;
        drop(core);
        let room = || Box::new([0; PACKET_ROOM]);
        Some(ChannelRun {
            shared,
            channel,
            timer: Timer::default(),
            incoming: room(),
            outgoing: room(),
            waiting: 0,
            session: None,
            last_words: false,
            begin_disconnect: None,
        })
    }

    /// Ready when the channel is lost or of no use any more.
    fn poll(&mut self, cx: &mut Context<'_>, observer: &mut dyn Observer) -> Poll<()> {
        loop {
            let now = self.shared.now();
            let shared = Arc::clone(&self.shared);
            let mut core = shared.lock();
            core.driven_by(cx.waker());
            if core.abandoned {
                return Poll::Ready(());
            }
            let received = self.receive(cx, &mut core, now);
            core.link.handle_timeout(now);
            let sent =
                if matches!(received, Turn::Over) { Turn::Over } else { self.send(cx, &mut core, now) };
            let outcome = shared.take_events(&mut core);
            let session = core.link.session_id().filter(|session| self.session != Some(*session));
            let due = if core.is_over() {
                match self.say_farewell(now, core.link.peer_has_ended()) {
                    Some(limit) => Some(limit),
                    None => return Poll::Ready(()),
                }
            } else {
                core.link.poll_at()
            };
            drop(core);
            if let Some(session) = session {
                self.session = Some(session);
                observer.session(session);
            }
            if outcome.established {
                observer.established();
            }
            if outcome.suspended || matches!(sent, Turn::Over) {
                return Poll::Ready(());
            }
            if matches!(received, Turn::Busy) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.timer.poll(cx, &self.shared.config.clock, now, due).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn receive(&mut self, cx: &mut Context<'_>, core: &mut Core, now: Instant) -> Turn {
        for _ in 0..RECEIVE_BURST {
            match self.channel.source.poll_recv(cx, &mut self.incoming[..]) {
                Poll::Pending => return Turn::Idle,
                Poll::Ready(Ok(0) | Err(_)) => return Turn::Over,
                Poll::Ready(Ok(length)) => handle_packet(core, now, &self.incoming[..length]),
            }
        }
        Turn::Busy
    }

    fn send(&mut self, cx: &mut Context<'_>, core: &mut Core, now: Instant) -> Turn {
        loop {
            if self.waiting == 0 {
                match core.link.poll_packet(now, &mut self.outgoing[..]) {
                    Some(length) => {
                        self.waiting = length;
                        self.last_words |= core.link.state().is_final();
                    }
                    None => return Turn::Idle,
                }
            }
            match self.channel.sink.poll_send(cx, &self.outgoing[..self.waiting]) {
                Poll::Ready(Ok(())) => self.waiting = 0,
                Poll::Ready(Err(_)) => return Turn::Over,
                Poll::Pending => return Turn::Idle,
            }
        }
    }

    /// The link has reached its end: until when to stay for the last words; `None`: there are none.
    ///
    /// Disconnecting can overtake packets that the radio has taken, so the side whose word is the last one waits for the
    /// other to disconnect; unless that has ended too, as where both closed at once and would wait for each other.
    fn say_farewell(&mut self, now: Instant, peer_has_ended: bool) -> Option<Instant> {
        let limit = *self.begin_disconnect.get_or_insert(now + FAREWELL_TIMEOUT);
        (self.last_words && !peer_has_ended && now < limit).then_some(limit)
    }
}

fn handle_packet(core: &mut Core, now: Instant, packet: &[u8]) {
    if let Err(error) = core.link.handle_packet(now, packet) {
        debug!(%error, via = core.label, "the peer broke the link protocol");
    }
}
