//! Building a `revs` message.

use std::collections::HashMap;

use super::fold::{FoldRows, Row};
use super::format::{COARSE, Content, HISTORY_VERSIONS_MAX, SOURCES_MAX, flag, head, put, zigzag};
use crate::replica::revision::{SourceId, TREE_IDS_MAX, VERSIONS_MAX, VersionVector};
use crate::replica::store::Change;
use crate::replicator::extension::{REVS_ENTRIES_MAX, RevsFormat};

/// Builds a message, one revision after the other.
#[derive(Debug)]
pub struct RevsEncoder {
    format: RevsFormat,
    asked: bool,
    from: u64,
    count: usize,
    sources: Vec<SourceId>,
    /// Their numbers.
    source_numbers: HashMap<SourceId, usize>,
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
    /// Versions beside the current ones, tree IDs too.
    history_versions: usize,
    /// What goes into columns, if the peer reads them.
    rows: Option<FoldRows>,
}

impl RevsEncoder {
    /// An empty message.
    pub fn new(format: RevsFormat, asked: bool, from: u64) -> RevsEncoder {
        RevsEncoder {
            format,
            asked,
            from,
            count: 0,
            sources: Vec::new(),
            source_numbers: HashMap::new(),
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
            history_versions: 0,
            rows: (format >= RevsFormat::Folded).then(FoldRows::default),
        }
    }

    /// One whose authors are known.
    pub(super) fn of_sources(
        format: RevsFormat,
        asked: bool,
        from: u64,
        sources: &[SourceId],
    ) -> RevsEncoder {
        RevsEncoder { sources: sources.to_vec(), ..RevsEncoder::new(format, asked, from) }
    }

    /// Revisions so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes so far, roughly.
    pub fn size(&self) -> usize {
        self.bodies.len() + self.ids.len() + self.versions.len() + 2 * self.count + 16 * self.sources.len()
    }

    /// Whether another revision belongs into another message: one may have so many authors and versions that nobody would read it.
    pub fn is_full(&self) -> bool {
        self.count >= REVS_ENTRIES_MAX
            || self.sources.len() + VERSIONS_MAX > SOURCES_MAX
            || self.history_versions + VERSIONS_MAX + TREE_IDS_MAX > HISTORY_VERSIONS_MAX
    }

    /// Adds a revision.
    pub fn push(&mut self, change: &Change, content: &Content) {
        let mut flags = u8::from(change.deleted) * flag::DELETED;
        self.push_sequence(change.sequence, &mut flags);
        self.push_id(&change.id);
        match self.format {
            RevsFormat::Versions if !change.vector.trees.is_empty() => {
                self.push_vector(&change.vector.with_trees_as_versions(), &mut flags);
            }
            _ => self.push_vector(&change.vector, &mut flags),
        }
        match content {
            Content::Body(body) => {
                flags |= flag::BODY;
                put(&mut self.lengths, body.len() as u64);
                self.bodies.extend_from_slice(body);
            }
            Content::Offer => {}
            Content::Gone => flags |= flag::GONE,
        }
        self.end_row(flags);
    }

    /// Adds a revision of whose versions and body the parts are known.
    pub(super) fn push_row(&mut self, row: &Row<'_>) {
        let mut flags = row.flags;
        self.push_sequence(row.sequence, &mut flags);
        self.push_id(row.id);
        self.push_version(row.source, row.time, &mut flags);
        self.versions.extend_from_slice(row.further);
        if let Some(body) = row.body {
            put(&mut self.lengths, body.len() as u64);
            self.bodies.extend_from_slice(body);
        }
        self.end_row(flags);
    }

    fn end_row(&mut self, flags: u8) {
        if let Some(rows) = &mut self.rows {
            rows.push(
                flags,
                self.last_sequence,
                &self.last_id,
                (self.last_source, self.last_time),
                self.versions.len(),
            );
            rows.body_ends.push(self.bodies.len());
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
        self.push_version(source, vector.current.time, flags);
        self.push_history(vector, flags);
        self.push_trees(vector, flags);
    }

    fn push_version(&mut self, source: usize, time: u64, flags: &mut u8) {
        if source != self.last_source {
            *flags |= flag::AUTHOR;
            put(&mut self.versions, source as u64);
            self.last_source = source;
        }
        let step = time.wrapping_sub(self.last_time) as i64;
        if step % COARSE == 0 && step != 0 {
            *flags |= flag::COARSE;
            put(&mut self.versions, zigzag(step / COARSE));
        } else {
            put(&mut self.versions, zigzag(step));
        }
        self.last_time = time;
        if let Some(rows) = &mut self.rows {
            rows.further_from = self.versions.len();
        }
    }

    fn push_history(&mut self, vector: &VersionVector, flags: &mut u8) {
        if vector.merged.is_empty() && vector.history.is_empty() {
            return;
        }
        *flags |= flag::HISTORY;
        self.history_versions += vector.merged.len() + vector.history.len();
        put(&mut self.versions, vector.merged.len() as u64);
        put(&mut self.versions, vector.history.len() as u64);
        for version in vector.merged.iter().chain(&vector.history) {
            let source = self.source(version.source);
            put(&mut self.versions, source as u64);
            put(&mut self.versions, zigzag(version.time.wrapping_sub(vector.current.time) as i64));
        }
    }

    fn push_trees(&mut self, vector: &VersionVector, flags: &mut u8) {
        if vector.trees.is_empty() {
            return;
        }
        *flags |= flag::TREES;
        self.history_versions += vector.trees.len();
        put(&mut self.versions, vector.trees.len() as u64);
        for id in &vector.trees {
            put(&mut self.versions, id.generation().into());
            put(&mut self.versions, id.digest().len() as u64);
            self.versions.extend_from_slice(id.digest());
        }
    }

    /// The number of an author in this message.
    fn source(&mut self, source: SourceId) -> usize {
        // Nearly always it is the one that was named last.
        if let Some(last) = self.sources.len().checked_sub(1).filter(|last| self.sources[*last] == source) {
            return last;
        }
        let next = self.sources.len();
        let number = *self.source_numbers.entry(source).or_insert(next);
        if number == next {
            self.sources.push(source);
        }
        number
    }

    /// The message: the feed stands at `through` after it.
    pub fn finish(self, through: u64, last: bool) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.size() + 64 + self.count * 6);
        self.put_head(through, last, 0, &mut body);
        for column in [&self.flags, &self.sequences, &self.ids, &self.versions, &self.lengths, &self.bodies] {
            body.extend_from_slice(column);
        }
        body
    }
    fn put_head(&self, through: u64, last: bool, form: u8, body: &mut Vec<u8>) {
        body.push((u8::from(self.asked) * head::ASKED) | (u8::from(last) * head::LAST) | form);
        put(body, self.from);
        put(body, through.saturating_sub(self.from));
        put(body, self.count as u64);
        put(body, self.sources.len() as u64);
        for source in &self.sources {
            body.extend_from_slice(&source.0);
        }
    }

    /// Whether the peer reads folded messages.
    pub fn folds(&self) -> bool {
        self.rows.is_some()
    }

    /// The same message, folded: `None` if the peer does not read that, or it is text for the most part. There is one attempt.
    pub fn fold(&mut self, through: u64, last: bool) -> Option<Vec<u8>> {
        let mut rows = self.rows.take()?;
        let mut body = Vec::new();
        self.put_head(through, last, head::FOLDED, &mut body);
        rows.write(self.from, &self.versions, &self.bodies, body)
    }
}
