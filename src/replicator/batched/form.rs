//! In which form a `revs` message goes, and how much goes into one: folded, or plain and deflated by BLIP, whichever is smaller.
//!
//! How small a plain message would be, BLIP alone knows, which deflates it after all that it has deflated before. So a message is
//! deflated here for a trial where it is not clear, and the next few are measured by it.

use flate2::{Compress, Compression, FlushCompress};

use crate::replicator::extension::codec::RevsEncoder;
use crate::replicator::extension::{FOLDED_BYTES, REVS_BYTES, REVS_ENTRIES, REVS_ENTRIES_MAX, RevsFormat};

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

    /// The form that the next message is prepared for, of those that the peer reads.
    pub(super) fn format(&self, format: RevsFormat) -> RevsFormat {
        if self.plain > 0 { format.min(RevsFormat::TreeIds) } else { format }
    }

    /// The message in the smaller form.
    pub(super) fn finish(&mut self, mut encoder: RevsEncoder, through: u64, last: bool) -> Formed {
        let count = encoder.count();
        let is_tried = count >= COUNT_MIN && self.plain == 0 && encoder.folds();
        let folded = if is_tried { encoder.fold(through, last) } else { None };
        self.plain = self.plain.saturating_sub(1);
        let bytes = encoder.size();
        let folded = match folded {
            Some(body) if body.len() * CLEAR <= bytes => return self.folded(body, count, bytes),
            folded => folded,
        };
        let plain = encoder.finish(through, last);
        let bytes = plain.len();
        if let Some(body) = folded.filter(|folded| self.is_smaller(folded.len(), &plain)) {
            return self.folded(body, count, bytes);
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

    fn folded(&mut self, body: Vec<u8>, count: usize, bytes: usize) -> Formed {
        self.plain_next = 1;
        self.entries = (LINK_BYTES * count / body.len().max(1)).clamp(REVS_ENTRIES, REVS_ENTRIES_MAX);
        Formed { body, plain: false, bytes }
    }

    fn is_smaller(&mut self, folded: usize, plain: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::revision::{SourceId, Version, VersionVector};
    use crate::replica::store::Change;
    use crate::replicator::extension::codec::Content;

    fn formed(
        form: &mut Form,
        format: RevsFormat,
        count: u64,
        body: &mut dyn FnMut(u64) -> String,
    ) -> Formed {
        let mut encoder = RevsEncoder::new(form.format(format), false, 0);
        for n in 0..count {
            let vector = VersionVector::new(Version { time: (n + 1) << 16, source: SourceId([7; 16]) });
            encoder.push(&Change::known_as(n + 1, format!("d{n}"), vector), &Content::Body(body(n).into()));
        }
        form.finish(encoder, count, false)
    }

    /// Readings are folded and come in larger messages; a few, or for a peer that does not read them, are not.
    #[test]
    fn readings_are_folded_and_grow() {
        let mut reading = |n: u64| format!("{{\"v\":{},\"w\":{}}}", n * n % 19, n / 7);
        let mut form = Form::new();
        assert_eq!(form.limits(), (REVS_ENTRIES, REVS_BYTES));
        assert!(formed(&mut form, RevsFormat::TreeIds, 100, &mut reading).plain);
        assert!(formed(&mut form, RevsFormat::Folded, COUNT_MIN as u64 - 1, &mut reading).plain);
        let folded = formed(&mut form, RevsFormat::Folded, 400, &mut reading);
        assert!(!folded.plain && folded.bytes > 4 * folded.body.len());
        assert_eq!(form.limits(), (REVS_ENTRIES_MAX, FOLDED_BYTES));
        // Of what takes more of the link each, fewer go into one message.
        let mut random = fastrand::Rng::with_seed(1);
        let noise = formed(&mut form, RevsFormat::Folded, 400, &mut |_| {
            format!("{{\"v\":{}}}", random.u64(1 << 40..1 << 62))
        });
        let expected = 400 * LINK_BYTES / noise.body.len();
        assert!(!noise.plain && form.limits().0 == expected.max(REVS_ENTRIES), "{} bytes", noise.body.len());
    }

    /// Text goes plain, and the more often it did the more seldom it is tried; readings after it are folded again.
    #[test]
    fn text_goes_plain_and_is_tried_seldom() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut text =
            |_| format!("{{\"t\":\"{}\"}}", (0..300).map(|_| random.alphabetic()).collect::<String>());
        let mut form = Form::new();
        let mut tried = 0;
        for _ in 0..80 {
            tried += u32::from(form.format(RevsFormat::Folded) == RevsFormat::Folded);
            assert!(formed(&mut form, RevsFormat::Folded, 40, &mut text).plain);
        }
        assert!((5..9).contains(&tried), "tried {tried} times");
        // They differ, or deflate would know them by then.
        let mut random = fastrand::Rng::with_seed(4);
        let mut reading = |n: u64| format!("{{\"v\":{},\"w\":{}}}", n / 3, random.u16(..));
        let mut folded = || !formed(&mut form, RevsFormat::Folded, 80, &mut reading).plain;
        assert!((0..=PLAIN_MAX).any(|_| folded()) && folded());
    }

    /// What deflate makes smaller, because it has seen it before, goes deflated.
    #[test]
    fn what_was_just_sent_goes_deflated() {
        let mut said = |n: u64| format!("{{\"v\":{},\"w\":{}}}", n * n * n % 1_009, n * n % 97);
        for before in [false, true] {
            let mut form = Form::new();
            if before {
                assert!(formed(&mut form, RevsFormat::TreeIds, 20, &mut said).plain);
            }
            let formed = formed(&mut form, RevsFormat::Folded, 20, &mut said);
            assert_eq!(formed.plain, before, "{} of {} bytes", formed.body.len(), formed.bytes);
        }
    }
}
