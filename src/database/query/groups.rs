//! Groups of documents, and what is told of each.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::filter::Values;
use super::moment::moment;
use super::plan::{CheckedAggregate, Plan};
use crate::database::DatabaseError;
use crate::database::value::{encode, encoded};

/// Bytes that groups may take in memory, about.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// What a group takes beside its values.
const GROUP_OVERHEAD: usize = 128;
const CELL_OVERHEAD: usize = 64;

/// The groups found so far, in their order.
#[derive(Default)]
pub(super) struct Groups {
    groups: BTreeMap<Vec<u8>, Group>,
    bytes: usize,
}

struct Group {
    /// As the document with the first ID has them: 1 and 1.0 are one group.
    by: Vec<Value>,
    first: Box<str>,
    cells: Vec<Cell>,
    bytes: usize,
}

/// What is known so far for an aggregate.
enum Cell {
    Count(u64),
    /// The best so far, by an encoding; the ID decides between equals.
    Best(Option<Best>),
    Sum(Sum),
}

struct Best {
    by: Vec<u8>,
    id: Box<str>,
    value: Value,
    value_bytes: usize,
}

#[derive(Default)]
struct Sum {
    count: u64,
    whole: i128,
    /// The sum of those that are not whole, and what was lost to rounding (Neumaier).
    parts: f64,
    lost: f64,
    has_parts: bool,
}

impl Sum {
    fn add(&mut self, number: &Number) {
        self.count += 1;
        if let Some(whole) = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)) {
            self.whole += whole;
            return;
        }
        let part = number.as_f64().unwrap_or_default();
        let sum = self.parts + part;
        self.lost += if self.parts.abs() >= part.abs() {
            (self.parts - sum) + part
        } else {
            (part - sum) + self.parts
        };
        self.parts = sum;
        self.has_parts = true;
    }

    fn double(&self) -> f64 {
        self.whole as f64 + (self.parts + self.lost)
    }

    fn total(&self) -> Value {
        if !self.has_parts {
            if let Ok(whole) = i64::try_from(self.whole) {
                return whole.into();
            }
            if let Ok(whole) = u64::try_from(self.whole) {
                return whole.into();
            }
        }
        // Beyond the range of doubles there is no number in JSON.
        Number::from_f64(self.double()).map_or(Value::Null, Value::Number)
    }

    fn mean(&self) -> Value {
        if self.count == 0 {
            return Value::Null;
        }
        Number::from_f64(self.double() / self.count as f64).map_or(Value::Null, Value::Number)
    }
}

impl Cell {
    fn new(aggregate: &CheckedAggregate) -> Cell {
        match aggregate {
            CheckedAggregate::Count | CheckedAggregate::CountOf(_) => Cell::Count(0),
            CheckedAggregate::Avg(_) | CheckedAggregate::Sum(_) => Cell::Sum(Sum::default()),
            _ => Cell::Best(None),
        }
    }

    fn bytes(&self) -> usize {
        let held = match self {
            Cell::Best(Some(best)) => best.by.len() + best.id.len() + best.value_bytes,
            _ => 0,
        };
        CELL_OVERHEAD + held
    }

    fn add(
        &mut self,
        aggregate: &CheckedAggregate,
        id: &str,
        document: &impl Values,
    ) -> Result<(), DatabaseError> {
        let there = |path| Ok::<_, DatabaseError>(document.value(path)?.filter(|value| !value.is_null()));
        match (self, aggregate) {
            (Cell::Count(count), CheckedAggregate::Count) => *count += 1,
            (Cell::Count(count), CheckedAggregate::CountOf(of)) => *count += u64::from(there(of)?.is_some()),
            (Cell::Sum(sum), CheckedAggregate::Avg(of) | CheckedAggregate::Sum(of)) => {
                if let Some(Value::Number(number)) = there(of)? {
                    sum.add(&number);
                }
            }
            (Cell::Best(best), CheckedAggregate::Min(of) | CheckedAggregate::Max(of)) => {
                let Some(value) = there(of)? else { return Ok(()) };
                let by = encoded(&value);
                // Of equal ones, as 1 and 1.0, the first ID's in either case.
                let is_max = matches!(aggregate, CheckedAggregate::Max(_));
                let is_better = best.as_ref().is_none_or(|best| match by.cmp(&best.by) {
                    std::cmp::Ordering::Equal => *id < *best.id,
                    order => order.is_gt() == is_max,
                });
                if is_better {
                    *best = Some(Best { value_bytes: by.len(), by, id: id.into(), value });
                }
            }
            (Cell::Best(best), CheckedAggregate::First(of, by) | CheckedAggregate::Last(of, by)) => {
                let Some(by) = there(by)?.map(|by| encoded(&by)) else { return Ok(()) };
                let is_last = matches!(aggregate, CheckedAggregate::Last(..));
                let order = |best: &Best| (&by[..], id).cmp(&(&best.by[..], &*best.id));
                if best.as_ref().is_some_and(|best| order(best).is_gt() != is_last) {
                    return Ok(());
                }
                let Some(value) = there(of)? else { return Ok(()) };
                *best = Some(Best { value_bytes: encoded(&value).len(), by, id: id.into(), value });
            }
            _ => {}
        }
        Ok(())
    }

    fn tell(self, aggregate: &CheckedAggregate) -> Value {
        match self {
            Cell::Count(count) => count.into(),
            Cell::Sum(sum) if matches!(aggregate, CheckedAggregate::Avg(_)) => sum.mean(),
            Cell::Sum(sum) => sum.total(),
            Cell::Best(best) => best.map_or(Value::Null, |best| best.value),
        }
    }
}

impl Groups {
    /// Counts a document.
    ///
    /// # Errors
    /// [`DatabaseError::QueryTooLarge`]; the document is damaged.
    pub(super) fn add(&mut self, plan: &Plan, id: &str, document: &impl Values) -> Result<(), DatabaseError> {
        let (mut key, mut by) = (Vec::new(), Vec::with_capacity(plan.groups.len()));
        for (path, every) in &plan.groups {
            let value = document.value(path)?.unwrap_or_default();
            let value = match every {
                None => value,
                Some(every) => {
                    moment(&value).and_then(|ms| every.bucket(ms)).map_or(Value::Null, Value::from)
                }
            };
            encode(Some(&value), &mut key);
            by.push(value);
        }
        if plan.position.as_ref().is_some_and(|position| key <= position.place) {
            return Ok(());
        }
        self.count(plan, key, by, id, document)
    }

    fn count(
        &mut self,
        plan: &Plan,
        key: Vec<u8>,
        by: Vec<Value>,
        id: &str,
        document: &impl Values,
    ) -> Result<(), DatabaseError> {
        let fresh = || {
            let cells: Vec<Cell> =
                plan.aggregates.iter().map(|(_, aggregate)| Cell::new(aggregate)).collect();
            Group { by: by.clone(), first: id.into(), cells, bytes: 0 }
        };
        let key_bytes = key.len();
        let group = self.groups.entry(key).or_insert_with(fresh);
        if *id < *group.first {
            (group.by, group.first) = (by, id.into());
        }
        for (cell, (_, aggregate)) in group.cells.iter_mut().zip(&plan.aggregates) {
            cell.add(aggregate, id, document)?;
        }
        let bytes = GROUP_OVERHEAD
            + 2 * key_bytes
            + group.first.len()
            + group.cells.iter().map(Cell::bytes).sum::<usize>();
        self.bytes = self.bytes - group.bytes + bytes;
        group.bytes = bytes;
        // Groups behind as many as are wanted never come before them again.
        if self.groups.len() as u64 > plan.limit
            && let Some((_, last)) = self.groups.pop_last()
        {
            self.bytes -= last.bytes;
        }
        if self.bytes > GROUP_BYTES_MAX {
            return Err(DatabaseError::QueryTooLarge {
                reason: format!(
                    "{} groups take more than {} MiB: give a limit, narrow the selector or group by less",
                    self.groups.len(),
                    GROUP_BYTES_MAX >> 20
                ),
            });
        }
        Ok(())
    }

    /// The rows in order, each with where it stands. Without groups there is one row, also of no documents.
    pub(super) fn rows(mut self, plan: &Plan) -> Vec<(Vec<u8>, Map<String, Value>)> {
        if plan.groups.is_empty() && self.groups.is_empty() && plan.position.is_none() && plan.limit > 0 {
            let cells = plan.aggregates.iter().map(|(_, aggregate)| Cell::new(aggregate)).collect();
            self.groups.insert(Vec::new(), Group { by: Vec::new(), first: "".into(), cells, bytes: 0 });
        }
        let row = |(key, group): (Vec<u8>, Group)| {
            let by =
                plan.groups.iter().zip(group.by).map(|((path, _), value)| (path.text().to_owned(), value));
            let told = plan.aggregates.iter().zip(group.cells);
            let told = told.map(|((name, aggregate), cell)| (name.clone(), cell.tell(aggregate)));
            (key, by.chain(told).collect())
        };
        self.groups.into_iter().map(row).collect()
    }
}
