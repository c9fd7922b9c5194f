/* SPDX-License-Identifier: Apache-2.0 */
/* Growing arrays, hex, UTF-8 validation, the growable buffer and the bounded reader. */
#include "linnet/bytes.h"

#include <stdio.h>
#include <stdlib.h>

void *linnet_array_grow(void *items, size_t n, size_t *capacity, size_t item_bytes)
{
    if (n < *capacity)
        return items;
    size_t more = 0, n_bytes = 0;
    if (!linnet_size_mul(*capacity, 2, &more) || !linnet_size_mul(more ? more : 64, item_bytes, &n_bytes))
        return NULL;
    void *grown = realloc(items, n_bytes);
    if (grown)
        *capacity = more ? more : 64;
    return grown;
}

void linnet_hex_write(const void *bytes, size_t n_bytes, char *text)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n_bytes; i++) {
        text[2 * i] = digits[b[i] >> 4];
        text[2 * i + 1] = digits[b[i] & 15];
    }
    text[2 * n_bytes] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

linnet_status linnet_hex_read(const char *text, void *bytes, size_t n_bytes)
{
    uint8_t *b = bytes;
    for (size_t i = 0; i < n_bytes; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0)
            return LINNET_ERR_FORMAT;
        b[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * n_bytes] == '\0' ? LINNET_OK : LINNET_ERR_FORMAT;
}

/* RFC 3629, section 4. */
size_t linnet_utf8_sequence(const void *text, size_t n)
{
    const uint8_t *s = text;
    if (n == 0)
        return 0;
    if (s[0] < 0x80)
        return 1;
    size_t length = s[0] >= 0xc2 && s[0] < 0xe0   ? 2
                    : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                    : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                                  : 0;
    if (length == 0 || length > n)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return length;
}

bool linnet_utf8_is_valid(const void *text, size_t n_bytes)
{
    const uint8_t *s = text;
    for (size_t at = 0; at < n_bytes;) {
        size_t length = linnet_utf8_sequence(s + at, n_bytes - at);
        if (length == 0)
            return false;
        at += length;
    }
    return true;
}

/* Are these fewer than four bytes the start of a sequence? Then it ends well with the lowest or the highest
 * of the bytes that may follow. */
static bool utf8_begins(const uint8_t *s, size_t n)
{
    uint8_t low[4], high[4];
    memset(low, 0x80, sizeof(low));
    memset(high, 0xbf, sizeof(high));
    memcpy(low, s, n);
    memcpy(high, s, n);
    return linnet_utf8_sequence(low, sizeof(low)) > n || linnet_utf8_sequence(high, sizeof(high)) > n;
}

size_t linnet_utf8_repair(const void *text, size_t n_bytes, bool is_end, linnet_buffer *ret_repaired)
{
    const uint8_t *s = text;
    size_t at = 0;
    while (at < n_bytes) {
        size_t length = linnet_utf8_sequence(s + at, n_bytes - at);
        if (length > 0)
            linnet_buffer_append(ret_repaired, s + at, length);
        else if (!is_end && n_bytes - at < 4 && utf8_begins(s + at, n_bytes - at))
            break;
        else
            linnet_buffer_append_text(ret_repaired, "\xef\xbf\xbd");
        at += length > 0 ? length : 1;
    }
    return at;
}

void linnet_buffer_release(linnet_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (linnet_buffer){0};
}

void linnet_buffer_clear(linnet_buffer *buffer)
{
    buffer->n_bytes = 0;
    buffer->failed = false;
}

bool linnet_buffer_reserve(linnet_buffer *buffer, size_t n_more)
{
    if (n_more <= buffer->capacity - buffer->n_bytes)
        return true;
    size_t wanted, capacity = buffer->capacity < 64 ? 64 : buffer->capacity;
    if (!linnet_size_add(buffer->n_bytes, n_more, &wanted))
        return false;
    while (capacity < wanted)
        capacity = capacity > SIZE_MAX / 2 ? wanted : capacity * 2;
    uint8_t *bytes = realloc(buffer->bytes, capacity);
    if (!bytes)
        return false;
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return true;
}

void linnet_buffer_append(linnet_buffer *buffer, const void *bytes, size_t n_bytes)
{
    if (buffer->failed || n_bytes == 0)
        return;
    if (!linnet_buffer_reserve(buffer, n_bytes)) {
        buffer->failed = true;
        return;
    }
    memcpy(buffer->bytes + buffer->n_bytes, bytes, n_bytes);
    buffer->n_bytes += n_bytes;
}

void linnet_buffer_append_u8(linnet_buffer *buffer, uint8_t v)
{
    linnet_buffer_append(buffer, &v, 1);
}

void linnet_buffer_append_le16(linnet_buffer *buffer, uint16_t v)
{
    uint8_t b[2];
    linnet_store_le16(b, v);
    linnet_buffer_append(buffer, b, sizeof(b));
}

void linnet_buffer_append_le32(linnet_buffer *buffer, uint32_t v)
{
    uint8_t b[4];
    linnet_store_le32(b, v);
    linnet_buffer_append(buffer, b, sizeof(b));
}

void linnet_buffer_append_le64(linnet_buffer *buffer, uint64_t v)
{
    uint8_t b[8];
    linnet_store_le64(b, v);
    linnet_buffer_append(buffer, b, sizeof(b));
}

void linnet_buffer_append_f64(linnet_buffer *buffer, double f)
{
    uint8_t b[8];
    linnet_store_f64(b, f);
    linnet_buffer_append(buffer, b, sizeof(b));
}

void linnet_buffer_append_text(linnet_buffer *buffer, const char *text)
{
    linnet_buffer_append(buffer, text, strlen(text));
}

void linnet_buffer_append_format(linnet_buffer *buffer, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || buffer->failed || !linnet_buffer_reserve(buffer, (size_t)n + 1)) {
        buffer->failed = true;
    } else {
        (void)vsnprintf((char *)buffer->bytes + buffer->n_bytes, (size_t)n + 1, format, again);
        buffer->n_bytes += (size_t)n;
    }
    va_end(again);
}

const uint8_t *linnet_reader_take(linnet_reader *reader, size_t n_bytes)
{
    static const uint8_t nothing[1];
    if (reader->failed || n_bytes > reader->n_bytes - reader->at) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *p = reader->n_bytes ? reader->bytes + reader->at : nothing;
    reader->at += n_bytes;
    return p;
}

uint8_t linnet_reader_u8(linnet_reader *reader)
{
    const uint8_t *p = linnet_reader_take(reader, 1);
    return p ? *p : 0;
}

uint16_t linnet_reader_le16(linnet_reader *reader)
{
    const uint8_t *p = linnet_reader_take(reader, 2);
    return p ? linnet_load_le16(p) : 0;
}

uint32_t linnet_reader_le32(linnet_reader *reader)
{
    const uint8_t *p = linnet_reader_take(reader, 4);
    return p ? linnet_load_le32(p) : 0;
}

uint64_t linnet_reader_le64(linnet_reader *reader)
{
    const uint8_t *p = linnet_reader_take(reader, 8);
    return p ? linnet_load_le64(p) : 0;
}

double linnet_reader_f64(linnet_reader *reader)
{
    const uint8_t *p = linnet_reader_take(reader, 8);
    return p ? linnet_load_f64(p) : 0;
}
