//! A checkpoint as it is stored: `00`, time of the last write (8, LE), owner (16), what is kept. Without the zero it is of an
//! earlier release, and nobody's.

use super::pieces::join_pieces;

/// Most checkpoints that one collection keeps. Each one that is new looks at all, so tests have fewer.
pub(crate) const CHECKPOINTS_MAX: usize = if cfg!(test) { 96 } else { 4096 };
/// Most of them that one peer has: one for each way in which it syncs.
pub(crate) const PEER_CHECKPOINTS_MAX: usize = 16;

const MARK: u8 = 0;
const OWNER_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + 8 + OWNER_BYTES;

/// Whose a checkpoint is: the beginning of the name that a peer has proven, which nobody else can make his own; zeros for
/// those who prove none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct CheckpointOwner([u8; OWNER_BYTES]);

impl CheckpointOwner {
    pub(crate) fn of_peer(uid: &str) -> CheckpointOwner {
        let mut owner = [0; OWNER_BYTES];
        owner.iter_mut().zip(uid.bytes()).for_each(|(to, from)| *to = from);
        CheckpointOwner(owner)
    }
}

/// What is kept, without what says whose it is; `None` if it is damaged.
pub(crate) fn content(stored: &[u8]) -> Option<&[u8]> {
    match stored.first()? {
        &MARK => stored.get(HEAD_BYTES..),
        _ => Some(stored),
    }
}

pub(super) fn with_head(owner: CheckpointOwner, written: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + content.len());
    bytes.push(MARK);
    bytes.extend_from_slice(&written.to_le_bytes());
    bytes.extend_from_slice(&owner.0);
    bytes.extend_from_slice(content);
    bytes
}

/// A checkpoint that is there.
pub(super) struct Found {
    pub(super) key: Vec<u8>,
    pub(super) owner: CheckpointOwner,
    pub(super) written: u64,
    /// Values that it is stored in.
    pub(super) pieces: u16,
}

impl Found {
    pub(super) fn new(key: &[u8], first: &[u8]) -> Found {
        let head = join_pieces(first).map(|(start, _)| start);
        let head = head.and_then(|start| start.first_chunk::<HEAD_BYTES>()).filter(|head| head[0] == MARK);
        let (mut owner, mut written) = ([0; OWNER_BYTES], [0; 8]);
        if let Some(head) = head {
            written.copy_from_slice(&head[1..9]);
            owner.copy_from_slice(&head[9..]);
        }
        Found {
            key: key.to_vec(),
            owner: CheckpointOwner(owner),
            written: u64::from_le_bytes(written),
            pieces: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_releases_kept_is_read() {
        let old = postcard::to_stdvec(&(7u64, b"body".as_slice())).expect("bytes");
        assert_eq!(content(&old), Some(old.as_slice()));
        let new = with_head(CheckpointOwner::of_peer("peer"), 9, &old);
        assert_eq!(content(&new), Some(old.as_slice()));
        assert_eq!(content(&new[..HEAD_BYTES - 1]), None);
        assert_eq!(content(&[]), None);
    }
}
