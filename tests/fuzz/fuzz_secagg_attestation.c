/* SPDX-License-Identifier: Apache-2.0 */
/* M7 into a coordinator whose survivors are fixed: signed on demand over whatever T3 it says. */
#include "fuzz_secagg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    size_t n_valid;
    if (!c.f.n) {
        fuzz_server_init(&c, LINNET_SERVER_FROZEN);
        const uint8_t *m7 = fuzz_own(&c, LINNET_LABEL_ATTEST, 0, &n_valid);
        linnet_buffer_append(&c.valid, m7, n_valid);
    }
    linnet_secagg_server_counts before = linnet_secagg_server_count(c.server);
    if (fuzz_message(&c, data, n_bytes) & FUZZ_SIGN && c.message.n_bytes >= LINNET_ATTESTATION_BYTES) {
        linnet_signature s =
            linnet_sign(c.f.m[0].identity, LINNET_LABEL_ATTEST, c.message.bytes, LINNET_HASH_BYTES);
        memcpy(c.message.bytes + MESSAGE_HEAD_BYTES, s.bytes, sizeof(s.bytes));
    }
    linnet_status status =
        linnet_secagg_server_attestation(c.server, c.message.bytes, c.message.n_bytes, false, NULL);
    fuzz_require_unchanged(&c, &before, status);
    REQUIRE(status != LINNET_OK || memcmp(c.message.bytes, c.server->t3.bytes, LINNET_HASH_BYTES) == 0);
    return 0;
}
