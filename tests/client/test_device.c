/* SPDX-License-Identifier: Apache-2.0 */
/* The agent against a scripted coordinator: the order of a round, restarts at every step, and every check
 * that stands between a device and a coordinator that lies. */
#include "client/device_world.h"

/* ---- a round ---- */

static void a_device_contributes_and_installs(void **state)
{
    (void)state;
    world *w = world_create();
    world_until(w, "training");
    linnet_device_report report = world_report(w);
    assert_int_equal(report.n_steps, 7);
    assert_memory_equal(&report.installed, &w->f->releases[0].adapter, 32); /* installed before it trains */
    assert_non_null(linnet_device_adapter(w->device));
    assert_int_equal(linnet_device_context(w->device), 16);
    world_until_accepted(w, 1);
    assert_int_equal(w->f->n_accepted, 1);
    assert_int_equal(w->f->n_upload, 3); /* three chunks, nothing twice */

    fake_publish(w->f, 1);
    world_until_accepted(w, 2);
    report = world_report(w);
    assert_int_equal(report.version, 1);
    assert_int_equal(report.round, 2);
    assert_memory_equal(&report.installed, &w->f->releases[1].adapter, 32);
    assert_memory_equal(&report.previous, &w->f->releases[0].adapter, 32);
    linnet_adapter *want = NULL;
    linnet_error err = {0};
    assert_ok(
        linnet_adapter_unpack(w->f->layout, w->f->adapters[1].bytes, w->f->adapters[1].n_bytes, &want, &err),
        &err);
    assert_memory_equal(linnet_device_adapter(w->device)->data, want->data, 64);
    linnet_adapter_destroy(want);
    world_destroy(w);
}

/* The uploaded bytes are the delta that training from the release gives, and the lanes say what they
 * should. */
static void what_is_uploaded_is_the_clipped_delta_and_the_lanes(void **state)
{
    (void)state;
    world *w = world_create();
    linnet_error err = {0};
    world_until_accepted(w, 1);
    const linnet_ring_spec *spec = &w->f->announcement.vectors[0], *lanes = &w->f->announcement.vectors[1];
    size_t n = (size_t)spec->length, n_bytes = linnet_ring_bytes(spec), n_nonzero = 0;
    uint32_t *sum = calloc(n, sizeof(*sum)), lane_sum[LINNET_LANES] = {0};
    float *values = calloc(n, sizeof(*values));
    assert_true(sum && values);
    assert_int_equal(w->f->last_upload.n_bytes, n_bytes + linnet_ring_bytes(lanes));
    linnet_ring_fold(lanes, 0, LINNET_LANES, w->f->last_upload.bytes + n_bytes, lane_sum);
    assert_int_equal(lane_sum[LINNET_LANE_PARTICIPANTS], 1);
    uint32_t weight = lane_sum[LINNET_LANE_WEIGHT];
    assert_in_range(weight, 2, 15);
    assert_int_equal(lane_sum[LINNET_LANE_LOSS_WEIGHT], weight);
    linnet_device_report report = world_report(w);
    assert_true(report.has_held_out_loss);
    double loss = (double)lane_sum[LINNET_LANE_LOSS] / LINNET_LANE_LOSS_SCALE / weight;
    assert_true(fabs(loss - report.held_out_loss) < 1.0 / LINNET_LANE_LOSS_SCALE);

    linnet_ring_fold(spec, 0, n, w->f->last_upload.bytes, sum);
    assert_ok(linnet_ring_decode(spec, sum, weight, values, &err), &err);
    double range = linnet_delta_range(w->f->releases[0].learning_rate_b, 7, 3);
    for (size_t i = 0; i < n; i++) {
        n_nonzero += values[i] != 0;
        assert_true(fabs((double)values[i]) <= range * 1.0001);
    }
    assert_true(n_nonzero > n / 2); /* it has learnt something */
    free(sum);
    free(values);
    world_destroy(w);
}

static void a_final_release_is_installed_and_nothing_follows(void **state)
{
    (void)state;
    world *w = world_create();
    fake_publish(w->f, FAKE_VERSIONS - 1);
    world_until(w, "finished");
    int64_t wake_ms;
    assert_int_equal(linnet_device_next(w->device, &wake_ms), LINNET_DEVICE_FINISHED);
    world_must_have_installed(w, FAKE_VERSIONS - 1);
    world_restart(w);
    assert_int_equal(linnet_device_next(w->device, &wake_ms), LINNET_DEVICE_FINISHED);
    assert_int_equal(w->f->n_upload, 0);
    world_destroy(w);
}

/* ---- restarts ---- */

/* A checkpoint is written every five steps, so a kill that comes more often than that would get nowhere. */
static void train_and_be_killed(world *w)
{
    linnet_error err = {0};
    assert_ok(linnet_device_train(w->device, w->arena, 5, &err), &err);
    world_restart(w);
}

static linnet_hash echo_of_a_run(bool restarts, bool loses_answers, size_t *ret_uploads)
{
    world *w = world_create();
    for (int i = 0; i < 300 && world_report(w).n_contributions < 1; i++) {
        int64_t wake_ms;
        w->f->loses_answers = loses_answers;
        if (restarts)
            world_restart(w);
        if (restarts && linnet_device_next(w->device, &wake_ms) == LINNET_DEVICE_TRAIN)
            train_and_be_killed(w);
        else
            world_step(w);
    }
    assert_int_equal(world_report(w).n_contributions, 1);
    assert_int_equal(w->f->n_accepted, 1);
    linnet_hash echo = w->f->echoes[0];
    *ret_uploads = w->f->n_upload;
    world_destroy(w);
    return echo;
}

static void a_kill_before_every_step_changes_no_byte(void **state)
{
    (void)state;
    size_t n_straight, n_killed, n_lossy;
    linnet_hash straight = echo_of_a_run(false, false, &n_straight);
    linnet_hash killed = echo_of_a_run(true, false, &n_killed);
    linnet_hash lossy = echo_of_a_run(true, true, &n_lossy);
    assert_memory_equal(&straight, &killed, sizeof(straight));
    assert_memory_equal(&straight, &lossy, sizeof(straight));
    assert_int_equal(n_killed, n_straight); /* it knows where to go on */
    assert_true(n_lossy > n_straight);
}

static void a_training_goes_on_from_its_checkpoint(void **state)
{
    (void)state;
    world *w = world_create();
    world_until(w, "training");
    linnet_error err = {0};
    assert_ok(linnet_device_train(w->device, w->arena, 6, &err), &err);
    assert_int_equal(world_report(w).step, 6);
    world_restart(w);
    assert_string_equal(world_report(w).phase, "training");
    assert_ok(linnet_device_train(w->device, w->arena, 1, &err), &err);
    assert_int_equal(world_report(w).step, 6); /* step 5 was kept, step 6 is taken again */
    assert_ok(linnet_device_train(w->device, w->arena, 0, &err), &err);
    assert_string_equal(world_report(w).phase, "ready");
    world_destroy(w);
}

static void a_training_moves_between_arenas(void **state)
{
    (void)state;
    linnet_hash echoes[2];
    for (int moves = 0; moves < 2; moves++) {
        world *w = world_create();
        linnet_arena *other = NULL;
        linnet_error err = {0};
        assert_ok(linnet_arena_create(w->model, NULL, 16, true, &other, &err), &err);
        world_until(w, "training");
        assert_ok(linnet_device_train(w->device, w->arena, 1, &err), &err);
        assert_ok(linnet_device_train(w->device, moves ? other : w->arena, 1, &err), &err);
        world_until_accepted(w, 1);
        echoes[moves] = w->f->echoes[0];
        linnet_arena_destroy(other);
        world_destroy(w);
    }
    assert_memory_equal(&echoes[0], &echoes[1], sizeof(echoes[0]));
}

static void changed_records_mean_another_training(void **state)
{
    (void)state;
    world *w = world_create();
    linnet_error err = {0};
    world_until(w, "training");
    assert_ok(linnet_device_train(w->device, w->arena, 2, &err), &err);
    w->dataset.n_records -= 2;
    world_restart(w);
    world_until_accepted(w, 1);
    world_destroy(w);
}

/* ---- releases ---- */

/* The device must not move, whatever it is shown; then the true release is taken. */
static void refuse_release(world *w, const linnet_buffer *bytes, const char *says)
{
    uint64_t version = world_report(w).version;
    w->f->release_override = bytes;
    w->f->announces = false;
    for (int i = 0; i < 6; i++) {
        world_step(w);
        assert_int_equal(world_report(w).version, version);
    }
    linnet_device_report report = world_report(w);
    if (!strstr(report.note, says))
        fail_msg("the note is '%s', not '%s'", report.note, says);
    w->f->release_override = NULL;
    w->f->announces = true;
}

static void false_releases_are_refused(void **state)
{
    (void)state;
    world *w = world_create();
    fake *f = w->f;
    linnet_buffer bytes = {0};
    (void)fake_sign_release(f->stranger, &f->releases[0], &bytes);
    refuse_release(w, &bytes, "not signed by the pinned coordinator");
    linnet_buffer_clear(&bytes);
    linnet_buffer_append(&bytes, f->signed_releases[0].bytes, f->signed_releases[0].n_bytes);
    bytes.bytes[20] ^= 1;
    refuse_release(w, &bytes, "not signed by the pinned coordinator");
    bytes.n_bytes = 30;
    refuse_release(w, &bytes, "malformed");
    linnet_release foreign = f->releases[0];
    foreign.task[3] ^= 1;
    (void)fake_sign_release(f->identity, &foreign, &bytes);
    refuse_release(w, &bytes, "another task");

    fake_publish(f, 2);
    world_until_accepted(w, 1);
    assert_int_equal(world_report(w).version, 2);
    refuse_release(w, &f->signed_releases[1], "goes back");
    linnet_release twin = f->releases[2];
    twin.learning_rate_b *= 1.5;
    (void)fake_sign_release(f->identity, &twin, &bytes);
    refuse_release(w, &bytes, "two releases of one version");
    linnet_release orphan = f->releases[3];
    orphan.previous.bytes[0] ^= 1;
    (void)fake_sign_release(f->identity, &orphan, &bytes);
    refuse_release(w, &bytes, "does not follow");
    fake_publish(f, 3);
    world_until_accepted(w, 2);
    linnet_buffer_release(&bytes);
    world_destroy(w);
}

/* Properly signed, but not for this device: it is remembered, nothing is trained from it. */
static void releases_that_do_not_fit_are_not_trained_from(void **state)
{
    (void)state;
    static const struct {
        int change;
        const char *says;
    } cases[] = {{0, "another base model"},
                 {1, "another adapter layout"},
                 {2, "other factors"},
                 {3, "learning rates"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        world *w = world_create();
        linnet_buffer bytes = {0};
        linnet_release r = w->f->releases[0];
        r.base_model.bytes[0] ^= cases[i].change == 0;
        r.layout.bytes[0] ^= cases[i].change == 1;
        r.factors = cases[i].change == 2 ? LINNET_FACTOR_A : r.factors;
        r.learning_rate_b *= cases[i].change == 3 ? 0.5 : 1;
        (void)fake_sign_release(w->f->identity, &r, &bytes);
        w->f->release_override = &bytes;
        for (int k = 0; k < 20; k++) {
            linnet_device_need need = world_step(w);
            assert_int_equal(need, LINNET_DEVICE_POLL);
            if (k % 5 == 4)
                world_restart(w);
        }
        w->f->release_override = NULL;
        linnet_device_report report = world_report(w);
        if (!strstr(report.note, cases[i].says)) /* after restarts too */
            fail_msg("the note is '%s', not '%s'", report.note, cases[i].says);
        assert_int_equal(report.n_contributions, 0);
        assert_int_equal(w->f->n_upload, 0);
        linnet_buffer_release(&bytes);
        world_destroy(w);
    }
}

static void an_altered_object_is_never_used(void **state)
{
    (void)state;
    world *w = world_create();
    w->f->alters_objects = true;
    for (int i = 0; i < 30; i++)
        assert_int_equal(world_step(w), LINNET_DEVICE_POLL);
    assert_non_null(strstr(world_report(w).note, "signed hash"));
    assert_true(w->now_ms > 1000000 + 10000); /* it did not ask at once again and again */
    w->f->alters_objects = false;
    world_until_accepted(w, 1);
    world_destroy(w);
}

static void parts_of_an_object_outlive_a_restart(void **state)
{
    (void)state;
    world *w = world_create();
    assert_true(w->f->adapters[0].n_bytes > LINNET_OBJECT_CHUNK_BYTES);
    while (w->f->n_object < 2) /* the plan, and the first part of the adapter */
        world_step(w);
    world_restart(w);
    world_until(w, "training");
    assert_int_equal(w->f->n_object, 3);
    world_destroy(w);
}

static void an_object_whose_ranges_are_ignored_ends_in_back_off(void **state)
{
    (void)state;
    world *w = world_create();
    w->f->ignores_ranges = true; /* the first megabyte again and again */
    for (int i = 0; i < 30; i++)
        assert_int_equal(world_step(w), LINNET_DEVICE_POLL);
    assert_int_equal(world_report(w).n_contributions, 0);
    w->f->ignores_ranges = false;
    world_until_accepted(w, 1);
    world_destroy(w);
}

/* A coordinator that has moved on keeps old adapters no longer: the device finds the newer release. */
static void an_object_that_is_gone_does_not_hold_a_device_up(void **state)
{
    (void)state;
    world *w = world_create();
    w->f->loses_objects = true;
    int64_t start = w->now_ms;
    world_steps(w, 40);
    assert_true(w->f->n_checkin > 5 && w->f->n_object > 5);
    assert_true(w->now_ms > start + 10 * 60000); /* at the pace of check-ins */
    fake_publish(w->f, 1);
    w->f->loses_objects = false;
    world_until_accepted(w, 1);
    assert_int_equal(world_report(w).version, 1);
    world_destroy(w);
}

/* ---- announcements ---- */

typedef void announcement_change(fake *f);
static void change_round_back(fake *f)
{
    f->announcement.round = 0 + 1;
}
static void change_release(fake *f)
{
    f->announcement.release.bytes[0] ^= 1;
}
static void change_clamp(fake *f)
{
    f->announcement.vectors[0].clamp /= 2;
}
static void change_exponent(fake *f)
{
    f->announcement.vectors[0].exponent--;
}
static void change_length(fake *f)
{
    f->announcement.vectors[0].length--;
}
static void change_weight(fake *f)
{
    f->announcement.vectors[0].weight_max = 1;
}
static void change_order(fake *f)
{
    linnet_ring_spec first = f->announcement.vectors[0];
    f->announcement.vectors[0] = f->announcement.vectors[1];
    f->announcement.vectors[1] = first;
}
static void change_count(fake *f)
{
    f->announcement.n_vectors = 1;
}
static void change_cohort(fake *f)
{
    f->announcement.n_max = 1024;
}
static void change_coordinator(fake *f)
{
    f->announcement.coordinator = *linnet_identity_public_key(f->stranger);
}
static void change_task(fake *f)
{
    f->announcement.task[0] ^= 1;
}
static void change_profile(fake *f)
{
    f->announcement.profile = LINNET_PROFILE_SECURE;
    f->announcement.phase_s = 60;
    f->announcement.n_min = f->announcement.m_min = f->announcement.n_max = LINNET_SECURE_COHORT_MIN;
}

static void false_announcements_are_not_joined(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        announcement_change *change;
        const char *says;
    } cases[] = {
        {"round of before", change_round_back, "not later"},
        {"another release", change_release, "another release"},
        {"half the clamp", change_clamp, "encoding"},
        {"another exponent", change_exponent, "encoding"},
        {"shorter vector", change_length, "encoding"},
        {"another weight", change_weight, "encoding"},
        {"vectors swapped", change_order, "encoding"},
        {"a vector less", change_count, "vectors"},
        {"too many devices", change_cohort, "wrap"},
        {"another coordinator", change_coordinator, "another coordinator"},
        {"another task", change_task, "task"},
        {"another profile", change_profile, "profile"},
    };
    world *w = world_create();
    world_until_accepted(w, 1); /* round 1 is over for this device */
    fake_publish(w->f, 1);
    world_until(w, "ready");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_announcement good = w->f->announcement;
        cases[i].change(w->f);
        fake_sign_announcement(w->f, w->f->identity);
        world_steps(w, 2);
        linnet_device_report report = world_report(w);
        if (strcmp(report.phase, "ready") != 0 || !strstr(report.note, cases[i].says))
            fail_msg("%s: phase %s, note '%s'", cases[i].name, report.phase, report.note);
        w->f->announcement = good;
    }
    fake_sign_announcement(w->f, w->f->stranger);
    world_steps(w, 2);
    assert_string_equal(world_report(w).phase, "ready");
    assert_non_null(strstr(world_report(w).note, "pinned coordinator"));
    assert_int_equal(w->f->n_upload, 3); /* nothing of the second delta has left */
    fake_sign_announcement(w->f, w->f->identity);
    world_until_accepted(w, 2);
    world_destroy(w);
}

/* A round number that was joined is never joined again, also by a device that was restarted. */
static void an_announcement_replayed_later_is_not_joined(void **state)
{
    (void)state;
    world *w = world_create();
    w->f->round = 6;
    fake_open_round(w->f); /* round 7 */
    world_until_accepted(w, 1);
    fake_publish(w->f, 1);
    w->f->round = 5;
    fake_open_round(w->f); /* round 6 on the new release */
    world_restart(w);
    world_until(w, "ready");
    world_steps(w, 5);
    assert_string_equal(world_report(w).phase, "ready");
    assert_non_null(strstr(world_report(w).note, "not later"));
    w->f->round = 7;
    fake_open_round(w->f);
    world_until_accepted(w, 2);
    assert_int_equal(world_report(w).round, 8);
    world_destroy(w);
}

/* ---- the spent rule ---- */

static void a_delta_whose_round_is_gone_stays_spent(void **state)
{
    (void)state;
    static const int codes[] = {LINNET_ANSWER_GONE, LINNET_ANSWER_REFUSED, LINNET_ANSWER_CONFLICT};
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        world *w = world_create();
        world_until(w, "uploading");
        world_step(w); /* a first chunk has left */
        linnet_buffer first = {0};
        linnet_buffer_append(&first, w->f->upload.bytes, w->f->upload.n_bytes);
        assert_true(first.n_bytes > 0);
        w->f->upload_code = codes[i];
        world_step(w);
        w->f->upload_code = -1;
        fake_open_round(w->f); /* another round on the same release */
        world_restart(w);
        world_until_accepted(w, 1);
        /* It was trained anew, with another data order: not one chunk is as before. */
        assert_memory_not_equal(first.bytes, w->f->last_upload.bytes,
                                first.n_bytes < 4096 ? first.n_bytes : 4096);
        linnet_ledger_entry entry;
        assert_int_equal(linnet_device_ledger(&w->kv, 0, &entry, NULL), LINNET_OK);
        assert_false(entry.is_accepted);
        assert_int_equal(linnet_device_ledger(&w->kv, 1, &entry, NULL), LINNET_OK);
        assert_true(entry.is_accepted);
        assert_int_equal(linnet_device_ledger(&w->kv, 2, &entry, NULL), LINNET_ERR_NOT_FOUND);
        linnet_buffer_release(&first);
        world_destroy(w);
    }
}

static void a_waiting_coordinator_gets_the_same_bytes_later(void **state)
{
    (void)state;
    static const int codes[] = {LINNET_ANSWER_WAIT, LINNET_ANSWER_NO_SPACE};
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        world *w = world_create();
        world_until(w, "uploading");
        world_step(w);
        w->f->upload_code = codes[i];
        w->f->retry_after_ms = 30000;
        int64_t before = w->now_ms, wake_ms;
        world_step(w);
        (void)linnet_device_next(w->device, &wake_ms);
        assert_true(wake_ms >= before + 30000);
        w->f->upload_code = -1;
        world_until_accepted(w, 1); /* fake_take_chunk compares every byte */
        assert_int_equal(w->f->n_accepted, 1);
        world_destroy(w);
    }
}

/* The coordinator lost what it had: the device starts from where it says, with the same bytes. */
static void an_upload_follows_the_coordinators_offset(void **state)
{
    (void)state;
    world *w = world_create();
    world_until(w, "uploading");
    world_steps(w, 2);
    assert_true(w->f->upload.n_bytes > LINNET_UPLOAD_CHUNK_BYTES);
    w->f->upload.n_bytes = 1000; /* what is kept is compared with what comes */
    world_restart(w);
    world_until_accepted(w, 1);
    world_destroy(w);
}

static void only_a_true_receipt_ends_an_upload(void **state)
{
    (void)state;
    for (int flaw = 1; flaw <= 4; flaw++) {
        world *w = world_create();
        w->f->receipt_flaw = flaw;
        world_until(w, "uploading");
        world_steps(w, 12);
        assert_string_equal(world_report(w).phase, "uploading");
        assert_int_equal(world_report(w).n_contributions, 0);
        w->f->receipt_flaw = 0;
        world_until_accepted(w, 1);
        linnet_ledger_entry entry;
        linnet_receipt receipt;
        assert_int_equal(linnet_device_ledger(&w->kv, 0, &entry, NULL), LINNET_OK);
        assert_int_equal(linnet_receipt_open(entry.receipt, sizeof(entry.receipt),
                                             linnet_identity_public_key(w->f->identity), &receipt),
                         LINNET_OK);
        assert_memory_equal(&receipt.echo, &w->f->echoes[0], 32);
        world_destroy(w);
    }
}

/* A round that was joined and ended without a result: after its deadline a new delta is trained. */
static void a_silent_end_of_a_round_means_a_new_training(void **state)
{
    (void)state;
    world *w = world_create();
    world_until_accepted(w, 1);
    w->f->announces = false;
    world_steps(w, 3);
    assert_string_equal(world_report(w).phase, "idle");
    fake_open_round(w->f);
    world_until_accepted(w, 2);
    assert_memory_not_equal(&w->f->echoes[0], &w->f->echoes[1], 32);
    world_destroy(w);
}

static void a_new_release_makes_a_waiting_delta_stale(void **state)
{
    (void)state;
    world *w = world_create();
    w->f->announces = false;
    world_until(w, "ready");
    fake_publish(w->f, 1);
    world_until_accepted(w, 1);
    linnet_ledger_entry entry;
    assert_int_equal(linnet_device_ledger(&w->kv, 0, &entry, NULL), LINNET_OK);
    assert_int_equal(entry.version, 1);
    world_destroy(w);
}

static void both_factors_travel_in_one_contribution(void **state)
{
    (void)state;
    world *w = world_create_with(WORLD_PLAN "[aggregation]\nrule = fedavg\n");
    world_enroll(w);
    world_start(w);
    world_until_accepted(w, 1);
    const linnet_ring_spec *specs = w->f->announcement.vectors;
    assert_int_equal(w->f->announcement.n_vectors, 3);
    assert_int_equal(specs[0].vector_id, 0);
    assert_int_equal(specs[1].vector_id, 2);
    assert_int_equal(specs[2].vector_id, 1);
    size_t n = linnet_ring_bytes(&specs[0]) + linnet_ring_bytes(&specs[1]), n_nonzero = 0;
    uint32_t lanes[LINNET_LANES] = {0};
    assert_int_equal(w->f->last_upload.n_bytes, n + linnet_ring_bytes(&specs[2]));
    linnet_ring_fold(&specs[2], 0, LINNET_LANES, w->f->last_upload.bytes + n, lanes);
    assert_int_equal(lanes[LINNET_LANE_PARTICIPANTS], 1);
    for (size_t i = linnet_ring_bytes(&specs[0]); i < n; i++)
        n_nonzero += w->f->last_upload.bytes[i] != 0;
    assert_true(n_nonzero > 0); /* A moves too: B is no longer zero after the first step */
    world_destroy(w);
}

/* Values of the store that are gone or damaged cost a round or a training, never the device. */
static void lost_values_of_the_store_are_survived(void **state)
{
    (void)state;
    static const struct {
        const char *name, *phase;
        uint8_t bytes[2];
        size_t n_bytes; /* 0: deleted */
    } cases[] = {{"delta", "ready", {0}, 0},
                 {"delta", "ready", {1, 2}, 2},
                 {"upload", "uploading", {0}, 0},
                 {"upload", "uploading", {1, 2}, 2},
                 {"checkpoint", "training", {1, 2}, 2}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        world *w = world_create();
        linnet_error err = {0};
        world_until(w, cases[i].phase);
        if (i == 4)
            assert_ok(linnet_device_train(w->device, w->arena, 5, &err), &err);
        linnet_kv_item item = {cases[i].name, cases[i].n_bytes ? cases[i].bytes : NULL, cases[i].n_bytes};
        assert_ok(w->kv.put(w->kv.context, &item, 1, &err), &err);
        world_restart(w);
        world_steps(w, 4);
        if (i < 4)
            fake_open_round(w->f);
        world_until_accepted(w, 1);
        world_destroy(w);
    }
}

/* ---- lack of memory ---- */

static size_t n_allocations, fail_at; /* fail_at 0: never */
static bool is_armed;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static bool allocation_fails(void)
{
    return is_armed && ++n_allocations == fail_at;
}

void *__wrap_malloc(size_t n)
{
    return allocation_fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return allocation_fails() ? NULL : __real_realloc(p, n);
}

/* The coordinator's own allocations never fail. */
static linnet_status safe_http(void *context, const linnet_http_request *request, size_t n_body_max,
                               linnet_http_response *ret_response, linnet_error *err)
{
    bool was_armed = is_armed;
    is_armed = false;
    linnet_status status = fake_http(context, request, n_body_max, ret_response, err);
    is_armed = was_armed;
    return status;
}

/* One step in which the n-th allocation fails; a failure is NOMEM, and the device is started anew. */
static void step_with_failure(world *w)
{
    linnet_error err = {0};
    int64_t wake_ms = 0;
    linnet_status status = LINNET_OK;
    linnet_device_need need = linnet_device_next(w->device, &wake_ms);
    w->now_ms = wake_ms > w->now_ms ? wake_ms : w->now_ms;
    is_armed = true;
    if (need == LINNET_DEVICE_POLL)
        status = linnet_device_poll(w->device, w->now_ms, &err);
    else if (need == LINNET_DEVICE_TRAIN)
        status = linnet_device_train(w->device, w->arena, 0, &err);
    else if (need == LINNET_DEVICE_EVALUATE)
        status = linnet_device_evaluate(w->device, w->arena, &err);
    is_armed = false;
    if (status != LINNET_OK) {
        assert_int_equal(status, LINNET_ERR_NOMEM);
        world_restart(w);
    }
}

static void a_failing_allocation_costs_a_retry_and_no_byte(void **state)
{
    (void)state;
    linnet_hash want = {{0}};
    size_t n_all = 0;
    for (size_t run = 0; run < 40; run++) {
        world *w = world_create();
        linnet_device_destroy(w->device);
        w->config.http = safe_http;
        world_start(w);
        n_allocations = 0;
        fail_at = run == 0   ? 0
                  : run < 30 ? run * 7
                             : run * n_all / 60; /* the early ones, and all over the run */
        for (int i = 0; i < 200 && world_report(w).n_contributions < 1; i++)
            step_with_failure(w);
        assert_int_equal(w->f->n_accepted, 1);
        if (run == 0) {
            want = w->f->echoes[0];
            n_all = n_allocations;
            assert_in_range(n_all, 100, 100000);
        }
        fail_at = 0;
        assert_memory_equal(&want, &w->f->echoes[0], sizeof(want));
        world_destroy(w);
    }
}

/* ---- revocation, keys, the network ---- */

static void only_the_signed_list_revokes(void **state)
{
    (void)state;
    world *w = world_create();
    linnet_error err = {0};
    linnet_device_id self = world_report(w).device_id, other = self;
    other.bytes[0] ^= 1;
    w->f->claims_revoked = true;
    world_steps(w, 4);
    assert_string_not_equal(world_report(w).phase, "revoked"); /* a claim is not enough */
    w->f->claims_revoked = false;
    assert_ok(linnet_revocation_sign(1, &self, 1, w->f->stranger, &w->f->revocation, &err), &err);
    world_until_accepted(w, 1); /* nor a list of somebody else's */
    linnet_buffer_clear(&w->f->revocation);
    assert_ok(linnet_revocation_sign(2, &other, 1, w->f->authority, &w->f->revocation, &err), &err);
    world_steps(w, 3);
    assert_string_not_equal(world_report(w).phase, "revoked");
    linnet_buffer_clear(&w->f->revocation);
    assert_ok(linnet_revocation_sign(1, &self, 1, w->f->authority, &w->f->revocation, &err), &err);
    world_steps(w, 3);
    assert_string_not_equal(world_report(w).phase, "revoked"); /* numbers never go back */
    linnet_buffer_clear(&w->f->revocation);
    assert_ok(linnet_revocation_sign(3, &self, 1, w->f->authority, &w->f->revocation, &err), &err);
    world_until(w, "revoked");
    world_restart(w);
    assert_int_equal(world_step(w), LINNET_DEVICE_FINISHED);
    world_destroy(w);
}

static void a_rotated_channel_key_is_fetched(void **state)
{
    (void)state;
    world *w = world_create();
    world_until(w, "uploading");
    fake_make_key(w->f, 2);
    world_until_accepted(w, 1);
    assert_int_equal(w->f->n_hello, 2); /* at enrolment, and now */
    fake_make_key(w->f, 1);
    fake_publish(w->f, 1);
    world_steps(w, 10);
    assert_int_equal(world_report(w).version, 0); /* a number that goes back is not used */
    assert_non_null(strstr(world_report(w).note, "goes back"));
    world_destroy(w);
}

static void failures_of_the_network_only_cost_time(void **state)
{
    (void)state;
    world *w = world_create();
    int64_t longest = 0;
    w->f->is_down = true;
    for (int i = 0; i < 40; i++) {
        int64_t before = w->now_ms;
        world_step(w);
        longest = w->now_ms - before > longest ? w->now_ms - before : longest;
    }
    assert_true(longest > 60000);    /* it backs off */
    assert_true(longest <= 3600001); /* to an hour at most */
    w->f->is_down = false;
    w->f->status = 503;
    w->f->retry_after_s = 7200;
    world_step(w);
    int64_t wake_ms;
    (void)linnet_device_next(w->device, &wake_ms);
    assert_true(wake_ms >= w->now_ms + 7200000);
    w->f->status = 0;
    world_until_accepted(w, 1);
    world_destroy(w);
}

static void one_poll_is_one_exchange(void **state)
{
    (void)state;
    world *w = world_create();
    for (int i = 0; i < 40; i++) {
        size_t before = w->f->n_exchanges;
        linnet_device_need need = world_step(w);
        assert_int_equal(w->f->n_exchanges - before, need == LINNET_DEVICE_POLL ? 1 : 0);
    }
    world_destroy(w);
}

static void a_clock_that_jumps_only_costs_time(void **state)
{
    (void)state;
    world *w = world_create();
    linnet_error err = {0};
    static const int64_t jumps[] = {-500000, 40000000000, -40000000000, 1, 5000000000};
    for (int i = 0; i < 60 && w->f->n_accepted == 0; i++) {
        w->now_ms += jumps[i % 5];
        int64_t wake_ms;
        if (linnet_device_next(w->device, &wake_ms) == LINNET_DEVICE_POLL)
            assert_ok(linnet_device_poll(w->device, w->now_ms, &err), &err);
        else
            world_step(w);
    }
    assert_int_equal(w->f->n_accepted, 1);
    world_destroy(w);
}

/* ---- installing ---- */

static void a_worse_adapter_is_not_installed_but_trained_from(void **state)
{
    (void)state;
    static const char plan[] =
        "[task]\nrounds = 5\n[adapter]\nrank = 8\n[training]\nlocal_steps = 2\nbatch_records = "
        "2\ncontext_tokens = 16\n"
        "learning_rate_b = 0.001\n[cohort]\ngoal = 2\nminimum = 1\n[secure]\nprofile = plain\n"
        "[evaluation]\ninstall_tolerance = 0.5\n";
    world *w = world_create_with(plan); /* twice as good, or it stays out */
    world_enroll(w);
    world_start(w);
    world_until_accepted(w, 1);
    linnet_device_report report = world_report(w);
    static const linnet_hash none;
    assert_memory_equal(&report.installed, &none, sizeof(none));
    assert_null(linnet_device_adapter(w->device));
    linnet_error err = {0};
    assert_int_equal(linnet_device_roll_back(w->device, &err), LINNET_ERR_NOT_FOUND);
    world_destroy(w);
}

static void roll_back_returns_to_the_adapter_before(void **state)
{
    (void)state;
    world *w = world_create();
    linnet_error err = {0};
    world_until_accepted(w, 1);
    fake_publish(w->f, 1);
    world_until_accepted(w, 2);
    assert_ok(linnet_device_roll_back(w->device, &err), &err);
    world_restart(w);
    world_must_have_installed(w, 0);
    assert_non_null(linnet_device_adapter(w->device));
    assert_int_equal(linnet_device_roll_back(w->device, &err), LINNET_ERR_NOT_FOUND);
    world_destroy(w);
}

static void given_held_out_records_are_used(void **state)
{
    (void)state;
    world *w = world_create();
    linnet_dataset few = w->dataset;
    few.n_records = 4; /* too few to split */
    linnet_device_destroy(w->device);
    w->config.dataset = &few;
    world_start(w);
    world_until(w, "training");
    assert_false(world_report(w).has_held_out_loss);
    world_must_have_installed(w, 0); /* nothing speaks against it */
    world_until_accepted(w, 1);
    fake_publish(w->f, 1);
    linnet_device_destroy(w->device);
    w->config.held_out = &w->dataset;
    world_start(w);
    world_until_accepted(w, 2);
    assert_true(world_report(w).has_held_out_loss);
    world_destroy(w);
}

static void a_device_without_records_waits(void **state)
{
    (void)state;
    world *w = world_create();
    linnet_device_destroy(w->device);
    w->config.dataset = &(linnet_dataset){0};
    world_start(w);
    int64_t start = w->now_ms;
    for (int i = 0; i < 30; i++)
        world_step(w);
    assert_true(w->now_ms > start + 10 * 60000); /* at the plan's pace, not in a hurry */
    assert_non_null(strstr(world_report(w).note, "no record"));
    world_destroy(w);
}

/* ---- policy ---- */

static void policies_are_floors(void **state)
{
    (void)state;
    enum { COHORT, PLAIN, UPLOAD, STEPS, CONTEXT, PLAN_PIN, BASE_PIN, DOWNLOAD, POLICIES };
    for (int i = 0; i < POLICIES; i++) {
        world *w = world_create();
        linnet_policy *p = &w->config.policy;
        linnet_device_destroy(w->device);
        p->cohort_min = i == COHORT ? 2 : 1;
        p->allow_plain = i != PLAIN;
        p->upload_bytes_max = i == UPLOAD ? 100000 : p->upload_bytes_max;
        p->local_steps_max = i == STEPS ? 2 : p->local_steps_max;
        p->context_tokens_max = i == CONTEXT ? 15 : p->context_tokens_max;
        p->has_plan = i == PLAN_PIN;
        p->has_base = i == BASE_PIN;
        p->download_bytes_max = i == DOWNLOAD ? 100000 : p->download_bytes_max;
        world_start(w);
        world_steps(w, 30);
        linnet_device_report report = world_report(w);
        assert_int_equal(w->f->n_upload, 0);
        if (!strstr(report.note, "policy"))
            fail_msg("policy %d: the note is '%s'", i, report.note);
        world_destroy(w);
    }
}

/* ---- enrolment ---- */

static void a_lost_enrolment_is_asked_for_again_with_the_same_key(void **state)
{
    (void)state;
    world *w = world_create_with(WORLD_PLAN);
    linnet_error err = {0};
    linnet_device_report report;
    linnet_invite invite = fake_invite(w->f);
    w->f->loses_answers = true; /* HELLO arrives, the certificate does not */
    assert_int_equal(linnet_device_enroll(&w->kv, fake_http, w->f, &invite, "http://c", 3, 0, &err),
                     LINNET_ERR_AGAIN);
    assert_int_equal(w->f->n_enroll, 1);
    linnet_public_key first = w->f->last_key;
    assert_int_equal(linnet_device_create(&w->config, 0, &w->device, &err), LINNET_ERR_NOT_FOUND);
    w->f->loses_answers = false;
    assert_ok(linnet_device_enroll(&w->kv, fake_http, w->f, &invite, "http://c", 3, 0, &err), &err);
    assert_memory_equal(&first, &w->f->last_key, sizeof(first));
    assert_int_equal(linnet_device_enroll(&w->kv, fake_http, w->f, &invite, "http://c", 3, 0, &err),
                     LINNET_ERR_EXISTS);
    assert_ok(linnet_device_status_of(&w->kv, &report, &err), &err);
    linnet_device_id id = linnet_device_id_of(&first);
    assert_memory_equal(&report.device_id, &id, sizeof(id));
    assert_string_equal(report.coordinator_url, "http://c");
    assert_true(report.operator_is_authority);
    world_destroy(w);
}

static void enrolment_trusts_the_invites_keys_only(void **state)
{
    (void)state;
    world *w = world_create_with(WORLD_PLAN);
    linnet_error err = {0};
    linnet_invite invite = fake_invite(w->f);
    w->f->foreign_hello = true;
    assert_int_equal(linnet_device_enroll(&w->kv, fake_http, w->f, &invite, "http://c", 3, 0, &err),
                     LINNET_ERR_CRYPTO);
    assert_non_null(strstr(err.message, "pinned"));
    w->f->foreign_hello = false;
    invite.coordinator = *linnet_identity_public_key(w->f->stranger);
    assert_int_equal(linnet_device_enroll(&w->kv, fake_http, w->f, &invite, "http://c", 3, 0, &err),
                     LINNET_ERR_CRYPTO);
    invite = fake_invite(w->f);
    invite.authority = *linnet_identity_public_key(w->f->stranger);
    assert_int_equal(linnet_device_enroll(&w->kv, fake_http, w->f, &invite, "http://c", 3, 0, &err),
                     LINNET_ERR_CRYPTO);
    assert_int_equal(w->f->n_enroll, 0);
    assert_int_equal(linnet_device_create(&w->config, 0, &w->device, &err), LINNET_ERR_NOT_FOUND);
    world_destroy(w);
}

static void a_state_of_a_newer_program_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"identity", "record"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        world *w = world_create();
        linnet_error err = {0};
        linnet_buffer bytes = {0};
        world_until(w, "training");
        linnet_device_destroy(w->device);
        w->device = NULL;
        assert_ok(w->kv.get(w->kv.context, names[i], &bytes, &err), &err);
        linnet_store_le32(bytes.bytes, 99);
        linnet_kv_item item = {names[i], bytes.bytes, bytes.n_bytes};
        assert_ok(w->kv.put(w->kv.context, &item, 1, &err), &err);
        assert_int_equal(linnet_device_create(&w->config, w->now_ms, &w->device, &err),
                         LINNET_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, "newer"));
        linnet_store_le32(bytes.bytes, 3);
        for (size_t n = 0; n < bytes.n_bytes; n++) { /* cut anywhere: damaged, not half read */
            item = (linnet_kv_item){names[i], bytes.bytes, n};
            assert_ok(w->kv.put(w->kv.context, &item, 1, &err), &err);
            assert_int_equal(linnet_device_create(&w->config, w->now_ms, &w->device, &err),
                             LINNET_ERR_FORMAT);
        }
        linnet_buffer_release(&bytes);
        world_destroy(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_contributes_and_installs),
        cmocka_unit_test(what_is_uploaded_is_the_clipped_delta_and_the_lanes),
        cmocka_unit_test(a_final_release_is_installed_and_nothing_follows),
        cmocka_unit_test(a_kill_before_every_step_changes_no_byte),
        cmocka_unit_test(a_training_goes_on_from_its_checkpoint),
        cmocka_unit_test(a_training_moves_between_arenas),
        cmocka_unit_test(changed_records_mean_another_training),
        cmocka_unit_test(false_releases_are_refused),
        cmocka_unit_test(releases_that_do_not_fit_are_not_trained_from),
        cmocka_unit_test(an_altered_object_is_never_used),
        cmocka_unit_test(parts_of_an_object_outlive_a_restart),
        cmocka_unit_test(an_object_whose_ranges_are_ignored_ends_in_back_off),
        cmocka_unit_test(an_object_that_is_gone_does_not_hold_a_device_up),
        cmocka_unit_test(false_announcements_are_not_joined),
        cmocka_unit_test(an_announcement_replayed_later_is_not_joined),
        cmocka_unit_test(a_delta_whose_round_is_gone_stays_spent),
        cmocka_unit_test(a_waiting_coordinator_gets_the_same_bytes_later),
        cmocka_unit_test(an_upload_follows_the_coordinators_offset),
        cmocka_unit_test(only_a_true_receipt_ends_an_upload),
        cmocka_unit_test(a_silent_end_of_a_round_means_a_new_training),
        cmocka_unit_test(a_new_release_makes_a_waiting_delta_stale),
        cmocka_unit_test(both_factors_travel_in_one_contribution),
        cmocka_unit_test(lost_values_of_the_store_are_survived),
        cmocka_unit_test(a_failing_allocation_costs_a_retry_and_no_byte),
        cmocka_unit_test(only_the_signed_list_revokes),
        cmocka_unit_test(a_rotated_channel_key_is_fetched),
        cmocka_unit_test(failures_of_the_network_only_cost_time),
        cmocka_unit_test(one_poll_is_one_exchange),
        cmocka_unit_test(a_clock_that_jumps_only_costs_time),
        cmocka_unit_test(a_worse_adapter_is_not_installed_but_trained_from),
        cmocka_unit_test(roll_back_returns_to_the_adapter_before),
        cmocka_unit_test(given_held_out_records_are_used),
        cmocka_unit_test(a_device_without_records_waits),
        cmocka_unit_test(policies_are_floors),
        cmocka_unit_test(a_lost_enrolment_is_asked_for_again_with_the_same_key),
        cmocka_unit_test(enrolment_trusts_the_invites_keys_only),
        cmocka_unit_test(a_state_of_a_newer_program_is_refused),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
