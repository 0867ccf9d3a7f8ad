//! The order of values, and the same order as bytes.
//!
//! absent < null < false < true < numbers < text < arrays < objects. Numbers are compared exactly, whatever they are stored
//! as; text by its bytes, which is by code points; arrays item by item, objects key by key in the order of the keys. Two
//! values are equal where neither is below the other: 1 and 1.0 are.
//!
//! No encoding is the beginning of another one, so encodings can follow each other, and can be turned over for the other direction.

use serde_json::{Number, Value};

/// What an encoding begins with.
pub(super) mod tag {
    pub(in crate::database) const END: u8 = 0;
    pub(in crate::database) const ABSENT: u8 = 1;
    pub(in crate::database) const NULL: u8 = 2;
    pub(in crate::database) const FALSE: u8 = 3;
    pub(in crate::database) const TRUE: u8 = 4;
    pub(in crate::database) const NUMBER: u8 = 5;
    pub(in crate::database) const TEXT: u8 = 6;
    pub(in crate::database) const ARRAY: u8 = 7;
    pub(in crate::database) const OBJECT: u8 = 8;
}

/// From here on not every whole number is a double: what the double leaves of it follows.
const WHOLE_DOUBLES_END: f64 = 9_007_199_254_740_992.0;

/// Added to what is left, so that it sorts; it is 1,024 at most.
const REST_ZERO: i128 = 1 << 15;

/// Appends the encoding of a value, or of none.
pub(super) fn encode(value: Option<&Value>, out: &mut Vec<u8>) {
    match value {
        None => out.push(tag::ABSENT),
        Some(Value::Null) => out.push(tag::NULL),
        Some(Value::Bool(false)) => out.push(tag::FALSE),
        Some(Value::Bool(true)) => out.push(tag::TRUE),
        Some(Value::Number(number)) => encode_number(number, out),
        Some(Value::String(text)) => encode_text(text, out),
        Some(Value::Array(items)) => {
            out.push(tag::ARRAY);
            items.iter().for_each(|item| encode(Some(item), out));
            out.push(tag::END);
        }
        Some(Value::Object(members)) => {
            out.push(tag::OBJECT);
            // A program that has serde_json with `preserve_order` keeps them as they came.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            for (key, member) in members {
                encode_text(key, out);
                encode(Some(member), out);
            }
            out.push(tag::END);
        }
    }
}

/// The encoding of a value.
pub(super) fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    encode(Some(value), &mut out);
    out
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    encode_start_of_text(text, out);
    out.push(tag::END);
}

/// What the encodings of all texts with this beginning begin with.
pub(super) fn encode_start_of_text(text: &str, out: &mut Vec<u8>) {
    out.push(tag::TEXT);
    // No byte of UTF-8 is 255, so each has a place above the end.
    out.extend(text.bytes().map(|byte| byte + 1));
}

/// The nearest double in order, then how far the number is from it where it is whole and large.
fn encode_number(number: &Number, out: &mut Vec<u8>) {
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    let double = whole.map_or_else(|| number.as_f64().unwrap_or_default(), |whole| whole as f64);
    out.push(tag::NUMBER);
    // -0.0 is 0.0.
    let bits = (double + 0.0).to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.extend_from_slice(&ordered.to_be_bytes());
    if double.abs() >= WHOLE_DOUBLES_END {
        let rest = whole.map_or(0, |whole| whole - double as i128);
        out.extend_from_slice(&((REST_ZERO + rest) as u16).to_be_bytes());
    }
}

/// Most encodings within one: what is stored is 100 deep, a bookmark may be forged.
const DEPTH_MAX: usize = 256;

/// How long the encoding is with which these bytes begin; `None` if they begin with none.
pub(super) fn encoding_len(bytes: &[u8]) -> Option<usize> {
    len_within(bytes, 0)
}

fn len_within(bytes: &[u8], depth: usize) -> Option<usize> {
    let text_len = |bytes: &[u8]| bytes.iter().position(|byte| *byte == tag::END).map(|at| at + 1);
    match *bytes.first()? {
        tag::ABSENT | tag::NULL | tag::FALSE | tag::TRUE => Some(1),
        tag::NUMBER => {
            let ordered = u64::from_be_bytes(*bytes.get(1..)?.first_chunk::<8>()?);
            let bits = if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered };
            let has_rest = f64::from_bits(bits).abs() >= WHOLE_DOUBLES_END;
            Some(if has_rest { 11 } else { 9 }).filter(|len| *len <= bytes.len())
        }
        tag::TEXT => text_len(bytes),
        kind @ (tag::ARRAY | tag::OBJECT) if depth < DEPTH_MAX => {
            let mut at = 1;
            while *bytes.get(at)? != tag::END {
                if kind == tag::OBJECT {
                    at += text_len(&bytes[at..])?;
                }
                at += len_within(bytes.get(at..)?, depth + 1)?;
            }
            Some(at + 1)
        }
        _ => None,
    }
}

/// The kind of a value: ranges and comparisons stay within one.
pub(super) fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => tag::NULL,
        Value::Bool(_) => tag::FALSE,
        Value::Number(_) => tag::NUMBER,
        Value::String(_) => tag::TEXT,
        Value::Array(_) => tag::ARRAY,
        Value::Object(_) => tag::OBJECT,
    }
}

/// The first bytes that sort behind everything that begins with these; none if there are none.
pub(super) fn behind(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = bytes.pop() {
        if last < u8::MAX {
            bytes.push(last + 1);
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use serde_json::json;

    use super::*;

    /// The order as the page says it, from the lowest; those in one row are equal.
    #[test]
    fn the_order_is_as_the_page_says() {
        let rows: Vec<Vec<Value>> = vec![
            vec![json!(null)],
            vec![json!(false)],
            vec![json!(true)],
            vec![json!(-1e300)],
            vec![json!(i64::MIN), json!(i64::MIN as f64)],
            vec![json!(i64::MIN + 1)],
            vec![json!(-1.5)],
            vec![json!(-1), json!(-1.0)],
            vec![json!(-5e-324)],
            vec![json!(0), json!(0.0), json!(-0.0)],
            vec![json!(5e-324)],
            vec![json!(1), json!(1.0)],
            vec![json!(9_007_199_254_740_991_i64)],
            vec![json!(9_007_199_254_740_992_i64), json!(9_007_199_254_740_992.0)],
            vec![json!(9_007_199_254_740_993_i64)],
            vec![json!(9_007_199_254_740_994_i64), json!(9_007_199_254_740_994.0)],
            vec![json!(i64::MAX - 1)],
            vec![json!(i64::MAX)],
            vec![json!(i64::MAX as u64 + 1), json!(i64::MAX as f64)],
            vec![json!(u64::MAX - 1)],
            vec![json!(u64::MAX)],
            vec![json!(u64::MAX as f64)],
            vec![json!(1e300)],
            vec![json!("")],
            vec![json!("\0")],
            vec![json!("\0\0")],
            vec![json!("A")],
            vec![json!("a")],
            vec![json!("a\0")],
            vec![json!("a b")],
            vec![json!("ab")],
            vec![json!("\u{e4}")],
            vec![json!("\u{ffff}")],
            vec![json!("\u{1f600}")],
            vec![json!([])],
            vec![json!([null])],
            vec![json!([1]), json!([1.0])],
            vec![json!([1, 2])],
            vec![json!([2])],
            vec![json!(["a"])],
            vec![json!([[]])],
            vec![json!({})],
            vec![json!({"a": 1})],
            vec![json!({"a": 1, "b": 0}), json!({"b": 0, "a": 1.0})],
            vec![json!({"a": 2})],
            vec![json!({"b": null})],
        ];
        let mut absent = Vec::new();
        encode(None, &mut absent);
        for (at, row) in rows.iter().enumerate() {
            for value in row {
                let bytes = encoded(value);
                assert!(absent < bytes);
                let followed = [&bytes[..], &[9, 0, 1]].concat();
                assert_eq!(encoding_len(&followed), Some(bytes.len()), "{value}");
                assert_eq!(encoding_len(&bytes[..bytes.len() - 1]), None, "{value}");
                for (other_at, other_row) in rows.iter().enumerate() {
                    for other in other_row {
                        let others = encoded(other);
                        assert_eq!(bytes.cmp(&others), at.cmp(&other_at), "{value} and {other}");
                        if at != other_at {
                            assert!(!others.starts_with(&bytes), "{value} begins {other}");
                            let turned = |bytes: &[u8]| bytes.iter().map(|byte| !byte).collect::<Vec<_>>();
                            assert_eq!(turned(&bytes).cmp(&turned(&others)), other_at.cmp(&at));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_behind_is_next() {
        assert_eq!(behind(vec![1, 2]), Some(vec![1, 3]));
        assert_eq!(behind(vec![1, 255, 255]), Some(vec![2]));
        assert_eq!((behind(vec![255]), behind(vec![])), (None, None));
        assert_eq!(encoded(&json!("ab")).cmp(&encoded(&json!("a"))), Ordering::Greater);
    }
}
