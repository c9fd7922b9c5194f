/* SPDX-License-Identifier: Apache-2.0 */
/* The ring encoding: exact sums, honest rounding, no wrap that the check allows. */
#include "testing.h"

#include "linnet/ring.h"
#include "linnet/rng.h"

#include <math.h>

static const uint32_t widths[] = {16, 20, 24, 32};

static void seeded(void *context, void *bytes, size_t n_bytes)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < n_bytes; i += 8) {
        uint8_t word[8];
        linnet_store_le64(word, linnet_rng_next(context));
        memcpy(at + i, word, n_bytes - i < 8 ? n_bytes - i : 8);
    }
}

/* Every random byte the same: 0 rounds down, 255 rounds up whatever has a fraction. */
static void constant(void *context, void *bytes, size_t n_bytes)
{
    memset(bytes, *(const int *)context, n_bytes);
}

static linnet_ring_spec spec_of(uint64_t length, uint32_t bits, uint32_t clamp, int32_t exponent)
{
    return (linnet_ring_spec){
        .length = length, .bits = bits, .clamp = clamp, .exponent = exponent, .weight_max = 1};
}

static void clamp_table_is_the_documents(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, q16, q20, q24, q32;
    } table[] = {/* SECURE-AGGREGATION 2.7 */
                 {5, 6553, 104857, 1677721, 429496729},
                 {20, 1638, 26214, 419430, 107374182},
                 {100, 327, 5242, 83886, 21474836},
                 {1000, 32, 524, 8388, 2147483},
                 {10000, 3, 52, 838, 214748}};
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const uint32_t want[] = {table[i].q16, table[i].q20, table[i].q24, table[i].q32};
        for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
            linnet_ring_spec spec = spec_of(1, widths[w], want[w], 0);
            linnet_error err = {0};
            assert_int_equal(linnet_ring_clamp_max(widths[w], table[i].n, 1), want[w]);
            assert_ok(linnet_ring_check(&spec, table[i].n, &err), &err);
            spec.clamp++;
            assert_int_equal(linnet_ring_check(&spec, table[i].n, &err), LINNET_ERR_RANGE);
        }
    }
    assert_int_equal(linnet_ring_clamp_max(16, 128, 15), 17);
    assert_int_equal(linnet_ring_clamp_max(16, 65536, 65536), 0);
    assert_int_equal(linnet_ring_clamp_max(32, UINT32_MAX, UINT32_MAX), 0);
}

static void bad_specs_are_refused(void **state)
{
    (void)state;
    static const struct {
        linnet_ring_spec spec;
        uint32_t n_clients;
        linnet_status want;
    } cases[] = {
        {{0, 10, 16, 1, 0, 1}, 1, LINNET_OK},
        {{0, 10, 8, 1, 0, 1}, 1, LINNET_ERR_ARG},
        {{0, 10, 0, 1, 0, 1}, 1, LINNET_ERR_ARG},
        {{0, 10, 33, 1, 0, 1}, 1, LINNET_ERR_ARG},
        {{0, 0, 16, 1, 0, 1}, 1, LINNET_ERR_RANGE},
        {{0, UINT64_MAX, 16, 1, 0, 1}, 1, LINNET_ERR_RANGE},
        {{0, 10, 16, 0, 0, 1}, 1, LINNET_ERR_ARG},
        {{0, 10, 16, 1, 0, 0}, 1, LINNET_ERR_ARG},
        {{0, 10, 16, 1, 0, 1}, 0, LINNET_ERR_ARG},
        {{0, 10, 16, 1, 127, 1}, 1, LINNET_ERR_RANGE},
        {{0, 10, 16, 1, INT32_MIN, 1}, 1, LINNET_ERR_RANGE},
        {{0, 10, 16, 32767, 0, 1}, 1, LINNET_OK},
        {{0, 10, 16, 32767, 0, 2}, 1, LINNET_ERR_RANGE},
        {{0, 10, 16, UINT32_MAX, 0, UINT32_MAX}, UINT32_MAX, LINNET_ERR_RANGE},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_error err = {0};
        linnet_status got = linnet_ring_check(&cases[i].spec, cases[i].n_clients, &err);
        if (got != cases[i].want)
            fail_msg("case %zu: got %s, want %s", i, linnet_status_name(got),
                     linnet_status_name(cases[i].want));
    }
}

static void the_exponent_is_the_finest_that_fits(void **state)
{
    (void)state;
    static const double ranges[] = {1e-6, 0.01, 0.0949, 0.5, 1, 1.5, 3, 1000};
    static const uint32_t clamps[] = {1, 3, 17, 255, 256, 32767, 1677721, 1u << 26};
    for (size_t r = 0; r < ARRAY_LEN(ranges); r++)
        for (size_t c = 0; c < ARRAY_LEN(clamps); c++) {
            int32_t f = linnet_ring_exponent(ranges[r], clamps[c]);
            assert_true(ldexp(ranges[r], f) <= clamps[c]);
            assert_true(ldexp(ranges[r], f + 1) > clamps[c]);
        }
    assert_int_equal(linnet_ring_exponent(1, UINT32_MAX), 26); /* room to saturate */
    assert_int_equal(linnet_ring_exponent(0, 5), 0);
    assert_int_equal(linnet_ring_exponent(NAN, 5), 0);
}

static void packed_integers_come_back(void **state)
{
    (void)state;
    const uint64_t seed = 11;
    static const uint64_t lengths[] = {1, 2, 3, 7, 8, 4095, 4096, 4097, 9001};
    linnet_rng rng;
    print_message("seed %llu\n", (unsigned long long)seed);
    linnet_rng_init(&rng, seed, 0);
    for (size_t w = 0; w < ARRAY_LEN(widths); w++)
        for (size_t l = 0; l < ARRAY_LEN(lengths); l++) {
            uint32_t q = linnet_ring_clamp_max(widths[w], 1, 1);
            linnet_ring_spec spec = spec_of(lengths[l], widths[w], q, 0);
            size_t n = (size_t)lengths[l], n_bytes = linnet_ring_bytes(&spec);
            int64_t *values = malloc(n * sizeof(values[0]));
            uint8_t *packed = malloc(n_bytes);
            uint32_t *sum = calloc(n, sizeof(sum[0]));
            linnet_error err = {0};
            assert_int_equal(n_bytes, (n * widths[w] + 7) / 8);
            for (size_t i = 0; i < n; i++)
                values[i] = (int64_t)linnet_rng_below(&rng, 2 * (uint64_t)q + 1) - q;
            values[0] = q;
            values[n - 1] = -(int64_t)q;
            memset(packed, 0xff, n_bytes);
            assert_ok(linnet_ring_encode_integers(&spec, values, packed, &err), &err);
            assert_int_equal(linnet_ring_check_tail(&spec, packed), LINNET_OK);
            linnet_ring_fold(&spec, 0, n, packed, sum);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(linnet_ring_lift(widths[w], sum[i]), values[i]);
            values[n / 2] = (int64_t)q + 1;
            assert_int_equal(linnet_ring_encode_integers(&spec, values, packed, &err), LINNET_ERR_RANGE);
            values[n / 2] = -(int64_t)q - 1;
            assert_int_equal(linnet_ring_encode_integers(&spec, values, packed, &err), LINNET_ERR_RANGE);
            values[n / 2] = INT64_MIN;
            assert_int_equal(linnet_ring_encode_integers(&spec, values, packed, &err), LINNET_ERR_RANGE);
            free(values);
            free(packed);
            free(sum);
        }
}

static void bits_lie_where_the_format_says(void **state)
{
    (void)state;
    static const int64_t values[3] = {0x12345, -2, 7};
    static const struct {
        uint32_t bits;
        uint8_t bytes[12];
    } want[] = {
        {20, {0x45, 0x23, 0xe1, 0xff, 0xff, 0x07, 0x00, 0x00}},
        {24, {0x45, 0x23, 0x01, 0xfe, 0xff, 0xff, 0x07, 0x00, 0x00}},
        {32, {0x45, 0x23, 0x01, 0x00, 0xfe, 0xff, 0xff, 0xff, 0x07, 0x00, 0x00, 0x00}},
    };
    for (size_t w = 0; w < ARRAY_LEN(want); w++) {
        linnet_ring_spec spec = spec_of(3, want[w].bits, 0x12345, 0);
        uint8_t packed[12];
        linnet_error err = {0};
        assert_ok(linnet_ring_encode_integers(&spec, values, packed, &err), &err);
        assert_memory_equal(packed, want[w].bytes, linnet_ring_bytes(&spec));
    }
    linnet_ring_spec spec16 = spec_of(2, 16, 300, 0);
    static const int64_t small[2] = {258, -300};
    uint8_t packed[4];
    linnet_error err = {0};
    assert_ok(linnet_ring_encode_integers(&spec16, small, packed, &err), &err);
    assert_memory_equal(packed, "\x02\x01\xd4\xfe", 4);
}

static void bits_behind_the_last_coordinate_are_seen(void **state)
{
    (void)state;
    for (uint64_t length = 1; length <= 6; length++) {
        linnet_ring_spec spec = spec_of(length, 20, 1, 0);
        uint8_t packed[15] = {0};
        size_t last = linnet_ring_bytes(&spec) - 1;
        assert_int_equal(linnet_ring_check_tail(&spec, packed), LINNET_OK);
        packed[last] = 0x0f; /* belongs to the last coordinate */
        assert_int_equal(linnet_ring_check_tail(&spec, packed), LINNET_OK);
        for (unsigned bit = 4; bit < 8; bit++) {
            packed[last] = (uint8_t)(1u << bit);
            assert_int_equal(linnet_ring_check_tail(&spec, packed),
                             length % 2 ? LINNET_ERR_FORMAT : LINNET_OK);
        }
    }
}

static void sums_are_exact_at_the_extremes(void **state)
{
    (void)state;
    enum { n_clients = 37, length = 1001, weight_max = 13 };
    const uint64_t seed = 5;
    linnet_rng rng;
    print_message("seed %llu\n", (unsigned long long)seed);
    linnet_rng_init(&rng, seed, 0);
    for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
        linnet_ring_spec spec =
            spec_of(length, widths[w], linnet_ring_clamp_max(widths[w], n_clients, weight_max), 4);
        static float values[length];
        static uint8_t packed[4 * length];
        static uint32_t sum[length];
        static int64_t exact[length];
        linnet_error err = {0};
        spec.weight_max = weight_max;
        memset(sum, 0, sizeof(sum));
        memset(exact, 0, sizeof(exact));
        assert_ok(linnet_ring_check(&spec, n_clients, &err), &err);
        for (size_t c = 0; c < n_clients; c++) {
            uint32_t weight = c % 3 ? weight_max : 1 + (uint32_t)linnet_rng_below(&rng, weight_max);
            uint64_t n_saturated = 0, n_beyond = 0;
            for (size_t i = 0; i < length; i++) { /* whole numbers: nothing to round */
                int64_t z = (int64_t)linnet_rng_below(&rng, 2 * (uint64_t)spec.clamp + 1) - spec.clamp;
                if (i % 3 == 0)
                    z = i % 2 ? (int64_t)spec.clamp : -(int64_t)spec.clamp;
                if (i == 5)
                    z = (int64_t)spec.clamp + 40; /* saturates */
                if (spec.clamp > 1 << 24)
                    z &= ~INT64_C(255); /* what float32 holds */
                values[i] = (float)ldexp((double)z, -4);
                int64_t clamped = z > (int64_t)spec.clamp    ? (int64_t)spec.clamp
                                  : z < -(int64_t)spec.clamp ? -(int64_t)spec.clamp
                                                             : z;
                n_beyond += clamped != z;
                exact[i] += clamped * weight;
            }
            assert_ok(linnet_ring_encode(&spec, values, weight, seeded, &rng, packed, &n_saturated, &err),
                      &err);
            assert_int_equal(n_saturated, n_beyond);
            linnet_ring_fold(&spec, 0, length, packed, sum);
        }
        for (size_t i = 0; i < length; i++)
            assert_int_equal(linnet_ring_lift(widths[w], sum[i]), exact[i]);
    }
}

static void a_fold_in_chunks_is_the_whole_fold(void **state)
{
    (void)state;
    enum { length = 3 * LINNET_RING_CHUNK + 77 };
    static float values[length];
    static uint32_t whole[length], chunked[length];
    static uint8_t packed[4 * length];
    linnet_rng rng;
    linnet_error err = {0};
    linnet_rng_init(&rng, 3, 0);
    for (size_t i = 0; i < length; i++)
        values[i] = (float)linnet_rng_normal(&rng);
    for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
        linnet_ring_spec spec = spec_of(length, widths[w], 1000, 8);
        assert_ok(linnet_ring_encode(&spec, values, 1, seeded, &rng, packed, NULL, &err), &err);
        memset(whole, 0, sizeof(whole));
        memset(chunked, 0, sizeof(chunked));
        linnet_ring_fold(&spec, 0, length, packed, whole);
        for (size_t first = 0; first < length; first += LINNET_RING_CHUNK) {
            size_t n = length - first < LINNET_RING_CHUNK ? length - first : LINNET_RING_CHUNK;
            linnet_ring_fold(&spec, first, n, packed + first * widths[w] / 8, chunked);
        }
        assert_memory_equal(whole, chunked, sizeof(whole));
    }
}

static void rounding_goes_to_the_neighbours_only(void **state)
{
    (void)state;
    static const float values[] = {0, 0.25f, -0.25f, 1, -1, 2.75f, -2.75f, 0.9999999f, 1e-30f, -1e-30f};
    static const int down[] = {0, 0, -1, 1, -1, 2, -3, 0, 0, 0};
    static const int up[] = {0, 1, 0, 1, -1, 3, -2, 1, 0, 0}; /* 1e-30 is below 2^-32: counts as 0 */
    linnet_ring_spec spec = spec_of(ARRAY_LEN(values), 32, 1000, 0);
    for (int side = 0; side < 2; side++) {
        int byte = side ? 255 : 0;
        uint8_t packed[4 * ARRAY_LEN(values)];
        uint32_t sum[ARRAY_LEN(values)] = {0};
        linnet_error err = {0};
        assert_ok(linnet_ring_encode(&spec, values, 1, constant, &byte, packed, NULL, &err), &err);
        linnet_ring_fold(&spec, 0, ARRAY_LEN(values), packed, sum);
        for (size_t i = 0; i < ARRAY_LEN(values); i++)
            assert_int_equal(linnet_ring_lift(32, sum[i]), side ? up[i] : down[i]);
    }
}

/* FEDERATED-LORA 9: the mean over N clients of a value that is uniform against the grid has an error of RMS
 * delta sqrt(1/(6N)) and never more than delta. */
static void the_error_of_a_mean_is_the_predicted_one(void **state)
{
    (void)state;
    enum { n_clients = 32, length = 20000 };
    const uint64_t seed = 17;
    static float values[length], decoded[length];
    static double exact[length];
    static uint32_t sum[length];
    static uint8_t packed[4 * length];
    linnet_ring_spec spec = spec_of(length, 20, 1000, 9);
    linnet_rng rng;
    linnet_error err = {0};
    double step = ldexp(1, -9), squares = 0, signed_sum = 0;
    print_message("seed %llu\n", (unsigned long long)seed);
    linnet_rng_init(&rng, seed, 0);
    for (size_t c = 0; c < n_clients; c++) {
        for (size_t i = 0; i < length; i++) {
            values[i] = (float)(linnet_rng_double(&rng) - 0.5);
            exact[i] += values[i];
        }
        assert_ok(linnet_ring_encode(&spec, values, 1, seeded, &rng, packed, NULL, &err), &err);
        linnet_ring_fold(&spec, 0, length, packed, sum);
    }
    assert_ok(linnet_ring_decode(&spec, sum, n_clients, decoded, &err), &err);
    for (size_t i = 0; i < length; i++) {
        double error = decoded[i] - exact[i] / n_clients;
        assert_true(fabs(error) <= step);
        squares += error * error;
        signed_sum += error;
    }
    double predicted = step * sqrt(1.0 / (6 * n_clients)), rms = sqrt(squares / length);
    print_message("rms %.4f of the predicted\n", rms / predicted);
    assert_true(fabs(rms / predicted - 1) < 0.05);
    assert_true(fabs(signed_sum / length) < 5 * predicted / sqrt(length)); /* the mean within 5 sigma */
}

static void rounding_of_one_value_has_its_mean(void **state)
{
    (void)state;
    enum { length = 40000 };
    static const float fractions[] = {0.1f, 0.5f, 0.93f, -0.3f, 5.0625f};
    static float values[length], decoded[length];
    static uint32_t sum[length];
    static uint8_t packed[2 * length];
    linnet_ring_spec spec = spec_of(length, 16, 10, 0);
    linnet_rng rng;
    linnet_error err = {0};
    linnet_rng_init(&rng, 23, 0);
    for (size_t f = 0; f < ARRAY_LEN(fractions); f++) {
        double mean = 0, part = fractions[f] - floor(fractions[f]);
        memset(sum, 0, sizeof(sum));
        for (size_t i = 0; i < length; i++)
            values[i] = fractions[f];
        assert_ok(linnet_ring_encode(&spec, values, 1, seeded, &rng, packed, NULL, &err), &err);
        linnet_ring_fold(&spec, 0, length, packed, sum);
        assert_ok(linnet_ring_decode(&spec, sum, 1, decoded, &err), &err);
        for (size_t i = 0; i < length; i++)
            mean += decoded[i] / length;
        assert_true(fabs(mean - fractions[f]) < 5 * sqrt(part * (1 - part) / length));
    }
}

static void values_that_have_no_place_are_refused(void **state)
{
    (void)state;
    static const struct {
        float value;
        int32_t exponent;
        linnet_status want;
    } cases[] = {
        {NAN, 0, LINNET_ERR_RANGE},      {INFINITY, 0, LINNET_ERR_RANGE}, {-INFINITY, 0, LINNET_ERR_RANGE},
        {0x1p30f, 0, LINNET_ERR_RANGE},  {-0x1p30f, 0, LINNET_ERR_RANGE}, {0x1.fffffep29f, 0, LINNET_OK},
        {3e38f, 126, LINNET_ERR_RANGE},  {3e38f, -126, LINNET_OK},        {1e-40f, 126, LINNET_OK},
        {0x1p10f, 20, LINNET_ERR_RANGE}, {0x1p10f, 19, LINNET_OK},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_ring_spec spec = spec_of(5, 16, 100, cases[i].exponent);
        float values[5] = {0, 0, 0, cases[i].value, 0};
        uint8_t packed[10];
        uint64_t n_saturated = 99;
        int byte = 0;
        linnet_error err = {0};
        linnet_status got = linnet_ring_encode(&spec, values, 1, constant, &byte, packed, &n_saturated, &err);
        if (got != cases[i].want || (got != LINNET_OK && n_saturated != 99))
            fail_msg("case %zu: got %s", i, linnet_status_name(got));
    }
}

static void weights_are_bounded(void **state)
{
    (void)state;
    linnet_ring_spec spec = spec_of(1, 16, 100, 0);
    float value = 3, decoded = 0;
    uint8_t packed[2];
    uint32_t sum = 0;
    int byte = 0;
    linnet_error err = {0};
    spec.weight_max = 15;
    assert_int_equal(linnet_ring_encode(&spec, &value, 0, constant, &byte, packed, NULL, &err),
                     LINNET_ERR_ARG);
    assert_int_equal(linnet_ring_encode(&spec, &value, 16, constant, &byte, packed, NULL, &err),
                     LINNET_ERR_ARG);
    assert_ok(linnet_ring_encode(&spec, &value, 15, constant, &byte, packed, NULL, &err), &err);
    linnet_ring_fold(&spec, 0, 1, packed, &sum);
    assert_int_equal(sum, 45);
    assert_ok(linnet_ring_decode(&spec, &sum, 15, &decoded, &err), &err);
    assert_true(decoded == 3);
    assert_int_equal(linnet_ring_decode(&spec, &sum, 0, &decoded, &err), LINNET_ERR_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clamp_table_is_the_documents),
        cmocka_unit_test(bad_specs_are_refused),
        cmocka_unit_test(the_exponent_is_the_finest_that_fits),
        cmocka_unit_test(packed_integers_come_back),
        cmocka_unit_test(bits_lie_where_the_format_says),
        cmocka_unit_test(bits_behind_the_last_coordinate_are_seen),
        cmocka_unit_test(sums_are_exact_at_the_extremes),
        cmocka_unit_test(a_fold_in_chunks_is_the_whole_fold),
        cmocka_unit_test(rounding_goes_to_the_neighbours_only),
        cmocka_unit_test(the_error_of_a_mean_is_the_predicted_one),
        cmocka_unit_test(rounding_of_one_value_has_its_mean),
        cmocka_unit_test(values_that_have_no_place_are_refused),
        cmocka_unit_test(weights_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
