//! Goodput of the link protocol by what raw packets carry on the same connection, in virtual time: the same figures on
//! every machine.

use std::time::Duration;

use super::figure::Figure;
use super::{CliError, Exit};
use crate::link::AttMtu;
use crate::transport::sim::HostConfig;
use crate::transport::sim::bench::{LinkBench, link_goodput};
use crate::transport::sim::radio::Side;

/// Connection intervals that have a target, milliseconds.
const INTERVALS_MS: [f64; 3] = [7.5, 30.0, 50.0];

/// Share of packets that host buffers drop in the lossy runs.
const DROP: f64 = 0.02;

pub(super) fn measure() -> Result<Vec<Figure>, CliError> {
    let mut figures = Vec::new();
    for interval_ms in INTERVALS_MS {
        for from in [Side::Central, Side::Peripheral] {
            let ratio = goodput_ratio(interval_ms, 247, 0.0, from)?;
            figures.push(figure(interval_ms, 247, 0.0, from, ratio).at_least(0.95));
            let ratio = goodput_ratio(interval_ms, 247, DROP, from)?;
            figures.push(figure(interval_ms, 247, DROP, from, ratio).at_least(0.85));
        }
    }
    for mtu in [23, 517] {
        let ratio = goodput_ratio(30.0, mtu, 0.0, Side::Central)?;
        figures.push(figure(30.0, mtu, 0.0, Side::Central, ratio));
    }
    Ok(figures)
}

fn goodput_ratio(interval_ms: f64, mtu: u16, drop: f64, from: Side) -> Result<f64, CliError> {
    let mut bench = LinkBench { att_mtu: AttMtu::new(mtu), from, ..LinkBench::default() };
    bench.setup.parameters.interval = Duration::from_secs_f64(interval_ms / 1000.0);
    bench.host = HostConfig { drop, ..bench.host };
    let measured = link_goodput(&bench);
    measured.map(|goodput| goodput.ratio).map_err(|error| CliError::new(Exit::Failure, error.to_string()))
}

fn figure(interval_ms: f64, mtu: u16, drop: f64, from: Side, ratio: f64) -> Figure {
    let from = match from {
        Side::Central => "central",
        Side::Peripheral => "peripheral",
    };
    let dropped = if drop > 0.0 { format!(", {} % dropped", drop * 100.0) } else { String::new() };
    let name = format!("goodput / raw packets, {interval_ms} ms, MTU {mtu}{dropped}, {from} sends");
    Figure::new("link", name, ratio, "ratio")
}
