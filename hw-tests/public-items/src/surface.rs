//! The public surface of a crate, from the JSON that rustdoc writes: what a user can name, and what the signatures name.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Crates whose types may stand in a public signature.
const ALLOWED_CRATES: [&str; 7] =
    ["std", "core", "alloc", "serde", "serde_core", "serde_json", "futures_core"];

/// A crate of which only traits may.
const ALLOWED_TRAITS: &str = "tokio";

/// What is complete as it is, so that a user may name all of it.
const COMPLETE: [&str; 6] =
    ["CollectionAccess", "Direction", "ProtocolType", "ReplicatorActivity", "ReplicatorType", "Version"];

/// One thing that a user can name, or a method of it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where a user finds it: `database::Database::open`.
    pub path: String,
    /// rustdoc's word for what it is: `struct`, `function`.
    pub kind: String,
    /// The folder of its source below `src`.
    pub folder: String,
    /// A method, an associated constant or type.
    pub is_member: bool,
}

/// What is wrong with a surface, by the sort of it.
#[derive(Debug, Default)]
pub struct Complaints {
    /// Signatures with a type of a crate that users need not know.
    pub foreign: BTreeSet<String>,
    /// Signatures with a type of ours that no public path leads to.
    pub unreachable: BTreeSet<String>,
    /// Structs that anyone can build from their fields, and enums, without `#[non_exhaustive]`: neither can grow.
    pub closed: BTreeSet<String>,
    /// Things at the root whose documentation has no example.
    pub without_example: BTreeSet<String>,
}

/// All that is reachable, each thing once.
#[derive(Debug, Default)]
pub struct Surface {
    /// By rustdoc's number.
    pub items: BTreeMap<u64, Item>,
    /// The numbers of what stands at the root itself.
    root: BTreeSet<u64>,
}

/// The document of one crate.
pub struct Document<'a> {
    json: &'a Value,
}

impl<'a> Document<'a> {
    /// Takes the text's JSON; `None` if it is not rustdoc's.
    pub fn new(json: &'a Value) -> Option<Document<'a>> {
        json["index"].is_object().then_some(Document { json })
    }

    fn item(&self, id: u64) -> Option<&'a Value> {
        self.json["index"].get(id.to_string())
    }

    /// Walks all public paths from the root.
    pub fn surface(&self) -> Surface {
        let mut surface = Surface::default();
        let mut seen = BTreeSet::new();
        if let Some(root) = self.json["root"].as_u64() {
            self.walk(root, "", &mut surface, &mut seen);
        }
        surface
    }

    fn walk(&self, module: u64, path: &str, surface: &mut Surface, seen: &mut BTreeSet<(u64, String)>) {
        if !seen.insert((module, path.to_owned())) || path.matches("::").count() > 12 {
            return;
        }
        let Some(module) = self.item(module) else { return };
        let mut modules = Vec::new();
        for id in ids(&module["inner"]["module"]["items"]) {
            let Some(item) = self.item(id) else { continue };
            let (kind, inner) = inner(item);
            if item["visibility"] != "public" {
                continue;
            }
            if kind != "use" {
                self.take(id, item["name"].as_str().unwrap_or_default(), path, surface, &mut modules);
                continue;
            }
            let Some(target) = inner["id"].as_u64() else { continue };
            if inner["is_glob"] == true {
                modules.push((target, path.to_owned()));
            } else {
                self.take(target, inner["name"].as_str().unwrap_or_default(), path, surface, &mut modules);
            }
        }
        // What stands here first, so that each thing has its shortest path.
        for (module, path) in modules {
            self.walk(module, &path, surface, seen);
        }
    }

    fn take(&self, id: u64, name: &str, path: &str, surface: &mut Surface, modules: &mut Vec<(u64, String)>) {
        let full = if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") };
        let Some(item) = self.item(id) else { return };
        let (kind, inner) = inner(item);
        if kind == "module" {
            modules.push((id, full));
            return;
        }
        if path.is_empty() {
            surface.root.insert(id);
        }
        if surface.items.contains_key(&id) {
            return;
        }
        let mut add = |id: u64, item: &Value, path: String, is_member: bool| {
            let kind = self::inner(item).0.to_owned();
            surface.items.insert(id, Item { path, kind, folder: folder(item), is_member });
        };
        add(id, item, full.clone(), false);
        for member in ids(&inner["items"]) {
            let Some(member_item) = self.item(member) else { continue };
            let name = member_item["name"].as_str().unwrap_or_default();
            add(member, member_item, format!("{full}::{name}"), true);
        }
        for block in ids(&inner["impls"]).into_iter().filter_map(|id| self.item(id)) {
            let block = &block["inner"]["impl"];
            if !block["trait"].is_null() {
                continue;
            }
            for member in ids(&block["items"]) {
                let Some(member_item) = self.item(member) else { continue };
                if member_item["visibility"] == "public" {
                    let name = member_item["name"].as_str().unwrap_or_default();
                    add(member, member_item, format!("{full}::{name}"), true);
                }
            }
        }
    }

    /// Looks at each thing of a surface for what users should not meet.
    pub fn complaints(&self, surface: &Surface) -> Complaints {
        let mut complaints = Complaints::default();
        for (id, item) in &surface.items {
            let Some(value) = self.item(*id) else { continue };
            let mut named = BTreeSet::new();
            self.named_by(value, &mut named);
            for id in named {
                let path = &self.json["paths"][id.to_string()];
                let name = path["path"]
                    .as_array()
                    .map(|parts| parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("::"));
                let name = name.unwrap_or_default();
                match path["crate_id"].as_u64() {
                    // A trait that only the crate implements stands on one that nobody can name.
                    Some(0) if name.ends_with("::Sealed") => {}
                    Some(0) if !surface.items.contains_key(&id) => {
                        complaints.unreachable.insert(format!("{} names {name}", item.path));
                    }
                    Some(0) | None => {}
                    Some(foreign) => {
                        let owner = self.json["external_crates"][foreign.to_string()]["name"].as_str();
                        let is_allowed = owner.is_some_and(|owner| {
                            ALLOWED_CRATES.contains(&owner)
                                || owner == ALLOWED_TRAITS && path["kind"] == "trait"
                        });
                        if !is_allowed {
                            complaints.foreign.insert(format!("{} names {name}", item.path));
                        }
                    }
                }
            }
            let is_marked = value["attrs"].to_string().contains("non_exhaustive");
            let name = value["name"].as_str().unwrap_or_default();
            if !is_marked && !COMPLETE.contains(&name) && self.cannot_grow(value) {
                complaints.closed.insert(item.path.clone());
            }
            if surface.root.contains(id) && !value["docs"].as_str().unwrap_or_default().contains("```") {
                complaints.without_example.insert(item.path.clone());
            }
        }
        complaints
    }

    /// Whether a new field or variant would break its users.
    fn cannot_grow(&self, item: &Value) -> bool {
        let (kind, inner) = inner(item);
        let plain = &inner["kind"]["plain"];
        let is_open = plain["has_stripped_fields"] == false && !ids(&plain["fields"]).is_empty();
        kind == "enum" || kind == "struct" && is_open
    }

    /// The numbers of all types and traits that a thing's signature, public fields and conversions name.
    fn named_by(&self, item: &Value, named: &mut BTreeSet<u64>) {
        let (kind, inner) = inner(item);
        let parts: Vec<u64> = match kind {
            "struct" => ids(&inner["kind"]["plain"]["fields"])
                .into_iter()
                .chain(ids(&inner["kind"]["tuple"]))
                .collect(),
            "enum" => ids(&inner["variants"]),
            "variant" => {
                let fields = &inner["kind"]["struct"]["fields"];
                ids(fields).into_iter().chain(ids(&inner["kind"]["tuple"])).collect()
            }
            _ => Vec::new(),
        };
        for part in parts.into_iter().filter_map(|id| self.item(id)) {
            self.named_by(part, named);
        }
        collect_paths(inner, named);
        for block in ids(&inner["impls"]).into_iter().filter_map(|id| self.item(id)) {
            let block = &block["inner"]["impl"];
            let is_own = block["is_synthetic"] == false && block["blanket_impl"].is_null();
            if is_own && !block["trait"].is_null() {
                // `From` a type of ours that nobody can name is of no use to anybody, and does no harm.
                let mut arguments = BTreeSet::new();
                collect_paths(&block["trait"]["args"], &mut arguments);
                arguments.retain(|id| self.json["paths"][id.to_string()]["crate_id"] != 0);
                named.append(&mut arguments);
                named.extend(block["trait"]["id"].as_u64());
                for item in ids(&block["items"]).into_iter().filter_map(|id| self.item(id)) {
                    // Associated types such as `Error` and `Item`.
                    collect_paths(&item["inner"]["assoc_type"], named);
                }
            }
        }
    }
}

/// What an item is, and what is said of it.
fn inner(item: &Value) -> (&str, &Value) {
    match item["inner"].as_object().and_then(|inner| inner.iter().next()) {
        Some((kind, inner)) => (kind, inner),
        None => ("", &Value::Null),
    }
}

fn ids(list: &Value) -> Vec<u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// Paths to types and traits have a number and arguments.
fn collect_paths(value: &Value, named: &mut BTreeSet<u64>) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("path") && fields.contains_key("args") {
                named.extend(fields.get("id").and_then(Value::as_u64));
            }
            fields.values().for_each(|value| collect_paths(value, named));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_paths(value, named)),
        _ => {}
    }
}

/// `src/link/mtu.rs` is in `link`; what stands in `src` itself is in `.`.
fn folder(item: &Value) -> String {
    let file = item["span"]["filename"].as_str().unwrap_or_default();
    let below = file.rsplit_once("src/").map_or(file, |(_, below)| below);
    below.split_once('/').map_or(".", |(folder, _)| folder).to_owned()
}
