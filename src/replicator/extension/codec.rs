//! The body of a `revs` message: revisions in columns, so that like stands beside like when deflate sees it.
//!
//! Source: `firmware-notes/replication.md`, extension, byte tables.

use bytes::Bytes;

use super::REVS_ENTRIES_MAX;
use crate::blip::varint;
use crate::database::revision::{SourceId, VERSIONS_MAX, Version, VersionVector};
use crate::replicator::config::DOCUMENT_ID_MAX;
use crate::replicator::store::Change;

/// Flags of one revision.
mod flag {
    /// A tombstone.
    pub const DELETED: u8 = 0x01;
    /// Its body follows; otherwise it is an offer.
    pub const BODY: u8 = 0x02;
    /// Its sequence is not one more than that of the revision before.
    pub const SEQUENCE: u8 = 0x04;
    /// It has merged versions or a history.
    pub const HISTORY: u8 = 0x08;
    /// Its author is not that of the revision before.
    pub const AUTHOR: u8 = 0x10;
    /// Its time differs from that of the revision before by a multiple of [`super::COARSE`].
    pub const COARSE: u8 = 0x20;
    /// It was asked for and is not there any more.
    pub const GONE: u8 = 0x40;
}

/// Flags of a message.
mod head {
    /// The revisions were asked for; otherwise they come from the feed in its order.
    pub const ASKED: u8 = 0x01;
    /// The feed ends here for now.
    pub const LAST: u8 = 0x02;
}

/// The clock's own step: times that differ only by it are sent in units of it. The lower bits are a counter.
const COARSE: i64 = 1 << 16;

/// Authors one message may name.
const SOURCES_MAX: usize = 2 * VERSIONS_MAX;

/// Versions beside the current ones that all vectors of one message may hold together.
const HISTORY_VERSIONS_MAX: usize = 65_536;

/// A revision in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevEntry {
    /// Its place in the sender's feed.
    pub sequence: u64,
    /// The document's ID; not empty, at most [`DOCUMENT_ID_MAX`] bytes.
    pub id: String,
    /// The revision.
    pub vector: VersionVector,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// What comes with it.
    pub content: Content,
}

/// What comes with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its body as JSON text.
    Body(Bytes),
    /// Nothing yet: does the receiver want it?
    Offer,
    /// Nothing any more: a newer revision took its place, which comes later.
    Gone,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevsMessage {
    /// Whether the revisions were asked for.
    pub asked: bool,
    /// Whether the feed ends here for now.
    pub last: bool,
    /// Where the feed stood before this message.
    pub from: u64,
    /// Where it stands after: all changes in between are in this message or need not be sent.
    pub through: u64,
    /// The revisions.
    pub revisions: Vec<RevEntry>,
}

/// A message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {field}")]
pub struct CodecError {
    /// What was being read.
    pub field: &'static str,
}

/// Builds a message, one revision after the other.
#[derive(Debug)]
pub struct RevsEncoder {
    asked: bool,
    from: u64,
    count: usize,
    sources: Vec<SourceId>,
    flags: Vec<u8>,
    sequences: Vec<u8>,
    ids: Vec<u8>,
    versions: Vec<u8>,
    lengths: Vec<u8>,
    bodies: Vec<u8>,
    last_sequence: u64,
    last_id: String,
    last_time: u64,
    last_source: usize,
}

impl RevsEncoder {
    /// An empty message.
    pub fn new(asked: bool, from: u64) -> RevsEncoder {
        RevsEncoder {
            asked,
            from,
            count: 0,
            sources: Vec::new(),
            flags: Vec::new(),
            sequences: Vec::new(),
            ids: Vec::new(),
            versions: Vec::new(),
            lengths: Vec::new(),
            bodies: Vec::new(),
            last_sequence: from,
            last_id: String::new(),
            last_time: 0,
            last_source: usize::MAX,
        }
    }

    /// Revisions so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes so far, roughly.
    pub fn size(&self) -> usize {
        self.bodies.len() + self.ids.len() + self.versions.len() + 2 * self.count + 16 * self.sources.len()
    }

    /// Whether another revision belongs into another message: the table of authors might overflow.
    pub fn is_full(&self) -> bool {
        self.count >= REVS_ENTRIES_MAX || self.sources.len() + VERSIONS_MAX > SOURCES_MAX
    }

    /// Adds a revision.
    pub fn push(&mut self, change: &Change, content: &Content) {
        let mut flags = u8::from(change.deleted) * flag::DELETED;
        self.push_sequence(change.sequence, &mut flags);
        self.push_id(&change.id);
        self.push_vector(&change.vector, &mut flags);
        match content {
            Content::Body(body) => {
                flags |= flag::BODY;
                put(&mut self.lengths, body.len() as u64);
                self.bodies.extend_from_slice(body);
            }
            Content::Offer => {}
            Content::Gone => flags |= flag::GONE,
        }
        self.flags.push(flags);
        self.count += 1;
    }

    fn push_sequence(&mut self, sequence: u64, flags: &mut u8) {
        let step = sequence.wrapping_sub(self.last_sequence) as i64;
        if step != 1 {
            *flags |= flag::SEQUENCE;
            put(&mut self.sequences, zigzag(step));
        }
        self.last_sequence = sequence;
    }

    fn push_id(&mut self, id: &str) {
        let shared = id.bytes().zip(self.last_id.bytes()).take_while(|(a, b)| a == b).count();
        put(&mut self.ids, shared as u64);
        put(&mut self.ids, (id.len() - shared) as u64);
        self.ids.extend_from_slice(&id.as_bytes()[shared..]);
        self.last_id.clear();
        self.last_id.push_str(id);
    }

    fn push_vector(&mut self, vector: &VersionVector, flags: &mut u8) {
        let source = self.source(vector.current.source);
        if source != self.last_source {
            *flags |= flag::AUTHOR;
            put(&mut self.versions, source as u64);
            self.last_source = source;
        }
        let step = vector.current.time.wrapping_sub(self.last_time) as i64;
        if step % COARSE == 0 && step != 0 {
            *flags |= flag::COARSE;
            put(&mut self.versions, zigzag(step / COARSE));
        } else {
            put(&mut self.versions, zigzag(step));
        }
        self.last_time = vector.current.time;
        if vector.merged.is_empty() && vector.history.is_empty() {
            return;
        }
        *flags |= flag::HISTORY;
        put(&mut self.versions, vector.merged.len() as u64);
        put(&mut self.versions, vector.history.len() as u64);
        for version in vector.merged.iter().chain(&vector.history) {
            let source = self.source(version.source);
            put(&mut self.versions, source as u64);
            put(&mut self.versions, zigzag(version.time.wrapping_sub(vector.current.time) as i64));
        }
    }

    /// The number of an author in this message.
    fn source(&mut self, source: SourceId) -> usize {
        if let Some(known) = self.sources.iter().position(|s| *s == source) {
            return known;
        }
        self.sources.push(source);
        self.sources.len() - 1
    }

    /// The message: the feed stands at `through` after it.
    pub fn finish(self, through: u64, last: bool) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.size() + 64 + self.count * 6);
        body.push(u8::from(self.asked) * head::ASKED | u8::from(last) * head::LAST);
        put(&mut body, self.from);
        put(&mut body, through.saturating_sub(self.from));
        put(&mut body, self.count as u64);
        put(&mut body, self.sources.len() as u64);
        for source in &self.sources {
            body.extend_from_slice(&source.0);
        }
        for column in [&self.flags, &self.sequences, &self.ids, &self.versions, &self.lengths, &self.bodies] {
            body.extend_from_slice(column);
        }
        body
    }
}

/// Reads a message. Bodies are slices of `body`.
///
/// # Errors
/// [`CodecError`]; nothing of it may be used.
pub fn decode(body: &Bytes) -> Result<RevsMessage, CodecError> {
    let mut reader = Reader { bytes: body, at: 0 };
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
    for (n, (((sequence, id), vector), length)) in parts.enumerate() {
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
        revisions.push(RevEntry { sequence, id, vector, deleted: flags & flag::DELETED != 0, content });
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
    let mut last: Vec<u8> = Vec::with_capacity(DOCUMENT_ID_MAX);
    let one = |_| {
        let shared = reader.size(last.len(), field)?;
        let rest = reader.size(DOCUMENT_ID_MAX - shared, field)?;
        last.truncate(shared);
        last.extend_from_slice(reader.take(rest, field)?);
        let id = std::str::from_utf8(&last).map_err(|_| CodecError { field })?;
        if id.is_empty() { Err(CodecError { field }) } else { Ok(id.to_owned()) }
    };
    (0..count).map(one).collect()
}

fn read_vectors(
    reader: &mut Reader<'_>,
    count: usize,
    sources: &[SourceId],
    flag_of: impl Fn(usize) -> u8,
) -> Result<Vec<VersionVector>, CodecError> {
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
        if flags & flag::HISTORY != 0 {
            let merged = reader.size(VERSIONS_MAX - 1, field)?;
            let history = reader.size(VERSIONS_MAX - 1 - merged, field)?;
            history_versions += merged + history;
            if history_versions > HISTORY_VERSIONS_MAX {
                return Err(malformed);
            }
            for _ in 0..merged {
                vector.merged.push(reader.version(sources, last_time)?);
            }
            for _ in 0..history {
                vector.history.push(reader.version(sources, last_time)?);
            }
        }
        vectors.push(vector);
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

    fn version(&mut self, sources: &[SourceId], base: u64) -> Result<Version, CodecError> {
        let field = "history";
        let source = self.source(sources)?;
        let time = base.wrapping_add(unzigzag(self.number(field)?) as u64);
        if time == 0 { Err(CodecError { field }) } else { Ok(Version { time, source }) }
    }
}

/// Signed to unsigned so that small magnitudes stay small.
pub(super) fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(super) fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Appends a variable-length integer.
pub(super) fn put(out: &mut Vec<u8>, n: u64) {
    varint::put(n, out);
}

/// Reads a variable-length integer and moves `at` behind it.
pub(super) fn get(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let (n, rest) = varint::take(bytes.get(*at..)?, "revs").ok()?;
    *at = bytes.len() - rest.len();
    Some(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version() -> impl Strategy<Value = Version> {
        let time = prop_oneof![1u64.., (1u64..50).prop_map(|n| 0x18ea_7b9b_f01b_0000 + (n << 16)), 1u64..20];
        (time, 0u8..4).prop_map(|(time, source)| Version { time, source: SourceId([source; 16]) })
    }

    fn entry() -> impl Strategy<Value = RevEntry> {
        let vector =
            (version(), prop::collection::vec(version(), 0..3), prop::collection::vec(version(), 0..3))
                .prop_map(|(current, merged, history)| VersionVector { current, merged, history });
        let content = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|body| Content::Body(body.into())),
            Just(Content::Offer),
            Just(Content::Gone),
        ];
        (any::<u64>(), "[a-cé]{1,6}", vector, any::<bool>(), content).prop_map(
            |(sequence, id, vector, deleted, content)| RevEntry { sequence, id, vector, deleted, content },
        )
    }

    fn change(entry: &RevEntry) -> Change {
        Change {
            sequence: entry.sequence,
            id: entry.id.clone(),
            vector: entry.vector.clone(),
            deleted: entry.deleted,
            body_size: 0,
            remote_ancestor: None,
            body: None,
        }
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(
            revisions in prop::collection::vec(entry(), 0..20),
            from: u32,
            span: u32,
            asked: bool,
            last: bool,
        ) {
            let (from, through) = (u64::from(from), u64::from(from) + u64::from(span));
            let mut encoder = RevsEncoder::new(asked, from);
            revisions.iter().for_each(|entry| encoder.push(&change(entry), &entry.content));
            let body = Bytes::from(encoder.finish(through, last));
            let decoded = decode(&body);
            prop_assert_eq!(decoded, Ok(RevsMessage { asked, last, from, through, revisions }));
            // Cut anywhere, it is refused.
            for end in 0..body.len() {
                prop_assert!(decode(&body.slice(..end)).is_err());
            }
        }

        #[test]
        fn garbage_is_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }

    #[test]
    fn a_record_of_a_sensor_takes_few_bytes_beside_its_body() {
        let mut encoder = RevsEncoder::new(false, 100);
        for n in 0..300u64 {
            let time = 0x18ea_7b9b_f01b_0000 + (n << 16);
            let entry = RevEntry {
                sequence: 101 + n,
                id: format!("2010-01-{:02}T{:02}:00:00", 1 + n / 24, n % 24),
                vector: VersionVector::new(Version { time, source: SourceId([7; 16]) }),
                deleted: false,
                content: Content::Body(Bytes::from_static(b"{}")),
            };
            encoder.push(&change(&entry), &entry.content);
        }
        let beside = encoder.finish(400, false).len() - 2 * 300;
        assert!(beside < 300 * 15, "{beside} bytes for 300 revisions");
    }
}
