/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_LIBRARY_H
#define LINNET_LIBRARY_H

/* Inner header of liblinnet-device: what stands behind the handles, and the border between its types and
 * ours. */

#include "linnet-device.h"

#include "linnet/adapter_slot.h"
#include "linnet/dataset.h"
#include "linnet/runtime.h"

#include <stdatomic.h>

#define LIBRARY_CONTEXT_MIN 16 /* tokens; memory_max shortens no further */

/* ---- the border ---- */

/** Our status and message as theirs; OK leaves err (may be NULL) alone. needed_bytes 0: not about memory. */
lin_status library_return(linnet_status status, const linnet_error *why, uint64_t needed_bytes,
                          lin_error *err);
/** A caller's struct of options (NULL: all zero) into ours of n_bytes; what is missing is zero. ARG for what
 * is no size, UNSUPPORTED where it is larger than ours and its tail is not zero. */
linnet_status library_take(const void *theirs, void *ours, size_t n_bytes,
                           linnet_error *err) LINNET_NODISCARD;
/** ARG where the size of a struct that is to be filled is none. */
linnet_status library_check(const void *theirs, linnet_error *err) LINNET_NODISCARD;
/** Fill it: what both know, then zeros. Its size stays. */
void library_give(const void *ours, size_t n_bytes, void *theirs);
/** A text into an array of n bytes, cut at its end. */
void library_put(char *to, size_t n, const char *text);
/** ARG, naming it, where a pointer is NULL. */
linnet_status library_need(const void *pointer, const char *name, linnet_error *err) LINNET_NODISCARD;
double library_seconds(void); /* monotonic */

/* ---- a model ---- */

struct lin_model {
    atomic_size_t n_users;
    linnet_runtime runtime; /* its adapter stays NULL */
    char *path;             /* owned */
    uint64_t memory_max;    /* 0: no limit */
    atomic_bool is_busy, must_cancel;
    linnet_adapter_slot adapter; /* in use, also by generations that have not noticed another yet */
};

void library_model_share(lin_model *model);
/** Begin work with the model: BUSY where somebody else is at it. Forgets an older cancel. */
linnet_status library_model_enter(lin_model *model, linnet_error *err) LINNET_NODISCARD;
void library_model_leave(lin_model *model);
linnet_status library_model_cancelled(lin_model *model, linnet_error *err) LINNET_NODISCARD;
/** memory_max as a size. */
size_t library_bytes_max(uint64_t memory_max);

/* ---- texts ---- */

struct lin_texts {
    atomic_size_t n_users;
    linnet_dataset *dataset; /* owned */
};

lin_texts *library_texts_share(const lin_texts *texts);

/** Mean loss, record by record, so that it can be cancelled. ARG where nothing is counted. */
linnet_status library_evaluate(lin_model *model, linnet_arena *arena, const linnet_adapter *adapter,
                               const linnet_token_set *set, double *ret_loss, uint64_t *ret_tokens,
                               linnet_error *err) LINNET_NODISCARD;

#endif
