//! The rule for documents at its edges.

use super::*;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn ids_are_those_that_every_peer_takes() {
    let longest = "i".repeat(DOCUMENT_ID_MAX);
    let of_two_bytes = "é".repeat(DOCUMENT_ID_MAX / 2);
    for id in [
        &*longest,
        &of_two_bytes,
        " ",
        "a_",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{ffff}",
        "e\u{301}",
    ] {
        assert_eq!(check_id(id), Ok(()), "{id:?}");
    }
    for (id, wrong) in [
        ("", Invalid::IdEmpty),
        (&format!("{longest}i"), Invalid::IdTooLong { actual: 241 }),
        (&format!("{of_two_bytes}é"), Invalid::IdTooLong { actual: 242 }),
        ("_", Invalid::IdReserved),
        ("a\0b", Invalid::IdControl(0)),
        ("a\n", Invalid::IdControl(0x0a)),
        ("\u{1f}", Invalid::IdControl(0x1f)),
    ] {
        assert_eq!(check_id(id), Err(wrong), "{id:?}");
    }
}

#[test]
fn keys_are_kept_for_couchbase_lite_at_the_top_alone() {
    let within = json!({"a": {"": 1, "_x": {"_removed": true}}, "b": [{"": {}}], "x_": 1});
    assert!(check_body(within.as_object().expect("an object")).is_ok());
    for key in ["_", "_id", "_removed", "_attachments", "__x", "_exp"] {
        let body = json!({"a": 1, key: false});
        let refused = check_body(body.as_object().expect("an object"));
        assert_eq!(refused, Err(Invalid::KeyReserved(key.into())));
        let text = body.to_string();
        assert_eq!(check_stored("d", 1, Some(text.as_bytes())), Err(Invalid::KeyReserved(key.into())));
    }
    assert_eq!(check_stored("d", 1, Some(b"{\"\":1}")), Err(Invalid::KeyEmpty));
    assert_eq!(check_stored("d", 1, Some(br#"{"a":"","b":{"":1,"_c":"_d"},"e":"_"}"#)), Ok(()));
    assert_eq!(check_stored("_d", 1, None), Err(Invalid::IdReserved));
    let actual = DOCUMENT_BODY_MAX + 1;
    assert_eq!(check_stored("d", actual as u64, None), Err(Invalid::TooLarge { actual }));
}

#[test]
fn sizes_and_depths_end_where_they_are_said_to() {
    let text = "x".repeat(DOCUMENT_BODY_MAX - r#"{"t":""}"#.len());
    let mut body = Map::from_iter([("t".to_owned(), Value::from(text))]);
    assert_eq!(check_body(&body), Ok(DOCUMENT_BODY_MAX));
    body.insert("u".into(), Value::Null);
    assert_eq!(check_body(&body), Err(Invalid::TooLarge { actual: DOCUMENT_BODY_MAX + 9 }));
    let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    assert!(parse_json(nested(DOCUMENT_DEPTH_MAX).as_bytes()).is_ok());
    let error = parse_json(nested(DOCUMENT_DEPTH_MAX + 1).as_bytes()).expect_err("deep").to_string();
    assert!(error.starts_with("nested deeper than 100 levels"), "{error}");
}

#[test]
fn numbers_that_would_change_are_refused() {
    for same in [
        "18446744073709551615",
        "-9223372036854775808",
        "18446744073709551616",
        "100000000000000000000",
        "1e400000000000000000000",
        "0.12345678901234567890123",
        "\"123456789012345678901\"",
        "[\"\\\"123456789012345678901\"]",
    ] {
        assert_eq!(check_numbers(same.as_bytes()), Ok(()), "{same}");
    }
    for other in ["18446744073709551617", "-9223372036854775809", "123456789012345678901"] {
        let text = format!("{{\"a\\\"\":[1,{other}]}}");
        assert_eq!(check_numbers(text.as_bytes()), Err(Invalid::Integer(other.into())));
    }
}

proptest! {
    #[test]
    fn json_is_read_as_serde_reads_it_unless_a_key_occurs_twice(
        members in prop::collection::vec(("[a-c]{0,2}", 0u8..4), 0..6),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let values = ["1", "\"x\"", "[null,true]", "{\"k\":-2.5}"];
        let member = |(key, n): &(String, u8)| format!("\"{key}\":{}", values[usize::from(*n)]);
        let text = format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","));
        let mut keys: Vec<&String> = members.iter().map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        match parse_json(text.as_bytes()) {
            Ok(value) => {
                prop_assert_eq!(keys.len(), members.len());
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).expect("JSON"));
            }
            Err(error) => {
                prop_assert!(keys.len() < members.len());
                prop_assert!(error.to_string().starts_with("duplicate key"));
            }
        }
        let _ = (parse_json(&garbage), check_numbers(&garbage), check_own_keys(&garbage));
    }
}
