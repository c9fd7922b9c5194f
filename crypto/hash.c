/* SPDX-License-Identifier: Apache-2.0 */
/* Labelled BLAKE2b-256 over libsodium, and the three services the rest needs from it: start, random bytes,
 * wipe.
 *
 * The label goes into BLAKE2b's `personal` field (RFC 7693 parameter block, bytes 48 to 63) with a zero salt,
 * so hashes under two labels are two unrelated functions. The state is copied in and out of the hasher's
 * plain bytes: libsodium wants it aligned to 64 bytes, which a struct from malloc does not promise. What is
 * not here: any hash without a label. */
#include "linnet/hash.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <sodium.h>

#define LABEL_BYTES 16
#define FILE_CHUNK_BYTES (64 * 1024)
#define STACK_WIPE_BYTES (32 * 1024) /* a chunk of keystream, and what a cipher needs below it */

_Static_assert(sizeof(crypto_generichash_blake2b_state) <= sizeof(((linnet_hasher *)0)->opaque),
               "libsodium's state fits into the hasher");
_Static_assert(crypto_generichash_blake2b_PERSONALBYTES == LABEL_BYTES, "a label fills `personal`");

#define LABEL_CHECK(name, text) _Static_assert(sizeof("linnet.sa1." text) == LABEL_BYTES + 1, "label " text);
LINNET_LABEL_LIST(LABEL_CHECK)
#undef LABEL_CHECK

const uint8_t *linnet_label_bytes(linnet_label label)
{
    static const char labels[LINNET_LABELS][LABEL_BYTES + 1] = {
#define LABEL_TEXT(name, text) [LINNET_LABEL_##name] = "linnet.sa1." text,
        LINNET_LABEL_LIST(LABEL_TEXT)
#undef LABEL_TEXT
    };
    assert((unsigned)label < LINNET_LABELS);
    return (const uint8_t *)labels[label];
}

linnet_hash linnet_hash_of(linnet_label label, const void *bytes, size_t n_bytes)
{
    linnet_hash hash;
    (void)crypto_generichash_blake2b_salt_personal(hash.bytes, sizeof(hash.bytes), bytes, n_bytes, NULL, 0,
                                                   NULL,
                                                   linnet_label_bytes(label)); /* fails on wrong sizes only */
    return hash;
}

linnet_hash linnet_hash_keyed(linnet_label label, const void *key, size_t key_bytes, const void *bytes,
                              size_t n_bytes)
{
    linnet_hash hash;
    assert(key_bytes >= crypto_generichash_blake2b_KEYBYTES_MIN &&
           key_bytes <= crypto_generichash_blake2b_KEYBYTES_MAX);
    (void)crypto_generichash_blake2b_salt_personal(hash.bytes, sizeof(hash.bytes), bytes, n_bytes, key,
                                                   key_bytes, NULL,
                                                   linnet_label_bytes(label)); /* fails on wrong sizes only */
    return hash;
}

void linnet_hasher_init(linnet_hasher *hasher, linnet_label label)
{
    crypto_generichash_blake2b_state state;
    (void)crypto_generichash_blake2b_init_salt_personal(
        &state, NULL, 0, LINNET_HASH_BYTES, NULL, linnet_label_bytes(label)); /* fails on wrong sizes only */
    memcpy(hasher->opaque, &state, sizeof(state));
}

void linnet_hasher_update(linnet_hasher *hasher, const void *bytes, size_t n_bytes)
{
    crypto_generichash_blake2b_state state;
    memcpy(&state, hasher->opaque, sizeof(state));
    (void)crypto_generichash_blake2b_update(&state, bytes, n_bytes); /* cannot fail before final */
    memcpy(hasher->opaque, &state, sizeof(state));
}

linnet_hash linnet_hasher_final(linnet_hasher *hasher)
{
    linnet_hash hash;
    crypto_generichash_blake2b_state state;
    memcpy(&state, hasher->opaque, sizeof(state));
    (void)crypto_generichash_blake2b_final(&state, hash.bytes, sizeof(hash.bytes)); /* first and only final */
    sodium_memzero(&state, sizeof(state));
    sodium_memzero(hasher->opaque, sizeof(hasher->opaque));
    return hash;
}

/* Feed everything that is left in fd to the hasher. */
static linnet_status hash_descriptor(linnet_hasher *hasher, int fd, const char *path, linnet_error *err)
{
    uint8_t chunk[FILE_CHUNK_BYTES];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n == 0)
            return LINNET_OK;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return linnet_fail_errno(err, errno, "cannot read '%s'", path);
        linnet_hasher_update(hasher, chunk, (size_t)n);
    }
}

linnet_status linnet_hash_file(linnet_label label, const char *path, linnet_hash *ret_hash, linnet_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return linnet_fail_errno(err, errno, "cannot open '%s'", path);
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, label);
    linnet_status status = hash_descriptor(&hasher, fd, path, err);
    linnet_hash hash = linnet_hasher_final(&hasher);
    if (status == LINNET_OK)
        *ret_hash = hash;
    (void)close(fd); /* read only: nothing can be lost */
    return status;
}

bool linnet_hash_equal(const linnet_hash *a, const linnet_hash *b)
{
    return sodium_memcmp(a->bytes, b->bytes, LINNET_HASH_BYTES) == 0;
}

linnet_status linnet_crypto_init(linnet_error *err)
{
    if (sodium_init() < 0)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "libsodium does not start: no source of random bytes?");
    return LINNET_OK;
}

void linnet_random_bytes(void *bytes, size_t n_bytes)
{
    randombytes_buf(bytes, n_bytes);
}

void linnet_system_random(void *context, void *bytes, size_t n_bytes)
{
    (void)context;
    randombytes_buf(bytes, n_bytes);
}

void linnet_random_stream_init(linnet_random_stream *stream)
{
    randombytes_buf(stream->key, sizeof(stream->key));
    stream->n_calls = 0;
}

void linnet_random_stream_fill(void *stream, void *bytes, size_t n_bytes)
{
    linnet_random_stream *s = stream;
    uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
    linnet_store_le64(nonce, s->n_calls++);
    (void)crypto_stream_chacha20(bytes, n_bytes, nonce, s->key); /* always 0 */
}

void linnet_random_stream_release(linnet_random_stream *stream)
{
    sodium_memzero(stream, sizeof(*stream));
}

void linnet_wipe(void *bytes, size_t n_bytes)
{
    sodium_memzero(bytes, n_bytes);
}

void linnet_stack_wipe(void)
{
    sodium_stackzero(STACK_WIPE_BYTES);
}
