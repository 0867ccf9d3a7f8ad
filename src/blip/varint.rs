//! Unsigned variable-length integers (LEB128), the only number form of a frame.

use super::error::BlipError;

/// Most bytes of a 64-bit integer.
pub const LEN_MAX: usize = 10;

/// Writes `value` in its shortest form and returns the buffer and how many of its bytes are used.
pub fn encode(mut value: u64) -> ([u8; LEN_MAX], usize) {
    let mut bytes = [0u8; LEN_MAX];
    let mut len = 0;
    while value >= 0x80 {
        bytes[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    (bytes, len + 1)
}

/// Appends `value` in its shortest form.
pub fn put(value: u64, out: &mut Vec<u8>) {
    let (bytes, len) = encode(value);
    out.extend_from_slice(&bytes[..len]);
}

/// Bytes that [`put`] writes for `value`.
pub fn len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads an integer and gives it with the bytes behind it. Forms longer than necessary are accepted up to
/// [`LEN_MAX`] bytes. `what` names the field in errors.
///
/// # Errors
/// [`BlipError::TruncatedInteger`] or [`BlipError::IntegerOverflow`].
pub fn take<'a>(bytes: &'a [u8], what: &'static str) -> Result<(u64, &'a [u8]), BlipError> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(LEN_MAX) {
        let bits = u64::from(byte & 0x7f);
        if i == LEN_MAX - 1 && bits > 1 {
            return Err(BlipError::IntegerOverflow { what });
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            return Ok((value, &bytes[i + 1..]));
        }
    }
    if bytes.len() >= LEN_MAX {
        return Err(BlipError::IntegerOverflow { what });
    }
    Err(BlipError::TruncatedInteger { what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(value: u64, shift in 0u32..64, tail: Vec<u8>) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(value, &mut bytes);
            prop_assert_eq!(bytes.len(), len(value));
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(take(&bytes, "test"), Ok((value, &tail[..])));
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert_eq!(take(&[0xff; 9], "x"), Err(BlipError::TruncatedInteger { what: "x" }));
        assert_eq!(take(&[0xff; 10], "x"), Err(BlipError::IntegerOverflow { what: "x" }));
        let mut eleven = [0x80; 11];
        eleven[10] = 0;
        assert_eq!(take(&eleven, "x"), Err(BlipError::IntegerOverflow { what: "x" }));
        let mut largest = [0xff; 10];
        largest[9] = 1;
        assert_eq!(take(&largest, "x"), Ok((u64::MAX, &[][..])));
        largest[9] = 2;
        assert_eq!(take(&largest, "x"), Err(BlipError::IntegerOverflow { what: "x" }));
        assert_eq!(take(&[0x80, 0], "x"), Ok((0, &[][..])), "a longer form than necessary");
    }
}
