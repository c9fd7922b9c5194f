/* SPDX-License-Identifier: Apache-2.0 */
/* Open a model: a GGUF file becomes numbers (model_keys.c) and matrix descriptors, as the row of its
 * architecture asks for. The file is hostile: every tensor's shape is held against the shape that the numbers
 * ask for, and a tensor that linnet has no use for is refused by name rather than ignored. Weights stay where
 * they are in the map; only vectors (norms, biases, rope factors) become floats. Source: the GGUF
 * specification's tensor names. */
#include "model_open.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    VOCABULARY_MAX = 1 << 28,  /* ids are 32-bit integers */
    TOKEN_TYPES_MAX = 1 << 16, /* kinds of text; BERT has two */
    LAYER_TENSORS_MIN = 5      /* of a block: a norm, q k v in one, attn_output, ffn_up, ffn_down */
};

/* ---- tensors ---- */

static const linnet_gguf_tensor *find_tensor(opening *o, const char *name)
{
    const linnet_gguf_tensor *tensor = linnet_gguf_find_tensor(o->model->gguf, name);
    if (tensor)
        o->is_used[tensor - linnet_gguf_tensor_at(o->model->gguf, 0)] = true;
    return tensor;
}

/* A known, readable tensor of exactly this shape (rows 0: a vector of `columns`). */
static linnet_status find_matrix(opening *o, const char *name, uint32_t rows, uint32_t columns,
                                 linnet_matrix *ret)
{
    const linnet_gguf_tensor *tensor = find_tensor(o, name);
    size_t block, block_bytes;
    if (!tensor)
        return linnet_fail(o->err, LINNET_ERR_FORMAT, "model '%s' has no tensor '%s'", o->path, name);
    if (tensor->n_dims != (rows == 0 ? 1u : 2u) || tensor->dims[0] != columns ||
        (rows > 0 && tensor->dims[1] != rows))
        return linnet_fail(o->err, LINNET_ERR_FORMAT,
                           "model '%s': tensor '%s' is %" PRIu64 " x %" PRIu64
                           ", its metadata ask for %" PRIu32 " x %" PRIu32,
                           o->path, name, tensor->dims[1], tensor->dims[0], rows == 0 ? 1 : rows, columns);
    if (!linnet_type_runs(tensor->type) || !linnet_tensor_type_info(tensor->type, &block, &block_bytes) ||
        columns % block != 0)
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

/* A vector as floats; an absent one is NULL, or fails where it is needed. */
static linnet_status read_vector(opening *o, const char *name, uint32_t n, bool is_needed, const float **ret)
{
    linnet_matrix vector;
    if (!is_needed && !linnet_gguf_find_tensor(o->model->gguf, name))
        return LINNET_OK;
    linnet_status status = find_matrix(o, name, 0, n, &vector);
    if (status != LINNET_OK)
        return status;
    if (vector.type != LINNET_TENSOR_F32 && vector.type != LINNET_TENSOR_F16 &&
        vector.type != LINNET_TENSOR_BF16)
        return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED,
                           "model '%s': vector '%s' is neither F32, F16 nor BF16", o->path, name);
    linnet_row_decode(linnet_kernels_scalar(), &vector, 0, o->next_vector);
    *ret = o->next_vector;
    o->next_vector += n;
    return LINNET_OK;
}

/* Weight and bias of a norm of the model's kind, over n elements. */
static linnet_status read_norm(opening *o, const char *stem, linnet_norm_kind kind, uint32_t n,
                               linnet_norm *norm)
{
    char name[64];
    *norm = (linnet_norm){.kind = kind, .epsilon = o->model->shape.norm_epsilon};
    (void)snprintf(name, sizeof(name), "%s.weight", stem);
    linnet_status status = read_vector(o, name, n, true, &norm->weight);
    (void)snprintf(name, sizeof(name), "%s.bias", stem);
    if (status == LINNET_OK && kind == LINNET_NORM_LAYER)
        status = read_vector(o, name, n, true, &norm->bias);
    return status;
}

static linnet_status read_layer_norms(opening *o, uint32_t index)
{
    const linnet_architecture *row = o->architecture;
    linnet_layer *layer = &o->model->layers[index];
    uint32_t width = o->model->shape.width, head_width = o->model->shape.head_width;
    const struct {
        const char *stem;
        bool is_there;
        linnet_norm_kind kind;
        uint32_t n;
        linnet_norm *norm;
    } list[] = {
        {"attn_norm", !row->norms_sums, row->norm, width, &layer->attention_norm},
        {"ffn_norm", !row->is_parallel && !row->norms_sums, row->norm, width, &layer->ffn_norm},
        {"attn_output_norm", row->norms_sums, row->norm, width, &layer->attention_sum_norm},
        {"layer_output_norm", row->norms_sums, row->norm, width, &layer->ffn_sum_norm},
        {"post_attention_norm", row->has_post_norms, row->norm, width, &layer->attention_post_norm},
        {"post_ffw_norm", row->has_post_norms, row->norm, width, &layer->ffn_post_norm},
        {"attn_q_norm", row->has_qk_norms, LINNET_NORM_RMS, head_width, &layer->q_norm},
        {"attn_k_norm", row->has_qk_norms, LINNET_NORM_RMS, head_width, &layer->k_norm},
    };
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < ARRAY_LEN(list) && status == LINNET_OK; i++) {
        char stem[48];
        (void)snprintf(stem, sizeof(stem), "blk.%u.%s", (unsigned)index, list[i].stem);
        if (list[i].is_there)
            status = read_norm(o, stem, list[i].kind, list[i].n, list[i].norm);
    }
    return status;
}

/* ---- linears ---- */

/* The rows of one linear in a tensor that may hold several. */
typedef struct linear_part {
    linnet_target target;
    uint32_t rows;
} linear_part;

/* blk.N.STEM.weight and its bias, if it has one, as linears of the layer. */
static linnet_status read_linear(opening *o, uint32_t index, const char *stem, const linear_part *parts,
                                 size_t n_parts, uint32_t columns)
{
    linnet_layer *layer = &o->model->layers[index];
    linnet_matrix whole;
    const float *bias = NULL;
    char name[64];
    uint32_t rows = 0, first = 0;
    bool needs_bias = false;
    for (size_t i = 0; i < n_parts; i++) {
        rows += parts[i].rows; /* at most three of WIDTH_MAX */
        needs_bias = needs_bias || (o->architecture->biases >> parts[i].target & 1) != 0;
    }
    (void)snprintf(name, sizeof(name), "blk.%u.%s.weight", (unsigned)index, stem);
    linnet_status status = find_matrix(o, name, rows, columns, &whole);
    (void)snprintf(name, sizeof(name), "blk.%u.%s.bias", (unsigned)index, stem);
    if (status == LINNET_OK)
        status = read_vector(o, name, rows, needs_bias, &bias);
    for (size_t i = 0; i < n_parts && status == LINNET_OK; i++) {
        linnet_matrix *part = &layer->linears[parts[i].target];
        *part = whole;
        part->rows = parts[i].rows;
        part->bytes += first * whole.row_bytes;
        layer->biases[parts[i].target] = bias ? bias + first : NULL;
        first += parts[i].rows;
    }
    return status;
}

static linnet_status read_target(opening *o, uint32_t index, linnet_target target, uint32_t rows,
                                 uint32_t columns)
{
    const linear_part part = {target, rows};
    return read_linear(o, index, linnet_target_name(target), &part, 1, columns);
}

static linnet_status read_attention(opening *o, uint32_t index)
{
    const linnet_model *model = o->model;
    uint32_t width = model->shape.width;
    const linear_part qkv[] = {{LINNET_TARGET_ATTN_Q, model->query_width},
                               {LINNET_TARGET_ATTN_K, model->kv_width},
                               {LINNET_TARGET_ATTN_V, model->kv_width}};
    char name[64];
    linnet_status status = LINNET_OK;
    (void)snprintf(name, sizeof(name), "blk.%u.attn_qkv.weight", (unsigned)index);
    if (linnet_gguf_find_tensor(model->gguf, name))
        status = read_linear(o, index, "attn_qkv", qkv, ARRAY_LEN(qkv), width);
    else
        for (size_t i = 0; i < ARRAY_LEN(qkv) && status == LINNET_OK; i++)
            status = read_target(o, index, qkv[i].target, qkv[i].rows, width);
    return status == LINNET_OK ? read_target(o, index, LINNET_TARGET_ATTN_OUTPUT, width, model->query_width)
                               : status;
}

static linnet_status read_ffn(opening *o, uint32_t index)
{
    const linnet_model_shape *shape = &o->model->shape;
    const linnet_architecture *row = o->architecture;
    const linear_part gate_up[] = {{LINNET_TARGET_FFN_GATE, shape->ffn_width},
                                   {LINNET_TARGET_FFN_UP, shape->ffn_width}};
    linnet_status status = LINNET_OK;
    if (row->has_fused_gate) {
        status = read_linear(o, index, "ffn_up", gate_up, ARRAY_LEN(gate_up), shape->width);
    } else {
        if (linnet_activation_has_gate(row->activation))
            status = read_target(o, index, LINNET_TARGET_FFN_GATE, shape->ffn_width, shape->width);
        if (status == LINNET_OK)
            status = read_target(o, index, LINNET_TARGET_FFN_UP, shape->ffn_width, shape->width);
    }
    return status == LINNET_OK ? read_target(o, index, LINNET_TARGET_FFN_DOWN, shape->width, shape->ffn_width)
                               : status;
}

/* ---- the ends ---- */

static linnet_status read_vocabulary(opening *o)
{
    linnet_model *model = o->model;
    const linnet_model_shape *shape = &model->shape;
    const linnet_gguf_tensor *tensor = linnet_gguf_find_tensor(model->gguf, "token_embd.weight");
    if (tensor && (tensor->dims[1] < 1 || tensor->dims[1] > VOCABULARY_MAX))
        return linnet_fail(o->err, LINNET_ERR_RANGE, "model '%s': a vocabulary of %" PRIu64 " tokens",
                           o->path, tensor->dims[1]);
    model->shape.vocabulary = tensor ? (uint32_t)tensor->dims[1] : 1;
    return find_matrix(o, "token_embd.weight", shape->vocabulary, shape->width, &model->embedding);
}

/* A matrix with as many rows as it says, 1 to rows_max. */
static linnet_status find_rows(opening *o, const char *name, uint32_t rows_max, linnet_matrix *ret)
{
    const linnet_gguf_tensor *tensor = linnet_gguf_find_tensor(o->model->gguf, name);
    if (tensor && (tensor->dims[1] < 1 || tensor->dims[1] > rows_max))
        return linnet_fail(o->err, LINNET_ERR_RANGE,
                           "model '%s': tensor '%s' has %" PRIu64 " rows, 1 to %" PRIu32 " can be", o->path,
                           name, tensor->dims[1], rows_max);
    return find_matrix(o, name, tensor ? (uint32_t)tensor->dims[1] : 1, o->model->shape.width, ret);
}

static linnet_status read_token_types(opening *o)
{
    static const char key[] = "tokenizer.ggml.token_type_count";
    linnet_matrix *types = &o->model->token_types;
    uint32_t count = 0;
    linnet_status status = find_rows(o, "token_types.weight", TOKEN_TYPES_MAX, types);
    if (status != LINNET_OK || !linnet_gguf_find(o->model->gguf, key))
        return status;
    status = linnet_gguf_get_u32(o->model->gguf, key, &count, o->err);
    if (status == LINNET_OK && count != types->rows)
        status = linnet_fail(o->err, LINNET_ERR_FORMAT,
                             "model '%s': '%s' is %" PRIu32 ", token_types.weight has %zu rows", o->path, key,
                             count, types->rows);
    return status;
}

/* What is added to embeddings of tokens, and the norm behind the sum. */
static linnet_status read_embedding_parts(opening *o)
{
    linnet_model *model = o->model;
    const linnet_architecture *row = o->architecture;
    linnet_status status = LINNET_OK;
    if (row->rope == LINNET_ROPE_NONE)
        status = find_matrix(o, "position_embd.weight", model->shape.context, model->shape.width,
                             &model->positions);
    if (status == LINNET_OK && row->has_token_types)
        status = read_token_types(o);
    if (status == LINNET_OK && row->has_embedding_norm)
        status = read_norm(o, "token_embd_norm", row->norm, model->shape.width, &model->embedding_norm);
    return status;
}

/* Logits of the vocabulary. */
static linnet_status read_output(opening *o)
{
    linnet_model *model = o->model;
    const linnet_model_shape *shape = &model->shape;
    linnet_status status = LINNET_OK;
    model->shape.tied_output = !linnet_gguf_find_tensor(model->gguf, "output.weight");
    model->output = model->embedding;
    if (!shape->tied_output)
        status = find_matrix(o, "output.weight", shape->vocabulary, shape->width, &model->output);
    if (status == LINNET_OK)
        status = read_vector(o, "output.bias", shape->vocabulary, o->architecture->has_output_bias,
                             &model->output_bias);
    if (status == LINNET_OK)
        status = read_norm(o, "output_norm", o->architecture->norm, shape->width, &model->output_norm);
    return status;
}

static bool has_linear(const opening *o, const char *weight, const char *bias)
{
    return linnet_gguf_find_tensor(o->model->gguf, weight) || linnet_gguf_find_tensor(o->model->gguf, bias);
}

/* Logits of labels, which a file may be without; and so may a head be without a pooler. */
static linnet_status read_head(opening *o)
{
    linnet_head *head = &o->model->head;
    linnet_matrix *pooler = &head->linears[LINNET_TARGET_CLS - LINNET_BLOCK_TARGETS];
    linnet_matrix *output = &head->linears[LINNET_TARGET_CLS_OUTPUT - LINNET_BLOCK_TARGETS];
    uint32_t width = o->model->shape.width;
    linnet_status status = LINNET_OK;
    if (has_linear(o, "cls.weight", "cls.bias")) {
        status = find_matrix(o, "cls.weight", width, width, pooler);
        if (status == LINNET_OK)
            status = read_vector(o, "cls.bias", width, true, &head->biases[0]);
    }
    if (status != LINNET_OK || !has_linear(o, "cls.output.weight", "cls.output.bias"))
        return status;
    status = find_rows(o, "cls.output.weight", LINNET_LABELS_MAX, output);
    if (status == LINNET_OK)
        status = read_vector(o, "cls.output.bias", (uint32_t)output->rows, true, &head->biases[1]);
    return status == LINNET_OK ? linnet_model_read_labels(o, (uint32_t)output->rows) : status;
}

/* Frequencies are divided by these: Llama 3's, or the long and short ones of LongRoPE (Ding et al. 2024). */
static linnet_status read_rope_factors(opening *o)
{
    linnet_rope *rope = &o->model->ropes[0];
    uint32_t n_pairs = o->model->shape.rope_width / 2;
    if (o->model->n_ropes == 0)
        return LINNET_OK;
    linnet_status status = read_vector(o, "rope_factors_short.weight", n_pairs, false, &rope->short_factors);
    if (status == LINNET_OK)
        status = read_vector(o, "rope_factors_long.weight", n_pairs, false, &rope->long_factors);
    if (status == LINNET_OK && !rope->short_factors)
        status = read_vector(o, "rope_freqs.weight", n_pairs, false, &rope->short_factors);
    for (uint32_t i = 0; i < n_pairs && status == LINNET_OK; i++)
        if ((rope->short_factors && !(rope->short_factors[i] > 0)) ||
            (rope->long_factors && !(rope->long_factors[i] > 0)))
            status =
                linnet_fail(o->err, LINNET_ERR_RANGE, "model '%s': a rope factor is not positive", o->path);
    return status;
}

/* A tensor without a use (experts, adapters of their own) means another computation. */
static linnet_status refuse_tensors(const opening *o)
{
    size_t n_tensors = linnet_gguf_n_tensors(o->model->gguf);
    for (size_t i = 0; i < n_tensors; i++) {
        linnet_text name = linnet_gguf_tensor_at(o->model->gguf, i)->name;
        if (!o->is_used[i])
            return linnet_fail(o->err, LINNET_ERR_UNSUPPORTED,
                               "model '%s' has a tensor '%.*s', which linnet does not compute with", o->path,
                               name.n_bytes < 64 ? (int)name.n_bytes : 64, name.bytes);
    }
    return LINNET_OK;
}

/* Room for all vectors of the file, whose own size bounds it. */
static linnet_status allocate(opening *o)
{
    linnet_model *model = o->model;
    size_t n_tensors = linnet_gguf_n_tensors(model->gguf), n_floats = 1;
    if (n_tensors / LAYER_TENSORS_MIN < model->shape.n_layers)
        return linnet_fail(o->err, LINNET_ERR_FORMAT, "model '%s' has fewer tensors than its %u layers need",
                           o->path, (unsigned)model->shape.n_layers);
    for (size_t i = 0; i < n_tensors; i++) {
        const linnet_gguf_tensor *tensor = linnet_gguf_tensor_at(model->gguf, i);
        n_floats += tensor->n_dims == 1 ? (size_t)tensor->dims[0] : 0;
    }
    if (n_floats > SIZE_MAX / sizeof(float))
        return linnet_fail(o->err, LINNET_ERR_RANGE, "model '%s' is too large for this machine", o->path);
    model->vectors = malloc(n_floats * sizeof(float));
    model->layers = calloc(model->shape.n_layers, sizeof(model->layers[0]));
    o->is_used = calloc(n_tensors + 1, sizeof(o->is_used[0]));
    o->next_vector = model->vectors;
    if (!model->vectors || !model->layers || !o->is_used)
        return linnet_fail(o->err, LINNET_ERR_NOMEM, "no memory for model '%s'", o->path);
    return LINNET_OK;
}

static linnet_status read_tensors(opening *o)
{
    linnet_model *model = o->model;
    linnet_status status = allocate(o);
    if (status == LINNET_OK)
        status = read_vocabulary(o);
    if (status == LINNET_OK)
        status = read_embedding_parts(o);
    if (status == LINNET_OK)
        status = read_rope_factors(o);
    for (uint32_t i = 0; i < model->shape.n_layers && status == LINNET_OK; i++) {
        status = read_layer_norms(o, i);
        if (status == LINNET_OK)
            status = read_attention(o, i);
        if (status == LINNET_OK)
            status = read_ffn(o, i);
    }
    if (status == LINNET_OK)
        status = o->architecture->has_pooled_head ? read_head(o) : read_output(o);
    if (status == LINNET_OK)
        status = linnet_model_read_windows(o);
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
        status = linnet_architecture_of(model->gguf, &model->architecture, err);
    o.architecture = model->architecture;
    if (status == LINNET_OK)
        status = linnet_model_read_keys(&o);
    if (status == LINNET_OK)
        status = read_tensors(&o);
    free(o.is_used);
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
    free(model->head.labels);
    free(model->head.names);
    free(model->vectors);
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

bool linnet_model_is_encoder(const linnet_model *model)
{
    return model->architecture->has_pooled_head;
}

uint32_t linnet_model_n_labels(const linnet_model *model)
{
    return model->head.n_labels;
}

linnet_text linnet_model_label(const linnet_model *model, uint32_t label)
{
    return label < model->head.n_labels ? model->head.labels[label] : (linnet_text){"", 0};
}

linnet_status linnet_model_find_label(const linnet_model *model, const char *name, uint32_t *ret_label)
{
    for (uint32_t i = 0; i < model->head.n_labels; i++)
        if (linnet_text_is(model->head.labels[i], name)) {
            *ret_label = i;
            return LINNET_OK;
        }
    return LINNET_ERR_NOT_FOUND;
}

linnet_status linnet_model_require_head(const linnet_model *model, linnet_error *err)
{
    const char *path = linnet_gguf_path(model->gguf);
    if (model->head.n_labels > 1)
        return LINNET_OK;
    if (model->head.n_labels == 1)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "model '%s' has one label only, '%.*s': there is nothing to tell apart", path,
                           (int)(model->head.labels[0].n_bytes < 40 ? model->head.labels[0].n_bytes : 40),
                           model->head.labels[0].bytes);
    if (!linnet_model_is_encoder(model))
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "model '%s' is a language model: it has no labels",
                           path);
    return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                       "model '%s' has no tensor 'cls.output.weight': an encoder without labels", path);
}

const char *linnet_model_architecture(const linnet_model *model)
{
    return model->architecture->name;
}

const char *linnet_model_type(const linnet_model *model)
{
    return linnet_tensor_type_name(model->type);
}
