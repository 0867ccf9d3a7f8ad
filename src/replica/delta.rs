//! Deltas between two bodies of a document, as Couchbase Lite and Sync Gateway exchange them: JSON that says how the new body
//! differs from one that the receiver has.
//!
//! | a delta | applied to | gives |
//! |---|---|---|
//! | a scalar | anything | the scalar |
//! | `[value]` | anything, or nothing | the value; arrays and objects are always written so |
//! | `[]` | a member of an object | nothing: the member goes |
//! | `{"key": delta, ..}` | an object | the object with these members changed; the others stay |
//! | `{"index": delta, .., "from-": [value, ..]}` | an array | the array with these items changed, and all from an index on replaced |
//! | `["8=3-2+ab\|", 0, 2]` | a text | 8 bytes of UTF-8 kept, 3 left out, 2 put in; the numbers add up to the old length |
//!
//! The format is described in public by its authors (Fleece, "Delta Compression", 2018). A receiver may be a stock one, so none but
//! these forms is made, and what is read is taken by the letter: anything else is refused, and the sender gives the whole body.

use serde_json::{Map, Number, Value};

/// A body of so many bytes of JSON or more may go as a delta; one that is smaller hardly gets shorter.
pub(crate) const DELTA_BODY_MIN: usize = 200;

/// A body of more bytes of JSON is neither the base of a delta nor made from one: a short message would cost its receiver much.
pub(crate) const DELTA_BODY_MAX: usize = 1 << 20;

/// Bytes that a delta must save: what its message has more of than that of a whole body, rounded up.
const SAVED_MIN: usize = 64;

/// Texts of so many bytes or more may be patched.
const PATCHED_TEXT_MIN: usize = 60;

/// The third item of a patch of a text.
const PATCH_MARK: u64 = 2;

/// What is wrong with a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delta does not fit what it is applied to")]
pub struct BadDelta;

/// The delta that turns the JSON text `base` into `new`, if both are objects of a size for it and it saves enough.
pub(crate) fn between(base: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let fits = |body: &[u8]| (DELTA_BODY_MIN..=DELTA_BODY_MAX).contains(&body.len());
    if !fits(base) || !fits(new) {
        return None;
    }
    let (base, now) = (serde_json::from_slice(base).ok()?, serde_json::from_slice(new).ok()?);
    let delta = serde_json::to_vec(&Value::Object(between_objects(&base, &now))).ok()?;
    (delta.len() + SAVED_MIN <= new.len()).then_some(delta)
}

/// What a delta makes of the JSON text `base`.
///
/// # Errors
/// [`BadDelta`]: it is malformed, does not fit, or the base or the result is too large.
pub(crate) fn applied(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, BadDelta> {
    if base.len() > DELTA_BODY_MAX || delta.len() > DELTA_BODY_MAX {
        return Err(BadDelta);
    }
    let base: Map<String, Value> = serde_json::from_slice(base).map_err(|_| BadDelta)?;
    let delta: Map<String, Value> = serde_json::from_slice(delta).map_err(|_| BadDelta)?;
    let new = serde_json::to_vec(&applied_to_object(base, delta)?).map_err(|_| BadDelta)?;
    if new.len() > DELTA_BODY_MAX { Err(BadDelta) } else { Ok(new) }
}

/// The delta between two objects; empty if they are the same.
pub(crate) fn between_objects(base: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut delta = Map::new();
    for key in base.keys().filter(|key| !new.contains_key(*key)) {
        delta.insert(key.clone(), Value::Array(Vec::new()));
    }
    for (key, value) in new {
        let change = match base.get(key) {
            Some(old) => between_values(old, value),
            None => Some(replacing(value)),
        };
        delta.extend(change.map(|change| (key.clone(), change)));
    }
    delta
}

fn between_values(old: &Value, new: &Value) -> Option<Value> {
    Some(match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let delta = between_objects(old, new);
            return (!delta.is_empty()).then_some(Value::Object(delta));
        }
        (Value::Array(old), Value::Array(new)) => return between_arrays(old, new),
        (Value::String(old), Value::String(new)) if old != new => {
            patch(old, new).unwrap_or_else(|| replacing(&Value::from(new.as_str())))
        }
        (old, new) if is_same(old, new) => return None,
        (_, new) => replacing(new),
    })
}

fn between_arrays(old: &[Value], new: &[Value]) -> Option<Value> {
    // Nothing can take an item out of the middle, and of an empty array there is nothing to keep.
    if new.is_empty() && !old.is_empty() {
        return Some(replacing(&Value::Array(Vec::new())));
    }
    let mut delta = Map::new();
    for (n, (old, new)) in old.iter().zip(new).enumerate() {
        delta.extend(between_values(old, new).map(|change| (n.to_string(), change)));
    }
    let shared = old.len().min(new.len());
    if old.len() != new.len() {
        delta.insert(format!("{shared}-"), Value::Array(new[shared..].to_vec()));
    }
    (!delta.is_empty()).then_some(Value::Object(delta))
}

/// Whether two values are the same to the last bit; a key may stand elsewhere.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => is_same_number(a, b),
        _ => a == b,
    }
}

/// `-0.0` is not `0.0`, nor is 1 1.0.
fn is_same_number(a: &Number, b: &Number) -> bool {
    match (a.is_f64(), b.is_f64()) {
        (true, true) => a.as_f64().map(f64::to_bits) == b.as_f64().map(f64::to_bits),
        (false, false) => a == b,
        _ => false,
    }
}

fn replacing(value: &Value) -> Value {
    match value {
        Value::Array(_) | Value::Object(_) => Value::Array(vec![value.clone()]),
        scalar => scalar.clone(),
    }
}

/// A patch that keeps what two texts begin and end with, if it is shorter than the new one.
fn patch(old: &str, new: &str) -> Option<Value> {
    if old.len().min(new.len()) < PATCHED_TEXT_MIN {
        return None;
    }
    let mut start = old.bytes().zip(new.bytes()).take_while(|(a, b)| a == b).count();
    while !old.is_char_boundary(start) || !new.is_char_boundary(start) {
        start -= 1;
    }
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let mut end = old_rest.bytes().rev().zip(new_rest.bytes().rev()).take_while(|(a, b)| a == b).count();
    while !old_rest.is_char_boundary(old_rest.len() - end) || !new_rest.is_char_boundary(new_rest.len() - end)
    {
        end -= 1;
    }
    let (gone, put) = (old_rest.len() - end, &new_rest[..new_rest.len() - end]);
    let mut operations = String::new();
    let mut push = |count: usize, operation: &str| {
        if count > 0 {
            operations.push_str(&format!("{count}{operation}"));
        }
    };
    push(start, "=");
    push(gone, "-");
    push(put.len(), &format!("+{put}|"));
    push(end, "=");
    (operations.len() + PATCH_MARKS < new.len())
        .then(|| Value::from(vec![operations.into(), Value::from(0), PATCH_MARK.into()]))
}

/// Bytes around the operations of a patch.
const PATCH_MARKS: usize = r#"[,0,2]"#.len();

/// What a delta makes of an object.
///
/// # Errors
/// [`BadDelta`]: it does not fit.
pub(crate) fn applied_to_object(
    mut base: Map<String, Value>,
    delta: Map<String, Value>,
) -> Result<Map<String, Value>, BadDelta> {
    for (key, change) in delta {
        match change {
            Value::Array(items) if items.is_empty() => {
                base.remove(&key);
            }
            change => {
                let new = applied_to_value(base.remove(&key), change)?;
                base.insert(key, new);
            }
        }
    }
    Ok(base)
}

fn applied_to_value(old: Option<Value>, delta: Value) -> Result<Value, BadDelta> {
    match (delta, old) {
        (Value::Array(items), old) => match <[Value; 1]>::try_from(items) {
            Ok([value]) => Ok(value),
            Err(items) => patched(old, &items),
        },
        (Value::Object(delta), Some(Value::Object(old))) => applied_to_object(old, delta).map(Value::Object),
        (Value::Object(delta), Some(Value::Array(old))) => applied_to_array(old, delta).map(Value::Array),
        (Value::Object(_), _) => Err(BadDelta),
        (scalar, _) => Ok(scalar),
    }
}

fn applied_to_array(mut old: Vec<Value>, delta: Map<String, Value>) -> Result<Vec<Value>, BadDelta> {
    let mut tail = None;
    for (key, change) in delta {
        if let Some(from) = key.strip_suffix('-') {
            let Value::Array(items) = change else { return Err(BadDelta) };
            let from = index(from).filter(|from| *from <= old.len()).ok_or(BadDelta)?;
            if tail.replace((from, items)).is_some() {
                return Err(BadDelta);
            }
            continue;
        }
        let item = index(&key).and_then(|at| old.get_mut(at)).ok_or(BadDelta)?;
        *item = applied_to_value(Some(item.take()), change)?;
    }
    if let Some((from, items)) = tail {
        old.truncate(from);
        old.extend(items);
    }
    Ok(old)
}

/// A number of digits alone.
fn index(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn patched(old: Option<Value>, items: &[Value]) -> Result<Value, BadDelta> {
    let (Some(Value::String(old)), [Value::String(operations), _, mark]) = (old, items) else {
        return Err(BadDelta);
    };
    if mark.as_u64() != Some(PATCH_MARK) {
        return Err(BadDelta);
    }
    let (mut old, mut operations, mut new) = (old.as_bytes(), operations.as_bytes(), Vec::new());
    while !operations.is_empty() {
        let digits = operations.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let count = std::str::from_utf8(&operations[..digits]).ok().and_then(index).ok_or(BadDelta)?;
        let (operation, rest) = operations[digits..].split_first().ok_or(BadDelta)?;
        match operation {
            b'=' | b'-' => {
                let (taken, left) = old.split_at_checked(count).ok_or(BadDelta)?;
                if *operation == b'=' {
                    new.extend_from_slice(taken);
                }
                (old, operations) = (left, rest);
            }
            b'+' => {
                let (put, rest) = rest.split_at_checked(count).ok_or(BadDelta)?;
                new.extend_from_slice(put);
                operations = rest.strip_prefix(b"|").ok_or(BadDelta)?;
            }
            _ => return Err(BadDelta),
        }
    }
    if !old.is_empty() {
        return Err(BadDelta);
    }
    String::from_utf8(new).map(Value::String).map_err(|_| BadDelta)
}

#[cfg(test)]
mod tests;
