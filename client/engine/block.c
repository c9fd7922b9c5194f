/* SPDX-License-Identifier: Apache-2.0 */
/* One block of a llama model (Touvron et al. 2023): middle = x + O attention(rope(Q n), rope(K n), V n), n =
 * norm(x); y = middle + D (silu(G m) * U m), m = norm(middle); each linear with a low-rank side path where
 * adapted. The backward pass writes gradients over the values they belong to as soon as these have had their
 * last use: normed, attended and activated turn into their gradients once d_A has been taken from them, and
 * q, k, v, gate and up in place. Normed inputs are cheaper to make again than to keep. */
#include "block.h"

#include "attention.h"
#include "ops.h"

void linnet_block_parts(linnet_block *block, bool train, linnet_part parts[LINNET_BLOCK_PARTS])
{
    const linnet_model *model = block->model;
    size_t n = block->n_tokens_max, width = model->shape.width, ffn_width = model->shape.ffn_width;
    size_t pair_width = 2 * (train && model->query_width > ffn_width ? model->query_width : ffn_width);
    const linnet_part list[LINNET_BLOCK_PARTS] = {
        {&block->normed, n, width},
        {&block->q, n, model->query_width},
        {&block->attended, n, model->query_width},
        {&block->middle, n, width},
        {&block->gate, n, pair_width}, /* gate and up, and in the backward pass the heads' gradients */
        {&block->activated, train ? n : 0, ffn_width},
    };
    memcpy(parts, list, sizeof(list));
}

void linnet_block_share(linnet_block *block, bool train)
{
    block->up = block->gate + block->n_tokens_max * block->model->shape.ffn_width;
    block->heads = block->gate;
    if (!train)
        block->activated = block->gate;
}

static float *h_of(const linnet_block *block, const linnet_block_pass *pass, linnet_target target)
{
    const linnet_lora *lora = &pass->lora[target];
    return lora->rank == 0 ? NULL : block->h + lora->h_column * pass->n_tokens;
}

static void forward(const linnet_block *block, const linnet_block_pass *pass, linnet_target target,
                    const float *x, size_t n_tokens, float *y)
{
    linnet_linear_forward(&block->work->product, &block->model->layers[pass->layer].linears[target],
                          &pass->lora[target], x, n_tokens, h_of(block, pass, target), y);
}

static linnet_attention attention_of(const linnet_block *block, size_t n_queries, size_t position)
{
    const linnet_model_shape *shape = &block->model->shape;
    return (linnet_attention){block->work,       shape->n_heads, shape->n_kv_heads,
                              shape->head_width, n_queries,      position};
}

/* ---- forward ---- */

void linnet_block_forward(const linnet_block *block, const linnet_block_pass *pass, const float *x,
                          size_t skip, float *y)
{
    const linnet_workspace *work = block->work;
    const linnet_model_shape *shape = &block->model->shape;
    const linnet_layer *layer = &block->model->layers[pass->layer];
    size_t width = shape->width, kv_width = block->model->kv_width;
    size_t n = pass->n_tokens - skip, position = pass->position + skip;
    float *k = pass->k + pass->position * kv_width, *v = pass->v + pass->position * kv_width;

    linnet_norm_forward(work, x, layer->attention_norm, shape->norm_epsilon, pass->n_tokens, width,
                        block->normed);
    forward(block, pass, LINNET_TARGET_ATTN_K, block->normed, pass->n_tokens, k);
    forward(block, pass, LINNET_TARGET_ATTN_V, block->normed, pass->n_tokens, v);
    linnet_rope(work, k, pass->n_tokens, pass->position, shape->n_kv_heads, shape->head_width, false);
    forward(block, pass, LINNET_TARGET_ATTN_Q, block->normed + skip * width, n, block->q);
    linnet_rope(work, block->q, n, position, shape->n_heads, shape->head_width, false);
    linnet_attention attention = attention_of(block, n, position);
    linnet_attention_forward(&attention, block->q, pass->k, pass->v, block->attended);
    forward(block, pass, LINNET_TARGET_ATTN_OUTPUT, block->attended, n, block->middle);
    linnet_add(work, x + skip * width, n * width, block->middle);

    linnet_norm_forward(work, block->middle, layer->ffn_norm, shape->norm_epsilon, n, width, block->normed);
    forward(block, pass, LINNET_TARGET_FFN_GATE, block->normed, n, block->gate);
    forward(block, pass, LINNET_TARGET_FFN_UP, block->normed, n, block->up);
    linnet_swiglu_forward(work, block->gate, block->up, n * shape->ffn_width, block->activated);
    if (!y) {
        linnet_lora_forward_h(&work->product, &layer->linears[LINNET_TARGET_FFN_DOWN],
                              &pass->lora[LINNET_TARGET_FFN_DOWN], block->activated, n,
                              h_of(block, pass, LINNET_TARGET_FFN_DOWN));
        return;
    }
    forward(block, pass, LINNET_TARGET_FFN_DOWN, block->activated, n, y);
    linnet_add(work, block->middle, n * width, y);
}

/* ---- backward ---- */

static void factors(const linnet_block *block, const linnet_block_pass *pass,
                    const linnet_block_gradient *gradient, linnet_target target, const float *d_y,
                    const float *x)
{
    const linnet_lora *lora = &pass->lora[target];
    linnet_lora_backward_factors(&block->work->product, &block->model->layers[pass->layer].linears[target],
                                 lora, d_y, x, pass->n_tokens, h_of(block, pass, target),
                                 gradient->factors & LINNET_FACTOR_A ? gradient->data + lora->a_offset : NULL,
                                 gradient->factors & LINNET_FACTOR_B ? gradient->data + lora->b_offset
                                                                     : NULL);
}

static void backward(const linnet_block *block, const linnet_block_pass *pass, linnet_target target,
                     const float *d_y, float *d_x)
{
    linnet_linear_backward(&block->work->product, &block->model->layers[pass->layer].linears[target],
                           &pass->lora[target], d_y, h_of(block, pass, target), pass->n_tokens, d_x);
}

static void clear(float *x, size_t n)
{
    memset(x, 0, n * sizeof(*x));
}

/* Is a side path among targets first..last? */
static bool is_adapted(const linnet_block_pass *pass, linnet_target first, linnet_target last)
{
    for (size_t target = first; target <= (size_t)last; target++)
        if (pass->lora[target].rank > 0)
            return true;
    return false;
}

/* The normed input of targets first..last into block->normed, where the gradient of an A needs it. */
static void renorm(const linnet_block *block, const linnet_block_pass *pass,
                   const linnet_block_gradient *gradient, linnet_target first, linnet_target last,
                   const float *x, const float *weight)
{
    if ((gradient->factors & LINNET_FACTOR_A) && is_adapted(pass, first, last))
        linnet_norm_forward(block->work, x, weight, block->model->shape.norm_epsilon, pass->n_tokens,
                            block->model->shape.width, block->normed);
}

/* d_x: from the gradient of y to that of middle. */
static void ffn_backward(const linnet_block *block, const linnet_block_pass *pass,
                         const linnet_block_gradient *gradient, bool need_input, float *d_x)
{
    const linnet_model_shape *shape = &block->model->shape;
    const linnet_layer *layer = &block->model->layers[pass->layer];
    size_t n = pass->n_tokens;
    factors(block, pass, gradient, LINNET_TARGET_FFN_DOWN, d_x, block->activated);
    if (!need_input && !is_adapted(pass, LINNET_TARGET_FFN_GATE, LINNET_TARGET_FFN_UP))
        return;
    clear(block->activated, n * shape->ffn_width);
    backward(block, pass, LINNET_TARGET_FFN_DOWN, d_x, block->activated);
    linnet_swiglu_backward(block->work, block->gate, block->up, block->activated, n * shape->ffn_width);
    renorm(block, pass, gradient, LINNET_TARGET_FFN_GATE, LINNET_TARGET_FFN_UP, block->middle,
           layer->ffn_norm);
    factors(block, pass, gradient, LINNET_TARGET_FFN_GATE, block->gate, block->normed);
    factors(block, pass, gradient, LINNET_TARGET_FFN_UP, block->up, block->normed);
    if (!need_input)
        return;
    clear(block->normed, n * shape->width);
    backward(block, pass, LINNET_TARGET_FFN_GATE, block->gate, block->normed);
    backward(block, pass, LINNET_TARGET_FFN_UP, block->up, block->normed);
    linnet_norm_backward(block->work, block->middle, layer->ffn_norm, shape->norm_epsilon, block->normed, n,
                         shape->width, d_x, true);
}

/* d_x: from the gradient of middle to that of x. */
static void attention_backward(const linnet_block *block, const linnet_block_pass *pass, const float *x,
                               const linnet_block_gradient *gradient, bool need_input, float *d_x)
{
    const linnet_model_shape *shape = &block->model->shape;
    const linnet_layer *layer = &block->model->layers[pass->layer];
    size_t n = pass->n_tokens;
    factors(block, pass, gradient, LINNET_TARGET_ATTN_OUTPUT, d_x, block->attended);
    if (!need_input && !is_adapted(pass, LINNET_TARGET_ATTN_Q, LINNET_TARGET_ATTN_V))
        return;
    clear(block->attended, n * block->model->query_width);
    backward(block, pass, LINNET_TARGET_ATTN_OUTPUT, d_x, block->attended);
    linnet_attention attention = attention_of(block, n, 0);
    linnet_attention_backward(&attention, block->q, pass->k, pass->v, block->attended, block->heads);
    linnet_rope(block->work, block->q, n, 0, shape->n_heads, shape->head_width, true);
    linnet_rope(block->work, pass->k, n, 0, shape->n_kv_heads, shape->head_width, true);
    renorm(block, pass, gradient, LINNET_TARGET_ATTN_Q, LINNET_TARGET_ATTN_V, x, layer->attention_norm);
    factors(block, pass, gradient, LINNET_TARGET_ATTN_Q, block->q, block->normed);
    factors(block, pass, gradient, LINNET_TARGET_ATTN_K, pass->k, block->normed);
    factors(block, pass, gradient, LINNET_TARGET_ATTN_V, pass->v, block->normed);
    if (!need_input)
        return;
    clear(block->normed, n * shape->width);
    backward(block, pass, LINNET_TARGET_ATTN_Q, block->q, block->normed);
    backward(block, pass, LINNET_TARGET_ATTN_K, pass->k, block->normed);
    backward(block, pass, LINNET_TARGET_ATTN_V, pass->v, block->normed);
    linnet_norm_backward(block->work, x, layer->attention_norm, shape->norm_epsilon, block->normed, n,
                         shape->width, d_x, true);
}

void linnet_block_backward(const linnet_block *block, const linnet_block_pass *pass, const float *x,
                           const linnet_block_gradient *gradient, bool need_input, float *d_x)
{
    bool attention = need_input || is_adapted(pass, LINNET_TARGET_ATTN_Q, LINNET_TARGET_ATTN_OUTPUT);
    ffn_backward(block, pass, gradient, attention, d_x);
    if (attention)
        attention_backward(block, pass, x, gradient, need_input, d_x);
}
