/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_CHANNEL_INNER_H
#define LINNET_CHANNEL_INNER_H

/* The channel with its two random draws given, so that vectors can be checked byte by byte. For tests only: a
 * secret or nonce that is used twice breaks the channel. */

#include "linnet/channel.h"

/** linnet_request_seal with the ephemeral X25519 secret. */
linnet_status linnet_request_seal_with(const uint8_t ephemeral_secret[32], const uint8_t *signed_key_record,
                                       const char *method, const char *path, const linnet_identity *device,
                                       const void *body, size_t n_body, linnet_buffer *ret_bytes,
                                       linnet_exchange *ret_exchange, linnet_error *err) LINNET_NODISCARD;

/** linnet_response_seal with the response nonce. */
linnet_status linnet_response_seal_with(const uint8_t response_nonce[32], const linnet_exchange *exchange,
                                        const void *body, size_t n_body, linnet_buffer *ret_bytes,
                                        linnet_error *err) LINNET_NODISCARD;

#endif
