//! Kept inputs of a target in one file: deflated, each with its length in front.

use std::io::{Read, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// The folder `hw-tests`. This file is compiled by the fuzz package in it and by a test of the library above it.
pub fn hw_tests() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let below = root.join("hw-tests");
    if below.is_dir() { below } else { root.join("..") }
}

/// Where the pack of a target is.
pub fn path(target: &str) -> PathBuf {
    hw_tests().join("fuzz/corpus").join(target).with_extension("pack")
}

/// The inputs kept for a target; none if it has no pack.
///
/// # Panics
/// The pack cannot be read.
pub fn read(target: &str) -> Vec<Vec<u8>> {
    let path = path(target);
    let Ok(packed) = std::fs::read(&path) else { return Vec::new() };
    let mut bytes = Vec::new();
    let read = DeflateDecoder::new(&packed[..]).read_to_end(&mut bytes);
    read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut inputs, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((length, more)) = rest.split_first_chunk() {
        let (input, more) = more.split_at(u32::from_le_bytes(*length) as usize);
        inputs.push(input.to_vec());
        rest = more;
    }
    inputs
}

/// Replaces the pack of a target; gives its size in bytes.
///
/// # Errors
/// It cannot be written.
pub fn write(target: &str, inputs: &[Vec<u8>]) -> std::io::Result<usize> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    for input in inputs {
        encoder.write_all(&(input.len() as u32).to_le_bytes())?;
        encoder.write_all(input)?;
    }
    let packed = encoder.finish()?;
    std::fs::write(path(target), &packed)?;
    Ok(packed.len())
}
