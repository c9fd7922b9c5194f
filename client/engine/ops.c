/* SPDX-License-Identifier: Apache-2.0 */
/* Element-wise parts of a block. Each token, or each run of elements, depends on its own inputs only, so that
 * threads share them out freely. Plain loops: a compiler vectorises them, and they are a few percent of a
 * pass. Sources: Zhang and Sennrich 2019 (RMS norm), Ba et al. 2016 (layer norm), Su et al. 2021 (rotary
 * positions), Shazeer 2020 (gated activations), Hendrycks and Gimpel 2016 (gelu), Abramowitz and Stegun 1964
 * (the error function). */
#include "ops.h"

#include <math.h>

enum { RUN = 256 }; /* elements of an activation at a time: their exponentials fit the stack */

/* ---- embeddings ---- */

typedef struct embed_work {
    const linnet_workspace *work;
    const linnet_model *model;
    const int32_t *ids;
    size_t position;
    float *x;
} embed_work;

/* x += a row of the matrix; decoded: room for it. */
static void add_row(const linnet_kernels *kernels, const linnet_matrix *matrix, size_t row, float *decoded,
                    float *x)
{
    linnet_row_decode(kernels, matrix, row, decoded);
    for (size_t i = 0; i < matrix->columns; i++)
        x[i] += decoded[i];
}

static void embed_rows(void *context, size_t first, size_t last, unsigned thread)
{
    const embed_work *embed = context;
    const linnet_model *model = embed->model;
    const linnet_kernels *kernels = embed->work->product.kernels;
    size_t width = model->shape.width;
    float *learned = embed->work->rows + thread * width;
    for (size_t t = first; t < last; t++) {
        float *x = embed->x + t * width;
        linnet_row_decode(kernels, &model->embedding, (size_t)embed->ids[t], x);
        for (size_t i = 0; model->embedding_scale != 1 && i < width; i++)
            x[i] *= model->embedding_scale;
        if (model->positions.bytes)
            add_row(kernels, &model->positions, embed->position + t, learned, x);
        if (model->token_types.bytes)
            add_row(kernels, &model->token_types, 0, learned, x);
    }
}

void linnet_embed(const linnet_workspace *work, const linnet_model *model, const int32_t *ids,
                  size_t n_tokens, size_t position, float *x)
{
    embed_work embed = {work, model, ids, position, x};
    linnet_workspace_run(work, n_tokens, (double)n_tokens * (double)model->shape.width, embed_rows, &embed);
    if (model->embedding_norm.weight)
        linnet_norm_forward(work, &model->embedding_norm, x, n_tokens, model->shape.width, x);
}

/* ---- norms ---- */

typedef struct norm_work {
    const linnet_norm *norm;
    const float *x, *d_y;
    size_t width;
    float *out;
    bool accumulate;
} norm_work;

/* What a row is centred by and divided by. */
typedef struct row_moments {
    double mean; /* 0 for an RMS norm */
    double inverse;
} row_moments;

/* Four chains, in double: a sum over a row is part of every element's rounding. */
static double dot_in_double(const float *a, const float *b, size_t n)
{
    double sums[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++)
            sums[j] += (double)a[i + j] * b[i + j];
    for (; i < n; i++)
        sums[0] += (double)a[i] * b[i];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static row_moments moments_of(const norm_work *work, const float *x)
{
    size_t n = work->width;
    double sums[2] = {0}, squares = 0;
    if (work->norm->kind == LINNET_NORM_RMS)
        return (row_moments){0, 1.0 / sqrt(dot_in_double(x, x, n) / (double)n + work->norm->epsilon)};
    for (size_t i = 0; i < n; i++)
        sums[i & 1] += x[i];
    double mean = (sums[0] + sums[1]) / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    return (row_moments){mean, 1.0 / sqrt(squares / (double)n + work->norm->epsilon)};
}

static void norm_rows(void *context, size_t first, size_t last, unsigned thread)
{
    const norm_work *work = context;
    const float *weight = work->norm->weight, *bias = work->norm->bias;
    (void)thread;
    for (size_t t = first; t < last; t++) {
        const float *x = work->x + t * work->width;
        float *y = work->out + t * work->width;
        row_moments moments = moments_of(work, x);
        float mean = (float)moments.mean, scale = (float)moments.inverse;
        if (bias)
            for (size_t i = 0; i < work->width; i++)
                y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
        else
            for (size_t i = 0; i < work->width; i++)
                y[i] = x[i] * scale * weight[i];
    }
}

void linnet_norm_forward(const linnet_workspace *work, const linnet_norm *norm, const float *x, size_t n_rows,
                         size_t width, float *y)
{
    norm_work rows = {.norm = norm, .x = x, .width = width, .out = y};
    linnet_workspace_run(work, n_rows, (double)n_rows * (double)width, norm_rows, &rows);
}

/* With z = (x - mean) r and g = w d_y: d_x = r (g - mean(g) - z mean(g z)); an RMS norm has no mean(g). */
static void norm_backward_rows(void *context, size_t first, size_t last, unsigned thread)
{
    const norm_work *work = context;
    const float *weight = work->norm->weight;
    bool is_centred = work->norm->kind == LINNET_NORM_LAYER;
    double n = (double)work->width;
    (void)thread;
    for (size_t t = first; t < last; t++) {
        const float *x = work->x + t * work->width, *d_y = work->d_y + t * work->width;
        float *d_x = work->out + t * work->width;
        row_moments moments = moments_of(work, x);
        double dot[2] = {0}, sum[2] = {0};
        for (size_t i = 0; i < work->width; i++) {
            float g = weight[i] * d_y[i];
            dot[i & 1] += (x[i] - moments.mean) * g;
            sum[i & 1] += g;
        }
        float mean = (float)moments.mean, outer = (float)moments.inverse;
        float along = (float)((dot[0] + dot[1]) * moments.inverse * moments.inverse * moments.inverse / n);
        float lift = is_centred ? (float)((sum[0] + sum[1]) * moments.inverse / n) : 0;
        if (work->accumulate)
            for (size_t i = 0; i < work->width; i++)
                d_x[i] += outer * (weight[i] * d_y[i]) - along * (x[i] - mean) - lift;
        else
            for (size_t i = 0; i < work->width; i++)
                d_x[i] = outer * (weight[i] * d_y[i]) - along * (x[i] - mean) - lift;
    }
}

void linnet_norm_backward(const linnet_workspace *work, const linnet_norm *norm, const float *x,
                          const float *d_y, size_t n_rows, size_t width, float *d_x, bool accumulate)
{
    norm_work rows = {norm, x, d_y, width, d_x, accumulate};
    linnet_workspace_run(work, n_rows, 2 * (double)n_rows * (double)width, norm_backward_rows, &rows);
}

/* ---- rotary positions ---- */

typedef struct rotate_work {
    const linnet_rotation *rotation;
    float *x;
    size_t position, n_heads, head_width;
    float direction; /* 1, or -1 to turn back */
} rotate_work;

static void rotate_rows(void *context, size_t first, size_t last, unsigned thread)
{
    const rotate_work *work = context;
    size_t n_pairs = work->rotation->n_pairs;
    size_t step = work->rotation->is_halves ? 1 : 2, apart = work->rotation->is_halves ? n_pairs : 1;
    (void)thread;
    for (size_t t = first; t < last; t++) {
        const float *cosines = work->rotation->cosines + (work->position + t) * n_pairs;
        const float *sines = work->rotation->sines + (work->position + t) * n_pairs;
        for (size_t head = 0; head < work->n_heads; head++) {
            float *x = work->x + (t * work->n_heads + head) * work->head_width;
            for (size_t i = 0; i < n_pairs; i++) {
                float *one = x + step * i, *other = one + apart;
                float a = *one, b = *other, sine = work->direction * sines[i];
                *one = a * cosines[i] - b * sine;
                *other = a * sine + b * cosines[i];
            }
        }
    }
}

void linnet_rotate(const linnet_workspace *work, size_t rope, float *x, size_t n_tokens, size_t position,
                   size_t n_heads, size_t head_width, bool inverse)
{
    rotate_work rows = {&work->rotations[rope], x, position, n_heads, head_width, inverse ? -1.0f : 1.0f};
    if (rows.rotation->n_pairs > 0)
        linnet_workspace_run(work, n_tokens, (double)n_tokens * (double)(n_heads * head_width), rotate_rows,
                             &rows);
}

/* ---- activations ---- */

/* x logistic(z(x)): silu with z = x, gelu in its tanh form with z = 2 sqrt(2 / pi) (x + c x^3). What gelu is
 * an approximation to, x times the normal distribution's share below x, has functions of its own. */
typedef struct activation_shape {
    float linear, cubic; /* z = linear x + cubic x^3 */
} activation_shape;

static activation_shape shape_of(linnet_activation activation)
{
    if (activation == LINNET_ACTIVATION_SWIGLU)
        return (activation_shape){1, 0};
    return (activation_shape){1.5957691216f, 1.5957691216f * 0.044715f};
}

typedef struct element_work {
    const linnet_kernels *kernels;
    activation_shape shape;
    const float *gate, *up, *d_y;
    float *out, *d_gate, *d_up;
    size_t n;
    float scale;
} element_work;

/* 1 + exp(-z) for a run of elements: the reciprocal of the logistic function. */
static void inverse_logistic(const element_work *work, const float *x, size_t n, float *y)
{
    activation_shape shape = work->shape;
    for (size_t i = 0; i < n; i++)
        y[i] = -x[i] * (shape.linear + shape.cubic * x[i] * x[i]);
    work->kernels->exp_in_place(y, n);
    for (size_t i = 0; i < n; i++)
        y[i] += 1.0f;
}

static size_t run_length(const element_work *work, size_t start)
{
    return work->n - start < RUN ? work->n - start : RUN;
}

static void activation_runs(void *context, size_t first, size_t last, unsigned thread)
{
    const element_work *work = context;
    float inverse[RUN];
    (void)thread;
    for (size_t start = first * RUN; start < last * RUN && start < work->n; start += RUN) {
        size_t n = run_length(work, start);
        const float *gate = work->gate + start;
        float *out = work->out + start;
        inverse_logistic(work, gate, n, inverse);
        if (work->up)
            for (size_t i = 0; i < n; i++)
                out[i] = gate[i] / inverse[i] * work->up[start + i];
        else
            for (size_t i = 0; i < n; i++)
                out[i] = gate[i] / inverse[i];
    }
}

/* The normal distribution of a run of elements: its density into y, and its share below x, with an error of
 * at most 2e-7, into `below` (Abramowitz and Stegun, 7.1.26, for erfc(|x| / sqrt(2)) / 2). */
static void normal_distribution(const element_work *work, const float *x, size_t n, float *density,
                                float *below)
{
    static const float p = 0.3275911f * 0.70710678f; /* of |x| / sqrt(2) */
    for (size_t i = 0; i < n; i++)
        density[i] = -0.5f * x[i] * x[i];
    work->kernels->exp_in_place(density, n);
    for (size_t i = 0; i < n; i++) {
        float t = 1.0f / (1.0f + p * fabsf(x[i]));
        float sum = t * (0.254829592f +
                         t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
        float outside = 0.5f * sum * density[i];
        below[i] = x[i] < 0 ? outside : 1.0f - outside;
        density[i] *= 0.39894228f; /* 1 / sqrt(2 pi) */
    }
}

/* y = x Phi(x) */
static void normal_runs(void *context, size_t first, size_t last, unsigned thread)
{
    const element_work *work = context;
    float density[RUN], below[RUN];
    (void)thread;
    for (size_t start = first * RUN; start < last * RUN && start < work->n; start += RUN) {
        size_t n = run_length(work, start);
        normal_distribution(work, work->gate + start, n, density, below);
        for (size_t i = 0; i < n; i++)
            work->out[start + i] = work->gate[start + i] * below[i];
    }
}

/* d_x = (Phi(x) + x phi(x)) d_y */
static void normal_backward_runs(void *context, size_t first, size_t last, unsigned thread)
{
    const element_work *work = context;
    float density[RUN], below[RUN];
    (void)thread;
    for (size_t start = first * RUN; start < last * RUN && start < work->n; start += RUN) {
        size_t n = run_length(work, start);
        float *x = work->d_gate + start;
        normal_distribution(work, x, n, density, below);
        for (size_t i = 0; i < n; i++)
            x[i] = (below[i] + x[i] * density[i]) * work->d_y[start + i];
    }
}

void linnet_activation_forward(const linnet_workspace *work, linnet_activation activation, const float *gate,
                               const float *up, size_t n, float *y)
{
    element_work runs = {.kernels = work->product.kernels,
                         .shape = shape_of(activation),
                         .gate = gate,
                         .up = up,
                         .out = y,
                         .n = n};
    linnet_workspace_run(work, n / RUN + (n % RUN != 0), 2 * (double)n,
                         activation == LINNET_ACTIVATION_GELU_ERF ? normal_runs : activation_runs, &runs);
}

/* With s = logistic(z(g)): d_up = s g d_y, d_gate = s (1 + g z'(g) (1 - s)) up d_y. */
static void activation_backward_runs(void *context, size_t first, size_t last, unsigned thread)
{
    const element_work *work = context;
    activation_shape shape = work->shape;
    float inverse[RUN];
    (void)thread;
    for (size_t start = first * RUN; start < last * RUN && start < work->n; start += RUN) {
        size_t n = run_length(work, start);
        float *gate = work->d_gate + start, *up = work->d_up ? work->d_up + start : NULL;
        const float *d_y = work->d_y + start;
        inverse_logistic(work, gate, n, inverse);
        for (size_t i = 0; i < n; i++) {
            float logistic = 1.0f / inverse[i], g = gate[i], d = d_y[i] * logistic;
            float slope = shape.linear + 3.0f * shape.cubic * g * g;
            gate[i] = d * (up ? up[i] : 1.0f) * (1.0f + g * slope * (1.0f - logistic));
            if (up)
                up[i] = d * g;
        }
    }
}

void linnet_activation_backward(const linnet_workspace *work, linnet_activation activation, float *gate,
                                float *up, const float *d_y, size_t n)
{
    element_work runs = {.kernels = work->product.kernels,
                         .shape = shape_of(activation),
                         .d_y = d_y,
                         .d_gate = gate,
                         .d_up = up,
                         .n = n};
    linnet_workspace_run(
        work, n / RUN + (n % RUN != 0), 2 * (double)n,
        activation == LINNET_ACTIVATION_GELU_ERF ? normal_backward_runs : activation_backward_runs, &runs);
}

/* ---- sums ---- */

static void add_runs(void *context, size_t first, size_t last, unsigned thread)
{
    const element_work *work = context;
    size_t end = last * RUN < work->n ? last * RUN : work->n;
    (void)thread;
    for (size_t i = first * RUN; i < end; i++)
        work->out[i] = work->scale * work->out[i] + work->up[i];
}

void linnet_add(const linnet_workspace *work, const float *x, size_t n, float scale, float *y)
{
    element_work runs = {.up = x, .out = y, .n = n, .scale = scale};
    linnet_workspace_run(work, n / RUN + (n % RUN != 0), 0.3 * (double)n, add_runs, &runs);
}

static void add_bias_rows(void *context, size_t first, size_t last, unsigned thread)
{
    const element_work *work = context;
    (void)thread;
    for (size_t t = first; t < last; t++)
        for (size_t i = 0; i < work->n; i++)
            work->out[t * work->n + i] += work->up[i];
}

void linnet_add_bias(const linnet_workspace *work, const float *bias, size_t n_tokens, size_t width, float *y)
{
    element_work rows = {.up = bias, .out = y, .n = width};
    linnet_workspace_run(work, n_tokens, 0.3 * (double)n_tokens * (double)width, add_bias_rows, &rows);
}

/* ---- logits ---- */

/* tanh(u) = 1 - 2 / (exp(2 u) + 1) */
void linnet_soft_cap(const linnet_kernels *kernels, float *x, size_t n, float cap)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= 2.0f / cap;
    kernels->exp_in_place(x, n);
    for (size_t i = 0; i < n; i++)
        x[i] = cap * (1.0f - 2.0f / (x[i] + 1.0f));
}

void linnet_finish_logits(const linnet_kernels *kernels, const linnet_model *model, size_t first_row,
                          size_t n_rows, float *logits)
{
    if (model->output_bias)
        for (size_t i = 0; i < n_rows; i++)
            logits[i] += model->output_bias[first_row + i];
    if (model->logit_scale != 1)
        for (size_t i = 0; i < n_rows; i++)
            logits[i] *= model->logit_scale;
    if (model->logit_cap > 0)
        linnet_soft_cap(kernels, logits, n_rows, model->logit_cap);
}
