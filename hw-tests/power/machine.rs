//! A guest with two disks whose power can be cut: User Mode Linux in a process group of its own, killed as a whole.
//!
//! What the guest's kernel has not written to the image is gone then, as with a pulled plug. The image lies in the host's
//! page cache, so what the guest has written stays: a disk without a volatile cache of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Pid, Signal, kill_process_group};

use super::task::{Line, SIDES, Task};

/// Size of a disk image. It is sparse.
const DISK_BYTES: u64 = 256 << 20;

/// Memory of the guest.
const MEMORY: &str = "mem=384M";

/// How long a guest may take until it writes, or until it has compared everything.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long a killed guest may hold its images.
const LETTING_GO: Duration = Duration::from_secs(20);

/// PID 1 of the guest, for bash. A process costs 10 to 70 ms to start there.
const INIT: &str = r#"#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
busybox mount -a -T "$RIG_OUT/fstab.early"
mkdir /run/a /run/b
busybox mount -a -T "$RIG_OUT/fstab.disks" || { echo 'problem a disk cannot be mounted .' >/dev/tty0; exec sleep 1000; }
stty -F /dev/tty0 raw -echo
"$POWER_CUTS" guest "$RIG_OUT" /run >/dev/tty0 2>/dev/tty1
echo ended >/dev/tty0
exec sleep 1000
"#;

/// When the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Milliseconds after the start.
    AfterStart(u64),
    /// Milliseconds after writing began.
    AfterWriting(u64),
    /// When the guest has said all it has to say.
    Never,
}

/// Why nothing was shown.
#[derive(Debug)]
pub struct RigError(String);

impl std::fmt::Display for RigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> RigError {
    move |error| RigError(format!("{what}: {error}"))
}

/// The guest that runs, for the thread that waits for signals.
static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the guest and removes its files when this program is told to end: they would outlive it.
fn clean_up_on_signals(directory: PathBuf) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            // Held to the end, so that no other guest starts.
            let running = running();
            if let Some(group) = *running {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = std::fs::remove_dir_all(&directory);
            std::process::exit(130);
        });
    });
    Ok(())
}

/// The files of a guest and its disks.
pub struct Machine {
    kernel: PathBuf,
    directory: tempfile::TempDir,
}

impl Machine {
    /// Writes what a guest needs into a folder of its own, which goes when this is dropped.
    pub fn new(kernel: &Path) -> Result<Machine, RigError> {
        // Not below /dev or /run: guests have their own there.
        let directory =
            tempfile::Builder::new().prefix("power-cuts.").tempdir_in("/tmp").map_err(failed("/tmp"))?;
        clean_up_on_signals(directory.path().to_owned()).map_err(failed("signals"))?;
        let machine = Machine { kernel: kernel.to_owned(), directory };
        let init = machine.path("init");
        std::fs::write(&init, INIT).map_err(failed("init"))?;
        Command::new("chmod").arg("755").arg(&init).status().map_err(failed("chmod"))?;
        let folder = machine.directory.path().display();
        let early =
            format!("proc /proc proc\ndev /dev devtmpfs\nrun /run tmpfs\nnone {folder} hostfs {folder}\n");
        std::fs::write(machine.path("fstab.early"), early).map_err(failed("fstab"))?;
        Ok(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes both disks anew.
    pub fn make_disks(&self, mount_options: &str) -> Result<(), RigError> {
        let mut fstab = String::new();
        for (side, device) in SIDES.iter().zip(["ubda", "ubdb"]) {
            let image = self.path(side);
            let file = File::create(&image).map_err(failed("a disk image"))?;
            file.set_len(DISK_BYTES).map_err(failed("a disk image"))?;
            let made = Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F"]).arg(&image).status();
            if !made.map_err(failed("mkfs.ext4"))?.success() {
                return Err(RigError("mkfs.ext4 failed".to_owned()));
            }
            fstab += &format!("/dev/{device} /run/{side} ext4 {mount_options}\n");
        }
        std::fs::write(self.path("fstab.disks"), fstab).map_err(failed("fstab"))
    }

    /// One life of the guest, until its power is cut; gives what it said.
    pub fn live(&self, task: &Task, cut: Cut) -> Result<Vec<Line>, RigError> {
        let text = serde_json::to_vec(task).expect("plain data");
        std::fs::write(self.path("task.json"), text).map_err(failed("task.json"))?;
        let started = Instant::now();
        let mut guest = Guest::start(self)?;
        let console = guest.console();
        let mut lines = Vec::new();
        let mut until =
            started + if let Cut::AfterStart(ms) = cut { Duration::from_millis(ms) } else { PATIENCE };
        let over = loop {
            match console.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Said::Line(line)) => {
                    if let (Line::Writing, Cut::AfterWriting(ms)) = (&line, cut) {
                        until = Instant::now() + Duration::from_millis(ms);
                    }
                    lines.push(line);
                }
                Ok(Said::Ended) => break Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    let waited = match cut {
                        Cut::AfterStart(_) => false,
                        Cut::AfterWriting(_) => !lines.contains(&Line::Writing),
                        Cut::Never => true,
                    };
                    let silent =
                        || RigError(format!("the guest took longer than {PATIENCE:?}; {}", self.log()));
                    break if waited { Err(silent()) } else { Ok(()) };
                }
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(RigError(format!("the guest stopped by itself; {}", self.log())));
                }
            }
        };
        guest.cut_power();
        // What it said before, and the host has not looked at yet.
        lines.extend(console.iter().filter_map(|said| match said {
            Said::Line(line) => Some(line),
            Said::Ended => None,
        }));
        self.wait_for_disks()?;
        over.map(|()| lines)
    }

    /// The kernel's last words.
    fn log(&self) -> String {
        let text = std::fs::read(self.path("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last: Vec<&str> = text.lines().rev().take(20).collect();
        format!("its console: {}", last.into_iter().rev().collect::<Vec<_>>().join(" | "))
    }

    /// Waits until no process of the killed guest has an image open: they hold a lock on it.
    fn wait_for_disks(&self) -> Result<(), RigError> {
        let until = Instant::now() + LETTING_GO;
        for side in SIDES {
            let image = File::options()
                .read(true)
                .write(true)
                .open(self.path(side))
                .map_err(failed("a disk image"))?;
            while fcntl_lock(&image, FlockOperation::NonBlockingLockExclusive).is_err() {
                if Instant::now() >= until {
                    return Err(RigError("a killed guest holds its disks".to_owned()));
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

/// What a guest's console brings.
enum Said {
    Line(Line),
    /// The guest's program has ended by itself.
    Ended,
}

/// A guest that runs. Killed when dropped.
struct Guest {
    kernel: Child,
    console: Option<ChildStdout>,
}

impl Guest {
    fn start(machine: &Machine) -> Result<Guest, RigError> {
        let log = File::create(machine.path("console.log")).map_err(failed("console.log"))?;
        let program = std::env::current_exe().map_err(failed("this program"))?;
        let path = |name: &str| machine.path(name).display().to_string();
        let mut running = running();
        let mut kernel = Command::new(&machine.kernel)
            .args([MEMORY, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "loglevel=4"])
            .args(["con=null", "con0=null,fd:1", "con1=null,fd:2", "console=tty1", "ssl=null"])
            .arg(format!("ubd0={}", path(SIDES[0])))
            .arg(format!("ubd1={}", path(SIDES[1])))
            .arg(format!("init={}", path("init")))
            .arg(format!("RIG_OUT={}", machine.directory.path().display()))
            .arg(format!("POWER_CUTS={}", program.display()))
            // The guest's memory is a file in this folder.
            .env("TMPDIR", "/dev/shm")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed("the guest's kernel does not start"))?;
        *running = Some(Pid::from_child(&kernel));
        let console = kernel.stdout.take();
        Ok(Guest { kernel, console })
    }

    /// Reads the console on a thread of its own.
    fn console(&mut self) -> Receiver<Said> {
        let (sender, receiver) = channel();
        let console = self.console.take().expect("once");
        thread::spawn(move || {
            for line in BufReader::new(console).lines() {
                let line = match line {
                    Ok(line) => line,
                    Err(error) if error.kind() == ErrorKind::InvalidData => continue,
                    Err(_) => return,
                };
                let said =
                    if line.trim_end() == "ended" { Ok(Said::Ended) } else { line.parse().map(Said::Line) };
                // A line that the cut has shortened was not said.
                if let Ok(said) = said
                    && sender.send(said).is_err()
                {
                    return;
                }
            }
        });
        receiver
    }

    fn cut_power(&mut self) {
        // Only once: afterwards the number may be another's.
        if let Some(group) = running().take() {
            let _ = kill_process_group(group, Signal::KILL); // fails only if nothing is left of it
            let _ = self.kernel.wait();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.cut_power();
    }
}
