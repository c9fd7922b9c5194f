/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_FUZZ_SECAGG_H
#define LINNET_FUZZ_SECAGG_H

/* What the targets of linnet-sa1 share: a cohort of seven with all its keys, in the phase that a target
 * needs, and messages made of the fuzzer's bytes. Since no fuzzer guesses a signature, the first byte says
 * how the rest is to be read:
 *
 *   FUZZ_EDIT   triples (offset u16, byte) that are XORed into a good message; an offset behind its end sets
 *               the length instead; without it: the bytes are the message
 *   FUZZ_SIGN   the outer signature is made good afterwards
 *   FUZZ_INNER  and so are the signatures inside
 */

#include "crypto/secagg_server.h"
#include "crypto/forger.h"
#include "fuzz_crypto.h"

#define FUZZ_N 7
#define FUZZ_EDIT 1
#define FUZZ_SIGN 2
#define FUZZ_INNER 4

typedef struct fuzz_cohort {
    forger f;
    forger_set u2, u3;
    linnet_buffer valid, message, record;
    linnet_secagg_server *server;
} fuzz_cohort;

static inline void fuzz_cohort_init(fuzz_cohort *c, linnet_secagg_phase phase, forger_set u3)
{
    c->u2 = forger_all(FUZZ_N);
    c->u3 = u3;
    forger_init(&c->f, FUZZ_N, 0);
    forger_advertise(&c->f);
    forger_play(&c->f, phase, c->u2, c->u3);
    if (phase > LINNET_SECAGG_ADVERTISED && c->f.m[0].device->secrets)
        REQUIRE(linnet_secagg_device_save(c->f.m[0].device, &c->record, NULL) == LINNET_OK);
}

/* Device 0 as it was at first. */
static inline linnet_secagg_device *fuzz_device(const fuzz_cohort *c)
{
    linnet_secagg_device *device = NULL;
    REQUIRE(linnet_secagg_device_load(&c->f.params, c->f.m[0].identity, c->record.bytes, c->record.n_bytes,
                                      &device, NULL) == LINNET_OK);
    return device;
}

/* The message that the fuzzer's bytes stand for; returns the flags. */
static inline uint8_t fuzz_message(fuzz_cohort *c, const uint8_t *data, size_t n_bytes)
{
    linnet_buffer *m = &c->message;
    uint8_t flags = n_bytes ? data[0] : 0;
    linnet_buffer_clear(m);
    if (!(flags & FUZZ_EDIT)) {
        linnet_buffer_append(m, n_bytes ? data + 1 : data, n_bytes ? n_bytes - 1 : 0);
        linnet_buffer_append(m, "", 0);
        REQUIRE(linnet_buffer_reserve(m, 1));
        return flags;
    }
    linnet_buffer_append(m, c->valid.bytes, c->valid.n_bytes);
    REQUIRE(linnet_buffer_reserve(m, 512));
    memset(m->bytes + m->n_bytes, 0, 512);
    for (size_t at = 1; at + 3 <= n_bytes; at += 3) {
        size_t offset = linnet_load_le16(data + at);
        if (offset < m->n_bytes)
            m->bytes[offset] ^= data[at + 2];
        else
            m->n_bytes = (offset - m->n_bytes) % (c->valid.n_bytes + 512);
    }
    return flags;
}

/* Sign the 32 bytes in front: of M2, M4, M6, M8. */
static inline void fuzz_sign_front(fuzz_cohort *c, const linnet_hash *chain)
{
    linnet_signature s = linnet_sign_hash(c->f.coordinator, chain);
    memcpy(c->message.bytes, s.bytes, sizeof(s.bytes));
}

/* Sign what stands before the last 64 bytes: of M3, M9, a complaint, an abort. */
static inline void fuzz_sign_behind(fuzz_cohort *c, uint32_t member, linnet_label label)
{
    linnet_buffer *m = &c->message;
    if (m->n_bytes < LINNET_SIGNATURE_BYTES)
        return;
    size_t n_body = m->n_bytes - LINNET_SIGNATURE_BYTES;
    linnet_signature s = linnet_sign(c->f.m[member].identity, label, m->bytes, n_body);
    memcpy(m->bytes + n_body, s.bytes, sizeof(s.bytes));
}

/* Sign an M6, or the one in front of an M8, where it can be taken apart; its T3 into ret_t3. */
static inline bool fuzz_sign_survivors(fuzz_cohort *c, const linnet_hash *t2, bool is_whole,
                                       linnet_survivors *ret_survivors)
{
    if (linnet_survivors_parse(c->message.bytes, c->message.n_bytes, FUZZ_N, t2, is_whole, ret_survivors,
                               NULL) != LINNET_OK)
        return false;
    fuzz_sign_front(c, &ret_survivors->t3);
    return true;
}

/* What must hold after any message: it was taken, it was not its time, or everything is gone. */
static inline void fuzz_require_sane(const linnet_secagg_device *d, linnet_secagg_phase before,
                                     linnet_status status)
{
    if (status == LINNET_OK) {
        REQUIRE(d->phase >= before && d->phase != LINNET_SECAGG_ABORTED);
        return;
    }
    REQUIRE(status != LINNET_ERR_ARG && status != LINNET_ERR_NOMEM && status != LINNET_ERR_INTERNAL);
    REQUIRE(d->phase == LINNET_SECAGG_ABORTED && d->reason != LINNET_ABORT_NONE);
    REQUIRE(!d->secrets && !d->received && !d->mask_keys && !d->unmask.bytes);
}

/* ---- the coordinator ---- */

static inline const uint8_t *fuzz_own(const fuzz_cohort *c, linnet_label kind, uint32_t i, size_t *ret_n)
{
    const linnet_secagg_device *d = c->f.m[i].device;
    return kind == LINNET_LABEL_SHARE    ? linnet_secagg_device_shares(d, ret_n)
           : kind == LINNET_LABEL_ATTEST ? linnet_secagg_device_attestation(d, ret_n)
                                         : linnet_secagg_device_unmask(d, ret_n);
}

/* A coordinator in `phase` that has heard nothing yet of what that phase takes. */
static inline void fuzz_server_init(fuzz_cohort *c, linnet_secagg_server_phase phase)
{
    size_t n;
    fuzz_cohort_init(c, LINNET_SECAGG_RELEASED, forger_without(forger_all(FUZZ_N), 3));
    REQUIRE(linnet_secagg_server_create(&c->f.params, c->f.coordinator, &c->server, NULL) == LINNET_OK);
    for (uint32_t i = 1; i < FUZZ_N || (i == FUZZ_N && phase > LINNET_SERVER_OPEN); i++)
        REQUIRE(linnet_secagg_server_advert(c->server, &c->f.trust, c->f.m[i % FUZZ_N].device->advert,
                                            LINNET_ADVERT_BYTES, true, NULL) == LINNET_OK);
    if (phase == LINNET_SERVER_OPEN)
        return;
    REQUIRE(linnet_secagg_server_close_roster(c->server, NULL) == LINNET_OK);
    for (uint32_t i = 0; i < FUZZ_N && phase > LINNET_SERVER_ROSTER; i++) {
        const uint8_t *m3 = fuzz_own(c, LINNET_LABEL_SHARE, i, &n);
        REQUIRE(linnet_secagg_server_shares(c->server, m3, n, true, NULL) == LINNET_OK);
    }
    if (phase == LINNET_SERVER_ROSTER)
        return;
    REQUIRE(linnet_secagg_server_close_sharers(c->server, NULL) == LINNET_OK);
    for (uint32_t i = 0; i < FUZZ_N; i++) {
        linnet_device_id id = forger_id(&c->f, i);
        if (i != 3)
            REQUIRE(linnet_secagg_server_masked(c->server, &id, &c->f.m[i].echo, &c->f.m[i].header, true,
                                                NULL) == LINNET_OK);
    }
    REQUIRE(linnet_secagg_server_freeze(c->server, NULL) == LINNET_OK);
}

/* A check counts nothing, whatever it says. */
static inline void fuzz_require_unchanged(const fuzz_cohort *c, const linnet_secagg_server_counts *before,
                                          linnet_status status)
{
    linnet_secagg_server_counts after = linnet_secagg_server_count(c->server);
    REQUIRE(memcmp(&after, before, sizeof(after)) == 0);
    REQUIRE(status != LINNET_ERR_ARG && status != LINNET_ERR_NOMEM && status != LINNET_ERR_INTERNAL);
}

#endif
