//! JSON in the one form of which the digest of a revision in a tree is made: keys in the order of their bytes, no spaces, text as it
//! is but for what must be escaped, doubles as short as they read back.
//!
//! Source: `firmware-notes/replication.md`, revision IDs. Nobody depends on it: to everybody else a digest is opaque, and the same
//! edit on two devices is the same revision if both write it alike.

use std::fmt::Write;

use serde_json::{Map, Number, Value};

/// The value in its canonical form.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    push_value(&mut text, value);
    text
}

fn push_value(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Number(number) => push_number(text, number),
        Value::String(string) => push_string(text, string),
        Value::Array(items) => push_array(text, items),
        Value::Object(members) => push_object(text, members),
    }
}

fn push_array(text: &mut String, items: &[Value]) {
    text.push('[');
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        push_value(text, item);
    }
    text.push(']');
}

fn push_object(text: &mut String, members: &Map<String, Value>) {
    let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| key.as_bytes());
    text.push('{');
    for (n, (key, value)) in sorted.into_iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        push_string(text, key);
        text.push(':');
        push_value(text, value);
    }
    text.push('}');
}

fn push_string(text: &mut String, string: &str) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{7f}' => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

fn push_number(text: &mut String, number: &Number) {
    match number.as_f64() {
        Some(double) if number.is_f64() => push_double(text, double),
        _ => text.push_str(&number.to_string()),
    }
}

/// Doubles up to this one are written without an exponent, if they are not small.
const PLAIN_MAX: f64 = 9_007_199_254_740_992.0;

/// Smaller doubles, but for zero, are written with an exponent.
const PLAIN_MIN: f64 = 1e-4;

fn push_double(text: &mut String, double: f64) {
    let size = double.abs();
    if double == 0.0 || (PLAIN_MIN..=PLAIN_MAX).contains(&size) {
        let _ = write!(text, "{double:?}");
        return;
    }
    // As many digits as it takes, then an exponent of two digits at least with its sign.
    let shortest = format!("{double:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    let _ = write!(text, "{digits}e{sign}{exponent:0>2}");
}

#[cfg(test)]
mod tests;
