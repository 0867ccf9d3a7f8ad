//! What runs along with the frames of one direction: the checksum and the deflate stream.
//!
//! The checksum covers every uncompressed payload byte in transmission order. The deflate stream (raw, one for each
//! direction) is fed by compressed frames alone; each ends with a sync flush whose last four bytes do not travel.
//! Compressor and decompressor come into being with the first compressed frame: together they are most of what a
//! connection occupies (see `firmware-notes/blip.md`).

use std::fmt;

use crc32fast::Hasher;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::error::BlipError;
use super::frame::Frame;

/// The end of every sync flush, cut off by the writer and put back by the reader.
const SYNC_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Head of an empty stored block at a byte boundary, where every flush leaves the stream: with [`SYNC_TAIL`] it is what
/// a flush of nothing would give. The compressor gives nothing at all for a second flush in a row.
const EMPTY_BLOCK_HEAD: u8 = 0x00;

/// Room made for output at a time, in bytes.
const OUTPUT_STEP: usize = 4_096;

/// The most room made for output on the word of the input's length, in bytes.
const OUTPUT_STEP_MAX: usize = 64 * 1024;

/// A decompression buffer above this capacity is given back after use, in bytes.
const SCRATCH_KEEP_MAX: usize = 64 * 1024;

/// The most input that fits into a compressed frame with `room` bytes for payload, whatever the input.
///
/// Deflate without a better choice codes a literal in nine bits; block heads and the flush need a few bytes more.
pub fn compressible_len(room: usize) -> usize {
    const BLOCK_HEADS: usize = 64;
    room.saturating_sub(BLOCK_HEADS) / 9 * 8
}

/// The sending side of one direction.
pub struct StreamEncoder {
    checksum: Hasher,
    level: u32,
    deflate: Option<Box<Compress>>,
}

impl StreamEncoder {
    /// A fresh stream. `level` 0..=9; with 0 even compressed frames hold stored blocks only.
    pub fn new(level: u32) -> StreamEncoder {
        StreamEncoder { checksum: Hasher::new(), level: level.min(9), deflate: None }
    }

    /// Appends the payload made of `parts`, compressed if wanted, and gives the checksum for it.
    pub fn encode(&mut self, parts: &[&[u8]], compressed: bool, out: &mut Vec<u8>) -> u32 {
        for part in parts {
            self.checksum.update(part);
        }
        if compressed && parts.iter().all(|part| part.is_empty()) {
            out.push(EMPTY_BLOCK_HEAD);
        } else if compressed {
            let level = self.level;
            let deflate =
                self.deflate.get_or_insert_with(|| Box::new(Compress::new(Compression::new(level), false)));
            for part in parts {
                compress(deflate, part, FlushCompress::None, out);
            }
            compress(deflate, &[], FlushCompress::Sync, out);
            debug_assert!(out.ends_with(&SYNC_TAIL), "a sync flush ends with its marker");
            out.truncate(out.len() - SYNC_TAIL.len());
        } else {
            for part in parts {
                out.extend_from_slice(part);
            }
        }
        self.checksum.clone().finalize()
    }
}

fn compress(deflate: &mut Compress, mut input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    let flushing = matches!(flush, FlushCompress::Sync);
    while flushing || !input.is_empty() {
        out.reserve(input.len() / 2 + OUTPUT_STEP);
        let before = deflate.total_in();
        // Deflate fails only on a call out of order or without room to write; neither happens here, and a stalled
        // call ends the loop below.
        let status = deflate.compress_vec(input, out, flush);
        let taken = (deflate.total_in() - before) as usize;
        input = &input[taken..];
        let room_left = out.capacity() > out.len();
        if status.is_err() || (flushing && room_left) || (taken == 0 && room_left) {
            break;
        }
    }
}

impl fmt::Debug for StreamEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checksum: _, level, deflate } = self;
        f.debug_struct("StreamEncoder").field("level", level).field("deflate", &deflate.is_some()).finish()
    }
}

/// The receiving side of one direction.
#[derive(Default)]
pub struct StreamDecoder {
    checksum: Hasher,
    inflate: Option<Box<Decompress>>,
    scratch: Vec<u8>,
}

impl StreamDecoder {
    /// A fresh stream.
    pub fn new() -> StreamDecoder {
        StreamDecoder::default()
    }

    /// Gives the uncompressed payload of a frame that has a checksum, at most `limit` bytes.
    ///
    /// # Errors
    /// [`BlipError::BadDeflate`], [`BlipError::BadChecksum`], or [`BlipError::MessageTooLarge`] when there are more than
    /// `limit` bytes. The stream cannot be used any more after an error.
    pub fn decode<'a>(&'a mut self, frame: &Frame<'a>, limit: usize) -> Result<&'a [u8], BlipError> {
        if !frame.header.flags.compressed() {
            check_limit(frame, frame.payload.len(), limit)?;
            self.check(frame, frame.payload)?;
            return Ok(frame.payload);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        if scratch.capacity() > SCRATCH_KEEP_MAX {
            scratch = Vec::new();
        }
        self.decode_into(frame, limit, &mut scratch)?;
        self.scratch = scratch;
        Ok(&self.scratch)
    }

    /// Appends the uncompressed payload of a frame that has a checksum to `out`, which then holds at most `limit` bytes.
    ///
    /// # Errors
    /// As for [`StreamDecoder::decode`]; `out` has grown by a part of the payload.
    pub fn decode_into(
        &mut self,
        frame: &Frame<'_>,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), BlipError> {
        let number = frame.header.number;
        let start = out.len();
        if frame.header.flags.compressed() {
            let inflate = self.inflate.get_or_insert_with(|| Box::new(Decompress::new(false)));
            decompress(inflate, frame.payload, number, limit, out)?;
            decompress(inflate, &SYNC_TAIL, number, limit, out)?;
        } else {
            check_limit(frame, start + frame.payload.len(), limit)?;
            make_room(out, frame.payload.len());
            out.extend_from_slice(frame.payload);
        }
        self.check(frame, &out[start..])
    }

    /// The payload that [`StreamDecoder::decode`] gave last for a compressed frame, to be kept.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    fn check(&mut self, frame: &Frame<'_>, payload: &[u8]) -> Result<(), BlipError> {
        let number = frame.header.number;
        self.checksum.update(payload);
        let actual = self.checksum.clone().finalize();
        match frame.checksum {
            Some(expected) if expected != actual => Err(BlipError::BadChecksum { number, expected, actual }),
            _ => Ok(()),
        }
    }
}

fn check_limit(frame: &Frame<'_>, actual: usize, limit: usize) -> Result<(), BlipError> {
    if actual > limit {
        return Err(BlipError::MessageTooLarge { number: frame.header.number, max: limit });
    }
    Ok(())
}

/// Makes room for `more` bytes at least. A vector grows to twice its size, which for a large message is too much.
fn make_room(out: &mut Vec<u8>, more: usize) {
    if out.capacity() - out.len() < more {
        out.reserve_exact(more.max(out.len() / 4));
    }
}

/// Feeds `input` and appends what comes out; stops soon after `limit` bytes.
fn decompress(
    inflate: &mut Decompress,
    mut input: &[u8],
    number: u64,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), BlipError> {
    loop {
        make_room(out, input.len().saturating_mul(4).clamp(OUTPUT_STEP, OUTPUT_STEP_MAX));
        let before = inflate.total_in();
        let length_before = out.len();
        let status = inflate
            .decompress_vec(input, out, FlushDecompress::Sync)
            .map_err(|_| BlipError::BadDeflate { number })?;
        let taken = (inflate.total_in() - before) as usize;
        input = &input[taken..];
        if out.len() > limit {
            return Err(BlipError::MessageTooLarge { number, max: limit });
        }
        let room_left = out.capacity() > out.len();
        match status {
            // A stream that ends cannot go on with the next frame.
            Status::StreamEnd => return Err(BlipError::BadDeflate { number }),
            _ if input.is_empty() && room_left => return Ok(()),
            _ if taken == 0 && out.len() == length_before && room_left => {
                return Err(BlipError::BadDeflate { number });
            }
            _ => {}
        }
    }
}

impl fmt::Debug for StreamDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checksum: _, inflate, scratch } = self;
        f.debug_struct("StreamDecoder")
            .field("inflate", &inflate.is_some())
            .field("scratch", &scratch.capacity())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blip::frame::{FrameFlags, FrameHeader, FrameType};

    /// What a large frame took is given back with the next small one, and what small ones take is used again.
    #[test]
    fn a_large_frame_leaves_no_large_buffer() {
        let (mut encoder, mut decoder) = (StreamEncoder::new(6), StreamDecoder::new());
        let flags = FrameFlags::new(FrameType::Request).with_compressed(true);
        let mut capacity_after = |size: usize| {
            let (content, mut payload) = (vec![7; size], Vec::new());
            let checksum = Some(encoder.encode(&[&content], true, &mut payload));
            let frame = Frame { header: FrameHeader { number: 1, flags }, payload: &payload, checksum };
            assert_eq!(decoder.decode(&frame, 1 << 20).map(<[u8]>::len), Ok(size));
            decoder.scratch.capacity()
        };
        let usual = capacity_after(10_000);
        assert_eq!(capacity_after(100), usual, "the buffer is used again");
        assert!(capacity_after(1_000_000) >= 1_000_000);
        assert!(capacity_after(100) <= SCRATCH_KEEP_MAX);
    }
}
