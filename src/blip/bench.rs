//! How fast a connection makes and reads frames, as a ratio to plain deflate and CRC-32 over the same bytes.
//!
//! For `gattway bench blip`. The clock is the caller's.

use bytes::Bytes;
use serde::Serialize;

use super::frame::{Frame, FrameFlags, FrameHeader, FrameType};
use super::stream::{StreamDecoder, StreamEncoder};
use super::{BlipConfig, Connection, Event, OutgoingMessage, Properties};
use crate::time::Instant;

/// Requests in flight, as many as a replicator has.
const IN_FLIGHT: usize = 10;

/// Bytes of a large message.
const LARGE_BODY_LEN: usize = 100_000;

/// One workload.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BlipBenchRow {
    /// What was carried.
    pub workload: &'static str,
    /// Deflate level, 0 for none.
    pub compression_level: u32,
    /// Requests carried; each got an empty reply.
    pub messages: usize,
    /// Bytes of properties and bodies.
    pub content_bytes: u64,
    /// Bytes of all frames, both directions.
    pub frame_bytes: u64,
    /// Frames made and read in a second, on one core.
    pub frames_per_second: f64,
    /// Requests made, read and answered in a second, on one core.
    pub messages_per_second: f64,
    /// Megabytes (10^6) of content in a second, on one core.
    pub megabytes_per_second: f64,
    /// Time of plain deflate, inflate and CRC-32 on both ends over the same content, divided by our time: 1 means that
    /// everything else is free.
    pub ratio_to_plain: f64,
}

/// Runs all workloads; `messages` small ones each, a hundredth as many large ones. `now` is a monotonic clock.
pub fn run(messages: usize, now: &dyn Fn() -> Instant) -> Vec<BlipBenchRow> {
    let small: Vec<OutgoingMessage> = (0..messages).map(small_message).collect();
    let large: Vec<OutgoingMessage> = (0..messages.div_ceil(100)).map(large_message).collect();
    let mut rows = Vec::new();
    for (workload, requests) in [("small", &small), ("large", &large)] {
        for compression_level in [0, 1, 6, 9] {
            rows.push(measure(workload, requests, compression_level, now));
        }
    }
    rows
}

/// A revision as a replicator would push it, with a body that varies as measurements do.
fn small_message(i: usize) -> OutgoingMessage {
    let mut random = fastrand::Rng::with_seed(i as u64);
    let body = format!(
        r#"{{"humidity":{},"pressure":{:.1},"temperature":{:.1},"time":"2023-{:02}-{:02}T{:02}:00","wind":{:.1}}}"#,
        random.u8(20..100),
        random.f32() * 60.0 + 980.0,
        random.f32() * 40.0 - 10.0,
        1 + i / 720 % 12,
        1 + i / 24 % 30,
        i % 24,
        random.f32() * 30.0,
    );
    let properties = Properties::of_profile("rev")
        .with("collection", "0")
        .with("id", &format!("weather-{i:06}"))
        .with("rev", &format!("{:x}@K984BAvzRXGU/wyl1ffEyQ", 0x18ea_7b9b_f01b_0000_u64 + i as u64 * 65_536))
        .with("sequence", &i.to_string())
        .with("noconflicts", "1");
    OutgoingMessage { properties, body: body.into(), compressed: true, ..OutgoingMessage::default() }
}

fn large_message(i: usize) -> OutgoingMessage {
    let mut body = Vec::with_capacity(LARGE_BODY_LEN + 200);
    while body.len() < LARGE_BODY_LEN {
        body.extend_from_slice(&small_message(i * 1_000 + body.len()).body);
    }
    OutgoingMessage { body: body.into(), ..small_message(i) }
}

fn measure(
    workload: &'static str,
    requests: &[OutgoingMessage],
    compression_level: u32,
    now: &dyn Fn() -> Instant,
) -> BlipBenchRow {
    let start = now();
    let (frames, frame_bytes) = carry(requests, compression_level);
    let seconds = now().since(start).as_secs_f64().max(1e-9);
    let start = now();
    plain(requests, compression_level);
    let plain_seconds = now().since(start).as_secs_f64();
    let content_bytes: u64 = requests.iter().map(|message| message.size() as u64).sum();
    BlipBenchRow {
        workload,
        compression_level,
        messages: requests.len(),
        content_bytes,
        frame_bytes,
        frames_per_second: frames as f64 / seconds,
        messages_per_second: requests.len() as f64 / seconds,
        megabytes_per_second: content_bytes as f64 / 1e6 / seconds,
        ratio_to_plain: plain_seconds / seconds,
    }
}

/// Carries all requests and their replies between two connections. Gives frames and bytes.
fn carry(requests: &[OutgoingMessage], compression_level: u32) -> (u64, u64) {
    let config = BlipConfig { compression_level, ..BlipConfig::default() };
    let (mut a, mut b) = (Connection::new(config.clone()), Connection::new(config));
    let mut frame = Vec::new();
    let mut replies = 0;
    for batch in requests.chunks(IN_FLIGHT) {
        for request in batch {
            // Neither end is hostile here; a failure shows in the count of replies.
            let _ = a.send_request(request.clone());
        }
        loop {
            let mut moved = false;
            while a.poll_frame_into(&mut frame) {
                moved = true;
                let _ = b.handle_frame(&frame);
                while let Some(Event::Request(request)) = b.poll_event() {
                    let _ = b.reply(request.number, OutgoingMessage::default());
                }
            }
            while b.poll_frame_into(&mut frame) {
                moved = true;
                let _ = a.handle_frame(&frame);
                replies += usize::from(a.poll_event().is_some());
            }
            if !moved {
                break;
            }
        }
    }
    assert_eq!(replies, requests.len(), "every request is answered");
    let (a, b) = (a.stats(), b.stats());
    (a.frames_sent + b.frames_sent, a.bytes_sent + b.bytes_sent)
}

/// Deflate, inflate and CRC-32 at both ends, in pieces as large as frames, and nothing else.
fn plain(requests: &[OutgoingMessage], compression_level: u32) {
    let mut encoder = StreamEncoder::new(compression_level);
    let mut decoder = StreamDecoder::new();
    let flags = FrameFlags::new(FrameType::Request).with_compressed(compression_level > 0);
    let header = FrameHeader { number: 1, flags };
    let mut out = Vec::new();
    for request in requests {
        let content: Bytes = [request.properties.as_bytes(), &request.body].concat().into();
        for piece in content.chunks(super::config::FRAME_SIZE_MAX) {
            out.clear();
            let checksum = encoder.encode(&[piece], compression_level > 0, &mut out);
            let frame = Frame { header, payload: &out, checksum: Some(checksum) };
            std::hint::black_box(decoder.decode(&frame, usize::MAX).map(<[u8]>::len).ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_what_it_says() {
        // Each look at the clock takes a millisecond.
        let clock = std::cell::Cell::new(0);
        let now = || {
            clock.set(clock.get() + 1_000);
            Instant::from_micros(clock.get())
        };
        let rows = run(300, &now);
        assert_eq!(rows.len(), 8);
        for row in rows {
            assert_eq!(row.ratio_to_plain, 1.0);
            let smaller = row.frame_bytes < row.content_bytes / 2;
            assert_eq!(smaller, row.compression_level > 0, "{row:?}");
        }
    }
}
