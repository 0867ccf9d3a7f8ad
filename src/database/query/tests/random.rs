//! Documents and queries by a seed. Values are few, so that many are equal, and odd.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::super::filter::{Filter, Test};
use super::super::spec::{Aggregate, Query};

pub(super) const PATHS: [&str; 9] = [
    "sensor",
    "time",
    "celsius",
    "place",
    "place.floor",
    "place.room",
    "samples",
    "samples[0]",
    "samples[1].x",
];

pub(super) fn pick<T: Clone>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(0..of.len())].clone()
}

/// Numbers whose sums are exact in any order.
fn celsius(random: &mut Rng) -> Value {
    match random.u8(0..10) {
        0 => Value::Null,
        1 => "broken".into(),
        2 => json!(random.i32(-3..3)),
        _ => json!(f64::from(random.i32(-40..40)) / 8.0),
    }
}

fn time(random: &mut Rng) -> Value {
    let minute = random.i64(0..3_000);
    match random.u8(0..8) {
        0 => json!(1_795_780_800 + minute * 60),
        1 => json!((1_795_780_800 + minute * 60) * 1_000),
        2 => "yesterday".into(),
        _ => format!("2026-11-{:02}T{:02}:{:02}:00Z", 1 + minute / 120 % 28, minute / 60 % 24, minute % 60)
            .into(),
    }
}

/// What compares oddly.
fn odd(random: &mut Rng) -> Value {
    let long = "long ".repeat(100);
    pick(
        random,
        &[
            json!(null),
            json!(false),
            json!(true),
            json!(0),
            json!(0.0),
            json!(-0.0),
            json!(1),
            json!(1.0),
            json!(1.5),
            json!(i64::MAX),
            json!(i64::MAX as f64),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(u64::MAX as f64),
            json!(9_007_199_254_740_993_i64),
            json!(9_007_199_254_740_992.0),
            json!(1e300),
            json!(-5e-324),
            json!(""),
            json!("a"),
            json!("a\u{0}"),
            json!("ab"),
            json!("\u{e4}"),
            json!("\u{1f600}"),
            json!("\u{ffff}"),
            json!([]),
            json!([1, "x"]),
            json!([1.0, "x"]),
            json!([[], {}]),
            json!({}),
            json!({"floor": 1, "room": null}),
            json!({"floor": 1.0}),
            json!(long.clone() + "a"),
            json!(long.clone() + "b"),
            json!(long),
            json!(["long ".repeat(60), 1]),
            json!(["long ".repeat(60), 2]),
        ],
    )
}

fn sensor(random: &mut Rng) -> Value {
    format!("t-{}", random.u8(0..5)).into()
}

pub(super) fn body(random: &mut Rng) -> Map<String, Value> {
    let mut body = Map::new();
    let mut put = |random: &mut Rng, name: &str, value: &dyn Fn(&mut Rng) -> Value| match random.u8(0..20) {
        0 => {}
        // Sums of these would not be exact.
        1 if name != "celsius" => drop(body.insert(name.into(), odd(random))),
        _ => drop(body.insert(name.into(), value(random))),
    };
    put(random, "sensor", &sensor);
    put(random, "time", &time);
    put(random, "celsius", &celsius);
    put(random, "place", &|random| json!({"floor": random.u8(0..3), "room": odd(random)}));
    put(random, "samples", &|random| {
        let item = |random: &mut Rng| if random.bool() { odd(random) } else { json!({"x": random.u8(0..3)}) };
        (0..random.usize(0..3)).map(|_| item(random)).collect::<Vec<_>>().into()
    });
    body
}

pub(super) fn id(random: &mut Rng) -> String {
    match random.u8(0..4) {
        0 => format!("{}{}", pick(random, &["a", "\u{e4}", "z"]), random.u16(0..200)),
        _ => format!("r{:03}", random.u16(0..250)),
    }
}

fn path(random: &mut Rng) -> String {
    if random.u8(0..8) == 0 { "_id".into() } else { pick(random, &PATHS).into() }
}

fn value(random: &mut Rng, path: &str) -> Value {
    match path {
        "_id" if random.u8(0..10) > 0 => id(random).into(),
        "sensor" if random.u8(0..10) > 0 => sensor(random),
        "time" if random.u8(0..10) > 0 => time(random),
        "celsius" if random.u8(0..10) > 0 => celsius(random),
        _ => odd(random),
    }
}

fn test(random: &mut Rng, path: &str) -> Test {
    match random.u8(0..12) {
        0 => Test::NotEqual(value(random, path)),
        1 => Test::Below(value(random, path)),
        2 => Test::AtMost(value(random, path)),
        3 => Test::Above(value(random, path)),
        4 => Test::AtLeast(value(random, path)),
        5 => Test::In((0..random.usize(0..4)).map(|_| value(random, path)).collect()),
        6 => Test::NotIn((0..random.usize(0..4)).map(|_| value(random, path)).collect()),
        7 => Test::Exists(random.bool()),
        8 => Test::BeginsWith(
            pick(random, &["", "t-", "t-1", "2026-11-0", "long long", "r1", "a", "\u{e4}"]).into(),
        ),
        _ => Test::Equal(value(random, path)),
    }
}

fn filter(random: &mut Rng, depth: usize) -> Filter {
    let several = |random: &mut Rng| (0..random.usize(0..4)).map(|_| filter(random, depth + 1)).collect();
    match random.u8(0..10) {
        0 if depth < 3 => Filter::All(several(random)),
        1 if depth < 3 => Filter::Any(several(random)),
        2 if depth < 3 => Filter::Not(Box::new(filter(random, depth + 1))),
        _ => {
            let path = path(random);
            let test = test(random, &path);
            Filter::At(path, test)
        }
    }
}

fn aggregate(random: &mut Rng) -> Aggregate {
    let of = pick(random, &["celsius", "celsius", "time", "place.room", "samples"]).to_owned();
    let by = pick(random, &["time", "_id", "celsius", "place.room"]).to_owned();
    match random.u8(0..8) {
        0 => Aggregate::Count,
        1 => Aggregate::CountOf(of),
        2 => Aggregate::Min(of),
        3 => Aggregate::Max(of),
        4 => Aggregate::Avg("celsius".into()),
        5 => Aggregate::Sum("celsius".into()),
        6 => Aggregate::First { of, by },
        _ => Aggregate::Last { of: if random.bool() { of } else { "_id".into() }, by },
    }
}

/// A query without limit.
pub(super) fn query(random: &mut Rng) -> Query {
    let mut query = Query::new();
    for _ in 0..random.usize(0..3) {
        query = query.filter(filter(random, 0));
    }
    if random.u8(0..3) == 0 {
        let paths = ["sensor", "time", "place.floor", "place.room"];
        let first = random.usize(0..paths.len());
        for path in paths.iter().cycle().skip(first).take(random.usize(0..3)) {
            query = match random.u8(0..3) {
                0 => query.group_by_time(*path, pick(random, &["1h", "15m", "1d", "1w", "1mo"])),
                _ => query.group_by(*path),
            };
        }
        for at in 0..random.usize(0..4) {
            query = query.aggregate(format!("a{at}"), aggregate(random));
        }
        return query;
    }
    for _ in 0..random.usize(0..4) {
        let path = path(random);
        query = query.sort(path, random.bool());
    }
    for _ in 0..random.usize(0..6).saturating_sub(3) {
        let path = path(random);
        query = query.field(path);
    }
    query
}
