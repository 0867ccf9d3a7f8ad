//! The answer to a `revs` message: what became of each revision, as runs.
//!
//! Source: `firmware-notes/replication.md`, extension, byte tables.

use super::RevsFormat;
use super::codec::{CodecError, get, put, unzigzag, zigzag};
use crate::blip::ErrorReply;
use crate::replica::revision::VersionVector;

/// Longest text of an error or vector in an answer, in bytes.
const TEXT_MAX: usize = 16 << 10;

/// Most versions of a vector that is named whole in an answer.
const CONFLICT_VERSIONS_MAX: usize = 16;

/// What became of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevAnswer {
    /// Durable, as this sequence of the receiver's feed.
    Stored(u64),
    /// The receiver has it, or a descendant of it, or does not want it.
    Known,
    /// An offer that the receiver wants to have.
    Wanted,
    /// It conflicts with this revision of the receiver.
    Conflict(VersionVector),
    /// Refused; asking again may help only if the status says so.
    Failed(ErrorReply),
}

impl RevAnswer {
    fn kind(&self) -> u8 {
        match self {
            RevAnswer::Stored(_) => 0,
            RevAnswer::Known => 1,
            RevAnswer::Wanted => 2,
            RevAnswer::Conflict(_) => 3,
            RevAnswer::Failed(_) => 4,
        }
    }
}

/// Writes the answers to all revisions of a message, in order.
pub fn encode(answers: &[RevAnswer], format: RevsFormat) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = 0u64;
    let mut at = 0;
    while let Some(first) = answers.get(at) {
        let run = run_length(&answers[at..]);
        put(&mut out, run as u64);
        out.push(first.kind());
        match first {
            RevAnswer::Stored(sequence) => {
                put(&mut out, zigzag(sequence.wrapping_sub(next) as i64));
                next = sequence.wrapping_add(run as u64);
            }
            RevAnswer::Known | RevAnswer::Wanted => {}
            RevAnswer::Conflict(vector) if format == RevsFormat::Versions => {
                put_text(&mut out, &vector.with_trees_as_versions().to_string());
            }
            RevAnswer::Conflict(vector) => put_text(&mut out, &conflict_text(vector)),
            RevAnswer::Failed(error) => {
                put_text(&mut out, &error.domain);
                put(&mut out, zigzag(i64::from(error.code)));
                put_text(&mut out, &error.message);
            }
        }
        at += run;
    }
    out
}

/// How a conflicting revision is named: by its vector, or by its name alone if that is long. The sender pulls it anyway.
fn conflict_text(vector: &VersionVector) -> String {
    let versions = 1 + vector.merged.len() + vector.history.len();
    if versions <= CONFLICT_VERSIONS_MAX { vector.to_string() } else { vector.id().to_string() }
}

/// How many answers from the first on go into one run.
fn run_length(answers: &[RevAnswer]) -> usize {
    let mut run = 1;
    while let (Some(before), Some(next)) = (answers.get(run - 1), answers.get(run)) {
        let joins = match (before, next) {
            (RevAnswer::Stored(a), RevAnswer::Stored(b)) => a.checked_add(1) == Some(*b),
            (RevAnswer::Known, RevAnswer::Known) | (RevAnswer::Wanted, RevAnswer::Wanted) => true,
            _ => false,
        };
        if !joins {
            break;
        }
        run += 1;
    }
    run
}

/// Reads the answers to `count` revisions.
///
/// # Errors
/// [`CodecError`] if they are malformed, or more or fewer.
pub fn decode(body: &[u8], count: usize) -> Result<Vec<RevAnswer>, CodecError> {
    let field = "answer";
    let error = || CodecError { field };
    let mut answers = Vec::with_capacity(count);
    let (mut at, mut next) = (0, 0u64);
    while at < body.len() {
        let run = get(body, &mut at).and_then(|run| usize::try_from(run).ok()).ok_or_else(error)?;
        let kind = *body.get(at).ok_or_else(error)?;
        at += 1;
        if run == 0 || run > count - answers.len() || (kind >= 3 && run != 1) {
            return Err(error());
        }
        match kind {
            0 => {
                next = next.wrapping_add(unzigzag(get(body, &mut at).ok_or_else(error)?) as u64);
                let last = next.checked_add(run as u64).ok_or_else(error)?;
                answers.extend((next..last).map(RevAnswer::Stored));
                next = last;
            }
            1 => answers.resize(answers.len() + run, RevAnswer::Known),
            2 => answers.resize(answers.len() + run, RevAnswer::Wanted),
            3 => {
                let vector = get_text(body, &mut at).ok_or_else(error)?.parse().map_err(|_| error())?;
                answers.push(RevAnswer::Conflict(vector));
            }
            4 => {
                let domain = get_text(body, &mut at).ok_or_else(error)?;
                let code = unzigzag(get(body, &mut at).ok_or_else(error)?);
                let message = get_text(body, &mut at).ok_or_else(error)?;
                let code = i32::try_from(code).map_err(|_| error())?;
                answers.push(RevAnswer::Failed(ErrorReply::new(domain, code, message)));
            }
            _ => return Err(error()),
        }
    }
    if answers.len() == count { Ok(answers) } else { Err(error()) }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    put(out, length as u64);
    out.extend_from_slice(&text.as_bytes()[..length]);
}

fn get_text<'a>(body: &'a [u8], at: &mut usize) -> Option<&'a str> {
    let length = usize::try_from(get(body, at)?).ok().filter(|length| *length <= TEXT_MAX)?;
    let end = at.checked_add(length)?;
    let text = std::str::from_utf8(body.get(*at..end)?).ok()?;
    *at = end;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::revision::{SourceId, Version};
    use proptest::prelude::*;

    fn answer() -> impl Strategy<Value = RevAnswer> {
        let version = |time| Version { time, source: SourceId([3; 16]) };
        prop_oneof![
            4 => (0u64..40).prop_map(RevAnswer::Stored),
            1 => any::<u64>().prop_map(RevAnswer::Stored),
            2 => Just(RevAnswer::Known),
            2 => Just(RevAnswer::Wanted),
            1 => (1u64..).prop_map(move |time| RevAnswer::Conflict(VersionVector::new(version(time)))),
            1 => ("[A-Z]{0,5}", any::<i32>(), ".{0,20}")
                .prop_map(|(domain, code, message)| RevAnswer::Failed(ErrorReply::new(&domain, code, message))),
        ]
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(answers in prop::collection::vec(answer(), 0..60)) {
            // A run of sequences ends before the last number there is.
            let answers: Vec<RevAnswer> =
                answers.into_iter().filter(|a| *a != RevAnswer::Stored(u64::MAX)).collect();
            let body = encode(&answers, RevsFormat::TreeIds);
            prop_assert_eq!(decode(&body, answers.len()), Ok(answers.clone()));
            prop_assert!(decode(&body, answers.len() + 1).is_err());
        }

        #[test]
        fn garbage_is_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0usize..50) {
            if let Ok(answers) = decode(&bytes, count) {
                prop_assert_eq!(answers.len(), count);
            }
        }
    }

    /// Who reads the newer format gets tree IDs as they are, the others versions in their place.
    #[test]
    fn a_conflict_is_named_as_the_peer_reads_it() {
        let tree = crate::replica::revision::TreeId::new(3, &[7; 16]).expect("within the limits");
        let current = Version { time: 9, source: SourceId([3; 16]) };
        let vector = VersionVector { trees: vec![tree], ..VersionVector::new(current) };
        let named = |format| {
            let body = encode(&[RevAnswer::Conflict(vector.clone())], format);
            decode(&body, 1).expect("readable").remove(0)
        };
        assert_eq!(named(RevsFormat::TreeIds), RevAnswer::Conflict(vector.clone()));
        assert_eq!(named(RevsFormat::Versions), RevAnswer::Conflict(vector.with_trees_as_versions()));
    }

    /// A long vector is named by its newest version alone: the sender pulls it anyway.
    #[test]
    fn a_conflict_with_many_authors_is_named_in_short() {
        let by = |author: u8| Version { time: 1, source: SourceId([author + 100; 16]) };
        let of = |merged: u8, authors: u8| VersionVector {
            merged: (1..=merged).map(by).collect(),
            history: (merged + 1..authors).map(by).collect(),
            ..VersionVector::new(by(0))
        };
        let most = CONFLICT_VERSIONS_MAX as u8;
        for (vector, is_whole) in [(of(0, most), true), (of(0, most + 1), false), (of(2, most + 1), false)] {
            let body = encode(&[RevAnswer::Conflict(vector.clone())], RevsFormat::TreeIds);
            let short = VersionVector::new(by(0));
            let named = if is_whole { vector } else { short };
            assert_eq!(decode(&body, 1), Ok(vec![RevAnswer::Conflict(named)]));
        }
    }

    #[test]
    fn the_usual_answer_takes_a_few_bytes() {
        let answers: Vec<RevAnswer> = (8_000..8_400).map(RevAnswer::Stored).collect();
        assert!(encode(&answers, RevsFormat::Versions).len() <= 6);
        for same in [RevAnswer::Known, RevAnswer::Wanted] {
            assert!(encode(&vec![same; 400], RevsFormat::Versions).len() <= 3);
        }
    }

    /// A run is of one answer at least and of no more than were asked for: the peer's number alone makes no list.
    #[test]
    fn runs_are_of_what_was_asked_for() {
        let body = |run: u64, kind: u8| {
            let mut body = Vec::new();
            put(&mut body, run);
            body.push(kind);
            body
        };
        for kind in 0..=5 {
            for run in [0, 4, 1 << 40, u64::MAX] {
                let tail = [0; 4];
                let body = [&body(run, kind)[..], &tail].concat();
                assert!(decode(&body, 3).is_err(), "{run} of {kind}");
            }
        }
        // A conflict and a failure are each of one revision.
        let conflict = encode(
            &[RevAnswer::Conflict(VersionVector::new(Version { time: 9, source: SourceId([3; 16]) }))],
            RevsFormat::Versions,
        );
        let twice = [&[2], &conflict[1..]].concat();
        assert!(decode(&conflict, 1).is_ok() && decode(&twice, 2).is_err());
    }
}
