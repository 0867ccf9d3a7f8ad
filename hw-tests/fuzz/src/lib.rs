//! What is fuzzed: one body for each target, with the inputs it begins from.
//!
//! A body takes any bytes, drives real code of the library with them and panics if a promise is broken: no panic, what
//! is read is written back, memory and steps stay bounded. The programs in `fuzz_targets/` call them under libFuzzer;
//! the test `fuzz_corpus` includes this file and calls them on every kept input. See `firmware-notes/hostile-peers.md`.

pub mod choices;
pub mod memory;
pub mod pack;
pub mod seeds;
mod targets;

/// One target.
#[derive(Debug)]
pub struct Target {
    /// Also the name of its program and of its pack.
    pub name: &'static str,
    /// Takes one input; panics at a broken promise.
    pub run: fn(&[u8]),
    /// Inputs to begin with, from the recorded conversations and by hand.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs of more bytes teach nothing new.
    pub input_bytes_max: usize,
}

/// A target whose body and seeds have its name.
macro_rules! target {
    ($name:ident, $input_bytes_max:literal) => {
        Target {
            name: stringify!($name),
            run: targets::$name::run,
            seeds: seeds::$name,
            input_bytes_max: $input_bytes_max,
        }
    };
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target!(link, 4096),
    target!(handshake, 2048),
    target!(framing, 4096),
    target!(blip, 8192),
    target!(deflate, 4096),
    target!(messages, 4096),
    target!(revs, 4096),
    target!(folded, 4096),
    target!(delta, 2048),
    target!(session, 4096),
    target!(records, 4096),
    target!(blocks, 4096),
    target!(secure, 4096),
    target!(pairing, 2048),
    target!(trust, 4096),
    target!(text, 2048),
];

/// The target of this name.
///
/// # Panics
/// There is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target is named {name}"))
}
