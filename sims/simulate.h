/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SIMS_SIMULATE_H
#define LINNET_SIMS_SIMULATE_H

/* Inner header: the round loop, the run over processes, and what is told at the end. */

#include "baselines.h"

/** Who took part in a round and with what: the transcript is a hash over these, in device order. */
typedef struct round_entry {
    uint32_t device;
    linnet_hash echo; /* zero where it is of masked bytes, which are different in every run */
} round_entry;

/** The running transcript: round, (device, Hy) in device order, adapter hash; independent of keys and of
 * message order. */
void transcript_add(linnet_hasher *hasher, uint64_t round, round_entry *entries, size_t n_entries,
                    const linnet_hash *adapter);

/** Events: one line of run.jsonl and, with --json, of stdout. Steals the reference. */
typedef struct outcome {
    const linnet_cli *cli;
    FILE *log; /* run.jsonl */
} outcome;
void outcome_event(const outcome *o, json_t *event);
void outcome_round(const outcome *o, const linnet_simulation_round *round);
/** Adapter files, the result event, report.html; fills in paths. */
linnet_status outcome_finish(const outcome *o, const fleet *f, const linnet_adapter *adapter,
                             const linnet_simulation_result *result, linnet_error *err);

/** The coordinator's figures of a closed round, the evaluation after it, and its part of the transcript.
 * number is the transcript's: over processes rounds that failed are tried again, and count once. each as in
 * evaluation_run. */
linnet_status finish_round(fleet *f, const evaluation *e, uint64_t number, uint64_t round,
                           linnet_hasher *hasher, linnet_simulation_round *ret, double *each,
                           linnet_error *err);

/** R rounds over the in-memory transport; fills rounds, bytes, seconds, transcript; the last global adapter
 * is owned. */
linnet_status simulate_in_memory(fleet *f, const evaluation *e, const outcome *o,
                                 linnet_simulation_result *result, linnet_adapter **ret_adapter,
                                 linnet_error *err);
/** The same with a real coordinator and real client processes over loopback. */
linnet_status simulate_processes(fleet *f, const evaluation *e, const outcome *o,
                                 linnet_simulation_result *result, linnet_adapter **ret_adapter,
                                 linnet_error *err);

#endif
