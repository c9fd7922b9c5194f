/* SPDX-License-Identifier: Apache-2.0 */

/* The device's durable store: one LMDB file, default (full) sync, one process at a time. LMDB 0.9.24's traps
 * that matter here: the default map is far too small, so its size is always set; a value read is borrowed
 * from its transaction and may be unaligned, so it is copied out; an environment must not be opened twice in
 * a process, which the lock for life prevents across processes too. A failed commit leaves the old values;
 * after a failed sync the state on disk is unknown, and the caller must end (SECURE-AGGREGATION 7). */

#include "linnet/device.h"

#include <errno.h>
#include <lmdb.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "linnet/file.h"
#include "linnet/lmdb_check.h"

#define NAME_BYTES_MAX 200
#define FORMAT_NAME "format"
#define FORMAT_VERSION 1
#define NEXT_STEP                                                                                            \
    "restore this state from a backup, or 'forget' it and enroll as a new device with a new invite"
/* Address space, not disk: the file grows as needed. 32-bit devices have two or three gigabytes of it in all.
 */
#define MAP_BYTES (sizeof(void *) == 8 ? (size_t)4 << 30 : (size_t)256 << 20)

/* For the pages that a commit copies beside what it is given. */
#define FREE_BYTES_MIN ((uint64_t)256 << 10)
#define LOCK_BYTES ((size_t)12 << 10) /* LMDB's table of 126 readers, which it writes through a map */

typedef struct lmdb_store {
    MDB_env *env;
    MDB_dbi dbi;
    int lock_fd;
    char *path;
} lmdb_store;

static linnet_status lmdb_fail(const lmdb_store *store, int rc, const char *doing, linnet_error *err)
{
    if (rc == MDB_MAP_FULL)
        return linnet_fail(err, LINNET_ERR_NO_SPACE, "%s '%s': the store is full (%zu MiB)", doing,
                           store->path, MAP_BYTES >> 20);
    if (rc == MDB_NOTFOUND)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "%s '%s': no such value", doing, store->path);
    if (rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_VERSION_MISMATCH || rc == MDB_PAGE_NOTFOUND)
        return linnet_fail(err, LINNET_ERR_FORMAT, "%s '%s': %s", doing, store->path, mdb_strerror(rc));
    if (rc > 0)
        return linnet_fail_errno(err, rc, "%s '%s'", doing, store->path);
    return linnet_fail(err, LINNET_ERR_IO, "%s '%s': %s", doing, store->path, mdb_strerror(rc));
}

static void lmdb_close(void *context)
{
    lmdb_store *store = context;
    if (!store)
        return;
    if (store->env)
        mdb_env_close(store->env);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store->path);
    free(store);
}

static MDB_val name_value(const char *name)
{
    return (MDB_val){.mv_size = strlen(name), .mv_data = (void *)(uintptr_t)name};
}

static linnet_status lmdb_get(void *context, const char *name, linnet_buffer *ret_bytes, linnet_error *err)
{
    lmdb_store *store = context;
    MDB_txn *txn = NULL;
    MDB_val key = name_value(name), value;
    int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return lmdb_fail(store, rc, "read of", err);
    rc = mdb_get(txn, store->dbi, &key, &value);
    if (rc == 0)
        linnet_buffer_append(ret_bytes, value.mv_data, value.mv_size);
    mdb_txn_abort(txn);
    if (rc != 0)
        return lmdb_fail(store, rc, "read of", err);
    return ret_bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "value '%s'", name) : LINNET_OK;
}

static int put_one(const lmdb_store *store, MDB_txn *txn, const linnet_kv_item *item)
{
    MDB_val key = name_value(item->name);
    if (!item->bytes) {
        int rc = mdb_del(txn, store->dbi, &key, NULL);
        return rc == MDB_NOTFOUND ? 0 : rc;
    }
    MDB_val value = {.mv_size = item->n_bytes, .mv_data = (void *)(uintptr_t)item->bytes};
    return mdb_put(txn, store->dbi, &key, &value, 0);
}

/* LMDB calls a write that the disk cut short an I/O error, after which nobody could say what is on the disk:
 * nothing is begun where that may happen. */
static linnet_status space_check(const lmdb_store *store, const linnet_kv_item *items, size_t n_items,
                                 linnet_error *err)
{
    struct statvfs disk;
    uint64_t wanted = FREE_BYTES_MIN;
    for (size_t i = 0; i < n_items; i++)
        wanted += items[i].bytes ? items[i].n_bytes : 0;
    if (statvfs(store->path, &disk) == 0 && (uint64_t)disk.f_bavail * disk.f_frsize < wanted)
        return linnet_fail(err, LINNET_ERR_NO_SPACE,
                           "write to '%s': No space left on device: fewer than %llu KiB are free; make room "
                           "on its disk",
                           store->path, (unsigned long long)(wanted >> 10));
    return LINNET_OK;
}

static linnet_status lmdb_put(void *context, const linnet_kv_item *items, size_t n_items, linnet_error *err)
{
    lmdb_store *store = context;
    MDB_txn *txn = NULL;
    for (size_t i = 0; i < n_items; i++)
        if (items[i].name[0] == '\0' || strlen(items[i].name) > NAME_BYTES_MAX)
            return linnet_fail(err, LINNET_ERR_ARG, "store: a name has 1 to %d bytes", NAME_BYTES_MAX);
    linnet_status space = space_check(store, items, n_items, err);
    if (space != LINNET_OK)
        return space;
    int rc = mdb_txn_begin(store->env, NULL, 0, &txn);
    for (size_t i = 0; rc == 0 && i < n_items; i++)
        rc = put_one(store, txn, &items[i]);
    if (rc == 0) {
        rc = mdb_txn_commit(txn);
        txn = NULL; /* gone, whatever it returned */
    }
    if (txn)
        mdb_txn_abort(txn);
    return rc == 0 ? LINNET_OK : lmdb_fail(store, rc, "write to", err);
}

/* The format number of the whole store: set in a new one, compared in an old one. */
static linnet_status check_format(linnet_kv *kv, const char *path, linnet_error *err)
{
    linnet_buffer bytes = {0};
    uint8_t number[4];
    linnet_status status = kv->get(kv->context, FORMAT_NAME, &bytes, err);
    if (status == LINNET_ERR_NOT_FOUND) {
        linnet_store_le32(number, FORMAT_VERSION);
        const linnet_kv_item item = {FORMAT_NAME, number, sizeof(number)};
        status = kv->put(kv->context, &item, 1, err);
    } else if (status == LINNET_OK) {
        uint32_t version = bytes.n_bytes == 4 ? linnet_load_le32(bytes.bytes) : 0;
        if (version > FORMAT_VERSION)
            status =
                linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                            "state '%s' has format %u, written by a newer program; this one reads up to %d",
                            path, (unsigned)version, FORMAT_VERSION);
        else if (version != FORMAT_VERSION)
            status = linnet_fail(err, LINNET_ERR_FORMAT, "state '%s' is damaged: no format number", path);
    }
    linnet_buffer_release(&bytes);
    return status;
}

/* The lock file lies beside the store, under LMDB's name for it. */
static linnet_status reserve_lock(const lmdb_store *store, linnet_error *err)
{
    linnet_buffer name = {0};
    linnet_buffer_append_text(&name, store->path);
    linnet_buffer_append(&name, "-lock", sizeof("-lock"));
    linnet_status status = name.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "path")
                                       : linnet_file_reserve((const char *)name.bytes, LOCK_BYTES, err);
    linnet_buffer_release(&name);
    return status;
}

static linnet_status open_env(lmdb_store *store, bool is_reader, linnet_error *err)
{
    MDB_txn *txn = NULL;
    unsigned flags = MDB_NOSUBDIR | MDB_NOTLS | (is_reader ? MDB_RDONLY : 0);
    int n_dead = 0;
    linnet_status status = reserve_lock(store, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_lmdb_check(store->path, MAP_BYTES, NEXT_STEP, err);
    if (status != LINNET_OK)
        return status;
    int rc = mdb_env_create(&store->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(store->env, MAP_BYTES);
    if (rc == 0)
        rc = mdb_env_open(store->env, store->path, flags, 0600);
    if (rc == 0)
        rc = mdb_reader_check(store->env,
                              &n_dead); /* a reader that was killed would keep old pages for ever */
    if (rc == 0)
        rc = mdb_txn_begin(store->env, NULL, is_reader ? MDB_RDONLY : 0, &txn);
    if (rc == 0)
        rc = mdb_dbi_open(txn, NULL, 0, &store->dbi);
    if (rc == 0) {
        rc = mdb_txn_commit(txn);
        txn = NULL;
    }
    if (txn)
        mdb_txn_abort(txn);
    return rc == 0 ? LINNET_OK : lmdb_fail(store, rc, "open of", err);
}

static linnet_status store_make(const char *state_directory, lmdb_store **ret_store, linnet_error *err)
{
    lmdb_store *store = calloc(1, sizeof(*store));
    if (store) {
        store->lock_fd = -1;
        store->path = linnet_path_join(state_directory, "device.mdb");
    }
    if (!store || !store->path) {
        lmdb_close(store);
        return linnet_fail(err, LINNET_ERR_NOMEM, "state '%s'", state_directory);
    }
    *ret_store = store;
    return LINNET_OK;
}

static linnet_status must_exist(const lmdb_store *store, const char *state_directory, linnet_error *err)
{
    struct stat info;
    if (stat(store->path, &info) == 0)
        return LINNET_OK;
    if (errno == ENOENT)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "there is no device state in '%s'; enroll first",
                           state_directory);
    return linnet_fail_errno(err, errno, "state '%s'", state_directory);
}

static linnet_status take_lock(lmdb_store *store, const char *state_directory, linnet_error *err)
{
    char *path = linnet_path_join(state_directory, "lock");
    linnet_status status = path ? linnet_lock_take(path, &store->lock_fd, err)
                                : linnet_fail(err, LINNET_ERR_NOMEM, "state '%s'", state_directory);
    free(path);
    return status;
}

linnet_status linnet_kv_open_lmdb(const char *state_directory, bool create, linnet_kv *ret_kv,
                                  linnet_error *err)
{
    lmdb_store *store = NULL;
    linnet_status status = store_make(state_directory, &store, err);
    if (status != LINNET_OK)
        return status;
    linnet_kv kv = {.context = store, .get = lmdb_get, .put = lmdb_put, .close = lmdb_close};
    status = create ? linnet_directory_create(state_directory, err) : must_exist(store, state_directory, err);
    if (status == LINNET_OK)
        status = take_lock(store, state_directory, err);
    if (status == LINNET_OK && create)
        linnet_lmdb_clear_unborn(store->path);
    if (status == LINNET_OK)
        status = open_env(store, false, err);
    if (status == LINNET_OK)
        status = check_format(&kv, state_directory, err);
    if (status != LINNET_OK) {
        lmdb_close(store);
        return status;
    }
    *ret_kv = kv; /* owns the store */
    return LINNET_OK;
}

static linnet_status refuse_put(void *context, const linnet_kv_item *items, size_t n_items, linnet_error *err)
{
    (void)items;
    (void)n_items;
    return linnet_fail(err, LINNET_ERR_DENIED, "'%s' is open for reading only",
                       ((const lmdb_store *)context)->path);
}

linnet_status linnet_kv_open_lmdb_reader(const char *state_directory, linnet_kv *ret_kv, linnet_error *err)
{
    lmdb_store *store = NULL;
    linnet_status status = store_make(state_directory, &store, err);
    if (status != LINNET_OK)
        return status;
    linnet_kv kv = {.context = store, .get = lmdb_get, .put = refuse_put, .close = lmdb_close};
    status = must_exist(store, state_directory, err);
    if (status == LINNET_OK)
        status = open_env(store, true, err);
    if (status == LINNET_OK)
        status = check_format(&kv, state_directory, err);
    if (status != LINNET_OK) {
        lmdb_close(store);
        return status;
    }
    *ret_kv = kv; /* owns the store */
    return LINNET_OK;
}
