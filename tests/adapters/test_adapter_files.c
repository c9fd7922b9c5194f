/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters in files: PEFT and GGUF and back without a changed bit, q and k in both row orders, merges; and
 * whatever does not fit is refused by name. */
#include "fixture.h"

#include "linnet/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <sys/stat.h>

static linnet_gguf *model;

static int make_model(void **state)
{
    if (make_folder(state) != 0)
        return -1;
    model = tiny_model(in_folder("tiny.gguf"));
    return model ? 0 : -1;
}

static int drop_model(void **state)
{
    linnet_gguf_close(model);
    return remove_folder(state);
}

/* ---- round trips ---- */

static void peft_to_gguf_to_peft_keeps_every_bit(void **state)
{
    (void)state;
    static const struct {
        const char *targets;
        uint32_t rank;
        float alpha;
    } cases[] = {
        {"all", 4, 8}, {"attn_q", 1, 0.3f}, {"attn_k,ffn_down", 8, 11.313708f}, {"attn_q,attn_v", 9, 16}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_adapter *adapter = random_adapter(model, cases[i].targets, cases[i].rank, cases[i].alpha, i);
        linnet_adapter *from_peft = NULL, *from_gguf = NULL, *again = NULL;
        linnet_error err = {0};
        adapter->data[3] = -0.0f;
        assert_ok(linnet_adapter_save_peft(adapter, "llama", in_folder("p1"), "tiny", &err), &err);
        assert_ok(linnet_adapter_load(in_folder("p1"), model, &from_peft, &err), &err);
        assert_same_adapter(adapter, from_peft);
        assert_ok(linnet_adapter_save_gguf(from_peft, "llama", in_folder("a.gguf"), &err), &err);
        assert_ok(linnet_adapter_load(in_folder("a.gguf"), model, &from_gguf, &err), &err);
        assert_same_adapter(adapter, from_gguf);
        assert_ok(linnet_adapter_save_peft(from_gguf, "llama", in_folder("p2"), "tiny", &err), &err);
        assert_ok(linnet_adapter_load(in_folder("p2"), model, &again, &err), &err);
        assert_same_adapter(adapter, again);
        linnet_adapter_destroy(adapter);
        linnet_adapter_destroy(from_peft);
        linnet_adapter_destroy(from_gguf);
        linnet_adapter_destroy(again);
    }
}

/* gguf_row(h, 2i + j) = hf_row(h, j half + i): said here from the other side than the code says it. */
static void rows_of_q_and_k_stand_in_hugging_faces_order(void **state)
{
    (void)state;
    linnet_adapter *adapter = random_adapter(model, "attn_q,attn_k,attn_v", 2, 4, 1);
    linnet_safetensors *file = NULL;
    linnet_error err = {0};
    static const struct {
        const char *name;
        size_t entry, n_heads, head_rows;
    } cases[] = {{"base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight", 3, 2, 4},
                 {"base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight", 4, 1, 4},
                 {"base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight", 5, 0, 0}};
    assert_ok(linnet_adapter_save_peft(adapter, "llama", in_folder("order"), "", &err), &err);
    assert_ok(linnet_safetensors_open(in_folder("order/adapter_model.safetensors"), &file, &err), &err);
    assert_int_equal(linnet_safetensors_n_tensors(file), 12);
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        const float *gguf = linnet_adapter_b(adapter, cases[c].entry);
        float hf[16];
        size_t t = 0;
        while (strcmp(linnet_safetensors_at(file, t)->name, cases[c].name) != 0)
            t++; /* past the end: a NULL dereference fails the test */
        linnet_safetensors_read(linnet_safetensors_at(file, t), hf);
        size_t half = cases[c].head_rows / 2;
        for (size_t h = 0; h < cases[c].n_heads; h++)
            for (size_t i = 0; i < half; i++)
                for (size_t j = 0; j < 2; j++)
                    assert_memory_equal(gguf + 2 * (h * 2 * half + 2 * i + j),
                                        hf + 2 * (h * 2 * half + j * half + i), 8);
        if (cases[c].n_heads == 0)
            assert_memory_equal(gguf, hf, 32);
    }
    linnet_safetensors_close(file);
    linnet_adapter_destroy(adapter);
}

static json_t *read_config(const char *directory)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/adapter_config.json", directory);
    json_t *config = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(config);
    return config;
}

static void the_configuration_says_what_peft_reads(void **state)
{
    (void)state;
    linnet_adapter *adapter = random_adapter(model, "attn_q,ffn_up", 4, 8, 1);
    linnet_error err = {0};
    assert_ok(linnet_adapter_save_peft(adapter, "llama", in_folder("cfg"), "org/\"model\"", &err), &err);
    json_t *got = read_config(in_folder("cfg"));
    json_t *want = json_pack(
        "{s:s, s:s, s:i, s:i, s:[s,s], s:f, s:s, s:b, s:b, s:b, s:b, s:b, s:s, s:n, s:n, s:{}, s:{}}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "r", 4, "lora_alpha", 8, "target_modules", "q_proj",
        "up_proj", "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", 0, "use_rslora", 0, "use_dora", 0,
        "init_lora_weights", 1, "inference_mode", 1, "base_model_name_or_path", "org/\"model\"",
        "modules_to_save", "layers_to_transform", "rank_pattern", "alpha_pattern");
    assert_non_null(want);
    assert_true(json_equal(got, want));
    json_decref(got);
    json_decref(want);
    assert_int_equal(linnet_adapter_save_peft(adapter, "llama", in_folder("cfg2"), "\xff", &err),
                     LINNET_ERR_ARG);
    linnet_adapter_destroy(adapter);
}

/* ---- parts of an adapter ---- */

/* Write a GGUF adapter of the named factors only; zero bytes of the fixture's shapes unless said otherwise.
 */
typedef struct part {
    const char *name;
    uint64_t columns, rows;
} part;

static void write_parts(const char *path, const part *parts, size_t n, float alpha)
{
    static const float zeros[4096];
    linnet_error err = {0};
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_gguf_writer_text(writer, "general.architecture", "llama");
    linnet_gguf_writer_text(writer, "general.type", "adapter");
    linnet_gguf_writer_text(writer, "adapter.type", "lora");
    linnet_gguf_writer_f32(writer, "adapter.lora.alpha", alpha);
    for (size_t i = 0; i < n; i++)
        linnet_gguf_writer_tensor(writer, parts[i].name, LINNET_TENSOR_F32, 2,
                                  (const uint64_t[]){parts[i].columns, parts[i].rows}, zeros,
                                  (size_t)(parts[i].columns * parts[i].rows) * 4);
    assert_ok(linnet_gguf_writer_write(writer, path, &err), &err);
    linnet_gguf_writer_destroy(writer);
}

static void an_adapter_of_some_layers_has_just_those(void **state)
{
    (void)state;
    static const part parts[] = {{"blk.1.ffn_down.weight.lora_b", 3, 8},
                                 {"blk.1.ffn_down.weight.lora_a", 12, 3},
                                 {"blk.0.attn_v.weight.lora_a", 8, 2},
                                 {"blk.0.attn_v.weight.lora_b", 2, 4}};
    linnet_adapter *adapter = NULL, *back = NULL;
    linnet_error err = {0};
    write_parts(in_folder("some.gguf"), parts, ARRAY_LEN(parts), 6);
    assert_ok(linnet_adapter_load(in_folder("some.gguf"), model, &adapter, &err), &err);
    assert_int_equal(adapter->layout->n_entries, 2);
    assert_string_equal(adapter->layout->entries[0].name, "blk.0.attn_v.weight");
    assert_int_equal(adapter->layout->entries[0].rank, 2);
    assert_string_equal(adapter->layout->entries[1].name, "blk.1.ffn_down.weight");
    assert_int_equal(adapter->layout->entries[1].rank, 3);
    assert_ok(linnet_adapter_save_peft(adapter, "llama", in_folder("ranks"), "", &err), &err);
    assert_ok(linnet_adapter_load(in_folder("ranks"), model, &back, &err), &err);
    assert_same_adapter(adapter, back);
    linnet_adapter_destroy(back);
    linnet_adapter_destroy(adapter);
    adapter = NULL;
    write_parts(in_folder("one.gguf"), parts, 2, 6);
    assert_ok(linnet_adapter_load(in_folder("one.gguf"), model, &adapter, &err), &err);
    assert_ok(linnet_adapter_save_peft(adapter, "llama", in_folder("one"), "", &err), &err);
    json_t *config = read_config(in_folder("one"));
    const json_t *modules = json_object_get(config, "target_modules");
    assert_int_equal(json_array_size(modules), 1);
    assert_string_equal(json_string_value(json_array_get(modules, 0)), "layers.1.mlp.down_proj");
    json_decref(config);
    assert_ok(linnet_adapter_load(in_folder("one"), model, &back, &err), &err);
    assert_same_adapter(adapter, back);
    linnet_adapter_destroy(adapter);
    linnet_adapter_destroy(back);
}

/* What the entries of a layout count, in order: "attn_q 4 2" for rank 4 and scale 2. */
static void assert_entries(const linnet_layout *layout, const char *want)
{
    linnet_buffer got = {0};
    for (size_t e = 0; e < layout->n_entries; e++)
        linnet_buffer_append_format(&got, "%u.%s %u %g, ", (unsigned)layout->entries[e].layer,
                                    linnet_target_name(layout->entries[e].target),
                                    (unsigned)layout->entries[e].rank,
                                    linnet_layout_scale(layout, &layout->entries[e]));
    linnet_buffer_append(&got, "", 1);
    assert_string_equal((const char *)got.bytes, want);
    linnet_buffer_release(&got);
}

static void targets_may_have_patterns_ranks_and_alphas(void **state)
{
    (void)state;
    static const struct {
        const char *targets;
        bool by_root;
        const char *want;
    } good[] = {
        {"attn_q,v_proj", false, "0.attn_q 4 2, 0.attn_v 4 2, 1.attn_q 4 2, 1.attn_v 4 2, "},
        {"attn_q:8", false, "0.attn_q 8 1, 1.attn_q 8 1, "},
        {"blk.1.attn_[kv]:2:3,layers.0.mlp.up_proj", false, "0.ffn_up 4 2, 1.attn_k 2 1.5, 1.attn_v 2 1.5, "},
        {"blk.0.ffn_down:1,self_attn.o_proj:2:10", false,
         "0.attn_output 2 5, 0.ffn_down 1 8, 1.attn_output 2 5, "},
        {"attn_q,q_proj:1,attn_k", false, NULL}, /* the second is taken already */
        {"attn_k:16,attn_v", true, "0.attn_k 16 2, 0.attn_v 4 4, 1.attn_k 16 2, 1.attn_v 4 4, "},
    };
    static const char *const bad[] = {"",          "attn_q:",     "attn_q:0",    "attn_q:257",
                                      "attn_q:4:", "attn_q:4:-1", "attn_q:x",    "attn_q:4:8:1",
                                      ":4",        "attn_q,",     "attn_q:4:inf"};
    linnet_error err = {0};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        linnet_layout *layout = NULL;
        linnet_status status =
            linnet_layout_create_for(model, good[i].targets, 4, 8, good[i].by_root, &layout, &err);
        assert_int_equal(status, good[i].want ? LINNET_OK : LINNET_ERR_UNSUPPORTED);
        if (good[i].want)
            assert_entries(layout, good[i].want);
        linnet_layout_destroy(layout);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        linnet_layout *layout = NULL;
        assert_int_equal(linnet_layout_create_for(model, bad[i], 4, 8, false, &layout, &err), LINNET_ERR_ARG);
        assert_null(layout);
    }
    linnet_layout *layout = NULL;
    assert_int_equal(linnet_layout_create_for(model, "attn_qkv", 4, 8, false, &layout, &err),
                     LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "attn_qkv"));
}

/* Ranks and alphas of their own survive both forms; GGUF, which has one alpha, counts them into B. */
static void alphas_of_their_own_go_there_and_back(void **state)
{
    (void)state;
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL, *peft = NULL, *gguf = NULL;
    linnet_error err = {0};
    assert_ok(
        linnet_layout_create_for(model, "attn_q:2:5,blk.1.ffn_down:3,attn_v", 4, 8, false, &layout, &err),
        &err);
    assert_ok(linnet_adapter_create(layout, &adapter, &err), &err);
    for (size_t i = 0; i < layout->n_parameters; i++)
        adapter->data[i] = (float)i + 1;
    assert_ok(linnet_adapter_save_peft(adapter, "llama", in_folder("own"), "", &err), &err);
    assert_ok(linnet_adapter_load(in_folder("own"), model, &peft, &err), &err);
    assert_same_adapter(adapter, peft);
    assert_ok(linnet_adapter_save_gguf(adapter, "llama", in_folder("own.gguf"), &err), &err);
    assert_ok(linnet_adapter_load(in_folder("own.gguf"), model, &gguf, &err), &err);
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        assert_true(gguf->layout->entries[e].alpha == 0);
        double want = linnet_layout_scale(layout, entry) * linnet_adapter_b(adapter, e)[1];
        double got =
            linnet_layout_scale(gguf->layout, &gguf->layout->entries[e]) * linnet_adapter_b(gguf, e)[1];
        assert_true(got > want * 0.999999 && got < want * 1.000001);
    }
    linnet_hash one = linnet_layout_hash(layout), other = linnet_layout_hash(gguf->layout);
    assert_false(linnet_hash_equal(&one, &other)); /* other alphas, another layout */
    linnet_adapter_destroy(adapter);
    linnet_adapter_destroy(peft);
    linnet_adapter_destroy(gguf);
    linnet_layout_destroy(layout);
}

static void factors_that_do_not_pair_or_fit_are_refused(void **state)
{
    (void)state;
    static const struct {
        part parts[2];
        size_t n;
        float alpha;
        linnet_status want;
        const char *message;
    } cases[] = {
        {{{"blk.0.attn_v.weight.lora_a", 8, 2}, {"blk.0.attn_v.weight.lora_b", 2, 4}}, 2, 4, LINNET_OK, ""},
        {{{NULL, 0, 0}}, 0, 4, LINNET_ERR_FORMAT, "no LoRA factors"},
        {{{"blk.0.attn_v.weight.lora_a", 8, 2}},
         1,
         4,
         LINNET_ERR_FORMAT,
         "A of blk.0.attn_v is there without"},
        {{{"blk.0.attn_v.weight.lora_b", 2, 4}},
         1,
         4,
         LINNET_ERR_FORMAT,
         "B of blk.0.attn_v is there without"},
        {{{"blk.0.attn_v.weight.lora_a", 8, 2}, {"blk.1.attn_v.weight.lora_b", 2, 4}},
         2,
         4,
         LINNET_ERR_FORMAT,
         "without"},
        {{{"blk.0.attn_v.weight.lora_a", 8, 2}, {"blk.0.attn_v.weight.lora_b", 3, 4}},
         2,
         4,
         LINNET_ERR_FORMAT,
         "ranks 2"},
        {{{"blk.0.attn_v.weight.lora_a", 8, 257}, {"blk.0.attn_v.weight.lora_b", 257, 4}},
         2,
         4,
         LINNET_ERR_FORMAT,
         "257"},
        {{{"blk.0.attn_v.weight.lora_a", 9, 2}, {"blk.0.attn_v.weight.lora_b", 2, 4}},
         2,
         4,
         LINNET_ERR_MISMATCH,
         "'blk.0.attn_v.weight': the adapter is for 4 x 9, the model has 4 x 8"},
        {{{"blk.0.attn_v.weight.lora_a", 8, 2}, {"blk.0.attn_v.weight.lora_b", 2, 5}},
         2,
         4,
         LINNET_ERR_MISMATCH,
         "5 x 8"},
        {{{"blk.2.attn_v.weight.lora_a", 8, 2}, {"blk.2.attn_v.weight.lora_b", 2, 4}},
         2,
         4,
         LINNET_ERR_MISMATCH,
         "layer 2, the model has 2"},
        {{{"token_embd.weight.lora_a", 8, 2}}, 1, 4, LINNET_ERR_UNSUPPORTED, "token_embd.weight.lora_a"},
        {{{"blk.00.attn_v.weight.lora_a", 8, 2}}, 1, 4, LINNET_ERR_UNSUPPORTED, "blk.00"},
        {{{"blk.99999.attn_v.weight.lora_a", 8, 2}}, 1, 4, LINNET_ERR_UNSUPPORTED, "blk.99999"},
        {{{"blk.0.attn_v.weight", 8, 2}}, 1, 4, LINNET_ERR_UNSUPPORTED, "blk.0.attn_v.weight"},
        {{{"blk.0.attn_v.weight.lora_a", 8, 2}, {"blk.0.attn_v.weight.lora_b", 2, 4}},
         2,
         0,
         LINNET_ERR_RANGE,
         "alpha"},
        {{{"blk.0.attn_v.weight.lora_a", 8, 2}, {"blk.0.attn_v.weight.lora_b", 2, 4}},
         2,
         NAN,
         LINNET_ERR_RANGE,
         "alpha"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_adapter *adapter = NULL;
        linnet_error err = {0};
        write_parts(in_folder("bad.gguf"), cases[i].parts, cases[i].n, cases[i].alpha);
        linnet_status got = linnet_adapter_load(in_folder("bad.gguf"), model, &adapter, &err);
        if (got != cases[i].want || !strstr(err.message, cases[i].message))
            fail_msg("case %zu: got %s: %s", i, linnet_status_name(got), err.message);
        linnet_adapter_destroy(adapter);
    }
}

static void a_model_is_no_adapter(void **state)
{
    (void)state;
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    assert_int_equal(linnet_adapter_load(in_folder("tiny.gguf"), model, &adapter, &err),
                     LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "tiny.gguf"));
    assert_int_equal(linnet_adapter_load(in_folder("nowhere"), model, &adapter, &err), LINNET_ERR_NOT_FOUND);
    assert_int_equal(linnet_adapter_load(fixture_folder, model, &adapter, &err), LINNET_ERR_NOT_FOUND);
    assert_null(adapter);
}

static void infinite_factors_are_refused(void **state)
{
    (void)state;
    linnet_adapter *adapter = random_adapter(model, "attn_q", 2, 4, 1), *back = NULL;
    linnet_error err = {0};
    linnet_adapter_b(adapter, 0)[1] = INFINITY;
    assert_ok(linnet_adapter_save_gguf(adapter, "llama", in_folder("inf.gguf"), &err), &err);
    assert_int_equal(linnet_adapter_load(in_folder("inf.gguf"), model, &back, &err), LINNET_ERR_RANGE);
    assert_non_null(strstr(err.message, "blk.0.attn_q.weight.lora_b"));
    linnet_adapter_destroy(adapter);
}

/* ---- configurations ---- */

static void write_text(const char *path, const char *text)
{
    linnet_error err = {0};
    assert_ok(linnet_file_write(path, text, strlen(text), 0600, &err), &err);
}

static void configurations_are_honoured_or_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        linnet_status want;
        const char *message;
        float alpha;
    } cases[] = {
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8}", LINNET_OK, "", 8},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":2.5}", LINNET_OK, "", 2.5f},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"use_rslora\":true}", LINNET_OK, "", 16},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"bias\":\"none\",\"rank_pattern\":{},\"modules_"
         "to_save\":null,"
         "\"init_lora_weights\":\"gaussian\",\"task_type\":\"CAUSAL_LM\",\"revision\":null,\"future\":"
         "\"key\"}",
         LINNET_OK, "", 8},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"lora_dropout\":0.05,\"inference_mode\":false}",
         LINNET_OK, "", 8},
        {"{\"peft_type\":\"IA3\",\"r\":4,\"lora_alpha\":8}", LINNET_ERR_UNSUPPORTED, "peft_type", 0},
        {"{\"r\":4,\"lora_alpha\":8}", LINNET_ERR_UNSUPPORTED, "peft_type", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"use_dora\":true}", LINNET_ERR_FORMAT,
         "magnitudes", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"bias\":\"all\"}", LINNET_ERR_UNSUPPORTED, "bias",
         0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"fan_in_fan_out\":true}", LINNET_ERR_UNSUPPORTED,
         "fan_in", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"rank_pattern\":{\"q_proj\":8}}",
         LINNET_ERR_FORMAT, "rank 8", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"rank_pattern\":{\"k_proj\":8,\"_proj\":9}}",
         LINNET_OK, "", 8},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"alpha_pattern\":{\"q_proj\":8}}", LINNET_OK, "",
         8},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"alpha_pattern\":{\".*_proj\":4}}",
         LINNET_ERR_UNSUPPORTED, "alpha_pattern", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"alpha_pattern\":{\"q_proj\":-1}}",
         LINNET_ERR_RANGE, "alpha_pattern", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"alpha_pattern\":[1]}", LINNET_ERR_UNSUPPORTED,
         "alpha_pattern", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"modules_to_save\":[\"lm_head\"]}",
         LINNET_ERR_UNSUPPORTED, "modules_to_save", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"init_lora_weights\":\"pissa\"}",
         LINNET_ERR_UNSUPPORTED, "init_lora_weights", 0},
        {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":8}", LINNET_ERR_FORMAT, "not the rank 3", 0},
        {"{\"peft_type\":\"LORA\",\"r\":0,\"lora_alpha\":8}", LINNET_ERR_FORMAT, "'r'", 0},
        {"{\"peft_type\":\"LORA\",\"r\":257,\"lora_alpha\":8}", LINNET_ERR_FORMAT, "'r'", 0},
        {"{\"peft_type\":\"LORA\",\"r\":\"4\",\"lora_alpha\":8}", LINNET_ERR_FORMAT, "'r'", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4}", LINNET_ERR_FORMAT, "lora_alpha", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":-8}", LINNET_ERR_RANGE, "lora_alpha", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"r\":4,\"lora_alpha\":8}", LINNET_ERR_FORMAT, "malformed", 0},
        {"{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8", LINNET_ERR_FORMAT, "malformed", 0},
        {"[]", LINNET_ERR_FORMAT, "no object", 0},
        {"", LINNET_ERR_FORMAT, "malformed", 0},
    };
    linnet_adapter *adapter = random_adapter(model, "attn_q,attn_v", 4, 8, 1);
    linnet_error saved = {0};
    assert_ok(linnet_adapter_save_peft(adapter, "llama", in_folder("conf"), "", &saved), &saved);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_adapter *back = NULL;
        linnet_error err = {0};
        write_text(in_folder("conf/adapter_config.json"), cases[i].config);
        linnet_status got = linnet_adapter_load(in_folder("conf"), model, &back, &err);
        if (got != cases[i].want || !strstr(err.message, cases[i].message))
            fail_msg("%s: got %s: %s", cases[i].config, linnet_status_name(got), err.message);
        if (got == LINNET_OK)
            assert_true(back->layout->alpha == cases[i].alpha);
        linnet_adapter_destroy(back);
    }
    linnet_adapter_destroy(adapter);
}

static void weights_beside_a_configuration_are_checked(void **state)
{
    (void)state;
    static const char config[] = "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":8}";
    static const float zeros[64];
    static const struct {
        const char *name;
        uint32_t n_dims;
        uint64_t rows, columns;
        linnet_status want;
        const char *message;
    } cases[] = {
        {"base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight", 2, 2, 8, LINNET_ERR_FORMAT,
         "without"},
        {"base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight", 1, 2, 1, LINNET_ERR_FORMAT,
         "no matrix"},
        {"base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight", 2, 3, 8, LINNET_ERR_FORMAT,
         "rank 2"},
        {"base_model.model.lm_head.lora_A.weight", 2, 2, 8, LINNET_ERR_UNSUPPORTED, "lm_head"},
        {"base_model.model.model.layers.0.self_attn.v_proj.lora_A.bias", 2, 2, 8, LINNET_ERR_UNSUPPORTED,
         "bias"},
        {"base_model.model.model.layers..self_attn.v_proj.lora_A.weight", 2, 2, 8, LINNET_ERR_UNSUPPORTED,
         "layers.."},
        {"base_model.model.model.layers.0.self_attn.v_proj.lora_magnitude_vector", 2, 2, 8,
         LINNET_ERR_UNSUPPORTED, "magnitude"},
    };
    linnet_error err = {0};
    assert_ok(linnet_directory_create(in_folder("w"), &err), &err);
    write_text(in_folder("w/adapter_config.json"), config);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_adapter *adapter = NULL;
        linnet_safetensors_tensor tensor = {.n_dims = cases[i].n_dims,
                                            .dims = {cases[i].rows, cases[i].columns, 1, 1},
                                            .bytes = (const uint8_t *)zeros,
                                            .n_bytes = (size_t)(cases[i].rows * cases[i].columns) * 4};
        (void)snprintf(tensor.name, sizeof(tensor.name), "%s", cases[i].name);
        assert_ok(linnet_safetensors_write(in_folder("w/adapter_model.safetensors"), &tensor, 1, &err), &err);
        linnet_status got = linnet_adapter_load(in_folder("w"), model, &adapter, &err);
        if (got != cases[i].want || !strstr(err.message, cases[i].message))
            fail_msg("%s: got %s: %s", cases[i].name, linnet_status_name(got), err.message);
    }
}

static void a_factor_under_two_names_is_refused(void **state)
{
    (void)state;
    static const float zeros[16];
    linnet_safetensors_tensor tensors[2] = {{"base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight",
                                             LINNET_SAFETENSORS_F32,
                                             2,
                                             {2, 8, 1, 1},
                                             (const uint8_t *)zeros,
                                             64},
                                            {"base_model.model.layers.0.self_attn.v_proj.lora_A.weight",
                                             LINNET_SAFETENSORS_F32,
                                             2,
                                             {2, 8, 1, 1},
                                             (const uint8_t *)zeros,
                                             64}};
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    assert_ok(linnet_directory_create(in_folder("two"), &err), &err);
    write_text(in_folder("two/adapter_config.json"), "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":2}");
    assert_ok(linnet_safetensors_write(in_folder("two/adapter_model.safetensors"), tensors, 2, &err), &err);
    assert_int_equal(linnet_adapter_load(in_folder("two"), model, &adapter, &err), LINNET_ERR_FORMAT);
    assert_non_null(strstr(err.message, "twice"));
}

/* Write 16-bit factors by hand: attn_v of layer 0, rank 1. */
static void bf16_weights_widen_exactly(void **state)
{
    (void)state;
    static const char header[] = "{\"base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight\":"
                                 "{\"dtype\":\"BF16\",\"shape\":[1,8],\"data_offsets\":[0,16]},"
                                 "\"base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight\":"
                                 "{\"dtype\":\"F16\",\"shape\":[4,1],\"data_offsets\":[16,24]}}";
    linnet_buffer b = {0};
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    linnet_buffer_append_le64(&b, sizeof(header) - 1);
    linnet_buffer_append_text(&b, header);
    for (unsigned i = 0; i < 8; i++)
        linnet_buffer_append_le16(&b, (uint16_t)(0x3f80 + i)); /* 1 + i/128 */
    for (unsigned i = 0; i < 4; i++)
        linnet_buffer_append_le16(&b, (uint16_t)(0xbc00 + i)); /* -(1 + i/1024) */
    assert_ok(linnet_directory_create(in_folder("bf"), &err), &err);
    write_text(in_folder("bf/adapter_config.json"), "{\"peft_type\":\"LORA\",\"r\":1,\"lora_alpha\":2}");
    assert_ok(linnet_file_write(in_folder("bf/adapter_model.safetensors"), b.bytes, b.n_bytes, 0600, &err),
              &err);
    assert_ok(linnet_adapter_load(in_folder("bf"), model, &adapter, &err), &err);
    for (unsigned i = 0; i < 8; i++)
        assert_true(linnet_adapter_a(adapter, 0)[i] == 1 + i / 128.0f);
    for (unsigned i = 0; i < 4; i++)
        assert_true(linnet_adapter_b(adapter, 0)[i] == -(1 + i / 1024.0f));
    linnet_adapter_destroy(adapter);
    linnet_buffer_release(&b);
}

/* ---- merges ---- */

static void a_merge_adds_the_product_and_copies_the_rest(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        double tolerance;
    } cases[] = {{LINNET_TENSOR_F32, 6e-8}, {LINNET_TENSOR_F16, 4.9e-4}};
    linnet_adapter *adapter = random_adapter(model, "attn_q,ffn_down", 3, 1.5f, 1);
    const linnet_layout *layout = adapter->layout;
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        linnet_gguf *merged = NULL;
        linnet_error err = {0};
        uint32_t file_type = 9;
        assert_ok(linnet_adapter_merge(adapter, model, cases[c].type, in_folder("merged.gguf"), &err), &err);
        assert_ok(linnet_gguf_open(in_folder("merged.gguf"), &merged, &err), &err);
        assert_int_equal(linnet_gguf_n_values(merged), linnet_gguf_n_values(model));
        assert_int_equal(linnet_gguf_n_tensors(merged), linnet_gguf_n_tensors(model));
        assert_ok(linnet_gguf_get_u32(merged, "general.file_type", &file_type, &err), &err);
        assert_int_equal(file_type, c);
        for (size_t t = 0; t < linnet_gguf_n_tensors(model); t++) {
            const linnet_gguf_tensor *base = linnet_gguf_tensor_at(model, t),
                                     *got = linnet_gguf_tensor_at(merged, t);
            char name[80];
            (void)snprintf(name, sizeof(name), "%.*s", (int)base->name.n_bytes, base->name.bytes);
            assert_true(linnet_text_is(got->name, name));
            const linnet_layout_entry *entry = linnet_layout_find(layout, name);
            if (!entry) {
                assert_int_equal(got->type, base->type);
                assert_memory_equal(got->bytes, base->bytes, base->n_bytes);
                continue;
            }
            assert_int_equal(got->type, cases[c].type);
            const float *a = adapter->data + entry->a_offset, *b = adapter->data + entry->b_offset;
            for (size_t i = 0; i < (size_t)entry->rows * entry->columns; i++) {
                double want = linnet_load_f32(base->bytes + 4 * i), have;
                for (size_t k = 0; k < 3; k++)
                    want += 0.5 * b[i / entry->columns * 3 + k] * a[k * entry->columns + i % entry->columns];
                if (cases[c].type == LINNET_TENSOR_F32) {
                    have = linnet_load_f32(got->bytes + 4 * i);
                } else {
                    uint16_t half = linnet_load_le16(got->bytes + 2 * i);
                    have = ldexp((half & 0x3ff) + 1024, (half >> 10 & 31) - 25) * (half & 0x8000 ? -1 : 1);
                }
                assert_true(fabs(have - want) <= cases[c].tolerance * fabs(want) + 1e-7);
            }
        }
        linnet_gguf_close(merged);
    }
    linnet_adapter_destroy(adapter);
}

static void merges_that_cannot_be_are_refused(void **state)
{
    (void)state;
    linnet_adapter *adapter = random_adapter(model, "attn_q", 3, 1.5f, 1);
    linnet_error err = {0};
    assert_int_equal(linnet_adapter_merge(adapter, model, LINNET_TENSOR_Q8_0, in_folder("no.gguf"), &err),
                     LINNET_ERR_ARG);
    linnet_adapter_b(adapter, 0)[0] = 1e30f;
    assert_int_equal(linnet_adapter_merge(adapter, model, LINNET_TENSOR_F16, in_folder("no.gguf"), &err),
                     LINNET_ERR_RANGE);
    assert_non_null(strstr(err.message, "row 0 of merged 'blk.0.attn_q.weight'"));
    adapter->layout->entries[1].rows = 16;
    assert_int_equal(linnet_adapter_merge(adapter, model, LINNET_TENSOR_F32, in_folder("no.gguf"), &err),
                     LINNET_ERR_MISMATCH);
    assert_int_not_equal(access(in_folder("no.gguf"), F_OK), 0);
    linnet_adapter_destroy(adapter);
}

static void quantised_models_are_not_merged(void **state)
{
    (void)state;
    const char *path = testing_shared("models/stories260K-Q8_0.gguf");
    linnet_gguf *quantised = NULL;
    linnet_error err = {0};
    if (!path)
        skip();
    assert_ok(linnet_gguf_open(path, &quantised, &err), &err);
    linnet_adapter *adapter = random_adapter(quantised, "attn_q", 2, 4, 1);
    linnet_status got =
        linnet_adapter_merge(adapter, quantised, LINNET_TENSOR_F32, in_folder("no.gguf"), &err);
    assert_int_equal(got, LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "Q8_0"));
    linnet_adapter_destroy(adapter);
    linnet_gguf_close(quantised);
}

/* ---- the reference adapters ---- */

static void check_reference(const linnet_adapter *adapter, const json_t *json)
{
    const json_t *targets = json_object_get(json, "targets");
    const linnet_layout *layout = adapter->layout;
    size_t n_targets = json_array_size(targets);
    assert_true(layout->alpha == (float)json_number_value(json_object_get(json, "alpha")));
    assert_int_equal(layout->n_parameters, json_integer_value(json_object_get(json, "trainable_parameters")));
    assert_int_equal(layout->n_entries % n_targets, 0);
    for (size_t e = 0; e < layout->n_entries; e++) {
        assert_int_equal(layout->entries[e].rank, json_integer_value(json_object_get(json, "rank")));
        assert_string_equal(linnet_target_name(layout->entries[e].target),
                            json_string_value(json_array_get(targets, e % n_targets)));
    }
}

/* The layout that the model gives for these targets is the one that the file has. */
static void check_layout(const linnet_adapter *adapter, const linnet_gguf *base)
{
    const linnet_layout *layout = adapter->layout;
    linnet_layout *made = NULL;
    linnet_error err = {0};
    uint32_t mask = 0;
    for (size_t e = 0; e < layout->n_entries; e++)
        mask |= UINT32_C(1) << layout->entries[e].target;
    assert_ok(linnet_layout_create(base, layout->entries[0].rank, layout->alpha, mask, &made, &err), &err);
    linnet_hash x = linnet_layout_hash(made), y = linnet_layout_hash(layout);
    assert_true(linnet_layout_equal(made, layout));
    assert_true(linnet_hash_equal(&x, &y));
    linnet_layout_destroy(made);
}

static void reference_adapters_pass_through_both_forms(void **state)
{
    (void)state;
    static const char *const cases[] = {"stories260K-r4", "stories3M-r8", "stories3M-Q8_0-r4"};
    static const char *const kinds[] = {"init", "probe", "sgd20", "adamw20", "fedavg3"};
    size_t n_loaded = 0;
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        char name[512];
        linnet_gguf *base = NULL;
        linnet_error err = {0};
        (void)snprintf(name, sizeof(name), "lora/%s.json", cases[c]);
        const char *path = testing_shared(name);
        if (!path)
            skip();
        json_t *json = json_load_file(path, 0, NULL);
        assert_non_null(json);
        (void)snprintf(name, sizeof(name), "models/%s", json_string_value(json_object_get(json, "model")));
        path = testing_shared(name);
        assert_non_null(path);
        assert_ok(linnet_gguf_open(path, &base, &err), &err);
        for (size_t k = 0; k < ARRAY_LEN(kinds); k++, n_loaded++) {
            linnet_adapter *adapter = NULL, *from_peft = NULL, *from_gguf = NULL;
            (void)snprintf(name, sizeof(name), "lora/%s-%s.gguf", cases[c], kinds[k]);
            path = testing_shared(name);
            assert_non_null(path);
            assert_ok(linnet_adapter_load(path, base, &adapter, &err), &err);
            check_reference(adapter, json);
            check_layout(adapter, base);
            assert_ok(linnet_adapter_save_peft(adapter, "llama", in_folder("ref"), cases[c], &err), &err);
            assert_ok(linnet_adapter_load(in_folder("ref"), base, &from_peft, &err), &err);
            assert_same_adapter(adapter, from_peft);
            assert_ok(linnet_adapter_save_gguf(from_peft, "llama", in_folder("ref.gguf"), &err), &err);
            assert_ok(linnet_adapter_load(in_folder("ref.gguf"), base, &from_gguf, &err), &err);
            assert_same_adapter(adapter, from_gguf);
            linnet_adapter_destroy(adapter);
            linnet_adapter_destroy(from_peft);
            linnet_adapter_destroy(from_gguf);
        }
        linnet_gguf_close(base);
        json_decref(json);
    }
    assert_int_equal(n_loaded, 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peft_to_gguf_to_peft_keeps_every_bit),
        cmocka_unit_test(rows_of_q_and_k_stand_in_hugging_faces_order),
        cmocka_unit_test(the_configuration_says_what_peft_reads),
        cmocka_unit_test(an_adapter_of_some_layers_has_just_those),
        cmocka_unit_test(targets_may_have_patterns_ranks_and_alphas),
        cmocka_unit_test(alphas_of_their_own_go_there_and_back),
        cmocka_unit_test(factors_that_do_not_pair_or_fit_are_refused),
        cmocka_unit_test(a_model_is_no_adapter),
        cmocka_unit_test(infinite_factors_are_refused),
        cmocka_unit_test(configurations_are_honoured_or_refused_by_name),
        cmocka_unit_test(weights_beside_a_configuration_are_checked),
        cmocka_unit_test(a_factor_under_two_names_is_refused),
        cmocka_unit_test(bf16_weights_widen_exactly),
        cmocka_unit_test(a_merge_adds_the_product_and_copies_the_rest),
        cmocka_unit_test(merges_that_cannot_be_are_refused),
        cmocka_unit_test(quantised_models_are_not_merged),
        cmocka_unit_test(reference_adapters_pass_through_both_forms),
    };
    return cmocka_run_group_tests(tests, make_model, drop_model);
}
