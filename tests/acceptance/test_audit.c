/* SPDX-License-Identifier: Apache-2.0 */
/* What an auditor, an enrolment officer and an operator see of a masked task, through the programs: an
 * authority on a machine of its own, a round of real devices, the log, the receipts, the privacy. */
#include "acceptance.h"

#include <signal.h>

#define MEMBERS 3

static const char secure_plan[] =
    "[task]\nname = audited\nrounds = 1\nseed = 5\n[adapter]\nrank = 2\ntargets = attn_q,attn_v\n[training]\n"
    "local_steps = 1\nbatch_records = 1\ncontext_tokens = 64\nheld_out = 0.2\n[cohort]\ngoal = 3\nminimum = "
    "3\n"
    "over_selection = 1\ndeadline = 10m\npoll = 1s\n[secure]\nprofile = secure+dp\nsurvivors = 3\n"
    "phase_deadline = 60s\n[privacy]\nmechanism = distributed\nnoise_multiplier = 4\nclip = 0.5\n[encoding]\n"
    "ring_bits = 32\nweight_unit_tokens = 0\n[aggregation]\nrule = ffa\n[evaluation]\ninstall_tolerance = "
    "100\n";

/* The officer's machine: a key, invites, and their ids for the coordinator. */
static void make_authority(const char *coordinator_key, char invites[MEMBERS][300])
{
    json_t *made =
        result_of("$K authority invite --state ea --coordinator-key %s --count %d --out ids --json",
                  coordinator_key, MEMBERS);
    json_t *codes = json_object_get(made, "invites");
    assert_int_equal(json_array_size(codes), MEMBERS);
    for (size_t i = 0; i < MEMBERS; i++)
        (void)snprintf(invites[i], 300, "%s", json_string_value(json_array_get(codes, i)));
    json_decref(made);
    assert_int_equal(number_of("count", "$K authority import --state c --in ids --json"), MEMBERS);
}

/* Ask for certificates, carry the files, ask again. */
static void enrol_all(int port, char invites[MEMBERS][300])
{
    for (int i = 0; i < MEMBERS; i++)
        (void)run("$C enroll --state d%d --coordinator http://127.0.0.1:%d --invite %s", i, port, invites[i]);
    assert_int_equal(number_of("count", "$K authority requests --state c --out requests --json"), MEMBERS);
    assert_int_equal(number_of("count", "$K authority sign --state ea --in requests --out signed --json"),
                     MEMBERS);
    assert_int_equal(number_of("count", "$K authority import --state c --in signed --json"), MEMBERS);
    for (int i = 0; i < MEMBERS; i++)
        must_do("$C enroll --state d%d --coordinator http://127.0.0.1:%d --invite %s --quiet", i, port,
                invites[i]);
}

static void play_round(void)
{
    pid_t devices[MEMBERS];
    for (int i = 0; i < MEMBERS; i++) {
        char name[8];
        (void)snprintf(name, sizeof(name), "d%d", i);
        devices[i] = start_device(name, "--rounds 1");
    }
    for (int i = 0; i < MEMBERS; i++)
        assert_int_equal(end(devices[i], 0), 0);
    await_count("c", "version", 1);
}

static void flip(const char *from, const char *to, size_t at)
{
    linnet_buffer bytes = take_file(from);
    assert_true(at < bytes.n_bytes);
    bytes.bytes[at] ^= 1;
    put_file(to, bytes.bytes, bytes.n_bytes);
    linnet_buffer_release(&bytes);
}

static void the_log_and_receipts_of_a_masked_round_are_checked_offline(void **state)
{
    (void)state;
    char invites[MEMBERS][300], authority[80], key[80];
    put_text("secure.ini", secure_plan);
    (void)snprintf(authority, sizeof(authority), "%s",
                   text_of("authority", "$K authority init --state ea --json"));
    (void)snprintf(key, sizeof(key), "%s",
                   text_of("coordinator",
                           "$K init --state c --plan secure.ini --model $M --authority-key %s --json",
                           authority));
    make_authority(key, invites);
    server s = serve("c", 0, "");
    enrol_all(s.port, invites);

    /* the officer: members, certificates, a list that devices can pin */
    assert_int_equal(number_of("count", "$K authority list --state ea --json"), MEMBERS);
    must_do("$K authority consortium --state ea --out members --quiet");
    assert_int_equal(number_of("count", "$K authority verify members --authority-key %s --json", authority),
                     MEMBERS);
    must_fail("not signed by this authority", "$K authority verify members --authority-key %s", key);
    must_fail("not a requests file", "$K authority sign --state ea --in ids --out none");

    play_round();
    assert_true(count_round_keys() <= 0); /* the task is over: a device keeps nothing outside its state */
    stop(&s, SIGTERM);

    /* the operator: what is spent, and against whom it holds */
    json_t *privacy = result_of("$K privacy --state c --json");
    assert_int_equal(json_integer_value(json_object_get(privacy, "rounds")), 1);
    assert_int_equal(json_integer_value(json_object_get(privacy, "rounds_left")), 0);
    assert_true(json_real_value(json_object_get(privacy, "epsilon")) > 0);
    assert_string_equal(json_string_value(json_object_get(privacy, "unit")), "device");
    assert_non_null(strstr(json_string_value(json_object_get(privacy, "assumption")), "is not the operator"));
    assert_true(json_is_false(json_object_get(privacy, "operator_is_authority")));
    json_decref(privacy);

    /* the auditor: a log and receipts, and nothing else */
    must_do("$K audit --state c --export log --quiet");
    must_do("mv c gone && mv ea gone-too");
    for (int i = 0; i < MEMBERS; i++) {
        must_do("$C status --state d%d --receipts receipts%d --quiet", i, i);
        json_t *verified = result_of("$K verify log --receipts receipts%d --other log --json", i);
        assert_int_equal(json_integer_value(json_object_get(verified, "flaws")), 0);
        assert_int_equal(json_integer_value(json_object_get(verified, "included")), 1);
        assert_int_equal(json_integer_value(json_object_get(verified, "closed")), 1);
        assert_string_equal(json_string_value(json_object_get(verified, "coordinator")), key);
        json_decref(verified);
    }
    linnet_buffer log = take_file("log");
    for (size_t at = 200; at < log.n_bytes; at += log.n_bytes / 9) {
        flip("log", "bad", at);
        if (run("$K verify bad --receipts receipts0")->status == 0)
            fail_msg("byte %zu of the log changed: verify says good", at);
    }
    put_file("bad", log.bytes, log.n_bytes / 2);
    linnet_buffer_release(&log);
    must_fail("damaged at byte", "$K verify bad");
    must_fail("this is no evidence file", "$K verify --evidence log");
    must_refuse_usage("either a log or --evidence", "$K verify");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_log_and_receipts_of_a_masked_round_are_checked_offline,
                                  acceptance_clean),
    };
    return acceptance_main(tests);
}
