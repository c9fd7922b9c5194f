/* SPDX-License-Identifier: Apache-2.0 */
/* Invites, certificates, revocation, and who may speak at all. */
#include "fixture.h"

#include "linnet/authority.h"

static void an_invite_makes_one_certificate(void **state)
{
    (void)state;
    scene s;
    device a;
    linnet_plan plan = scene_plan();
    linnet_certificate certificate;
    scene_begin(&s, &plan);
    device_enrolled(&a, &s, 0);
    assert_int_equal(linnet_certificate_open(a.answer.certificate, a.answer.n_certificate, &s.authority,
                                             (uint64_t)(s.now_ms / 1000), &certificate),
                     LINNET_OK);
    assert_memory_equal(certificate.public_key.bytes, linnet_identity_public_key(a.identity)->bytes, 32);
    assert_int_equal(certificate.serial, 1);
    assert_int_equal(scene_status(&s).n_devices, 1);
    assert_int_equal(scene_status(&s).n_invites_open, 0);
    device_end(&a);
    scene_end(&s);
}

static void a_lost_answer_can_be_asked_for_again(void **state)
{
    (void)state;
    scene s;
    device a;
    linnet_plan plan = scene_plan();
    uint8_t first[LINNET_SIGNED_CERTIFICATE_BYTES];
    scene_begin(&s, &plan);
    device_begin(&a, &s, 0);
    linnet_invite invite = scene_invite(&s, 60);
    assert_int_equal(device_enroll_with(&a, &invite), 200);
    memcpy(first, a.answer.certificate, sizeof(first));
    s.now_ms += 3600 * 1000; /* even after the invite's life: it was used in time */
    scene_reopen(&s);
    device_hello(&a);
    assert_int_equal(device_enroll_with(&a, &invite), 200);
    assert_int_equal(a.answer.n_certificate, sizeof(first));
    assert_memory_equal(a.answer.certificate, first, sizeof(first));
    assert_int_equal(scene_status(&s).n_devices, 1);
    device_end(&a);
    scene_end(&s);
}

static void what_is_no_invite_is_refused(void **state)
{
    (void)state;
    scene s;
    device a, b;
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    device_begin(&a, &s, 0);
    device_begin(&b, &s, 1);
    linnet_invite used = scene_invite(&s, 60), expired = scene_invite(&s, 60), unknown = used,
                  guessed = scene_invite(&s, 60), foreign = scene_invite(&s, 60);
    unknown.token.id[0] ^= 1;
    guessed.token.secret[0] ^= 1;
    foreign.coordinator.bytes[0] ^= 1;
    assert_int_equal(device_enroll_with(&a, &used), 200);
    assert_int_equal(a.answer.code, LINNET_ANSWER_OK);
    const struct {
        const char *name;
        const linnet_invite *invite;
        int64_t later_ms;
        const char *word;
    } cases[] = {
        {"used by another key", &used, 0, "already used"},
        {"never made", &unknown, 0, "unknown"},
        {"wrong secret", &guessed, 0, "unknown"},
        {"another coordinator's", &foreign, 0, "another coordinator"},
        {"expired", &expired, 61000, "expired"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        s.now_ms += cases[i].later_ms;
        assert_int_equal(device_enroll_with(&b, cases[i].invite), 200);
        if (b.answer.code != LINNET_ANSWER_REFUSED || !strstr(b.answer.message, cases[i].word) ||
            b.answer.n_certificate != 0)
            fail_msg("%s: code %u, '%s'", cases[i].name, b.answer.code, b.answer.message);
    }
    assert_int_equal(scene_status(&s).n_devices, 1);
    device_end(&a);
    device_end(&b);
    scene_end(&s);
}

static void strangers_and_forgers_get_401(void **state)
{
    (void)state;
    scene s;
    device a, stranger;
    linnet_plan plan = scene_plan();
    linnet_checkin checkin = {0};
    scene_begin(&s, &plan);
    device_enrolled(&a, &s, 0);
    device_begin(&stranger, &s, 1);
    assert_int_equal(device_checkin_with(&stranger, &checkin), 401);
    /* a certificate request in somebody else's envelope */
    linnet_invite invite = scene_invite(&s, 60);
    uint8_t bytes[LINNET_SIGNED_CSR_BYTES];
    linnet_csr csr = {.public_key = *linnet_identity_public_key(a.identity),
                      .coordinator = invite.coordinator};
    memcpy(csr.token_id, invite.token.id, sizeof(csr.token_id));
    linnet_csr_sign(&csr, &invite.token, a.identity, bytes);
    assert_int_equal(device_call(&stranger, LINNET_PATH_ENROLL, NULL, bytes, sizeof(bytes)), 401);
    /* every byte of a sealed request counts */
    assert_int_equal(device_checkin_with(&a, &checkin), 200);
    for (size_t at = 0; at < a.wire.n_bytes; at += 41) {
        a.wire.bytes[at] ^= 1;
        int status = scene_exchange(&s, "POST", LINNET_PATH_CHECKIN, a.wire.bytes, a.wire.n_bytes, NULL);
        if (status != 400 && status != 410)
            fail_msg("byte %zu changed: %d", at, status);
        a.wire.bytes[at] ^= 1;
    }
    /* a request for one path is none for another */
    assert_int_equal(scene_exchange(&s, "POST", LINNET_PATH_UPLOAD, a.wire.bytes, a.wire.n_bytes, NULL), 400);
    device_end(&a);
    device_end(&stranger);
    scene_end(&s);
}

static void a_revoked_device_is_told_and_stays_out(void **state)
{
    (void)state;
    scene s;
    device d[2];
    linnet_error err = {0};
    linnet_revocation list;
    linnet_device_id unknown = {{1}};
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 2, &s);
    device_contribute(&d[0]);
    assert_int_equal(linnet_coordinator_revoke(s.coordinator, &unknown, &err), LINNET_ERR_NOT_FOUND);
    assert_ok(linnet_coordinator_revoke(s.coordinator, &d[0].id, &err), &err);
    assert_ok(linnet_coordinator_revoke(s.coordinator, &d[0].id, &err),
              &err); /* once is enough, twice is fine */
    linnet_checkin checkin = {0};
    assert_int_equal(device_checkin_with(&d[0], &checkin), 200);
    assert_int_equal(d[0].answer.code, LINNET_ANSWER_REVOKED);
    assert_int_equal(
        linnet_revocation_open(d[0].answer.revocation, d[0].answer.n_revocation, &s.authority, &list),
        LINNET_OK);
    assert_int_equal(list.number, 1);
    assert_true(linnet_revocation_contains(&list, &d[0].id));
    assert_int_equal(device_upload_part(&d[0], 0, 8), LINNET_ANSWER_REVOKED);
    /* the other goes on, and what was accepted before stays */
    device_contribute(&d[1]);
    s.now_ms += 61000;
    (void)scene_tick(&s);
    assert_int_equal(scene_round(&s, 1).accepted, 2);
    assert_string_equal(scene_round(&s, 1).state, "closed");
    /* the next announcement names the list */
    device_join(&d[1]);
    assert_int_equal(d[1].announcement.revocation_number, 1);
    devices_end(d, 2);
    scene_end(&s);
}

static void an_authority_elsewhere_signs_files(void **state)
{
    (void)state;
    scene s;
    device a;
    linnet_error err = {0};
    char directory[128];
    linnet_public_key key;
    linnet_buffer requests = {0}, certificates = {0}, list = {0};
    size_t n = 0;
    linnet_checkin checkin = {0};
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    scene_close(&s);
    (void)snprintf(directory, sizeof(directory), "%s/ea", s.folder);
    (void)snprintf(s.state, sizeof(s.state), "%s/state2", s.folder);
    assert_ok(linnet_authority_init(directory, &key, &err), &err);
    assert_int_equal(linnet_authority_init(directory, &key, &err), LINNET_ERR_EXISTS);
    assert_ok(linnet_coordinator_init(s.state, &plan, s.model, &key, s.now_ms, &err), &err);
    scene_open(&s);
    s.key = scene_status(&s).coordinator;
    assert_false(scene_status(&s).operator_is_authority);
    device_begin(&a, &s, 0);
    linnet_invite invite = scene_invite(&s, 60);
    assert_int_equal(device_enroll_with(&a, &invite), 200);
    assert_int_equal(a.answer.code, LINNET_ANSWER_WAIT);
    assert_int_equal(device_checkin_with(&a, &checkin), 401); /* no certificate yet */
    assert_ok(linnet_coordinator_requests(s.coordinator, &requests, &n, &err), &err);
    assert_int_equal(n, 1);
    assert_ok(linnet_authority_sign(directory, requests.bytes, requests.n_bytes, (uint64_t)(s.now_ms / 1000),
                                    &certificates, &n, &err),
              &err);
    requests.bytes[20] ^= 1;
    assert_int_equal(linnet_authority_sign(directory, requests.bytes, requests.n_bytes, 0, &list, &n, &err),
                     LINNET_ERR_CRYPTO);
    certificates.bytes[60] ^= 1;
    assert_int_equal(
        linnet_coordinator_import(s.coordinator, certificates.bytes, certificates.n_bytes, &n, &err),
        LINNET_ERR_CRYPTO);
    certificates.bytes[60] ^= 1;
    assert_ok(linnet_coordinator_import(s.coordinator, certificates.bytes, certificates.n_bytes, &n, &err),
              &err);
    assert_int_equal(device_enroll_with(&a, &invite), 200);
    assert_int_equal(a.answer.code, LINNET_ANSWER_OK);
    assert_int_equal(a.answer.n_certificate, LINNET_SIGNED_CERTIFICATE_BYTES);
    assert_int_equal(device_checkin_with(&a, &checkin), 200);
    assert_int_equal(linnet_coordinator_revoke(s.coordinator, &a.id, &err), LINNET_ERR_DENIED);
    assert_ok(linnet_authority_revoke(directory, &a.id, &list, &err), &err);
    assert_ok(linnet_coordinator_import(s.coordinator, list.bytes, list.n_bytes, &n, &err), &err);
    assert_int_equal(linnet_coordinator_import(s.coordinator, list.bytes, list.n_bytes, &n, &err),
                     LINNET_ERR_CONFLICT);
    assert_int_equal(device_checkin_with(&a, &checkin), 200);
    assert_int_equal(a.answer.code, LINNET_ANSWER_REVOKED);
    linnet_buffer_release(&requests);
    linnet_buffer_release(&certificates);
    linnet_buffer_release(&list);
    device_end(&a);
    scene_end(&s);
}

static void channel_keys_rotate_and_their_secrets_go(void **state)
{
    (void)state;
    scene s;
    device a;
    char path[160];
    uint8_t old[LINNET_SIGNED_CHANNEL_KEY_BYTES];
    linnet_checkin checkin = {0};
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    device_enrolled(&a, &s, 0);
    memcpy(old, a.channel_key, sizeof(old));
    s.now_ms += (int64_t)4 * 24 * 3600 * 1000;
    (void)scene_tick(&s);
    assert_int_equal(device_checkin_with(&a, &checkin), 200); /* the previous key still opens */
    assert_int_equal(a.answer.n_channel_key, sizeof(old));
    assert_memory_not_equal(a.answer.channel_key, old, sizeof(old));
    device_hello(&a);
    assert_memory_not_equal(a.channel_key, old, sizeof(old));
    uint8_t newer[LINNET_SIGNED_CHANNEL_KEY_BYTES];
    memcpy(newer, a.channel_key, sizeof(newer));
    s.now_ms += (int64_t)(3 * 24 + 1) * 3600 * 1000; /* the first is over, the second is not */
    memcpy(a.channel_key, old, sizeof(old));
    assert_int_equal(device_checkin_with(&a, &checkin), 410); /* even before a tick */
    (void)scene_tick(&s);
    assert_int_equal(device_checkin_with(&a, &checkin), 410);
    (void)snprintf(path, sizeof(path), "%s/channel/1.key", s.state);
    assert_int_equal(access(path, F_OK), -1);
    memcpy(a.channel_key, newer, sizeof(newer));
    assert_int_equal(device_checkin_with(&a, &checkin), 200);
    scene_reopen(&s);
    assert_int_equal(device_checkin_with(&a, &checkin), 200);
    device_end(&a);
    scene_end(&s);
}

static void paths_and_methods_are_what_they_are(void **state)
{
    (void)state;
    scene s;
    linnet_plan plan = scene_plan();
    char object[128];
    static uint8_t large[LINNET_REQUEST_BYTES_MAX + 1];
    scene_begin(&s, &plan);
    const struct {
        const char *method, *path;
        size_t n_body;
        int want;
    } cases[] = {
        {"GET", "/", 0, 404},
        {"GET", "/v1/hello/", 0, 404},
        {"POST", LINNET_PATH_HELLO, 0, 405},
        {"GET", LINNET_PATH_CHECKIN, 0, 405},
        {"PUT", LINNET_PATH_UPLOAD, 0, 405},
        {"POST", LINNET_PATH_CHECKIN, 0, 400},
        {"POST", LINNET_PATH_CHECKIN, 300, 400},
        {"POST", LINNET_PATH_UPLOAD, sizeof(large), 413},
        {"GET", "/v1/objects/", 0, 404},
        {"GET", "/v1/objects/../coordinator.key", 0, 404},
        {"GET", "/v1/objects/00000000000000000000000000000000000000000000000000000000000000", 0, 404},
        {"GET", "/v1/objects/0000000000000000000000000000000000000000000000000000000000000000", 0, 404},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int got = scene_exchange(&s, cases[i].method, cases[i].path, large, cases[i].n_body, NULL);
        if (got != cases[i].want)
            fail_msg("%s %s: %d, want %d", cases[i].method, cases[i].path, got, cases[i].want);
    }
    linnet_coordinator_report report = scene_status(&s);
    const struct {
        const linnet_hash *name;
        linnet_label label;
    } objects[] = {{&report.adapter, LINNET_LABEL_OBJECT}, {&report.plan, LINNET_LABEL_PLAN}};
    for (size_t i = 0; i < ARRAY_LEN(objects); i++) {
        linnet_buffer whole = {0};
        (void)snprintf(object, sizeof(object), "%s", LINNET_PATH_OBJECT);
        linnet_hex_write(objects[i].name->bytes, 32, object + strlen(object));
        assert_int_equal(scene_exchange(&s, "GET", object, NULL, 0, &whole), 200);
        linnet_hash hash = linnet_hash_of(objects[i].label, whole.bytes, whole.n_bytes);
        assert_memory_equal(hash.bytes, objects[i].name->bytes, 32);
        linnet_http_request request = {.method = "GET", .path = object, .range_first = 100};
        linnet_http_response response;
        linnet_coordinator_handle(s.coordinator, s.now_ms, &request, &response);
        assert_int_equal(response.status, 206);
        assert_int_equal(response.body.n_bytes, whole.n_bytes - 100);
        assert_memory_equal(response.body.bytes, whole.bytes + 100, whole.n_bytes - 100);
        linnet_http_response_release(&response);
        request.range_first = whole.n_bytes;
        linnet_coordinator_handle(s.coordinator, s.now_ms, &request, &response);
        assert_int_equal(response.status, 416);
        linnet_http_response_release(&response);
        linnet_buffer_release(&whole);
    }
    scene_end(&s);
}

static void init_keeps_off_what_is_there(void **state)
{
    (void)state;
    scene s;
    linnet_error err = {0};
    char other[128], file[160];
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    scene_close(&s);
    assert_int_equal(linnet_coordinator_init(s.state, &plan, s.model, NULL, s.now_ms, &err),
                     LINNET_ERR_EXISTS);
    scene_open(&s); /* and it still opens */
    (void)snprintf(other, sizeof(other), "%s/other", s.folder);
    (void)snprintf(file, sizeof(file), "%s/none.gguf", s.folder);
    assert_int_equal(linnet_coordinator_init(other, &plan, file, NULL, s.now_ms, &err), LINNET_ERR_NOT_FOUND);
    assert_int_equal(access(other, F_OK), -1); /* a failure leaves nothing behind */
    plan.has_base_hash = true;
    assert_int_equal(linnet_coordinator_init(other, &plan, s.model, NULL, s.now_ms, &err),
                     LINNET_ERR_MISMATCH);
    assert_int_equal(access(other, F_OK), -1);
    linnet_coordinator *c = NULL;
    const linnet_coordinator_options options = {.serve = true};
    assert_int_equal(linnet_coordinator_open(other, &options, s.now_ms, &c, &err), LINNET_ERR_NOT_FOUND);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_invite_makes_one_certificate),
        cmocka_unit_test(a_lost_answer_can_be_asked_for_again),
        cmocka_unit_test(what_is_no_invite_is_refused),
        cmocka_unit_test(strangers_and_forgers_get_401),
        cmocka_unit_test(a_revoked_device_is_told_and_stays_out),
        cmocka_unit_test(an_authority_elsewhere_signs_files),
        cmocka_unit_test(channel_keys_rotate_and_their_secrets_go),
        cmocka_unit_test(paths_and_methods_are_what_they_are),
        cmocka_unit_test(init_keeps_off_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
