/* SPDX-License-Identifier: Apache-2.0 */
/* The channel's keys (SECURE-AGGREGATION 2.11): a record lives at most seven days, a new one is made at half
 * of that, and until it expires the older one still opens requests, so that no device is cut off between two
 * HELLOs. The secret of a record is a file, overwritten and removed when the record is over: that is the
 * forward secrecy of requests. Files and not rows, because a deleted row lingers in LMDB's free pages.
 * Numbers never go back: the row of the record is committed after the secret is on disk and before anybody
 * sees it. */
#include "state.h"

#include "linnet/file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define LIFE_SECONDS ((uint64_t)LINNET_CHANNEL_KEY_SECONDS_MAX)
#define SLACK_SECONDS 3600 /* devices' clocks may be behind */

static bool secret_path(const linnet_coordinator *c, uint64_t number, char path[4096])
{
    return linnet_coordinator_path(c, path, "channel/%llu.key", (unsigned long long)number);
}

/* Overwrite, then unlink. What a flash translation layer keeps is beyond a program's reach. */
static void secret_erase(const linnet_coordinator *c, uint64_t number)
{
    char path[4096];
    static const uint8_t zeros[32];
    if (!secret_path(c, number, path))
        return;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, zeros, sizeof(zeros)) == (ssize_t)sizeof(zeros))
        (void)fsync(fd); /* the unlink follows whatever it says: the secret must go */
    (void)close(fd);
    (void)unlink(path);
}

typedef struct key_job {
    linnet_coordinator *coordinator;
    linnet_channel_slot slot;
} key_job;

static linnet_status put_key(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const key_job *job = context;
    linnet_record_id id = linnet_record_number('k', job->slot.number);
    linnet_status status = linnet_store_put(txn, &id, job->slot.record, sizeof(job->slot.record), err);
    if (status == LINNET_OK)
        status = linnet_config_put_u64(txn, "channel", job->slot.number, err);
    return status;
}

/* Under c->lock: take a slot into memory; where there is no room, the oldest is over before its time. */
static void slot_add(linnet_coordinator *c, const linnet_channel_slot *slot)
{
    if (c->n_channel == LINNET_CHANNEL_KEYS) {
        secret_erase(c, c->channel[0].number);
        memmove(c->channel, c->channel + 1, (LINNET_CHANNEL_KEYS - 1) * sizeof(c->channel[0]));
        c->n_channel--;
    }
    c->channel[c->n_channel++] = *slot;
}

static linnet_status key_make(linnet_coordinator *c, uint64_t now_s, linnet_error *err)
{
    char path[4096];
    linnet_store_txn *txn = NULL;
    key_job job = {.coordinator = c};
    linnet_channel_key key = {0};
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_config_get_u64(txn, "channel", &job.slot.number, err);
    linnet_store_read_end(txn);
    if (status != LINNET_OK)
        return status;
    key.number = ++job.slot.number;
    key.not_before = now_s > SLACK_SECONDS ? now_s - SLACK_SECONDS : 0;
    key.not_after = key.not_before + LIFE_SECONDS;
    memcpy(key.task, c->task, sizeof(key.task));
    linnet_channel_key_draw(&key, job.slot.secret);
    job.slot.not_before = key.not_before;
    job.slot.not_after = key.not_after;
    linnet_channel_key_sign(&key, c->identity, job.slot.record);
    status = secret_path(c, key.number, path)
                 ? linnet_file_write(path, job.slot.secret, sizeof(job.slot.secret), 0600, err)
                 : linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    if (status == LINNET_OK)
        status = linnet_store_update(c->store, put_key, &job, err);
    if (status == LINNET_OK) {
        (void)pthread_mutex_lock(&c->lock);
        slot_add(c, &job.slot);
        (void)pthread_mutex_unlock(&c->lock);
    }
    linnet_wipe(&job, sizeof(job));
    return status;
}

/* A record whose secret is still there comes into memory; the others are history. */
static linnet_status load_key(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                              size_t n_bytes, linnet_error *err)
{
    linnet_coordinator *c = context;
    char path[4096];
    linnet_channel_key key;
    linnet_channel_slot slot = {0};
    linnet_buffer secret = {0};
    (void)fields;
    (void)n_fields;
    if (linnet_channel_key_open(bytes, n_bytes, linnet_identity_public_key(c->identity), 0, &key) !=
        LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: a channel key record is damaged; restore the state from a backup");
    if (!secret_path(c, key.number, path) ||
        linnet_file_read(path, sizeof(slot.secret), &secret, NULL) != LINNET_OK ||
        secret.n_bytes != sizeof(slot.secret)) {
        linnet_buffer_release(&secret);
        return LINNET_OK;
    }
    memcpy(slot.secret, secret.bytes, sizeof(slot.secret));
    linnet_wipe(secret.bytes, secret.capacity);
    linnet_buffer_release(&secret);
    memcpy(slot.record, bytes, sizeof(slot.record));
    slot.number = key.number;
    slot.not_before = key.not_before;
    slot.not_after = key.not_after;
    slot_add(c, &slot);
    linnet_wipe(&slot, sizeof(slot));
    return LINNET_OK;
}

linnet_status linnet_channel_keys_load(linnet_coordinator *c, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_record_id prefix = linnet_record_of('k');
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_each(txn, &prefix, load_key, c, err);
    linnet_store_read_end(txn);
    return status;
}

linnet_status linnet_channel_keys_rotate(linnet_coordinator *c, uint64_t now_s, uint64_t *ret_next_s,
                                         linnet_error *err)
{
    uint64_t expired[LINNET_CHANNEL_KEYS];
    size_t n_expired = 0, n_kept = 0;
    (void)pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_channel; i++) {
        if (c->channel[i].not_after < now_s)
            expired[n_expired++] = c->channel[i].number;
        else
            c->channel[n_kept++] = c->channel[i];
    }
    linnet_wipe(c->channel + n_kept, (LINNET_CHANNEL_KEYS - n_kept) * sizeof(c->channel[0]));
    c->n_channel = n_kept;
    bool is_due = n_kept == 0 || now_s < c->channel[n_kept - 1].not_before || /* the clock was set back */
                  now_s >= c->channel[n_kept - 1].not_before + LIFE_SECONDS / 2;
    (void)pthread_mutex_unlock(&c->lock);
    for (size_t i = 0; i < n_expired; i++)
        secret_erase(c, expired[i]);
    linnet_status status = is_due ? key_make(c, now_s, err) : LINNET_OK;
    if (status != LINNET_OK)
        return status;
    (void)pthread_mutex_lock(&c->lock);
    *ret_next_s = c->channel[c->n_channel - 1].not_before + LIFE_SECONDS / 2;
    for (size_t i = 0; i < c->n_channel; i++)
        if (c->channel[i].not_after + 1 < *ret_next_s)
            *ret_next_s = c->channel[i].not_after + 1;
    (void)pthread_mutex_unlock(&c->lock);
    return LINNET_OK;
}

linnet_status linnet_channel_keys_find(linnet_coordinator *c, uint64_t number, uint64_t now_s,
                                       linnet_channel_slot *ret_slot)
{
    linnet_status status = LINNET_ERR_NOT_FOUND;
    (void)pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_channel && status != LINNET_OK; i++)
        if (c->channel[i].number == number && now_s <= c->channel[i].not_after) {
            *ret_slot = c->channel[i];
            status = LINNET_OK;
        }
    (void)pthread_mutex_unlock(&c->lock);
    return status;
}

bool linnet_channel_keys_newest(linnet_coordinator *c, uint8_t ret_record[LINNET_SIGNED_CHANNEL_KEY_BYTES])
{
    (void)pthread_mutex_lock(&c->lock);
    bool found = c->n_channel > 0;
    if (found)
        memcpy(ret_record, c->channel[c->n_channel - 1].record, LINNET_SIGNED_CHANNEL_KEY_BYTES);
    (void)pthread_mutex_unlock(&c->lock);
    return found;
}
