//! Where our sides say or keep something else than the recorded core, on purpose or because the core has a fault of its own.
//! A difference that is not listed fails, and so does an entry that no difference needs. The reasons stand in
//! `firmware-notes/replication.md`, differences, too.

use crate::recording::Side;

/// Recordings that one of our sides cannot take part in, and why.
pub const NOT_PLAYED: &[(&str, Side, &str)] = &[
    ("wrong-versioning-vv", Side::Passive, KEEPS_TREES),
    ("revtree-active-vs-upgraded-passive-both", Side::Active, KEEPS_TREES),
    ("revtree-active-vs-vv-passive-both", Side::Active, KEEPS_TREES),
    ("revtree-active-vs-vv-passive-pull", Side::Active, KEEPS_TREES),
    ("revtree-active-vs-vv-passive-push", Side::Active, KEEPS_TREES),
    ("upgraded-active-vs-revtree-passive-both", Side::Passive, KEEPS_TREES),
    ("vv-active-vs-revtree-passive-both", Side::Passive, KEEPS_TREES),
    ("vv-active-vs-revtree-passive-pull", Side::Passive, KEEPS_TREES),
    ("vv-active-vs-revtree-passive-push", Side::Passive, KEEPS_TREES),
];

const KEEPS_TREES: &str = "the recorded side in our place keeps revision trees";

/// Recording, our side, how the difference begins, and why it is there.
pub const DIFFERENT: &[(&str, Side, &str, &str)] = &[
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
