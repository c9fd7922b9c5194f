/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quantising weights. Q8_0 and Q4_0 have one way that everybody rounds by (the reference of ggml, and so of
 * llama-quantize --pure). Q4_K leaves the choice of scale s and offset m of each 32 values open: x is about
 * s q - m, q in 0..15. Here a few widths of the grid are tried; for each, values go to their nearest level, s
 * and m are solved for by least squares, values weighted by their size, and the best is kept. Then scales and
 * offsets themselves become six bits of the block's own. Left out: importance matrices, other types.
 */
#include "linnet/quantize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "gguf_copy.h"
#include "half.h"
#include "layout.h"
#include "limits.h"

enum { SMALL = 32, LARGE = 256, LEVELS = 15, GROUPS = LARGE / SMALL, SCALE_MAX = 63 };
#define HALF_MAX 65504.0f

bool linnet_quantize_knows(uint32_t type)
{
    return type == LINNET_TENSOR_F16 || type == LINNET_TENSOR_Q8_0 || type == LINNET_TENSOR_Q4_0 ||
           type == LINNET_TENSOR_Q4_K;
}

/* The value that is farthest from 0, with its sign. */
static float extreme_of(const float *x, size_t n)
{
    float extreme = 0;
    for (size_t i = 0; i < n; i++)
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    return extreme;
}

/* 0 where there is none: beside so small a scale, which no half holds, values are 0. */
static float inverse_of(float scale)
{
    float inverse = 1 / scale;
    return isfinite(inverse) ? inverse : 0;
}

static bool quantize_q8_0(const float *x, uint8_t *dst)
{
    float scale = fabsf(extreme_of(x, SMALL)) / 127, inverse = inverse_of(scale);
    linnet_store_le16(dst, linnet_f16_narrow(scale));
    for (size_t i = 0; i < SMALL; i++)
        dst[2 + i] = (uint8_t)(int8_t)roundf(x[i] * inverse);
    return scale <= HALF_MAX;
}

/* The extreme value becomes -8; the half that is added rounds. */
static bool quantize_q4_0(const float *x, uint8_t *dst)
{
    float scale = extreme_of(x, SMALL) / -8, inverse = inverse_of(scale);
    uint8_t levels[SMALL];
    linnet_store_le16(dst, linnet_f16_narrow(scale));
    for (size_t i = 0; i < SMALL; i++) {
        int level = (int)(x[i] * inverse + 8.5f);
        levels[i] = (uint8_t)(level > LEVELS ? LEVELS : level);
    }
    for (size_t i = 0; i < SMALL / 2; i++)
        dst[2 + i] = (uint8_t)(levels[i] | levels[SMALL / 2 + i] << 4);
    return fabsf(scale) <= HALF_MAX;
}

/* ---- Q4_K ---- */

/* x is about scale q - offset; neither is negative. */
typedef struct grid {
    float scale, offset;
} grid;

/* The nearest level; 0 of NaN, which the steps across next to nothing make. */
static int level_of(float value)
{
    float level = rintf(value);
    return !(level > 0) ? 0 : level > LEVELS ? LEVELS : (int)level;
}

/* The grid that fits levels q best, and its weighted squared error. */
static grid solve_grid(const float *x, const float *weights, const int *q, double *ret_error)
{
    double w = 0, wq = 0, wqq = 0, wx = 0, wqx = 0, error = 0;
    for (size_t i = 0; i < SMALL; i++) {
        w += weights[i];
        wq += (double)weights[i] * q[i];
        wqq += (double)weights[i] * q[i] * q[i];
        wx += (double)weights[i] * x[i];
        wqx += (double)weights[i] * q[i] * x[i];
    }
    double determinant = w * wqq - wq * wq;
    double scale = determinant > 0 ? (w * wqx - wq * wx) / determinant : 0;
    double offset = w > 0 ? (scale * wq - wx) / w : 0;
    if (offset < 0) {
        offset = 0;
        scale = wqq > 0 ? wqx / wqq : 0;
    }
    scale = scale > 0 ? scale : 0;
    for (size_t i = 0; i < SMALL; i++) {
        double off = scale * q[i] - offset - x[i];
        error += weights[i] * off * off;
    }
    *ret_error = error;
    return (grid){(float)scale, (float)offset};
}

static grid best_grid(const float *x)
{
    enum { TRIES = 21 };
    float weights[SMALL], low = 0, high = x[0];
    double squares = 0, least = INFINITY;
    grid best = {0, 0};
    for (size_t i = 0; i < SMALL; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        squares += (double)x[i] * x[i];
    }
    if (!(high > low)) /* all the same, and not above 0 */
        return (grid){0, -low};
    for (size_t i = 0; i < SMALL; i++)
        weights[i] = (float)sqrt(squares / SMALL) + fabsf(x[i]);
    for (int try = 0; try < TRIES; try++) { /* 14 to 16 steps across the values */
        float steps = (LEVELS - 1 + 0.1f * (float)try) / (high - low);
        double error;
        int q[SMALL];
        for (size_t i = 0; i < SMALL; i++)
            q[i] = level_of(steps * (x[i] - low));
        grid candidate = solve_grid(x, weights, q, &error);
        if (error < least) {
            least = error;
            best = candidate;
        }
    }
    return best;
}

/* A six-bit multiple of `unit`. */
static unsigned multiple_of(float value, float unit)
{
    float multiple = unit > 0 ? rintf(value / unit) : 0;
    return multiple > SCALE_MAX ? SCALE_MAX : (unsigned)multiple;
}

/* Scales and offsets of the eight groups in twelve bytes, as kernels take them apart. */
static void pack_scales(const unsigned *scales, const unsigned *offsets, uint8_t *dst)
{
    for (size_t j = 0; j < GROUPS / 2; j++) {
        dst[j] = (uint8_t)(scales[j] | (scales[j + 4] >> 4) << 6);
        dst[j + 4] = (uint8_t)(offsets[j] | (offsets[j + 4] >> 4) << 6);
        dst[j + 8] = (uint8_t)((scales[j + 4] & 15) | (offsets[j + 4] & 15) << 4);
    }
}

static bool quantize_q4_k(const float *x, uint8_t *dst)
{
    grid grids[GROUPS];
    unsigned scales[GROUPS], offsets[GROUPS];
    uint8_t levels[LARGE];
    float largest_scale = 0, largest_offset = 0;
    for (size_t g = 0; g < GROUPS; g++) {
        grids[g] = best_grid(x + SMALL * g);
        largest_scale = fmaxf(largest_scale, grids[g].scale);
        largest_offset = fmaxf(largest_offset, grids[g].offset);
    }
    uint16_t half = linnet_f16_narrow(largest_scale / SCALE_MAX);
    uint16_t half_offset = linnet_f16_narrow(largest_offset / SCALE_MAX);
    float unit = linnet_f16_widen(half), unit_offset = linnet_f16_widen(half_offset);
    linnet_store_le16(dst, half);
    linnet_store_le16(dst + 2, half_offset);
    for (size_t g = 0; g < GROUPS; g++) {
        scales[g] = multiple_of(grids[g].scale, unit);
        offsets[g] = multiple_of(grids[g].offset, unit_offset);
        float scale = unit * (float)scales[g], offset = unit_offset * (float)offsets[g];
        for (size_t i = SMALL * g; i < SMALL * (g + 1); i++)
            levels[i] = (uint8_t)(scale > 0 ? level_of((x[i] + offset) / scale) : 0);
    }
    pack_scales(scales, offsets, dst + 4);
    for (size_t pair = 0; pair < GROUPS / 2; pair++)
        for (size_t i = 0; i < SMALL; i++)
            dst[16 + SMALL * pair + i] =
                (uint8_t)(levels[2 * SMALL * pair + i] | levels[2 * SMALL * pair + SMALL + i] << 4);
    return isfinite(unit) && isfinite(unit_offset);
}

linnet_status linnet_quantize_row(uint32_t type, const float *values, size_t n, uint8_t *dst)
{
    size_t elements, n_bytes;
    bool fits = true;
    if (!linnet_quantize_knows(type) || !linnet_tensor_type_info(type, &elements, &n_bytes) ||
        n % elements != 0)
        return LINNET_ERR_ARG;
    for (size_t i = 0; i < n; i++)
        fits = fits && isfinite(values[i]);
    for (size_t i = 0; i < n && fits; i += elements, dst += n_bytes) {
        if (type == LINNET_TENSOR_Q8_0)
            fits = quantize_q8_0(values + i, dst);
        else if (type == LINNET_TENSOR_Q4_0)
            fits = quantize_q4_0(values + i, dst);
        else if (type == LINNET_TENSOR_Q4_K)
            fits = quantize_q4_k(values + i, dst);
        else
            linnet_store_le16(dst, linnet_f16_narrow(values[i]));
        if (type == LINNET_TENSOR_F16)
            fits = fabsf(values[i]) <= HALF_MAX;
    }
    return fits ? LINNET_OK : LINNET_ERR_RANGE;
}

/* ---- files ---- */

typedef struct quantize_job {
    const linnet_gguf *model;
    uint32_t type;
} quantize_job;

/* Vectors stay, and so do learned positions and kinds of text, which are added as vectors are. */
static bool is_matrix(const linnet_gguf_tensor *tensor)
{
    return tensor->n_dims == 2 && !linnet_text_is(tensor->name, "position_embd.weight") &&
           !linnet_text_is(tensor->name, "token_types.weight");
}

/* The type that a tensor gets. */
static uint32_t type_for(const quantize_job *job, const linnet_gguf_tensor *tensor)
{
    if (!is_matrix(tensor))
        return tensor->type;
    size_t elements = job->type == LINNET_TENSOR_Q4_K ? LARGE : job->type == LINNET_TENSOR_F16 ? 1 : SMALL;
    if (tensor->dims[0] % elements == 0)
        return job->type;
    return job->type == LINNET_TENSOR_Q4_K && tensor->dims[0] % SMALL == 0 ? LINNET_TENSOR_Q8_0
                                                                           : LINNET_TENSOR_F16;
}

static linnet_status produce_quantized(void *context, const char *name, void *bytes, size_t n_bytes,
                                       linnet_error *err)
{
    const quantize_job *job = context;
    const linnet_gguf_tensor *tensor = linnet_gguf_find_tensor(job->model, name);
    size_t columns = (size_t)tensor->dims[0], rows = (size_t)tensor->dims[1];
    float *values = calloc(columns, sizeof(values[0]));
    linnet_status status = LINNET_OK;
    if (!values)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to quantise '%s'", name);
    for (size_t r = 0; r < rows && status == LINNET_OK; r++) {
        size_t row = linnet_layout_hf_row(rows, tensor->n_hf_heads, r);
        for (size_t c = 0; c < columns; c++)
            values[c] = linnet_gguf_plain_value(tensor, row * columns + c);
        status = linnet_quantize_row(type_for(job, tensor), values, columns,
                                     (uint8_t *)bytes + r * (n_bytes / rows));
    }
    free(values);
    return status == LINNET_OK ? LINNET_OK
                               : linnet_fail(err, status, "'%s' has values that do not fit %s", name,
                                             linnet_tensor_type_name(type_for(job, tensor)));
}

/* llama.cpp's numbers of what most of a file is. */
static uint32_t file_type_of(uint32_t type)
{
    return type == LINNET_TENSOR_F16    ? 1
           : type == LINNET_TENSOR_Q4_0 ? 2
           : type == LINNET_TENSOR_Q8_0 ? 7
                                        : 15;
}

static void copy_values(const quantize_job *job, linnet_gguf_writer *writer)
{
    for (size_t i = 0; i < linnet_gguf_n_values(job->model); i++) {
        const linnet_gguf_value *value = linnet_gguf_value_at(job->model, i);
        if (!linnet_text_is(value->name, "general.file_type") &&
            !linnet_text_is(value->name, "general.quantization_version"))
            linnet_gguf_writer_copy(writer, value);
    }
    linnet_gguf_writer_u32(writer, "general.file_type", file_type_of(job->type));
    linnet_gguf_writer_u32(writer, "general.quantization_version", 2);
}

static linnet_status add_tensor(quantize_job *job, const linnet_gguf_tensor *tensor,
                                linnet_gguf_writer *writer, linnet_quantize_summary *summary,
                                linnet_error *err)
{
    uint32_t type = type_for(job, tensor);
    char name[LINNET_GGUF_TENSOR_NAME_BYTES_MAX + 1];
    size_t elements, block_bytes;
    (void)snprintf(name, sizeof(name), "%.*s", (int)tensor->name.n_bytes, tensor->name.bytes);
    if (!is_matrix(tensor) || type == tensor->type) {
        linnet_gguf_copy_tensor(writer, job->model, tensor);
        *(is_matrix(tensor) ? &summary->n_quantized : &summary->n_kept) += 1;
        return LINNET_OK;
    }
    if (!linnet_gguf_is_plain(tensor->type))
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "'%s' is %s already; quantise the F32, F16 or BF16 file of the model", name,
                           linnet_tensor_type_name(tensor->type));
    if (!linnet_tensor_type_info(type, &elements, &block_bytes))
        return LINNET_ERR_INTERNAL;
    *(type == job->type ? &summary->n_quantized : &summary->n_fallback) += 1;
    linnet_gguf_writer_tensor_produced(writer, name, type, 2, tensor->dims,
                                       (size_t)(tensor->dims[0] / elements * tensor->dims[1]) * block_bytes,
                                       produce_quantized, job);
    return LINNET_OK;
}

linnet_status linnet_quantize_file(const linnet_gguf *model, uint32_t type, const char *path,
                                   linnet_quantize_summary *ret_summary, linnet_error *err)
{
    quantize_job job = {model, type};
    linnet_quantize_summary summary = {0};
    linnet_status status = LINNET_OK;
    if (!linnet_quantize_knows(type))
        return linnet_fail(err, LINNET_ERR_ARG, "linnet quantises into F16, Q8_0, Q4_0 and Q4_K");
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    copy_values(&job, writer);
    for (size_t i = 0; i < linnet_gguf_n_tensors(model) && status == LINNET_OK; i++)
        status = add_tensor(&job, linnet_gguf_tensor_at(model, i), writer, &summary, err);
    if (status == LINNET_OK)
        status = linnet_gguf_writer_write(writer, path, err);
    linnet_gguf_writer_destroy(writer);
    if (status == LINNET_OK)
        *ret_summary = summary;
    return status;
}
