//! Rules of retention as they are read, and what several sections of a database must agree in.

use super::section::Section;
use super::types::{BluetoothConfig, DatabaseConfig, RetentionConfig};
use crate::node::retention::Rule;

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

pub(super) fn retention(section: &Section<'_>, collections: Vec<String>) -> RetentionConfig {
    let age = section.duration("age");
    let documents = section.has("documents").then(|| section.number("documents", 1, u64::MAX));
    let bytes = section.has("bytes").then(|| section.size("bytes"));
    if !["age", "documents", "bytes"].iter().any(|key| section.has(key)) {
        section.wrong("age", "this keeps everything", "age, documents or bytes, or all of them");
    }
    if bytes == Some(0) {
        section.wrong("bytes", "0 keeps nothing", "a number of bytes, as \"64M\"");
    }
    RetentionConfig { collections, rule: Rule { age, documents, bytes } }
}
