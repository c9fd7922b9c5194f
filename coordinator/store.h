/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_STORE_H
#define LINNET_STORE_H

/* The coordinator's durable rows: ordered byte strings in one LMDB environment. A record id is one table
 * letter and then fixed-width fields, integers big-endian, so that a table, or one round of it, is a range.
 */

#include "linnet/bytes.h"

typedef struct linnet_record_id {
    uint8_t bytes[80];
    size_t n_bytes;
} linnet_record_id;

linnet_record_id linnet_record_of(char table);
void linnet_record_add(linnet_record_id *id, const void *bytes, size_t n_bytes);
void linnet_record_add_u64(linnet_record_id *id, uint64_t value);

typedef struct linnet_store linnet_store;
typedef struct linnet_store_txn linnet_store_txn;

/** Open directory/data.mdb. create: the directory may be empty. durable false: commits without fsync
 * (simulations). One open per process and environment (LMDB's locks demand it); any number of processes. */
linnet_status linnet_store_open(const char *directory, bool create, bool durable, linnet_store **ret_store,
                                linnet_error *err) LINNET_NODISCARD;
void linnet_store_close(linnet_store *store);
/** Free the reader slots of processes that were killed: they keep old pages alive. Open does it too. */
void linnet_store_tidy(linnet_store *store);

/* ---- reading: what get and each hand out is borrowed until the transaction ends; keep those short ---- */
linnet_status linnet_store_read_begin(linnet_store *store, linnet_store_txn **ret_txn,
                                      linnet_error *err) LINNET_NODISCARD;
void linnet_store_read_end(linnet_store_txn *txn);
/** NOT_FOUND leaves err alone: absence is often an answer. */
linnet_status linnet_store_get(linnet_store_txn *txn, const linnet_record_id *id, const uint8_t **ret_bytes,
                               size_t *ret_n_bytes, linnet_error *err) LINNET_NODISCARD;
/** fn for every record whose id starts with prefix, in order; fields are the id's bytes behind the prefix. */
typedef linnet_status linnet_store_each_fn(void *context, const uint8_t *fields, size_t n_fields,
                                           const uint8_t *bytes, size_t n_bytes, linnet_error *err);
linnet_status linnet_store_each(linnet_store_txn *txn, const linnet_record_id *prefix,
                                linnet_store_each_fn *fn, void *context, linnet_error *err) LINNET_NODISCARD;

/* ---- writing, inside an update only ---- */
linnet_status linnet_store_put(linnet_store_txn *txn, const linnet_record_id *id, const void *bytes,
                               size_t n_bytes, linnet_error *err) LINNET_NODISCARD;
/** NOT_FOUND is fine: gone is gone. */
linnet_status linnet_store_delete(linnet_store_txn *txn, const linnet_record_id *id,
                                  linnet_error *err) LINNET_NODISCARD;

/**
 * Run fn in a write transaction and commit it durably. Updates of several threads share one commit (and its
 * fsync): the first to come leads, the others wait. fn may therefore run on another thread, and again in a
 * transaction of its own when the shared one failed: it depends on nothing but its context and what it reads,
 * and keeps no pointers. A status other than OK undoes everything fn wrote; refusals that are answers belong
 * into the context. NO_SPACE: nothing happened, the store goes on. IO: what is on disk is unknown; end the
 * process.
 */
typedef linnet_status linnet_store_fn(linnet_store_txn *txn, void *context, linnet_error *err);
linnet_status linnet_store_update(linnet_store *store, linnet_store_fn *fn, void *context,
                                  linnet_error *err) LINNET_NODISCARD;

#endif
