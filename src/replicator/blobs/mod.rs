//! Blobs on their way: what documents name and a store lacks is asked for before the documents are stored, and what a peer
//! lacks is given to it piece by piece.
//!
//! A peer is asked by `getAttachment`, which any peer answers with the whole blob. If a part of it is here, from a session that was cut
//! off, the request says so in [`FROM_PROPERTY`]; a peer that knows it gives the rest alone and says so in its answer.
//! Source: `firmware-notes/replication.md`, blobs.

#![deny(clippy::disallowed_methods)]

pub(super) mod asked;
pub(super) mod given;
pub(super) mod stubs;

/// Name of the property of a request, and of the answer to it, that says at which byte of the blob the answer begins.
pub const FROM_PROPERTY: &str = "gattway-from";

/// Name of the property of a reply to a list by which a peer says that it finds blobs wherever they stand in a document.
pub const FINDS_BLOBS: &str = "blobs";
