/* Loaded into a process before libc: lets syncs of a database's log fail, as a medium does that cannot write any more.
 *
 * FAILING_SYNC_FIRST: the number of the first sync that fails, from 1. FAILING_SYNC_COUNT: how many fail.
 * FAILING_SYNC_FLAG: a file; while it exists all fail. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long syncs;

static int is_log(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path);
    return len >= 3 && memcmp(path + len - 3, "/db", 3) == 0;
}

static int fails(int fd) {
    if (!is_log(fd))
        return 0;
    const char *flag = getenv("FAILING_SYNC_FLAG");
    if (flag && access(flag, F_OK) == 0)
        return 1;
    const char *first = getenv("FAILING_SYNC_FIRST"), *count = getenv("FAILING_SYNC_COUNT");
    long number = atomic_fetch_add(&syncs, 1) + 1;
    return first && count && number >= atol(first) && number - atol(first) < atol(count);
}

static int sync_or_fail(long call, int fd) {
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, fd);
}

int fsync(int fd) { return sync_or_fail(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_or_fail(SYS_fdatasync, fd); }
