/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses, their texts, and the formatting of error messages. */
#include "linnet/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *linnet_status_name(linnet_status status)
{
    static const char *const names[] = {
#define STATUS_NAME(name, text) #name,
        LINNET_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
    };
    return (size_t)status < ARRAY_LEN(names) ? names[status] : "UNKNOWN";
}

const char *linnet_status_text(linnet_status status)
{
    static const char *const texts[] = {
#define STATUS_TEXT(name, text) text,
        LINNET_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
    };
    return (size_t)status < ARRAY_LEN(texts) ? texts[status] : "unknown status";
}

/* A message is one line on a terminal and in a log: control bytes of a file's or a peer's strings do not
 * pass. */
static void make_one_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = ' ';
}

linnet_status linnet_fail(linnet_error *err, linnet_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->status = status;
        (void)vsnprintf(err->message, sizeof(err->message), format,
                        args); /* a cut message is still a message */
        va_end(args);
        make_one_line(err->message);
    }
    return status;
}

static linnet_status status_of_errno(int error_number)
{
    switch (error_number) {
    case ENOENT:
        return LINNET_ERR_NOT_FOUND;
    case EEXIST:
        return LINNET_ERR_EXISTS;
    case ENOMEM:
        return LINNET_ERR_NOMEM;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* a file size limit is a full disk of its own kind */
        return LINNET_ERR_NO_SPACE;
    case EACCES:
    case EPERM:
    case EROFS:
        return LINNET_ERR_DENIED;
    default:
        return LINNET_ERR_IO;
    }
}

linnet_status linnet_fail_errno(linnet_error *err, int error_number, const char *format, ...)
{
    linnet_status status = status_of_errno(error_number);
    if (err) {
        char what[256], why[96];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(what, sizeof(what), format, args);
        va_end(args);
        if (strerror_r(error_number, why, sizeof(why)) != 0)
            (void)snprintf(why, sizeof(why), "error %d", error_number);
        (void)linnet_fail(err, status, "%s: %s", what, why);
    }
    return status;
}

linnet_status linnet_error_prefix(linnet_error *err, linnet_status status, const char *format, ...)
{
    if (err) {
        char prefix[192], rest[sizeof(err->message)];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(prefix, sizeof(prefix), format, args);
        va_end(args);
        memcpy(rest, err->message, sizeof(rest));
        rest[sizeof(rest) - 1] = '\0';
        (void)linnet_fail(err, status, "%s: %s", prefix, rest);
    }
    return status;
}
