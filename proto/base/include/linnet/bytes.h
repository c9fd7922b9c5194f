/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_BYTES_H
#define LINNET_BYTES_H

/* Loads and stores of stated endianness, checked sizes, growing arrays, hex, and a growable byte buffer. */

#include "linnet/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t linnet_load_le16(const void *p)
{
    const uint8_t *b = p;
    return (uint16_t)(b[0] | (unsigned)b[1] << 8);
}

static inline uint32_t linnet_load_le32(const void *p)
{
    const uint8_t *b = p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t linnet_load_le64(const void *p)
{
    const uint8_t *b = p;
    return (uint64_t)linnet_load_le32(b) | (uint64_t)linnet_load_le32(b + 4) << 32;
}

static inline void linnet_store_le16(void *p, uint16_t v)
{
    uint8_t *b = p;
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

static inline void linnet_store_le32(void *p, uint32_t v)
{
    uint8_t *b = p;
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
    b[2] = (uint8_t)(v >> 16);
    b[3] = (uint8_t)(v >> 24);
}

static inline void linnet_store_le64(void *p, uint64_t v)
{
    uint8_t *b = p;
    linnet_store_le32(b, (uint32_t)v);
    linnet_store_le32(b + 4, (uint32_t)(v >> 32));
}

static inline uint64_t linnet_load_be64(const void *p)
{
    const uint8_t *b = p;
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | b[i];
    return v;
}

static inline void linnet_store_be64(void *p, uint64_t v)
{
    uint8_t *b = p;
    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> (56 - 8 * i));
}

static inline float linnet_load_f32(const void *p)
{
    uint32_t u = linnet_load_le32(p);
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline void linnet_store_f32(void *p, float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    linnet_store_le32(p, u);
}

static inline double linnet_load_f64(const void *p)
{
    uint64_t u = linnet_load_le64(p);
    double f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline void linnet_store_f64(void *p, double f)
{
    uint64_t u;
    memcpy(&u, &f, sizeof(u));
    linnet_store_le64(p, u);
}

/** a * b and a + b into ret; false, and ret untouched, where the result does not fit. */
static inline bool linnet_size_mul(size_t a, size_t b, size_t *ret)
{
    if (b != 0 && a > SIZE_MAX / b)
        return false;
    *ret = a * b;
    return true;
}

static inline bool linnet_size_add(size_t a, size_t b, size_t *ret)
{
    if (a > SIZE_MAX - b)
        return false;
    *ret = a + b;
    return true;
}

/**
 * Room for one more in an array of n items: the array, moved where it had to grow, and its new capacity; or
 * NULL on lack of memory, with the old array and capacity as they were.
 */
void *linnet_array_grow(void *items, size_t n, size_t *capacity, size_t item_bytes) LINNET_NODISCARD;

/** Write 2 n lower-case hex digits and a zero to text. */
void linnet_hex_write(const void *bytes, size_t n_bytes, char *text);

/** Read exactly 2 n_bytes hex digits, then the end of the string. FORMAT otherwise, bytes then undefined. */
linnet_status linnet_hex_read(const char *text, void *bytes, size_t n_bytes) LINNET_NODISCARD;

/** Bytes of the well-formed UTF-8 sequence (one character) that a text of n bytes starts with; 0: none. */
size_t linnet_utf8_sequence(const void *text, size_t n);

/** Is text well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms)? */
bool linnet_utf8_is_valid(const void *text, size_t n_bytes);

/**
 * A growable byte buffer. Zero-initialise it; release frees it and makes it empty again. An append that fails
 * leaves the contents as they were and sets `failed`, which sticks: a writer may append many times and check
 * once.
 */
typedef struct linnet_buffer {
    uint8_t *bytes;
    size_t n_bytes;
    size_t capacity;
    bool failed;
} linnet_buffer;

void linnet_buffer_release(linnet_buffer *buffer);
/** Set the length to zero and keep the memory. */
void linnet_buffer_clear(linnet_buffer *buffer);
/** Make room for n_more bytes beyond the length; false on lack of memory. */
bool linnet_buffer_reserve(linnet_buffer *buffer, size_t n_more);
void linnet_buffer_append(linnet_buffer *buffer, const void *bytes, size_t n_bytes);
void linnet_buffer_append_u8(linnet_buffer *buffer, uint8_t v);
void linnet_buffer_append_le16(linnet_buffer *buffer, uint16_t v);
void linnet_buffer_append_le32(linnet_buffer *buffer, uint32_t v);
void linnet_buffer_append_le64(linnet_buffer *buffer, uint64_t v);
void linnet_buffer_append_f64(linnet_buffer *buffer, double f);
void linnet_buffer_append_text(linnet_buffer *buffer, const char *text);
void linnet_buffer_append_format(linnet_buffer *buffer, const char *format, ...) LINNET_PRINTF(2, 3);

/** Append text as well-formed UTF-8: each byte that belongs to no sequence becomes U+FFFD. Returns how many
 * bytes were taken: all of them at the text's end (is_end); before it, all but those of a last sequence that
 * has only begun, at most three, which belong in front of what follows. */
size_t linnet_utf8_repair(const void *text, size_t n_bytes, bool is_end, linnet_buffer *ret_repaired);

/** A bounded reader over borrowed bytes. Reads past the end return 0 and set `failed`, which sticks. */
typedef struct linnet_reader {
    const uint8_t *bytes;
    size_t n_bytes;
    size_t at;
    bool failed;
} linnet_reader;

static inline linnet_reader linnet_reader_of(const void *bytes, size_t n_bytes)
{
    return (linnet_reader){.bytes = bytes, .n_bytes = n_bytes, .at = 0, .failed = false};
}
/** Borrow the next n_bytes, or NULL (and failed) where fewer are left. n_bytes 0 gives a non-NULL pointer. */
const uint8_t *linnet_reader_take(linnet_reader *reader, size_t n_bytes);
uint8_t linnet_reader_u8(linnet_reader *reader);
uint16_t linnet_reader_le16(linnet_reader *reader);
uint32_t linnet_reader_le32(linnet_reader *reader);
uint64_t linnet_reader_le64(linnet_reader *reader);
double linnet_reader_f64(linnet_reader *reader);
/** True where everything was read, nothing is left, and no read failed. */
static inline bool linnet_reader_is_done(const linnet_reader *reader)
{
    return !reader->failed && reader->at == reader->n_bytes;
}

#endif
