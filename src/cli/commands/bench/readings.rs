//! Readings of many sensors that come in turn.

use serde_json::json;

use crate::database::bench::BenchDocument;

/// Sensors that take turns, and seconds that all readings cover.
pub(super) const SENSORS: usize = 50;
const MONTH_S: usize = 30 * 24 * 3_600;

/// How their IDs sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// As the readings come.
    Coming,
    /// By sensor, then by time: neighbours came far apart.
    BySensor,
}

/// The name of a sensor.
pub(super) fn sensor(n: usize) -> String {
    format!("s{:02}", n % SENSORS)
}

/// Reading number `n` of so many, from 2026-11-01 on.
pub(super) fn reading(n: usize, count: usize, ids: Ids) -> BenchDocument {
    let second = n * MONTH_S / count;
    let time = format!(
        "2026-11-{:02}T{:02}:{:02}:{:02}Z",
        1 + second / 86_400,
        second / 3_600 % 24,
        second / 60 % 60,
        second % 60
    );
    let celsius = (n * 7_919 % 400) as f64 / 10.0 - 10.0;
    let id = match ids {
        Ids::Coming => format!("r-{n:07}"),
        Ids::BySensor => format!("{}-{:06}", sensor(n), n / SENSORS),
    };
    let body =
        json!({"sensor": sensor(n), "time": time, "celsius": celsius, "humidity": n * 31 % 100, "ok": true});
    BenchDocument { id, json: body.to_string().into_bytes() }
}
