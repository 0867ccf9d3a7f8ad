//! `report.html`: one file without anything outside of it, for a screen of any size, light or dark.

use std::fmt::Write;

use super::junit::escape;
use super::plot::plots;
use super::{Metric, Record, Report, Status, figure, measured, median};

const STYLE: &str = include_str!("report.css");

/// The whole page.
pub fn html(report: &Report) -> String {
    let [passed, failed, skipped] =
        [Status::Passed, Status::Failed, Status::Skipped].map(|status| report.count(status));
    let verdict = match (passed, failed) {
        (_, 1..) => ("bad", format!("{failed} of {} failed", passed + failed)),
        (0, 0) => ("none", "nothing was tested".to_owned()),
        _ => ("good", "all that ran has passed".to_owned()),
    };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>gattway on {}: {}</title><style>{STYLE}</style></head>\n<body><main>",
        escape(&report.rig),
        verdict.1
    );
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "<header class=\"{}\"><h1>gattway on the rig <em>{}</em></h1><p class=\"verdict\">{}</p>\
         <p class=\"counts\"><b class=\"passed\">{passed}</b> passed <b class=\"failed\">{failed}</b> failed \
         <b class=\"skipped\">{skipped}</b> skipped</p><p class=\"when\">{}, {} s{}</p></header>",
        verdict.0,
        escape(&report.rig),
        verdict.1,
        escape(&report.began),
        figure(report.seconds.round()),
        if report.full { ", long forms" } else { ", short forms" }
    );
    glance(&mut out, report);
    machines(&mut out, report);
    table(&mut out, report);
    out.push_str("<h2>One by one</h2><p class=\"legend\"><i class=\"k0\"></i>peripheral <i class=\"k1\"></i>central <i class=\"k2\"></i>second central \
                  <i class=\"km\"></i>something was done to it <i class=\"kb\"></i>session resumed</p>");
    for record in &report.records {
        details(&mut out, record);
    }
    out.push_str("</main></body></html>\n");
    out
}

/// The few figures by which adapters are good or not.
fn glance(out: &mut String, report: &Report) {
    let all = |list: fn(&Record) -> &Vec<f64>| -> Vec<f64> {
        report.records.iter().flat_map(|record| list(record).clone()).collect()
    };
    let of = |scenario: &str, metric: &str| {
        let values: Vec<f64> = report.figures(scenario, metric).iter().map(|m| m.value).collect();
        median(&values)
    };
    let text = |value: Option<f64>, unit: &str| {
        value.map(|value| format!("{} <small>{unit}</small>", figure(value)))
    };
    let pair = |a: Option<f64>, b: Option<f64>, unit: &str| match (a, b) {
        (Some(a), Some(b)) => Some(format!("{} / {} <small>{unit}</small>", figure(a), figure(b))),
        _ => None,
    };
    let cards = [
        ("connected within", text(median(&all(|r| &r.connects)), "s, median")),
        (
            "GATT, up / down",
            pair(of("speed", "GATT: session, up"), of("speed", "GATT: session, down"), "KiB/s"),
        ),
        (
            "of what raw packets do",
            pair(of("speed", "GATT: session by raw, up"), of("speed", "GATT: session by raw, down"), ""),
        ),
        (
            "L2CAP, up / down",
            pair(of("speed", "L2CAP: session, up"), of("speed", "L2CAP: session, down"), "KiB/s"),
        ),
        (
            "of what raw packets do",
            pair(of("speed", "L2CAP: session by raw, up"), of("speed", "L2CAP: session by raw, down"), ""),
        ),
        ("there and back", text(of("small-messages", "there and back, median"), "ms, median")),
        ("9,103 records", text(of("sync", "all records, GATT"), "s, GATT")),
        ("after a cut, new bytes in", text(median(&all(|r| &r.reconnects)), "s, median")),
        ("signal", text(of("discover", "RSSI"), "dBm")),
    ];
    out.push_str("<section class=\"cards\">");
    for (name, value) in cards.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        let _ = write!(out, "<div><b>{value}</b><span>{name}</span></div>");
    }
    out.push_str("</section>");
}

fn machines(out: &mut String, report: &Report) {
    let _ = write!(out, "<h2>The rig</h2><dl><dt>radio</dt><dd>{}</dd>", escape(&report.radio));
    for (config, machines) in &report.machines {
        for machine in machines {
            let _ = write!(
                out,
                "<dt>{} <small>{}</small></dt><dd>Linux {}, BlueZ {}, {} ATT channel{}, MTU {}<ul>",
                escape(&machine.name),
                config.name(),
                escape(&machine.kernel),
                escape(&machine.bluez),
                machine.channels,
                if machine.channels == 1 { "" } else { "s" },
                machine.exchange_mtu
            );
            // The same adapters in another configuration are not told again.
            let known = report.machines[0].1.iter().any(|first| first.adapters == machine.adapters);
            let news = config == &report.machines[0].0 || !known;
            for adapter in machine.adapters.iter().filter(|_| news) {
                let _ = write!(out, "<li>{}</li>", escape(adapter));
            }
            out.push_str("</ul></dd>");
        }
    }
    out.push_str("</dl>");
}

fn pill(status: Status) -> &'static str {
    match status {
        Status::Passed => "<span class=\"pill passed\">pass</span>",
        Status::Failed => "<span class=\"pill failed\">FAIL</span>",
        Status::Skipped => "<span class=\"pill skipped\">skip</span>",
    }
}

fn table(out: &mut String, report: &Report) {
    out.push_str("<h2>Scenarios</h2><div class=\"wide\"><table><thead><tr><th>scenario</th><th>result</th><th>seconds</th><th>measured</th></tr></thead><tbody>");
    let mut names: Vec<&str> = Vec::new();
    for record in &report.records {
        if !names.contains(&record.name) {
            names.push(record.name);
        }
    }
    for name in names {
        let runs: Vec<&Record> = report.records.iter().filter(|record| record.name == name).collect();
        let worst = runs.iter().find(|r| r.status == Status::Failed).unwrap_or(&runs[runs.len() - 1]);
        let pills: String = runs.iter().map(|run| pill(run.status)).collect();
        let seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
        let text = match &worst.reason {
            Some(reason) => format!("<span class=\"why\">{}</span>", escape(reason)),
            None => worst.metrics.iter().take(3).map(chip).collect(),
        };
        let _ = write!(
            out,
            "<tr><td><a href=\"#{name}-{}\">{name}</a></td><td>{pills}</td><td class=\"n\">{:.1}</td><td>{text}</td></tr>",
            worst.run,
            median(&seconds).unwrap_or(0.0)
        );
    }
    out.push_str("</tbody></table></div>");
}

fn chip(metric: &Metric) -> String {
    format!("<span class=\"chip\">{} <b>{}</b></span>", escape(&metric.name), escape(&measured(metric)))
}

fn details(out: &mut String, record: &Record) {
    let run = if record.run > 1 { format!(" <small>run {}</small>", record.run) } else { String::new() };
    let _ = write!(
        out,
        "<article id=\"{}-{}\"><h3>{} {}{run}</h3><p class=\"about\">{}</p>",
        record.name,
        record.run,
        pill(record.status),
        record.name,
        escape(record.about)
    );
    if let Some(reason) = &record.reason {
        let _ = write!(out, "<p class=\"why\">{}</p>", escape(reason));
    }
    if !record.metrics.is_empty() {
        out.push_str("<table class=\"figures\">");
        for metric in &record.metrics {
            let target =
                metric.target.as_ref().map_or(String::new(), |t| format!("<small>{}</small>", escape(t)));
            let _ = write!(
                out,
                "<tr><td>{}</td><td class=\"n\"><b>{}</b></td><td>{target}</td></tr>",
                escape(&metric.name),
                escape(&measured(metric))
            );
        }
        out.push_str("</table>");
    }
    out.push_str(&plots(record));
    if !record.marks.is_empty() {
        out.push_str("<p class=\"marks\">");
        for mark in &record.marks {
            let at = mark.at_us.saturating_sub(record.began_us) as f64 / 1e6;
            let _ = write!(out, "<span>{at:.1} s {}</span>", escape(&mark.text));
        }
        out.push_str("</p>");
    }
    for note in &record.notes {
        let _ = write!(out, "<details><summary>output</summary><pre>{}</pre></details>", escape(note));
    }
    out.push_str("</article>");
}
