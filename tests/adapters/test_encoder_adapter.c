/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters of encoders: the head's matrices stand behind those of the blocks, go by their own names in both
 * forms, and PEFT is told exactly the modules that are adapted though one's name ends another's. */
#include "fixture.h"

#include <jansson.h>

static linnet_gguf *model;

static const struct {
    const char *name;
    uint64_t columns, rows;
} matrices[] = {
    {"blk.0.attn_q.weight", 8, 8},  {"blk.0.attn_k.weight", 8, 8},      {"blk.0.attn_v.weight", 8, 8},
    {"blk.0.ffn_up.weight", 8, 12}, {"blk.0.attn_output.weight", 8, 8}, {"blk.0.ffn_down.weight", 12, 8},
    {"blk.1.attn_q.weight", 8, 8},  {"blk.1.attn_k.weight", 8, 8},      {"blk.1.attn_v.weight", 8, 8},
    {"blk.1.ffn_up.weight", 8, 12}, {"blk.1.attn_output.weight", 8, 8}, {"blk.1.ffn_down.weight", 12, 8},
    {"cls.weight", 8, 8},           {"cls.output.weight", 8, 3},
};

static int make_encoder(void **state)
{
    static const float weights[96] = {1, 2, 3};
    linnet_error err = {0};
    if (make_folder(state) != 0)
        return -1;
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_gguf_writer_text(writer, "general.architecture", "bert");
    linnet_gguf_writer_u32(writer, "bert.block_count", 2);
    linnet_gguf_writer_u32(writer, "bert.attention.head_count", 2);
    for (size_t i = 0; i < ARRAY_LEN(matrices); i++)
        linnet_gguf_writer_tensor(writer, matrices[i].name, LINNET_TENSOR_F32, 2,
                                  (const uint64_t[]){matrices[i].columns, matrices[i].rows}, weights,
                                  (size_t)(matrices[i].columns * matrices[i].rows) * sizeof(float));
    linnet_status status = linnet_gguf_writer_write(writer, in_folder("bert.gguf"), &err);
    linnet_gguf_writer_destroy(writer);
    return status == LINNET_OK && linnet_gguf_open(in_folder("bert.gguf"), &model, &err) == LINNET_OK ? 0
                                                                                                      : -1;
}

static int drop_encoder(void **state)
{
    linnet_gguf_close(model);
    return remove_folder(state);
}

static linnet_adapter *adapter_for(const char *targets)
{
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    assert_ok(linnet_layout_create_for(model, targets, 2, 4, false, &layout, &err), &err);
    assert_ok(linnet_adapter_create(layout, &adapter, &err), &err);
    for (size_t i = 0; i < layout->n_parameters; i++)
        adapter->data[i] = (float)i + 1;
    linnet_layout_destroy(layout);
    return adapter;
}

static void assert_names(const linnet_layout *layout, const char *want)
{
    linnet_buffer got = {0};
    for (size_t e = 0; e < layout->n_entries; e++)
        linnet_buffer_append_format(&got, "%s%s", e > 0 ? " " : "", layout->entries[e].name);
    linnet_buffer_append(&got, "", 1);
    assert_string_equal((const char *)got.bytes, want);
    linnet_buffer_release(&got);
}

static void targets_go_by_the_ends_of_names(void **state)
{
    (void)state;
    static const struct {
        const char *targets, *want;
    } cases[] = {
        {"cls.output", "cls.output.weight"},
        {"cls*", "cls.weight cls.output.weight"},
        {"classifier,pooler.dense", "cls.weight cls.output.weight"},
        {"query,layers.1.output.dense", "blk.0.attn_q.weight blk.1.attn_q.weight blk.1.ffn_down.weight"},
        {"output.dense:1", "blk.0.attn_output.weight blk.0.ffn_down.weight blk.1.attn_output.weight "
                           "blk.1.ffn_down.weight"},
        {"dense", "blk.0.attn_output.weight blk.0.ffn_up.weight blk.0.ffn_down.weight "
                  "blk.1.attn_output.weight blk.1.ffn_up.weight blk.1.ffn_down.weight cls.weight"},
        {"blk.1.attn_q,all", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_adapter *adapter = adapter_for(cases[i].targets);
        const linnet_layout *layout = adapter->layout;
        if (cases[i].want)
            assert_names(layout, cases[i].want);
        else
            assert_int_equal(layout->n_entries, ARRAY_LEN(matrices));
        linnet_adapter_destroy(adapter);
    }
}

static void both_forms_keep_the_head(void **state)
{
    (void)state;
    static const char *const cases[] = {"all", "cls.output", "cls", "blk.1.attn_q:1:3,cls.output:4:9",
                                        "ffn_down"};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_adapter *adapter = adapter_for(cases[i]), *peft = NULL, *gguf = NULL;
        linnet_error err = {0};
        assert_ok(linnet_adapter_save_peft(adapter, "bert", in_folder("peft"), "", &err), &err);
        assert_ok(linnet_adapter_load(in_folder("peft"), model, &peft, &err), &err);
        assert_same_adapter(adapter, peft);
        assert_ok(linnet_adapter_save_gguf(adapter, "bert", in_folder("a.gguf"), &err), &err);
        assert_ok(linnet_adapter_load(in_folder("a.gguf"), model, &gguf, &err), &err);
        assert_int_equal(gguf->layout->n_entries, adapter->layout->n_entries);
        linnet_adapter_destroy(adapter);
        linnet_adapter_destroy(peft);
        linnet_adapter_destroy(gguf);
    }
}

/* peft adapts every module whose name is one of these or ends in one behind a dot. */
static void peft_is_told_the_modules_that_are_adapted(void **state)
{
    (void)state;
    static const struct {
        const char *targets, *want;
    } cases[] = {
        {"query,value", "query value"},
        {"ffn_up,cls.output", "intermediate.dense classifier"},
        {"attn_output,ffn_down", "attention.output.dense output.dense"},
        {"attn_output", "attention.output.dense"},
        {"ffn_down,cls", "layer.0.output.dense layer.1.output.dense bert.pooler.dense"},
        {"blk.1.attn_k", "layer.1.attention.self.key"},
        {"all", "query key value attention.output.dense intermediate.dense output.dense bert.pooler.dense "
                "classifier"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_adapter *adapter = adapter_for(cases[i].targets);
        linnet_error err = {0};
        linnet_buffer got = {0};
        char path[256];
        assert_ok(linnet_adapter_save_peft(adapter, "bert", in_folder("told"), "", &err), &err);
        (void)snprintf(path, sizeof(path), "%s/adapter_config.json", in_folder("told"));
        json_t *config = json_load_file(path, 0, NULL), *modules = json_object_get(config, "target_modules");
        assert_true(json_is_null(json_object_get(config, "task_type")));
        for (size_t m = 0; m < json_array_size(modules); m++)
            linnet_buffer_append_format(&got, "%s%s", m > 0 ? " " : "",
                                        json_string_value(json_array_get(modules, m)));
        linnet_buffer_append(&got, "", 1);
        assert_string_equal((const char *)got.bytes, cases[i].want);
        linnet_buffer_release(&got);
        json_decref(config);
        linnet_adapter_destroy(adapter);
    }
}

static void a_factor_of_a_head_is_no_blocks(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "blk.0.cls.weight", "blk.0.cls.output.weight", "attn_q.weight", "cls.output", "cls", "blk.cls.weight",
        "xcls.weight"};
    static const float values[16];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        linnet_adapter *adapter = NULL;
        linnet_error err = {0};
        char name[64];
        linnet_gguf_writer *writer = linnet_gguf_writer_create();
        linnet_gguf_writer_text(writer, "general.architecture", "bert");
        linnet_gguf_writer_text(writer, "general.type", "adapter");
        linnet_gguf_writer_text(writer, "adapter.type", "lora");
        linnet_gguf_writer_f32(writer, "adapter.lora.alpha", 2);
        (void)snprintf(name, sizeof(name), "%s.lora_a", bad[i]);
        linnet_gguf_writer_tensor(writer, name, LINNET_TENSOR_F32, 2, (const uint64_t[]){8, 2}, values, 64);
        assert_ok(linnet_gguf_writer_write(writer, in_folder("bad.gguf"), &err), &err);
        linnet_gguf_writer_destroy(writer);
        assert_int_equal(linnet_adapter_load(in_folder("bad.gguf"), model, &adapter, &err),
                         LINNET_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_go_by_the_ends_of_names),
        cmocka_unit_test(both_forms_keep_the_head),
        cmocka_unit_test(peft_is_told_the_modules_that_are_adapted),
        cmocka_unit_test(a_factor_of_a_head_is_no_blocks),
    };
    return cmocka_run_group_tests(tests, make_encoder, drop_encoder);
}
