/* SPDX-License-Identifier: Apache-2.0 */
/* Greedy, temperature and nucleus sampling (top-p; Holtzman et al. 2020). The whole vocabulary is sorted for
 * top-p, which costs milliseconds for the largest ones; there are no penalties, top-k or grammars. */
#include "linnet/sampler.h"

#include <math.h>
#include <stdlib.h>

typedef struct choice {
    double p; /* not normalised */
    int32_t id;
} choice;

void linnet_sampler_init(linnet_sampler *sampler, double temperature, double top_p, uint64_t seed)
{
    *sampler = (linnet_sampler){.temperature = temperature, .top_p = top_p};
    linnet_rng_init(&sampler->rng, seed, 0);
}

void linnet_sampler_release(linnet_sampler *sampler)
{
    free(sampler->scratch);
    sampler->scratch = NULL;
    sampler->n_scratch = 0;
}

/* The lowest id of the largest logit, or -1 where none is above minus infinity. */
static int32_t largest(const float *logits, size_t n)
{
    int32_t best = -1;
    for (size_t i = 0; i < n; i++) {
        if (!isnan(logits[i]) && logits[i] > (best < 0 ? -INFINITY : logits[best]))
            best = (int32_t)i;
    }
    return best;
}

static int by_probability(const void *a, const void *b)
{
    const choice *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The shortest run of the likeliest choices that holds top_p of the whole; returns its length, its sum in
 * *sum. */
static size_t keep_nucleus(choice *choices, size_t n, double top_p, double *sum)
{
    double wanted = top_p * *sum, kept = 0;
    size_t n_kept = 0;
    qsort(choices, n, sizeof(*choices), by_probability);
    while (n_kept < n && (n_kept == 0 || kept < wanted))
        kept += choices[n_kept++].p;
    *sum = kept;
    return n_kept;
}

static choice *scratch_of(linnet_sampler *sampler, size_t n)
{
    if (sampler->n_scratch < n) {
        choice *scratch =
            n > SIZE_MAX / sizeof(*scratch) ? NULL : realloc(sampler->scratch, n * sizeof(*scratch));
        if (!scratch)
            return NULL;
        sampler->scratch = scratch;
        sampler->n_scratch = n;
    }
    return sampler->scratch;
}

linnet_status linnet_sampler_next(linnet_sampler *sampler, const float *logits, size_t n, int32_t *ret_id,
                                  linnet_error *err)
{
    int32_t best = largest(logits, n);
    if (best < 0)
        return linnet_fail(err, LINNET_ERR_RANGE, "the model gave no number for any next token");
    if (sampler->temperature <= 0 || isinf(logits[best])) {
        *ret_id = best;
        return LINNET_OK;
    }
    choice *choices = scratch_of(sampler, n);
    if (!choices)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to sample from %zu tokens", n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double p =
            isnan(logits[i]) ? 0 : exp(((double)logits[i] - (double)logits[best]) / sampler->temperature);
        choices[i] = (choice){p, (int32_t)i};
        sum += p;
    }
    size_t n_kept = sampler->top_p < 1 ? keep_nucleus(choices, n, sampler->top_p, &sum) : n;
    double left = linnet_rng_double(&sampler->rng) * sum;
    size_t at = 0;
    while (at + 1 < n_kept && left >= choices[at].p)
        left -= choices[at++].p;
    while (at > 0 && choices[at].p == 0) /* rounding may run past the last possible one */
        at--;
    *ret_id = choices[at].id;
    return LINNET_OK;
}
