//! The door to what the command reads, for the fuzz targets.

use serde_json::{Map, Value};

use crate::cli::support::records::{self, Reading, Record};
use crate::gateway::address::PlaceAddress;

/// Reads records as an import does: 0 NDJSON, 1 a JSON array, else CSV; gives those before the first that is refused.
///
/// # Errors
/// What is said about the one that is refused.
pub fn records(format: u8, input: &[u8]) -> (Vec<Map<String, Value>>, Result<(), String>) {
    let mut read = Vec::new();
    let mut take = |record: Record| {
        read.push(record.fields);
        Ok(())
    };
    let result = match format {
        0 => records::read(input, Reading::Lines, &mut take),
        1 => records::read(input, Reading::Array, &mut take),
        _ => records::survey(input, b',', &[], false, &mut |_| ())
            .and_then(|survey| records::read(input, Reading::Table(&survey.columns), &mut take)),
    };
    (read, result.map_err(|error| error.to_string()))
}

/// Reads where a peer is and prints it again.
///
/// # Errors
/// What is said about the text.
pub fn place(text: &str) -> Result<String, String> {
    text.parse::<PlaceAddress>().map(|place| place.to_string())
}
