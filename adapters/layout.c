/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout of an adapter: which matrices of a model it adapts, in which order, with shapes from the model
 * file, and the hash by which devices and coordinator know that they speak of the same floats
 * (SECURE-AGGREGATION 2.5, MODEL RELEASE). Rows of q and k of llama's family stand in another order in GGUF
 * than with Hugging Face, because their rotary embeddings pair neighbours here and halves there; an entry
 * therefore remembers its number of heads.
 */
#include "layout.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "limits.h"

/* ---- targets ---- */

static const char *const names[] = {
#define TARGET_NAME(name, gguf) gguf,
    LINNET_TARGET_LIST(TARGET_NAME)
#undef TARGET_NAME
};

const char *linnet_target_name(linnet_target target)
{
    return (size_t)target < ARRAY_LEN(names) ? names[target] : "unknown";
}

/* ---- names ---- */

bool linnet_layout_parse_index(linnet_text text, uint32_t *ret_index, size_t *ret_n_digits)
{
    uint32_t index = 0;
    size_t n = 0;
    while (n < text.n_bytes && text.bytes[n] >= '0' && text.bytes[n] <= '9') {
        index = 10 * index + (uint32_t)(text.bytes[n] - '0');
        if (index >= LINNET_LAYOUT_ENTRIES_MAX)
            return false;
        n++;
    }
    if (n == 0 || (n > 1 && text.bytes[0] == '0'))
        return false;
    *ret_index = index;
    *ret_n_digits = n;
    return true;
}

void linnet_layout_stem(uint32_t layer, linnet_target target, char stem[LINNET_LAYOUT_STEM_BYTES])
{
    if (linnet_target_is_head(target))
        (void)snprintf(stem, LINNET_LAYOUT_STEM_BYTES, "%s", linnet_target_name(target));
    else
        (void)snprintf(stem, LINNET_LAYOUT_STEM_BYTES, "blk.%u.%s", (unsigned)layer,
                       linnet_target_name(target));
}

bool linnet_layout_parse_name(linnet_text name, const char *suffix, uint32_t *ret_layer,
                              linnet_target *ret_target)
{
    size_t n_digits, n_suffix = strlen(suffix);
    if (name.n_bytes < n_suffix || memcmp(name.bytes + name.n_bytes - n_suffix, suffix, n_suffix) != 0)
        return false;
    linnet_text rest = {name.bytes, name.n_bytes - n_suffix};
    bool is_block = rest.n_bytes > 4 && memcmp(rest.bytes, "blk.", 4) == 0;
    uint32_t layer = LINNET_LAYER_HEAD;
    if (is_block &&
        !linnet_layout_parse_index((linnet_text){rest.bytes + 4, rest.n_bytes - 4}, &layer, &n_digits))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char wanted[LINNET_LAYOUT_STEM_BYTES + 8];
        if (linnet_target_is_head((linnet_target)i) == is_block)
            continue;
        linnet_layout_stem(layer, (linnet_target)i, wanted);
        strcat(wanted, ".weight");
        if (!linnet_text_is(rest, wanted))
            continue;
        *ret_layer = layer;
        *ret_target = (linnet_target)i;
        return true;
    }
    return false;
}

/* ---- what a model says ---- */

/* A count of the architecture: "llama.block_count". An absent one leaves *ret as it is where it may be
 * absent. */
static linnet_status get_count(const layout_model *model, const char *name, bool may_be_absent, uint32_t *ret,
                               linnet_error *err)
{
    char key[64];
    (void)snprintf(key, sizeof(key), "%s.%s", model->architecture->name, name); /* both are ours and short */
    if (may_be_absent && !linnet_gguf_find(model->gguf, key))
        return LINNET_OK;
    return linnet_gguf_get_u32(model->gguf, key, ret, err);
}

linnet_status linnet_layout_model_read(const linnet_gguf *gguf, layout_model *ret_model, linnet_error *err)
{
    layout_model model = {.gguf = gguf};
    linnet_status status = linnet_architecture_of(gguf, &model.architecture, err);
    if (status == LINNET_OK)
        status = get_count(&model, "block_count", false, &model.n_layers, err);
    if (status == LINNET_OK)
        status = get_count(&model, "attention.head_count", false, &model.n_heads, err);
    model.n_kv_heads = model.n_heads; /* the key is optional: without it, every query head has its own */
    if (status == LINNET_OK)
        status = get_count(&model, "attention.head_count_kv", true, &model.n_kv_heads, err);
    if (status != LINNET_OK)
        return status;
    if (model.n_layers == 0 || model.n_layers > LINNET_LAYOUT_ENTRIES_MAX || model.n_heads == 0 ||
        model.n_heads > LINNET_HEADS_MAX || model.n_kv_heads == 0 || model.n_kv_heads > LINNET_HEADS_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "model '%s' has impossible counts: %u layers, %u and %u heads",
                           linnet_gguf_path(gguf), (unsigned)model.n_layers, (unsigned)model.n_heads,
                           (unsigned)model.n_kv_heads);
    *ret_model = model;
    return LINNET_OK;
}

static void tensor_name(uint32_t layer, linnet_target target, char name[64])
{
    char stem[LINNET_LAYOUT_STEM_BYTES];
    linnet_layout_stem(layer, target, stem);
    (void)snprintf(name, 64, "%s.weight", stem);
}

linnet_status linnet_layout_describe(const layout_model *model, uint32_t layer, linnet_target target,
                                     uint32_t rank, linnet_layout_entry *ret_entry, linnet_error *err)
{
    linnet_layout_entry entry = {.layer = layer, .target = target, .rank = rank};
    const char *path = linnet_gguf_path(model->gguf);
    bool is_there = linnet_target_is_head(target) ? layer == LINNET_LAYER_HEAD : layer < model->n_layers;
    tensor_name(layer, target, entry.name);
    const linnet_gguf_tensor *tensor = linnet_gguf_find_tensor(model->gguf, entry.name);
    if (!tensor || !is_there)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "model '%s' has no tensor '%s' to adapt", path,
                           entry.name);
    if (tensor->n_dims != 2 || tensor->dims[0] > INT32_MAX || tensor->dims[1] > INT32_MAX)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "model '%s': tensor '%s' is no matrix that can be adapted", path, entry.name);
    if (rank < 1 || rank > LINNET_RANK_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "rank %u of '%s' is not in 1..%d", (unsigned)rank,
                           entry.name, LINNET_RANK_MAX);
    entry.columns = (uint32_t)tensor->dims[0];
    entry.rows = (uint32_t)tensor->dims[1];
    entry.n_hf_heads = tensor->n_hf_heads;
    bool has_pairs = model->architecture->rope == LINNET_ROPE_PAIRS;
    if (has_pairs && target == LINNET_TARGET_ATTN_Q)
        entry.n_rope_heads = model->n_heads;
    else if (has_pairs && target == LINNET_TARGET_ATTN_K)
        entry.n_rope_heads = model->n_kv_heads;
    if (entry.n_rope_heads > 0 &&
        (entry.rows % entry.n_rope_heads != 0 || entry.rows / entry.n_rope_heads % 2 != 0))
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "model '%s': the %u rows of '%s' do not split into %u even heads", path,
                           (unsigned)entry.rows, entry.name, (unsigned)entry.n_rope_heads);
    *ret_entry = entry;
    return LINNET_OK;
}

/* ---- the layout ---- */

linnet_status linnet_layout_assemble(const linnet_layout_entry *entries, size_t n_entries, float alpha,
                                     linnet_layout **ret_layout, linnet_error *err)
{
    const uint64_t n_max = LINNET_ADAPTER_BYTES_MAX / sizeof(float);
    uint64_t at = 0, n_a = 0;
    if (n_entries == 0 || n_entries > LINNET_LAYOUT_ENTRIES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "%zu adapted matrices; 1 to %d are allowed", n_entries,
                           LINNET_LAYOUT_ENTRIES_MAX);
    if (!isfinite(alpha) || alpha <= 0)
        return linnet_fail(err, LINNET_ERR_RANGE, "alpha %g of an adapter is not positive", (double)alpha);
    linnet_layout *layout = calloc(1, sizeof(*layout));
    if (layout)
        layout->entries = calloc(n_entries, sizeof(layout->entries[0]));
    if (!layout || !layout->entries) {
        linnet_layout_destroy(layout);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a layout of %zu entries", n_entries);
    }
    for (size_t i = 0; i < n_entries; i++) {
        uint64_t a = (uint64_t)entries[i].rank * entries[i].columns,
                 b = (uint64_t)entries[i].rank * entries[i].rows;
        layout->entries[i] = entries[i];
        layout->entries[i].a_offset = (size_t)at;
        layout->entries[i].b_offset = (size_t)(at + a);
        at += a + b;
        n_a += a;
        if (at > n_max) {
            linnet_layout_destroy(layout);
            return linnet_fail(err, LINNET_ERR_LIMIT,
                               "the adapter exceeds %zu MiB; lower the rank or the targets",
                               LINNET_ADAPTER_BYTES_MAX >> 20);
        }
    }
    layout->alpha = alpha;
    layout->n_entries = n_entries;
    layout->n_parameters = (size_t)at;
    layout->n_a = (size_t)n_a;
    layout->n_b = (size_t)(at - n_a);
    *ret_layout = layout;
    return LINNET_OK;
}

size_t linnet_layout_n_places(const layout_model *model)
{
    return (size_t)model->n_layers * LINNET_BLOCK_TARGETS + (LINNET_TARGETS - LINNET_BLOCK_TARGETS);
}

layout_place linnet_layout_place(const layout_model *model, size_t i)
{
    size_t n_blocks = (size_t)model->n_layers * LINNET_BLOCK_TARGETS;
    if (i < n_blocks)
        return (layout_place){(uint32_t)(i / LINNET_BLOCK_TARGETS),
                              (linnet_target)(i % LINNET_BLOCK_TARGETS)};
    return (layout_place){LINNET_LAYER_HEAD, (linnet_target)(LINNET_BLOCK_TARGETS + (i - n_blocks))};
}

bool linnet_layout_has(const layout_model *model, layout_place place)
{
    char name[64];
    tensor_name(place.layer, place.target, name);
    return linnet_gguf_find_tensor(model->gguf, name) != NULL;
}

linnet_status linnet_layout_create(const linnet_gguf *model, uint32_t rank, float alpha, uint32_t target_mask,
                                   linnet_layout **ret_layout, linnet_error *err)
{
    layout_model info = {0};
    size_t n = 0;
    linnet_status status = linnet_layout_model_read(model, &info, err);
    if (status != LINNET_OK)
        return status;
    if (target_mask == 0 || target_mask >> LINNET_TARGETS != 0)
        return linnet_fail(err, LINNET_ERR_ARG, "target mask 0x%x names no or unknown targets",
                           (unsigned)target_mask);
    linnet_layout_entry *entries = calloc(linnet_layout_n_places(&info), sizeof(entries[0]));
    if (!entries)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the layout of %u layers",
                           (unsigned)info.n_layers);
    for (size_t i = 0; i < linnet_layout_n_places(&info) && status == LINNET_OK; i++) {
        layout_place place = linnet_layout_place(&info, i);
        if ((target_mask >> place.target & 1) != 0 &&
            (target_mask != LINNET_TARGETS_ALL || linnet_layout_has(&info, place)))
            status = linnet_layout_describe(&info, place.layer, place.target, rank, &entries[n++], err);
    }
    if (status == LINNET_OK)
        status = linnet_layout_assemble(entries, n, alpha, ret_layout, err);
    free(entries);
    return status;
}

linnet_layout *linnet_layout_copy(const linnet_layout *layout)
{
    linnet_layout *copy = malloc(sizeof(*copy));
    if (!copy)
        return NULL;
    *copy = *layout;
    copy->entries = malloc(layout->n_entries * sizeof(copy->entries[0]));
    if (!copy->entries) {
        free(copy);
        return NULL;
    }
    memcpy(copy->entries, layout->entries, layout->n_entries * sizeof(copy->entries[0]));
    return copy;
}

void linnet_layout_destroy(linnet_layout *layout)
{
    if (!layout)
        return;
    free(layout->entries);
    free(layout);
}

static bool entry_equal(const linnet_layout_entry *a, const linnet_layout_entry *b)
{
    return strcmp(a->name, b->name) == 0 && a->rows == b->rows && a->columns == b->columns &&
           a->rank == b->rank && a->alpha == b->alpha && a->n_rope_heads == b->n_rope_heads &&
           a->n_hf_heads == b->n_hf_heads && a->a_offset == b->a_offset && a->b_offset == b->b_offset;
}

bool linnet_layout_equal(const linnet_layout *a, const linnet_layout *b)
{
    if (a->alpha != b->alpha || a->n_entries != b->n_entries)
        return false;
    for (size_t i = 0; i < a->n_entries; i++)
        if (!entry_equal(&a->entries[i], &b->entries[i]))
            return false;
    return true;
}

static void hash_entry(linnet_hasher *hasher, const linnet_layout_entry *entry)
{
    uint8_t bytes[2 + sizeof(entry->name) + 3 * 4 + 1 + 2 * 8], *at = bytes;
    size_t n_name = strlen(entry->name);
    linnet_store_le16(at, (uint16_t)n_name);
    memcpy(at + 2, entry->name, n_name);
    at += 2 + n_name;
    linnet_store_le32(at, entry->rank);
    linnet_store_le32(at + 4, entry->rows);
    linnet_store_le32(at + 8, entry->columns);
    at[12] = 0; /* dtype F32 */
    linnet_store_le64(at + 13, entry->a_offset);
    linnet_store_le64(at + 21, entry->b_offset);
    linnet_hasher_update(hasher, bytes, (size_t)(at + 29 - bytes));
}

static bool has_own_alphas(const linnet_layout *layout)
{
    for (size_t i = 0; i < layout->n_entries; i++)
        if (layout->entries[i].alpha != 0)
            return true;
    return false;
}

static bool has_hf_rows(const linnet_layout *layout)
{
    for (size_t i = 0; i < layout->n_entries; i++)
        if (layout->entries[i].n_hf_heads != 0)
            return true;
    return false;
}

linnet_hash linnet_layout_hash(const linnet_layout *layout)
{
    linnet_hasher hasher;
    uint8_t head[8];
    linnet_hasher_init(&hasher, LINNET_LABEL_LAYOUT);
    linnet_store_f32(head, layout->alpha);
    linnet_store_le32(head + 4, (uint32_t)layout->n_entries);
    linnet_hasher_update(&hasher, head, sizeof(head));
    for (size_t i = 0; i < layout->n_entries; i++)
        hash_entry(&hasher, &layout->entries[i]);
    size_t n_alphas = has_own_alphas(layout) ? layout->n_entries : 0;
    size_t n_heads = has_hf_rows(layout) ? layout->n_entries : 0;
    for (size_t i = 0; i < n_alphas; i++) {
        linnet_store_f32(head, layout->entries[i].alpha);
        linnet_hasher_update(&hasher, head, sizeof(float));
    }
    for (size_t i = 0; i < n_heads; i++) {
        linnet_store_le32(head, layout->entries[i].n_hf_heads);
        linnet_hasher_update(&hasher, head, sizeof(uint32_t));
    }
    return linnet_hasher_final(&hasher);
}

const linnet_layout_entry *linnet_layout_find(const linnet_layout *layout, const char *name)
{
    for (size_t i = 0; i < layout->n_entries; i++)
        if (strcmp(layout->entries[i].name, name) == 0)
            return &layout->entries[i];
    return NULL;
}
