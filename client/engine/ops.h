/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_OPS_H
#define LINNET_ENGINE_OPS_H

/* Inner header: what stands between the products of a block, a token at a time: RMS norm, rotary positions,
 * SwiGLU, sums. Matrices of activations are (n_tokens, width), row-major. d_x is the gradient of x. */

#include "workspace.h"

/** y = x / rms(x) * weight, rms = sqrt(mean(x^2) + epsilon). y may be x. */
void linnet_norm_forward(const linnet_workspace *work, const float *x, const float *weight, float epsilon,
                         size_t n_tokens, size_t width, float *y);
/** d_x (+)= J^T d_y. accumulate false: overwritten, d_x may be d_y. */
void linnet_norm_backward(const linnet_workspace *work, const float *x, const float *weight, float epsilon,
                          const float *d_y, size_t n_tokens, size_t width, float *d_x, bool accumulate);

/** Turn the leading pairs (2i, 2i+1) of every head by the angle of its token's position, in place; token 0
 * stands at `position`. inverse: turn back, which is the backward pass. */
void linnet_rope(const linnet_workspace *work, float *x, size_t n_tokens, size_t position, size_t n_heads,
                 size_t head_width, bool inverse);

/** y = silu(gate) up, element by element; y may be gate. */
void linnet_swiglu_forward(const linnet_workspace *work, const float *gate, const float *up, size_t n,
                           float *y);
/** gate and up become their own gradients. */
void linnet_swiglu_backward(const linnet_workspace *work, float *gate, float *up, const float *d_y, size_t n);

/** y += x */
void linnet_add(const linnet_workspace *work, const float *x, size_t n, float *y);

#endif
