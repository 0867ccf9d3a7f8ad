//! The answer to a query as its page says it, from all documents in memory: nothing of how queries are run is used.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::filter::{Filter, Test};
use super::super::moment::{Every, moment};
use super::super::spec::{Aggregate, Query};
use crate::database::path::{Path, Place, look_up};

/// A document: ID and body.
pub(super) type Stored = (String, Map<String, Value>);

fn rank(value: Option<&Value>) -> u8 {
    match value {
        None => 0,
        Some(Value::Null) => 1,
        Some(Value::Bool(_)) => 2,
        Some(Value::Number(_)) => 3,
        Some(Value::String(_)) => 4,
        Some(Value::Array(_)) => 5,
        Some(Value::Object(_)) => 6,
    }
}

fn compare_numbers(a: &serde_json::Number, b: &serde_json::Number) -> Ordering {
    let whole = |n: &serde_json::Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    let against = |whole: i128, double: f64| {
        if double >= 1e30 {
            return Ordering::Less;
        }
        if double <= -1e30 {
            return Ordering::Greater;
        }
        let below = double.floor();
        whole.cmp(&(below as i128)).then(if double > below { Ordering::Less } else { Ordering::Equal })
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => against(a, b.as_f64().unwrap()),
        (None, Some(b)) => against(b, a.as_f64().unwrap()).reverse(),
        (None, None) => a.as_f64().unwrap().partial_cmp(&b.as_f64().unwrap()).unwrap(),
    }
}

pub(super) fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (Some(Value::Number(a)), Some(Value::Number(b))) => compare_numbers(a, b),
        (Some(Value::String(a)), Some(Value::String(b))) => a.chars().cmp(b.chars()),
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            let pairs = a.iter().zip(b).map(|(a, b)| compare(Some(a), Some(b)));
            pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let sorted = |map: &Map<String, Value>| map.clone().into_iter().collect::<BTreeMap<_, _>>();
            let (a, b) = (sorted(a), sorted(b));
            let pairs = a.iter().zip(&b);
            let pairs = pairs.map(|((a, x), (b, y))| a.cmp(b).then(compare(Some(x), Some(y))));
            pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn value(document: &Stored, path: &str) -> Option<Value> {
    match Path::parse(path).unwrap().place() {
        Place::Id => Some(document.0.as_str().into()),
        Place::Document => Some(Value::Object(whole(document))),
        Place::Body(steps) => look_up(&document.1, steps).cloned(),
        Place::Revision => unreachable!("it is not asked for"),
    }
}

fn whole(document: &Stored) -> Map<String, Value> {
    let mut whole = document.1.clone();
    whole.insert("_id".into(), document.0.as_str().into());
    whole
}

fn passes(test: &Test, value: Option<&Value>) -> bool {
    if let Test::Exists(exists) = test {
        return *exists == value.is_some();
    }
    let Some(value) = value else { return false };
    let order = |other: &Value| compare(Some(value), Some(other));
    let within = |other: &Value, wanted: &dyn Fn(Ordering) -> bool| {
        rank(Some(value)) == rank(Some(other)) && wanted(order(other))
    };
    match test {
        Test::Equal(other) => order(other).is_eq(),
        Test::NotEqual(other) => order(other).is_ne(),
        Test::Below(other) => within(other, &Ordering::is_lt),
        Test::AtMost(other) => within(other, &Ordering::is_le),
        Test::Above(other) => within(other, &Ordering::is_gt),
        Test::AtLeast(other) => within(other, &Ordering::is_ge),
        Test::In(others) => others.iter().any(|other| order(other).is_eq()),
        Test::NotIn(others) => others.iter().all(|other| order(other).is_ne()),
        Test::BeginsWith(start) => value.as_str().is_some_and(|text| text.starts_with(start.as_str())),
        Test::Exists(_) => unreachable!("it was asked above"),
    }
}

fn holds(filter: &Filter, document: &Stored) -> bool {
    match filter {
        Filter::At(path, test) => passes(test, value(document, path).as_ref()),
        Filter::All(filters) => filters.iter().all(|filter| holds(filter, document)),
        Filter::Any(filters) => filters.iter().any(|filter| holds(filter, document)),
        Filter::Not(filter) => !holds(filter, document),
    }
}

/// All rows, without limit and bookmark. Revisions are left out.
pub(super) fn rows(query: &Query, documents: &[Stored]) -> Vec<Map<String, Value>> {
    let mut found: Vec<&Stored> = documents
        .iter()
        .filter(|document| query.filters.iter().all(|filter| holds(filter, document)))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    if !(query.groups.is_empty() && query.aggregates.is_empty()) {
        return groups(query, &found);
    }
    found.sort_by(|a, b| {
        let by = query.sort.iter().map(|(path, descending)| {
            let order = compare(value(a, path).as_ref(), value(b, path).as_ref());
            if *descending { order.reverse() } else { order }
        });
        let by_id = a.0.cmp(&b.0);
        let is_descending = query.sort.last().is_some_and(|(_, descending)| *descending);
        by.fold(Ordering::Equal, Ordering::then).then(if is_descending { by_id.reverse() } else { by_id })
    });
    let row = |document: &&Stored| {
        if query.fields.is_empty() {
            return whole(document);
        }
        let there = query.fields.iter().filter_map(|path| Some((path.clone(), value(document, path)?)));
        there.collect()
    };
    found.iter().map(row).collect()
}

fn groups(query: &Query, found: &[&Stored]) -> Vec<Map<String, Value>> {
    let by = |document: &Stored| -> Vec<Value> {
        let by = query.groups.iter().map(|(path, every)| {
            let value = value(document, path).unwrap_or_default();
            let Some(every) = every else { return value };
            let bucket = moment(&value).and_then(|ms| Every::parse(every).unwrap().bucket(ms));
            bucket.map_or(Value::Null, Value::from)
        });
        by.collect()
    };
    let order = |a: &[Value], b: &[Value]| compare(Some(&json!(a)), Some(&json!(b)));
    let mut groups: Vec<(Vec<Value>, Vec<&Stored>)> = Vec::new();
    if query.groups.is_empty() {
        groups.push((Vec::new(), Vec::new()));
    }
    for document in found {
        let by = by(document);
        match groups.iter_mut().find(|(other, _)| order(&by, other).is_eq()) {
            Some((_, members)) => members.push(document),
            None => groups.push((by, vec![document])),
        }
    }
    groups.sort_by(|(a, _), (b, _)| order(a, b));
    let tell = |(by, members): (Vec<Value>, Vec<&Stored>)| {
        let by = query.groups.iter().zip(by).map(|((path, _), value)| (path.clone(), value));
        let told = query.aggregates.iter().map(|(name, aggregate)| (name.clone(), tell(aggregate, &members)));
        by.chain(told).collect()
    };
    groups.into_iter().map(tell).collect()
}

/// `members` are in order of their IDs.
fn tell(aggregate: &Aggregate, members: &[&Stored]) -> Value {
    let there = |of: &String| -> Vec<Value> {
        members.iter().filter_map(|document| value(document, of)).filter(|value| !value.is_null()).collect()
    };
    let numbers = |of| there(of).iter().filter_map(Value::as_f64).collect::<Vec<f64>>();
    let pairs = |of: &String, by: &String| -> Vec<(Value, Value)> {
        let pair = |document: &&&Stored| Some((value(document, by)?, value(document, of)?));
        let pairs = members.iter().filter_map(|document| pair(&document));
        pairs.filter(|(by, of)| !by.is_null() && !of.is_null()).collect()
    };
    match aggregate {
        Aggregate::Count => members.len().into(),
        Aggregate::CountOf(of) => there(of).len().into(),
        Aggregate::Min(of) => {
            // `min_by` gives the first of equal ones, `max_by` the last.
            there(of).into_iter().min_by(|a, b| compare(Some(a), Some(b))).unwrap_or_default()
        }
        Aggregate::Max(of) => {
            there(of).into_iter().rev().max_by(|a, b| compare(Some(a), Some(b))).unwrap_or_default()
        }
        Aggregate::Avg(of) if numbers(of).is_empty() => Value::Null,
        Aggregate::Avg(of) => json!(numbers(of).iter().sum::<f64>() / numbers(of).len() as f64),
        Aggregate::Sum(of) => {
            let values = there(of);
            let is_whole = values.iter().filter(|value| value.is_number()).all(|v| v.is_i64() || v.is_u64());
            let sum: f64 = numbers(of).iter().sum();
            if is_whole { json!(sum as i64) } else { json!(sum) }
        }
        Aggregate::First { of, by } => {
            let first = pairs(of, by).into_iter().min_by(|(a, _), (b, _)| compare(Some(a), Some(b)));
            first.map(|(_, of)| of).unwrap_or_default()
        }
        Aggregate::Last { of, by } => {
            let last = pairs(of, by).into_iter().max_by(|(a, _), (b, _)| compare(Some(a), Some(b)));
            last.map(|(_, of)| of).unwrap_or_default()
        }
    }
}
