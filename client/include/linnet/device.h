/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_DEVICE_H
#define LINNET_DEVICE_H

/* The federated agent of one device as a state machine: it checks in, fetches plan and adapter by hash,
 * trains, joins a round when its delta is ready, uploads, and installs a new global adapter if its own
 * held-out loss agrees. It has no socket, thread or clock of its own: the caller carries its HTTP exchanges,
 * gives it time and memory, and asks what comes next. The same code runs on a watch, in linnet-client and a
 * thousand times in the simulator. */

#include "linnet/http.h"
#include "linnet/messages.h"
#include "linnet/plan.h"
#include "linnet/secagg.h"
#include "linnet/budget_ledger.h"
#include "linnet/round_vault.h"
#include "linnet/trainer.h"

/* ---- durable state: a small key-value interface; the LMDB one commits durably, the memory one is for
 * simulations ---- */
typedef struct linnet_kv_item {
    const char *name; /* at most 200 bytes */
    const void *bytes;
    size_t n_bytes; /* bytes NULL: delete */
} linnet_kv_item;
typedef struct linnet_kv linnet_kv;
struct linnet_kv {
    void *context;
    /** NOT_FOUND, or the value appended to an empty buffer. */
    linnet_status (*get)(void *context, const char *name, linnet_buffer *ret_bytes, linnet_error *err);
    /** All items in one durable commit, or none. */
    linnet_status (*put)(void *context, const linnet_kv_item *items, size_t n_items, linnet_error *err);
    void (*close)(void *context);
};
/** state_directory/device.mdb; takes the directory's lock for life (BUSY). create false: NOT_FOUND where
 * there is none. */
linnet_status linnet_kv_open_lmdb(const char *state_directory, bool create, linnet_kv *ret_kv,
                                  linnet_error *err) LINNET_NODISCARD;
/** The same for reading only, also while another process runs the device: put is DENIED. */
linnet_status linnet_kv_open_lmdb_reader(const char *state_directory, linnet_kv *ret_kv,
                                         linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_kv_open_memory(linnet_kv *ret_kv, linnet_error *err) LINNET_NODISCARD;

/** What left the device, one entry for every upload that was begun, accepted or not; kept for good. */
typedef struct linnet_ledger_entry {
    uint64_t round, version, n_bytes;
    uint32_t sample_weight;
    linnet_hash chain, release, echo; /* A, V and the hash of the packed vectors */
    bool is_accepted;
    uint8_t receipt[LINNET_SIGNED_RECEIPT_BYTES]; /* where accepted */
} linnet_ledger_entry;
/** Entry index, from 0. NOT_FOUND past the end. */
linnet_status linnet_device_ledger(linnet_kv *kv, uint64_t index, linnet_ledger_entry *ret_entry,
                                   linnet_error *err) LINNET_NODISCARD;

/** The receipts file of linnet/transcript.h: what the coordinator signed for every contribution, appended. */
linnet_status linnet_device_receipts(linnet_kv *kv, linnet_buffer *ret_bytes,
                                     linnet_error *err) LINNET_NODISCARD;

/* ---- content-addressed objects (plans, packed adapters): files on a device, one shared cache in a simulator
 * ---- */
typedef struct linnet_object_cache linnet_object_cache;
struct linnet_object_cache {
    void *context;
    /** NOT_FOUND, or the whole object, verified against its hash when it was put; appended to an empty
     * buffer. */
    linnet_status (*get)(void *context, const linnet_hash *hash, linnet_buffer *ret_bytes, linnet_error *err);
    linnet_status (*put)(void *context, const linnet_hash *hash, const void *bytes, size_t n_bytes,
                         linnet_error *err);
    void (*forget)(void *context, const linnet_hash *hash);
};

/* ---- policy: what the device refuses ---- */
#define LINNET_POLICY_PATH_MAX 512
typedef struct linnet_policy {
    uint32_t cohort_min;       /* smallest goal and minimum it joins; default 1 */
    uint32_t survivors_min;    /* fewest devices in a sum that is opened, where sums are masked; default 3 */
    double corrupt_min;        /* share of a roster that a masked plan must assume corrupt; default 0.05 */
    uint32_t phase_min_s;      /* shortest phase of a masked round; default 1 */
    double noise_min;          /* z of differential privacy; 0 (default): a plan may have none */
    double dp_epsilon_max;     /* of the device's own ledger at dp_delta; 0 (default): no limit */
    double dp_delta;           /* default 1e-5 */
    uint64_t upload_bytes_max; /* a contribution; default 64 MiB */
    uint64_t download_bytes_max;
    uint32_t local_steps_max, context_tokens_max;
    bool allow_plain;         /* profile plain: the coordinator sees single deltas; default false */
    bool allow_central_noise; /* profile central-dp: it sees them, and is trusted with the noise */
    bool has_coordinator, has_authority, has_plan, has_base; /* pins */
    linnet_public_key coordinator, authority;
    linnet_hash plan, base;
    bool round_key_on_disk; /* the key of a masked round outlives the power; a thief of the disk has it too */
    char consortium[LINNET_POLICY_PATH_MAX]; /* file of the only members it joins with; empty: none */
} linnet_policy;
linnet_policy linnet_policy_default(void);
/** INI file, section [policy]; an unknown key is an error. */
linnet_status linnet_policy_parse(const char *file, const char *text, size_t n_bytes,
                                  linnet_policy *ret_policy, linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_policy_load(const char *path, linnet_policy *ret_policy,
                                 linnet_error *err) LINNET_NODISCARD;

/* Why this device does not go along: one static line that starts with "policy: " and names the key, or NULL.
 * Functions of their arguments alone. */
/** Pins against what the device was enrolled with and what the release names. */
const char *linnet_policy_pin_refusal(const linnet_policy *policy, const linnet_public_key *coordinator,
                                      const linnet_public_key *authority, const linnet_hash *plan,
                                      const linnet_hash *base);
/** The plan, before anything is trained. One round must fit the budget. */
const char *linnet_policy_plan_refusal(const linnet_policy *policy, const linnet_plan *plan);
/** The announcement, before anything is encoded. privacy: linnet_plan_privacy of the round; spent: the
 * device's ledger over all its tasks, NULL: empty. */
const char *linnet_policy_round_refusal(const linnet_policy *policy, const linnet_announcement *announcement,
                                        const linnet_privacy *privacy, const linnet_rdp *spent);

/** A pinned list of members: the public keys of all devices of a consortium. */
typedef struct linnet_consortium {
    linnet_public_key *keys; /* owned */
    size_t n_keys;
} linnet_consortium;
#define LINNET_CONSORTIUM_MAX 4096
/** One key of 64 hex digits a line; empty lines and what follows '#' are skipped. FORMAT names file and line
 * of what is no key or stands there twice; a list without keys is FORMAT too. */
linnet_status linnet_consortium_parse(const char *file, const char *text, size_t n_bytes,
                                      linnet_consortium *ret_consortium, linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_consortium_load(const char *path, linnet_consortium *ret_consortium,
                                     linnet_error *err) LINNET_NODISCARD;
void linnet_consortium_release(linnet_consortium *consortium);

/* ---- the agent ---- */
typedef struct linnet_device linnet_device;

/** What a malicious device does, for simulations of attacks; a real device has none. All calls come from
 * linnet_device_poll. */
typedef struct linnet_mischief {
    void *context;
    /** The delta before it is clipped and encoded: one array per active factor, B first. NULL: as trained. */
    void (*change_delta)(void *context, float *const *parts, const size_t *lengths, size_t n_parts);
    /** A message of a masked round (linnet_round_kind) before it leaves, to be changed in place and signed
     * again. NULL: as it should be. */
    void (*change_message)(void *context, uint32_t kind, const linnet_identity *identity, uint8_t *bytes,
                           size_t n_bytes);
    bool omits_noise; /* all but the least that can be encoded */
} linnet_mischief;

typedef struct linnet_device_config {
    linnet_kv *kv;                /* borrowed */
    linnet_object_cache *objects; /* borrowed */
    linnet_http_fn *http;         /* carries exchanges; called from poll only */
    void *http_context;
    const linnet_model *model;     /* borrowed, shared */
    const linnet_hash *model_hash; /* H(OBJECT, model file), computed once by the caller */
    const linnet_tokenizer *tokenizer;
    const linnet_dataset *dataset; /* borrowed: the device's own records ... */
    const size_t *records;         /* ... or these of them (NULL: all) */
    size_t n_records;
    const linnet_dataset *held_out; /* NULL: the plan's fraction of the records, every k-th */
    linnet_policy policy;
    linnet_round_vault *vault; /* borrowed; NULL: a key in memory, so that a restart loses a masked round */
    linnet_budget_ledger *ledger;        /* borrowed; NULL: nothing is accounted, and no limit can be kept */
    const linnet_public_key *consortium; /* borrowed: the only members it joins with; NULL: not pinned */
    size_t n_consortium;
    bool has_seed; /* simulations and tests: data order and rounding from this seed, not the system */
    uint64_t seed;
    bool seeds_noise;                /* simulations only: noise that can be drawn again hides nothing */
    linnet_secagg_cache *cache;      /* simulations only: borrowed, shared by the devices of one process */
    const linnet_mischief *mischief; /* simulations only: borrowed, NULL for an honest device */
} linnet_device_config;

/** What the device needs next. */
typedef enum linnet_device_need {
    LINNET_DEVICE_POLL,     /* linnet_device_poll, not before wake_ms */
    LINNET_DEVICE_TRAIN,    /* linnet_device_train, as often as time allows */
    LINNET_DEVICE_EVALUATE, /* linnet_device_evaluate: a new adapter waits for its check before it is
                               installed */
    LINNET_DEVICE_FINISHED, /* the task has ended, or the device is revoked: see the report */
} linnet_device_need;

/** First contact: fetch HELLO, check it against the invite's pins, send the signed request, keep the
 * certificate. The identity is made and committed before it is sent, so that a lost answer can be asked for
 * again with the same invite. */
linnet_status linnet_device_enroll(linnet_kv *kv, linnet_http_fn *http, void *http_context,
                                   const linnet_invite *invite, const char *coordinator_url,
                                   uint32_t device_class, uint64_t now_s, linnet_error *err) LINNET_NODISCARD;

/** Load the state (NOT_FOUND before enrolment) and go on where it was. Borrows the config's pointers for its
 * life. */
linnet_status linnet_device_create(const linnet_device_config *config, int64_t now_ms,
                                   linnet_device **ret_device, linnet_error *err) LINNET_NODISCARD;
void linnet_device_destroy(linnet_device *device);
linnet_device_need linnet_device_next(const linnet_device *device, int64_t *ret_wake_ms);

/** One exchange with the coordinator (check in, fetch an object's next part, upload a chunk ...). Network
 * errors and Retry-After become a later wake_ms (exponential back-off, full jitter) and LINNET_OK; a status
 * other than OK is a local failure. */
linnet_status linnet_device_poll(linnet_device *device, int64_t now_ms, linnet_error *err) LINNET_NODISCARD;
/** Train for at most n_steps optimiser steps (0: to the end) with the caller's arena; checkpoints itself in
 * the store. When the last step is done the delta is committed as ready. */
linnet_status linnet_device_train(linnet_device *device, linnet_arena *arena, uint32_t n_steps,
                                  linnet_error *err) LINNET_NODISCARD;
/** Held-out loss of the newest release: install it, or keep the present adapter. Never decides whether to
 * train or join. */
linnet_status linnet_device_evaluate(linnet_device *device, linnet_arena *arena,
                                     linnet_error *err) LINNET_NODISCARD;
/** Context tokens an arena for this device needs; 0 before the plan is known. */
uint32_t linnet_device_context(const linnet_device *device);

typedef struct linnet_device_report {
    linnet_device_id device_id;
    char coordinator_url[256];
    const char *phase; /* "idle", "fetching", "training", "ready", "uploading", "finished", "revoked", and of
                         a masked round "joining", "sharing", "uploading", "attesting", "unmasking"; static */
    uint64_t version;  /* newest release known */
    uint64_t round;    /* last joined */
    uint64_t n_contributions, bytes_up, bytes_down; /* accepted uploads; bodies sent and received */
    uint64_t n_recovered;   /* of the contributions: those that receipts have told this process about */
    uint32_t step, n_steps; /* of the training in progress */
    double train_loss;      /* of the last step */
    bool has_held_out_loss;
    double held_out_loss;            /* of the installed adapter */
    linnet_hash installed, previous; /* adapters in use and before; zero: none */
    bool operator_is_authority;
    bool is_other_model;          /* the task's base model is not the one loaded, and never will be */
    linnet_hash base_model;       /* the task's; zero before the first release */
    char note[200];               /* why it refused or waits, one line; may be empty */
    int profile;                  /* linnet_profile of the newest plan; 0 before the first */
    bool is_in_round;             /* a masked round is in flight: who goes away now drops out of it */
    linnet_vault_place round_key; /* where it lies; of a running device only */
    bool has_budget;              /* a ledger was read: what it holds against the policy */
    linnet_privacy_total spent;
    double dp_epsilon, dp_epsilon_max, dp_delta; /* dp_epsilon_max 0: no limit */
} linnet_device_report;
void linnet_device_status(const linnet_device *device, linnet_device_report *ret_report);
/** The same from a store alone, without model and data (linnet-client status). */
linnet_status linnet_device_status_of(linnet_kv *kv, linnet_device_report *ret_report,
                                      linnet_error *err) LINNET_NODISCARD;
/** Fill in what a ledger (NULL: none) holds, at the policy's delta. */
void linnet_device_budget(linnet_budget_ledger *ledger, const linnet_policy *policy,
                          linnet_device_report *report);
/** Go back to the adapter before the installed one. NOT_FOUND where there is none. */
linnet_status linnet_device_roll_back(linnet_device *device, linnet_error *err) LINNET_NODISCARD;
/** The installed adapter, loaded when first asked for; NULL before the first. Borrowed until the next call
 * that changes the device. */
const linnet_adapter *linnet_device_adapter(linnet_device *device);

/* ---- libcurl as linnet_http_fn ---- */
typedef struct linnet_http_client linnet_http_client;
/** base_url "http://host:port[/prefix]" or https; proxies from the environment as curl does. */
linnet_status linnet_http_client_create(const char *base_url, linnet_http_client **ret_client,
                                        linnet_error *err) LINNET_NODISCARD;
void linnet_http_client_destroy(linnet_http_client *client);
linnet_status linnet_http_client_exchange(void *client, const linnet_http_request *request, size_t n_body_max,
                                          linnet_http_response *ret_response,
                                          linnet_error *err) LINNET_NODISCARD;
/** Content-addressed files under directory/objects. */
linnet_status linnet_object_cache_open_files(const char *directory, linnet_object_cache *ret_cache,
                                             linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_object_cache_open_memory(linnet_object_cache *ret_cache,
                                              linnet_error *err) LINNET_NODISCARD; /* thread-safe, shared */
void linnet_object_cache_close(linnet_object_cache *cache);

#endif
