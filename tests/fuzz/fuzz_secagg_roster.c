/* SPDX-License-Identifier: Apache-2.0 */
/* M2 into a device that waits for it: adverts of the fuzzer's, signed by members and coordinator on demand;
 * what is accepted is a roster with growing ids, different keys and the device in it. */
#include "fuzz_secagg.h"

static void sign_adverts(fuzz_cohort *c)
{
    for (uint32_t i = 0; i < FUZZ_N; i++) {
        size_t at = ROSTER_HEAD_BYTES + (size_t)i * LINNET_ADVERT_BYTES;
        if (at + LINNET_ADVERT_BYTES > c->message.n_bytes)
            return;
        uint8_t *advert = c->message.bytes + at;
        linnet_signature s =
            linnet_sign(c->f.m[i].identity, LINNET_LABEL_ADVERT, advert, LINNET_ADVERT_BODY_BYTES);
        memcpy(advert + ADVERT_SIGNATURE, s.bytes, sizeof(s.bytes));
    }
}

static void sign_roster(fuzz_cohort *c)
{
    const linnet_buffer *m = &c->message;
    if (m->n_bytes < ROSTER_HEAD_BYTES)
        return;
    uint32_t n = linnet_load_le32(m->bytes + LINNET_SIGNATURE_BYTES);
    if (n > FORGER_MAX || m->n_bytes != ROSTER_HEAD_BYTES + (size_t)n * LINNET_ADVERT_BYTES)
        return;
    linnet_hash t1 = forger_t1(&c->f, m->bytes + ROSTER_HEAD_BYTES, n);
    fuzz_sign_front(c, &t1);
}

static void require_roster(const linnet_secagg_device *d)
{
    REQUIRE(d->phase == LINNET_SECAGG_SHARED && d->n >= d->params.n_min && d->index < d->n);
    REQUIRE(memcmp(d->members[d->index].pk_x, d->advert + ADVERT_PK_X, 32) == 0);
    for (uint32_t i = 0; i < d->n; i++)
        for (uint32_t j = 0; j < i; j++) {
            const linnet_secagg_member *a = &d->members[i], *b = &d->members[j];
            REQUIRE(memcmp(b->id.bytes, a->id.bytes, LINNET_DEVICE_ID_BYTES) < 0);
            REQUIRE(memcmp(a->pk_x, b->pk_x, 32) != 0 && memcmp(a->pk_e, b->pk_e, 32) != 0);
            REQUIRE(memcmp(a->pk_x, b->pk_e, 32) != 0 && memcmp(a->pk_e, b->pk_x, 32) != 0);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    forger_member *m = &c.f.m[0];
    if (!c.f.n)
        fuzz_cohort_init(&c, LINNET_SECAGG_ADVERTISED, forger_all(FUZZ_N));
    if (!m->device || m->device->phase != LINNET_SECAGG_ADVERTISED) { /* its secrets are gone: a new one */
        linnet_secagg_device_destroy(m->device);
        REQUIRE(linnet_secagg_device_create(&c.f.params, m->identity, m->certificate, &m->device, NULL) ==
                LINNET_OK);
    }
    forger_m2(&c.f, &c.valid);
    uint8_t flags = fuzz_message(&c, data, n_bytes);
    if (flags & FUZZ_INNER)
        sign_adverts(&c);
    if (flags & FUZZ_SIGN)
        sign_roster(&c);
    linnet_status status =
        linnet_secagg_device_take_roster(m->device, &c.f.trust, c.message.bytes, c.message.n_bytes, NULL);
    fuzz_require_sane(m->device, LINNET_SECAGG_SHARED, status);
    if (status == LINNET_OK)
        require_roster(m->device);
    return 0;
}
