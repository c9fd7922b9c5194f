/* SPDX-License-Identifier: Apache-2.0 */
/* The enrolment authority's key and what it signs (SECURE-AGGREGATION 2.3). The key is one file, mode 0600,
 * in a directory of its own: meant for another person's machine, or inside the coordinator's state for a
 * trial. Seeds of both keys of the coordinator are files and not rows, so that copying the store for a report
 * copies no secret. */
#include "transcript_log.h"

#include "linnet/authority.h"
#include "linnet/file.h"

#include <stdlib.h>

#define CERTIFICATE_SECONDS                                                                                  \
    ((uint64_t)10 * 365 * 24 * 3600) /* a device's working life; revocation ends it earlier */
#define CLOCK_SLACK_SECONDS 3600     /* devices' clocks may be behind */

linnet_status linnet_seed_write(const char *path, const linnet_identity *identity, linnet_error *err)
{
    uint8_t seed[LINNET_SEED_BYTES];
    linnet_identity_seed(identity, seed);
    linnet_status status = linnet_file_write(path, seed, sizeof(seed), 0600, err);
    linnet_wipe(seed, sizeof(seed));
    return status;
}

linnet_status linnet_seed_read(const char *path, linnet_identity **ret_identity, linnet_error *err)
{
    linnet_buffer seed = {0};
    linnet_status status = linnet_file_read(path, LINNET_SEED_BYTES, &seed, err);
    if (status == LINNET_OK && seed.n_bytes != LINNET_SEED_BYTES)
        status = linnet_fail(err, LINNET_ERR_FORMAT, "'%s' is no key: %zu bytes", path, seed.n_bytes);
    if (status == LINNET_OK)
        status = linnet_identity_from_seed(seed.bytes, ret_identity, err);
    if (seed.bytes)
        linnet_wipe(seed.bytes, seed.capacity);
    linnet_buffer_release(&seed);
    return status;
}

linnet_status linnet_authority_create(const char *directory, linnet_identity **ret_authority,
                                      linnet_error *err)
{
    linnet_identity *authority = NULL;
    char *path = linnet_path_join(directory, "authority.key");
    linnet_status status =
        path ? linnet_directory_create(directory, err) : linnet_fail(err, LINNET_ERR_NOMEM, "authority");
    if (status == LINNET_OK)
        status = linnet_identity_create(&authority, err);
    if (status == LINNET_OK)
        status = linnet_seed_write(path, authority, err);
    if (status == LINNET_OK) {
        *ret_authority = authority;
        authority = NULL;
    }
    linnet_identity_destroy(authority);
    free(path);
    return status;
}

linnet_status linnet_authority_load(const char *directory, linnet_identity **ret_authority, linnet_error *err)
{
    char *path = linnet_path_join(directory, "authority.key");
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "authority");
    linnet_status status = linnet_seed_read(path, ret_authority, err);
    free(path);
    return status;
}

void linnet_authority_certify(const linnet_identity *authority, const linnet_csr *csr, uint64_t serial,
                              uint64_t now_s, uint8_t ret_bytes[LINNET_SIGNED_CERTIFICATE_BYTES])
{
    linnet_certificate certificate = {.device_id = linnet_device_id_of(&csr->public_key),
                                      .public_key = csr->public_key,
                                      .device_class = csr->device_class,
                                      .serial = serial,
                                      .not_before =
                                          now_s > CLOCK_SLACK_SECONDS ? now_s - CLOCK_SLACK_SECONDS : 0,
                                      .not_after = now_s + CERTIFICATE_SECONDS};
    linnet_certificate_sign(&certificate, authority, ret_bytes);
}

/* ---- on a machine of its own ---- */

linnet_status linnet_authority_init(const char *directory, linnet_public_key *ret_key, linnet_error *err)
{
    linnet_identity *authority = NULL;
    linnet_status status = linnet_authority_load(directory, &authority, NULL);
    linnet_identity_destroy(authority);
    authority = NULL;
    if (status != LINNET_ERR_NOT_FOUND)
        return linnet_fail(err, LINNET_ERR_EXISTS,
                           "'%s' holds an authority's key already: nothing was changed", directory);
    status = linnet_authority_create(directory, &authority, err);
    if (status == LINNET_OK)
        *ret_key = *linnet_identity_public_key(authority);
    linnet_identity_destroy(authority);
    return status;
}

linnet_status linnet_authority_revoke(const char *directory, const linnet_device_id *device,
                                      linnet_buffer *ret_list, linnet_error *err)
{
    linnet_identity *authority = NULL;
    linnet_buffer present = {0};
    char *path = linnet_path_join(directory, "revocation.list");
    linnet_status status = path ? linnet_authority_load(directory, &authority, err)
                                : linnet_fail(err, LINNET_ERR_NOMEM, "authority");
    if (status == LINNET_OK) {
        status = linnet_file_read(path, LINNET_HELLO_BYTES_MAX, &present, err);
        status = status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    }
    if (status == LINNET_OK)
        status = linnet_authority_knows(directory, device, err);
    if (status == LINNET_OK)
        status = linnet_revocation_extend(&present, device, authority, ret_list, err);
    if (status == LINNET_OK)
        status = linnet_file_write(path, ret_list->bytes, ret_list->n_bytes, 0600, err);
    linnet_buffer_release(&present);
    linnet_identity_destroy(authority);
    free(path);
    return status;
}

/* ---- the coordinator's side ---- */

typedef struct request_list {
    linnet_buffer *bytes;
    size_t n;
} request_list;

static linnet_status add_request(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                 size_t n_bytes, linnet_error *err)
{
    request_list *list = context;
    linnet_device_row row;
    (void)fields;
    (void)n_fields;
    if (linnet_device_row_unpack(bytes, n_bytes, &row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: the row of a device is damaged; restore the state from a backup");
    if (row.has_certificate)
        return LINNET_OK;
    list->n++;
    linnet_buffer_append_le64(list->bytes, row.serial);
    linnet_buffer_append(list->bytes, row.request, sizeof(row.request));
    return list->bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "requests") : LINNET_OK;
}

linnet_status linnet_coordinator_requests(linnet_coordinator *c, linnet_buffer *ret_requests, size_t *ret_n,
                                          linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    request_list list = {.bytes = ret_requests};
    linnet_record_id prefix = linnet_record_of('d');
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_each(txn, &prefix, add_request, &list, err);
    linnet_store_read_end(txn);
    if (status == LINNET_OK)
        *ret_n = list.n;
    return status;
}

/* Invites that the authority made: their secrets stay with it, so a request under one is not judged here. */
static linnet_status put_tokens(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const linnet_span *tokens = context;
    for (size_t at = 0; at < tokens->n_bytes; at += LINNET_TOKEN_ENTRY_BYTES) {
        const uint8_t *bytes, *entry = tokens->bytes + at;
        size_t n_bytes;
        linnet_buffer packed = {0};
        const linnet_token_row row = {.expires_s = linnet_load_le64(entry + LINNET_TOKEN_ID_BYTES)};
        linnet_record_id id = linnet_record_bytes('t', entry, LINNET_TOKEN_ID_BYTES);
        linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
        if (status == LINNET_OK)
            continue; /* imported before, and perhaps used since */
        if (status != LINNET_ERR_NOT_FOUND)
            return status;
        linnet_token_row_pack(&row, &packed);
        status = linnet_row_put(txn, &id, &packed, err);
        if (status != LINNET_OK)
            return status;
    }
    return LINNET_OK;
}

static bool is_tokens_file(const void *bytes, size_t n_bytes)
{
    return n_bytes >= LINNET_TOKENS_HEAD_BYTES &&
           memcmp(bytes, LINNET_TOKENS_MAGIC, LINNET_TOKENS_HEAD_BYTES) == 0 &&
           (n_bytes - LINNET_TOKENS_HEAD_BYTES) % LINNET_TOKEN_ENTRY_BYTES == 0;
}

static linnet_status import_tokens(linnet_coordinator *c, const uint8_t *bytes, size_t n_bytes, size_t *ret_n,
                                   linnet_error *err)
{
    linnet_span tokens = {bytes + LINNET_TOKENS_HEAD_BYTES, n_bytes - LINNET_TOKENS_HEAD_BYTES};
    if (c->authority)
        return linnet_fail(err, LINNET_ERR_DENIED,
                           "the authority's key is in this state directory: make invites with "
                           "'linnet-coordinator invite'");
    linnet_status status = linnet_store_update(c->store, put_tokens, &tokens, err);
    if (status == LINNET_OK)
        *ret_n = tokens.n_bytes / LINNET_TOKEN_ENTRY_BYTES;
    return status;
}

typedef struct import_job {
    linnet_coordinator *coordinator;
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_revocation list; /* of a revocation list; unused for certificates */
} import_job;

static linnet_status put_certificates(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const import_job *job = context;
    linnet_certificate certificate;
    linnet_device_row device;
    for (size_t at = 0; at < job->n_bytes; at += LINNET_SIGNED_CERTIFICATE_BYTES) {
        linnet_status status = linnet_certificate_open(job->bytes + at, LINNET_SIGNED_CERTIFICATE_BYTES,
                                                       &job->coordinator->authority_key, 0, &certificate);
        if (status != LINNET_OK)
            return linnet_fail(err, status,
                               "certificate %zu is not one of the task's authority: nothing was taken over",
                               at / LINNET_SIGNED_CERTIFICATE_BYTES + 1);
        status = linnet_device_get(txn, &certificate.device_id, &device, err);
        if (status == LINNET_ERR_NOT_FOUND)
            return linnet_fail(err, status,
                               "certificate %zu is for a device that never asked: nothing was taken over",
                               at / LINNET_SIGNED_CERTIFICATE_BYTES + 1);
        if (status != LINNET_OK)
            return status;
        device.has_certificate = true;
        memcpy(device.certificate, job->bytes + at, sizeof(device.certificate));
        status = linnet_device_put(txn, &device, err);
        if (status != LINNET_OK)
            return status;
    }
    return LINNET_OK;
}

static linnet_status put_list(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const import_job *job = context;
    linnet_buffer present = {0};
    linnet_revocation old = {0};
    linnet_device_row device;
    linnet_status status = linnet_config_get(txn, "revocation", &present, err);
    bool goes_on = present.n_bytes == 0 ||
                   (linnet_revocation_open(present.bytes, present.n_bytes, &job->coordinator->authority_key,
                                           &old) == LINNET_OK &&
                    old.number < job->list.number);
    linnet_buffer_release(&present);
    if (status == LINNET_OK && !goes_on)
        return linnet_fail(err, LINNET_ERR_CONFLICT,
                           "the list's number is not above the present one: nothing was changed");
    if (status == LINNET_OK)
        status = linnet_revocation_put(txn, job->bytes, job->n_bytes, err);
    for (size_t i = 0; status == LINNET_OK && i < job->list.n_ids; i++) {
        linnet_device_id id;
        memcpy(id.bytes, job->list.ids + i * LINNET_DEVICE_ID_BYTES, sizeof(id.bytes));
        status = linnet_device_get(txn, &id, &device, err);
        if (status == LINNET_OK) {
            device.is_revoked = true;
            status = linnet_device_put(txn, &device, err);
            if (status == LINNET_OK)
                status = linnet_rounds_leave(job->coordinator, txn, &id, err);
        }
        status = status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status; /* a device of another task */
    }
    return status == LINNET_OK ? linnet_rounds_announce_again(job->coordinator, txn, err) : status;
}

linnet_status linnet_coordinator_import(linnet_coordinator *c, const void *bytes, size_t n_bytes,
                                        size_t *ret_n, linnet_error *err)
{
    import_job job = {.coordinator = c, .bytes = bytes, .n_bytes = n_bytes};
    if (is_tokens_file(bytes, n_bytes))
        return import_tokens(c, bytes, n_bytes, ret_n, err);
    bool is_list = linnet_revocation_open(bytes, n_bytes, &c->authority_key, &job.list) == LINNET_OK;
    if (!is_list && (n_bytes == 0 || n_bytes % LINNET_SIGNED_CERTIFICATE_BYTES != 0))
        return linnet_fail(err, LINNET_ERR_CRYPTO,
                           "neither certificates nor a revocation list nor invites of the task's authority");
    if (is_list && n_bytes > LINNET_REVOCATION_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT,
                           "the revocation list is too long (%zu bytes): start a new task", n_bytes);
    linnet_status status = linnet_store_update(c->store, is_list ? put_list : put_certificates, &job, err);
    if (status == LINNET_OK)
        *ret_n = is_list ? job.list.n_ids : n_bytes / LINNET_SIGNED_CERTIFICATE_BYTES;
    return status;
}
