/* SPDX-License-Identifier: Apache-2.0 */
/* The round machine and uploads, driven through the one function that answers an exchange, with a virtual
 * clock. */
#include "fixture.h"

#include "coordinator/rows.h"
#include "coordinator/transcript_log.h"

/* ---- sums ---- */

/* What round `round` must have done to one factor, in double precision from the devices' own values. */
static void assert_mean(scene *s, const device *d, size_t n, uint64_t round, const linnet_adapter *before,
                        const linnet_adapter *after)
{
    for (uint32_t v = 0; v < d[0].announcement.n_vectors; v++) {
        const linnet_ring_spec *spec = &d[0].announcement.vectors[v];
        if (spec->vector_id == 1)
            continue;
        linnet_factors factor = spec->vector_id == 0 ? LINNET_FACTOR_B : LINNET_FACTOR_A;
        size_t length = (size_t)spec->length;
        float *moved = calloc(length, sizeof(float));
        assert_non_null(moved);
        assert_int_equal(length, linnet_factors_length(before->layout, factor));
        linnet_delta_of(after, before, factor, moved);
        double step = ldexp(1.0, -spec->exponent);
        for (size_t i = 0; i < length; i++) {
            double sum = 0, weights = 0;
            for (size_t j = 0; j < n; j++) {
                sum += (double)d[j].weight * (double)device_value(&d[j], spec, round, i);
                weights += d[j].weight;
            }
            /* stochastic rounding moves each value by less than a step; adding to the adapter rounds once
             * more */
            if (fabs((double)moved[i] - sum / weights) > step + 1e-6)
                fail_msg("vector %u, coordinate %zu: %g, want %g +- %g", spec->vector_id, i, (double)moved[i],
                         sum / weights, step);
        }
        free(moved);
    }
    (void)s;
}

static void a_round_ends_in_the_weighted_mean(void **state)
{
    (void)state;
    static const linnet_rule rules[] = {LINNET_RULE_ALTERNATE, LINNET_RULE_FFA, LINNET_RULE_FEDAVG};
    for (size_t r = 0; r < ARRAY_LEN(rules); r++) {
        scene s;
        device d[3];
        linnet_error err = {0};
        linnet_plan plan = scene_plan();
        plan.rule = (int)rules[r];
        scene_begin(&s, &plan);
        devices_begin(d, 3, &s);
        for (uint64_t round = 1; round <= 3; round++) {
            linnet_adapter *before = NULL, *after = NULL;
            assert_ok(linnet_coordinator_adapter(s.coordinator, UINT64_MAX, &before, &err), &err);
            for (size_t i = 0; i < 3; i++)
                device_contribute(&d[i]);
            assert_string_equal(scene_status(&s).round_state, "open");
            (void)scene_tick(&s);
            assert_ok(linnet_coordinator_adapter(s.coordinator, round, &after, &err), &err);
            assert_mean(&s, d, 3, round, before, after);
            linnet_adapter_destroy(before);
            linnet_adapter_destroy(after);
        }
        linnet_coordinator_report report = scene_status(&s);
        assert_true(report.is_finished);
        assert_int_equal(report.version, 3);
        assert_int_equal(report.round, 3);
        device_poll(&d[0]);
        assert_int_equal(d[0].version, 3);
        assert_int_equal(device_ask(&d[0]), LINNET_ANSWER_WAIT); /* the task is over: nothing to join */
        devices_end(d, 3);
        scene_end(&s);
    }
}

static void losses_and_traffic_are_reported(void **state)
{
    (void)state;
    scene s;
    device d[3];
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 3, &s);
    for (uint64_t round = 1; round <= 2; round++) {
        for (size_t i = 0; i < 3; i++)
            device_contribute(&d[i]);
        (void)scene_tick(&s);
    }
    double want[3] = {0};
    for (uint64_t round = 1; round <= 2; round++) {
        double weights = 0;
        for (size_t i = 0; i < 3; i++) {
            want[round] += d[i].weight * device_loss(&d[i], round);
            weights += d[i].weight;
        }
        want[round] /= weights;
    }
    linnet_round_report first = scene_round(&s, 1), second = scene_round(&s, 2);
    assert_true(first.has_loss_before && first.has_loss_after && second.has_loss_before &&
                !second.has_loss_after);
    assert_true(fabs(first.loss_before - want[1]) < 1e-9);
    assert_true(fabs(first.loss_after - want[2]) < 1e-9);
    assert_true(fabs(second.loss_before - want[2]) < 1e-9);
    assert_int_equal(first.invited, 3);
    assert_int_equal(first.joined, 3);
    assert_int_equal(first.dropped, 0);
    assert_true(first.bytes_up > 3 * d[0].packed.n_bytes && first.bytes_down > 0);
    devices_end(d, 3);
    scene_end(&s);
}

static void the_server_keeps_its_momentum(void **state)
{
    (void)state;
    scene s;
    device d[3];
    linnet_error err = {0};
    linnet_plan plan = scene_plan();
    plan.rule = LINNET_RULE_FFA;
    plan.server_optimizer = LINNET_SERVER_FEDAVGM;
    plan.server_momentum = 0.5;
    scene_begin(&s, &plan);
    devices_begin(d, 3, &s);
    linnet_adapter *adapters[3] = {0};
    linnet_ring_spec specs[3]; /* the schedule changes the encoding from round to round */
    assert_ok(linnet_coordinator_adapter(s.coordinator, 0, &adapters[0], &err), &err);
    for (uint64_t round = 1; round <= 2; round++) {
        for (size_t i = 0; i < 3; i++)
            device_contribute(&d[i]);
        specs[round] = d[0].announcement.vectors[0];
        (void)scene_tick(&s);
        scene_reopen(&s); /* momentum is in the state, not in the process */
        assert_ok(linnet_coordinator_adapter(s.coordinator, round, &adapters[round], &err), &err);
    }
    size_t length = (size_t)specs[1].length;
    float *first = calloc(length, sizeof(float)), *second = calloc(length, sizeof(float));
    linnet_delta_of(adapters[1], adapters[0], LINNET_FACTOR_B, first);
    linnet_delta_of(adapters[2], adapters[1], LINNET_FACTOR_B, second);
    for (size_t i = 0; i < length; i++) {
        double mean[2] = {0}, weights = 0;
        for (size_t j = 0; j < 3; j++) {
            weights += d[j].weight;
            mean[0] += d[j].weight * (double)device_value(&d[j], &specs[1], 1, i);
            mean[1] += d[j].weight * (double)device_value(&d[j], &specs[2], 2, i);
        }
        double want = mean[1] / weights + 0.5 * mean[0] / weights;
        if (fabs((double)second[i] - want) > 1.5 * ldexp(1.0, -specs[1].exponent) + 1e-6)
            fail_msg("coordinate %zu: %g, want %g", i, (double)second[i], want);
    }
    free(first);
    free(second);
    for (size_t i = 0; i < 3; i++)
        linnet_adapter_destroy(adapters[i]);
    devices_end(d, 3);
    scene_end(&s);
}

/* ---- joining ---- */

static void only_a_fresh_delta_joins(void **state)
{
    (void)state;
    scene s;
    device d[4];
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 4, &s);
    device_poll(&d[0]);
    assert_int_equal(d[0].answer.code, LINNET_ANSWER_OK); /* the release */
    device_poll(&d[0]);
    assert_int_equal(d[0].answer.code, LINNET_ANSWER_WAIT);
    assert_int_equal(d[0].answer.n_announcement, 0);
    assert_in_range(d[0].answer.retry_after_ms, 5000, 15000);
    device_poll(&d[3]);
    linnet_hash old = d[3].release;
    for (size_t i = 0; i < 3; i++)
        device_contribute(&d[i]);
    (void)scene_tick(&s);
    /* d[3] trained from version 0, which is over: it gets version 1 and no announcement */
    assert_int_equal(device_ask(&d[3]), LINNET_ANSWER_OK);
    assert_false(d[3].has_round);
    device_take_release(&d[3]);
    assert_int_equal(d[3].version, 1);
    assert_memory_not_equal(d[3].release.bytes, old.bytes, 32);
    assert_int_equal(device_ask(&d[3]), LINNET_ANSWER_OK);
    assert_true(d[3].has_round);
    assert_int_equal(d[3].announcement.round, 2);
    devices_end(d, 4);
    scene_end(&s);
}

static void no_more_than_planned_join(void **state)
{
    (void)state;
    scene s;
    device d[6];
    linnet_plan plan = scene_plan();
    uint32_t join_max = linnet_plan_join_max(&plan);
    assert_int_equal(join_max, 4);
    scene_begin(&s, &plan);
    devices_begin(d, 6, &s);
    for (size_t i = 0; i < join_max; i++) {
        device_join(&d[i]);
        assert_int_equal(device_ask(&d[i]), LINNET_ANSWER_OK); /* asking twice joins once */
    }
    for (size_t i = join_max; i < 6; i++) {
        device_poll(&d[i]);
        assert_int_equal(device_ask(&d[i]), LINNET_ANSWER_WAIT);
        assert_false(d[i].has_round);
    }
    assert_int_equal(scene_status(&s).joined, join_max);
    assert_int_equal(scene_round(&s, 1).invited, 6);
    /* an outsider that knows the announcement uploads in vain */
    d[5].announcement = d[0].announcement;
    d[5].chain = d[0].chain;
    device_encode(&d[5]);
    assert_int_equal(device_upload_part(&d[5], 0, d[5].packed.n_bytes), LINNET_ANSWER_REFUSED);
    assert_int_equal(scene_status(&s).accepted, 0);
    devices_end(d, 6);
    scene_end(&s);
}

static void a_pause_lets_nobody_join(void **state)
{
    (void)state;
    scene s;
    device d[2];
    linnet_error err = {0};
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 2, &s);
    device_join(&d[0]);
    assert_ok(linnet_coordinator_pause(s.coordinator, true, &err), &err);
    device_poll(&d[1]);
    assert_int_equal(device_ask(&d[1]), LINNET_ANSWER_WAIT);
    device_encode(&d[0]);
    device_upload(&d[0]); /* who has joined may finish */
    assert_ok(linnet_coordinator_pause(s.coordinator, false, &err), &err);
    assert_int_equal(device_ask(&d[1]), LINNET_ANSWER_OK);
    assert_true(d[1].has_round);
    devices_end(d, 2);
    scene_end(&s);
}

/* ---- uploads ---- */

static void chunks_may_come_in_any_way(void **state)
{
    (void)state;
    scene s;
    device d[1];
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 1, &s);
    device_join(&d[0]);
    device_encode(&d[0]);
    size_t n = d[0].packed.n_bytes;
    assert_true(n > 60);
    assert_int_equal(device_upload_part(&d[0], 0, 0), LINNET_ANSWER_OK);
    assert_int_equal(d[0].answer.next_offset, 0);
    assert_int_equal(device_upload_part(&d[0], 40, 10), LINNET_ANSWER_OK); /* a gap: nothing is taken */
    assert_int_equal(d[0].answer.next_offset, 0);
    assert_int_equal(device_upload_part(&d[0], 0, 30), LINNET_ANSWER_OK);
    assert_int_equal(d[0].answer.next_offset, 30);
    assert_int_equal(device_upload_part(&d[0], 0, 30), LINNET_ANSWER_OK); /* twice */
    assert_int_equal(d[0].answer.next_offset, 30);
    assert_int_equal(device_upload_part(&d[0], 10, 40), LINNET_ANSWER_OK); /* overlapping */
    assert_int_equal(d[0].answer.next_offset, 50);
    scene_reopen(&s);
    assert_int_equal(device_upload_part(&d[0], 7, 0), LINNET_ANSWER_OK); /* where was I? */
    assert_int_equal(d[0].answer.next_offset, 50);
    assert_int_equal(d[0].answer.n_receipt, 0);
    assert_int_equal(device_upload_part(&d[0], 45, n - 45), LINNET_ANSWER_OK);
    assert_receipt(&d[0]);
    uint8_t receipt[LINNET_SIGNED_RECEIPT_BYTES];
    memcpy(receipt, d[0].answer.receipt, sizeof(receipt));
    assert_int_equal(device_upload_part(&d[0], 3, 20),
                     LINNET_ANSWER_OK); /* after the end: the same receipt */
    assert_memory_equal(d[0].answer.receipt, receipt, sizeof(receipt));
    assert_int_equal(scene_status(&s).accepted, 1);
    devices_end(d, 1);
    scene_end(&s);
}

static void replayed_bytes_count_once(void **state)
{
    (void)state;
    scene s;
    device d[1];
    linnet_plan plan = scene_plan();
    linnet_buffer wires[3] = {{0}};
    scene_begin(&s, &plan);
    devices_begin(d, 1, &s);
    device_poll(&d[0]);
    assert_int_equal(device_ask(&d[0]), LINNET_ANSWER_OK);
    linnet_buffer_append(&wires[0], d[0].wire.bytes, d[0].wire.n_bytes);
    device_encode(&d[0]);
    size_t half = d[0].packed.n_bytes / 2;
    assert_int_equal(device_upload_part(&d[0], 0, half), LINNET_ANSWER_OK);
    linnet_buffer_append(&wires[1], d[0].wire.bytes, d[0].wire.n_bytes);
    assert_int_equal(device_upload_part(&d[0], half, d[0].packed.n_bytes - half), LINNET_ANSWER_OK);
    linnet_buffer_append(&wires[2], d[0].wire.bytes, d[0].wire.n_bytes);
    assert_receipt(&d[0]);
    for (int again = 0; again < 3; again++)
        for (size_t i = 0; i < ARRAY_LEN(wires); i++)
            assert_int_equal(scene_exchange(&s, "POST", i == 0 ? LINNET_PATH_CHECKIN : LINNET_PATH_UPLOAD,
                                            wires[i].bytes, wires[i].n_bytes, NULL),
                             200);
    linnet_coordinator_report report = scene_status(&s);
    assert_int_equal(report.accepted, 1);
    assert_int_equal(report.joined, 1);
    linnet_error err = {0};
    linnet_contribution_report *list = NULL;
    size_t n = 0;
    assert_ok(linnet_coordinator_contributions(s.coordinator, 1, &list, &n, &err), &err);
    assert_int_equal(n, 1);
    assert_memory_equal(list[0].echo.bytes, d[0].echo.bytes, 32);
    assert_int_equal(list[0].sequence, 1);
    free(list);
    for (size_t i = 0; i < ARRAY_LEN(wires); i++)
        linnet_buffer_release(&wires[i]);
    devices_end(d, 1);
    scene_end(&s);
}

static void a_second_different_upload_is_a_conflict(void **state)
{
    (void)state;
    scene s;
    device d[2];
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 2, &s);
    for (size_t i = 0; i < 2; i++) {
        device_join(&d[i]);
        device_encode(&d[i]);
    }
    device_upload(&d[0]);                   /* complete */
    (void)device_upload_part(&d[1], 0, 20); /* under way */
    linnet_hash first = d[0].echo;
    for (size_t i = 0; i < 2; i++) {
        d[i].packed.bytes[0] ^= 1;
        device_sign_header(&d[i]);
        assert_int_equal(device_upload_part(&d[i], 0, d[i].packed.n_bytes), LINNET_ANSWER_CONFLICT);
        assert_int_equal(d[i].answer.n_receipt, 0);
    }
    linnet_error err = {0};
    linnet_contribution_report *list = NULL;
    size_t n = 0;
    assert_ok(linnet_coordinator_contributions(s.coordinator, 1, &list, &n, &err), &err);
    assert_int_equal(n, 1);
    assert_memory_equal(list[0].echo.bytes, first.bytes, 32);
    free(list);
    devices_end(d, 2);
    scene_end(&s);
}

/* ways in which a contribution is not what its header or the plan says */
static void spoil_echo(device *d)
{
    device_sign_header(d);
    d->packed.bytes[3] ^= 1; /* after signing */
}
static void spoil_participants(device *d)
{
    d->packed.bytes[d->packed.n_bytes - 16] = 2;
    device_sign_header(d);
}
static void spoil_weight_zero(device *d)
{
    d->packed.bytes[d->packed.n_bytes - 12] = 0;
    device_sign_header(d);
}
static void spoil_weight_large(device *d)
{
    d->packed.bytes[d->packed.n_bytes - 12] = 5;
    device_sign_header(d);
}
static void spoil_loss(device *d)
{
    d->packed.bytes[d->packed.n_bytes - 5] = 0x40;
    device_sign_header(d);
}
static void spoil_clamp(device *d)
{
    d->packed.bytes[1] = 0xff; /* 20 bits: bits 8..15 and the low half of byte 2 */
    d->packed.bytes[2] = (uint8_t)((d->packed.bytes[2] & 0xf0) | 0x7);
    device_sign_header(d);
}

static void a_spoilt_contribution_is_not_taken(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*spoil)(device *d);
        uint32_t want;
    } cases[] = {
        {"other bytes than signed", spoil_echo, LINNET_ANSWER_WAIT},
        {"two participants", spoil_participants, LINNET_ANSWER_REFUSED},
        {"weight 0", spoil_weight_zero, LINNET_ANSWER_REFUSED},
        {"weight above W", spoil_weight_large, LINNET_ANSWER_REFUSED},
        {"loss above 32", spoil_loss, LINNET_ANSWER_REFUSED},
        {"value above the clamp", spoil_clamp, LINNET_ANSWER_REFUSED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        scene s;
        device d[1];
        linnet_plan plan = scene_plan();
        plan.value_bits = 12;
        scene_begin(&s, &plan);
        devices_begin(d, 1, &s);
        device_join(&d[0]);
        device_encode(&d[0]);
        cases[i].spoil(&d[0]);
        uint32_t code = device_upload_part(&d[0], 0, d[0].packed.n_bytes);
        if (code != cases[i].want || d[0].answer.n_receipt != 0 || scene_status(&s).accepted != 0)
            fail_msg("%s: code %u, '%s'", cases[i].name, code, d[0].answer.message);
        devices_end(d, 1);
        scene_end(&s);
    }
}

static void damaged_bytes_can_be_sent_again(void **state)
{
    (void)state;
    scene s;
    device d[1];
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 1, &s);
    device_join(&d[0]);
    device_encode(&d[0]);
    spoil_echo(&d[0]);
    assert_int_equal(device_upload_part(&d[0], 0, d[0].packed.n_bytes), LINNET_ANSWER_WAIT);
    assert_int_equal(d[0].answer.next_offset, 0);
    assert_true(d[0].answer.retry_after_ms > 0);
    d[0].packed.bytes[3] ^= 1;
    device_upload(&d[0]);
    devices_end(d, 1);
    scene_end(&s);
}

static void headers_must_fit_the_announcement(void **state)
{
    (void)state;
    scene s;
    device d[2];
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 2, &s);
    for (size_t i = 0; i < 2; i++)
        device_join(&d[i]);
    device_encode(&d[0]);
    device_encode(&d[1]);
    size_t n = d[0].packed.n_bytes;
    /* past the end of what was announced */
    assert_int_equal(device_upload_raw(&d[0], n - 4, d[0].packed.bytes, 5), 200);
    assert_int_equal(d[0].answer.code, LINNET_ANSWER_REFUSED);
    assert_int_equal(device_upload_raw(&d[0], UINT64_MAX, d[0].packed.bytes, 5), 400); /* no offset at all */
    /* other lengths, signed */
    d[0].announcement.vectors[0].length++;
    device_sign_header(&d[0]);
    assert_int_equal(device_upload_part(&d[0], 0, 10), LINNET_ANSWER_REFUSED);
    d[0].announcement.vectors[0].length--;
    /* a round that nobody announced */
    d[0].chain.bytes[0] ^= 1;
    device_sign_header(&d[0]);
    assert_int_equal(device_upload_part(&d[0], 0, 10), LINNET_ANSWER_REFUSED);
    d[0].chain.bytes[0] ^= 1;
    /* somebody else's header; a header with a broken signature; none at all */
    device_sign_header(&d[0]);
    linnet_buffer own = d[0].header;
    d[0].header = d[1].header;
    assert_int_equal(device_upload_raw(&d[0], 0, d[0].packed.bytes, 10), 400);
    d[0].header = own;
    d[0].header.bytes[d[0].header.n_bytes - 1] ^= 1;
    assert_int_equal(device_upload_raw(&d[0], 0, d[0].packed.bytes, 10), 400);
    d[0].header.bytes[d[0].header.n_bytes - 1] ^= 1;
    assert_int_equal(device_call(&d[0], LINNET_PATH_UPLOAD, NULL, d[0].packed.bytes, 10), 400);
    device_upload(&d[0]); /* and the right one is taken */
    devices_end(d, 2);
    scene_end(&s);
}

/* ---- ends ---- */

static void a_deadline_freezes_voids_or_waits(void **state)
{
    (void)state;
    scene s;
    device d[4];
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 4, &s);
    s.now_ms += 3600 * 1000;
    (void)scene_tick(&s);
    assert_string_equal(scene_round(&s, 1).state, "open"); /* nobody joined: no clock runs */
    /* one of four arrives: void, same release, next number */
    for (size_t i = 0; i < 3; i++) {
        device_join(&d[i]);
        device_encode(&d[i]);
    }
    linnet_hash release = d[0].release;
    device_upload(&d[0]);
    (void)device_upload_part(&d[1], 0, 20);
    int64_t deadline = s.now_ms + 60000;
    assert_true(scene_tick(&s) <= deadline + 1);
    s.now_ms = deadline;
    (void)scene_tick(&s);
    assert_string_equal(scene_round(&s, 1).state, "open");
    s.now_ms++;
    assert_int_equal(device_upload_part(&d[1], 20, d[1].packed.n_bytes - 20),
                     LINNET_ANSWER_GONE); /* before the tick too */
    (void)scene_tick(&s);
    assert_string_equal(scene_round(&s, 1).state, "void");
    assert_int_equal(scene_round(&s, 1).dropped, 2);
    assert_int_equal(device_upload_part(&d[2], 0, 20), LINNET_ANSWER_GONE);
    assert_int_equal(device_upload_part(&d[0], 0, 20), LINNET_ANSWER_OK); /* a receipt stays true */
    device_join(&d[0]);
    assert_int_equal(d[0].announcement.round, 2);
    assert_memory_equal(d[0].announcement.release.bytes, release.bytes, 32);
    /* two of three arrive: that is the minimum */
    for (size_t i = 1; i < 3; i++)
        device_join(&d[i]);
    for (size_t i = 0; i < 2; i++) {
        device_encode(&d[i]);
        device_upload(&d[i]);
    }
    s.now_ms += 60001;
    (void)scene_tick(&s);
    linnet_round_report second = scene_round(&s, 2);
    assert_string_equal(second.state, "closed");
    assert_int_equal(second.accepted, 2);
    assert_int_equal(second.dropped, 1);
    assert_int_equal(scene_status(&s).version, 1);
    devices_end(d, 4);
    scene_end(&s);
}

static void the_goal_closes_and_the_rest_is_late(void **state)
{
    (void)state;
    scene s;
    device d[4];
    char path[160], hex[40];
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, 4, &s);
    for (size_t i = 0; i < 4; i++) {
        device_join(&d[i]);
        device_encode(&d[i]);
    }
    (void)device_upload_part(&d[3], 0, 30);
    for (size_t i = 0; i < 3; i++)
        device_upload(&d[i]);
    (void)scene_tick(&s);
    assert_string_equal(scene_round(&s, 1).state, "closed");
    assert_int_equal(device_upload_part(&d[3], 30, d[3].packed.n_bytes - 30), LINNET_ANSWER_GONE);
    linnet_hex_write(d[3].id.bytes, 16, hex);
    (void)snprintf(path, sizeof(path), "%s/spool/1/%s", s.state, hex);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(scene_round(&s, 1).accepted, 3);
    devices_end(d, 4);
    scene_end(&s);
}

typedef struct change {
    linnet_record_id id;
    size_t at;
} change;

static linnet_status flip(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const change *c = context;
    const uint8_t *bytes;
    uint8_t own[4096];
    size_t n;
    linnet_status status = linnet_store_get(txn, &c->id, &bytes, &n, err);
    if (status != LINNET_OK || n > sizeof(own) || c->at > n)
        return LINNET_ERR_NOT_FOUND;
    memcpy(own, bytes, n);
    own[n - c->at] ^= 1;
    return linnet_store_put(txn, &c->id, own, n, err);
}

/* Flip a bit of a row, behind the coordinator's back. */
static void change_row(scene *s, char table, uint64_t number, size_t at)
{
    char path[128];
    linnet_error err = {0};
    linnet_store *store = NULL;
    change c = {.id = linnet_record_number(table, number), .at = at};
    scene_close(s); /* a process opens an environment once */
    (void)snprintf(path, sizeof(path), "%s/store", s->state);
    assert_ok(linnet_store_open(path, false, false, &store, &err), &err);
    assert_ok(linnet_store_update(store, flip, &c, &err), &err);
    linnet_store_close(store);
    scene_open(s);
}

static void the_transcript_is_whole_and_notices_changes(void **state)
{
    (void)state;
    scene s;
    device d[3];
    linnet_error err = {0};
    linnet_plan plan = scene_plan();
    linnet_audit_entry *entries = NULL;
    size_t n = 0;
    scene_begin(&s, &plan);
    devices_begin(d, 3, &s);
    device_join(&d[0]);
    s.now_ms += 60001;
    (void)scene_tick(&s); /* void */
    for (size_t i = 0; i < 3; i++)
        device_contribute(&d[i]);
    (void)scene_tick(&s);
    static const struct {
        const char *type;
        uint64_t number;
    } want[] = {{"release", 0}, {"announce", 1}, {"void", 1},    {"announce", 2},
                {"closed", 2},  {"release", 1},  {"announce", 3}};
    assert_ok(linnet_coordinator_audit(s.coordinator, &entries, &n, &err), &err);
    assert_int_equal(n, ARRAY_LEN(want));
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(entries[i].type, want[i].type);
        assert_int_equal(entries[i].number, want[i].number);
        assert_null(entries[i].flaw);
    }
    free(entries);
    /* each change of what the entries name is found where it is */
    static const struct {
        const char *name;
        char table;
        uint64_t number;
        size_t at; /* byte that changes, from the end */
        size_t flawed;
    } changes[] = {
        {"a release's signature", 'r', 1, 1, 5},
        {"a release's body", 'r', 0, 80, 0},
        {"an announcement's signature", 'n', 2, 1, 3},
        {"a round's adapter", 'o', 2, 1, 4},
        {"an entry's hash", 'h', 2, 33, 2},
    };
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        change_row(&s, changes[i].table, changes[i].number, changes[i].at);
        assert_ok(linnet_coordinator_audit(s.coordinator, &entries, &n, &err), &err);
        if (!entries[changes[i].flawed].flaw)
            fail_msg("%s: not noticed", changes[i].name);
        free(entries);
        change_row(&s, changes[i].table, changes[i].number, changes[i].at); /* and back */
    }
    assert_ok(linnet_coordinator_audit(s.coordinator, &entries, &n, &err), &err);
    for (size_t i = 0; i < n; i++)
        assert_null(entries[i].flaw);
    free(entries);
    devices_end(d, 3);
    scene_end(&s);
}

/* ---- a state of an older version ---- */

/* The plan as a version wrote it that did not know training.dropout yet. */
static linnet_status cut_key(linnet_store_txn *txn, void *context, linnet_error *err)
{
    static const char line[] = "dropout = 0\n";
    linnet_buffer text = {0};
    (void)context;
    linnet_status status = linnet_config_get(txn, "plan", &text, err);
    if (status != LINNET_OK)
        return status;
    linnet_buffer_append_u8(&text, 0);
    char *at = strstr((char *)text.bytes, line);
    assert_non_null(at);
    memmove(at, at + strlen(line), strlen(at + strlen(line)) + 1);
    status = linnet_config_put(txn, "plan", text.bytes, strlen((char *)text.bytes), err);
    linnet_buffer_release(&text);
    return status;
}

static linnet_status take_plan_hash(void *context, linnet_store_txn *txn, const linnet_log *log,
                                    linnet_error *err)
{
    linnet_hash *hash = context;
    (void)txn;
    (void)err;
    *hash = linnet_plan_hash(log->plan.bytes, log->plan.n_bytes);
    return LINNET_OK;
}

static void the_log_holds_the_plan_as_it_was_signed(void **state)
{
    (void)state;
    scene s;
    linnet_error err = {0};
    linnet_plan plan = scene_plan();
    linnet_hash hash = {{0}}, now;
    scene_begin(&s, &plan);
    assert_ok(linnet_store_update(s.coordinator->store, cut_key, NULL, &err), &err);
    now = s.coordinator->plan_hash;
    scene_reopen(&s);
    assert_false(linnet_hash_equal(&s.coordinator->plan_hash, &now));
    assert_true(s.coordinator->plan.dropout == 0);
    assert_ok(linnet_transcript_read(s.coordinator, take_plan_hash, &hash, &err), &err);
    assert_true(linnet_hash_equal(&hash, &s.coordinator->plan_hash));
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_ends_in_the_weighted_mean),
        cmocka_unit_test(losses_and_traffic_are_reported),
        cmocka_unit_test(the_server_keeps_its_momentum),
        cmocka_unit_test(only_a_fresh_delta_joins),
        cmocka_unit_test(no_more_than_planned_join),
        cmocka_unit_test(a_pause_lets_nobody_join),
        cmocka_unit_test(chunks_may_come_in_any_way),
        cmocka_unit_test(replayed_bytes_count_once),
        cmocka_unit_test(a_second_different_upload_is_a_conflict),
        cmocka_unit_test(a_spoilt_contribution_is_not_taken),
        cmocka_unit_test(damaged_bytes_can_be_sent_again),
        cmocka_unit_test(headers_must_fit_the_announcement),
        cmocka_unit_test(a_deadline_freezes_voids_or_waits),
        cmocka_unit_test(the_goal_closes_and_the_rest_is_late),
        cmocka_unit_test(the_transcript_is_whole_and_notices_changes),
        cmocka_unit_test(the_log_holds_the_plan_as_it_was_signed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
