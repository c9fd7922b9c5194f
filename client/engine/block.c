/* SPDX-License-Identifier: Apache-2.0 */
/* One block of a model, as its architecture's row says:
 *
 *   middle = x + r P(O attention(rope(N(Q n)), rope(N(K n)), V n)),  n = norm(x)
 *   y = middle + r P(D (act(G m) * U m)),                            m = norm(middle), or n in a parallel
 * block
 *
 * each linear with its bias and a low-rank side path where it has them; norms P behind a branch and N of
 * heads, the gate G and the scale r of sums only where the row has them (Touvron et al. 2023 and the families
 * after it). In a row that norms sums (Vaswani et al. 2017) both sums are normed and neither n nor m is: they
 * are x and middle. The backward pass writes gradients over the values they belong to as soon as these have
 * had their last use: normed, attended and activated turn into their gradients once d_A has been taken from
 * them, and q, k, v, gate and up in place. Normed inputs are cheaper to make again than to keep; what a norm
 * behind a product reads is kept. */
#include "block.h"

#include "attention.h"
#include "ops.h"

static bool has_gate(const linnet_block *block)
{
    return linnet_activation_has_gate(block->model->architecture->activation);
}

/* Is what a branch ends in read again in the backward pass, by a norm? */
static bool keeps_branches(const linnet_model *model)
{
    return model->architecture->has_post_norms || model->architecture->norms_sums;
}

/* Does a branch's gradient differ from that of the sum that it joins? */
static bool needs_branch(const linnet_model *model)
{
    return model->architecture->has_post_norms || model->residual_scale != 1;
}

void linnet_block_parts(linnet_block *block, bool train, linnet_part parts[LINNET_BLOCK_PARTS])
{
    const linnet_model *model = block->model;
    size_t n = block->n_tokens_max, width = model->shape.width, ffn_width = model->shape.ffn_width;
    size_t pair_width = 2 * (train && model->query_width > ffn_width ? model->query_width : ffn_width);
    size_t n_raw = train && model->architecture->has_qk_norms ? n : 0;
    size_t n_out = train && keeps_branches(model) ? n : 0;
    const linnet_part list[LINNET_BLOCK_PARTS] = {
        {&block->normed, n, width},
        {&block->q, n, model->query_width},
        {&block->attended, n, model->query_width},
        {&block->middle, n, width},
        {&block->gate, n, pair_width}, /* gate and up, and in the backward pass the heads' gradients */
        {&block->activated, train ? n : 0, ffn_width},
        {&block->raw_q, n_raw, model->query_width},
        {&block->raw_k, n_raw, model->kv_width},
        {&block->attention_out, n_out, width},
        {&block->ffn_out, n_out, width},
        {&block->branch, train && needs_branch(model) ? n : 0, width},
    };
    memcpy(parts, list, sizeof(list));
}

void linnet_block_share(linnet_block *block, bool train)
{
    const linnet_architecture *row = block->model->architecture;
    block->up = block->gate + block->n_tokens_max * block->model->shape.ffn_width;
    block->heads = block->gate;
    if (!train)
        block->activated = block->gate;
    if (!train || !row->has_qk_norms)
        block->raw_q = block->raw_k = NULL;
    if (!train || !keeps_branches(block->model)) {
        block->attention_out = block->middle;
        block->ffn_out = NULL;
    }
    if (!train || !needs_branch(block->model))
        block->branch = NULL;
}

static float *h_of(const linnet_block *block, const linnet_block_pass *pass, linnet_target target)
{
    const linnet_lora *lora = &pass->lora[target];
    return lora->rank == 0 ? NULL : block->h + lora->h_column * pass->n_tokens;
}

static const linnet_layer *layer_of(const linnet_block *block, const linnet_block_pass *pass)
{
    return &block->model->layers[pass->layer];
}

static void forward(const linnet_block *block, const linnet_block_pass *pass, linnet_target target,
                    const float *x, size_t n_tokens, float *y)
{
    const linnet_layer *layer = layer_of(block, pass);
    const linnet_matrix *w = &layer->linears[target];
    linnet_linear_forward(&block->work->product, w, &pass->lora[target], x, n_tokens,
                          h_of(block, pass, target), y);
    if (layer->biases[target])
        linnet_add_bias(block->work, layer->biases[target], n_tokens, w->rows, y);
}

static linnet_attention attention_of(const linnet_block *block, const linnet_block_pass *pass,
                                     size_t n_queries, size_t position)
{
    const linnet_model *model = block->model;
    return (linnet_attention){.work = block->work,
                              .n_heads = model->shape.n_heads,
                              .n_kv_heads = model->shape.n_kv_heads,
                              .head_width = model->shape.head_width,
                              .n_queries = n_queries,
                              .position = position,
                              .window = layer_of(block, pass)->window,
                              .sees_all = model->architecture->is_bidirectional,
                              .scale = model->attention_scale,
                              .cap = model->attention_cap};
}

/* Norm of every head, where there is one, then the turn; raw: where the product is. */
static void prepare_heads(const linnet_block *block, const linnet_block_pass *pass, const linnet_norm *norm,
                          const float *raw, size_t n_tokens, size_t position, size_t n_heads, float *heads)
{
    size_t head_width = block->model->shape.head_width;
    if (norm->weight)
        linnet_norm_forward(block->work, norm, raw, n_tokens * n_heads, head_width, heads);
    linnet_rotate(block->work, layer_of(block, pass)->rope, heads, n_tokens, position, n_heads, head_width,
                  false);
}

/* ---- forward ---- */

/* The input of a branch: x normed, in block->normed, or x itself. */
static const float *branch_input(const linnet_block *block, const linnet_norm *norm, const float *x,
                                 size_t n_tokens)
{
    if (!norm->weight)
        return x;
    linnet_norm_forward(block->work, norm, x, n_tokens, block->model->shape.width, block->normed);
    return block->normed;
}

/* y = x + r branch over n tokens, with the norms that stand before and behind the sum. branch is y unless
 * a norm reads it, which then finds there what it reads; of the two norms there is one at most. */
static void join_branch(const linnet_block *block, const linnet_norm *before, const linnet_norm *behind,
                        float *branch, const float *x, size_t n, float *y)
{
    size_t width = block->model->shape.width;
    float *sum = behind->weight ? branch : y;
    if (before->weight)
        linnet_norm_forward(block->work, before, branch, n, width, y);
    linnet_add(block->work, x, n * width, block->model->residual_scale, sum);
    if (behind->weight)
        linnet_norm_forward(block->work, behind, branch, n, width, y);
}

/* From the branch's input for all tokens to middle, for tokens skip..n_tokens-1. */
static void attention_forward(const linnet_block *block, const linnet_block_pass *pass, const float *x,
                              const float *input, size_t skip)
{
    const linnet_model *model = block->model;
    const linnet_layer *layer = layer_of(block, pass);
    size_t width = model->shape.width, n = pass->n_tokens - skip, position = pass->position + skip;
    float *k = pass->k + pass->position * model->kv_width, *v = pass->v + pass->position * model->kv_width;
    float *raw_k = block->raw_k ? block->raw_k : k, *raw_q = block->raw_q ? block->raw_q : block->q;
    forward(block, pass, LINNET_TARGET_ATTN_K, input, pass->n_tokens, raw_k);
    forward(block, pass, LINNET_TARGET_ATTN_V, input, pass->n_tokens, v);
    prepare_heads(block, pass, &layer->k_norm, raw_k, pass->n_tokens, pass->position, model->shape.n_kv_heads,
                  k);
    forward(block, pass, LINNET_TARGET_ATTN_Q, input + skip * width, n, raw_q);
    prepare_heads(block, pass, &layer->q_norm, raw_q, n, position, model->shape.n_heads, block->q);
    linnet_attention attention = attention_of(block, pass, n, position);
    linnet_attention_forward(&attention, block->q, pass->k, pass->v, block->attended);
    forward(block, pass, LINNET_TARGET_ATTN_OUTPUT, block->attended, n, block->attention_out);
    join_branch(block, &layer->attention_post_norm, &layer->attention_sum_norm, block->attention_out,
                x + skip * width, n, block->middle);
}

/* From m, the branch's input for n tokens, to y; y NULL: only what the backward pass needs. */
static void ffn_forward(const linnet_block *block, const linnet_block_pass *pass, const float *m, size_t n,
                        float *y)
{
    const linnet_model *model = block->model;
    const linnet_layer *layer = layer_of(block, pass);
    float *up = has_gate(block) ? block->up : NULL, *out = block->ffn_out ? block->ffn_out : y;
    if (up)
        forward(block, pass, LINNET_TARGET_FFN_GATE, m, n, block->gate);
    forward(block, pass, LINNET_TARGET_FFN_UP, m, n, up ? up : block->gate);
    linnet_activation_forward(block->work, model->architecture->activation, block->gate, up,
                              n * model->shape.ffn_width, block->activated);
    if (!out) {
        linnet_lora_forward_h(&block->work->product, &layer->linears[LINNET_TARGET_FFN_DOWN],
                              &pass->lora[LINNET_TARGET_FFN_DOWN], block->activated, n,
                              h_of(block, pass, LINNET_TARGET_FFN_DOWN));
        return;
    }
    forward(block, pass, LINNET_TARGET_FFN_DOWN, block->activated, n, out);
    if (y)
        join_branch(block, &layer->ffn_post_norm, &layer->ffn_sum_norm, out, block->middle, n, y);
    else if (layer->ffn_sum_norm.weight)
        linnet_add(block->work, block->middle, n * model->shape.width, model->residual_scale, out);
}

void linnet_block_forward(const linnet_block *block, const linnet_block_pass *pass, const float *x,
                          size_t skip, float *y)
{
    const linnet_layer *layer = layer_of(block, pass);
    size_t width = block->model->shape.width, n = pass->n_tokens - skip;
    const float *input = branch_input(block, &layer->attention_norm, x, pass->n_tokens);
    attention_forward(block, pass, x, input, skip);
    if (!block->model->architecture->is_parallel)
        input = branch_input(block, &layer->ffn_norm, block->middle, n);
    else
        input += skip * width;
    ffn_forward(block, pass, input, n, y);
}

/* ---- backward ---- */

static void factors(const linnet_block *block, const linnet_block_pass *pass,
                    const linnet_block_gradient *gradient, linnet_target target, const float *d_y,
                    const float *x)
{
    const linnet_lora *lora = &pass->lora[target];
    linnet_lora_backward_factors(&block->work->product, &layer_of(block, pass)->linears[target], lora, d_y, x,
                                 pass->n_tokens, h_of(block, pass, target),
                                 gradient->factors & LINNET_FACTOR_A ? gradient->data + lora->a_offset : NULL,
                                 gradient->factors & LINNET_FACTOR_B ? gradient->data + lora->b_offset
                                                                     : NULL);
}

static void backward(const linnet_block *block, const linnet_block_pass *pass, linnet_target target,
                     const float *d_y, float *d_x)
{
    linnet_linear_backward(&block->work->product, &layer_of(block, pass)->linears[target],
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

/* The input of targets first..last again, where the gradient of an A needs it; else anything. */
static const float *input_again(const linnet_block *block, const linnet_block_pass *pass,
                                const linnet_block_gradient *gradient, linnet_target first,
                                linnet_target last, const linnet_norm *norm, const float *x)
{
    if ((gradient->factors & LINNET_FACTOR_A) && is_adapted(pass, first, last))
        return branch_input(block, norm, x, pass->n_tokens);
    return block->normed;
}

/* d_x += the gradient of a branch's input, through the norm that made it of x. */
static void input_backward(const linnet_block *block, const linnet_block_pass *pass, const linnet_norm *norm,
                           const float *x, const float *d_input, float *d_x)
{
    size_t n = pass->n_tokens, width = block->model->shape.width;
    if (norm->weight)
        linnet_norm_backward(block->work, norm, x, d_input, n, width, d_x, true);
    else
        linnet_add(block->work, d_input, n * width, 1, d_x);
}

/* The gradient of what a norm behind a sum makes of it becomes the sum's. */
static void sum_backward(const linnet_block *block, const linnet_block_pass *pass, const linnet_norm *norm,
                         const float *sum, float *d_x)
{
    if (norm->weight)
        linnet_norm_backward(block->work, norm, sum, d_x, pass->n_tokens, block->model->shape.width, d_x,
                             false);
}

/* The gradient of a branch's product from that of the sum that it joins; out: the product, for its norm. */
static const float *branch_gradient(const linnet_block *block, const linnet_block_pass *pass,
                                    const linnet_norm *norm, const float *out, const float *d_sum)
{
    size_t width = block->model->shape.width, n = pass->n_tokens * width;
    if (!block->branch)
        return d_sum;
    for (size_t i = 0; i < n; i++)
        block->branch[i] = block->model->residual_scale * d_sum[i];
    if (norm->weight)
        linnet_norm_backward(block->work, norm, out, block->branch, pass->n_tokens, width, block->branch,
                             false);
    return block->branch;
}

/* From d_sum, the gradient of the sum, to that of the branch's input, which is added to d_normed where
 * need_input. norm, x: what made the input. */
static void ffn_backward(const linnet_block *block, const linnet_block_pass *pass,
                         const linnet_block_gradient *gradient, const linnet_norm *norm, const float *x,
                         bool need_input, const float *d_sum, float *d_normed)
{
    const linnet_model *model = block->model;
    float *up = has_gate(block) ? block->up : NULL;
    size_t n = pass->n_tokens * model->shape.ffn_width;
    const float *d_out =
        branch_gradient(block, pass, &layer_of(block, pass)->ffn_post_norm, block->ffn_out, d_sum);
    factors(block, pass, gradient, LINNET_TARGET_FFN_DOWN, d_out, block->activated);
    if (!need_input && !is_adapted(pass, LINNET_TARGET_FFN_GATE, LINNET_TARGET_FFN_UP))
        return;
    clear(block->activated, n);
    backward(block, pass, LINNET_TARGET_FFN_DOWN, d_out, block->activated);
    linnet_activation_backward(block->work, model->architecture->activation, block->gate, up,
                               block->activated, n);
    const float *input =
        input_again(block, pass, gradient, LINNET_TARGET_FFN_GATE, LINNET_TARGET_FFN_UP, norm, x);
    if (up)
        factors(block, pass, gradient, LINNET_TARGET_FFN_GATE, block->gate, input);
    factors(block, pass, gradient, LINNET_TARGET_FFN_UP, up ? up : block->gate, input);
    if (!need_input)
        return;
    clear(d_normed, pass->n_tokens * model->shape.width);
    if (up)
        backward(block, pass, LINNET_TARGET_FFN_GATE, block->gate, d_normed);
    backward(block, pass, LINNET_TARGET_FFN_UP, up ? up : block->gate, d_normed);
}

/* The gradient of turned heads becomes that of the product. */
static void heads_backward(const linnet_block *block, const linnet_block_pass *pass, const linnet_norm *norm,
                           const float *raw, size_t n_heads, float *heads)
{
    size_t head_width = block->model->shape.head_width;
    linnet_rotate(block->work, layer_of(block, pass)->rope, heads, pass->n_tokens, 0, n_heads, head_width,
                  true);
    if (norm->weight)
        linnet_norm_backward(block->work, norm, raw, heads, pass->n_tokens * n_heads, head_width, heads,
                             false);
}

/* From d_sum, the gradient of the sum, to that of the branch's input, which is added to d_normed where
 * need_input. */
static void attention_backward(const linnet_block *block, const linnet_block_pass *pass, const float *x,
                               const linnet_block_gradient *gradient, bool need_input, const float *d_sum,
                               float *d_normed)
{
    const linnet_model_shape *shape = &block->model->shape;
    const linnet_layer *layer = layer_of(block, pass);
    size_t n = pass->n_tokens;
    const float *d_out =
        branch_gradient(block, pass, &layer->attention_post_norm, block->attention_out, d_sum);
    factors(block, pass, gradient, LINNET_TARGET_ATTN_OUTPUT, d_out, block->attended);
    if (!need_input && !is_adapted(pass, LINNET_TARGET_ATTN_Q, LINNET_TARGET_ATTN_V))
        return;
    clear(block->attended, n * block->model->query_width);
    backward(block, pass, LINNET_TARGET_ATTN_OUTPUT, d_out, block->attended);
    linnet_attention attention = attention_of(block, pass, n, 0);
    linnet_attention_backward(&attention, block->q, pass->k, pass->v, block->attended, block->heads);
    heads_backward(block, pass, &layer->q_norm, block->raw_q, shape->n_heads, block->q);
    heads_backward(block, pass, &layer->k_norm, block->raw_k, shape->n_kv_heads, pass->k);
    const float *input = input_again(block, pass, gradient, LINNET_TARGET_ATTN_Q, LINNET_TARGET_ATTN_V,
                                     &layer->attention_norm, x);
    factors(block, pass, gradient, LINNET_TARGET_ATTN_Q, block->q, input);
    factors(block, pass, gradient, LINNET_TARGET_ATTN_K, pass->k, input);
    factors(block, pass, gradient, LINNET_TARGET_ATTN_V, pass->v, input);
    if (!need_input)
        return;
    if (d_normed == block->normed) /* else the feed-forward's part is in it already */
        clear(d_normed, n * shape->width);
    backward(block, pass, LINNET_TARGET_ATTN_Q, block->q, d_normed);
    backward(block, pass, LINNET_TARGET_ATTN_K, pass->k, d_normed);
    backward(block, pass, LINNET_TARGET_ATTN_V, pass->v, d_normed);
}

void linnet_block_backward(const linnet_block *block, const linnet_block_pass *pass, const float *x,
                           const linnet_block_gradient *gradient, bool need_input, float *d_x)
{
    const linnet_layer *layer = layer_of(block, pass);
    bool attention = need_input || is_adapted(pass, LINNET_TARGET_ATTN_Q, LINNET_TARGET_ATTN_OUTPUT);
    if (block->model->architecture->is_parallel) {
        /* middle, which nothing reads, takes the gradient of the input that both branches share */
        ffn_backward(block, pass, gradient, &layer->attention_norm, x, need_input, d_x, block->middle);
        if (attention)
            attention_backward(block, pass, x, gradient, need_input, d_x, block->middle);
        if (need_input)
            input_backward(block, pass, &layer->attention_norm, x, block->middle, d_x);
        return;
    }
    sum_backward(block, pass, &layer->ffn_sum_norm, block->ffn_out, d_x);
    ffn_backward(block, pass, gradient, &layer->ffn_norm, block->middle, attention, d_x, block->normed);
    if (!attention)
        return;
    input_backward(block, pass, &layer->ffn_norm, block->middle, block->normed, d_x);
    sum_backward(block, pass, &layer->attention_sum_norm, block->attention_out, d_x);
    attention_backward(block, pass, x, gradient, need_input, d_x, block->normed);
    if (need_input)
        input_backward(block, pass, &layer->attention_norm, x, block->normed, d_x);
}
