//! The documents that an index leads to, read ahead in the order of its entries.

use std::collections::VecDeque;

use super::access::{Access, Order};
use super::bookmark::Position;
use crate::database::DatabaseError;
use crate::database::store::{CollectionKey, Cursor, Entry, Store, StoredRevision};
use crate::database::value::encoding_len;

/// Entries whose documents are read together at first, and at most: a block is read once for all of them.
const AHEAD_FIRST: usize = 64;
const AHEAD_MAX: usize = 4_096;

/// Bytes that entries may take while their IDs are sorted.
#[cfg(not(test))]
const IDS_BYTES_MAX: usize = 16 << 20;
/// Few enough for a test to reach them.
#[cfg(test)]
const IDS_BYTES_MAX: usize = 64 << 10;

/// Where a document stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Behind those before it, and before those that come.
    Alone,
    /// Behind those before it.
    Begins,
    /// Together with the one before it.
    GoesOn,
}

pub(super) struct Indexed {
    cursor: Cursor,
    order: Order,
    /// Entries that are read, and not yet their documents.
    entries: VecDeque<Entry>,
    documents: VecDeque<(StoredRevision, Mark)>,
    /// The values that the run has together.
    run: Option<Box<[u8]>>,
    /// A run has begun, of which no document was found yet.
    begins: bool,
    ahead: usize,
    /// Its IDs are gathered and sorted.
    is_gathered: bool,
}

/// There are too many IDs to sort.
pub(super) struct TooMany;

impl Indexed {
    /// `limit`: the rows that are wanted, at most.
    pub(super) fn new(access: Access, limit: u64) -> Indexed {
        let ahead = if access.order == Order::AsRead {
            usize::try_from(limit).unwrap_or(AHEAD_FIRST).clamp(1, AHEAD_FIRST)
        } else {
            AHEAD_MAX
        };
        Indexed {
            cursor: Cursor::new(access.index, access.ranges, access.is_backwards),
            order: access.order,
            entries: VecDeque::new(),
            documents: VecDeque::new(),
            run: None,
            begins: true,
            ahead,
            is_gathered: false,
        }
    }

    /// Gathers the entries and sorts them by their IDs, those behind a position.
    pub(super) fn gather_ids(
        &mut self,
        store: &Store,
        position: Option<&Position>,
    ) -> Result<Result<(), TooMany>, DatabaseError> {
        if self.order != Order::Ids || std::mem::replace(&mut self.is_gathered, true) {
            return Ok(Ok(()));
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = self.cursor.next(store)? {
            if position.is_some_and(|position| entry.id() <= position.id.as_str()) {
                continue;
            }
            bytes += entry.bytes();
            if bytes > IDS_BYTES_MAX {
                return Ok(Err(TooMany));
            }
            found.push(entry);
        }
        // One that was changed meanwhile may be there twice.
        found.sort_unstable_by(|a, b| a.id().cmp(b.id()).then(b.sequence.cmp(&a.sequence)));
        found.dedup_by(|a, b| a.id() == b.id());
        self.entries = found.into();
        Ok(Ok(()))
    }

    /// The next document. It need not be one that is wanted.
    pub(super) fn next(
        &mut self,
        store: &Store,
        key: CollectionKey,
    ) -> Result<Option<(StoredRevision, Mark)>, DatabaseError> {
        while self.documents.is_empty() {
            store.collection(key)?;
            while self.entries.len() < self.ahead && !self.is_gathered {
                let Some(entry) = self.cursor.next(store)? else { break };
                self.entries.push_back(entry);
            }
            if self.entries.is_empty() {
                return Ok(None);
            }
            self.read(store, key)?;
        }
        Ok(self.documents.pop_front())
    }

    /// Reads the documents of the next entries.
    fn read(&mut self, store: &Store, key: CollectionKey) -> Result<(), DatabaseError> {
        let mut len = self.entries.len().min(self.ahead);
        let entries = self.entries.make_contiguous();
        let found = loop {
            match self.cursor.revisions(store, &entries[..len])? {
                Some(found) => break found,
                None => len /= 2,
            }
        };
        self.ahead = (self.ahead * 2).min(AHEAD_MAX);
        for (revision, entry) in found.into_iter().zip(self.entries.drain(..len).collect::<Vec<_>>()) {
            let is_alone = self.begin(&entry);
            let revision = match revision {
                // Its place does not depend on what it has.
                None if self.order == Order::Ids => store.revision(key, entry.id())?,
                revision => revision,
            };
            let Some(revision) = revision.filter(|revision| !revision.deleted) else { continue };
            let begins = std::mem::take(&mut self.begins);
            let mark = match (is_alone, begins) {
                (true, _) => Mark::Alone,
                (false, true) => Mark::Begins,
                (false, false) => Mark::GoesOn,
            };
            self.documents.push_back((revision, mark));
        }
        Ok(())
    }

    /// Notes whether a run begins with an entry; whether that is one of its own.
    fn begin(&mut self, entry: &Entry) -> bool {
        let values = entry.values();
        let together = match self.order {
            Order::Ids | Order::Nothing => return false,
            Order::AsRead if !entry.is_cut() => {
                (self.run, self.begins) = (None, true);
                return true;
            }
            Order::AsRead => values,
            Order::Runs(paths) => {
                let len = (0..paths).try_fold(0, |at, _| Some(at + encoding_len(&values[at..])?));
                &values[..len.unwrap_or(values.len())]
            }
        };
        if self.run.as_deref() != Some(together) {
            (self.run, self.begins) = (Some(together.into()), true);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::plan::Plan;
    use super::super::{Query, Test};
    use super::*;
    use crate::database::tests::Fixture;
    use crate::database::{Collection, Database};

    const KEY: CollectionKey = CollectionKey(0);

    /// Documents `d000` and so on, in an index on `a`.
    fn saved(fixture: &Fixture, bodies: impl IntoIterator<Item = Value>) -> (Database, Collection) {
        let database = fixture.open();
        let collection = database.default_collection().expect("default");
        let bodies: Vec<Value> = bodies.into_iter().collect();
        let saved = database.batch(|batch| {
            (0..).zip(&bodies).try_for_each(|(n, body)| batch.put(&collection, &format!("d{n:03}"), body))
        });
        saved.expect("saved");
        collection.create_index("by-a", ["a"]).expect("created");
        collection.build_indexes().expect("built");
        (database, collection)
    }

    fn indexed(database: &Database, query: &Query) -> Indexed {
        let plan = Plan::of(query).expect("a query");
        let indexes = database.store.usable_indexes(KEY).expect("there");
        Indexed::new(Access::choose(&plan, indexes).expect("of use"), plan.limit)
    }

    fn rest(indexed: &mut Indexed, store: &Store) -> Vec<(String, Mark)> {
        std::iter::from_fn(|| indexed.next(store, KEY).expect("readable"))
            .map(|(revision, mark)| (revision.id.into_string(), mark))
            .collect()
    }

    /// Rows are held together, and sorted, only as far as the index does not order them: where its entries have the same values
    /// and more is asked for, or the beginnings of long values alone.
    #[test]
    fn only_what_the_index_leaves_open_is_held_together() {
        use Mark::{Alone, Begins, GoesOn};
        let long = |n: usize| format!("{}{n}", "x".repeat(250));
        let short: Vec<Value> = (0..4).map(|n| json!({"a": n / 2, "b": n})).collect();
        let texts: Vec<Value> = ["v".into(), long(2), long(1), "y".into()].map(|a| json!({ "a": a })).into();
        let by_a = Query::new().sort("a", false);
        for (bodies, query, expected) in [
            (&short, by_a.clone(), [Alone; 4]),
            (&short, by_a.clone().sort("b", true), [Begins, GoesOn, Begins, GoesOn]),
            (&short, Query::new().filter(("a", Test::AtLeast(0.into()))), [Begins, GoesOn, GoesOn, GoesOn]),
            (&texts, by_a, [Alone, Begins, GoesOn, Alone]),
        ] {
            let fixture = Fixture::new();
            let (database, _) = saved(&fixture, bodies.clone());
            let marks: Vec<Mark> = rest(&mut indexed(&database, &query), &database.store)
                .into_iter()
                .map(|(_, mark)| mark)
                .collect();
            assert_eq!(marks, expected, "{query:?}");
        }
    }

    /// IDs are sorted in memory as long as there are not too many.
    #[test]
    fn so_many_ids_are_sorted() {
        let fixture = Fixture::new();
        let (database, _) = saved(&fixture, (0..1_000).map(|n| json!({ "a": n })));
        for (from, fits) in [(0, false), (500, true)] {
            let mut indexed = indexed(&database, &Query::new().filter(("a", Test::AtLeast(from.into()))));
            let gathered = indexed.gather_ids(&database.store, None).expect("readable");
            assert_eq!(gathered.is_ok(), fits, "{from}");
        }
    }

    /// Who wants few rows reads few documents.
    #[test]
    fn no_more_is_read_ahead_than_is_wanted() {
        let fixture = Fixture::new();
        let (database, _) = saved(&fixture, (0..300).map(|n| json!({ "a": n })));
        let mut indexed = indexed(&database, &Query::new().sort("a", false).limit(5));
        assert!(indexed.next(&database.store, KEY).expect("readable").is_some());
        assert_eq!((indexed.documents.len(), indexed.entries.len()), (4, 0));
        assert_eq!(rest(&mut indexed, &database.store).len(), 299);
    }

    /// A document that is changed after its entry was read keeps its place by its ID, and has none any more by what it had.
    #[test]
    fn what_is_changed_while_it_is_read_stands_where_it_stands_now() {
        let fixture = Fixture::new();
        let (database, collection) = saved(&fixture, (0..3).map(|n| json!({ "a": n })));
        let ids = |rows: Vec<(String, Mark)>| rows.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        let mut by_id = indexed(&database, &Query::new().filter(("a", Test::AtLeast(0.into()))));
        assert!(by_id.gather_ids(&database.store, None).expect("readable").is_ok());
        // Most of the block, so that what they were is gone.
        ["d001", "d002"].iter().for_each(|id| assert!(collection.put(id, &json!({"a": 7})).is_ok()));
        assert_eq!(ids(rest(&mut by_id, &database.store)), ["d000", "d001", "d002"]);
        let fixture = Fixture::new();
        let (database, collection) = saved(&fixture, (0..3).map(|n| json!({ "a": n })));
        let mut by_value = indexed(&database, &Query::new().sort("a", false).limit(1));
        let first = by_value.cursor.next(&database.store).expect("readable").expect("an entry");
        assert_eq!(first.id(), "d000");
        by_value.entries.push_back(first);
        ["d000", "d001"].iter().for_each(|id| assert!(collection.put(id, &json!({"a": 9})).is_ok()));
        assert_eq!(ids(rest(&mut by_value, &database.store)), ["d002"]);
    }
}
