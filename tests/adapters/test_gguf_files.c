/* SPDX-License-Identifier: Apache-2.0 */
/* Models in several files: they read as one, and parts that do not belong together are refused by name. */
#include "fixture.h"

#include "adapters/limits.h"
#include "split_model.h"

static void expect_open(const char *path, linnet_status want, const char *message)
{
    linnet_error err = {0};
    linnet_gguf *gguf = NULL;
    linnet_status got = linnet_gguf_open(path, &gguf, &err);
    if (got != want || (message && !strstr(err.message, message)))
        fail_msg("got %s (%s), want %s (%s)", linnet_status_name(got), err.message, linnet_status_name(want),
                 message ? message : "");
    if (want != LINNET_OK)
        assert_null(gguf);
    linnet_gguf_close(gguf);
}

static void assert_same_tensors(const linnet_gguf *got, const linnet_gguf *want)
{
    assert_int_equal(linnet_gguf_n_tensors(got), linnet_gguf_n_tensors(want));
    for (size_t i = 0; i < linnet_gguf_n_tensors(want); i++) {
        const linnet_gguf_tensor *w = linnet_gguf_tensor_at(want, i), *g = linnet_gguf_tensor_at(got, i);
        char name[80];
        (void)snprintf(name, sizeof(name), "%.*s", (int)w->name.n_bytes, w->name.bytes);
        assert_true(linnet_text_is(g->name, name));
        assert_ptr_equal(linnet_gguf_find_tensor(got, name), g);
        assert_int_equal(g->type, w->type);
        assert_int_equal(g->n_dims, w->n_dims);
        assert_memory_equal(g->dims, w->dims, sizeof(w->dims));
        assert_int_equal(g->n_bytes, w->n_bytes);
        assert_memory_equal(g->bytes, w->bytes, w->n_bytes);
    }
}

static void a_split_model_reads_as_one(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_gguf *model = tiny_model(in_folder("whole.gguf"));
    for (uint32_t count = 2; count <= 5; count++) {
        linnet_gguf *parts = NULL;
        size_t n_bytes = 0;
        split_model(model, in_folder("model"), count);
        for (uint32_t no = 0; no < count; no++) {
            linnet_map map = {0};
            assert_ok(linnet_map_open(split_path(in_folder("model"), no, count), &map, &err), &err);
            n_bytes += map.n_bytes;
            linnet_map_close(&map);
        }
        assert_ok(linnet_gguf_open(split_path(in_folder("model"), 0, count), &parts, &err), &err);
        assert_same_tensors(parts, model);
        assert_int_equal(linnet_gguf_n_bytes(parts), n_bytes);
        assert_int_equal(linnet_gguf_n_values(parts), linnet_gguf_n_values(model));
        for (size_t i = 0; i < linnet_gguf_n_values(model); i++) {
            const linnet_gguf_value *w = linnet_gguf_value_at(model, i), *g = linnet_gguf_value_at(parts, i);
            assert_int_equal(g->kind, w->kind);
            assert_int_equal(g->n_bytes, w->n_bytes);
            assert_memory_equal(g->bytes, w->bytes, w->n_bytes);
        }
        assert_null(linnet_gguf_find(parts, "split.count"));
        linnet_gguf_close(parts);
    }
    linnet_gguf_close(model);
}

/* The hash of a task's model is over its files, one after the other. */
static void the_hash_is_over_all_parts_in_their_order(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_buffer all = {0};
    linnet_gguf *model = tiny_model(in_folder("whole.gguf")), *parts = NULL;
    linnet_hash of_model, of_file, of_parts, of_bytes;
    assert_ok(linnet_gguf_hash(model, &of_model, &err), &err);
    assert_ok(linnet_hash_file(LINNET_LABEL_OBJECT, in_folder("whole.gguf"), &of_file, &err), &err);
    assert_true(linnet_hash_equal(&of_model, &of_file));
    split_model(model, in_folder("model"), 3);
    for (uint32_t no = 0; no < 3; no++) {
        linnet_buffer one = {0};
        assert_ok(linnet_file_read(split_path(in_folder("model"), no, 3), 1 << 20, &one, &err), &err);
        linnet_buffer_append(&all, one.bytes, one.n_bytes);
        linnet_buffer_release(&one);
    }
    of_bytes = linnet_hash_of(LINNET_LABEL_OBJECT, all.bytes, all.n_bytes);
    assert_ok(linnet_gguf_open(split_path(in_folder("model"), 0, 3), &parts, &err), &err);
    assert_ok(linnet_gguf_hash(parts, &of_parts, &err), &err);
    assert_true(linnet_hash_equal(&of_parts, &of_bytes));
    linnet_gguf_close(parts);
    linnet_gguf_close(model);
    linnet_buffer_release(&all);
}

static void a_part_that_is_not_the_first_names_the_first(void **state)
{
    (void)state;
    linnet_gguf *model = tiny_model(in_folder("whole.gguf"));
    split_model(model, in_folder("model"), 3);
    expect_open(split_path(in_folder("model"), 1, 3), LINNET_ERR_ARG,
                "is part 2 of 3; open the first, '/tmp/linnet-test-adapters-");
    expect_open(split_path(in_folder("model"), 2, 3), LINNET_ERR_ARG, "/model-00001-of-00003.gguf'");
    split_part second = {1, 3, 16, 0, 1, false};
    split_write_part(model, &second, in_folder("renamed.gguf"));
    expect_open(in_folder("renamed.gguf"), LINNET_ERR_ARG, "is part 2 of 3; open the first");
    second.no = 0;
    split_write_part(model, &second, in_folder("renamed.gguf"));
    expect_open(in_folder("renamed.gguf"), LINNET_ERR_ARG, "must end in '-00001-of-00003.gguf'");
    linnet_gguf_close(model);
}

static void a_missing_part_is_named(void **state)
{
    (void)state;
    linnet_gguf *model = tiny_model(in_folder("whole.gguf"));
    split_model(model, in_folder("model"), 3);
    assert_int_equal(unlink(split_path(in_folder("model"), 2, 3)), 0);
    expect_open(split_path(in_folder("model"), 0, 3), LINNET_ERR_NOT_FOUND, "model-00003-of-00003.gguf'");
    linnet_error err = {0};
    assert_ok(linnet_file_write(split_path(in_folder("model"), 2, 3), "GGUF", 4, 0600, &err), &err);
    expect_open(split_path(in_folder("model"), 0, 3), LINNET_ERR_FORMAT, "model-00003-of-00003.gguf'");
    linnet_gguf_close(model);
}

/* The first part says 3 of so many tensors; another part is not as it should be. */
static void parts_that_do_not_belong_together_are_refused(void **state)
{
    (void)state;
    linnet_gguf *model = tiny_model(in_folder("whole.gguf"));
    uint32_t n = (uint32_t)linnet_gguf_n_tensors(model);
    const struct {
        const char *what;
        split_part parts[3];
        linnet_status want;
        const char *message;
    } cases[] = {
        {"all is well",
         {{0, 3, n, 0, 4, true}, {1, 3, n, 4, 4, false}, {2, 3, n, 8, n - 8, false}},
         LINNET_OK,
         NULL},
        {"metadata in a part of its own",
         {{0, 3, n, 0, 0, true}, {1, 3, n, 0, 4, false}, {2, 3, n, 4, n - 4, false}},
         LINNET_OK,
         NULL},
        {"a part twice",
         {{0, 3, n, 0, 4, true}, {1, 3, n, 4, 4, false}, {1, 3, n, 4, 4, false}},
         LINNET_ERR_FORMAT,
         "model-00003-of-00003.gguf' says that it is part 2 of 3, not part 3 of 3"},
        {"a part of another splitting",
         {{0, 3, n, 0, 4, true}, {1, 4, n, 4, 4, false}, {2, 3, n, 8, n - 8, false}},
         LINNET_ERR_FORMAT,
         "says that it is part 2 of 4, not part 2 of 3"},
        {"the first part once more",
         {{0, 3, n, 0, 4, true}, {0, 3, n, 4, 4, false}, {2, 3, n, 8, n - 8, false}},
         LINNET_ERR_FORMAT,
         "says that it is part 1 of 3, not part 2 of 3"},
        {"a tensor too few",
         {{0, 3, n, 0, 4, true}, {1, 3, n, 4, 4, false}, {2, 3, n, 8, n - 9, false}},
         LINNET_ERR_FORMAT,
         "tensors, its split.tensors.count is"},
        {"a tensor too many",
         {{0, 3, n - 1, 0, 4, true}, {1, 3, n - 1, 4, 4, false}, {2, 3, n - 1, 8, n - 8, false}},
         LINNET_ERR_FORMAT,
         "tensors, its split.tensors.count is"},
        {"another number of tensors",
         {{0, 3, n, 0, 4, true}, {1, 3, n + 1, 4, 4, false}, {2, 3, n, 8, n - 8, false}},
         LINNET_ERR_FORMAT,
         "split.tensors.count is"},
        {"a tensor in two parts",
         {{0, 3, n, 0, 4, true}, {1, 3, n, 3, 4, false}, {2, 3, n, 8, n - 8, false}},
         LINNET_ERR_FORMAT,
         "occurs twice"},
        {"no such part",
         {{3, 3, n, 0, 4, true}, {1, 3, n, 4, 4, false}, {2, 3, n, 8, n - 8, false}},
         LINNET_ERR_FORMAT,
         "split.no is 3 of 3"},
        {"more parts than can be",
         {{0, LINNET_GGUF_PARTS_MAX + 1, n, 0, 4, true}, {1, 3, n, 4, 4, false}, {2, 3, n, 8, n - 8, false}},
         LINNET_ERR_LIMIT,
         "at most 1024"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        print_message("%s\n", cases[i].what);
        for (uint32_t no = 0; no < 3; no++)
            split_write_part(model, &cases[i].parts[no], split_path(in_folder("model"), no, 3));
        expect_open(split_path(in_folder("model"), 0, 3), cases[i].want, cases[i].message);
    }
    linnet_gguf_close(model);
}

static void the_total_must_be_there(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    split_put(writer, "split.count", LINNET_GGUF_U16, 2);
    assert_ok(linnet_gguf_writer_write(writer, in_folder("total-00001-of-00002.gguf"), &err), &err);
    linnet_gguf_writer_destroy(writer);
    writer = linnet_gguf_writer_create();
    split_put(writer, "split.no", LINNET_GGUF_U16, 1);
    split_put(writer, "split.count", LINNET_GGUF_U16, 2);
    assert_ok(linnet_gguf_writer_write(writer, in_folder("total-00002-of-00002.gguf"), &err), &err);
    linnet_gguf_writer_destroy(writer);
    expect_open(in_folder("total-00001-of-00002.gguf"), LINNET_ERR_FORMAT, "no key 'split.tensors.count'");
}

/* gguf-split --merge leaves split.count 0 behind. */
static void a_merged_file_is_one(void **state)
{
    (void)state;
    linnet_gguf *model = tiny_model(in_folder("whole.gguf"));
    for (uint32_t count = 0; count < 2; count++) {
        split_part all = {0,   count, (uint32_t)linnet_gguf_n_tensors(model), 0, linnet_gguf_n_tensors(model),
                          true};
        split_write_part(model, &all, in_folder("merged.gguf"));
        expect_open(in_folder("merged.gguf"), LINNET_OK, NULL);
    }
    linnet_gguf_close(model);
}

static void an_alignment_is_said_by_every_part(void **state)
{
    (void)state;
    linnet_error err = {0};
    for (uint32_t said = 0; said < 2; said++) {
        for (uint32_t no = 0; no < 2; no++) {
            linnet_gguf_writer *writer = linnet_gguf_writer_create();
            split_put(writer, "split.no", LINNET_GGUF_U16, no);
            split_put(writer, "split.count", LINNET_GGUF_U16, 2);
            split_put(writer, "split.tensors.count", LINNET_GGUF_I32, 0);
            if (no == 0 || said)
                linnet_gguf_writer_u32(writer, "general.alignment", 64);
            assert_ok(linnet_gguf_writer_write(writer, split_path(in_folder("aligned"), no, 2), &err), &err);
            linnet_gguf_writer_destroy(writer);
        }
        expect_open(split_path(in_folder("aligned"), 0, 2), said ? LINNET_OK : LINNET_ERR_UNSUPPORTED,
                    said ? NULL : "aligned-00002-of-00002.gguf' does not say general.alignment");
    }
}

static void bytes_are_as_many_parts_as_they_say(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_gguf *model = tiny_model(in_folder("whole.gguf")), *gguf = NULL;
    linnet_map parts[2];
    split_model(model, in_folder("model"), 2);
    for (uint32_t no = 0; no < 2; no++)
        assert_ok(linnet_map_open(split_path(in_folder("model"), no, 2), &parts[no], &err), &err);
    assert_int_equal(linnet_gguf_open_parts(parts, 0, &gguf, &err), LINNET_ERR_ARG);
    assert_int_equal(linnet_gguf_open_parts(parts, 1, &gguf, &err), LINNET_ERR_ARG);
    assert_int_equal(linnet_gguf_open_parts(parts + 1, 1, &gguf, &err), LINNET_ERR_ARG);
    assert_ok(linnet_gguf_open_parts(parts, 2, &gguf, &err), &err);
    assert_same_tensors(gguf, model);
    linnet_gguf_close(gguf);
    linnet_gguf_close(model);
    for (uint32_t no = 0; no < 2; no++)
        linnet_map_close(&parts[no]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_split_model_reads_as_one),
        cmocka_unit_test(the_hash_is_over_all_parts_in_their_order),
        cmocka_unit_test(a_part_that_is_not_the_first_names_the_first),
        cmocka_unit_test(a_missing_part_is_named),
        cmocka_unit_test(parts_that_do_not_belong_together_are_refused),
        cmocka_unit_test(the_total_must_be_there),
        cmocka_unit_test(a_merged_file_is_one),
        cmocka_unit_test(an_alignment_is_said_by_every_part),
        cmocka_unit_test(bytes_are_as_many_parts_as_they_say),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
