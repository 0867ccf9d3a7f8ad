//! Which documents are meant: tests of values at paths, joined by and, or, not.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::database::DatabaseError;
use crate::database::path::Path;
use crate::database::value::{behind, encode, encode_start_of_text, encoded, kind, tag};

/// Filters within filters at most, tests in one query, and values of one [`Test::In`].
const DEPTH_MAX: usize = 32;
const TESTS_MAX: usize = 1_000;
const VALUES_MAX: usize = 10_000;

/// Bytes of all values of a query together, as they are compared.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Which documents a [`Query`](super::Query) is for. A path and a [`Test`] are one already.
/// ```
/// use gattway::database::{Filter, Test};
///
/// let freezes = Filter::from(("celsius", Test::Below(0.into())));
/// let filter = Filter::Any(vec![freezes, Filter::from(("alarm", Test::Equal(true.into())))]);
/// # let _ = filter;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// The value at a path, such as `position.height`, `samples[0]` or `_id`, passes the test.
    At(String, Test),
    /// All of them hold; so it is where there are none.
    All(Vec<Filter>),
    /// At least one of them holds; never where there are none.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
}

/// What the value at a path has to be. But for [`Test::Exists`], no test passes where there is no value; a comparison passes
/// for values of the same kind alone, so no text is above a number.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Test {
    /// Equal; 1 and 1.0 are.
    Equal(Value),
    /// There, and not equal.
    NotEqual(Value),
    /// Below it.
    Below(Value),
    /// Below it, or equal.
    AtMost(Value),
    /// Above it.
    Above(Value),
    /// Above it, or equal.
    AtLeast(Value),
    /// Equal to one of these, 10,000 at most.
    In(Vec<Value>),
    /// There, and equal to none of these.
    NotIn(Vec<Value>),
    /// Whether there is a value; null is one.
    Exists(bool),
    /// A text with this beginning.
    BeginsWith(String),
}

impl<P: Into<String>> From<(P, Test)> for Filter {
    fn from((path, test): (P, Test)) -> Filter {
        Filter::At(path.into(), test)
    }
}

/// A filter as it is applied: values are compared by their encodings.
#[derive(Clone, Debug)]
pub(super) enum Checked {
    At(Path, CheckedTest),
    All(Vec<Checked>),
    Any(Vec<Checked>),
    Not(Box<Checked>),
}

#[derive(Clone, Debug)]
pub(super) enum CheckedTest {
    /// From the first (with it) up to the second (without it).
    Range(Vec<u8>, Option<Vec<u8>>),
    In(BTreeSet<Vec<u8>>),
    NotIn(BTreeSet<Vec<u8>>),
    Exists(bool),
}

/// What one query may still have.
pub(super) struct Left {
    tests: usize,
    value_bytes: usize,
}

impl Default for Left {
    fn default() -> Left {
        Left { tests: TESTS_MAX, value_bytes: VALUE_BYTES_MAX }
    }
}

fn too_much(reason: String) -> DatabaseError {
    DatabaseError::BadQuery { reason }
}

impl Left {
    fn take_test(&mut self) -> Result<(), DatabaseError> {
        let left = self.tests.checked_sub(1);
        self.tests = left.ok_or_else(|| too_much(format!("more than {TESTS_MAX} tests")))?;
        Ok(())
    }

    fn take_value(&mut self, value: &Value) -> Result<Vec<u8>, DatabaseError> {
        let bytes = encoded(value);
        let left = self.value_bytes.checked_sub(bytes.len());
        self.value_bytes =
            left.ok_or_else(|| too_much(format!("values of more than {VALUE_BYTES_MAX} bytes")))?;
        Ok(bytes)
    }

    fn take_values(&mut self, values: &[Value]) -> Result<BTreeSet<Vec<u8>>, DatabaseError> {
        if values.len() > VALUES_MAX {
            return Err(too_much(format!(
                "{} values to choose from, at most {VALUES_MAX} can be",
                values.len()
            )));
        }
        values.iter().map(|value| self.take_value(value)).collect()
    }
}

impl Filter {
    /// What has to hold all together where this does.
    pub(super) fn conjuncts(&self) -> Vec<&Filter> {
        match self {
            Filter::All(filters) => filters.iter().flat_map(Filter::conjuncts).collect(),
            other => vec![other],
        }
    }

    /// As a selector.
    pub(super) fn to_json(&self) -> Value {
        let all = |filters: &[Filter]| filters.iter().map(Filter::to_json).collect::<Vec<_>>();
        match self {
            Filter::At(path, test) => json!({path: test.to_json()}),
            Filter::All(filters) => json!({"$and": all(filters)}),
            Filter::Any(filters) => json!({"$or": all(filters)}),
            Filter::Not(filter) => json!({"$not": filter.to_json()}),
        }
    }

    /// # Errors
    /// [`DatabaseError::BadQuery`]: a path that is none, or more than a query may have.
    pub(super) fn check(&self, left: &mut Left, depth: usize) -> Result<Checked, DatabaseError> {
        if depth > DEPTH_MAX {
            return Err(too_much(format!("filters within filters, more than {DEPTH_MAX} deep")));
        }
        left.take_test()?;
        let mut all = |filters: &[Filter]| -> Result<Vec<Checked>, DatabaseError> {
            filters.iter().map(|filter| filter.check(left, depth + 1)).collect()
        };
        Ok(match self {
            Filter::At(path, test) => Checked::At(Path::parse(path)?, test.check(left)?),
            Filter::All(filters) => Checked::All(all(filters)?),
            Filter::Any(filters) => Checked::Any(all(filters)?),
            Filter::Not(filter) => Checked::Not(Box::new(filter.check(left, depth + 1)?)),
        })
    }
}

impl Test {
    /// As an operator of a selector.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Test::Equal(value) => json!({"$eq": value}),
            Test::NotEqual(value) => json!({"$ne": value}),
            Test::Below(value) => json!({"$lt": value}),
            Test::AtMost(value) => json!({"$lte": value}),
            Test::Above(value) => json!({"$gt": value}),
            Test::AtLeast(value) => json!({"$gte": value}),
            Test::In(values) => json!({"$in": values}),
            Test::NotIn(values) => json!({"$nin": values}),
            Test::Exists(exists) => json!({"$exists": exists}),
            Test::BeginsWith(start) => json!({"$beginsWith": start}),
        }
    }

    fn check(&self, left: &mut Left) -> Result<CheckedTest, DatabaseError> {
        let one =
            |left: &mut Left, value: &Value| left.take_value(value).map(|bytes| BTreeSet::from([bytes]));
        Ok(match self {
            Test::Equal(value) => CheckedTest::In(one(left, value)?),
            Test::NotEqual(value) => CheckedTest::NotIn(one(left, value)?),
            Test::Below(value) => CheckedTest::Range(first_of(value), Some(left.take_value(value)?)),
            Test::AtMost(value) => CheckedTest::Range(first_of(value), behind(left.take_value(value)?)),
            Test::Above(value) => {
                // A beginning that nothing is behind does not occur: kinds are small numbers.
                CheckedTest::Range(behind(left.take_value(value)?).unwrap_or_default(), end_of(value))
            }
            Test::AtLeast(value) => CheckedTest::Range(left.take_value(value)?, end_of(value)),
            Test::In(values) => CheckedTest::In(left.take_values(values)?),
            Test::NotIn(values) => CheckedTest::NotIn(left.take_values(values)?),
            Test::Exists(exists) => CheckedTest::Exists(*exists),
            Test::BeginsWith(start) => {
                left.take_value(&Value::from(start.as_str()))?;
                let mut from = Vec::new();
                encode_start_of_text(start, &mut from);
                let to = behind(from.clone());
                CheckedTest::Range(from, to)
            }
        })
    }
}

/// What all values of this one's kind are at or above.
fn first_of(value: &Value) -> Vec<u8> {
    vec![kind(value)]
}

/// What all values of its kind are below. False and true are of one kind.
fn end_of(value: &Value) -> Option<Vec<u8>> {
    let last = if kind(value) == tag::FALSE { tag::TRUE } else { kind(value) };
    Some(vec![last + 1])
}

/// A document as a query sees it.
pub(super) trait Values {
    /// The value at a path.
    ///
    /// # Errors
    /// The document is damaged.
    fn value(&self, path: &Path) -> Result<Option<Value>, DatabaseError>;
}

impl Checked {
    /// Whether a document is meant.
    ///
    /// # Errors
    /// The document is damaged.
    pub(super) fn holds(&self, document: &impl Values) -> Result<bool, DatabaseError> {
        match self {
            Checked::At(path, test) => Ok(test.passes(document.value(path)?.as_ref())),
            Checked::All(filters) => {
                for filter in filters {
                    if !filter.holds(document)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Checked::Any(filters) => {
                for filter in filters {
                    if filter.holds(document)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Checked::Not(filter) => filter.holds(document).map(|holds| !holds),
        }
    }

    /// The tests that a document has to pass in any case.
    pub(super) fn conditions(&self) -> Vec<(&Path, &CheckedTest)> {
        match self {
            Checked::At(path, test) => vec![(path, test)],
            Checked::All(filters) => filters.iter().flat_map(Checked::conditions).collect(),
            Checked::Any(filters) if filters.len() == 1 => filters[0].conditions(),
            Checked::Any(_) | Checked::Not(_) => Vec::new(),
        }
    }

    /// Appends bytes that are the same for the same filter.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut several = |kind: u8, filters: &[Checked]| {
            out.push(kind);
            out.extend_from_slice(&(filters.len() as u32).to_be_bytes());
            filters.iter().for_each(|filter| filter.write(out));
        };
        match self {
            Checked::At(path, test) => {
                out.push(b'p');
                encode(Some(&path.text().into()), out);
                test.write(out);
            }
            Checked::All(filters) => several(b'&', filters),
            Checked::Any(filters) => several(b'|', filters),
            Checked::Not(filter) => several(b'!', std::slice::from_ref(&**filter)),
        }
    }
}

impl CheckedTest {
    /// Whether the value passes; `None` is no value.
    pub(super) fn passes(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return matches!(self, CheckedTest::Exists(false)) };
        match self {
            CheckedTest::Range(from, to) => {
                let bytes = encoded(value);
                *from <= bytes && to.as_ref().is_none_or(|to| bytes < *to)
            }
            CheckedTest::In(values) => values.contains(&encoded(value)),
            CheckedTest::NotIn(values) => !values.contains(&encoded(value)),
            CheckedTest::Exists(exists) => *exists,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            CheckedTest::Range(from, to) => {
                put(b"range");
                put(from);
                put(to.as_deref().unwrap_or_default());
            }
            CheckedTest::In(values) | CheckedTest::NotIn(values) => {
                put(if matches!(self, CheckedTest::In(_)) { b"in" } else { b"not in" });
                put(&(values.len() as u32).to_be_bytes());
                values.iter().for_each(|value| put(value));
            }
            CheckedTest::Exists(exists) => put(if *exists { b"there" } else { b"not there" }),
        }
    }
}
