use std::sync::RwLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::packed::{Names, pack_map};
use super::*;

/// A record that owns what it is made of.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    head: Head,
    id: String,
    further: Vec<u8>,
    body: Vec<u8>,
}

impl Owned {
    fn row(&self) -> Row<'_> {
        Row { head: self.head, id: &self.id, further: &self.further, body: &self.body }
    }
}

const BODY_MAX: usize = 4_096;

fn packed(body: &Value, id: &str) -> Vec<u8> {
    let names = RwLock::new(Names::default());
    ["a", "b", "celsius", "time"].iter().for_each(|name| {
        names.write().expect("lock").intern(name);
    });
    let mut out = Vec::new();
    pack_map(body.as_object().expect("an object"), id, &names, &mut out).expect("a body");
    out
}

fn back(bytes: &[u8]) -> Option<Vec<Owned>> {
    let columns = Columns::read(bytes)?;
    (0..columns.count())
        .map(|at| {
            let mut id = Vec::new();
            let id = columns.id(at, &mut id)?.to_owned();
            let mut head = columns.head(at)?;
            // Where one record has an ancestor there is a place for that of each.
            head.ancestor = head.ancestor.filter(|_| head.flags & 8 != 0);
            let (further, body) = (columns.further(at)?.to_vec(), columns.body(at, BODY_MAX)?);
            Some(Owned { head, id, further, body })
        })
        .collect()
}

fn written(rows: &[Owned]) -> Option<Vec<u8>> {
    let rows: Vec<Row<'_>> = rows.iter().map(Owned::row).collect();
    write(&rows)
}

/// A value as sensors send it, or one that is anything.
fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-400i32..400).prop_map(|tenths| json!(f64::from(tenths) / 10.0)),
        (-40i64..40).prop_map(Value::from),
        (0u32..4_000_000, 0u32..7).prop_map(|(m, places)| json!(f64::from(m) / 10f64.powi(places as i32))),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        Just(json!("the-id-1")),
        (0u32..100_000).prop_map(|s| json!(format!(
            "2026-11-{:02}T{:02}:00:{:02}Z",
            s % 30 + 1,
            s % 24,
            s % 60
        ))),
        "(on|off|s[0-9]{2}|[ab\u{e4}]{0,3})".prop_map(Value::from),
        prop_oneof![any::<i64>().prop_map(Value::from), any::<u64>().prop_map(Value::from)],
        prop_oneof![prop::num::f64::NORMAL.prop_map(|f| json!(f)), Just(json!(-0.0)), Just(json!(5.0))],
        prop::collection::vec(-5i32..5, 0..3).prop_map(Value::from),
        ("[ab]", -5i32..5).prop_map(|(key, value)| json!({ key: value })),
        Just(json!("x".repeat(200))),
    ]
}

/// Columns of one kind, with an exception here and there.
fn bodies(count: usize) -> impl Strategy<Value = Vec<Value>> {
    let one = prop_oneof![
        (-400i32..400).prop_map(|tenths| json!(f64::from(tenths) / 10.0)).boxed(),
        prop_oneof![(-400i32..400).prop_map(|n| if n % 10 == 0 {
            json!(n / 10)
        } else {
            json!(f64::from(n) / 10.0)
        })]
        .boxed(),
        (0i64..9).prop_map(Value::from).boxed(),
        "s[0-9]{2}".prop_map(Value::from).boxed(),
        prop_oneof![Just(Value::Null), (0i64..9).prop_map(Value::from)].boxed(),
        prop::num::f64::NORMAL.prop_map(|f| json!(f)).boxed(),
        (0i32..400).prop_map(|n| json!(f64::from(n) / 10.0 - 10.0)).boxed(),
        (-5i32..5, 0i32..2).prop_map(|(a, b)| json!([a, {"b": b}])).boxed(),
        any::<bool>().prop_map(Value::from).boxed(),
    ];
    let column = |one: BoxedStrategy<Value>| {
        let cell = prop_oneof![30 => one.boxed(), 1 => leaf().boxed(), 1 => Just(Value::String("absent".into())).boxed()];
        prop::collection::vec(cell, count)
    };
    let kinds: Vec<BoxedStrategy<Value>> = vec![
        (-400i32..400).prop_map(|tenths| json!(f64::from(tenths) / 10.0)).boxed(),
        (0i64..9).prop_map(Value::from).boxed(),
        one.boxed(),
        leaf().boxed(),
    ];
    let names = ["a", "b", "celsius", "new"];
    let columns: Vec<_> = kinds.into_iter().map(column).collect();
    columns.prop_map(move |columns| {
        let row = |at: usize| {
            let members = names.iter().zip(&columns).filter(|(_, column)| column[at] != json!("absent"));
            Value::Object(members.map(|(name, column)| ((*name).to_owned(), column[at].clone())).collect())
        };
        (0..count).map(row).collect()
    })
}

/// Steps of sequence and time, source and what is odd about a record, and its body.
type Generated = ((u64, u64, u32, u8), Value);

fn rows() -> impl Strategy<Value = Vec<Owned>> {
    (COUNT_MIN..60usize).prop_flat_map(|count| {
        let heads = prop::collection::vec((1u64..3, 0u64..1 << 20, 1u32..3, 0u8..12), count);
        (heads, bodies(count), 0u64..1 << 40, "[a-z]{1,3}").prop_map(|(heads, bodies, from, name)| {
            let (mut sequence, mut time) = (from, from << 16);
            let row = |(at, ((step, later, source, odd), body)): (usize, Generated)| {
                (sequence, time) = (sequence + step, time + later);
                let id = format!("{name}-{at:03}");
                let flags = if odd == 1 {
                    1
                } else if odd == 2 {
                    8
                } else {
                    0
                };
                let ancestor = (flags == 8).then_some((time - later, 3 - source));
                let body = if odd == 1 { Vec::new() } else { packed(&body, "the-id-1") };
                let further = if odd == 3 { vec![7; 5] } else { Vec::new() };
                Owned { head: Head { sequence, flags, time, source, ancestor }, id, further, body }
            };
            heads.into_iter().zip(bodies).enumerate().map(row).collect()
        })
    })
}

proptest! {
    /// Whatever was in a record comes back, bit for bit; and a record is found by its sequence.
    #[test]
    fn what_went_in_comes_out(rows in rows()) {
        let written = written(&rows);
        let shapes: std::collections::BTreeSet<Vec<u8>> = rows.iter().map(|row| {
            let mut keys = Vec::new();
            bodies::keys_of(&row.body, &mut keys).expect("a body");
            keys
        }).collect();
        prop_assert_eq!(written.is_some(), shapes.len() <= SHAPES_MAX);
        let Some(bytes) = written else { return Ok(()) };
        prop_assert_eq!(back(&bytes), Some(rows.clone()));
        let columns = Columns::read(&bytes).expect("columns");
        let places: Vec<_> = rows.iter().map(|row| columns.find(row.head.sequence)).collect();
        prop_assert_eq!(places, (0..rows.len()).map(Some).collect::<Vec<_>>());
        let last = rows.last().expect("rows").head.sequence;
        prop_assert_eq!((columns.find(last + 1), columns.find(rows[0].head.sequence.wrapping_sub(1))), (None, None));
        // A part of it is none.
        prop_assert!(Columns::read(&bytes[..bytes.len() - 1]).is_none());
    }

    /// Nothing that was damaged is followed out of bounds, or takes more than it may.
    #[test]
    fn damage_is_refused_not_followed(rows in rows(), at in any::<prop::sample::Index>(), bit in 0u8..8, keep in any::<prop::sample::Index>()) {
        let Some(mut bytes) = written(&rows) else { return Ok(()) };
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        bytes.truncate(bytes.len() - keep.index(bytes.len()) / 8);
        for row in back(&bytes).unwrap_or_default() {
            prop_assert!(row.body.len() <= BODY_MAX);
        }
    }

    #[test]
    fn hostile_bytes_are_refused_not_followed(count in 4u8..10, bytes in prop::collection::vec(prop_oneof![0u8..10, 64u8..68, any::<u8>()], 0..100)) {
        let bytes = [&[count, 0][..], &bytes].concat();
        back(&bytes);
    }
}

fn plain(count: usize, body: impl Fn(usize) -> Value) -> Vec<Owned> {
    let row = |at: usize| {
        let head = Head { sequence: 10 + at as u64, flags: 0, time: at as u64, source: 1, ancestor: None };
        let id = format!("r-{at:06}");
        Owned { head, body: packed(&body(at), &id), id, further: Vec::new() }
    };
    (0..count).map(row).collect()
}

/// Readings of sensors take what is new in them: here 16 bits, and some of what the calculation of a float loses.
#[test]
fn readings_take_what_they_say() {
    let rows = plain(100, |at| {
        let time = format!("2026-11-27T18:{:02}:{:02}Z", at / 60, at % 60);
        json!({"time": time, "celsius": (at * 7_919 % 400) as f64 / 10.0 - 10.0, "humidity": at * 31 % 100, "ok": true})
    });
    let bytes = written(&rows).expect("columns");
    assert_eq!(back(&bytes), Some(rows));
    assert!((200..400).contains(&bytes.len()), "{} bytes", bytes.len());
}

/// Each kind of value has a column of its own, of about so many bytes.
#[test]
fn each_kind_of_value_has_its_column() {
    let bytes_of = |value: &dyn Fn(usize) -> Value| {
        let rows = plain(64, |at| json!({ "a": value(at) }));
        let bytes = written(&rows).expect("columns");
        assert_eq!(back(&bytes), Some(rows));
        bytes.len()
    };
    let least = bytes_of(&|_| json!(1));
    for (what, value, bytes) in [
        ("whole", &(|at: usize| json!(at * 37 % 64)) as &dyn Fn(usize) -> Value, 6 * 8),
        ("decimals", &|at| json!((at * 37 % 64) as f64 / 10.0), 6 * 8),
        ("whole or decimals", &|at| if at % 10 == 0 { json!(at / 10) } else { json!(at as f64 / 10.0) }, 0),
        ("hundredths", &|at| json!((at * 37 % 64) as f64 / 100.0), 6 * 8),
        ("tens of thousandths", &|at| json!((at * 37 % 64) as f64 / 10_000.0), 6 * 8),
        ("calculated", &|at| json!((at * 37 % 64) as f64 / 10.0 - 5.0), 15 * 8),
        ("above 63 bits", &|at| json!(u64::MAX - at as u64), 0),
        ("booleans", &|at| json!(at * 37 % 5 == 0), 8),
        ("some null", &|at| if at * 37 % 5 == 0 { Value::Null } else { json!(at) }, 24),
        ("doubles", &|at| json!(std::f64::consts::PI * at as f64), 64 * 8),
        ("the ID", &|at| json!(format!("r-{at:06}")), 0),
        ("few texts", &|at| json!(["on", "off", "stopped"][at * 37 % 3]), 40),
        (
            "few of all kinds",
            &|at| [json!("on"), json!(1), json!([1]), json!({"b": 1})][at * 37 % 4].clone(),
            40,
        ),
        ("items", &|at| json!([at, {"b": at * 37 % 64}]), 6 * 8),
    ] {
        let taken = bytes_of(value).saturating_sub(least);
        assert!((bytes / 2..=bytes + 16).contains(&taken), "{what}: {taken} bytes");
    }
}

/// What is no body, or has no number for its author, is not put in columns; nor are few records, or many.
#[test]
fn what_does_not_fit_is_left() {
    let body = |at: usize| json!({ "a": at });
    let rows = plain(COUNT_MIN, body);
    assert!(written(&rows).is_some());
    assert!(written(&rows[1..]).is_none());
    assert!(written(&plain(COUNT_MAX, body)).is_some());
    assert!(written(&plain(COUNT_MAX + 1, body)).is_none());
    let changed = |change: fn(&mut Owned)| {
        let mut rows = rows.clone();
        change(&mut rows[1]);
        written(&rows)
    };
    assert!(changed(|row| row.head.source = 0).is_none());
    assert!(changed(|row| row.head.ancestor = Some((7, 0))).is_none());
    assert!(changed(|row| row.body = vec![7; 3]).is_none());
    assert!(changed(|row| row.body.push(0)).is_none());
    assert!(changed(|row| row.body.clear()).is_some());
    let wide = |members: usize| {
        plain(5, |at| Value::Object((0..members).map(|n| (format!("m{n}"), json!(at * 7 % 5))).collect()))
    };
    assert!(written(&wide(128)).is_some_and(|bytes| back(&bytes) == Some(wide(128))));
    assert!(written(&wide(129)).is_none());
    let letter = |at: usize| ["v", "w", "x", "y", "z"][at].repeat(16_000);
    let long = plain(5, |at| json!({ "a": letter(at) }));
    assert!(written(&long).is_none(), "too long");
}

/// A number or a text that is packed in another way than the packer's comes back as it was.
#[test]
fn what_is_packed_otherwise_comes_back_too() {
    use super::super::packed::tag;
    for odd in [
        vec![tag::INTEGER, 0x80, 0],
        vec![tag::TEXT, 0x81, 0, b'x'],
        vec![tag::TENTHS, 20],
        vec![tag::DECIMAL, 2, 3],
        vec![tag::DECIMAL, 200, 3],
        vec![tag::TEXT, 1, 0xff],
    ] {
        let mut rows = plain(8, |at| json!({ "a": at as f64 / 10.0 + 0.1 }));
        rows[5].body = [&[tag::OBJECT, 1, 1][..], &odd].concat();
        let bytes = written(&rows).expect("columns");
        assert_eq!(back(&bytes), Some(rows), "{odd:?}");
    }
}
