//! Marks in checkpoints, by which a copy of another past is recognized.
//!
//! A database that was put back to an older copy gives its next sequences out a second time. Of one such database the other's
//! copy of the checkpoint tells, for only what both say counts. Of two, each put back to a copy of another time, both copies may
//! name a sequence that stood for another document in each. So each checkpoint that is saved has a random mark and that of the
//! one before, and the copy here knows the marks that led to it: what the peer holds counts only if it is one of those, or
//! follows ours. Any other belongs to a past that was given up on one of the two sides, and then everything is compared.
//!
//! Checkpoints of earlier releases have no marks. Beside one of those only the sequences count, as they did then.

#![deny(clippy::disallowed_methods)]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Marks that the copy here knows. A peer that was put back further than that is compared with.
const KNOWN_MAX: usize = 32;

/// In the copy at the peer: the mark of this checkpoint.
const MARK: &str = "mark";
/// In the copy at the peer: that of the one before.
const AFTER: &str = "after";
/// In the copy here: the marks that led to it, its own the last.
const KNOWN: &str = "known";

/// The marks of one checkpoint.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Those that led to what the copy here says, oldest first.
    known: Vec<u64>,
    /// That of the checkpoint that is being saved.
    saving: Option<u64>,
    seed: u64,
}

impl Marks {
    pub(super) fn new(seed: u64) -> Marks {
        Marks { seed, ..Marks::default() }
    }

    /// Takes both copies. Whether they are of one past, so that what both say counts.
    pub(super) fn load(&mut self, own: &[u8], peer: &Value) -> bool {
        let own: Value = serde_json::from_slice(own).unwrap_or_default();
        let own = own.get(KNOWN).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let known: Vec<u64> = own.iter().rev().take(KNOWN_MAX).rev().filter_map(read).collect();
        let (mark, after) = (peer.get(MARK).and_then(read), peer.get(AFTER).and_then(read));
        let (Some(mark), Some(newest)) = (mark, known.last().copied()) else {
            // What led to them is not known either.
            self.known.clear();
            return true;
        };
        // Of what came after the peer's, nothing is known to it.
        let common = known.iter().rposition(|known| *known == mark);
        // The peer has the next one, whose acknowledgement did not come, or this database was put back by one.
        let next = (after == Some(newest)).then_some(known.len() - 1);
        self.known = common.or(next).map_or_else(Vec::new, |last| known[..=last].to_vec());
        !self.known.is_empty()
    }

    /// Nothing that was before counts.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// A checkpoint for the peer, with a mark of its own.
    pub(super) fn mark(&mut self, checkpoint: Map<String, Value>) -> String {
        let mut object = checkpoint;
        let before = self.known.last().copied();
        let mark = mix(self.seed ^ mix(before.unwrap_or(0)));
        self.seed = self.seed.wrapping_add(1);
        self.saving = Some(mark);
        object.insert(MARK.into(), write(mark));
        if let Some(before) = before {
            object.insert(AFTER.into(), write(before));
        }
        Value::Object(object).to_string()
    }

    /// The peer has taken the checkpoint that [`mark`](Self::mark) gave: the copy of it to be kept here.
    pub(super) fn saved(&mut self, body: &str) -> String {
        let Some(mark) = self.saving.take() else { return body.to_owned() };
        self.known.push(mark);
        let forgotten = self.known.len().saturating_sub(KNOWN_MAX);
        self.known.drain(..forgotten);
        let mut object: Map<String, Value> = serde_json::from_str(body).unwrap_or_default();
        object.insert(KNOWN.into(), self.known.iter().copied().map(write).collect());
        Value::Object(object).to_string()
    }
}

/// As text: a number of 64 bits does not come back whole from everybody who reads JSON.
fn write(mark: u64) -> Value {
    URL_SAFE_NO_PAD.encode(mark.to_be_bytes()).into()
}

fn read(value: &Value) -> Option<u64> {
    let bytes = URL_SAFE_NO_PAD.decode(value.as_str()?).ok()?;
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Spreads a number over all 64 bits, one to one (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut n = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both copies after each of `saves` saves that went well, by one session each.
    fn saves(from: (&str, &str), seed: u64, saves: usize) -> Vec<(String, String)> {
        let (mut own, mut peer) = (from.0.to_owned(), from.1.to_owned());
        let save = |n: usize| {
            let mut marks = Marks::new(seed + 1_000 * n as u64);
            assert!(marks.load(own.as_bytes(), &serde_json::from_str(&peer).expect("JSON")));
            let local = Map::from_iter([("local".to_owned(), Value::from(n))]);
            peer = marks.mark(local);
            own = marks.saved(&peer);
            (own.clone(), peer.clone())
        };
        (0..saves).map(save).collect()
    }

    fn is_one_past(own: &str, peer: &str) -> bool {
        Marks::new(9).load(own.as_bytes(), &serde_json::from_str(peer).expect("JSON"))
    }

    #[test]
    fn copies_of_one_past_count_and_those_of_two_do_not() {
        let first = saves(("{}", "{}"), 1, 10);
        let (own, peer) = &first[5];
        assert!(is_one_past(own, peer));
        assert!(first[..5].iter().all(|(_, older)| is_one_past(own, older)), "the peer was put back");
        assert!(is_one_past(own, &first[6].1), "the acknowledgement was lost");
        assert!(!is_one_past(own, &first[7].1), "this side was put back");
        // From the fifth on it went another way.
        let second = saves((own, peer), 2, 3);
        for (later, _) in &second {
            assert!(first[6..].iter().all(|(_, peer)| !is_one_past(later, peer)), "each put back in turn");
            assert!(first[..=5].iter().all(|(_, peer)| is_one_past(later, peer)), "before the two parted");
        }
        for (_, peer) in &second[1..] {
            assert!(first[6..].iter().all(|(own, _)| !is_one_past(own, peer)), "the other way around");
        }
    }

    /// Whoever goes on from an older copy knows nothing of what came after it.
    #[test]
    fn a_past_that_was_given_up_is_forgotten() {
        let first = saves(("{}", "{}"), 1, 10);
        // The peer was put back to the fifth: the next one leads from there.
        let second = saves((&first[9].0, &first[5].1), 2, 1);
        let (own, peer) = &second[0];
        assert!(!is_one_past(&first[9].0, peer), "this side put back to before that");
        assert!(!is_one_past(own, &first[9].1) && is_one_past(own, &first[5].1));
    }

    #[test]
    fn releases_without_marks_and_garbage_are_no_worse_than_before() {
        let (own, peer) = &saves(("{}", "{}"), 1, 1)[0];
        let plain = r#"{"local":7}"#;
        assert!(is_one_past(plain, plain) && is_one_past(own, plain) && is_one_past(plain, peer));
        for garbage in [r#"{"mark":7}"#, r#"{"mark":"?"}"#, r#"{"mark":"AAAA"}"#, r#"[]"#] {
            assert!(is_one_past(own, garbage), "{garbage}: no mark");
        }
        let many = saves(("{}", "{}"), 1, 3 * KNOWN_MAX);
        let known: Value = serde_json::from_str(&many[3 * KNOWN_MAX - 1].0).expect("JSON");
        assert_eq!(known[KNOWN].as_array().map(Vec::len), Some(KNOWN_MAX));
    }
}
