/* SPDX-License-Identifier: Apache-2.0 */
/* Open a model: metadata and tensors of a GGUF file become a shape and matrix descriptors. The file is
 * hostile: every number is bounded, every tensor's shape is held against the shape that the numbers ask for,
 * and what linnet would compute differently (a key with a meaning of its own, a tensor it has no use for) is
 * refused by name rather than ignored. Weights stay where they are in the map; only norms become floats.
 * Source: the GGUF specification's keys and tensor names of the llama architecture. */
#include "weights.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LAYERS_MAX = 4096,       /* models in use have up to about 130 */
    WIDTH_MAX = 1 << 20,     /* elements of an activation */
    HEADS_MAX = 1 << 16,     /* the adapter layout's cap too */
    VOCABULARY_MAX = 1 << 28 /* ids are 32-bit integers */
};

/** A key that changes the computation, and the value at which it does not. */
typedef struct neutral_key {
    const char *name;
    double value;
} neutral_key;

/** What an architecture asks for beyond the common shape; a later one is a row, and its switches here. */
typedef struct architecture {
    const char *name;
    const neutral_key *neutral_keys; /* refused at any other value; ends with a NULL name */
} architecture;

static const neutral_key llama_neutral_keys[] = {
    {"expert_count", 0},
    {"expert_used_count", 0},
    {"rope.scaling.factor", 1},
    {"rope.scale_linear", 1},
    {"attention.causal", 1},
    {"logit_scale", 1},
    {"residual_scale", 1},
    {"embedding_scale", 1},
    {"attention.clamp_kqv", 0},
    {"use_parallel_residual", 0},
    {NULL, 0},
};

static const architecture architectures[] = {
    {"llama", llama_neutral_keys}, /* RMS norm, rotary pairs (2i, 2i+1), grouped queries, SwiGLU */
};

/** What the functions below share while a model is opened. */
typedef struct opening {
    linnet_model *model;
    const architecture *architecture;
    const char *path;
    uint64_t elements_of_type[LINNET_TENSOR_Q8_0 + 1]; /* by GGUF's type number */
    linnet_error *err;
} opening;

/* ---- metadata ---- */

static void key_name(const opening *o, const char *name, char text[96])
{
    (void)snprintf(text, 96, "%s.%s", o->architecture->name, name); /* both are ours and short */
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

static linnet_status find_architecture(opening *o)
{
    linnet_text name;
    linnet_status status = linnet_gguf_get_text(o->model->gguf, "general.architecture", &name, o->err);
    if (status == LINNET_ERR_NOT_FOUND)
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED, "model '%s' has no key 'general.architecture'",
                           o->path);
    if (status != LINNET_OK)
        return status;
    for (size_t i = 0; i < ARRAY_LEN(architectures); i++)
        if (linnet_text_is(name, architectures[i].name))
            o->architecture = &architectures[i];
    if (!o->architecture)
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED,
                           "model '%s' has architecture '%.*s'; linnet runs llama", o->path,
                           name.n_bytes < 40 ? (int)name.n_bytes : 40, name.bytes);
    o->model->architecture = o->architecture->name;
    return LINNET_OK;
}

static bool value_is(const linnet_gguf_value *value, double wanted)
{
    linnet_gguf_value array = *value; /* one number reads as an array of one */
    double number;
    array.element_kind = value->kind;
    return value->kind != LINNET_GGUF_ARRAY && linnet_gguf_array_number(&array, 0, &number) == LINNET_OK &&
           number == wanted;
}

/* Keys that would change the computation must be absent or neutral. */
static linnet_status refuse_keys(const opening *o)
{
    const linnet_gguf *gguf = o->model->gguf;
    char key[96];
    for (const neutral_key *neutral = o->architecture->neutral_keys; neutral->name; neutral++) {
        key_name(o, neutral->name, key);
        const linnet_gguf_value *value = linnet_gguf_find(gguf, key);
        if (value && !value_is(value, neutral->value))
            return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED,
                               "model '%s' sets '%s', which linnet does not compute", o->path, key);
    }
    key_name(o, "rope.scaling.type", key);
    const linnet_gguf_value *value = linnet_gguf_find(gguf, key);
    linnet_text scaling = {"none", 4};
    if (value && linnet_gguf_get_text(gguf, key, &scaling, o->err) != LINNET_OK)
        return LINNET_ERR_FORMAT;
    if (!linnet_text_is(scaling, "none"))
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED, "model '%s' needs rope scaling '%.*s' ('%s')",
                           o->path, scaling.n_bytes < 40 ? (int)scaling.n_bytes : 40, scaling.bytes, key);
    return LINNET_OK;
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
        shape->rope_width = value_width = shape->head_width;
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

static linnet_status read_window(const opening *o)
{
    char key[96];
    key_name(o, "attention.sliding_window", key);
    const linnet_gguf_value *value = linnet_gguf_find(o->model->gguf, key);
    uint32_t window = 0;
    if (!value)
        return LINNET_OK;
    linnet_status status = linnet_gguf_get_u32(o->model->gguf, key, &window, o->err);
    if (status == LINNET_OK && window != 0 && window < o->model->shape.context)
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED,
                           "model '%s' attends within a window ('%s'), which linnet does not compute",
                           o->path, key);
    return status;
}

static linnet_status read_shape(opening *o)
{
    linnet_model_shape *shape = &o->model->shape;
    linnet_status status = get_count(o, "block_count", LAYERS_MAX, &shape->n_layers);
    if (status == LINNET_OK)
        status = get_count(o, "embedding_length", WIDTH_MAX, &shape->width);
    if (status == LINNET_OK)
        status = get_count(o, "feed_forward_length", WIDTH_MAX, &shape->ffn_width);
    if (status == LINNET_OK)
        status = get_count(o, "context_length", LINNET_CONTEXT_MAX, &shape->context);
    if (status == LINNET_OK)
        status = get_positive(o, "attention.layer_norm_rms_epsilon", &shape->norm_epsilon);
    shape->rope_base = 10000;
    if (status == LINNET_OK)
        status = get_positive(o, "rope.freq_base", &shape->rope_base);
    if (status == LINNET_OK)
        status = read_heads(o);
    return status == LINNET_OK ? read_window(o) : status;
}

/* ---- tensors ---- */

/* A known, readable tensor of exactly this shape (rows 0: a vector of `columns`). */
static linnet_status find_matrix(opening *o, const char *name, uint32_t rows, uint32_t columns,
                                 linnet_matrix *ret)
{
    const linnet_gguf_tensor *tensor = linnet_gguf_find_tensor(o->model->gguf, name);
    size_t block, block_bytes;
    if (!tensor)
        return linnet_fail(o->err, LINNET_ERR_FORMAT, "model '%s' has no tensor '%s'", o->path, name);
    if (tensor->n_dims != (rows == 0 ? 1u : 2u) || tensor->dims[0] != columns ||
        (rows > 0 && tensor->dims[1] != rows))
        return linnet_fail(o->err, LINNET_ERR_FORMAT,
                           "model '%s': tensor '%s' is %" PRIu64 " x %" PRIu64
                           ", its metadata ask for %" PRIu32 " x %" PRIu32,
                           o->path, name, tensor->dims[1], tensor->dims[0], rows == 0 ? 1 : rows, columns);
    bool runs = tensor->type == LINNET_TENSOR_F32 || tensor->type == LINNET_TENSOR_F16 ||
                tensor->type == LINNET_TENSOR_Q8_0 || tensor->type == LINNET_TENSOR_Q4_0;
    if (!runs || !linnet_tensor_type_info(tensor->type, &block, &block_bytes) || columns % block != 0)
        return linnet_fail(
            o->err, LINNET_ERR_UNSUPPORTED, "model '%s': tensor '%s' has type %s", o->path, name,
            linnet_tensor_type_name(tensor->type) ? linnet_tensor_type_name(tensor->type) : "unknown");
    *ret = (linnet_matrix){.type = tensor->type,
                           .rows = rows == 0 ? 1 : rows,
                           .columns = columns,
                           .row_bytes = columns / block * block_bytes,
                           .bytes = tensor->bytes};
    o->elements_of_type[tensor->type] += (uint64_t)ret->rows * columns;
    return LINNET_OK;
}

static linnet_status read_norm(opening *o, const char *name, float *norm)
{
    linnet_matrix vector;
    linnet_status status = find_matrix(o, name, 0, o->model->shape.width, &vector);
    if (status != LINNET_OK)
        return status;
    if (vector.type != LINNET_TENSOR_F32 && vector.type != LINNET_TENSOR_F16)
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED, "model '%s': norm '%s' is neither F32 nor F16",
                           o->path, name);
    linnet_row_decode(linnet_kernels_scalar(), &vector, 0, norm);
    return LINNET_OK;
}

static linnet_status read_layer(opening *o, uint32_t index, float *norms)
{
    const linnet_model *model = o->model;
    const linnet_model_shape *shape = &model->shape;
    linnet_layer *layer = &o->model->layers[index];
    const struct {
        uint32_t rows, columns;
    } shapes[LINNET_TARGETS] = {
        [LINNET_TARGET_ATTN_Q] = {model->query_width, shape->width},
        [LINNET_TARGET_ATTN_K] = {model->kv_width, shape->width},
        [LINNET_TARGET_ATTN_V] = {model->kv_width, shape->width},
        [LINNET_TARGET_ATTN_OUTPUT] = {shape->width, model->query_width},
        [LINNET_TARGET_FFN_GATE] = {shape->ffn_width, shape->width},
        [LINNET_TARGET_FFN_UP] = {shape->ffn_width, shape->width},
        [LINNET_TARGET_FFN_DOWN] = {shape->width, shape->ffn_width},
    };
    char name[64];
    linnet_status status = LINNET_OK;
    for (int target = 0; target < LINNET_TARGETS && status == LINNET_OK; target++) {
        (void)snprintf(name, sizeof(name), "blk.%u.%s.weight", (unsigned)index,
                       linnet_target_name((linnet_target)target));
        status = find_matrix(o, name, shapes[target].rows, shapes[target].columns, &layer->linears[target]);
    }
    (void)snprintf(name, sizeof(name), "blk.%u.attn_norm.weight", (unsigned)index);
    if (status == LINNET_OK)
        status = read_norm(o, name, norms);
    (void)snprintf(name, sizeof(name), "blk.%u.ffn_norm.weight", (unsigned)index);
    if (status == LINNET_OK)
        status = read_norm(o, name, norms + shape->width);
    layer->attention_norm = norms;
    layer->ffn_norm = norms + shape->width;
    return status;
}

static linnet_status read_vocabulary(opening *o)
{
    linnet_model *model = o->model;
    const linnet_gguf_tensor *tensor = linnet_gguf_find_tensor(model->gguf, "token_embd.weight");
    if (tensor && (tensor->dims[1] < 1 || tensor->dims[1] > VOCABULARY_MAX))
        return linnet_fail(o->err, LINNET_ERR_RANGE, "model '%s': a vocabulary of %" PRIu64 " tokens",
                           o->path, tensor->dims[1]);
    model->shape.vocabulary = tensor ? (uint32_t)tensor->dims[1] : 1;
    linnet_status status =
        find_matrix(o, "token_embd.weight", model->shape.vocabulary, model->shape.width, &model->embedding);
    model->shape.tied_output = !linnet_gguf_find_tensor(model->gguf, "output.weight");
    model->output = model->embedding;
    if (status == LINNET_OK && !model->shape.tied_output)
        status = find_matrix(o, "output.weight", model->shape.vocabulary, model->shape.width, &model->output);
    return status;
}

/* Is this a tensor that read_tensors has read? */
static bool tensor_is_used(const opening *o, linnet_text name)
{
    static const char *const others[] = {"token_embd.weight", "output_norm.weight", "output.weight"};
    char text[64];
    uint32_t layer = 0;
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (linnet_text_is(name, others[i]))
            return true;
    for (size_t i = 4; i < name.n_bytes && i < 8 && name.bytes[i] >= '0' && name.bytes[i] <= '9'; i++)
        layer = 10 * layer + (uint32_t)(name.bytes[i] - '0'); /* of "blk.N.": LAYERS_MAX has four digits */
    for (int part = 0; layer < o->model->shape.n_layers && part < LINNET_TARGETS + 2; part++) {
        const char *stem = part < LINNET_TARGETS    ? linnet_target_name((linnet_target)part)
                           : part == LINNET_TARGETS ? "attn_norm"
                                                    : "ffn_norm";
        (void)snprintf(text, sizeof(text), "blk.%u.%s.weight", (unsigned)layer, stem);
        if (linnet_text_is(name, text))
            return true;
    }
    return false;
}

/* Biases, experts, rope factors, norms of q and k: a tensor without a use means another computation. */
static linnet_status refuse_tensors(const opening *o)
{
    size_t n_tensors = linnet_gguf_n_tensors(o->model->gguf);
    for (size_t i = 0; i < n_tensors; i++) {
        linnet_text name = linnet_gguf_tensor_at(o->model->gguf, i)->name;
        if (!tensor_is_used(o, name))
            return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED,
                               "model '%s' has a tensor '%.*s', which linnet does not compute with", o->path,
                               name.n_bytes < 64 ? (int)name.n_bytes : 64, name.bytes);
    }
    return LINNET_OK;
}

static linnet_status read_tensors(opening *o)
{
    linnet_model *model = o->model;
    size_t width = model->shape.width, n_norms = 2 * (size_t)model->shape.n_layers + 1, n_floats;
    /* A file holds every tensor that its counts promise, so its own size bounds what is allocated here. */
    if (linnet_gguf_n_tensors(model->gguf) < (size_t)model->shape.n_layers * (LINNET_TARGETS + 2))
        return linnet_fail(o->err, LINNET_ERR_FORMAT, "model '%s' has fewer tensors than its %u layers need",
                           o->path, (unsigned)model->shape.n_layers);
    linnet_status status = read_vocabulary(o);
    if (status != LINNET_OK)
        return status;
    if (!linnet_size_mul(n_norms, width, &n_floats) || n_floats > SIZE_MAX / sizeof(float))
        return linnet_fail(o->err, LINNET_ERR_RANGE, "model '%s' is too large for this machine", o->path);
    model->norms = malloc(n_floats * sizeof(float));
    model->layers = calloc(model->shape.n_layers, sizeof(model->layers[0]));
    if (!model->norms || !model->layers)
        return linnet_fail(o->err, LINNET_ERR_NOMEM, "no memory for model '%s'", o->path);
    for (uint32_t i = 0; i < model->shape.n_layers && status == LINNET_OK; i++)
        status = read_layer(o, i, model->norms + 2 * i * width);
    model->output_norm = model->norms + (n_norms - 1) * width;
    if (status == LINNET_OK)
        status = read_norm(o, "output_norm.weight", model->norms + (n_norms - 1) * width);
    return status == LINNET_OK ? refuse_tensors(o) : status;
}

/* ---- the public face ---- */

linnet_status linnet_model_open(const char *path, linnet_model **ret_model, linnet_error *err)
{
    linnet_model *model = calloc(1, sizeof(*model));
    if (!model)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for model '%s'", path);
    opening o = {.model = model, .path = path, .err = err};
    linnet_status status = linnet_gguf_open(path, &model->gguf, err);
    if (status == LINNET_OK)
        status = find_architecture(&o);
    if (status == LINNET_OK)
        status = refuse_keys(&o);
    if (status == LINNET_OK)
        status = read_shape(&o);
    if (status == LINNET_OK)
        status = read_tensors(&o);
    if (status != LINNET_OK) {
        linnet_model_close(model);
        return status;
    }
    for (uint32_t type = 0; type < ARRAY_LEN(o.elements_of_type); type++)
        if (o.elements_of_type[type] > o.elements_of_type[model->type])
            model->type = type;
    *ret_model = model;
    return LINNET_OK;
}

void linnet_model_close(linnet_model *model)
{
    if (!model)
        return;
    linnet_gguf_close(model->gguf);
    free(model->layers);
    free(model->norms);
    free(model);
}

const linnet_model_shape *linnet_model_shape_of(const linnet_model *model)
{
    return &model->shape;
}

const linnet_gguf *linnet_model_gguf(const linnet_model *model)
{
    return model->gguf;
}

const char *linnet_model_architecture(const linnet_model *model)
{
    return model->architecture;
}

const char *linnet_model_type(const linnet_model *model)
{
    return linnet_tensor_type_name(model->type);
}
