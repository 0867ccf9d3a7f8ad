//! The state of everything in Prometheus' text form. Labels are names of the configuration alone, so there are never more of
//! them than sections: of neighbours there are counts.
//!
//! Source: the text-based exposition format 0.0.4 of Prometheus.

use std::fmt::Write as _;

use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;

use super::api::Api;
use super::body;
use super::error::{ApiError, ErrorBody};
use crate::gateway::durations::Durations;
use crate::gateway::status::{AdapterStatus, DatabaseStatus, GatewayStatus, MqttStatus, RefusedStatus};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The state of everything in Prometheus' text form.
#[utoipa::path(
    get, path = "/metrics", tag = "gateway",
    responses(
        (status = 200, description = "Metrics", body = String, content_type = "text/plain"),
        (status = 503, description = "The gateway does not answer", body = ErrorBody),
    )
)]
pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, ApiError> {
    let text = text_of(&api.status().await?, &api.answered().read());
    Ok(body::answer(StatusCode::OK, CONTENT_TYPE, text.into()))
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// Metrics as they are written.
struct Text(String);

impl Text {
    /// One metric with its samples: labels and a value each.
    fn metric<'l>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, u64)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP gattway_{name} {help}\n# TYPE gattway_{name} {kind}\n");
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.into_iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "gattway_{name}{labels} {value}");
        }
    }
}

impl Text {
    /// A histogram with its samples: labels and durations each.
    fn histogram<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, &'l str)>, Durations)>,
    ) {
        let _ = write!(self.0, "# HELP gattway_{name} {help}\n# TYPE gattway_{name} histogram\n");
        for (labels, durations) in samples {
            let labels: Vec<String> =
                labels.into_iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let labels = labels.join(",");
            for (seconds, count) in durations.steps() {
                let _ = writeln!(self.0, "gattway_{name}_bucket{{{labels},le=\"{seconds}\"}} {count}");
            }
            let Durations { count, sum, .. } = durations;
            let _ = writeln!(self.0, "gattway_{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(self.0, "gattway_{name}_sum{{{labels}}} {}", sum.as_secs_f64());
            let _ = writeln!(self.0, "gattway_{name}_count{{{labels}}} {count}");
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn text_of(status: &GatewayStatus, answered: &[(&'static str, Durations)]) -> String {
    use Kind::{Counter, Gauge};
    let mut text = Text(String::new());
    let one = |value: u64| [(Vec::new(), value)];
    text.metric("info", Gauge, "Version of the program.", [(vec![("version", &*status.version)], 1)]);
    text.metric(
        "start_time_seconds",
        Gauge,
        "When the process began, in seconds since 1970.",
        one(status.since_s),
    );
    if let Some(medium) = &status.medium {
        let help = "Bytes that were handed to the medium, in all lives of the process.";
        text.metric("medium_written_bytes_total", Counter, help, one(medium.written_bytes));
    }
    if let Some(http) = &status.http {
        text.metric(
            "http_listening",
            Gauge,
            "Whether programs can connect over TCP.",
            one(u64::from(http.listening)),
        );
    }
    let answers = answered.iter().map(|(class, durations)| (vec![("status", *class)], *durations));
    text.histogram("http_answer_seconds", "How long requests waited for the head of their answer.", answers);
    let databases = &status.databases;
    let mut each = |name: &str, kind, help: &str, value: &dyn Fn(&DatabaseStatus) -> Option<u64>| {
        let sample = |database| Some((labels(database), value(database)?));
        text.metric(name, kind, help, databases.iter().filter_map(sample));
    };
    let neighbours = |database: &DatabaseStatus,
                      is_one: fn(&crate::gateway::status::NeighbourStatus) -> bool| {
        database.neighbours.iter().filter(|neighbour| is_one(neighbour)).count() as u64
    };
    each("database_open", Gauge, "Whether it is open.", &|database| Some(u64::from(database.open)));
    each("database_failures_total", Counter, "Times that it could not be opened or failed.", &|database| {
        Some(database.failures)
    });
    each("database_free_bytes", Gauge, "What is free on its disk.", &|database| database.free_bytes);
    each("database_full", Gauge, "Whether nothing is stored for want of room.", &|database| {
        Some(u64::from(database.full))
    });
    each("database_commits_total", Counter, "Commits since it was opened.", &|database| {
        Some(database.commits)
    });
    each("database_syncs_total", Counter, "Syncs to the medium since it was opened.", &|database| {
        Some(database.syncs)
    });
    each(
        "database_log_bytes_total",
        Counter,
        "Bytes that its log grew by since it was opened.",
        &|database| Some(database.log_bytes),
    );
    each("database_bytes", Gauge, "Bytes of all its files.", &|database| database.files_bytes);
    each("tombstones_removed_total", Counter, "Tombstones removed for their age.", &|database| {
        Some(database.tombstones_removed)
    });
    each("neighbours", Gauge, "Peers that came or were visited.", &|database| {
        Some(neighbours(database, |_| true))
    });
    each("neighbours_connected", Gauge, "Those that are connected.", &|database| {
        Some(neighbours(database, |neighbour| neighbour.connected))
    });
    each("neighbours_failing", Gauge, "Those whose last sync has failed.", &|database| {
        Some(neighbours(database, |neighbour| neighbour.error.is_some()))
    });
    let transferred = databases.iter().flat_map(|database| {
        [("sent", database.sent_bytes), ("received", database.received_bytes)]
            .map(|(direction, bytes)| (with(database, "direction", direction), bytes))
    });
    let help = "Bytes of replication that went over, without what sessions and links add.";
    text.metric("transferred_bytes_total", Counter, help, transferred);
    let refused = databases.iter().flat_map(|database| {
        let RefusedStatus { strangers, peers } = &database.refused;
        [
            ("stranger", *strangers),
            ("connections", peers.connections),
            ("handshake", peers.handshakes),
            ("stalled", peers.stalled),
            ("violation", peers.violations),
            ("limit", peers.limits),
            ("document", peers.documents),
        ]
        .map(|(reason, count)| (with(database, "reason", reason), count))
    });
    text.metric("refused_total", Counter, "What was refused to peers, by reason.", refused);
    let documents = databases.iter().flat_map(|database| {
        database.collections.iter().map(|one| (with(database, "collection", &one.name), one.documents))
    });
    text.metric("documents", Gauge, "Documents of a collection, without deleted ones.", documents);
    let listening = databases.iter().flat_map(|database| {
        database.listeners.iter().map(|one| (with(database, "listener", &one.name), u64::from(one.listening)))
    });
    text.metric("listener_listening", Gauge, "Whether peers can connect there.", listening);
    let mut upstream =
        |name: &str, kind, help: &str, value: fn(&crate::gateway::status::UpstreamStatus) -> Option<u64>| {
            let samples = databases.iter().flat_map(|database| {
                database
                    .upstreams
                    .iter()
                    .filter_map(|one| Some((with(database, "upstream", &one.name), value(one)?)))
            });
            text.metric(name, kind, help, samples);
        };
    upstream("upstream_documents_total", Counter, "Documents that went over.", |one| Some(one.documents));
    upstream(
        "upstream_pending",
        Gauge,
        "Revisions that are still to go over, as far as they are known.",
        |one| Some(one.pending),
    );
    upstream("upstream_failures_total", Counter, "Times that it failed.", |one| Some(one.failures));
    upstream("upstream_failing", Gauge, "Whether it failed last.", |one| {
        Some(u64::from(one.error.is_some()))
    });
    upstream(
        "upstream_last_synced_seconds",
        Gauge,
        "When all was synced last, in seconds since 1970.",
        |one| one.last_synced_s,
    );
    let syncs = databases.iter().flat_map(|database| {
        database.upstreams.iter().map(|one| (with(database, "upstream", &one.name), one.syncs))
    });
    let help = "How long it took until all was synced, from the moment when it began to connect or something was to be synced.";
    text.histogram("upstream_sync_seconds", help, syncs);
    let mut adapter = |name: &str, help: &str, value: fn(&AdapterStatus) -> u64| {
        let samples = databases.iter().flat_map(|database| {
            database.adapters.iter().map(|one| (with(database, "adapter", &one.name), value(one)))
        });
        text.metric(name, Gauge, help, samples);
    };
    adapter("adapter_connections", "Radio connections of an adapter.", |one| one.links.len() as u64);
    adapter("adapter_slots", "Connections that an adapter is trusted with.", |one| one.slots.into());
    let mut mqtt = |name: &str, kind, help: &str, value: fn(&MqttStatus) -> u64| {
        let samples = databases.iter().flat_map(|database| {
            database.mqtt.iter().map(|one| (with(database, "mqtt", &one.name), value(one)))
        });
        text.metric(name, kind, help, samples);
    };
    mqtt("mqtt_connected", Gauge, "Whether the broker is connected to.", |one| u64::from(one.connected));
    mqtt("mqtt_published_total", Counter, "Messages that were handed to the broker.", |one| one.published);
    mqtt("mqtt_pending", Gauge, "Changes that the broker has not confirmed, at most.", |one| one.pending);
    mqtt("mqtt_skipped_total", Counter, "Documents that cannot be published.", |one| one.skipped);
    mqtt("mqtt_received_total", Counter, "Documents that were made of messages.", |one| one.received);
    mqtt("mqtt_refused_total", Counter, "Messages that no document can be made of.", |one| one.refused);
    mqtt("mqtt_failures_total", Counter, "Times that it failed.", |one| one.failures);
    let removed = databases.iter().flat_map(|database| {
        database.retention.iter().map(|one| (with(database, "rules", &one.name), one.removed))
    });
    text.metric("retention_removed_total", Counter, "Documents that rules have removed.", removed);
    text.0
}

fn labels(database: &DatabaseStatus) -> Vec<(&'static str, &str)> {
    vec![("database", &database.name)]
}

fn with<'d>(
    database: &'d DatabaseStatus,
    label: &'static str,
    value: &'d str,
) -> Vec<(&'static str, &'d str)> {
    vec![("database", &database.name), (label, value)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::gateway::status::{ListenerStatus, MediumStatus, NeighbourStatus, UpstreamStatus};

    #[test]
    fn metrics_have_labels_of_the_configuration_alone() {
        let neighbour =
            |name: &str| NeighbourStatus { name: name.into(), connected: true, ..Default::default() };
        let mut upstream = UpstreamStatus { name: "a\"b\\".into(), pending: 7, ..Default::default() };
        upstream.syncs.note(std::time::Duration::from_millis(1_500));
        let adapter = AdapterStatus { name: "radio".into(), slots: 3, ..Default::default() };
        let database = DatabaseStatus {
            name: "plant".into(),
            open: true,
            neighbours: (0..100).map(|n| neighbour(&format!("stranger {n}"))).collect(),
            upstreams: vec![upstream],
            adapters: vec![adapter],
            ..Default::default()
        };
        let status = GatewayStatus {
            version: "1".into(),
            process: 1,
            since_s: 2,
            now_s: 3,
            config: String::new(),
            databases: vec![database],
            http: Some(ListenerStatus::new("http", "127.0.0.1:0")),
            medium: Some(MediumStatus::default()),
        };
        let mut waited = Durations::default();
        waited.note(std::time::Duration::from_millis(20));
        let text = text_of(&status, &[("2xx", waited)]);
        for line in [
            "gattway_database_open{database=\"plant\"} 1",
            "gattway_neighbours_connected{database=\"plant\"} 100",
            "gattway_upstream_pending{database=\"plant\",upstream=\"a\\\"b\\\\\"} 7",
            "# TYPE gattway_upstream_documents_total counter",
            "gattway_http_listening 0",
            "# TYPE gattway_upstream_sync_seconds histogram",
            "gattway_upstream_sync_seconds_bucket{database=\"plant\",upstream=\"a\\\"b\\\\\",le=\"1\"} 0",
            "gattway_upstream_sync_seconds_bucket{database=\"plant\",upstream=\"a\\\"b\\\\\",le=\"5\"} 1",
            "gattway_upstream_sync_seconds_bucket{database=\"plant\",upstream=\"a\\\"b\\\\\",le=\"+Inf\"} 1",
            "gattway_upstream_sync_seconds_sum{database=\"plant\",upstream=\"a\\\"b\\\\\"} 1.5",
            "gattway_http_answer_seconds_bucket{status=\"2xx\",le=\"0.05\"} 1",
            "gattway_transferred_bytes_total{database=\"plant\",direction=\"received\"} 0",
            "gattway_refused_total{database=\"plant\",reason=\"stranger\"} 0",
            "gattway_adapter_slots{database=\"plant\",adapter=\"radio\"} 3",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
        // What the example of a dashboard asks for is there, and nothing that this has is missing in it but what never changes.
        let dashboard = include_str!("../../../examples/grafana.json");
        let name_of =
            |text: &str| text.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().map(str::to_owned);
        // Of a histogram it asks for the buckets.
        let asked: BTreeSet<String> = dashboard
            .split("gattway_")
            .skip(1)
            .filter_map(name_of)
            .map(|name| name.strip_suffix("_bucket").map_or(name.clone(), str::to_owned))
            .collect();
        let told: BTreeSet<String> = text.split("# TYPE gattway_").skip(1).filter_map(name_of).collect();
        let never: BTreeSet<String> =
            ["info", "http_listening", "listener_listening", "mqtt_connected"].map(str::to_owned).into();
        assert_eq!(asked, &told - &never);
        assert!(!text.contains("stranger 1") && !text.contains("database_free_bytes{"), "{text}");
    }
}
