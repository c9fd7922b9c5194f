/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secret-independence of linnet-sa1's primitives, for valgrind (SECURE-AGGREGATION 6.2, property 18). Secrets
 * are marked undefined; memcheck then reports every branch and every address that depends on one. What the
 * protocol publishes is marked defined where it is published, and nothing else:
 *
 * - the outcome of a comparison that refuses a message (is a scalar canonical?): sodium_memcmp;
 * - whether X25519 gave zero, which depends on the public key alone: crypto_scalarmult_curve25519;
 * - whether a box opens: crypto_aead_xchacha20poly1305_ietf_decrypt, which also takes a branch on it itself;
 *   valgrind.supp names that one;
 * - the public key of a pair, which goes into the advert, and sealed boxes.
 *
 * Run under valgrind by
 * test_constant_time.sh; with --leak it takes a branch on a share, which valgrind must report.
 */
#include "linnet/secagg_mask.h"

#include <stdio.h>
#include <stdlib.h>

#include <sodium.h>
#include <valgrind/memcheck.h>

#define N_HOLDERS 9
#define THRESHOLD 5

/* ---- what is published ---- */

typedef unsigned char byte;
typedef unsigned long long length;
int __real_sodium_memcmp(const void *a, const void *b, size_t n);
int __wrap_sodium_memcmp(const void *a, const void *b, size_t n);
int __real_crypto_scalarmult_curve25519(byte *q, const byte *n, const byte *p);
int __wrap_crypto_scalarmult_curve25519(byte *q, const byte *n, const byte *p);
int __real_crypto_aead_xchacha20poly1305_ietf_decrypt(byte *m, length *n_m, byte *none, const byte *c,
                                                      length n_c, const byte *ad, length n_ad,
                                                      const byte *nonce, const byte *key);
int __wrap_crypto_aead_xchacha20poly1305_ietf_decrypt(byte *m, length *n_m, byte *none, const byte *c,
                                                      length n_c, const byte *ad, length n_ad,
                                                      const byte *nonce, const byte *key);

static int published(int outcome)
{
    (void)VALGRIND_MAKE_MEM_DEFINED(&outcome, sizeof(outcome));
    return outcome;
}

int __wrap_sodium_memcmp(const void *a, const void *b, size_t n)
{
    return published(__real_sodium_memcmp(a, b, n));
}

int __wrap_crypto_scalarmult_curve25519(byte *q, const byte *n, const byte *p)
{
    return published(__real_crypto_scalarmult_curve25519(q, n, p));
}

int __wrap_crypto_aead_xchacha20poly1305_ietf_decrypt(byte *m, length *n_m, byte *none, const byte *c,
                                                      length n_c, const byte *ad, length n_ad,
                                                      const byte *nonce, const byte *key)
{
    return published(
        __real_crypto_aead_xchacha20poly1305_ietf_decrypt(m, n_m, none, c, n_c, ad, n_ad, nonce, key));
}

/* ---- the check's own checks ---- */

static void require(bool claim, const char *text)
{
    if (claim)
        return;
    (void)fprintf(stderr, "ct_secagg: %s\n", text);
    exit(2);
}

static void hide(void *bytes, size_t n_bytes)
{
    (void)VALGRIND_MAKE_MEM_UNDEFINED(bytes, n_bytes);
}

static void publish(void *bytes, size_t n_bytes)
{
    (void)VALGRIND_MAKE_MEM_DEFINED(bytes, n_bytes);
}

/* Did the secret get here at all? A check that lost it on the way would pass for nothing. */
static void require_hidden(const void *bytes, const char *text)
{
    uint8_t bits[32] = {0};
    unsigned n_hidden = 0;
    (void)VALGRIND_GET_VBITS(bytes, bits, sizeof(bits));
    publish(bits, sizeof(bits));
    for (size_t i = 0; i < sizeof(bits); i++)
        n_hidden += bits[i] != 0;
    require(n_hidden == sizeof(bits), text);
}

static void hidden_random(void *context, void *bytes, size_t n_bytes)
{
    (void)context;
    linnet_random_bytes(bytes, n_bytes);
    hide(bytes, n_bytes);
}

/* ---- the primitives, on secrets ---- */

static void share_and_combine(linnet_scalar shares[N_HOLDERS])
{
    uint32_t points[N_HOLDERS];
    linnet_scalar secret, rebuilt, coefficients[THRESHOLD];
    for (uint32_t i = 0; i < N_HOLDERS; i++)
        points[i] = i + 1;
    linnet_scalar_draw(hidden_random, NULL, &secret);
    require_hidden(&secret, "a drawn scalar is not hidden");
    require(linnet_scalar_is_canonical(&secret), "a drawn scalar is not canonical");
    require(linnet_shamir_share(&secret, THRESHOLD, points, N_HOLDERS, hidden_random, NULL, shares) ==
                LINNET_OK,
            "sharing fails");
    require_hidden(&shares[N_HOLDERS - 1], "a share is not hidden");
    require(linnet_shamir_coefficients(points, THRESHOLD, coefficients) == LINNET_OK, "no coefficients");
    require(linnet_shamir_combine(coefficients, shares, THRESHOLD, &rebuilt) == LINNET_OK, "combining fails");
    require_hidden(&rebuilt, "a rebuilt secret is not hidden");
    publish(&rebuilt, sizeof(rebuilt));
    publish(&secret, sizeof(secret));
    require(memcmp(&rebuilt, &secret, sizeof(secret)) == 0, "another secret is rebuilt");
}

static void mask_vectors(const linnet_hash *key)
{
    static const uint32_t widths[] = {16, 20, 24, 32};
    static uint32_t x[LINNET_PACK_CHUNK];
    static uint8_t packed[4 * LINNET_PACK_CHUNK];
    for (size_t w = 0; w < ARRAY_LEN(widths); w++)
        for (size_t n = LINNET_PACK_CHUNK; n > LINNET_PACK_CHUNK - 4; n--) {
            hide(x, sizeof(x));
            linnet_mask_add(key, 0, widths[w], LINNET_PACK_CHUNK, n, x);
            linnet_mask_subtract(key, 1, widths[w], 0, n, x);
            linnet_pack(widths[w], x, n, packed);
            require_hidden(packed, "a masked vector is not hidden");
        }
}

static void agree_and_mask(void)
{
    linnet_hash announcement = {{1}}, t2 = {{2}}, pair_key;
    linnet_device_id device = {{3}};
    linnet_scalar r_s, r_b;
    uint8_t secret_key[32], public_key[32], peer_secret[32], peer_public[32];
    linnet_scalar_draw(hidden_random, NULL, &r_s);
    linnet_scalar_draw(hidden_random, NULL, &r_b);
    linnet_secagg_kx_pair(&r_s, &announcement, &device, secret_key, public_key);
    require_hidden(secret_key, "a secret key is not hidden");
    publish(public_key, sizeof(public_key));
    linnet_x25519_draw(peer_secret, peer_public);
    require(linnet_secagg_pair_key(secret_key, public_key, peer_public, &t2, &pair_key) == LINNET_OK,
            "no pair key");
    require_hidden(&pair_key, "a pair key is not hidden");
    linnet_hash commitment = linnet_secagg_self_commitment(&r_b, &announcement, &device);
    require_hidden(&commitment, "a commitment does not depend on its secret");
    linnet_hash self_key = linnet_secagg_self_key(&r_b, &t2, &device);
    mask_vectors(&self_key);
    mask_vectors(&pair_key);
}

static void seal_and_open(const linnet_scalar *s_share, const linnet_scalar *b_share)
{
    linnet_hash t1 = {{4}};
    linnet_share_box_key key;
    linnet_scalar s, b;
    uint8_t secret_key[32], public_key[32], peer_secret[32], peer_public[32], nonce[24];
    uint8_t box[LINNET_SHARE_BOX_BYTES];
    linnet_x25519_draw(secret_key, public_key);
    linnet_x25519_draw(peer_secret, peer_public);
    linnet_random_bytes(nonce, sizeof(nonce));
    hide(secret_key, sizeof(secret_key));
    hide(peer_secret, sizeof(peer_secret));
    require(linnet_share_box_key_derive(secret_key, peer_public, &t1, 0, 1, &key) == LINNET_OK, "no box key");
    require_hidden(&key.key, "a box key is not hidden");
    linnet_share_box_seal(&key, nonce, s_share, b_share, box);
    publish(box, sizeof(box)); /* it is sent */
    require(linnet_share_box_key_derive(peer_secret, public_key, &t1, 0, 1, &key) == LINNET_OK, "no box key");
    require(linnet_share_box_open(&key, box, &s, &b) == LINNET_OK, "a box does not open");
    require_hidden(&s, "an opened share is not hidden");
    box[sizeof(box) - 1] ^= 1;
    require(linnet_share_box_open(&key, box, &s, &b) == LINNET_ERR_CRYPTO, "a changed box opens");
}

/* Takes as long as the share says; volatile, so that no compiler finds a way without a branch. */
static void leak(const linnet_scalar *share)
{
    for (volatile unsigned i = 0; i < share->bytes[0]; i++)
        continue;
}

int main(int argc, char **argv)
{
    linnet_error err;
    linnet_scalar shares[N_HOLDERS];
    require(RUNNING_ON_VALGRIND, "says nothing without valgrind");
    require(linnet_crypto_init(&err) == LINNET_OK, "libsodium does not start");
    share_and_combine(shares);
    if (argc == 2 && strcmp(argv[1], "--leak") == 0) {
        leak(&shares[0]);
        return 0;
    }
    agree_and_mask();
    seal_and_open(&shares[0], &shares[1]);
    return 0;
}
