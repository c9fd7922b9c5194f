/* SPDX-License-Identifier: Apache-2.0 */
/* M8 into a device that has uploaded and attested nothing, so that it may adopt or be set free: any set, any
 * signers, signed on demand by the coordinator and by whom the entries name. */
#include "fuzz_secagg.h"

/* Each entry that names a member gets its signature. */
static void sign_entries(fuzz_cohort *c, const linnet_survivors *s)
{
    for (size_t at = s->n_bytes + 4; at + ATTEST_ENTRY_BYTES <= c->message.n_bytes;
         at += ATTEST_ENTRY_BYTES) {
        uint32_t signer = linnet_load_le32(c->message.bytes + at);
        if (signer >= FUZZ_N)
            continue;
        linnet_signature sig =
            linnet_sign(c->f.m[signer].identity, LINNET_LABEL_ATTEST, s->t3.bytes, LINNET_HASH_BYTES);
        memcpy(c->message.bytes + at + 4, sig.bytes, sizeof(sig.bytes));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    linnet_survivors s;
    if (!c.f.n) {
        fuzz_cohort_init(&c, LINNET_SECAGG_MASKING, forger_all(FUZZ_N));
        (void)forger_m8(&c.f, &c.f.m[0].device->t2, c.u3, &c.valid);
    }
    linnet_secagg_device *d = fuzz_device(&c);
    uint8_t flags = fuzz_message(&c, data, n_bytes);
    if (flags & FUZZ_SIGN && fuzz_sign_survivors(&c, &d->t2, false, &s) && flags & FUZZ_INNER)
        sign_entries(&c, &s);
    linnet_status status = linnet_secagg_device_take_certificate(d, c.message.bytes, c.message.n_bytes, NULL);
    fuzz_require_sane(d, LINNET_SECAGG_RELEASED, status);
    if (status == LINNET_OK) {
        REQUIRE(linnet_survivors_parse(c.message.bytes, c.message.n_bytes, FUZZ_N, &d->t2, false, &s, NULL) ==
                LINNET_OK);
        REQUIRE(linnet_load_le32(c.message.bytes + s.n_bytes) >= c.f.thresholds.signatures);
        REQUIRE(linnet_bitmap_has(d->u3, 0) == (d->phase == LINNET_SECAGG_RELEASED));
        REQUIRE((d->unmask.bytes != NULL) == (d->phase == LINNET_SECAGG_RELEASED));
        REQUIRE(!d->secrets && !d->received && !d->mask_keys);
    }
    linnet_secagg_device_destroy(d);
    return 0;
}
