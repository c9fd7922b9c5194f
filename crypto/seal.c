/* SPDX-License-Identifier: Apache-2.0 */

/* Sealing of values at rest. The nonce of 192 bits is drawn for each value, so a key never needs a counter
 * that a restored backup could turn back. */

#include "linnet/seal.h"

#include <sodium.h>

#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_BYTES crypto_aead_xchacha20poly1305_ietf_ABYTES

_Static_assert(NONCE_BYTES + TAG_BYTES == LINNET_SEAL_EXTRA_BYTES, "what a seal adds");

linnet_status linnet_seal(const uint8_t key[LINNET_SEAL_KEY_BYTES], const void *associated,
                          size_t n_associated, const void *plain, size_t n_plain, linnet_buffer *ret_sealed,
                          linnet_error *err)
{
    if (n_plain > SIZE_MAX - LINNET_SEAL_EXTRA_BYTES ||
        !linnet_buffer_reserve(ret_sealed, n_plain + LINNET_SEAL_EXTRA_BYTES))
        return linnet_fail(err, LINNET_ERR_NOMEM, "sealing of %zu bytes", n_plain);
    uint8_t *nonce = ret_sealed->bytes + ret_sealed->n_bytes;
    randombytes_buf(nonce, NONCE_BYTES);
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + NONCE_BYTES, NULL, plain, n_plain, associated,
                                                     n_associated, NULL, nonce, key); /* always 0 */
    ret_sealed->n_bytes += n_plain + LINNET_SEAL_EXTRA_BYTES;
    return LINNET_OK;
}

linnet_status linnet_unseal(const uint8_t key[LINNET_SEAL_KEY_BYTES], const void *associated,
                            size_t n_associated, const void *sealed, size_t n_sealed,
                            linnet_buffer *ret_plain, linnet_error *err)
{
    const uint8_t *nonce = sealed;
    if (n_sealed < LINNET_SEAL_EXTRA_BYTES)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "a sealed value is cut short");
    size_t n_plain = n_sealed - LINNET_SEAL_EXTRA_BYTES;
    if (!linnet_buffer_reserve(ret_plain, n_plain + 1)) /* never NULL, which libsodium forbids */
        return linnet_fail(err, LINNET_ERR_NOMEM, "opening of %zu sealed bytes", n_plain);
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(ret_plain->bytes + ret_plain->n_bytes, NULL, NULL,
                                                   nonce + NONCE_BYTES, n_sealed - NONCE_BYTES, associated,
                                                   n_associated, nonce, key) != 0)
        return linnet_fail(err, LINNET_ERR_CRYPTO,
                           "a sealed value does not open: another key or other bytes");
    ret_plain->n_bytes += n_plain;
    return LINNET_OK;
}
