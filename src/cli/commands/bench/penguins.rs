//! Field observations as documents.

use serde_json::Value;

use super::{CliError, Exit};
use crate::cli::commands::demo::Sample;

/// See `hw-tests/data/README.md`.
const PENGUINS: &[u8] = include_bytes!("../../../../hw-tests/data/penguins.json");

/// The records, numbered.
pub(super) fn penguins() -> Result<Vec<Sample>, CliError> {
    let records: Vec<Value> = serde_json::from_slice(PENGUINS)
        .map_err(|error| CliError::new(Exit::Failure, format!("the sample of penguins: {error}")))?;
    let sample = |(n, record)| match record {
        Value::Object(body) => Some(Sample { id: format!("penguin-{n:03}"), body }),
        _ => None,
    };
    Ok(records.into_iter().enumerate().filter_map(sample).collect())
}
