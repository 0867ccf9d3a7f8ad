//! Keys from keys: keyed BLAKE2s with a label for each use.

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};

/// 32 bytes of `key` for the use `label`, about `parts`. Another label or other parts give bytes that have nothing to
/// do with these, and nothing leads back to the key.
///
/// Keyed BLAKE2s-256 over each of label and parts with its length (4, LE) in front.
///
/// # Panics
/// If the key has more than 32 bytes, which is an error of the caller.
pub(crate) fn derive(key: &[u8], label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Blake2sMac256::new_from_slice(key).expect("a BLAKE2s key of up to 32 bytes");
    for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
        mac.update(&(part.len() as u32).to_le_bytes());
        mac.update(part);
    }
    mac.finalize_fixed().into()
}
