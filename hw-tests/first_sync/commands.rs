//! Runs a plan by the commands `serve` and `sync`, each in a process of its own, and reads what they tell scripts.

use std::path::Path;

use gattway::replicator::ReplicatorType;
use serde_json::Value;

use super::command::{Process, run as run_command};
use super::exchange::{LeftOut, Outcome, Report};
use super::past::path;
use super::plan::{ACTIVE, PASSIVE, Plan};

/// One sync from its beginning to its end.
pub fn run(plan: &Plan, directory: &Path) -> Outcome {
    let mut serve = vec!["serve", "--listen", "tcp:127.0.0.1:0", "--json"];
    let meeting = if plan.secure { "--trust-all" } else { "--plain" };
    serve.push(meeting);
    if plan.collections.iter().all(|collection| !collection.access.push) {
        serve.push("--read-only");
    }
    let mut server = Process::start(&path(directory, PASSIVE), &serve);
    let address = server.address();
    // The port is another one in each run, and the peer is the same.
    let mut sync =
        vec!["sync", address.as_str(), "--json", "--documents", "--peer", "the passive side", meeting];
    match plan.direction {
        ReplicatorType::Push => sync.push("--push"),
        ReplicatorType::Pull => sync.push("--pull"),
        ReplicatorType::PushAndPull => {}
    }
    let ended = run_command(&path(directory, ACTIVE), &sync);
    server.signal("TERM");
    let mut outcome = Outcome::default();
    while let Some(event) = server.event() {
        take(&event, &mut outcome.passive_reports, &mut outcome.passive_left_out);
    }
    assert_eq!(server.end_of_itself(), Some(0), "serve has failed");
    for line in ended.stdout.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        take(&event, &mut outcome.reports, &mut outcome.left_out);
        assert_ne!(event["event"], "dropped", "events are read as they come");
        if event["event"] == "finished" {
            outcome.documents = event["documents"].as_u64().unwrap();
            let code = ended.code.unwrap();
            outcome.exit = Some((code, event["ok"].as_bool().unwrap()));
            // With 7 the run has come to its end.
            let error = event["error"].as_str().filter(|_| code != 7);
            outcome.error = error.map(|error| error.replace(&address, "the passive side"));
        }
    }
    assert!(outcome.exit.is_some(), "no last event: {ended:?}");
    outcome
}

/// Takes in an event about documents.
fn take(event: &Value, reports: &mut Vec<Report>, left_out: &mut LeftOut) {
    let report = |row: &Value| Report {
        collection: row["collection"].as_str().unwrap().to_owned(),
        id: row["_id"].as_str().unwrap().to_owned(),
        sent: row["direction"] == "sent",
        error: row["error"].as_str().map(str::to_owned),
    };
    match event["event"].as_str().unwrap() {
        "document" => reports.push(report(event)),
        "unsynced" => {
            let lack = |row: &Value| {
                (row["name"].as_str().unwrap().to_owned(), row["error"].as_str().unwrap().to_owned())
            };
            *left_out = LeftOut {
                documents: event["documents"].as_u64().unwrap(),
                listed: event["listed"].as_array().unwrap().iter().map(report).collect(),
                collections: event["collections"].as_array().unwrap().iter().map(lack).collect(),
            };
        }
        _ => {}
    }
}
