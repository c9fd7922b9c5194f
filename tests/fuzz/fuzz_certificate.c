/* SPDX-License-Identifier: Apache-2.0 */
/* Certificate: as it came, and with the fuzzed body under a good signature; what opens can be signed to the
 * same bytes. */
#include "fuzz_crypto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const linnet_identity *authority = fuzz_identity();
    const linnet_public_key *key = linnet_identity_public_key(authority);
    uint8_t bytes[LINNET_SIGNED_CERTIFICATE_BYTES], again[LINNET_SIGNED_CERTIFICATE_BYTES];
    linnet_certificate certificate;
    (void)!linnet_certificate_open(data, n_bytes, key, 1767225600, &certificate); /* must not crash */
    if (n_bytes < LINNET_CERTIFICATE_BYTES + 1)
        return 0;

    memcpy(bytes, data, LINNET_CERTIFICATE_BYTES);
    if (data[LINNET_CERTIFICATE_BYTES] & 1) { /* half of the time with the id that belongs to the key */
        linnet_public_key subject;
        memcpy(subject.bytes, bytes + 18, sizeof(subject.bytes));
        linnet_device_id id = linnet_device_id_of(&subject);
        memcpy(bytes + 2, id.bytes, sizeof(id.bytes));
    }
    fuzz_sign(LINNET_LABEL_CERTIFICATE, bytes, LINNET_CERTIFICATE_BYTES);
    linnet_status status = linnet_certificate_open(bytes, sizeof(bytes), key, 1767225600, &certificate);
    REQUIRE(status == LINNET_OK || status == LINNET_ERR_FORMAT || status == LINNET_ERR_EXPIRED);
    if (status != LINNET_OK)
        return 0;
    REQUIRE(certificate.not_before <= 1767225600 && certificate.not_after >= 1767225600);
    linnet_certificate_sign(&certificate, authority, again);
    REQUIRE(memcmp(again, bytes, sizeof(bytes)) == 0);
    return 0;
}
