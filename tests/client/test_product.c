/* SPDX-License-Identifier: Apache-2.0 */
/* The threaded products: right for every type of weight, in exactly the scratch that they ask for; and the
 * same bits for any number of threads and any number of tokens beside a token. */
#include "client/engine/kernels.h"

#include "testing.h"

#include <math.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
enum { N_POOLS = 3 }; /* of 1, 2 and 3 threads */

static const uint64_t seed = 77003;
static uint64_t random_state;

static uint64_t random_bits(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static float *floats_create(size_t n)
{
    float *floats = malloc((n + 1) * sizeof(float));
    assert_non_null(floats);
    for (size_t i = 0; i < n; i++)
        floats[i] = (float)((double)(random_bits() >> 11) * 0x1p-52 - 1.0);
    return floats;
}

typedef struct fixture {
    linnet_thread_pool *pools[N_POOLS];
    linnet_product products[N_POOLS];
} fixture;

static int fixture_create(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    random_state = seed;
    for (unsigned i = 0; i < N_POOLS; i++) {
        linnet_error err = {0};
        assert_int_equal(linnet_thread_pool_create(i + 1, &f->pools[i], &err), LINNET_OK);
        size_t stride = linnet_product_scratch(2048);
        f->products[i] = (linnet_product){i == 0 ? NULL : f->pools[i], linnet_kernels_best(),
                                          malloc((i + 1) * stride * sizeof(float)), stride};
        assert_non_null(f->products[i].scratch);
    }
    *state = f;
    return 0;
}

static int fixture_destroy(void **state)
{
    fixture *f = *state;
    for (unsigned i = 0; i < N_POOLS; i++) {
        linnet_thread_pool_destroy(f->pools[i]);
        free(f->products[i].scratch);
    }
    free(f);
    return 0;
}

static const struct weight_type {
    const char *name;
    uint32_t type;
    size_t block_elements, block_bytes;
    size_t n_halves, halves[2]; /* where they stand in a block */
} types[] = {
    {"F32", LINNET_TENSOR_F32, 1, 4, 0, {0}},        {"F16", LINNET_TENSOR_F16, 1, 2, 1, {0}},
    {"Q8_0", LINNET_TENSOR_Q8_0, 32, 34, 1, {0}},    {"Q4_0", LINNET_TENSOR_Q4_0, 32, 18, 1, {0}},
    {"Q5_1", LINNET_TENSOR_Q5_1, 32, 24, 2, {0, 2}}, {"Q4_K", LINNET_TENSOR_Q4_K, 256, 144, 2, {0, 2}},
    {"Q6_K", LINNET_TENSOR_Q6_K, 256, 210, 1, {208}}};

/* The next number of columns that is whole blocks. */
static size_t whole(size_t type, size_t columns)
{
    size_t step = types[type].block_elements;
    return (columns + step - 1) / step * step;
}

/* A random matrix of weights of about unit size, and its values; both end with their last row. */
typedef struct weights {
    linnet_matrix matrix;
    uint8_t *bytes;
    float *values;
} weights;

static weights weights_create(size_t type, size_t rows, size_t columns)
{
    weights w = {.matrix = {.type = types[type].type, .rows = rows, .columns = columns}};
    size_t block_bytes = types[type].block_bytes, n_blocks = columns / types[type].block_elements;
    w.matrix.row_bytes = n_blocks * block_bytes;
    w.bytes = malloc(rows * w.matrix.row_bytes);
    w.values = floats_create(rows * columns);
    assert_non_null(w.bytes);
    for (size_t b = 0; b < rows * n_blocks; b++) {
        uint8_t *block = w.bytes + b * block_bytes;
        for (size_t i = 0; i < block_bytes; i++)
            block[i] = (uint8_t)random_bits();
        unsigned exponent = types[type].block_elements == 1 ? 11 : 7;
        if (types[type].type == LINNET_TENSOR_F32)
            linnet_store_f32(block, w.values[b]);
        for (size_t h = 0; h < types[type].n_halves; h++)
            linnet_store_le16(block + types[type].halves[h],
                              (uint16_t)((random_bits() & 0x83ff) | (exponent + random_bits() % 4) << 10));
    }
    w.matrix.bytes = w.bytes;
    for (size_t row = 0; row < rows; row++)
        linnet_row_decode(linnet_kernels_scalar(), &w.matrix, row, w.values + row * columns);
    return w;
}

static void weights_release(weights *w)
{
    free(w->bytes);
    free(w->values);
}

/* Rounding of a float32 sum of n products in any order, and of what it is added to. */
static double sum_bound(size_t n, double magnitudes, double before)
{
    return ((double)n + 8) * 0x1p-24 * (magnitudes + fabs(before));
}

static const size_t shapes[][2] = {{1, 32},    {96, 64},   {64, 96},  {97, 288},
                                   {300, 544}, {544, 320}, {33, 1536}};
static const size_t token_counts[] = {1, 3, 4, 33}; /* up to 3 go through the dots */

static void every_type_decodes_by_rows(void **state)
{
    const fixture *f = *state;
    for (size_t type = 0; type < ARRAY_LEN(types); type++) {
        weights w = weights_create(type, 5, 256);
        for (size_t row = 0; row < 5; row++) {
            float got[256];
            linnet_row_decode(f->products[0].kernels, &w.matrix, row, got);
            assert_memory_equal(got, w.values + row * 256, sizeof(got));
        }
        weights_release(&w);
    }
}

static void check_forward(const weights *w, const char *name, const float *x, size_t n_tokens, const float *y)
{
    size_t rows = w->matrix.rows, columns = w->matrix.columns;
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t r = 0; r < rows; r++) {
            double want = 0, magnitudes = 0;
            for (size_t c = 0; c < columns; c++) {
                double term = (double)w->values[r * columns + c] * x[t * columns + c];
                want += term;
                magnitudes += fabs(term);
            }
            if (!(fabs(y[t * rows + r] - want) <= sum_bound(columns, magnitudes, 0)))
                fail_msg("%s %zu x %zu, token %zu of %zu, row %zu: got %.9g, want %.9g", name, rows, columns,
                         t, n_tokens, r, (double)y[t * rows + r], want);
        }
    }
}

static void forward_is_within_rounding_for_every_type(void **state)
{
    fixture *f = *state;
    for (size_t type = 0; type < ARRAY_LEN(types); type++) {
        for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
            weights w = weights_create(type, shapes[s][0], whole(type, shapes[s][1]));
            for (size_t i = 0; i < ARRAY_LEN(token_counts); i++) {
                size_t n_tokens = token_counts[i];
                float *x = floats_create(n_tokens * w.matrix.columns),
                      *y = floats_create(n_tokens * w.matrix.rows);
                linnet_product_forward(&f->products[1], &w.matrix, x, n_tokens, y);
                check_forward(&w, types[type].name, x, n_tokens, y);
                free(x);
                free(y);
            }
            weights_release(&w);
        }
    }
}

static void backward_adds_within_rounding_for_every_type(void **state)
{
    fixture *f = *state;
    for (size_t type = 0; type < ARRAY_LEN(types); type++) {
        for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
            size_t rows = shapes[s][0], columns = whole(type, shapes[s][1]),
                   n_tokens = token_counts[(type + s) % 4];
            weights w = weights_create(type, rows, columns);
            float *d_y = floats_create(n_tokens * rows), *d_x = floats_create(n_tokens * columns);
            float *before = malloc(n_tokens * columns * sizeof(float));
            assert_non_null(before);
            memcpy(before, d_x, n_tokens * columns * sizeof(float));
            linnet_product_backward(&f->products[1], &w.matrix, d_y, n_tokens, d_x);
            for (size_t i = 0; i < n_tokens * columns; i++) {
                size_t t = i / columns, c = i % columns;
                double want = before[i], magnitudes = 0;
                for (size_t r = 0; r < rows; r++) {
                    double term = (double)d_y[t * rows + r] * w.values[r * columns + c];
                    want += term;
                    magnitudes += fabs(term);
                }
                if (!(fabs(d_x[i] - want) <= sum_bound(rows, magnitudes, before[i])))
                    fail_msg("%s %zu x %zu, token %zu of %zu, column %zu: got %.9g, want %.9g",
                             types[type].name, rows, columns, t, n_tokens, c, (double)d_x[i], want);
            }
            free(d_y);
            free(d_x);
            free(before);
            weights_release(&w);
        }
    }
}

static void threads_do_not_change_a_bit_of_forward_and_backward(void **state)
{
    fixture *f = *state;
    enum {
        ROWS = 1500,
        COLUMNS = 768,
        TOKENS = 9
    }; /* enough work that the pool is used, and uneven shares */
    for (size_t type = 0; type < ARRAY_LEN(types); type++) {
        weights w = weights_create(type, ROWS, COLUMNS);
        float *x = floats_create(TOKENS * COLUMNS), *d_y = floats_create(TOKENS * ROWS);
        for (size_t n_tokens = 1; n_tokens <= TOKENS; n_tokens += TOKENS - 1) {
            float *y[N_POOLS], *d_x[N_POOLS];
            for (int i = 0; i < N_POOLS; i++) {
                y[i] = floats_create(n_tokens * ROWS);
                d_x[i] = calloc(n_tokens * COLUMNS, sizeof(float));
                assert_non_null(d_x[i]);
                linnet_product_forward(&f->products[i], &w.matrix, x, n_tokens, y[i]);
                linnet_product_backward(&f->products[i], &w.matrix, d_y, n_tokens, d_x[i]);
                assert_memory_equal(y[i], y[0], n_tokens * ROWS * sizeof(float));
                assert_memory_equal(d_x[i], d_x[0], n_tokens * COLUMNS * sizeof(float));
            }
            for (int i = 0; i < N_POOLS; i++) {
                free(y[i]);
                free(d_x[i]);
            }
        }
        free(x);
        free(d_y);
        weights_release(&w);
    }
}

static void threads_do_not_change_a_bit_of_gemm(void **state)
{
    fixture *f = *state;
    static const size_t sizes[][3] = {{530, 8, 300}, {8, 530, 300}, {90, 200, 70}, {3, 5, 7}};
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        size_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
        float *a = floats_create(m * k), *b = floats_create(n * k), *start = floats_create(m * n);
        for (int kind = LINNET_GEMM_NT; kind <= LINNET_GEMM_TN; kind++) {
            size_t lda = kind == LINNET_GEMM_TN ? m : k, ldb = kind == LINNET_GEMM_NT ? k : n;
            float *c[N_POOLS];
            for (int i = 0; i < N_POOLS; i++) {
                c[i] = malloc(m * n * sizeof(float));
                assert_non_null(c[i]);
                memcpy(c[i], start, m * n * sizeof(float));
                linnet_product_gemm(&f->products[i], (linnet_gemm_kind)kind, m, n, k, 0.5f, a, lda, b, ldb,
                                    c[i], n, true);
                assert_memory_equal(c[i], c[0], m * n * sizeof(float));
            }
            for (size_t j = 0; j < m * n; j += 11) {
                double want = 0, magnitudes = 0;
                for (size_t p = 0; p < k; p++) {
                    double term = 0.5 * (kind == LINNET_GEMM_TN ? a[p * m + j / n] : a[j / n * k + p]) *
                                  (kind == LINNET_GEMM_NT ? b[j % n * k + p] : b[p * n + j % n]);
                    want += term;
                    magnitudes += fabs(term);
                }
                assert_true(fabs(c[0][j] - (start[j] + want)) <= sum_bound(k, magnitudes, start[j]));
            }
            for (int i = 0; i < N_POOLS; i++)
                free(c[i]);
        }
        free(a);
        free(b);
        free(start);
    }
}

static void tokens_beside_a_token_do_not_change_it(void **state)
{
    fixture *f = *state;
    enum { ROWS = 150, COLUMNS = 352, TOKENS = 40 };
    weights w = weights_create(2, ROWS, COLUMNS);
    float *x = floats_create(TOKENS * COLUMNS), *d_y = floats_create(TOKENS * ROWS);
    float *y = floats_create(TOKENS * ROWS), *part = floats_create(TOKENS * ROWS);
    float *d_x = calloc(TOKENS * COLUMNS, sizeof(float)), *d_part = calloc(TOKENS * COLUMNS, sizeof(float));
    assert_true(d_x && d_part);
    linnet_product_forward(&f->products[1], &w.matrix, x, TOKENS, y);
    linnet_product_backward(&f->products[1], &w.matrix, d_y, TOKENS, d_x);
    for (size_t first = 0; first + 4 <= TOKENS; first += 5) {
        size_t n = 4 + random_bits() % (TOKENS - first - 3);
        memset(d_part, 0, TOKENS * COLUMNS * sizeof(float));
        linnet_product_forward(&f->products[0], &w.matrix, x + first * COLUMNS, n, part);
        linnet_product_backward(&f->products[0], &w.matrix, d_y + first * ROWS, n, d_part);
        assert_memory_equal(part, y + first * ROWS, n * ROWS * sizeof(float));
        assert_memory_equal(d_part, d_x + first * COLUMNS, n * COLUMNS * sizeof(float));
    }
    free(x);
    free(d_y);
    free(y);
    free(part);
    free(d_x);
    free(d_part);
    weights_release(&w);
}

static void up_to_three_tokens_have_the_bits_of_one(void **state)
{
    fixture *f = *state;
    enum { ROWS = 50, COLUMNS = 256 };
    for (size_t type = 0; type < ARRAY_LEN(types); type++) {
        weights w = weights_create(type, ROWS, COLUMNS);
        float *x = floats_create(3 * COLUMNS), y[3 * ROWS], alone[ROWS];
        linnet_product_forward(&f->products[0], &w.matrix, x, 3, y);
        for (size_t t = 0; t < 3; t++) {
            linnet_product_forward(&f->products[0], &w.matrix, x + t * COLUMNS, 1, alone);
            assert_memory_equal(alone, y + t * ROWS, sizeof(alone));
        }
        free(x);
        weights_release(&w);
    }
}

static void no_tokens_touch_nothing(void **state)
{
    fixture *f = *state;
    weights w = weights_create(0, 4, 8);
    float y[4] = {1, 2, 3, 4}, x[8] = {5, 6, 7, 8, 9, 10, 11, 12};
    linnet_product_forward(&f->products[1], &w.matrix, x, 0, y);
    linnet_product_backward(&f->products[1], &w.matrix, y, 0, x);
    assert_true(y[0] == 1 && y[3] == 4 && x[0] == 5 && x[7] == 12);
    weights_release(&w);
}

static void rows_may_start_at_any_byte(void **state)
{
    fixture *f = *state;
    enum { ROWS = 40, COLUMNS = 256, TOKENS = 5 };
    for (size_t type = 0; type < ARRAY_LEN(types); type++) {
        weights w = weights_create(type, ROWS, COLUMNS);
        size_t n_bytes = ROWS * w.matrix.row_bytes;
        uint8_t *moved = malloc(n_bytes + 1);
        float *x = floats_create(TOKENS * COLUMNS), y[TOKENS * ROWS], y_moved[TOKENS * ROWS];
        assert_non_null(moved);
        memcpy(moved + 1, w.bytes, n_bytes);
        for (size_t n_tokens = 1; n_tokens <= TOKENS; n_tokens += TOKENS - 1) {
            w.matrix.bytes = w.bytes;
            linnet_product_forward(&f->products[0], &w.matrix, x, n_tokens, y);
            w.matrix.bytes = moved + 1;
            linnet_product_forward(&f->products[0], &w.matrix, x, n_tokens, y_moved);
            assert_memory_equal(y, y_moved, n_tokens * ROWS * sizeof(float));
        }
        free(moved);
        free(x);
        weights_release(&w);
    }
}

int main(void)
{
    print_message("seed %llu; kernels: %s\n", (unsigned long long)seed, linnet_kernels_best()->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_type_decodes_by_rows, fixture_create, fixture_destroy),
        cmocka_unit_test_setup_teardown(forward_is_within_rounding_for_every_type, fixture_create,
                                        fixture_destroy),
        cmocka_unit_test_setup_teardown(backward_adds_within_rounding_for_every_type, fixture_create,
                                        fixture_destroy),
        cmocka_unit_test_setup_teardown(threads_do_not_change_a_bit_of_forward_and_backward, fixture_create,
                                        fixture_destroy),
        cmocka_unit_test_setup_teardown(threads_do_not_change_a_bit_of_gemm, fixture_create, fixture_destroy),
        cmocka_unit_test_setup_teardown(tokens_beside_a_token_do_not_change_it, fixture_create,
                                        fixture_destroy),
        cmocka_unit_test_setup_teardown(up_to_three_tokens_have_the_bits_of_one, fixture_create,
                                        fixture_destroy),
        cmocka_unit_test_setup_teardown(no_tokens_touch_nothing, fixture_create, fixture_destroy),
        cmocka_unit_test_setup_teardown(rows_may_start_at_any_byte, fixture_create, fixture_destroy),
    };
    return cmocka_run_group_tests_name("product", tests, NULL, NULL);
}
