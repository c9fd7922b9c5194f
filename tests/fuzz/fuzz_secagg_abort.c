/* SPDX-License-Identifier: Apache-2.0 */
/* An abort to a coordinator: signed on demand; what is accepted names a known reason. */
#include "fuzz_secagg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    linnet_abort_reason reason = LINNET_ABORT_NONE;
    if (!c.f.n) {
        fuzz_server_init(&c, LINNET_SERVER_ROSTER);
        REQUIRE(linnet_buffer_reserve(&c.valid, LINNET_ABORT_BYTES));
        linnet_secagg_device_abort(c.f.m[0].device, LINNET_ABORT_TIME, c.valid.bytes);
        c.valid.n_bytes = LINNET_ABORT_BYTES;
    }
    linnet_secagg_server_counts before = linnet_secagg_server_count(c.server);
    if (fuzz_message(&c, data, n_bytes) & FUZZ_SIGN)
        fuzz_sign_behind(&c, 0, LINNET_LABEL_ABORT);
    linnet_status status =
        linnet_secagg_server_abort(c.server, c.message.bytes, c.message.n_bytes, &reason, NULL);
    fuzz_require_unchanged(&c, &before, status);
    REQUIRE(status == LINNET_OK ? reason >= LINNET_ABORT_ROSTER && reason <= LINNET_ABORT_TIME
                                : reason == LINNET_ABORT_NONE);
    return 0;
}
