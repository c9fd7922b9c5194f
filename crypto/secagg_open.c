/* SPDX-License-Identifier: Apache-2.0 */

/* M10 of linnet-sa1 (SECURE-AGGREGATION 2.4): the secrets of a closed round are rebuilt from t shares each,
 * compared with what the roster says of them (cb, pk_x), and the masks that they stand for come off the sum.
 *
 * One set of holders serves nearly all owners: the first t + 1 that handed in an unmasking. Its Lagrange
 * coefficients are computed once; an owner who is in the set itself is left out of it by one factor a
 * coefficient, (x_owner - x_i) / x_owner. Where a secret does not fit, random sets of t holders are tried,
 * the good one tells which holders do not agree with it, and those are passed over for all owners, as long as
 * the others suffice: a dealer of two polynomials makes honest holders look wrong. What is rebuilt here is
 * known to the coordinator by design: nothing needs constant time but what libsodium does anyway. */

#include "secagg_server.h"

#include <sodium.h>
#include <stdlib.h>

#define SUBSETS_MAX 4096 /* tries for one secret */

/* The holders that secrets are rebuilt from, and room to work in. */
typedef struct opening {
    linnet_secagg_server *server;
    uint32_t holders[LINNET_SECAGG_MEMBERS_MAX], n_holders; /* the common set */
    linnet_scalar *coefficients;                            /* of the common set */
    linnet_scalar *c, *shares;                              /* room for one secret */
    uint32_t *points;
    bool disagrees; /* a set of shares gave no secret that fits: somebody's are wrong */
    bool no_memory; /* nothing is said about shares then */
} opening;

static bool is_owner(const linnet_secagg_server *server, uint32_t i)
{
    return linnet_bitmap_has(server->u2, i);
}

/* Does `holder` say something about `owner`? */
static bool holds(const linnet_secagg_server *server, uint32_t holder, uint32_t owner)
{
    return holder != owner && server->members[holder].has_unmasked &&
           linnet_server_entry(server, holder, owner)[0] != UNMASK_MISSING;
}

bool linnet_secagg_server_can_open(const linnet_secagg_server *server)
{
    if (server->phase < LINNET_SERVER_FROZEN)
        return false;
    uint32_t n_unmasked = 0;
    for (uint32_t i = 0; i < server->n; i++)
        n_unmasked += server->members[i].has_unmasked;
    if (n_unmasked < server->thresholds.shares)
        return false;
    for (uint32_t owner = 0; owner < server->n; owner++) {
        uint32_t n = 0;
        if (!is_owner(server, owner))
            continue;
        for (uint32_t i = 0; i < server->n && n < server->thresholds.shares; i++)
            n += holds(server, i, owner);
        if (n < server->thresholds.shares)
            return false;
    }
    return true;
}

/* ---- one secret ---- */

/* Does this scalar give what the owner's advert says: cb for r_b of a survivor, pk_x for r_s of a
 * drop-out? */
static bool secret_fits(const linnet_secagg_server *server, uint32_t owner, const linnet_scalar *secret)
{
    const linnet_secagg_member *m = &server->members[owner].member;
    uint8_t sk[32], pk[32];
    if (linnet_bitmap_has(server->u3, owner)) {
        linnet_hash commitment = linnet_secagg_self_commitment(secret, &server->params.announcement, &m->id);
        return linnet_hash_equal(&commitment, &m->commitment);
    }
    linnet_secagg_kx_pair(secret, &server->params.announcement, &m->id, sk, pk);
    linnet_wipe(sk, sizeof(sk));
    return memcmp(pk, m->pk_x, sizeof(pk)) == 0;
}

static void read_share(const linnet_secagg_server *server, uint32_t holder, uint32_t owner,
                       linnet_scalar *ret_share)
{
    memcpy(ret_share->bytes, linnet_server_entry(server, holder, owner) + 1, sizeof(ret_share->bytes));
}

/* (x_owner - x_i) / x_owner, which takes x_owner out of a set of points. */
static void leave_out(linnet_scalar *coefficient, uint32_t owner_point, uint32_t point,
                      const linnet_scalar *inverse)
{
    linnet_scalar a = {{0}}, b = {{0}};
    linnet_store_le32(a.bytes, owner_point);
    linnet_store_le32(b.bytes, point);
    crypto_core_ristretto255_scalar_sub(a.bytes, a.bytes, b.bytes);
    crypto_core_ristretto255_scalar_mul(a.bytes, a.bytes, inverse->bytes);
    crypto_core_ristretto255_scalar_mul(coefficient->bytes, coefficient->bytes, a.bytes);
}

/* By the common set; false where one of it has nothing to say, or the secret does not fit. */
static bool rebuild_common(opening *o, uint32_t owner, linnet_scalar *ret_secret)
{
    linnet_scalar inverse = {{0}};
    uint32_t n = 0;
    bool is_in_set = false;
    for (uint32_t k = 0; k < o->n_holders; k++)
        is_in_set = is_in_set || o->holders[k] == owner;
    linnet_store_le32(inverse.bytes, owner + 1);
    if (crypto_core_ristretto255_scalar_invert(inverse.bytes, inverse.bytes) != 0)
        return false;
    for (uint32_t k = 0; k < o->n_holders; k++) {
        uint32_t holder = o->holders[k];
        if (holder == owner)
            continue;
        if (!holds(o->server, holder, owner))
            return false;
        o->c[n] = o->coefficients[k];
        if (is_in_set)
            leave_out(&o->c[n], owner + 1, holder + 1, &inverse);
        read_share(o->server, holder, owner, &o->shares[n++]);
    }
    if (n < o->server->thresholds.shares)
        return false;
    bool fits = linnet_shamir_combine(o->c, o->shares, n, ret_secret) == LINNET_OK &&
                secret_fits(o->server, owner, ret_secret);
    o->disagrees = !fits;
    return fits;
}

/* By these t holders. */
static bool rebuild_by(opening *o, uint32_t owner, const uint32_t *holders, linnet_scalar *ret_secret)
{
    uint32_t t = o->server->thresholds.shares;
    for (uint32_t k = 0; k < t; k++) {
        o->points[k] = holders[k] + 1;
        read_share(o->server, holders[k], owner, &o->shares[k]);
    }
    o->no_memory = o->no_memory || linnet_shamir_coefficients(o->points, t, o->c) != LINNET_OK;
    bool fits = !o->no_memory && linnet_shamir_combine(o->c, o->shares, t, ret_secret) == LINNET_OK &&
                secret_fits(o->server, owner, ret_secret);
    o->disagrees = o->disagrees || !fits;
    return fits;
}

/* The first t of list become a random choice of all n. */
static void shuffle_front(uint32_t *list, uint32_t n, uint32_t t)
{
    for (uint32_t k = 0; k < t; k++) {
        uint32_t other = k + randombytes_uniform(n - k), held = list[k];
        list[k] = list[other];
        list[other] = held;
    }
}

/* The first t + 1 that handed in an unmasking and were not found wrong, and their coefficients. */
static linnet_status choose_common(opening *o, linnet_error *err)
{
    uint32_t want = o->server->thresholds.shares + 1;
    o->n_holders = 0;
    for (uint32_t i = 0; i < o->server->n && o->n_holders < want; i++)
        if (o->server->members[i].has_unmasked && !o->server->members[i].is_wrong)
            o->holders[o->n_holders++] = i;
    for (uint32_t k = 0; k < o->n_holders; k++)
        o->points[k] = o->holders[k] + 1;
    if (o->n_holders == 0)
        return LINNET_OK; /* all were found wrong: each secret by itself */
    linnet_status status = linnet_shamir_coefficients(o->points, o->n_holders, o->coefficients);
    return status == LINNET_OK ? LINNET_OK : linnet_fail(err, status, "opening: coefficients");
}

/* With a good set of t in front of list, everybody behind it is tried in the place of its last. */
static void name_liars(opening *o, uint32_t owner, uint32_t *list, uint32_t n)
{
    uint32_t t = o->server->thresholds.shares, good = list[t - 1];
    linnet_scalar secret;
    for (uint32_t k = t; k < n; k++) {
        server_member *holder = &o->server->members[list[k]];
        list[t - 1] = list[k];
        if (!holder->is_wrong && !rebuild_by(o, owner, list, &secret) && !o->no_memory)
            holder->is_wrong = true;
    }
    list[t - 1] = good;
    linnet_wipe(&secret, sizeof(secret));
}

/* By random sets of t among those that were not found wrong, or among all that say something. */
static bool rebuild_among(opening *o, uint32_t owner, bool with_wrong, linnet_scalar *ret_secret)
{
    uint32_t list[LINNET_SECAGG_MEMBERS_MAX] = {0}, n = 0, t = o->server->thresholds.shares;
    for (uint32_t i = 0; i < o->server->n; i++)
        if (holds(o->server, i, owner) && (with_wrong || !o->server->members[i].is_wrong))
            list[n++] = i;
    if (n < t)
        return false;
    for (int attempt = 0; attempt < SUBSETS_MAX && !o->no_memory; attempt++) {
        if (rebuild_by(o, owner, list, ret_secret)) {
            if (o->disagrees) /* else the common set only had nothing to say: nobody lied */
                name_liars(o, owner, list, n);
            return true;
        }
        shuffle_front(list, n, t);
    }
    return false;
}

static uint32_t count_wrong(const linnet_secagg_server *server)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < server->n; i++)
        n += server->members[i].is_wrong;
    return n;
}

/* The second time only where it adds somebody. */
static bool rebuild_anyhow(opening *o, uint32_t owner, linnet_scalar *ret_secret)
{
    return rebuild_among(o, owner, false, ret_secret) ||
           (count_wrong(o->server) > 0 && rebuild_among(o, owner, true, ret_secret));
}

/* ---- all secrets, and the masks that they stand for ---- */

static void add_key(linnet_secagg_server *server, const linnet_hash *key, int sign)
{
    server->keys[server->n_keys] = *key;
    server->signs[server->n_keys++] = (int8_t)sign;
}

/* A drop-out's pair masks are in the sum of every survivor: j added them with + where j stands before it. */
static linnet_status add_pair_keys(linnet_secagg_server *server, uint32_t dropped, const linnet_scalar *r_s,
                                   linnet_error *err)
{
    const linnet_secagg_member *m = &server->members[dropped].member;
    uint8_t sk[32], pk[32];
    linnet_status status = LINNET_OK;
    linnet_secagg_kx_pair(r_s, &server->params.announcement, &m->id, sk, pk);
    for (uint32_t j = 0; j < server->n && status == LINNET_OK; j++) {
        linnet_hash key;
        if (!linnet_bitmap_has(server->u3, j))
            continue;
        status = linnet_secagg_pair_key(sk, pk, server->members[j].member.pk_x, &server->t2, &key);
        if (status == LINNET_OK)
            add_key(server, &key, j < dropped ? 1 : -1);
        linnet_wipe(&key, sizeof(key));
    }
    linnet_wipe(sk, sizeof(sk));
    return status == LINNET_OK ? LINNET_OK
                               : linnet_fail(err, status, "the pair keys of member %u", (unsigned)dropped);
}

static linnet_status add_owner(opening *o, uint32_t owner, linnet_error *err)
{
    linnet_secagg_server *server = o->server;
    linnet_scalar secret;
    linnet_status status = LINNET_OK;
    o->disagrees = false;
    bool is_rebuilt = rebuild_common(o, owner, &secret) || rebuild_anyhow(o, owner, &secret);
    if (o->no_memory) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "the secret of member %u", (unsigned)owner);
    } else if (!is_rebuilt) {
        status = linnet_fail(err, LINNET_ERR_CRYPTO, "no %u shares agree on the secret of member %u",
                             (unsigned)server->thresholds.shares, (unsigned)owner);
    } else if (linnet_bitmap_has(server->u3, owner)) {
        linnet_hash key = linnet_secagg_self_key(&secret, &server->t2, &server->members[owner].member.id);
        add_key(server, &key, 1);
        linnet_wipe(&key, sizeof(key));
    } else {
        status = add_pair_keys(server, owner, &secret, err);
    }
    linnet_wipe(&secret, sizeof(secret));
    if (status == LINNET_OK && o->disagrees)
        status = choose_common(o, err);
    return status;
}

static linnet_status opening_init(opening *o, linnet_secagg_server *server, linnet_error *err)
{
    uint32_t n_u3 = linnet_bitmap_count(server->u3, server->n);
    uint32_t n_dropped = linnet_bitmap_count(server->u2, server->n) - n_u3;
    size_t n_keys = (size_t)n_u3 * (1 + n_dropped);
    *o = (opening){.server = server};
    o->coefficients = calloc(server->n, sizeof(*o->coefficients));
    o->c = calloc(server->n, sizeof(*o->c));
    o->shares = calloc(server->n, sizeof(*o->shares));
    o->points = calloc(server->n, sizeof(*o->points));
    free(server->keys);
    free(server->signs);
    server->n_keys = 0;
    server->keys = calloc(n_keys, sizeof(*server->keys));
    server->signs = calloc(n_keys, sizeof(*server->signs));
    if (!o->coefficients || !o->c || !o->shares || !o->points || !server->keys || !server->signs)
        return linnet_fail(err, LINNET_ERR_NOMEM, "opening a round of %u members", (unsigned)server->n);
    return choose_common(o, err);
}

static void opening_release(opening *o)
{
    if (o->shares)
        linnet_wipe(o->shares, o->server->n * sizeof(*o->shares));
    free(o->coefficients);
    free(o->c);
    free(o->shares);
    free(o->points);
}

linnet_status linnet_secagg_server_open(linnet_secagg_server *server, uint32_t *ret_n_wrong,
                                        linnet_error *err)
{
    opening o;
    if (ret_n_wrong)
        *ret_n_wrong = count_wrong(server);
    if (server->phase == LINNET_SERVER_OPENED)
        return LINNET_OK;
    if (!linnet_secagg_server_can_open(server))
        return linnet_fail(err, LINNET_ERR_AGAIN, "too few shares yet");
    linnet_status status = opening_init(&o, server, err);
    for (uint32_t owner = 0; owner < server->n && status == LINNET_OK; owner++)
        if (is_owner(server, owner))
            status = add_owner(&o, owner, err);
    opening_release(&o);
    linnet_stack_wipe();
    if (ret_n_wrong)
        *ret_n_wrong = count_wrong(server);
    if (status == LINNET_OK) {
        server->phase = LINNET_SERVER_OPENED;
    } else if (server->keys) {
        linnet_wipe(server->keys, server->n_keys * sizeof(*server->keys));
        server->n_keys = 0;
    }
    return status;
}

linnet_status linnet_secagg_server_unmask(const linnet_secagg_server *server, uint32_t index, uint64_t first,
                                          size_t n, uint32_t *sum, linnet_error *err)
{
    if (server->phase != LINNET_SERVER_OPENED || index >= server->params.n_vectors ||
        first % LINNET_PACK_CHUNK != 0 || n < 1 || n > LINNET_PACK_CHUNK)
        return linnet_fail(err, LINNET_ERR_ARG, "no masks for this part of vector %u", (unsigned)index);
    const linnet_secagg_vector *v = &server->params.vectors[index];
    if (first >= v->length || n > v->length - first)
        return linnet_fail(err, LINNET_ERR_ARG, "vector %u ends before this part", (unsigned)index);
    for (size_t k = 0; k < server->n_keys; k++)
        if (server->signs[k] > 0)
            linnet_mask_subtract(&server->keys[k], v->id, v->bits, first, n, sum);
        else
            linnet_mask_add(&server->keys[k], v->id, v->bits, first, n, sum);
    linnet_stack_wipe();
    return LINNET_OK;
}
