//! What has to be true after a sync, by the contents before and after it and by what was said. Apart from the code: which
//! of two revisions goes on is found here from the versions alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use gattway::database::Database;
use gattway::database::revision::{SourceId, VersionVector};

use super::exchange::{Outcome, Report, full_name};
use super::past::clip;
use super::plan::{ACTIVE, CollectionPlan, PASSIVE, Plan};

/// Longest body that a content keeps as text, in bytes; of a longer one its length and hash.
const TEXT_MAX: usize = 400;

/// One document as a database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub vector: VersionVector,
    /// `None`: a tombstone.
    pub body: Option<String>,
}

/// All that a database has, by collection and ID.
pub type Content = BTreeMap<String, BTreeMap<String, Found>>;

/// Reads all of a database.
pub fn content(database: &Database) -> Content {
    let mut content = Content::new();
    for name in database.collections() {
        let collection = database.collection(&name).unwrap();
        let documents: &mut BTreeMap<String, Found> = content.entry(name).or_default();
        for change in collection.changes_since(0, usize::MAX).unwrap() {
            let body = match change.deleted {
                true => None,
                false => Some(fingerprint(collection.get(&change.id).unwrap().unwrap().body())),
            };
            documents.insert(change.id, Found { vector: change.revision, body });
        }
    }
    content
}

fn fingerprint(body: &serde_json::Map<String, serde_json::Value>) -> String {
    let text = serde_json::to_string(body).unwrap();
    if text.len() <= TEXT_MAX {
        return text;
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{} bytes, {:016x}", text.len(), hasher.finish())
}

/// How two revisions stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Same,
    /// The first descends from the second.
    Newer,
    Older,
    Conflict,
    /// Each descends from the other's version, by different ways.
    Crossing,
}

fn newest(vector: &VersionVector) -> HashMap<SourceId, u64> {
    let mut newest = HashMap::new();
    for version in vector.versions() {
        let time = newest.entry(version.source).or_insert(version.time);
        *time = version.time.max(*time);
    }
    newest
}

/// How the first stands to the second.
pub fn relation(a: &VersionVector, b: &VersionVector) -> Relation {
    let has = |all: &VersionVector, one: &VersionVector| {
        newest(all).get(&one.current.source).is_some_and(|time| *time >= one.current.time)
    };
    match (has(a, b), has(b, a)) {
        _ if a.current == b.current => Relation::Same,
        (true, true) => Relation::Crossing,
        (true, false) => Relation::Newer,
        (false, true) => Relation::Older,
        (false, false) => Relation::Conflict,
    }
}

/// The contents of both sides at one time.
pub type Both = [Content; 2];

/// What is wrong after a run; empty if nothing is.
pub struct Judge<'a> {
    plan: &'a Plan,
    before: &'a Both,
    after: &'a Both,
    outcome: &'a Outcome,
    violations: Vec<String>,
}

/// What has to be there.
struct Expected<'f> {
    /// On each side: one of the two revisions before, or nothing.
    content: [Option<&'f Found>; 2],
    /// The sides differ, and somebody has to be told.
    told: bool,
    /// The result is made on this side alone, until the next run.
    later: bool,
    /// What is kept of both gets a version of its own.
    renamed: bool,
}

impl<'a> Judge<'a> {
    pub fn new(plan: &'a Plan, before: &'a Both, after: &'a Both, outcome: &'a Outcome) -> Judge<'a> {
        Judge { plan, before, after, outcome, violations: Vec::new() }
    }

    /// Judges a first sync.
    pub fn first(mut self) -> Vec<String> {
        if let Some(error) = &self.outcome.error {
            self.violations.push(format!("it ended early: {error}"));
            return self.violations;
        }
        let errors = self.errors();
        for collection in &self.plan.collections {
            self.collection(collection, &errors);
        }
        self.successes();
        self.violations
    }

    /// Documents that were reported as not replicated.
    fn errors(&self) -> BTreeMap<(&'a str, &'a str), &'a str> {
        let mut errors = BTreeMap::new();
        for report in &self.outcome.reports {
            if let Some(error) = &report.error {
                errors.insert((report.collection.as_str(), report.id.as_str()), error.as_str());
            }
        }
        errors
    }

    fn collection(&mut self, collection: &CollectionPlan, errors: &BTreeMap<(&str, &str), &str>) {
        let name = full_name(&collection.name);
        let documents = |content: &'a Content| content.get(&name).into_iter().flat_map(BTreeMap::keys);
        let ids: BTreeSet<&String> =
            self.before.iter().chain(self.after.iter()).flat_map(documents).collect();
        let get = |content: &'a Content, id: &str| content.get(&name).and_then(|documents| documents.get(id));
        for id in ids {
            let before = [get(&self.before[ACTIVE], id), get(&self.before[PASSIVE], id)];
            let after = [get(&self.after[ACTIVE], id), get(&self.after[PASSIVE], id)];
            let error = errors.get(&(name.as_str(), id.as_str())).copied();
            if let Some(problem) = self.document(collection, before, after, error) {
                let told = error.map_or("nothing".to_owned(), |error| format!("{error:?}"));
                self.violations.push(format!(
                    "{name} {:?}: {problem}; told: {told}\n    before: {}\n            {}\n    after:  {}\n            {}",
                    clip(id), show(before[0]), show(before[1]), show(after[0]), show(after[1]),
                ));
            }
        }
    }

    /// What is wrong with one document.
    fn document(
        &self,
        collection: &CollectionPlan,
        before: [Option<&Found>; 2],
        after: [Option<&Found>; 2],
        error: Option<&str>,
    ) -> Option<String> {
        let expected = self.expected(collection, before);
        let same = |a: Option<&Found>, b: Option<&Found>| {
            a.map(|f| (&f.body, f.vector.current)) == b.map(|f| (&f.body, f.vector.current))
        };
        let is_equal = same(after[ACTIVE], after[PASSIVE]);
        match error {
            Some(_) if is_equal => return Some("reported, but both sides are equal".into()),
            Some(_) if !expected.told => return Some("reported without a reason that the plan knows".into()),
            Some("") => return Some("reported without a word why".into()),
            None if expected.told => return Some("not a word that the sides differ".into()),
            _ => {}
        }
        if !is_equal && !expected.told && !expected.later && self.both_ways(collection) {
            return Some("the sides differ and nobody says so".into());
        }
        for side in [ACTIVE, PASSIVE] {
            let as_expected = match (after[side], expected.content[side]) {
                (Some(after), Some(expected_one)) if expected.renamed => after.body == expected_one.body,
                (after, expected) => same(after, expected),
            };
            if !as_expected {
                return Some(format!(
                    "the {} side should have {}",
                    ["active", "passive"][side],
                    show(expected.content[side])
                ));
            }
        }
        None
    }

    fn ways(&self, collection: &CollectionPlan) -> (bool, bool) {
        let may = collection.at == [true; 2];
        (
            may && self.plan.direction.pushes() && collection.access.push,
            may && self.plan.direction.pulls() && collection.access.pull,
        )
    }

    fn both_ways(&self, collection: &CollectionPlan) -> bool {
        self.ways(collection) == (true, true)
    }

    fn expected<'f>(&self, collection: &CollectionPlan, before: [Option<&'f Found>; 2]) -> Expected<'f> {
        let (pushes, pulls) = self.ways(collection);
        let stays = Expected { content: before, told: false, later: false, renamed: false };
        let goes = |way: bool, to: usize| match way {
            true => Expected { content: [before[1 - to]; 2], ..stays },
            false => Expected { ..stays },
        };
        let [Some(active), Some(passive)] = before else {
            return match before {
                [Some(_), None] => goes(pushes, PASSIVE),
                [None, Some(_)] => goes(pulls, ACTIVE),
                _ => stays,
            };
        };
        let relation = relation(&active.vector, &passive.vector);
        match relation {
            Relation::Same => stays,
            Relation::Newer => goes(pushes, PASSIVE),
            Relation::Older => goes(pulls, ACTIVE),
            Relation::Conflict | Relation::Crossing => {
                let winner = winner(active, passive);
                let renamed = relation == Relation::Crossing && active.body != passive.body;
                let stock_once = !self.plan.is_extended() && !self.plan.continuous;
                let is_news_there = renamed || winner == ACTIVE;
                match (pushes, pulls) {
                    (true, true) => Expected {
                        content: [
                            before[winner],
                            if stock_once && is_news_there { before[PASSIVE] } else { before[winner] },
                        ],
                        told: false,
                        later: stock_once && is_news_there,
                        renamed,
                    },
                    (true, false) => Expected { told: true, ..stays },
                    (false, true) => {
                        Expected { content: [before[winner], before[PASSIVE]], renamed, ..stays }
                    }
                    (false, false) => stays,
                }
            }
        }
    }

    /// What was reported as sent or received is there.
    fn successes(&mut self) {
        for Report { collection, id, sent, error } in &self.outcome.reports {
            let side = if *sent { PASSIVE } else { ACTIVE };
            let there = self.after[side].get(collection).is_some_and(|documents| documents.contains_key(id));
            if error.is_none() && !there {
                self.violations.push(format!("{collection} {id:?} was reported as done and is not there"));
            }
        }
    }
}

/// Which side's revision the default resolver keeps: a deletion, else the later.
fn winner(active: &Found, passive: &Found) -> usize {
    match (&active.body, &passive.body) {
        (None, Some(_)) => ACTIVE,
        (Some(_), None) => PASSIVE,
        _ => {
            let key = |found: &Found| (found.vector.current.time, found.vector.current.source);
            if key(active) > key(passive) { ACTIVE } else { PASSIVE }
        }
    }
}

fn show(found: Option<&Found>) -> String {
    match found {
        None => "nothing".into(),
        Some(Found { vector, body: None }) => format!("deleted {}", clip(&vector.to_string())),
        Some(Found { vector, body: Some(body) }) => {
            format!("{} {}", clip(&vector.to_string()), clip(body))
        }
    }
}
