use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn delta_of(base: &Value, new: &Value) -> Value {
    Value::Object(between_objects(&object(base), &object(new)))
}

fn apply(base: &Value, delta: &Value) -> Result<Value, BadDelta> {
    let text = applied(base.to_string().as_bytes(), delta.to_string().as_bytes())?;
    Ok(serde_json::from_slice(&text).expect("JSON"))
}

/// Each form, written down from the description of the format; most are its authors' own examples.
#[test]
fn writes_and_reads_the_forms_that_are_described() {
    for (base, new, delta) in [
        (
            json!({"age": 8, "grade": 3, "name": {"first": "Bobby", "last": "Briggs"}}),
            json!({"age": 18, "name": {"first": "Robert", "last": "Briggs"}}),
            json!({"age": 18, "grade": [], "name": {"first": "Robert"}}),
        ),
        (
            json!({"age": 18, "name": {"first": "Robert", "last": "Briggs"}}),
            json!({"age": 38, "name": {"title": "Col.", "first": "Robert", "last": "Briggs"}}),
            json!({"age": 38, "name": {"title": "Col."}}),
        ),
        (
            json!({"a": ["fee", "fie", "foe", "fum"]}),
            json!({"a": ["fee", "fi", "foe", "fum"]}),
            json!({"a": {"1": "fi"}}),
        ),
        (
            json!({"a": ["fee", "fie", "foe"]}),
            json!({"a": ["fee", "fi", "foe", "fum"]}),
            json!({"a": {"1": "fi", "3-": ["fum"]}}),
        ),
        (json!({"a": [1, 2, 3]}), json!({"a": [1]}), json!({"a": {"1-": []}})),
        (json!({"a": [1, 2, 3]}), json!({"a": []}), json!({"a": [[]]})),
        (json!({"a": []}), json!({"a": [1]}), json!({"a": {"0-": [1]}})),
        (
            json!({"a": [{"first": "Mad", "last": "Hatter"}, {"first": "Cheshire", "last": "Puss"}]}),
            json!({"a": [{"first": "Mad", "last": "Hatter"}, {"first": "Cheshire", "last": "Cat"}]}),
            json!({"a": {"1": {"last": "Cat"}}}),
        ),
        (json!({"a": 1}), json!({"a": [1]}), json!({"a": [[1]]})),
        (json!({"a": 1}), json!({"a": {"b": 1}}), json!({"a": [{"b": 1}]})),
        (json!({"a": 1}), json!({"a": null}), json!({"a": null})),
        (json!({}), json!({"a": {"b": {"c": []}}}), json!({"a": [{"b": {"c": []}}]})),
        (json!({"a": 0.0}), json!({"a": -0.0}), json!({"a": -0.0})),
        (json!({"a": 1}), json!({"a": 1.0}), json!({"a": 1.0})),
        (
            json!({"t": "to wound the autumnal city. So howled out for the world to give him a name."}),
            json!({"t": "to wound the eternal city. So howled out for the world to give him a name."}),
            json!({"t": ["13=5-4+eter|57=", 0, 2]}),
        ),
    ] {
        assert_eq!(delta_of(&base, &new), delta, "{base} to {new}");
        assert_eq!(
            apply(&base, &delta).map(|made| made.to_string()),
            Ok(new.to_string()),
            "{base} with {delta}"
        );
    }
}

/// A stock sender patches a text in several places.
#[test]
fn reads_a_patch_of_several_places() {
    let old = "to wound the autumnal city. So howled out for the world to give him a name.  The in-dark answered with the wind.";
    let new = "To wound the eternal city. So he howled out for the world to give him its name. The in-dark answered with wind.";
    let delta = json!({"t": ["1-1+T|12=5-4+eter|13=3+he |37=1-3+its|6=1-27=4-5=", 0, 2]});
    assert_eq!(apply(&json!({"t": old}), &delta), Ok(json!({"t": new})));
}

#[test]
fn refuses_what_does_not_fit() {
    let base = json!({"n": 1, "t": "äbc", "a": [1, 2], "o": {"x": 1}});
    for delta in [
        json!({"n": {"x": 1}}),
        json!({"new": {"x": 1}}),
        json!({"t": {"0": 1}}),
        json!({"a": {"2": 1}}),
        json!({"a": {"-1": 1}}),
        json!({"a": {"+1": 1}}),
        json!({"a": {"x": 1}}),
        json!({"a": {"0": []}}),
        json!({"a": {"3-": []}}),
        json!({"a": {"1-": 1}}),
        json!({"a": {"1-": [], "01-": []}}),
        json!({"a": {"18446744073709551616": 1}}),
        json!({"o": {"x": {"y": 1}}}),
        json!({"n": [1, 2]}),
        json!({"n": [1, 0, 0]}),
        json!({"n": ["1=", 0, 2]}),
        json!({"t": ["3=", 0, 2]}),
        json!({"t": ["5=", 0, 2]}),
        json!({"t": ["4=", 0, 3]}),
        json!({"t": ["1=3-", 0, 2]}),
        json!({"t": ["4=1+a", 0, 2]}),
        json!({"t": ["4=2+a|", 0, 2]}),
        json!({"t": ["4=99999999999999999999+a|", 0, 2]}),
        json!({"t": ["=4=", 0, 2]}),
        json!({"t": ["4", 0, 2]}),
        json!({"t": ["4*", 0, 2]}),
    ] {
        assert_eq!(apply(&base, &delta), Err(BadDelta), "{delta}");
    }
    for (base, delta) in [("{}", "[1]"), ("{}", "1"), ("{}", ""), ("[]", "{}"), ("{}", "{"), ("{}", "{} x")] {
        assert_eq!(applied(base.as_bytes(), delta.as_bytes()), Err(BadDelta), "{base:?} {delta:?}");
    }
}

#[test]
fn a_body_of_a_size_for_it_goes_as_a_delta_that_saves() {
    let body = |text: usize, n: u32| format!("{{\"n\":{n},\"t\":\"{}\"}}", "x".repeat(text)).into_bytes();
    let head = body(0, 1).len();
    assert_eq!(
        between(&body(DELTA_BODY_MIN - head, 1), &body(DELTA_BODY_MIN - head, 2)),
        Some(b"{\"n\":2}".to_vec())
    );
    assert_eq!(between(&body(DELTA_BODY_MIN - head - 1, 1), &body(DELTA_BODY_MIN - head - 1, 2)), None);
    assert!(between(&body(DELTA_BODY_MAX - head, 1), &body(DELTA_BODY_MAX - head, 2)).is_some());
    assert_eq!(between(&body(DELTA_BODY_MAX - head + 1, 1), &body(DELTA_BODY_MAX - head + 1, 2)), None);
    // What has nothing in common is sent whole.
    let other = format!("{{\"m\":\"{}\"}}", "y".repeat(300));
    assert_eq!(between(&body(300, 1), other.as_bytes()), None);
    assert_eq!(between(b"[1]", &body(300, 1)), None);
    // A short delta must not make a body without end.
    let delta = format!("{{\"more\":\"{}\"}}", "z".repeat(1000));
    assert_eq!(applied(&body(DELTA_BODY_MAX - head, 1), delta.as_bytes()), Err(BadDelta));
    assert_eq!(applied(&body(DELTA_BODY_MAX - head + 1, 1), b"{}"), Err(BadDelta));
}

fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop_oneof![Just(0.0), Just(-0.0), Just(1.0), -1e9f64..1e9].prop_map(Value::from),
        "[a-cäß€]{0,4}".prop_map(Value::from),
        ("[a-cä€]{0,3}", "[a-cä€]{0,3}")
            .prop_map(|(a, b)| Value::from(format!("{a}{}{b}", "lorem ipsum € ".repeat(6)))),
    ];
    scalar.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map("[a-d0-2-]{0,2}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Value> {
    btree_map("[a-d]{0,2}", any_value(), 0..6)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

proptest! {
    #[test]
    fn a_delta_makes_the_new_of_the_old_bit_for_bit(base in any_object(), new in any_object()) {
        let delta = delta_of(&base, &new);
        prop_assert_eq!(apply(&base, &delta).map(|made| made.to_string()), Ok(new.to_string()));
        let [old, wanted] = [&base, &new].map(Value::to_string);
        if old == wanted {
            prop_assert_eq!(delta, json!({}));
        }
    }

    #[test]
    fn any_delta_on_any_base_gives_an_object_or_an_error(base in any_object(), delta in any_object()) {
        if let Ok(made) = apply(&base, &delta) {
            prop_assert!(made.is_object());
        }
    }
}
