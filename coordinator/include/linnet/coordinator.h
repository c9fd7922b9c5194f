/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_COORDINATOR_H
#define LINNET_COORDINATOR_H

/* The coordinator: one state directory (LMDB store, spool, objects, keys), the round machine, and one
 * function that answers an HTTP exchange whatever carried it. Time comes in as an argument: tests and
 * simulators own the clock. */

#include "linnet/http.h"
#include "linnet/messages.h"
#include "linnet/plan.h"

typedef struct linnet_coordinator linnet_coordinator;

/** Can the plan's task be run on this model? MISMATCH where it is not the one that base_hash names, RANGE
 * where its context is shorter than the plan's. model is the opened file of model_path. */
linnet_status linnet_coordinator_model_check(const linnet_plan *plan, const char *model_path,
                                             const linnet_gguf *model, linnet_hash *ret_hash,
                                             linnet_error *err) LINNET_NODISCARD;

/** Set up a state directory: keys (coordinator; an authority beside it, unless authority_public_key is
 * given), the plan (a copy with base_hash filled in), the model's hash and layout, the initial adapter,
 * release 0. EXISTS where the directory holds a state already: nothing is overwritten. Leaves nothing behind
 * on failure. */
linnet_status linnet_coordinator_init(const char *state_directory, const linnet_plan *plan,
                                      const char *model_path, const linnet_public_key *authority_public_key,
                                      int64_t now_ms, linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_coordinator_options {
    bool serve; /* take the state's lock, sweep, recover; false: another process may be serving (reports,
                   invites) */
    bool in_memory_speed; /* simulations only: commits without fsync */
    const char *log_path; /* log of what the state has said, best on another volume: a store that is behind it
                             is a restored backup. NULL: transcript.log in the state directory */
    bool has_seed;        /* simulations only: cohorts and the noise of central-dp come from this seed, not by
                             chance */
    uint64_t seed;
} linnet_coordinator_options;
/** NOT_FOUND, BUSY (another process serves), UNSUPPORTED (a newer format), MISMATCH (behind its log). A
 * process opens one state once at a time: LMDB's locks demand it, and what serves reports as well. Other
 * processes may open it meanwhile, with serve false. */
linnet_status linnet_coordinator_open(const char *state_directory, const linnet_coordinator_options *options,
                                      int64_t now_ms, linnet_coordinator **ret_coordinator,
                                      linnet_error *err) LINNET_NODISCARD;
void linnet_coordinator_close(linnet_coordinator *coordinator);

/** Answer one exchange. Safe to call from many threads. Never fails: what goes wrong becomes an HTTP status
 * or a sealed answer. Sealed requests are opened, their signature checked against the registry, then handled;
 * every handler is idempotent; a receipt leaves only after the contribution is durable. */
void linnet_coordinator_handle(linnet_coordinator *coordinator, int64_t now_ms,
                               const linnet_http_request *request, linnet_http_response *ret_response);

/** Deadlines, closing of full rounds, publication, key rotation. Call it when the clock passes *ret_next_ms
 * and after every accepted upload (cheap if nothing is due). One thread at a time. */
linnet_status linnet_coordinator_tick(linnet_coordinator *coordinator, int64_t now_ms, int64_t *ret_next_ms,
                                      linnet_error *err) LINNET_NODISCARD;

/** Events for logs and progress: called under no lock, from the thread that caused it; line is borrowed,
 * without secrets. */
typedef void linnet_coordinator_log_fn(void *context, int priority /* syslog's 3, 4, 6, 7 */,
                                       const char *line);
void linnet_coordinator_set_log(linnet_coordinator *coordinator, linnet_coordinator_log_fn *log,
                                void *context);

/** Asked before a release: the loss of an adapter on records that the operator holds, not negative, less is
 * better; NaN or infinity never passes. Called from the thread of linnet_coordinator_tick, under no lock; it
 * may take its time. BUSY, NOMEM and NO_SPACE: the round waits, and the gate is asked again. Any other
 * status: nothing is released, and the round is void. */
typedef linnet_status linnet_coordinator_gate_fn(void *context, const linnet_adapter *adapter,
                                                 double *ret_loss, linnet_error *err);
/** Set before the first tick. Where the plan's gate_tolerance is 0 nobody asks; where it is not and no gate
 * is set, no round leads to a release. */
void linnet_coordinator_set_gate(linnet_coordinator *coordinator, linnet_coordinator_gate_fn *gate,
                                 void *context);

/* ---- administration ---- */
/** Make one invite that expires at expires_s (unix seconds). Its secret is kept in the store until it is
 * used, and deleted then. */
linnet_status linnet_coordinator_invite(linnet_coordinator *coordinator, uint64_t expires_s,
                                        char ret_text[LINNET_INVITE_TEXT_MAX],
                                        linnet_error *err) LINNET_NODISCARD;
/** Put a device on the next signed, numbered revocation list. NOT_FOUND for a device that never enrolled. */
linnet_status linnet_coordinator_revoke(linnet_coordinator *coordinator, const linnet_device_id *device,
                                        linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_coordinator_pause(linnet_coordinator *coordinator, bool pause,
                                       linnet_error *err) LINNET_NODISCARD;

/** Publish an older adapter again, as the next release: that of release `version`, or with UINT64_MAX of the
 * newest whose adapter is another than the present one's. The server's momentum starts anew; rounds under way
 * are void. Beside a serving process too. NOT_FOUND: no such release; ARG: it has the present adapter. */
linnet_status linnet_coordinator_rollback(linnet_coordinator *coordinator, uint64_t version, int64_t now_ms,
                                          uint64_t *ret_version, linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_round_report {
    uint64_t round, version; /* version trained from */
    const char *state;       /* "open", "frozen", "closed", "rejected" (closed, but the gate kept the adapter
                                back), "void"; with secure aggregation "roster" and "sharers" before "frozen",
                                "opened" after it; static */
    uint32_t invited, joined, accepted, dropped; /* with secure aggregation joined: in the roster, accepted:
                                                    survivors once it is frozen */
    uint32_t sharers, aborts;                    /* with secure aggregation */
    bool has_loss_before,
        has_loss_after; /* weighted mean held-out loss of the participants, of the release before and after */
    double loss_before, loss_after;
    uint64_t bytes_up, bytes_down; /* bodies of this round's requests and answers, objects included */
    linnet_hash adapter;           /* of the release the round led to; zero while open or void */
    int64_t opened_ms, closed_ms;
    bool has_outcome; /* the round was combined */
    double step_norm; /* of the combined delta, before aggregation.step_clip */
    bool has_gate;
    double gate_loss_before, gate_loss_after; /* at the gate, of the release before and the candidate */
} linnet_round_report;

/** How far one of what was combined went: the mean of a cohort, or a single delta where the profile shows
 * them and the rule compares them. */
typedef struct linnet_influence {
    uint64_t round;
    bool is_device;
    linnet_device_id device_id;
    double weight;       /* share of all weights */
    double norm, cosine; /* of its delta over all factors; with the combined one, 0 where one of them is 0 */
    bool has_factor;     /* the rule is a sum of factor x delta */
    double factor;
} linnet_influence;
/** Of a round that was combined; none otherwise. Owned array. */
linnet_status linnet_coordinator_influence(linnet_coordinator *coordinator, uint64_t round,
                                           linnet_influence **ret_list, size_t *ret_n,
                                           linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_registered_device {
    linnet_device_id device_id;
    uint32_t device_class;
    uint64_t serial, enrolled_s, last_seen_s, rounds_accepted;
    bool is_revoked;
} linnet_registered_device;
typedef struct linnet_coordinator_report {
    uint8_t task[16];
    char name[64];
    uint64_t version, round, n_devices, n_revoked, n_invites_open;
    bool is_paused, is_finished, operator_is_authority;
    int profile; /* linnet_profile */
    const char *round_state;
    uint32_t joined, sharers, accepted, goal, minimum; /* of the step's rounds together */
    linnet_public_key coordinator, authority;
    linnet_hash adapter, base_model, plan;
} linnet_coordinator_report;
linnet_status linnet_coordinator_status(linnet_coordinator *coordinator,
                                        linnet_coordinator_report *ret_report,
                                        linnet_error *err) LINNET_NODISCARD;
/** Owned arrays, freed by the caller. */
linnet_status linnet_coordinator_rounds(linnet_coordinator *coordinator, linnet_round_report **ret_rounds,
                                        size_t *ret_n, linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_coordinator_devices(linnet_coordinator *coordinator,
                                         linnet_registered_device **ret_devices, size_t *ret_n,
                                         linnet_error *err) LINNET_NODISCARD;
/** The adapter that round `round` led to (0: the initial one; UINT64_MAX: the newest). Owned. */
linnet_status linnet_coordinator_adapter(linnet_coordinator *coordinator, uint64_t round,
                                         linnet_adapter **ret_adapter, linnet_error *err) LINNET_NODISCARD;
const linnet_plan *linnet_coordinator_plan(const linnet_coordinator *coordinator);
/** general.architecture of the base model: what a GGUF adapter has to name. */
const char *linnet_coordinator_architecture(const linnet_coordinator *coordinator);
/** Contributions of a closed round, for audits and the simulator's transcript: device id, weight-free echo
 * Hy, in acceptance order. Owned array. */
typedef struct linnet_contribution_report {
    linnet_device_id device_id;
    linnet_hash echo;
    uint64_t sequence;
} linnet_contribution_report;
linnet_status linnet_coordinator_contributions(linnet_coordinator *coordinator, uint64_t round,
                                               linnet_contribution_report **ret_list, size_t *ret_n,
                                               linnet_error *err) LINNET_NODISCARD;

/** The transcript, entry by entry, with what is wrong about it: h_i = H("trans", h_(i-1) || entry), bodies
 * under the coordinator's signature, every release naming the one before, every closed round its adapter.
 * Owned array. */
typedef struct linnet_audit_entry {
    const char *type; /* "release", "announce", "roster", "sharers", "survivors", "closed", "rejected",
                         "rollback", "void"; static */
    uint64_t number;  /* version of a release, else the round */
    linnet_hash hash; /* V, A, T1, T2, T3, or the adapter's */
    const char *flaw; /* static; NULL: good */
} linnet_audit_entry;
linnet_status linnet_coordinator_audit(linnet_coordinator *coordinator, linnet_audit_entry **ret_entries,
                                       size_t *ret_n, linnet_error *err) LINNET_NODISCARD;

#endif
