/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SERVE_LOCAL_HOST_H
#define LINNET_SERVE_LOCAL_HOST_H

/* Which names of a host are this machine's own. */

#include "linnet/status.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/** Does "HOST", "HOST:PORT" or "HOST/..." name this machine? NULL: no. */
static inline bool is_local_host(const char *text)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; text && i < ARRAY_LEN(names); i++) {
        size_t n = strlen(names[i]);
        if (strncasecmp(text, names[i], n) == 0 && (text[n] == '\0' || text[n] == ':' || text[n] == '/'))
            return true;
    }
    return false;
}

#endif
