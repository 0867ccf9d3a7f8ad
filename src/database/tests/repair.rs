//! What is saved of a damaged database, and what is said of the rest: a page or a segment at a time. Damage of any kind is in `damage`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::database::{Database, DatabaseConfig, SalvageReport, VerifyReport};

const PAGE: usize = 4096;
const SEGMENT: usize = 128 * 1024;
const DOCUMENTS: u32 = 300;

/// Whether this tells that a log ends before the place at which it ended when it was closed.
fn ends_earlier(what: &str) -> bool {
    let number = |text: &str| text.split([',', ')']).next().and_then(|number| number.parse::<u64>().ok());
    let ended = what.split_once("it ended at number ").and_then(|(_, rest)| number(rest));
    let ends = what.split_once("now at ").and_then(|(_, rest)| number(rest));
    ended.zip(ends).is_some_and(|(ended, ends)| ends < ended)
}

fn body(n: u32, round: u32) -> Value {
    let mut random = fastrand::Rng::with_seed(u64::from(n * 10 + round));
    let text: String = (0..300).map(|_| random.alphanumeric()).collect();
    json!({"round": round, "text": text})
}

/// Documents that were saved twice; every tenth was deleted then.
fn build(path: &Path) -> BTreeMap<String, Option<Value>> {
    let database = Database::open(path, DatabaseConfig::default()).expect("open");
    let collection = database.default_collection().expect("default");
    let id = |n: u32| format!("d{n}");
    for round in 0..2 {
        for first in (0..DOCUMENTS).step_by(20) {
            let saved = database.batch(|batch| {
                (first..first + 20).try_for_each(|n| batch.put(&collection, &id(n), &body(n, round)))
            });
            saved.expect("saved");
        }
    }
    let deleted = database
        .batch(|batch| (0..DOCUMENTS).step_by(10).try_for_each(|n| batch.delete(&collection, &id(n))));
    deleted.expect("deleted");
    (0..DOCUMENTS).map(|n| (id(n), (n % 10 != 0).then(|| body(n, 1)))).collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("the directory") {
        let from = entry.expect("an entry").path();
        let to = to.join(from.file_name().expect("a name"));
        if from.is_dir() { copy(&from, &to) } else { std::fs::copy(&from, &to).map(drop).expect("copied") }
    }
}

/// Each document that is saved is what was saved last, or is named as doubtful; each that is not is named as lost, or the range in
/// which it was. What was deleted does not come back unnamed.
fn judge(
    case: &str,
    told: &BTreeMap<String, Option<Value>>,
    saved: &Path,
    report: &SalvageReport,
) -> (u32, u32) {
    let is_cut = report.damage.iter().any(|d| ends_earlier(&d.what) || d.what.contains("cut off"));
    let database = Database::open(saved, DatabaseConfig::default()).expect("what was saved is sound");
    let collection = database.default_collection().expect("default");
    let named = |names: &[crate::database::DocumentName], id: &str| names.iter().any(|name| name.id == id);
    let (mut whole, mut lost) = (0, 0);
    for (id, newest) in told {
        let found = collection.get(id).expect("readable").map(|document| Value::Object(document.into_body()));
        if found == *newest {
            whole += 1;
            continue;
        }
        lost += 1;
        let is_told = match found {
            None => named(&report.lost, id) || !report.ranges.is_empty(),
            Some(_) => named(&report.unconfirmed, id),
        };
        assert!(is_told || is_cut, "{case}: {id} in {report:?}");
    }
    assert_eq!(collection.count(), report.documents, "{case}");
    assert!(lost == 0 || !report.is_complete() || is_cut, "{case}: {lost} of {report:?}");
    (whole, lost)
}

#[test]
fn what_damage_takes_is_named_and_the_rest_is_saved() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let [whole, harmed, saved] = ["whole", "harmed", "saved"].map(|name| place.path().join(name));
    let told = build(&whole);
    let bytes = std::fs::read(whole.join("log-000001/db")).expect("readable");
    let check = |path: &Path| -> VerifyReport { Database::check(path).expect("checked") };
    assert!(check(&whole).is_sound());
    let (mut all, mut reported, mut named) = ((0, 0), 0, 0);
    for offset in (0..bytes.len()).step_by(SEGMENT) {
        // What a single page holds differs from run to run; of all segments, one at a time, some are needed in each run.
        for (page, pages) in [(0, 1), (7, 1), (16, 1), (0, SEGMENT / PAGE)] {
            let case = format!("{pages} pages from page {page} of the segment at {offset}");
            for directory in [&harmed, &saved] {
                let _ = std::fs::remove_dir_all(directory);
            }
            copy(&whole, &harmed);
            let mut damaged = bytes.clone();
            let end = (offset + (page + pages) * PAGE).min(bytes.len());
            damaged[(offset + page * PAGE).min(end)..end].fill(0);
            std::fs::write(harmed.join("log-000001/db"), damaged).expect("written");
            let report = Database::repair(&harmed, &saved, |_| ()).expect("most is there");
            let (found, lost) = judge(&case, &told, &saved, &report);
            all = (all.0 + found, all.1 + lost);
            let mut shown = 0;
            let salvaged = Database::salvage(&harmed, "_default", |_| {
                shown += 1;
                Ok(())
            });
            assert_eq!(salvaged.expect("most is there").documents, report.documents, "{case}");
            assert_eq!(shown, report.documents, "{case}");
            // The last, for it may open what is sound.
            let checked = check(&harmed);
            let is_sound = checked.is_sound();
            named += u32::from(checked.listed.iter().any(|what| what.starts_with("lost: ")));
            assert!(!is_sound || lost == 0, "{case}: {lost} are lost, and all is said to be well");
            let (counted, saved) =
                [(&checked.documents, &checked.tombstones), (&report.documents, &report.tombstones)]
                    .map(|(documents, tombstones)| documents + tombstones)
                    .into();
            assert!(counted + report.unconfirmed_count >= saved, "{case}: {checked:?}, {report:?}");
            reported += u32::from(!is_sound);
        }
    }
    println!("{all:?} documents saved and lost, {reported} cases reported");
    assert!(named > 0, "a check names what is lost");
    assert!(reported > 0 && all.1 > 0 && all.1 * 3 < all.0, "{all:?}, {reported}");
}

/// Of a log that nothing seals any more nobody knows whether it told of more: that is said. What is there is counted, and saved.
#[test]
fn of_a_log_without_its_seal_all_is_saved_and_doubted() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (harmed, saved) = (place.path().join("harmed"), place.path().join("saved"));
    let told = build(&harmed);
    std::fs::write(harmed.join("log-000001/seal"), "broken").expect("written");
    let documents = told.values().flatten().count() as u64;
    let tombstones = told.len() as u64 - documents;
    let checked = Database::check(&harmed).expect("checked");
    assert!(!checked.is_sound());
    assert_eq!((checked.documents, checked.tombstones), (documents, tombstones), "{checked:?}");
    assert!(!checked.listed.iter().any(|what| what.starts_with("lost: ")), "{checked:?}");
    let report = Database::repair(&harmed, &saved, |_| ()).expect("all is there");
    assert_eq!((report.documents, report.tombstones), (documents, tombstones), "{report:?}");
    assert!(report.ranges.iter().any(|what| what.contains("may be older than it was")), "{report:?}");
    assert!((report.lost_count, report.unconfirmed_count) == (0, 0) && !report.is_complete(), "{report:?}");
}

/// Identity, group and trust list go with what is saved, as they are; and whether all was saved is said.
#[test]
fn what_stands_beside_a_damaged_database_is_saved_with_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().expect("a temporary directory");
    let (harmed, saved) = (place.path().join("harmed"), place.path().join("saved"));
    build(&harmed);
    std::fs::write(harmed.join("trust"), "whom").expect("write");
    std::fs::set_permissions(harmed.join("trust"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
    std::fs::write(harmed.join("trust.lock"), "nobody's").expect("write");
    let report = Database::repair(&harmed, &saved, |_| ()).expect("nothing is wrong with it");
    assert!(report.is_complete(), "{report:?}");
    let trust = saved.join("trust");
    assert_eq!(std::fs::read_to_string(&trust).expect("there"), "whom");
    assert_eq!(std::fs::metadata(&trust).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(!saved.join("trust.lock").exists());
    for report in [
        SalvageReport { lost_count: 1, ..SalvageReport::default() },
        SalvageReport { unconfirmed_count: 1, ..SalvageReport::default() },
        SalvageReport { ranges: vec!["all".into()], ..SalvageReport::default() },
    ] {
        assert!(!report.is_complete(), "{report:?}");
    }
}

/// What was saved knows its own versions again, however often it was saved: those of each source ID that it had.
#[test]
fn what_is_saved_again_and_again_knows_who_it_was() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = |n: usize| place.path().join(n.to_string());
    let mut sources = vec![];
    for n in 0..4 {
        let database = Database::open(path(n), DatabaseConfig::default()).expect("open");
        assert_eq!(database.store.former(), sources, "{n}");
        sources.push(database.store.source());
        let collection = database.default_collection().expect("default");
        collection.put(&format!("d{n}"), &json!({})).expect("put");
        drop((collection, database));
        let report = Database::repair(path(n), path(n + 1), |_| ()).expect("it is whole");
        assert_eq!((report.former_source, report.documents), (sources.last().copied(), n as u64 + 1));
    }
    assert!((0..3).all(|n| sources[n] != sources[n + 1]), "each is another");
}
