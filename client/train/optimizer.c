/* SPDX-License-Identifier: Apache-2.0 */
/* AdamW (Loshchilov and Hutter 2019, Algorithm 2, decay scaled by the rate) and plain SGD. Moments and
 * parameters are float32, each update is computed in double. */
#include "optimizer.h"

#include <math.h>
#include <stdlib.h>

linnet_status linnet_optimizer_init(linnet_optimizer_state *state, linnet_optimizer kind,
                                    const linnet_layout *layout, linnet_factors factors, linnet_error *err)
{
    linnet_optimizer_state s = {0};
    s.spans = calloc(layout->n_entries * 2 + 1, sizeof(*s.spans));
    if (!s.spans)
        goto no_memory;
    for (size_t i = 0; i < layout->n_entries; i++) {
        const linnet_layout_entry *e = &layout->entries[i];
        if (factors & LINNET_FACTOR_A)
            s.spans[s.n_spans++] = (linnet_span){e->a_offset, (size_t)e->rank * e->columns, LINNET_FACTOR_A};
        if (factors & LINNET_FACTOR_B)
            s.spans[s.n_spans++] = (linnet_span){e->b_offset, (size_t)e->rows * e->rank, LINNET_FACTOR_B};
    }
    for (size_t i = 0; i < s.n_spans; i++)
        s.n_active += s.spans[i].n;
    if (kind == LINNET_OPTIMIZER_ADAMW) {
        s.moment1 = calloc(s.n_active + 1, sizeof(*s.moment1));
        s.moment2 = calloc(s.n_active + 1, sizeof(*s.moment2));
        if (!s.moment1 || !s.moment2)
            goto no_memory;
    }
    *state = s;
    return LINNET_OK;
no_memory:
    linnet_optimizer_release(&s);
    return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for an optimiser of %zu parameters",
                       layout->n_parameters);
}

void linnet_optimizer_release(linnet_optimizer_state *state)
{
    free(state->spans);
    free(state->moment1);
    free(state->moment2);
    *state = (linnet_optimizer_state){0};
}

void linnet_gradient_zero(const linnet_optimizer_state *state, float *gradient)
{
    for (size_t s = 0; s < state->n_spans; s++)
        memset(gradient + state->spans[s].first, 0, state->spans[s].n * sizeof(*gradient));
}

double linnet_gradient_norm(const linnet_optimizer_state *state, const float *gradient)
{
    double sum = 0;
    for (size_t s = 0; s < state->n_spans; s++) {
        const float *g = gradient + state->spans[s].first;
        for (size_t i = 0; i < state->spans[s].n; i++)
            sum += (double)g[i] * g[i];
    }
    return sqrt(sum);
}

void linnet_gradient_scale(const linnet_optimizer_state *state, float *gradient, double scale)
{
    for (size_t s = 0; s < state->n_spans; s++) {
        float *g = gradient + state->spans[s].first;
        for (size_t i = 0; i < state->spans[s].n; i++)
            g[i] = (float)(g[i] * scale);
    }
}

void linnet_gradient_add_prox(const linnet_optimizer_state *state, double mu, const float *data,
                              const float *start, float *gradient)
{
    for (size_t s = 0; s < state->n_spans; s++) {
        size_t first = state->spans[s].first;
        for (size_t i = first; i < first + state->spans[s].n; i++)
            gradient[i] = (float)(gradient[i] + mu * ((double)data[i] - start[i]));
    }
}

static void update_sgd(double rate, double decay, const float *g, float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(p[i] * (1 - rate * decay) - rate * g[i]);
}

static void update_adamw(const linnet_training *t, uint32_t step, double rate, const float *g, float *m,
                         float *v, float *p, size_t n)
{
    double correct1 = 1 / (1 - pow(t->beta1, step)), correct2 = 1 / (1 - pow(t->beta2, step));
    for (size_t i = 0; i < n; i++) {
        double m_new = t->beta1 * m[i] + (1 - t->beta1) * g[i];
        double v_new = t->beta2 * v[i] + (1 - t->beta2) * g[i] * g[i];
        p[i] = (float)(p[i] * (1 - rate * t->weight_decay) -
                       rate * (m_new * correct1) / (sqrt(v_new * correct2) + t->epsilon));
        m[i] = (float)m_new;
        v[i] = (float)v_new;
    }
}

void linnet_optimizer_update(linnet_optimizer_state *state, const linnet_training *training, uint32_t step,
                             double rate_a, double rate_b, const float *gradient, float *data)
{
    size_t at = 0; /* in the moments */
    for (size_t s = 0; s < state->n_spans; s++) {
        linnet_span span = state->spans[s];
        double rate = span.factor == LINNET_FACTOR_A ? rate_a : rate_b;
        if (training->optimizer == LINNET_OPTIMIZER_ADAMW)
            update_adamw(training, step, rate, gradient + span.first, state->moment1 + at,
                         state->moment2 + at, data + span.first, span.n);
        else
            update_sgd(rate, training->weight_decay, gradient + span.first, data + span.first, span.n);
        at += span.n;
    }
}
