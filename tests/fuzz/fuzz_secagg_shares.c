/* SPDX-License-Identifier: Apache-2.0 */
/* M3 into a coordinator that waits for shares: any ciphertexts, signed on demand. */
#include "fuzz_secagg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    size_t n_valid;
    if (!c.f.n) {
        fuzz_server_init(&c, LINNET_SERVER_ROSTER);
        const uint8_t *m3 = fuzz_own(&c, LINNET_LABEL_SHARE, 0, &n_valid);
        linnet_buffer_append(&c.valid, m3, n_valid);
    }
    linnet_secagg_server_counts before = linnet_secagg_server_count(c.server);
    if (fuzz_message(&c, data, n_bytes) & FUZZ_SIGN)
        fuzz_sign_behind(&c, 0, LINNET_LABEL_SHARE);
    linnet_status status =
        linnet_secagg_server_shares(c.server, c.message.bytes, c.message.n_bytes, false, NULL);
    fuzz_require_unchanged(&c, &before, status);
    REQUIRE(status != LINNET_OK || c.message.n_bytes == linnet_secagg_shares_bytes(FUZZ_N));
    return 0;
}
