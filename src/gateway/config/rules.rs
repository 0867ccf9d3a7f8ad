//! Rules of retention as they are read, and what several sections of a database must agree in.

use super::section::Section;
use super::types::{BluetoothConfig, DatabaseConfig, RetentionConfig};
use crate::gateway::address::PlaceAddress;
use crate::node::retention::Rule;
use crate::node::retention::files::{FILES_MIN, FilesRule};
use crate::transport::stream::Address;

/// Keys of which a section needs one.
const LIMITS: [&str; 6] = ["age", "documents", "bytes", "files", "reserve", "tombstones"];

/// Notes collections that are none of the database's.
pub(super) fn are_known(section: &Section<'_>, collections: &[String], database: &DatabaseConfig) {
    let known = &database.node.collections;
    for collection in collections.iter().filter(|collection| !known.is_empty() && !known.contains(collection))
    {
        let right = format!("one of {}", known.join(", "));
        section.wrong("collections", format!("{collection} is none of the database's"), right);
    }
}

/// Notes if another adapter of the database moves documents in another direction: all of them visit the same neighbours.
pub(super) fn agrees(section: &Section<'_>, config: &BluetoothConfig, database: &DatabaseConfig) {
    let mut centrals = database.bluetooth.iter().filter(|(_, other)| config.is_central && other.is_central);
    if let Some((other, _)) = centrals.find(|(_, other)| other.direction != config.direction) {
        let key = if section.has("push") { "push" } else { "pull" };
        let what = format!("bluetooth.{other} moves documents in another direction");
        section.wrong(key, what, "the same push and pull for all adapters that visit neighbours");
    }
}

/// Notes if another section has rules for some of these collections.
pub(super) fn are_free(section: &Section<'_>, config: &RetentionConfig, database: &DatabaseConfig) {
    let is_shared = |other: &RetentionConfig| {
        let (ours, theirs) = (&config.collections, &other.collections);
        ours.is_empty() || theirs.is_empty() || ours.iter().any(|one| theirs.contains(one))
    };
    if let Some((other, _)) = database.retention.iter().find(|(_, other)| is_shared(other)) {
        let what = format!("retention.{other} is for some of these too");
        section.wrong("collections", what, "each collection in one section alone");
    }
}

/// Notes if the upstream whose confirmation is wanted will not give it.
pub(super) fn can_confirm(section: &Section<'_>, config: &RetentionConfig, database: &DatabaseConfig) {
    let Some(name) = &config.only_confirmed else { return };
    let names: Vec<&str> = database.upstreams.keys().map(String::as_str).collect();
    let right = match names.is_empty() {
        true => "an upstream of this database, in [upstreams.NAME]".to_owned(),
        false => format!("one of {}", names.join(", ")),
    };
    let Some(upstream) = database.upstreams.get(name) else {
        section.wrong("only-confirmed", format!("there is no upstream {name:?} of this database"), right);
        return;
    };
    if !upstream.direction.pushes() {
        let what = format!("upstreams.{name} is sent nothing, so it confirms nothing");
        section.wrong("only-confirmed", what, format!("push = true in upstreams.{name}"));
    }
    let ours = match config.collections.is_empty() {
        true => &database.node.collections,
        false => &config.collections,
    };
    let is_sent = |one: &&String| !upstream.collections.is_empty() && !upstream.collections.contains(one);
    if let Some(other) = ours.iter().find(is_sent) {
        let what = format!("{other} is not synced with upstreams.{name}, so nothing of it is ever confirmed");
        section.wrong("only-confirmed", what, format!("collections of upstreams.{name} alone"));
    } else if ours.is_empty() && !upstream.collections.is_empty() {
        let what = format!("upstreams.{name} gets some collections alone, and this section is for all");
        section.wrong("only-confirmed", what, format!("collections = [..], those of upstreams.{name}"));
    }
}

/// Notes if the reserve of the disk is never reached.
pub(super) fn can_be_kept(section: &Section<'_>, config: &RetentionConfig, database: &DatabaseConfig) {
    let keep_free = database.store.keep_free;
    if config.files.reserve.is_some_and(|reserve| reserve <= keep_free) {
        let what = format!("below keep-free of the database, {}, nothing is stored", shown_size(keep_free));
        section.wrong("reserve", what, "more than that, as \"1G\"");
    }
}

fn shown_size(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{}M", bytes >> 20) } else { bytes.to_string() }
}

pub(super) fn retention(section: &Section<'_>, collections: Vec<String>) -> RetentionConfig {
    let age = section.duration("age");
    let documents = section.has("documents").then(|| section.number("documents", 1, u64::MAX));
    // What is no size is told once.
    let size = |key: &str, min: u64| {
        let size = section.has(key).then(|| section.try_size(key)).flatten()?;
        if size < min {
            let right = format!("at least {}, as \"64M\"", shown_size(min));
            section.wrong(key, format!("{size} is too little"), right);
        }
        Some(size)
    };
    let bytes = size("bytes", 1);
    let files = FilesRule { files: size("files", FILES_MIN), reserve: size("reserve", 0) };
    if !LIMITS.iter().any(|key| section.has(key)) {
        section.wrong("age", "this keeps everything", format!("one or more of {}", LIMITS.join(", ")));
    }
    RetentionConfig {
        collections,
        rule: Rule { age, documents, bytes },
        files,
        only_confirmed: section.text("only-confirmed"),
        tombstones: section.duration("tombstones"),
    }
}

/// Whether the system chooses the port.
pub(super) fn is_any_port(address: &PlaceAddress) -> bool {
    match address {
        PlaceAddress::Stream(Address::Tcp(address)) => address.ends_with(":0"),
        #[cfg(feature = "websocket")]
        PlaceAddress::WebSocket(url) => url.port() == 0,
        _ => false,
    }
}
