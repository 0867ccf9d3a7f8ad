//! Blobs that the peer asks for: read from the store piece by piece as they leave.

#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use sha1::{Digest, Sha1};

use super::FROM_PROPERTY;
use crate::blip::{Connection, ErrorReply, IncomingRequest, MessageNumber, OutgoingMessage};
use crate::replica::blobs::{BlobDigest, BlobState, blobs_in};
use crate::replica::store::{CollectionId, ReplicaStore, ReplicaStoreError};
use crate::replicator::config::{FilterInput, ReplicationFilter};
use crate::replicator::messages::refuse;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Longest blob that is proven to be here, in bytes: it is read whole for that while nothing else goes on.
const PROVEN_BYTES_MAX: u64 = 16 << 20;

/// Longest nonce of a proof, in bytes: its length is one byte of what is hashed.
const NONCE_BYTES_MAX: usize = 255;

/// A blob on its way to the peer.
#[derive(Debug)]
struct Going {
    digest: BlobDigest,
    /// Byte up to which it was given to the connection.
    at: u64,
    length: u64,
}

/// Blobs on their way to the peer, by its requests.
#[derive(Debug, Default)]
pub struct BlobsGiven {
    going: BTreeMap<MessageNumber, Going>,
}

/// A collection that the peer may read.
pub struct Readable<'c> {
    pub id: CollectionId,
    pub name: &'c str,
    /// What it refuses is kept back.
    pub filter: Option<&'c ReplicationFilter>,
}

/// How a request for a blob is answered.
pub enum Answer {
    /// With this, which is all.
    Whole(OutgoingMessage),
    /// With this, after which so many bytes follow.
    Begins(OutgoingMessage, u64),
}

impl BlobsGiven {
    /// Begins to answer a request for a blob that a document of this collection names.
    pub fn begin(
        &mut self,
        request: &IncomingRequest,
        collection: &Readable<'_>,
        store: &dyn ReplicaStore,
    ) -> Result<Result<Answer, ErrorReply>, ReplicaStoreError> {
        let (digest, length) = match asked_for(request, collection, store)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let asked_from = request.properties.get(FROM_PROPERTY).and_then(|from| from.parse::<u64>().ok());
        let from = asked_from.unwrap_or(0).min(length);
        let Some(first) = store.read_blob(&digest, from, PIECE_BYTES)? else {
            return Ok(Err(refuse::no_blob()));
        };
        let mut message = OutgoingMessage::default();
        if asked_from.is_some() {
            message = message.with(FROM_PROPERTY, &from.to_string());
        }
        message.compressed = request.properties.get_bool("compress");
        let at = from + first.len() as u64;
        let message = message.with_body(first);
        let rest = length.saturating_sub(at);
        Ok(Ok(if rest == 0 {
            Answer::Whole(message)
        } else {
            self.going.insert(request.number, Going { digest, at, length });
            Answer::Begins(message, rest)
        }))
    }

    /// Gives the connection what it can send next.
    ///
    /// # Errors
    /// A blob can be read no further. The peer counts on the rest, so the session has to end.
    pub fn feed(&mut self, blip: &mut Connection, store: &dyn ReplicaStore) -> Result<(), ReplicaStoreError> {
        while let Some(number) = blip.hungry() {
            let lost = |what: &str| ReplicaStoreError { message: what.to_owned(), recoverable: true };
            let Some(going) = self.going.get_mut(&number) else { return Err(lost("no blob for a reply")) };
            let most = (going.length - going.at).min(PIECE_BYTES as u64) as usize;
            let piece = store.read_blob(&going.digest, going.at, most)?.filter(|piece| !piece.is_empty());
            let Some(piece) = piece else {
                return Err(lost(&format!("blob {} is gone or damaged while it is sent", going.digest)));
            };
            going.at += piece.len() as u64;
            if going.at >= going.length {
                self.going.remove(&number);
            }
            blip.give(number, piece);
        }
        Ok(())
    }

    /// How many are on their way, for tests.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.going.len()
    }

    /// Forgets all: the session is over.
    pub fn clear(&mut self) {
        self.going.clear();
    }
}

/// Proves that a blob is here: the peer has sent a nonce, and gets a hash of it and the content.
pub fn prove(
    request: &IncomingRequest,
    collection: &Readable<'_>,
    store: &dyn ReplicaStore,
) -> Result<Result<OutgoingMessage, ErrorReply>, ReplicaStoreError> {
    if request.body.is_empty() || request.body.len() > NONCE_BYTES_MAX {
        return Ok(Err(ErrorReply::blip(400, "a nonce of 1 to 255 bytes is needed")));
    }
    let (digest, length) = match asked_for(request, collection, store)? {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    if length > PROVEN_BYTES_MAX {
        return Ok(Err(refuse::no_blob()));
    }
    let mut hash = Sha1::new();
    hash.update([request.body.len() as u8]);
    hash.update(&request.body);
    let mut at = 0;
    while at < length {
        let piece = store.read_blob(&digest, at, PIECE_BYTES)?.filter(|piece| !piece.is_empty());
        let Some(piece) = piece else { return Ok(Err(refuse::no_blob())) };
        hash.update(&piece);
        at += piece.len() as u64;
    }
    // Written as a digest is.
    let proof = BlobDigest(hash.finalize().into()).to_string();
    Ok(Ok(OutgoingMessage::default().with_body(proof)))
}

/// Digest and length of the blob of a request, if it is here and the document that the request names has it: who may read that
/// may read the blob, and no other.
fn asked_for(
    request: &IncomingRequest,
    collection: &Readable<'_>,
    store: &dyn ReplicaStore,
) -> Result<Result<(BlobDigest, u64), ErrorReply>, ReplicaStoreError> {
    let Some(digest) = request.properties.get("digest").and_then(|text| text.parse().ok()) else {
        return Ok(Err(refuse::digest()));
    };
    let id = request.properties.get("docID").unwrap_or_default();
    if id.is_empty() || store.is_expired(collection.id, id)? {
        return Ok(Err(refuse::no_blob()));
    }
    let document = store.document(collection.id, id)?.filter(|document| !document.deleted);
    let body = document.and_then(|document| document.body).unwrap_or_default();
    let input = FilterInput { collection: collection.name, id, deleted: false, body: &body };
    let may_go = collection.filter.is_none_or(|filter| filter(&input));
    let is_named = may_go && blobs_in(&body).iter().any(|blob| blob.digest == digest);
    match store.blob(&digest)? {
        BlobState::Whole(length) if is_named => Ok(Ok((digest, length))),
        _ => Ok(Err(refuse::no_blob())),
    }
}
