/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_KERNELS_H
#define LINNET_ENGINE_KERNELS_H

/* Inner header of the engine: the arithmetic. Each operation has one readable scalar version that defines it;
 * SIMD variants sit in a file per instruction set and are chosen once, at run time. For a given variant the
 * result of every output element depends on its inputs only: not on threads, tiles or the number of tokens
 * beside it. Activations stay float32; quantised weights are decoded exactly (GGUF) and never rounded
 * activations against. */

#include "linnet/gguf.h"
#include "linnet/thread_pool.h"

/** A weight matrix in the file: rows of `columns` elements, row-major, of a GGUF type. Borrowed. */
typedef struct linnet_matrix {
    uint32_t type;
    size_t rows, columns, row_bytes;
    const uint8_t *bytes;
} linnet_matrix;

/** A type of weights. */
typedef struct linnet_format {
    /** dst[n] = the exact values of n elements of a row; n is a multiple of the type's block. */
    void (*decode)(const uint8_t *src, float *dst, size_t n);
    /** sum of row[i] x[i], the row in the file's type: for one token at a time. */
    float (*dot)(const uint8_t *row, const float *x, size_t n);
} linnet_format;
enum { LINNET_FORMATS = LINNET_TENSOR_BF16 + 1 };

/** One instruction set's inner loops; x, y are float32, any alignment, n >= 0. */
typedef struct linnet_kernels {
    const char *name; /* "scalar", "avx2", "avx512", "neon" */
    /** By GGUF's type number; NULL for a type that linnet does not run, the same in every variant. */
    linnet_format formats[LINNET_FORMATS];
    float (*dot_f32)(const float *a, const float *x, size_t n);
    /** y[i] += a x[i] */
    void (*axpy)(float a, const float *x, float *y, size_t n);
    /** Blocked products of float32 tiles, the work horse:
     *  C[m][n] (row stride ldc) = (accumulate ? C : 0) + alpha * A[m][k] (stride lda) * op(B), where
     *  nt: op(B)[k][n] = B[n][k] (stride ldb): rows of B are dotted with rows of A;
     *  nn: op(B) = B[k][n] (stride ldb);
     *  tn: A is given as A[k][m] (stride lda), op(B) = B[k][n]. */
    void (*gemm_nt)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                    size_t ldb, float *c, size_t ldc, bool accumulate);
    void (*gemm_nn)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                    size_t ldb, float *c, size_t ldc, bool accumulate);
    void (*gemm_tn)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                    size_t ldb, float *c, size_t ldc, bool accumulate);
    /** exp(x[i]) in place of x, to 2 ulp over the float range (0 below -104; on ARMv7's NEON, which has no
     * subnormal numbers, 0 below -87.3): for softmax and silu. */
    void (*exp_in_place)(float *x, size_t n);
    /** The largest of n >= 1 values; any of them where one is NaN. */
    float (*max)(const float *x, size_t n);
    /** Softmax but for its division: x[i] = max(exp(x[i] - top) - 1e-25, 0) in place, and their sum, where no
     * x[i] is above top. What is cut off is nothing beside a term of 1, and would be subnormal numbers, which
     * many CPUs multiply a hundred times more slowly. */
    float (*exp_sum)(float *x, size_t n, float top);
} linnet_kernels;

/** The variants as this build has them; NULL where it does not. That the CPU can run one is not said: see
 * below. */
const linnet_kernels *linnet_kernels_scalar(void); /* never NULL, runs everywhere */
const linnet_kernels *linnet_kernels_avx2(void);
const linnet_kernels *linnet_kernels_avx512(void);
const linnet_kernels *linnet_kernels_neon(void);
/** The best variant this CPU has; LINNET_KERNELS=scalar|avx2|avx512|neon in the environment asks for another
 * (unknown or absent: best). */
const linnet_kernels *linnet_kernels_best(void);
/** Every variant that this CPU can run, scalar first; for tests. Returns how many (at most 8). */
size_t linnet_kernels_available(const linnet_kernels *ret_list[8]);

/* ---- threaded products with weights in the file's type ---- */

/** What a threaded product needs: the pool (NULL: caller only), the kernels, and scratch for decoded tiles
 *  (linnet_product_scratch floats per thread). */
typedef struct linnet_product {
    linnet_thread_pool *pool;
    const linnet_kernels *kernels;
    float *scratch; /* owned by whoever made it: n_threads x scratch_stride floats */
    size_t scratch_stride;
} linnet_product;
/** Floats of the largest tile that a product makes in a thread's scratch. */
enum { LINNET_TILE_FLOATS = 96 * 128 };
/** The pool, or NULL where a b c multiply-adds (which may be beyond SIZE_MAX) are too few for it. */
linnet_thread_pool *linnet_product_pool(const linnet_product *product, size_t a, size_t b, size_t c);
/** Floats of scratch a thread needs for matrices of up to these columns. */
size_t linnet_product_scratch(size_t columns_max);

/** y[t][rows] (stride rows) = x[t][columns] (stride columns) W^T for n_tokens tokens. Up to three tokens go
 *  through the dot kernels, more through decoded tiles and gemm_nt: a token's bits may differ between the two
 * (within rounding), and depend on nothing else. y is overwritten. columns >= 1. */
void linnet_product_forward(const linnet_product *product, const linnet_matrix *w, const float *x,
                            size_t n_tokens, float *y);
/** d_x[t][columns] += d_y[t][rows] W. Parallel over columns or tokens, so that sums have one order. */
void linnet_product_backward(const linnet_product *product, const linnet_matrix *w, const float *d_y,
                             size_t n_tokens, float *d_x);
/** The same threading for float32 factors (LoRA): c = (accumulate ? c : 0) + alpha a b^T etc.; split over m.
 */
typedef enum linnet_gemm_kind { LINNET_GEMM_NT, LINNET_GEMM_NN, LINNET_GEMM_TN } linnet_gemm_kind;
void linnet_product_gemm(const linnet_product *product, linnet_gemm_kind kind, size_t m, size_t n, size_t k,
                         float alpha, const float *a, size_t lda, const float *b, size_t ldb, float *c,
                         size_t ldc, bool accumulate);
/** Does the engine compute with matrices of this type? */
bool linnet_type_runs(uint32_t type);
/** Decode one row of any type that runs. */
void linnet_row_decode(const linnet_kernels *kernels, const linnet_matrix *w, size_t row, float *dst);

#endif
