/* SPDX-License-Identifier: Apache-2.0 */
/* M1 into a coordinator that has six adverts already, one of them a victim for stolen keys. */
#include "fuzz_secagg.h"

/* The authority certifies whatever the fuzzer made of the certificate. */
static void fuzz_certify(fuzz_cohort *c)
{
    uint8_t *certificate = c->message.bytes + ADVERT_CERTIFICATE;
    linnet_signature s =
        linnet_sign(c->f.authority, LINNET_LABEL_CERTIFICATE, certificate, LINNET_CERTIFICATE_BYTES);
    memcpy(certificate + LINNET_CERTIFICATE_BYTES, s.bytes, sizeof(s.bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static fuzz_cohort c;
    if (!c.f.n) {
        fuzz_server_init(&c, LINNET_SERVER_OPEN);
        linnet_buffer_append(&c.valid, c.f.m[0].device->advert, LINNET_ADVERT_BYTES);
    }
    linnet_secagg_server_counts before = linnet_secagg_server_count(c.server);
    uint8_t flags = fuzz_message(&c, data, n_bytes);
    if (flags & FUZZ_SIGN && c.message.n_bytes >= LINNET_ADVERT_BYTES) {
        linnet_signature s =
            linnet_sign(c.f.m[0].identity, LINNET_LABEL_ADVERT, c.message.bytes, LINNET_ADVERT_BODY_BYTES);
        memcpy(c.message.bytes + ADVERT_SIGNATURE, s.bytes, sizeof(s.bytes));
    }
    if (flags & FUZZ_INNER && c.message.n_bytes >= LINNET_ADVERT_BYTES)
        fuzz_certify(&c);
    linnet_status status =
        linnet_secagg_server_advert(c.server, &c.f.trust, c.message.bytes, c.message.n_bytes, false, NULL);
    fuzz_require_unchanged(&c, &before, status);
    if (status == LINNET_OK) {
        const uint8_t *pk_x = c.message.bytes + ADVERT_PK_X, *pk_e = c.message.bytes + ADVERT_PK_E;
        REQUIRE(linnet_x25519_is_usable(pk_x) && linnet_x25519_is_usable(pk_e));
        REQUIRE(pk_x[31] < 0x80 && pk_e[31] < 0x80 && memcmp(pk_x, pk_e, 32) != 0);
    }
    return 0;
}
