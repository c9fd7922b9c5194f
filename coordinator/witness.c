/* SPDX-License-Identifier: Apache-2.0 */
/* Against a state that was restored from a backup (SECURE-AGGREGATION 7, "never both kinds"): a log of the
 * transcript's heads and of every start, kept in a file of its own, best on another volume. It is fsynced
 * before anything that follows from a new head leaves. A store that is behind its log has forgotten what it
 * has said, rosters, sharers, frozen sets; it may not go on, for with shares of one kind in the old state and
 * of the other in the new one a sum could be taken apart. A store that is ahead of the log by one crash just
 * catches up.
 *
 * Records of 41 bytes: kind u8, number u64, 32 bytes. A start is a random id, which the store keeps too: so a
 * backup is found even where no head has come since. */
#include "state.h"

#include "linnet/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_BYTES 41
#define KIND_START 1
#define KIND_HEAD 2

typedef struct record {
    uint8_t kind; /* 0: none */
    uint64_t number;
    linnet_hash value;
} record;

/* What the log ends with. */
typedef struct tail {
    record start, head;
    uint64_t n_bytes; /* whole records */
} tail;

/* ---- the file ---- */

static linnet_status io_fail(const linnet_coordinator *c, const char *doing, linnet_error *err)
{
    return linnet_fail_errno(err, errno, "cannot %s the log '%s'", doing, c->witness_path);
}

static linnet_status record_read(const linnet_coordinator *c, uint64_t at, record *ret_record,
                                 linnet_error *err)
{
    uint8_t bytes[RECORD_BYTES];
    ssize_t n = pread(c->witness_fd, bytes, sizeof(bytes), (off_t)at);
    if (n < 0)
        return io_fail(c, "read", err);
    if (n != sizeof(bytes) || bytes[0] < KIND_START || bytes[0] > KIND_HEAD)
        return linnet_fail(err, LINNET_ERR_FORMAT, "the log '%s' is damaged or something else",
                           c->witness_path);
    ret_record->kind = bytes[0];
    ret_record->number = linnet_load_le64(bytes + 1);
    memcpy(ret_record->value.bytes, bytes + 9, sizeof(ret_record->value.bytes));
    return LINNET_OK;
}

/* The last start and the last head, from the end on. A record that a crash cut short does not count. */
static linnet_status tail_read(const linnet_coordinator *c, tail *ret_tail, linnet_error *err)
{
    struct stat st;
    tail t = {0};
    linnet_status status = LINNET_OK;
    if (fstat(c->witness_fd, &st) != 0)
        return io_fail(c, "look at", err);
    t.n_bytes = (uint64_t)st.st_size / RECORD_BYTES * RECORD_BYTES;
    for (uint64_t at = t.n_bytes; at > 0 && !(t.start.kind && t.head.kind) && status == LINNET_OK;
         at -= RECORD_BYTES) {
        record r = {0};
        status = record_read(c, at - RECORD_BYTES, &r, err);
        if (status == LINNET_OK && r.kind == KIND_START && !t.start.kind)
            t.start = r;
        else if (status == LINNET_OK && r.kind == KIND_HEAD && !t.head.kind)
            t.head = r;
    }
    if (status == LINNET_OK)
        *ret_tail = t;
    return status;
}

/* At the end, durably. NO_SPACE leaves the log as it was. */
static linnet_status record_append(linnet_coordinator *c, const record *r, linnet_error *err)
{
    uint8_t bytes[RECORD_BYTES];
    bytes[0] = r->kind;
    linnet_store_le64(bytes + 1, r->number);
    memcpy(bytes + 9, r->value.bytes, sizeof(r->value.bytes));
    ssize_t n = pwrite(c->witness_fd, bytes, sizeof(bytes), (off_t)c->witness_bytes);
    if (n < 0)
        return io_fail(c, "write to", err);
    if (n != sizeof(bytes)) /* the next record takes its place */
        return linnet_fail(err, LINNET_ERR_NO_SPACE, "no room for the log '%s': make room on its disk",
                           c->witness_path);
    if (c->is_durable && fsync(c->witness_fd) != 0)
        return linnet_fail(err, LINNET_ERR_IO, "fsync of the log '%s' failed: what is on disk is unknown",
                           c->witness_path);
    c->witness_bytes += sizeof(bytes);
    return LINNET_OK;
}

/* ---- what the store says ---- */

typedef struct start_job {
    const tail *log;
    record head; /* out: the store's, kind 0 where it has none */
    linnet_hash start;
    const char *flaw; /* out: why it may not go on */
} start_job;

static linnet_status hash_get(linnet_store_txn *txn, const char *name, linnet_hash *ret_hash, bool *ret_has,
                              linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_config_get(txn, name, &bytes, err);
    *ret_has = status == LINNET_OK && bytes.n_bytes == sizeof(ret_hash->bytes);
    if (*ret_has)
        memcpy(ret_hash->bytes, bytes.bytes, sizeof(ret_hash->bytes));
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status head_get(linnet_store_txn *txn, record *ret_head, linnet_error *err)
{
    bool has = false;
    record head = {0};
    linnet_status status = linnet_config_get_u64(txn, "transcript.entries", &head.number, err);
    if (status == LINNET_OK)
        status = hash_get(txn, "transcript.head", &head.value, &has, err);
    head.kind = has ? KIND_HEAD : 0;
    if (status == LINNET_OK)
        *ret_head = head;
    return status;
}

/* Is the log's head in the store's transcript? */
static linnet_status head_compare(linnet_store_txn *txn, start_job *job, linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_entry_row entry;
    const record *log = &job->log->head;
    if (!log->kind)
        return LINNET_OK;
    if (log->number > job->head.number) {
        job->flaw = "its transcript is behind the log";
        return LINNET_OK;
    }
    linnet_record_id id = linnet_record_number('h', log->number - 1);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status == LINNET_ERR_NOT_FOUND ||
        (status == LINNET_OK && (linnet_entry_row_unpack(bytes, n_bytes, &entry) != LINNET_OK ||
                                 !linnet_hash_equal(&entry.head, &log->value))))
        job->flaw = "its transcript is another one";
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

/* The store knows the log's last start: as its own, or as the one before a crash between store and log. */
static linnet_status start_compare(linnet_store_txn *txn, start_job *job, linnet_error *err)
{
    linnet_hash own, before;
    bool has_own = false, has_before = false;
    linnet_status status = hash_get(txn, "start", &own, &has_own, err);
    if (status == LINNET_OK)
        status = hash_get(txn, "start.before", &before, &has_before, err);
    if (status != LINNET_OK || !has_own)
        return status; /* never served: any log that agrees with its transcript will do */
    const record *log = &job->log->start;
    bool is_own = log->kind && linnet_hash_equal(&log->value, &own);
    bool is_before = has_before ? log->kind && linnet_hash_equal(&log->value, &before) : !log->kind;
    if (!is_own && !is_before)
        job->flaw = log->kind ? "it was served from another copy since" : "its log is missing";
    if (!is_own || job->flaw)
        return LINNET_OK;
    return linnet_config_put(txn, "start.before", own.bytes, sizeof(own.bytes), err);
}

static linnet_status start(linnet_store_txn *txn, void *context, linnet_error *err)
{
    start_job *job = context;
    job->flaw = NULL;
    linnet_status status = head_get(txn, &job->head, err);
    if (status == LINNET_OK)
        status = head_compare(txn, job, err);
    if (status == LINNET_OK && !job->flaw)
        status = start_compare(txn, job, err);
    return status == LINNET_OK && !job->flaw
               ? linnet_config_put(txn, "start", job->start.bytes, sizeof(job->start.bytes), err)
               : status;
}

/* ---- for the other modules ---- */

static linnet_status file_open(linnet_coordinator *c, const char *path, linnet_error *err)
{
    char own[4096];
    if (!path && !linnet_coordinator_path(c, own, "transcript.log"))
        return linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    c->witness_path = strdup(path ? path : own);
    if (!c->witness_path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "log");
    c->witness_fd = open(c->witness_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (c->witness_fd < 0)
        return io_fail(c, "open", err);
    if (!c->is_durable)
        return LINNET_OK;
    char *slash = strrchr(c->witness_path, '/');
    (void)snprintf(own, sizeof(own), "%.*s", slash ? (int)(slash - c->witness_path) : 1,
                   slash ? c->witness_path : ".");
    return linnet_directory_sync(own[0] ? own : "/", err);
}

linnet_status linnet_witness_open(linnet_coordinator *c, const char *path, linnet_error *err)
{
    tail log;
    start_job job = {.log = &log};
    linnet_random_bytes(job.start.bytes, sizeof(job.start.bytes));
    linnet_status status = file_open(c, path, err);
    if (status == LINNET_OK)
        status = tail_read(c, &log, err);
    if (status == LINNET_OK)
        status = linnet_store_update(c->store, start, &job, err);
    if (status == LINNET_OK && job.flaw)
        status =
            linnet_fail(err, LINNET_ERR_MISMATCH,
                        "'%s' is not the newest state (%s, '%s'): a restored backup may not go on with a "
                        "round; restore a newer one, name the right log with --log, or start a new task",
                        c->directory, job.flaw, c->witness_path);
    if (status != LINNET_OK)
        return status;
    c->witness_bytes = log.n_bytes;
    c->witness_entries = log.head.number;
    const record started = {.kind = KIND_START, .number = job.head.number, .value = job.start};
    status = record_append(c, &started, err);
    return status == LINNET_OK ? linnet_witness_keep(c, err) : status;
}

linnet_status linnet_witness_keep(linnet_coordinator *c, linnet_error *err)
{
    record head = {0};
    linnet_store_txn *txn = NULL;
    if (c->witness_fd < 0)
        return LINNET_OK;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = head_get(txn, &head, err);
    linnet_store_read_end(txn);
    (void)pthread_mutex_lock(&c->witness_lock);
    if (status == LINNET_OK && head.number > c->witness_entries) {
        status = record_append(c, &head, err);
        if (status == LINNET_OK)
            c->witness_entries = head.number;
    }
    (void)pthread_mutex_unlock(&c->witness_lock);
    return status;
}

void linnet_witness_close(linnet_coordinator *c)
{
    if (c->witness_fd >= 0)
        (void)close(c->witness_fd); /* every record was fsynced */
    free(c->witness_path);
}
