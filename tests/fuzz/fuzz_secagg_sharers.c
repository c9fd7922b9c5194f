/* SPDX-License-Identifier: Apache-2.0 */
/* M4 into a device that waits for it: any bitmap, signed on demand, and any boxes. */
#include "fuzz_secagg.h"

static void sign_sharers(fuzz_cohort *c, const linnet_secagg_device *d)
{
    if (c->message.n_bytes < LINNET_SIGNATURE_BYTES + linnet_bitmap_bytes(FUZZ_N))
        return;
    linnet_hash t2 = linnet_secagg_t2(&d->t1, c->message.bytes + LINNET_SIGNATURE_BYTES, FUZZ_N);
    fuzz_sign_front(c, &t2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    if (!c.f.n) {
        fuzz_cohort_init(&c, LINNET_SECAGG_SHARED, forger_all(FUZZ_N));
        forger_m4(&c.f, 0, &c.f.m[0].device->t1, c.u2, &c.valid);
    }
    linnet_secagg_device *d = fuzz_device(&c);
    if (fuzz_message(&c, data, n_bytes) & FUZZ_SIGN)
        sign_sharers(&c, d);
    linnet_status status = linnet_secagg_device_take_sharers(d, c.message.bytes, c.message.n_bytes, NULL);
    fuzz_require_sane(d, LINNET_SECAGG_MASKING, status);
    if (status == LINNET_OK) {
        uint32_t n_missing = linnet_bitmap_count(d->missing, FUZZ_N);
        REQUIRE(linnet_bitmap_has(d->u2, 0) && linnet_bitmap_check(d->u2, FUZZ_N) == LINNET_OK);
        REQUIRE(linnet_bitmap_count(d->u2, FUZZ_N) >= c.f.thresholds.sharers_min);
        REQUIRE(n_missing <= c.f.thresholds.corrupt);
        REQUIRE(d->complaints.n_bytes == (size_t)n_missing * LINNET_COMPLAINT_BYTES);
    }
    linnet_secagg_device_destroy(d);
    return 0;
}
