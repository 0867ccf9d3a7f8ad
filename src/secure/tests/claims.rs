//! `firmware-notes/threat-model.md` names with each claim the tests that defend it, and `hostile-peers.md` those of each attack: they are
//! there. A test that was renamed or removed must not leave a claim without one.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the sources are here") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The tests of one file, as nextest names them. By how rustfmt writes: a module ends where its indentation comes again.
fn tests_of(module: &str, text: &str, found: &mut Vec<String>) {
    let mut inside: Vec<(usize, &str)> = Vec::new();
    let mut is_test = false;
    for line in text.lines() {
        let words = line.trim_start();
        let indent = line.len() - words.len();
        if words == "}" {
            inside.retain(|(at, _)| *at < indent);
        } else if let Some(name) = words.strip_suffix(" {").and_then(|words| words.rsplit_once("mod ")) {
            inside.push((indent, name.1));
        } else if words.starts_with("#[test]") || words.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, after)) = words.split_once("fn ").filter(|_| is_test) {
            is_test = false;
            let name = after.split(['(', '<']).next().unwrap_or_default();
            let modules = inside.iter().map(|(_, name)| *name);
            let path: Vec<&str> =
                [module].into_iter().filter(|m| !m.is_empty()).chain(modules).chain([name]).collect();
            found.push(path.join("::"));
        }
    }
}

fn all_tests() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["src", "hw-tests"] {
        let (folder, mut paths) = (root().join(folder), Vec::new());
        files(&folder, &mut paths);
        for path in paths {
            let inner = path.strip_prefix(&folder).expect("inside").with_extension("");
            let parts = inner.iter().filter_map(|part| part.to_str());
            let module =
                parts.filter(|part| !["mod", "main", "lib"].contains(part)).collect::<Vec<_>>().join("::");
            tests_of(&module, &fs::read_to_string(&path).expect("text"), &mut found);
        }
    }
    found
}

/// Whether there is a test, or a module of tests, of this name: some or all of its last parts; `..` stands for what was said before.
/// Where `shortened`, a test's name may be cut at its end.
fn is_there(tests: &[String], name: &str, shortened: bool) -> bool {
    let name = name.replace(' ', "::");
    let wanted: Vec<&str> = name.split("::").filter(|part| *part != "..").collect();
    let same =
        |have: &str, want: &str, last: bool| have == want || (shortened && last && have.starts_with(want));
    tests.iter().any(|test| {
        let parts: Vec<&str> = test.split("::").collect();
        parts.windows(wanted.len()).any(|parts| {
            let mut pairs = parts.iter().zip(&wanted).enumerate();
            pairs.all(|(n, (have, want))| same(have, want, n + 1 == wanted.len()))
        })
    })
}

/// Claim and last cell of each row of the tables whose last column is of tests.
fn rows(page: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("firmware-notes").join(page)).expect("the page");
    let (mut rows, mut is_ours) = (Vec::new(), false);
    for line in text.lines() {
        let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else {
            is_ours &= line.starts_with('|');
            continue;
        };
        let cells: Vec<&str> = row.split(" | ").collect();
        let (first, last) = (cells[0].trim(), cells[cells.len() - 1].trim());
        match (is_ours, last) {
            (false, "test" | "tests") => is_ours = true,
            (false, _) => {}
            (true, last) => rows.push((first.to_owned(), last.to_owned())),
        }
    }
    rows
}

#[test]
fn every_claim_of_the_threat_model_has_tests_that_are_there() {
    let tests = all_tests();
    assert!(
        is_there(&tests, "secure::tests::claims", false)
            && is_there(&tests, "records::an_attack_on_a_record_is_noticed", false)
    );
    assert!(
        !is_there(&tests, "records::nobody_wrote_this", false)
            && !is_there(&tests, "cords::an_attack_on_a_record_is_noticed", false)
    );
    let mut missing = Vec::new();
    for (page, claims, shortened) in [("threat-model.md", 22, false), ("hostile-peers.md", 40, true)] {
        let rows = rows(page);
        assert!(rows.len() >= claims, "{page}: only {} claims were found", rows.len());
        for (claim, cell) in rows {
            let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
            // Another page has them; or it is said that there is none, or they are those of the row above.
            let elsewhere = cell.contains("](") || (shortened && ["-", "the same"].contains(&cell.as_str()));
            if names.is_empty() && !elsewhere {
                missing.push(format!("{page}: no test at all: {claim}"));
            }
            let is_fuzzed = |name: &&str| cell.contains(&format!("fuzz `{name}`"));
            let absent =
                names.into_iter().filter(|name| !is_fuzzed(name) && !is_there(&tests, name, shortened));
            missing.extend(absent.map(|name| format!("{page}: {name}: {claim}")));
        }
    }
    assert!(missing.is_empty(), "claims without their tests:\n{}", missing.join("\n"));
}
