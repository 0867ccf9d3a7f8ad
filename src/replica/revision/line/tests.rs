//! Laws of revisions in trees, over what edits, merges and resolutions of several databases make of them; and histories that no
//! database writes.

use proptest::prelude::*;

use super::*;
use crate::replica::revision::tree::GENERATION_MAX;
use crate::replica::revision::{Causality, child_id};

fn id(generation: u32, byte: u8) -> TreeId {
    TreeId::new(generation, &[byte; 20]).expect("an ID")
}

/// A revision at the first of these.
fn at(ids: &[TreeId]) -> VersionVector {
    VersionVector { trees: ids.to_vec(), ..VersionVector::at_tree(ids[0]) }
}

/// Revisions of one document, each with the numbers of all that it descends from or was kept against.
fn revisions() -> impl Strategy<Value = Vec<(VersionVector, Vec<usize>)>> {
    let step = (0u8..5, any::<prop::sample::Index>(), any::<prop::sample::Index>());
    prop::collection::vec(step, 1..20).prop_map(|steps| {
        let mut all: Vec<(VersionVector, Vec<usize>)> = vec![(at(&[id(1, 0)]), Vec::new())];
        for (n, (kind, a, b)) in steps.into_iter().enumerate() {
            let (a, b) = (a.index(all.len()), b.index(all.len()));
            let joined = |first: usize, second: usize| {
                let mut below: Vec<usize> = [&all[first].1[..], &all[second].1, &[first, second]].concat();
                below.sort_unstable();
                below.dedup();
                below
            };
            let body = format!("{{\"n\":{n}}}");
            let child =
                |parent: usize| child_id(all[parent].0.trees.first().copied(), false, &body).expect("one");
            let made = match kind {
                // Made anew, without any ancestor.
                0 => (VersionVector::at_tree(child_id(None, false, &body).expect("one")), Vec::new()),
                1 if a != b => (all[a].0.tree_edited(child(a)).tree_over(&all[b].0), joined(a, b)),
                _ => (all[a].0.tree_edited(child(a)), joined(a, a)),
            };
            all.push(made);
        }
        all
    })
}

proptest! {
    /// What a revision descends from it knows, and stands above; of two with no such relation none is taken for the other's
    /// descendant.
    #[test]
    fn descendants_are_known_and_others_conflict(all in revisions()) {
        for (n, (a, below)) in all.iter().enumerate() {
            prop_assert!(a.is_tree());
            prop_assert!(a.line().len() <= TREE_IDS_MAX && a.closed_branches().len() <= CLOSED_IDS_MAX);
            for (m, (b, below_b)) in all.iter().enumerate() {
                let told = a.compare(b);
                let opposite = match b.compare(a) {
                    Causality::Newer => Causality::Older,
                    Causality::Older => Causality::Newer,
                    same => same,
                };
                prop_assert_eq!(told, opposite);
                let expected = match (n == m, below.contains(&m), below_b.contains(&n)) {
                    (true, ..) => Causality::Same,
                    (_, true, false) => Causality::Newer,
                    (_, false, true) => Causality::Older,
                    _ => Causality::Conflict,
                };
                // The oldest IDs go: who has fallen off is a conflict at worst, and never a descendant.
                let is_pruned = a.line().len().max(b.line().len()) >= TREE_IDS_MAX;
                prop_assert!(told == expected || is_pruned && told == Causality::Conflict, "{} {}: {:?}", a, b, told);
            }
        }
    }

    /// A line goes over the wire as it is, and with the branches that were closed.
    #[test]
    fn what_is_written_is_read(all in revisions()) {
        for (vector, _) in &all {
            let rev = vector.id().to_string();
            let read = VersionVector::from_tree_history(&rev, &vector.tree_history_text(None)).expect("a history");
            prop_assert_eq!(read.line(), vector.line());
            prop_assert_eq!(&read.with_closed(vector.closed_branches().to_vec()), vector);
        }
    }

    /// Whatever a peer says of a history, reading it ends, and gives a bounded line that goes down by one.
    #[test]
    fn any_history_is_read_or_refused(rev in "[0-9]{0,9}-[0-9a-f]{0,44}|.{0,9}", history in "([0-9]{0,8}-[0-9a-f]{0,42}[, ;]{0,3}){0,30}") {
        if let Ok(vector) = VersionVector::from_tree_history(&rev, &history) {
            prop_assert!(vector.is_tree() && vector.trees.len() <= TREE_IDS_MAX);
            prop_assert_eq!(vector.line().len(), vector.trees.len());
        }
    }
}

#[test]
fn a_history_goes_down_by_one_and_no_other_is_taken() {
    let hex = "ab".repeat(20);
    let read = |rev: &str, history: &str| VersionVector::from_tree_history(rev, history);
    let (three, two, one) = (format!("3-{hex}"), format!("2-{hex}"), format!("1-{hex}"));
    assert_eq!(read(&three, &format!("{two},{one}")).expect("whole").trees.len(), 3);
    assert_eq!(read(&three, &two).expect("cut where the peer has it").trees.len(), 2);
    assert_eq!(read(&three, "").expect("alone").trees.len(), 1);
    for (rev, history) in [
        (&three, format!("{one},{two}")),                             // goes up
        (&three, one.clone()),                                        // a gap
        (&three, format!("3-{hex}")),                                 // stays
        (&three, format!("4-{hex}")),                                 // above itself
        (&two, format!("{one},0-{hex}")),                             // no such generation
        (&two, format!("1-{}", &hex[1..])),                           // a digest of odd length
        (&two, format!("1-{hex}ab")),                                 // longer than any
        (&two, "1-".to_owned()),                                      // none
        (&two, format!("{one},,")),                                   // empty ones
        (&two, "18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ".to_owned()), // of the other kind
        (&format!("1048576-{hex}"), String::new()),
        (&"18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ".to_owned(), String::new()),
    ] {
        assert!(read(rev, &history).is_err(), "{rev} {history}");
    }
}

#[test]
fn ten_thousand_ancestors_are_refused_and_a_thousand_are_cut() {
    let ancestors = |count: u32| {
        let ids: Vec<String> = (1..=count).rev().map(|n| id(n, 7).to_string()).collect();
        VersionVector::from_tree_history(&id(count + 1, 7).to_string(), &ids.join(","))
    };
    assert_eq!(ancestors(1_000).expect("read").trees.len(), TREE_IDS_MAX);
    assert!(matches!(ancestors(10_000), Err(RevisionError::TooManyVersions { actual: 10_000, .. })));
}

/// However long the line: what it was kept against stays named beside it.
#[test]
fn closed_branches_have_room_beside_a_long_line() {
    let line: Vec<TreeId> = (100..120).rev().map(|n| id(n, 1)).collect();
    let other: Vec<TreeId> = (90..118).rev().map(|n| id(n, 2)).collect();
    let kept = at(&line).tree_over(&at(&other[..20]));
    assert_eq!(kept.compare(&at(&other)), Causality::Newer);
    assert_eq!((kept.line(), kept.closed_branches()), (&line[..], &other[..20]));
    // An edit keeps both.
    let edited = kept.tree_edited(id(120, 1));
    assert_eq!(edited.compare(&at(&other)), Causality::Newer);
    assert_eq!(edited.compare(&kept), Causality::Newer);
    // A closed ID of the next generation down is none of the line.
    let below = at(&line[..3]).tree_over(&at(&[id(116, 9)]));
    assert_eq!((below.line(), below.closed_branches()), (&line[..3], &[id(116, 9)][..]));
}

/// However many branches were closed before: the one that is closed now is among them.
#[test]
fn the_branch_that_is_closed_last_is_never_forgotten() {
    let mut kept = at(&(40..60).rev().map(|n| id(n, 1)).collect::<Vec<TreeId>>());
    for byte in 2..60 {
        let other = at(&(20..40).rev().map(|n| id(n, byte)).collect::<Vec<TreeId>>());
        kept = kept.tree_over(&other);
        assert_eq!(kept.compare(&other), Causality::Newer, "{byte}");
        kept = kept.tree_edited(id(58 + u32::from(byte), 1));
        assert_eq!(kept.compare(&other), Causality::Newer, "{byte}");
    }
}

/// A history ends where the peer knows the ancestor; what is stored goes on.
#[test]
fn a_line_goes_on_where_it_meets_the_one_that_is_here() {
    let here = at(&[id(3, 1), id(2, 1), id(1, 1)]);
    let came = at(&[id(5, 1), id(4, 1), id(3, 1)]);
    assert_eq!(came.tree_over(&here).line(), [5, 4, 3, 2, 1].map(|n| id(n, 1)));
    assert_eq!(came.tree_history_text(Some(RevId::Tree(id(4, 1)))), id(4, 1).to_string());
    assert_eq!(came.tree_history_text(Some(RevId::Tree(id(9, 9)))), format!("{},{}", id(4, 1), id(3, 1)));
}

#[test]
fn nothing_follows_the_highest_generation() {
    let highest = id(GENERATION_MAX, 1);
    assert_eq!(child_id(Some(highest), false, "{}"), None);
    assert_eq!(
        child_id(Some(id(GENERATION_MAX - 1, 1)), false, "{}").map(|id| id.generation()),
        Some(GENERATION_MAX)
    );
}
