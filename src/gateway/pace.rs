//! The pace of what a gateway does to a database beside what it is there for.

use std::time::Duration;

use tokio::time::Instant;

use crate::database::DatabaseError;
use crate::task;

/// The pause after a step, as a multiple of it, and its limits.
const PAUSE_FACTOR: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Runs a step that blocks, and pauses after it.
pub(super) async fn paced<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, DatabaseError> {
    let began = Instant::now();
    let done = task::blocking(work).await;
    let pause = (began.elapsed() * PAUSE_FACTOR).clamp(PAUSE_MIN, PAUSE_MAX);
    tokio::time::sleep(pause).await;
    done.unwrap_or(Err(DatabaseError::Closed))
}
