/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLIENT_FIXTURE_H
#define CLIENT_FIXTURE_H

/* What the client's tests share: files of the shared folder. */

#include "linnet/file.h"

#include "testing.h"

/** LINNET_SHARED/name into path; skips the test, and says so, where the folder is absent. */
static inline const char *shared_path(const char *name, char path[512])
{
    const char *shared = getenv("LINNET_SHARED");
    FILE *file = NULL;
    if (shared) {
        (void)snprintf(path, 512, "%s/%s", shared, name);
        file = fopen(path, "rb");
    }
    if (!file) {
        print_message("skipped: LINNET_SHARED has no %s\n", name);
        skip();
    }
    (void)fclose(file);
    return path;
}

/** Fail the test with the error's message unless status is OK. */
static inline void must(linnet_status status, const linnet_error *err)
{
    if (status != LINNET_OK)
        fail_msg("%s: %s", linnet_status_name(status), err->message);
}

static inline linnet_buffer read_file(const char *path)
{
    linnet_buffer bytes = {0};
    linnet_error err = {0};
    must(linnet_file_read(path, (size_t)64 << 20, &bytes, &err), &err);
    return bytes;
}

#endif
