//! Blobs that come in pieces: a bounded number of them is open, the others are in their files.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::ground::io_error;
use super::directory::Directory;
use super::file::Draft;
use super::names::{Name, part_name};
use crate::database::DatabaseError;
use crate::replica::blobs::BlobDigest;

/// Parts that are open; each has up to a chunk in memory.
const OPEN_MAX: usize = 16;

/// Bytes of all parts. With more the one goes that was continued the longest time ago.
const BYTES_MAX: u64 = 1 << 30;

/// How many parts there may be; the same. A session has up to 36 that it has not finished, so this is for 64 of them and for what
/// was cut off.
const COUNT_MAX: u64 = 4_096;

#[derive(Default)]
pub(in super::super) struct Parts {
    state: Mutex<State>,
}

struct State {
    /// The one used last is the last.
    open: Vec<(BlobDigest, Arc<Mutex<Part>>)>,
    /// How many there are and their bytes, about, once that was counted.
    counted: Option<(u64, u64)>,
    bytes_max: u64,
}

impl Default for State {
    fn default() -> State {
        State { open: Vec::new(), counted: None, bytes_max: BYTES_MAX }
    }
}

#[derive(Default)]
struct Part {
    /// `None` until it was looked for.
    draft: Option<Draft>,
    /// It was parked, finished or removed: whoever has waited for it looks again.
    is_closed: bool,
}

/// What is to become of a part after it was used.
pub(super) enum After {
    Keep,
    /// It is another file now, or none.
    Close,
}

impl Parts {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls with the part of a blob, `None` if there is none and none is to be made. After an error it is read again.
    pub(super) fn with<T>(
        &self,
        directory: &Directory,
        digest: &BlobDigest,
        create: bool,
        call: impl FnOnce(Option<&mut Draft>) -> Result<(T, After), DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let name = part_name(digest);
        loop {
            let shared = {
                let mut state = self.lock();
                if !create && !state.is_open(digest) && !directory.has(&name) {
                    drop(state);
                    return call(None).map(|(value, _)| value);
                }
                state.open(digest)
            };
            let mut part = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if part.is_closed {
                continue;
            }
            let mut is_new = false;
            if part.draft.is_none() {
                part.draft =
                    Draft::resume(directory, &name).map_err(|e| io_error("read a part of a blob", e))?;
            }
            if part.draft.is_none() && create {
                part.draft =
                    Some(Draft::create(directory, &name).map_err(|e| io_error("save a part of a blob", e))?);
                is_new = true;
            }
            let result = call(part.draft.as_mut());
            let is_closed = part.draft.is_none() || !matches!(result, Ok((_, After::Keep)));
            part.is_closed = is_closed;
            let length = part.draft.as_ref().map(Draft::length);
            drop(part);
            let mut state = self.lock();
            if is_closed {
                state.open.retain(|(_, other)| !Arc::ptr_eq(other, &shared));
            }
            // Counting them anew lists all blobs: not for each one that comes.
            match (&mut state.counted, &result, length) {
                (Some((count, bytes)), Ok((_, After::Close)), Some(length)) => {
                    (*count, *bytes) = (count.saturating_sub(1), bytes.saturating_sub(length));
                }
                (Some((count, _)), Ok(_), _) => *count += u64::from(is_new),
                (counted, ..) => *counted = None,
            }
            return result.map(|(value, _)| value);
        }
    }

    /// Notes that a part has grown, and lets others go where they take too much.
    pub(super) fn grew(
        &self,
        directory: &Directory,
        digest: &BlobDigest,
        bytes: u64,
    ) -> Result<(), DatabaseError> {
        let mut state = self.lock();
        if let Some((count, all)) = &mut state.counted {
            *all += bytes;
            let (count, all) = (*count, *all);
            if count <= COUNT_MAX && all <= state.bytes_max {
                return Ok(());
            }
        }
        let mut parts = Vec::new();
        let list = |name: &str| parts.extend(Name::of(name).and_then(Name::part));
        directory.visit(list).map_err(|e| io_error("list blobs", e))?;
        let sized = |digest: BlobDigest| {
            let info = directory.info(&part_name(&digest)).ok()??;
            Some((info.changed_ms, digest, info.bytes))
        };
        let mut parts: Vec<_> = parts.into_iter().filter_map(sized).collect();
        parts.sort_unstable();
        let (mut count, mut all) = (parts.len() as u64, parts.iter().map(|(.., bytes)| bytes).sum::<u64>());
        for (_, other, bytes) in parts.iter().filter(|(_, other, _)| other != digest) {
            if count <= COUNT_MAX && all <= state.bytes_max {
                break;
            }
            tracing::warn!(digest = %other, bytes, "parts of blobs take too much: one that was not continued is given up");
            state.close(other, false);
            match directory.remove(&part_name(other)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error("give up a part of a blob", error));
                }
                _ => (count, all) = (count - 1, all.saturating_sub(*bytes)),
            }
        }
        state.counted = Some((count, all));
        Ok(())
    }

    /// Removes the part of a blob, if there is one.
    pub(super) fn remove(&self, directory: &Directory, digest: &BlobDigest) -> Result<(), DatabaseError> {
        let mut state = self.lock();
        state.close(digest, false);
        state.counted = None;
        match directory.remove(&part_name(digest)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("remove a part of a blob", error))
            }
            _ => Ok(()),
        }
    }

    /// Counts them the next time.
    pub(super) fn recount(&self) {
        self.lock().counted = None;
    }

    /// Writes what is in memory alone; all are read from their files then.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        while let Some((digest, _)) = state.open.first() {
            let digest = *digest;
            state.close(&digest, true);
        }
    }

    #[cfg(test)]
    pub(super) fn set_bytes_max(&self, bytes: u64) {
        self.lock().bytes_max = bytes;
    }
}

impl State {
    fn is_open(&self, digest: &BlobDigest) -> bool {
        self.open.iter().any(|(open, _)| open == digest)
    }

    /// An open part; another goes for it where there are too many.
    fn open(&mut self, digest: &BlobDigest) -> Arc<Mutex<Part>> {
        let found = self.open.iter().position(|(open, _)| open == digest).map(|at| self.open.remove(at).1);
        if found.is_none() && self.open.len() >= OPEN_MAX {
            // One in use stays; then there is one more for a while.
            let is_idle = |(_, part): &(BlobDigest, Arc<Mutex<Part>>)| part.try_lock().is_ok();
            if let Some((idle, _)) = self.open.iter().find(|open| is_idle(open)) {
                let idle = *idle;
                self.close(&idle, true);
            }
        }
        let shared = found.unwrap_or_default();
        self.open.push((*digest, Arc::clone(&shared)));
        shared
    }

    /// Closes a part that is open, once nobody uses it.
    fn close(&mut self, digest: &BlobDigest, park: bool) {
        let Some(at) = self.open.iter().position(|(open, _)| open == digest) else { return };
        let (_, shared) = self.open.remove(at);
        let mut part = shared.lock().unwrap_or_else(PoisonError::into_inner);
        part.is_closed = true;
        if let Some(draft) = part.draft.take().filter(|_| park)
            && let Err(error) = draft.park()
        {
            tracing::warn!(%digest, %error, "the end of a part of a blob is lost: it is sent again");
        }
    }
}
