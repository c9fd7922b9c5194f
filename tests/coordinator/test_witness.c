/* SPDX-License-Identifier: Apache-2.0 */
/* A state that was restored from a backup is found by its log and not served (SECURE-AGGREGATION 7). */
#include "secure_fixture.h"

static linnet_status open_with(scene *s, const char *log, linnet_error *err)
{
    const linnet_coordinator_options options = {.serve = true, .log_path = log};
    return linnet_coordinator_open(s->state, &options, s->now_ms, &s->coordinator, err);
}

/* "verb folder/from folder/to" */
static void shell(const scene *s, const char *verb, const char *from, const char *to)
{
    char command[512];
    (void)snprintf(command, sizeof(command), "%s '%s/%s' '%s/%s'", verb, s->folder, from, s->folder, to);
    assert_int_equal(system(command), 0);
}

/* A folder of the state becomes what its copy was. */
static void restore(const scene *s, const char *name, const char *copy)
{
    shell(s, "rm -rf", name, name);
    shell(s, "cp -r", copy, name);
}

static void all_step(member *m, int n_turns)
{
    for (int turn = 0; turn < n_turns; turn++)
        for (size_t i = 0; i < COHORT; i++)
            (void)member_step(&m[i]);
}

static void a_restored_store_is_behind_its_log(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_error err = {0};
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    for (size_t i = 0; i < COHORT; i++)
        (void)member_join(&m[i]);
    all_step(m, 1);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_SHARERS);
    scene_close(&s);
    shell(&s, "cp -r", "state/store", "backup");
    scene_open(&s);
    all_step(m, 1);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_FROZEN); /* T3 has been said */
    scene_close(&s);
    restore(&s, "state/store", "backup");
    assert_int_equal(open_with(&s, NULL, &err), LINNET_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "behind"));
    const linnet_coordinator_options reports = {.serve = false}; /* it may still be looked at */
    assert_ok(linnet_coordinator_open(s.state, &reports, s.now_ms, &s.coordinator, &err), &err);
    members_end(m, COHORT);
    scene_end(&s);
}

static void a_backup_is_found_even_where_nothing_was_said_since(void **state)
{
    (void)state;
    scene s;
    linnet_error err = {0};
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    scene_close(&s);
    shell(&s, "cp -r", "state/store", "backup");
    scene_open(&s);
    scene_close(&s);
    restore(&s, "state/store", "backup");
    assert_int_equal(open_with(&s, NULL, &err), LINNET_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "another copy"));
    scene_end(&s);
}

static void a_log_elsewhere_finds_a_restored_directory(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    char log[128];
    linnet_error err = {0};
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    scene_reopen(&s);
    scene_close(&s);
    (void)snprintf(log, sizeof(log), "%s/log", s.folder);
    assert_int_equal(open_with(&s, log, &err),
                     LINNET_ERR_MISMATCH); /* this one is empty, and there was one */
    assert_non_null(strstr(err.message, "missing"));
    shell(&s, "mv", "state/transcript.log", "log");
    assert_ok(open_with(&s, log, &err), &err);
    scene_close(&s);
    shell(&s, "cp -r", "state", "backup");
    assert_ok(open_with(&s, log, &err), &err);
    for (size_t i = 0; i < COHORT; i++)
        (void)member_join(&m[i]);
    scene_close(&s);
    restore(&s, "state", "backup");
    assert_int_equal(open_with(&s, log, &err), LINNET_ERR_MISMATCH);
    members_end(m, COHORT);
    scene_end(&s);
}

static void the_log_of_another_task_is_refused(void **state)
{
    (void)state;
    scene s, other;
    char log[128];
    linnet_error err = {0};
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    scene_begin(&other, &plan);
    scene_close(&s);
    (void)snprintf(log, sizeof(log), "%s/transcript.log", other.state);
    assert_int_equal(open_with(&s, log, &err), LINNET_ERR_MISMATCH);
    scene_end(&s);
    scene_end(&other);
}

/* n bytes more at the end of the log, or fewer. */
static void log_resize(const scene *s, long n)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/transcript.log", s->state);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long size = ftell(file);
    for (long i = 0; i < n; i++)
        assert_int_equal(fputc(7, file), 7);
    assert_int_equal(fclose(file), 0);
    if (n < 0)
        assert_int_equal(truncate(path, size + n), 0);
}

static void a_record_cut_short_does_not_count_and_a_damaged_log_does(void **state)
{
    (void)state;
    scene s;
    linnet_error err = {0};
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    scene_close(&s);
    log_resize(&s, 40); /* a crash came between */
    scene_open(&s);
    scene_close(&s);
    log_resize(&s, 41);
    assert_int_equal(open_with(&s, NULL, &err), LINNET_ERR_FORMAT);
    log_resize(&s, -41);
    scene_open(&s);
    scene_close(&s);
    log_resize(&s, -1); /* the newest start went into the store and not into the log: one crash */
    scene_open(&s);
    scene_close(&s);
    log_resize(&s, -41 - 1); /* two starts: no crash does that */
    assert_int_equal(open_with(&s, NULL, &err), LINNET_ERR_MISMATCH);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restored_store_is_behind_its_log),
        cmocka_unit_test(a_backup_is_found_even_where_nothing_was_said_since),
        cmocka_unit_test(a_log_elsewhere_finds_a_restored_directory),
        cmocka_unit_test(the_log_of_another_task_is_refused),
        cmocka_unit_test(a_record_cut_short_does_not_count_and_a_damaged_log_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
