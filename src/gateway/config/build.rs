//! A configuration out of its sections, and what only shows when they are seen together.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{BLUETOOTH, DATABASES, GATEWAY, HTTP, KINDS, LISTENERS, RETENTION, UPSTREAMS, nearest};
#[cfg(not(feature = "mqtt"))]
use super::keys::{MQTT, SENSORS, TOPICS};
use super::problem::Problems;
use super::rules;
use super::section::Section;
use super::shared::{collections, secret, web_client, which_database};
use super::source::At;
use super::tree::Table;
use super::types::{
    BluetoothConfig, Config, DatabaseConfig, LinkLevel, ListenerConfig, NodeConfig, StoreConfig,
    UpstreamConfig,
};
use crate::database::Durability;
use crate::gateway::address::PlaceAddress;
use crate::gateway::web::WebServer;
use crate::replicator::{PeerQuota, ReplicatorType};
use crate::transport::stream::Address;

/// Peers wait as long for the answer, and give up one day: Couchbase Lite's own after some minutes.
const COMMIT_DELAY_MAX: Duration = Duration::from_secs(60);

/// Where state is without a service manager that says it.
const STATE_DIRECTORY: &str = "/var/lib/gattway";

/// Where what goes with the process is.
const RUNTIME_DIRECTORY: &str = "/run/gattway";

/// How long tombstones are kept if the configuration does not say it, as in `keys.rs`: for readers of what is wrong with it.
const TOMBSTONES: Duration = Duration::from_secs(366 * 24 * 3_600);

/// The socket's name there.
const SOCKET: &str = "control";

const UNKNOWN_ADDRESS: &str = "tcp:HOST:PORT, unix:PATH or ws://HOST:PORT/DATABASE";

/// The configuration, as far as it can be read. `whole`: all files were, so that what is missing is missing.
pub(super) fn config(root: &Table, problems: &Problems<'_>, whole: bool) -> Config {
    unknown_sections(root, problems);
    let gateway = Section::all(&GATEWAY, root, problems).into_iter().next().map(|(_, section)| section);
    let path = |key: &str| gateway.as_ref().and_then(|section| section.path(key));
    let state = path("state").unwrap_or_else(|| directory("STATE_DIRECTORY", STATE_DIRECTORY));
    let socket = path("socket").unwrap_or_else(default_socket);
    let cycles = gateway.as_ref().filter(|section| section.has("medium-cycles"));
    let medium_cycles = cycles.map(|section| section.number("medium-cycles", 1, 10_000_000));
    let http = Section::all(&HTTP, root, problems).into_iter().next();
    let http = http.and_then(|(_, section)| super::http::http(&section, secret(&section, "token")));
    let sections = Section::all(&DATABASES, root, problems);
    let mut databases: BTreeMap<String, DatabaseConfig> = BTreeMap::new();
    let mut paths: Vec<(PathBuf, String)> = Vec::new();
    for (name, section) in &sections {
        let config = database(name, section, &state);
        match paths.iter().find(|(path, _)| *path == config.store.path) {
            Some((_, other)) => {
                section.wrong("path", format!("it is the path of {other} too"), "a path of its own")
            }
            None => paths.push((config.store.path.clone(), name.clone())),
        }
        databases.insert(name.clone(), config);
    }
    if sections.is_empty() && whole {
        problems.add(At { file: 0, offset: 0 }, None, "there is no database", "write [databases.NAME]");
    }
    let mut places: Vec<(String, String)> = Vec::new();
    let mut once = |section: &Section<'_>, name: &str, key: &str, place: String, what: &str| match places
        .iter()
        .find(|(other, _)| *other == place)
    {
        Some((_, other)) => section.wrong(key, format!("{other} has {what} already"), "one of its own"),
        None => places.push((place, name.to_owned())),
    };
    for (name, section) in Section::all(&BLUETOOTH, root, problems) {
        let config = bluetooth(&section);
        once(&section, &name, "adapter", format!("ble:{}", config.adapter), "this adapter");
        if let Some(database) = which_database(&section, &mut databases) {
            rules::agrees(&section, &config, database);
            database.bluetooth.insert(name, config);
        }
    }
    for (name, section) in Section::all(&LISTENERS, root, problems) {
        let Some(config) = listener(&section) else { continue };
        let address = config.address.to_string();
        if !rules::is_any_port(&config.address) {
            once(&section, &name, "address", address, "this address");
        }
        if let Some(database) = which_database(&section, &mut databases) {
            database.listeners.insert(name, config);
        }
    }
    for (name, section) in Section::all(&UPSTREAMS, root, problems) {
        let Some(config) = upstream(&section) else { continue };
        if let Some(database) = which_database(&section, &mut databases) {
            rules::are_known(&section, &config.collections, database);
            database.upstreams.insert(name, config);
        }
    }
    for (name, section) in Section::all(&RETENTION, root, problems) {
        let config = rules::retention(&section, collections(&section));
        if let Some(database) = which_database(&section, &mut databases) {
            rules::are_known(&section, &config.collections, database);
            rules::are_free(&section, &config, database);
            rules::can_confirm(&section, &config, database);
            rules::can_be_kept(&section, &config, database);
            database.retention.insert(name, config);
        }
    }
    #[cfg(feature = "mqtt")]
    super::mqtt::read(root, problems, &mut databases);
    #[cfg(not(feature = "mqtt"))]
    for kind in [&MQTT, &TOPICS, &SENSORS] {
        for (_, section) in Section::all(kind, root, problems) {
            let right = "build it with the feature `mqtt`, or leave the section out";
            section.wrong(kind.keys[0].name, "this gattway was built without MQTT", right);
        }
    }
    Config { socket, state, medium_cycles, http, databases }
}

/// Where the socket is if nothing else is said.
pub(crate) fn default_socket() -> PathBuf {
    directory("RUNTIME_DIRECTORY", RUNTIME_DIRECTORY).join(SOCKET)
}

/// A directory that systemd names in the environment; the first, if it is a list.
fn directory(variable: &str, without: &str) -> PathBuf {
    let named = std::env::var_os(variable).unwrap_or_default();
    let first = named.as_encoded_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
    if first.is_empty() { PathBuf::from(without) } else { PathBuf::from(os(first)) }
}

fn os(bytes: &[u8]) -> &OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

fn unknown_sections(root: &Table, problems: &Problems<'_>) {
    for (name, entry) in &root.0 {
        if KINDS.iter().any(|kind| kind.name == name) {
            continue;
        }
        let right = match nearest(name, KINDS.iter().map(|kind| kind.name)) {
            Some(meant) => format!("perhaps {meant} is meant"),
            None => {
                let kinds = KINDS.map(|kind| match kind.example {
                    Some(_) => format!("[{}.NAME]", kind.name),
                    None => format!("[{}]", kind.name),
                });
                format!("sections are {}", kinds.join(", "))
            }
        };
        problems.add(entry.key_at, Some(name.clone()), "there is no such section", right);
    }
}

fn database(name: &str, section: &Section<'_>, state: &Path) -> DatabaseConfig {
    let path = state.join(section.text("path").unwrap_or_else(|| format!("{name}.db")));
    let durability = [("synced", Durability::Synced), ("relaxed", Durability::Relaxed)];
    let store = StoreConfig {
        path,
        durability: section.choice("durability", &durability).unwrap_or_default(),
        commit_delay: section.delay("commit-delay", COMMIT_DELAY_MAX),
        keep_free: section.size("keep-free"),
    };
    let (documents, bytes) = (section.number("peer-documents", 0, u64::MAX), section.size("peer-bytes"));
    let any = |limit: u64| if limit == 0 { u64::MAX } else { limit };
    let quota = (documents > 0 || bytes > 0).then(|| PeerQuota {
        revisions: any(documents),
        bytes: any(bytes),
        ..PeerQuota::default()
    });
    let node = NodeConfig {
        collections: collections(section),
        create_collections: section.flag("create-collections"),
        read_only: section.flag("read-only"),
        trust_all: section.flag("trust-all"),
        group: secret(section, "group"),
        connections: section.number("connections", 1, 10_000) as usize,
        quota,
    };
    let (listeners, bluetooth, upstreams, retention) = Default::default();
    let tombstones = section.duration("tombstones").unwrap_or(TOMBSTONES);
    DatabaseConfig {
        store,
        node,
        listeners,
        bluetooth,
        upstreams,
        retention,
        #[cfg(feature = "mqtt")]
        mqtt: BTreeMap::new(),
        tombstones,
    }
}

fn bluetooth(section: &Section<'_>) -> BluetoothConfig {
    let roles = section.choices("roles", &[("central", true), ("peripheral", false)]);
    let levels = [
        ("none", LinkLevel::None),
        ("encrypt", LinkLevel::Encrypt),
        ("authenticate", LinkLevel::Authenticate),
    ];
    if cfg!(not(feature = "bluetooth")) {
        let right = "build it with the feature `bluetooth`, or leave the section out";
        section.wrong("adapter", "this gattway was built without Bluetooth", right);
    }
    BluetoothConfig {
        adapter: section.text("adapter").unwrap_or_default(),
        is_central: roles.contains(&true),
        is_peripheral: roles.contains(&false),
        slots: section.number("slots", 1, u16::MAX.into()) as u16,
        direction: direction(section),
        spares_wifi: section.flag("spare-wifi"),
        advertise_name: section.flag("advertise-name"),
        link_security: section.choice("link-security", &levels).unwrap_or(LinkLevel::None),
        bonded_only: section.flag("bonded-only"),
        adverts: super::adverts::adverts(section),
    }
}

fn direction(section: &Section<'_>) -> ReplicatorType {
    match (section.flag("push"), section.flag("pull")) {
        (true, false) => ReplicatorType::Push,
        (false, true) => ReplicatorType::Pull,
        (true, true) => ReplicatorType::PushAndPull,
        (false, false) => {
            if section.has("push") && section.has("pull") {
                section.wrong("pull", "neither sends nor gets anything", "one of push and pull must be true");
            }
            ReplicatorType::PushAndPull
        }
    }
}

fn address(section: &Section<'_>, right: &str) -> Option<PlaceAddress> {
    let address = section.parsed("address", right, |text| text.parse::<PlaceAddress>())?;
    if address == PlaceAddress::Stream(Address::Stdio) {
        section.wrong("address", "a service has no standard input that a peer could use", right);
        return None;
    }
    Some(address)
}

fn listener(section: &Section<'_>) -> Option<ListenerConfig> {
    let web = WebServer {
        users: secret(section, "users"),
        tls_cert: section.path("tls-cert"),
        tls_key: section.path("tls-key"),
        tls_self_signed: section.flag("tls-self-signed"),
        client_roots: section.path("client-roots"),
    };
    let plain = section.flag("plain");
    let address = address(section, UNKNOWN_ADDRESS)?;
    match &address {
        PlaceAddress::Ble(_) => {
            section.wrong(
                "address",
                "a radio is no listener of its own",
                "write [bluetooth.NAME], with adapter = \"hci0\"",
            );
            return None;
        }
        PlaceAddress::Stream(_) if !web.is_empty() => {
            let what = "users and certificates are for ws:// and wss://";
            section.wrong("address", what, "another address, or leave those keys out");
        }
        PlaceAddress::Stream(_) => {}
        #[cfg(feature = "websocket")]
        PlaceAddress::WebSocket(url) => {
            use crate::gateway::web::{Unfit, WebError};
            use crate::gateway::web_files::check_fit;
            if let Err(WebError::Unfit { what, right }) = check_fit(&web, url) {
                section.wrong(
                    "address",
                    what,
                    match right {
                        Unfit::NeedsCertificate => "tls-self-signed = true, or tls-cert = \"FILE\"",
                        Unfit::NeedsTls => "wss://, or leave out the keys of TLS",
                    },
                );
            }
        }
    }
    if web.tls_key.is_some() && web.tls_cert.is_none() {
        section.wrong("tls-key", "a key alone is of no use", "tls-cert = \"FILE\" with it");
    }
    if web.tls_self_signed && web.tls_cert.is_some() {
        section.wrong("tls-self-signed", "there is tls-cert too", "one of the two");
    }
    if web.users.is_some() && web.client_roots.is_some() {
        section.wrong("client-roots", "there are users too", "one of the two");
    }
    let stamps = web.stamps();
    Some(ListenerConfig { address, plain, web, stamps })
}

fn upstream(section: &Section<'_>) -> Option<UpstreamConfig> {
    let web = web_client(section);
    let config = UpstreamConfig {
        plain: section.flag("plain"),
        collections: collections(section),
        direction: direction(section),
        every: section.duration("every"),
        retry_wait: section.duration("retry-wait").unwrap_or(Duration::from_secs(60)),
        heartbeat: section.duration("heartbeat"),
        peer: section.text("peer"),
        address: address(section, UNKNOWN_ADDRESS)?,
        stamps: web.stamps(),
        web,
    };
    match &config.address {
        PlaceAddress::Ble(peer) if peer.is_empty() || peer.eq_ignore_ascii_case("any") => {
            section.wrong(
                "address",
                "which device is not said",
                "ble:ADDRESS; for all neighbours write [bluetooth.NAME]",
            );
        }
        PlaceAddress::Stream(_) | PlaceAddress::Ble(_) if !config.web.is_empty() => {
            let what = "users, headers and certificates are for ws:// and wss://";
            section.wrong("address", what, "another address, or leave those keys out");
        }
        PlaceAddress::Ble(_) if config.heartbeat.is_some() => {
            section.wrong("heartbeat", "a radio link has its own", "leave it out");
        }
        _ => {}
    }
    Some(config)
}
