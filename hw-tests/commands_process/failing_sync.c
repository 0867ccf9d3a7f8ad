/* Loaded into a process before libc: lets syncs of a database's log fail, as a medium does that cannot write any more.
 *
 * FAILING_SYNC_FIRST: the number of the first sync that fails, from 1. FAILING_SYNC_COUNT: how many fail.
 * FAILING_SYNC_FLAG: a file; while it exists all fail.
 * FAILING_SYNC_TRACE: a file to which is written what is done to files, one call a line: its name and the paths. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long syncs;

static void trace(const char *call, const char *one, const char *two) {
    const char *to = getenv("FAILING_SYNC_TRACE");
    if (!to)
        return;
    char line[8400];
    int len = snprintf(line, sizeof line, "%s %s %s\n", call, one, two);
    int fd = open(to, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || len < 0 || syscall(SYS_write, fd, line, (size_t)len) != len)
        abort();
    close(fd);
}

static void trace_fd(const char *call, int fd) {
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    path[len < 0 ? 0 : len] = 0;
    trace(call, path, "");
}

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
    int result = (int)syscall(call, fd);
    trace_fd("sync", fd);
    return result;
}

int fsync(int fd) { return sync_or_fail(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_or_fail(SYS_fdatasync, fd); }

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset) {
    trace_fd("write", fd);
    return syscall(SYS_pwrite64, fd, bytes, len, offset);
}

int rename(const char *from, const char *to) {
    trace("rename", from, to);
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlinkat(int directory, const char *name, int flags) {
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t len = directory == AT_FDCWD ? 0 : readlink(link, path, sizeof path - 1);
    path[len < 0 ? 0 : len] = 0;
    trace("remove", path, name);
    return (int)syscall(SYS_unlinkat, directory, name, flags);
}

int unlink(const char *path) {
    trace("remove", path, "");
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int rmdir(const char *path) {
    trace("remove", path, "");
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}
