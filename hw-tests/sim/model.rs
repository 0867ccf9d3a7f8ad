//! What was written, by whom and on top of what: the history as the simulation itself knows it.
//!
//! Each edit, deletion and merge is an *event*. An edit carries its event's name in the document's body, so that a
//! revision is recognised by what it says and not by the revision ID the database gave it; a tombstone, which says
//! nothing, is recognised by its version. An event descends from what its author saw when it was made, and from what a
//! conflict resolver decided against it. Nothing here asks the code under test which revision descends from which.
//!
//! One file, because what has happened and what is asked of it belong together.

use std::collections::{BTreeMap, HashMap, HashSet};

use gattway::lab::replica::revision::{SourceId, TREE_SOURCE, Version};
use serde_json::{Map, Value};

/// A device of the simulation.
pub type NodeIndex = usize;

/// The body's field with the name of its event.
pub const EVENT_FIELD: &str = "event";

/// An edit, a deletion or a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(usize);

struct Event {
    document: String,
    name: String,
    /// `None`: a deletion.
    body: Option<Map<String, Value>>,
    parents: Vec<EventId>,
    /// More than one if it was kept against a revision that had been kept against it.
    versions: Vec<Version>,
    /// A resolver has decided for it.
    is_winner: bool,
    node: NodeIndex,
}

/// What a node has removed for itself.
struct Removed {
    event: EventId,
    version: Version,
    /// Older events that it has had before.
    older: Vec<EventId>,
    /// Whether it was a tombstone: nothing that it descends from comes back, also what was never here.
    is_tombstone: bool,
    /// Whether it is known to have gone, and nobody has decided for it since: the call may have failed, and had its effect all the
    /// same.
    is_sure: bool,
}

/// What a node had acknowledged at some moment.
pub struct Moment {
    acknowledged: Vec<((NodeIndex, String), Vec<EventId>)>,
    /// How many events there were.
    events: usize,
}

/// The history of all documents, and what each node has acknowledged.
#[derive(Default)]
pub struct Model {
    events: Vec<Event>,
    names: HashMap<String, EventId>,
    versions: HashMap<(String, Version), EventId>,
    /// Deletions whose version is not known: the call failed, and may have had its effect all the same.
    open_deletions: Vec<EventId>,
    /// Events whose revision a resolver of this node has kept where it may not keep its version.
    renewals: Vec<(EventId, NodeIndex)>,
    /// The newest acknowledged events of each node and document.
    acknowledged: BTreeMap<(NodeIndex, String), Vec<EventId>>,
    /// What nodes wrote and have forgotten, because their database was put back to an older copy.
    forgotten: Vec<EventId>,
    /// What each node has ever acknowledged, of each document.
    held: HashMap<(NodeIndex, String), Vec<EventId>>,
    /// What nodes have removed for themselves, of each document.
    removed: HashMap<(NodeIndex, String), Vec<Removed>>,
    /// The newest time of what a node has removed for its age, nanoseconds.
    horizons: HashMap<NodeIndex, u64>,
    /// The same for each author, where only what was there itself is not taken again.
    author_horizons: HashMap<(NodeIndex, SourceId), u64>,
    /// Author IDs of the nodes' databases.
    pub sources: Vec<SourceId>,
    /// Revisions acknowledged, to applications and to peers.
    pub acknowledgements: u64,
}

impl Model {
    /// A new name for an event of `node`.
    pub fn next_name(&self, node: NodeIndex) -> String {
        format!("{node}-{}", self.events.len())
    }

    fn add(
        &mut self,
        node: NodeIndex,
        document: &str,
        name: String,
        body: Option<Map<String, Value>>,
        mut parents: Vec<EventId>,
    ) -> EventId {
        let id = EventId(self.events.len());
        // An author's later version is known to come after all of its earlier ones, also those that it has forgotten.
        let is_its_own = |other: &Event| other.node == node && other.document == document;
        parents.extend(self.forgotten.iter().copied().filter(|event| is_its_own(&self.events[event.0])));
        self.names.insert(name.clone(), id);
        self.events.push(Event {
            document: document.into(),
            name,
            body,
            parents,
            versions: Vec::new(),
            is_winner: false,
            node,
        });
        id
    }

    /// An edit or a merge is about to be made; `body` has its name.
    pub fn edit(
        &mut self,
        node: NodeIndex,
        document: &str,
        body: Map<String, Value>,
        parents: Vec<EventId>,
    ) -> EventId {
        let name = body[EVENT_FIELD].as_str().expect("the name of an event").to_owned();
        self.add(node, document, name, Some(body), parents)
    }

    /// A deletion is about to be made.
    pub fn deletion(&mut self, node: NodeIndex, document: &str, parents: Vec<EventId>) -> EventId {
        let name = format!("{}-deletion", self.next_name(node));
        let id = self.add(node, document, name, None, parents);
        // What a resolver kept before has long had its version.
        let is_new = |(event, by): &(EventId, NodeIndex)| {
            *by != node || self.events[event.0].document != document || self.events[event.0].body.is_some()
        };
        self.renewals.retain(is_new);
        self.open_deletions.push(id);
        id
    }

    /// Which event a revision is.
    ///
    /// # Errors
    /// Nobody made it, its body is not what was written, or its version was given to another one too.
    pub fn identify(
        &mut self,
        document: &str,
        version: Version,
        body: Option<&Map<String, Value>>,
    ) -> Result<EventId, String> {
        let event = match body {
            Some(body) => self.identify_body(document, version, body)?,
            None => self.identify_deletion(document, version)?,
        };
        let known = *self.versions.entry((document.to_owned(), version)).or_insert(event);
        if known != event {
            let (a, b) = (self.name(known), self.name(event));
            return Err(format!("{document}: version {version} was given to both {a} and {b}"));
        }
        let versions = &self.events[event.0].versions;
        if versions.contains(&version) {
            return Ok(event);
        }
        // Whoever keeps a revision of a tree against one that was kept against it makes a child of that.
        let is_tree = version.source == TREE_SOURCE;
        if !versions.is_empty() && !is_tree && !self.renew(event, version) {
            let Event { name, versions, .. } = &self.events[event.0];
            return Err(format!("{document}: {name} has the version {version} beside {versions:?}"));
        }
        self.events[event.0].versions.push(version);
        Ok(event)
    }

    /// A resolver of `node` has kept this event's revision against one that had been kept against it.
    pub fn kept_crossing(&mut self, event: EventId, node: NodeIndex) {
        self.renewals.push((event, node));
    }

    /// Whether this event may have a further version, made by this author.
    fn renew(&mut self, event: EventId, version: Version) -> bool {
        let author = self.sources.iter().position(|source| *source == version.source);
        let at = self.renewals.iter().position(|(kept, node)| *kept == event && Some(*node) == author);
        at.map(|at| self.renewals.remove(at)).is_some()
    }

    fn identify_body(
        &self,
        document: &str,
        version: Version,
        body: &Map<String, Value>,
    ) -> Result<EventId, String> {
        let name = body.get(EVENT_FIELD).and_then(Value::as_str).unwrap_or_default();
        let Some(&event) = self.names.get(name) else {
            return Err(format!("{document} {version}: a revision that nobody made: {body:?}"));
        };
        let known = &self.events[event.0];
        if known.document != document || known.body.as_ref() != Some(body) {
            return Err(format!(
                "{document} {version}: the body of {name} is not what was written: {body:?}"
            ));
        }
        Ok(event)
    }

    fn identify_deletion(&mut self, document: &str, version: Version) -> Result<EventId, String> {
        if let Some(&event) = self.versions.get(&(document.to_owned(), version)) {
            return match self.events[event.0].body {
                None => Ok(event),
                Some(_) => Err(format!("{document} {version}: {} has become a deletion", self.name(event))),
            };
        }
        let author = self.sources.iter().position(|source| *source == version.source);
        let matches = |event: &EventId| {
            let event = &self.events[event.0];
            event.document == document && Some(event.node) == author
        };
        let renewed = self.renewals.iter().find(|(event, node)| {
            let event = &self.events[event.0];
            event.document == document && event.body.is_none() && Some(*node) == author
        });
        if let Some((event, _)) = renewed {
            return Ok(*event);
        }
        // The newest: of an earlier one that failed nobody has heard.
        match self.open_deletions.iter().rposition(matches) {
            Some(at) => Ok(self.open_deletions.remove(at)),
            None => Err(format!("{document} {version}: a deletion that nobody made")),
        }
    }

    /// A node has started anew: deletions of its that failed and left no trace never were.
    pub fn forget_open_deletions(&mut self, node: NodeIndex) {
        self.open_deletions.retain(|event| self.events[event.0].node != node);
    }

    /// `node` has removed what it had of a document, and need not have it any more.
    pub fn remove(
        &mut self,
        node: NodeIndex,
        document: &str,
        event: EventId,
        version: Version,
        is_sure: bool,
    ) {
        let key = (node, document.to_owned());
        if let Some(mut newest) = self.acknowledged.remove(&key) {
            newest.retain(|other| !self.covers(event, *other));
            self.acknowledged.insert(key.clone(), newest);
        }
        // What it makes anew counts as later than what it made before.
        let is_own = |of: &EventId| self.events[of.0].node == node && self.covers(event, *of);
        let own: Vec<EventId> = (0..self.events.len()).map(EventId).filter(is_own).collect();
        self.forgotten.extend(own);
        let held = self.held.get(&key).into_iter().flatten().copied();
        let older = held.filter(|held| *held != event && self.covers(event, *held)).collect();
        let is_tombstone = self.events[event.0].body.is_none();
        // Perhaps without what a resolver has decided for it elsewhere, which is news then.
        let is_sure = is_sure && !self.events[event.0].is_winner;
        let removed = Removed { event, version, older, is_tombstone, is_sure };
        self.removed.entry(key).or_default().push(removed);
    }

    /// `node` takes nothing that these authors made up to then and it does not have.
    pub fn raise_author_horizons(&mut self, node: NodeIndex, versions: impl Iterator<Item = Version>) {
        for version in versions {
            let horizon = self.author_horizons.entry((node, version.source)).or_default();
            *horizon = version.time.max(*horizon);
        }
    }

    /// Whether `node` has ever had this event, which others have, or one that descends from it.
    pub fn has_had(&self, node: NodeIndex, document: &str, event: EventId) -> bool {
        let held = self.held.get(&(node, document.to_owned())).into_iter().flatten();
        self.events[event.0].node == node || held.copied().any(|held| self.covers(held, event))
    }

    /// `node` takes nothing up to this time that it does not have.
    pub fn raise_horizon(&mut self, node: NodeIndex, time: u64) {
        let horizon = self.horizons.entry(node).or_default();
        *horizon = time.max(*horizon);
    }

    /// Whether `node` has removed this event, or one that descends from it, or everything of its time.
    pub fn has_removed(&self, node: NodeIndex, document: &str, event: EventId, version: Version) -> bool {
        let removed = self.removed.get(&(node, document.to_owned()));
        let mut removed = removed.into_iter().flatten();
        let horizons = [self.horizons.get(&node), self.author_horizons.get(&(node, version.source))];
        horizons.into_iter().flatten().any(|horizon| version.time <= *horizon)
            || removed.any(|removed| self.covers(removed.event, event))
    }

    /// Whether `node` has ever removed something of a document.
    pub fn has_removed_any(&self, node: NodeIndex, document: &str) -> bool {
        self.removed.contains_key(&(node, document.to_owned()))
    }

    /// Whether `node` has removed something beside this event: the two were a conflict there.
    pub fn has_removed_beside(&self, node: NodeIndex, document: &str, event: EventId) -> bool {
        let mut removed = self.removed.get(&(node, document.to_owned())).into_iter().flatten();
        removed.any(|removed| !self.is_ordered(removed.event, event))
    }

    /// What `node` has of a document again, although it has removed it and nobody has changed it since.
    pub fn returned(&self, node: NodeIndex, document: &str, event: EventId, version: Version) -> bool {
        let removed = self.removed.get(&(node, document.to_owned()));
        let is_it = |removed: &Removed| {
            // One that was kept against another is news under its further version.
            let is_older = removed.older.contains(&event)
                || (removed.is_tombstone && event != removed.event && self.covers(removed.event, event));
            let is_older = is_older && self.events[event.0].versions.len() == 1;
            removed.is_sure && (removed.version == version || is_older)
        };
        removed.into_iter().flatten().any(is_it)
    }

    /// A resolver decided for `winner` and against `loser`.
    pub fn decided(&mut self, winner: EventId, loser: EventId) {
        self.events[winner.0].is_winner = true;
        // That may be news of the winner, also where it was removed.
        let mut removed = std::mem::take(&mut self.removed);
        let document = &self.events[winner.0].document;
        let of_document = removed.iter_mut().filter(|((_, of), _)| of == document);
        for removed in of_document.flat_map(|(_, removed)| removed) {
            removed.is_sure &= !self.covers(removed.event, winner);
        }
        self.removed = removed;
        if winner != loser && !self.events[winner.0].parents.contains(&loser) {
            self.events[winner.0].parents.push(loser);
        }
    }

    /// `node` has told somebody that it has this event.
    pub fn acknowledge(&mut self, node: NodeIndex, event: EventId) {
        self.acknowledgements += 1;
        let key = (node, self.events[event.0].document.clone());
        self.held.entry(key.clone()).or_default().push(event);
        let mut newest = self.acknowledged.remove(&key).unwrap_or_default();
        if !newest.iter().any(|other| self.covers(*other, event)) {
            newest.retain(|other| !self.covers(event, *other));
            newest.push(event);
        }
        self.acknowledged.insert(key, newest);
    }

    /// A peer was shown this event of `node`'s, and counts on it.
    pub fn count_on(&mut self, node: NodeIndex, event: EventId) {
        self.acknowledge(node, event);
        self.acknowledgements -= 1;
    }

    /// What `node` has acknowledged so far, for [`Model::put_back`].
    pub fn moment(&self, node: NodeIndex) -> Moment {
        let range = (node, String::new())..(node + 1, String::new());
        let acknowledged = self.acknowledged.range(range).map(|(key, events)| (key.clone(), events.clone()));
        Moment { acknowledged: acknowledged.collect(), events: self.events.len() }
    }

    /// `node` has again what it had at that moment, and no more.
    pub fn put_back(&mut self, node: NodeIndex, moment: &Moment) {
        self.acknowledged.retain(|(of, _), _| *of != node);
        self.acknowledged.extend(moment.acknowledged.iter().cloned());
        let since = (moment.events..self.events.len()).filter(|event| self.events[*event].node == node);
        self.forgotten.extend(since.map(EventId));
    }

    /// Whether `newer` is `older` or descends from it.
    pub fn covers(&self, newer: EventId, older: EventId) -> bool {
        let (mut open, mut seen) = (vec![newer], HashSet::new());
        while let Some(event) = open.pop() {
            if event == older {
                return true;
            }
            if seen.insert(event) {
                open.extend(self.events[event.0].parents.iter().copied());
            }
        }
        false
    }

    /// Whether one of the two descends from the other.
    pub fn is_ordered(&self, a: EventId, b: EventId) -> bool {
        self.covers(a, b) || self.covers(b, a)
    }

    /// What `node` has acknowledged and `content` does not have; `content` names the event of each document.
    pub fn missing(&self, node: NodeIndex, content: &BTreeMap<String, EventId>) -> Vec<String> {
        let mut missing = Vec::new();
        for ((_, document), events) in
            self.acknowledged.range((node, String::new())..(node + 1, String::new()))
        {
            for event in events {
                match content.get(document) {
                    Some(found) if self.covers(*found, *event) => {}
                    found => missing.push(format!(
                        "{document}: node {node} acknowledged {}, and has {}",
                        self.name(*event),
                        found.map_or("nothing", |found| self.name(*found))
                    )),
                }
            }
        }
        missing
    }

    /// For people.
    pub fn name(&self, event: EventId) -> &str {
        &self.events[event.0].name
    }

    /// Who made an event.
    pub fn author(&self, event: EventId) -> NodeIndex {
        self.events[event.0].node
    }

    /// Events so far.
    pub fn len(&self) -> usize {
        self.events.len()
    }
}
