/* SPDX-License-Identifier: Apache-2.0 */
/* The adapters that a device has installed, as files for everybody else: adapter/current and adapter/previous
 * in its state directory, PEFT and GGUF. */
#include "agent_files.h"

#include "linnet/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MARK_FILE "HASH" /* in an adapter directory: the object it was written from */

static void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        char *file = linnet_path_join(path, entry->d_name); /* not every file system tells d_type */
        if (file)
            (void)unlink(file); /* fails for "." and ".." */
        free(file);
    }
    if (dir)
        closedir(dir);
    (void)rmdir(path); /* what is left is found by the write that follows */
}

static linnet_status write_files(const agent_adapter *from, const char *directory, linnet_error *err)
{
    char hex[2 * LINNET_HASH_BYTES + 1];
    char *gguf = linnet_path_join(directory, "adapter.gguf"), *mark = linnet_path_join(directory, MARK_FILE);
    linnet_hex_write(from->hash.bytes, LINNET_HASH_BYTES, hex);
    linnet_status status = gguf && mark ? linnet_adapter_save_peft(from->adapter, from->architecture,
                                                                   directory, from->model_path, err)
                                        : linnet_fail(err, LINNET_ERR_NOMEM, "path");
    if (status == LINNET_OK)
        status = linnet_adapter_save_gguf(from->adapter, from->architecture, gguf, err);
    if (status == LINNET_OK)
        status = linnet_file_write(mark, hex, strlen(hex), 0600, err);
    free(gguf);
    free(mark);
    return status;
}

static bool is_written(const char *directory, const linnet_hash *hash)
{
    char hex[2 * LINNET_HASH_BYTES + 1];
    linnet_buffer bytes = {0};
    char *mark = linnet_path_join(directory, MARK_FILE);
    linnet_hex_write(hash->bytes, LINNET_HASH_BYTES, hex);
    bool is_same = mark && linnet_file_read(mark, sizeof(hex), &bytes, NULL) == LINNET_OK &&
                   bytes.n_bytes == strlen(hex) && memcmp(bytes.bytes, hex, bytes.n_bytes) == 0;
    linnet_buffer_release(&bytes);
    free(mark);
    return is_same;
}

linnet_status agent_files_write(const char *state_directory, const agent_adapter *from, linnet_error *err)
{
    char *parent = linnet_path_join(state_directory, "adapter"),
         *current = linnet_path_join(state_directory, "adapter/current");
    char *next = linnet_path_join(state_directory, "adapter/next"),
         *previous = linnet_path_join(state_directory, "adapter/previous");
    linnet_status status =
        parent && current && next && previous ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "path");
    if (status == LINNET_OK && !is_written(current, &from->hash)) {
        remove_tree(next);
        status = linnet_directory_create(parent, err);
        if (status == LINNET_OK)
            status = write_files(from, next, err);
        if (status == LINNET_OK && access(current, F_OK) == 0) {
            remove_tree(previous);
            if (rename(current, previous) != 0)
                status = linnet_fail_errno(err, errno, "'%s'", previous);
        }
        if (status == LINNET_OK && rename(next, current) != 0)
            status = linnet_fail_errno(err, errno, "'%s'", current);
        if (status == LINNET_OK)
            status = linnet_directory_sync(parent, err);
    }
    free(parent);
    free(current);
    free(next);
    free(previous);
    return status;
}
