/* SPDX-License-Identifier: Apache-2.0 */

/* First contact. The key pair and the pins are committed before the request leaves, so that an answer that
 * was lost can be asked for again with the same invite and the same key: the authority issues one certificate
 * per invite, and the same request gets the same one. The invite's secret is wiped with the commit of the
 * certificate. */

#include "device_internal.h"

#include <stdio.h>

static linnet_status commit_identity(linnet_kv *kv, const identity_record *identity,
                                     const linnet_kv_item *more, size_t n_more, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_kv_item items[4];
    linnet_status status = device_identity_pack(identity, &bytes, err);
    if (status == LINNET_OK) {
        items[0] = (linnet_kv_item){KV_IDENTITY, bytes.bytes, bytes.n_bytes};
        if (n_more > 0)
            memcpy(items + 1, more, n_more * sizeof(*more));
        status = kv->put(kv->context, items, 1 + n_more, err);
    }
    if (bytes.n_bytes > 0)
        linnet_wipe(bytes.bytes, bytes.n_bytes);
    linnet_buffer_release(&bytes);
    return status;
}

/* The identity of an interrupted enrolment with this invite, or a fresh one. */
static linnet_status prepare(linnet_kv *kv, const linnet_invite *invite, const char *url,
                             uint32_t device_class, identity_record *ret_record,
                             linnet_identity **ret_identity, linnet_error *err)
{
    linnet_error none = {0};
    identity_record r = {0};
    linnet_status status = device_identity_load(kv, &r, &none);
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return linnet_fail(err, status, "%s", none.message);
    if (status == LINNET_OK && r.is_enrolled)
        return linnet_fail(err, LINNET_ERR_EXISTS,
                           "this device is enrolled already at %s; 'forget' erases that", r.url);
    bool goes_on = status == LINNET_OK && memcmp(r.token.id, invite->token.id, sizeof(r.token.id)) == 0;
    if (!goes_on)
        linnet_random_bytes(r.seed, sizeof(r.seed));
    r.coordinator = invite->coordinator;
    r.authority = invite->authority;
    r.token = invite->token;
    r.device_class = device_class;
    memset(r.url, 0, sizeof(r.url));
    memcpy(r.url, url, strlen(url));
    status = linnet_identity_from_seed(r.seed, ret_identity, err);
    if (status == LINNET_OK)
        status = commit_identity(kv, &r, NULL, 0, err);
    if (status == LINNET_OK)
        *ret_record = r;
    linnet_wipe(&r, sizeof(r));
    return status;
}

/* The certificate must be the authority's, for this key. Its dates are not compared with the clock here: a
 * device's clock may be wrong before its first contact, and the coordinator compares them anyway. */
static linnet_status take_certificate(const linnet_answer *answer, const linnet_identity *identity,
                                      identity_record *record, linnet_error *err)
{
    linnet_certificate certificate;
    if (answer->code == LINNET_ANSWER_WAIT || answer->code == LINNET_ANSWER_NO_SPACE)
        return linnet_fail(err, LINNET_ERR_AGAIN, "the coordinator asks to come back in %u seconds: %s",
                           (unsigned)(answer->retry_after_ms / 1000), answer->message);
    if (answer->code != LINNET_ANSWER_OK)
        return linnet_fail(err, LINNET_ERR_DENIED, "the coordinator refused to enroll this device: %s",
                           answer->message);
    if (answer->n_certificate == 0)
        return linnet_fail(err, LINNET_ERR_FORMAT, "the coordinator sent no certificate");
    linnet_status status = linnet_certificate_open(answer->certificate, answer->n_certificate,
                                                   &record->authority, 0, &certificate);
    if (status != LINNET_OK)
        return linnet_fail(err, status, "the certificate is not signed by the pinned authority");
    if (memcmp(certificate.public_key.bytes, linnet_identity_public_key(identity)->bytes,
               LINNET_PUBLIC_KEY_BYTES) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "the certificate is for another device");
    memcpy(record->certificate, answer->certificate, sizeof(record->certificate));
    return LINNET_OK;
}

static linnet_status exchange(linnet_http_fn *http, void *http_context, const hello_result *hello,
                              const linnet_identity *identity, identity_record *record, linnet_error *err)
{
    uint8_t csr_bytes[LINNET_SIGNED_CSR_BYTES];
    linnet_csr csr = {.public_key = *linnet_identity_public_key(identity),
                      .device_class = record->device_class,
                      .coordinator = record->coordinator};
    linnet_buffer storage = {0};
    request_result result = {0};
    memcpy(csr.token_id, record->token.id, sizeof(csr.token_id));
    linnet_csr_sign(&csr, &record->token, identity, csr_bytes);
    const linnet_frame frame = {
        .header = csr_bytes, .n_header = 0, .raw = csr_bytes, .n_raw = sizeof(csr_bytes)};
    const request_route route = {.identity = identity,
                                 .channel_key = hello->hello.channel_key,
                                 .http = http,
                                 .http_context = http_context,
                                 .path = LINNET_PATH_ENROLL};
    linnet_status status = device_request(&route, &frame, &storage, &result, err);
    if (status == LINNET_OK)
        status = take_certificate(&result.answer, identity, record, err);
    linnet_buffer_release(&storage);
    return status;
}

linnet_status linnet_device_enroll(linnet_kv *kv, linnet_http_fn *http, void *http_context,
                                   const linnet_invite *invite, const char *coordinator_url,
                                   uint32_t device_class, uint64_t now_s, linnet_error *err)
{
    identity_record record = {0};
    linnet_identity *identity = NULL;
    linnet_buffer storage = {0};
    hello_result hello = {0};
    if (strlen(coordinator_url) >= sizeof(record.url))
        return linnet_fail(err, LINNET_ERR_ARG, "the coordinator's URL has more than %zu bytes",
                           sizeof(record.url) - 1);
    linnet_status status = prepare(kv, invite, coordinator_url, device_class, &record, &identity, err);
    if (status == LINNET_OK)
        status = device_hello(http, http_context, 0, &record, false, &storage, &hello, err);
    if (status == LINNET_OK)
        status = exchange(http, http_context, &hello, identity, &record, err);
    if (status == LINNET_OK) {
        memcpy(record.task, hello.hello.task, sizeof(record.task));
        record.operator_is_authority = hello.hello.operator_is_authority;
        record.enrolled_s = now_s;
        record.is_enrolled = true;
        linnet_wipe(&record.token, sizeof(record.token));
        const linnet_kv_item item = {KV_CHANNEL_KEY, hello.hello.channel_key,
                                     LINNET_SIGNED_CHANNEL_KEY_BYTES};
        status = commit_identity(kv, &record, &item, 1, err);
    }
    linnet_identity_destroy(identity);
    linnet_buffer_release(&storage);
    linnet_wipe(&record, sizeof(record));
    return status;
}
