//! What went in comes out, whatever it is; what is damaged is refused, or read as something else of a bounded size.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const HAS: Has = Has { further: |flags| flags & 2 != 0, body: |flags| flags & 1 != 0 };

/// Writes rows of these IDs and bodies, and reads them; the bytes that they took, unless most of it was text.
fn there_and_back(ids: &[String], bodies: &[Vec<u8>], numbers: &[i64]) -> Option<Vec<u8>> {
    let mut of_ids = Texts::default();
    ids.iter().for_each(|id| of_ids.push(id.as_bytes()));
    let further: Vec<&[u8]> = ids.iter().filter(|id| id.len() % 11 == 1).map(|id| id.as_bytes()).collect();
    let flags = |id: &String| 1 + 2 * i64::from(id.len() % 11 == 1);
    let numbers = vec![ids.iter().map(flags).collect(), numbers.to_vec()];
    let rows = Rows {
        numbers: numbers.clone(),
        ids: of_ids.clone(),
        further: further.clone(),
        bodies: bodies.iter().map(|body| &body[..]).collect(),
    };
    let bytes = write(rows, HAS, Vec::new())?;
    let read = read(&bytes, ids.len(), 2, HAS).expect("what was written");
    assert_eq!((&read.numbers, &read.ids), (&numbers, &of_ids));
    assert!(read.further.iter().eq(further));
    assert!(read.bodies.iter().eq(bodies.iter().map(|body| &body[..])));
    Some(bytes)
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (-50i64..50).prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        (-4_000i64..4_000, 0usize..5).prop_map(|(n, places)| format!("{:.places$}", n as f64 / 100.0)),
        any::<f64>().prop_filter("a number", |n| n.is_finite()).prop_map(|n| json!(n).to_string()),
        prop::sample::select(vec![
            "-0",
            "-0.0",
            "0.0",
            "1e5",
            "-1.5E-7",
            "00.10",
            "123456789012345678901",
            "1.",
            "-"
        ])
        .prop_map(str::to_owned),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,2}",
        "[0-9a-f]{12}",
        "s-0[0-9]{3}-[1-9]{1,2}",
        any::<String>(),
        (0u32..40).prop_map(|day| format!("2024-02-{:02}T0{}:00:00.5Z", day % 32, day % 7)),
    ]
    .prop_map(|text| json!(text).to_string())
}

fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![4 => number(), 3 => text(), 1 => prop::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned)]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let value = leaf().prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[a-d]", inner), 0..3).prop_map(|members| {
                let member = |(key, value): &(String, String)| format!("\"{key}\": {value}");
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(" , "))
            }),
        ]
    });
    let alike = (leaf(), number(), number(), text())
        .prop_map(|(a, b, c, d)| format!("{{\"a\":{a},\"n\":{{\"b\":{b},\"c\":[{c},{d}]}}}}").into_bytes());
    prop_oneof![
        6 => alike,
        2 => value.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ]
}

proptest! {
    #[test]
    fn any_documents_come_back(
        rows in prop::collection::vec(("[a-z0-9é]{1,9}", body(), any::<i64>()), 1..60),
        repeat in 1usize..4,
    ) {
        let rows = vec![rows; repeat].concat();
        let ids: Vec<String> = rows.iter().map(|(id, ..)| id.clone()).collect();
        let bodies: Vec<Vec<u8>> = rows.iter().map(|(_, body, _)| body.clone()).collect();
        let numbers: Vec<i64> = rows.iter().map(|(.., number)| *number).collect();
        there_and_back(&ids, &bodies, &numbers);
    }

    #[test]
    fn readings_come_back_and_take_little(
        start in -10_000i64..10_000,
        steps in prop::collection::vec(-3i64..=3, 64..200),
        places in 0usize..4,
        period in 1usize..9,
    ) {
        let mut value = start;
        let mut ids = Vec::new();
        let mut bodies = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            value += step;
            ids.push(format!("s{}-{n:05}", n % period));
            let reading = value as f64 / 10f64.powi(places as i32);
            bodies.push(format!("{{\"v\":{reading:.places$},\"s\":\"s{}\"}}", n % period).into_bytes());
        }
        let numbers: Vec<i64> = (0..ids.len() as i64).collect();
        let bytes = there_and_back(&ids, &bodies, &numbers).expect("no text");
        prop_assert!(bytes.len() < 120 + ids.len(), "{} bytes for {} rows", bytes.len(), ids.len());
    }

    #[test]
    fn what_is_damaged_is_refused_or_bounded(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        count in 1usize..4_097,
    ) {
        bounded(&bytes, count);
    }

    #[test]
    fn what_is_changed_is_refused_or_bounded(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        count in 1usize..60,
    ) {
        let mut bytes = sample();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        bounded(&bytes, count);
    }
}

fn bounded(bytes: &[u8], count: usize) {
    if let Some(rows) = read(bytes, count, 2, HAS) {
        assert!(rows.bodies.bytes() <= BODIES_BYTES_MAX && rows.ids.bytes() <= IDS_BYTES_MAX);
        assert_eq!((rows.ids.len(), rows.numbers[1].len()), (count, count));
    }
}

fn documents(count: usize, body: impl Fn(usize) -> Value) -> (Vec<String>, Vec<Vec<u8>>, Vec<i64>) {
    let ids = (0..count).map(|n| format!("d{n}")).collect();
    let bodies = (0..count).map(|n| body(n).to_string().into_bytes()).collect();
    (ids, bodies, (0..count as i64).collect())
}

fn sample() -> Vec<u8> {
    let (ids, bodies, numbers) =
        documents(50, |n| json!({"a": n * n % 17, "b": format!("x{}", n % 3), "c": [n, null]}));
    there_and_back(&ids, &bodies, &numbers).expect("no text")
}

/// Its length is part of what was written.
#[test]
fn what_is_cut_or_longer_is_refused() {
    let bytes = sample();
    assert!(read(&bytes, 50, 2, HAS).is_some());
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end], 50, 2, HAS).is_none(), "cut at {end}");
    }
    assert!(read(&[&bytes[..], &[0]].concat(), 50, 2, HAS).is_none());
}

/// However many shapes there are, also when the one of a single value is among them early or late.
#[test]
fn any_number_of_shapes_comes_back() {
    for count in 1..64 {
        for single in [0, 20, 24, 25, 40, usize::MAX] {
            let body = |n: usize| match n {
                n if n == single => json!(7),
                n => json!({ format!("key {n}"): n }),
            };
            let (ids, bodies, numbers) = documents(count, body);
            there_and_back(&ids, &bodies, &numbers).expect("no text");
        }
    }
}

/// What a reader would refuse is not written.
#[test]
fn only_as_many_values_as_a_reader_takes_are_written() {
    let (ids, bodies, numbers) = documents(2_048, |_| json!(vec![1; 128]));
    assert!(there_and_back(&ids, &bodies, &numbers).is_some());
    let (ids, bodies, numbers) = documents(2_049, |_| json!(vec![1; 128]));
    assert!(there_and_back(&ids, &bodies, &numbers).is_none());
}

/// A daily pattern in hourly readings, sensors that come in turn or as they like, a value that is as the ID: what is known costs little.
#[test]
fn what_is_expected_costs_little() {
    let hundredths = |bytes: usize, count: usize| bytes * 100 / count;
    let day = |n: usize| [5, 17, 3, 99, 42, 7, 64, 21][n % 8] as f64 / 10.0;
    let (_, bodies, numbers) =
        documents(2_000, |n| json!({"t": day(n) + (n / 900) as f64, "on": n % 3 == 0}));
    let time = |n: usize| format!("2026-11-{:02}T{:02}:00:00", 1 + n / 24 % 28, n % 24);
    let ids: Vec<String> = (0..2_000).map(time).collect();
    let bytes = there_and_back(&ids, &bodies, &numbers).expect("no text");
    assert!(hundredths(bytes.len(), 2_000) < 12, "{} bytes", bytes.len());

    // Each sensor has its level; they come in no order.
    let mut random = fastrand::Rng::with_seed(5);
    let sensors: Vec<usize> = (0..2_000).map(|_| random.usize(..16)).collect();
    let sensor = |n: usize| sensors[n];
    let (ids, bodies, numbers) =
        documents(2_000, |n| json!({"s": format!("sensor {}", sensor(n)), "v": 1_000 * sensor(n) + n / 300}));
    let bytes = there_and_back(&ids, &bodies, &numbers).expect("no text");
    assert!(hundredths(bytes.len(), 2_000) < 66, "{} bytes", bytes.len());
}

/// Digits that may be anything cost what they must, and a message of text is left to others.
#[test]
fn what_is_not_known_costs_no_more_than_it_must() {
    let mut random = fastrand::Rng::with_seed(7);
    let (_, bodies, numbers) = documents(1_000, |_| json!({"a": 1}));
    let ids: Vec<String> = (0..1_000).map(|_| format!("{:032x}", random.u128(..))).collect();
    let bytes = there_and_back(&ids, &bodies, &numbers).expect("digits");
    assert!((16_000..16_400).contains(&bytes.len()), "{} bytes", bytes.len());

    let letters: Vec<String> = (0..100).map(|_| (0..200).map(|_| random.alphanumeric()).collect()).collect();
    let (ids, bodies, numbers) = documents(100, |n| json!({"text": letters[n]}));
    assert!(there_and_back(&ids, &bodies, &numbers).is_none());
}

/// A few bytes may not ask for much: texts that repeat, values without end.
#[test]
fn bombs_are_refused() {
    let long = "x".repeat(1_900);
    let count = BODIES_BYTES_MAX / 1_900 + 8;
    let ids: Vec<String> = (0..count).map(|n| format!("d{n}")).collect();
    let body = json!({"a": long}).to_string();
    let rows = |count: usize| {
        let mut of_ids = Texts::default();
        ids[..count].iter().for_each(|id| of_ids.push(id.as_bytes()));
        let all: Vec<u32> = (0..count as u32).collect();
        let mut state = state(count, TEXT_BYTES_MAX);
        let mut coder = Writer::new(Vec::new());
        numbers::write(&mut coder, &vec![1; count], &all, &mut state.others);
        numbers::write(&mut coder, &vec![0; count], &all, &mut state.others);
        let texts: Vec<&[u8]> = of_ids.iter().collect();
        strings::write(&mut coder, &texts, &all, &mut state).expect("short");
        shapes::write(&mut coder, &vec![body.as_bytes(); count], &all, &mut state).expect("one text");
        coder.finish()
    };
    let (fits, bomb) = (rows(100), rows(count));
    assert!(bomb.len() < 2_500 && read(&fits, 100, 2, HAS).is_some());
    assert!(read(&bomb, count, 2, HAS).is_none());
}
