/* SPDX-License-Identifier: Apache-2.0 */
/* One device against a coordinator that sends what it likes, in any order, with several stories: two rosters,
 * four sets of sharers, four of survivors, certificates by too few or by others, bytes flipped. Between
 * messages the process is killed before or after its commit, and copies of its last record run beside it. By
 * the rules of section 7 nothing leaves before the record is committed; so what has left is watched, and
 * after every step there must be: never two M3, never two T2, never two Hy, never two T3, never two M9 or
 * both kinds of share for one owner, and no M9 after the device was set free. Peers are played by the
 * harness, which has all their keys. */
#include "fuzz_secagg.h"

/* What the world has seen of the device in this round. */
typedef struct seen {
    bool has_t1, has_t2, has_echo, has_t3, has_m9, is_free;
    linnet_hash m3, t1, t2, echo, t3, m9;
    uint8_t kinds[FUZZ_N]; /* per owner */
} seen;

typedef struct world {
    fuzz_cohort c;
    linnet_secagg_device *device; /* NULL: the round is over for it */
    linnet_buffer committed;      /* the last record; empty: none yet */
    seen seen;
    linnet_buffer m;
    uint32_t n_signers; /* of the last certificate sent */
} world;

typedef struct input {
    const uint8_t *data;
    size_t n, at;
} input;

static uint8_t next(input *in)
{
    return in->at < in->n ? in->data[in->at++] : 0;
}

static const uint8_t sets[] = {0x7f, 0x3f, 0x5f, 0x1f};

static forger_set set_of(uint8_t choice)
{
    return (forger_set){{(uint8_t)(sets[choice % 4] ^ (choice & 64 ? 1 : 0))}}; /* sometimes without 0 */
}

/* ---- what has left the device ---- */

static void once(bool *has, linnet_hash *known, const linnet_hash *now)
{
    REQUIRE(!*has || memcmp(known->bytes, now->bytes, LINNET_HASH_BYTES) == 0);
    *has = true;
    *known = *now;
}

static void watch_m9(world *w, const uint8_t *m9, size_t n_bytes)
{
    linnet_hash hash = linnet_hash_of(LINNET_LABEL_UNMASK, m9, n_bytes);
    REQUIRE(!w->seen.is_free);
    REQUIRE(w->seen.has_t3 && memcmp(m9, w->seen.t3.bytes, LINNET_HASH_BYTES) == 0);
    once(&w->seen.has_m9, &w->seen.m9, &hash);
    const uint8_t *entry = m9 + MESSAGE_HEAD_BYTES;
    for (uint32_t j = 0; j < w->device->n; j++) {
        if (j == w->device->index || !linnet_bitmap_has(w->device->u2, j))
            continue;
        uint8_t due = linnet_bitmap_has(w->device->u3, j) ? UNMASK_SELF : UNMASK_PAIR;
        REQUIRE(entry[0] == due || entry[0] == UNMASK_MISSING);
        REQUIRE(!entry[0] || (entry[1] == j && entry[2] == (due == UNMASK_SELF))); /* as they were sealed */
        REQUIRE(!w->seen.kinds[j] || !entry[0] || w->seen.kinds[j] == entry[0]);
        w->seen.kinds[j] |= entry[0];
        REQUIRE(w->seen.kinds[j] != (UNMASK_SELF | UNMASK_PAIR));
        entry += UNMASK_ENTRY_BYTES;
    }
}

static void watch(world *w)
{
    size_t n;
    const linnet_secagg_device *d = w->device;
    const uint8_t *m3 = linnet_secagg_device_shares(d, &n);
    if (m3) {
        linnet_hash hash = linnet_hash_of(LINNET_LABEL_SHARE, m3, n);
        bool has = w->seen.has_t1;
        once(&has, &w->seen.m3, &hash);
        once(&w->seen.has_t1, &w->seen.t1, linnet_secagg_device_t1(d));
    }
    if (linnet_secagg_device_t2(d))
        once(&w->seen.has_t2, &w->seen.t2, linnet_secagg_device_t2(d));
    if (linnet_secagg_device_echo(d) && d->phase <= LINNET_SECAGG_RELEASED)
        once(&w->seen.has_echo, &w->seen.echo, linnet_secagg_device_echo(d));
    if (linnet_secagg_device_t3(d)) {
        REQUIRE(!w->seen.is_free);
        once(&w->seen.has_t3, &w->seen.t3, linnet_secagg_device_t3(d));
    }
    const uint8_t *m9 = linnet_secagg_device_unmask(d, &n);
    if (m9)
        watch_m9(w, m9, n);
    if (d->phase == LINNET_SECAGG_EXCLUDED) {
        REQUIRE(!w->seen.has_t3 && !w->seen.has_m9);
        w->seen.is_free = true;
    }
    REQUIRE((d->secrets != NULL) == (d->phase < LINNET_SECAGG_RELEASED));
}

/* ---- commits, crashes, copies ---- */

static void end(world *w)
{
    linnet_secagg_device_destroy(w->device);
    w->device = NULL;
}

static linnet_secagg_device *load(const world *w)
{
    linnet_secagg_device *d = NULL;
    const fuzz_cohort *c = &w->c;
    REQUIRE(linnet_secagg_device_load(&c->f.params, c->f.m[0].identity, w->committed.bytes,
                                      w->committed.n_bytes, &d, NULL) == LINNET_OK);
    return d;
}

/* After a step: commit and let things out, or die before that and come back with the last record. */
static void settle(world *w, bool crashes)
{
    linnet_buffer record = {0};
    if (crashes && w->device->phase != LINNET_SECAGG_ABORTED) {
        end(w);
        w->device = w->committed.n_bytes ? load(w) : NULL;
        return;
    }
    if (w->device->phase > LINNET_SECAGG_ADVERTISED && w->device->phase <= LINNET_SECAGG_RELEASED) {
        REQUIRE(linnet_secagg_device_save(w->device, &record, NULL) == LINNET_OK);
        linnet_buffer_release(&w->committed);
        w->committed = record;
    }
    watch(w);
    if (w->device->phase > LINNET_SECAGG_RELEASED)
        end(w); /* aborted, or set free: the record goes */
}

/* A copy of the committed record says what the machine says. */
static void compare_copy(world *w)
{
    linnet_buffer a = {0}, b = {0};
    if (!w->committed.n_bytes)
        return;
    linnet_secagg_device *copy = load(w);
    REQUIRE(linnet_secagg_device_save(copy, &a, NULL) == LINNET_OK);
    REQUIRE(linnet_secagg_device_save(w->device, &b, NULL) == LINNET_OK);
    REQUIRE(a.n_bytes == b.n_bytes && memcmp(a.bytes, b.bytes, a.n_bytes) == 0);
    if (copy->phase == LINNET_SECAGG_MASKING) {
        uint8_t x[3 * FORGER_COORDINATES] = {7}, y[3 * FORGER_COORDINATES] = {7};
        REQUIRE(linnet_secagg_device_mask(copy, 0, 0, FORGER_COORDINATES, x, NULL) == LINNET_OK);
        REQUIRE(linnet_secagg_device_mask(w->device, 0, 0, FORGER_COORDINATES, y, NULL) == LINNET_OK);
        REQUIRE(memcmp(x, y, sizeof(x)) == 0);
    }
    linnet_secagg_device_destroy(copy);
    linnet_buffer_release(&a);
    linnet_buffer_release(&b);
}

/* ---- messages ---- */

static void make_roster(world *w, uint8_t choice)
{
    uint8_t adverts[FORGER_MAX * LINNET_ADVERT_BYTES];
    forger_adverts(&w->c.f, adverts);
    memcpy(adverts, w->device->advert, LINNET_ADVERT_BYTES);
    forger_m2_of(&w->c.f, adverts, choice & 1 ? FUZZ_N - 1 : FUZZ_N, &w->m);
}

/* Boxes are sealed anew with any shares: peers owe the device no consistency. */
static void make_sharers(world *w, uint8_t choice, uint8_t bad)
{
    const linnet_secagg_device *d = w->device;
    forger_set u2 = set_of(choice);
    linnet_hash t2 = linnet_secagg_t2(&d->t1, u2.bits, d->n);
    linnet_buffer_clear(&w->m);
    forger_append_signature(&w->m, w->c.f.coordinator, &t2);
    linnet_buffer_append(&w->m, u2.bits, linnet_bitmap_bytes(d->n));
    for (uint32_t j = 1; j < d->n; j++) {
        static const uint8_t nonce[24] = {1};
        linnet_share_box_key key;
        uint8_t box[LINNET_SHARE_BOX_BYTES];
        linnet_scalar s = {{(uint8_t)j}}, b = {{(uint8_t)j, 1}};
        if (!linnet_bitmap_has(u2.bits, j))
            continue;
        REQUIRE(linnet_share_box_key_derive(w->c.f.m[j].device->secrets->sk_e, d->advert + ADVERT_PK_E,
                                            &d->t1, j, 0, &key) == LINNET_OK);
        linnet_share_box_seal(&key, nonce, &s, &b, box);
        box[40] ^= (uint8_t)(bad >> (j - 1) & 1);
        linnet_buffer_append(&w->m, box, sizeof(box));
    }
}

static linnet_hash make_survivors(world *w, uint8_t choice)
{
    const linnet_secagg_device *d = w->device;
    w->c.f.m[0].echo = d->echo;
    w->c.f.m[0].header = d->header_signature;
    return forger_m6(&w->c.f, &d->t2, set_of(choice), &w->m);
}

static void make_certificate(world *w, uint8_t choice, uint8_t who)
{
    uint32_t signers[FUZZ_N], n = 0;
    linnet_hash t3 = make_survivors(w, choice);
    for (uint32_t i = 0; i < FUZZ_N; i++)
        if (!(who >> i & 1) && linnet_bitmap_has(set_of(choice).bits, i))
            signers[n++] = i;
    w->n_signers = n;
    forger_certificate(&w->c.f, &t3, signers, n, &w->m);
}

static void send_echo(world *w, uint8_t choice)
{
    uint8_t bytes = (uint8_t)(choice % 3 == 0); /* mostly the same */
    linnet_hash echo = linnet_hash_of(LINNET_LABEL_VECTOR, &bytes, 1);
    linnet_signature s =
        linnet_sign(w->c.f.m[0].identity, LINNET_LABEL_MASKED, echo.bytes, LINNET_HASH_BYTES);
    (void)!linnet_secagg_device_fix_echo(w->device, &echo, &s, NULL); /* what it did is watched */
}

/* One message, perhaps with a bit flipped in it or cut. */
static void step(world *w, input *in)
{
    uint8_t op = next(in), choice = next(in), harm = next(in), message[LINNET_ABORT_BYTES];
    linnet_secagg_device *d = w->device;
    bool has_roster = d->phase >= LINNET_SECAGG_SHARED, has_sharers = d->phase >= LINNET_SECAGG_MASKING;
    linnet_buffer_clear(&w->m);
    if (op % 8 == 1 && has_roster)
        make_sharers(w, choice, next(in));
    else if (op % 8 == 2 && has_sharers)
        (void)make_survivors(w, choice);
    else if (op % 8 == 3 && has_sharers)
        make_certificate(w, choice, next(in));
    else if (op % 8 <= 3)
        make_roster(w, choice);
    if (harm >= 192 && w->m.n_bytes > 0)
        w->m.bytes[harm * 7u % w->m.n_bytes] ^= (uint8_t)(1u << harm % 8);
    if (op % 8 == 0)
        (void)!linnet_secagg_device_take_roster(d, &w->c.f.trust, w->m.bytes, w->m.n_bytes, NULL);
    else if (op % 8 == 1)
        (void)!linnet_secagg_device_take_sharers(d, w->m.bytes, w->m.n_bytes, NULL);
    else if (op % 8 == 2)
        (void)!linnet_secagg_device_take_survivors(d, w->m.bytes, w->m.n_bytes, NULL);
    else if (op % 8 == 3)
        (void)!linnet_secagg_device_take_certificate(d, w->m.bytes, w->m.n_bytes, NULL);
    else if (op % 8 == 4)
        send_echo(w, choice);
    else if (op % 8 == 5)
        compare_copy(w);
    else if (op == 0xfe)
        linnet_secagg_device_abort(d, LINNET_ABORT_TIME, message);
    if (d->phase == LINNET_SECAGG_RELEASED || d->phase == LINNET_SECAGG_EXCLUDED)
        REQUIRE(w->seen.has_m9 || w->n_signers >= d->thresholds.signatures);
    settle(w, op & 8 && op & 16); /* a quarter of the steps is lost in a crash */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static world w;
    input in = {.data = data, .n = n_bytes};
    if (!w.c.f.n)
        fuzz_cohort_init(&w.c, LINNET_SECAGG_ADVERTISED, forger_all(FUZZ_N));
    w.seen = (seen){0};
    linnet_buffer_release(&w.committed);
    REQUIRE(linnet_secagg_device_create(&w.c.f.params, w.c.f.m[0].identity, w.c.f.m[0].certificate, &w.device,
                                        NULL) == LINNET_OK);
    watch(&w);
    while (w.device && in.at < in.n)
        step(&w, &in);
    end(&w);
    return 0;
}
