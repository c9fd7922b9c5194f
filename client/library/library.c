/* SPDX-License-Identifier: Apache-2.0 */
/* The border of the library: statuses and messages, structs that grow from version to version, texts that are
 * cut. Everything behind it speaks linnet's own types. */
#include "library.h"

#include <stdlib.h>
#include <time.h>

/* What no struct's size is: a pointer's, or what happened to lie there. */
enum { STRUCT_BYTES_MIN = 16, STRUCT_BYTES_MAX = 65536 };

/* Theirs are numbers for good; ours may be put into another order. */
static const lin_status statuses[] = {
    [LINNET_ERR_OK] = LIN_OK,
    [LINNET_ERR_ARG] = LIN_ERR_ARG,
    [LINNET_ERR_NOMEM] = LIN_ERR_NOMEM,
    [LINNET_ERR_IO] = LIN_ERR_IO,
    [LINNET_ERR_NOT_FOUND] = LIN_ERR_NOT_FOUND,
    [LINNET_ERR_EXISTS] = LIN_ERR_EXISTS,
    [LINNET_ERR_FORMAT] = LIN_ERR_FORMAT,
    [LINNET_ERR_RANGE] = LIN_ERR_RANGE,
    [LINNET_ERR_LIMIT] = LIN_ERR_LIMIT,
    [LINNET_ERR_UNSUPPORTED] = LIN_ERR_UNSUPPORTED,
    [LINNET_ERR_MISMATCH] = LIN_ERR_MISMATCH,
    [LINNET_ERR_CRYPTO] = LIN_ERR_CRYPTO,
    [LINNET_ERR_DENIED] = LIN_ERR_DENIED,
    [LINNET_ERR_EXPIRED] = LIN_ERR_EXPIRED,
    [LINNET_ERR_CONFLICT] = LIN_ERR_CONFLICT,
    [LINNET_ERR_NO_SPACE] = LIN_ERR_NO_SPACE,
    [LINNET_ERR_BUSY] = LIN_ERR_BUSY,
    [LINNET_ERR_AGAIN] = LIN_ERR_AGAIN,
    [LINNET_ERR_CANCELLED] = LIN_ERR_CANCELLED,
    [LINNET_ERR_INTERNAL] = LIN_ERR_INTERNAL,
};

const char *lin_version(void)
{
    return LINNET_VERSION;
}

uint32_t lin_abi(void)
{
    return LIN_ABI;
}

const char *lin_status_text(lin_status status)
{
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
        if (statuses[i] == status)
            return linnet_status_text((linnet_status)i);
    }
    return "unknown status";
}

void lin_free(void *memory)
{
    free(memory);
}

void library_put(char *to, size_t n, const char *text)
{
    linnet_buffer whole = {0};
    size_t n_text = strlen(text);
    memset(to, 0, n);
    if (!linnet_utf8_is_valid(text, n_text)) { /* a path of another encoding, say */
        (void)linnet_utf8_repair(text, n_text, true, &whole);
        linnet_buffer_append_u8(&whole, 0);
        text = whole.failed ? "" : (const char *)whole.bytes;
        n_text = strlen(text);
    }
    size_t n_kept = n_text < n ? n_text : n - 1;
    while (n_kept > 0 && !linnet_utf8_is_valid(text, n_kept)) /* cut between characters */
        n_kept--;
    memcpy(to, text, n_kept);
    linnet_buffer_release(&whole);
}

lin_status library_return(linnet_status status, const linnet_error *why, uint64_t needed_bytes,
                          lin_error *err)
{
    if (status == LINNET_OK)
        return LIN_OK;
    lin_status theirs = (size_t)status < ARRAY_LEN(statuses) ? statuses[status] : LIN_ERR_INTERNAL;
    if (err) {
        *err = (lin_error){.status = (int32_t)theirs, .needed_bytes = needed_bytes};
        library_put(err->message, sizeof(err->message),
                    why->message[0] != '\0' ? why->message : linnet_status_text(status));
    }
    return theirs;
}

/* ---- structs ---- */

static uint32_t size_of(const void *theirs)
{
    uint32_t size;
    memcpy(&size, theirs, sizeof(size));
    return size;
}

linnet_status library_check(const void *theirs, linnet_error *err)
{
    if (size_of(theirs) < STRUCT_BYTES_MIN || size_of(theirs) > STRUCT_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_ARG, "a struct's size is %u: set it to sizeof the struct",
                           (unsigned)size_of(theirs));
    return LINNET_OK;
}

linnet_status library_take(const void *theirs, void *ours, size_t n_bytes, linnet_error *err)
{
    const uint8_t *bytes = theirs;
    memset(ours, 0, n_bytes);
    if (!theirs)
        return LINNET_OK;
    linnet_status status = library_check(theirs, err);
    if (status != LINNET_OK)
        return status;
    for (size_t i = n_bytes; i < size_of(theirs); i++) {
        if (bytes[i] != 0)
            return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                               "an option at byte %zu is newer than this library, which is " LINNET_VERSION,
                               i);
    }
    memcpy(ours, theirs, size_of(theirs) < n_bytes ? size_of(theirs) : n_bytes);
    return LINNET_OK;
}

void library_give(const void *ours, size_t n_bytes, void *theirs)
{
    uint32_t size = size_of(theirs);
    memcpy(theirs, ours, size < n_bytes ? size : n_bytes);
    if (size > n_bytes)
        memset((uint8_t *)theirs + n_bytes, 0, size - n_bytes);
    memcpy(theirs, &size, sizeof(size));
}

linnet_status library_need(const void *pointer, const char *name, linnet_error *err)
{
    return pointer ? LINNET_OK : linnet_fail(err, LINNET_ERR_ARG, "%s is NULL", name);
}

double library_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

size_t library_bytes_max(uint64_t memory_max)
{
    return memory_max == 0 || memory_max > SIZE_MAX ? SIZE_MAX : (size_t)memory_max;
}
