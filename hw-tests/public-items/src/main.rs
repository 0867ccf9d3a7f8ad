//! Counts the public items of the library: what a user can name, and the methods of it.
//!
//! An item is a struct, enum, union, trait, type alias, function, constant, static or macro that a public path leads to, and
//! each public method, constant and type of one, the traits' own among them. Each counts once, whatever the number of its
//! paths. Modules, fields, variants, implementations of traits, and what is `#[doc(hidden)]` do not count.
//!
//! ```text
//! public-items [--features default|all] [--at-most N] [--list]
//! public-items --json FILE    another crate's JSON, to compare
//! ```

mod surface;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use surface::{Complaints, Document, Surface};

/// Set where this program stands in for rustdoc: what it prints as JSON is not stable, and rustdoc has to be told that this
/// is known. Told to cargo, it would build all dependencies once more.
const AS_RUSTDOC: &str = "PUBLIC_ITEMS_RUSTDOC";

fn main() -> ExitCode {
    if let Some(rustdoc) = std::env::var_os(AS_RUSTDOC) {
        let status =
            Command::new(rustdoc).args(std::env::args_os().skip(1)).env("RUSTC_BOOTSTRAP", "1").status();
        return ExitCode::from(u8::from(!status.is_ok_and(|status| status.success())));
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("public-items: {error}");
            ExitCode::from(2)
        }
    }
}

/// What was asked for.
#[derive(Default)]
struct Arguments {
    features: Vec<String>,
    at_most: Option<usize>,
    list: bool,
    json: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--features" => arguments.features.push(value()?),
            "--at-most" => {
                arguments.at_most = Some(value()?.parse().map_err(|_| "--at-most needs a number")?)
            }
            "--list" => arguments.list = true,
            "--json" => arguments.json = Some(value()?.into()),
            other => {
                return Err(format!(
                    "unknown argument {other}: see the head of hw-tests/public-items/src/main.rs"
                ));
            }
        }
    }
    if arguments.features.is_empty() {
        arguments.features = vec!["default".into(), "all".into()];
    }
    Ok(arguments)
}

/// Whether everything is as it should be.
fn run() -> Result<bool, String> {
    let arguments = arguments()?;
    if let Some(file) = &arguments.json {
        report(&file.display().to_string(), file, &arguments)?;
        return Ok(true);
    }
    let mut is_fine = true;
    for features in &arguments.features {
        let file = document(features)?;
        is_fine &= report(&format!("{features} features"), &file, &arguments)?;
    }
    Ok(is_fine)
}

/// Has rustdoc write the library's JSON.
fn document(features: &str) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let rustdoc = std::env::var_os("RUSTDOC").unwrap_or("rustdoc".into());
    let chosen: &[&str] = match features {
        "default" => &[],
        "all" => &["--all-features"],
        other => return Err(format!("--features {other}: default or all")),
    };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["rustdoc", "--locked", "--quiet", "--package", "gattway", "--lib"])
        .args(chosen)
        // As on docs.rs, where what is private is not there to link to.
        .args(["--", "-D", "warnings", "-Z", "unstable-options", "--output-format", "json"])
        .current_dir(&root)
        .env("RUSTDOC", own)
        .env(AS_RUSTDOC, rustdoc)
        .env_remove("RUSTDOCFLAGS")
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err("cargo rustdoc failed".into());
    }
    Ok(target.join("doc/gattway.json"))
}

fn report(title: &str, file: &Path, arguments: &Arguments) -> Result<bool, String> {
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let json = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let document = Document::new(&json).ok_or(format!("{} is not rustdoc's JSON", file.display()))?;
    let surface = document.surface();
    print!("{}", table(title, &surface, arguments.list));
    let complaints = document.complaints(&surface);
    Ok(judge(&surface, &complaints, arguments))
}

/// One row for each folder: what can be named, the members of it, and the sum.
fn table(title: &str, surface: &Surface, list: bool) -> String {
    let mut rows: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for item in surface.items.values() {
        rows.entry(&item.folder).or_default()[usize::from(item.is_member)] += 1;
    }
    let mut text = format!("{title}:\n{:<14} {:>6} {:>8} {:>6}\n", "folder", "names", "members", "all");
    for (folder, [names, members]) in &rows {
        text += &format!("{folder:<14} {names:>6} {members:>8} {:>6}\n", names + members);
    }
    let sum = |at: usize| rows.values().map(|row| row[at]).sum::<usize>();
    text += &format!("{:<14} {:>6} {:>8} {:>6}\n", "total", sum(0), sum(1), surface.items.len());
    if list {
        let mut lines: Vec<String> =
            surface.items.values().map(|item| format!("  {} ({})\n", item.path, item.kind)).collect();
        lines.sort_unstable();
        text.extend(lines);
    }
    text
}

/// Prints what is wrong.
fn judge(surface: &Surface, complaints: &Complaints, arguments: &Arguments) -> bool {
    let count = surface.items.len();
    let is_small = arguments.at_most.is_none_or(|most| count <= most);
    if !is_small {
        println!(
            "{count} public items, {} are the most: make what is not for users pub(crate)",
            arguments.at_most.unwrap_or(0)
        );
    }
    let mut is_fine = is_small;
    for (what, list) in [
        ("names a type of a crate that users need not know", &complaints.foreign),
        ("names a type that no public path leads to", &complaints.unreachable),
        ("cannot grow: #[non_exhaustive] is missing", &complaints.closed),
        ("stands at the root without an example", &complaints.without_example),
    ] {
        for path in list {
            println!("{what}: {path}");
        }
        is_fine &= list.is_empty();
    }
    is_fine
}
