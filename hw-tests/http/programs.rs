//! The examples for Node and for a shell, as their users run them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{Served, end};

/// A program, installed if it is not there.
fn program(name: &str, package: &str) -> Command {
    if Command::new(name).arg("--version").output().is_err() {
        let install = root().join("hw-tests/rig/install-packages");
        assert!(Command::new(install).arg(package).status().unwrap().success());
    }
    Command::new(name)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_program_for_node_writes_asks_and_follows() {
    let served = Served::start();
    let run = |folder: &Path| {
        let example = root().join("examples/node/readings.mjs");
        program("node", "nodejs").arg(example).arg(folder).args(["pump", "5", "10"]).output().unwrap()
    };
    for round in 1..=2 {
        let shown = lines(&run(&served.db));
        assert_eq!(shown.last().unwrap(), &format!("{} readings of pump, 71.6 at most", 10 * round));
        assert!(shown[0].ends_with(" pump 70"), "what comes is shown: {shown:?}");
    }
    let folder = served.db.parent().unwrap().to_owned();
    let refused = run(&folder);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is the database open in gattway"), "{}", text(&refused.stderr));
    end(served);
}

#[test]
fn a_script_of_the_shell_writes_and_asks() {
    let served = Served::start();
    drop(program("curl", "curl"));
    let run = |args: &[&str]| {
        let example = root().join("examples/shell/readings.sh");
        Command::new("sh").arg(example).arg(&served.db).args(args).output().unwrap()
    };
    let shown = lines(&run(&["boiler", "71.5", "72.5"])).join("\n");
    assert!(shown.contains("\"mean\":72.0") && shown.contains("\"celsius\":71.5"), "{shown}");
    let refused = run(&["boiler", "\"x"]);
    assert!(!refused.status.success() && text(&refused.stdout).contains("is no JSON object"), "{refused:?}");
    end(served);
}
