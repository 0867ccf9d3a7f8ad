//! The asynchronous runtime of commands that talk to peers, and the signals that end them.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::words::{self, Level};

/// Threads that run connections, at most. Two keep a small device's cores busy, and on a single core a second one only takes the
/// processor from the first at each packet; blocking work has threads of its own.
const WORKERS_MAX: usize = 2;

/// How long after a signal the command may take to come to its end; the process ends then in any case. What the disk takes to
/// close the database comes on top.
const ENDING_LIMIT: Duration = Duration::from_millis(4800);

/// How long the last word of a process that is ended so may take.
const LAST_WORD_PATIENCE: Duration = Duration::from_millis(200);

/// `SIGHUP` among the signals of `/proc/self/status`.
const HANGUP_BIT: u64 = 1;

/// `SIGXFSZ`.
const FILE_SIZE_SIGNAL: i32 = 25;

/// Runs `future` to its end. Tasks that are still blocked then are left behind.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX))
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Failure, format!("cannot start: {error}")))?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// A file that has reached the limit of this process (`ulimit -f`) makes a write fail from now on, and does not kill.
pub(crate) fn outlive_file_limit() {
    let install = || -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let _entered = runtime.enter();
        // The handler outlives what hears of it.
        signal(SignalKind::from_raw(FILE_SIZE_SIGNAL)).map(drop)
    };
    if let Err(error) = install() {
        tracing::debug!(%error, "no handler for SIGXFSZ");
    }
}

/// Ctrl-C, the request to terminate, and the end of the terminal (unless it is ignored, as by `nohup`). A thread of its own
/// hears them, whatever the others wait for.
pub(crate) struct Signals {
    told: watch::Receiver<u32>,
    seen: u32,
    is_over: Arc<AtomicBool>,
}

impl Signals {
    /// From now on these signals no longer kill the process; but it ends at last within [`ENDING_LIMIT`] of the first, or with
    /// another Ctrl-C that nobody waits for.
    pub(crate) fn listen() -> Result<Signals, CliError> {
        Signals::listen_to(!is_hangup_ignored())
    }

    /// The same for a service, to which the end of a terminal says something else.
    pub(crate) fn listen_but_hangup() -> Result<Signals, CliError> {
        Signals::listen_to(false)
    }

    fn listen_to(hangup: bool) -> Result<Signals, CliError> {
        let failed =
            |error: io::Error| CliError::new(Exit::Failure, format!("cannot listen for signals: {error}"));
        let (sender, told) = watch::channel(0);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let run = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(async {
                match Heard::listen(hangup) {
                    Ok(heard) => {
                        let _ = ready.send(Ok(()));
                        heard.follow(&sender, &over).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            }),
            Err(error) => drop(ready.send(Err(error))),
        };
        thread::Builder::new().name("gattway-signals".into()).spawn(run).map_err(failed)?;
        // At once: the thread does nothing else before.
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended"))).map_err(failed)?;
        Ok(Signals { told, seen: 0, is_over })
    }

    /// Whether one has come that nobody has acted on.
    pub(crate) fn is_told(&self) -> bool {
        *self.told.borrow() > self.seen
    }

    /// Completes with the first one, and then with each Ctrl-C.
    pub(crate) async fn next(&mut self) {
        let seen = self.seen;
        match self.told.wait_for(|count| *count > seen).await {
            Ok(_) => self.seen += 1,
            // Cannot be: the thread lives as long as the process.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
    }
}

struct Heard {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Heard {
    fn listen(hangup: bool) -> io::Result<Heard> {
        Ok(Heard {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: hangup.then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// The next one; true if it is Ctrl-C.
    async fn next(&mut self) -> bool {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
            _ = hangup => false,
        }
    }

    /// Tells of each, and ends the process when nobody acts on them.
    async fn follow(mut self, told: &watch::Sender<u32>, is_over: &AtomicBool) {
        let mut ends_at: Option<Instant> = None;
        loop {
            let late = async {
                match ends_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (is_late, is_key) = tokio::select! {
                () = late => (true, false),
                is_key = self.next() => (false, is_key),
            };
            // A service manager, and a terminal that goes, may send more than one; a person who presses Ctrl-C again means it.
            let is_repeated = *told.borrow() > 0;
            if is_repeated && !is_late && !is_key {
                continue;
            }
            let is_over = is_over.load(Ordering::Acquire);
            if is_late && is_over {
                // What is left is the disk's; another signal ends it.
                ends_at = None;
                continue;
            }
            if is_late || (is_over && is_repeated) {
                end_at_once();
            }
            ends_at.get_or_insert_with(|| Instant::now() + ENDING_LIMIT);
            told.send_modify(|count| *count += 1);
        }
    }
}

fn end_at_once() -> ! {
    words::say(Level::Warn, "gattway: ended before its orderly end; what was acknowledged is stored", None);
    words::flush(LAST_WORD_PATIENCE);
    std::process::exit(Exit::Interrupted as i32)
}

/// Whether whoever started this process wants it to outlive the terminal.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & HANGUP_BIT != 0)
}
