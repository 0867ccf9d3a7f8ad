//! What a database has, and how two revisions stand to each other by their versions alone.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use gattway::database::Database;
use gattway::lab::replica::revision::{SourceId, TREE_SOURCE, TreeId, VersionVector};
use serde_json::{Map, Value};

use super::past::clip;

/// Longest body that a content keeps as text, in bytes; of a longer one its length and hash.
const TEXT_MAX: usize = 400;

/// One document as a database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub vector: VersionVector,
    /// `None`: a tombstone.
    pub body: Option<String>,
    /// Bytes of the body as JSON.
    pub size: usize,
    /// Whether it names a blob.
    pub has_blob: bool,
}

/// All that a database has, by collection and ID.
pub type Content = BTreeMap<String, BTreeMap<String, Found>>;

/// The contents of both sides at one time.
pub type Both = [Content; 2];

/// Reads all of a database.
pub fn content(database: &Database) -> Content {
    let mut content = Content::new();
    for name in database.collections() {
        let collection = database.collection(&name).unwrap();
        let documents: &mut BTreeMap<String, Found> = content.entry(name).or_default();
        for change in collection.changes_since(0, usize::MAX).unwrap() {
            let mut found = Found { vector: change.revision, body: None, size: 0, has_blob: false };
            if !change.deleted {
                let document = collection.get(&change.id).unwrap().unwrap();
                let text = serde_json::to_string(document.body()).unwrap();
                found.size = text.len();
                found.has_blob = document.body().values().any(has_blob);
                found.body = Some(fingerprint(text));
            }
            documents.insert(change.id, found);
        }
    }
    content
}

fn fingerprint(text: String) -> String {
    if text.len() <= TEXT_MAX {
        return text;
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{} bytes, {:016x}", text.len(), hasher.finish())
}

fn has_blob(value: &Value) -> bool {
    let names_one = |object: &Map<String, Value>| {
        object.get("@type").is_some_and(|kind| kind == "blob")
            && object.get("digest").and_then(Value::as_str).is_some_and(|digest| digest.starts_with("sha1-"))
    };
    match value {
        Value::Object(object) => names_one(object) || object.values().any(has_blob),
        Value::Array(items) => items.iter().any(has_blob),
        _ => false,
    }
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

/// Whether a revision is another's current version or descends from it. The IDs of a tree are in no order.
fn has(all: &VersionVector, one: &VersionVector) -> bool {
    let wanted = one.current;
    if wanted.source == TREE_SOURCE {
        return all.versions().chain(all.trees.iter().map(TreeId::version)).any(|version| version == wanted);
    }
    newest(all).get(&wanted.source).is_some_and(|time| *time >= wanted.time)
}

/// How the first stands to the second.
pub fn relation(a: &VersionVector, b: &VersionVector) -> Relation {
    match (has(a, b), has(b, a)) {
        _ if a.current == b.current => Relation::Same,
        (true, true) => Relation::Crossing,
        (true, false) => Relation::Newer,
        (false, true) => Relation::Older,
        (false, false) => Relation::Conflict,
    }
}

/// Whether revisions of a document cross. The passive side then puts its own into its feed once more, perhaps behind the end of
/// what the active side still hears, so that the next run begins before that.
pub fn mutually_contains(both: &Both) -> bool {
    both[0].iter().any(|(name, documents)| {
        let there = both[1].get(name);
        let other = |id: &str| there.and_then(|there| there.get(id));
        documents.iter().any(|(id, found)| {
            other(id).is_some_and(|other| relation(&found.vector, &other.vector) == Relation::Crossing)
        })
    })
}

/// Whether it is a revision of a tree, unchanged since and kept against no other: one that was kept names another line
/// first.
pub fn is_tree(vector: &VersionVector) -> bool {
    let first = vector.trees.first().map(TreeId::version);
    first == Some(vector.current) && vector.merged.is_empty() && vector.history.is_empty()
}

pub fn show(found: Option<&Found>) -> String {
    match found {
        None => "nothing".into(),
        Some(Found { vector, body: None, .. }) => format!("deleted {}", clip(&vector.to_string())),
        Some(Found { vector, body: Some(body), .. }) => {
            format!("{} {}", clip(&vector.to_string()), clip(body))
        }
    }
}
