/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COORDINATOR_SECURE_FIXTURE_H
#define COORDINATOR_SECURE_FIXTURE_H

/* Devices of fixture.h that take part in rounds with secure aggregation: each drives a machine of its own
 * through sealed requests, one message a step. */

#include "fixture.h"

#include "coordinator/state.h"
#include "linnet/dp_encode.h"

#define COHORT 8

typedef struct member {
    device d;
    linnet_secagg_device *machine; /* NULL: in no round */
    linnet_hash a;
    linnet_buffer plain; /* contribution before masking */
} member;

/** Rosters of up to COHORT members, t = 5, q = 5: two may drop out. Phases of 20 s, a roster within 60 s. */
static inline linnet_plan secure_plan(void)
{
    linnet_plan plan = scene_plan();
    plan.profile = LINNET_PROFILE_SECURE;
    plan.goal = COHORT;
    plan.minimum = COHORT - 2;
    plan.over_selection = 1;
    plan.phase_deadline_s = 20;
    return plan;
}

static inline void member_leave(member *m)
{
    linnet_secagg_device_destroy(m->machine);
    m->machine = NULL;
}

static inline void members_begin(member *m, size_t n, scene *s)
{
    for (size_t i = 0; i < n; i++) {
        m[i] = (member){0};
        device_enrolled(&m[i].d, s, i);
    }
}

static inline void members_end(member *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        member_leave(&m[i]);
        linnet_buffer_release(&m[i].plain);
        device_end(&m[i].d);
    }
}

/** Send a message of the round; the answer's code. */
static inline uint32_t member_send(member *m, linnet_round_kind kind, const uint8_t *raw, size_t n_raw)
{
    linnet_error err = {0};
    linnet_buffer header = {0};
    const linnet_round_message message = {.announcement = m->a, .kind = (uint32_t)kind};
    assert_ok(linnet_round_message_pack(&message, &header, &err), &err);
    assert_int_equal(device_call(&m->d, LINNET_PATH_ROUND, &header, raw, n_raw), 200);
    linnet_buffer_release(&header);
    return m->d.answer.code;
}

static inline uint32_t member_poll(member *m)
{
    return member_send(m, LINNET_ROUND_POLL, NULL, 0);
}

/** Ask for an announcement with a delta of the newest release. */
static inline bool member_invite(member *m)
{
    device_poll(&m->d);
    (void)device_ask(&m->d);
    m->a = m->d.chain;
    return m->d.has_round;
}

/** Value i of the delta of a device under a clipping norm: a vector of three quarters of it. */
static inline float member_noised_value(const member *m, uint64_t i, size_t n)
{
    double size = 0.75 * m->d.announcement.dp_clip / sqrt((double)n);
    return (float)((m->d.seed + i) % 2 ? size : -size / 2);
}

/** The same as device_encode, with a share of noise: factor B and one lane. */
static inline void member_encode_noised(member *m)
{
    linnet_error err = {0};
    linnet_rng rng;
    const linnet_announcement *a = &m->d.announcement;
    const linnet_dp_spec dp = {.clip = a->dp_clip, .sigma2 = a->dp_sigma2, .rotates = a->dp_rotates};
    const int64_t lane = 1;
    size_t n = linnet_factors_length(m->d.scene->coordinator->layout, LINNET_FACTOR_B);
    size_t n_factor = linnet_ring_bytes(&a->vectors[0]), n_lane = linnet_ring_bytes(&a->vectors[1]);
    float *values = calloc(n, sizeof(float));
    assert_non_null(values);
    linnet_rng_init(&rng, m->d.seed, a->round);
    for (size_t i = 0; i < n; i++)
        values[i] = member_noised_value(m, i, n);
    linnet_buffer_clear(&m->d.packed);
    assert_true(linnet_buffer_reserve(&m->d.packed, n_factor + n_lane));
    assert_ok(
        linnet_dp_encode(&a->vectors[0], &dp, &m->a, values, n, seeded_random, &rng, m->d.packed.bytes, &err),
        &err);
    assert_ok(linnet_ring_encode_integers(&a->vectors[1], &lane, m->d.packed.bytes + n_factor, &err), &err);
    m->d.packed.n_bytes = n_factor + n_lane;
    free(values);
}

/** Encode for the announcement and make M1, not yet sent. */
static inline const uint8_t *member_advert(member *m, size_t *ret_n)
{
    linnet_error err = {0};
    linnet_secagg_params params;
    member_leave(m);
    if (m->d.announcement.dp_mechanism == LINNET_DP_DISTRIBUTED)
        member_encode_noised(m);
    else
        device_encode(&m->d);
    linnet_buffer_clear(&m->plain);
    linnet_buffer_append(&m->plain, m->d.packed.bytes, m->d.packed.n_bytes);
    assert_ok(linnet_secagg_params_of(&m->d.announcement, &m->a, &params, &err), &err);
    assert_ok(linnet_secagg_device_create(&params, m->d.identity, m->d.certificate, &m->machine, &err), &err);
    return linnet_secagg_device_advert(m->machine, ret_n);
}

/** Invitation and M1; the code of the answer to M1. */
static inline uint32_t member_join(member *m)
{
    size_t n;
    assert_true(member_invite(m));
    const uint8_t *m1 = member_advert(m, &n);
    return member_send(m, LINNET_ROUND_ADVERT, m1, n);
}

/** Masks on, echo fixed, header signed under T2. */
static inline void member_mask(member *m)
{
    linnet_error err = {0};
    linnet_signed header;
    size_t at = 0;
    memcpy(m->d.packed.bytes, m->plain.bytes, m->plain.n_bytes);
    for (uint32_t i = 0; i < m->d.announcement.n_vectors; i++) {
        const linnet_ring_spec *spec = &m->d.announcement.vectors[i];
        for (uint64_t first = 0; first < spec->length; first += LINNET_PACK_CHUNK) {
            uint64_t left = spec->length - first;
            size_t n = left < LINNET_PACK_CHUNK ? (size_t)left : LINNET_PACK_CHUNK;
            assert_ok(linnet_secagg_device_mask(m->machine, i, first, n,
                                                m->d.packed.bytes + at + first * spec->bits / 8, &err),
                      &err);
        }
        at += linnet_ring_bytes(spec);
    }
    m->d.chain = *linnet_secagg_device_t2(m->machine);
    device_sign_header(&m->d);
    assert_ok(linnet_signed_open(m->d.header.bytes, m->d.header.n_bytes, &header, &err), &err);
    assert_ok(linnet_secagg_device_fix_echo(m->machine, &m->d.echo, &header.signature, &err), &err);
}

/** Take what the last answer brought and send what follows from it, to the next answer. False where the
 * answer brought nothing. */
static inline bool member_react(member *m)
{
    linnet_error err = {0};
    size_t n = 0;
    const linnet_secagg_trust trust = {.authority = &m->d.scene->authority};
    const uint8_t *raw = m->d.raw.bytes, *out;
    size_t n_raw = m->d.raw.n_bytes;
    switch (m->d.answer.phase) {
    case LINNET_PHASE_ROSTER:
        assert_ok(linnet_secagg_device_take_roster(m->machine, &trust, raw, n_raw, &err), &err);
        out = linnet_secagg_device_shares(m->machine, &n);
        (void)member_send(m, LINNET_ROUND_SHARES, out, n);
        return true;
    case LINNET_PHASE_SHARERS:
        assert_ok(linnet_secagg_device_take_sharers(m->machine, raw, n_raw, &err), &err);
        member_mask(m);
        device_upload(&m->d);
        return true;
    case LINNET_PHASE_SURVIVORS:
        assert_ok(linnet_secagg_device_take_survivors(m->machine, raw, n_raw, &err), &err);
        out = linnet_secagg_device_attestation(m->machine, &n);
        (void)member_send(m, LINNET_ROUND_ATTEST, out, n);
        return true;
    case LINNET_PHASE_CERTIFICATE:
        assert_ok(linnet_secagg_device_take_certificate(m->machine, raw, n_raw, &err), &err);
        out = linnet_secagg_device_unmask(m->machine, &n);
        if (out)
            (void)member_send(m, LINNET_ROUND_UNMASK, out, n);
        return true;
    default:
        return false;
    }
}

/** Poll and react. */
static inline bool member_step(member *m)
{
    uint32_t code = member_poll(m);
    assert_true(code == LINNET_ANSWER_OK || code == LINNET_ANSWER_WAIT);
    return m->d.answer.phase == LINNET_PHASE_CLOSED || member_react(m);
}

static inline linnet_round_state round_state(scene *s, uint64_t round)
{
    linnet_error err = {0};
    linnet_store_txn *txn = NULL;
    linnet_round_row row;
    assert_ok(linnet_store_read_begin(s->coordinator->store, &txn, &err), &err);
    assert_ok(linnet_round_get(txn, round, &row, &err), &err);
    linnet_store_read_end(txn);
    return row.state;
}

#endif
