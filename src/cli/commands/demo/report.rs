//! What the demo tells at the end: a table for people, one object for scripts.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::compare::Comparison;
use super::scenes::Scene;
use crate::cli::support::air::Traffic;
use crate::cli::support::output::{bytes_text, counted, thousands};

/// What one row says of a scene.
type Cell<'a> = &'a dyn Fn(&Scene) -> String;

/// A scene with fewer documents says nothing about speed.
const FEW: u64 = 1000;

/// The result of a demo. The field names are a promise to scripts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Whether both databases are equal in the end: documents, revisions, tombstones.
    equal: bool,
    /// Documents of the first sync.
    documents: u64,
    /// Their size as JSON, one line each, bytes.
    json_bytes: u64,
    /// Bytes of ATT values in the first sync, both directions, link headers and acknowledgements included.
    air_bytes: u64,
    /// The same by documents.
    air_bytes_per_document: f64,
    /// Octets on air in the first sync with every header of the radio, empty PDUs included.
    radio_octets: u64,
    /// Time on air of the first sync, seconds.
    air_time_s: f64,
    /// Packets (ATT values) of the first sync.
    packets: u64,
    /// Connection events of the radio.
    connection_events: u64,
    /// What the field device's radio takes for it if it is an nRF52840, microjoules.
    field_radio_uj: f64,
    /// PDUs that the radio sent again, and packets that the link sent again, in the first sync.
    retransmissions: u64,
    /// Bytes of the stream that went over twice because of the cut, first sync.
    bytes_sent_twice: u64,
    /// Bytes of the byte stream above the link (compressed documents) by the time between the first and the last byte
    /// of it, without the outage, first sync.
    goodput_bytes_per_s: f64,
    /// What raw packets carry on the same connection.
    ceiling_bytes_per_s: f64,
    /// Goodput by ceiling.
    goodput_ratio: f64,
    /// Bytes of JSON by the same time.
    json_bytes_per_s: f64,
    /// Whether the first sync was cut and the same session went on.
    resumed: bool,
    /// Radio time of the first sync, the cut included, seconds.
    first_sync_s: f64,
    /// Bytes of ATT values of the sync with nothing to do.
    idle_sync_air_bytes: u64,
    /// Documents that both databases have in the end.
    documents_equal: u64,
    /// Tombstones that both have in the end.
    tombstones_equal: u64,
    /// Time of the whole demo, seconds.
    seconds: f64,
}

impl Report {
    pub(super) fn new(
        scenes: &[Scene],
        comparison: &Comparison,
        json_bytes: u64,
        ceiling_bytes_per_s: f64,
        elapsed: Duration,
    ) -> Report {
        let empty = Scene { title: "", documents: 0, traffic: Traffic::default() };
        let first = scenes.first().unwrap_or(&empty);
        let last = scenes.last().unwrap_or(&empty);
        let traffic = first.traffic;
        let goodput = traffic.goodput_bytes_per_s();
        Report {
            equal: comparison.difference.is_none(),
            documents: first.documents,
            json_bytes,
            air_bytes: traffic.bytes,
            air_bytes_per_document: round(traffic.bytes as f64 / first.documents.max(1) as f64, 2),
            radio_octets: traffic.radio_octets,
            air_time_s: round(traffic.air_time_s, 3),
            packets: traffic.packets,
            connection_events: traffic.radio.events,
            field_radio_uj: round(traffic.field_uj, 1),
            retransmissions: traffic.radio_retransmissions + traffic.link_retransmissions,
            bytes_sent_twice: traffic.bytes_retransmitted,
            goodput_bytes_per_s: round(goodput, 0),
            ceiling_bytes_per_s: round(ceiling_bytes_per_s, 0),
            json_bytes_per_s: round(json_bytes as f64 / traffic.streaming_s().max(f64::MIN_POSITIVE), 0),
            goodput_ratio: round(goodput / ceiling_bytes_per_s, 3),
            resumed: traffic.resumes > 0,
            first_sync_s: round(traffic.seconds, 3),
            idle_sync_air_bytes: last.traffic.bytes,
            documents_equal: comparison.documents,
            tombstones_equal: comparison.tombstones,
            seconds: round(elapsed.as_secs_f64(), 2),
        }
    }

    /// One column a scene.
    pub(super) fn table(&self, scenes: &[Scene]) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header(std::iter::once("").chain(scenes.iter().map(|scene| scene.title)));
        let only_first = |cell: String| {
            move |scene: &Scene| if scene.documents < FEW { String::new() } else { cell.clone() }
        };
        let json = only_first(thousands(self.json_bytes));
        let goodput = only_first(self.goodput_text());
        let documents_rate = only_first(self.json_rate_text());
        let rows: [(&str, Cell<'_>); 13] = [
            ("documents over the air", &|scene| thousands(scene.documents)),
            ("bytes of JSON", &json),
            ("bytes on air (ATT values, both ways)", &|scene| thousands(scene.traffic.bytes)),
            ("  per document", &|scene| match scene.documents {
                0 => String::new(),
                n => format!("{:.1}", scene.traffic.bytes as f64 / n as f64),
            }),
            ("  with all headers of the radio", &|scene| thousands(scene.traffic.radio_octets)),
            ("packets", &|scene| thousands(scene.traffic.packets)),
            ("retransmissions (radio, link)", &|scene| retransmissions(&scene.traffic)),
            ("time on air / in all", &|scene| {
                format!("{:.2} s / {:.2} s", scene.traffic.air_time_s, scene.traffic.seconds)
            }),
            ("connection events", &|scene| thousands(scene.traffic.radio.events)),
            ("radio of the field device (nRF52840)", &|scene| {
                format!("{:.2} mJ", scene.traffic.field_uj / 1e3)
            }),
            ("goodput of the link, bytes/s", &goodput),
            ("  ceiling of raw packets", &only_first(thousands(self.ceiling_bytes_per_s as u64))),
            ("JSON carried, bytes/s", &documents_rate),
        ];
        for (label, cell) in rows {
            table.add_row(std::iter::once(label.to_owned()).chain(scenes.iter().map(cell)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    fn goodput_text(&self) -> String {
        format!("{} = {:.0} %", thousands(self.goodput_bytes_per_s as u64), self.goodput_ratio * 100.0)
    }

    fn json_rate_text(&self) -> String {
        let ratio = self.json_bytes_per_s / self.ceiling_bytes_per_s;
        format!("{} = {ratio:.1} x the ceiling", thousands(self.json_bytes_per_s as u64))
    }

    /// Why documents can be faster than the connection.
    pub(super) fn explanation(&self) -> Option<String> {
        let ratio = self.json_bytes_per_s / self.ceiling_bytes_per_s;
        let (json, air) = (bytes_text(self.json_bytes), bytes_text(self.air_bytes));
        (ratio > 1.0).then(|| {
            format!(
                "JSON is carried faster than the ceiling because it travels compressed, many documents in one message: \
                 {json} went over in {air}"
            )
        })
    }

    /// The last line.
    pub(super) fn verdict(&self, comparison: &Comparison) -> String {
        match &comparison.difference {
            None => format!(
                "equal: {} documents and {}, compared revision by revision; {:.1} s in all",
                thousands(self.documents_equal),
                counted(self.tombstones_equal, "tombstone"),
                self.seconds
            ),
            Some(difference) => format!("NOT equal: {difference}"),
        }
    }
}

fn retransmissions(traffic: &Traffic) -> String {
    format!("{}, {}", thousands(traffic.radio_retransmissions), thousands(traffic.link_retransmissions))
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}
