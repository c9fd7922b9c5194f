/* SPDX-License-Identifier: Apache-2.0 */
/* Shares with any errors: the first byte chooses how many there are, the second the threshold, the third the
 * polynomial; then come a position and 32 bytes that are added to that share bit by bit. As long as few
 * enough are wrong, the secret and they are found; whatever is found is a polynomial with which enough shares
 * agree. */
#include "fuzz_crypto.h"

#include "linnet/shamir.h"

#define HOLDERS_MAX 40
#define EDIT_BYTES (1 + LINNET_SCALAR_BYTES)

/* A polynomial that follows from one byte. */
static void repeated(void *context, void *bytes, size_t n_bytes)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < n_bytes; i++)
        at[i] = (uint8_t)(*(const uint8_t *)context * (i + 1));
}

typedef struct dealt {
    size_t n;
    uint32_t threshold, points[HOLDERS_MAX];
    linnet_scalar secret, shares[HOLDERS_MAX], coefficients[HOLDERS_MAX];
} dealt;

/* The shares that are not wrong say the secret, all together and t of them. */
static void require_sound(const dealt *d, const linnet_scalar *shares, const bool *is_wrong,
                          const linnet_scalar *secret)
{
    uint32_t points[HOLDERS_MAX];
    linnet_scalar good[HOLDERS_MAX], coefficients[HOLDERS_MAX], again;
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++)
        if (!is_wrong[i]) {
            points[n] = d->points[i];
            good[n++] = shares[i];
        }
    REQUIRE(2 * n >= d->n + d->threshold);
    for (size_t used = d->threshold; used <= n; used += n > used ? n - used : 1) {
        REQUIRE(linnet_shamir_coefficients(points, used, coefficients) == LINNET_OK);
        REQUIRE(linnet_shamir_combine(coefficients, good, used, &again) == LINNET_OK);
        REQUIRE(memcmp(&again, secret, sizeof(again)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    dealt d = {.n = 1};
    linnet_scalar shares[HOLDERS_MAX], secret;
    bool is_wrong[HOLDERS_MAX], is_canonical = true;
    size_t n_edited = 0;
    (void)fuzz_identity(); /* the library is ready */
    if (n_bytes < 3)
        return 0;
    uint8_t seed = data[2];
    d.n = 1 + data[0] % HOLDERS_MAX;
    d.threshold = 1 + (uint32_t)(data[1] % d.n);
    for (uint32_t i = 0; i < d.n; i++) /* up to the largest */
        d.points[i] = 1 + (i * 7 + seed * 4u) % LINNET_SHAMIR_DECODE_MAX;
    linnet_scalar_draw(repeated, &seed, &d.secret);
    REQUIRE(linnet_shamir_share(&d.secret, d.threshold, d.points, d.n, repeated, &seed, d.shares) ==
            LINNET_OK);
    REQUIRE(linnet_shamir_coefficients(d.points, d.n, d.coefficients) == LINNET_OK);
    memcpy(shares, d.shares, sizeof(shares));
    for (size_t at = 3; at + EDIT_BYTES <= n_bytes; at += EDIT_BYTES)
        for (size_t k = 0; k < LINNET_SCALAR_BYTES; k++)
            shares[data[at] % d.n].bytes[k] ^= data[at + 1 + k];
    for (size_t i = 0; i < d.n; i++) {
        n_edited += memcmp(&shares[i], &d.shares[i], sizeof(shares[i])) != 0;
        is_canonical = is_canonical && linnet_scalar_is_canonical(&shares[i]);
    }
    linnet_status status =
        linnet_shamir_decode(d.points, d.coefficients, shares, d.n, d.threshold, &secret, is_wrong);
    REQUIRE((status == LINNET_ERR_CRYPTO) == !is_canonical);
    REQUIRE(status == LINNET_OK || status == LINNET_ERR_CRYPTO || status == LINNET_ERR_NOT_FOUND);
    if (status == LINNET_OK)
        require_sound(&d, shares, is_wrong, &secret);
    if (status == LINNET_ERR_CRYPTO || 2 * n_edited > d.n - d.threshold)
        return 0;
    REQUIRE(status == LINNET_OK && memcmp(&secret, &d.secret, sizeof(secret)) == 0);
    for (size_t i = 0; i < d.n; i++)
        REQUIRE(is_wrong[i] == (memcmp(&shares[i], &d.shares[i], sizeof(shares[i])) != 0));
    return 0;
}
