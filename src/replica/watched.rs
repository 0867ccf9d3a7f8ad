//! A watch channel as something to poll: what streams of changes and of states stand on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::watch;

type Change<T> = Pin<Box<dyn Future<Output = Option<watch::Receiver<T>>> + Send>>;

/// Gives the value that is there, and then the newest one each time that it was changed. One that is replaced before it was
/// read is left out.
pub(crate) struct Watched<T> {
    /// Ready when there is something new; `None` when there will be nothing more.
    change: Change<T>,
}

impl<T: Clone + Send + Sync + 'static> Watched<T> {
    pub(crate) fn new(mut receiver: watch::Receiver<T>) -> Watched<T> {
        receiver.mark_changed();
        Watched { change: Box::pin(changed(receiver)) }
    }

    /// The next value; `None` when its sender is gone.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(mut receiver) = ready!(self.change.as_mut().poll(cx)) else {
            self.change = Box::pin(async { None });
            return Poll::Ready(None);
        };
        let value = receiver.borrow_and_update().clone();
        self.change = Box::pin(changed(receiver));
        Poll::Ready(Some(value))
    }
}

async fn changed<T>(mut receiver: watch::Receiver<T>) -> Option<watch::Receiver<T>> {
    receiver.changed().await.ok().map(|()| receiver)
}
