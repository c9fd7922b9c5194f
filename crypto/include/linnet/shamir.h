/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SHAMIR_H
#define LINNET_SHAMIR_H

/* Shamir's secret sharing over the scalar field of ristretto255, order L (SECURE-AGGREGATION 2.1, 2.4). All
 * arithmetic is libsodium's constant-time code; only decoding branches on the shares. Every scalar that came
 * from elsewhere passes linnet_scalar_is_canonical before it is used: libsodium's add and sub do not reduce
 * other inputs safely. */

#include "linnet/hash.h"

#define LINNET_SCALAR_BYTES 32
/** An integer modulo L, 32 bytes little-endian. */
typedef struct linnet_scalar {
    uint8_t bytes[LINNET_SCALAR_BYTES];
} linnet_scalar;

/** Is it below L? Constant time. L - 1 and 0 are, L and 2^255 are not. */
bool linnet_scalar_is_canonical(const linnet_scalar *scalar);
/** Uniform in 0 .. L - 1: 64 random bytes reduced (scalar_random never gives 0). */
void linnet_scalar_draw(linnet_random_fn *random, void *context, linnet_scalar *ret_scalar);

/**
 * Share secret among n holders at points points[0..n) so that any `threshold` of them rebuild it and fewer
 * know nothing: a random polynomial of degree threshold - 1 with the secret as its constant.
 *
 * points      distinct, 1 .. UINT32_MAX; x = 0 is the secret itself: ARG
 * ret_shares  n scalars, set on success; the caller wipes them
 *
 * ARG for a threshold of 0 or above n, or for points that are 0 or not distinct; CRYPTO for a secret that is
 * not canonical; NOMEM.
 */
linnet_status linnet_shamir_share(const linnet_scalar *secret, uint32_t threshold, const uint32_t *points,
                                  size_t n, linnet_random_fn *random, void *context,
                                  linnet_scalar *ret_shares) LINNET_NODISCARD;

/** Lagrange coefficients at 0 for these points: secret = sum of coefficient_i x share_i. They depend on the
 * points alone, so that one set serves all secrets that the same holders keep. ARG as above. */
linnet_status linnet_shamir_coefficients(const uint32_t *points, size_t n,
                                         linnet_scalar *ret_coefficients) LINNET_NODISCARD;
/** sum of coefficients[i] x shares[i]. CRYPTO where a share is not canonical. */
linnet_status linnet_shamir_combine(const linnet_scalar *coefficients, const linnet_scalar *shares, size_t n,
                                    linnet_scalar *ret_secret) LINNET_NODISCARD;

#define LINNET_SHAMIR_DECODE_MAX 1024
/**
 * The secret of n shares of which up to (n - threshold) / 2 may be anything: that of the polynomial of degree
 * threshold - 1 with which the others agree. There is one at most. In O(n^2) multiplications, whose number
 * and whose branches depend on the shares: for who knows all of them by right, as a coordinator does.
 *
 * points        1 .. LINNET_SHAMIR_DECODE_MAX, distinct, hence n at most as many
 * coefficients  of linnet_shamir_coefficients, for these points
 * ret_is_wrong  n values, set on success: the share is not on that polynomial
 *
 * ARG for other points, or a threshold of 0 or above n; CRYPTO where a share is not canonical; NOT_FOUND
 * where no polynomial agrees with as many shares; NOMEM.
 */
linnet_status linnet_shamir_decode(const uint32_t *points, const linnet_scalar *coefficients,
                                   const linnet_scalar *shares, size_t n, uint32_t threshold,
                                   linnet_scalar *ret_secret, bool *ret_is_wrong) LINNET_NODISCARD;

#endif
