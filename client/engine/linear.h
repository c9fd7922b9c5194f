/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_LINEAR_H
#define LINNET_ENGINE_LINEAR_H

/* Inner header: a frozen linear with its low-rank side path, y = W x + scale B (A x), forward and backward
 * (Hu et al. 2021, section 4.1). h = A x is what the backward pass needs of the forward one, besides x for
 * d_A. */

#include "dropout.h"
#include "weights.h"

/** The side path of one linear; rank 0: there is none. */
typedef struct linnet_lora {
    const float *a, *b; /* borrowed from the adapter: (rank, columns), (rows, rank) */
    uint32_t rank;
    float scale;               /* alpha / rank */
    const float *gains;        /* of rows, the base's included (DoRA); NULL: none */
    size_t h_column;           /* sum of the ranks before it in its layer: where its h begins */
    size_t a_offset, b_offset; /* of the factors in the adapter's data and in gradients */
    uint64_t matrix; /* place in the table of the first of the linears that the adapted matrix holds */
    linnet_dropout_mask dropout_mask;
} linnet_lora;

/** The side paths of a model, [layer][linear], then the head's. An adapter of a matrix that holds several
 * linears gives each of them a side path: the same A, and its rows of B. */
typedef struct linnet_lora_table {
    linnet_lora *entries;  /* owned, n_layers x LINNET_LINEARS + LINNET_HEAD_LINEARS */
    size_t rank_sum;       /* the largest sum of ranks in a layer: columns of h */
    uint32_t lowest_layer; /* with a side path; n_layers where none has */
} linnet_lora_table;

/** The linears whose rows an adapted matrix holds, one after another, and the first one's number in a table.
 * n 0: the model has no such matrix. */
typedef struct linnet_lora_linears {
    const linnet_matrix *matrices; /* n */
    size_t n, first;
} linnet_lora_linears;
linnet_lora_linears linnet_lora_linears_of(const linnet_model *model, const linnet_layout_entry *entry);

/** How many entries a table has for the model. */
size_t linnet_lora_table_entries(const linnet_model *model);
/** Those of the head, LINNET_HEAD_LINEARS of them; h_column is 0 for the first, its rank for the second. */
const linnet_lora *linnet_lora_of_head(const linnet_lora_table *table, const linnet_model *model);

linnet_status linnet_lora_table_init(linnet_lora_table *table, const linnet_model *model,
                                     linnet_error *err) LINNET_NODISCARD;
void linnet_lora_table_release(linnet_lora_table *table);
/** No side paths. */
void linnet_lora_unbind(linnet_lora_table *table, const linnet_model *model);
/** Point the table at an adapter (NULL: none). MISMATCH, and a table without side paths, where its shapes are
 * another model's. */
linnet_status linnet_lora_bind(linnet_lora_table *table, const linnet_model *model,
                               const linnet_adapter *adapter, linnet_error *err) LINNET_NODISCARD;

/** What the side paths drop of their inputs until the next bind (NULL: nothing, as after each bind). */
void linnet_lora_drop(linnet_lora_table *table, const linnet_model *model, const linnet_dropout *dropout);

/* In what follows the side path's x is the one that dropout leaves. */

/** h (n, rank) = x A^T; nothing without a side path. */
void linnet_lora_forward_h(const linnet_product *product, const linnet_matrix *w, const linnet_lora *lora,
                           const float *x, size_t n_tokens, float *h);
/** y = gains (x W^T + scale h B^T), and h as above. */
void linnet_linear_forward(const linnet_product *product, const linnet_matrix *w, const linnet_lora *lora,
                           const float *x, size_t n_tokens, float *h, float *y);

/** The factors' gradients from d_y: d_b += scale d_y^T h; then h becomes u = scale d_y B; d_a += u^T x. d_a,
 * d_b may be NULL (inactive factor), x too where d_a is. */
void linnet_lora_backward_factors(const linnet_product *product, const linnet_matrix *w,
                                  const linnet_lora *lora, const float *d_y, const float *x, size_t n_tokens,
                                  float *h, float *d_a, float *d_b);
/** d_x += d_y W + u A, u from above. */
void linnet_linear_backward(const linnet_product *product, const linnet_matrix *w, const linnet_lora *lora,
                            const float *d_y, const float *u, size_t n_tokens, float *d_x);

#endif
