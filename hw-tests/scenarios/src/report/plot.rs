//! Plots as inline SVG: what sessions did over the time of one scenario.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;

use super::junit::escape;
use super::{Mark, Record, figure};
use crate::agent::protocol::Sample;

/// Size of a plot in its own units; it scales with the page.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 128.0;
/// Room for the axes.
const LEFT: f64 = 38.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 18.0;
/// Stretches of time that counters are summed over: at most so many, and none shorter.
const BINS_MAX: usize = 120;
const BIN_S_MIN: f64 = 0.25;

/// Weakest signal that is shown: what a receiver may just hear.
const SIGNAL_FLOOR_DB: f64 = 110.0;

/// What a node did in each stretch of time.
#[derive(Clone, Debug, Default)]
struct Line {
    received: Vec<f64>,
    packets: Vec<f64>,
    again: Vec<f64>,
    /// Largest smoothed round trip; 0: unknown.
    round_trip: Vec<f64>,
    /// Signal strength above -110 dBm; 0: unknown.
    signal: Vec<f64>,
}

/// A record over time.
struct Timeline {
    seconds: f64,
    bin_s: f64,
    nodes: BTreeMap<usize, Line>,
    reconnects: Vec<f64>,
}

/// All plots of a record; nothing if no session was seen.
pub fn plots(record: &Record) -> String {
    let Some(timeline) = Timeline::new(record) else { return String::new() };
    let names = |node: &usize| match node {
        0 => "peripheral".to_owned(),
        1 => "central".to_owned(),
        n => format!("central {n}"),
    };
    let mut out = String::from("<div class=\"plots\">");
    let mut series = |title: &str, unit: &str, value: &dyn Fn(&Line) -> Vec<f64>, steps: bool| {
        let lines: Vec<(String, Vec<f64>)> =
            timeline.nodes.iter().map(|(node, line)| (names(node), value(line))).collect();
        out.push_str(&timeline.svg(title, unit, &lines, steps, &record.marks, record.began_us));
    };
    let bin_s = timeline.bin_s;
    series("received", "KiB/s", &|line| line.received.iter().map(|b| b / 1024.0 / bin_s).collect(), false);
    series("round trip", "ms", &|line| line.round_trip.clone(), false);
    series("packets sent", "1/s", &|line| line.packets.iter().map(|p| p / bin_s).collect(), false);
    let again: f64 = timeline.nodes.values().flat_map(|line| &line.again).sum();
    if again > 0.0 {
        series("packets sent again", "", &|line| line.again.clone(), true);
    }
    if timeline.nodes.values().any(|line| line.signal.iter().any(|db| *db > 0.0)) {
        series("signal, dB above -110 dBm", "", &|line| line.signal.clone(), false);
    }
    out.push_str("</div>");
    out
}

impl Timeline {
    fn new(record: &Record) -> Option<Timeline> {
        let samples = &record.samples;
        let end = samples.iter().map(|(_, s)| s.at_us).max()?;
        let seconds = (end.saturating_sub(record.began_us) as f64 / 1e6).max(0.5);
        let bin_s = (seconds / BINS_MAX as f64).max(BIN_S_MIN);
        let bins = (seconds / bin_s).ceil() as usize + 1;
        let mut timeline = Timeline { seconds, bin_s, nodes: BTreeMap::new(), reconnects: Vec::new() };
        let mut before: BTreeMap<(usize, u32), &Sample> = BTreeMap::new();
        for (node, sample) in samples {
            let at = sample.at_us.saturating_sub(record.began_us) as f64 / 1e6;
            let bin = ((at / bin_s) as usize).min(bins - 1);
            let line = timeline.nodes.entry(*node).or_insert_with(|| Line {
                received: vec![0.0; bins],
                packets: vec![0.0; bins],
                again: vec![0.0; bins],
                round_trip: vec![0.0; bins],
                signal: vec![0.0; bins],
            });
            let last = before.get(&(*node, sample.session)).copied();
            // What came between two samples is spread over that time.
            let since = last.map_or(at, |last| last.at_us.saturating_sub(record.began_us) as f64 / 1e6);
            let first_bin = ((since / bin_s) as usize).min(bin);
            let more = |value: fn(&Sample) -> u64| value(sample).saturating_sub(last.map_or(0, value)) as f64;
            for (bin, share) in shares(first_bin..=bin, since, at, bin_s) {
                line.received[bin] += share * more(|s| s.received);
                line.packets[bin] += share * more(|s| s.packets_sent);
            }
            line.again[bin] += more(|s| s.retransmissions);
            line.round_trip[bin] = line.round_trip[bin].max(sample.srtt_ms);
            if let Some(rssi) = sample.rssi_dbm {
                line.signal[bin] = (f64::from(rssi) + SIGNAL_FLOOR_DB).max(0.0);
            }
            if last.is_some_and(|last| sample.resumes > last.resumes) {
                timeline.reconnects.push(at);
            }
            before.insert((*node, sample.session), sample);
        }
        for line in timeline.nodes.values_mut() {
            // They hold until others are known.
            for values in [&mut line.round_trip, &mut line.signal] {
                for bin in 1..bins {
                    if values[bin] == 0.0 {
                        values[bin] = values[bin - 1];
                    }
                }
            }
        }
        Some(timeline)
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.seconds).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn svg(
        &self,
        title: &str,
        unit: &str,
        lines: &[(String, Vec<f64>)],
        steps: bool,
        marks: &[Mark],
        began_us: u64,
    ) -> String {
        let top = nice(lines.iter().flat_map(|(_, values)| values).copied().fold(0.0, f64::max));
        let y = |value: f64| HEIGHT - BOTTOM - (value / top).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<figure><figcaption>{}{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0} over time\">",
            escape(title),
            if unit.is_empty() { String::new() } else { format!(", {}", escape(unit)) }
        );
        // Writing into a String cannot fail.
        for part in [0.0, 0.5, 1.0] {
            let (value, line) = (top * part, y(top * part));
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{line:.1}\" y2=\"{line:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 4.0,
                line + 3.0,
                figure(value)
            );
        }
        for (part, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
            let seconds = self.seconds * part;
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{seconds:.1} s</text>",
                self.x(seconds),
                HEIGHT - 4.0
            );
        }
        for mark in marks {
            let x = self.x(mark.at_us.saturating_sub(began_us) as f64 / 1e6);
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{}\"><title>{}</title></line>",
                HEIGHT - BOTTOM,
                escape(&mark.text)
            );
        }
        for at in &self.reconnects {
            let x = self.x(*at);
            let _ = write!(
                svg,
                "<path class=\"back\" d=\"M{x:.1} {:.1}l-4 7h8z\"><title>resumed</title></path>",
                HEIGHT - BOTTOM - 7.0
            );
        }
        for (index, (name, values)) in lines.iter().enumerate() {
            let class = index.min(2);
            if steps {
                for (bin, value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
                    let (x, top) = (self.x(bin as f64 * self.bin_s), y(*value));
                    let _ = write!(
                        svg,
                        "<rect class=\"f{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"2\" height=\"{:.1}\"><title>{}: {value}</title></rect>",
                        HEIGHT - BOTTOM - top,
                        escape(name)
                    );
                }
                continue;
            }
            let mut path = String::new();
            for (bin, value) in values.iter().enumerate() {
                let command = if bin == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{command}{:.1} {:.1}", self.x(bin as f64 * self.bin_s), y(*value));
            }
            let _ =
                write!(svg, "<path class=\"l{class}\" d=\"{path}\"><title>{}</title></path>", escape(name));
        }
        svg.push_str("</svg></figure>");
        svg
    }
}

/// The share of the time from `since` to `at` that lies in each bin.
fn shares(
    bins: RangeInclusive<usize>,
    since: f64,
    at: f64,
    bin_s: f64,
) -> impl Iterator<Item = (usize, f64)> {
    let whole = at - since;
    let last = *bins.end();
    bins.map(move |bin| {
        if whole <= 0.0 {
            return (bin, if bin == last { 1.0 } else { 0.0 });
        }
        // What lies beyond the last bin belongs to it.
        let end = if bin == last { at } else { at.min((bin + 1) as f64 * bin_s) };
        (bin, (end - since.max(bin as f64 * bin_s)).max(0.0) / whole)
    })
}

/// The next round number: the top of an axis.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let base = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * base).find(|n| *n >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Config;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (value, top) in [(0.0, 1.0), (0.7, 1.0), (1.1, 2.0), (34.0, 50.0), (100.0, 100.0), (137.0, 200.0)]
        {
            assert!((nice(value) - top).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn increments_of_several_sessions_add_up_and_a_resume_is_seen() {
        let mut record = Record::new("x", "y", Config::Default, 1);
        record.began_us = 1_000_000;
        let sample = |session, at_us, received, resumes| Sample {
            session,
            at_us,
            received,
            resumes,
            ..Sample::default()
        };
        record.samples = vec![
            (0, sample(1, 1_100_000, 100, 0)),
            (0, sample(2, 1_150_000, 50, 0)),
            (0, sample(1, 3_000_000, 300, 1)),
        ];
        let timeline = Timeline::new(&record).expect("samples");
        let line = &timeline.nodes[&0];
        assert_eq!(line.received.iter().sum::<f64>().round() as u64, 350);
        assert!(line.received[0] > 150.0 && line.received[0] < 200.0, "a part of what came until 3 s");
        assert!(line.received[4] > 0.0, "another part");
        assert_eq!(timeline.reconnects.len(), 1);
        assert!(plots(&record).contains("<svg"));
    }
}
