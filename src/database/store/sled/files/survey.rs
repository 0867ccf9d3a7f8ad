//! What a log holds: its segments in order, where each page stands, and what is damaged. One file, because it
//! follows one recovery of sled's step by step.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::super::super::ground::SEGMENT_BYTES;
use super::format::{
    Kind, MESSAGE_HEADER_BYTES_MAX, Message, Page, Place, SEGMENT, SEGMENT_HEADER_BYTES, Snapshot, blob,
    message, next_message, segment_header, snapshot,
};

/// Findings kept; further ones are only counted.
const FINDINGS_MAX: usize = 100;

/// Most pages a table may have: a damaged number must not allocate. 64 Mi pages of a few KiB are more than sled handles.
const PAGES_MAX: u64 = 1 << 26;

/// Segments at the end of a log that a crash may have left in any state: the one that was written and the one begun.
const TORN_SEGMENTS_MAX: u64 = 2;

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::database::store) struct Finding {
    /// File within the log's directory.
    pub(in crate::database::store) file: String,
    /// Byte in the file, if it is a place.
    pub(in crate::database::store) offset: Option<u64>,
    pub(in crate::database::store) what: String,
}

/// What was read of a log.
pub(in crate::database::store) struct Survey {
    directory: PathBuf,
    file: File,
    /// Offset of each segment whose header is whole, by its log sequence number.
    segments: BTreeMap<u64, u64>,
    /// Where each page stands, by its number.
    pub(super) pages: Vec<Page>,
    /// Log sequence number after the last whole message.
    end: u64,
    /// Offsets of the segments that have no header that can be read.
    headless: Vec<u64>,
    findings: Vec<Finding>,
    findings_count: u64,
    /// Whether messages that the pages were made of could not be read: of any page there may have been a newer state.
    pub(in crate::database::store) is_torn: bool,
}

/// Where reading a run of segments came to an end.
#[derive(Default)]
struct Walk {
    /// Number after the last message read; `None` if no segment was.
    next: Option<u64>,
    /// Places in the middle of a segment from which on it could not be read: its number and the byte within.
    tears: Vec<(u64, usize)>,
}

impl Survey {
    /// Reads the log in `directory`. The file must not be written to meanwhile.
    ///
    /// # Errors
    /// Of the operating system. What is damaged is a finding.
    pub(in crate::database::store) fn read(directory: &Path) -> io::Result<Survey> {
        let mut survey = Survey {
            directory: directory.to_owned(),
            file: File::open(directory.join("db"))?,
            segments: BTreeMap::new(),
            pages: Vec::new(),
            end: 0,
            headless: Vec::new(),
            findings: Vec::new(),
            findings_count: 0,
            is_torn: false,
        };
        survey.read_settings()?;
        let snapshot = survey.read_snapshot()?;
        let first = snapshot.stable.unwrap_or(0) / SEGMENT * SEGMENT;
        let stable = survey.read_headers(first)?;
        survey.pages = snapshot.pages;
        let end = survey.find_end(first.max(stable / SEGMENT * SEGMENT))?;
        if end > 0 && end < snapshot.stable.unwrap_or(0) {
            let offset = survey.segments.get(&(end / SEGMENT * SEGMENT)).map(|offset| offset + end % SEGMENT);
            survey.find("db", offset, "unreadable, before the end that the table of pages names");
        }
        let walk = survey.replay(snapshot.stable.unwrap_or(0), end)?;
        survey.end = walk.next.unwrap_or(first).max(snapshot.stable.unwrap_or(0));
        survey.judge(&walk, first)?;
        Ok(survey)
    }

    pub(in crate::database::store) fn find(
        &mut self,
        file: &str,
        offset: Option<u64>,
        what: impl Into<String>,
    ) {
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { file: file.to_owned(), offset, what: what.into() });
        }
    }

    /// What is damaged, as far as listed, and how much there is in all.
    pub(in crate::database::store) fn findings(&self) -> (&[Finding], u64) {
        (&self.findings, self.findings_count)
    }

    /// Offsets of the segments that were begun last, and of those without a header that can be read, which sled may have
    /// emptied just now.
    pub(in crate::database::store) fn newest(&self, count: usize) -> Vec<u64> {
        self.segments.values().rev().take(count).chain(&self.headless).copied().collect()
    }

    /// Number after the last whole message.
    pub(in crate::database::store) fn end(&self) -> u64 {
        self.end
    }

    /// A digest of where each page stands and of where the log is said to end: two logs with the same have the same content, as far as
    /// their messages can be read.
    pub(in crate::database::store) fn digest(&self, end: u64) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut add = |tag: u8, place: &Place| {
            hasher.update(&[tag]);
            hasher.update(&place.lsn.to_le_bytes());
            hasher.update(&place.offset.to_le_bytes());
        };
        for page in &self.pages {
            match page {
                Page::Unknown => add(0, &Place { lsn: 0, offset: 0 }),
                Page::Free(place) => add(1, place),
                Page::Present(places) => {
                    add(2, &Place { lsn: places.len() as u64, offset: 0 });
                    places.iter().for_each(|place| add(3, place));
                }
            }
        }
        add(4, &Place { lsn: end, offset: 0 });
        hasher.finalize()
    }

    fn read_settings(&mut self) -> io::Result<()> {
        /// Files up to this size count as not written yet; sled writes them anew.
        const EMPTY_BYTES_MAX: usize = 8;
        let Some(bytes) = read_if_there(&self.directory.join("conf"))? else { return Ok(()) };
        let whole = bytes
            .split_last_chunk::<4>()
            .is_some_and(|(text, crc)| crc32fast::hash(text).to_le_bytes() == *crc);
        if bytes.len() > EMPTY_BYTES_MAX && !whole {
            self.find(
                "conf",
                None,
                "the settings of the log; they are known and written anew at the next open",
            );
        }
        Ok(())
    }

    /// Whether only the settings are damaged, which hold nothing of ours.
    pub(in crate::database::store) fn is_only_settings(&self) -> bool {
        self.findings_count > 0 && self.findings.iter().all(|finding| finding.file == "conf")
    }

    /// Makes the table of pages anew of everything that can be read, also behind what cannot: for a log that sled shall
    /// not open, of which the most is to be saved.
    ///
    /// # Errors
    /// Of the operating system.
    pub(in crate::database::store) fn replay_all(&mut self) -> io::Result<()> {
        let (snapshot, _) = self.load_snapshot()?;
        let snapshot = snapshot.unwrap_or_default();
        let (stable, mut pages) = (snapshot.stable.unwrap_or(0), snapshot.pages);
        let mut buffer = Vec::new();
        for offset in self.headless.clone() {
            self.read_segment(offset, &mut buffer)?;
            let found = next_message(&buffer, SEGMENT_HEADER_BYTES);
            let lsn = found.map(|(_, message)| message.segment.saturating_mul(SEGMENT));
            if let Some(lsn) = lsn.filter(|lsn| *lsn < u64::MAX / 4) {
                self.segments.entry(lsn).or_insert(offset);
            }
        }
        for (&lsn, &offset) in self.segments.range(stable / SEGMENT * SEGMENT..) {
            self.read_segment(offset, &mut buffer)?;
            let mut at = SEGMENT_HEADER_BYTES;
            while at <= SEGMENT_BYTES - MESSAGE_HEADER_BYTES_MAX && at < buffer.len() {
                let Some(message) = message(&buffer, at).filter(|m| m.segment == lsn / SEGMENT) else {
                    at += 1;
                    continue;
                };
                let place = Place { lsn: lsn + at as u64, offset: offset + at as u64 };
                match message.kind {
                    Kind::Cap => break,
                    Kind::Canceled | Kind::Batch => {}
                    _ if place.lsn >= stable => apply(&mut pages, place, &message),
                    _ => {}
                }
                at += message.len;
            }
        }
        self.pages = pages;
        self.is_torn = true;
        Ok(())
    }

    /// The newest snapshot, as sled chooses it.
    fn read_snapshot(&mut self) -> io::Result<Snapshot> {
        let (snapshot, name) = self.load_snapshot()?;
        if snapshot.is_none() && !name.is_empty() {
            self.find(&name, None, "the table of pages; the log itself says what it said");
        }
        Ok(snapshot.unwrap_or_default())
    }

    /// The newest snapshot if it is whole, and the name of its file; empty if there is none.
    fn load_snapshot(&self) -> io::Result<(Option<Snapshot>, String)> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // One that was being written when the power went is no snapshot yet.
            if name.starts_with("snap.") && !name.ends_with(".generating") {
                names.push(name);
            }
        }
        names.sort_unstable();
        let Some(name) = names.pop() else { return Ok((None, String::new())) };
        let bytes = fs::read(self.directory.join(&name))?;
        Ok((snapshot(&bytes).filter(|s| s.pages.iter().all(|page| self.fits(page))), name))
    }

    /// Whether the places of a page can be places of a log.
    fn fits(&self, page: &Page) -> bool {
        let fits = |place: &Place| {
            let within = place.offset % SEGMENT;
            place.lsn % SEGMENT == within && within >= SEGMENT_HEADER_BYTES as u64
        };
        match page {
            Page::Unknown => false,
            Page::Free(_) => true,
            Page::Present(places) => !places.is_empty() && places.iter().all(fits),
        }
    }

    /// Reads the header of each segment; gives the newest number that one calls stable, of segments from `first` on.
    fn read_headers(&mut self, first: u64) -> io::Result<u64> {
        let mut stable = first as i64;
        let len = self.file.metadata()?.len();
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let mut doubles = Vec::new();
        for offset in (0..len).step_by(SEGMENT_BYTES) {
            if len - offset < SEGMENT_HEADER_BYTES as u64 {
                break;
            }
            self.file.read_exact_at(&mut bytes, offset)?;
            let Some(header) = segment_header(&bytes) else {
                self.headless.push(offset);
                continue;
            };
            if header.lsn >= first {
                stable = stable.max(header.stable);
            }
            if let Some(other) = self.segments.insert(header.lsn, offset) {
                doubles.push((offset, other));
            }
        }
        for (offset, other) in doubles {
            self.find("db", Some(offset), format!("a segment that is there twice, also at byte {other}"));
        }
        Ok(u64::try_from(stable).unwrap_or(0))
    }

    /// Number after the last whole message of the unbroken run of segments from `lowest` on.
    fn find_end(&self, lowest: u64) -> io::Result<u64> {
        let mut expected = lowest;
        let (mut run, mut missing) = (Vec::new(), None);
        for (&lsn, &offset) in self.segments.range(lowest..) {
            if lsn != expected {
                missing = Some(expected);
                break;
            }
            run.push((lsn, offset));
            expected += SEGMENT;
        }
        let walk = self.walk(&run, missing, true, |_, _| ())?;
        Ok(walk.next.unwrap_or(0))
    }

    /// Brings the table of pages from the snapshot to the end.
    fn replay(&mut self, stable: u64, end: u64) -> io::Result<Walk> {
        let first = stable / SEGMENT * SEGMENT;
        let run: Vec<(u64, u64)> =
            self.segments.range(first..).map(|(&lsn, &offset)| (lsn, offset)).collect();
        let mut pages = std::mem::take(&mut self.pages);
        let walk = self.walk(&run, Some(end.saturating_sub(1)), false, |place, message| {
            if place.lsn >= stable {
                apply(&mut pages, place, message);
            }
        });
        self.pages = pages;
        walk
    }

    /// Visits the messages of segments in order, up to a number; a segment that cannot be read on ends the walk, or only
    /// itself.
    fn walk(
        &self,
        run: &[(u64, u64)],
        max: Option<u64>,
        ends_at_tear: bool,
        mut visit: impl FnMut(Place, &Message<'_>),
    ) -> io::Result<Walk> {
        let mut walk = Walk::default();
        let mut buffer = Vec::new();
        for &(lsn, offset) in run {
            if max.is_some_and(|max| lsn > max) {
                break;
            }
            self.read_segment(offset, &mut buffer)?;
            let mut at = SEGMENT_HEADER_BYTES;
            walk.next = Some(lsn + at as u64);
            while at <= SEGMENT_BYTES - MESSAGE_HEADER_BYTES_MAX {
                let number = lsn + at as u64;
                if max.is_some_and(|max| number > max) {
                    return Ok(walk);
                }
                let Some(message) = message(&buffer, at).filter(|m| m.segment == lsn / SEGMENT) else {
                    walk.tears.push((lsn, at));
                    if ends_at_tear {
                        return Ok(walk);
                    }
                    break;
                };
                match message.kind {
                    Kind::Cap => break,
                    Kind::Canceled => {}
                    Kind::Batch => {
                        let last = message.body.try_into().map(i64::from_le_bytes).unwrap_or(i64::MAX);
                        if max.is_some_and(|max| last > max as i64) {
                            return Ok(walk);
                        }
                    }
                    _ => visit(Place { lsn: number, offset: offset + at as u64 }, &message),
                }
                at += message.len;
                walk.next = Some(lsn + at as u64);
            }
        }
        Ok(walk)
    }

    /// Reads a segment, shorter at the end of the file.
    pub(in crate::database::store) fn read_segment(
        &self,
        offset: u64,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        buffer.resize(SEGMENT_BYTES, 0);
        let len = read_up_to(&self.file, buffer, offset)?;
        buffer.truncate(len);
        Ok(())
    }

    /// Tells damage from what a crash leaves. A crash tears the end of the log, and a segment whose content was no longer
    /// needed and that was being written anew; so a tear is damage if what it hides is still needed.
    fn judge(&mut self, walk: &Walk, first: u64) -> io::Result<()> {
        let mut buffer = Vec::new();
        let tip = self.end.saturating_sub(1) / SEGMENT * SEGMENT;
        for &(lsn, at) in &walk.tears {
            let Some(&offset) = self.segments.get(&lsn) else { continue };
            self.read_segment(offset, &mut buffer)?;
            let needed = if lsn == tip { None } else { self.needed(&buffer, at, Some(lsn / SEGMENT), 0) };
            if let Some(found) = needed {
                let what = format!("unreadable up to byte {}, and needed", offset + found as u64);
                self.find("db", Some(offset + at as u64), what);
            }
        }
        for offset in self.headless.clone() {
            self.read_segment(offset, &mut buffer)?;
            if let Some(found) = self.needed(&buffer, SEGMENT_HEADER_BYTES, None, first / SEGMENT) {
                let what = format!(
                    "the head of a segment whose content at byte {} is needed",
                    offset + found as u64
                );
                self.find("db", Some(offset), what);
            }
        }
        let len = self.file.metadata()?.len();
        let beyond = |page: &&Page| matches!(page, Page::Present(places) if places.iter().any(|place| place.offset >= len));
        let beyond = self.pages.iter().filter(beyond).count();
        if beyond > 0 {
            self.find("db", Some(len), format!("the log is cut off: {beyond} pages stood beyond its end"));
        }
        if let Some(page) = self.pages.iter().position(|page| *page == Page::Unknown) {
            self.find("db", None, format!("no trace of page {page}"));
        }
        if self.segments.keys().next_back().is_some_and(|&last| last > tip + TORN_SEGMENTS_MAX * SEGMENT) {
            self.find("db", None, format!("the log breaks off at number {}, and goes on after it", self.end));
        }
        Ok(())
    }

    /// The first message at or after `at` that would change the table of pages.
    fn needed(&self, buffer: &[u8], mut at: usize, segment: Option<u64>, min: u64) -> Option<usize> {
        loop {
            let (place, message) = next_message(buffer, at)?;
            let number = message.segment.saturating_mul(SEGMENT).saturating_add(place as u64);
            let fits = match segment {
                Some(segment) => message.segment == segment,
                None => message.segment >= min && !self.segments.contains_key(&(message.segment * SEGMENT)),
            };
            if fits && number < self.end && is_newer(&self.pages, number, &message) {
                return Some(place);
            }
            at = place + 1;
        }
    }

    /// The body of the message at a place, if it is whole and is of this page.
    pub(super) fn body(&self, page: u64, place: Place) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let mut buffer = Vec::new();
        // Most messages are short; a long one is read again as a whole.
        let rest = (SEGMENT - place.offset % SEGMENT) as usize;
        for len in [rest.min(4096), rest] {
            buffer.resize(len, 0);
            let read = read_up_to(&self.file, &mut buffer, place.offset)?;
            buffer.truncate(read);
            let Some(found) = message(&buffer, 0) else { continue };
            if found.page != page || found.segment != place.lsn / SEGMENT {
                return Ok(None);
            }
            let (kind, body) = (found.kind, found.body.to_vec());
            return if found.is_blob { self.blob(kind, &body) } else { Ok(Some((kind, body))) };
        }
        Ok(None)
    }

    fn blob(&self, kind: Kind, name: &[u8]) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let Ok(name) = name.try_into().map(i64::from_le_bytes) else { return Ok(None) };
        let bytes = read_if_there(&self.directory.join("blobs").join(name.to_string()))?;
        Ok(bytes.and_then(|bytes| Some((kind, blob(&bytes, kind)?.to_vec()))))
    }

    /// Offsets of all segments, readable or not.
    pub(super) fn offsets(&self) -> io::Result<impl Iterator<Item = u64> + use<>> {
        Ok((0..self.file.metadata()?.len()).step_by(SEGMENT_BYTES))
    }
}

/// Enters a message into the table of pages, as sled does.
fn apply(pages: &mut Vec<Page>, place: Place, message: &Message<'_>) {
    if message.page >= PAGES_MAX {
        return;
    }
    let at = message.page as usize;
    let known = pages.len();
    if message.kind == Kind::Link {
        // A change to a page whose whole was written again later.
        if let Some(Page::Present(places)) = pages.get_mut(at)
            && places.last().is_none_or(|last| last.lsn < place.lsn)
        {
            places.push(place);
        }
        return;
    }
    pages.resize(known.max(at + 1), Page::Unknown);
    pages[at] = if message.kind == Kind::Free { Page::Free(place) } else { Page::Present(vec![place]) };
}

/// Whether a message with this number says something the table does not have.
fn is_newer(pages: &[Page], number: u64, message: &Message<'_>) -> bool {
    if matches!(message.kind, Kind::Canceled | Kind::Cap | Kind::Batch) {
        return false;
    }
    match pages.get(message.page as usize) {
        None | Some(Page::Unknown) => message.kind != Kind::Link,
        Some(Page::Free(place)) => number > place.lsn && message.kind != Kind::Link,
        Some(Page::Present(places)) => {
            let base = places.first().map_or(0, |base| base.lsn);
            number > base && !places.iter().any(|place| place.lsn == number)
        }
    }
}

/// Reads until the buffer is full or the file ends; gives the bytes read.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

pub(in crate::database::store) fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of the file is no error, and what cannot be read is one.
    #[test]
    fn what_is_read_ends_with_the_file_or_with_the_error() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("db");
        fs::write(&path, b"0123456789").expect("written");
        let file = File::open(&path).expect("open");
        let mut buffer = [0; 8];
        assert_eq!([0, 6, 10].map(|at| read_up_to(&file, &mut buffer, at).expect("read")), [8, 4, 0]);
        let unreadable = File::open(directory.path()).expect("open");
        assert!(read_up_to(&unreadable, &mut buffer, 0).is_err());
        assert!(read_if_there(directory.path()).is_err());
        assert_eq!(read_if_there(&path).expect("read").as_deref(), Some(&b"0123456789"[..]));
        assert_eq!(read_if_there(&directory.path().join("none")).expect("none"), None);
    }
}
