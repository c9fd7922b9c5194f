/* SPDX-License-Identifier: Apache-2.0 */
/* The loss over a large vocabulary in one walk over tiles of it, with the running maximum of Milakov and
 * Gimelshein 2018 (online softmax): d_hidden collects sum(exp(logit - top) W_row) as the sum of exponentials
 * does, and both are scaled down where a tile brings a larger logit. So every logit is computed once, and
 * held only while its tile lasts. The target is left out of both sums: with `others` the rest of the sum,
 *     d_hidden = (sum over others of e_j W_j - others W_target) / (others + e_target),
 * which loses nothing where p(target) is close to 1. Capped logits (Gemma Team 2024) multiply each W_j by the
 * slope of its cap. */
#include "loss.h"

#include <math.h>

#include "ops.h"

enum { TILE_ROWS = 1024 };

size_t linnet_loss_tile_rows(size_t vocabulary)
{
    return vocabulary < TILE_ROWS ? vocabulary : TILE_ROWS;
}

typedef struct loss_work {
    const linnet_loss *loss;
    const int32_t *targets;
    size_t first_row, n_rows; /* the tile */
    float scale;
    double *each;
    float *d_hidden;
} loss_work;

/* d(logit) / d(product) of capped logits, but for the scale that all have. */
static void write_slopes(const float *logits, size_t n, float cap, float *slopes)
{
    for (size_t i = 0; i < n; i++) {
        float share = logits[i] / cap;
        slopes[i] = 1.0f - share * share;
    }
}

/* Products of the tile become logits, and these exponentials (the target's 0), times their slopes where there
 * are such; what was summed so far is scaled to the new top. */
static void tile_tokens(void *context, size_t first, size_t last, unsigned thread)
{
    const loss_work *work = context;
    const linnet_loss *loss = work->loss;
    const linnet_kernels *kernels = loss->work->product.kernels;
    size_t width = loss->model->output.columns;
    bool has_slopes = work->d_hidden && loss->model->logit_cap > 0;
    (void)thread;
    for (size_t t = first; t < last; t++) {
        float *logits = loss->logits + t * work->n_rows;
        float *slopes = has_slopes ? loss->slopes + t * work->n_rows : NULL;
        linnet_loss_row *row = &loss->rows[t];
        linnet_finish_logits(kernels, loss->model, work->first_row, work->n_rows, logits);
        if (slopes)
            write_slopes(logits, work->n_rows, loss->model->logit_cap, slopes);
        size_t at = (size_t)work->targets[t] - work->first_row; /* wraps where it is in an earlier tile */
        float top = kernels->max(logits, work->n_rows);
        if (at < work->n_rows)
            row->target = logits[at];
        if (at < work->n_rows && slopes)
            row->slope = slopes[at];
        if (top > row->top) {
            double shrink = exp((double)row->top - top); /* 0 for the first tile */
            row->others *= shrink;
            for (size_t i = 0; work->d_hidden && i < width; i++)
                work->d_hidden[t * width + i] *= (float)shrink;
            row->top = top;
        }
        if (at < work->n_rows)
            logits[at] = -INFINITY; /* left out */
        row->others += kernels->exp_sum(logits, work->n_rows, row->top);
        for (size_t i = 0; slopes && i < work->n_rows; i++)
            logits[i] *= slopes[i];
    }
}

/* All tiles seen: losses, and the gradient's target part and scale. */
static void finish_tokens(void *context, size_t first, size_t last, unsigned thread)
{
    const loss_work *work = context;
    const linnet_loss *loss = work->loss;
    const linnet_matrix *output = &loss->model->output;
    size_t width = output->columns;
    float *row_of_target = loss->work->rows + thread * width;
    for (size_t t = first; t < last; t++) {
        const linnet_loss_row *row = &loss->rows[t];
        double below = (double)row->target - row->top, sum = row->others + exp(below);
        work->each[t] = log(sum) - below;
        if (!work->d_hidden)
            continue;
        float *d_hidden = work->d_hidden + t * width, others = (float)row->others * row->slope;
        float scale = (float)(work->scale * loss->model->logit_scale / sum);
        linnet_row_decode(loss->work->product.kernels, output, (size_t)work->targets[t], row_of_target);
        for (size_t i = 0; i < width; i++)
            d_hidden[i] = scale * (d_hidden[i] - others * row_of_target[i]);
    }
}

void linnet_loss_run(const linnet_loss *loss, const float *hidden, const int32_t *targets, size_t n,
                     float scale, double *ret_each, float *d_hidden)
{
    const linnet_product *product = &loss->work->product;
    const linnet_matrix *output = &loss->model->output;
    loss_work work = {
        .loss = loss, .targets = targets, .scale = scale, .each = ret_each, .d_hidden = d_hidden};
    for (size_t t = 0; t < n; t++)
        loss->rows[t] = (linnet_loss_row){.others = 0, .top = -INFINITY, .slope = 1};
    if (d_hidden)
        memset(d_hidden, 0, n * output->columns * sizeof(float));
    for (size_t first = 0; first < output->rows; first += loss->tile_rows) {
        size_t n_rows = output->rows - first < loss->tile_rows ? output->rows - first : loss->tile_rows;
        linnet_matrix tile = *output;
        tile.rows = n_rows;
        tile.bytes += first * output->row_bytes;
        work.first_row = first;
        work.n_rows = n_rows;
        linnet_product_forward(product, &tile, hidden, n, loss->logits);
        linnet_workspace_run(loss->work, n, (double)n * (double)n_rows, tile_tokens, &work);
        if (d_hidden)
            linnet_product_backward(product, &tile, loss->logits, n, d_hidden);
    }
    linnet_workspace_run(loss->work, n, (double)n * (double)output->columns, finish_tokens, &work);
}
