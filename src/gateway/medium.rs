//! What the process hands to the medium, over all its lives, and what that means for a card that can be written over so often.
//!
//! The kernel counts the bytes (`/proc/self/io`): pages of files that the process made dirty, its log's as well as any other's.
//! The sum is kept in a small file beside the databases, which is written at an orderly end and a few times a day: what a life that
//! was killed wrote since then is not in it, nor is the time.

use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::status::MediumStatus;
use crate::durable::{self, OWNER_ONLY};

/// The file with the sum, in the state directory.
const FILE: &str = "written";

/// How often the sum is kept, so that little is lost with a process that is killed, and little is written for it.
const KEEP_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// What was measured for less time says nothing of a day.
const MEASURED_MIN_S: u64 = 60;

const DAY_S: u128 = 86_400;

/// Sectors of `/sys/dev/block/*/size`, whatever the device calls a sector.
const SECTOR_BYTES: u64 = 512;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    bytes: u64,
    seconds: u64,
}

/// Counts what this process writes.
pub(super) struct Medium {
    file: PathBuf,
    /// Of lives before this one.
    before: Sum,
    began: Instant,
    kept: Instant,
}

impl Medium {
    /// Goes on with the sum in this directory, if it is there.
    pub(super) fn open(directory: &Path) -> Medium {
        let file = directory.join(FILE);
        let before = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let now = Instant::now();
        Medium { file, before: before.unwrap_or_default(), began: now, kept: now }
    }

    /// Keeps the sum when it is time.
    pub(super) fn look(&mut self) {
        if self.kept.elapsed() >= KEEP_EVERY {
            self.keep();
        }
    }

    /// Keeps the sum.
    pub(super) fn keep(&mut self) {
        self.kept = Instant::now();
        let Some(sum) = self.sum() else { return };
        let bytes = serde_json::to_vec(&sum).unwrap_or_default();
        if let Err(error) = durable::write_atomic(&self.file, OWNER_ONLY, &bytes) {
            debug!(path = %self.file.display(), %error, "what was written to the medium is not kept");
        }
    }

    fn sum(&self) -> Option<Sum> {
        let bytes = written_bytes(&std::fs::read_to_string("/proc/self/io").ok()?)?;
        Some(Sum {
            bytes: self.before.bytes.saturating_add(bytes),
            seconds: self.before.seconds.saturating_add(self.began.elapsed().as_secs()),
        })
    }

    /// What is known now, of a gateway with databases at these paths.
    pub(super) fn status<'p>(
        &self,
        paths: impl Iterator<Item = &'p Path>,
        cycles: Option<u64>,
    ) -> Option<MediumStatus> {
        Some(estimate(self.sum()?, device_of(paths, Path::new("/sys/dev/block")), cycles))
    }
}

/// What such a sum means for the medium.
fn estimate(sum: Sum, device: Option<(String, u64)>, cycles: Option<u64>) -> MediumStatus {
    let a_day = (sum.seconds >= MEASURED_MIN_S)
        .then(|| u128::from(sum.bytes) * DAY_S / u128::from(sum.seconds))
        .map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
    let (device, device_bytes) = device.unzip();
    // Where nothing is written, nothing wears out.
    let days = |times: u64| {
        let bytes = u128::from(device_bytes?) * u128::from(times);
        u64::try_from(bytes / u128::from(a_day.filter(|a_day| *a_day > 0)?)).ok()
    };
    MediumStatus {
        written_bytes: sum.bytes,
        measured_s: sum.seconds,
        bytes_a_day: a_day,
        days_to_fill: days(1),
        cycles,
        days_to_wear: cycles.and_then(days),
        device,
        device_bytes,
    }
}

/// `write_bytes` of `/proc/PID/io`, without what was given up before it was written.
fn written_bytes(text: &str) -> Option<u64> {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|number| number.trim().parse::<u64>().ok())
    };
    Some(of("write_bytes")?.saturating_sub(of("cancelled_write_bytes").unwrap_or_default()))
}

/// Name and size of the block device that has all these paths, as sysfs tells them; `None`: there are several, or none, as in memory.
fn device_of<'p>(paths: impl Iterator<Item = &'p Path>, sysfs: &Path) -> Option<(String, u64)> {
    let mut devices = paths.filter_map(|path| {
        // Where a database is to be made, its directory may be there.
        let found = path.ancestors().find_map(|path| std::fs::metadata(path).ok())?;
        whole_device(sysfs, found.st_dev())
    });
    let first = devices.next()?;
    devices.all(|other| other == first).then_some(first)
}

/// The device that a partition is on.
fn whole_device(sysfs: &Path, number: u64) -> Option<(String, u64)> {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let link = sysfs.join(format!("{major}:{minor}"));
    let found = link.canonicalize().ok()?;
    let whole = match found.join("partition").exists() {
        true => found.parent()?.to_owned(),
        false => found,
    };
    let sectors = std::fs::read_to_string(whole.join("size")).ok()?.trim().parse::<u64>().ok()?;
    let bytes = sectors.checked_mul(SECTOR_BYTES).filter(|bytes| *bytes > 0)?;
    Some((whole.file_name()?.to_string_lossy().into_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    #[test]
    fn what_is_told_of_wear_follows_from_what_was_measured_and_said_alone() {
        let sum = Sum { bytes: GB, seconds: 86_400 / 2 };
        let card = || Some(("mmcblk0".to_owned(), 32 * GB));
        let told = estimate(sum, card(), Some(1_000));
        assert_eq!((told.bytes_a_day, told.days_to_fill), (Some(2 * GB), Some(16)));
        assert_eq!((told.cycles, told.days_to_wear), (Some(1_000), Some(16_000)));
        assert_eq!((told.device.as_deref(), told.device_bytes), (Some("mmcblk0"), Some(32 * GB)));
        let told = estimate(sum, card(), None);
        assert_eq!((told.days_to_fill, told.days_to_wear), (Some(16), None), "no cycles are assumed");
        let told = estimate(sum, None, Some(1_000));
        assert_eq!((told.bytes_a_day, told.days_to_fill, told.days_to_wear), (Some(2 * GB), None, None));
        let told = estimate(Sum { seconds: MEASURED_MIN_S - 1, ..sum }, card(), Some(1_000));
        assert_eq!((told.bytes_a_day, told.days_to_wear), (None, None), "too early");
        let told = estimate(Sum { bytes: 0, ..sum }, card(), Some(1_000));
        assert_eq!((told.bytes_a_day, told.days_to_wear), (Some(0), None), "for ever");
        let most = Sum { bytes: u64::MAX, seconds: MEASURED_MIN_S };
        let told = estimate(most, Some((String::new(), u64::MAX)), Some(u64::MAX));
        assert_eq!(
            (told.bytes_a_day, told.days_to_fill, told.days_to_wear),
            (Some(u64::MAX), Some(1), Some(u64::MAX))
        );
    }

    #[test]
    fn lives_are_added_up_and_a_sum_that_cannot_be_read_begins_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut medium = Medium::open(directory.path());
        assert_eq!(medium.before, Sum::default());
        medium.before = Sum { bytes: 1 << 40, seconds: 7 };
        medium.keep();
        let again = Medium::open(directory.path());
        assert!(again.before.bytes >= 1 << 40 && again.before.seconds >= 7, "{:?}", again.before);
        std::fs::write(directory.path().join(FILE), "no number").expect("written");
        assert_eq!(Medium::open(directory.path()).before, Sum::default());
        // Without a directory nothing is kept, and nothing fails.
        Medium::open(&directory.path().join("not there")).keep();
    }

    #[test]
    fn the_kernel_s_count_is_read() {
        let text = "rchar: 5\nwchar: 6\nread_bytes: 1\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n";
        assert_eq!(written_bytes(text), Some(4096));
        assert_eq!(written_bytes("write_bytes: 1\ncancelled_write_bytes: 2\n"), Some(0));
        assert_eq!(written_bytes("wchar: 6\n"), None);
    }

    /// A tree as sysfs has it: a link for each device, a partition inside of what it is a part of.
    #[test]
    fn the_size_is_that_of_the_whole_device() {
        let directory = tempfile::tempdir().expect("a directory");
        let number = std::fs::metadata(directory.path()).expect("there").st_dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let partition = directory.path().join("devices/mmcblk0/mmcblk0p2");
        std::fs::create_dir_all(&partition).expect("made");
        let write =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        write("devices/mmcblk0/size", "62333952\n");
        write("devices/mmcblk0/mmcblk0p2/size", "100\n");
        write("devices/mmcblk0/mmcblk0p2/partition", "2\n");
        let none = device_of([directory.path()].into_iter(), directory.path());
        assert_eq!(none, None, "a file system that is on no block device");
        std::os::unix::fs::symlink(&partition, directory.path().join(format!("{major}:{minor}")))
            .expect("a link");
        let new = directory.path().join("plant.db");
        let found = device_of([directory.path(), new.as_path()].into_iter(), directory.path());
        assert_eq!(found, Some(("mmcblk0".to_owned(), 62_333_952 * 512)));
    }
}
