//! The client in Python, as its own documentation and its examples use it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Served, end};

fn python(served: &Served) -> Command {
    if Command::new("python3").arg("--version").output().is_err() {
        let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("hw-tests/rig/install-packages");
        assert!(Command::new(install).arg("python3").status().unwrap().success());
    }
    let mut command = Command::new("python3");
    let folder = served.db.parent().unwrap();
    command.current_dir(folder).env("PYTHONPATH", examples()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python")
}

#[test]
fn the_client_does_what_its_documentation_shows() {
    let served = Served::start();
    let run = "import doctest, gattway; r = doctest.testmod(gattway); print(r); raise SystemExit(r.failed or r.attempted < 15)";
    let output = python(&served).args(["-c", run]).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // More than a page, whatever stands in the IDs; one that is too much is refused with what to do.
    let run = r#"
import gattway
c = gattway.Database("plant.db").collection("many", create=True)
ids = sorted((f"{n:05}/\u00e4 +%" for n in range(2500)), key=str.encode)
c.save_all({"_id": id, "n": n} for n, id in enumerate(ids))
assert list(c) == ids and len(c) == 2500 and [id for id, _ in c.items(prefix="0249")] == ids[2490:2500]
assert c[ids[7]]["n"] == 7 and [change.id for change in c.changes()] == ids
assert c.changes(since="now", follow=True) is not None
try:
    c["big"] = {"x": "x" * 30_000_000}
    raise SystemExit("it was taken")
except gattway.Error as error:
    assert error.status == 413, error
try:
    gattway.Database("nowhere.db").collection()["x"]
    raise SystemExit("it was found")
except ConnectionError as error:
    assert "nowhere.db" in str(error), error
"#;
    let output = python(&served).args(["-c", run]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    end(served);
}

#[test]
fn a_dashboard_shows_what_a_sensor_writes() {
    let served = Served::start();
    let mut dashboard = python(&served);
    dashboard.arg(examples().join("dashboard.py")).arg("plant.db").stdout(Stdio::piped());
    let mut dashboard = dashboard.spawn().unwrap();
    let mut sensor = python(&served);
    sensor
        .arg(examples().join("sensor.py"))
        .args(["plant.db", "--sensor", "pump", "--every", "0.01", "--count", "25"]);
    let output = sensor.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    let last: Vec<&str> = shown.lines().last().unwrap().split(' ').collect();
    assert_eq!(last.len(), 21, "the time and the last 20: {last:?}");
    let lines = BufReader::new(dashboard.stdout.take().unwrap()).lines();
    let newest = lines.map(Result::unwrap).find(|line| line.contains(last[0])).unwrap();
    assert!(newest.starts_with("pump ") && newest.contains(last[1]), "{newest}");
    dashboard.kill().unwrap();
    dashboard.wait().unwrap();
    end(served);
}
