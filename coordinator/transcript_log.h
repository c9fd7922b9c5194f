/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TRANSCRIPT_LOG_H
#define LINNET_TRANSCRIPT_LOG_H

#include "linnet/transcript.h"
#include "state.h"

/** fn with the whole log of the task, and the transaction that it borrows from. */
typedef linnet_status linnet_transcript_use_fn(void *context, linnet_store_txn *txn, const linnet_log *log,
                                               linnet_error *err);
linnet_status linnet_transcript_read(linnet_coordinator *coordinator, linnet_transcript_use_fn *fn,
                                     void *context, linnet_error *err) LINNET_NODISCARD;

/** In an update: the new revocation list. Older ones are kept under their numbers ("z number"): announcements
 * name them. */
linnet_status linnet_revocation_put(linnet_store_txn *txn, const void *bytes, size_t n_bytes,
                                    linnet_error *err) LINNET_NODISCARD;

#endif
