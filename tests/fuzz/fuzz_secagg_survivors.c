/* SPDX-License-Identifier: Apache-2.0 */
/* M6 into a device that has uploaded: any bitmap and list, signed on demand. */
#include "fuzz_secagg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    linnet_survivors s;
    if (!c.f.n) {
        fuzz_cohort_init(&c, LINNET_SECAGG_MASKING, forger_all(FUZZ_N));
        (void)forger_m6(&c.f, &c.f.m[0].device->t2, c.u3, &c.valid);
    }
    linnet_secagg_device *d = fuzz_device(&c);
    if (fuzz_message(&c, data, n_bytes) & FUZZ_SIGN)
        (void)fuzz_sign_survivors(&c, &d->t2, true, &s);
    linnet_status status = linnet_secagg_device_take_survivors(d, c.message.bytes, c.message.n_bytes, NULL);
    fuzz_require_sane(d, LINNET_SECAGG_ATTESTED, status);
    if (status == LINNET_OK) {
        REQUIRE(linnet_bitmap_has(d->u3, 0) && linnet_bitmap_check(d->u3, FUZZ_N) == LINNET_OK);
        REQUIRE(linnet_bitmap_count(d->u3, FUZZ_N) >= c.f.thresholds.survivors_min);
    }
    linnet_secagg_device_destroy(d);
    return 0;
}
