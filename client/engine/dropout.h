/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_DROPOUT_H
#define LINNET_ENGINE_DROPOUT_H

/* Inner header: which elements of an adapted matrix's input its side path does not see in one gradient pass,
 * and the products of such an input. x' = factor(token, column) x, the factor 0 or 1 / (1 - share); nothing
 * is stored, a factor is made again whenever it is needed. */

#include "kernels.h"
#include "linnet/model.h"

/** The factors of one matrix's input in one pass. */
typedef struct linnet_dropout_mask {
    uint64_t key;
    uint32_t
        threshold; /* share in 65536ths: 16 random bits below it drop an element; 0: nothing is dropped */
    float scale;   /* of what is kept: 65536 / (65536 - threshold) */
} linnet_dropout_mask;

/** NULL, or a share of 0: nothing is dropped. A share above 0 is rounded to 65536ths, 1 to 65535 of them.
 * matrix: a number that the pass's other matrices do not have. */
linnet_dropout_mask linnet_dropout_mask_of(const linnet_dropout *dropout, uint64_t matrix);

/** The factors of n columns of a token from `first` on, which is a multiple of 4. */
void linnet_dropout_factors(const linnet_dropout_mask *dropout_mask, size_t token, size_t first, size_t n,
                            float *factors);

/** h (n_tokens, rank) = x' A^T, from x (n_tokens, columns) and A (rank, columns). */
void linnet_dropout_forward(const linnet_product *product, const linnet_dropout_mask *dropout_mask,
                            const float *x, size_t n_tokens, size_t columns, const float *a, size_t rank,
                            float *h);
/** d_a (rank, columns) += u^T x', from u (n_tokens, rank). */
void linnet_dropout_backward_a(const linnet_product *product, const linnet_dropout_mask *dropout_mask,
                               const float *x, size_t n_tokens, size_t columns, const float *u, size_t rank,
                               float *d_a);
/** d_x (n_tokens, columns) += factors * (u A). */
void linnet_dropout_backward_x(const linnet_product *product, const linnet_dropout_mask *dropout_mask,
                               const float *u, size_t n_tokens, size_t columns, const float *a, size_t rank,
                               float *d_x);

#endif
