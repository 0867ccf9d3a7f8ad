//! A ring of bytes addressed by offsets in a stream: byte `n` of the stream lives at `n % N`.
//!
//! Which offsets hold bytes that count is the business of the window around it; all copies are of whole slices.

use core::fmt;

/// `N` bytes of a stream.
pub(super) struct ByteRing<const N: usize> {
    bytes: [u8; N],
}

impl<const N: usize> ByteRing<N> {
    pub(super) const fn new() -> ByteRing<N> {
        ByteRing { bytes: [0; N] }
    }

    /// Puts `source` at `offset`; not more than `N` bytes.
    pub(super) fn put(&mut self, offset: u64, source: &[u8]) {
        debug_assert!(source.len() <= N);
        let start = index::<N>(offset);
        let first = source.len().min(N - start);
        let (head, tail) = source.split_at(first);
        self.bytes[start..start + first].copy_from_slice(head);
        self.bytes[..tail.len()].copy_from_slice(tail);
    }

    /// Fills `target` from `offset` on; not more than `N` bytes.
    pub(super) fn get(&self, offset: u64, target: &mut [u8]) {
        debug_assert!(target.len() <= N);
        let start = index::<N>(offset);
        let first = target.len().min(N - start);
        let (head, tail) = target.split_at_mut(first);
        head.copy_from_slice(&self.bytes[start..start + first]);
        tail.copy_from_slice(&self.bytes[..tail.len()]);
    }

    /// Moves `length` bytes back from `from` to `to`, which is not after it; the two may overlap.
    pub(super) fn move_back(&mut self, from: u64, to: u64, length: usize) {
        debug_assert!(to <= from && length <= N);
        let mut done = 0;
        while done < length {
            let source = index::<N>(from + done as u64);
            let target = index::<N>(to + done as u64);
            let piece = (length - done).min(N - source).min(N - target);
            self.bytes.copy_within(source..source + piece, target);
            done += piece;
        }
    }
}

impl<const N: usize> fmt::Debug for ByteRing<N> {
    /// The size; not the bytes, which are many and not ours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteRing<{N}>")
    }
}

/// `N` fits into 64 bits and the remainder into `usize`.
const fn index<const N: usize>(offset: u64) -> usize {
    (offset % N as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back_across_the_end(offset in 0u64..1000, data in prop::collection::vec(any::<u8>(), 0..37)) {
            let mut ring = ByteRing::<37>::new();
            ring.put(offset, &data);
            let mut back = vec![0; data.len()];
            ring.get(offset, &mut back);
            prop_assert_eq!(back, data);
        }

        #[test]
        fn moves_back_like_memmove(to in 0u64..100, shift in 0u64..37, data in prop::collection::vec(any::<u8>(), 0..37)) {
            prop_assume!(shift as usize + data.len() <= 37);
            let mut ring = ByteRing::<37>::new();
            ring.put(to + shift, &data);
            ring.move_back(to + shift, to, data.len());
            let mut back = vec![0; data.len()];
            ring.get(to, &mut back);
            prop_assert_eq!(back, data);
        }
    }
}
