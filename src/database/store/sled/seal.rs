//! The seal: what a log held when it was closed, so that the next open knows whether it still holds that.
//!
//! sled cannot tell damage from the torn end of a write, since it does not know where the log ended. A log that was closed
//! in order has a file `seal` with a digest of its table of pages, its end and its length; the file goes, durably, before sled
//! opens the log, since sled writes even when it reads. With it, any change of what the log says is seen. Without it (a crash),
//! the end of the log may be torn, and damage elsewhere is seen by what it hides ([`Survey`]). The content of pages has checksums of sled's own,
//! which it looks at with each read.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::ground::{io_error, sync_directory};
use super::files::{Finding, Salvage, Survey, read_if_there};
use super::tail;
use crate::database::DatabaseError;
use crate::durable::write_atomic;

const SEAL_FILE: &str = "seal";

/// What a log held when it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Seal {
    digest: u32,
    /// Number after the last message.
    end: u64,
    /// Bytes of the log's file. Of a segment that does not end where it did, sled gives up more than what is cut off.
    len: u64,
}

/// Looks at a log without changing it. Damage is a finding of the survey; there is no survey of a log that is new.
pub(in super::super) fn examine(directory: &Path) -> Result<Option<Survey>, DatabaseError> {
    let read = |e| io_error("read", e);
    let len = match fs::metadata(directory.join("db")) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(read(error)),
    };
    let seal = read_if_there(&directory.join(SEAL_FILE)).map_err(read)?;
    if len == 0 {
        if seal.is_some() {
            let detail = format!("{} is empty or gone", directory.join("db").display());
            return Err(DatabaseError::Damaged { detail });
        }
        return Ok(None);
    }
    let mut survey = Survey::read(directory).map_err(read)?;
    match seal.as_deref().map(parse) {
        None => survey.check_tree().map_err(read)?,
        Some(None) => {
            survey.find(SEAL_FILE, None, "the seal of the log, without which lost changes are not seen");
        }
        Some(Some(seal)) => {
            if seal.digest != survey.digest(survey.end()) || seal.end != survey.end() {
                let what = format!(
                    "the log does not hold what it held when it was closed (it ended at number {}, now at {})",
                    seal.end,
                    survey.end()
                );
                survey.find("db", None, what);
            } else if len < seal.len {
                let what = format!("the log was cut: it had {} bytes when it was closed", seal.len);
                survey.find("db", Some(len), what);
            }
        }
    }
    Ok(Some(survey))
}

/// Reads everything that is left of a damaged log, also what sled would not.
pub(in super::super) fn gather(directory: &Path, survey: &mut Survey) -> Result<(), DatabaseError> {
    let read = |e| io_error("read", e);
    survey.replay_all().map_err(read)?;
    let seal = read_if_there(&directory.join(SEAL_FILE)).map_err(read)?;
    // Where only the table of pages was lost, it can be made again, and the seal tells that it is the same.
    let is_same = seal.as_deref().and_then(parse).is_some_and(|seal| survey.digest(seal.end) == seal.digest);
    survey.is_torn = !is_same;
    Ok(())
}

/// [`examine`] for opening: damage is an error, what is only left over goes, and the seal, durably.
pub(in super::super) fn admit(directory: &Path) -> Result<(), DatabaseError> {
    remove_unfinished_snapshots(directory).map_err(|e| io_error("open", e))?;
    let Some(survey) = examine(directory)? else { return Ok(()) };
    let count = survey.findings().1;
    if survey.is_only_settings() {
        tracing::warn!(path = %directory.display(), "the log's settings are damaged and are written anew");
        fs::remove_file(directory.join("conf")).map_err(|e| io_error("open", e))?;
    }
    if count > 0 && !survey.is_only_settings() {
        return Err(damage(directory, &survey));
    }
    let is_sealed = directory.join(SEAL_FILE).try_exists().map_err(|e| io_error("open", e))?;
    if is_sealed { unseal(directory) } else { tail::rewrite(directory, &survey) }
}

/// [`examine`] for reading: what the log holds, of which nothing may be lost. Changes nothing.
pub(in super::super) fn admit_to_read(directory: &Path) -> Result<Option<Salvage>, DatabaseError> {
    let Some(survey) = examine(directory)? else { return Ok(None) };
    let known = survey.findings().1;
    if known > 0 && !survey.is_only_settings() {
        return Err(damage(directory, &survey));
    }
    let salvage = Salvage::read(survey).map_err(|e| io_error("read", e))?;
    if salvage.survey().findings().1 > known || !salvage.lost().is_empty() {
        return Err(damage(directory, salvage.survey()));
    }
    Ok(Some(salvage))
}

/// The error that the findings of a survey are.
fn damage(directory: &Path, survey: &Survey) -> DatabaseError {
    let (findings, count) = survey.findings();
    let first = findings.first().map(|finding| describe(directory, finding)).unwrap_or_default();
    let more = if count > 1 { format!(", and {} more", count - 1) } else { String::new() };
    DatabaseError::Damaged { detail: format!("{first}{more}") }
}

/// A finding for people.
pub(in super::super) fn describe(directory: &Path, finding: &Finding) -> String {
    let log = directory.file_name().unwrap_or_default().to_string_lossy();
    let place = finding.offset.map(|offset| format!(", byte {offset}")).unwrap_or_default();
    format!("{log}/{}{place}: {}", finding.file, finding.what)
}

/// sled takes a snapshot that it was writing when the power went for one, and fails.
fn remove_unfinished_snapshots(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|n| n.starts_with("snap.") && n.ends_with(".generating")) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Seals a log to which everything was synced and nothing is written any more.
pub(in super::super) fn seal(directory: &Path) -> Result<(), DatabaseError> {
    let survey = Survey::read(directory).map_err(|e| io_error("read", e))?;
    if let Some(finding) = survey.findings().0.first() {
        return Err(DatabaseError::Damaged { detail: describe(directory, finding) });
    }
    let len = fs::metadata(directory.join("db")).map_err(|e| io_error("read", e))?.len();
    let seal = Seal { digest: survey.digest(survey.end()), end: survey.end(), len };
    let mut bytes = postcard::to_stdvec(&seal).unwrap_or_default();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    // Whoever may read the log may read this.
    write_atomic(&directory.join(SEAL_FILE), 0o666, &bytes).map_err(|e| io_error("seal", e))
}

/// Takes the seal away that is there, durably: sled is about to write.
fn unseal(directory: &Path) -> Result<(), DatabaseError> {
    fs::remove_file(directory.join(SEAL_FILE)).map_err(|e| io_error("unseal", e))?;
    sync_directory(directory)
}

fn parse(bytes: &[u8]) -> Option<Seal> {
    let (bytes, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(bytes).to_le_bytes() != *crc {
        return None;
    }
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::super::super::ground::SEGMENT_BYTES;
    use super::*;
    use crate::database::{Database, DatabaseConfig};

    const PAGE: usize = 4096;
    const DOCUMENTS: u32 = 400;

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("a directory");
        for entry in fs::read_dir(from).expect("the directory") {
            let (entry, path) = (entry.as_ref().expect("an entry").path(), to);
            let to = path.join(entry.file_name().expect("a name"));
            if entry.is_dir() { copy(&entry, &to) } else { fs::copy(&entry, &to).map(drop).expect("copied") }
        }
    }

    fn text(n: u32, round: u32) -> String {
        let mut random = fastrand::Rng::with_seed(u64::from(n * 10 + round));
        (0..300).map(|_| random.alphanumeric()).collect()
    }

    /// Documents that were saved again and again, so that some of the log is of no use any more.
    fn build(path: &Path) -> PathBuf {
        let database = Database::open(path, DatabaseConfig::default()).expect("open");
        let collection = database.default_collection().expect("default");
        for round in 0..3 {
            for first in (0..DOCUMENTS).step_by(20) {
                let saved = database.batch(|batch| {
                    (first..first + 20).try_for_each(|n| {
                        batch.put(&collection, &format!("d{n}"), &json!({"text": text(n, round)}))
                    })
                });
                saved.expect("saved");
            }
        }
        path.join("log-000001")
    }

    /// Whether all that was saved is there as it was. Otherwise it says so; and only without a seal it may be older.
    fn is_whole(database: &Database, is_sealed: bool, case: &str) -> bool {
        let collection = database.default_collection().expect("default");
        for n in 0..DOCUMENTS {
            let document = match collection.get(&format!("d{n}")) {
                Ok(document) => document,
                Err(DatabaseError::Damaged { .. }) => return false,
                Err(error) => panic!("{case}: d{n}: {error}"),
            };
            let body = document.map(|document| document.body()["text"].clone());
            if body != Some(text(n, 2).into()) {
                let is_older = (0..2).any(|round| body == Some(text(n, round).into()));
                assert!(is_older && !is_sealed, "{case}: d{n}: {body:?}");
                return false;
            }
        }
        true
    }

    #[test]
    fn a_finding_names_its_log_its_file_and_its_place() {
        let finding = |offset| Finding { file: "db".to_owned(), offset, what: "unreadable".to_owned() };
        let said = [None, Some(7)].map(|offset| describe(Path::new("/db/log-000001"), &finding(offset)));
        assert_eq!(said, ["log-000001/db: unreadable", "log-000001/db, byte 7: unreadable"]);
    }

    /// Nothing may be lost of a log that is read alone: no page that is there, and no range of keys. Whoever asks hears of the first
    /// thing, and how many more there are.
    #[test]
    fn a_log_that_is_read_alone_is_whole() {
        use super::super::files::tests::salvage::{a_log, a_log_with_garbage};
        let read = |(directory, _survey): (tempfile::TempDir, Survey)| {
            admit_to_read(directory.path()).map(|read| drop(read.expect("a log"))).map_err(|e| e.to_string())
        };
        assert_eq!(read(a_log_with_garbage(0)), Ok(()));
        assert!(read(a_log_with_garbage(1)).is_err_and(|error| error.ends_with(": page 3")));
        assert!(read(a_log_with_garbage(3)).is_err_and(|error| error.ends_with(": page 3, and 2 more")));
        let leaf = |lo: &[u8], hi: &[u8]| (lo.to_vec(), hi.to_vec(), vec![]);
        assert_eq!(read(a_log(&[], &[leaf(b"", b"k"), leaf(b"k", b"")])), Ok(()));
        assert!(read(a_log(&[], &[leaf(b"", b"k"), leaf(b"m", b"")])).is_err(), "from k to m");
    }

    /// A log is what its seal says or it is damaged, whoever looks; and whether its end is known, the seal alone tells.
    #[test]
    fn a_log_is_what_its_seal_says() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let database = Database::open(place.path().join("db"), DatabaseConfig::default()).expect("open");
        let collection = database.default_collection().expect("default");
        for n in 0..20 {
            collection.put(&format!("d{n}"), &json!({ "text": text(n, 0) })).expect("put");
        }
        drop((collection, database));
        let log = place.path().join("db/log-000001");
        let whole = fs::read(log.join(SEAL_FILE)).expect("sealed");
        let changed = |change: fn(&mut Seal)| {
            let mut seal = parse(&whole).expect("a seal");
            change(&mut seal);
            let mut bytes = postcard::to_stdvec(&seal).expect("written");
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
            Some(bytes)
        };
        let cut = Some(whole[..whole.len() - 1].to_vec());
        for (seal, is_sound, is_torn) in [
            (Some(whole.clone()), true, false),
            (changed(|seal| seal.len -= 1), true, false),
            (changed(|seal| seal.len += 1), false, false),
            (changed(|seal| seal.digest ^= 1), false, true),
            (changed(|seal| seal.end += 1), false, true),
            (cut, false, true),
            (None, true, true),
        ] {
            match &seal {
                Some(seal) => fs::write(log.join(SEAL_FILE), seal).expect("written"),
                None => fs::remove_file(log.join(SEAL_FILE)).expect("removed"),
            }
            let mut survey = examine(&log).expect("readable").expect("a log");
            assert_eq!(survey.findings().1 == 0, is_sound, "{seal:?}");
            let read = admit_to_read(&log);
            assert_eq!(read.is_ok_and(|read| read.is_some()), is_sound, "{seal:?}");
            gather(&log, &mut survey).expect("readable");
            assert_eq!(survey.is_torn, is_torn, "{seal:?}");
        }
    }

    /// Only the end of a log may be torn. What is damaged before it is found, when the log is
    /// opened, or is of no use any more; without a seal it can be found late, or leave an older state.
    #[test]
    fn damage_before_the_end_is_found_or_harmless() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let whole = place.path().join("whole");
        let log = build(&whole);
        let survey = Survey::read(&log).expect("readable");
        let newest = survey.newest(2);
        let bytes = fs::read(log.join("db")).expect("readable");
        let (mut found, mut late, mut harmless) = (0, 0, 0);
        for is_sealed in [true, false] {
            for offset in (0..bytes.len()).step_by(SEGMENT_BYTES) {
                if newest.contains(&(offset as u64)) {
                    continue;
                }
                for page in [0, 5, 20] {
                    let case = format!("sealed {is_sealed}, page {page} of the segment at {offset}");
                    let harmed = place.path().join("harmed");
                    let _ = fs::remove_dir_all(&harmed);
                    copy(&whole, &harmed);
                    let log = harmed.join("log-000001");
                    let mut damaged = bytes.clone();
                    let end = (offset + (page + 1) * PAGE).min(bytes.len());
                    damaged[(offset + page * PAGE).min(end)..end].fill(0);
                    fs::write(log.join("db"), damaged).expect("written");
                    if !is_sealed {
                        fs::remove_file(log.join(SEAL_FILE)).expect("sealed");
                    }
                    // To be read alone, which changes nothing, and then as usual.
                    for read_only in [true, false] {
                        let config = DatabaseConfig { create: false, read_only, ..DatabaseConfig::default() };
                        match Database::open(&harmed, config) {
                            Err(DatabaseError::Damaged { .. }) => found += 1,
                            Err(error) => panic!("{case}: {error}"),
                            Ok(database) if is_whole(&database, is_sealed, &case) => harmless += 1,
                            // Nothing tells then what the last messages of a segment were.
                            Ok(_) if !is_sealed => late += 1,
                            Ok(_) => panic!("{case}: found late, though there was a seal"),
                        }
                    }
                }
            }
        }
        // How much of the log is in use where is sled's matter, and not the same each time.
        println!("{found} found, {late} late, {harmless} harmless");
        assert!(late < harmless, "{found} found, {late} late, {harmless} harmless");
        assert!(found + harmless > 12, "{found} found, {harmless} harmless: the log is too short");
    }
}
