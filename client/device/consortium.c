/* SPDX-License-Identifier: Apache-2.0 */

/* The pinned list of a consortium (SECURE-AGGREGATION 2.3): a roster with anybody else in it is refused, so
 * that nobody can fill a cohort around one victim without a member's help. A text file that the members agree
 * upon by other ways than the coordinator. */

#include "linnet/device.h"

#include <stdlib.h>

#include "linnet/file.h"

#define LINE_MAX_BYTES 511
#define CONSORTIUM_BYTES_MAX ((size_t)1 << 20) /* 4096 keys with a remark each */

void linnet_consortium_release(linnet_consortium *consortium)
{
    free(consortium->keys);
    *consortium = (linnet_consortium){0};
}

static linnet_status add_key(linnet_consortium *list, const char *hex, linnet_error *err)
{
    linnet_public_key key;
    if (linnet_hex_read(hex, key.bytes, sizeof(key.bytes)) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT, "'%.40s' is no public key of 64 hex digits", hex);
    for (size_t i = 0; i < list->n_keys; i++)
        if (memcmp(&list->keys[i], &key, sizeof(key)) == 0)
            return linnet_fail(err, LINNET_ERR_FORMAT, "key '%.16s...' stands here a second time", hex);
    if (list->n_keys == LINNET_CONSORTIUM_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "more than %d keys", LINNET_CONSORTIUM_MAX);
    linnet_public_key *keys = realloc(list->keys, (list->n_keys + 1) * sizeof(*keys));
    if (!keys)
        return linnet_fail(err, LINNET_ERR_NOMEM, "a list of %zu keys", list->n_keys + 1);
    list->keys = keys;
    list->keys[list->n_keys++] = key;
    return LINNET_OK;
}

/* One line without its remark and the blanks around; empty ones are fine. */
static linnet_status parse_line(linnet_consortium *list, const char *line, size_t n, linnet_error *err)
{
    char text[LINE_MAX_BYTES + 1];
    const char *remark = memchr(line, '#', n);
    if (n > LINE_MAX_BYTES || memchr(line, '\0', n))
        return linnet_fail(err, LINNET_ERR_FORMAT, "a line holds text of at most %d bytes", LINE_MAX_BYTES);
    if (remark)
        n = (size_t)(remark - line);
    for (; n > 0 && strchr(" \t\r", line[n - 1]); n--)
        ;
    for (; n > 0 && strchr(" \t", *line); n--)
        line++;
    if (n == 0)
        return LINNET_OK;
    memcpy(text, line, n);
    text[n] = '\0';
    return add_key(list, text, err);
}

linnet_status linnet_consortium_parse(const char *file, const char *text, size_t n_bytes,
                                      linnet_consortium *ret_consortium, linnet_error *err)
{
    linnet_consortium list = {0};
    linnet_status status = LINNET_OK;
    size_t at = 0;
    for (int line = 1; at < n_bytes && status == LINNET_OK; line++) {
        const char *start = text + at, *newline = memchr(start, '\n', n_bytes - at);
        size_t n = newline ? (size_t)(newline - start) : n_bytes - at;
        at += newline ? n + 1 : n;
        status = parse_line(&list, start, n, err);
        if (status != LINNET_OK)
            status = linnet_error_prefix(err, status, "consortium '%s', line %d", file, line);
    }
    if (status == LINNET_OK && list.n_keys == 0)
        status = linnet_fail(err, LINNET_ERR_FORMAT, "consortium '%s': no key", file);
    if (status != LINNET_OK)
        linnet_consortium_release(&list);
    else
        *ret_consortium = list; /* ownership moves to the caller */
    return status;
}

linnet_status linnet_consortium_load(const char *path, linnet_consortium *ret_consortium, linnet_error *err)
{
    linnet_buffer text = {0};
    linnet_status status = linnet_file_read(path, CONSORTIUM_BYTES_MAX, &text, err);
    if (status == LINNET_OK)
        status = linnet_consortium_parse(path, (const char *)text.bytes, text.n_bytes, ret_consortium, err);
    linnet_buffer_release(&text);
    return status;
}
