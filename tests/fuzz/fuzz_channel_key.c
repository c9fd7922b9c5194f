/* SPDX-License-Identifier: Apache-2.0 */
/* Channel key record: as it came, and with the fuzzed body under a good signature; what opens lives at most a
 * week. */
#include "fuzz_crypto.h"
#include "linnet/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const linnet_identity *coordinator = fuzz_identity();
    const linnet_public_key *public_key = linnet_identity_public_key(coordinator);
    uint8_t bytes[LINNET_SIGNED_CHANNEL_KEY_BYTES], again[LINNET_SIGNED_CHANNEL_KEY_BYTES];
    linnet_channel_key key;
    (void)!linnet_channel_key_open(data, n_bytes, public_key, 1767225600, &key); /* must not crash */
    if (n_bytes < LINNET_CHANNEL_KEY_BYTES)
        return 0;

    memcpy(bytes, data, LINNET_CHANNEL_KEY_BYTES);
    fuzz_sign(LINNET_LABEL_CHANNEL_KEY, bytes, LINNET_CHANNEL_KEY_BYTES);
    linnet_status status = linnet_channel_key_open(bytes, sizeof(bytes), public_key, 0, &key);
    REQUIRE(status == LINNET_OK || status == LINNET_ERR_FORMAT);
    if (status != LINNET_OK)
        return 0;
    REQUIRE(key.not_before <= key.not_after &&
            key.not_after - key.not_before <= LINNET_CHANNEL_KEY_SECONDS_MAX);
    linnet_channel_key_sign(&key, coordinator, again);
    REQUIRE(memcmp(again, bytes, sizeof(bytes)) == 0);
    return 0;
}
