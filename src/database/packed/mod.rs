//! Document bodies as stored: JSON in postcard's wire format with field names replaced by numbers.
//!
//! The bytes are what postcard gives for `Shape`; packing and unpacking walk them directly, without building a tree,
//! because they are on the path of every replicated document. Names live in the database's [`Names`] table.

mod find;
mod format;
mod pack;
mod unpack;

pub(crate) use find::{Step, skip};
pub(crate) use format::{Names, Reader, put_text, put_varint, put_zigzag, tag};
pub(crate) use pack::{pack_json, pack_map, put_float};
pub(crate) use unpack::{Unpacker, json_len, read_float};

/// The layout of a body as a type: postcard of this is what is stored, which a test proves.
#[cfg(test)]
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Shape {
    /// `null`
    Null,
    /// `false`
    False,
    /// `true`
    True,
    /// A whole number within 64 bits signed.
    Integer(i64),
    /// A whole number above that.
    Unsigned(u64),
    /// A float without a fraction.
    Whole(i64),
    /// A float that is exactly the double nearest to this many tenths.
    Tenths(i64),
    /// The same with hundredths.
    Hundredths(i64),
    /// The same with thousandths.
    Thousandths(i64),
    /// The same with 10 to the minus first field.
    Decimal(u8, i64),
    /// Any other float.
    Double(f64),
    /// A string.
    Text(String),
    /// A string that equals the document's ID.
    DocumentId,
    /// An array.
    Array(Vec<Shape>),
    /// An object: pairs of a name's number from 1 and a value. (Number 0 is followed by the name itself.)
    Object(Vec<(u32, Shape)>),
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::format::{NAME_LEN_MAX, NAMES_MAX};
    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let number = prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (any::<i32>(), 0u32..12).prop_map(|(m, e)| json!(f64::from(m) / 10f64.powi(e as i32))),
            prop::num::f64::NORMAL.prop_map(|f| json!(f)),
            Just(json!(-0.0)),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            ".{0,20}".prop_map(Value::from),
            Just(Value::from("the-id")),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(".{0,8}", inner, 0..6)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(members in prop::collection::hash_map("[a-c]{1,2}|[^_].{0,89}", any_json(), 0..40)) {
            let names = RwLock::new(Names::default());
            let map: Map<String, Value> = members.into_iter().collect();
            let text = serde_json::to_vec(&map).expect("a map is JSON");
            let mut packed = Vec::new();
            pack_json(&text, "the-id", &names, &mut packed).expect("a valid body");
            let names_read = names.read().expect("lock");
            let unpacker = Unpacker::new(&names_read, "the-id");
            prop_assert_eq!(&unpacker.map(&packed).expect("own bytes"), &map);
            let json = unpacker.json(&packed).expect("own bytes");
            prop_assert_eq!(&serde_json::from_slice::<Map<String, Value>>(&json).expect("JSON"), &map);
            prop_assert_eq!(json_len(&unpacker, &packed), Some(json.len() as u64));
            drop(names_read);
            let mut again = Vec::new();
            pack_map(&map, "the-id", &names, &mut again).expect("a valid body");
            prop_assert_eq!(again, packed);
        }

        #[test]
        fn hostile_bytes_are_refused_not_followed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut names = Names::default();
            names.intern("a");
            let unpacker = Unpacker::new(&names, "the-id");
            let _ = unpacker.map(&bytes);
            let _ = unpacker.json(&bytes);
            let names = RwLock::new(names);
            let _ = pack_json(&bytes, "the-id", &names, &mut Vec::new());
        }
    }

    #[test]
    fn the_bytes_are_postcard() {
        let names = RwLock::new(Names::default());
        let text = br#"{"t":4.0,"p":1016.6,"n":null,"i":-3,"s":"x","d":"the-id","a":[true,false,1e300,0.12345],"o":{"t":18446744073709551615,"h":0.25,"m":0.125}}"#;
        let mut packed = Vec::new();
        pack_json(text, "the-id", &names, &mut packed).expect("a valid body");
        let shape = Shape::Object(vec![
            (1, Shape::Whole(4)),
            (2, Shape::Tenths(10166)),
            (3, Shape::Null),
            (4, Shape::Integer(-3)),
            (5, Shape::Text("x".into())),
            (6, Shape::DocumentId),
            (
                7,
                Shape::Array(vec![Shape::True, Shape::False, Shape::Double(1e300), Shape::Decimal(5, 12345)]),
            ),
            (
                8,
                Shape::Object(vec![
                    (1, Shape::Unsigned(u64::MAX)),
                    (9, Shape::Hundredths(25)),
                    (10, Shape::Thousandths(125)),
                ]),
            ),
        ]);
        assert_eq!(packed, postcard::to_stdvec(&shape).expect("postcard"));
    }

    #[test]
    fn refuses_what_is_no_document() {
        let names = RwLock::new(Names::default());
        let deep = format!("{}1{}", "{\"a\":".repeat(101), "}".repeat(101));
        for bad in [
            "",
            "[]",
            "1",
            "{",
            "{\"a\":1,\"a\":2}",
            "{\"\":1}",
            "{\"a\":1,\"\\u005fx\":2}",
            "{\"a\":1} x",
            "{\"x\":{\"b\":1,\"b\":1}}",
            &deep,
        ] {
            let result = pack_json(bad.as_bytes(), "id", &names, &mut Vec::new());
            assert!(result.is_err(), "{bad:.40} was accepted");
        }
    }

    /// Stored bytes nest no deeper than a document may: damage cannot make the stack overflow.
    #[test]
    fn depth_has_a_limit_in_stored_bytes_too() {
        use super::format::tag::{ARRAY, NULL, OBJECT};
        use crate::replica::DOCUMENT_DEPTH_MAX;
        let names = Names::default();
        let unpacker = Unpacker::new(&names, "the-id");
        // An object with the member "a": numbers of names begin at 1, 0 is followed by the name.
        const MEMBER: [u8; 4] = [1, 0, 1, b'a'];
        let arrays = |depth: usize| [&[OBJECT][..], &MEMBER, &[ARRAY, 1].repeat(depth - 1), &[NULL]].concat();
        let objects = |depth: usize| [[&[OBJECT][..], &MEMBER].concat().repeat(depth), vec![NULL]].concat();
        for (what, nested) in [("arrays", &arrays as &dyn Fn(usize) -> Vec<u8>), ("objects", &objects)] {
            for depth in [2, DOCUMENT_DEPTH_MAX, DOCUMENT_DEPTH_MAX + 1, 3 * DOCUMENT_DEPTH_MAX] {
                let (packed, is_taken) = (nested(depth), depth <= DOCUMENT_DEPTH_MAX);
                assert_eq!(unpacker.map(&packed).is_some(), is_taken, "{depth} {what}");
                assert_eq!(unpacker.json(&packed).is_some(), is_taken, "{depth} {what}");
            }
        }
    }

    /// A body is one object to its last byte; anything else is damage.
    #[test]
    fn a_body_is_one_object_and_nothing_behind_it() {
        use super::format::tag::{ARRAY, NULL, OBJECT};
        let names = Names::default();
        let unpacker = Unpacker::new(&names, "the-id");
        for (packed, is_body) in [
            (&[OBJECT, 0][..], true),
            (&[OBJECT, 0, NULL], false),
            (&[OBJECT, 1], false),
            (&[ARRAY, 0], false),
            (&[], false),
        ] {
            let found = (unpacker.map(packed).is_some(), unpacker.json(packed).is_some());
            assert_eq!(found, (is_body, is_body), "{packed:?}");
        }
    }

    #[test]
    fn names_and_numbers_have_their_limits() {
        let mut names = Names::default();
        assert_eq!(names.intern(&"x".repeat(NAME_LEN_MAX + 1)), 0);
        assert_eq!(names.intern(&"x".repeat(NAME_LEN_MAX)), 1);
        let numbers: Vec<u32> = (0..NAMES_MAX + 2).map(|n| names.intern(&n.to_string())).collect();
        let last = NAMES_MAX as u32;
        assert_eq!(numbers[NAMES_MAX - 3..], [last - 1, last, 0, 0, 0]);
        assert_eq!((names.intern("0"), names.number("0"), names.name(2)), (2, Some(2), Some("0")));
        assert_eq!((names.name(0), names.name(last + 1)), (None, None));
        for value in [0, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.varint(), reader.remaining()), (Some(value), 0));
        }
        for end in [&[2][..], &[0x81], &[0x80, 0], &[]] {
            let bytes = [&[0xff; 9][..], end].concat();
            assert_eq!(Reader::new(&bytes).varint(), None, "more than 64 bits, or no end: {end:?}");
        }
    }
}
