//! JUnit's XML, as continuous integration reads it.

use std::fmt::Write;

use super::{Record, Report, Status, measured};

/// The whole file.
pub fn junit(report: &Report) -> String {
    let (tests, failures, skipped) =
        (report.records.len(), report.count(Status::Failed), report.count(Status::Skipped));
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let name = escape(&format!("hw-test.{}", report.rig));
    // Writing into a String cannot fail.
    let _ = writeln!(xml, "<testsuites>");
    let _ = writeln!(
        xml,
        "<testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" skipped=\"{skipped}\" time=\"{:.3}\" timestamp=\"{}\">",
        report.seconds,
        escape(&report.began)
    );
    for record in &report.records {
        case(&mut xml, &name, record);
    }
    xml.push_str("</testsuite>\n</testsuites>\n");
    xml
}

fn case(xml: &mut String, suite: &str, record: &Record) {
    let name =
        if record.run > 1 { format!("{} (run {})", record.name, record.run) } else { record.name.to_owned() };
    let _ = writeln!(
        xml,
        "<testcase classname=\"{suite}\" name=\"{}\" time=\"{:.3}\">",
        escape(&name),
        record.seconds
    );
    let reason = escape(record.reason.as_deref().unwrap_or_default());
    match record.status {
        Status::Passed => {}
        Status::Failed => {
            let _ = writeln!(xml, "<failure message=\"{reason}\"/>");
        }
        Status::Skipped => {
            let _ = writeln!(xml, "<skipped message=\"{reason}\"/>");
        }
    }
    let figures: Vec<String> =
        record.metrics.iter().map(|m| format!("{}: {}", m.name, measured(m))).collect();
    let text = figures.into_iter().chain(record.notes.iter().cloned()).collect::<Vec<_>>().join("\n");
    let _ = writeln!(xml, "<system-out>{}</system-out>\n</testcase>", escape(&text));
}

/// Text as XML and HTML take it; control characters that XML forbids are dropped.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_forbids_is_escaped_or_dropped() {
        assert_eq!(escape("a<b>&\"c\"\u{1b}[0m\n"), "a&lt;b&gt;&amp;&quot;c&quot;[0m\n");
    }
}
