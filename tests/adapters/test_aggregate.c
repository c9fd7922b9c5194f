/* SPDX-License-Identifier: Apache-2.0 */
/* Aggregation: exact where it is said to be, and visibly inexact where it is not (FEDERATED-LORA 9). Clients
 * fit W = s B A to their own pairs (x, y) by gradient descent on the mean squared error, in double. */
#include "fixture.h"

#include "linnet/aggregate.h"
#include "linnet/ring.h"

#include <math.h>

enum { N = 8, RANK = 3, SAMPLES = 16, CLIENTS = 5, SIZE = N * RANK };

typedef struct client_data {
    double x[SAMPLES][N], y[SAMPLES][N];
} client_data;

static linnet_gguf *model;
static client_data clients[CLIENTS];

static int make_clients(void **state)
{
    linnet_rng rng;
    if (make_folder(state) != 0)
        return -1;
    model = tiny_model(in_folder("tiny.gguf"));
    linnet_rng_init(&rng, 2024, 0);
    for (size_t c = 0; c < CLIENTS; c++)
        for (size_t s = 0; s < SAMPLES; s++)
            for (size_t i = 0; i < N; i++) {
                clients[c].x[s][i] = linnet_rng_normal(&rng);
                clients[c].y[s][i] = linnet_rng_normal(&rng) + (double)c;
            }
    return model ? 0 : -1;
}

static int drop_clients(void **state)
{
    linnet_gguf_close(model);
    return remove_folder(state);
}

/* One step on n samples, for the active factors of blk.0.attn_q. */
static void sgd_step(linnet_adapter *adapter, double (*x)[N], double (*y)[N], size_t n, linnet_factors active,
                     double rate)
{
    float *a = linnet_adapter_a(adapter, 0), *b = linnet_adapter_b(adapter, 0);
    double s = adapter->layout->alpha / RANK, d_a[SIZE] = {0}, d_b[SIZE] = {0};
    for (size_t t = 0; t < n; t++) {
        double h[RANK] = {0}, d_h[RANK] = {0};
        for (size_t k = 0; k < RANK; k++)
            for (size_t i = 0; i < N; i++)
                h[k] += a[k * N + i] * x[t][i];
        for (size_t o = 0; o < N; o++) {
            double d_y = -y[t][o];
            for (size_t k = 0; k < RANK; k++)
                d_y += s * b[o * RANK + k] * h[k];
            for (size_t k = 0; k < RANK; k++) {
                d_b[o * RANK + k] += s * d_y * h[k] / (double)n;
                d_h[k] += s * d_y * b[o * RANK + k] / (double)n;
            }
        }
        for (size_t k = 0; k < RANK; k++)
            for (size_t i = 0; i < N; i++)
                d_a[k * N + i] += d_h[k] * x[t][i];
    }
    for (size_t i = 0; i < SIZE; i++) {
        a[i] = (float)(a[i] - (active & LINNET_FACTOR_A ? rate * d_a[i] : 0));
        b[i] = (float)(b[i] - (active & LINNET_FACTOR_B ? rate * d_b[i] : 0));
    }
}

static linnet_adapter *start_from(bool zero_b)
{
    linnet_adapter *adapter = random_adapter(model, "attn_q", RANK, 6, 9);
    if (zero_b)
        linnet_adapter_init(adapter, 4);
    return adapter;
}

static linnet_adapter *copy_of(const linnet_adapter *adapter)
{
    linnet_adapter *copy = NULL;
    linnet_error err = {0};
    assert_ok(linnet_adapter_copy(adapter, &copy, &err), &err);
    return copy;
}

/* Deltas of all clients after `steps` full-batch steps from `global`; each vector has both layers' factor. */
static void train_clients(const linnet_adapter *global, linnet_factors active, size_t steps, double rate,
                          linnet_adapter *trained[CLIENTS])
{
    for (size_t c = 0; c < CLIENTS; c++) {
        trained[c] = copy_of(global);
        for (size_t t = 0; t < steps; t++)
            sgd_step(trained[c], clients[c].x, clients[c].y, SAMPLES, active, rate);
    }
}

/* Add the weighted mean delta of one factor by a FedAvg step. */
static void average(linnet_adapter *global, const linnet_adapter *before, linnet_adapter *const trained[],
                    const double *weights, size_t n_clients, linnet_factors factor)
{
    float delta[2 * SIZE], mean[2 * SIZE];
    double sums[2 * SIZE] = {0}, weight_sum = 0;
    linnet_server_state state = {0};
    size_t n = linnet_factors_length(before->layout, factor);
    for (size_t c = 0; c < n_clients; c++) {
        linnet_delta_of(trained[c], before, factor, delta);
        for (size_t i = 0; i < n; i++)
            sums[i] += weights[c] * delta[i];
        weight_sum += weights[c];
    }
    for (size_t i = 0; i < n; i++)
        mean[i] = (float)(sums[i] / weight_sum);
    linnet_server_step(LINNET_SERVER_FEDAVG, 1, 0, &state, global, factor, mean);
}

static void product(const linnet_adapter *adapter, double out[N * N])
{
    const float *a = linnet_adapter_a(adapter, 0), *b = linnet_adapter_b(adapter, 0);
    for (size_t o = 0; o < N; o++)
        for (size_t i = 0; i < N; i++) {
            out[o * N + i] = 0;
            for (size_t k = 0; k < RANK; k++)
                out[o * N + i] += (double)b[o * RANK + k] * a[k * N + i];
        }
}

static double largest(const double *x, size_t n)
{
    double max = 0;
    for (size_t i = 0; i < n; i++)
        max = fabs(x[i]) > max ? fabs(x[i]) : max;
    return max;
}

/* Largest difference between the product of the averaged factors and the average of the products, relative.
 */
static double product_error(const linnet_adapter *averaged, linnet_adapter *const trained[],
                            const double *weights)
{
    double mean[N * N] = {0}, of_means[N * N], one[N * N], weight_sum = 0;
    for (size_t c = 0; c < CLIENTS; c++)
        weight_sum += weights[c];
    for (size_t c = 0; c < CLIENTS; c++) {
        product(trained[c], one);
        for (size_t i = 0; i < N * N; i++)
            mean[i] += weights[c] / weight_sum * one[i];
    }
    product(averaged, of_means);
    double scale = largest(mean, N * N);
    for (size_t i = 0; i < N * N; i++)
        of_means[i] -= mean[i];
    return largest(of_means, N * N) / scale;
}

static void destroy_all(linnet_adapter *adapters[CLIENTS])
{
    for (size_t c = 0; c < CLIENTS; c++)
        linnet_adapter_destroy(adapters[c]);
}

static const double even[CLIENTS] = {1, 1, 1, 1, 1}, uneven[CLIENTS] = {3, 1, 15, 7, 2};

/* ---- rules ---- */

static void rules_name_the_active_factors(void **state)
{
    (void)state;
    static const struct {
        linnet_rule rule;
        uint64_t version;
        linnet_factors want;
    } cases[] = {
        {LINNET_RULE_ALTERNATE, 0, LINNET_FACTOR_B},  {LINNET_RULE_ALTERNATE, 1, LINNET_FACTOR_A},
        {LINNET_RULE_ALTERNATE, 2, LINNET_FACTOR_B},  {LINNET_RULE_ALTERNATE, UINT64_MAX, LINNET_FACTOR_A},
        {LINNET_RULE_FFA, 0, LINNET_FACTOR_B},        {LINNET_RULE_FFA, 1, LINNET_FACTOR_B},
        {LINNET_RULE_FEDAVG, 0, LINNET_FACTORS_BOTH}, {LINNET_RULE_FEDAVG, 1, LINNET_FACTORS_BOTH},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(linnet_rule_factors(cases[i].rule, cases[i].version), cases[i].want);
    assert_string_equal(linnet_rule_name(LINNET_RULE_ALTERNATE), "alternate");
    assert_string_equal(linnet_rule_name(LINNET_RULE_FFA), "ffa");
    assert_string_equal(linnet_rule_name(LINNET_RULE_FEDAVG), "fedavg");
    assert_string_equal(linnet_server_optimizer_name(LINNET_SERVER_FEDAVGM), "fedavgm");
}

static void one_averaged_step_is_the_central_step(void **state)
{
    (void)state;
    static const linnet_factors phases[] = {LINNET_FACTOR_B, LINNET_FACTOR_A, LINNET_FACTORS_BOTH};
    static double x[CLIENTS * SAMPLES][N], y[CLIENTS * SAMPLES][N];
    for (size_t c = 0; c < CLIENTS; c++) {
        memcpy(x[c * SAMPLES], clients[c].x, sizeof(clients[c].x));
        memcpy(y[c * SAMPLES], clients[c].y, sizeof(clients[c].y));
    }
    for (size_t p = 0; p < ARRAY_LEN(phases); p++) {
        linnet_adapter *global = start_from(false), *averaged = copy_of(global), *central = copy_of(global);
        linnet_adapter *trained[CLIENTS];
        float moved = 0;
        train_clients(global, phases[p], 1, 0.01, trained);
        if (phases[p] & LINNET_FACTOR_A)
            average(averaged, global, trained, even, CLIENTS, LINNET_FACTOR_A);
        if (phases[p] & LINNET_FACTOR_B)
            average(averaged, global, trained, even, CLIENTS, LINNET_FACTOR_B);
        sgd_step(central, x, y, CLIENTS * SAMPLES, phases[p], 0.01);
        for (size_t i = 0; i < global->layout->n_parameters; i++) {
            moved = fmaxf(moved, fabsf(central->data[i] - global->data[i]));
            assert_true(fabsf(averaged->data[i] - central->data[i]) <= 1e-6f);
        }
        assert_true(moved > 0.01f); /* it was a step */
        destroy_all(trained);
        linnet_adapter_destroy(central);
        linnet_adapter_destroy(averaged);
        linnet_adapter_destroy(global);
    }
}

static void one_factor_at_a_time_is_exact(void **state)
{
    (void)state;
    static const linnet_factors factors[] = {LINNET_FACTOR_A, LINNET_FACTOR_B};
    for (size_t f = 0; f < 2; f++) {
        linnet_adapter *global = start_from(false), *averaged = copy_of(global), *trained[CLIENTS];
        train_clients(global, factors[f], 10, 0.005, trained);
        average(averaged, global, trained, uneven, CLIENTS, factors[f]);
        double error = product_error(averaged, trained, uneven);
        print_message("factor %s: relative error of the product %.2g\n", f ? "B" : "A", error);
        assert_true(error <= 1e-6);
        destroy_all(trained);
        linnet_adapter_destroy(averaged);
        linnet_adapter_destroy(global);
    }
}

static void both_factors_at_once_are_exact_from_zero_b_only(void **state)
{
    (void)state;
    for (int zero_b = 0; zero_b < 2; zero_b++) {
        linnet_adapter *global = start_from(zero_b), *averaged = copy_of(global), *trained[CLIENTS];
        train_clients(global, LINNET_FACTORS_BOTH, zero_b ? 1 : 10, 0.01, trained);
        average(averaged, global, trained, uneven, CLIENTS, LINNET_FACTOR_A);
        average(averaged, global, trained, uneven, CLIENTS, LINNET_FACTOR_B);
        double error = product_error(averaged, trained, uneven);
        print_message("from B %s 0: relative error of the product %.2g\n", zero_b ? "=" : "!=", error);
        assert_true(zero_b ? error < 1e-6 : error > 1e-3);
        destroy_all(trained);
        linnet_adapter_destroy(averaged);
        linnet_adapter_destroy(global);
    }
}

/* FEDERATED-LORA 1: sum p_k B_k A_k - mean B mean A = sum p_k (B_k - mean B)(A_k - mean A). */
static void the_error_is_the_cross_covariance(void **state)
{
    (void)state;
    linnet_adapter *global = start_from(false), *averaged = copy_of(global), *trained[CLIENTS];
    double left[N * N] = {0}, right[N * N] = {0}, one[N * N], weight_sum = 28;
    train_clients(global, LINNET_FACTORS_BOTH, 10, 0.01, trained);
    average(averaged, global, trained, uneven, CLIENTS, LINNET_FACTOR_A);
    average(averaged, global, trained, uneven, CLIENTS, LINNET_FACTOR_B);
    for (size_t c = 0; c < CLIENTS; c++) {
        product(trained[c], one);
        for (size_t i = 0; i < N * N; i++)
            left[i] += uneven[c] / weight_sum * one[i];
        for (size_t i = 0; i < trained[c]->layout->n_parameters; i++)
            trained[c]->data[i] -= averaged->data[i];
        product(trained[c], one);
        for (size_t i = 0; i < N * N; i++)
            right[i] += uneven[c] / weight_sum * one[i];
    }
    product(averaged, one);
    double scale = largest(right, N * N);
    for (size_t i = 0; i < N * N; i++)
        assert_true(fabs(left[i] - one[i] - right[i]) <= 1e-5 * scale);
    destroy_all(trained);
    linnet_adapter_destroy(averaged);
    linnet_adapter_destroy(global);
}

/* ---- clients ---- */

static void a_client_split_in_two_counts_the_same(void **state)
{
    (void)state;
    linnet_adapter *global = start_from(false), *whole = copy_of(global), *halves = copy_of(global);
    linnet_adapter *one[1] = {copy_of(global)}, *two[2] = {copy_of(global), copy_of(global)};
    sgd_step(one[0], clients[0].x, clients[0].y, SAMPLES, LINNET_FACTOR_B, 0.01);
    sgd_step(two[0], clients[0].x, clients[0].y, SAMPLES / 2, LINNET_FACTOR_B, 0.01);
    sgd_step(two[1], clients[0].x + SAMPLES / 2, clients[0].y + SAMPLES / 2, SAMPLES / 2, LINNET_FACTOR_B,
             0.01);
    average(whole, global, one, even, 1, LINNET_FACTOR_B);
    average(halves, global, two, even, 2, LINNET_FACTOR_B);
    for (size_t i = 0; i < 2 * SIZE; i++)
        assert_true(fabsf(whole->data[i] - halves->data[i]) <= 1e-6f);
    linnet_adapter_destroy(one[0]);
    linnet_adapter_destroy(two[0]);
    linnet_adapter_destroy(two[1]);
    linnet_adapter_destroy(whole);
    linnet_adapter_destroy(halves);
    linnet_adapter_destroy(global);
}

static void no_client_matters_by_its_place_or_without_weight(void **state)
{
    (void)state;
    linnet_adapter *global = start_from(false), *plain = copy_of(global), *other = copy_of(global),
                   *trained[CLIENTS];
    train_clients(global, LINNET_FACTOR_B, 3, 0.01, trained);
    average(plain, global, trained, uneven, 4, LINNET_FACTOR_B);
    linnet_adapter *permuted[CLIENTS] = {trained[2], trained[4], trained[0], trained[3], trained[1]};
    static const double weights[CLIENTS] = {15, 0, 3, 7, 1}; /* trained[4] without weight */
    average(other, global, permuted, weights, CLIENTS, LINNET_FACTOR_B);
    for (size_t i = 0; i < 2 * SIZE; i++)
        assert_true(fabsf(plain->data[i] - other->data[i]) <= 1e-6f);
    destroy_all(trained);
    linnet_adapter_destroy(plain);
    linnet_adapter_destroy(other);
    linnet_adapter_destroy(global);
}

static void seeded(void *context, void *bytes, size_t n_bytes)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < n_bytes; i++)
        at[i] = (uint8_t)(linnet_rng_next(context) >> 56);
}

/* The same round through the ring: the sum has no order, and the mean is off by less than one lattice step.
 */
static void a_round_through_the_ring_is_the_float_round(void **state)
{
    (void)state;
    linnet_adapter *global = start_from(false), *exact = copy_of(global), *ringed = copy_of(global),
                   *trained[CLIENTS];
    linnet_ring_spec spec = {.length = linnet_factors_length(global->layout, LINNET_FACTOR_B),
                             .bits = 24,
                             .clamp = linnet_ring_clamp_max(24, CLIENTS, 15),
                             .weight_max = 15};
    static uint8_t packed[CLIENTS][3 * 2 * SIZE];
    uint32_t sum[2 * SIZE] = {0}, reversed[2 * SIZE] = {0};
    float delta[2 * SIZE], mean[2 * SIZE];
    double range = 0;
    linnet_rng rng;
    linnet_error err = {0};
    linnet_rng_init(&rng, 1, 1);
    train_clients(global, LINNET_FACTOR_B, 3, 0.01, trained);
    average(exact, global, trained, uneven, CLIENTS, LINNET_FACTOR_B);
    for (size_t c = 0; c < CLIENTS; c++) {
        linnet_delta_of(trained[c], global, LINNET_FACTOR_B, delta);
        for (size_t i = 0; i < spec.length; i++)
            range = fabs(delta[i]) > range ? fabs(delta[i]) : range;
    }
    spec.exponent = linnet_ring_exponent(range, spec.clamp);
    assert_ok(linnet_ring_check(&spec, CLIENTS, &err), &err);
    for (size_t c = 0; c < CLIENTS; c++) {
        uint64_t n_saturated = 1;
        linnet_delta_of(trained[c], global, LINNET_FACTOR_B, delta);
        assert_ok(linnet_ring_encode(&spec, delta, (uint32_t)uneven[c], seeded, &rng, packed[c], &n_saturated,
                                     &err),
                  &err);
        assert_int_equal(n_saturated, 0);
    }
    for (size_t c = 0; c < CLIENTS; c++) {
        linnet_ring_fold(&spec, 0, (size_t)spec.length, packed[c], sum);
        linnet_ring_fold(&spec, 0, (size_t)spec.length, packed[CLIENTS - 1 - c], reversed);
    }
    assert_memory_equal(sum, reversed, sizeof(sum));
    assert_ok(linnet_ring_decode(&spec, sum, 28, mean, &err), &err);
    linnet_server_state none = {0};
    linnet_server_step(LINNET_SERVER_FEDAVG, 1, 0, &none, ringed, LINNET_FACTOR_B, mean);
    for (size_t i = 0; i < ringed->layout->n_parameters; i++)
        assert_true(fabs(ringed->data[i] - exact->data[i]) <= ldexp(1, -spec.exponent) + 1e-6);
    destroy_all(trained);
    linnet_adapter_destroy(ringed);
    linnet_adapter_destroy(exact);
    linnet_adapter_destroy(global);
}

/* ---- server steps ---- */

static void momentum_zero_is_plain_averaging(void **state)
{
    (void)state;
    linnet_adapter *plain = start_from(false), *with = copy_of(plain), *before = copy_of(plain);
    linnet_adapter *trained[CLIENTS];
    linnet_server_state none = {0}, momentum = {0};
    linnet_error err = {0};
    float mean[2 * SIZE];
    assert_ok(linnet_server_state_init(&momentum, LINNET_SERVER_FEDAVGM, plain->layout->n_parameters, &err),
              &err);
    train_clients(before, LINNET_FACTORS_BOTH, 2, 0.01, trained);
    for (size_t round = 0; round < 3; round++) {
        linnet_factors factor = round % 2 ? LINNET_FACTOR_A : LINNET_FACTOR_B;
        linnet_delta_of(trained[round], before, factor, mean);
        linnet_server_step(LINNET_SERVER_FEDAVG, 0.7, 0, &none, plain, factor, mean);
        linnet_server_step(LINNET_SERVER_FEDAVGM, 0.7, 0, &momentum, with, factor, mean);
        assert_memory_equal(plain->data, with->data, plain->layout->n_parameters * sizeof(float));
    }
    linnet_server_state_release(&momentum);
    assert_null(momentum.momentum);
    destroy_all(trained);
    linnet_adapter_destroy(before);
    linnet_adapter_destroy(plain);
    linnet_adapter_destroy(with);
}

static void momentum_follows_its_recurrence_in_its_own_phase(void **state)
{
    (void)state;
    linnet_adapter *adapter = start_from(true);
    const linnet_layout *layout = adapter->layout;
    linnet_server_state momentum = {0};
    linnet_error err = {0};
    float mean[2 * SIZE];
    for (size_t i = 0; i < 2 * SIZE; i++)
        mean[i] = 1;
    assert_ok(linnet_server_state_init(&momentum, LINNET_SERVER_FEDAVGM, layout->n_parameters, &err), &err);
    linnet_server_step(LINNET_SERVER_FEDAVGM, 0.5, 0.75, &momentum, adapter, LINNET_FACTOR_B,
                       mean); /* v 1, x 0.5 */
    float a0 = linnet_adapter_a(adapter, 1)[0];
    linnet_server_step(LINNET_SERVER_FEDAVGM, 0.5, 0.75, &momentum, adapter, LINNET_FACTOR_A, mean);
    assert_true(linnet_adapter_a(adapter, 1)[0] == a0 + 0.5f);
    linnet_server_step(LINNET_SERVER_FEDAVGM, 0.5, 0.75, &momentum, adapter, LINNET_FACTOR_B,
                       mean); /* v 1.75 */
    for (size_t e = 0; e < layout->n_entries; e++)
        for (size_t i = 0; i < SIZE; i++) {
            assert_true(linnet_adapter_b(adapter, e)[i] == 0.5f + 0.875f);
            assert_true(momentum.momentum[layout->entries[e].b_offset + i] == 1.75f);
            assert_true(momentum.momentum[layout->entries[e].a_offset + i] == 1);
        }
    linnet_server_state_release(&momentum);
    linnet_adapter_destroy(adapter);
}

static void the_cosine_falls_from_one_to_its_end(void **state)
{
    (void)state;
    assert_true(linnet_schedule_cosine(0, 20, 0.02) == 1);
    assert_true(linnet_schedule_cosine(19, 20, 0.02) == 0.02);
    assert_true(linnet_schedule_cosine(500, 20, 0.02) == 0.02);
    assert_true(linnet_schedule_cosine(UINT64_MAX, UINT64_MAX, 0.02) == 0.02);
    assert_true(linnet_schedule_cosine(0, 1, 0.02) == 1 && linnet_schedule_cosine(7, 0, 0.02) == 1);
    assert_true(fabs(linnet_schedule_cosine(2, 5, 0) - 0.5) < 1e-12);
    assert_true(fabs(linnet_schedule_cosine(1, 5, 0) - 0.8535533905932737) < 1e-12);
    for (uint64_t r = 1; r < 20; r++)
        assert_true(linnet_schedule_cosine(r, 20, 0.02) < linnet_schedule_cosine(r - 1, 20, 0.02));
}

static void the_range_sums_the_warm_up(void **state)
{
    (void)state;
    static const struct {
        uint32_t steps, warmup;
        double want;
    } cases[] = {{10, 0, 10},
                 {10, 3, 9},
                 {10, 1, 10},
                 {2, 4, 0.75},
                 {3, 3, 2},
                 {0, 3, 0},
                 {UINT32_MAX, 0, 4294967295.0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        double slow = 0;
        assert_true(fabs(linnet_delta_range(1, cases[i].steps, cases[i].warmup) - cases[i].want) < 1e-9);
        for (uint32_t s = 1; cases[i].steps < 100 && s <= cases[i].steps; s++)
            slow += cases[i].warmup ? fmin(1, (double)s / cases[i].warmup) : 1;
        if (cases[i].steps < 100)
            assert_true(fabs(linnet_delta_range(0.01, cases[i].steps, cases[i].warmup) - 0.01 * slow) <
                        1e-12);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_name_the_active_factors),
        cmocka_unit_test(one_averaged_step_is_the_central_step),
        cmocka_unit_test(one_factor_at_a_time_is_exact),
        cmocka_unit_test(both_factors_at_once_are_exact_from_zero_b_only),
        cmocka_unit_test(the_error_is_the_cross_covariance),
        cmocka_unit_test(a_client_split_in_two_counts_the_same),
        cmocka_unit_test(no_client_matters_by_its_place_or_without_weight),
        cmocka_unit_test(a_round_through_the_ring_is_the_float_round),
        cmocka_unit_test(momentum_zero_is_plain_averaging),
        cmocka_unit_test(momentum_follows_its_recurrence_in_its_own_phase),
        cmocka_unit_test(the_cosine_falls_from_one_to_its_end),
        cmocka_unit_test(the_range_sums_the_warm_up),
    };
    return cmocka_run_group_tests(tests, make_clients, drop_clients);
}
