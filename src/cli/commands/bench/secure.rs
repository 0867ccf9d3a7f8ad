//! The secure session: goodput, bytes and handshake on the modelled radio beside the same without it, and CPU.

use std::time::Duration;

use super::figure::Figure;
use super::{CliError, Exit};
use crate::database::bench::process_cpu;
use crate::link::AttMtu;
use crate::secure::RECORD_OVERHEAD_BYTES;
use crate::transport::secure::bench::{SecureRun, flights, handshake, seal_and_open, transfer};
use crate::transport::sim::bench::LinkBench;

/// Connection intervals, milliseconds.
const INTERVALS_MS: [f64; 3] = [7.5, 30.0, 50.0];
/// Bytes of a transfer.
const TRANSFER_BYTES: u64 = 2_000_000;
/// Bytes encrypted and decrypted in memory.
const CPU_BYTES: u64 = 64 << 20;
/// Handshakes in memory.
const HANDSHAKES: u32 = 50;

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let mut figures = Vec::new();
    for interval_ms in INTERVALS_MS {
        let (plain, secure) = (run(interval_ms, 247, false)?, run(interval_ms, 247, true)?);
        let ratio = secure.goodput_bytes_per_s / plain.goodput_bytes_per_s;
        let name = format!("goodput with / without, {interval_ms} ms, MTU 247");
        figures.push(Figure::new("secure", name, ratio, "ratio").at_least(0.95));
        let extra = secure.first_byte.saturating_sub(plain.first_byte);
        // One round trip of the protocol: an offer in one connection event, its answer in the next, then the proof.
        let intervals = milliseconds(extra) / interval_ms;
        let name = format!("handshake, {interval_ms} ms: connection intervals until the first byte");
        figures.push(Figure::new("secure", name, intervals, "").at_most(3.0).aim(2.0));
        figures.push(Figure::new("secure", "  the same in time", milliseconds(extra), "ms"));
    }
    let flights = flights().map_err(|error| CliError::new(Exit::Failure, error.to_string()))?;
    let name = "handshake: round trips of the protocol until the first byte";
    figures.push(Figure::new("secure", name, f64::from(flights / 2), "").at_most(1.0));
    let (plain, secure) = (run(30.0, 247, false)?, run(30.0, 247, true)?);
    let more = secure.stream_bytes as f64 - plain.stream_bytes as f64;
    let per_packet = more / (plain.packets as f64);
    figures.push(Figure::new("secure", "overhead of a bulk transfer per packet", per_packet, "bytes"));
    let overhead = RECORD_OVERHEAD_BYTES as f64;
    figures.push(Figure::new("secure", "overhead of a message that goes alone", overhead, "bytes"));
    let (small_plain, small_secure) = (run(30.0, 23, false)?, run(30.0, 23, true)?);
    let ratio = small_secure.goodput_bytes_per_s / small_plain.goodput_bytes_per_s;
    figures
        .push(Figure::new("secure", "goodput with / without, 30 ms, MTU 23", ratio, "ratio").at_least(0.95));
    figures.extend(cpu()?);
    Ok(figures)
}

fn run(interval_ms: f64, mtu: u16, secure: bool) -> Result<SecureRun, CliError> {
    let mut bench = LinkBench { att_mtu: AttMtu::new(mtu), ..LinkBench::default() };
    bench.setup.parameters.interval = Duration::from_secs_f64(interval_ms / 1000.0);
    let bytes = if mtu < 100 { TRANSFER_BYTES / 20 } else { TRANSFER_BYTES };
    transfer(&bench, bytes, secure).map_err(|error| CliError::new(Exit::Failure, error.to_string()))
}

fn cpu() -> Result<Vec<Figure>, CliError> {
    let failed = |error: crate::secure::SecureError| CliError::new(Exit::Failure, error.to_string());
    let before = process_cpu();
    for _ in 0..HANDSHAKES {
        handshake().map_err(failed)?;
    }
    let shaken = process_cpu().saturating_sub(before) / HANDSHAKES;
    let before = process_cpu();
    seal_and_open(CPU_BYTES).map_err(failed)?;
    let sealed = process_cpu().saturating_sub(before).as_secs_f64() / (CPU_BYTES as f64 / 1e6);
    Ok(vec![
        Figure::new("secure", "CPU of a handshake, both sides", milliseconds(shaken), "ms"),
        Figure::new("secure", "CPU to encrypt and decrypt 1 MB", sealed * 1e3, "ms"),
    ])
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
