/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel variant that this machine can run against the definition: decoding to the bit, sums within the
 * bound that rounding allows, exp in units of the last place; and that a result depends on its inputs only,
 * wherever it stands. */
#include "client/engine/kernels.h"

#include "crypto/vectors.h"

#include <math.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static const uint64_t seed = 20240607;
static uint64_t random_state;

static uint64_t random_bits(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static float random_float(void) /* in [-1, 1) */
{
    return (float)((double)(random_bits() >> 11) * 0x1p-52 - 1.0);
}

static void random_floats(float *dst, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = random_float();
}

static int start_from_the_seed(void **state)
{
    (void)state;
    random_state = seed;
    return 0;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Room before and behind an array, filled so that a stray write shows. */
enum { GUARD = 16, N_MAX = 2048 };
static const uint32_t guard_bits = 0x7fa5a5a5u; /* a NaN that no kernel makes */

static void fill_guarded(float *array, size_t n)
{
    for (size_t i = 0; i < n; i++)
        array[i] = float_of(guard_bits);
}

static void check_untouched(const char *name, const float *array, size_t first, size_t last)
{
    for (size_t i = first; i < last; i++)
        if (bits_of(array[i]) != guard_bits)
            fail_msg("%s wrote element %zu, outside [0, %zu)", name, i, first);
}

/* ---- decoding ---- */

static double half_value(unsigned half) /* IEEE 754-2019, table 3.5; not for infinities and NaN */
{
    int exponent = (int)(half >> 10 & 31), mantissa = (int)(half & 1023);
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return half & 0x8000u ? -magnitude : magnitude;
}

static void the_definition_reads_every_half(void **state)
{
    (void)state;
    for (unsigned half = 0; half < 65536; half++) {
        uint8_t bytes[2];
        float got;
        linnet_store_le16(bytes, (uint16_t)half);
        linnet_kernels_scalar()->formats[LINNET_TENSOR_F16].decode(bytes, &got, 1);
        bool special = (half >> 10 & 31) == 31, negative = (half & 0x8000u) != 0;
        if (special && (half & 1023))
            assert_int_equal(bits_of(got), (negative ? 0xffc00000u : 0x7fc00000u) | (half & 1023) << 13);
        else if (special)
            assert_true(isinf(got) && (got < 0) == negative);
        else if ((double)got != half_value(half) || (signbit(got) != 0) != negative)
            fail_msg("half %04x: got %a", half, (double)got);
    }
}

static void every_variant_reads_every_half_to_the_bit(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    uint8_t *bytes = malloc(2 * 65536 + 1);
    float *want = malloc(65536 * sizeof(float)), *got = malloc(65536 * sizeof(float));
    assert_true(bytes && want && got);
    for (unsigned half = 0; half < 65536; half++)
        linnet_store_le16(bytes + 1 + 2 * half, (uint16_t)half); /* at odd addresses */
    list[0]->formats[LINNET_TENSOR_F16].decode(bytes + 1, want, 65536);
    for (size_t v = 1; v < n_list; v++) {
        list[v]->formats[LINNET_TENSOR_F16].decode(bytes + 1, got, 65536);
        for (unsigned half = 0; half < 65536; half++)
            if (bits_of(got[half]) != bits_of(want[half]))
                fail_msg("%s: half %04x is %08x, want %08x", list[v]->name, half, bits_of(got[half]),
                         bits_of(want[half]));
    }
    free(bytes);
    free(want);
    free(got);
}

static void halves_of_any_number_are_decoded_and_no_more(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t v = 0; v < n_list; v++) {
        for (size_t n = 0; n <= 70; n++) {
            uint8_t *bytes = malloc(2 * n + 1); /* exactly as long as read: sanitizers see more */
            float got[70 + GUARD], want[70];
            assert_non_null(bytes);
            for (size_t i = 0; i < 2 * n; i++)
                bytes[i] = (uint8_t)random_bits();
            fill_guarded(got, ARRAY_LEN(got));
            list[0]->formats[LINNET_TENSOR_F16].decode(bytes, want, n);
            list[v]->formats[LINNET_TENSOR_F16].decode(bytes, got, n);
            assert_memory_equal(got, want, n * sizeof(float));
            check_untouched(list[v]->name, got, n, ARRAY_LEN(got));
            free(bytes);
        }
    }
}

typedef void decode_fn(const uint8_t *src, float *dst, size_t n);
typedef float dot_fn(const uint8_t *row, const float *x, size_t n);

/* The types of weights: how long a block is, and where halves stand in it. */
typedef struct weight_type {
    const char *name;
    uint32_t type;
    size_t block_elements, block_bytes;
    size_t n_halves, halves[2];
} weight_type;
static const weight_type types[] = {
    {"F16", LINNET_TENSOR_F16, 1, 2, 1, {0}},           {"BF16", LINNET_TENSOR_BF16, 1, 2, 0, {0}},
    {"Q8_0", LINNET_TENSOR_Q8_0, 32, 34, 1, {0}},       {"Q4_0", LINNET_TENSOR_Q4_0, 32, 18, 1, {0}},
    {"Q4_1", LINNET_TENSOR_Q4_1, 32, 20, 2, {0, 2}},    {"Q5_0", LINNET_TENSOR_Q5_0, 32, 22, 1, {0}},
    {"Q5_1", LINNET_TENSOR_Q5_1, 32, 24, 2, {0, 2}},    {"IQ4_NL", LINNET_TENSOR_IQ4_NL, 32, 18, 1, {0}},
    {"Q2_K", LINNET_TENSOR_Q2_K, 256, 84, 2, {80, 82}}, {"Q3_K", LINNET_TENSOR_Q3_K, 256, 110, 1, {108}},
    {"Q4_K", LINNET_TENSOR_Q4_K, 256, 144, 2, {0, 2}},  {"Q5_K", LINNET_TENSOR_Q5_K, 256, 176, 2, {0, 2}},
    {"Q6_K", LINNET_TENSOR_Q6_K, 256, 210, 1, {208}},
};

static decode_fn *decode_of(const linnet_kernels *kernels, size_t type)
{
    return kernels->formats[types[type].type].decode;
}

static dot_fn *dot_of(const linnet_kernels *kernels, size_t type)
{
    return kernels->formats[types[type].type].dot;
}

/* Random weights of about unit size; n is whole blocks. */
static void random_row(size_t type, uint8_t *row, size_t n)
{
    size_t n_blocks = n / types[type].block_elements;
    for (size_t b = 0; b < n_blocks; b++) {
        uint8_t *block = row + b * types[type].block_bytes;
        for (size_t i = 0; i < types[type].block_bytes; i++)
            block[i] = (uint8_t)random_bits();
        if (types[type].type == LINNET_TENSOR_BF16) /* 2^-3 to 1 */
            block[1] = (uint8_t)((block[1] & 0x80) | 0x3e | (block[1] & 1));
        for (size_t h = 0; h < types[type].n_halves; h++) {
            unsigned sign = (unsigned)random_bits() & 0x8000u, mantissa = (unsigned)random_bits() & 1023;
            unsigned exponent =
                type == 0 ? 10 + (unsigned)(random_bits() % 6) : 6 + (unsigned)(random_bits() % 4);
            linnet_store_le16(block + types[type].halves[h], (uint16_t)(sign | exponent << 10 | mantissa));
        }
    }
}

static void known_blocks_decode_as_the_format_says(void **state)
{
    (void)state;
    static const uint8_t q8_0[34] = {0x00, 0x38 /* d = 0.5 */, 1, 0xff /* -1 */, 127, 0x80 /* -128 */, 0, 3};
    static const uint8_t q4_0[18] = {0x00, 0xc0 /* d = -2 */, 0x9f /* low 15: 7, high 9: 1 */,
                                     0x80 /* -8, 0 */};
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t v = 0; v < n_list; v++) {
        float got[32];
        list[v]->formats[LINNET_TENSOR_Q8_0].decode(q8_0, got, 32);
        static const float first[7] = {0.5f, -0.5f, 63.5f, -64.0f, 0.0f, 1.5f, 0.0f};
        assert_memory_equal(got, first, sizeof(first));
        list[v]->formats[LINNET_TENSOR_Q4_0].decode(q4_0, got, 32);
        assert_true(got[0] == -14.0f && got[1] == 16.0f && got[16] == -2.0f && got[17] == 0.0f);
        assert_true(got[2] == 16.0f && got[18] == 16.0f); /* byte 0: both are (0 - 8) d */
    }
}

static void quantised_blocks_decode_to_the_same_bits(void **state)
{
    (void)state;
    static const uint16_t scales[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x0400,
                                      0x3c00, 0x7bff, 0xfbff, 0x2e66, 0x7c00};
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t type = 0; type < ARRAY_LEN(types); type++) {
        size_t step = types[type].block_elements;
        for (size_t round = 0; round < 200; round++) {
            size_t n_blocks = round % 6, n = step * n_blocks, offset = round % 3;
            uint8_t *bytes = malloc(offset + n_blocks * types[type].block_bytes + 1);
            assert_non_null(bytes);
            random_row(type, bytes + offset, n);
            for (size_t h = 0; n_blocks > 0 && h < types[type].n_halves; h++)
                linnet_store_le16(bytes + offset + types[type].halves[h],
                                  scales[(round + h) % ARRAY_LEN(scales)]);
            float want[5 * 256 + GUARD];
            decode_of(list[0], type)(bytes + offset, want, n);
            for (size_t v = 1; v < n_list; v++) {
                float got[5 * 256 + GUARD];
                fill_guarded(got, ARRAY_LEN(got));
                decode_of(list[v], type)(bytes + offset, got, n);
                for (size_t i = 0; i < n; i++) /* infinity times 0 is a NaN, of any sign */
                    if (bits_of(got[i]) != bits_of(want[i]) && !(isnan(got[i]) && isnan(want[i])))
                        fail_msg("%s %s: element %zu is %a, want %a", list[v]->name, types[type].name, i,
                                 (double)got[i], (double)want[i]);
                check_untouched(list[v]->name, got, n, ARRAY_LEN(got));
            }
            free(bytes);
        }
    }
}

/* What the gguf package says that blocks of random bytes stand for (tests/reference/quants.py). */
static void blocks_decode_as_elsewhere(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list), n_checked = 0;
    json_t *root = vectors_load("quants.json");
    for (size_t type = 0; type < ARRAY_LEN(types); type++) {
        const json_t *entry = json_object_get(root, types[type].name);
        if (types[type].type == LINNET_TENSOR_F16)
            continue; /* every half is checked above */
        vector_bytes bytes = vector_hex(entry, "bytes"), values = vector_hex(entry, "values");
        size_t n = values.n_bytes / sizeof(float);
        assert_int_equal(bytes.n_bytes, n / types[type].block_elements * types[type].block_bytes);
        for (size_t v = 0; v < n_list; v++) {
            float got[N_MAX];
            decode_of(list[v], type)(bytes.bytes, got, n);
            for (size_t i = 0; i < n; i++)
                if (bits_of(got[i]) != linnet_load_le32(values.bytes + 4 * i))
                    fail_msg("%s %s: element %zu is %a, want %a", list[v]->name, types[type].name, i,
                             (double)got[i], (double)linnet_load_f32(values.bytes + 4 * i));
        }
        n_checked++;
    }
    assert_int_equal(n_checked, ARRAY_LEN(types) - 1);
    json_decref(root);
}

static void all_variants_run_the_same_types(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list), n_types = 0;
    for (uint32_t type = 0; type < LINNET_FORMATS; type++) {
        size_t elements, n_bytes;
        n_types += linnet_type_runs(type);
        assert_int_equal(linnet_type_runs(type), linnet_tensor_type_info(type, &elements, &n_bytes));
        for (size_t v = 0; v < n_list; v++) {
            assert_int_equal(list[v]->formats[type].decode != NULL, linnet_type_runs(type));
            assert_int_equal(list[v]->formats[type].dot != NULL, linnet_type_runs(type));
        }
    }
    assert_int_equal(n_types, ARRAY_LEN(types) + 1); /* and F32 */
    assert_false(linnet_type_runs(UINT32_MAX));
}

/* ---- sums ---- */

/* What rounding may do to a float32 sum of n products in any order, with or without fused multiply-adds: each
 * term meets at most n additions, its product, and for quantised rows the scale; |error| <= (n + 3) 2^-24 sum
 * |a b|, and a little for products that underflow. */
static double sum_bound(size_t n, double sum_of_magnitudes)
{
    return ((double)n + 3) * 0x1p-24 * 1.01 * sum_of_magnitudes + (double)n * 0x1p-126;
}

static void check_dot(const linnet_kernels *kernels, const char *what, const float *a, const float *x,
                      size_t n, float got)
{
    double want = 0, magnitudes = 0;
    for (size_t i = 0; i < n; i++) {
        want += (double)a[i] * x[i];
        magnitudes += fabs((double)a[i] * x[i]);
    }
    if (!(fabs(got - want) <= sum_bound(n, magnitudes)))
        fail_msg("%s %s of %zu: got %.9g, want %.9g", kernels->name, what, n, (double)got, want);
}

static void dots_are_within_rounding(void **state)
{
    (void)state;
    static const float scales[] = {1.0f, 0.0f, 1e15f, 1e-15f};
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t v = 0; v < n_list; v++) {
        for (size_t n = 0; n <= N_MAX; n = n < 70 ? n + 1 : n * 2 - 7) {
            for (size_t s = 0; s < ARRAY_LEN(scales); s++) {
                float a[N_MAX + 1], *x = malloc((n + 1) * sizeof(float));
                assert_non_null(x);
                random_floats(a + 1, n);
                random_floats(x + 1, n);
                for (size_t i = 1; i <= n; i++)
                    a[i] *= scales[s];
                check_dot(list[v], "dot_f32", a + 1, x + 1, n, list[v]->dot_f32(a + 1, x + 1, n));
                free(x);
            }
        }
    }
}

static void dots_of_file_rows_are_within_rounding(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t v = 0; v < n_list; v++) {
        for (size_t type = 0; type < ARRAY_LEN(types); type++) {
            size_t step = types[type].block_elements;
            for (size_t n = 0; n <= 2048; n += n < 70 * step ? step : 5 * step) {
                size_t n_bytes = n / step * types[type].block_bytes;
                uint8_t *row = malloc(n_bytes + 1);
                float *x = malloc((n + 1) * sizeof(float)), *values = malloc((n + 1) * sizeof(float));
                assert_true(row && x && values);
                random_row(type, row + 1, n);
                random_floats(x, n);
                decode_of(list[0], type)(row + 1, values, n);
                check_dot(list[v], types[type].name, values, x, n, dot_of(list[v], type)(row + 1, x, n));
                free(row);
                free(x);
                free(values);
            }
        }
    }
}

static void dots_do_not_depend_on_alignment(void **state)
{
    (void)state;
    enum { N = 1280 };
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    static float x[N + 16], moved[N + 16], a[N];
    static uint8_t row[2 * N + 64], row_moved[2 * N + 64];
    random_floats(x, N);
    random_floats(a, N);
    for (size_t v = 0; v < n_list; v++) {
        for (size_t offset = 1; offset < 16; offset++) {
            memcpy(moved + offset, x, N * sizeof(float));
            assert_int_equal(bits_of(list[v]->dot_f32(a, x, N - 3)),
                             bits_of(list[v]->dot_f32(a, moved + offset, N - 3)));
            for (size_t type = 0; type < ARRAY_LEN(types); type++) {
                random_row(type, row, N);
                memcpy(row_moved + offset, row, N / types[type].block_elements * types[type].block_bytes);
                assert_int_equal(bits_of(dot_of(list[v], type)(row, x, N)),
                                 bits_of(dot_of(list[v], type)(row_moved + offset, moved + offset, N)));
            }
        }
    }
}

static void axpy_adds_and_touches_nothing_else(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t v = 0; v < n_list; v++) {
        for (size_t n = 0; n <= 70; n++) {
            float x[71], y[71 + GUARD], before[71], a = random_float();
            random_floats(x, ARRAY_LEN(x));
            fill_guarded(y, ARRAY_LEN(y));
            random_floats(before, n);
            memcpy(y + 1, before, n * sizeof(float));
            list[v]->axpy(a, x + 1, y + 1, n);
            for (size_t i = 0; i < n; i++) {
                double product = (double)a * x[i + 1], want = product + before[i];
                if (!(fabs(y[1 + i] - want) <= 0x1p-23 * (fabs(product) + fabs((double)before[i]))))
                    fail_msg("%s: element %zu of %zu is %.9g, want %.9g", list[v]->name, i, n,
                             (double)y[1 + i], want);
            }
            check_untouched(list[v]->name, y, n + 1, ARRAY_LEN(y));
        }
    }
}

/* ---- products ---- */

typedef void gemm_fn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                     size_t ldb, float *c, size_t ldc, bool accumulate);
typedef enum gemm_order { NT, NN, TN } gemm_order;
static const char *const order_names[] = {"gemm_nt", "gemm_nn", "gemm_tn"};

static gemm_fn *gemm_of(const linnet_kernels *kernels, gemm_order order)
{
    return order == NT ? kernels->gemm_nt : order == NN ? kernels->gemm_nn : kernels->gemm_tn;
}

typedef struct product_case {
    gemm_order order;
    size_t m, n, k, pad; /* pad: floats between rows */
    float alpha;
    bool accumulate;
} product_case;

typedef struct operands {
    float *a, *b, *c, *before;
    size_t lda, ldb, ldc;
} operands;

/* Arrays that end where the last row ends, so that a sanitizer sees every read past it. */
static float *matrix_create(size_t rows, size_t columns, size_t stride, size_t *ret_n)
{
    *ret_n = rows == 0 ? 0 : (rows - 1) * stride + columns;
    float *matrix = malloc((*ret_n + 1) * sizeof(float));
    assert_non_null(matrix);
    return matrix;
}

static operands operands_create(const product_case *p)
{
    operands o;
    size_t n_a, n_b, n_c;
    size_t a_rows = p->order == TN ? p->k : p->m, a_columns = p->order == TN ? p->m : p->k;
    size_t b_rows = p->order == NT ? p->n : p->k, b_columns = p->order == NT ? p->k : p->n;
    o.lda = a_columns + p->pad;
    o.ldb = b_columns + p->pad;
    o.ldc = p->n + p->pad;
    o.a = matrix_create(a_rows, a_columns, o.lda, &n_a);
    o.b = matrix_create(b_rows, b_columns, o.ldb, &n_b);
    o.c = matrix_create(p->m, p->n, o.ldc, &n_c);
    o.before = matrix_create(p->m, p->n, o.ldc, &n_c);
    random_floats(o.a, n_a);
    random_floats(o.b, n_b);
    fill_guarded(o.c, n_c + 1);
    for (size_t i = 0; p->accumulate && i < p->m; i++)
        random_floats(o.c + i * o.ldc, p->n);
    memcpy(o.before, o.c, (n_c + 1) * sizeof(float));
    return o;
}

static void operands_release(operands *o)
{
    free(o->a);
    free(o->b);
    free(o->c);
    free(o->before);
}

static void check_product(const char *name, const product_case *p, const operands *o)
{
    for (size_t i = 0; i < p->m; i++) {
        for (size_t j = 0; j < p->n; j++) {
            double sum = 0, magnitudes = 0, before = p->accumulate ? o->before[i * o->ldc + j] : 0;
            for (size_t q = 0; q < p->k; q++) {
                double a = p->order == TN ? o->a[q * o->lda + i] : o->a[i * o->lda + q];
                double b = p->order == NT ? o->b[j * o->ldb + q] : o->b[q * o->ldb + j];
                sum += a * b;
                magnitudes += fabs(a * b);
            }
            double want = before + p->alpha * sum, got = o->c[i * o->ldc + j];
            /* alpha and what was there add two roundings for each block that C is visited for */
            double bound = sum_bound(p->k + 4, fabs((double)p->alpha) * magnitudes) +
                           (double)(p->k / 256 + 1) * 0x1p-24 * (fabs(want) + fabs(before));
            if (!(fabs(got - want) <= bound))
                fail_msg("%s %s %zu x %zu x %zu, alpha %g: C[%zu][%zu] is %.9g, want %.9g", name,
                         order_names[p->order], p->m, p->n, p->k, (double)p->alpha, i, j, got, want);
        }
        for (size_t j = p->n; j < o->ldc && i + 1 < p->m; j++)
            assert_int_equal(bits_of(o->c[i * o->ldc + j]), guard_bits);
    }
}

static void products_are_within_rounding(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {
        {1, 1, 1},     {1, 1, 0},    {0, 5, 3},    {5, 0, 3},     {3, 5, 7},    {2, 16, 8},
        {4, 17, 33},   {6, 31, 64},  {7, 32, 20},  {8, 33, 255},  {12, 48, 16}, {13, 49, 256},
        {24, 8, 257},  {25, 4, 600}, {64, 64, 4},  {9, 100, 512}, {37, 70, 5},  {16, 172, 8},
        {40, 12, 172}, {5, 24, 13},  {11, 13, 19}, {1, 130, 300},
    };
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t v = 0; v < n_list; v++) {
        for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
            for (unsigned bits = 0; bits < 12; bits++) {
                product_case p = {.order = (gemm_order)(bits % 3),
                                  .m = shapes[s][0],
                                  .n = shapes[s][1],
                                  .k = shapes[s][2],
                                  .pad = bits & 1 ? 5 : 0,
                                  .alpha = bits < 6 ? 1.0f : -0.75f,
                                  .accumulate = bits % 4 >= 2};
                operands o = operands_create(&p);
                gemm_of(list[v], p.order)(p.m, p.n, p.k, p.alpha, o.a, o.lda, o.b, o.ldb, o.c, o.ldc,
                                          p.accumulate);
                check_product(list[v]->name, &p, &o);
                operands_release(&o);
            }
        }
    }
}

static void a_block_of_a_product_has_the_bits_of_the_whole(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t v = 0; v < n_list; v++) {
        for (int order = NT; order <= TN; order++) {
            product_case p = {.order = (gemm_order)order,
                              .m = 29,
                              .n = 101,
                              .k = 530,
                              .pad = 3,
                              .alpha = 0.3f,
                              .accumulate = true};
            operands o = operands_create(&p);
            gemm_fn *gemm = gemm_of(list[v], p.order);
            gemm(p.m, p.n, p.k, p.alpha, o.a, o.lda, o.b, o.ldb, o.c, o.ldc, true);
            for (int round = 0; round < 60; round++) {
                size_t i0 = random_bits() % p.m, j0 = random_bits() % p.n;
                size_t m = 1 + random_bits() % (p.m - i0), n = 1 + random_bits() % (p.n - j0);
                float part[29 * 101];
                for (size_t i = 0; i < m; i++)
                    memcpy(part + i * n, o.before + (i0 + i) * o.ldc + j0, n * sizeof(float));
                gemm(m, n, p.k, p.alpha, o.a + (order == TN ? i0 : i0 * o.lda), o.lda,
                     o.b + (order == NT ? j0 * o.ldb : j0), o.ldb, part, n, true);
                for (size_t i = 0; i < m; i++)
                    if (memcmp(part + i * n, o.c + (i0 + i) * o.ldc + j0, n * sizeof(float)) != 0)
                        fail_msg("%s %s: block %zu x %zu at (%zu, %zu) differs in row %zu", list[v]->name,
                                 order_names[order], m, n, i0, j0, i);
            }
            operands_release(&o);
        }
    }
}

/* ---- exp ---- */

static double ulp_of(double value) /* of float32, at value */
{
    int exponent = value > 0 ? ilogb(value) : -149;
    return ldexp(1.0, (exponent < -126 ? -126 : exponent) - 23);
}

static void check_exp(const linnet_kernels *kernels, float x, float got)
{
    double want = exp((double)x);
    bool ok;
    if (isnan(x))
        ok = isnan(got);
    else if (want > 0x1.ffffffp127) /* rounds to infinity */
        ok = isinf(got) && got > 0;
    else
        ok = fabs(got - want) <= 2 * ulp_of(want);
#if defined(__arm__) /* ARMv7's NEON has no subnormal numbers, which kernels_neon.c says */
    ok = ok || (want < 0x1p-126 && got == 0.0f);
#endif
    if (!ok)
        fail_msg("%s: exp(%a) is %a, want %a", kernels->name, (double)x, (double)got, want);
}

static void exp_is_within_two_ulp_everywhere(void **state)
{
    (void)state;
    enum { N = 4096 };
    static float x[N], y[N];
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    uint32_t bits = 0;
    for (bool more = true; more;) {
        for (size_t i = 0; i < N; i++) {
            x[i] = float_of(bits);
            uint32_t next = bits + 1013; /* a prime: all patterns of low bits come by */
            more = more && next > bits;
            bits = next;
        }
        for (size_t v = 0; v < n_list; v++) {
            memcpy(y, x, sizeof(y));
            list[v]->exp_in_place(y, N);
            for (size_t i = 0; i < N; i++)
                check_exp(list[v], x[i], y[i]);
        }
    }
    for (double at = -104.5; at < 89.5;
         at += 0.0173) { /* where results are neither 0 nor infinite, densely */
        for (size_t v = 0; v < n_list; v++) {
            float one = (float)at;
            list[v]->exp_in_place(&one, 1);
            check_exp(list[v], (float)at, one);
        }
    }
}

static void exp_of_special_values_is_exact(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t v = 0; v < n_list; v++) {
        float x[] = {0.0f, -0.0f, -INFINITY, INFINITY, -104.0f, -1e30f, 88.8f, NAN};
        list[v]->exp_in_place(x, ARRAY_LEN(x));
        assert_true(x[0] == 1.0f && x[1] == 1.0f && x[2] == 0.0f && x[3] == INFINITY);
        assert_true(x[4] == 0.0f && x[5] == 0.0f && x[6] == INFINITY && isnan(x[7]));
    }
}

static void exp_does_not_depend_on_the_place(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    for (size_t v = 0; v < n_list; v++) {
        for (size_t n = 0; n <= 70; n++) {
            float x[70], y[70 + GUARD];
            random_floats(x, n);
            for (size_t i = 0; i < n; i++)
                x[i] *= 90;
            fill_guarded(y, ARRAY_LEN(y));
            memcpy(y, x, n * sizeof(float));
            list[v]->exp_in_place(y, n);
            check_untouched(list[v]->name, y, n, ARRAY_LEN(y));
            for (size_t i = 0; i < n; i++) {
                list[v]->exp_in_place(x + i, 1);
                assert_int_equal(bits_of(x[i]), bits_of(y[i]));
            }
        }
    }
}

/* ---- the choice ---- */

static void the_environment_chooses_a_variant(void **state)
{
    (void)state;
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    assert_in_range(n_list, 1, 8);
    assert_ptr_equal(list[0], linnet_kernels_scalar());
    for (size_t v = 0; v < n_list; v++) {
        assert_int_equal(setenv("LINNET_KERNELS", list[v]->name, 1), 0);
        assert_ptr_equal(linnet_kernels_best(), list[v]);
    }
    assert_int_equal(setenv("LINNET_KERNELS", "abacus", 1), 0);
    assert_ptr_equal(linnet_kernels_best(), list[n_list - 1]);
    assert_int_equal(unsetenv("LINNET_KERNELS"), 0);
    assert_ptr_equal(linnet_kernels_best(), list[n_list - 1]);
}

int main(void)
{
    const linnet_kernels *list[8];
    size_t n_list = linnet_kernels_available(list);
    print_message("seed %llu; variants:", (unsigned long long)seed);
    for (size_t v = 0; v < n_list; v++)
        print_message(" %s", list[v]->name);
    print_message("\n");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_definition_reads_every_half, start_from_the_seed),
        cmocka_unit_test_setup(every_variant_reads_every_half_to_the_bit, start_from_the_seed),
        cmocka_unit_test_setup(halves_of_any_number_are_decoded_and_no_more, start_from_the_seed),
        cmocka_unit_test_setup(known_blocks_decode_as_the_format_says, start_from_the_seed),
        cmocka_unit_test_setup(quantised_blocks_decode_to_the_same_bits, start_from_the_seed),
        cmocka_unit_test(blocks_decode_as_elsewhere),
        cmocka_unit_test(all_variants_run_the_same_types),
        cmocka_unit_test_setup(dots_are_within_rounding, start_from_the_seed),
        cmocka_unit_test_setup(dots_of_file_rows_are_within_rounding, start_from_the_seed),
        cmocka_unit_test_setup(dots_do_not_depend_on_alignment, start_from_the_seed),
        cmocka_unit_test_setup(axpy_adds_and_touches_nothing_else, start_from_the_seed),
        cmocka_unit_test_setup(products_are_within_rounding, start_from_the_seed),
        cmocka_unit_test_setup(a_block_of_a_product_has_the_bits_of_the_whole, start_from_the_seed),
        cmocka_unit_test_setup(exp_is_within_two_ulp_everywhere, start_from_the_seed),
        cmocka_unit_test_setup(exp_of_special_values_is_exact, start_from_the_seed),
        cmocka_unit_test_setup(exp_does_not_depend_on_the_place, start_from_the_seed),
        cmocka_unit_test(the_environment_chooses_a_variant),
    };
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
