//! What is read, what is refused and with which words, and what is shown.

use std::time::Duration;

use super::Config;
use super::keys::{KINDS, Without};
use super::load::load_tree;
use super::source::Source;
use super::text::{init_text, show_tree};
use super::tree::{Tree, value_of};
use crate::database::DatabaseConfig;
use crate::gateway::address::PlaceAddress;
use crate::gateway::secret::Secret;
use crate::node::advertising::AdvertPolicy;
use crate::replicator::{CONNECTIONS_MAX, PeerQuota, ReplicatorType};

fn tree(files: &[&str]) -> Tree {
    let sources =
        files.iter().enumerate().map(|(n, text)| Source::new(format!("/etc/gattway/{n}.toml"), *text));
    Tree::parse(sources.collect(), Vec::new())
}

#[track_caller]
fn right(text: &str) -> Config {
    load_tree(&tree(&[text])).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"))
}

/// `LINE KEY: WHAT -> RIGHT` for each.
fn wrong(files: &[&str]) -> Vec<String> {
    let problems = load_tree(&tree(files)).expect_err("it is wrong");
    let text = |problem: &super::Problem| {
        let (line, key) = (problem.line.unwrap_or(0), problem.key.clone().unwrap_or_default());
        format!("{line} {key}: {} -> {}", problem.what, problem.right.clone().unwrap_or_default())
    };
    problems.iter().map(text).collect()
}

#[test]
fn what_is_written_at_first_is_right_and_says_the_defaults_that_hold() {
    let text = init_text();
    let as_written = right(&text);
    let mut spelled_out = String::new();
    for line in text.lines() {
        let is_default = line.strip_prefix('#').filter(|rest| {
            let name = rest.split(" = ").next().unwrap_or_default();
            let known = || KINDS.iter().flat_map(|kind| kind.keys);
            known().any(|key| key.name == name && matches!(key.without, Without::Default(_)))
                && !rest.contains("# an example")
        });
        // Those of sections that are comments themselves belong to no section.
        if line.starts_with("#[") {
            break;
        }
        spelled_out.push_str(is_default.unwrap_or(line));
        spelled_out.push('\n');
    }
    assert!(spelled_out.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count() > 12);
    assert_eq!(right(&spelled_out), as_written);
    for kind in KINDS {
        for key in kind.keys {
            assert!(value_of(key.sample()).is_some(), "{}.{} = {}", kind.name, key.name, key.sample());
            assert!(text.contains(&format!("#{} = {}", key.name, key.sample())), "{}", key.name);
        }
    }
}

#[test]
fn ten_lines_are_enough_and_mean_what_they_say() {
    let config = right(
        "[databases.plant]\n[bluetooth.radio]\n[listeners.lan]\naddress = \"tcp:0.0.0.0:4985\"\n\
         [upstreams.central]\naddress = \"tcp:central:4985\"\npull = false\nevery = \"15m\"\n",
    );
    let plant = &config.databases["plant"];
    assert!(plant.store.path.ends_with("plant.db"), "{:?}", plant.store.path);
    assert!(plant.bluetooth["radio"].is_central && plant.bluetooth["radio"].is_peripheral);
    let central = &plant.upstreams["central"];
    assert_eq!((central.direction, central.every), (ReplicatorType::Push, Some(Duration::from_secs(900))));
    assert_eq!(plant.listeners["lan"].address.to_string(), "tcp:0.0.0.0:4985");
    assert!(!plant.node.trust_all && !plant.listeners["lan"].plain);
    // What the keys say is what holds elsewhere.
    assert_eq!(plant.node.connections, CONNECTIONS_MAX);
    assert_eq!(plant.node.quota, Some(PeerQuota::default()));
    assert_eq!(plant.store.keep_free, DatabaseConfig::default().keep_free_bytes);
    assert_eq!(plant.bluetooth["radio"].adverts, AdvertPolicy::default());
    #[cfg(feature = "bluetooth")]
    assert_eq!(usize::from(plant.bluetooth["radio"].slots), crate::transport::bluez::adapter::SLOTS_DEFAULT);
}

#[test]
fn later_files_replace_single_keys_and_what_is_shown_says_where_each_comes_from() {
    let files = [
        "[databases.plant]\nkeep-free = \"5M\"\n[upstreams.central]\naddress = \"ws://a/plant\"\nuser = \"me\"\n\
         password-file = \"secret\"\nheaders = { X-Key = \"hush\" }\n",
        "[upstreams.central]\naddress = \"ws://b/plant\"\nheaders.X-Other = \"hush\"\n",
    ];
    let config = load_tree(&tree(&files)).expect("right");
    let central = &config.databases["plant"].upstreams["central"];
    assert_eq!(central.address, "ws://b/plant".parse::<PlaceAddress>().expect("an address"));
    let beside = Secret::File("/etc/gattway/secret".into());
    assert_eq!(central.web.user, Some(("me".into(), beside)), "a file is beside the one that names it");
    assert_eq!(central.web.headers.len(), 2);
    let shown = show_tree(&tree(&files)).expect("right");
    for line in [
        "keep-free = \"5M\"   # /etc/gattway/0.toml:2",
        "address = \"ws://b/plant\"   # /etc/gattway/1.toml:2",
        "durability = \"synced\"   # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
    }
    assert!(shown.contains("X-Key") && !shown.contains("hush"), "{shown}");
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn everything_that_is_wrong_is_told_with_its_line_and_what_would_be_right() {
    let cases: &[(&[&str], &[&str])] = &[
        (&[""], &["1 : there is no database -> write [databases.NAME]"]),
        (
            &["[database.a]\n[databases.a]\ncolections = []\nread_only = true\nzzz = 1\n"],
            &[
                "1 database: there is no such section -> perhaps databases is meant",
                "3 databases.a.colections: there is no such key -> perhaps collections is meant",
                "4 databases.a.read_only: there is no such key -> perhaps read-only is meant",
                "5 databases.a.zzz: there is no such key -> known here are path, collections,",
            ],
        ),
        (
            &[
                "[databases.a]\nread-only = \"yes\"\nkeep-free = \"much\"\ndurability = \"sync\"\nconnections = 0\n\
               collections = [\"a b\"]\npath = 7\n",
            ],
            &[
                "2 databases.a.read-only: it is a text, not true or false -> true or false, without quotes",
                "3 databases.a.keep-free: \"much\" is no size -> a number of bytes, as 4096, \"500K\"",
                "4 databases.a.durability: \"sync\" cannot be used; perhaps \"synced\" is meant -> one of synced, relaxed",
                "5 databases.a.connections: 0 cannot be used -> a number from 1 to 10000, without quotes",
                "6 databases.a.collections: ",
                "7 databases.a.path: it is a number, not a text -> a text in quotes",
            ],
        ),
        (
            &["databases = 1\n"],
            &[
                "1 databases: it is a number, not a section -> write [databases.plant]",
                "1 : there is no database",
            ],
        ),
        (
            &["[databases]\nplant = 1\n"],
            &[
                "1 : there is no database",
                "2 databases.plant: it is a number, not a section -> write [databases.plant]",
            ],
        ),
        (
            &[
                "[databases.a]\ncollections = [\"x\"]\n[retention.r]\n[retention.s]\nage = \"3\"\nbytes = \"0\"\ncollections = [\"y\"]\n",
            ],
            &[
                "3 retention.r.age: this keeps everything -> one or more of age, documents, bytes",
                "5 retention.s.age: \"3\" is no such time -> a time of a second or more",
                "6 retention.s.bytes: 0 is too little -> at least 1, as",
                "7 retention.s.collections: _default.y is none of the database's -> one of _default.x",
                "7 retention.s.collections: retention.r is for some of these too -> each collection in one section alone",
            ],
        ),
        (
            &[
                "[databases.a]\ntombstones = \"long\"\n[upstreams.u]\naddress = \"tcp:h:1\"\npush = false\n[upstreams.v]\naddress = \"tcp:h:2\"\n\
                 collections = [\"x\"]\n[retention.r]\nfiles = \"1M\"\nreserve = 0\nbytes = \"much\"\nonly-confirmed = \"w\"\ncollections = [\"x\"]\n\
                 [retention.s]\ntombstones = \"0s\"\ncollections = [\"y\"]\nonly-confirmed = \"u\"\n[retention.t]\nage = \"1d\"\n\
                 collections = [\"z\"]\nonly-confirmed = \"v\"\n[retention.q]\ncollections = [\"q\"]\nonly-confirmed = \"v\"\n",
            ],
            &[
                "2 databases.a.tombstones: \"long\" is no such time -> a time of a second or more",
                "10 retention.r.files: 1048576 is too little -> at least 8M, as",
                "11 retention.r.reserve: below keep-free of the database, 2M, nothing is stored -> more than that",
                "12 retention.r.bytes: \"much\" is no size -> a number of bytes",
                "13 retention.r.only-confirmed: there is no upstream \"w\" of this database -> one of u, v",
                "16 retention.s.tombstones: \"0s\" is no such time -> a time of a second or more",
                "18 retention.s.only-confirmed: upstreams.u is sent nothing, so it confirms nothing -> push = true",
                "22 retention.t.only-confirmed: _default.z is not synced with upstreams.v",
                "23 retention.q.age: this keeps everything -> one or more of age,",
                "25 retention.q.only-confirmed: _default.q is not synced with upstreams.v",
            ],
        ),
        (&["[databases.\"a/b\"]\n"], &["1 databases.a/b: this name cannot be used -> up to 64 letters"]),
        (
            &[
                "[databases.a]\n[listeners.x]\n",
                "[listeners.y]\naddress = \"gateway:4985\"\n[upstreams.z]\naddress = \"ble:any\"\n",
            ],
            &[
                "2 listeners.x: address is missing -> write address = \"tcp:0.0.0.0:4985\"",
                "2 listeners.y.address: ",
                "4 upstreams.z.address: which device is not said -> ble:ADDRESS; for all neighbours write [bluetooth.NAME]",
            ],
        ),
        (
            &[
                "[databases.a]\n[databases.b]\npath = \"a.db\"\n[listeners.x]\naddress = \"tcp:h:1\"\n[listeners.y]\n\
               address = \"tcp:h:1\"\ndatabase = \"c\"\n",
            ],
            &[
                "3 databases.b.path: it is the path of a too -> a path of its own",
                "4 listeners.x.database: which database is meant is not said, and there are several -> write database = \"NAME\", with one of a, b",
                "7 listeners.y.address: x has this address already -> one of its own",
                "8 listeners.y.database: there is no database \"c\" -> one of a, b",
            ],
        ),
        (
            &[
                "[databases.a]\n[upstreams.u]\naddress = \"tcp:h:1\"\nuser = \"me\"\npassword = \"hush\"\npush = false\npull = false\n\
               every = \"soon\"\n",
            ],
            &[
                "4 upstreams.u.user: there is no password for it -> password-file or password-credential",
                "5 upstreams.u.password: there is no such key -> a secret has no place in this file: password-file",
                "7 upstreams.u.pull: neither sends nor gets anything -> one of push and pull must be true",
                "8 upstreams.u.every: \"soon\" is no such time -> a time of a second or more, as \"30s\"",
            ],
        ),
        (
            &["[databases.a]\nread-only = tru\nkeep-fre = 1\n"],
            &[
                "2 : this is not TOML: ",
                "3 databases.a.keep-fre: there is no such key -> perhaps keep-free is meant",
            ],
        ),
        (
            &["[databases.a]\n[listeners.s]\naddress = \"stdio\"\n"],
            &["3 listeners.s.address: a service has no standard input"],
        ),
    ];
    for (files, expected) in cases {
        let told = wrong(files);
        let fits = told.len() == expected.len()
            && told.iter().zip(*expected).all(|(told, begin)| told.starts_with(begin));
        assert!(fits, "{files:?}: {told:#?}");
        assert!(!told.join(" ").contains("hush"), "{told:?}");
    }
}

#[cfg(feature = "websocket")]
#[test]
fn what_does_not_fit_an_address_is_told_before_it_is_used() {
    for (keys, expected) in [
        ("address = \"wss://h/db\"", "wss://h:443/db needs a certificate -> tls-self-signed = true"),
        ("address = \"ws://h/db\"\ntls-self-signed = true", "uses no certificate -> wss://"),
        ("address = \"tcp:h:1\"\nusers-file = \"u\"", "users and certificates are for ws://"),
        ("address = \"wss://me:hush@h/db\"", "a password in a URL ends up in logs"),
        ("address = \"wss://h/db\"\ntls-cert = \"c\"\ntls-self-signed = true", "there is tls-cert too"),
        (
            "address = \"wss://h/db\"\ntls-cert = \"c\"\nusers-credential = \"../u\"",
            "no name of a credential",
        ),
    ] {
        let told = wrong(&[&format!("[databases.a]\n[listeners.x]\n{keys}\n")]);
        assert!(
            told.len() == 1 && told[0].contains(expected) && !told[0].contains("hush"),
            "{keys}: {told:?}"
        );
    }
}

#[cfg(feature = "bluetooth")]
#[test]
fn adverts_are_as_the_section_says_or_what_is_wrong_is_told() {
    let section = |keys: &str| format!("[databases.a]\n[bluetooth.radio]\n{keys}\n");
    let config = right(&section(
        "advert-fast-for = \"10s\"\nadvert-slow-interval = \"5s\"\nadvert-silent-after = \"1m\"\n\
         advert-urgent-changes = 50\nadvert-urgent-collections = [\"plant.alarms\"]",
    ));
    let expected = AdvertPolicy {
        fast_for: Duration::from_secs(10),
        slow_interval: Duration::from_secs(5),
        silent_after: Some(Duration::from_secs(60)),
        urgent_changes: Some(50),
        urgent_collections: vec!["plant.alarms".into()],
        ..AdvertPolicy::default()
    };
    assert_eq!(config.databases["a"].bluetooth["radio"].adverts, expected);
    for (keys, expected) in [
        ("advert-slow-interval = \"1m\"", "radio.advert-slow-interval: an advertising interval of 60s"),
        ("advert-fast-interval = \"2s\"", "radio.advert-fast-interval: the fast interval of 2s is longer"),
        ("advert-silent-after = \"10ms\"", "radio.advert-silent-after: adverts change each 1s at most"),
        ("advert-fast-rest = \"soon\"", "radio.advert-fast-rest: \"soon\" is no such time"),
        ("advert-change-gap = \"0s\"", "radio.advert-change-gap: a time of"),
        ("advert-urgent-changes = 0", "radio.advert-urgent-changes: 0 cannot be used"),
    ] {
        let told = wrong(&[&section(keys)]);
        assert!(told.len() == 1 && told[0].contains(expected), "{keys}: {told:?}");
    }
}
