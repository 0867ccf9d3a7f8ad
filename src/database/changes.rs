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

/// The changes of a collection or of one document, those to come included: see [`Collection::changes`] and
/// [`Collection::document_changes`]. The store is read where it is polled; an
/// error is the last thing that it gives.
pub struct Changes {
    collection: Collection,
    /// The sequence up to which everything was given or is in `read`.
    since: u64,
    /// Of one document alone.
    id: Option<Box<str>>,
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
        Changes::new(self.clone(), since, None)
    }

    /// The changes of one document from now on, each as it is made; changes that follow each other before they are read appear
    /// once. It need not be there yet.
    pub fn document_changes(&self, id: &str) -> Changes {
        Changes::new(self.clone(), self.last_sequence(), Some(id.into()))
    }
}

impl Changes {
    fn new(collection: Collection, since: u64, id: Option<Box<str>>) -> Changes {
        let watch = WatchStream::new(collection.store.watch());
        Changes { collection, since, id, read: VecDeque::new(), watch, has_ended: false }
    }

    fn read(&self) -> Result<VecDeque<Change>, DatabaseError> {
        match &self.id {
            None => self.collection.changes_since(self.since, CHANGES_READ).map(VecDeque::from),
            Some(id) => {
                let newest = self.collection.change_of(id)?.filter(|change| change.sequence > self.since);
                Ok(newest.into_iter().collect())
            }
        }
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
            match self.read() {
                Ok(changes) => self.read = changes,
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
