//! The file of one blob: its content in chunks, each with a checksum, so that no byte is given out unchecked.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `gwb1` |
//! | 8 | length of the content, little-endian |
//! | 4 | CRC-32 of the digest and the length |
//! | per chunk: up to 65,536 | content; only the last is shorter |
//! | 4 | CRC-32 of the chunk's number (8 bytes) and its content |
//!
//! The first 16 bytes of a part are zeros until it is whole.

use std::io;

use sha1::{Digest, Sha1};

use super::directory::{Access, Directory, OpenFile};
use crate::database::DatabaseError;
use crate::replica::blobs::BlobDigest;

/// Bytes of content under one checksum.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

const CRC_BYTES: usize = 4;
const HEADER_BYTES: u64 = 16;
const MAGIC: &[u8; 4] = b"gwb1";

/// Where a chunk begins in the file.
fn place(chunk: u64) -> u64 {
    HEADER_BYTES + chunk * (CHUNK_BYTES + CRC_BYTES) as u64
}

fn checksum(chunk: u64, content: &[u8]) -> [u8; CRC_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chunk.to_le_bytes());
    hasher.update(content);
    hasher.finalize().to_le_bytes()
}

fn header(digest: &BlobDigest, length: u64) -> [u8; HEADER_BYTES as usize] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&digest.0);
    hasher.update(&length.to_le_bytes());
    let mut header = [0; HEADER_BYTES as usize];
    header[..4].copy_from_slice(MAGIC);
    header[4..12].copy_from_slice(&length.to_le_bytes());
    header[12..].copy_from_slice(&hasher.finalize().to_le_bytes());
    header
}

/// A blob that is being written, from its beginning.
pub(super) struct Draft {
    file: OpenFile,
    sha1: Sha1,
    /// Bytes of content.
    length: u64,
    /// Those of the last chunk, which is not in the file yet.
    tail: Vec<u8>,
}

impl Draft {
    /// Begins a file, in the place of another.
    pub(super) fn create(directory: &Directory, name: &str) -> io::Result<Draft> {
        let file = directory.create(name)?;
        Ok(Draft { file, sha1: Sha1::new(), length: 0, tail: Vec::new() })
    }

    /// Goes on with a file behind its last sound chunk; `None` if there is no file.
    pub(super) fn resume(directory: &Directory, name: &str) -> io::Result<Option<Draft>> {
        let Some(file) = directory.open(name, Access::Write)? else { return Ok(None) };
        let mut draft = Draft { file, sha1: Sha1::new(), length: 0, tail: Vec::new() };
        let mut bytes = vec![0; CHUNK_BYTES + CRC_BYTES];
        for chunk in 0.. {
            // What cannot be read is written again.
            let Ok(read) = draft.file.read_up_to(&mut bytes, place(chunk)) else { break };
            let Some((content, crc)) = bytes[..read].split_last_chunk::<CRC_BYTES>() else { break };
            if content.is_empty() || *crc != checksum(chunk, content) {
                break;
            }
            draft.sha1.update(content);
            draft.length += content.len() as u64;
            if content.len() < CHUNK_BYTES {
                draft.tail.extend_from_slice(content);
                break;
            }
        }
        Ok(Some(draft))
    }

    /// Bytes of content.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Of the content so far.
    pub(super) fn digest(&self) -> BlobDigest {
        BlobDigest(self.sha1.clone().finalize().into())
    }

    /// Adds content. After an error the file holds no more than before for sure.
    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.tail.len()));
            self.sha1.update(now);
            self.tail.extend_from_slice(now);
            self.length += now.len() as u64;
            if self.tail.len() == CHUNK_BYTES {
                self.write_tail()?;
                self.tail.clear();
            }
            bytes = later;
        }
        Ok(())
    }

    fn write_tail(&self) -> io::Result<()> {
        let chunk = (self.length - self.tail.len() as u64) / CHUNK_BYTES as u64;
        let mut bytes = Vec::with_capacity(self.tail.len() + CRC_BYTES);
        bytes.extend_from_slice(&self.tail);
        bytes.extend_from_slice(&checksum(chunk, &self.tail));
        self.file.write_all_at(&bytes, place(chunk))
    }

    /// Writes what is in memory alone, so that it can be resumed.
    pub(super) fn park(&self) -> io::Result<()> {
        if self.tail.is_empty() { Ok(()) } else { self.write_tail() }
    }

    /// Makes it a whole blob on stable storage, but for its name.
    pub(super) fn complete(&self, digest: &BlobDigest) -> io::Result<()> {
        self.park()?;
        let chunks = self.length.div_ceil(CHUNK_BYTES as u64);
        // A longer file may have been there.
        self.file.set_bytes(HEADER_BYTES + self.length + chunks * CRC_BYTES as u64)?;
        self.file.write_all_at(&header(digest, self.length), 0)?;
        self.file.sync()
    }
}

/// A whole blob, open to be read.
#[derive(Debug)]
pub(crate) struct BlobFile {
    file: OpenFile,
    digest: BlobDigest,
    length: u64,
}

impl BlobFile {
    /// Opens the file of a blob; `None` if there is none.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] if it is not as long as it says, or says nothing.
    pub(super) fn open(
        directory: &Directory,
        name: &str,
        digest: &BlobDigest,
    ) -> Result<Option<BlobFile>, DatabaseError> {
        let Some(file) = directory.open(name, Access::Read)? else { return Ok(None) };
        let mut found = [0; HEADER_BYTES as usize];
        let read = file.read_up_to(&mut found, 0).map_err(|error| unreadable(digest, error))?;
        let length = u64::from_le_bytes(found[4..12].try_into().unwrap_or_default());
        let chunks = length.div_ceil(CHUNK_BYTES as u64);
        let expected =
            chunks.checked_mul(CRC_BYTES as u64).and_then(|crcs| length.checked_add(crcs + HEADER_BYTES));
        let is_sound =
            read == found.len() && found == header(digest, length) && expected == Some(file.bytes()?);
        if !is_sound {
            return Err(damaged(digest, "its length"));
        }
        Ok(Some(BlobFile { file, digest: *digest, length }))
    }

    pub(crate) fn digest(&self) -> &BlobDigest {
        &self.digest
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The content from `offset` to the end of its chunk, checked, into `content`; empty at the end.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`], or of the storage device.
    pub(crate) fn read_chunk(&self, offset: u64, content: &mut Vec<u8>) -> Result<(), DatabaseError> {
        content.clear();
        if offset >= self.length {
            return Ok(());
        }
        let chunk = offset / CHUNK_BYTES as u64;
        let begin = chunk * CHUNK_BYTES as u64;
        let len = (self.length - begin).min(CHUNK_BYTES as u64) as usize;
        content.resize(len + CRC_BYTES, 0);
        let read = self.file.read_up_to(content, place(chunk));
        let read = read.map_err(|error| unreadable(&self.digest, error))?;
        let is_sound = read == content.len()
            && content.split_last_chunk::<CRC_BYTES>().is_some_and(|(c, crc)| *crc == checksum(chunk, c));
        if !is_sound {
            content.clear();
            return Err(damaged(&self.digest, &format!("its bytes from {begin} on")));
        }
        content.truncate(len);
        content.drain(..(offset - begin) as usize);
        Ok(())
    }
}

fn damaged(digest: &BlobDigest, what: &str) -> DatabaseError {
    DatabaseError::Damaged { detail: format!("blob {digest}: {what}") }
}

/// A place of the medium that cannot be read any more is damage; it is whole again when it is written again.
fn unreadable(digest: &BlobDigest, error: io::Error) -> DatabaseError {
    match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::IO.raw_os_error() => damaged(digest, &error.to_string()),
        _ => DatabaseError::Io { action: "read a blob", source: error },
    }
}
