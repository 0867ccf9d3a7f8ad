//! BLIP's deflate stream: hostile payloads in a row on one decoder, and our own encoder against it.

use gattway::lab::blip::frame::{Frame, FrameFlags, FrameHeader, FrameType};
use gattway::lab::blip::stream::{StreamDecoder, StreamEncoder, compressible_len};

use super::super::choices::Choices;
use super::super::memory;

/// What one message may have, for this target.
const LIMIT: usize = 64 * 1024;
/// The decompressor with its window and tables, in bytes.
const INFLATE_STATE: usize = 96 * 1024;
/// Bytes of a frame of ours.
const FRAME_ROOM: usize = 16_384;

fn flags(compressed: bool) -> FrameFlags {
    FrameFlags::new(FrameType::Request).with_compressed(compressed)
}

/// Frames of any payload: at most `LIMIT` bytes come out of each, and no memory is spent beyond that.
fn hostile(choices: &mut Choices<'_>) {
    let mut decoder = StreamDecoder::new();
    let ((), held) = memory::peak(|| {
        while !choices.is_empty() {
            let compressed = choices.byte() & 7 != 0;
            let frame = Frame {
                header: FrameHeader { number: 1, flags: flags(compressed) },
                payload: choices.blob(),
                checksum: None,
            };
            match decoder.decode(&frame, LIMIT) {
                Ok(payload) => assert!(payload.len() <= LIMIT),
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return;
                }
            }
        }
    });
    // Room is made in steps, and a vector doubles.
    assert!(held <= 4 * LIMIT + INFLATE_STATE, "{held} bytes held");
}

/// What is encoded is decoded, whatever it is and however it is cut; it fits where it was said to fit.
fn round_trip(choices: &mut Choices<'_>) {
    let level = choices.byte() % 11;
    let mut encoder = StreamEncoder::new(level.into());
    let mut decoder = StreamDecoder::new();
    while !choices.is_empty() {
        let (compressed, repeat) = (choices.bool(), 1 + choices.below(64));
        let part = choices.blob();
        let mut content = part.repeat(repeat);
        content.truncate(compressible_len(FRAME_ROOM));
        let (front, back) = content.split_at(content.len() / 3);
        let mut payload = Vec::new();
        let checksum = encoder.encode(&[front, back], compressed, &mut payload);
        assert!(!compressed || payload.len() <= FRAME_ROOM, "{} bytes do not fit", payload.len());
        let frame = Frame {
            header: FrameHeader { number: 1, flags: flags(compressed) },
            payload: &payload,
            checksum: Some(checksum),
        };
        assert_eq!(decoder.decode(&frame, content.len()), Ok(&content[..]));
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.bool() {
        false => hostile(&mut choices),
        true => round_trip(&mut choices),
    }
}
