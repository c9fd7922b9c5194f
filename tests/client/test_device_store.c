/* SPDX-License-Identifier: Apache-2.0 */
/* The device's stores and caches: all of a commit or none of it, also when the process is killed or the disk
 * is full. */
#include "linnet/device.h"
#include "linnet/file.h"
#include "linnet/rng.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "testing.h"

static char directory[64];

static int make_directory(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/linnet-store-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    char command[96];
    (void)snprintf(command, sizeof(command), "rm -r '%s'", directory); /* made by mkdtemp above */
    return system(command);
}

static linnet_kv open_kv(void)
{
    linnet_kv kv = {0};
    linnet_error err = {0};
    assert_ok(linnet_kv_open_lmdb(directory, true, &kv, &err), &err);
    return kv;
}

static uint64_t get_number(linnet_kv *kv, const char *name)
{
    linnet_buffer bytes = {0};
    linnet_status status = kv->get(kv->context, name, &bytes, NULL);
    uint64_t number = status == LINNET_OK && bytes.n_bytes >= 8 ? linnet_load_le64(bytes.bytes) : 0;
    linnet_buffer_release(&bytes);
    return number;
}

/* Values of several sizes that all begin with the same number. */
static linnet_status put_number(linnet_kv *kv, uint64_t number, linnet_error *err)
{
    static uint8_t values[3][40000];
    static const size_t sizes[] = {8, 3000, 40000};
    static const char *const names[] = {"one", "two", "three"};
    linnet_kv_item items[3];
    for (size_t i = 0; i < 3; i++) {
        memset(values[i], (int)(number & 0xff), sizes[i]);
        linnet_store_le64(values[i], number);
        items[i] = (linnet_kv_item){names[i], values[i], sizes[i]};
    }
    return kv->put(kv->context, items, 3, err);
}

static void both_stores_behave_alike(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        linnet_kv kv = {0};
        linnet_error err = {0};
        linnet_buffer bytes = {0};
        assert_ok(which == 0 ? linnet_kv_open_memory(&kv, &err)
                             : linnet_kv_open_lmdb(directory, true, &kv, &err),
                  &err);
        assert_int_equal(kv.get(kv.context, "a", &bytes, &err), LINNET_ERR_NOT_FOUND);
        linnet_kv_item two[] = {{"a", "first", 5}, {"b", "", 0}};
        assert_ok(kv.put(kv.context, two, 2, &err), &err);
        assert_ok(kv.get(kv.context, "a", &bytes, &err), &err);
        assert_int_equal(bytes.n_bytes, 5);
        assert_memory_equal(bytes.bytes, "first", 5);
        linnet_buffer_clear(&bytes);
        assert_ok(kv.get(kv.context, "b", &bytes, &err), &err); /* empty is not absent */
        assert_int_equal(bytes.n_bytes, 0);
        linnet_kv_item three[] = {{"a", NULL, 0}, {"b", "longer than before", 18}, {"c", NULL, 0}};
        assert_ok(kv.put(kv.context, three, 3, &err), &err);
        assert_int_equal(kv.get(kv.context, "a", &bytes, &err), LINNET_ERR_NOT_FOUND);
        linnet_buffer_clear(&bytes);
        assert_ok(kv.get(kv.context, "b", &bytes, &err), &err);
        assert_int_equal(bytes.n_bytes, 18);
        linnet_buffer_release(&bytes);
        kv.close(kv.context);
    }
}

static void a_name_is_not_too_long_and_nothing_of_its_commit_stays(void **state)
{
    (void)state;
    linnet_kv kv = open_kv();
    linnet_error err = {0};
    linnet_buffer bytes = {0};
    char name[202];
    memset(name, 'n', sizeof(name));
    name[201] = '\0';
    linnet_kv_item items[] = {{"good", "x", 1}, {name, "y", 1}};
    assert_int_equal(kv.put(kv.context, items, 2, &err), LINNET_ERR_ARG);
    assert_int_equal(kv.get(kv.context, "good", &bytes, &err), LINNET_ERR_NOT_FOUND);
    name[200] = '\0';
    assert_ok(kv.put(kv.context, items, 2, &err), &err);
    kv.close(kv.context);
}

static void values_stay_when_the_process_ends(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_kv kv = open_kv();
    assert_ok(put_number(&kv, 4711, &err), &err);
    kv.close(kv.context);
    kv = open_kv();
    assert_int_equal(get_number(&kv, "three"), 4711);
    kv.close(kv.context);
}

static void one_process_at_a_time_and_any_number_of_readers(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_kv kv = open_kv();
    assert_ok(put_number(&kv, 5, &err), &err);
    pid_t child = fork(); /* the child opens environments of its own */
    if (child == 0) {
        linnet_kv other = {0};
        if (linnet_kv_open_lmdb(directory, false, &other, &err) != LINNET_ERR_BUSY)
            _exit(1);
        if (linnet_kv_open_lmdb_reader(directory, &other, &err) != LINNET_OK)
            _exit(2);
        if (get_number(&other, "two") != 5)
            _exit(3);
        if (put_number(&other, 6, &err) != LINNET_ERR_DENIED)
            _exit(4);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    kv.close(kv.context);
}

static void a_missing_state_is_not_made_by_accident(void **state)
{
    (void)state;
    linnet_kv kv = {0};
    linnet_error err = {0};
    struct stat info;
    assert_int_equal(linnet_kv_open_lmdb(directory, false, &kv, &err), LINNET_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "enroll"));
    assert_int_equal(linnet_kv_open_lmdb_reader(directory, &kv, &err), LINNET_ERR_NOT_FOUND);
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/device.mdb", directory);
    assert_int_equal(stat(path, &info), -1);
}

static void a_newer_format_is_refused(void **state)
{
    (void)state;
    linnet_kv kv = open_kv();
    linnet_error err = {0};
    uint8_t number[4];
    linnet_store_le32(number, 2);
    linnet_kv_item item = {"format", number, 4};
    assert_ok(kv.put(kv.context, &item, 1, &err), &err);
    kv.close(kv.context);
    assert_int_equal(linnet_kv_open_lmdb(directory, false, &kv, &err), LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "newer"));
    assert_int_equal(linnet_kv_open_lmdb_reader(directory, &kv, &err), LINNET_ERR_UNSUPPORTED);
}

static void a_file_that_is_no_store_is_an_error(void **state)
{
    (void)state;
    char path[128];
    linnet_kv kv = {0};
    linnet_error err = {0};
    uint8_t rubbish[8192];
    memset(rubbish, 0xa5, sizeof(rubbish));
    (void)snprintf(path, sizeof(path), "%s/device.mdb", directory);
    assert_ok(linnet_file_write(path, rubbish, sizeof(rubbish), 0600, &err), &err);
    assert_int_equal(linnet_kv_open_lmdb(directory, false, &kv, &err), LINNET_ERR_FORMAT);
    assert_non_null(strstr(err.message, "device.mdb"));
}

/* ---- damage ---- */

enum { DAMAGED_VALUES = 40, LONG_VALUE = 9000 };

typedef enum damage_outcome { DAMAGE_HARMLESS, DAMAGE_TOLD, DAMAGE_IN_VALUE, DAMAGE_STALE } damage_outcome;

static const char *numbered(size_t i)
{
    static char name[64];
    (void)snprintf(name, sizeof(name), "a-name-long-enough-to-need-branches-%zu", i);
    return name;
}

/* A store of some commits, with long values, branches and free pages. */
static void make_worn_store(void)
{
    static uint8_t bytes[LONG_VALUE];
    linnet_kv kv = open_kv();
    linnet_error err = {0};
    for (uint8_t n = 1; n <= 5; n++)
        for (size_t i = 0; i < DAMAGED_VALUES; i++) {
            memset(bytes, n, sizeof(bytes));
            size_t n_bytes = i % 10 == 3 ? LONG_VALUE : 100 + 17 * i;
            linnet_kv_item item = {numbered(i), (i + n) % 7 == 0 ? NULL : bytes, n_bytes};
            if (n == 5)
                item.bytes = bytes; /* the last leaves all */
            assert_ok(kv.put(kv.context, &item, 1, &err), &err);
        }
    kv.close(kv.context);
}

/* What a process makes of the store, by its exit status. */
static damage_outcome use_damaged_store(void)
{
    linnet_kv kv = {0};
    linnet_error err = {0};
    damage_outcome found = DAMAGE_HARMLESS;
    if (linnet_kv_open_lmdb(directory, false, &kv, &err) != LINNET_OK)
        return strstr(err.message, "device.mdb") || strstr(err.message, directory) ? DAMAGE_TOLD : 99;
    for (size_t i = 0; i < DAMAGED_VALUES; i++) {
        linnet_buffer bytes = {0};
        linnet_status status = kv.get(kv.context, numbered(i), &bytes, &err);
        size_t n_wrong = 0;
        for (size_t j = 0; j < bytes.n_bytes; j++)
            n_wrong += bytes.bytes[j] != 5;
        if (n_wrong > 1 && found == DAMAGE_HARMLESS)
            found = DAMAGE_STALE;
        if (status != LINNET_OK || bytes.n_bytes != (i % 10 == 3 ? LONG_VALUE : 100 + 17 * i) || n_wrong == 1)
            found = DAMAGE_IN_VALUE;
        linnet_buffer_release(&bytes);
    }
    (void)put_number(&kv, 1, &err); /* takes pages off the free list */
    kv.close(kv.context);
    return found;
}

static damage_outcome look_at_damage(const char *what, size_t at)
{
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit((int)use_damaged_store());
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status))
        fail_msg("%s at byte %zu: the process died of signal %d", what, at, WTERMSIG(status));
    assert_in_range(WEXITSTATUS(status), DAMAGE_HARMLESS, DAMAGE_STALE);
    return (damage_outcome)WEXITSTATUS(status);
}

static void write_store(const linnet_buffer *bytes, size_t n_bytes)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/device.mdb", directory);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes->bytes, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

static void read_store(linnet_buffer *ret_bytes)
{
    char path[128];
    linnet_error err = {0};
    (void)snprintf(path, sizeof(path), "%s/device.mdb", directory);
    assert_ok(linnet_file_read(path, 1 << 24, ret_bytes, &err), &err);
}

/* Each byte of the meta pages, and many of the others, with one bit turned; each length that a cut may leave.
 * Whatever it is, it is told in words or does no harm: no signal, and never the values of an older commit. */
static void no_damage_of_the_file_crashes_the_store(void **state)
{
    (void)state;
    enum { META_BYTES = 15 * sizeof(size_t) + 32, PAGE = 4096 };
    linnet_buffer good = {0};
    linnet_rng rng;
    uint32_t n_others = testing_size("bytes damaged", 500, 100), step = testing_size("cut every", 512, 4096);
    linnet_rng_init(&rng, 8, 15);
    make_worn_store();
    read_store(&good);
    assert_true(good.n_bytes > 20 * PAGE && good.n_bytes % PAGE == 0);
    assert_int_equal(look_at_damage("none", 0), DAMAGE_HARMLESS);
    size_t n_told = 0, n_meta_told = 0;
    for (size_t i = 0; i < 2 * META_BYTES + n_others; i++) {
        size_t at = i < META_BYTES       ? i
                    : i < 2 * META_BYTES ? PAGE + i - META_BYTES
                                         : 2 * PAGE + (size_t)linnet_rng_below(&rng, good.n_bytes - 2 * PAGE);
        if (i >= 2 * META_BYTES && i % 2 == 0)
            at = at / PAGE * PAGE + at % 32; /* headers more often than chance would have it */
        uint8_t bit = (uint8_t)(1u << linnet_rng_below(&rng, 8));
        good.bytes[at] ^= bit;
        write_store(&good, good.n_bytes);
        damage_outcome found = look_at_damage("one bit", at);
        good.bytes[at] ^= bit;
        if (found == DAMAGE_STALE || (found == DAMAGE_IN_VALUE && at < 2 * PAGE))
            fail_msg("byte %zu: another commit's values came up", at);
        n_told += found == DAMAGE_TOLD;
        n_meta_told += found == DAMAGE_TOLD && at < 2 * PAGE;
    }
    assert_true(n_meta_told > META_BYTES / 3); /* the rest of a meta page is not used */
    assert_true(n_told > n_meta_told + n_others / 20);
    for (size_t n_bytes = 1; n_bytes < good.n_bytes; n_bytes += step) {
        write_store(&good, n_bytes);
        assert_int_equal(look_at_damage("cut", n_bytes), DAMAGE_TOLD);
    }
    write_store(&good, good.n_bytes);
    assert_int_equal(look_at_damage("none", 0), DAMAGE_HARMLESS);
    linnet_buffer_release(&good);
}

/* A file that a kill left before its first commit is made anew; one that was cut later is not. */
static void a_store_whose_making_was_cut_short_is_made_again(void **state)
{
    (void)state;
    linnet_buffer fresh = {0};
    linnet_kv kv = {0};
    linnet_error err = {0};
    static const size_t lengths[] = {1, 100, 4096, 8000};
    make_worn_store();
    linnet_buffer worn = {0};
    read_store(&worn);
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        write_store(&worn, lengths[i]);
        if (lengths[i] < 160) /* nobody can tell */
            continue;
        assert_int_equal(linnet_kv_open_lmdb(directory, true, &kv, &err), LINNET_ERR_FORMAT);
        assert_non_null(strstr(err.message, "device.mdb' is damaged: it "));
        assert_non_null(strstr(err.message, "enroll as a new device"));
    }
    linnet_buffer_append(&fresh, worn.bytes, worn.n_bytes);
    memset(fresh.bytes + 14 * sizeof(size_t) + 32, 0,
           sizeof(size_t)); /* the first meta page's transaction: none yet */
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        write_store(&fresh, lengths[i]);
        assert_int_equal(linnet_kv_open_lmdb(directory, false, &kv, &err), LINNET_ERR_FORMAT);
        assert_ok(linnet_kv_open_lmdb(directory, true, &kv, &err), &err);
        assert_ok(put_number(&kv, 3, &err), &err);
        assert_int_equal(get_number(&kv, "three"), 3);
        kv.close(kv.context);
    }
    linnet_buffer_release(&fresh);
    linnet_buffer_release(&worn);
}

/* A child commits numbers, tells each one after its commit, and is killed. What it told is there, and the
 * three values of a commit always agree. */
static void a_kill_loses_no_commit_and_halves_none(void **state)
{
    (void)state;
    for (int run = 0; run < 12; run++) {
        int told[2];
        assert_int_equal(pipe(told), 0);
        linnet_kv kv = open_kv();
        uint64_t start = get_number(&kv, "one");
        kv.close(kv.context);
        pid_t child = fork();
        if (child == 0) {
            linnet_error err = {0};
            if (linnet_kv_open_lmdb(directory, false, &kv, &err) != LINNET_OK)
                _exit(1);
            for (uint64_t n = start + 1;; n++)
                if (put_number(&kv, n, &err) != LINNET_OK || write(told[1], &n, sizeof(n)) != sizeof(n))
                    _exit(2);
        }
        uint64_t last = start, n = 0;
        for (int i = 0; i < 3 + run % 4; i++)
            if (read(told[0], &n, sizeof(n)) == sizeof(n))
                last = n;
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        close(told[1]);
        while (read(told[0], &n, sizeof(n)) == sizeof(n))
            last = n;
        close(told[0]);
        kv = open_kv();
        uint64_t one = get_number(&kv, "one");
        assert_true(last > start);
        assert_in_range(one, last, last + 1);
        assert_int_equal(get_number(&kv, "two"), one);
        assert_int_equal(get_number(&kv, "three"), one);
        kv.close(kv.context);
    }
}

/* No room for the file to grow: a clear error, the old values, and everything works again when room is back.
 * The limit holds for the whole process, so a child does it. */
static void a_full_disk_is_an_error_and_nothing_is_lost(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        linnet_kv kv = {0};
        linnet_error err = {0};
        struct rlimit limit = {.rlim_cur = 200000, .rlim_max = RLIM_INFINITY};
        uint8_t *large = calloc(1, 1 << 20);
        linnet_kv_item items[] = {{"one", large, 1 << 20}, {"big", large, 1 << 20}};
        (void)signal(SIGXFSZ, SIG_IGN);
        if (!large || linnet_kv_open_lmdb(directory, true, &kv, &err) != LINNET_OK ||
            put_number(&kv, 77, &err) != LINNET_OK)
            _exit(1);
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(2);
        linnet_status status = kv.put(kv.context, items, 2, &err);
        if (status == LINNET_OK || err.message[0] == '\0')
            _exit(3);
        if (get_number(&kv, "one") != 77 || get_number(&kv, "three") != 77)
            _exit(4);
        limit.rlim_cur = RLIM_INFINITY;
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(5);
        if (kv.put(kv.context, items, 2, &err) != LINNET_OK || get_number(&kv, "three") != 77)
            _exit(6);
        kv.close(kv.context);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    linnet_kv kv = open_kv();
    assert_int_equal(get_number(&kv, "two"), 77);
    kv.close(kv.context);
}

static void caches_return_what_was_put(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        linnet_object_cache cache = {0};
        linnet_error err = {0};
        linnet_buffer bytes = {0};
        linnet_hash hash = linnet_hash_of(LINNET_LABEL_OBJECT, "object", 6),
                    other = linnet_hash_of(LINNET_LABEL_OBJECT, "x", 1);
        assert_ok(which == 0 ? linnet_object_cache_open_memory(&cache, &err)
                             : linnet_object_cache_open_files(directory, &cache, &err),
                  &err);
        assert_int_equal(cache.get(cache.context, &hash, &bytes, &err), LINNET_ERR_NOT_FOUND);
        assert_ok(cache.put(cache.context, &hash, "object", 6, &err), &err);
        assert_ok(cache.put(cache.context, &hash, "object", 6, &err), &err); /* again: no harm */
        assert_ok(cache.get(cache.context, &hash, &bytes, &err), &err);
        assert_int_equal(bytes.n_bytes, 6);
        assert_memory_equal(bytes.bytes, "object", 6);
        cache.forget(cache.context, &other);
        cache.forget(cache.context, &hash);
        if (which == 1)
            assert_int_equal(cache.get(cache.context, &hash, &bytes, &err), LINNET_ERR_NOT_FOUND);
        linnet_buffer_release(&bytes);
        linnet_object_cache_close(&cache);
    }
}

/* ---- policy files ---- */

static void policies_are_read_strictly(void **state)
{
    (void)state;
    linnet_policy policy;
    linnet_error err = {0};
    static const char good[] =
        "# ours\n[policy]\n  cohort_min = 5\nallow_plain=off\nupload_bytes_max = 5000000 ; bytes\n"
        "plan_hash = 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";
    assert_ok(linnet_policy_parse("p", good, sizeof(good) - 1, &policy, &err), &err);
    assert_int_equal(policy.cohort_min, 5);
    assert_false(policy.allow_plain);
    assert_int_equal(policy.upload_bytes_max, 5000000);
    assert_true(policy.has_plan && !policy.has_base);
    assert_int_equal(policy.plan.bytes[1], 0x11);
    assert_int_equal(policy.local_steps_max, linnet_policy_default().local_steps_max);
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[policy]\nchort_min = 5\n", "cohort_min"},
        {"[polcy]\ncohort_min = 5\n", "[policy]"},
        {"cohort_min = 5\n", "[policy]"},
        {"[policy]\ncohort_min = 0\n", "1 to 1024"},
        {"[policy]\ncohort_min = 1025\n", "1 to 1024"},
        {"[policy]\ncohort_min = 5 devices\n", "1 to 1024"},
        {"[policy]\ncohort_min = -5\n", "1 to 1024"},
        {"[policy]\nallow_plain = no\n", "on|off"},
        {"[policy]\nbase_hash = 0011\n", "64 hex"},
        {"[policy]\ncohort_min = 5\ncohort_min = 6\n", "second time"},
        {"[policy]\ncohort_min\n", "line 2"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_status status = linnet_policy_parse("p", cases[i].text, strlen(cases[i].text), &policy, &err);
        if (status == LINNET_OK || !strstr(err.message, cases[i].says) || !strstr(err.message, "'p', line "))
            fail_msg("'%s': got %s: %s", cases[i].text, linnet_status_name(status), err.message);
    }
}

#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORE_TEST(both_stores_behave_alike),
        STORE_TEST(a_name_is_not_too_long_and_nothing_of_its_commit_stays),
        STORE_TEST(values_stay_when_the_process_ends),
        STORE_TEST(one_process_at_a_time_and_any_number_of_readers),
        STORE_TEST(a_missing_state_is_not_made_by_accident),
        STORE_TEST(a_newer_format_is_refused),
        STORE_TEST(a_file_that_is_no_store_is_an_error),
        STORE_TEST(no_damage_of_the_file_crashes_the_store),
        STORE_TEST(a_store_whose_making_was_cut_short_is_made_again),
        STORE_TEST(a_kill_loses_no_commit_and_halves_none),
        STORE_TEST(a_full_disk_is_an_error_and_nothing_is_lost),
        STORE_TEST(caches_return_what_was_put),
        cmocka_unit_test(policies_are_read_strictly),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
