/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SECURE_WORLD_H
#define SECURE_WORLD_H

/* Masked rounds of real agents against a coordinator in memory that plays the other half of the protocol with
 * the real server machine, and puppets: members that are only protocol machines. It keeps every message and
 * fails the test at once where a device sends other bytes for the same thing. It can be told to stop at a
 * phase, to lie, and to forget; the store of a device can be told to fail, and is copied after each
 * commit. */

#include "client/device_world.h"
#include "linnet/receipt_list.h"
#include "linnet/round_vault.h"

#define SECURE_PLAN                                                                                          \
    "[task]\nrounds = 5\n[adapter]\nrank = 2\nalpha = 2\n[training]\nlocal_steps = 8\nbatch_records = "      \
    "2\ncontext_tokens = 16\nlearning_rate_b = 0.001\n[cohort]\ngoal = 5\nminimum = 4\nover_selection = "    \
    "1\n[secure]\nprofile = secure\nsurvivors = 4\nphase_deadline = 80\n[encoding]\nring_bits = "            \
    "32\n[evaluation]\ninstall_tolerance = 100\n"

#define NOISED_PLAN                                                                                          \
    "[task]\nrounds = 5\n[adapter]\nrank = 2\nalpha = 2\n[training]\nlocal_steps = 2\nbatch_records = "      \
    "2\ncontext_tokens = 16\nlearning_rate_b = 0.001\n[cohort]\ngoal = 5\nminimum = 4\nover_selection = "    \
    "1\n[secure]\nprofile = secure+dp\nsurvivors = 4\nphase_deadline = 80\n[privacy]\nmechanism = "          \
    "distributed\nnoise_multiplier = 0.5\nclip = 0.1\n[encoding]\nring_bits = 32\nweight_unit_tokens = "     \
    "0\n[aggregation]\nrule = ffa\n[evaluation]\ninstall_tolerance = 100\n"

enum { SECURE_MEMBERS = 5, STORE_VALUES = 64, STORE_COPIES = 64 };

/* ---- a store that fails on demand and remembers how it was ---- */

typedef struct store_value {
    char name[64];
    linnet_buffer bytes;
} store_value;

typedef struct store_state {
    store_value values[STORE_VALUES];
    size_t n_values;
} store_state;

typedef enum store_failure {
    STORE_WORKS,
    STORE_LOSES,    /* IO, and the commit did not happen */
    STORE_PRETENDS, /* IO, and it did */
    STORE_IS_FULL,  /* NO_SPACE, once */
    STORE_STAYS_FULL,
} store_failure;

typedef struct store {
    store_state now, copies[STORE_COPIES]; /* copy i: after commit i + 1 */
    size_t n_puts, n_copies;
    size_t fails_at; /* this commit, from 1; 0: none */
    store_failure failure;
} store;

static inline store_value *store_find(store_state *s, const char *name)
{
    for (size_t i = 0; i < s->n_values; i++)
        if (strcmp(s->values[i].name, name) == 0)
            return &s->values[i];
    return NULL;
}

static inline void store_state_release(store_state *s)
{
    for (size_t i = 0; i < s->n_values; i++)
        linnet_buffer_release(&s->values[i].bytes);
    s->n_values = 0;
}

static inline void store_state_copy(const store_state *from, store_state *to)
{
    store_state_release(to);
    for (size_t i = 0; i < from->n_values; i++) {
        to->values[i] = from->values[i];
        to->values[i].bytes = (linnet_buffer){0};
        linnet_buffer_append(&to->values[i].bytes, from->values[i].bytes.bytes,
                             from->values[i].bytes.n_bytes);
        assert_false(to->values[i].bytes.failed);
    }
    to->n_values = from->n_values;
}

static inline linnet_status store_get(void *context, const char *name, linnet_buffer *ret_bytes,
                                      linnet_error *err)
{
    store *s = context;
    const store_value *value = store_find(&s->now, name);
    if (!value)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "no value '%s'", name);
    linnet_buffer_append(ret_bytes, value->bytes.bytes, value->bytes.n_bytes);
    return LINNET_OK;
}

static inline void store_apply(store_state *s, const linnet_kv_item *item)
{
    store_value *value = store_find(s, item->name);
    if (!item->bytes) {
        if (value) {
            linnet_buffer_release(&value->bytes);
            *value = s->values[--s->n_values];
        }
        return;
    }
    if (!value) {
        assert_true(s->n_values < STORE_VALUES && strlen(item->name) < sizeof(value->name));
        value = &s->values[s->n_values++];
        *value = (store_value){{0}, {0}};
        memcpy(value->name, item->name, strlen(item->name) + 1);
    }
    linnet_buffer_clear(&value->bytes);
    linnet_buffer_append(&value->bytes, item->bytes, item->n_bytes);
    assert_false(value->bytes.failed);
}

static inline linnet_status store_put(void *context, const linnet_kv_item *items, size_t n_items,
                                      linnet_error *err)
{
    store *s = context;
    bool fails = ++s->n_puts == s->fails_at;
    if (s->failure == STORE_STAYS_FULL && s->fails_at > 0 && s->n_puts >= s->fails_at)
        fails = true;
    if (fails && s->failure == STORE_LOSES)
        return linnet_fail(err, LINNET_ERR_IO, "fsync: input/output error");
    if (fails && s->failure >= STORE_IS_FULL)
        return linnet_fail(err, LINNET_ERR_NO_SPACE, "no space");
    for (size_t i = 0; i < n_items; i++)
        store_apply(&s->now, &items[i]);
    if (s->n_copies < STORE_COPIES)
        store_state_copy(&s->now, &s->copies[s->n_copies++]);
    return fails ? linnet_fail(err, LINNET_ERR_IO, "fsync: input/output error") : LINNET_OK;
}

/* ---- members ---- */

typedef struct secure_world secure_world;

/* What was accepted, as a coordinator keeps it. */
typedef struct contribution {
    linnet_buffer announced; /* Signed */
    linnet_announcement announcement;
    linnet_receipt receipt;
    linnet_signature upload;
} contribution;

typedef struct agent {
    secure_world *sw;
    store store;
    linnet_kv kv;
    linnet_round_vault *vault;
    linnet_device_config config;
    linnet_device *device;
    linnet_public_key key;
    linnet_device_id id;
    /* what came from it in this round */
    linnet_buffer sent[LINNET_ROUND_ABORT + 1]; /* by kind, first bytes */
    size_t n_sent[LINNET_ROUND_ABORT + 1];
    linnet_buffer header, upload;
    bool is_accepted;
    contribution accepted[16];
    size_t n_accepted, n_joins;
    size_t n_asked;              /* for its receipts */
    linnet_hash echoes[16];      /* of uploads that began, over all rounds */
    linnet_hash echo_chains[16]; /* and their T2 */
    linnet_hash echo_deltas[16]; /* and the delta that each was made of */
    bool echo_is_void[16];       /* a certificate left it out */
    size_t n_echoes;
    int last_abort;        /* linnet_abort_reason; -1: none */
    linnet_buffer traffic; /* what the network sees: time, path and size of every request, a line each */
} agent;

typedef struct puppet {
    linnet_identity *identity;
    linnet_device_id id;
    uint8_t certificate[LINNET_SIGNED_CERTIFICATE_BYTES];
    linnet_secagg_device *machine;
    linnet_buffer m3;
} puppet;

struct secure_world {
    world *w; /* model, data, releases; its own device is never made */
    agent agents[SECURE_MEMBERS];
    size_t n_agents;
    puppet puppets[SECURE_MEMBERS];
    size_t n_puppets;
    linnet_secagg_server *server;
    linnet_secagg_params params;
    linnet_public_key authority;
    linnet_secagg_trust trust;
    uint32_t *sums[LINNET_VECTORS_MAX]; /* folded uploads of this round, then the opened sums */
    uint64_t lane_sums[LINNET_LANES];
    bool is_opened, is_void;
    /* how many agents must have come this far before the phase closes */
    size_t want_adverts, want_shares, want_uploads;
    bool has_certificate_of_all; /* the certificate waits for every agent's attestation */
    bool hides_certificate;
    /* lies: what agent 0 gets instead of the message of this phase */
    uint32_t lie_phase; /* 0: none */
    linnet_buffer lie;
    size_t n_lies;             /* times it was told */
    uint32_t lie_code;         /* answer code to every round message of agent 0; 0: none */
    bool knows_conflicts;      /* other bytes than before are answered CONFLICT and do not fail the test */
    bool knows_second_adverts; /* the same for M1 alone: a restored device may have forgotten its number */
    uint32_t flips_bit;        /* of the next message to agent 0; 0: none */
    bool loses_answers;
    size_t n_exchanges;
    size_t receipts_page; /* items of an answer; 0: all */
    enum receipt_lie {
        RECEIPTS_ARE_GIVEN,
        RECEIPTS_ARE_REFUSED,
        RECEIPTS_ARE_HIDDEN,
        RECEIPTS_OF_STRANGER,      /* another coordinator's signature of the receipt ... */
        RECEIPTS_OF_STRANGE_ROUND, /* ... and of the announcement */
        RECEIPTS_OF_OTHER_TASK,
        RECEIPTS_OF_OTHER_DEVICE,
        RECEIPTS_OF_OTHER_UPLOAD, /* signed by the coordinator, never made by the device */
        RECEIPTS_OF_NO_NOISE,     /* an announcement whose noise no device would have added */
        RECEIPTS_TWICE,
        RECEIPTS_CUT,
    } receipt_lie;
};

static inline linnet_status secure_read(void *context, uint32_t owner, size_t offset, void *bytes,
                                        size_t n_bytes, linnet_error *err)
{
    const secure_world *sw = context;
    const linnet_device_id *id = linnet_secagg_server_device(sw->server, owner);
    const linnet_buffer *m3 = NULL;
    for (size_t i = 0; i < sw->n_agents; i++)
        if (memcmp(sw->agents[i].id.bytes, id->bytes, sizeof(id->bytes)) == 0)
            m3 = &sw->agents[i].sent[LINNET_ROUND_SHARES];
    for (size_t i = 0; i < sw->n_puppets; i++)
        if (memcmp(sw->puppets[i].id.bytes, id->bytes, sizeof(id->bytes)) == 0)
            m3 = &sw->puppets[i].m3;
    if (!m3 || offset + n_bytes > m3->n_bytes)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "no shares");
    memcpy(bytes, m3->bytes + offset, n_bytes);
    return LINNET_OK;
}

/* ---- the coordinator's phases ---- */

static inline void secure_fold(secure_world *sw, const uint8_t *packed)
{
    const linnet_announcement *a = &sw->w->f->announcement;
    for (uint32_t i = 0; i < a->n_vectors; i++) {
        for (uint64_t first = 0; first < a->vectors[i].length; first += LINNET_PACK_CHUNK) {
            uint64_t left = a->vectors[i].length - first;
            size_t n = left < LINNET_PACK_CHUNK ? (size_t)left : LINNET_PACK_CHUNK;
            linnet_pack_add(a->vectors[i].bits, packed, n, sw->sums[i] + first);
            packed += linnet_pack_bytes(a->vectors[i].bits, n);
        }
    }
}

static inline void secure_open_sums(secure_world *sw)
{
    const linnet_announcement *a = &sw->w->f->announcement;
    linnet_error err = {0};
    uint32_t n_wrong = 0;
    assert_ok(linnet_secagg_server_open(sw->server, &n_wrong, &err), &err);
    assert_int_equal(n_wrong, 0);
    for (uint32_t i = 0; i < a->n_vectors; i++)
        for (uint64_t first = 0; first < a->vectors[i].length; first += LINNET_PACK_CHUNK) {
            uint64_t left = a->vectors[i].length - first;
            size_t n = left < LINNET_PACK_CHUNK ? (size_t)left : LINNET_PACK_CHUNK;
            assert_ok(linnet_secagg_server_unmask(sw->server, i, first, n, sw->sums[i] + first, &err), &err);
        }
    sw->is_opened = true;
}

/* A puppet's own X is zero: only its masks are in its upload. */
static inline void puppet_upload(secure_world *sw, puppet *p)
{
    const linnet_announcement *a = &sw->w->f->announcement;
    linnet_buffer packed = {0}, body = {0};
    linnet_error err = {0};
    linnet_upload_header header = {
        .chain = *linnet_secagg_device_t2(p->machine), .device_id = p->id, .n_vectors = a->n_vectors};
    for (uint32_t i = 0; i < a->n_vectors; i++) {
        header.lengths[i] = a->vectors[i].length;
        for (uint64_t first = 0; first < a->vectors[i].length; first += LINNET_PACK_CHUNK) {
            uint8_t chunk[LINNET_PACK_CHUNK * 4] = {0};
            uint64_t left = a->vectors[i].length - first;
            size_t n = left < LINNET_PACK_CHUNK ? (size_t)left : LINNET_PACK_CHUNK;
            assert_ok(linnet_secagg_device_mask(p->machine, i, first, n, chunk, &err), &err);
            linnet_buffer_append(&packed, chunk, linnet_pack_bytes(a->vectors[i].bits, n));
        }
    }
    header.n_bytes = packed.n_bytes;
    header.echo = linnet_hash_of(LINNET_LABEL_VECTOR, packed.bytes, packed.n_bytes);
    assert_ok(linnet_upload_header_pack(&header, &body, &err), &err);
    linnet_signature signature = linnet_sign(p->identity, LINNET_LABEL_MASKED, body.bytes, body.n_bytes);
    assert_ok(linnet_secagg_device_fix_echo(p->machine, &header.echo, &signature, &err), &err);
    assert_ok(linnet_secagg_server_masked(sw->server, &p->id, &header.echo, &signature, true, &err), &err);
    secure_fold(sw, packed.bytes);
    linnet_buffer_release(&packed);
    linnet_buffer_release(&body);
}

static inline void puppets_advert(secure_world *sw)
{
    linnet_error err = {0};
    for (size_t i = 0; i < sw->n_puppets; i++) {
        puppet *p = &sw->puppets[i];
        size_t n = 0;
        linnet_secagg_device_destroy(p->machine);
        p->machine = NULL;
        assert_ok(linnet_secagg_device_create(&sw->params, p->identity, p->certificate, &p->machine, &err),
                  &err);
        const uint8_t *m1 = linnet_secagg_device_advert(p->machine, &n);
        assert_ok(linnet_secagg_server_advert(sw->server, &sw->trust, m1, n, true, &err), &err);
    }
}

static inline void secure_close_roster(secure_world *sw)
{
    linnet_buffer m2 = {0};
    linnet_error err = {0};
    assert_ok(linnet_secagg_server_close_roster(sw->server, &err), &err);
    assert_ok(linnet_secagg_server_make_roster(sw->server, &m2, &err), &err);
    for (size_t i = 0; i < sw->n_puppets; i++) {
        puppet *p = &sw->puppets[i];
        size_t n = 0;
        assert_ok(linnet_secagg_device_take_roster(p->machine, &sw->trust, m2.bytes, m2.n_bytes, &err), &err);
        const uint8_t *m3 = linnet_secagg_device_shares(p->machine, &n);
        linnet_buffer_clear(&p->m3);
        linnet_buffer_append(&p->m3, m3, n);
        assert_ok(linnet_secagg_server_shares(sw->server, m3, n, true, &err), &err);
    }
    linnet_buffer_release(&m2);
}

static inline void secure_close_sharers(secure_world *sw)
{
    linnet_error err = {0};
    assert_ok(linnet_secagg_server_close_sharers(sw->server, &err), &err);
    for (size_t i = 0; i < sw->n_puppets; i++) {
        puppet *p = &sw->puppets[i];
        linnet_buffer m4 = {0};
        assert_ok(linnet_secagg_server_make_sharers(sw->server, &p->id, secure_read, sw, &m4, &err), &err);
        assert_ok(linnet_secagg_device_take_sharers(p->machine, m4.bytes, m4.n_bytes, &err), &err);
        puppet_upload(sw, p);
        linnet_buffer_release(&m4);
    }
}

static inline void secure_try_certificate(secure_world *sw)
{
    linnet_buffer m8 = {0};
    linnet_error err = {0};
    if (linnet_secagg_server_make_certificate(sw->server, &m8, &err) == LINNET_OK) {
        for (size_t i = 0; i < sw->n_puppets; i++) {
            puppet *p = &sw->puppets[i];
            size_t n = 0;
            assert_ok(linnet_secagg_device_take_certificate(p->machine, m8.bytes, m8.n_bytes, &err), &err);
            const uint8_t *m9 = linnet_secagg_device_unmask(p->machine, &n);
            linnet_status status = linnet_secagg_server_unmasking(sw->server, m9, n, true, &err);
            assert_true(status == LINNET_OK || status == LINNET_ERR_EXISTS);
        }
    }
    linnet_buffer_release(&m8);
}

static inline void secure_freeze(secure_world *sw)
{
    linnet_buffer m6 = {0};
    linnet_error err = {0};
    assert_ok(linnet_secagg_server_freeze(sw->server, &err), &err);
    assert_ok(linnet_secagg_server_make_survivors(sw->server, &m6, &err), &err);
    for (size_t i = 0; i < sw->n_puppets; i++) {
        size_t n = 0;
        assert_ok(linnet_secagg_device_take_survivors(sw->puppets[i].machine, m6.bytes, m6.n_bytes, &err),
                  &err);
        const uint8_t *m7 = linnet_secagg_device_attestation(sw->puppets[i].machine, &n);
        assert_ok(linnet_secagg_server_attestation(sw->server, m7, n, true, &err), &err);
    }
    linnet_buffer_release(&m6);
}

/* ---- rounds ---- */

static inline void secure_forget_round(secure_world *sw)
{
    linnet_secagg_server_destroy(sw->server);
    sw->server = NULL;
    for (size_t i = 0; i < LINNET_VECTORS_MAX; i++) {
        free(sw->sums[i]);
        sw->sums[i] = NULL;
    }
    for (size_t i = 0; i < sw->n_agents; i++) {
        agent *a = &sw->agents[i];
        for (size_t kind = 0; kind < ARRAY_LEN(a->sent); kind++) {
            linnet_buffer_clear(&a->sent[kind]);
            a->n_sent[kind] = 0;
        }
        linnet_buffer_clear(&a->header);
        linnet_buffer_clear(&a->upload);
        a->is_accepted = false;
    }
    sw->is_opened = sw->is_void = false;
}

/* The next round on the present release, as the announcement in the fake says it. */
static inline void secure_begin(secure_world *sw)
{
    fake *f = sw->w->f;
    linnet_error err = {0};
    secure_forget_round(sw);
    fake_sign_announcement(f, f->identity);
    assert_ok(linnet_secagg_params_of(&f->announcement, &f->chain, &sw->params, &err), &err);
    assert_ok(linnet_secagg_server_create(&sw->params, f->identity, &sw->server, &err), &err);
    for (uint32_t i = 0; i < f->announcement.n_vectors; i++) {
        sw->sums[i] = calloc((size_t)f->announcement.vectors[i].length, sizeof(uint32_t));
        assert_non_null(sw->sums[i]);
    }
    puppets_advert(sw);
    f->announces = true;
}

static inline void secure_announce(secure_world *sw)
{
    fake *f = sw->w->f;
    linnet_error err = {0};
    linnet_announcement *a = &f->announcement;
    assert_ok(linnet_announcement_of_plan(&f->plan, f->layout, f->version, a, &err), &err);
    a->coordinator = *linnet_identity_public_key(f->identity);
    a->round = ++f->round;
    a->release = f->versions[f->version];
    memcpy(a->task, f->task, sizeof(a->task));
    secure_begin(sw);
}

/* ---- answering ---- */

/* Whose upload is not accepted is in no sum, as the certificate proves to it. */
static inline void secure_see_certificate(const secure_world *sw, agent *a)
{
    const linnet_hash *t2 = linnet_secagg_server_t2(sw->server);
    for (size_t i = 0; i < a->n_echoes; i++)
        if (!a->is_accepted && linnet_hash_equal(&a->echo_chains[i], t2))
            a->echo_is_void[i] = true;
}

static inline linnet_status secure_due(secure_world *sw, agent *a, linnet_answer *answer, linnet_buffer *raw)
{
    linnet_error err = {0};
    bool is_first = a == &sw->agents[0];
    int32_t index = linnet_secagg_server_index(sw->server, &a->id);
    if (sw->is_void) {
        answer->phase = LINNET_PHASE_VOID;
        return LINNET_OK;
    }
    switch (linnet_secagg_server_phase_of(sw->server)) {
    case LINNET_SERVER_OPEN:
        answer->code = LINNET_ANSWER_WAIT;
        return LINNET_OK;
    case LINNET_SERVER_ROSTER:
        answer->phase = LINNET_PHASE_ROSTER;
        assert_ok(linnet_secagg_server_make_roster(sw->server, raw, &err), &err);
        break;
    case LINNET_SERVER_SHARERS:
        if (index < 0 || !linnet_secagg_server_is_sharer(sw->server, (uint32_t)index)) {
            answer->code = LINNET_ANSWER_GONE;
            return LINNET_OK;
        }
        answer->phase = LINNET_PHASE_SHARERS;
        assert_ok(linnet_secagg_server_make_sharers(sw->server, &a->id, secure_read, sw, raw, &err), &err);
        break;
    case LINNET_SERVER_FROZEN:
    case LINNET_SERVER_OPENED:
        if (index < 0 || !linnet_secagg_server_is_sharer(sw->server, (uint32_t)index)) {
            answer->code = LINNET_ANSWER_GONE;
            return LINNET_OK;
        }
        if (sw->is_opened && a->n_sent[LINNET_ROUND_UNMASK] > 0) {
            answer->phase = LINNET_PHASE_CLOSED;
            return LINNET_OK;
        }
        bool may_certify = !sw->hides_certificate;
        for (size_t i = 0; sw->has_certificate_of_all && i < sw->n_agents; i++)
            may_certify =
                may_certify && (!sw->agents[i].is_accepted || sw->agents[i].n_sent[LINNET_ROUND_ATTEST] > 0);
        if (may_certify && linnet_secagg_server_make_certificate(sw->server, raw, &err) == LINNET_OK) {
            answer->phase = LINNET_PHASE_CERTIFICATE;
            secure_see_certificate(sw, a);
        } else if (a->is_accepted) {
            answer->phase = LINNET_PHASE_SURVIVORS;
            assert_ok(linnet_secagg_server_make_survivors(sw->server, raw, &err), &err);
        }
        break;
    }
    if (is_first && sw->lie_phase != 0 && sw->lie_phase == answer->phase) {
        linnet_buffer_clear(raw);
        linnet_buffer_append(raw, sw->lie.bytes, sw->lie.n_bytes);
        sw->n_lies++;
    }
    if (is_first && sw->flips_bit > 0 && raw->n_bytes > 0) {
        raw->bytes[sw->flips_bit / 8 % raw->n_bytes] ^= (uint8_t)(1u << sw->flips_bit % 8);
        sw->flips_bit = 0;
    }
    return LINNET_OK;
}

static inline bool secure_conflicts(const secure_world *sw, const agent *a, uint32_t kind,
                                    const linnet_frame *frame)
{
    bool is_known = sw->knows_conflicts || (sw->knows_second_adverts && kind == LINNET_ROUND_ADVERT);
    return is_known && a->n_sent[kind] > 0 &&
           (a->sent[kind].n_bytes != frame->n_raw ||
            memcmp(a->sent[kind].bytes, frame->raw, frame->n_raw) != 0);
}

/* The same thing is always said in the same bytes. */
static inline bool secure_is_first(agent *a, uint32_t kind, const linnet_frame *frame)
{
    bool is_first = a->n_sent[kind]++ == 0;
    if (is_first)
        linnet_buffer_append(&a->sent[kind], frame->raw, frame->n_raw);
    assert_int_equal(a->sent[kind].n_bytes, frame->n_raw);
    assert_memory_equal(a->sent[kind].bytes, frame->raw, frame->n_raw);
    return is_first;
}

static inline size_t secure_count(const secure_world *sw, uint32_t kind)
{
    size_t n = 0;
    for (size_t i = 0; i < sw->n_agents; i++)
        n += sw->agents[i].n_sent[kind] > 0;
    return n;
}

static inline void secure_take(secure_world *sw, agent *a, uint32_t kind, const linnet_frame *frame)
{
    linnet_error err = {0};
    linnet_status status = LINNET_OK;
    linnet_abort_reason reason;
    switch ((linnet_round_kind)kind) {
    case LINNET_ROUND_POLL:
        assert_int_equal(frame->n_raw, 0);
        break;
    case LINNET_ROUND_ADVERT:
        if (secure_is_first(a, kind, frame)) {
            a->n_joins++;
            status =
                linnet_secagg_server_advert(sw->server, &sw->trust, frame->raw, frame->n_raw, true, &err);
            if (secure_count(sw, kind) == sw->want_adverts)
                secure_close_roster(sw);
        }
        break;
    case LINNET_ROUND_SHARES:
        if (secure_is_first(a, kind, frame)) {
            status = linnet_secagg_server_shares(sw->server, frame->raw, frame->n_raw, true, &err);
            if (secure_count(sw, kind) == sw->want_shares)
                secure_close_sharers(sw);
        }
        break;
    case LINNET_ROUND_ATTEST:
        if (secure_is_first(a, kind, frame)) {
            status = linnet_secagg_server_attestation(sw->server, frame->raw, frame->n_raw, true, &err);
            secure_try_certificate(sw);
        }
        break;
    case LINNET_ROUND_UNMASK:
        secure_try_certificate(sw);
        if (secure_is_first(a, kind, frame) && !sw->is_opened) {
            status = linnet_secagg_server_unmasking(sw->server, frame->raw, frame->n_raw, true, &err);
            if (linnet_secagg_server_can_open(sw->server) && secure_count(sw, kind) == sw->want_uploads)
                secure_open_sums(sw);
        }
        break;
    case LINNET_ROUND_COMPLAINT:
        a->n_sent[kind]++;
        break;
    case LINNET_ROUND_RECEIPTS: /* answered before */
        break;
    case LINNET_ROUND_ABORT:
        a->n_sent[kind]++;
        if (linnet_secagg_server_index(sw->server, &a->id) < 0) { /* its advert never came */
            a->last_abort = frame->raw[LINNET_HASH_BYTES + LINNET_DEVICE_ID_BYTES];
            break;
        }
        assert_ok(linnet_secagg_server_abort(sw->server, frame->raw, frame->n_raw, &reason, &err), &err);
        a->last_abort = (int)reason;
        break;
    }
    assert_ok(status, &err);
}

static inline void secure_keep(agent *a, const linnet_receipt *receipt, const linnet_signature *upload)
{
    fake *f = a->sw->w->f;
    assert_true(a->n_accepted < ARRAY_LEN(a->accepted));
    contribution *c = &a->accepted[a->n_accepted++];
    c->announcement = f->announcement;
    c->receipt = *receipt;
    c->upload = *upload;
    linnet_buffer_append(&c->announced, f->signed_announcement.bytes, f->signed_announcement.n_bytes);
}

/* The announcement of an item, signed again after a change. */
static inline void secure_sign_again(const linnet_identity *identity, linnet_announcement a,
                                     linnet_buffer *ret_signed)
{
    linnet_buffer body = {0};
    linnet_error err = {0};
    linnet_hash hash;
    assert_ok(linnet_announcement_pack(&a, &body, &err), &err);
    fake_sign(identity, LINNET_LABEL_ANNOUNCE, &body, ret_signed, &hash);
    linnet_buffer_release(&body);
}

static inline void secure_add_receipt(const secure_world *sw, const contribution *c, linnet_buffer *raw)
{
    const fake *f = sw->w->f;
    linnet_error err = {0};
    uint8_t bytes[LINNET_SIGNED_RECEIPT_BYTES];
    linnet_receipt receipt = c->receipt;
    linnet_announcement a = c->announcement;
    linnet_buffer announced = {0};
    receipt.device_id.bytes[0] ^= sw->receipt_lie == RECEIPTS_OF_OTHER_DEVICE;
    receipt.echo.bytes[0] ^= sw->receipt_lie == RECEIPTS_OF_OTHER_UPLOAD;
    a.task[0] ^= sw->receipt_lie == RECEIPTS_OF_OTHER_TASK;
    if (sw->receipt_lie == RECEIPTS_OF_NO_NOISE)
        a.m_min = 3, a.n_max = LINNET_COHORT_MAX, a.corrupt_permille = 300;
    secure_sign_again(sw->receipt_lie == RECEIPTS_OF_STRANGE_ROUND ? f->stranger : f->identity, a,
                      &announced);
    linnet_receipt_sign(&receipt, sw->receipt_lie == RECEIPTS_OF_STRANGER ? f->stranger : f->identity, bytes);
    const linnet_receipt_item item = {.announcement = announced.bytes,
                                      .n_announcement = announced.n_bytes,
                                      .receipt = bytes,
                                      .upload = c->upload};
    for (int i = 0; i < (sw->receipt_lie == RECEIPTS_TWICE ? 2 : 1); i++)
        assert_ok(linnet_receipt_list_add(raw, &item, &err), &err);
    linnet_buffer_release(&announced);
}

static inline void secure_receipts(secure_world *sw, agent *a, const linnet_frame *frame,
                                   linnet_answer *answer, linnet_buffer *raw)
{
    size_t n = 0;
    assert_int_equal(frame->n_raw, LINNET_RECEIPT_QUERY_BYTES);
    a->n_asked++;
    if (sw->receipt_lie == RECEIPTS_ARE_REFUSED)
        answer->code = LINNET_ANSWER_REFUSED;
    if (sw->receipt_lie == RECEIPTS_ARE_REFUSED || sw->receipt_lie == RECEIPTS_ARE_HIDDEN)
        return;
    for (size_t i = 0; i < a->n_accepted && (sw->receipts_page == 0 || n < sw->receipts_page); i++)
        if (a->accepted[i].announcement.round >= linnet_load_le64(frame->raw)) {
            secure_add_receipt(sw, &a->accepted[i], raw);
            n++;
        }
    if (sw->receipt_lie == RECEIPTS_CUT && n > 0)
        raw->n_bytes--;
}

static inline void secure_round(secure_world *sw, agent *a, const linnet_frame *frame, linnet_answer *answer,
                                linnet_buffer *raw)
{
    static const linnet_hash none;
    linnet_round_message message;
    linnet_error err = {0};
    assert_ok(linnet_round_message_unpack(frame->header, frame->n_header, &message, &err), &err);
    if (message.kind == LINNET_ROUND_RECEIPTS) {
        assert_memory_equal(&message.announcement, &none, sizeof(none));
        secure_receipts(sw, a, frame, answer, raw);
        return;
    }
    if (!linnet_hash_equal(&message.announcement, &sw->w->f->chain)) {
        answer->code = LINNET_ANSWER_GONE; /* of a round before */
        return;
    }
    if (message.kind >= ARRAY_LEN(a->sent) || secure_conflicts(sw, a, message.kind, frame)) {
        answer->code = LINNET_ANSWER_CONFLICT;
        return;
    }
    secure_take(sw, a, message.kind, frame);
    if (message.kind == LINNET_ROUND_ABORT)
        return;
    if (a == &sw->agents[0] && sw->lie_code != 0) {
        answer->code = sw->lie_code;
        return;
    }
    assert_int_equal(secure_due(sw, a, answer, raw), LINNET_OK);
}

/* The fresh or spent delta in the store of an agent, in the clear. */
static inline void agent_open_delta(const agent *a, linnet_buffer *ret_delta)
{
    linnet_buffer sealed = {0};
    linnet_error err = {0};
    assert_ok(store_get((void *)(uintptr_t)&a->store, "delta", &sealed, &err), &err);
    assert_ok(linnet_round_vault_unseal(a->vault, "delta", sealed.bytes, sealed.n_bytes, ret_delta, &err),
              &err);
    linnet_buffer_release(&sealed);
}

/* The first byte of an M5. Property 20: its delta is in no other one, but where a certificate left that
 * out. */
static inline void secure_see_echo(agent *a, const linnet_hash *chain, const linnet_hash *echo)
{
    linnet_buffer delta = {0};
    agent_open_delta(a, &delta);
    linnet_hash hash = linnet_hash_of(LINNET_LABEL_OBJECT, delta.bytes, delta.n_bytes);
    linnet_buffer_release(&delta);
    assert_true(a->n_echoes < ARRAY_LEN(a->echoes));
    for (size_t i = 0; i < a->n_echoes; i++)
        if (!a->echo_is_void[i] && linnet_hash_equal(&a->echo_deltas[i], &hash))
            fail_msg("the delta of upload %zu is in upload %zu, too", i, a->n_echoes);
    a->echo_chains[a->n_echoes] = *chain;
    a->echo_deltas[a->n_echoes] = hash;
    a->echo_is_void[a->n_echoes] = false;
    a->echoes[a->n_echoes++] = *echo;
}

/* The same bytes in every chunk, and no delta under two masks: property 20 is a count of these. */
static inline void secure_upload(secure_world *sw, agent *a, const linnet_frame *frame, linnet_answer *answer,
                                 uint8_t receipt_bytes[LINNET_SIGNED_RECEIPT_BYTES])
{
    linnet_upload upload;
    linnet_upload_header header;
    linnet_signed signed_header;
    linnet_buffer storage = {0};
    linnet_error err = {0};
    assert_ok(linnet_upload_unpack(frame->header, frame->n_header, &storage, &upload, &err), &err);
    assert_ok(linnet_signed_open(upload.header, upload.n_header, &signed_header, &err), &err);
    assert_ok(linnet_verify(&a->key, LINNET_LABEL_MASKED, signed_header.body, signed_header.n_body,
                            &signed_header.signature),
              &err);
    assert_ok(linnet_upload_header_unpack(signed_header.body, signed_header.n_body, &header, &err), &err);
    const linnet_hash *t2 = linnet_secagg_server_t2(sw->server);
    if (a->n_echoes == 0 || !linnet_hash_equal(&a->echo_chains[a->n_echoes - 1], &header.chain))
        secure_see_echo(a, &header.chain, &header.echo);
    assert_memory_equal(&a->echoes[a->n_echoes - 1], &header.echo, sizeof(header.echo)); /* never two Hy */
    if (!t2 || !linnet_hash_equal(t2, &header.chain) || sw->is_void ||
        (!a->is_accepted && linnet_secagg_server_phase_of(sw->server) != LINNET_SERVER_SHARERS)) {
        answer->code = LINNET_ANSWER_GONE;
        linnet_buffer_release(&storage);
        return;
    }
    if (a->header.n_bytes == 0)
        linnet_buffer_append(&a->header, upload.header, upload.n_header);
    assert_int_equal(a->header.n_bytes, upload.n_header);
    assert_memory_equal(a->header.bytes, upload.header, upload.n_header);
    if (upload.offset <= a->upload.n_bytes) {
        size_t n_known = a->upload.n_bytes - (size_t)upload.offset;
        size_t n_same = n_known < frame->n_raw ? n_known : frame->n_raw;
        assert_memory_equal(a->upload.bytes + upload.offset, frame->raw, n_same);
        linnet_buffer_append(&a->upload, frame->raw + n_same, frame->n_raw - n_same);
    }
    linnet_buffer_release(&storage);
    answer->next_offset = a->upload.n_bytes;
    if (a->upload.n_bytes < header.n_bytes)
        return;
    linnet_hash echo = linnet_hash_of(LINNET_LABEL_VECTOR, a->upload.bytes, a->upload.n_bytes);
    assert_memory_equal(&echo, &header.echo, sizeof(echo));
    if (!a->is_accepted) {
        a->is_accepted = true;
        const linnet_receipt kept = {.chain = header.chain,
                                     .echo = echo,
                                     .device_id = header.device_id,
                                     .sequence = a->n_accepted + 1};
        secure_keep(a, &kept, &signed_header.signature);
        assert_ok(
            linnet_secagg_server_masked(sw->server, &a->id, &echo, &signed_header.signature, true, &err),
            &err);
        secure_fold(sw, a->upload.bytes);
        size_t n = 0;
        for (size_t i = 0; i < sw->n_agents; i++)
            n += sw->agents[i].is_accepted;
        if (n == sw->want_uploads)
            secure_freeze(sw);
    }
    linnet_receipt receipt = {
        .chain = header.chain, .echo = echo, .device_id = header.device_id, .sequence = a->n_accepted};
    linnet_receipt_sign(&receipt, sw->w->f->identity, receipt_bytes);
    answer->retry_after_ms = 3600 * 1000; /* as for who has nothing to do: longer than any phase */
    answer->receipt = receipt_bytes;
    answer->n_receipt = LINNET_SIGNED_RECEIPT_BYTES;
}

static inline void secure_sealed(agent *a, const linnet_http_request *request, linnet_http_response *response)
{
    secure_world *sw = a->sw;
    fake *f = sw->w->f;
    linnet_opened_request request_in = {0};
    linnet_error err = {0};
    linnet_frame frame;
    linnet_answer answer = {0};
    uint8_t receipt[LINNET_SIGNED_RECEIPT_BYTES];
    linnet_buffer header = {0}, body = {0}, raw = {0};
    assert_true(request->n_body <= LINNET_REQUEST_BYTES_MAX);
    linnet_buffer_append_format(&a->traffic, "%lld %s %zu\n", (long long)sw->w->now_ms, request->path,
                                request->n_body);
    assert_ok(linnet_request_open(f->key_record, f->key_secret, request->method, request->path, request->body,
                                  request->n_body, &request_in, &err),
              &err);
    assert_ok(linnet_frame_open(request_in.body, request_in.n_body, &frame, &err), &err);
    assert_int_equal(linnet_request_verify(&request_in, &a->key), LINNET_OK);
    if (strcmp(request->path, LINNET_PATH_CHECKIN) == 0)
        fake_checkin(f, &frame, &answer);
    else if (strcmp(request->path, LINNET_PATH_UPLOAD) == 0)
        secure_upload(sw, a, &frame, &answer, receipt);
    else
        secure_round(sw, a, &frame, &answer, &raw);
    assert_ok(linnet_answer_pack(&answer, &header, &err), &err);
    linnet_frame out = {.header = header.bytes,
                        .n_header = header.n_bytes,
                        .raw = raw.bytes ? raw.bytes : header.bytes,
                        .n_raw = raw.n_bytes};
    assert_ok(linnet_frame_pack(&out, &body, &err), &err);
    assert_ok(linnet_response_seal(&request_in.exchange, body.bytes, body.n_bytes, &response->body, &err),
              &err);
    response->status = 200;
    linnet_buffer_release(&raw);
    linnet_buffer_release(&header);
    linnet_buffer_release(&body);
    linnet_opened_request_release(&request_in);
}

static inline linnet_status secure_http(void *context, const linnet_http_request *request, size_t n_body_max,
                                        linnet_http_response *ret_response, linnet_error *err)
{
    agent *a = context;
    fake *f = a->sw->w->f;
    linnet_http_response response = {0};
    bool is_public = strcmp(request->path, LINNET_PATH_HELLO) == 0 ||
                     strncmp(request->path, LINNET_PATH_OBJECT, strlen(LINNET_PATH_OBJECT)) == 0;
    if (is_public || strcmp(request->path, LINNET_PATH_ENROLL) == 0)
        return fake_http(f, request, n_body_max, ret_response, err);
    secure_sealed(a, request, &response);
    assert_true(response.body.n_bytes <= n_body_max);
    if (a->sw->loses_answers && ++a->sw->n_exchanges % 2 == 0) {
        linnet_http_response_release(&response);
        return linnet_fail(err, LINNET_ERR_IO, "the answer is lost");
    }
    *ret_response = response;
    return LINNET_OK;
}

/* ---- making and ending a world ---- */

static inline void agent_start(agent *a)
{
    linnet_error err = {0};
    assert_null(a->device);
    assert_ok(linnet_device_create(&a->config, a->sw->w->now_ms, &a->device, &err), &err);
}

static inline void agent_kill(agent *a)
{
    linnet_device_destroy(a->device);
    a->device = NULL;
}

static inline void agent_create(secure_world *sw, size_t i)
{
    agent *a = &sw->agents[i];
    linnet_error err = {0};
    linnet_invite invite = fake_invite(sw->w->f);
    *a = (agent){.sw = sw, .last_abort = -1};
    a->kv = (linnet_kv){.context = &a->store, .get = store_get, .put = store_put};
    assert_ok(linnet_device_enroll(&a->kv, secure_http, a, &invite, "http://coordinator", 3, 1000, &err),
              &err);
    a->key = sw->w->f->last_key;
    a->id = linnet_device_id_of(&a->key);
    assert_ok(linnet_round_vault_open_memory(&a->vault, &err), &err);
    a->config = sw->w->config;
    a->config.kv = &a->kv;
    a->config.http = secure_http;
    a->config.http_context = a;
    a->config.vault = a->vault;
    a->config.seed = 100 + i;
    agent_start(a);
}

static inline void puppet_create(secure_world *sw, size_t i)
{
    puppet *p = &sw->puppets[i];
    linnet_error err = {0};
    assert_ok(linnet_identity_create(&p->identity, &err), &err);
    linnet_certificate certificate = {
        .public_key = *linnet_identity_public_key(p->identity), .serial = 50 + i, .not_after = 1u << 31};
    certificate.device_id = p->id = linnet_device_id_of(&certificate.public_key);
    linnet_certificate_sign(&certificate, sw->w->f->authority, p->certificate);
}

static inline secure_world *secure_create(const char *plan, size_t n_agents)
{
    secure_world *sw = calloc(1, sizeof(*sw));
    assert_non_null(sw);
    sw->w = world_create_with(plan);
    sw->authority = *linnet_identity_public_key(sw->w->f->authority);
    sw->trust = (linnet_secagg_trust){.authority = &sw->authority};
    sw->n_agents = n_agents;
    sw->want_adverts = sw->want_shares = sw->want_uploads = n_agents;
    sw->has_certificate_of_all = true;
    for (; sw->n_puppets < SECURE_MEMBERS - n_agents; sw->n_puppets++)
        puppet_create(sw, sw->n_puppets);
    for (size_t i = 0; i < n_agents; i++)
        agent_create(sw, i);
    secure_announce(sw);
    return sw;
}

static inline void secure_destroy(secure_world *sw)
{
    secure_forget_round(sw);
    for (size_t i = 0; i < sw->n_agents; i++) {
        agent *a = &sw->agents[i];
        agent_kill(a);
        linnet_round_vault_close(a->vault);
        store_state_release(&a->store.now);
        for (size_t j = 0; j < a->store.n_copies; j++)
            store_state_release(&a->store.copies[j]);
        for (size_t kind = 0; kind < ARRAY_LEN(a->sent); kind++)
            linnet_buffer_release(&a->sent[kind]);
        linnet_buffer_release(&a->header);
        linnet_buffer_release(&a->upload);
        linnet_buffer_release(&a->traffic);
        for (size_t j = 0; j < a->n_accepted; j++)
            linnet_buffer_release(&a->accepted[j].announced);
    }
    for (size_t i = 0; i < sw->n_puppets; i++) {
        linnet_secagg_device_destroy(sw->puppets[i].machine);
        linnet_identity_destroy(sw->puppets[i].identity);
        linnet_buffer_release(&sw->puppets[i].m3);
    }
    linnet_buffer_release(&sw->lie);
    world_destroy(sw->w);
    free(sw);
}

/* ---- stepping ---- */

static inline linnet_device_report agent_report(const agent *a)
{
    linnet_device_report report;
    linnet_device_status(a->device, &report);
    return report;
}

/* The next thing of this agent; its status where it failed. */
static inline linnet_status agent_try(agent *a, linnet_error *err)
{
    world *w = a->sw->w;
    int64_t wake_ms = 0;
    switch (linnet_device_next(a->device, &wake_ms)) {
    case LINNET_DEVICE_POLL:
        w->now_ms = wake_ms > w->now_ms ? wake_ms : w->now_ms;
        return linnet_device_poll(a->device, w->now_ms, err);
    case LINNET_DEVICE_TRAIN:
        return linnet_device_train(a->device, w->arena, 0, err);
    case LINNET_DEVICE_EVALUATE:
        return linnet_device_evaluate(a->device, w->arena, err);
    case LINNET_DEVICE_FINISHED:
        break;
    }
    return LINNET_OK;
}

static inline void agent_step(agent *a)
{
    linnet_error err = {0};
    assert_ok(agent_try(a, &err), &err);
}

static inline bool agent_is_in(const agent *a, const char *phase)
{
    return strcmp(agent_report(a).phase, phase) == 0;
}

static inline void agent_until(agent *a, const char *phase)
{
    for (int i = 0; i < 60 && !agent_is_in(a, phase); i++)
        agent_step(a);
    linnet_device_report report = agent_report(a);
    if (strcmp(report.phase, phase) != 0)
        fail_msg("never %s, but %s: %s", phase, report.phase, report.note);
}

/* All agents in turn, until the sum is opened. */
static inline void secure_until_opened(secure_world *sw)
{
    for (int i = 0; i < 60 && !sw->is_opened; i++)
        for (size_t j = 0; j < sw->n_agents; j++)
            if (sw->agents[j].device)
                agent_step(&sw->agents[j]);
    if (!sw->is_opened) {
        linnet_device_report report = agent_report(&sw->agents[0]);
        fail_msg("the sum is never opened; agent 0 is %s: %s", report.phase, report.note);
    }
}

/* The opened lane of participants. */
static inline uint32_t secure_participants(const secure_world *sw)
{
    const linnet_announcement *a = &sw->w->f->announcement;
    return sw->sums[a->n_vectors - 1][LINNET_LANE_PARTICIPANTS];
}

#endif
