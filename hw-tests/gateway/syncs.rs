//! Gateways that sync with each other: over TCP in a group, over WebSocket with TLS and users; peers that go and come back.

use crate::command::{free_port, ok, run};
use crate::{Machine, central_and_field, event, put, wait_until};

#[test]
fn what_comes_while_the_upstream_is_away_arrives_once_when_it_is_back() {
    let port = free_port();
    let central = Machine::new(&format!(
        "[databases.central]\ngroup-file = \"group\"\n[listeners.lan]\naddress = \"tcp:127.0.0.1:{port}\"\n"
    ));
    let field = Machine::new(&format!(
        "[databases.field]\ngroup-credential = \"group\"\n[listeners.here]\naddress = \"tcp:127.0.0.1:0\"\n\
         [upstreams.central]\naddress = \"tcp:127.0.0.1:{port}\"\n"
    ));
    // A third device has made the group.
    let device = tempfile::tempdir().unwrap();
    let device = device.path().join("device.db");
    ok(&device, &["group", "create", "plant"]);
    let shown: serde_json::Value = serde_json::from_str(&ok(&device, &["group", "show", "--json"])).unwrap();
    let code = shown["code"].as_str().unwrap();
    central.write("etc/group", code);
    field.write("credentials/group", code);
    put(&field.path("state/field.db"), "first");

    let mut at_central = central.start();
    at_central.address();
    let mut at_field = field.start();
    let here = at_field.address();
    wait_until("the first document arrives", || central.documents("central.db") == ["first"]);
    let status = field.status();
    let upstream = &status["databases"][0]["upstreams"][0];
    assert_eq!(upstream["name"], "central");
    wait_until("it is in sync", || field.status()["databases"][0]["upstreams"][0]["last_synced_s"].is_u64());

    // Killed; and meanwhile somebody brings more.
    at_central.child.kill().unwrap();
    at_central.child.wait().unwrap();
    wait_until("it is told", || field.status()["databases"][0]["upstreams"][0]["error"].is_string());
    for n in 0..20 {
        put(&device, &format!("more-{n:02}"));
    }
    ok(&device, &["sync", &here, "--trusted-only"]);
    assert_eq!(central.run(&["status"]).code, Some(6), "nobody answers for one that was killed");

    let mut at_central = central.start();
    at_central.address();
    ok_now(&field);
    wait_until("all arrive", || central.documents("central.db").len() == 21);
    wait_until("it is in sync again", || field.status()["databases"][0]["upstreams"][0]["error"].is_null());
    let neighbours = central.status()["databases"][0]["neighbours"].clone();
    assert_eq!(neighbours.as_array().unwrap().len(), 1, "{neighbours}");
    assert!(neighbours[0]["id"].is_string() && neighbours[0]["connected"] == true, "{neighbours}");
    // What the one has sent the other has received, and whoever is of no group is counted.
    let stranger = tempfile::tempdir().unwrap();
    let stranger = stranger.path().join("stranger.db");
    ok(&stranger, &["group", "create", "elsewhere"]);
    let address = format!("tcp:127.0.0.1:{port}");
    assert!(run(&stranger, &["sync", &address, "--attempts", "1"]).code != Some(0));
    let carried = |machine: &Machine| {
        let status = machine.status()["databases"][0].clone();
        ["sent_bytes", "received_bytes"].map(|name| status[name].as_u64().unwrap())
    };
    let [received, sent] = carried(&central);
    // The field has sent to the one that was killed as well.
    let [by_field, to_field] = carried(&field);
    assert!(
        received > 0 && by_field >= sent && to_field >= received,
        "{:?}",
        [received, sent, by_field, to_field]
    );
    let refused = central.status()["databases"][0]["refused"].clone();
    assert_eq!((&refused["strangers"], &refused["violations"]), (&1.into(), &0.into()), "{refused}");
    at_central.signal("TERM");
    let finished = event(&mut at_central, "finished");
    assert_eq!(
        (&finished["ok"], &finished["documents"]),
        (&true.into(), &20.into()),
        "each once: {finished}"
    );
    assert_eq!(at_central.end_of_itself(), Some(0));
    assert_eq!(at_field.terminate(), Some(0));
}

/// Has the gateway sync without waiting.
#[track_caller]
fn ok_now(machine: &Machine) {
    let told = machine.run(&["now"]);
    assert_eq!(told.code, Some(0), "{told:?}");
}

#[test]
fn syncs_can_be_paused_by_name_and_go_on() {
    let (_central, at_central, field) = central_and_field();
    let mut at_field = field.start();
    let activity = || field.status()["databases"][0]["upstreams"][0]["activity"].clone();
    at_field.wait_for(|event| event["event"] == "status" && event["activity"] == "idle");
    assert_eq!(field.run(&["pause", "nobody"]).code, Some(3));
    assert_eq!(field.run(&["pause", "central"]).code, Some(0));
    wait_until("it is paused", || activity() == "paused");
    assert_eq!(field.run(&["resume"]).code, Some(0));
    wait_until("it goes on", || activity() == "idle");
    let shown = field.run(&["status"]);
    assert!(shown.stdout.contains("upstream central: idle"), "{shown:?}");
    assert_eq!(at_field.terminate(), Some(0));
    assert_eq!(at_central.terminate(), Some(0));
}

#[cfg(feature = "websocket")]
#[test]
fn a_server_with_tls_and_users_is_met_once_the_password_is_right() {
    let central = Machine::new(
        "[databases.plant]\n[listeners.web]\naddress = \"wss://127.0.0.1:0/plant\"\nplain = true\n\
         tls-self-signed = true\nusers-file = \"users\"\n",
    );
    central.write("etc/users", "gateway-7:correct horse\n");
    put(&central.path("state/plant.db"), "there");
    let mut at_central = central.start();
    let certificate = event(&mut at_central, "certificate")["pem"].as_str().unwrap().to_owned();
    let address = at_central.address();

    let field = Machine::new(&format!(
        "[databases.field]\n[upstreams.central]\naddress = \"{address}\"\nplain = true\nuser = \"gateway-7\"\n\
         password-credential = \"central\"\npin-cert = \"central.pem\"\n"
    ));
    field.write("etc/central.pem", &certificate);
    put(&field.path("state/field.db"), "here");
    let mut at_field = field.start();
    let failed = event(&mut at_field, "upstream_failed");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("credential central") && error.contains("LoadCredential"), "{error}");
    field.write("credentials/central", "correct house\n");
    ok_now(&field);
    let failed = event(&mut at_field, "upstream_failed");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("401") && !error.contains("house"), "{error}");
    assert!(field.status()["databases"][0]["upstreams"][0]["error"].as_str().unwrap().contains("401"));
    field.write("credentials/central", "correct horse\n");
    ok_now(&field);
    wait_until("both have both", || {
        central.documents("plant.db") == ["here", "there"] && field.documents("field.db") == ["here", "there"]
    });
    // Another list of users holds once the gateway is told to look; the rest of the configuration is the same.
    central.write("etc/users", "gateway-8:correct horse\n");
    at_central.signal("HUP");
    let reloaded = event(&mut at_central, "reloaded");
    assert!(reloaded["done"][0].as_str().unwrap_or_default().contains("listener web"), "{reloaded}");
    assert_eq!(at_field.terminate(), Some(0));
    assert_eq!(at_central.terminate(), Some(0));
}

#[test]
fn a_collection_that_is_made_while_the_gateway_runs_is_synced() {
    let address = format!("address = \"tcp:127.0.0.1:{}\"\n", free_port());
    let central = Machine::new(&format!("[databases.central]\ntrust-all = true\n[listeners.lan]\n{address}"));
    let field = Machine::new(&format!("[databases.field]\ntrust-all = true\n[upstreams.central]\n{address}"));
    let (mut at_central, mut at_field) = (central.start(), field.start());
    wait_until("both answer", || [&central, &field].iter().all(|one| one.run(&["status"]).code == Some(0)));
    wait_until("it is in sync", || field.status()["databases"][0]["upstreams"][0]["last_synced_s"].is_u64());
    let (here, there) = (field.path("state/field.db"), central.path("state/central.db"));
    for db in [&there, &here] {
        ok(db, &["db", "collections", "--create", "plant.readings"]);
    }
    ok(&here, &["db", "put", "--collection", "plant.readings", "late", "{}"]);
    wait_until("its document arrives", || {
        run(&there, &["db", "ls", "--collection", "plant.readings"]).stdout.lines().eq(["late"])
    });
    // The others go on.
    put(&here, "other");
    wait_until("others go on", || central.documents("central.db") == ["other"]);
    for process in [&mut at_field, &mut at_central] {
        process.signal("TERM");
        assert_eq!(event(process, "finished")["ok"], true);
    }
}
