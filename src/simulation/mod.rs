//! What a deterministic simulation of whole systems needs of the library: processes that can be killed, and a disk that
//! loses what was not synced. Nothing of it is in a product.
//!
//! All nodes run on one thread, on a tokio runtime of one thread whose clock is paused: time passes only when every task
//! waits. The simulation seeds `fastrand`, and nothing below it asks the operating system for time or randomness, so a
//! seed replays a run. The simulation itself is `hw-tests/sim`; `firmware-notes/simulation.md` says what it can show.

mod process;

pub use self::process::Process;
