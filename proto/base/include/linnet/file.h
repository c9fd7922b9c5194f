/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_FILE_H
#define LINNET_FILE_H

/* Files: whole reads with a cap, read-only maps, durable writes, directories, locks. Errors name the path. */

#include "linnet/bytes.h"

/** Read a whole regular file of at most n_max bytes into an empty buffer (owned by the caller). LIMIT if
 * larger. */
linnet_status linnet_file_read(const char *path, size_t n_max, linnet_buffer *ret_bytes,
                               linnet_error *err) LINNET_NODISCARD;

/** Replace path by these bytes, all or nothing: temporary file beside it, fsync, rename, fsync of the
 * directory. */
linnet_status linnet_file_write(const char *path, const void *bytes, size_t n_bytes, unsigned mode,
                                linnet_error *err) LINNET_NODISCARD;

/** A read-only, shared map of a whole file. */
typedef struct linnet_map {
    const uint8_t *bytes;
    size_t n_bytes;
} linnet_map;

linnet_status linnet_map_open(const char *path, linnet_map *ret_map, linnet_error *err) LINNET_NODISCARD;
void linnet_map_close(linnet_map *map);

/** Create a directory (mode 0700) and its parents; one that is there already is fine. */
linnet_status linnet_directory_create(const char *path, linnet_error *err) LINNET_NODISCARD;
/** fsync a directory, so that names in it are durable. */
linnet_status linnet_directory_sync(const char *path, linnet_error *err) LINNET_NODISCARD;

/** Give a file (made if absent) n_bytes of disk, so that a write through a map of it cannot meet a full disk,
 * which is a SIGBUS. NO_SPACE where there is none; where it cannot be written at all, whoever needs that will
 * find out. */
linnet_status linnet_file_reserve(const char *path, size_t n_bytes, linnet_error *err) LINNET_NODISCARD;

/** Take the exclusive lock file `path` for the life of *ret_fd (close it to release). BUSY where another
 * process has it. */
linnet_status linnet_lock_take(const char *path, int *ret_fd, linnet_error *err) LINNET_NODISCARD;

/** "directory/name" into an owned string; NULL on lack of memory. */
char *linnet_path_join(const char *directory, const char *name);

/** The last name of a path, slashes behind it aside, as an owned string; NULL on lack of memory. */
char *linnet_path_name(const char *path);

#endif
