//! A query that was checked, and how it is run.

use std::collections::BTreeSet;
use std::hash::Hasher as _;

use serde_json::{Map, Value, json};
use siphasher::sip::SipHasher13;

use super::bookmark::{self, Position};
use super::filter::{Checked, CheckedTest, Filter, Left, Values};
use super::moment::Every;
use super::spec::{Aggregate, Query};
use crate::database::DatabaseError;
use crate::database::path::Path;
use crate::database::value::{encode, tag};
use crate::replica::clip;

/// Most of each that a query may have.
const SORT_MAX: usize = 8;
const FIELDS_MAX: usize = 100;
const GROUPS_MAX: usize = 8;
const AGGREGATES_MAX: usize = 32;

/// Longest name of an aggregate in bytes.
const NAME_BYTES_MAX: usize = 256;

/// A query that was checked.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) filter: Checked,
    pub(super) sort: Vec<(Path, bool)>,
    pub(super) limit: u64,
    pub(super) position: Option<Position>,
    pub(super) fields: Vec<Path>,
    pub(super) groups: Vec<(Path, Option<Every>)>,
    pub(super) aggregates: Vec<(String, CheckedAggregate)>,
    /// What bookmarks are made for.
    pub(super) fingerprint: u64,
    pub(super) reads: Reads,
    /// What has to hold all together, as it was given.
    pub(super) conditions: Vec<Filter>,
}

/// Which documents are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Those of these IDs.
    Points(BTreeSet<String>),
    /// Those with an ID from the first up to where its encoding reaches the second.
    Ids(String, Option<Vec<u8>>),
}

/// An aggregate with its paths.
#[derive(Clone, Debug)]
pub(super) enum CheckedAggregate {
    Count,
    CountOf(Path),
    Min(Path),
    Max(Path),
    Avg(Path),
    Sum(Path),
    First(Path, Path),
    Last(Path, Path),
}

fn wrong(reason: impl Into<String>) -> DatabaseError {
    DatabaseError::BadQuery { reason: reason.into() }
}

fn at_most<T>(what: &str, items: &[T], max: usize) -> Result<(), DatabaseError> {
    if items.len() > max {
        return Err(wrong(format!("{} in `{what}`, at most {max} can be", items.len())));
    }
    Ok(())
}

impl Plan {
    /// # Errors
    /// [`DatabaseError::BadQuery`].
    pub(super) fn of(query: &Query) -> Result<Plan, DatabaseError> {
        at_most("sort", &query.sort, SORT_MAX)?;
        at_most("fields", &query.fields, FIELDS_MAX)?;
        at_most("group", &query.groups, GROUPS_MAX)?;
        at_most("aggregate", &query.aggregates, AGGREGATES_MAX)?;
        let filter = Filter::All(query.filters.clone()).check(&mut Left::default(), 0)?;
        let parse = |path: &String| Path::parse(path);
        let sort = query.sort.iter().map(|(path, down)| Ok((parse(path)?, *down)));
        let groups = query
            .groups
            .iter()
            .map(|(path, every)| Ok((parse(path)?, every.as_deref().map(Every::parse).transpose()?)));
        let aggregates =
            query.aggregates.iter().map(|(name, a)| Ok((name.clone(), CheckedAggregate::of(a)?)));
        let mut plan = Plan {
            reads: Reads::of(&filter),
            filter,
            sort: sort.collect::<Result<_, DatabaseError>>()?,
            limit: query.limit.unwrap_or(u64::MAX),
            position: None,
            fields: query.fields.iter().map(parse).collect::<Result<_, _>>()?,
            groups: groups.collect::<Result<_, DatabaseError>>()?,
            aggregates: aggregates.collect::<Result<_, DatabaseError>>()?,
            fingerprint: 0,
            conditions: query.filters.iter().flat_map(Filter::conjuncts).cloned().collect(),
        };
        plan.check_names()?;
        plan.fingerprint = plan.fingerprint();
        let position = query.bookmark.as_deref().map(|text| bookmark::read(plan.fingerprint, text));
        plan.position = position.transpose()?;
        Ok(plan)
    }

    fn check_names(&self) -> Result<(), DatabaseError> {
        if self.is_grouped() && !(self.sort.is_empty() && self.fields.is_empty()) {
            return Err(wrong(
                "groups come in order of what they are grouped by, with nothing but that and the \
                aggregates: no `sort` or `fields`",
            ));
        }
        let mut names = BTreeSet::new();
        let groups = self.groups.iter().map(|(path, _)| path.text());
        for name in groups.chain(self.aggregates.iter().map(|(name, _)| name.as_str())) {
            if name.is_empty() || name.len() > NAME_BYTES_MAX.max(crate::database::path::PATH_BYTES_MAX) {
                return Err(wrong(format!("{:?} cannot be the name of an aggregate", clip(name))));
            }
            if !names.insert(name) {
                return Err(wrong(format!("{:?} would stand in a row twice", clip(name))));
            }
        }
        Ok(())
    }

    /// Whether rows are groups of documents.
    pub(super) fn is_grouped(&self) -> bool {
        !(self.groups.is_empty() && self.aggregates.is_empty())
    }

    /// Whether rows come in the order in which documents are read.
    pub(super) fn is_in_order(&self) -> bool {
        !self.is_grouped() && self.sort.iter().all(|(path, descending)| path.is_id() && !descending)
    }

    /// A number that another query does not have, but by chance.
    fn fingerprint(&self) -> u64 {
        let mut bytes = Vec::new();
        self.filter.write(&mut bytes);
        let mut put = |text: &str| encode(Some(&text.into()), &mut bytes);
        for (path, descending) in &self.sort {
            put(path.text());
            put(if *descending { "desc" } else { "asc" });
        }
        for (path, every) in &self.groups {
            put(path.text());
            put(&format!("{every:?}"));
        }
        let mut hasher = SipHasher13::new();
        hasher.write(&bytes);
        hasher.finish()
    }

    /// Where the row of a document stands.
    ///
    /// # Errors
    /// The document is damaged.
    pub(super) fn place(&self, document: &impl Values) -> Result<Vec<u8>, DatabaseError> {
        let mut place = Vec::new();
        for (path, descending) in &self.sort {
            let from = place.len();
            encode(document.value(path)?.as_ref(), &mut place);
            if *descending {
                turn(&mut place[from..]);
            }
        }
        Ok(place)
    }

    /// What rows are ordered by at last: the place, then the ID in the direction of the last path.
    pub(super) fn order_key(&self, place: &[u8], id: &str) -> Vec<u8> {
        let mut key = place.to_vec();
        let from = key.len();
        encode(Some(&id.into()), &mut key);
        if self.sort.last().is_some_and(|(_, descending)| *descending) {
            turn(&mut key[from..]);
        }
        key
    }

    /// Whether a row comes behind where another answer has ended.
    pub(super) fn is_behind_position(&self, place: &[u8], id: &str) -> bool {
        self.position
            .as_ref()
            .is_none_or(|position| self.order_key(place, id) > self.order_key(&position.place, &position.id))
    }

    /// How it is run without an index, for people.
    pub(super) fn explain(&self) -> Value {
        let reads = match &self.reads {
            Reads::Points(ids) => json!({"ids": ids.len()}),
            Reads::Ids(from, None) if from.is_empty() => json!("all documents"),
            Reads::Ids(from, _) => json!({"ids_from": from}),
        };
        let order = if self.is_grouped() {
            "groups in memory"
        } else if self.is_in_order() {
            "as read"
        } else {
            "sorted in memory"
        };
        let mut told = Map::new();
        told.insert("index".into(), Value::Null);
        told.insert("reads".into(), reads);
        told.insert("order".into(), order.into());
        Value::Object(told)
    }
}

/// Bytes of the other direction.
pub(super) fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

fn turn(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

impl CheckedAggregate {
    fn of(aggregate: &Aggregate) -> Result<CheckedAggregate, DatabaseError> {
        let path = |path: &String| Path::parse(path);
        Ok(match aggregate {
            Aggregate::Count => CheckedAggregate::Count,
            Aggregate::CountOf(of) => CheckedAggregate::CountOf(path(of)?),
            Aggregate::Min(of) => CheckedAggregate::Min(path(of)?),
            Aggregate::Max(of) => CheckedAggregate::Max(path(of)?),
            Aggregate::Avg(of) => CheckedAggregate::Avg(path(of)?),
            Aggregate::Sum(of) => CheckedAggregate::Sum(path(of)?),
            Aggregate::First { of, by } => CheckedAggregate::First(path(of)?, path(by)?),
            Aggregate::Last { of, by } => CheckedAggregate::Last(path(of)?, path(by)?),
        })
    }
}

impl Reads {
    /// The narrowest that the filter allows by IDs.
    fn of(filter: &Checked) -> Reads {
        let (mut from, mut to): (Vec<u8>, Option<Vec<u8>>) = (vec![tag::TEXT], None);
        for (_, test) in filter.conditions().into_iter().filter(|(path, _)| path.is_id()) {
            match test {
                CheckedTest::In(values) => {
                    return Reads::Points(values.iter().filter_map(|v| text_of(v)).collect());
                }
                CheckedTest::Range(low, high) => {
                    from = from.max(low.clone());
                    to = match (to, high.clone()) {
                        (Some(to), Some(high)) => Some(to.min(high)),
                        (to, high) => to.or(high),
                    };
                }
                CheckedTest::NotIn(_) | CheckedTest::Exists(_) => {}
            }
        }
        if from.first() != Some(&tag::TEXT) || to.as_ref().is_some_and(|to| *to <= from) {
            // No ID is anything but a text.
            return Reads::Points(BTreeSet::new());
        }
        Reads::Ids(start_of(&from), to)
    }
}

/// The text of an encoding, if it is one of a text.
fn text_of(encoding: &[u8]) -> Option<String> {
    (encoding.first() == Some(&tag::TEXT)).then(|| start_of(encoding))
}

/// The text that is not above any whose encoding is at or above this one of a text.
fn start_of(encoding: &[u8]) -> String {
    let bytes: Vec<u8> =
        encoding[1..].iter().take_while(|byte| **byte != tag::END).map(|byte| byte - 1).collect();
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned()
        }
    }
}
