/* SPDX-License-Identifier: Apache-2.0 */
/* Element-wise parts of a block. Each token, or each run of elements, depends on its own inputs only, so that
 * threads share them out freely. Plain loops: a compiler vectorises them, and they are a few percent of a
 * pass. Sources: Zhang and Sennrich 2019 (RMS norm), Su et al. 2021 (rotary positions), Shazeer 2020
 * (SwiGLU). */
#include "ops.h"

#include <math.h>

enum { RUN = 256 }; /* elements of SwiGLU at a time: their exponentials fit the stack */

/* ---- RMS norm ---- */

typedef struct norm_work {
    const float *x, *weight, *d_y;
    double epsilon;
    size_t width;
    float *out;
    bool accumulate;
} norm_work;

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

static double inverse_rms(const norm_work *work, const float *x)
{
    return 1.0 / sqrt(dot_in_double(x, x, work->width) / (double)work->width + work->epsilon);
}

static void norm_rows(void *context, size_t first, size_t last, unsigned thread)
{
    const norm_work *work = context;
    (void)thread;
    for (size_t t = first; t < last; t++) {
        const float *x = work->x + t * work->width;
        float *y = work->out + t * work->width;
        float scale = (float)inverse_rms(work, x);
        for (size_t i = 0; i < work->width; i++)
            y[i] = x[i] * scale * work->weight[i];
    }
}

void linnet_norm_forward(const linnet_workspace *work, const float *x, const float *weight, float epsilon,
                         size_t n_tokens, size_t width, float *y)
{
    norm_work rows = {.x = x, .weight = weight, .epsilon = epsilon, .width = width, .out = y};
    linnet_workspace_run(work, n_tokens, (double)n_tokens * (double)width, norm_rows, &rows);
}

/* With r = 1/rms: d_x = r (w d_y) - r^3/width (x . (w d_y)) x. */
static void norm_backward_rows(void *context, size_t first, size_t last, unsigned thread)
{
    const norm_work *work = context;
    (void)thread;
    for (size_t t = first; t < last; t++) {
        const float *x = work->x + t * work->width, *d_y = work->d_y + t * work->width;
        float *d_x = work->out + t * work->width;
        double scale = inverse_rms(work, x), dot[2] = {0};
        for (size_t i = 0; i < work->width; i++)
            dot[i & 1] += (double)x[i] * (work->weight[i] * d_y[i]);
        float along = (float)((dot[0] + dot[1]) * scale * scale * scale / (double)work->width);
        float outer = (float)scale;
        if (work->accumulate)
            for (size_t i = 0; i < work->width; i++)
                d_x[i] += outer * (work->weight[i] * d_y[i]) - along * x[i];
        else
            for (size_t i = 0; i < work->width; i++)
                d_x[i] = outer * (work->weight[i] * d_y[i]) - along * x[i];
    }
}

void linnet_norm_backward(const linnet_workspace *work, const float *x, const float *weight, float epsilon,
                          const float *d_y, size_t n_tokens, size_t width, float *d_x, bool accumulate)
{
    norm_work rows = {x, weight, d_y, epsilon, width, d_x, accumulate};
    linnet_workspace_run(work, n_tokens, 2 * (double)n_tokens * (double)width, norm_backward_rows, &rows);
}

/* ---- rotary positions ---- */

typedef struct rope_work {
    const linnet_workspace *work;
    float *x;
    size_t position, n_heads, head_width;
    float direction; /* 1, or -1 to turn back */
} rope_work;

static void rope_rows(void *context, size_t first, size_t last, unsigned thread)
{
    const rope_work *rope = context;
    size_t n_pairs = rope->work->n_rope_pairs;
    (void)thread;
    for (size_t t = first; t < last; t++) {
        const float *cosines = rope->work->cosines + (rope->position + t) * n_pairs;
        const float *sines = rope->work->sines + (rope->position + t) * n_pairs;
        for (size_t head = 0; head < rope->n_heads; head++) {
            float *x = rope->x + (t * rope->n_heads + head) * rope->head_width;
            for (size_t i = 0; i < n_pairs; i++) {
                float even = x[2 * i], odd = x[2 * i + 1], sine = rope->direction * sines[i];
                x[2 * i] = even * cosines[i] - odd * sine;
                x[2 * i + 1] = even * sine + odd * cosines[i];
            }
        }
    }
}

void linnet_rope(const linnet_workspace *work, float *x, size_t n_tokens, size_t position, size_t n_heads,
                 size_t head_width, bool inverse)
{
    rope_work rope = {work, x, position, n_heads, head_width, inverse ? -1.0f : 1.0f};
    linnet_workspace_run(work, n_tokens, (double)n_tokens * (double)(n_heads * head_width), rope_rows, &rope);
}

/* ---- SwiGLU and sums ---- */

typedef struct element_work {
    const linnet_kernels *kernels;
    const float *gate, *up, *d_y;
    float *out, *d_gate, *d_up;
    size_t n;
} element_work;

/* 1 + exp(-x) for a run of elements: the reciprocal of the logistic function. */
static void inverse_logistic(const linnet_kernels *kernels, const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = -x[i];
    kernels->exp_in_place(y, n);
    for (size_t i = 0; i < n; i++)
        y[i] += 1.0f;
}

static size_t run_length(const element_work *work, size_t start)
{
    return work->n - start < RUN ? work->n - start : RUN;
}

static void swiglu_runs(void *context, size_t first, size_t last, unsigned thread)
{
    const element_work *work = context;
    float inverse[RUN];
    (void)thread;
    for (size_t start = first * RUN; start < last * RUN && start < work->n; start += RUN) {
        size_t n = run_length(work, start);
        inverse_logistic(work->kernels, work->gate + start, n, inverse);
        for (size_t i = 0; i < n; i++)
            work->out[start + i] = work->gate[start + i] / inverse[i] * work->up[start + i];
    }
}

void linnet_swiglu_forward(const linnet_workspace *work, const float *gate, const float *up, size_t n,
                           float *y)
{
    element_work runs = {.kernels = work->product.kernels, .gate = gate, .up = up, .out = y, .n = n};
    linnet_workspace_run(work, n / RUN + (n % RUN != 0), 2 * (double)n, swiglu_runs, &runs);
}

/* With s = logistic(g): d_up = s g d_y, d_gate = s (1 + g (1 - s)) up d_y. */
static void swiglu_backward_runs(void *context, size_t first, size_t last, unsigned thread)
{
    const element_work *work = context;
    float inverse[RUN];
    (void)thread;
    for (size_t start = first * RUN; start < last * RUN && start < work->n; start += RUN) {
        size_t n = run_length(work, start);
        float *gate = work->d_gate + start, *up = work->d_up + start;
        const float *d_y = work->d_y + start;
        inverse_logistic(work->kernels, gate, n, inverse);
        for (size_t i = 0; i < n; i++) {
            float logistic = 1.0f / inverse[i], g = gate[i], d = d_y[i] * logistic;
            gate[i] = d * up[i] * (1.0f + g * (1.0f - logistic));
            up[i] = d * g;
        }
    }
}

void linnet_swiglu_backward(const linnet_workspace *work, float *gate, float *up, const float *d_y, size_t n)
{
    element_work runs = {.kernels = work->product.kernels, .d_y = d_y, .d_gate = gate, .d_up = up, .n = n};
    linnet_workspace_run(work, n / RUN + (n % RUN != 0), 2 * (double)n, swiglu_backward_runs, &runs);
}

static void add_runs(void *context, size_t first, size_t last, unsigned thread)
{
    const element_work *work = context;
    size_t end = last * RUN < work->n ? last * RUN : work->n;
    (void)thread;
    for (size_t i = first * RUN; i < end; i++)
        work->out[i] += work->up[i];
}

void linnet_add(const linnet_workspace *work, const float *x, size_t n, float *y)
{
    element_work runs = {.up = x, .out = y, .n = n};
    linnet_workspace_run(work, n / RUN + (n % RUN != 0), 0.3 * (double)n, add_runs, &runs);
}
