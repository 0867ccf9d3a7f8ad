//! Databases with revision trees beside others: of two kinds nothing is lost and no sync pretends to have gone well, and what a
//! hostile peer says of trees is refused in its place.

use std::sync::Arc;

use serde_json::json;

use super::pair::Pair;
use super::scripted::{Scripted, request};
use crate::blip::{ErrorReply, OutgoingMessage};
use crate::database::{Database, DatabaseConfig};
use crate::replica::revision::Versioning;
use crate::replica::store::{CollectionId, ReplicaStore};
use crate::replicator::config::{ActiveConfig, PassiveConfig, ReplicatorType};
use crate::replicator::error::SessionError;
use crate::replicator::session::Session;

const DEFAULT: CollectionId = CollectionId(0);

fn databases(kinds: [Versioning; 2]) -> ([Arc<Database>; 2], tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut number = 0;
    let databases = kinds.map(|versioning| {
        number += 1;
        let config = DatabaseConfig { versioning: Some(versioning), ..DatabaseConfig::default() };
        Arc::new(Database::open(directory.path().join(number.to_string()), config).expect("made"))
    });
    (databases, directory)
}

fn put(database: &Database, id: &str) {
    database.default_collection().expect("open").put(id, &json!({"of": id})).expect("saved");
}

fn count(database: &Database) -> u64 {
    database.default_collection().expect("open").count()
}

/// In each direction, with and without the extension: an error that says what it is, but for trees that are only pushed, which a
/// database with vectors takes.
#[test]
fn peers_of_different_kinds_end_with_an_error_that_says_so() {
    let (trees, vectors) = (Versioning::RevisionTrees, Versioning::VersionVectors);
    for kinds in [[trees, vectors], [vectors, trees]] {
        for direction in [ReplicatorType::PushAndPull, ReplicatorType::Push, ReplicatorType::Pull] {
            for extension in [false, true] {
                let ([a, p], _directory) = databases(kinds);
                put(&a, "a");
                put(&p, "p");
                let config =
                    ActiveConfig { extension, direction, peer_uid: "p".into(), ..ActiveConfig::default() };
                let passive = PassiveConfig { extension, ..PassiveConfig::default() };
                let ended = Pair::new(1, config, passive, &a, &p).run();
                let what = format!("{kinds:?} {direction:?} {extension}: {ended:?}");
                if kinds[0] == trees && direction == ReplicatorType::Push {
                    assert_eq!(ended, Ok(()), "{what}");
                    assert_eq!((count(&a), count(&p)), (1, 2), "{what}");
                } else {
                    assert_eq!(ended, Err(SessionError::Versioning), "{what}");
                    assert_eq!(count(&a), 1, "{what}");
                }
            }
        }
    }
}

/// A passive side with trees, and one document at generation 2.
fn passive() -> (Scripted<Database>, Arc<Database>, tempfile::TempDir) {
    let ([database, _], directory) = databases([Versioning::RevisionTrees; 2]);
    put(&database, "x");
    database.default_collection().expect("open").put("x", &json!({})).expect("saved");
    let session = Session::passive(PassiveConfig::default());
    (Scripted::new(session, database.clone()).with_collections(), database, directory)
}

fn answered(
    scripted: &mut Scripted<Database>,
    message: OutgoingMessage,
) -> Result<OutgoingMessage, ErrorReply> {
    scripted.ask(message).0.expect("an answer")
}

/// Each is refused with what Couchbase Lite says, nothing of it is stored, and the session goes on.
#[test]
fn hostile_histories_are_refused_one_by_one() {
    let (mut scripted, database, _directory) = passive();
    let hex = "ab".repeat(20);
    // Longer digests would not fit into the properties of a message.
    let many: Vec<String> = (1..=10_000).rev().map(|n| format!("{n}-ab")).collect();
    let rev = |rev: &str, history: &str| {
        let message = request("rev").with("id", "n").with("rev", rev).with("history", history);
        message.with("sequence", "1").with("noconflicts", "1").with_body("{}")
    };
    for (name, message, code) in [
        ("a digest of odd length", rev(&format!("1-{}", &hex[1..]), ""), 400),
        ("no digest", rev("1-", ""), 400),
        ("generation 0", rev(&format!("0-{hex}"), ""), 400),
        ("a generation beyond the highest", rev(&format!("1048576-{hex}"), ""), 400),
        ("a version", rev("18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ", ""), 400),
        ("generations that go up", rev(&format!("2-{hex}"), &format!("1-{hex},2-{hex}")), 4),
        ("a gap", rev(&format!("3-{hex}"), &format!("1-{hex}")), 4),
        ("10,000 ancestors", rev("10001-ab", &many.join(",")), 4),
        ("garbage", rev(&format!("2-{hex}"), "garbage"), 4),
        ("a closed branch that is none", rev(&format!("2-{hex}"), "").with("deleted_branch", "x,y"), 4),
    ] {
        let error = answered(&mut scripted, message).expect_err(name);
        assert_eq!(error.code, code, "{name}: {error:?}");
        assert!(ReplicaStore::document(&*database, DEFAULT, "n").expect("read").is_none(), "{name}");
    }
    let lists = [
        ("proposeChanges", r#"[["x","18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ","",8]]"#.to_owned()),
        ("changes", r#"[[1,"x","18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ"]]"#.to_owned()),
        ("proposeChanges", format!(r#"[["x","1-{}"]]"#, &hex[1..])),
    ];
    for (profile, body) in lists {
        let error = answered(&mut scripted, request(profile).with_body(body)).expect_err("refused");
        assert_eq!(error.code, 26, "{profile}: {error:?}");
    }
    let fine = rev(&format!("2-{hex}"), &format!("1-{hex}"));
    answered(&mut scripted, fine).expect("the session goes on");
    assert!(ReplicaStore::document(&*database, DEFAULT, "n").expect("read").is_some());
}

/// A peer that closes branches which it cannot know, more of them than are kept, changes nothing but what it sends.
#[test]
fn closed_branches_of_a_peer_are_bounded() {
    let (mut scripted, database, _directory) = passive();
    let local = ReplicaStore::document(&*database, DEFAULT, "x").expect("read").expect("there").vector;
    let many: Vec<String> = (1..500).map(|n| format!("{n}-{}", "cd".repeat(20))).collect();
    let message = |branches: &str| {
        let rev = request("rev").with("id", "x").with("rev", &format!("9-{}", "ef".repeat(20)));
        rev.with("sequence", "1").with("noconflicts", "1").with("gattway-branches", branches).with_body("{}")
    };
    let error = answered(&mut scripted, message(&many.join(","))).expect_err("it does not close ours");
    assert_eq!(error.code, 8);
    answered(&mut scripted, message(&local.trees[0].to_string())).expect("this one does");
    let newest = ReplicaStore::document(&*database, DEFAULT, "x").expect("read").expect("there");
    assert_eq!(newest.vector.line()[0].generation(), 9);
    assert!(newest.vector.closed_branches().contains(&local.trees[0]));
}
