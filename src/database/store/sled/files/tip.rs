//! Where a log ends while sled writes it: how much it really grew by, which sled does not tell.

use std::fs::File;
use std::io;

use super::format::{
    Kind, MESSAGE_HEADER_BYTES_MAX, SEGMENT, SEGMENT_HEADER_BYTES, may_be_cut, message, segment_header,
};
use super::survey::read_up_to;
use crate::database::store::ground::SEGMENT_BYTES;

/// Bytes that are read at once: most of the time more than was written since the last look.
const STEP_BYTES: usize = 8 * 1024;

/// Follows the end of a log from look to look, so that each reads what was written since the one before.
#[derive(Debug, Default)]
pub(in crate::database::store) struct Tip {
    place: Option<Reached>,
    buffer: Vec<u8>,
}

/// How far the log was read.
#[derive(Clone, Copy, Debug)]
struct Reached {
    /// Log sequence number of the segment's first byte.
    lsn: u64,
    /// The segment's first byte in the file.
    offset: u64,
    /// Bytes read of the segment.
    at: usize,
}

impl Tip {
    /// The log sequence number of the first byte that is not written; `None` if the file shows no segment. What was flushed before
    /// the call lies before it.
    ///
    /// # Errors
    /// Of the operating system.
    pub(in crate::database::store) fn read(&mut self, file: &File) -> io::Result<Option<u64>> {
        let mut place = match self.place {
            Some(place) => place,
            None => match newest_segment(file)? {
                Some(place) => place,
                None => return Ok(None),
            },
        };
        loop {
            let is_full = self.read_segment(file, &mut place)?;
            self.place = Some(place);
            if !is_full {
                return Ok(Some(place.lsn + place.at as u64));
            }
            match segment_after(file, &place)? {
                Some(next) => place = next,
                // Its header stands in sled's memory.
                None => return Ok(Some(place.lsn + SEGMENT)),
            }
        }
    }

    /// Reads on in a segment; whether it is full.
    fn read_segment(&mut self, file: &File, place: &mut Reached) -> io::Result<bool> {
        let mut step = STEP_BYTES;
        while !is_full(place.at) {
            let from = place.at;
            let wanted = step.min(SEGMENT_BYTES - from);
            self.buffer.resize(wanted, 0);
            let len = read_up_to(file, &mut self.buffer, place.offset + from as u64)?;
            let bytes = &self.buffer[..len];
            while let Some(message) = message(bytes, place.at - from) {
                if message.segment != place.lsn / SEGMENT {
                    return Ok(false);
                }
                place.at = if message.kind == Kind::Cap { SEGMENT_BYTES } else { place.at + message.len };
                if is_full(place.at) {
                    return Ok(true);
                }
            }
            let is_all = len < wanted || from + wanted == SEGMENT_BYTES;
            if is_all || !may_be_cut(&bytes[place.at - from..]) {
                return Ok(false);
            }
            // A message may be as long as the segment.
            step = if place.at == from { SEGMENT_BYTES } else { STEP_BYTES };
        }
        Ok(true)
    }
}

/// Whether no further message begins in a segment.
fn is_full(at: usize) -> bool {
    at + MESSAGE_HEADER_BYTES_MAX > SEGMENT_BYTES
}

/// The segment with the highest number.
fn newest_segment(file: &File) -> io::Result<Option<Reached>> {
    let mut newest = None;
    for offset in (0..file.metadata()?.len()).step_by(SEGMENT_BYTES) {
        if let Some(lsn) = lsn_at(file, offset)? {
            newest = newest.max(Some((lsn, offset)));
        }
    }
    Ok(newest.map(|(lsn, offset)| Reached { lsn, offset, at: SEGMENT_HEADER_BYTES }))
}

/// The segment that follows one that is full. Sled takes the first that is free, so what follows it in the file is the
/// likeliest after the file's end.
fn segment_after(file: &File, full: &Reached) -> io::Result<Option<Reached>> {
    let segments = file.metadata()?.len().div_ceil(SEGMENT);
    let wanted = full.lsn + SEGMENT;
    let behind = full.offset / SEGMENT + 1..segments;
    for number in segments.checked_sub(1).into_iter().chain(behind).chain(0..full.offset / SEGMENT) {
        let offset = number * SEGMENT;
        if lsn_at(file, offset)? == Some(wanted) {
            return Ok(Some(Reached { lsn: wanted, offset, at: SEGMENT_HEADER_BYTES }));
        }
    }
    Ok(None)
}

/// The number of the segment that begins at a place of the file, if one does.
fn lsn_at(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let len = read_up_to(file, &mut header, offset)?;
    Ok(segment_header(&header[..len]).map(|header| header.lsn))
}
