/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing what an adapter adapts: names of matrices in GGUF's or Hugging Face's words, shell patterns over
 * them, and for each a rank and an alpha if they are to differ. As a mask (plans, where all matrices of a
 * kind are alike) and as a layout (training on one's own).
 */
#include "layout.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ITEMS_MAX 64
#define PATTERN_MAX 96

/* ---- masks ---- */

/* Is text a module's name, or its end behind a dot? "self_attn.q_proj", "q_proj". */
static bool names_module(linnet_text text, const char *module)
{
    for (; module && *module; module = linnet_module_end(module))
        if (linnet_text_is(text, module))
            return true;
    return false;
}

/* What text names in one family. "dense" names so much of bert that it names nothing there: as a target of
 * any model it is phi2's. */
static uint32_t modules_of(const linnet_architecture *row, linnet_text text)
{
    uint32_t mask = 0;
    size_t n = 0;
    for (size_t t = 0; t < LINNET_TARGETS; t++)
        if (names_module(text, row->hf[t])) {
            mask |= UINT32_C(1) << t;
            n++;
        }
    return n > 2 ? 0 : mask;
}

/* "attn_q", "self_attn.q_proj" and "q_proj" are the same target. "c_proj" is two, as for peft. 0: none. */
static uint32_t targets_of(linnet_text text)
{
    const linnet_architecture *row;
    uint32_t mask = 0;
    for (size_t t = 0; t < LINNET_TARGETS; t++)
        if (linnet_text_is(text, linnet_target_name((linnet_target)t)))
            mask |= UINT32_C(1) << t;
    for (size_t i = 0; (row = linnet_architecture_at(i)); i++)
        mask |= modules_of(row, text);
    return mask;
}

linnet_status linnet_targets_parse(const char *text, uint32_t *ret_mask, linnet_error *err)
{
    uint32_t mask = 0;
    if (strcmp(text, "all") == 0) {
        *ret_mask = LINNET_TARGETS_ALL;
        return LINNET_OK;
    }
    for (const char *at = text;; at++) {
        linnet_text name = {at, strcspn(at, ",")};
        uint32_t named = targets_of(name);
        if (named == 0)
            return linnet_fail(
                err, LINNET_ERR_ARG,
                "unknown target '%.*s'; use all, or some of attn_q, attn_k, attn_v, attn_qkv, attn_output, "
                "ffn_gate, ffn_up, ffn_down, cls, cls.output with commas",
                name.n_bytes < 40 ? (int)name.n_bytes : 40, name.bytes);
        mask |= named;
        at += name.n_bytes;
        if (*at == '\0')
            break;
    }
    *ret_mask = mask;
    return LINNET_OK;
}

/* ---- patterns ---- */

typedef struct target_item {
    char pattern[PATTERN_MAX];
    uint32_t rank;
    float alpha;
    bool is_used;
} target_item;

static linnet_status bad_item(const char *text, size_t n, const char *what, linnet_error *err)
{
    return linnet_fail(err, LINNET_ERR_ARG, "target '%.*s': %s; NAME, NAME:RANK or NAME:RANK:ALPHA is wanted",
                       n < 60 ? (int)n : 60, text, what);
}

/* "PATTERN[:RANK[:ALPHA]]" of n bytes; rank and alpha hold what is not said. */
static linnet_status parse_item(const char *text, size_t n, target_item *item, linnet_error *err)
{
    size_t n_pattern = strcspn(text, ":,");
    char *end = NULL;
    if (n_pattern == 0 || n_pattern >= PATTERN_MAX)
        return bad_item(text, n, "no name", err);
    memcpy(item->pattern, text, n_pattern);
    item->pattern[n_pattern] = '\0';
    if (strcmp(item->pattern, "all") == 0)
        strcpy(item->pattern, "*");
    if (n_pattern == n)
        return LINNET_OK;
    unsigned long rank = strtoul(text + n_pattern + 1, &end, 10);
    if (end == text + n_pattern + 1 || rank < 1 || rank > LINNET_RANK_MAX)
        return bad_item(text, n, "its rank is not in 1..256", err);
    item->rank = (uint32_t)rank;
    if (*end == ':') {
        const char *alpha = end + 1;
        item->alpha = strtof(alpha, &end);
        if (end == alpha || !isfinite(item->alpha) || item->alpha <= 0)
            return bad_item(text, n, "its alpha is not positive", err);
    }
    return end == text + n ? LINNET_OK : bad_item(text, n, "something stands behind it", err);
}

static linnet_status parse_items(const char *text, uint32_t rank, float alpha, target_item *items,
                                 size_t *ret_n, linnet_error *err)
{
    size_t n_items = 0;
    for (const char *at = text;; at++) {
        size_t n = strcspn(at, ",");
        if (n_items == ITEMS_MAX)
            return linnet_fail(err, LINNET_ERR_LIMIT, "more than %d targets", ITEMS_MAX);
        items[n_items] = (target_item){.rank = rank, .alpha = alpha};
        linnet_status status = parse_item(at, n, &items[n_items++], err);
        if (status != LINNET_OK)
            return status;
        at += n;
        if (*at == '\0')
            break;
    }
    *ret_n = n_items;
    return LINNET_OK;
}

/* By any of a matrix's names: attn_q, blk.3.attn_q, q_proj, self_attn.q_proj, layers.3.self_attn.q_proj. */
static bool matches(const char *pattern, const linnet_architecture *architecture, layout_place place)
{
    const char *module = architecture->hf[place.target];
    char name[PATTERN_MAX];
    linnet_layout_stem(place.layer, place.target, name);
    if (fnmatch(pattern, linnet_target_name(place.target), 0) == 0 || fnmatch(pattern, name, 0) == 0)
        return true;
    for (const char *at = module; at && *at; at = linnet_module_end(at))
        if (fnmatch(pattern, at, 0) == 0)
            return true;
    if (!module || linnet_target_is_head(place.target))
        return false;
    (void)snprintf(name, sizeof(name), "layers.%u.%s", (unsigned)place.layer, module);
    return fnmatch(pattern, name, 0) == 0;
}

/* rsLoRA (Kalajdzievski 2023): alpha / sqrt(rank) is alpha' / rank. */
static float folded(float alpha, uint32_t rank, bool by_root)
{
    return by_root ? (float)(alpha * sqrt((double)rank)) : alpha;
}

/* Every matrix that an item names, with what the first such item says; alpha: the layout's. */
static linnet_status choose_entries(const layout_model *model, target_item *items, size_t n_items,
                                    float alpha, bool by_root, linnet_layout_entry *entries, size_t *ret_n,
                                    linnet_error *err)
{
    size_t n = 0;
    for (size_t p = 0; p < linnet_layout_n_places(model); p++) {
        layout_place place = linnet_layout_place(model, p);
        size_t i = 0;
        if (!linnet_layout_has(model, place))
            continue;
        while (i < n_items && !matches(items[i].pattern, model->architecture, place))
            i++;
        if (i == n_items)
            continue;
        linnet_status status =
            linnet_layout_describe(model, place.layer, place.target, items[i].rank, &entries[n], err);
        if (status != LINNET_OK)
            return status;
        float own = folded(items[i].alpha, items[i].rank, by_root);
        entries[n++].alpha = own == alpha ? 0 : own;
        items[i].is_used = true;
    }
    *ret_n = n;
    return LINNET_OK;
}

linnet_status linnet_layout_create_for(const linnet_gguf *model, const char *targets, uint32_t rank,
                                       float alpha, bool by_root, linnet_layout **ret_layout,
                                       linnet_error *err)
{
    layout_model info = {0};
    target_item items[ITEMS_MAX];
    size_t n_items = 0, n = 0;
    linnet_status status = linnet_layout_model_read(model, &info, err);
    if (status == LINNET_OK)
        status = parse_items(targets, rank, alpha, items, &n_items, err);
    if (status != LINNET_OK)
        return status;
    linnet_layout_entry *entries = calloc(linnet_layout_n_places(&info), sizeof(entries[0]));
    if (!entries)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the layout of %u layers",
                           (unsigned)info.n_layers);
    float own = folded(alpha, rank, by_root);
    status = choose_entries(&info, items, n_items, own, by_root, entries, &n, err);
    for (size_t i = 0; i < n_items && status == LINNET_OK; i++)
        if (!items[i].is_used)
            status = linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                                 "target '%s' names no matrix of model '%s' that others have not taken",
                                 items[i].pattern, linnet_gguf_path(model));
    if (status == LINNET_OK)
        status = linnet_layout_assemble(entries, n, own, ret_layout, err);
    free(entries);
    return status;
}
