/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of every kernel, in plain C, written to be read. A sum is a chain of float32 additions in
 * index order. The SIMD variants decode to the same bits; their sums run in another order and with fused
 * multiply-adds, and the tests hold them to this file within a bound that grows with the length of the sum.
 * Formats: GGUF's F16, BF16, Q8_0 and Q4_0; kernels_blocks.h has the others. */
#include "kernels.h"

#include <math.h>

enum { BLOCK = 32, Q8_0_BYTES = 2 + 32, Q4_0_BYTES = 2 + 16 };

static float half_at(const uint8_t *src)
{
    uint32_t half = linnet_load_le16(src);
    uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, mantissa = half & 0x3ffu;
    uint32_t bits;
    if (exponent == 0) {
        float magnitude = (float)mantissa * 0x1p-24f; /* zero and subnormals, exact */
        return sign ? -magnitude : magnitude;
    }
    if (exponent == 31) /* infinity, or a NaN: made quiet, as the conversion instructions do */
        bits = sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u);
    else
        bits = sign | (exponent + 112u) << 23 | mantissa << 13;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

#include "kernels_blocks.h"

static void decode_f32(const uint8_t *src, float *dst, size_t n)
{
    memcpy(dst, src, n * sizeof(float));
}

static void decode_f16(const uint8_t *src, float *dst, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = half_at(src + 2 * i);
}

/* The upper half of a float32. */
static float bf16_at(const uint8_t *src)
{
    uint32_t bits = (uint32_t)linnet_load_le16(src) << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void decode_bf16(const uint8_t *src, float *dst, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = bf16_at(src + 2 * i);
}

static void decode_q8_0(const uint8_t *src, float *dst, size_t n)
{
    for (; n >= BLOCK; n -= BLOCK, src += Q8_0_BYTES, dst += BLOCK) {
        float d = half_at(src);
        for (size_t i = 0; i < BLOCK; i++)
            dst[i] = d * (float)(int8_t)src[2 + i];
    }
}

static void decode_q4_0(const uint8_t *src, float *dst, size_t n)
{
    for (; n >= BLOCK; n -= BLOCK, src += Q4_0_BYTES, dst += BLOCK) {
        float d = half_at(src);
        for (size_t i = 0; i < BLOCK / 2; i++) {
            dst[i] = d * (float)((src[2 + i] & 15) - 8);
            dst[i + BLOCK / 2] = d * (float)((src[2 + i] >> 4) - 8);
        }
    }
}

static float dot_f32(const float *a, const float *x, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += linnet_load_f32(a + i) * x[i]; /* a may be a row of the file, at any byte */
    return sum;
}

static float dot_f32_row(const uint8_t *row, const float *x, size_t n)
{
    return dot_f32((const float *)(const void *)row, x, n);
}

static float dot_f16(const uint8_t *row, const float *x, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += half_at(row + 2 * i) * x[i];
    return sum;
}

static float dot_bf16(const uint8_t *row, const float *x, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += bf16_at(row + 2 * i) * x[i];
    return sum;
}

static float dot_q8_0(const uint8_t *row, const float *x, size_t n)
{
    float sum = 0, values[BLOCK];
    for (; n >= BLOCK; n -= BLOCK, row += Q8_0_BYTES, x += BLOCK) {
        decode_q8_0(row, values, BLOCK);
        for (size_t i = 0; i < BLOCK; i++)
            sum += values[i] * x[i];
    }
    return sum;
}

static float dot_q4_0(const uint8_t *row, const float *x, size_t n)
{
    float sum = 0, values[BLOCK];
    for (; n >= BLOCK; n -= BLOCK, row += Q4_0_BYTES, x += BLOCK) {
        decode_q4_0(row, values, BLOCK);
        for (size_t i = 0; i < BLOCK; i++)
            sum += values[i] * x[i];
    }
    return sum;
}

/* ---- the types of kernels_blocks.h ---- */

static float value_of(const quant_block *b, size_t i)
{
    return b->scales[i / BLOCK_GROUP] * (float)b->quants[i] - b->offsets[i / BLOCK_GROUP];
}

#define BLOCK_FORMAT(name, elements, bytes)                                                                  \
    static void decode_##name(const uint8_t *src, float *dst, size_t n)                                      \
    {                                                                                                        \
        quant_block b;                                                                                       \
        for (; n >= (elements); n -= (elements), src += (bytes), dst += (elements)) {                        \
            unpack_##name(src, &b);                                                                          \
            for (size_t i = 0; i < (elements); i++)                                                          \
                dst[i] = value_of(&b, i);                                                                    \
        }                                                                                                    \
    }                                                                                                        \
    static float dot_##name(const uint8_t *row, const float *x, size_t n)                                    \
    {                                                                                                        \
        float sum = 0;                                                                                       \
        quant_block b;                                                                                       \
        for (; n >= (elements); n -= (elements), row += (bytes), x += (elements)) {                          \
            unpack_##name(row, &b);                                                                          \
            for (size_t i = 0; i < (elements); i++)                                                          \
                sum += value_of(&b, i) * x[i];                                                               \
        }                                                                                                    \
        return sum;                                                                                          \
    }
LINNET_BLOCK_FORMATS(BLOCK_FORMAT)

static void axpy(float a, const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

/* One product for all three: A[i][p] is a[i * a_row + p * a_column], likewise B[p][j]. Sixteen outputs at a
 * time, so that a compiler can vectorise; each of them is still one chain over p. */
static void gemm(size_t m, size_t n, size_t k, float alpha, const float *a, size_t a_row, size_t a_column,
                 const float *b, size_t b_row, size_t b_column, float *c, size_t ldc, bool accumulate)
{
    enum { WIDTH = 16 };
    for (size_t i = 0; i < m; i++) {
        for (size_t j0 = 0; j0 < n; j0 += WIDTH) {
            size_t width = n - j0 < WIDTH ? n - j0 : WIDTH;
            float sums[WIDTH] = {0};
            for (size_t p = 0; p < k; p++) {
                float value = a[i * a_row + p * a_column];
                for (size_t j = 0; j < width; j++)
                    sums[j] += value * b[p * b_row + (j0 + j) * b_column];
            }
            float *out = c + i * ldc + j0;
            for (size_t j = 0; j < width; j++)
                out[j] = accumulate ? out[j] + alpha * sums[j] : alpha * sums[j];
        }
    }
}

static void gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                    size_t ldb, float *c, size_t ldc, bool accumulate)
{
    gemm(m, n, k, alpha, a, lda, 1, b, 1, ldb, c, ldc, accumulate);
}

static void gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                    size_t ldb, float *c, size_t ldc, bool accumulate)
{
    gemm(m, n, k, alpha, a, lda, 1, b, ldb, 1, c, ldc, accumulate);
}

static void gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                    size_t ldb, float *c, size_t ldc, bool accumulate)
{
    gemm(m, n, k, alpha, a, 1, lda, b, ldb, 1, c, ldc, accumulate);
}

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2. ln 2 is cut in two so that n times its first
 * part is exact (Cody and Waite 1980); exp(r) is its Taylor series to r^7, whose rest is below 0.05 ulp. */
static float exp_of(float x)
{
    if (isnan(x))
        return x;
    x = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x; /* beyond, the result is 0 or infinite */
    float n = rintf(x * 0x1.715476p0f);
    float r = x - n * 0x1.63p-1f;
    r -= n * -0x1.bd0106p-13f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return ldexpf(p, (int)n);
}

static void exp_in_place(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = exp_of(x[i]);
}

static float max(const float *x, size_t n)
{
    float top = x[0];
    for (size_t i = 1; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

static float exp_sum(float *x, size_t n, float top)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++) {
        float below = x[i] - top;
        float value = exp_of(below < -80.0f ? -80.0f : below) - 1e-25f;
        x[i] = value < 0 ? 0 : value; /* NaN stays */
        sum += x[i];
    }
    return sum;
}

#include "kernels_formats.h"

const linnet_kernels *linnet_kernels_scalar(void)
{
    static const linnet_kernels kernels = {
        .name = "scalar",
        .formats = {FORMATS},
        .dot_f32 = dot_f32,
        .axpy = axpy,
        .gemm_nt = gemm_nt,
        .gemm_nn = gemm_nn,
        .gemm_tn = gemm_tn,
        .exp_in_place = exp_in_place,
        .max = max,
        .exp_sum = exp_sum,
    };
    return &kernels;
}
