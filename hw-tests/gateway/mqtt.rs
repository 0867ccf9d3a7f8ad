//! A gateway and Debian's broker of MQTT, mosquitto.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::command::{Process, free_port, ok, run_with_input};
use crate::{Machine, wait_until};

/// A broker on a port of its own, which keeps it when it is killed and started again.
struct Broker {
    directory: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Starts one; `more`: lines of its configuration.
    fn start(more: &str) -> Broker {
        let directory = tempfile::tempdir().unwrap();
        // As root it takes another user, who has to get at its files.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let port = free_port();
        let access = if more.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        let configuration = format!(
            "listener {port} 127.0.0.1\n{access}log_type all\nlog_dest stdout\npersistence true\n\
             persistence_location {}/\n{more}",
            directory.path().display()
        );
        fs::write(directory.path().join("mosquitto.conf"), configuration).unwrap();
        let mut broker = Broker { directory, port, child: None };
        broker.start_again();
        broker
    }

    fn start_again(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let error = log.try_clone().unwrap();
        // A line is in the file when the next one is begun, whatever becomes of the process.
        let mut command = program("stdbuf");
        command.arg("-oL").arg(folder().join("usr/sbin/mosquitto"));
        command.arg("-c").arg(self.directory.path().join("mosquitto.conf"));
        self.child = Some(command.stdout(log).stderr(error).spawn().unwrap());
        let accepts = || TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        wait_until("the broker takes connections", accepts);
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Kills it; what it had in memory is lost.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The topics of what the gateway has published, in the order in which the broker got it.
    fn published(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log()).unwrap();
        let topic = |line: &str| {
            let (_, about) = line.split_once("Received PUBLISH from gattway-")?;
            Some(about.split('\'').nth(1)?.to_owned())
        };
        log.lines().filter_map(topic).collect()
    }

    /// Publishes as another client.
    fn publish(&self, topic: &str, payload: &str) {
        let mut command = program("mosquitto_pub");
        command.args(["-p", &self.port.to_string(), "-q", "1", "-t", topic, "-m", payload]);
        assert!(command.status().unwrap().success());
    }

    /// The message that the broker keeps of a topic, once there is one; as a user, if that is said.
    fn retained(&self, topic: &str, more: &[&str]) -> String {
        let mut command = program("mosquitto_sub");
        command.args(["-p", &self.port.to_string(), "-t", topic, "-C", "1", "-W", "60"]).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{topic}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

/// Where Debian's packages are.
fn folder() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hw-tests/foreign/mosquitto");
    let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "there is no mosquitto: {:?}", output.status);
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

fn program(name: &str) -> Command {
    let folder = folder();
    let inside = folder.join("usr/bin").join(name);
    let mut command = Command::new(if inside.exists() { inside } else { PathBuf::from(name) });
    let libraries = folder.join("usr/lib");
    let libraries: Vec<PathBuf> = match fs::read_dir(&libraries) {
        Ok(entries) if folder != Path::new("/") => entries.map(|entry| entry.unwrap().path()).collect(),
        _ => Vec::new(),
    };
    if !libraries.is_empty() {
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
    }
    command
}

fn gateway(broker: &Broker, more: &str) -> Machine {
    Machine::new(&format!(
        "[databases.plant]\n[mqtt.home]\nbroker = \"mqtt://127.0.0.1:{}\"\n{more}",
        broker.port
    ))
}

fn mqtt(machine: &Machine) -> Value {
    machine.status()["databases"][0]["mqtt"][0].clone()
}

fn start(machine: &Machine) -> Process {
    let process = machine.start();
    wait_until("it answers", || machine.run(&["status"]).code == Some(0));
    process
}

/// Each reading reaches the broker at least once, those of a sensor in their order, though broker and gateway are killed; how often
/// one is repeated is bounded by what was under way, and after a kill of the gateway by what was published in five seconds.
#[test]
fn readings_outlive_a_broker_that_is_killed_again_and_again() {
    const SENSORS: usize = 5;
    const READINGS: usize = 30;
    /// That are not confirmed at one time.
    const WINDOW: usize = 64;
    let kills = std::env::var("GATTWAY_BROKER_KILLS").map_or(4, |kills| kills.parse().unwrap());
    let mut broker = Broker::start("");
    let machine = gateway(&broker, "topic = \"plant/{sensor}/{n}\"\nretain = true\n");
    let db = machine.path("state/plant.db");
    let mut process = start(&machine);
    let mut next = 0;
    for kill in 0..kills {
        let lines: String = (0..READINGS)
            .map(|nth| {
                let n = next + nth;
                format!("{{\"_id\":\"r-{n:06}\",\"sensor\":\"s{}\",\"n\":\"{n:06}\"}}\n", n % SENSORS)
            })
            .collect();
        next += READINGS;
        let ended = run_with_input(&db, &["db", "import", "-", "--format", "ndjson"], lines.as_bytes());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        // While some of them are on their way, or none yet, or all are there.
        let some = next - READINGS + kill % 3 * READINGS / 2;
        wait_until("some are published", || {
            let published = broker.published();
            published.iter().filter(|topic| topic.starts_with("plant/")).count() >= some
        });
        broker.kill();
        if kill == kills / 2 {
            process.signal("KILL");
            drop(process);
            process = start(&machine);
        }
        broker.start_again();
    }
    wait_until("all are confirmed", || {
        let mqtt = mqtt(&machine);
        mqtt["connected"] == true && mqtt["pending"] == 0
    });
    let published = broker.published();
    let mut sensors: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut all = 0;
    for topic in published.iter().filter_map(|topic| topic.strip_prefix("plant/")) {
        let (sensor, n) = topic.split_once('/').unwrap();
        let seen = sensors.entry(sensor).or_default();
        all += 1;
        if !seen.contains(&n) {
            assert!(seen.last().is_none_or(|last| *last < n), "{sensor}: {n} after {seen:?}");
            seen.push(n);
        }
    }
    let distinct: usize = sensors.values().map(Vec::len).sum();
    println!("{next} readings, {kills} kills of the broker, one of the gateway: {} repeated", all - distinct);
    assert_eq!(distinct, next, "each at least once");
    // The gateway's own kill may repeat all that was published until then.
    assert!(all - distinct <= kills * WINDOW + next, "{all}");
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn messages_become_documents_and_are_kept_by_the_broker_until_then() {
    let broker = Broker::start("");
    let machine = gateway(
        &broker,
        "[topics.set]\ntopic = \"plant/+/set\"\ncollection = \"commands\"\nid = \"{_2}:{n}\"\n\
         [topics.raw]\ntopic = \"raw/#\"\ncollection = \"raw\"\n",
    );
    let db = machine.path("state/plant.db");
    let process = start(&machine);
    wait_until("it has subscribed", || {
        fs::read_to_string(broker.log()).unwrap().contains("Sending SUBACK to gattway-")
    });
    let get = |collection: &str, id: &str| -> Value {
        let ended = crate::command::run(&db, &["db", "get", id, "--collection", collection, "--json"]);
        serde_json::from_str(&ended.stdout).unwrap_or_default()
    };
    broker.publish("plant/valve/set", r#"{"n":1,"open":true}"#);
    broker.publish("raw/a/b", "71.5");
    broker.publish("raw/text", "not JSON");
    broker.publish("plant/valve/set", "{}");
    broker.publish("plant/valve/set", r#"{"n":2,"_deleted":true}"#);
    broker.publish("plant/valve/set", r#"{"n":3,"":0}"#);
    wait_until("three are there", || mqtt(&machine)["received"] == 3);
    wait_until("three are refused", || mqtt(&machine)["refused"] == 3);
    let document = get("commands", "valve:1");
    assert_eq!(document["open"], true, "{document}");
    assert_eq!(
        (&get("raw", "raw/a/b")["value"], &get("raw", "raw/text")["value"]),
        (&71.5.into(), &"not JSON".into())
    );
    let shown = machine.run(&["status"]).stdout;
    assert!(shown.contains("REFUSED: 3, the last: a message of plant/valve/set"), "{shown}");
    // A second time it is no other revision.
    let revision = document["_rev"].clone();
    broker.publish("plant/valve/set", r#"{"n":1,"open":true}"#);
    broker.publish("plant/valve/set", r#"{"n":4}"#);
    wait_until("the next is there", || mqtt(&machine)["received"] == 4);
    assert_eq!(get("commands", "valve:1")["_rev"], revision);
    // Nobody is there: the broker keeps it.
    assert_eq!(process.terminate(), Some(0));
    broker.publish("plant/valve/set", r#"{"n":5}"#);
    let process = start(&machine);
    wait_until("what was kept arrives", || get("commands", "valve:5")["n"] == 5);
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn home_assistant_finds_sensors_and_sees_whether_the_gateway_is_there() {
    let password = "room-7-is-dry";
    let mut broker = Broker::start("");
    let users = broker.directory.path().join("users");
    let mut command = program("mosquitto_passwd");
    assert!(command.args(["-b", "-c"]).arg(&users).args(["gateway", password]).status().unwrap().success());
    fs::set_permissions(&users, fs::Permissions::from_mode(0o644)).unwrap();
    broker.kill();
    let file = broker.directory.path().join("mosquitto.conf");
    let configuration = fs::read_to_string(&file).unwrap().replace("allow_anonymous true", "");
    fs::write(&file, format!("{configuration}password_file {}\n", users.display())).unwrap();
    File::create(broker.log()).unwrap();
    broker.start_again();
    let more = "user = \"gateway\"\npassword-file = \"broker.password\"\ntopic = \"plant/{sensor}\"\n\
                retain = true\ntime = \"at\"\n\
                [sensors.temperature]\nfield = \"celsius\"\ndevice = \"{sensor}\"\nunit = \"°C\"\n";
    let machine = gateway(&broker, more);
    machine.write("etc/broker.password", "wrong\n");
    ok(
        &machine.path("state/plant.db"),
        &["db", "put", "r-1", r#"{"sensor":"boiler","celsius":71.5,"at":"2026-11-27T10:00:00+01:00"}"#],
    );
    ok(&machine.path("state/plant.db"), &["db", "put", "r-2", r#"{"celsius":71.5}"#]);
    let mut process = machine.start();
    let failed = process.wait_for(|event| event["event"] == "mqtt_failed");
    assert!(failed["error"].as_str().unwrap().contains("refused"), "{failed}");
    machine.write("etc/broker.password", &format!("{password}\n"));
    process.signal("HUP");
    let as_user = ["-u", "gateway", "-P", password];
    let shown: Value = serde_json::from_str(&broker.retained("plant/boiler", &as_user)).unwrap();
    assert_eq!((&shown["_id"], &shown["_time"]), (&"r-1".into(), &"2026-11-27T09:00:00Z".into()), "{shown}");
    let told = broker.retained("homeassistant/device/gattway_plant_boiler/config", &as_user);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["state_topic"], "plant/boiler");
    assert_eq!(told["components"]["temperature"]["unit_of_measurement"], "°C");
    let availability = told["availability_topic"].as_str().unwrap().to_owned();
    assert_eq!(broker.retained(&availability, &as_user), "online");
    wait_until("what has no sensor is told", || mqtt(&machine)["skipped"] == 1);
    // What is removed before it was published leaves nothing that is waited for.
    broker.kill();
    ok(&machine.path("state/plant.db"), &["db", "put", "r-3", r#"{"sensor":"boiler"}"#]);
    ok(&machine.path("state/plant.db"), &["db", "expire", "r-3", "--in", "1s"]);
    wait_until("it is gone", || !machine.documents("plant.db").contains(&"r-3".to_owned()));
    broker.start_again();
    wait_until("nothing is waited for", || {
        let mqtt = mqtt(&machine);
        mqtt["connected"] == true && mqtt["pending"] == 0
    });
    let shown = machine.run(&["status"]).stdout;
    assert!(shown.contains("NOT PUBLISHED: 1, the last: _default \"r-2\" has no text or number"), "{shown}");
    // Gone without a word: the broker says it.
    process.signal("KILL");
    drop(process);
    wait_until("it is seen to be gone", || broker.retained(&availability, &as_user) == "offline");
    let process = start(&machine);
    wait_until("it is seen to be there", || broker.retained(&availability, &as_user) == "online");
    assert_eq!(process.terminate(), Some(0));
    assert_eq!(broker.retained(&availability, &as_user), "offline");
}

/// The broker has a certificate that no issuer vouches for.
#[test]
fn a_broker_is_met_over_tls_by_its_certificate_alone() {
    // A gateway makes a certificate of its own for HTTP, which serves as that of a broker.
    let other = Machine::new(
        "[databases.other]\n[http]\nlisten = \"127.0.0.1:0\"\ntoken-file = \"token\"\ntls-self-signed = true\n",
    );
    other.write("etc/token", "a-token-of-16-characters\n");
    let process = other.start();
    let pem = other.path("state/tls.pem");
    wait_until("it has a certificate", || pem.exists());
    assert_eq!(process.terminate(), Some(0));
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let certificate = directory.path().join("broker.pem");
    fs::copy(&pem, &certificate).unwrap();
    fs::set_permissions(&certificate, fs::Permissions::from_mode(0o644)).unwrap();
    let broker = Broker::start(&format!("certfile {0}\nkeyfile {0}\n", certificate.display()));
    let machine = Machine::new(&format!(
        "[databases.plant]\n[mqtt.home]\nbroker = \"mqtts://127.0.0.1:{}\"\ntopic = \"plant/{{_id}}\"\n",
        broker.port
    ));
    ok(&machine.path("state/plant.db"), &["db", "put", "r-1", "{}"]);
    let mut process = machine.start();
    let failed = process.wait_for(|event| event["event"] == "mqtt_failed");
    assert!(failed["error"].as_str().unwrap().contains("certificate"), "{failed}");
    machine.write("etc/conf.d/pin.toml", &format!("[mqtt.home]\npin-cert = {certificate:?}\n"));
    process.signal("HUP");
    wait_until("it is published", || broker.published().contains(&"plant/r-1".to_owned()));
    assert_eq!(process.terminate(), Some(0));
}
