//! Packets without any protocol: what BlueZ and the radio carry at most, over the same characteristics and channels.

use std::time::{Duration, Instant};

use gattway::lab::transport::packet::PacketChannel;
use tokio::time::timeout;

use super::protocol::{Raw, RawWay};
use super::{Result, fail};

/// First byte of a packet: the peripheral counts it.
const COUNT: u8 = b'c';
/// First byte of a packet: the peripheral answers with what it has counted so far; a second byte makes it begin anew.
const REPORT: u8 = b'r';
/// First byte of a packet: the peripheral sends so many packets (u32) of such a size (u16).
const SEND: u8 = b's';
/// Packets that have not arrived so long after the last one count as lost.
const SILENCE: Duration = Duration::from_secs(2);
/// Time for an answer; a queue of packets may be before it.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// A question without an answer for so long is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Longest packet.
const ROOM: usize = 512;

/// Packets of one direction, as they arrive.
#[derive(Default)]
struct Counts {
    packets: u32,
    out_of_order: u32,
    next: u32,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Counts {
    fn take(&mut self, packet: &[u8]) {
        let [_, a, b, c, d, ..] = *packet else { return };
        let number = u32::from_le_bytes([a, b, c, d]);
        self.packets += 1;
        self.out_of_order += u32::from(number != self.next);
        self.next = number.wrapping_add(1);
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    fn span(&self) -> Duration {
        match (self.first, self.last) {
            (Some(first), Some(last)) => last - first,
            _ => Duration::ZERO,
        }
    }
}

fn way(packets: u32, out_of_order: u32, span: Duration, size: usize) -> RawWay {
    let seconds = span.as_secs_f64();
    let bytes = f64::from(packets.saturating_sub(1)) * size as f64;
    let bytes_per_s = if seconds > 0.0 { bytes / seconds } else { 0.0 };
    RawWay { packets, out_of_order, seconds, bytes_per_s }
}

fn numbered(number: u32, size: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; size.max(5)];
    packet[0] = COUNT;
    packet[1..5].copy_from_slice(&number.to_le_bytes());
    packet
}

/// Whether a packet is one of these; the link's never begin so.
pub fn is_raw(packet: &[u8]) -> bool {
    matches!(packet, [COUNT | REPORT | SEND, ..])
}

/// The peripheral's side of one channel.
pub async fn answer(mut channel: PacketChannel) -> Result<()> {
    let mut buffer = [0; ROOM];
    let mut counts = Counts::default();
    loop {
        let length = channel.recv(&mut buffer).await?;
        match buffer[..length] {
            [] => return Ok(()),
            [COUNT, ..] => counts.take(&buffer[..length]),
            [REPORT, ref anew @ ..] => {
                let mut report = vec![REPORT];
                report.extend(counts.packets.to_le_bytes());
                report.extend(counts.out_of_order.to_le_bytes());
                report.extend((counts.span().as_micros() as u32).to_le_bytes());
                channel.send(&report).await?;
                if !anew.is_empty() {
                    counts = Counts::default();
                }
            }
            [SEND, a, b, c, d, low, high, ..] => {
                for number in 0..u32::from_le_bytes([a, b, c, d]) {
                    channel.send(&numbered(number, u16::from_le_bytes([low, high]).into())).await?;
                }
            }
            _ => {}
        }
    }
}

/// The central's side: `packets` each way.
pub async fn run(mut channel: PacketChannel, connect_seconds: f64, packets: u32) -> Result<Raw> {
    let up = up(&mut channel, packets).await?;
    let down = down(&mut channel, packets).await?;
    let packet_bytes = channel.size.bytes() as u64;
    Ok(Raw { label: channel.label.clone(), packet_bytes, connect_seconds, up, down })
}

/// Makes the peripheral count from nothing. Also the first packet of a central: BlueZ opens a socket for each one that comes
/// before its first answer, and mixes their order, so that nothing may follow before it.
pub async fn begin(channel: &mut PacketChannel) -> Result<()> {
    channel.send(&[REPORT, 0]).await?;
    timeout(ANSWER_LIMIT, channel.recv(&mut [0; ROOM]))
        .await
        .map_err(|_| "the peripheral does not answer")??;
    Ok(())
}

/// Packets to the peripheral, as it has counted them.
pub async fn up(channel: &mut PacketChannel, count: u32) -> Result<RawWay> {
    let size = channel.size.bytes();
    begin(channel).await?;
    for number in 0..count {
        channel.send(&numbered(number, size)).await?;
    }
    let mut buffer = [0; ROOM];
    let (mut before, mut changed) = (0, Instant::now());
    // the report can overtake packets, so ask until all are there or nothing more comes
    loop {
        channel.send(&[REPORT]).await?;
        let length = match timeout(ASK_AGAIN, channel.recv(&mut buffer)).await {
            Ok(length) => length?,
            // Question or answer found no room.
            Err(_) if changed.elapsed() < ANSWER_LIMIT => continue,
            Err(_) => return fail("no report came back"),
        };
        let [_, a, b, c, d, e, f, g, h, i, j, k, l] = buffer[..length] else {
            return fail(format!("not a report: {length} bytes"));
        };
        let packets = u32::from_le_bytes([a, b, c, d]);
        if packets > before {
            (before, changed) = (packets, Instant::now());
        }
        if packets >= count || changed.elapsed() > SILENCE {
            let span = Duration::from_micros(u32::from_le_bytes([i, j, k, l]).into());
            return Ok(way(packets, u32::from_le_bytes([e, f, g, h]), span, size));
        }
    }
}

/// Packets from the peripheral.
pub async fn down(channel: &mut PacketChannel, count: u32) -> Result<RawWay> {
    let size = channel.size.bytes();
    let mut request = vec![SEND];
    request.extend(count.to_le_bytes());
    request.extend((size as u16).to_le_bytes());
    let (mut buffer, mut counts) = ([0; ROOM], Counts::default());
    channel.send(&request).await?;
    while counts.packets < count {
        match timeout(SILENCE, channel.recv(&mut buffer)).await {
            Ok(Ok(length)) if buffer[..length].starts_with(&[COUNT]) => counts.take(&buffer[..length]),
            // An answer that comes late.
            Ok(Ok(length)) if length > 0 => {}
            _ => break,
        }
    }
    Ok(way(counts.packets, counts.out_of_order, counts.span(), size))
}
