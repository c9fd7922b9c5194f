/* SPDX-License-Identifier: Apache-2.0 */
/* A trainer's state as bytes, little-endian:
 *
 *   "LNCK", version u32 = 1, hash of the settings 32, of the layout 32, of the data 32,
 *   steps taken u32, n_parameters u64, n_active u64,
 *   adapter f32[n_parameters], moments f32[2 n_active] (AdamW), start f32[n_parameters] (with prox_mu),
 *   H(OBJECT) of all before 32.
 *
 * Dropout and, with record-level privacy, its numbers are part of the settings where they are on, so that
 * checkpoints of trainings without them are what they were; units are part of the data then. The order
 * of the data follows from the seed and the steps taken. The number of steps is a setting only
 * where the schedule depends on it, so that a run with a constant rate can be made longer. */
#include "trainer_state.h"

#define VERSION 1
#define HEADER_BYTES (4 + 4 + 3 * LINNET_HASH_BYTES + 4 + 8 + 8)

static void append_f64(linnet_buffer *bytes, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    linnet_buffer_append_le64(bytes, bits);
}

static linnet_status settings_hash(const linnet_training *t, linnet_hash *ret_hash, linnet_error *err)
{
    linnet_buffer b = {0};
    const double numbers[] = {t->learning_rate, t->learning_rate_a, t->beta1,     t->beta2,
                              t->epsilon,       t->weight_decay,    t->clip_norm, t->prox_mu};
    linnet_buffer_append_u8(&b, (uint8_t)t->optimizer);
    linnet_buffer_append_u8(&b, (uint8_t)t->schedule);
    linnet_buffer_append_u8(&b, (uint8_t)t->factors);
    linnet_buffer_append_u8(&b, t->shuffle);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        append_f64(&b, numbers[i]);
    linnet_buffer_append_le32(&b, t->schedule == LINNET_SCHEDULE_COSINE ? t->n_steps : 0);
    linnet_buffer_append_le32(&b, t->batch_records);
    linnet_buffer_append_le32(&b, t->warmup_steps);
    linnet_buffer_append_le64(&b, t->seed);
    if (t->dropout > 0)
        append_f64(&b, t->dropout);
    if (linnet_training_is_private(t)) {
        append_f64(&b, t->privacy.probability);
        append_f64(&b, t->privacy.clip_norm);
        append_f64(&b, t->privacy.noise_multiplier);
        linnet_buffer_append_le32(&b, t->privacy.n_units);
    }
    bool failed = b.failed;
    if (!failed)
        *ret_hash = linnet_hash_of(LINNET_LABEL_OBJECT, b.bytes, b.n_bytes);
    linnet_buffer_release(&b);
    return failed ? linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a checkpoint") : LINNET_OK;
}

void linnet_tokens_hash(const linnet_tokens *record, linnet_hasher *hasher)
{
    uint8_t n[8], token[5];
    linnet_store_le64(n, record->n_ids);
    linnet_hasher_update(hasher, n, sizeof(n));
    for (size_t i = 0; i < record->n_ids; i++) {
        linnet_store_le32(token, (uint32_t)record->ids[i]);
        token[4] = record->counted[i];
        linnet_hasher_update(hasher, token, sizeof(token));
    }
    if (record->has_label) {
        linnet_store_le32(token, record->label);
        linnet_hasher_update(hasher, token, sizeof(uint32_t));
    }
}

static linnet_hash data_hash(const linnet_token_set *set, bool is_private)
{
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_OBJECT);
    for (size_t i = 0; i < set->n_items; i++) {
        linnet_tokens_hash(&set->items[i], &hasher);
        if (is_private) {
            uint8_t unit[8];
            linnet_store_le64(unit, set->units[i]);
            linnet_hasher_update(&hasher, unit, sizeof(unit));
        }
    }
    return linnet_hasher_final(&hasher);
}

static void append_floats(linnet_buffer *bytes, const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t b[4];
        linnet_store_f32(b, values[i]);
        linnet_buffer_append(bytes, b, sizeof(b));
    }
}

linnet_status linnet_trainer_save(const linnet_trainer *trainer, linnet_buffer *ret_bytes, linnet_error *err)
{
    linnet_buffer b = {0};
    const linnet_layout *layout = trainer->adapter->layout;
    size_t n_active = trainer->optimizer.n_active;
    linnet_hash settings, layout_hash = linnet_layout_hash(layout),
                          data = data_hash(trainer->set, linnet_training_is_private(&trainer->training));
    linnet_status status = settings_hash(&trainer->training, &settings, err);
    if (status != LINNET_OK)
        return status;
    linnet_buffer_append(&b, "LNCK", 4);
    linnet_buffer_append_le32(&b, VERSION);
    linnet_buffer_append(&b, settings.bytes, sizeof(settings.bytes));
    linnet_buffer_append(&b, layout_hash.bytes, sizeof(layout_hash.bytes));
    linnet_buffer_append(&b, data.bytes, sizeof(data.bytes));
    linnet_buffer_append_le32(&b, trainer->n_steps_taken);
    linnet_buffer_append_le64(&b, layout->n_parameters);
    linnet_buffer_append_le64(&b, n_active);
    append_floats(&b, trainer->adapter->data, layout->n_parameters);
    if (trainer->optimizer.moment1) {
        append_floats(&b, trainer->optimizer.moment1, n_active);
        append_floats(&b, trainer->optimizer.moment2, n_active);
    }
    if (trainer->start)
        append_floats(&b, trainer->start, layout->n_parameters);
    if (!b.failed) {
        linnet_hash whole = linnet_hash_of(LINNET_LABEL_OBJECT, b.bytes, b.n_bytes);
        linnet_buffer_append(&b, whole.bytes, sizeof(whole.bytes));
    }
    linnet_buffer_append(ret_bytes, b.bytes, b.failed ? 0 : b.n_bytes);
    bool failed = b.failed || ret_bytes->failed;
    linnet_buffer_release(&b);
    return failed ? linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a checkpoint") : LINNET_OK;
}

/* Size, magic, version and the hash of the whole; after this the bytes are what a trainer wrote. */
static linnet_status check_whole(const uint8_t *bytes, size_t n_bytes, linnet_error *err)
{
    if (n_bytes < HEADER_BYTES + LINNET_HASH_BYTES || memcmp(bytes, "LNCK", 4) != 0)
        return linnet_fail(err, LINNET_ERR_FORMAT, "this is no checkpoint");
    if (linnet_load_le32(bytes + 4) != VERSION)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "a checkpoint of version %u, this program knows version %d",
                           (unsigned)linnet_load_le32(bytes + 4), VERSION);
    linnet_hash want, got = linnet_hash_of(LINNET_LABEL_OBJECT, bytes, n_bytes - LINNET_HASH_BYTES);
    memcpy(want.bytes, bytes + n_bytes - LINNET_HASH_BYTES, LINNET_HASH_BYTES);
    if (!linnet_hash_equal(&want, &got))
        return linnet_fail(err, LINNET_ERR_FORMAT, "the checkpoint is damaged (its hash is another)");
    return LINNET_OK;
}

static linnet_status check_same(linnet_reader *r, const linnet_hash *ours, const char *what,
                                linnet_error *err)
{
    const uint8_t *theirs = linnet_reader_take(r, LINNET_HASH_BYTES);
    if (!theirs || memcmp(theirs, ours->bytes, LINNET_HASH_BYTES) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "the checkpoint was made with %s", what);
    return LINNET_OK;
}

static void take_floats(linnet_reader *r, float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = linnet_reader_le32(r);
        memcpy(&values[i], &bits, sizeof(bits));
    }
}

/* Header checks; leaves the reader at the floats, whose number has been checked against the bytes left. */
static linnet_status check_header(const linnet_trainer *t, linnet_reader *r, uint32_t *ret_steps,
                                  linnet_error *err)
{
    linnet_hash settings, layout = linnet_layout_hash(t->adapter->layout),
                          data = data_hash(t->set, linnet_training_is_private(&t->training));
    linnet_status status = settings_hash(&t->training, &settings, err);
    (void)linnet_reader_take(r, 8); /* magic and version, checked before */
    if (status == LINNET_OK)
        status = check_same(r, &settings, "other training settings", err);
    if (status == LINNET_OK)
        status = check_same(r, &layout, "an adapter of another layout (model, rank, alpha or targets)", err);
    if (status == LINNET_OK)
        status = check_same(r, &data, "other data", err);
    if (status != LINNET_OK)
        return status;
    uint32_t steps = linnet_reader_le32(r);
    uint64_t n_parameters = linnet_reader_le64(r), n_active = linnet_reader_le64(r);
    uint64_t n_floats = (uint64_t)t->adapter->layout->n_parameters * (t->start ? 2 : 1) +
                        (t->optimizer.moment1 ? 2 * (uint64_t)t->optimizer.n_active : 0);
    if (n_parameters != t->adapter->layout->n_parameters || n_active != t->optimizer.n_active ||
        r->n_bytes - r->at != n_floats * sizeof(float))
        return linnet_fail(err, LINNET_ERR_FORMAT, "the checkpoint's size does not fit its settings");
    *ret_steps = steps;
    return LINNET_OK;
}

linnet_status linnet_trainer_restore(linnet_trainer *trainer, const void *bytes, size_t n_bytes,
                                     linnet_error *err)
{
    uint32_t steps = 0;
    linnet_status status = check_whole(bytes, n_bytes, err);
    if (status != LINNET_OK)
        return status;
    linnet_reader r = linnet_reader_of(bytes, n_bytes - LINNET_HASH_BYTES);
    status = check_header(trainer, &r, &steps, err);
    if (status != LINNET_OK)
        return status;
    take_floats(&r, trainer->adapter->data, trainer->adapter->layout->n_parameters);
    if (trainer->optimizer.moment1) {
        take_floats(&r, trainer->optimizer.moment1, trainer->optimizer.n_active);
        take_floats(&r, trainer->optimizer.moment2, trainer->optimizer.n_active);
    }
    if (trainer->start)
        take_floats(&r, trainer->start, trainer->adapter->layout->n_parameters);
    trainer->n_steps_taken = steps;
    return LINNET_OK;
}
