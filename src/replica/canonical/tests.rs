use proptest::prelude::*;
use serde_json::json;

use super::*;

/// JSON as documents have it.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no other", |double| double.is_finite()).prop_map(Value::from),
        (-4i32..22, 1u32..1_000_000).prop_map(|(e, d)| Value::from(f64::from(d) * 10f64.powi(e))),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same members the other way round, at every depth.
fn turned(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(turned).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().rev().map(|(key, value)| (key.clone(), turned(value))).collect())
        }
        other => other.clone(),
    }
}

proptest! {
    /// It says what was said, once: reading gives the same value, and the text again.
    #[test]
    fn it_reads_back_and_there_is_one_form(value in values()) {
        let text = canonical_json(&value);
        let read: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(canonical_json(&read), text.clone());
        prop_assert_eq!(canonical_json(&turned(&value)), text);
    }

    /// Keys are in the order of their bytes, whatever they are.
    #[test]
    fn keys_are_in_the_order_of_their_bytes(keys in prop::collection::btree_set(".{0,5}", 0..12)) {
        let object: Map<String, Value> = keys.iter().rev().map(|key| (key.clone(), json!(0))).collect();
        let mut expected = String::from("{");
        for (n, key) in keys.iter().enumerate() {
            expected.push_str(if n > 0 { "," } else { "" });
            push_string(&mut expected, key);
            expected.push_str(":0");
        }
        expected.push('}');
        prop_assert_eq!(canonical_json(&Value::Object(object)), expected);
    }
}

#[test]
fn doubles_are_short_and_have_a_point_or_an_exponent_of_two_digits() {
    for (double, text) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (100.0, "100.0"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-1.5e-7, "-1.5e-07"),
        (9_007_199_254_740_992.0, "9007199254740992.0"),
        (1e16, "1e+16"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
    ] {
        assert_eq!(canonical_json(&json!(double)), text);
    }
}
