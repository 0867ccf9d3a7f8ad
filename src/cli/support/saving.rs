//! Saving what an import brings: which records are new, which are there already, which numbers are free. What a record
//! cannot be saved for is said of it alone, with its line; only a failing medium ends an import.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::support::documents::{Entry, EntryArgs, NUMBER_DIGITS, signs_of};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::store::failed;
use crate::database::{Batch, Collection, Database, DatabaseError, Document};

/// IDs that are looked at together when the highest number is searched.
const IDS_AT_ONCE: usize = 1000;

/// Most digits of a number that is gone on from; what is longer is no number of ours.
const COUNTED_DIGITS_MAX: usize = 18;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SavedKind {
    /// A document that was not there.
    Saved,
    /// Other content took the place of what was there.
    Replaced,
    /// It is deleted.
    Deleted,
    /// It was like this already.
    Unchanged,
}

/// A record that was dealt with.
#[derive(Debug)]
pub(crate) struct Done {
    /// The line it came from.
    pub(crate) line: u64,
    /// The document.
    pub(crate) id: String,
    /// What became of it, or why it was left out.
    pub(crate) result: Result<SavedKind, Refused>,
}

/// Why a record was left out.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is a document of this ID with other content, which was kept.
    Kept(CliError),
    /// It cannot be a document.
    Invalid(CliError),
}

impl Refused {
    /// In words, with the line.
    pub(crate) fn error(&self) -> &CliError {
        match self {
            Refused::Kept(error) | Refused::Invalid(error) => error,
        }
    }
}

/// Saves records into one collection.
pub(crate) struct Saver {
    db: Database,
    collection: Collection,
    replace: bool,
    numbers: Option<Numbers>,
}

/// What a batch has made of documents so far.
type Pending<'e> = HashMap<String, Option<&'e Map<String, Value>>>;

impl Saver {
    /// For records that `args` describes; looks for the highest number in use if they are to be numbered.
    ///
    /// # Errors
    /// A prefix that no ID may have; of the database.
    pub(crate) fn new(db: &Database, collection: Collection, args: &EntryArgs) -> Result<Saver, CliError> {
        args.check()?;
        let numbers = match &args.id_prefix {
            Some(prefix) if args.short_ids => {
                Some(Numbers::after_highest(&collection, prefix).map_err(failed)?)
            }
            Some(prefix) => {
                let prefix = format!("{prefix}{}-", signs_of(db.source()));
                Some(Numbers::after_highest(&collection, &prefix).map_err(failed)?)
            }
            None => None,
        };
        Ok(Saver { db: db.clone(), collection, replace: args.replace, numbers })
    }

    /// As [`new`](Self::new), for one that goes on where another has ended.
    ///
    /// # Errors
    /// A prefix that no ID may have.
    pub(crate) fn going_on(
        db: &Database,
        collection: Collection,
        args: &EntryArgs,
        numbers: Numbers,
    ) -> Result<Saver, CliError> {
        args.check()?;
        Ok(Saver { db: db.clone(), collection, replace: args.replace, numbers: Some(numbers) })
    }

    /// Where numbers go on.
    pub(crate) fn into_numbers(self) -> Option<Numbers> {
        self.numbers
    }

    /// The collection.
    pub(crate) fn collection(&self) -> &Collection {
        &self.collection
    }

    /// Makes records durable, those that can be saved together or none.
    ///
    /// # Errors
    /// Of the storage device: nothing of them is known to be saved.
    pub(crate) fn save(&mut self, entries: &[Entry]) -> Result<Vec<Done>, CliError> {
        loop {
            let mut numbers = self.numbers.clone();
            let filled = self.db.batch(|batch| {
                let mut pending = Pending::new();
                entries.iter().map(|entry| self.stage(batch, &mut pending, &mut numbers, entry)).collect()
            });
            match filled {
                Ok(done) => {
                    self.numbers = numbers;
                    return Ok(done);
                }
                // A peer's revision came in between: with it, the record may be one of other content.
                Err(DatabaseError::Conflict { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Adds one record to a batch.
    fn stage<'e>(
        &self,
        batch: &mut Batch,
        pending: &mut Pending<'e>,
        numbers: &mut Option<Numbers>,
        entry: &'e Entry,
    ) -> Result<Done, DatabaseError> {
        let id = match (&entry.id, numbers) {
            (Some(id), _) => id.clone(),
            (None, Some(numbers)) => numbers.take(&self.collection)?,
            (None, None) => return Err(DatabaseError::NotFound { id: String::new() }),
        };
        let result = match self.stage_as(batch, pending, &id, entry) {
            Err(error) if error.is_of_a_document() => {
                Err(Refused::Invalid(failed(error).context(&format!("line {}: ", entry.line), "")))
            }
            staged => staged?,
        };
        if result.is_ok() {
            pending.insert(id.clone(), entry.body.as_ref());
        }
        Ok(Done { line: entry.line, id, result })
    }

    fn stage_as(
        &self,
        batch: &mut Batch,
        pending: &Pending<'_>,
        id: &str,
        entry: &Entry,
    ) -> Result<Result<SavedKind, Refused>, DatabaseError> {
        let stored;
        let (before, is_pending) = match pending.get(id) {
            Some(body) => (*body, true),
            None => {
                stored = self.collection.get(id)?;
                (stored.as_ref().map(Document::body), false)
            }
        };
        let Some(body) = &entry.body else {
            if before.is_none() {
                return Ok(Ok(SavedKind::Unchanged));
            }
            batch.delete(&self.collection, id)?;
            return Ok(Ok(SavedKind::Deleted));
        };
        match before {
            Some(before) if before == body => Ok(Ok(SavedKind::Unchanged)),
            Some(_) if !self.replace => Ok(Err(kept(id, entry.line))),
            // What another revision may have become meanwhile, it replaces too.
            Some(_) => batch.put(&self.collection, id, body).map(|()| Ok(SavedKind::Replaced)),
            None if is_pending => batch.put(&self.collection, id, body).map(|()| Ok(SavedKind::Saved)),
            None => {
                batch.save(&self.collection, &Document::new(id, body.clone())).map(|()| Ok(SavedKind::Saved))
            }
        }
    }
}

fn kept(id: &str, line: u64) -> Refused {
    let message = format!(
        "line {line}: document {id:?} is there with other content, which was kept; --replace overwrites it"
    );
    Refused::Kept(CliError::new(Exit::Input, message))
}

/// Gives numbered IDs that no document has or had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Numbers {
    prefix: String,
    next: u64,
}

impl Numbers {
    /// Goes on after the highest number that the collection knows of, deleted documents and those of peers included.
    fn after_highest(collection: &Collection, prefix: &str) -> Result<Numbers, DatabaseError> {
        let mut highest = 0;
        let mut after = prefix.to_owned();
        loop {
            let ids = collection.known_ids(&after, IDS_AT_ONCE)?;
            let ours = ids.iter().map_while(|id| id.strip_prefix(prefix));
            highest = ours.clone().filter_map(number_of).fold(highest, u64::max);
            match ids.last() {
                Some(last) if ours.count() == ids.len() => after = last.to_string(),
                _ => break,
            }
        }
        Ok(Numbers { prefix: prefix.to_owned(), next: highest + 1 })
    }

    /// The next ID that is free; a peer may have brought some meanwhile.
    fn take(&mut self, collection: &Collection) -> Result<String, DatabaseError> {
        loop {
            let id = format!("{}{:0NUMBER_DIGITS$}", self.prefix, self.next);
            self.next += 1;
            if !collection.knows(&id)? {
                return Ok(id);
            }
        }
    }
}

fn number_of(rest: &str) -> Option<u64> {
    let is_number = rest.len() <= COUNTED_DIGITS_MAX && rest.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| rest.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::support::documents::SIGNS;
    use crate::database::DatabaseConfig;
    use serde_json::json;

    fn database() -> (tempfile::TempDir, Database, Collection) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let db = Database::open(directory.path().join("db"), DatabaseConfig::default()).expect("open");
        let collection = db.default_collection().expect("default");
        (directory, db, collection)
    }

    fn entry(line: u64, id: Option<&str>, body: Value) -> Entry {
        Entry { line, id: id.map(str::to_owned), body: body.as_object().cloned() }
    }

    fn numbered(prefix: &str) -> EntryArgs {
        EntryArgs { id_prefix: Some(prefix.into()), short_ids: true, ..EntryArgs::default() }
    }

    fn ids(done: &[Done]) -> Vec<&str> {
        done.iter().map(|done| done.id.as_str()).collect()
    }

    #[test]
    fn numbers_go_on_and_never_meet_a_document() {
        let (_directory, db, collection) = database();
        let save = |prefix: &str, count: u64| {
            let mut saver = Saver::new(&db, collection.clone(), &numbered(prefix)).expect("a saver");
            let entries: Vec<Entry> = (1..=count).map(|n| entry(n, None, json!({"n": n}))).collect();
            let done = saver.save(&entries).expect("saved");
            assert!(done.iter().all(|done| matches!(done.result, Ok(SavedKind::Saved))), "{done:?}");
            (saver, ids(&done).join(" "))
        };
        assert_eq!(save("r-", 2).1, "r-000001 r-000002");
        let (mut saver, ids_of_second) = save("r-", 2);
        assert_eq!(ids_of_second, "r-000003 r-000004");
        // Deleted, of a peer, of more digits, and what only looks like a number.
        collection.delete("r-000004").expect("deleted");
        for id in ["r-", "r-x", "r-7x", "r-99999999999999999999", "r", "s-000900"] {
            collection.put(id, &json!({})).expect("put");
        }
        assert_eq!(save("r-", 1).1, "r-000005");
        for id in ["r-000006", "r-000007", "r-1000000"] {
            collection.put(id, &json!({"of": "a peer"})).expect("put");
        }
        let done = saver.save(&[entry(9, None, json!({})), entry(10, None, json!({}))]).expect("saved");
        assert_eq!(ids(&done), ["r-000008", "r-000009"], "a saver that runs passes what came meanwhile");
        assert_eq!(save("r-", 1).1, "r-1000001");
        assert_eq!(save("s-", 1).1, "s-000901");
        assert_eq!(save("", 1).1, "000001");
        for n in 0..2_500 {
            collection.put(&format!("many-{n:06}"), &json!({})).expect("put");
        }
        assert_eq!(save("many-", 1).1, "many-002500");
    }

    #[test]
    fn two_databases_never_make_the_same_number() {
        let args = EntryArgs { id_prefix: Some("r-".into()), ..EntryArgs::default() };
        let made = |_: usize| {
            let (directory, db, collection) = database();
            let signs = signs_of(db.source());
            assert!(
                signs.len() == SIGNS && signs.bytes().all(|sign| sign.is_ascii_alphanumeric()),
                "{signs}"
            );
            let numbers = |count: u64| {
                let mut saver = Saver::new(&db, collection.clone(), &args).expect("a saver");
                let entries: Vec<Entry> = (1..=count).map(|n| entry(n, None, json!({"n": n}))).collect();
                ids(&saver.save(&entries).expect("saved")).join(" ")
            };
            assert_eq!(numbers(2), format!("r-{signs}-000001 r-{signs}-000002"));
            // What another device has made is no number of ours.
            collection.put("r-000009", &json!({})).expect("put");
            assert_eq!(numbers(1), format!("r-{signs}-000003"), "the next process goes on");
            drop(directory);
            signs
        };
        let signs: std::collections::HashSet<String> = (0..3).map(made).collect();
        assert_eq!(signs.len(), 3);
        let zero = crate::replica::revision::SourceId([0; 16]);
        let last = crate::replica::revision::SourceId([255; 16]);
        assert_eq!((signs_of(zero).as_str(), signs_of(last).as_str()), ("aaaaaa", "777777"));
    }

    #[test]
    fn other_content_is_kept_unless_it_is_to_be_replaced() {
        let (_directory, db, collection) = database();
        collection.put("a", &json!({"n": 1})).expect("put");
        collection.put("same", &json!({"n": 1})).expect("put");
        let entries = [
            entry(1, Some("a"), json!({"n": 2})),
            entry(2, Some("same"), json!({"n": 1})),
            entry(3, Some("new"), json!({"n": 1})),
            entry(4, Some("new"), json!({"n": 2})),
            entry(5, Some("bad"), json!({"_x": 2})),
            entry(6, Some("gone"), Value::Null),
            entry(7, Some("same"), Value::Null),
            entry(8, Some("same"), json!({"n": 3})),
        ];
        let mut saver = Saver::new(&db, collection.clone(), &EntryArgs::default()).expect("a saver");
        let done = saver.save(&entries).expect("saved");
        let results: Vec<String> = done
            .iter()
            .map(|done| match &done.result {
                Ok(kind) => format!("{kind:?}"),
                Err(Refused::Kept(error)) => format!("kept: {error}"),
                Err(Refused::Invalid(error)) => format!("invalid: {error}"),
            })
            .collect();
        assert!(
            results[0].starts_with("kept: line 1: document \"a\" is there with other content"),
            "{results:?}"
        );
        assert_eq!(results[1..3], ["Unchanged", "Saved"]);
        assert!(results[3].starts_with("kept: line 4: document \"new\""), "{results:?}");
        assert!(results[4].starts_with("invalid: line 5: document body: the key \"_x\""), "{results:?}");
        assert_eq!(results[5..], ["Unchanged", "Deleted", "Saved"]);
        let body = |id| collection.get(id).expect("read").map(|found| Value::Object(found.into_body()));
        assert_eq!((body("a"), body("new")), (Some(json!({"n": 1})), Some(json!({"n": 1}))));
        assert_eq!((body("same"), body("bad")), (Some(json!({"n": 3})), None));
        let replacing = EntryArgs { replace: true, ..EntryArgs::default() };
        let done = Saver::new(&db, collection.clone(), &replacing).expect("a saver").save(&entries[..1]);
        assert!(matches!(done.expect("saved")[0].result, Ok(SavedKind::Replaced)));
        assert_eq!(body("a"), Some(json!({"n": 2})));
    }

    #[test]
    fn a_prefix_that_no_id_may_have_is_refused_at_once() {
        let (_directory, db, collection) = database();
        for bad in ["_r", "a\n", &"p".repeat(240)] {
            let refused = Saver::new(&db, collection.clone(), &numbered(bad)).err().expect(bad);
            assert_eq!(refused.exit(), Exit::Usage, "{bad:?}");
        }
    }
}
