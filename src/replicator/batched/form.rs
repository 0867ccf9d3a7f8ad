//! In which form a `revs` message goes, and how much goes into one: folded, or plain and deflated by BLIP, whichever is smaller.
//!
//! How small a plain message would be, BLIP alone knows, which deflates it after all that it has deflated before. So a message is
//! deflated here for a trial where it is not clear, and the next few are measured by it.

use flate2::{Compress, Compression, FlushCompress};

use crate::replicator::extension::codec::RevsEncoder;
use crate::replicator::extension::{FOLDED_BYTES, REVS_BYTES, REVS_ENTRIES, REVS_ENTRIES_MAX};

/// Fewer revisions are not worth columns.
const COUNT_MIN: usize = 8;

/// Bytes of a folded message above which the next has fewer revisions: it should not hold up others on a slow link, and little of it
/// be lost when that is cut.
const LINK_BYTES: usize = 8 << 10;

/// Deflate makes nothing smaller by this factor that columns do not.
const CLEAR: usize = 24;

/// Messages that are measured by one trial, and most that go plain without an attempt.
const TRIAL_VALID: u32 = 16;
const PLAIN_MAX: u32 = 32;

/// Deflate looks back so far.
const WINDOW: usize = 32 << 10;

/// The level of a trial, which BLIP has too.
const LEVEL: u32 = 6;

/// A message as it goes.
pub(super) struct Formed {
    pub(super) body: Vec<u8>,
    /// Whether BLIP may deflate it.
    pub(super) plain: bool,
    /// What it takes at the receiver.
    pub(super) bytes: usize,
}

/// What was learnt from the messages before.
pub(super) struct Form {
    /// Revisions of the next message.
    entries: usize,
    /// Messages that are not tried to be folded, and how many there will be next time.
    plain: u32,
    plain_next: u32,
    /// What deflate makes of 1,024 bytes, and for how many messages that counts.
    deflated: (usize, u32),
    /// The end of what went plain.
    window: Vec<u8>,
}

impl Form {
    pub(super) fn new() -> Form {
        Form { entries: REVS_ENTRIES, plain: 0, plain_next: 1, deflated: (0, 0), window: Vec::new() }
    }

    /// Most revisions of the next message, and bytes before compression above which it ends.
    pub(super) fn limits(&self) -> (usize, usize) {
        (self.entries, if self.entries > REVS_ENTRIES { FOLDED_BYTES } else { REVS_BYTES })
    }

    /// The message in the smaller form.
    pub(super) fn finish(&mut self, encoder: RevsEncoder, through: u64, last: bool) -> Formed {
        let count = encoder.count();
        let folded = if count >= COUNT_MIN && self.plain == 0 { encoder.fold(through, last) } else { None };
        let is_tried = count >= COUNT_MIN && self.plain == 0 && encoder.folds();
        self.plain = self.plain.saturating_sub(1);
        let plain = encoder.finish(through, last);
        let bytes = plain.len();
        if let Some(folded) = folded.filter(|folded| self.is_smaller(folded.len(), &plain)) {
            self.plain_next = 1;
            self.entries = (LINK_BYTES * count / folded.len().max(1)).clamp(REVS_ENTRIES, REVS_ENTRIES_MAX);
            return Formed { body: folded, plain: false, bytes };
        }
        if is_tried {
            self.plain = self.plain_next;
            self.plain_next = (self.plain_next * 2).min(PLAIN_MAX);
            self.entries = REVS_ENTRIES;
        }
        let excess = (self.window.len() + bytes).saturating_sub(WINDOW).min(self.window.len());
        self.window.drain(..excess);
        self.window.extend_from_slice(&plain[bytes.saturating_sub(WINDOW)..]);
        Formed { body: plain, plain: true, bytes }
    }

    fn is_smaller(&mut self, folded: usize, plain: &[u8]) -> bool {
        if folded * CLEAR <= plain.len() {
            return true;
        }
        if self.deflated.1 == 0 {
            let Some(deflated) = deflated(&self.window, plain) else { return true };
            // What few have says little of many.
            let valid = if plain.len() < REVS_BYTES / 2 { 1 } else { TRIAL_VALID };
            self.deflated = (deflated * 1_024 / plain.len().max(1), valid);
        }
        self.deflated.1 -= 1;
        folded * 1_024 < plain.len() * self.deflated.0
    }
}

/// Bytes of a message that is deflated behind others.
fn deflated(window: &[u8], plain: &[u8]) -> Option<usize> {
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    if !window.is_empty() {
        deflate.set_dictionary(window).ok()?;
    }
    let mut out = Vec::with_capacity(plain.len() + plain.len() / 8 + 64);
    deflate.compress_vec(plain, &mut out, FlushCompress::Sync).ok()?;
    Some(out.len())
}
