/* SPDX-License-Identifier: Apache-2.0 */
/* The private encoding of one vector: SECURE-AGGREGATION 2.7 and 3.2, properties 6, 24 and 25 of 6.2, rows 11
 * and 12 of 3.5. Of those rows the L1 norms, beta = 0 and Skellam are not in v1. */
#include "testing.h"

#include "adapters/dp_inner.h"
#include "linnet/accountant.h"
#include "linnet/packing.h"
#include "linnet/rng.h"
#include "linnet/secagg_mask.h"

#include <math.h>

#define SEED 2102

static int allocations_left = -1; /* before one fails; negative: none does */
void *__real_malloc(size_t n_bytes);
void *__real_calloc(size_t n, size_t n_bytes);
void *__wrap_malloc(size_t n_bytes);
void *__wrap_calloc(size_t n, size_t n_bytes);

static bool allocation_fails(void)
{
    return allocations_left >= 0 && allocations_left-- == 0;
}

void *__wrap_malloc(size_t n_bytes)
{
    return allocation_fails() ? NULL : __real_malloc(n_bytes);
}

void *__wrap_calloc(size_t n, size_t n_bytes)
{
    return allocation_fails() ? NULL : __real_calloc(n, n_bytes);
}

static void seeded(void *context, void *bytes, size_t n_bytes)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < n_bytes; i += 8) {
        uint8_t word[8];
        linnet_store_le64(word, linnet_rng_next(context));
        memcpy(at + i, word, n_bytes - i < 8 ? n_bytes - i : 8);
    }
}

static linnet_rng rng_of(uint64_t stream)
{
    linnet_rng rng;
    linnet_rng_init(&rng, SEED, stream);
    return rng;
}

static const linnet_hash announcement = {{1, 2, 3}};

static linnet_ring_spec ring_of(uint64_t length, uint32_t bits, uint32_t clamp, int32_t exponent)
{
    return (linnet_ring_spec){
        .length = length, .bits = bits, .clamp = clamp, .exponent = exponent, .weight_max = 1};
}

static double norm_of(const float *values, size_t n)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (double)values[i] * values[i];
    return sqrt(squares);
}

/* ---- figures ---- */

static void row_11_rounded_norm(void **state)
{
    (void)state;
    static const struct {
        double clip;
        int32_t exponent;
        uint64_t length;
        double norm;
    } cases[] = {
        {100, 0, 1024, 101.84301645179212},
        {1000, 0, 131072, 1016.8328374595226},
        {4096, 0, 1 << 20, 4128.434085703682},
        {1, 12, 1 << 20, 4128.434085703682},
        {1, 10, 1 << 20, 1145.5}, /* the example of 3.2, digits as given */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t bound2 = linnet_dp_bound2(cases[i].clip, cases[i].exponent, cases[i].length);
        double want = cases[i].norm * cases[i].norm;
        if (i < 4)
            assert_int_equal(bound2, (uint64_t)(want + 1e-6 * cases[i].norm));
        assert_true(fabs(sqrt((double)bound2) - cases[i].norm) < 0.05);
    }
    static const double no_clips[] = {0, -1, NAN, INFINITY, 0x1.0p30, 1e300};
    for (size_t i = 0; i < ARRAY_LEN(no_clips); i++)
        assert_int_equal(linnet_dp_bound2(no_clips[i], 0, 4096), 0);
    assert_int_equal(linnet_dp_bound2(1, 30, 4096), 0);
    assert_int_equal(linnet_dp_bound2(1, INT32_MIN, 4096), 0);
    assert_int_equal(linnet_dp_bound2(1, INT32_MAX, 4096), 0);
    assert_int_equal(linnet_dp_bound2(1, 10, 0), 0);
    assert_int_equal(linnet_dp_bound2(1, 10, UINT64_MAX), 0);
    assert_true(linnet_dp_bound2(1, 29, (uint64_t)1 << 28) > (uint64_t)1 << 58);
}

/* The plain Gaussian with the rounded norm is the discrete Gaussian's figure of the table. */
static void row_12_end_to_end(void **state)
{
    (void)state;
    static const struct {
        double scale, local, epsilon, relative; /* the floor of bound2 costs the middle row 2e-8 */
        uint32_t n_clients, order;
        uint64_t length;
        int rounds;
        double dp_delta;
    } cases[] = {
        {64, 0.1, 4.957806461819822, 1e-11, 100, 5, 1024, 1, 1e-5},
        {1024, 0.5, 7.984986777129016, 3e-8, 100, 4, 1 << 17, 50, 1e-6},
        {4096, 0.25, 4.660587840640789, 1e-11, 400, 6, 1 << 20, 20, 1e-6},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        double sigma = cases[i].scale * cases[i].local * sqrt(cases[i].n_clients);
        double z = sigma / sqrt((double)linnet_dp_bound2(cases[i].scale, 0, cases[i].length));
        uint32_t order = 0;
        linnet_rdp rdp = {{0}};
        for (int r = 0; r < cases[i].rounds; r++)
            linnet_rdp_add_gaussian(&rdp, z);
        double epsilon = linnet_dp_epsilon(&rdp, cases[i].dp_delta, &order);
        if (fabs(epsilon / cases[i].epsilon - 1) > cases[i].relative)
            fail_msg("row %zu: %.16g, want %.16g", i, epsilon, cases[i].epsilon);
        assert_int_equal(order, cases[i].order);
    }
}

static void device_variance_gives_the_multiplier_back(void **state)
{
    (void)state;
    static const double multipliers[] = {0.1, 0.5, 1, 4.53, 10};
    static const uint32_t noisy[] = {1, 3, 36, 1000};
    uint64_t bound2 = linnet_dp_bound2(1, 10, 1 << 20);
    uint64_t example = linnet_dp_device_variance(1, bound2, 1000);
    assert_true(fabs(sqrt((double)example) - 36) < 0.3); /* the example of 3.2 */
    for (size_t z = 0; z < ARRAY_LEN(multipliers); z++)
        for (size_t n = 0; n < ARRAY_LEN(noisy); n++) {
            uint64_t sigma2 = linnet_dp_device_variance(multipliers[z], bound2, noisy[n]);
            if (multipliers[z] * multipliers[z] * (double)bound2 / noisy[n] > (double)(1 << 24)) {
                assert_int_equal(sigma2, 0);
                continue;
            }
            assert_true(linnet_dp_noise_multiplier(sigma2, noisy[n], bound2) >= multipliers[z] * (1 - 1e-12));
            assert_true(linnet_dp_noise_multiplier(sigma2 - 1, noisy[n], bound2) < multipliers[z]);
        }
    assert_int_equal(linnet_dp_device_variance(0, bound2, 10), 0);
    assert_int_equal(linnet_dp_device_variance(NAN, bound2, 10), 0);
    assert_int_equal(linnet_dp_device_variance(INFINITY, bound2, 10), 0);
    assert_int_equal(linnet_dp_device_variance(1, bound2, 0), 0);
    assert_int_equal(linnet_dp_device_variance(1, 0, 10), 0);
    assert_true(linnet_dp_noise_multiplier(100, 10, 0) == 0);
}

/* Property 5 with noise: the largest clamp holds the inequality, one more is refused. */
static void clamps_that_could_wrap_are_refused(void **state)
{
    (void)state;
    static const uint32_t widths[] = {16, 20, 24, 32}, clients[] = {1, 5, 128, 1000};
    static const uint64_t variances[] = {16, 17, 1296, 1 << 20, 1 << 24};
    for (size_t w = 0; w < ARRAY_LEN(widths); w++)
        for (size_t c = 0; c < ARRAY_LEN(clients); c++)
            for (size_t v = 0; v < ARRAY_LEN(variances); v++) {
                double n = clients[c], half = ldexp(1, (int)widths[w] - 1) - 1;
                double noise = 9 * sqrt(n * (double)variances[v]);
                uint32_t q = linnet_dp_clamp_max(widths[w], clients[c], variances[v]);
                linnet_ring_spec ring = ring_of(4096, widths[w], q, 0);
                linnet_dp_spec dp = {.clip = 1, .sigma2 = variances[v], .rotates = true};
                linnet_error err = {0};
                assert_true(q == 0 || n * q + noise <= half);
                assert_true(n * (q + 1.0) + noise > half - 1); /* whole lattice units */
                if (q > 0)
                    assert_ok(linnet_dp_check(&ring, &dp, clients[c], &err), &err);
                ring.clamp = q + 1;
                assert_int_equal(linnet_dp_check(&ring, &dp, clients[c], &err), LINNET_ERR_RANGE);
            }
    assert_int_equal(linnet_dp_clamp_max(17, 1, 16), 0);
    assert_int_equal(linnet_dp_clamp_max(16, 0, 16), 0);
    assert_int_equal(linnet_dp_clamp_max(32, 1, UINT64_MAX), 0);
    assert_int_equal(linnet_dp_clamp_max(32, UINT32_MAX, 1 << 24), 0);
}

/* Property 24, its vector half: below 4 lattice units of noise nobody encodes. */
static void bad_specs_are_refused(void **state)
{
    (void)state;
    const linnet_ring_spec ring = ring_of(4096, 20, 100, 8);
    const linnet_dp_spec dp = {.clip = 0.5, .sigma2 = 16, .rotates = true};
    static float values[4096];
    static uint8_t packed[4 * 4096];
    static uint32_t sum[4096];
    for (int i = 0; i <= 14; i++) {
        linnet_ring_spec r = ring;
        linnet_dp_spec d = dp;
        linnet_status want = LINNET_ERR_RANGE;
        linnet_rng rng = rng_of(1);
        linnet_error err = {0};
        switch (i) {
        case 0:
            want = LINNET_OK;
            break;
        case 1:
            d.sigma2 = 15;
            break;
        case 2:
            d.sigma2 = 0;
            break;
        case 3:
            d.sigma2 = (1 << 24) + 1;
            break;
        case 4:
            d.clip = 0;
            break;
        case 5:
            d.clip = NAN;
            break;
        case 6:
            d.clip = 0x1.0p22;
            break;
        case 7:
            r.exponent = 31;
            break;
        case 8:
            r.length = 4097, want = LINNET_ERR_ARG;
            break;
        case 9:
            r.weight_max = 2, want = LINNET_ERR_ARG;
            break;
        case 10:
            r.bits = 17, want = LINNET_ERR_ARG;
            break;
        case 11:
            r.clamp = 0, want = LINNET_ERR_ARG;
            break;
        case 12:
            r.clamp = 524287;
            break; /* fits without noise */
        case 13:
            r.length = 8192, want = LINNET_ERR_ARG;
            break; /* a block too many */
        default:
            d.rotates = false, r.length = 4095, want = LINNET_ERR_ARG;
            break;
        }
        linnet_status got = linnet_dp_encode(&r, &d, &announcement, values, 4096, seeded, &rng, packed, &err);
        if (got != want)
            fail_msg("case %d: got %s, want %s", i, linnet_status_name(got), linnet_status_name(want));
        got = linnet_dp_decode(&r, &d, &announcement, sum, 3, values, 4096, &err);
        assert_int_equal(got, want);
    }
    linnet_error err = {0};
    assert_int_equal(linnet_dp_decode(&ring, &dp, &announcement, sum, 0, values, 4096, &err), LINNET_ERR_ARG);
    assert_int_equal(linnet_dp_decode(&ring, &dp, &announcement, sum, 1, values, 0, &err), LINNET_ERR_ARG);
    assert_int_equal(linnet_dp_length(1, true), 4096);
    assert_int_equal(linnet_dp_length(4096, true), 4096);
    assert_int_equal(linnet_dp_length(4097, true), 8192);
    assert_int_equal(linnet_dp_length(4097, false), 4097);
}

/* ---- rotation ---- */

enum { blocks = 37, rotated_length = blocks * LINNET_DP_BLOCK }; /* over one chunk of signs */

static void rotation_keeps_the_norm_and_has_an_inverse(void **state)
{
    (void)state;
    enum { n = rotated_length - 1234 };
    static float values[n], rotated[rotated_length], back[n];
    linnet_ring_spec ring = ring_of(rotated_length, 20, 1, 0);
    linnet_rng rng = rng_of(2);
    print_message("seed %d\n", SEED);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)linnet_rng_normal(&rng);
    linnet_dp_rotate(&ring, &announcement, values, n, 0.25, rotated);
    assert_true(fabs(norm_of(rotated, rotated_length) / (0.25 * norm_of(values, n)) - 1) < 1e-6);
    linnet_dp_rotate_back(&ring, &announcement, rotated, back, n);
    for (size_t i = 0; i < n; i++)
        assert_true(fabs(back[i] - 0.25 * values[i]) < 1e-6);
}

static void rotation_spreads_a_coordinate_over_its_block(void **state)
{
    (void)state;
    static const size_t places[] = {0, 1, 36, 37, 5000, rotated_length - 1};
    static float values[rotated_length], rotated[rotated_length];
    linnet_ring_spec ring = ring_of(rotated_length, 20, 1, 0);
    for (size_t p = 0; p < ARRAY_LEN(places); p++) {
        memset(values, 0, sizeof(values));
        values[places[p]] = 64;
        linnet_dp_rotate(&ring, &announcement, values, rotated_length, 1, rotated);
        for (size_t i = 0; i < rotated_length; i++)
            assert_true(fabsf(rotated[i]) == (i / LINNET_DP_BLOCK == places[p] % blocks ? 1.0f : 0.0f));
    }
}

static void every_block_sees_every_layer(void **state)
{
    (void)state;
    enum { layer = 3000, first = 50000 }; /* one layer's coordinates: less than one block */
    static float values[rotated_length], rotated[rotated_length];
    linnet_ring_spec ring = ring_of(rotated_length, 20, 1, 0);
    for (size_t i = first; i < first + layer; i++)
        values[i] = 1;
    linnet_dp_rotate(&ring, &announcement, values, rotated_length, 1, rotated);
    for (size_t b = 0; b < blocks; b++) {
        double share = norm_of(rotated + b * LINNET_DP_BLOCK, LINNET_DP_BLOCK);
        assert_true(fabs(share * share - (double)layer / blocks) < 1.01);
    }
    for (size_t i = 0; i < rotated_length; i++) /* and none of it stands out */
        assert_true(fabsf(rotated[i]) < 1);
}

static void signs_are_those_of_the_announcement_and_vector(void **state)
{
    (void)state;
    static float values[LINNET_DP_BLOCK], a[LINNET_DP_BLOCK], b[LINNET_DP_BLOCK];
    const linnet_hash other = {{9}};
    linnet_ring_spec ring = ring_of(LINNET_DP_BLOCK, 20, 1, 0), ring2 = ring;
    int n_minus = 0;
    ring2.vector_id = 2;
    for (size_t i = 0; i < LINNET_DP_BLOCK; i++)
        values[i] = 1;
    linnet_dp_rotate(&ring, &announcement, values, LINNET_DP_BLOCK, 1, a);
    linnet_dp_rotate(&ring, &announcement, values, LINNET_DP_BLOCK, 1, b);
    assert_memory_equal(a, b, sizeof(a));
    linnet_dp_rotate(&ring, &other, values, LINNET_DP_BLOCK, 1, b);
    assert_memory_not_equal(a, b, sizeof(a));
    linnet_dp_rotate(&ring2, &announcement, values, LINNET_DP_BLOCK, 1, b);
    assert_memory_not_equal(a, b, sizeof(a));
    /* The signs themselves, through the mask that defines them: sum of signs x ones is coordinate 0. */
    uint32_t words[LINNET_DP_BLOCK / 32] = {0};
    linnet_hash key = linnet_hash_of(LINNET_LABEL_ROTATE, announcement.bytes, LINNET_HASH_BYTES);
    linnet_mask_add(&key, 0, 32, 0, ARRAY_LEN(words), words);
    for (size_t j = 0; j < LINNET_DP_BLOCK; j++)
        n_minus += words[j / 32] >> (j % 32) & 1;
    assert_true(a[0] == (float)(LINNET_DP_BLOCK - 2 * n_minus) / 64);
}

/* ---- rounding ---- */

/* Property 6. */
static void rounding_has_its_mean(void **state)
{
    (void)state;
    enum { n = 4096, n_draws = 200 };
    static const float fractions[] = {0.1f, 0.5f, 0.93f, -0.3f, 5.0625f};
    static float values[n];
    static int32_t x[n];
    linnet_rng rng = rng_of(3);
    print_message("seed %d\n", SEED);
    for (size_t f = 0; f < ARRAY_LEN(fractions); f++) {
        double sum = 0, part = fractions[f] - floor(fractions[f]);
        for (size_t i = 0; i < n; i++)
            values[i] = fractions[f] / 4;
        for (int d = 0; d < n_draws; d++) {
            assert_int_equal(linnet_dp_round(values, n, 1, 2, UINT64_MAX / 4, seeded, &rng, x), 1);
            for (size_t i = 0; i < n; i++) {
                assert_true(x[i] == floor(fractions[f]) || x[i] == floor(fractions[f]) + 1);
                sum += x[i];
            }
        }
        double mean = sum / n / n_draws;
        assert_true(fabs(mean - fractions[f]) < 5 * sqrt(part * (1 - part) / n / n_draws));
    }
}

/* All fractions 1/2 is the worst case. The squared norm of the rounded vector is nearly normal with a
 * standard deviation of s Delta, and the bound leaves s Delta + sqrt(d)/2 above its mean. */
static void worst_case_vectors_are_mostly_accepted_at_once(void **state)
{
    (void)state;
    enum { n = 4096, n_draws = 2000 };
    static float values[n];
    static int32_t x[n];
    linnet_rng rng = rng_of(4);
    print_message("seed %d\n", SEED);
    for (int whole = 0; whole <= 8; whole += whole < 2 ? 1 : 6) {
        double norm = (whole + 0.5) * 64;
        uint64_t bound2 = linnet_dp_bound2(norm, 0, n);
        int n_accepted = 0;
        for (size_t i = 0; i < n; i++)
            values[i] = (float)((whole + 0.5) * (i % 3 ? 1 : -1));
        for (int d = 0; d < n_draws; d++)
            n_accepted += linnet_dp_round(values, n, 1, 0, bound2, seeded, &rng, x) == 1;
        double rate = (double)n_accepted / n_draws;
        double predicted = erfc(-(1 + 32 / norm) / sqrt(2)) / 2;
        print_message("s Delta %.0f, d %d: %.3f accepted at once, %.3f predicted\n", norm, n, rate,
                      predicted);
        assert_true(fabs(rate - predicted) < 0.03);
        if (whole == 1 || whole == 2)
            assert_true(rate > 0.87 && rate < 0.93);
    }
}

static void hopeless_vectors_become_zero(void **state)
{
    (void)state;
    float values[3] = {3, 0.5f, -4};
    int32_t x[3] = {9, 9, 9};
    linnet_rng rng = rng_of(5);
    assert_int_equal(linnet_dp_round(values, 3, 1, 0, 24, seeded, &rng, x), LINNET_DP_ROUNDINGS + 1);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(x[i], 0);
    assert_true(linnet_dp_round(values, 3, 1, 0, 25, seeded, &rng, x) <= LINNET_DP_ROUNDINGS);
    assert_int_equal(x[0] * x[0] + x[1] * x[1] + x[2] * x[2], 25);
}

/* What the proof rests on: before noise every output is within the bound and the clamp. */
static void every_output_is_within_the_bound(void **state)
{
    (void)state;
    enum { n = 10000, length = 3 * 4096 };
    static float values[n];
    static int32_t x[length];
    static const double sizes[] = {0, 1e-30, 0.001, 0.0049, 0.005, 0.1, 1e10};
    linnet_rng rng = rng_of(6);
    print_message("seed %d\n", SEED);
    for (int turn = 0; turn < 4; turn++)
        for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
            bool rotates = turn % 2;
            linnet_ring_spec ring = ring_of(length, 20, turn < 2 ? 5000 : 7, 11);
            linnet_dp_spec dp = {.clip = 0.5, .sigma2 = 16, .rotates = rotates};
            linnet_error err = {0};
            uint64_t squares = 0, bound2 = linnet_dp_bound2(dp.clip, ring.exponent, length);
            for (size_t i = 0; i < n; i++)
                values[i] = (float)(sizes[s] * linnet_rng_normal(&rng));
            assert_ok(linnet_dp_integers(&ring, &dp, &announcement, values, n, seeded, &rng, x, &err), &err);
            for (size_t i = 0; i < length; i++) {
                assert_true(x[i] >= -(int32_t)ring.clamp && x[i] <= (int32_t)ring.clamp);
                squares += (uint64_t)((int64_t)x[i] * x[i]);
            }
            assert_true(squares <= bound2);
            if (sizes[s] >= 0.005 && turn < 2) /* clipped, and not more than to the clip norm */
                assert_true((double)squares > 0.9 * 1024 * 1024);
        }
}

/* ---- whole vectors ---- */

/* Property 25: what is sent is the zero vector's message, noise and all. */
static void vectors_with_nan_are_sent_as_zero(void **state)
{
    (void)state;
    enum { n = 5000, length = 8192 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static float values[n];
    static uint8_t packed[length * 20 / 8], zero[sizeof(packed)];
    linnet_ring_spec ring = ring_of(length, 20, 1000, 10);
    for (int rotates = 0; rotates < 2; rotates++) {
        linnet_dp_spec dp = {.clip = 1, .sigma2 = 400, .rotates = rotates};
        linnet_error err = {0};
        linnet_rng rng = rng_of(7);
        memset(values, 0, sizeof(values));
        assert_ok(linnet_dp_encode(&ring, &dp, &announcement, values, n, seeded, &rng, zero, &err), &err);
        for (size_t b = 0; b < ARRAY_LEN(bad); b++) {
            rng = rng_of(7);
            for (size_t i = 0; i < n; i++)
                values[i] = (float)i;
            values[n - 1 - b] = bad[b];
            memset(packed, 0, sizeof(packed));
            assert_ok(linnet_dp_encode(&ring, &dp, &announcement, values, n, seeded, &rng, packed, &err),
                      &err);
            assert_memory_equal(packed, zero, sizeof(packed));
        }
        values[n - 1] = values[n - 2] = values[n - 3] = 1;
        rng = rng_of(7);
        assert_ok(linnet_dp_encode(&ring, &dp, &announcement, values, n, seeded, &rng, packed, &err), &err);
        assert_memory_not_equal(packed, zero, sizeof(packed));
    }
}

static void noise_has_its_variance(void **state)
{
    (void)state;
    enum { length = 16 * 4096 };
    static const uint64_t variances[] = {16, 1296, 1 << 20};
    static float values[length];
    static uint8_t packed[4 * length];
    static uint32_t sum[length];
    print_message("seed %d\n", SEED);
    for (size_t v = 0; v < ARRAY_LEN(variances); v++) {
        linnet_ring_spec ring = ring_of(length, 32, 1000, 10);
        linnet_dp_spec dp = {.clip = 1, .sigma2 = variances[v], .rotates = true};
        linnet_rng rng = rng_of(8 + v);
        linnet_error err = {0};
        double squares = 0, mean = 0, want = (double)variances[v];
        memset(sum, 0, sizeof(sum));
        assert_ok(linnet_dp_encode(&ring, &dp, &announcement, values, length, seeded, &rng, packed, &err),
                  &err);
        linnet_pack_add(32, packed, length, sum);
        for (size_t i = 0; i < length; i++) {
            double y = (double)linnet_ring_lift(32, sum[i]);
            mean += y / length;
            squares += y * y / length;
        }
        assert_true(fabs(mean) < 4 * sqrt(want / length));
        assert_true(fabs(squares / want - 1) < 4 * sqrt(2.0 / length));
    }
}

/* 50 devices, each with its own vector: the decoded mean is the mean of the vectors, off by the noise and the
 * rounding alone. */
static void sums_decode_to_the_mean(void **state)
{
    (void)state;
    enum { n = 6000, length = 8192, n_devices = 50 };
    static const struct {
        uint32_t bits, sigma;
    } cases[] = {{16, 4}, {20, 10}, {24, 60}, {32, 400}};
    static float values[n], decoded[n];
    static double mean[n];
    static uint32_t sum[length];
    static uint8_t packed[4 * length];
    print_message("seed %d\n", SEED);
    for (size_t c = 0; c < ARRAY_LEN(cases) * 2; c++) {
        uint32_t bits = cases[c / 2].bits, sigma = cases[c / 2].sigma;
        linnet_dp_spec dp = {.clip = 1, .sigma2 = sigma * sigma, .rotates = c % 2};
        uint32_t q = linnet_dp_clamp_max(bits, n_devices, dp.sigma2);
        linnet_ring_spec ring = ring_of(length, bits, q, 11);
        linnet_rng rng = rng_of(20 + c);
        linnet_error err = {0};
        memset(sum, 0, sizeof(sum));
        memset(mean, 0, sizeof(mean));
        assert_ok(linnet_dp_check(&ring, &dp, n_devices, &err), &err);
        for (int device = 0; device < n_devices; device++) {
            for (size_t i = 0; i < n; i++) {
                values[i] = (float)(linnet_rng_normal(&rng) * 0.9 / sqrt(n));
                mean[i] += (double)values[i] / n_devices;
            }
            assert_true(norm_of(values, n) < 1); /* nothing is clipped */
            assert_ok(linnet_dp_encode(&ring, &dp, &announcement, values, n, seeded, &rng, packed, &err),
                      &err);
            assert_true(linnet_pack_tail_is_zero(bits, length, packed));
            linnet_pack_add(bits, packed, length, sum);
        }
        assert_ok(linnet_dp_decode(&ring, &dp, &announcement, sum, n_devices, decoded, n, &err), &err);
        double squares = 0, worst = 0, bias = 0;
        for (size_t i = 0; i < n; i++) {
            double error = decoded[i] - mean[i];
            squares += error * error;
            bias += error / n;
            worst = fmax(worst, fabs(error));
        }
        /* A value that is spread evenly against the grid has a rounding variance of 1/6. */
        double predicted = sqrt(((double)dp.sigma2 + 1.0 / 6) / n_devices) / 2048, rms = sqrt(squares / n);
        print_message("%u bits: rms %.4f of the predicted\n", (unsigned)bits, rms / predicted);
        assert_true(fabs(rms / predicted - 1) < 0.05);
        assert_true(worst < 6 * predicted);
        assert_true(fabs(bias) < 5 * predicted / sqrt(n));
    }
}

static void clipping_keeps_the_direction(void **state)
{
    (void)state;
    enum { n = 4096 };
    static float values[n], decoded[n];
    static int32_t x[n];
    linnet_ring_spec ring = ring_of(n, 32, 1 << 24, 20);
    linnet_dp_spec dp = {.clip = 0.5, .sigma2 = 16, .rotates = true};
    linnet_rng rng = rng_of(40);
    linnet_error err = {0};
    for (size_t i = 0; i < n; i++)
        values[i] = (float)linnet_rng_normal(&rng);
    double norm = norm_of(values, n);
    assert_ok(linnet_dp_integers(&ring, &dp, &announcement, values, n, seeded, &rng, x, &err), &err);
    assert_ok(linnet_dp_decode(&ring, &dp, &announcement, (const uint32_t *)x, 1, decoded, n, &err), &err);
    for (size_t i = 0; i < n; i++)
        assert_true(fabs(decoded[i] - values[i] * 0.5 / norm) < 6e-6);
    assert_true(fabs(norm_of(decoded, n) - 0.5) < 1e-5);
    assert_true(linnet_dp_clip_factor(values, n, norm * 1.001) == 1);
}

static void one_stream_gives_one_message(void **state)
{
    (void)state;
    enum { n = 4096 };
    static float values[n];
    static uint8_t a[n * 3], b[n * 3];
    linnet_ring_spec ring = ring_of(n, 24, 1000, 10);
    linnet_dp_spec dp = {.clip = 1, .sigma2 = 100, .rotates = true};
    linnet_error err = {0};
    linnet_rng rng = rng_of(50);
    values[17] = 0.7f;
    assert_ok(linnet_dp_encode(&ring, &dp, &announcement, values, n, seeded, &rng, a, &err), &err);
    rng = rng_of(50);
    assert_ok(linnet_dp_encode(&ring, &dp, &announcement, values, n, seeded, &rng, b, &err), &err);
    assert_memory_equal(a, b, sizeof(a));
    assert_ok(linnet_dp_encode(&ring, &dp, &announcement, values, n, seeded, &rng, b, &err), &err);
    assert_memory_not_equal(a, b, sizeof(a));
}

static void lack_of_memory_is_reported(void **state)
{
    (void)state;
    enum { n = 4096 };
    static float values[n];
    static uint8_t packed[n * 3];
    static uint32_t sum[n];
    linnet_ring_spec ring = ring_of(n, 24, 1000, 10);
    linnet_dp_spec dp = {.clip = 1, .sigma2 = 100, .rotates = true};
    for (int failing = 0; failing <= 3; failing++) {
        linnet_rng rng = rng_of(60);
        linnet_error err = {0};
        allocations_left = failing;
        linnet_status got =
            linnet_dp_encode(&ring, &dp, &announcement, values, n, seeded, &rng, packed, &err);
        allocations_left = -1;
        assert_int_equal(got, failing < 3 ? LINNET_ERR_NOMEM : LINNET_OK);
    }
    linnet_error err = {0};
    allocations_left = 0;
    linnet_status got = linnet_dp_decode(&ring, &dp, &announcement, sum, 1, values, n, &err);
    allocations_left = -1;
    assert_int_equal(got, LINNET_ERR_NOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_11_rounded_norm),
        cmocka_unit_test(row_12_end_to_end),
        cmocka_unit_test(device_variance_gives_the_multiplier_back),
        cmocka_unit_test(clamps_that_could_wrap_are_refused),
        cmocka_unit_test(bad_specs_are_refused),
        cmocka_unit_test(rotation_keeps_the_norm_and_has_an_inverse),
        cmocka_unit_test(rotation_spreads_a_coordinate_over_its_block),
        cmocka_unit_test(every_block_sees_every_layer),
        cmocka_unit_test(signs_are_those_of_the_announcement_and_vector),
        cmocka_unit_test(rounding_has_its_mean),
        cmocka_unit_test(worst_case_vectors_are_mostly_accepted_at_once),
        cmocka_unit_test(hopeless_vectors_become_zero),
        cmocka_unit_test(every_output_is_within_the_bound),
        cmocka_unit_test(vectors_with_nan_are_sent_as_zero),
        cmocka_unit_test(noise_has_its_variance),
        cmocka_unit_test(sums_decode_to_the_mean),
        cmocka_unit_test(clipping_keeps_the_direction),
        cmocka_unit_test(one_stream_gives_one_message),
        cmocka_unit_test(lack_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
