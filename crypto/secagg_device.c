/* SPDX-License-Identifier: Apache-2.0 */

/* The device's side of linnet-sa1 (SECURE-AGGREGATION 2.4): M1 to M9 of one round, with every check that its
 * privacy rests on. The machine holds one T1, one T2, one T3 and answers one kind of share for each owner,
 * because each is fixed once and never again; whoever drives it commits its saved form before an output
 * leaves, and so carries "once" over restarts. It knows neither time nor store nor network, and nothing of
 * what is in the vector. */

#include "secagg_cache.h"
#include "secagg_device.h"

#include <sodium.h>
#include <stdlib.h>

const char *linnet_abort_reason_text(linnet_abort_reason reason)
{
    switch (reason) {
    case LINNET_ABORT_ROSTER:
        return "the roster fails a check";
    case LINNET_ABORT_SHARERS:
        return "the list of sharers fails a check";
    case LINNET_ABORT_BOXES:
        return "too many share boxes do not open";
    case LINNET_ABORT_SURVIVORS:
        return "the list of survivors fails a check";
    case LINNET_ABORT_CERTIFICATE:
        return "the certificate fails a check";
    case LINNET_ABORT_EQUIVOCATION:
        return "a second, different message of one phase";
    case LINNET_ABORT_ECHO:
        return "other bytes under the same masks";
    case LINNET_ABORT_TIME:
        return "a deadline passed or the device was restarted";
    case LINNET_ABORT_NONE:
        break;
    }
    return "none";
}

/* ---- memory ---- */

void *linnet_secret_alloc(size_t n, size_t item_bytes)
{
    void *secret = sodium_allocarray(n ? n : 1, item_bytes);
    if (secret)
        sodium_memzero(secret, n * item_bytes);
    return secret;
}

void linnet_secret_free(void *secret)
{
    sodium_free(secret); /* wipes; takes NULL */
}

void linnet_secagg_device_forget(linnet_secagg_device *device)
{
    linnet_secret_free(device->secrets);
    linnet_secret_free(device->received);
    linnet_secret_free(device->mask_keys);
    device->secrets = NULL;
    device->received = NULL;
    device->mask_keys = NULL;
}

/* M9 holds other members' shares. */
static void unmask_wipe(linnet_secagg_device *device)
{
    if (device->unmask.bytes)
        linnet_wipe(device->unmask.bytes, device->unmask.capacity);
    linnet_buffer_release(&device->unmask);
}

void linnet_secagg_device_destroy(linnet_secagg_device *device)
{
    if (!device)
        return;
    linnet_secagg_device_forget(device);
    unmask_wipe(device);
    free(device->members);
    linnet_buffer_release(&device->shares);
    linnet_buffer_release(&device->complaints);
    linnet_wipe(device, sizeof(*device));
    free(device);
}

linnet_status linnet_secagg_device_alloc(const linnet_secagg_params *params, const linnet_identity *identity,
                                         linnet_secagg_device **ret_device, linnet_error *err)
{
    linnet_status status = linnet_secagg_params_check(params, err);
    if (status != LINNET_OK)
        return status;
    linnet_secagg_device *device = calloc(1, sizeof(*device));
    if (device)
        device->secrets = linnet_secret_alloc(1, sizeof(*device->secrets));
    if (!device || !device->secrets) {
        linnet_secagg_device_destroy(device);
        return linnet_fail(err, LINNET_ERR_NOMEM, "round secrets");
    }
    device->params = *params;
    device->identity = identity;
    device->id = linnet_device_id_of(linnet_identity_public_key(identity));
    *ret_device = device;
    return LINNET_OK;
}

/* ---- M1 ---- */

static void make_advert(linnet_secagg_device *device, const uint8_t *certificate)
{
    uint8_t *p = device->advert;
    device_secrets *secrets = device->secrets;
    const linnet_hash *a = &device->params.announcement;
    memcpy(p, a->bytes, LINNET_HASH_BYTES);
    memcpy(p + ADVERT_ID, device->id.bytes, LINNET_DEVICE_ID_BYTES);
    linnet_secagg_kx_pair(&secrets->r_s, a, &device->id, secrets->sk_x, p + ADVERT_PK_X);
    linnet_x25519_draw(secrets->sk_e, p + ADVERT_PK_E);
    linnet_hash commitment = linnet_secagg_self_commitment(&secrets->r_b, a, &device->id);
    memcpy(p + ADVERT_COMMITMENT, commitment.bytes, LINNET_HASH_BYTES);
    linnet_random_bytes(p + ADVERT_NONCE, 16);
    linnet_signature signature =
        linnet_sign(device->identity, LINNET_LABEL_ADVERT, p, LINNET_ADVERT_BODY_BYTES);
    memcpy(p + ADVERT_SIGNATURE, signature.bytes, sizeof(signature.bytes));
    memcpy(p + ADVERT_CERTIFICATE, certificate, LINNET_SIGNED_CERTIFICATE_BYTES);
}

linnet_status linnet_secagg_device_create(const linnet_secagg_params *params, const linnet_identity *identity,
                                          const uint8_t *certificate, linnet_secagg_device **ret_device,
                                          linnet_error *err)
{
    linnet_secagg_device *device = NULL;
    linnet_status status = linnet_secagg_device_alloc(params, identity, &device, err);
    if (status != LINNET_OK)
        return status;
    linnet_scalar_draw(linnet_system_random, NULL, &device->secrets->r_s);
    linnet_scalar_draw(linnet_system_random, NULL, &device->secrets->r_b);
    make_advert(device, certificate);
    linnet_stack_wipe();
    device->phase = LINNET_SECAGG_ADVERTISED;
    *ret_device = device;
    return LINNET_OK;
}

/* ---- aborting ---- */

static void set_aborted(linnet_secagg_device *device, linnet_abort_reason reason)
{
    linnet_secagg_device_forget(device);
    unmask_wipe(device);
    device->phase = LINNET_SECAGG_ABORTED;
    device->reason = reason;
}

/* A message failed a check: memory is no such failure. What is already answered stays answered. */
static linnet_status refuse(linnet_secagg_device *device, linnet_status status, linnet_abort_reason reason)
{
    if (status != LINNET_ERR_NOMEM && device->phase < LINNET_SECAGG_RELEASED)
        set_aborted(device, reason);
    return status;
}

void linnet_secagg_device_abort(linnet_secagg_device *device, linnet_abort_reason reason,
                                uint8_t ret_message[LINNET_ABORT_BYTES])
{
    if (device->phase != LINNET_SECAGG_ABORTED)
        set_aborted(device, reason);
    memcpy(ret_message, device->params.announcement.bytes, LINNET_HASH_BYTES);
    memcpy(ret_message + LINNET_HASH_BYTES, device->id.bytes, LINNET_DEVICE_ID_BYTES);
    ret_message[MESSAGE_HEAD_BYTES] = (uint8_t)device->reason;
    linnet_signature signature =
        linnet_sign(device->identity, LINNET_LABEL_ABORT, ret_message, MESSAGE_HEAD_BYTES + 1);
    memcpy(ret_message + MESSAGE_HEAD_BYTES + 1, signature.bytes, sizeof(signature.bytes));
}

/* ---- M2: the roster ---- */

typedef struct roster {
    uint32_t n;
    int64_t index;                 /* of this device, -1: not there */
    linnet_secagg_member *members; /* owned */
    linnet_hash t1;
} roster;

/* Length, then the coordinator's signature over T1, before anything else is read. */
static linnet_status roster_open(const linnet_secagg_device *device, const uint8_t *bytes, size_t n_bytes,
                                 roster *r, linnet_error *err)
{
    linnet_signature signature;
    if (n_bytes < ROSTER_HEAD_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "roster: cut short");
    memcpy(signature.bytes, bytes, sizeof(signature.bytes));
    r->n = linnet_load_le32(bytes + LINNET_SIGNATURE_BYTES);
    if (r->n < device->params.n_min || r->n > device->params.n_max)
        return linnet_fail(err, LINNET_ERR_RANGE, "roster: %u members, announced were %u to %u",
                           (unsigned)r->n, (unsigned)device->params.n_min, (unsigned)device->params.n_max);
    linnet_secagg_thresholds thresholds = linnet_secagg_thresholds_of(&device->params, r->n);
    if (r->n < thresholds.sharers_min)
        return linnet_fail(err, LINNET_ERR_RANGE, "roster: %u members, %u would have to share",
                           (unsigned)r->n, (unsigned)thresholds.sharers_min);
    if (n_bytes != ROSTER_HEAD_BYTES + (size_t)r->n * LINNET_ADVERT_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "roster: of another length than %u members have",
                           (unsigned)r->n);
    linnet_hash *leaves = calloc(r->n, sizeof(*leaves));
    if (!leaves)
        return linnet_fail(err, LINNET_ERR_NOMEM, "roster of %u members", (unsigned)r->n);
    for (uint32_t i = 0; i < r->n; i++)
        leaves[i] = linnet_secagg_leaf(bytes + ROSTER_HEAD_BYTES + (size_t)i * LINNET_ADVERT_BYTES);
    r->t1 = linnet_secagg_t1(&device->params.announcement, leaves, r->n);
    free(leaves);
    if (linnet_verify_hash(&device->params.coordinator, &r->t1, &signature) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "roster: not signed by the coordinator");
    return LINNET_OK;
}

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, 32);
}

/* The 2 n keys of a roster are pairwise different. */
static linnet_status keys_differ(const roster *r, linnet_error *err)
{
    uint8_t(*keys)[32] = calloc((size_t)2 * r->n, 32);
    bool differ = true;
    if (!keys)
        return linnet_fail(err, LINNET_ERR_NOMEM, "roster of %u members", (unsigned)r->n);
    for (uint32_t i = 0; i < r->n; i++) {
        memcpy(keys[2 * i], r->members[i].pk_x, 32);
        memcpy(keys[2 * i + 1], r->members[i].pk_e, 32);
    }
    qsort(keys, (size_t)2 * r->n, 32, compare_keys);
    for (size_t i = 1; i < (size_t)2 * r->n; i++)
        differ = differ && memcmp(keys[i - 1], keys[i], 32) != 0;
    free(keys);
    return differ ? LINNET_OK : linnet_fail(err, LINNET_ERR_CRYPTO, "roster: two members have one key");
}

/* Everybody checks everybody: certificates, signatures, keys, ids that grow. */
static linnet_status members_check(const linnet_secagg_device *device, const linnet_secagg_trust *trust,
                                   const uint8_t *adverts, roster *r, linnet_error *err)
{
    for (uint32_t i = 0; i < r->n; i++) {
        linnet_status status =
            linnet_secagg_advert_open(adverts + (size_t)i * LINNET_ADVERT_BYTES, &device->params.announcement,
                                      trust, &r->members[i], err);
        if (status != LINNET_OK)
            return linnet_error_prefix(err, status, "roster, member %u", (unsigned)i);
        if (i > 0 && memcmp(r->members[i - 1].id.bytes, r->members[i].id.bytes, LINNET_DEVICE_ID_BYTES) >= 0)
            return linnet_fail(err, LINNET_ERR_FORMAT, "roster: not in the order of its ids");
    }
    linnet_status status = keys_differ(r, err);
    if (status == LINNET_OK)
        linnet_secagg_cache_keep_roster(trust->cache, &r->t1, r->members, r->n);
    return status;
}

/* The members, and oneself among them, once and unchanged. */
static linnet_status roster_check(const linnet_secagg_device *device, const linnet_secagg_trust *trust,
                                  const uint8_t *adverts, roster *r, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    r->index = -1;
    r->members = calloc(r->n, sizeof(*r->members));
    if (!r->members)
        return linnet_fail(err, LINNET_ERR_NOMEM, "roster of %u members", (unsigned)r->n);
    if (!linnet_secagg_cache_find_roster(trust->cache, &r->t1, r->members, r->n))
        status = members_check(device, trust, adverts, r, err);
    for (uint32_t i = 0; i < r->n && status == LINNET_OK; i++) {
        if (memcmp(r->members[i].id.bytes, device->id.bytes, LINNET_DEVICE_ID_BYTES) != 0)
            continue;
        r->index = i;
        if (memcmp(adverts + (size_t)i * LINNET_ADVERT_BYTES, device->advert, LINNET_ADVERT_BYTES) != 0)
            status = linnet_fail(err, LINNET_ERR_MISMATCH, "roster: another advert of this device");
    }
    if (status == LINNET_OK && r->index < 0)
        status = linnet_fail(err, LINNET_ERR_MISMATCH, "roster: this device is not in it");
    return status;
}

/* ---- M3: the shares ---- */

static linnet_status append_boxes(const linnet_secagg_device *device, const roster *r,
                                  const linnet_scalar *s_shares, const linnet_scalar *b_shares,
                                  linnet_buffer *message, linnet_error *err)
{
    for (uint32_t j = 0; j < r->n; j++) {
        linnet_share_box_key key;
        uint8_t nonce[24], box[LINNET_SHARE_BOX_BYTES];
        uint32_t self = (uint32_t)r->index;
        if (j == self)
            continue;
        if (linnet_share_box_key_derive(device->secrets->sk_e, r->members[j].pk_e, &r->t1, self, j, &key) !=
            LINNET_OK)
            return linnet_fail(err, LINNET_ERR_CRYPTO, "roster: the key of member %u is of small order",
                               (unsigned)j);
        uint32_t slot = linnet_secagg_slot(j, self);
        linnet_random_bytes(nonce, sizeof(nonce));
        linnet_share_box_seal(&key, nonce, &s_shares[slot], &b_shares[slot], box);
        linnet_wipe(&key, sizeof(key));
        linnet_buffer_append(message, box, sizeof(box));
    }
    return LINNET_OK;
}

/* Both secrets, shared among all others at x = index + 1. */
static linnet_status share_secrets(const linnet_secagg_device *device, const roster *r, uint32_t threshold,
                                   linnet_scalar *s_shares, linnet_scalar *b_shares, linnet_error *err)
{
    uint32_t *points = calloc(r->n, sizeof(*points));
    if (!points)
        return linnet_fail(err, LINNET_ERR_NOMEM, "shares for %u members", (unsigned)r->n);
    for (uint32_t j = 0; j < r->n; j++)
        if (j != r->index)
            points[linnet_secagg_slot(j, (uint32_t)r->index)] = j + 1;
    linnet_status status = linnet_shamir_share(&device->secrets->r_s, threshold, points, r->n - 1,
                                               linnet_system_random, NULL, s_shares);
    if (status == LINNET_OK)
        status = linnet_shamir_share(&device->secrets->r_b, threshold, points, r->n - 1, linnet_system_random,
                                     NULL, b_shares);
    free(points);
    return status == LINNET_OK ? LINNET_OK
                               : linnet_fail(err, status, "sharing among %u members", (unsigned)r->n);
}

static linnet_status make_shares(const linnet_secagg_device *device, const roster *r, linnet_buffer *message,
                                 linnet_error *err)
{
    linnet_secagg_thresholds thresholds = linnet_secagg_thresholds_of(&device->params, r->n);
    linnet_scalar *shares = linnet_secret_alloc((size_t)2 * r->n, sizeof(*shares));
    if (!shares || !linnet_buffer_reserve(message, linnet_secagg_shares_bytes(r->n))) {
        linnet_secret_free(shares);
        return linnet_fail(err, LINNET_ERR_NOMEM, "shares for %u members", (unsigned)r->n);
    }
    linnet_buffer_append(message, r->t1.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(message, device->id.bytes, LINNET_DEVICE_ID_BYTES);
    linnet_status status = share_secrets(device, r, thresholds.shares, shares, shares + r->n, err);
    if (status == LINNET_OK)
        status = append_boxes(device, r, shares, shares + r->n, message, err);
    linnet_secret_free(shares);
    if (status != LINNET_OK)
        return status;
    linnet_signature signature =
        linnet_sign(device->identity, LINNET_LABEL_SHARE, message->bytes, message->n_bytes);
    linnet_buffer_append(message, signature.bytes, sizeof(signature.bytes));
    return LINNET_OK;
}

/* A roster after the first one: the same, or the coordinator told two stories. */
static linnet_status compare_again(linnet_secagg_device *device, const linnet_hash *known,
                                   const linnet_hash *again, const char *what, linnet_error *err)
{
    if (linnet_hash_equal(known, again))
        return LINNET_OK;
    (void)linnet_fail(err, LINNET_ERR_CONFLICT,
                      "a second, different %s: keep the state directory as evidence", what);
    return refuse(device, LINNET_ERR_CONFLICT, LINNET_ABORT_EQUIVOCATION);
}

static linnet_status not_now(const char *what, linnet_error *err)
{
    return linnet_fail(err, LINNET_ERR_ARG, "not the time for a %s", what);
}

linnet_status linnet_secagg_device_take_roster(linnet_secagg_device *device, const linnet_secagg_trust *trust,
                                               const void *m2, size_t n_bytes, linnet_error *err)
{
    roster r = {0};
    linnet_buffer message = {0};
    if (device->phase < LINNET_SECAGG_ADVERTISED || device->phase > LINNET_SECAGG_RELEASED)
        return not_now("roster", err);
    linnet_status status = roster_open(device, m2, n_bytes, &r, err);
    if (status == LINNET_OK && device->phase != LINNET_SECAGG_ADVERTISED)
        return compare_again(device, &device->t1, &r.t1, "roster", err);
    if (status == LINNET_OK)
        status = roster_check(device, trust, (const uint8_t *)m2 + ROSTER_HEAD_BYTES, &r, err);
    if (status == LINNET_OK)
        status = make_shares(device, &r, &message, err);
    linnet_stack_wipe();
    if (status != LINNET_OK) {
        free(r.members);
        linnet_buffer_release(&message);
        return refuse(device, status, LINNET_ABORT_ROSTER);
    }
    device->n = r.n;
    device->index = (uint32_t)r.index;
    device->members = r.members; /* moves */
    device->cache = trust->cache;
    device->t1 = r.t1;
    device->thresholds = linnet_secagg_thresholds_of(&device->params, r.n);
    device->shares = message; /* moves */
    device->phase = LINNET_SECAGG_SHARED;
    return LINNET_OK;
}

/* ---- M4: the sharers ---- */

static linnet_status sharers_open(const linnet_secagg_device *device, linnet_reader *reader,
                                  const uint8_t **ret_bitmap, linnet_hash *ret_t2, linnet_error *err)
{
    linnet_signature signature;
    const uint8_t *sig = linnet_reader_take(reader, LINNET_SIGNATURE_BYTES);
    const uint8_t *bitmap = linnet_reader_take(reader, linnet_bitmap_bytes(device->n));
    if (reader->failed || linnet_bitmap_check(bitmap, device->n) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT, "sharers: malformed");
    memcpy(signature.bytes, sig, sizeof(signature.bytes));
    linnet_hash t2 = linnet_secagg_t2(&device->t1, bitmap, device->n);
    if (linnet_verify_hash(&device->params.coordinator, &t2, &signature) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "sharers: not signed by the coordinator");
    *ret_bitmap = bitmap;
    *ret_t2 = t2;
    return LINNET_OK;
}

static linnet_status sharers_check(const linnet_secagg_device *device, const uint8_t *bitmap, size_t n_boxes,
                                   linnet_error *err)
{
    uint32_t count = linnet_bitmap_count(bitmap, device->n);
    if (!linnet_bitmap_has(bitmap, device->index))
        return linnet_fail(err, LINNET_ERR_MISMATCH, "sharers: this device is not among them");
    if (count < device->thresholds.sharers_min)
        return linnet_fail(err, LINNET_ERR_RANGE, "sharers: %u of %u, fewer than the %u that keep a secret",
                           (unsigned)count, (unsigned)device->n, (unsigned)device->thresholds.sharers_min);
    if (n_boxes != (size_t)(count - 1) * LINNET_SHARE_BOX_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "sharers: %zu bytes of boxes for %u members", n_boxes,
                           (unsigned)count);
    return LINNET_OK;
}

static void complain(linnet_secagg_device *device, uint32_t about)
{
    uint8_t message[LINNET_COMPLAINT_BYTES];
    memcpy(message, device->t2.bytes, LINNET_HASH_BYTES);
    memcpy(message + LINNET_HASH_BYTES, device->id.bytes, LINNET_DEVICE_ID_BYTES);
    linnet_store_le32(message + MESSAGE_HEAD_BYTES, about);
    linnet_signature signature =
        linnet_sign(device->identity, LINNET_LABEL_COMPLAINT, message, MESSAGE_HEAD_BYTES + 4);
    memcpy(message + MESSAGE_HEAD_BYTES + 4, signature.bytes, sizeof(signature.bytes));
    linnet_buffer_append(&device->complaints, message, sizeof(message));
}

/* A box that does not open is no reason to abort: one bad peer could then knock out everybody. More than C of
 * them are: the coordinator has probably shown different rosters. */
static linnet_status open_boxes(linnet_secagg_device *device, const uint8_t *boxes, linnet_error *err)
{
    uint32_t n_failed = 0;
    for (uint32_t j = 0; j < device->n; j++) {
        linnet_share_box_key key;
        share_pair *into = &device->received[j];
        if (j == device->index || !linnet_bitmap_has(device->u2, j))
            continue;
        linnet_status status = linnet_share_box_key_derive(device->secrets->sk_e, device->members[j].pk_e,
                                                           &device->t1, j, device->index, &key);
        if (status == LINNET_OK)
            status = linnet_share_box_open(&key, boxes, &into->s, &into->b);
        linnet_wipe(&key, sizeof(key));
        boxes += LINNET_SHARE_BOX_BYTES;
        if (status == LINNET_OK)
            continue;
        linnet_bitmap_set(device->missing, j);
        complain(device, j);
        n_failed++;
    }
    if (n_failed > device->thresholds.corrupt)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "sharers: %u boxes do not open, more than the %u expected",
                           (unsigned)n_failed, (unsigned)device->thresholds.corrupt);
    return device->complaints.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "complaints") : LINNET_OK;
}

static void derive_self_key(const linnet_secagg_device *device, linnet_hash *ret_key)
{
    linnet_hash key = linnet_secagg_self_key(&device->secrets->r_b, &device->t2, &device->id);
    *ret_key = key;
    linnet_wipe(&key, sizeof(key));
}

linnet_status linnet_secagg_device_derive_masks(linnet_secagg_device *device, linnet_error *err)
{
    const device_secrets *secrets = device->secrets;
    const uint8_t *own = device->advert + ADVERT_PK_X;
    device->mask_keys = linnet_secret_alloc(device->n, sizeof(*device->mask_keys));
    if (!device->mask_keys)
        return linnet_fail(err, LINNET_ERR_NOMEM, "mask keys");
    for (uint32_t j = 0; j < device->n; j++) {
        if (!linnet_bitmap_has(device->u2, j))
            continue;
        if (j == device->index)
            derive_self_key(device, &device->mask_keys[j]);
        else if (linnet_secagg_pair_key(secrets->sk_x, own, device->members[j].pk_x, &device->t2,
                                        &device->mask_keys[j]) != LINNET_OK)
            return linnet_fail(err, LINNET_ERR_CRYPTO, "the key of member %u is of small order", (unsigned)j);
    }
    return LINNET_OK;
}

/* Back to how it was before an M4 that there was no memory for. */
static void sharers_undo(linnet_secagg_device *device)
{
    linnet_secret_free(device->received);
    linnet_secret_free(device->mask_keys);
    device->received = NULL;
    device->mask_keys = NULL;
    linnet_buffer_release(&device->complaints);
    memset(device->missing, 0, sizeof(device->missing));
}

linnet_status linnet_secagg_device_take_sharers(linnet_secagg_device *device, const void *m4, size_t n_bytes,
                                                linnet_error *err)
{
    linnet_reader reader = linnet_reader_of(m4, n_bytes);
    const uint8_t *bitmap = NULL;
    linnet_hash t2;
    if (device->phase < LINNET_SECAGG_SHARED || device->phase > LINNET_SECAGG_RELEASED)
        return not_now("list of sharers", err);
    linnet_status status = sharers_open(device, &reader, &bitmap, &t2, err);
    if (status == LINNET_OK && device->phase != LINNET_SECAGG_SHARED)
        return compare_again(device, &device->t2, &t2, "list of sharers", err);
    if (status == LINNET_OK)
        status = sharers_check(device, bitmap, n_bytes - reader.at, err);
    if (status != LINNET_OK)
        return refuse(device, status, LINNET_ABORT_SHARERS);
    memcpy(device->u2, bitmap, linnet_bitmap_bytes(device->n));
    device->t2 = t2;
    device->received = linnet_secret_alloc(device->n, sizeof(*device->received));
    status = device->received ? open_boxes(device, (const uint8_t *)m4 + reader.at, err)
                              : linnet_fail(err, LINNET_ERR_NOMEM, "received shares");
    if (status == LINNET_OK)
        status = linnet_secagg_device_derive_masks(device, err);
    linnet_stack_wipe();
    if (status != LINNET_OK) {
        sharers_undo(device);
        return refuse(device, status, LINNET_ABORT_BOXES);
    }
    device->phase = LINNET_SECAGG_MASKING;
    return LINNET_OK;
}

/* ---- M5: the masks ---- */

linnet_status linnet_secagg_device_mask(const linnet_secagg_device *device, uint32_t index, uint64_t first,
                                        size_t n, uint8_t *packed, linnet_error *err)
{
    uint32_t sum[LINNET_PACK_CHUNK] = {0};
    if (device->phase != LINNET_SECAGG_MASKING || index >= device->params.n_vectors ||
        first % LINNET_PACK_CHUNK != 0 || n < 1 || n > LINNET_PACK_CHUNK)
        return linnet_fail(err, LINNET_ERR_ARG, "no mask for this part of vector %u", (unsigned)index);
    const linnet_secagg_vector *v = &device->params.vectors[index];
    if (first >= v->length || n > v->length - first)
        return linnet_fail(err, LINNET_ERR_ARG, "vector %u ends before this part", (unsigned)index);
    linnet_pack_add(v->bits, packed, n, sum);
    for (uint32_t j = 0; j < device->n; j++) {
        if (!linnet_bitmap_has(device->u2, j))
            continue;
        if (device->index <= j) /* the self mask counts +1 too */
            linnet_mask_add(&device->mask_keys[j], v->id, v->bits, first, n, sum);
        else
            linnet_mask_subtract(&device->mask_keys[j], v->id, v->bits, first, n, sum);
    }
    linnet_pack(v->bits, sum, n, packed);
    linnet_stack_wipe();
    return LINNET_OK;
}

linnet_status linnet_secagg_device_fix_echo(linnet_secagg_device *device, const linnet_hash *echo,
                                            const linnet_signature *header_signature, linnet_error *err)
{
    if (device->phase != LINNET_SECAGG_MASKING)
        return not_now("masked vector", err);
    if (device->has_echo &&
        (!linnet_hash_equal(&device->echo, echo) ||
         memcmp(device->header_signature.bytes, header_signature->bytes, LINNET_SIGNATURE_BYTES) != 0)) {
        (void)linnet_fail(err, LINNET_ERR_CONFLICT, "other bytes, or another header, under the same masks");
        return refuse(device, LINNET_ERR_CONFLICT, LINNET_ABORT_ECHO);
    }
    device->echo = *echo;
    device->header_signature = *header_signature;
    device->has_echo = true;
    return LINNET_OK;
}

/* ---- M6 and M7: survivors, attestation ---- */

/* Is this device in the list with exactly its own upload? */
static bool lists_own_upload(const linnet_secagg_device *device, const linnet_survivors *s)
{
    const uint8_t *entry = s->list;
    for (uint32_t j = 0; j < device->index; j++)
        entry += linnet_bitmap_has(s->bitmap, j) ? SURVIVOR_BYTES : 0;
    return device->has_echo && memcmp(entry, device->echo.bytes, LINNET_HASH_BYTES) == 0 &&
           memcmp(entry + LINNET_HASH_BYTES, device->header_signature.bytes, LINNET_SIGNATURE_BYTES) == 0;
}

/* Take an M6 apart, or the one in front of an M8. Only what the coordinator has signed is compared with
 * anything: a second set is evidence against nobody else. */
static linnet_status survivors_open(const linnet_secagg_device *device, const void *bytes, size_t n_bytes,
                                    bool is_whole, linnet_survivors *s, linnet_error *err)
{
    linnet_status status = linnet_survivors_parse(bytes, n_bytes, device->n, &device->t2, is_whole, s, err);
    if (status == LINNET_OK &&
        linnet_verify_hash(&device->params.coordinator, &s->t3, &s->signature) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "survivors: not signed by the coordinator");
    return status;
}

/* Everything about a survivor set but whether this device is in it. */
static linnet_status survivors_check(const linnet_secagg_device *device, const linnet_survivors *s,
                                     linnet_error *err)
{
    for (size_t i = 0; i < linnet_bitmap_bytes(device->n); i++)
        if (s->bitmap[i] & ~device->u2[i])
            return linnet_fail(err, LINNET_ERR_MISMATCH, "survivors: one of them never shared");
    if (s->n_survivors < device->thresholds.survivors_min)
        return linnet_fail(err, LINNET_ERR_RANGE, "survivors: %u of %u, fewer than the %u agreed",
                           (unsigned)s->n_survivors, (unsigned)device->n,
                           (unsigned)device->thresholds.survivors_min);
    if (linnet_bitmap_has(s->bitmap, device->index) && !lists_own_upload(device, s))
        return linnet_fail(err, LINNET_ERR_MISMATCH, "survivors: they list another upload of this device");
    return LINNET_OK;
}

static void fix_survivors(linnet_secagg_device *device, const linnet_survivors *s)
{
    uint8_t *p = device->attestation;
    device->t3 = s->t3;
    memcpy(device->u3, s->bitmap, linnet_bitmap_bytes(device->n));
    memcpy(p, s->t3.bytes, LINNET_HASH_BYTES);
    memcpy(p + LINNET_HASH_BYTES, device->id.bytes, LINNET_DEVICE_ID_BYTES);
    linnet_signature signature =
        linnet_sign(device->identity, LINNET_LABEL_ATTEST, s->t3.bytes, LINNET_HASH_BYTES);
    memcpy(p + MESSAGE_HEAD_BYTES, signature.bytes, sizeof(signature.bytes));
}

linnet_status linnet_secagg_device_take_survivors(linnet_secagg_device *device, const void *m6,
                                                  size_t n_bytes, linnet_error *err)
{
    linnet_survivors s;
    bool is_open = device->phase == LINNET_SECAGG_MASKING && device->has_echo;
    if (!is_open && device->phase != LINNET_SECAGG_ATTESTED && device->phase != LINNET_SECAGG_RELEASED)
        return not_now("list of survivors", err);
    linnet_status status = survivors_open(device, m6, n_bytes, true, &s, err);
    if (status == LINNET_OK && !is_open)
        return compare_again(device, &device->t3, &s.t3, "list of survivors", err);
    if (status == LINNET_OK)
        status = survivors_check(device, &s, err);
    if (status == LINNET_OK && !linnet_bitmap_has(s.bitmap, device->index))
        status = linnet_fail(err, LINNET_ERR_MISMATCH, "survivors: this device is not among them");
    if (status != LINNET_OK)
        return refuse(device, status, LINNET_ABORT_SURVIVORS);
    fix_survivors(device, &s);
    device->phase = LINNET_SECAGG_ATTESTED;
    return LINNET_OK;
}

/* ---- M8 and M9: certificate, unmasking ---- */

/* At least q different survivors signed this T3, each with the key of this device's own roster. */
static linnet_status attestations_check(const linnet_secagg_device *device, const linnet_survivors *s,
                                        const uint8_t *bytes, size_t n_bytes, linnet_error *err)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    uint32_t count = linnet_reader_le32(&reader);
    int64_t last = -1;
    if (linnet_secagg_cache_has_certificate(device->cache, &device->t1, &s->t3, bytes, n_bytes))
        return LINNET_OK;
    if (reader.failed || (uint64_t)count * ATTEST_ENTRY_BYTES != n_bytes - reader.at)
        return linnet_fail(err, LINNET_ERR_FORMAT, "certificate: malformed");
    if (count < device->thresholds.signatures)
        return linnet_fail(err, LINNET_ERR_RANGE, "certificate: %u signatures, at least %u are needed",
                           (unsigned)count, (unsigned)device->thresholds.signatures);
    for (uint32_t i = 0; i < count; i++) {
        linnet_signature signature;
        uint32_t signer = linnet_reader_le32(&reader);
        const uint8_t *sig = linnet_reader_take(&reader, LINNET_SIGNATURE_BYTES);
        if (!sig || signer >= device->n || (int64_t)signer <= last || !linnet_bitmap_has(s->bitmap, signer))
            return linnet_fail(err, LINNET_ERR_FORMAT,
                               "certificate: a signer twice, or outside the survivors");
        last = signer;
        memcpy(signature.bytes, sig, sizeof(signature.bytes));
        if (linnet_verify(&device->members[signer].key, LINNET_LABEL_ATTEST, s->t3.bytes, LINNET_HASH_BYTES,
                          &signature) != LINNET_OK)
            return linnet_fail(err, LINNET_ERR_CRYPTO, "certificate: the signature of member %u is wrong",
                               (unsigned)signer);
    }
    linnet_secagg_cache_keep_certificate(device->cache, &device->t1, &s->t3, bytes, n_bytes);
    return LINNET_OK;
}

/* One entry for each other sharer: b_share of a survivor, s_share of a drop-out, decided by the one
 * bitmap. */
static linnet_status make_unmask(linnet_secagg_device *device, const uint8_t *u3, const linnet_hash *t3,
                                 linnet_error *err)
{
    linnet_buffer *m = &device->unmask;
    uint32_t n_others = linnet_bitmap_count(device->u2, device->n) - 1;
    if (!linnet_buffer_reserve(m, MESSAGE_HEAD_BYTES + (size_t)n_others * UNMASK_ENTRY_BYTES +
                                      LINNET_SIGNATURE_BYTES))
        return linnet_fail(err, LINNET_ERR_NOMEM, "unmasking");
    linnet_buffer_append(m, t3->bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(m, device->id.bytes, LINNET_DEVICE_ID_BYTES);
    for (uint32_t j = 0; j < device->n; j++) {
        bool is_missing = linnet_bitmap_has(device->missing, j), survives = linnet_bitmap_has(u3, j);
        if (j == device->index || !linnet_bitmap_has(device->u2, j))
            continue;
        const share_pair *pair = &device->received[j]; /* zeros where missing */
        linnet_buffer_append_u8(m, is_missing ? UNMASK_MISSING : survives ? UNMASK_SELF : UNMASK_PAIR);
        linnet_buffer_append(m, survives ? pair->b.bytes : pair->s.bytes, LINNET_SCALAR_BYTES);
    }
    linnet_signature signature = linnet_sign(device->identity, LINNET_LABEL_UNMASK, m->bytes, m->n_bytes);
    linnet_buffer_append(m, signature.bytes, sizeof(signature.bytes));
    return LINNET_OK;
}

linnet_status linnet_secagg_device_take_certificate(linnet_secagg_device *device, const void *m8,
                                                    size_t n_bytes, linnet_error *err)
{
    linnet_survivors s;
    if (device->phase < LINNET_SECAGG_MASKING || device->phase > LINNET_SECAGG_RELEASED)
        return not_now("certificate", err);
    linnet_status status = survivors_open(device, m8, n_bytes, false, &s, err);
    if (status == LINNET_OK && device->phase != LINNET_SECAGG_MASKING &&
        !linnet_hash_equal(&s.t3, &device->t3))
        return compare_again(device, &device->t3, &s.t3, "certificate", err);
    if (status == LINNET_OK && device->phase == LINNET_SECAGG_RELEASED)
        return LINNET_OK;
    if (status == LINNET_OK)
        status = survivors_check(device, &s, err);
    if (status == LINNET_OK)
        status = attestations_check(device, &s, (const uint8_t *)m8 + s.n_bytes, n_bytes - s.n_bytes, err);
    if (status == LINNET_OK && linnet_bitmap_has(s.bitmap, device->index))
        status = make_unmask(device, s.bitmap, &s.t3, err);
    linnet_stack_wipe();
    if (status != LINNET_OK)
        return refuse(device, status, LINNET_ABORT_CERTIFICATE);
    fix_survivors(device, &s); /* adopted, where nothing was attested yet */
    device->phase =
        linnet_bitmap_has(s.bitmap, device->index) ? LINNET_SECAGG_RELEASED : LINNET_SECAGG_EXCLUDED;
    linnet_secagg_device_forget(device);
    return LINNET_OK;
}

/* ---- what was made ---- */

linnet_secagg_phase linnet_secagg_device_phase(const linnet_secagg_device *device)
{
    return device->phase;
}

linnet_abort_reason linnet_secagg_device_abort_reason(const linnet_secagg_device *device)
{
    return device->reason;
}

static const uint8_t *lend(const void *bytes, size_t n_bytes, bool is_there, size_t *ret_n)
{
    *ret_n = is_there ? n_bytes : 0;
    return is_there ? bytes : NULL;
}

const uint8_t *linnet_secagg_device_advert(const linnet_secagg_device *device, size_t *ret_n)
{
    return lend(device->advert, sizeof(device->advert), device->phase <= LINNET_SECAGG_RELEASED, ret_n);
}

static bool is_in(const linnet_secagg_device *device, linnet_secagg_phase from)
{
    return device->phase >= from && device->phase <= LINNET_SECAGG_RELEASED;
}

const uint8_t *linnet_secagg_device_shares(const linnet_secagg_device *device, size_t *ret_n)
{
    return lend(device->shares.bytes, device->shares.n_bytes, is_in(device, LINNET_SECAGG_SHARED), ret_n);
}

const uint8_t *linnet_secagg_device_attestation(const linnet_secagg_device *device, size_t *ret_n)
{
    return lend(device->attestation, sizeof(device->attestation), is_in(device, LINNET_SECAGG_ATTESTED),
                ret_n);
}

const uint8_t *linnet_secagg_device_unmask(const linnet_secagg_device *device, size_t *ret_n)
{
    return lend(device->unmask.bytes, device->unmask.n_bytes, device->phase == LINNET_SECAGG_RELEASED, ret_n);
}

const uint8_t *linnet_secagg_device_complaints(const linnet_secagg_device *device, size_t *ret_n)
{
    return lend(device->complaints.bytes, device->complaints.n_bytes, device->complaints.n_bytes > 0, ret_n);
}

const linnet_hash *linnet_secagg_device_t1(const linnet_secagg_device *device)
{
    return is_in(device, LINNET_SECAGG_SHARED) ? &device->t1 : NULL;
}

const linnet_hash *linnet_secagg_device_t2(const linnet_secagg_device *device)
{
    return is_in(device, LINNET_SECAGG_MASKING) ? &device->t2 : NULL;
}

const linnet_hash *linnet_secagg_device_t3(const linnet_secagg_device *device)
{
    return is_in(device, LINNET_SECAGG_ATTESTED) ? &device->t3 : NULL;
}

const linnet_hash *linnet_secagg_device_echo(const linnet_secagg_device *device)
{
    return device->has_echo ? &device->echo : NULL;
}

uint32_t linnet_secagg_device_members(const linnet_secagg_device *device)
{
    return device->n;
}

uint32_t linnet_secagg_device_survivors(const linnet_secagg_device *device)
{
    return linnet_bitmap_count(device->u3, device->n);
}
