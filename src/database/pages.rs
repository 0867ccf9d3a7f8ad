//! Documents of a collection in order of their IDs, read ahead in pages of about so many bytes.

use std::collections::VecDeque;
use std::ops::Bound;

use super::DatabaseError;
use super::store::{CollectionKey, Store, StoredRevision};

/// Documents that are read ahead first, when nothing is known of their size.
const LEN_FIRST: usize = 64;

/// How much is read ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Documents at most.
    pub(super) len_max: usize,
    /// Bytes of packed bodies that are aimed at.
    pub(super) bytes_aim: usize,
}

impl Ahead {
    /// For documents that are given as they are read.
    pub(super) const GIVEN: Ahead = Ahead { len_max: 1_024, bytes_aim: 256 << 10 };
}

/// Where reading stands. After an error there are no more.
pub(super) struct Pages {
    page: VecDeque<StoredRevision>,
    /// Documents of the next page, by the size of those read last.
    page_len: usize,
    ahead: Ahead,
    /// Where the next page begins; `None`: there is none.
    from: Option<Bound<Box<str>>>,
}

impl Pages {
    pub(super) fn new(from: Bound<Box<str>>, ahead: Ahead) -> Pages {
        Pages { page: VecDeque::new(), page_len: LEN_FIRST, ahead, from: Some(from) }
    }

    /// The next document, tombstones left out. `key` is asked before each page, since the collection may be deleted meanwhile;
    /// `is_behind`: whether an ID is behind those that are wanted.
    pub(super) fn next(
        &mut self,
        store: &Store,
        key: impl Fn() -> Result<CollectionKey, DatabaseError>,
        is_behind: impl Fn(&str) -> bool,
    ) -> Result<Option<StoredRevision>, DatabaseError> {
        while self.page.is_empty() {
            let Some(from) = self.from.take() else { return Ok(None) };
            let (found, last) = store.page(key()?, from.as_ref().map(|id| &**id), self.page_len)?;
            let bytes: usize = found.iter().map(|revision| revision.body.len()).sum();
            let Ahead { len_max, bytes_aim } = self.ahead;
            let page_len = (found.len() * bytes_aim).checked_div(bytes).unwrap_or(len_max);
            self.page_len = page_len.clamp(1, len_max);
            self.page = found.into();
            self.from = last.filter(|last| !is_behind(last)).map(Bound::Excluded);
        }
        let next = self.page.pop_front();
        if next.as_ref().is_some_and(|revision| is_behind(&revision.id)) {
            self.page.clear();
            self.from = None;
            return Ok(None);
        }
        Ok(next)
    }
}
