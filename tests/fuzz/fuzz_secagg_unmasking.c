/* SPDX-License-Identifier: Apache-2.0 */
/* M9 into a coordinator whose survivors are fixed: any kinds and shares, signed on demand; what is accepted
 * has the kind that the frozen bitmap asks for, or nothing, for each owner. */
#include "fuzz_secagg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    size_t n_valid;
    if (!c.f.n) {
        fuzz_server_init(&c, LINNET_SERVER_FROZEN);
        const uint8_t *m9 = fuzz_own(&c, LINNET_LABEL_UNMASK, 0, &n_valid);
        linnet_buffer_append(&c.valid, m9, n_valid);
    }
    linnet_secagg_server_counts before = linnet_secagg_server_count(c.server);
    if (fuzz_message(&c, data, n_bytes) & FUZZ_SIGN)
        fuzz_sign_behind(&c, 0, LINNET_LABEL_UNMASK);
    linnet_status status =
        linnet_secagg_server_unmasking(c.server, c.message.bytes, c.message.n_bytes, false, NULL);
    fuzz_require_unchanged(&c, &before, status);
    for (uint32_t owner = 1; owner < FUZZ_N && status == LINNET_OK; owner++) {
        const uint8_t *entry =
            c.message.bytes + MESSAGE_HEAD_BYTES + (size_t)(owner - 1) * UNMASK_ENTRY_BYTES;
        REQUIRE(entry[0] == UNMASK_MISSING || entry[0] == (owner == 3 ? UNMASK_PAIR : UNMASK_SELF));
    }
    return 0;
}
