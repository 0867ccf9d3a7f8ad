//! Deltas of documents: one JSON object, and another that is made of it, or that is taken for a delta on it.

use gattway::lab::fuzzing::delta;
use serde_json::{Map, Value};

use super::super::memory;

/// Memory of a delta that is applied, beside its base and itself, in bytes; a value takes as much in a tree.
const OVERHEAD: usize = 64 * 1024;
const PER_BYTE: usize = 300;

/// Takes two objects, a line each; what is no object is any bytes.
pub fn run(input: &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (base, other) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let (applied, held) = memory::peak(|| delta::applied(base, other));
    assert!(held <= PER_BYTE * input.len() + OVERHEAD, "{held} bytes held for {}", input.len());
    if let Some(applied) = applied {
        let _: Map<String, Value> = serde_json::from_slice(&applied).expect("an object");
    }
    let object = |text: &[u8]| serde_json::from_slice::<Map<String, Value>>(text).ok();
    if let (Some(base), Some(new)) = (object(base), object(other)) {
        let made = delta::between(&base, &new);
        let [base, delta, new] = [base, made, new].map(|object| Value::Object(object).to_string());
        let again = delta::applied(base.as_bytes(), delta.as_bytes()).expect("it fits");
        assert_eq!(String::from_utf8(again).expect("text"), new, "{delta}");
    }
}
