/* SPDX-License-Identifier: Apache-2.0 */
/* Profile central-dp: the coordinator's noise is of the planned variance and drawn once a round, whatever
 * dies in between; contributions beyond the clip count as much as the clip. */
#include "fixture.h"

#include "coordinator/combine.h"
#include "linnet/file.h"

#include <signal.h>
#include <sys/wait.h>

#define DEVICES 3
#define WIDTH 1024

static linnet_plan central_plan(void)
{
    linnet_plan plan = scene_plan();
    plan.rank = 4;
    plan.rule = LINNET_RULE_FFA;
    plan.profile = LINNET_PROFILE_CENTRAL_DP;
    plan.mechanism = LINNET_DP_CENTRAL;
    plan.noise_multiplier = 1;
    plan.clip = 0.5;
    plan.weight_unit_tokens = 0;
    plan.ring_bits = 24;
    plan.goal = plan.minimum = DEVICES;
    plan.over_selection = 1;
    return plan;
}

static void central_begin(scene *s, device *d, const linnet_plan *plan)
{
    scene_begin_in(s, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", plan, WIDTH);
    devices_begin(d, DEVICES, s);
}

/* Every coordinate of the noised vector has this value, in lattice units. */
static void contribute(device *d, int64_t value)
{
    linnet_error err = {0};
    device_join(d);
    d->weight = 1;
    linnet_buffer_clear(&d->packed);
    for (uint32_t i = 0; i < d->announcement.n_vectors; i++) {
        const linnet_ring_spec *spec = &d->announcement.vectors[i];
        size_t n_bytes = linnet_ring_bytes(spec);
        assert_true(linnet_buffer_reserve(&d->packed, n_bytes));
        int64_t *values = calloc((size_t)spec->length, sizeof(*values));
        assert_non_null(values);
        for (uint64_t j = 0; j < spec->length; j++)
            values[j] = spec->vector_id == 1 ? 1 : value;
        assert_ok(linnet_ring_encode_integers(spec, values, d->packed.bytes + d->packed.n_bytes, &err), &err);
        d->packed.n_bytes += n_bytes;
        free(values);
    }
    device_sign_header(d);
    device_upload(d);
}

/* The sum behind the adapter that round 1 led to, in lattice units (owned). */
static double *sums_of_round(scene *s, const linnet_ring_spec *spec)
{
    linnet_error err = {0};
    linnet_adapter *before = NULL, *after = NULL;
    size_t n = (size_t)spec->length;
    float *delta = calloc(n, sizeof(float));
    double *sums = calloc(n, sizeof(double));
    assert_true(delta && sums);
    assert_ok(linnet_coordinator_adapter(s->coordinator, 0, &before, &err), &err);
    assert_ok(linnet_coordinator_adapter(s->coordinator, 1, &after, &err), &err);
    linnet_delta_of(after, before, LINNET_FACTOR_B, delta);
    for (size_t j = 0; j < n; j++)
        sums[j] = ldexp((double)delta[j] * DEVICES, spec->exponent);
    linnet_adapter_destroy(before);
    linnet_adapter_destroy(after);
    free(delta);
    return sums;
}

static void the_noise_has_the_planned_variance(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    linnet_error err = {0};
    linnet_privacy p;
    linnet_plan plan = central_plan();
    central_begin(&s, d, &plan);
    for (size_t i = 0; i < DEVICES; i++)
        contribute(&d[i], (int64_t)i + 1); /* far inside the clip */
    (void)scene_tick(&s);
    assert_ok(linnet_plan_privacy(&plan, s.coordinator->layout, 0, &p, &err), &err);
    const linnet_ring_spec *spec = &d[0].announcement.vectors[0];
    double *sums = sums_of_round(&s, spec), mean = 0, square = 0, n = (double)spec->length;
    assert_int_equal(spec->length, (WIDTH + WIDTH / 2) * 4);
    for (size_t j = 0; j < spec->length; j++) {
        mean += (sums[j] - 6) / n;
        square += (sums[j] - 6) * (sums[j] - 6) / n;
    }
    /* 6144 draws: the variance's deviation is 1.8 %, the mean's 1/78 of one draw's */
    assert_true(fabs(square / (double)p.sigma2 - 1) < 0.12);
    assert_true(fabs(mean) < 6 * sqrt((double)p.sigma2 / n));
    assert_true((double)p.sigma2 >= (double)p.bound2 * plan.noise_multiplier * plan.noise_multiplier);
    free(sums);
    devices_end(d, DEVICES);
    scene_end(&s);
}

/* Every coordinate at the clamp: each is inside, all together are 78 times the clip. */
static void a_contribution_beyond_the_clip_counts_as_the_clip(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    linnet_error err = {0};
    linnet_privacy p;
    linnet_plan plan = central_plan();
    central_begin(&s, d, &plan);
    assert_ok(linnet_plan_privacy(&plan, s.coordinator->layout, 0, &p, &err), &err);
    for (size_t i = 0; i < DEVICES; i++) {
        linnet_ring_spec specs[LINNET_VECTORS_MAX];
        size_t n_specs = 0;
        assert_ok(linnet_plan_vectors(&plan, s.coordinator->layout, 0, specs, &n_specs, &err), &err);
        contribute(&d[i], i == 0 ? (int64_t)specs[0].clamp : 0);
    }
    (void)scene_tick(&s);
    const linnet_ring_spec *spec = &d[0].announcement.vectors[0];
    double *sums = sums_of_round(&s, spec), along = 0, root = sqrt((double)spec->length);
    for (size_t j = 0; j < spec->length; j++)
        along += sums[j] / root; /* the part of the sum in the direction of the attack */
    /* D2 from the device, and noise of deviation D2; unscaled it were 78 D2 */
    assert_true(along < 8 * sqrt((double)p.bound2));
    assert_true(along > -7 * sqrt((double)p.bound2));
    free(sums);
    devices_end(d, DEVICES);
    scene_end(&s);
}

/* The noise itself aside: what the bound does to single vectors, through a fold with seeded noise taken
 * off. */
static void a_scaled_contribution_is_within_the_bound_and_nearly_at_it(void **state)
{
    (void)state;
    linnet_hash hashes[2];
    linnet_fold folds[2];
    for (int is_beyond = 0; is_beyond < 2; is_beyond++) {
        scene s;
        device d[DEVICES];
        linnet_error err = {0};
        linnet_privacy p;
        linnet_plan plan = central_plan();
        central_begin(&s, d, &plan);
        assert_ok(linnet_plan_privacy(&plan, s.coordinator->layout, 0, &p, &err), &err);
        for (size_t i = 0; i < DEVICES; i++)
            contribute(&d[i], is_beyond && i == 0 ? 3 * (int64_t)sqrt((double)p.bound2 / p.dimension) : 0);
        s.coordinator->has_seed = true; /* the same noise twice */
        s.coordinator->seed = 5;
        linnet_round_row round = {.number = 1, .chain = d[0].chain, .accepted = DEVICES};
        assert_ok(linnet_central_fold(s.coordinator, &round, &folds[is_beyond], &err), &err);
        hashes[is_beyond] = linnet_hash_of(LINNET_LABEL_OBJECT, folds[is_beyond].sums,
                                           folds[is_beyond].n_sums * sizeof(uint32_t));
        if (is_beyond) {
            double square = 0;
            for (size_t j = 0; j < p.dimension; j++) {
                int32_t value = (int32_t)(folds[1].sums[j] - folds[0].sums[j]);
                square += (double)value * value;
            }
            assert_true(square <= (double)p.bound2);
            assert_true(square > 0.9 * (double)p.bound2);
        }
        devices_end(d, DEVICES);
        scene_end(&s);
    }
    assert_memory_not_equal(hashes[0].bytes, hashes[1].bytes, sizeof(hashes[0].bytes));
    linnet_fold_release(&folds[0]);
    linnet_fold_release(&folds[1]);
}

/* ---- one draw ---- */

typedef struct gate {
    int pipe_fd;
    bool dies;
    linnet_hash seen;
} gate;

/* The gate sees the candidate: after the draw, before anything is published. */
static linnet_status look(void *context, const linnet_adapter *adapter, double *ret_loss, linnet_error *err)
{
    gate *g = context;
    (void)err;
    g->seen = linnet_adapter_hash(adapter);
    if (g->dies && linnet_adapter_check_finite(adapter, NULL) == LINNET_OK && adapter->data) {
        ssize_t n = write(g->pipe_fd, g->seen.bytes, sizeof(g->seen.bytes));
        g->dies = n == (ssize_t)sizeof(g->seen.bytes);
    }
    *ret_loss = 1;
    return LINNET_OK;
}

/* The second adapter that a gate is shown is the candidate; the process dies there, as by kill -9. */
static linnet_status look_and_die(void *context, const linnet_adapter *adapter, double *ret_loss,
                                  linnet_error *err)
{
    gate *g = context;
    linnet_hash before = g->seen;
    static const linnet_hash none;
    linnet_status status = look(context, adapter, ret_loss, err);
    if (!linnet_hash_equal(&before, &none))
        (void)raise(SIGKILL);
    return status;
}

static void a_killed_coordinator_never_draws_twice(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    int fds[2], how = 0;
    linnet_hash shown[2];
    linnet_plan plan = central_plan();
    plan.gate_tolerance = 2;
    central_begin(&s, d, &plan);
    for (size_t i = 0; i < DEVICES; i++)
        contribute(&d[i], 1);
    scene_close(&s);
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        gate g = {.pipe_fd = fds[1], .dies = true};
        scene_open(&s);
        linnet_coordinator_set_gate(s.coordinator, look_and_die, &g);
        (void)scene_tick(&s);
        _exit(1);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    assert_int_equal(read(fds[0], shown, sizeof(shown)), sizeof(shown));
    (void)close(fds[0]);
    (void)close(fds[1]);
    scene_open(&s);
    assert_string_equal(scene_status(&s).round_state, "frozen");
    gate g = {0};
    linnet_coordinator_set_gate(s.coordinator, look, &g);
    (void)scene_tick(&s);
    assert_string_equal(scene_round(&s, 1).state, "closed");
    assert_memory_equal(g.seen.bytes, shown[1].bytes, sizeof(shown[1].bytes));
    assert_memory_equal(scene_status(&s).adapter.bytes, shown[1].bytes, sizeof(shown[1].bytes));
    devices_end(d, DEVICES);
    scene_end(&s);
}

static void a_noised_sum_that_was_touched_is_not_used(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    char path[256];
    linnet_error err = {0};
    linnet_fold first = {0}, again = {0};
    linnet_buffer bytes = {0};
    linnet_plan plan = central_plan();
    central_begin(&s, d, &plan);
    for (size_t i = 0; i < DEVICES; i++)
        contribute(&d[i], 1);
    linnet_round_row round = {.number = 1, .chain = d[0].chain, .accepted = DEVICES};
    assert_ok(linnet_central_fold(s.coordinator, &round, &first, &err), &err);
    assert_ok(linnet_central_fold(s.coordinator, &round, &again, &err), &err);
    assert_memory_equal(first.sums, again.sums, first.n_sums * sizeof(*first.sums));
    (void)snprintf(path, sizeof(path), "%s/spool/1/noised", s.state);
    assert_ok(linnet_file_read(path, 1 << 24, &bytes, &err), &err);
    static const size_t places[] = {0, 9, 41, 49, 60};
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        linnet_fold none = {0};
        bytes.bytes[places[i]] ^= 1;
        assert_ok(linnet_file_write(path, bytes.bytes, bytes.n_bytes, 0600, &err), &err);
        assert_int_equal(linnet_central_fold(s.coordinator, &round, &none, &err), LINNET_ERR_FORMAT);
        bytes.bytes[places[i]] ^= 1;
    }
    linnet_buffer_release(&bytes);
    linnet_fold_release(&first);
    linnet_fold_release(&again);
    devices_end(d, DEVICES);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_noise_has_the_planned_variance),
        cmocka_unit_test(a_contribution_beyond_the_clip_counts_as_the_clip),
        cmocka_unit_test(a_scaled_contribution_is_within_the_bound_and_nearly_at_it),
        cmocka_unit_test(a_killed_coordinator_never_draws_twice),
        cmocka_unit_test(a_noised_sum_that_was_touched_is_not_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
