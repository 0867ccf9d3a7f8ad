//! What a log still holds: every page that can be read, entry by entry in order of the keys, and the ranges of keys that are
//! lost.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;

use super::super::super::ground::Pair;
use super::format::{Bytes, Kind, Node, Page, next_message, node};
use super::survey::Survey;

/// Name that sled gives to the tree that a database has without asking.
const TREE_NAME: &[u8] = b"__sled__default";

/// Deepest tree that is followed; sled's are three or four levels deep.
const LEVELS_MAX: usize = 32;

/// A range of keys that can no longer be read: from, and up to (excluded; empty for the end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::database::store) struct Lost {
    pub(in crate::database::store) from: Vec<u8>,
    pub(in crate::database::store) to: Vec<u8>,
}

impl Lost {
    /// Whether it touches the keys from `from` up to `to`.
    pub(in crate::database::store) fn touches(&self, from: &[u8], to: &[u8]) -> bool {
        *self.from < *to && (self.to.is_empty() || *self.to > *from)
    }

    fn holds(&self, key: &[u8]) -> bool {
        *self.from <= *key && (self.to.is_empty() || *self.to > *key)
    }
}

/// A page with entries.
struct Leaf {
    lo: Box<[u8]>,
    hi: Box<[u8]>,
    page: u64,
}

/// The readable pages of a surveyed log. Memory: some 100 bytes a page of a few KiB.
pub(in crate::database::store) struct Salvage {
    survey: Survey,
    /// In order of `lo`.
    leaves: Vec<Leaf>,
    lost: Vec<Lost>,
}

impl Survey {
    /// Checks that every page of the tree can be reached and has a place, which sled takes for granted. Reads the upper
    /// levels only.
    ///
    /// # Errors
    /// Of the operating system.
    pub(in crate::database::store) fn check_tree(&mut self) -> io::Result<()> {
        if self.pages.is_empty() {
            return Ok(());
        }
        let root = match self.page_body(0)? {
            Some((Kind::Meta, body)) => root_of(&body),
            _ => None,
        };
        let Some(root) = root else {
            self.find("db", None, "the root of the tree");
            return Ok(());
        };
        let mut level = vec![root];
        for _ in 0..LEVELS_MAX {
            let mut below = Vec::new();
            for &page in &level {
                match self.node(page)? {
                    Some(node) => below.extend_from_slice(node.children()),
                    None => self.find("db", None, format!("page {page} of the tree")),
                }
            }
            for &page in &below {
                if !matches!(self.pages.get(page as usize), Some(Page::Present(_))) {
                    self.find("db", None, format!("no trace of page {page}, which the tree names"));
                }
            }
            let Some(&first) = below.first() else { return Ok(()) };
            if self.node(first)?.is_none_or(|node| node.children().is_empty()) {
                return Ok(());
            }
            level = below;
        }
        self.find("db", None, "the tree does not end");
        Ok(())
    }

    /// The body of a page that is never changed in part.
    fn page_body(&self, page: u64) -> io::Result<Option<(Kind, Vec<u8>)>> {
        match self.pages.get(page as usize) {
            Some(Page::Present(places)) if places.len() == 1 => self.body(page, places[0]),
            _ => Ok(None),
        }
    }

    /// A page of the tree with all its changes; `None` if any of it cannot be read.
    fn node(&self, page: u64) -> io::Result<Option<Node>> {
        let Some(Page::Present(places)) = self.pages.get(page as usize) else { return Ok(None) };
        let mut found: Option<Node> = None;
        for &place in places {
            match (self.body(page, place)?, &mut found) {
                (Some((Kind::Node, body)), None) => found = node(&body),
                (Some((Kind::Link, body)), Some(node)) => {
                    if node.apply(&body).is_none() {
                        return Ok(None);
                    }
                }
                _ => return Ok(None),
            }
        }
        Ok(found)
    }
}

fn root_of(meta: &[u8]) -> Option<u64> {
    let mut reader = Bytes(meta);
    while !reader.0.is_empty() {
        let len = reader.number()?;
        let name = reader.take(usize::try_from(len).ok()?)?;
        let root = reader.number()?;
        if name == TREE_NAME {
            return Some(root);
        }
    }
    None
}

impl Salvage {
    /// Reads every page that is in use. What cannot be read becomes a finding of the survey, and a lost range.
    ///
    /// # Errors
    /// Of the operating system.
    pub(in crate::database::store) fn read(mut survey: Survey) -> io::Result<Salvage> {
        let (mut leaves, mut linked) = (Vec::new(), HashSet::new());
        for page in 0..survey.pages.len() as u64 {
            let Page::Present(places) = &survey.pages[page as usize] else { continue };
            let places = places.clone();
            if let [place] = places[..]
                && let Some((Kind::Meta | Kind::Counter, body)) = survey.body(page, place)?
            {
                linked.extend(root_of(&body));
                continue;
            }
            let Some(node) = survey.node(page)? else {
                let mut offsets = Vec::new();
                for &place in &places {
                    if survey.body(page, place)?.is_none() {
                        offsets.push(place.offset);
                    }
                }
                survey.find("db", offsets.first().copied(), format!("page {page}"));
                continue;
            };
            linked.extend(node.children());
            linked.extend(node.next);
            if node.children().is_empty() {
                leaves.push(Leaf { lo: node.lo.into(), hi: node.hi.into(), page });
            }
        }
        leaves.sort_by(|a, b| a.lo.cmp(&b.lo));
        let (mut leaves, loose): (Vec<Leaf>, Vec<Leaf>) =
            leaves.into_iter().partition(|leaf| linked.contains(&leaf.page));
        let mut lost = if survey.pages.is_empty() { Vec::new() } else { gaps(&leaves) };
        if !lost.is_empty() {
            // A page whose neighbours are all damaged is linked to by none that can be read.
            leaves.extend(loose.into_iter().filter(|leaf| lost.iter().any(|lost| lost.holds(&leaf.lo))));
            leaves.sort_by(|a, b| a.lo.cmp(&b.lo));
            lost = gaps(&leaves);
        }
        Ok(Salvage { survey, leaves, lost })
    }

    pub(in crate::database::store) fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Whether what is read of a page may be older than what was there.
    pub(in crate::database::store) fn is_torn(&self) -> bool {
        self.survey.is_torn
    }

    /// The ranges of keys that cannot be read.
    pub(in crate::database::store) fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// The pages with entries, in order of their first keys: first key, key after the last (empty: none), number. Two that
    /// sled was merging overlap; the first of them has all.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (&[u8], &[u8], u64)> {
        self.leaves.iter().map(|leaf| (&*leaf.lo, &*leaf.hi, leaf.page))
    }

    /// The entries of a page, in order; `None` if it cannot be read.
    pub(super) fn entries(&self, page: u64) -> io::Result<Option<Vec<Pair>>> {
        Ok(self.survey.node(page)?.map(Node::into_entries))
    }

    /// Visits the readable entries from `from` up to `to` in order until `visit` breaks.
    ///
    /// # Errors
    /// Of the operating system, and what `visit` returns.
    pub(in crate::database::store) fn scan<E: From<io::Error>>(
        &self,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut next = from.to_vec();
        // The first page that can hold `from`: pages may overlap while sled merges two.
        let start = self.leaves.partition_point(|leaf| !leaf.hi.is_empty() && *leaf.hi <= *from);
        for leaf in &self.leaves[start..] {
            if *leaf.lo >= *to {
                break;
            }
            let Some(node) = self.survey.node(leaf.page)? else { continue };
            for (key, value) in node.into_entries() {
                if key < next {
                    continue;
                }
                if *key >= *to || visit(&key, &value)?.is_break() {
                    return Ok(());
                }
                next = key;
                next.push(0);
            }
            if *leaf.hi > *next {
                next = leaf.hi.to_vec();
            }
        }
        Ok(())
    }

    /// Visits the entries of all pages that were ever written whole and still stand somewhere in the log, in no order:
    /// of a table that only grows, an old copy is as good.
    ///
    /// # Errors
    /// Of the operating system.
    pub(in crate::database::store) fn scan_old(&self, mut visit: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut buffer = Vec::new();
        for offset in self.survey.offsets()? {
            self.survey.read_segment(offset, &mut buffer)?;
            let mut at = 0;
            while let Some((place, found)) = next_message(&buffer, at) {
                if found.kind == Kind::Node && !found.is_blob {
                    let entries = node(found.body).map(Node::into_entries).unwrap_or_default();
                    entries.iter().for_each(|(key, value)| visit(key, value));
                }
                at = place + found.len;
            }
        }
        Ok(())
    }
}

/// The ranges between pages, in order of `lo`, that no page has.
fn gaps(leaves: &[Leaf]) -> Vec<Lost> {
    let mut gaps = Vec::new();
    let mut reached: &[u8] = &[];
    for leaf in leaves {
        if *leaf.lo > *reached {
            gaps.push(Lost { from: reached.to_vec(), to: leaf.lo.to_vec() });
        }
        if leaf.hi.is_empty() {
            return gaps;
        }
        reached = reached.max(&leaf.hi);
    }
    gaps.push(Lost { from: reached.to_vec(), to: Vec::new() });
    gaps
}
