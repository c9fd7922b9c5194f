/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of a model file become numbers of the model, each of them bounded; a key that would change the
 * computation in a way that linnet does not know is refused by name. Source: the GGUF specification, and
 * llama.cpp's converters for what an absent key means. */
#include "model_open.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LAYERS_MAX = 4096,   /* models in use have up to about 130 */
    WIDTH_MAX = 1 << 20, /* elements of an activation */
    HEADS_MAX = 1 << 16  /* the adapter layout's cap too */
};

/** A key that changes the computation, and the value at which it does not. */
typedef struct neutral_key {
    const char *name;
    double value;
} neutral_key;

static const neutral_key neutral_keys[] = {
    {"expert_count", 0},
    {"expert_used_count", 0},
    {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0},
    {"attention.temperature_scale", 0},
    {"rope.scaling.yarn_log_multiplier", 0},
    {"rope.scaling.alpha", 0},
    {"use_parallel_residual", 0},
};

/* What llama.cpp makes one vector of a text from: 0 none, 1 the mean of its tokens, 2 the first, 3 the last,
 * 4 the first for a head. */
static const double head_poolings[] = {0, 2, 4};

/* These scale in granite's way, or not at all. */
static const char *const multipliers[] = {"embedding_scale", "residual_scale", "attention.scale",
                                          "logit_scale"};

/* ---- metadata ---- */

static void key_name(const opening *o, const char *name, char text[96])
{
    (void)snprintf(text, 96, "%s.%s", o->architecture->name, name); /* both are ours and short */
}

static const linnet_gguf_value *find_key(const opening *o, const char *name)
{
    char key[96];
    key_name(o, name, key);
    return linnet_gguf_find(o->model->gguf, key);
}

/* A key of the architecture in low..high. An absent one takes the value that *ret has, or fails where that is
 * 0. */
static linnet_status get_count(const opening *o, const char *name, uint32_t high, uint32_t *ret)
{
    char key[96];
    uint32_t value = *ret;
    key_name(o, name, key);
    if (!linnet_gguf_find(o->model->gguf, key)) {
        if (value != 0)
            return LINNET_OK;
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED, "model '%s' has no key '%s'", o->path, key);
    }
    linnet_status status = linnet_gguf_get_u32(o->model->gguf, key, &value, o->err);
    if (status != LINNET_OK)
        return status;
    if (value < 1 || value > high)
        return linnet_fail(o->err, LINNET_ERR_RANGE, "model '%s': '%s' is %" PRIu32 ", not in 1..%" PRIu32,
                           o->path, key, value, high);
    *ret = value;
    return LINNET_OK;
}

/* A positive, finite number; an absent key leaves *ret as it is, or fails where that is 0. */
static linnet_status get_positive(const opening *o, const char *name, float *ret)
{
    char key[96];
    float value = *ret;
    key_name(o, name, key);
    if (!linnet_gguf_find(o->model->gguf, key) && value != 0)
        return LINNET_OK;
    linnet_status status = linnet_gguf_get_f32(o->model->gguf, key, &value, o->err);
    if (status == LINNET_ERR_NOT_FOUND)
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED, "model '%s' has no key '%s'", o->path, key);
    if (status != LINNET_OK)
        return status;
    if (!isfinite(value) || value <= 0)
        return linnet_fail(o->err, LINNET_ERR_RANGE, "model '%s': '%s' is not positive and finite", o->path,
                           key);
    *ret = value;
    return LINNET_OK;
}

/* As get_positive, but 0 is allowed too. */
static linnet_status get_number(const opening *o, const char *name, float *ret)
{
    char key[96];
    float value = *ret;
    if (!find_key(o, name))
        return LINNET_OK;
    key_name(o, name, key);
    linnet_status status = linnet_gguf_get_f32(o->model->gguf, key, &value, o->err);
    if (status == LINNET_OK && (!isfinite(value) || value < 0))
        status =
            linnet_fail(o->err, LINNET_ERR_RANGE, "model '%s': '%s' is negative or not finite", o->path, key);
    if (status == LINNET_OK)
        *ret = value;
    return status;
}

static bool value_is(const linnet_gguf_value *value, double wanted)
{
    linnet_gguf_value array = *value; /* one number reads as an array of one */
    double number;
    array.element_kind = value->kind;
    return value->kind != LINNET_GGUF_ARRAY && linnet_gguf_array_number(&array, 0, &number) == LINNET_OK &&
           number == wanted;
}

static linnet_status refuse_key(const opening *o, const char *name)
{
    char key[96];
    key_name(o, name, key);
    return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED, "model '%s' sets '%s', which linnet does not compute",
                       o->path, key);
}

/* Keys that would change the computation must be absent or neutral. */
static linnet_status refuse_keys(const opening *o)
{
    for (size_t i = 0; i < ARRAY_LEN(neutral_keys); i++) {
        const linnet_gguf_value *value = find_key(o, neutral_keys[i].name);
        if (value && !value_is(value, neutral_keys[i].value))
            return refuse_key(o, neutral_keys[i].name);
    }
    for (size_t i = 0; !o->architecture->has_multipliers && i < ARRAY_LEN(multipliers); i++) {
        const linnet_gguf_value *value = find_key(o, multipliers[i]);
        if (value && !value_is(value, 1))
            return refuse_key(o, multipliers[i]);
    }
    return LINNET_OK;
}

/* Which tokens see which, and where a head looks, must be what the architecture says. */
static linnet_status refuse_other_attention(const opening *o)
{
    const linnet_gguf_value *causal = find_key(o, "attention.causal"), *pooling = find_key(o, "pooling_type");
    bool has_head = linnet_gguf_find_tensor(o->model->gguf, "cls.output.weight") != NULL;
    bool is_known = !o->architecture->has_pooled_head || !has_head || !pooling;
    if (causal && !value_is(causal, o->architecture->is_bidirectional ? 0 : 1))
        return refuse_key(o, "attention.causal");
    for (size_t i = 0; !is_known && i < ARRAY_LEN(head_poolings); i++)
        is_known = value_is(pooling, head_poolings[i]);
    return is_known ? LINNET_OK : refuse_key(o, "pooling_type");
}

static linnet_status read_heads(opening *o)
{
    linnet_model_shape *shape = &o->model->shape;
    uint32_t value_width;
    linnet_status status = get_count(o, "attention.head_count", HEADS_MAX, &shape->n_heads);
    if (status != LINNET_OK)
        return status;
    shape->n_kv_heads = shape->n_heads;
    shape->head_width = shape->width % shape->n_heads == 0 ? shape->width / shape->n_heads : 0;
    status = get_count(o, "attention.head_count_kv", HEADS_MAX, &shape->n_kv_heads);
    if (status == LINNET_OK)
        status = get_count(o, "attention.key_length", WIDTH_MAX, &shape->head_width);
    if (status == LINNET_ERR_UNSUPPORTED)
        return linnet_fail(o->err, LINNET_ERR_RANGE,
                           "model '%s': a width of %" PRIu32 " does not divide into %" PRIu32 " heads",
                           o->path, shape->width, shape->n_heads);
    if (status == LINNET_OK) {
        value_width = shape->head_width;
        shape->rope_width = o->architecture->rope == LINNET_ROPE_NONE ? 0 : shape->head_width;
        if (shape->rope_width > 0)
            status = get_count(o, "rope.dimension_count", WIDTH_MAX, &shape->rope_width);
    }
    if (status == LINNET_OK)
        status = get_count(o, "attention.value_length", WIDTH_MAX, &value_width);
    if (status != LINNET_OK)
        return status;
    if (shape->n_heads % shape->n_kv_heads != 0)
        return linnet_fail(o->err, LINNET_ERR_RANGE,
                           "model '%s': %" PRIu32 " heads cannot share %" PRIu32 " key/value heads", o->path,
                           shape->n_heads, shape->n_kv_heads);
    if (shape->rope_width > shape->head_width || shape->rope_width % 2 != 0)
        return linnet_fail(o->err, LINNET_ERR_RANGE,
                           "model '%s': %" PRIu32 " rotary dimensions in heads of %" PRIu32, o->path,
                           shape->rope_width, shape->head_width);
    if (value_width != shape->head_width)
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED, "model '%s' has values of another width than keys",
                           o->path);
    if ((uint64_t)shape->n_heads * shape->head_width > WIDTH_MAX)
        return linnet_fail(o->err, LINNET_ERR_RANGE,
                           "model '%s': %" PRIu32 " heads of %" PRIu32 " are too wide", o->path,
                           shape->n_heads, shape->head_width);
    o->model->query_width = shape->n_heads * shape->head_width;
    o->model->kv_width = shape->n_kv_heads * shape->head_width;
    return LINNET_OK;
}

/* ---- what the scores and sums are scaled by ---- */

static linnet_status read_scales(opening *o)
{
    linnet_model *model = o->model;
    const linnet_model_shape *shape = &model->shape;
    const linnet_architecture *row = o->architecture;
    bool is_wide = row->wide_layers != 0 && shape->n_layers == row->wide_layers;
    float score_width = (float)(is_wide ? shape->width / shape->n_heads : shape->head_width), divisor = 1;
    model->attention_scale = 1.0f / sqrtf(score_width);
    model->attention_cap = row->attention_cap;
    model->logit_cap = row->logit_cap;
    model->embedding_scale = row->scales_embedding ? sqrtf((float)shape->width) : 1.0f;
    model->residual_scale = 1;
    linnet_status status = get_number(o, "attn_logit_softcapping", &model->attention_cap);
    if (status == LINNET_OK)
        status = get_number(o, "final_logit_softcapping", &model->logit_cap);
    if (status == LINNET_OK && row->has_multipliers)
        status = get_positive(o, "attention.scale", &model->attention_scale);
    if (status == LINNET_OK && row->has_multipliers)
        status = get_positive(o, "embedding_scale", &model->embedding_scale);
    if (status == LINNET_OK && row->has_multipliers)
        status = get_positive(o, "residual_scale", &model->residual_scale);
    if (status == LINNET_OK && row->has_multipliers)
        status = get_positive(o, "logit_scale", &divisor);
    model->logit_scale = 1.0f / divisor;
    return status;
}

/* ---- rotary positions ---- */

/* Linear scaling and YaRN; factors of frequencies are tensors and come later. */
static linnet_status read_rope_scaling(opening *o, linnet_rope *rope)
{
    char key[96];
    linnet_text type = {"linear", 6};
    float factor = 1;
    uint32_t original = o->model->shape.context;
    key_name(o, "rope.scaling.type", key);
    if (linnet_gguf_find(o->model->gguf, key) &&
        linnet_gguf_get_text(o->model->gguf, key, &type, o->err) != LINNET_OK)
        return LINNET_ERR_FORMAT;
    bool is_none = linnet_text_is(type, "none"), is_linear = linnet_text_is(type, "linear");
    rope->is_yarn = linnet_text_is(type, "yarn");
    if (!is_none && !is_linear && !rope->is_yarn && !linnet_text_is(type, "longrope"))
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED, "model '%s' needs rope scaling '%.*s' ('%s')",
                           o->path, type.n_bytes < 40 ? (int)type.n_bytes : 40, type.bytes, key);
    linnet_status status = get_positive(o, "rope.scale_linear", &factor);
    if (status == LINNET_OK)
        status = get_positive(o, "rope.scaling.factor", &factor);
    if (status == LINNET_OK)
        status = get_count(o, "rope.scaling.original_context_length", LINNET_CONTEXT_MAX, &original);
    if (status == LINNET_OK)
        status = get_positive(o, "rope.scaling.attn_factor", &rope->magnitude);
    if (status == LINNET_OK)
        status = get_positive(o, "rope.scaling.yarn_beta_fast", &rope->yarn_beta_fast);
    if (status == LINNET_OK)
        status = get_positive(o, "rope.scaling.yarn_beta_slow", &rope->yarn_beta_slow);
    rope->original_context = (float)original;
    rope->scale = is_linear || rope->is_yarn ? 1.0f / factor : 1.0f;
    if (rope->is_yarn)
        rope->magnitude *= 1.0f + 0.1f * logf(factor);
    return status;
}

static linnet_status read_ropes(opening *o)
{
    linnet_model *model = o->model;
    linnet_rope *rope = &model->ropes[0], *local = &model->ropes[1];
    if (o->architecture->rope == LINNET_ROPE_NONE)
        return LINNET_OK;
    *rope =
        (linnet_rope){.base = 10000, .scale = 1, .magnitude = 1, .yarn_beta_fast = 32, .yarn_beta_slow = 1};
    model->n_ropes = 1;
    linnet_status status = get_positive(o, "rope.freq_base", &rope->base);
    if (status == LINNET_OK)
        status = read_rope_scaling(o, rope);
    model->shape.rope_base = rope->base;
    *local = (linnet_rope){.base = o->architecture->local_rope_base, .scale = 1, .magnitude = 1};
    if (status == LINNET_OK && (local->base != 0 || find_key(o, "rope.freq_base_swa"))) {
        status = get_positive(o, "rope.freq_base_swa", &local->base);
        model->n_ropes = 2;
    }
    return status;
}

/* ---- windows ---- */

/* Is layer i among those with a window? A key says it for each layer, or every how many have none. */
static linnet_status has_window(const opening *o, uint32_t layer, bool *ret_has)
{
    char key[96];
    const linnet_gguf_value *pattern = find_key(o, "attention.sliding_window_pattern");
    uint32_t period = o->architecture->window_period;
    double flag = 0;
    key_name(o, "attention.sliding_window_pattern", key);
    if (pattern && pattern->kind == LINNET_GGUF_ARRAY) {
        if (linnet_gguf_array_number(pattern, layer, &flag) != LINNET_OK)
            return linnet_fail(o->err, LINNET_ERR_FORMAT, "model '%s': '%s' has no number for layer %u",
                               o->path, key, (unsigned)layer);
        *ret_has = flag != 0;
        return LINNET_OK;
    }
    linnet_status status = pattern ? linnet_gguf_get_u32(o->model->gguf, key, &period, o->err) : LINNET_OK;
    *ret_has = period == 0 || layer % period < period - 1;
    return status;
}

linnet_status linnet_model_read_windows(opening *o)
{
    linnet_model *model = o->model;
    char key[96];
    uint32_t window = o->architecture->window;
    linnet_status status = LINNET_OK;
    key_name(o, "attention.sliding_window", key);
    if (linnet_gguf_find(model->gguf, key))
        status = linnet_gguf_get_u32(model->gguf, key, &window, o->err);
    for (uint32_t i = 0; i < model->shape.n_layers && window != 0 && status == LINNET_OK; i++) {
        bool has = false;
        status = has_window(o, i, &has);
        model->layers[i].window = has ? window : 0;
        model->layers[i].rope = has ? model->n_ropes - 1 : 0;
    }
    return status;
}

/* ---- labels ---- */

enum { LABEL_NAME_BYTES = 24 }; /* "LABEL_" and a number */

/* Names for labels that the file does not name. */
static linnet_status make_labels(opening *o, uint32_t n)
{
    linnet_head *head = &o->model->head;
    head->names = calloc(n, LABEL_NAME_BYTES);
    if (!head->names)
        return linnet_fail(o->err, LINNET_ERR_NOMEM, "no memory for %" PRIu32 " labels", n);
    for (uint32_t i = 0; i < n; i++) {
        char *name = head->names + (size_t)i * LABEL_NAME_BYTES;
        (void)snprintf(name, LABEL_NAME_BYTES, "LABEL_%" PRIu32, i);
        head->labels[i] = (linnet_text){name, strlen(name)};
    }
    return LINNET_OK;
}

linnet_status linnet_model_read_labels(opening *o, uint32_t n)
{
    linnet_head *head = &o->model->head;
    const linnet_gguf_value *names = find_key(o, "classifier.output_labels");
    size_t at = 0;
    linnet_status status = LINNET_OK;
    head->labels = calloc(n, sizeof(head->labels[0]));
    if (!head->labels)
        return linnet_fail(o->err, LINNET_ERR_NOMEM, "no memory for %" PRIu32 " labels", n);
    if (!names)
        status = make_labels(o, n);
    bool is_list = names && names->kind == LINNET_GGUF_ARRAY && names->element_kind == LINNET_GGUF_STRING &&
                   names->n_elements == n;
    for (uint32_t i = 0; names && is_list && i < n; i++)
        is_list = linnet_gguf_array_text(names, &at, &head->labels[i]);
    if (names && !is_list)
        return linnet_fail(o->err, LINNET_ERR_FORMAT,
                           "model '%s': '%s.classifier.output_labels' is no list of %" PRIu32
                           " names, one for each row of cls.output.weight",
                           o->path, o->architecture->name, n);
    if (status == LINNET_OK)
        head->n_labels = n;
    return status;
}

linnet_status linnet_model_read_keys(opening *o)
{
    linnet_model_shape *shape = &o->model->shape;
    bool is_rms = o->architecture->norm == LINNET_NORM_RMS;
    linnet_status status = refuse_keys(o);
    if (status == LINNET_OK)
        status = refuse_other_attention(o);
    if (status == LINNET_OK)
        status = get_count(o, "block_count", LAYERS_MAX, &shape->n_layers);
    if (status == LINNET_OK)
        status = get_count(o, "embedding_length", WIDTH_MAX, &shape->width);
    if (status == LINNET_OK)
        status = get_count(o, "feed_forward_length", WIDTH_MAX, &shape->ffn_width);
    if (status == LINNET_OK)
        status = get_count(o, "context_length", LINNET_CONTEXT_MAX, &shape->context);
    if (status == LINNET_OK)
        status = get_positive(o, is_rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
                              &shape->norm_epsilon);
    if (status == LINNET_OK)
        status = read_heads(o);
    if (status == LINNET_OK)
        status = read_scales(o);
    return status == LINNET_OK ? read_ropes(o) : status;
}
