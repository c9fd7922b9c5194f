/* SPDX-License-Identifier: Apache-2.0 */
/* Files are read within their cap, written all or nothing, mapped, and locked. */
#include "testing.h"

#include "linnet/file.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/linnet-test-file-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static void what_is_written_is_read_and_mapped(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_buffer bytes = {0};
    linnet_map map = {0};
    char *path = linnet_path_join(folder, "a");
    assert_ok(linnet_file_write(path, "hello", 5, 0600, &err), &err);
    assert_ok(linnet_file_write(path, "world!", 6, 0640, &err), &err);
    assert_ok(linnet_file_read(path, 6, &bytes, &err), &err);
    assert_int_equal(bytes.n_bytes, 6);
    assert_memory_equal(bytes.bytes, "world!", 6);
    linnet_buffer_release(&bytes);
    assert_int_equal(linnet_file_read(path, 5, &bytes, &err), LINNET_ERR_LIMIT);
    assert_non_null(strstr(err.message, path));
    assert_null(bytes.bytes);
    assert_ok(linnet_map_open(path, &map, &err), &err);
    assert_memory_equal(map.bytes, "world!", 6);
    linnet_map_close(&map);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    free(path);
}

static void what_is_not_there_is_named(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_buffer bytes = {0};
    linnet_map map = {0};
    char *path = linnet_path_join(folder, "absent");
    assert_int_equal(linnet_file_read(path, 10, &bytes, &err), LINNET_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(linnet_map_open(path, &map, &err), LINNET_ERR_NOT_FOUND);
    assert_int_equal(linnet_file_read(folder, 10, &bytes, &err), LINNET_ERR_ARG);
    free(path);
}

static void a_write_that_cannot_finish_leaves_the_old_file(void **state)
{
    (void)state;
    char *path = linnet_path_join(folder, "kept");
    linnet_error err = {0};
    linnet_buffer bytes = {0};
    assert_ok(linnet_file_write(path, "old", 3, 0600, &err), &err);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static uint8_t large[1 << 20];
        struct rlimit limit = {65536, 65536};
        (void)signal(SIGXFSZ, SIG_IGN);
        (void)setrlimit(RLIMIT_FSIZE, &limit);
        _exit(linnet_file_write(path, large, sizeof(large), 0600, &err) == LINNET_OK ? 1 : 0);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    assert_ok(linnet_file_read(path, 100, &bytes, &err), &err);
    assert_int_equal(bytes.n_bytes, 3);
    linnet_buffer_release(&bytes);
    free(path);
}

static void directories_are_made_with_their_parents(void **state)
{
    (void)state;
    linnet_error err = {0};
    char *path = linnet_path_join(folder, "x/y/z"), *file = linnet_path_join(folder, "plain");
    assert_ok(linnet_directory_create(path, &err), &err);
    assert_ok(linnet_directory_create(path, &err), &err);
    assert_ok(linnet_directory_sync(path, &err), &err);
    assert_ok(linnet_file_write(file, "", 0, 0600, &err), &err);
    assert_int_equal(linnet_directory_create(file, &err), LINNET_ERR_EXISTS);
    free(path);
    free(file);
}

static void the_last_name_of_a_path_is_found(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"a/b.gguf", "b.gguf"}, {"a/b/", "b"}, {"a/b//", "b"}, {"b", "b"}, {"/b", "b"}, {"//", ""}, {"", ""}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *name = linnet_path_name(cases[i][0]);
        assert_string_equal(name, cases[i][1]);
        free(name);
    }
}

static void a_lock_has_one_holder(void **state)
{
    (void)state;
    linnet_error err = {0};
    char *path = linnet_path_join(folder, "lock");
    int first, second = -1;
    assert_ok(linnet_lock_take(path, &first, &err), &err);
    assert_int_equal(linnet_lock_take(path, &second, &err), LINNET_ERR_BUSY);
    assert_int_equal(second, -1);
    assert_int_equal(close(first), 0);
    assert_ok(linnet_lock_take(path, &second, &err), &err);
    assert_int_equal(close(second), 0);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_and_mapped),
        cmocka_unit_test(what_is_not_there_is_named),
        cmocka_unit_test(a_write_that_cannot_finish_leaves_the_old_file),
        cmocka_unit_test(directories_are_made_with_their_parents),
        cmocka_unit_test(the_last_name_of_a_path_is_found),
        cmocka_unit_test(a_lock_has_one_holder),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
