//! The change feed as a stream that does not end with what there is.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio_stream::wrappers::WatchStream;

use super::{Change, Collection, DatabaseError};

/// Changes that are read ahead.
const CHANGES_READ: usize = 100;

/// The changes of a collection, those to come included: see [`Collection::changes`]. The store is read where it is polled; an
/// error is the last thing that it gives.
pub struct Changes {
    collection: Collection,
    /// The sequence up to which everything was given or is in `read`.
    since: u64,
    read: VecDeque<Change>,
    watch: WatchStream<u64>,
    has_ended: bool,
}

impl Collection {
    /// The changes after sequence `since`, in order, and then each as it is made; a document that is changed again before it
    /// was read appears once. Dropping the stream ends it.
    ///
    /// ```
    /// use gattway::{Database, DatabaseConfig};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
    /// let readings = db.create_collection("plant.readings")?;
    /// let mut changes = readings.changes(0);
    /// readings.put("boiler", &serde_json::json!({ "celsius": 71.5 }))?;
    /// let change = changes.next().await.ok_or("it never ends by itself")??;
    /// assert_eq!(change.id, "boiler");
    /// # Ok(()) }
    /// ```
    pub fn changes(&self, since: u64) -> Changes {
        Changes::new(self.clone(), since, WatchStream::new(self.store.watch()))
    }
}

impl Changes {
    fn new(collection: Collection, since: u64, watch: WatchStream<u64>) -> Changes {
        Changes { collection, since, read: VecDeque::new(), watch, has_ended: false }
    }

    /// The next change, which may be one that is yet to be made; `None` after an error. May be dropped and called again without
    /// loss.
    pub async fn next(&mut self) -> Option<Result<Change, DatabaseError>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Change, DatabaseError>>> {
        loop {
            if let Some(change) = self.read.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            match self.collection.changes_since(self.since, CHANGES_READ) {
                Ok(changes) => self.read = changes.into(),
                Err(error) => {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            match self.read.back() {
                Some(last) => self.since = last.sequence,
                None => self.has_ended = ready!(Pin::new(&mut self.watch).poll_next(cx)).is_none(),
            }
        }
    }
}

impl Stream for Changes {
    type Item = Result<Change, DatabaseError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(cx)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.collection.name();
        f.debug_struct("Changes")
            .field("collection", &name)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}
