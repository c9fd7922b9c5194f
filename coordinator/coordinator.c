/* SPDX-License-Identifier: Apache-2.0 */
/* A state directory: made by init, opened by serve and by every report.
 *   store/          LMDB: all decisions           coordinator.key   Ed25519 seed, 0600
 *   objects/        plan and adapters by hash     authority/        the authority's seed (trial set-up only)
 *   spool/          uploads of the open round     channel/          secrets of the channel keys
 *   server/         the optimiser's state         serve.lock        held by the one process that serves
 *   transcript.log  heads of the transcript, unless it is kept elsewhere (witness.c)
 *   sums/           opened sums of a step whose other cohorts are not there yet
 * Init works in place and takes back what it made when it fails; the store's format row is its last
 * commit. */
#include "state.h"

#include "linnet/file.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const folders[] = {"store", "objects", "spool", "server", "channel", "sums"};

/* ---- small services for the other modules ---- */

void linnet_coordinator_set_log(linnet_coordinator *c, linnet_coordinator_log_fn *log, void *context)
{
    (void)pthread_mutex_lock(&c->lock);
    c->log = log;
    c->log_context = context;
    (void)pthread_mutex_unlock(&c->lock);
}

void linnet_coordinator_say(linnet_coordinator *c, int priority, const char *format, ...)
{
    char line[512];
    va_list arguments;
    (void)pthread_mutex_lock(&c->lock);
    linnet_coordinator_log_fn *log = c->log;
    void *context = c->log_context;
    (void)pthread_mutex_unlock(&c->lock);
    if (!log)
        return;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    log(context, priority, line);
}

linnet_status linnet_coordinator_note(linnet_coordinator *c, linnet_status status, const linnet_error *err)
{
    if (status != LINNET_ERR_IO && status != LINNET_ERR_FORMAT && status != LINNET_ERR_INTERNAL)
        return status;
    (void)pthread_mutex_lock(&c->lock);
    bool is_first = c->failure.status == LINNET_OK;
    if (is_first)
        (void)linnet_fail(&c->failure, status, "%s", err ? err->message : linnet_status_text(status));
    (void)pthread_mutex_unlock(&c->lock);
    if (is_first)
        linnet_coordinator_say(c, 3, "%s: stopping", err ? err->message : linnet_status_text(status));
    return status;
}

bool linnet_coordinator_path(const linnet_coordinator *c, char path[4096], const char *format, ...)
{
    va_list arguments;
    int n = snprintf(path, 4096, "%s/", c->directory);
    if (n < 0 || n >= 4096)
        return false;
    va_start(arguments, format);
    int m = vsnprintf(path + n, 4096 - (size_t)n, format, arguments);
    va_end(arguments);
    return m >= 0 && m < 4096 - n;
}

void linnet_traffic_add(linnet_coordinator *c, uint64_t up, uint64_t down)
{
    (void)pthread_mutex_lock(&c->lock);
    c->traffic.up += up;
    c->traffic.down += down;
    (void)pthread_mutex_unlock(&c->lock);
}

linnet_traffic linnet_traffic_peek(linnet_coordinator *c)
{
    (void)pthread_mutex_lock(&c->lock);
    linnet_traffic traffic = c->traffic;
    (void)pthread_mutex_unlock(&c->lock);
    return traffic;
}

void linnet_traffic_settle(linnet_coordinator *c, const linnet_traffic *traffic)
{
    (void)pthread_mutex_lock(&c->lock);
    c->traffic.up -= traffic->up;
    c->traffic.down -= traffic->down;
    (void)pthread_mutex_unlock(&c->lock);
}

/* ---- the object ---- */

static linnet_status coordinator_alloc(const char *directory, linnet_coordinator **ret_coordinator,
                                       linnet_error *err)
{
    linnet_status status = linnet_crypto_init(err);
    if (status != LINNET_OK)
        return status;
    linnet_coordinator *c = calloc(1, sizeof(*c));
    char *own = strdup(directory);
    if (!c || !own) {
        free(c);
        free(own);
        return linnet_fail(err, LINNET_ERR_NOMEM, "coordinator '%s'", directory);
    }
    c->directory = own;
    c->lock_fd = c->witness_fd = -1;
    (void)pthread_mutex_init(&c->lock, NULL); /* default attributes: cannot fail on Linux */
    (void)pthread_mutex_init(&c->secure_lock, NULL);
    (void)pthread_mutex_init(&c->witness_lock, NULL);
    for (size_t i = 0; i < LINNET_SPOOL_LOCKS; i++)
        (void)pthread_mutex_init(&c->spool_locks[i], NULL);
    *ret_coordinator = c;
    return LINNET_OK;
}

/* Traffic since the last flush, into the newest round's row; lost on a kill, kept on an orderly end. */
static linnet_status flush_traffic(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const linnet_coordinator *c = context;
    linnet_round_row row;
    linnet_status status = linnet_rounds_newest(txn, &row, err);
    if (status != LINNET_OK)
        return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    row.bytes_up += c->traffic.up;
    row.bytes_down += c->traffic.down;
    return linnet_round_put(txn, &row, err);
}

void linnet_coordinator_close(linnet_coordinator *c)
{
    if (!c)
        return;
    if (c->serves && c->failure.status == LINNET_OK && (c->traffic.up > 0 || c->traffic.down > 0) &&
        linnet_store_update(c->store, flush_traffic, c, NULL) != LINNET_OK)
        linnet_coordinator_say(c, 4,
                               "the last traffic counts are lost"); /* a statistic: a full disk may cost it */
    linnet_secure_end(c);
    linnet_witness_close(c);
    linnet_store_close(c->store);
    linnet_layout_destroy(c->layout);
    linnet_identity_destroy(c->identity);
    linnet_identity_destroy(c->authority);
    linnet_wipe(c->channel, sizeof(c->channel));
    if (c->lock_fd >= 0)
        (void)close(c->lock_fd);
    (void)pthread_mutex_destroy(&c->lock);
    (void)pthread_mutex_destroy(&c->secure_lock);
    (void)pthread_mutex_destroy(&c->witness_lock);
    for (size_t i = 0; i < LINNET_SPOOL_LOCKS; i++)
        (void)pthread_mutex_destroy(&c->spool_locks[i]);
    free(c->directory);
    free(c);
}

const linnet_plan *linnet_coordinator_plan(const linnet_coordinator *c)
{
    return &c->plan;
}

const char *linnet_coordinator_architecture(const linnet_coordinator *c)
{
    return c->architecture;
}

/* ---- the layout, kept in the store so that a state needs no model file to be opened ---- */

static void layout_pack(const linnet_layout *layout, linnet_buffer *bytes)
{
    uint8_t alpha[4];
    linnet_store_f32(alpha, layout->alpha);
    linnet_buffer_append(bytes, alpha, sizeof(alpha));
    linnet_buffer_append_le32(bytes, (uint32_t)layout->n_entries);
    linnet_buffer_append_le64(bytes, layout->n_a);
    linnet_buffer_append_le64(bytes, layout->n_b);
    for (size_t i = 0; i < layout->n_entries; i++) {
        const linnet_layout_entry *entry = &layout->entries[i];
        linnet_buffer_append(bytes, entry->name, sizeof(entry->name));
        const uint32_t numbers[] = {entry->layer, (uint32_t)entry->target, entry->rows, entry->columns,
                                    entry->rank,  entry->n_rope_heads};
        for (size_t j = 0; j < ARRAY_LEN(numbers); j++)
            linnet_buffer_append_le32(bytes, numbers[j]);
        linnet_buffer_append_le64(bytes, entry->a_offset);
        linnet_buffer_append_le64(bytes, entry->b_offset);
    }
}

static void entry_unpack(linnet_reader *reader, linnet_layout_entry *entry)
{
    const uint8_t *name = linnet_reader_take(reader, sizeof(entry->name));
    if (name)
        memcpy(entry->name, name, sizeof(entry->name));
    entry->name[sizeof(entry->name) - 1] = '\0';
    entry->layer = linnet_reader_le32(reader);
    entry->target = (linnet_target)linnet_reader_le32(reader);
    entry->rows = linnet_reader_le32(reader);
    entry->columns = linnet_reader_le32(reader);
    entry->rank = linnet_reader_le32(reader);
    entry->n_rope_heads = linnet_reader_le32(reader);
    entry->a_offset = (size_t)linnet_reader_le64(reader);
    entry->b_offset = (size_t)linnet_reader_le64(reader);
}

static linnet_status layout_unpack(const linnet_buffer *bytes, linnet_layout **ret_layout, linnet_error *err)
{
    linnet_reader reader = linnet_reader_of(bytes->bytes, bytes->n_bytes);
    const uint8_t *alpha = linnet_reader_take(&reader, 4);
    linnet_layout layout = {.alpha = alpha ? linnet_load_f32(alpha) : 0};
    layout.n_entries = linnet_reader_le32(&reader);
    layout.n_a = (size_t)linnet_reader_le64(&reader);
    layout.n_b = (size_t)linnet_reader_le64(&reader);
    layout.n_parameters = layout.n_a + layout.n_b;
    if (reader.failed || layout.n_entries == 0 || layout.n_entries > LINNET_LAYOUT_ENTRIES_MAX)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: the adapter's layout is damaged; restore the state from a backup");
    layout.entries = calloc(layout.n_entries, sizeof(*layout.entries));
    for (size_t i = 0; layout.entries && i < layout.n_entries; i++)
        entry_unpack(&reader, &layout.entries[i]);
    linnet_layout *copy =
        layout.entries && linnet_reader_is_done(&reader) ? linnet_layout_copy(&layout) : NULL;
    bool lacks_memory = !layout.entries || (linnet_reader_is_done(&reader) && !copy);
    free(layout.entries);
    if (!copy)
        return linnet_fail(err, lacks_memory ? LINNET_ERR_NOMEM : LINNET_ERR_FORMAT,
                           "store: the adapter's layout cannot be read");
    *ret_layout = copy;
    return LINNET_OK;
}

/* ---- init ---- */

typedef struct init_job {
    linnet_coordinator *coordinator;
    int64_t now_ms;
    linnet_buffer plan_text, layout; /* owned */
    linnet_hash adapter;
} init_job;

static linnet_status put_all(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const init_job *job = context;
    linnet_coordinator *c = job->coordinator;
    linnet_hash zero = {{0}}, release;
    const struct {
        const char *name;
        const void *bytes;
        size_t n_bytes;
    } rows[] = {
        {"task", c->task, sizeof(c->task)},
        {"plan", job->plan_text.bytes, job->plan_text.n_bytes},
        {"layout", job->layout.bytes, job->layout.n_bytes},
        {"base", c->base_model.bytes, sizeof(c->base_model.bytes)},
        {"authority", c->authority_key.bytes, sizeof(c->authority_key.bytes)},
        {"architecture", c->architecture, strlen(c->architecture)},
    };
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < ARRAY_LEN(rows) && status == LINNET_OK; i++)
        status = linnet_config_put(txn, rows[i].name, rows[i].bytes, rows[i].n_bytes, err);
    if (status == LINNET_OK)
        status = linnet_publish_release(c, txn, 0, &zero, &job->adapter, &zero, &release, err);
    if (status == LINNET_OK)
        status = linnet_rounds_open(c, txn, 0, &release, job->now_ms, err);
    if (status == LINNET_OK)
        status = linnet_config_put_u64(txn, "format", LINNET_STORE_FORMAT, err);
    return status;
}

linnet_status linnet_coordinator_model_check(const linnet_plan *plan, const char *model_path,
                                             const linnet_gguf *model, linnet_hash *ret_hash,
                                             linnet_error *err)
{
    char name[80];
    uint32_t context = 0;
    linnet_text architecture;
    linnet_hash hash;
    linnet_status status = linnet_gguf_hash(model, &hash, err);
    if (status == LINNET_OK && plan->has_base_hash && !linnet_hash_equal(&plan->base_hash, &hash))
        status = linnet_fail(err, LINNET_ERR_MISMATCH,
                             "'%s' is not the model whose hash the plan names in base_hash", model_path);
    if (status == LINNET_OK)
        status = linnet_gguf_get_text(model, "general.architecture", &architecture, err);
    if (status != LINNET_OK)
        return status;
    (void)snprintf(name, sizeof(name), "%.*s.context_length", (int)architecture.n_bytes, architecture.bytes);
    if (linnet_gguf_get_u32(model, name, &context, NULL) == LINNET_OK && context < plan->context_tokens)
        return linnet_fail(err, LINNET_ERR_RANGE, "the plan's training.context_tokens is %u, '%s' has %u",
                           plan->context_tokens, model_path, context);
    *ret_hash = hash;
    return LINNET_OK;
}

/* Model and plan: what the task is about. */
static linnet_status init_task(linnet_coordinator *c, const linnet_plan *plan, const char *model_path,
                               init_job *job, linnet_error *err)
{
    linnet_gguf *model = NULL;
    linnet_text architecture;
    c->plan = *plan;
    linnet_status status = linnet_gguf_open(model_path, &model, err);
    if (status == LINNET_OK)
        status = linnet_coordinator_model_check(plan, model_path, model, &c->base_model, err);
    if (status == LINNET_OK)
        status = linnet_gguf_get_text(model, "general.architecture", &architecture, err);
    if (status == LINNET_OK && architecture.n_bytes >= sizeof(c->architecture))
        status =
            linnet_fail(err, LINNET_ERR_UNSUPPORTED, "'%s': the architecture's name is too long", model_path);
    if (status == LINNET_OK)
        memcpy(c->architecture, architecture.bytes, architecture.n_bytes);
    if (status == LINNET_OK)
        status = linnet_layout_create(model, plan->rank, (float)plan->alpha, plan->targets, &c->layout, err);
    linnet_gguf_close(model);
    c->plan.base_hash = c->base_model;
    c->plan.has_base_hash = true;
    if (status == LINNET_OK)
        status = linnet_plan_check(&c->plan, err);
    if (status == LINNET_OK)
        status = linnet_plan_write(&c->plan, &job->plan_text, err);
    if (status == LINNET_OK)
        c->plan_hash = linnet_plan_hash(job->plan_text.bytes, job->plan_text.n_bytes);
    return status;
}

static linnet_status init_keys(linnet_coordinator *c, const linnet_public_key *authority_public_key,
                               linnet_error *err)
{
    char path[4096];
    linnet_random_bytes(c->task, sizeof(c->task));
    linnet_status status = linnet_identity_create(&c->identity, err);
    if (status == LINNET_OK && !linnet_coordinator_path(c, path, "coordinator.key"))
        status = linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    if (status == LINNET_OK)
        status = linnet_seed_write(path, c->identity, err);
    if (status == LINNET_OK && authority_public_key) {
        c->authority_key = *authority_public_key;
    } else if (status == LINNET_OK && linnet_coordinator_path(c, path, "authority")) {
        status = linnet_authority_create(path, &c->authority, err);
        if (status == LINNET_OK)
            c->authority_key = *linnet_identity_public_key(c->authority);
    }
    return status;
}

/* The first adapter and the plan as objects. The plan lies under H(OBJECT) as every object, and under its
 * plan hash, by which releases name it. */
static linnet_status init_objects(linnet_coordinator *c, init_job *job, linnet_error *err)
{
    linnet_adapter *adapter = NULL;
    linnet_buffer packed = {0};
    linnet_hash as_object = linnet_hash_of(LINNET_LABEL_OBJECT, job->plan_text.bytes, job->plan_text.n_bytes);
    linnet_status status =
        linnet_object_write(c, "objects", &c->plan_hash, job->plan_text.bytes, job->plan_text.n_bytes, err);
    if (status == LINNET_OK)
        status =
            linnet_object_write(c, "objects", &as_object, job->plan_text.bytes, job->plan_text.n_bytes, err);
    if (status == LINNET_OK)
        status = linnet_adapter_create(c->layout, &adapter, err);
    if (status == LINNET_OK) {
        linnet_adapter_init(adapter, c->plan.seed);
        status = linnet_adapter_pack(adapter, &packed, err);
    }
    if (status == LINNET_OK && packed.n_bytes > LINNET_OBJECT_BYTES_MAX)
        status = linnet_fail(err, LINNET_ERR_LIMIT,
                             "the adapter has %zu bytes, more than the %zu allowed: lower the rank",
                             packed.n_bytes, LINNET_OBJECT_BYTES_MAX);
    if (status == LINNET_OK) {
        job->adapter = linnet_hash_of(LINNET_LABEL_OBJECT, packed.bytes, packed.n_bytes);
        status = linnet_object_write(c, "objects", &job->adapter, packed.bytes, packed.n_bytes, err);
    }
    linnet_adapter_destroy(adapter);
    linnet_buffer_release(&packed);
    return status;
}

static linnet_status init_state(linnet_coordinator *c, init_job *job, const linnet_plan *plan,
                                const char *model_path, const linnet_public_key *authority_public_key,
                                linnet_error *err)
{
    char path[4096];
    uint64_t next_s;
    linnet_status status = init_task(c, plan, model_path, job, err);
    for (size_t i = 0; i < ARRAY_LEN(folders) && status == LINNET_OK; i++)
        status = linnet_coordinator_path(c, path, "%s", folders[i])
                     ? linnet_directory_create(path, err)
                     : linnet_fail(err, LINNET_ERR_LIMIT, "'%s': the path is too long", c->directory);
    if (status == LINNET_OK)
        status = init_keys(c, authority_public_key, err);
    if (status == LINNET_OK)
        status = init_objects(c, job, err);
    layout_pack(c->layout ? c->layout : &(linnet_layout){0}, &job->layout);
    if (status == LINNET_OK && job->layout.failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "layout");
    if (status == LINNET_OK && linnet_coordinator_path(c, path, "store"))
        status = linnet_store_open(path, true, true, &c->store, err);
    if (status == LINNET_OK)
        status = linnet_channel_keys_rotate(c, (uint64_t)(job->now_ms / 1000), &next_s, err);
    if (status == LINNET_OK)
        status = linnet_store_update(c->store, put_all, job, err);
    return status;
}

static void folder_remove(const char *path)
{
    char name[4096];
    DIR *dir = opendir(path);
    if (!dir)
        return;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        int n = snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.' && n > 0 && (size_t)n < sizeof(name))
            (void)unlink(name); /* best effort on the way out of a failure */
    }
    (void)closedir(dir);
    (void)rmdir(path);
}

/* Take back what init made: only names that init makes, in a directory that was empty. */
static void init_undo(const linnet_coordinator *c)
{
    char path[4096];
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        if (linnet_coordinator_path(c, path, "%s", folders[i]))
            folder_remove(path);
    if (linnet_coordinator_path(c, path, "authority"))
        folder_remove(path);
    if (linnet_coordinator_path(c, path, "coordinator.key"))
        (void)unlink(path);
}

/* EXISTS where the directory has anything in it; ret_is_new where it was not there. */
static linnet_status directory_check(const char *directory, bool *ret_is_new, linnet_error *err)
{
    DIR *dir = opendir(directory);
    bool is_empty = true;
    *ret_is_new = !dir;
    if (!dir)
        return linnet_directory_create(directory, err);
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        is_empty = is_empty && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
    (void)closedir(dir);
    if (!is_empty)
        return linnet_fail(err, LINNET_ERR_EXISTS,
                           "'%s' is not empty: nothing was changed; name another directory, or remove this "
                           "one if its task is over",
                           directory);
    return LINNET_OK;
}

linnet_status linnet_coordinator_init(const char *state_directory, const linnet_plan *plan,
                                      const char *model_path, const linnet_public_key *authority_public_key,
                                      int64_t now_ms, linnet_error *err)
{
    bool is_new = false;
    linnet_coordinator *c = NULL;
    linnet_status status = directory_check(state_directory, &is_new, err);
    if (status == LINNET_OK)
        status = coordinator_alloc(state_directory, &c, err);
    if (status != LINNET_OK)
        return status;
    init_job job = {.coordinator = c, .now_ms = now_ms};
    c->is_durable = true;
    status = init_state(c, &job, plan, model_path, authority_public_key, err);
    linnet_buffer_release(&job.plan_text);
    linnet_buffer_release(&job.layout);
    linnet_store_close(c->store);
    c->store = NULL;
    if (status != LINNET_OK) {
        init_undo(c);
        if (is_new)
            (void)rmdir(state_directory);
    }
    linnet_coordinator_close(c);
    return status;
}

/* ---- open ---- */

static linnet_status fixed(linnet_store_txn *txn, const char *name, void *bytes, size_t n_bytes,
                           linnet_error *err)
{
    linnet_buffer value = {0};
    linnet_status status = linnet_config_get(txn, name, &value, err);
    if (status == LINNET_OK && value.n_bytes != n_bytes)
        status = linnet_fail(err, LINNET_ERR_FORMAT,
                             "store: '%s' is damaged; restore the state from a backup", name);
    if (status == LINNET_OK)
        memcpy(bytes, value.bytes, n_bytes);
    linnet_buffer_release(&value);
    return status;
}

static linnet_status format_check(const linnet_coordinator *c, linnet_store_txn *txn, linnet_error *err)
{
    uint64_t format;
    linnet_status status = linnet_config_get_u64(txn, "format", &format, err);
    if (status != LINNET_OK)
        return status;
    if (format == 0)
        return linnet_fail(
            err, LINNET_ERR_FORMAT,
            "'%s' was never completely set up: remove it and run 'linnet-coordinator init' again",
            c->directory);
    if (format > LINNET_STORE_FORMAT)
        return linnet_fail(
            err, LINNET_ERR_UNSUPPORTED,
            "'%s' was written by a newer linnet (format %llu, this one knows %d): use that version",
            c->directory, (unsigned long long)format, LINNET_STORE_FORMAT);
    return LINNET_OK;
}

static linnet_status config_read(linnet_coordinator *c, linnet_store_txn *txn, linnet_error *err)
{
    linnet_buffer plan = {0}, layout = {0}, architecture = {0};
    linnet_status status = format_check(c, txn, err);
    if (status == LINNET_OK)
        status = fixed(txn, "task", c->task, sizeof(c->task), err);
    if (status == LINNET_OK)
        status = fixed(txn, "base", c->base_model.bytes, sizeof(c->base_model.bytes), err);
    if (status == LINNET_OK)
        status = fixed(txn, "authority", c->authority_key.bytes, sizeof(c->authority_key.bytes), err);
    if (status == LINNET_OK)
        status = linnet_config_get(txn, "plan", &plan, err);
    if (status == LINNET_OK)
        status = linnet_config_get(txn, "layout", &layout, err);
    if (status == LINNET_OK)
        status = linnet_config_get(txn, "architecture", &architecture, err);
    if (status == LINNET_OK)
        status = linnet_plan_parse("the state's plan", (const char *)plan.bytes, plan.n_bytes, &c->plan, err);
    if (status == LINNET_OK)
        status = layout_unpack(&layout, &c->layout, err);
    if (status == LINNET_OK && architecture.n_bytes < sizeof(c->architecture))
        memcpy(c->architecture, architecture.bytes, architecture.n_bytes);
    c->plan_hash = linnet_plan_hash(plan.bytes, plan.n_bytes);
    linnet_buffer_release(&plan);
    linnet_buffer_release(&layout);
    linnet_buffer_release(&architecture);
    return status;
}

static linnet_status keys_read(linnet_coordinator *c, linnet_error *err)
{
    char path[4096];
    if (!linnet_coordinator_path(c, path, "coordinator.key"))
        return linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    linnet_status status = linnet_seed_read(path, &c->identity, err);
    if (status != LINNET_OK || !linnet_coordinator_path(c, path, "authority"))
        return status;
    status = linnet_authority_load(path, &c->authority, err);
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

/* The serving process: lock, rid of what a crash left, a channel key that is valid now. */
static linnet_status serve_begin(linnet_coordinator *c, int64_t now_ms, linnet_error *err)
{
    uint64_t next_s;
    linnet_round_row round = {0};
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_rounds_newest(txn, &round, err);
    linnet_store_read_end(txn);
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return status;
    bool is_alive =
        status == LINNET_OK && (round.state == LINNET_ROUND_OPEN || round.state == LINNET_ROUND_FROZEN);
    status = LINNET_OK;
    if (linnet_profile_is_secure(c->plan.profile))
        status = linnet_secure_begin(c, now_ms, err);
    else
        linnet_spool_sweep(c, &round.number, is_alive ? 1 : 0);
    if (status != LINNET_OK)
        return status;
    linnet_server_state_sweep(c);
    return linnet_channel_keys_rotate(c, (uint64_t)(now_ms / 1000), &next_s, err);
}

static linnet_status state_open(linnet_coordinator *c, const linnet_coordinator_options *options,
                                int64_t now_ms, linnet_error *err)
{
    char path[4096];
    linnet_store_txn *txn = NULL;
    if (access(c->directory, F_OK) != 0 || !linnet_coordinator_path(c, path, "store/data.mdb") ||
        access(path, F_OK) != 0)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND,
                           "'%s' holds no coordinator's state: run 'linnet-coordinator init' first",
                           c->directory);
    linnet_status status = LINNET_OK;
    if (options->serve && linnet_coordinator_path(c, path, "serve.lock"))
        status = linnet_lock_take(path, &c->lock_fd, err);
    if (status != LINNET_OK)
        return status;
    c->is_durable = !options->in_memory_speed;
    c->has_seed = options->has_seed;
    c->seed = options->seed;
    if (linnet_coordinator_path(c, path, "store"))
        status = linnet_store_open(path, false, c->is_durable, &c->store, err);
    if (status == LINNET_OK)
        status = linnet_store_read_begin(c->store, &txn, err);
    if (status == LINNET_OK)
        status = config_read(c, txn, err);
    linnet_store_read_end(txn);
    if (status == LINNET_OK)
        status = keys_read(c, err);
    if (status == LINNET_OK)
        status = linnet_channel_keys_load(c, err);
    if (status == LINNET_OK && options->serve)
        status = linnet_witness_open(c, options->log_path, err);
    if (status == LINNET_OK && options->serve)
        status = serve_begin(c, now_ms, err);
    c->serves = status == LINNET_OK && options->serve;
    return status;
}

linnet_status linnet_coordinator_open(const char *state_directory, const linnet_coordinator_options *options,
                                      int64_t now_ms, linnet_coordinator **ret_coordinator, linnet_error *err)
{
    linnet_coordinator *c = NULL;
    linnet_status status = coordinator_alloc(state_directory, &c, err);
    if (status != LINNET_OK)
        return status;
    c->opened_ms = now_ms;
    status = state_open(c, options, now_ms, err);
    if (status != LINNET_OK) {
        linnet_coordinator_close(c);
        return status;
    }
    *ret_coordinator = c;
    return LINNET_OK;
}
