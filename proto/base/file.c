/* SPDX-License-Identifier: Apache-2.0 */
/* Files. A durable write is: temporary file beside the target, write, fsync, rename, fsync of the directory.
 * A failed fsync is never retried (what is on disk is then unknown): the error goes up and the temporary file
 * is removed. */
#include "linnet/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

linnet_status linnet_file_read(const char *path, size_t n_max, linnet_buffer *ret_bytes, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = LINNET_OK;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return linnet_fail_errno(err, errno, "cannot open '%s'", path);
    if (fstat(fd, &st) != 0) {
        status = linnet_fail_errno(err, errno, "cannot read '%s'", path);
        goto done;
    }
    if (S_ISDIR(st.st_mode)) {
        status = linnet_fail(err, LINNET_ERR_ARG, "'%s' is a directory, a file is wanted", path);
        goto done;
    }
    if (st.st_size > 0 && (uint64_t)st.st_size > n_max) {
        status = linnet_fail(err, LINNET_ERR_LIMIT, "'%s' has %lld bytes, more than the %zu allowed", path,
                             (long long)st.st_size, n_max);
        goto done;
    }
    for (;;) { /* to the end, not to st_size: the file may be a pipe or may grow */
        if (!linnet_buffer_reserve(&bytes,
                                   st.st_size > 0 && bytes.n_bytes == 0 ? (size_t)st.st_size + 1 : 65536)) {
            status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory to read '%s'", path);
            goto done;
        }
        ssize_t n = read(fd, bytes.bytes + bytes.n_bytes, bytes.capacity - bytes.n_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            status = linnet_fail_errno(err, errno, "cannot read '%s'", path);
            goto done;
        }
        if (n == 0)
            break;
        bytes.n_bytes += (size_t)n;
        if (bytes.n_bytes > n_max) {
            status =
                linnet_fail(err, LINNET_ERR_LIMIT, "'%s' has more than the %zu bytes allowed", path, n_max);
            goto done;
        }
    }
    *ret_bytes = bytes;
    bytes = (linnet_buffer){0};
done:
    linnet_buffer_release(&bytes);
    (void)close(fd); /* opened for reading: nothing can be lost */
    return status;
}

static linnet_status write_all(int fd, const uint8_t *bytes, size_t n_bytes, const char *path,
                               linnet_error *err)
{
    while (n_bytes > 0) {
        ssize_t n = write(fd, bytes, n_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return linnet_fail_errno(err, errno, "cannot write '%s'", path);
        bytes += n;
        n_bytes -= (size_t)n;
    }
    return LINNET_OK;
}

/* The directory that holds path, as an owned string: "a/b" -> "a", "b" -> ".", "/b" -> "/". */
static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (slash == path ? 1 : (size_t)(slash - path)) : 1;
    char *directory = malloc(n + 1);
    if (directory) {
        memcpy(directory, slash ? path : ".", n);
        directory[n] = '\0';
    }
    return directory;
}

linnet_status linnet_file_write(const char *path, const void *bytes, size_t n_bytes, unsigned mode,
                                linnet_error *err)
{
    linnet_status status = LINNET_OK;
    char *temporary = malloc(strlen(path) + 8), *directory = directory_of(path);
    int fd = -1;
    if (temporary)
        temporary[0] = '\0'; /* nothing to remove yet */
    if (!temporary || !directory) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory to write '%s'", path);
        goto done;
    }
    (void)sprintf(temporary, "%s.XXXXXX", path);
    fd = mkstemp(temporary);
    if (fd < 0) {
        status = linnet_fail_errno(err, errno, "cannot create '%s'", temporary);
        temporary[0] = '\0';
        goto done;
    }
    if (fchmod(fd, (mode_t)mode) != 0)
        status = linnet_fail_errno(err, errno, "cannot set the mode of '%s'", temporary);
    if (status == LINNET_OK)
        status = write_all(fd, bytes, n_bytes, path, err);
    if (status == LINNET_OK && fsync(fd) != 0)
        status = linnet_fail_errno(err, errno, "cannot make '%s' durable", path);
    if (close(fd) != 0 && status == LINNET_OK)
        status = linnet_fail_errno(err, errno, "cannot close '%s'", path);
    if (status == LINNET_OK && rename(temporary, path) != 0)
        status = linnet_fail_errno(err, errno, "cannot rename '%s' to '%s'", temporary, path);
    if (status == LINNET_OK) {
        temporary[0] = '\0';
        status = linnet_directory_sync(directory, err);
    }
done:
    if (temporary && temporary[0])
        (void)unlink(temporary); /* best effort on the way out of a failure */
    free(temporary);
    free(directory);
    return status;
}

linnet_status linnet_map_open(const char *path, linnet_map *ret_map, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return linnet_fail_errno(err, errno, "cannot open '%s'", path);
    if (fstat(fd, &st) != 0) {
        status = linnet_fail_errno(err, errno, "cannot read '%s'", path);
    } else if (!S_ISREG(st.st_mode)) {
        status = linnet_fail(err, LINNET_ERR_ARG, "'%s' is not a regular file", path);
    } else if (st.st_size == 0) {
        status = linnet_fail(err, LINNET_ERR_FORMAT, "'%s' is empty", path);
    } else if ((uint64_t)st.st_size > SIZE_MAX) {
        status =
            linnet_fail(err, LINNET_ERR_LIMIT, "'%s' is too large for this machine's address space", path);
    } else {
        void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (bytes == MAP_FAILED)
            status = linnet_fail_errno(err, errno, "cannot map '%s'", path);
        else
            *ret_map = (linnet_map){.bytes = bytes, .n_bytes = (size_t)st.st_size};
    }
    (void)close(fd); /* the map stays */
    return status;
}

void linnet_map_close(linnet_map *map)
{
    if (map->bytes)
        (void)munmap((void *)(uintptr_t)map->bytes, map->n_bytes); /* fails only for a wrong address */
    *map = (linnet_map){0};
}

linnet_status linnet_directory_create(const char *path, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    struct stat st;
    char *part = strdup(path);
    if (!part)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to create '%s'", path);
    for (char *at = part + 1; status == LINNET_OK && *part; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char end = *at;
        *at = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            status = linnet_fail_errno(err, errno, "cannot create the directory '%s'", part);
        *at = end;
        if (end == '\0')
            break;
    }
    if (status == LINNET_OK && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        status = linnet_fail(err, LINNET_ERR_EXISTS, "'%s' exists and is not a directory", path);
    free(part);
    return status;
}

linnet_status linnet_directory_sync(const char *path, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return linnet_fail_errno(err, errno, "cannot open the directory '%s'", path);
    if (fsync(fd) != 0 && errno != EINVAL) /* EINVAL: a file system without directory fsync */
        status = linnet_fail_errno(err, errno, "cannot make the directory '%s' durable", path);
    (void)close(fd);
    return status;
}

linnet_status linnet_file_reserve(const char *path, size_t n_bytes, linnet_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == ENOSPC || errno == EDQUOT ? linnet_fail_errno(err, errno, "cannot create '%s'", path)
                                                  : LINNET_OK;
    int rc = posix_fallocate(fd, 0, (off_t)n_bytes); /* returns the error; keeps what is in the file */
    (void)close(fd);                                 /* nothing was written */
    return rc == ENOSPC || rc == EDQUOT || rc == EFBIG ? linnet_fail_errno(err, rc, "no room for '%s'", path)
                                                       : LINNET_OK;
}

linnet_status linnet_lock_take(const char *path, int *ret_fd, linnet_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return linnet_fail_errno(err, errno, "cannot open the lock '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        linnet_status status =
            errno == EWOULDBLOCK
                ? linnet_fail(err, LINNET_ERR_BUSY,
                              "'%s' is held: another process uses this state; stop it first", path)
                : linnet_fail_errno(err, errno, "cannot lock '%s'", path);
        (void)close(fd);
        return status;
    }
    *ret_fd = fd;
    return LINNET_OK;
}

char *linnet_path_join(const char *directory, const char *name)
{
    size_t n = strlen(directory);
    char *path = malloc(n + strlen(name) + 2);
    if (path)
        (void)sprintf(path, "%s%s%s", directory, n > 0 && directory[n - 1] == '/' ? "" : "/", name);
    return path;
}

char *linnet_path_name(const char *path)
{
    size_t end = strlen(path), start;
    while (end > 0 && path[end - 1] == '/')
        end--;
    for (start = end; start > 0 && path[start - 1] != '/';)
        start--;
    return strndup(path + start, end - start);
}
