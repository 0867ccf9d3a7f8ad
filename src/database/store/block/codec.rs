//! The kinds of blocks, and what deflates them.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::database::packed::{Reader, put_varint};

pub(super) const PLAIN: u8 = 0;
pub(super) const DEFLATED: u8 = 1;
pub(super) const COLUMNS: u8 = 2;

/// Fast: bodies repeat so much that higher levels gain little and the commit path pays.
const DEFLATE_LEVEL: u32 = 2;

/// Longest block unpacked, bytes: a document of the largest size with its ID and versions; earlier releases took 20 MiB of
/// JSON. A damaged length allocates no more than this.
pub(super) const RECORDS_BYTES_MAX: usize = 2 * (20 << 20) + 64 * 1024;

/// Deflate makes no more than 258 bytes of two bits: a damaged length allocates no more than its block could hold.
pub(super) const INFLATE_RATIO_MAX: usize = 1_032;

pub(super) fn with_head(kind: u8, len: usize, bytes: &[u8]) -> Vec<u8> {
    let mut value = vec![kind];
    put_varint(&mut value, len as u64);
    value.extend_from_slice(bytes);
    value
}

/// Deflate states, kept because each is some 100 KiB to set up.
#[derive(Default)]
pub(in super::super) struct Codec {
    /// Whether a block in columns was made.
    pub(in super::super) has_written_columns: bool,
    /// How many bytes of plain records a byte of columns stood for in the last block that was made and was not small; 0 if it had none.
    pub(super) plain_per_column_byte: Option<usize>,
    compress: Option<Compress>,
    decompress: Option<Decompress>,
}

impl Codec {
    /// Appends the deflated bytes; `false` if that saves nothing.
    pub(super) fn deflate(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let compress =
            self.compress.get_or_insert_with(|| Compress::new(Compression::new(DEFLATE_LEVEL), false));
        compress.reset();
        // With room for what cannot be made shorter.
        out.reserve_exact(bytes.len() + bytes.len() / 1_000 + 64);
        let status = compress.compress_vec(bytes, out, FlushCompress::Finish);
        let is_whole = matches!(status, Ok(Status::StreamEnd));
        let is_shorter = is_whole && (compress.total_out() as usize) < bytes.len();
        if !is_whole {
            // What did not fit goes on to take room in its buffer after a reset, until there is none and it panics.
            self.compress = None;
        }
        is_shorter
    }

    pub(super) fn inflate(&mut self, bytes: &[u8], len: usize) -> Option<Vec<u8>> {
        let decompress = self.decompress.get_or_insert_with(|| Decompress::new(false));
        decompress.reset(false);
        let mut out = Vec::with_capacity(len);
        let status = decompress.decompress_vec(bytes, &mut out, FlushDecompress::Finish).ok()?;
        (status == Status::StreamEnd && out.len() == len).then_some(out)
    }
}

/// Bytes of a block's records, not deflated; `None` means damage.
pub(in super::super) fn records_len(value: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(value);
    reader.byte()?;
    reader.length()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cannot be made shorter leaves nothing behind that the next block would meet.
    #[test]
    fn any_number_of_blocks_cannot_be_made_shorter() {
        let (mut codec, mut rng) = (Codec::default(), fastrand::Rng::with_seed(1));
        for _ in 0..2_000 {
            let random: Vec<u8> = (0..rng.usize(100..400)).map(|_| rng.u8(..)).collect();
            assert!(!codec.deflate(&random, &mut Vec::new()));
        }
        let (repeated, mut out) = (vec![7; 5_000], Vec::new());
        assert!(codec.deflate(&repeated, &mut out));
        assert_eq!(codec.inflate(&out, repeated.len()), Some(repeated));
    }
}
