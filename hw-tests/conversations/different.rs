//! Where our sides say or keep something else than the recorded core, on purpose or because the core has a fault of its own.
//! A difference that is not listed fails, and so does an entry that no difference needs. The reasons stand in
//! `firmware-notes/replication.md`, differences, too.

use crate::recording::Side;

/// Recording, our side, how the difference begins, and why it is there.
pub const DIFFERENT: &[(&str, Side, &str, &str)] = &[
    ("conflict-delete-local-run2-revtree", Side::Passive, "document \"c\"", CLOSES_BRANCH),
    ("conflict-local-run2-revtree", Side::Passive, "document \"c\"", CLOSES_BRANCH),
    ("conflict-continuous-merge-revtree", Side::Active, "our last checkpoint", ONE_CHANGE),
    ("conflict-pull-only-revtree", Side::Active, "document \"c\"", HIGHER_ID),
    ("revtree-active-vs-upgraded-passive-both", Side::Active, "we do not say: Active #5", OTHER_KIND),
    ("revtree-active-vs-upgraded-passive-both", Side::Active, "the peer's turn never came", OTHER_KIND),
    ("revtree-active-vs-vv-passive-both", Side::Active, "we do not say: Active #5", OTHER_KIND),
    ("revtree-active-vs-vv-passive-both", Side::Active, "we do not say: Active #6", OTHER_KIND),
    ("revtree-active-vs-vv-passive-both", Side::Active, "the peer's turn never came", OTHER_KIND),
    ("wrong-versioning-revtree", Side::Active, "we do not say: Active #4", OTHER_KIND),
    ("wrong-versioning-revtree", Side::Active, "we do not say: Active #5", OTHER_KIND),
    ("wrong-versioning-revtree", Side::Active, "the peer's turn never came", OTHER_KIND),
    ("future-clock-pull-run1-vv", Side::Active, "we answer Passive #5", CLOCK),
    ("future-clock-pull-run1-vv", Side::Active, "3 documents in the end, recorded 2", CLOCK),
    ("future-clock-push-run1-vv", Side::Passive, "we answer Active #5", CLOCK),
    ("future-clock-push-run1-vv", Side::Passive, "3 documents in the end, recorded 2", CLOCK),
    ("future-clock-push-run1-vv", Side::Active, "our last checkpoint", STAYS_OPEN),
    ("upgraded-both-run1-vv", Side::Active, "we answer Passive #1", ANCESTOR),
    ("upgraded-both-run1-vv", Side::Active, "we answer Passive #3", ANCESTOR),
    ("upgraded-both-run1-vv", Side::Passive, "we say, not recorded: {\"Profile\": \"norev\"", REPLACED),
    ("upgraded-both-run1-vv", Side::Passive, "we do not say: Passive #3", REPLACED),
    ("upgraded-both-run1-vv", Side::Passive, "the peer's turn never came: Active #3", REPLACED),
    ("upgraded-conflict-local-run2-vv", Side::Active, "our last checkpoint", STAYS_OPEN),
    ("upgraded-conflict-local-run2-vv", Side::Passive, "we answer Active #6", CORE_REFUSES),
    ("upgraded-conflict-local-run2-vv", Side::Passive, "document \"tree-vv\"", CORE_REFUSES),
    ("upgraded-conflict-remote-run1-vv", Side::Active, "our last checkpoint", COUNTS_PULLED),
    ("upgraded-conflict-remote-run1-vv", Side::Active, "document \"vv-tree\"", OWN_VERSION),
    ("upgraded-nocommon-run1-vv", Side::Active, "our last checkpoint", COUNTS_PULLED),
    ("upgraded-nocommon-run2-vv", Side::Active, "we answer Passive #1", CORE_FAILS),
    ("upgraded-nocommon-run2-vv", Side::Active, "our last checkpoint", CORE_FAILS),
];

const CLOSES_BRANCH: &str =
    "the peer says which branch of ours it has closed: its revision is taken; the core stays with its own";
const OTHER_KIND: &str = "a peer of the other kind ends the run at once, before anything goes there";
const ONE_CHANGE: &str = "a conflict and what it came to are one change here, two in the core";
const HIGHER_ID: &str = "the recorded resolver looks for times, which tree IDs do not have, and takes the peer's; ours takes the higher ID";
const CLOCK: &str = "a version from the future is taken: it says nothing of the clock here, and whoever has it must not lose it";
const STAYS_OPEN: &str = "a revision that the peer did not take stays open: the next run offers it again";
const ANCESTOR: &str =
    "an ancestor is known from the history: asking for it again would cost a round and a body";
const REPLACED: &str = "commits take no time in this test: what is asked for is replaced by then";
const CORE_REFUSES: &str =
    "the core refuses its own form of a tree ID that won against a version; the sides stay different";
const OWN_VERSION: &str = "a tree ID that wins against a version gets one of its own, or the core refuses it";
const COUNTS_PULLED: &str =
    "ours also counts what was pulled, here beyond a resolution that is still to be pushed";
const CORE_FAILS: &str = "the core answers with an error of its database";
