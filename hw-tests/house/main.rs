//! The rules of the tree that no compiler holds: the order of layers, and what `firmware-notes/architecture.md` says of it.
//!
//! `cargo test --all-features --test house -- --nocapture picture` prints the graph of imports for Graphviz.

#![allow(clippy::unwrap_used)]

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use imports::{Imports, Module, by_folder, cyclic};

/// The page that has the table of layers.
const PAGE: &str = "firmware-notes/architecture.md";

/// What stands above all layers: it may use everything, and nothing may use it.
const ABOVE: [&str; 5] = [".", "error", "main", "fuzzing", "lab"];

/// Layers from the bottom up, each with those that it may use, as the page's table has them.
fn layers() -> Vec<(String, BTreeSet<String>)> {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let mut layers: Vec<(String, BTreeSet<String>)> = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, uses] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let name = name.trim_end_matches('/').trim_end_matches(".rs");
        let below: BTreeSet<String> = layers.iter().map(|(name, _)| name.clone()).collect();
        let uses: BTreeSet<String> = match uses {
            "nothing" => BTreeSet::new(),
            "all above" => below.clone(),
            list => list.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect(),
        };
        assert!(uses.is_subset(&below), "{PAGE}: {name} may use only what stands above it, not {uses:?}");
        layers.push((name.to_owned(), uses));
    }
    layers
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Uses that the table does not allow.
fn against_the_order(edges: &BTreeSet<(Module, Module)>) -> Vec<String> {
    let layers: BTreeMap<String, BTreeSet<String>> = layers().into_iter().collect();
    let mut wrong = BTreeSet::new();
    for (from, to) in edges {
        let part = |module: &Module| module.first().cloned().unwrap_or_else(|| ".".to_owned());
        let (layer, used) = (part(from), part(to));
        let may = ABOVE.contains(&layer.as_str())
            || layer == used
            || layers.get(&layer).is_some_and(|uses| uses.contains(&used));
        if !may {
            wrong.insert(format!("{} uses {}", from.join("::"), to.join("::")));
        }
    }
    wrong.into_iter().collect()
}

#[test]
fn every_layer_uses_only_what_stands_below_it() {
    let imports = Imports::read(&root().join("src"));
    let wrong = against_the_order(&imports.edges());
    assert!(wrong.is_empty(), "against the table of {PAGE}:\n{}", wrong.join("\n"));
}

#[test]
fn the_order_is_noticed_when_it_is_broken() {
    let read = Imports::read(&root().join("src"));
    for text in [
        "use crate::cli::output;",
        "use crate::{time, cli::{self, output}};",
        "fn f() { if true { crate::replicator::session::run() } }",
        "fn f() -> u8 { tracing::info!(\"{}\", super::transport::clock::now()); 0 }",
        "mod inner { use super::super::database::Database; }",
    ] {
        let mut imports = read.clone();
        imports.add(vec!["link".into()], text);
        assert!(!against_the_order(&imports.edges()).is_empty(), "{text}");
    }
    for text in [
        "#[cfg(test)] mod tests { use crate::cli::output; }",
        "#[cfg(test)]\n#[allow(missing_docs)]\nuse crate::cli::output;",
        "// use crate::cli::output;\nconst TEXT: &str = \"crate::cli::output\";",
        "use super::time::Instant;",
    ] {
        let mut imports = read.clone();
        imports.add(vec!["link".into()], text);
        let wrong = against_the_order(&imports.edges());
        assert!(wrong.is_empty(), "{text}: {wrong:?}");
    }
}

/// Uses inside folders that lie on a ring, by folder.
fn rings(edges: &BTreeSet<(Module, Module)>) -> BTreeMap<String, BTreeSet<(String, String)>> {
    let folders = by_folder(edges);
    assert!(folders.len() > 20, "{} folders", folders.len());
    let named = folders.into_iter().map(|(folder, edges)| (folder.join("::"), cyclic(&edges)));
    named.filter(|(_, edges)| !edges.is_empty()).collect()
}

/// The same in words.
fn rings_in_words(edges: &BTreeSet<(Module, Module)>) -> Vec<String> {
    let lines = rings(edges).into_iter().flat_map(|(folder, edges)| {
        edges.into_iter().map(move |(from, to)| format!("in src/{folder}: {from} uses {to}"))
    });
    lines.collect()
}

#[test]
fn no_folder_has_a_ring_inside() {
    let rings = rings_in_words(&Imports::read(&root().join("src")).edges());
    assert!(rings.is_empty(), "a ring; move what both need into a file of its own:\n{}", rings.join("\n"));
}

#[test]
fn a_ring_inside_is_noticed() {
    let read = Imports::read(&root().join("src"));
    for (module, text) in [
        ("link::error", "use super::event::LinkEvent;"),
        ("link::mtu", "fn f() { super::event::LinkRole::Central; }"),
        ("replicator::in_flight", "use super::context::SessionContext;"),
        ("replicator::extension::codec", "use crate::replicator::batched::sender::BatchSender;"),
        ("replicator::driver::setup", "use super::exchange::Exchange;"),
        ("secure::crypto", "use super::SecureSession;"),
        ("trust::presence", "use super::group::Group;"),
        ("database::collection", "use super::changes::Changes;"),
        ("database::store::engine", "use super::redo;"),
        ("database::store::state", "use super::handle::Store;"),
        ("database::store::sled::tail", "use super::log::Log;"),
        ("node::shared", "use super::sync::SyncBuilder;"),
        ("node::access", "use super::event::NodeEvent;"),
        ("node::pair::talk", "use super::PairBuilder;"),
        ("transport::bluez::shared", "use super::adapter::Adapter;"),
        ("transport::secure::shared", "use super::handover;"),
        ("transport::session::shared", "use super::driver::Driver;"),
        ("cli::support::unsynced", "use crate::cli::support::display::Display;"),
        ("cli::commands::control", "use crate::cli::commands::db;"),
        ("cli::commands::serve", "use crate::cli::args::Cli;"),
    ] {
        let mut imports = read.clone();
        imports.add(module.split("::").map(str::to_owned).collect(), text);
        assert!(!rings_in_words(&imports.edges()).is_empty(), "{module}: {text}");
    }
    // Who may use something is not what it uses.
    let mut imports = read.clone();
    imports.add(vec!["link".into(), "error".into()], "pub(in crate::link::event) fn f() {}");
    assert_eq!(rings_in_words(&imports.edges()), Vec::<String>::new());
}

/// The folder that may name the crate of the store's log.
const NAMES_SLED: &str = "src/database/store/sled";

/// Whether a text names the crate sled in code: `sled::`, and no module of that name.
fn names_sled(tokens: proc_macro2::TokenStream) -> bool {
    use proc_macro2::TokenTree;
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.to_string() == text);
    (0..tokens.len()).any(|at| match &tokens[at] {
        TokenTree::Group(group) => names_sled(group.stream()),
        TokenTree::Ident(ident) if ident == "sled" => {
            let is_inside = at > 0 && is(at - 1, ":");
            let is_imported = at > 0 && is(at - 1, "use");
            !is_inside && (is_imported || is(at + 1, ":") && is(at + 2, ":"))
        }
        _ => false,
    })
}

#[test]
fn one_folder_names_sled() {
    let mut files = Vec::new();
    imports::collect(&root().join("src"), &mut files);
    let (mut named, mut wrong) = (0, Vec::new());
    for file in files {
        let place = file.strip_prefix(root()).unwrap().display().to_string();
        let is_test = place.contains("/tests/") || place.ends_with("/tests.rs");
        if is_test || !names_sled(std::fs::read_to_string(&file).unwrap().parse().unwrap()) {
            continue;
        }
        named += 1;
        if !place.starts_with(NAMES_SLED) {
            wrong.push(place);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?} name sled; only {NAMES_SLED} may");
    assert!(named > 0, "nothing names sled");
    for (text, is_named) in [
        ("fn f() -> Option<sled::IVec> { None }", true),
        ("use sled::{Db, IVec};", true),
        ("use super::sled::log::Log;", false),
        ("pub use self::sled::tail::REWRITTEN;", false),
        ("// sled::Db\nmod sled;", false),
    ] {
        assert_eq!(names_sled(text.parse().unwrap()), is_named, "{text}");
    }
}

/// State that is the process's: an adapter, which several nodes may use; standard error, of which there is one; a switch that
/// breaks a promise for a test.
const OF_THE_PROCESS: [&str; 7] = [
    "src/cli/support/logging.rs: LINES",
    "src/cli/support/progress.rs: BARS",
    "src/cli/support/words.rs: IS_JSON",
    "src/cli/support/words.rs: SINK",
    "src/cli/support/words.rs: TELLS_TIME",
    "src/database/faults.rs: FDATASYNC_LEFT_OUT",
    "src/transport/bluez/shared.rs: ADAPTERS",
];

/// Names of statics that can change, but for those of a thread and of tests.
fn statics(tokens: proc_macro2::TokenStream) -> Vec<String> {
    use proc_macro2::TokenTree;
    const CHANGES: [&str; 7] = ["Atomic", "Cell", "Lock", "Mutex", "Notify", "Once", "mut "];
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.to_string() == text);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let is_of_thread = is(at, "thread_local") && is(at + 1, "!");
        let is_of_tests =
            is(at, "#") && is(at + 1, "[cfg(test)]") || is(at, "#") && is(at + 1, "[cfg (test)]");
        if is_of_thread || is_of_tests {
            let is_end = |token: &TokenTree| matches!(token, TokenTree::Group(_)) || token.to_string() == ";";
            at += 2 + tokens[at + 2..].iter().position(is_end).unwrap_or(0) + 1;
            continue;
        }
        if let TokenTree::Group(group) = &tokens[at] {
            found.extend(statics(group.stream()));
        } else if is(at, "static") && !(at > 0 && is(at - 1, "'")) {
            let item = tokens[at + 1..].iter().take_while(|token| token.to_string() != "=");
            let words: Vec<String> = item.map(ToString::to_string).collect();
            let text = words.join(" ");
            if CHANGES.iter().any(|sign| text.contains(sign)) {
                found.extend(words.into_iter().find(|word| word != "mut"));
            }
        }
        at += 1;
    }
    found
}

#[test]
fn state_of_the_process_is_what_is_named() {
    let mut files = Vec::new();
    imports::collect(&root().join("src"), &mut files);
    let mut found = Vec::new();
    for file in files {
        let place = file.strip_prefix(root()).unwrap().display().to_string();
        if place.contains("/tests/") || place.ends_with("/tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        found.extend(statics(text.parse().unwrap()).into_iter().map(|name| format!("{place}: {name}")));
    }
    found.sort();
    assert_eq!(found, OF_THE_PROCESS, "give state an owner that is passed down");
    for (text, names) in [
        ("static SHARED: Mutex<Option<u8>> = Mutex::new(None);", vec!["SHARED"]),
        ("fn f() { static COUNT: AtomicUsize = AtomicUsize::new(0); }", vec!["COUNT"]),
        ("static mut LAST: u8 = 0;", vec!["LAST"]),
        ("static NAMES: [&'static str; 1] = [\"a\"]; fn f(text: &'static Mutex<u8>) {}", vec![]),
        ("thread_local! { static OURS: Cell<u8> = const { Cell::new(0) }; }", vec![]),
        ("#[cfg(test)]\nmod tests { static CALLS: Mutex<u8> = Mutex::new(0); }", vec![]),
    ] {
        assert_eq!(statics(text.parse().unwrap()), names, "{text}");
    }
}

/// Lines of a file that need no reason.
const LINES_MAX: usize = 400;

/// Whether a text is longer than [`LINES_MAX`] and its head gives no reason.
fn is_too_long(text: &str) -> bool {
    let head: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    text.lines().count() > LINES_MAX && !head.join(" ").contains("One file, because")
}

#[test]
fn a_long_file_says_at_its_head_why_it_is_one() {
    let mut files = Vec::new();
    imports::collect(&root().join("src"), &mut files);
    let place = |file: &Path| file.strip_prefix(root()).unwrap().display().to_string();
    files.retain(|file| !place(file).contains("/tests/") && !place(file).ends_with("/tests.rs"));
    let too_long = files.iter().filter(|file| is_too_long(&std::fs::read_to_string(file).unwrap()));
    let too_long: Vec<String> = too_long.map(|file| place(file)).collect();
    assert!(too_long.is_empty(), "split them by what they are responsible for, or say why not: {too_long:?}");
    let long = "fn f() {}\n".repeat(LINES_MAX + 1);
    for (head, expected) in [
        ("//! A list.\n", true),
        ("//! A list.\n//!\n//! One file,\n//! because it is one trait.\n", false),
        ("//! A list.\n\n// One file, because it is one trait.\n", true),
    ] {
        assert_eq!(is_too_long(&format!("{head}{long}")), expected, "{head}");
    }
    assert!(!is_too_long("//! A list.\n"));
}

#[test]
fn every_folder_has_its_row() {
    let named: BTreeSet<String> = layers().into_iter().map(|(name, _)| name).collect();
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        let is_known = named.contains(&name) || ABOVE.contains(&name.as_str()) || name == "lib";
        assert!(is_known, "src/{name} has no row in the table of {PAGE}");
    }
    for name in named {
        let there = ["", ".rs"].iter().any(|end| root().join(format!("src/{name}{end}")).exists());
        assert!(there, "{PAGE} names src/{name}, which is not there");
    }
}

/// Log lines are chosen by the module that writes them, as text that no compiler looks at.
#[test]
fn modules_that_logging_names_are_there() {
    let text = std::fs::read_to_string(root().join("src/cli/support/logging.rs")).unwrap();
    let named: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != ':' && c != '_')
        .filter_map(|word| word.strip_prefix("gattway::"))
        .collect();
    assert!(named.len() >= 2, "{named:?}");
    for module in named {
        let path = root().join("src").join(module.replace("::", "/"));
        assert!(path.is_dir() || path.with_extension("rs").exists(), "no module {module}");
    }
}

/// `rust-version` of the manifest holds for what it depends on too. What is used of the standard library is clippy's matter
/// (`incompatible_msrv`).
#[test]
fn dependencies_build_with_the_oldest_rust_that_is_promised() {
    let rustc = std::process::Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let version = |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().unwrap()).collect() };
    let promised = version(env!("CARGO_PKG_RUST_VERSION"));
    let mut named = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let Some(needed) = package["rust_version"].as_str() else { continue };
        let [major, minor] = version(needed)[..2] else { panic!("{needed}") };
        named += 1;
        assert!(
            [major, minor][..] <= promised[..2],
            "{} {} needs Rust {needed}, and {} is promised",
            package["name"],
            package["version"],
            env!("CARGO_PKG_RUST_VERSION")
        );
    }
    assert!(named > 50, "{named} packages say what they need");
}

/// Prints the graph; a picture is `dot -Tsvg`.
#[test]
fn picture() {
    let edges = Imports::read(&root().join("src")).edges();
    let folders = by_folder(&edges);
    println!("digraph layers {{\n  rankdir=BT;");
    for (from, to) in &folders[&Module::new()] {
        println!("  \"{from}\" -> \"{to}\";");
    }
    println!("}}");
    for (folder, edges) in &folders {
        for (from, to) in cyclic(edges) {
            println!("// cycle in {}: {from} -> {to}", folder.join("::"));
        }
    }
    assert!(cyclic(&folders[&Module::new()]).is_empty());
}
