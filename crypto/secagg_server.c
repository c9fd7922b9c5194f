/* SPDX-License-Identifier: Apache-2.0 */

/* The coordinator's side of linnet-sa1 (SECURE-AGGREGATION 2.4): takes messages, fixes roster, sharers and
 * survivors, and makes what goes to the devices. Every message is checked before it counts; `commit` parts
 * the check from the counting, so that the caller's store comes in between. Once a set is fixed nothing moves
 * it. Left out: time, retries and storage, which are the round machine's, and the boxes of M3, which the
 * machine checks and then reads back from there. */

#include "secagg_server.h"

#include <stdlib.h>

linnet_status linnet_secagg_server_create(const linnet_secagg_params *params, const linnet_identity *identity,
                                          linnet_secagg_server **ret_server, linnet_error *err)
{
    linnet_status status = linnet_secagg_params_check(params, err);
    if (status != LINNET_OK)
        return status;
    linnet_secagg_server *server = calloc(1, sizeof(*server));
    if (!server)
        return linnet_fail(err, LINNET_ERR_NOMEM, "secure aggregation");
    server->params = *params;
    server->identity = identity;
    server->phase = LINNET_SERVER_OPEN;
    *ret_server = server;
    return LINNET_OK;
}

/* Bytes of the entries in one unmasking. */
static size_t entries_bytes(const linnet_secagg_server *server)
{
    return (size_t)(linnet_bitmap_count(server->u2, server->n) - 1) * UNMASK_ENTRY_BYTES;
}

void linnet_secagg_server_destroy(linnet_secagg_server *server)
{
    if (!server)
        return;
    for (uint32_t i = 0; i < server->n; i++) {
        if (server->members[i].unmask)
            linnet_wipe(server->members[i].unmask, entries_bytes(server));
        free(server->members[i].unmask);
        linnet_wipe(&server->members[i].secret, sizeof(server->members[i].secret));
    }
    free(server->members);
    if (server->keys)
        linnet_wipe(server->keys, server->n_keys * sizeof(*server->keys));
    free(server->keys);
    free(server->signs);
    free(server);
}

static linnet_status wrong_phase(const char *what, linnet_error *err)
{
    return linnet_fail(err, LINNET_ERR_ARG, "not the time for %s", what);
}

static linnet_signature signature_at(const uint8_t *bytes)
{
    linnet_signature signature;
    memcpy(signature.bytes, bytes, sizeof(signature.bytes));
    return signature;
}

int32_t linnet_secagg_server_index(const linnet_secagg_server *server, const linnet_device_id *device)
{
    for (uint32_t i = 0; i < server->n; i++)
        if (memcmp(server->members[i].member.id.bytes, device->bytes, LINNET_DEVICE_ID_BYTES) == 0)
            return (int32_t)i;
    return -1;
}

/* The member that a message of M3's or M9's form (T, device id, ..., signature) is by, its signature
 * verified. */
static linnet_status open_message(linnet_secagg_server *server, const linnet_hash *chain, linnet_label label,
                                  const uint8_t *bytes, size_t n_bytes, const char *what,
                                  server_member **ret_member, linnet_error *err)
{
    linnet_device_id id;
    if (n_bytes < MESSAGE_HEAD_BYTES + LINNET_SIGNATURE_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "%s: cut short", what);
    memcpy(id.bytes, bytes + LINNET_HASH_BYTES, sizeof(id.bytes));
    int32_t index = linnet_secagg_server_index(server, &id);
    if (index < 0)
        return linnet_fail(err, LINNET_ERR_DENIED, "%s: not by a member of the roster", what);
    server_member *member = &server->members[index];
    linnet_signature signature = signature_at(bytes + n_bytes - LINNET_SIGNATURE_BYTES);
    if (linnet_verify(&member->member.key, label, bytes, n_bytes - LINNET_SIGNATURE_BYTES, &signature) !=
        LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "%s: the signature is wrong", what);
    if (memcmp(bytes, chain->bytes, LINNET_HASH_BYTES) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "%s: of another round or set", what);
    *ret_member = member;
    return LINNET_OK;
}

/* A second message of one kind: Ed25519 signatures are deterministic, and one signature fits one message. */
static linnet_status second(const linnet_signature *known, const uint8_t *signature, const char *what,
                            linnet_error *err)
{
    if (memcmp(known->bytes, signature, LINNET_SIGNATURE_BYTES) == 0)
        return LINNET_ERR_EXISTS;
    return linnet_fail(err, LINNET_ERR_CONFLICT, "%s: another one of this member is there", what);
}

/* ---- M1 and the roster ---- */

static linnet_status key_is_new(const linnet_secagg_server *server, const linnet_secagg_member *member,
                                linnet_error *err)
{
    for (uint32_t i = 0; i < server->n; i++) {
        const linnet_secagg_member *other = &server->members[i].member;
        const uint8_t *keys[] = {other->pk_x, other->pk_e};
        for (size_t k = 0; k < ARRAY_LEN(keys); k++)
            if (memcmp(keys[k], member->pk_x, 32) == 0 || memcmp(keys[k], member->pk_e, 32) == 0)
                return linnet_fail(err, LINNET_ERR_CRYPTO, "advert: a key of another member");
    }
    return LINNET_OK;
}

static linnet_status make_room(linnet_secagg_server *server, linnet_error *err)
{
    if (server->n < server->capacity)
        return LINNET_OK;
    size_t capacity = server->capacity ? 2 * server->capacity : 16;
    server_member *members = realloc(server->members, capacity * sizeof(*members));
    if (!members)
        return linnet_fail(err, LINNET_ERR_NOMEM, "roster");
    server->members = members;
    server->capacity = capacity;
    return LINNET_OK;
}

linnet_status linnet_secagg_server_advert(linnet_secagg_server *server, const linnet_secagg_trust *trust,
                                          const void *m1, size_t n_bytes, bool commit, linnet_error *err)
{
    linnet_secagg_member member;
    linnet_device_id id;
    const uint8_t *advert = m1;
    if (n_bytes != LINNET_ADVERT_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "advert: %zu bytes, must be %d", n_bytes,
                           LINNET_ADVERT_BYTES);
    memcpy(id.bytes, advert + ADVERT_ID, sizeof(id.bytes));
    int32_t index = linnet_secagg_server_index(server, &id);
    if (index >= 0 && memcmp(server->members[index].advert, advert, LINNET_ADVERT_BYTES) == 0)
        return LINNET_ERR_EXISTS;
    linnet_status status =
        linnet_secagg_advert_open(advert, &server->params.announcement, trust, &member, err);
    if (status == LINNET_OK && index >= 0)
        status = linnet_fail(err, LINNET_ERR_CONFLICT, "advert: another one of this device is there");
    if (status == LINNET_OK && server->phase != LINNET_SERVER_OPEN)
        status = wrong_phase("an advert: the roster is closed", err);
    if (status == LINNET_OK && server->n >= server->params.n_max)
        status = linnet_fail(err, LINNET_ERR_LIMIT, "advert: the cohort is full");
    if (status == LINNET_OK)
        status = key_is_new(server, &member, err);
    if (status == LINNET_OK)
        status = make_room(server, err);
    if (status != LINNET_OK || !commit)
        return status;
    server_member *into = &server->members[server->n++];
    *into = (server_member){.member = member};
    memcpy(into->advert, advert, LINNET_ADVERT_BYTES);
    return LINNET_OK;
}

static int compare_members(const void *a, const void *b)
{
    return memcmp(((const server_member *)a)->member.id.bytes, ((const server_member *)b)->member.id.bytes,
                  LINNET_DEVICE_ID_BYTES);
}

linnet_status linnet_secagg_server_close_roster(linnet_secagg_server *server, linnet_error *err)
{
    if (server->phase != LINNET_SERVER_OPEN)
        return wrong_phase("a roster", err);
    if (server->n < server->params.n_min)
        return linnet_fail(err, LINNET_ERR_RANGE, "roster: %u members, at least %u are needed",
                           (unsigned)server->n, (unsigned)server->params.n_min);
    linnet_hash *leaves = calloc(server->n, sizeof(*leaves));
    if (!leaves)
        return linnet_fail(err, LINNET_ERR_NOMEM, "roster");
    qsort(server->members, server->n, sizeof(*server->members), compare_members);
    for (uint32_t i = 0; i < server->n; i++)
        leaves[i] = linnet_secagg_leaf(server->members[i].advert);
    server->t1 = linnet_secagg_t1(&server->params.announcement, leaves, server->n);
    free(leaves);
    server->t1_signature = linnet_sign_hash(server->identity, &server->t1);
    server->thresholds = linnet_secagg_thresholds_of(&server->params, server->n);
    server->phase = LINNET_SERVER_ROSTER;
    return LINNET_OK;
}

linnet_status linnet_secagg_server_make_roster(const linnet_secagg_server *server, linnet_buffer *ret_bytes,
                                               linnet_error *err)
{
    if (server->phase < LINNET_SERVER_ROSTER)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "there is no roster yet");
    if (!linnet_buffer_reserve(ret_bytes, ROSTER_HEAD_BYTES + (size_t)server->n * LINNET_ADVERT_BYTES))
        return linnet_fail(err, LINNET_ERR_NOMEM, "roster");
    linnet_buffer_append(ret_bytes, server->t1_signature.bytes, LINNET_SIGNATURE_BYTES);
    linnet_buffer_append_le32(ret_bytes, server->n);
    for (uint32_t i = 0; i < server->n; i++)
        linnet_buffer_append(ret_bytes, server->members[i].advert, LINNET_ADVERT_BYTES);
    return LINNET_OK;
}

/* ---- M3 and the sharers ---- */

linnet_status linnet_secagg_server_shares(linnet_secagg_server *server, const void *m3, size_t n_bytes,
                                          bool commit, linnet_error *err)
{
    server_member *member = NULL;
    const uint8_t *bytes = m3;
    if (server->phase < LINNET_SERVER_ROSTER)
        return wrong_phase("shares: there is no roster yet", err);
    if (n_bytes != linnet_secagg_shares_bytes(server->n))
        return linnet_fail(err, LINNET_ERR_FORMAT, "shares: %zu bytes, must be %zu", n_bytes,
                           linnet_secagg_shares_bytes(server->n));
    linnet_status status =
        open_message(server, &server->t1, LINNET_LABEL_SHARE, bytes, n_bytes, "shares", &member, err);
    if (status != LINNET_OK)
        return status;
    const uint8_t *signature = bytes + n_bytes - LINNET_SIGNATURE_BYTES;
    if (member->has_shared)
        return second(&member->shares_signature, signature, "shares", err);
    if (server->phase != LINNET_SERVER_ROSTER)
        return wrong_phase("shares: the sharers are fixed", err);
    if (commit) {
        member->has_shared = true;
        member->shares_signature = signature_at(signature);
    }
    return LINNET_OK;
}

linnet_status linnet_secagg_server_close_sharers(linnet_secagg_server *server, linnet_error *err)
{
    uint32_t count = 0;
    if (server->phase != LINNET_SERVER_ROSTER)
        return wrong_phase("sharers", err);
    for (uint32_t i = 0; i < server->n; i++)
        count += server->members[i].has_shared;
    if (count < server->thresholds.sharers_min)
        return linnet_fail(err, LINNET_ERR_RANGE, "sharers: %u of %u, at least %u are needed",
                           (unsigned)count, (unsigned)server->n, (unsigned)server->thresholds.sharers_min);
    count = 0;
    for (uint32_t i = 0; i < server->n; i++) {
        server->rank[i] = (uint16_t)count;
        if (server->members[i].has_shared)
            linnet_bitmap_set(server->u2, i);
        count += server->members[i].has_shared;
    }
    server->t2 = linnet_secagg_t2(&server->t1, server->u2, server->n);
    server->t2_signature = linnet_sign_hash(server->identity, &server->t2);
    server->phase = LINNET_SERVER_SHARERS;
    return LINNET_OK;
}

linnet_status linnet_secagg_server_make_sharers(const linnet_secagg_server *server,
                                                const linnet_device_id *device, linnet_secagg_read_fn *read,
                                                void *read_context, linnet_buffer *ret_bytes,
                                                linnet_error *err)
{
    int32_t index = linnet_secagg_server_index(server, device);
    if (server->phase < LINNET_SERVER_SHARERS || index < 0 || !linnet_bitmap_has(server->u2, (uint32_t)index))
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "there is no list of sharers for this device");
    uint32_t self = (uint32_t)index;
    linnet_buffer_append(ret_bytes, server->t2_signature.bytes, LINNET_SIGNATURE_BYTES);
    linnet_buffer_append(ret_bytes, server->u2, linnet_bitmap_bytes(server->n));
    for (uint32_t j = 0; j < server->n; j++) {
        uint8_t box[LINNET_SHARE_BOX_BYTES];
        if (j == self || !linnet_bitmap_has(server->u2, j))
            continue;
        size_t offset = MESSAGE_HEAD_BYTES + (size_t)linnet_secagg_slot(self, j) * sizeof(box);
        linnet_status status = read(read_context, j, offset, box, sizeof(box), err);
        if (status != LINNET_OK)
            return status;
        linnet_buffer_append(ret_bytes, box, sizeof(box));
    }
    return ret_bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "list of sharers") : LINNET_OK;
}

/* ---- M5 and the survivors ---- */

linnet_status linnet_secagg_server_masked(linnet_secagg_server *server, const linnet_device_id *device,
                                          const linnet_hash *echo, const linnet_signature *header_signature,
                                          bool commit, linnet_error *err)
{
    int32_t index = linnet_secagg_server_index(server, device);
    if (server->phase < LINNET_SERVER_SHARERS)
        return wrong_phase("masked vectors: the sharers are not fixed", err);
    if (index < 0 || !linnet_bitmap_has(server->u2, (uint32_t)index))
        return linnet_fail(err, LINNET_ERR_DENIED, "masked vector: not by one of the sharers");
    server_member *member = &server->members[index];
    if (member->has_masked)
        return linnet_hash_equal(&member->echo, echo)
                   ? LINNET_ERR_EXISTS
                   : linnet_fail(err, LINNET_ERR_CONFLICT,
                                 "masked vector: another one of this member is there");
    if (server->phase != LINNET_SERVER_SHARERS)
        return wrong_phase("masked vectors: the survivors are fixed", err);
    if (commit) {
        member->has_masked = true;
        member->echo = *echo;
        member->header_signature = *header_signature;
    }
    return LINNET_OK;
}

/* Hy || signature of every survivor, by index. */
static linnet_status append_survivor_list(const linnet_secagg_server *server, linnet_buffer *list,
                                          linnet_error *err)
{
    for (uint32_t i = 0; i < server->n; i++) {
        if (!linnet_bitmap_has(server->u3, i))
            continue;
        linnet_buffer_append(list, server->members[i].echo.bytes, LINNET_HASH_BYTES);
        linnet_buffer_append(list, server->members[i].header_signature.bytes, LINNET_SIGNATURE_BYTES);
    }
    return list->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "list of survivors") : LINNET_OK;
}

linnet_status linnet_secagg_server_freeze(linnet_secagg_server *server, linnet_error *err)
{
    uint32_t count = 0;
    linnet_buffer list = {0};
    if (server->phase != LINNET_SERVER_SHARERS)
        return wrong_phase("survivors", err);
    for (uint32_t i = 0; i < server->n; i++)
        count += server->members[i].has_masked;
    if (count < server->thresholds.survivors_min)
        return linnet_fail(err, LINNET_ERR_RANGE, "survivors: %u of %u, at least %u are needed",
                           (unsigned)count, (unsigned)server->n, (unsigned)server->thresholds.survivors_min);
    for (uint32_t i = 0; i < server->n; i++)
        if (server->members[i].has_masked)
            linnet_bitmap_set(server->u3, i);
    linnet_status status = append_survivor_list(server, &list, err);
    if (status == LINNET_OK) {
        linnet_hash r = linnet_secagg_survivor_list(list.bytes, count);
        server->t3 = linnet_secagg_t3(&server->t2, server->u3, server->n, &r);
        server->t3_signature = linnet_sign_hash(server->identity, &server->t3);
        server->phase = LINNET_SERVER_FROZEN;
    } else {
        memset(server->u3, 0, sizeof(server->u3));
    }
    linnet_buffer_release(&list);
    return status;
}

linnet_status linnet_secagg_server_make_survivors(const linnet_secagg_server *server,
                                                  linnet_buffer *ret_bytes, linnet_error *err)
{
    if (server->phase < LINNET_SERVER_FROZEN)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "there are no survivors yet");
    linnet_buffer_append(ret_bytes, server->t3_signature.bytes, LINNET_SIGNATURE_BYTES);
    linnet_buffer_append(ret_bytes, server->u3, linnet_bitmap_bytes(server->n));
    return append_survivor_list(server, ret_bytes, err);
}

/* ---- M7 and the certificate ---- */

linnet_status linnet_secagg_server_attestation(linnet_secagg_server *server, const void *m7, size_t n_bytes,
                                               bool commit, linnet_error *err)
{
    const uint8_t *bytes = m7;
    linnet_device_id id;
    if (server->phase < LINNET_SERVER_FROZEN)
        return wrong_phase("an attestation: there are no survivors yet", err);
    if (n_bytes != LINNET_ATTESTATION_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "attestation: %zu bytes, must be %d", n_bytes,
                           LINNET_ATTESTATION_BYTES);
    memcpy(id.bytes, bytes + LINNET_HASH_BYTES, sizeof(id.bytes));
    int32_t index = linnet_secagg_server_index(server, &id);
    if (index < 0 || !linnet_bitmap_has(server->u3, (uint32_t)index))
        return linnet_fail(err, LINNET_ERR_DENIED, "attestation: not by a survivor");
    server_member *member = &server->members[index];
    linnet_signature signature = signature_at(bytes + MESSAGE_HEAD_BYTES);
    if (memcmp(bytes, server->t3.bytes, LINNET_HASH_BYTES) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "attestation: of another set of survivors");
    if (linnet_verify(&member->member.key, LINNET_LABEL_ATTEST, bytes, LINNET_HASH_BYTES, &signature) !=
        LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "attestation: the signature is wrong");
    if (member->has_attested)
        return LINNET_ERR_EXISTS;
    if (commit) {
        member->has_attested = true;
        member->attest_signature = signature;
        server->attest_order[server->n_attested++] = (uint32_t)index;
    }
    return LINNET_OK;
}

linnet_status linnet_secagg_server_make_certificate(const linnet_secagg_server *server,
                                                    linnet_buffer *ret_bytes, linnet_error *err)
{
    uint32_t q = server->thresholds.signatures;
    uint8_t signers[LINNET_SECAGG_BITMAP_MAX] = {0};
    if (server->phase < LINNET_SERVER_FROZEN || server->n_attested < q)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "there is no certificate yet");
    for (uint32_t i = 0; i < q; i++)
        linnet_bitmap_set(signers, server->attest_order[i]);
    linnet_status status = linnet_secagg_server_make_survivors(server, ret_bytes, err);
    if (status != LINNET_OK)
        return status;
    linnet_buffer_append_le32(ret_bytes, q);
    for (uint32_t i = 0; i < server->n; i++) {
        if (!linnet_bitmap_has(signers, i))
            continue;
        linnet_buffer_append_le32(ret_bytes, i);
        linnet_buffer_append(ret_bytes, server->members[i].attest_signature.bytes, LINNET_SIGNATURE_BYTES);
    }
    return ret_bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "certificate") : LINNET_OK;
}

/* ---- M9 ---- */

/* The kind is the one that the frozen bitmap asks for, the share a scalar, and zero where it is missing: no
 * share of the other kind comes in under that name. */
static linnet_status entry_check(const linnet_secagg_server *server, uint32_t owner, const uint8_t *entry,
                                 linnet_error *err)
{
    static const linnet_scalar nothing;
    linnet_scalar share;
    uint8_t due = linnet_bitmap_has(server->u3, owner) ? UNMASK_SELF : UNMASK_PAIR;
    memcpy(share.bytes, entry + 1, sizeof(share.bytes));
    bool is_scalar = linnet_scalar_is_canonical(&share),
         is_nothing = memcmp(share.bytes, nothing.bytes, sizeof(share.bytes)) == 0;
    linnet_wipe(&share, sizeof(share));
    if (entry[0] != UNMASK_MISSING && entry[0] != due)
        return linnet_fail(err, LINNET_ERR_DENIED, "unmasking: the wrong kind of share of member %u",
                           (unsigned)owner);
    if (!is_scalar)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "unmasking: the share of member %u is no scalar",
                           (unsigned)owner);
    if (entry[0] == UNMASK_MISSING && !is_nothing)
        return linnet_fail(err, LINNET_ERR_FORMAT, "unmasking: a share of member %u that is missing",
                           (unsigned)owner);
    return LINNET_OK;
}

static linnet_status entries_check(const linnet_secagg_server *server, uint32_t holder,
                                   const uint8_t *entries, linnet_error *err)
{
    for (uint32_t owner = 0; owner < server->n; owner++) {
        if (owner == holder || !linnet_bitmap_has(server->u2, owner))
            continue;
        linnet_status status = entry_check(server, owner, entries, err);
        if (status != LINNET_OK)
            return status;
        entries += UNMASK_ENTRY_BYTES;
    }
    return LINNET_OK;
}

linnet_status linnet_secagg_server_unmasking(linnet_secagg_server *server, const void *m9, size_t n_bytes,
                                             bool commit, linnet_error *err)
{
    server_member *member = NULL;
    const uint8_t *bytes = m9;
    if (server->phase < LINNET_SERVER_FROZEN)
        return wrong_phase("an unmasking: there are no survivors yet", err);
    if (n_bytes != MESSAGE_HEAD_BYTES + entries_bytes(server) + LINNET_SIGNATURE_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "unmasking: %zu bytes for another number of members",
                           n_bytes);
    linnet_status status =
        open_message(server, &server->t3, LINNET_LABEL_UNMASK, bytes, n_bytes, "unmasking", &member, err);
    linnet_stack_wipe(); /* the shares were hashed */
    if (status != LINNET_OK)
        return status;
    uint32_t index = (uint32_t)(member - server->members);
    const uint8_t *signature = bytes + n_bytes - LINNET_SIGNATURE_BYTES;
    if (!linnet_bitmap_has(server->u3, index))
        return linnet_fail(err, LINNET_ERR_DENIED, "unmasking: not by a survivor");
    if (member->has_unmasked)
        return second(&member->unmask_signature, signature, "unmasking", err);
    status = entries_check(server, index, bytes + MESSAGE_HEAD_BYTES, err);
    if (status == LINNET_OK && !member->unmask && !(member->unmask = malloc(entries_bytes(server) + 1)))
        status = linnet_fail(err, LINNET_ERR_NOMEM,
                             "unmasking"); /* made by the check, so that counting cannot fail */
    if (status != LINNET_OK || !commit)
        return status;
    memcpy(member->unmask, bytes + MESSAGE_HEAD_BYTES, entries_bytes(server));
    member->unmask_signature = signature_at(signature);
    member->has_unmasked = true;
    return LINNET_OK;
}

/* ---- complaints and aborts ---- */

linnet_status linnet_secagg_server_complaint(linnet_secagg_server *server, const void *bytes, size_t n_bytes,
                                             uint32_t *ret_about, linnet_error *err)
{
    server_member *member = NULL;
    if (server->phase < LINNET_SERVER_SHARERS)
        return wrong_phase("a complaint: the sharers are not fixed", err);
    if (n_bytes != LINNET_COMPLAINT_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "complaint: %zu bytes, must be %d", n_bytes,
                           LINNET_COMPLAINT_BYTES);
    linnet_status status =
        open_message(server, &server->t2, LINNET_LABEL_COMPLAINT, bytes, n_bytes, "complaint", &member, err);
    if (status != LINNET_OK)
        return status;
    uint32_t about = linnet_load_le32((const uint8_t *)bytes + MESSAGE_HEAD_BYTES);
    uint32_t by = (uint32_t)(member - server->members);
    if (!linnet_bitmap_has(server->u2, by))
        return linnet_fail(err, LINNET_ERR_DENIED, "complaint: not by one of the sharers");
    if (about == by || about >= server->n || !linnet_bitmap_has(server->u2, about))
        return linnet_fail(err, LINNET_ERR_RANGE, "complaint: about nobody");
    *ret_about = about;
    return LINNET_OK;
}

linnet_status linnet_secagg_server_abort(linnet_secagg_server *server, const void *bytes, size_t n_bytes,
                                         linnet_abort_reason *ret_reason, linnet_error *err)
{
    server_member *member = NULL;
    if (n_bytes != LINNET_ABORT_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "abort: %zu bytes, must be %d", n_bytes,
                           LINNET_ABORT_BYTES);
    linnet_status status = open_message(server, &server->params.announcement, LINNET_LABEL_ABORT, bytes,
                                        n_bytes, "abort", &member, err);
    uint8_t reason = ((const uint8_t *)bytes)[MESSAGE_HEAD_BYTES];
    if (status == LINNET_OK && (reason < LINNET_ABORT_ROSTER || reason > LINNET_ABORT_TIME))
        status = linnet_fail(err, LINNET_ERR_RANGE, "abort: for no known reason");
    if (status == LINNET_OK)
        *ret_reason = (linnet_abort_reason)reason;
    return status;
}

/* ---- what is known ---- */

linnet_secagg_server_phase linnet_secagg_server_phase_of(const linnet_secagg_server *server)
{
    return server->phase;
}

uint32_t linnet_secagg_server_members(const linnet_secagg_server *server)
{
    return server->n;
}

const linnet_device_id *linnet_secagg_server_device(const linnet_secagg_server *server, uint32_t index)
{
    return &server->members[index].member.id;
}

linnet_secagg_server_counts linnet_secagg_server_count(const linnet_secagg_server *server)
{
    linnet_secagg_server_counts counts = {.members = server->n, .attestations = server->n_attested};
    for (uint32_t i = 0; i < server->n; i++) {
        counts.sharers += server->members[i].has_shared;
        counts.masked += server->members[i].has_masked;
        counts.unmaskings += server->members[i].has_unmasked;
    }
    if (server->phase >= LINNET_SERVER_FROZEN)
        counts.survivors = linnet_bitmap_count(server->u3, server->n);
    counts.thresholds = server->phase >= LINNET_SERVER_ROSTER
                            ? server->thresholds
                            : linnet_secagg_thresholds_of(&server->params, server->n);
    return counts;
}

const linnet_hash *linnet_secagg_server_t1(const linnet_secagg_server *server)
{
    return server->phase >= LINNET_SERVER_ROSTER ? &server->t1 : NULL;
}

const linnet_hash *linnet_secagg_server_t2(const linnet_secagg_server *server)
{
    return server->phase >= LINNET_SERVER_SHARERS ? &server->t2 : NULL;
}

const linnet_hash *linnet_secagg_server_t3(const linnet_secagg_server *server)
{
    return server->phase >= LINNET_SERVER_FROZEN ? &server->t3 : NULL;
}

bool linnet_secagg_server_is_sharer(const linnet_secagg_server *server, uint32_t index)
{
    return index < server->n && linnet_bitmap_has(server->u2, index);
}

bool linnet_secagg_server_is_survivor(const linnet_secagg_server *server, uint32_t index)
{
    return index < server->n && linnet_bitmap_has(server->u3, index);
}

bool linnet_secagg_server_has_unmasking(const linnet_secagg_server *server, uint32_t index)
{
    return index < server->n && server->members[index].has_unmasked;
}
