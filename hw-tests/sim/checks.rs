//! The oracles that look into databases: nothing acknowledged is missing, checkpoints claim only what is true, peers are
//! equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use gattway::database::{Database, DatabaseConfig, DatabaseError};
use gattway::lab::replica::revision::{Version, VersionVector};
use gattway::lab::replica::store::ReplicaStore;
use gattway::lab::replicator::checkpoint::checkpoint_id;
use gattway::replicator::ReplicatorType;
use serde_json::{Map, Value};

use super::blobs;
use super::model::{EventId, NodeIndex};
use super::node::Node;
use super::plan::{Edge, FaultKind};
use super::removal;
use super::secure;
use super::selection;
use super::store::{Claim, OWN_PREFIX};
use super::world::World;

/// The collection that all nodes replicate.
pub const COLLECTION: &str = "_default";

/// The newest revision of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub sequence: u64,
    pub version: Version,
    pub vector: VersionVector,
    /// `None`: a tombstone.
    pub body: Option<Map<String, Value>>,
}

/// All a database has, by document.
pub type Content = BTreeMap<String, Found>;

/// Reads all of a database.
pub fn content(db: &Database) -> Result<Content, DatabaseError> {
    let Some(collection) = db.collection(COLLECTION) else { return Ok(Content::new()) };
    let mut content = Content::new();
    for change in collection.changes_since(0, usize::MAX)? {
        let body = match change.deleted {
            true => None,
            false => collection.get(&change.id)?.map(|document| document.body().clone()),
        };
        let (sequence, version) = (change.sequence, change.revision.current);
        content.insert(change.id, Found { sequence, version, vector: change.revision, body });
    }
    Ok(content)
}

/// Which event each document is at.
pub fn events(world: &World, node: NodeIndex, content: &Content) -> BTreeMap<String, EventId> {
    let mut events = BTreeMap::new();
    for (id, found) in content {
        let event = world.model().identify(id, found.version, found.body.as_ref());
        match event {
            Ok(event) => drop(events.insert(id.clone(), event)),
            Err(problem) => world.violation(format!("node {node} has {problem}")),
        }
    }
    events
}

/// Everything that the node has acknowledged is there, or something newer; and the store holds together.
pub fn check_node(world: &World, node: NodeIndex, db: &Database) {
    let content = match content(db) {
        Ok(content) => content,
        // The power may fail while it is read; damage may not be.
        Err(DatabaseError::Io { .. } | DatabaseError::Failed { .. } | DatabaseError::Full { .. }) => return,
        Err(error) => return world.violation(format!("node {node} cannot be read: {error}")),
    };
    let events = events(world, node, &content);
    blobs::check(world, node, db, &content, "now");
    removal::check_returned(world, node, &content, &events);
    selection::check(world, node, &events);
    let missing = world.model().missing(node, &events);
    missing.into_iter().for_each(|text| world.violation(format!("lost: {text}")));
    match db.verify() {
        Ok(report) if report.is_sound() => {}
        Ok(report) => world.violation(format!("node {node} is not sound: {:?}", report.listed)),
        Err(DatabaseError::Io { .. } | DatabaseError::Failed { .. } | DatabaseError::Full { .. }) => {}
        Err(error) => world.violation(format!("node {node} cannot be verified: {error}")),
    }
}

/// What a power cut would leave of a node now.
struct Image {
    db: Database,
    events: BTreeMap<String, EventId>,
    content: Content,
}

impl Image {
    fn of(world: &World, node: &Node) -> Option<Image> {
        let db = match Database::open_simulated(&node.disk.synced_image(), DatabaseConfig::default()) {
            Ok(db) => db,
            Err(error) => {
                world.violation(format!("node {}: what is synced does not open: {error}", node.index));
                return None;
            }
        };
        let content = content(&db).ok()?;
        blobs::check(world, node.index, &db, &content, "if the power failed now");
        Some(Image { events: events(world, node.index, &content), content, db })
    }

    fn claim(&self, client: &str) -> Option<Claim> {
        let collection = ReplicaStore::collection(&self.db, COLLECTION)?;
        Some(Claim::parse(&self.db.checkpoint(collection, client).ok()??.body))
    }
}

/// What checkpoints say is true, also if the power failed everywhere at this moment.
pub fn check_claims(world: &Arc<World>, nodes: &[Node]) {
    let images: Vec<Option<Image>> = nodes.iter().map(|node| Image::of(world, node)).collect();
    for edge in &world.plan.edges {
        let (Some(active), Some(passive)) = (&images[edge.active], &images[edge.passive]) else { continue };
        let config = edge.selection.config(world.plan.documents, world.plan.bug);
        let uid = secure::name(world.plan.security, world.plan.seed, edge.passive);
        let id = checkpoint_id(ReplicaStore::source(&active.db), &uid, ReplicatorType::PushAndPull, &config);
        let own = active.claim(&format!("{OWN_PREFIX}{id}"));
        let copies = [(edge.active, own), (edge.passive, passive.claim(&id))];
        let copies = if world.plan.faults.contains(&FaultKind::OlderCopy) {
            // Whoever was put back does not know what the other one's copy claims; only what both say counts.
            let [(keeper, own), (_, peers)] = copies;
            vec![(keeper, own.zip(peers).map(|(own, peers)| own.agreed(&peers)))]
        } else {
            copies.into()
        };
        for (keeper, claim) in copies {
            let Some(claim) = claim else { continue };
            let pushed = |id: &str, sequence| edge.selection.pushes(id) && claim.has_local(sequence);
            let pulled = |id: &str, sequence| {
                edge.selection.pulls(id) && claim.remote.is_some_and(|remote| sequence <= remote)
            };
            let problem = untrue(world, active, (edge.passive, passive), pushed)
                .map(|what| format!("node {} has {what}, which node {} lacks", edge.active, edge.passive));
            let problem = problem.or_else(|| {
                untrue(world, passive, (edge.active, active), pulled)
                    .map(|what| format!("node {} has {what}, which node {} lacks", edge.passive, edge.active))
            });
            if let Some(problem) = problem {
                world.violation(format!(
                    "the checkpoint of {} and {} that node {keeper} keeps claims too much ({claim:?}): {problem}",
                    edge.active, edge.passive
                ));
            }
        }
    }
}

/// A revision of `from` that is claimed to be known to `to`, and is not.
fn untrue(
    world: &World,
    from: &Image,
    (node, to): (NodeIndex, &Image),
    claimed: impl Fn(&str, u64) -> bool,
) -> Option<String> {
    let model = world.model();
    from.content.iter().filter(|(id, found)| claimed(id, found.sequence)).find_map(|(id, found)| {
        let event = *from.events.get(id)?;
        let has = to.events.get(id).is_some_and(|has| model.covers(*has, event));
        let is_lost = !has && !model.has_removed(node, id, event, found.version);
        is_lost.then(|| format!("{id} {} as change {}", model.name(event), found.sequence))
    })
}

/// What differs between the two nodes of an edge; `None` if they are equal in what it carries.
pub fn difference(world: &World, edge: &Edge, ours: &Content, theirs: &Content) -> Option<String> {
    let (a, b) = ((edge.active, ours), (edge.passive, theirs));
    let differs = |id: &&String| {
        let (pushes, pulls) = (edge.selection.pushes(id), edge.selection.pulls(id));
        if !pushes || !pulls {
            return selection::lacks(world, id, (pushes, pulls), ours, theirs);
        }
        let key = |found: Option<&Found>| found.map(|found| (found.version, found.body.clone()));
        let (a, b) = ((a.0, a.1.get(*id)), (b.0, b.1.get(*id)));
        key(a.1) != key(b.1) && !removal::explains(world, id, a, b)
    };
    let id = a.1.keys().chain(b.1.keys()).find(differs)?;
    let show = |found: Option<&Found>| match found {
        None => "nothing".to_owned(),
        Some(Found { vector, body: None, sequence, .. }) => format!("{vector} deleted (change {sequence})"),
        Some(Found { vector, body: Some(body), sequence, .. }) => {
            format!("{vector} {} (change {sequence})", body.get("event").unwrap_or(&Value::Null))
        }
    };
    Some(format!("{id}: node {} has {}, node {} has {}", a.0, show(a.1.get(id)), b.0, show(b.1.get(id))))
}
