/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SEAL_H
#define LINNET_SEAL_H

/* A value at rest under one key: XChaCha20-Poly1305 with a random nonce in front, and what the value is (its
 * name, its generation) as associated data, so that no value opens as another one (SECURE-AGGREGATION 7). */

#include "linnet/hash.h"

#define LINNET_SEAL_KEY_BYTES 32
#define LINNET_SEAL_EXTRA_BYTES (24 + 16) /* nonce and tag */

/** Append nonce, ciphertext and tag to ret_sealed. */
linnet_status linnet_seal(const uint8_t key[LINNET_SEAL_KEY_BYTES], const void *associated,
                          size_t n_associated, const void *plain, size_t n_plain, linnet_buffer *ret_sealed,
                          linnet_error *err) LINNET_NODISCARD;
/** Append the plain bytes to ret_plain, which the caller wipes. CRYPTO where key, associated data or bytes
 * are others. */
linnet_status linnet_unseal(const uint8_t key[LINNET_SEAL_KEY_BYTES], const void *associated,
                            size_t n_associated, const void *sealed, size_t n_sealed,
                            linnet_buffer *ret_plain, linnet_error *err) LINNET_NODISCARD;

#endif
