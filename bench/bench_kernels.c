/* SPDX-License-Identifier: Apache-2.0 */
/* How fast the kernels are on this machine: products in GFLOP/s, dot products in GB/s of weights read, exp in
 * Gvalues/s, for every variant, on one thread; then the threaded products with quantised weights. Beside them
 * OpenBLAS, where CMake found it. Each figure is the best of several runs of at least TIME_MIN seconds
 * together: the machine may be shared. */
#include "client/engine/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define TIME_MIN 0.1

#if defined(LINNET_OPENBLAS)
/* From its documentation; Debian's runtime package has no header. */
void cblas_sgemm(int order, int turn_a, int turn_b, int m, int n, int k, float alpha, const float *a, int lda,
                 const float *b, int ldb, float beta, float *c, int ldc);
void openblas_set_num_threads(int n_threads);
#endif

static double seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static float *floats_create(size_t n)
{
    float *floats = malloc(n * sizeof(float));
    if (!floats) {
        (void)fprintf(stderr, "bench_kernels: no memory for %zu floats\n", n);
        exit(1);
    }
    for (size_t i = 0; i < n; i++)
        floats[i] = (float)((i * 2654435761u >> 8) % 1000) * 0.001f - 0.5f;
    return floats;
}

typedef void bench_fn(void *context);

/* The shortest of the runs that fit in TIME_MIN, at least five. */
static double best_seconds(bench_fn *run, void *context)
{
    double best = 1e9, start = seconds();
    for (int i = 0; i < 5 || seconds() - start < TIME_MIN; i++) {
        double before = seconds();
        run(context);
        double took = seconds() - before;
        best = took < best ? took : best;
    }
    return best;
}

typedef struct gemm_bench {
    const linnet_kernels *kernels; /* NULL: OpenBLAS */
    linnet_gemm_kind kind;
    size_t m, n, k;
    const float *a, *b;
    float *c;
} gemm_bench;

static void run_gemm(void *context)
{
    const gemm_bench *g = context;
    size_t lda = g->kind == LINNET_GEMM_TN ? g->m : g->k, ldb = g->kind == LINNET_GEMM_NT ? g->k : g->n;
    if (g->kernels) {
        linnet_product product = {.kernels = g->kernels};
        linnet_product_gemm(&product, g->kind, g->m, g->n, g->k, 1.0f, g->a, lda, g->b, ldb, g->c, g->n,
                            false);
        return;
    }
#if defined(LINNET_OPENBLAS)
    enum { ROW_MAJOR = 101, AS_IS = 111, TURNED = 112 };
    cblas_sgemm(ROW_MAJOR, g->kind == LINNET_GEMM_TN ? TURNED : AS_IS,
                g->kind == LINNET_GEMM_NT ? TURNED : AS_IS, (int)g->m, (int)g->n, (int)g->k, 1.0f, g->a,
                (int)lda, g->b, (int)ldb, 0.0f, g->c, (int)g->n);
#endif
}

static void bench_gemm(const linnet_kernels *const *list, size_t n_list)
{
    static const size_t shapes[][3] = {
        {256, 192, 192}, {256, 512, 192}, {256, 576, 576}, {256, 1536, 576},  {256, 576, 1536},
        {256, 64, 64},   {256, 172, 64},  {16, 576, 576},  {4, 576, 576},     {256, 8, 576},
        {256, 576, 8},   {8, 576, 256},   {576, 8, 256},   {512, 1024, 1024},
    };
    static const char *const kinds[] = {"nt", "nn", "tn"};
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        for (int kind = 0; kind < 3; kind++) {
            gemm_bench g = {
                .kind = (linnet_gemm_kind)kind, .m = shapes[s][0], .n = shapes[s][1], .k = shapes[s][2]};
            float *a = floats_create(g.m * g.k), *b = floats_create(g.n * g.k);
            g.a = a;
            g.b = b;
            g.c = floats_create(g.m * g.n);
            (void)printf("%s %4zu x %4zu x %4zu ", kinds[kind], g.m, g.n, g.k);
            double gflop = 2e-9 * (double)g.m * (double)g.n * (double)g.k;
            for (size_t v = 0; v < n_list; v++) {
                g.kernels = list[v];
                (void)printf(" %8.1f", gflop / best_seconds(run_gemm, &g));
            }
#if defined(LINNET_OPENBLAS)
            g.kernels = NULL;
            (void)printf(" %8.1f", gflop / best_seconds(run_gemm, &g));
#endif
            (void)printf("\n");
            free(a);
            free(b);
            free(g.c);
        }
    }
}

typedef struct rows_bench {
    linnet_product product;
    linnet_matrix w;
    const float *x;
    float *y;
    size_t n_tokens;
} rows_bench;

static void run_forward(void *context)
{
    const rows_bench *r = context;
    linnet_product_forward(&r->product, &r->w, r->x, r->n_tokens, r->y);
}

static void run_backward(void *context)
{
    const rows_bench *r = context;
    linnet_product_backward(&r->product, &r->w, r->y, r->n_tokens, (float *)(size_t)r->x);
}

static void run_exp(void *context)
{
    const rows_bench *r = context;
    for (size_t i = 0; i < r->w.columns; i++)
        r->y[i] = r->x[i] * 20;
    r->product.kernels->exp_in_place(r->y, r->w.columns);
}

/* Matrices of weights in the file's types: one token in GB/s of the file, many in GFLOP/s. */
static void bench_rows(const linnet_kernels *const *list, size_t n_list, linnet_thread_pool *pool)
{
    static const uint32_t types[] = {LINNET_TENSOR_F32,  LINNET_TENSOR_F16,  LINNET_TENSOR_BF16,
                                     LINNET_TENSOR_Q8_0, LINNET_TENSOR_Q4_0, LINNET_TENSOR_Q5_0,
                                     LINNET_TENSOR_Q2_K, LINNET_TENSOR_Q3_K, LINNET_TENSOR_Q4_K,
                                     LINNET_TENSOR_Q5_K, LINNET_TENSOR_Q6_K, LINNET_TENSOR_IQ4_NL};
    enum {
        ROWS = 49152,
        COLUMNS = 768,
        TOKENS = 256
    }; /* one token: an output head; many: its first 1536 rows */
    float *x = floats_create((size_t)TOKENS * COLUMNS), *y = floats_create((size_t)TOKENS * 1536 + ROWS);
    uint8_t *bytes = calloc(ROWS, (size_t)COLUMNS * 4);
    size_t stride = linnet_product_scratch(COLUMNS);
    float *scratch = floats_create(stride * linnet_thread_pool_size(pool));
    for (size_t t = 0; bytes && t < ARRAY_LEN(types); t++) {
        size_t elements = 1, n_bytes = 0;
        const char *name = linnet_tensor_type_name(types[t]);
        if (!linnet_tensor_type_info(types[t], &elements, &n_bytes))
            continue;
        size_t row_bytes = COLUMNS / elements * n_bytes;
        rows_bench r = {.w = {types[t], ROWS, COLUMNS, row_bytes, bytes}, .x = x, .y = y, .n_tokens = 1};
        r.product = (linnet_product){.pool = pool, .scratch = scratch, .scratch_stride = stride};
        (void)printf("one token, %-6s GB/s ", name);
        for (size_t v = 0; v < n_list; v++) {
            r.product.kernels = list[v];
            (void)printf(" %8.1f", 1e-9 * (double)ROWS * (double)row_bytes / best_seconds(run_forward, &r));
        }
        r.n_tokens = TOKENS;
        r.w.rows = 1536;
        for (int backward = 0; backward < 2; backward++) {
            (void)printf("\n%s, %-6s GFLOP/s", backward ? "backward " : "256 tokens", name);
            for (size_t v = 0; v < n_list; v++) {
                r.product.kernels = list[v];
                double took = best_seconds(backward ? run_backward : run_forward, &r);
                (void)printf(" %8.1f", 2e-9 * TOKENS * 1536 * COLUMNS / took);
            }
        }
        (void)printf("\n");
    }
    (void)printf("exp, Gvalues/s         ");
    for (size_t v = 0; v < n_list; v++) {
        rows_bench r = {.product = {.kernels = list[v]}, .w = {.columns = 65536}, .x = x, .y = y};
        (void)printf(" %8.2f", 65536e-9 / best_seconds(run_exp, &r));
    }
    (void)printf("\n");
    free(x);
    free(y);
    free(bytes);
    free(scratch);
}

int main(void)
{
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    (void)printf("GFLOP/s, one thread    ");
    for (size_t v = 0; v < n_list; v++)
        (void)printf(" %8s", list[v]->name);
#if defined(LINNET_OPENBLAS)
    openblas_set_num_threads(1);
    (void)printf(" openblas");
#endif
    (void)printf("\n");
    bench_gemm(list, n_list);
    for (unsigned n_threads = 1; n_threads <= 2; n_threads++) {
        linnet_thread_pool *pool = NULL;
        linnet_error err = {0};
        if (linnet_thread_pool_create(n_threads, &pool, &err) != LINNET_OK) {
            (void)fprintf(stderr, "bench_kernels: no threads\n");
            return 1;
        }
        (void)printf("%u thread%s, rows of 576\n", n_threads, n_threads > 1 ? "s" : "");
        bench_rows(list, n_list, pool);
        linnet_thread_pool_destroy(pool);
    }
    return 0;
}
