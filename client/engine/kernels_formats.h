/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_KERNELS_FORMATS_H
#define LINNET_ENGINE_KERNELS_FORMATS_H

/* Inner header of the kernels: the table of formats, the same for every variant, over the functions of the
 * file that includes this. */

/* clang-format off */
#define FORMATS \
    [LINNET_TENSOR_F32] = {decode_f32, dot_f32_row}, \
    [LINNET_TENSOR_F16] = {decode_f16, dot_f16}, \
    [LINNET_TENSOR_BF16] = {decode_bf16, dot_bf16}, \
    [LINNET_TENSOR_Q4_0] = {decode_q4_0, dot_q4_0}, \
    [LINNET_TENSOR_Q4_1] = {decode_q4_1, dot_q4_1}, \
    [LINNET_TENSOR_Q5_0] = {decode_q5_0, dot_q5_0}, \
    [LINNET_TENSOR_Q5_1] = {decode_q5_1, dot_q5_1}, \
    [LINNET_TENSOR_Q8_0] = {decode_q8_0, dot_q8_0}, \
    [LINNET_TENSOR_Q2_K] = {decode_q2_k, dot_q2_k}, \
    [LINNET_TENSOR_Q3_K] = {decode_q3_k, dot_q3_k}, \
    [LINNET_TENSOR_Q4_K] = {decode_q4_k, dot_q4_k}, \
    [LINNET_TENSOR_Q5_K] = {decode_q5_k, dot_q5_k}, \
    [LINNET_TENSOR_Q6_K] = {decode_q6_k, dot_q6_k}, \
    [LINNET_TENSOR_IQ4_NL] = {decode_iq4_nl, dot_iq4_nl}
/* clang-format on */

#endif
