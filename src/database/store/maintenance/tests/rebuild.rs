//! A new database that is made of another.

use super::super::rebuild::Rebuild;

/// What was begun and not ended leaves nothing.
#[test]
fn what_is_given_up_leaves_nothing() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let entries = || std::fs::read_dir(place.path()).expect("readable").count();
    let rebuild = Rebuild::create(&place.path().join("new"), &[]).expect("made");
    assert!(rebuild.directory().exists() && entries() > 0);
    drop(rebuild);
    assert_eq!(entries(), 0);
}
