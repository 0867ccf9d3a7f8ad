//! What two members say in a session when one of them has an earlier secret of the group: the content of *group* records.
//!
//! ```text
//! 1 | part of a signed epoch        2 | the last part of it        3 | proof that it was stored [32]
//! ```

use zeroize::Zeroizing;

use super::epoch::{EpochError, SIGNED_EPOCH_BYTES_MAX};
use super::error::SecureError;
use super::record::RECORD_DATA_MAX;

const PART: u8 = 1;
const LAST: u8 = 2;
const TAKEN: u8 = 3;
/// Bytes of a signed epoch in one record.
const PART_BYTES_MAX: usize = RECORD_DATA_MAX - 1;

/// What the peer has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A whole signed epoch, of unknown origin.
    Epoch(Zeroizing<Vec<u8>>),
    /// It has stored what this side said; the proof of it.
    Taken([u8; 32]),
}

/// The contents of the records that a signed epoch travels in.
pub(crate) fn parts(signed: &[u8]) -> impl Iterator<Item = Zeroizing<Vec<u8>>> + '_ {
    let last = signed.len().div_ceil(PART_BYTES_MAX).saturating_sub(1);
    signed.chunks(PART_BYTES_MAX).enumerate().map(move |(n, chunk)| {
        let kind = if n == last { LAST } else { PART };
        Zeroizing::new([&[kind][..], chunk].concat())
    })
}

/// The content of the record that says that an epoch is stored.
pub(crate) fn taken(proof: &[u8; 32]) -> Vec<u8> {
    [&[TAKEN][..], proof].concat()
}

/// Puts together what the peer says. A peer says one epoch in a session: of each the signature is computed.
#[derive(Default)]
pub(crate) struct Hearing {
    arrived: Zeroizing<Vec<u8>>,
    is_whole: bool,
}

impl Hearing {
    /// Takes the content of one record; `None` if more has to come.
    ///
    /// # Errors
    /// It breaks the protocol.
    pub(crate) fn take(&mut self, content: &[u8]) -> Result<Option<Said>, SecureError> {
        match content {
            [TAKEN, proof @ ..] => {
                Ok(Some(Said::Taken(proof.try_into().map_err(|_| SecureError::Malformed)?)))
            }
            [PART | LAST, ..] if self.is_whole => Err(SecureError::Malformed),
            [kind @ (PART | LAST), part @ ..] if !part.is_empty() => {
                let actual = self.arrived.len() + part.len();
                if actual > SIGNED_EPOCH_BYTES_MAX {
                    return Err(SecureError::Epoch(EpochError::TooLong { actual }));
                }
                // As much as it can become, so that no copy is left behind by growing.
                let room = SIGNED_EPOCH_BYTES_MAX - self.arrived.len();
                self.arrived.reserve_exact(room);
                self.arrived.extend_from_slice(part);
                self.is_whole = *kind == LAST;
                Ok(self.is_whole.then(|| Said::Epoch(std::mem::take(&mut self.arrived))))
            }
            _ => Err(SecureError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_said_in_parts_is_heard_whole(length in 1usize..=SIGNED_EPOCH_BYTES_MAX) {
            let signed: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut hearing = Hearing::default();
            let mut heard = None;
            for part in parts(&signed) {
                prop_assert!(heard.is_none() && part.len() <= RECORD_DATA_MAX);
                heard = hearing.take(&part).expect("a part");
            }
            prop_assert_eq!(heard, Some(Said::Epoch(Zeroizing::new(signed))));
        }

        #[test]
        fn hostile_contents_never_panic(contents in prop::collection::vec(prop::collection::vec(0u8..5, 0..80), 0..9)) {
            let mut hearing = Hearing::default();
            for content in contents {
                let _ = hearing.take(&content);
            }
        }
    }

    #[test]
    fn too_much_too_often_and_nothing_are_refused() {
        let mut hearing = Hearing::default();
        let part = [&[PART][..], &[7; 4000]].concat();
        let error = (0..100).find_map(|_| hearing.take(&part).err()).expect("there is an end");
        assert_eq!(error, SecureError::Epoch(EpochError::TooLong { actual: 44_000 }));
        let mut hearing = Hearing::default();
        assert!(matches!(hearing.take(&[LAST, 1]), Ok(Some(Said::Epoch(_)))));
        assert_eq!(hearing.take(&[LAST, 1]), Err(SecureError::Malformed), "a second one");
        for bad in [&[][..], &[PART], &[LAST], &[TAKEN], &[TAKEN, 1], &[0], &[4, 1]] {
            assert_eq!(Hearing::default().take(bad), Err(SecureError::Malformed), "{bad:?}");
        }
        assert_eq!(hearing.take(&taken(&[9; 32])), Ok(Some(Said::Taken([9; 32]))));
    }
}
