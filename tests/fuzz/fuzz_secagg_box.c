/* SPDX-License-Identifier: Apache-2.0 */
/* A share box: any bytes, or shares of the fuzzer sealed well; what opens is two scalars. */
#include "fuzz_secagg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    linnet_share_box_key key;
    linnet_scalar s_share, b_share;
    if (!c.f.n)
        fuzz_cohort_init(&c, LINNET_SECAGG_SHARED, forger_all(FUZZ_N));
    const linnet_secagg_device *d = c.f.m[0].device;
    if (!c.valid.n_bytes)
        linnet_buffer_append(&c.valid, forger_box(&c.f, 1, 0), LINNET_SHARE_BOX_BYTES);
    REQUIRE(linnet_share_box_key_derive(d->secrets->sk_e, d->members[1].pk_e, &d->t1, 1, 0, &key) ==
            LINNET_OK);
    uint8_t flags = fuzz_message(&c, data, n_bytes);
    if (c.message.n_bytes < LINNET_SHARE_BOX_BYTES)
        return 0;
    if (flags & FUZZ_SIGN) { /* nonce and shares as they come, the rest as it must be */
        uint8_t plain[24 + 32 + 32];
        memcpy(plain, c.message.bytes, sizeof(plain));
        memcpy(s_share.bytes, plain + 24, 32);
        memcpy(b_share.bytes, plain + 56, 32);
        linnet_share_box_seal(&key, plain, &s_share, &b_share, c.message.bytes);
    }
    if (linnet_share_box_open(&key, c.message.bytes, &s_share, &b_share) == LINNET_OK)
        REQUIRE(linnet_scalar_is_canonical(&s_share) && linnet_scalar_is_canonical(&b_share));
    else
        REQUIRE(s_share.bytes[0] == 0 && b_share.bytes[31] == 0);
    return 0;
}
