//! Laws of versions, vectors and tree IDs, over revisions that came about as real ones do.

use proptest::prelude::*;

use super::tree::GENERATION_MAX;
use super::*;

/// A revision tree of one document, as far as it matters: each ID with the one it descends from.
fn trees() -> Vec<VersionVector> {
    let id = |generation, byte| TreeId::new(generation, &[byte; 20]).expect("an ID");
    let lines: [&[TreeId]; 5] = [
        &[id(1, 1)],
        &[id(2, 2), id(1, 1)],
        &[id(2, 3), id(1, 1)],
        &[id(3, 4), id(2, 3), id(1, 1)],
        &[id(1, 9)],
    ];
    lines.map(|line| VersionVector { trees: line.to_vec(), ..VersionVector::at_tree(line[0]) }).to_vec()
}

/// Revisions of one document: those of a tree, and what edits, merges and resolutions of three databases made of them.
fn revisions() -> impl Strategy<Value = Vec<VersionVector>> {
    let step = (0u8..4, any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..4);
    prop::collection::vec(step, 1..24).prop_map(|steps| {
        let mut all = trees();
        for (n, (kind, a, b, author)) in steps.into_iter().enumerate() {
            let version =
                Version { time: (n as u64 + 1) + 0x18ea_0000_0000_0000, source: SourceId([author; 16]) };
            let (a, b) = (a.get(&all).clone(), b.get(&all).clone());
            let conflict = a.compare(&b) == Causality::Conflict;
            all.push(match kind {
                0 => a.edited(version),
                1 if conflict => a.merged_with(&b, version),
                2 if conflict && !a.needs_version_to_win(&b) => a.with_ancestors_of(&b),
                3 if conflict && !a.needs_version_to_win(&b) => a.taken_against(&b),
                _ => VersionVector::new(version),
            });
        }
        all
    })
}

fn opposite(causality: Causality) -> Causality {
    match causality {
        Causality::Newer => Causality::Older,
        Causality::Older => Causality::Newer,
        same => same,
    }
}

proptest! {
    #[test]
    fn comparing_is_the_same_from_both_sides(all in revisions()) {
        for a in &all {
            for b in &all {
                prop_assert_eq!(a.compare(b), opposite(b.compare(a)), "{} {}", a, b);
                prop_assert_eq!(a.compare(b) == Causality::Same, a.id().version() == b.id().version());
            }
        }
    }

    /// What the default resolver goes by: two revisions are always in an order, and three never in a circle.
    #[test]
    fn later_is_a_total_order(all in revisions()) {
        let order = |a: &VersionVector, b: &VersionVector| later(a.current, b.current);
        for a in &all {
            for b in &all {
                prop_assert_eq!(order(a, b), order(b, a).reverse());
                prop_assert_eq!(order(a, b) == Ordering::Equal, a.compare(b) == Causality::Same);
                for c in &all {
                    if order(a, b) == Ordering::Less && order(b, c) == Ordering::Less {
                        prop_assert_eq!(order(a, c), Ordering::Less);
                    }
                }
            }
        }
    }

    #[test]
    fn what_comes_of_two_contains_both(all in revisions(), author in 1u8..4) {
        let version = Version { time: u64::MAX >> 1, source: SourceId([author; 16]) };
        for a in &all {
            prop_assert_eq!(a.edited(version).compare(a), Causality::Newer);
            for b in &all {
                let merge = a.merged_with(b, version);
                for part in [a, b] {
                    prop_assert_eq!(merge.compare(part), Causality::Newer);
                    // Of a tree only so much is kept; everything else is.
                    prop_assert!(part.all_versions().all(|v| merge.contains(v)), "{} of {}", part, merge);
                }
                if a.compare(b) == Causality::Conflict {
                    let kept = a.with_ancestors_of(b);
                    prop_assert_eq!(kept.current, a.current);
                    prop_assert!(b.all_versions().chain(a.all_versions()).all(|v| kept.contains(v)));
                    prop_assert!(a.mutually_contains(b) || !kept.is_tree(), "{} kept against {}: {}", a, b, kept);
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_read(all in revisions()) {
        for vector in &all {
            let text = vector.to_string();
            prop_assert_eq!(&text.parse::<VersionVector>().expect("own text"), vector);
            for known in all.iter().map(VersionVector::id).map(Some).chain([None]) {
                check_wire(vector, known)?;
            }
        }
    }

    /// The version of a tree ID is below every time since 2006, keeps the order of generations, and is the same for no
    /// two IDs that differ in generation or in the first five bytes.
    #[test]
    fn tree_ids_become_versions(
        a in (1..=GENERATION_MAX, prop::collection::vec(any::<u8>(), 5..=20)),
        b in (1..=GENERATION_MAX, prop::collection::vec(any::<u8>(), 5..=20)),
    ) {
        let id = |(generation, digest): &(u32, Vec<u8>)| TreeId::new(*generation, digest).expect("an ID");
        let key = |(generation, digest): &(u32, Vec<u8>)| (*generation, digest[..5].to_vec());
        let (x, y) = (id(&a), id(&b));
        prop_assert_eq!(later(x.version(), y.version()), key(&a).cmp(&key(&b)));
        prop_assert!(x.version().time < 1_160_000_000_000_000_000);
        prop_assert_eq!(x.to_string().parse::<TreeId>(), Ok(x));
        prop_assert_eq!(x.to_string().parse::<RevId>(), Ok(RevId::Tree(x)));
    }
}

/// What a stock peer reads of a revision: the same one, nothing that is not so, each author once.
fn check_wire(vector: &VersionVector, known: Option<RevId>) -> Result<(), TestCaseError> {
    let history = vector.history_text_for(known);
    let read = VersionVector::from_rev_and_history(&vector.id().to_string(), &history).expect("own text");
    prop_assert_eq!(read.compare(vector), Causality::Same);
    prop_assert!(read.all_versions().all(|v| vector.contains(v)), "{}: {}", vector, history);
    let mut authors: Vec<SourceId> = read.history.iter().map(|v| v.source).collect();
    authors.sort();
    authors.dedup();
    prop_assert_eq!(authors.len(), read.history.len(), "{}", history);
    prop_assert!(vector.is_tree() || read.trees.len() <= 1, "{}", history);
    let list: VersionVector = vector.list_text(known).parse().expect("own text");
    prop_assert_eq!(list.current, vector.current);
    Ok(())
}

/// As Couchbase Lite converts.
#[test]
fn a_tree_id_and_its_version_are_one_revision() {
    let id: TreeId = "2-327dd50c4926f58d9ff78c854a9e8dbcb8aaa08d".parse().expect("a tree ID");
    assert_eq!(id.version().to_string(), "2327dd50c49@Revision+Tree+Encoding");
    let (as_id, as_version): (VersionVector, VersionVector) = (
        id.to_string().parse().expect("a revision"),
        "2327dd50c49@Revision+Tree+Encoding; 18eb6c4391fa0000@fmYb9aYsS1yHcMQjX68DNw".parse().expect("so"),
    );
    assert_eq!(as_id.compare(&as_version), Causality::Same);
    assert_eq!(as_id.id(), RevId::Tree(id));
}

#[test]
fn each_tree_id_has_one_text() {
    for good in
        ["1-ab", "1048575-31be50c7aaf8f0ce705aa62ae085f3c5d14fdfe5", "3-0123456789abcdef0123456789abcdef"]
    {
        assert_eq!(good.parse::<TreeId>().map(|id| id.to_string()), Ok(good.into()));
    }
    let long = format!("1-{}", "a".repeat(42));
    for bad in [
        "",
        "-",
        "1-",
        "-ab",
        "0-ab",
        "01-ab",
        "+1-ab",
        "1-abc",
        "1-AB",
        "1-ag",
        "1--ab",
        "1048576-ab",
        "99999999999-ab",
        "1-ab@x",
        "1-ab ",
        &long,
    ] {
        assert!(bad.parse::<TreeId>().is_err(), "{bad:?} was read");
    }
}

/// As recorded: what a conflict with a tree ID leaves behind.
#[test]
fn conflicts_with_tree_ids_end_as_recorded() {
    let read = |text: &str| text.parse::<VersionVector>().expect("a revision");
    let parent = "1-6fe86833e77d459ae48447b1b12651c52445b4f6";
    let local = read(&format!("2-327dd50c4926f58d9ff78c854a9e8dbcb8aaa08d, {parent}"));
    let remote = read(&format!("3-cb12f94888a4ab7b1757ff2fa5710f69ee64044e, {parent}"));
    let ours = read(&format!("18eb6c4390e40000@A9B1FHgGSVCwBVb0Caty7Q; {parent}"));
    assert_eq!(local.compare(&remote), Causality::Conflict);
    assert_eq!(local.compare(&ours), Causality::Conflict);

    let kept = local.with_ancestors_of(&remote);
    assert_eq!(kept.id().to_string(), "2327dd50c49@Revision+Tree+Encoding");
    assert_eq!(kept.history_text_for(Some(remote.id())), remote.id().to_string());
    assert_eq!(remote.taken_against(&local).to_string(), remote.to_string());

    let kept = ours.with_ancestors_of(&remote);
    let history = "3cb12f94888@Revision+Tree+Encoding, 3-cb12f94888a4ab7b1757ff2fa5710f69ee64044e";
    assert_eq!(kept.history_text_for(Some(remote.id())), history);
    let taken = ours.taken_against(&local);
    assert_eq!(taken.versions_text(), ours.id().to_string());
    assert!(taken.contains(local.current));
    assert!(local.needs_version_to_win(&ours) && !local.needs_version_to_win(&remote));
}
