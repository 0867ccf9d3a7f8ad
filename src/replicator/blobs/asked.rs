//! Blobs that the peer is asked for: their content goes to the store as it comes.

#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::FROM_PROPERTY;
use crate::blip::{OutgoingMessage, Properties};
use crate::replica::blobs::{BlobDigest, BlobName, BlobState};
use crate::replica::store::{ReplicaStore, ReplicaStoreError};
use crate::replicator::messages::profile;

/// Blobs that are asked for at one time. The peer sends them in turns, so more would only make each slower.
const ASKED_MAX: usize = 4;

/// Beginnings of types whose content is compressed already.
const COMPRESSED_TYPES: [&str; 3] = ["image/", "video/", "audio/"];

/// Words in types of which the same is true.
const COMPRESSED_WORDS: [&str; 5] = ["zip", "compressed", "zstd", "x-xz", "x-7z"];

/// A blob that a document names.
#[derive(Clone, Debug)]
pub struct WantedBlob {
    /// Index of the document's collection.
    pub collection: usize,
    /// The document's ID.
    pub id: String,
    pub name: BlobName,
}

/// A blob whose content is on its way.
#[derive(Debug)]
struct Coming {
    /// From which byte on it was asked for.
    from: u64,
    /// Where the next of it belongs; `None` until the answer says where it begins.
    at: Option<u64>,
    /// Its length, if the document says one.
    length: Option<u64>,
}

/// What of the peer's blobs is asked for, and what is still to be.
#[derive(Debug, Default)]
pub struct BlobsAsked {
    waiting: VecDeque<WantedBlob>,
    coming: BTreeMap<BlobDigest, Coming>,
    /// All of both.
    known: BTreeSet<BlobDigest>,
    /// Other documents that name those: the peer gives a blob for a document that names it, and may have changed the one it was
    /// asked for.
    others: BTreeMap<BlobDigest, VecDeque<WantedBlob>>,
}

/// What to do next about a blob.
pub enum Next {
    /// Ask for it with this; the collection is to be named.
    Ask(OutgoingMessage, usize, BlobDigest),
    /// It has come meanwhile.
    IsHere(BlobDigest),
}

impl BlobsAsked {
    /// Adds one; where it is asked for already, for another document, only if that fails.
    pub fn want(&mut self, wanted: WantedBlob) {
        if self.known.insert(wanted.name.digest) {
            self.waiting.push_back(wanted);
        } else {
            self.others.entry(wanted.name.digest).or_default().push_back(wanted);
        }
    }

    /// The peer does not give one for the document that it was asked for. Whether it will be asked for another.
    pub fn refused(&mut self, digest: &BlobDigest) -> bool {
        let other = self.others.get_mut(digest).and_then(VecDeque::pop_front);
        let Some(other) = other else {
            self.over(digest);
            return false;
        };
        self.coming.remove(digest);
        self.waiting.push_front(other);
        true
    }

    /// What to do next; nothing while enough are on their way.
    pub fn next(&mut self, store: &dyn ReplicaStore) -> Result<Option<Next>, ReplicaStoreError> {
        if self.coming.len() >= ASKED_MAX {
            return Ok(None);
        }
        let Some(WantedBlob { collection, id, name }) = self.waiting.pop_front() else { return Ok(None) };
        let digest = name.digest;
        let from = match store.blob(&digest)? {
            BlobState::Whole(_) => {
                self.over(&digest);
                return Ok(Some(Next::IsHere(digest)));
            }
            BlobState::Part(length) => length,
        };
        let mut message = OutgoingMessage::request(profile::GET_ATTACHMENT)
            .with("digest", &digest.to_string())
            .with("docID", &id);
        if is_compressible(name.content_type.as_deref()) {
            message = message.with("compress", "true");
        }
        if from > 0 {
            message = message.with(FROM_PROPERTY, &from.to_string());
        }
        self.coming.insert(digest, Coming { from, at: None, length: name.length });
        Ok(Some(Next::Ask(message, collection, digest)))
    }

    /// A part of one has come. `properties`: those of the answer, with its first part.
    pub fn came(
        &mut self,
        digest: &BlobDigest,
        properties: Option<&Properties>,
        bytes: &[u8],
        store: &dyn ReplicaStore,
    ) -> Result<(), ReplicaStoreError> {
        let Some(coming) = self.coming.get_mut(digest) else { return Ok(()) };
        if let Some(properties) = properties {
            let from = properties.get(FROM_PROPERTY).and_then(|from| from.parse().ok());
            coming.at = Some(from.filter(|from| *from == coming.from).unwrap_or(0));
        }
        let Some(at) = &mut coming.at else { return Ok(()) };
        let end = *at + bytes.len() as u64;
        // More than the document says is not that blob, whatever comes.
        if coming.length.is_none_or(|length| end <= length) {
            store.append_blob(digest, *at, bytes)?;
        }
        *at = end;
        Ok(())
    }

    /// Whether a part of one has come.
    pub fn has_begun(&self, digest: &BlobDigest) -> bool {
        self.coming.get(digest).is_some_and(|coming| coming.at.is_some())
    }

    /// It need not be asked for any more.
    pub fn over(&mut self, digest: &BlobDigest) {
        self.known.remove(digest);
        self.coming.remove(digest);
        self.others.remove(digest);
    }

    /// Forgets all: the session is over.
    pub fn clear(&mut self) {
        *self = BlobsAsked::default();
    }
}

/// Whether content of a type may become smaller.
fn is_compressible(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return true };
    let content_type = content_type.to_ascii_lowercase();
    content_type == "image/svg+xml"
        || (!COMPRESSED_TYPES.iter().any(|begin| content_type.starts_with(begin))
            && !COMPRESSED_WORDS.iter().any(|word| content_type.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicator::memory_blobs::digest_of;
    use crate::replicator::memory_store::MemoryStore;

    /// The peer may have changed the document for which it is asked first.
    #[test]
    fn what_the_peer_does_not_give_for_one_document_is_asked_for_another() {
        let (store, digest, mut asked) = (MemoryStore::new(1), digest_of(b"content"), BlobsAsked::default());
        for id in ["changed", "unchanged"] {
            let name = BlobName { digest, length: None, content_type: None };
            asked.want(WantedBlob { collection: 0, id: id.into(), name });
        }
        for (id, is_last) in [("changed", false), ("unchanged", true)] {
            let Ok(Some(Next::Ask(message, ..))) = asked.next(&store) else { panic!("not asked for {id}") };
            assert_eq!(message.properties.get("docID"), Some(id));
            assert!(asked.next(&store).is_ok_and(|next| next.is_none()), "one at a time");
            assert_eq!(asked.refused(&digest), !is_last);
        }
        assert!(asked.next(&store).is_ok_and(|next| next.is_none()), "nobody has it");
    }

    #[test]
    fn what_is_compressed_already_is_not_to_be_again() {
        for content_type in ["text/plain", "application/json", "application/octet-stream", "image/svg+xml"] {
            assert!(is_compressible(Some(content_type)), "{content_type}");
        }
        assert!(is_compressible(None));
        for content_type in ["image/jpeg", "IMAGE/PNG", "application/zip", "application/gzip", "video/mp4"] {
            assert!(!is_compressible(Some(content_type)), "{content_type}");
        }
    }
}
