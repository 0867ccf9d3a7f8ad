//! A configuration as text: all defaults with what they mean, and what is in force with where it comes from.

use std::fmt::Write as _;
use std::path::Path;

use super::keys::{KINDS, Key, Kind, Without};
use super::load::load_tree;
use super::problem::{Problem, Problems};
use super::tree::{Entry, Table, Tree, Value};

/// Keys of which only the names are shown: what they hold may be secret.
const HIDDEN: [&str; 1] = ["headers"];

/// The sections that a new configuration begins with; the others are there as comments.
const FIRST: [&str; 2] = ["databases", "bluetooth"];

/// A configuration with all keys, as comments where their default holds, and what each means.
pub(crate) fn init_text() -> String {
    let mut text = String::from(
        "# The configuration of `gattway run`. Files *.toml in conf.d beside it are read after it, by their names, and\n\
         # replace single keys. `gattway config check` says what is wrong, `gattway config show` what is in force.\n\
         # A key after # has its default, or is an example where the default says something else.\n",
    );
    for kind in KINDS {
        let mark = if FIRST.contains(&kind.name) || kind.example.is_none() { "" } else { "#" };
        // Writing to a String cannot fail.
        let _ = write!(text, "\n# {}\n{mark}[{}]\n", kind.doc, title(kind));
        for key in kind.keys {
            explain(&mut text, key);
        }
    }
    text
}

fn title(kind: &Kind) -> String {
    match kind.example {
        Some(example) => format!("{}.{example}", kind.name),
        None => kind.name.to_owned(),
    }
}

fn explain(text: &mut String, key: &Key) {
    for line in key.doc.lines() {
        let _ = writeln!(text, "# {line}");
    }
    let without = match key.without {
        Without::Default(_) => "",
        Without::Else(_) => "   # an example",
        Without::Required(_) => "   # needed",
    };
    let _ = writeln!(text, "#{} = {}{without}", key.name, key.sample());
}

/// What is in force, with the file and line that each key comes from. Secrets are not in it.
///
/// # Errors
/// All that is wrong with the configuration.
pub(crate) fn show(path: &Path) -> Result<String, Vec<Problem>> {
    show_tree(&Tree::read(path))
}

pub(super) fn show_tree(tree: &Tree) -> Result<String, Vec<Problem>> {
    load_tree(tree)?;
    let places = Problems::new(&tree.sources, Vec::new());
    let mut text = String::new();
    for kind in KINDS {
        let Some(Value::Table(table)) = tree.table.0.get(kind.name).map(|entry| &entry.held.value) else {
            continue;
        };
        match kind.example {
            None => show_section(&mut text, kind, kind.name, table, &places),
            Some(_) => {
                for (name, entry) in &table.0 {
                    if let Value::Table(table) = &entry.held.value {
                        show_section(&mut text, kind, &format!("{}.{name}", kind.name), table, &places);
                    }
                }
            }
        }
    }
    Ok(text)
}

fn show_section(text: &mut String, kind: &Kind, title: &str, table: &Table, places: &Problems<'_>) {
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}[{title}]");
    for key in kind.keys {
        match (table.0.get(key.name), &key.without) {
            (Some(entry), _) => {
                let value = shown(key.name, entry);
                let _ = writeln!(text, "{} = {value}   # {}", key.name, places.place(entry.key_at));
            }
            (None, Without::Default(value)) => {
                let _ = writeln!(text, "{} = {value}   # default", key.name);
            }
            (None, _) => {}
        }
    }
}

fn shown(key: &str, entry: &Entry) -> String {
    match &entry.held.value {
        Value::Table(table) if HIDDEN.contains(&key) => {
            let names = table.0.keys().map(|name| format!("{} = \"(hidden)\"", quoted(name)));
            format!("{{ {} }}", names.collect::<Vec<_>>().join(", "))
        }
        value => as_toml(value),
    }
}

fn as_toml(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(list) => {
            let items: Vec<String> = list.iter().map(|one| as_toml(&one.value)).collect();
            format!("[{}]", items.join(", "))
        }
        // No key that is shown takes one.
        Value::Table(_) | Value::Other(_) => String::new(),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
