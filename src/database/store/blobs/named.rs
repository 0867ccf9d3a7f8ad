//! Which blobs a document names.

use crate::database::packed::{Names, Unpacker};
use crate::replica::blobs::BlobDigest;
use crate::replica::blobs_in;

/// What the text of each digest begins with. A body has texts as they are, but for that of the document's own ID.
const DIGEST_PREFIX: &[u8] = b"sha1-";

/// The blobs that a packed body names; none also of one that is damaged.
pub(in super::super) fn blobs_of(names: &Names, id: &str, body: &[u8]) -> Vec<BlobDigest> {
    let has = |text: &[u8]| memchr::memmem::find(text, DIGEST_PREFIX).is_some();
    // Most bodies name none, and this is cheaper than unpacking them.
    if !has(body) && !has(id.as_bytes()) {
        return Vec::new();
    }
    let json = Unpacker::new(names, id).json(body).unwrap_or_default();
    blobs_in(&json).into_iter().map(|blob| blob.digest).collect()
}
