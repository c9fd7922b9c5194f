/* SPDX-License-Identifier: Apache-2.0 */

/* M10 of linnet-sa1 (SECURE-AGGREGATION 2.4): the secrets of a closed round are rebuilt from t shares each,
 * compared with what the roster says of them (cb, pk_x), and the masks that they stand for come off the sum.
 *
 * One set of t + 1 holders serves nearly all owners, with coefficients that are computed once; an owner who
 * is in the set is left out of it by one factor a coefficient. Where that secret does not fit, the shares of
 * all holders are decoded: up to half of those beyond t may be wrong. Random sets of t holders, few enough to
 * cost no more, are left for what that cannot reach: more liars in a small cohort, or liars who made up a
 * polynomial together.
 *
 * Wrong shares are their holders' fault or the owner's, who may have dealt shares of two polynomials, and
 * nobody can tell. So an owner has one unit of blame to give, split among those who disagree: a hostile owner
 * can blame many honest holders a little, while who lies about many owners is soon blamed more than they are.
 * The common set is of the least blamed. With h hostile members some 2 h owners are decoded, whatever they
 * do, unless h is near the number of holders that are not needed.
 *
 * Secrets are kept from a failed opening to the next. What is rebuilt here is known to the coordinator by
 * design: nothing needs constant time but what libsodium does anyway. */

#include "secagg_server.h"

#include <sodium.h>
#include <stdlib.h>

#define BLAME (1u << 20)          /* of one owner: it splits a thousand times, and a thousand fit a word */
#define SEARCH_TRIES_MAX 4096     /* for one secret, and of all tries together: */
#define SEARCH_WORK_MAX (1 << 22) /* products of points, t^2 a try; a tenth of a second for t = 500 */

/* Holders and Lagrange's coefficients for them. */
typedef struct holder_set {
    uint32_t points[LINNET_SECAGG_MEMBERS_MAX], n;
    linnet_scalar *coefficients; /* owned */
} holder_set;

typedef struct opening {
    linnet_secagg_server *server;
    holder_set common, all; /* all: empty until it is needed */
    /* what is said about one owner */
    uint32_t points[LINNET_SECAGG_MEMBERS_MAX], n;
    linnet_scalar *c, *shares; /* owned, wiped */
    bool is_wrong[LINNET_SECAGG_MEMBERS_MAX];
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

/* (x_out - x_i) / x_out for all i takes x_out out of a set of points. */
static void leave_out(opening *o, uint32_t out)
{
    linnet_scalar inverse = {{0}};
    linnet_store_le32(inverse.bytes, out);
    (void)crypto_core_ristretto255_scalar_invert(inverse.bytes, inverse.bytes); /* no point is 0 */
    for (uint32_t k = 0; k < o->n; k++) {
        linnet_scalar a = {{0}}, b = {{0}};
        linnet_store_le32(a.bytes, out);
        linnet_store_le32(b.bytes, o->points[k]);
        crypto_core_ristretto255_scalar_sub(a.bytes, a.bytes, b.bytes);
        crypto_core_ristretto255_scalar_mul(a.bytes, a.bytes, inverse.bytes);
        crypto_core_ristretto255_scalar_mul(o->c[k].bytes, o->c[k].bytes, a.bytes);
    }
}

/* What a set says about an owner; LINNET_ERR_CRYPTO where that is less than t shares. */
static linnet_status read_shares(opening *o, const holder_set *set, uint32_t owner)
{
    o->n = 0;
    for (uint32_t k = 0; k < set->n; k++) {
        uint32_t holder = set->points[k] - 1;
        if (!holds(o->server, holder, owner))
            continue;
        o->points[o->n] = set->points[k];
        o->c[o->n] = set->coefficients[k];
        memcpy(o->shares[o->n++].bytes, linnet_server_entry(o->server, holder, owner) + 1,
               LINNET_SCALAR_BYTES);
    }
    if (o->n < o->server->thresholds.shares)
        return LINNET_ERR_CRYPTO;
    for (uint32_t k = 0; k < set->n; k++)
        if (!holds(o->server, set->points[k] - 1, owner))
            leave_out(o, set->points[k]);
    return LINNET_OK;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The n_max least blamed of those that handed in an unmasking. */
static linnet_status choose(const opening *o, holder_set *set, uint32_t n_max)
{
    uint64_t by_blame[LINNET_SECAGG_MEMBERS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < o->server->n; i++)
        if (o->server->members[i].has_unmasked)
            by_blame[n++] = (uint64_t)o->server->members[i].blame << 32 | (i + 1);
    qsort(by_blame, n, sizeof(by_blame[0]), compare_numbers);
    set->n = n < n_max ? n : n_max;
    for (uint32_t k = 0; k < set->n; k++)
        set->points[k] = (uint32_t)by_blame[k];
    return linnet_shamir_coefficients(set->points, set->n, set->coefficients);
}

static linnet_status choose_common(opening *o)
{
    return choose(o, &o->common, o->server->thresholds.shares + 1);
}

/* From the first n shares that were read. */
static linnet_status combine(const opening *o, uint32_t owner, uint32_t n, linnet_scalar *ret_secret)
{
    linnet_status status = linnet_shamir_combine(o->c, o->shares, n, ret_secret);
    return status == LINNET_OK && secret_fits(o->server, owner, ret_secret) ? LINNET_OK : LINNET_ERR_CRYPTO;
}

static linnet_status rebuild_common(opening *o, uint32_t owner, linnet_scalar *ret_secret)
{
    linnet_status status = read_shares(o, &o->common, owner);
    return status == LINNET_OK ? combine(o, owner, o->n, ret_secret) : status;
}

static linnet_status rebuild_decoded(opening *o, uint32_t owner, linnet_scalar *ret_secret)
{
    linnet_status status = o->all.n > 0 ? LINNET_OK : choose(o, &o->all, o->server->n);
    if (status == LINNET_OK)
        status = read_shares(o, &o->all, owner);
    if (status == LINNET_OK)
        status = linnet_shamir_decode(o->points, o->c, o->shares, o->n, o->server->thresholds.shares,
                                      ret_secret, o->is_wrong);
    if (status == LINNET_ERR_NOT_FOUND || (status == LINNET_OK && !secret_fits(o->server, owner, ret_secret)))
        status = LINNET_ERR_CRYPTO;
    return status;
}

static linnet_status rebuild_by_front(opening *o, uint32_t owner, linnet_scalar *ret_secret)
{
    uint32_t t = o->server->thresholds.shares;
    linnet_status status = linnet_shamir_coefficients(o->points, t, o->c);
    return status == LINNET_OK ? combine(o, owner, t, ret_secret) : status;
}

static void swap_shares(opening *o, uint32_t k, uint32_t other)
{
    uint32_t point = o->points[k];
    linnet_scalar share = o->shares[k];
    o->points[k] = o->points[other];
    o->shares[k] = o->shares[other];
    o->points[other] = point;
    o->shares[other] = share;
}

/* With a good set of t in front, everybody behind it is tried in the place of its last. */
static linnet_status name_liars(opening *o, uint32_t owner)
{
    uint32_t t = o->server->thresholds.shares;
    linnet_scalar secret;
    linnet_status status = LINNET_OK;
    memset(o->is_wrong, 0, sizeof(o->is_wrong));
    for (uint32_t k = t; k < o->n && status != LINNET_ERR_NOMEM; k++) {
        swap_shares(o, t - 1, k);
        status = rebuild_by_front(o, owner, &secret);
        swap_shares(o, t - 1, k);
        o->is_wrong[k] = status != LINNET_OK;
    }
    linnet_wipe(&secret, sizeof(secret));
    return status == LINNET_ERR_NOMEM ? status : LINNET_OK;
}

/* From random sets of t of the shares that were read to be decoded. */
static linnet_status rebuild_searched(opening *o, uint32_t owner, linnet_scalar *ret_secret)
{
    uint32_t t = o->server->thresholds.shares;
    linnet_status status = LINNET_ERR_CRYPTO;
    if (o->n <= t) /* they are one set, which was tried */
        return status;
    for (uint32_t i = 0; i < SEARCH_TRIES_MAX && i * t * t < SEARCH_WORK_MAX && status == LINNET_ERR_CRYPTO;
         i++) {
        for (uint32_t k = 0; k < t; k++)
            swap_shares(o, k, k + randombytes_uniform(o->n - k));
        status = rebuild_by_front(o, owner, ret_secret);
    }
    return status == LINNET_OK ? name_liars(o, owner) : status;
}

static void blame(linnet_secagg_server *server, const uint32_t *list, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        server->members[list[k]].blame += BLAME / n;
}

/* One unit for those that have wrong shares of this owner, one for those that have none. */
static void find_blame(const opening *o, uint32_t owner)
{
    linnet_secagg_server *server = o->server;
    uint32_t wrong[LINNET_SECAGG_MEMBERS_MAX], silent[LINNET_SECAGG_MEMBERS_MAX], n_wrong = 0, n_silent = 0;
    for (uint32_t k = 0; k < o->n; k++)
        if (o->is_wrong[k])
            wrong[n_wrong++] = o->points[k] - 1;
    for (uint32_t i = 0; i < server->n; i++)
        if (i != owner && server->members[i].has_unmasked && !holds(server, i, owner))
            silent[n_silent++] = i;
    for (uint32_t k = 0; k < n_wrong; k++)
        server->members[wrong[k]].is_wrong = true;
    blame(server, wrong, n_wrong);
    blame(server, silent, n_silent);
}

static linnet_status rebuild(opening *o, uint32_t owner, linnet_scalar *ret_secret)
{
    linnet_status status = rebuild_common(o, owner, ret_secret);
    if (status != LINNET_ERR_CRYPTO)
        return status;
    status = rebuild_decoded(o, owner, ret_secret);
    if (status == LINNET_ERR_CRYPTO)
        status = rebuild_searched(o, owner, ret_secret);
    if (status != LINNET_OK)
        return status;
    find_blame(o, owner);
    return choose_common(o);
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

/* From all secrets. */
static linnet_status make_keys(linnet_secagg_server *server, linnet_error *err)
{
    uint32_t n_u3 = linnet_bitmap_count(server->u3, server->n);
    uint32_t n_dropped = linnet_bitmap_count(server->u2, server->n) - n_u3;
    size_t n_keys = (size_t)n_u3 * (1 + n_dropped);
    linnet_status status = LINNET_OK;
    free(server->keys);
    free(server->signs);
    server->n_keys = 0;
    server->keys = calloc(n_keys, sizeof(*server->keys));
    server->signs = calloc(n_keys, sizeof(*server->signs));
    if (!server->keys || !server->signs)
        return linnet_fail(err, LINNET_ERR_NOMEM, "%zu keys of masks", n_keys);
    for (uint32_t owner = 0; owner < server->n && status == LINNET_OK; owner++) {
        const server_member *m = &server->members[owner];
        if (linnet_bitmap_has(server->u3, owner)) {
            linnet_hash key = linnet_secagg_self_key(&m->secret, &server->t2, &m->member.id);
            add_key(server, &key, 1);
            linnet_wipe(&key, sizeof(key));
        } else if (is_owner(server, owner)) {
            status = add_pair_keys(server, owner, &m->secret, err);
        }
    }
    if (status != LINNET_OK) {
        linnet_wipe(server->keys, server->n_keys * sizeof(*server->keys));
        server->n_keys = 0;
    }
    return status;
}

static linnet_status opening_init(opening *o, linnet_secagg_server *server)
{
    *o = (opening){.server = server};
    o->common.coefficients = calloc(server->n, sizeof(*o->common.coefficients));
    o->all.coefficients = calloc(server->n, sizeof(*o->all.coefficients));
    o->c = calloc(server->n, sizeof(*o->c));
    o->shares = calloc(server->n, sizeof(*o->shares));
    if (!o->common.coefficients || !o->all.coefficients || !o->c || !o->shares)
        return LINNET_ERR_NOMEM;
    return choose_common(o);
}

static void opening_release(opening *o)
{
    if (o->shares)
        linnet_wipe(o->shares, o->server->n * sizeof(*o->shares));
    free(o->common.coefficients);
    free(o->all.coefficients);
    free(o->c);
    free(o->shares);
}

/* Those that an earlier try did not get. */
static linnet_status rebuild_all(opening *o, linnet_secagg_server *server, linnet_error *err)
{
    linnet_status status = opening_init(o, server);
    if (status != LINNET_OK)
        return linnet_fail(err, status, "opening a round of %u members", (unsigned)server->n);
    for (uint32_t owner = 0; owner < server->n; owner++) {
        server_member *m = &server->members[owner];
        if (!is_owner(server, owner) || m->has_secret)
            continue;
        status = rebuild(o, owner, &m->secret);
        if (status == LINNET_ERR_CRYPTO)
            return linnet_fail(err, status, "no %u shares agree on the secret of member %u",
                               (unsigned)server->thresholds.shares, (unsigned)owner);
        if (status != LINNET_OK)
            return linnet_fail(err, status, "the secret of member %u", (unsigned)owner);
        m->has_secret = true;
    }
    return LINNET_OK;
}

static uint32_t count_wrong(const linnet_secagg_server *server)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < server->n; i++)
        n += server->members[i].is_wrong;
    return n;
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
    linnet_status status = rebuild_all(&o, server, err);
    opening_release(&o);
    if (status == LINNET_OK)
        status = make_keys(server, err);
    linnet_stack_wipe();
    if (ret_n_wrong)
        *ret_n_wrong = count_wrong(server);
    if (status != LINNET_OK)
        return status;
    for (uint32_t i = 0; i < server->n; i++)
        linnet_wipe(&server->members[i].secret, sizeof(server->members[i].secret));
    server->phase = LINNET_SERVER_OPENED;
    return LINNET_OK;
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
