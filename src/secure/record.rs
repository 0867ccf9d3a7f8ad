//! The encrypted stream after the handshake: records, new keys, the authenticated end.
//!
//! ```text
//! record   u16 length of what follows, little endian | ChaCha20-Poly1305( kind, content )
//! kind     0 data | 1 admitted | 2 new key (epoch u32) | 3 end | 4 refused (reason u8) | 5 group
//! ```
//! The nonce is the number of the record in its direction, never sent. It goes on across new keys, and across the radio
//! connections of one link session: the link's stream is the same stream after a resume, down to the byte, so a record is
//! sealed once, and once only, whatever the radio does to the packets that carry it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use snow::TransportState;
use zeroize::Zeroize;

use super::crypto::{KEY_BYTES, mac};
use super::error::{RefuseReason, SecureError};

/// Bytes of the length in front of a record.
const LENGTH_BYTES: usize = 2;
/// Bytes of the tag behind it.
const TAG_BYTES: usize = 16;
/// What a record costs beside its data, in bytes: length, kind, tag.
pub const RECORD_OVERHEAD_BYTES: usize = LENGTH_BYTES + 1 + TAG_BYTES;
/// A whole record at most, in bytes: overhead of half a percent, and nobody waits for more than that before the first
/// byte can be checked.
pub const RECORD_BYTES_MAX: usize = 4096;
/// Data in one record at most, in bytes.
pub const RECORD_DATA_MAX: usize = RECORD_BYTES_MAX - RECORD_OVERHEAD_BYTES;

/// Bytes of data in one direction under one key.
pub const REKEY_BYTES: u64 = 16 << 20;
/// Records in one direction under one key.
pub const REKEY_RECORDS: u64 = 1 << 16;

/// When keys are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RekeyLimits {
    /// Bytes of data in one direction under one key.
    pub bytes: u64,
    /// Records in one direction under one key.
    pub records: u64,
}

impl Default for RekeyLimits {
    fn default() -> RekeyLimits {
        RekeyLimits { bytes: REKEY_BYTES, records: REKEY_RECORDS }
    }
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data = 0,
    Admitted = 1,
    NewKey = 2,
    End = 3,
    Refused = 4,
    Group = 5,
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    Data(Bytes),
    Admitted,
    /// The peer has begun a new key, and knows the key of resumes that goes with it.
    NewKey {
        /// Whether this side learns of it only now.
        first: bool,
    },
    End,
    Refused(RefuseReason),
    /// Of the group's epochs.
    Group(Bytes),
}

/// Counters of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionStats {
    /// Records so far; the nonce of the next one.
    pub records: u64,
    /// Bytes of data so far, overhead left out.
    pub data_bytes: u64,
    /// Keys so far, the present one left out.
    pub rekeys: u32,
}

/// Both directions of an established session.
pub(super) struct Records {
    noise: TransportState,
    limits: RekeyLimits,
    resume_key: [u8; KEY_BYTES],
    sent: DirectionStats,
    received: DirectionStats,
    sent_under_key: (u64, u64),
    ended_here: bool,
    ended_there: bool,
    plain: Box<[u8; RECORD_BYTES_MAX]>,
}

impl Drop for Records {
    fn drop(&mut self) {
        self.resume_key.zeroize();
        self.plain.zeroize();
    }
}

impl Records {
    pub(super) fn new(noise: TransportState, resume_key: [u8; KEY_BYTES], limits: RekeyLimits) -> Records {
        Records {
            noise,
            limits,
            resume_key,
            sent: DirectionStats::default(),
            received: DirectionStats::default(),
            sent_under_key: (0, 0),
            ended_here: false,
            ended_there: false,
            plain: Box::new([0; RECORD_BYTES_MAX]),
        }
    }

    pub(super) fn stats(&self) -> (DirectionStats, DirectionStats) {
        (self.sent, self.received)
    }

    /// What both sides prove a resume with, from the newest new key on.
    pub(super) fn resume_key(&self) -> &[u8; KEY_BYTES] {
        &self.resume_key
    }

    /// Appends `data` to `out`, in as many records as it takes; true if a new key was begun with it.
    pub(super) fn seal(&mut self, data: &[u8], out: &mut BytesMut) -> Result<bool, SecureError> {
        out.reserve(data.len() + (data.len() / RECORD_DATA_MAX + 1) * RECORD_OVERHEAD_BYTES);
        let mut renewed = false;
        for chunk in data.chunks(RECORD_DATA_MAX) {
            if self.is_key_used_up() {
                self.renew(out)?;
                renewed = true;
            }
            self.put(Kind::Data, chunk, out)?;
            self.sent.data_bytes += chunk.len() as u64;
            self.sent_under_key.0 += chunk.len() as u64;
        }
        Ok(renewed)
    }

    pub(super) fn seal_admitted(&mut self, out: &mut BytesMut) -> Result<(), SecureError> {
        self.put(Kind::Admitted, &[], out)
    }

    pub(super) fn seal_end(&mut self, out: &mut BytesMut) -> Result<(), SecureError> {
        self.put(Kind::End, &[], out)?;
        self.ended_here = true;
        Ok(())
    }

    pub(super) fn seal_refused(
        &mut self,
        reason: RefuseReason,
        out: &mut BytesMut,
    ) -> Result<(), SecureError> {
        self.put(Kind::Refused, &[reason.code()], out)?;
        self.ended_here = true;
        Ok(())
    }

    /// A new key is begun by this side when it has used its own up and the peer has followed the last change: so the two
    /// directions are never more than one apart.
    fn is_key_used_up(&self) -> bool {
        let (bytes, records) = self.sent_under_key;
        (bytes >= self.limits.bytes || records >= self.limits.records)
            && self.sent.rekeys == self.received.rekeys
    }

    /// Says that the next record is under the next key.
    fn renew(&mut self, out: &mut BytesMut) -> Result<(), SecureError> {
        let epoch = self.sent.rekeys.checked_add(1).ok_or(SecureError::Key)?;
        self.put(Kind::NewKey, &epoch.to_le_bytes(), out)?;
        self.noise.rekey_outgoing();
        self.sent.rekeys = epoch;
        self.sent_under_key = (0, 0);
        if self.sent.rekeys > self.received.rekeys {
            self.next_resume_key();
        }
        Ok(())
    }

    /// The key of resumes rolls on with the first of the two directions; nobody gets back from the new to the old.
    fn next_resume_key(&mut self) {
        let next = mac(&self.resume_key, &[b"gattway resume next"]);
        self.resume_key.zeroize();
        self.resume_key = next;
    }

    pub(super) fn put(&mut self, kind: Kind, content: &[u8], out: &mut BytesMut) -> Result<(), SecureError> {
        if self.ended_here {
            return Err(SecureError::Record);
        }
        debug_assert!(content.len() <= RECORD_DATA_MAX);
        debug_assert_eq!(self.noise.sending_nonce(), self.sent.records);
        let length = 1 + content.len();
        self.plain[0] = kind as u8;
        self.plain[1..length].copy_from_slice(content);
        let start = out.len();
        out.put_u16_le((length + TAG_BYTES) as u16);
        out.put_bytes(0, length + TAG_BYTES);
        let sealed = &mut out[start + LENGTH_BYTES..];
        self.noise.write_message(&self.plain[..length], sealed).map_err(|_| SecureError::Key)?;
        self.sent.records += 1;
        self.sent_under_key.1 += 1;
        Ok(())
    }

    /// Takes the next whole record off `input`; `None` if there is none yet. Answers that this side owes go to `out`.
    pub(super) fn open(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Opened>, SecureError> {
        if self.ended_there {
            return if input.is_empty() { Ok(None) } else { Err(SecureError::Record) };
        }
        let Some(length) = input.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::from(u16::from_le_bytes(*length));
        let max = RECORD_BYTES_MAX - LENGTH_BYTES;
        if length > max {
            return Err(SecureError::TooLong { max, actual: length });
        }
        if length <= TAG_BYTES {
            return Err(SecureError::Malformed);
        }
        if input.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        let sealed = &input[LENGTH_BYTES..LENGTH_BYTES + length];
        let opened = self.noise.read_message(sealed, &mut self.plain[..]).map_err(|_| SecureError::Record)?;
        input.advance(LENGTH_BYTES + length);
        self.received.records += 1;
        let [kind, content @ ..] = &self.plain[..opened] else { return Err(SecureError::Malformed) };
        Ok(Some(match (*kind, content) {
            (0, data) if !data.is_empty() => {
                self.received.data_bytes += data.len() as u64;
                Opened::Data(Bytes::copy_from_slice(data))
            }
            (1, []) => Opened::Admitted,
            (2, &[a, b, c, d]) => {
                Opened::NewKey { first: self.follow(u32::from_le_bytes([a, b, c, d]), out)? }
            }
            (3, []) => {
                self.ended_there = true;
                Opened::End
            }
            (4, &[code]) => {
                self.ended_there = true;
                Opened::Refused(RefuseReason::from_code(code))
            }
            (5, content) if !content.is_empty() => Opened::Group(Bytes::copy_from_slice(content)),
            _ => return Err(SecureError::Malformed),
        }))
    }

    /// The peer begins a new key: so does this side, unless it has already; true in the first case.
    fn follow(&mut self, epoch: u32, out: &mut BytesMut) -> Result<bool, SecureError> {
        if Some(epoch) != self.received.rekeys.checked_add(1) || epoch > self.sent.rekeys.saturating_add(1) {
            return Err(SecureError::Malformed);
        }
        self.noise.rekey_incoming();
        self.received.rekeys = epoch;
        let first = self.sent.rekeys < epoch;
        if first {
            self.next_resume_key();
            if !self.ended_here {
                self.renew(out)?;
            }
        }
        Ok(first)
    }
}
