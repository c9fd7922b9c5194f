/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

/* A small random llama model in a temporary GGUF file, and a naive forward pass over the same weights in
 * double: loops as the formulas are written, no caches, no tiles. What the engine computes is held to it. */

#include <math.h>
#include <unistd.h>

#include "linnet/model.h"

#include "testing.h"

typedef struct tiny_spec {
    uint32_t n_layers, width, ffn_width, n_heads, n_kv_heads, vocabulary, context;
    uint32_t head_width, rope_width; /* 0: no such key */
    uint32_t type;                   /* of all matrices; norms are F32, in F16 models F16 */
    bool tied;
    /* Damage, for the tests of refusals: */
    const char *without_key, *without_tensor;
    const char *u32_key, *text_key, *text; /* one more key, or another value for one */
    uint32_t u32;
    const char *reshaped, *extra_tensor; /* a tensor that gets one row too many; a tensor of no use */
} tiny_spec;

enum { TINY_TENSORS = 64, TINY_SEED = 20240 };

typedef struct tiny_tensor {
    char name[64];
    uint32_t type;
    size_t rows, columns;
    uint8_t *bytes;
    size_t n_bytes;
    double *values; /* what the bytes stand for */
} tiny_tensor;

typedef struct tiny_model {
    tiny_spec spec;
    size_t head_width, rope_width;
    size_t n_tensors;
    tiny_tensor tensors[TINY_TENSORS];
    char path[64];
} tiny_model;

static inline double tiny_half(uint16_t half)
{
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return half >> 15 ? -magnitude : magnitude;
}

/* Random bytes of a type whose values have about this standard deviation, and the values. */
static inline void tiny_fill(tiny_tensor *tensor, double deviation, double mean, linnet_rng *rng)
{
    size_t n = tensor->rows * tensor->columns, block = 1, block_bytes = 0;
    assert_true(linnet_tensor_type_info(tensor->type, &block, &block_bytes));
    assert_int_equal(tensor->columns % block, 0);
    tensor->n_bytes = n / block * block_bytes;
    tensor->bytes = malloc(tensor->n_bytes);
    tensor->values = malloc(n * sizeof(double));
    assert_true(tensor->bytes && tensor->values);
    for (size_t i = 0; i < n; i++) {
        uint8_t *at = tensor->bytes + i / block * block_bytes;
        if (tensor->type == LINNET_TENSOR_F32) {
            linnet_store_f32(at, (float)(mean + deviation * linnet_rng_normal(rng)));
            tensor->values[i] = linnet_load_f32(at);
            continue;
        }
        if (i % block == 0) { /* a half near 1/32 .. 1/16 of the wanted size, or the value itself */
            double target = tensor->type == LINNET_TENSOR_F16
                                ? fabs(mean + deviation * linnet_rng_normal(rng)) + 1e-4
                                : deviation / (tensor->type == LINNET_TENSOR_Q8_0 ? 73 : 4.6);
            int exponent = 0;
            double fraction =
                frexp(target, &exponent); /* target = fraction 2^exponent, 1/2 <= fraction < 1 */
            unsigned sign = mean == 0 && linnet_rng_below(rng, 2) ? 0x8000u : 0;
            linnet_store_le16(
                at, (uint16_t)(sign | (unsigned)(exponent + 14) << 10 | (unsigned)(fraction * 2048 - 1024)));
        }
        double scale = tiny_half(linnet_load_le16(at));
        if (tensor->type == LINNET_TENSOR_F16) {
            tensor->values[i] = scale;
        } else if (tensor->type == LINNET_TENSOR_Q8_0) {
            at[2 + i % 32] = (uint8_t)linnet_rng_below(rng, 256);
            tensor->values[i] = scale * (int8_t)at[2 + i % 32];
        } else { /* Q4_0: element j in the low half of byte j, element j + 16 in its high half */
            uint8_t nibble = (uint8_t)linnet_rng_below(rng, 16), *byte = at + 2 + i % 16;
            *byte = i % 32 < 16 ? nibble : (uint8_t)(*byte | nibble << 4);
            tensor->values[i] = scale * (nibble - 8);
        }
    }
}

static inline void tiny_add(tiny_model *tiny, uint32_t type, size_t rows, size_t columns, const char *format,
                            unsigned layer)
{
    tiny_tensor *tensor = &tiny->tensors[tiny->n_tensors];
    linnet_rng rng;
    bool norm = rows == 1;
    assert_true(tiny->n_tensors < TINY_TENSORS);
    linnet_rng_init(&rng, TINY_SEED, tiny->n_tensors++);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(tensor->name, sizeof(tensor->name), format, layer);
#pragma GCC diagnostic pop
    tensor->type = type;
    tensor->rows = rows;
    tensor->columns = columns;
    if (tiny->spec.reshaped && strcmp(tiny->spec.reshaped, tensor->name) == 0)
        tensor->rows++;
    tiny_fill(tensor, norm ? 0.2 : 1.3 / sqrt((double)columns), norm ? 1 : 0, &rng);
}

static inline void tiny_add_layer(tiny_model *tiny, unsigned layer)
{
    const tiny_spec *s = &tiny->spec;
    uint32_t norm_type = s->type == LINNET_TENSOR_F16 ? LINNET_TENSOR_F16 : LINNET_TENSOR_F32;
    size_t query_width = s->n_heads * tiny->head_width, kv_width = s->n_kv_heads * tiny->head_width;
    tiny_add(tiny, norm_type, 1, s->width, "blk.%u.attn_norm.weight", layer);
    tiny_add(tiny, s->type, query_width, s->width, "blk.%u.attn_q.weight", layer);
    tiny_add(tiny, s->type, kv_width, s->width, "blk.%u.attn_k.weight", layer);
    tiny_add(tiny, s->type, kv_width, s->width, "blk.%u.attn_v.weight", layer);
    tiny_add(tiny, s->type, s->width, query_width, "blk.%u.attn_output.weight", layer);
    tiny_add(tiny, norm_type, 1, s->width, "blk.%u.ffn_norm.weight", layer);
    tiny_add(tiny, s->type, s->ffn_width, s->width, "blk.%u.ffn_gate.weight", layer);
    tiny_add(tiny, s->type, s->ffn_width, s->width, "blk.%u.ffn_up.weight", layer);
    tiny_add(tiny, s->type, s->width, s->ffn_width, "blk.%u.ffn_down.weight", layer);
}

static inline void tiny_write_u32(const tiny_spec *spec, linnet_gguf_writer *writer, const char *name,
                                  uint32_t value)
{
    if (spec->without_key && strcmp(spec->without_key, name) == 0)
        return;
    if (spec->u32_key && strcmp(spec->u32_key, name) == 0)
        value = spec->u32;
    linnet_gguf_writer_u32(writer, name, value);
}

static inline bool tiny_writes_key(const char *name)
{
    static const char *const names[] = {"llama.block_count",          "llama.embedding_length",
                                        "llama.feed_forward_length",  "llama.context_length",
                                        "llama.attention.head_count", "llama.attention.head_count_kv"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static inline void tiny_write_values(const tiny_spec *s, linnet_gguf_writer *writer)
{
    bool other = s->text_key && strcmp(s->text_key, "general.architecture") == 0;
    if (!s->without_key || strcmp(s->without_key, "general.architecture") != 0)
        linnet_gguf_writer_text(writer, "general.architecture", other ? s->text : "llama");
    if (s->text_key && !other)
        linnet_gguf_writer_text(writer, s->text_key, s->text);
    tiny_write_u32(s, writer, "llama.block_count", s->n_layers);
    tiny_write_u32(s, writer, "llama.embedding_length", s->width);
    tiny_write_u32(s, writer, "llama.feed_forward_length", s->ffn_width);
    tiny_write_u32(s, writer, "llama.context_length", s->context);
    tiny_write_u32(s, writer, "llama.attention.head_count", s->n_heads);
    tiny_write_u32(s, writer, "llama.attention.head_count_kv", s->n_kv_heads);
    if (!s->without_key || strcmp(s->without_key, "llama.attention.layer_norm_rms_epsilon") != 0)
        linnet_gguf_writer_f32(writer, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    if (s->head_width)
        linnet_gguf_writer_u32(writer, "llama.attention.key_length", s->head_width);
    if (s->rope_width)
        linnet_gguf_writer_u32(writer, "llama.rope.dimension_count", s->rope_width);
    if (s->u32_key && !tiny_writes_key(s->u32_key))
        linnet_gguf_writer_u32(writer, s->u32_key, s->u32);
}

/** Make the model and its file. */
static inline tiny_model *tiny_create(tiny_spec spec)
{
    tiny_model *tiny = calloc(1, sizeof(*tiny));
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_error err = {0};
    assert_true(tiny && writer);
    tiny->spec = spec;
    tiny->head_width = spec.head_width ? spec.head_width : spec.width / spec.n_heads;
    tiny->rope_width = spec.rope_width ? spec.rope_width : tiny->head_width;
    tiny_add(tiny, spec.type, spec.vocabulary, spec.width, "token_embd.weight", 0);
    for (unsigned layer = 0; layer < spec.n_layers; layer++)
        tiny_add_layer(tiny, layer);
    tiny_add(tiny, LINNET_TENSOR_F32, 1, spec.width, "output_norm.weight", 0);
    if (!spec.tied)
        tiny_add(tiny, spec.type, spec.vocabulary, spec.width, "output.weight", 0);
    if (spec.extra_tensor)
        tiny_add(tiny, LINNET_TENSOR_F32, 1, 4, spec.extra_tensor, 0);
    tiny_write_values(&spec, writer);
    for (size_t i = 0; i < tiny->n_tensors; i++) {
        const tiny_tensor *tensor = &tiny->tensors[i];
        uint64_t dims[2] = {tensor->columns, tensor->rows};
        if (!spec.without_tensor || strcmp(spec.without_tensor, tensor->name) != 0)
            linnet_gguf_writer_tensor(writer, tensor->name, tensor->type, tensor->rows > 1 ? 2 : 1, dims,
                                      tensor->bytes, tensor->n_bytes);
    }
    (void)snprintf(tiny->path, sizeof(tiny->path), "/tmp/linnet-tiny-%ld-XXXXXX", (long)getpid());
    int fd = mkstemp(tiny->path);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_ok(linnet_gguf_writer_write(writer, tiny->path, &err), &err);
    linnet_gguf_writer_destroy(writer);
    return tiny;
}

static inline void tiny_destroy(tiny_model *tiny)
{
    (void)unlink(tiny->path);
    for (size_t i = 0; i < tiny->n_tensors; i++) {
        free(tiny->tensors[i].bytes);
        free(tiny->tensors[i].values);
    }
    free(tiny);
}

static inline linnet_model *tiny_open(const tiny_model *tiny)
{
    linnet_model *model = NULL;
    linnet_error err = {0};
    assert_ok(linnet_model_open(tiny->path, &model, &err), &err);
    return model;
}

/** A random adapter: both factors away from zero. */
static inline linnet_adapter *tiny_adapter(const linnet_model *model, uint32_t rank, uint32_t target_mask)
{
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    linnet_rng rng;
    linnet_rng_init(&rng, TINY_SEED, 1000 + rank);
    assert_ok(
        linnet_layout_create(linnet_model_gguf(model), rank, 1.5f * (float)rank, target_mask, &layout, &err),
        &err);
    assert_ok(linnet_adapter_create(layout, &adapter, &err), &err);
    for (size_t i = 0; i < layout->n_parameters; i++)
        adapter->data[i] = (float)(0.15 * linnet_rng_normal(&rng));
    linnet_layout_destroy(layout);
    return adapter;
}

static inline void tiny_ids(const tiny_model *tiny, uint64_t stream, int32_t *ids, size_t n)
{
    linnet_rng rng;
    linnet_rng_init(&rng, TINY_SEED, 5000 + stream);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)linnet_rng_below(&rng, tiny->spec.vocabulary);
}

/* ---- the naive forward pass ---- */

static inline const tiny_tensor *tiny_find(const tiny_model *tiny, const char *name)
{
    for (size_t i = 0; i < tiny->n_tensors; i++)
        if (strcmp(tiny->tensors[i].name, name) == 0)
            return &tiny->tensors[i];
    return NULL;
}

/** An adapter's layout with parameters in double, which finite differences move. */
typedef struct tiny_lora {
    const linnet_layout *layout;
    const double *data;
} tiny_lora;

static inline void tiny_linear(const tiny_model *tiny, const tiny_lora *lora, const char *name,
                               const double *x, double *y)
{
    const tiny_tensor *w = tiny_find(tiny, name);
    const linnet_layout_entry *entry = lora ? linnet_layout_find(lora->layout, name) : NULL;
    for (size_t row = 0; row < w->rows; row++) {
        y[row] = 0;
        for (size_t i = 0; i < w->columns; i++)
            y[row] += w->values[row * w->columns + i] * x[i];
    }
    for (size_t r = 0; entry && r < entry->rank; r++) {
        double h = 0, scale = (double)lora->layout->alpha / entry->rank;
        for (size_t i = 0; i < w->columns; i++)
            h += lora->data[entry->a_offset + r * w->columns + i] * x[i];
        for (size_t row = 0; row < w->rows; row++)
            y[row] += scale * lora->data[entry->b_offset + row * entry->rank + r] * h;
    }
}

static inline void tiny_layer_linear(const tiny_model *tiny, const tiny_lora *lora, size_t layer,
                                     const char *stem, const double *x, double *y)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "blk.%zu.%s.weight", layer, stem);
    tiny_linear(tiny, lora, name, x, y);
}

static inline void tiny_norm(const tiny_model *tiny, const char *name, const double *x, double *y)
{
    const tiny_tensor *weight = tiny_find(tiny, name);
    double sum = 0;
    for (size_t i = 0; i < weight->columns; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < weight->columns; i++)
        y[i] = x[i] / sqrt(sum / (double)weight->columns + 1e-5f) * weight->values[i];
}

static inline void tiny_rope(const tiny_model *tiny, double *head, size_t position)
{
    for (size_t i = 0; i < tiny->rope_width / 2; i++) {
        double angle = (double)position * pow(10000, -2.0 * (double)i / (double)tiny->rope_width);
        double even = head[2 * i], odd = head[2 * i + 1];
        head[2 * i] = even * cos(angle) - odd * sin(angle);
        head[2 * i + 1] = even * sin(angle) + odd * cos(angle);
    }
}

static inline void tiny_attention(const tiny_model *tiny, const double *q, const double *k, const double *v,
                                  size_t n, double *out)
{
    size_t heads = tiny->spec.n_heads, kv_heads = tiny->spec.n_kv_heads, width = tiny->head_width;
    double *p = malloc(n * sizeof(double));
    assert_non_null(p);
    for (size_t t = 0; t < n; t++)
        for (size_t head = 0; head < heads; head++) {
            const double *query = q + (t * heads + head) * width;
            double *o = out + (t * heads + head) * width, sum = 0;
            size_t kv_head = head / (heads / kv_heads);
            for (size_t s = 0; s <= t; s++) {
                p[s] = 0;
                for (size_t i = 0; i < width; i++)
                    p[s] += query[i] * k[(s * kv_heads + kv_head) * width + i];
                p[s] = exp(p[s] / sqrt((double)width));
                sum += p[s];
            }
            memset(o, 0, width * sizeof(double));
            for (size_t s = 0; s <= t; s++)
                for (size_t i = 0; i < width; i++)
                    o[i] += p[s] / sum * v[(s * kv_heads + kv_head) * width + i];
        }
    free(p);
}

static inline void tiny_ffn(const tiny_model *tiny, const tiny_lora *lora, size_t layer, const double *x,
                            double *y)
{
    size_t n = tiny->spec.ffn_width;
    double *gate = malloc(2 * n * sizeof(double)), *up = gate + n;
    assert_non_null(gate);
    tiny_layer_linear(tiny, lora, layer, "ffn_gate", x, gate);
    tiny_layer_linear(tiny, lora, layer, "ffn_up", x, up);
    for (size_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    tiny_layer_linear(tiny, lora, layer, "ffn_down", gate, y);
    free(gate);
}

static inline void tiny_block(const tiny_model *tiny, const tiny_lora *lora, size_t layer, double *x,
                              size_t n)
{
    size_t width = tiny->spec.width, heads = tiny->spec.n_heads, kv_heads = tiny->spec.n_kv_heads;
    size_t q_width = heads * tiny->head_width, kv_width = kv_heads * tiny->head_width;
    double *q = malloc(n * (2 * q_width + 2 * kv_width + 2 * width) * sizeof(double));
    assert_non_null(q);
    double *out = q + n * q_width, *k = out + n * q_width, *v = k + n * kv_width, *normed = v + n * kv_width,
           *y = normed + n * width;
    char name[64];
    (void)snprintf(name, sizeof(name), "blk.%zu.attn_norm.weight", layer);
    for (size_t t = 0; t < n; t++) {
        tiny_norm(tiny, name, x + t * width, normed);
        tiny_layer_linear(tiny, lora, layer, "attn_q", normed, q + t * q_width);
        tiny_layer_linear(tiny, lora, layer, "attn_k", normed, k + t * kv_width);
        tiny_layer_linear(tiny, lora, layer, "attn_v", normed, v + t * kv_width);
        for (size_t head = 0; head < heads; head++)
            tiny_rope(tiny, q + t * q_width + head * tiny->head_width, t);
        for (size_t head = 0; head < kv_heads; head++)
            tiny_rope(tiny, k + t * kv_width + head * tiny->head_width, t);
    }
    tiny_attention(tiny, q, k, v, n, out);
    (void)snprintf(name, sizeof(name), "blk.%zu.ffn_norm.weight", layer);
    for (size_t t = 0; t < n; t++) {
        tiny_layer_linear(tiny, lora, layer, "attn_output", out + t * q_width, y);
        for (size_t i = 0; i < width; i++)
            x[t * width + i] += y[i];
        tiny_norm(tiny, name, x + t * width, normed);
        tiny_ffn(tiny, lora, layer, normed, y);
        for (size_t i = 0; i < width; i++)
            x[t * width + i] += y[i];
    }
    free(q);
}

/** logits[n][vocabulary] of a sequence. */
static inline void tiny_logits(const tiny_model *tiny, const tiny_lora *lora, const int32_t *ids, size_t n,
                               double *logits)
{
    size_t width = tiny->spec.width;
    const double *embedding = tiny_find(tiny, "token_embd.weight")->values;
    double *x = malloc((n + 1) * width * sizeof(double)), *normed = x + n * width;
    assert_non_null(x);
    for (size_t t = 0; t < n; t++)
        memcpy(x + t * width, embedding + (size_t)ids[t] * width, width * sizeof(double));
    for (size_t layer = 0; layer < tiny->spec.n_layers; layer++)
        tiny_block(tiny, lora, layer, x, n);
    for (size_t t = 0; t < n; t++) {
        tiny_norm(tiny, "output_norm.weight", x + t * width, normed);
        tiny_linear(tiny, NULL, tiny->spec.tied ? "token_embd.weight" : "output.weight", normed,
                    logits + t * tiny->spec.vocabulary);
    }
    free(x);
}

/** Sum of -ln p over counted targets; each (n, may be NULL) gets them. */
static inline double tiny_loss(const tiny_model *tiny, const tiny_lora *lora, const int32_t *ids,
                               const uint8_t *counted, size_t n, double *each)
{
    size_t vocabulary = tiny->spec.vocabulary;
    double *logits = malloc(n * vocabulary * sizeof(double)), total = 0;
    assert_non_null(logits);
    tiny_logits(tiny, lora, ids, n, logits);
    for (size_t t = 0; t < n; t++) {
        double sum = 0, loss = 0;
        for (size_t i = 0; t > 0 && i < vocabulary; i++)
            sum += exp(logits[(t - 1) * vocabulary + i]);
        if (t > 0 && counted[t])
            loss = log(sum) - logits[(t - 1) * vocabulary + (size_t)ids[t]];
        if (each)
            each[t] = loss;
        total += loss;
    }
    free(logits);
    return total;
}

/** The adapter's parameters as doubles; the caller frees. */
static inline double *tiny_parameters(const linnet_adapter *adapter)
{
    double *data = malloc(adapter->layout->n_parameters * sizeof(double));
    assert_non_null(data);
    for (size_t i = 0; i < adapter->layout->n_parameters; i++)
        data[i] = adapter->data[i];
    return data;
}

#endif
