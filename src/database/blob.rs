//! Blobs: content of any kind and size that documents name, stored beside them.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::store::{BlobFile, NewBlob, Store};
use super::{Database, DatabaseError};
use crate::replica::blobs::BlobDigest;

/// What the member `@type` of a blob says.
const TYPE: &str = "blob";

/// Bytes of content that are read at a time.
const BYTES_AT_ONCE: usize = 64 << 10;

/// Documents that a list shows of each blob.
const DOCUMENTS_SHOWN_MAX: usize = 100;

/// The type of a blob of which none is known.
pub(crate) const TYPE_UNKNOWN: &str = "application/octet-stream";

/// A blob as a document names it: put it into a body, alone or as part of a type of your own.
/// ```
/// use std::io::Read;
///
/// use gattway::{Database, DatabaseConfig, database::Blob};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Inspection {
///     passed: bool,
///     picture: Blob,
/// }
///
/// # let directory = tempfile::tempdir()?;
/// let db = Database::open(directory.path().join("station.db"), DatabaseConfig::default())?;
/// let inspections = db.create_collection("plant.inspections")?;
/// let picture = db.save_blob(&b"JFIF..."[..], "image/jpeg")?;
/// inspections.put("boiler", &Inspection { passed: true, picture })?;
///
/// let boiler: Inspection = inspections.get_as("boiler")?.expect("it was put");
/// let mut content = Vec::new();
/// db.blob(boiler.picture.digest())?.expect("it is here").read_to_end(&mut content)?;
/// assert_eq!((content.as_slice(), boiler.picture.length()), (&b"JFIF..."[..], 7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    digest: String,
    length: u64,
    content_type: String,
}

impl Blob {
    /// `sha1-` and the SHA-1 of its content in base64.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes of its content.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its MIME type, as whoever saved it said.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("@type", TYPE)?;
        map.serialize_entry("content_type", &self.content_type)?;
        map.serialize_entry("digest", &self.digest)?;
        map.serialize_entry("length", &self.length)?;
        map.end()
    }
}

/// As it may stand in a document, whoever wrote it.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "@type")]
    kind: String,
    digest: String,
    #[serde(default)]
    length: u64,
    content_type: Option<String>,
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        let Named { kind, digest, length, content_type } = Named::deserialize(deserializer)?;
        if kind != TYPE {
            return Err(D::Error::custom("no blob: its `@type` is another"));
        }
        digest.parse::<BlobDigest>().map_err(D::Error::custom)?;
        let content_type = content_type.unwrap_or_else(|| TYPE_UNKNOWN.to_owned());
        Ok(Blob { digest, length, content_type })
    }
}

/// The content of a blob, to be read from any place on; each chunk of it is checked before a byte is given out. One that is
/// found damaged is an error of the kind [`io::ErrorKind::InvalidData`], and the blob is fetched anew from the next peer that
/// has it.
pub struct BlobReader {
    store: Arc<Store>,
    file: BlobFile,
    position: u64,
    /// Content from `position` on to the end of a chunk.
    chunk: Vec<u8>,
    /// How much of it was read.
    read: usize,
}

impl BlobReader {
    /// Bytes of its content.
    pub fn length(&self) -> u64 {
        self.file.length()
    }

    fn failed(&self, error: DatabaseError) -> io::Error {
        self.store.blobs().found_damaged(self.file.digest(), &error);
        match error {
            DatabaseError::Io { source, .. } => source,
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.read == self.chunk.len() {
            self.read = 0;
            let read = self.file.read_chunk(self.position, &mut self.chunk);
            read.map_err(|error| self.failed(error))?;
        }
        let left = self.chunk.get(self.read..).unwrap_or_default();
        let len = left.len().min(out.len());
        out[..len].copy_from_slice(&left[..len]);
        self.read += len;
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length().checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        self.chunk.clear();
        self.read = 0;
        Ok(self.position)
    }
}

/// A blob that is being saved; dropping it gives it up.
pub(crate) struct BlobWriter {
    store: Arc<Store>,
    new: NewBlob,
}

impl BlobWriter {
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), DatabaseError> {
        self.store.append_to(&mut self.new, bytes)
    }

    /// Makes it a whole one, durably.
    pub(crate) fn finish(self, content_type: &str) -> Result<Blob, DatabaseError> {
        let (digest, length) = self.store.complete_blob(&self.new)?;
        Ok(Blob { digest: digest.to_string(), length, content_type: content_type.to_owned() })
    }
}

/// A blob as a list has it.
pub(crate) struct BlobInfo {
    pub(crate) digest: String,
    /// Bytes; `None`: it is not here, or not whole.
    pub(crate) length: Option<u64>,
    /// The first documents that name it: collection and ID.
    pub(crate) documents: Vec<(String, String)>,
    /// How many more do.
    pub(crate) more: u64,
}

impl Database {
    /// Saves content that is read to its end, at most 1 GiB, as a blob that documents may name. It is on stable storage when
    /// this returns, and stays while a document names it, and for a day from now if none does. The same content is stored
    /// once. Memory: some 200 KiB, whatever the size.
    ///
    /// # Errors
    /// [`DatabaseError::BlobTooLarge`], [`DatabaseError::Full`], [`DatabaseError::Io`] also of `content`, or of the store.
    pub fn save_blob(&self, mut content: impl Read, content_type: &str) -> Result<Blob, DatabaseError> {
        let mut writer = self.blob_writer()?;
        let mut bytes = vec![0; BYTES_AT_ONCE];
        loop {
            match content.read(&mut bytes) {
                Ok(0) => return writer.finish(content_type),
                Ok(read) => writer.append(&bytes[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(DatabaseError::Io { action: "read what is to be a blob", source });
                }
            }
        }
    }

    /// Begins a blob whose content comes piece by piece.
    pub(crate) fn blob_writer(&self) -> Result<BlobWriter, DatabaseError> {
        Ok(BlobWriter { store: Arc::clone(&self.store), new: self.store.begin_blob()? })
    }

    /// The content of the blob with this digest; `None` if it is not here, or no digest.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] the first time that damage is found, [`DatabaseError::Io`].
    pub fn blob(&self, digest: &str) -> Result<Option<BlobReader>, DatabaseError> {
        let Ok(digest) = digest.parse::<BlobDigest>() else { return Ok(None) };
        let file = self.store.blobs().find(&digest)?;
        let reader = |file| BlobReader {
            store: Arc::clone(&self.store),
            file,
            position: 0,
            chunk: Vec::new(),
            read: 0,
        };
        Ok(file.map(reader))
    }

    /// All blobs that are here or that documents name, in the order of their digests.
    pub(crate) fn blobs(
        &self,
    ) -> Result<impl Iterator<Item = Result<BlobInfo, DatabaseError>>, DatabaseError> {
        let names: BTreeMap<_, _> =
            self.store.collections().into_iter().map(|(key, state)| (key, state.name.clone())).collect();
        let info = move |digest: BlobDigest| {
            let length = self.store.blobs().find(&digest)?.map(|file| file.length());
            let (named, more) = self.store.named_by(&digest, DOCUMENTS_SHOWN_MAX)?;
            let name = |(key, id)| (names.get(&key).cloned().unwrap_or_default(), id);
            let documents = named.into_iter().map(name).collect();
            Ok(BlobInfo { digest: digest.to_string(), length, documents, more })
        };
        Ok(self.store.known_blobs()?.into_iter().map(info))
    }

    /// Lets go what blobs are to go, as a thread does by itself; `false` if nothing can be said now.
    ///
    /// # Errors
    /// Of the store.
    #[cfg(any(test, feature = "simulation"))]
    #[doc(hidden)]
    pub fn sweep_blobs(&self) -> Result<bool, DatabaseError> {
        self.store.blobs().suspect_all();
        self.store.sweep_blobs()
    }

    /// The same of blobs that a document named before, unless all are to be looked at.
    ///
    /// # Errors
    /// Of the store.
    #[cfg(feature = "simulation")]
    #[doc(hidden)]
    pub fn sweep_suspected_blobs(&self) -> Result<bool, DatabaseError> {
        self.store.sweep_blobs()
    }
}
