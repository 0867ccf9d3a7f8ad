//! Reading a `revs` message of a peer. Every number in it is checked.

use bytes::Bytes;

use super::format::{
    Beginning, COARSE, CodecError, Content, HISTORY_VERSIONS_MAX, RevEntry, RevsMessage, SOURCES_MAX, flag,
    get, head, unzigzag,
};
use super::unfold::unfold;
use crate::replica::revision::{
    RevisionError, SourceId, TREE_IDS_MAX, TreeId, VERSIONS_MAX, Version, VersionVector,
};
use crate::replicator::extension::{REVS_ENTRIES_MAX, REVS_ID_BYTES_MAX};

/// Reads a message. Bodies are slices of `body`, or of what it unfolds to.
///
/// # Errors
/// [`CodecError`]; nothing of it may be used.
pub fn decode(body: &Bytes) -> Result<RevsMessage, CodecError> {
    let mut reader = Reader { bytes: body, at: 0 };
    let beginning = read_head(&mut reader)?;
    if beginning.flags & head::FOLDED == 0 {
        return read_plain(body, reader, beginning);
    }
    // It is a message as ever once it is unfolded.
    let plain = unfold(&beginning, &body[reader.at..]).ok_or(CodecError { field: "columns" })?;
    let plain = Bytes::from(plain);
    let mut reader = Reader { bytes: &plain, at: 0 };
    let beginning = read_head(&mut reader)?;
    read_plain(&plain, reader, beginning)
}

fn read_head(reader: &mut Reader<'_>) -> Result<Beginning, CodecError> {
    let flags = reader.take(1, "head")?[0];
    let from = reader.number("feed position")?;
    let through =
        from.checked_add(reader.number("feed position")?).ok_or(CodecError { field: "feed position" })?;
    let count = reader.size(REVS_ENTRIES_MAX, "number of revisions")?;
    let sources = reader.size(SOURCES_MAX, "number of authors")?;
    let sources: Vec<SourceId> = reader
        .take(16 * sources, "authors")?
        .chunks_exact(16)
        .map(|chunk| {
            let mut id = [0; 16];
            id.copy_from_slice(chunk);
            SourceId(id)
        })
        .collect();
    Ok(Beginning { flags, from, through, count, sources })
}

fn read_plain(body: &Bytes, mut reader: Reader<'_>, beginning: Beginning) -> Result<RevsMessage, CodecError> {
    let Beginning { flags, from, through, count, sources } = beginning;
    let flags_at = reader.at;
    reader.take(count, "flags")?;
    let flag_of = |n: usize| body[flags_at + n];

    let mut revisions = Vec::with_capacity(count);
    let sequences = read_sequences(&mut reader, count, from, flag_of)?;
    let ids = read_ids(&mut reader, count)?;
    let vectors = read_vectors(&mut reader, count, &sources, flag_of)?;
    let lengths = read_lengths(&mut reader, count, flag_of)?;
    let mut at = reader.at;
    let parts = sequences.into_iter().zip(ids).zip(vectors).zip(lengths);
    for (n, (((sequence, id), (vector, refused)), length)) in parts.enumerate() {
        let flags = flag_of(n);
        let content = match length {
            Some(length) => {
                let end = at
                    .checked_add(length)
                    .filter(|end| *end <= body.len())
                    .ok_or(CodecError { field: "bodies" })?;
                let content = Content::Body(body.slice(at..end));
                at = end;
                content
            }
            None if flags & flag::GONE != 0 => Content::Gone,
            None => Content::Offer,
        };
        let deleted = flags & flag::DELETED != 0;
        revisions.push(RevEntry { sequence, id, vector, deleted, content, refused });
    }
    if at != body.len() {
        return Err(CodecError { field: "end" });
    }
    Ok(RevsMessage {
        asked: flags & head::ASKED != 0,
        last: flags & head::LAST != 0,
        from,
        through,
        revisions,
    })
}

fn read_sequences(
    reader: &mut Reader<'_>,
    count: usize,
    from: u64,
    flag_of: impl Fn(usize) -> u8,
) -> Result<Vec<u64>, CodecError> {
    let mut last = from;
    let one = |n: usize| {
        let step = if flag_of(n) & flag::SEQUENCE != 0 { unzigzag(reader.number("sequence")?) } else { 1 };
        last = last.wrapping_add(step as u64);
        Ok(last)
    };
    (0..count).map(one).collect()
}

fn read_ids(reader: &mut Reader<'_>, count: usize) -> Result<Vec<String>, CodecError> {
    let field = "document ID";
    let mut last: Vec<u8> = Vec::with_capacity(REVS_ID_BYTES_MAX);
    let one = |_| {
        let shared = reader.size(last.len(), field)?;
        let rest = reader.size(REVS_ID_BYTES_MAX - shared, field)?;
        last.truncate(shared);
        last.extend_from_slice(reader.take(rest, field)?);
        let id = std::str::from_utf8(&last).map_err(|_| CodecError { field })?;
        if id.is_empty() { Err(CodecError { field }) } else { Ok(id.to_owned()) }
    };
    (0..count).map(one).collect()
}

/// A vector, and why it is not accepted.
type ReadVector = (VersionVector, Option<RevisionError>);

fn read_vectors(
    reader: &mut Reader<'_>,
    count: usize,
    sources: &[SourceId],
    flag_of: impl Fn(usize) -> u8,
) -> Result<Vec<ReadVector>, CodecError> {
    let field = "version";
    let malformed = CodecError { field };
    let (mut last_time, mut last_source, mut history_versions) = (0u64, None, 0usize);
    let mut vectors = Vec::with_capacity(count);
    for n in 0..count {
        let flags = flag_of(n);
        if flags & flag::AUTHOR != 0 {
            last_source = Some(reader.source(sources)?);
        }
        let source = last_source.ok_or(malformed)?;
        let step = unzigzag(reader.number(field)?);
        let step = if flags & flag::COARSE != 0 { step.wrapping_mul(COARSE) } else { step };
        last_time = last_time.wrapping_add(step as u64);
        if last_time == 0 {
            return Err(malformed);
        }
        let mut vector = VersionVector::new(Version { time: last_time, source });
        let mut refused = None;
        if flags & flag::HISTORY != 0 {
            let merged = reader.size(HISTORY_VERSIONS_MAX, field)?;
            let history = reader.size(HISTORY_VERSIONS_MAX, field)?;
            history_versions += merged + history;
            if history_versions > HISTORY_VERSIONS_MAX {
                return Err(malformed);
            }
            let count = 1 + merged + history;
            let is_too_long = count > VERSIONS_MAX;
            for n in 0..merged + history {
                let version = reader.version(sources, last_time)?;
                match n < merged {
                    // Read over: it is refused alone.
                    _ if is_too_long => {}
                    true => vector.merged.push(version),
                    false => vector.history.push(version),
                }
            }
            refused = match is_too_long {
                true => Some(RevisionError::TooManyVersions { max: VERSIONS_MAX, actual: count }),
                false => vector.check_authors().err(),
            };
        }
        if flags & flag::TREES != 0 {
            let trees = reader.size(TREE_IDS_MAX, field)?;
            history_versions += trees;
            for _ in 0..trees {
                vector.trees.push(reader.tree()?);
            }
        }
        vectors.push((vector, refused));
    }
    Ok(vectors)
}

fn read_lengths(
    reader: &mut Reader<'_>,
    count: usize,
    flag_of: impl Fn(usize) -> u8,
) -> Result<Vec<Option<usize>>, CodecError> {
    let one = |n: usize| {
        let body = flag_of(n) & flag::BODY != 0;
        if body { reader.size(reader.bytes.len(), "body length").map(Some) } else { Ok(None) }
    };
    (0..count).map(one).collect()
}

/// Reads integers and slices, never beyond the end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], CodecError> {
        let end =
            self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(CodecError { field })?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    fn number(&mut self, field: &'static str) -> Result<u64, CodecError> {
        get(self.bytes, &mut self.at).ok_or(CodecError { field })
    }

    /// A number of at most `max`.
    fn size(&mut self, max: usize, field: &'static str) -> Result<usize, CodecError> {
        let number = self.number(field)?;
        usize::try_from(number).ok().filter(|n| *n <= max).ok_or(CodecError { field })
    }

    fn source(&mut self, sources: &[SourceId]) -> Result<SourceId, CodecError> {
        let field = "author";
        let number = self.size(SOURCES_MAX, field)?;
        sources.get(number).copied().ok_or(CodecError { field })
    }

    fn tree(&mut self) -> Result<TreeId, CodecError> {
        let field = "tree ID";
        let generation = u32::try_from(self.number(field)?).map_err(|_| CodecError { field })?;
        let len = self.size(self.bytes.len(), field)?;
        TreeId::new(generation, self.take(len, field)?).ok_or(CodecError { field })
    }

    fn version(&mut self, sources: &[SourceId], base: u64) -> Result<Version, CodecError> {
        let field = "history";
        let source = self.source(sources)?;
        let time = base.wrapping_add(unzigzag(self.number(field)?) as u64);
        if time == 0 { Err(CodecError { field }) } else { Ok(Version { time, source }) }
    }
}
