//! The control socket's language: one JSON object a line in, one a line out. `firmware-notes/virtual-bluetooth.md` lists it.
//!
//! Every answer has `"ok"`; a refused command says why in `"error"` and has changed nothing.

use std::time::Duration;

use gattway::lab::transport::sim::radio::EndCounters;
use serde_json::{Map, Value, json};

use crate::world::{ConnectionReport, FaultError, World};

/// Longest line taken, bytes.
pub const LINE_MAX: usize = 4096;

/// Why a command was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Not JSON, or not an object.
    #[error("not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// No such command.
    #[error("unknown command {0:?}; known are list, stats, cut, range, loss, rssi, phy, power-off, deaf")]
    Command(String),
    /// A field is missing or has the wrong type.
    #[error("field {0:?} is missing or not {1}")]
    Field(&'static str, &'static str),
    /// The world refused it.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

/// Carries out one line and gives the answer without its line end.
pub fn handle_line(world: &mut World, line: &str) -> String {
    let answer = match handle(world, line) {
        Ok(mut fields) => {
            fields.insert("ok".into(), true.into());
            Value::Object(fields)
        }
        Err(error) => json!({ "ok": false, "error": error.to_string() }),
    };
    answer.to_string()
}

fn handle(world: &mut World, line: &str) -> Result<Map<String, Value>, ControlError> {
    let fields: Map<String, Value> = serde_json::from_str(line)?;
    let (a, b) = (index(&fields, "a")?, index(&fields, "b")?);
    let command = fields.get("command").and_then(Value::as_str).unwrap_or_default();
    match command {
        "list" | "stats" => return Ok(report(world)),
        "cut" => {
            let milliseconds = number(&fields, "ms")?;
            world.cut(a, b, Duration::from_secs_f64((milliseconds / 1e3).clamp(0.0, 1e6)))?;
        }
        "range" => {
            let reachable = fields.get("reachable").and_then(Value::as_bool);
            world.set_reachable(a, b, reachable.ok_or(ControlError::Field("reachable", "true or false"))?)?;
        }
        "loss" => world.set_loss(a, b, number(&fields, "loss")?)?,
        "rssi" => world.set_rssi(a, b, number(&fields, "dbm")? as i8)?,
        "phy" => {
            let two_m = match fields.get("phy").and_then(Value::as_str) {
                Some("1m") => false,
                Some("2m") => true,
                _ => return Err(ControlError::Field("phy", "\"1m\" or \"2m\"")),
            };
            world.set_phy(a, two_m)?;
        }
        "power-off" => world.power_off(a.ok_or(ControlError::Field("a", "the number of a controller"))?)?,
        "deaf" => world.deafen(a.ok_or(ControlError::Field("a", "the number of a controller"))?)?,
        other => return Err(ControlError::Command(other.to_owned())),
    }
    Ok(Map::new())
}

fn index(fields: &Map<String, Value>, name: &'static str) -> Result<Option<usize>, ControlError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let index = value.as_u64().and_then(|index| usize::try_from(index).ok());
            index.map(Some).ok_or(ControlError::Field(name, "the number of a controller"))
        }
    }
}

fn number(fields: &Map<String, Value>, name: &'static str) -> Result<f64, ControlError> {
    fields.get(name).and_then(Value::as_f64).ok_or(ControlError::Field(name, "a number"))
}

fn report(world: &World) -> Map<String, Value> {
    let controllers: Vec<Value> = (world.controllers().into_iter())
        .map(|c| {
            json!({ "controller": c.index, "address": c.address, "powered": c.powered, "advertising": c.advertising,
                "scanning": c.scanning, "connecting": c.connecting, "commands": c.commands })
        })
        .collect();
    let connections: Vec<Value> = world.connections().iter().map(connection).collect();
    let mut fields = Map::new();
    fields.insert("controllers".into(), controllers.into());
    fields.insert("connections".into(), connections.into());
    fields
}

fn connection(c: &ConnectionReport) -> Value {
    json!({ "central": c.central, "peripheral": c.peripheral, "age_ms": c.age.as_millis() as u64,
        "interval_ms": c.interval_ms, "phy": format!("{}m", c.phy), "octets": c.octets, "encrypted": c.encrypted,
        "events": c.counters.events, "events_missed": c.counters.events_missed,
        "from_central": end(&c.counters.central), "from_peripheral": end(&c.counters.peripheral) })
}

fn end(c: &EndCounters) -> Value {
    json!({ "pdus": c.pdus, "empty_pdus": c.empty_pdus, "retransmissions": c.retransmissions, "lost_pdus": c.lost_pdus,
        "payload_octets": c.payload_octets, "air_time_us": c.air_time_us })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Config;

    #[test]
    fn commands_are_answered_and_nonsense_is_refused() {
        let mut world = World::new(Config::default(), 3);
        let mut ok = |line: &str| {
            let answer: Value = serde_json::from_str(&handle_line(&mut world, line)).expect("JSON");
            (answer["ok"] == true, answer)
        };
        for line in [
            r#"{"command":"list"}"#,
            r#"{"command":"cut","a":0,"ms":2000}"#,
            r#"{"command":"range","a":0,"b":2,"reachable":false}"#,
            r#"{"command":"loss","loss":0.1}"#,
            r#"{"command":"rssi","a":1,"dbm":-80}"#,
            r#"{"command":"phy","phy":"2m"}"#,
            r#"{"command":"power-off","a":1}"#,
            r#"{"command":"deaf","a":2}"#,
        ] {
            assert!(ok(line).0, "{line}");
        }
        assert_eq!(ok(r#"{"command":"list"}"#).1["controllers"][1]["powered"], false);
        for line in [
            "",
            "[]",
            "{}",
            r#"{"command":"fly"}"#,
            r#"{"command":"cut","a":7,"ms":1}"#,
            r#"{"command":"cut","a":0}"#,
            r#"{"command":"loss","loss":1.5}"#,
            r#"{"command":"loss","a":-1,"loss":0.5}"#,
            r#"{"command":"power-off"}"#,
        ] {
            assert!(!ok(line).0, "{line}");
        }
    }
}
