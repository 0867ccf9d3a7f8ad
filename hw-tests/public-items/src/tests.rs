//! The count and the complaints, on a document made by hand.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::Arguments;
use super::surface::{Complaints, Document, Surface};

/// A crate with a struct at the root and a module of which a part is taken to the root.
fn json() -> Value {
    let path = |id: u64, name: &str| json!({ "resolved_path": { "path": name, "id": id, "args": null } });
    let item = |name: &str, visibility: &str, inner: Value| {
        json!({ "name": name, "visibility": visibility, "docs": "", "attrs": [],
            "span": { "filename": "src/link/mod.rs" }, "inner": inner })
    };
    let method = |output: Value| json!({ "function": { "sig": { "inputs": [], "output": output } } });
    let inherent = |items: Value| json!({ "impl": { "trait": null, "items": items } });
    json!({
        "root": 0,
        "index": {
            "0": item("crate", "public", json!({ "module": { "items": [1, 2, 3, 4] } })),
            "1": item("Open", "public", json!({ "struct": {
                "kind": { "plain": { "fields": [10], "has_stripped_fields": false } }, "impls": [11] } })),
            "2": item("inside", "crate", json!({ "module": { "items": [20, 21] } })),
            "3": item("", "public", json!({ "use": { "name": "Taken", "id": 20, "is_glob": false } })),
            "4": item("room", "public", json!({ "module": { "items": [40] } })),
            "10": item("field", "public", json!({ "struct_field": path(20, "Taken") })),
            "11": item("", "default", inherent(json!([12, 13]))),
            "12": item("method", "public", method(path(21, "Hidden"))),
            "13": item("own", "crate", method(json!(null))),
            "20": item("Taken", "public", json!({ "enum": { "variants": [], "impls": [] } })),
            "21": item("Hidden", "public", json!({ "union": {} })),
            "40": item("", "public", json!({ "use": { "name": "", "id": 2, "is_glob": true } })),
        },
        "paths": {
            "20": { "crate_id": 0, "path": ["it", "inside", "Taken"], "kind": "enum" },
            "21": { "crate_id": 0, "path": ["it", "inside", "Hidden"], "kind": "union" },
            "90": { "crate_id": 9, "path": ["tokio", "sync", "Receiver"], "kind": "struct" },
            "91": { "crate_id": 9, "path": ["tokio", "io", "AsyncRead"], "kind": "trait" },
        },
        "external_crates": { "9": { "name": "tokio" } },
    })
}

fn examine(json: &Value) -> (Surface, Complaints) {
    let document = Document::new(json).unwrap();
    let surface = document.surface();
    let complaints = document.complaints(&surface);
    (surface, complaints)
}

fn paths(surface: &Surface) -> Vec<&str> {
    let mut paths: Vec<&str> = surface.items.values().map(|item| item.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn each_thing_counts_once_and_what_is_private_not_at_all() {
    let json = json();
    let (surface, _) = examine(&json);
    // `Hidden` is reachable through the glob, and `Taken` by two paths.
    assert_eq!(paths(&surface), ["Open", "Open::method", "Taken", "room::Hidden"]);
    assert!(surface.items.values().all(|item| item.folder == "link"));
    assert_eq!(surface.items.values().filter(|item| item.is_member).count(), 1);
    let most = |at_most| Arguments { at_most: Some(at_most), ..Arguments::default() };
    assert!(super::judge(&surface, &Complaints::default(), &most(4)));
    assert!(!super::judge(&surface, &Complaints::default(), &most(3)));
}

#[test]
fn what_users_should_not_meet_is_named() {
    let mut json = json();
    let (_, complaints) = examine(&json);
    assert_eq!((complaints.foreign.len(), complaints.unreachable.len()), (0, 0), "{complaints:?}");
    assert_eq!(complaints.closed.iter().collect::<Vec<_>>(), ["Open", "Taken"]);
    assert_eq!(complaints.without_example.iter().collect::<Vec<_>>(), ["Open", "Taken"]);

    json["index"]["1"]["attrs"] = json!(["#[non_exhaustive]"]);
    json["index"]["20"]["docs"] = json!("```\nlet taken = Taken::new();\n```");
    json["index"]["4"]["visibility"] = json!("crate");
    let (surface, complaints) = examine(&json);
    assert_eq!(paths(&surface), ["Open", "Open::method", "Taken"]);
    assert_eq!(complaints.unreachable.iter().collect::<Vec<_>>(), ["Open::method names it::inside::Hidden"]);
    assert_eq!(complaints.closed.iter().collect::<Vec<_>>(), ["Taken"]);
    assert_eq!(complaints.without_example.iter().collect::<Vec<_>>(), ["Open"]);
    assert!(!super::judge(&surface, &complaints, &Arguments::default()));
}

#[test]
fn of_tokio_only_traits_may_be_named() {
    let mut json = json();
    for (id, is_fine) in [(90, false), (91, true)] {
        json["index"]["12"]["inner"]["function"]["sig"]["output"]["resolved_path"]["id"] = json!(id);
        let (_, complaints) = examine(&json);
        assert_eq!(complaints.foreign.is_empty(), is_fine, "{complaints:?}");
    }
}
