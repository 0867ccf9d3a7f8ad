//! Gives memory back to the system. glibc keeps what was freed, in one arena for each thread and in what one large allocation has
//! taught it to keep: after a flood a gateway would hold the memory of the flood for months.

use std::convert::Infallible;
use std::time::Duration;

/// How often a long-running command that works gives back what it does not use.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);

/// How often it looks while it does nothing.
const IDLE_EVERY: Duration = Duration::from_secs(60);

/// Who has used less of the processor since the last time has not taken and freed anything to speak of.
const WORKED: Duration = Duration::from_millis(50);

/// Large allocations are the system's from the beginning to the end, and threads share a few arenas.
pub(crate) fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_little();
}

/// Gives back what is free, now and then. Does not end.
pub(crate) async fn keep_giving_back() -> Infallible {
    let (mut every, mut used) = (GIVE_BACK_EVERY, Duration::ZERO);
    loop {
        let now = processor_time();
        if now.saturating_sub(used) >= WORKED {
            (every, used) = (GIVE_BACK_EVERY, now);
            drop(tokio::task::spawn_blocking(give_back));
        } else {
            every = (every * 2).min(IDLE_EVERY);
        }
        tokio::time::sleep(every).await;
    }
}

/// What this process has used of the processor.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// Gives back what is free now.
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)] // settings of the allocator; glibc takes them from any thread
mod glibc {
    /// From this size on an allocation is mapped by itself, and unmapped when it is freed. Said once, it does not grow by
    /// itself to 32 MiB any more.
    const MAPPED_FROM_BYTES: i32 = 256 * 1024;
    const ARENAS_MAX: i32 = 2;
    /// So much of what was freed last waits for the next time, instead of going to the system and coming back page by page with
    /// each message; `give_back` does not leave it.
    const KEPT_BYTES: i32 = 2 * 1024 * 1024;

    pub(crate) fn keep_little() {
        // SAFETY: takes numbers, touches nothing of ours; a refusal leaves all as it was.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
            libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        }
    }

    pub(crate) fn give_back() {
        // SAFETY: gives free pages back, touches nothing that is in use.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
