/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_OPS_H
#define LINNET_ENGINE_OPS_H

/* Inner header: what stands between the products of a block, a token at a time: embeddings, norms, rotary
 * positions, activations, sums. Matrices of activations are (n_tokens, width), row-major. d_x is the gradient
 * of x. */

#include "workspace.h"

/** x (n_tokens, width): the tokens' embeddings, scaled, with the learned positions and the first kind of text
 * where the model has them, normed where it norms the sum. Token 0 stands at `position`. */
void linnet_embed(const linnet_workspace *work, const linnet_model *model, const int32_t *ids,
                  size_t n_tokens, size_t position, float *x);

/** y = norm(x), row by row; n_rows is the number of tokens, or of their heads. y may be x. */
void linnet_norm_forward(const linnet_workspace *work, const linnet_norm *norm, const float *x, size_t n_rows,
                         size_t width, float *y);
/** d_x (+)= J^T d_y. accumulate false: overwritten, d_x may be d_y. */
void linnet_norm_backward(const linnet_workspace *work, const linnet_norm *norm, const float *x,
                          const float *d_y, size_t n_rows, size_t width, float *d_x, bool accumulate);

/** Turn the leading elements of every head by the angles of one of the model's ropes at its token's position,
 * in place; token 0 stands at `position`. inverse: the transpose, which is the backward pass. Nothing for a
 * model whose positions are learned. */
void linnet_rotate(const linnet_workspace *work, size_t rope, float *x, size_t n_tokens, size_t position,
                   size_t n_heads, size_t head_width, bool inverse);

/** y = act(gate) up, element by element; act(gate) where up is NULL. y may be gate. */
void linnet_activation_forward(const linnet_workspace *work, linnet_activation activation, const float *gate,
                               const float *up, size_t n, float *y);
/** gate and up (NULL: none) become their own gradients. */
void linnet_activation_backward(const linnet_workspace *work, linnet_activation activation, float *gate,
                                float *up, const float *d_y, size_t n);

/** y = scale y + x */
void linnet_add(const linnet_workspace *work, const float *x, size_t n, float scale, float *y);
/** y (n_tokens, width) += bias, to every row */
void linnet_add_bias(const linnet_workspace *work, const float *bias, size_t n_tokens, size_t width,
                     float *y);

/** x = cap tanh(x / cap), in place */
void linnet_soft_cap(const linnet_kernels *kernels, float *x, size_t n, float cap);
/** Products of the output matrix become logits: bias, scale, cap. Rows [first_row, first_row + n_rows) of the
 * vocabulary for one token. */
void linnet_finish_logits(const linnet_kernels *kernels, const linnet_model *model, size_t first_row,
                          size_t n_rows, float *logits);

#endif
