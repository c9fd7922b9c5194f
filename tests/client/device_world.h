/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_WORLD_H
#define DEVICE_WORLD_H

/* A device with everything it needs, against the fake coordinator, on a clock that only moves when it
 * waits. */

#include "client/fake_coordinator.h"
#include "client/tiny_tokenizer.h"

/* Big enough for three upload chunks and two parts of an adapter. */
static const tiny_spec world_spec = {.n_layers = 2,
                                     .width = 128,
                                     .ffn_width = 256,
                                     .n_heads = 2,
                                     .n_kv_heads = 2,
                                     .vocabulary = 16,
                                     .context = 64,
                                     .type = LINNET_TENSOR_F32,
                                     .tied = true};

#define WORLD_PLAN                                                                                           \
    "[task]\nrounds = 5\n[adapter]\nrank = 64\nalpha = 64\n[training]\nlocal_steps = 7\nbatch_records = "    \
    "2\ncontext_tokens = 16\n"                                                                               \
    "learning_rate_b = 0.001\n[cohort]\ngoal = 2\nminimum = 1\n[secure]\nprofile = "                         \
    "plain\n[encoding]\nring_bits = "                                                                        \
    "32\nweight_unit_tokens = 20\n[evaluation]\ninstall_tolerance = 100\n"

static char world_texts[][16] = {"ab abc aa", "cab bca",  "a b c a b c", "xx ab xx",
                                 "aab bcc a", "bc bc ab", "abcabc",      "c b a ab"};

typedef struct world {
    tiny_model *tiny;
    linnet_model *model;
    linnet_hash model_hash;
    linnet_buffer vocabulary;
    opened tokenizer;
    linnet_record records[ARRAY_LEN(world_texts)];
    linnet_dataset dataset;
    linnet_arena *arena;
    linnet_kv kv;
    linnet_object_cache objects;
    fake *f;
    linnet_device_config config;
    linnet_device *device;
    int64_t now_ms;
} world;

static inline void world_start(world *w)
{
    linnet_error err = {0};
    assert_ok(linnet_device_create(&w->config, w->now_ms, &w->device, &err), &err);
}

/* What a kill leaves: the store and the object cache. */
static inline void world_restart(world *w)
{
    linnet_device_destroy(w->device);
    w->device = NULL;
    world_start(w);
}

static inline world *world_create_with(const char *plan)
{
    world *w = calloc(1, sizeof(*w));
    linnet_error err = {0};
    assert_non_null(w);
    w->tiny = tiny_create(world_spec);
    w->model = tiny_open(w->tiny);
    assert_ok(linnet_hash_file(LINNET_LABEL_OBJECT, w->tiny->path, &w->model_hash, &err), &err);
    w->tokenizer = open_tiny(&tiny_base, &w->vocabulary);
    for (size_t i = 0; i < ARRAY_LEN(world_texts); i++)
        w->records[i] = (linnet_record){.kind = LINNET_RECORD_TEXT, .text = world_texts[i], .line = i + 1};
    w->dataset = (linnet_dataset){.records = w->records, .n_records = ARRAY_LEN(world_texts)};
    assert_ok(linnet_arena_create(w->model, NULL, 16, true, &w->arena, &err), &err);
    assert_ok(linnet_kv_open_memory(&w->kv, &err), &err);
    assert_ok(linnet_object_cache_open_memory(&w->objects, &err), &err);
    w->f = fake_create(w->model, &w->model_hash, plan);
    w->now_ms = 1000000;
    w->config = (linnet_device_config){.kv = &w->kv,
                                       .objects = &w->objects,
                                       .http = fake_http,
                                       .http_context = w->f,
                                       .model = w->model,
                                       .model_hash = &w->model_hash,
                                       .tokenizer = w->tokenizer.tokenizer,
                                       .dataset = &w->dataset,
                                       .policy = linnet_policy_default(),
                                       .has_seed = true,
                                       .seed = 11};
    w->config.policy.allow_plain = true;
    return w;
}

static inline void world_enroll(world *w)
{
    linnet_error err = {0};
    linnet_invite invite = fake_invite(w->f);
    assert_ok(linnet_device_enroll(&w->kv, fake_http, w->f, &invite, "http://coordinator", 3, 1000, &err),
              &err);
}

static inline world *world_create(void)
{
    world *w = world_create_with(WORLD_PLAN);
    world_enroll(w);
    world_start(w);
    return w;
}

static inline void world_destroy(world *w)
{
    linnet_device_destroy(w->device);
    fake_destroy(w->f);
    linnet_object_cache_close(&w->objects);
    w->kv.close(w->kv.context);
    linnet_arena_destroy(w->arena);
    close_tokenizer(&w->tokenizer);
    linnet_buffer_release(&w->vocabulary);
    linnet_model_close(w->model);
    tiny_destroy(w->tiny);
    free(w);
}

/* Do the next thing, waiting for it where it is not due. */
static inline linnet_device_need world_step(world *w)
{
    linnet_error err = {0};
    int64_t wake_ms = 0;
    linnet_device_need need = linnet_device_next(w->device, &wake_ms);
    switch (need) {
    case LINNET_DEVICE_POLL:
        w->now_ms = wake_ms > w->now_ms ? wake_ms : w->now_ms;
        assert_ok(linnet_device_poll(w->device, w->now_ms, &err), &err);
        break;
    case LINNET_DEVICE_TRAIN:
        assert_ok(linnet_device_train(w->device, w->arena, 1, &err), &err);
        break;
    case LINNET_DEVICE_EVALUATE:
        assert_ok(linnet_device_evaluate(w->device, w->arena, &err), &err);
        break;
    case LINNET_DEVICE_FINISHED:
        break;
    }
    return need;
}

static inline linnet_device_report world_report(const world *w)
{
    linnet_device_report report;
    linnet_device_status(w->device, &report);
    return report;
}

static inline void world_must_have_installed(const world *w, uint64_t version)
{
    linnet_device_report report = world_report(w);
    assert_memory_equal(&report.installed, &w->f->releases[version].adapter, sizeof(report.installed));
}

static inline bool world_is_in(const world *w, const char *phase)
{
    linnet_device_report report = world_report(w);
    return strcmp(report.phase, phase) == 0;
}

/* Step until the phase is reached; the test fails where it is not within a hundred steps. */
static inline void world_until(world *w, const char *phase)
{
    for (int i = 0; i < 100; i++) {
        if (world_is_in(w, phase))
            return;
        world_step(w);
    }
    linnet_device_report report = world_report(w);
    fail_msg("never %s, but %s: %s", phase, report.phase, report.note);
}

static inline void world_until_accepted(world *w, uint64_t n)
{
    for (int i = 0; i < 200; i++) {
        if (world_report(w).n_contributions >= n)
            return;
        world_step(w);
    }
    linnet_device_report report = world_report(w);
    fail_msg("never %u contributions; %s: %s", (unsigned)n, report.phase, report.note);
}

static inline void world_steps(world *w, int n)
{
    for (int i = 0; i < n; i++)
        world_step(w);
}

#endif
