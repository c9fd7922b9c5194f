/* SPDX-License-Identifier: Apache-2.0 */
/* Signed request for a certificate: as it came, and with the fuzzed fields under a good signature and proof.
 */
#include "fuzz_crypto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const linnet_identity *device = fuzz_identity();
    static const linnet_enrol_token token = {.secret = {9}};
    linnet_csr csr, again;
    linnet_status status = linnet_csr_open(data, n_bytes, &csr);
    REQUIRE(status == LINNET_OK ||
            status == (n_bytes == LINNET_SIGNED_CSR_BYTES ? LINNET_ERR_CRYPTO : LINNET_ERR_FORMAT));
    (void)!linnet_csr_check_token(data, n_bytes, token.secret); /* any answer will do: it must not crash */
    if (n_bytes < LINNET_CSR_BYTES)
        return 0;

    uint8_t bytes[LINNET_SIGNED_CSR_BYTES];
    csr.public_key = *linnet_identity_public_key(device);
    csr.device_class = linnet_load_le32(data + 32);
    memcpy(csr.token_id, data + 36, sizeof(csr.token_id));
    memcpy(csr.coordinator.bytes, data + 52, sizeof(csr.coordinator.bytes));
    linnet_csr_sign(&csr, &token, device, bytes);
    REQUIRE(linnet_csr_open(bytes, sizeof(bytes), &again) == LINNET_OK);
    REQUIRE(linnet_csr_check_token(bytes, sizeof(bytes), token.secret) == LINNET_OK);
    REQUIRE(memcmp(&again, &csr, sizeof(csr)) == 0);
    return 0;
}
