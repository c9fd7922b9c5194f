/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_STATUS_H
#define LINNET_STATUS_H

/* Statuses and the one error type. Library code returns; programs print. */

#include <stdarg.h>
#include <stddef.h>

#if defined(__GNUC__)
#define LINNET_NODISCARD __attribute__((warn_unused_result))
#define LINNET_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))
#define LINNET_API __attribute__((visibility("default")))
#else
#define LINNET_NODISCARD
#define LINNET_PRINTF(text, first)
#define LINNET_API
#endif

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* X(name, text): the one list that makes the statuses, their names and their texts. */
#define LINNET_STATUS_LIST(X)                                                                                \
    X(OK, "success")                                                                                         \
    X(ARG, "invalid argument")                                                                               \
    X(NOMEM, "out of memory")                                                                                \
    X(IO, "input or output failed")                                                                          \
    X(NOT_FOUND, "not found")                                                                                \
    X(EXISTS, "exists already")                                                                              \
    X(FORMAT, "malformed data")                                                                              \
    X(RANGE, "value out of range")                                                                           \
    X(LIMIT, "over a limit")                                                                                 \
    X(UNSUPPORTED, "not supported")                                                                          \
    X(MISMATCH, "does not match")                                                                            \
    X(CRYPTO, "a cryptographic check failed")                                                                \
    X(DENIED, "refused")                                                                                     \
    X(EXPIRED, "expired")                                                                                    \
    X(CONFLICT, "conflicts with what is stored")                                                             \
    X(NO_SPACE, "no space left")                                                                             \
    X(BUSY, "busy")                                                                                          \
    X(AGAIN, "try again later")                                                                              \
    X(CANCELLED, "cancelled")                                                                                \
    X(INTERNAL, "internal error")

typedef enum linnet_status {
#define LINNET_STATUS_ENUM(name, text) LINNET_ERR_##name,
    LINNET_STATUS_LIST(LINNET_STATUS_ENUM)
#undef LINNET_STATUS_ENUM
} linnet_status;

#define LINNET_OK LINNET_ERR_OK

/** Context of a failure: doing what, to what, at which byte, and the next step. One line, never secret or
 * user text. */
typedef struct linnet_error {
    linnet_status status;
    char message[384];
} linnet_error;

/** Name ("FORMAT") and text ("malformed data") of a status; static strings, never NULL. */
const char *linnet_status_name(linnet_status status);
const char *linnet_status_text(linnet_status status);

/** Fill err (may be NULL) with a printf message and return status: `return linnet_fail(err, LINNET_ERR_IO,
 * ...)`. */
linnet_status linnet_fail(linnet_error *err, linnet_status status, const char *format, ...)
    LINNET_PRINTF(3, 4);

/** As linnet_fail for an errno value: maps ENOSPC, EDQUOT and EFBIG to NO_SPACE, ENOENT to NOT_FOUND, EEXIST
 * to EXISTS, ENOMEM to NOMEM, EACCES/EPERM/EROFS to DENIED, the rest to IO, and appends strerror. */
linnet_status linnet_fail_errno(linnet_error *err, int error_number, const char *format, ...)
    LINNET_PRINTF(3, 4);

/** Put "prefix: " before the message that err holds already; err may be NULL. Returns err's status. */
linnet_status linnet_error_prefix(linnet_error *err, linnet_status status, const char *format, ...)
    LINNET_PRINTF(3, 4);

#endif
