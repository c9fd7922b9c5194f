/* SPDX-License-Identifier: Apache-2.0 */
/* A scenario file is read as it stands, and its mistakes are named. */
#include "testing.h"

#include "linnet/simulation.h"

#include <unistd.h>

static linnet_status load(const char *text, linnet_scenario *scenario, linnet_error *err)
{
    char path[] = "/tmp/linnet-test-scenario-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(close(fd), 0);
    linnet_status status = linnet_scenario_load(path, scenario, err);
    assert_int_equal(unlink(path), 0);
    return status;
}

static void values_are_read_and_the_rest_stays(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_scenario scenario;
    assert_ok(load("; storm\n[scenario]\nparticipation = 0.1\nlose = 0.05\nkills = 50\n", &scenario, &err),
              &err);
    assert_true(scenario.participation == 0.1 && scenario.lose == 0.05 && scenario.kills == 50 &&
                scenario.corrupt == 0);
}

static void an_attack_is_read_by_its_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < LINNET_ATTACKS; i++) {
        linnet_error err = {0};
        linnet_scenario scenario;
        char text[128];
        (void)snprintf(text, sizeof(text), "[scenario]\nattack = %s\nattackers = 0.2\n",
                       linnet_attack_name((linnet_attack)i));
        assert_ok(load(text, &scenario, &err), &err);
        assert_true(scenario.attack == (linnet_attack)i && scenario.attackers == 0.2 &&
                    scenario.attack_scale == 10 && scenario.participation == 1);
    }
    linnet_error err = {0};
    linnet_scenario scenario;
    assert_ok(load("[scenario]\nattack_scale = 2.5\n", &scenario, &err), &err);
    assert_true(scenario.attack == LINNET_ATTACK_NONE && scenario.attackers == 0 &&
                scenario.attack_scale == 2.5);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[scenario]\nparticipatoin = 1\n", "did you mean [scenario] participation"},
        {"[scenario]\nlose = 1.5\n", "from 0 to 1"},
        {"[scenario]\nlose = often\n", "from 0 to 1"},
        {"[scenario]\nlose = nan\n", "from 0 to 1"},
        {"[scenario]\nattack = sing_flip\n", "did you mean sign_flip"},
        {"[scenario]\nattack = 1\n", "attack = '1' is no attack"},
        {"[scenario]\nattack = Scale\n", "did you mean scale"},
        {"[scenario]\nattack =\n", "attack = '' is no attack"},
        {"[scenario]\nattack = \033[2J\n", "attack = '?' is no attack"},
        {"[scenario]\nattackers = 1.01\n", "from 0 to 1"},
        {"[scenario]\nattack_scale = -1\n", "from 0 to 1000000"},
        {"[scenario]\nattack_scales = 1\n", "did you mean [scenario] attack_scale"},
        {"[weather]\nlose = 0.1\n", "unknown key [weather] lose"},
        {"lose\n", "line 1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_error err = {0};
        linnet_scenario scenario = {.lose = 7};
        linnet_status status = load(cases[i].text, &scenario, &err);
        if (status == LINNET_OK || !strstr(err.message, cases[i].says) || scenario.lose != 7)
            fail_msg("%s: %s", cases[i].text, err.message);
    }
    linnet_error err = {0};
    linnet_scenario scenario;
    assert_int_equal(linnet_scenario_load("/nowhere/at/all", &scenario, &err), LINNET_ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_read_and_the_rest_stays),
        cmocka_unit_test(an_attack_is_read_by_its_name),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
