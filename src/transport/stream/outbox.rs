//! What waits to be written: messages are joined, so that many small ones cost one write.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::endpoint::MessagingError;

/// Bytes that wait before [`Outbox::push`] does: what a socket buffer holds, so that writing never pauses.
const QUEUED_BYTES_MAX: usize = 256 * 1024;

#[derive(Default)]
struct Queue {
    bytes: BytesMut,
    closing: bool,
    failed: Option<MessagingError>,
}

/// The queue between `send` and the task that writes.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    room: Notify,
}

impl Outbox {
    /// Adds bytes; waits while enough are queued.
    ///
    /// # Errors
    /// Writing has failed or the connection closes; nothing was added.
    pub(super) async fn push(&self, bytes: &[u8]) -> Result<(), MessagingError> {
        loop {
            // Created before the look, so that room made in between is not missed.
            let room = self.room.notified();
            {
                let mut queue = self.lock();
                if let Some(error) = &queue.failed {
                    return Err(error.clone());
                }
                if queue.closing {
                    return Err(MessagingError::recoverable("the connection is closing"));
                }
                if queue.bytes.len() < QUEUED_BYTES_MAX {
                    queue.bytes.put_slice(bytes);
                    drop(queue);
                    self.filled.notify_one();
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// What is queued will still be written, then the stream is shut down.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
        self.room.notify_waiters();
    }

    /// Nothing will be written any more.
    pub(super) fn fail(&self, error: MessagingError) {
        let mut queue = self.lock();
        queue.failed.get_or_insert(error);
        queue.bytes = BytesMut::new();
        drop(queue);
        self.filled.notify_one();
        self.room.notify_waiters();
    }

    /// Writes what comes until [`Outbox::close`] or an error.
    pub(super) async fn write_to(self: Arc<Self>, mut writer: Box<dyn AsyncWrite + Send + Unpin>) {
        if let Err(error) = self.write_all(&mut writer).await {
            self.fail(error.into());
        }
    }

    async fn write_all(&self, writer: &mut Box<dyn AsyncWrite + Send + Unpin>) -> io::Result<()> {
        let mut batch = BytesMut::with_capacity(QUEUED_BYTES_MAX / 4);
        loop {
            // Lets the sender add what it has ready, so that one write takes it all.
            tokio::task::yield_now().await;
            let closing = {
                let mut queue = self.lock();
                if queue.failed.is_some() {
                    return Ok(());
                }
                std::mem::swap(&mut queue.bytes, &mut batch);
                queue.closing
            };
            self.room.notify_waiters();
            if !batch.is_empty() {
                writer.write_all(&batch).await?;
                writer.flush().await?;
                batch.clear();
            } else if closing {
                return writer.shutdown().await;
            } else {
                self.filled.notified().await;
            }
        }
    }

    /// No change under this lock can be left half done.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
