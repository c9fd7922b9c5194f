/* SPDX-License-Identifier: Apache-2.0 */
/* Invite codes: what is written is read back, slips of the hand are forgiven or found, everything else is
 * refused. */
#include "vectors.h"

#include "linnet/identity.h"

#include <ctype.h>

static linnet_invite sample(void)
{
    linnet_invite invite;
    uint8_t *bytes = (uint8_t *)&invite;
    for (size_t i = 0; i < sizeof(invite); i++)
        bytes[i] = (uint8_t)(i * 37 + 5);
    return invite;
}

static void write_sample(char text[LINNET_INVITE_TEXT_MAX])
{
    linnet_invite invite = sample();
    linnet_invite_write(&invite, text);
}

static void assert_reads_as_sample(const char *text)
{
    linnet_invite want = sample(), got;
    assert_int_equal(linnet_invite_read(text, &got), LINNET_OK);
    assert_memory_equal(&got, &want, sizeof(want));
}

static void assert_refused(const char *text)
{
    linnet_invite got, before;
    memset(&got, 0x5a, sizeof(got));
    before = got;
    if (linnet_invite_read(text, &got) != LINNET_ERR_FORMAT)
        fail_msg("accepted '%s'", text);
    assert_memory_equal(&got, &before, sizeof(got));
}

static void code_matches_the_second_implementation(void **state)
{
    (void)state;
    json_t *v = vectors_load("channel.json");
    char text[LINNET_INVITE_TEXT_MAX];
    linnet_invite invite, got;
    vector_copy(v, "token_id", invite.token.id, 16);
    vector_copy(v, "token_secret", invite.token.secret, 32);
    vector_copy(v, "coordinator_public", invite.coordinator.bytes, 32);
    vector_copy(v, "authority_public", invite.authority.bytes, 32);
    linnet_invite_write(&invite, text);
    assert_string_equal(text, vector_text(v, "invite"));
    assert_int_equal(linnet_invite_read(vector_text(v, "invite"), &got), LINNET_OK);
    assert_memory_equal(&got, &invite, sizeof(got));
    json_decref(v);
}

static void random_invites_survive_writing_and_reading(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        linnet_invite invite, got;
        char text[LINNET_INVITE_TEXT_MAX];
        linnet_random_bytes(&invite, sizeof(invite));
        linnet_invite_write(&invite, text);
        assert_true(strlen(text) < LINNET_INVITE_TEXT_MAX);
        assert_int_equal(linnet_invite_read(text, &got), LINNET_OK);
        assert_memory_equal(&got, &invite, sizeof(got));
    }
}

static void case_dashes_white_space_and_look_alikes_are_forgiven(void **state)
{
    (void)state;
    char text[LINNET_INVITE_TEXT_MAX], changed[2 * LINNET_INVITE_TEXT_MAX];
    write_sample(text);
    assert_reads_as_sample(text);

    size_t n = 0;
    for (const char *c = text; *c; c++)
        if (*c != '-')
            changed[n++] = (char)tolower((unsigned char)*c);
    changed[n] = '\0';
    assert_reads_as_sample(changed);
    for (size_t i = 0; i < n; i++)
        changed[i] = (char)toupper((unsigned char)changed[i]);
    assert_reads_as_sample(changed);

    n = 0;
    for (const char *c = text; *c; c++) {
        changed[n++] = *c == '-' ? ' ' : *c;
        if (n % 30 == 0)
            changed[n++] = '\n';
    }
    (void)snprintf(changed + n, sizeof(changed) - n, " \r\n");
    assert_reads_as_sample(changed);

    static const char look_alikes[][3] = {"1I", "1L", "1i", "1l", "0O", "0o"};
    for (size_t i = 0; i < ARRAY_LEN(look_alikes); i++) {
        assert_non_null(strchr(text + 8, look_alikes[i][0])); /* else nothing would be tested */
        for (n = 0; text[n]; n++)
            changed[n] = n > 7 && text[n] == look_alikes[i][0] ? look_alikes[i][1] : text[n];
        changed[n] = '\0';
        assert_reads_as_sample(changed);
    }
}

static void one_wrong_symbol_is_found(void **state)
{
    (void)state;
    static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    char text[LINNET_INVITE_TEXT_MAX], changed[LINNET_INVITE_TEXT_MAX];
    write_sample(text);
    for (size_t at = 8; text[at]; at++) {
        for (const char *c = alphabet; *c && text[at] != '-'; c++) {
            memcpy(changed, text, sizeof(changed));
            changed[at] = *c;
            if (*c != text[at])
                assert_refused(changed);
        }
    }
}

static void two_swapped_symbols_are_found(void **state)
{
    (void)state;
    char text[LINNET_INVITE_TEXT_MAX], changed[LINNET_INVITE_TEXT_MAX];
    write_sample(text);
    for (size_t at = 8; text[at + 1]; at++) {
        memcpy(changed, text, sizeof(changed));
        changed[at] = text[at + 1];
        changed[at + 1] = text[at];
        if (text[at] != text[at + 1] && text[at] != '-' && text[at + 1] != '-')
            assert_refused(changed);
    }
}

static void cut_and_lengthened_codes_are_refused(void **state)
{
    (void)state;
    char text[LINNET_INVITE_TEXT_MAX], changed[2 * LINNET_INVITE_TEXT_MAX];
    write_sample(text);
    for (size_t n = 0; n < strlen(text); n++) {
        memcpy(changed, text, n);
        changed[n] = '\0';
        assert_refused(changed);
    }
    (void)snprintf(changed, sizeof(changed), "%s0", text);
    assert_refused(changed);
    (void)snprintf(changed, sizeof(changed), "%s%s", text, text);
    assert_refused(changed);
    (void)snprintf(changed, sizeof(changed), "0%s", text);
    assert_refused(changed);
}

static void text_that_is_no_invite_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "-",
        "linnet",
        "linnet1",
        "linnet1-",
        "linnet2-00000000",
        "https://example.org/invite",
        "\xff\xfe",
        "linnet1-\xc3\xa9",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        assert_refused(texts[i]);
    char text[LINNET_INVITE_TEXT_MAX];
    static const char foreign[] = "Uu!@*_.:/[`{\x7f\x80\xff\x01";
    for (const char *c = foreign; *c; c++) {
        write_sample(text);
        text[20] = *c;
        assert_refused(text);
    }
    write_sample(text);
    text[6] = '2'; /* another version */
    assert_refused(text);
}

/* The last symbol holds one bit and four zeros: a code has exactly one text, apart from what is forgiven. */
static void padding_must_be_zero(void **state)
{
    (void)state;
    char text[LINNET_INVITE_TEXT_MAX];
    write_sample(text);
    char *last = text + strlen(text) - 1;
    assert_true(*last == '0' || *last == 'G');
    *last = *last == '0' ? '1' : 'H';
    assert_refused(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_matches_the_second_implementation),
        cmocka_unit_test(random_invites_survive_writing_and_reading),
        cmocka_unit_test(case_dashes_white_space_and_look_alikes_are_forgiven),
        cmocka_unit_test(one_wrong_symbol_is_found),
        cmocka_unit_test(two_swapped_symbols_are_found),
        cmocka_unit_test(cut_and_lengthened_codes_are_refused),
        cmocka_unit_test(text_that_is_no_invite_is_refused),
        cmocka_unit_test(padding_must_be_zero),
    };
    return cmocka_run_group_tests(tests, crypto_start, NULL);
}
