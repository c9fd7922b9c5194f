/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ADAPTERS_FIXTURE_H
#define ADAPTERS_FIXTURE_H

/* What the tests of adapters share: a folder for files, and a tiny llama model with random weights. */

#include "testing.h"

#include "linnet/adapter.h"

#include <unistd.h>

static char fixture_folder[] = "/tmp/linnet-test-adapters-XXXXXX";

static inline int make_folder(void **state)
{
    (void)state;
    return mkdtemp(fixture_folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    char command[128];
    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", fixture_folder);
    return system(command);
}

/** "folder/name" in one of four static buffers. */
static inline const char *in_folder(const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof(paths[0]), "%s/%s", fixture_folder, name);
    return path;
}

/* Two layers, width 8, two query heads over one key head, 12 wide feed-forward. */
#define TINY_LAYERS 2
static const struct {
    const char *name;
    uint64_t columns, rows;
} tiny_matrices[] = {
    {"attn_q", 8, 8},    {"attn_k", 8, 4},  {"attn_v", 8, 4},    {"attn_output", 8, 8},
    {"ffn_gate", 8, 12}, {"ffn_up", 8, 12}, {"ffn_down", 12, 8},
};

static inline void tiny_values(linnet_gguf_writer *writer)
{
    linnet_gguf_writer_text(writer, "general.architecture", "llama");
    linnet_gguf_writer_u32(writer, "general.file_type", 0);
    linnet_gguf_writer_u32(writer, "llama.block_count", TINY_LAYERS);
    linnet_gguf_writer_u32(writer, "llama.attention.head_count", 2);
    linnet_gguf_writer_u32(writer, "llama.attention.head_count_kv", 1);
    linnet_gguf_writer_f32(writer, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
}

/** Write the tiny model in F32 and open it; the caller closes it. */
static inline linnet_gguf *tiny_model(const char *path)
{
    static float weights[TINY_LAYERS * 7][96];
    static const float norm[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    linnet_error err = {0};
    linnet_rng rng;
    linnet_gguf *model = NULL;
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_rng_init(&rng, 7, 0);
    tiny_values(writer);
    linnet_gguf_writer_tensor(writer, "output_norm.weight", LINNET_TENSOR_F32, 1, (const uint64_t[]){8}, norm,
                              sizeof(norm));
    for (size_t i = 0; i < TINY_LAYERS * ARRAY_LEN(tiny_matrices); i++) {
        size_t m = i % ARRAY_LEN(tiny_matrices),
               n = (size_t)(tiny_matrices[m].columns * tiny_matrices[m].rows);
        uint64_t dims[2] = {tiny_matrices[m].columns, tiny_matrices[m].rows};
        char name[64];
        for (size_t k = 0; k < n; k++)
            weights[i][k] = (float)linnet_rng_normal(&rng);
        (void)snprintf(name, sizeof(name), "blk.%zu.%s.weight", i / ARRAY_LEN(tiny_matrices),
                       tiny_matrices[m].name);
        linnet_gguf_writer_tensor(writer, name, LINNET_TENSOR_F32, 2, dims, weights[i], n * sizeof(float));
    }
    assert_ok(linnet_gguf_writer_write(writer, path, &err), &err);
    linnet_gguf_writer_destroy(writer);
    assert_ok(linnet_gguf_open(path, &model, &err), &err);
    return model;
}

/** An adapter of these targets with random A and B. */
static inline linnet_adapter *random_adapter(const linnet_gguf *model, const char *targets, uint32_t rank,
                                             float alpha, uint64_t seed)
{
    linnet_error err = {0};
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_rng rng;
    uint32_t mask = 0;
    linnet_rng_init(&rng, seed, 1);
    assert_ok(linnet_targets_parse(targets, &mask, &err), &err);
    assert_ok(linnet_layout_create(model, rank, alpha, mask, &layout, &err), &err);
    assert_ok(linnet_adapter_create(layout, &adapter, &err), &err);
    for (size_t i = 0; i < layout->n_parameters; i++)
        adapter->data[i] = (float)linnet_rng_normal(&rng);
    linnet_layout_destroy(layout);
    return adapter;
}

/** Same layout, same bits. */
static inline void assert_same_adapter(const linnet_adapter *a, const linnet_adapter *b)
{
    assert_true(linnet_layout_equal(a->layout, b->layout));
    assert_memory_equal(a->data, b->data, a->layout->n_parameters * sizeof(float));
}

#endif
