//! Gives memory back to the system. glibc keeps what was freed, in one arena for each thread and in what one large allocation has
//! taught it to keep: after a flood a gateway would hold the memory of the flood for months.

use std::convert::Infallible;
use std::time::Duration;

/// How often a long-running command gives back what it does not use.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);

/// Large allocations are the system's from the beginning to the end, and threads share a few arenas.
pub(crate) fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_little();
}

/// Gives back what is free, now and then. Does not end.
pub(crate) async fn keep_giving_back() -> Infallible {
    let mut tick = tokio::time::interval(GIVE_BACK_EVERY);
    loop {
        tick.tick().await;
        drop(tokio::task::spawn_blocking(give_back));
    }
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

    pub(crate) fn keep_little() {
        // SAFETY: takes numbers, touches nothing of ours; a refusal leaves all as it was.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
            libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
        }
    }

    pub(crate) fn give_back() {
        // SAFETY: gives free pages back, touches nothing that is in use.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
