//! What one central writes: packets out of the sockets that BlueZ has opened for it, as one source.
//!
//! BlueZ opens a socket for each packet that comes before its first answer, and uses all of them from then on; its end blocks, so
//! whoever does not read freezes bluetoothd. Once the link has taken the channel it reads the sockets itself, at no cost but
//! the system call; before that, while the channel waits to be taken, the lane's task reads them and keeps a few packets.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;
use tracing::debug;

use super::packets::{ATT_VALUE_MAX, Guard, copy};
use crate::transport::packet::PacketSource;

/// Packets kept until the link takes the channel; what finds no room is dropped, and the link sends it again.
const KEPT_MAX: usize = 256;

/// The lane's end.
pub(super) struct Inbox {
    shared: Arc<Mutex<Shared>>,
    /// Fails when the source was dropped.
    wanted: oneshot::Receiver<()>,
}

/// The link's end.
pub(super) struct InboxSource {
    shared: Arc<Mutex<Shared>>,
    _wanted: oneshot::Sender<()>,
    _guard: Guard,
}

struct Shared {
    sockets: Vec<Box<dyn PacketSource>>,
    /// The socket that is asked first next time, so that none waits for another.
    turn: usize,
    kept: VecDeque<Vec<u8>>,
    /// The link reads.
    taken: bool,
    /// No socket is added any more.
    closed: bool,
    /// Whoever reads.
    reader: Option<Waker>,
}

/// The two ends of an inbox without sockets; `guard` lives as long as the link's.
pub(super) fn inbox(guard: Guard) -> (Inbox, InboxSource) {
    let shared = Arc::new(Mutex::new(Shared {
        sockets: Vec::new(),
        turn: 0,
        kept: VecDeque::new(),
        taken: false,
        closed: false,
        reader: None,
    }));
    let (sender, wanted) = oneshot::channel();
    let source = InboxSource { shared: Arc::clone(&shared), _wanted: sender, _guard: guard };
    (Inbox { shared, wanted }, source)
}

/// No change under this lock can be left half done.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// One more socket.
    pub(super) fn add(&self, socket: impl PacketSource + 'static) {
        let mut shared = lock(&self.shared);
        shared.sockets.push(Box::new(socket));
        shared.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Reads for the link until that does so itself, and completes when the link has dropped its end.
    pub(super) async fn unwanted(&mut self) {
        let mut packet = [0; ATT_VALUE_MAX];
        poll_fn(|cx| {
            if Pin::new(&mut self.wanted).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut shared = lock(&self.shared);
            while !shared.taken {
                match shared.poll_sockets(cx, &mut packet) {
                    Poll::Ready(Ok(length)) if shared.kept.len() < KEPT_MAX => {
                        shared.kept.push_back(packet[..length].to_vec());
                    }
                    Poll::Ready(_) => debug!("a packet found no room and was dropped"),
                    Poll::Pending => break,
                }
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.closed = true;
        shared.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl Shared {
    /// The next packet of any socket; those that have ended are taken out.
    fn poll_sockets(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut asked = 0;
        while asked < self.sockets.len() {
            let at = self.turn % self.sockets.len();
            match self.sockets[at].poll_recv(cx, packet) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(0) | Err(_)) => drop(self.sockets.swap_remove(at)),
                Poll::Ready(Ok(length)) => {
                    self.turn = at + 1;
                    return Poll::Ready(Ok(length));
                }
                Poll::Pending => {
                    self.turn = at + 1;
                    asked += 1;
                }
            }
        }
        if !self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            self.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl PacketSource for InboxSource {
    fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.shared);
        shared.taken = true;
        if let Some(kept) = shared.kept.pop_front() {
            return Poll::Ready(copy(&kept, packet));
        }
        match shared.poll_sockets(cx, packet) {
            Poll::Pending if shared.closed && shared.sockets.is_empty() => Poll::Ready(Ok(0)),
            received => received,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    /// A socket that gives what is sent to it, and counts how often it was asked.
    struct Fake(mpsc::UnboundedReceiver<u8>, Arc<AtomicUsize>);

    impl PacketSource for Fake {
        fn poll_recv(&mut self, cx: &mut Context<'_>, packet: &mut [u8]) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.poll_recv(cx).map(|value| {
                Ok(value.map_or(0, |value| {
                    packet[0] = value;
                    1
                }))
            })
        }
    }

    fn socket(inbox: &Inbox) -> (mpsc::UnboundedSender<u8>, Arc<AtomicUsize>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let asked = Arc::default();
        inbox.add(Fake(receiver, Arc::clone(&asked)));
        (sender, asked)
    }

    async fn next(source: &mut InboxSource) -> Option<u8> {
        let mut packet = [0; 8];
        let length = poll_fn(|cx| source.poll_recv(cx, &mut packet)).await.expect("no error");
        (length > 0).then_some(packet[0])
    }

    #[tokio::test]
    async fn sockets_are_drained_before_anybody_takes_the_channel_and_hold_no_more_than_their_share() {
        let (mut inbox, mut source) = inbox(Box::new(()));
        let (sender, _) = socket(&inbox);
        (0..=u8::MAX).chain(0..10).for_each(|value| sender.send(value).expect("room"));
        let lane = tokio::spawn(async move { inbox.unwanted().await });
        // A task that has taken 128 packets has to let others have a turn.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        // Of 266 packets 256 are kept, in order; what comes later is read from the socket.
        for value in 0..=u8::MAX {
            assert_eq!(next(&mut source).await, Some(value));
        }
        sender.send(77).expect("room");
        assert_eq!(next(&mut source).await, Some(77));
        drop(source);
        lane.await.expect("the lane learns that nobody wants its packets");
    }

    #[tokio::test]
    async fn packets_of_all_sockets_come_also_of_those_opened_later_and_the_end_is_told() {
        let (inbox, mut source) = inbox(Box::new(()));
        let (first, _) = socket(&inbox);
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            while let Some(value) = next(&mut source).await {
                got.push(value);
            }
            got
        });
        tokio::task::yield_now().await;
        let (second, asked) = socket(&inbox);
        second.send(2).expect("room");
        while asked.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        first.send(1).expect("room");
        drop(first);
        drop(inbox);
        second.send(3).expect("room");
        drop(second);
        let mut got = reading.await.expect("the end is told");
        assert_eq!(got[0], 2, "the task that waited for the first socket has heard of the second");
        got.sort_unstable();
        assert_eq!(got, [1, 2, 3], "nothing is lost when sockets end and the lane goes");
    }
}
