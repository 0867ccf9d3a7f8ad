//! How a query reads an index: in which ranges, in which direction, and how far that is the order which is wanted.
//!
//! Of the index's paths the first ones may have to be equal to something, the next one may have a range, or be what is sorted by.
//! Ranges may hold more than is wanted: each document is tested all the same.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Map, Value, json};

use super::bookmark::Position;
use super::filter::{CheckedTest, Filter, Test};
use super::plan::{Plan, Reads, turned};
use crate::database::path::Path;
use crate::database::store::{IndexUse, Ranges, VALUES_BYTES_MAX};
use crate::database::value::{behind, encoding_len, tag};

/// Most ranges: what several paths may be equal to, by turns, is multiplied.
const RANGES_MAX: usize = 1_000;

/// What of the order of rows the index gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// All of it.
    AsRead,
    /// That of its first paths; rows that are equal there are ordered in memory.
    Runs(usize),
    /// Nothing. Rows come by their IDs, so IDs are gathered first.
    Ids,
    /// Nothing.
    Nothing,
}

impl Order {
    /// Those of an index's paths that give it.
    fn paths(self, paths: &[Path]) -> &[Path] {
        match self {
            Order::AsRead => paths,
            Order::Runs(len) => &paths[..len],
            Order::Ids | Order::Nothing => &[],
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Order::AsRead => "as read",
            Order::Runs(_) => "as read; of those that are equal in the first of them, sorted in memory",
            Order::Ids => "IDs sorted in memory",
            Order::Nothing => "sorted in memory",
        }
    }
}

/// How an index is read.
pub(super) struct Access {
    pub(super) index: IndexUse,
    pub(super) ranges: Ranges,
    pub(super) is_backwards: bool,
    pub(super) order: Order,
    /// How many of the first paths have to be equal to something, and whether the next one has a range.
    equal: usize,
    has_range: bool,
}

impl Access {
    /// The best of these indexes, if one is of use.
    pub(super) fn choose(plan: &Plan, indexes: Vec<IndexUse>) -> Option<Access> {
        let is_by_id = match &plan.reads {
            Reads::Points(_) => return None,
            Reads::Ids(from, to) => !from.is_empty() || to.is_some(),
        };
        let considered = indexes.into_iter().filter_map(|index| Access::of(plan, index));
        let best = considered.max_by_key(|access| {
            let (order, exact) = match access.order {
                Order::AsRead => (usize::MAX, true),
                Order::Runs(paths) => (paths, false),
                Order::Ids | Order::Nothing => (0, false),
            };
            (access.equal, access.has_range, exact, order, std::cmp::Reverse(access.index.paths().len()))
        })?;
        (best.equal > 0 || !is_by_id).then_some(best)
    }

    fn of(plan: &Plan, index: IndexUse) -> Option<Access> {
        let bounds = Bounds::of(plan, index.paths());
        let (order, is_backwards) = order_of(plan, index.paths(), &bounds.single);
        let (equal, has_range) = (bounds.equal, bounds.range.is_some());
        let gives_order = matches!(order, Order::AsRead | Order::Runs(_));
        if equal == 0 && !has_range && !gives_order {
            return None;
        }
        let mut ranges = bounds.ranges();
        if let Some(position) = plan.position.as_ref().filter(|_| gives_order)
            && let Some(seek) = seek_key(plan, order.paths(index.paths()), &bounds.single, position)
        {
            narrow(&mut ranges, &seek, is_backwards);
        }
        Some(Access { index, ranges, is_backwards, order, equal, has_range })
    }

    /// How a query is run with it, for people.
    pub(super) fn explain(&self, plan: &Plan) -> Value {
        let (mut range, mut left) = (Map::new(), Vec::new());
        for condition in &plan.conditions {
            match condition {
                Filter::At(path, test) if self.narrows(path, test) => {
                    let tests = range.entry(path.clone()).or_insert_with(|| json!([]));
                    tests.as_array_mut().into_iter().for_each(|tests| tests.push(test.to_json()));
                }
                other => left.push(other.to_json()),
            }
        }
        json!({
            "index": self.index.name(),
            "paths": self.index.paths().iter().map(Path::text).collect::<Vec<_>>(),
            "reads": if range.is_empty() { json!("all of the index") } else { Value::Object(range) },
            "backwards": self.is_backwards,
            "filter": left,
            "order": if plan.is_grouped() { "groups in memory" } else { self.order.in_words() },
        })
    }

    /// Whether the ranges say a test.
    fn narrows(&self, path: &str, test: &Test) -> bool {
        let Ok(path) = Path::parse(path) else { return false };
        let at = self.index.paths().iter().position(|other| other.place() == path.place());
        match (at, test) {
            (Some(at), Test::Equal(_) | Test::In(_) | Test::Exists(false)) => at < self.equal,
            (Some(_), Test::NotEqual(_) | Test::NotIn(_) | Test::Exists(true)) => false,
            (Some(at), _) => self.has_range && at == self.equal,
            (None, _) => false,
        }
    }
}

/// A range of the values at a path.
type Range = (Vec<u8>, Option<Vec<u8>>);

/// What the filter says of the paths of an index.
struct Bounds {
    /// What the first paths may be, encoded one behind the other, in order.
    prefixes: Vec<Vec<u8>>,
    equal: usize,
    /// Of those paths, whether there is one value alone.
    single: Vec<bool>,
    range: Option<Range>,
}

impl Bounds {
    fn of(plan: &Plan, paths: &[Path]) -> Bounds {
        let conditions = plan.filter.conditions();
        let mut bounds = Bounds { prefixes: vec![Vec::new()], equal: 0, single: Vec::new(), range: None };
        let absent = BTreeSet::from([vec![tag::ABSENT]]);
        for path in paths {
            let tests = || {
                conditions.iter().filter(|(other, _)| other.place() == path.place()).map(|(_, test)| *test)
            };
            let values = tests().filter_map(|test| match test {
                CheckedTest::In(values) => Some(values),
                CheckedTest::Exists(false) => Some(&absent),
                _ => None,
            });
            if let Some(values) = values.min_by_key(|values| values.len())
                && bounds.prefixes.len() * values.len() <= RANGES_MAX
            {
                let with =
                    |prefix: &Vec<u8>| values.iter().map(|value| [&prefix[..], value].concat()).collect();
                bounds.prefixes = bounds.prefixes.iter().flat_map::<Vec<Vec<u8>>, _>(with).collect();
                bounds.single.push(values.len() == 1);
                bounds.equal += 1;
                continue;
            }
            bounds.range = tests().fold(None, |range: Option<Range>, test| match (test, range) {
                (CheckedTest::Range(from, to), None) => Some((from.clone(), to.clone())),
                (CheckedTest::Range(from, to), Some((low, high))) => {
                    let to = match (to.clone(), high) {
                        (Some(to), Some(high)) => Some(to.min(high)),
                        (to, high) => to.or(high),
                    };
                    Some((low.max(from.clone()), to))
                }
                (_, range) => range,
            });
            break;
        }
        bounds
    }

    /// The ranges of keys, none of which overlap.
    fn ranges(&self) -> Ranges {
        let mut ranges = Ranges::new();
        for prefix in &self.prefixes {
            let (from, to) = match &self.range {
                None => (prefix.clone(), behind(prefix.clone())),
                Some((from, to)) => {
                    let to = to.as_ref().map(|to| [&prefix[..], to].concat());
                    ([&prefix[..], from].concat(), to.or_else(|| behind(prefix.clone())))
                }
            };
            if to.as_ref().is_some_and(|to| *to <= from) {
                continue;
            }
            let (from, to) = (cut_from(from), to.and_then(cut_to));
            // Those that are cut may be the same.
            match ranges.back_mut() {
                Some((_, end)) if end.as_ref().is_none_or(|end| *end > from) => {
                    *end = match (end.take(), to) {
                        (Some(end), Some(to)) => Some(end.max(to)),
                        _ => None,
                    };
                }
                _ => ranges.push_back((from, to)),
            }
        }
        ranges
    }
}

/// The first key that values from these on may have.
fn cut_from(mut from: Vec<u8>) -> Vec<u8> {
    from.truncate(VALUES_BYTES_MAX);
    from
}

/// What all keys of values below these are below.
fn cut_to(mut to: Vec<u8>) -> Option<Vec<u8>> {
    if to.len() <= VALUES_BYTES_MAX {
        return Some(to);
    }
    to.truncate(VALUES_BYTES_MAX);
    behind(to)
}

/// What of the order is given by an index whose first paths may have one value alone, and whether it is read backwards for it.
fn order_of(plan: &Plan, paths: &[Path], single: &[bool]) -> (Order, bool) {
    if plan.is_grouped() {
        return (Order::Nothing, false);
    }
    let is_single = |at: usize| single.get(at).copied().unwrap_or(false);
    // The paths that order the entries, and those that order the rows; nothing is equal behind an ID.
    let ordering: Vec<usize> = (0..paths.len()).filter(|at| !is_single(*at)).collect();
    let mut wanted: Vec<(&Path, bool)> = Vec::new();
    let mut by_id = plan.sort.last().is_some_and(|(_, descending)| *descending);
    for (path, descending) in &plan.sort {
        if path.is_id() {
            by_id = *descending;
            break;
        }
        let at = paths.iter().position(|other| other.place() == path.place());
        let is_told =
            at.is_some_and(is_single) || wanted.iter().any(|(other, _)| other.place() == path.place());
        if !is_told {
            wanted.push((path, *descending));
        }
    }
    let is_backwards = wanted.first().map_or(by_id, |(_, descending)| *descending);
    let given = ordering.iter().zip(&wanted).take_while(|(at, (path, descending))| {
        paths[**at].place() == path.place() && *descending == is_backwards
    });
    let given = given.count();
    if given == wanted.len() && given == ordering.len() && by_id == is_backwards {
        return (Order::AsRead, is_backwards);
    }
    if given > 0 {
        return (Order::Runs(ordering[given - 1] + 1), is_backwards);
    }
    (if plan.is_in_order() { Order::Ids } else { Order::Nothing }, false)
}

/// The beginning of the keys at which the row of a position stands, as far as the position tells.
fn seek_key(plan: &Plan, paths: &[Path], single: &[bool], position: &Position) -> Option<Vec<u8>> {
    // What the row is sorted by, each with its encoding.
    let (mut sorted, mut rest) = (Vec::new(), &position.place[..]);
    for (path, descending) in &plan.sort {
        let bytes = if *descending { turned(rest) } else { rest.to_vec() };
        let len = encoding_len(&bytes)?;
        sorted.push((path, bytes[..len].to_vec()));
        rest = &rest[len..];
    }
    let tests = plan.filter.conditions();
    let mut seek = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        let fixed = tests.iter().find_map(|(other, test)| match test {
            CheckedTest::In(values) if other.place() == path.place() && values.len() == 1 => {
                values.first().cloned()
            }
            CheckedTest::Exists(false) if other.place() == path.place() => Some(vec![tag::ABSENT]),
            _ => None,
        });
        let value = fixed.filter(|_| single.get(at).copied().unwrap_or(false));
        let of_sort =
            || sorted.iter().find(|(other, _)| other.place() == path.place()).map(|(_, value)| value.clone());
        match value.or_else(of_sort) {
            Some(value) => seek.extend(value),
            None => break,
        }
    }
    (!seek.is_empty()).then_some(seek)
}

/// Leaves away what comes before the keys that begin so.
fn narrow(ranges: &mut Ranges, seek: &[u8], is_backwards: bool) {
    let seek = cut_from(seek.to_vec());
    let kept: VecDeque<_> = if is_backwards {
        let Some(end) = behind(seek) else { return };
        let cut = |(from, to): (Vec<u8>, Option<Vec<u8>>)| {
            let to = to.map_or(end.clone(), |to| to.min(end.clone()));
            (from < to).then_some((from, Some(to)))
        };
        std::mem::take(ranges).into_iter().filter_map(cut).collect()
    } else {
        let cut = |(from, to): (Vec<u8>, Option<Vec<u8>>)| {
            let from = from.max(seek.clone());
            to.as_ref().is_none_or(|to| from < *to).then_some((from, to))
        };
        std::mem::take(ranges).into_iter().filter_map(cut).collect()
    };
    *ranges = kept;
}
