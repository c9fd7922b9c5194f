/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TESTING_H
#define LINNET_TESTING_H

/* cmocka with the headers it wants, and what tests share. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "linnet/status.h"

/** Fail with the error's own message unless status is OK. */
#define assert_ok(status, err)                                                                               \
    do {                                                                                                     \
        linnet_status status_ = (status);                                                                    \
        if (status_ != LINNET_OK)                                                                            \
            fail_msg("%s: %s", linnet_status_name(status_), (err)->message);                                 \
    } while (0)

/** "shared folder/name" in a static buffer, or NULL (after saying so) where the shared material is not
 * there. */
static inline const char *testing_shared(const char *name)
{
    static char path[4096];
    const char *folder = getenv("LINNET_SHARED");
    FILE *file = NULL;
    if (folder) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
        file = fopen(path, "rb");
    }
    if (!file) {
        print_message("needs shared/%s, which is not here\n", name);
        return NULL;
    }
    (void)fclose(file);
    return path;
}

/** How much of something a test goes through: all, or less where LINNET_QUICK is set, as under an emulator,
 * and then the test says so. Each property is shown either way. */
static inline uint32_t testing_size(const char *what, uint32_t all, uint32_t less)
{
    if (!getenv("LINNET_QUICK"))
        return all;
    print_message("quick: %s %u, not %u\n", what, (unsigned)less, (unsigned)all);
    return less;
}

#endif
