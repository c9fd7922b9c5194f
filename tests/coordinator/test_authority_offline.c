/* SPDX-License-Identifier: Apache-2.0 */
/* The enrolment authority on a machine of its own: files in, files out, and what it never signs. */
#include "fixture.h"

#include "linnet/authority.h"
#include "linnet/file.h"

#define REQUEST_BYTES ((size_t)8 + LINNET_SIGNED_CSR_BYTES)

/* A coordinator whose authority lies elsewhere, in `directory`. */
typedef struct offline {
    scene s;
    char directory[128];
    linnet_public_key authority;
} offline;

static void offline_begin(offline *o)
{
    linnet_error err = {0};
    linnet_plan plan = scene_plan();
    scene_begin(&o->s, &plan);
    scene_close(&o->s);
    (void)snprintf(o->directory, sizeof(o->directory), "%s/ea", o->s.folder);
    (void)snprintf(o->s.state, sizeof(o->s.state), "%s/state2", o->s.folder);
    assert_ok(linnet_authority_init(o->directory, &o->authority, &err), &err);
    assert_ok(linnet_coordinator_init(o->s.state, &plan, o->s.model, &o->authority, o->s.now_ms, &err), &err);
    scene_open(&o->s);
    o->s.key = scene_status(&o->s).coordinator;
    o->s.authority = o->authority;
    assert_false(scene_status(&o->s).operator_is_authority);
}

static uint64_t now_s(const offline *o)
{
    return (uint64_t)(o->s.now_ms / 1000);
}

/* n invites of the authority, told to the coordinator. */
static void invites_make(offline *o, uint64_t n, linnet_invite *ret_invites)
{
    linnet_error err = {0};
    linnet_buffer texts = {0}, tokens = {0};
    size_t n_taken = 0;
    assert_ok(linnet_authority_invite(o->directory, &o->s.key, n, now_s(o) + 3600, &texts, &tokens, &err),
              &err);
    assert_ok(linnet_coordinator_import(o->s.coordinator, tokens.bytes, tokens.n_bytes, &n_taken, &err),
              &err);
    assert_int_equal(n_taken, n);
    linnet_buffer_append_u8(&texts, 0);
    char *line = (char *)texts.bytes;
    for (uint64_t i = 0; i < n; i++) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        assert_int_equal(linnet_invite_read(line, &ret_invites[i]), LINNET_OK);
        /* the coordinator is told which invites there are, never their secrets */
        for (size_t at = 0; at + LINNET_TOKEN_SECRET_BYTES <= tokens.n_bytes; at++)
            assert_memory_not_equal(tokens.bytes + at, ret_invites[i].token.secret,
                                    LINNET_TOKEN_SECRET_BYTES);
        line = end + 1;
    }
    linnet_buffer_release(&texts);
    linnet_buffer_release(&tokens);
}

static linnet_status sign(const offline *o, const linnet_buffer *requests, uint64_t now,
                          linnet_buffer *certificates, linnet_error *err)
{
    size_t n = 0;
    return linnet_authority_sign(o->directory, requests->bytes, requests->n_bytes, now, certificates, &n,
                                 err);
}

static void request_append(const offline *o, const device *d, const linnet_enrol_token *token,
                           linnet_buffer *requests)
{
    uint8_t bytes[LINNET_SIGNED_CSR_BYTES];
    linnet_csr csr = {.public_key = *linnet_identity_public_key(d->identity), .coordinator = o->s.key};
    memcpy(csr.token_id, token->id, sizeof(csr.token_id));
    linnet_csr_sign(&csr, token, d->identity, bytes);
    linnet_buffer_append_le64(requests, 1);
    linnet_buffer_append(requests, bytes, sizeof(bytes));
}

static void a_round_trip_by_files_enrols(void **state)
{
    (void)state;
    offline o;
    device d[2];
    linnet_invite invites[2];
    linnet_error err = {0};
    linnet_buffer requests = {0}, certificates = {0};
    size_t n = 0;
    offline_begin(&o);
    invites_make(&o, 2, invites);
    for (size_t i = 0; i < 2; i++) {
        device_begin(&d[i], &o.s, i);
        assert_int_equal(device_enroll_with(&d[i], &invites[i]), 200);
        assert_int_equal(d[i].answer.code, LINNET_ANSWER_WAIT);
    }
    assert_ok(linnet_coordinator_requests(o.s.coordinator, &requests, &n, &err), &err);
    assert_int_equal(n, 2);
    scene_close(&o.s); /* the authority needs nothing but its directory and the file */
    assert_ok(sign(&o, &requests, now_s(&o), &certificates, &err), &err);
    scene_open(&o.s);
    assert_ok(linnet_coordinator_import(o.s.coordinator, certificates.bytes, certificates.n_bytes, &n, &err),
              &err);
    assert_int_equal(n, 2);
    for (size_t i = 0; i < 2; i++) {
        linnet_certificate certificate;
        device_hello(&d[i]);
        assert_int_equal(device_enroll_with(&d[i], &invites[i]), 200);
        assert_int_equal(d[i].answer.code, LINNET_ANSWER_OK);
        assert_int_equal(linnet_certificate_open(d[i].answer.certificate, d[i].answer.n_certificate,
                                                 &o.authority, now_s(&o), &certificate),
                         LINNET_OK);
        assert_true(certificate.serial == 1 || certificate.serial == 2);
        assert_int_equal(certificate.device_class, 1);
        device_poll(&d[i]);
        device_end(&d[i]);
    }
    linnet_buffer_release(&requests);
    linnet_buffer_release(&certificates);
    scene_end(&o.s);
}

static void one_token_gets_one_certificate(void **state)
{
    (void)state;
    offline o;
    device a, b;
    linnet_invite invites[2];
    linnet_error err = {0};
    linnet_buffer first = {0}, second = {0}, other = {0}, once = {0}, again = {0}, none = {0};
    offline_begin(&o);
    invites_make(&o, 2, invites);
    device_begin(&a, &o.s, 0);
    device_begin(&b, &o.s, 1);
    request_append(&o, &a, &invites[0].token, &first);
    request_append(&o, &b, &invites[0].token, &second);
    request_append(&o, &a, &invites[1].token, &other);
    assert_ok(sign(&o, &first, now_s(&o), &once, &err), &err);
    /* the same request again: the same bytes, even later */
    assert_ok(sign(&o, &first, now_s(&o) + 100000, &again, &err), &err);
    assert_int_equal(once.n_bytes, again.n_bytes);
    assert_memory_equal(once.bytes, again.bytes, once.n_bytes);
    /* another device under the token, and another token under the device's key */
    assert_int_equal(sign(&o, &second, now_s(&o), &none, &err), LINNET_ERR_DENIED);
    assert_non_null(strstr(err.message, "request 1: its invite was used by another device"));
    assert_int_equal(sign(&o, &other, now_s(&o), &none, &err), LINNET_ERR_DENIED);
    assert_int_equal(none.n_bytes, 0);
    linnet_buffer *const all[] = {&first, &second, &other, &once, &again, &none};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        linnet_buffer_release(all[i]);
    device_end(&a);
    device_end(&b);
    scene_end(&o.s);
}

static void what_a_coordinator_makes_up_is_not_signed(void **state)
{
    (void)state;
    offline o;
    device a, b;
    linnet_invite invites[2];
    linnet_error err = {0};
    linnet_enrol_token made_up = {{7}, {9}}, guessed;
    offline_begin(&o);
    invites_make(&o, 2, invites);
    guessed = invites[1].token;
    guessed.secret[0] ^= 1;
    device_begin(&a, &o.s, 0);
    device_begin(&b, &o.s, 1);
    const struct {
        const linnet_enrol_token *token;
        uint64_t later_s;
        linnet_status want;
        const char *words;
    } cases[] = {{&made_up, 0, LINNET_ERR_DENIED, "none of this authority's"},
                 {&guessed, 0, LINNET_ERR_CRYPTO, "secret"},
                 {&invites[1].token, 7200, LINNET_ERR_EXPIRED, "expired"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer requests = {0}, certificates = {0};
        request_append(&o, &a, &invites[0].token, &requests); /* all or nothing: the good one waits, too */
        request_append(&o, &b, cases[i].token, &requests);
        linnet_authority_report report;
        if (cases[i].later_s > 0) {
            memmove(requests.bytes, requests.bytes + REQUEST_BYTES, REQUEST_BYTES);
            requests.n_bytes -= REQUEST_BYTES;
        }
        linnet_status got = sign(&o, &requests, now_s(&o) + cases[i].later_s, &certificates, &err);
        assert_int_equal(got, cases[i].want);
        assert_non_null(strstr(err.message, cases[i].words));
        assert_int_equal(certificates.n_bytes, 0);
        assert_ok(linnet_authority_list(o.directory, &report, &err), &err);
        assert_int_equal(report.n_certified, 0);
        assert_true(report.makes_invites);
        free(report.certified);
        linnet_buffer_release(&requests);
    }
    /* neither a file of another length */
    linnet_buffer certificates = {0};
    linnet_buffer cut = {0};
    request_append(&o, &a, &invites[0].token, &cut);
    cut.n_bytes--;
    assert_int_equal(sign(&o, &cut, now_s(&o), &certificates, &err), LINNET_ERR_FORMAT);
    linnet_buffer_release(&cut);
    device_end(&a);
    device_end(&b);
    scene_end(&o.s);
}

/* Nobody may take up the place of an invite that only the authority can judge but who has its id. */
static void unknown_invites_do_not_even_wait(void **state)
{
    (void)state;
    offline o;
    device a;
    linnet_invite invite[1];
    offline_begin(&o);
    invites_make(&o, 1, invite);
    device_begin(&a, &o.s, 0);
    invite->token.id[3] ^= 1;
    assert_int_equal(device_enroll_with(&a, invite), 200);
    assert_int_equal(a.answer.code, LINNET_ANSWER_REFUSED);
    device_end(&a);
    scene_end(&o.s);
}

static void where_the_key_is_invites_are_made_there(void **state)
{
    (void)state;
    scene s;
    linnet_error err = {0};
    size_t n = 0;
    uint8_t tokens[LINNET_TOKENS_HEAD_BYTES + LINNET_TOKEN_ENTRY_BYTES] = LINNET_TOKENS_MAGIC;
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    assert_true(scene_status(&s).operator_is_authority);
    assert_int_equal(linnet_coordinator_import(s.coordinator, tokens, sizeof(tokens), &n, &err),
                     LINNET_ERR_DENIED);
    scene_end(&s);
}

static void the_consortium_is_the_members_and_signed(void **state)
{
    (void)state;
    offline o;
    device d[3];
    linnet_invite invites[3];
    linnet_error err = {0};
    linnet_buffer requests = {0}, certificates = {0}, list = {0}, text = {0};
    linnet_device_id stranger = {{3}};
    char hex[2 * LINNET_PUBLIC_KEY_BYTES + 1];
    size_t n = 0;
    offline_begin(&o);
    invites_make(&o, 3, invites);
    for (size_t i = 0; i < 3; i++) {
        device_begin(&d[i], &o.s, i);
        request_append(&o, &d[i], &invites[i].token, &requests);
    }
    assert_ok(sign(&o, &requests, now_s(&o), &certificates, &err), &err);
    assert_int_equal(linnet_authority_revoke(o.directory, &stranger, &list, &err), LINNET_ERR_NOT_FOUND);
    assert_ok(linnet_authority_revoke(o.directory, &d[1].id, &list, &err), &err);
    assert_ok(linnet_authority_consortium(o.directory, &text, &err), &err);
    assert_ok(linnet_consortium_verify(text.bytes, text.n_bytes, &o.authority, &n, &err), &err);
    assert_int_equal(n, 2);
    for (size_t i = 0; i < 3; i++) {
        linnet_hex_write(linnet_identity_public_key(d[i].identity)->bytes, LINNET_PUBLIC_KEY_BYTES, hex);
        linnet_buffer copy = {0};
        linnet_buffer_append(&copy, text.bytes, text.n_bytes);
        linnet_buffer_append_u8(&copy, 0);
        assert_int_equal(strstr((char *)copy.bytes, hex) != NULL, i != 1);
        linnet_buffer_release(&copy);
        device_end(&d[i]);
    }
    assert_int_equal(linnet_consortium_verify(text.bytes, text.n_bytes, &o.s.key, &n, &err),
                     LINNET_ERR_CRYPTO);
    for (size_t at = 0; at < text.n_bytes; at++) {
        text.bytes[at] ^= 1;
        if (linnet_consortium_verify(text.bytes, text.n_bytes, &o.authority, &n, &err) == LINNET_OK)
            fail_msg("byte %zu changed, and the list is still signed", at);
        text.bytes[at] ^= 1;
        if (linnet_consortium_verify(text.bytes, at, &o.authority, &n, &err) == LINNET_OK)
            fail_msg("cut at %zu, and the list is still signed", at);
    }
    linnet_buffer *const all[] = {&requests, &certificates, &list, &text};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        linnet_buffer_release(all[i]);
    scene_end(&o.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_trip_by_files_enrols),
        cmocka_unit_test(one_token_gets_one_certificate),
        cmocka_unit_test(what_a_coordinator_makes_up_is_not_signed),
        cmocka_unit_test(unknown_invites_do_not_even_wait),
        cmocka_unit_test(where_the_key_is_invites_are_made_there),
        cmocka_unit_test(the_consortium_is_the_members_and_signed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
