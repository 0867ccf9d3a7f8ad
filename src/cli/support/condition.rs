//! What is wrong with a database while it is in use: it has failed, the disk is full, a clock is wrong, there is a copy.

use std::convert::Infallible;
use std::time::Duration;

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::events::{Event, Events};
use crate::cli::support::output::{bytes_text, counted};
use crate::database::{Database, Lack, Room, Twin};

/// Between two looks at a database in which much happens.
const CALM: Duration = Duration::from_millis(250);

/// Completes when the database has failed, with what to say: sled's memory is ahead of the storage device then, and opening again
/// is the only way on.
pub(crate) async fn broken(db: &Database) -> CliError {
    /// A failed write is told at once; what a read found is seen by the next look.
    const LOOK_INTERVAL: Duration = Duration::from_secs(5);
    let mut changed = db.watch();
    loop {
        changed.mark_unchanged();
        if let Some(reason) = db.failure() {
            let path = db.path().display();
            let message = format!("database {path}: {reason}; nothing that was acknowledged is lost");
            return CliError::new(Exit::Database, message).help(
                "make room or mend what is wrong, then start this again (a service manager that restarts it does)",
            );
        }
        // Between the two it is looked no oftener than somebody could notice.
        tokio::time::sleep(CALM).await;
        let _ = tokio::time::timeout(LOOK_INTERVAL, changed.changed()).await;
    }
}

/// Tells that room has come to its end, or `None`: that there is some again.
fn tell_room(events: &Events, room: &Room, lack: Option<Lack>) {
    let (free_bytes, keep_free_bytes) = (room.free_bytes, room.keep_free_bytes);
    let free = free_bytes.map_or_else(|| "little".to_owned(), bytes_text);
    let until = "nothing is stored or acknowledged until there is room; all else goes on";
    events.say(&match lack {
        Some(Lack::Medium) => {
            let kept = bytes_text(keep_free_bytes);
            format!("{} ({free} free, {kept} are kept so): {until}", Lack::Medium)
        }
        Some(lack) => format!("{lack}: {until}"),
        None => format!("there is room again ({free} free on the disk): what comes is stored"),
    });
    let full = lack.is_some();
    let lack = lack.map(|lack| match lack {
        Lack::Quota => "quota",
        Lack::FileSize => "file_size",
        Lack::Medium => "disk",
    });
    events.emit(&Event::Storage { full, lack, free_bytes, keep_free_bytes });
}

/// Tells what is wrong with the disk or a clock, once when it begins and once when it is over; never ends.
pub(crate) async fn tell_condition(db: &Database, events: &Events) -> Infallible {
    /// While there is no room: others make some, and do not tell.
    const SHORT_INTERVAL: Duration = Duration::from_secs(1);
    /// Else: other programs fill a disk, too, and a clock is set.
    const LOOK_INTERVAL: Duration = Duration::from_secs(5);
    let mut changed = db.watch();
    let (mut was_short, mut shortages, mut told) = (false, 0, Told::default());
    loop {
        changed.mark_unchanged();
        let room = db.room();
        // One that was over before anybody looked is told all the same: a peer was refused.
        if room.shortages != shortages && !room.is_short && !was_short {
            tell_room(events, &room, room.last_lack);
            was_short = true;
        }
        if room.is_short != was_short {
            tell_room(events, &room, room.lack);
        }
        (was_short, shortages) = (room.is_short, room.shortages);
        told.tell(db, events);
        if was_short {
            tokio::time::sleep(SHORT_INTERVAL).await;
        } else {
            let _ = tokio::time::timeout(LOOK_INTERVAL, changed.changed()).await;
            tokio::time::sleep(CALM).await;
        }
    }
}

/// How far ahead of the system's a database's clock is told: a stock peer refuses what is further ahead.
pub(crate) const CLOCK_TOLD: Duration = Duration::from_secs(120);

/// What to do about a copy.
pub(crate) const COPY_HELP: &str =
    "on one of the two devices, `gattway db renew --identity` makes another one of it";

/// What was told of clocks and copies.
#[derive(Default)]
struct Told {
    versions_ahead: u64,
    clock: bool,
}

impl Told {
    fn tell(&mut self, db: &Database, events: &Events) {
        let (versions_ahead, ahead) = (db.versions_ahead(), db.clock_ahead());
        let is_ahead = ahead > CLOCK_TOLD;
        if versions_ahead != self.versions_ahead || is_ahead != self.clock {
            if self.versions_ahead == 0 && versions_ahead > 0 {
                events.say(
                    "a peer's clock, or this device's, is wrong by more than a day; see `gattway db info`",
                );
            }
            if is_ahead && !self.clock {
                events.say(&format!("{}; see `gattway db info`", clock_text(ahead)));
            }
            (self.versions_ahead, self.clock) = (versions_ahead, is_ahead);
            events.emit(&Event::Clock { versions_ahead, ahead_seconds: ahead.as_secs() });
        }
        tell_copy(db, events);
    }
}

/// Tells, once, that another device goes on with a copy of the database.
pub(crate) fn tell_copy(db: &Database, events: &Events) {
    if let Some(twin) = db.twin().filter(|_| events.is_first_copy()) {
        events.say(&format!("{}\n  -> {COPY_HELP}", copy_text(&twin)));
        let revision = twin.version.to_string();
        events.emit(&Event::Copy { collection: &twin.collection, id: &twin.id, revision });
    }
}

/// That a database's clock is ahead.
pub(crate) fn clock_text(ahead: Duration) -> String {
    let seconds = ahead.as_secs();
    let long = match seconds {
        0..=7_199 => counted(seconds / 60, "minute"),
        7_200..=172_799 => counted(seconds / 3_600, "hour"),
        _ => counted(seconds / 86_400, "day"),
    };
    format!(
        "the clock of this database is {long} ahead of the system's: one of the two was, or is, set wrong"
    )
}

/// That there is a copy.
pub(crate) fn copy_text(twin: &Twin) -> String {
    format!(
        "another device goes on with a copy of this database, or its files were set back: {} of {:?} in {} was not made here; \
         edits of one replace the other's",
        twin.version, twin.id, twin.collection
    )
}
