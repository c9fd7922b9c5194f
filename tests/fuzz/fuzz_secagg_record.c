/* SPDX-License-Identifier: Apache-2.0 */
/* The round record of a device, in the phase that the first byte says: whatever loads saves to the same
 * bytes, and then takes the next message without harm. */
#include "fuzz_secagg.h"

static void go_on(const fuzz_cohort *c, linnet_secagg_device *d, linnet_secagg_phase phase)
{
    linnet_buffer m = {0};
    uint8_t y[3 * FORGER_COORDINATES] = {0};
    const linnet_secagg_device *good = c->f.m[0].device;
    if (phase == LINNET_SECAGG_SHARED) {
        forger_m4(&c->f, 0, &good->t1, c->u2, &m);
        (void)!linnet_secagg_device_take_sharers(d, m.bytes, m.n_bytes, NULL); /* must not crash */
    } else if (phase == LINNET_SECAGG_MASKING) {
        (void)!linnet_secagg_device_mask(d, 0, 0, FORGER_COORDINATES, y, NULL);
        (void)forger_m6(&c->f, &good->t2, c->u3, &m);
        (void)!linnet_secagg_device_take_survivors(d, m.bytes, m.n_bytes, NULL);
    } else if (good->phase >= LINNET_SECAGG_MASKING) {
        (void)forger_m8(&c->f, &good->t2, c->u3, &m);
        (void)!linnet_secagg_device_take_certificate(d, m.bytes, m.n_bytes, NULL);
    }
    linnet_buffer_release(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort cohorts[LINNET_SECAGG_RELEASED + 1];
    linnet_secagg_device *d = NULL;
    linnet_buffer again = {0};
    int phase = LINNET_SECAGG_SHARED + (n_bytes ? data[0] >> 3 : 0) % 4;
    fuzz_cohort *c = &cohorts[phase];
    if (!c->f.n) {
        fuzz_cohort_init(c, (linnet_secagg_phase)phase, forger_all(FUZZ_N));
        REQUIRE(linnet_secagg_device_save(c->f.m[0].device, &c->valid, NULL) == LINNET_OK);
    }
    (void)fuzz_message(c, data, n_bytes);
    linnet_status status = linnet_secagg_device_load(&c->f.params, c->f.m[0].identity, c->message.bytes,
                                                     c->message.n_bytes, &d, NULL);
    REQUIRE(status == LINNET_OK || status == LINNET_ERR_FORMAT || status == LINNET_ERR_MISMATCH);
    if (status != LINNET_OK)
        return 0;
    REQUIRE(linnet_secagg_device_save(d, &again, NULL) == LINNET_OK);
    REQUIRE(again.n_bytes == c->message.n_bytes && memcmp(again.bytes, c->message.bytes, again.n_bytes) == 0);
    go_on(c, d, linnet_secagg_device_phase(d));
    linnet_buffer_release(&again);
    linnet_secagg_device_destroy(d);
    return 0;
}
