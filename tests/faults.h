/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TESTS_FAULTS_H
#define LINNET_TESTS_FAULTS_H

/* Write, pwrite, fsync and the like of a test program, standing before libc's (for LMDB too): they count, and
 * on the n-th call kill the process or fail. For one source file of a program. */

#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))

static struct {
    long n_calls; /* counted while is_armed */
    bool is_armed;
    long kill_at;            /* this call kills, a write after half of its bytes */
    long full_from, full_to; /* these writes find the disk full */
    long sync_fails_at;      /* this fsync fails; counted on its own */
    long n_syncs;
} faults;

/* False: the caller's write fails with ENOSPC, as one does that needs new blocks. Where the blocks are there
 * already (LMDB's two meta pages) a full disk takes the write. */
static bool may_write(int fd, off_t end)
{
    struct stat st;
    if (!faults.is_armed)
        return true;
    faults.n_calls++;
    if (faults.n_calls < faults.full_from || faults.n_calls >= faults.full_to || fstat(fd, &st) != 0 ||
        end <= st.st_size)
        return true;
    errno = ENOSPC;
    return false;
}

static bool is_last(void)
{
    return faults.is_armed && faults.n_calls == faults.kill_at;
}

static ssize_t write_or_die(int fd, const void *bytes, size_t n, off_t offset, bool has_offset)
{
    if (!may_write(fd, has_offset ? offset + (off_t)n : INT64_MAX))
        return -1;
    if (is_last())
        n = n > 1 ? n / 2 : n;
    ssize_t done =
        has_offset ? syscall(SYS_pwrite64, fd, bytes, n, offset) : syscall(SYS_write, fd, bytes, n);
    if (is_last())
        (void)raise(SIGKILL);
    return done;
}

static int sync_or_die(long number, int fd)
{
    if (faults.is_armed && (faults.n_calls++, is_last()))
        (void)raise(SIGKILL);
    if (faults.is_armed && ++faults.n_syncs == faults.sync_fails_at) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, fd);
}

VISIBLE ssize_t write(int fd, const void *bytes, size_t n)
{
    return write_or_die(fd, bytes, n, 0, false);
}

VISIBLE ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    return write_or_die(fd, bytes, n, offset, true);
}

#if defined(__GLIBC__) && !defined(pwrite)
ssize_t pwrite_other(int fd, const void *bytes, size_t n, off_t offset) __asm__("pwrite");
VISIBLE ssize_t pwrite_other(int fd, const void *bytes, size_t n, off_t offset)
{
    return write_or_die(fd, bytes, n, offset, true);
}
#endif

VISIBLE ssize_t pwritev(int fd, const struct iovec *parts, int n_parts, off_t offset)
{
    ssize_t done = 0;
    for (int i = 0; i < n_parts; i++) {
        ssize_t n = pwrite(fd, parts[i].iov_base, parts[i].iov_len, offset + done);
        if (n < 0)
            return done > 0 ? done : n;
        done += n;
        if ((size_t)n < parts[i].iov_len)
            break;
    }
    return done;
}

/* LMDB's, for pages in a row: one call, cut in the middle by a kill. A full disk takes all of it or nothing,
 * since the stores look for room before they write. */
VISIBLE ssize_t writev(int fd, const struct iovec *parts, int n_parts)
{
    off_t end = lseek(fd, 0, SEEK_CUR);
    for (int i = 0; i < n_parts; i++)
        end += (off_t)parts[i].iov_len;
    if (!may_write(fd, end))
        return -1;
    ssize_t done = syscall(SYS_writev, fd, parts, is_last() && n_parts > 1 ? n_parts / 2 : n_parts);
    if (is_last())
        (void)raise(SIGKILL);
    return done;
}

VISIBLE int fsync(int fd)
{
    return sync_or_die(SYS_fsync, fd);
}

VISIBLE int fdatasync(int fd)
{
    return sync_or_die(SYS_fdatasync, fd);
}

VISIBLE int rename(const char *from, const char *to)
{
    if (faults.is_armed && (faults.n_calls++, is_last()))
        (void)raise(SIGKILL);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

VISIBLE int unlink(const char *path)
{
    if (faults.is_armed && (faults.n_calls++, is_last()))
        (void)raise(SIGKILL);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

#endif
