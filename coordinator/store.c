/* SPDX-License-Identifier: Apache-2.0 */
/* The store: LMDB behind a few calls, and the only file that knows it. Default sync mode: a commit is on the
 * disk when it returns. A commit costs an fsync (about 8 ms on a small machine), so concurrent updates are
 * grouped into one transaction: a queue, and whoever finds no leader leads. Map size: address space only, the
 * file grows as it is written; 32-bit machines have little of it. No MDB_DUPSORT (0.9.24 lacks later fixes):
 * composite ids instead. */
#include "store.h"

#include "linnet/file.h"
#include "linnet/lmdb_check.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include <lmdb.h>

#if SIZE_MAX > UINT32_MAX
#define MAP_BYTES ((size_t)1 << 34)
#else
#define MAP_BYTES ((size_t)256 << 20)
#endif
#define READERS_MAX 512
#define LOCK_BYTES                                                                                           \
    ((size_t)READERS_MAX * 64 + 4096) /* LMDB's table of readers, which it writes through a map */
#define FREE_BYTES_MIN                                                                                       \
    ((uint64_t)1 << 20) /* LMDB calls a write that the disk cut short an I/O error: stay away */

typedef struct job {
    linnet_store_fn *fn;
    void *context;
    linnet_error *err;
    linnet_status status;
    bool is_done;
    struct job *next;
} job;

struct linnet_store {
    MDB_env *env;
    char *directory; /* owned */
    MDB_dbi dbi;
    pthread_mutex_t lock; /* guards the queue */
    pthread_cond_t done;
    job *first, **last;
    bool is_led;
};

/* A transaction is LMDB's own; the wrapper gives it our name and the table to use. */
struct linnet_store_txn {
    MDB_txn *txn;
    MDB_dbi dbi;
};

/* ---- record ids ---- */

linnet_record_id linnet_record_of(char table)
{
    linnet_record_id id = {.bytes = {(uint8_t)table}, .n_bytes = 1};
    return id;
}

void linnet_record_add(linnet_record_id *id, const void *bytes, size_t n_bytes)
{
    if (n_bytes > sizeof(id->bytes) - id->n_bytes)
        n_bytes =
            sizeof(id->bytes) - id->n_bytes; /* ids are made of constants and fixed widths: never reached */
    memcpy(id->bytes + id->n_bytes, bytes, n_bytes);
    id->n_bytes += n_bytes;
}

void linnet_record_add_u64(linnet_record_id *id, uint64_t value)
{
    uint8_t bytes[8];
    linnet_store_be64(bytes, value);
    linnet_record_add(id, bytes, sizeof(bytes));
}

/* ---- errors ---- */

static linnet_status store_fail(linnet_error *err, int rc, const char *doing)
{
    switch (rc) {
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return linnet_fail(err, LINNET_ERR_NO_SPACE, "store: %s: %s", doing, mdb_strerror(rc));
    case MDB_VERSION_MISMATCH:
    case MDB_INVALID:
        return linnet_fail(err, LINNET_ERR_FORMAT, "store: %s: %s", doing, mdb_strerror(rc));
    case MDB_READERS_FULL:
        return linnet_fail(err, LINNET_ERR_BUSY, "store: %s: %s", doing, mdb_strerror(rc));
    case ENOENT:
    case EACCES:
    case EPERM:
    case EROFS:
    case ENOMEM:
        return linnet_fail_errno(err, rc, "store: %s", doing);
    default:
        return linnet_fail(err, LINNET_ERR_IO, "store: %s: %s", doing, mdb_strerror(rc));
    }
}

/* ---- opening ---- */

static linnet_status check_file(const char *directory, bool create, linnet_error *err)
{
    char *path = linnet_path_join(directory, "data.mdb");
    if (path && create)
        linnet_lmdb_clear_unborn(path);
    linnet_status status = path ? linnet_lmdb_check(path, MAP_BYTES, "restore the state from a backup", err)
                                : linnet_fail(err, LINNET_ERR_NOMEM, "path");
    free(path);
    return status;
}

static linnet_status env_open(linnet_store *store, const char *directory, bool create, bool durable,
                              linnet_error *err)
{
    int n_stale = 0;
    char *lock = linnet_path_join(directory, "lock.mdb");
    linnet_status status =
        lock ? linnet_file_reserve(lock, LOCK_BYTES, err) : linnet_fail(err, LINNET_ERR_NOMEM, "path");
    free(lock);
    if (status != LINNET_OK)
        return status;
    status = check_file(directory, create, err);
    if (status != LINNET_OK)
        return status;
    int rc = mdb_env_create(&store->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(store->env, MAP_BYTES);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(store->env, READERS_MAX);
    unsigned flags = MDB_NOTLS | (durable ? 0 : MDB_NOSYNC);
    if (rc == 0)
        rc = mdb_env_open(store->env, directory, flags, 0600);
    if (rc == 0)
        rc =
            mdb_reader_check(store->env, &n_stale); /* slots of killed processes would keep old pages alive */
    if (rc != 0)
        return store_fail(err, rc, "open");
    MDB_txn *txn = NULL;
    rc = mdb_txn_begin(store->env, NULL, create ? 0 : MDB_RDONLY, &txn);
    if (rc != 0)
        return store_fail(err, rc, "open");
    rc = mdb_dbi_open(txn, NULL, 0, &store->dbi);
    if (rc == 0)
        rc = mdb_txn_commit(txn);
    else
        mdb_txn_abort(txn);
    return rc == 0 ? LINNET_OK : store_fail(err, rc, "open");
}

linnet_status linnet_store_open(const char *directory, bool create, bool durable, linnet_store **ret_store,
                                linnet_error *err)
{
    linnet_store *store = calloc(1, sizeof(*store));
    if (!store)
        return linnet_fail(err, LINNET_ERR_NOMEM, "store '%s'", directory);
    (void)pthread_mutex_init(&store->lock, NULL); /* default attributes: cannot fail on Linux */
    (void)pthread_cond_init(&store->done, NULL);
    store->last = &store->first;
    store->directory = strdup(directory);
    linnet_status status = !store->directory ? linnet_fail(err, LINNET_ERR_NOMEM, "store")
                                             : env_open(store, directory, create, durable, err);
    if (status != LINNET_OK) {
        (void)linnet_error_prefix(err, status, "'%s'", directory);
        linnet_store_close(store);
        return status;
    }
    *ret_store = store;
    return LINNET_OK;
}

void linnet_store_close(linnet_store *store)
{
    if (!store)
        return;
    if (store->env)
        mdb_env_close(store->env);
    (void)pthread_mutex_destroy(&store->lock);
    (void)pthread_cond_destroy(&store->done);
    free(store->directory);
    free(store);
}

void linnet_store_tidy(linnet_store *store)
{
    int n_stale;
    (void)mdb_reader_check(store->env, &n_stale); /* upkeep: what fails now is done the next time */
}

/* ---- reading ---- */

linnet_status linnet_store_read_begin(linnet_store *store, linnet_store_txn **ret_txn, linnet_error *err)
{
    linnet_store_txn *txn = malloc(sizeof(*txn));
    if (!txn)
        return linnet_fail(err, LINNET_ERR_NOMEM, "store: read");
    txn->dbi = store->dbi;
    int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn->txn);
    if (rc != 0) {
        free(txn);
        return store_fail(err, rc, "read");
    }
    *ret_txn = txn;
    return LINNET_OK;
}

void linnet_store_read_end(linnet_store_txn *txn)
{
    if (!txn)
        return;
    mdb_txn_abort(txn->txn);
    free(txn);
}

static MDB_val val_of_id(linnet_record_id *id)
{
    return (MDB_val){.mv_size = id->n_bytes, .mv_data = id->bytes};
}

linnet_status linnet_store_get(linnet_store_txn *txn, const linnet_record_id *id, const uint8_t **ret_bytes,
                               size_t *ret_n_bytes, linnet_error *err)
{
    linnet_record_id own = *id;
    MDB_val key = val_of_id(&own), value;
    int rc = mdb_get(txn->txn, txn->dbi, &key, &value);
    if (rc == MDB_NOTFOUND)
        return LINNET_ERR_NOT_FOUND;
    if (rc != 0)
        return store_fail(err, rc, "get");
    *ret_bytes = value.mv_data;
    *ret_n_bytes = value.mv_size;
    return LINNET_OK;
}

linnet_status linnet_store_each(linnet_store_txn *txn, const linnet_record_id *prefix,
                                linnet_store_each_fn *fn, void *context, linnet_error *err)
{
    MDB_cursor *cursor = NULL;
    linnet_record_id own = *prefix;
    MDB_val key = val_of_id(&own), value;
    int rc = mdb_cursor_open(txn->txn, txn->dbi, &cursor);
    if (rc != 0)
        return store_fail(err, rc, "walk");
    linnet_status status = LINNET_OK;
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); rc == 0 && status == LINNET_OK;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        const uint8_t *id = key.mv_data;
        if (key.mv_size < prefix->n_bytes || memcmp(id, prefix->bytes, prefix->n_bytes) != 0)
            break;
        status = fn(context, id + prefix->n_bytes, key.mv_size - prefix->n_bytes, value.mv_data,
                    value.mv_size, err);
        if (status != LINNET_OK)
            break;
    }
    mdb_cursor_close(cursor);
    if (status == LINNET_OK && rc != 0 && rc != MDB_NOTFOUND)
        status = store_fail(err, rc, "walk");
    return status;
}

/* ---- writing ---- */

linnet_status linnet_store_put(linnet_store_txn *txn, const linnet_record_id *id, const void *bytes,
                               size_t n_bytes, linnet_error *err)
{
    linnet_record_id own = *id;
    MDB_val key = val_of_id(&own), value = {.mv_size = n_bytes};
    int rc = mdb_put(txn->txn, txn->dbi, &key, &value, MDB_RESERVE);
    if (rc != 0)
        return store_fail(err, rc, "put");
    if (n_bytes > 0)
        memcpy(value.mv_data, bytes, n_bytes);
    return LINNET_OK;
}

linnet_status linnet_store_delete(linnet_store_txn *txn, const linnet_record_id *id, linnet_error *err)
{
    linnet_record_id own = *id;
    MDB_val key = val_of_id(&own);
    int rc = mdb_del(txn->txn, txn->dbi, &key, NULL);
    return rc == 0 || rc == MDB_NOTFOUND ? LINNET_OK : store_fail(err, rc, "delete");
}

/* NO_SPACE before anything is written, where the disk is all but full. */
static linnet_status space_check(const linnet_store *store, linnet_error *err)
{
    struct statvfs disk;
    if (statvfs(store->directory, &disk) == 0 && (uint64_t)disk.f_bavail * disk.f_frsize < FREE_BYTES_MIN)
        return linnet_fail(err, LINNET_ERR_NO_SPACE,
                           "store: less than 1 MiB left on the disk of '%s': make room on it",
                           store->directory);
    return LINNET_OK;
}

/* Run jobs from first up to (not including) end in one transaction. */
static linnet_status jobs_commit(linnet_store *store, job *first, const job *end, linnet_error *err)
{
    linnet_store_txn txn = {.dbi = store->dbi};
    linnet_status space = space_check(store, err);
    if (space != LINNET_OK)
        return space;
    int rc = mdb_txn_begin(store->env, NULL, 0, &txn.txn);
    if (rc != 0)
        return store_fail(err, rc, "write");
    for (job *j = first; j != end; j = j->next) {
        linnet_status status = j->fn(&txn, j->context, err);
        if (status != LINNET_OK) {
            mdb_txn_abort(txn.txn);
            return status;
        }
    }
    rc = mdb_txn_commit(txn.txn);
    return rc == 0 ? LINNET_OK : store_fail(err, rc, "commit");
}

/* One commit for all; where that fails, one for each, so that a job spoils nobody else's. */
static void jobs_run(linnet_store *store, job *first)
{
    linnet_error shared = {0};
    bool is_single = first->next == NULL;
    linnet_status status = jobs_commit(store, first, NULL, is_single ? first->err : &shared);
    for (job *j = first; j; j = j->next)
        j->status = status == LINNET_OK || is_single ? status : jobs_commit(store, j, j->next, j->err);
}

linnet_status linnet_store_update(linnet_store *store, linnet_store_fn *fn, void *context, linnet_error *err)
{
    job self = {.fn = fn, .context = context, .err = err};
    (void)pthread_mutex_lock(&store->lock);
    *store->last = &self;
    store->last = &self.next;
    while (!self.is_done && store->is_led)
        (void)pthread_cond_wait(&store->done, &store->lock);
    if (!self.is_done) {
        job *mine = store->first;
        store->first = NULL;
        store->last = &store->first;
        store->is_led = true;
        (void)pthread_mutex_unlock(&store->lock);
        jobs_run(store, mine);
        (void)pthread_mutex_lock(&store->lock);
        for (job *j = mine, *next; j; j = next) {
            next = j->next; /* j is on the stack of its caller, who may go on as soon as it is done */
            j->is_done = true;
        }
        store->is_led = false;
        (void)pthread_cond_broadcast(&store->done);
    }
    (void)pthread_mutex_unlock(&store->lock);
    return self.status;
}
