/* SPDX-License-Identifier: Apache-2.0 */
/* Revocation list: as it came, and with the fuzzed body under a good signature; what opens is sorted and
 * searchable. */
#include "fuzz_crypto.h"

static void check_list(const linnet_revocation *list)
{
    for (size_t i = 0; i < list->n_ids; i++) {
        linnet_device_id id;
        memcpy(id.bytes, list->ids + i * sizeof(id.bytes), sizeof(id.bytes));
        REQUIRE(linnet_revocation_contains(list, &id));
        if (i > 0)
            REQUIRE(memcmp(list->ids + (i - 1) * sizeof(id.bytes), id.bytes, sizeof(id.bytes)) < 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const linnet_public_key *key = linnet_identity_public_key(fuzz_identity());
    linnet_revocation list;
    if (linnet_revocation_open(data, n_bytes, key, &list) == LINNET_OK)
        check_list(&list);

    uint8_t *bytes = malloc(n_bytes + LINNET_SIGNATURE_BYTES);
    if (!bytes)
        return 0;
    if (n_bytes > 0)
        memcpy(bytes, data, n_bytes);
    fuzz_sign(LINNET_LABEL_REVOCATION, bytes, n_bytes);
    linnet_status status = linnet_revocation_open(bytes, n_bytes + LINNET_SIGNATURE_BYTES, key, &list);
    REQUIRE(status == LINNET_OK || status == LINNET_ERR_FORMAT);
    if (status == LINNET_OK)
        check_list(&list);
    free(bytes);
    return 0;
}
