//! Blobs in memory, as simple as the contract of `ReplicaStore` allows.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::replica::blobs::{BlobDigest, BlobState};

#[derive(Default)]
pub struct MemoryBlobs {
    /// Content, and whether it is whole.
    blobs: Mutex<BTreeMap<BlobDigest, (Vec<u8>, bool)>>,
    /// Bytes that came.
    pub received: Mutex<u64>,
}

pub fn digest_of(content: &[u8]) -> BlobDigest {
    BlobDigest(Sha1::digest(content).into())
}

impl MemoryBlobs {
    pub fn save(&self, content: &[u8]) -> BlobDigest {
        let digest = digest_of(content);
        self.blobs.lock().unwrap().insert(digest, (content.to_vec(), true));
        digest
    }

    /// Puts other content in the place of a blob.
    pub fn forge(&self, digest: BlobDigest, content: &[u8]) {
        self.blobs.lock().unwrap().insert(digest, (content.to_vec(), true));
    }

    pub fn remove(&self, digest: &BlobDigest) {
        self.blobs.lock().unwrap().remove(digest);
    }

    /// All that are whole.
    pub fn whole(&self) -> BTreeMap<BlobDigest, Vec<u8>> {
        let blobs = self.blobs.lock().unwrap();
        blobs.iter().filter(|(_, (_, whole))| *whole).map(|(d, (content, _))| (*d, content.clone())).collect()
    }

    /// How many are not whole.
    pub fn parts(&self) -> usize {
        self.blobs.lock().unwrap().values().filter(|(_, whole)| !whole).count()
    }

    pub fn state(&self, digest: &BlobDigest) -> BlobState {
        match self.blobs.lock().unwrap().get(digest) {
            Some((content, true)) => BlobState::Whole(content.len() as u64),
            Some((content, false)) => BlobState::Part(content.len() as u64),
            None => BlobState::Part(0),
        }
    }

    pub fn read(&self, digest: &BlobDigest, offset: u64, limit: usize) -> Option<Bytes> {
        let blobs = self.blobs.lock().unwrap();
        let (content, _) = blobs.get(digest).filter(|(_, whole)| *whole)?;
        let start = content.len().min(offset as usize);
        Some(Bytes::copy_from_slice(&content[start..content.len().min(start + limit)]))
    }

    pub fn append(&self, digest: &BlobDigest, offset: u64, bytes: &[u8]) -> u64 {
        *self.received.lock().unwrap() += bytes.len() as u64;
        let mut blobs = self.blobs.lock().unwrap();
        let (content, whole) = blobs.entry(*digest).or_default();
        if !*whole && let Some(known) = content.len().checked_sub(offset as usize) {
            content.extend_from_slice(bytes.get(known..).unwrap_or_default());
        }
        content.len() as u64
    }

    pub fn finish(&self, digest: &BlobDigest) -> bool {
        let mut blobs = self.blobs.lock().unwrap();
        let Some((content, whole)) = blobs.get_mut(digest) else { return false };
        if !*whole && digest_of(content) != *digest {
            blobs.remove(digest);
            return false;
        }
        *whole = true;
        true
    }
}
