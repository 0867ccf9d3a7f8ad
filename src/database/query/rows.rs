//! Running a query, a piece of work at a time.
//!
//! Rows that come in the order in which documents are read are given as they are found. Others are gathered first: the first
//! ones that a limit lets through, or groups. What is gathered has a bound in bytes.

use std::collections::{BinaryHeap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::access::{Access, Order};
use super::bookmark::{self, Position};
use super::groups::Groups;
use super::indexed::{Indexed, Mark, TooMany};
use super::plan::{Plan, Reads};
use super::record::Record;
use super::spec::Query;
use crate::database::pages::{Ahead, Pages};
use crate::database::store::{CollectionKey, Store, StoredRevision};
use crate::database::value::encode;
use crate::database::{Collection, DatabaseError};

/// How much is read ahead where rows do not come as they are read: neighbours by ID may lie far apart, and a block is read once a page.
const GATHERED: Ahead = Ahead { len_max: 16_384, bytes_aim: 2 << 20 };

/// Bytes that rows may take while they are sorted, and what one takes beside its values.
const SORT_BYTES_MAX: usize = 16 << 20;
const SORT_OVERHEAD: usize = 192;

/// Documents that [`Rows`] looks at in one step, as an iterator.
const STEP_DOCUMENTS: usize = 4_096;

type Row = Map<String, Value>;

impl Collection {
    /// Finds documents, or tells of them in groups. What is saved meanwhile may or may not be seen.
    ///
    /// # Errors
    /// [`DatabaseError::BadQuery`]; [`DatabaseError::UnknownCollection`]. Of the store, and
    /// [`DatabaseError::QueryTooLarge`], as the last row.
    pub fn query(&self, query: &Query) -> Result<Rows, DatabaseError> {
        let plan = Plan::of(query)?;
        let key = self.key()?;
        let access = Access::choose(&plan, self.store.usable_indexes(key)?);
        let has_runs =
            access.as_ref().is_some_and(|access| matches!(access.order, Order::AsRead | Order::Runs(_)));
        let source = Source::of(&plan, access);
        let state = if plan.limit == 0 {
            State::End
        } else if plan.is_grouped() {
            State::Group(source, Groups::default())
        } else if has_runs {
            State::Runs(source, Sorter::default(), VecDeque::new())
        } else if plan.is_in_order() {
            State::Stream(source)
        } else {
            State::Sort(source, Sorter::default())
        };
        Ok(Rows { store: Arc::clone(&self.store), key, plan, state, given: 0, last: None })
    }

    /// How a query is run: which documents are read, and where rows are ordered.
    ///
    /// # Errors
    /// [`DatabaseError::BadQuery`]; [`DatabaseError::UnknownCollection`].
    pub fn explain(&self, query: &Query) -> Result<Value, DatabaseError> {
        let plan = Plan::of(query)?;
        let access = Access::choose(&plan, self.store.usable_indexes(self.key()?)?);
        Ok(access.map_or_else(|| plan.explain(), |access| access.explain(&plan)))
    }
}

/// The answer to a [`Query`], row by row; see [`Collection::query`]. After an error there are no more.
pub struct Rows {
    store: Arc<Store>,
    key: CollectionKey,
    plan: Plan,
    state: State,
    given: u64,
    last: Option<Position>,
}

enum State {
    Stream(Source),
    Sort(Source, Sorter),
    /// Of an index that gives some of the order: rows of the run that is read, and those before it, which are complete.
    Runs(Source, Sorter, VecDeque<(Position, Gathered)>),
    Group(Source, Groups),
    /// What was gathered, each row with where it stands.
    Give(VecDeque<(Position, Gathered)>),
    End,
}

enum Gathered {
    Group(Row),
    Document(StoredRevision),
}

/// What a piece of work came to.
pub(crate) enum Step {
    /// The next row.
    Row(Row),
    /// Nothing yet: there is more to look at.
    Working,
    End,
}

impl Rows {
    /// Where the rows that were given end, if the limit has ended them: for a [`Query::bookmark`] that goes on. It has some
    /// 3,000 characters at most.
    ///
    /// # Errors
    /// [`DatabaseError::QueryTooLarge`] if the last row is sorted by values of more than 2,048 bytes.
    pub fn bookmark(&self) -> Result<Option<String>, DatabaseError> {
        let last = self.last.as_ref().filter(|_| self.given == self.plan.limit);
        last.map(|position| bookmark::write(self.plan.fingerprint, position)).transpose()
    }

    /// Goes on until there is a row, or about so many documents were looked at.
    ///
    /// # Errors
    /// As of the iterator; it has ended then.
    pub(crate) fn step(&mut self, documents: usize) -> Result<Step, DatabaseError> {
        let step = self.go_on(documents);
        if step.is_err() {
            self.state = State::End;
        }
        step
    }

    fn go_on(&mut self, documents: usize) -> Result<Step, DatabaseError> {
        for _ in 0..documents.max(1) {
            let (source, store, plan) = match &mut self.state {
                State::End => return Ok(Step::End),
                State::Give(rows) => {
                    let Some((position, row)) = rows.pop_front() else {
                        self.state = State::End;
                        return Ok(Step::End);
                    };
                    let row = match row {
                        Gathered::Group(row) => row,
                        Gathered::Document(revision) => row_of(&self.store, &self.plan, &revision)?,
                    };
                    return Ok(self.give(position, row));
                }
                State::Runs(_, _, complete) if !complete.is_empty() => {
                    let Some((position, Gathered::Document(revision))) = complete.pop_front() else {
                        continue;
                    };
                    let row = row_of(&self.store, &self.plan, &revision)?;
                    return Ok(self.give(position, row));
                }
                State::Stream(source)
                | State::Sort(source, _)
                | State::Group(source, _)
                | State::Runs(source, ..) => (source, &*self.store, &self.plan),
            };
            let Some((revision, mark)) = source.next(store, self.key, plan)? else {
                self.gathered();
                continue;
            };
            if let State::Runs(_, sorter, complete) = &mut self.state
                && mark != Mark::GoesOn
            {
                complete.extend(std::mem::take(sorter).rows());
            }
            let record = Record { store, revision: &revision };
            if !plan.filter.holds(&record)? {
                continue;
            }
            match &mut self.state {
                State::Group(_, groups) => groups.add(plan, &revision.id, &record)?,
                State::Sort(_, sorter) => {
                    let place = plan.place(&record)?;
                    sorter.add(plan, place, revision)?;
                }
                State::Runs(_, sorter, complete) => {
                    let place = plan.place(&record)?;
                    let is_next = mark == Mark::Alone && complete.is_empty();
                    if is_next && plan.is_behind_position(&place, &revision.id) {
                        let row = row_of(store, plan, &revision)?;
                        return Ok(self.give(Position { place, id: revision.id.into_string() }, row));
                    }
                    if !is_next {
                        sorter.add(plan, place, revision)?;
                    }
                }
                _ => {
                    let row = row_of(store, plan, &revision)?;
                    let place = plan.place(&record)?;
                    return Ok(self.give(Position { place, id: revision.id.into_string() }, row));
                }
            }
        }
        Ok(Step::Working)
    }

    fn give(&mut self, position: Position, row: Row) -> Step {
        self.given += 1;
        self.last = Some(position);
        if self.given == self.plan.limit {
            self.state = State::End;
        }
        Step::Row(row)
    }

    /// All documents were looked at.
    fn gathered(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::End) {
            State::Group(_, groups) => {
                let rows = groups.rows(&self.plan).into_iter();
                let at = |place| Position { place, id: String::new() };
                State::Give(rows.map(|(place, row)| (at(place), Gathered::Group(row))).collect())
            }
            State::Sort(_, sorter) | State::Runs(_, sorter, _) => State::Give(sorter.rows()),
            _ => State::End,
        };
    }
}

impl Iterator for Rows {
    type Item = Result<Map<String, Value>, DatabaseError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step(STEP_DOCUMENTS) {
                Ok(Step::Row(row)) => return Some(Ok(row)),
                Ok(Step::Working) => {}
                Ok(Step::End) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("given", &self.given).finish_non_exhaustive()
    }
}

/// What of a document is wanted.
fn row_of(store: &Store, plan: &Plan, revision: &StoredRevision) -> Result<Row, DatabaseError> {
    let record = Record { store, revision };
    if plan.fields.is_empty() { record.whole() } else { record.fields(&plan.fields) }
}

/// The first rows of those found so far.
#[derive(Default)]
struct Sorter {
    rows: BinaryHeap<Sorted>,
    bytes: usize,
}

struct Sorted {
    order: Vec<u8>,
    place: Vec<u8>,
    revision: StoredRevision,
}

impl Sorted {
    fn bytes(&self) -> usize {
        SORT_OVERHEAD
            + self.order.len()
            + self.place.len()
            + self.revision.id.len()
            + self.revision.body.len()
    }
}

impl PartialEq for Sorted {
    fn eq(&self, other: &Sorted) -> bool {
        self.order == other.order
    }
}

impl Eq for Sorted {}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Sorted) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sorted {
    fn cmp(&self, other: &Sorted) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

impl Sorter {
    fn add(&mut self, plan: &Plan, place: Vec<u8>, revision: StoredRevision) -> Result<(), DatabaseError> {
        if !plan.is_behind_position(&place, &revision.id) {
            return Ok(());
        }
        let order = plan.order_key(&place, &revision.id);
        let is_full = self.rows.len() as u64 >= plan.limit;
        if is_full && self.rows.peek().is_some_and(|last| last.order <= order) {
            return Ok(());
        }
        let row = Sorted { order, place, revision };
        self.bytes += row.bytes();
        self.rows.push(row);
        if is_full && let Some(last) = self.rows.pop() {
            self.bytes -= last.bytes();
        }
        if self.bytes > SORT_BYTES_MAX {
            let advice = "give a lower limit, or make an index in the order that is wanted";
            return Err(DatabaseError::QueryTooLarge {
                reason: format!(
                    "{} rows to sort take more than {} MiB: {advice}",
                    self.rows.len(),
                    SORT_BYTES_MAX >> 20
                ),
            });
        }
        Ok(())
    }

    fn rows(self) -> VecDeque<(Position, Gathered)> {
        let rows = self.rows.into_sorted_vec().into_iter();
        let at = |place, revision: &StoredRevision| Position { place, id: (*revision.id).to_owned() };
        rows.map(|row| (at(row.place, &row.revision), Gathered::Document(row.revision))).collect()
    }
}

/// The documents to look at.
enum Source {
    Points(VecDeque<String>),
    /// Those in order of their IDs, up to this encoding of one.
    Ids(Pages, Option<Vec<u8>>),
    Index(Box<Indexed>),
}

impl Source {
    fn of(plan: &Plan, access: Option<Access>) -> Source {
        if let Some(access) = access {
            return Source::Index(Box::new(Indexed::new(access, plan.limit)));
        }
        let after = plan.position.as_ref().filter(|_| plan.is_in_order()).map(|position| &position.id);
        match &plan.reads {
            Reads::Points(ids) => Source::Points(
                ids.iter().filter(|id| after.is_none_or(|after| *id > after)).cloned().collect(),
            ),
            Reads::Ids(from, to) => {
                let from = match after {
                    Some(after) if after >= from => Bound::Excluded(after.as_str().into()),
                    _ => Bound::Included(from.as_str().into()),
                };
                let ahead = if plan.is_in_order() { Ahead::GIVEN } else { GATHERED };
                Source::Ids(Pages::new(from, ahead), to.clone())
            }
        }
    }

    /// The next document, and where it stands among the others.
    fn next(
        &mut self,
        store: &Store,
        key: CollectionKey,
        plan: &Plan,
    ) -> Result<Option<(StoredRevision, Mark)>, DatabaseError> {
        if let Source::Index(indexed) = self
            && let Err(TooMany) = indexed.gather_ids(store, plan.position.as_ref())?
        {
            *self = Source::of(plan, None);
        }
        let next = match self {
            Source::Index(indexed) => return indexed.next(store, key),
            Source::Points(ids) => {
                while let Some(id) = ids.pop_front() {
                    if let Some(revision) = store.revision(key, &id)?.filter(|revision| !revision.deleted) {
                        return Ok(Some((revision, Mark::GoesOn)));
                    }
                }
                None
            }
            Source::Ids(pages, to) => {
                let key = || store.collection(key).map(|_| key);
                pages.next(store, key, |id| reaches(to.as_deref(), id))?
            }
        };
        Ok(next.map(|revision| (revision, Mark::GoesOn)))
    }
}

/// Whether an ID is behind those that are wanted.
fn reaches(to: Option<&[u8]>, id: &str) -> bool {
    to.is_some_and(|to| {
        let mut encoding = Vec::with_capacity(id.len() + 2);
        encode(Some(&id.into()), &mut encoding);
        *to <= *encoding
    })
}
