/* SPDX-License-Identifier: Apache-2.0 */
/* What an encoder says of a text as a whole (Devlin et al. 2019, section 4.1): of the first token's output
 * one linear and tanh, the pooler, then a linear with a row for each label, and a softmax over them. Both
 * linears have a low-rank side path where an adapter gives them one, as those of the blocks do. One text at a
 * time: there is nothing here to share out among threads but the rows of the products. */
#include "head.h"

#include <math.h>

#include "ops.h"

enum { POOLER, OUTPUT }; /* the linears of a head, in the order of their targets */
_Static_assert(LINNET_TARGET_CLS - LINNET_BLOCK_TARGETS == POOLER &&
                   LINNET_TARGET_CLS_OUTPUT - LINNET_BLOCK_TARGETS == OUTPUT,
               "targets of the head are its linears");

void linnet_head_parts(linnet_head_state *head, bool train, linnet_part parts[LINNET_HEAD_PARTS])
{
    size_t n_labels = head->model->head.n_labels, width = n_labels > 0 ? head->model->shape.width : 0;
    size_t n_h = n_labels > 0 ? (size_t)LINNET_HEAD_LINEARS * LINNET_RANK_MAX : 0;
    const linnet_part list[LINNET_HEAD_PARTS] = {
        {&head->pooled, 1, width},    {&head->d_pooled, train ? 1 : 0, width},
        {&head->logits, 1, n_labels}, {&head->d_logits, train ? 1 : 0, n_labels},
        {&head->h, 1, n_h},
    };
    memcpy(parts, list, sizeof(list));
}

static float *h_of(const linnet_head_state *head, size_t linear)
{
    return head->h + head->lora[linear].h_column;
}

static void forward(const linnet_head_state *head, size_t linear, const float *x, float *y)
{
    const linnet_matrix *w = &head->model->head.linears[linear];
    linnet_linear_forward(&head->work->product, w, &head->lora[linear], x, 1, h_of(head, linear), y);
    linnet_add_bias(head->work, head->model->head.biases[linear], 1, w->rows, y);
}

void linnet_head_forward(const linnet_head_state *head, const float *hidden)
{
    size_t width = head->model->shape.width;
    if (head->model->head.linears[POOLER].bytes) {
        forward(head, POOLER, hidden, head->pooled);
        for (size_t i = 0; i < width; i++)
            head->pooled[i] = (float)tanh((double)head->pooled[i]);
    } else {
        memcpy(head->pooled, hidden, width * sizeof(float));
    }
    forward(head, OUTPUT, head->pooled, head->logits);
}

/* ln of the sum of exponentials of the logits. */
static double log_sum(const linnet_head_state *head)
{
    size_t n = head->model->head.n_labels;
    double top = head->work->product.kernels->max(head->logits, n), sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp(head->logits[i] - top);
    return top + log(sum);
}

double linnet_head_loss(const linnet_head_state *head, uint32_t label)
{
    return log_sum(head) - head->logits[label];
}

/* Gradients of a linear's factors from d_y, then d_x = that of its input. */
static void backward(const linnet_head_state *head, size_t linear, const float *d_y, const float *x,
                     const linnet_block_gradient *gradient, float *d_x)
{
    const linnet_matrix *w = &head->model->head.linears[linear];
    const linnet_lora *lora = &head->lora[linear];
    linnet_lora_backward_factors(&head->work->product, w, lora, d_y, x, 1, h_of(head, linear),
                                 gradient->factors & LINNET_FACTOR_A ? gradient->data + lora->a_offset : NULL,
                                 gradient->factors & LINNET_FACTOR_B ? gradient->data + lora->b_offset
                                                                     : NULL);
    memset(d_x, 0, w->columns * sizeof(float));
    linnet_linear_backward(&head->work->product, w, lora, d_y, h_of(head, linear), 1, d_x);
}

void linnet_head_backward(const linnet_head_state *head, const float *hidden, uint32_t label, double scale,
                          const linnet_block_gradient *gradient, float *d_hidden)
{
    size_t n = head->model->head.n_labels, width = head->model->shape.width;
    double total = log_sum(head);
    for (size_t i = 0; i < n; i++)
        head->d_logits[i] = (float)(scale * (exp(head->logits[i] - total) - (i == label)));
    if (!head->model->head.linears[POOLER].bytes) {
        backward(head, OUTPUT, head->d_logits, head->pooled, gradient, d_hidden);
        return;
    }
    backward(head, OUTPUT, head->d_logits, head->pooled, gradient, head->d_pooled);
    for (size_t i = 0; i < width; i++)
        head->d_pooled[i] *= 1.0f - head->pooled[i] * head->pooled[i];
    backward(head, POOLER, head->d_pooled, hidden, gradient, d_hidden);
}
