/* SPDX-License-Identifier: Apache-2.0 */
/* What an enrolment authority on a machine of its own remembers (SECURE-AGGREGATION 2.3): the invites it made
 * and the certificates it issued, in a store beside its key. A token is used up in the transaction that
 * issues; nothing that a coordinator sends makes it sign a second certificate for one, or any under an invite
 * that somebody else made up. Tables: t token id, d device id (its certificate, its token's id). */
#include "state.h"

#include "linnet/authority.h"
#include "linnet/file.h"

#include <stdlib.h>

#define REQUEST_BYTES ((size_t)8 + LINNET_SIGNED_CSR_BYTES)
#define ISSUED_BYTES ((size_t)LINNET_SIGNED_CERTIFICATE_BYTES + LINNET_TOKEN_ID_BYTES)

static const char signature_mark[] = "# signature ";

/* Key first: a directory without one is none of an authority. */
static linnet_status authority_open(const char *directory, linnet_identity **ret_authority,
                                    linnet_store **ret_store, linnet_error *err)
{
    linnet_identity *authority = NULL;
    linnet_status status = linnet_authority_load(directory, &authority, err);
    if (status == LINNET_OK)
        status = linnet_store_open(directory, true, true, ret_store, err);
    if (status != LINNET_OK) {
        linnet_identity_destroy(authority);
        return status;
    }
    *ret_authority = authority;
    return LINNET_OK;
}

static linnet_status token_get(linnet_store_txn *txn, const uint8_t token_id[LINNET_TOKEN_ID_BYTES],
                               linnet_token_row *ret_row, linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_record_id id = linnet_record_bytes('t', token_id, LINNET_TOKEN_ID_BYTES);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status == LINNET_OK && linnet_token_row_unpack(bytes, n_bytes, ret_row) != LINNET_OK)
        status = linnet_fail(err, LINNET_ERR_FORMAT, "authority: the row of an invite is damaged");
    return status;
}

static linnet_status token_put(linnet_store_txn *txn, const uint8_t token_id[LINNET_TOKEN_ID_BYTES],
                               const linnet_token_row *row, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_record_id id = linnet_record_bytes('t', token_id, LINNET_TOKEN_ID_BYTES);
    linnet_token_row_pack(row, &bytes);
    return linnet_row_put(txn, &id, &bytes, err);
}

/* ---- invites ---- */

typedef struct invite_job {
    const linnet_enrol_token *tokens;
    uint64_t n, expires_s;
} invite_job;

static linnet_status put_invites(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const invite_job *job = context;
    linnet_status status = linnet_config_put_u64(txn, "makes_invites", 1, err);
    for (uint64_t i = 0; i < job->n && status == LINNET_OK; i++) {
        linnet_token_row row = {.expires_s = job->expires_s};
        memcpy(row.secret, job->tokens[i].secret, sizeof(row.secret));
        status = token_put(txn, job->tokens[i].id, &row, err);
        linnet_wipe(&row, sizeof(row));
    }
    return status;
}

static linnet_status write_invites(const invite_job *job, const linnet_public_key *coordinator,
                                   const linnet_public_key *authority, linnet_buffer *texts,
                                   linnet_buffer *tokens, linnet_error *err)
{
    char text[LINNET_INVITE_TEXT_MAX];
    linnet_buffer_append(tokens, LINNET_TOKENS_MAGIC, LINNET_TOKENS_HEAD_BYTES);
    for (uint64_t i = 0; i < job->n; i++) {
        linnet_invite invite = {
            .token = job->tokens[i], .coordinator = *coordinator, .authority = *authority};
        linnet_invite_write(&invite, text);
        linnet_buffer_append_text(texts, text);
        linnet_buffer_append_u8(texts, '\n');
        linnet_buffer_append(tokens, job->tokens[i].id, LINNET_TOKEN_ID_BYTES);
        linnet_buffer_append_le64(tokens, job->expires_s);
        linnet_wipe(&invite, sizeof(invite));
    }
    linnet_wipe(text, sizeof(text));
    return texts->failed || tokens->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "invites") : LINNET_OK;
}

linnet_status linnet_authority_invite(const char *directory, const linnet_public_key *coordinator, uint64_t n,
                                      uint64_t expires_s, linnet_buffer *ret_texts, linnet_buffer *ret_tokens,
                                      linnet_error *err)
{
    linnet_identity *authority = NULL;
    linnet_store *store = NULL;
    linnet_enrol_token *tokens = n > 0 && n <= 1000000 ? calloc((size_t)n, sizeof(*tokens)) : NULL;
    if (!tokens)
        return linnet_fail(err, LINNET_ERR_NOMEM, "%llu invites", (unsigned long long)n);
    linnet_random_bytes(tokens, (size_t)n * sizeof(*tokens));
    invite_job job = {.tokens = tokens, .n = n, .expires_s = expires_s};
    linnet_status status = authority_open(directory, &authority, &store, err);
    if (status == LINNET_OK)
        status = write_invites(&job, coordinator, linnet_identity_public_key(authority), ret_texts,
                               ret_tokens, err);
    if (status == LINNET_OK)
        status = linnet_store_update(store, put_invites, &job, err);
    linnet_store_close(store);
    linnet_identity_destroy(authority);
    linnet_wipe(tokens, (size_t)n * sizeof(*tokens));
    free(tokens);
    return status;
}

/* ---- signing ---- */

typedef struct sign_job {
    const linnet_identity *authority;
    const uint8_t *requests;
    size_t n_requests, at; /* at: the one that is being looked at */
    uint64_t now_s;
    linnet_buffer certificates;
} sign_job;

static linnet_status refuse(const sign_job *job, linnet_status status, const char *why, linnet_error *err)
{
    return linnet_fail(err, status, "request %zu: %s; nothing was signed", job->at + 1, why);
}

static linnet_status token_check(const sign_job *job, const linnet_token_row *token,
                                 const uint8_t *signed_csr, linnet_error *err)
{
    if (token->is_used)
        return refuse(job, LINNET_ERR_DENIED, "its invite was used by another device", err);
    if (job->now_s > token->expires_s)
        return refuse(job, LINNET_ERR_EXPIRED, "its invite is expired", err);
    if (linnet_csr_check_token(signed_csr, LINNET_SIGNED_CSR_BYTES, token->secret) != LINNET_OK)
        return refuse(job, LINNET_ERR_CRYPTO, "it does not know its invite's secret", err);
    return LINNET_OK;
}

/* Use the token of a request up, or say why it cannot be. */
static linnet_status token_use(linnet_store_txn *txn, const sign_job *job, const uint8_t *signed_csr,
                               const linnet_csr *csr, linnet_error *err)
{
    uint64_t makes_invites = 0;
    linnet_token_row token = {0};
    linnet_status status = linnet_config_get_u64(txn, "makes_invites", &makes_invites, err);
    if (status == LINNET_OK)
        status = token_get(txn, csr->token_id, &token, err);
    if (status == LINNET_ERR_NOT_FOUND && makes_invites)
        return refuse(job, LINNET_ERR_DENIED, "its invite is none of this authority's", err);
    if (status == LINNET_OK)
        status = token_check(job, &token, signed_csr, err);
    else if (status == LINNET_ERR_NOT_FOUND)
        status = LINNET_OK;
    linnet_wipe(token.secret, sizeof(token.secret));
    if (status != LINNET_OK)
        return status;
    token.is_used = true;
    token.public_key = csr->public_key;
    return token_put(txn, csr->token_id, &token, err);
}

static linnet_status issue(linnet_store_txn *txn, sign_job *job, const uint8_t *signed_csr,
                           const linnet_csr *csr, const linnet_record_id *id, linnet_error *err)
{
    uint64_t serial = 0;
    uint8_t bytes[ISSUED_BYTES];
    linnet_status status = token_use(txn, job, signed_csr, csr, err);
    if (status == LINNET_OK)
        status = linnet_config_get_u64(txn, "serial", &serial, err);
    if (status == LINNET_OK)
        status = linnet_config_put_u64(txn, "serial", serial + 1, err);
    if (status != LINNET_OK)
        return status;
    linnet_authority_certify(job->authority, csr, serial + 1, job->now_s, bytes);
    memcpy(bytes + LINNET_SIGNED_CERTIFICATE_BYTES, csr->token_id, LINNET_TOKEN_ID_BYTES);
    linnet_buffer_append(&job->certificates, bytes, LINNET_SIGNED_CERTIFICATE_BYTES);
    return linnet_store_put(txn, id, bytes, sizeof(bytes), err);
}

static linnet_status sign_one(linnet_store_txn *txn, sign_job *job, linnet_error *err)
{
    linnet_csr csr;
    const uint8_t *signed_csr = job->requests + job->at * REQUEST_BYTES + 8, *bytes;
    size_t n_bytes;
    if (linnet_csr_open(signed_csr, LINNET_SIGNED_CSR_BYTES, &csr) != LINNET_OK)
        return refuse(job, LINNET_ERR_CRYPTO, "it is not signed by its own key", err);
    linnet_device_id device = linnet_device_id_of(&csr.public_key);
    linnet_record_id id = linnet_record_bytes('d', device.bytes, sizeof(device.bytes));
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status == LINNET_ERR_NOT_FOUND)
        return issue(txn, job, signed_csr, &csr, &id, err);
    if (status != LINNET_OK)
        return status;
    if (n_bytes != ISSUED_BYTES)
        return linnet_fail(err, LINNET_ERR_FORMAT, "authority: the row of a certificate is damaged");
    if (memcmp(bytes + LINNET_SIGNED_CERTIFICATE_BYTES, csr.token_id, LINNET_TOKEN_ID_BYTES) != 0)
        return refuse(job, LINNET_ERR_DENIED, "its key has a certificate under another invite", err);
    linnet_buffer_append(&job->certificates, bytes, LINNET_SIGNED_CERTIFICATE_BYTES); /* the same again */
    return LINNET_OK;
}

static linnet_status sign_all(linnet_store_txn *txn, void *context, linnet_error *err)
{
    sign_job *job = context;
    linnet_status status = LINNET_OK;
    linnet_buffer_clear(&job->certificates); /* this may run twice */
    for (job->at = 0; job->at < job->n_requests && status == LINNET_OK; job->at++) {
        status = sign_one(txn, job, err);
        if (status != LINNET_OK)
            break;
    }
    if (status == LINNET_OK && job->certificates.failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "certificates");
    return status;
}

linnet_status linnet_authority_sign(const char *directory, const void *requests, size_t n_bytes,
                                    uint64_t now_s, linnet_buffer *ret_certificates, size_t *ret_n,
                                    linnet_error *err)
{
    linnet_identity *authority = NULL;
    linnet_store *store = NULL;
    sign_job job = {.requests = requests, .n_requests = n_bytes / REQUEST_BYTES, .now_s = now_s};
    if (n_bytes % REQUEST_BYTES != 0)
        return linnet_fail(err, LINNET_ERR_FORMAT, "not a requests file: %zu bytes are no multiple of %zu",
                           n_bytes, REQUEST_BYTES);
    linnet_status status = authority_open(directory, &authority, &store, err);
    job.authority = authority;
    if (status == LINNET_OK)
        status = linnet_store_update(store, sign_all, &job, err);
    if (status == LINNET_OK) {
        linnet_buffer_append(ret_certificates, job.certificates.bytes, job.certificates.n_bytes);
        status = ret_certificates->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "certificates") : LINNET_OK;
    }
    if (status == LINNET_OK)
        *ret_n = job.n_requests;
    linnet_buffer_release(&job.certificates);
    linnet_store_close(store);
    linnet_identity_destroy(authority);
    return status;
}

/* ---- the list ---- */

typedef struct list_job {
    linnet_authority_report *report;
    const linnet_revocation *revoked;
    size_t capacity;
} list_job;

static linnet_status add_certified(void *context, const uint8_t *fields, size_t n_fields,
                                   const uint8_t *bytes, size_t n_bytes, linnet_error *err)
{
    list_job *job = context;
    linnet_authority_report *report = job->report;
    linnet_certified item = {.is_revoked = false};
    (void)fields;
    (void)n_fields;
    if (n_bytes != ISSUED_BYTES ||
        linnet_certificate_open(bytes, LINNET_SIGNED_CERTIFICATE_BYTES, &report->authority, 0,
                                &item.certificate) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT, "authority: the row of a certificate is damaged");
    item.is_revoked = linnet_revocation_contains(job->revoked, &item.certificate.device_id);
    if (report->n_certified == job->capacity) {
        size_t capacity = job->capacity ? 2 * job->capacity : 64;
        linnet_certified *grown = realloc(report->certified, capacity * sizeof(*grown));
        if (!grown)
            return linnet_fail(err, LINNET_ERR_NOMEM, "list of certificates");
        report->certified = grown;
        job->capacity = capacity;
    }
    report->certified[report->n_certified++] = item;
    return LINNET_OK;
}

static linnet_status list_read(linnet_store *store, const linnet_revocation *revoked,
                               linnet_authority_report *report, linnet_error *err)
{
    uint64_t makes_invites = 0;
    linnet_store_txn *txn = NULL;
    list_job job = {.report = report, .revoked = revoked};
    linnet_record_id prefix = linnet_record_of('d');
    linnet_status status = linnet_store_read_begin(store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_each(txn, &prefix, add_certified, &job, err);
    if (status == LINNET_OK)
        status = linnet_config_get_u64(txn, "makes_invites", &makes_invites, err);
    linnet_store_read_end(txn);
    report->makes_invites = makes_invites != 0;
    return status;
}

/* The authority's present revocation list; bytes are its storage. */
static linnet_status revoked_read(const char *directory, const linnet_public_key *authority,
                                  linnet_buffer *bytes, linnet_revocation *ret_list, linnet_error *err)
{
    char *path = linnet_path_join(directory, "revocation.list");
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "path");
    linnet_status status = linnet_file_read(path, LINNET_HELLO_BYTES_MAX, bytes, err);
    free(path);
    if (status == LINNET_ERR_NOT_FOUND)
        return LINNET_OK;
    if (status == LINNET_OK &&
        linnet_revocation_open(bytes->bytes, bytes->n_bytes, authority, ret_list) != LINNET_OK)
        status =
            linnet_fail(err, LINNET_ERR_FORMAT, "the revocation list is damaged; restore it from a backup");
    return status;
}

linnet_status linnet_authority_list(const char *directory, linnet_authority_report *ret_report,
                                    linnet_error *err)
{
    linnet_identity *authority = NULL;
    linnet_store *store = NULL;
    linnet_buffer bytes = {0};
    linnet_revocation revoked = {0};
    linnet_authority_report report = {.n_certified = 0};
    linnet_status status = authority_open(directory, &authority, &store, err);
    if (status == LINNET_OK) {
        report.authority = *linnet_identity_public_key(authority);
        status = revoked_read(directory, &report.authority, &bytes, &revoked, err);
    }
    report.revocation_number = revoked.number;
    if (status == LINNET_OK)
        status = list_read(store, &revoked, &report, err);
    linnet_store_close(store);
    linnet_identity_destroy(authority);
    linnet_buffer_release(&bytes);
    if (status != LINNET_OK)
        free(report.certified);
    else
        *ret_report = report; /* ownership moves to the caller */
    return status;
}

linnet_status linnet_authority_knows(const char *directory, const linnet_device_id *device, linnet_error *err)
{
    linnet_authority_report report;
    linnet_status status = linnet_authority_list(directory, &report, err);
    if (status != LINNET_OK)
        return status;
    bool is_known = report.n_certified == 0;
    for (size_t i = 0; i < report.n_certified && !is_known; i++)
        is_known = memcmp(&report.certified[i].certificate.device_id, device, sizeof(*device)) == 0;
    free(report.certified);
    return is_known ? LINNET_OK
                    : linnet_fail(err, LINNET_ERR_NOT_FOUND,
                                  "no such device; 'linnet-coordinator authority list' has those with a "
                                  "certificate");
}

/* ---- the consortium ---- */

static void write_members(const linnet_authority_report *report, linnet_buffer *text)
{
    char hex[2 * LINNET_PUBLIC_KEY_BYTES + 1], id[2 * LINNET_DEVICE_ID_BYTES + 1];
    linnet_hex_write(report->authority.bytes, LINNET_PUBLIC_KEY_BYTES, hex);
    linnet_buffer_append_format(text, "# linnet consortium\n# authority %s\n# revocation list %llu\n", hex,
                                (unsigned long long)report->revocation_number);
    for (size_t i = 0; i < report->n_certified; i++) {
        const linnet_certificate *c = &report->certified[i].certificate;
        if (report->certified[i].is_revoked)
            continue;
        linnet_hex_write(c->public_key.bytes, LINNET_PUBLIC_KEY_BYTES, hex);
        linnet_hex_write(c->device_id.bytes, LINNET_DEVICE_ID_BYTES, id);
        linnet_buffer_append_format(text, "%s # device %s, serial %llu\n", hex, id,
                                    (unsigned long long)c->serial);
    }
}

linnet_status linnet_authority_consortium(const char *directory, linnet_buffer *ret_text, linnet_error *err)
{
    linnet_identity *authority = NULL;
    linnet_authority_report report;
    linnet_buffer text = {0};
    char hex[2 * LINNET_SIGNATURE_BYTES + 1];
    linnet_status status = linnet_authority_list(directory, &report, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_authority_load(directory, &authority, err);
    write_members(&report, &text);
    if (status == LINNET_OK && text.failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "consortium");
    if (status == LINNET_OK) {
        linnet_signature signature =
            linnet_sign(authority, LINNET_LABEL_CONSORTIUM, text.bytes, text.n_bytes);
        linnet_hex_write(signature.bytes, sizeof(signature.bytes), hex);
        linnet_buffer_append(ret_text, text.bytes, text.n_bytes);
        linnet_buffer_append_format(ret_text, "%s%s\n", signature_mark, hex);
        status = ret_text->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "consortium") : LINNET_OK;
    }
    linnet_identity_destroy(authority);
    linnet_buffer_release(&text);
    free(report.certified);
    return status;
}

/* Lines that hold a key: all that do not start with '#'. */
static size_t count_keys(const char *text, size_t n)
{
    size_t n_keys = 0;
    for (size_t at = 0; at < n;) {
        const char *newline = memchr(text + at, '\n', n - at);
        n_keys += text[at] != '#' && text[at] != '\n';
        at = newline ? (size_t)(newline - text) + 1 : n;
    }
    return n_keys;
}

linnet_status linnet_consortium_verify(const void *text, size_t n_bytes, const linnet_public_key *authority,
                                       size_t *ret_n_keys, linnet_error *err)
{
    const char *chars = text;
    char hex[2 * LINNET_SIGNATURE_BYTES + 1];
    linnet_signature signature;
    size_t n_mark = sizeof(signature_mark) - 1, n_tail = n_mark + 2 * LINNET_SIGNATURE_BYTES + 1;
    if (n_bytes < n_tail || chars[n_bytes - 1] != '\n' ||
        memcmp(chars + n_bytes - n_tail, signature_mark, n_mark) != 0)
        return linnet_fail(err, LINNET_ERR_FORMAT, "consortium: the last line is no signature");
    memcpy(hex, chars + n_bytes - n_tail + n_mark, 2 * LINNET_SIGNATURE_BYTES);
    hex[2 * LINNET_SIGNATURE_BYTES] = '\0';
    if (linnet_hex_read(hex, signature.bytes, sizeof(signature.bytes)) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT, "consortium: the last line is no signature");
    if (linnet_verify(authority, LINNET_LABEL_CONSORTIUM, text, n_bytes - n_tail, &signature) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO,
                           "consortium: not signed by this authority, or changed since");
    *ret_n_keys = count_keys(chars, n_bytes - n_tail);
    return LINNET_OK;
}
