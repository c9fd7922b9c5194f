/* SPDX-License-Identifier: Apache-2.0 */
/* Policies and consortium lists: what is read, what is refused and how it is said, and what every
 * floor means. */
#include "linnet/device.h"

#include <locale.h>
#include <math.h>

#include "testing.h"

static linnet_policy policy_of(const char *text)
{
    linnet_policy policy;
    linnet_error err = {0};
    assert_ok(linnet_policy_parse("p", text, strlen(text), &policy, &err), &err);
    return policy;
}

static linnet_plan plan_of(const char *text)
{
    linnet_plan plan;
    linnet_error err = {0};
    assert_ok(linnet_plan_parse("p", text, strlen(text), &plan, &err), &err);
    return plan;
}

#define HEX(digit) digit digit digit digit digit digit digit digit
#define KEY(digit) HEX(digit) HEX(digit) HEX(digit) HEX(digit) HEX(digit) HEX(digit) HEX(digit) HEX(digit)

static void every_key_is_read(void **state)
{
    (void)state;
    linnet_policy p = policy_of(
        "[policy]\ncohort_min = 64\nsurvivors_min = 48\ncorrupt_min = 0.1\n"
        "phase_deadline_min = 30\nnoise_min = 1.5\nepsilon_max = 8\ndelta = 1e-6\n"
        "upload_bytes_max = 1024\ndownload_bytes_max = 2048\nlocal_steps_max = 3\n"
        "context_tokens_max = 64\nallow_plain = off\nallow_central_noise = on\n"
        "coordinator_key = " KEY("1") "\nauthority_key = " KEY(
            "2") "\n"
                 "plan_hash = " KEY("3") "\nbase_hash = " KEY("4") "\n"
                                                                   "consortium = /etc/linnet/members\n");
    assert_true(p.cohort_min == 64 && p.survivors_min == 48 && p.phase_min_s == 30);
    assert_true(p.corrupt_min == 0.1 && p.noise_min == 1.5 && p.dp_epsilon_max == 8 && p.dp_delta == 1e-6);
    assert_true(p.upload_bytes_max == 1024 && p.download_bytes_max == 2048);
    assert_true(p.local_steps_max == 3 && p.context_tokens_max == 64);
    assert_true(!p.allow_plain && p.allow_central_noise);
    assert_true(p.has_coordinator && p.has_authority && p.has_plan && p.has_base);
    assert_int_equal(p.coordinator.bytes[31], 0x11);
    assert_int_equal(p.authority.bytes[0], 0x22);
    assert_int_equal(p.plan.bytes[15], 0x33);
    assert_int_equal(p.base.bytes[31], 0x44);
    assert_string_equal(p.consortium, "/etc/linnet/members");
}

static void an_empty_policy_has_the_compiled_floors(void **state)
{
    (void)state;
    linnet_policy p = policy_of("");
    assert_int_equal(p.survivors_min, 3);
    assert_true(p.corrupt_min == 0.05 && p.dp_delta == 1e-5 && p.noise_min == 0 && p.dp_epsilon_max == 0);
    assert_false(p.allow_plain || p.allow_central_noise);
    assert_false(p.has_coordinator || p.has_authority || p.has_plan || p.has_base);
    assert_string_equal(p.consortium, "");
}

static void numbers_are_the_nearest_doubles_in_any_locale(void **state)
{
    (void)state;
    static const char *const texts[] = {"0.05", "0.1",  ".3",   "0.",    "0.30",   "0.0123456789",
                                        "5e-2", "1E-3", "3e-1", "25e-2", "0.2e+0", "0e5"};
    const char *locale = setlocale(LC_NUMERIC, "de_DE.UTF-8");
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        char text[64];
        (void)snprintf(text, sizeof(text), "[policy]\ncorrupt_min = %s\n", texts[i]);
        double got = policy_of(text).corrupt_min;
        setlocale(LC_NUMERIC, "C");
        double want = strtod(texts[i], NULL);
        if (got != want)
            fail_msg("%s: got %.17g, want %.17g", texts[i], got, want);
        if (locale)
            setlocale(LC_NUMERIC, "de_DE.UTF-8");
    }
    setlocale(LC_NUMERIC, "C");
}

static void wrong_policies_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"survivor_min = 5", "survivors_min"},
        {"survivors_min = 2", "survivors_min: '2' is not allowed, must be 3 to 1024"},
        {"corrupt_min = 0.31", "corrupt_min: '0.31' is not allowed, must be 0 to 0.3"},
        {"corrupt_min = -0.1", "corrupt_min"},
        {"corrupt_min = 0,1", "corrupt_min"},
        {"corrupt_min = nan", "corrupt_min"},
        {"corrupt_min = 0x1", "corrupt_min"},
        {"corrupt_min = .", "corrupt_min"},
        {"corrupt_min = 0.1.1", "corrupt_min"},
        {"corrupt_min = 1e", "corrupt_min"},
        {"corrupt_min = 1e-", "corrupt_min"},
        {"corrupt_min = 1e-100", "corrupt_min"},
        {"corrupt_min = 0.1234567890123456", "corrupt_min"},
        {"noise_min = 1001", "0 to 1000"},
        {"epsilon_max = 1e99", "epsilon_max"},
        {"delta = 0", "1e-12 to 0.1"},
        {"phase_deadline_min = 0", "1 to 86400"},
        {"phase_deadline_min = 2m", "phase_deadline_min"},
        {"allow_central_noise = yes", "on|off"},
        {"coordinator_key = 11", "coordinator_key: must be 64 hex"},
        {"authority_key = " KEY("x"), "authority_key"},
        {"consortium =", "consortium"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[200];
        linnet_policy policy;
        linnet_error err = {0};
        (void)snprintf(text, sizeof(text), "[policy]\n%s\n", cases[i].text);
        linnet_status status = linnet_policy_parse("p", text, strlen(text), &policy, &err);
        if (status == LINNET_OK || !strstr(err.message, cases[i].says) ||
            !strstr(err.message, "policy 'p', line 2"))
            fail_msg("'%s': got %s: %s", cases[i].text, linnet_status_name(status), err.message);
    }
}

/* ---- floors ---- */

#define NOISE                                                                                                \
    "[privacy]\nnoise_multiplier = 1\nclip = 0.5\n[encoding]\nweight_unit_tokens = 0\n[aggregation]\nrule "  \
    "= "                                                                                                     \
    "ffa\n"
#define SECURE "[secure]\nprofile = secure\n"
#define DISTRIBUTED "[task]\npreset = wearables-dp\n"

/* Each floor lets a plan pass and refuses it one step further, with its name in the text. */
static void a_plan_passes_every_floor_or_is_told_which_it_does_not(void **state)
{
    (void)state;
    static const struct {
        const char *plan, *passes, *fails, *says;
    } cases[] = {
        {"", "cohort_min = 3", "cohort_min = 4", "cohort_min"},
        {"[cohort]\nminimum = 5\n", "cohort_min = 5", "cohort_min = 6", "cohort_min"},
        {"[secure]\nprofile = plain\n", "survivors_min = 1024\nallow_plain = on", "", "allow_plain"},
        {SECURE, "allow_plain = off", "survivors_min = 4", "survivors_min"},
        {SECURE "[cohort]\nminimum = 5\n", "survivors_min = 4", "survivors_min = 5", "survivors_min"},
        {SECURE, "corrupt_min = 0.05", "corrupt_min = 0.051", "corrupt_min"},
        {SECURE "phase_deadline = 45s\n", "phase_deadline_min = 45", "phase_deadline_min = 46",
         "phase_deadline_min"},
        {"", "local_steps_max = 10", "local_steps_max = 9", "local_steps_max"},
        {"", "context_tokens_max = 256", "context_tokens_max = 255", "context_tokens_max"},
        {"", "noise_min = 0", "noise_min = 0.001", "noise_min"},
        {SECURE, "noise_min = 0", "noise_min = 0.001", "noise_min"},
        {"", "epsilon_max = 0", "epsilon_max = 1000", "without differential privacy"},
        {DISTRIBUTED, "noise_min = 1.5", "noise_min = 1.501", "noise_min"},
        {DISTRIBUTED, "epsilon_max = 3.1", "epsilon_max = 2.8", "epsilon_max"},
        {DISTRIBUTED, "epsilon_max = 3.1\ndelta = 1e-5", "epsilon_max = 3.1\ndelta = 1e-7", "epsilon_max"},
        {"[secure]\nprofile = central-dp\n" NOISE, "allow_central_noise = on", "allow_central_noise = off",
         "allow_central_noise"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_plan plan = plan_of(cases[i].plan);
        for (int fails = 0; fails < 2; fails++) {
            char text[200];
            (void)snprintf(text, sizeof(text), "[policy]\n%s\n", fails ? cases[i].fails : cases[i].passes);
            linnet_policy policy = policy_of(text);
            const char *why = linnet_policy_plan_refusal(&policy, &plan);
            if (fails ? !why || strncmp(why, "policy: ", 8) != 0 || !strstr(why, cases[i].says) : why != NULL)
                fail_msg("case %zu, %s: '%s'", i, text, why ? why : "no refusal");
        }
    }
}

static void an_announcement_is_held_to_the_floors_by_itself(void **state)
{
    (void)state;
    linnet_layout layout = {.alpha = 16, .n_parameters = 9000, .n_a = 4000, .n_b = 5000};
    linnet_plan plan = plan_of(DISTRIBUTED);
    linnet_policy policy = linnet_policy_default(), strict;
    linnet_announcement good, a;
    linnet_privacy privacy;
    linnet_error err = {0};
    assert_ok(linnet_announcement_of_plan(&plan, &layout, 0, &good, &err), &err);
    assert_ok(linnet_plan_privacy(&plan, &layout, 0, &privacy, &err), &err);
    policy.cohort_min = good.n_min;
    policy.survivors_min = good.m_min;
    policy.phase_min_s = good.phase_s;
    policy.upload_bytes_max = 8192 * 20 / 8 + 4; /* two blocks of 20 bits, one lane of 32 */
    policy.noise_min = plan.noise_multiplier;
    policy.dp_epsilon_max = 3.1;
    assert_null(linnet_policy_round_refusal(&policy, &good, &privacy, NULL));
#define REFUSED(change, says)                                                                                \
    do {                                                                                                     \
        a = good;                                                                                            \
        strict = policy;                                                                                     \
        change;                                                                                              \
        const char *why = linnet_policy_round_refusal(&strict, &a, &privacy, NULL);                          \
        if (!why || strncmp(why, "policy: ", 8) != 0 || !strstr(why, says))                                  \
            fail_msg(#change ": '%s'", why ? why : "no refusal");                                            \
    } while (0)
    REFUSED(a.n_min--, "cohort_min");
    REFUSED(a.m_min--, "survivors_min");
    REFUSED(a.corrupt_permille--, "corrupt_min");
    REFUSED(a.phase_s--, "phase_deadline_min");
    REFUSED(strict.upload_bytes_max--, "upload_bytes_max");
    REFUSED((a.profile = LINNET_PROFILE_PLAIN, strict.allow_plain = false), "allow_plain");
    REFUSED(a.profile = LINNET_PROFILE_CENTRAL_DP, "allow_central_noise");
    REFUSED(strict.noise_min = privacy.noise_multiplier * 1.0001, "noise_min");
    REFUSED(strict.dp_epsilon_max = 2.8, "epsilon_max");
    REFUSED(strict.dp_delta = 1e-9, "epsilon_max");
#undef REFUSED
}

/* Property 27: what was spent in any task counts. */
static void rounds_of_other_tasks_use_up_the_budget(void **state)
{
    (void)state;
    linnet_layout layout = {.alpha = 16, .n_parameters = 9000, .n_a = 4000, .n_b = 5000};
    linnet_policy policy = linnet_policy_default();
    linnet_plan device_plan = plan_of(DISTRIBUTED), record_plan = plan_of("[task]\npreset = clinics-dp\n");
    linnet_announcement a;
    linnet_privacy of_devices, of_records;
    linnet_rdp spent = {{0}};
    linnet_error err = {0};
    assert_ok(linnet_announcement_of_plan(&device_plan, &layout, 0, &a, &err), &err);
    assert_ok(linnet_plan_privacy(&device_plan, &layout, 0, &of_devices, &err), &err);
    assert_ok(linnet_plan_privacy(&record_plan, &layout, 0, &of_records, &err), &err);
    policy.dp_epsilon_max = linnet_plan_epsilon(&device_plan, 5);
    for (int round = 0; round < 5; round++) {
        assert_null(linnet_policy_round_refusal(&policy, &a, &of_devices, &spent));
        linnet_privacy_spend(&of_devices, 1, &spent);
    }
    const char *why = linnet_policy_round_refusal(&policy, &a, &of_devices, &spent);
    assert_non_null(why);
    assert_non_null(strstr(why, "epsilon_max"));
    spent = (linnet_rdp){{0}};
    linnet_privacy_spend(&of_records, 200, &spent); /* another task, another unit, the same texts */
    assert_non_null(linnet_policy_round_refusal(&policy, &a, &of_devices, &spent));
}

static void a_pin_refuses_every_other_key_and_hash(void **state)
{
    (void)state;
    static const char *const pins[] = {"coordinator_key", "authority_key", "plan_hash", "base_hash"};
    linnet_public_key coordinator, authority;
    linnet_hash plan, base;
    linnet_policy none = linnet_policy_default();
    memset(coordinator.bytes, 0x11, sizeof(coordinator.bytes));
    memset(authority.bytes, 0x11, sizeof(authority.bytes));
    memset(plan.bytes, 0x11, sizeof(plan.bytes));
    memset(base.bytes, 0x11, sizeof(base.bytes));
    assert_null(linnet_policy_pin_refusal(&none, &coordinator, &authority, &plan, &base));
    for (size_t i = 0; i < ARRAY_LEN(pins); i++) {
        uint8_t *last[] = {&coordinator.bytes[31], &authority.bytes[31], &plan.bytes[31], &base.bytes[31]};
        char text[120];
        (void)snprintf(text, sizeof(text), "[policy]\n%s = " KEY("1") "\n", pins[i]);
        linnet_policy policy = policy_of(text);
        assert_null(linnet_policy_pin_refusal(&policy, &coordinator, &authority, &plan, &base));
        *last[i] ^= 1;
        const char *why = linnet_policy_pin_refusal(&policy, &coordinator, &authority, &plan, &base);
        if (!why || !strstr(why, pins[i]))
            fail_msg("%s: '%s'", pins[i], why ? why : "no refusal");
        *last[i] ^= 1;
    }
}

/* ---- consortium lists ---- */

static void a_consortium_is_a_list_of_keys_with_remarks(void **state)
{
    (void)state;
    static const char text[] = "# the members, agreed on paper\n\n" KEY("1") "\n  " KEY("a") "  # St Anna\r\n"
                                                                                             "\t" KEY("B");
    linnet_consortium list = {0};
    linnet_error err = {0};
    assert_ok(linnet_consortium_parse("c", text, sizeof(text) - 1, &list, &err), &err);
    assert_int_equal(list.n_keys, 3);
    assert_int_equal(list.keys[0].bytes[0], 0x11);
    assert_int_equal(list.keys[1].bytes[31], 0xaa);
    assert_int_equal(list.keys[2].bytes[5], 0xbb);
    linnet_consortium_release(&list);
    assert_int_equal(list.n_keys, 0);
}

static void a_wrong_consortium_names_its_line(void **state)
{
    (void)state;
    static const char zero[] = KEY("1") "\n\0" KEY("2");
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "no key"},
        {"# nobody\n\n", "no key"},
        {KEY("1") "\n" KEY("1") "\n", "line 2: key '1111111111111111...' stands here a second time"},
        {KEY("a") "\n\n" KEY("A") "\n", "line 3"},
        {KEY("1") "\n" KEY("2") "2\n", "line 2"},
        {KEY("1") " " KEY("2") "\n", "line 1"},
        {"\n\nmembers = 5\n", "line 3: 'members = 5' is no public key"},
    };
    linnet_consortium list = {0};
    linnet_error err = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(linnet_consortium_parse("c", cases[i].text, strlen(cases[i].text), &list, &err),
                         LINNET_ERR_FORMAT);
        if (!strstr(err.message, cases[i].says) || !strstr(err.message, "consortium 'c'"))
            fail_msg("case %zu: %s", i, err.message);
    }
    assert_int_equal(linnet_consortium_parse("c", zero, sizeof(zero) - 1, &list, &err), LINNET_ERR_FORMAT);
    assert_null(list.keys);
    linnet_buffer many = {0};
    for (size_t i = 0; i <= LINNET_CONSORTIUM_MAX; i++)
        linnet_buffer_append_format(&many, "%064zx\n", i);
    assert_false(many.failed);
    assert_int_equal(linnet_consortium_parse("c", (const char *)many.bytes, many.n_bytes, &list, &err),
                     LINNET_ERR_LIMIT);
    assert_ok(linnet_consortium_parse("c", (const char *)many.bytes, many.n_bytes - 65, &list, &err), &err);
    assert_int_equal(list.n_keys, LINNET_CONSORTIUM_MAX);
    linnet_consortium_release(&list);
    linnet_buffer_release(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(an_empty_policy_has_the_compiled_floors),
        cmocka_unit_test(numbers_are_the_nearest_doubles_in_any_locale),
        cmocka_unit_test(wrong_policies_say_what_is_wrong),
        cmocka_unit_test(a_plan_passes_every_floor_or_is_told_which_it_does_not),
        cmocka_unit_test(an_announcement_is_held_to_the_floors_by_itself),
        cmocka_unit_test(rounds_of_other_tasks_use_up_the_budget),
        cmocka_unit_test(a_pin_refuses_every_other_key_and_hash),
        cmocka_unit_test(a_consortium_is_a_list_of_keys_with_remarks),
        cmocka_unit_test(a_wrong_consortium_names_its_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
