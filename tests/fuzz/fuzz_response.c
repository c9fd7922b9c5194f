/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed response: as it came, which never opens; and the fuzzed bytes as a body, sealed, altered, opened. */
#include "fuzz_crypto.h"
#include "linnet/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const linnet_exchange exchange = {.secret = {1}, .enc = {2}, .header = {{3}}, .request = {{4}}};
    linnet_buffer body = {0}, wire = {0};
    linnet_error err;
    (void)fuzz_identity(); /* starts libsodium */
    linnet_status status = linnet_response_open(&exchange, data, n_bytes, &body, &err);
    REQUIRE(status == (n_bytes < LINNET_RESPONSE_OVERHEAD ? LINNET_ERR_FORMAT : LINNET_ERR_CRYPTO));
    REQUIRE(body.n_bytes == 0);

    REQUIRE(linnet_response_seal(&exchange, data, n_bytes, &wire, &err) == LINNET_OK);
    REQUIRE(linnet_response_open(&exchange, wire.bytes, wire.n_bytes, &body, &err) == LINNET_OK);
    REQUIRE(body.n_bytes == n_bytes && (n_bytes == 0 || memcmp(body.bytes, data, n_bytes) == 0));
    body.n_bytes = 0;
    size_t at = n_bytes > 0 ? data[0] % wire.n_bytes : 0;
    wire.bytes[at] ^= 0x80;
    REQUIRE(linnet_response_open(&exchange, wire.bytes, wire.n_bytes, &body, &err) == LINNET_ERR_CRYPTO);
    linnet_buffer_release(&body);
    linnet_buffer_release(&wire);
    return 0;
}
