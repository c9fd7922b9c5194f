/* SPDX-License-Identifier: Apache-2.0 */
/* A complaint to a coordinator: signed on demand; what is accepted is about another sharer. */
#include "fuzz_secagg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    uint32_t about = 0;
    if (!c.f.n) {
        fuzz_server_init(&c, LINNET_SERVER_FROZEN);
        linnet_device_id id = forger_id(&c.f, 0);
        linnet_buffer_append(&c.valid, c.server->t2.bytes, LINNET_HASH_BYTES);
        linnet_buffer_append(&c.valid, id.bytes, sizeof(id.bytes));
        linnet_buffer_append_le32(&c.valid, 1);
        linnet_signature s =
            linnet_sign(c.f.m[0].identity, LINNET_LABEL_COMPLAINT, c.valid.bytes, c.valid.n_bytes);
        linnet_buffer_append(&c.valid, s.bytes, sizeof(s.bytes));
    }
    linnet_secagg_server_counts before = linnet_secagg_server_count(c.server);
    if (fuzz_message(&c, data, n_bytes) & FUZZ_SIGN)
        fuzz_sign_behind(&c, 0, LINNET_LABEL_COMPLAINT);
    linnet_status status =
        linnet_secagg_server_complaint(c.server, c.message.bytes, c.message.n_bytes, &about, NULL);
    fuzz_require_unchanged(&c, &before, status);
    REQUIRE(status == LINNET_OK ? about > 0 && about < FUZZ_N : about == 0);
    return 0;
}
