//! Random logs with a model of what they say: whole, and with one place destroyed.

use std::path::Path;

use super::super::format::tests::{a_message, a_snapshot, header};
use super::super::format::{Kind, Page, Place, SEGMENT, SEGMENT_HEADER_BYTES};
use super::super::survey::Survey;
use crate::database::store::ground::SEGMENT_BYTES;

/// Each message has a body of eight bytes, so that one is where an older one was.
const MESSAGE: usize = 16;

const CANCELED: u8 = 1;
const CAP: u8 = 2;
const BATCH: u8 = 3;
const FREE: u8 = 4;
const NODE: u8 = 8;
const LINK: u8 = 10;

#[derive(Clone, Copy, Debug)]
struct Told {
    place: Place,
    kind: u8,
    page: u64,
}

impl Told {
    fn segment(&self) -> u64 {
        self.place.lsn / SEGMENT
    }
}

/// What messages make of a table of pages.
fn model<'a>(mut pages: Vec<Page>, told: impl Iterator<Item = &'a Told>) -> Vec<Page> {
    for one in told {
        let at = one.page as usize;
        match one.kind {
            LINK => match pages.get_mut(at) {
                Some(Page::Present(places)) => places.push(one.place),
                _ => continue,
            },
            FREE | NODE => {
                pages.resize(pages.len().max(at + 1), Page::Unknown);
                let new =
                    if one.kind == FREE { Page::Free(one.place) } else { Page::Present(vec![one.place]) };
                pages[at] = new;
            }
            _ => {}
        }
    }
    pages
}

struct Made {
    file: Vec<u8>,
    /// Where the segments stand.
    offsets: Vec<u64>,
    told: Vec<Told>,
    /// Where what counts ends: at a batch that is not whole, if there is one.
    end: u64,
    /// Everything before it is in `pages`.
    stable: u64,
    pages: Vec<Page>,
    /// Where something stands that sled would not write there.
    impossible: Vec<u64>,
}

impl Made {
    /// A log that sled could have written: its segments in any order, on old content, some gone that nothing needs any more.
    fn new(random: &mut fastrand::Rng) -> Made {
        let (count, pages) = (random.u64(3..6), random.u64(2..7));
        let mut slots: Vec<u64> = (0..count + 2).collect();
        random.shuffle(&mut slots);
        let mut made = Made {
            file: vec![0; SEGMENT_BYTES * slots.len()],
            offsets: slots.iter().map(|slot| slot * SEGMENT).collect(),
            told: vec![],
            end: 0,
            stable: 0,
            pages: vec![],
            impossible: vec![],
        };
        let mut buffers: Vec<Vec<u8>> = vec![];
        for segment in 0..count {
            let mut buffer = match buffers.len() {
                0 => vec![0; SEGMENT_BYTES],
                n => buffers[random.usize(0..n)].clone(),
            };
            buffer[..SEGMENT_HEADER_BYTES]
                .copy_from_slice(&header(segment * SEGMENT, (segment * SEGMENT) as i64));
            let mut at = SEGMENT_HEADER_BYTES;
            let mut say = |kind: u8, page: u64, last: Option<u64>| {
                let lsn = segment * SEGMENT + at as u64;
                let place = Place { lsn, offset: made.offsets[segment as usize] + at as u64 };
                let message = a_message(kind, segment, page, &last.unwrap_or(lsn).to_le_bytes());
                buffer[at..][..MESSAGE].copy_from_slice(&message);
                at += MESSAGE;
                made.told.push(Told { place, kind, page });
                segment * SEGMENT + at as u64
            };
            if segment == 0 {
                (0..pages).for_each(|page| {
                    say(NODE, page, None);
                });
            }
            for _ in 0..random.usize(1..12) {
                let kinds = [LINK, LINK, LINK, NODE, NODE, FREE, CANCELED, BATCH];
                made.end = say(kinds[random.usize(0..kinds.len())], random.u64(0..pages + 1), None);
            }
            let is_last = segment + 1 == count;
            if is_last {
                if random.bool() {
                    say(BATCH, 0, Some(1 << 40));
                    (0..3).for_each(|page| {
                        say(NODE, page, None);
                    });
                }
            } else if random.bool() {
                say(CAP, random.u64(0..pages), None);
            } else {
                // Full but for less than a header, where nothing begins.
                let probe = a_message(CANCELED, segment, 0, &vec![0; SEGMENT_BYTES - at - 64]).len();
                let body = vec![0; 2 * SEGMENT_BYTES - 2 * at - 64 - probe - 12];
                let canceled = a_message(CANCELED, segment, 0, &body);
                made.impossible.push(made.offsets[segment as usize] + (at + canceled.len()) as u64);
                let rest = [canceled, a_message(NODE, segment, 0, b"")].concat();
                buffer[at..][..rest.len()].copy_from_slice(&rest);
                buffer[at + rest.len()..].fill(0);
            }
            buffers.push(buffer);
        }
        if random.u8(0..3) > 0 {
            let whole = made.told.iter().filter(|one| one.place.lsn < made.end).skip(pages as usize);
            let ends: Vec<u64> = whole.map(|one| one.place.lsn).chain([made.end]).collect();
            made.stable = ends[random.usize(0..ends.len())];
            made.pages = model(vec![], made.told.iter().filter(|one| one.place.lsn < made.stable));
            if made.pages.contains(&Page::Unknown) {
                (made.stable, made.pages) = (0, vec![]);
            }
        }
        for (segment, buffer) in (0..).zip(&buffers) {
            if segment >= made.first() || random.bool() {
                made.at(made.offsets[segment as usize]).copy_from_slice(buffer);
            }
        }
        // One that was emptied is there in any case, with what it held when there was another table.
        let old = a_message(NODE, 0, pages + 3, b"old");
        let free = made.offsets[count as usize];
        if made.first() > 0 {
            let first = made.offsets[0];
            made.at(first).fill(0);
            made.at(free)[SEGMENT_HEADER_BYTES..][..old.len()].copy_from_slice(&old);
        }
        made
    }

    /// The segment from which on messages are read.
    fn first(&self) -> u64 {
        self.stable / SEGMENT
    }

    fn tip(&self) -> u64 {
        self.told[self.told.len() - 1].segment()
    }

    fn at(&mut self, offset: u64) -> &mut [u8] {
        &mut self.file[offset as usize..][..SEGMENT_BYTES]
    }

    fn write(&self, directory: &Path) {
        std::fs::write(directory.join("db"), &self.file).expect("written");
        let snapshot = directory.join("snap.1");
        if self.stable > 0 {
            std::fs::write(snapshot, a_snapshot(self.stable, &self.pages)).expect("written");
        } else {
            let _ = std::fs::remove_file(snapshot);
        }
    }

    /// The table of pages by those messages that are chosen.
    fn by(&self, is_chosen: impl Fn(&Told) -> bool) -> Vec<Page> {
        let chosen = self.told.iter().filter(|one| one.place.lsn >= self.stable && is_chosen(one));
        model(self.pages.clone(), chosen)
    }
}

/// Of a whole log the survey tells what its messages say, and of one with a destroyed place whether that hides anything: then, and
/// only then, there is a finding, which names the place. What is read of everything is all but what was destroyed.
#[test]
fn a_destroyed_place_is_found_if_it_hides_something() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let directory = directory.path();
    let (mut found, mut harmless) = (0, 0);
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut made = Made::new(&mut random);
        made.write(directory);
        let mut sound = Survey::read(directory).expect("readable");
        assert_eq!(sound.findings(), (&[][..], 0), "seed {seed}");
        assert_eq!(sound.end(), made.end, "seed {seed}");
        assert!(sound.pages == made.by(|one| one.place.lsn < made.end), "seed {seed}");
        assert!(!sound.is_torn && !sound.is_only_settings());
        for (page, places) in (0..).zip(&sound.pages) {
            let Page::Present(places) = places else { continue };
            let [first, ..] = places[..] else { panic!("seed {seed}: nowhere") };
            if made.file[first.offset as usize..][..MESSAGE] == [0; MESSAGE] {
                // Of a segment that is gone.
                continue;
            }
            assert!(matches!(sound.body(page, first), Ok(Some((Kind::Node, _)))), "seed {seed}");
            let other = Place { lsn: first.lsn + SEGMENT, offset: first.offset };
            assert!(matches!(sound.body(page + 1, first), Ok(None)), "of another page");
            assert!(matches!(sound.body(page, other), Ok(None)), "of another segment");
        }
        let (pages, digest) = (sound.pages.clone(), sound.digest(7));
        assert_ne!(digest, sound.digest(8), "where it ends counts");
        sound.replay_all().expect("readable");
        assert!(sound.is_torn && sound.pages == made.by(|_| true), "seed {seed}");

        let victims: Vec<Told> = made.told.iter().filter(|t| t.segment() >= made.first()).copied().collect();
        let victim = victims[random.usize(0..victims.len())];
        let (segment, lsn, is_head) = (victim.segment(), victim.place.lsn, random.bool());
        let offset = made.offsets[segment as usize];
        let place = if is_head { offset } else { victim.place.offset };
        let case =
            format!("seed {seed}: {victim:?}, head {is_head}, stable {}, end {}", made.stable, made.end);
        made.file[place as usize] ^= 1;
        // What is destroyed may be anything, so all that follows it counts.
        for at in std::mem::take(&mut made.impossible) {
            made.file[at as usize..][..8].fill(0);
        }
        made.write(directory);
        let is_destroyed = |one: &Told| !is_head && one.place == victim.place;
        let is_hidden = |one: &Told| one.segment() == segment && (is_head || one.place.lsn >= lsn);
        let visible = made.by(|one| !is_hidden(one) && one.place.lsn < made.end);
        let left = made.by(|one| !is_destroyed(one) && one.place.lsn < made.end);
        let mut survey = Survey::read(directory).expect("readable");
        assert!(survey.pages == visible, "{case}");
        assert_eq!(survey.digest(7) == digest, visible == pages, "{case}");
        let (findings, count) = survey.findings();
        let is_tip = segment == made.tip();
        // The end may be torn, but not before what the table of pages tells of.
        let hides = if is_tip { !is_head && lsn < made.stable } else { left != visible };
        assert_eq!(count > 0, hides || visible.contains(&Page::Unknown), "{case}: {findings:?}");
        if hides {
            let place = if is_head { offset } else { victim.place.offset };
            let finding = &findings[0];
            assert_eq!((finding.file.as_str(), finding.offset), ("db", Some(place)), "{case}");
        }
        (found, harmless) = if hides { (found + 1, harmless) } else { (found, harmless + 1) };
        survey.replay_all().expect("readable");
        assert!(survey.pages == made.by(|one| !is_destroyed(one)), "{case}");
        assert!(survey.is_torn);
    }
    assert!(found > 10 && harmless > 10, "{found} found, {harmless} harmless");
}

/// Only what is written last may be missing.
#[test]
fn a_log_goes_on_at_most_two_segments_behind_its_end() {
    for behind in 1..5 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut file = vec![];
        for segment in [0, 1, 1 + behind] {
            let mut bytes = [header(segment * SEGMENT, 0), a_message(NODE, segment, 0, b"")].concat();
            bytes.extend(a_message(CAP, segment, 0, b""));
            bytes.resize(SEGMENT_BYTES, 0);
            file.extend(bytes);
        }
        std::fs::write(directory.path().join("db"), file).expect("written");
        let survey = Survey::read(directory.path()).expect("readable");
        assert_eq!(survey.findings().1, u64::from(behind > 2), "{behind}: {:?}", survey.findings());
    }
}

/// A table of pages with places where nothing can stand is none: the log itself says what it said.
#[test]
fn a_table_of_impossible_places_is_not_believed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = [header(0, 0), a_message(NODE, 0, 0, b"page")].concat();
    std::fs::write(directory.path().join("db"), &log).expect("written");
    let at = SEGMENT_HEADER_BYTES as u64;
    let true_place = Place { lsn: at, offset: at };
    for (lsn, offset, is_possible) in [
        (at, at, true),
        (at + SEGMENT, at, true),
        (at, at + 1, false),
        (at + 1, at, false),
        (at - 1, at - 1, false),
    ] {
        let page = Page::Present(vec![Place { lsn, offset }]);
        std::fs::write(directory.path().join("snap.1"), a_snapshot(at + 2, std::slice::from_ref(&page)))
            .expect("written");
        let survey = Survey::read(directory.path()).expect("readable");
        let is_named = survey.findings().0.iter().any(|finding| finding.file == "snap.1");
        assert_eq!(is_named, !is_possible, "{lsn} {offset}: {:?}", survey.findings());
        let seen = if is_possible { page } else { Page::Present(vec![true_place]) };
        assert_eq!(survey.pages, [seen], "{lsn} {offset}");
    }
}

/// What the table of pages says is not made worse by what stands before its end in the log, and pages beyond the end of the file are missed.
#[test]
fn a_table_of_pages_holds_for_what_is_before_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let messages = [(NODE, 0), (LINK, 0), (NODE, 1)].map(|(kind, page)| a_message(kind, 0, page, &[0; 8]));
    let mut log = [header(0, 0), messages.concat()].concat();
    let at = |n: usize| (SEGMENT_HEADER_BYTES + n * MESSAGE) as u64;
    let place = |n: usize| Place { lsn: at(n), offset: at(n) };
    let pages = [Page::Present(vec![place(0), place(1)]), Page::Present(vec![place(2)])];
    log[at(1) as usize] ^= 1;
    std::fs::write(directory.path().join("db"), &log).expect("written");
    std::fs::write(directory.path().join("snap.1"), a_snapshot(at(3), &pages)).expect("written");
    let mut survey = Survey::read(directory.path()).expect("readable");
    assert!(survey.findings().1 > 0);
    assert_eq!(survey.pages, pages);
    survey.replay_all().expect("readable");
    assert_eq!(survey.pages, pages);

    let beyond = Page::Present(vec![Place { lsn: at(0), offset: at(0) + SEGMENT }]);
    std::fs::write(directory.path().join("snap.1"), a_snapshot(at(3), &[beyond])).expect("written");
    let survey = Survey::read(directory.path()).expect("readable");
    let is_cut = survey.findings().0.iter().any(|finding| finding.what.starts_with("the log is cut off"));
    assert!(is_cut, "{:?}", survey.findings());
}

/// Settings that cannot be read are named, and told apart from damage to what is ours.
#[test]
fn damaged_settings_are_told_apart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = b"segment_size: 131072".to_vec();
    let whole = [&text[..], &crc32fast::hash(&text).to_le_bytes()].concat();
    let log = [header(0, 0), a_message(NODE, 0, 0, b"page")].concat();
    let without_the_first = [header(0, 0), a_message(NODE, 0, 1, b"page")].concat();
    for (log, is_sound) in [(&log, true), (&without_the_first, false)] {
        std::fs::write(directory.path().join("db"), log).expect("written");
        for (conf, is_whole) in [
            (whole.clone(), true),
            (whole[1..].to_vec(), false),
            (text.clone(), false),
            (vec![0; 8], true),
            (vec![0; 9], false),
        ] {
            std::fs::write(directory.path().join("conf"), &conf).expect("written");
            let survey = Survey::read(directory.path()).expect("readable");
            let expected = u64::from(!is_whole) + u64::from(!is_sound);
            assert_eq!(survey.findings().1, expected, "{conf:?}: {:?}", survey.findings());
            assert_eq!(survey.is_only_settings(), is_sound && !is_whole, "{conf:?}");
        }
    }
}
